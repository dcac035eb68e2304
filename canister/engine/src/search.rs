//! What may be asked of a search among several answers, by the names of Hugging Face transformers'
//! `generate`.

use thiserror::Error;

/// Answers that are weighed against each other at most: they share a pass through the model.
pub const MAX_BEAMS: usize = 32;

/// Answers to one prompt that can be asked for.
pub const MAX_SEQUENCES: usize = 32;

/// When a search has found enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EarlyStopping {
    /// When what is being written would not get better than what has ended, judged by its length now.
    #[default]
    No,
    /// As soon as as many answers as there are beams have ended.
    Yes,
    /// When nothing can become better, however long it grows.
    Never,
}

/// How many answers are weighed against each other, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// Answers under way at once; with 1 there is nothing to search.
    pub num_beams: usize,
    /// Groups of beams, each a search of its own.
    pub num_beam_groups: usize,
    /// Taken from the score of a token for each time that an earlier group has just chosen it.
    pub diversity_penalty: f64,
    /// An answer's score is divided by its length to this power: above 0 longer ones are preferred.
    pub length_penalty: f64,
    /// When it ends.
    pub early_stopping: EarlyStopping,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            num_beams: 1,
            num_beam_groups: 1,
            diversity_penalty: 0.0,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::No,
        }
    }
}

/// Why the options of a search, or the number of answers, are refused.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum SearchError {
    /// None, or too many.
    #[error("num_beams {0} is refused: give 1 to {MAX_BEAMS}")]
    Beams(usize),
    /// Groups of unequal size, or empty ones.
    #[error("num_beam_groups {groups} is refused: num_beams, {beams}, must be a multiple of it")]
    Groups {
        /// What was given.
        groups: usize,
        /// The beams to be shared out.
        beams: usize,
    },
    /// Groups would all find the same.
    #[error(
        "diversity_penalty {0} is refused: groups of beams need a positive number, others none"
    )]
    Diversity(f64),
    /// Infinite, or not a number.
    #[error("length_penalty {0} is refused: give a number; above 0 longer answers are preferred")]
    Length(f64),
    /// Groups are searched, not drawn.
    #[error("groups of beams can't be drawn at random: leave temperature out, or give 0")]
    DrawnGroups,
    /// None, or too many.
    #[error("num_return_sequences {given} is refused: give 1 to {most}{why}")]
    Sequences {
        /// What was given.
        given: usize,
        /// The most that there can be.
        most: usize,
        /// Why there can't be more.
        why: &'static str,
    },
    /// A beam has no log-probabilities of its own.
    #[error("logprobs are not noted with num_beams above 1: ask score for those of an answer")]
    Logprobs,
    /// A search can't be taken up from tokens alone.
    #[error(
        "begun goes on with one answer: it can't be used with num_beams or num_return_sequences"
    )]
    Begun,
}

impl Search {
    /// Whether there is more than one answer to weigh.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.num_beams > 1
    }

    /// Checks the options, for so many answers; `drawn` are tokens chosen at random.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub fn validate(&self, sequences: usize, drawn: bool) -> Result<(), SearchError> {
        let (beams, groups) = (self.num_beams, self.num_beam_groups);
        if !(1..=MAX_BEAMS).contains(&beams) {
            return Err(SearchError::Beams(beams));
        }
        if groups == 0 || !beams.is_multiple_of(groups) {
            return Err(SearchError::Groups { groups, beams });
        }
        let diversity = self.diversity_penalty;
        let fits = if groups > 1 {
            diversity > 0.0 && diversity.is_finite()
        } else {
            (0.0..=0.0).contains(&diversity)
        };
        if !fits {
            return Err(SearchError::Diversity(diversity));
        }
        if !self.length_penalty.is_finite() {
            return Err(SearchError::Length(self.length_penalty));
        }
        if groups > 1 && drawn {
            return Err(SearchError::DrawnGroups);
        }
        let (most, why) = match (beams, drawn) {
            (2.., _) => (beams, ", as many as there are beams"),
            (_, true) => (MAX_SEQUENCES, ""),
            (_, false) => (1, ", as temperature 0 always gives the same answer"),
        };
        if sequences == 0 || sequences > most {
            return Err(SearchError::Sequences {
                given: sequences,
                most,
                why,
            });
        }
        Ok(())
    }
}
