//! A model of its packed parts, in the plan's order, wherever they come from.

use crate::array::Array;
use crate::config::Config;
use crate::family::Family;
use crate::model::{Layer, Model};
use crate::norm::LayerNorm;
use crate::plan::Part;
use crate::rotary::Rotary;
use crate::simd::F32x4;
use crate::weights::{Matrix, Precision};

/// The model with the first `layers` of its blocks; `None` when parts are missing.
pub(crate) fn assemble<'a>(
    config: Config,
    precision: Precision,
    parameters: u64,
    parts: impl Iterator<Item = (&'a Part, Vec<Array>)>,
    layers: usize,
) -> Option<Model> {
    let mut parts = Parts(parts);
    let (gptj, tied) = (config.family != Family::Gpt2, config.tie_word_embeddings);
    let wte = parts.matrix(gptj && tied)?;
    let wpe = if gptj { Vec::new() } else { parts.floats()? };
    let layers = (0..layers).map(|layer| parts.layer(&config, layer));
    let layers = layers.collect::<Option<_>>()?;
    let ln_f = parts.norm(&config)?;
    let lm_head = if tied {
        None
    } else {
        Some(parts.matrix(gptj)?)
    };
    let rotary = match config.family {
        Family::Gpt2 => None,
        Family::GptJ { rotary_dim } => Some(Rotary::new(config.n_embd / config.n_head, rotary_dim)),
    };
    Some(Model {
        config,
        precision,
        parameters,
        memory: 0,
        wte,
        wpe,
        rotary,
        layers,
        streamed: None,
        ln_f,
        lm_head,
    })
}

struct Parts<I>(I);

impl<'a, I: Iterator<Item = (&'a Part, Vec<Array>)>> Parts<I> {
    fn layer(&mut self, config: &Config, layer: usize) -> Option<Layer> {
        let gpt2 = config.family == Family::Gpt2;
        Some(Layer {
            ln_1: self.norm(config)?,
            c_attn: self.matrix(gpt2)?,
            attn_proj: self.matrix(gpt2)?,
            ln_2: if gpt2 { Some(self.norm(config)?) } else { None },
            c_fc: self.matrix(true)?,
            mlp_proj: self.matrix(true)?,
            scale: config.attention_scale(layer),
        })
    }

    fn floats(&mut self) -> Option<Vec<F32x4>> {
        match self.0.next()?.1.pop()? {
            Array::Floats(floats) => Some(floats),
            Array::Int8(_) | Array::Int16(_) => None,
        }
    }

    fn matrix(&mut self, has_bias: bool) -> Option<Matrix> {
        let (part, arrays) = self.0.next()?;
        let bias = if has_bias { self.floats()? } else { Vec::new() };
        Matrix::new(part, arrays, bias)
    }

    fn norm(&mut self, config: &Config) -> Option<LayerNorm> {
        Some(LayerNorm {
            gain: self.floats()?,
            bias: self.floats()?,
            epsilon: config.layer_norm_epsilon,
        })
    }
}
