//! What a caller may ask of a generation: one record of options, checked and made into the engine's
//! request in one place, whether a canister runs it or a program in its own process.

use std::rc::Rc;

use candid::CandidType;
use icgpt_engine::{Config, Context, Request, Sampling, StopError, StopStrings, Tokenizer};
use serde::Deserialize;
use thiserror::Error;

/// New tokens that one request may ask for, so that none occupies its place for ever.
pub const MAX_NEW_TOKENS: u32 = 32_768;

/// Tokens of a prompt; what is longer than the context is only read with a sliding one.
pub const MAX_PROMPT_TOKENS: usize = 65_536;

const DEFAULT_NEW_TOKENS: u32 = 100;

/// Why a request is refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no token to start from.
    #[error("the prompt is empty, or no token of the vocabulary fits it")]
    EmptyPrompt,
    /// The prompt is too long, even for a sliding context.
    #[error("the prompt has more than {MAX_PROMPT_TOKENS} tokens: shorten it")]
    LongPrompt,
    /// More new tokens than one request may ask for.
    #[error(
        "a request may ask for at most {MAX_NEW_TOKENS} new tokens: go on from its end in another one"
    )]
    TooManyTokens,
    /// A context that is none.
    #[error("context must be \"stop\" or \"slide\"")]
    Context,
    /// Stop strings need a tokenizer.
    #[error(
        "no tokenizer is set up: upload tokenizer.json and call setup_tokenizer, or use token ids"
    )]
    NoTokenizer,
    /// The stop strings are not usable.
    #[error(transparent)]
    Stop(#[from] StopError),
}

/// Options of a generation; every field has a default.
#[derive(CandidType, Deserialize, Clone, Default)]
pub struct Options {
    /// 100 when left out.
    pub max_new_tokens: Option<u32>,
    /// Before so many tokens none that ends the answer is chosen.
    pub min_new_tokens: Option<u32>,
    /// 1 when left out; 0 is argmax.
    pub temperature: Option<f64>,
    /// Only so many of the likeliest tokens are drawn from.
    pub top_k: Option<u32>,
    /// Only the likeliest tokens that together reach this probability are drawn from.
    pub top_p: Option<f64>,
    /// Only the most typical tokens that together reach this probability are drawn from.
    pub typical_p: Option<f64>,
    /// Makes tokens of prompt and answer less likely, above 1.
    pub repetition_penalty: Option<f64>,
    /// No run of so many tokens occurs twice.
    pub no_repeat_ngram_size: Option<u32>,
    /// No run of so many tokens of the prompt occurs in the answer.
    pub encoder_no_repeat_ngram_size: Option<u32>,
    /// Texts that end the answer; what is from one of them on is left out.
    pub stop: Option<Vec<String>>,
    /// Drawn from the platform's randomness when left out.
    pub seed: Option<u64>,
    /// Log-probabilities of the chosen tokens, and of so many of the likeliest at each place.
    pub logprobs: Option<u32>,
    /// `stop` or `slide`; the model's own when left out.
    pub context: Option<String>,
    /// Use the model's template; true when left out.
    pub template: Option<bool>,
    /// The answer begins with the prompt; false when left out.
    pub echo: Option<bool>,
    /// Tokens that the answer has already; the generation goes on behind them.
    pub begun: Option<Vec<u32>>,
}

impl Options {
    /// Tokens that the longest answer has.
    #[must_use]
    pub fn longest(&self) -> u64 {
        u64::from(self.max_new_tokens.unwrap_or(DEFAULT_NEW_TOKENS))
    }

    /// Puts the model's template round the caller's own ids, unless it is not wanted. Says where they
    /// begin.
    ///
    /// # Errors
    /// [`Refusal::EmptyPrompt`], [`Refusal::LongPrompt`].
    pub fn prompt(&self, config: &Config, own: &[u32]) -> Result<(Vec<u32>, usize), Refusal> {
        if own.is_empty() {
            return Err(Refusal::EmptyPrompt);
        }
        if own.len() > MAX_PROMPT_TOKENS {
            return Err(Refusal::LongPrompt);
        }
        let template = config.template.as_ref();
        Ok(match template.filter(|_| self.template.unwrap_or(true)) {
            Some(t) => ([&t.prefix, own, &t.suffix].concat(), t.prefix.len()),
            None => (own.to_vec(), 0),
        })
    }

    /// The engine's request for a prompt's ids, template included. The tokenizer is asked for only
    /// where stop strings need it.
    ///
    /// # Errors
    /// What is wrong with the options. The engine checks the numbers when it takes the request.
    pub fn request(
        &self,
        config: &Config,
        prompt: Vec<u32>,
        seed: u64,
        tokenizer: impl FnOnce() -> Option<Rc<Tokenizer>>,
    ) -> Result<Request, Refusal> {
        let max_new_tokens = self.max_new_tokens.unwrap_or(DEFAULT_NEW_TOKENS);
        if max_new_tokens > MAX_NEW_TOKENS {
            return Err(Refusal::TooManyTokens);
        }
        let stop_strings = match self.stop.as_deref() {
            None | Some([]) => None,
            Some(strings) => {
                let tokenizer = tokenizer().ok_or(Refusal::NoTokenizer)?;
                Some(StopStrings::new(tokenizer, strings)?)
            }
        };
        Ok(Request {
            prompt,
            max_new_tokens: max_new_tokens as usize,
            sampling: Sampling {
                temperature: self.temperature.unwrap_or(1.0),
                top_k: self.top_k,
                top_p: self.top_p,
                typical_p: self.typical_p,
                repetition_penalty: self.repetition_penalty,
                no_repeat_ngram_size: self.no_repeat_ngram_size,
                encoder_no_repeat_ngram_size: self.encoder_no_repeat_ngram_size,
                min_new_tokens: self.min_new_tokens.unwrap_or(0),
                logprobs: self.logprobs,
                seed,
            },
            context: context(self.context.as_deref(), config.context)?,
            stop: config.stop_tokens(),
            stop_strings,
        })
    }
}

fn context(name: Option<&str>, default: Context) -> Result<Context, Refusal> {
    match name {
        None => Ok(default),
        Some("stop") => Ok(Context::Stop),
        Some("slide") => Ok(Context::Slide),
        Some(_) => Err(Refusal::Context),
    }
}
