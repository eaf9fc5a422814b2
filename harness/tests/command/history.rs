//! `harness history`: the command on result directories. What it computes is tested where that is done (`reports/tests/history.rs`).

use serde_json::Value;

use crate::{
    prepared::Prepared,
    support::{directory, run},
};

#[test]
fn runs_are_imported_shown_and_forgotten() {
    let directory = directory();
    let root = directory.path();
    for n in 1..=3_u32 {
        let mut prepared = Prepared::new(&format!("run-{n}"), 4, None);
        if n == 2 {
            prepared.fails = vec![("two[ipv4]", 3)];
        }
        prepared.write(&root.join(format!("{n}")));
    }
    let history = |args: &[&str]| run(root, &[&["history"], args].concat());
    history(&["show"])
        .exits(2)
        .says("there is no history; `harness history import DIR...` makes one");
    let added = history(&["import", "1", "2"]).exits(0);
    assert_eq!(added.stdout, "1: run-1 added\n2: run-2 added\n");
    let known = history(&["import", "3", "1"]).exits(0);
    assert_eq!(known.stdout, "3: run-3 added\n1: run-1 is there already\n");
    assert!(root.join("harness-history.sqlite").is_file());

    let shown = history(&["show"]).exits(0);
    assert!(
        shown.stdout.starts_with("3 runs of 1 candidate\n"),
        "{shown:?}"
    );
    let case = history(&["show", "two[ipv4]"]).exits(0);
    assert!(
        case.stdout
            .contains("1.0              1 of 12 failed: 8.3 % [0.21 %, 38 %], in 3 runs"),
        "{case:?}"
    );
    let candidate = history(&["show", "--candidate", "example-proxy"]).exits(0);
    assert!(
        candidate.stdout.contains("3 cases, failures ever in 1"),
        "{candidate:?}"
    );
    let flakes = history(&["flakes"]).exits(0);
    assert!(flakes.stdout.starts_with("1 case is flaky"), "{flakes:?}");
    assert!(
        flakes
            .stdout
            .contains("1 x SVC-CIP-1 attempt unrecorded (since"),
        "{flakes:?}"
    );
    let json: Value =
        serde_json::from_str(&history(&["flakes", "--format", "json"]).stdout).unwrap();
    assert_eq!(json[0]["rate"]["failed"], 1);
    let clean = history(&["clean-runs", "two[ipv4]", "--format", "json"]).exits(0);
    let clean: Value = serde_json::from_str(&clean.stdout).unwrap();
    assert_eq!(
        (&clean[0]["runs"], &clean[0]["runIds"][0]),
        (&1.into(), &"run-3".into())
    );
    let export: Value = serde_json::from_str(&history(&["export"]).exits(0).stdout).unwrap();
    assert_eq!(export["formatVersion"], 1);
    assert_eq!(
        export["candidates"][0]["cases"].as_array().unwrap().len(),
        3
    );

    history(&["prune", "--keep", "180d"]).exits(0);
    let pruned = history(&["prune", "--keep", "0s"]).exits(0);
    assert_eq!(pruned.stdout, "3 runs forgotten, 0 left\n");
}

#[test]
fn bad_input_is_one_message() {
    let directory = directory();
    let root = directory.path();
    std::fs::write(
        root.join("notes.txt"),
        "no database, and longer than a header of one ".repeat(9),
    )
    .unwrap();
    std::fs::create_dir(root.join("empty")).unwrap();
    Prepared::new("run-1", 1, None).write(&root.join("1"));
    let history = |args: &[&str]| run(root, &[&["history"], args].concat());
    history(&["import", "1", "--db", "notes.txt"])
        .exits(2)
        .says("not a history of test runs");
    // Nothing is imported if one of the directories cannot be.
    history(&["import", "1", "empty"])
        .exits(2)
        .says("empty: neither events.jsonl nor report.json can be read there");
    assert!(!root.join("harness-history.sqlite").exists());
    history(&["import", "1"]).exits(0);
    history(&["show", "nobody"]).exits(2).says("case nobody");
    history(&["clean-runs", "nobody"])
        .exits(2)
        .says("case nobody");
    history(&["show", "--candidate", "nobody"])
        .exits(2)
        .says("--candidate nobody: not in harness-history.sqlite; it has example-proxy");
    run(
        root,
        &[
            "soak",
            "--for",
            "1h",
            "--history",
            "notes.txt",
            "--out",
            "soak",
        ],
    )
    .exits(2)
    .says("not a history of test runs");
    assert!(!root.join("soak").exists());
    history(&["prune", "--keep", "yesterday"])
        .exits(2)
        .says("--keep");
    history(&["prune", "--keep=-3d"]).exits(2).says("--keep");
}

#[test]
fn two_runs_are_compared() {
    let directory = directory();
    let root = directory.path();
    Prepared::new("before", 30, None).write(&root.join("before"));
    let mut after = Prepared::new("after", 30, None);
    after.fails = (1..=15).map(|n| ("two[ipv4]", n)).collect();
    after.write(&root.join("after"));
    let compare = |args: &[&str]| run(root, &[&["compare"], args].concat());
    let worse = compare(&["before", "after"]).exits(1);
    assert!(
        worse
            .stdout
            .contains("Flakier (1)\n  two[ipv4]: 0/30 failed -> 15/30 failed, p "),
        "{worse:?}"
    );
    let better = compare(&["after", "before"]).exits(0);
    assert!(better.stdout.contains("Fixed (1)"), "{better:?}");
    after.killed_after = Some(3);
    after.fails.clear();
    after.write(&root.join("killed"));
    compare(&["before", "killed"]).exits(4);
    compare(&["before", "nothing"])
        .exits(2)
        .says("nothing: neither events.jsonl nor report.json");
    let json: Value =
        serde_json::from_str(&compare(&["before", "after", "--format", "json"]).stdout).unwrap();
    assert_eq!(json["flakier"][0]["case"], "two[ipv4]");
}
