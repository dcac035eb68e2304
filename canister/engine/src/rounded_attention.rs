//! Multi-head attention of one new token over a key and value cache in 16 bits.
//!
//! As in f32 the cache grows by blocks of 64 positions, and both products run on the kernel of the
//! weights: scores = K·q with positions as outputs, and result = V·p with positions as inputs. Each
//! head's key and value have a scale of their own; a value's is multiplied into its softmax weight
//! before that is rounded. Rounding keeps every sum below 2^31 (`factor`).

use crate::cache::{BLOCK, Blocks};
use crate::exp::exp2_rough;
use crate::integers::{Pair, round_all};
use crate::kernel::{multiply, passes};
use crate::simd::{F32x4, eights, floats, floats_mut, padded, zeros};

/// The largest magnitudes of rounded numbers, and what those they meet may sum up to.
const KEY: f32 = 4095.0;
const QUERY: f32 = 8191.0;
const QUERY_SUM: f32 = (i32::MAX / KEY as i32) as f32;
const VALUE: f32 = 8191.0;
const WEIGHT: f32 = 32767.0;
const WEIGHT_SUM: f32 = (i32::MAX / VALUE as i32) as f32;

/// Heads lie one after the other: keys as matrices of `head_size` inputs and `BLOCK` outputs,
/// values the other way round, and a scale for each position.
#[derive(Clone)]
pub struct Block {
    keys: Vec<[i16; 8]>,
    values: Vec<[i16; 8]>,
    key_scales: Vec<F32x4>,
    value_scales: Vec<F32x4>,
}

/// Sizes of the attention of one model, with the working memory of one pass.
pub struct Attention {
    n_head: usize,
    head_size: usize,
    /// One head's vector on its way to integers.
    head: Vec<F32x4>,
    rounded: Vec<[i16; 8]>,
    scores: Vec<F32x4>,
    weights: Vec<[i16; 8]>,
    result: Vec<F32x4>,
    ones: Vec<F32x4>,
    /// Zeros, which products start from.
    nothing: Vec<F32x4>,
}

impl Attention {
    pub fn new(n_head: usize, head_size: usize) -> Self {
        Self {
            n_head,
            head_size,
            head: zeros(head_size),
            rounded: vec![[0; 8]; padded(head_size) / 8],
            scores: Vec::new(),
            weights: Vec::new(),
            result: zeros(head_size),
            ones: vec![F32x4::splat(1.0); padded(head_size) / 4],
            nothing: zeros(head_size.max(BLOCK)),
        }
    }

    /// Eights of one head's keys, or values, in a block.
    fn head_len(&self) -> usize {
        padded(self.head_size) * BLOCK / 8
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
        let len = self.head_len();
        let blocks = cache.upto(at);
        self.scores.resize(blocks.len() * BLOCK / 4, F32x4::zero());
        self.weights.resize(blocks.len() * BLOCK / 8, [0; 8]);
        let heads = queries
            .chunks_exact(self.head_size)
            .zip(out.chunks_exact_mut(self.head_size));
        for (head, (query, out)) in heads.enumerate() {
            let unit = self.round_head(query, QUERY, QUERY_SUM).first() * scale;
            let (matrix, scales) = (head * len..(head + 1) * len, head * BLOCK / 4);
            // Groups of positions that are still empty are left out, in twos as the kernel has it.
            let filled = &mut self.scores[..(at / 8 + 1) * 2];
            for (block, scores) in blocks.iter().zip(filled.chunks_mut(BLOCK / 4)) {
                multiply(
                    pairs(&self.rounded),
                    unit,
                    &block.keys[matrix.clone()],
                    &block.key_scales[scales..][..BLOCK / 4],
                    Some(&self.nothing),
                    scores,
                );
            }
            let values = blocks.iter().map(|block| &block.value_scales[scales..]);
            let (total, factor) = weigh(&mut self.scores, at + 1, values);
            round_all(self.scores.as_chunks().0, factor, &mut self.weights);
            let unit = F32x4::splat(1.0).div(factor).first();
            let mut start = Some(&self.nothing[..]);
            for (block, weights) in blocks.iter().zip(self.weights.chunks_exact(BLOCK / 8)) {
                multiply(
                    pairs(weights),
                    unit,
                    &block.values[matrix.clone()],
                    &self.ones,
                    start.take(),
                    &mut self.result,
                );
            }
            let normalise = F32x4::splat(1.0).div(total);
            for sum in &mut self.result {
                *sum = *sum * normalise;
            }
            out.copy_from_slice(&floats(&self.result)[..out.len()]);
        }
    }

    /// Rounds one head's vector into `rounded` and returns what 1 stands for.
    fn round_head(&mut self, x: &[f32], most: f32, most_sum: f32) -> F32x4 {
        let x = eights(x).unwrap_or_else(|| {
            floats_mut(&mut self.head)[..x.len()].copy_from_slice(x);
            self.head.as_chunks().0
        });
        let (mut largest, mut sum) = (F32x4::zero(), F32x4::zero());
        for &[a, b] in x {
            let (a, b) = (a.abs(), b.abs());
            largest = largest.max(a).max(b);
            sum = sum + a + b;
        }
        let factor = factor(
            largest.highest(),
            sum.summed(),
            most,
            most_sum,
            self.head_size,
        );
        round_all(x, factor, &mut self.rounded);
        F32x4::splat(1.0).div(factor)
    }

    /// Writes the key and value of position `at` into the cache.
    pub fn store(&mut self, cache: &mut Blocks<Block>, at: usize, keys: &[f32], values: &[f32]) {
        let (len, size) = (self.head_len(), self.head_size);
        let block = cache.block(at, || {
            let matrices = || vec![[0; 8]; self.n_head * len];
            let scales = || zeros(self.n_head * BLOCK);
            Block {
                keys: matrices(),
                values: matrices(),
                key_scales: scales(),
                value_scales: scales(),
            }
        });
        let at = at % BLOCK;
        for (head, key) in keys.chunks_exact(size).enumerate() {
            let unit = self.round_head(key, KEY, f32::MAX).first();
            floats_mut(&mut block.key_scales)[head * BLOCK + at] = unit;
            let matrix = &mut block.keys[head * len..][..len];
            let rounded = pairs(&self.rounded);
            for (start, width) in passes(size) {
                let first = start * BLOCK / 8 + at / 4 * (width / 2);
                let eights = matrix[first..].iter_mut().zip(&rounded[start / 2..]);
                for (eight, pair) in eights.take(width / 2) {
                    eight[at % 4 * 2..][..2].copy_from_slice(pair);
                }
            }
        }
        for (head, value) in values.chunks_exact(size).enumerate() {
            let unit = self.round_head(value, VALUE, f32::MAX).first();
            floats_mut(&mut block.value_scales)[head * BLOCK + at] = unit;
            let groups = block.values[head * len..][..len].chunks_exact_mut(BLOCK / 2);
            let rounded = self.rounded.as_flattened().as_chunks::<4>().0;
            for (group, four) in groups.zip(rounded) {
                let lanes = group[at / 2].iter_mut().skip(at % 2).step_by(2);
                lanes.zip(four).for_each(|(lane, &value)| *lane = value);
            }
        }
    }
}

/// Turns the first `n` scores into e^(score − highest), each times its value's scale; the others
/// become zero. Gives the sum before the scales, and what the weights are multiplied by before
/// rounding: the sum over a block decides.
fn weigh<'a>(
    scores: &mut [F32x4],
    n: usize,
    scales: impl Iterator<Item = &'a [F32x4]>,
) -> (F32x4, F32x4) {
    let filled = n.div_ceil(8) * 2;
    scores[filled..].fill(F32x4::zero());
    let scores = &mut scores[..filled];
    // What fills up the last vectors weighs nothing.
    floats_mut(scores)[n..].fill(f32::MIN);
    let mut most = F32x4::splat(f32::MIN);
    for &[a, b] in scores.as_chunks::<2>().0 {
        most = most.max(a).max(b);
    }
    let most = most.highest();
    let log2_e = F32x4::splat(std::f32::consts::LOG2_E);
    let (mut total, mut largest, mut sum) = (F32x4::zero(), F32x4::zero(), F32x4::zero());
    for (scores, scales) in scores.chunks_mut(BLOCK / 4).zip(scales) {
        let mut here = F32x4::zero();
        let twos = scores.as_chunks_mut::<2>().0.iter_mut();
        for (scores, scales) in twos.zip(scales.as_chunks::<2>().0) {
            let weights = scores.map(|score| exp2_rough((score - most) * log2_e));
            total = total + weights[0] + weights[1];
            *scores = [weights[0] * scales[0], weights[1] * scales[1]];
            largest = largest.max(scores[0]).max(scores[1]);
            here = here + scores[0] + scores[1];
        }
        sum = sum.max(here.summed());
    }
    let factor = factor(largest.highest(), sum, WEIGHT, WEIGHT_SUM, BLOCK);
    (total.summed(), factor)
}

fn pairs(values: &[[i16; 8]]) -> &[Pair] {
    values.as_flattened().as_chunks().0
}

/// What numbers are multiplied by before they are rounded: none becomes larger than `most`, and the
/// magnitudes of `n` of them, each rounded by a half at most, don't sum up to more than `most_sum`.
/// The sum given may be wrong by 1 in 10,000.
fn factor(largest: F32x4, sum: F32x4, most: f32, most_sum: f32, n: usize) -> F32x4 {
    let little = F32x4::splat(1e-30);
    let by_largest = F32x4::splat(most).div(largest + little);
    let by_sum = F32x4::splat((most_sum - n as f32) * 0.9999).div(sum + little);
    by_largest.min(by_sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention;

    fn noise(i: usize) -> f32 {
        let mixed = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        mixed as f32 / (1u64 << 22) as f32 - 2.0
    }

    #[test]
    fn agrees_with_f32() {
        for (n_head, size) in [(1, 1), (3, 5), (2, 11), (1, 64), (2, 72), (1, 256)] {
            let n_embd = n_head * size;
            let (mut rounded, mut cache) = (Attention::new(n_head, size), Blocks::default());
            let mut exact = attention::Attention::new(n_head, size);
            let mut exact_cache = Blocks::default();
            let scale = 1.0 / (size as f32).sqrt();
            for at in 0..150 {
                let qkv: Vec<f32> = (0..3 * n_embd).map(|i| noise(at * 7919 + i)).collect();
                let (mut got, mut want) = (vec![0.0; n_embd], vec![0.0; n_embd]);
                let (queries, rest) = qkv.split_at(n_embd);
                let (keys, values) = rest.split_at(n_embd);
                rounded.store(&mut cache, at, keys, values);
                rounded.attend(&cache, at, scale, queries, &mut got);
                exact.store(&mut exact_cache, at, keys, values);
                exact.attend(&exact_cache, at, scale, queries, &mut want);
                for (got, want) in got.iter().zip(&want) {
                    assert!(
                        (got - want).abs() < 2e-3,
                        "{n_head}x{size} at {at}: {got} {want}"
                    );
                }
            }
        }
    }

    /// All numbers at their bound at once: signs alike, weights equal.
    #[test]
    fn no_sum_overflows() {
        for size in [8, 64, 256, 768] {
            let (mut attention, mut cache) = (Attention::new(1, size), Blocks::default());
            for at in 0..130 {
                let mut out = vec![0.0; size];
                let all = vec![3.0; size];
                attention.store(&mut cache, at, &all, &all);
                attention.attend(&cache, at, 1e-3, &all, &mut out);
                assert!(
                    out.iter().all(|x| (x - 3.0).abs() < 3e-3),
                    "{size} at {at}: {}",
                    out[0]
                );
            }
        }
    }

    #[test]
    fn zeros_stay_zero() {
        let (mut attention, mut cache) = (Attention::new(2, 4), Blocks::default());
        let mut out = [1.0; 8];
        attention.store(&mut cache, 0, &[0.0; 8], &[0.0; 8]);
        attention.attend(&cache, 0, 0.5, &[0.0; 8], &mut out);
        assert_eq!(out, [0.0; 8]);
    }
}
