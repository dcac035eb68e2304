//! A matrix with weights of 8 or 16 bits, and the rounded activations that it is multiplied with.
//!
//! Every output has a scale of its own, every token one for its activations, which are rounded to
//! ±`ACTIVATION`. A sum can't overflow: the scale of an output is chosen so that the magnitudes of
//! its weights in any pass, times `ACTIVATION`, stay below 2^31 (`packing`).

use crate::array::{Plain, bytes_mut};
#[cfg(not(feature = "clock"))]
use crate::block;
#[cfg(feature = "clock")]
use crate::clock;
#[cfg(not(feature = "clock"))]
use crate::integers::I32x4;
use crate::integers::{Pair, round_all};
use crate::kernel::{Weight, passes};
#[cfg(not(feature = "clock"))]
use crate::metered::multiply_rows;
use crate::packing::PASS_SUM;
use crate::simd::{F32x4, floats, padded, zeros};

/// The largest magnitude of a rounded activation.
pub const ACTIVATION: f32 = 8191.0;

/// Rounded activations of one or more tokens: each is about its row's unit times its integer.
#[derive(Default)]
pub struct Activations {
    values: Vec<[i16; 8]>,
    units: Vec<f32>,
    /// Working memory of products.
    #[cfg(not(feature = "clock"))]
    sums: Vec<I32x4>,
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

    fn row(&self, row: usize) -> &[Pair] {
        let width = self.values.len() / self.units.len();
        self.values[row * width..][..width]
            .as_flattened()
            .as_chunks()
            .0
    }
}

/// Rounds one row and returns its unit.
fn round_row(x: &[[F32x4; 2]], into: &mut [[i16; 8]]) -> f32 {
    let mut highest = F32x4::zero();
    for &[a, b] in x {
        highest = highest.max(a.abs()).max(b.abs());
    }
    let highest = highest.highest().max(F32x4::splat(1e-30));
    let inverse = F32x4::splat(ACTIVATION).div(highest);
    round_all(x, inverse, into);
    highest.first() / ACTIVATION
}

/// A packed matrix with `n_in` inputs and `n_out` outputs.
pub struct Quantised<W> {
    pub n_in: usize,
    pub n_out: usize,
    pub weights: Vec<[W; 8]>,
    /// One for each output, padded.
    pub scales: Vec<F32x4>,
    /// Padded; zeros where there is none.
    pub bias: Vec<F32x4>,
}

impl<W: Weight> Quantised<W>
where
    [W; 8]: Plain,
{
    /// Adds the bytes of weights, scales and bias, to be overwritten.
    pub fn arrays_mut<'a>(&'a mut self, has_bias: bool, into: &mut Vec<&'a mut [u8]>) {
        into.push(bytes_mut(&mut self.weights));
        into.push(bytes_mut(&mut self.scales));
        if has_bias {
            into.push(bytes_mut(&mut self.bias));
        }
    }
}

impl<W: Weight> Quantised<W> {
    /// A matrix of weights and scales that were packed, without bias.
    pub fn new(n_in: usize, n_out: usize, weights: Vec<[W; 8]>, scales: Vec<F32x4>) -> Self {
        Self {
            n_in,
            n_out,
            weights,
            scales,
            bias: zeros(n_out),
        }
    }

    /// Whether no sum of a pass can overflow, which packing sees to and a foreign file may not.
    pub fn sums_fit(n_in: usize, n_out: usize, weights: &[[W; 8]]) -> bool {
        let groups = padded(n_out) / 4;
        passes(n_in).all(|(start, width)| {
            let pass = &weights[start / 2 * groups..][..width / 2 * groups];
            pass.chunks_exact(width / 2).all(|group| {
                let mut sums = [0; 4];
                for eight in group {
                    for (lane, sum) in sums.iter_mut().enumerate() {
                        *sum += eight[2 * lane].magnitude() + eight[2 * lane + 1].magnitude();
                    }
                }
                sums.iter().all(|&sum| sum <= PASS_SUM)
            })
        })
    }

    /// Weights and scales.
    pub fn into_arrays(self) -> (Vec<[W; 8]>, Vec<F32x4>) {
        (self.weights, self.scales)
    }

    /// The same with a bias, padded, or empty for none.
    pub fn with_bias(self, bias: Vec<F32x4>) -> Self {
        if bias.is_empty() {
            self
        } else {
            Self { bias, ..self }
        }
    }

    /// out = W·x + bias for each row. Outputs are padded.
    pub fn apply(&self, x: &mut Activations, outs: Vec<&mut [F32x4]>) {
        self.multiply(x, Some(&self.bias), outs);
    }

    /// out += W·x + bias for each row.
    pub fn add_to(&self, x: &mut Activations, mut outs: Vec<&mut [F32x4]>) {
        for out in &mut outs {
            let bias = self.bias.as_chunks::<2>().0;
            for (out, bias) in out.as_chunks_mut::<2>().0.iter_mut().zip(bias) {
                *out = [out[0] + bias[0], out[1] + bias[1]];
            }
        }
        self.multiply(x, None, outs);
    }

    /// out = before + W·x for each row; without `before` it is added to what is in `outs`.
    #[cfg(feature = "clock")]
    fn multiply(&self, x: &mut Activations, before: Option<&[F32x4]>, mut outs: Vec<&mut [F32x4]>) {
        let rows: Vec<_> = (0..outs.len()).map(|row| x.row(row)).collect();
        let (weights, scales) = (&self.weights, &self.scales);
        clock::multiply(&rows, &x.units, weights, scales, before, &mut outs);
    }

    /// out = before + W·x for each row; without `before` it is added to what is in `outs`.
    ///
    /// Rows are cheapest in blocks and in eights; a block with two rows to spare still pays.
    #[cfg(not(feature = "clock"))]
    fn multiply(&self, x: &mut Activations, before: Option<&[F32x4]>, outs: Vec<&mut [F32x4]>) {
        let (count, mut outs, mut done) = (outs.len(), outs.into_iter(), 0);
        while done < count {
            done += match count - done {
                30.. => self.multiply_block(x, done, before, &mut outs),
                8.. => self.multiply_rows::<8>(x, done, before, &mut outs),
                4.. => self.multiply_rows::<4>(x, done, before, &mut outs),
                _ => self.multiply_rows::<1>(x, done, before, &mut outs),
            }
        }
    }

    /// Some rows from `first` on; gives their number.
    #[cfg(not(feature = "clock"))]
    fn multiply_rows<'a, const ROWS: usize>(
        &self,
        x: &Activations,
        first: usize,
        before: Option<&[F32x4]>,
        outs: &mut impl Iterator<Item = &'a mut [F32x4]>,
    ) -> usize {
        let rows = std::array::from_fn::<_, ROWS, _>(|i| x.row(first + i));
        let units = std::array::from_fn(|i| x.units[first + i]);
        let outs = std::array::from_fn(|_| outs.next().unwrap_or_default());
        multiply_rows(rows, units, &self.weights, &self.scales, before, outs);
        ROWS
    }

    /// The same with the kernel of blocks.
    #[cfg(not(feature = "clock"))]
    fn multiply_block<'a>(
        &self,
        x: &mut Activations,
        first: usize,
        before: Option<&[F32x4]>,
        outs: &mut impl Iterator<Item = &'a mut [F32x4]>,
    ) -> usize {
        let mut sums = std::mem::take(&mut x.sums);
        let end = x.units.len().min(first + block::ROWS);
        // Rows to spare repeat the last one.
        let rows = std::array::from_fn(|i| x.row((first + i).min(end - 1)));
        let (units, outs) = (&x.units[first..end], outs.take(end - first));
        let (weights, scales) = (&self.weights, &self.scales);
        block::multiply(&rows, units, weights, scales, before, outs, &mut sums);
        x.sums = sums;
        end - first
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::PASSES;
    use crate::packing::{PASS_SUM, Packing};
    use crate::simd::{floats_mut, zeros};

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
            matrix.apply(&mut rounded, vec![&mut out]);
            let mut twice = out.clone();
            matrix.add_to(&mut rounded, vec![&mut twice]);
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
                    matrix.apply(&mut rounded, vec![&mut out]);
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

    /// Whatever rows share a kernel, each gets the bits that it gets alone, in every width of pass.
    #[test]
    fn rows_together_are_as_rows_alone() {
        fn check<W: Weight>(n_in: usize, n_out: usize) {
            let [matrix, _] = pack::<W>(n_in, n_out, |k, o| noise(k * n_out + o));
            let mut bias = zeros(n_out);
            (0..n_out).for_each(|o| floats_mut(&mut bias)[o] = noise(777 + o));
            let matrix = matrix.with_bias(bias);
            let (width, outs) = (padded(n_in) / 4, padded(n_out) / 4);
            let mut x = vec![F32x4::zero(); 70 * width];
            for (row, x) in x.chunks_mut(width).enumerate() {
                (0..n_in).for_each(|k| floats_mut(x)[k] = noise(row * 10_007 + k) * row as f32);
            }
            let mut activations = Activations::default();
            let mut alone = vec![F32x4::splat(1.0); 70 * outs];
            for (x, out) in x.chunks(width).zip(alone.chunks_mut(outs)) {
                activations.set(x, 1);
                matrix.apply(&mut activations, vec![&mut *out]);
                matrix.add_to(&mut activations, vec![out]);
            }
            for rows in [2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 29, 30, 31, 32, 33, 62, 70] {
                let mut together = vec![F32x4::splat(-3.0); rows * outs];
                activations.set(&x[..rows * width], rows);
                matrix.apply(&mut activations, together.chunks_mut(outs).collect());
                matrix.add_to(&mut activations, together.chunks_mut(outs).collect());
                let whole = |v: &[F32x4]| floats(v).iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(
                    whole(&together),
                    whole(&alone[..rows * outs]),
                    "{n_in}x{n_out}, {rows} rows"
                );
            }
        }
        for (n_in, n_out) in [(5, 3), (72, 9), (256, 40), (840, 12), (1100, 7), (64, 1100)] {
            check::<i8>(n_in, n_out);
            check::<i16>(n_in, n_out);
        }
    }

    #[test]
    fn nothing_comes_of_nothing() {
        let mut rounded = Activations::default();
        rounded.set(&zeros(8), 1);
        for matrix in pack::<i16>(5, 3, |_, _| 0.0) {
            let mut out = vec![F32x4::splat(1.0); 2];
            matrix.apply(&mut rounded, vec![&mut out]);
            assert_eq!(floats(&out), [0.0; 8]);
        }
    }
}
