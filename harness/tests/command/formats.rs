//! `harness render` and `--tap`. What the formats hold is tested where they are made (`reports/tests`).

use std::fs;

use crate::{
    prepared::Prepared,
    support::{directory, run, scenario, worlds, write},
};

#[test]
fn a_run_is_rendered_in_every_format() {
    let directory = directory();
    let root = directory.path();
    let mut prepared = Prepared::new("run-1", 2, None);
    prepared.fails = vec![("two[ipv4]", 1)];
    prepared.write(&root.join("run"));
    for (format, starts, holds) in [
        ("tap", "TAP version 14\n", "\nnot ok 2 - two[ipv4]\n"),
        ("junit", "<?xml", "name=\"two[ipv4]\""),
        ("markdown", "# ", "two[ipv4]"),
        ("html", "<!DOCTYPE html>", "data-case=\"two[ipv4]\""),
        ("json", "{\n", "\"id\": \"two[ipv4]\""),
        ("badge", "<svg ", "flaky, 1 case"),
    ] {
        let finished = run(root, &["render", "run", "--format", format]).exits(0);
        assert!(
            finished.stdout.starts_with(starts),
            "{format}: {finished:?}"
        );
        assert!(finished.stdout.contains(holds), "{format}: {finished:?}");
    }
    run(root, &["render", "nowhere", "--format", "tap"])
        .exits(2)
        .says("nowhere: neither events.jsonl nor report.json can be read there");
    run(root, &["render", "run"]).exits(2).says("--format");
}

#[test]
fn tap_is_written_on_request() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let root = directory.path();
    write(root, "one.yaml", &scenario("30s", ""));
    let args = [
        "run",
        "one.yaml",
        "--filter",
        "family=ipv4",
        "--tap",
        "--out",
        "out",
    ];
    let finished = run(root, &args).exits(0);
    assert!(finished.stdout.contains("report.tap"), "{finished:?}");
    let tap = fs::read_to_string(root.join("out/report.tap")).unwrap();
    assert!(tap.starts_with("TAP version 14\n1..1\n"), "{tap}");
    assert!(tap.ends_with("\nok 1 - one-endpoint[ipv4]\n"), "{tap}");
    let rendered = run(root, &["render", "out", "--format", "tap"]).exits(0);
    assert_eq!(rendered.stdout, tap);
}
