//! Jobs that run together keep pace: who is far ahead waits for who came a moment later.
//!
//! Jobs in a batch gain a token a pass each, so a head start never shrinks by itself. A job with
//! more than twice the tokens of the slowest one pauses until that has caught up. So that a stream
//! of newcomers can't hold an old job for ever, each job pauses for so many passes in its life and
//! no longer.

/// Passes that a job gives to others in all.
pub const MOST_PAUSED: u32 = 1_024;

/// Below so many tokens nobody is ahead.
const START: usize = 8;

/// What matters of a running job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runner {
    /// Its number.
    pub job: u64,
    /// Tokens that it has.
    pub tokens: usize,
    /// Passes that it has paused for.
    pub paused: u32,
}

/// Who pauses now, and for how many passes it may be left at that.
pub fn pauses(runners: &[Runner]) -> (Vec<u64>, usize) {
    let slowest = runners.iter().map(|r| r.tokens).min().unwrap_or(0);
    let ahead = |r: &&Runner| r.tokens > START.max(2 * slowest) && r.paused < MOST_PAUSED;
    let pausing: Vec<&Runner> = runners.iter().filter(ahead).collect();
    // Until the nearest of them may go on, if the slowest gains a token a pass.
    let passes = pausing.iter().map(|r| {
        let gap = r.tokens.div_ceil(2) - slowest.min(r.tokens / 2);
        gap.min((MOST_PAUSED - r.paused) as usize)
    });
    let passes = passes.min().unwrap_or(usize::MAX);
    (pausing.iter().map(|r| r.job).collect(), passes.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner(job: u64, tokens: usize, paused: u32) -> Runner {
        Runner {
            job,
            tokens,
            paused,
        }
    }

    #[test]
    fn equals_run_on() {
        let all: Vec<Runner> = (0..20).map(|job| runner(job, 50, 0)).collect();
        assert_eq!(pauses(&all), (vec![], usize::MAX));
        assert_eq!(pauses(&[]), (vec![], usize::MAX));
    }

    #[test]
    fn who_has_more_than_twice_as_much_waits_for_the_slowest() {
        let all = [runner(1, 100, 0), runner(2, 20, 0), runner(3, 41, 0)];
        assert_eq!(pauses(&all), (vec![1, 3], 1));
        let all = [runner(1, 100, 0), runner(2, 20, 0), runner(3, 40, 0)];
        assert_eq!(pauses(&all), (vec![1], 30));
    }

    #[test]
    fn a_few_tokens_are_no_head_start() {
        assert!(pauses(&[runner(1, 8, 0), runner(2, 0, 0)]).0.is_empty());
        assert_eq!(pauses(&[runner(1, 9, 0), runner(2, 0, 0)]), (vec![1], 5));
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (mut old, mut passes) = (runner(1, 1_000, 0), 0);
        loop {
            // The newcomers end and are replaced before they reach half of what the old one has.
            let (pausing, most) = pauses(&[old, runner(2, 7, 0)]);
            if pausing.is_empty() {
                break;
            }
            old.paused += most as u32;
            passes += most;
        }
        assert_eq!(passes, MOST_PAUSED as usize);
    }

    #[test]
    fn twenty_that_start_one_after_the_other_stay_within_a_factor_of_two() {
        let mut all: Vec<Runner> = Vec::new();
        for job in 0..20 {
            all.push(runner(job, 0, 0));
            // A newcomer arrives while the others have had forty passes.
            let mut left = 40;
            while left > 0 {
                let (pausing, most) = pauses(&all);
                let passes = most.min(left);
                for runner in &mut all {
                    if pausing.contains(&runner.job) {
                        runner.paused += passes as u32;
                    } else {
                        runner.tokens += passes;
                    }
                }
                left -= passes;
                let slowest = all.iter().map(|r| r.tokens).min().unwrap_or(0);
                let fastest = all.iter().map(|r| r.tokens).max().unwrap_or(0);
                assert!(left > 0 || fastest <= 2 * slowest, "{fastest} {slowest}");
            }
        }
    }
}
