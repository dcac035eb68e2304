//! Products of 8-bit weights with eight or 32 rows in seven eighths of the multiplications.
//!
//! Half of the rows lie above the others, the pairs of a pass come in two halves, and outputs in two
//! groups, so that inputs and weights are matrices of two by two blocks:
//!
//! ```text
//! rows above | a11 a12 |   | b11 b12 | first half of the pairs
//! rows below | a21 a22 | · | b21 b22 | second half
//! ```
//!
//! Strassen's method, in the form that Winograd gave it, finds the product of such matrices by seven
//! products of blocks. What these multiply are sums of up to four blocks, which 16 bits have room
//! for. Integer sums wrap and have no rounding, so that in the end they are those of `kernel`.

use std::hint::black_box;

use crate::block::ROWS;
use crate::integers::{I16x8, I32x4, Pair};
use crate::kernel::Weight;
use crate::metered::{Pass, each};
use crate::quantised::ACTIVATION;
use crate::simd::F32x4;

/// How many weights, or activations, are added up at most before they are multiplied.
const ADDENDS: f32 = 4.0;
const _: () = assert!(ADDENDS * ACTIVATION <= i16::MAX as f32);

/// Whether sums of these weights have room in 16 bits.
pub const fn fits<W: Weight>() -> bool {
    ADDENDS * W::LARGEST <= i16::MAX as f32
}

/// A sum and the products of a row's inputs with a block's weights. The first row sees to the
/// weights: where one is made and first used at once, it costs least.
macro_rules! add_products {
    ($half:tt, $row:ident, $start:expr, $inputs:ident, $weights:ident[$i:ident] $(= $make:expr)?) => {{
        let mut sum = $start;
        each!($half, 0, $i, {
            $(if $row == 0 {
                $weights[$i] = $make;
            })?
            sum = sum + $weights[$i].dot($inputs[$row * $half + $i]);
        });
        sum
    }};
}

/// Multiplies `2 · $rows` rows of twice `$half` pairs: for each `$at` of `$all`, `$weights` are the
/// weights of two groups, and `$write` takes each row's `$sum` of each `$group`. A sum is written as
/// soon as it is found, and nothing moves past that: left to itself, the compiler would load all weights
/// first, which takes an instruction more for each.
macro_rules! multiply_blocks {
    (
        $rows:tt, $half:tt, $x:ident,
        for $at:pat in $all:expr => $weights:expr,
        ($row:ident, $group:ident, $sum:ident) => $write:expr
    ) => {{
        let none = I16x8::splat([0, 0]);
        let (mut a11, mut a12, mut a22) = (
            [none; $rows * $half],
            [none; $rows * $half],
            [none; $rows * $half],
        );
        let (mut s1, mut s2, mut s3, mut s4) = (a11, a11, a11, a11);
        each!($rows, 0, row, {
            let (Some(above), Some(below)) = (
                $x[row].first_chunk::<{ 2 * $half }>(),
                $x[row + $rows].first_chunk::<{ 2 * $half }>(),
            ) else {
                return;
            };
            each!($half, 0, i, {
                let at = row * $half + i;
                a11[at] = I16x8::splat(above[i]);
                a12[at] = I16x8::splat(above[$half + i]);
                let a21 = I16x8::splat(below[i]);
                a22[at] = I16x8::splat(below[$half + i]);
                s1[at] = a21 + a22[at];
                s2[at] = s1[at] - a11[at];
                s3[at] = a11[at] - a21;
                s4[at] = a12[at] - s2[at];
            });
        });
        for $at in $all {
            let (w1, w2): (&[[W; 8]; 2 * $half], &[[W; 8]; 2 * $half]) = $weights;
            let (mut b11, mut b12, mut b21, mut b22) =
                ([none; $half], [none; $half], [none; $half], [none; $half]);
            let (mut t1, mut t2, mut t3, mut t4) = (b11, b11, b11, b11);
            each!($rows, 0, row, {
                let mut write = |$row: usize, $group: usize, $sum: I32x4| {
                    $write;
                    black_box(());
                };
                let zero = I32x4::zero();
                let p1 = add_products!($half, row, zero, a11, b11[i] = W::widen(&w1[i]));
                let c11 = add_products!($half, row, p1, a12, b21[i] = W::widen(&w1[$half + i]));
                write(row, 0, c11);

                let p5 = add_products!(
                    $half,
                    row,
                    zero,
                    s1,
                    t1[i] = {
                        b12[i] = W::widen(&w2[i]);
                        b12[i] - b11[i]
                    }
                );
                let u2 = add_products!(
                    $half,
                    row,
                    p1,
                    s2,
                    t2[i] = {
                        b22[i] = W::widen(&w2[$half + i]);
                        b22[i] - t1[i]
                    }
                );
                let c12 = add_products!($half, row, u2 + p5, s4, b22[i]);
                write(row, 1, c12);

                let u3 = add_products!($half, row, u2, s3, t3[i] = b22[i] - b12[i]);
                write(row + $rows, 1, u3 + p5);
                let c21 = add_products!($half, row, u3, a22, t4[i] = b21[i] - t2[i]);
                write(row + $rows, 0, c21);
            });
        }
    }};
}

/// Defines the kernel of eight rows for passes of twice `$half` pairs.
macro_rules! rows_8_kernel {
    ($name:ident, $half:tt) => {
        #[allow(
            clippy::large_stack_arrays,
            reason = "under WebAssembly the arrays become locals"
        )]
        #[inline(never)]
        pub fn $name<W: Weight, const FIRST: bool>(
            pass: &Pass<W>,
            before: Option<&[F32x4]>,
            outs: &mut [&mut [F32x4]],
        ) {
            let (Some([o0, o1, o2, o3, o4, o5, o6, o7]), Some(x), Some(units)) = (
                outs.first_chunk_mut::<8>(),
                pass.x.first_chunk::<8>(),
                pass.units.first_chunk::<8>(),
            ) else {
                return;
            };
            let units = units.map(F32x4::splat);
            let count = o0.len() / 2;
            let weights = pass.weights.as_chunks::<{ 2 * $half }>().0;
            let weights = &weights.as_chunks::<2>().0[..count];
            let scales = twos(pass.scales, count);
            let before = before.map_or(scales, |before| twos(before, count));
            // Written out, so that the compiler sees that one check of an index does for all.
            let outs = [
                twos_mut(o0, count),
                twos_mut(o1, count),
                twos_mut(o2, count),
                twos_mut(o3, count),
                twos_mut(o4, count),
                twos_mut(o5, count),
                twos_mut(o6, count),
                twos_mut(o7, count),
            ];
            multiply_blocks!(
                4, $half, x,
                for at in 0..count => (&weights[at][0], &weights[at][1]),
                (row, group, sum) => {
                    let out = &mut outs[row][at][group];
                    let start = if FIRST { before[at][group] } else { *out };
                    *out = start + sum.to_f32() * scales[at][group] * units[row];
                }
            );
        }
    };
}

rows_8_kernel!(rows_8_pairs_384, 192);
rows_8_kernel!(rows_8_pairs_128, 64);

/// The kernel of `block` for 64 pairs.
#[allow(
    clippy::large_stack_arrays,
    reason = "under WebAssembly the arrays become locals"
)]
#[inline(never)]
pub fn rows_32_pairs_64<W: Weight>(
    x: &[&[Pair]; ROWS],
    at: usize,
    weights: &[[W; 8]],
    stride: usize,
    sums: &mut [I32x4],
) {
    let x = x.map(|x| x.get(at..).unwrap_or_default());
    let sums = sums.as_chunks_mut::<ROWS>().0.as_chunks_mut::<2>().0;
    multiply_blocks!(
        16, 32, x,
        for (w, sums) in weights.chunks(2 * stride).zip(sums) => {
            let second = w.get(stride..).unwrap_or_default();
            let (Some(w1), Some(w2)) = (w.first_chunk(), second.first_chunk()) else {
                return;
            };
            (w1, w2)
        },
        (row, group, sum) => sums[group][row] = sums[group][row] + sum
    );
}

fn twos(vectors: &[F32x4], count: usize) -> &[[F32x4; 2]] {
    &vectors.as_chunks().0[..count]
}

fn twos_mut(vectors: &mut [F32x4], count: usize) -> &mut [[F32x4; 2]] {
    &mut vectors.as_chunks_mut().0[..count]
}

#[cfg(test)]
mod tests {
    use crate::integers::Pair;
    use crate::metered::multiply_rows;
    use crate::simd::{F32x4, floats};

    /// All numbers as large as they may be, in whatever signs: no sum of blocks overflows.
    #[test]
    fn extremes_give_what_they_give_a_row_alone() {
        let bit = |i: usize| (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60 & 1;
        for pairs in [384, 128] {
            for (lowest, highest) in [(-8191, 8191), (-8191, -8191), (8191, 8191)] {
                let number = |i| if bit(i) == 0 { lowest } else { highest };
                let rows: [Vec<Pair>; 8] = std::array::from_fn(|row| {
                    let pair = |i| [number(row * 1009 + 2 * i), number(row * 1009 + 2 * i + 1)];
                    (0..pairs).map(pair).collect()
                });
                let weight = |i| if bit(i) == 0 { -128i8 } else { 127 };
                let weights: Vec<[i8; 8]> = (0..4 * pairs)
                    .map(|i| std::array::from_fn(|lane| weight(77 + 8 * i + lane)))
                    .collect();
                let (scales, before) = ([F32x4::splat(0.5); 4], [F32x4::splat(3.0); 4]);
                let units: [f32; 8] = std::array::from_fn(|row| 1.0 + row as f32);
                for before in [None, Some(&before[..])] {
                    let mut together = [[F32x4::splat(-7.0); 4]; 8];
                    let outs = together.each_mut().map(|out| &mut out[..]);
                    let x = rows.each_ref().map(|row| &row[..]);
                    multiply_rows(x, units, &weights, &scales, before, outs);
                    for (row, together) in together.iter().enumerate() {
                        let mut alone = [F32x4::splat(-7.0); 4];
                        let (x, unit) = ([&rows[row][..]], [units[row]]);
                        multiply_rows(x, unit, &weights, &scales, before, [&mut alone]);
                        assert_eq!(floats(together), floats(&alone), "{pairs} pairs, row {row}");
                    }
                }
            }
        }
    }
}
