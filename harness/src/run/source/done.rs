//! What a run that is resumed has done already.

use std::collections::{BTreeMap, HashMap};

use reports::event::{Event, EventBody, Verdict};

/// The attempts that finished, by case and number.
#[derive(Clone, Debug, Default)]
pub struct Done(HashMap<String, BTreeMap<u32, Verdict>>);

impl Done {
    /// Takes note of an event of the log.
    pub fn note(&mut self, event: &Event) {
        if let EventBody::AttemptFinished(finished) = &event.body {
            let attempts = self.0.entry(finished.case.clone()).or_default();
            attempts.insert(finished.attempt, finished.judged());
        }
    }

    /// Whether an attempt finished.
    pub fn has(&self, case: &str, attempt: u32) -> bool {
        let attempts = self.0.get(case);
        attempts.is_some_and(|attempts| attempts.contains_key(&attempt))
    }

    /// The attempts of a case that finished, by number.
    pub fn of(&self, case: &str) -> impl Iterator<Item = (u32, Verdict)> {
        let attempts = self.0.get(case).into_iter().flatten();
        attempts.map(|(attempt, verdict)| (*attempt, *verdict))
    }

    /// The verdicts of all of them.
    pub fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        self.0
            .values()
            .flat_map(|attempts| attempts.values().copied())
    }

    /// How many finished.
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// Whether none did.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
