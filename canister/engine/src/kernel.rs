//! Products of integer weights with rounded rows: how weights lie, and what is computed with them.
//!
//! Outputs lie four by four, inputs in pairs, `[4 outputs][2 inputs]` being the eight lanes of one
//! product, so that no horizontal sum is needed. Inputs are cut into passes of 768, 256, 64 and 8:
//! `[pass][groups of outputs][pairs of the pass]`. The sum of a pass is exact in 32 bits, in any
//! order; passes are added up in f32, one after the other. So all kernels give the same bits: those of
//! `metered`, `block` and `strassen`, which take few metered instructions, and those of `clock`, which
//! take little time.

use crate::integers::{I16x8, Pair};
use crate::simd::{F32x4, padded};

/// Inputs of the passes, widest first. The last one divides what every buffer is padded to.
pub const PASSES: [usize; 4] = [768, 256, 64, 8];

/// A weight type: eight of them are one vector's worth.
pub trait Weight: Copy + Default {
    /// The largest magnitude that is used.
    const LARGEST: f32;
    /// The low bits of an integer that fits.
    fn from_low_bits(bits: u32) -> Self;
    fn to_f32(self) -> f32;
    fn magnitude(self) -> u32;
    fn widen(from: &[Self; 8]) -> I16x8;
}

impl Weight for i8 {
    const LARGEST: f32 = 127.0;
    #[inline(always)]
    fn from_low_bits(bits: u32) -> Self {
        bits as i8
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    fn magnitude(self) -> u32 {
        self.unsigned_abs().into()
    }
    #[inline(always)]
    fn widen(from: &[Self; 8]) -> I16x8 {
        I16x8::widen(from)
    }
}

impl Weight for i16 {
    const LARGEST: f32 = 32767.0;
    #[inline(always)]
    fn from_low_bits(bits: u32) -> Self {
        bits as i16
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    fn magnitude(self) -> u32 {
        self.unsigned_abs().into()
    }
    #[inline(always)]
    fn widen(from: &[Self; 8]) -> I16x8 {
        I16x8::load(from)
    }
}

/// out = before + unit · scales · W·x for a packed matrix, whose inputs are the pairs of `x`.
/// Without `before` it is added to what is in `out`. The matrix may have more outputs than `out`;
/// the others are left out.
pub fn multiply<W: Weight>(
    x: &[Pair],
    unit: f32,
    weights: &[[W; 8]],
    scales: &[F32x4],
    before: Option<&[F32x4]>,
    out: &mut [F32x4],
) {
    #[cfg(feature = "clock")]
    crate::clock::multiply(&[x], &[unit], weights, scales, before, &mut [out]);
    #[cfg(not(feature = "clock"))]
    crate::metered::multiply_rows([x], [unit], weights, scales, before, [out]);
}

/// First input and width of each pass over `n_in` inputs.
pub fn passes(n_in: usize) -> impl Iterator<Item = (usize, usize)> {
    let (n_in, mut start) = (padded(n_in), 0);
    std::iter::from_fn(move || {
        let width = PASSES.into_iter().find(|&width| start + width <= n_in)?;
        start += width;
        Some((start - width, width))
    })
}
