//! Quantising a matrix: a scale for each output, and weights in the order of the kernels.

use crate::integers::ROUND;
use crate::kernel::{PASSES, Weight, passes};
use crate::quantised::{ACTIVATION, Quantised};
use crate::simd::{floats, floats_mut, padded, zeros};

/// What the magnitudes of an output's weights in one pass may sum up to.
pub const PASS_SUM: u32 = i32::MAX as u32 / ACTIVATION as u32;

/// A matrix being packed. Rows of outputs may come at any time; of a matrix that comes by inputs,
/// all rows are first seen by `scan`.
pub struct Packing<W> {
    matrix: Quantised<W>,
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
            extremes: Vec::new(),
        })
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
        let Quantised { n_in, n_out, .. } = self.matrix;
        let groups = padded(n_out) / 4;
        for (o, row) in (first..).zip(rows.chunks_exact(n_in)) {
            let mut extreme = Extreme::default();
            for (start, width) in passes(n_in) {
                row[start..n_in.min(start + width)]
                    .iter()
                    .for_each(|&w| extreme.add(w));
                extreme.end_pass();
            }
            let scale = extreme.scale::<W>();
            floats_mut(&mut self.matrix.scales)[o] = scale;
            let inverse = inverse(scale);
            for (start, width) in passes(n_in) {
                let at = start / 2 * groups + o / 4 * (width / 2);
                let eights = &mut self.matrix.weights[at..at + width / 2];
                for (eight, pair) in eights.iter_mut().zip(row[start..].chunks(2)) {
                    for (i, &weight) in pair.iter().enumerate() {
                        eight[o % 4 * 2 + i] = rounded(weight, inverse);
                    }
                }
            }
        }
    }

    pub fn finish(self) -> Quantised<W> {
        self.matrix
    }
}

/// 1 / scale, or zero where that would not be finite: such weights are all as good as zero.
fn inverse(scale: f32) -> f32 {
    if scale < 1e-36 { 0.0 } else { 1.0 / scale }
}

fn rounded<W: Weight>(weight: f32, inverse: f32) -> W {
    W::from_low_bits((weight * inverse + ROUND).to_bits())
}
