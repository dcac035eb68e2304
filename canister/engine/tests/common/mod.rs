//! What the engine's tests share: the golden models, and checkpoints made up on the spot.
#![allow(dead_code, clippy::unwrap_used, clippy::ptr_arg, missing_docs)]

pub mod textbook;

use std::fs;
use std::path::PathBuf;

use icgpt_engine::{
    Batch, Checkpoint, Config, Finish, Generation, Loader, Model, Precision, Request, Source,
};
use serde_json::Value;

/// The committed golden models, made by `make.py` and `make_gptj.py` in `tests/golden`.
pub const GOLDEN: [&str; 13] = [
    "odd-heads",
    "half",
    "untied",
    "three-tokens",
    "gelu",
    "no-bias",
    "two-blocks",
    "masked",
    "gptj-whole-head",
    "gptj-odd-heads",
    "gptj-half",
    "gptj-tied",
    "gptj-one-head",
];

pub fn golden_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

pub fn golden_config(name: &str) -> Config {
    Config::from_json(&fs::read(golden_folder().join(name).join("config.json")).unwrap()).unwrap()
}

pub fn golden_bytes(name: &str) -> Vec<u8> {
    fs::read(golden_folder().join(name).join("model.safetensors")).unwrap()
}

pub fn golden_model(name: &str) -> Model {
    load(golden_config(name), &golden_bytes(name))
}

pub fn golden_expected(name: &str) -> Value {
    let path = golden_folder().join(name).join("expected.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

pub fn load(config: Config, bytes: &Vec<u8>) -> Model {
    load_from(config, bytes)
}

pub fn load_from(config: Config, source: &dyn Source) -> Model {
    let mut loader = Loader::new(config, &Checkpoint::parse(source).unwrap()).unwrap();
    assert!(loader.step(source, &mut || true).unwrap());
    assert_eq!(loader.done(), loader.total());
    loader.finish().unwrap()
}

/// A golden model in any precision.
pub fn golden_model_in(name: &str, precision: Precision) -> Model {
    let bytes = golden_bytes(name);
    let checkpoint = Checkpoint::parse(&bytes).unwrap();
    let mut loader = Loader::with_precision(golden_config(name), &checkpoint, precision).unwrap();
    assert!(loader.step(&bytes, &mut || true).unwrap());
    loader.finish().unwrap()
}

/// Runs a request to its end, pausing before every `pause`-th forward pass (0: never).
pub fn generate(model: &Model, request: &Request, pause: usize) -> (Vec<u32>, Finish) {
    let mut batch = Batch::new(model);
    batch.add(0, Generation::new(model, request.clone()).unwrap());
    run(model, &mut batch, pause);
    let generation = batch.remove(0).unwrap();
    (generation.tokens().to_vec(), generation.finish().unwrap())
}

/// Runs a batch to its end, pausing before every `pause`-th forward pass (0: never).
pub fn run(model: &Model, batch: &mut Batch, pause: usize) {
    loop {
        let mut left = pause;
        let over = batch.run(model, &mut |_| {
            left = left.saturating_sub(1);
            pause == 0 || left > 0
        });
        if over {
            return;
        }
    }
}

/// A safetensors file of these tensors: name, type, shape, bytes.
pub fn safetensors(tensors: &[(&str, &str, &[u64], Vec<u8>)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let begin = data.len();
        data.extend(bytes);
        let entry = serde_json::json!({
            "dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()],
        });
        header.insert((*name).into(), entry);
    }
    with_header(&Value::Object(header).to_string(), &data)
}

/// A file with this header, whatever it says.
pub fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [
        &(header.len() as u64).to_le_bytes(),
        header.as_bytes(),
        data,
    ]
    .concat()
}
