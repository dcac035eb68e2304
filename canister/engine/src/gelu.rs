//! The two GELUs of GPT-2 checkpoints, four lanes at a time.
//!
//! `gelu_new` is x·Φ(x) with Φ approximated through tanh (Hendrycks and Gimpel, arXiv 1606.08415);
//! with tanh(u) = 1 − 2/(e^2u + 1) it becomes x / (1 + e^−2u). `gelu` is exact up to the error
//! function, taken from Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7).

use crate::config::Activation;
use crate::exp::{exp, exp2_rough};
use crate::simd::F32x4;
use crate::weights::Precision;

/// Applies the activation in place, more roughly when it is for a quantised model, which rounds it
/// to 14 bits.
pub fn apply(activation: Activation, precision: Precision, values: &mut [F32x4]) {
    match (activation, precision) {
        (Activation::GeluNew, Precision::F32) => each(values, gelu_new),
        (Activation::GeluNew, _) => each(values, gelu_new_rough),
        (Activation::Gelu, _) => each(values, gelu),
    }
}

/// Two vectors at a time: buffers are padded to that.
#[inline(always)]
fn each(values: &mut [F32x4], f: impl Fn(F32x4) -> F32x4) {
    for two in values.as_chunks_mut::<2>().0 {
        *two = [f(two[0]), f(two[1])];
    }
}

// −2·sqrt(2/π), and that times 0.044715.
const LINEAR: f32 = -1.595_769_2;
const CUBIC: f32 = -7.135_481_4e-2;

#[inline(always)]
fn gelu_new(x: F32x4) -> F32x4 {
    let minus_2u = x * (F32x4::splat(LINEAR) + F32x4::splat(CUBIC) * (x * x));
    x.div(F32x4::splat(1.0) + exp(minus_2u))
}

#[inline(always)]
fn gelu_new_rough(x: F32x4) -> F32x4 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    let slope = F32x4::splat(LINEAR * LOG2_E) + F32x4::splat(CUBIC * LOG2_E) * (x * x);
    x.div(F32x4::splat(1.0) + exp2_rough(x * slope))
}

#[inline(always)]
fn gelu(x: F32x4) -> F32x4 {
    let one = F32x4::splat(1.0);
    let z = x * F32x4::splat(std::f32::consts::FRAC_1_SQRT_2);
    let size = z.abs();
    let t = one.div(one + size * F32x4::splat(0.327_591_1));
    let mut p = F32x4::splat(1.061_405_4);
    p = p * t + F32x4::splat(-1.453_152);
    p = p * t + F32x4::splat(1.421_413_8);
    p = p * t + F32x4::splat(-0.284_496_72);
    p = p * t + F32x4::splat(0.254_829_6);
    let erf = (one - p * t * exp(F32x4::zero() - z * z)).with_sign_of(x);
    F32x4::splat(0.5) * x * (one + erf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(f: impl Fn(F32x4) -> F32x4, reference: impl Fn(f64) -> f64) -> f64 {
        (-120_000..=120_000)
            .map(|i| {
                let x = i as f32 / 10_000.0;
                let got = f64::from(f(F32x4::splat(x)).to_array()[0]);
                (got - reference(f64::from(x))).abs()
            })
            .fold(0.0, f64::max)
    }

    /// The error function by its series with positive terms, which loses nothing to cancellation.
    fn erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..400 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        sum * (-x * x).exp() * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn gelu_new_agrees_with_its_formula() {
        let reference = |x: f64| {
            0.5 * x
                * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        };
        let exact = worst(gelu_new, reference);
        assert!(exact < 2e-6, "{exact}");
        let rough = worst(gelu_new_rough, reference);
        assert!(rough < 1e-5, "{rough}");
    }

    #[test]
    fn gelu_agrees_with_its_formula() {
        let reference = |x: f64| 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2));
        let worst = worst(gelu, reference);
        assert!(worst < 2e-6, "{worst}");
    }

    #[test]
    fn zero_stays_zero() {
        // Padding relies on it.
        let mut values = [F32x4::zero(); 2];
        for precision in [Precision::F32, Precision::Int8] {
            apply(Activation::GeluNew, precision, &mut values);
            apply(Activation::Gelu, precision, &mut values);
        }
        assert_eq!(crate::simd::floats(&values), [0.0; 8]);
    }
}
