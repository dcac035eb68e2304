//! From a checkpoint to a model: tensors are read in pieces of about a megabyte, converted to f32,
//! checked and packed for the kernels.
//!
//! Names and shapes are all checked before the first byte is read. A step may stop between any two
//! pieces, so that a large model loads over several messages. Packed weights are appended as they
//! come: no large buffer is zeroed first, and the file is never held in memory.

use thiserror::Error;

use crate::checkpoint::{Checkpoint, Dtype, Source};
use crate::config::Config;
use crate::linear::{Linear, pack_inputs, pack_outputs};
use crate::model::{Layer, Model};
use crate::norm::LayerNorm;
use crate::plan::{Layout, PANEL, Part, Plan, Problem, list};
use crate::simd::{F32x4, padded};

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
    #[error("the model takes {bytes} bytes in memory as f32; at most {MAX_BYTES} fit")]
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

/// A model being loaded.
pub struct Loader {
    config: Config,
    parts: Vec<Part>,
    /// Parts that are done, packed.
    packed: Vec<Vec<F32x4>>,
    /// The part at work and how many of its rows are done.
    current: Vec<F32x4>,
    row: usize,
    done: u64,
    total: u64,
    bytes: Vec<u8>,
    floats: Vec<f32>,
}

impl Loader {
    /// Checks that the checkpoint has all tensors, in the right shapes.
    ///
    /// # Errors
    /// [`LoadError::Mismatch`] names everything that is wrong; [`LoadError::TooLarge`].
    pub fn new(config: Config, checkpoint: &Checkpoint) -> Result<Loader, LoadError> {
        let parts = Plan::new(&config, checkpoint).all()?;
        let vectors: u64 = parts.iter().map(Part::packed_len).sum();
        if vectors * 16 > MAX_BYTES {
            return Err(LoadError::TooLarge {
                bytes: vectors * 16,
            });
        }
        let total = parts
            .iter()
            .filter_map(|p| p.tensor.as_ref())
            .map(|t| t.end - t.offset)
            .sum();
        Ok(Loader {
            config,
            packed: Vec::with_capacity(parts.len()),
            parts,
            current: Vec::new(),
            row: 0,
            done: 0,
            total,
            bytes: Vec::new(),
            floats: Vec::new(),
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
        while self.packed.len() < self.parts.len() {
            if !may_continue() {
                return Ok(false);
            }
            self.piece(source)?;
        }
        Ok(true)
    }

    fn piece(&mut self, source: &dyn Source) -> Result<(), LoadError> {
        let part = &self.parts[self.packed.len()];
        if self.row == 0 {
            let reserved = self.current.try_reserve_exact(part.packed_len() as usize);
            reserved.map_err(|_| LoadError::OutOfMemory {
                tensor: part.name.clone(),
            })?;
        }
        let rows = part.rows_a_piece().min(part.rows - self.row);
        if let Some(tensor) = &part.tensor {
            let size = tensor.dtype.size().unwrap_or(4) as usize;
            let offset = tensor.offset + (self.row * part.columns * size) as u64;
            self.bytes.resize(rows * part.columns * size, 0);
            let tensor_name = || part.name.clone();
            if offset + self.bytes.len() as u64 > source.len() {
                return Err(LoadError::SourceChanged {
                    tensor: tensor_name(),
                });
            }
            source.read(offset, &mut self.bytes);
            if !to_f32(&tensor.dtype, &self.bytes, &mut self.floats) {
                return Err(LoadError::NotFinite {
                    tensor: tensor_name(),
                });
            }
            self.done += self.bytes.len() as u64;
        } else {
            self.floats.clear();
            self.floats.resize(rows * part.columns, 0.0);
        }
        let (floats, current) = (&self.floats, &mut self.current);
        match part.layout {
            Layout::Inputs => pack_inputs(floats, self.row, part.rows, part.columns, current),
            Layout::Outputs => pack_outputs(floats, part.columns, current),
            Layout::Rows => pack_rows(floats, part.columns, current),
        }
        self.row += rows;
        if self.row == part.rows {
            self.packed.push(std::mem::take(&mut self.current));
            self.row = 0;
        }
        Ok(())
    }

    /// Bytes of weights read so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Bytes of weights in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The model, once a step has said that all is read.
    ///
    /// # Errors
    /// [`LoadError::Unfinished`].
    pub fn finish(self) -> Result<Model, LoadError> {
        let Loader {
            config,
            parts,
            packed,
            ..
        } = self;
        if packed.len() < parts.len() {
            return Err(LoadError::Unfinished);
        }
        let tensors = parts.iter().filter(|part| part.tensor.is_some());
        let parameters = tensors
            .map(|part| part.rows as u64 * part.columns as u64)
            .sum();
        // The plan's order, and every part of it is there.
        let mut packed = packed.into_iter();
        let mut next = || packed.next().unwrap_or_default();

        let (n, n_inner, vocab) = (config.n_embd, config.n_inner, config.vocab_size);
        let wte = Linear::new(n, vocab, PANEL, next(), Vec::new());
        let wpe = next();
        let layers = (0..config.n_layer)
            .map(|layer| Layer {
                ln_1: norm(next(), next(), &config),
                c_attn: Linear::new(n, 3 * n, 3 * n, next(), next()),
                attn_proj: Linear::new(n, n, n, next(), next()),
                ln_2: norm(next(), next(), &config),
                c_fc: Linear::new(n, n_inner, n_inner, next(), next()),
                mlp_proj: Linear::new(n_inner, n, n, next(), next()),
                scale: config.attention_scale(layer),
            })
            .collect();
        let ln_f = norm(next(), next(), &config);
        let lm_head =
            (!config.tie_word_embeddings).then(|| Linear::new(n, vocab, PANEL, next(), Vec::new()));
        Ok(Model {
            config,
            parameters,
            wte,
            wpe,
            layers,
            ln_f,
            lm_head,
        })
    }
}

fn norm(gain: Vec<F32x4>, bias: Vec<F32x4>, config: &Config) -> LayerNorm {
    LayerNorm {
        gain,
        bias,
        epsilon: config.layer_norm_epsilon,
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

/// Converts little-endian elements; false when one is infinite or not a number.
fn to_f32(dtype: &Dtype, bytes: &[u8], into: &mut Vec<f32>) -> bool {
    // Only the highest exponent, that of infinities and NaNs, carries into the sign when 1 is added.
    let mut carries = 0;
    let mut checked = |weight: f32| {
        carries |= (weight.to_bits() & 0x7f80_0000) + 0x0080_0000;
        weight
    };
    into.clear();
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
        assert!(to_f32(&Dtype::F32, &fine, &mut out) && out[0] == f32::MAX);
        assert!(!to_f32(&Dtype::Bf16, &0x7f80u16.to_le_bytes(), &mut out));
        assert!(!to_f32(&Dtype::F16, &0xfc00u16.to_le_bytes(), &mut out));
    }
}
