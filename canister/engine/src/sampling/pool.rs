//! Which tokens may be drawn, and with what weight: temperature, then `top_k`, `top_p` and
//! `typical_p`, each over what the one before it left, as in Hugging Face transformers.
//!
//! The vocabulary is never sorted. A filter keeps the best entries by some key until they reach a
//! mass; those are usually few, and found among the groups with the highest maxima. Where they are
//! many, the key of the last one is found by halving the interval that it lies in.

use std::cmp::Ordering;

use super::scan::{self, Above, Entry, Scale};
use crate::simd::{F32x4, floats, floats_mut};

/// Vocabularies up to this size are handled entry by entry.
const SMALL: usize = 512;

/// As many entries of a large vocabulary are filtered one by one.
const FEW: usize = 4_096;

/// How many of the best entries are tried before the whole vocabulary is searched.
const TRIES: [usize; 2] = [48, 768];

/// Passes after which the search takes what is left one by one. Only keys made to resist it need
/// more.
const MAX_PASSES: usize = 48;

const NOTHING: Above = Above {
    mass: 0.0,
    count: 0,
};

/// Working memory, kept from token to token; a vocabulary's length where it is used at all.
#[derive(Default)]
pub struct Buffers {
    /// Logits after penalties and bans.
    pub changed: Vec<F32x4>,
    pub maxima: Vec<F32x4>,
    weights: Vec<F32x4>,
    sums: Vec<F32x4>,
    keys: Vec<F32x4>,
    key_maxima: Vec<F32x4>,
}

/// What narrows the choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Filters {
    pub temperature: f64,
    pub top_k: Option<usize>,
    pub top_p: Option<f64>,
    pub typical_p: Option<f64>,
}

/// The tokens that may be drawn.
pub enum Pool<'a> {
    /// In the order of their ids.
    Few(Vec<Entry>),
    /// A weight for each id, the sums of each group of them by lanes, and of all.
    Many {
        weights: &'a mut [F32x4],
        sums: &'a mut [F32x4],
        total: f64,
    },
}

/// Which entries with the same key as the last one are kept with it.
#[derive(Clone, Copy, PartialEq)]
enum Ties {
    /// As many as the mass needs, the lower ids.
    Needed,
    All,
}

impl Pool<'_> {
    /// Nothing to draw: this token.
    pub fn one(token: u32) -> Pool<'static> {
        Pool::Few(vec![Entry {
            token,
            key: 0.0,
            weight: 1.0,
        }])
    }

    /// Filters `values`, whose maxima are noted in `buffers` and whose highest one is finite.
    pub fn new<'a>(
        values: &[f32],
        highest: f32,
        filters: &Filters,
        buffers: &'a mut Buffers,
    ) -> Pool<'a> {
        let scale = Scale::new(highest, filters.temperature);
        let lanes = 4 * buffers.maxima.len();
        let small = values.len() <= SMALL;
        let top_k = filters.top_k.filter(|&k| k < values.len());
        let few = match top_k {
            Some(k) if small || k <= lanes / 4 => Some(best(values, &buffers.maxima, k)),
            None if small => {
                let all = (f32::MIN, f32::INFINITY);
                Some(scan::between(values, &buffers.maxima, None, all.0, all.1))
            }
            _ => None,
        };
        if let Some(mut few) = few {
            scan::weigh_entries(&mut few, scale);
            return Pool::Few(few_by_share(few, filters, scale));
        }

        let Buffers { weights, sums, .. } = buffers;
        let mut total = scan::weigh(values, scale, weights, sums);
        if let Some(k) = top_k {
            let found = Found::search(values, &buffers.maxima, None, k as f64);
            total = found.cut(values, Ties::All, weights, sums);
        }
        if let Some(p) = filters.top_p {
            let found = Found::search(values, &buffers.maxima, Some(weights), p * total);
            let after = Filters {
                top_p: None,
                ..*filters
            };
            match found.few(Ties::Needed) {
                Ok(few) => return Pool::Few(few_by_share(few, &after, scale)),
                Err(found) => total = found.cut(values, Ties::Needed, weights, sums),
            }
        }
        if let Some(p) = filters.typical_p {
            let mean = scan::entropy(values, weights, scale) / total;
            let (keys, maxima) = (&mut buffers.keys, &mut buffers.key_maxima);
            scan::distances(values, weights, scale, mean as f32, keys, maxima);
            let keys = floats(keys);
            let found = Found::search(keys, maxima, Some(weights), p * total);
            match found.few(Ties::All) {
                Ok(few) => return Pool::Few(by_id(few)),
                Err(found) => total = found.cut(keys, Ties::All, weights, sums),
            }
        }
        Pool::Many {
            weights,
            sums,
            total,
        }
    }

    /// The weight of all of them.
    pub fn total(&self) -> f64 {
        match self {
            Pool::Few(entries) => sum(entries),
            Pool::Many { total, .. } => *total,
        }
    }

    /// Draws a token and takes it out, with its weight. None when nothing is left.
    pub fn take(&mut self, uniform: f64) -> Option<(u32, f64)> {
        let token = self.draw(uniform);
        let weight = match self {
            Pool::Few(entries) => {
                let at = entries.iter().position(|entry| entry.token == token)?;
                entries.remove(at).weight
            }
            Pool::Many {
                weights,
                sums,
                total,
            } => {
                let group = token as usize / scan::GROUP;
                let weight = std::mem::take(floats_mut(weights).get_mut(token as usize)?);
                let vectors = &weights[group * scan::GROUP / 4..][..scan::GROUP / 4];
                let left = vectors.iter().fold(F32x4::zero(), |sum, &one| sum + one);
                sums[group] = left;
                *total -= f64::from(weight);
                weight
            }
        };
        (weight > 0.0).then_some((token, f64::from(weight)))
    }

    /// The token at which the cumulated probability, in the order of the ids, passes `uniform`.
    pub fn draw(&self, uniform: f64) -> u32 {
        match self {
            Pool::Few(entries) => {
                let total: f64 = entries.iter().map(|entry| f64::from(entry.weight)).sum();
                let weights = entries.iter().map(|entry| entry.weight);
                let (index, _) = pass(weights, 0.0, uniform * total);
                entries.get(index).map_or(0, |entry| entry.token)
            }
            Pool::Many {
                weights,
                sums,
                total,
            } => {
                let target = uniform * total;
                let group_sums = sums.iter().map(|sum| sum.sum());
                let (group, before) = pass(group_sums, 0.0, target);
                let weights = &floats(weights)[group * scan::GROUP..][..scan::GROUP];
                let (inside, _) = pass(weights.iter().copied(), before, target);
                (group * scan::GROUP + inside) as u32
            }
        }
    }
}

/// The index at which the sum of weights passes `target`, and the sum before it. Rounding may leave
/// the target unpassed; then it is the last one with a weight.
fn pass(weights: impl Iterator<Item = f32>, start: f64, target: f64) -> (usize, f64) {
    let mut sum = start;
    let mut last = (0, start);
    for (index, weight) in weights.enumerate() {
        if weight > 0.0 {
            last = (index, sum);
            sum += f64::from(weight);
            if sum > target {
                return last;
            }
        }
    }
    last
}

/// The `k` entries with the highest values and what is equal to the last of them, by their ids.
pub fn best(values: &[f32], maxima: &[F32x4], k: usize) -> Vec<Entry> {
    let bar = scan::bar(maxima, k);
    let mut found = scan::between(values, maxima, None, bar, f32::INFINITY);
    if found.len() > k {
        let mut keys: Vec<f32> = found.iter().map(|entry| entry.key).collect();
        let last = *keys.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1;
        found.retain(|entry| entry.key >= last);
    }
    found
}

/// The better one first; of equal ones the lower id.
pub fn order(a: &Entry, b: &Entry) -> Ordering {
    b.key.total_cmp(&a.key).then(a.token.cmp(&b.token))
}

fn by_id(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_unstable_by_key(|entry| entry.token);
    entries
}

fn sum(entries: &[Entry]) -> f64 {
    entries.iter().map(|entry| f64::from(entry.weight)).sum()
}

/// `top_p` and `typical_p` on entries whose keys are their values.
fn few_by_share(mut entries: Vec<Entry>, filters: &Filters, scale: Scale) -> Vec<Entry> {
    if let Some(p) = filters.top_p {
        let target = p * sum(&entries);
        let count = reach(&mut entries, 0.0, target, Ties::Needed);
        entries.truncate(count);
    }
    if let Some(p) = filters.typical_p {
        entries.retain(|entry| entry.weight > 0.0);
        let logs = entries
            .iter()
            .map(|entry| f64::from(entry.weight) * f64::from(scale.log(entry.key)));
        let total = sum(&entries);
        let mean = (logs.sum::<f64>() / total) as f32;
        for entry in &mut entries {
            entry.key = -(scale.log(entry.key) - mean).abs();
        }
        let count = reach(&mut entries, 0.0, p * total, Ties::All);
        entries.truncate(count);
    }
    by_id(entries)
}

/// Moves the best entries to the front: as many as it takes until `start` and their weights reach
/// `target`. Gives how many these are.
fn reach(entries: &mut [Entry], start: f64, target: f64, ties: Ties) -> usize {
    // The first `low` entries are the best and do not reach the target, the first `high` do.
    let (mut low, mut high) = (0, entries.len());
    let mut mass = start;
    while high - low > 16 {
        let middle = usize::midpoint(low, high);
        entries[low..high].select_nth_unstable_by(middle - low, order);
        let more = sum(&entries[low..middle]);
        if mass + more >= target {
            high = middle;
        } else {
            (low, mass) = (middle, mass + more);
        }
    }
    entries[low..high].sort_unstable_by(order);
    let mut count = low;
    while count < high && mass < target {
        mass += f64::from(entries[count].weight);
        count += 1;
    }
    if ties == Ties::All && count > 0 {
        let last = entries[count - 1].key;
        let (kept, rest) = entries.split_at_mut(count);
        let mut equal = 0;
        for index in 0..rest.len() {
            if rest[index].key >= last {
                rest.swap(equal, index);
                equal += 1;
            }
        }
        count = kept.len() + equal;
    }
    count
}

/// The best entries of a large vocabulary whose weights reach a target.
struct Found {
    /// Those among which it is reached.
    entries: Vec<Entry>,
    /// What is better than all of these; it is kept as well.
    above: Above,
    target: f64,
}

impl Found {
    /// Finds the keys among which the weights of the best entries reach `target`. Without weights
    /// each entry weighs 1, with weights at most 1.
    fn search(keys: &[f32], maxima: &[F32x4], weights: Option<&Vec<F32x4>>, target: f64) -> Found {
        let weights = weights.map(Vec::as_slice);
        let mut high = f32::INFINITY;
        let mut above = NOTHING;
        for count in TRIES {
            if count > maxima.len() || target > count as f64 {
                continue;
            }
            let bar = scan::bar(maxima, count);
            let entries = scan::between(keys, maxima, weights, bar, f32::INFINITY);
            let mass = sum(&entries);
            if mass >= target {
                return Found {
                    entries,
                    above: NOTHING,
                    target,
                };
            }
            (high, above.mass, above.count) = (bar, mass, entries.len());
        }

        // What is at least `low` reaches the target, what is at least `high` does not.
        let (mut low, mut down_to_low) = (f32::MIN, usize::MAX);
        // The maxima tell how far keys lie apart, and so where most of them begin.
        let (lowest, highest) = scan::bounds(floats(maxima), f32::MIN, f32::INFINITY);
        high = high.min(highest.next_up());
        let mut guess = Some(lowest - (highest - lowest)).filter(|guess| guess.is_finite());
        for pass in 0..MAX_PASSES {
            if down_to_low - above.count <= FEW {
                break;
            }
            if guess.is_none() && (low <= f32::MIN || pass % 8 == 0) {
                // Keys may lie far apart, or all be equal.
                let (lowest, highest) = scan::bounds(keys, low, high);
                if lowest >= highest {
                    break;
                }
                (low, high) = (lowest, highest.next_up());
            }
            let half = (low / 2.0 + high / 2.0).max(low.next_up());
            let middle = guess.take().unwrap_or(half);
            if middle >= high {
                break;
            }
            let found = scan::above(keys, weights, middle);
            if found.mass >= target {
                (low, down_to_low) = (middle, found.count);
            } else {
                (high, above) = (middle, found);
            }
        }
        Found {
            entries: scan::between(keys, maxima, weights, low, high),
            above,
            target,
        }
    }

    /// The kept entries, if nothing lies above those at hand.
    fn few(mut self, ties: Ties) -> Result<Vec<Entry>, Found> {
        if self.above.count > 0 {
            return Err(self);
        }
        let count = reach(&mut self.entries, 0.0, self.target, ties);
        self.entries.truncate(count);
        Ok(self.entries)
    }

    /// Sets the weights of what is not kept to 0, and gives the total of the others.
    fn cut(mut self, keys: &[f32], ties: Ties, weights: &mut [F32x4], sums: &mut [F32x4]) -> f64 {
        let count = reach(&mut self.entries, self.above.mass, self.target, ties);
        let (kept, dropped) = self.entries.split_at(count);
        // With nothing kept of these, all of them lie below what is.
        let bar = kept.iter().map(|entry| entry.key).reduce(f32::min);
        for entry in dropped {
            floats_mut(weights)[entry.token as usize] = 0.0;
        }
        scan::cut(keys, bar.unwrap_or(f32::MIN), weights, sums)
    }
}
