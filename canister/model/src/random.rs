//! Seeds and job ids that nobody can foresee.
//!
//! The platform's randomness costs a call, so it is drawn once and stretched with SHA-256 over a
//! counter. The key lives in the heap only: an upgrade draws a new one.

use std::cell::{Cell, RefCell};

use candid::Principal;
use ic_cdk::call::Call;
use sha2::{Digest, Sha256};

use crate::error::Error;

thread_local! {
    static KEY: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
    static COUNTER: Cell<u64> = const { Cell::new(0) };
}

/// The key as far as one was drawn; for names that need not be told.
pub fn key() -> Vec<u8> {
    KEY.with_borrow(|key| key.clone().unwrap_or_default())
}

/// 32 bytes that were never given out before.
///
/// # Errors
/// [`Error::Platform`] when the platform's randomness can't be had.
pub async fn draw() -> Result<[u8; 32], Error> {
    if KEY.with_borrow(Option::is_none) {
        let key: Vec<u8> = Call::unbounded_wait(Principal::management_canister(), "raw_rand")
            .await
            .map_err(|e| Error::Platform(e.to_string()))?
            .candid()
            .map_err(|e| Error::Platform(e.to_string()))?;
        KEY.set(Some(key));
    }
    COUNTER.set(COUNTER.get() + 1);
    Ok(KEY.with_borrow(|key| {
        Sha256::new()
            .chain_update(key.as_deref().unwrap_or_default())
            .chain_update(COUNTER.get().to_le_bytes())
            .finalize()
            .into()
    }))
}

/// A seed that was never given out before.
///
/// # Errors
/// See [`draw`].
pub async fn seed() -> Result<u64, Error> {
    let bytes = draw().await?;
    Ok(bytes[..8]
        .iter()
        .fold(0, |seed, &byte| seed << 8 | u64::from(byte)))
}
