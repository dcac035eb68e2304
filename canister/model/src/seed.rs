//! The seed's interface: upload by appending, set-up, tokenizer and generation.

#![allow(
    clippy::needless_pass_by_value,
    reason = "Candid decodes arguments as owned values"
)]

use std::marker::PhantomData;

use ic_cdk::api::msg_caller;
use serde_bytes::ByteBuf;

use crate::access::{manager, user};
use crate::error::Error;
use crate::files::{self, Kind};
use crate::jobs;
use crate::reply;
use crate::serving;
use crate::types::{FileInfo, InferenceRecord, Options, Prompt, TokenIDsResult, TokenizerEncoding};

/// `generate` takes no more, as in the seed.
const MAX_GENERATED: u8 = 100;

fn append(kind: Kind, bytes: &[u8]) -> PhantomData<FileInfo> {
    reply::value(serving::files_may_change().and_then(|()| files::append(kind, bytes)))
}

fn clear(kind: Kind) {
    reply::nothing(serving::files_may_change().map(|()| files::clear(kind)));
}

fn store(kind: Kind) -> PhantomData<FileInfo> {
    reply::value(serving::files_may_change().and_then(|()| files::store(kind)))
}

fn load(kind: Kind) -> PhantomData<FileInfo> {
    reply::value(
        serving::check(kind)
            .and_then(|()| files::candidate(kind))
            .map(|(_, info)| info),
    )
}

#[ic_cdk::update(guard = "manager", manual_reply = true)]
fn append_config_bytes(bytes: ByteBuf) -> PhantomData<FileInfo> {
    append(Kind::Config, &bytes)
}

#[ic_cdk::update(guard = "manager", manual_reply = true)]
fn append_safetensors_bytes(bytes: ByteBuf) -> PhantomData<FileInfo> {
    append(Kind::Safetensors, &bytes)
}

#[ic_cdk::update(guard = "manager", manual_reply = true)]
fn append_tokenizer_bytes(bytes: ByteBuf) -> PhantomData<FileInfo> {
    append(Kind::Tokenizer, &bytes)
}

#[ic_cdk::query]
fn config_bytes_length() -> u64 {
    files::length(Kind::Config)
}

#[ic_cdk::query]
fn safetensors_bytes_length() -> u64 {
    files::length(Kind::Safetensors)
}

#[ic_cdk::query]
fn tokenizer_bytes_length() -> u64 {
    files::length(Kind::Tokenizer)
}

#[ic_cdk::update(guard = "manager", manual_reply = true)]
fn clear_config_bytes() {
    clear(Kind::Config);
}

#[ic_cdk::update(guard = "manager", manual_reply = true)]
fn clear_safetensors_bytes() {
    clear(Kind::Safetensors);
}

#[ic_cdk::update(guard = "manager", manual_reply = true)]
fn clear_tokenizer_bytes() {
    clear(Kind::Tokenizer);
}

#[ic_cdk::update(guard = "manager", manual_reply = true)]
fn store_safetensors_bytes_to_stable() -> PhantomData<FileInfo> {
    store(Kind::Safetensors)
}

#[ic_cdk::update(guard = "manager", manual_reply = true)]
fn store_tokenizer_bytes_to_stable() -> PhantomData<FileInfo> {
    store(Kind::Tokenizer)
}

#[ic_cdk::update(guard = "manager", manual_reply = true)]
fn load_safetensors_bytes_from_stable() -> PhantomData<FileInfo> {
    load(Kind::Safetensors)
}

#[ic_cdk::update(guard = "manager", manual_reply = true)]
fn load_tokenizer_bytes_from_stable() -> PhantomData<FileInfo> {
    load(Kind::Tokenizer)
}

#[ic_cdk::update(guard = "manager")]
fn setup_tokenizer() -> Option<String> {
    serving::set_up_tokenizer()
        .err()
        .map(|error| error.to_string())
}

#[ic_cdk::update(guard = "manager")]
async fn setup_model() -> Result<(), String> {
    serving::set_up_model()
        .await
        .map_err(|error| error.to_string())
}

#[ic_cdk::query]
fn tokenize(text: String) -> Result<TokenizerEncoding, String> {
    let encode = || -> Result<TokenizerEncoding, Error> {
        let encoding = serving::tokenizer()?.encode(&text)?;
        Ok(TokenizerEncoding {
            token_ids: encoding.ids,
            tokens: encoding.tokens,
        })
    };
    encode().map_err(|error| error.to_string())
}

#[ic_cdk::query]
fn decode(ids: Vec<u32>) -> Result<Vec<String>, String> {
    let decode = || -> Result<Vec<String>, Error> {
        let tokenizer = serving::tokenizer()?;
        ids.iter()
            .map(|&id| tokenizer.token(id).ok_or(Error::UnknownToken(id)))
            .collect()
    };
    decode().map_err(|error| error.to_string())
}

#[ic_cdk::query]
fn decode_batch(ids: Vec<u32>) -> Result<String, String> {
    let decode = || -> Result<String, Error> {
        let tokenizer = serving::tokenizer()?;
        // The library passes over ids that it doesn't know.
        match ids.iter().find(|&&id| tokenizer.token(id).is_none()) {
            Some(&id) => Err(Error::UnknownToken(id)),
            None => Ok(tokenizer.decode(&ids, true)?),
        }
    };
    decode().map_err(|error| error.to_string())
}

#[ic_cdk::update(guard = "user")]
async fn inference(
    ids: Vec<u32>,
    max_new_tokens: u8,
    temperature: f64,
) -> Result<InferenceRecord, String> {
    let options = Options {
        max_new_tokens: Some(max_new_tokens.into()),
        temperature: Some(temperature),
        ..Options::default()
    };
    let run = async {
        let prompt = Prompt::TokenIds(ids);
        jobs::complete(msg_caller(), prompt, options, false, jobs::Kind::Passing).await
    };
    match run.await {
        Ok(done) => Ok(InferenceRecord {
            result: TokenIDsResult::Ok(done.token_ids),
        }),
        Err(error) => Err(error.to_string()),
    }
}

#[ic_cdk::update(guard = "user")]
async fn generate(text: String, max_new_tokens: u8, temperature: f64) -> Result<String, String> {
    let run = async {
        if max_new_tokens > MAX_GENERATED {
            return Err(Error::Limit(
                "generate gives at most 100 tokens: use complete or submit for more",
            ));
        }
        if !(0.0..=2.0).contains(&temperature) {
            return Err(Error::Limit(
                "the temperature of generate must lie between 0 and 2",
            ));
        }
        serving::tokenizer()?;
        let options = Options {
            max_new_tokens: Some(max_new_tokens.into()),
            temperature: Some(temperature),
            ..Options::default()
        };
        let prompt = Prompt::Text(text);
        jobs::complete(msg_caller(), prompt, options, true, jobs::Kind::Passing).await
    };
    let done = run.await.map_err(|error| error.to_string())?;
    Ok(done.text.unwrap_or_default())
}
