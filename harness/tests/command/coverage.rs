//! What the catalogue stands for: `harness coverage`, `harness explain` with what it accounts for, and the specification.

use std::fs;

use serde_json::Value;

use crate::support::{directory, run};

/// The real files have no gap, and the table of upstream specs has all of them.
#[test]
fn everything_is_accounted_for() {
    let directory = directory();
    let finished = run(directory.path(), &["coverage", "--format", "json"]).exits(0);
    let tables: Vec<Value> = serde_json::from_str(&finished.stdout).expect("an array");
    let names: Vec<_> = tables.iter().map(|table| &table["name"]).collect();
    assert_eq!(names, ["upstream", "bugs", "requirements"]);
    let rows = |at: usize| tables[at]["rows"].as_array().expect("rows");
    assert_eq!(rows(0).len(), 246);
    assert!(rows(1).len() >= 160, "{}", rows(1).len());
    assert!(rows(2).len() >= 130, "{}", rows(2).len());
    for row in rows(0).iter().chain(rows(1)).chain(rows(2)) {
        if row["standing"] == "covered" {
            assert!(
                row["scenarios"]
                    .as_array()
                    .is_some_and(|ids| !ids.is_empty()),
                "{row:#}"
            );
        } else {
            assert!(
                row["note"].is_string() || row["group"].is_string(),
                "no reason: {row:#}"
            );
        }
    }
}

#[test]
fn tables_come_alone_and_as_text() {
    let directory = directory();
    let text = run(directory.path(), &["coverage", "--what", "bugs"]).exits(0);
    assert!(text.stdout.starts_with("bugs: "), "{text:?}");
    assert!(
        text.stdout.contains("\n    covered: udp-endpoint-replaced"),
        "{text:?}"
    );
    let markdown = run(
        directory.path(),
        &["coverage", "--what", "upstream", "--format", "markdown"],
    )
    .exits(0);
    assert!(
        markdown
            .stdout
            .starts_with("# Coverage\n\n## Upstream\n\n246 "),
        "{markdown:?}"
    );
}

#[test]
fn explain_speaks_of_bugs_and_specs() {
    let directory = directory();
    let bug = run(directory.path(), &["explain", "bug:U13"]).exits(0);
    for part in ["#139628", "  udp-scaled-to-zero (", "UDP-2 (udp, core)"] {
        assert!(bug.stdout.contains(part), "{part}: {bug:?}");
    }
    let spec = run(
        directory.path(),
        &[
            "explain",
            "Services should serve a basic endpoint from pods",
        ],
    )
    .exits(0);
    assert!(
        spec.stdout.starts_with(
            "[sig-network] Services should serve a basic endpoint from pods [Conformance]\n\ncovered"
        ),
        "{spec:?}"
    );
    assert!(spec.stdout.contains("  clusterip-basic ("), "{spec:?}");
    run(directory.path(), &["explain", "bug:U99"])
        .exits(2)
        .says("'bug:U99' is no requirement, scenario, case, bug or upstream spec");
    run(
        directory.path(),
        &[
            "explain",
            "Networking should provide Internet connection for containers",
        ],
    )
    .exits(2)
    .says("only their tags tell apart");
}

#[test]
fn the_specification_is_current() {
    let directory = directory();
    let own = run(directory.path(), &["explain", "--all"]).exits(0).stdout;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/specification.md");
    let published = fs::read_to_string(path).unwrap_or_default();
    assert!(
        own == published,
        "docs/specification.md is out of date; to renew it: cargo run -p harness -- explain --all > docs/specification.md"
    );
}
