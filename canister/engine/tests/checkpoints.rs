//! Foreign bytes: damaged, hostile and ill-fitting checkpoints are refused with the right reason.
#![allow(
    clippy::unwrap_used,
    clippy::ptr_arg,
    clippy::needless_pass_by_value,
    missing_docs
)]

mod common;

use common::{golden_bytes, golden_config, safetensors, with_header};
use icgpt_engine::{Checkpoint, CheckpointError, Config, LoadError, Loader, Problem, Source};
use serde_json::{Value, json};

fn refused(bytes: &Vec<u8>) -> CheckpointError {
    Checkpoint::parse(bytes).err().unwrap()
}

fn header_of(bytes: &[u8]) -> (Value, Vec<u8>) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (
        serde_json::from_slice(&bytes[8..8 + length]).unwrap(),
        bytes[8 + length..].to_vec(),
    )
}

/// A golden model with its header changed.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let (mut header, data) = header_of(&golden_bytes(name));
    change(&mut header);
    with_header(&header.to_string(), &data)
}

fn load_error(config: Config, bytes: &Vec<u8>) -> LoadError {
    match Loader::new(config, &Checkpoint::parse(bytes).unwrap()) {
        Err(error) => error,
        Ok(mut loader) => loader.step(bytes, &mut || true).err().unwrap(),
    }
}

#[test]
fn refuses_files_that_end_too_early() {
    let bytes = golden_bytes("three-tokens");
    for length in 0..8 {
        assert_eq!(
            refused(&bytes[..length].to_vec()),
            CheckpointError::TooShort(length as u64)
        );
    }
    // Every possible truncation is noticed.
    for length in 8..bytes.len() {
        let error = refused(&bytes[..length].to_vec());
        let known = matches!(
            error,
            CheckpointError::HeaderTruncated { .. } | CheckpointError::OutOfFile(_)
        );
        assert!(known, "{length}: {error}");
    }
    let mut longer = bytes;
    longer.extend([0; 3]);
    assert_eq!(refused(&longer), CheckpointError::TrailingBytes(3));
}

#[test]
fn refuses_hostile_header_lengths() {
    for claimed in [(16 << 20) + 1, u64::MAX, u64::MAX - 7, 1 << 63] {
        let bytes = [&claimed.to_le_bytes()[..], b"{}"].concat();
        assert_eq!(refused(&bytes), CheckpointError::HeaderTooLong(claimed));
    }
    let bytes = [&100u64.to_le_bytes()[..], b"{}"].concat();
    assert_eq!(
        refused(&bytes),
        CheckpointError::HeaderTruncated {
            claimed: 100,
            present: 2
        }
    );
}

#[test]
fn refuses_headers_that_are_no_tensor_list() {
    let nested = "[".repeat(200_000);
    for header in [
        "",
        "[]",
        "null",
        "{",
        "{\"a\": 1}",
        "{\"a\": {}}",
        "{\"a\": {\"dtype\": \"F32\"}}",
        &nested,
        r#"{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 99999999999999999999]}}"#,
        r#"{"a": {"dtype": 7, "shape": [1], "data_offsets": [0, 4]}}"#,
    ] {
        let error = refused(&with_header(header, &[0; 4]));
        assert!(matches!(error, CheckpointError::Header(_)), "{error}");
    }
    let mut no_utf8 = with_header("{\"__\": 1}", &[]);
    no_utf8[10] = 0xff;
    assert!(matches!(refused(&no_utf8), CheckpointError::Header(_)));
}

#[test]
fn refuses_a_tensor_named_twice() {
    let entry = r#"{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}"#;
    let error = refused(&with_header(
        &format!("{{\"a\": {entry}, \"a\": {entry}}}"),
        &[0; 4],
    ));
    assert!(
        error.to_string().contains("tensor a is named twice"),
        "{error}"
    );
}

#[test]
fn refuses_offsets_that_lie() {
    let one = |shape: Value, offsets: Value| {
        let header = json!({"a": {"dtype": "F32", "shape": shape, "data_offsets": offsets}});
        refused(&with_header(&header.to_string(), &[0; 8]))
    };
    let outside = CheckpointError::OutOfFile("a".into());
    assert_eq!(one(json!([3]), json!([0, 12])), outside);
    assert_eq!(one(json!([1]), json!([8, 4])), outside);
    assert_eq!(one(json!([1]), json!([u64::MAX - 3, u64::MAX])), outside);
    let length = CheckpointError::Length {
        tensor: "a".into(),
        expected: 12,
        found: 8,
    };
    assert_eq!(one(json!([3]), json!([0, 8])), length);
    let shape = CheckpointError::Shape("a".into());
    assert_eq!(one(json!([u64::MAX, 2]), json!([0, 8])), shape);
    assert_eq!(one(json!([1u64 << 62]), json!([0, 8])), shape);
    assert_eq!(
        one(json!([1, 1, 1, 1, 1, 1, 1, 1, 2]), json!([0, 8])),
        shape
    );
    assert_eq!(
        one(json!([1]), json!([4, 8])),
        CheckpointError::Layout("a".into())
    );
    assert_eq!(
        one(json!([1]), json!([0, 4])),
        CheckpointError::TrailingBytes(4)
    );

    let entry = |begin, end| json!({"dtype": "F32", "shape": [(end - begin) / 4], "data_offsets": [begin, end]});
    let overlap = json!({"a": entry(0, 8), "b": entry(4, 8)});
    let error = refused(&with_header(&overlap.to_string(), &[0; 8]));
    assert_eq!(error, CheckpointError::Layout("b".into()));
}

#[test]
fn reads_an_empty_list_and_types_that_it_does_not_know() {
    assert!(Checkpoint::parse(&with_header("{}", &[])).is_ok());
    let new = json!({"a": {"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}});
    assert!(Checkpoint::parse(&with_header(&new.to_string(), &[0; 8])).is_ok());
    let scalar = safetensors(&[("a", "F32", &[], vec![0; 4])]);
    assert!(Checkpoint::parse(&scalar).is_ok());
}

#[test]
fn names_everything_that_does_not_fit() {
    let bytes = changed("odd-heads", |header| {
        let tensors = header.as_object_mut().unwrap();
        // Renamed tensors are missing ones.
        let taken = tensors.remove("transformer.ln_f.weight").unwrap();
        tensors.insert("transformer.ln_z.weight".into(), taken);
        tensors["transformer.wte.weight"]["shape"] = json!([15, 31]);
        tensors["transformer.wpe.weight"]["dtype"] = json!("I32");
    });
    let LoadError::Mismatch(problems) = load_error(golden_config("odd-heads"), &bytes) else {
        panic!("another error");
    };
    assert_eq!(
        problems,
        [
            Problem::Shape {
                tensor: "transformer.wte.weight".into(),
                expected: vec![31, 15],
                found: vec![15, 31],
            },
            Problem::Dtype {
                tensor: "transformer.wpe.weight".into(),
                found: "I32".into()
            },
            Problem::Missing("transformer.ln_f.weight".into()),
        ]
    );
    let text = LoadError::Mismatch(problems).to_string();
    assert!(
        text.contains("wte.weight has shape [15, 31] instead of [31, 15]"),
        "{text}"
    );
    assert!(text.contains("ln_f.weight is missing"), "{text}");
}

#[test]
fn counts_problems_beyond_the_first_few() {
    let config = Config {
        n_embd: 30,
        ..golden_config("odd-heads")
    };
    let text = load_error(config, &golden_bytes("odd-heads")).to_string();
    assert!(text.contains("and 21 more"), "{text}");
    assert!(text.len() < 600);
    let LoadError::Mismatch(problems) = load_error(golden_config("half"), &with_header("{}", &[]))
    else {
        panic!("another error");
    };
    assert!(problems.contains(&Problem::Missing("wte.weight".into())));
}

#[test]
fn a_bias_may_only_be_missing_with_all_others() {
    let bytes = changed("odd-heads", |header| {
        let tensors = header.as_object_mut().unwrap();
        let taken = tensors.remove("transformer.h.1.mlp.c_fc.bias").unwrap();
        tensors.insert("other".into(), taken);
    });
    let missing = Problem::Missing("transformer.h.1.mlp.c_fc.bias".into());
    assert_eq!(
        load_error(golden_config("odd-heads"), &bytes),
        LoadError::Mismatch(vec![missing])
    );
}

#[test]
fn refuses_a_checkpoint_with_more_layers() {
    let config = Config {
        n_layer: 1,
        ..golden_config("odd-heads")
    };
    let extra = Problem::ExtraLayer("transformer.h.1.attn.c_attn.bias".into());
    assert_eq!(
        load_error(config, &golden_bytes("odd-heads")),
        LoadError::Mismatch(vec![extra])
    );
}

#[test]
fn an_untied_head_must_be_there() {
    let config = Config {
        tie_word_embeddings: false,
        ..golden_config("odd-heads")
    };
    let missing = Problem::Missing("lm_head.weight".into());
    assert_eq!(
        load_error(config, &golden_bytes("odd-heads")),
        LoadError::Mismatch(vec![missing])
    );
}

#[test]
fn refuses_weights_that_are_not_finite_wherever_they_are() {
    for (name, bad) in [
        ("odd-heads", &f32::NAN.to_le_bytes()[..]),
        ("odd-heads", &f32::INFINITY.to_le_bytes()[..]),
        ("half", &0x7e00u16.to_le_bytes()[..]),
        ("untied", &0xff80u16.to_le_bytes()[..]),
    ] {
        let (header, data) = header_of(&golden_bytes(name));
        for (tensor, entry) in header.as_object().unwrap() {
            let Some(offsets) = entry.get("data_offsets") else {
                continue;
            };
            let end = offsets[1].as_u64().unwrap() as usize;
            let mut data = data.clone();
            data[end - bad.len()..end].copy_from_slice(bad);
            let bytes = with_header(&header.to_string(), &data);
            let error = load_error(golden_config(name), &bytes);
            assert_eq!(
                error,
                LoadError::NotFinite {
                    tensor: tensor.clone()
                }
            );
        }
    }
}

/// The beginning of a file of some length.
struct Vast(Vec<u8>, u64);
impl Source for Vast {
    fn len(&self) -> u64 {
        self.1
    }
    fn read(&self, offset: u64, buf: &mut [u8]) {
        let offset = offset as usize;
        buf.copy_from_slice(&self.0[offset..offset + buf.len()]);
    }
}

#[test]
fn refuses_a_model_that_no_heap_holds() {
    let config = Config {
        vocab_size: 4_000_000,
        n_embd: 1024,
        n_head: 1,
        n_inner: 8,
        n_layer: 1,
        ..golden_config("half")
    };
    let mut header = serde_json::Map::new();
    let mut end = 0u64;
    let (n, inner) = (1024, 8);
    for (name, shape) in [
        ("wte.weight", vec![4_000_000, n]),
        ("wpe.weight", vec![40, n]),
        ("h.0.ln_1.weight", vec![n]),
        ("h.0.attn.c_attn.weight", vec![n, 3 * n]),
        ("h.0.attn.c_proj.weight", vec![n, n]),
        ("h.0.ln_2.weight", vec![n]),
        ("h.0.mlp.c_fc.weight", vec![n, inner]),
        ("h.0.mlp.c_proj.weight", vec![inner, n]),
        ("ln_f.weight", vec![n]),
    ] {
        let begin = end;
        end += 4 * shape.iter().product::<u64>();
        header.insert(
            name.into(),
            json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}),
        );
    }
    let start = with_header(&Value::Object(header).to_string(), &[]);
    let length = start.len() as u64 + end;
    let checkpoint = Checkpoint::parse(&Vast(start, length)).unwrap();
    let error = Loader::new(config, &checkpoint).err().unwrap();
    assert!(
        matches!(error, LoadError::TooLarge { bytes } if bytes > 16_000_000_000),
        "{error}"
    );
}

#[test]
fn loads_the_same_in_one_step_or_many() {
    let (config, bytes) = (golden_config("two-blocks"), golden_bytes("two-blocks"));
    let mut loader = Loader::new(config, &Checkpoint::parse(&bytes).unwrap()).unwrap();
    assert!(!loader.step(&bytes, &mut || false).unwrap());
    assert_eq!(loader.done(), 0);
    let (mut steps, mut before) = (0, 0);
    loop {
        let mut asked = 0;
        let finished = loader
            .step(&bytes, &mut || std::mem::replace(&mut asked, 1) == 0)
            .unwrap();
        assert!(loader.done() >= before && loader.done() <= loader.total());
        (steps, before) = (steps + 1, loader.done());
        if finished {
            break;
        }
    }
    assert!(steps > 10);
    let (pieces, whole) = (loader.finish().unwrap(), common::golden_model("two-blocks"));
    let wanted = common::ids(&common::golden_expected("two-blocks")["prompt"]);
    let (mut a, mut b) = (
        icgpt_engine::Session::new(&pieces),
        icgpt_engine::Session::new(&whole),
    );
    for token in wanted {
        a.forward(&pieces, token, true).unwrap();
        b.forward(&whole, token, true).unwrap();
        assert_eq!(a.logits(), b.logits());
    }
}

#[test]
fn finishing_early_or_a_file_that_shrinks_is_an_error() {
    let (config, bytes) = (golden_config("half"), golden_bytes("half"));
    let checkpoint = Checkpoint::parse(&bytes).unwrap();
    let loader = Loader::new(config.clone(), &checkpoint).unwrap();
    assert_eq!(loader.finish().err(), Some(LoadError::Unfinished));
    let mut loader = Loader::new(config, &checkpoint).unwrap();
    let error = loader.step(&bytes[..bytes.len() / 2].to_vec(), &mut || true);
    assert!(matches!(error, Err(LoadError::SourceChanged { .. })));
}

/// Headers with one byte changed never panic, and what is still accepted still loads or is refused.
#[test]
fn survives_any_changed_byte() {
    let bytes = golden_bytes("three-tokens");
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for at in 0..8 + length {
        for change in [1u8, 0x10, 0x80] {
            let mut bytes = bytes.clone();
            bytes[at] ^= change;
            let Ok(checkpoint) = Checkpoint::parse(&bytes) else {
                continue;
            };
            let Ok(mut loader) = Loader::new(golden_config("three-tokens"), &checkpoint) else {
                continue;
            };
            let _ = loader.step(&bytes, &mut || true);
        }
    }
}
