//! What rounding weights costs: int8 and int16 against f32 on one text, fed the same tokens.
//!
//! The text is cut into contexts; each starts afresh. A position agrees when both models find the
//! same token likeliest after the same tokens. The perplexity is e to the mean of −ln p of the
//! token that really follows.

use std::fs;
use std::path::Path;

use icgpt_engine::{Checkpoint, Config, Loader, Model, Precision, Sampling, Session, Tokenizer};

/// How a model of one precision does on the text.
pub struct Quality {
    pub precision: Precision,
    pub positions: usize,
    /// Positions where its likeliest token is that of f32.
    pub agreeing: usize,
    pub perplexity: f64,
}

impl Quality {
    /// The share of positions that agree.
    pub fn agreement(&self) -> f64 {
        self.agreeing as f64 / self.positions as f64
    }
}

/// f32, int8 and int16 of the model in a folder, on a text, in this order.
pub fn measure(folder: &Path, text: &str) -> Vec<Quality> {
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let tokens = Tokenizer::from_json(&read("tokenizer.json"))
        .unwrap()
        .encode(text)
        .unwrap()
        .ids;
    let mut reference: Vec<u32> = Vec::new();
    let precisions = [Precision::F32, Precision::Int8, Precision::Int16];
    let run = |precision| {
        let config = Config::from_json(&read("config.json")).unwrap();
        let model = load(config, &read("model.safetensors"), precision);
        let (choices, perplexity) = predict(&model, &tokens);
        if reference.is_empty() {
            reference.clone_from(&choices);
        }
        Quality {
            precision,
            positions: choices.len(),
            agreeing: choices
                .iter()
                .zip(&reference)
                .filter(|(a, b)| a == b)
                .count(),
            perplexity,
        }
    };
    precisions.map(run).into()
}

fn load(config: Config, bytes: &Vec<u8>, precision: Precision) -> Model {
    let checkpoint = Checkpoint::parse(bytes).unwrap();
    let mut loader = Loader::with_precision(config, &checkpoint, precision).unwrap();
    assert!(loader.step(bytes, &mut || true).unwrap());
    loader.finish().unwrap()
}

/// The likeliest token at each position, and the perplexity of the text.
fn predict(model: &Model, tokens: &[u32]) -> (Vec<u32>, f64) {
    let (mut choices, mut surprise) = (Vec::new(), 0.0);
    let n_ctx = model.config().n_ctx;
    for start in (0..tokens.len() - 1).step_by(n_ctx) {
        let mut session = Session::new(model);
        for at in start..(start + n_ctx).min(tokens.len() - 1) {
            session.forward(model, tokens[at], true).unwrap();
            let logits = session.logits();
            choices.push(Sampling::greedy().choose(logits, 0).unwrap());
            surprise -= log_probability(logits, tokens[at + 1]);
        }
    }
    let perplexity = (surprise / choices.len() as f64).exp();
    (choices, perplexity)
}

fn log_probability(logits: &[f32], token: u32) -> f64 {
    let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let total: f64 = logits.iter().map(|&x| (f64::from(x) - highest).exp()).sum();
    f64::from(logits[token as usize]) - highest - total.ln()
}
