//! Several generations run together, in as many pieces as the caller likes.
//!
//! All members that have a next token share a pass through the model: a weight is loaded once for
//! all of them, which is cheaper than a pass for each. A member that weighs or writes several answers
//! has a row of each. Members still in their prompt take the rows that are left. How members are
//! grouped changes no member's tokens.

use std::collections::BTreeMap;

use crate::generation::Generation;
use crate::model::Model;
use crate::pass::{Pass, ROWS};
use crate::request::Finish;
use crate::sampling::Buffers;
use crate::session::{Session, Shape};

/// A step that is about to be run, for the caller to judge whether it still fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Rows (tokens) of the pass that the step belongs to; what a step takes grows with them.
    pub rows: usize,
    /// Bytes of weights that it reads from the source; 0 for models held in memory.
    pub bytes: u64,
}

/// A member's key, and one of its strands.
type Place = (u64, usize);

/// Generations by key, and the pass that they are in.
pub struct Batch {
    members: BTreeMap<u64, Generation>,
    shape: Shape,
    pass: Pass,
    /// For choosing tokens; all members take turns.
    buffers: Buffers,
    /// Those in the pass under way and their rows, in order.
    taking: Vec<(Place, usize)>,
    /// Behind whom the next pass begins to hand out rows.
    served: Place,
    /// Rows that a pass has at most.
    most: usize,
}

impl Batch {
    /// An empty batch for `model`.
    #[must_use]
    pub fn new(model: &Model) -> Batch {
        Batch {
            members: BTreeMap::new(),
            shape: Shape::of(model),
            pass: Pass::new(model.config()),
            buffers: Buffers::default(),
            taking: Vec::new(),
            served: (u64::MAX, usize::MAX),
            most: ROWS,
        }
    }

    /// Lets the passes from the next one on have so many rows at most, where what a whole pass takes
    /// would be too much for the caller. No fewer than one; the engine has its own bound.
    pub fn limit_rows(&mut self, most: usize) {
        self.most = most.clamp(1, ROWS);
    }

    /// Takes in a generation that was made for the batch's model, in place of the one that has the
    /// key now.
    pub fn add(&mut self, key: u64, generation: Generation) {
        self.remove(key);
        let mut generation = generation;
        if generation.shape() != self.shape {
            generation.end(Finish::Context);
        }
        self.members.insert(key, generation);
    }

    /// Takes a generation out, at any time. It can be added to a batch again and goes on.
    pub fn remove(&mut self, key: u64) -> Option<Generation> {
        while let Some(index) = self
            .taking
            .iter()
            .position(|&((taking, _), _)| taking == key)
        {
            self.taking.remove(index);
            self.pass.leave(index);
        }
        self.members.remove(&key)
    }

    /// A generation.
    #[must_use]
    pub fn get(&self, key: u64) -> Option<&Generation> {
        self.members.get(&key)
    }

    /// The same, to be told something; it stays in the pass that it is in.
    #[must_use]
    pub fn get_mut(&mut self, key: u64) -> Option<&mut Generation> {
        self.members.get_mut(&key)
    }

    /// The keys, in rising order.
    pub fn keys(&self) -> impl Iterator<Item = u64> {
        self.members.keys().copied()
    }

    /// Generations in the batch, the finished ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Goes on until all generations are finished (true), or until `may_continue` says no (false);
    /// a later call goes on. It is asked before each pass, which is then run to its end: the caller
    /// keeps in reserve what a whole step of as many rows takes. Where blocks of the model are not in
    /// memory, it is asked before each of these too, and a pass goes on in a later call.
    pub fn run(&mut self, model: &Model, may_continue: &mut dyn FnMut(Step) -> bool) -> bool {
        if Shape::of(model) != self.shape {
            let members = self.members.values_mut();
            members.for_each(|generation| generation.end(Finish::Context));
            return true;
        }
        loop {
            if !self.pass.is_under_way() {
                let (taking, served) = self.plan();
                let rows = taking.iter().map(|&(_, rows)| rows).sum();
                if rows == 0 {
                    return true;
                }
                if !may_continue(Step { rows, bytes: 0 }) {
                    return false;
                }
                (self.taking, self.served) = (taking, served);
                self.start(model);
            }
            let mut sessions = taking(&self.taking, &mut self.members);
            if !self.pass.run(model, &mut sessions, may_continue) {
                return false;
            }
            self.end();
        }
    }

    /// Who takes how many rows of the next pass, in order, and who was served last.
    ///
    /// Each strand gets a row as far as they go round; a pass with too many leaves the others to the
    /// next one. What is left goes to those that still have prompt to run, in equal shares.
    fn plan(&self) -> (Vec<(Place, usize)>, Place) {
        let (key, strand) = self.served;
        let behind = self.members.range(key..);
        let all = behind.chain(self.members.range(..=key)).enumerate();
        let places = all.flat_map(|(turn, (&member, generation))| {
            let strands = 0..generation.strands();
            // The member that was served last comes first with what is behind it, and last with all.
            let rest = strands.filter(move |&at| turn > 0 || member != key || at > strand);
            rest.map(move |at| (member, at, generation.pending(at).len()))
        });
        let wanting = places.filter(|&(.., pending)| pending > 0);
        let mut taking: Vec<(Place, usize, usize)> = Vec::new();
        for (member, at, pending) in wanting {
            let place = (member, at);
            if taking.len() == self.most || taking.first().is_some_and(|first| first.0 == place) {
                break;
            }
            taking.push((place, 1, pending));
        }
        let served = taking.last().map_or(self.served, |&(place, ..)| place);
        let mut left = self.most - taking.len();
        while left > 0 {
            let before = left;
            for (_, rows, pending) in &mut taking {
                if *rows < *pending && left > 0 {
                    *rows += 1;
                    left -= 1;
                }
            }
            if left == before {
                break;
            }
        }
        taking.sort_unstable();
        let taking = taking.into_iter().map(|(place, rows, _)| (place, rows));
        (taking.collect(), served)
    }

    fn start(&mut self, model: &Model) {
        let parts = self.taking.iter().filter_map(|&((key, strand), rows)| {
            let generation = self.members.get(&key)?;
            Some((
                generation.held(strand),
                generation.next(strand, rows),
                generation.wanted(strand, rows),
            ))
        });
        self.pass.start(model, parts);
    }

    /// Hands out what the pass found.
    fn end(&mut self) {
        let mut logits = self.pass.logits();
        for ((key, strand), rows) in self.taking.drain(..) {
            let Some(generation) = self.members.get_mut(&key) else {
                continue;
            };
            let wanted = generation.wanted(strand, rows) > 0;
            let logits = if wanted { logits.next() } else { None };
            generation.ran(strand, rows, logits, &mut self.buffers);
        }
    }
}

/// The sessions of a pass, in the order of its places.
fn taking<'a>(
    taking: &[(Place, usize)],
    members: &'a mut BTreeMap<u64, Generation>,
) -> Vec<&'a mut Session> {
    let mut places = taking.iter().map(|&(place, _)| place).peekable();
    let mut sessions = Vec::with_capacity(taking.len());
    for (&key, generation) in members {
        for (strand, session) in generation.sessions().enumerate() {
            if places.next_if_eq(&(key, strand)).is_some() {
                sessions.push(session);
            }
        }
    }
    sessions
}
