//! `harness upstream`: with a program in place of `e2e.test` that lists, runs and reports specs as that does.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::Value;

use crate::{
    prepared::Prepared,
    support::{Finished, directory, run, write},
};

const BASIC: &str = "[sig-network] Services should serve a basic endpoint from pods [Conformance]";
const HEALTH: &str = "[sig-network] Services should implement NodePort and HealthCheckNodePort correctly when ExternalTrafficPolicy changes";

/// Writes a program that takes the arguments of `e2e.test`, and fails the specs whose names contain `fails`. `end` is what it does after that.
fn e2e_test(root: &Path, fails: &str, end: &str) {
    let text = format!(
        r#"#!/bin/sh
names='{BASIC}
{HEALTH}
[sig-network] Services should cope with [Feature:Ingress] things
[sig-node] Pods should be submitted [Conformance]'
for argument in "$@"; do
    case $argument in
    -list-tests)
        echo "The following spec names can be used with 'ginkgo run --focus/skip':"
        echo "$names" | sed 's|^|    test/e2e/some.go:1: |'
        exit 0 ;;
    -report-dir=*) dir=${{argument#*=}} ;;
    -ginkgo.focus=*) focus=${{argument#*=}} ;;
    -kubeconfig=*) [ -f "${{argument#*=}}" ] || exit 9 ;;
    esac
done
{end}
{{
    echo '<testsuites><testsuite name="Kubernetes e2e suite" timestamp="2026-11-26T10:00:00">'
    echo '<testcase name="[BeforeSuite]" status="passed" time="0"></testcase>'
    echo "$names" | while IFS= read -r name; do
        # The real one puts the suite's name in front, too.
        if ! echo "Kubernetes e2e suite $name" | grep -Pq -- "$focus"; then
            echo "<testcase name=\"[It] $name\" status=\"skipped\" time=\"0\"><skipped message=\"skipped\"></skipped></testcase>"
            continue
        fi
        case $name in
        *'{fails}'*) echo "<testcase name=\"[It] $name\" status=\"failed\" time=\"2.5\"><failure message=\"no answer\" type=\"failed\"></failure></testcase>" ;;
        *) echo "<testcase name=\"[It] $name\" status=\"passed\" time=\"1.5\"></testcase>" ;;
        esac
    done
    echo '</testsuite></testsuites>'
}} >"$dir/junit_01.xml"
echo '• [1.500 seconds]'
echo '{BASIC}'
"#
    );
    let path = root.join("e2e.test");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    write(root, "kubeconfig", "");
}

fn upstream(root: &Path, args: &[&str]) -> Finished {
    let program = [
        "upstream",
        "--e2e-test",
        "./e2e.test",
        "--kubeconfig",
        "kubeconfig",
    ];
    run(root, &[&program[..], args].concat())
}

/// A run of ours in which the scenario that covers [`BASIC`] passes, or not.
fn ours(root: &Path, passes: bool) {
    let mut prepared = Prepared::new("ours", 1, None);
    let case = prepared.start.cases.first_mut().unwrap();
    case.scenario = "clusterip-basic".into();
    if !passes {
        prepared.fails = vec![("one[ipv4]", 1)];
    }
    prepared.write(&root.join("ours"));
}

#[test]
fn both_suites_are_held_beside_each_other() {
    let directory = directory();
    let root = directory.path();
    for (fails, passes, code, relation) in [
        ("nothing fails", true, 0, "both-pass"),
        ("serve a basic", true, 1, "only-upstream-fails"),
        ("nothing fails", false, 1, "only-ours-fails"),
        ("serve a basic", false, 1, "both-fail"),
    ] {
        let _ = fs::remove_dir_all(root.join("ours"));
        let _ = fs::remove_dir_all(root.join("out"));
        e2e_test(root, fails, "");
        ours(root, passes);
        let said = upstream(root, &["--report", "ours", "--out", "out"]).exits(code);
        assert!(
            said.stdout.starts_with("2 specs of the upstream suite, 1 left out\n• [1.500 seconds] [sig-network] Services should serve"),
            "{said:?}"
        );
        let json = fs::read_to_string(root.join("out/upstream.json")).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        let rows = json["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 2, "{json:#}");
        let row = rows.iter().find(|row| row["name"] == BASIC).unwrap();
        assert_eq!(row["relation"], relation, "{row:#}");
        let left_out = json["leftOut"].as_object().unwrap();
        assert!(
            left_out
                .values()
                .all(|why| why.as_str().unwrap().contains("feature Ingress"))
        );
        for name in ["upstream.md", "e2e.log", "junit_01.xml"] {
            assert!(root.join("out").join(name).is_file(), "{name}");
        }
        // The same from the files that are there already.
        let args = [
            "upstream",
            "--junit",
            "out/junit_01.xml",
            "--report",
            "ours",
            "--out",
            "again",
        ];
        let _ = fs::remove_dir_all(root.join("again"));
        run(root, &args).exits(code);
    }
}

#[test]
fn what_is_chosen_is_told_before_anything_is_run() {
    let directory = directory();
    let root = directory.path();
    e2e_test(root, "nothing", "exit 8");
    run(
        root,
        &[
            "upstream",
            "--e2e-test",
            "./e2e.test",
            "--dry-run",
            "--reuse",
            "x",
        ],
    )
    .exits(2)
    .says("--reuse needs --kind");
    run(
        root,
        &[
            "upstream",
            "--e2e-test",
            "./e2e.test",
            "--kind",
            "--out",
            "kind",
        ],
    )
    .exits(2)
    .says("--kind needs --candidate");
    let narrowed = upstream(root, &["--dry-run", "--only", "basic endpoint"]).exits(0);
    assert!(
        narrowed.stdout.starts_with("run (1):"),
        "{}",
        narrowed.stdout
    );
    let plain = upstream(root, &["--dry-run"]).exits(0);
    assert!(
        plain
            .stdout
            .starts_with(&format!("run (2):\n  {HEALTH}\n  {BASIC}\n"))
            || plain.stdout.starts_with(&format!("run (2):\n  {BASIC}\n")),
        "{plain:?}"
    );
    assert!(
        plain
            .stdout
            .contains("--feature Ingress says that it is there"),
        "{plain:?}"
    );
    let all = upstream(root, &["--dry-run", "--feature", "Ingress"]).exits(0);
    assert!(all.stdout.contains("(not known to this suite)"), "{all:?}");
    let conformance = upstream(root, &["--dry-run", "--conformance"]).exits(0);
    assert!(
        conformance.stdout.contains("[sig-node] Pods"),
        "{conformance:?}"
    );
}

#[test]
fn a_run_without_an_answer_is_none() {
    let directory = directory();
    let root = directory.path();
    // It dies before it writes anything.
    e2e_test(root, "nothing", "exit 8");
    upstream(root, &["--out", "dead"])
        .exits(4)
        .says("left no JUnit file");
    // It ends before all have run.
    e2e_test(
        root,
        "nothing",
        "names='[sig-node] Pods should be submitted [Conformance]'",
    );
    let half = upstream(root, &["--out", "half"]).exits(4);
    assert!(
        half.stdout
            .contains("**Incomplete**: 2 chosen specs have no result"),
        "{half:?}"
    );
    upstream(root, &["--out", "half"])
        .exits(2)
        .says("it is not empty");

    write(root, "junit.xml", "<html/>");
    run(root, &["upstream", "--junit", "junit.xml", "--out", "html"])
        .exits(2)
        .says("no JUnit document");
    run(
        root,
        &[
            "upstream",
            "--e2e-test",
            "./nothing",
            "--kubeconfig",
            "kubeconfig",
            "--out",
            "none",
        ],
    )
    .exits(2)
    .says("cannot be started");
    run(
        root,
        &[
            "upstream",
            "--e2e-test",
            "/bin/true",
            "--kubeconfig",
            "kubeconfig",
            "--out",
            "true",
        ],
    )
    .exits(2)
    .says("is it an e2e.test of Kubernetes?");
}
