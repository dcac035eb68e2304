//! Work that outlasts one message: how much a message may do, and how the next one begins.
//!
//! The platform ends a message at 40 B instructions and takes back all it did. So long work stops
//! early by itself, calls this canister, and goes on in the reply's message with a fresh count.

use ic_cdk::api::instruction_counter;
use ic_cdk::call::Call;

use crate::error::Error;
use crate::storage;

/// What a message spends at most unless a manager chose less: the limit of 40 B, less a reserve for
/// the pages it touched (charged by the platform on top) and for encoding the reply.
pub const MOST_PER_MESSAGE: u64 = 32_000_000_000;

/// The least that a manager can choose; below it messages would cost more than the work in them.
pub const LEAST_PER_MESSAGE: u64 = 1_000_000;

/// What a message spends at most.
pub fn per_message() -> u64 {
    storage::with(|storage| storage.meta().per_message.unwrap_or(MOST_PER_MESSAGE))
}

/// The part of a message's instructions that one stretch of work may use.
pub struct Budget {
    limit: u64,
    last: Option<u64>,
    longest: u64,
}

impl Budget {
    /// A budget that ends when the message's instruction counter reaches `limit`, or what a message
    /// may spend at most if that is less.
    pub fn until(limit: u64) -> Self {
        Self {
            limit: limit.min(per_message()),
            last: None,
            longest: 0,
        }
    }

    /// All that a message may spend.
    pub fn whole() -> Self {
        Self::until(u64::MAX)
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

fn only_self() -> Result<(), String> {
    if ic_cdk::api::msg_caller() == ic_cdk::api::canister_self() {
        Ok(())
    } else {
        Err("only the canister itself may call this method".into())
    }
}
