//! Takes the built page into the module: every file with its content type, whether its name changes
//! with its content, and its brotli and gzip forms where they are smaller.
//!
//! The page is the folder that `ICGPT_PAGE` names (whole path), or `frontend/dist`, or, where the
//! page was never built, one that says how to build it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use flate2::Compression;
use flate2::write::GzEncoder;

/// A response has to fit one message.
const LARGEST: usize = 2_000_000;

fn main() -> io::Result<()> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    println!("cargo::rerun-if-env-changed=ICGPT_PAGE");
    let built = here.join("../../frontend/dist");
    let page = match env::var_os("ICGPT_PAGE") {
        Some(chosen) => PathBuf::from(chosen),
        None if built.is_dir() => built.clone(),
        None => here.join("without-page"),
    };
    // The folder that is not there yet too: when it appears, this is out of date.
    println!("cargo::rerun-if-changed={}", built.display());
    println!("cargo::rerun-if-changed={}", page.display());

    let mut files = Vec::new();
    collect(&page, &mut files)?;
    files.sort();
    let mut code = String::from("static FILES: &[File] = &[\n");
    for (number, file) in files.iter().enumerate() {
        let body = fs::read(file)?;
        let url = url(&page, file)?;
        if body.len() > LARGEST {
            return Err(io::Error::other(format!(
                "{url} is larger than the {LARGEST} bytes that fit a response"
            )));
        }
        let mut forms = String::new();
        for (name, bytes) in [("br", brotli(&body)?), ("gzip", gzip(&body)?)] {
            if bytes.len() < body.len() {
                let path = out.join(format!("{number}.{name}"));
                fs::write(&path, bytes)?;
                write!(forms, "({name:?}, {}), ", including(&path)).map_err(io::Error::other)?;
            }
        }
        writeln!(
            code,
            "File {{ path: {url:?}, content_type: {:?}, lasting: {}, body: {}, \
             smaller: &[{forms}] }},",
            content_type(&url),
            lasting(&url),
            including(&fs::canonicalize(file)?),
        )
        .map_err(io::Error::other)?;
    }
    code.push_str("];\n");
    fs::write(out.join("files.rs"), code)
}

fn including(path: &Path) -> String {
    format!("include_bytes!({:?})", path.to_string_lossy())
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}

/// All files below a folder, but not hidden ones.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn url(page: &Path, file: &Path) -> io::Result<String> {
    let below = file.strip_prefix(page).map_err(io::Error::other)?;
    let parts: Option<Vec<&str>> = below.iter().map(|part| part.to_str()).collect();
    let parts = parts.ok_or_else(|| io::Error::other("a file's name is no text"))?;
    Ok(format!("/{}", parts.join("/")))
}

/// Whether the name holds a hash of the content, as the page's builder names what lies in `assets`:
/// `name-8letters.extension`.
fn lasting(url: &str) -> bool {
    let name = url.strip_prefix("/assets/").unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    let hash = stem.get(stem.len().saturating_sub(9)..).unwrap_or_default();
    hash.len() == 9
        && hash.starts_with('-')
        && hash[1..]
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn content_type(url: &str) -> &'static str {
    match url.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

fn brotli(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = Vec::new();
    let mut writer = brotli::CompressorWriter::new(&mut packed, 1 << 16, 11, 22);
    writer.write_all(body)?;
    drop(writer);
    Ok(packed)
}

fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut writer = GzEncoder::new(Vec::new(), Compression::best());
    writer.write_all(body)?;
    writer.finish()
}
