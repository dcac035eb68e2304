//! Beam search: the answers under way, those that have ended, and which to go on with.
//!
//! What it finds is what Hugging Face transformers finds: with one group as its `_beam_search` does,
//! with several as its `BeamSearchScorer`, which differs where tokens run out. The model is not known
//! here: a step takes the logits of all that is under way, and gives what each new beam goes on from.

use std::cmp::Ordering;

use crate::request::{Finish, Request, Sequence};
use crate::sampling::{Buffers, Drawn, Sampler};
use crate::search::{EarlyStopping, Search};
use crate::stop::Watch;

/// A line of tokens that a search has, for another to go on from.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// The sum of its logarithms; where it has ended, with the length penalty.
    pub score: f64,
    /// Why it ended; none while it is under way.
    pub finish: Option<Finish>,
}

/// An answer under way.
struct Beam {
    /// Which logits it goes on from.
    strand: usize,
    /// The sum of the logarithms of what it chose.
    score: f32,
    tokens: Vec<u32>,
    sampler: Sampler,
    watch: Option<Watch>,
}

/// What a beam could go on with.
struct Candidate {
    beam: usize,
    token: u32,
    score: f32,
}

/// A part of the beams, which knows of the others only what to avoid.
struct Group {
    /// None when it has found enough.
    running: Vec<Beam>,
    /// What has ended, the best as many as it has beams.
    ended: Vec<Line>,
}

/// What all groups go by.
struct Rules {
    search: Search,
    /// Beams of a group.
    size: usize,
    /// Ids that end an answer.
    ends: Vec<u32>,
    /// New tokens that there can be at most.
    longest: usize,
}

/// The outcome of a step: for each new beam the strand that it goes on from, and its token.
pub type Parents = Vec<(usize, u32)>;

/// A search.
pub struct Beams {
    rules: Rules,
    groups: Vec<Group>,
    /// Tokens that each beam has.
    length: usize,
    drawn: bool,
    /// What there was when no token was left to choose.
    stuck: Vec<u32>,
    over: bool,
}

impl Beams {
    /// The beginning of a search, with nothing chosen; `longest` is the longest answer.
    pub fn new(request: &Request, longest: usize) -> Beams {
        let mut beams = Beams::empty(request, longest);
        for group in &mut beams.groups {
            // The others would find the same.
            group.running.push(Beam::new(request, 0, 0.0, &[]));
        }
        beams
    }

    /// A search that goes on from where another one stood; without any tokens it begins.
    pub fn resume(request: &Request, longest: usize, standing: &[Vec<Line>]) -> Beams {
        let mut beams = Beams::empty(request, longest);
        let begins = standing.iter().flatten().all(|line| line.tokens.is_empty());
        if begins || standing.len() != beams.groups.len() {
            return Beams::new(request, longest);
        }
        let mut strand = 0;
        for (group, lines) in beams.groups.iter_mut().zip(standing) {
            for line in lines {
                if line.finish.is_some() {
                    group.ended.push(line.clone());
                } else {
                    let beam = Beam::new(request, strand, line.score as f32, &line.tokens);
                    beams.length = line.tokens.len();
                    group.running.push(beam);
                    strand += 1;
                }
            }
        }
        beams.over = strand == 0;
        beams
    }

    fn empty(request: &Request, longest: usize) -> Beams {
        let search = request.search;
        let size = search.num_beams / search.num_beam_groups.max(1);
        let groups = (0..search.num_beam_groups).map(|_| Group {
            running: Vec::new(),
            ended: Vec::new(),
        });
        Beams {
            groups: groups.collect(),
            rules: Rules {
                search,
                size,
                ends: request.stop.clone(),
                longest,
            },
            length: 0,
            drawn: request.sampling.temperature > 0.0,
            stuck: Vec::new(),
            over: false,
        }
    }

    /// Tokens that each beam has.
    pub fn length(&self) -> usize {
        self.length
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The tokens of those under way, in the order of their strands.
    pub fn running(&self) -> impl Iterator<Item = &[u32]> {
        let running = self.groups.iter().flat_map(|group| &group.running);
        running.map(|beam| beam.tokens.as_slice())
    }

    /// Where it stands, group by group.
    pub fn standing(&self) -> Vec<Vec<Line>> {
        let one = |group: &Group| {
            let running = group.running.iter().map(|beam| Line {
                tokens: beam.tokens.clone(),
                score: f64::from(beam.score),
                finish: None,
            });
            running.chain(group.ended.iter().cloned()).collect()
        };
        self.groups.iter().map(one).collect()
    }

    /// Chooses the next token of every beam; `logits` are those of each strand. With `last` nothing
    /// goes on behind it, for that reason.
    pub fn step(
        &mut self,
        logits: &[&[f32]],
        last: Option<Finish>,
        buffers: &mut Buffers,
    ) -> Parents {
        let Self { rules, groups, .. } = self;
        self.length += 1;
        let mut parents = Parents::new();
        let mut chosen: Vec<u32> = Vec::new();
        for group in groups.iter_mut() {
            if group.running.is_empty() {
                // A group that is done counts as if it went on with end tokens.
                let end = rules.ends.first().copied();
                chosen.extend(end.iter().cycle().take(rules.size));
                continue;
            }
            let candidates = if self.drawn {
                group.draw(rules, self.length, logits, buffers)
            } else {
                group.rank(rules, &chosen, logits, buffers)
            };
            let going_on = group.sort_out(rules, &candidates, self.length, last);
            chosen.extend(going_on.tokens);
            if !going_on.done {
                let first = parents.len();
                for (at, beam) in group.running.iter_mut().enumerate() {
                    let token = beam.tokens.last().copied().unwrap_or_default();
                    parents.push((beam.strand, token));
                    beam.strand = first + at;
                }
            } else if group.ended.is_empty() {
                let running = group.running.first();
                self.stuck = running.map_or(Vec::new(), |beam| beam.tokens.clone());
            }
            if going_on.done {
                group.running.clear();
            }
        }
        self.over = parents.is_empty();
        parents
    }

    /// The best answers, the best first; what there are too few of has failed.
    pub fn best(&self, count: usize) -> Vec<Sequence> {
        let all = self.groups.iter().flat_map(|group| &group.ended);
        let mut all: Vec<&Line> = all.collect();
        all.sort_by(|a, b| a.score.total_cmp(&b.score));
        let best = all.into_iter().rev().take(count);
        let mut best: Vec<Sequence> = best
            .map(|line| Sequence {
                tokens: line.tokens.clone(),
                logprobs: Vec::new(),
                finish: line.finish,
                score: Some(line.score as f32),
            })
            .collect();
        while best.len() < count {
            let first = best.is_empty();
            best.push(Sequence {
                tokens: if first {
                    self.stuck.clone()
                } else {
                    Vec::new()
                },
                finish: Some(Finish::Exhausted),
                ..Sequence::default()
            });
        }
        best
    }
}

impl Beam {
    fn new(request: &Request, strand: usize, score: f32, tokens: &[u32]) -> Beam {
        let mut beam = Beam {
            strand,
            score,
            tokens: tokens.to_vec(),
            sampler: request.sampler(0),
            watch: request.stop_strings.clone().map(Watch::new),
        };
        for &token in tokens {
            beam.sampler.push(token);
            if let Some(watch) = &mut beam.watch {
                watch.push(token);
            }
        }
        beam
    }

    /// Whether a stop string ends it with this token.
    fn stops(&self, token: u32) -> bool {
        let watch = self.watch.clone();
        watch.is_some_and(|mut watch| watch.push(token))
    }

    /// The beam with a further token.
    fn with(&self, token: u32, score: f32) -> Beam {
        let mut beam = Beam {
            strand: self.strand,
            score,
            tokens: [&self.tokens[..], &[token]].concat(),
            sampler: self.sampler.clone(),
            watch: self.watch.clone(),
        };
        beam.sampler.push(token);
        if let Some(watch) = &mut beam.watch {
            watch.push(token);
        }
        beam
    }
}

/// What a group goes on with.
struct GoingOn {
    tokens: Vec<u32>,
    done: bool,
}

/// The better one first; of equal ones the one that comes first.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    b.score.total_cmp(&a.score)
}

impl Group {
    /// The best ways to go on, the best first: so many that, whatever ends, enough are left.
    fn rank(
        &self,
        rules: &Rules,
        chosen: &[u32],
        logits: &[&[f32]],
        buffers: &mut Buffers,
    ) -> Vec<Candidate> {
        let count = rules.candidates();
        let less = rules.less(chosen);
        let mut all = Vec::new();
        for (index, beam) in self.running.iter().enumerate() {
            let logits = logits[beam.strand];
            let found = beam.sampler.ranked(logits, &less, count, buffers);
            all.extend(found.into_iter().map(|(token, logarithm)| Candidate {
                beam: index,
                token,
                score: logarithm + beam.score,
            }));
        }
        all.sort_by(order);
        all.truncate(count);
        all
    }

    /// As many ways to go on, drawn one after the other, none twice. A beam's draws among its own
    /// tokens are made first; which beam is next depends on what each has left.
    fn draw(
        &self,
        rules: &Rules,
        place: usize,
        logits: &[&[f32]],
        buffers: &mut Buffers,
    ) -> Vec<Candidate> {
        let count = rules.candidates();
        let keep = rules.ends.len() + 1;
        let drawn = self.running.iter().enumerate().map(|(index, beam)| {
            let places = (place as u64, index as u64);
            let logits = logits[beam.strand];
            let drawn = beam.sampler.drawn(logits, count, keep, places, buffers);
            (beam, drawn)
        });
        let drawn: Vec<(&Beam, Drawn)> = drawn.collect();
        let heights = drawn.iter().map(|(beam, drawn)| {
            let height = f64::from(beam.score) + drawn.highest;
            if drawn.tokens.is_empty() {
                f64::NEG_INFINITY
            } else {
                height
            }
        });
        let heights: Vec<f64> = heights.collect();
        let top = heights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut left: Vec<f64> = drawn.iter().map(|(_, drawn)| drawn.total).collect();
        let mut next = vec![0; drawn.len()];
        let mut all = Vec::new();
        let (Some((first, _)), true) = (drawn.first(), top > f64::NEG_INFINITY) else {
            return all;
        };
        for turn in 0..count {
            let mass = |(left, height): (&f64, &f64)| left * (height - top).exp();
            let masses: Vec<f64> = left.iter().zip(&heights).map(mass).collect();
            let total: f64 = masses.iter().sum();
            let places = (place as u64, self.running.len() as u64);
            let target = first.sampler.uniform(places, turn as u64) * total;
            let (mut sum, mut found) = (0.0, None);
            for (index, &mass) in masses.iter().enumerate() {
                if mass > 0.0 {
                    found = Some(index);
                    sum += mass;
                    if sum > target {
                        break;
                    }
                }
            }
            let Some(index) = found else { break };
            let (beam, of) = &drawn[index];
            let Some(&(token, logarithm, weight)) = of.tokens.get(next[index]) else {
                break;
            };
            next[index] += 1;
            left[index] = if next[index] < of.tokens.len() {
                (left[index] - weight).max(0.0)
            } else {
                0.0
            };
            all.push(Candidate {
                beam: index,
                token,
                score: logarithm + beam.score,
            });
        }
        all
    }

    /// Keeps what ends, and goes on with the best of the others. When the group is done, what was
    /// under way stays as it was.
    fn sort_out(
        &mut self,
        rules: &Rules,
        candidates: &[Candidate],
        length: usize,
        last: Option<Finish>,
    ) -> GoingOn {
        let groups = rules.search.num_beam_groups > 1;
        let mut going_on: Vec<&Candidate> = Vec::new();
        for (rank, candidate) in candidates.iter().enumerate() {
            let beam = &self.running[candidate.beam];
            let end = rules.ends.contains(&candidate.token);
            let finish = if end || beam.stops(candidate.token) {
                Some(Finish::Stop)
            } else {
                last.filter(|_| !groups)
            };
            match finish {
                None => going_on.push(candidate),
                Some(finish) if rank < rules.size => {
                    // Groups tell only that an answer ended, not by which of several ids.
                    let first = rules.ends.first().filter(|_| groups && end);
                    let token = first.copied().unwrap_or(candidate.token);
                    let tokens = [&beam.tokens[..], &[token]].concat();
                    self.keep(rules, tokens, candidate.score, finish);
                }
                Some(_) => {}
            }
        }
        going_on.sort_by(|a, b| order(a, b));
        going_on.truncate(rules.size);

        let best = if groups {
            candidates.first()
        } else {
            going_on.first().copied()
        };
        let mut done = best.is_none_or(|best| self.is_done(rules, best.score, length));
        let next = going_on.iter().map(|candidate| {
            let beam = &self.running[candidate.beam];
            beam.with(candidate.token, candidate.score)
        });
        let next: Vec<Beam> = next.collect();
        let tokens = going_on.iter().map(|candidate| candidate.token).collect();
        if let Some(finish) = last {
            if groups && !done {
                for beam in next {
                    self.keep(rules, beam.tokens, beam.score, finish);
                }
            }
            done = true;
        } else if next.is_empty() {
            done = true;
        } else if !done {
            self.running = next;
        }
        GoingOn { tokens, done }
    }

    /// Keeps an answer that has ended, if it is among the best.
    fn keep(&mut self, rules: &Rules, tokens: Vec<u32>, score: f32, finish: Finish) {
        let score = rules.penalised(score, tokens.len());
        let full = self.ended.len() >= rules.size;
        if full && score <= self.worst() {
            return;
        }
        self.ended.push(Line {
            tokens,
            score,
            finish: Some(finish),
        });
        if full {
            let worst = self.worst();
            let at = self.ended.iter().position(|line| line.score <= worst);
            at.map(|at| self.ended.remove(at));
        }
    }

    /// The lowest score of what has ended.
    fn worst(&self) -> f64 {
        let scores = self.ended.iter().map(|line| line.score);
        scores.fold(f64::INFINITY, f64::min)
    }

    /// Whether what has ended is good enough; `best` is the best score under way.
    fn is_done(&self, rules: &Rules, best: f32, length: usize) -> bool {
        let length = match rules.search.early_stopping {
            _ if self.ended.len() < rules.size => return false,
            EarlyStopping::Yes => return true,
            EarlyStopping::Never if rules.search.length_penalty > 0.0 => rules.longest,
            _ => length,
        };
        rules.penalised(best, length) <= self.worst()
    }
}

impl Rules {
    /// Ways to go on that are looked at: the more ids end an answer, the more may end.
    fn candidates(&self) -> usize {
        (1 + self.ends.len()).max(2) * self.size
    }

    fn penalised(&self, score: f32, length: usize) -> f64 {
        f64::from(score) / (length as f64).powf(self.search.length_penalty)
    }

    /// What is taken from the scores of tokens that earlier groups have just chosen.
    fn less(&self, chosen: &[u32]) -> Vec<(u32, f32)> {
        let mut counts: Vec<(u32, f32)> = Vec::new();
        if self.search.num_beam_groups > 1 {
            for &token in chosen {
                match counts.iter_mut().find(|(one, _)| *one == token) {
                    Some((_, count)) => *count += 1.0,
                    None => counts.push((token, 1.0)),
                }
            }
        }
        let penalty = self.search.diversity_penalty as f32;
        for (_, count) in &mut counts {
            *count *= penalty;
        }
        counts
    }
}
