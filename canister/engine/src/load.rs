//! From a checkpoint to a model: tensors are read in pieces of about a megabyte, converted to f32,
//! checked and packed for the kernels, quantised on the way if that was asked for.
//!
//! Names and shapes are all checked before the first byte is read. A step may stop between any two
//! pieces, so that a large model loads over several messages. Packed weights are appended as they
//! come: no large buffer is zeroed first, and the file is never held in memory.

use thiserror::Error;

use crate::array::Array;
use crate::assemble::assemble;
use crate::checkpoint::{Checkpoint, Dtype, Source};
use crate::config::Config;
use crate::format::Format;
use crate::model::Model;
use crate::plan::{Part, Plan, Problem, list};
use crate::weights::{Packed, Precision};

/// Packed weights of a larger model would not fit in a canister's heap beside the rest.
const MAX_BYTES: u64 = 3 << 30;

/// Why a checkpoint can't be loaded.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum LoadError {
    /// Tensors are missing or have wrong shapes or types; all of them are listed.
    #[error("the checkpoint doesn't fit its config.json: {}", list(.0))]
    Mismatch(Vec<Problem>),
    /// A weight is infinite or not a number.
    #[error("tensor {tensor} holds a weight that is infinite or not a number")]
    NotFinite {
        /// The tensor's name.
        tensor: String,
    },
    /// The packed model would not fit in memory.
    #[error("the model takes {bytes} bytes in memory; at most {MAX_BYTES} fit")]
    TooLarge {
        /// Bytes needed.
        bytes: u64,
    },
    /// Memory could not be had.
    #[error("no memory for tensor {tensor}")]
    OutOfMemory {
        /// The tensor's name.
        tensor: String,
    },
    /// The source is not the one that the checkpoint was read from.
    #[error("the file ends before tensor {tensor}: it changed while it was read")]
    SourceChanged {
        /// The tensor's name.
        tensor: String,
    },
    /// `finish` was called before a step said that all is read.
    #[error("loading is not finished yet")]
    Unfinished,
}

/// A checkpoint being read, part by part.
pub(crate) struct Reading {
    parts: Vec<Part>,
    precision: Precision,
    /// The next part, what is packed of it, whether its rows are only looked at this time, and how
    /// many are done.
    part: usize,
    current: Option<Packed>,
    /// Where what is `ready` is taken after each piece: the largest quantised embedding that comes
    /// as a whole all the same, in bytes.
    most: Option<u64>,
    scanning: bool,
    row: usize,
    done: u64,
    bytes: Vec<u8>,
    floats: Vec<f32>,
}

impl Reading {
    /// Checks that the checkpoint has all tensors, in the right shapes.
    pub fn new(
        config: &Config,
        checkpoint: &Checkpoint,
        precision: Precision,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            parts: Plan::new(config, checkpoint).all()?,
            precision,
            part: 0,
            current: None,
            most: None,
            scanning: false,
            row: 0,
            done: 0,
            bytes: Vec::new(),
            floats: Vec::new(),
        })
    }

    /// For somebody who takes what is `ready` after each piece. Quantised embeddings of more than
    /// `most` bytes are read once for each pass of the kernel, so that they come in order too.
    pub fn in_pieces(mut self, most: u64) -> Self {
        self.most = Some(most);
        self
    }

    /// The beginning of a part that is not whole yet, where it comes in the order in which it is
    /// packed, and need not wait for the rest.
    pub fn ready(&mut self) -> Option<Array> {
        self.current.as_mut()?.take()
    }

    /// Number of weights, counted as the checkpoint stores them.
    pub fn parameters(&self) -> u64 {
        let stored = self.parts.iter().filter(|part| !part.tensors.is_empty());
        stored.map(Part::weights).sum()
    }

    /// Bytes of weights packed so far. Quantised matrices are read twice, and count the second time.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Bytes of weights in all.
    pub fn total(&self) -> u64 {
        let tensors = self.parts.iter().flat_map(|part| &part.tensors);
        tensors.map(|(_, tensor)| tensor.end - tensor.offset).sum()
    }

    /// Reads one piece; gives the arrays of the part that it ends. There must be a part left.
    pub fn piece(&mut self, source: &dyn Source) -> Result<Option<Vec<Array>>, LoadError> {
        let part = &self.parts[self.part];
        if self.current.is_none() {
            let started = Packed::new(part, self.precision, self.most);
            let started = started.ok_or_else(|| LoadError::OutOfMemory {
                tensor: part.name.clone(),
            })?;
            self.scanning = started.scans(part);
            self.current = Some(started);
        }
        let rows = part.rows_a_piece().min(part.rows - self.row);
        self.floats.clear();
        let mut row = self.row;
        while let Some((name, tensor, at, left)) = part.tensor_of(row) {
            let rows = left.min(self.row + rows - row);
            if rows == 0 {
                break;
            }
            let size = tensor.dtype.size().unwrap_or(4) as usize;
            let offset = tensor.offset + (at * part.columns * size) as u64;
            self.bytes.resize(rows * part.columns * size, 0);
            if offset + self.bytes.len() as u64 > source.len() {
                return Err(LoadError::SourceChanged {
                    tensor: name.into(),
                });
            }
            source.read(offset, &mut self.bytes);
            if !to_f32(&tensor.dtype, &self.bytes, &mut self.floats) {
                return Err(LoadError::NotFinite {
                    tensor: name.into(),
                });
            }
            if !self.scanning && self.current.as_ref().is_some_and(Packed::is_first_pass) {
                self.done += self.bytes.len() as u64;
            }
            row += rows;
        }
        // Zeros where the checkpoint has nothing.
        self.floats.resize(rows * part.columns, 0.0);
        if let Some(current) = &mut self.current {
            if self.scanning {
                current.scan(&self.floats, self.row);
            } else {
                current.add(part, &self.floats, self.row);
            }
        }
        self.row += rows;
        if self.row < part.rows {
            return Ok(None);
        }
        self.row = 0;
        if std::mem::take(&mut self.scanning) {
            return Ok(None);
        }
        if self.current.as_mut().is_some_and(Packed::next_pass) {
            return Ok(None);
        }
        self.part += 1;
        Ok(self.current.take().map(Packed::into_arrays))
    }
}

/// A model being loaded from a checkpoint, without a packed file.
pub struct Loader {
    config: Config,
    reading: Reading,
    memory: u64,
    /// Of each part that is done.
    arrays: Vec<Vec<Array>>,
}

impl Loader {
    /// Checks that the checkpoint has all tensors, in the right shapes. The model will hold f32.
    ///
    /// # Errors
    /// [`LoadError::Mismatch`] names everything that is wrong; [`LoadError::TooLarge`].
    pub fn new(config: Config, checkpoint: &Checkpoint) -> Result<Loader, LoadError> {
        Self::with_precision(config, checkpoint, Precision::F32)
    }

    /// The same for a model of any precision.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn with_precision(
        config: Config,
        checkpoint: &Checkpoint,
        precision: Precision,
    ) -> Result<Loader, LoadError> {
        let reading = Reading::new(&config, checkpoint, precision)?;
        let format = Format::new(&config, precision, reading.parameters());
        let memory = format.sections().map(|section| section.bytes).sum();
        if memory > MAX_BYTES {
            return Err(LoadError::TooLarge { bytes: memory });
        }
        Ok(Loader {
            config,
            reading,
            memory,
            arrays: Vec::new(),
        })
    }

    /// Reads on until all is read (true), or until `may_continue`, asked before each piece, says no
    /// (false).
    ///
    /// # Errors
    /// A weight is not finite, or memory is short; loading can't go on then.
    pub fn step(
        &mut self,
        source: &dyn Source,
        may_continue: &mut dyn FnMut() -> bool,
    ) -> Result<bool, LoadError> {
        while self.arrays.len() < self.reading.parts.len() {
            if !may_continue() {
                return Ok(false);
            }
            self.arrays.extend(self.reading.piece(source)?);
        }
        Ok(true)
    }

    /// Bytes of weights packed so far. Quantised matrices are read twice, and count the second time.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.reading.done()
    }

    /// Bytes of weights in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.reading.total()
    }

    /// Bytes of memory that the weights take when packed.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// The model, once a step has said that all is read.
    ///
    /// # Errors
    /// [`LoadError::Unfinished`].
    pub fn finish(self) -> Result<Model, LoadError> {
        let Reading {
            parts, precision, ..
        } = &self.reading;
        let parameters = self.reading.parameters();
        let layers = self.config.n_layer;
        let parts = parts.iter().zip(self.arrays);
        let model = assemble(self.config, *precision, parameters, parts, layers);
        let mut model = model.ok_or(LoadError::Unfinished)?;
        model.memory = self.memory;
        Ok(model)
    }
}

/// Converts little-endian elements and appends them; false when one is infinite or not a number.
fn to_f32(dtype: &Dtype, bytes: &[u8], into: &mut Vec<f32>) -> bool {
    // Only the highest exponent, that of infinities and NaNs, carries into the sign when 1 is added.
    let mut carries = 0;
    let mut checked = |weight: f32| {
        carries |= (weight.to_bits() & 0x7f80_0000) + 0x0080_0000;
        weight
    };
    let halves = bytes.as_chunks().0.iter().map(|&b| u16::from_le_bytes(b));
    match dtype {
        Dtype::F16 => into.extend(halves.map(|half| checked(half_to_f32(half)))),
        Dtype::Bf16 => {
            into.extend(halves.map(|half| checked(f32::from_bits(u32::from(half) << 16))));
        }
        _ => {
            let words = bytes.as_chunks().0.iter();
            into.extend(words.map(|&b| checked(f32::from_le_bytes(b))));
        }
    }
    carries >> 31 == 0
}

/// IEEE binary16. Its exponent and fraction, shifted into place and scaled by 2^112, are exact,
/// subnormal numbers included; infinities and NaNs keep the highest exponent.
fn half_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let magnitude = u32::from(half & 0x7fff) << 13;
    if half & 0x7c00 == 0x7c00 {
        return f32::from_bits(sign | 0x7f80_0000 | magnitude);
    }
    let scale = f32::from_bits((112 + 127) << 23);
    f32::from_bits(sign | (f32::from_bits(magnitude) * scale).to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_half_precision_exactly() {
        let cases: [(u16, f32); 8] = [
            (0x0000, 0.0),
            (0x8000, -0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x3555, 0.333_251_95),
        ];
        for (half, want) in cases {
            assert_eq!(half_to_f32(half).to_bits(), want.to_bits(), "{half:#x}");
        }
        assert!(!half_to_f32(0x7c00).is_finite() && !half_to_f32(0xfe00).is_finite());
    }

    #[test]
    fn finds_weights_that_are_not_finite() {
        let mut out = Vec::new();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
            let bytes = [1.0f32, bad, 2.0].map(f32::to_le_bytes).concat();
            assert!(!to_f32(&Dtype::F32, &bytes, &mut out));
        }
        let fine = [f32::MAX, f32::MIN, 1e-45, -0.0]
            .map(f32::to_le_bytes)
            .concat();
        assert!(to_f32(&Dtype::F32, &fine, &mut out) && out.contains(&f32::MAX));
        assert!(!to_f32(&Dtype::Bf16, &0x7f80u16.to_le_bytes(), &mut out));
        assert!(!to_f32(&Dtype::F16, &0xfc00u16.to_le_bytes(), &mut out));
    }
}
