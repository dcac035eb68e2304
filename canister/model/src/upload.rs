//! Our own upload beside the seed's appends: chunks in any order, by offset, as often as it takes.

#![allow(
    clippy::needless_pass_by_value,
    reason = "Candid decodes arguments as owned values"
)]

use serde_bytes::ByteBuf;

use crate::access::manager;
use crate::arrivals;
use crate::error::Error;
use crate::serving::files_may_change;
use crate::types::{FileInfo, FileKind, Upload};

fn text<T>(result: Result<T, Error>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

#[ic_cdk::update(guard = "manager")]
fn begin(kind: FileKind, length: u64, sha256: ByteBuf) -> Result<Upload, String> {
    text(files_may_change().and_then(|()| arrivals::begin(kind, length, sha256)))
}

#[ic_cdk::update(guard = "manager")]
fn write(kind: FileKind, offset: u64, bytes: ByteBuf) -> Result<FileInfo, String> {
    text(files_may_change().and_then(|()| arrivals::write(kind, offset, &bytes)))
}

#[ic_cdk::query]
fn missing(kind: FileKind) -> Option<Upload> {
    arrivals::missing(kind)
}

#[ic_cdk::update(guard = "manager")]
async fn commit(kind: FileKind, sha256: ByteBuf) -> Result<FileInfo, String> {
    text(arrivals::commit(kind, sha256).await)
}

#[ic_cdk::update(guard = "manager")]
fn discard(kind: FileKind) -> Result<(), String> {
    text(files_may_change().map(|()| arrivals::discard(kind)))
}
