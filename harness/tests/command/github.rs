//! What `certify`, `run` and `soak` leave on GitHub Actions. The texts are tested where they are made (`reports/tests/github.rs`).

use std::{fs, path::Path, process::Command};

use crate::support::{Finished, directory, harness, scenario, worlds, write};

fn finish(mut command: Command) -> Finished {
    let output = command.output().expect("the binary runs");
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// One failing case, in a step that has said something already.
fn failing(root: &Path, args: &[&str]) -> Command {
    write(root, "one.yaml", &scenario("300ms", ""));
    write(root, "summary.md", "# An earlier step\n");
    let mut command = harness(root, args);
    command
        .args(["--candidate", "null", "--filter", "family=ipv4"])
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_STEP_SUMMARY", root.join("summary.md"));
    command
}

fn annotations(finished: &Finished) -> Vec<&str> {
    let lines = finished.stdout.lines();
    lines.filter(|line| line.starts_with("::")).collect()
}

#[test]
fn a_failure_is_annotated_and_in_the_summary_of_the_step() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let root = directory.path();
    let finished = finish(failing(
        root,
        &["run", "one.yaml", "--no-classify", "--out", "out"],
    ));
    let finished = finished.exits(1);
    let told = annotations(&finished);
    assert_eq!(told.len(), 1, "{finished:#?}");
    assert!(
        told[0].starts_with("::error title=fails%3A one-endpoint[ipv4]::"),
        "{told:?}"
    );
    assert!(
        told[0].ends_with("%0Aevidence: cases/one-endpoint[ipv4]/1"),
        "{told:?}"
    );
    let summary = fs::read_to_string(root.join("summary.md")).unwrap();
    let report = fs::read_to_string(root.join("out/report.md")).unwrap();
    assert_eq!(summary, format!("# An earlier step\n{report}"));
}

#[test]
fn elsewhere_nothing_is_said() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let root = directory.path();
    let mut command = failing(root, &["run", "one.yaml", "--no-classify", "--out", "out"]);
    command
        .env("GITHUB_ACTIONS", "false")
        .env_remove("GITHUB_STEP_SUMMARY");
    let finished = finish(command).exits(1);
    assert_eq!(annotations(&finished), Vec::<&str>::new());
    let summary = fs::read_to_string(root.join("summary.md")).unwrap();
    assert_eq!(summary, "# An earlier step\n");
}

#[test]
fn a_summary_that_cannot_be_written_changes_nothing() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let root = directory.path();
    let mut command = failing(root, &["run", "one.yaml", "--no-classify", "--out", "out"]);
    command.env("GITHUB_STEP_SUMMARY", root.join("no/such/place"));
    let finished = finish(command)
        .exits(1)
        .says("warning: GITHUB_STEP_SUMMARY: ");
    assert_eq!(annotations(&finished).len(), 1);
}

#[test]
fn a_soak_tells_too_and_writes_tap_on_request() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let root = directory.path();
    write(root, "summary.md", "");
    let mut command = harness(
        root,
        &[
            "soak",
            "--until-confidence",
            "rate<40% @90%",
            "--filter",
            "scenario:clusterip-basic and protocol=TCP and family=ipv4",
            "--no-canary",
            "--tap",
            "--out",
            "out",
        ],
    );
    command
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_STEP_SUMMARY", root.join("summary.md"));
    let finished = finish(command).exits(0);
    let summary = fs::read_to_string(root.join("summary.md")).unwrap();
    let report = fs::read_to_string(root.join("out/report.md")).unwrap();
    assert_eq!(summary, report, "{finished:#?}");
    // Nothing failed.
    assert_eq!(annotations(&finished), Vec::<&str>::new());
    let tap = fs::read_to_string(root.join("out/report.tap")).unwrap();
    assert!(tap.starts_with("TAP version 14\n"), "{tap}");
}
