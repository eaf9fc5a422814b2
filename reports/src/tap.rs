//! `report.tap`: the report in the Test Anything Protocol, version 14, for whoever has a consumer of it (`prove`, `tappy`, ...).
//!
//! A test point per case, in the order of the plan, and one more, `the run is complete`, where the run as a whole is at fault. As in JUnit, the
//! document is red exactly when the exit code is not 0:
//!
//! ```text
//! pass                          ok N - ID
//! skip                          ok N - ID # SKIP KIND: REASON
//! flaky, within the budget      ok N - ID                        with a diagnostic that says how often it failed
//! fail, flaky, infra,
//! undecided, not-run            not ok N - ID                    with a diagnostic that says why
//! ```
//!
//! There are no subtests, so but for its first line the document is one of version 13 as well. Source: the specifications of TAP 13 and 14.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::event::Verdict;
use crate::model::{CaseResult, CaseVerdict, Conclusion, Report};
use crate::text::{one_line, shortened};

/// Name of the file inside a result directory.
pub const FILE_NAME: &str = "report.tap";

/// Characters of one text.
const MAX_TEXT: usize = 400;

/// Failures of one attempt, and pieces of evidence of one case.
const MAX_LIST: usize = 10;

/// The report as a TAP document.
pub fn render(report: &Report) -> String {
    let cases: Vec<&CaseResult> = report
        .cases
        .iter()
        .filter(|case| !report.is_elsewhere(case))
        .collect();
    let trouble = trouble(report);
    let count = cases.len() + usize::from(trouble.is_some());
    // Of a small shard, which is no failure; consumers want a reason for a plan of nothing.
    let none = if count == 0 {
        " # SKIP every case belongs to another shard"
    } else {
        ""
    };
    // Nothing may stand between the version and the plan, for some.
    let mut text = format!("TAP version 14\n1..{count}{none}\n");
    let candidate = &report.candidate;
    let version = candidate.version.as_deref().unwrap_or("of unknown version");
    let suite = format!(
        "{}, profile {}, seed {}",
        report.suite.version, report.options.profile, report.options.seed
    );
    for (name, value) in [
        ("candidate", format!("{} {version}", candidate.name)),
        ("run", report.run_id.clone()),
        ("suite", suite),
    ] {
        // A comment; what is in it cannot begin another line.
        let _ = writeln!(text, "# {name}: {}", one_line(&value));
    }
    let mut number = 0;
    for case in cases {
        number += 1;
        point(&mut text, number, report, case);
    }
    if let Some(message) = trouble {
        let _ = writeln!(text, "not ok {} - the run is complete", number + 1);
        diagnostic(&mut text, &[("message", message)]);
    }
    text
}

/// What is wrong with the run as a whole, where its cases do not show it.
fn trouble(report: &Report) -> Option<String> {
    if !report.problems.is_empty() {
        return Some(report.problems.join("; "));
    }
    (report.conclusion == Conclusion::NothingRan).then(|| "no case was executed".to_owned())
}

fn point(text: &mut String, number: usize, report: &Report, case: &CaseResult) {
    let ok = match case.verdict {
        CaseVerdict::Pass | CaseVerdict::Skip => true,
        CaseVerdict::Flaky => report.flakes_tolerated(),
        CaseVerdict::Fail | CaseVerdict::Infra | CaseVerdict::Undecided | CaseVerdict::NotRun => {
            false
        }
    };
    let word = if ok { "ok" } else { "not ok" };
    let _ = write!(text, "{word} {number} - {}", escaped(&case.id));
    if case.verdict == CaseVerdict::Skip {
        let reason = case.skip.as_ref().map_or_else(
            || "no reason was given".to_owned(),
            |skip| format!("{}: {}", skip.kind, skip.reason),
        );
        let _ = write!(text, " # SKIP {}", escaped(&reason));
    }
    text.push('\n');
    if !matches!(case.verdict, CaseVerdict::Pass | CaseVerdict::Skip) {
        diagnostic(text, &facts(case));
    }
}

/// What a diagnostic says of a case that is no plain pass.
fn facts(case: &CaseResult) -> Vec<(&'static str, String)> {
    let first = |verdict| case.attempts_with(verdict).next();
    let failed = first(Verdict::Fail);
    let message = match case.verdict {
        CaseVerdict::Infra => first(Verdict::Infra)
            .and_then(|attempt| attempt.infra.clone())
            .unwrap_or_else(|| "some attempts passed and some were skipped".to_owned()),
        CaseVerdict::NotRun => "the run ended before this case was tried".to_owned(),
        _ => failed
            .and_then(|attempt| attempt.failures.first())
            .map_or_else(String::new, |failure| failure.message.clone()),
    };
    let failures = failed.map_or(&[][..], |attempt| &attempt.failures);
    let told = failures.iter().take(MAX_LIST).map(|failure| {
        format!(
            "{}, expected {}, got {}",
            failure.kind, failure.expected, failure.actual
        )
    });
    let violated: BTreeSet<&str> = failures
        .iter()
        .flat_map(|failure| failure.requirements.iter().map(String::as_str))
        .collect();
    let violated: Vec<&str> = violated.into_iter().collect();
    let evidence = case
        .attempts
        .iter()
        .filter_map(|attempt| attempt.evidence.as_deref());
    let evidence: Vec<&str> = evidence.take(MAX_LIST).collect();
    let class = case.classification.as_ref();
    let mut facts = vec![
        ("verdict", case.verdict.to_string()),
        ("message", message),
        (
            "rate",
            case.failure_rate
                .map_or_else(String::new, |rate| rate.words()),
        ),
        (
            "claim",
            case.claim
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
        ),
        (
            "waived",
            case.waived
                .as_ref()
                .map_or_else(String::new, |waiver| waiver.words()),
        ),
        (
            "class",
            class.map_or_else(String::new, |found| found.class.as_str().to_owned()),
        ),
        ("failures", told.collect::<Vec<_>>().join("; ")),
        ("violates", violated.join(", ")),
        ("evidence", evidence.join(", ")),
    ];
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

/// A YAML block. Every value is one string in double quotes, as JSON has them: of sequences, Perl's reader understands only some.
fn diagnostic(text: &mut String, facts: &[(&'static str, String)]) {
    text.push_str("  ---\n");
    for (name, value) in facts {
        let _ = writeln!(text, "  {name}: {}", quoted(value));
    }
    text.push_str("  ...\n");
}

fn quoted(value: &str) -> String {
    let value = shortened(&one_line(value), MAX_TEXT);
    serde_json::to_string(&value).expect("a text is always JSON")
}

/// A description: `#` would begin a directive, and a backslash an escape.
fn escaped(text: &str) -> String {
    one_line(text).replace('\\', "\\\\").replace('#', "\\#")
}
