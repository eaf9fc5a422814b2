//! A counterexample: what it is called, what it says, and what is written of it.

use std::{fmt::Write as _, io, path::Path};

use reports::{
    event::Failure,
    model::{Rate, Signature},
};
use serde::Serialize;

use super::{
    document,
    shrink::{Shrunk, Tally},
    traffic::rules,
};
use crate::{
    plan::Requirements,
    run::summary,
    scenario::{Level, Scenario, doc::Step},
};

/// What a failure came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It was seen once and is being looked at.
    Seen,
    /// It was seen again, and the control passes.
    Counterexample,
    /// It was not seen again.
    Unconfirmed,
    /// The control fails as well.
    OracleSuspect,
}

impl Standing {
    /// As it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seen => "seen once, not looked at again",
            Self::Counterexample => "counterexample",
            Self::Unconfirmed => "not seen again",
            Self::OracleSuspect => "oracle-suspect: the reference fails as well",
        }
    }

    /// Below the hunt's directory.
    pub fn directory(self) -> &'static str {
        match self {
            Self::Counterexample => "found",
            Self::OracleSuspect => "suspect",
            Self::Seen | Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// A failure that a hunt met.
#[derive(Clone, Debug)]
pub struct Counterexample {
    /// Number, from 1.
    pub number: usize,
    /// What it came to.
    pub standing: Standing,
    /// What its attempts have in common.
    pub signature: Signature,
    /// One failure.
    pub failure: Failure,
    /// The document, shrunk as far as it went.
    pub scenario: Scenario,
    /// Steps of the document that was found.
    pub found_steps: usize,
    /// Seed of all attempts.
    pub seed: u64,
    /// Seconds from the start of the hunt until it was confirmed.
    pub seconds: f64,
    /// Somebody else passes it.
    pub controlled: bool,
    /// Attempts of the document as it is written.
    pub tally: Tally,
    /// Documents that failed in the same way later.
    pub seen: u64,
    /// Smaller documents taken, with what each was, and its steps.
    pub taken: Vec<(String, usize)>,
    /// Attempts that shrinking took.
    pub shrink_attempts: u32,
    /// Nothing smaller fails.
    pub minimal: bool,
}

impl Counterexample {
    /// A failure that was seen once.
    pub fn new(
        number: usize,
        scenario: &Scenario,
        seed: u64,
        signature: Signature,
        failure: Failure,
    ) -> Self {
        Self {
            number,
            standing: Standing::Seen,
            signature,
            failure,
            scenario: scenario.clone(),
            found_steps: scenario.steps.len(),
            seed,
            seconds: 0.0,
            controlled: false,
            tally: Tally::default(),
            seen: 0,
            taken: Vec::new(),
            shrink_attempts: 0,
            minimal: false,
        }
    }

    /// What shrinking came to.
    pub fn shrinking(&mut self, shrunk: &Shrunk) {
        self.taken.clone_from(&shrunk.taken);
        self.shrink_attempts = shrunk.attempts;
        self.minimal = shrunk.complete;
    }

    /// The smaller document does not stand: the one that was found is kept.
    pub fn not_shrunk(&mut self) {
        self.taken.clear();
        self.minimal = false;
    }

    /// Its directory.
    pub fn name(&self) -> String {
        format!("{:03}-{}", self.number, self.signature.kind)
    }

    /// Writes `scenario.yaml`, `original.yaml` and `explanation.md`.
    pub fn write(&self, directory: &Path, original: &Scenario, candidate: &str) -> io::Result<()> {
        let with_seed = |scenario: &Scenario| {
            let mut scenario = scenario.clone();
            scenario.seed = Some(self.seed);
            scenario
        };
        let mut smaller = with_seed(&self.scenario);
        smaller.title = self.title();
        smaller.description = Some(self.paragraph(candidate));
        std::fs::write(directory.join("scenario.yaml"), document::text(&smaller))?;
        std::fs::write(
            directory.join("original.yaml"),
            document::text(&with_seed(original)),
        )?;
        std::fs::write(
            directory.join("explanation.md"),
            self.explanation(candidate),
        )
    }

    fn title(&self) -> String {
        let cell = if self.signature.cell.is_empty() {
            String::new()
        } else {
            format!(", {}", self.signature.cell)
        };
        format!("Found by a hunt: {}{cell}", self.signature.kind)
    }

    /// Expected and seen, in one paragraph.
    pub fn paragraph(&self, candidate: &str) -> String {
        let changes: Vec<String> = self
            .scenario
            .steps
            .iter()
            .map(|step| &step.value)
            .filter(|step| step.converge.is_none() && step.flow.is_none() && step.probe.is_none())
            .map(|step| shortened(&summary::of(step)))
            .collect();
        let after = match changes.as_slice() {
            [] => "With the objects as they are from the start".to_owned(),
            [one] => format!("After one change ({one})"),
            several => format!(
                "After {} changes (the last is: {})",
                several.len(),
                several.last().map_or("", String::as_str)
            ),
        };
        let wher = match &self.failure.cell {
            Some(cell) => format!(" ({cell})"),
            None => String::new(),
        };
        let mut text = format!(
            "{after}, {candidate} does not do what {} asks{wher}: expected {}; seen: {}.",
            self.rules(),
            self.failure.expected,
            self.failure.actual
        );
        if let Some(rate) = Rate::new(self.tally.shown.into(), self.tally.attempts.into()) {
            let _ = write!(
                text,
                " {} of {} attempts of this document failed this way (95 % interval {:.0} % to {:.0} %).",
                rate.failed,
                rate.of,
                rate.low * 100.0,
                rate.high * 100.0
            );
        }
        text.push_str(match (self.standing, self.controlled) {
            (Standing::OracleSuspect, _) => {
                " The reference proxy fails the document it was found with as well, so the expectation may be what is wrong."
            }
            (Standing::Counterexample, true) => " The reference proxy passes it.",
            (Standing::Counterexample, false) => {
                " No other proxy was asked: this is the one that others are compared with."
            }
            _ => " It was not seen again, so nothing is claimed.",
        });
        text
    }

    /// Whose rules: those of the flow that was judged, or those that the oracle applied.
    fn rules(&self) -> String {
        let step = self
            .failure
            .step
            .and_then(|at| self.scenario.steps.get(at as usize));
        let of_flow = step.map_or(&[][..], |step| judged(&self.scenario, &step.value));
        if !of_flow.is_empty() {
            return of_flow.join(", ");
        }
        let blamed = self.failure.requirements.iter();
        let own = requirements(&self.scenario);
        let applied: Vec<&str> = blamed
            .filter(|id| !own.contains(id))
            .map(String::as_str)
            .collect();
        if applied.is_empty() {
            self.signature.requirement.clone()
        } else {
            applied.join(", ")
        }
    }

    /// The page about it.
    fn explanation(&self, candidate: &str) -> String {
        let mut text = format!("# {}\n\n{}\n\n", self.title(), self.paragraph(candidate));
        let requirements = Requirements::embedded().ok();
        for id in self.rules().split(", ") {
            let known = requirements.as_ref().and_then(|all| all.get(id));
            if let Some(requirement) = known {
                let _ = writeln!(text, "- {id}: {}", requirement.text);
            }
        }
        let _ = writeln!(text, "\nSignature: {}\n", self.signature);
        let _ = writeln!(text, "Steps:\n");
        for (at, step) in self.scenario.steps.iter().enumerate() {
            let here = if self.failure.step == Some(at as u32) {
                " **<- here**"
            } else {
                ""
            };
            let _ = writeln!(
                text,
                "{}. {}{here}",
                at + 1,
                shortened(&summary::of(&step.value))
            );
        }
        let _ = writeln!(
            text,
            "\nTo see it again: `harness run scenario.yaml --candidate ...`; `original.yaml` is the document that was found ({} steps), `cases/` is the evidence.",
            self.found_steps
        );
        if !self.taken.is_empty() {
            let _ = writeln!(
                text,
                "\nShrunk with {} attempts{}:\n",
                self.shrink_attempts,
                if self.minimal {
                    ", until nothing smaller failed"
                } else {
                    ", until the time was over"
                }
            );
            let mut last = String::new();
            for (what, steps) in &self.taken {
                let line = format!("- {what}: {steps} steps");
                if line != last {
                    let _ = writeln!(text, "{line}");
                }
                last = line;
            }
        }
        text
    }
}

/// The rules that a generated document asks for: that the candidate comes to what the objects say, and what follows for the flows it judges.
pub fn requirements(scenario: &Scenario) -> Vec<String> {
    let mut rules: Vec<&str> = vec!["CP-11"];
    for step in &scenario.steps {
        rules.extend(judged(scenario, &step.value));
    }
    if scenario.level >= Level::Strict {
        // What the audit finds decides only where it is asked for.
        rules.extend(["CP-14", "CP-16"]);
    }
    rules[1..].sort_unstable();
    rules.dedup();
    rules.into_iter().map(str::to_owned).collect()
}

/// The rules behind a judgement of a flow.
fn judged(scenario: &Scenario, step: &Step) -> &'static [&'static str] {
    let Some(flow) = &step.flow else { return &[] };
    let (Some(name), Some(is)) = (flow.expect.as_ref().or(flow.stop.as_ref()), flow.is) else {
        return &[];
    };
    let started = scenario
        .steps
        .iter()
        .filter_map(|step| step.value.flow.as_ref());
    let kind = started
        .filter(|flow| flow.start.as_ref() == Some(name))
        .find_map(|flow| flow.kind);
    kind.map_or(&[], |kind| rules(kind, is))
}

/// Objects are in the document; here it matters what was done to which.
fn shortened(text: &str) -> String {
    const MOST: usize = 160;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    let start: String = text.chars().take(MOST).collect();
    format!("{start}...")
}
