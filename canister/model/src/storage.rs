//! Stable memory: which region lies where, and the small record that names what is in them.
//!
//! | region | what |
//! |---|---|
//! | 0 | [`Meta`]: layout version, public mode, the state of each file |
//! | 1, 2 | managers, users |
//! | 3–8 | two regions a file kind: the live file and the upload that may replace it |
//! | 9, 10 | packed weights: those of the model that answers, and those that a set-up or an upload writes |
//! | 16 | jobs |
//! | 17, 18 | quotas, and what was used of them |
//!
//! Stable memory is the truth: everything here survives an upgrade, and the heap is rebuilt from it.

use std::borrow::Cow;
use std::cell::RefCell;

use candid::{CandidType, Decode, Encode, Principal};
use ic_stable_structures::memory_manager::{MemoryId, MemoryManager, VirtualMemory};
use ic_stable_structures::storable::Bound;
use ic_stable_structures::{Cell, DefaultMemoryImpl, Memory, StableBTreeSet, Storable};
use serde::Deserialize;
use serde_bytes::ByteBuf;

use crate::files::Kind;
use crate::ranges::Ranges;

/// Layout of stable memory that this module writes and reads.
pub const LAYOUT_VERSION: u32 = 2;

/// Before there were packed weights: all that it has is read as it is.
const WITHOUT_PACKED: u32 = 1;

/// The region of jobs.
pub const JOBS: u8 = 16;

/// The region of quotas.
pub const QUOTAS: u8 = 17;

/// The region of what was used of the quotas.
pub const USAGE: u8 = 18;

/// A bucket of 2 MiB lets the memory manager's 32,768 buckets reach 64 GiB.
const BUCKET_PAGES: u16 = 32;

/// A stretch of stable memory that grows by itself.
pub type Region = VirtualMemory<DefaultMemoryImpl>;

/// An upload under way.
#[derive(CandidType, Deserialize, Clone)]
pub struct Staged {
    /// Bytes so far; of an upload that was begun, those that are hashed.
    pub length: u64,
    /// State of the SHA-256 over them, so that an upload goes on after an upgrade.
    pub hasher: ByteBuf,
    /// It is complete: `store_…_to_stable` was called, or `commit` succeeded.
    pub stored: bool,
    /// What `begin` said, and what has arrived since; none for an upload by appends.
    pub begun: Option<Begun>,
}

/// An upload of chunks at any offset.
#[derive(CandidType, Deserialize, Clone)]
pub struct Begun {
    /// Bytes that it is to have.
    pub length: u64,
    /// The SHA-256 that it is to have.
    pub sha256: ByteBuf,
    /// What has arrived.
    pub arrived: Ranges,
}

/// A complete file.
#[derive(CandidType, Deserialize, Clone)]
pub struct Live {
    /// Its length in bytes.
    pub length: u64,
    /// Its SHA-256.
    pub sha256: ByteBuf,
}

/// One kind of file.
#[derive(CandidType, Deserialize, Clone, Default)]
pub struct Slot {
    /// Which of the two regions the live file is in; the other takes the upload.
    pub live_region: u8,
    /// The file in use.
    pub live: Option<Live>,
    /// The upload under way.
    pub staged: Option<Staged>,
}

/// What the canister must know before it can read anything else.
#[derive(CandidType, Deserialize, Clone, Default)]
pub struct Meta {
    /// Anyone may generate.
    pub public: bool,
    /// Instructions that a message may spend, where a manager chose.
    pub per_message: Option<u64>,
    /// What managers call the model that answers.
    pub name: Option<String>,
    /// Precision of the model that answers; none for f32 of before there was a choice.
    pub precision: Option<String>,
    /// Precision that a manager chose for the next set-up.
    pub next_precision: Option<String>,
    /// Bytes of weights that may be in the heap, where a manager chose.
    pub heap_for_weights: Option<u64>,
    /// Safetensors, config, tokenizer.
    pub slots: [Slot; 3],
    /// The packed weights.
    pub packed: Option<Slot>,
}

/// A kind of which there is nothing.
static NOTHING: Slot = Slot {
    live_region: 0,
    live: None,
    staged: None,
};

impl Meta {
    /// What there is of a kind of file.
    pub fn slot(&self, kind: Kind) -> &Slot {
        match self.slots.get(kind as usize) {
            Some(slot) => slot,
            None => self.packed.as_ref().unwrap_or(&NOTHING),
        }
    }

    /// The same, to be changed.
    pub fn slot_mut(&mut self, kind: Kind) -> &mut Slot {
        match self.slots.get_mut(kind as usize) {
            Some(slot) => slot,
            None => self.packed.get_or_insert_default(),
        }
    }
}

/// [`Meta`] behind its layout version, so that a later module knows what it reads.
struct Versioned {
    version: u32,
    meta: Option<Meta>,
}

impl Storable for Versioned {
    const BOUND: Bound = Bound::Unbounded;

    fn to_bytes(&self) -> Cow<'_, [u8]> {
        let mut bytes = self.version.to_le_bytes().to_vec();
        if let Some(Ok(encoded)) = self.meta.as_ref().map(|meta| Encode!(meta)) {
            bytes.extend(encoded);
        }
        Cow::Owned(bytes)
    }

    fn into_bytes(self) -> Vec<u8> {
        self.to_bytes().into_owned()
    }

    fn from_bytes(bytes: Cow<'_, [u8]>) -> Self {
        let Some((version, encoded)) = bytes.split_first_chunk::<4>() else {
            return Self {
                version: 0,
                meta: None,
            };
        };
        let version = u32::from_le_bytes(*version);
        // Another version's record is not guessed at; `open` refuses it.
        let meta = if (WITHOUT_PACKED..=LAYOUT_VERSION).contains(&version) {
            Decode!(encoded, Meta).ok()
        } else {
            None
        };
        Self { version, meta }
    }
}

/// Everything in stable memory.
pub struct Storage {
    cell: Cell<Versioned, Region>,
    meta: Meta,
    /// Who may upload.
    pub managers: StableBTreeSet<Principal, Region>,
    /// Who may generate.
    pub users: StableBTreeSet<Principal, Region>,
    regions: MemoryManager<DefaultMemoryImpl>,
}

/// Stable memory holds something that this module can't read.
#[derive(Debug)]
pub struct UnknownLayout(pub u32);

impl Storage {
    /// Opens stable memory, or lays it out where it is empty.
    ///
    /// # Errors
    /// [`UnknownLayout`] when another program, or another version of this one, wrote it.
    pub fn open() -> Result<Self, UnknownLayout> {
        let memory = DefaultMemoryImpl::default();
        if memory.size() > 0 {
            // The manager would lay foreign memory out afresh, and so wipe it.
            let mut magic = [0; 3];
            memory.read(0, &mut magic);
            if &magic != b"MGR" {
                return Err(UnknownLayout(0));
            }
        }
        let regions = MemoryManager::init_with_bucket_size(memory, BUCKET_PAGES);
        let fresh = Versioned {
            version: LAYOUT_VERSION,
            meta: Some(Meta::default()),
        };
        let cell = Cell::init(regions.get(MemoryId::new(0)), fresh);
        let meta = cell
            .get()
            .meta
            .clone()
            .ok_or(UnknownLayout(cell.get().version))?;
        Ok(Self {
            cell,
            meta,
            managers: StableBTreeSet::init(regions.get(MemoryId::new(1))),
            users: StableBTreeSet::init(regions.get(MemoryId::new(2))),
            regions,
        })
    }

    /// The record as it is.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Changes the record, in stable memory too.
    pub fn update<T>(&mut self, change: impl FnOnce(&mut Meta) -> T) -> T {
        let result = change(&mut self.meta);
        self.cell.set(Versioned {
            version: LAYOUT_VERSION,
            meta: Some(self.meta.clone()),
        });
        result
    }

    /// A region by its number.
    pub fn region_at(&self, id: u8) -> Region {
        self.regions.get(MemoryId::new(id))
    }

    /// One of the two regions of a kind of file.
    pub fn region(&self, kind: Kind, which: u8) -> Region {
        self.regions.get(MemoryId::new(3 + 2 * kind as u8 + which))
    }
}

thread_local! {
    static STORAGE: RefCell<Option<Storage>> = const { RefCell::new(None) };
}

/// Opens stable memory for [`with`]; called once by `init` and `post_upgrade`.
///
/// # Errors
/// See [`Storage::open`].
pub fn open() -> Result<(), UnknownLayout> {
    let storage = Storage::open()?;
    STORAGE.with_borrow_mut(|slot| *slot = Some(storage));
    Ok(())
}

/// Lends the open storage. Traps before `init`, which the platform never lets happen.
pub fn with<T>(work: impl FnOnce(&mut Storage) -> T) -> T {
    STORAGE.with_borrow_mut(|slot| match slot {
        Some(storage) => work(storage),
        None => ic_cdk::trap("stable memory is not open"),
    })
}
