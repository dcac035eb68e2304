//! Jobs in stable memory, so that they outlive upgrades: submitted ones while they run, and those
//! that have ended for as long as they are kept.
//!
//! | key | value |
//! |---|---|
//! | 4 · number | what was asked: written once |
//! | 4 · number + 1 | the answer so far: written at the end of each stretch |
//! | 4 · number + 2 | the whole job, when it has ended, in place of the others |
//! | 4 · number + 3 | where several answers stand: written at the end of each stretch |
//! | 2^63 + 2^12 · number + block | log-probabilities of 64 tokens, where they were asked for |
//!
//! A value is the layout's version, the first 8 bytes of the SHA-256 of what follows, and a Candid
//! record. Running jobs are computed again from prompt and tokens, so nothing of the model's own
//! state is kept. Log-probabilities can take a hundred times as much as their tokens, so a stretch
//! writes only the blocks that it added to. Version 1 had none: its jobs that want them begin anew, and
//! so do several answers that want them. Version 3 brought these.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use candid::{CandidType, Decode, Encode, Principal};
use ic_stable_structures::StableBTreeMap;
use icgpt_engine::{self as engine, Line};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use super::crew;
use super::job::{Ask, Ended, Id, Job, Kind};
use crate::quotas::Charge;
use crate::storage::{self, Region};
use crate::types::{Finish, TokenLogprobs};

/// Layout of the values, and the oldest that can be read.
pub const VERSION: u8 = 3;
const OLDEST: u8 = 1;

const CHECK: usize = 8;

/// Where the keys of log-probabilities begin, how many blocks a job has room for, and the tokens of
/// a block.
const LOGPROBS: u64 = 1 << 63;
const BLOCKS: u64 = 1 << 12;
const BLOCK: usize = 64;

type Map = StableBTreeMap<u64, Vec<u8>, Region>;

thread_local! {
    static MAP: RefCell<Option<Map>> = const { RefCell::new(None) };
}

/// A job in stable memory can't be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Damage {
    /// A module of another version wrote it.
    Version(u8),
    /// It is not what was written.
    Checksum,
}

/// What was asked, and by whom.
#[derive(CandidType, Deserialize)]
struct Asked {
    id: ByteBuf,
    owner: Principal,
    ask: Ask,
    charge: Charge,
}

/// The answer so far.
#[derive(CandidType, Deserialize, Default)]
struct Answer {
    tokens: ByteBuf,
    instructions: u64,
    paused: u32,
}

/// A line of tokens of one of several answers.
#[derive(CandidType, Deserialize)]
struct Kept {
    tokens: ByteBuf,
    score: f64,
    finish: Option<Finish>,
}

fn bytes_of(tokens: &[u32]) -> ByteBuf {
    let bytes = tokens.iter().flat_map(|token| token.to_le_bytes());
    ByteBuf::from(bytes.collect::<Vec<u8>>())
}

fn tokens_of(bytes: &ByteBuf) -> Vec<u32> {
    let tokens = bytes.as_chunks::<4>().0;
    tokens
        .iter()
        .map(|&token| u32::from_le_bytes(token))
        .collect()
}

fn keep(line: &Line) -> Kept {
    Kept {
        tokens: bytes_of(&line.tokens),
        score: line.score,
        finish: line.finish.map(crew::finish),
    }
}

fn line(kept: &Kept) -> Line {
    Line {
        tokens: tokens_of(&kept.tokens),
        score: kept.score,
        finish: kept.finish.as_ref().map(|finish| match finish {
            Finish::Stop => engine::Finish::Stop,
            Finish::Length => engine::Finish::Length,
            Finish::Context => engine::Finish::Context,
            Finish::Cancelled | Finish::Failed(_) => engine::Finish::Exhausted,
        }),
    }
}

fn with<T>(work: impl FnOnce(&mut Map) -> T) -> T {
    MAP.with_borrow_mut(|map| {
        let map = map.get_or_insert_with(|| {
            StableBTreeMap::init(storage::with(|storage| storage.region_at(storage::JOBS)))
        });
        work(map)
    })
}

fn seal(encoded: &[u8]) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend_from_slice(&Sha256::digest(encoded)[..CHECK]);
    value.extend_from_slice(encoded);
    value
}

fn open<T: CandidType + DeserializeOwned>(value: &[u8]) -> Result<T, Damage> {
    match value.split_first() {
        Some((OLDEST..=VERSION, rest)) if rest.len() >= CHECK => {
            let (check, encoded) = rest.split_at(CHECK);
            if &Sha256::digest(encoded)[..CHECK] != check {
                return Err(Damage::Checksum);
            }
            Decode!(encoded, T).map_err(|_| Damage::Checksum)
        }
        Some((&version, _)) if !(OLDEST..=VERSION).contains(&version) => {
            Err(Damage::Version(version))
        }
        _ => Err(Damage::Checksum),
    }
}

fn put<T: CandidType>(key: u64, record: &T) {
    // Records that are all in memory encode without fail.
    if let Ok(encoded) = Encode!(record) {
        with(|map| map.insert(key, seal(&encoded)));
    }
}

/// Writes down what was asked.
pub fn asked(number: u64, job: &Job) {
    let record = Asked {
        id: ByteBuf::from(job.id.to_vec()),
        owner: job.owner,
        ask: job.ask.clone(),
        charge: job.charge.clone(),
    };
    put(4 * number, &record);
}

fn blocks_of(number: u64) -> RangeInclusive<u64> {
    let first = LOGPROBS + BLOCKS * number;
    first..=first + BLOCKS - 1
}

/// Writes down the answer so far.
pub fn answered(number: u64, job: &Job) {
    let record = Answer {
        tokens: bytes_of(&job.tokens),
        instructions: job.instructions,
        paused: job.paused,
    };
    put(4 * number + 1, &record);
    if job.ask.options.is_several() {
        if job.ask.options.logprobs.is_none() {
            let groups = job.standing.iter();
            let groups = groups.map(|lines| lines.iter().map(keep).collect());
            put(4 * number + 3, &groups.collect::<Vec<Vec<Kept>>>());
        }
        return;
    }
    let blocks = blocks_of(number).zip(job.logprobs.chunks(BLOCK));
    for (key, block) in blocks.skip(job.noted / BLOCK) {
        put(key, &block);
    }
}

/// Writes down the whole job.
pub fn ended(number: u64, job: &Ended) {
    drop_running(number);
    put(4 * number + 2, job);
}

/// Forgets a job that has not ended.
pub fn drop_running(number: u64) {
    with(|map| {
        map.remove(&(4 * number));
        map.remove(&(4 * number + 1));
        map.remove(&(4 * number + 3));
        let blocks = map.range(blocks_of(number)).map(|entry| *entry.key());
        for key in blocks.collect::<Vec<u64>>() {
            map.remove(&key);
        }
    });
}

/// Forgets a job that has ended.
pub fn drop_ended(number: u64) {
    with(|map| map.remove(&(4 * number + 2)));
}

/// All jobs, by number, as an upgrade finds them.
#[derive(Default)]
pub struct Found {
    /// Submitted and not ended.
    pub running: BTreeMap<u64, Job>,
    /// Ended.
    pub ended: BTreeMap<u64, Ended>,
    /// The first number that no job has.
    pub next: u64,
    /// Numbers of jobs whose records are damaged.
    pub damaged: Vec<u64>,
}

/// Reads all jobs.
///
/// # Errors
/// [`Damage::Version`] when a module of another version wrote one; a damaged one is only counted.
pub fn read() -> Result<Found, Damage> {
    let mut found = Found::default();
    let entries: Vec<(u64, Vec<u8>)> = with(|map| {
        let all = map.iter();
        all.map(|entry| (*entry.key(), entry.value())).collect()
    });
    for (key, value) in entries {
        if key >= LOGPROBS {
            let (number, block) = ((key - LOGPROBS) / BLOCKS, key % BLOCKS);
            let read = open(&value).map(|more: Vec<TokenLogprobs>| {
                // Behind a block that is damaged the next one has no place.
                if let Some(job) = found.running.get_mut(&number)
                    && job.logprobs.len() == BLOCK * block as usize
                {
                    job.logprobs.extend(more);
                }
            });
            if let Err(version @ Damage::Version(_)) = read {
                return Err(version);
            }
            continue;
        }
        let number = key / 4;
        found.next = found.next.max(number + 1);
        let read = match key % 4 {
            0 => open(&value).and_then(|asked| {
                let job = job(asked).ok_or(Damage::Checksum)?;
                found.running.insert(number, job);
                Ok(())
            }),
            1 => open(&value).map(|answer: Answer| {
                if let Some(job) = found.running.get_mut(&number) {
                    job.tokens = tokens_of(&answer.tokens);
                    job.instructions = answer.instructions;
                    job.paused = answer.paused;
                }
            }),
            2 => open(&value).map(|ended| {
                found.ended.insert(number, ended);
            }),
            _ => open(&value).map(|groups: Vec<Vec<Kept>>| {
                if let Some(job) = found.running.get_mut(&number) {
                    let groups = groups.iter();
                    let groups = groups.map(|lines| lines.iter().map(line).collect());
                    job.standing = groups.collect();
                }
            }),
        };
        match read {
            Ok(()) => {}
            Err(Damage::Version(version)) => return Err(Damage::Version(version)),
            Err(Damage::Checksum) if key % 2 == 1 => {
                // All of it can be computed again from what was asked.
                with(|map| map.remove(&key));
            }
            Err(Damage::Checksum) => found.damaged.push(number),
        }
    }
    found.running.values_mut().for_each(agree);
    Ok(found)
}

/// Cuts tokens and log-probabilities to the same length, if both are wanted; what is behind it is
/// computed again.
fn agree(job: &mut Job) {
    if job.ask.options.is_several() {
        let first = job.standing.first().and_then(|lines| lines.first());
        let first = first.filter(|_| !job.ask.options.is_search());
        job.tokens = first.map_or(Vec::new(), |line| line.tokens.clone());
        return;
    }
    if job.ask.options.logprobs.is_some() {
        let begun = job.ask.begun().len();
        job.tokens.truncate(begun + job.logprobs.len());
        job.logprobs
            .truncate(job.tokens.len().saturating_sub(begun));
    } else {
        job.logprobs.clear();
    }
    job.noted = job.logprobs.len();
}

fn job(asked: Asked) -> Option<Job> {
    let id = Id::try_from(asked.id.as_slice()).ok()?;
    Some(Job::new(
        id,
        asked.owner,
        Kind::Submitted,
        asked.ask,
        asked.charge,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Logprob, Options};

    #[test]
    fn a_record_comes_back() {
        let answer = Answer {
            tokens: ByteBuf::from(vec![1, 0, 0, 0]),
            instructions: 7,
            paused: 3,
        };
        let value = seal(&Encode!(&answer).unwrap());
        let back: Answer = open(&value).unwrap();
        assert_eq!((back.tokens, back.instructions), (answer.tokens, 7));
    }

    #[test]
    fn what_is_not_what_was_written_is_noticed() {
        let value = seal(&Encode!(&Answer::default()).unwrap());
        for at in 1..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 1;
            assert!(matches!(open::<Answer>(&changed), Err(Damage::Checksum)));
        }
        for short in 0..9 {
            let damage = open::<Answer>(&value[..short]).err();
            assert_eq!(damage, Some(Damage::Checksum));
        }
    }

    fn logprobs(count: usize) -> Vec<TokenLogprobs> {
        let one = |i| TokenLogprobs {
            chosen: Logprob {
                token_id: i as u32,
                logprob: -0.5,
            },
            top: Vec::new(),
        };
        (0..count).map(one).collect()
    }

    fn job_with(options: Options, tokens: usize, found: usize) -> Job {
        let ask = Ask {
            prompt: vec![1],
            own: (0, 1),
            options,
            seed: 0,
            model: ByteBuf::new(),
            until: None,
        };
        let owner = Principal::anonymous();
        Job {
            tokens: vec![5; tokens],
            logprobs: logprobs(found),
            ..Job::new([0; 32], owner, Kind::Submitted, ask, Charge::default())
        }
    }

    #[test]
    fn tokens_and_log_probabilities_go_on_from_the_same_place() {
        let wanted = Options {
            logprobs: Some(2),
            begun: Some(vec![5; 3]),
            ..Options::default()
        };
        // Begun elsewhere are three; of the others a block is damaged, all are, none is, or tokens.
        for (tokens, found, left) in [(80, 64, 67), (80, 0, 3), (80, 77, 80), (3, 77, 3)] {
            let mut job = job_with(wanted.clone(), tokens, found);
            agree(&mut job);
            assert_eq!((job.tokens.len(), job.logprobs.len()), (left, left - 3));
            assert_eq!(job.noted, left - 3);
        }
        let mut job = job_with(Options::default(), 80, 0);
        agree(&mut job);
        assert_eq!((job.tokens.len(), job.logprobs.len()), (80, 0));
    }

    #[test]
    fn blocks_of_jobs_lie_apart_and_behind_all_else() {
        for number in [0, 1, 2, 1 << 40] {
            assert!(*blocks_of(number).start() > 4 * (number + 1));
            assert!(blocks_of(number).end() < blocks_of(number + 1).start());
        }
        // The longest answer that can be asked for has 32,768 tokens.
        assert!(BLOCKS * BLOCK as u64 >= 32_768);
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        let mut value = seal(&Encode!(&Answer::default()).unwrap());
        value[0] = 9;
        assert_eq!(open::<Answer>(&value).err(), Some(Damage::Version(9)));
    }
}
