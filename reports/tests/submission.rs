//! Submissions: the files of a result say the same, everything is there, and the page says how to see it again.

mod fixture;

use std::path::Path;

use fixture::{Run, hostile};
use proptest::prelude::*;
use reports::directory::Writing;
use reports::event::{EventBody, Invocation, Mode, RunStarted, SkipKind, Verdict};
use reports::sign::files::{Entry, Listing};
use reports::sign::{Findings, Kind};
use reports::submission::{agree, complete, readme, reproduce};
use tempfile::TempDir;

const VERSION: &str = "0.1.0";

/// Writes a run as a runner does, with all reports.
fn write(run: &Run) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut writing = Writing::create(dir.path()).unwrap();
    for event in run.events() {
        writing.record(event.body).unwrap();
    }
    writing.finish().unwrap();
    dir
}

fn small() -> Run {
    let mut run = Run::new(2);
    run.case("reach[ipv4]", &["SVC-1"], &[Verdict::Pass, Verdict::Pass]);
    run.case("refuse[ipv4]", &["SVC-2"], &[Verdict::Fail, Verdict::Pass]);
    run
}

fn findings(dir: &Path, version: &str) -> Findings {
    let mut findings = Findings::default();
    agree(dir, version, &mut findings).unwrap();
    findings
}

fn edit(dir: &Path, name: &str, from: &str, to: &str) {
    let path = dir.join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{name} has {from:?}: {text}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn what_was_written_agrees() {
    for run in [small(), hostile()] {
        let dir = write(&run);
        assert_eq!(findings(dir.path(), VERSION), Findings::default());
        assert_eq!(findings(dir.path(), "9.9.9"), Findings::default());
    }
}

#[test]
fn a_file_that_says_something_else_is_told() {
    for (name, from, to, kind, says) in [
        (
            "report.json",
            "\"verdict\": \"flaky\"",
            "\"verdict\": \"pass\"",
            Kind::Report,
            "in /areas/0/verdict",
        ),
        // What a reader of the model would not see.
        (
            "report.json",
            "{\n",
            "{\n  \"more\": 1,\n",
            Kind::Report,
            "in /more",
        ),
        (
            "report.json",
            "  ",
            "   ",
            Kind::Report,
            "not written the way",
        ),
        (
            "report.json",
            "{",
            "[",
            Kind::Report,
            "report.json: read report",
        ),
        (
            "junit.xml",
            "type=\"flaky\"",
            "type=\"solid\"",
            Kind::Junit,
            "though all results are the same",
        ),
        (
            "junit.xml",
            "<testcase name=\"reach[ipv4]\"",
            "<testcase name=\"other[ipv4]\"",
            Kind::Junit,
            "other[ipv4] (success, by the log absent), reach[ipv4] (absent, by the log success)",
        ),
        (
            "junit.xml",
            "<testsuites",
            "<testsuite",
            Kind::Junit,
            "junit.xml: ",
        ),
        (
            "report.md",
            "flaky",
            "steady",
            Kind::Markdown,
            "not what the event log makes",
        ),
        // Who changes the log changes what all reports should say.
        (
            "events.jsonl",
            "\"verdict\":\"fail\"",
            "\"verdict\":\"skip\"",
            Kind::Report,
            "not what the event log says",
        ),
        (
            "events.jsonl",
            "\"type\":\"attemptFinished\"",
            "\"type\":\"dance\"",
            Kind::Log,
            "dance",
        ),
    ] {
        let dir = write(&small());
        edit(dir.path(), name, from, to);
        let found = findings(dir.path(), VERSION);
        let told = found.broken.iter().find(|finding| finding.kind == kind);
        assert!(
            told.is_some_and(|finding| finding.what.contains(says)),
            "{name}: {from:?}: {found:?}"
        );
    }
}

#[test]
fn a_file_that_is_gone_is_told() {
    for name in ["report.json", "junit.xml", "report.md", "events.jsonl"] {
        let dir = write(&small());
        std::fs::remove_file(dir.path().join(name)).unwrap();
        let found = findings(dir.path(), VERSION);
        let missing = found
            .broken
            .iter()
            .any(|f| f.kind == Kind::Missing && f.what == name);
        // Reports are compared with the log, so they are not looked at without it.
        assert!(missing, "{name}: {found:?}");
        // A link is no file of the directory, wherever it leads.
        std::os::unix::fs::symlink("/dev/zero", dir.path().join(name)).unwrap();
        assert_eq!(findings(dir.path(), VERSION), found);
    }
}

/// Another version may write its reports in another way, but not with other results.
#[test]
fn of_another_version_results_are_compared() {
    let dir = write(&small());
    edit(dir.path(), "report.json", "{\n", "{\n  \"more\": 1,\n");
    edit(dir.path(), "junit.xml", "type=\"flaky\"", "type=\"solid\"");
    edit(dir.path(), "report.md", "flaky", "steady");
    assert_eq!(findings(dir.path(), "9.9.9"), Findings::default());
    edit(
        dir.path(),
        "report.json",
        "\"exitCode\": 3",
        "\"exitCode\": 0",
    );
    let found = findings(dir.path(), "9.9.9");
    assert_eq!(
        (found.broken.len(), found.unknown.len()),
        (0, 1),
        "{found:?}"
    );
    edit(dir.path(), "junit.xml", "reach[ipv4]", "other[ipv4]");
    assert!(findings(dir.path(), "9.9.9").has(Kind::Junit));
    let newer = write(&small());
    edit(
        newer.path(),
        "report.json",
        "\"formatVersion\": 1",
        "\"formatVersion\": 9",
    );
    let found = findings(newer.path(), VERSION);
    assert!(
        found.unknown[0].what.contains("format version 9"),
        "{found:?}"
    );
}

#[test]
fn a_run_that_is_not_all_of_one_is_told() {
    let told = |run: &Run, files: &Listing| {
        let mut findings = Findings::default();
        complete(&run.report(), files, &mut findings);
        let line = |f: &reports::sign::Finding| format!("{}: {}", f.kind.as_str(), f.what);
        findings.broken.iter().map(line).collect::<Vec<_>>()
    };
    let evidence = |path: &str| Listing::from([(path.to_owned(), Entry::File)]);
    let there = evidence("cases/refuse[ipv4]/1/matrix.txt");
    assert_eq!(told(&small(), &there), Vec::<String>::new());
    for path in ["cases/refuse[ipv4]/10/matrix.txt", "cases/refuse[ipv4]/1"] {
        let told = told(&small(), &evidence(path));
        assert_eq!(
            told,
            ["evidence: attempt 1 of refuse[ipv4]: its evidence cases/refuse[ipv4]/1 is not there"]
        );
    }
    for outside in ["../cases", "/etc", "", "cases/../.."] {
        let mut run = small();
        for body in &mut run.body {
            if let EventBody::AttemptFinished(finished) = body {
                finished.evidence = finished.evidence.as_ref().map(|_| outside.into());
            }
        }
        assert!(
            told(&run, &there)[0].contains("is outside the folder"),
            "{outside}"
        );
    }
    let mut killed = small();
    killed.end = None;
    assert!(told(&killed, &there)[0].starts_with("partial: the run is incomplete: "));
    let mut short = small();
    short.start.options.runs = 3;
    assert!(told(&short, &there)[0].starts_with("partial: "));
    let mut shard = small();
    shard.start.options.shard = Some("1/2".parse().unwrap());
    assert!(
        told(&shard, &there)
            .iter()
            .any(|told| told.contains("it is shard 1/2"))
    );
    assert_eq!(told(&Run::new(1), &there), ["partial: no case was planned"]);
    let mut stopped = small();
    stopped.plan("late[ipv4]", &["NP-1"]);
    let all = told(&stopped, &there);
    assert!(
        all.contains(&"not-run: planned and never tried: late[ipv4]".to_owned()),
        "{all:?}"
    );
    let mut silent = small();
    silent.plan("sctp[ipv4]", &["SVC-1"]).skip = Some(fixture::skip(SkipKind::ToolMissing));
    assert_eq!(told(&silent, &there), Vec::<String>::new());
    silent.start.cases[2].skip.as_mut().unwrap().reason = " ".into();
    assert_eq!(
        told(&silent, &there),
        ["skip: sctp[ipv4]: skipped (tool-missing) without a reason"]
    );
    let mut unsaid = small();
    unsaid.case("late[ipv4]", &["NP-1"], &[Verdict::Skip, Verdict::Skip]);
    for body in &mut unsaid.body {
        if let EventBody::AttemptFinished(finished) = body {
            finished.skip = None;
        }
    }
    assert_eq!(
        told(&unsaid, &there),
        ["skip: late[ipv4]: skipped, and nobody says why"]
    );
}

fn called(run: &mut Run, candidate: &str) {
    run.start.invocation = Some(Invocation {
        command: "certify".into(),
        candidate: candidate.into(),
        manifest_digest: "sha256:cafe".into(),
        files: Vec::new(),
    });
}

#[test]
fn the_page_says_what_a_reviewer_asks() {
    let mut run = small();
    called(&mut run, "/home/jane/my proxy.yaml");
    insta::assert_snapshot!("readme", readme(&run.report(), &run.start, true));
    run.end = None;
    let page = readme(&run.report(), &run.start, false);
    assert!(page.contains("**Incomplete**: "), "{page}");
    assert!(
        page.contains("harness certify --candidate MANIFEST "),
        "{page}"
    );
}

#[test]
fn nothing_acts_in_the_page() {
    let mut run = hostile();
    called(&mut run, fixture::HOSTILE);
    run.start.options.filter = Some(format!("'{}```\n# x", fixture::HOSTILE));
    let page = readme(&run.report(), &run.start, true);
    for c in page.chars() {
        assert!(c == '\n' || !c.is_control(), "{c:?} acts in a terminal");
    }
    let block = page.split("```sh\n").nth(1).unwrap();
    let command = block.lines().next().unwrap();
    assert!(command.starts_with("harness certify "), "{command}");
    assert_eq!(block.lines().nth(1), Some("```"), "the command is one line");
    assert!(!page.contains("\n# x"), "{page}");
}

#[test]
fn the_command_is_that_of_the_run() {
    let base = || {
        let mut run = small();
        called(&mut run, "reference");
        run.start
    };
    let command = |change: &dyn Fn(&mut RunStarted)| {
        let mut start = base();
        change(&mut start);
        reproduce(&start, "candidate.yaml")
    };
    let reference = "harness certify --candidate reference --profile core";
    for (change, wanted) in [
        (
            &(|_: &mut RunStarted| ()) as &dyn Fn(&mut RunStarted),
            format!("{reference} --runs 2 --seed 42 --jobs 2"),
        ),
        (
            &|start| start.invocation.as_mut().unwrap().candidate = "/a/b.yaml".into(),
            "harness certify --candidate candidate.yaml --profile core --runs 2 --seed 42 --jobs 2"
                .into(),
        ),
        (
            &|start| start.options.filter = Some("area:udp and it's".into()),
            format!("{reference} --filter \"area:udp and it's\" --runs 2 --seed 42 --jobs 2"),
        ),
        (
            &|start| {
                start.options.until_confidence = Some("rate<1% @95%".parse().unwrap());
                start.options.flake_budget = 3;
            },
            format!(
                "{reference} --until-confidence 'rate<1% @95%' --runs 2 --seed 42 --jobs 2 --flake-budget 3"
            ),
        ),
        (
            &|start| {
                start.options.mode = Mode::Stress;
                start.options.runs = 0;
                start.options.for_ms = Some(90_500);
                start.options.fail_fast = true;
            },
            format!("{reference} --stress --for 90500ms --seed 42 --jobs 2 --fail-fast"),
        ),
        (
            &|start| {
                start.options.mode = Mode::Soak;
                start.options.for_ms = Some(28_800_000);
            },
            "harness soak --candidate reference --profile core --for 28800s --seed 42 --jobs 2"
                .into(),
        ),
        (
            &|start| start.options.shard = Some("2/8".parse().unwrap()),
            format!("{reference} --runs 2 --seed 42 --jobs 2 --shard 2/8"),
        ),
        (
            &|start| start.invocation.as_mut().unwrap().files = vec!["/a b/x.yaml".into()],
            "harness run '/a b/x.yaml' --candidate reference --runs 2 --seed 42 --jobs 2".into(),
        ),
    ] {
        assert_eq!(command(change), wanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What a runner writes from what it measured is, to the last digit, what its log says.
    #[test]
    fn reports_follow_from_the_log_to_the_last_digit(
        verdicts in proptest::collection::vec(0_u8..4, 1..6),
        durations in proptest::collection::vec(0.0_f64..1e7, 1..6),
    ) {
        let mut run = Run::new(verdicts.len() as u32);
        run.plan("reach[ipv4]", &["SVC-1"]);
        for (number, (verdict, duration)) in verdicts.iter().zip(durations.iter().cycle()).enumerate() {
            let all = [Verdict::Pass, Verdict::Fail, Verdict::Infra, Verdict::Skip];
            let attempt = run.attempt("reach[ipv4]", number as u32 + 1, all[usize::from(*verdict)]);
            attempt.duration_ms = *duration;
            attempt.convergence_ms = attempt.convergence_ms.map(|_| duration / 3.0);
        }
        let dir = write(&run);
        prop_assert_eq!(findings(dir.path(), VERSION), Findings::default());
    }
}
