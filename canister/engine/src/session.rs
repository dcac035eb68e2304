//! One sequence on its way through a model: the key and value cache and the last logits.

use thiserror::Error;

use crate::model::{Cache, Model, Scratch};
use crate::simd::{F32x4, floats};
use crate::weights::Precision;

/// Why a token can't be run.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ForwardError {
    /// The id is not in the model's vocabulary.
    #[error("token {token} is not in the vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Ids below this number exist.
        vocab_size: usize,
    },
    /// All positions of the context are taken.
    #[error("the context of {n_ctx} tokens is full; start a new sequence")]
    ContextFull {
        /// The model's context length.
        n_ctx: usize,
    },
    /// The session was made for a model of other sizes or another precision.
    #[error("the session belongs to a model of other sizes or another precision")]
    OtherModel,
}

/// A sequence. Its cache grows with use, by 64 positions at a time.
pub struct Session {
    caches: Vec<Cache>,
    scratch: Scratch,
    logits: Vec<F32x4>,
    precision: Precision,
    vocab_size: usize,
    n_embd: usize,
    len: usize,
}

impl Session {
    /// An empty sequence for `model`.
    #[must_use]
    pub fn new(model: &Model) -> Session {
        let config = model.config();
        Session {
            caches: (0..config.n_layer)
                .map(|_| Cache::new(model.precision()))
                .collect(),
            scratch: Scratch::new(config),
            logits: Vec::new(),
            precision: model.precision(),
            vocab_size: config.vocab_size,
            n_embd: config.n_embd,
            len: 0,
        }
    }

    /// Tokens run so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token was run yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Runs the next token. The head, a third of a small model's work, runs only when
    /// `want_logits`.
    ///
    /// # Errors
    /// The id is outside the vocabulary, the context is full, or the model is another one; the
    /// session is then as it was.
    pub fn forward(
        &mut self,
        model: &Model,
        token: u32,
        want_logits: bool,
    ) -> Result<(), ForwardError> {
        let config = model.config();
        let own = (self.caches.len(), self.n_embd, self.vocab_size);
        if own != (config.n_layer, config.n_embd, config.vocab_size)
            || self.precision != model.precision()
        {
            return Err(ForwardError::OtherModel);
        }
        if token as usize >= config.vocab_size {
            return Err(ForwardError::TokenOutOfRange {
                token,
                vocab_size: config.vocab_size,
            });
        }
        if self.len >= config.n_ctx {
            return Err(ForwardError::ContextFull {
                n_ctx: config.n_ctx,
            });
        }
        model.run(
            token as usize,
            self.len,
            &mut self.caches,
            &mut self.scratch,
        );
        self.len += 1;
        if want_logits {
            model.head(&mut self.scratch, &mut self.logits);
        } else {
            self.logits.clear();
        }
        Ok(())
    }

    /// One number for each id of the vocabulary: the logits of the token that follows the last one
    /// run. Empty unless that was asked for logits.
    #[must_use]
    pub fn logits(&self) -> &[f32] {
        let logits = floats(&self.logits);
        &logits[..self.vocab_size.min(logits.len())]
    }

    /// Starts again from position 0; the cache's memory is kept.
    pub fn clear(&mut self) {
        self.len = 0;
        self.logits.clear();
    }
}
