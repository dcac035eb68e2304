//! Answers in the making: what is to be run through the model next, and what follows from it.
//!
//! A [`Batch`](crate::Batch) runs it. The prompt is run once, however many answers go on from it; these
//! share its keys and values, and each block of 64 positions until they differ in it.

use crate::beams::{Beams, Line};
use crate::model::Model;
use crate::request::{Finish, Request, RequestError, Sequence, check_ids};
use crate::sampling::{Buffers, Choice, Sampler, TokenLogprobs};
use crate::search::SearchError;
use crate::session::{Session, Shape};
use crate::simd::F32x4;
use crate::stop::Watch;
use crate::strand::{self, Strand};

/// An answer that is written token by token.
struct Writer {
    sampler: Sampler,
    watch: Option<Watch>,
}

/// How tokens are found.
enum Writing {
    /// Each answer by itself.
    Each(Vec<Writer>),
    /// By weighing answers against each other.
    Search(Beams),
}

/// An answer in the making, or several. It must be run with the model that it was made for.
pub struct Generation {
    request: Request,
    n_ctx: usize,
    writing: Writing,
    /// What is run. The first alone until all of the prompt is, then one for each answer under way.
    strands: Vec<Strand>,
    /// What the first strand is to part into when it has run what these have in common, if it is
    /// not to choose a token there.
    branches: Vec<Vec<u32>>,
    sequences: Vec<Sequence>,
    /// The next token of each answer is to be its last.
    hurried: bool,
}

impl Generation {
    /// Checks the request. With [`Context::Slide`] a prompt longer than the context is cropped to
    /// its end.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn new(model: &Model, request: Request) -> Result<Generation, RequestError> {
        Self::with_session(model, request, Session::new(model))
    }

    /// The same, with a session that was used before: as far as the prompt starts with the tokens
    /// that it holds, the prompt need not be run again. The answer is the same.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn with_session(
        model: &Model,
        request: Request,
        session: Session,
    ) -> Result<Generation, RequestError> {
        Self::resume(model, request, session, &[])
    }

    /// The same, with the answer's first tokens found earlier: it goes on behind them as if it had
    /// never been interrupted. Log-probabilities are given for the tokens after them only.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn resume(
        model: &Model,
        request: Request,
        session: Session,
        tokens: &[u32],
    ) -> Result<Generation, RequestError> {
        if tokens.is_empty() {
            return Self::restore(model, request, session, &[]);
        }
        if !request.is_plain() {
            return Err(SearchError::Begun.into());
        }
        let line = Line {
            tokens: tokens.to_vec(),
            score: 0.0,
            finish: None,
        };
        Self::restore(model, request, session, &[vec![line]])
    }

    /// The same, from where [`standing`](Self::standing) said that a generation stood.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn restore(
        model: &Model,
        request: Request,
        session: Session,
        standing: &[Vec<Line>],
    ) -> Result<Generation, RequestError> {
        let config = model.config();
        request.validate(config)?;
        for line in standing.iter().flatten() {
            check_ids(config, &line.tokens)?;
        }
        let session = if session.fits(model) {
            session
        } else {
            Session::new(model)
        };
        let n_ctx = config.n_ctx;
        let writing = if request.search.is_wanted() {
            Writing::Search(Beams::resume(&request, request.longest(n_ctx), standing))
        } else {
            let writers = (0..request.sequences as u64).map(|index| Writer {
                sampler: request.sampler(index),
                watch: request.stop_strings.clone().map(Watch::new),
            });
            Writing::Each(writers.collect())
        };
        let mut generation = Generation {
            n_ctx,
            writing,
            strands: Vec::new(),
            branches: Vec::new(),
            sequences: Vec::new(),
            hurried: false,
            request,
        };
        let windows = generation.take_up(standing);
        generation.grow_from(session, windows);
        Ok(generation)
    }

    /// Notes what there is already, and gives what each strand is to hold.
    fn take_up(&mut self, standing: &[Vec<Line>]) -> Vec<Vec<u32>> {
        let first = strand::first_window(&self.request.prompt, self.n_ctx);
        if let Writing::Search(beams) = &self.writing {
            let window = |tokens: &[u32]| {
                let mut window = first.clone();
                for end in 1..=tokens.len() {
                    let prompt = &self.request.prompt;
                    strand::grow(&mut window, prompt, &tokens[..end], self.n_ctx);
                }
                window
            };
            let windows = if beams.length() == 0 {
                vec![first]
            } else {
                beams.running().map(window).collect()
            };
            self.end_search();
            return windows;
        }
        self.sequences = vec![Sequence::default(); self.request.sequences];
        let mut windows = vec![first; self.request.sequences];
        for (index, line) in standing.iter().flatten().enumerate().take(windows.len()) {
            for &token in &line.tokens {
                if self.sequences[index].finish.is_none() && self.take(index, token) {
                    let (prompt, n_ctx) = (&self.request.prompt, self.n_ctx);
                    let tokens = &self.sequences[index].tokens;
                    strand::grow(&mut windows[index], prompt, tokens, n_ctx);
                }
            }
        }
        windows
    }

    /// Runs these windows from now on, and what they have in common only once.
    fn grow_from(&mut self, session: Session, windows: Vec<Vec<u32>>) {
        let under_way = |at: &usize| {
            self.sequences
                .get(*at)
                .is_none_or(|one| one.finish.is_none())
        };
        let goes_on: Vec<&[u32]> = (0..windows.len())
            .filter(under_way)
            .map(|at| windows[at].as_slice())
            .collect();
        let equal = goes_on.windows(2).all(|pair| pair[0] == pair[1]);
        let choose_there = windows.len() == 1 || matches!(self.writing, Writing::Each(_));
        let window = match goes_on.first() {
            // The strands part when they have chosen.
            Some(first) if equal && goes_on.len() == windows.len() && choose_there => {
                first.to_vec()
            }
            _ => {
                let trunk = strand::trunk(&goes_on);
                self.branches = windows;
                trunk
            }
        };
        let parts = window.is_empty();
        self.strands = vec![Strand::new(session, window)];
        if parts {
            self.part();
        }
    }

    /// Lets the first strand part into the branches.
    fn part(&mut self) {
        let branches = std::mem::take(&mut self.branches);
        if branches.is_empty() {
            return;
        }
        let trunk = &self.strands[0].session;
        let strands = branches.into_iter();
        self.strands = strands
            .map(|window| Strand::new(trunk.fork(trunk.len()), window))
            .collect();
    }

    /// How many strands there are to be run.
    pub(crate) fn strands(&self) -> usize {
        self.strands.len()
    }

    /// Tokens of a strand that are to be run next; none when its answer is finished.
    pub(crate) fn pending(&self, strand: usize) -> &[u32] {
        let over = match &self.writing {
            Writing::Each(_) if self.strands.len() == self.sequences.len() => {
                self.sequences[strand].finish.is_some()
            }
            _ => self.finish().is_some(),
        };
        if over {
            &[]
        } else {
            self.strands[strand].pending()
        }
    }

    /// The first `rows` of a strand's tokens to be run.
    pub(crate) fn next(&self, strand: usize, rows: usize) -> &[u32] {
        &self.pending(strand)[..rows]
    }

    /// Of how many of the next `rows` tokens logits are wanted.
    pub(crate) fn wanted(&self, strand: usize, rows: usize) -> usize {
        usize::from(rows == self.pending(strand).len())
    }

    pub(crate) fn held(&self, strand: usize) -> &Session {
        &self.strands[strand].session
    }

    pub(crate) fn sessions(&mut self) -> impl Iterator<Item = &mut Session> {
        self.strands.iter_mut().map(|strand| &mut strand.session)
    }

    pub(crate) fn shape(&self) -> Shape {
        self.strands[0].session.shape
    }

    /// Ends the answer where it is.
    pub(crate) fn end(&mut self, finish: Finish) {
        if self.sequences.is_empty() {
            self.sequences.push(Sequence::default());
        }
        for sequence in &mut self.sequences {
            sequence.finish.get_or_insert(finish);
        }
    }

    /// Lets the next token of each answer be its last: its time is over. They end with
    /// [`Finish::Length`].
    pub fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Takes note that the next `rows` tokens of a strand were run. With the logits of the last one
    /// the next token is chosen, in a search when there are those of all strands. Other strands may
    /// be there then.
    pub(crate) fn ran(
        &mut self,
        strand: usize,
        rows: usize,
        logits: Option<&mut Vec<F32x4>>,
        buffers: &mut Buffers,
    ) {
        if !self.strands[strand].ran(rows, logits) {
            return;
        }
        if !self.branches.is_empty() {
            self.part();
            return;
        }
        match &self.writing {
            Writing::Each(writers) if self.strands.len() < writers.len() => {
                self.choose_all(buffers);
            }
            Writing::Each(_) => self.choose(strand, buffers),
            Writing::Search(_) => {
                if self
                    .strands
                    .iter()
                    .all(|strand| strand.pending().is_empty())
                {
                    self.step(buffers);
                }
            }
        }
    }

    /// Adds the next token to an answer.
    fn choose(&mut self, index: usize, buffers: &mut Buffers) {
        let Writing::Each(writers) = &self.writing else {
            return;
        };
        let logits = self.strands[index].session.logits();
        let choice = writers[index].sampler.choose(logits, buffers);
        self.write(index, choice);
    }

    /// Chooses the first token of every answer by the same logits.
    fn choose_all(&mut self, buffers: &mut Buffers) {
        let Writing::Each(writers) = &self.writing else {
            return;
        };
        let logits = self.strands[0].session.logits();
        let choices = writers
            .iter()
            .map(|writer| writer.sampler.choose(logits, buffers));
        let choices: Vec<Option<Choice>> = choices.collect();
        for _ in 1..choices.len() {
            self.strands.push(self.strands[0].fork());
        }
        for (index, choice) in choices.into_iter().enumerate() {
            self.write(index, choice);
        }
    }

    fn write(&mut self, index: usize, choice: Option<Choice>) {
        let Some(choice) = choice else {
            self.sequences[index].finish = Some(Finish::Exhausted);
            return;
        };
        self.sequences[index].logprobs.extend(choice.logprobs);
        if self.take(index, choice.token) {
            let tokens = &self.sequences[index].tokens;
            self.strands[index].push(&self.request.prompt, tokens, self.n_ctx);
        }
    }

    /// Adds a token to an answer. Says whether there is one to come after it.
    fn take(&mut self, index: usize, token: u32) -> bool {
        let ending = self.last(self.sequences[index].tokens.len());
        let (Writing::Each(writers), sequence) = (&mut self.writing, &mut self.sequences[index])
        else {
            return false;
        };
        sequence.tokens.push(token);
        let writer = &mut writers[index];
        writer.sampler.push(token);
        let stopped = writer.watch.as_mut().is_some_and(|watch| watch.push(token));
        sequence.finish = if stopped || self.request.stop.contains(&token) {
            Some(Finish::Stop)
        } else {
            ending
        };
        sequence.finish.is_none()
    }

    /// Why the token behind so many would be an answer's last, if it would.
    fn last(&self, so_far: usize) -> Option<Finish> {
        if self.hurried || so_far + 1 >= self.request.max_new_tokens {
            Some(Finish::Length)
        } else if so_far + 1 >= self.request.longest(self.n_ctx) {
            Some(Finish::Context)
        } else {
            None
        }
    }

    /// Takes a search a token further.
    fn step(&mut self, buffers: &mut Buffers) {
        let last = match &self.writing {
            Writing::Search(beams) => self.last(beams.length()),
            Writing::Each(_) => return,
        };
        let Writing::Search(beams) = &mut self.writing else {
            return;
        };
        let strands = self.strands.iter();
        let logits: Vec<&[f32]> = strands.map(|strand| strand.session.logits()).collect();
        let parents = beams.step(&logits, last, buffers);
        if beams.is_over() {
            self.end_search();
            return;
        }
        let mut uses = vec![0; self.strands.len()];
        for &(parent, _) in &parents {
            uses[parent] += 1;
        }
        let mut old: Vec<Option<Strand>> = self.strands.drain(..).map(Some).collect();
        for (parent, _) in &parents {
            uses[*parent] -= 1;
            // The last to go on from a strand takes it, so that nothing of it has to be copied.
            let strand = if uses[*parent] == 0 {
                old[*parent].take()
            } else {
                old[*parent].as_ref().map(Strand::fork)
            };
            self.strands.extend(strand);
        }
        let mut slid = false;
        for (strand, tokens) in self.strands.iter_mut().zip(beams.running()) {
            slid |= strand.push(&self.request.prompt, tokens, self.n_ctx);
        }
        if slid {
            let windows = self.strands.iter().map(|strand| strand.window().to_vec());
            let windows = windows.collect();
            let session = self.strands.swap_remove(0).session;
            self.grow_from(session, windows);
        }
    }

    /// Takes over what a search has found, if it is over.
    fn end_search(&mut self) {
        if let Writing::Search(beams) = &self.writing
            && beams.is_over()
        {
            self.sequences = beams.best(self.request.sequences);
        }
    }

    /// Where it stands, for [`restore`](Self::restore): groups of a search, or one group of all
    /// answers.
    #[must_use]
    pub fn standing(&self) -> Vec<Vec<Line>> {
        if let Writing::Search(beams) = &self.writing {
            return beams.standing();
        }
        let lines = self.sequences.iter().map(|sequence| Line {
            tokens: sequence.tokens.clone(),
            score: 0.0,
            finish: sequence.finish,
        });
        vec![lines.collect()]
    }

    /// Why the first answer ended; none while there is more to come of any.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        let all = self.sequences.iter().all(|one| one.finish.is_some());
        self.sequences.first().filter(|_| all)?.finish
    }

    /// The session of the first answer, for another generation to go on with.
    #[must_use]
    pub fn into_session(mut self) -> Session {
        self.strands.swap_remove(0).session
    }

    /// The answers: each as it grows, those of a search when it is over.
    #[must_use]
    pub fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    /// Tokens that each answer under way has, or the longest has.
    #[must_use]
    pub fn length(&self) -> usize {
        match &self.writing {
            Writing::Search(beams) => beams.length(),
            Writing::Each(_) => {
                let lengths = self.sequences.iter().map(|one| one.tokens.len());
                lengths.max().unwrap_or(0)
            }
        }
    }

    /// The new tokens of the first answer so far, the prompt not among them.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        self.sequences.first().map_or(&[], |one| &one.tokens)
    }

    /// The log-probabilities at each of them, if they were asked for; else empty.
    #[must_use]
    pub fn logprobs(&self) -> &[TokenLogprobs] {
        self.sequences.first().map_or(&[], |one| &one.logprobs)
    }

    /// The logits that the last token was chosen by.
    #[must_use]
    pub fn logits(&self) -> &[f32] {
        self.strands[0].session.logits()
    }
}
