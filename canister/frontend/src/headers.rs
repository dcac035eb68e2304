//! What every response of the page carries besides its content: what browsers may do with it.

use icgpt_http::Header;

use crate::config::{Config, Network};

/// Where calls to the Internet Computer go from a page that is at another address than its own.
const MAINNET_HOSTS: &str = " https://icp-api.io https://icp0.io https://ic0.app";

/// The content security policy: nothing but the page's own files, and calls to the network.
pub fn policy(config: &Config, network: &Network) -> String {
    let hosts = match network {
        Network::Mainnet => MAINNET_HOSTS,
        Network::Local(_) => "",
    };
    let host = config.host.as_deref().unwrap_or_default();
    let gap = if host.is_empty() { "" } else { " " };
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; \
         connect-src 'self'{hosts}{gap}{host}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// The headers that all responses have in common.
pub fn common(policy: &str) -> Vec<Header> {
    [
        ("content-security-policy", policy),
        ("cross-origin-opener-policy", "same-origin-allow-popups"),
        (
            "permissions-policy",
            "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        ),
        ("referrer-policy", "same-origin"),
        (
            "strict-transport-security",
            "max-age=31536000; includeSubDomains",
        ),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into()
}

/// How long browsers may keep a file without asking again.
pub fn caching(lasting: bool) -> Header {
    let value = if lasting {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    ("cache-control".into(), value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(config: &Config, network: &Network) -> String {
        let policy = policy(config, network);
        let parts: Vec<&str> = policy.split("; ").collect();
        assert!(parts.contains(&"script-src 'self'") && parts.contains(&"default-src 'none'"));
        let part = parts.iter().find(|part| part.starts_with("connect-src"));
        (*part.unwrap()).into()
    }

    #[test]
    fn a_local_page_calls_nobody_but_the_network_it_comes_from() {
        let local = Network::Local("00".into());
        assert_eq!(
            connections(&Config::default(), &local),
            "connect-src 'self'"
        );
        let config = Config {
            host: Some("http://127.0.0.1:4943".into()),
            ..Config::default()
        };
        assert_eq!(
            connections(&config, &local),
            "connect-src 'self' http://127.0.0.1:4943"
        );
        let mainnet = connections(&Config::default(), &Network::Mainnet);
        assert_eq!(mainnet, format!("connect-src 'self'{MAINNET_HOSTS}"));
    }
}
