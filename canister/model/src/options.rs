//! The options of a generation: what a caller may ask for, made into the engine's request.

use icgpt_engine::{Config, Context, Request, Sampling, StopStrings};

use crate::error::Error;
use crate::serving;
use crate::types::Options;

/// New tokens that one request may ask for, so that none occupies its place for ever.
const MAX_NEW_TOKENS: u32 = 32_768;

const DEFAULT_NEW_TOKENS: u32 = 100;

fn context(name: Option<&str>, default: Context) -> Result<Context, Error> {
    match name {
        None => Ok(default),
        Some("stop") => Ok(Context::Stop),
        Some("slide") => Ok(Context::Slide),
        Some(_) => Err(Error::Limit("context must be \"stop\" or \"slide\"")),
    }
}

/// Tokens that the longest answer has.
pub fn longest(options: &Options) -> u64 {
    u64::from(options.max_new_tokens.unwrap_or(DEFAULT_NEW_TOKENS))
}

/// The engine's request for a prompt's ids, template included.
///
/// # Errors
/// What is wrong with the options. The engine checks the numbers when it takes the request.
pub fn request(
    options: &Options,
    config: &Config,
    prompt: Vec<u32>,
    seed: u64,
) -> Result<Request, Error> {
    let max_new_tokens = options.max_new_tokens.unwrap_or(DEFAULT_NEW_TOKENS);
    if max_new_tokens > MAX_NEW_TOKENS {
        return Err(Error::TooManyTokens(MAX_NEW_TOKENS));
    }
    let stop_strings = match options.stop.as_deref() {
        None | Some([]) => None,
        Some(strings) => Some(StopStrings::new(serving::tokenizer()?, strings)?),
    };
    Ok(Request {
        prompt,
        max_new_tokens: max_new_tokens as usize,
        sampling: Sampling {
            temperature: options.temperature.unwrap_or(1.0),
            top_k: options.top_k,
            top_p: options.top_p,
            typical_p: options.typical_p,
            repetition_penalty: options.repetition_penalty,
            no_repeat_ngram_size: options.no_repeat_ngram_size,
            encoder_no_repeat_ngram_size: options.encoder_no_repeat_ngram_size,
            min_new_tokens: options.min_new_tokens.unwrap_or(0),
            logprobs: options.logprobs,
            seed,
        },
        context: context(options.context.as_deref(), config.context)?,
        stop: config.stop_tokens(),
        stop_strings,
    })
}
