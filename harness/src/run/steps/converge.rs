//! The verb `converge`: until the model holds everywhere, measured.
//!
//! Quick rounds look until nothing is wrong; a confirming round with enough tries to find a stale or missing endpoint
//! then has to agree. The convergence is the time from the last change to the start of the first round after which
//! nothing was wrong any more.

use std::time::Duration;

use probe::proto::now;
use tokio::time::sleep;

use super::super::{
    attempt::{Attempt, Stop},
    round::{self, Proportions, Shape},
};
use crate::scenario::doc::Converge;

/// One try of the first quick round may take this long; a lost SYN is tried again by the next round, with more patience each
/// time, so that a machine that is slower than this converges too.
const QUICK_MS: u32 = 100;
const LESS_QUICK_MS: u32 = 2_000;
/// The same for the confirming round, which is repeated too.
const CONFIRM_MS: u32 = 600;

/// After a change, UDP must have been right for this long. Conntrack entries that were made under the old rules can only be
/// removed after the new ones are in force, and they are met by chance, when a client's port comes round again.
const SETTLE_NS: u64 = 40_000_000;

impl Attempt<'_> {
    pub(in crate::run) async fn converge(&mut self, step: &Converge) -> Result<(), Stop> {
        let cells = self.cells(&step.from, &step.to)?;
        let mut quick = Shape {
            count: 1,
            patience_ms: QUICK_MS,
            silence_ms: QUICK_MS,
            controls: false,
            ..Shape::default()
        };
        let mut confirm = Shape {
            count: round::confirming_count(&cells),
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
            if let Some(exit) = self.cluster.unexpected_exit() {
                return Err(Stop::candidate(
                    "unexpected-exit",
                    "a candidate that keeps running",
                    exit,
                ));
            }
            if now() > until {
                // Is it the candidate? The direct paths say.
                let controls = self.round(&cells, &Shape::default()).await?;
                self.controls_must_work(&controls)?;
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
}
