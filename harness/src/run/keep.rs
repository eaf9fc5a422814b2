//! Which attempts leave evidence: a run of a week that fails the same way a thousand times must not fill the disk with it.

use std::{collections::HashMap, sync::Mutex};

use reports::{
    event::{AttemptFinished, Event, EventBody, Failure, Verdict},
    model::{Signature, without_numbers},
};

/// Evidence of the first attempts of each kind of trouble; of the rest there are the log's counters.
#[derive(Debug)]
pub struct Keep {
    /// Attempts of one kind that leave evidence; `None` for all.
    first: Option<u32>,
    kept: Mutex<HashMap<String, u32>>,
}

impl Keep {
    /// All evidence is kept.
    pub fn all() -> Self {
        Self {
            first: None,
            kept: Mutex::default(),
        }
    }

    /// That of the first so many of each kind.
    pub fn first(count: u32) -> Self {
        Self {
            first: Some(count),
            kept: Mutex::default(),
        }
    }

    /// Takes note of what an earlier process of the run kept.
    pub fn note(&self, requirements: &[String], event: &Event) {
        if let EventBody::AttemptFinished(finished) = &event.body
            && finished.evidence.is_some()
        {
            self.count(&kind(requirements, finished));
        }
    }

    /// Whether an attempt in trouble is to leave evidence. Asked once per attempt.
    pub fn wants(&self, requirements: &[String], finished: &AttemptFinished) -> bool {
        let Some(first) = self.first else {
            return true;
        };
        self.count(&kind(requirements, finished)) <= first
    }

    /// Leaves of an attempt's failures what says which kind it is of, for attempts that leave no evidence.
    pub fn shorten(requirements: &[String], finished: &mut AttemptFinished) {
        let complaint = finished.complaint.as_deref();
        let telling: Option<Failure> =
            Signature::of(requirements, &finished.failures, complaint).map(|(_, one)| one.clone());
        if let Some(telling) = telling {
            finished.failures = vec![telling];
        }
    }

    fn count(&self, kind: &str) -> u32 {
        let mut kept = self.kept.lock().expect("no panic while it is held");
        let count = kept.entry(kind.to_owned()).or_default();
        *count += 1;
        *count
    }
}

/// The kind of trouble that an attempt is in.
fn kind(requirements: &[String], finished: &AttemptFinished) -> String {
    if finished.judged() == Verdict::Infra {
        let reason = finished.infra.as_deref().unwrap_or_default();
        return format!("infra: {}", without_numbers(reason));
    }
    let complaint = finished.complaint.as_deref();
    Signature::of(requirements, &finished.failures, complaint)
        .map(|(signature, _)| signature.to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::source::tests::finished;

    fn failed(kind: &str, attempt: u32) -> AttemptFinished {
        let mut failed = finished("case", attempt, Verdict::Fail);
        failed.failures = ["first", "second"]
            .map(|cell| Failure {
                requirements: vec!["SVC-CIP-1".into()],
                step: Some(1),
                verb: "probe".into(),
                kind: kind.into(),
                cell: Some(format!("{cell} {attempt}")),
                expected: String::new(),
                actual: String::new(),
                message: String::new(),
            })
            .into();
        failed
    }

    #[test]
    fn the_first_of_each_kind_leave_evidence() {
        let rules = ["SVC-CIP-1".to_owned()];
        let keep = Keep::first(2);
        let wants: Vec<bool> = (1..=4)
            .map(|attempt| keep.wants(&rules, &failed("refused", attempt)))
            .collect();
        assert_eq!(wants, [true, true, false, false]);
        assert!(keep.wants(&rules, &failed("lost", 5)));
        let mut infra = finished("case", 6, Verdict::Infra);
        infra.infra = Some("the world cannot be built: 17 of 18".into());
        assert!(keep.wants(&rules, &infra));
        assert!(keep.wants(&rules, &infra));
        infra.infra = Some("the world cannot be built: 3 of 18".into());
        assert!(!keep.wants(&rules, &infra), "numbers make no new kind");
        assert!((0..100).all(|attempt| Keep::all().wants(&rules, &failed("refused", attempt))));
    }

    #[test]
    fn what_was_kept_before_counts() {
        let rules = ["SVC-CIP-1".to_owned()];
        let keep = Keep::first(2);
        for (attempt, evidence) in [(1, true), (2, false), (3, true)] {
            let mut failed = failed("refused", attempt);
            failed.evidence = evidence.then(|| "cases/case/1".into());
            keep.note(
                &rules,
                &Event {
                    seq: 0,
                    time: String::new(),
                    body: EventBody::AttemptFinished(failed),
                },
            );
        }
        assert!(!keep.wants(&rules, &failed("refused", 4)));
    }

    #[test]
    fn what_is_left_of_the_rest_is_of_the_same_kind() {
        let rules = ["SVC-CIP-1".to_owned()];
        let mut failed = failed("refused", 1);
        let before = kind(&rules, &failed);
        Keep::shorten(&rules, &mut failed);
        assert_eq!(failed.failures.len(), 1);
        assert_eq!(kind(&rules, &failed), before);
    }
}
