//! Text to token ids and back, from `tokenizer.json` through Hugging Face's `tokenizers`.
//!
//! Byte-level BPE (GPT-2 and its kin) and plain character vocabularies (BPE without merges) are
//! accepted. What would make two calls differ, or cut a text, is refused or switched off.

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// Longest `tokenizer.json` that is read.
pub const MAX_BYTES: usize = 32 << 20;

/// Why a tokenizer, or a text, is refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum TokenizerError {
    /// It is longer than a tokenizer can be.
    #[error("tokenizer.json is {0} bytes long; at most {MAX_BYTES} are read")]
    TooLong(usize),
    /// It is no tokenizer.
    #[error("tokenizer.json can't be read: {0}")]
    Json(String),
    /// Its model is not BPE, or it is used in a way that is not supported.
    #[error(
        "tokenizer.json has {0}, which is not supported: use a byte-level BPE tokenizer without dropout"
    )]
    Unsupported(String),
    /// It has no token at all.
    #[error("tokenizer.json has an empty vocabulary")]
    Empty,
    /// The library could not encode a text.
    #[error("the text can't be encoded: {0}")]
    Encode(String),
    /// The library could not decode ids.
    #[error("the token ids can't be decoded: {0}")]
    Decode(String),
}

/// A text's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Their ids.
    pub ids: Vec<u32>,
    /// Their names in the vocabulary.
    pub tokens: Vec<String>,
}

/// A tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    max_id: u32,
}

/// What is looked at before the library reads the file: it panics when a decoder is no JSON, and
/// when a normaliser's precompiled table is none.
#[derive(Deserialize)]
struct Outline {
    model: ModelOutline,
    normalizer: Option<Value>,
    #[serde(rename = "decoder")]
    _decoder: Option<Value>,
}

#[derive(Deserialize)]
struct ModelOutline {
    r#type: Option<String>,
    dropout: Option<f64>,
}

impl Tokenizer {
    /// Reads a tokenizer.
    ///
    /// # Errors
    /// See [`TokenizerError`].
    pub fn from_json(bytes: &[u8]) -> Result<Tokenizer, TokenizerError> {
        if bytes.len() > MAX_BYTES {
            return Err(TokenizerError::TooLong(bytes.len()));
        }
        let outline: Outline =
            serde_json::from_slice(bytes).map_err(|e| TokenizerError::Json(e.to_string()))?;
        if let Some(kind) = outline.model.r#type.filter(|kind| kind != "BPE") {
            return Err(TokenizerError::Unsupported(format!("a {kind} model")));
        }
        if outline.model.dropout.is_some_and(|dropout| dropout != 0.0) {
            return Err(TokenizerError::Unsupported("dropout".into()));
        }
        let normalizer = outline.normalizer.map(|value| value.to_string());
        if normalizer.is_some_and(|text| text.contains("\"Precompiled\"")) {
            return Err(TokenizerError::Unsupported(
                "a precompiled normalizer".into(),
            ));
        }
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|e| TokenizerError::Json(e.to_string()))?;
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|e| TokenizerError::Json(e.to_string()))?;
        let max_id = inner
            .get_vocab(true)
            .into_values()
            .max()
            .ok_or(TokenizerError::Empty)?;
        Ok(Tokenizer { inner, max_id })
    }

    /// The tokens of a text, spelled as in the vocabulary. The special tokens' names are recognised
    /// in it.
    ///
    /// # Errors
    /// The library could not encode it.
    pub fn encode(&self, text: &str) -> Result<Encoding, TokenizerError> {
        let encoding = self
            .inner
            .encode(text, true)
            .map_err(|e| TokenizerError::Encode(e.to_string()))?;
        Ok(Encoding {
            ids: encoding.get_ids().to_vec(),
            tokens: encoding.get_tokens().to_vec(),
        })
    }

    /// The text of token ids. Bytes that are no UTF-8 (a character cut in two) become U+FFFD; ids
    /// that the vocabulary doesn't have are left out.
    ///
    /// # Errors
    /// The library could not decode them.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        self.inner
            .decode(ids, skip_special)
            .map_err(|e| TokenizerError::Decode(e.to_string()))
    }

    /// The text of one id, or none where the vocabulary doesn't have it.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)?;
        self.decode(&[id], false).ok()
    }

    /// The highest id of the vocabulary, added tokens included.
    #[must_use]
    pub fn max_id(&self) -> u32 {
        self.max_id
    }
}
