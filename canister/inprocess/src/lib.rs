//! The engine in a program's own process: a module of WebAssembly that its host calls directly.
//!
//! Numbers are arguments; everything else is bytes in the module's memory. What a call takes, the
//! host first writes to where [`exchange::input`] says; what it gives, the host finds where
//! [`exchange::answer`] says. A call returns 0 or more when it went well, else the negative of a
//! [`Failure`]'s kind, and then its text is the answer. The host lends a file to read and one to write
//! ([`host`]), so that no file is ever in memory as a whole.
//!
//! - [`packing`] makes the packed file of a checkpoint.
//! - [`loading`] brings a model into memory.
//! - [`running`] generates with it, many answers at once.

mod exchange;
mod failure;
mod host;
mod loading;
mod packing;
mod running;

pub use failure::Failure;
