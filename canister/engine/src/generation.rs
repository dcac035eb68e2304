//! Generating an answer token by token, in as many pieces as the caller likes.

use thiserror::Error;

use crate::config::{Config, Context};
use crate::model::Model;
use crate::sampling::{Sampling, SamplingError, TokenLogprobs};
use crate::session::Session;
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
}

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
}

/// Checks that there are tokens and that the vocabulary has them.
pub(crate) fn check_ids(config: &Config, ids: &[u32]) -> Result<(), RequestError> {
    let vocab_size = config.vocab_size;
    match ids.iter().find(|&&id| id as usize >= vocab_size) {
        Some(&token) => Err(RequestError::TokenOutOfRange { token, vocab_size }),
        None => Ok(()),
    }
}

/// An answer in the making. It must be run with the model that it was made for.
pub struct Generation {
    request: Request,
    session: Session,
    tokens: Vec<u32>,
    logprobs: Vec<TokenLogprobs>,
    /// What the session has to run through next: the prompt, then the new token, or after a slide
    /// the end of all tokens so far.
    window: Vec<u32>,
    /// How much of `window` was run.
    done: usize,
    finish: Option<Finish>,
}

impl Generation {
    /// Checks the request. With [`Context::Slide`] a prompt longer than the context is cropped to
    /// its end.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn new(model: &Model, request: Request) -> Result<Generation, RequestError> {
        let config = model.config();
        if request.prompt.is_empty() {
            return Err(RequestError::EmptyPrompt);
        }
        check_ids(config, &request.prompt)?;
        request.sampling.validate()?;
        if request.max_new_tokens == 0 {
            return Err(RequestError::NoTokens);
        }
        let mut window = request.prompt.clone();
        if window.len() > config.n_ctx {
            match request.context {
                Context::Stop => {
                    return Err(RequestError::TooLong {
                        length: window.len(),
                        n_ctx: config.n_ctx,
                    });
                }
                Context::Slide => window = last(&window, &[], kept(config.n_ctx)),
            }
        }
        let session = Session::new(model);
        Ok(Generation {
            request,
            session,
            tokens: Vec::new(),
            logprobs: Vec::new(),
            window,
            done: 0,
            finish: None,
        })
    }

    /// Goes on until the answer is finished, or until `may_continue`, asked before each forward
    /// pass, says no: then the result is `None`, and a later call goes on.
    pub fn run(&mut self, model: &Model, may_continue: &mut dyn FnMut() -> bool) -> Option<Finish> {
        while self.finish.is_none() {
            let Some(&token) = self.window.get(self.done) else {
                self.choose(model.config().n_ctx);
                continue;
            };
            if !may_continue() {
                return None;
            }
            let want_logits = self.done + 1 == self.window.len();
            if self.session.forward(model, token, want_logits).is_err() {
                // Ids were checked and the window fits, so the model is another one.
                self.finish = Some(Finish::Context);
            }
            self.done += 1;
        }
        self.finish
    }

    /// Adds the next token to the answer and says what is to be run for the one after it.
    fn choose(&mut self, n_ctx: usize) {
        let position = self.tokens.len() as u64;
        let token = self
            .request
            .sampling
            .choose(self.session.logits(), position);
        self.tokens.push(token);
        let full = self.session.len() >= n_ctx;
        self.finish = if self.request.stop.contains(&token) {
            Some(Finish::Stop)
        } else if self.tokens.len() >= self.request.max_new_tokens {
            Some(Finish::Length)
        } else if full && self.request.context == Context::Stop {
            Some(Finish::Context)
        } else {
            None
        };
        if self.finish.is_some() {
            return;
        }
        self.done = 0;
        if full {
            // Positions are absolute, so what is kept has to be computed again.
            self.session.clear();
            self.window = last(&self.request.prompt, &self.tokens, kept(n_ctx));
        } else {
            self.window = vec![token];
        }
    }

    /// The new tokens so far, the prompt not among them.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The log-probabilities at each new token, if they were asked for; else empty.
    #[must_use]
    pub fn logprobs(&self) -> &[TokenLogprobs] {
        &self.logprobs
    }

    /// The logits that the last token was chosen by.
    #[must_use]
    pub fn logits(&self) -> &[f32] {
        self.session.logits()
    }
}

/// How many tokens a slide keeps.
fn kept(n_ctx: usize) -> usize {
    n_ctx - n_ctx / 4
}

/// The last `n` of two lists that follow each other.
fn last(first: &[u32], second: &[u32], n: usize) -> Vec<u32> {
    let skip = (first.len() + second.len()).saturating_sub(n);
    first.iter().chain(second).skip(skip).copied().collect()
}
