//! `exp` on four lanes, without a call into libm: about 30 metered instructions for four values.
//!
//! `e^x = 2^n · e^r` with n the integer nearest to x·log2(e) and |r| ≤ ln(2)/2. n is found by adding
//! 1.5·2^23, which leaves it in the low bits of the sum. The polynomial is Cephes' `expf`; the
//! relative error is below 2e-7.

use crate::simd::F32x4;

const ROUND: f32 = 12_582_912.0;
const LOG2_E: f32 = std::f32::consts::LOG2_E;
// ln(2) in two parts; the first has so few bits that n times it is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
// Between these bounds 2^n is a normal number.
const LOWEST: f32 = -87.0;
const HIGHEST: f32 = 88.0;

/// `e^x` for x between −87 and 88; arguments beyond are taken as the nearer bound.
#[inline(always)]
pub fn exp(x: F32x4) -> F32x4 {
    let x = x.max(F32x4::splat(LOWEST)).min(F32x4::splat(HIGHEST));
    let shifted = x * F32x4::splat(LOG2_E) + F32x4::splat(ROUND);
    let n = shifted - F32x4::splat(ROUND);
    let r = x - n * F32x4::splat(LN_2_HIGH) - n * F32x4::splat(LN_2_LOW);
    let mut p = F32x4::splat(1.987_569_1e-4);
    p = p * r + F32x4::splat(1.398_199_9e-3);
    p = p * r + F32x4::splat(8.333_452e-3);
    p = p * r + F32x4::splat(4.166_579_6e-2);
    p = p * r + F32x4::splat(1.666_666_5e-1);
    p = p * r + F32x4::splat(0.5);
    let e_r = p * (r * r) + r + F32x4::splat(1.0);
    e_r * shifted.low_bits_to_power_of_two()
}

/// `2^x`, right to 3 parts in a million, for what is rounded to 16 bits anyway; exponents beyond
/// ±125 are taken as the nearer bound. A third fewer instructions than [`exp`].
#[inline(always)]
pub fn exp2_rough(x: F32x4) -> F32x4 {
    const BOUND: f32 = 125.0;
    let x = x.max(F32x4::splat(-BOUND)).min(F32x4::splat(BOUND));
    let shifted = x + F32x4::splat(ROUND);
    let f = x - (shifted - F32x4::splat(ROUND));
    let mut p = F32x4::splat(9.570_102e-3);
    p = p * f + F32x4::splat(5.591_786e-2);
    p = p * f + F32x4::splat(2.402_474_4e-1);
    p = p * f + F32x4::splat(6.931_218e-1);
    p = p * f + F32x4::splat(9.999_993e-1);
    p.times_power_of_two_of_low_bits(shifted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rough_is_right_to_three_parts_in_a_million() {
        let mut worst = 0.0f64;
        for i in -125_000..=125_000 {
            let x = i as f32 / 1000.0;
            let got = f64::from(exp2_rough(F32x4::splat(x)).to_array()[0]);
            worst = worst.max((got / f64::from(x).exp2() - 1.0).abs());
        }
        assert!(worst < 3e-6, "relative error {worst}");
        let out = exp2_rough(F32x4::new([-1e9, f32::NEG_INFINITY, f32::INFINITY, 0.0])).to_array();
        assert!(out[0] > 0.0 && out[0] < 1e-37 && out[1] == out[0] && out[2].is_finite());
        assert!((out[3] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn agrees_with_libm() {
        let mut worst = 0.0f64;
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let got = f64::from(exp(F32x4::splat(x)).to_array()[0]);
            let want = f64::from(x).exp();
            worst = worst.max((got / want - 1.0).abs());
        }
        assert!(worst < 2e-7, "relative error {worst}");
    }

    #[test]
    fn is_bounded_and_exact_at_zero() {
        let out = exp(F32x4::new([f32::NEG_INFINITY, f32::INFINITY, 0.0, -1e9])).to_array();
        assert!(out[0] > 0.0 && out[0] < 1e-37);
        assert!(out[1].is_finite() && out[1] > 1e38);
        assert_eq!(out[2], 1.0);
        assert_eq!(out[3], out[0]);
    }
}
