//! Why a call failed, in kinds that the host tells apart.

use icgpt_engine::{CheckpointError, ConfigError, LoadError, PackError, PackedError, RequestError};
use icgpt_request::Refusal;

/// What went wrong, for people.
#[derive(Debug)]
pub enum Failure {
    /// The model's files are not usable.
    Model(String),
    /// What is asked can't be run.
    Request(String),
    /// Memory or the host's file has no room.
    NoRoom(String),
    /// The host called out of order, or with arguments that no host should have.
    Misuse(&'static str),
}

impl Failure {
    /// Its kind as a number, and its text.
    #[must_use]
    pub fn told(self) -> (i32, String) {
        match self {
            Self::Model(text) => (1, text),
            Self::Request(text) => (2, text),
            Self::NoRoom(text) => (3, text),
            Self::Misuse(text) => (4, text.into()),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Model(format!("config.json: {error}"))
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        Self::Model(format!("safetensors: {error}"))
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::OutOfMemory { .. } => Self::NoRoom(error.to_string()),
            _ => Self::Model(format!("safetensors: {error}")),
        }
    }
}

impl From<PackError> for Failure {
    fn from(error: PackError) -> Self {
        match error {
            PackError::Load(error) => error.into(),
            PackError::NoRoom(_) => Self::NoRoom(error.to_string()),
        }
    }
}

impl From<PackedError> for Failure {
    fn from(error: PackedError) -> Self {
        match error {
            PackedError::OutOfMemory(_) | PackedError::TooLarge { .. } => {
                Self::NoRoom(error.to_string())
            }
            _ => Self::Model(format!("packed weights: {error}")),
        }
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self::Request(error.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Request(match refusal {
            Refusal::NoTokenizer => "stop strings need a tokenizer: load one too".into(),
            refusal => refusal.to_string(),
        })
    }
}
