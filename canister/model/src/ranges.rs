//! Which bytes of a file have arrived: stretches in order, none of which touch each other.
//!
//! Their number is bounded, so that a client which scatters its chunks can't make the record grow.

use candid::CandidType;
use serde::Deserialize;

/// The most stretches that are kept.
pub const MOST_STRETCHES: usize = 256;

/// Bytes from `start` up to `end`.
#[derive(CandidType, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first byte.
    pub start: u64,
    /// The byte behind the last one.
    pub end: u64,
}

/// Where a stretch lies among those that have arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing of it has arrived.
    Free,
    /// All of it has arrived.
    Held,
    /// Some of it has arrived.
    Mixed,
    /// Nothing of it has, and it would be a stretch too many.
    TooScattered,
}

/// Stretches that have arrived.
#[derive(CandidType, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Stretch>);

impl Ranges {
    /// Where a stretch, which is not empty, lies.
    pub fn place(&self, new: Stretch) -> Place {
        let at = self.0.partition_point(|held| held.end <= new.start);
        let touches = |held: &Stretch| held.start == new.end || held.end == new.start;
        match self.0.get(at) {
            Some(held) if held.start <= new.start && new.end <= held.end => Place::Held,
            Some(held) if held.start < new.end => Place::Mixed,
            behind => {
                let before = at.checked_sub(1).and_then(|at| self.0.get(at));
                let alone = !behind.is_some_and(touches) && !before.is_some_and(touches);
                if alone && self.0.len() >= MOST_STRETCHES {
                    Place::TooScattered
                } else {
                    Place::Free
                }
            }
        }
    }

    /// Adds a stretch that is [`Place::Free`].
    pub fn add(&mut self, new: Stretch) {
        let at = self.0.partition_point(|held| held.end <= new.start);
        self.0.insert(at, new);
        if self.0.get(at + 1).is_some_and(|next| next.start == new.end) {
            self.0[at].end = self.0[at + 1].end;
            self.0.remove(at + 1);
        }
        if at > 0 && self.0[at - 1].end == new.start {
            self.0[at - 1].end = self.0[at].end;
            self.0.remove(at);
        }
    }

    /// How many bytes have arrived before the first that has not.
    pub fn beginning(&self) -> u64 {
        self.0
            .first()
            .filter(|first| first.start == 0)
            .map_or(0, |first| first.end)
    }

    /// How many bytes have arrived.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|held| held.end - held.start).sum()
    }

    /// What has not arrived of a file of such a length.
    pub fn missing(&self, length: u64) -> Vec<Stretch> {
        let mut start = 0;
        let mut missing = Vec::new();
        let end = Stretch {
            start: length,
            end: length,
        };
        for held in self.0.iter().chain([&end]) {
            if start < held.start {
                missing.push(Stretch {
                    start,
                    end: held.start,
                });
            }
            start = held.end;
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(start: u64, end: u64) -> Stretch {
        Stretch { start, end }
    }

    #[test]
    fn every_order_of_chunks_ends_in_one_stretch() {
        const CHUNKS: u64 = 7;
        // Each number from 0 to 7! - 1 is one order (its digits in the factorial system).
        for mut order in 0..5040 {
            let mut left: Vec<u64> = (0..CHUNKS).collect();
            let (mut ranges, mut arrived) = (Ranges::default(), [false; CHUNKS as usize]);
            for base in (1..=CHUNKS).rev() {
                let chunk = left.remove((order % base) as usize);
                order /= base;
                let new = stretch(10 * chunk, 10 * chunk + 10);
                assert_eq!(ranges.place(new), Place::Free);
                ranges.add(new);
                assert_eq!(ranges.place(new), Place::Held);
                arrived[chunk as usize] = true;
                let count = arrived.iter().filter(|&&one| one).count() as u64;
                let beginning = arrived.iter().take_while(|&&one| one).count() as u64;
                assert_eq!(ranges.count(), 10 * count);
                assert_eq!(ranges.beginning(), 10 * beginning);
                let missing = ranges.missing(10 * CHUNKS);
                let absent: u64 = missing.iter().map(|one| one.end - one.start).sum();
                assert_eq!(absent, 10 * (CHUNKS - count));
                for one in missing {
                    assert_eq!(ranges.place(one), Place::Free);
                }
            }
            assert_eq!(ranges, Ranges(vec![stretch(0, 10 * CHUNKS)]));
        }
    }

    #[test]
    fn what_overlaps_is_told_apart() {
        let ranges = Ranges(vec![stretch(10, 20), stretch(30, 40)]);
        for held in [(10, 20), (12, 18), (10, 11), (39, 40)] {
            assert_eq!(ranges.place(stretch(held.0, held.1)), Place::Held);
        }
        for mixed in [(0, 11), (19, 21), (5, 45), (15, 35), (19, 30), (20, 31)] {
            assert_eq!(ranges.place(stretch(mixed.0, mixed.1)), Place::Mixed);
        }
        for free in [(0, 10), (0, 1), (20, 30), (22, 25), (40, 50), (60, 61)] {
            assert_eq!(ranges.place(stretch(free.0, free.1)), Place::Free);
        }
        assert_eq!(
            ranges.missing(50),
            [stretch(0, 10), stretch(20, 30), stretch(40, 50)]
        );
    }

    #[test]
    fn there_may_be_so_many_stretches_and_no_more() {
        let mut ranges = Ranges::default();
        for i in 0..MOST_STRETCHES as u64 {
            ranges.add(stretch(10 * i, 10 * i + 5));
        }
        let end = 10 * MOST_STRETCHES as u64;
        assert_eq!(ranges.place(stretch(end, end + 1)), Place::TooScattered);
        assert_eq!(ranges.place(stretch(6, 7)), Place::TooScattered);
        assert_eq!(ranges.place(stretch(5, 7)), Place::Free);
        assert_eq!(ranges.place(stretch(end - 5, end)), Place::Free);
    }
}
