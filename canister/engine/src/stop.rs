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

/// Looks for stop strings in the text of one answer, token by token.
#[derive(Clone)]
pub(crate) struct Watch {
    looked_for: StopStrings,
    /// The last tokens: some whose text is known, as what comes after them may be spelled
    /// differently without them, and those whose last character is not complete yet.
    window: Vec<u32>,
    /// How many of `window` belong to the first kind.
    known: usize,
    /// The end of the text so far, shorter than the longest stop string.
    tail: String,
}

impl Watch {
    pub fn new(looked_for: StopStrings) -> Watch {
        Watch {
            looked_for,
            window: Vec::new(),
            known: 0,
            tail: String::new(),
        }
    }

    /// Takes note of the next token, and says whether its text completes a stop string.
    pub fn push(&mut self, token: u32) -> bool {
        let strings = &self.looked_for.strings;
        let decode = |ids: &[u32]| {
            let text = self.looked_for.tokenizer.decode(ids, true);
            text.unwrap_or_default()
        };
        let before = decode(&self.window[..self.known]);
        self.window.push(token);
        let after = decode(&self.window);
        let added = after.strip_prefix(before.as_str()).unwrap_or(&after);
        // The bytes of a character that is not complete are shown as U+FFFD.
        let complete = added.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let text = format!("{}{complete}", self.tail);
        if strings.iter().any(|string| text.contains(string)) {
            return true;
        }
        if complete.len() == added.len() {
            self.window.drain(..self.known);
            self.known = self.window.len();
            let longest = strings.iter().map(String::len).max().unwrap_or(0);
            let mut start = (text.len() + 1).saturating_sub(longest).min(text.len());
            while !text.is_char_boundary(start) {
                start -= 1;
            }
            text[start..].clone_into(&mut self.tail);
        }
        false
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer(name: &str) -> Rc<Tokenizer> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/tokenizer/");
        let bytes = std::fs::read(format!("{folder}{name}.json")).unwrap();
        Rc::new(Tokenizer::from_json(&bytes).unwrap())
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|&string| string.to_owned()).collect()
    }

    /// How many of the tokens it takes, by asking the whole text after each one.
    fn reference(tokenizer: &Tokenizer, ids: &[u32], strings: &[String]) -> Option<usize> {
        (1..=ids.len()).find(|&count| {
            let text = tokenizer.decode(&ids[..count], true).unwrap();
            strings.iter().any(|string| text.contains(string))
        })
    }

    fn watched(tokenizer: &Rc<Tokenizer>, ids: &[u32], list: &[String]) -> Option<usize> {
        let strings = StopStrings::new(Rc::clone(tokenizer), list).unwrap();
        let mut watch = Watch::new(strings);
        (1..=ids.len()).find(|&count| watch.push(ids[count - 1]))
    }

    #[test]
    fn is_found_at_the_token_that_completes_it() {
        let tokenizer = tokenizer("bpe");
        let text = "The café 🙂🙃 isn't there; naïve 你好，世界。 \n\n### no\u{301} end aaab ab";
        let ids = tokenizer.encode(text).unwrap().ids;
        let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let mut found = 0;
        for (i, &start) in ends.iter().enumerate() {
            for &end in ends[i + 1..].iter().take(12) {
                let list = strings(&[&text[start..end], "not in the text"]);
                let want = reference(&tokenizer, &ids, &list);
                assert_eq!(watched(&tokenizer, &ids, &list), want, "{list:?}");
                found += usize::from(want.is_some());
            }
        }
        assert!(found > 300);
        assert_eq!(watched(&tokenizer, &ids, &strings(&["aab ab!"])), None);
        assert_eq!(watched(&tokenizer, &ids, &[]), None);
    }

    #[test]
    fn broken_characters_and_special_tokens_do_not_confuse_it() {
        let tokenizer = tokenizer("bpe");
        let one = |text: &str| tokenizer.encode(text).unwrap().ids;
        let (smiley, end) = (one("🙃"), one("<|endoftext|>"));
        let mut ids = Vec::new();
        for _ in 0..40 {
            ids.extend(&smiley[..1]);
            ids.extend(&end);
        }
        ids.extend(one("stop"));
        for list in [strings(&["stop"]), strings(&["op"]), strings(&["s"])] {
            let want = reference(&tokenizer, &ids, &list);
            assert!(want.is_some());
            assert_eq!(watched(&tokenizer, &ids, &list), want);
        }
    }

    #[test]
    fn characters_need_no_bytes() {
        let tokenizer = tokenizer("characters");
        let ids = tokenizer.encode("to be, or not to be").unwrap().ids;
        let list = strings(&["or not", "nowhere"]);
        let want = reference(&tokenizer, &ids, &list);
        assert!(want.is_some());
        assert_eq!(watched(&tokenizer, &ids, &list), want);
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let tokenizer = tokenizer("bpe");
        let new = |list: &[String]| StopStrings::new(Rc::clone(&tokenizer), list).err();
        assert_eq!(new(&strings(&["x", ""])), Some(StopError::Empty));
        assert_eq!(new(&vec!["x".into(); 17]), Some(StopError::TooMany(17)));
        assert_eq!(new(&["é".repeat(129)]), Some(StopError::TooLong(258)));
        assert_eq!(new(&vec!["é".repeat(128); 16]), None);
    }
}
