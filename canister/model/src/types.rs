//! The records and variants of `model.did`, in its order and with its names.

use candid::{CandidType, Principal};
pub use icgpt_request::Options;
use serde::Deserialize;
use serde_bytes::ByteBuf;

pub use crate::files::Kind as FileKind;
use crate::ranges::Stretch;

/// Generated token ids, inside [`InferenceRecord`].
#[derive(CandidType, Deserialize)]
pub enum TokenIDsResult {
    /// The new ids.
    Ok(Vec<u32>),
    /// Why there are none.
    Err(String),
}

/// The seed's wrapper round [`TokenIDsResult`].
#[derive(CandidType, Deserialize)]
pub struct InferenceRecord {
    /// The ids.
    pub result: TokenIDsResult,
}

/// A text cut into tokens.
#[derive(CandidType, Deserialize)]
pub struct TokenizerEncoding {
    /// The tokens' ids.
    pub token_ids: Vec<u32>,
    /// The tokens as the vocabulary spells them.
    pub tokens: Vec<String>,
}

/// What has arrived of a file.
#[derive(CandidType, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct FileInfo {
    /// Length in bytes.
    pub length: u64,
    /// SHA-256 of those bytes.
    pub sha256: ByteBuf,
}

/// One kind of file: the upload under way and what the running model was made of.
#[derive(CandidType, Deserialize)]
pub struct FileState {
    /// The upload under way.
    pub staged: Option<FileInfo>,
    /// The upload is complete: `store_…_to_stable` was called, or `commit` succeeded.
    pub stored: bool,
    /// The file in use.
    pub live: Option<FileInfo>,
}

/// The files of a model.
#[derive(CandidType, Deserialize)]
pub struct Files {
    /// Weights.
    pub safetensors: FileState,
    /// Sizes and settings.
    pub config: FileState,
    /// Vocabulary.
    pub tokenizer: FileState,
    /// Weights as the kernels want them; live in every canister that has a model.
    pub packed: Option<FileState>,
}

/// An upload of chunks under way.
#[derive(CandidType, Deserialize)]
pub struct Upload {
    /// Bytes that it is to have.
    pub length: u64,
    /// The SHA-256 that it is to have.
    pub sha256: ByteBuf,
    /// Bytes that have arrived.
    pub arrived: u64,
    /// What has not arrived.
    pub missing: Vec<Stretch>,
    /// How much is hashed, from the first byte on, and the SHA-256 of that.
    pub hashed: FileInfo,
    /// `commit` has found it whole.
    pub committed: bool,
}

/// Token ids round a prompt, and those that end an answer.
#[derive(CandidType, Deserialize)]
pub struct Template {
    /// Before the prompt.
    pub prefix: Vec<u32>,
    /// After the prompt.
    pub suffix: Vec<u32>,
    /// Each of them ends an answer.
    pub stop: Vec<u32>,
}

/// How far the model is set up.
#[derive(CandidType, Deserialize)]
pub enum Setup {
    /// There is no model.
    #[serde(rename = "empty")]
    Empty,
    /// `setup_model` is at work.
    #[serde(rename = "setting_up")]
    SettingUp {
        /// Bytes of weights read.
        done: u64,
        /// Bytes of weights in all.
        total: u64,
    },
    /// The model answers.
    #[serde(rename = "ready")]
    Ready,
}

/// Sizes of the running model.
#[derive(CandidType, Deserialize)]
#[allow(missing_docs, reason = "the names are the field's own")]
pub struct Architecture {
    pub family: String,
    pub n_layer: u32,
    pub n_head: u32,
    pub n_embd: u32,
    pub n_ctx: u32,
    pub n_inner: u32,
    pub vocab_size: u32,
    pub activation: String,
    pub tied: bool,
    pub parameters: u64,
}

/// SHA-256 of each file that the running model was made of.
#[derive(CandidType, Deserialize)]
pub struct SourceSha256 {
    /// Weights.
    pub safetensors: Option<ByteBuf>,
    /// Sizes and settings.
    pub config: Option<ByteBuf>,
    /// Vocabulary.
    pub tokenizer: Option<ByteBuf>,
}

/// What runs here.
#[derive(CandidType, Deserialize)]
pub struct ModelInfo {
    /// How far the model is set up.
    pub setup: Setup,
    /// What managers call it.
    pub name: Option<String>,
    /// Its sizes, once it is ready.
    pub architecture: Option<Architecture>,
    /// Number format of the weights.
    pub precision: String,
    /// The one that a manager chose for the next set-up.
    pub next_precision: Option<String>,
    /// SHA-256 of the packed weights.
    pub layout_sha256: Option<ByteBuf>,
    /// Some of the weights are not in the heap but read from stable memory whenever they are needed.
    pub streamed: Option<bool>,
    /// Where it comes from.
    pub source_sha256: SourceSha256,
    /// What `generate` puts round a prompt.
    pub template: Option<Template>,
    /// `stop` or `slide`.
    pub context: String,
    /// Texts can be used beside token ids.
    pub tokenizer: bool,
    /// Instructions that a message spends at most before it makes way for others.
    pub per_message: u64,
    /// Version of the layout of stable memory.
    pub layout_version: u32,
    /// Version of this module.
    pub module_version: String,
}

/// Who may use the canister.
#[derive(CandidType, Deserialize)]
pub struct Access {
    /// May upload and set up.
    pub managers: Vec<Principal>,
    /// May generate.
    pub users: Vec<Principal>,
    /// Anyone may generate.
    pub public: bool,
}

/// A token and the natural logarithm of its probability.
#[derive(CandidType, Deserialize, Clone, Debug, PartialEq)]
pub struct Logprob {
    /// The token's id.
    pub token_id: u32,
    /// ln(p) under the model's own distribution, before every option.
    pub logprob: f32,
}

/// The log-probabilities at one place of an answer.
#[derive(CandidType, Deserialize, Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// The chosen token.
    pub chosen: Logprob,
    /// The likeliest tokens, the likeliest first.
    pub top: Vec<Logprob>,
}

/// A prompt as text or as token ids.
#[derive(CandidType, Deserialize)]
pub enum Prompt {
    /// Text, which needs a tokenizer.
    #[serde(rename = "text")]
    Text(String),
    /// Ids of the model's vocabulary.
    #[serde(rename = "token_ids")]
    TokenIds(Vec<u32>),
}

/// Why a generation ended.
#[derive(CandidType, Deserialize, Clone, PartialEq, Eq, Debug)]
pub enum Finish {
    /// An end token or a stop string appeared.
    #[serde(rename = "stop")]
    Stop,
    /// As many tokens as were asked for.
    #[serde(rename = "length")]
    Length,
    /// The context is full.
    #[serde(rename = "context")]
    Context,
    /// Its owner cancelled it.
    #[serde(rename = "cancelled")]
    Cancelled,
    /// Something went wrong.
    #[serde(rename = "failed")]
    Failed(String),
}

/// One of several answers to a request.
#[derive(CandidType, Deserialize, Clone, Debug, PartialEq)]
pub struct Sequence {
    /// The new ids; with `echo`, those of the prompt before them.
    pub token_ids: Vec<u32>,
    /// Their text, without special tokens and up to the first stop string.
    pub text: Option<String>,
    /// One for each new id, if they were asked for.
    pub logprobs: Option<Vec<TokenLogprobs>>,
    /// Why it ended.
    pub finish: Finish,
    /// What a search thinks of it.
    pub score: Option<f32>,
}

/// A finished generation.
#[derive(CandidType, Deserialize)]
pub struct Completion {
    /// The new ids; with `echo`, those of the prompt before them.
    pub token_ids: Vec<u32>,
    /// Their text, without special tokens and up to the first stop string.
    pub text: Option<String>,
    /// One for each new id, if they were asked for.
    pub logprobs: Option<Vec<TokenLogprobs>>,
    /// Why it ended.
    pub finish: Finish,
    /// With this seed the same answer can be had again.
    pub seed: u64,
    /// Length of the prompt, template included.
    pub prompt_tokens: u32,
    /// What it took, over all its messages.
    pub instructions: u64,
    /// The job's id; none of the seed's methods.
    pub job: Option<ByteBuf>,
    /// All answers, the first among them, where several were asked for or weighed.
    pub sequences: Option<Vec<Sequence>>,
}

/// A generation under way, from the asked token on.
#[derive(CandidType, Deserialize)]
pub struct Progress {
    /// Ids from the asked one on; with `echo`, those of the prompt come first.
    pub token_ids: Vec<u32>,
    /// Their text, without special tokens and up to the first stop string.
    pub text: Option<String>,
    /// One for each new id among them, if they were asked for.
    pub logprobs: Option<Vec<TokenLogprobs>>,
    /// Why it ended; none while it runs.
    pub finish: Option<Finish>,
    /// With this seed the same answer can be had again.
    pub seed: u64,
    /// Length of the prompt, template included.
    pub prompt_tokens: u32,
    /// What it took so far.
    pub instructions: u64,
    /// All answers from their first token on, once all have ended; see [`Completion`].
    pub sequences: Option<Vec<Sequence>>,
}

/// A job that has not ended.
#[derive(CandidType, Deserialize)]
pub struct RunningJob {
    /// Its id.
    pub job: ByteBuf,
    /// Who asked.
    pub owner: Principal,
    /// Whether it goes on by itself; a call waits for it otherwise.
    pub submitted: bool,
    /// Whether it runs; it waits for its turn otherwise.
    pub running: bool,
    /// Length of the prompt, template included.
    pub prompt_tokens: u32,
    /// Tokens of its answers so far.
    pub tokens: u64,
    /// Tokens that its answers may have.
    pub max_tokens: u64,
    /// What it took so far.
    pub instructions: u64,
}

/// What proves a finished job.
#[derive(CandidType, Deserialize)]
pub struct JobCertificate {
    /// The subnet's certificate of the canister's certified data.
    pub certificate: ByteBuf,
    /// The way from that to the job: a pruned hash tree in CBOR.
    pub witness: ByteBuf,
    /// What was asked and answered; its SHA-256 is in the tree.
    pub receipt: ByteBuf,
}

/// How much callers may ask for.
#[derive(CandidType, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Quotas {
    /// Tokens a day of each listed user; none: as many as they like.
    pub user_tokens_per_day: Option<u64>,
    /// Jobs of each listed user at once.
    pub user_jobs: u32,
    /// Tokens a day of all callers together whom only public mode lets in.
    pub public_tokens_per_day: Option<u64>,
    /// Jobs of all of them at once.
    pub public_jobs: u32,
    /// Jobs that may wait.
    pub queue: u32,
    /// With fewer cycles the canister takes no new work.
    pub cycles_floor: u64,
}

/// What a caller has used.
#[derive(CandidType, Deserialize)]
pub struct Usage {
    /// `manager`, `user` or `public`.
    pub role: String,
    /// Tokens taken from the quota today (UTC).
    pub tokens_today: u64,
    /// Tokens left of it; none when there is no limit.
    pub tokens_left: Option<u64>,
}

/// What an HTTP gateway passes on.
#[derive(CandidType, Deserialize)]
pub struct HttpRequest {
    /// Such as `GET`.
    pub method: String,
    /// Path and query.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// What was sent with it.
    pub body: ByteBuf,
    /// The newest kind of proof that the gateway can check.
    pub certificate_version: Option<u16>,
}
