//! GPT-J: the engine against the model written down naively in f64, over shapes that no golden file
//! has, and what its checkpoints must hold. The golden files are compared where GPT-2's are.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;

use common::{golden_bytes, golden_config, golden_model, load, safetensors};
use icgpt_engine::{
    Activation, Checkpoint, Config, Context, Family, LoadError, Loader, Problem, Session,
};

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

/// Names and shapes of all tensors.
fn shapes(config: &Config) -> Vec<(String, Vec<u64>)> {
    let (n, inner, vocab) = (
        config.n_embd as u64,
        config.n_inner as u64,
        config.vocab_size as u64,
    );
    let mut shapes = vec![
        ("wte.weight".to_string(), vec![vocab, n]),
        ("ln_f.weight".into(), vec![n]),
        ("ln_f.bias".into(), vec![n]),
        ("lm_head.bias".into(), vec![vocab]),
    ];
    if !config.tie_word_embeddings {
        shapes.push(("lm_head.weight".into(), vec![vocab, n]));
    }
    for layer in 0..config.n_layer {
        for (name, shape) in [
            ("ln_1.weight", vec![n]),
            ("ln_1.bias", vec![n]),
            ("attn.q_proj.weight", vec![n, n]),
            ("attn.k_proj.weight", vec![n, n]),
            ("attn.v_proj.weight", vec![n, n]),
            ("attn.out_proj.weight", vec![n, n]),
            ("mlp.fc_in.weight", vec![inner, n]),
            ("mlp.fc_in.bias", vec![inner]),
            ("mlp.fc_out.weight", vec![n, inner]),
            ("mlp.fc_out.bias", vec![n]),
        ] {
            shapes.push((format!("h.{layer}.{name}"), shape));
        }
    }
    shapes
}

/// A random model: its weights, and its file.
fn random(config: &Config, seed: u64) -> (Weights, Vec<u8>) {
    let mut state = seed;
    let mut weights = Weights::new();
    let shapes = shapes(config);
    for (name, shape) in &shapes {
        let scale = match shape[..] {
            [_, n_in] if !name.contains("wte") => 1.5 / (n_in as f32).sqrt(),
            [_] => 0.3,
            _ => 0.7,
        };
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

/// The textbook's forward pass: every position from scratch.
struct Naive<'a> {
    config: &'a Config,
    weights: &'a Weights,
}

impl Naive<'_> {
    fn get(&self, name: &str) -> Vec<f64> {
        let found = self.weights.get(name).into_iter().flatten();
        found.map(|&w| f64::from(w)).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let gain = self.get(&format!("{name}.weight"));
        let bias = self.get(&format!("{name}.bias"));
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let scale = 1.0 / (variance + f64::from(self.config.layer_norm_epsilon)).sqrt();
        let outs = x.iter().zip(gain.iter().zip(&bias));
        outs.map(|(x, (g, b))| (x - mean) * scale * g + b).collect()
    }

    /// `[outputs][inputs]`, as `nn.Linear` has it; without a bias where there is none.
    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = self.get(&format!("{name}.weight"));
        let bias = self.get(&format!("{name}.bias"));
        let dot = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
        let rows = weight.chunks(x.len()).enumerate();
        rows.map(|(o, row)| dot(row) + bias.get(o).copied().unwrap_or(0.0))
            .collect()
    }

    /// Turns the pairs of each head of a query or a key.
    fn rotate(&self, x: &mut [f64], position: usize) {
        let Family::GptJ { rotary_dim } = self.config.family else {
            panic!("another family");
        };
        for head in x.chunks_mut(self.config.n_embd / self.config.n_head) {
            for i in 0..rotary_dim / 2 {
                let angle = position as f64 / 10_000f64.powf((2 * i) as f64 / rotary_dim as f64);
                let (a, b) = (head[2 * i], head[2 * i + 1]);
                head[2 * i] = a * angle.cos() - b * angle.sin();
                head[2 * i + 1] = b * angle.cos() + a * angle.sin();
            }
        }
    }

    fn activation(&self, x: f64) -> f64 {
        assert_eq!(self.config.activation, Activation::GeluNew);
        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
        0.5 * x * (1.0 + u.tanh())
    }

    /// Logits of the last position.
    fn logits(&self, ids: &[u32]) -> Vec<f64> {
        let n = self.config.n_embd;
        let wte = self.get("wte.weight");
        let rows = ids.iter().map(|&id| wte[id as usize * n..][..n].to_vec());
        let mut stream: Vec<Vec<f64>> = rows.collect();
        for layer in 0..self.config.n_layer {
            let h = format!("h.{layer}.");
            let normed = stream.iter().map(|x| self.norm(&(h.clone() + "ln_1"), x));
            let normed: Vec<Vec<f64>> = normed.collect();
            let project = |name: &str, turned: bool| -> Vec<Vec<f64>> {
                let rows = normed.iter().enumerate().map(|(at, x)| {
                    let mut out = self.linear(&format!("{h}attn.{name}_proj"), x);
                    if turned {
                        self.rotate(&mut out, at);
                    }
                    out
                });
                rows.collect()
            };
            let (queries, keys) = (project("q", true), project("k", true));
            let values = project("v", false);
            for (at, x) in stream.iter_mut().enumerate() {
                let attended = self.attend(&queries[at], &keys[..=at], &values[..=at]);
                let attended = self.linear(&(h.clone() + "attn.out_proj"), &attended);
                let mut hidden = self.linear(&(h.clone() + "mlp.fc_in"), &normed[at]);
                for v in &mut hidden {
                    *v = self.activation(*v);
                }
                let fed = self.linear(&(h.clone() + "mlp.fc_out"), &hidden);
                for ((x, a), f) in x.iter_mut().zip(attended).zip(fed) {
                    *x += a + f;
                }
            }
        }
        let last = self.norm("ln_f", stream.last().unwrap());
        let head = if self.config.tie_word_embeddings {
            wte
        } else {
            self.get("lm_head.weight")
        };
        let logits = head.chunks(n).zip(self.get("lm_head.bias"));
        logits
            .map(|(row, bias)| bias + row.iter().zip(&last).map(|(w, x)| w * x).sum::<f64>())
            .collect()
    }

    fn attend(&self, query: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>]) -> Vec<f64> {
        let size = self.config.n_embd / self.config.n_head;
        let mut out = Vec::new();
        for head in (0..self.config.n_embd).step_by(size) {
            let score = |key: &Vec<f64>| {
                let pairs = key[head..head + size].iter().zip(&query[head..]);
                let dot: f64 = pairs.map(|(k, q)| k * q).sum();
                (dot / (size as f64).sqrt()).exp()
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
}

fn shape(seed: u64) -> Config {
    let pick = |salt: u64, of: &[usize]| {
        let mixed = (seed * 31 + salt).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        of[mixed as usize % of.len()]
    };
    let n_head = pick(1, &[1, 2, 3, 5]);
    let size = pick(2, &[2, 3, 4, 7, 8, 13, 20]);
    let n_embd = n_head * size;
    Config {
        family: Family::GptJ {
            rotary_dim: pick(7, &[2, 4, size]).min(size) / 2 * 2,
        },
        n_layer: pick(3, &[1, 2, 3]),
        n_head,
        n_embd,
        n_ctx: pick(4, &[1, 2, 3, 8, 17]),
        n_inner: pick(5, &[1, 5, 4 * n_embd, 64, 67]),
        vocab_size: pick(6, &[1, 2, 3, 9, 50, 257, 300]),
        layer_norm_epsilon: 1e-5,
        activation: Activation::GeluNew,
        tie_word_embeddings: pick(8, &[0, 1]) == 0,
        scale_attn_weights: true,
        scale_attn_by_inverse_layer_idx: false,
        eos_token_id: None,
        context: Context::Stop,
        template: None,
        precision: None,
    }
}

#[test]
fn agrees_with_the_textbook_over_many_shapes() {
    for seed in 0..60 {
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

fn mismatch(config: &Config, file: &Vec<u8>) -> Vec<Problem> {
    match Loader::new(config.clone(), &Checkpoint::parse(file).unwrap()).err() {
        Some(LoadError::Mismatch(problems)) => problems,
        other => panic!("{other:?}"),
    }
}

/// Every tensor is needed, whichever it is, and in its shape.
#[test]
fn a_tensor_that_is_missing_or_misshapen_is_named() {
    let config = shape(3);
    let all = shapes(&config);
    let file = |shapes: &[(String, Vec<u64>)]| {
        let tensors = shapes.iter().map(|(name, shape)| {
            let bytes = vec![0; 4 * shape.iter().product::<u64>() as usize];
            (name.as_str(), "F32", shape.as_slice(), bytes)
        });
        safetensors(&tensors.collect::<Vec<_>>())
    };
    for i in 0..all.len() {
        let mut others = all.clone();
        let (tensor, expected) = others.remove(i);
        let missing = Problem::Missing(tensor.clone());
        assert_eq!(mismatch(&config, &file(&others)), [missing]);
        let mut found = expected.clone();
        found[0] += 1;
        others.push((tensor.clone(), found.clone()));
        let problem = Problem::Shape {
            tensor,
            expected,
            found,
        };
        assert_eq!(mismatch(&config, &file(&others)), [problem]);
    }
}

#[test]
fn a_checkpoint_of_the_other_family_is_refused() {
    let config = golden_config("gptj-half");
    let problems = mismatch(&config, &golden_bytes("half"));
    assert!(problems.contains(&Problem::Missing("h.0.attn.q_proj.weight".into())));
    let other = Config {
        family: Family::Gpt2,
        ..config.clone()
    };
    let problems = mismatch(&other, &golden_bytes("gptj-half"));
    assert!(problems.contains(&Problem::Missing("transformer.wpe.weight".into())));
    let shorter = Config {
        n_layer: 2,
        ..config
    };
    let extra = Problem::ExtraLayer("transformer.h.2.attn.bias".into());
    assert_eq!(mismatch(&shorter, &golden_bytes("gptj-half")), [extra]);
}

/// Masks and positions that old checkpoints store are no parameters.
#[test]
fn parameters_are_counted() {
    for name in ["gptj-half", "gptj-tied", "gptj-odd-heads"] {
        let model = golden_model(name);
        let config = model.config();
        let count: u64 = shapes(config)
            .iter()
            .map(|(_, shape)| shape.iter().product::<u64>())
            .sum();
        assert_eq!(model.parameters(), count, "{name}");
        assert_eq!(model.tied(), config.tie_word_embeddings);
    }
}
