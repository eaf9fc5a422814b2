//! `junit.xml`: one suite per requirement area, one testcase per case, the way CI systems display them.
//!
//! The document is red exactly when the command's exit code is not 0: a flaky case is a failure with `flakyFailure`
//! children, unless the flake budget covers it (then it is a success with them); infra is an error; and a run that is
//! incomplete or ran nothing gets a suite `run` with an error of its own, because all its testcases may well be green.

use std::time::Duration;

use quick_junit::{
    FlakyOrRerun, NonSuccessKind, Property, Report as Document, TestCase, TestCaseStatus,
    TestRerun, TestSuite, XmlString,
};

use crate::event::{Failure, Verdict};
use crate::model::{Attempt, CaseResult, CaseVerdict, Conclusion, Report};
use crate::text::{one_line, visible};

/// Attempts of one case that are told one by one; CI systems choke on thousands. `report.json` has them all.
const MAX_ATTEMPTS: usize = 100;

/// The report as a JUnit document.
pub fn render(report: &Report) -> String {
    let mut document = Document::new(xml(&format!("certify {}", report.candidate.name)));
    document.set_time(milliseconds(report.duration_ms));
    for area in &report.areas {
        let mut suite = suite(report, &area.name);
        let mut time = 0.0;
        let here = |case: &&CaseResult| case.area == area.name && !report.is_elsewhere(case);
        for case in report.cases.iter().filter(here) {
            time += case.duration_ms();
            suite.add_test_case(test_case(report, case));
        }
        suite.set_time(milliseconds(time));
        document.add_test_suite(suite);
    }
    if let Some((kind, message)) = run_error(report) {
        let mut suite = suite(report, "run");
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_type(kind);
        status.set_message(xml(&message));
        let mut case = TestCase::new("the run is complete", status);
        case.set_classname("run");
        suite.add_test_case(case);
        document.add_test_suite(suite);
    }
    document
        .to_string()
        .expect("writing XML into memory does not fail")
}

/// What is wrong with the run as a whole, where its cases do not show it: kind and message.
fn run_error(report: &Report) -> Option<(&'static str, String)> {
    if !report.problems.is_empty() {
        return Some(("incomplete", report.problems.join("; ")));
    }
    match report.conclusion {
        Conclusion::NothingRan => Some(("nothing-ran", "no case was executed".to_owned())),
        _ => None,
    }
}

fn suite(report: &Report, name: &str) -> TestSuite {
    let mut suite = TestSuite::new(xml(name));
    // The crate's own type for times needs another time library; the attribute is the same.
    // A year that the attribute's type cannot have is left out; no clock shows it.
    if report.started.starts_with(|c: char| c.is_ascii_digit()) {
        suite.extra.insert("timestamp".into(), xml(&report.started));
    }
    let candidate = &report.candidate;
    for (name, value) in [
        ("run-id", Some(report.run_id.as_str())),
        ("candidate", Some(candidate.name.as_str())),
        ("candidate-version", candidate.version.as_deref()),
        ("candidate-digest", candidate.digest.as_deref()),
        ("suite-version", Some(report.suite.version.as_str())),
        (
            "catalogue-digest",
            Some(report.suite.catalogue_digest.as_str()),
        ),
        ("provider", Some(report.provider.as_str())),
        ("kernel", Some(report.machine.kernel.as_str())),
        ("profile", Some(report.options.profile.as_str())),
        ("seed", Some(report.options.seed.to_string().as_str())),
    ] {
        if let Some(value) = value {
            suite.add_property(property(name, value));
        }
    }
    suite
}

fn test_case(report: &Report, case: &CaseResult) -> TestCase {
    let mut test = TestCase::new(xml(&case.id), status(report, case));
    test.set_classname(xml(&format!("{}.{}", case.area, case.scenario)));
    test.set_time(milliseconds(case.duration_ms()));
    let checks = case.attempts.iter().map(|attempt| attempt.checks);
    // What an attempt says of itself has no bound.
    let checks = checks.fold(0, u64::saturating_add);
    test.set_assertions(usize::try_from(checks).unwrap_or(usize::MAX));

    test.add_property(property("title", &case.title));
    test.add_property(property("level", &case.level));
    test.add_property(property("verdict", case.verdict.as_str()));
    for requirement in &case.requirements {
        test.add_property(property("requirement", requirement));
    }
    for (axis, value) in &case.axes {
        test.add_property(property(&format!("axis.{axis}"), value));
    }
    test.add_property(property("attempts", &case.attempts.len().to_string()));
    if let Some(waiver) = &case.waived {
        test.add_property(property("waived", &waiver.words()));
    }
    if let Some(rate) = case.failure_rate {
        let value = format!(
            "{}/{} = {:.4} [{:.4}, {:.4}]",
            rate.failed, rate.of, rate.rate, rate.low, rate.high
        );
        test.add_property(property("failure-rate", &value));
        let bound = format!("{:.6}", rate.upper_bound);
        test.add_property(property("failure-rate-upper-bound", &bound));
    }
    if let Some(claim) = &case.claim {
        test.add_property(property("claim", &claim.to_string()));
    }
    if let Some(classification) = &case.classification {
        test.add_property(property("class", classification.class.as_str()));
        if let Some(rate) = classification.rate {
            let value = format!("{:.4} [{:.4}, {:.4}]", rate.rate, rate.low, rate.high);
            test.add_property(property("class-rate", &value));
        }
        if let Some(representative) = &classification.representative {
            test.add_property(property("class-representative", representative));
        }
    }
    for experiment in &case.experiments {
        let name = format!("experiment.{}", experiment.experiment);
        test.add_property(property(&name, &experiment.tally().to_string()));
    }
    if let Some(convergence) = case.convergence_ms {
        for (name, value) in [
            ("p50", convergence.p50),
            ("p90", convergence.p90),
            ("p99", convergence.p99),
            ("max", convergence.max),
        ] {
            let name = format!("convergence-{name}-ms");
            test.add_property(property(&name, &format!("{value:.3}")));
        }
    }
    let evidence: Vec<String> = case
        .attempts
        .iter()
        .filter_map(|attempt| Some((attempt.attempt, attempt.evidence.as_ref()?)))
        .map(|(number, path)| format!("evidence of attempt {number}: {path}"))
        .take(MAX_ATTEMPTS)
        .collect();
    if !evidence.is_empty() {
        test.set_system_out(xml_lines(&evidence.join("\n")));
    }
    test
}

fn status(report: &Report, case: &CaseResult) -> TestCaseStatus {
    match case.verdict {
        CaseVerdict::Pass => TestCaseStatus::success(),
        CaseVerdict::Flaky => {
            let failed = case.attempts_with(Verdict::Fail).map(rerun);
            let failed = failed.take(MAX_ATTEMPTS);
            let mut status = if report.flakes_tolerated() {
                TestCaseStatus::success()
            } else {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_type("flaky");
                status.set_message(xml(&flaky_message(case)));
                status.set_rerun_kind(FlakyOrRerun::Flaky);
                status
            };
            status.add_reruns(failed);
            status
        }
        CaseVerdict::Fail => {
            let status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            first_and_reruns(status, case, Verdict::Fail)
        }
        CaseVerdict::Infra => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            if case.attempts_with(Verdict::Infra).next().is_none() {
                status.set_type("infra");
                status.set_message("some attempts passed and some were skipped");
                return status;
            }
            first_and_reruns(status, case, Verdict::Infra)
        }
        CaseVerdict::Undecided => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_type("undecided");
            if let Some(claim) = &case.claim {
                status.set_message(xml(&claim.to_string()));
            }
            status
        }
        CaseVerdict::Skip => {
            let mut status = TestCaseStatus::skipped();
            if let Some(skip) = &case.skip {
                status.set_type(skip.kind.as_str());
                status.set_message(xml(&format!("{}: {}", skip.kind, skip.reason)));
            }
            status
        }
        CaseVerdict::NotRun => {
            let mut status = TestCaseStatus::skipped();
            status.set_type("not-run");
            status.set_message("the run ended before this case was tried");
            status
        }
    }
}

/// The first attempt with the verdict as the testcase's own result, the others with it as reruns.
fn first_and_reruns(
    mut status: TestCaseStatus,
    case: &CaseResult,
    verdict: Verdict,
) -> TestCaseStatus {
    let mut attempts = case.attempts_with(verdict);
    if let Some(first) = attempts.next() {
        let (ty, message, description) = told(first);
        status.set_type(ty);
        status.set_message(message);
        status.set_description(description);
    }
    status.add_reruns(attempts.map(rerun).take(MAX_ATTEMPTS));
    status
}

fn rerun(attempt: &Attempt) -> TestRerun {
    let mut rerun = TestRerun::new(match attempt.verdict {
        Verdict::Infra => NonSuccessKind::Error,
        Verdict::Pass | Verdict::Fail | Verdict::Skip => NonSuccessKind::Failure,
    });
    let (ty, message, description) = told(attempt);
    rerun.set_type(ty);
    rerun.set_message(message);
    rerun.set_description(description);
    rerun.set_time(milliseconds(attempt.duration_ms));
    rerun
}

/// An attempt's trouble as type, message and description.
fn told(attempt: &Attempt) -> (XmlString, XmlString, XmlString) {
    let number = attempt.attempt;
    if attempt.verdict == Verdict::Infra {
        let reason = attempt.infra.as_deref().unwrap_or("no reason was given");
        let description = format!("attempt {number}: {reason}");
        return ("infra".into(), xml(reason), xml_lines(&description));
    }
    let mut description = format!("attempt {number}");
    if let Some(seed) = attempt.seed {
        description.push_str(&format!(", seed {seed}"));
    }
    for failure in &attempt.failures {
        description.push_str("\n\n");
        description.push_str(&failure_text(failure));
    }
    match attempt.failures.first() {
        Some(first) => (
            xml(&first.kind),
            xml(&first.message),
            xml_lines(&description),
        ),
        None => (
            "fail".into(),
            "no failure was recorded".into(),
            xml_lines(&description),
        ),
    }
}

fn failure_text(failure: &Failure) -> String {
    let mut lines = vec![failure.message.clone()];
    if let Some(step) = failure.step {
        lines.push(format!("  step:     {step} ({})", failure.verb));
    }
    if let Some(cell) = &failure.cell {
        lines.push(format!("  cell:     {cell}"));
    }
    lines.push(format!("  expected: {}", failure.expected));
    lines.push(format!("  actual:   {}", failure.actual));
    if !failure.requirements.is_empty() {
        lines.push(format!("  violates: {}", failure.requirements.join(", ")));
    }
    lines.join("\n")
}

fn flaky_message(case: &CaseResult) -> String {
    let failed = case.attempts_with(Verdict::Fail).count();
    let passed = case.attempts_with(Verdict::Pass).count();
    let mut message = format!("flaky: {failed} of {} attempts failed", failed + passed);
    if let Some(claim) = &case.claim {
        message.push_str(&format!("; {claim}"));
    }
    message
}

fn property(name: &str, value: &str) -> Property {
    Property::new(xml(name), xml(value))
}

/// Text for an attribute, where XML readers make spaces of line ends anyway.
fn xml(text: &str) -> XmlString {
    XmlString::new(one_line(text))
}

/// Text for an element's content, where lines are kept.
fn xml_lines(text: &str) -> XmlString {
    XmlString::new(visible(text))
}

fn milliseconds(ms: f64) -> Duration {
    Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default()
}
