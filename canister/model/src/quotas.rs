//! How much callers may ask for: tokens a day, jobs at once, and nothing new when cycles run low.
//!
//! A listed user has a quota of their own. Callers whom only public mode lets in share one, for
//! anyone can make a new principal. Managers have none. A job takes its prompt and the longest
//! answer it asks for from the quota when it is taken in, and gives back what it did not need.

#![allow(
    clippy::needless_pass_by_value,
    reason = "Candid decodes arguments as owned values"
)]

use std::cell::RefCell;

use candid::{CandidType, Decode, Encode, Principal};
use ic_stable_structures::{Cell, StableBTreeMap};
use serde::Deserialize;

use crate::access::{Role, manager, role};
use crate::error::Error;
use crate::storage::{self, Region};
use crate::types::{Quotas, Usage};

/// Layout of the two regions.
const VERSION: u8 = 1;

/// Principals whose use is remembered; those of earlier days are forgotten first.
const MOST_REMEMBERED: u64 = 10_000;

const DAY: u64 = 86_400_000_000_000;

/// Whose quota the callers share whom only public mode lets in.
const PUBLIC: Principal = Principal::management_canister();

/// What was taken from a quota.
#[derive(CandidType, Deserialize, Clone, Default)]
pub struct Charge {
    /// Whose quota; none of a manager's.
    pub purse: Option<Principal>,
    day: u64,
    tokens: u64,
}

#[derive(CandidType, Deserialize, Clone, Copy, Default)]
struct Used {
    day: u64,
    tokens: u64,
}

struct Book {
    quotas: Cell<Vec<u8>, Region>,
    used: StableBTreeMap<Principal, Vec<u8>, Region>,
}

thread_local! {
    static BOOK: RefCell<Option<Book>> = const { RefCell::new(None) };
}

fn with<T>(work: impl FnOnce(&mut Book) -> T) -> T {
    BOOK.with_borrow_mut(|book| {
        let book = book.get_or_insert_with(|| {
            let region = |id| storage::with(|storage| storage.region_at(id));
            Book {
                quotas: Cell::init(region(storage::QUOTAS), Vec::new()),
                used: StableBTreeMap::init(region(storage::USAGE)),
            }
        });
        work(book)
    })
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            user_tokens_per_day: None,
            user_jobs: 32,
            public_tokens_per_day: Some(100_000),
            public_jobs: 32,
            queue: 128,
            cycles_floor: 200_000_000_000,
        }
    }
}

/// Stable memory holds quotas that this module can't read.
#[derive(Debug)]
pub struct UnknownQuotas;

/// Checks that the quotas in stable memory can be read; called when the canister starts.
///
/// # Errors
/// [`UnknownQuotas`] when a module of another version wrote them.
pub fn open() -> Result<(), UnknownQuotas> {
    with(|book| match book.quotas.get().split_first() {
        None => Ok(()),
        Some((&VERSION, encoded)) => Decode!(encoded, Quotas)
            .map(drop)
            .map_err(|_| UnknownQuotas),
        Some(_) => Err(UnknownQuotas),
    })
}

fn read<T: CandidType + for<'a> Deserialize<'a>>(value: &[u8]) -> Option<T> {
    match value.split_first() {
        Some((&VERSION, encoded)) => Decode!(encoded, T).ok(),
        _ => None,
    }
}

fn sealed<T: CandidType>(value: &T) -> Vec<u8> {
    // Records that are all in memory encode without fail.
    let mut sealed = vec![VERSION];
    sealed.extend(Encode!(value).unwrap_or_default());
    sealed
}

/// The quotas in force.
pub fn current() -> Quotas {
    with(|book| read(book.quotas.get())).unwrap_or_default()
}

fn today() -> u64 {
    ic_cdk::api::time() / DAY
}

fn used(purse: Principal) -> Used {
    let used = with(|book| book.used.get(&purse));
    let used: Used = used.and_then(|value| read(&value)).unwrap_or_default();
    if used.day == today() {
        return used;
    }
    Used {
        day: today(),
        tokens: 0,
    }
}

fn set_used(purse: Principal, used: Used) {
    with(|book| {
        if book.used.len() >= MOST_REMEMBERED && !book.used.contains_key(&purse) {
            let old = |value: &[u8]| read::<Used>(value).is_none_or(|u| u.day < used.day);
            let all = book.used.iter();
            let gone: Vec<Principal> = all
                .filter(|entry| old(&entry.value()))
                .map(|entry| *entry.key())
                .collect();
            for purse in gone {
                book.used.remove(&purse);
            }
        }
        book.used.insert(purse, sealed(&used));
    });
}

/// Whose quota pays for a caller, and how many tokens a day that is.
fn purse(caller: &Principal, quotas: &Quotas) -> (Option<Principal>, Option<u64>) {
    match role(caller) {
        Role::Manager => (None, None),
        Role::User => (Some(*caller), quotas.user_tokens_per_day),
        Role::Public => (Some(PUBLIC), quotas.public_tokens_per_day),
    }
}

/// How many jobs of one quota may be in the canister at once.
pub fn jobs_at_once(purse: Option<Principal>) -> u32 {
    match purse {
        None => u32::MAX,
        Some(PUBLIC) => current().public_jobs,
        Some(_) => current().user_jobs,
    }
}

/// Whether the canister has the cycles for new work.
///
/// # Errors
/// [`Error::LowOnCycles`].
pub fn afford_work(quotas: &Quotas) -> Result<(), Error> {
    let balance = ic_cdk::api::canister_cycle_balance();
    if balance < u128::from(quotas.cycles_floor) {
        return Err(Error::LowOnCycles {
            balance,
            floor: quotas.cycles_floor,
        });
    }
    Ok(())
}

/// Takes tokens from a caller's quota of today.
///
/// # Errors
/// [`Error::Quota`] when it has too few left, [`Error::LowOnCycles`] when the canister has; then
/// nothing is taken.
pub fn take(caller: &Principal, tokens: u64) -> Result<Charge, Error> {
    let quotas = current();
    afford_work(&quotas)?;
    let (purse, most) = purse(caller, &quotas);
    let Some(owner) = purse else {
        return Ok(Charge::default());
    };
    let before = used(owner);
    let after = before.tokens.saturating_add(tokens);
    if let Some(most) = most.filter(|&most| after > most) {
        return Err(Error::Quota {
            asked: tokens,
            left: most.saturating_sub(before.tokens),
            public: owner == PUBLIC,
        });
    }
    let day = before.day;
    set_used(owner, Used { day, tokens: after });
    Ok(Charge { purse, day, tokens })
}

/// Gives back what a job did not need.
pub fn give_back(charge: &Charge, needed: u64) {
    let unused = charge.tokens.saturating_sub(needed);
    if let (Some(owner), true) = (charge.purse, unused > 0) {
        let used = used(owner);
        if used.day == charge.day {
            let tokens = used.tokens.saturating_sub(unused);
            set_used(owner, Used { tokens, ..used });
        }
    }
}

#[ic_cdk::query]
fn quotas() -> Quotas {
    current()
}

#[ic_cdk::query]
fn usage() -> Usage {
    let caller = ic_cdk::api::msg_caller();
    let (purse, most) = purse(&caller, &current());
    let tokens = purse.map_or(0, |purse| used(purse).tokens);
    Usage {
        role: match role(&caller) {
            Role::Manager => "manager",
            Role::User => "user",
            Role::Public => "public",
        }
        .into(),
        tokens_today: tokens,
        tokens_left: most.map(|most| most.saturating_sub(tokens)),
    }
}

#[ic_cdk::update(guard = "manager")]
fn set_quotas(quotas: Quotas) -> Result<(), String> {
    if quotas.user_jobs == 0 || quotas.public_jobs == 0 || quotas.queue == 0 {
        return Err("user_jobs, public_jobs and queue must be at least 1: \
            to keep callers out, take them off the list or switch public mode off"
            .into());
    }
    with(|book| book.quotas.set(sealed(&quotas)));
    Ok(())
}
