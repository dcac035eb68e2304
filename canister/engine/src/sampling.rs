//! Choosing the next token from logits.
//!
//! Options and their order are those of Hugging Face transformers' `generate`: repetition penalty,
//! n-gram bans, `min_new_tokens`, temperature, `top_k`, `top_p`, `typical_p`. The random number of a
//! token depends on the seed and on the token's place in the answer alone, so a run is the same in
//! one message or in twenty.

mod history;
mod pool;
mod scan;
#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::simd::floats_mut;
use history::History;
pub(crate) use pool::Buffers;
use pool::{Filters, Pool};

/// Likeliest tokens that can be asked for beside the chosen one.
pub const MAX_LOGPROBS: u32 = 20;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the highest one, and of equal ones the lowest id.
    pub temperature: f64,
    /// Only so many of the highest logits take part, and what is equal to the last of them.
    pub top_k: Option<u32>,
    /// Only the likeliest tokens that together reach this probability take part.
    pub top_p: Option<f64>,
    /// Only the tokens whose information is nearest to the expected one take part, until they
    /// reach this probability together.
    pub typical_p: Option<f64>,
    /// Logits of tokens in prompt or answer are divided by it, negative ones multiplied.
    pub repetition_penalty: Option<f64>,
    /// No run of so many tokens occurs twice in prompt and answer.
    pub no_repeat_ngram_size: Option<u32>,
    /// No run of so many tokens of the prompt occurs in the answer.
    pub encoder_no_repeat_ngram_size: Option<u32>,
    /// Before so many tokens none that ends the answer is chosen.
    pub min_new_tokens: u32,
    /// Numbers that are none count as 0, infinite ones as the largest that there are.
    pub remove_invalid_values: bool,
    /// Log-probabilities are noted: of each chosen token, and of so many of the likeliest.
    pub logprobs: Option<u32>,
    /// Where the random numbers start.
    pub seed: u64,
}

/// A token and the natural logarithm of its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logprob {
    /// The token's id.
    pub token: u32,
    /// ln(p), where p is the softmax of the model's own logits: before penalties, bans,
    /// temperature and filters.
    pub logprob: f32,
}

/// The log-probabilities that belong to one place of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// The chosen token's.
    pub chosen: Logprob,
    /// Those of the likeliest tokens, the likeliest first; of equal ones the lower id.
    pub top: Vec<Logprob>,
}

/// Why sampling options are refused.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum SamplingError {
    /// The temperature is negative, infinite or not a number.
    #[error("temperature {0} is refused: give 0 (always the likeliest token) or a positive number")]
    Temperature(f64),
    /// No token would be left to choose from.
    #[error("top_k 0 is refused: give 1 or more, or leave it out")]
    TopK,
    /// It is no probability.
    #[error("{name} {value} is refused: give a number above 0, at most 1 (which changes nothing)")]
    Probability {
        /// `top_p` or `typical_p`.
        name: &'static str,
        /// What was given.
        value: f64,
    },
    /// The penalty is not positive, or infinite, or not a number.
    #[error(
        "repetition_penalty {0} is refused: give a positive number; above 1 makes repetition rarer"
    )]
    Penalty(f64),
    /// A run of no tokens can't be forbidden.
    #[error("{0} 0 is refused: give 1 or more, or leave it out")]
    NGram(&'static str),
    /// The answer can't be as long.
    #[error("min_new_tokens {min} is more than max_new_tokens {max}")]
    MinNewTokens {
        /// What was given as the least.
        min: u32,
        /// What was given as the most.
        max: usize,
    },
    /// Too many of the likeliest tokens.
    #[error("logprobs {0} is refused: give at most {MAX_LOGPROBS}")]
    Logprobs(u32),
}

impl Sampling {
    /// Always the likeliest token.
    #[must_use]
    pub fn greedy() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: None,
            top_p: None,
            typical_p: None,
            repetition_penalty: None,
            no_repeat_ngram_size: None,
            encoder_no_repeat_ngram_size: None,
            min_new_tokens: 0,
            remove_invalid_values: false,
            logprobs: None,
            seed: 0,
        }
    }

    /// Checks the options, for an answer of at most `max_new_tokens`.
    ///
    /// # Errors
    /// See [`SamplingError`].
    pub fn validate(&self, max_new_tokens: usize) -> Result<(), SamplingError> {
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            return Err(SamplingError::Temperature(self.temperature));
        }
        if self.top_k == Some(0) {
            return Err(SamplingError::TopK);
        }
        for (name, value) in [("top_p", self.top_p), ("typical_p", self.typical_p)] {
            if let Some(value) = value
                && !(value > 0.0 && value <= 1.0)
            {
                return Err(SamplingError::Probability { name, value });
            }
        }
        if let Some(penalty) = self.repetition_penalty
            && !(penalty > 0.0 && penalty.is_finite())
        {
            return Err(SamplingError::Penalty(penalty));
        }
        for (name, size) in [
            ("no_repeat_ngram_size", self.no_repeat_ngram_size),
            (
                "encoder_no_repeat_ngram_size",
                self.encoder_no_repeat_ngram_size,
            ),
        ] {
            if size == Some(0) {
                return Err(SamplingError::NGram(name));
            }
        }
        let (min, max) = (self.min_new_tokens, max_new_tokens);
        if min as usize > max {
            return Err(SamplingError::MinNewTokens { min, max });
        }
        match self.logprobs {
            Some(count) if count > MAX_LOGPROBS => Err(SamplingError::Logprobs(count)),
            _ => Ok(()),
        }
    }

    /// Chooses an id for the `position`-th token of an answer, as far as that does not depend on
    /// the tokens before it. None when no logit is a number.
    #[must_use]
    pub fn choose(&self, logits: &[f32], position: u64) -> Option<u32> {
        let sampler = Sampler::new(self, &[], &[]);
        sampler.with_pool(logits, &mut Buffers::default(), |pool, _| {
            pool.draw(uniform(self.seed, position))
        })
    }

    /// The filters; those that would let everything pass are none.
    fn filters(&self) -> Filters {
        let share = |p: Option<f64>| p.filter(|&p| p < 1.0);
        Filters {
            temperature: self.temperature,
            top_k: self.top_k.map(|k| k as usize),
            top_p: share(self.top_p),
            typical_p: share(self.typical_p),
        }
    }
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    pub token: u32,
    pub logprobs: Option<TokenLogprobs>,
}

/// Tokens drawn for one of several answers that are weighed against each other.
pub(crate) struct Drawn {
    /// Each with the logarithm of its probability after temperature, and its weight.
    pub tokens: Vec<(u32, f32, f64)>,
    /// The logarithm of what weighs 1.
    pub highest: f64,
    /// The weight of all that could have been drawn.
    pub total: f64,
}

/// Chooses the tokens of one answer, one after the other.
#[derive(Clone)]
pub(crate) struct Sampler {
    sampling: Sampling,
    history: History,
}

impl Sampler {
    /// For an answer to `prompt`; `ends` are the ids that end one.
    pub fn new(sampling: &Sampling, prompt: &[u32], ends: &[u32]) -> Sampler {
        Sampler {
            sampling: *sampling,
            history: History::new(sampling, prompt, ends),
        }
    }

    /// Adds these numbers to the logits of these ids, before all else.
    pub fn with_bias(mut self, bias: &[(u32, f32)]) -> Sampler {
        self.history.add_bias(bias);
        self
    }

    /// The answer goes on with `token`.
    pub fn push(&mut self, token: u32) {
        self.history.push(token);
    }

    /// The likeliest next tokens, with the logarithms of their probabilities after bias, penalties and
    /// bans; `less` is taken from those of some.
    pub fn ranked(
        &self,
        logits: &[f32],
        less: &[(u32, f32)],
        count: usize,
        buffers: &mut Buffers,
    ) -> Vec<(u32, f32)> {
        self.with_logarithms(logits, less, buffers, |values, buffers| {
            let mut found = pool::best(values, &buffers.maxima, count);
            found.sort_unstable_by(pool::order);
            found.truncate(count);
            found.iter().map(|one| (one.token, one.key)).collect()
        })
    }

    /// Draws different tokens one after the other, with random numbers that belong to this place.
    /// `top_k` leaves `keep` at least.
    pub fn drawn(
        &self,
        logits: &[f32],
        count: usize,
        keep: usize,
        place: (u64, u64),
        buffers: &mut Buffers,
    ) -> Drawn {
        let mut filters = self.sampling.filters();
        filters.top_k = filters.top_k.map(|k| k.max(keep));
        self.with_logarithms(logits, &[], buffers, |values, buffers| {
            let highest = scan::highest(&buffers.maxima);
            let mut drawn = Drawn {
                tokens: Vec::new(),
                highest: f64::from(highest) / filters.temperature,
                total: 0.0,
            };
            if !highest.is_finite() {
                return drawn;
            }
            let mut pool = Pool::new(values, highest, &filters, buffers);
            drawn.total = pool.total();
            for turn in 0..count {
                let Some((token, weight)) = pool.take(self.uniform(place, turn as u64)) else {
                    break;
                };
                let logarithm = f64::from(values[token as usize]) / filters.temperature;
                drawn.tokens.push((token, logarithm as f32, weight));
            }
            drawn
        })
    }

    /// A random number that belongs to a place, and to one of the turns there.
    pub fn uniform(&self, (step, part): (u64, u64), turn: u64) -> f64 {
        uniform(stream(stream(self.sampling.seed, step), part + 1), turn)
    }

    /// Hands out the logarithms of all probabilities, after what earlier tokens do to them, with
    /// their maxima noted.
    fn with_logarithms<T>(
        &self,
        logits: &[f32],
        less: &[(u32, f32)],
        buffers: &mut Buffers,
        work: impl FnOnce(&[f32], &mut Buffers) -> T,
    ) -> T {
        let mut changed = std::mem::take(&mut buffers.changed);
        let highest = scan::maxima(logits, &mut buffers.maxima);
        let invalid = self.sampling.remove_invalid_values
            && (highest == f32::INFINITY || logits.iter().any(|logit| logit.is_nan()));
        let log_total = if invalid {
            f32::NAN
        } else {
            scan::log_total(logits, highest) as f32
        };
        scan::logarithms(logits, highest, log_total, &mut changed);
        let values = &mut floats_mut(&mut changed)[..logits.len()];
        self.history.apply(values, less);
        scan::maxima(values, &mut buffers.maxima);
        let result = work(values, buffers);
        buffers.changed = changed;
        result
    }

    /// Chooses the next token. None when the options forbid all of them, or no logit is a number.
    pub fn choose(&self, logits: &[f32], buffers: &mut Buffers) -> Option<Choice> {
        let token = self.with_pool(logits, buffers, |pool, position| {
            pool.draw(uniform(self.sampling.seed, position))
        })?;
        let count = self.sampling.logprobs;
        Some(Choice {
            token,
            logprobs: count.map(|count| logprobs(logits, token, count as usize, buffers)),
        })
    }

    /// Hands out what the next token is drawn from: one entry only if there is nothing to draw.
    fn with_pool<T>(
        &self,
        logits: &[f32],
        buffers: &mut Buffers,
        work: impl FnOnce(&Pool, u64) -> T,
    ) -> Option<T> {
        let mut changed = std::mem::take(&mut buffers.changed);
        let values = if self.history.matters() {
            scan::copy(logits, &mut changed);
            let values = &mut floats_mut(&mut changed)[..logits.len()];
            self.history.apply(values, &[]);
            &*values
        } else {
            logits
        };
        let highest = scan::maxima(values, &mut buffers.maxima);
        let result = if highest == f32::NEG_INFINITY {
            None
        } else {
            let pool = if self.sampling.temperature == 0.0 || highest == f32::INFINITY {
                let token = scan::first(values, &buffers.maxima, highest) as u32;
                Pool::one(token)
            } else {
                Pool::new(values, highest, &self.sampling.filters(), buffers)
            };
            Some(work(&pool, self.history.answer_len() as u64))
        };
        buffers.changed = changed;
        result
    }
}

/// A number in [0, 1) with 53 random bits: `SplitMix64`'s finaliser over seed and position.
fn uniform(seed: u64, position: u64) -> f64 {
    let bits = mix(mix(seed.wrapping_add(GOLDEN)).wrapping_add(position.wrapping_mul(GOLDEN)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// The seed of one of several answers; the first one's is the seed itself.
#[must_use]
pub fn stream(seed: u64, index: u64) -> u64 {
    if index == 0 {
        return seed;
    }
    mix(seed ^ mix(index.wrapping_mul(GOLDEN)))
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// ln(p) of one token, where p is the softmax of `logits`.
pub(crate) fn log_probability(logits: &[f32], token: usize) -> f32 {
    let highest = scan::maxima(logits, &mut Vec::new());
    log_share(logits[token], highest, scan::log_total(logits, highest))
}

/// A finite number, whatever the model gives.
fn log_share(logit: f32, highest: f32, log_total: f64) -> f32 {
    let distance = if logit >= highest {
        0.0
    } else {
        f64::from(logit) - f64::from(highest)
    };
    (distance - log_total).clamp(f64::from(f32::MIN), 0.0) as f32
}

fn logprobs(logits: &[f32], token: u32, count: usize, buffers: &mut Buffers) -> TokenLogprobs {
    let highest = scan::maxima(logits, &mut buffers.maxima);
    let log_total = scan::log_total(logits, highest);
    let one = |token: u32| Logprob {
        token,
        logprob: log_share(logits[token as usize], highest, log_total),
    };
    let mut top = if count == 0 {
        Vec::new()
    } else {
        pool::best(logits, &buffers.maxima, count)
    };
    top.sort_unstable_by(pool::order);
    TokenLogprobs {
        chosen: one(token),
        top: top
            .iter()
            .take(count)
            .map(|entry| one(entry.token))
            .collect(),
    }
}
