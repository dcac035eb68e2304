//! Which tensors a model is made of, and whether a checkpoint has them: names, shapes and types.
//!
//! Names are those of transformers' `GPT2LMHeadModel` (with `transformer.` in front) or `GPT2Model`
//! (without). Everything that doesn't fit is collected, so that one look at the error is enough.

use std::fmt;

use crate::checkpoint::{Checkpoint, Dtype, Tensor};
use crate::config::Config;
use crate::linear::WIDE;
use crate::load::LoadError;
use crate::simd::padded;
use crate::weights::Precision;

/// About how many bytes are read at a time.
const PIECE: usize = 1 << 20;
/// Outputs of a panel of an embedding, which is packed a panel at a time.
pub(crate) const PANEL: usize = 256;
/// Problems named in an error; the others are counted.
const SHOWN: usize = 5;

/// One way in which a checkpoint doesn't fit its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A tensor is not there.
    Missing(String),
    /// A tensor has another shape than the configuration asks for.
    Shape {
        /// Its name.
        tensor: String,
        /// The shape that is needed.
        expected: Vec<u64>,
        /// The shape that it has.
        found: Vec<u64>,
    },
    /// A tensor's elements have a type that the loader does not read.
    Dtype {
        /// Its name.
        tensor: String,
        /// The type that it has.
        found: String,
    },
    /// The checkpoint has more blocks than the configuration.
    ExtraLayer(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Missing(tensor) => write!(f, "{tensor} is missing"),
            Problem::Shape {
                tensor,
                expected,
                found,
            } => {
                write!(f, "{tensor} has shape {found:?} instead of {expected:?}")
            }
            Problem::Dtype { tensor, found } => {
                write!(f, "{tensor} is of type {found}; F32, F16 and BF16 are read")
            }
            Problem::ExtraLayer(tensor) => write!(f, "{tensor} is behind the last layer"),
        }
    }
}

/// The first few problems, and how many more there are.
pub(crate) fn list(problems: &[Problem]) -> String {
    let mut text: Vec<String> = problems
        .iter()
        .take(SHOWN)
        .map(Problem::to_string)
        .collect();
    if problems.len() > SHOWN {
        text.push(format!("and {} more", problems.len() - SHOWN));
    }
    text.join("; ")
}

/// How a tensor is packed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A matrix `[n_in][n_out]`.
    Inputs,
    /// A matrix `[n_out][n_in]`.
    Outputs,
    /// Rows that are only padded.
    Rows,
}

/// One tensor to be read. Without `tensor` (a bias that the checkpoint leaves out) it is all zeros.
pub(crate) struct Part {
    pub name: String,
    pub tensor: Option<Tensor>,
    pub layout: Layout,
    pub rows: usize,
    pub columns: usize,
}

impl Part {
    /// Bytes that it takes when packed.
    pub fn packed_bytes(&self, precision: Precision) -> u64 {
        match self.layout {
            Layout::Inputs | Layout::Outputs => {
                let weights = padded(self.rows) as u64 * padded(self.columns) as u64;
                weights * precision.bytes()
            }
            Layout::Rows => self.rows as u64 * padded(self.columns) as u64 * 4,
        }
    }

    /// Rows read at a time: what the layout's unit needs, or as many as make a piece.
    pub fn rows_a_piece(&self) -> usize {
        match self.layout {
            Layout::Inputs => WIDE,
            Layout::Outputs => PANEL,
            Layout::Rows => (PIECE / (4 * self.columns)).max(1),
        }
    }
}

/// Finds the parts of a model in a checkpoint, in the order in which `finish` takes them.
pub(crate) struct Plan<'a> {
    config: &'a Config,
    checkpoint: &'a Checkpoint,
    /// What transformers puts before all names but the head's, when the checkpoint was saved with
    /// a head.
    prefix: &'static str,
    /// Whether the checkpoint has biases. It has all of them or none.
    biases: bool,
    parts: Vec<Part>,
    problems: Vec<Problem>,
}

impl<'a> Plan<'a> {
    pub fn new(config: &'a Config, checkpoint: &'a Checkpoint) -> Self {
        const PREFIX: &str = "transformer.";
        let prefixed = checkpoint.names().any(|name| name.starts_with(PREFIX));
        let prefix = if prefixed { PREFIX } else { "" };
        // `attn.bias` is no bias but the causal mask, which old checkpoints store.
        let is_bias = |name: &str| {
            let mut parts = name.rsplit('.');
            parts.next() == Some("bias") && parts.next() != Some("attn")
        };
        let biases = checkpoint.names().any(is_bias);
        Self {
            config,
            checkpoint,
            prefix,
            biases,
            parts: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// All parts.
    pub fn all(mut self) -> Result<Vec<Part>, LoadError> {
        let Config {
            n_embd: n,
            n_inner,
            n_ctx,
            vocab_size,
            n_layer,
            ..
        } = *self.config;
        self.matrix("wte.weight", Layout::Outputs, vocab_size, n);
        self.matrix("wpe.weight", Layout::Rows, n_ctx, n);
        for layer in 0..n_layer {
            self.vectors(&format!("h.{layer}.ln_1"), n);
            self.linear(&format!("h.{layer}.attn.c_attn"), n, 3 * n);
            self.linear(&format!("h.{layer}.attn.c_proj"), n, n);
            self.vectors(&format!("h.{layer}.ln_2"), n);
            self.linear(&format!("h.{layer}.mlp.c_fc"), n, n_inner);
            self.linear(&format!("h.{layer}.mlp.c_proj"), n_inner, n);
        }
        self.vectors("ln_f", n);
        self.extra_layers();
        if !self.config.tie_word_embeddings {
            self.prefix = "";
            self.matrix("lm_head.weight", Layout::Outputs, vocab_size, n);
        }
        if self.problems.is_empty() {
            Ok(self.parts)
        } else {
            Err(LoadError::Mismatch(self.problems))
        }
    }

    /// A normalisation's gain and bias.
    fn vectors(&mut self, name: &str, n: usize) {
        self.find(&format!("{name}.weight"), Layout::Rows, 1, n, &[n]);
        self.bias(name, n);
    }

    /// A matrix `[n_in][n_out]` and its bias.
    fn linear(&mut self, name: &str, n_in: usize, n_out: usize) {
        self.matrix(&format!("{name}.weight"), Layout::Inputs, n_in, n_out);
        self.bias(name, n_out);
    }

    fn matrix(&mut self, name: &str, layout: Layout, rows: usize, columns: usize) {
        self.find(name, layout, rows, columns, &[rows, columns]);
    }

    fn bias(&mut self, name: &str, n: usize) {
        let name = format!("{name}.bias");
        if self.biases {
            self.find(&name, Layout::Rows, 1, n, &[n]);
        } else {
            self.parts.push(Part {
                name,
                tensor: None,
                layout: Layout::Rows,
                rows: 1,
                columns: n,
            });
        }
    }

    fn find(&mut self, name: &str, layout: Layout, rows: usize, columns: usize, shape: &[usize]) {
        let name = format!("{}{name}", self.prefix);
        let Some(tensor) = self.checkpoint.tensors.get(&name).cloned() else {
            return self.problems.push(Problem::Missing(name));
        };
        let expected: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
        if tensor.shape != expected {
            let found = tensor.shape;
            self.problems.push(Problem::Shape {
                tensor: name,
                expected,
                found,
            });
        } else if let Dtype::Other(found) = tensor.dtype {
            self.problems.push(Problem::Dtype {
                tensor: name,
                found,
            });
        } else {
            self.parts.push(Part {
                name,
                tensor: Some(tensor),
                layout,
                rows,
                columns,
            });
        }
    }

    /// Weights behind the last block mean that config.json is another model's.
    fn extra_layers(&mut self) {
        let first = format!("{}h.{}.", self.prefix, self.config.n_layer);
        if let Some(name) = self
            .checkpoint
            .names()
            .find(|name| name.starts_with(&first))
        {
            self.problems.push(Problem::ExtraLayer(name.into()));
        }
    }
}
