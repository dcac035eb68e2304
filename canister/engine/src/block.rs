//! Products of integer weights with 32 rows at once: the kernel of prompts.
//!
//! A weight that is loaded stays in a local for all rows, so that 8 products take 4 metered
//! instructions and little on top. There is no room in locals for more than 64 pairs of 32 rows, so
//! sums over the inputs of a pass are kept in memory between kernels, `[groups of outputs][rows]`.
//! They are the same integers that `metered` finds for one row, and are added up in f32 in the same
//! order, so that both give the same bits.

use crate::integers::{I16x8, I32x4, Pair};
use crate::kernel::{Weight, passes};
use crate::metered::each;
use crate::simd::F32x4;
use crate::strassen;

/// Groups of four outputs whose sums are worked on at a time.
const PANEL: usize = 256;

/// Rows of a block.
pub const ROWS: usize = 32;

/// out = before + unit · scales · W·x for each row; without `before` it is added to what is in
/// `outs`. Rows of `x` behind the last of `units` are dropped. `sums` is working memory, all zero before and after.
pub fn multiply<'a, W: Weight>(
    x: &[&[Pair]; ROWS],
    units: &[f32],
    weights: &[[W; 8]],
    scales: &[F32x4],
    before: Option<&[F32x4]>,
    outs: impl Iterator<Item = &'a mut [F32x4]>,
    sums: &mut Vec<I32x4>,
) {
    let pairs = x[0].len();
    let groups = weights.len() / pairs;
    sums.resize(PANEL.min(groups) * ROWS, I32x4::zero());
    let mut outs: Vec<_> = outs.collect();
    for first in (0..groups).step_by(PANEL) {
        let panel = first..groups.min(first + PANEL);
        let sums = &mut sums[..panel.len() * ROWS];
        for (start, width) in passes(2 * pairs) {
            let (start, width) = (start / 2, width / 2);
            let weights = &weights[start * groups + first * width..][..panel.len() * width];
            let (taken, kernel) = kernel::<W>(width);
            for at in (0..width).step_by(taken) {
                kernel(x, start + at, &weights[at..], width, sums);
            }
            let before = before.filter(|_| start == 0);
            let before = before.map(|before| &before[panel.clone()]);
            for (row, (out, &unit)) in outs.iter_mut().zip(units).enumerate() {
                let (scales, out) = (&scales[panel.clone()], &mut out[panel.clone()]);
                finish(row, sums, unit, scales, before, out);
            }
            if units.len() < ROWS {
                let groups = sums.as_chunks_mut::<ROWS>().0.iter_mut();
                groups.for_each(|sums| sums[units.len()..].fill(I32x4::zero()));
            }
        }
    }
}

/// Takes one row's sums over a pass, leaves zeros, and adds them up in floats.
fn finish(
    row: usize,
    sums: &mut [I32x4],
    unit: f32,
    scales: &[F32x4],
    before: Option<&[F32x4]>,
    out: &mut [F32x4],
) {
    let unit = F32x4::splat(unit);
    let product = |sums: &mut [I32x4; ROWS], scale: F32x4| {
        let sum = std::mem::replace(&mut sums[row], I32x4::zero());
        sum.to_f32() * scale * unit
    };
    // Groups come in twos, since outputs are padded to eights.
    let sums = sums.as_chunks_mut::<ROWS>().0.as_chunks_mut::<2>().0;
    let (scales, out) = (scales.as_chunks::<2>().0, out.as_chunks_mut::<2>().0);
    let groups = sums.iter_mut().zip(scales).zip(out);
    if let Some(before) = before {
        let before = before.as_chunks::<2>().0;
        for (((sums, scales), out), before) in groups.zip(before) {
            out[0] = before[0] + product(&mut sums[0], scales[0]);
            out[1] = before[1] + product(&mut sums[1], scales[1]);
        }
    } else {
        for ((sums, scales), out) in groups {
            out[0] = out[0] + product(&mut sums[0], scales[0]);
            out[1] = out[1] + product(&mut sums[1], scales[1]);
        }
    }
}

/// A kernel: adds to `sums` the products of its pairs, from `at` on, of all rows.
type Kernel<W> = fn(&[&[Pair]; ROWS], usize, &[[W; 8]], usize, &mut [I32x4]);

/// The kernel for a pass of so many pairs, and how many of them it takes.
fn kernel<W: Weight>(pairs: usize) -> (usize, Kernel<W>) {
    match pairs {
        64.. if strassen::fits::<W>() => (64, strassen::rows_32_pairs_64),
        64.. => (64, pairs_64),
        32.. => (32, pairs_32),
        _ => (4, pairs_4),
    }
}

/// Defines a kernel, unrolled. `weights` begins with the first group's first eight; the next group
/// lies `stride` eights behind it.
macro_rules! block_kernel {
    ($name:ident, $pairs:tt) => {
        #[allow(
            clippy::large_stack_arrays,
            reason = "under WebAssembly the array becomes locals"
        )]
        #[inline(never)]
        fn $name<W: Weight>(
            x: &[&[Pair]; ROWS],
            at: usize,
            weights: &[[W; 8]],
            stride: usize,
            sums: &mut [I32x4],
        ) {
            let mut held = [I16x8::splat([0, 0]); ROWS * $pairs];
            each!(32, 0, row, {
                let Some(x) = x[row][at..].first_chunk::<$pairs>() else {
                    return;
                };
                each!($pairs, 0, i, held[row * $pairs + i] = I16x8::splat(x[i]));
            });
            let (sums, _) = sums.as_chunks_mut::<ROWS>();
            for (w, sums) in weights.chunks(stride).zip(sums) {
                let Some(w) = w.first_chunk::<$pairs>() else {
                    return;
                };
                let mut loaded = [I16x8::splat([0, 0]); $pairs];
                let mut sum = sums[0];
                each!($pairs, 0, i, {
                    loaded[i] = W::widen(&w[i]);
                    sum = sum + loaded[i].dot(held[i]);
                });
                sums[0] = sum;
                each!(31, 1, row, {
                    let mut sum = sums[row];
                    each!(
                        $pairs,
                        0,
                        i,
                        sum = sum + loaded[i].dot(held[row * $pairs + i])
                    );
                    sums[row] = sum;
                });
            }
        }
    };
}

block_kernel!(pairs_64, 64);
block_kernel!(pairs_32, 32);
block_kernel!(pairs_4, 4);
