//! Who drives the common stretch of work: the calls that wait, in turn, and a timer for the rest.
//!
//! A call that waits comes back to a message of its own again and again. If nobody has worked since
//! it last looked, it runs a stretch for everyone; else it only looks whether its job has ended. So
//! there is one stretch a round, however many wait.
//!
//! Jobs that no call waits for are driven by the canister's timer. It sets itself again before it
//! has any work done, and the work is a message of its own: so a trap there takes back the work but
//! not the timer, and neither a trap nor a killed replica leaves a job hanging.

use std::cell::Cell;

use ic_cdk::api::{canister_self, global_timer_set, time};
use ic_cdk::call::{Call, CallFailed, RejectCode};
use ic_cdk::futures::spawn;
use ic_cdk_executor::in_tracking_executor_context;

use super::desk;
use crate::certified;
use crate::reckoning::touching;
use crate::serving;
use crate::slices::{self, only_self};

/// A job shows its first tokens soon and then takes longer stretches, since every message pays
/// again for touching the weights.
const FIRST_STRETCH: u64 = 200_000_000;
const LONGEST_STRETCH: u64 = 4_000_000_000;

/// How often the timer looks while others work, or tries again what failed: nanoseconds.
const PAUSE: u64 = 2_000_000_000;

/// Traps without a success between them after which running jobs are begun anew, and after which
/// they are given up.
const BEGIN_ANEW: u32 = 2;
const GIVE_UP: u32 = 4;

thread_local! {
    /// Stretches so far.
    static STRETCHES: Cell<u64> = const { Cell::new(0) };
    /// How many there were when the timer last looked.
    static TIMER_SAW: Cell<u64> = const { Cell::new(0) };
    /// Stretches that trapped since one last succeeded.
    static TRAPS: Cell<u32> = const { Cell::new(0) };
    /// Length of the next stretch that is watched.
    static LENGTH: Cell<u64> = const { Cell::new(0) };
    /// Jobs that had come in when the last stretch began.
    static ENTERED: Cell<u64> = const { Cell::new(0) };
}

/// Runs one stretch for everyone.
fn work(now: u64) {
    let most = slices::per_message();
    let touch = serving::model().map_or(0, |model| touching(model.memory()));
    desk::with(|desk| {
        let newcomers = desk.entered() != ENTERED.replace(desk.entered());
        let length = if newcomers { 0 } else { LENGTH.get() };
        let longest = LONGEST_STRETCH.max(16 * touch);
        let length = (2 * length).clamp(FIRST_STRETCH + 2 * touch, longest);
        LENGTH.set(length);
        let length = if desk.all_awaited() { most } else { length };
        desk.stretch(length.min(most), now);
    });
    STRETCHES.set(STRETCHES.get() + 1);
}

/// A waiting call's turn to work.
pub struct Turn(u64);

impl Turn {
    /// The first one is at once.
    pub fn new() -> Self {
        Self(STRETCHES.get())
    }

    /// Works if nobody has since the last turn.
    pub fn take(&mut self, now: u64) {
        if STRETCHES.get() == self.0 {
            work(now);
        }
        self.0 = STRETCHES.get();
    }
}

/// Has the timer begin at once.
pub fn begin() {
    TIMER_SAW.set(STRETCHES.get());
    global_timer_set(time());
}

/// Has the timer look after calls that vanish.
pub fn look_after() {
    global_timer_set(time() + PAUSE);
}

/// The canister's timer.
#[unsafe(export_name = "canister_global_timer")]
extern "C" fn wake() {
    certified::refresh();
    if desk::with(|desk| desk.is_idle()) {
        return;
    }
    look_after();
    if STRETCHES.get() == TIMER_SAW.replace(STRETCHES.get()) {
        in_tracking_executor_context(|| spawn(send()));
    }
}

/// Has a stretch run in a message of its own.
async fn send() {
    let sent = Call::unbounded_wait(canister_self(), "run_jobs").await;
    // What can't be sent, for want of cycles, the timer tries again; a trap may come again.
    if let Err(CallFailed::CallRejected(rejected)) = sent
        && rejected.reject_code() == Ok(RejectCode::CanisterError)
    {
        TRAPS.set(TRAPS.get() + 1);
        desk::with(|desk| match TRAPS.get() {
            BEGIN_ANEW => desk.dissolve(),
            GIVE_UP.. => {
                // Others may be stuck for other reasons; they get as many attempts.
                TRAPS.set(0);
                desk.give_up();
            }
            _ => {}
        });
    }
}

/// The method that the timer calls: a stretch in a message of its own.
#[ic_cdk::update(hidden = true, guard = "only_self")]
fn run_jobs() {
    certified::refresh();
    work(time());
    TRAPS.set(0);
    if !desk::with(|desk| desk.is_idle()) {
        begin();
    }
}
