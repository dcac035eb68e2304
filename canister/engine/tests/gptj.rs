//! GPT-J: the engine against the model written down naively in f64, over shapes that no golden file
//! has, and what its checkpoints must hold. The golden files are compared where GPT-2's are.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::textbook::{self, Layout, Naive, Shapes, Textbook, pick};
use common::{golden_bytes, golden_config, golden_model, safetensors};
use icgpt_engine::{Activation, Checkpoint, Config, Family, LoadError, Loader, Problem};

struct GptJ;

/// Names and shapes of all tensors.
fn shapes(config: &Config) -> Shapes {
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

impl Textbook for GptJ {
    fn shapes(config: &Config) -> Shapes {
        shapes(config)
    }

    fn spread(name: &str, shape: &[u64]) -> f32 {
        match shape {
            [_, n_in] if !name.contains("wte") => 1.5 / (*n_in as f32).sqrt(),
            [_] => 0.3,
            _ => 0.7,
        }
    }

    fn logits(model: &Naive, ids: &[u32]) -> Vec<f64> {
        assert_eq!(model.config.activation, Activation::GeluNew);
        let n = model.config.n_embd;
        let scale = 1.0 / ((n / model.config.n_head) as f64).sqrt();
        let linear = |name: String, x: &[f64]| model.linear(Layout::Outputs, &name, x);
        let wte = model.get("wte.weight");
        let rows = ids.iter().map(|&id| wte[id as usize * n..][..n].to_vec());
        let mut stream: Vec<Vec<f64>> = rows.collect();
        for layer in 0..model.config.n_layer {
            let h = format!("h.{layer}.");
            let normed = stream.iter().map(|x| model.norm(&(h.clone() + "ln_1"), x));
            let normed: Vec<Vec<f64>> = normed.collect();
            let project = |name: &str, turned: bool| -> Vec<Vec<f64>> {
                let rows = normed.iter().enumerate().map(|(at, x)| {
                    let mut out = linear(format!("{h}attn.{name}_proj"), x);
                    if turned {
                        rotate(model.config, &mut out, at);
                    }
                    out
                });
                rows.collect()
            };
            let (queries, keys) = (project("q", true), project("k", true));
            let values = project("v", false);
            for (at, x) in stream.iter_mut().enumerate() {
                let attended = model.attend(scale, &queries[at], &keys[..=at], &values[..=at]);
                let attended = linear(h.clone() + "attn.out_proj", &attended);
                let mut hidden = linear(h.clone() + "mlp.fc_in", &normed[at]);
                for v in &mut hidden {
                    *v = model.activation(*v);
                }
                let fed = linear(h.clone() + "mlp.fc_out", &hidden);
                for ((x, a), f) in x.iter_mut().zip(attended).zip(fed) {
                    *x += a + f;
                }
            }
        }
        let logits = model.head(&model.norm("ln_f", stream.last().unwrap()));
        let biases = model.get("lm_head.bias");
        logits.iter().zip(biases).map(|(x, b)| x + b).collect()
    }
}

/// Turns the pairs of each head of a query or a key.
fn rotate(config: &Config, x: &mut [f64], position: usize) {
    let Family::GptJ { rotary_dim } = config.family else {
        panic!("another family");
    };
    for head in x.chunks_mut(config.n_embd / config.n_head) {
        for i in 0..rotary_dim / 2 {
            let angle = position as f64 / 10_000f64.powf((2 * i) as f64 / rotary_dim as f64);
            let (a, b) = (head[2 * i], head[2 * i + 1]);
            head[2 * i] = a * angle.cos() - b * angle.sin();
            head[2 * i + 1] = b * angle.cos() + a * angle.sin();
        }
    }
}

/// A shape for each seed: heads of 2 to 20, turned in part or whole.
fn shape(seed: u64) -> Config {
    textbook::shape(seed, &[2, 3, 4, 7, 8, 13, 20], |size| Family::GptJ {
        rotary_dim: pick(seed, 7, &[2, 4, size]).min(size) / 2 * 2,
    })
}

#[test]
fn agrees_with_the_textbook_over_many_shapes() {
    textbook::agrees::<GptJ>(60, shape);
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
