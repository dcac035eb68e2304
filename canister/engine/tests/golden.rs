//! The forward pass against Hugging Face transformers, through the files of `tests/golden`.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{GOLDEN, generate, golden_config, golden_expected, golden_model, ids};
use icgpt_engine::{Context, Finish, Request, Sampling, Scoring, Session};

fn greedy(prompt: Vec<u32>, max_new_tokens: usize, context: Context) -> Request {
    Request {
        prompt,
        max_new_tokens,
        sampling: Sampling::greedy(),
        context,
        stop: Vec::new(),
    }
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
        // One pass a call.
        let mut calls = 0;
        loop {
            let mut asked = 0;
            calls += 1;
            if scoring.run(&model, &mut || std::mem::replace(&mut asked, 1) == 0) {
                break;
            }
        }
        assert_eq!(calls, rest.len());
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
