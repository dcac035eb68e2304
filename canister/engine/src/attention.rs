//! Multi-head attention of one new token over a key and value cache in f32.
//!
//! The cache grows by blocks of 64 positions, each a pair of packed matrices per head, so that both
//! products run on the linear kernel: scores = K·q with positions as outputs, and
//! result = V·p with positions as inputs.

use crate::cache::{BLOCK, Blocks};
use crate::exp::exp;
use crate::linear::{WIDE, accumulate, position};
use crate::simd::{F32x4, floats, floats_mut, padded, zeros};

// A block has as many positions as the kernel takes inputs at a time.
const _: () = assert!(BLOCK == WIDE);

/// Heads lie one after the other; a head's keys are `[head_size][BLOCK]`, its values
/// `[BLOCK][head_size]` (inputs × outputs), packed.
#[derive(Clone)]
pub struct Block {
    keys: Vec<F32x4>,
    values: Vec<F32x4>,
}

/// Sizes of the attention of one model, with the working memory of one pass.
pub struct Attention {
    n_head: usize,
    head_size: usize,
    query: Vec<F32x4>,
    result: Vec<F32x4>,
    scores: Vec<F32x4>,
}

impl Attention {
    pub fn new(n_head: usize, head_size: usize) -> Self {
        let (query, result) = (zeros(head_size), zeros(head_size));
        Self {
            n_head,
            head_size,
            query,
            result,
            scores: Vec::new(),
        }
    }

    /// Vectors of one head's keys, or values, in a block.
    fn head_len(&self) -> usize {
        padded(self.head_size) * BLOCK / 4
    }

    /// Attends from the token at position `at`, which was stored. `queries` are those of all heads,
    /// one after the other; `out` takes the heads' results. Scores are multiplied by `scale`.
    pub fn attend(
        &mut self,
        cache: &Blocks<Block>,
        at: usize,
        scale: f32,
        queries: &[f32],
        out: &mut [f32],
    ) {
        let blocks = cache.upto(at);
        self.scores.resize(blocks.len() * BLOCK / 4, F32x4::zero());
        let heads = queries
            .chunks_exact(self.head_size)
            .zip(out.chunks_exact_mut(self.head_size));
        for (head, (query, out)) in heads.enumerate() {
            let range = head * self.head_len()..(head + 1) * self.head_len();
            for (to, from) in floats_mut(&mut self.query).iter_mut().zip(query) {
                *to = from * scale;
            }
            self.scores.fill(F32x4::zero());
            // Groups of positions that are still empty are left out.
            let filled = &mut self.scores[..=at / 4];
            for (block, scores) in blocks.iter().zip(filled.chunks_mut(BLOCK / 4)) {
                accumulate(&block.keys[range.clone()], floats(&self.query), scores);
            }
            let total = softmax(&mut self.scores, at + 1);

            self.result.fill(F32x4::zero());
            for (block, weights) in blocks.iter().zip(self.scores.chunks_exact(BLOCK / 4)) {
                accumulate(
                    &block.values[range.clone()],
                    floats(weights),
                    &mut self.result,
                );
            }
            let normalise = 1.0 / total;
            for (out, &sum) in out.iter_mut().zip(floats(&self.result)) {
                *out = sum * normalise;
            }
        }
    }

    /// Writes the key and value of position `at` into the cache.
    pub fn store(&self, cache: &mut Blocks<Block>, at: usize, keys: &[f32], values: &[f32]) {
        let block = cache.block(at, || {
            let len = self.n_head * self.head_len();
            let (keys, values) = (vec![F32x4::zero(); len], vec![F32x4::zero(); len]);
            Block { keys, values }
        });
        let (at, size, n_in) = (at % BLOCK, self.head_size, padded(self.head_size));
        let heads = floats_mut(&mut block.keys).chunks_exact_mut(n_in * BLOCK);
        for (cached, key) in heads.zip(keys.chunks_exact(size)) {
            for (k, &key) in key.iter().enumerate() {
                cached[position(n_in, BLOCK / 4, k, at)] = key;
            }
        }
        let heads = floats_mut(&mut block.values).chunks_exact_mut(n_in * BLOCK);
        for (cached, value) in heads.zip(values.chunks_exact(size)) {
            for (o, &value) in value.iter().enumerate() {
                cached[position(BLOCK, n_in / 4, at, o)] = value;
            }
        }
    }
}

/// Turns the first `n` scores into e^(score − highest) and returns their sum. The others stay zero.
fn softmax(scores: &mut [F32x4], n: usize) -> f32 {
    let filled = n.div_ceil(4);
    let scores = &mut scores[..filled];
    // The last vector is filled up with a repeated score, which can't change the highest.
    let last = floats(scores)[n - 1];
    floats_mut(scores)[n..].fill(last);
    let highest = scores.iter().copied().reduce(F32x4::max).map_or(0.0, |v| {
        v.to_array()
            .into_iter()
            .fold(f32::NEG_INFINITY, |a, b| if a < b { b } else { a })
    });
    let highest = F32x4::splat(highest);
    for score in scores.iter_mut() {
        *score = exp(*score - highest);
    }
    floats_mut(scores)[n..].fill(0.0);
    scores.iter().fold(F32x4::zero(), |sum, &v| sum + v).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(i: usize) -> f32 {
        let mixed = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        mixed as f32 / (1u64 << 22) as f32 - 2.0
    }

    #[test]
    fn agrees_with_a_naive_loop() {
        for (n_head, size) in [(1, 1), (3, 5), (2, 11), (1, 64), (2, 72)] {
            let n_embd = n_head * size;
            let (mut attention, mut cache) = (Attention::new(n_head, size), Blocks::default());
            let scale = 1.0 / (size as f32).sqrt();
            let mut seen: Vec<Vec<f32>> = Vec::new();
            for at in 0..150 {
                let qkv: Vec<f32> = (0..3 * n_embd).map(|i| noise(at * 7919 + i)).collect();
                seen.push(qkv.clone());
                let mut out = vec![0.0; n_embd];
                let (queries, rest) = qkv.split_at(n_embd);
                attention.store(&mut cache, at, &rest[..n_embd], &rest[n_embd..]);
                attention.attend(&cache, at, scale, queries, &mut out);
                for head in 0..n_head {
                    let part = |token: &[f32], which: usize| -> Vec<f64> {
                        let start = which * n_embd + head * size;
                        token[start..start + size]
                            .iter()
                            .map(|&x| f64::from(x))
                            .collect()
                    };
                    let q = part(&qkv, 0);
                    let weights: Vec<f64> = seen
                        .iter()
                        .map(|t| part(t, 1).iter().zip(&q).map(|(k, q)| k * q).sum::<f64>())
                        .map(|score| (score * f64::from(scale)).exp())
                        .collect();
                    let total: f64 = weights.iter().sum();
                    for d in 0..size {
                        let want: f64 = seen
                            .iter()
                            .zip(&weights)
                            .map(|(t, w)| part(t, 2)[d] * w / total)
                            .sum();
                        let got = f64::from(out[head * size + d]);
                        assert!(
                            (got - want).abs() < 1e-5,
                            "{n_head}x{size} at {at}: {got} {want}"
                        );
                    }
                }
            }
        }
    }
}
