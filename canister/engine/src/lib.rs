//! A GPT for small places: checkpoint in, token ids in, token ids out.
//!
//! The engine knows nothing of the Internet Computer. It runs wherever Rust does, and in WebAssembly
//! with SIMD at fewer than two metered instructions a multiplication. Long work is cut by the caller:
//! it asks a `may_continue` between its steps, and goes on in a later call.
//!
//! - [`Config`] reads `config.json`, [`Checkpoint`] the header of a safetensors file,
//!   [`Loader`] makes a [`Model`] of the two.
//! - [`Session`] is one sequence with its key and value cache, [`Generation`] one answer in the
//!   making, or several; a [`Batch`] runs generations together. [`Scoring`] judges a given text.
//! - [`Tokenizer`] stands beside them: the others see token ids only.
//!
//! ```
//! use icgpt_engine::{Batch, Checkpoint, Config, Generation, Loader, Request, Source};
//!
//! fn answer(
//!     config: &[u8],
//!     file: &dyn Source,
//!     request: Request,
//! ) -> Result<Vec<u32>, Box<dyn std::error::Error>> {
//!     let mut loader = Loader::new(Config::from_json(config)?, &Checkpoint::parse(file)?)?;
//!     while !loader.step(file, &mut || true)? {}
//!     let model = loader.finish()?;
//!     let mut batch = Batch::new(&model);
//!     batch.add(0, Generation::new(&model, request)?);
//!     while !batch.run(&model, &mut |_| true) {}
//!     Ok(batch.remove(0).map(|answer| answer.tokens().to_vec()).unwrap_or_default())
//! }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::float_cmp))]

mod array;
mod assemble;
mod attention;
mod batch;
mod beams;
#[cfg(not(feature = "clock"))]
mod block;
mod cache;
mod checkpoint;
#[cfg(feature = "clock")]
mod clock;
mod config;
mod exp;
mod family;
mod format;
mod gelu;
mod generation;
mod integers;
mod kernel;
mod linear;
mod load;
mod mask;
#[cfg(not(feature = "clock"))]
mod metered;
mod model;
mod norm;
mod packer;
mod packing;
mod pass;
mod plan;
mod quantised;
mod request;
mod rotary;
mod rounded_attention;
mod sampling;
mod scoring;
mod search;
mod session;
mod simd;
mod stop;
mod strand;
#[cfg(not(feature = "clock"))]
mod strassen;
mod streamed;
mod tokenizer;
mod unpacker;
mod weights;

pub use batch::{Batch, Step};
pub use beams::Line;
pub use checkpoint::{Checkpoint, CheckpointError, Source};
pub use config::{Activation, Config, ConfigError, Context, Template};
pub use family::Family;
pub use format::{PACKED_VERSION, PackedError};
pub use generation::Generation;
pub use load::{LoadError, Loader};
pub use model::Model;
pub use packer::{Hashing, PackError, Packer, Sink};
pub use plan::Problem;
pub use request::{Finish, MAX_BIAS, MAX_BIASES, Request, RequestError, Sequence};
pub use sampling::{Logprob, Sampling, SamplingError, TokenLogprobs, stream};
pub use scoring::Scoring;
pub use search::{EarlyStopping, MAX_BEAMS, MAX_SEQUENCES, Search, SearchError};
pub use session::{ForwardError, Session};
pub use stop::{StopError, StopStrings};
pub use tokenizer::{Encoding, Tokenizer, TokenizerError};
pub use unpacker::Unpacker;
pub use weights::{Precision, UnknownPrecision};

/// The engine draws nothing at random. What asks here are the hash tables of dependencies, which
/// only want some value, and the same one everywhere.
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(
    dest: *mut u8,
    len: usize,
) -> Result<(), getrandom::Error> {
    // SAFETY: getrandom hands over a writable buffer of `len` bytes.
    unsafe { core::ptr::write_bytes(dest, 0x5a, len) };
    Ok(())
}
