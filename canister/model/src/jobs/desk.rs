//! All jobs, and the common stretch of work: who is let in, run together, and shown out.
//!
//! Jobs that run share every pass through the model, which costs each of them less. A stretch runs
//! them for as long as its message allows, and lets waiting ones in as places become free. Whoever
//! holds a message drives it (see [`super::turns`]).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use candid::Principal;
use icgpt_engine as engine;
use icgpt_engine::Model;

use super::crew::{self, Crew};
use super::job::{Ended, Hash, Id, Job, Kind};
use super::pace;
use super::queue::Queue;
use super::store;
use crate::certified;
use crate::error::Error;
use crate::figures;
use crate::quotas;
use crate::serving;
use crate::slices::Stretch;
use crate::types::Finish;

/// Generations that run at once; a pass through the model takes a row of each.
const MOST_RUNNING: usize = 32;

/// Ended jobs that stay readable, and their bytes.
const MOST_KEPT: usize = 256;
const MOST_KEPT_BYTES: usize = 8 << 20;

/// A call that waits for a job looks at it several times a minute; after so long it has gone.
const CALLER_GONE: u64 = 300_000_000_000;

/// While jobs wait, places that became free are looked for after so many passes.
const PASSES_BETWEEN_ADMISSIONS: usize = 16;

const NOT_WAITING: &str = "the call that waited for it has gone: use submit for work that is to \
    outlive its caller";
const OTHER_MODEL: &str = "another model was set up, or the model made way for it, before it ended: \
    submit it again";
const STUCK: &str = "the platform stopped every attempt to go on with it: submit it again, with a \
    shorter prompt or fewer tokens";

/// Jobs of all callers.
#[derive(Default)]
pub struct Desk {
    next: u64,
    jobs: BTreeMap<u64, Job>,
    queue: Queue,
    crew: Option<Crew>,
    ended: BTreeMap<u64, Ended>,
    /// Answers of the seed's methods, for the calls that wait for them.
    passing: BTreeMap<u64, Ended>,
}

thread_local! {
    static DESK: RefCell<Desk> = RefCell::default();
}

/// Lends the desk. What is lent must not be lent again meanwhile.
pub fn with<T>(work: impl FnOnce(&mut Desk) -> T) -> T {
    DESK.with_borrow_mut(work)
}

/// How many jobs there are.
pub struct AtOnce {
    /// Sharing the passes.
    pub running: usize,
    /// Waiting for a place.
    pub waiting: usize,
    /// Ended, and readable.
    pub kept: usize,
}

/// A running or an ended job.
pub enum Found<'a> {
    /// It has not ended.
    Running(&'a Job),
    /// It has.
    Ended(&'a Ended),
}

impl Desk {
    /// Takes a job in, which waits until the next stretch; gives its number.
    pub fn enter(&mut self, job: Job) -> u64 {
        let number = self.next;
        self.next += 1;
        if job.kind == Kind::Submitted {
            store::asked(number, &job);
        }
        self.queue.push(job.owner, number);
        self.jobs.insert(number, job);
        number
    }

    /// Whether there is a place for another job of a caller.
    ///
    /// # Errors
    /// [`Error::Busy`] when too many wait, [`Error::TooManyJobs`] when its caller has too many.
    pub fn may_enter(&self, purse: Option<Principal>) -> Result<(), Error> {
        if self.queue.len() >= quotas::current().queue as usize {
            return Err(Error::Busy(self.queue.len()));
        }
        let most = quotas::jobs_at_once(purse);
        let mine = |job: &&Job| purse.is_some() && job.charge.purse == purse;
        if self.jobs.values().filter(mine).count() >= most as usize {
            return Err(Error::TooManyJobs(most));
        }
        Ok(())
    }

    /// How many there are.
    pub fn at_once(&self) -> AtOnce {
        AtOnce {
            running: self.crew.as_ref().map_or(0, Crew::len),
            waiting: self.queue.len(),
            kept: self.ended.len(),
        }
    }

    /// Whether there is anything to do.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether every job has a call that waits for it, so that nobody watches it grow.
    pub fn all_awaited(&self) -> bool {
        self.jobs.values().all(|job| job.kind.waits())
    }

    /// The number that the next job gets; it tells whether one has come in.
    pub fn entered(&self) -> u64 {
        self.next
    }

    /// A job by its name.
    pub fn find(&self, id: &[u8]) -> Option<Found<'_>> {
        let running = self.jobs.values().find(|job| job.id == id);
        let ended = || self.ended.values().find(|job| job.id == id);
        running
            .map(Found::Running)
            .or_else(|| ended().map(Found::Ended))
    }

    /// A job that ended, for the call that waited for it. Looking shows that the call is there.
    pub fn look(&mut self, number: u64, now: u64) -> Option<Ended> {
        if let Some(job) = self.jobs.get_mut(&number) {
            job.seen = now;
            return None;
        }
        let passing = self.passing.remove(&number);
        passing.or_else(|| self.ended.get(&number).cloned())
    }

    /// Tells that the call which waited for a job has gone. The job ends with the next stretch: a
    /// trap's clean-up, which may be where this is, can't certify anything.
    pub fn leave(&mut self, number: u64) {
        self.passing.remove(&number);
        if let Some(job) = self.jobs.get_mut(&number) {
            job.ending = Some(Finish::Failed(NOT_WAITING.into()));
        }
    }

    /// Jobs that have not ended, by their numbers, and whether each runs.
    pub fn unended(&self) -> impl Iterator<Item = (&Job, bool)> {
        let running: BTreeSet<u64> = self.crew.iter().flat_map(Crew::members).collect();
        let jobs = self.jobs.iter();
        jobs.map(move |(number, job)| (job, running.contains(number)))
    }

    /// Ends a job if `may` says so of its owner.
    ///
    /// # Errors
    /// [`Error::NoJob`]. Ending twice is no error.
    pub fn cancel(&mut self, may: impl Fn(Principal) -> bool, id: &[u8]) -> Result<(), Error> {
        match self.find(id) {
            Some(Found::Running(job)) if may(job.owner) => {}
            Some(Found::Ended(job)) if may(job.owner) => return Ok(()),
            _ => return Err(Error::NoJob),
        }
        let found = self.jobs.iter().find(|(_, job)| job.id == id);
        if let Some((&number, _)) = found {
            self.end(number, Finish::Cancelled);
        }
        Ok(())
    }

    /// A session that holds as much of the wanted tokens as a kept one does.
    pub fn session(&self, model: &Model, wanted: &[u32]) -> engine::Session {
        match &self.crew {
            Some(crew) if std::ptr::eq(Rc::as_ptr(&crew.model), model) => {
                crew.sessions.look(model, wanted)
            }
            _ => engine::Session::new(model),
        }
    }

    /// Runs what there is to run for about `most` instructions.
    pub fn stretch(&mut self, most: u64, now: u64) {
        let Ok(model) = serving::model() else {
            self.dissolve();
            for number in self.jobs.keys().copied().collect::<Vec<_>>() {
                self.end(number, Finish::Failed(OTHER_MODEL.into()));
            }
            return;
        };
        self.change_model(&model, serving::model_name());
        self.end_the_gone(now);
        let mut stretch: Option<Stretch> = None;
        loop {
            self.admit();
            let Some(crew) = self.crew.as_mut().filter(|crew| !crew.is_empty()) else {
                break;
            };
            for (&number, job) in &self.jobs {
                if job.ask.until.is_some_and(|until| until <= now) {
                    crew.hurry(number);
                }
            }
            let load = crew.load(&self.jobs);
            let stretch = stretch.get_or_insert_with(|| Stretch::update(most, &load));
            stretch.reserve(load.written);
            if !self.run(stretch, load.written) {
                break;
            }
        }
        self.write_down();
    }

    /// Runs the batch until it is time to look round (true) or the stretch is over (false).
    fn run(&mut self, stretch: &mut Stretch, written: u64) -> bool {
        let Some(crew) = &mut self.crew else {
            return false;
        };
        let runners: Vec<pace::Runner> = crew
            .members()
            .filter_map(|number| {
                let job = self.jobs.get(&number)?;
                Some(pace::Runner {
                    job: number,
                    tokens: job.tokens.len().max(job.length),
                    paused: job.paused,
                })
            })
            .collect();
        let (pausing, mut passes) = pace::pauses(&runners);
        if !self.queue.is_empty() {
            passes = passes.min(PASSES_BETWEEN_ADMISSIONS);
        }
        crew.pause(&pausing);
        let ran = crew.run(stretch, passes, written);
        for number in &pausing {
            if let Some(job) = self.jobs.get_mut(number) {
                job.paused = job.paused.saturating_add(ran.passes as u32);
            }
        }
        let share = ran.spent / crew.running(&self.jobs).max(1);
        let mut over = Vec::new();
        for (number, generation) in crew.generations() {
            let Some(job) = self.jobs.get_mut(&number) else {
                continue;
            };
            job.instructions += share * job.ask.options.answers();
            crew::take_over(job, generation);
            if let Some(finish) = generation.finish() {
                over.push((number, crew::finish(finish)));
            }
        }
        for (number, finish) in over {
            self.end(number, finish);
        }
        ran.in_time
    }

    /// Lets waiting jobs in, callers in turn, while there is room. A caller with none running gets
    /// a place from who has most, if those are two or more.
    fn admit(&mut self) {
        while let Some(number) = self.queue.peek(|_| true) {
            if !self.has_place(number) {
                break;
            }
            self.start(number);
        }
        loop {
            let running = self.running_by_caller();
            let waiting = self.queue.peek(|caller| !running.contains_key(caller));
            match waiting {
                Some(number) if self.make_place(number, running) => self.start(number),
                _ => return,
            }
        }
    }

    fn has_place(&self, number: u64) -> bool {
        let (Some(crew), Some(job)) = (&self.crew, self.jobs.get(&number)) else {
            return true;
        };
        let fits = || crew.room(&self.jobs) >= crew.memory(&job.ask);
        crew.is_empty() || crew.len() < MOST_RUNNING && fits()
    }

    /// Numbers of running jobs by caller, the newest last.
    fn running_by_caller(&self) -> BTreeMap<Principal, BTreeSet<u64>> {
        let mut running: BTreeMap<Principal, BTreeSet<u64>> = BTreeMap::new();
        for number in self.crew.iter().flat_map(Crew::members) {
            if let Some(job) = self.jobs.get(&number) {
                running.entry(job.owner).or_default().insert(number);
            }
        }
        running
    }

    /// Sends jobs back into the queue until another has a place: the newest of the caller who has
    /// most. Nobody loses the last one; if that is not enough, nobody loses any.
    fn make_place(&mut self, number: u64, mut running: BTreeMap<Principal, BTreeSet<u64>>) -> bool {
        let (Some(crew), Some(job)) = (&self.crew, self.jobs.get(&number)) else {
            return false;
        };
        let needed = crew.memory(&job.ask);
        let (mut room, mut places) = (crew.room(&self.jobs), MOST_RUNNING - crew.len());
        let mut leaving = Vec::new();
        while room < needed || places == 0 {
            let most = running.iter_mut().max_by_key(|(_, jobs)| jobs.len());
            let Some((&owner, jobs)) = most.filter(|(_, jobs)| jobs.len() > 1) else {
                return false;
            };
            let Some(newest) = jobs.pop_last() else {
                return false;
            };
            room += self
                .jobs
                .get(&newest)
                .map_or(0, |job| crew.memory(&job.ask));
            places += 1;
            leaving.push((owner, newest));
        }
        for (owner, job) in leaving {
            if let Some(crew) = &mut self.crew {
                crew.dismiss(job);
            }
            self.queue.push_front(owner, job);
        }
        true
    }

    /// Lets a waiting job in.
    fn start(&mut self, number: u64) {
        let (Some(crew), Some(job)) = (&mut self.crew, self.jobs.get_mut(&number)) else {
            return;
        };
        self.queue.remove(job.owner, number);
        if let Err(error) = crew.hire(number, job) {
            self.end(number, Finish::Failed(error.to_string()));
        }
    }

    /// Shows a job out.
    fn end(&mut self, number: u64, finish: Finish) {
        if let Some(crew) = &mut self.crew {
            crew.dismiss(number);
        }
        let Some(job) = self.jobs.remove(&number) else {
            return;
        };
        self.queue.remove(job.owner, number);
        quotas::give_back(&job.charge, job.computed());
        let (prompt, begun) = (job.ask.prompt.len() as u64, job.ask.begun().len() as u64);
        let written = job.computed().saturating_sub(prompt + begun);
        figures::ended(&finish, prompt, written, job.instructions);
        let (id, kind, gone) = (job.id, job.kind, job.ending.is_some());
        let ended = job.ended(finish);
        if kind.stays() {
            store::ended(number, &ended);
            let hash = ended.hash();
            self.ended.insert(number, ended);
            certified::add_job(id, hash, &self.forget());
        } else if !gone {
            self.passing.insert(number, ended);
        }
    }

    /// Forgets the oldest of those that ended, until the others are few enough.
    fn forget(&mut self) -> Vec<Id> {
        let mut gone = Vec::new();
        let mut bytes: usize = self.ended.values().map(Ended::bytes).sum();
        while self.ended.len() > 1 && (self.ended.len() > MOST_KEPT || bytes > MOST_KEPT_BYTES) {
            let Some((number, job)) = self.ended.pop_first() else {
                break;
            };
            bytes -= job.bytes();
            store::drop_ended(number);
            gone.extend(Id::try_from(job.id.as_slice()));
        }
        gone
    }

    /// Ends what nobody waits for any more.
    fn end_the_gone(&mut self, now: u64) {
        let silent = |job: &Job| job.kind.waits() && now > job.seen.saturating_add(CALLER_GONE);
        let gone = self.jobs.iter_mut().filter_map(|(&number, job)| {
            if silent(job) {
                job.ending = Some(Finish::Failed(NOT_WAITING.into()));
            }
            Some((number, job.ending.clone()?))
        });
        for (number, finish) in gone.collect::<Vec<_>>() {
            self.end(number, finish);
        }
        self.passing
            .retain(|&number, _| number + MOST_KEPT as u64 >= self.next);
    }

    /// Takes note of the model that answers. Jobs that were asked of another one end.
    fn change_model(&mut self, model: &Rc<Model>, name: Hash) {
        if let Some(crew) = &self.crew
            && Rc::ptr_eq(&crew.model, model)
        {
            return;
        }
        self.dissolve();
        self.crew = Some(Crew::new(model.clone()));
        let of_another = |job: &Job| job.ask.model.as_slice() != name;
        let jobs = self.jobs.iter().filter(|(_, job)| of_another(job));
        for number in jobs.map(|(&number, _)| number).collect::<Vec<_>>() {
            self.end(number, Finish::Failed(OTHER_MODEL.into()));
        }
    }

    /// Sends all running jobs back into the queue, and forgets what was computed for them.
    pub fn dissolve(&mut self) {
        let Some(crew) = self.crew.take() else {
            return;
        };
        for number in crew.members().collect::<Vec<_>>().into_iter().rev() {
            if let Some(job) = self.jobs.get(&number) {
                self.queue.push_front(job.owner, number);
            }
        }
    }

    /// Ends the jobs that the platform has stopped each of many attempts to go on with. A trap takes
    /// back who was let in, too: so they are those that would be let in now.
    pub fn give_up(&mut self) {
        self.dissolve();
        let Ok(model) = serving::model() else {
            return;
        };
        let mut room = crew::room(&model);
        for place in 0..MOST_RUNNING {
            let next = self.queue.peek(|_| true);
            let Some((number, job)) = next.and_then(|n| Some((n, self.jobs.get(&n)?))) else {
                return;
            };
            let needed = crew::memory(&model, &job.ask);
            if place > 0 && needed > room {
                return;
            }
            room = room.saturating_sub(needed);
            self.end(number, Finish::Failed(STUCK.into()));
        }
    }

    /// Writes down how far submitted jobs have come.
    fn write_down(&mut self) {
        let Some(crew) = &self.crew else {
            return;
        };
        for number in crew.members() {
            if let Some(job) = self.jobs.get_mut(&number)
                && job.kind == Kind::Submitted
            {
                store::answered(number, job);
                job.noted = job.logprobs.len();
            }
        }
    }

    /// Takes up what an upgrade left in stable memory.
    pub fn restore(&mut self, found: store::Found) {
        let damaged: Vec<u64> = found.damaged;
        for number in damaged {
            store::drop_running(number);
            store::drop_ended(number);
        }
        self.next = found.next;
        self.ended = found.ended;
        for (number, job) in found.running {
            self.queue.push(job.owner, number);
            self.jobs.insert(number, job);
        }
        let ended = self.ended.values();
        let hashes =
            ended.filter_map(|job| Some((Id::try_from(job.id.as_slice()).ok()?, job.hash())));
        certified::set(serving::model_name(), hashes);
    }
}
