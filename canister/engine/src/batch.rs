//! Several generations run together, in as many pieces as the caller likes.
//!
//! All members that have a next token share a pass through the model: a weight is loaded once for
//! all of them, which is cheaper than a pass for each. Members still in their prompt take the rows
//! that are left. How members are grouped changes no member's tokens.

use std::collections::BTreeMap;

use crate::generation::{Finish, Generation};
use crate::model::Model;
use crate::pass::{Pass, ROWS};
use crate::sampling::Buffers;
use crate::session::Shape;

/// A step that is about to be run, for the caller to judge whether it still fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Rows (tokens) of the pass that the step belongs to; what a step takes grows with them.
    pub rows: usize,
    /// Bytes of weights that it reads from the source; 0 for models held in memory.
    pub bytes: u64,
}

/// Generations by key, and the pass that they are in.
pub struct Batch {
    members: BTreeMap<u64, Generation>,
    shape: Shape,
    pass: Pass,
    /// For choosing tokens; all members take turns.
    buffers: Buffers,
    /// Members of the pass under way and their rows, in the order of their keys.
    taking: Vec<(u64, usize)>,
    /// The member behind which the next pass begins to hand out rows.
    served: u64,
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
            served: u64::MAX,
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
        if let Some(index) = self.taking.iter().position(|&(taking, _)| taking == key) {
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
            let mut sessions: Vec<_> = taking(&self.taking, &mut self.members)
                .map(|(generation, _)| generation.session())
                .collect();
            if !self.pass.run(model, &mut sessions, may_continue) {
                return false;
            }
            self.end(model);
        }
    }

    /// Who takes how many rows of the next pass, in the order of keys, and who was served last.
    ///
    /// Each member gets a row as far as they go round; a pass with too many members leaves the
    /// others to the next one. What is left goes to those that still have prompt to run, in equal
    /// shares.
    fn plan(&self) -> (Vec<(u64, usize)>, u64) {
        let behind = self
            .members
            .range(self.served..)
            .skip_while(|&(&key, _)| key == self.served);
        let all = behind.chain(self.members.range(..=self.served));
        let wanting = all.filter_map(|(&key, generation)| match generation.pending().len() {
            0 => None,
            pending => Some((key, 1, pending)),
        });
        let mut taking: Vec<(u64, usize, usize)> = wanting.take(self.most).collect();
        let served = taking.last().map_or(self.served, |&(key, ..)| key);
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
        let taking = taking.into_iter().map(|(key, rows, _)| (key, rows));
        (taking.collect(), served)
    }

    fn start(&mut self, model: &Model) {
        let parts = self.taking.iter().filter_map(|(key, rows)| {
            let generation = self.members.get(key)?;
            Some((
                generation.held(),
                generation.next(*rows),
                generation.wanted(*rows),
            ))
        });
        self.pass.start(model, parts);
    }

    /// Hands out what the pass found.
    fn end(&mut self, model: &Model) {
        let mut logits = self.pass.logits();
        for (generation, rows) in taking(&self.taking, &mut self.members) {
            let wanted = generation.wanted(rows) > 0;
            let logits = if wanted { logits.next() } else { None };
            generation.ran(rows, logits, model.config().n_ctx, &mut self.buffers);
        }
        self.taking.clear();
    }
}

/// The members of a pass with their rows, in the order of their keys.
fn taking<'a>(
    taking: &'a [(u64, usize)],
    members: &'a mut BTreeMap<u64, Generation>,
) -> impl Iterator<Item = (&'a mut Generation, usize)> {
    let mut taking = taking.iter();
    let mut next = taking.next();
    members.iter_mut().filter_map(move |(key, generation)| {
        let &(_, rows) = next.filter(|(taking, _)| taking == key)?;
        next = taking.next();
        Some((generation, rows))
    })
}
