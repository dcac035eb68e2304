//! Keys and values of finished answers, kept for a prompt that goes on where one ended.
//!
//! A session that starts with the same tokens is forked: the fork shares the memory of what both
//! have in common, so a template's prefix is held once however many answers began with it. The
//! longest unused are forgotten first. Reusing changes no token, only what it costs.

use icgpt_engine::{Model, Session};

/// A shorter common start is not worth a fork.
const LEAST_COMMON: usize = 2;

/// Sessions kept; each one more makes the search longer.
const MOST_KEPT: usize = 64;

/// Kept sessions, the longest unused first.
#[derive(Default)]
pub struct Sessions(Vec<Session>);

fn common(held: &[u32], wanted: &[u32]) -> usize {
    held.iter().zip(wanted).take_while(|(a, b)| a == b).count()
}

impl Sessions {
    /// The session that has most of the wanted tokens' beginning, and how much of it.
    fn best(&self, wanted: &[u32]) -> Option<(usize, usize)> {
        let all = self.0.iter().enumerate();
        let (at, length) = all
            .map(|(at, session)| (at, common(session.tokens(), wanted)))
            .max_by_key(|&(_, length)| length)?;
        (length >= LEAST_COMMON).then_some((at, length))
    }

    /// A session to begin with, holding as much of the wanted tokens as any kept one has.
    pub fn take(&mut self, model: &Model, wanted: &[u32]) -> Session {
        let Some((at, length)) = self.best(wanted) else {
            return Session::new(model);
        };
        let found = self.0.remove(at);
        let fork = found.fork(length);
        // All of it may be a part of the new answer, which will be kept in its place.
        if length < found.len() {
            self.0.push(found);
        }
        fork
    }

    /// The same, leaving everything as it is.
    pub fn look(&self, model: &Model, wanted: &[u32]) -> Session {
        match self.best(wanted) {
            Some((at, length)) => self.0[at].fork(length),
            None => Session::new(model),
        }
    }

    /// Keeps a session, and forgets the longest unused until all of them fit into `room` bytes.
    pub fn keep(&mut self, session: Session, room: u64) {
        if session.len() < LEAST_COMMON {
            return;
        }
        self.0.push(session);
        while self.0.len() > MOST_KEPT || self.bytes() > room {
            self.0.remove(0);
        }
    }

    /// Bytes that they take, what they share counted for each.
    fn bytes(&self) -> u64 {
        self.0.iter().map(|session| session.bytes() as u64).sum()
    }
}
