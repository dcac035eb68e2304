//! Which tensors a model is made of, and whether a checkpoint has them: names, shapes and types.
//!
//! Names are those of transformers' `GPT2LMHeadModel` and `GPTJForCausalLM` (with `transformer.` in
//! front) or `GPT2Model` and `GPTJModel` (without). Everything that doesn't fit is collected, so that
//! one look at the error is enough.

use std::fmt;

use crate::checkpoint::{Checkpoint, Dtype, Tensor};
use crate::config::Config;
use crate::family::Family;
use crate::linear::WIDE;
use crate::load::LoadError;

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

/// One part of the model. Its rows are those of its tensors, which have as many each, one after the
/// other; without any (a bias that the checkpoint leaves out) they are all zeros.
pub(crate) struct Part {
    pub name: String,
    /// The block that it belongs to.
    pub layer: Option<usize>,
    pub tensors: Vec<(String, Tensor)>,
    pub layout: Layout,
    pub rows: usize,
    pub columns: usize,
}

impl Part {
    /// Inputs and outputs of a matrix.
    pub fn matrix(&self) -> Option<(usize, usize)> {
        match self.layout {
            Layout::Inputs => Some((self.rows, self.columns)),
            Layout::Outputs => Some((self.columns, self.rows)),
            Layout::Rows => None,
        }
    }

    /// Weights, as the checkpoint counts them.
    pub fn weights(&self) -> u64 {
        self.rows as u64 * self.columns as u64
    }

    /// The tensor that holds a row, its name, the row's place in it, and how many rows follow there,
    /// itself counted.
    pub fn tensor_of(&self, row: usize) -> Option<(&str, &Tensor, usize, usize)> {
        let each = self.rows / self.tensors.len().max(1);
        let (name, tensor) = self.tensors.get(row / each)?;
        Some((name, tensor, row % each, each - row % each))
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
    /// None when only the parts' sizes are asked for.
    checkpoint: Option<&'a Checkpoint>,
    layer: Option<usize>,
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
            checkpoint: Some(checkpoint),
            layer: None,
            prefix,
            biases,
            parts: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// The parts of such a model, whatever checkpoint it may come from.
    pub fn outline(config: &'a Config) -> Vec<Part> {
        let mut plan = Self {
            config,
            checkpoint: None,
            layer: None,
            prefix: "",
            biases: true,
            parts: Vec::new(),
            problems: Vec::new(),
        };
        plan.parts();
        plan.parts
    }

    /// All parts.
    pub fn all(mut self) -> Result<Vec<Part>, LoadError> {
        self.parts();
        self.extra_layers();
        if self.problems.is_empty() {
            Ok(self.parts)
        } else {
            Err(LoadError::Mismatch(self.problems))
        }
    }

    fn parts(&mut self) {
        match self.config.family {
            Family::Gpt2 => self.gpt2(),
            Family::GptJ { .. } => self.gptj(),
        }
    }

    fn gpt2(&mut self) {
        let (n, n_inner) = (self.config.n_embd, self.config.n_inner);
        self.embedding("wte", self.config.vocab_size);
        let name = self.prefixed("wpe.weight");
        self.find(name, Layout::Rows, &[self.config.n_ctx, n]);
        for layer in 0..self.config.n_layer {
            self.layer = Some(layer);
            self.vectors(&format!("h.{layer}.ln_1"));
            self.linear(&format!("h.{layer}.attn.c_attn"), n, 3 * n);
            self.linear(&format!("h.{layer}.attn.c_proj"), n, n);
            self.vectors(&format!("h.{layer}.ln_2"));
            self.linear(&format!("h.{layer}.mlp.c_fc"), n, n_inner);
            self.linear(&format!("h.{layer}.mlp.c_proj"), n_inner, n);
        }
        self.layer = None;
        self.vectors("ln_f");
        if !self.config.tie_word_embeddings {
            self.head();
        }
    }

    fn gptj(&mut self) {
        let (n, n_inner) = (self.config.n_embd, self.config.n_inner);
        let tied = self.config.tie_word_embeddings;
        self.biases = true;
        self.embedding("wte", self.config.vocab_size);
        if tied {
            self.head_bias();
        }
        for layer in 0..self.config.n_layer {
            self.layer = Some(layer);
            self.vectors(&format!("h.{layer}.ln_1"));
            let attention = format!("h.{layer}.attn");
            self.stacked(&attention, &["q_proj", "k_proj", "v_proj"], n, n);
            self.stacked(&attention, &["out_proj"], n, n);
            let perceptron = format!("h.{layer}.mlp");
            self.stacked(&perceptron, &["fc_in"], n, n_inner);
            self.bias(&format!("{perceptron}.fc_in"), n_inner);
            self.stacked(&perceptron, &["fc_out"], n_inner, n);
            self.bias(&format!("{perceptron}.fc_out"), n);
        }
        self.layer = None;
        self.vectors("ln_f");
        if !tied {
            self.head();
            self.head_bias();
        }
    }

    fn prefixed(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A normalisation's gain and bias.
    fn vectors(&mut self, name: &str) {
        let n = self.config.n_embd;
        self.find(self.prefixed(&format!("{name}.weight")), Layout::Rows, &[n]);
        self.bias(name, n);
    }

    /// A matrix `[n_in][n_out]` and its bias.
    fn linear(&mut self, name: &str, n_in: usize, n_out: usize) {
        let weight = self.prefixed(&format!("{name}.weight"));
        self.find(weight, Layout::Inputs, &[n_in, n_out]);
        self.bias(name, n_out);
    }

    /// Rows of `n_embd` weights.
    fn embedding(&mut self, name: &str, rows: usize) {
        let name = self.prefixed(&format!("{name}.weight"));
        self.find(name, Layout::Outputs, &[rows, self.config.n_embd]);
    }

    /// The head of its own, whose name has no prefix.
    fn head(&mut self) {
        let shape = [self.config.vocab_size, self.config.n_embd];
        self.find("lm_head.weight".into(), Layout::Outputs, &shape);
    }

    fn head_bias(&mut self) {
        let shape = [self.config.vocab_size];
        self.find("lm_head.bias".into(), Layout::Rows, &shape);
    }

    /// Matrices `[n_out][n_in]` that have the same inputs, as one with the outputs of them all.
    fn stacked(&mut self, within: &str, names: &[&str], n_in: usize, n_out: usize) {
        let mut tensors = Vec::with_capacity(names.len());
        for name in names {
            let name = self.prefixed(&format!("{within}.{name}.weight"));
            tensors.extend(self.tensor(name, &[n_out, n_in]));
        }
        self.add(tensors, Layout::Outputs, names.len() * n_out, n_in);
    }

    fn bias(&mut self, name: &str, n: usize) {
        let name = self.prefixed(&format!("{name}.bias"));
        if self.biases {
            self.find(name, Layout::Rows, &[n]);
        } else {
            self.parts.push(Part {
                name,
                layer: self.layer,
                tensors: Vec::new(),
                layout: Layout::Rows,
                rows: 1,
                columns: n,
            });
        }
    }

    /// A part of one tensor. A vector is a row.
    fn find(&mut self, name: String, layout: Layout, shape: &[usize]) {
        let (rows, columns) = match *shape {
            [rows, columns] => (rows, columns),
            _ => (1, shape.iter().product()),
        };
        let tensor = self.tensor(name, shape);
        self.add(tensor.into_iter().collect(), layout, rows, columns);
    }

    fn add(&mut self, tensors: Vec<(String, Tensor)>, layout: Layout, rows: usize, columns: usize) {
        if let Some((name, _)) = tensors.first() {
            self.parts.push(Part {
                name: name.clone(),
                layer: self.layer,
                tensors,
                layout,
                rows,
                columns,
            });
        }
    }

    /// A tensor of that shape; what is wrong with it becomes a problem.
    fn tensor(&mut self, name: String, shape: &[usize]) -> Option<(String, Tensor)> {
        let Some(checkpoint) = self.checkpoint else {
            return Some((name, Tensor::nowhere()));
        };
        let Some(tensor) = checkpoint.tensors.get(&name).cloned() else {
            self.problems.push(Problem::Missing(name));
            return None;
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
            return Some((name, tensor));
        }
        None
    }

    /// Weights behind the last block mean that config.json is another model's.
    fn extra_layers(&mut self) {
        let first = format!("{}h.{}.", self.prefix, self.config.n_layer);
        let mut names = self.checkpoint.iter().flat_map(|one| one.names());
        if let Some(name) = names.find(|name| name.starts_with(&first)) {
            self.problems.push(Problem::ExtraLayer(name.into()));
        }
    }
}
