//! The GPT-2 engine (signatures only; bodies follow).
#![allow(missing_docs, unused_variables, clippy::all, clippy::pedantic)]
use thiserror::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation { GeluNew, Gelu }
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Context { #[default] Stop, Slide }
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Template { pub prefix: Vec<u32>, pub suffix: Vec<u32>, pub stop: Vec<u32> }
#[derive(Clone, Debug)]
pub struct Config {
    pub n_layer: usize, pub n_head: usize, pub n_embd: usize, pub n_ctx: usize, pub n_inner: usize, pub vocab_size: usize,
    pub layer_norm_epsilon: f32, pub activation: Activation, pub tie_word_embeddings: bool,
    pub eos_token_id: Option<u32>, pub context: Context, pub template: Option<Template>,
}
#[derive(Debug, Error, Clone, PartialEq)] pub enum ConfigError { #[error("stub")] Stub }
#[derive(Debug, Error, Clone, PartialEq)] pub enum CheckpointError { #[error("stub")] Stub }
#[derive(Debug, Error, Clone, PartialEq)] pub enum LoadError { #[error("stub")] Stub, #[error("{tensor}")] NotFinite { tensor: String } }
#[derive(Debug, Error, Clone, PartialEq)] pub enum ForwardError { #[error("stub")] Stub }
#[derive(Debug, Error, Clone, PartialEq)] pub enum SamplingError { #[error("stub")] Stub }
#[derive(Debug, Error, Clone, PartialEq)] pub enum RequestError { #[error("stub")] Stub }
#[derive(Debug, Error, Clone, PartialEq)] pub enum TokenizerError { #[error("stub")] Stub }
impl Config {
    pub fn from_json(bytes: &[u8]) -> Result<Config, ConfigError> { unimplemented!() }
    pub fn stop_tokens(&self) -> Vec<u32> { unimplemented!() }
}
pub trait Source { fn len(&self) -> u64; fn read(&self, offset: u64, buf: &mut [u8]); }
pub struct Checkpoint;
impl Checkpoint { pub fn parse(source: &dyn Source) -> Result<Checkpoint, CheckpointError> { unimplemented!() } }
pub struct Loader;
impl Loader {
    pub fn new(config: Config, checkpoint: &Checkpoint) -> Result<Loader, LoadError> { unimplemented!() }
    pub fn step(&mut self, source: &dyn Source, may_continue: &mut dyn FnMut() -> bool) -> Result<bool, LoadError> { unimplemented!() }
    pub fn done(&self) -> u64 { unimplemented!() }
    pub fn total(&self) -> u64 { unimplemented!() }
    pub fn finish(self) -> Result<Model, LoadError> { unimplemented!() }
}
pub struct Model;
impl Model {
    pub fn config(&self) -> &Config { unimplemented!() }
    pub fn parameters(&self) -> u64 { unimplemented!() }
    pub fn tied(&self) -> bool { unimplemented!() }
}
pub struct Session;
impl Session {
    pub fn new(model: &Model) -> Session { unimplemented!() }
    pub fn len(&self) -> usize { unimplemented!() }
    pub fn forward(&mut self, model: &Model, token: u32, want_logits: bool) -> Result<(), ForwardError> { unimplemented!() }
    pub fn logits(&self) -> &[f32] { unimplemented!() }
    pub fn clear(&mut self) { unimplemented!() }
}
#[derive(Clone, Debug)]
pub struct Sampling { pub temperature: f64, pub top_k: Option<u32>, pub seed: u64 }
impl Sampling { pub fn validate(&self) -> Result<(), SamplingError> { unimplemented!() } }
#[derive(Clone, Debug)]
pub struct Request { pub prompt: Vec<u32>, pub max_new_tokens: usize, pub sampling: Sampling, pub context: Context, pub stop: Vec<u32> }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish { Stop, Length, Context }
pub struct Generation;
impl Generation {
    pub fn new(model: &Model, request: Request) -> Result<Generation, RequestError> { unimplemented!() }
    pub fn run(&mut self, model: &Model, may_continue: &mut dyn FnMut() -> bool) -> Option<Finish> { unimplemented!() }
    pub fn tokens(&self) -> &[u32] { unimplemented!() }
    pub fn logits(&self) -> &[f32] { unimplemented!() }
}
pub struct Scoring;
impl Scoring {
    pub fn new(model: &Model, prompt: Vec<u32>, continuation: Vec<u32>) -> Result<Scoring, RequestError> { unimplemented!() }
    pub fn run(&mut self, model: &Model, may_continue: &mut dyn FnMut() -> bool) -> bool { unimplemented!() }
    pub fn logprobs(&self) -> &[f32] { unimplemented!() }
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding { pub ids: Vec<u32>, pub tokens: Vec<String> }
pub struct Tokenizer;
impl Tokenizer {
    pub fn from_json(bytes: &[u8]) -> Result<Tokenizer, TokenizerError> { unimplemented!() }
    pub fn encode(&self, text: &str) -> Result<Encoding, TokenizerError> { unimplemented!() }
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> { unimplemented!() }
    pub fn token(&self, id: u32) -> Option<String> { unimplemented!() }
    pub fn max_id(&self) -> u32 { unimplemented!() }
}
