//! Blocks of a model that are not in memory: each is read from the packed file when its turn comes,
//! over the one before it.
//!
//! Reading costs an instruction a byte and the pages of the source that are touched, so whoever runs
//! the model is asked before each block, and a pass may take more than one message.

use std::cell::{Ref, RefCell};
use std::ops::Deref;
use std::rc::Rc;

use crate::array::overwrite;
use crate::checkpoint::Source;
use crate::config::Config;
use crate::format::Section;
use crate::model::Layer;

/// The blocks from `first` on.
pub(crate) struct Streamed {
    source: Rc<dyn Source>,
    first: usize,
    /// Of each block, in the order of [`Layer::arrays_mut`].
    sections: Vec<Vec<Section>>,
    /// The block that was read last, and its number.
    buffer: RefCell<(usize, Layer)>,
}

/// A block's weights while they are used.
pub(crate) enum Lent<'a> {
    Held(&'a Layer),
    Read(Ref<'a, (usize, Layer)>),
}

impl Deref for Lent<'_> {
    type Target = Layer;

    fn deref(&self) -> &Layer {
        match self {
            Lent::Held(layer) => layer,
            Lent::Read(buffer) => &buffer.1,
        }
    }
}

impl Streamed {
    /// `buffer` is block `first`.
    pub fn new(
        source: Rc<dyn Source>,
        first: usize,
        sections: Vec<Vec<Section>>,
        buffer: Layer,
    ) -> Self {
        let buffer = RefCell::new((first, buffer));
        Self {
            source,
            first,
            sections,
            buffer,
        }
    }

    /// Bytes that are read when this block is needed now.
    pub fn bytes(&self, layer: usize) -> u64 {
        if self.buffer.borrow().0 == layer {
            return 0;
        }
        let sections = self.sections.get(layer.wrapping_sub(self.first));
        sections.map_or(0, |all| all.iter().map(|section| section.bytes).sum())
    }

    /// A block, read unless it was the last one too.
    pub fn layer(&self, config: &Config, layer: usize) -> Lent<'_> {
        if self.bytes(layer) > 0 {
            let mut buffer = self.buffer.borrow_mut();
            let (number, weights) = &mut *buffer;
            *number = layer;
            weights.scale = config.attention_scale(layer);
            let arrays = weights.arrays_mut(config);
            for (section, array) in self.sections[layer - self.first].iter().zip(arrays) {
                overwrite(&*self.source, section.offset, array);
            }
        }
        Lent::Read(self.buffer.borrow())
    }
}
