//! Prints as JSON what rounding the weights costs on a text; `scripts/bench quality` runs it.
//!
//!     cargo run --release --example quality -- MODEL_FOLDER TEXT_FILE
#![allow(clippy::unwrap_used, clippy::ptr_arg, missing_docs)]

#[path = "../tests/common/quality.rs"]
mod quality;

use std::path::Path;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, text] = &arguments[..] else {
        eprintln!("usage: quality MODEL_FOLDER TEXT_FILE");
        std::process::exit(2);
    };
    let text = std::fs::read_to_string(text).unwrap();
    let figures = quality::measure(Path::new(folder), &text);
    let all: serde_json::Map<_, _> = figures
        .iter()
        .map(|q| {
            let figure = serde_json::json!({
                "positions": q.positions, "agreement": q.agreement(), "perplexity": q.perplexity,
            });
            (format!("{:?}", q.precision).to_lowercase(), figure)
        })
        .collect();
    println!("{}", serde_json::Value::Object(all));
}
