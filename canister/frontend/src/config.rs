//! Which model the page talks to, and on which network: what `/config.json` says.

use candid::{CandidType, Principal};
use ic_cdk::api::{env_var_name_exists, env_var_value};
use icgpt_http::hex;
use serde::Deserialize;
use serde_json::json;

/// Where `icp` names the model's canister, in the settings of every canister of a project.
const VARIABLE: &str = "PUBLIC_CANISTER_ID:model";

/// The key that signs for the Internet Computer itself.
const MAINNET_ROOT_KEY: &str = concat!(
    "308182301d060d2b0601040182dc7c0503010201060c2b0601040182dc7c05030201036100",
    "814c0e6ec71fab583b08bd81373c255c3c371b2e84863c98a4f1e08b74235d14",
    "fb5d9c0cd546d9685f913a0c0b2cc5341583bf4b4392e467db96d65b9bb4cb71",
    "7112f8472e0d5a4d14505ffd7484b01291091c5f87b98883463f98091a0baaae",
);

/// What the installer says.
#[derive(CandidType, Deserialize, Clone, Default, PartialEq, Eq, Debug)]
pub struct Config {
    /// The model's canister.
    pub model_canister: Option<Principal>,
    /// Where calls go, if not where the page comes from.
    pub host: Option<String>,
    /// Where people sign in.
    pub identity_provider: Option<String>,
}

/// The network that the canister runs on, by its root key.
#[derive(PartialEq, Eq, Debug)]
pub enum Network {
    /// The Internet Computer.
    Mainnet,
    /// Another one, with the key in hexadecimal.
    Local(String),
}

impl Network {
    /// The network whose root key (DER) this is.
    pub fn of(root_key: &[u8]) -> Self {
        let digits = hex(root_key);
        if digits == MAINNET_ROOT_KEY {
            Self::Mainnet
        } else {
            Self::Local(digits)
        }
    }
}

impl Config {
    /// Refuses an address that a header or a browser could take for more than one address.
    ///
    /// # Errors
    /// Which one it is.
    pub fn check(&self) -> Result<(), String> {
        for address in [&self.host, &self.identity_provider].into_iter().flatten() {
            let rest = ["https://", "http://"]
                .iter()
                .find_map(|scheme| address.strip_prefix(scheme));
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:-_/[]#?=&".contains(&byte);
            if !rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(plain)) {
                return Err(format!(
                    "{address:?} is no address such as https://icp-api.io"
                ));
            }
        }
        Ok(())
    }

    /// The text of `/config.json`.
    pub fn json(&self, network: &Network) -> String {
        let own = self.model_canister.map(|id| id.to_text());
        let named = || env_var_name_exists(VARIABLE).then(|| env_var_value(VARIABLE));
        self.json_with(network, own.or_else(named).as_deref())
    }

    fn json_with(&self, network: &Network, model: Option<&str>) -> String {
        let (name, root_key) = match network {
            Network::Mainnet => ("ic", None),
            Network::Local(key) => ("local", Some(key)),
        };
        let value = json!({
            "model_canister": model,
            "network": name,
            "root_key": root_key,
            "host": self.host,
            "identity_provider": self.identity_provider,
        });
        format!("{value}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u32> = hex
            .chars()
            .map(|digit| digit.to_digit(16).unwrap())
            .collect();
        digits
            .chunks(2)
            .map(|pair| (pair[0] * 16 + pair[1]) as u8)
            .collect()
    }

    #[test]
    fn the_network_is_known_by_its_key() {
        let key = bytes(MAINNET_ROOT_KEY);
        assert_eq!(key.len(), 133);
        assert_eq!(Network::of(&key), Network::Mainnet);
        assert_eq!(Network::of(&[0, 0xfa]), Network::Local("00fa".into()));
    }

    #[test]
    fn an_address_is_no_more_than_that() {
        let with = |host: &str| Config {
            host: Some(host.into()),
            ..Config::default()
        };
        for good in ["https://icp-api.io", "http://[::1]:4943"] {
            assert_eq!(with(good).check(), Ok(()));
        }
        for bad in [
            "",
            "https://",
            "icp-api.io",
            "https://a.b; script-src *",
            "https://a b",
        ] {
            assert!(with(bad).check().is_err(), "{bad}");
        }
    }

    #[test]
    fn mainnet_has_no_key_of_its_own() {
        let config = Config {
            host: Some("https://\"quoted\"".into()),
            ..Config::default()
        };
        let text = config.json_with(&Network::Mainnet, Some("aaaaa-aa"));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["model_canister"], "aaaaa-aa");
        assert_eq!(value["network"], "ic");
        assert!(value["root_key"].is_null());
        assert_eq!(value["host"], "https://\"quoted\"");
        let text = config.json_with(&Network::Local("00fa".into()), None);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(value["model_canister"].is_null());
        assert_eq!(
            (&value["network"], &value["root_key"]),
            (&json!("local"), &json!("00fa"))
        );
    }
}
