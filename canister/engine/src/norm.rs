//! Layer normalisation over each token's vector: (x − mean) / sqrt(variance + ε) · gain + bias.

use crate::simd::{F32x4, floats_mut, padded};

/// Gain and bias of one normalisation, padded with zeros.
pub struct LayerNorm {
    pub gain: Vec<F32x4>,
    pub bias: Vec<F32x4>,
    pub epsilon: f32,
}

impl LayerNorm {
    /// Normalises the first `n` floats of each row of `x` into `out`; what lies behind them becomes
    /// zero. Rows are padded.
    pub fn apply(&self, n: usize, x: &[F32x4], out: &mut [F32x4]) {
        let width = padded(n) / 4;
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            self.apply_to_row(n, x, out);
        }
    }

    fn apply_to_row(&self, n: usize, x: &[F32x4], out: &mut [F32x4]) {
        // The padding of x is zero, so it does not disturb the sum.
        let total = x.iter().fold(F32x4::zero(), |sum, &v| sum + v).sum();
        let mean = F32x4::splat(total / n as f32);
        for (out, &x) in out.iter_mut().zip(x) {
            *out = x - mean;
        }
        floats_mut(out)[n..].fill(0.0);
        let squares = out.iter().fold(F32x4::zero(), |sum, &v| sum + v * v).sum();
        let scale = F32x4::splat(1.0 / (squares / n as f32 + self.epsilon).sqrt());
        for ((out, &gain), &bias) in out.iter_mut().zip(&self.gain).zip(&self.bias) {
            *out = *out * scale * gain + bias;
        }
    }
}
