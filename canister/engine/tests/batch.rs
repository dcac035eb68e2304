//! Whatever runs together gives the numbers that it gives alone; sessions can be used again.
#![allow(clippy::unwrap_used, clippy::float_cmp, missing_docs)]

mod common;

use common::{GOLDEN, generate, golden_model, golden_model_in, run};
use icgpt_engine::{
    Batch, Context, Finish, Generation, Model, Precision, Request, Sampling, Scoring, Session,
};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Int8, Precision::Int16];

/// A request whose length and seed depend on `i`.
fn request(model: &Model, i: usize) -> Request {
    let config = model.config();
    let id = |k: usize| ((k * 7 + i * 11) % config.vocab_size) as u32;
    Request {
        prompt: (0..=i * 5 % (config.n_ctx - 1)).map(id).collect(),
        max_new_tokens: 1 + i * 3 % 17,
        sampling: Sampling {
            temperature: 0.9,
            top_k: Some(20),
            seed: i as u64,
            ..Sampling::greedy()
        },
        context: if i.is_multiple_of(2) {
            Context::Slide
        } else {
            Context::Stop
        },
        stop: Vec::new(),
        stop_strings: None,
        ..Request::for_logits(Vec::new())
    }
}

/// The answers of 40 requests, which is more than a pass has rows, and their last logits.
#[test]
fn together_as_alone() {
    for precision in PRECISIONS {
        for name in GOLDEN {
            let model = golden_model_in(name, precision);
            let requests: Vec<Request> = (0..40).map(|i| request(&model, i)).collect();
            let mut together = Batch::new(&model);
            for (key, request) in requests.iter().enumerate() {
                let generation = Generation::new(&model, request.clone()).unwrap();
                together.add(key as u64 * 3, generation);
            }
            assert_eq!(together.len(), 40);
            run(&model, &mut together, 2);
            for (key, request) in requests.iter().enumerate() {
                let mut alone = Batch::new(&model);
                alone.add(1, Generation::new(&model, request.clone()).unwrap());
                run(&model, &mut alone, 0);
                let (alone, other) = (alone.get(1).unwrap(), together.get(key as u64 * 3).unwrap());
                assert_eq!(other.tokens(), alone.tokens(), "{name} {precision:?} {key}");
                assert_eq!(other.logits(), alone.logits(), "{name} {precision:?} {key}");
                assert_eq!(other.finish(), alone.finish(), "{name} {precision:?} {key}");
            }
        }
    }
}

/// A prompt in one pass, row by row, and in blocks behind other rows: the same logits.
#[test]
fn a_row_is_the_same_in_any_block() {
    for precision in PRECISIONS {
        for name in GOLDEN {
            let model = golden_model_in(name, precision);
            let config = model.config();
            let prompt: Vec<u32> = (0..config.n_ctx)
                .map(|k| (k * 13 % config.vocab_size) as u32)
                .collect();
            let mut session = Session::new(&model);
            for &token in &prompt {
                session.forward(&model, token, true).unwrap();
            }
            let greedy = Request {
                prompt,
                max_new_tokens: 1,
                sampling: Sampling::greedy(),
                context: Context::Stop,
                stop: Vec::new(),
                stop_strings: None,
                ..Request::for_logits(Vec::new())
            };
            let mut batch = Batch::new(&model);
            for key in 0..3 {
                batch.add(key, Generation::new(&model, greedy.clone()).unwrap());
            }
            run(&model, &mut batch, 0);
            for key in 0..3 {
                let logits = batch.get(key).unwrap().logits();
                assert_eq!(logits, session.logits(), "{name} {precision:?}");
            }
        }
    }
}

/// Fewer rows a pass, for who can't afford as many as the engine has: the same answers.
#[test]
fn passes_have_as_many_rows_as_they_may() {
    for precision in PRECISIONS {
        let model = golden_model_in("two-blocks", precision);
        let requests: Vec<Request> = (0..9).map(|i| request(&model, i)).collect();
        let answers = |most: usize| {
            let mut batch = Batch::new(&model);
            batch.limit_rows(most);
            for (key, request) in requests.iter().enumerate() {
                let generation = Generation::new(&model, request.clone()).unwrap();
                batch.add(key as u64, generation);
            }
            let mut widest = 0;
            assert!(batch.run(&model, &mut |step| {
                widest = widest.max(step.rows);
                true
            }));
            assert_eq!(widest, most.clamp(1, 32));
            let all = batch.keys().map(|key| batch.get(key).unwrap());
            all.map(|one| (one.tokens().to_vec(), one.logits().to_vec()))
                .collect::<Vec<_>>()
        };
        let want = answers(usize::MAX);
        for most in [0, 1, 5, 8, 24, 32] {
            assert!(answers(most) == want, "{precision:?} {most}");
        }
    }
}

#[test]
fn all_members_advance_alike() {
    let model = golden_model("no-bias");
    let endless = |seed| Request {
        max_new_tokens: 1000,
        ..request(&model, 2 * seed)
    };
    let mut batch = Batch::new(&model);
    for key in 0..70 {
        batch.add(key, Generation::new(&model, endless(key as usize)).unwrap());
    }
    let mut passes = 0;
    batch.run(&model, &mut |step| {
        assert_eq!(step.rows, 32);
        passes += 1;
        passes <= 200
    });
    let lengths: Vec<usize> = batch
        .keys()
        .map(|key| batch.get(key).unwrap().tokens().len())
        .collect();
    let (least, most) = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
    assert!(*least > 0 && most - least <= most / 2, "{least} {most}");
}

#[test]
fn members_come_and_go() {
    let model = golden_model("half");
    let (first, second) = (request(&model, 5), request(&model, 7));
    let want = (generate(&model, &first, 0), generate(&model, &second, 0));
    let mut batch = Batch::new(&model);
    batch.add(9, Generation::new(&model, first).unwrap());
    let mut asked = 0;
    batch.run(&model, &mut |_| {
        asked += 1;
        asked <= 3
    });
    batch.add(2, Generation::new(&model, second).unwrap());
    batch.run(&model, &mut |_| {
        asked += 1;
        asked <= 6
    });
    let taken = batch.remove(9).unwrap();
    assert!(batch.remove(9).is_none() && batch.get(9).is_none());
    run(&model, &mut batch, 0);
    assert_eq!(batch.keys().collect::<Vec<_>>(), [2]);
    batch.add(1, taken);
    run(&model, &mut batch, 0);
    let got = |key| {
        let generation = batch.get(key).unwrap();
        (generation.tokens().to_vec(), generation.finish().unwrap())
    };
    assert_eq!((got(1), got(2)), want);
}

#[test]
fn another_model_ends_what_it_can_not_go_on_with() {
    let (model, other) = (golden_model("half"), golden_model("no-bias"));
    let mut batch = Batch::new(&model);
    batch.add(0, Generation::new(&other, request(&other, 3)).unwrap());
    batch.add(1, Generation::new(&model, request(&model, 3)).unwrap());
    assert_eq!(batch.get(0).unwrap().finish(), Some(Finish::Context));
    assert_eq!(batch.get(1).unwrap().finish(), None);
    assert!(batch.run(&other, &mut |_| true));
    assert_eq!(batch.get(1).unwrap().finish(), Some(Finish::Context));
}

/// Sessions that share, cut back or continue give what fresh ones give, in every block's middle.
#[test]
fn sessions_are_used_again() {
    for precision in PRECISIONS {
        let model = golden_model_in("two-blocks", precision);
        let config = model.config();
        let ids = |salt: usize, n: usize| -> Vec<u32> {
            let id = |k: usize| ((k * 7 + salt) % config.vocab_size) as u32;
            (0..n).map(id).collect()
        };
        let fresh = |tokens: &[u32]| {
            let mut session = Session::new(&model);
            for &token in tokens {
                session.forward(&model, token, true).unwrap();
            }
            session.logits().to_vec()
        };
        let most = config.n_ctx;
        let long = ids(0, most);
        let mut trunk = Session::new(&model);
        for &token in &long {
            trunk.forward(&model, token, false).unwrap();
        }
        for shared in [0, 1, 5, most / 2, most - 1] {
            let tail = ids(3, most - shared);
            let mut fork = trunk.fork(shared);
            assert_eq!(fork.tokens(), &long[..shared]);
            for &token in &tail {
                fork.forward(&model, token, true).unwrap();
            }
            assert_eq!(fork.logits(), fresh(&[&long[..shared], &tail].concat()));
            assert!(fork.bytes() > 0 && fork.bytes() <= trunk.bytes());
        }
        // The trunk has seen nothing of its forks.
        trunk.truncate(most - 1);
        assert_eq!(trunk.tokens(), &long[..most - 1]);
        trunk.forward(&model, long[most - 1], true).unwrap();
        assert_eq!(trunk.logits(), fresh(&long));
        trunk.truncate(most);
        assert_eq!(trunk.logits(), fresh(&long));
    }
}

#[test]
fn a_continued_prompt_runs_only_what_is_new() {
    let model = golden_model("two-blocks");
    let wanted = request(&model, 6);
    let answer = generate(&model, &wanted, 0);
    let rows = |session: Session, request: &Request| {
        let mut batch = Batch::new(&model);
        let generation = Generation::with_session(&model, request.clone(), session).unwrap();
        batch.add(0, generation);
        let mut first = 0;
        batch.run(&model, &mut |step| {
            if first == 0 {
                first = step.rows;
            }
            true
        });
        let generation = batch.remove(0).unwrap();
        (
            first,
            generation.tokens().to_vec(),
            generation.into_session(),
        )
    };
    let (all, tokens, session) = rows(Session::new(&model), &wanted);
    assert_eq!((all, &tokens), (wanted.prompt.len(), &answer.0));
    // The last token was chosen, but not run; a prompt's last token is run again.
    let next = Request {
        prompt: [&wanted.prompt[..], &tokens, &[1, 2]].concat(),
        max_new_tokens: 1,
        ..wanted.clone()
    };
    let want = generate(&model, &next, 0).0;
    let (new, got, session) = rows(session, &next);
    assert_eq!((new, got), (3, want));
    let (again, got, session) = rows(session, &wanted);
    assert_eq!((again, got), (1, answer.0.clone()));
    // A session of another model is of no use, and no harm.
    let other = golden_model("half");
    let stranger = Session::new(&other);
    assert!(!session.fits(&other) && session.fits(&model));
    let (whole, got, _) = rows(stranger, &wanted);
    assert_eq!((whole, got), (wanted.prompt.len(), answer.0));
}

/// Log-probabilities by blocks are those of single steps.
#[test]
fn scoring_runs_in_blocks() {
    for precision in PRECISIONS {
        let model = golden_model_in("two-blocks", precision);
        let config = model.config();
        let ids: Vec<u32> = (0..=config.n_ctx)
            .map(|k| (k * 5 % config.vocab_size) as u32)
            .collect();
        let score = |split: usize, pause: bool, most: usize| {
            let (prompt, continuation) = (ids[..split].to_vec(), ids[split..].to_vec());
            let mut scoring = Scoring::new(&model, prompt, continuation).unwrap();
            scoring.limit_rows(most);
            loop {
                let mut asked = 0;
                let over = scoring.run(&model, &mut |step| {
                    assert!((1..=most.clamp(1, 32)).contains(&step.rows));
                    asked += 1;
                    !pause || asked < 2
                });
                if over {
                    return scoring.logprobs().to_vec();
                }
            }
        };
        let all = score(1, false, usize::MAX);
        assert_eq!(all.len(), config.n_ctx);
        for most in [0, 1, 7, 32] {
            assert_eq!(score(1, true, most), all, "{precision:?} {most}");
        }
        for split in [2, 31, 32, 33, 34, config.n_ctx] {
            if split <= config.n_ctx {
                assert_eq!(
                    score(split, true, 32),
                    all[split - 1..],
                    "{precision:?} {split}"
                );
            }
        }
    }
}

/// An answer that is interrupted after any token and begun again from there, with any session at
/// hand, ends as if nothing had been, slides and short contexts among them.
#[test]
fn resumed_as_uninterrupted() {
    for precision in PRECISIONS {
        for name in GOLDEN {
            let model = golden_model_in(name, precision);
            for i in 0..6 {
                let mut request = request(&model, i);
                request.max_new_tokens = 2 * model.config().n_ctx;
                request.sampling.repetition_penalty = Some(1.3);
                let finished = |tokens: &[u32], session: Session| {
                    let made = Generation::resume(&model, request.clone(), session, tokens);
                    let mut batch = Batch::new(&model);
                    batch.add(0, made.unwrap());
                    run(&model, &mut batch, 0);
                    batch.remove(0).unwrap()
                };
                let whole = finished(&[], Session::new(&model));
                let held = finished(&[], Session::new(&model)).into_session();
                for cut in (0..whole.tokens().len()).step_by(7) {
                    for session in [Session::new(&model), held.fork(held.len())] {
                        let resumed = finished(&whole.tokens()[..cut], session);
                        assert_eq!(resumed.tokens(), whole.tokens(), "{name} {i} {cut}");
                        assert_eq!(resumed.logits(), whole.logits(), "{name} {i} {cut}");
                        assert_eq!(resumed.finish(), whole.finish(), "{name} {i} {cut}");
                    }
                }
                let ended = finished(whole.tokens(), Session::new(&model));
                assert_eq!(ended.finish(), whole.finish());
            }
        }
    }
}
