//! Log-probabilities of a given continuation, in as many pieces as the caller likes.

use crate::batch::Step;
use crate::model::Model;
use crate::pass::{Pass, ROWS};
use crate::request::{RequestError, check_ids};
use crate::sampling::log_probability;
use crate::session::Session;
use crate::simd::floats;

/// A continuation being scored. It must be run with the model that it was made for.
pub struct Scoring {
    /// Prompt and continuation.
    tokens: Vec<u32>,
    prompt_len: usize,
    session: Session,
    pass: Pass,
    /// Tokens in the pass, and the most that one has.
    rows: usize,
    most: usize,
    logprobs: Vec<f32>,
}

impl Scoring {
    /// Checks the tokens; the last one need not be run, so together they may be one longer than
    /// the context.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn new(
        model: &Model,
        prompt: Vec<u32>,
        continuation: Vec<u32>,
    ) -> Result<Scoring, RequestError> {
        let config = model.config();
        if prompt.is_empty() {
            return Err(RequestError::EmptyPrompt);
        }
        if continuation.is_empty() {
            return Err(RequestError::EmptyContinuation);
        }
        let prompt_len = prompt.len();
        let mut tokens = prompt;
        tokens.extend(continuation);
        check_ids(config, &tokens)?;
        let length = tokens.len() - 1;
        if length > config.n_ctx {
            return Err(RequestError::TooLong {
                length,
                n_ctx: config.n_ctx,
            });
        }
        Ok(Scoring {
            tokens,
            prompt_len,
            session: Session::new(model),
            pass: Pass::new(config),
            rows: 0,
            most: ROWS,
            logprobs: Vec::new(),
        })
    }

    /// Lets the passes from the next one on have so many rows at most, as
    /// [`Batch::limit_rows`](crate::Batch::limit_rows) does.
    pub fn limit_rows(&mut self, most: usize) {
        self.most = most.clamp(1, ROWS);
    }

    /// Goes on until all is scored (true), or until `may_continue` says no (false); a later call
    /// goes on. It is asked before each pass, and before each block of a model that is not in memory.
    pub fn run(&mut self, model: &Model, may_continue: &mut dyn FnMut(Step) -> bool) -> bool {
        if !self.session.fits(model) {
            // Ids and length were checked for another model: there is no answer.
            return true;
        }
        while self.session.len() + 1 < self.tokens.len() {
            let start = self.session.len();
            if !self.pass.is_under_way() {
                self.rows = self.most.min(self.tokens.len() - 1 - start);
                let step = Step {
                    rows: self.rows,
                    bytes: 0,
                };
                if !may_continue(step) {
                    return false;
                }
                let run = &self.tokens[start..start + self.rows];
                let part = (&self.session, run, self.wanted());
                self.pass.start(model, std::iter::once(part));
            }
            let sessions = &mut [&mut self.session];
            if !self.pass.run(model, sessions, may_continue) {
                return false;
            }
            let end = start + self.rows;
            let followers = self.tokens[end - self.wanted() + 1..=end].iter();
            for (logits, &token) in self.pass.logits().zip(followers) {
                let logits = &floats(logits)[..model.config().vocab_size];
                self.logprobs.push(log_probability(logits, token as usize));
            }
            self.session.add(&self.tokens[start..end], None);
        }
        true
    }

    /// Of how many rows of the pass logits are wanted: those that a token to be scored follows.
    fn wanted(&self) -> usize {
        let end = self.session.len() + self.rows;
        self.rows.min((end + 1).saturating_sub(self.prompt_len))
    }

    /// Natural logarithms of the probabilities found so far, one for each token of the continuation.
    #[must_use]
    pub fn logprobs(&self) -> &[f32] {
        &self.logprobs
    }
}
