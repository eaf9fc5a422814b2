//! Golden reports: what a reader sees for every verdict, in every format.
//!
//! After an intended change: `INSTA_UPDATE=always cargo test -p reports --test golden`, then read the difference.

mod fixture;

use fixture::{Run, hostile, waiver};
use reports::event::{Experiment, FinishReason, SkipKind, Verdict};
use reports::evidence::Evidence;
use reports::{Report, badge, html, json, junit, markdown};

/// Compares all renderings with their snapshots, after checking what must hold for any report.
fn golden(name: &str, report: &Report) {
    let schema: serde_json::Value = serde_json::from_str(reports::schema::REPORT_V1).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let document = json::render(report);
    let value: serde_json::Value = serde_json::from_str(&document).unwrap();
    if let Err(error) = schema.validate(&value) {
        panic!("{name}: report.json does not match its own schema: {error}");
    }
    assert_eq!(
        &json::parse(&document).unwrap(),
        report,
        "{name}: report.json loses something"
    );

    let xml = junit::render(report);
    let parsed = quick_junit::Report::deserialize_from_str(&xml).unwrap();
    let red = parsed.failures + parsed.errors > 0;
    assert_eq!(
        red,
        report.exit_code != 0,
        "{name}: JUnit and exit code disagree"
    );

    insta::assert_snapshot!(format!("{name}.json"), document);
    insta::assert_snapshot!(format!("{name}.xml"), xml);
    insta::assert_snapshot!(format!("{name}.md"), markdown::render(report));
    insta::assert_snapshot!(format!("{name}.html"), page(report));
    insta::assert_snapshot!(format!("{name}.svg"), badge::render(report));
}

/// The page without its style and script, which are the same in all of them, with a tag per line.
fn page(report: &Report) -> String {
    let page = html::render(report, &Evidence::new());
    let mut text = String::new();
    let mut rest = page.as_str();
    for tag in ["style", "script"] {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let start = rest.find(&open).unwrap() + open.len();
        let end = rest.rfind(&close).unwrap();
        text.push_str(&rest[..start]);
        rest = &rest[end..];
    }
    let text = text + rest;
    let digests = text.split("sha256-").skip(1).map(|rest| &rest[..44]);
    let digests: Vec<String> = digests.map(str::to_owned).collect();
    assert_eq!(digests.len(), 2);
    let text = text
        .replace(&digests[0], "STYLE")
        .replace(&digests[1], "SCRIPT");
    text.replace("><", ">\n<")
}

#[test]
fn pass() {
    let mut run = Run::new(2);
    run.case("reach[ipv4]", &["SVC-1"], &[Verdict::Pass, Verdict::Pass]);
    run.case(
        "node-port[ipv4]",
        &["NP-1"],
        &[Verdict::Pass, Verdict::Pass],
    );
    run.characteristic(
        "reach[ipv4]",
        "affinity-over-ports",
        "shared",
        "Whether ports share affinity.",
    );
    let report = run.report();
    assert_eq!(report.exit_code, 0);
    golden("pass", &report);
}

#[test]
fn waived() {
    let mut run = Run::new(1);
    run.case("reach[ipv4]", &["SVC-1"], &[Verdict::Fail]).case(
        "refuse[ipv4]",
        &["SVC-2"],
        &[Verdict::Pass],
    );
    run.start.waivers = vec![waiver("reach[ipv4]", 2026), waiver("refuse[ipv4]", 2026)];
    golden("waived", &run.report());
}

#[test]
fn without_canaries() {
    let mut run = Run::new(1);
    run.case("reach[ipv4]", &["SVC-1"], &[Verdict::Pass]);
    run.start.options.canaries.clear();
    golden("without-canaries", &run.report());
}

#[test]
fn fail() {
    let mut run = Run::new(3);
    run.case("reach[ipv4]", &["SVC-1", "SVC-2"], &[Verdict::Fail; 3]);
    run.case("node-port[ipv4]", &["NP-1"], &[Verdict::Pass; 3]);
    let report = run.report();
    assert_eq!(report.exit_code, 1);
    golden("fail", &report);
}

#[test]
fn flaky_beyond_the_budget() {
    let mut run = Run::new(3);
    run.case(
        "reach[ipv4]",
        &["SVC-1"],
        &[Verdict::Pass, Verdict::Fail, Verdict::Pass],
    );
    let report = run.report();
    assert_eq!(report.exit_code, 3);
    golden("flaky", &report);
}

#[test]
fn flaky_within_the_budget() {
    let mut run = Run::new(2);
    run.start.options.flake_budget = 1;
    run.case("reach[ipv4]", &["SVC-1"], &[Verdict::Pass, Verdict::Fail]);
    let report = run.report();
    assert_eq!(report.exit_code, 0);
    assert_eq!(report.exit_code(0), 3);
    golden("flaky-tolerated", &report);
}

#[test]
fn infra() {
    let mut run = Run::new(2);
    run.case("reach[ipv4]", &["SVC-1"], &[Verdict::Pass, Verdict::Infra]);
    run.case(
        "node-port[ipv4]",
        &["NP-1"],
        &[Verdict::Infra, Verdict::Infra],
    );
    let report = run.report();
    assert_eq!(report.exit_code, 4);
    golden("infra", &report);
}

#[test]
fn skip() {
    let mut run = Run::new(1);
    run.case("reach[ipv4]", &["SVC-1"], &[Verdict::Pass]);
    run.plan("sctp[ipv4]", &["SVC-1"]).skip = Some(fixture::skip(SkipKind::CandidateUnsupported));
    run.case("late[ipv4]", &["NP-1"], &[Verdict::Skip]);
    let report = run.report();
    assert_eq!(report.exit_code, 0);
    golden("skip", &report);
}

#[test]
fn nothing_ran() {
    let mut run = Run::new(1);
    run.plan("sctp[ipv4]", &["SVC-1"]).skip = Some(fixture::skip(SkipKind::ToolMissing));
    let report = run.report();
    assert_eq!(report.exit_code, 5);
    golden("nothing-ran", &report);
}

#[test]
fn not_run() {
    let mut run = Run::new(1);
    run.case("reach[ipv4]", &["SVC-1"], &[Verdict::Pass]);
    run.plan("node-port[ipv4]", &["NP-1"]);
    run.end = Some(FinishReason::Interrupted);
    let report = run.report();
    assert_eq!(report.exit_code, 4);
    golden("not-run", &report);
}

#[test]
fn everything_at_once() {
    let mut run = Run::new(2);
    run.case("a-pass[ipv4]", &["SVC-1"], &[Verdict::Pass; 2]);
    run.case("b-fail[ipv4]", &["SVC-1"], &[Verdict::Fail; 2]);
    run.case("c-flaky[ipv4]", &["SVC-2"], &[Verdict::Fail, Verdict::Pass]);
    run.last_failure().requirements = vec!["SVC-2".into()];
    run.case("d-infra[ipv4]", &["NP-1"], &[Verdict::Infra; 2]);
    run.case("e-skip[ipv4]", &["NP-1"], &[Verdict::Skip; 2]);
    run.plan("f-not-run[ipv4]", &["NP-1"]);
    run.end = None;
    let report = run.report();
    assert_eq!(report.exit_code, 1);
    golden("mixed", &report);
}

#[test]
fn classified() {
    let mut run = Run::new(1);
    run.case("broken[ipv4]", &["SVC-1"], &[Verdict::Fail]);
    run.case("broken[ipv6]", &["SVC-1"], &[Verdict::Fail]);
    run.case("flaky[ipv4]", &["SVC-2"], &[Verdict::Fail]);
    run.last_failure().requirements = vec!["SVC-2".into()];
    run.case("busy[ipv4]", &["NP-1"], &[Verdict::Fail]);
    run.last_failure().requirements = vec!["NP-1".into()];
    for (case, experiment, failed, attempts) in [
        ("broken[ipv6]", Experiment::Alone, 1, 1),
        ("broken[ipv6]", Experiment::Reference, 0, 5),
        ("broken[ipv6]", Experiment::Direct, 0, 5),
        ("broken[ipv6]", Experiment::Alone, 4, 4),
        ("broken[ipv6]", Experiment::Patient, 1, 1),
        ("flaky[ipv4]", Experiment::Reference, 0, 5),
        ("flaky[ipv4]", Experiment::Direct, 0, 5),
        ("flaky[ipv4]", Experiment::Alone, 1, 5),
        ("busy[ipv4]", Experiment::Alone, 0, 5),
        ("busy[ipv4]", Experiment::Reference, 0, 5),
        ("busy[ipv4]", Experiment::Direct, 0, 5),
        ("busy[ipv4]", Experiment::Contention, 5, 5),
        ("busy[ipv4]", Experiment::ReferenceContention, 0, 5),
    ] {
        run.experiment(case, experiment, failed, attempts, 0);
    }
    let report = run.report();
    assert_eq!(report.exit_code, 1);
    golden("classified", &report);
}

#[test]
fn hostile_texts_stay_texts() {
    let report = hostile().report();
    golden("hostile", &report);
}
