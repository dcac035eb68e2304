//! The jobs that run: their batch, the sessions kept for others, and the memory that all take.

use std::collections::BTreeMap;
use std::rc::Rc;

use icgpt_engine::{self as engine, Batch, Generation, Model};

use super::job::{Answer, Ask, Job, Told};
use super::sessions::Sessions;
use crate::answer;
use crate::error::Error;
use crate::options;
use crate::reckoning::{self, Load};
use crate::slices::Stretch;
use crate::types::Finish;

/// Bytes of keys and values of running jobs, for a model that takes none itself; half of what the
/// weights take is taken off. With the weights and kept sessions that leaves the heap, which the
/// platform may hold to 3 GiB, some room to set up another model.
const ROOM: u64 = 7 << 28;
const LEAST_ROOM: u64 = 1 << 28;

/// Bytes of kept sessions.
const KEPT: u64 = 1 << 28;

/// What a caller reads when no token was left to choose.
const EXHAUSTED: &str = "no token is left to choose from: the n-gram bans and min_new_tokens \
    forbid all of them, or the model's numbers are broken";

/// The running jobs of one model.
pub struct Crew {
    /// The model.
    pub model: Rc<Model>,
    /// Sessions of ended jobs.
    pub sessions: Sessions,
    batch: Batch,
    paused: BTreeMap<u64, Generation>,
    /// The dearest row so far.
    row: u64,
}

/// What a run of the batch came to.
pub struct Ran {
    /// Passes made.
    pub passes: usize,
    /// Instructions.
    pub spent: u64,
    /// Whether the stretch may go on.
    pub in_time: bool,
}

/// The engine's reason as the interface has it.
pub fn finish(finish: engine::Finish) -> Finish {
    match finish {
        engine::Finish::Stop => Finish::Stop,
        engine::Finish::Length => Finish::Length,
        engine::Finish::Context => Finish::Context,
        engine::Finish::Exhausted => Finish::Failed(EXHAUSTED.into()),
    }
}

/// Copies what a generation has found into its job. It gives log-probabilities of the tokens that it
/// chose itself, which may be fewer than the job has.
pub fn take_over(job: &mut Job, generation: &Generation) {
    let known = job.tokens.len().min(generation.tokens().len());
    let found = &generation.tokens()[known..];
    job.tokens.extend_from_slice(found);
    let logprobs = generation.logprobs();
    let known = logprobs.len().saturating_sub(found.len());
    job.logprobs.extend(answer::logprobs(&logprobs[known..]));
    job.length = generation.length();
    if job.ask.options.is_several() {
        job.standing = generation.standing();
        job.answers = generation.finish().map(|_| answers(generation));
    }
}

/// All answers of a generation that has ended.
pub fn answers(generation: &Generation) -> Vec<Answer> {
    let all = generation.sequences().iter();
    let one = |sequence: &engine::Sequence| Answer {
        told: Told {
            token_ids: sequence.tokens.clone(),
            finish: sequence.finish.map_or(Finish::Cancelled, finish),
            score: sequence.score,
        },
        logprobs: answer::logprobs(&sequence.logprobs),
    };
    all.map(one).collect()
}

/// Bytes of keys and values that an answer takes when it is as long as it may be.
pub fn memory(model: &Model, ask: &Ask) -> u64 {
    ask.options.memory(model, ask.prompt.len())
}

/// Bytes that all running jobs of a model may take.
pub fn room(model: &Model) -> u64 {
    ROOM.saturating_sub(model.memory() / 2).max(LEAST_ROOM)
}

impl Crew {
    /// Nobody yet.
    pub fn new(model: Rc<Model>) -> Self {
        Self {
            batch: Batch::new(&model),
            model,
            sessions: Sessions::default(),
            paused: BTreeMap::new(),
            row: 0,
        }
    }

    /// Jobs in it, pausing ones included.
    pub fn len(&self) -> usize {
        self.batch.len() + self.paused.len()
    }

    /// Answers under way of the jobs that did not pause in the last run.
    pub fn running(&self, jobs: &BTreeMap<u64, Job>) -> u64 {
        let running = self.batch.keys().filter_map(|number| jobs.get(&number));
        running.map(|job| job.ask.options.answers()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The jobs' numbers.
    pub fn members(&self) -> impl Iterator<Item = u64> {
        self.batch.keys().chain(self.paused.keys().copied())
    }

    /// The generations that ran.
    pub fn generations(&self) -> impl Iterator<Item = (u64, &Generation)> {
        let one = |number| Some((number, self.batch.get(number)?));
        self.batch.keys().filter_map(one)
    }

    /// Bytes that an answer may take.
    pub fn memory(&self, ask: &Ask) -> u64 {
        memory(&self.model, ask)
    }

    fn taken(&self, jobs: &BTreeMap<u64, Job>) -> u64 {
        let members = self.members().filter_map(|number| jobs.get(&number));
        members.map(|job| self.memory(&job.ask)).sum()
    }

    /// Bytes that are left for further jobs.
    pub fn room(&self, jobs: &BTreeMap<u64, Job>) -> u64 {
        room(&self.model).saturating_sub(self.taken(jobs))
    }

    /// What a stretch must know.
    pub fn load(&self, jobs: &BTreeMap<u64, Job>) -> Load {
        Load::of(&self.model, self.taken(jobs), self.row)
    }

    /// Takes a job in: from where it stands, with what a kept session already has of it.
    ///
    /// # Errors
    /// The request can't be run after all, for example because the tokenizer has changed.
    pub fn hire(&mut self, number: u64, job: &Job) -> Result<(), Error> {
        let Ask {
            prompt,
            options,
            seed,
            ..
        } = &job.ask;
        let model = &self.model;
        let request = options::request(options, model.config(), prompt.clone(), *seed)?;
        let generation = if options.is_several() {
            let session = self.sessions.take(model, prompt);
            Generation::restore(model, request, session, &job.standing)?
        } else {
            let begun = [&prompt[..], &job.tokens].concat();
            let session = self.sessions.take(model, &begun);
            Generation::resume(model, request, session, &job.tokens)?
        };
        self.batch.add(number, generation);
        Ok(())
    }

    /// Lets a job go; what was computed for it is kept for whoever goes on from there.
    pub fn dismiss(&mut self, number: u64) {
        let generation = self.batch.remove(number);
        if let Some(generation) = generation.or_else(|| self.paused.remove(&number)) {
            self.sessions.keep(generation.into_session(), KEPT);
        }
    }

    /// Lets the next token of a job's answers be their last.
    pub fn hurry(&mut self, number: u64) {
        let running = self.batch.get_mut(number);
        if let Some(generation) = running.or_else(|| self.paused.get_mut(&number)) {
            generation.hurry();
        }
    }

    /// Lets exactly these jobs pause.
    pub fn pause(&mut self, pausing: &[u64]) {
        let back: Vec<u64> = self.paused.keys().copied().collect();
        for number in back.into_iter().filter(|number| !pausing.contains(number)) {
            if let Some(generation) = self.paused.remove(&number) {
                self.batch.add(number, generation);
            }
        }
        for &number in pausing {
            if let Some(generation) = self.batch.remove(number) {
                self.paused.insert(number, generation);
            }
        }
    }

    /// Runs those that don't pause: for so many passes at most, and no longer than the stretch.
    /// `written` is what all jobs may write.
    pub fn run(&mut self, stretch: &mut Stretch, most: usize, written: u64) -> Ran {
        let (mut passes, mut in_time) = (0, true);
        self.batch.limit_rows(reckoning::rows(&self.model, written));
        let over = self.batch.run(&self.model, &mut |step| {
            // A pass over weights that are read layer by layer is not cut: it would be begun anew.
            if step.bytes == 0 && passes >= most {
                return false;
            }
            in_time = stretch.more(step);
            passes += usize::from(in_time);
            in_time
        });
        let (spent, row) = stretch.end();
        self.row = row;
        Ran {
            passes,
            spent,
            in_time: in_time && (over || passes > 0),
        }
    }
}
