//! The history as text for a terminal.

use std::fmt::Write as _;

use super::{
    CandidateTrend, CaseTrend, ChangePoint, CleanRuns, Flake, RunRow, Sighting, SignatureTrend,
};
use crate::model::Rate;
use crate::text::one_line;

/// Runs, signatures and points that are shown of many; JSON has them all.
const SHOWN: usize = 20;

/// The newest runs of all candidates.
pub fn runs_text(trends: &[CandidateTrend]) -> String {
    let mut runs: Vec<&RunRow> = trends.iter().flat_map(|trend| &trend.runs).collect();
    if runs.is_empty() {
        return "the history has no run\n".to_owned();
    }
    runs.sort_by(|a, b| (&a.started, &a.run_id).cmp(&(&b.started, &b.run_id)));
    let mut text = format!(
        "{} of {}\n\n",
        plural(runs.len(), "run"),
        plural(trends.len(), "candidate")
    );
    let left_out = runs.len().saturating_sub(SHOWN);
    if left_out > 0 {
        let _ = writeln!(text, "... {left_out} earlier ones");
    }
    for run in &runs[left_out..] {
        let whole = if run.complete { "" } else { " (incomplete)" };
        let _ = writeln!(
            text,
            "{}  {} {}  {}{whole}: {} passed, {} failed, {} infra  {}",
            minute(&run.started),
            one_line(&run.candidate),
            one_line(&run.version),
            run.conclusion,
            run.passed,
            run.failed,
            run.infra,
            one_line(&run.run_id)
        );
    }
    text
}

/// A candidate: its versions, and the cases that ever failed.
pub fn candidate_text(trend: &CandidateTrend) -> String {
    let mut text = runs_text(std::slice::from_ref(trend));
    let failed: Vec<&CaseTrend> = trend
        .cases
        .iter()
        .filter(|case| case.first_failure.is_some())
        .collect();
    let _ = writeln!(
        text,
        "\n{}, failures ever in {}",
        plural(trend.cases.len(), "case"),
        failed.len()
    );
    for case in failed {
        let _ = write!(text, "\n{}\n", one_line(&case.case));
        for version in &case.versions {
            if let Some(rate) = version.rate.filter(|rate| rate.failed > 0) {
                let _ = writeln!(text, "  {:<16} {}", one_line(&version.version), words(rate));
            }
        }
        for change in &case.changes {
            let _ = writeln!(text, "  {}", change_words(change));
        }
        if let Some(last) = &case.last_failure {
            let _ = writeln!(text, "  last failure {}", sighting(last));
        }
    }
    text
}

/// A case of one candidate, in detail.
pub fn case_text(trend: &CandidateTrend, case: &CaseTrend) -> String {
    let mut text = format!(
        "{} on {}: {}\n\n",
        one_line(&case.case),
        one_line(&trend.candidate),
        one_line(&case.title)
    );
    for version in &case.versions {
        if let Some(rate) = version.rate {
            let _ = writeln!(
                text,
                "  {:<16} {}, in {} from {} to {}",
                one_line(&version.version),
                words(rate),
                plural(version.runs as usize, "run"),
                minute(&version.first),
                minute(&version.last)
            );
        }
    }
    for (what, seen) in [
        ("first failure", &case.first_failure),
        ("last failure", &case.last_failure),
    ] {
        if let Some(seen) = seen {
            let _ = writeln!(text, "  {what} {}", sighting(seen));
        }
    }
    if case.changes.is_empty() {
        text.push_str("  no change of its rate is certain\n");
    }
    for change in &case.changes {
        let _ = writeln!(text, "  {}", change_words(change));
    }
    text.push_str(&signatures(&case.signatures));
    text.push('\n');
    let left_out = case.points.len().saturating_sub(SHOWN);
    if left_out > 0 {
        let _ = writeln!(text, "  ... {left_out} earlier runs");
    }
    for point in &case.points[left_out..] {
        let run = &trend.runs[point.run];
        let _ = write!(
            text,
            "  {}  {:<16} {:>5} passed {:>5} failed",
            minute(&run.started),
            one_line(&run.version),
            point.passed,
            point.failed
        );
        if point.infra > 0 {
            let _ = write!(text, " {:>5} infra", point.infra);
        }
        if let (Some(p50), Some(p99)) = (point.convergence_p50, point.convergence_p99) {
            let _ = write!(text, "  converged in {p50:.1} ms, 99 % in {p99:.1} ms");
        }
        text.push('\n');
    }
    text
}

/// The flaky cases of all candidates.
pub fn flakes_text(flakes: &[Flake], since: &str) -> String {
    let mut text = match flakes.len() {
        0 => "no case is flaky".to_owned(),
        1 => "1 case is flaky".to_owned(),
        n => format!("{n} cases are flaky"),
    };
    let _ = writeln!(text, " (failures since {})", minute(since));
    for flake in flakes {
        let _ = write!(
            text,
            "\n{} on {}: {}\n",
            one_line(&flake.case),
            one_line(&flake.candidate),
            words(flake.rate)
        );
        if let Some(class) = &flake.class {
            let _ = writeln!(text, "  by experiment: {}", one_line(class));
        }
        let _ = writeln!(text, "  first failure {}", sighting(&flake.first));
        let _ = writeln!(text, "  last failure {}", sighting(&flake.last));
        if let Some(change) = &flake.since {
            let _ = writeln!(text, "  {}", change_words(change));
        }
        text.push_str(&signatures(&flake.signatures));
    }
    text
}

/// How often in a row a case was clean.
pub fn clean_runs_text(all: &[CleanRuns]) -> String {
    let mut text = String::new();
    for clean in all {
        let _ = write!(
            text,
            "{} on {}: clean in the last {}",
            one_line(&clean.case),
            one_line(&clean.candidate),
            plural(usize::try_from(clean.runs).unwrap_or(usize::MAX), "run"),
        );
        if let Some(rate) = Rate::new(0, clean.attempts) {
            let _ = write!(text, ", {}", words(rate));
        }
        match &clean.failed_in {
            Some(failed) => {
                let _ = writeln!(text, "; last failure {}", sighting(failed));
            }
            None => text.push_str("; no failure in the history\n"),
        }
    }
    text
}

fn plural(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

fn signatures(all: &[SignatureTrend]) -> String {
    let mut text = String::new();
    for trend in all.iter().take(SHOWN) {
        let _ = writeln!(
            text,
            "  {:>6} x {} (since {})",
            trend.attempts,
            one_line(&trend.signature.to_string()),
            sighting(&trend.first)
        );
    }
    if all.len() > SHOWN {
        let _ = writeln!(text, "         and {} more signatures", all.len() - SHOWN);
    }
    text
}

pub(crate) fn change_words(change: &ChangePoint) -> String {
    format!(
        "changed from {} to {} at {} (p {:.1e})",
        percent(change.before.rate),
        percent(change.after.rate),
        sighting(&change.at),
        change.p
    )
}

fn words(rate: Rate) -> String {
    format!(
        "{} of {} failed: {} [{}, {}]",
        rate.failed,
        rate.of,
        percent(rate.rate),
        percent(rate.low),
        percent(rate.high)
    )
}

/// With as many digits as a small rate needs.
pub(crate) fn percent(share: f64) -> String {
    let value = share * 100.0;
    let digits = match value {
        v if v == 0.0 || v >= 10.0 => 0,
        v if v >= 1.0 => 1,
        v if v >= 0.1 => 2,
        _ => 3,
    };
    format!("{value:.digits$} %")
}

pub(crate) fn sighting(seen: &Sighting) -> String {
    format!("{} in {}", minute(&seen.time), one_line(&seen.version))
}

/// The minute of a time that is written in full.
pub(crate) fn minute(time: &str) -> String {
    time.get(..16).unwrap_or(time).replace('T', " ")
}
