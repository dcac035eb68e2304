//! Certified HTTP responses (version 2): how the page's canister and the model's make them.
//!
//! A response is certified whatever the request was, so that HEAD and GET get the same one (a gateway
//! leaves the body out). For who has it already there is an empty one, certified for requests that
//! say so.
//! See <https://internetcomputer.org/docs/references/http-gateway-protocol-spec>.

use std::borrow::Cow;

use ic_certification::HashTree;
use ic_http_certification::utils::add_v2_certificate_header;
use ic_http_certification::{
    CERTIFICATE_EXPRESSION_HEADER_NAME, DefaultCelBuilder, DefaultResponseCertification,
    HttpCertification, HttpCertificationPath, HttpCertificationTree, HttpCertificationTreeEntry,
    HttpRequest, HttpResponse, StatusCode,
};
use sha2::{Digest, Sha256};

/// Name and value.
pub type Header = (String, String);

/// Why a response can't be certified.
pub type Error = String;

/// A response, where it may be answered, and its place in the tree.
pub struct Certified {
    response: HttpResponse<'static>,
    entry: HttpCertificationTreeEntry<'static>,
}

impl Certified {
    /// A response that is certified whatever was asked.
    ///
    /// # Errors
    /// It can't be certified.
    pub fn whole(
        status: StatusCode,
        mut headers: Vec<Header>,
        body: Cow<'static, [u8]>,
        path: HttpCertificationPath<'static>,
    ) -> Result<Self, Error> {
        let all = DefaultResponseCertification::response_header_exclusions(vec![]);
        let expression = DefaultCelBuilder::response_only_certification()
            .with_response_certification(all)
            .build();
        headers.push(expressed(expression.to_string()));
        let response = HttpResponse::builder()
            .with_status_code(status)
            .with_headers(headers)
            .with_body(body)
            .build();
        let certification = HttpCertification::response_only(&expression, &response, None)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            response,
            entry: HttpCertificationTreeEntry::new(path, certification),
        })
    }

    /// A response without a body, certified for who says that it has what the tag names.
    ///
    /// # Errors
    /// It can't be certified.
    pub fn unchanged(
        headers: &[Header],
        etag: &str,
        path: HttpCertificationPath<'static>,
    ) -> Result<Self, Error> {
        let all = DefaultResponseCertification::response_header_exclusions(vec![]);
        let expression = DefaultCelBuilder::full_certification()
            .with_request_headers(vec!["if-none-match"])
            .with_response_certification(all)
            .build();
        let mut headers = headers.to_vec();
        headers.push(expressed(expression.to_string()));
        let response = HttpResponse::not_modified(headers).build();
        let request = HttpRequest::get("/")
            .with_headers(vec![("if-none-match".into(), etag.into())])
            .build();
        let certification = HttpCertification::full(&expression, &request, &response, None)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            response,
            entry: HttpCertificationTreeEntry::new(path, certification),
        })
    }

    /// Puts it into the tree whose root the subnet certifies.
    pub fn enter(&self, tree: &mut HttpCertificationTree) {
        tree.insert(&self.entry);
    }

    /// The way to it through a tree, for one who asked for a path.
    ///
    /// # Errors
    /// It is no answer for that path.
    pub fn witness(&self, tree: &HttpCertificationTree, path: &str) -> Result<HashTree, Error> {
        tree.witness(&self.entry, path)
            .map_err(|error| error.to_string())
    }

    /// The response with what proves it.
    #[must_use]
    pub fn proven(&self, certificate: &[u8], witness: &HashTree) -> HttpResponse<'static> {
        let mut response = self.response.clone();
        let place = self.entry.path.to_expr_path();
        add_v2_certificate_header(certificate, &mut response, witness, &place);
        response
    }
}

/// A path whose responses nobody certifies; that this is so is certified.
pub struct Open(HttpCertificationTreeEntry<'static>);

impl Open {
    /// Leaves the responses of a path open.
    #[must_use]
    pub fn at(path: HttpCertificationPath<'static>) -> Self {
        Self(HttpCertificationTreeEntry::new(
            path,
            HttpCertification::skip(),
        ))
    }

    /// Puts it into the tree whose root the subnet certifies.
    pub fn enter(&self, tree: &mut HttpCertificationTree) {
        tree.insert(&self.0);
    }

    /// A response with what proves that it needs no proof.
    #[must_use]
    pub fn excused(
        &self,
        mut response: HttpResponse<'static>,
        certificate: &[u8],
        witness: &HashTree,
    ) -> HttpResponse<'static> {
        let expression = DefaultCelBuilder::skip_certification().to_string();
        response.add_header(expressed(expression));
        let place = self.0.path.to_expr_path();
        add_v2_certificate_header(certificate, &mut response, witness, &place);
        response
    }
}

fn expressed(expression: String) -> Header {
    (CERTIFICATE_EXPRESSION_HEADER_NAME.into(), expression)
}

/// An answer that nobody has certified; gateways say so to who asked.
#[must_use]
pub fn failure(status: StatusCode, text: &str) -> HttpResponse<'static> {
    HttpResponse::builder()
        .with_status_code(status)
        .with_body(text.as_bytes().to_vec())
        .build()
}

/// What names a body.
#[must_use]
pub fn etag(body: &[u8]) -> String {
    format!("\"{}\"", hex(&Sha256::digest(body)[..16]))
}

/// The first header of a name, which is in lower case.
#[must_use]
pub fn header<'a>(headers: &'a [Header], name: &str) -> Option<&'a str> {
    let found = headers
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

/// Bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_names_a_body() {
        assert_eq!(etag(b""), "\"e3b0c44298fc1c149afbf4c8996fb924\"");
        assert_ne!(etag(b"a"), etag(b"b"));
    }

    #[test]
    fn the_first_header_of_a_name() {
        let headers = [("ETag", "1"), ("etag", "2")].map(|(k, v)| (k.into(), v.into()));
        assert_eq!(header(&headers, "etag"), Some("1"));
        assert_eq!(header(&headers, "e"), None);
    }

    #[test]
    fn responses_of_an_open_path_say_so() {
        let path = HttpCertificationPath::exact("/open");
        let (open, mut tree) = (Open::at(path), HttpCertificationTree::default());
        open.enter(&mut tree);
        let response = HttpResponse::builder().build();
        let response = open.excused(response, b"certificate", &tree.as_hash_tree());
        let said = header(response.headers(), "ic-certificateexpression");
        assert!(said.is_some_and(|said| said.contains("no_certification")));
        let proof = header(response.headers(), "ic-certificate");
        assert!(proof.is_some_and(|proof| proof.starts_with("certificate=:Y2VydGlmaWNhdGU=:")));
        assert_eq!(tree.as_hash_tree().digest(), tree.root_hash());
    }
}
