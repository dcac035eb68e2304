//! Matrix times vector with weights of 8 or 16 bits: a quarter of the instructions that f32 takes.
//!
//! Every output has a scale of its own, every token one for its activations, which are rounded to
//! ±`ACTIVATION`. Outputs lie four by four, inputs in pairs, `[4 outputs][2 inputs]` being the eight
//! lanes of one product, so that no horizontal sum is needed. Inputs are cut into passes of 768,
//! 256, 64 and 8: `[pass][groups of outputs][pairs of the pass]`. In a pass the splatted pairs stay
//! in locals while the weights stream by in one unrolled chain of 5 metered instructions for 8
//! products; its sum is exact in 32 bits and is added up in f32 over the passes.
//!
//! A sum can't overflow: the scale of an output is chosen so that the magnitudes of its weights in
//! any pass, times `ACTIVATION`, stay below 2^31 (`Extreme::scale`).

use crate::integers::{I16x8, I32x4, Pair, ROUND, round};
use crate::simd::{F32x4, floats, floats_mut, padded, zeros};

/// The largest magnitude of a rounded activation.
pub const ACTIVATION: f32 = 8191.0;
/// What the magnitudes of an output's weights in one pass may sum up to.
const PASS_SUM: u32 = i32::MAX as u32 / ACTIVATION as u32;
/// Inputs of the passes, widest first. The last one divides what every buffer is padded to.
const PASSES: [usize; 4] = [768, 256, 64, 8];

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

/// Rounded activations of one or more tokens: each is about its row's unit times its integer.
#[derive(Default)]
pub struct Activations {
    values: Vec<[i16; 8]>,
    units: Vec<f32>,
}

impl Activations {
    /// Rounds `rows` padded vectors of one length.
    pub fn set(&mut self, x: &[F32x4], rows: usize) {
        let (x, _) = x.as_chunks::<2>();
        self.values.resize(x.len(), [0; 8]);
        self.units.clear();
        let width = x.len() / rows;
        for (x, into) in x.chunks(width).zip(self.values.chunks_mut(width)) {
            self.units.push(round_row(x, into));
        }
    }

    /// Each row's pairs and unit.
    fn rows(&self) -> impl ExactSizeIterator<Item = (&[Pair], f32)> {
        let width = self.values.len() / self.units.len();
        let rows = self.values.chunks(width).zip(&self.units);
        rows.map(|(row, &unit)| (row.as_flattened().as_chunks().0, unit))
    }
}

/// Rounds one row and returns its unit.
fn round_row(x: &[[F32x4; 2]], into: &mut [[i16; 8]]) -> f32 {
    let highest = x
        .as_flattened()
        .iter()
        .fold(F32x4::zero(), |most, &v| most.max(v.abs()))
        .to_array()
        .into_iter()
        .fold(1e-30, |a, b| if a < b { b } else { a });
    let inverse = F32x4::splat(ACTIVATION / highest);
    for (to, &[a, b]) in into.iter_mut().zip(x) {
        round(a * inverse, b * inverse, to);
    }
    highest / ACTIVATION
}

/// A packed matrix with `n_in` inputs and `n_out` outputs.
pub struct Quantised<W> {
    n_in: usize,
    n_out: usize,
    weights: Vec<[W; 8]>,
    /// One for each output, padded.
    scales: Vec<F32x4>,
    /// Padded; zeros where there is none.
    bias: Vec<F32x4>,
}

impl<W: Weight> Quantised<W> {
    /// The same with a bias, padded, or empty for none.
    pub fn with_bias(self, bias: Vec<F32x4>) -> Self {
        if bias.is_empty() {
            self
        } else {
            Self { bias, ..self }
        }
    }

    /// out = W·x + bias for each row. `out` is padded.
    pub fn apply(&self, x: &Activations, out: &mut [F32x4]) {
        let outs = out.chunks_mut(padded(self.n_out) / 4);
        for ((pairs, unit), out) in x.rows().zip(outs) {
            let bias = Some(&self.bias[..]);
            multiply(pairs, unit, &self.weights, &self.scales, bias, out);
        }
    }

    /// out += W·x + bias for each row.
    pub fn add_to(&self, x: &Activations, out: &mut [F32x4]) {
        let outs = out.chunks_mut(padded(self.n_out) / 4);
        for ((pairs, unit), out) in x.rows().zip(outs) {
            for (out, &bias) in out.iter_mut().zip(&self.bias) {
                *out = *out + bias;
            }
            multiply(pairs, unit, &self.weights, &self.scales, None, out);
        }
    }

    /// The weights of one pass, in eights.
    fn pass(&self, start: usize, width: usize) -> &[[W; 8]] {
        let groups = padded(self.n_out) / 4;
        &self.weights[start / 2 * groups..][..width / 2 * groups]
    }

    /// Adds the weights of one output to `out` (an embedding's row).
    pub fn add_row(&self, output: usize, out: &mut [f32]) {
        let scale = floats(&self.scales)[output];
        for (start, width) in passes(self.n_in) {
            let group = self
                .pass(start, width)
                .chunks_exact(width / 2)
                .nth(output / 4);
            let lanes = group.into_iter().flatten().flat_map(|eight| {
                let lane = output % 4 * 2;
                [eight[lane], eight[lane + 1]]
            });
            for (out, weight) in out.iter_mut().skip(start).zip(lanes) {
                *out += weight.to_f32() * scale;
            }
        }
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

/// Repeats a statement with `$i` counting from `$from` on.
macro_rules! each {
    (4, $from:expr, $i:ident, $do:expr) => {{
        let $i = $from;
        $do;
    }
    {
        let $i = $from + 1;
        $do;
    }
    {
        let $i = $from + 2;
        $do;
    }
    {
        let $i = $from + 3;
        $do;
    }};
    (32, $from:expr, $i:ident, $do:expr) => {
        each!(4, $from, $i, $do);
        each!(4, $from + 4, $i, $do);
        each!(4, $from + 8, $i, $do);
        each!(4, $from + 12, $i, $do);
        each!(4, $from + 16, $i, $do);
        each!(4, $from + 20, $i, $do);
        each!(4, $from + 24, $i, $do);
        each!(4, $from + 28, $i, $do);
    };
    (128, $from:expr, $i:ident, $do:expr) => {
        each!(32, $from, $i, $do);
        each!(32, $from + 32, $i, $do);
        each!(32, $from + 64, $i, $do);
        each!(32, $from + 96, $i, $do);
    };
    (384, $from:expr, $i:ident, $do:expr) => {
        each!(128, $from, $i, $do);
        each!(128, $from + 128, $i, $do);
        each!(128, $from + 256, $i, $do);
    };
}

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

#[cfg(test)]
mod tests {
    use super::*;

    /// A repeatable value between −1 and 1.
    fn noise(i: usize) -> f32 {
        let mixed = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        mixed as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn pack<W: Weight>(
        n_in: usize,
        n_out: usize,
        weight: impl Fn(usize, usize) -> f32,
    ) -> [Quantised<W>; 2] {
        let by_input: Vec<f32> = (0..n_in * n_out)
            .map(|i| weight(i / n_out, i % n_out))
            .collect();
        let by_output: Vec<f32> = (0..n_in * n_out)
            .map(|i| weight(i % n_in, i / n_in))
            .collect();
        let mut inputs = Packing::new(n_in, n_out).unwrap();
        for (i, rows) in by_input.chunks(64 * n_out).enumerate() {
            inputs.scan(rows, i * 64);
        }
        for (i, rows) in by_input.chunks(64 * n_out).enumerate() {
            inputs.pack_inputs(rows, i * 64);
        }
        let mut outputs = Packing::new(n_in, n_out).unwrap();
        for (i, rows) in by_output.chunks(10 * n_in).enumerate() {
            outputs.pack_outputs(rows, i * 10);
        }
        [inputs.finish(), outputs.finish()]
    }

    fn agrees<W: Weight>(n_in: usize, n_out: usize, share: f32) {
        let weight = |k: usize, o: usize| noise(1_000_000 + k * n_out + o);
        let (mut x, mut bias) = (zeros(n_in), zeros(n_out));
        (0..n_in).for_each(|k| floats_mut(&mut x)[k] = noise(k));
        (0..n_out).for_each(|o| floats_mut(&mut bias)[o] = noise(777 + o));
        let mut rounded = Activations::default();
        rounded.set(&x, 1);
        for matrix in pack::<W>(n_in, n_out, weight) {
            let matrix = matrix.with_bias(bias.clone());
            let mut out = zeros(n_out);
            matrix.apply(&rounded, &mut out);
            let mut twice = out.clone();
            matrix.add_to(&rounded, &mut twice);
            for o in 0..padded(n_out) {
                let products = (0..n_in)
                    .filter(|_| o < n_out)
                    .map(|k| (noise(k), weight(k, o)));
                let want: f32 = products.map(|(x, w)| x * w).sum::<f32>() + floats(&bias)[o];
                let bound = share * (n_in as f32).sqrt() + 1e-5;
                let (got, twice) = (floats(&out)[o], floats(&twice)[o]);
                assert!(
                    (got - want).abs() < bound,
                    "{n_in}x{n_out} {o}: {got} {want}"
                );
                assert!((twice - 2.0 * got).abs() < 1e-4);
            }
            for o in 0..n_out {
                let mut row = vec![0.0; padded(n_in)];
                matrix.add_row(o, &mut row);
                for (k, &got) in row.iter().enumerate() {
                    let want = if k < n_in { weight(k, o) } else { 0.0 };
                    assert!((got - want).abs() <= share, "{n_in}x{n_out} row {o}");
                }
            }
        }
    }

    #[test]
    fn every_shape_agrees_with_a_naive_loop() {
        let small = (0..144).map(|i| (1 + i / 12, 1 + i % 12));
        let large = [
            (63, 7),
            (64, 8),
            (65, 9),
            (130, 257),
            (768, 30),
            (1100, 13),
            (3072, 9),
        ];
        for (n_in, n_out) in small.chain(large) {
            agrees::<i8>(n_in, n_out, 8e-3);
            agrees::<i16>(n_in, n_out, 2e-3);
        }
    }

    /// The worst case for a sum: equal magnitudes, signs as the activations have them.
    #[test]
    fn no_sum_overflows() {
        fn check<W: Weight>() {
            for n_in in [8, 64, 256, 768, 832, 3072] {
                let sign = |k: usize| if noise(k) < 0.0 { -1.0f32 } else { 1.0 };
                let mut x = zeros(n_in);
                (0..n_in).for_each(|k| floats_mut(&mut x)[k] = sign(k));
                let mut rounded = Activations::default();
                rounded.set(&x, 1);
                for matrix in pack::<W>(n_in, 4, |k, o| if o == 3 { 0.0 } else { sign(k) * 1e-3 }) {
                    for group in matrix.weights.chunks(PASSES[0] / 2) {
                        let sizes = |lane: usize| {
                            let lanes = group
                                .iter()
                                .flat_map(move |e| [e[2 * lane], e[2 * lane + 1]]);
                            lanes.map(|w| w.to_f32().abs() as u32).sum::<u32>()
                        };
                        assert!((0..4).all(|lane| sizes(lane) <= PASS_SUM));
                    }
                    let mut out = zeros(4);
                    matrix.apply(&rounded, &mut out);
                    let want = n_in as f32 * 1e-3;
                    assert!(
                        floats(&out)[..3]
                            .iter()
                            .all(|y| (y / want - 1.0).abs() < 4e-3)
                    );
                    assert_eq!(floats(&out)[3], 0.0);
                }
            }
        }
        check::<i8>();
        check::<i16>();
    }

    #[test]
    fn nothing_comes_of_nothing() {
        let mut rounded = Activations::default();
        rounded.set(&zeros(8), 1);
        for matrix in pack::<i16>(5, 3, |_, _| 0.0) {
            let mut out = vec![F32x4::splat(1.0); 2];
            matrix.apply(&rounded, &mut out);
            assert_eq!(floats(&out), [0.0; 8]);
        }
    }
}
