//! Log-probabilities of a given continuation, in as many pieces as the caller likes.

use crate::generation::{RequestError, check_ids};
use crate::model::Model;
use crate::sampling::log_probability;
use crate::session::Session;

/// A continuation being scored. It must be run with the model that it was made for.
pub struct Scoring {
    /// Prompt and continuation.
    tokens: Vec<u32>,
    prompt_len: usize,
    session: Session,
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
            logprobs: Vec::new(),
        })
    }

    /// Goes on until all is scored (true), or until `may_continue`, asked before each forward pass,
    /// says no (false); a later call goes on.
    pub fn run(&mut self, model: &Model, may_continue: &mut dyn FnMut() -> bool) -> bool {
        while self.session.len() + 1 < self.tokens.len() {
            if !may_continue() {
                return false;
            }
            let next = self.session.len() + 1;
            let scored = next >= self.prompt_len;
            if self
                .session
                .forward(model, self.tokens[next - 1], scored)
                .is_err()
            {
                // Ids and length were checked, so the model is another one: there is no answer.
                return true;
            }
            if scored {
                self.logprobs.push(log_probability(
                    self.session.logits(),
                    self.tokens[next] as usize,
                ));
            }
        }
        true
    }

    /// Natural logarithms of the probabilities found so far, one for each token of the continuation.
    #[must_use]
    pub fn logprobs(&self) -> &[f32] {
        &self.logprobs
    }
}
