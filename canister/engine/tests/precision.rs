//! Quantised models against the same models in f32: the golden ones and the one in the box.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;

use common::{GOLDEN, golden_bytes, golden_config, golden_expected, golden_folder, ids};
use icgpt_engine::{Checkpoint, Config, Loader, Model, Precision, Sampling, Session, Tokenizer};

const QUANTISED: [Precision; 2] = [Precision::Int8, Precision::Int16];

fn load(config: Config, bytes: &Vec<u8>, precision: Precision) -> Model {
    let checkpoint = Checkpoint::parse(bytes).unwrap();
    let mut loader = Loader::with_precision(config, &checkpoint, precision).unwrap();
    // One piece a call.
    loop {
        let mut asked = 0;
        if loader
            .step(bytes, &mut || std::mem::replace(&mut asked, 1) == 0)
            .unwrap()
        {
            break;
        }
    }
    assert_eq!(loader.done(), loader.total());
    loader.finish().unwrap()
}

/// The logits of every position of a text.
fn logits(model: &Model, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut session = Session::new(model);
    let run = |&token| {
        session.forward(model, token, true).unwrap();
        session.logits().to_vec()
    };
    tokens.iter().map(run).collect()
}

/// The largest difference of a logit, as a share of the largest logit.
fn difference(got: &[Vec<f32>], want: &[Vec<f32>]) -> f32 {
    let highest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
    let pairs = got.iter().flatten().zip(want.iter().flatten());
    highest(&mut pairs.map(|(a, b)| (a - b).abs()))
        / highest(&mut want.iter().flatten().map(|x| x.abs()))
}

/// Widths of 8 to 22 leave rounding little to average over, so the bounds are wide.
#[test]
fn golden_models_stay_close() {
    for name in GOLDEN {
        let (bytes, expected) = (golden_bytes(name), golden_expected(name));
        let prompt = ids(&expected["prompt"]);
        let reference = load(golden_config(name), &bytes, Precision::F32);
        assert_eq!(reference.precision(), Precision::F32);
        let want = logits(&reference, &prompt);
        for (precision, bound) in QUANTISED.into_iter().zip([1e-1, 5e-3]) {
            let model = load(golden_config(name), &bytes, precision);
            assert_eq!(model.precision(), precision);
            assert_eq!(model.parameters(), reference.parameters());
            let worst = difference(&logits(&model, &prompt), &want);
            println!("{name} {precision:?}: {worst:.1e} of the largest logit");
            assert!(worst < bound, "{name} {precision:?}: {worst}");
        }
    }
}

/// 2,000 positions that the boxed model wrote itself, a context at a time.
#[test]
fn the_boxed_model_chooses_the_same_tokens() {
    let folder = golden_folder().join("../../icgpt/models/shakespeare-char");
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let config = || Config::from_json(&read("config.json")).unwrap();
    let bytes = read("model.safetensors");
    let reference = load(config(), &bytes, Precision::F32);
    let tokenizer = Tokenizer::from_json(&read("tokenizer.json")).unwrap();
    let start = tokenizer.encode("\nFirst Citizen:\n").unwrap().ids;
    let sampling = |seed| Sampling {
        temperature: 0.8,
        seed,
        ..Sampling::greedy()
    };

    let n_ctx = reference.config().n_ctx;
    let quantised = QUANTISED.map(|precision| load(config(), &bytes, precision));
    let (mut positions, mut same, mut worst) = (0, [0; 2], [0.0f32; 2]);
    for seed in 0..8 {
        let mut session = Session::new(&reference);
        let (mut text, mut want) = (start.clone(), Vec::new());
        while session.len() < n_ctx {
            session
                .forward(&reference, text[session.len()], true)
                .unwrap();
            want.push(session.logits().to_vec());
            if text.len() == session.len() {
                text.push(
                    sampling(seed)
                        .choose(session.logits(), session.len() as u64)
                        .unwrap(),
                );
            }
        }
        positions += want.len();
        for (i, model) in quantised.iter().enumerate() {
            let got = logits(model, &text[..n_ctx]);
            worst[i] = worst[i].max(difference(&got, &want));
            let best = |row: &Vec<f32>| Sampling::greedy().choose(row, 0).unwrap();
            same[i] += got
                .iter()
                .zip(&want)
                .filter(|(a, b)| best(a) == best(b))
                .count();
        }
    }
    for (i, least) in [0.98, 0.998].into_iter().enumerate() {
        let share = same[i] as f64 / f64::from(u32::try_from(positions).unwrap());
        println!(
            "{:?}: {share:.4} of {positions} positions, logits {:.1e}",
            QUANTISED[i], worst[i]
        );
        assert!(
            positions >= 2000 && share >= least,
            "{:?}: {share}",
            QUANTISED[i]
        );
    }
}
