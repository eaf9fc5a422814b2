//! The hunt: it finds, shrinks, explains, and what it writes fails again by itself.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;

use crate::support::{directory, run, worlds};

#[test]
fn a_candidate_that_does_nothing_is_found_shrunk_and_explained() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let args = [
        "hunt",
        "--candidate",
        "null",
        "--seed",
        "3",
        "--documents",
        "1",
        "--stop-after",
        "1",
        "--jobs",
        "1",
        "--shrink-for",
        "45s",
        "--out",
        "out",
    ];
    let finished = run(directory.path(), &args).exits(1);
    assert!(finished.stdout.contains("\npairs met: "), "{finished:?}");
    let text =
        fs::read_to_string(directory.path().join("out/hunt.json")).expect("hunt.json is written");
    let summary: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(summary["documents"], 1, "{text}");
    let found = &summary["found"][0];
    assert_eq!(found["standing"], "counterexample", "{text}");
    assert!(found["attemptsToShrink"].as_u64() > Some(0), "{text}");
    let (steps, before) = (found["steps"].as_u64(), found["stepsFound"].as_u64());
    assert!(steps < before && steps <= Some(10), "{text}");
    assert!(summary["coverage"]["met"].as_u64() > Some(20), "{text}");
    let scenario: PathBuf = directory
        .path()
        .join("out")
        .join(found["scenario"].as_str().expect("a path"));
    let explanation =
        fs::read_to_string(scenario.with_file_name("explanation.md")).expect("it is explained");
    for part in [
        "null does not do what",
        "expected ",
        "seen: ",
        "The reference proxy passes it.",
    ] {
        assert!(explanation.contains(part), "{part}: {explanation}");
    }
    let evidence = scenario.parent().expect("a directory").join("cases");
    assert!(
        evidence.is_dir(),
        "the evidence of one attempt is beside it"
    );
    let scenario = scenario.to_str().expect("text");
    run(
        directory.path(),
        &["run", scenario, "--candidate", "null", "--out", "again"],
    )
    .exits(1);
    run(directory.path(), &["run", scenario, "--out", "reference"]).exits(0);
    run(directory.path(), &args)
        .exits(2)
        .says("it holds an earlier hunt");
}

#[test]
fn histories_are_printed_and_are_documents() {
    let directory = directory();
    let args = ["hunt", "--print", "--seed", "5", "--documents", "3"];
    let first = run(directory.path(), &args).exits(0).stdout;
    assert_eq!(
        first,
        run(directory.path(), &args).exits(0).stdout,
        "the same seed"
    );
    let ids: BTreeSet<&str> = first
        .lines()
        .filter(|line| line.starts_with("id: "))
        .collect();
    assert_eq!(ids, ["id: hunt-5-1", "id: hunt-5-2", "id: hunt-5-3"].into());
}

#[test]
fn what_cannot_be_hunted_is_said() {
    let directory = directory();
    for (args, says) in [
        (&["hunt", "--for", "soon"][..], "'soon' is not a duration"),
        (&["hunt", "--candidate", "nowhere.yaml"][..], "nowhere.yaml"),
        (
            &["hunt", "--candidate", "null", "--mutant", "stale-kept"][..],
            "cannot be used with",
        ),
    ] {
        run(directory.path(), args).exits(2).says(says);
    }
}
