//! The packed weights in stable memory: two regions, one with those of the model that answers, the
//! other for a set-up to write, or an upload (which `files` and `arrivals` see to).

use ic_stable_structures::Memory;
use icgpt_engine::Sink;
use serde_bytes::ByteBuf;

use crate::error::Error;
use crate::files::{self, Kind, PAGE, StableFile};
use crate::storage::{self, Live, Region};

/// Appends to the region that is not live.
pub struct Writer {
    region: Region,
    at: u64,
}

impl Sink for Writer {
    fn append(&mut self, bytes: &[u8]) -> bool {
        let end = self.at + bytes.len() as u64;
        if end > self.region.size() * PAGE {
            return false;
        }
        self.region.write(self.at, bytes);
        self.at = end;
        true
    }
}

/// The region that is not live.
fn free_region() -> Region {
    storage::with(|storage| {
        let live = storage.meta().slot(Kind::Packed).live_region;
        storage.region(Kind::Packed, 1 - live)
    })
}

/// Makes room for a packed file beside the live one.
///
/// # Errors
/// [`Error::OutOfStableMemory`].
pub fn writer(length: u64) -> Result<Writer, Error> {
    let region = free_region();
    files::grow(&region, length)?;
    Ok(Writer { region, at: 0 })
}

/// What a [`Writer`] wrote.
pub fn written(length: u64) -> StableFile {
    StableFile::new(free_region(), length)
}

/// The packed weights of the model that answers.
pub fn live() -> Option<StableFile> {
    files::live(Kind::Packed)
}

/// Their SHA-256.
pub fn sha256() -> Option<ByteBuf> {
    storage::with(|storage| {
        let live = storage.meta().slot(Kind::Packed).live.as_ref();
        live.map(|live| live.sha256.clone())
    })
}

/// Makes what was written live.
pub fn promote(length: u64, sha256: [u8; 32]) {
    let live = Live {
        length,
        sha256: ByteBuf::from(sha256.to_vec()),
    };
    storage::with(|storage| {
        storage.update(|meta| {
            let slot = meta.slot_mut(Kind::Packed);
            slot.live_region = 1 - slot.live_region;
            slot.live = Some(live);
        });
    });
}
