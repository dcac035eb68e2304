//! The kernels of decoding and attention under the platform's meter: one, four or eight rows.
//!
//! In a pass the splatted pairs stay in locals while the weights stream by in one unrolled chain of 5
//! metered instructions for 8 products; its sum is exact in 32 bits and is added up in f32 over the
//! passes. Of several rows only the first loads the weights; the others find them in locals, at 4
//! instructions for 8 products, and `strassen` saves an eighth of those. A row's result is the same to
//! the bit with any number of rows, those of `block` included.

use crate::integers::{I16x8, I32x4, Pair};
use crate::kernel::{Weight, passes};
use crate::simd::F32x4;
use crate::strassen;

/// out = before + unit · scales · W·x for rows of one length, 1, 4 or 8 of them: `kernel::multiply`
/// for each.
pub fn multiply_rows<W: Weight, const ROWS: usize>(
    x: [&[Pair]; ROWS],
    units: [f32; ROWS],
    weights: &[[W; 8]],
    scales: &[F32x4],
    before: Option<&[F32x4]>,
    mut outs: [&mut [F32x4]; ROWS],
) {
    let pairs = x[0].len();
    let groups = weights.len() / pairs;
    for (start, width) in passes(pairs * 2) {
        let weights = &weights[start / 2 * groups..][..width / 2 * groups];
        let x = x.map(|x| &x[start / 2..][..width / 2]);
        let pass = Pass {
            x: &x,
            units: &units,
            weights,
            scales,
        };
        let before = before.filter(|_| start == 0);
        match (ROWS, width / 2, before) {
            (1, 384, None) => row_pairs_384::<_, false>(&pass, before, &mut outs),
            (1, 384, _) => row_pairs_384::<_, true>(&pass, before, &mut outs),
            (1, 128, None) => row_pairs_128::<_, false>(&pass, before, &mut outs),
            (1, 128, _) => row_pairs_128::<_, true>(&pass, before, &mut outs),
            (1, 32, None) => row_pairs_32::<_, false>(&pass, before, &mut outs),
            (1, 32, _) => row_pairs_32::<_, true>(&pass, before, &mut outs),
            (1, _, None) => row_pairs_4::<_, false>(&pass, before, &mut outs),
            (1, _, _) => row_pairs_4::<_, true>(&pass, before, &mut outs),
            (4, 384, _) => rows_4_pairs_384::<_, false>(&pass, before, &mut outs),
            (4, 128, _) => rows_4_pairs_128::<_, false>(&pass, before, &mut outs),
            (4, 32, _) => rows_4_pairs_32::<_, false>(&pass, before, &mut outs),
            (4, _, _) => rows_4_pairs_4::<_, false>(&pass, before, &mut outs),
            (_, 384, None) if strassen::fits::<W>() => {
                strassen::rows_8_pairs_384::<_, false>(&pass, before, &mut outs);
            }
            (_, 384, _) if strassen::fits::<W>() => {
                strassen::rows_8_pairs_384::<_, true>(&pass, before, &mut outs);
            }
            (_, 128, None) if strassen::fits::<W>() => {
                strassen::rows_8_pairs_128::<_, false>(&pass, before, &mut outs);
            }
            (_, 128, _) if strassen::fits::<W>() => {
                strassen::rows_8_pairs_128::<_, true>(&pass, before, &mut outs);
            }
            (_, 384, _) => rows_8_pairs_384::<_, false>(&pass, before, &mut outs),
            (_, 128, _) => rows_8_pairs_128::<_, false>(&pass, before, &mut outs),
            (_, 32, _) => rows_8_pairs_32::<_, false>(&pass, before, &mut outs),
            (_, _, _) => rows_8_pairs_4::<_, false>(&pass, before, &mut outs),
        }
    }
}

/// What goes into one pass.
pub struct Pass<'a, W> {
    pub x: &'a [&'a [Pair]],
    pub units: &'a [f32],
    pub weights: &'a [[W; 8]],
    pub scales: &'a [F32x4],
}

/// Runs `$do` for every `$i` from `$from` on, so often: written out under WebAssembly, where a
/// kernel's numbers must become locals and immediate offsets; as a loop elsewhere.
#[cfg(target_arch = "wasm32")]
macro_rules! each {
    (0, $from:expr, $i:ident, $do:expr) => {};
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
    (16, $from:expr, $i:ident, $do:expr) => {
        each!(8, $from, $i, $do);
        each!(8, $from + 8, $i, $do);
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
    (192, $from:expr, $i:ident, $do:expr) => {
        each!(64, $from, $i, $do);
        each!(128, $from + 64, $i, $do);
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
        for $i in ($from..).take($times) {
            $do;
        }
    };
}
pub(crate) use each;

/// Defines `out[g] = before[g] + unit · scales[g] · Σ_k weights[g][k] · x[k]` for one pass and some
/// rows, unrolled. Kept out of line, so that its locals are set up only where they are needed. A
/// single row's kernel is made twice, for passes that are the `FIRST` and start from `before`; with
/// more rows, whose code is long, that is asked when it runs. `$groups` groups of outputs, which
/// divide every padded length, share the work around their products.
macro_rules! pass_kernel {
    ($name:ident, $rows:tt, $others:tt, $pairs:tt, $groups:tt) => {
        #[allow(
            clippy::large_stack_arrays,
            reason = "under WebAssembly the array becomes locals"
        )]
        #[inline(never)]
        fn $name<W: Weight, const FIRST: bool>(
            pass: &Pass<W>,
            before: Option<&[F32x4]>,
            outs: &mut [&mut [F32x4]],
        ) {
            let (Some(outs), Some(x), Some(units)) = (
                outs.first_chunk_mut::<$rows>(),
                pass.x.first_chunk::<$rows>(),
                pass.units.first_chunk::<$rows>(),
            ) else {
                return;
            };
            let mut held = [I16x8::splat([0, 0]); $rows * $pairs];
            each!($rows, 0, row, {
                let Some(x) = x[row].first_chunk::<$pairs>() else {
                    return;
                };
                each!($pairs, 0, i, held[row * $pairs + i] = I16x8::splat(x[i]));
            });
            let units = units.map(F32x4::splat);
            // Equal lengths, so that one check of the index does for all.
            let outs = outs.each_mut().map(|out| out.as_chunks_mut::<$groups>().0);
            let count = outs[0].len();
            each!($others, 1, row, {
                if outs[row].len() != count {
                    return;
                }
            });
            let weights = &pass.weights.as_chunks::<{ $pairs * $groups }>().0[..count];
            let scales = &pass.scales.as_chunks::<$groups>().0[..count];
            let first = before.is_some();
            let before = before.map_or(scales, |before| &before.as_chunks::<$groups>().0[..count]);
            for at in 0..count {
                let (w, scales, before) = (&weights[at], &scales[at], &before[at]);
                each!($groups, 0, g, {
                    let mut loaded = [I16x8::splat([0, 0]); $pairs];
                    let mut sum = I32x4::zero();
                    each!($pairs, 0, i, {
                        loaded[i] = W::widen(&w[g * $pairs + i]);
                        sum = sum + loaded[i].dot(held[i]);
                    });
                    let start = |out: F32x4| {
                        if FIRST || $rows > 1 && first {
                            before[g]
                        } else {
                            out
                        }
                    };
                    let out = &mut outs[0][at][g];
                    *out = start(*out) + sum.to_f32() * scales[g] * units[0];
                    each!($others, 1, row, {
                        let mut sum = I32x4::zero();
                        each!(
                            $pairs,
                            0,
                            i,
                            sum = sum + loaded[i].dot(held[row * $pairs + i])
                        );
                        let out = &mut outs[row][at][g];
                        *out = start(*out) + sum.to_f32() * scales[g] * units[row];
                    });
                });
            }
        }
    };
}

pass_kernel!(row_pairs_384, 1, 0, 384, 2);
pass_kernel!(row_pairs_128, 1, 0, 128, 2);
pass_kernel!(row_pairs_32, 1, 0, 32, 2);
pass_kernel!(row_pairs_4, 1, 0, 4, 2);
pass_kernel!(rows_4_pairs_384, 4, 3, 384, 2);
pass_kernel!(rows_4_pairs_128, 4, 3, 128, 2);
pass_kernel!(rows_4_pairs_32, 4, 3, 32, 2);
pass_kernel!(rows_4_pairs_4, 4, 3, 4, 2);
pass_kernel!(rows_8_pairs_384, 8, 7, 384, 2);
pass_kernel!(rows_8_pairs_128, 8, 7, 128, 2);
pass_kernel!(rows_8_pairs_32, 8, 7, 32, 2);
pass_kernel!(rows_8_pairs_4, 8, 7, 4, 2);
