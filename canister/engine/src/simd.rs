//! Four `f32` at once: WebAssembly's `v128` where the target has it, plain arrays elsewhere.
//!
//! Both do the same IEEE operations in the same order, so a model gives the same bits natively and
//! in the canister. Operations are those that the platform's meter prices low: `max` is `pmax`
//! (1 instruction against 4), and rounding goes through addition.

use std::ops::{Add, Mul, Sub};

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod lanes {
    use core::arch::wasm32 as w;

    pub type Lanes = w::v128;

    #[inline(always)]
    pub fn from_array(a: [f32; 4]) -> Lanes {
        w::f32x4(a[0], a[1], a[2], a[3])
    }
    #[inline(always)]
    pub fn to_array(a: Lanes) -> [f32; 4] {
        [
            w::f32x4_extract_lane::<0>(a),
            w::f32x4_extract_lane::<1>(a),
            w::f32x4_extract_lane::<2>(a),
            w::f32x4_extract_lane::<3>(a),
        ]
    }
    #[inline(always)]
    pub fn splat(x: f32) -> Lanes {
        w::f32x4_splat(x)
    }
    #[inline(always)]
    pub fn swap_neighbours(a: Lanes) -> Lanes {
        w::i32x4_shuffle::<1, 0, 3, 2>(a, a)
    }
    #[inline(always)]
    pub fn swap_halves(a: Lanes) -> Lanes {
        w::i32x4_shuffle::<2, 3, 0, 1>(a, a)
    }
    #[inline(always)]
    pub fn add(a: Lanes, b: Lanes) -> Lanes {
        w::f32x4_add(a, b)
    }
    #[inline(always)]
    pub fn sub(a: Lanes, b: Lanes) -> Lanes {
        w::f32x4_sub(a, b)
    }
    #[inline(always)]
    pub fn mul(a: Lanes, b: Lanes) -> Lanes {
        w::f32x4_mul(a, b)
    }
    #[inline(always)]
    pub fn div(a: Lanes, b: Lanes) -> Lanes {
        w::f32x4_div(a, b)
    }
    #[inline(always)]
    pub fn max(a: Lanes, b: Lanes) -> Lanes {
        w::f32x4_pmax(a, b)
    }
    #[inline(always)]
    pub fn min(a: Lanes, b: Lanes) -> Lanes {
        w::f32x4_pmin(a, b)
    }
    #[inline(always)]
    pub fn abs(a: Lanes) -> Lanes {
        w::f32x4_abs(a)
    }
    #[inline(always)]
    pub fn copysign(a: Lanes, sign: Lanes) -> Lanes {
        w::v128_bitselect(sign, a, w::u32x4_splat(0x8000_0000))
    }
    #[inline(always)]
    pub fn times_power_of_two_of_low_bits(a: Lanes, n: Lanes) -> Lanes {
        w::i32x4_add(a, w::i32x4_shl(n, 23))
    }
    #[inline(always)]
    pub fn low_bits_to_power_of_two(a: Lanes) -> Lanes {
        w::i32x4_shl(w::i32x4_add(a, w::i32x4_splat(127)), 23)
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod lanes {
    #[derive(Clone, Copy)]
    #[repr(C, align(16))]
    pub struct Lanes([f32; 4]);

    #[inline(always)]
    fn zip(a: Lanes, b: Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
        let (a, b) = (a.0, b.0);
        Lanes([f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])])
    }
    #[inline(always)]
    pub fn from_array(a: [f32; 4]) -> Lanes {
        Lanes(a)
    }
    #[inline(always)]
    pub fn to_array(a: Lanes) -> [f32; 4] {
        a.0
    }
    #[inline(always)]
    pub fn splat(x: f32) -> Lanes {
        Lanes([x; 4])
    }
    #[inline(always)]
    pub fn swap_neighbours(Lanes([a, b, c, d]): Lanes) -> Lanes {
        Lanes([b, a, d, c])
    }
    #[inline(always)]
    pub fn swap_halves(Lanes([a, b, c, d]): Lanes) -> Lanes {
        Lanes([c, d, a, b])
    }
    #[inline(always)]
    pub fn add(a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    pub fn sub(a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    pub fn mul(a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    pub fn div(a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    pub fn max(a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| if a < b { b } else { a })
    }
    #[inline(always)]
    pub fn min(a: Lanes, b: Lanes) -> Lanes {
        zip(a, b, |a, b| if b < a { b } else { a })
    }
    #[inline(always)]
    pub fn abs(a: Lanes) -> Lanes {
        Lanes(a.0.map(f32::abs))
    }
    #[inline(always)]
    pub fn copysign(a: Lanes, sign: Lanes) -> Lanes {
        zip(a, sign, f32::copysign)
    }
    #[inline(always)]
    pub fn times_power_of_two_of_low_bits(a: Lanes, n: Lanes) -> Lanes {
        zip(a, n, |a, n| {
            f32::from_bits(a.to_bits().wrapping_add(n.to_bits() << 23))
        })
    }
    #[inline(always)]
    pub fn low_bits_to_power_of_two(a: Lanes) -> Lanes {
        Lanes(a.0.map(|x| f32::from_bits(x.to_bits().wrapping_add(127) << 23)))
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(crate) use lanes::{Lanes, from_array, to_array};

/// Four `f32` lanes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct F32x4(pub(crate) lanes::Lanes);

impl F32x4 {
    #[inline(always)]
    pub fn new(a: [f32; 4]) -> Self {
        Self(lanes::from_array(a))
    }
    #[inline(always)]
    pub fn splat(x: f32) -> Self {
        Self(lanes::splat(x))
    }
    #[inline(always)]
    pub fn zero() -> Self {
        Self::splat(0.0)
    }
    #[inline(always)]
    pub fn to_array(self) -> [f32; 4] {
        lanes::to_array(self.0)
    }
    /// The lanes' sum, as (0 + 1) + (2 + 3), in every lane: the meter prices an addition of single
    /// floats at 20 instructions.
    #[inline(always)]
    pub fn summed(self) -> Self {
        let twos = self + Self(lanes::swap_neighbours(self.0));
        twos + Self(lanes::swap_halves(twos.0))
    }
    /// The same as a single float.
    #[inline(always)]
    pub fn sum(self) -> f32 {
        self.summed().first()
    }
    /// The largest lane, in every lane.
    #[inline(always)]
    pub fn highest(self) -> Self {
        let twos = self.max(Self(lanes::swap_neighbours(self.0)));
        twos.max(Self(lanes::swap_halves(twos.0)))
    }
    /// The first lane.
    #[inline(always)]
    pub fn first(self) -> f32 {
        self.to_array()[0]
    }
    #[inline(always)]
    pub fn div(self, other: Self) -> Self {
        Self(lanes::div(self.0, other.0))
    }
    /// Lane-wise `other` where `self < other`, else `self`.
    #[inline(always)]
    pub fn max(self, other: Self) -> Self {
        Self(lanes::max(self.0, other.0))
    }
    /// Lane-wise `other` where `other < self`, else `self`.
    #[inline(always)]
    pub fn min(self, other: Self) -> Self {
        Self(lanes::min(self.0, other.0))
    }
    #[inline(always)]
    pub fn abs(self) -> Self {
        Self(lanes::abs(self.0))
    }
    /// The magnitude of `self` (which must not be negative) with the sign of `sign`.
    #[inline(always)]
    pub fn with_sign_of(self, sign: Self) -> Self {
        Self(lanes::copysign(self.0, sign.0))
    }
    /// `self` · 2^m, where m is the integer in the low bits of each lane of `n`, by adding to the
    /// exponent: the result must be a normal number.
    #[inline(always)]
    pub fn times_power_of_two_of_low_bits(self, n: Self) -> Self {
        Self(lanes::times_power_of_two_of_low_bits(self.0, n.0))
    }
    /// 2^n, where n is the integer in the low bits of each lane (see [`crate::exp`]).
    #[inline(always)]
    pub fn low_bits_to_power_of_two(self) -> Self {
        Self(lanes::low_bits_to_power_of_two(self.0))
    }
}

impl Add for F32x4 {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(lanes::add(self.0, other.0))
    }
}

impl Sub for F32x4 {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(lanes::sub(self.0, other.0))
    }
}

impl Mul for F32x4 {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(lanes::mul(self.0, other.0))
    }
}

/// A length rounded up to what every buffer is padded to: a narrow block of the linear kernel,
/// which is two vectors.
pub const fn padded(n: usize) -> usize {
    n.div_ceil(8) * 8
}

/// A zeroed buffer for `n` floats, padded.
pub fn zeros(n: usize) -> Vec<F32x4> {
    vec![F32x4::zero(); padded(n) / 4]
}

/// The same memory as single floats.
pub fn floats(vectors: &[F32x4]) -> &[f32] {
    // SAFETY: F32x4 is four f32 without padding, its alignment is the larger one, and every bit
    // pattern is a valid f32.
    unsafe { std::slice::from_raw_parts(vectors.as_ptr().cast(), vectors.len() * 4) }
}

/// The same memory as vectors in twos, if it is aligned like them and a whole number of them.
pub fn eights(floats: &[f32]) -> Option<&[[F32x4; 2]]> {
    // SAFETY: as in `floats`; any four f32 are a valid F32x4.
    match unsafe { floats.align_to::<F32x4>() } {
        ([], vectors, []) => match vectors.as_chunks::<2>() {
            (twos, []) => Some(twos),
            _ => None,
        },
        _ => None,
    }
}

/// The same memory as single floats, to be written.
pub fn floats_mut(vectors: &mut [F32x4]) -> &mut [f32] {
    // SAFETY: as in `floats`; the borrow is exclusive.
    unsafe { std::slice::from_raw_parts_mut(vectors.as_mut_ptr().cast(), vectors.len() * 4) }
}
