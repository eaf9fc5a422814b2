//! `report.tap` and what reads it: it is red exactly when the exit code is not 0.

mod fixture;

use std::io::Write as _;
use std::process::{Command, Stdio};

use fixture::{HOSTILE, Run, hostile, skip};
use reports::event::{Experiment, FinishReason, SkipKind, Verdict};
use reports::shard::Shard;
use reports::{Report, tap};

use Verdict::{Fail, Infra, Pass, Skip};

/// A reader of the protocol, as its specification has it: whether the document is whole and everything in it is fine.
fn read(text: &str) -> Result<bool, String> {
    let mut lines = text.lines().peekable();
    if lines.next() != Some("TAP version 14") {
        return Err("no version".into());
    }
    let (mut planned, mut seen, mut fine, mut block) = (None, 0_u64, true, false);
    for line in lines {
        if block {
            block = line != "  ...";
            if !line.starts_with("  ") {
                return Err(format!("a diagnostic that is not indented: {line:?}"));
            }
            continue;
        }
        if line == "  ---" {
            block = true;
        } else if let Some(plan) = line.strip_prefix("1..") {
            let count = plan.split(' ').next().unwrap();
            planned = Some(count.parse::<u64>().map_err(|error| error.to_string())?);
        } else if let Some(rest) = line.strip_prefix("ok ").or(line.strip_prefix("not ok ")) {
            seen += 1;
            let (number, _) = rest
                .split_once(" - ")
                .ok_or(format!("no description: {line:?}"))?;
            if number != seen.to_string() {
                return Err(format!("{line:?} is number {seen}"));
            }
            let bare = line.replace("\\\\", "").replace("\\#", "");
            let directives = bare.matches('#').count();
            if directives > usize::from(bare.contains(" # SKIP ")) {
                return Err(format!("a directive that is none of ours: {line:?}"));
            }
            fine &= line.starts_with("ok ");
        } else if !line.starts_with('#') {
            return Err(format!("no line of the protocol: {line:?}"));
        }
    }
    match planned {
        Some(planned) if planned == seen && !block => Ok(fine),
        _ => Err(format!("{planned:?} planned, {seen} seen")),
    }
}

fn check(name: &str, report: &Report) -> String {
    let text = tap::render(report);
    match read(&text) {
        Ok(fine) => assert_eq!(fine, report.exit_code == 0, "{name}: {text}"),
        Err(error) => panic!("{name}: {error}\n{text}"),
    }
    text
}

fn mixed() -> Run {
    let mut run = Run::new(2);
    run.case("a-pass[ipv4]", &["SVC-1"], &[Pass; 2]);
    run.case("b-fail[ipv4]", &["SVC-1"], &[Fail; 2]);
    run.case("c-flaky[ipv4]", &["SVC-2"], &[Fail, Pass]);
    run.case("d-infra[ipv4]", &["NP-1"], &[Infra; 2]);
    run.case("e-skip#1[ipv4]", &["NP-1"], &[Skip; 2]);
    run.plan("f-not-run[ipv4]", &["NP-1"]);
    run.experiment("b-fail[ipv4]", Experiment::Alone, 5, 5, 0);
    run.end = Some(FinishReason::Interrupted);
    run
}

#[test]
fn every_kind_of_report_is_red_exactly_when_its_exit_code_is_not_0() {
    let one = |verdict| {
        let mut run = Run::new(1);
        run.case("one[ipv4]", &["SVC-1"], &[verdict]);
        run
    };
    let mut tolerated = Run::new(2);
    tolerated.start.options.flake_budget = 1;
    tolerated.case("c-flaky[ipv4]", &["SVC-2"], &[Fail, Pass]);
    let mut killed = one(Pass);
    killed.end = None;
    let mut planned = Run::new(1);
    planned.plan("sctp[ipv4]", &["SVC-1"]).skip = Some(skip(SkipKind::ToolMissing));
    let mut elsewhere = Run::new(1);
    let id = (0..).map(|n| format!("case-{n}"));
    let id = id
        .into_iter()
        .find(|id| !Shard { index: 1, of: 2 }.holds(id, 1))
        .unwrap();
    elsewhere.plan(&id, &["SVC-1"]);
    elsewhere.start.options.shard = Some(Shard { index: 1, of: 2 });
    for (name, run) in [
        ("pass", one(Pass)),
        ("fail", one(Fail)),
        ("infra", one(Infra)),
        ("skip", one(Skip)),
        ("tolerated", tolerated),
        ("killed", killed),
        ("planned", planned),
        ("nothing", Run::new(1)),
        ("elsewhere", elsewhere),
        ("mixed", mixed()),
        ("hostile", hostile()),
    ] {
        check(name, &run.report());
    }
}

#[test]
fn golden() {
    insta::assert_snapshot!("mixed.tap", check("mixed", &mixed().report()));
}

#[test]
fn hostile_texts_stay_in_their_line() {
    let text = check("hostile", &hostile().report());
    assert!(text.contains("evil.example"));
    for c in text.chars() {
        assert!(c == '\n' || !c.is_control(), "{c:?} acts in a terminal");
    }
    let inside = HOSTILE.split_whitespace().last().unwrap();
    assert!(
        !text
            .lines()
            .any(|line| line.trim_start().starts_with(inside))
    );
}

#[test]
fn prove_reads_it() {
    // The one that everybody has may be from before version 14: what is left is a document of version 13.
    let prove = |text: &str| -> Option<bool> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("report.tap");
        let mut written = std::fs::File::create(&file).unwrap();
        let text = text.replacen("TAP version 14", "TAP version 13", 1);
        written.write_all(text.as_bytes()).unwrap();
        let mut command = Command::new("prove");
        command.args(["--exec", "cat"]).arg(&file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = command.output().ok()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("Parse errors"), "{said}\n{text}");
        Some(output.status.success())
    };
    let mut pass = Run::new(1);
    pass.case("one[ipv4]", &["SVC-1"], &[Pass]);
    pass.case("two#[ipv4]", &["SVC-1"], &[Skip]);
    let Some(green) = prove(&tap::render(&pass.report())) else {
        eprintln!("SKIPPED: there is no prove on the path");
        return;
    };
    assert!(green);
    for run in [mixed(), hostile()] {
        assert_eq!(prove(&tap::render(&run.report())), Some(false));
    }
}
