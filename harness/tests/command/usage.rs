//! Bad input: exit code 2, and one message that says where.

use crate::support::{directory, run, write};

#[test]
fn flags_and_values_that_do_not_exist() {
    let directory = directory();
    for (args, want) in [
        (&["certify", "--frobnicate"][..], "--frobnicate"),
        (&["certify", "--seed", "x"], "--seed"),
        (&["certify", "--runs", "0"], "--runs"),
        (&["certify", "--profile", "hard"], "core"),
        (
            &["certify", "--until-confidence", "1%"],
            "a claim is like 'rate<1% @95%'",
        ),
        (&["certify", "--until-confidence", "rate<1%"], "no '@'"),
        (
            &["certify", "--until-confidence", "rate<1% @95%", "--stress"],
            "cannot be used with",
        ),
        (
            &[
                "certify",
                "--until-confidence",
                "rate<1% @95%",
                "--shard",
                "1/2",
            ],
            "cannot be used with",
        ),
        (&["certify", "--for", "10m"], "--for needs --stress"),
        (
            &["certify", "--stress", "--for", "soon"],
            "'soon' is not a duration",
        ),
        (&["certify", "--shard", "1/2"], "--shard needs --seed"),
        (
            &["certify", "--shard", "3/2", "--seed", "1"],
            "counted from 1",
        ),
        (
            &["certify", "--shard", "auto/2", "--seed", "1"],
            "JOB_COMPLETION_INDEX is not set",
        ),
        (
            &["certify", "--shard", "1/2", "--seed", "1", "--stress"],
            "--shard with --stress needs --runs",
        ),
        (&["certify", "--resume", "nothing"], "holds no run"),
        (&["soak"], "--for"),
        (&["soak", "--resume", "nothing"], "holds no run"),
        (&["status", "nothing"], "holds no run"),
        (&["certify", "--provider", "cloud"], "netns"),
        (
            &["bench", "--services", "many"],
            "--services: 'many' is not a number of Services",
        ),
        (
            &["bench", "--services", "10", "--endpoints", "0"],
            "--endpoints: there can be 1 to",
        ),
        (
            &["explain", "SVC-NONE-1"],
            "'SVC-NONE-1' is no requirement, scenario, case, bug or upstream spec",
        ),
        (&["nonsense"], "nonsense"),
        (&[], "Usage"),
    ] {
        run(directory.path(), args).exits(2).says(want);
    }
    let left: Vec<_> = directory.path().read_dir().expect("readable").collect();
    assert!(
        left.is_empty(),
        "bad usage must not write anything: {left:?}"
    );
}

#[test]
fn a_bad_filter_is_pointed_at() {
    let directory = directory();
    for (filter, want) in [
        ("a and", "filter column 6: "),
        ("(a or b", "filter column 8: ')' is missing"),
        ("aria:x", "filter column 1: unknown property 'aria'"),
    ] {
        let finished = run(directory.path(), &["certify", "--filter", filter])
            .exits(2)
            .says(want);
        let lines: Vec<&str> = finished.stderr.lines().collect();
        let at = lines
            .iter()
            .position(|line| line.trim_end() == format!("  {filter}"))
            .expect("the filter is shown");
        let column: usize = want
            .trim_start_matches("filter column ")
            .split(':')
            .next()
            .and_then(|n| n.parse().ok())
            .expect("a column");
        assert_eq!(
            lines[at + 1].find('^'),
            Some(column + 1),
            "{}",
            finished.stderr
        );
    }
}

#[test]
fn a_directory_that_holds_a_run_or_cannot_be_made() {
    let directory = directory();
    std::fs::create_dir(directory.path().join("earlier")).expect("writable");
    write(&directory.path().join("earlier"), "events.jsonl", "");
    write(directory.path(), "file", "");
    for (out, want) in [
        ("earlier", "holds an earlier run"),
        ("file/below", "cannot be created"),
    ] {
        let args = ["certify", "--filter", "clusterip-basic", "--out", out];
        run(directory.path(), &args)
            .exits(2)
            .says(&format!("--out {out}: "))
            .says(want);
    }
}

#[test]
fn manifests_that_cannot_be_used() {
    let directory = directory();
    write(
        directory.path(),
        "typo.yaml",
        "name: x\nprocess:\n  comand: []\n",
    );
    write(
        directory.path(),
        "gone.yaml",
        "name: x\nprocess: {command: [/nonexistent/proxy]}\n",
    );
    write(
        directory.path(),
        "tool.yaml",
        "name: x\nprocess: {command: [], needs: [no-such-tool-here]}\n",
    );
    for (manifest, code, want) in [
        ("typo.yaml", 2, "typo.yaml:3: "),
        (
            "gone.yaml",
            2,
            "gone.yaml: program '/nonexistent/proxy' cannot be run",
        ),
        ("absent.yaml", 2, "absent.yaml: cannot be read"),
        ("tool.yaml", 4, "needs 'no-such-tool-here' on PATH"),
    ] {
        run(directory.path(), &["certify", "--candidate", manifest])
            .exits(code)
            .says(want);
    }
}

#[test]
fn nothing_is_selected() {
    let directory = directory();
    let finished = run(
        directory.path(),
        &["certify", "--filter", "no-such-case", "--out", "out"],
    )
    .exits(5);
    assert!(finished.stdout.contains("nothing ran"), "{finished:?}");
    run(directory.path(), &["list", "--filter", "no-such-case"]).exits(5);
}

#[test]
fn help_and_version_are_no_errors() {
    let directory = directory();
    for command in [
        "certify", "run", "repro", "list", "explain", "doctor", "cluster", "clean", "schema",
        "bench", "sign", "verify", "submit",
    ] {
        let finished = run(directory.path(), &[command, "--help"]).exits(0);
        assert!(finished.stdout.contains("Usage: harness"), "{finished:?}");
    }
    let finished = run(directory.path(), &["--help"]).exits(0);
    assert!(
        finished.stdout.contains("Exit codes: 0 conformant"),
        "{finished:?}"
    );
    let finished = run(directory.path(), &["--version"]).exits(0);
    assert_eq!(
        finished.stdout.trim(),
        format!("harness {}", env!("CARGO_PKG_VERSION"))
    );
}
