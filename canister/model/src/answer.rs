//! What a caller reads of an answer: its tokens, text and log-probabilities.

use icgpt_engine as engine;

use crate::serving;
use crate::types::{Logprob, TokenLogprobs};

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

/// The text that tokens `from..` add. A character that is not complete yet waits for its next
/// token, unless the generation is over.
pub fn text(tokens: &[u32], from: usize, complete: bool) -> Option<String> {
    let tokenizer = serving::tokenizer().ok()?;
    let visible = |tokens: &[u32], complete: bool| {
        let text = tokenizer.decode(tokens, true).ok()?;
        let end = if complete {
            text.len()
        } else {
            text.trim_end_matches('\u{fffd}').len()
        };
        Some(text[..end].to_owned())
    };
    let all = visible(tokens, complete)?;
    let shown = visible(&tokens[..from], false)?;
    Some(
        all.strip_prefix(&shown)
            .map_or_else(|| all.clone(), str::to_owned),
    )
}
