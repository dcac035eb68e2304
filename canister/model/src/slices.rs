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

/// The platform's page, in bytes, and its charges: when it is first touched (before it is first
/// written it is charged as much again), and for a written one after the message.
const PAGE: u64 = 65_536;
const TOUCHED: u64 = 80_000;
const AFTER: u64 = 48_000;

/// Stable memory that a message may touch is 2 GiB, in a query 1 GiB; less what else is read there.
const STABLE_PER_UPDATE: u64 = (2 << 30) - (64 << 20);
const STABLE_PER_QUERY: u64 = (1 << 30) - (64 << 20);

/// A message in which so little was done counts as fresh: what can't be cut may be done in it.
const FRESH: u64 = 2_000_000_000;

/// What a message spends at most.
pub fn per_message() -> u64 {
    storage::with(|storage| storage.meta().per_message.unwrap_or(MOST_PER_MESSAGE))
}

/// What touching so many bytes of the heap for the first time in a message takes.
pub fn touching(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE) * TOUCHED
}

/// What the platform charges after a message that may have written so many bytes.
pub fn after_writing(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE) * AFTER
}

/// The part of a message's instructions that one stretch of work may use.
pub struct Budget {
    limit: u64,
    last: Option<u64>,
    longest: u64,
}

impl Budget {
    /// All that a message may spend.
    pub fn whole() -> Self {
        Self {
            limit: per_message().min(MOST_WRITING),
            last: None,
            longest: 0,
        }
    }

    /// Whether one more step fits, judged by the longest step so far.
    ///
    /// The first step of a budget always fits: what can't be cut must be done somewhere.
    pub fn more(&mut self) -> bool {
        let now = instruction_counter();
        let Some(last) = self.last.replace(now) else {
            return true;
        };
        self.longest = self.longest.max(now - last);
        // A step costs a little more than the one before it, as the context grows.
        now + self.longest + self.longest / 8 <= self.limit
    }
}

/// What one message may spend on passes through the model.
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

/// What a stretch must know of the model and the memory it works on.
pub struct Load {
    /// Bytes of weights that lie in the heap.
    pub weights: u64,
    /// Bytes that the stretch may write: keys and values.
    pub written: u64,
    /// The dearest row of an earlier stretch, or a guess.
    pub row: u64,
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
        let now = instruction_counter();
        self.settle(now);
        let row = self.row + self.row / 16;
        let next = step.rows as u64 * row + reading(step.bytes) + self.touch;
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

/// What reading weights from stable memory takes: each byte, and the pages that they lie in and
/// are read into.
fn reading(bytes: u64) -> u64 {
    bytes + bytes.div_ceil(PAGE) * TOUCHED
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
