//! The memory of attention: keys and values of a sequence, a block of 64 positions at a time.
//!
//! Sequences that start alike share blocks. A block that is written to while another sequence holds
//! it is copied first, so sharing is never seen.

use std::rc::Rc;

use crate::attention;
use crate::rounded_attention;
use crate::weights::Precision;

/// Positions in one block.
pub const BLOCK: usize = 64;

/// Keys and values of all positions of one layer seen so far.
#[derive(Clone)]
pub struct Blocks<B>(Vec<Rc<B>>);

impl<B> Default for Blocks<B> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<B: Clone> Blocks<B> {
    /// The blocks that hold the positions up to `at`.
    pub fn upto(&self, at: usize) -> &[Rc<B>] {
        &self.0[..=at / BLOCK]
    }

    /// The block of position `at`, to be written. It may be the one behind the last.
    pub fn block(&mut self, at: usize, new: impl FnOnce() -> B) -> &mut B {
        if self.0.len() == at / BLOCK {
            self.0.push(Rc::new(new()));
        }
        Rc::make_mut(&mut self.0[at / BLOCK])
    }

    fn truncate(&mut self, positions: usize) {
        self.0.truncate(positions.div_ceil(BLOCK));
    }

    fn first(&self, positions: usize) -> Self {
        let blocks = positions.div_ceil(BLOCK).min(self.0.len());
        Self(self.0[..blocks].to_vec())
    }
}

/// Keys and values of one layer, held in 16 bits where the weights are quantised.
pub enum Cache {
    Floats(Blocks<attention::Block>),
    Rounded(Blocks<rounded_attention::Block>),
}

impl Cache {
    pub fn new(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Cache::Floats(Blocks::default()),
            Precision::Int8 | Precision::Int16 => Cache::Rounded(Blocks::default()),
        }
    }

    /// Forgets blocks in which none of the first `positions` lies.
    pub fn truncate(&mut self, positions: usize) {
        match self {
            Cache::Floats(blocks) => blocks.truncate(positions),
            Cache::Rounded(blocks) => blocks.truncate(positions),
        }
    }

    /// A cache with the first `positions`, sharing their blocks.
    pub fn first(&self, positions: usize) -> Self {
        match self {
            Cache::Floats(blocks) => Cache::Floats(blocks.first(positions)),
            Cache::Rounded(blocks) => Cache::Rounded(blocks.first(positions)),
        }
    }

    /// Blocks held, shared ones included.
    pub fn blocks(&self) -> usize {
        match self {
            Cache::Floats(blocks) => blocks.0.len(),
            Cache::Rounded(blocks) => blocks.0.len(),
        }
    }
}
