//! Arrays of numbers as the bytes that they are in memory, which is how packed files hold them.
//!
//! Little-endian, as WebAssembly is; a build for a big-endian machine would read nonsense and is
//! refused.

use std::mem::MaybeUninit;

use crate::checkpoint::Source;
use crate::format::{Element, Section};
use crate::quantised::Quantised;
use crate::simd::{F32x4, floats};

#[cfg(target_endian = "big")]
compile_error!("packed weights are little-endian");

/// Bytes moved at once: a bulk operation may not be longer than an uninterrupted slice of execution.
const AT_ONCE: usize = 16 << 20;

/// A number, or a few of them, that any bytes are a valid value of.
///
/// # Safety
/// The type has no padding and no invalid bit patterns.
pub unsafe trait Plain: Copy {}

// SAFETY: four f32 without padding; every bit pattern is a valid f32.
unsafe impl Plain for F32x4 {}
// SAFETY: integers without padding.
unsafe impl Plain for [i8; 8] {}
// SAFETY: integers without padding.
unsafe impl Plain for [i16; 8] {}

/// The same memory as bytes.
pub fn bytes<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: the slice covers this many initialised bytes, and u8 needs no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The same memory as bytes, to be written.
pub fn bytes_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as in `bytes`; the borrow is exclusive, and whatever is written is valid.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// Appends values from a source, up to `most` or a piece. The memory is not zeroed first: that would
/// cost as much as reading.
fn append<T: Plain>(source: &dyn Source, offset: u64, most: usize, into: &mut Vec<T>) {
    let len = into.len();
    let room = into.spare_capacity_mut();
    let count = most.min(room.len()).min(AT_ONCE / size_of::<T>());
    let start = room.as_mut_ptr().cast::<MaybeUninit<u8>>();
    // SAFETY: the room covers this many bytes, and MaybeUninit needs no initialised ones.
    let raw = unsafe { std::slice::from_raw_parts_mut(start, count * size_of::<T>()) };
    let read = source.read_new(offset, raw);
    if std::ptr::addr_eq(read.as_ptr(), start) && read.len() == count * size_of::<T>() {
        // SAFETY: a slice of u8 is initialised, this one is the room's first `count` values, and
        // any bytes are a valid T.
        unsafe { into.set_len(len + count) };
    }
}

/// An array of a packed file, in memory.
pub(crate) enum Array {
    Floats(Vec<F32x4>),
    Int8(Vec<[i8; 8]>),
    Int16(Vec<[i16; 8]>),
}

impl Array {
    /// Most bytes that are read at a time.
    pub const PIECE: u64 = AT_ONCE as u64;

    /// An empty one with room for a section; `None` when memory is short.
    pub fn with_room_for(section: &Section) -> Option<Self> {
        fn room<T>(section: &Section) -> Option<Vec<T>> {
            let mut values = Vec::new();
            let count = usize::try_from(section.bytes).ok()? / size_of::<T>();
            values.try_reserve_exact(count).ok()?;
            Some(values)
        }
        Some(match section.element {
            Element::Floats => Array::Floats(room(section)?),
            Element::Int8 => Array::Int8(room(section)?),
            Element::Int16 => Array::Int16(room(section)?),
        })
    }

    /// Whether it can be computed with: floats are finite, and no sum of a matrix `[n_in][n_out]`
    /// overflows. Only a file from elsewhere must be asked.
    pub fn is_sound(&self, matrix: Option<(usize, usize)>) -> bool {
        let (n_in, n_out) = matrix.unwrap_or_default();
        match self {
            Array::Floats(values) => floats(values).iter().all(|value| value.is_finite()),
            Array::Int8(values) => Quantised::sums_fit(n_in, n_out, values),
            Array::Int16(values) => Quantised::sums_fit(n_in, n_out, values),
        }
    }

    /// Its bytes as they lie in a packed file.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Array::Floats(values) => bytes(values),
            Array::Int8(values) => bytes(values),
            Array::Int16(values) => bytes(values),
        }
    }

    /// Reads on from where it ends; true when it has the whole section.
    pub fn read(&mut self, source: &dyn Source, section: &Section) -> bool {
        let offset = section.offset + self.bytes().len() as u64;
        let left = (section.end() - offset) as usize;
        match self {
            Array::Floats(values) => append(source, offset, left / 16, values),
            Array::Int8(values) => append(source, offset, left / 8, values),
            Array::Int16(values) => append(source, offset, left / 16, values),
        }
        self.bytes().len() as u64 == section.bytes
    }
}

/// Overwrites values by those of a source.
pub fn overwrite(source: &dyn Source, offset: u64, into: &mut [u8]) {
    for (i, piece) in into.chunks_mut(AT_ONCE).enumerate() {
        source.read(offset + (i * AT_ONCE) as u64, piece);
    }
}
