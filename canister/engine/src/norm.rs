//! Layer normalisation over each token's vector: (x − mean) / sqrt(variance + ε) · gain + bias.

use crate::array::bytes_mut;
use crate::simd::{F32x4, floats_mut, padded};

/// Gain and bias of one normalisation, padded with zeros.
pub struct LayerNorm {
    pub gain: Vec<F32x4>,
    pub bias: Vec<F32x4>,
    pub epsilon: f32,
}

impl LayerNorm {
    /// Adds the bytes of gain and bias, to be overwritten.
    pub fn arrays_mut<'a>(&'a mut self, into: &mut Vec<&'a mut [u8]>) {
        into.push(bytes_mut(&mut self.gain));
        into.push(bytes_mut(&mut self.bias));
    }

    /// Normalises the first `n` floats of each row of `x` into `out`; what lies behind them becomes
    /// zero. Rows are padded.
    pub fn apply(&self, n: usize, x: &[F32x4], out: &mut [F32x4]) {
        let width = padded(n) / 4;
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            self.apply_to_row(n, x, out);
        }
    }

    fn apply_to_row(&self, n: usize, x: &[F32x4], out: &mut [F32x4]) {
        // The padding of x is zero, so it does not disturb the sum. Vectors come in twos.
        let (x, out) = (x.as_chunks::<2>().0, out.as_chunks_mut::<2>().0);
        let mut total = F32x4::zero();
        for &[a, b] in x {
            total = total + a + b;
        }
        let mean = F32x4::splat(total.sum() / n as f32);
        let Some((last, x)) = x.split_last() else {
            return;
        };
        // Padding that is the mean itself stays out of the variance and becomes zero.
        let mut last = *last;
        floats_mut(&mut last)[(n - 1) % 8 + 1..].fill(mean.first());
        let add_square = |sum: F32x4, &[a, b]: &[F32x4; 2]| {
            let (a, b) = (a - mean, b - mean);
            sum + a * a + b * b
        };
        let squares = add_square(x.iter().fold(F32x4::zero(), add_square), &last).sum();
        let scale = F32x4::splat(1.0 / (squares / n as f32 + self.epsilon).sqrt());
        let scaled = |&[a, b]: &[F32x4; 2], gain: &[F32x4; 2], bias: &[F32x4; 2]| {
            let (a, b) = ((a - mean) * scale, (b - mean) * scale);
            [a * gain[0] + bias[0], b * gain[1] + bias[1]]
        };
        let (gain, bias) = (self.gain.as_chunks::<2>().0, self.bias.as_chunks::<2>().0);
        for (((out, x), gain), bias) in out.iter_mut().zip(x).zip(gain).zip(bias) {
            *out = scaled(x, gain, bias);
        }
        out[x.len()] = scaled(&last, &gain[x.len()], &bias[x.len()]);
    }
}
