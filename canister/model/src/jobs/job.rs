//! A job: one generation with its owner, what it was asked and what it has so far.

use candid::{CandidType, Encode, Principal};
use icgpt_engine::Line;
use serde::Deserialize;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use crate::answer::View;
use crate::quotas::Charge;
use crate::types::{Finish, Options, RunningJob, TokenLogprobs};

/// A job's name; nobody can guess it.
pub type Id = [u8; 32];

/// SHA-256 of something.
pub type Hash = [u8; 32];

/// Who is to get the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whoever polls it, when it suits them.
    Submitted,
    /// A call that waits, and whoever polls it later.
    Awaited,
    /// A call that waits; the seed's methods tell no id.
    Passing,
}

impl Kind {
    /// Whether a call waits for it.
    pub fn waits(self) -> bool {
        self != Self::Submitted
    }

    /// Whether it stays readable when it has ended.
    pub fn stays(self) -> bool {
        self != Self::Passing
    }
}

/// What was asked, as it is computed: the same again gives the same answer.
#[derive(CandidType, Deserialize, Clone)]
pub struct Ask {
    /// The prompt's ids, template included.
    pub prompt: Vec<u32>,
    /// Where in it the caller's own ids begin and end.
    pub own: (u32, u32),
    /// The options as they came.
    pub options: Options,
    /// The seed, given or drawn.
    pub seed: u64,
    /// Names the model.
    pub model: ByteBuf,
    /// When its time is over, in nanoseconds.
    pub until: Option<u64>,
}

/// One of several answers: what is kept of it, and what is vouched for.
#[derive(CandidType, Deserialize, Clone, Debug, PartialEq)]
pub struct Told {
    /// Its tokens.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// What a search thinks of it.
    pub score: Option<f32>,
}

/// One of several answers of an ended job.
#[derive(CandidType, Deserialize, Clone, Debug, PartialEq)]
pub struct Answer {
    /// What is vouched for.
    pub told: Told,
    /// Log-probabilities, where they were asked for.
    pub logprobs: Vec<TokenLogprobs>,
}

impl Ask {
    /// Tokens of the answer that the caller had already.
    pub fn begun(&self) -> &[u32] {
        self.options.begun.as_deref().unwrap_or_default()
    }

    /// How its caller wants to see the answer.
    pub fn view(&self) -> View {
        let (from, to) = (self.own.0 as usize, self.own.1 as usize);
        let own = self.prompt.get(from..to).unwrap_or_default();
        View::new(&self.options, own)
    }
}

/// A job that has not ended.
pub struct Job {
    /// Its name.
    pub id: Id,
    /// Who asked.
    pub owner: Principal,
    /// Who is to get the answer.
    pub kind: Kind,
    /// What was asked.
    pub ask: Ask,
    /// What was taken from its caller's quota for it.
    pub charge: Charge,
    /// The answer so far.
    pub tokens: Vec<u32>,
    /// Log-probabilities so far, where they were asked for, of all tokens but those of `begun`.
    pub logprobs: Vec<TokenLogprobs>,
    /// How many of them are in stable memory.
    pub noted: usize,
    /// Where several answers stand; none of one alone.
    pub standing: Vec<Vec<Line>>,
    /// All of several answers, when they have ended.
    pub answers: Option<Vec<Answer>>,
    /// Tokens that each of its answers has.
    pub length: usize,
    /// What it has taken, a part of what it shared with others included.
    pub instructions: u64,
    /// Its end was asked for, and how it is to be told.
    pub ending: Option<Finish>,
    /// When the call that waits for it last looked, in nanoseconds.
    pub seen: u64,
    /// Passes that it has paused for, so that others could catch up.
    pub paused: u32,
}

/// What the canister vouches for: asked and answered. Its Candid encoding is hashed.
#[derive(CandidType, Deserialize)]
pub struct Receipt {
    /// The prompt's ids, template included.
    pub prompt: Vec<u32>,
    /// The options as they came.
    pub options: Options,
    /// The seed, given or drawn.
    pub seed: u64,
    /// Names the model.
    pub model: ByteBuf,
    /// The answer.
    pub token_ids: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// All answers, where several were asked for or weighed.
    pub sequences: Option<Vec<Told>>,
}

/// A job that has ended.
#[derive(CandidType, Deserialize, Clone)]
pub struct Ended {
    /// Its name.
    pub id: ByteBuf,
    /// Who asked.
    pub owner: Principal,
    /// What was asked.
    pub ask: Ask,
    /// The answer.
    pub tokens: Vec<u32>,
    /// Log-probabilities, where they were asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// Why it ended.
    pub finish: Finish,
    /// What it took.
    pub instructions: u64,
    /// All answers, where several were asked for or weighed.
    pub answers: Option<Vec<Answer>>,
}

impl Job {
    /// A job that has nothing but what it was asked with.
    pub fn new(id: Id, owner: Principal, kind: Kind, ask: Ask, charge: Charge) -> Job {
        Job {
            id,
            owner,
            kind,
            tokens: ask.begun().to_vec(),
            ask,
            charge,
            logprobs: Vec::new(),
            noted: 0,
            standing: Vec::new(),
            answers: None,
            length: 0,
            instructions: 0,
            ending: None,
            seen: 0,
            paused: 0,
        }
    }

    /// The job as those see it who may end it.
    pub fn told(&self, running: bool) -> RunningJob {
        let options = &self.ask.options;
        let prompt_tokens = self.ask.prompt.len();
        RunningJob {
            job: ByteBuf::from(self.id.to_vec()),
            owner: self.owner,
            submitted: self.kind == Kind::Submitted,
            running,
            prompt_tokens: prompt_tokens as u32,
            tokens: self.computed() - prompt_tokens as u64,
            max_tokens: options.longest(prompt_tokens) * options.answers(),
            instructions: self.instructions,
        }
    }

    /// The job as it stays when it has ended.
    pub fn ended(self, finish: Finish) -> Ended {
        Ended {
            id: ByteBuf::from(self.id.to_vec()),
            owner: self.owner,
            ask: self.ask,
            tokens: self.tokens,
            logprobs: self.logprobs,
            finish,
            instructions: self.instructions,
            answers: self.answers,
        }
    }

    /// Tokens that were computed for it.
    pub fn computed(&self) -> u64 {
        let tokens = if self.ask.options.is_several() {
            self.length as u64 * self.ask.options.answers()
        } else {
            self.tokens.len() as u64
        };
        self.ask.prompt.len() as u64 + tokens
    }
}

impl Ended {
    /// The Candid encoding of its receipt.
    pub fn receipt(&self) -> Vec<u8> {
        let receipt = Receipt {
            prompt: self.ask.prompt.clone(),
            options: self.ask.options.clone(),
            seed: self.ask.seed,
            model: self.ask.model.clone(),
            token_ids: self.tokens.clone(),
            finish: self.finish.clone(),
            sequences: self.answers.as_ref().map(|answers| {
                let told = answers.iter().map(|answer| answer.told.clone());
                told.collect()
            }),
        };
        // Encoding values that are all in memory has no way to fail; an empty receipt proves nothing.
        Encode!(&receipt).unwrap_or_default()
    }

    /// The hash that is certified.
    pub fn hash(&self) -> Hash {
        Sha256::digest(self.receipt()).into()
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        let answers = self.answers.iter().flatten();
        let (mut tokens, mut places) =
            (self.tokens.len(), self.logprobs.iter().collect::<Vec<_>>());
        for answer in answers {
            tokens += answer.told.token_ids.len();
            places.extend(&answer.logprobs);
        }
        let logprobs: usize = places.iter().map(|place| 32 + 8 * place.top.len()).sum();
        256 + 4 * (self.ask.prompt.len() + tokens) + logprobs
    }
}
