//! `harness diff`: two candidates compared, by running both and by the reports of earlier runs.

use serde_json::Value;

use crate::support::{directory, run, worlds, write};

/// Few cases with a positive expectation in each of them.
const CASES: &str = "clusterip-basic or publish-not-ready";

#[test]
fn a_proxy_does_not_differ_from_itself() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let args = [
        "diff",
        "--candidate",
        "reference",
        "--against",
        "reference",
        "--filter",
        CASES,
        "--seed",
        "7",
        "--out",
        "out",
    ];
    let finished = run(directory.path(), &args).exits(0);
    assert!(
        finished
            .stdout
            .contains("none of 8 cases differs, no choice is made differently"),
        "{finished:?}"
    );
    // Both runs are complete, and can be compared again without running anything.
    let again = run(directory.path(), &["diff", "out/candidate", "out/against"]).exits(0);
    assert_eq!(again.stdout, finished.stdout);
    for side in ["candidate", "against"] {
        let report = crate::support::report(&directory.path().join("out").join(side));
        assert_eq!(report["options"]["seed"], 7, "{side}");
        assert_eq!(report["conclusion"], "conformant", "{side}");
    }
}

#[test]
fn a_proxy_that_does_nothing_differs_everywhere() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let args = [
        "diff",
        "--candidate",
        "null",
        "--against",
        "reference",
        "--filter",
        CASES,
        "--format",
        "json",
        "--out",
        "out",
    ];
    let finished = run(directory.path(), &args).exits(1);
    let difference: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(difference["compared"], 8, "{difference:#}");
    assert_eq!(difference["differing"], 8, "{difference:#}");
    let ids: Vec<_> = difference["requirements"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|requirement| {
            assert_eq!(requirement["against"], "pass", "{requirement:#}");
            assert_eq!(requirement["candidate"], "fail", "{requirement:#}");
            requirement["id"].as_str().expect("an id").to_owned()
        })
        .collect();
    assert!(ids.contains(&"SVC-CIP-1".to_owned()), "{ids:?}");
    assert!(ids.contains(&"EP-13".to_owned()), "{ids:?}");
}

#[test]
fn bad_input_is_refused() {
    let directory = directory();
    run(directory.path(), &["diff", "--candidate", "reference"])
        .exits(2)
        .says("--against");
    run(directory.path(), &["diff", "nowhere", "elsewhere"])
        .exits(2)
        .says("nowhere/report.json: it cannot be read");
    write(directory.path(), "report.json", "{}");
    run(directory.path(), &["diff", ".", "."])
        .exits(2)
        .says("report.json: read report: missing field");
    run(
        directory.path(),
        &["diff", ".", ".", "--candidate", "reference"],
    )
    .exits(2);
}
