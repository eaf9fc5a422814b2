//! The first look at a log: what run it is, how it ended, and which attempts it has. Nothing is kept but that.

use std::collections::HashMap;
use std::path::Path;

use super::MergeError;
use super::peek::Peek;
use super::select::{Key, Seen};
use crate::event::{EVENT_FORMAT_VERSION, Event, EventBody, FinishReason, RunStarted};
use crate::lines::Lines;
use crate::log;
use crate::model::ModelError;

/// What a log says about itself.
#[derive(Debug)]
pub(super) struct Survey {
    /// When the run started.
    pub started: String,
    /// Its first event.
    pub run: RunStarted,
    /// Its attempts.
    pub attempts: HashMap<Key, Seen>,
    /// Why it ended; absent when it was killed.
    pub end: Option<FinishReason>,
    /// Whether numbers of events are missing.
    pub holes: bool,
    /// The last line that was looked at: a log that is still written may have more by the second look.
    pub last_line: u64,
}

/// Looks at a log. `None` when its writer was killed before the first line was there.
pub(super) fn survey(path: &Path) -> Result<Option<Survey>, MergeError> {
    let mut lines = Lines::open(path)?;
    let Some((started, run)) = first(path, &mut lines)? else {
        return Ok(None);
    };
    let plan: HashMap<&str, u32> = run
        .cases
        .iter()
        .zip(0..)
        .map(|(case, at)| (case.id.as_str(), at))
        .collect();
    let mut found = Found::default();
    let mut last_line = 1;
    let mut events = 1;
    let mut holes = false;
    while let Some(line) = lines.next_line()? {
        let peek = match Peek::of(line.bytes) {
            Ok(peek) => peek,
            Err(_) if !line.whole => break,
            Err(error) => return Err(lines.is_no_event(error).into()),
        };
        let number = line.number;
        holes |= peek.seq != events;
        events += 1;
        let nonsense = |what| MergeError::Event {
            path: path.to_path_buf(),
            line: number,
            what,
        };
        match &*peek.kind {
            "runFinished" => match log::parse(line.bytes).map(|event| event.body) {
                Ok(EventBody::RunFinished { reason, .. }) => found.end = Some(reason),
                Ok(_) => {}
                Err(error) => return Err(lines.is_no_event(error).into()),
            },
            "runResumed" => {
                found.resumed += 1;
                found.end = None;
            }
            kind => {
                if let Some((case, attempt)) = peek.attempt() {
                    let Some(at) = plan.get(case) else {
                        return Err(nonsense(format!("case {case:?} is not in the plan")));
                    };
                    found
                        .attempt(kind, (*at, attempt), &peek, number)
                        .map_err(nonsense)?;
                }
            }
        }
        last_line = number;
    }
    drop(plan);
    let Found { attempts, end, .. } = found;
    Ok(Some(Survey {
        started,
        run,
        attempts,
        end,
        holes,
        last_line,
    }))
}

/// The start of the run and its time.
fn first(path: &Path, lines: &mut Lines) -> Result<Option<(String, RunStarted)>, MergeError> {
    let Some(line) = lines.next_line()? else {
        return Ok(None);
    };
    let Event { seq, time, body } = match log::parse(line.bytes) {
        Ok(event) => event,
        Err(_) if !line.whole => return Ok(None),
        Err(error) => return Err(lines.is_no_event(error).into()),
    };
    let model = |error: ModelError| MergeError::Event {
        path: path.to_path_buf(),
        line: 1,
        what: error.to_string(),
    };
    match body {
        EventBody::RunStarted(run) if run.format_version > EVENT_FORMAT_VERSION => {
            let found = run.format_version;
            Err(model(ModelError::FormatVersion { found }))
        }
        EventBody::RunStarted(run) => Ok(Some((time, run))),
        _ => Err(model(ModelError::NotStarted { seq })),
    }
}

#[derive(Default)]
struct Found {
    attempts: HashMap<Key, Seen>,
    end: Option<FinishReason>,
    resumed: u32,
}

impl Found {
    /// Notes an event of an attempt.
    fn attempt(&mut self, kind: &str, key: Key, peek: &Peek, line: u64) -> Result<(), String> {
        let resumed = self.resumed;
        let begins = || -> Result<Seen, String> {
            let time = peek.time.parse::<jiff::Timestamp>();
            Ok(Seen {
                from: line,
                began: time.map_err(|e| e.to_string())?.as_microsecond(),
                ended: false,
                seed: peek.seed,
                resumed,
            })
        };
        let number = key.1;
        let case = peek.case.as_deref().unwrap_or_default();
        let seen = match self.attempts.entry(key) {
            std::collections::hash_map::Entry::Vacant(place) => place.insert(begins()?),
            std::collections::hash_map::Entry::Occupied(place) => {
                let seen = place.into_mut();
                if kind == "attemptStarted" {
                    let started = seen.seed.is_some();
                    if seen.ended || (started && seen.resumed == resumed) {
                        return Err(format!("attempt {number} of case {case:?} starts twice"));
                    }
                    *seen = begins()?;
                }
                seen
            }
        };
        if kind == "attemptFinished" {
            if seen.ended {
                return Err(format!("attempt {number} of case {case:?} ends twice"));
            }
            seen.ended = true;
        }
        Ok(())
    }
}
