//! The model canister: a GPT on the Internet Computer.
//!
//! A thin shell over [`icgpt_engine`], which does the arithmetic. Data flows one way:
//! [`seed`] and [`upload`] take uploaded bytes, [`files`] keeps them in [`storage`], [`serving`] packs and loads
//! the model, [`jobs`] generates with it in [`slices`] of messages and has the answers [`certified`]. [`access`]
//! says who may call what, [`quotas`] how much of it. [`http`] tells browsers and monitors about it.

mod access;
mod answer;
mod arrivals;
mod certified;
mod error;
mod figures;
mod files;
mod http;
mod jobs;
mod options;
mod own;
mod packed;
mod quotas;
mod random;
mod ranges;
mod reckoning;
mod reply;
mod seed;
mod serving;
mod slices;
mod storage;
mod types;
mod upload;

/// The interface, in the module itself, so that every deployment tool and client finds it there.
#[cfg(target_arch = "wasm32")]
#[unsafe(link_section = "icp:public candid:service")]
#[used]
static CANDID: [u8; include_bytes!("../model.did").len()] = *include_bytes!("../model.did");

#[ic_cdk::init]
fn init() {
    open_storage();
    access::install(ic_cdk::api::msg_caller());
    figures::begin();
    http::renew();
}

#[ic_cdk::post_upgrade]
fn post_upgrade() {
    open_storage();
    if let Err(error) = serving::rebuild() {
        ic_cdk::trap(format!("the stored model can't be rebuilt: {error}"));
    }
    if let Err(version) = jobs::restore() {
        ic_cdk::trap(format!(
            "stable memory holds jobs of layout {version}: install a matching module, or reinstall \
             to begin anew"
        ));
    }
    figures::begin();
    http::renew();
}

fn open_storage() {
    if let Err(storage::UnknownLayout(version)) = storage::open() {
        ic_cdk::trap(format!(
            "stable memory holds layout {version}, this module reads layout {}: \
             install a matching module, or reinstall to begin anew",
            storage::LAYOUT_VERSION
        ));
    }
    if quotas::open().is_err() {
        ic_cdk::trap(
            "stable memory holds quotas of another layout: install a matching module, or reinstall \
             to begin anew",
        );
    }
}

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;

    use candid::Principal;
    use candid_parser::utils::{CandidSource, service_compatible, service_equal};
    use ic_http_certification::HttpResponse;
    use serde_bytes::ByteBuf;

    use crate::types::*;

    candid::export_service!();

    const OURS: &str = include_str!("../model.did");
    const SEED: &str = include_str!("../../../tests/canister/seed.did");

    #[test]
    fn model_did_is_what_the_code_exports() {
        // The export spells out that `init` takes no argument; the file leaves it to the reader.
        let exported = __export_service().replace("service : () -> {", "service : {");
        service_equal(CandidSource::Text(&exported), CandidSource::Text(OURS)).unwrap();
    }

    #[test]
    fn clients_of_the_seed_work_unchanged() {
        service_compatible(CandidSource::Text(OURS), CandidSource::Text(SEED)).unwrap();
    }

    #[test]
    fn a_changed_result_would_be_noticed() {
        let changed = OURS.replace(
            "tokenize : (text) -> (Tokenizer_Result)",
            "tokenize : (text) -> (text)",
        );
        assert_ne!(changed, OURS);
        assert!(
            service_compatible(CandidSource::Text(&changed), CandidSource::Text(SEED)).is_err()
        );
    }
}
