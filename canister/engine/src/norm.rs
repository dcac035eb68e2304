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
        let (x, out_twos) = (x.as_chunks::<2>().0, out.as_chunks_mut::<2>().0);
        let mut total = F32x4::zero();
        for &[a, b] in x {
            total = total + a + b;
        }
        let mean = F32x4::splat(total.sum() / n as f32);
        for (out, &[a, b]) in out_twos.iter_mut().zip(x) {
            *out = [a - mean, b - mean];
        }
        floats_mut(out)[n..].fill(0.0);
        let out = out.as_chunks_mut::<2>().0;
        let mut squares = F32x4::zero();
        for &[a, b] in &*out {
            squares = squares + a * a + b * b;
        }
        let squares = squares.sum();
        let scale = F32x4::splat(1.0 / (squares / n as f32 + self.epsilon).sqrt());
        let (gain, bias) = (self.gain.as_chunks::<2>().0, self.bias.as_chunks::<2>().0);
        for ((out, gain), bias) in out.iter_mut().zip(gain).zip(bias) {
            out[0] = out[0] * scale * gain[0] + bias[0];
            out[1] = out[1] * scale * gain[1] + bias[1];
        }
    }
}
