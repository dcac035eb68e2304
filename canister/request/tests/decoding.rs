//! Options against Hugging Face transformers' `generate`, through `tests/golden/decoding.json`: the
//! same tokens for greedy decoding, beams and groups of beams, with every option that changes them.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../engine/tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{golden_folder, golden_model, golden_model_in, ids, run};
use icgpt_engine::{
    Batch, Context, Finish, Generation, Line, Model, Precision, Request, Sequence, Session, stream,
};
use icgpt_request::{Bias, Options, Refusal};
use serde_json::Value;

/// Options by transformers' names. Without `do_sample` it draws nothing.
fn options(given: &Value) -> Options {
    let mut options = Options {
        temperature: Some(0.0),
        context: Some("stop".into()),
        ..Options::default()
    };
    for (name, value) in given.as_object().unwrap() {
        let number = || value.as_u64().map(|n| n as u32);
        match name.as_str() {
            "max_new_tokens" => options.max_new_tokens = number(),
            "min_new_tokens" => options.min_new_tokens = number(),
            "max_length" => options.max_length = number(),
            "min_length" => options.min_length = number(),
            "num_beams" => options.num_beams = number(),
            "num_beam_groups" => options.num_beam_groups = number(),
            "num_return_sequences" => options.num_return_sequences = number(),
            "no_repeat_ngram_size" => options.no_repeat_ngram_size = number(),
            "encoder_no_repeat_ngram_size" => options.encoder_no_repeat_ngram_size = number(),
            "diversity_penalty" => options.diversity_penalty = value.as_f64(),
            "length_penalty" => options.length_penalty = value.as_f64(),
            "repetition_penalty" => options.repetition_penalty = value.as_f64(),
            "remove_invalid_values" => options.remove_invalid_values = value.as_bool(),
            "early_stopping" => {
                let text = value.as_str().map(str::to_owned);
                options.early_stopping = text.or_else(|| Some(value.to_string()));
            }
            "logit_bias" => {
                let pairs: Vec<(u32, f64)> = serde_json::from_value(value.clone()).unwrap();
                let pairs = pairs.into_iter();
                let bias = pairs.map(|(token_id, bias)| Bias { token_id, bias });
                options.logit_bias = Some(bias.collect());
            }
            other => panic!("{other}"),
        }
    }
    options
}

fn request(model: &Model, prompt: &[u32], options: &Options) -> Request {
    let (prompt, _) = options.prompt(model.config(), prompt).unwrap();
    options.request(model.config(), prompt, 7, || None).unwrap()
}

fn sequences(model: &Model, request: &Request) -> Vec<Sequence> {
    let mut batch = Batch::new(model);
    batch.add(0, Generation::new(model, request.clone()).unwrap());
    run(model, &mut batch, 0);
    batch.remove(0).unwrap().sequences().to_vec()
}

fn tokens(sequences: &[Sequence]) -> Vec<Vec<u32>> {
    sequences.iter().map(|one| one.tokens.clone()).collect()
}

/// The cases with their models and requests.
fn cases() -> Vec<(Value, String, Request)> {
    let file = fs::read(golden_folder().join("decoding.json")).unwrap();
    let file: Value = serde_json::from_slice(&file).unwrap();
    let mut models: BTreeMap<String, Model> = BTreeMap::new();
    let cases = file["cases"].as_array().unwrap().iter();
    let cases = cases.map(|case| {
        let name = case["model"].as_str().unwrap().to_owned();
        let model = models
            .entry(name.clone())
            .or_insert_with(|| golden_model(&name));
        let mut request = request(model, &ids(&case["prompt"]), &options(&case["options"]));
        request.stop = ids(&case["ends"]);
        (case.clone(), name, request)
    });
    cases.collect()
}

#[test]
fn tokens_and_scores_are_those_of_transformers() {
    let mut models: BTreeMap<String, Model> = BTreeMap::new();
    let mut wrong = Vec::new();
    let all = cases();
    for (index, (case, name, request)) in all.iter().enumerate() {
        let model = models
            .entry(name.clone())
            .or_insert_with(|| golden_model(name));
        let found = sequences(model, request);
        let want: Vec<Vec<u32>> = serde_json::from_value(case["want"].clone()).unwrap();
        let mut right = tokens(&found) == want;
        if let Some(scores) = case["scores"].as_array() {
            for (one, score) in found.iter().zip(scores) {
                let (got, want) = (f64::from(one.score.unwrap()), score.as_f64().unwrap());
                right &= (got - want).abs() < 1e-3 * want.abs().max(1.0);
            }
        }
        if !right {
            println!("{index}: {case}\n   {found:?}");
            wrong.push(index);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}: {wrong:?}",
        wrong.len(),
        all.len()
    );
    assert!(all.len() >= 300);
}

/// Who shares a pass, how many rows it has and where the work is cut change nothing.
#[test]
fn together_and_in_pieces_they_are_the_same() {
    let cases = cases();
    let mut of_model: BTreeMap<&str, Vec<&Request>> = BTreeMap::new();
    for (_, name, request) in &cases {
        of_model.entry(name).or_default().push(request);
    }
    for (name, requests) in of_model {
        let model = golden_model_in(name, Precision::Int8);
        let alone: Vec<_> = requests.iter().map(|one| sequences(&model, one)).collect();
        for (rows, pause) in [(32, 3), (5, 2)] {
            let mut batch = Batch::new(&model);
            batch.limit_rows(rows);
            for (key, &request) in requests.iter().enumerate() {
                batch.add(
                    key as u64,
                    Generation::new(&model, request.clone()).unwrap(),
                );
            }
            run(&model, &mut batch, pause);
            for (key, alone) in alone.iter().enumerate() {
                assert_eq!(
                    batch.get(key as u64).unwrap().sequences(),
                    alone,
                    "{name} {key}"
                );
            }
        }
    }
}

/// A search is taken up from where it stood after any number of passes.
#[test]
fn they_go_on_from_where_they_stood() {
    let mut models: BTreeMap<String, Model> = BTreeMap::new();
    for (index, (_, name, request)) in cases().iter().enumerate().step_by(7) {
        let model = models
            .entry(name.clone())
            .or_insert_with(|| golden_model(name));
        let whole = sequences(model, request);
        let mut standing: Vec<Vec<Line>> = Vec::new();
        for _ in 0..200 {
            let session = Session::new(model);
            let generation = Generation::restore(model, request.clone(), session, &standing);
            let mut batch = Batch::new(model);
            batch.add(0, generation.unwrap());
            let mut left = 2 + index % 3;
            let over = batch.run(model, &mut |_| {
                left -= 1_usize.min(left);
                left > 0
            });
            let generation = batch.remove(0).unwrap();
            if over {
                // Scores are added up in other pieces; the tokens are the same.
                assert_eq!(tokens(generation.sequences()), tokens(&whole), "{index}");
                break;
            }
            standing = generation.standing();
        }
    }
}

/// A search may be interrupted before its first token, while the prompt is being run.
#[test]
fn they_go_on_from_the_middle_of_the_prompt() {
    let model = golden_model("two-blocks");
    let prompt: Vec<u32> = (0..40).collect();
    let groups = Options {
        num_beams: Some(4),
        num_beam_groups: Some(2),
        diversity_penalty: Some(1.0),
        ..several(4)
    };
    for options in [several(3), groups] {
        let request = request(&model, &prompt, &options);
        let mut batch = Batch::new(&model);
        batch.add(0, Generation::new(&model, request.clone()).unwrap());
        let mut passes = 0;
        batch.run(&model, &mut |_| {
            passes += 1;
            passes < 2
        });
        let standing = batch.remove(0).unwrap().standing();
        let session = Session::new(&model);
        let generation = Generation::restore(&model, request.clone(), session, &standing);
        batch.add(0, generation.unwrap());
        run(&model, &mut batch, 0);
        let whole = sequences(&model, &request);
        assert_eq!(batch.get(0).unwrap().sequences(), whole);
    }
}

fn several(count: u32) -> Options {
    Options {
        num_return_sequences: Some(count),
        max_new_tokens: Some(12),
        context: Some("stop".into()),
        ..Options::default()
    }
}

/// Each of several answers is the one that its own seed gives alone, the first that of the seed.
#[test]
fn several_answers_are_those_of_their_seeds() {
    for name in ["half", "gptj-one-head"] {
        let model = golden_model(name);
        let request = request(&model, &[1, 2, 3], &several(5));
        let found = sequences(&model, &request);
        assert_eq!(found.len(), 5);
        for (index, one) in found.iter().enumerate() {
            let mut alone = Request {
                sequences: 1,
                ..request.clone()
            };
            alone.sampling.seed = stream(7, index as u64);
            assert_eq!(&sequences(&model, &alone)[0], one, "{name} {index}");
        }
        let different: std::collections::BTreeSet<_> = tokens(&found).into_iter().collect();
        assert!(different.len() > 1, "{name}");
    }
}

/// The prompt is run once; behind it a pass has a row of each answer.
#[test]
fn the_prompt_is_run_once() {
    let model = golden_model("two-blocks");
    let prompt: Vec<u32> = (0..40).collect();
    let beams = Options {
        num_beams: Some(4),
        ..several(4)
    };
    for options in [several(4), beams] {
        let request = request(&model, &prompt, &options);
        let mut batch = Batch::new(&model);
        batch.add(0, Generation::new(&model, request).unwrap());
        let mut rows = Vec::new();
        while !batch.run(&model, &mut |step| {
            rows.push(step.rows);
            true
        }) {}
        assert_eq!(rows[..2], [32, 8]);
        assert!(rows[2..].iter().all(|&rows| rows == 4), "{rows:?}");
        assert_eq!(rows.len(), 2 + 11);
    }
}

/// What slides is computed again for each answer, and goes on.
#[test]
fn beams_and_several_answers_slide() {
    let model = golden_model("half");
    for beams in [None, Some(3)] {
        let options = Options {
            num_beams: beams,
            max_new_tokens: Some(90),
            context: Some("slide".into()),
            ..several(3)
        };
        let request = request(&model, &[5, 6], &options);
        assert_eq!(request.context, Context::Slide);
        let found = sequences(&model, &request);
        assert!(found.iter().all(|one| one.tokens.len() == 90));
        let mut batch = Batch::new(&model);
        batch.limit_rows(4);
        batch.add(0, Generation::new(&model, request).unwrap());
        run(&model, &mut batch, 2);
        assert_eq!(batch.get(0).unwrap().sequences(), found);
    }
}

/// Beams that are drawn: the same again for the same seed, others for another one, and of equal
/// tokens each about as often as the other.
#[test]
fn beams_can_be_drawn() {
    let model = golden_model("untied");
    let options = Options {
        num_beams: Some(4),
        temperature: Some(1.5),
        top_k: Some(30),
        ..several(2)
    };
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..12 {
        let mut request = request(&model, &[1, 2, 3], &options);
        request.sampling.seed = seed;
        let found = sequences(&model, &request);
        assert_eq!(found, sequences(&model, &request));
        assert_eq!(found.len(), 2);
        assert!(found[0].score >= found[1].score);
        seen.insert(tokens(&found));
    }
    assert!(seen.len() > 6, "{}", seen.len());
}

#[test]
fn who_is_hurried_ends_with_the_next_token() {
    let model = golden_model("half");
    let beams = Options {
        num_beams: Some(3),
        ..several(2)
    };
    for options in [several(2), beams] {
        let request = request(&model, &[1, 2, 3], &options);
        let mut batch = Batch::new(&model);
        batch.add(0, Generation::new(&model, request.clone()).unwrap());
        let mut passes = 0;
        batch.run(&model, &mut |_| {
            passes += 1;
            passes <= 5
        });
        batch.get_mut(0).unwrap().hurry();
        run(&model, &mut batch, 0);
        let found = batch.remove(0).unwrap().sequences().to_vec();
        let short = Request {
            max_new_tokens: 6,
            ..request
        };
        assert_eq!(found, sequences(&model, &short));
        assert!(found.iter().all(|one| one.finish == Some(Finish::Length)));
    }
}

/// What is said to these options, with five tokens and nothing else asked for.
fn said_to(change: impl Fn(&mut Options)) -> String {
    let model = golden_model("half");
    let mut options = Options {
        max_new_tokens: Some(5),
        ..Options::default()
    };
    change(&mut options);
    let (prompt, _) = options.prompt(model.config(), &[1, 2, 3]).unwrap();
    match options.request(model.config(), prompt, 0, || None) {
        Err(refusal) => refusal.to_string(),
        Ok(request) => match Generation::new(&model, request) {
            Err(error) => error.to_string(),
            Ok(_) => "nothing".into(),
        },
    }
}

type Change = fn(&mut Options);

#[test]
fn a_search_that_makes_no_sense_is_refused() {
    let cases: [(Change, &str); 13] = [
        (|o| o.num_beams = Some(0), "num_beams 0"),
        (|o| o.num_beams = Some(33), "num_beams 33"),
        (
            |o| (o.num_beams, o.num_beam_groups) = (Some(4), Some(3)),
            "num_beam_groups 3",
        ),
        (
            |o| (o.num_beams, o.num_beam_groups) = (Some(4), Some(2)),
            "diversity_penalty 0",
        ),
        (|o| o.diversity_penalty = Some(1.0), "diversity_penalty 1"),
        (|o| o.length_penalty = Some(f64::NAN), "length_penalty NaN"),
        (
            |o| o.early_stopping = Some("maybe".into()),
            "early_stopping",
        ),
        (
            |o| o.num_return_sequences = Some(0),
            "num_return_sequences 0",
        ),
        (
            |o| o.num_return_sequences = Some(33),
            "num_return_sequences 33",
        ),
        (
            |o| (o.num_return_sequences, o.temperature) = (Some(2), Some(0.0)),
            "temperature 0 always gives the same",
        ),
        (
            |o| (o.num_return_sequences, o.num_beams) = (Some(3), Some(2)),
            "as many as there are beams",
        ),
        (
            |o| (o.num_beams, o.logprobs) = (Some(2), Some(1)),
            "logprobs",
        ),
        (
            |o| {
                (o.num_beams, o.num_beam_groups) = (Some(4), Some(2));
                (o.diversity_penalty, o.temperature) = (Some(1.0), Some(1.0));
            },
            "can't be drawn",
        ),
    ];
    for (change, part) in cases {
        let said = said_to(change);
        assert!(said.contains(part), "{said:?} without {part:?}");
    }
    // What only matters with beams is no mistake without them.
    assert_eq!(
        said_to(|o| o.early_stopping = Some("true".into())),
        "nothing"
    );
    assert_eq!(
        said_to(|o| (o.num_beams, o.num_beam_groups) = (Some(1), Some(1))),
        "nothing"
    );
}

#[test]
fn lengths_times_and_biases_that_make_no_sense_are_refused() {
    let biased = |token_id, bias, count| {
        said_to(|o| o.logit_bias = Some(vec![Bias { token_id, bias }; count]))
    };
    let short = said_to(|o| (o.max_new_tokens, o.max_length) = (None, Some(3)));
    for (said, part) in [
        (short, "max_length 3"),
        (
            said_to(|o| o.min_length = Some(9)),
            "min_new_tokens 6 is more",
        ),
        (said_to(|o| o.max_time = Some(0.0)), "max_time"),
        (said_to(|o| o.max_time = Some(f64::NAN)), "max_time"),
        (biased(3, 100.5, 1), "a bias of 100.5 for token 3"),
        (biased(3, f64::NAN, 1), "a bias of NaN"),
        (
            biased(50, 1.0, 1),
            "token 50 is not in the model's vocabulary",
        ),
        (biased(1, 1.0, 1025), "1025 tokens"),
    ] {
        assert!(said.contains(part), "{said:?} without {part:?}");
    }
    assert_eq!(biased(3, -100.0, 1), "nothing");
    assert_eq!(
        Refusal::MaxTime.to_string(),
        said_to(|o| o.max_time = Some(-1.0))
    );
}
