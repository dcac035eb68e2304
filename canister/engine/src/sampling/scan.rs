//! Passes over a vocabulary, four entries at a time.
//!
//! A vocabulary is cut into groups of 64 entries (16 vectors). The first pass notes for each group
//! and lane the highest entry; the highest entries of all are then found without looking at groups
//! that can't hold one. What is counted or summed is held against GPT-2's 50,257 entries, where one
//! metered instruction a vector is 12,565.

use std::f32::consts::{LN_2, LOG2_E};

use crate::mask::{Counts, Mask};
use crate::simd::{F32x4, floats};

/// Entries of one group.
pub const GROUP: usize = 64;
const VECTORS: usize = GROUP / 4;

/// Below 2 to this power an entry counts as impossible; above it every power is a normal number.
const LOWEST: f32 = -125.0;

/// An entry of the vocabulary that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    pub token: u32,
    /// What entries are ordered by, the best first.
    pub key: f32,
    /// Its probability, but for a factor that all have in common.
    pub weight: f32,
}

/// Whole groups, and the last one filled up with −∞.
fn groups(values: &[f32]) -> (&[[f32; GROUP]], Option<[f32; GROUP]>) {
    let (whole, rest) = values.as_chunks::<GROUP>();
    let last = (!rest.is_empty()).then(|| {
        let mut last = [f32::NEG_INFINITY; GROUP];
        last[..rest.len()].copy_from_slice(rest);
        last
    });
    (whole, last)
}

fn all(values: &[f32], mut work: impl FnMut(usize, &[f32; GROUP])) {
    let (whole, last) = groups(values);
    for (index, group) in whole.iter().enumerate() {
        work(index, group);
    }
    if let Some(last) = last {
        work(whole.len(), &last);
    }
}

/// The vectors of a group, one after the other. Four stand in the loop's body, as a turn of a loop
/// costs as much as the work on some of them.
#[inline(always)]
fn each(group: &[f32; GROUP], mut work: impl FnMut(usize, F32x4)) {
    let (chunks, _) = group.as_chunks::<4>();
    for turn in 0..VECTORS / 4 {
        work(4 * turn, F32x4::load(&chunks[4 * turn]));
        work(4 * turn + 1, F32x4::load(&chunks[4 * turn + 1]));
        work(4 * turn + 2, F32x4::load(&chunks[4 * turn + 2]));
        work(4 * turn + 3, F32x4::load(&chunks[4 * turn + 3]));
    }
}

/// Copies all values, whole vectors at a time: the platform prices a copy of bytes by the byte.
pub fn copy(values: &[f32], out: &mut Vec<F32x4>) {
    out.resize(group_count(values.len()) * VECTORS, F32x4::zero());
    let (groups, _) = out.as_chunks_mut::<VECTORS>();
    all(values, |index, group| {
        if let Some(out) = groups.get_mut(index) {
            let (chunks, _) = group.as_chunks::<4>();
            *out = std::array::from_fn(|i| F32x4::load(&chunks[i]));
        }
    });
}

/// The logarithms of all probabilities: (value − highest) − `log_total`.
pub fn logarithms(values: &[f32], highest: f32, log_total: f32, out: &mut Vec<F32x4>) {
    let (highest, log_total) = (F32x4::splat(highest), F32x4::splat(log_total));
    out.resize(group_count(values.len()) * VECTORS, F32x4::zero());
    let (groups, _) = out.as_chunks_mut::<VECTORS>();
    all(values, |index, group| {
        if let Some(out) = groups.get_mut(index) {
            each(group, |at, value| out[at] = value - highest - log_total);
        }
    });
}

/// How many groups there are.
pub fn group_count(len: usize) -> usize {
    len.div_ceil(GROUP)
}

/// Notes the highest value of each group and lane, and gives the highest of all. What is no number
/// is passed over; without any number the result is −∞.
pub fn maxima(values: &[f32], maxima: &mut Vec<F32x4>) -> f32 {
    maxima.clear();
    maxima.reserve(group_count(values.len()));
    let mut highest = F32x4::splat(f32::NEG_INFINITY);
    all(values, |_, group| {
        let mut best = F32x4::splat(f32::NEG_INFINITY);
        each(group, |_, vector| best = best.max(vector));
        maxima.push(best);
        highest = highest.max(best);
    });
    lanes_highest(highest)
}

/// The highest of noted maxima.
pub fn highest(maxima: &[F32x4]) -> f32 {
    let nothing = F32x4::splat(f32::NEG_INFINITY);
    lanes_highest(
        maxima
            .iter()
            .fold(nothing, |highest, &best| highest.max(best)),
    )
}

fn lanes_highest(highest: F32x4) -> f32 {
    let lanes = highest.to_array().into_iter();
    lanes.fold(f32::NEG_INFINITY, f32::max)
}

/// The first place of `highest`, whose groups' maxima are given.
pub fn first(values: &[f32], maxima: &[F32x4], highest: f32) -> usize {
    let wanted = F32x4::splat(highest);
    let group = maxima
        .iter()
        .position(|&best| best.equal(wanted).any())
        .unwrap_or(0);
    let start = group * GROUP;
    let found = values[start..]
        .iter()
        .position(|&value| value >= highest)
        .unwrap_or(0);
    start + found
}

/// A bar that at least `n` entries reach, and not many more: of the noted maxima at least `n` do.
/// −∞ when there are fewer.
pub fn bar(maxima: &[F32x4], n: usize) -> f32 {
    let reaching = |bar: f32| {
        let mut counts = Counts::none();
        for best in maxima {
            counts.add(best.at_least(F32x4::splat(bar)));
        }
        counts.total()
    };
    let (mut low, mut high) = bounds(floats(maxima), f32::MIN, f32::INFINITY);
    if reaching(low) < n {
        return f32::NEG_INFINITY;
    }
    // Whatever comes out is right; a better bar only saves work.
    for _ in 0..24 {
        let middle = low / 2.0 + high / 2.0;
        let count = reaching(middle);
        if count >= n {
            low = middle;
            if count <= n + n / 4 {
                break;
            }
        } else {
            high = middle;
        }
    }
    low
}

/// Entries with `low` ≤ key < `high`, in the order of their ids. Without weights each weighs 1.
pub fn between(
    keys: &[f32],
    maxima: &[F32x4],
    weights: Option<&[F32x4]>,
    low: f32,
    high: f32,
) -> Vec<Entry> {
    // −∞ is no entry at all.
    let (low, high) = (F32x4::splat(low.max(f32::MIN)), F32x4::splat(high));
    let weights = weights.map(floats);
    let mut found = Vec::new();
    let mut look = |index: usize, group: &[f32; GROUP]| {
        each(group, |at, key| {
            let mut bits = key.at_least(low).and(key.below(high)).bits();
            while bits != 0 {
                let inside = 4 * at + bits.trailing_zeros() as usize;
                let token = index * GROUP + inside;
                found.push(Entry {
                    token: token as u32,
                    key: group[inside],
                    weight: weights.map_or(1.0, |weights| weights[token]),
                });
                bits &= bits - 1;
            }
        });
    };
    let (whole, last) = groups(keys);
    for (index, best) in maxima.iter().enumerate() {
        if best.at_least(low).any() {
            match (whole.get(index), &last) {
                (Some(group), _) | (None, Some(group)) => look(index, group),
                (None, None) => {}
            }
        }
    }
    found
}

/// How values become weights: e^((value − highest) · inverse), 0 where that is below 2^−125.
#[derive(Clone, Copy)]
pub struct Scale {
    highest: f32,
    inverse: f32,
}

impl Scale {
    /// `highest` is finite.
    pub fn new(highest: f32, temperature: f64) -> Scale {
        // Beyond what f32 holds the temperature is as good as 0 or infinite, and so is the result.
        let inverse = 1.0 / temperature;
        let range = (f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX));
        Scale {
            highest,
            inverse: inverse.clamp(range.0, range.1) as f32,
        }
    }

    /// The logarithm of a value's weight.
    pub fn log(self, value: f32) -> f32 {
        ((value - self.highest) * self.inverse).max(f32::MIN)
    }

    fn vectors(self) -> (F32x4, F32x4) {
        // ln 2 can't be taken out of the largest inverse; there it makes no difference.
        let to_base_two = (self.inverse * LOG2_E).min(f32::MAX);
        (F32x4::splat(self.highest), F32x4::splat(to_base_two))
    }
}

/// 2^x for x ≤ 0 is 2^n · 2^f, with n the integer nearest to x and |f| ≤ ½. n is found by adding
/// 1.5·2^23, which leaves it in the low bits of the sum, and 2^f by a polynomial of the fifth degree,
/// fitted to a relative error of 2e-7. Cheaper than `exp`, as nothing lies above 1 and what is too
/// low is masked.
#[inline(always)]
fn weight(value: F32x4, (highest, to_base_two): (F32x4, F32x4)) -> F32x4 {
    const ROUND: f32 = 12_582_912.0;
    let x = (value - highest) * to_base_two;
    let shifted = x + F32x4::splat(ROUND);
    let f = x - (shifted - F32x4::splat(ROUND));
    let mut p = F32x4::splat(1.326_472e-3);
    p = p * f + F32x4::splat(9.671_514e-3);
    p = p * f + F32x4::splat(5.550_734e-2);
    p = p * f + F32x4::splat(0.240_222_42);
    p = p * f + F32x4::splat(LN_2);
    p = p * f + F32x4::splat(1.0);
    p.times_power_of_two(shifted)
        .only(x.at_least(F32x4::splat(LOWEST)))
}

/// Weighs every value; notes the weights and each group's sums by lanes, and gives the total.
pub fn weigh(values: &[f32], scale: Scale, weights: &mut Vec<F32x4>, sums: &mut Vec<F32x4>) -> f64 {
    let scale = scale.vectors();
    weights.resize(group_count(values.len()) * VECTORS, F32x4::zero());
    sums.clear();
    let mut total = 0.0;
    let (out, _) = weights.as_chunks_mut::<VECTORS>();
    let mut out = out.iter_mut();
    all(values, |_, group| {
        let Some(out) = out.next() else { return };
        let mut sum = F32x4::zero();
        each(group, |at, value| {
            out[at] = weight(value, scale);
            sum = sum + out[at];
        });
        sums.push(sum);
        total += f64::from(sum.sum());
    });
    total
}

/// ln Σ e^(value − highest).
pub fn log_total(values: &[f32], highest: f32) -> f64 {
    let scale = Scale::new(highest, 1.0).vectors();
    let mut total = 0.0;
    all(values, |_, group| {
        let mut sum = F32x4::zero();
        each(group, |_, value| sum = sum + weight(value, scale));
        total += f64::from(sum.sum());
    });
    // The highest one alone weighs 1, unless it is infinite.
    total.max(1.0).ln()
}

/// The same for a few entries: their keys become their weights.
pub fn weigh_entries(entries: &mut [Entry], scale: Scale) {
    let scale = scale.vectors();
    for chunk in entries.chunks_mut(4) {
        let mut keys = [f32::NEG_INFINITY; 4];
        for (key, entry) in keys.iter_mut().zip(chunk.iter()) {
            *key = entry.key;
        }
        let weights = weight(F32x4::load(&keys), scale).to_array();
        for (entry, weight) in chunk.iter_mut().zip(weights) {
            entry.weight = weight;
        }
    }
}

/// The sum of all weights, each times its logarithm.
pub fn entropy(values: &[f32], weights: &[F32x4], scale: Scale) -> f64 {
    let (highest, inverse) = (F32x4::splat(scale.highest), F32x4::splat(scale.inverse));
    let (weights, _) = weights.as_chunks::<VECTORS>();
    let mut total = 0.0;
    all(values, |index, group| {
        let Some(weights) = weights.get(index) else {
            return;
        };
        let mut sum = F32x4::zero();
        each(group, |at, value| {
            // In this order, so that what is no number becomes the bound; its weight is 0.
            let log = F32x4::splat(LOWEST).max((value - highest) * inverse);
            sum = sum + log * weights[at];
        });
        total += f64::from(sum.sum());
    });
    total
}

/// Keys for a search by distance: minus the distance of a weight's logarithm from `centre`, −∞
/// where the weight is 0. Notes them and their maxima.
pub fn distances(
    values: &[f32],
    weights: &[F32x4],
    scale: Scale,
    centre: f32,
    keys: &mut Vec<F32x4>,
    maxima: &mut Vec<F32x4>,
) {
    let (highest, inverse) = (F32x4::splat(scale.highest), F32x4::splat(scale.inverse));
    let (centre, nothing) = (F32x4::splat(centre), F32x4::splat(f32::NEG_INFINITY));
    keys.resize(group_count(values.len()) * VECTORS, F32x4::zero());
    maxima.clear();
    let (weights, _) = weights.as_chunks::<VECTORS>();
    let (keys, _) = keys.as_chunks_mut::<VECTORS>();
    all(values, |index, group| {
        let (Some(weights), Some(keys)) = (weights.get(index), keys.get_mut(index)) else {
            return;
        };
        let mut best = nothing;
        each(group, |at, value| {
            let distance = ((value - highest) * inverse - centre).abs();
            let none = weights[at].equal(F32x4::zero());
            keys[at] = nothing.only_or(none, F32x4::zero() - distance);
            best = best.max(keys[at]);
        });
        maxima.push(best);
    });
}

/// What is found of the keys that are at least so high.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Above {
    pub mass: f64,
    pub count: usize,
}

/// Sums up the weights of keys ≥ `bar`, and counts them. Without weights each key weighs 1.
pub fn above(keys: &[f32], weights: Option<&[F32x4]>, bar: f32) -> Above {
    let bar = F32x4::splat(bar);
    let mut counts = Counts::none();
    let mut mass = 0.0;
    match weights {
        None => all(keys, |_, group| {
            each(group, |_, key| counts.add(key.at_least(bar)));
        }),
        Some(weights) => {
            let (weights, _) = weights.as_chunks::<VECTORS>();
            all(keys, |index, group| {
                let Some(weights) = weights.get(index) else {
                    return;
                };
                let mut sum = F32x4::zero();
                each(group, |at, key| {
                    let reached = key.at_least(bar);
                    sum = sum + weights[at].only(reached);
                    counts.add(reached);
                });
                mass += f64::from(sum.sum());
            });
        }
    }
    let count = counts.total();
    Above {
        mass: weights.map_or(count as f64, |_| mass),
        count,
    }
}

/// The lowest and the highest key with `low` ≤ key < `high`; (∞, −∞) when there is none.
pub fn bounds(keys: &[f32], low: f32, high: f32) -> (f32, f32) {
    let (low, high) = (F32x4::splat(low.max(f32::MIN)), F32x4::splat(high));
    let (none, nothing) = (F32x4::splat(f32::INFINITY), F32x4::splat(f32::NEG_INFINITY));
    let (mut lowest, mut highest) = (none, nothing);
    all(keys, |_, group| {
        each(group, |_, key| {
            let mask: Mask = key.at_least(low).and(key.below(high));
            lowest = lowest.min(key.only_or(mask, none));
            highest = highest.max(key.only_or(mask, nothing));
        });
    });
    let lowest = lowest.to_array().into_iter().fold(f32::INFINITY, f32::min);
    let highest = highest.to_array().into_iter();
    (lowest, highest.fold(f32::NEG_INFINITY, f32::max))
}

/// Sets the weights of keys below `bar` to 0, and notes the groups' sums anew; gives the total.
pub fn cut(keys: &[f32], bar: f32, weights: &mut [F32x4], sums: &mut [F32x4]) -> f64 {
    let bar = F32x4::splat(bar);
    let (weights, _) = weights.as_chunks_mut::<VECTORS>();
    let mut total = 0.0;
    all(keys, |index, group| {
        let (Some(weights), Some(noted)) = (weights.get_mut(index), sums.get_mut(index)) else {
            return;
        };
        let mut sum = F32x4::zero();
        each(group, |at, key| {
            weights[at] = weights[at].only(key.at_least(bar));
            sum = sum + weights[at];
        });
        *noted = sum;
        total += f64::from(sum.sum());
    });
    total
}
