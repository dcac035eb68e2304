//! Products of integer weights with several rows at once: the kernel of prompts and of batches.
//!
//! A weight that is loaded stays in a local for all rows, so that a product takes 4 metered
//! instructions for 8 multiplications and little on top: 32 rows hold 64 pairs each in locals, fewer
//! rows more of them. Sums over the inputs of a pass are kept in memory between kernels,
//! `[groups of outputs][rows]`. They are the same integers that `kernel` finds for one row, and are
//! added up in f32 in the same order, so that both give the same bits.

use crate::integers::{I16x8, I32x4, Pair};
use crate::kernel::{Weight, each, passes};
use crate::simd::F32x4;

/// Groups of four outputs whose sums are worked on at a time.
const PANEL: usize = 256;

/// With how many rows a kernel goes on when so many are left: the kernel's rows, which may be more.
/// Below four, a row alone is as cheap.
pub fn rows_of(left: usize) -> usize {
    match left {
        30.. => 32,
        7.. => 8,
        4.. => 4,
        _ => 1,
    }
}

/// out = before + unit · scales · W·x for each row; without `before` it is added to what is in
/// `outs`. `x` has as many rows as a kernel (see `rows_of`); those behind the last of `units` are
/// dropped. `sums` is working memory, all zero before and after.
pub fn multiply<'a, W: Weight>(
    x: &[&[Pair]],
    units: &[f32],
    weights: &[[W; 8]],
    scales: &[F32x4],
    before: Option<&[F32x4]>,
    outs: impl Iterator<Item = &'a mut [F32x4]>,
    sums: &mut Vec<I32x4>,
) {
    let (rows, pairs) = (x.len(), x[0].len());
    let groups = weights.len() / pairs;
    sums.resize(PANEL.min(groups) * rows, I32x4::zero());
    let mut outs: Vec<_> = outs.collect();
    for first in (0..groups).step_by(PANEL) {
        let panel = first..groups.min(first + PANEL);
        let sums = &mut sums[..panel.len() * rows];
        for (start, width) in passes(2 * pairs) {
            let (start, width) = (start / 2, width / 2);
            let weights = &weights[start * groups + first * width..][..panel.len() * width];
            let (taken, kernel) = kernel::<W>(rows, width);
            for at in (0..width).step_by(taken) {
                kernel(x, start + at, &weights[at..], width, sums);
            }
            let before = before.filter(|_| start == 0);
            let before = before.map(|before| &before[panel.clone()]);
            for (row, (out, &unit)) in outs.iter_mut().zip(units).enumerate() {
                let (scales, out) = (&scales[panel.clone()], &mut out[panel.clone()]);
                finish(&sums[row..], rows, unit, scales, before, out);
            }
            sums.fill(I32x4::zero());
        }
    }
}

/// One row's sums over a pass, on their way to floats.
fn finish(
    sums: &[I32x4],
    rows: usize,
    unit: f32,
    scales: &[F32x4],
    before: Option<&[F32x4]>,
    out: &mut [F32x4],
) {
    let unit = F32x4::splat(unit);
    let products = sums.iter().step_by(rows).zip(scales);
    let products = products.map(|(sum, &scale)| sum.to_f32() * scale * unit);
    match before {
        Some(before) => {
            for ((out, product), &before) in out.iter_mut().zip(products).zip(before) {
                *out = before + product;
            }
        }
        None => {
            for (out, product) in out.iter_mut().zip(products) {
                *out = *out + product;
            }
        }
    }
}

/// A kernel: adds to `sums` the products of its pairs, from `at` on, of all rows.
type Kernel<W> = fn(&[&[Pair]], usize, &[[W; 8]], usize, &mut [I32x4]);

/// The kernel for so many rows in a pass of so many pairs, and how many pairs it takes.
fn kernel<W: Weight>(rows: usize, pairs: usize) -> (usize, Kernel<W>) {
    match (rows, pairs) {
        (32, 64..) => (64, rows_32_pairs_64),
        (32, 32..) => (32, rows_32_pairs_32),
        (32, _) => (4, rows_32_pairs_4),
        (8, 128..) => (128, rows_8_pairs_128),
        (8, 32..) => (32, rows_8_pairs_32),
        (8, _) => (4, rows_8_pairs_4),
        (_, 128..) => (128, rows_4_pairs_128),
        (_, 32..) => (32, rows_4_pairs_32),
        (_, _) => (4, rows_4_pairs_4),
    }
}

/// Defines a kernel, unrolled. `weights` begins with the first group's first eight; the next group
/// lies `stride` eights behind it.
macro_rules! block_kernel {
    ($name:ident, $rows:tt, $others:tt, $pairs:tt) => {
        #[inline(never)]
        fn $name<W: Weight>(
            x: &[&[Pair]],
            at: usize,
            weights: &[[W; 8]],
            stride: usize,
            sums: &mut [I32x4],
        ) {
            let mut held = [I16x8::splat([0, 0]); $rows * $pairs];
            each!($rows, 0, row, {
                let Some(x) = x.get(row).and_then(|x| x[at..].first_chunk::<$pairs>()) else {
                    return;
                };
                each!($pairs, 0, i, held[row * $pairs + i] = I16x8::splat(x[i]));
            });
            let (sums, _) = sums.as_chunks_mut::<$rows>();
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
                each!($others, 1, row, {
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

block_kernel!(rows_32_pairs_64, 32, 31, 64);
block_kernel!(rows_32_pairs_32, 32, 31, 32);
block_kernel!(rows_32_pairs_4, 32, 31, 4);
block_kernel!(rows_8_pairs_128, 8, 7, 128);
block_kernel!(rows_8_pairs_32, 8, 7, 32);
block_kernel!(rows_8_pairs_4, 8, 7, 4);
block_kernel!(rows_4_pairs_128, 4, 3, 128);
block_kernel!(rows_4_pairs_32, 4, 3, 32);
block_kernel!(rows_4_pairs_4, 4, 3, 4);
