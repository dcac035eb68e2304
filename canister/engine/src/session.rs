//! One sequence on its way through a model: its tokens, their keys and values, and the last logits.
//!
//! A session can be cut back to its first tokens, and forked: the fork shares the memory of what
//! both have in common until one of them writes to it.

use thiserror::Error;

use crate::cache::{BLOCK, Cache};
use crate::model::Model;
use crate::pass::Pass;
use crate::simd::{F32x4, floats, padded};
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
    /// One for each block of the model.
    pub(crate) caches: Vec<Cache>,
    tokens: Vec<u32>,
    logits: Vec<F32x4>,
    pub(crate) shape: Shape,
    /// Working memory of `forward`, once it was called.
    pass: Option<Box<Pass>>,
}

/// What a model must have for a session to go on with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    n_layer: usize,
    n_head: usize,
    n_embd: usize,
    vocab_size: usize,
    precision: Precision,
}

impl Shape {
    pub fn of(model: &Model) -> Self {
        let config = model.config();
        Self {
            n_layer: config.n_layer,
            n_head: config.n_head,
            n_embd: config.n_embd,
            vocab_size: config.vocab_size,
            precision: model.precision(),
        }
    }
}

impl Session {
    /// An empty sequence for `model`.
    #[must_use]
    pub fn new(model: &Model) -> Session {
        let shape = Shape::of(model);
        Session {
            caches: (0..shape.n_layer)
                .map(|_| Cache::new(shape.precision))
                .collect(),
            tokens: Vec::new(),
            logits: Vec::new(),
            shape,
            pass: None,
        }
    }

    /// Tokens run so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether no token was run yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The tokens run so far.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Whether the session can go on with `model`. Models of equal sizes can't be told apart.
    #[must_use]
    pub fn fits(&self, model: &Model) -> bool {
        self.shape == Shape::of(model)
    }

    /// Forgets all tokens but the first `len`, and the logits unless nothing is forgotten.
    pub fn truncate(&mut self, len: usize) {
        if len < self.tokens.len() {
            self.tokens.truncate(len);
            self.caches.iter_mut().for_each(|cache| cache.truncate(len));
            self.logits.clear();
        }
    }

    /// A second sequence that starts with the first `len` tokens of this one. Their keys and values
    /// are shared, not copied.
    #[must_use]
    pub fn fork(&self, len: usize) -> Session {
        let len = len.min(self.tokens.len());
        Session {
            caches: self.caches.iter().map(|cache| cache.first(len)).collect(),
            tokens: self.tokens[..len].to_vec(),
            logits: Vec::new(),
            shape: self.shape,
            pass: None,
        }
    }

    /// Bytes of memory that the keys and values take, those shared with forks included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let Shape {
            n_head,
            n_embd,
            precision,
            ..
        } = self.shape;
        let (number, scale) = match precision {
            Precision::F32 => (4, 0),
            Precision::Int8 | Precision::Int16 => (2, 4),
        };
        let block = 2 * BLOCK * n_head * (padded(n_embd / n_head) * number + scale);
        self.caches.iter().map(Cache::blocks).sum::<usize>() * block
    }

    /// About how many bytes the keys and values of so many tokens take, at most.
    #[must_use]
    pub fn bytes_of(model: &Model, tokens: usize) -> u64 {
        let config = model.config();
        let positions = tokens.min(config.n_ctx).next_multiple_of(BLOCK);
        let number = match model.precision() {
            Precision::F32 => 4,
            Precision::Int8 | Precision::Int16 => 2,
        };
        // The scales of keys and values, and padding, take some more.
        (positions * config.n_layer * config.n_embd * 2 * number * 17 / 16) as u64
    }

    /// Takes what a pass added: tokens, and the logits of the last one if they were wanted, for
    /// which the pass gets the buffer of those before.
    pub(crate) fn add(&mut self, tokens: &[u32], logits: Option<&mut Vec<F32x4>>) {
        self.tokens.extend_from_slice(tokens);
        match logits {
            Some(logits) => std::mem::swap(&mut self.logits, logits),
            None => self.logits.clear(),
        }
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
        if !self.fits(model) {
            return Err(ForwardError::OtherModel);
        }
        if token as usize >= config.vocab_size {
            return Err(ForwardError::TokenOutOfRange {
                token,
                vocab_size: config.vocab_size,
            });
        }
        if self.len() >= config.n_ctx {
            return Err(ForwardError::ContextFull {
                n_ctx: config.n_ctx,
            });
        }
        let pass = self.pass.take();
        let mut pass = pass.unwrap_or_else(|| Box::new(Pass::new(config)));
        let part = (&*self, &[token][..], usize::from(want_logits));
        pass.start(model, std::iter::once(part));
        while !pass.step(model, &mut [self]) {}
        self.add(&[token], pass.logits().next());
        self.pass = Some(pass);
        Ok(())
    }

    /// One number for each id of the vocabulary: the logits of the token that follows the last one
    /// run. Empty unless that was asked for logits.
    #[must_use]
    pub fn logits(&self) -> &[f32] {
        let logits = floats(&self.logits);
        &logits[..self.shape.vocab_size.min(logits.len())]
    }

    /// Starts again from position 0.
    pub fn clear(&mut self) {
        self.truncate(0);
    }
}
