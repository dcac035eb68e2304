//! Sampling against transformers' own processors (`tests/golden/make_sampling.py`), against exact
//! probabilities by counting draws, and on values made to break it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::*;

/// The kept tokens with their probabilities.
fn distribution(sampler: &Sampler, logits: &[f32]) -> Option<Vec<(u32, f64)>> {
    let weights = |pool: &Pool, _| match pool {
        Pool::Few(entries) => entries
            .iter()
            .map(|entry| (entry.token, f64::from(entry.weight)))
            .collect::<Vec<_>>(),
        Pool::Many { weights, .. } => crate::simd::floats(weights)
            .iter()
            .enumerate()
            .map(|(id, &weight)| (id as u32, f64::from(weight)))
            .collect(),
    };
    let mut kept = sampler.with_pool(logits, &mut Buffers::default(), weights)?;
    kept.retain(|&(_, weight)| weight > 0.0);
    let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
    for (_, weight) in &mut kept {
        *weight /= total;
    }
    Some(kept)
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().map_or(&[][..], Vec::as_slice);
    ids.iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// As `logits` of the generator.
fn made(recipe: &Value) -> Vec<f32> {
    let number = |key: &str| recipe[key].as_f64().unwrap();
    let seed = recipe["seed"].as_u64().unwrap();
    (1..=recipe["size"].as_u64().unwrap())
        .map(|i| {
            let bits = mix(seed.wrapping_add(i.wrapping_mul(GOLDEN)));
            let u = (bits >> 11) as f64 / (1u64 << 53) as f64;
            let power = (0..6).fold(u, |power, _| power * power);
            (number("spread") * u + number("peak") * power) as f32
        })
        .collect()
}

fn case_logits(case: &Value) -> Vec<f32> {
    match case["logits"].as_array() {
        Some(values) => values
            .iter()
            .map(|value| value.as_f64().map_or(f32::NEG_INFINITY, |v| v as f32))
            .collect(),
        None => made(&case["made"]),
    }
}

fn case_sampler(case: &Value) -> Sampler {
    let options = &case["options"];
    let float = |name: &str| options[name].as_f64();
    let whole = |name: &str| options[name].as_u64().map(|n| n as u32);
    let sampling = Sampling {
        temperature: float("temperature").unwrap_or(1.0),
        top_k: whole("top_k"),
        top_p: float("top_p"),
        typical_p: float("typical_p"),
        repetition_penalty: float("repetition_penalty"),
        no_repeat_ngram_size: whole("no_repeat_ngram_size"),
        encoder_no_repeat_ngram_size: whole("encoder_no_repeat_ngram_size"),
        min_new_tokens: whole("min_new_tokens").unwrap_or(0),
        ..Sampling::greedy()
    };
    assert_eq!(sampling.validate(100), Ok(()));
    let ends = ids(&options["eos_token_id"]);
    let mut sampler = Sampler::new(&sampling, &ids(&case["prompt"]), &ends);
    for token in ids(&case["answer"]) {
        sampler.push(token);
    }
    sampler
}

fn cases() -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sampling.json");
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn fnv(ids: impl Iterator<Item = u32>) -> u64 {
    ids.fold(0xcbf2_9ce4_8422_2325, |hash, id| {
        (hash ^ u64::from(id)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn assert_close(name: &str, got: f64, want: f64) {
    assert!(
        (got - want).abs() <= 2e-6 * want + 1e-9,
        "{name}: {got} {want}"
    );
}

#[test]
fn keeps_what_transformers_keeps() {
    let cases = cases();
    assert!(cases.len() > 200);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let logits = case_logits(case);
        let kept = distribution(&case_sampler(case), &logits).unwrap();
        let expected = &case["expected"];
        if let Some(count) = expected["count"].as_u64() {
            assert_eq!(kept.len() as u64, count, "{name}");
            let hash = format!("{:016x}", fnv(kept.iter().map(|&(id, _)| id)));
            assert_eq!(hash, expected["hash"].as_str().unwrap(), "{name}");
            for pair in expected["some"].as_array().unwrap() {
                let id = pair[0].as_u64().unwrap() as u32;
                let at = kept.binary_search_by_key(&id, |&(id, _)| id).unwrap();
                assert_close(name, kept[at].1, pair[1].as_f64().unwrap());
            }
            continue;
        }
        let probabilities = expected["probabilities"].as_array().unwrap();
        let mut want: Vec<(u32, f64)> = ids(&expected["ids"])
            .into_iter()
            .zip(probabilities.iter().map(|p| p.as_f64().unwrap()))
            .collect();
        let mut kept = kept;
        if case["ties"] == true {
            // Which ones of equal logits transformers keeps depends on how it sorts.
            for list in [&mut kept, &mut want] {
                for entry in &mut *list {
                    entry.0 = u32::from(logits[entry.0 as usize].to_bits() << 1 != 0);
                }
                list.sort_by(|a, b| b.1.total_cmp(&a.1));
            }
        }
        let kept_ids: Vec<u32> = kept.iter().map(|&(id, _)| id).collect();
        let want_ids: Vec<u32> = want.iter().map(|&(id, _)| id).collect();
        assert_eq!(kept_ids, want_ids, "{name}");
        for (kept, want) in kept.iter().zip(&want) {
            assert_close(name, kept.1, want.1);
        }
    }
}

fn sampling(temperature: f64, top_k: Option<u32>) -> Sampling {
    Sampling {
        temperature,
        top_k,
        seed: 42,
        ..Sampling::greedy()
    }
}

fn greedy(logits: &[f32]) -> Option<u32> {
    Sampling::greedy().choose(logits, 0)
}

#[test]
fn refuses_bad_options() {
    let refused = |change: &dyn Fn(&mut Sampling)| {
        let mut sampling = sampling(1.0, None);
        change(&mut sampling);
        sampling.validate(10).unwrap_err().to_string()
    };
    for bad in [f64::NAN, -1.0, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(refused(&|s| s.temperature = bad).contains("temperature"));
        assert!(refused(&|s| s.top_p = Some(bad)).contains("top_p"));
        assert!(refused(&|s| s.typical_p = Some(bad)).contains("typical_p"));
        assert!(refused(&|s| s.repetition_penalty = Some(bad)).contains("repetition_penalty"));
    }
    for bad in [0.0, -0.0, 1.0 + f64::EPSILON, 1e300] {
        assert!(refused(&|s| s.top_p = Some(bad)).contains("top_p"));
        assert!(refused(&|s| s.typical_p = Some(bad)).contains("typical_p"));
    }
    assert!(refused(&|s| s.repetition_penalty = Some(0.0)).contains("positive"));
    assert!(refused(&|s| s.top_k = Some(0)).contains("top_k"));
    assert!(refused(&|s| s.no_repeat_ngram_size = Some(0)).starts_with("no_repeat_ngram_size"));
    let encoder = refused(&|s| s.encoder_no_repeat_ngram_size = Some(0));
    assert!(encoder.starts_with("encoder_no_repeat_ngram_size"));
    assert!(refused(&|s| s.min_new_tokens = 11).contains("max_new_tokens 10"));
    assert!(refused(&|s| s.logprobs = Some(21)).contains("at most 20"));
    let widest = Sampling {
        temperature: f64::MAX,
        top_k: Some(u32::MAX),
        top_p: Some(1.0),
        typical_p: Some(f64::MIN_POSITIVE),
        repetition_penalty: Some(f64::MAX),
        no_repeat_ngram_size: Some(u32::MAX),
        encoder_no_repeat_ngram_size: Some(u32::MAX),
        min_new_tokens: 10,
        remove_invalid_values: true,
        logprobs: Some(20),
        seed: u64::MAX,
    };
    assert_eq!(widest.validate(10), Ok(()));
    let sampler = Sampler::new(&widest, &[0, 1, 2], &[2]);
    let logits = [3.0, f32::MAX, -1e38, 0.0];
    let choice = sampler.choose(&logits, &mut Buffers::default()).unwrap();
    assert_eq!(choice.logprobs.unwrap().top.len(), 4);
    assert_eq!(sampling(-0.0, Some(5)).validate(1), Ok(()));
}

#[test]
fn temperature_zero_takes_the_lowest_of_equal_ids() {
    assert_eq!(greedy(&[1.0, 3.0, 3.0, 2.0]), Some(1));
    assert_eq!(greedy(&[-0.0, 0.0]), Some(0));
    assert_eq!(sampling(1e-300, None).choose(&[1.0, 1.1, 0.0], 9), Some(1));
    for size in [1, 63, 64, 65, 1000, 50_257] {
        for at in [0, size / 2, size - 1] {
            let mut logits = vec![-2.5f32; size];
            logits[at..].fill(7.0);
            assert_eq!(greedy(&logits), Some(at as u32));
        }
    }
}

#[test]
fn numbers_that_are_none_are_never_chosen() {
    assert_eq!(greedy(&[f32::NAN, f32::NAN]), None);
    assert_eq!(greedy(&[f32::NEG_INFINITY; 3]), None);
    assert_eq!(greedy(&[f32::NAN, -1.0, f32::NEG_INFINITY]), Some(1));
    assert_eq!(greedy(&[0.0, f32::INFINITY, f32::INFINITY]), Some(1));
    let mut logits = vec![f32::NAN; 3000];
    logits[1234] = f32::NEG_INFINITY;
    for (at, value) in [(77, 1.0), (1100, 1.0), (2999, 0.5)] {
        logits[at] = value;
    }
    for sampling in [
        sampling(1.0, None),
        sampling(1e30, None),
        sampling(f64::MAX, Some(2)),
        sampling(f64::MIN_POSITIVE, Some(2900)),
        Sampling {
            top_p: Some(0.999),
            typical_p: Some(0.999),
            ..sampling(3.0, None)
        },
    ] {
        for position in 0..200 {
            let token = sampling.choose(&logits, position).unwrap();
            assert!([77, 1100, 2999].contains(&token), "{token}");
        }
        let infinite = sampling.choose(&[1.0, f32::INFINITY, f32::NAN], 3);
        assert_eq!(infinite, Some(1));
    }
}

/// As transformers' `InfNanRemoveLogitsProcessor` makes them: of logits where one token is chosen, of
/// logarithms where beams are ranked, which one logit that is none spoils altogether.
#[test]
fn numbers_that_are_none_are_replaced_where_that_is_asked_for() {
    const NONE: f32 = f32::NAN;
    const MOST: f32 = f32::INFINITY;
    let removing = Sampling {
        remove_invalid_values: true,
        ..sampling(0.0, None)
    };
    let sampler = Sampler::new(&removing, &[], &[]);
    for (logits, likeliest, logarithms) in [
        ([NONE, -1.0, -2.0], 0, [0.0; 3]),
        ([NONE, 1.0, -2.0], 1, [0.0; 3]),
        ([1.0, MOST, 5.0], 1, [0.0; 3]),
        ([NONE, MOST, -MOST], 1, [0.0; 3]),
        ([-MOST, -MOST, -1.0], 2, [f32::MIN, f32::MIN, 0.0]),
        ([-1.0, NONE, NONE], 1, [0.0; 3]),
    ] {
        assert_eq!(removing.choose(&logits, 0), Some(likeliest), "{logits:?}");
        let mut ranked = sampler.ranked(&logits, &[], 3, &mut Buffers::default());
        ranked.sort_by_key(|&(token, _)| token);
        let expected: Vec<(u32, f32)> = (0..).zip(logarithms).collect();
        assert_eq!(ranked, expected, "{logits:?}");
    }
}

#[test]
fn of_equal_ones_the_lower_ids_make_up_the_mass() {
    let half = Sampling {
        top_p: Some(0.5),
        ..sampling(1.0, None)
    };
    for size in [10, 600, 20_000] {
        let kept = distribution(&Sampler::new(&half, &[], &[]), &vec![0.25; size]).unwrap();
        let ids: Vec<u32> = kept.iter().map(|&(id, _)| id).collect();
        assert_eq!(ids, (0..size as u32 / 2).collect::<Vec<_>>());
    }
    let three = distribution(
        &Sampler::new(&sampling(1.0, Some(3)), &[], &[]),
        &[1.0, 2.0, 2.0, 0.0, 2.0, 2.0],
    );
    assert_eq!(
        three.unwrap().len(),
        4,
        "what is equal to the third is kept"
    );
}

#[test]
fn nothing_is_chosen_when_all_is_banned() {
    let options = Sampling {
        no_repeat_ngram_size: Some(1),
        min_new_tokens: 5,
        ..sampling(1.0, None)
    };
    let mut sampler = Sampler::new(&options, &[0], &[3]);
    let logits = [1.0, 1.0, 1.0, 9.0];
    let mut answer = Vec::new();
    while let Some(choice) = sampler.choose(&logits, &mut Buffers::default()) {
        answer.push(choice.token);
        sampler.push(choice.token);
    }
    answer.sort_unstable();
    assert_eq!(answer, [1, 2]);
}

/// Draws against the kept tokens' probabilities: within five standard deviations.
#[test]
fn draws_follow_the_distribution() {
    const DRAWS: u64 = 20_000;
    let logits: Vec<f32> = (0..1200)
        .map(|i| {
            if i % 100 == 7 {
                (i / 100) as f32 / 3.0
            } else {
                -3.0
            }
        })
        .collect();
    let options = [
        sampling(0.5, None),
        sampling(1.0, None),
        sampling(2.0, Some(5)),
        Sampling {
            top_p: Some(0.7),
            ..sampling(1.0, None)
        },
        Sampling {
            typical_p: Some(0.6),
            ..sampling(1.0, Some(11))
        },
    ];
    for options in options {
        let kept = distribution(&Sampler::new(&options, &[], &[]), &logits).unwrap();
        let mut seen = vec![0u64; logits.len()];
        for seed in 0..DRAWS {
            let sampling = Sampling { seed, ..options };
            seen[sampling.choose(&logits, seed % 7).unwrap() as usize] += 1;
        }
        let mut all = 0;
        for &(id, p) in &kept {
            let count = seen[id as usize];
            let expected = p * DRAWS as f64;
            let deviation = (expected * (1.0 - p)).sqrt();
            assert!(
                (count as f64 - expected).abs() <= 5.0 * deviation + 1.0,
                "{options:?} {id}: {count} {expected}"
            );
            all += count;
        }
        assert_eq!(all, DRAWS, "nothing else is drawn");
    }
}

/// Logits that resist a search: clusters, ties, values far apart, nothing but equal ones.
fn adversarial(kind: u64, size: usize) -> Vec<f32> {
    (0..size as u64)
        .map(|i| {
            let random = mix(kind.wrapping_mul(977).wrapping_add(i)) >> 40;
            let u = random as f32 / (1u64 << 24) as f32;
            match kind % 7 {
                0 => (random % 5) as f32,
                1 => (u * 120.0).exp2(),
                2 => -(u * 120.0).exp2(),
                3 => 1.0 + u * 1e-5,
                4 => {
                    if i % 3 == 0 {
                        f32::NEG_INFINITY
                    } else {
                        u * 10.0
                    }
                }
                5 => {
                    if i % 1000 == 0 {
                        5.0
                    } else {
                        -1e30 * u
                    }
                }
                _ => {
                    if u < 0.5 {
                        0.0
                    } else {
                        u * 1e-30
                    }
                }
            }
        })
        .collect()
}

#[test]
fn kept_sets_are_the_smallest_best_ones() {
    for kind in 0..21 {
        for size in [513, 4_099, 20_011] {
            let logits = adversarial(kind, size);
            for p in [0.001, 0.3, 0.9, 0.999_99] {
                let options = Sampling {
                    top_p: Some(p),
                    ..sampling(1.5, None)
                };
                let plain = sampling(1.5, None);
                let all = distribution(&Sampler::new(&plain, &[], &[]), &logits).unwrap();
                let kept = distribution(&Sampler::new(&options, &[], &[]), &logits).unwrap();
                let share: std::collections::HashMap<u32, f64> = all.iter().copied().collect();
                let kept: Vec<u32> = kept.iter().map(|&(id, _)| id).collect();
                let mass: f64 = kept.iter().map(|id| share[id]).sum();
                let least = kept.iter().map(|id| share[id]).fold(f64::MAX, f64::min);
                let name = format!("{kind} {size} {p}: {} of {}", kept.len(), all.len());
                assert!(mass >= p - 1e-6, "{name}: {mass}");
                assert!(mass - least < p + 1e-6, "{name}: {mass} {least}");
                let worst = kept.iter().map(|&id| logits[id as usize]);
                let worst = worst.fold(f32::INFINITY, f32::min);
                let set: std::collections::HashSet<u32> = kept.into_iter().collect();
                let better = all
                    .iter()
                    .find(|(id, _)| !set.contains(id) && logits[*id as usize] > worst);
                assert_eq!(better, None, "{name}");
            }
            for k in [1, 60, size as u32 / 5, size as u32 / 2] {
                let options = sampling(1.0, Some(k));
                let kept = Sampler::new(&options, &[], &[]).with_pool(
                    &logits,
                    &mut Buffers::default(),
                    |pool, _| match pool {
                        Pool::Few(entries) => entries.len(),
                        Pool::Many { .. } => 0,
                    },
                );
                let mut sorted = logits.clone();
                sorted.sort_unstable_by(|a, b| b.total_cmp(a));
                let last = sorted[k as usize - 1];
                let possible = last > f32::NEG_INFINITY;
                let want = logits
                    .iter()
                    .filter(|&&l| l >= last && l > f32::NEG_INFINITY);
                let want = want.count();
                let kept = kept.unwrap();
                assert!(
                    kept == 0 || kept == want || !possible,
                    "{kind} {size} {k}: {kept} {want}"
                );
                assert!(kept > 0 || k > 60 || size < 4_099, "{kind} {size} {k}");
            }
        }
    }
}

#[test]
fn numbers_differ_by_seed_and_position_and_repeat() {
    let mut seen: Vec<u64> = (0..50)
        .flat_map(|seed| (0..50).map(move |position| uniform(seed, position).to_bits()))
        .collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 2_500);
    assert_eq!(uniform(7, 3), uniform(7, 3));
    assert!((0..10_000).all(|i| (0.0..1.0).contains(&uniform(1, i))));
}

#[test]
fn log_probabilities_are_those_of_the_model() {
    let logits = [0.5f32, -3.0, 2.0, 8.0, 8.0, 1.0];
    let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
    for token in 0..logits.len() {
        let want = f64::from(logits[token]) - total.ln();
        assert!((f64::from(log_probability(&logits, token)) - want).abs() < 1e-6);
    }
    // Neither a ban nor the temperature changes them.
    let options = Sampling {
        no_repeat_ngram_size: Some(1),
        logprobs: Some(3),
        ..sampling(0.1, Some(1))
    };
    let sampler = Sampler::new(&options, &[3, 4], &[]);
    let choice = sampler.choose(&logits, &mut Buffers::default()).unwrap();
    assert_eq!(choice.token, 2);
    let found = choice.logprobs.unwrap();
    assert_eq!(found.chosen.token, 2);
    assert!((f64::from(found.chosen.logprob) - (2.0 - total.ln())).abs() < 1e-6);
    let top: Vec<u32> = found.top.iter().map(|one| one.token).collect();
    assert_eq!(top, [3, 4, 2]);
    assert!(found.top.is_sorted_by(|a, b| a.logprob >= b.logprob));
    for odd in [f32::INFINITY, f32::MAX, f32::MIN] {
        assert!(log_probability(&[odd, 0.0, f32::NEG_INFINITY], 2).is_finite());
        assert!(log_probability(&[odd, 0.0], 0).is_finite());
    }
}
