//! The cases: their attempts, and of those that failed everything that helps to see why.

use std::collections::HashMap;

use super::Mark;
use super::drawing::Drawing;
use super::grid::Grid;
use super::text::{Text, duration};
use super::timeline::{self, Strip, Timeline};
use crate::event::{Failure, Verdict};
use crate::evidence::{Evidence, Excerpt, Shown};
use crate::model::{Attempt, CaseResult, CaseVerdict, Report};

/// Failures of one attempt that are listed.
const MAX_FAILURES: usize = 12;

/// Attempts of one case that are listed; all of them are in its picture.
const MAX_ROWS: usize = 250;

/// Attempts of all cases together that are listed.
const MAX_ALL_ROWS: usize = 15_000;

/// Characters of one text.
const MAX_TEXT: usize = 400;

/// An entry of the list.
pub(super) struct Case {
    pub number: usize,
    pub id: Text,
    pub title: Text,
    pub area: Text,
    pub level: Text,
    pub verdict: Mark,
    pub requirements: Vec<Text>,
    pub axes: Vec<(Text, Text)>,
    /// In a few words: how it went.
    pub brief: String,
    pub strip: Option<Strip>,
    pub timeline: Option<Timeline>,
    pub rate: Option<Text>,
    pub claim: Option<Text>,
    pub convergence: Option<String>,
    pub class: Option<ClassWords>,
    pub experiments: Vec<Experiment>,
    pub skip: Option<Text>,
    pub waived: Option<Text>,
    pub failure: Option<FailureView>,
    pub rows: Vec<Row>,
    /// Attempts that are not listed.
    pub more_rows: usize,
    /// Whether the entry is open from the start.
    pub open: bool,
}

/// What experiments say.
pub(super) struct ClassWords {
    pub class: &'static str,
    pub why: Text,
    pub representative: Option<Text>,
}

/// Reruns under one condition.
pub(super) struct Experiment {
    pub name: &'static str,
    pub what: Text,
    pub counts: String,
    pub message: Option<Text>,
}

/// One attempt.
pub(super) struct Row {
    pub number: u32,
    pub verdict: Mark,
    pub started: String,
    pub took: String,
    pub convergence: String,
    pub seed: String,
    pub what: Text,
}

/// The first attempt that failed, or the first of them whose evidence is there.
pub(super) struct FailureView {
    pub attempt: u32,
    pub step: Option<Text>,
    pub failures: Vec<FailureRow>,
    pub more_failures: usize,
    pub complaint: Option<Text>,
    pub repro: Option<Text>,
    /// Why there is no evidence, where there is none.
    pub missing: Option<&'static str>,
    pub drawing: Option<Drawing>,
    pub grid: Option<Grid>,
    pub why: Vec<Text>,
    pub node: Option<Text>,
    pub excerpts: Vec<ExcerptView>,
}

/// What did not hold.
pub(super) struct FailureRow {
    pub kind: Text,
    pub place: Text,
    pub expected: Text,
    pub actual: Text,
    pub requirements: Vec<Text>,
}

/// A part of a file.
pub(super) struct ExcerptView {
    pub name: &'static str,
    pub file: Text,
    pub lines: Vec<(bool, Text)>,
    pub left_out: usize,
    /// What it means that there is no line.
    pub none: &'static str,
}

/// All cases: those that did not pass come first, else in the order of the plan.
pub(super) fn all(report: &Report, evidence: &Evidence) -> Vec<Case> {
    let rank = |case: &CaseResult| match case.verdict {
        CaseVerdict::Fail => 0,
        CaseVerdict::Flaky => 1,
        CaseVerdict::Infra => 2,
        CaseVerdict::Undecided => 3,
        CaseVerdict::Pass => 4,
        CaseVerdict::Skip => 5,
        CaseVerdict::NotRun => 6,
    };
    let mut order: Vec<&CaseResult> = report.cases.iter().collect();
    order.sort_by_key(|case| rank(case));
    let start: Option<jiff::Timestamp> = report.started.parse().ok();
    let mut room = MAX_ALL_ROWS;
    let causes: HashMap<&str, u32> = report
        .causes
        .iter()
        .map(|cause| (cause.example_case.as_str(), cause.example_attempt))
        .collect();
    order
        .into_iter()
        .enumerate()
        .map(|(number, case)| {
            let open = number == 0 && rank(case) < 2;
            let shown = evidence.get(&case.id);
            let failure = failure(report, case, shown, causes.get(case.id.as_str()).copied());
            let (rows, more_rows) = rows(case, start, &mut room);
            Case {
                number,
                id: Text::new(&case.id),
                title: Text::short(&case.title, MAX_TEXT),
                area: Text::new(&case.area),
                level: Text::new(&case.level),
                verdict: case.verdict.into(),
                requirements: case.requirements.iter().map(|id| Text::new(id)).collect(),
                axes: case
                    .axes
                    .iter()
                    .map(|(axis, value)| (Text::short(axis, 60), Text::short(value, 60)))
                    .collect(),
                brief: brief(case),
                strip: timeline::strip(&case.attempts),
                timeline: timeline::timeline(&case.attempts, start, report.duration_ms),
                rate: case.failure_rate.map(|rate| Text::new(&rate.words())),
                claim: case
                    .claim
                    .as_ref()
                    .map(|claim| Text::new(&claim.to_string())),
                convergence: case.convergence_ms.map(|spread| {
                    format!(
                        "median {}, 99 % {}, largest {}",
                        duration(spread.p50),
                        duration(spread.p99),
                        duration(spread.max)
                    )
                }),
                class: case.classification.as_ref().map(|found| ClassWords {
                    class: found.class.as_str(),
                    why: Text::short(&found.why, 600),
                    representative: found.representative.as_deref().map(Text::new),
                }),
                experiments: case.experiments.iter().map(experiment).collect(),
                skip: case
                    .skip
                    .as_ref()
                    .map(|skip| Text::short(&format!("{}: {}", skip.kind, skip.reason), MAX_TEXT)),
                waived: case
                    .waived
                    .as_ref()
                    .map(|waiver| Text::short(&waiver.words(), MAX_TEXT)),
                failure,
                rows,
                more_rows,
                open,
            }
        })
        .collect()
}

/// In a few words: how it went.
fn brief(case: &CaseResult) -> String {
    let count = case.attempts.len();
    match (case.failure_rate, count) {
        (_, 0) => String::new(),
        (_, 1) => duration(case.attempts[0].duration_ms),
        (Some(rate), _) if rate.failed > 0 => format!("{} of {} failed", rate.failed, rate.of),
        _ => format!("{count} attempts"),
    }
}

fn experiment(found: &crate::model::ExperimentResult) -> Experiment {
    let passed = found.tally().passed;
    Experiment {
        name: found.experiment.as_str(),
        what: Text::short(&found.what, MAX_TEXT),
        counts: match found.attempts {
            0 => "not possible".to_owned(),
            _ => format!(
                "{} failed, {passed} passed, {} infra",
                found.failed, found.infra
            ),
        },
        message: found
            .message
            .as_deref()
            .map(|text| Text::short(text, MAX_TEXT)),
    }
}

/// The attempts that are listed: all if there is room, else those that did not pass before the others.
fn rows(case: &CaseResult, start: Option<jiff::Timestamp>, room: &mut usize) -> (Vec<Row>, usize) {
    let most = MAX_ROWS.min(*room);
    let other = case.attempts.iter().filter(|a| a.verdict != Verdict::Pass);
    let mut passes = most.saturating_sub(other.count());
    let mut keep = |attempt: &&Attempt| {
        attempt.verdict != Verdict::Pass || {
            let fits = passes > 0;
            passes -= usize::from(fits);
            fits
        }
    };
    let kept = case.attempts.iter().filter(|attempt| keep(attempt));
    let rows: Vec<Row> = kept.take(most).map(|a| row(a, start)).collect();
    *room -= rows.len();
    let more = case.attempts.len() - rows.len();
    (rows, more)
}

fn row(attempt: &Attempt, start: Option<jiff::Timestamp>) -> Row {
    let offset = timeline::offset_ms(start, attempt);
    let mut what: Vec<&str> = Vec::new();
    what.extend(attempt.stress.as_deref());
    what.extend(attempt.shape.as_deref());
    what.extend(attempt.infra.as_deref());
    what.extend(attempt.skip.as_ref().map(|skip| skip.reason.as_str()));
    what.extend(
        attempt
            .failures
            .first()
            .map(|failure| failure.message.as_str()),
    );
    Row {
        number: attempt.attempt,
        verdict: attempt.verdict.into(),
        started: offset.map_or_else(
            || "–".to_owned(),
            |ms| format!("+{}", duration(ms.max(0.0))),
        ),
        took: duration(attempt.duration_ms),
        convergence: attempt
            .convergence_ms
            .map_or_else(|| "–".to_owned(), duration),
        seed: attempt
            .seed
            .map_or_else(String::new, |seed| seed.to_string()),
        what: Text::short(&what.join("; "), 240),
    }
}

fn failure(
    report: &Report,
    case: &CaseResult,
    shown: Option<&Shown>,
    example: Option<u32>,
) -> Option<FailureView> {
    let number = shown.map(|shown| shown.attempt).or(example);
    let mut failed = case.attempts_with(Verdict::Fail);
    let attempt = number
        .and_then(|number| {
            let mut failed = case.attempts_with(Verdict::Fail);
            failed.find(|attempt| attempt.attempt == number)
        })
        .or_else(|| failed.next())?;
    let step = attempt.broke.as_ref().map(|step| {
        // Steps are counted from 1 where people read them, as in a story.
        let words = format!(
            "step {} ({}) after {}: {}",
            u64::from(step.index) + 1,
            step.verb,
            duration(step.duration_ms),
            step.summary
        );
        Text::short(&words, 600)
    });
    let first = attempt
        .failures
        .iter()
        .find(|failure| failure.cell.is_some());
    let drawing = shown.and_then(|shown| {
        let (world, cell) = (shown.world.as_ref()?, shown.cell.as_ref()?);
        let first = first?;
        Drawing::of(world, cell, &first.expected, &first.actual)
    });
    let row = |failure: &Failure| FailureRow {
        kind: Text::short(&failure.kind, 60),
        place: Text::short(
            failure.cell.as_deref().unwrap_or(&failure.message),
            MAX_TEXT,
        ),
        expected: Text::short(&failure.expected, MAX_TEXT),
        actual: Text::short(&failure.actual, MAX_TEXT),
        requirements: failure
            .requirements
            .iter()
            .take(20)
            .map(|id| Text::new(id))
            .collect(),
    };
    let missing = match (&attempt.evidence, shown) {
        (_, Some(_)) => None,
        (None, None) => Some("No evidence was kept of this attempt."),
        (Some(_), None) => Some(
            "The evidence of this attempt is not shown here: its files are not beside this page, or the page has enough of other failures.",
        ),
    };
    Some(FailureView {
        attempt: attempt.attempt,
        step,
        failures: attempt
            .failures
            .iter()
            .take(MAX_FAILURES)
            .map(row)
            .collect(),
        more_failures: attempt.failures.len().saturating_sub(MAX_FAILURES),
        complaint: attempt
            .complaint
            .as_deref()
            .map(|text| Text::short(text, MAX_TEXT)),
        repro: repro(report, case, attempt),
        missing,
        drawing,
        grid: shown.and_then(|shown| shown.matrix.as_ref().map(Grid::of)),
        why: shown
            .map(|shown| {
                shown
                    .why
                    .iter()
                    .map(|line| Text::short(line, 300))
                    .collect()
            })
            .unwrap_or_default(),
        node: shown.and_then(|shown| shown.node.as_deref().map(Text::new)),
        excerpts: shown.map(excerpts).unwrap_or_default(),
    })
}

fn excerpts(shown: &Shown) -> Vec<ExcerptView> {
    [
        ("What happened when", &shown.story, ""),
        (
            "Rules on its way",
            &shown.ruleset,
            "No rule names this frontend.",
        ),
        (
            "Connection tracking",
            &shown.conntrack,
            "No entry names this frontend.",
        ),
        (
            "Packets",
            &shown.packets,
            "No packet from this source to this frontend was captured.",
        ),
        ("The candidate's log", &shown.log, ""),
    ]
    .into_iter()
    .filter_map(|(name, excerpt, none)| Some(excerpt_view(name, excerpt.as_ref()?, none)))
    .collect()
}

fn excerpt_view(name: &'static str, excerpt: &Excerpt, none: &'static str) -> ExcerptView {
    ExcerptView {
        name,
        file: Text::new(&excerpt.file),
        lines: excerpt
            .lines
            .iter()
            .map(|line| (line.hit, Text::lines(&line.text)))
            .collect(),
        left_out: excerpt.left_out,
        none,
    }
}

/// One line for a shell that shows the failure again. Nothing where a text cannot be quoted without acting in a terminal.
fn repro(report: &Report, case: &CaseResult, attempt: &Attempt) -> Option<Text> {
    let line = match &attempt.evidence {
        Some(evidence) => format!("harness repro {}", quoted(evidence)?),
        None => format!(
            "harness certify --candidate {} --filter {} --seed {} --runs {}",
            match report.candidate.name.as_str() {
                name @ ("reference" | "null") => name,
                // Where the manifest lies is not in the report.
                _ => "MANIFEST.yaml",
            },
            quoted(&case.id)?,
            report.options.seed,
            attempt.attempt
        ),
    };
    Some(Text::new(&line))
}

/// A word for a shell, in single quotes; `None` for what would act before the shell sees it.
fn quoted(word: &str) -> Option<String> {
    if word != crate::text::one_line(word) {
        return None;
    }
    Some(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell_stay_words() {
        assert_eq!(
            quoted("cases/a[ipv4]/1").as_deref(),
            Some("'cases/a[ipv4]/1'")
        );
        assert_eq!(
            quoted("a'; rm -rf b").as_deref(),
            Some(r"'a'\''; rm -rf b'")
        );
        assert_eq!(quoted("a\nb"), None);
        assert_eq!(quoted("a\u{1b}[2Jb"), None);
    }
}
