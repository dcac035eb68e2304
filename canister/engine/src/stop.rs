//! Texts that end an answer, found while its tokens appear.
//!
//! A token's text is what it adds to the text of the tokens before it, so a stop string is found
//! across the borders of tokens and of their bytes alike.

use std::fmt;
use std::rc::Rc;

use thiserror::Error;

use crate::tokenizer::Tokenizer;

/// Stop strings that one request may have.
pub const MAX_STRINGS: usize = 16;

/// Bytes that one stop string may have.
pub const MAX_BYTES: usize = 256;

/// Why stop strings are refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum StopError {
    /// It would end every answer at once.
    #[error("a stop string is empty: give at least one character, or leave it out")]
    Empty,
    /// There are too many.
    #[error("{0} stop strings are too many: give at most {MAX_STRINGS}")]
    TooMany(usize),
    /// One is too long.
    #[error("a stop string has {0} bytes: give at most {MAX_BYTES}")]
    TooLong(usize),
}

/// Texts that end an answer, and the tokenizer that makes text of its tokens.
#[derive(Clone)]
pub struct StopStrings {
    tokenizer: Rc<Tokenizer>,
    strings: Rc<[String]>,
}

impl StopStrings {
    /// Checks the strings.
    ///
    /// # Errors
    /// See [`StopError`].
    pub fn new(tokenizer: Rc<Tokenizer>, strings: &[String]) -> Result<StopStrings, StopError> {
        if strings.len() > MAX_STRINGS {
            return Err(StopError::TooMany(strings.len()));
        }
        for string in strings {
            if string.is_empty() {
                return Err(StopError::Empty);
            }
            if string.len() > MAX_BYTES {
                return Err(StopError::TooLong(string.len()));
            }
        }
        Ok(StopStrings {
            tokenizer,
            strings: strings.into(),
        })
    }

    /// The strings.
    #[must_use]
    pub fn strings(&self) -> &[String] {
        &self.strings
    }
}

impl fmt::Debug for StopStrings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.strings.iter()).finish()
    }
}

impl PartialEq for StopStrings {
    fn eq(&self, other: &StopStrings) -> bool {
        Rc::ptr_eq(&self.tokenizer, &other.tokenizer) && self.strings == other.strings
    }
}
