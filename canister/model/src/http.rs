//! What the canister answers over HTTP, to a gateway's query `http_request`.
//!
//! | path | what | proof |
//! |---|---|---|
//! | `/model.json` | what `model_info` tells of the model | certified, as a whole |
//! | `/health` | 200 while new work is taken, else 503 | none: it changes with every moment |
//! | `/metrics` | figures, as Prometheus reads them ([`figures`](crate::figures)) | none, too |
//! | anything else | 404 | certified |
//!
//! That the two have no proof is certified itself, so nobody on the way can take it from the others.
//! The tree is so small that every answer shows all of it: what a path costs does not depend on it.

use std::borrow::Cow;
use std::cell::RefCell;

use ic_cdk::api::{canister_self, data_certificate};
use ic_http_certification::{
    HttpCertificationPath, HttpCertificationTree, HttpRequest as Asked, HttpResponse, StatusCode,
};
use icgpt_http::{Certified, Header, Open, etag, failure, header, hex};
use serde_bytes::ByteBuf;
use serde_json::json;

use crate::access;
use crate::certified;
use crate::figures;
use crate::jobs;
use crate::own;
use crate::quotas;
use crate::serving;
use crate::types::HttpRequest;

const MODEL: &str = "model.json";
const HEALTH: &str = "health";
const METRICS: &str = "metrics";

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

const NOTHING_HERE: &str = "Here are /model.json, /health and /metrics.\n";
const WRONG_METHOD: &str = "Only GET and HEAD are answered here.\n";
const ALLOW: [&str; 2] = ["allow", "GET, HEAD"];

/// What is certified.
struct Site {
    tree: HttpCertificationTree,
    model: Certified,
    etag: String,
    /// For who has it already.
    unchanged: Certified,
    wrong_method: Certified,
    absent: Certified,
    health: Open,
    metrics: Open,
}

thread_local! {
    static SITE: RefCell<Option<Site>> = const { RefCell::new(None) };
}

impl Site {
    fn new(document: Vec<u8>) -> Result<Self, icgpt_http::Error> {
        let at = |path| HttpCertificationPath::exact(path);
        let etag = etag(&document);
        let mut tagged = headers(JSON, "no-cache");
        tagged.push(("etag".into(), etag.clone()));
        let mut refusing = headers(TEXT, "no-cache");
        refusing.push(ALLOW.map(Into::into).into());
        let site = Self {
            unchanged: Certified::unchanged(&tagged, &etag, at(MODEL))?,
            model: Certified::whole(StatusCode::OK, tagged, Cow::Owned(document), at(MODEL))?,
            etag,
            wrong_method: Certified::whole(
                StatusCode::METHOD_NOT_ALLOWED,
                refusing,
                Cow::Borrowed(WRONG_METHOD.as_bytes()),
                at(MODEL),
            )?,
            absent: Certified::whole(
                StatusCode::NOT_FOUND,
                headers(TEXT, "no-cache"),
                Cow::Borrowed(NOTHING_HERE.as_bytes()),
                HttpCertificationPath::wildcard(""),
            )?,
            health: Open::at(at(HEALTH)),
            metrics: Open::at(at(METRICS)),
            tree: HttpCertificationTree::default(),
        };
        Ok(site.planted())
    }

    /// Puts all of it into the tree.
    fn planted(mut self) -> Self {
        let tree = &mut self.tree;
        for response in [
            &self.model,
            &self.unchanged,
            &self.wrong_method,
            &self.absent,
        ] {
            response.enter(tree);
        }
        self.health.enter(tree);
        self.metrics.enter(tree);
        self
    }

    fn answer(&self, request: &HttpRequest, certificate: &[u8]) -> HttpResponse<'static> {
        let readable = matches!(request.method.as_str(), "GET" | "HEAD");
        let witness = certified::witness_with(self.tree.as_hash_tree());
        let certified = |response: &Certified| response.proven(certificate, &witness);
        let open = |open: &Open, found: fn() -> HttpResponse<'static>| {
            let response = if readable { found() } else { not_allowed() };
            open.excused(response, certificate, &witness)
        };
        match place(&request.url).as_deref() {
            Some(MODEL) if !readable => certified(&self.wrong_method),
            Some(MODEL) if request.method == "GET" && self.is_had(request) => {
                certified(&self.unchanged)
            }
            Some(MODEL) => certified(&self.model),
            Some(HEALTH) => open(&self.health, health),
            Some(METRICS) => open(&self.metrics, metrics),
            _ => certified(&self.absent),
        }
    }

    /// Whether who asks has the document already.
    fn is_had(&self, request: &HttpRequest) -> bool {
        header(&request.headers, "if-none-match") == Some(self.etag.as_str())
    }
}

/// The one part of a path that has one; what gateways take for the same path is the same here.
fn place(url: &str) -> Option<String> {
    let path = Asked::get(url).build().get_path().ok()?;
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    match (parts.next(), parts.next(), path.ends_with('/')) {
        (Some(only), None, false) => Some(only.into()),
        _ => None,
    }
}

/// What every answer carries. All pages may read it: nothing in it depends on who asks from where.
fn headers(content_type: &str, caching: &str) -> Vec<Header> {
    [
        ("access-control-allow-origin", "*"),
        ("cache-control", caching),
        ("content-type", content_type),
        ("x-content-type-options", "nosniff"),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into()
}

fn response(status: StatusCode, content_type: &str, body: String) -> HttpResponse<'static> {
    HttpResponse::builder()
        .with_status_code(status)
        .with_headers(headers(content_type, "no-store"))
        .with_body(body.into_bytes())
        .build()
}

fn not_allowed() -> HttpResponse<'static> {
    let mut response = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, WRONG_METHOD.into());
    response.add_header(ALLOW.map(Into::into).into());
    response
}

/// Whether new work is taken. Who may not use the model is told of the model alone, as elsewhere.
fn health() -> HttpResponse<'static> {
    let model = serving::model().map(drop);
    let taken = model.and_then(|()| {
        if access::user().is_err() {
            return Ok(());
        }
        quotas::afford_work(&quotas::current())?;
        jobs::may_enter()
    });
    let (status, word) = match taken {
        Ok(()) => (StatusCode::OK, "ok"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let body = json!({
        "status": word,
        "reason": taken.err().map(|error| error.to_string()),
        "model": name(),
    });
    response(status, JSON, format!("{body}\n"))
}

fn metrics() -> HttpResponse<'static> {
    let all = access::user().is_ok();
    response(StatusCode::OK, PROMETHEUS, figures::text(all))
}

/// The model's name in hexadecimal, while it answers.
fn name() -> Option<String> {
    let model = serving::model().ok();
    model.map(|_| hex(&serving::model_name()))
}

/// The body of `/model.json`: `model_info`, but for what changes while a set-up runs.
fn document() -> Vec<u8> {
    let info = own::model_info();
    let digest = |sha256: &Option<ByteBuf>| sha256.as_ref().map(|bytes| hex(bytes));
    let source = &info.source_sha256;
    let value = json!({
        "canister": canister_self().to_text(),
        "public": access::is_public(),
        "ready": serving::model().is_ok(),
        "name": info.name,
        "architecture": info.architecture.map(|its| json!({
            "family": its.family,
            "n_layer": its.n_layer,
            "n_head": its.n_head,
            "n_embd": its.n_embd,
            "n_ctx": its.n_ctx,
            "n_inner": its.n_inner,
            "vocab_size": its.vocab_size,
            "activation": its.activation,
            "tied": its.tied,
            "parameters": its.parameters,
        })),
        "precision": info.precision,
        "next_precision": info.next_precision,
        "layout_sha256": digest(&info.layout_sha256),
        "streamed": info.streamed,
        "source_sha256": {
            "safetensors": digest(&source.safetensors),
            "config": digest(&source.config),
            "tokenizer": digest(&source.tokenizer),
        },
        "template": info.template.map(|its| json!({
            "prefix": its.prefix,
            "suffix": its.suffix,
            "stop": its.stop,
        })),
        "context": info.context,
        "tokenizer": info.tokenizer,
        "per_message": info.per_message,
        "layout_version": info.layout_version,
        "module_version": info.module_version,
    });
    format!("{value:#}\n").into_bytes()
}

/// Certifies `/model.json` as it is now. To be called when anything in it has changed.
pub fn renew() {
    let site = Site::new(document()).ok();
    let root = site.as_ref().map(|site| site.tree.root_hash());
    SITE.set(site);
    certified::set_http(root.unwrap_or_default());
}

#[ic_cdk::query]
#[allow(
    clippy::needless_pass_by_value,
    reason = "Candid decodes arguments as owned values"
)]
fn http_request(request: HttpRequest) -> HttpResponse<'static> {
    let certificate = data_certificate().unwrap_or_default();
    SITE.with_borrow(|site| match site {
        Some(site) => site.answer(&request, &certificate),
        None => failure(StatusCode::INTERNAL_SERVER_ERROR, "Nothing is certified.\n"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(site: &Site, method: &str, url: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let headers = headers.iter();
        let request = HttpRequest {
            method: method.into(),
            url: url.into(),
            headers: headers
                .map(|&(name, value)| (name.into(), value.into()))
                .collect(),
            body: ByteBuf::new(),
            certificate_version: Some(2),
        };
        let response = site.answer(&request, b"certificate");
        let proof = header(response.headers(), "ic-certificate");
        assert!(proof.is_some_and(|proof| proof.ends_with("version=2")));
        let body = String::from_utf8_lossy(response.body()).into_owned();
        (response.status_code().as_u16(), body)
    }

    #[test]
    fn paths_are_those_that_gateways_take_them_for() {
        for url in [
            "/health",
            "/health?x=1",
            "//health",
            "/%68ealth",
            "https://a.b/health",
        ] {
            assert_eq!(place(url).as_deref(), Some(HEALTH), "{url}");
        }
        let long = "/a".repeat(1 << 20);
        for url in ["", "/", "/health/", "/health/x", "/%ff", "?", "\0", &long] {
            assert_ne!(place(url).as_deref(), Some(HEALTH), "{url:.9}");
        }
    }

    #[test]
    fn what_is_certified_is_answered() {
        let site = Site::new(b"{}\n".into()).unwrap();
        let document = (200, "{}\n".into());
        assert_eq!(ask(&site, "GET", "/model.json", &[]), document);
        assert_eq!(ask(&site, "HEAD", "/model.json", &[]), document);
        let other = [("If-None-Match", "\"other\"")];
        assert_eq!(ask(&site, "GET", "/model.json", &other), document);
        let had = [("If-None-Match", site.etag.as_str())];
        assert_eq!(ask(&site, "GET", "/model.json", &had), (304, String::new()));
        assert_eq!(ask(&site, "HEAD", "/model.json", &had), document);
        let refused = (405, WRONG_METHOD.into());
        assert_eq!(ask(&site, "POST", "/model.json", &had), refused);
        assert_eq!(ask(&site, "", "/health", &[]), refused);
        for url in ["/", "", "/nothing", "/model.json/", "\0"] {
            assert_eq!(ask(&site, "GET", url, &[]), (404, NOTHING_HERE.into()));
        }
    }

    #[test]
    fn another_document_has_another_root() {
        let root = |document: &[u8]| Site::new(document.into()).unwrap().tree.root_hash();
        assert_eq!(root(b"a"), root(b"a"));
        assert_ne!(root(b"a"), root(b"b"));
    }
}
