//! The model's weights, ready for the kernels, and one block of its forward pass.
//!
//! GPT-2 (Radford et al., 2019): token and position embeddings, `n_layer` blocks of attention and a
//! two-layer perceptron, each behind a layer norm and added to the stream, a last layer norm, and
//! the head, which shares the token embedding unless the checkpoint is untied.

use crate::attention::{self, Attention};
use crate::config::Config;
use crate::gelu;
use crate::norm::LayerNorm;
use crate::quantised::Activations;
use crate::rounded_attention;
use crate::simd::{F32x4, floats, floats_mut, padded, zeros};
use crate::weights::{Input, Matrix, Precision};

/// A loaded model.
pub struct Model {
    pub(crate) config: Config,
    pub(crate) precision: Precision,
    pub(crate) parameters: u64,
    pub(crate) wte: Matrix,
    /// `[n_ctx][padded n_embd]`
    pub(crate) wpe: Vec<F32x4>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) ln_f: LayerNorm,
    /// None when the head shares `wte`.
    pub(crate) lm_head: Option<Matrix>,
}

/// The weights of one block.
pub(crate) struct Layer {
    pub ln_1: LayerNorm,
    pub c_attn: Matrix,
    pub attn_proj: Matrix,
    pub ln_2: LayerNorm,
    pub c_fc: Matrix,
    pub mlp_proj: Matrix,
    /// What attention scores are multiplied by.
    pub scale: f32,
}

/// Keys and values of one layer, held in 16 bits where the weights are quantised.
pub(crate) enum Cache {
    Floats(attention::Cache),
    Rounded(rounded_attention::Cache),
}

impl Cache {
    pub fn new(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Cache::Floats(attention::Cache::default()),
            Precision::Int8 | Precision::Int16 => {
                Cache::Rounded(rounded_attention::Cache::default())
            }
        }
    }
}

/// Working memory of a pass; all buffers are padded.
pub(crate) struct Scratch {
    stream: Vec<F32x4>,
    normed: Vec<F32x4>,
    qkv: Vec<F32x4>,
    attended: Vec<F32x4>,
    hidden: Vec<F32x4>,
    rounded: Activations,
    attention: Attention,
    rounded_attention: rounded_attention::Attention,
}

impl Scratch {
    pub fn new(config: &Config) -> Self {
        let Config {
            n_embd,
            n_head,
            n_inner,
            ..
        } = *config;
        Self {
            stream: zeros(n_embd),
            normed: zeros(n_embd),
            qkv: zeros(3 * n_embd),
            attended: zeros(n_embd),
            hidden: zeros(n_inner),
            rounded: Activations::default(),
            attention: Attention::new(n_head, n_embd / n_head),
            rounded_attention: rounded_attention::Attention::new(n_head, n_embd / n_head),
        }
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

    /// Whether the head shares the token embedding.
    #[must_use]
    pub fn tied(&self) -> bool {
        self.lm_head.is_none()
    }

    /// Runs one token at position `at` through all blocks; `caches` has one for each. The result
    /// stays in `scratch`.
    pub(crate) fn run(&self, token: usize, at: usize, caches: &mut [Cache], scratch: &mut Scratch) {
        let n_embd = self.config.n_embd;
        let width = padded(n_embd) / 4;
        scratch
            .stream
            .copy_from_slice(&self.wpe[at * width..][..width]);
        self.wte.add_row(token, floats_mut(&mut scratch.stream));
        for (layer, cache) in self.layers.iter().zip(caches) {
            let Scratch {
                stream,
                normed,
                qkv,
                attended,
                hidden,
                rounded,
                attention,
                rounded_attention,
            } = scratch;
            layer.ln_1.apply(n_embd, stream, normed);
            layer.c_attn.apply(input(normed, rounded), qkv);
            let (qkv, into) = (floats(qkv), floats_mut(attended));
            match cache {
                Cache::Floats(cache) => attention.apply(cache, at, layer.scale, qkv, into),
                Cache::Rounded(cache) => {
                    rounded_attention.apply(cache, at, layer.scale, qkv, into);
                }
            }
            layer.attn_proj.add_to(input(attended, rounded), stream);

            layer.ln_2.apply(n_embd, stream, normed);
            layer.c_fc.apply(input(normed, rounded), hidden);
            gelu::apply(self.config.activation, hidden);
            layer.mlp_proj.add_to(input(hidden, rounded), stream);
        }
    }

    /// The head's output for the token that `run` left in `scratch`.
    pub(crate) fn head(&self, scratch: &mut Scratch, logits: &mut Vec<F32x4>) {
        let head = self.lm_head.as_ref().unwrap_or(&self.wte);
        logits.resize(padded(self.config.vocab_size) / 4, F32x4::zero());
        self.ln_f
            .apply(self.config.n_embd, &scratch.stream, &mut scratch.normed);
        head.apply(input(&scratch.normed, &mut scratch.rounded), logits);
    }
}

fn input<'a>(floats: &'a [F32x4], rounded: &'a mut Activations) -> Input<'a> {
    Input { floats, rounded }
}
