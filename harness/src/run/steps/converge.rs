//! The verb `converge`: until the model holds everywhere, measured.
//!
//! Quick rounds look until nothing is wrong; a confirming round with enough tries to find a stale or missing endpoint
//! then has to agree. The convergence is the time from the last change to the start of the first round after which
//! nothing was wrong any more.
//!
//! A *sweep* follows, which no document asks for: all frontends of all Services in both families, and places where nobody may
//! answer, compared with the model (`run/sweep.rs`). A proxy that did what the step is about and broke something else is found there.

use std::{collections::BTreeSet, time::Duration};

use probe::proto::now;
use tokio::time::sleep;

use oracle::Destination;
use reports::event::Failure;

use super::super::{
    attempt::{Attempt, Stop},
    cells::Cell,
    round::{self, Proportions, Shape, What},
    sweep,
};
use crate::scenario::doc::{Converge, Feature};

/// One try of the first quick round may take this long; a lost SYN is tried again by the next round, with more patience each
/// time, so that a machine that is slower than this converges too.
const QUICK_MS: u32 = 100;
const LESS_QUICK_MS: u32 = 2_000;
/// The same for the confirming round, which is repeated too.
const CONFIRM_MS: u32 = 600;

/// After a change, UDP must have been right for this long. Conntrack entries that were made under the old rules can only be
/// removed after the new ones are in force, and they are met by chance, when a client's port comes round again.
const SETTLE_NS: u64 = 40_000_000;

/// Where a sweep wants silence, an answer that must not come would come in far less. One that is later is missed there and not made
/// up; steps that ask for silence wait longer.
const SWEEP_SILENCE_MS: u32 = 30;

impl Attempt<'_> {
    pub(in crate::run) async fn converge(&mut self, step: &Converge) -> Result<(), Stop> {
        let cells = self.cells(&step.from, &step.to)?;
        let mut quick = Shape {
            count: 1,
            patience_ms: QUICK_MS,
            silence_ms: QUICK_MS,
            what: What::Cells,
            ..Shape::default()
        };
        let mut confirm = Shape {
            counts: round::confirming_counts(&cells),
            patience_ms: CONFIRM_MS,
            ..Shape::default()
        };
        let deadline = self.patience(step.deadline);
        let until = self.last_change + deadline;
        let until = until.max(now() + deadline / 2);
        let udp = cells
            .iter()
            .any(|cell| cell.to.destination.protocol == oracle::Protocol::Udp);
        let settle = if udp && self.changed { SETTLE_NS } else { 0 };
        let mut right_since: Option<u64> = None;
        let mut pause = Duration::from_millis(1);
        self.count_checks(&cells);
        loop {
            let began = now();
            let seen = self.round(&cells, &quick).await?;
            let mut wrong = round::wrong(&cells, &seen, Proportions::PerService);
            if wrong.is_empty() {
                let right_since = *right_since.get_or_insert(began);
                let seen = self.round(&cells, &confirm).await?;
                wrong = round::wrong(&cells, &seen, Proportions::PerService);
                if wrong.is_empty() {
                    self.controls_must_work(&seen)?;
                    if now() < right_since + settle {
                        continue;
                    }
                    let since = right_since.saturating_sub(self.last_change);
                    self.findings.converged(since as f64 / 1e6);
                    self.sweep(step, &cells, until.max(now() + deadline / 2))
                        .await?;
                    if step.sweep.is_none() && self.blind.is_empty() && !self.findings.is_over() {
                        self.mixtures.settle();
                    }
                    return Ok(());
                }
            }
            right_since = None;
            quick.patience_ms = (quick.patience_ms * 3 / 2).min(LESS_QUICK_MS);
            quick.silence_ms = quick.patience_ms;
            confirm.patience_ms = (confirm.patience_ms * 3 / 2).min(round::PATIENCE_MS);
            for wrong in wrong.iter().take(2) {
                let (case, cell, mismatch) = (&self.case.key.id, &wrong.cell, &wrong.mismatch);
                tracing::debug!(case, cell, %mismatch, since_us = (began - self.last_change.min(began)) / 1000, "not yet converged");
            }
            self.still_runs().await?;
            if now() > until {
                self.direct_paths_must_work(&cells).await?;
                self.findings
                    .note(format!("not converged within {}", step.deadline));
                self.record(wrong);
                return Ok(());
            }
            // A poll of a condition with a deadline, slower the longer it takes.
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Looks at everything once; what is not right yet has until the deadline.
    async fn sweep(&mut self, step: &Converge, seen: &[Cell], until: u64) -> Result<(), Stop> {
        if let Some(skip) = &step.sweep {
            self.findings.note(format!("no sweep: {}", skip.skip));
            return Ok(());
        }
        if !self.blind.is_empty() {
            let why: Vec<&str> = self.blind.iter().map(String::as_str).collect();
            self.findings
                .note(format!("no sweep during {}", why.join(", ")));
            return Ok(());
        }
        let seen: BTreeSet<(String, Destination)> = seen
            .iter()
            .map(|cell| (cell.from.label.clone(), cell.to.destination))
            .collect();
        let model = self.model()?;
        self.ask_neighbour(&model)?;
        // The first of an attempt differs from seed to seed, the following ones from each other.
        let turn = (self.seed % 64) as usize + self.sweeps;
        self.sweeps += 1;
        let stage = self.cluster.stage();
        let mut cells = sweep::cells(stage, &model, &self.former, &self.held, turn, &seen);
        cells.retain(|cell| {
            feature(&cell.expectation.requirements)
                .is_none_or(|feature| !self.cluster.lacks(feature))
        });
        if cells.is_empty() {
            return Ok(());
        }
        self.count_checks(&cells);
        let mut shape = Shape {
            patience_ms: QUICK_MS,
            silence_ms: SWEEP_SILENCE_MS,
            what: What::Cells,
            ..Shape::default()
        };
        let mut pause = Duration::from_millis(1);
        loop {
            let began = now();
            let seen = self.round(&cells, &shape).await?;
            let wrong = round::wrong(&cells, &seen, Proportions::PerService);
            if wrong.is_empty() {
                let since = began.saturating_sub(self.last_change);
                self.findings.measure("sweep", "ms", since as f64 / 1e6);
                return Ok(());
            }
            for wrong in wrong.iter().take(2) {
                let (case, cell, mismatch) = (&self.case.key.id, &wrong.cell, &wrong.mismatch);
                tracing::debug!(case, cell, %mismatch, "the sweep found something");
            }
            shape.patience_ms = (shape.patience_ms * 3 / 2).min(LESS_QUICK_MS);
            self.still_runs().await?;
            if now() > until {
                self.direct_paths_must_work(&cells).await?;
                self.findings
                    .note(format!("the sweep is not right within {}", step.deadline));
                for wrong in wrong {
                    let expected = wrong.expectation.to_string();
                    self.findings.found(
                        Failure {
                            requirements: wrong.expectation.requirements,
                            step: None,
                            verb: String::new(),
                            kind: wrong.mismatch.kind.as_str().into(),
                            message: format!(
                                "sweep: {}: expected {expected}; {}",
                                wrong.cell, wrong.mismatch.text
                            ),
                            cell: Some(wrong.cell),
                            expected,
                            actual: wrong.mismatch.text,
                        },
                        self.case.scenario.level,
                    );
                }
                return Ok(());
            }
            // A poll of a condition with a deadline, slower the longer it takes.
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// The feature that an expectation needs, by the rules it follows from: a candidate that declares not to have it is not asked.
fn feature(requirements: &[String]) -> Option<Feature> {
    requirements.iter().find_map(|id| {
        Some(match id.as_str() {
            "SVC-LB-4" | "SVC-LB-7" | "SVC-LB-8" => Feature::SourceRanges,
            "TP-10" | "TP-11" | "TP-14" => Feature::TopologyHints,
            "TP-1" | "TP-2" | "TP-4" | "TP-5" | "TP-6" | "TP-7" | "TP-8" => Feature::TrafficPolicy,
            id if id.starts_with("SVC-EIP-") => Feature::ExternalIps,
            id if id.starts_with("SVC-LB-") => Feature::LoadBalancer,
            id if id.starts_with("AFF-") => Feature::SessionAffinity,
            _ => return None,
        })
    })
}
