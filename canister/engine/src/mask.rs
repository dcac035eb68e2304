//! Comparisons of four lanes, and what is done with their outcome.
//!
//! Like [`crate::simd`], for WebAssembly and for everything else, with the same bits. The comparisons
//! are priced at one instruction by the platform's meter.

use crate::simd::F32x4;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod lanes {
    use core::arch::wasm32 as w;

    pub type Bits = w::v128;

    #[inline(always)]
    pub fn load(from: &[f32; 4]) -> w::v128 {
        // SAFETY: `from` is 16 readable bytes; the instruction takes any alignment.
        unsafe { w::v128_load(from.as_ptr().cast()) }
    }
    #[inline(always)]
    pub fn at_least(a: w::v128, b: w::v128) -> Bits {
        w::f32x4_ge(a, b)
    }
    #[inline(always)]
    pub fn below(a: w::v128, b: w::v128) -> Bits {
        w::f32x4_lt(a, b)
    }
    #[inline(always)]
    pub fn equal(a: w::v128, b: w::v128) -> Bits {
        w::f32x4_eq(a, b)
    }
    #[inline(always)]
    pub fn and(a: Bits, b: Bits) -> Bits {
        w::v128_and(a, b)
    }
    #[inline(always)]
    pub fn only(a: w::v128, where_: Bits) -> w::v128 {
        w::v128_and(a, where_)
    }
    #[inline(always)]
    pub fn choose(a: w::v128, b: w::v128, where_: Bits) -> w::v128 {
        w::v128_bitselect(a, b, where_)
    }
    #[inline(always)]
    pub fn bitmask(a: Bits) -> u8 {
        w::i32x4_bitmask(a)
    }
    #[inline(always)]
    pub fn any(a: Bits) -> bool {
        w::v128_any_true(a)
    }
    #[inline(always)]
    pub fn scale(a: w::v128, by: w::v128) -> w::v128 {
        w::i32x4_add(a, w::i32x4_shl(by, 23))
    }
    #[inline(always)]
    pub fn no_counts() -> Bits {
        w::i32x4_splat(0)
    }
    #[inline(always)]
    pub fn count(counts: Bits, mask: Bits) -> Bits {
        w::i32x4_sub(counts, mask)
    }
    #[inline(always)]
    pub fn counts(counts: Bits) -> [u32; 4] {
        [
            w::u32x4_extract_lane::<0>(counts),
            w::u32x4_extract_lane::<1>(counts),
            w::u32x4_extract_lane::<2>(counts),
            w::u32x4_extract_lane::<3>(counts),
        ]
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod lanes {
    use crate::simd::{Lanes, from_array, to_array};

    /// All bits set or none, lane by lane; of counts, the number itself.
    pub type Bits = [u32; 4];

    #[inline(always)]
    fn compare(a: Lanes, b: Lanes, with: impl Fn(f32, f32) -> bool) -> Bits {
        let (a, b) = (to_array(a), to_array(b));
        std::array::from_fn(|i| if with(a[i], b[i]) { u32::MAX } else { 0 })
    }
    #[inline(always)]
    pub fn load(from: &[f32; 4]) -> Lanes {
        from_array(*from)
    }
    #[inline(always)]
    pub fn at_least(a: Lanes, b: Lanes) -> Bits {
        compare(a, b, |a, b| a >= b)
    }
    #[inline(always)]
    pub fn below(a: Lanes, b: Lanes) -> Bits {
        compare(a, b, |a, b| a < b)
    }
    #[inline(always)]
    #[allow(clippy::float_cmp, reason = "this is the comparison itself")]
    pub fn equal(a: Lanes, b: Lanes) -> Bits {
        compare(a, b, |a, b| a == b)
    }
    #[inline(always)]
    pub fn and(a: Bits, b: Bits) -> Bits {
        std::array::from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    pub fn only(a: Lanes, where_: Bits) -> Lanes {
        let a = to_array(a);
        from_array(std::array::from_fn(|i| {
            f32::from_bits(a[i].to_bits() & where_[i])
        }))
    }
    #[inline(always)]
    pub fn choose(a: Lanes, b: Lanes, where_: Bits) -> Lanes {
        let (a, b) = (to_array(a), to_array(b));
        from_array(std::array::from_fn(|i| {
            if where_[i] == 0 { b[i] } else { a[i] }
        }))
    }
    #[inline(always)]
    pub fn bitmask(a: Bits) -> u8 {
        (0..4).fold(0, |bits, i| bits | (((a[i] >> 31) as u8) << i))
    }
    #[inline(always)]
    pub fn any(a: Bits) -> bool {
        a != [0; 4]
    }
    #[inline(always)]
    pub fn scale(a: Lanes, by: Lanes) -> Lanes {
        let (a, by) = (to_array(a), to_array(by));
        from_array(std::array::from_fn(|i| {
            f32::from_bits(a[i].to_bits().wrapping_add(by[i].to_bits() << 23))
        }))
    }
    #[inline(always)]
    pub fn no_counts() -> Bits {
        [0; 4]
    }
    #[inline(always)]
    pub fn count(counts: Bits, mask: Bits) -> Bits {
        std::array::from_fn(|i| counts[i].wrapping_sub(mask[i]))
    }
    #[inline(always)]
    pub fn counts(counts: Bits) -> [u32; 4] {
        counts
    }
}

/// For each of four lanes, yes or no.
#[derive(Clone, Copy)]
pub struct Mask(lanes::Bits);

impl Mask {
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        Self(lanes::and(self.0, other.0))
    }
    /// Whether any lane says yes.
    #[inline(always)]
    pub fn any(self) -> bool {
        lanes::any(self.0)
    }
    /// Bit i is lane i.
    #[inline(always)]
    pub fn bits(self) -> u8 {
        lanes::bitmask(self.0)
    }
}

impl F32x4 {
    /// Four floats from memory.
    #[inline(always)]
    pub fn load(from: &[f32; 4]) -> Self {
        Self(lanes::load(from))
    }
    /// Lane-wise `self >= other`.
    #[inline(always)]
    pub fn at_least(self, other: Self) -> Mask {
        Mask(lanes::at_least(self.0, other.0))
    }
    /// Lane-wise `self < other`.
    #[inline(always)]
    pub fn below(self, other: Self) -> Mask {
        Mask(lanes::below(self.0, other.0))
    }
    /// Lane-wise `self == other`.
    #[inline(always)]
    pub fn equal(self, other: Self) -> Mask {
        Mask(lanes::equal(self.0, other.0))
    }
    /// `self` · 2^n, where n is the integer in the low bits of each lane of `by`; right as long as
    /// the result is a normal number.
    #[inline(always)]
    pub fn times_power_of_two(self, by: Self) -> Self {
        Self(lanes::scale(self.0, by.0))
    }
    /// `self` where the mask says yes, 0 elsewhere.
    #[inline(always)]
    pub fn only(self, mask: Mask) -> Self {
        Self(lanes::only(self.0, mask.0))
    }
    /// `self` where the mask says yes, `other` elsewhere.
    #[inline(always)]
    pub fn only_or(self, mask: Mask, other: Self) -> Self {
        Self(lanes::choose(self.0, other.0, mask.0))
    }
}

/// Counts of yes, lane by lane.
#[derive(Clone, Copy)]
pub struct Counts(lanes::Bits);

impl Counts {
    pub fn none() -> Self {
        Self(lanes::no_counts())
    }
    #[inline(always)]
    pub fn add(&mut self, mask: Mask) {
        self.0 = lanes::count(self.0, mask.0);
    }
    pub fn total(self) -> usize {
        lanes::counts(self.0).iter().map(|&n| n as usize).sum()
    }
}
