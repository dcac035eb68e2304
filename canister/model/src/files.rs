//! The files of a model: staged by appends and sealed by `store`, or by chunks and `commit` (see
//! `arrivals`); live once a set-up used them.
//!
//! An upload never touches the live file: it goes to the kind's other region, and a successful
//! set-up makes that one the live one. Weights come as a checkpoint or packed already: an upload of
//! the one drops an upload of the other, so that it is never in doubt which a set-up takes.

use std::fmt;
use std::mem::MaybeUninit;

use candid::CandidType;
use ic_stable_structures::Memory;
use icgpt_engine::Source;
use serde::Deserialize;
use serde_bytes::ByteBuf;
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::storage::{self, Live, Meta, Region, Slot, Staged};
use crate::types::{FileInfo, FileState};

/// A page of stable memory.
pub const PAGE: u64 = 65_536;

/// A kind of file; the discriminant is its place in the stable record and among the regions.
#[derive(CandidType, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Weights.
    #[serde(rename = "safetensors")]
    Safetensors = 0,
    /// Sizes and settings.
    #[serde(rename = "config")]
    Config = 1,
    /// Vocabulary.
    #[serde(rename = "tokenizer")]
    Tokenizer = 2,
    /// Weights as the kernels want them.
    #[serde(rename = "packed")]
    Packed = 3,
}

impl Kind {
    /// Largest file of the kind, in bytes.
    pub const fn limit(self) -> u64 {
        match self {
            Self::Safetensors | Self::Packed => 16 << 30,
            Self::Config => 1 << 20,
            Self::Tokenizer => 32 << 20,
        }
    }
}

impl fmt::Display for Kind {
    /// The name inside the methods' names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::Config => "config",
            Self::Tokenizer => "tokenizer",
            Self::Packed => "packed",
        })
    }
}

/// A file in a region of stable memory.
#[derive(Clone)]
pub struct StableFile {
    region: Region,
    length: u64,
}

impl Source for StableFile {
    fn len(&self) -> u64 {
        self.length
    }

    fn read(&self, offset: u64, buf: &mut [u8]) {
        self.region.read(offset, buf);
    }

    fn read_new<'a>(&self, offset: u64, buf: &'a mut [MaybeUninit<u8>]) -> &'a mut [u8] {
        let (start, count) = (buf.as_mut_ptr().cast(), buf.len());
        // SAFETY: the buffer is `count` bytes, all of which are written before they are lent out.
        unsafe {
            self.region.read_unsafe(offset, start, count);
            std::slice::from_raw_parts_mut(start, count)
        }
    }
}

impl StableFile {
    /// The first `length` bytes of a region.
    pub fn new(region: Region, length: u64) -> Self {
        Self { region, length }
    }

    /// The whole file; for the small kinds.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length as usize];
        self.read(0, &mut bytes);
        bytes
    }
}

/// The running SHA-256 of an upload.
pub fn hasher(staged: &Staged) -> Sha256 {
    // The bytes were written by this module; a state that does not parse can't occur, and an empty
    // one would only make the client's comparison fail.
    staged
        .hasher
        .as_slice()
        .try_into()
        .ok()
        .and_then(|state| Sha256::deserialize(state).ok())
        .unwrap_or_default()
}

/// How much of an upload is hashed, and its SHA-256.
pub fn staged_info(staged: &Staged) -> FileInfo {
    FileInfo {
        length: staged.length,
        sha256: ByteBuf::from(hasher(staged).finalize().to_vec()),
    }
}

/// An empty upload.
pub fn fresh() -> Staged {
    Staged {
        length: 0,
        hasher: ByteBuf::from(Sha256::new().serialize().to_vec()),
        stored: false,
        begun: None,
    }
}

/// Lets an upload of weights take the place of one in the other form.
pub fn make_way(meta: &mut Meta, kind: Kind) {
    match kind {
        Kind::Safetensors => meta.slot_mut(Kind::Packed).staged = None,
        Kind::Packed => meta.slot_mut(Kind::Safetensors).staged = None,
        Kind::Config | Kind::Tokenizer => {}
    }
}

/// Makes a region as long as it must be.
///
/// # Errors
/// [`Error::OutOfStableMemory`].
pub fn grow(region: &Region, length: u64) -> Result<(), Error> {
    let (pages, there) = (length.div_ceil(PAGE), region.size());
    if pages > there && region.grow(pages - there) < 0 {
        return Err(Error::OutOfStableMemory);
    }
    Ok(())
}

/// Adds bytes to the upload under way, or begins one.
///
/// # Errors
/// [`Error::AlreadyStored`], [`Error::Begun`], [`Error::TooLarge`], [`Error::OutOfStableMemory`];
/// nothing is changed.
pub fn append(kind: Kind, bytes: &[u8]) -> Result<FileInfo, Error> {
    storage::with(|storage| {
        let slot = storage.meta().slot(kind);
        let mut staged = slot.staged.clone().unwrap_or_else(fresh);
        if staged.stored {
            return Err(Error::AlreadyStored(kind));
        }
        if staged.begun.is_some() {
            return Err(Error::Begun(kind));
        }
        let end = staged.length + bytes.len() as u64;
        if end > kind.limit() {
            return Err(Error::TooLarge(kind, kind.limit()));
        }
        let region = storage.region(kind, 1 - slot.live_region);
        grow(&region, end)?;
        region.write(staged.length, bytes);

        let mut hasher = hasher(&staged);
        hasher.update(bytes);
        staged.length = end;
        staged.hasher = ByteBuf::from(hasher.serialize().to_vec());
        let info = staged_info(&staged);
        storage.update(|meta| {
            make_way(meta, kind);
            meta.slot_mut(kind).staged = Some(staged);
        });
        Ok(info)
    })
}

/// Drops the upload under way and begins an empty one. The live file stays.
pub fn clear(kind: Kind) {
    storage::with(|storage| {
        storage.update(|meta| meta.slot_mut(kind).staged = Some(fresh()));
    });
}

/// Length of the upload under way, or of the live file when there is none.
pub fn length(kind: Kind) -> u64 {
    storage::with(|storage| {
        let slot = storage.meta().slot(kind);
        match (&slot.staged, &slot.live) {
            (Some(staged), _) => staged.length,
            (None, Some(live)) => live.length,
            (None, None) => 0,
        }
    })
}

/// Marks the upload as complete.
///
/// # Errors
/// [`Error::NothingUploaded`] when it is empty, [`Error::Begun`] when it was begun by `begin`.
pub fn store(kind: Kind) -> Result<FileInfo, Error> {
    storage::with(|storage| {
        let slot = storage.meta().slot(kind);
        let mut staged = slot.staged.clone().ok_or(Error::NothingUploaded(kind))?;
        if staged.begun.is_some() && !staged.stored {
            return Err(Error::Begun(kind));
        }
        if staged.length == 0 {
            return Err(Error::NothingUploaded(kind));
        }
        staged.stored = true;
        let info = staged_info(&staged);
        storage.update(|meta| meta.slot_mut(kind).staged = Some(staged));
        Ok(info)
    })
}

/// The stored upload, or the live file when nothing is being uploaded.
///
/// # Errors
/// [`Error::NothingUploaded`], [`Error::Begun`] for an upload that is not committed, or
/// [`Error::NotStored`] for a kind that has a `store` method.
pub fn candidate(kind: Kind) -> Result<(StableFile, FileInfo), Error> {
    storage::with(|storage| {
        let slot = storage.meta().slot(kind);
        let (which, length, info) = match (&slot.staged, &slot.live) {
            (
                Some(Staged {
                    begun: Some(_),
                    stored: false,
                    ..
                }),
                _,
            ) => {
                return Err(Error::Begun(kind));
            }
            (Some(staged), _) if staged.length == 0 => return Err(Error::NothingUploaded(kind)),
            // A config has no store method in the seed's interface: appended is enough.
            (Some(staged), _) if staged.stored || kind == Kind::Config => {
                (1 - slot.live_region, staged.length, staged_info(staged))
            }
            (Some(_), _) => return Err(Error::NotStored(kind)),
            (None, Some(live)) => (slot.live_region, live.length, live_info(live)),
            (None, None) => return Err(Error::NothingUploaded(kind)),
        };
        let region = storage.region(kind, which);
        Ok((StableFile { region, length }, info))
    })
}

/// Whether a non-empty upload of the kind waits for its set-up.
pub fn is_staged(kind: Kind) -> bool {
    storage::with(|storage| {
        let staged = storage.meta().slot(kind).staged.as_ref();
        staged.is_some_and(|staged| staged.length > 0 || staged.begun.is_some())
    })
}

/// The file in use.
pub fn live(kind: Kind) -> Option<StableFile> {
    storage::with(|storage| {
        let slot = storage.meta().slot(kind);
        let length = slot.live.as_ref()?.length;
        Some(StableFile {
            region: storage.region(kind, slot.live_region),
            length,
        })
    })
}

/// Makes the upload of each kind, where there is one, the live file.
pub fn promote(kinds: &[Kind]) {
    storage::with(|storage| {
        storage.update(|meta| {
            for &kind in kinds {
                let slot = meta.slot_mut(kind);
                if let Some(staged) = slot.staged.take() {
                    let info = staged_info(&staged);
                    slot.live = Some(Live {
                        length: info.length,
                        sha256: info.sha256,
                    });
                    slot.live_region = 1 - slot.live_region;
                }
            }
        });
    });
}

/// Forgets the live file of a kind.
pub fn retire(kind: Kind) {
    storage::with(|storage| storage.update(|meta| meta.slot_mut(kind).live = None));
}

fn live_info(live: &Live) -> FileInfo {
    FileInfo {
        length: live.length,
        sha256: live.sha256.clone(),
    }
}

/// What `files` shows of one kind.
pub fn state(kind: Kind) -> FileState {
    storage::with(|storage| {
        let Slot { live, staged, .. } = storage.meta().slot(kind);
        FileState {
            staged: staged.as_ref().map(staged_info),
            stored: staged.as_ref().is_some_and(|s| s.stored),
            live: live.as_ref().map(live_info),
        }
    })
}
