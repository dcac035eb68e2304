//! The three files of a model: staged by appends, sealed by `store`, live once a set-up used them.
//!
//! An upload never touches the live file: it goes to the kind's other region, and a successful
//! set-up makes that one the live one.

use std::fmt;
use std::mem::MaybeUninit;

use ic_stable_structures::Memory;
use icgpt_engine::Source;
use serde_bytes::ByteBuf;
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::storage::{self, Live, Region, Slot, Staged};
use crate::types::{FileInfo, FileState};

/// A page of stable memory.
pub const PAGE: u64 = 65_536;

/// A kind of file; the discriminant is its place in the stable record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Weights.
    Safetensors = 0,
    /// Sizes and settings.
    Config = 1,
    /// Vocabulary.
    Tokenizer = 2,
}

impl Kind {
    /// Largest file of the kind, in bytes.
    const fn limit(self) -> u64 {
        match self {
            Self::Safetensors => 16 << 30,
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
        })
    }
}

/// A file in a region of stable memory.
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

fn hasher(staged: &Staged) -> Sha256 {
    // The bytes were written by `append`; a state that does not parse can't occur, and an empty
    // one would only make the client's comparison fail.
    staged
        .hasher
        .as_slice()
        .try_into()
        .ok()
        .and_then(|state| Sha256::deserialize(state).ok())
        .unwrap_or_default()
}

fn staged_info(staged: &Staged) -> FileInfo {
    FileInfo {
        length: staged.length,
        sha256: ByteBuf::from(hasher(staged).finalize().to_vec()),
    }
}

fn fresh() -> Staged {
    Staged {
        length: 0,
        hasher: ByteBuf::from(Sha256::new().serialize().to_vec()),
        stored: false,
    }
}

/// Adds bytes to the upload under way, or begins one.
///
/// # Errors
/// [`Error::AlreadyStored`], [`Error::TooLarge`], [`Error::OutOfStableMemory`]; nothing is changed.
pub fn append(kind: Kind, bytes: &[u8]) -> Result<FileInfo, Error> {
    storage::with(|storage| {
        let slot = &storage.meta().slots[kind as usize];
        let mut staged = slot.staged.clone().unwrap_or_else(fresh);
        if staged.stored {
            return Err(Error::AlreadyStored(kind));
        }
        let end = staged.length + bytes.len() as u64;
        if end > kind.limit() {
            return Err(Error::TooLarge(kind, kind.limit()));
        }
        let region = storage.region(kind as usize, 1 - slot.live_region);
        let pages = end.div_ceil(PAGE);
        if pages > region.size() && region.grow(pages - region.size()) < 0 {
            return Err(Error::OutOfStableMemory);
        }
        region.write(staged.length, bytes);

        let mut hasher = hasher(&staged);
        hasher.update(bytes);
        staged.length = end;
        staged.hasher = ByteBuf::from(hasher.serialize().to_vec());
        let info = staged_info(&staged);
        storage.update(|meta| meta.slots[kind as usize].staged = Some(staged));
        Ok(info)
    })
}

/// Drops the upload under way and begins an empty one. The live file stays.
pub fn clear(kind: Kind) {
    storage::with(|storage| {
        storage.update(|meta| meta.slots[kind as usize].staged = Some(fresh()));
    });
}

/// Length of the upload under way, or of the live file when there is none.
pub fn length(kind: Kind) -> u64 {
    storage::with(|storage| {
        let slot = &storage.meta().slots[kind as usize];
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
/// [`Error::NothingUploaded`] when it is empty.
pub fn store(kind: Kind) -> Result<FileInfo, Error> {
    storage::with(|storage| {
        let slot = &storage.meta().slots[kind as usize];
        let mut staged = slot.staged.clone().ok_or(Error::NothingUploaded(kind))?;
        if staged.length == 0 {
            return Err(Error::NothingUploaded(kind));
        }
        staged.stored = true;
        let info = staged_info(&staged);
        storage.update(|meta| meta.slots[kind as usize].staged = Some(staged));
        Ok(info)
    })
}

/// The stored upload, or the live file when nothing is being uploaded.
///
/// # Errors
/// [`Error::NothingUploaded`], or [`Error::NotStored`] for a kind that has a `store` method.
pub fn candidate(kind: Kind) -> Result<(StableFile, FileInfo), Error> {
    storage::with(|storage| {
        let slot = &storage.meta().slots[kind as usize];
        let (which, length, info) = match (&slot.staged, &slot.live) {
            (Some(staged), _) if staged.length == 0 => return Err(Error::NothingUploaded(kind)),
            // A config has no store method in the seed's interface: appended is enough.
            (Some(staged), _) if staged.stored || kind == Kind::Config => {
                (1 - slot.live_region, staged.length, staged_info(staged))
            }
            (Some(_), _) => return Err(Error::NotStored(kind)),
            (None, Some(live)) => (slot.live_region, live.length, live_info(live)),
            (None, None) => return Err(Error::NothingUploaded(kind)),
        };
        let region = storage.region(kind as usize, which);
        Ok((StableFile { region, length }, info))
    })
}

/// Whether a non-empty upload of the kind waits for its set-up.
pub fn is_staged(kind: Kind) -> bool {
    storage::with(|storage| {
        storage.meta().slots[kind as usize]
            .staged
            .as_ref()
            .is_some_and(|s| s.length > 0)
    })
}

/// The file in use.
pub fn live(kind: Kind) -> Option<StableFile> {
    storage::with(|storage| {
        let slot = &storage.meta().slots[kind as usize];
        let length = slot.live.as_ref()?.length;
        Some(StableFile {
            region: storage.region(kind as usize, slot.live_region),
            length,
        })
    })
}

/// Makes the upload of each kind, where there is one, the live file.
pub fn promote(kinds: &[Kind]) {
    storage::with(|storage| {
        storage.update(|meta| {
            for &kind in kinds {
                let slot = &mut meta.slots[kind as usize];
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
    storage::with(|storage| storage.update(|meta| meta.slots[kind as usize].live = None));
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
        let Slot { live, staged, .. } = &storage.meta().slots[kind as usize];
        FileState {
            staged: staged.as_ref().map(staged_info),
            stored: staged.as_ref().is_some_and(|s| s.stored),
            live: live.as_ref().map(live_info),
        }
    })
}
