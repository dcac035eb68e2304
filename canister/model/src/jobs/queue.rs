//! Who comes next: waiting jobs in the order of their callers, one job a turn.
//!
//! A caller with a hundred jobs waits no shorter for the second than another for the first: callers
//! take turns, and each one's own jobs keep the order they came in.

use std::collections::{BTreeMap, VecDeque};

use candid::Principal;

/// Waiting jobs by their numbers.
#[derive(Default)]
pub struct Queue {
    /// Callers with jobs that wait; the front one is next.
    turns: VecDeque<Principal>,
    waiting: BTreeMap<Principal, VecDeque<u64>>,
}

impl Queue {
    /// Adds a job behind its caller's others.
    pub fn push(&mut self, caller: Principal, job: u64) {
        self.jobs(caller).push_back(job);
    }

    /// Adds a job before its caller's others: it has run already.
    pub fn push_front(&mut self, caller: Principal, job: u64) {
        self.jobs(caller).push_front(job);
    }

    fn jobs(&mut self, caller: Principal) -> &mut VecDeque<u64> {
        if !self.waiting.contains_key(&caller) {
            self.turns.push_back(caller);
        }
        self.waiting.entry(caller).or_default()
    }

    /// The first job, in the order of turns, whose caller is wanted.
    pub fn peek(&self, wanted: impl Fn(&Principal) -> bool) -> Option<u64> {
        let caller = self.turns.iter().find(|caller| wanted(caller))?;
        self.waiting.get(caller)?.front().copied()
    }

    /// Takes a job out. If it was the first of its caller, that one's turn is over.
    pub fn remove(&mut self, caller: Principal, job: u64) {
        let Some(jobs) = self.waiting.get_mut(&caller) else {
            return;
        };
        let first = jobs.front() == Some(&job);
        jobs.retain(|&waiting| waiting != job);
        let empty = jobs.is_empty();
        if empty {
            self.waiting.remove(&caller);
        }
        if first || empty {
            self.turns.retain(|waiting| *waiting != caller);
        }
        if first && !empty {
            self.turns.push_back(caller);
        }
    }

    /// Jobs that wait.
    pub fn len(&self) -> usize {
        self.waiting.values().map(VecDeque::len).sum()
    }

    /// Whether no job waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(number: u8) -> Principal {
        Principal::from_slice(&[number])
    }

    fn drain(queue: &mut Queue, owners: &dyn Fn(u64) -> Principal) -> Vec<u64> {
        let mut order = Vec::new();
        while let Some(job) = queue.peek(|_| true) {
            queue.remove(owners(job), job);
            order.push(job);
        }
        order
    }

    fn owner(job: u64) -> Principal {
        caller((job / 10) as u8)
    }

    #[test]
    fn callers_take_turns() {
        let mut queue = Queue::default();
        for job in [10, 11, 12, 20, 13, 30, 21] {
            queue.push(owner(job), job);
        }
        assert_eq!(queue.len(), 7);
        assert_eq!(drain(&mut queue, &owner), [10, 20, 30, 11, 21, 12, 13]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_job_that_was_sent_back_comes_before_its_callers_others() {
        let mut queue = Queue::default();
        for job in [10, 11, 20] {
            queue.push(owner(job), job);
        }
        queue.push_front(owner(12), 12);
        assert_eq!(drain(&mut queue, &owner), [12, 20, 10, 11]);
    }

    #[test]
    fn a_cancelled_job_costs_its_caller_no_turn() {
        let mut queue = Queue::default();
        for job in [10, 11, 20] {
            queue.push(owner(job), job);
        }
        queue.remove(owner(11), 11);
        queue.remove(owner(11), 11);
        queue.remove(caller(9), 99);
        assert_eq!(drain(&mut queue, &owner), [10, 20]);
    }

    #[test]
    fn only_wanted_callers_are_asked() {
        let mut queue = Queue::default();
        for job in [10, 20, 30] {
            queue.push(owner(job), job);
        }
        assert_eq!(queue.peek(|one| *one == caller(2)), Some(20));
        assert_eq!(queue.peek(|one| *one == caller(9)), None);
    }
}
