//! Generations: what is asked for, and how it runs over as many messages as it takes.
//!
//! `generate`, `inference` and `complete` answer when all is done. `submit` answers at once with a
//! job's id; `poll` shows what the job has so far. Both ways run the same loop with the same seed
//! and give the same tokens.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use candid::Principal;
use ic_cdk::api::call_context_instruction_counter;
use icgpt_engine::{self as engine, Batch, Generation, Model};

use crate::answer::{self, View};
use crate::error::Error;
use crate::options;
use crate::random;
use crate::serving;
use crate::slices::{Budget, next_message};
use crate::types::{Completion, Finish, Options, Progress, Prompt, TokenLogprobs};

/// Generations that may run at once; each holds a KV cache.
const MAX_RUNNING: usize = 8;

/// Finished jobs that stay readable.
const MAX_KEPT: usize = 64;

/// A job shows its first tokens soon and then takes longer stretches, since every message pays
/// again for the pages of the weights.
const FIRST_STRETCH: u64 = 200_000_000;
const LONGEST_STRETCH: u64 = 4_000_000_000;

/// What a caller reads when no token was left to choose.
const EXHAUSTED: &str = "no token is left to choose from: the n-gram bans and min_new_tokens \
    forbid all of them, or the model's numbers are broken";

/// A job's name; nobody can guess it.
pub type Id = [u8; 32];

struct Job {
    owner: Principal,
    tokens: Vec<u32>,
    logprobs: Vec<TokenLogprobs>,
    view: View,
    finish: Option<Finish>,
    cancelled: bool,
    seed: u64,
    prompt_tokens: u32,
    instructions: u64,
    serial: u64,
}

thread_local! {
    static RUNNING: Cell<usize> = const { Cell::new(0) };
    static SERIAL: Cell<u64> = const { Cell::new(0) };
    static JOBS: RefCell<HashMap<Id, Job>> = RefCell::new(HashMap::new());
}

/// A place among the running generations, given back when dropped, also by a trap's clean-up.
struct Place;

impl Place {
    fn take() -> Result<Self, Error> {
        if RUNNING.get() >= MAX_RUNNING {
            return Err(Error::Busy(MAX_RUNNING));
        }
        RUNNING.set(RUNNING.get() + 1);
        Ok(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        RUNNING.set(RUNNING.get() - 1);
    }
}

/// A generation that passed every check and may run.
pub struct Prepared {
    model: Rc<Model>,
    /// The generation, alone for the time being.
    batch: Batch,
    seed: u64,
    prompt_tokens: u32,
    view: View,
    _place: Place,
}

/// The key of a generation that has a batch to itself.
const ALONE: u64 = 0;

impl Prepared {
    /// Runs on within a budget.
    fn run(&mut self, budget: &mut Budget) {
        self.batch.run(&self.model, &mut |_| budget.more());
    }

    fn tokens(&self) -> Vec<u32> {
        let generation = self.batch.get(ALONE);
        generation.map_or(Vec::new(), |generation| generation.tokens().to_vec())
    }

    fn logprobs(&self) -> Vec<TokenLogprobs> {
        let generation = self.batch.get(ALONE);
        generation.map_or(Vec::new(), |generation| {
            answer::logprobs(generation.logprobs())
        })
    }

    fn finish(&self) -> Option<Finish> {
        self.batch.get(ALONE)?.finish().map(finish)
    }
}

fn prompt_ids(prompt: &Prompt) -> Result<Vec<u32>, Error> {
    let ids = match prompt {
        Prompt::TokenIds(ids) => ids.clone(),
        Prompt::Text(text) if text.is_empty() => return Err(Error::Limit("the prompt is empty")),
        Prompt::Text(text) => serving::tokenizer()?.encode(text)?.ids,
    };
    if ids.is_empty() {
        return Err(Error::Limit(
            "the prompt is empty, or no token of the vocabulary fits it",
        ));
    }
    Ok(ids)
}

/// Checks a request and makes it ready to run.
///
/// # Errors
/// What is wrong with it, or why the canister can't take it now.
pub async fn prepare(prompt: Prompt, options: Options, template: bool) -> Result<Prepared, Error> {
    let model = serving::model()?;
    let seed = match options.seed {
        Some(seed) => seed,
        None => random::seed().await?,
    };
    let config = model.config();
    let ids = prompt_ids(&prompt)?;
    let view = View::new(&options, &ids);
    let ids = match config.template.as_ref() {
        Some(t) if template && options.template.unwrap_or(true) => {
            [&t.prefix[..], &ids, &t.suffix].concat()
        }
        _ => ids,
    };
    let prompt_tokens = ids.len() as u32;
    let request = options::request(&options, config, ids, seed)?;
    let generation = Generation::new(&model, request)?;
    let place = Place::take()?;
    let mut batch = Batch::new(&model);
    batch.add(ALONE, generation);
    Ok(Prepared {
        model,
        batch,
        seed,
        prompt_tokens,
        view,
        _place: place,
    })
}

fn finish(finish: engine::Finish) -> Finish {
    match finish {
        engine::Finish::Stop => Finish::Stop,
        engine::Finish::Length => Finish::Length,
        engine::Finish::Context => Finish::Context,
        engine::Finish::Exhausted => Finish::Failed(EXHAUSTED.into()),
    }
}

/// Runs a generation to its end, over as many messages as it takes.
///
/// # Errors
/// [`Error::Platform`] when the canister can't call itself.
pub async fn run(mut work: Prepared) -> Result<Completion, Error> {
    let finish = loop {
        work.run(&mut Budget::whole());
        if let Some(finish) = work.finish() {
            break finish;
        }
        next_message().await?;
    };
    let part = work.view.part(&work.tokens(), &work.logprobs(), 0, true);
    Ok(Completion {
        text: part.text,
        token_ids: part.token_ids,
        logprobs: part.logprobs,
        finish,
        seed: work.seed,
        prompt_tokens: work.prompt_tokens,
        instructions: call_context_instruction_counter(),
    })
}

/// Starts a job in the background and gives its id.
///
/// # Errors
/// [`Error::Platform`] when no id can be drawn.
pub async fn submit(owner: Principal, mut work: Prepared) -> Result<Id, Error> {
    let id = random::draw().await?;
    SERIAL.set(SERIAL.get() + 1);
    let job = Job {
        owner,
        tokens: Vec::new(),
        logprobs: Vec::new(),
        view: std::mem::take(&mut work.view),
        finish: None,
        cancelled: false,
        seed: work.seed,
        prompt_tokens: work.prompt_tokens,
        instructions: 0,
        serial: SERIAL.get(),
    };
    JOBS.with_borrow_mut(|jobs| {
        jobs.insert(id, job);
        forget_oldest(jobs);
    });
    ic_cdk::futures::spawn(drive(id, work));
    Ok(id)
}

fn forget_oldest(jobs: &mut HashMap<Id, Job>) {
    let finished = |jobs: &HashMap<Id, Job>| jobs.values().filter(|j| j.finish.is_some()).count();
    while finished(jobs) > MAX_KEPT {
        let oldest = jobs
            .iter()
            .filter(|(_, job)| job.finish.is_some())
            .min_by_key(|(_, job)| job.serial)
            .map(|(id, _)| *id);
        match oldest {
            Some(id) => jobs.remove(&id),
            None => return,
        };
    }
}

/// Ends a job as failed if it is dropped before it ended, which only a trap does.
struct Unfinished(Id);

impl Drop for Unfinished {
    fn drop(&mut self) {
        end(
            &self.0,
            Finish::Failed("the job was stopped by a trap: submit it again".into()),
        );
    }
}

fn end(id: &Id, finish: Finish) {
    with_job(id, |job| {
        job.finish.get_or_insert(finish);
    });
}

fn with_job<T>(id: &Id, work: impl FnOnce(&mut Job) -> T) -> Option<T> {
    JOBS.with_borrow_mut(|jobs| jobs.get_mut(id).map(work))
}

async fn drive(id: Id, mut work: Prepared) {
    let _unfinished = Unfinished(id);
    let mut stretch = FIRST_STRETCH;
    loop {
        // The first stretch gets a message of its own too, so that `submit` answers at once.
        if let Err(error) = next_message().await {
            return end(&id, Finish::Failed(error.to_string()));
        }
        if with_job(&id, |job| job.cancelled).unwrap_or(true) {
            return end(&id, Finish::Cancelled);
        }
        work.run(&mut Budget::until(stretch));
        with_job(&id, |job| {
            job.tokens = work.tokens();
            job.logprobs = work.logprobs();
            job.instructions = call_context_instruction_counter();
        });
        if let Some(finish) = work.finish() {
            return end(&id, finish);
        }
        stretch = (2 * stretch).min(LONGEST_STRETCH);
    }
}

/// What a job has from token `from` on.
///
/// # Errors
/// [`Error::NoJob`] for an unknown id, and for another caller's unless it was submitted anonymously.
pub fn poll(caller: Principal, id: &[u8], from: u32) -> Result<Progress, Error> {
    JOBS.with_borrow(|jobs| {
        let job = Id::try_from(id)
            .ok()
            .and_then(|id| jobs.get(&id))
            .ok_or(Error::NoJob)?;
        if job.owner != caller && job.owner != Principal::anonymous() {
            return Err(Error::NoJob);
        }
        let ended = job.finish.is_some();
        let part = job
            .view
            .part(&job.tokens, &job.logprobs, from as usize, ended);
        Ok(Progress {
            token_ids: part.token_ids,
            text: part.text,
            logprobs: part.logprobs,
            finish: job.finish.clone(),
            seed: job.seed,
            prompt_tokens: job.prompt_tokens,
            instructions: job.instructions,
        })
    })
}

/// Asks a job to end before its next stretch. Ending twice is no error.
///
/// # Errors
/// [`Error::NoJob`].
pub fn cancel(caller: Principal, id: &[u8]) -> Result<(), Error> {
    let id = Id::try_from(id).map_err(|_| Error::NoJob)?;
    with_job(&id, |job| {
        if job.owner != caller {
            return Err(Error::NoJob);
        }
        job.cancelled = true;
        Ok(())
    })
    .unwrap_or(Err(Error::NoJob))
}
