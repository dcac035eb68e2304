//! From a checkpoint to a packed file: weights are read, quantised where that was asked for, laid out
//! for the kernels and appended to a sink.
//!
//! Work is cut into steps of about a megabyte, and only one matrix is in memory at a time; of f32
//! weights, and of large embeddings where that is wanted, only a piece of one.

use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::array::Array;
use crate::checkpoint::{Checkpoint, Source};
use crate::config::Config;
use crate::format::Format;
use crate::load::{LoadError, Reading};
use crate::weights::Precision;

/// Bytes written and hashed at a time.
const AT_ONCE: usize = 1 << 20;

/// Where packed weights go: a file that grows at its end.
pub trait Sink {
    /// Appends bytes; false when there is no room for them.
    fn append(&mut self, bytes: &[u8]) -> bool;
}

impl Sink for Vec<u8> {
    fn append(&mut self, bytes: &[u8]) -> bool {
        self.extend_from_slice(bytes);
        true
    }
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn append(&mut self, bytes: &[u8]) -> bool {
        (**self).append(bytes)
    }
}

/// Passes everything on to another sink, and hashes it.
pub struct Hashing<S> {
    sink: S,
    hasher: Sha256,
}

impl<S: Sink> Hashing<S> {
    /// For a sink that has nothing yet.
    pub fn new(sink: S) -> Self {
        let hasher = Sha256::new();
        Self { sink, hasher }
    }

    /// The SHA-256 of all that was taken.
    #[must_use]
    pub fn sha256(self) -> [u8; 32] {
        self.hasher.finalize().into()
    }
}

impl<S: Sink> Sink for Hashing<S> {
    fn append(&mut self, bytes: &[u8]) -> bool {
        let taken = self.sink.append(bytes);
        if taken {
            self.hasher.update(bytes);
        }
        taken
    }
}

/// Why a checkpoint can't be packed.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum PackError {
    /// The checkpoint can't be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The sink took no more.
    #[error("there is no room for packed weights of {0} bytes")]
    NoRoom(u64),
}

/// A checkpoint being packed.
pub struct Packer {
    reading: Reading,
    format: Format,
    /// Arrays that were read last, whether their sections end with them, and what is written of the
    /// last one.
    waiting: Vec<(Array, bool)>,
    at: usize,
    header: Vec<u8>,
    /// Sections and bytes written, and whether the section under way has begun.
    section: usize,
    begun: bool,
    written: u64,
}

impl Packer {
    /// Checks that the checkpoint has all tensors, in the right shapes.
    ///
    /// # Errors
    /// [`LoadError::Mismatch`] names everything that is wrong.
    pub fn new(
        config: &Config,
        checkpoint: &Checkpoint,
        precision: Precision,
    ) -> Result<Packer, LoadError> {
        let reading = Reading::new(config, checkpoint, precision)?.in_pieces(u64::MAX);
        let format = Format::new(config, precision, reading.parameters());
        Ok(Packer {
            header: format.header(config),
            reading,
            format,
            waiting: Vec::new(),
            at: 0,
            section: 0,
            begun: false,
            written: 0,
        })
    }

    /// Holds quantised embeddings of more than `most` bytes only a piece at a time, and reads them
    /// more often for that: once for each pass of the kernel over the inputs.
    #[must_use]
    pub fn frugal(mut self, most: u64) -> Packer {
        self.reading = self.reading.in_pieces(most);
        self
    }

    /// Length of the packed file.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> u64 {
        self.format.len
    }

    /// Goes on until all is written (true), or until `may_continue`, asked before each piece, says
    /// no (false).
    ///
    /// # Errors
    /// A weight is not finite, memory is short, or the sink is full; packing can't go on then.
    pub fn step(
        &mut self,
        source: &dyn Source,
        sink: &mut dyn Sink,
        may_continue: &mut dyn FnMut() -> bool,
    ) -> Result<bool, PackError> {
        while self.written < self.format.len {
            if !may_continue() {
                return Ok(false);
            }
            if self.written == 0 {
                let header = std::mem::take(&mut self.header);
                self.write(sink, &header)?;
            } else if self.waiting.is_empty() {
                self.waiting = match self.reading.piece(source)? {
                    Some(arrays) => arrays.into_iter().rev().map(|one| (one, true)).collect(),
                    None => self
                        .reading
                        .ready()
                        .map(|one| (one, false))
                        .into_iter()
                        .collect(),
                };
            } else {
                self.write_piece(sink)?;
            }
        }
        Ok(true)
    }

    /// Writes on in the arrays that wait, the last one first.
    fn write_piece(&mut self, sink: &mut dyn Sink) -> Result<(), PackError> {
        let Some((array, ends)) = self.waiting.pop() else {
            return Ok(());
        };
        let bytes = array.bytes();
        if !self.begun {
            self.begun = true;
            let section = self.format.sections().nth(self.section);
            let gap = section.map_or(0, |section| section.offset - self.written);
            self.write(sink, &[0; 64][..gap as usize])?;
        }
        let end = bytes.len().min(self.at + AT_ONCE);
        self.write(sink, &bytes[self.at..end])?;
        if end < bytes.len() {
            self.at = end;
            self.waiting.push((array, ends));
        } else {
            self.at = 0;
            if ends {
                self.section += 1;
                self.begun = false;
            }
        }
        Ok(())
    }

    fn write(&mut self, sink: &mut dyn Sink, bytes: &[u8]) -> Result<(), PackError> {
        if !sink.append(bytes) {
            return Err(PackError::NoRoom(self.format.len));
        }
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Bytes of the checkpoint's weights packed so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.reading.done()
    }

    /// Bytes of the checkpoint's weights in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.reading.total()
    }

    /// Makes sure that all is written: before that a file's hash means nothing.
    ///
    /// # Errors
    /// [`LoadError::Unfinished`].
    pub fn finish(self) -> Result<(), LoadError> {
        if self.written < self.format.len {
            return Err(LoadError::Unfinished);
        }
        Ok(())
    }
}
