//! The responses of the page, each certified, and which of them answers a request.
//!
//! A file has a response for each encoding, and one for who has it already.

use std::borrow::Cow;
use std::collections::HashMap;

use ic_http_certification::{
    HttpCertificationPath, HttpCertificationTree, HttpRequest, HttpResponse, StatusCode,
};
use icgpt_http::{Certified, Error, Header, etag, failure, header};

use crate::File;
use crate::headers::{caching, common};

/// Names below it change with their content: what is not there is no page but an old name.
const LASTING: &str = "/assets";
const INDEX: &str = "/index.html";
const CONFIG: &str = "/config.json";

/// A file in one encoding.
struct Form {
    encoding: &'static str,
    etag: String,
    whole: Certified,
    /// For who has it already.
    unchanged: Certified,
}

/// A file at a path, or below one; the smallest form first.
type Forms = Vec<Form>;

/// What there is to be answered.
#[derive(Default)]
pub struct Site {
    tree: HttpCertificationTree,
    exact: HashMap<&'static str, Forms>,
    /// For all other paths.
    index: Forms,
    /// For paths below [`LASTING`] that are no files.
    absent: Forms,
}

impl Site {
    /// Adds a page: its files, and its configuration.
    ///
    /// # Errors
    /// The page has no `index.html`, or a response can't be certified.
    pub fn add_page(&mut self, files: &[File], config: Vec<u8>, policy: &str) -> Result<(), Error> {
        let headers = common(policy);
        let with = |content_type: &str, lasting| {
            let own = [
                ("content-type".into(), content_type.into()),
                caching(lasting),
            ];
            [headers.clone(), own.into()].concat()
        };
        for file in files {
            let bodies = file.smaller.iter().copied().chain([("", file.body)]);
            let bodies: Vec<_> = bodies
                .map(|(name, body)| (name, Cow::Borrowed(body)))
                .collect();
            let headers = with(file.content_type, file.lasting);
            let mut add = |path: HttpCertificationPath<'static>| {
                self.forms(&path, StatusCode::OK, &headers, &bodies)
            };
            let forms = add(HttpCertificationPath::exact(file.path))?;
            if file.path == INDEX {
                let root = add(HttpCertificationPath::exact("/"))?;
                self.index = add(HttpCertificationPath::wildcard("/"))?;
                self.exact.insert("/", root);
            }
            self.exact.insert(file.path, forms);
        }
        if self.index.is_empty() {
            return Err(format!("the page has no {INDEX}"));
        }
        let config = [("", Cow::Owned(config))];
        let path = HttpCertificationPath::exact(CONFIG);
        let forms = self.forms(
            &path,
            StatusCode::OK,
            &with("application/json", false),
            &config,
        )?;
        self.exact.insert(CONFIG, forms);
        let text = [("", Cow::Borrowed(&b"There is no such file.\n"[..]))];
        let path = HttpCertificationPath::wildcard(LASTING);
        let headers = with("text/plain; charset=utf-8", false);
        self.absent = self.forms(&path, StatusCode::NOT_FOUND, &headers, &text)?;
        Ok(())
    }

    /// The root of the tree, which the subnet is to certify.
    pub fn root_hash(&self) -> [u8; 32] {
        self.tree.root_hash()
    }

    /// The response to a request, with what proves it.
    pub fn answer(&self, request: &HttpRequest, certificate: &[u8]) -> HttpResponse<'static> {
        let Ok(path) = request.get_path() else {
            return failure(StatusCode::BAD_REQUEST, "The address is malformed.\n");
        };
        let below = path.strip_prefix(LASTING);
        let forms = match self.exact.get(path.as_str()) {
            Some(forms) => forms,
            None if below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) => {
                &self.absent
            }
            None => &self.index,
        };
        let accepted = header(request.headers(), "accept-encoding").unwrap_or_default();
        let Some(form) = forms.iter().find(|form| accepts(accepted, form.encoding)) else {
            return failure(StatusCode::INTERNAL_SERVER_ERROR, "The page is missing.\n");
        };
        let same = header(request.headers(), "if-none-match") == Some(form.etag.as_str());
        let chosen = if same && request.method() == "GET" {
            &form.unchanged
        } else {
            &form.whole
        };
        match chosen.witness(&self.tree, &path) {
            Ok(witness) => chosen.proven(certificate, &witness),
            Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &error),
        }
    }

    /// Certifies a file in all its encodings at a path.
    fn forms(
        &mut self,
        path: &HttpCertificationPath<'static>,
        status: StatusCode,
        headers: &[Header],
        bodies: &[(&'static str, Cow<'static, [u8]>)],
    ) -> Result<Forms, Error> {
        let mut forms = Vec::new();
        for (encoding, body) in bodies {
            let etag = etag(body);
            let mut headers = headers.to_vec();
            headers.push(("etag".into(), etag.clone()));
            headers.push(("vary".into(), "accept-encoding".into()));
            let unchanged = Certified::unchanged(&headers, &etag, path.clone())?;
            if !encoding.is_empty() {
                headers.push(("content-encoding".into(), (*encoding).into()));
            }
            let whole = Certified::whole(status, headers, body.clone(), path.clone())?;
            whole.enter(&mut self.tree);
            unchanged.enter(&mut self.tree);
            forms.push(Form {
                encoding,
                etag,
                whole,
                unchanged,
            });
        }
        Ok(forms)
    }
}

/// Whether a list such as `gzip, br;q=0.5` has an encoding; the body as it is fits always.
fn accepts(list: &str, encoding: &str) -> bool {
    encoding.is_empty()
        || list.split(',').any(|item| {
            let (name, quality) = item.split_once(';').unwrap_or((item, ""));
            let quality = quality.trim().strip_prefix("q=").unwrap_or("1");
            name.trim().eq_ignore_ascii_case(encoding) && quality.trim().parse() != Ok(0.0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: &[File] = &[
        File {
            path: "/assets/index-0a1b2c3d.js",
            content_type: "text/javascript; charset=utf-8",
            lasting: true,
            body: b"the script",
            smaller: &[("br", b"br script"), ("gzip", b"gzip script")],
        },
        File {
            path: INDEX,
            content_type: "text/html; charset=utf-8",
            lasting: false,
            body: b"the page",
            smaller: &[],
        },
    ];

    fn site() -> Site {
        let mut site = Site::default();
        site.add_page(FILES, b"{}\n".into(), "the policy").unwrap();
        site
    }

    fn ask(site: &Site, path: &str, headers: &[(&str, &str)]) -> HttpResponse<'static> {
        let owned = headers
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        let request = HttpRequest::get(path).with_headers(owned.collect()).build();
        site.answer(&request, b"certificate")
    }

    fn value<'a>(response: &'a HttpResponse, name: &str) -> &'a str {
        let found = response
            .headers()
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    #[test]
    fn files_are_at_their_paths_and_the_page_everywhere_else() {
        let site = site();
        for (path, status, body) in [
            ("/", 200, "the page"),
            ("/index.html?x=1", 200, "the page"),
            ("/any/where", 200, "the page"),
            ("/assetsx", 200, "the page"),
            ("/config.json", 200, "{}\n"),
            ("/assets/index-0a1b2c3d.js", 200, "the script"),
            ("/assets/%69ndex-0a1b2c3d.js", 200, "the script"),
            ("/assets/index-00000000.js", 404, "There is no such file.\n"),
            ("/assets", 404, "There is no such file.\n"),
        ] {
            let response = ask(&site, path, &[]);
            assert_eq!(response.status_code().as_u16(), status, "{path}");
            assert_eq!(response.body(), body.as_bytes(), "{path}");
            assert_eq!(value(&response, "content-security-policy"), "the policy");
            assert!(value(&response, "ic-certificate").contains("version=2"));
        }
    }

    #[test]
    fn the_smallest_form_that_is_accepted() {
        let site = site();
        for (accepted, encoding, body) in [
            ("gzip, deflate, br", "br", "br script"),
            ("GZIP;q=0.5", "gzip", "gzip script"),
            ("br;q=0, gzip;q=0.0, *", "", "the script"),
            ("brotli", "", "the script"),
        ] {
            let headers = [("Accept-Encoding", accepted)];
            let response = ask(&site, "/assets/index-0a1b2c3d.js", &headers);
            assert_eq!(value(&response, "content-encoding"), encoding, "{accepted}");
            assert_eq!(response.body(), body.as_bytes(), "{accepted}");
            assert!(value(&response, "cache-control").ends_with("immutable"));
        }
        assert_eq!(value(&ask(&site, "/", &[]), "cache-control"), "no-cache");
    }

    #[test]
    fn who_has_a_file_gets_no_other_one() {
        let site = site();
        let etag = value(&ask(&site, "/", &[]), "etag").to_owned();
        let again = ask(&site, "/", &[("If-None-Match", &etag)]);
        assert_eq!(
            (again.status_code().as_u16(), again.body()),
            (304, &b""[..])
        );
        assert_eq!(value(&again, "etag"), etag);
        let other = ask(&site, "/config.json", &[("If-None-Match", &etag)]);
        assert_eq!(other.status_code().as_u16(), 200);
    }

    #[test]
    fn a_page_needs_an_index() {
        let mut site = Site::default();
        assert!(site.add_page(&FILES[..1], Vec::new(), "").is_err());
    }
}
