//! Quantising a matrix: a scale for each output, and weights in the order of the kernels.

use crate::integers::ROUND;
use crate::kernel::{PASSES, Weight, passes};
use crate::quantised::{ACTIVATION, Quantised};
use crate::simd::{floats, floats_mut, padded, zeros};

/// What the magnitudes of an output's weights in one pass may sum up to.
pub const PASS_SUM: u32 = i32::MAX as u32 / ACTIVATION as u32;

/// A matrix being packed. Rows of outputs may come at any time; of a matrix that comes by inputs,
/// all rows are first seen by `scan`. Or rows of outputs come once for each pass, in order; then what
/// is packed is in order too, and can be taken at any time.
pub struct Packing<W> {
    matrix: Quantised<W>,
    /// The pass that is packed now, where it is one at a time.
    pass: Option<usize>,
    /// For each output: the largest magnitude, and the sum of magnitudes in this pass and in the
    /// pass where it is highest.
    extremes: Vec<Extreme>,
}

#[derive(Clone, Copy, Default)]
struct Extreme {
    largest: f32,
    sum: f32,
    highest_sum: f32,
}

impl Extreme {
    fn end_pass(&mut self) {
        if self.highest_sum < self.sum {
            self.highest_sum = self.sum;
        }
        self.sum = 0.0;
    }

    fn add(&mut self, weight: f32) {
        let size = weight.abs();
        if self.largest < size {
            self.largest = size;
        }
        self.sum += size;
    }

    /// The scale at which no weight is above `LARGEST` and no pass above `PASS_SUM`. Rounding adds
    /// at most a half to each weight, and the sum in f32 is right to 1 in 10,000.
    fn scale<W: Weight>(&self) -> f32 {
        let allowed = PASS_SUM as f32 - PASSES[0] as f32 / 2.0;
        let for_sum = self.highest_sum * 1.0001 / allowed;
        let for_largest = self.largest / W::LARGEST;
        if for_sum < for_largest {
            for_largest
        } else {
            for_sum
        }
    }
}

impl<W: Weight> Packing<W> {
    /// None when memory is short.
    pub fn new(n_in: usize, n_out: usize) -> Option<Self> {
        let mut weights = Vec::new();
        let len = padded(n_in) * padded(n_out) / 8;
        weights.try_reserve_exact(len).ok()?;
        weights.resize(len, [W::default(); 8]);
        Some(Self {
            matrix: Quantised {
                n_in,
                n_out,
                weights,
                scales: zeros(n_out),
                bias: zeros(n_out),
            },
            pass: None,
            extremes: Vec::new(),
        })
    }

    /// For rows of outputs that come once for each pass.
    pub fn by_passes(n_in: usize, n_out: usize) -> Self {
        Self {
            matrix: Quantised {
                n_in,
                n_out,
                weights: Vec::new(),
                scales: zeros(n_out),
                bias: zeros(n_out),
            },
            pass: Some(0),
            extremes: Vec::new(),
        }
    }

    /// Whether all rows have to come once more.
    pub fn next_pass(&mut self) -> bool {
        self.pass.as_mut().is_some_and(|pass| {
            *pass += 1;
            passes(self.matrix.n_in).nth(*pass).is_some()
        })
    }

    /// Whether rows come for the first time.
    pub fn is_first_pass(&self) -> bool {
        matches!(self.pass, None | Some(0))
    }

    /// What is packed so far, where that is in order.
    pub fn take(&mut self) -> Option<Vec<[W; 8]>> {
        self.pass?;
        Some(std::mem::take(&mut self.matrix.weights))
    }

    /// Looks at consecutive inputs' rows of a `[n_in][n_out]` matrix, from the first row on.
    pub fn scan(&mut self, rows: &[f32], first: usize) {
        let Quantised { n_in, n_out, .. } = self.matrix;
        self.extremes.resize(n_out, Extreme::default());
        for (k, row) in (first..).zip(rows.chunks_exact(n_out)) {
            if passes(n_in).any(|(start, _)| start == k) {
                self.extremes.iter_mut().for_each(Extreme::end_pass);
            }
            for (extreme, &weight) in self.extremes.iter_mut().zip(row) {
                extreme.add(weight);
            }
        }
        if first + rows.len() / n_out == n_in {
            let scales = floats_mut(&mut self.matrix.scales).iter_mut();
            for (scale, extreme) in scales.zip(&mut self.extremes) {
                extreme.end_pass();
                *scale = extreme.scale::<W>();
            }
        }
    }

    /// Packs consecutive inputs' rows of a `[n_in][n_out]` matrix that was scanned.
    pub fn pack_inputs(&mut self, rows: &[f32], first: usize) {
        let Quantised { n_in, n_out, .. } = self.matrix;
        let groups = padded(n_out) / 4;
        for (k, row) in (first..).zip(rows.chunks_exact(n_out)) {
            let Some((start, width)) = passes(n_in).find(|&(start, width)| k < start + width)
            else {
                return;
            };
            let pair = start / 2 * groups + (k - start) / 2;
            let scales = floats(&self.matrix.scales).chunks(4);
            let eights = self.matrix.weights[pair..].iter_mut().step_by(width / 2);
            for ((eight, four), scales) in eights.zip(row.chunks(4)).zip(scales) {
                for (lane, (&weight, &scale)) in four.iter().zip(scales).enumerate() {
                    eight[lane * 2 + k % 2] = rounded(weight, inverse(scale));
                }
            }
        }
    }

    /// Packs the rows of consecutive outputs of a `[n_out][n_in]` matrix (an embedding).
    pub fn pack_outputs(&mut self, rows: &[f32], first: usize) {
        if let Some(pass) = self.pass {
            return self.pack_pass(rows, first, pass);
        }
        let Quantised { n_in, n_out, .. } = self.matrix;
        let groups = padded(n_out) / 4;
        for (o, row) in (first..).zip(rows.chunks_exact(n_in)) {
            let scale = scale_of::<W>(row);
            floats_mut(&mut self.matrix.scales)[o] = scale;
            for (start, width) in passes(n_in) {
                let at = start / 2 * groups + o / 4 * (width / 2);
                let eights = &mut self.matrix.weights[at..at + width / 2];
                pack_row(&row[start..], o, inverse(scale), eights);
            }
        }
    }

    /// The same for one pass; `first` is a multiple of 4.
    fn pack_pass(&mut self, rows: &[f32], first: usize, pass: usize) {
        let Quantised { n_in, n_out, .. } = self.matrix;
        let Some((start, width)) = passes(n_in).nth(pass) else {
            return;
        };
        let count = rows.len() / n_in;
        let last = first + count == n_out;
        let end = if last { padded(n_out) } else { first + count };
        let before = self.matrix.weights.len();
        let len = before + (end - first).div_ceil(4) * (width / 2);
        self.matrix.weights.resize(len, [W::default(); 8]);
        for (o, row) in (first..).zip(rows.chunks_exact(n_in)) {
            let scale = &mut floats_mut(&mut self.matrix.scales)[o];
            if pass == 0 {
                *scale = scale_of::<W>(row);
            }
            let inverse = inverse(*scale);
            let at = before + (o - first) / 4 * (width / 2);
            let eights = &mut self.matrix.weights[at..at + width / 2];
            pack_row(&row[start..], o, inverse, eights);
        }
    }

    pub fn finish(self) -> Quantised<W> {
        self.matrix
    }
}

/// The scale of an output with these weights.
fn scale_of<W: Weight>(row: &[f32]) -> f32 {
    let mut extreme = Extreme::default();
    for (start, width) in passes(row.len()) {
        for &weight in &row[start..row.len().min(start + width)] {
            extreme.add(weight);
        }
        extreme.end_pass();
    }
    extreme.scale::<W>()
}

/// Rounds the weights of output `o` in one pass into their lanes.
fn pack_row<W: Weight>(weights: &[f32], o: usize, inverse: f32, eights: &mut [[W; 8]]) {
    for (eight, pair) in eights.iter_mut().zip(weights.chunks(2)) {
        for (i, &weight) in pair.iter().enumerate() {
            eight[o % 4 * 2 + i] = rounded(weight, inverse);
        }
    }
}

/// 1 / scale, or zero where that would not be finite: such weights are all as good as zero.
fn inverse(scale: f32) -> f32 {
    if scale < 1e-36 { 0.0 } else { 1.0 / scale }
}

fn rounded<W: Weight>(weight: f32, inverse: f32) -> W {
    W::from_low_bits((weight * inverse + ROUND).to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(i: usize) -> f32 {
        ((i * 2_654_435_761) % 1_009) as f32 / 400.0 - 1.25
    }

    /// The rows of a matrix, several pieces and a rest, in both ways.
    fn packed<W: Weight + PartialEq + std::fmt::Debug>(n_in: usize, n_out: usize) {
        let rows: Vec<f32> = (0..n_in * n_out).map(weight).collect();
        let pieces = || (0..).step_by(256).zip(rows.chunks(256 * n_in));
        let mut whole = Packing::<W>::new(n_in, n_out).unwrap();
        for (first, piece) in pieces() {
            whole.pack_outputs(piece, first);
        }
        assert!(whole.take().is_none() && whole.is_first_pass() && !whole.next_pass());
        let mut passing = Packing::<W>::by_passes(n_in, n_out);
        let mut weights = Vec::new();
        loop {
            for (first, piece) in pieces() {
                passing.pack_outputs(piece, first);
                weights.extend(passing.take().unwrap());
            }
            if !passing.next_pass() {
                break;
            }
            assert!(!passing.is_first_pass());
        }
        let (whole, passing) = (whole.finish(), passing.finish());
        assert!(passing.weights.is_empty());
        assert_eq!(whole.weights, weights, "{n_in} by {n_out}");
        assert_eq!(floats(&whole.scales), floats(&passing.scales));
    }

    #[test]
    fn pass_by_pass_is_the_same() {
        for (n_in, n_out) in [(840, 600), (768, 512), (5, 1), (1_100, 259), (64, 1_023)] {
            packed::<i8>(n_in, n_out);
            packed::<i16>(n_in, n_out);
        }
    }
}
