//! The page: what it shows of evidence, how large it gets, and that it is found where the report is.

mod fixture;

use std::path::Path;

use fixture::markup::words;
use fixture::{Run, evidence};
use reports::event::{FinishReason, Verdict};
use reports::evidence::{Evidence, collect};
use reports::{html, write_all};

#[test]
fn a_failure_is_shown_with_its_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let report = evidence::failing_run(dir.path()).report();
    let shown = collect(dir.path(), &report);
    insta::assert_debug_snapshot!("evidence", shown["reach[ipv4]"]);
    let page = html::render(&report, &shown);
    let words = words(&page);
    for part in [
        "Broken by step 1 (converge) after 12 ms: converge within 2 s",
        "harness repro 'cases/reach[ipv4]/1'",
        "3 of 4 cells are wrong",
        "EP-1: usable: server-1 10.244.1.11:8080",
        "goto service-web",
        "10.244.2.11:5000 > 10.96.0.10:80 TCP SYN, 0 bytes",
        "10.96.0.10:80 > 10.244.2.11:5000 TCP RST ACK, 0 bytes",
        "tcp 10.244.2.11:5000 -> 10.96.0.10:80 reply",
        "Failed to sync",
    ] {
        assert!(words.contains(part), "{part:?} is not in {words}");
    }
    assert!(page.contains("class=\"world\""), "the drawing is missing");
    // What is about something else stays in the files.
    for other in ["service-other", "10.96.0.99", "calm 1 "] {
        assert!(!words.contains(other), "{other:?} is shown");
    }
}

#[test]
fn a_page_is_written_beside_the_other_reports_and_shows_evidence_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let report = evidence::failing_run(dir.path()).report();
    write_all(dir.path(), &report).unwrap();
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert_eq!(page, html::render(&report, &collect(dir.path(), &report)));
    assert!(page.contains("service-web"));
    let elsewhere = tempfile::tempdir().unwrap();
    write_all(elsewhere.path(), &report).unwrap();
    let page = std::fs::read_to_string(elsewhere.path().join("report.html")).unwrap();
    assert!(!page.contains("service-web"));
    assert!(page.contains("The evidence of this attempt is not shown here"));
}

#[test]
fn what_a_report_does_not_say_is_on_top() {
    let top = |run: &Run| {
        let page = html::render(&run.report(), &Evidence::new());
        let page = words(&page);
        page[..page.find("Requirement areas").unwrap()].to_owned()
    };
    let mut run = Run::new(1);
    run.case("reach[ipv4]", &["SVC-1"], &[Verdict::Pass]);
    let whole = top(&run);
    assert!(
        whole.contains("Conformant") && whole.contains("Unsigned this page carries no signature")
    );
    assert!(!whole.contains("Incomplete") && !whole.contains("Partial"));
    run.start.options.filter = Some("reach*".into());
    assert!(top(&run).contains("Partial only the cases that match \"reach*\""));
    run.end = Some(FinishReason::Interrupted);
    assert!(top(&run).contains("Incomplete the run was interrupted"));
    run.end = None;
    assert!(top(&run).contains("Incomplete the log has no end: the run was killed"));
}

/// A run of so many cases with so many attempts each, every seventh case flaky.
fn long(cases: usize, runs: u32) -> Run {
    let mut run = Run::new(runs);
    for case in 0..cases {
        let verdicts: Vec<Verdict> = (0..runs)
            .map(|n| match case % 7 == 0 && n % 9 == 4 {
                true => Verdict::Fail,
                false => Verdict::Pass,
            })
            .collect();
        let id = format!("a-case-with-a-name-of-some-length-{case}[ipv4,TCP]");
        run.case(&id, &["SVC-1", "NP-1"], &verdicts);
    }
    run
}

#[test]
fn ten_thousand_attempts_make_a_page_of_few_megabytes() {
    let report = long(500, 20).report();
    assert_eq!(report.totals.attempts.total, 10_000);
    let page = html::render(&report, &Evidence::new());
    assert!(page.len() < 6_000_000, "{} bytes", page.len());
    assert_eq!(page.matches("data-case=").count(), 500);
    let rows = page.matches("<tr class=\"v-").count();
    assert_eq!(rows, 10_000, "every attempt is listed");
}

#[test]
fn one_case_with_many_attempts_keeps_its_failures() {
    let report = long(1, 5_000).report();
    let page = html::render(&report, &Evidence::new());
    assert!(page.len() < 400_000, "{} bytes", page.len());
    assert_eq!(page.matches("<tr class=\"v-fail\"").count(), 250);
    assert!(page.contains("4750 more attempts are in"));
}

#[test]
fn evidence_is_bounded_however_many_cases_fail() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::new(1);
    for case in 0..200 {
        let id = format!("case-{case}");
        run.case(&id, &["SVC-1"], &[Verdict::Fail]);
        evidence::write(&dir.path().join(format!("cases/{id}/1")));
        let big = "err E1122 12:00 a complaint of some length that is repeated\n".repeat(2_000);
        let log = dir
            .path()
            .join(format!("cases/{id}/1/nodes/node2/candidate.log"));
        std::fs::write(log, big).unwrap();
    }
    let report = run.report();
    let shown = collect(Path::new(dir.path()), &report);
    assert!((1..=60).contains(&shown.len()), "{} cases", shown.len());
    assert!(
        shown.contains_key("case-0"),
        "the example of the cause is shown"
    );
    let page = html::render(&report, &shown);
    assert!(page.len() < 4_000_000, "{} bytes", page.len());
}
