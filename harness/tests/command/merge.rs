//! `harness merge`: its exit codes and messages. What is merged and how is tested where it is done (`reports/tests/merge.rs`).

use std::path::Path;

use reports::shard::Shard;

use crate::{
    prepared::Prepared,
    support::{directory, report, run},
};

fn shards(root: &Path, of: u32) -> Vec<Prepared> {
    (1..=of)
        .map(|index| {
            let shard = Prepared::new(&format!("run-{index}"), 6, Some(Shard { index, of }));
            shard.write(&root.join(format!("shard-{index}")));
            shard
        })
        .collect()
}

#[test]
fn the_exit_code_is_that_of_the_whole_run() {
    let directory = directory();
    let root = directory.path();
    shards(root, 2);
    let dirs = ["merge", "shard-1", "shard-2", "--out"];
    let merged = run(root, &[&dirs[..], &["good"]].concat()).exits(0);
    assert!(
        merged
            .stdout
            .starts_with("merged 2 runs: 18 attempts, 0 more were present already"),
        "{merged:?}"
    );
    assert_eq!(report(&root.join("good"))["totals"]["attempts"]["pass"], 18);
    for file in ["events.jsonl", "report.json", "junit.xml", "report.md"] {
        assert!(root.join("good").join(file).is_file(), "{file}");
    }
    // A shard is missing.
    let some = run(root, &["merge", "shard-2", "--out", "some"]).exits(4);
    assert!(
        some.stdout
            .contains("incomplete: the run was interrupted: shard 1/2 is missing"),
        "{some:?}"
    );
    // An attempt fails in one of them.
    std::fs::remove_dir_all(root.join("shard-2")).unwrap();
    let shard = Shard { index: 2, of: 2 };
    let mut failing = Prepared::new("run-2", 6, Some(shard));
    failing.fails = crate::prepared::CASES.map(|case| (case, 1)).into();
    let held = failing
        .fails
        .iter()
        .filter(|(case, n)| shard.holds(case, *n))
        .count();
    assert!(
        held > 0,
        "the second shard has the first attempt of some case"
    );
    failing.write(&root.join("shard-2"));
    run(root, &[&dirs[..], &["flaky"]].concat()).exits(3);
    let junit = std::fs::read_to_string(root.join("flaky/junit.xml")).unwrap();
    assert!(junit.contains("flakyFailure"), "{junit}");
}

#[test]
fn bad_input_is_one_message_and_leaves_nothing() {
    let directory = directory();
    let root = directory.path();
    shards(root, 2);
    std::fs::create_dir(root.join("empty")).unwrap();
    run(root, &["merge", "shard-1", "empty", "--out", "out"])
        .exits(2)
        .says("empty: no events.jsonl");
    run(root, &["merge", "shard-1", "shard-2", "--out", "shard-1"])
        .exits(2)
        .says("--out shard-1: it holds an earlier run");
    let mut other = Prepared::new("run-3", 6, Some(Shard { index: 2, of: 2 }));
    other.start.options.seed = 7;
    other.write(&root.join("seed"));
    other.start.options.seed = 42;
    other.start.machine.kernel = "5.10".into();
    other.write(&root.join("kernel"));
    let refused = run(
        root,
        &["merge", "shard-1", "seed", "kernel", "--out", "out"],
    )
    .exits(2);
    let lines: Vec<&str> = refused.stderr.lines().collect();
    assert_eq!(
        lines,
        [
            "error: seed: not of the same run as shard-1: options.seed is \"7\" and not \"42\"",
            "kernel: not of the same run as shard-1: machine.kernel is \"5.10\" and not \"6.18.0\" \
             (--allow-different-machines merges them all the same)",
        ]
    );
    assert!(!root.join("out").exists());
    let allow = "--allow-different-machines";
    run(root, &["merge", "shard-1", "kernel", allow, "--out", "out"]).exits(0);
    run(root, &["merge", "--out", "none"]).exits(2);
}
