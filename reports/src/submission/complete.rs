//! Whether a report and its files are all of a run: what a reviewer may not have to guess.

use std::path::{Component, Path};

use crate::event::Verdict;
use crate::model::{CaseVerdict, Report};
use crate::sign::files::{Entry, Listing};
use crate::sign::{Findings, Kind, listed};

/// Things of one kind that are told by name in one line.
const MAX_TOLD: usize = 10;

/// Notes what is missing from a run: an end, attempts, reasons of skips, evidence.
pub fn complete(report: &Report, files: &Listing, findings: &mut Findings) {
    for problem in &report.problems {
        findings.broken(Kind::Partial, format!("the run is incomplete: {problem}"));
    }
    if let Some(shard) = report.options.shard {
        let what = format!(
            "it is shard {shard} of a run; `harness merge` makes the run out of all shards"
        );
        findings.broken(Kind::Partial, what);
    }
    if report.options.canaries.is_empty() {
        let what = "it has no canaries: nothing shows that it would have noticed a bad proxy";
        findings.broken(Kind::Partial, what);
    }
    if report.cases.is_empty() {
        findings.broken(Kind::Partial, "no case was planned");
    }
    let not_run: Vec<&str> = report
        .cases_with(CaseVerdict::NotRun)
        .map(|case| case.id.as_str())
        .collect();
    if !not_run.is_empty() {
        let what = format!("planned and never tried: {}", listed(&not_run, MAX_TOLD));
        findings.broken(Kind::NotRun, what);
    }
    for case in report.cases_with(CaseVerdict::Skip) {
        match &case.skip {
            None => {
                let what = format!("{}: skipped, and nobody says why", case.id);
                findings.broken(Kind::Skip, what);
            }
            Some(skip) if skip.reason.trim().is_empty() => {
                let what = format!("{}: skipped ({}) without a reason", case.id, skip.kind);
                findings.broken(Kind::Skip, what);
            }
            Some(_) => {}
        }
    }
    evidence(report, files, findings);
}

/// Evidence that an attempt names has to be there.
fn evidence(report: &Report, files: &Listing, findings: &mut Findings) {
    let mut without = 0_u64;
    for case in &report.cases {
        for attempt in &case.attempts {
            let named = format!("attempt {} of {}", attempt.attempt, case.id);
            match &attempt.evidence {
                Some(path) if !is_inside(path) => {
                    let what = format!("{named}: its evidence {path:?} is outside the folder");
                    findings.broken(Kind::Evidence, what);
                }
                Some(path) if !has_files(path, files) => {
                    let what = format!("{named}: its evidence {path} is not there");
                    findings.broken(Kind::Evidence, what);
                }
                None if attempt.verdict == Verdict::Fail => without += 1,
                _ => {}
            }
        }
    }
    if without > 0 {
        // A soak keeps that of the first failures of a kind, and says so in its log.
        let what = format!("{without} failed attempts left no evidence");
        findings.note(Kind::Evidence, what);
    }
}

fn is_inside(path: &str) -> bool {
    let mut components = Path::new(path).components();
    !path.is_empty() && components.all(|part| matches!(part, Component::Normal(_)))
}

/// Whether a regular file lies below a directory.
fn has_files(path: &str, files: &Listing) -> bool {
    let prefix = format!("{}/", path.trim_end_matches('/'));
    let below = files.range(prefix.clone()..);
    below
        .take_while(|(name, _)| name.starts_with(&prefix))
        .any(|(_, entry)| *entry == Entry::File)
}
