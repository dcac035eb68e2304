//! Why a call is refused. The text is what a user reads, so it says what to do next.

use std::fmt;

use icgpt_engine::{
    CheckpointError, ConfigError, LoadError, PackError, PackedError, RequestError, TokenizerError,
    UnknownPrecision,
};
use icgpt_request::Refusal;

use crate::files::Kind;

/// A call that can't be served.
#[derive(Debug)]
pub enum Error {
    /// No model was set up.
    NoModel,
    /// No tokenizer was set up.
    NoTokenizer,
    /// Nothing of this file has been uploaded.
    NothingUploaded(Kind),
    /// The file would grow past its limit.
    TooLarge(Kind, u64),
    /// Stable memory could not grow.
    OutOfStableMemory,
    /// `store` comes before `load` and set-up.
    NotStored(Kind),
    /// The upload is finished; it takes no more bytes until it is cleared.
    AlreadyStored(Kind),
    /// It was begun by `begin`, so `commit` is what ends it.
    Begun(Kind),
    /// No upload of chunks was begun.
    NotBegun(Kind),
    /// A SHA-256 has 32 bytes.
    Sha256,
    /// A file has at least a byte.
    Empty(Kind),
    /// A chunk of nothing, or beyond the length that was begun with.
    OutOfFile(Kind, u64),
    /// A chunk that is there already, with other bytes.
    OtherBytes(Kind, u64),
    /// A chunk of which a part is there already.
    Overlap(Kind, u64),
    /// Too many holes between the chunks.
    TooScattered(Kind),
    /// So many bytes have not arrived.
    Missing(Kind, u64),
    /// The upload was begun with another SHA-256.
    OtherUpload(Kind),
    /// All has arrived, and is not what was said.
    WrongHash(Kind),
    /// Files can't change while `setup_model` reads them.
    SettingUp,
    /// `config.json` is not usable.
    Config(ConfigError),
    /// The safetensors file is not usable.
    Checkpoint(CheckpointError),
    /// Its tensors don't make this model.
    Load(LoadError),
    /// This can't be the name of a model, which has at most so many characters.
    Name(usize),
    /// No precision has this name.
    Precision(UnknownPrecision),
    /// The checkpoint can't be packed.
    Pack(PackError),
    /// The packed weights can't be loaded.
    Packed(PackedError),
    /// The stored weights are packed in another layout, and too large to be packed again in passing.
    NeedsSetUp,
    /// The same, and the checkpoint was never here.
    NeedsUpload,
    /// The live weights were uploaded packed, in this precision.
    NoCheckpoint(String),
    /// The model must make way for a large one, but generations run on it.
    ModelInUse,
    /// More heap than a canister can spare for weights.
    HeapForWeights(u64),
    /// `tokenizer.json` is not usable.
    Tokenizer(TokenizerError),
    /// The tokenizer has ids that the model does not.
    Vocabulary {
        /// The tokenizer's highest id.
        max_id: u32,
        /// The model's number of tokens.
        vocab_size: usize,
    },
    /// The request can't be run.
    Request(RequestError),
    /// The request's options are not usable.
    Options(Refusal),
    /// One of `generate`'s own limits.
    Limit(&'static str),
    /// A token id without a token.
    UnknownToken(u32),
    /// Too many jobs wait.
    Busy(usize),
    /// The caller has too many jobs.
    TooManyJobs(u32),
    /// Too few tokens are left of the caller's quota.
    Quota {
        /// Tokens asked for, prompt and answer.
        asked: u64,
        /// Tokens left today.
        left: u64,
        /// It is the quota that all share whom public mode lets in.
        public: bool,
    },
    /// The canister keeps what cycles it has.
    LowOnCycles {
        /// What it has.
        balance: u128,
        /// Below this it takes no new work.
        floor: u64,
    },
    /// A query can't draw a seed.
    NoSeed,
    /// A query ended before the first token.
    TooMuchForQuery,
    /// Several answers need more keys and values than there is room for.
    AnswersTooLarge {
        /// Bytes that they may take.
        needed: u64,
        /// Bytes that all jobs may take.
        room: u64,
    },
    /// The job has not ended.
    NotEnded,
    /// There is no certificate at hand.
    NoCertificate,
    /// The anonymous principal can't be a manager.
    AnonymousManager,
    /// No such job, or not this caller's.
    NoJob,
    /// A message to this canister itself failed.
    Platform(String),
}

impl fmt::Display for Error {
    #[allow(clippy::too_many_lines, reason = "a text for each")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoModel => {
                write!(f, "no model is set up: upload one, then call setup_model")
            }
            Self::NoTokenizer => write!(
                f,
                "no tokenizer is set up: upload tokenizer.json and call setup_tokenizer, or use token ids"
            ),
            Self::NothingUploaded(kind) => write!(
                f,
                "no {kind} bytes have been uploaded: call append_{kind}_bytes first"
            ),
            Self::TooLarge(kind, limit) => {
                write!(f, "a {kind} file may have at most {limit} bytes")
            }
            Self::OutOfStableMemory => write!(
                f,
                "stable memory could not grow: check the canister's memory allocation and cycles"
            ),
            Self::NotStored(kind) => write!(
                f,
                "the {kind} upload is not finished: call store_{kind}_bytes_to_stable first"
            ),
            Self::AlreadyStored(kind) => write!(
                f,
                "the {kind} upload is finished: call clear_{kind}_bytes to begin another"
            ),
            Self::Begun(kind) => write!(
                f,
                "the {kind} upload was begun with begin: end it with commit, or drop it with discard"
            ),
            Self::NotBegun(kind) => write!(f, "no {kind} upload is under way: call begin first"),
            Self::Sha256 => f.write_str("a SHA-256 has 32 bytes"),
            Self::Empty(kind) => write!(f, "a {kind} file has at least a byte"),
            Self::OutOfFile(kind, length) => write!(
                f,
                "a chunk of the {kind} upload has at least a byte and lies within its {length} bytes"
            ),
            Self::OtherBytes(kind, offset) => write!(
                f,
                "the {kind} chunk at {offset} has arrived before, with other bytes: call discard, \
                 then begin the upload again"
            ),
            Self::Overlap(kind, offset) => write!(
                f,
                "a part of the {kind} chunk at {offset} has arrived already: send what missing tells"
            ),
            Self::TooScattered(kind) => write!(
                f,
                "the {kind} upload has too many holes: send what missing tells first"
            ),
            Self::Missing(kind, bytes) => write!(
                f,
                "{bytes} bytes of the {kind} upload have not arrived: send what missing tells"
            ),
            Self::OtherUpload(kind) => write!(
                f,
                "the {kind} upload was begun with another SHA-256: someone else may be uploading"
            ),
            Self::WrongHash(kind) => write!(
                f,
                "the {kind} upload has not the SHA-256 that it was begun with, and was dropped: \
                 begin it again"
            ),
            Self::SettingUp => {
                write!(
                    f,
                    "setup_model is running: wait until model_info says ready"
                )
            }
            Self::Config(e) => write!(f, "config.json: {e}"),
            Self::Checkpoint(e) => write!(f, "safetensors: {e}"),
            Self::Load(e) => write!(f, "safetensors: {e}"),
            Self::Name(most) => write!(
                f,
                "a model's name has 1 to {most} characters, none of them a control character, and \
                 no space at its ends"
            ),
            Self::Precision(e) => e.fmt(f),
            Self::Pack(e) => write!(f, "safetensors: {e}"),
            Self::Packed(e) => write!(f, "packed weights: {e}"),
            Self::NeedsSetUp => write!(
                f,
                "the weights are packed in the layout of another version: call setup_model to pack \
                 them again"
            ),
            Self::NeedsUpload => write!(
                f,
                "the weights were uploaded packed in the layout of another version: upload the model \
                 again"
            ),
            Self::NoCheckpoint(precision) => write!(
                f,
                "the weights were uploaded packed, in {precision}: for another precision upload the \
                 model again"
            ),
            Self::ModelInUse => write!(
                f,
                "the heap can't hold two models, and generations run on the one that must make way: \
                 set up again when they have ended"
            ),
            Self::HeapForWeights(most) => {
                write!(f, "weights may take at most {most} bytes of heap")
            }
            Self::Tokenizer(e) => write!(f, "tokenizer.json: {e}"),
            Self::Vocabulary { max_id, vocab_size } => write!(
                f,
                "the tokenizer does not match the model: its highest id is {max_id}, \
                 the model's vocabulary has {vocab_size} tokens"
            ),
            Self::Request(e) => e.fmt(f),
            Self::Options(e) => e.fmt(f),
            Self::Limit(text) => f.write_str(text),
            Self::UnknownToken(id) => write!(f, "token id {id} is not in the vocabulary"),
            Self::Busy(n) => write!(
                f,
                "busy: {n} jobs are waiting already, try again in a moment"
            ),
            Self::TooManyJobs(most) => write!(
                f,
                "{most} jobs are running or waiting already, as many as the quota allows at once: \
                 wait until one ends, or cancel one"
            ),
            Self::Quota {
                asked,
                left,
                public,
            } => write!(
                f,
                "prompt and answer may take {asked} tokens, but {left} are left of today's quota{}: \
                 ask for fewer with max_new_tokens, or wait for tomorrow (UTC)",
                if *public { " of public use" } else { "" }
            ),
            Self::LowOnCycles { balance, floor } => write!(
                f,
                "the canister has {balance} cycles, less than the {floor} below which it takes no \
                 new work: top it up"
            ),
            Self::NoSeed => write!(
                f,
                "a query can't draw a seed: give one, or ask for temperature 0"
            ),
            Self::TooMuchForQuery => write!(
                f,
                "the prompt alone, or several answers together, take more than a query may do: use \
                 complete or submit"
            ),
            Self::AnswersTooLarge { needed, room } => write!(
                f,
                "the answers' keys and values may take {needed} bytes, and {room} are there: ask \
                 for fewer answers or beams, or for fewer tokens"
            ),
            Self::NotEnded => write!(f, "the job has not ended yet: poll it until it has"),
            Self::NoCertificate => write!(
                f,
                "there is no certificate in an update call: call this method as a query"
            ),
            Self::AnonymousManager => write!(
                f,
                "the anonymous principal can't be a manager, for anyone can call in its name: \
                 to let everyone generate, switch public mode on"
            ),
            Self::NoJob => write!(f, "no such job, or it belongs to another caller"),
            Self::Platform(text) => write!(f, "the Internet Computer refused: {text}"),
        }
    }
}

impl std::error::Error for Error {}

macro_rules! from {
    ($($type:ty => $variant:ident),* $(,)?) => {
        $(impl From<$type> for Error {
            fn from(e: $type) -> Self {
                Self::$variant(e)
            }
        })*
    };
}

from! {
    ConfigError => Config,
    CheckpointError => Checkpoint,
    LoadError => Load,
    UnknownPrecision => Precision,
    PackError => Pack,
    PackedError => Packed,
    TokenizerError => Tokenizer,
    RequestError => Request,
    Refusal => Options,
}
