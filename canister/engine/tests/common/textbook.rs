//! What models written down naively in f64 have in common, and the comparison of the engine with them
//! over many shapes: random weights, norms, linear layers, attention. No cache, nothing in blocks.

use std::collections::BTreeMap;

use icgpt_engine::{Activation, Config, Context, Family, Session};

use super::{load, safetensors};

/// Names and shapes of tensors.
pub type Shapes = Vec<(String, Vec<u64>)>;

/// Weights by tensor.
pub type Weights = BTreeMap<String, Vec<f32>>;

/// A family of models, as the textbook has it.
pub trait Textbook {
    /// All tensors of a model.
    fn shapes(config: &Config) -> Shapes;

    /// The standard deviation of a tensor's weights.
    fn spread(name: &str, shape: &[u64]) -> f32;

    /// What each position computes behind its prompt: logits of the last position.
    fn logits(model: &Naive, ids: &[u32]) -> Vec<f64>;
}

/// A repeatable value with mean 0 and a standard deviation of about 1.
fn noise(state: &mut u64) -> f32 {
    let mut sum = 0.0;
    for _ in 0..3 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        sum += (*state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    }
    sum
}

/// A random model: its weights, and its file.
fn random<T: Textbook>(config: &Config, seed: u64) -> (Weights, Vec<u8>) {
    let mut state = seed;
    let mut weights = Weights::new();
    let shapes = T::shapes(config);
    for (name, shape) in &shapes {
        let scale = T::spread(name, shape);
        let count = shape.iter().product::<u64>();
        let values = (0..count).map(|_| noise(&mut state) * scale).collect();
        weights.insert(name.clone(), values);
    }
    let tensors: Vec<_> = shapes
        .iter()
        .map(|(name, shape)| {
            let bytes = weights[name].iter().flat_map(|w| w.to_le_bytes()).collect();
            (name.as_str(), "F32", shape.as_slice(), bytes)
        })
        .collect();
    let file = safetensors(&tensors);
    (weights, file)
}

/// How a matrix lies in its file.
#[derive(Clone, Copy)]
pub enum Layout {
    /// `[inputs][outputs]`, as `Conv1D` has it.
    Inputs,
    /// `[outputs][inputs]`, as `nn.Linear` has it.
    Outputs,
}

/// A model as the textbook has it: every position from scratch.
pub struct Naive<'a> {
    pub config: &'a Config,
    weights: &'a Weights,
}

impl Naive<'_> {
    /// A tensor, which must be there.
    pub fn get(&self, name: &str) -> Vec<f64> {
        self.weights[name].iter().map(|&w| f64::from(w)).collect()
    }

    pub fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let gain = self.get(&format!("{name}.weight"));
        let bias = self.get(&format!("{name}.bias"));
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let scale = 1.0 / (variance + f64::from(self.config.layer_norm_epsilon)).sqrt();
        let outs = x.iter().zip(gain.iter().zip(&bias));
        outs.map(|(x, (g, b))| (x - mean) * scale * g + b).collect()
    }

    /// Without a bias where the family has none.
    pub fn linear(&self, layout: Layout, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = self.get(&format!("{name}.weight"));
        let n_out = weight.len() / x.len();
        let bias = format!("{name}.bias");
        let bias = if self.weights.contains_key(&bias) {
            self.get(&bias)
        } else {
            vec![0.0; n_out]
        };
        let product = |k: usize, o: usize| match layout {
            Layout::Inputs => x[k] * weight[k * n_out + o],
            Layout::Outputs => x[k] * weight[o * x.len() + k],
        };
        let out = |o: usize| bias[o] + (0..x.len()).map(|k| product(k, o)).sum::<f64>();
        (0..n_out).map(out).collect()
    }

    pub fn activation(&self, x: f64) -> f64 {
        match self.config.activation {
            Activation::GeluNew => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                0.5 * x * (1.0 + u.tanh())
            }
            Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        }
    }

    /// Attention of the last position in all heads, softmax over scores times `scale`.
    pub fn attend(
        &self,
        scale: f64,
        query: &[f64],
        keys: &[Vec<f64>],
        values: &[Vec<f64>],
    ) -> Vec<f64> {
        let size = self.config.n_embd / self.config.n_head;
        let mut out = Vec::new();
        for head in (0..self.config.n_embd).step_by(size) {
            let score = |key: &Vec<f64>| {
                let pairs = key[head..head + size].iter().zip(&query[head..]);
                let dot: f64 = pairs.map(|(k, q)| k * q).sum();
                (dot * scale).exp()
            };
            let weights: Vec<f64> = keys.iter().map(score).collect();
            let total: f64 = weights.iter().sum();
            out.extend((head..head + size).map(|d| {
                let parts = values.iter().zip(&weights);
                parts.map(|(v, w)| v[d] * w / total).sum::<f64>()
            }));
        }
        out
    }

    /// The head's products, without a bias.
    pub fn head(&self, last: &[f64]) -> Vec<f64> {
        let head = if self.config.tie_word_embeddings {
            "wte.weight"
        } else {
            "lm_head.weight"
        };
        let head = self.get(head);
        let rows = head.chunks(last.len());
        rows.map(|row| row.iter().zip(last).map(|(w, x)| w * x).sum())
            .collect()
    }
}

fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..400 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    sum * (-x * x).exp() * 2.0 / std::f64::consts::PI.sqrt()
}

/// One of several values, by a seed and what it is for.
pub fn pick(seed: u64, salt: u64, of: &[usize]) -> usize {
    let mixed = (seed * 31 + salt).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
    of[mixed as usize % of.len()]
}

/// A shape for each seed, with heads of one of these sizes; contexts of 1 and more.
pub fn shape(seed: u64, sizes: &[usize], family: impl Fn(usize) -> Family) -> Config {
    let n_head = pick(seed, 1, &[1, 2, 3, 5]);
    let size = pick(seed, 2, sizes);
    let n_embd = n_head * size;
    Config {
        family: family(size),
        n_layer: pick(seed, 3, &[1, 2, 3]),
        n_head,
        n_embd,
        n_ctx: pick(seed, 4, &[1, 2, 3, 8, 17]),
        n_inner: pick(seed, 5, &[1, 5, 4 * n_embd, 64, 67]),
        vocab_size: pick(seed, 6, &[1, 2, 3, 9, 50, 257, 300]),
        layer_norm_epsilon: 1e-5,
        activation: Activation::GeluNew,
        tie_word_embeddings: pick(seed, 8, &[0, 1]) == 0,
        scale_attn_weights: true,
        scale_attn_by_inverse_layer_idx: false,
        eos_token_id: None,
        context: Context::Stop,
        template: None,
        precision: None,
    }
}

/// Compares the engine with the textbook at every position of a whole context, in the shape of each
/// of so many seeds.
pub fn agrees<T: Textbook>(seeds: u64, shape: impl Fn(u64) -> Config) {
    for seed in 0..seeds {
        let config = shape(seed);
        let (weights, file) = random::<T>(&config, seed);
        let model = load(config.clone(), &file);
        let naive = Naive {
            config: &config,
            weights: &weights,
        };
        let ids: Vec<u32> = (0..config.n_ctx)
            .map(|i| (i * 7919 + 13) as u32 % config.vocab_size as u32)
            .collect();
        let mut session = Session::new(&model);
        for (at, &id) in ids.iter().enumerate() {
            session.forward(&model, id, true).unwrap();
            let want = T::logits(&naive, &ids[..=at]);
            assert_eq!(session.logits().len(), want.len());
            for (&got, want) in session.logits().iter().zip(want) {
                assert!(
                    (f64::from(got) - want).abs() < 1e-4,
                    "{config:?} at {at}: {got} {want}"
                );
            }
        }
    }
}
