//! What an attempt has found so far.

use probe::proto::now;
use reports::event::{EventBody, Failure};

use super::levels;
use crate::scenario::Level;

/// Findings of one attempt, in order.
#[derive(Default)]
pub struct Findings {
    /// Where events go, with the case and attempt they belong to.
    pub sink: Option<Sink>,
    /// Everything that was wrong.
    pub failures: Vec<Failure>,
    /// What was wrong by rules of a lower level than the case's: counted for these rules, and no failure of the case.
    pub warnings: Vec<Failure>,
    /// Why nothing can be said about the candidate.
    pub infra: Option<String>,
    /// Assertions evaluated.
    pub checks: u64,
    /// Assertions that needed an answer from an endpoint.
    pub positive_checks: u64,
    /// The longest convergence measured, in milliseconds.
    pub convergence_ms: Option<f64>,
    /// Everything that happened, for the evidence.
    pub story: Vec<String>,
    started: Option<u64>,
    step: Option<u32>,
    verb: String,
}

/// Sends events of one attempt.
#[derive(Clone)]
pub struct Sink {
    /// The event log.
    pub events: tokio::sync::mpsc::UnboundedSender<EventBody>,
    /// Case id.
    pub case: String,
    /// Attempt number, from 1.
    pub attempt: u32,
}

impl Sink {
    /// Sends an event. A closed log means that the run is over; nobody is left to tell.
    pub fn send(&self, body: EventBody) {
        let _ = self.events.send(body);
    }
}

/// More failures of one attempt than this are counted, not kept.
const KEPT: usize = 40;

impl Findings {
    /// Findings that report to a sink.
    pub fn new(sink: Option<Sink>) -> Self {
        Self {
            sink,
            started: Some(now()),
            ..Self::default()
        }
    }

    /// The step that the next findings belong to.
    pub fn enter(&mut self, index: u32, verb: &str) {
        self.step = Some(index);
        verb.clone_into(&mut self.verb);
    }

    /// A line of the story, with the time since the start of the attempt.
    pub fn note(&mut self, text: impl AsRef<str>) {
        let since = now().saturating_sub(self.started.unwrap_or_default()) as f64 / 1e6;
        self.story
            .push(format!("{since:10.2} ms  {}", text.as_ref()));
    }

    /// An assertion was evaluated; `positive` if it needed an answer.
    pub fn checked(&mut self, positive: bool) {
        self.checks += 1;
        self.positive_checks += u64::from(positive);
    }

    /// An assertion did not hold.
    pub fn fail(&mut self, mut failure: Failure) {
        failure.step = self.step;
        failure.verb.clone_from(&self.verb);
        self.note(format!("FAIL {}: {}", failure.kind, failure.message));
        if self.failures.len() < KEPT {
            self.failures.push(failure);
        }
    }

    /// A rule of a lower level than the case's was violated.
    pub fn warn(&mut self, mut warning: Failure) {
        warning.step = self.step;
        warning.verb.clone_from(&self.verb);
        self.note(format!("WARN {}: {}", warning.kind, warning.message));
        if self.warnings.len() < KEPT {
            self.warnings.push(warning);
        }
    }

    /// Something that no step asked for was wrong: a failure or a warning, as the rules weigh in a case of this level.
    pub fn found(&mut self, mut finding: Failure, case: Level) {
        let weight = levels::weigh(&finding.requirements, case);
        finding.requirements = weight.requirements;
        if weight.fails {
            self.fail(finding);
        } else {
            self.warn(finding);
        }
    }

    /// Shorthand for a failure without a cell.
    pub fn fail_with(
        &mut self,
        kind: &str,
        expected: impl Into<String>,
        actual: impl Into<String>,
    ) {
        let (expected, actual) = (expected.into(), actual.into());
        self.fail(Failure {
            requirements: Vec::new(),
            step: None,
            verb: String::new(),
            kind: kind.into(),
            cell: None,
            message: format!("expected {expected}, got {actual}"),
            expected,
            actual,
        });
    }

    /// A measured number.
    pub fn measure(&mut self, name: &str, unit: &str, value: f64) {
        self.note(format!("{name} = {value:.3} {unit}"));
        if let Some(sink) = &self.sink {
            sink.send(EventBody::Measured {
                case: sink.case.clone(),
                attempt: sink.attempt,
                name: name.into(),
                unit: unit.into(),
                value,
            });
        }
    }

    /// A measured convergence.
    pub fn converged(&mut self, milliseconds: f64) {
        self.convergence_ms = Some(self.convergence_ms.unwrap_or(0.0).max(milliseconds));
        self.measure("convergence", "ms", milliseconds);
    }

    /// What this candidate does where the API leaves a choice.
    pub fn characteristic(&mut self, id: &str, value: &str, text: &str) {
        if let Some(sink) = &self.sink {
            sink.send(EventBody::Characteristic {
                case: sink.case.clone(),
                attempt: sink.attempt,
                id: id.into(),
                value: value.into(),
                text: text.into(),
            });
        }
    }

    /// Whether the attempt is decided.
    pub fn is_over(&self) -> bool {
        self.infra.is_some() || !self.failures.is_empty()
    }
}
