//! Choosing the next token from logits.
//!
//! The random number of a token depends on the seed and on the token's place in the answer alone,
//! so a run is the same in one message or in twenty.

use thiserror::Error;

use crate::exp::exp;
use crate::simd::{F32x4, floats, floats_mut, zeros};

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
            logprobs: None,
            seed: 0,
        }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// See [`SamplingError`].
    pub fn validate(&self) -> Result<(), SamplingError> {
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            return Err(SamplingError::Temperature(self.temperature));
        }
        if self.top_k == Some(0) {
            return Err(SamplingError::TopK);
        }
        Ok(())
    }

    /// Chooses an id for the `position`-th token of an answer. `logits` is not empty.
    #[must_use]
    pub fn choose(&self, logits: &[f32], position: u64) -> u32 {
        if self.temperature == 0.0 || self.top_k == Some(1) {
            return argmax(logits);
        }
        let uniform = uniform(self.seed, position);
        match self.top_k {
            Some(k) if (k as usize) < logits.len() => {
                let ids = highest(logits, k as usize);
                let logits: Vec<f32> = ids.iter().map(|&id| logits[id as usize]).collect();
                ids[self.draw(&logits, uniform)]
            }
            _ => self.draw(logits, uniform) as u32,
        }
    }

    /// The index at which the cumulated probability passes `uniform`.
    fn draw(&self, logits: &[f32], uniform: f64) -> usize {
        let highest = logits[argmax(logits) as usize];
        // Beyond what f32 holds the temperature is as good as 0, and so is the result.
        let inverse = F32x4::splat((1.0 / self.temperature).min(f64::from(f32::MAX)) as f32);
        let mut weights = zeros(logits.len());
        floats_mut(&mut weights)[..logits.len()].copy_from_slice(logits);
        for weight in &mut weights {
            *weight = exp((*weight - F32x4::splat(highest)) * inverse);
        }
        let weights = &floats(&weights)[..logits.len()];
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        let target = uniform * total;
        let mut sum = 0.0;
        for (index, &weight) in weights.iter().enumerate() {
            sum += f64::from(weight);
            if sum > target {
                return index;
            }
        }
        argmax(logits) as usize
    }
}

/// The id of the highest logit, the lowest id where several are equal.
fn argmax(logits: &[f32]) -> u32 {
    let (mut best, mut highest) = (0, f32::NEG_INFINITY);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > highest {
            (best, highest) = (id, logit);
        }
    }
    best as u32
}

/// The ids of the `k` highest logits, in ascending order.
fn highest(logits: &[f32], k: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let logit = |id: u32| logits[id as usize];
    ids.select_nth_unstable_by(k - 1, |&a, &b| {
        logit(b).total_cmp(&logit(a)).then(a.cmp(&b))
    });
    ids.truncate(k);
    ids.sort_unstable();
    ids
}

/// A number in [0, 1) with 53 random bits: `SplitMix64`'s finaliser over seed and position.
fn uniform(seed: u64, position: u64) -> f64 {
    let bits = mix(mix(seed.wrapping_add(GOLDEN)).wrapping_add(position.wrapping_mul(GOLDEN)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// ln(p) of one token, where p is the softmax of `logits`.
pub(crate) fn log_probability(logits: &[f32], token: usize) -> f32 {
    let highest = F32x4::splat(logits[argmax(logits) as usize]);
    let (whole, rest) = logits.as_chunks::<4>();
    let mut total = 0.0;
    for &chunk in whole {
        total += f64::from(exp(F32x4::new(chunk) - highest).sum());
    }
    for &logit in rest {
        total += f64::from(exp(F32x4::splat(logit) - highest).to_array()[0]);
    }
    let distance = f64::from(logits[token]) - f64::from(highest.to_array()[0]);
    (distance - total.ln()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(temperature: f64, top_k: Option<u32>) -> Sampling {
        Sampling {
            temperature,
            top_k,
            seed: 42,
            ..Sampling::greedy()
        }
    }

    fn frequencies(sampling: &Sampling, logits: &[f32], draws: u64) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for position in 0..draws {
            counts[sampling.choose(logits, position) as usize] += 1.0 / draws as f64;
        }
        counts
    }

    #[test]
    fn refuses_bad_options() {
        for temperature in [f64::NAN, -1.0, f64::INFINITY, f64::NEG_INFINITY] {
            let refused = sampling(temperature, None).validate();
            assert!(matches!(refused, Err(SamplingError::Temperature(_))));
        }
        assert_eq!(sampling(1.0, Some(0)).validate(), Err(SamplingError::TopK));
        assert_eq!(sampling(0.0, Some(5)).validate(), Ok(()));
        assert_eq!(sampling(-0.0, None).validate(), Ok(()));
    }

    #[test]
    fn temperature_zero_takes_the_lowest_of_equal_ids() {
        assert_eq!(Sampling::greedy().choose(&[1.0, 3.0, 3.0, 2.0], 0), 1);
        assert_eq!(Sampling::greedy().choose(&[f32::NAN, f32::NAN], 0), 0);
        assert_eq!(sampling(1e-300, None).choose(&[1.0, 1.1, 0.0], 9), 1);
    }

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [0.0f32, 1.0, 2.0, -1.0, 0.5];
        for temperature in [0.5, 1.0, 2.0] {
            let weights: Vec<f64> = logits
                .iter()
                .map(|&l| (f64::from(l) / temperature).exp())
                .collect();
            let total: f64 = weights.iter().sum();
            let seen = frequencies(&sampling(temperature, None), &logits, 40_000);
            for (seen, weight) in seen.iter().zip(&weights) {
                assert!(
                    (seen - weight / total).abs() < 0.01,
                    "{temperature}: {seen} {}",
                    weight / total
                );
            }
        }
    }

    #[test]
    fn top_k_keeps_the_highest_and_of_equal_ones_the_lower_ids() {
        let logits = [1.0f32, 2.0, 2.0, 0.0, 2.0];
        let seen = frequencies(&sampling(1.0, Some(2)), &logits, 2_000);
        assert!(seen[1] > 0.45 && seen[2] > 0.45);
        assert_eq!((seen[0], seen[3], seen[4]), (0.0, 0.0, 0.0));
        let all = frequencies(&sampling(1.0, Some(99)), &logits, 2_000);
        assert!(all[3] > 0.0);
    }

    #[test]
    fn numbers_differ_by_seed_and_position_and_repeat() {
        let mut seen: Vec<u64> = (0..50)
            .flat_map(|seed| (0..50).map(move |position| uniform(seed, position).to_bits()))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 2_500);
        assert_eq!(uniform(7, 3), uniform(7, 3));
        assert!((0..10_000).all(|i| (0.0..1.0).contains(&uniform(1, i))));
    }

    #[test]
    fn log_probabilities_sum_to_one() {
        let logits = [0.5f32, -3.0, 2.0, 8.0, 1.0];
        let total: f32 = (0..5)
            .map(|token| log_probability(&logits, token).exp())
            .sum();
        assert!((total - 1.0).abs() < 1e-6);
    }
}
