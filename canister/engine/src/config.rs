//! `config.json` of a GPT-2 or GPT-J checkpoint, as Hugging Face transformers writes it.
//!
//! Three keys of our own are read under `"icgpt"`: `context` (`"stop"` or `"slide"`), `template`
//! (`{"prefix": [ids], "suffix": [ids], "stop": [ids]}`) and `precision` (`"f32"`, `"int8"` or
//! `"int16"`). What the engine can't do is refused here rather than computed wrongly.

use serde::Deserialize;
use thiserror::Error;

use crate::family::{self, Family};
use crate::weights::Precision;

/// Longest `config.json` that is read.
pub const MAX_BYTES: usize = 1 << 20;

// Far above any GPT-2, and low enough that no product of two of them overflows 64 bits, and that 64
// rows of any matrix are read at once in far less than the 64 MiB that a bulk operation may move.
const MAX_LAYERS: usize = 1_024;
const MAX_WIDTH: usize = 1 << 17;
const MAX_TOKENS: usize = 1 << 22;

/// The activation between the two layers of a perceptron.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// GELU approximated through tanh.
    GeluNew,
    /// GELU through the error function.
    Gelu,
}

/// What happens when the context is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Context {
    /// The answer ends.
    #[default]
    Stop,
    /// The last `n_ctx − n_ctx/4` tokens are kept and computed again from position 0.
    Slide,
}

/// Token ids put round a prompt, and ids that end an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Before the prompt.
    #[serde(default)]
    pub prefix: Vec<u32>,
    /// After the prompt.
    #[serde(default)]
    pub suffix: Vec<u32>,
    /// Each of these ends an answer.
    #[serde(default)]
    pub stop: Vec<u32>,
}

/// A model's sizes and settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What the model computes with these sizes.
    pub family: Family,
    /// Blocks.
    pub n_layer: usize,
    /// Attention heads; they divide `n_embd`.
    pub n_head: usize,
    /// Width of the stream.
    pub n_embd: usize,
    /// Longest sequence.
    pub n_ctx: usize,
    /// Width between a perceptron's layers.
    pub n_inner: usize,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Added to the variance by layer norms.
    pub layer_norm_epsilon: f32,
    /// Activation of the perceptrons.
    pub activation: Activation,
    /// Whether the head shares the token embedding.
    pub tie_word_embeddings: bool,
    /// Whether attention scores are divided by the square root of the head's size.
    pub scale_attn_weights: bool,
    /// Whether they are divided by the block's number too, counted from 1.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// The id that ends a text.
    pub eos_token_id: Option<u32>,
    /// What happens when the context is full, unless a request says otherwise.
    pub context: Context,
    /// The model's template, if it has one.
    pub template: Option<Template>,
    /// How its weights are best held, if it says so.
    pub precision: Option<Precision>,
}

/// Why a configuration is refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// It is longer than a configuration can be.
    #[error("config.json is {0} bytes long; at most {MAX_BYTES} are read")]
    TooLong(usize),
    /// It is no JSON, or a key has a value of the wrong type.
    #[error("config.json can't be read: {0}")]
    Json(String),
    /// A key is missing.
    #[error("config.json has no {0}")]
    Missing(&'static str),
    /// A size is zero or too large.
    #[error("{key} is {value}; it must be between 1 and {max}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// Its value.
        value: u64,
        /// The largest value.
        max: usize,
    },
    /// The heads don't divide the width.
    #[error("n_embd {n_embd} is no multiple of n_head {n_head}")]
    HeadSize {
        /// Width of the stream.
        n_embd: usize,
        /// Number of heads.
        n_head: usize,
    },
    /// The rotated dimensions don't come in pairs, or a head has fewer.
    #[error("rotary_dim is {rotary_dim}; it must be an even number from 2 to a head's {head_size}")]
    RotaryDim {
        /// Dimensions to be rotated.
        rotary_dim: u64,
        /// Dimensions of a head.
        head_size: usize,
    },
    /// A key has a value that the engine can't compute.
    #[error("{key} is {value}, which is not supported: {hint}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is supported.
        hint: &'static str,
    },
}

/// The file's keys, before they are checked. Unknown keys are ignored, as transformers does.
#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    n_layer: Option<u64>,
    n_head: Option<u64>,
    n_embd: Option<u64>,
    n_positions: Option<u64>,
    max_position_embeddings: Option<u64>,
    n_ctx: Option<u64>,
    n_inner: Option<u64>,
    vocab_size: Option<u64>,
    layer_norm_epsilon: Option<f64>,
    activation_function: Option<String>,
    tie_word_embeddings: Option<bool>,
    scale_attn_weights: Option<bool>,
    scale_attn_by_inverse_layer_idx: Option<bool>,
    add_cross_attention: Option<bool>,
    #[serde(default = "family::default_rotary_dim")]
    rotary_dim: Option<u64>,
    eos_token_id: Option<Eos>,
    icgpt: Option<Own>,
}

/// Newer configurations may list several ids.
#[derive(Deserialize)]
#[serde(untagged)]
enum Eos {
    One(u32),
    Many(Vec<u32>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    context: Option<String>,
    template: Option<Template>,
    precision: Option<String>,
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn from_json(bytes: &[u8]) -> Result<Config, ConfigError> {
        if bytes.len() > MAX_BYTES {
            return Err(ConfigError::TooLong(bytes.len()));
        }
        let raw: Raw =
            serde_json::from_slice(bytes).map_err(|e| ConfigError::Json(e.to_string()))?;
        refuse_unsupported(&raw)?;

        let n_layer = size("n_layer", raw.n_layer, MAX_LAYERS)?;
        let n_head = size("n_head", raw.n_head, MAX_WIDTH)?;
        let n_embd = size("n_embd", raw.n_embd, MAX_WIDTH)?;
        let positions = raw
            .n_positions
            .or(raw.max_position_embeddings)
            .or(raw.n_ctx);
        let n_ctx = size("n_positions", positions, MAX_TOKENS)?;
        let vocab_size = size("vocab_size", raw.vocab_size, MAX_TOKENS)?;
        let n_inner = size(
            "n_inner",
            raw.n_inner.or(Some(4 * n_embd as u64)),
            MAX_WIDTH,
        )?;
        if !n_embd.is_multiple_of(n_head) {
            return Err(ConfigError::HeadSize { n_embd, n_head });
        }
        let family = Family::read(raw.model_type.as_deref(), raw.rotary_dim, n_embd, n_head)?;
        let precision = precision(raw.icgpt.as_ref())?;
        let (context, template) = own(raw.icgpt, vocab_size)?;
        let gpt2 = family == Family::Gpt2;
        Ok(Config {
            family,
            n_layer,
            n_head,
            n_embd,
            n_ctx,
            n_inner,
            vocab_size,
            layer_norm_epsilon: epsilon(raw.layer_norm_epsilon)?,
            activation: activation(raw.activation_function.as_deref())?,
            tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(gpt2),
            // GPT-J has no such switches.
            scale_attn_weights: !gpt2 || raw.scale_attn_weights.unwrap_or(true),
            scale_attn_by_inverse_layer_idx: gpt2
                && raw.scale_attn_by_inverse_layer_idx.unwrap_or(false),
            eos_token_id: eos(raw.eos_token_id)?,
            context,
            template,
            precision,
        })
    }

    /// The ids that end an answer: the template's and the end of text, as far as the vocabulary
    /// has them.
    #[must_use]
    pub fn stop_tokens(&self) -> Vec<u32> {
        let mut ids = self
            .template
            .as_ref()
            .map(|t| t.stop.clone())
            .unwrap_or_default();
        ids.extend(self.eos_token_id);
        ids.retain(|&id| (id as usize) < self.vocab_size);
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// What attention scores of block `layer` (from 0) are multiplied by.
    pub(crate) fn attention_scale(&self, layer: usize) -> f32 {
        let mut scale = 1.0;
        if self.scale_attn_weights {
            scale /= ((self.n_embd / self.n_head) as f32).sqrt();
        }
        if self.scale_attn_by_inverse_layer_idx {
            scale /= (layer + 1) as f32;
        }
        scale
    }
}

fn size(key: &'static str, value: Option<u64>, max: usize) -> Result<usize, ConfigError> {
    let value = value.ok_or(ConfigError::Missing(key))?;
    match usize::try_from(value) {
        Ok(size) if (1..=max).contains(&size) => Ok(size),
        _ => Err(ConfigError::OutOfRange { key, value, max }),
    }
}

fn refuse_unsupported(raw: &Raw) -> Result<(), ConfigError> {
    if raw.add_cross_attention == Some(true) {
        let (value, hint) = ("true".into(), "only decoders that stand alone are");
        return Err(ConfigError::Unsupported {
            key: "add_cross_attention",
            value,
            hint,
        });
    }
    Ok(())
}

fn epsilon(value: Option<f64>) -> Result<f32, ConfigError> {
    let value = value.unwrap_or(1e-5);
    if value > 0.0 && value < 1.0 {
        return Ok(value as f32);
    }
    let (key, hint) = ("layer_norm_epsilon", "give a small positive number");
    Err(ConfigError::Unsupported {
        key,
        value: value.to_string(),
        hint,
    })
}

fn activation(name: Option<&str>) -> Result<Activation, ConfigError> {
    match name {
        None | Some("gelu_new" | "gelu_pytorch_tanh") => Ok(Activation::GeluNew),
        Some("gelu") => Ok(Activation::Gelu),
        Some(other) => Err(ConfigError::Unsupported {
            key: "activation_function",
            value: other.into(),
            hint: "gelu_new and gelu are",
        }),
    }
}

fn eos(value: Option<Eos>) -> Result<Option<u32>, ConfigError> {
    match value {
        None => Ok(None),
        Some(Eos::One(id)) => Ok(Some(id)),
        Some(Eos::Many(ids)) if ids.len() <= 1 => Ok(ids.first().copied()),
        Some(Eos::Many(ids)) => Err(ConfigError::Unsupported {
            key: "eos_token_id",
            value: format!("{ids:?}"),
            hint: "give one id, and the others as icgpt.template.stop",
        }),
    }
}

fn precision(own: Option<&Own>) -> Result<Option<Precision>, ConfigError> {
    let name = own.and_then(|own| own.precision.as_ref());
    let unknown = |name: &String| ConfigError::Unsupported {
        key: "icgpt.precision",
        value: name.clone(),
        hint: "f32, int8 and int16 are",
    };
    name.map(|name| name.parse().map_err(|_| unknown(name)))
        .transpose()
}

fn own(own: Option<Own>, vocab_size: usize) -> Result<(Context, Option<Template>), ConfigError> {
    let (context, template) = own.map_or((None, None), |own| (own.context, own.template));
    let context = match context.as_deref() {
        None | Some("stop") => Context::Stop,
        Some("slide") => Context::Slide,
        Some(other) => {
            let (key, hint) = ("icgpt.context", "stop and slide are");
            return Err(ConfigError::Unsupported {
                key,
                value: other.into(),
                hint,
            });
        }
    };
    let template = template.or_else(|| instruct(vocab_size));
    let ids = template
        .iter()
        .flat_map(|t| t.prefix.iter().chain(&t.suffix).chain(&t.stop));
    if let Some(id) = ids.copied().find(|&id| id as usize >= vocab_size) {
        let (key, hint) = ("icgpt.template", "its ids must be below vocab_size");
        return Err(ConfigError::Unsupported {
            key,
            value: id.to_string(),
            hint,
        });
    }
    Ok((context, template))
}

/// GPT-2 with the three instruct tokens behind its vocabulary: 50257 `### End`,
/// 50258 `### Instruction:`, 50259 `### Response:`. 198 is a line's end, 628 two.
fn instruct(vocab_size: usize) -> Option<Template> {
    (vocab_size == 50_260).then(|| Template {
        prefix: vec![50_258, 198],
        suffix: vec![628, 50_259, 198],
        stop: vec![50_257],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPT2: &str =
        r#""n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024, "vocab_size": 50257"#;

    fn parse(more: &str) -> Result<Config, ConfigError> {
        Config::from_json(format!("{{{GPT2}{more}}}").as_bytes())
    }

    #[test]
    fn reads_sizes_and_defaults() {
        let config =
            parse(r#", "n_inner": null, "n_ctx": 7, "eos_token_id": 50256, "unknown": [1]"#)
                .unwrap();
        assert_eq!(
            (config.n_ctx, config.n_inner, config.n_layer),
            (1024, 3072, 12)
        );
        assert_eq!(config.activation, Activation::GeluNew);
        assert!(config.tie_word_embeddings && config.template.is_none());
        assert_eq!(config.stop_tokens(), [50256]);
        assert_eq!(config.attention_scale(3), 0.125);
    }

    #[test]
    fn reads_aliases_of_the_context_length() {
        for key in ["n_ctx", "max_position_embeddings", "n_positions"] {
            let json =
                format!(r#"{{"n_layer":1,"n_head":1,"n_embd":4,"vocab_size":3,"{key}":16}}"#);
            assert_eq!(Config::from_json(json.as_bytes()).unwrap().n_ctx, 16);
        }
    }

    #[test]
    fn scales_attention_as_asked() {
        let config =
            parse(r#", "scale_attn_weights": false, "scale_attn_by_inverse_layer_idx": true"#)
                .unwrap();
        assert_eq!(config.attention_scale(3), 0.25);
    }

    #[test]
    fn reads_our_own_keys() {
        let config =
            parse(r#", "icgpt": {"context": "slide", "template": {"prefix": [1], "stop": [2]}}"#)
                .unwrap();
        assert_eq!(config.precision, None);
        assert_eq!(config.context, Context::Slide);
        let template = config.template.clone().unwrap();
        assert_eq!(
            (template.prefix, template.suffix, template.stop),
            (vec![1], vec![], vec![2])
        );
        assert_eq!(config.stop_tokens(), [2]);
        let config = parse(r#", "icgpt": {"precision": "int16"}"#).unwrap();
        assert_eq!(config.precision, Some(Precision::Int16));
    }

    #[test]
    fn knows_the_instruct_vocabulary() {
        let json = r#"{"n_layer":1,"n_head":1,"n_embd":4,"vocab_size":50260,"n_ctx":16}"#;
        let config = Config::from_json(json.as_bytes()).unwrap();
        assert_eq!(config.template.clone().unwrap().suffix, [628, 50259, 198]);
        assert_eq!(config.stop_tokens(), [50257]);
    }

    #[test]
    fn refuses_what_is_missing_or_absurd() {
        let no_head = r#"{"n_layer":1,"n_embd":4,"vocab_size":3,"n_ctx":16}"#;
        assert_eq!(
            Config::from_json(no_head.as_bytes()),
            Err(ConfigError::Missing("n_head"))
        );
        for bytes in [
            &b""[..],
            b"[]",
            b"{",
            b"\xff\xfe",
            b"{\"n_layer\": -1}",
            b"{\"n_layer\": 1.5}",
        ] {
            assert!(matches!(
                Config::from_json(bytes),
                Err(ConfigError::Json(_) | ConfigError::Missing(_))
            ));
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(
            parse(&format!(r#", "x": {deep}"#)),
            Err(ConfigError::Json(_))
        ));
        assert!(matches!(
            Config::from_json(&vec![b' '; MAX_BYTES + 1]),
            Err(ConfigError::TooLong(_))
        ));
        let zero = r#"{"n_layer":0,"n_head":1,"n_embd":4,"vocab_size":3,"n_ctx":16}"#;
        assert!(matches!(
            Config::from_json(zero.as_bytes()),
            Err(ConfigError::OutOfRange { key: "n_layer", .. })
        ));
        let huge =
            r#"{"n_layer":1,"n_head":1,"n_embd":4,"vocab_size":18446744073709551615,"n_ctx":16}"#;
        assert!(matches!(
            Config::from_json(huge.as_bytes()),
            Err(ConfigError::OutOfRange { .. })
        ));
        let odd = r#"{"n_layer":1,"n_head":3,"n_embd":4,"vocab_size":3,"n_ctx":16}"#;
        assert_eq!(
            Config::from_json(odd.as_bytes()),
            Err(ConfigError::HeadSize {
                n_embd: 4,
                n_head: 3
            })
        );
    }

    #[test]
    fn refuses_what_it_cannot_compute() {
        for more in [
            r#", "model_type": "llama""#,
            r#", "model_type": "gptj", "rotary_dim": null"#,
            r#", "activation_function": "relu""#,
            r#", "add_cross_attention": true"#,
            r#", "layer_norm_epsilon": -1e-5"#,
            r#", "eos_token_id": [1, 2]"#,
            r#", "icgpt": {"context": "roll"}"#,
            r#", "icgpt": {"precision": "int4"}"#,
            r#", "icgpt": {"template": {"stop": [50257]}}"#,
        ] {
            assert!(
                matches!(parse(more), Err(ConfigError::Unsupported { .. })),
                "{more}"
            );
        }
    }
}
