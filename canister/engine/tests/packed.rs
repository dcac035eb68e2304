//! Packed files: a model loaded from one computes what the checkpoint's does to the bit, in memory or
//! read block by block, and a file that is not what it should be is refused.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fmt::Write;
use std::rc::Rc;

use common::{GOLDEN, golden_bytes, golden_config, golden_expected, golden_model_in, ids, run};
use icgpt_engine::{
    Batch, Checkpoint, Config, Context, Generation, Hashing, LoadError, Model, PACKED_VERSION,
    PackError, PackedError, Packer, Precision, Request, Sampling, Scoring, Session, Sink, Unpacker,
};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Int8, Precision::Int16];
const ALL: u64 = u64::MAX;

/// The packed file of a golden model and its SHA-256, made in pieces.
fn pack(name: &str, precision: Precision) -> (Vec<u8>, String) {
    let (bytes, mut file) = (golden_bytes(name), Vec::new());
    let mut sink = Hashing::new(&mut file);
    let checkpoint = Checkpoint::parse(&bytes).unwrap();
    let mut packer = Packer::new(&golden_config(name), &checkpoint, precision).unwrap();
    loop {
        let mut asked = 0;
        let mut once = || std::mem::replace(&mut asked, 1) == 0;
        if packer.step(&bytes, &mut sink, &mut once).unwrap() {
            break;
        }
    }
    let mut hash = String::new();
    for byte in sink.sha256() {
        write!(hash, "{byte:02x}").unwrap();
    }
    assert_eq!(file.len() as u64, packer.len());
    assert_eq!(packer.done(), packer.total());
    packer.finish().unwrap();
    (file, hash)
}

fn unpack(config: Config, file: &[u8], most: u64) -> Result<Model, PackedError> {
    let mut unpacker = Unpacker::new(config, Rc::new(file.to_vec()), most)?;
    while !unpacker.step(&mut |_| true)? {}
    unpacker.finish()
}

/// The logits of every position of a text, as bits.
fn logits(model: &Model, tokens: &[u32]) -> Vec<Vec<u32>> {
    let mut session = Session::new(model);
    let run = |&token| {
        session.forward(model, token, true).unwrap();
        session.logits().iter().map(|x| x.to_bits()).collect()
    };
    tokens.iter().map(run).collect()
}

fn prompt(name: &str) -> Vec<u32> {
    ids(&golden_expected(name)["prompt"])
}

#[test]
fn a_packed_model_computes_the_same() {
    for name in GOLDEN {
        for precision in PRECISIONS {
            let (file, _) = pack(name, precision);
            let from_file = unpack(golden_config(name), &file, ALL).unwrap();
            let want = golden_model_in(name, precision);
            assert_eq!(from_file.precision(), precision);
            assert_eq!(from_file.parameters(), want.parameters());
            assert_eq!(from_file.memory(), want.memory());
            assert!(!from_file.is_streamed());
            let tokens = prompt(name);
            assert_eq!(
                logits(&from_file, &tokens),
                logits(&want, &tokens),
                "{name} {precision}"
            );
        }
    }
}

/// Clients and canister must agree on a model's identity, natively and in WebAssembly: these are the
/// hashes that a canister gives too. They change only together with `PACKED_VERSION`.
#[test]
fn the_layout_is_fixed() {
    assert_eq!(PACKED_VERSION, 1);
    let want = [
        (
            Precision::F32,
            "71998662ada37947ed66e42ca7fd0885d2bb68008681fbe5f43f3f1600e8f95d",
        ),
        (
            Precision::Int8,
            "3a49eef673a25ff910e2c4215f7819313f21e7484afd215dec084960c39ac75f",
        ),
        (
            Precision::Int16,
            "fcc4951398e3c3bd7a2493f36da6c0403fe090e8e30b2e1595b13f2129e985b1",
        ),
    ];
    for (precision, hash) in want {
        assert_eq!(pack("odd-heads", precision).1, hash, "{precision}");
    }
}

/// Every number of blocks in memory gives the same bits, also when a pass is interrupted before each
/// block that is read.
#[test]
fn a_model_larger_than_memory_computes_the_same() {
    for name in ["half", "masked", "gptj-half", "gptj-tied"] {
        for precision in PRECISIONS {
            let (file, _) = pack(name, precision);
            let whole = unpack(golden_config(name), &file, ALL).unwrap();
            let layers = golden_config(name).n_layer as u64;
            let (tokens, mut streamed) = ((1..9).collect::<Vec<u32>>(), 0);
            let mut most = whole.memory();
            while let Ok(model) = unpack(golden_config(name), &file, most) {
                assert!(model.memory() <= most);
                assert_eq!(
                    logits(&model, &tokens),
                    logits(&whole, &tokens),
                    "{name} {most}"
                );
                if model.is_streamed() {
                    streamed += 1;
                    interrupted(&model, &whole, &tokens);
                }
                most = model.memory() - 1;
            }
            assert_eq!(streamed, layers - 1, "{name}");
            let refused = unpack(golden_config(name), &file, most);
            assert!(matches!(refused, Err(PackedError::TooLarge { .. })));
        }
    }
}

/// Generations and scores that stop before each block and each pass, together.
fn interrupted(model: &Model, whole: &Model, tokens: &[u32]) {
    let request = |seed| Request {
        prompt: tokens[..=seed as usize % 3].to_vec(),
        max_new_tokens: 5,
        sampling: Sampling {
            seed,
            ..Sampling::greedy()
        },
        context: Context::Slide,
        stop: Vec::new(),
        stop_strings: None,
        ..Request::for_logits(Vec::new())
    };
    let generate = |model: &Model, pause| {
        let mut batch = Batch::new(model);
        for key in 0..4 {
            batch.add(key, Generation::new(model, request(key)).unwrap());
        }
        run(model, &mut batch, pause);
        let answers = (0..4).map(|key| batch.remove(key).unwrap());
        answers
            .map(|answer| answer.tokens().to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(generate(model, 2), generate(whole, 0));

    let score = |model: &Model, pausing: bool| {
        let (head, tail) = tokens.split_at(1);
        let mut scoring = Scoring::new(model, head.to_vec(), tail.to_vec()).unwrap();
        let mut read = 0;
        loop {
            let mut asked = 0;
            let over = scoring.run(model, &mut |step| {
                asked += 1;
                if !pausing || asked == 1 {
                    read += step.bytes;
                }
                !pausing || asked == 1
            });
            if over {
                return (scoring.logprobs().to_vec(), read);
            }
        }
    };
    let ((cut, read), (want, none)) = (score(model, true), score(whole, false));
    assert_eq!((cut, none), (want, 0));
    assert!(read > 0);
}

/// Blocks in memory are asked for too: of a large model even they are much for one message.
#[test]
fn each_block_of_a_model_larger_than_memory_is_asked_for() {
    let config = golden_config("gptj-half");
    let (file, _) = pack("gptj-half", Precision::Int8);
    let all = unpack(config.clone(), &file, ALL).unwrap();
    let streamed = unpack(config.clone(), &file, all.memory() - 1).unwrap();
    let asked = |model: &Model| {
        let mut steps = Vec::new();
        let mut scoring = Scoring::new(model, vec![1], vec![2]).unwrap();
        assert!(scoring.run(model, &mut |step| {
            steps.push(step.bytes > 0);
            true
        }));
        steps
    };
    assert_eq!(asked(&all), [false]);
    // The pass and with it the first block, a block in memory or in the buffer, and one to be read.
    let steps = asked(&streamed);
    assert_eq!(steps.len(), config.n_layer);
    assert_eq!((steps[0], steps.contains(&true)), (false, true));
}

/// Members that leave between two blocks of a pass, and come back later, change nobody's tokens.
#[test]
fn members_may_leave_half_way_through_a_pass() {
    for name in ["half", "gptj-half", "gptj-tied"] {
        let (file, _) = pack(name, Precision::Int8);
        let whole = unpack(golden_config(name), &file, ALL).unwrap();
        let model = unpack(golden_config(name), &file, whole.memory() - 1).unwrap();
        let generation = |model: &Model, key: u64| {
            let request = Request {
                prompt: (1..2 + key as u32 * 2).collect(),
                max_new_tokens: 6,
                sampling: Sampling {
                    seed: key,
                    ..Sampling::greedy()
                },
                context: Context::Slide,
                stop: Vec::new(),
                stop_strings: None,
                ..Request::for_logits(Vec::new())
            };
            Generation::new(model, request).unwrap()
        };
        let want: Vec<_> = (0..4)
            .map(|key| {
                let mut batch = Batch::new(&whole);
                batch.add(key, generation(&whole, key));
                run(&whole, &mut batch, 0);
                batch.remove(key).unwrap().tokens().to_vec()
            })
            .collect();
        let mut batch = Batch::new(&model);
        (0..4).for_each(|key| batch.add(key, generation(&model, key)));
        for round in 0u64.. {
            // Stops before each pass and, as often, before the block that is read.
            let mut asked = 0;
            let over = batch.run(&model, &mut |_| std::mem::replace(&mut asked, 1) == 0);
            if over {
                break;
            }
            if let Some(member) = batch.remove(round % 5) {
                batch.add(round % 5, member);
            }
        }
        let got: Vec<_> = (0..4)
            .map(|key| batch.remove(key).unwrap().tokens().to_vec())
            .collect();
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn other_models_weights_are_refused() {
    let (file, _) = pack("two-blocks", Precision::Int8);
    for name in GOLDEN.iter().filter(|&&name| name != "two-blocks") {
        let refused = unpack(golden_config(name), &file, ALL);
        assert!(
            matches!(
                refused,
                Err(PackedError::OtherModel(_) | PackedError::Length { .. })
            ),
            "{name}"
        );
    }
}

/// Cut anywhere, lengthened, or with any byte of the header another one: refused, with a reason.
#[test]
fn damaged_files_are_refused() {
    for (name, precision) in [
        ("two-blocks", Precision::Int16),
        ("gptj-half", Precision::F32),
    ] {
        let (file, _) = pack(name, precision);
        let config = || golden_config(name);
        let header = u32::from_le_bytes(file[32..36].try_into().unwrap()) as usize;
        assert!(header > 200 && header < file.len());
        for len in (0..header).chain((header..file.len()).step_by(97)) {
            let error = unpack(config(), &file[..len], ALL).err().unwrap();
            match len {
                0..8 => assert_eq!(error, PackedError::NotPacked),
                12.. => assert!(
                    matches!(error, PackedError::Length { .. }),
                    "{len}: {error}"
                ),
                _ => {}
            }
        }
        let longer = [&file[..], &[0]].concat();
        assert!(matches!(
            unpack(config(), &longer, ALL),
            Err(PackedError::Length { .. })
        ));
        for at in 0..header {
            for change in [1, 0x80, 0xff] {
                let mut changed = file.clone();
                changed[at] ^= change;
                // The number of weights is told, not computed with; it may be lower.
                let number = (24..32).contains(&at);
                let loaded = unpack(config(), &changed, ALL);
                assert!(loaded.is_err() || number, "byte {at}");
            }
        }
        let mut newer = file.clone();
        newer[8..12].copy_from_slice(&7u32.to_le_bytes());
        assert_eq!(
            unpack(config(), &newer, ALL).err(),
            Some(PackedError::Version { found: 7 })
        );
        newer = file;
        newer[12..16].copy_from_slice(&4u32.to_le_bytes());
        assert_eq!(
            unpack(config(), &newer, ALL).err(),
            Some(PackedError::Bits(4))
        );
    }
}

/// A header that asks for more memory than there is, or than the file has, is no reason to ask for it.
#[test]
fn absurd_sizes_are_refused() {
    let (file, _) = pack("two-blocks", Precision::Int8);
    let json = r#"{"n_layer":1024,"n_head":1,"n_embd":131072,"n_inner":131072,"vocab_size":4194304,"n_ctx":4194304}"#;
    let absurd = || Config::from_json(json.as_bytes()).unwrap();
    let refused = unpack(absurd(), &file, ALL).err();
    assert!(matches!(refused, Some(PackedError::OtherModel(_))));
    let mut matching = file;
    for (i, value) in [0u32, 0, 1024, 1, 131_072, 4_194_304, 131_072, 4_194_304]
        .into_iter()
        .enumerate()
    {
        matching[40 + 4 * i..44 + 4 * i].copy_from_slice(&value.to_le_bytes());
    }
    let refused = unpack(absurd(), &matching, ALL).err().unwrap();
    assert!(!matches!(refused, PackedError::OutOfMemory(_)), "{refused}");
}

/// Weights that no packer writes: found where a file is distrusted, and no danger where it is not.
#[test]
fn weights_of_noise_are_found() {
    let distrusted = |name: &str, file: &[u8], most: u64| {
        let source = Rc::new(file.to_vec());
        let unpacker = Unpacker::new(golden_config(name), source, most).unwrap();
        let mut unpacker = unpacker.distrusting();
        while !unpacker.step(&mut |_| true)? {}
        unpacker.finish()
    };
    for precision in PRECISIONS {
        let (file, _) = pack("two-blocks", precision);
        assert!(distrusted("two-blocks", &file, ALL).is_ok());
        let header = u32::from_le_bytes(file[32..36].try_into().unwrap()) as usize;
        let mut noisy = file.clone();
        for (i, byte) in noisy[header..].iter_mut().enumerate() {
            *byte = (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()[6] | 0x7f;
        }
        let refused = distrusted("two-blocks", &noisy, ALL);
        assert!(
            matches!(refused, Err(PackedError::Weights(_))),
            "{precision}"
        );
        if precision != Precision::Int16 {
            let model = unpack(golden_config("two-blocks"), &noisy, ALL).unwrap();
            logits(&model, &prompt("two-blocks"));
        }
    }
    // Blocks that will not be in memory are looked at too.
    let (file, _) = pack("half", Precision::F32);
    let most = distrusted("half", &file, ALL).unwrap().memory() - 1;
    assert!(distrusted("half", &file, most).unwrap().is_streamed());
    let places = (file.len() / 4).next_multiple_of(64)..file.len();
    for place in places.step_by(64) {
        let mut spoiled = file.clone();
        spoiled[place..place + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(distrusted("half", &spoiled, most).is_err(), "{place}");
    }
}

#[test]
fn embeddings_in_pieces_make_the_same_file() {
    for name in GOLDEN.iter().chain(&["gptj-half", "gptj-tied"]) {
        for precision in PRECISIONS {
            let (file, _) = pack(name, precision);
            let bytes = golden_bytes(name);
            let checkpoint = Checkpoint::parse(&bytes).unwrap();
            for most in [0, 1_000] {
                let packer = Packer::new(&golden_config(name), &checkpoint, precision).unwrap();
                let (mut packer, mut frugal) = (packer.frugal(most), Vec::new());
                while !packer.step(&bytes, &mut frugal, &mut || true).unwrap() {}
                assert_eq!(packer.done(), packer.total());
                assert!(file == frugal, "{name} in {precision}, {most}");
            }
        }
    }
}

#[test]
fn a_full_sink_and_an_early_end_are_told() {
    struct Full(usize);
    impl Sink for Full {
        fn append(&mut self, bytes: &[u8]) -> bool {
            let fits = bytes.len() <= self.0;
            self.0 = self.0.saturating_sub(bytes.len());
            fits
        }
    }
    let bytes = golden_bytes("two-blocks");
    let checkpoint = Checkpoint::parse(&bytes).unwrap();
    let config = golden_config("two-blocks");
    let packer = || Packer::new(&config, &checkpoint, Precision::Int8).unwrap();
    assert_eq!(packer().finish(), Err(LoadError::Unfinished));
    let length = packer().len();
    for room in [0, 500, length as usize - 1] {
        let error = packer().step(&bytes, &mut Full(room), &mut || true);
        assert_eq!(error, Err(PackError::NoRoom(length)));
    }
    assert_eq!(
        packer().step(&bytes, &mut Full(length as usize), &mut || true),
        Ok(true)
    );
}
