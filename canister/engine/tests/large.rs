//! GPT-2 124M's shape against transformers. The weights are made by `tests/golden/recipe.py`:
//!
//!     python tests/golden/recipe.py FOLDER
//!     ICGPT_124M=FOLDER cargo test --release -p icgpt-engine --test large -- --ignored --nocapture
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use common::{generate, golden_folder, ids, load_from};
use icgpt_engine::{Config, Context, Request, Sampling, Session, Source};

struct OnDisk(RefCell<File>);

impl Source for OnDisk {
    fn len(&self) -> u64 {
        self.0.borrow().metadata().unwrap().len()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) {
        let mut file = self.0.borrow_mut();
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.read_exact(buf).unwrap();
    }
}

#[test]
#[ignore = "needs the 498 MB that tests/golden/recipe.py writes"]
fn logits_and_greedy_ids_agree() {
    let folder = PathBuf::from(std::env::var("ICGPT_124M").unwrap());
    let config = Config::from_json(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    let source = OnDisk(RefCell::new(
        File::open(folder.join("model.safetensors")).unwrap(),
    ));
    let model = load_from(config, &source);
    assert_eq!(model.parameters(), 124_439_808);

    let golden = fs::read(golden_folder().join("gpt2-124m.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    let (prompt, indices) = (ids(&golden["prompt"]), ids(&golden["indices"]));
    let mut session = Session::new(&model);
    let mut worst = 0.0f64;
    for (position, &token) in prompt.iter().enumerate() {
        session.forward(&model, token, true).unwrap();
        let here = golden["positions"].as_array().unwrap().iter();
        for want in here.filter(|want| want["position"] == position) {
            let logits: Vec<f64> = serde_json::from_value(want["logits"].clone()).unwrap();
            for (&index, want) in indices.iter().zip(logits) {
                let got = f64::from(session.logits()[index as usize]);
                worst = worst.max((got - want).abs());
            }
            let argmax = Sampling::greedy().choose(session.logits(), 0).unwrap();
            assert_eq!(want["argmax"], argmax);
            let highest = f64::from(session.logits()[argmax as usize]);
            worst = worst.max((highest - want["highest"].as_f64().unwrap()).abs());
        }
    }
    println!("largest difference of a logit: {worst:.1e}");
    assert!(worst < 1e-3, "{worst}");

    let want = ids(&golden["greedy"]);
    let request = Request {
        prompt,
        max_new_tokens: want.len(),
        sampling: Sampling::greedy(),
        context: Context::Stop,
        stop: Vec::new(),
        stop_strings: None,
        ..Request::for_logits(Vec::new())
    };
    assert_eq!(generate(&model, &request, 0).0, want);
}
