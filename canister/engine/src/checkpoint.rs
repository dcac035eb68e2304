//! The header of a safetensors file: which tensors it has, and where.
//!
//! Format: <https://huggingface.co/docs/safetensors>: 8 bytes little-endian length, that many bytes
//! of JSON, then the tensors' bytes without gap or overlap. The header is foreign: everything that
//! it claims is checked here, so that whoever holds a [`Checkpoint`] may rely on it.

use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::mem::MaybeUninit;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use thiserror::Error;

/// Longest header that is read.
pub const MAX_HEADER: u64 = 16 << 20;
/// Most tensors that a header may name.
const MAX_TENSORS: usize = 100_000;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

/// A safetensors file wherever it lies.
#[allow(clippy::len_without_is_empty)]
pub trait Source {
    /// Its length in bytes.
    fn len(&self) -> u64;
    /// Fills `buf` from `offset` on. Only asked for what lies within the length.
    fn read(&self, offset: u64, buf: &mut [u8]);
    /// The same into memory that holds nothing yet, which is what is given back.
    fn read_new<'a>(&self, offset: u64, buf: &'a mut [MaybeUninit<u8>]) -> &'a mut [u8] {
        buf.fill(MaybeUninit::new(0));
        // SAFETY: all of it was just written.
        let buf = unsafe { std::slice::from_raw_parts_mut(buf.as_mut_ptr().cast(), buf.len()) };
        self.read(offset, buf);
        buf
    }
}

impl Source for [u8] {
    fn len(&self) -> u64 {
        self.len() as u64
    }
    fn read(&self, offset: u64, buf: &mut [u8]) {
        let offset = offset as usize;
        buf.copy_from_slice(&self[offset..offset + buf.len()]);
    }
}

impl Source for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }
    fn read(&self, offset: u64, buf: &mut [u8]) {
        Source::read(self.as_slice(), offset, buf);
    }
}

/// Why a file is refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum CheckpointError {
    /// It has not even the 8 bytes of the header's length.
    #[error("the file has {0} bytes, too few for a safetensors file")]
    TooShort(u64),
    /// The header is longer than any real one.
    #[error(
        "the header claims {0} bytes, more than the {MAX_HEADER} that are read; is this a safetensors file?"
    )]
    HeaderTooLong(u64),
    /// The file ends within the header.
    #[error(
        "the header claims {claimed} bytes, but only {present} follow: the file is truncated, or no safetensors file"
    )]
    HeaderTruncated {
        /// Length that the file states.
        claimed: u64,
        /// Bytes behind the statement.
        present: u64,
    },
    /// The header is not the JSON that it should be. Tensors named twice are among these.
    #[error("the header can't be read: {0}")]
    Header(String),
    /// The header names too many tensors.
    #[error("the header names more than {MAX_TENSORS} tensors")]
    TooManyTensors,
    /// A tensor has too many dimensions, or more elements than can be counted.
    #[error("tensor {0} has an impossible shape")]
    Shape(String),
    /// A tensor's bytes lie outside the file, or its offsets run backwards.
    #[error("tensor {0} lies outside the file: the file is truncated or damaged")]
    OutOfFile(String),
    /// A tensor's length is not what its type and shape need.
    #[error("tensor {tensor} has {found} bytes; its type and shape need {expected}")]
    Length {
        /// Its name.
        tensor: String,
        /// Bytes that type and shape need.
        expected: u64,
        /// Bytes between its offsets.
        found: u64,
    },
    /// A tensor does not begin where the one before it ends.
    #[error("tensor {0} overlaps the one before it, or leaves a gap")]
    Layout(String),
    /// Bytes follow the last tensor.
    #[error("{0} bytes follow the last tensor: the file is damaged")]
    TrailingBytes(u64),
}

/// The type of a tensor's elements. Those that are only skipped are told apart by their size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    F32,
    F16,
    Bf16,
    /// Any other, by the name that the header gives it.
    Other(String),
}

impl Dtype {
    fn from_name(name: String) -> Dtype {
        match name.as_str() {
            "F32" => Dtype::F32,
            "F16" => Dtype::F16,
            "BF16" => Dtype::Bf16,
            _ => Dtype::Other(name),
        }
    }

    /// Bytes of one element, or none for a type that the format did not have when this was written.
    pub fn size(&self) -> Option<u64> {
        match self {
            Dtype::F32 => Some(4),
            Dtype::F16 | Dtype::Bf16 => Some(2),
            Dtype::Other(name) => match name.as_str() {
                "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" => Some(1),
                "I16" | "U16" => Some(2),
                "I32" | "U32" => Some(4),
                "F64" | "I64" | "U64" | "C64" => Some(8),
                _ => None,
            },
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
            Dtype::Other(name) => name,
        })
    }
}

/// One tensor of the file, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    /// Where its bytes begin in the file.
    pub offset: u64,
    /// Where they end.
    pub end: u64,
}

impl Tensor {
    /// One of no file, where only sizes matter.
    pub fn nowhere() -> Self {
        Self {
            dtype: Dtype::F32,
            shape: Vec::new(),
            offset: 0,
            end: 0,
        }
    }
}

/// The tensors of a safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// Reads and checks the header.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn parse(source: &(impl Source + ?Sized)) -> Result<Checkpoint, CheckpointError> {
        let file_len = source.len();
        if file_len < 8 {
            return Err(CheckpointError::TooShort(file_len));
        }
        let mut length = [0; 8];
        source.read(0, &mut length);
        let claimed = u64::from_le_bytes(length);
        if claimed > MAX_HEADER {
            return Err(CheckpointError::HeaderTooLong(claimed));
        }
        let present = file_len - 8;
        if claimed > present {
            return Err(CheckpointError::HeaderTruncated { claimed, present });
        }
        let mut json = vec![0; claimed as usize];
        source.read(8, &mut json);
        let header: Header =
            serde_json::from_slice(&json).map_err(|e| CheckpointError::Header(e.to_string()))?;
        if header.0.len() > MAX_TENSORS {
            return Err(CheckpointError::TooManyTensors);
        }
        let data_len = present - claimed;
        let tensors: BTreeMap<String, Tensor> = header
            .0
            .into_iter()
            .map(|(name, entry)| {
                let tensor = check(&name, entry, data_len, 8 + claimed)?;
                Ok((name, tensor))
            })
            .collect::<Result<_, CheckpointError>>()?;
        check_layout(&tensors, 8 + claimed, file_len)?;
        Ok(Checkpoint { tensors })
    }

    /// Names of all tensors, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}

fn check(
    name: &str,
    entry: Entry,
    data_len: u64,
    data_start: u64,
) -> Result<Tensor, CheckpointError> {
    let Entry {
        dtype,
        shape,
        data_offsets: (begin, end),
    } = entry;
    if begin > end || end > data_len {
        return Err(CheckpointError::OutOfFile(name.into()));
    }
    let dtype = Dtype::from_name(dtype);
    let elements = shape
        .iter()
        .try_fold(1u64, |product, &n| product.checked_mul(n));
    let elements = elements
        .filter(|_| shape.len() <= MAX_DIMENSIONS)
        .ok_or_else(|| CheckpointError::Shape(name.into()))?;
    if let Some(size) = dtype.size() {
        let expected = elements
            .checked_mul(size)
            .ok_or_else(|| CheckpointError::Shape(name.into()))?;
        if expected != end - begin {
            return Err(CheckpointError::Length {
                tensor: name.into(),
                expected,
                found: end - begin,
            });
        }
    }
    Ok(Tensor {
        dtype,
        shape,
        offset: data_start + begin,
        end: data_start + end,
    })
}

/// The format demands that the tensors cover the data, each byte once.
fn check_layout(
    tensors: &BTreeMap<String, Tensor>,
    start: u64,
    file_len: u64,
) -> Result<(), CheckpointError> {
    let mut by_offset: Vec<_> = tensors.iter().collect();
    by_offset.sort_by_key(|(_, tensor)| (tensor.offset, tensor.end));
    let mut end = start;
    for (name, tensor) in by_offset {
        if tensor.offset != end {
            return Err(CheckpointError::Layout(name.clone()));
        }
        end = tensor.end;
    }
    if end == file_len {
        Ok(())
    } else {
        Err(CheckpointError::TrailingBytes(file_len - end))
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// Adds an entry; gives back its name where that is taken.
fn insert(entries: &mut BTreeMap<String, Entry>, name: String, entry: Entry) -> Option<String> {
    match entries.entry(name) {
        btree_map::Entry::Occupied(taken) => Some(taken.key().clone()),
        btree_map::Entry::Vacant(free) => {
            free.insert(entry);
            None
        }
    }
}

/// The header's entries. A map type would silently keep the last of two entries with one name.
struct Header(BTreeMap<String, Entry>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else if let Some(name) = insert(&mut entries, name, map.next_value()?) {
                        return Err(A::Error::custom(format!("tensor {name} is named twice")));
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
