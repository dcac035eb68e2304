//! Products of 8-bit weights with eight rows in seven eighths of the multiplications.
//!
//! Four rows lie above four others, the pairs of a pass come in two halves, and outputs in two
//! groups, so that inputs and weights are matrices of two by two blocks:
//!
//! ```text
//! rows 0 to 3 | a11 a12 |   | b11 b12 | first half of the pairs
//! rows 4 to 7 | a21 a22 | · | b21 b22 | second half
//! ```
//!
//! Strassen's method, in the form that Winograd gave it, finds the product of such matrices by seven
//! products of blocks. What these multiply are sums of up to four blocks, which 16 bits have room
//! for. Integer sums wrap and have no rounding, so that in the end they are those of `kernel`.

use crate::integers::{I16x8, I32x4};
use crate::kernel::{Pass, Weight, each};
use crate::quantised::ACTIVATION;
use crate::simd::F32x4;

/// How many weights, or activations, are added up at most before they are multiplied.
const ADDENDS: f32 = 4.0;
const _: () = assert!(ADDENDS * ACTIVATION <= i16::MAX as f32);

/// Whether sums of these weights have room in 16 bits.
pub const fn fits<W: Weight>() -> bool {
    ADDENDS * W::LARGEST <= i16::MAX as f32
}

/// A sum and the products of a block's weights with a row's inputs. The first row sees to the
/// weights: where one is made and first used at once, it costs least.
macro_rules! add_products {
    ($half:tt, $row:ident, $start:expr, $weights:ident[$i:ident] $(= $make:expr)?, $inputs:ident) => {{
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

/// Defines the kernel for passes of twice `$half` pairs. A sum is written as soon as it is found,
/// and weights are loaded behind that: so the compiler leaves each load where it is needed.
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
            let none = I16x8::splat([0, 0]);
            let (mut a11, mut a12, mut a22) =
                ([none; 4 * $half], [none; 4 * $half], [none; 4 * $half]);
            let (mut s1, mut s2, mut s3, mut s4) = (a11, a11, a11, a11);
            each!(4, 0, row, {
                let (Some(above), Some(below)) = (
                    x[row].first_chunk::<{ 2 * $half }>(),
                    x[row + 4].first_chunk::<{ 2 * $half }>(),
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
            let units = units.map(F32x4::splat);
            let count = o0.len() / 2;
            let weights = &pass.weights.as_chunks::<{ 4 * $half }>().0[..count];
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
            for at in 0..count {
                let (w, scales, before) = (&weights[at], &scales[at], &before[at]);
                let finish = |out: &mut [F32x4; 2], group: usize, sum: I32x4, unit: F32x4| {
                    let start = if FIRST { before[group] } else { out[group] };
                    out[group] = start + sum.to_f32() * scales[group] * unit;
                };
                let (mut b11, mut b12, mut b21, mut b22) =
                    ([none; $half], [none; $half], [none; $half], [none; $half]);
                let (mut t1, mut t2, mut t3, mut t4) = (b11, b11, b11, b11);
                each!(4, 0, row, {
                    let zero = I32x4::zero();
                    let p1 = add_products!($half, row, zero, b11[i] = W::widen(&w[i]), a11);
                    let c11 = add_products!($half, row, p1, b21[i] = W::widen(&w[$half + i]), a12);
                    finish(&mut outs[row][at], 0, c11, units[row]);

                    let p5 = add_products!(
                        $half,
                        row,
                        zero,
                        t1[i] = {
                            b12[i] = W::widen(&w[2 * $half + i]);
                            b12[i] - b11[i]
                        },
                        s1
                    );
                    let u2 = add_products!(
                        $half,
                        row,
                        p1,
                        t2[i] = {
                            b22[i] = W::widen(&w[3 * $half + i]);
                            b22[i] - t1[i]
                        },
                        s2
                    );
                    let c12 = add_products!($half, row, u2 + p5, b22[i], s4);
                    finish(&mut outs[row][at], 1, c12, units[row]);

                    let u3 = add_products!($half, row, u2, t3[i] = b22[i] - b12[i], s3);
                    finish(&mut outs[row + 4][at], 1, u3 + p5, units[row + 4]);
                    let c21 = add_products!($half, row, u3, t4[i] = b21[i] - t2[i], a22);
                    finish(&mut outs[row + 4][at], 0, c21, units[row + 4]);
                });
            }
        }
    };
}

rows_8_kernel!(rows_8_pairs_384, 192);
rows_8_kernel!(rows_8_pairs_128, 64);

fn twos(vectors: &[F32x4], count: usize) -> &[[F32x4; 2]] {
    &vectors.as_chunks().0[..count]
}

fn twos_mut(vectors: &mut [F32x4], count: usize) -> &mut [[F32x4; 2]] {
    &mut vectors.as_chunks_mut().0[..count]
}

#[cfg(test)]
mod tests {
    use crate::integers::Pair;
    use crate::kernel::multiply_rows;
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
