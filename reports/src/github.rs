//! What GitHub Actions shows of a run: annotations, as workflow commands on standard output, and the summary of a step.
//!
//! Sources: GitHub Docs, "Workflow commands for GitHub Actions" (form and limits of summaries), and the runner's `ActionCommand` (what is
//! escaped). More than ten annotations of a kind per step are dropped there without a word, so they are counted here.

use std::collections::{HashMap, HashSet};

use crate::event::Verdict;
use crate::markdown::plural;
use crate::model::{CaseResult, CaseVerdict, Conclusion, Report};
use crate::text::{one_line, shortened, visible};

/// The summary of a step is refused as a whole when it is longer, in bytes.
pub const MAX_SUMMARY: usize = 1 << 20;

/// Annotations of one kind that a step may make.
const MAX_ANNOTATIONS: usize = 10;

/// Characters of a title and of a message.
const MAX_TITLE: usize = 200;
const MAX_MESSAGE: usize = 1_000;

/// What ends a summary that was cut.
const CUT: &str = "\n\n_This summary was cut here: GitHub takes 1 MiB per step. `report.md` in the result directory has all of it._\n";

/// An annotation that somebody should see.
struct Annotation {
    title: String,
    message: String,
}

/// The workflow commands that annotate a run: an error per cause of failures, a warning for what got in the way, and a notice for what is too
/// many of them. Nothing for a run in which there is nothing to see.
pub fn annotations(report: &Report) -> String {
    let (errors, warnings) = (errors(report), warnings(report));
    let mut text = String::new();
    for (command, all) in [("error", &errors), ("warning", &warnings)] {
        for one in all.iter().take(MAX_ANNOTATIONS) {
            text.push_str(&command_line(command, &one.title, &one.message));
        }
    }
    let left = |all: &[Annotation]| all.len().saturating_sub(MAX_ANNOTATIONS) as u64;
    if left(&errors) + left(&warnings) > 0 {
        let message = format!(
            "{} and {} are not annotated, because GitHub shows ten of each; report.md has them all",
            plural(left(&errors), "more failure"),
            plural(left(&warnings), "more warning")
        );
        text.push_str(&command_line("notice", "more in the report", &message));
    }
    text
}

/// Whether it is a failure that nobody expected.
fn is_red(report: &Report, case: &CaseResult) -> bool {
    match case.verdict {
        _ if case.waived.is_some() => false,
        CaseVerdict::Fail => true,
        CaseVerdict::Flaky => !report.flakes_tolerated(),
        _ => false,
    }
}

/// One per cause, with how many cases it has, and then the cases that no cause names.
fn errors(report: &Report) -> Vec<Annotation> {
    let red: HashMap<&str, &CaseResult> = report
        .cases
        .iter()
        .filter(|case| is_red(report, case))
        .map(|case| (case.id.as_str(), case))
        .collect();
    let mut told: HashSet<&str> = HashSet::new();
    let mut errors = Vec::new();
    for cause in &report.causes {
        let ids = cause.cases.iter().map(String::as_str);
        let cases: Vec<&str> = ids.filter(|id| red.contains_key(id)).collect();
        let example = red.get(cause.example_case.as_str());
        let Some(case) = example.or_else(|| red.get(*cases.first()?)) else {
            continue;
        };
        // Of several causes of one case, the largest says that the case fails.
        if cases.iter().all(|id| told.contains(id)) {
            continue;
        }
        let more = match cases.len() - 1 {
            0 => String::new(),
            more => format!(" and {}", plural(more as u64, "more case")),
        };
        told.extend(cases);
        errors.push(Annotation {
            title: format!("{} {}{more}", word(case), case.id),
            message: told_of(case),
        });
    }
    let rest = report.cases.iter().filter(|case| {
        let id = case.id.as_str();
        red.contains_key(id) && !told.contains(id)
    });
    errors.extend(rest.map(|case| Annotation {
        title: format!("{} {}", word(case), case.id),
        message: told_of(case),
    }));
    if report.conclusion == Conclusion::NothingRan {
        errors.push(Annotation {
            title: "nothing ran".to_owned(),
            message: "no case was executed".to_owned(),
        });
    }
    errors
}

fn word(case: &CaseResult) -> &'static str {
    match case.verdict {
        CaseVerdict::Flaky => "flaky:",
        _ => "fails:",
    }
}

/// What went wrong first, how often, and where the evidence is.
fn told_of(case: &CaseResult) -> String {
    let mut failed = case.attempts_with(Verdict::Fail);
    let failure = failed.find_map(|attempt| attempt.failures.first());
    let message = failure.map_or("no failure was recorded", |failure| &failure.message);
    let mut lines = vec![shortened(message, MAX_MESSAGE / 2)];
    lines.extend(
        case.failure_rate
            .filter(|rate| rate.of > 1)
            .map(|rate| rate.words()),
    );
    let evidence = case
        .attempts
        .iter()
        .find_map(|attempt| attempt.evidence.as_ref());
    lines.extend(evidence.map(|path| format!("evidence: {path}")));
    lines.join("\n")
}

fn warnings(report: &Report) -> Vec<Annotation> {
    let one = |title: String, message: String| Annotation { title, message };
    let problems = report.problems.iter();
    let problems = problems.map(|problem| one("the run is incomplete".to_owned(), problem.clone()));
    let failing = report.cases.iter().filter(|case| {
        matches!(case.verdict, CaseVerdict::Fail | CaseVerdict::Flaky) && !is_red(report, case)
    });
    let expected = failing.map(|case| match &case.waived {
        Some(waiver) => {
            let message = format!("{}\n{}", told_of(case), waiver.words());
            one(format!("waived: {}", case.id), message)
        }
        None => one(
            format!("flaky, within the budget: {}", case.id),
            told_of(case),
        ),
    });
    let undecided = report.cases_with(CaseVerdict::Undecided).map(|case| {
        let claim = case
            .claim
            .as_ref()
            .map_or_else(String::new, ToString::to_string);
        one(format!("undecided: {}", case.id), claim)
    });
    let infra = report.infra_groups.iter().map(|group| {
        let attempts = plural(group.attempts, "attempt");
        one(
            format!("trouble with the machine or the harness in {attempts}"),
            group.reason.clone(),
        )
    });
    problems
        .chain(expected)
        .chain(undecided)
        .chain(infra)
        .collect()
}

/// `::error title=...::...`, in a line that nothing in it can break out of.
fn command_line(command: &str, title: &str, message: &str) -> String {
    let property = data(&shortened(&one_line(title), MAX_TITLE))
        .replace(':', "%3A")
        .replace(',', "%2C");
    let message = data(&shortened(message, MAX_MESSAGE));
    format!("::{command} title={property}::{message}\n")
}

/// What the runner decodes again in both places.
fn data(text: &str) -> String {
    visible(text)
        .replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// The part of a Markdown document that is appended to a summary that has so many bytes already; with a sentence where it was cut. Nothing where not even
/// that fits.
pub fn summary(markdown: &str, already: usize) -> String {
    let room = MAX_SUMMARY.saturating_sub(already);
    if markdown.len() <= room {
        return markdown.to_owned();
    }
    // A block that was folded has to end, or it swallows the sentence and what later steps say.
    const FOLDED: &str = "\n\n</details>\n";
    let Some(room) = room.checked_sub(CUT.len() + FOLDED.len()) else {
        return String::new();
    };
    let mut kept = &markdown[..markdown.floor_char_boundary(room)];
    kept = &kept[..kept.rfind('\n').map_or(0, |end| end + 1)];
    let open = kept.matches("<details>").count() > kept.matches("</details>").count();
    format!("{kept}{}{CUT}", if open { FOLDED } else { "" })
}
