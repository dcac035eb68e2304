//! What earlier tokens do to the logits: penalties and bans, as Hugging Face transformers has them.
//!
//! All of it changes a few entries, so its cost follows the number of tokens, not the vocabulary.

use std::rc::Rc;

use super::Sampling;

/// Prompt and answer so far, as far as the options look at them.
#[derive(Clone)]
pub struct History {
    /// Added to the logits of these ids.
    bias: Rc<[(u32, f32)]>,
    remove_invalid_values: bool,
    penalty: Option<f32>,
    ngram: Option<usize>,
    prompt_ngram: Option<usize>,
    min_new_tokens: usize,
    /// Ids that end the answer.
    ends: Vec<u32>,
    /// Prompt, then answer; kept only for n-grams.
    tokens: Vec<u32>,
    prompt_len: usize,
    /// New tokens so far.
    answer_len: usize,
    /// Different ids in prompt and answer, and which those are; kept only for the penalty.
    different: Vec<u32>,
    seen: Vec<u64>,
}

impl History {
    pub fn new(sampling: &Sampling, prompt: &[u32], ends: &[u32]) -> History {
        let size = |n: Option<u32>| n.map(|n| n as usize);
        let mut history = History {
            bias: Rc::default(),
            remove_invalid_values: sampling.remove_invalid_values,
            penalty: sampling
                .repetition_penalty
                .filter(|&penalty| !(1.0..=1.0).contains(&penalty))
                .map(|penalty| {
                    let range = f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX);
                    penalty.clamp(*range.start(), *range.end()) as f32
                }),
            ngram: size(sampling.no_repeat_ngram_size),
            prompt_ngram: size(sampling.encoder_no_repeat_ngram_size),
            min_new_tokens: sampling.min_new_tokens as usize,
            ends: ends.to_vec(),
            tokens: Vec::new(),
            prompt_len: prompt.len(),
            answer_len: 0,
            different: Vec::new(),
            seen: Vec::new(),
        };
        for &token in prompt {
            history.note(token);
        }
        history
    }

    pub fn add_bias(&mut self, bias: &[(u32, f32)]) {
        self.bias = bias.into();
    }

    /// The answer goes on with `token`.
    pub fn push(&mut self, token: u32) {
        self.note(token);
        self.answer_len += 1;
    }

    fn note(&mut self, token: u32) {
        if self.ngram.is_some() || self.prompt_ngram.is_some() {
            self.tokens.push(token);
        }
        if self.penalty.is_some() {
            let (word, bit) = (token as usize / 64, token % 64);
            if word >= self.seen.len() {
                self.seen.resize(word + 1, 0);
            }
            if self.seen[word] >> bit & 1 == 0 {
                self.seen[word] |= 1 << bit;
                self.different.push(token);
            }
        }
    }

    /// Tokens of the answer so far.
    pub fn answer_len(&self) -> usize {
        self.answer_len
    }

    /// Whether [`History::apply`] can change anything now.
    pub fn matters(&self) -> bool {
        self.penalty.is_some()
            || self.ngram.is_some()
            || self.prompt_ngram.is_some()
            || !self.bias.is_empty()
            || self.remove_invalid_values
            || (self.answer_len < self.min_new_tokens && !self.ends.is_empty())
    }

    /// Adds the bias, takes `less` off, penalises and bans; a banned token's logit is −∞.
    pub fn apply(&self, logits: &mut [f32], less: &[(u32, f32)]) {
        let less = less.iter().map(|&(token, less)| (token, -less));
        for (token, more) in self.bias.iter().copied().chain(less) {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += more;
            }
        }
        if let Some(penalty) = self.penalty {
            for &token in &self.different {
                if let Some(logit) = logits.get_mut(token as usize)
                    && logit.is_finite()
                {
                    let changed = if *logit < 0.0 {
                        *logit * penalty
                    } else {
                        *logit / penalty
                    };
                    // A penalty is no ban, however large it is.
                    *logit = changed.clamp(f32::MIN, f32::MAX);
                }
            }
        }
        if let Some(size) = self.prompt_ngram {
            self.ban(&self.tokens[..self.prompt_len], size, logits);
        }
        if let Some(size) = self.ngram {
            self.ban(&self.tokens, size, logits);
        }
        if self.answer_len < self.min_new_tokens {
            for &end in &self.ends {
                ban(logits, end);
            }
        }
        if self.remove_invalid_values {
            for logit in logits {
                *logit = if logit.is_nan() {
                    0.0
                } else {
                    logit.clamp(f32::MIN, f32::MAX)
                };
            }
        }
    }

    /// Bans what would make the last tokens a run of `size` that occurs in `among`.
    fn ban(&self, among: &[u32], size: usize, logits: &mut [f32]) {
        let Some(start) = (self.tokens.len() + 1).checked_sub(size) else {
            return;
        };
        let last = &self.tokens[start..];
        for run in among.windows(size) {
            if run.starts_with(last) {
                ban(logits, run[size - 1]);
            }
        }
    }
}

fn ban(logits: &mut [f32], token: u32) {
    if let Some(logit) = logits.get_mut(token as usize) {
        *logit = f32::NEG_INFINITY;
    }
}
