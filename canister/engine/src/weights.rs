//! A model's matrices in the precision that was chosen when it was loaded.
//!
//! Layers say `apply`, `add_to` and `add_row`; whether the kernel below multiplies floats or
//! integers is decided here, once a matrix. Nothing above this file knows the precision.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::array::Array;
use crate::linear::{Linear, pack_inputs, pack_outputs, packed_len};
use crate::packing::Packing;
use crate::plan::{Layout, PANEL, Part};
use crate::quantised::{Activations, Quantised};
use crate::simd::{F32x4, padded};

/// How weights are held and multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they are. The reference.
    #[default]
    F32,
    /// 8 bits with a scale for each output; activations of 14 bits.
    Int8,
    /// Up to 16 bits, as many as a 32-bit sum allows, with a scale for each output; activations of
    /// 14 bits. As cheap as `Int8` at twice the memory, and more than ten times as exact.
    Int16,
}

/// A name that no precision has.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("there is no precision {0:?}; f32, int8 and int16 are known")]
pub struct UnknownPrecision(pub String);

impl Precision {
    /// Bytes that a weight takes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Precision::F32 => 4,
            Precision::Int8 => 1,
            Precision::Int16 => 2,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Int8 => "int8",
            Precision::Int16 => "int16",
        })
    }
}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        match name {
            "f32" => Ok(Precision::F32),
            "int8" => Ok(Precision::Int8),
            "int16" => Ok(Precision::Int16),
            _ => Err(UnknownPrecision(name.into())),
        }
    }
}

/// A matrix of any precision.
pub(crate) enum Matrix {
    F32(Linear),
    Int8(Quantised<i8>),
    Int16(Quantised<i16>),
}

/// Rows on their way into a matrix, one padded vector a token: the floats, and what they are
/// rounded to if need be.
pub(crate) struct Input<'a> {
    floats: &'a [F32x4],
    rows: usize,
    rounded: &'a mut Activations,
}

impl Matrix {
    /// The matrix that a part's arrays are, with its bias (empty for none); `None` when they are
    /// no matrix's. An embedding lies in panels of outputs.
    pub fn new(part: &Part, arrays: Vec<Array>, bias: Vec<F32x4>) -> Option<Self> {
        let (n_in, n_out) = part.matrix()?;
        let panel = if part.layout == Layout::Outputs {
            PANEL
        } else {
            n_out
        };
        let mut arrays = arrays.into_iter();
        Some(match (arrays.next()?, arrays.next()) {
            (Array::Floats(weights), None) => {
                Matrix::F32(Linear::new(n_in, n_out, panel, weights, bias))
            }
            (Array::Int8(weights), Some(Array::Floats(scales))) => {
                Matrix::Int8(Quantised::new(n_in, n_out, weights, scales).with_bias(bias))
            }
            (Array::Int16(weights), Some(Array::Floats(scales))) => {
                Matrix::Int16(Quantised::new(n_in, n_out, weights, scales).with_bias(bias))
            }
            _ => return None,
        })
    }

    /// out = W·x + bias for each row. All vectors are padded.
    pub fn apply(&self, x: Input, out: &mut [F32x4]) {
        let width = out.len() / x.rows;
        self.apply_to_each(x, out.chunks_mut(width).collect());
    }

    /// The same for rows that lie anywhere.
    pub fn apply_to_each(&self, x: Input, outs: Vec<&mut [F32x4]>) {
        match self {
            Matrix::F32(matrix) => x.each(outs, |x, out| matrix.apply(x, out)),
            Matrix::Int8(matrix) => matrix.apply(x.round(), outs),
            Matrix::Int16(matrix) => matrix.apply(x.round(), outs),
        }
    }

    /// out += W·x + bias for each row: the output side of a residual branch.
    pub fn add_to(&self, x: Input, out: &mut [F32x4]) {
        let width = out.len() / x.rows;
        let outs: Vec<_> = out.chunks_mut(width).collect();
        match self {
            Matrix::F32(matrix) => x.each(outs, |x, out| matrix.add_to(x, out)),
            Matrix::Int8(matrix) => matrix.add_to(x.round(), outs),
            Matrix::Int16(matrix) => matrix.add_to(x.round(), outs),
        }
    }

    /// Adds the bytes of all arrays, to be overwritten.
    pub fn arrays_mut<'a>(&'a mut self, has_bias: bool, into: &mut Vec<&'a mut [u8]>) {
        match self {
            Matrix::F32(matrix) => matrix.arrays_mut(has_bias, into),
            Matrix::Int8(matrix) => matrix.arrays_mut(has_bias, into),
            Matrix::Int16(matrix) => matrix.arrays_mut(has_bias, into),
        }
    }

    /// Adds the weights of one output to `out` (an embedding's row).
    pub fn add_row(&self, output: usize, out: &mut [f32]) {
        match self {
            Matrix::F32(matrix) => matrix.add_row(output, out),
            Matrix::Int8(matrix) => matrix.add_row(output, out),
            Matrix::Int16(matrix) => matrix.add_row(output, out),
        }
    }
}

impl<'a> Input<'a> {
    /// `rows` vectors of one length; there is at least one.
    pub fn new(floats: &'a [F32x4], rows: usize, rounded: &'a mut Activations) -> Self {
        Self {
            floats,
            rows,
            rounded,
        }
    }

    fn round(self) -> &'a mut Activations {
        self.rounded.set(self.floats, self.rows);
        self.rounded
    }

    fn each(self, outs: Vec<&mut [F32x4]>, mut product: impl FnMut(&[F32x4], &mut [F32x4])) {
        let rows = self.floats.chunks_exact(self.floats.len() / self.rows);
        rows.zip(outs).for_each(|(x, out)| product(x, out));
    }
}

/// A part of a checkpoint being packed.
pub(crate) enum Packed {
    Floats(Vec<F32x4>),
    Int8(Packing<i8>),
    Int16(Packing<i16>),
}

impl Packed {
    /// An empty one; `None` when memory is short. With room for all of it, unless it is taken in
    /// pieces and would be more than `most` bytes.
    pub fn new(part: &Part, precision: Precision, most: Option<u64>) -> Option<Self> {
        let floats = |vectors: usize| Self::floats(if most.is_none() { vectors } else { 0 });
        let Some((n_in, n_out)) = part.matrix() else {
            return floats(part.rows * padded(part.columns) / 4);
        };
        let large = most.is_some_and(|most| part.weights() * precision.bytes() > most);
        match (precision, large && part.layout == Layout::Outputs) {
            (Precision::F32, _) => floats(packed_len(n_in, n_out) as usize),
            (Precision::Int8, false) => Packing::new(n_in, n_out).map(Packed::Int8),
            (Precision::Int16, false) => Packing::new(n_in, n_out).map(Packed::Int16),
            (Precision::Int8, true) => Some(Packed::Int8(Packing::by_passes(n_in, n_out))),
            (Precision::Int16, true) => Some(Packed::Int16(Packing::by_passes(n_in, n_out))),
        }
    }

    /// What is packed so far, where it does not change any more.
    pub fn take(&mut self) -> Option<Array> {
        let array = match self {
            Packed::Floats(floats) => Array::Floats(std::mem::take(floats)),
            Packed::Int8(packing) => Array::Int8(packing.take()?),
            Packed::Int16(packing) => Array::Int16(packing.take()?),
        };
        (!array.bytes().is_empty()).then_some(array)
    }

    /// Whether all rows must be added once more.
    pub fn next_pass(&mut self) -> bool {
        match self {
            Packed::Floats(_) => false,
            Packed::Int8(packing) => packing.next_pass(),
            Packed::Int16(packing) => packing.next_pass(),
        }
    }

    /// Whether rows are added for the first time.
    pub fn is_first_pass(&self) -> bool {
        match self {
            Packed::Floats(_) => true,
            Packed::Int8(packing) => packing.is_first_pass(),
            Packed::Int16(packing) => packing.is_first_pass(),
        }
    }

    fn floats(vectors: usize) -> Option<Self> {
        let mut floats = Vec::new();
        floats.try_reserve_exact(vectors).ok()?;
        Some(Packed::Floats(floats))
    }

    /// Whether all rows must be seen once before they can be packed: the scale of an output depends
    /// on all its inputs, and they lie in as many rows.
    pub fn scans(&self, part: &Part) -> bool {
        part.layout == Layout::Inputs && !matches!(self, Packed::Floats(_))
    }

    /// Looks at consecutive rows, the first time round.
    pub fn scan(&mut self, rows: &[f32], first: usize) {
        match self {
            Packed::Floats(_) => {}
            Packed::Int8(packing) => packing.scan(rows, first),
            Packed::Int16(packing) => packing.scan(rows, first),
        }
    }

    /// Packs consecutive rows of the part.
    pub fn add(&mut self, part: &Part, rows: &[f32], first: usize) {
        match self {
            Packed::Floats(floats) => match part.layout {
                Layout::Inputs => pack_inputs(rows, first, part.rows, part.columns, floats),
                Layout::Outputs => pack_outputs(rows, part.columns, floats),
                Layout::Rows => pack_rows(rows, part.columns, floats),
            },
            Packed::Int8(packing) => pack(packing, part.layout, rows, first),
            Packed::Int16(packing) => pack(packing, part.layout, rows, first),
        }
    }

    /// Its arrays, in the order of a packed file.
    pub fn into_arrays(self) -> Vec<Array> {
        match self {
            Packed::Floats(floats) => vec![Array::Floats(floats)],
            Packed::Int8(packing) => {
                let (weights, scales) = packing.finish().into_arrays();
                vec![Array::Int8(weights), Array::Floats(scales)]
            }
            Packed::Int16(packing) => {
                let (weights, scales) = packing.finish().into_arrays();
                vec![Array::Int16(weights), Array::Floats(scales)]
            }
        }
    }
}

fn pack<W: crate::kernel::Weight>(
    packing: &mut Packing<W>,
    layout: Layout,
    rows: &[f32],
    first: usize,
) {
    if layout == Layout::Inputs {
        packing.pack_inputs(rows, first);
    } else {
        packing.pack_outputs(rows, first);
    }
}

fn pack_rows(floats: &[f32], columns: usize, into: &mut Vec<F32x4>) {
    for row in floats.chunks_exact(columns) {
        for i in (0..padded(columns)).step_by(4) {
            into.push(F32x4::new(std::array::from_fn(|lane| {
                row.get(i + lane).copied().unwrap_or(0.0)
            })));
        }
    }
}
