//! Rotary position embedding (Su et al., 2021) as GPT-J has it: of each head's query and key the
//! first `rotary_dim` dimensions are taken in neighbouring pairs, and pair i of the token at
//! position p is turned by the angle p · `10000^(−2i / rotary_dim)`.
//!
//! Angles, sines and cosines are computed in f64 from additions and multiplications alone and
//! rounded once, so that they are the same bits natively and in the canister, whose libm differs.
//! A row's are computed when it runs, once for all layers and heads: no table bounds the context.

use std::f64::consts::{LN_2, LOG2_E};

/// ln(10000).
const LN_BASE: f64 = 9.210_340_371_976_184;
/// π/2 in two parts; the first has 33 bits, so that its product with a number of quarter turns is
/// exact as far as positions go.
const QUARTER_HIGH: f64 = 1.570_796_326_734_125_6;
const QUARTER_LOW: f64 = 6.077_100_506_506_192e-11;
const QUARTERS: f64 = std::f64::consts::FRAC_2_PI;

/// The angles by which one more position turns the pairs of a head.
pub struct Rotary {
    head_size: usize,
    turns: Vec<f64>,
}

/// The rotation of one pair: cosine and sine.
pub type Turn = [f32; 2];

impl Rotary {
    /// `rotary_dim` is even and at most `head_size`.
    pub fn new(head_size: usize, rotary_dim: usize) -> Self {
        let angle = |pair: usize| exp(-LN_BASE * (2 * pair) as f64 / rotary_dim as f64);
        Self {
            head_size,
            turns: (0..rotary_dim / 2).map(angle).collect(),
        }
    }

    /// Rotated pairs of a head.
    pub fn pairs(&self) -> usize {
        self.turns.len()
    }

    /// Appends the rotations of a position, one for each pair.
    pub fn at(&self, position: usize, to: &mut Vec<Turn>) {
        to.extend(self.turns.iter().map(|turn| {
            let [cos, sin] = cos_sin(position as f64 * turn);
            [cos as f32, sin as f32]
        }));
    }

    /// Rotates the heads in `x`: queries, keys, or both one after the other.
    pub fn apply(&self, turns: &[Turn], x: &mut [f32]) {
        for head in x.chunks_exact_mut(self.head_size) {
            let (pairs, _) = head.as_chunks_mut::<2>();
            for ([a, b], [cos, sin]) in pairs.iter_mut().zip(turns) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

/// `e^x` for x between −700 and 0: 2^n · e^r with |r| ≤ ln(2)/2 and Taylor's series.
fn exp(x: f64) -> f64 {
    let n = (x * LOG2_E + 0.5).floor();
    let r = x - n * LN_2;
    let mut sum = 1.0;
    for k in (1..=16).rev() {
        sum = 1.0 + sum * r / f64::from(k);
    }
    sum * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

/// Cosine and sine of an angle of at least 0, through the nearest quarter turn.
fn cos_sin(angle: f64) -> [f64; 2] {
    let quarters = (angle * QUARTERS + 0.5).floor();
    let r = angle - quarters * QUARTER_HIGH - quarters * QUARTER_LOW;
    let square = r * r;
    let (mut cos, mut sin) = (1.0, 1.0);
    for k in (1..=9).rev() {
        let k = f64::from(2 * k);
        cos = 1.0 - cos * square / (k * (k - 1.0));
        sin = 1.0 - sin * square / (k * (k + 1.0));
    }
    let sin = sin * r;
    match quarters as u64 % 4 {
        0 => [cos, sin],
        1 => [-sin, cos],
        2 => [-cos, -sin],
        _ => [sin, -cos],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_libm() {
        for i in 0..20_000 {
            let x = -f64::from(i) / 2000.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-15, "e^{x}");
        }
        for i in 0..100_000u32 {
            // Close together near zero, and up to the last position that a model may have.
            let angle = f64::from(i).powi(3) / 1e15 * f64::from(1 << 22);
            let [cos, sin] = cos_sin(angle);
            assert!((cos - angle.cos()).abs() < 1e-9, "cos {angle}: {cos}");
            assert!((sin - angle.sin()).abs() < 1e-9, "sin {angle}: {sin}");
            if angle < 5000.0 {
                assert!((cos - angle.cos()).abs() < 1e-15 && (sin - angle.sin()).abs() < 1e-15);
            }
        }
    }

    /// Each pair turns by its own angle; what lies behind the rotated dimensions stays.
    #[test]
    fn turns_pairs_of_each_head() {
        let rotary = Rotary::new(7, 4);
        for position in [0, 1, 5, 2047] {
            let mut turns = Vec::new();
            rotary.at(position, &mut turns);
            let before: Vec<f32> = (0..21).map(|i| i as f32 - 9.0).collect();
            let mut x = before.clone();
            rotary.apply(&turns, &mut x);
            for (i, &got) in x.iter().enumerate() {
                let at = i % 7;
                let want = if at < 4 {
                    let angle = position as f64 * 10_000f64.powf(-((at / 2 * 2) as f64) / 4.0);
                    let pair = i - at % 2;
                    let (a, b) = (f64::from(before[pair]), f64::from(before[pair + 1]));
                    if at % 2 == 0 {
                        a * angle.cos() - b * angle.sin()
                    } else {
                        b * angle.cos() + a * angle.sin()
                    }
                } else {
                    f64::from(before[i])
                };
                assert!(
                    (f64::from(got) - want).abs() < 1e-5,
                    "{position}, {i}: {got} {want}"
                );
            }
            if position == 0 {
                assert_eq!(x, before);
            }
        }
    }
}
