//! Integer lanes: eight `i16` and four `i32`, WebAssembly's `v128` where the target has it.
//!
//! The work is one operation, the product of eight pairs with neighbours summed
//! (`i32x4.dot_i16x8_s`): 8 products for 1 metered instruction. Integer sums have no rounding, so
//! any order gives the same bits natively and in the canister.

use std::ops::{Add, Sub};

use crate::simd::F32x4;

/// Two neighbouring inputs of a product.
pub type Pair = [i16; 2];

/// Adding it to a float below 2^22 leaves the nearest integer in the sum's low bits.
pub const ROUND: f32 = 12_582_912.0;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod lanes {
    use super::Pair;
    use core::arch::wasm32 as w;

    pub type Eight = w::v128;
    pub type Four = w::v128;

    #[inline(always)]
    pub fn widen(from: &[i8; 8]) -> Eight {
        // SAFETY: the reference covers the 8 bytes that are read; alignment is not asked for.
        unsafe { w::i16x8_load_extend_i8x8(from.as_ptr()) }
    }
    #[inline(always)]
    pub fn load(from: &[i16; 8]) -> Eight {
        // SAFETY: the reference covers the 16 bytes that are read; alignment is not asked for.
        unsafe { w::v128_load(from.as_ptr().cast()) }
    }
    #[inline(always)]
    pub fn splat([a, b]: Pair) -> Eight {
        w::i32x4_splat(i32::from(b) << 16 | i32::from(a as u16))
    }
    #[inline(always)]
    pub fn zero() -> Four {
        w::i32x4_splat(0)
    }
    #[inline(always)]
    pub fn dot(a: Eight, b: Eight) -> Four {
        w::i32x4_dot_i16x8(a, b)
    }
    #[inline(always)]
    pub fn add_eight(a: Eight, b: Eight) -> Eight {
        w::i16x8_add(a, b)
    }
    #[inline(always)]
    pub fn sub_eight(a: Eight, b: Eight) -> Eight {
        w::i16x8_sub(a, b)
    }
    #[inline(always)]
    pub fn add(a: Four, b: Four) -> Four {
        w::i32x4_add(a, b)
    }
    #[inline(always)]
    pub fn to_f32(a: Four) -> w::v128 {
        w::f32x4_convert_i32x4(a)
    }
    #[inline(always)]
    pub fn low_halves(a: w::v128, b: w::v128, to: &mut [i16; 8]) {
        let halves = w::i16x8_shuffle::<0, 2, 4, 6, 8, 10, 12, 14>(a, b);
        // SAFETY: the reference covers the 16 bytes that are written.
        unsafe { w::v128_store(to.as_mut_ptr().cast(), halves) }
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod lanes {
    use super::Pair;
    use crate::simd::Lanes;

    pub type Eight = [i16; 8];
    pub type Four = [i32; 4];

    #[inline(always)]
    pub fn widen(from: &[i8; 8]) -> Eight {
        from.map(i16::from)
    }
    #[inline(always)]
    pub fn load(from: &[i16; 8]) -> Eight {
        *from
    }
    #[inline(always)]
    pub fn splat([a, b]: Pair) -> Eight {
        [a, b, a, b, a, b, a, b]
    }
    #[inline(always)]
    pub fn zero() -> Four {
        [0; 4]
    }
    #[inline(always)]
    pub fn dot(a: Eight, b: Eight) -> Four {
        let product = |i: usize| i32::from(a[i]) * i32::from(b[i]);
        [0, 2, 4, 6].map(|i| product(i).wrapping_add(product(i + 1)))
    }
    #[inline(always)]
    pub fn add_eight(a: Eight, b: Eight) -> Eight {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    pub fn sub_eight(a: Eight, b: Eight) -> Eight {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    pub fn add(a: Four, b: Four) -> Four {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    pub fn to_f32(a: Four) -> Lanes {
        crate::simd::from_array(a.map(|x| x as f32))
    }
    #[inline(always)]
    pub fn low_halves(a: Lanes, b: Lanes, to: &mut [i16; 8]) {
        let (a, b) = (crate::simd::to_array(a), crate::simd::to_array(b));
        *to = std::array::from_fn(|i| {
            let lane = if i < 4 { a[i] } else { b[i - 4] };
            lane.to_bits() as i16
        });
    }
}

/// Eight `i16` lanes; sums wrap.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct I16x8(lanes::Eight);

impl I16x8 {
    /// Eight `i8`, widened by the load itself, hence the reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    #[inline(always)]
    pub fn widen(from: &[i8; 8]) -> Self {
        Self(lanes::widen(from))
    }
    #[inline(always)]
    pub fn load(from: &[i16; 8]) -> Self {
        Self(lanes::load(from))
    }
    /// The pair four times.
    #[inline(always)]
    pub fn splat(from: Pair) -> Self {
        Self(lanes::splat(from))
    }
    /// Lane i of the result is the sum of the products of lanes 2i and 2i + 1.
    #[inline(always)]
    pub fn dot(self, other: Self) -> I32x4 {
        I32x4(lanes::dot(self.0, other.0))
    }
}

impl Add for I16x8 {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(lanes::add_eight(self.0, other.0))
    }
}

impl Sub for I16x8 {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(lanes::sub_eight(self.0, other.0))
    }
}

/// Four `i32` lanes; sums wrap.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct I32x4(lanes::Four);

impl I32x4 {
    #[inline(always)]
    pub fn zero() -> Self {
        Self(lanes::zero())
    }
    #[inline(always)]
    pub fn to_f32(self) -> F32x4 {
        F32x4(lanes::to_f32(self.0))
    }
}

impl Add for I32x4 {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(lanes::add(self.0, other.0))
    }
}

/// Rounds eight floats to the nearest integers (halves to even), which must fit.
#[inline(always)]
pub fn round(a: F32x4, b: F32x4, to: &mut [i16; 8]) {
    let shift = F32x4::splat(ROUND);
    lanes::low_halves((a + shift).0, (b + shift).0, to);
}

/// Rounds numbers times a factor. Four eights at a time: one at a time, a third of the work would be
/// the loop's own.
pub fn round_all(x: &[[F32x4; 2]], factor: F32x4, into: &mut [[i16; 8]]) {
    let one = |to: &mut [i16; 8], &[a, b]: &[F32x4; 2]| round(a * factor, b * factor, to);
    let ((fours, rest), (into, into_rest)) = (x.as_chunks::<4>(), into.as_chunks_mut::<4>());
    for (to, [a, b, c, d]) in into.iter_mut().zip(fours) {
        one(&mut to[0], a);
        one(&mut to[1], b);
        one(&mut to[2], c);
        one(&mut to[3], d);
    }
    for (to, x) in into_rest.iter_mut().zip(rest) {
        one(to, x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::F32x4;

    #[test]
    fn rounds_to_the_nearest_and_halves_to_even() {
        let mut out = [0; 8];
        let a = F32x4::new([0.5, 1.5, -0.5, -1.5]);
        round(
            a,
            F32x4::new([-8191.4, 8190.6, 32767.0, -32768.0]),
            &mut out,
        );
        assert_eq!(out, [0, 2, 0, -2, -8191, 8191, 32767, -32768]);
    }

    #[test]
    fn products_are_summed_by_pairs() {
        let a = I16x8::widen(&[1, 2, 3, 4, -5, 6, 127, -128]);
        let sum = a.dot(I16x8::splat([8191, -10])) + I32x4::zero();
        let want = [8191 - 20, 3 * 8191 - 40, -5 * 8191 - 60, 127 * 8191 + 1280];
        assert_eq!(sum.to_f32().to_array(), want.map(|x| x as f32));
    }
}
