//! Planted flakes: are failures that come and go found, called what they are, and counted right?
//!
//! ```text
//!   planted rate ──> so many attempts that none would fail in one run of 10,000 ──> failures of attempts ──> interval: does it hold the rate?
//!                                                                            └──> experiments ──> flaky?
//!   no CPU, no Service ──> attempts under contention ──> failures ──> experiments ──> contention-only?
//! ```

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use reports::{
    event::{ExperimentFinished, Verdict},
    model::{Class, Evidence, Rate, Tally, classify},
};
use serde::Serialize;

use super::{Binary, Mutant};
use crate::{
    candidate::Candidate,
    experiment::{self, Budget, CONTENTION, Subjects},
    plan::attempt_seed,
    scenario::{Case, Problem, read_documents, rehearse},
};

/// The case that flakes meet: a small world.
const TEXT: &str = include_str!("flake.yaml");

/// The probability of a false alarm of this test about itself, per flake: that no attempt fails, and that a right rate is called wrong.
const ALPHA: f64 = 1e-4;

/// Attempts under contention. Where it shows, it shows in most.
const UNDER_CONTENTION: u32 = 5;

/// Time for the experiments with one flake; two series of 20 reruns, on a slow machine.
const BUDGET: Duration = Duration::from_secs(900);

/// What became of a planted flake.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlakeResult {
    /// The flake.
    #[serde(flatten)]
    pub mutant: Mutant,
    /// Attempts that failed.
    pub failed: u64,
    /// Attempts that passed.
    pub passed: u64,
    /// Why attempts said nothing.
    pub infra: Vec<String>,
    /// How often it failed, with the interval that reports give; absent where nothing was planted that has a rate.
    pub found: Option<Rate>,
    /// Whether that interval holds the planted rate, as 19 of 20 do or more.
    pub covered: Option<bool>,
    /// Whether the failures fit the planted rate, by an interval that a right rate misses once in 10,000 runs.
    pub fits: Option<bool>,
    /// What the experiments say that it is.
    pub class: Class,
    /// What it is.
    pub expected: Class,
    /// The counts that decided about the class.
    pub why: String,
    /// How long it took.
    pub seconds: f64,
}

impl FlakeResult {
    /// Detected, called what it is, and counted right.
    pub fn is_good(&self) -> bool {
        self.failed > 0 && self.class == self.expected && self.fits != Some(false)
    }

    /// For a terminal.
    pub fn line(&self) -> String {
        let mut text = format!(
            "{} {:<16} failed {} of {}",
            if self.is_good() { "found " } else { "MISSED" },
            self.mutant.name,
            self.failed,
            self.failed + self.passed
        );
        if let (Some(planted), Some(found)) = (self.mutant.rate, self.found) {
            let _ = write!(
                text,
                " = {:.2} % [{:.2}, {:.2}], planted {} %, {}",
                found.rate * 100.0,
                found.low * 100.0,
                found.high * 100.0,
                planted * 100.0,
                match (self.covered, self.fits) {
                    (Some(true), _) => "covered",
                    (_, Some(true)) => "beside the 95 % interval, within what chance explains",
                    _ => "NOT COVERED",
                }
            );
        }
        let _ = write!(text, "; {}", self.class);
        if self.class != self.expected {
            let _ = write!(text, " and should be {}", self.expected);
        }
        let _ = write!(text, " ({}); {:.0} s", self.why, self.seconds);
        for infra in self.infra.iter().take(3) {
            let _ = write!(text, "\n       infra: {infra}");
        }
        text
    }
}

/// The planted flakes, ready to be looked for.
pub struct Flakes {
    case: Arc<Case>,
    seed: u64,
    side_by_side: usize,
}

impl Flakes {
    /// Prepares the case.
    ///
    /// # Errors
    ///
    /// The embedded document cannot be used.
    pub fn new(seed: u64, side_by_side: usize) -> Result<Self, Problem> {
        let documents = read_documents("flake.yaml", TEXT)?;
        let document = &documents[0];
        let case = document.resolve(&document.cases[0])?;
        rehearse(&case)?;
        Ok(Self {
            case: Arc::new(case),
            seed,
            side_by_side,
        })
    }

    /// How many attempts one flake needs: with so many, it is missed altogether in one run of 10,000.
    pub fn attempts(mutant: &Mutant) -> u32 {
        match mutant.rate {
            Some(rate) => (ALPHA.ln() / (1.0 - rate).ln()).ceil() as u32,
            None => UNDER_CONTENTION,
        }
    }

    /// Looks for one.
    ///
    /// # Errors
    ///
    /// There is no contention to be had.
    pub async fn look_for(
        &self,
        binary: &Binary,
        mutant: &Mutant,
        stop: &AtomicBool,
        say: impl Fn(&str),
    ) -> Result<FlakeResult, String> {
        let began = Instant::now();
        let candidate = binary.mutant(mutant, false);
        // What depends on the machine is looked for under contention, one at a time; else worlds that compete are contention, too.
        let (busy, side_by_side) = match mutant.rate {
            Some(_) => (None, self.side_by_side),
            None => (Some(CONTENTION.begin().map_err(|e| e.to_string())?), 1),
        };
        let run = self
            .run(
                candidate.clone(),
                Self::attempts(mutant),
                side_by_side,
                stop,
            )
            .await;
        drop(busy);
        let subjects = Subjects::new(candidate, Some(binary.control(false)));
        let mut tell = |finished: ExperimentFinished| {
            say(&format!(
                "       {}: {}: {} of {} failed, {} infra; {}",
                mutant.name,
                finished.experiment,
                finished.failed,
                finished.attempts,
                finished.infra,
                finished.what
            ));
            Ok::<(), std::convert::Infallible>(())
        };
        let seed = run.seed_of_failure.unwrap_or(self.seed);
        let budget = Budget::of(if run.tally.failed > 0 {
            BUDGET
        } else {
            Duration::ZERO
        });
        let known = Evidence {
            run: run.tally,
            ..Evidence::default()
        };
        let Ok(evidence) =
            experiment::investigate(&self.case, seed, known, &subjects, budget, stop, &mut tell)
                .await;
        let (failed, of) = (run.tally.failed, run.tally.of());
        let found = mutant.rate.and_then(|_| Rate::new(failed, of));
        let holds = |rate: Option<Rate>| {
            let planted = mutant.rate?;
            rate.map(|rate| rate.low <= planted && planted <= rate.high)
        };
        Ok(FlakeResult {
            mutant: mutant.clone(),
            failed,
            passed: run.tally.passed,
            infra: run.infra,
            found,
            covered: holds(found),
            fits: holds(Rate::with_tails(failed, of, ALPHA / 2.0)),
            class: classify(&evidence).0,
            expected: match mutant.rate {
                Some(_) => Class::Flaky,
                None => Class::ContentionOnly,
            },
            why: evidence.to_string(),
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    async fn run(
        &self,
        candidate: Candidate,
        attempts: u32,
        side_by_side: usize,
        stop: &AtomicBool,
    ) -> Run {
        let candidate = Arc::new(candidate);
        let mut run = Run::default();
        let mut made = futures::stream::iter(1..=attempts)
            .map(|attempt| {
                let seed = attempt_seed(self.seed, &self.case.key.id, attempt);
                let (case, candidate) = (self.case.clone(), candidate.clone());
                async move {
                    match stop.load(Ordering::Relaxed) {
                        true => None,
                        false => Some((seed, experiment::once(case, candidate, seed).await)),
                    }
                }
            })
            .buffer_unordered(side_by_side);
        while let Some(finished) = made.next().await {
            let Some((seed, finished)) = finished else {
                continue;
            };
            run.tally.add(finished.verdict);
            if finished.verdict == Verdict::Fail {
                run.seed_of_failure.get_or_insert(seed);
            }
            run.infra.extend(finished.infra);
        }
        run
    }
}

#[derive(Default)]
struct Run {
    tally: Tally,
    seed_of_failure: Option<u64>,
    infra: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flake(rate: Option<f64>) -> Mutant {
        Mutant {
            name: "flake".into(),
            seam: "desired-state".into(),
            summary: "It is wrong now and then.".into(),
            bugs: Vec::new(),
            requirements: vec!["SVC-CIP-1".into()],
            flaky: true,
            rate,
        }
    }

    #[test]
    fn attempts_suffice_and_are_no_more_than_needed() {
        for (rate, attempts) in [(0.2, 42), (0.05, 180), (0.01, 917)] {
            let found = Flakes::attempts(&flake(Some(rate)));
            assert_eq!(found, attempts, "{rate}");
            let missed = |n: u32| (1.0f64 - rate).powi(n as i32);
            assert!(
                missed(found) <= ALPHA && missed(found - 1) > ALPHA,
                "{rate}"
            );
        }
    }

    #[test]
    fn the_case_can_be_used() {
        Flakes::new(1, 1).expect("the embedded document");
    }

    fn result(failed: u64, of: u64, class: Class, rate: f64) -> FlakeResult {
        let found = Rate::new(failed, of);
        let holds = |rate: Rate, planted: f64| rate.low <= planted && planted <= rate.high;
        FlakeResult {
            mutant: flake(Some(rate)),
            failed,
            passed: of - failed,
            infra: Vec::new(),
            found,
            covered: found.map(|found| holds(found, rate)),
            fits: Rate::with_tails(failed, of, ALPHA / 2.0).map(|found| holds(found, rate)),
            class,
            expected: Class::Flaky,
            why: format!("failed in the run {failed}/{of}"),
            seconds: 1.0,
        }
    }

    #[test]
    fn a_flake_is_found_by_detection_class_and_rate() {
        for (failed, of, class, good) in [
            (9, 42, Class::Flaky, true),
            // Two coins per world instead of one.
            (72, 200, Class::Flaky, false),
            (0, 42, Class::Undecided, false),
            (9, 42, Class::Undecided, false),
            (42, 42, Class::Broken, false),
        ] {
            let found = result(failed, of, class, 0.2);
            assert_eq!(found.is_good(), good, "{}", found.line());
        }
    }

    #[test]
    fn lines() {
        let lines: Vec<String> = [
            result(9, 42, Class::Flaky, 0.2),
            result(15, 42, Class::Flaky, 0.2),
            result(40, 42, Class::Broken, 0.2),
        ]
        .iter()
        .map(FlakeResult::line)
        .collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        found  flake            failed 9 of 42 = 21.43 % [10.30, 36.81], planted 20 %, covered; flaky (failed in the run 9/42); 1 s
        found  flake            failed 15 of 42 = 35.71 % [21.55, 51.97], planted 20 %, beside the 95 % interval, within what chance explains; flaky (failed in the run 15/42); 1 s
        MISSED flake            failed 40 of 42 = 95.24 % [83.84, 99.42], planted 20 %, NOT COVERED; broken and should be flaky (failed in the run 40/42); 1 s
        ");
    }
}
