//! Uploads of chunks at any offset: begun with length and SHA-256, written in any order and more
//! than once, committed when nothing is missing and the hash is what was said.
//!
//! Hashing takes some 84 instructions a byte, so no byte is hashed twice: one running SHA-256 goes
//! along with the chunks as far as they follow each other, and catches up from stable memory when
//! a hole is filled. Bytes that have arrived never change, so what was hashed stays true.
//! All of it is in stable memory when a message ends: an upgrade or a kill loses nothing.

use ic_stable_structures::Memory;
use serde_bytes::ByteBuf;
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::files::{self, Kind, fresh, hasher, staged_info};
use crate::ranges::{Place, Ranges, Stretch};
use crate::serving;
use crate::slices::{self, PIECE, next_message};
use crate::storage::{self, Begun, Region, Slot, Staged};
use crate::types::{FileInfo, Upload};

/// Bytes of stable memory read and hashed at a time.
const AT_ONCE: u64 = 1 << 20;

/// Bytes that a write may hash beyond its own; `commit` does what is left.
const CAUGHT_UP_A_WRITE: u64 = 4 << 20;

/// An upload under way and what was said of it, where it was begun.
fn begun(slot: &Slot, kind: Kind) -> Result<(Staged, Begun), Error> {
    let staged = slot.staged.as_ref();
    staged
        .and_then(|staged| Some((staged.clone(), staged.begun.clone()?)))
        .ok_or(Error::NotBegun(kind))
}

fn told(staged: &Staged, begun: &Begun) -> Upload {
    Upload {
        length: begun.length,
        sha256: begun.sha256.clone(),
        arrived: begun.arrived.count(),
        missing: begun.arrived.missing(begun.length),
        hashed: staged_info(staged),
        committed: staged.stored,
    }
}

/// Begins an upload, in the place of any other of the kind, or goes on with the very same one.
///
/// # Errors
/// [`Error::Sha256`], [`Error::Empty`], [`Error::TooLarge`]; nothing is changed.
pub fn begin(kind: Kind, length: u64, sha256: ByteBuf) -> Result<Upload, Error> {
    if sha256.len() != 32 {
        return Err(Error::Sha256);
    }
    if length == 0 {
        return Err(Error::Empty(kind));
    }
    if length > kind.limit() {
        return Err(Error::TooLarge(kind, kind.limit()));
    }
    storage::with(|storage| {
        if let Ok((staged, begun)) = begun(storage.meta().slot(kind), kind)
            && (begun.length, &begun.sha256) == (length, &sha256)
        {
            return Ok(told(&staged, &begun));
        }
        let begun = Begun {
            length,
            sha256,
            arrived: Ranges::default(),
        };
        let staged = Staged {
            begun: Some(begun.clone()),
            ..fresh()
        };
        let answer = told(&staged, &begun);
        storage.update(|meta| {
            files::make_way(meta, kind);
            meta.slot_mut(kind).staged = Some(staged);
        });
        Ok(answer)
    })
}

/// Takes a chunk. One that is there already is compared, and changes nothing.
///
/// # Errors
/// What is wrong with the chunk, or [`Error::OutOfStableMemory`]; nothing is changed.
pub fn write(kind: Kind, offset: u64, bytes: &[u8]) -> Result<FileInfo, Error> {
    storage::with(|storage| {
        let slot = storage.meta().slot(kind);
        let region = storage.region(kind, 1 - slot.live_region);
        let (mut staged, mut begun) = begun(slot, kind)?;
        let end = offset.checked_add(bytes.len() as u64);
        let end = end.filter(|&end| offset < end && end <= begun.length);
        let end = end.ok_or(Error::OutOfFile(kind, begun.length))?;
        let chunk = Stretch { start: offset, end };
        match begun.arrived.place(chunk) {
            Place::Free => {}
            Place::Held if is_equal(&region, offset, bytes) => return Ok(staged_info(&staged)),
            Place::Held => return Err(Error::OtherBytes(kind, offset)),
            Place::Mixed => return Err(Error::Overlap(kind, offset)),
            Place::TooScattered => return Err(Error::TooScattered(kind)),
        }
        files::grow(&region, end)?;
        region.write(offset, bytes);
        begun.arrived.add(chunk);

        let mut hasher = hasher(&staged);
        if offset == staged.length {
            hasher.update(bytes);
            staged.length = end;
        }
        let mut left = CAUGHT_UP_A_WRITE;
        catch_up(&region, &mut staged, &begun, &mut hasher, &mut || {
            let more = left > 0;
            left = left.saturating_sub(AT_ONCE);
            more
        });
        staged.hasher = ByteBuf::from(hasher.serialize().to_vec());
        staged.begun = Some(begun);
        let info = staged_info(&staged);
        storage.update(|meta| meta.slot_mut(kind).staged = Some(staged));
        Ok(info)
    })
}

/// Hashes on from stable memory, as far as bytes have arrived without a hole.
fn catch_up(
    region: &Region,
    staged: &mut Staged,
    begun: &Begun,
    hasher: &mut Sha256,
    may_continue: &mut dyn FnMut() -> bool,
) {
    let mut piece = Vec::new();
    while staged.length < begun.arrived.beginning() && may_continue() {
        let left = begun.arrived.beginning() - staged.length;
        piece.resize(left.min(AT_ONCE) as usize, 0);
        region.read(staged.length, &mut piece);
        hasher.update(&piece);
        staged.length += piece.len() as u64;
    }
}

fn is_equal(region: &Region, offset: u64, bytes: &[u8]) -> bool {
    let mut there = vec![0; bytes.len()];
    region.read(offset, &mut there);
    there == bytes
}

/// The upload under way, where it was begun.
pub fn missing(kind: Kind) -> Option<Upload> {
    storage::with(|storage| {
        let (staged, begun) = begun(storage.meta().slot(kind), kind).ok()?;
        Some(told(&staged, &begun))
    })
}

/// Completes an upload, over as many messages as hashing what is not hashed yet takes.
///
/// # Errors
/// [`Error::Missing`] and [`Error::OtherUpload`] change nothing. [`Error::WrongHash`] drops the
/// upload: which of its bytes are wrong can't be told.
pub async fn commit(kind: Kind, sha256: ByteBuf) -> Result<FileInfo, Error> {
    loop {
        serving::files_may_change()?;
        let mut stretch = slices::Stretch::setting_up();
        if let Some(info) = advance(kind, &sha256, &mut || stretch.more(PIECE))? {
            return Ok(info);
        }
        next_message().await?;
    }
}

/// Goes on with a commit; its outcome once there is one.
fn advance(
    kind: Kind,
    sha256: &ByteBuf,
    may_continue: &mut dyn FnMut() -> bool,
) -> Result<Option<FileInfo>, Error> {
    storage::with(|storage| {
        let slot = storage.meta().slot(kind);
        let region = storage.region(kind, 1 - slot.live_region);
        let (mut staged, begun) = begun(slot, kind)?;
        if begun.sha256 != *sha256 {
            return Err(Error::OtherUpload(kind));
        }
        let missing = begun.length - begun.arrived.count();
        if missing > 0 {
            return Err(Error::Missing(kind, missing));
        }
        let mut hasher = hasher(&staged);
        catch_up(&region, &mut staged, &begun, &mut hasher, may_continue);
        staged.hasher = ByteBuf::from(hasher.serialize().to_vec());
        let info = staged_info(&staged);
        let whole = staged.length == begun.length;
        if whole && info.sha256 != begun.sha256 {
            storage.update(|meta| meta.slot_mut(kind).staged = None);
            return Err(Error::WrongHash(kind));
        }
        staged.stored = whole;
        storage.update(|meta| meta.slot_mut(kind).staged = Some(staged));
        Ok(whole.then_some(info))
    })
}

/// Drops an upload under way, if there is one. What is live stays.
pub fn discard(kind: Kind) {
    storage::with(|storage| storage.update(|meta| meta.slot_mut(kind).staged = None));
}
