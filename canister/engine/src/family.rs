//! The families of models that the engine computes, told apart by `model_type` in `config.json`.
//!
//! GPT-2 (Radford et al., 2019) and GPT-J (Wang and Komatsuzaki, 2021,
//! <https://github.com/kingoflolz/mesh-transformer-jax>), each as transformers has it.

use crate::config::ConfigError;

/// Which of the models that are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Learned positions, two layer norms a block, and attention before the perceptron.
    #[default]
    Gpt2,
    /// Positions are rotations of queries and keys; attention and perceptron of a block share one
    /// layer norm and run side by side; the head has a bias.
    GptJ {
        /// Dimensions of each head that are rotated, from the first on; an even number.
        rotary_dim: usize,
    },
}

impl Family {
    /// Its name, as transformers has it in `model_type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Family::Gpt2 => "gpt2",
            Family::GptJ { .. } => "gptj",
        }
    }

    /// The family that a configuration with these keys means.
    pub(crate) fn read(
        model_type: Option<&str>,
        rotary_dim: Option<u64>,
        n_embd: usize,
        n_head: usize,
    ) -> Result<Family, ConfigError> {
        match model_type {
            None | Some("gpt2") => Ok(Family::Gpt2),
            Some("gptj") => gptj(rotary_dim, n_embd, n_head),
            Some(other) => Err(ConfigError::Unsupported {
                key: "model_type",
                value: other.into(),
                hint: "gpt2 and gptj are",
            }),
        }
    }
}

/// What GPT-J's configuration means where it is silent. A null means all dimensions of the stream.
#[allow(clippy::unnecessary_wraps, reason = "serde wants the field's type")]
pub(crate) fn default_rotary_dim() -> Option<u64> {
    Some(64)
}

fn gptj(rotary_dim: Option<u64>, n_embd: usize, n_head: usize) -> Result<Family, ConfigError> {
    let head_size = n_embd / n_head;
    let rotary_dim = match rotary_dim {
        Some(rotary_dim) => rotary_dim,
        None if n_head == 1 => n_embd as u64,
        None => {
            return Err(ConfigError::Unsupported {
                key: "rotary_dim",
                value: "null".into(),
                hint: "only models of one head do without a number",
            });
        }
    };
    match usize::try_from(rotary_dim) {
        Ok(dim) if (2..=head_size).contains(&dim) && dim.is_multiple_of(2) => {
            Ok(Family::GptJ { rotary_dim: dim })
        }
        _ => Err(ConfigError::RotaryDim {
            rotary_dim,
            head_size,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(more: &str) -> Result<Config, ConfigError> {
        let sizes = r#""n_layer": 12, "n_head": 12, "n_embd": 768, "n_ctx": 9, "vocab_size": 5"#;
        Config::from_json(format!("{{{sizes}{more}}}").as_bytes())
    }

    #[test]
    fn knows_gpt_j() {
        let gptj = |more: &str| parse(&format!(r#", "model_type": "gptj"{more}"#));
        let config = gptj(r#", "scale_attn_weights": false, "rotary_dim": 32"#).unwrap();
        assert_eq!(config.family, Family::GptJ { rotary_dim: 32 });
        assert_eq!((config.attention_scale(3), config.n_inner), (0.125, 3072));
        assert!(!config.tie_word_embeddings);
        assert_eq!(gptj("").unwrap().family, Family::GptJ { rotary_dim: 64 });
        assert_eq!(parse("").unwrap().family, Family::Gpt2);
        let one_head = r#"{"model_type":"gptj","n_layer":1,"n_head":1,"n_embd":6,"vocab_size":3,
            "n_ctx":16,"rotary_dim":null}"#;
        let family = Config::from_json(one_head.as_bytes()).unwrap().family;
        assert_eq!(family, Family::GptJ { rotary_dim: 6 });
        for rotary_dim in [0, 1, 3, 63, 66, u64::MAX] {
            assert_eq!(
                gptj(&format!(r#", "rotary_dim": {rotary_dim}"#)),
                Err(ConfigError::RotaryDim {
                    rotary_dim,
                    head_size: 64
                })
            );
        }
    }
}
