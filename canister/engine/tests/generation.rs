//! Generation in pieces, its edges, and what it refuses.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{generate, golden_expected, golden_model, ids};
use icgpt_engine::{
    Batch, Context, Finish, ForwardError, Generation, Model, Request, RequestError, Sampling,
    SamplingError, Scoring, Session,
};

fn request(prompt: &[u32]) -> Request {
    Request {
        prompt: prompt.to_vec(),
        max_new_tokens: 50,
        sampling: Sampling {
            temperature: 0.9,
            top_k: Some(20),
            seed: 7,
            ..Sampling::greedy()
        },
        context: Context::Slide,
        stop: Vec::new(),
        stop_strings: None,
        ..Request::for_logits(Vec::new())
    }
}

/// What sliding means, the slow way: each window runs through a fresh session.
fn reference(model: &Model, request: &Request) -> Vec<u32> {
    let n_ctx = model.config().n_ctx;
    let keep = n_ctx - n_ctx / 4;
    let mut all = request.prompt.clone();
    let mut window = all.clone();
    if window.len() > n_ctx {
        window = all[all.len() - keep..].to_vec();
    }
    for position in 0..request.max_new_tokens {
        let mut session = Session::new(model);
        for &token in &window {
            session.forward(model, token, true).unwrap();
        }
        let token = request
            .sampling
            .choose(session.logits(), position as u64)
            .unwrap();
        all.push(token);
        if window.len() < n_ctx {
            window.push(token);
        } else {
            window = all[all.len() - keep..].to_vec();
        }
    }
    all[request.prompt.len()..].to_vec()
}

#[test]
fn one_run_or_many_give_the_same_tokens() {
    for name in ["no-bias", "odd-heads", "two-blocks"] {
        let model = golden_model(name);
        let wanted = request(&[1, 2, 3]);
        let whole = generate(&model, &wanted, 0);
        for pause in [2, 3, 7] {
            assert_eq!(generate(&model, &wanted, pause), whole, "{name}, {pause}");
        }
        let other = Request {
            sampling: Sampling {
                seed: 8,
                ..wanted.sampling
            },
            ..wanted
        };
        assert_ne!(
            generate(&model, &other, 0),
            whole,
            "{name}: the seed must matter"
        );
    }
}

#[test]
fn may_continue_is_asked_before_each_pass() {
    let model = golden_model("no-bias");
    let wanted = Request {
        max_new_tokens: 4,
        ..request(&[1, 2, 3])
    };
    let mut batch = Batch::new(&model);
    batch.add(5, Generation::new(&model, wanted).unwrap());
    assert!(!batch.run(&model, &mut |_| false));
    assert!(batch.get(5).unwrap().tokens().is_empty());
    let mut asked = Vec::new();
    assert!(batch.run(&model, &mut |step| {
        asked.push((step.rows, step.bytes));
        true
    }));
    // The prompt's three at once, then one for each token but the last.
    assert_eq!(asked, [(3, 0), (1, 0), (1, 0), (1, 0)]);
    let generation = batch.get(5).unwrap();
    assert_eq!(generation.finish(), Some(Finish::Length));
    assert_eq!(generation.tokens().len(), 4);
    assert_eq!(generation.logits().len(), 65);
    assert!(batch.run(&model, &mut |_| false));
}

#[test]
fn sliding_is_recomputation_of_the_last_three_quarters() {
    for name in ["no-bias", "gelu", "odd-heads"] {
        let model = golden_model(name);
        let n_ctx = model.config().n_ctx as u32;
        for length in [1, n_ctx - 1, n_ctx, n_ctx + 1, 3 * n_ctx] {
            let prompt: Vec<u32> = (0..length).map(|i| i * 7 % 31).collect();
            let request = request(&prompt);
            assert_eq!(
                generate(&model, &request, 0).0,
                reference(&model, &request),
                "{name}, {length}"
            );
        }
    }
}

#[test]
fn a_full_prompt_gives_one_token_before_the_context_ends() {
    let model = golden_model("no-bias");
    let prompt: Vec<u32> = (0..16).collect();
    let (tokens, finish) = generate(
        &model,
        &Request {
            context: Context::Stop,
            ..request(&prompt)
        },
        0,
    );
    assert_eq!((tokens.len(), finish), (1, Finish::Context));
}

#[test]
fn a_stop_token_is_the_last_one() {
    let model = golden_model("half");
    let expected = golden_expected("half");
    let greedy = ids(&expected["greedy"]);
    let stop = greedy[5];
    let at = greedy.iter().position(|&id| id == stop).unwrap();
    let wanted = Request {
        sampling: Sampling::greedy(),
        stop: vec![stop],
        ..request(&ids(&expected["prompt"]))
    };
    assert_eq!(
        generate(&model, &wanted, 0),
        (greedy[..=at].to_vec(), Finish::Stop)
    );
}

#[test]
fn refuses_bad_requests() {
    let model = golden_model("no-bias");
    let refused = |request: Request| Generation::new(&model, request).err().unwrap();
    assert_eq!(refused(request(&[])), RequestError::EmptyPrompt);
    assert_eq!(
        refused(request(&[1, 65])),
        RequestError::TokenOutOfRange {
            token: 65,
            vocab_size: 65
        }
    );
    assert_eq!(
        refused(Request {
            max_new_tokens: 0,
            ..request(&[1])
        }),
        RequestError::NoTokens
    );
    let long = Request {
        context: Context::Stop,
        ..request(&[0; 17])
    };
    assert_eq!(
        refused(long),
        RequestError::TooLong {
            length: 17,
            n_ctx: 16
        }
    );
    for temperature in [f64::NAN, -1.0, f64::INFINITY] {
        let sampling = Sampling {
            temperature,
            ..Sampling::greedy()
        };
        let error = refused(Request {
            sampling,
            ..request(&[1])
        });
        assert!(matches!(
            error,
            RequestError::Sampling(SamplingError::Temperature(_))
        ));
    }
    let score = |prompt: &[u32], continuation: &[u32]| {
        Scoring::new(&model, prompt.to_vec(), continuation.to_vec()).err()
    };
    assert_eq!(score(&[], &[1]), Some(RequestError::EmptyPrompt));
    assert_eq!(score(&[1], &[]), Some(RequestError::EmptyContinuation));
    assert_eq!(
        score(&[1], &[99]),
        Some(RequestError::TokenOutOfRange {
            token: 99,
            vocab_size: 65
        })
    );
    assert_eq!(
        score(&[0; 10], &[0; 8]),
        Some(RequestError::TooLong {
            length: 17,
            n_ctx: 16
        })
    );
    assert_eq!(score(&[0; 10], &[0; 7]), None);
}

#[test]
fn a_refused_token_leaves_the_session_as_it_was() {
    let model = golden_model("no-bias");
    let mut session = Session::new(&model);
    assert!(session.is_empty() && session.logits().is_empty());
    session.forward(&model, 1, true).unwrap();
    let before = session.logits().to_vec();
    let error = session.forward(&model, 65, true);
    assert_eq!(
        error,
        Err(ForwardError::TokenOutOfRange {
            token: 65,
            vocab_size: 65
        })
    );
    let other = golden_model("half");
    assert_eq!(
        session.forward(&other, 1, true),
        Err(ForwardError::OtherModel)
    );
    assert_eq!((session.len(), session.logits()), (1, before.as_slice()));
    for _ in 1..16 {
        session.forward(&model, 1, false).unwrap();
    }
    assert!(session.logits().is_empty());
    assert_eq!(
        session.forward(&model, 1, true),
        Err(ForwardError::ContextFull { n_ctx: 16 })
    );
    session.clear();
    session.forward(&model, 1, true).unwrap();
    assert_eq!(session.logits(), before);
}

#[test]
fn samples_follow_the_model() {
    // Frequencies of the first token over many seeds, against the probabilities that it is drawn by.
    let model = golden_model("three-tokens");
    let mut session = Session::new(&model);
    session.forward(&model, 2, true).unwrap();
    let weights: Vec<f64> = session
        .logits()
        .iter()
        .map(|&l| f64::from(l).exp())
        .collect();
    let total: f64 = weights.iter().sum();
    let mut seen = [0.0; 3];
    for seed in 0..20_000 {
        let sampling = Sampling {
            temperature: 1.0,
            seed,
            ..Sampling::greedy()
        };
        seen[sampling.choose(session.logits(), 0).unwrap() as usize] += 1.0 / 20_000.0;
    }
    for (seen, weight) in seen.iter().zip(weights) {
        assert!(
            (seen - weight / total).abs() < 0.02,
            "{seen} {}",
            weight / total
        );
    }
}
