//! What is asked of the model, why it may be refused, and what an answer is.

use thiserror::Error;

use crate::config::{Config, Context};
use crate::sampling::{Sampler, Sampling, SamplingError, TokenLogprobs, stream};
use crate::search::{Search, SearchError};
use crate::stop::StopStrings;

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The tokens that the answer follows.
    pub prompt: Vec<u32>,
    /// The answer's longest length.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What happens when the model's context is full.
    pub context: Context,
    /// Ids that end the answer; the one that does is its last token.
    pub stop: Vec<u32>,
    /// Texts that end the answer.
    pub stop_strings: Option<StopStrings>,
    /// Added to the logits of these ids, before all else.
    pub bias: Vec<(u32, f32)>,
    /// How answers are weighed against each other, if they are.
    pub search: Search,
    /// Answers to give: drawn each with random numbers of its own, or the best of a search.
    pub sequences: usize,
}

impl Request {
    /// One token, for the logits that it would be chosen by.
    #[must_use]
    pub fn for_logits(prompt: Vec<u32>) -> Request {
        Request {
            prompt,
            max_new_tokens: 1,
            sampling: Sampling::greedy(),
            context: Context::Stop,
            stop: Vec::new(),
            stop_strings: None,
            bias: Vec::new(),
            search: Search::default(),
            sequences: 1,
        }
    }

    /// What chooses the tokens of one of the answers.
    pub(crate) fn sampler(&self, index: u64) -> Sampler {
        let sampling = Sampling {
            seed: stream(self.sampling.seed, index),
            ..self.sampling
        };
        Sampler::new(&sampling, &self.prompt, &self.stop).with_bias(&self.bias)
    }

    /// Whether there is more than one answer, to be given or to be weighed.
    pub(crate) fn is_plain(&self) -> bool {
        self.sequences == 1 && !self.search.is_wanted()
    }

    pub(crate) fn validate(&self, config: &Config) -> Result<(), RequestError> {
        if self.prompt.is_empty() {
            return Err(RequestError::EmptyPrompt);
        }
        check_ids(config, &self.prompt)?;
        self.sampling.validate(self.max_new_tokens)?;
        if self.max_new_tokens == 0 {
            return Err(RequestError::NoTokens);
        }
        let drawn = self.sampling.temperature > 0.0;
        self.search.validate(self.sequences, drawn)?;
        if self.search.is_wanted() && self.sampling.logprobs.is_some() {
            return Err(SearchError::Logprobs.into());
        }
        if self.bias.len() > MAX_BIASES {
            return Err(RequestError::Biases(self.bias.len()));
        }
        for &(token, bias) in &self.bias {
            check_ids(config, &[token])?;
            if !(-MAX_BIAS..=MAX_BIAS).contains(&bias) {
                return Err(RequestError::Bias { token, bias });
            }
        }
        let (length, n_ctx) = (self.prompt.len(), config.n_ctx);
        if length > n_ctx && self.context == Context::Stop {
            return Err(RequestError::TooLong { length, n_ctx });
        }
        Ok(())
    }

    /// New tokens that there can be at most.
    pub(crate) fn longest(&self, n_ctx: usize) -> usize {
        match self.context {
            Context::Slide => self.max_new_tokens,
            Context::Stop => self
                .max_new_tokens
                .min(n_ctx + 1 - self.prompt.len().min(n_ctx)),
        }
    }
}

/// A bias lies between this and its negative.
pub const MAX_BIAS: f32 = 100.0;

/// Ids that can have a bias in one request.
pub const MAX_BIASES: usize = 1024;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token was chosen, or a stop string appeared.
    Stop,
    /// `max_new_tokens` were chosen.
    Length,
    /// The context is full.
    Context,
    /// No token is left to choose: the options forbid all of them, or the model gives no numbers.
    Exhausted,
}

/// Why a request is refused.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum RequestError {
    /// There is no token to start from.
    #[error("the prompt is empty: give at least one token")]
    EmptyPrompt,
    /// There is no token to score.
    #[error("the continuation is empty: give at least one token")]
    EmptyContinuation,
    /// An id is not in the model's vocabulary.
    #[error("token {token} is not in the model's vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The first such id.
        token: u32,
        /// Ids below this number exist.
        vocab_size: usize,
    },
    /// The tokens don't fit in the context.
    #[error("{length} tokens don't fit in the model's context of {n_ctx}: shorten them")]
    TooLong {
        /// Tokens given.
        length: usize,
        /// The model's context length.
        n_ctx: usize,
    },
    /// No token is asked for.
    #[error("max_new_tokens is 0: ask for at least one token")]
    NoTokens,
    /// The sampling options make no sense.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The options of a search make no sense.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// A bias is too large, or not a number.
    #[error("a bias of {bias} for token {token} is refused: give -{MAX_BIAS} to {MAX_BIAS}")]
    Bias {
        /// The first such id.
        token: u32,
        /// What was given.
        bias: f32,
    },
    /// Too many ids have one.
    #[error("a bias for {0} tokens is refused: give at most {MAX_BIASES}")]
    Biases(usize),
}

/// Checks that there are tokens and that the vocabulary has them.
pub(crate) fn check_ids(config: &Config, ids: &[u32]) -> Result<(), RequestError> {
    let vocab_size = config.vocab_size;
    match ids.iter().find(|&&id| id as usize >= vocab_size) {
        Some(&token) => Err(RequestError::TokenOutOfRange { token, vocab_size }),
        None => Ok(()),
    }
}

/// One of the answers to a request.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Sequence {
    /// Its new tokens, the prompt not among them.
    pub tokens: Vec<u32>,
    /// The log-probabilities at each of them, if they were asked for; else empty.
    pub logprobs: Vec<TokenLogprobs>,
    /// Why it ended; none while there is more to come.
    pub finish: Option<Finish>,
    /// What a search thinks of it: the sum of the logarithms of its probabilities after penalties, by
    /// its length to the power of the length penalty.
    pub score: Option<f32>,
}
