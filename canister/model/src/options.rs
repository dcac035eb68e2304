//! The options of a generation, with this canister's tokenizer for their stop strings.

use icgpt_engine::{Config, Request};

use crate::error::Error;
use crate::serving;
use crate::types::Options;

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
    let tokenizer = || serving::tokenizer().ok();
    Ok(options.request(config, prompt, seed, tokenizer)?)
}
