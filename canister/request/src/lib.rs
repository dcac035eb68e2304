//! What a caller may ask of a generation: one record of options, checked and made into the engine's
//! request in one place, whether a canister runs it or a program in its own process.

use std::rc::Rc;

use candid::CandidType;
use icgpt_engine::{
    Config, Context, EarlyStopping, Model, Request, Sampling, Search, Session, StopError,
    StopStrings, Tokenizer,
};
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
    /// An early stopping that is none.
    #[error("early_stopping must be \"false\", \"true\" or \"never\"")]
    EarlyStopping,
    /// Prompt and answer together have no room for a token.
    #[error(
        "max_length {most} leaves no token behind a prompt of {prompt}: give more, or max_new_tokens"
    )]
    MaxLength {
        /// What was given.
        most: u32,
        /// Tokens of the prompt, template included.
        prompt: usize,
    },
    /// No time at all, or not a number.
    #[error("max_time must be a number of seconds above 0")]
    MaxTime,
    /// Stop strings need a tokenizer.
    #[error(
        "no tokenizer is set up: upload tokenizer.json and call setup_tokenizer, or use token ids"
    )]
    NoTokenizer,
    /// The stop strings are not usable.
    #[error(transparent)]
    Stop(#[from] StopError),
}

/// What is added to the logit of a token.
#[derive(CandidType, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Bias {
    /// The token's id.
    pub token_id: u32,
    /// From −100 to 100.
    pub bias: f64,
}

/// Options of a generation; every field has a default.
#[derive(CandidType, Deserialize, Clone, Default)]
pub struct Options {
    /// 100 when left out.
    pub max_new_tokens: Option<u32>,
    /// Before so many tokens none that ends the answer is chosen.
    pub min_new_tokens: Option<u32>,
    /// 1 when left out, 0 with beams; 0 is argmax.
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
    /// The most tokens of prompt and answer together, where `max_new_tokens` is left out.
    pub max_length: Option<u32>,
    /// Prompt and answer have at least so many together, where `min_new_tokens` is left out.
    pub min_length: Option<u32>,
    /// Seconds after which the answer ends with its next token.
    pub max_time: Option<f64>,
    /// Answers that are weighed against each other; 1 when left out.
    pub num_beams: Option<u32>,
    /// Groups of them that avoid each other's tokens; 1 when left out.
    pub num_beam_groups: Option<u32>,
    /// How much the groups avoid them.
    pub diversity_penalty: Option<f64>,
    /// Above 0 longer answers are preferred; 1 when left out.
    pub length_penalty: Option<f64>,
    /// `false`, `true` or `never`: when a search has found enough; `false` when left out.
    pub early_stopping: Option<String>,
    /// Answers to give; 1 when left out.
    pub num_return_sequences: Option<u32>,
    /// Numbers of the model that are none count as 0, infinite ones as the largest there are.
    pub remove_invalid_values: Option<bool>,
    /// Added to the logits of tokens.
    pub logit_bias: Option<Vec<Bias>>,
}

impl Options {
    /// Tokens that the longest answer to so long a prompt has.
    #[must_use]
    pub fn longest(&self, prompt: usize) -> u64 {
        let behind = |length: u32| (length as usize).saturating_sub(prompt) as u64;
        match (self.max_new_tokens, self.max_length) {
            (None, Some(length)) => behind(length),
            (tokens, _) => tokens.unwrap_or(DEFAULT_NEW_TOKENS).into(),
        }
    }

    /// Answers under way at once.
    #[must_use]
    pub fn answers(&self) -> u64 {
        let beams = self.num_beams.unwrap_or(1);
        beams.max(self.num_return_sequences.unwrap_or(1)).into()
    }

    /// Whether answers are weighed against each other.
    #[must_use]
    pub fn is_search(&self) -> bool {
        self.num_beams.is_some_and(|beams| beams > 1)
    }

    /// Whether there is more than one answer, to be given or to be weighed.
    #[must_use]
    pub fn is_several(&self) -> bool {
        self.answers() > 1
    }

    /// About how many bytes of keys and values the answers to so long a prompt take at most. They share
    /// the prompt's; behind it each has blocks of its own, of which a block may be copied before it
    /// differs. What slides shares nothing in the end.
    #[must_use]
    pub fn memory(&self, model: &Model, prompt: usize) -> u64 {
        let (n_ctx, longest) = (model.config().n_ctx, self.longest(prompt) as usize);
        let whole = Session::bytes_of(model, prompt + longest);
        let slides = context(self.context.as_deref(), model.config().context) == Ok(Context::Slide);
        let others = self.answers().saturating_sub(1);
        if slides && prompt + longest > n_ctx {
            return whole.saturating_mul(others + 1);
        }
        let block = Session::bytes_of(model, 1);
        let own = Session::bytes_of(model, longest) + block;
        whole.saturating_add(own.min(whole).saturating_mul(others))
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
        let max_new_tokens = self.longest(prompt.len());
        if let (0, None, Some(most)) = (max_new_tokens, self.max_new_tokens, self.max_length) {
            let prompt = prompt.len();
            return Err(Refusal::MaxLength { most, prompt });
        }
        if max_new_tokens > u64::from(MAX_NEW_TOKENS) {
            return Err(Refusal::TooManyTokens);
        }
        if self
            .max_time
            .is_some_and(|seconds| !(seconds > 0.0 && seconds.is_finite()))
        {
            return Err(Refusal::MaxTime);
        }
        let search = self.search()?;
        let least = self.min_length.unwrap_or(0);
        let least = least.saturating_sub(u32::try_from(prompt.len()).unwrap_or(u32::MAX));
        let temperature = if search.is_wanted() { 0.0 } else { 1.0 };
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
                temperature: self.temperature.unwrap_or(temperature),
                top_k: self.top_k,
                top_p: self.top_p,
                typical_p: self.typical_p,
                repetition_penalty: self.repetition_penalty,
                no_repeat_ngram_size: self.no_repeat_ngram_size,
                encoder_no_repeat_ngram_size: self.encoder_no_repeat_ngram_size,
                min_new_tokens: self.min_new_tokens.unwrap_or(least),
                remove_invalid_values: self.remove_invalid_values.unwrap_or(false),
                logprobs: self.logprobs,
                seed,
            },
            context: context(self.context.as_deref(), config.context)?,
            stop: config.stop_tokens(),
            stop_strings,
            bias: self
                .logit_bias
                .iter()
                .flatten()
                .map(|one| (one.token_id, one.bias as f32))
                .collect(),
            search,
            sequences: self.num_return_sequences.unwrap_or(1) as usize,
        })
    }

    fn search(&self) -> Result<Search, Refusal> {
        let plain = Search::default();
        let number = |given: Option<u32>, otherwise| given.map_or(otherwise, |n| n as usize);
        Ok(Search {
            num_beams: number(self.num_beams, plain.num_beams),
            num_beam_groups: number(self.num_beam_groups, plain.num_beam_groups),
            diversity_penalty: self.diversity_penalty.unwrap_or(plain.diversity_penalty),
            length_penalty: self.length_penalty.unwrap_or(plain.length_penalty),
            early_stopping: match self.early_stopping.as_deref() {
                None | Some("false") => EarlyStopping::No,
                Some("true") => EarlyStopping::Yes,
                Some("never") => EarlyStopping::Never,
                Some(_) => return Err(Refusal::EarlyStopping),
            },
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
