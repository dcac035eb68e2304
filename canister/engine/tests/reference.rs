//! The engine against GPT-2 written down naively in f64, over many shapes that no golden file has.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::textbook::{self, Layout, Naive, Shapes, Textbook, pick};
use icgpt_engine::{Activation, Config, Family};

struct Gpt2;

impl Textbook for Gpt2 {
    fn shapes(config: &Config) -> Shapes {
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
        shapes
    }

    fn spread(name: &str, shape: &[u64]) -> f32 {
        match shape {
            _ if name.contains("wte") || name.contains("wpe") => 0.5,
            [n_in, _] => 1.0 / (*n_in as f32).sqrt(),
            _ => 1.0 / 25f32.sqrt(),
        }
    }

    fn logits(model: &Naive, ids: &[u32]) -> Vec<f64> {
        let n = model.config.n_embd;
        let linear = |name: String, x: &[f64]| model.linear(Layout::Inputs, &name, x);
        let (wte, wpe) = (model.get("wte.weight"), model.get("wpe.weight"));
        let mut stream: Vec<Vec<f64>> = ids
            .iter()
            .enumerate()
            .map(|(at, &id)| {
                (0..n)
                    .map(|i| wte[id as usize * n + i] + wpe[at * n + i])
                    .collect()
            })
            .collect();
        for layer in 0..model.config.n_layer {
            let h = format!("h.{layer}.");
            let scale = attention_scale(model.config, layer);
            let (mut queries, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
            for x in &stream {
                let normed = model.norm(&(h.clone() + "ln_1"), x);
                let qkv = linear(h.clone() + "attn.c_attn", &normed);
                queries.push(qkv[..n].to_vec());
                keys.push(qkv[n..2 * n].to_vec());
                values.push(qkv[2 * n..].to_vec());
            }
            for (at, x) in stream.iter_mut().enumerate() {
                let attended = model.attend(scale, &queries[at], &keys[..=at], &values[..=at]);
                let projected = linear(h.clone() + "attn.c_proj", &attended);
                x.iter_mut().zip(projected).for_each(|(x, p)| *x += p);
                let normed = model.norm(&(h.clone() + "ln_2"), x);
                let mut hidden = linear(h.clone() + "mlp.c_fc", &normed);
                for v in &mut hidden {
                    *v = model.activation(*v);
                }
                let projected = linear(h.clone() + "mlp.c_proj", &hidden);
                x.iter_mut().zip(projected).for_each(|(x, p)| *x += p);
            }
        }
        model.head(&model.norm("ln_f", stream.last().unwrap()))
    }
}

fn attention_scale(config: &Config, layer: usize) -> f64 {
    let mut scale = 1.0;
    if config.scale_attn_weights {
        scale /= ((config.n_embd / config.n_head) as f64).sqrt();
    }
    if config.scale_attn_by_inverse_layer_idx {
        scale /= (layer + 1) as f64;
    }
    scale
}

/// A shape for each seed: heads of 1 to 13, contexts of 1 and more, all switches.
fn shape(seed: u64) -> Config {
    let pick = |salt: u64, of: &[usize]| pick(seed, salt, of);
    Config {
        activation: [Activation::GeluNew, Activation::Gelu][pick(7, &[0, 1])],
        scale_attn_weights: pick(9, &[0, 1, 1]) == 1,
        scale_attn_by_inverse_layer_idx: pick(10, &[0, 1]) == 1,
        ..textbook::shape(seed, &[1, 2, 3, 4, 7, 8, 13], |_| Family::Gpt2)
    }
}

#[test]
fn agrees_with_the_textbook_over_many_shapes() {
    textbook::agrees::<Gpt2>(80, shape);
}
