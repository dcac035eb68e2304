//! The model's weights, ready for the kernels.
//!
//! GPT-2 (Radford et al., 2019): token and position embeddings, `n_layer` blocks of attention and a
//! two-layer perceptron, each behind a layer norm and added to the stream, a last layer norm, and
//! the head, which shares the token embedding unless the checkpoint is untied. GPT-J (Wang and
//! Komatsuzaki, 2021) rotates queries and keys instead of adding positions, and has one norm a block.

use crate::config::Config;
use crate::family::Family;
use crate::norm::LayerNorm;
use crate::rotary::Rotary;
use crate::simd::{F32x4, floats_mut, padded};
use crate::streamed::{Lent, Streamed};
use crate::weights::{Matrix, Precision};

/// A loaded model.
pub struct Model {
    pub(crate) config: Config,
    pub(crate) precision: Precision,
    pub(crate) parameters: u64,
    pub(crate) memory: u64,
    pub(crate) wte: Matrix,
    /// `[n_ctx][padded n_embd]`
    pub(crate) wpe: Vec<F32x4>,
    /// Instead of `wpe` where positions are rotations.
    pub(crate) rotary: Option<Rotary>,
    /// The blocks in memory, and where the others are.
    pub(crate) layers: Vec<Layer>,
    pub(crate) streamed: Option<Streamed>,
    pub(crate) ln_f: LayerNorm,
    /// None when the head shares `wte`.
    pub(crate) lm_head: Option<Matrix>,
}

/// The weights of one block.
pub(crate) struct Layer {
    pub ln_1: LayerNorm,
    pub c_attn: Matrix,
    pub attn_proj: Matrix,
    /// None where the perceptron takes what attention takes, and both are added at once.
    pub ln_2: Option<LayerNorm>,
    pub c_fc: Matrix,
    pub mlp_proj: Matrix,
    /// What attention scores are multiplied by.
    pub scale: f32,
}

impl Layer {
    /// All its arrays, in the plan's order.
    pub fn arrays_mut(&mut self, config: &Config) -> Vec<&mut [u8]> {
        let attention_has_bias = config.family == Family::Gpt2;
        let mut arrays = Vec::new();
        self.ln_1.arrays_mut(&mut arrays);
        self.c_attn.arrays_mut(attention_has_bias, &mut arrays);
        self.attn_proj.arrays_mut(attention_has_bias, &mut arrays);
        if let Some(ln_2) = &mut self.ln_2 {
            ln_2.arrays_mut(&mut arrays);
        }
        self.c_fc.arrays_mut(true, &mut arrays);
        self.mlp_proj.arrays_mut(true, &mut arrays);
        arrays
    }
}

impl Model {
    /// The sizes and settings that it was loaded with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How its weights are held.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Number of weights, counted as the checkpoint stores them (a shared head once).
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Bytes of weights in memory.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Whether some of its weights are not in memory but read whenever they are needed.
    #[must_use]
    pub fn is_streamed(&self) -> bool {
        self.streamed.is_some()
    }

    /// The weights of a block.
    pub(crate) fn layer(&self, index: usize) -> Lent<'_> {
        match (self.layers.get(index), &self.streamed) {
            (None, Some(streamed)) => streamed.layer(&self.config, index),
            _ => Lent::Held(&self.layers[index]),
        }
    }

    /// Bytes that are read when a block is needed now; 0 for one in memory.
    pub(crate) fn bytes_to_read(&self, index: usize) -> u64 {
        match &self.streamed {
            Some(streamed) if index >= self.layers.len() => streamed.bytes(index),
            _ => 0,
        }
    }

    /// Whether the head shares the token embedding.
    #[must_use]
    pub fn tied(&self) -> bool {
        self.lm_head.is_none()
    }

    /// The matrix whose outputs are the logits.
    pub(crate) fn head(&self) -> &Matrix {
        self.lm_head.as_ref().unwrap_or(&self.wte)
    }

    /// Puts what the first block takes of a token at position `at` into `row`, which is padded.
    pub(crate) fn embed(&self, token: u32, at: usize, row: &mut [F32x4]) {
        let width = padded(self.config.n_embd) / 4;
        if self.rotary.is_some() {
            row.fill(F32x4::zero());
        } else {
            row.copy_from_slice(&self.wpe[at * width..][..width]);
        }
        self.wte.add_row(token as usize, floats_mut(row));
    }
}
