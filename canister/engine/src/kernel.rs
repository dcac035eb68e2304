//! Products of integer weights with one row: the kernel of decoding and of attention.
//!
//! Outputs lie four by four, inputs in pairs, `[4 outputs][2 inputs]` being the eight lanes of one
//! product, so that no horizontal sum is needed. Inputs are cut into passes of 768, 256, 64 and 8:
//! `[pass][groups of outputs][pairs of the pass]`. In a pass the splatted pairs stay in locals while
//! the weights stream by in one unrolled chain of 5 metered instructions for 8 products; its sum is
//! exact in 32 bits and is added up in f32 over the passes. `block` does the same for several rows.

use crate::integers::{I16x8, I32x4, Pair};
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
    let groups = weights.len() / x.len();
    for (start, width) in passes(x.len() * 2) {
        let weights = &weights[start / 2 * groups..][..width / 2 * groups];
        let x = &x[start / 2..][..width / 2];
        match before {
            Some(before) if start == 0 => {
                run_pass::<W, true>(x, unit, weights, scales, before, out);
            }
            _ => run_pass::<W, false>(x, unit, weights, scales, scales, out),
        }
    }
}

/// One pass. `before` is read only when it is the `FIRST`.
fn run_pass<W: Weight, const FIRST: bool>(
    x: &[Pair],
    unit: f32,
    weights: &[[W; 8]],
    scales: &[F32x4],
    before: &[F32x4],
    out: &mut [F32x4],
) {
    match x.len() * 2 {
        768 => accumulate_768::<W, FIRST>(x, unit, weights, scales, before, out),
        256 => accumulate_256::<W, FIRST>(x, unit, weights, scales, before, out),
        64 => accumulate_64::<W, FIRST>(x, unit, weights, scales, before, out),
        _ => accumulate_8::<W, FIRST>(x, unit, weights, scales, before, out),
    }
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

/// Runs `$do` for every `$i` from `$from` on, so often: written out under WebAssembly, where a
/// kernel's numbers must become locals and immediate offsets; as a loop elsewhere.
#[cfg(target_arch = "wasm32")]
macro_rules! each {
    (1, $from:expr, $i:ident, $do:expr) => {{
        let $i = $from;
        $do;
    }};
    (2, $from:expr, $i:ident, $do:expr) => {
        each!(1, $from, $i, $do);
        each!(1, $from + 1, $i, $do);
    };
    (3, $from:expr, $i:ident, $do:expr) => {
        each!(2, $from, $i, $do);
        each!(1, $from + 2, $i, $do);
    };
    (4, $from:expr, $i:ident, $do:expr) => {
        each!(2, $from, $i, $do);
        each!(2, $from + 2, $i, $do);
    };
    (7, $from:expr, $i:ident, $do:expr) => {
        each!(4, $from, $i, $do);
        each!(3, $from + 4, $i, $do);
    };
    (8, $from:expr, $i:ident, $do:expr) => {
        each!(4, $from, $i, $do);
        each!(4, $from + 4, $i, $do);
    };
    (31, $from:expr, $i:ident, $do:expr) => {
        each!(8, $from, $i, $do);
        each!(8, $from + 8, $i, $do);
        each!(8, $from + 16, $i, $do);
        each!(7, $from + 24, $i, $do);
    };
    (32, $from:expr, $i:ident, $do:expr) => {
        each!(8, $from, $i, $do);
        each!(8, $from + 8, $i, $do);
        each!(8, $from + 16, $i, $do);
        each!(8, $from + 24, $i, $do);
    };
    (64, $from:expr, $i:ident, $do:expr) => {
        each!(32, $from, $i, $do);
        each!(32, $from + 32, $i, $do);
    };
    (128, $from:expr, $i:ident, $do:expr) => {
        each!(64, $from, $i, $do);
        each!(64, $from + 64, $i, $do);
    };
    (384, $from:expr, $i:ident, $do:expr) => {
        each!(128, $from, $i, $do);
        each!(128, $from + 128, $i, $do);
        each!(128, $from + 256, $i, $do);
    };
}
#[cfg(not(target_arch = "wasm32"))]
macro_rules! each {
    ($times:tt, $from:expr, $i:ident, $do:expr) => {
        for $i in $from..$from + $times {
            $do;
        }
    };
}
pub(crate) use each;

/// Defines `out[g] = before[g] + unit · scales[g] · Σ_k weights[g][k] · x[k]` for one pass, unrolled. Kept out
/// of line, so that its locals are set up only where they are needed.
macro_rules! pass_kernel {
    ($name:ident, $pairs:tt) => {
        #[inline(never)]
        fn $name<W: Weight, const FIRST: bool>(
            x: &[Pair],
            unit: f32,
            weights: &[[W; 8]],
            scales: &[F32x4],
            before: &[F32x4],
            out: &mut [F32x4],
        ) {
            let Some(x) = x.first_chunk::<$pairs>() else {
                return;
            };
            let mut held = [I16x8::splat([0, 0]); $pairs];
            each!($pairs, 0, i, held[i] = I16x8::splat(x[i]));
            let unit = F32x4::splat(unit);
            let (weights, _) = weights.as_chunks::<$pairs>();
            let starts = scales.iter().zip(before);
            for ((w, (&scale, &before)), out) in weights.iter().zip(starts).zip(out) {
                let mut sum = I32x4::zero();
                each!($pairs, 0, i, sum = sum + W::widen(&w[i]).dot(held[i]));
                let before = if FIRST { before } else { *out };
                *out = before + sum.to_f32() * scale * unit;
            }
        }
    };
}

pass_kernel!(accumulate_768, 384);
pass_kernel!(accumulate_256, 128);
pass_kernel!(accumulate_64, 32);
pass_kernel!(accumulate_8, 4);
