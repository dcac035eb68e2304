//! The tokenizer against the Python library, through the files of `tests/golden/tokenizer`, and
//! against hostile files.
#![allow(
    clippy::unwrap_used,
    clippy::ptr_arg,
    clippy::needless_pass_by_value,
    missing_docs
)]

mod common;

use std::fs;

use common::{golden_folder, ids};
use icgpt_engine::{Tokenizer, TokenizerError};
use serde_json::{Value, json};

fn golden(name: &str) -> (Tokenizer, Value) {
    let folder = golden_folder().join("tokenizer");
    let tokenizer = fs::read(folder.join(format!("{name}.json"))).unwrap();
    let expected = fs::read(folder.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    (
        Tokenizer::from_json(&tokenizer).unwrap(),
        expected[name].clone(),
    )
}

#[test]
fn encodes_and_decodes_as_the_python_library_does() {
    for name in ["bpe", "characters"] {
        let (tokenizer, expected) = golden(name);
        for entry in expected["texts"].as_array().unwrap() {
            let encoding = tokenizer.encode(entry["text"].as_str().unwrap()).unwrap();
            assert_eq!(
                encoding.ids,
                ids(&entry["ids"]),
                "{name}: {}",
                entry["text"]
            );
            let tokens: Vec<String> = serde_json::from_value(entry["tokens"].clone()).unwrap();
            assert_eq!(encoding.tokens, tokens);
        }
        for entry in expected["decoded"].as_array().unwrap() {
            let ids = ids(&entry["ids"]);
            assert_eq!(
                tokenizer.decode(&ids, true).unwrap(),
                entry["text"],
                "{name}: {ids:?}"
            );
            assert_eq!(
                tokenizer.decode(&ids, false).unwrap(),
                entry["with_special"]
            );
        }
        assert_eq!(expected["max_id"], tokenizer.max_id());
    }
}

#[test]
fn byte_level_texts_come_back_whole() {
    let (tokenizer, expected) = golden("bpe");
    for entry in expected["texts"].as_array().unwrap() {
        let text = entry["text"].as_str().unwrap();
        let ids = tokenizer.encode(text).unwrap().ids;
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    }
}

#[test]
fn one_token_has_a_text() {
    let (tokenizer, _) = golden("bpe");
    let newline = tokenizer.encode("\n").unwrap().ids;
    assert_eq!(tokenizer.token(newline[0]).unwrap(), "\n");
    let last = tokenizer.max_id();
    assert_eq!(tokenizer.token(last).unwrap(), "### Response:\n");
    assert_eq!(tokenizer.token(last + 1), None);
    // Half a character.
    let smiley = tokenizer.encode("🙃").unwrap().ids;
    assert!(smiley.len() > 1 && tokenizer.token(smiley[0]).unwrap().contains('\u{fffd}'));
}

fn refused(bytes: &[u8]) -> TokenizerError {
    Tokenizer::from_json(bytes).err().unwrap()
}

#[test]
fn refuses_what_is_no_tokenizer() {
    let deep = "[".repeat(100_000);
    for text in [
        "",
        "{}",
        "[]",
        "{\"model\": 1}",
        "{\"model\": {\"type\": \"BPE\"}}",
        &deep,
        "\u{0}",
    ] {
        assert!(
            matches!(refused(text.as_bytes()), TokenizerError::Json(_)),
            "{text:.20}"
        );
    }
    assert!(matches!(refused(b"\xff\xfe"), TokenizerError::Json(_)));
    let long = vec![b' '; (32 << 20) + 1];
    assert_eq!(refused(&long), TokenizerError::TooLong(long.len()));
}

fn bpe(model: Value) -> Vec<u8> {
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
           "normalizer": null, "pre_tokenizer": null, "post_processor": null,
           "decoder": {"type": "Fuse"}, "model": model})
    .to_string()
    .into_bytes()
}

#[test]
fn refuses_models_that_it_does_not_promise() {
    let words = bpe(json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}));
    assert_eq!(
        refused(&words),
        TokenizerError::Unsupported("a WordLevel model".into())
    );
    let random = bpe(json!({"type": "BPE", "dropout": 0.1, "vocab": {"a": 0}, "merges": []}));
    assert_eq!(
        refused(&random),
        TokenizerError::Unsupported("dropout".into())
    );
    let mut table: Value =
        serde_json::from_slice(&bpe(json!({"vocab": {"a": 0}, "merges": []}))).unwrap();
    table["normalizer"] = json!({"type": "Sequence", "normalizers": [
        {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    ]});
    let error = refused(table.to_string().as_bytes());
    assert_eq!(
        error,
        TokenizerError::Unsupported("a precompiled normalizer".into())
    );
    let empty = bpe(json!({"type": "BPE", "vocab": {}, "merges": []}));
    assert_eq!(refused(&empty), TokenizerError::Empty);
    // A merge of tokens that the vocabulary doesn't have.
    let merges = bpe(json!({"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}));
    assert!(matches!(refused(&merges), TokenizerError::Json(_)));
}

#[test]
fn never_cuts_or_fills_up_a_text() {
    let mut file: Value = serde_json::from_slice(&bpe(json!({
        "type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []
    })))
    .unwrap();
    file["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = json!({"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null,
                             "pad_id": 1, "pad_type_id": 0, "pad_token": "b"});
    let tokenizer = Tokenizer::from_json(file.to_string().as_bytes()).unwrap();
    assert_eq!(tokenizer.encode("aaaa").unwrap().ids, [0, 0, 0, 0]);
}

/// Files with one byte changed never panic.
#[test]
fn survives_any_changed_byte() {
    let bytes = fs::read(golden_folder().join("tokenizer/characters.json")).unwrap();
    for at in 0..bytes.len() {
        for change in [1u8, 0x10, 0x80] {
            let mut bytes = bytes.clone();
            bytes[at] ^= change;
            if let Ok(tokenizer) = Tokenizer::from_json(&bytes) {
                let ids = tokenizer
                    .encode("The secret? 🙂")
                    .map(|encoding| encoding.ids);
                let _ = tokenizer.decode(&ids.unwrap_or_default(), true);
            }
        }
    }
}
