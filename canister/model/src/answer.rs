//! What a caller reads of an answer: its tokens, text and log-probabilities, from a token on.
//!
//! The text is made of all tokens, so that a character may be spread over several of them. What may
//! still become something else is held back while the answer goes on: an incomplete character, and
//! an end that a stop string begins with.

use icgpt_engine as engine;

use crate::serving;
use crate::types::{Logprob, Options, TokenLogprobs};

/// Log-probabilities as the interface has them.
pub fn logprobs(of: &[engine::TokenLogprobs]) -> Vec<TokenLogprobs> {
    let one = |of: &engine::Logprob| Logprob {
        token_id: of.token,
        logprob: of.logprob,
    };
    of.iter()
        .map(|place| TokenLogprobs {
            chosen: one(&place.chosen),
            top: place.top.iter().map(one).collect(),
        })
        .collect()
}

/// How a caller wants to see an answer.
#[derive(Default)]
pub struct View {
    /// The prompt's own tokens, if the answer is to begin with them.
    echo: Vec<u32>,
    stop: Vec<String>,
    logprobs: bool,
}

/// An answer from a token on.
pub struct Part {
    /// Its tokens.
    pub token_ids: Vec<u32>,
    /// Their text, none without a tokenizer.
    pub text: Option<String>,
    /// Those of the new tokens among them, if they were asked for.
    pub logprobs: Option<Vec<TokenLogprobs>>,
}

impl View {
    /// `prompt` is what the caller gave, without a template round it.
    pub fn new(options: &Options, prompt: &[u32]) -> View {
        let echo = options.echo.unwrap_or(false);
        View {
            echo: if echo { prompt.to_vec() } else { Vec::new() },
            stop: options.stop.clone().unwrap_or_default(),
            logprobs: options.logprobs.is_some(),
        }
    }

    /// The part from token `from` on, where echoed tokens count; `tokens` are the new ones, and
    /// `logprobs` belong to the last of them.
    pub fn part(
        &self,
        tokens: &[u32],
        logprobs: &[TokenLogprobs],
        from: usize,
        ended: bool,
    ) -> Part {
        let all = [&self.echo, tokens].concat();
        let from = from.min(all.len());
        let without = all.len().saturating_sub(logprobs.len());
        let noted = from.saturating_sub(without).min(logprobs.len());
        Part {
            token_ids: all[from..].to_vec(),
            text: self.text(&all, from, ended),
            logprobs: self.logprobs.then(|| logprobs[noted..].to_vec()),
        }
    }

    fn text(&self, all: &[u32], from: usize, ended: bool) -> Option<String> {
        let tokenizer = serving::tokenizer().ok()?;
        let decode = |ids: &[u32]| tokenizer.decode(ids, true).ok();
        let visible = |count: usize, ended: bool| {
            let mut text = decode(&all[..count])?;
            // Stop strings end the answer, not the prompt before it.
            let prompt = decode(&self.echo[..self.echo.len().min(count)])?;
            let prompt = prompt.trim_end_matches(char::REPLACEMENT_CHARACTER);
            let start = if text.starts_with(prompt) {
                prompt.len()
            } else {
                0
            };
            text.truncate(start + shown(&text[start..], &self.stop, ended));
            Some(text)
        };
        let text = visible(all.len(), ended)?;
        let before = visible(from, false)?;
        Some(match text.strip_prefix(&before) {
            Some(rest) => rest.to_owned(),
            None => text,
        })
    }
}

/// How many bytes of an answer's text can be shown.
fn shown(text: &str, stop: &[String], ended: bool) -> usize {
    let found = stop.iter().filter_map(|string| text.find(string.as_str()));
    if let Some(end) = found.min() {
        return end;
    }
    if ended {
        return text.len();
    }
    let text = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
    let begun = |start: &usize| {
        let rest = &text[*start..];
        stop.iter().any(|string| string.starts_with(rest))
    };
    let longest = stop.iter().map(String::len).max().unwrap_or(0);
    text.char_indices()
        .map(|(start, _)| start)
        .skip_while(|start| text.len() - start >= longest)
        .find(begun)
        .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::shown;

    fn visible(text: &str, stop: &[&str], ended: bool) -> String {
        let stop: Vec<String> = stop.iter().map(|&string| string.to_owned()).collect();
        text[..shown(text, &stop, ended)].to_owned()
    }

    #[test]
    fn ends_before_the_first_stop_string() {
        assert_eq!(visible("one two three", &["three", "two"], true), "one ");
        assert_eq!(visible("one two three", &["two", "three"], false), "one ");
        assert_eq!(visible("one", &["one"], false), "");
        assert_eq!(visible("one", &[], true), "one");
    }

    #[test]
    fn holds_back_what_may_become_a_stop_string() {
        assert_eq!(visible("abcEN", &["END"], false), "abc");
        assert_eq!(visible("abcEN", &["END"], true), "abcEN");
        assert_eq!(visible("abcENd", &["END"], false), "abcENd");
        assert_eq!(visible("aab", &["aabaab", "bx"], false), "");
        assert_eq!(visible("xaabaa", &["aabaab"], false), "x");
        assert_eq!(visible("x\n", &["\n\n"], false), "x");
    }

    #[test]
    fn holds_back_incomplete_characters() {
        assert_eq!(visible("ab\u{fffd}", &[], false), "ab");
        assert_eq!(visible("ab\u{fffd}", &[], true), "ab\u{fffd}");
        assert_eq!(visible("ab\u{fffd}", &["bé"], false), "a");
        assert_eq!(visible("ü\u{fffd}", &["üü"], false), "");
    }
}
