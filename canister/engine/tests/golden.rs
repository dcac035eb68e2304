//! The forward pass against Hugging Face transformers, through the files of `tests/golden`.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{
    GOLDEN, generate, golden_config, golden_expected, golden_folder, golden_model, golden_model_in,
    ids,
};
use icgpt_engine::{Context, Finish, Precision, Request, Sampling, Scoring, Session};

fn greedy(prompt: Vec<u32>, max_new_tokens: usize, context: Context) -> Request {
    Request {
        prompt,
        max_new_tokens,
        sampling: Sampling::greedy(),
        context,
        stop: Vec::new(),
        stop_strings: None,
        ..Request::for_logits(Vec::new())
    }
}

/// FNV-1a over the bits of all logits of the prompts, as `tests/golden/bits.json` has them for each
/// precision. A test of the canister holds WebAssembly to the same file. A change of these numbers is
/// a change of every model's answers: make it knowingly.
#[test]
fn bits_are_the_same_everywhere() {
    let file = std::fs::read(golden_folder().join("bits.json")).unwrap();
    let want: serde_json::Value = serde_json::from_slice(&file).unwrap();
    let mut got = serde_json::Map::new();
    for (label, precision) in [
        ("f32", Precision::F32),
        ("int8", Precision::Int8),
        ("int16", Precision::Int16),
    ] {
        let hash = |name: &str| {
            let (model, expected) = (golden_model_in(name, precision), golden_expected(name));
            let mut session = Session::new(&model);
            let mut hash = 0xcbf2_9ce4_8422_2325u64;
            for token in ids(&expected["prompt"]) {
                session.forward(&model, token, true).unwrap();
                for byte in session.logits().iter().flat_map(|x| x.to_le_bytes()) {
                    hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                }
            }
            (name.to_owned(), format!("{hash:016x}").into())
        };
        let hashes: serde_json::Map<_, _> = GOLDEN.into_iter().map(hash).collect();
        got.insert(label.into(), hashes.into());
    }
    let got = serde_json::Value::from(got);
    assert_eq!(got, want, "{got:#}");
}

/// Logits of every position of the prompt. The bound is what rounding in another order explains,
/// far below the 1e-3 that is promised.
#[test]
fn logits_agree() {
    for name in GOLDEN {
        let (model, expected) = (golden_model(name), golden_expected(name));
        let mut session = Session::new(&model);
        let mut worst = 0.0f64;
        for (token, want) in ids(&expected["prompt"])
            .into_iter()
            .zip(expected["logits"].as_array().unwrap())
        {
            session.forward(&model, token, true).unwrap();
            let want: Vec<f64> = serde_json::from_value(want.clone()).unwrap();
            assert_eq!(session.logits().len(), want.len());
            for (&got, want) in session.logits().iter().zip(want) {
                worst = worst.max((f64::from(got) - want).abs());
            }
        }
        println!("{name}: largest difference of a logit {worst:.1e}");
        assert!(worst < 1e-4, "{name}: {worst}");
    }
}

#[test]
fn greedy_ids_agree_to_the_edge_of_the_context() {
    for name in GOLDEN {
        let (model, expected) = (golden_model(name), golden_expected(name));
        let request = greedy(ids(&expected["prompt"]), usize::MAX, Context::Stop);
        let (tokens, finish) = generate(&model, &request, 0);
        assert_eq!(tokens, ids(&expected["greedy"]), "{name}");
        assert_eq!(finish, Finish::Context);
        assert_eq!(
            request.prompt.len() + tokens.len(),
            model.config().n_ctx + 1
        );
    }
}

#[test]
fn sliding_ids_agree() {
    for name in GOLDEN {
        let (model, expected) = (golden_model(name), golden_expected(name));
        let want = ids(&expected["slide"]);
        let request = greedy(ids(&expected["prompt"]), want.len(), Context::Slide);
        let (tokens, finish) = generate(&model, &request, 0);
        assert_eq!((tokens, finish), (want, Finish::Length), "{name}");
    }
}

#[test]
fn scores_are_the_log_softmax_of_the_logits() {
    for name in GOLDEN {
        let (model, expected) = (golden_model(name), golden_expected(name));
        let prompt = ids(&expected["prompt"]);
        let rows: Vec<Vec<f64>> = serde_json::from_value(expected["logits"].clone()).unwrap();
        let (first, rest) = prompt.split_at(1);
        if rest.is_empty() {
            continue;
        }
        let mut scoring = Scoring::new(&model, first.to_vec(), rest.to_vec()).unwrap();
        assert!(scoring.run(&model, &mut |_| true));
        for (i, (&got, &token)) in scoring.logprobs().iter().zip(rest).enumerate() {
            let total: f64 = rows[i].iter().map(|l| l.exp()).sum();
            let want = rows[i][token as usize] - total.ln();
            assert!((f64::from(got) - want).abs() < 1e-4, "{name}: {got} {want}");
        }
    }
}

#[test]
fn parameters_are_counted() {
    let model = golden_model("three-tokens");
    // Embeddings of 3 and 32 rows of 8, one block, the last norm.
    let block = 4 * 8 + 8 * 24 + 24 + 8 * 8 + 8 + 8 * 32 + 32 + 32 * 8 + 8;
    assert_eq!(model.parameters(), (3 + 32) * 8 + block + 16);
    assert!(model.tied() && !golden_model("untied").tied());
    assert_eq!(golden_config("gelu").n_inner, 37);
}
