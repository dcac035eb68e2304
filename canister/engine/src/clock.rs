//! The products of `metered`, `block` and `strassen` for a clock instead of a meter.
//!
//! On a processor a long unrolled chain costs the decoding of each of its instructions, so here small
//! loops run over the pairs, with eight sums in registers: of one row and eight groups of outputs, of
//! two rows and four, or of four and two. Inputs are splatted once for all groups. Groups that are
//! worked on together lie far apart, each in its own part of the matrix, so that memory is read in
//! long streams; the processor sees those coming, and one row takes little longer than reading the
//! weights does. Sums of a pass are exact integers, and passes are added up in floats in the order that
//! `kernel` has, so a row's bits are the same.

use std::cell::RefCell;
use std::ops::Range;

use crate::integers::{I16x8, I32x4, Pair};
use crate::kernel::{Weight, passes};
use crate::simd::F32x4;

/// Groups of outputs that all rows are taken through before the next ones, so that their weights
/// are read from memory once: a quarter of a megabyte in 8 bits.
const PANEL: usize = 64;

thread_local! {
    /// The splatted inputs of a pass: for each set of rows `[pairs][rows]`.
    static HELD: RefCell<Vec<I16x8>> = const { RefCell::new(Vec::new()) };
}

/// out = before + unit · scales · W·x for each row; without `before` it is added to what is in
/// `outs`. The matrix may have more outputs than `outs`; the others are left out.
pub fn multiply<W: Weight>(
    x: &[&[Pair]],
    units: &[f32],
    weights: &[[W; 8]],
    scales: &[F32x4],
    before: Option<&[F32x4]>,
    outs: &mut [&mut [F32x4]],
) {
    let (pairs, count) = (x[0].len(), outs[0].len());
    let groups = weights.len() / pairs;
    let panel = if x.len() > 4 { PANEL } else { count.max(1) };
    let mut held = HELD.take();
    for (start, width) in passes(pairs * 2) {
        let (start, pairs) = (start / 2, width / 2);
        splat(x, start..start + pairs, &mut held);
        let pass = Pass {
            pairs,
            weights: &weights[start * groups..][..pairs * groups],
            scales,
            before: before.filter(|_| start == 0),
        };
        for first in (0..count).step_by(panel) {
            let panel = first..count.min(first + panel);
            for rows in sets(x.len()) {
                let x = &held[rows.start * pairs..rows.end * pairs];
                let (units, outs) = (&units[rows.clone()], &mut outs[rows.clone()]);
                match rows.len() {
                    4 => pass.streams::<4, 2>(x, units, panel.clone(), outs),
                    2 => pass.streams::<2, 4>(x, units, panel.clone(), outs),
                    _ => pass.streams::<1, 8>(x, units, panel.clone(), outs),
                }
            }
        }
    }
    HELD.set(held);
}

/// The sets that rows are worked on in: of four, then of two and one.
fn sets(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let size = [4, 2, 1].into_iter().find(|size| start + size <= rows)?;
        start += size;
        Some(start - size..start)
    })
}

fn splat(x: &[&[Pair]], pairs: Range<usize>, held: &mut Vec<I16x8>) {
    let length = pairs.len();
    held.resize(x.len() * length, I16x8::splat([0, 0]));
    for rows in sets(x.len()) {
        let held = &mut held[rows.start * length..rows.end * length];
        for (row, x) in x[rows.clone()].iter().enumerate() {
            let held = held[row..].iter_mut().step_by(rows.len());
            for (held, &pair) in held.zip(&x[pairs.clone()]) {
                *held = I16x8::splat(pair);
            }
        }
    }
}

/// One pass over a matrix.
struct Pass<'a, W> {
    pairs: usize,
    weights: &'a [[W; 8]],
    scales: &'a [F32x4],
    before: Option<&'a [F32x4]>,
}

impl<W: Weight> Pass<'_, W> {
    /// A set of rows over some groups of outputs, `GROUPS` at once.
    #[inline(never)]
    fn streams<const ROWS: usize, const GROUPS: usize>(
        &self,
        x: &[I16x8],
        units: &[f32],
        groups: Range<usize>,
        outs: &mut [&mut [F32x4]],
    ) {
        let length = groups.len() / GROUPS;
        for i in groups.start..groups.start + length {
            let groups = std::array::from_fn(|g| i + g * length);
            self.tile::<ROWS, GROUPS>(x, units, groups, outs);
        }
        for i in groups.start + length * GROUPS..groups.end {
            self.tile::<ROWS, 1>(x, units, [i], outs);
        }
    }

    #[inline(always)]
    fn tile<const ROWS: usize, const GROUPS: usize>(
        &self,
        x: &[I16x8],
        units: &[f32],
        groups: [usize; GROUPS],
        outs: &mut [&mut [F32x4]],
    ) {
        let weights = groups.map(|g| &self.weights[g * self.pairs..][..self.pairs]);
        let sums = sums::<W, ROWS, GROUPS>(x, weights);
        for (row, sums) in sums.into_iter().enumerate() {
            let unit = F32x4::splat(units[row]);
            for (sum, g) in sums.into_iter().zip(groups) {
                let out = &mut outs[row][g];
                let start = self.before.map_or(*out, |before| before[g]);
                *out = start + sum.to_f32() * self.scales[g] * unit;
            }
        }
    }
}

/// Σ weights · x for each row and group.
#[inline(always)]
fn sums<W: Weight, const ROWS: usize, const GROUPS: usize>(
    x: &[I16x8],
    weights: [&[[W; 8]]; GROUPS],
) -> [[I32x4; GROUPS]; ROWS] {
    let mut sums = [[I32x4::zero(); GROUPS]; ROWS];
    let x = x.as_chunks::<ROWS>().0;
    // Equal lengths, so that one check of the index does for all.
    let weights = weights.map(|weights| &weights[..x.len()]);
    for (i, x) in x.iter().enumerate() {
        let weights = weights.map(|weights| W::widen(&weights[i]));
        for (sums, &x) in sums.iter_mut().zip(x) {
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = *sum + weight.dot(x);
            }
        }
    }
    sums
}
