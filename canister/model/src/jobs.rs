//! Generations: what is asked for, and how it runs over as many messages as it takes.
//!
//! Every generation is a job. `generate`, `inference` and `complete` wait for theirs; `submit` tells
//! its id at once, and `poll` shows what it has so far. All run in one batch ([`desk`], [`crew`]) in
//! the order of a fair [`queue`], driven by whoever holds a message ([`turns`]). The same request
//! with the same seed gives the same tokens, alone or with others, in one message or many.

mod crew;
mod desk;
mod job;
mod pace;
mod queue;
mod sessions;
mod store;
mod turns;

use candid::Principal;
use icgpt_engine::{Batch, Generation};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use crate::answer::{self, View};
use crate::certified;
use crate::error::Error;
use crate::figures;
use crate::options;
use crate::quotas;
use crate::random;
use crate::reckoning::Load;
use crate::serving;
use crate::slices::{Stretch, next_message};
use crate::types::{Completion, JobCertificate, Options, Progress, Prompt, RunningJob, Sequence};

use desk::Found;
pub use job::Kind;
use job::{Answer, Ask, Id, Job};

fn prompt_ids(prompt: &Prompt) -> Result<Vec<u32>, Error> {
    Ok(match prompt {
        Prompt::TokenIds(ids) => ids.clone(),
        Prompt::Text(text) if text.is_empty() => return Err(Error::Limit("the prompt is empty")),
        Prompt::Text(text) => serving::tokenizer()?.encode(text)?.ids,
    })
}

/// Checks a request: gives what is to be computed.
fn ask(prompt: &Prompt, options: Options, template_wanted: bool, seed: u64) -> Result<Ask, Error> {
    let model = serving::model()?;
    let own = prompt_ids(prompt)?;
    let plain = Options {
        template: Some(false),
        ..Options::default()
    };
    let wrapping = if template_wanted { &options } else { &plain };
    let (prompt, start) = wrapping.prompt(model.config(), &own)?;
    let own = (start as u32, (start + own.len()) as u32);
    let request = options::request(&options, model.config(), prompt.clone(), seed)?;
    let begun = options.begun.as_deref().unwrap_or_default();
    Generation::resume(&model, request, icgpt_engine::Session::new(&model), begun)?;
    let needed = options.memory(&model, prompt.len());
    if options.is_several() && needed > crew::room(&model) {
        return Err(Error::AnswersTooLarge {
            needed,
            room: crew::room(&model),
        });
    }
    let until = options.max_time.map(|seconds| {
        let nanoseconds = (seconds * 1e9) as u64;
        ic_cdk::api::time().saturating_add(nanoseconds)
    });
    Ok(Ask {
        prompt,
        own,
        options,
        seed,
        model: ByteBuf::from(serving::model_name().to_vec()),
        until,
    })
}

/// Takes a job in; it waits for its first stretch.
fn enter(caller: Principal, id: Id, ask: Ask, kind: Kind) -> Result<u64, Error> {
    let longest = ask.options.longest(ask.prompt.len()) * ask.options.answers();
    let charge = quotas::take(&caller, ask.prompt.len() as u64 + longest);
    let charge = charge.inspect_err(|_| figures::refused())?;
    let entered = desk::with(|desk| {
        desk.may_enter(charge.purse)?;
        Ok(desk.enter(Job {
            seen: ic_cdk::api::time(),
            ..Job::new(id, caller, kind, ask, charge.clone())
        }))
    });
    entered.inspect_err(|_| {
        quotas::give_back(&charge, 0);
        figures::refused();
    })
}

/// A name for a job whose caller does not have to be told it: hard to guess without the key, too.
fn name(ask: &Ask) -> Id {
    let count = desk::with(|desk| desk.entered());
    let mut hasher = Sha256::new()
        .chain_update(random::key())
        .chain_update(ic_cdk::api::time().to_le_bytes())
        .chain_update(count.to_le_bytes())
        .chain_update(ask.seed.to_le_bytes());
    for token in &ask.prompt {
        hasher.update(token.to_le_bytes());
    }
    hasher.finalize().into()
}

/// The place of a call that waits; when it is dropped early, by a trap's clean-up, the job ends.
struct Waiting(u64);

impl Drop for Waiting {
    fn drop(&mut self) {
        desk::with(|desk| desk.leave(self.0));
    }
}

/// Generates, and answers when all is done.
///
/// # Errors
/// What is wrong with the request, or why the canister can't take or finish it.
pub async fn complete(
    caller: Principal,
    prompt: Prompt,
    options: Options,
    template: bool,
    kind: Kind,
) -> Result<Completion, Error> {
    let seed = match options.seed {
        Some(seed) => seed,
        None => random::seed().await?,
    };
    let ask = ask(&prompt, options, template, seed)?;
    let number = enter(caller, name(&ask), ask, kind)?;
    let waiting = Waiting(number);
    let mut turn = turns::Turn::new();
    turns::look_after();
    let ended = loop {
        let now = ic_cdk::api::time();
        turn.take(now);
        if let Some(ended) = desk::with(|desk| desk.look(waiting.0, now)) {
            break ended;
        }
        next_message().await?;
    };
    let view = ended.ask.view();
    let part = view.part(&ended.tokens, &ended.logprobs, 0, true);
    let sequences = ended.answers.as_deref().map(|all| sequences(&view, all));
    Ok(Completion {
        token_ids: part.token_ids,
        text: part.text,
        logprobs: part.logprobs,
        finish: ended.finish,
        seed: ended.ask.seed,
        prompt_tokens: ended.ask.prompt.len() as u32,
        instructions: ended.instructions,
        job: kind.stays().then_some(ended.id),
        sequences,
    })
}

/// All of several answers as their caller sees them.
fn sequences(view: &View, answers: &[Answer]) -> Vec<Sequence> {
    let one = |answer: &Answer| {
        let part = view.part(&answer.told.token_ids, &answer.logprobs, 0, true);
        Sequence {
            token_ids: part.token_ids,
            text: part.text,
            logprobs: part.logprobs,
            finish: answer.told.finish.clone(),
            score: answer.told.score,
        }
    };
    answers.iter().map(one).collect()
}

/// Starts a job in the background and gives its id.
///
/// # Errors
/// What is wrong with the request, or why the canister can't take it.
pub async fn submit(caller: Principal, prompt: Prompt, options: Options) -> Result<Id, Error> {
    let id = random::draw().await?;
    let seed = match options.seed {
        Some(seed) => seed,
        None => random::seed().await?,
    };
    let ask = ask(&prompt, options, true, seed)?;
    enter(caller, id, ask, Kind::Submitted)?;
    turns::begin();
    Ok(id)
}

/// A part of an answer that fits a query; it changes nothing.
///
/// # Errors
/// What is wrong with the request; [`Error::NoSeed`] when it would have to be drawn.
pub fn complete_query(prompt: &Prompt, options: Options) -> Result<Progress, Error> {
    let greedy = match options.temperature {
        Some(temperature) => temperature == 0.0,
        None => options.is_search(),
    };
    let seed = match options.seed {
        Some(seed) => seed,
        None if greedy => 0,
        None => return Err(Error::NoSeed),
    };
    let ask = ask(prompt, options, true, seed)?;
    let model = serving::model()?;
    let config = model.config();
    let request = options::request(&ask.options, config, ask.prompt.clone(), seed)?;
    let begun = ask.begun();
    let wanted = [&ask.prompt[..], begun].concat();
    let session = desk::with(|desk| desk.session(&model, &wanted));
    let mut batch = Batch::new(&model);
    batch.add(0, Generation::resume(&model, request, session, begun)?);
    let mut stretch = Stretch::query(&Load::of(&model, 0, 0));
    batch.run(&model, &mut |step| stretch.more(step));
    let (spent, _) = stretch.end();
    let generation = batch.remove(0).ok_or(Error::NoModel)?;
    let several = ask.options.is_several();
    if generation.finish().is_none() && (several || generation.tokens().len() == begun.len()) {
        return Err(Error::TooMuchForQuery);
    }
    let finish = generation.finish().map(crew::finish);
    let logprobs = answer::logprobs(generation.logprobs());
    let view = ask.view();
    let part = view.part(generation.tokens(), &logprobs, 0, finish.is_some());
    let sequences = several.then(|| sequences(&view, &crew::answers(&generation)));
    Ok(Progress {
        token_ids: part.token_ids,
        text: part.text,
        logprobs: part.logprobs,
        finish,
        seed,
        prompt_tokens: ask.prompt.len() as u32,
        instructions: spent,
        sequences,
    })
}

fn readable(caller: Principal, owner: Principal) -> Result<(), Error> {
    if owner == caller || owner == Principal::anonymous() {
        Ok(())
    } else {
        Err(Error::NoJob)
    }
}

/// What a job has from token `from` on.
///
/// # Errors
/// [`Error::NoJob`] for an unknown id, and for another caller's unless it was submitted anonymously.
pub fn poll(caller: Principal, id: &[u8], from: u32) -> Result<Progress, Error> {
    desk::with(|desk| {
        let (owner, ask, tokens, logprobs, finish, instructions, answers) =
            match desk.find(id).ok_or(Error::NoJob)? {
                Found::Running(job) => (
                    job.owner,
                    &job.ask,
                    &job.tokens,
                    &job.logprobs,
                    None,
                    job.instructions,
                    None,
                ),
                Found::Ended(job) => (
                    job.owner,
                    &job.ask,
                    &job.tokens,
                    &job.logprobs,
                    Some(job.finish.clone()),
                    job.instructions,
                    job.answers.as_deref(),
                ),
            };
        readable(caller, owner)?;
        let ended = finish.is_some();
        let view = ask.view();
        let part = view.part(tokens, logprobs, from as usize, ended);
        Ok(Progress {
            token_ids: part.token_ids,
            text: part.text,
            logprobs: part.logprobs,
            finish,
            seed: ask.seed,
            prompt_tokens: ask.prompt.len() as u32,
            instructions,
            sequences: answers.map(|all| sequences(&view, all)),
        })
    })
}

/// Jobs that have not ended, in the order in which they came: all, or those of a caller. The
/// anonymous caller has none, as anybody else would see them, too.
pub fn running(caller: Principal, all: bool) -> Vec<RunningJob> {
    let seen = |job: &Job| all || (job.owner == caller && caller != Principal::anonymous());
    desk::with(|desk| {
        let jobs = desk.unended().filter(|(job, _)| seen(job));
        jobs.map(|(job, running)| job.told(running)).collect()
    })
}

/// Ends a job, for its owner or for who may end all. Ending twice is no error.
///
/// # Errors
/// [`Error::NoJob`].
pub fn cancel(caller: Principal, all: bool, id: &[u8]) -> Result<(), Error> {
    desk::with(|desk| desk.cancel(|owner| all || owner == caller, id))
}

/// What proves a finished job: the subnet's certificate, the way from it to the job, and the
/// receipt whose hash is there.
///
/// # Errors
/// [`Error::NoJob`], [`Error::NotEnded`], and [`Error::NoCertificate`] outside a query.
pub fn certificate(caller: Principal, id: &[u8]) -> Result<JobCertificate, Error> {
    let receipt = desk::with(|desk| match desk.find(id) {
        Some(Found::Ended(job)) => readable(caller, job.owner).map(|()| job.receipt()),
        Some(Found::Running(job)) => readable(caller, job.owner).and(Err(Error::NotEnded)),
        None => Err(Error::NoJob),
    })?;
    let id = Id::try_from(id).map_err(|_| Error::NoJob)?;
    let (certificate, witness) = certified::certificate(&id).ok_or(Error::NoCertificate)?;
    Ok(JobCertificate {
        certificate: ByteBuf::from(certificate),
        witness: ByteBuf::from(witness),
        receipt: ByteBuf::from(receipt),
    })
}

/// Whether there is a place for another job, whoever asks.
///
/// # Errors
/// [`Error::Busy`].
pub fn may_enter() -> Result<(), Error> {
    desk::with(|desk| desk.may_enter(None))
}

/// How many jobs there are.
pub fn at_once() -> desk::AtOnce {
    desk::with(|desk| desk.at_once())
}

/// Lets go of the model that jobs ran with, which gives back its memory and theirs.
pub fn let_go_of_model() {
    desk::with(desk::Desk::dissolve);
}

/// The same, unless jobs run.
pub fn let_go_of_idle_model() {
    desk::with(|desk| {
        if desk.is_idle() {
            desk.dissolve();
        }
    });
}

/// Takes up the jobs in stable memory; called when the canister starts.
///
/// # Errors
/// The version of their layout, when it is not this module's.
pub fn restore() -> Result<(), u8> {
    let found = store::read().map_err(|damage| match damage {
        store::Damage::Version(version) => version,
        store::Damage::Checksum => store::VERSION,
    })?;
    desk::with(|desk| desk.restore(found));
    turns::begin();
    Ok(())
}
