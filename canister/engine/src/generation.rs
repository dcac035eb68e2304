//! An answer in the making: what is to be run through the model next, and what follows from it.
//!
//! A [`Batch`](crate::Batch) runs it.

use thiserror::Error;

use crate::config::{Config, Context};
use crate::model::Model;
use crate::sampling::{Buffers, Sampler, Sampling, SamplingError, TokenLogprobs};
use crate::session::{Session, Shape};
use crate::simd::F32x4;
use crate::stop::{StopStrings, Watch};

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
        }
    }
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
    sampler: Sampler,
    watch: Option<Watch>,
    tokens: Vec<u32>,
    logprobs: Vec<TokenLogprobs>,
    /// What the session is to hold before the next token is chosen: the prompt and the answer, or
    /// after a slide the end of them.
    window: Vec<u32>,
    finish: Option<Finish>,
}

impl Generation {
    /// Checks the request. With [`Context::Slide`] a prompt longer than the context is cropped to
    /// its end.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn new(model: &Model, request: Request) -> Result<Generation, RequestError> {
        Self::with_session(model, request, Session::new(model))
    }

    /// The same, with a session that was used before: as far as the prompt starts with the tokens
    /// that it holds, the prompt need not be run again. The answer is the same.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn with_session(
        model: &Model,
        request: Request,
        session: Session,
    ) -> Result<Generation, RequestError> {
        Self::resume(model, request, session, &[])
    }

    /// The same, with the answer's first tokens found earlier: it goes on behind them as if it had
    /// never been interrupted. Log-probabilities are given for the tokens after them only.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn resume(
        model: &Model,
        request: Request,
        session: Session,
        tokens: &[u32],
    ) -> Result<Generation, RequestError> {
        let config = model.config();
        if request.prompt.is_empty() {
            return Err(RequestError::EmptyPrompt);
        }
        check_ids(config, &request.prompt)?;
        request.sampling.validate(request.max_new_tokens)?;
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
        check_ids(config, tokens)?;
        let sampler = Sampler::new(&request.sampling, &request.prompt, &request.stop);
        let watch = request.stop_strings.clone().map(Watch::new);
        let mut generation = Generation {
            request,
            session,
            sampler,
            watch,
            tokens: Vec::new(),
            logprobs: Vec::new(),
            window,
            finish: None,
        };
        for &token in tokens {
            if generation.finish.is_none() {
                generation.take(token, config.n_ctx);
            }
        }
        generation.reuse(model);
        Ok(generation)
    }

    /// Cuts the session back to what it has in common with the window.
    fn reuse(&mut self, model: &Model) {
        if !self.session.fits(model) {
            self.session = Session::new(model);
        }
        let held = self.session.tokens().iter().zip(&self.window);
        let common = held.take_while(|(held, wanted)| held == wanted).count();
        // The last token is run in any case, for its logits.
        self.session.truncate(common.min(self.window.len() - 1));
    }

    /// Tokens that are to be run next; none when the answer is finished.
    pub(crate) fn pending(&self) -> &[u32] {
        match self.finish {
            None => &self.window[self.session.len()..],
            Some(_) => &[],
        }
    }

    /// The first `rows` of the tokens to be run.
    pub(crate) fn next(&self, rows: usize) -> &[u32] {
        &self.pending()[..rows]
    }

    /// Of how many of the next `rows` tokens logits are wanted.
    pub(crate) fn wanted(&self, rows: usize) -> usize {
        usize::from(rows == self.pending().len())
    }

    pub(crate) fn held(&self) -> &Session {
        &self.session
    }

    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    pub(crate) fn shape(&self) -> Shape {
        self.session.shape
    }

    /// Ends the answer where it is.
    pub(crate) fn end(&mut self, finish: Finish) {
        self.finish.get_or_insert(finish);
    }

    /// Takes note that the next `rows` tokens were run. With the logits of the last one the next
    /// token is chosen.
    pub(crate) fn ran(
        &mut self,
        rows: usize,
        logits: Option<&mut Vec<F32x4>>,
        n_ctx: usize,
        buffers: &mut Buffers,
    ) {
        let (start, wanted) = (self.session.len(), logits.is_some());
        self.session.add(&self.window[start..start + rows], logits);
        if wanted {
            self.choose(n_ctx, buffers);
        }
    }

    /// Adds the next token to the answer and says what is to be run for the one after it.
    fn choose(&mut self, n_ctx: usize, buffers: &mut Buffers) {
        let Some(choice) = self.sampler.choose(self.session.logits(), buffers) else {
            self.finish = Some(Finish::Exhausted);
            return;
        };
        self.logprobs.extend(choice.logprobs);
        if self.take(choice.token, n_ctx) {
            // Positions are absolute, so what is kept has to be computed again.
            self.session.clear();
        }
    }

    /// Adds a token to the answer, and to the window if there is one to come after it. Says whether
    /// the window slid.
    fn take(&mut self, token: u32, n_ctx: usize) -> bool {
        self.tokens.push(token);
        self.sampler.push(token);
        let stopped = self.watch.as_mut().is_some_and(|watch| watch.push(token));
        let full = self.window.len() >= n_ctx;
        self.finish = if stopped || self.request.stop.contains(&token) {
            Some(Finish::Stop)
        } else if self.tokens.len() >= self.request.max_new_tokens {
            Some(Finish::Length)
        } else if full && self.request.context == Context::Stop {
            Some(Finish::Context)
        } else {
            None
        };
        if self.finish.is_some() {
            return false;
        }
        if full {
            self.window = last(&self.request.prompt, &self.tokens, kept(n_ctx));
        } else {
            self.window.push(token);
        }
        full
    }

    /// Why the answer ended; none while there is more to come.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// The session, for another generation to go on with.
    #[must_use]
    pub fn into_session(self) -> Session {
        self.session
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
