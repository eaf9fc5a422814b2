//! Which of several logs an attempt is taken from.
//!
//! The same attempt of the same case is in two logs when a shard was killed and started again somewhere else. It counts
//! once. The rule must not look at verdicts, or merging would be a way to choose them:
//!
//! 1. An attempt that ended comes before one that never did, whatever its end was.
//! 2. Of several that ended (or did not), the one that began first is taken; at the same microsecond, the one of the run
//!    that started first.
//!
//! Both must have the same seed: the same number of the same case with another seed is another attempt, of another run.

use std::collections::HashMap;

/// A case by its place in the plan, and the number of an attempt.
pub(super) type Key = (u32, u32);

/// What one log says about one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Line of its first event. A run that was resumed starts attempts again that it had not finished; what was written
    /// before that belongs to nothing.
    pub from: u64,
    /// When it began, in microseconds since the epoch.
    pub began: i64,
    /// Whether it ended.
    pub ended: bool,
    /// Its seed, where it has one: what is skipped has none.
    pub seed: Option<u64>,
    /// How often the run had been resumed when it began.
    pub resumed: u32,
}

/// An attempt and the log that it is taken from.
#[derive(Debug, Clone, Copy)]
struct Taken {
    log: u32,
    seen: Seen,
}

/// The attempts of all logs, each once.
#[derive(Debug, Default)]
pub(super) struct Selection {
    taken: HashMap<Key, Taken>,
    /// Attempts that were left out.
    pub dropped: u64,
}

/// Two logs have the same attempt with different seeds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SeedsDiffer {
    pub key: Key,
    pub seeds: [u64; 2],
    /// The log that has the first of them.
    pub other: u32,
}

impl Selection {
    /// Adds the attempts of a log. Logs come by the start of their runs, `log` counts them.
    pub fn add(&mut self, log: u32, attempts: HashMap<Key, Seen>) -> Result<(), SeedsDiffer> {
        for (key, seen) in attempts {
            let Some(taken) = self.taken.get_mut(&key) else {
                self.taken.insert(key, Taken { log, seen });
                continue;
            };
            if let (Some(a), Some(b)) = (taken.seen.seed, seen.seed)
                && a != b
            {
                return Err(SeedsDiffer {
                    key,
                    seeds: [a, b],
                    other: taken.log,
                });
            }
            self.dropped += 1;
            let rank = |seen: &Seen| (!seen.ended, seen.began);
            if rank(&seen) < rank(&taken.seen) {
                *taken = Taken { log, seen };
            }
        }
        Ok(())
    }

    /// Whether this line of this log is one of the merged log.
    pub fn takes(&self, log: u32, line: u64, key: Key) -> bool {
        self.taken
            .get(&key)
            .is_some_and(|taken| taken.log == log && line >= taken.seen.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(began: i64, ended: bool) -> Seen {
        Seen {
            from: 1,
            began,
            ended,
            seed: Some(7),
            resumed: 0,
        }
    }

    fn winner(logs: &[Seen]) -> (usize, u64) {
        let mut selection = Selection::default();
        for (log, seen) in logs.iter().enumerate() {
            let attempts = HashMap::from([((0, 1), *seen)]);
            selection.add(log as u32, attempts).unwrap();
        }
        let wins = (0..logs.len()).filter(|log| selection.takes(*log as u32, 1, (0, 1)));
        let wins: Vec<usize> = wins.collect();
        assert_eq!(wins.len(), 1, "an attempt counts once");
        (wins[0], selection.dropped)
    }

    #[test]
    fn what_ended_comes_first_then_what_began_first() {
        for (logs, wins) in [
            (&[seen(5, true)][..], 0),
            (&[seen(5, true), seen(6, true)], 0),
            (&[seen(6, true), seen(5, true)], 1),
            (&[seen(5, false), seen(6, true)], 1),
            (&[seen(5, false), seen(6, true), seen(7, true)], 1),
            (&[seen(5, true), seen(5, true)], 0),
            (&[seen(6, false), seen(5, false)], 1),
        ] {
            assert_eq!(winner(logs), (wins, logs.len() as u64 - 1), "{logs:?}");
        }
    }

    #[test]
    fn other_seeds_are_other_attempts() {
        let mut selection = Selection::default();
        selection
            .add(0, HashMap::from([((3, 2), seen(5, true))]))
            .unwrap();
        let other = Seen {
            seed: Some(8),
            ..seen(6, true)
        };
        let error = selection
            .add(1, HashMap::from([((3, 2), other)]))
            .unwrap_err();
        assert_eq!((error.key, error.seeds, error.other), ((3, 2), [7, 8], 0));
        // What was skipped has no seed, and can be compared with nothing.
        let skipped = Seen {
            seed: None,
            ..seen(6, true)
        };
        selection
            .add(1, HashMap::from([((3, 2), skipped)]))
            .unwrap();
    }

    #[test]
    fn lines_before_the_last_start_belong_to_nothing() {
        let mut selection = Selection::default();
        let resumed = Seen {
            from: 10,
            ..seen(5, true)
        };
        selection
            .add(0, HashMap::from([((0, 1), resumed)]))
            .unwrap();
        assert!(!selection.takes(0, 9, (0, 1)));
        assert!(selection.takes(0, 10, (0, 1)));
        assert!(!selection.takes(1, 10, (0, 1)));
        assert!(!selection.takes(0, 10, (0, 2)));
    }
}
