//! Answers of methods whose result has no place for an error: the error becomes a reject, which
//! every client reports, also one that was made for the seed and expects nothing back.

use std::marker::PhantomData;

use candid::CandidType;
use ic_cdk::api::{msg_reject, msg_reply};

use crate::error::Error;

/// Answers with a value.
pub fn value<T: CandidType>(result: Result<T, Error>) -> PhantomData<T> {
    match result.map(|value| candid::encode_one(value)) {
        Ok(Ok(bytes)) => msg_reply(bytes),
        Ok(Err(error)) => msg_reject(error.to_string()),
        Err(error) => msg_reject(error.to_string()),
    }
    PhantomData
}

/// Answers with no values, `()` in Candid.
pub fn nothing(result: Result<(), Error>) {
    match result {
        Ok(()) => msg_reply(b"DIDL\0\0"),
        Err(error) => msg_reject(error.to_string()),
    }
}
