//! The page's canister: the files that were built into this module, each with a certificate that
//! HTTP gateways check, and `/config.json`, which says which model the page talks to.
//!
//! [`config`] is what the installer says, [`headers`] what every response carries, [`site`] the
//! certified responses and which of them answers a request.

mod config;
mod headers;
mod site;

use std::cell::RefCell;

use ic_http_certification::{HttpRequest, HttpResponse};

use config::{Config, Network};
use site::Site;

/// A file of the page.
struct File {
    path: &'static str,
    content_type: &'static str,
    /// Its name changes with its content.
    lasting: bool,
    body: &'static [u8],
    /// The same in encodings that make it smaller, the best first.
    smaller: &'static [(&'static str, &'static [u8])],
}

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// The interface, in the module itself, so that every deployment tool and client finds it there.
#[cfg(target_arch = "wasm32")]
#[unsafe(link_section = "icp:public candid:service")]
#[used]
static CANDID: [u8; include_bytes!("../frontend.did").len()] = *include_bytes!("../frontend.did");

thread_local! {
    static CONFIG: RefCell<Config> = RefCell::default();
    static SITE: RefCell<Site> = RefCell::default();
}

#[ic_cdk::init]
fn init(config: Option<Config>) {
    open(config.unwrap_or_default());
}

#[ic_cdk::post_upgrade]
fn post_upgrade(config: Option<Config>) {
    let kept = || ic_cdk::storage::stable_restore().map_or_else(|_| Config::default(), |(it,)| it);
    open(config.unwrap_or_else(kept));
}

/// Makes all responses and has their root certified.
fn open(config: Config) {
    let network = Network::of(&ic_cdk::api::root_key());
    let text = config.json(&network);
    let mut site = Site::default();
    let made = config
        .check()
        .and_then(|()| {
            site.add_page(
                FILES,
                text.into_bytes(),
                &headers::policy(&config, &network),
            )
        })
        .and_then(|()| ic_cdk::storage::stable_save((&config,)).map_err(|error| error.to_string()));
    if let Err(error) = made {
        ic_cdk::trap(error);
    }
    ic_cdk::api::certified_data_set(site.root_hash());
    SITE.set(site);
    CONFIG.set(config);
}

#[ic_cdk::query]
#[allow(
    clippy::needless_pass_by_value,
    reason = "Candid decodes arguments as owned values"
)]
fn http_request(request: HttpRequest<'static>) -> HttpResponse<'static> {
    let certificate = ic_cdk::api::data_certificate().unwrap_or_default();
    SITE.with_borrow(|site| site.answer(&request, &certificate))
}

#[ic_cdk::query]
fn config() -> Config {
    CONFIG.with_borrow(Clone::clone)
}

#[cfg(test)]
mod tests {
    use candid_parser::utils::{CandidSource, service_equal};
    use ic_http_certification::{HttpRequest, HttpResponse};

    use crate::config::Config;

    candid::export_service!();

    #[test]
    fn frontend_did_is_what_the_code_exports() {
        let exported = __export_service();
        let ours = include_str!("../frontend.did");
        service_equal(CandidSource::Text(&exported), CandidSource::Text(ours)).unwrap();
    }
}
