//! Work that outlasts one message: how much a message may do, and how the next one begins.
//!
//! The platform ends a message at 40 B instructions and takes back all it did. So long work stops
//! early by itself, calls this canister, and goes on in the reply's message with a fresh count.
//!
//! The counter that a canister can read includes the charge for each 64 KiB page that it touches
//! for the first time in a message, but not what the platform charges for written pages when the
//! message has ended. That, and the charge that the next step will cause, is kept in reserve.

use ic_cdk::api::instruction_counter;
use ic_cdk::call::Call;
use icgpt_engine::Step;

use crate::error::Error;
use crate::reckoning::{Load, after_writing, next_row, reading, touching};
use crate::storage;

/// What a query spends at most: its limit of 5 B, less what encoding the answer takes.
const MOST_PER_QUERY: u64 = 4_940_000_000;

/// What a message spends at most unless a manager chose less: its limit of 40 B, less what telling
/// and writing down the result takes, and what is charged for the pages written by that.
pub const MOST_PER_MESSAGE: u64 = 39_700_000_000;

/// What work that mostly writes memory spends at most: written pages are charged once more, after
/// the message, with up to a fifth of what writing them took.
const MOST_WRITING: u64 = 32_000_000_000;

/// The least that a manager can choose; below it messages would cost more than the work in them.
pub const LEAST_PER_MESSAGE: u64 = 1_000_000;

/// Stable memory that a message may touch is 2 GiB, in a query 1 GiB; less what else is read there.
/// A set-up has touched a byte for each 30 instructions before, or fewer: what it packed in the same
/// message.
const STABLE_PER_UPDATE: u64 = (2 << 30) - (64 << 20);
const STABLE_PER_QUERY: u64 = (1 << 30) - (64 << 20);
const INSTRUCTIONS_PER_BYTE: u64 = 16;

/// A message in which so little was done counts as fresh: what can't be cut may be done in it.
pub const FRESH: u64 = 2_000_000_000;

/// A piece of a file that is worked on, which for a stretch is a step of one row.
pub const PIECE: Step = Step { rows: 1, bytes: 0 };

/// What a message spends at most.
pub fn per_message() -> u64 {
    storage::with(|storage| storage.meta().per_message.unwrap_or(MOST_PER_MESSAGE))
}

/// What one message may spend on steps of long work: passes through the model, or pieces of a
/// set-up.
pub struct Stretch {
    /// Instructions that a further step may not pass.
    limit: u64,
    /// Bytes of stable memory that steps may still read.
    readable: u64,
    /// What the first pass pays for touching the weights.
    touch: u64,
    /// The dearest row seen, by this stretch or an earlier one of the same model.
    row: u64,
    last: Option<(u64, Step)>,
    /// Instructions that steps have taken since the last [`Stretch::end`].
    spent: u64,
    /// The next step is the first one of an update.
    must: bool,
}

impl Stretch {
    /// A stretch that spends about `most` instructions, and never more than fits an update message.
    pub fn update(most: u64, load: &Load) -> Self {
        let limit = most.min(per_message());
        let mut stretch = Self::new(limit, STABLE_PER_UPDATE, load);
        stretch.must = true;
        stretch.reserve(load.written);
        stretch
    }

    /// Leaves room for what the platform charges when so many bytes were written.
    pub fn reserve(&mut self, written: u64) {
        let room = MOST_PER_MESSAGE.saturating_sub(after_writing(written));
        self.limit = self.limit.min(room);
    }

    /// A stretch of a set-up, or of a look through an uploaded file.
    pub fn setting_up() -> Self {
        let limit = per_message().min(MOST_WRITING);
        let touched = instruction_counter() / INSTRUCTIONS_PER_BYTE;
        let readable = STABLE_PER_UPDATE.saturating_sub(touched);
        let mut stretch = Self::new(limit, readable, &Load::default());
        stretch.must = true;
        stretch
    }

    /// A stretch that fits a query.
    pub fn query(load: &Load) -> Self {
        Self::new(MOST_PER_QUERY, STABLE_PER_QUERY, load)
    }

    fn new(limit: u64, readable: u64, load: &Load) -> Self {
        Self {
            limit,
            readable,
            touch: touching(load.weights),
            row: load.row,
            last: None,
            spent: 0,
            must: false,
        }
    }

    /// Takes note of the step that has ended.
    fn settle(&mut self, now: u64) {
        if let Some((before, step)) = self.last.take() {
            let took = now.saturating_sub(before);
            let own = took.saturating_sub(self.touch + reading(step.bytes));
            self.touch = 0;
            self.row = self.row.max(own / step.rows.max(1) as u64);
            self.spent += took;
            self.readable = self.readable.saturating_sub(step.bytes);
        }
    }

    /// Whether the next step fits, judged by the dearest row so far.
    ///
    /// The first step in a fresh message always fits an update: what can't be cut must be done
    /// somewhere.
    pub fn more(&mut self, step: Step) -> bool {
        self.fits(step, instruction_counter())
    }

    fn fits(&mut self, step: Step, now: u64) -> bool {
        self.settle(now);
        let next = step.rows as u64 * next_row(self.row) + reading(step.bytes) + self.touch;
        let within = now + next <= self.limit && step.bytes <= self.readable;
        let fits = within || (self.must && now < FRESH);
        self.must = false;
        if fits {
            self.last = Some((now, step));
        }
        fits
    }

    /// Ends the step under way; gives what the steps since the last end took, and the dearest row.
    pub fn end(&mut self) -> (u64, u64) {
        self.settle(instruction_counter());
        (std::mem::take(&mut self.spent), self.row)
    }
}

/// Ends this message and goes on in the next one.
///
/// # Errors
/// [`Error::Platform`] when the canister can't call itself, for want of cycles for example.
pub async fn next_message() -> Result<(), Error> {
    Call::unbounded_wait(ic_cdk::api::canister_self(), "continue_work")
        .await
        .map(|_| ())
        .map_err(|e| Error::Platform(e.to_string()))
}

/// The method that [`next_message`] calls. It has nothing to do but to be a message.
#[ic_cdk::update(hidden = true, guard = "only_self")]
fn continue_work() {}

/// Guard of methods that only the canister itself may call.
///
/// # Errors
/// A text that says so.
pub fn only_self() -> Result<(), String> {
    if ic_cdk::api::msg_caller() == ic_cdk::api::canister_self() {
        Ok(())
    } else {
        Err("only the canister itself may call this method".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn load() -> Load {
        Load {
            weights: 0,
            written: 0,
            row: 1_000,
        }
    }

    fn step(rows: usize, bytes: u64) -> Step {
        Step { rows, bytes }
    }

    /// How many steps a stretch allows that take as much as they are reckoned to.
    fn steps(stretch: &mut Stretch, step: Step) -> u64 {
        let takes = step.rows as u64 * 1_000 + reading(step.bytes);
        (0..1_000)
            .find(|n| !stretch.fits(step, n * takes))
            .unwrap_or(0)
    }

    #[test]
    fn bytes_that_are_read_are_reckoned() {
        // Instructions would do for far more: an update may touch 2 GiB, a query 1 GiB.
        let mut update = Stretch::new(MOST_PER_MESSAGE, STABLE_PER_UPDATE, &load());
        assert_eq!(steps(&mut update, step(1, 100 * MB)), 19);
        let mut query = Stretch::new(MOST_PER_QUERY, STABLE_PER_QUERY, &load());
        assert_eq!(steps(&mut query, step(1, 100 * MB)), 9);
        // What reads nothing goes on, what reads little as far as there is room.
        assert!(query.fits(step(1, 0), 3_000_000_000));
        assert!(query.fits(step(1, 60 * MB), 3_000_000_000));
        assert!(!query.fits(step(1, MB), 3_200_000_000));
    }

    #[test]
    fn instructions_are_reckoned_by_the_dearest_row() {
        let mut stretch = Stretch::new(100_000, STABLE_PER_UPDATE, &load());
        assert_eq!(steps(&mut stretch, step(10, 0)), 9);
        // A row that took three times as much leaves room for fewer.
        let mut stretch = Stretch::new(100_000, STABLE_PER_UPDATE, &load());
        assert!(stretch.fits(step(10, 0), 0));
        assert!(stretch.fits(step(10, 0), 30_000));
        assert!(!stretch.fits(step(22, 0), 31_000));
        assert!(stretch.fits(step(21, 0), 31_000));
    }

    #[test]
    fn what_can_not_be_cut_is_done_in_a_fresh_message() {
        let heavy = step(32, 3_000 * MB);
        let fresh = || Stretch {
            must: true,
            ..Stretch::new(1_000_000, STABLE_PER_UPDATE, &load())
        };
        assert!(fresh().fits(heavy, FRESH - 1));
        assert!(!fresh().fits(heavy, FRESH));
        let mut stretch = fresh();
        assert!(stretch.fits(step(1, 0), 0));
        assert!(!stretch.fits(heavy, 1_000));
    }
}
