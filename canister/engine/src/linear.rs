//! Matrix times vector, the one kernel in which nearly all work is done.
//!
//! Weights are packed when loaded: outputs four by four (the lanes of a vector, so that no
//! horizontal sum is needed), inputs in blocks of 64 (`WIDE`), what is left in blocks of 8
//! (`NARROW`), padded with zeros. A matrix of `groups` × 4 outputs lies as
//! `[block][groups][inputs of the block][4 outputs]`. For one block the 64 splatted inputs stay in
//! locals while the weights stream by, each loaded once with an immediate offset, in one chain of
//! `sum + w · x`: 7 metered instructions for 4 products, 1.8 a product with the loop round it.
//! A matrix may be cut into panels of outputs, so that rows of outputs can be packed as they come.

use crate::array::bytes_mut;
use crate::simd::{F32x4, floats, padded};

pub const WIDE: usize = 64;
pub const NARROW: usize = 8;

/// A packed matrix with `n_in` inputs and `n_out` outputs.
pub struct Linear {
    n_in: usize,
    n_out: usize,
    panel: usize,
    weights: Vec<F32x4>,
    bias: Vec<F32x4>,
}

impl Linear {
    /// `panel` is a multiple of 8 or at least `n_out`; `bias` is padded, or empty for none.
    pub fn new(
        n_in: usize,
        n_out: usize,
        panel: usize,
        weights: Vec<F32x4>,
        bias: Vec<F32x4>,
    ) -> Self {
        debug_assert_eq!(weights.len() as u64, packed_len(n_in, n_out));
        Self {
            n_in,
            n_out,
            panel: padded(panel.min(n_out)),
            weights,
            bias,
        }
    }

    /// Adds the bytes of weights and bias, to be overwritten.
    pub fn arrays_mut<'a>(&'a mut self, has_bias: bool, into: &mut Vec<&'a mut [u8]>) {
        into.push(bytes_mut(&mut self.weights));
        if has_bias {
            into.push(bytes_mut(&mut self.bias));
        }
    }

    /// out = W·x + bias. `x` and `out` are padded.
    pub fn apply(&self, x: &[F32x4], out: &mut [F32x4]) {
        if self.bias.is_empty() {
            out.fill(F32x4::zero());
        } else {
            out.copy_from_slice(&self.bias);
        }
        self.accumulate(x, out);
    }

    /// out += W·x + bias: the output side of a residual branch.
    pub fn add_to(&self, x: &[F32x4], out: &mut [F32x4]) {
        for (out, &bias) in out.iter_mut().zip(&self.bias) {
            *out = *out + bias;
        }
        self.accumulate(x, out);
    }

    fn accumulate(&self, x: &[F32x4], out: &mut [F32x4]) {
        let x = floats(x);
        let panels = self.weights.chunks(self.panel / 4 * x.len());
        for (weights, out) in panels.zip(out.chunks_mut(self.panel / 4)) {
            accumulate(weights, x, out);
        }
    }

    /// Adds the weights of one output to `out` (an embedding's row).
    pub fn add_row(&self, output: usize, out: &mut [f32]) {
        let n_in = padded(self.n_in);
        let (panel, output) = (output / self.panel, output % self.panel);
        let start = panel * self.panel * n_in;
        let groups = padded(self.panel.min(self.n_out - panel * self.panel)) / 4;
        let weights = &floats(&self.weights)[start..];
        for (k, out) in out.iter_mut().enumerate().take(self.n_in) {
            *out += weights[position(n_in, groups, k, output)];
        }
    }
}

/// Vectors that a packed matrix takes.
pub fn packed_len(n_in: usize, n_out: usize) -> u64 {
    padded(n_in) as u64 * (padded(n_out) as u64 / 4)
}

/// Where the weight of input `k` and output `o` lies, in floats, in a panel of `groups` × 4 outputs
/// with `n_in` inputs (padded).
pub fn position(n_in: usize, groups: usize, k: usize, o: usize) -> usize {
    let width = if k < n_in / WIDE * WIDE { WIDE } else { NARROW };
    let start = k / width * width;
    (start * groups + o / 4 * width + (k - start)) * 4 + o % 4
}

/// out += W·x for one panel. The panel may have more outputs than `out`; the others are left out.
pub fn accumulate(weights: &[F32x4], x: &[f32], out: &mut [F32x4]) {
    let groups = weights.len() / x.len();
    let (wide, rest) = x.as_chunks::<WIDE>();
    let (wide_weights, narrow_weights) = weights.split_at(groups * WIDE * wide.len());
    for (x, weights) in wide.iter().zip(wide_weights.chunks_exact(groups * WIDE)) {
        accumulate_wide(x, weights, out);
    }
    let (narrow, _) = rest.as_chunks::<NARROW>();
    for (x, weights) in narrow
        .iter()
        .zip(narrow_weights.chunks_exact(groups * NARROW))
    {
        accumulate_narrow(x, weights, out);
    }
}

/// Defines `out[g] += Σ_k weights[g][k] · x[k]` for one width, unrolled. Kept out of line: inlined,
/// its many locals would be set up where they are not needed. The canister is built without LLVM's
/// loop strength reduction (`-disable-lsr`): that pass computes the address of every weight anew
/// instead of leaving it to the load's immediate offset, which makes a product a quarter dearer.
macro_rules! block_kernel {
    ($name:ident, $width:ident, $($k:literal)*) => {
        #[inline(never)]
        fn $name(x: &[f32; $width], weights: &[F32x4], out: &mut [F32x4]) {
            let x = [$(F32x4::splat(x[$k])),*];
            let (weights, _) = weights.as_chunks::<$width>();
            for (w, out) in weights.iter().zip(out) {
                let mut sum = *out;
                $(sum = sum + w[$k] * x[$k];)*
                *out = sum;
            }
        }
    };
}

block_kernel!(accumulate_narrow, NARROW, 0 1 2 3 4 5 6 7);
block_kernel!(accumulate_wide, WIDE,
     0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
    32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63);

/// Packs consecutive inputs' rows of a `[n_in][n_out]` matrix (GPT-2's `Conv1D`). All rows but the
/// last call's must come in multiples of `WIDE`, and `n_in` tells which widths follow.
pub fn pack_inputs(rows: &[f32], first: usize, n_in: usize, n_out: usize, into: &mut Vec<F32x4>) {
    let count = rows.len() / n_out;
    let groups = padded(n_out) / 4;
    let wide_end = padded(n_in) / WIDE * WIDE;
    let mut start = first;
    let end = padded(first + count).min(padded(n_in));
    while start < end {
        let width = if start < wide_end { WIDE } else { NARROW };
        for o in (0..groups).map(|group| group * 4) {
            into.extend((start - first..start - first + width).map(|row| {
                let rest = if row < count {
                    &rows[row * n_out + o.min(n_out)..]
                } else {
                    &[]
                };
                match rest.first_chunk() {
                    Some(&four) if o + 4 <= n_out => F32x4::new(four),
                    _ => F32x4::new(std::array::from_fn(|i| {
                        rest.get(i)
                            .copied()
                            .filter(|_| o + i < n_out)
                            .unwrap_or(0.0)
                    })),
                }
            }));
        }
        start += width;
    }
}

/// Packs one panel: the rows of consecutive outputs of a `[n_out][n_in]` matrix (an embedding).
pub fn pack_outputs(rows: &[f32], n_in: usize, into: &mut Vec<F32x4>) {
    let (count, padded_in) = (rows.len() / n_in, padded(n_in));
    let mut start = 0;
    while start < padded_in {
        let wide = padded_in - start >= WIDE;
        for group in 0..padded(count) / 4 {
            // Four rows from this block's first column on, as far as they exist.
            let four = std::array::from_fn(|lane| {
                let row = group * 4 + lane;
                let missing = row >= count || start >= n_in;
                if missing {
                    &[]
                } else {
                    &rows[row * n_in + start..(row + 1) * n_in]
                }
            });
            if wide {
                interleave::<WIDE>(four, into);
            } else {
                interleave::<NARROW>(four, into);
            }
        }
        start += if wide { WIDE } else { NARROW };
    }
}

/// Appends the first `N` columns of four rows, a vector a column.
fn interleave<const N: usize>([a, b, c, d]: [&[f32]; 4], into: &mut Vec<F32x4>) {
    let whole = (
        a.first_chunk::<N>(),
        b.first_chunk::<N>(),
        c.first_chunk::<N>(),
        d.first_chunk::<N>(),
    );
    let mut block = [F32x4::zero(); N];
    if let (Some(a), Some(b), Some(c), Some(d)) = whole {
        for k in 0..N {
            block[k] = F32x4::new([a[k], b[k], c[k], d[k]]);
        }
    } else {
        for (k, vector) in block.iter_mut().enumerate() {
            *vector = F32x4::new([a, b, c, d].map(|row| row.get(k).copied().unwrap_or(0.0)));
        }
    }
    into.extend_from_slice(&block);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{floats_mut, zeros};

    /// A repeatable value between −1 and 1.
    fn noise(i: usize) -> f32 {
        let mixed = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        mixed as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn vector(n: usize, salt: usize) -> Vec<F32x4> {
        let mut v = zeros(n);
        floats_mut(&mut v)[..n]
            .iter_mut()
            .enumerate()
            .for_each(|(i, x)| *x = noise(i + salt));
        v
    }

    const SHAPES: [(usize, usize); 14] = [
        (1, 1),
        (3, 5),
        (4, 4),
        (8, 3),
        (15, 45),
        (22, 66),
        (63, 7),
        (64, 8),
        (65, 9),
        (72, 31),
        (128, 257),
        (130, 512),
        (200, 513),
        (768, 300),
    ];

    /// Both layouts, whole or in panels, equal the naive loop; padding stays zero.
    #[test]
    fn agrees_with_a_naive_loop() {
        let small = (0..400).map(|i| (1 + i / 20, 1 + i % 20));
        for (n_in, n_out) in small.chain(SHAPES) {
            let weight = |k: usize, o: usize| noise(1_000_000 + k * n_out + o);
            let by_input: Vec<f32> = (0..n_in * n_out)
                .map(|i| weight(i / n_out, i % n_out))
                .collect();
            let by_output: Vec<f32> = (0..n_in * n_out)
                .map(|i| weight(i % n_in, i / n_in))
                .collect();
            let (x, bias) = (vector(n_in, 7), vector(n_out, 99));

            let mut packed = Vec::new();
            let mut first = 0;
            for rows in by_input.chunks(WIDE * n_out) {
                pack_inputs(rows, first, n_in, n_out, &mut packed);
                first += rows.len() / n_out;
            }
            let conv = Linear::new(n_in, n_out, n_out, packed, bias.clone());

            let mut packed = Vec::new();
            by_output
                .chunks(256 * n_in)
                .for_each(|rows| pack_outputs(rows, n_in, &mut packed));
            let embedding = Linear::new(n_in, n_out, 256, packed, bias.clone());

            for linear in [&conv, &embedding] {
                let mut out = zeros(n_out);
                linear.apply(&x, &mut out);
                for (o, &got) in floats(&out).iter().enumerate() {
                    let want: f64 = if o < n_out {
                        let sum: f64 = (0..n_in)
                            .map(|k| f64::from(floats(&x)[k]) * f64::from(weight(k, o)))
                            .sum();
                        sum + f64::from(floats(&bias)[o])
                    } else {
                        0.0
                    };
                    assert!(
                        (f64::from(got) - want).abs() < 1e-4,
                        "{n_in}x{n_out} output {o}: {got} {want}"
                    );
                }
                let mut twice = out.clone();
                linear.add_to(&x, &mut twice);
                for (&twice, &once) in floats(&twice).iter().zip(floats(&out)) {
                    assert!((twice - 2.0 * once).abs() < 1e-4);
                }
                for o in 0..n_out {
                    let mut row = vec![0.0; n_in];
                    linear.add_row(o, &mut row);
                    assert!(
                        (0..n_in).all(|k| row[k] == weight(k, o)),
                        "{n_in}x{n_out} row {o}"
                    );
                }
            }
        }
    }
}
