//! Generations that run together on the loaded model, each under a number that the host gives it.
//!
//! What is asked comes in the Candid encoding that canisters take: `(vec nat32, record { … })`, the
//! prompt's ids and the options. What was found goes out in words of 32 bits, little-endian, the
//! fractions as floats: for each answer with news the number of its generation (two words), which of
//! that one's answers it is, the reason of its end (0 while it goes on, then as [`end`] has it), its
//! score (no number where there is none), the number of new tokens and of places with
//! log-probabilities, the tokens, and for each place the chosen token with its log-probability, the
//! number of likeliest tokens, and those with theirs. Answers of a search come when it is over.

use std::cell::RefCell;
use std::collections::BTreeMap;

use candid::{Decode, DecoderConfig};
use icgpt_engine::{Batch, Finish, Generation, Model, Request, Scoring, Session, TokenLogprobs};
use icgpt_request::Options;

use crate::exchange::{give, taken};
use crate::failure::Failure;
use crate::loading;

/// Bytes of weights, keys and values; the rest of 4 GiB is for the work itself.
const ROOM: u64 = 15 << 28;

/// What decoding a request may cost, in Candid's own units: a long prompt is far below.
const MOST_DECODING: usize = 50_000_000;

thread_local! {
    static DESK: RefCell<Option<Desk>> = const { RefCell::new(None) };
}

/// The model, and those that run on it.
struct Desk {
    model: Model,
    batch: Batch,
    members: BTreeMap<u64, Member>,
}

/// Bytes that a generation may take, and what was told of each of its answers.
struct Member {
    bytes: u64,
    told: Vec<Told>,
}

/// How many tokens and log-probabilities were told, and whether the end was.
#[derive(Clone, Default)]
struct Told {
    tokens: usize,
    places: usize,
    end: bool,
}

/// Puts a model to work, in place of the one before it.
pub fn begin(model: Model) {
    let batch = Batch::new(&model);
    let members = BTreeMap::new();
    DESK.set(Some(Desk {
        model,
        batch,
        members,
    }));
}

fn with<T>(work: impl FnOnce(&mut Desk) -> Result<T, Failure>) -> Result<T, Failure> {
    DESK.with_borrow_mut(|desk| match desk {
        Some(desk) => work(desk),
        None => Err(Failure::Misuse("no model is loaded")),
    })
}

/// Takes a request in under a number. Gives the length of its prompt, template included.
#[unsafe(no_mangle)]
pub extern "C" fn submit(number: u64, seed: u64) -> i32 {
    give(|answer| {
        let mut limits = DecoderConfig::new();
        limits.set_decoding_quota(MOST_DECODING);
        let decoded = Decode!([limits]; &taken(), Vec<u32>, Options);
        let (own, options) = decoded.map_err(|error| Failure::Request(error.to_string()))?;
        with(|desk| {
            let config = desk.model.config();
            let (prompt, _) = options.prompt(config, &own)?;
            let length = prompt.len();
            let begun = options.begun.clone().unwrap_or_default();
            let bytes = options.memory(&desk.model, length);
            let taken: u64 = desk.members.values().map(|member| member.bytes).sum();
            if desk.model.memory() + taken + bytes > ROOM {
                let running = desk.members.len();
                return Err(Failure::NoRoom(format!(
                    "no memory for another generation beside the {running} that run"
                )));
            }
            let request = options.request(config, prompt, seed, loading::tokenizer)?;
            let session = Session::new(&desk.model);
            let generation = Generation::resume(&desk.model, request, session, &begun)?;
            desk.batch.add(number, generation);
            let told = Told {
                tokens: begun.len(),
                ..Told::default()
            };
            let told = vec![told; options.num_return_sequences.unwrap_or(1) as usize];
            desk.members.insert(number, Member { bytes, told });
            answer.extend((length as u32).to_le_bytes());
            Ok(0)
        })
    })
}

/// Lets a generation go; 1 if there was one.
#[unsafe(no_mangle)]
pub extern "C" fn cancel(number: u64) -> i32 {
    give(|_| {
        with(|desk| {
            desk.batch.remove(number);
            Ok(desk.members.remove(&number).is_some().into())
        })
    })
}

/// Lets the next token of a generation's answers be their last; 1 if there was one.
#[unsafe(no_mangle)]
pub extern "C" fn hurry(number: u64) -> i32 {
    give(|_| {
        with(|desk| {
            let found = desk.batch.get_mut(number).map(Generation::hurry);
            Ok(found.is_some().into())
        })
    })
}

/// Runs so many passes at most, in each of which every generation that fits in gets on by a token or
/// by a piece of its prompt. Gives what was found; those that have ended are let go. Returns how many
/// are left.
#[unsafe(no_mangle)]
pub extern "C" fn run(passes: u32) -> i32 {
    give(|answer| {
        with(|desk| {
            let mut left = passes;
            desk.batch.run(&desk.model, &mut |_| {
                let more = left > 0;
                left = left.saturating_sub(1);
                more
            });
            desk.tell(answer);
            Ok(i32::try_from(desk.members.len()).unwrap_or(i32::MAX))
        })
    })
}

/// The logits of the token that follows. Takes ids as words; gives floats.
#[unsafe(no_mangle)]
pub extern "C" fn logits() -> i32 {
    give(|answer| {
        with(|desk| {
            let request = Request::for_logits(words(&taken()));
            let mut batch = Batch::new(&desk.model);
            batch.add(0, Generation::new(&desk.model, request)?);
            batch.run(&desk.model, &mut |_| true);
            let found = batch.remove(0);
            let found = found.iter().flat_map(Generation::logits);
            answer.extend(found.flat_map(|logit| logit.to_le_bytes()));
            Ok(0)
        })
    })
}

/// The log-probabilities of a continuation, of which the prompt is the first `prompt` ids. Takes ids
/// as words; gives floats.
#[unsafe(no_mangle)]
pub extern "C" fn score(prompt: usize) -> i32 {
    give(|answer| {
        with(|desk| {
            let mut ids = words(&taken());
            let continuation = ids.split_off(prompt.min(ids.len()));
            let mut scoring = Scoring::new(&desk.model, ids, continuation)?;
            scoring.run(&desk.model, &mut |_| true);
            answer.extend(scoring.logprobs().iter().flat_map(|p| p.to_le_bytes()));
            Ok(0)
        })
    })
}

fn words(bytes: &[u8]) -> Vec<u32> {
    let words = bytes.as_chunks().0.iter();
    words.map(|&word| u32::from_le_bytes(word)).collect()
}

/// The reason of an end as a number.
fn end(finish: Option<Finish>) -> u32 {
    match finish {
        None => 0,
        Some(Finish::Stop) => 1,
        Some(Finish::Length) => 2,
        Some(Finish::Context) => 3,
        Some(Finish::Exhausted) => 4,
    }
}

impl Desk {
    /// Tells what is new, and lets those go that have ended.
    fn tell(&mut self, answer: &mut Vec<u8>) {
        let mut say = |word: u32| answer.extend(word.to_le_bytes());
        for (&number, member) in &mut self.members {
            let sequences = self.batch.get(number).map(Generation::sequences);
            let sequences = sequences.unwrap_or_default().iter().enumerate();
            for ((index, one), told) in sequences.zip(&mut member.told) {
                let tokens = one.tokens.get(told.tokens..).unwrap_or_default();
                let places = &one.logprobs[told.places..];
                if told.end || (tokens.is_empty() && one.finish.is_none()) {
                    continue;
                }
                say(number as u32);
                say((number >> 32) as u32);
                say(index as u32);
                say(end(one.finish));
                say(one.score.unwrap_or(f32::NAN).to_bits());
                say(tokens.len() as u32);
                say(places.len() as u32);
                for &token in tokens {
                    say(token);
                }
                for TokenLogprobs { chosen, top } in places {
                    say(chosen.token);
                    say(chosen.logprob.to_bits());
                    say(top.len() as u32);
                    for one in top {
                        say(one.token);
                        say(one.logprob.to_bits());
                    }
                }
                *told = Told {
                    tokens: one.tokens.len(),
                    places: one.logprobs.len(),
                    end: one.finish.is_some(),
                };
            }
        }
        let batch = &mut self.batch;
        self.members.retain(|&number, _| {
            let goes_on = batch.get(number).is_some_and(|one| one.finish().is_none());
            if !goes_on {
                batch.remove(number);
            }
            goes_on
        });
    }
}
