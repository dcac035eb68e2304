//! The packed file: a model's weights as the kernels want them in memory, so that loading is copying.
//!
//! Little-endian. A header, then the sections, each an array as it lies in memory, each at a
//! multiple of 64 bytes, zeros between them:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `\x89icgptW\n` |
//! | 4, 4 | version of this layout; bits of a weight (32, 16, 8) |
//! | 8, 8 | length of the file; number of weights, as the checkpoint counts them |
//! | 4, 4 | length of the header; number of sections |
//! | 4 each | sizes and settings that the weights belong to (`FIELDS`) |
//! | 8, 8 each | offset and length of each section |
//!
//! Which sections there are follows from the configuration and the precision: a matrix is its
//! weights and, unless they are f32, a scale for each output; a vector is padded floats. So a file
//! is foreign until every byte of its header is what it has to be, and nothing in it is believed.

use thiserror::Error;

use crate::checkpoint::Source;
use crate::config::{Activation, Config};
use crate::family::Family;
use crate::linear::packed_len;
use crate::plan::{Part, Plan};
use crate::simd::padded;
use crate::weights::Precision;

/// Version of the layout that is written and read. It rises when any array's layout changes.
pub const PACKED_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"\x89icgptW\n";
const ALIGNMENT: u64 = 64;
const FIELDS: [&str; 13] = [
    "model_type",
    "rotary_dim",
    "n_layer",
    "n_head",
    "n_embd",
    "n_ctx",
    "n_inner",
    "vocab_size",
    "activation_function",
    "tie_word_embeddings",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    "layer_norm_epsilon",
];
const START: usize = 40;
const FIXED: usize = START + 4 * FIELDS.len();

/// Why packed weights are refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum PackedError {
    /// It has no packed file's beginning.
    #[error("these are no packed weights")]
    NotPacked,
    /// Another version of the engine packed them.
    #[error(
        "the weights are packed in layout {found}; this version reads layout {PACKED_VERSION}: \
         pack them again from the checkpoint"
    )]
    Version {
        /// The file's layout.
        found: u32,
    },
    /// Weights of so many bits are not known.
    #[error("the weights have {0} bits; 8, 16 and 32 are known")]
    Bits(u32),
    /// They were packed for a model of other sizes or settings.
    #[error("the weights are packed for another model: {0} is not what config.json says")]
    OtherModel(&'static str),
    /// The file has not the length that its contents need.
    #[error(
        "the packed weights have {found} bytes instead of {expected}: they are truncated or damaged"
    )]
    Length {
        /// Bytes that are needed.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// The header contradicts itself.
    #[error("the header of the packed weights is damaged")]
    Header,
    /// A number is infinite or not a number, or the weights of an output are too large to be summed.
    #[error("the packed weights of {0} can't be computed with: they are damaged")]
    Weights(String),
    /// The model would not fit in memory.
    #[error("the model takes {bytes} bytes in memory; at most {most} fit")]
    TooLarge {
        /// Bytes needed at least.
        bytes: u64,
        /// Bytes allowed.
        most: u64,
    },
    /// Memory could not be had.
    #[error("no memory for {0}")]
    OutOfMemory(String),
    /// `finish` was called before a step said that all is read.
    #[error("loading is not finished yet")]
    Unfinished,
}

/// What a section's array is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    Floats,
    Int8,
    Int16,
}

/// One array of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub element: Element,
    pub offset: u64,
    pub bytes: u64,
}

impl Section {
    pub fn end(&self) -> u64 {
        self.offset + self.bytes
    }
}

/// The contents of a packed file: what its header says.
pub(crate) struct Format {
    pub precision: Precision,
    pub parameters: u64,
    /// Each part of the model and its sections, in the file's order.
    pub parts: Vec<(Part, Vec<Section>)>,
    pub len: u64,
}

impl Format {
    /// The format of such a model.
    pub fn new(config: &Config, precision: Precision, parameters: u64) -> Self {
        let parts = Plan::outline(config).into_iter();
        let mut parts: Vec<_> = parts
            .map(|part| {
                let sections = sections(&part, precision);
                (part, sections)
            })
            .collect();
        let count = parts.iter().map(|(_, sections)| sections.len()).sum();
        let mut len = header_len(count);
        for section in parts.iter_mut().flat_map(|(_, sections)| sections) {
            section.offset = len.next_multiple_of(ALIGNMENT);
            len = section.end();
        }
        Self {
            precision,
            parameters,
            parts,
            len,
        }
    }

    /// All sections, in the file's order.
    pub fn sections(&self) -> impl Iterator<Item = &Section> {
        self.parts.iter().flat_map(|(_, sections)| sections)
    }

    /// The sections of a block, or of what is in no block.
    pub fn sections_of(&self, layer: Option<usize>) -> impl Iterator<Item = &Section> {
        let parts = self
            .parts
            .iter()
            .filter(move |(part, _)| part.layer == layer);
        parts.flat_map(|(_, sections)| sections)
    }

    /// Checks a file's header against the model that it is wanted for.
    pub fn open(config: &Config, source: &dyn Source) -> Result<Self, PackedError> {
        let found = source.len();
        let mut start = [0; FIXED];
        let readable = (FIXED as u64).min(found) as usize;
        source.read(0, &mut start[..readable]);
        if !start.starts_with(&MAGIC) {
            return Err(PackedError::NotPacked);
        }
        if word(&start, 8) != PACKED_VERSION && readable >= 12 {
            return Err(PackedError::Version {
                found: word(&start, 8),
            });
        }
        if readable < FIXED {
            let expected = header_len(0);
            return Err(PackedError::Length { expected, found });
        }
        let bits = word(&start, 12);
        let known = [Precision::F32, Precision::Int8, Precision::Int16];
        let precision = known
            .into_iter()
            .find(|one| one.bytes() * 8 == u64::from(bits));
        let precision = precision.ok_or(PackedError::Bits(bits))?;
        for (i, (name, want)) in FIELDS.into_iter().zip(fields(config)).enumerate() {
            if word(&start, START + 4 * i) != want {
                return Err(PackedError::OtherModel(name));
            }
        }
        let parameters = u64::from(word(&start, 24)) | u64::from(word(&start, 28)) << 32;
        let format = Self::new(config, precision, parameters);
        if found != format.len {
            let expected = format.len;
            return Err(PackedError::Length { expected, found });
        }
        let want = format.header(config);
        let mut header = vec![0; want.len()];
        source.read(0, &mut header);
        let weights = |(part, _): &(Part, _)| part.rows as u64 * part.columns as u64;
        let most: u64 = format.parts.iter().map(weights).sum();
        if header != want || parameters > most {
            return Err(PackedError::Header);
        }
        Ok(format)
    }

    /// The header's bytes, up to the first section.
    pub fn header(&self, config: &Config) -> Vec<u8> {
        let count = self.sections().count();
        let len = header_len(count);
        let mut header = MAGIC.to_vec();
        header.extend(PACKED_VERSION.to_le_bytes());
        header.extend((self.precision.bytes() as u32 * 8).to_le_bytes());
        header.extend(self.len.to_le_bytes());
        header.extend(self.parameters.to_le_bytes());
        header.extend((len as u32).to_le_bytes());
        header.extend((count as u32).to_le_bytes());
        header.extend(fields(config).into_iter().flat_map(u32::to_le_bytes));
        for section in self.sections() {
            header.extend(section.offset.to_le_bytes());
            header.extend(section.bytes.to_le_bytes());
        }
        header.resize(len as usize, 0);
        header
    }
}

fn header_len(sections: usize) -> u64 {
    (FIXED as u64 + 16 * sections as u64).next_multiple_of(ALIGNMENT)
}

fn word(bytes: &[u8; FIXED], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// What the weights belong to, in the order of `FIELDS`.
fn fields(config: &Config) -> [u32; FIELDS.len()] {
    let (family, rotary_dim) = match config.family {
        Family::Gpt2 => (0, 0),
        Family::GptJ { rotary_dim } => (1, rotary_dim as u32),
    };
    [
        family,
        rotary_dim,
        config.n_layer as u32,
        config.n_head as u32,
        config.n_embd as u32,
        config.n_ctx as u32,
        config.n_inner as u32,
        config.vocab_size as u32,
        match config.activation {
            Activation::GeluNew => 0,
            Activation::Gelu => 1,
        },
        config.tie_word_embeddings.into(),
        config.scale_attn_weights.into(),
        config.scale_attn_by_inverse_layer_idx.into(),
        config.layer_norm_epsilon.to_bits(),
    ]
}

/// A part's sections, not placed yet.
fn sections(part: &Part, precision: Precision) -> Vec<Section> {
    let section = |element, bytes| Section {
        element,
        offset: 0,
        bytes,
    };
    let Some((n_in, n_out)) = part.matrix() else {
        let floats = part.rows as u64 * padded(part.columns) as u64;
        return vec![section(Element::Floats, floats * 4)];
    };
    let weights = padded(n_in) as u64 * padded(n_out) as u64;
    let scales = section(Element::Floats, padded(n_out) as u64 * 4);
    match precision {
        Precision::F32 => vec![section(Element::Floats, packed_len(n_in, n_out) * 16)],
        Precision::Int8 => vec![section(Element::Int8, weights), scales],
        Precision::Int16 => vec![section(Element::Int16, weights * 2), scales],
    }
}
