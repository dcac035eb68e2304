//! From a packed file to a model: copying, and no more.
//!
//! A model that is larger than it may be in memory keeps as many of its first blocks there as fit;
//! the others stay in the file and are read when they are needed (see `streamed`).

use std::rc::Rc;

use crate::array::Array;
use crate::assemble::assemble;
use crate::checkpoint::Source;
use crate::config::Config;
use crate::format::{Format, PackedError};
use crate::model::Model;
use crate::streamed::Streamed;

/// A packed model being loaded.
pub struct Unpacker {
    config: Config,
    source: Rc<dyn Source>,
    format: Format,
    /// Blocks that stay in memory, and those that are read now: one more where others are read
    /// later, in the place of that one.
    held: usize,
    read: usize,
    memory: u64,
    /// Whether the weights are checked, and not the header alone.
    foreign: bool,
    /// What was read, by parts, and how far the next part has come.
    packed: Vec<(usize, Vec<Array>)>,
    part: usize,
    arrays: Vec<Array>,
    current: Option<Array>,
}

impl Unpacker {
    /// Checks the header of a packed file. At most `most` bytes of weights will be in memory.
    ///
    /// # Errors
    /// The file is not what this model needs, or even one block at a time does not fit.
    pub fn new(config: Config, source: Rc<dyn Source>, most: u64) -> Result<Unpacker, PackedError> {
        let format = Format::open(&config, &*source)?;
        let bytes = |layer| format.sections_of(layer).map(|section| section.bytes).sum();
        let (outside, block): (u64, u64) = (bytes(None), bytes(Some(0)));
        let layers = config.n_layer as u64;
        let (held, read) = if outside + layers * block <= most {
            (layers, layers)
        } else {
            let bytes = outside + block;
            let left = most.checked_sub(bytes);
            let left = left.ok_or(PackedError::TooLarge { bytes, most })?;
            (left / block, left / block + 1)
        };
        Ok(Unpacker {
            config,
            source,
            format,
            held: held as usize,
            read: read as usize,
            memory: outside + read * block,
            foreign: false,
            packed: Vec::new(),
            part: 0,
            arrays: Vec::new(),
            current: None,
        })
    }

    /// Distrusts the weights too: numbers must be finite, and sums may not overflow. What a `Packer`
    /// wrote and nobody could change needs no such look. Blocks that are not to be in memory are read
    /// for it one part at a time.
    #[must_use]
    pub fn distrusting(mut self) -> Unpacker {
        self.foreign = true;
        self
    }

    /// Bytes of weights that will be in memory.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Reads on until all is read (true), or until `may_continue`, asked before each piece and told
    /// how many bytes of the source that is, says no (false).
    ///
    /// # Errors
    /// [`PackedError::OutOfMemory`], or [`PackedError::Weights`] where they are distrusted.
    pub fn step(&mut self, may_continue: &mut dyn FnMut(u64) -> bool) -> Result<bool, PackedError> {
        while let Some((part, sections)) = self.format.parts.get(self.part) {
            let later = part.layer.is_some_and(|layer| layer >= self.read);
            if later && !self.foreign {
                self.part += 1;
                continue;
            }
            let Some(section) = sections.get(self.arrays.len()) else {
                let arrays = std::mem::take(&mut self.arrays);
                if !later {
                    self.packed.push((self.part, arrays));
                }
                self.part += 1;
                continue;
            };
            if !may_continue(section.bytes.min(Array::PIECE)) {
                return Ok(false);
            }
            let mut array = match self.current.take() {
                Some(array) => array,
                None => Array::with_room_for(section)
                    .ok_or_else(|| PackedError::OutOfMemory(part.name.clone()))?,
            };
            if array.read(&*self.source, section) {
                if self.foreign && !array.is_sound(part.matrix()) {
                    return Err(PackedError::Weights(part.name.clone()));
                }
                self.arrays.push(array);
            } else {
                self.current = Some(array);
            }
        }
        Ok(true)
    }

    /// The model, once a step has said that all is read.
    ///
    /// # Errors
    /// [`PackedError::Unfinished`].
    pub fn finish(self) -> Result<Model, PackedError> {
        self.model().ok_or(PackedError::Unfinished)
    }

    fn model(self) -> Option<Model> {
        let Unpacker {
            config,
            source,
            format,
            held,
            read,
            memory,
            packed,
            ..
        } = self;
        let parts = packed.into_iter();
        let parts = parts.filter_map(|(i, packed)| Some((&format.parts.get(i)?.0, packed)));
        let (precision, parameters) = (format.precision, format.parameters);
        let mut model = assemble(config, precision, parameters, parts, read)?;
        model.memory = memory;
        if held < model.config.n_layer {
            let buffer = model.layers.pop()?;
            let sections = |layer| format.sections_of(Some(layer)).copied().collect();
            let sections = (held..model.config.n_layer).map(sections).collect();
            model.streamed = Some(Streamed::new(source, held, sections, buffer));
        }
        Some(model)
    }
}
