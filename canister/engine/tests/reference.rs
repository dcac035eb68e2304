//! The engine against GPT-2 written down naively in f64, over many shapes that no golden file has.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;

use common::{load, safetensors};
use icgpt_engine::{Activation, Config, Family, Session};

type Weights = BTreeMap<String, Vec<f32>>;

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
fn random(config: &Config, seed: u64) -> (Weights, Vec<u8>) {
    let (n, inner) = (config.n_embd as u64, config.n_inner as u64);
    let mut shapes = vec![
        ("wte.weight".to_string(), vec![config.vocab_size as u64, n]),
        ("wpe.weight".into(), vec![config.n_ctx as u64, n]),
        ("ln_f.weight".into(), vec![n]),
        ("ln_f.bias".into(), vec![n]),
    ];
    for layer in 0..config.n_layer {
        for (name, shape) in [
            ("ln_1.weight", vec![n]),
            ("ln_1.bias", vec![n]),
            ("attn.c_attn.weight", vec![n, 3 * n]),
            ("attn.c_attn.bias", vec![3 * n]),
            ("attn.c_proj.weight", vec![n, n]),
            ("attn.c_proj.bias", vec![n]),
            ("ln_2.weight", vec![n]),
            ("ln_2.bias", vec![n]),
            ("mlp.c_fc.weight", vec![n, inner]),
            ("mlp.c_fc.bias", vec![inner]),
            ("mlp.c_proj.weight", vec![inner, n]),
            ("mlp.c_proj.bias", vec![n]),
        ] {
            shapes.push((format!("h.{layer}.{name}"), shape));
        }
    }
    if !config.tie_word_embeddings {
        shapes.push(("lm_head.weight".into(), vec![config.vocab_size as u64, n]));
    }
    let mut state = seed;
    let mut weights = Weights::new();
    for (name, shape) in &shapes {
        let fan_in = if shape.len() == 2 {
            shape[0] as f32
        } else {
            25.0
        };
        let scale = if name.contains("wte") || name.contains("wpe") {
            0.5
        } else {
            1.0 / fan_in.sqrt()
        };
        let count = shape.iter().product::<u64>();
        weights.insert(
            name.clone(),
            (0..count).map(|_| noise(&mut state) * scale).collect(),
        );
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

/// The textbook's forward pass: every position from scratch.
struct Naive<'a> {
    config: &'a Config,
    weights: &'a Weights,
}

impl Naive<'_> {
    fn get(&self, name: &str) -> Vec<f64> {
        self.weights[name].iter().map(|&w| f64::from(w)).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (gain, bias) = (
            self.get(&format!("{name}.weight")),
            self.get(&format!("{name}.bias")),
        );
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let scale = 1.0 / (variance + f64::from(self.config.layer_norm_epsilon)).sqrt();
        (0..x.len())
            .map(|i| (x[i] - mean) * scale * gain[i] + bias[i])
            .collect()
    }

    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (weight, bias) = (
            self.get(&format!("{name}.weight")),
            self.get(&format!("{name}.bias")),
        );
        let n_out = bias.len();
        (0..n_out)
            .map(|o| {
                bias[o]
                    + (0..x.len())
                        .map(|k| x[k] * weight[k * n_out + o])
                        .sum::<f64>()
            })
            .collect()
    }

    fn activation(&self, x: f64) -> f64 {
        match self.config.activation {
            Activation::GeluNew => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
                0.5 * x * (1.0 + u.tanh())
            }
            Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        }
    }

    /// Logits of the last position.
    fn logits(&self, ids: &[u32]) -> Vec<f64> {
        let n = self.config.n_embd;
        let (wte, wpe) = (self.get("wte.weight"), self.get("wpe.weight"));
        let mut stream: Vec<Vec<f64>> = ids
            .iter()
            .enumerate()
            .map(|(at, &id)| {
                (0..n)
                    .map(|i| wte[id as usize * n + i] + wpe[at * n + i])
                    .collect()
            })
            .collect();
        for layer in 0..self.config.n_layer {
            let h = format!("h.{layer}.");
            let qkv: Vec<Vec<f64>> = stream
                .iter()
                .map(|x| {
                    self.linear(
                        &(h.clone() + "attn.c_attn"),
                        &self.norm(&(h.clone() + "ln_1"), x),
                    )
                })
                .collect();
            for (at, x) in stream.iter_mut().enumerate() {
                let attended = self.attend(&qkv[..=at], layer);
                let projected = self.linear(&(h.clone() + "attn.c_proj"), &attended);
                x.iter_mut().zip(projected).for_each(|(x, p)| *x += p);
                let normed = self.norm(&(h.clone() + "ln_2"), x);
                let mut hidden = self.linear(&(h.clone() + "mlp.c_fc"), &normed);
                for v in &mut hidden {
                    *v = self.activation(*v);
                }
                let projected = self.linear(&(h.clone() + "mlp.c_proj"), &hidden);
                x.iter_mut().zip(projected).for_each(|(x, p)| *x += p);
            }
        }
        let last = self.norm("ln_f", stream.last().unwrap());
        let head = if self.config.tie_word_embeddings {
            wte
        } else {
            self.get("lm_head.weight")
        };
        head.chunks(n)
            .map(|row| row.iter().zip(&last).map(|(w, x)| w * x).sum())
            .collect()
    }

    /// Attention of the last position.
    fn attend(&self, qkv: &[Vec<f64>], layer: usize) -> Vec<f64> {
        let (n, size) = (self.config.n_embd, self.config.n_embd / self.config.n_head);
        let mut scale = if self.config.scale_attn_weights {
            1.0 / (size as f64).sqrt()
        } else {
            1.0
        };
        if self.config.scale_attn_by_inverse_layer_idx {
            scale /= (layer + 1) as f64;
        }
        let mut out = Vec::new();
        for head in (0..n).step_by(size) {
            let query = &qkv[qkv.len() - 1][head..head + size];
            let weights: Vec<f64> = qkv
                .iter()
                .map(|t| {
                    t[n + head..][..size]
                        .iter()
                        .zip(query)
                        .map(|(k, q)| k * q)
                        .sum::<f64>()
                })
                .map(|score| (score * scale).exp())
                .collect();
            let total: f64 = weights.iter().sum();
            out.extend((2 * n + head..2 * n + head + size).map(|d| {
                qkv.iter()
                    .zip(&weights)
                    .map(|(t, w)| t[d] * w / total)
                    .sum::<f64>()
            }));
        }
        out
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

/// A shape for each seed: heads of 1 to 13 and more, contexts of 1 and more, all switches.
fn shape(seed: u64) -> Config {
    let pick = |salt: u64, of: &[usize]| {
        let mixed = (seed * 31 + salt).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        of[mixed as usize % of.len()]
    };
    let n_head = pick(1, &[1, 2, 3, 5]);
    let n_embd = n_head * pick(2, &[1, 2, 3, 4, 7, 8, 13]);
    Config {
        family: Family::Gpt2,
        n_layer: pick(3, &[1, 2, 3]),
        n_head,
        n_embd,
        n_ctx: pick(4, &[1, 2, 3, 8, 17]),
        n_inner: pick(5, &[1, 5, 4 * n_embd, 64, 67]),
        vocab_size: pick(6, &[1, 2, 3, 9, 50, 257, 300]),
        layer_norm_epsilon: 1e-5,
        activation: [Activation::GeluNew, Activation::Gelu][pick(7, &[0, 1])],
        tie_word_embeddings: pick(8, &[0, 1]) == 0,
        scale_attn_weights: pick(9, &[0, 1, 1]) == 1,
        scale_attn_by_inverse_layer_idx: pick(10, &[0, 1]) == 1,
        eos_token_id: None,
        context: icgpt_engine::Context::Stop,
        template: None,
        precision: None,
    }
}

#[test]
fn agrees_with_the_textbook_over_many_shapes() {
    for seed in 0..80 {
        let config = shape(seed);
        let (weights, file) = random(&config, seed);
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
            let want = naive.logits(&ids[..=at]);
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
