//! The commands around a run: list, explain, schema, doctor, clean, cluster, bench.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::{Finished, directory, harness, run, worlds};

#[test]
fn list_knows_every_case() {
    let directory = directory();
    let finished = run(directory.path(), &["list", "--format", "json"]).exits(0);
    let cases: Vec<Value> = serde_json::from_str(&finished.stdout).expect("an array");
    assert!(cases.len() >= 150, "{}", cases.len());
    for case in &cases {
        for field in ["id", "scenario", "title", "area", "level", "file"] {
            assert!(
                case[field].as_str().is_some_and(|text| !text.is_empty()),
                "{field}: {case:#}"
            );
        }
        assert!(
            case["requirements"]
                .as_array()
                .is_some_and(|ids| !ids.is_empty()),
            "{case:#}"
        );
    }
    let text = run(
        directory.path(),
        &["list", "--filter", "scenario:clusterip-basic"],
    )
    .exits(0)
    .says("4 cases of 1 scenarios");
    assert_eq!(text.stdout.lines().count(), 4, "{text:?}");
    let core = run(
        directory.path(),
        &["list", "--profile", "core", "--format", "json"],
    )
    .exits(0);
    let core: Vec<Value> = serde_json::from_str(&core.stdout).expect("an array");
    assert!(core.iter().all(|case| case["level"] == "core"));
}

#[test]
fn explain_a_requirement() {
    let directory = directory();
    let finished = run(directory.path(), &["explain", "SVC-CIP-1"]).exits(0);
    assert!(
        finished
            .stdout
            .starts_with("SVC-CIP-1 (clusterip, core)\n  A service proxy MUST "),
        "{finished:?}"
    );
    assert!(
        finished.stdout.contains("\n  clusterip-basic (4 cases): "),
        "{finished:?}"
    );
}

#[test]
fn explain_a_case() {
    let directory = directory();
    insta::assert_snapshot!(
        run(directory.path(), &["explain", "clusterip-basic[ipv6,UDP]"])
            .exits(0)
            .stdout
    );
}

/// The schema that editors are pointed at is the one that the harness has.
#[test]
fn the_published_schema_is_that_of_the_harness() {
    let directory = directory();
    let own = run(directory.path(), &["schema"]).exits(0).stdout;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/schema.json");
    let published = fs::read_to_string(path).unwrap_or_default();
    assert!(
        own == published,
        "scenarios/schema.json is out of date; to renew it: cargo run -p harness -- schema > scenarios/schema.json"
    );
    let schema: Value = serde_json::from_str(&own).expect("JSON");
    jsonschema::validator_for(&schema).expect("a schema");
    let manifest = run(directory.path(), &["schema", "candidate"])
        .exits(0)
        .stdout;
    jsonschema::validator_for(&serde_json::from_str(&manifest).expect("JSON")).expect("a schema");
}

#[test]
fn the_doctor_agrees_that_worlds_work() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let finished = run(directory.path(), &["doctor"]).exits(0);
    assert!(finished.stdout.contains("ready: "), "{finished:?}");
    assert!(!finished.stdout.contains("NEEDED"), "{finished:?}");
}

#[test]
fn clean_complains_only_where_there_may_be_something() {
    let directory = directory();
    let bin = directory.path().join("bin");
    fs::create_dir(&bin).expect("a directory");
    let clean = |args: &[&str]| {
        let mut command = harness(directory.path(), &["clean"]);
        let output = command
            .args(args)
            .env("PATH", &bin)
            .env_remove("KIND_EXPERIMENTAL_PROVIDER")
            .output();
        Finished::of(output.expect("the binary runs"))
    };
    // Other tests kill harnesses, of which worlds may be left for a moment.
    let quiet = |finished: Finished| assert!(!finished.exits(0).stdout.contains("cluster"));
    quiet(clean(&[]));
    clean(&["harness-a1b2c3"])
        .exits(2)
        .says("is no cluster that a harness made");
    // An engine that nobody has started, on a machine that never had a kind.
    let program = |name: &str, script: &str| {
        let path = bin.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    };
    program(
        "docker",
        "[ $1 = -v ] && echo Docker version 26.1.5 && exit 0\necho Cannot connect to the Docker daemon. >&2; exit 1",
    );
    quiet(clean(&[]));
    program("kind", "exit 0");
    clean(&[]).exits(4).says("docker does not answer");
    // One that answers, and has nothing of ours.
    program(
        "docker",
        "[ $1 = -v ] && echo Docker version 26.1.5; exit 0",
    );
    quiet(clean(&["--all"]));
}

#[test]
fn kubectl_works_in_a_cluster() {
    if !worlds() {
        return;
    }
    let directory = directory();
    if harness::candidate::find_on_path("kubectl").is_none() {
        println!("skipped: kubectl is not on PATH");
        return;
    }
    let args = [
        "cluster",
        "up",
        "--",
        "kubectl",
        "get",
        "services,endpointslices",
        "-o",
        "name",
    ];
    let finished = run(directory.path(), &args).exits(0);
    let mut names: Vec<&str> = finished.stdout.lines().collect();
    names.sort_unstable();
    assert!(names.contains(&"service/web"), "{finished:?}");
    assert!(
        names
            .iter()
            .any(|name| name.starts_with("endpointslice.discovery.k8s.io/web-")),
        "{finished:?}"
    );
}

#[test]
fn a_command_in_a_cluster_can_fail() {
    if !worlds() {
        return;
    }
    let directory = directory();
    run(
        directory.path(),
        &["cluster", "up", "--candidate", "null", "--", "false"],
    )
    .exits(1);
}

#[test]
fn bench_measures_everything() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let args = [
        "bench",
        "--services",
        "3,20x2",
        "--stored",
        "20x2",
        "--repeat",
        "3",
        "--patience",
        "60",
        "--format",
        "json",
    ];
    let finished = run(directory.path(), &args).exits(0);
    let figures: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(figures["worlds"]["build"]["count"], 3, "{figures:#}");
    assert_eq!(figures["watch"]["latency"]["count"], 30, "{figures:#}");
    let proxies = figures["proxies"].as_array().expect("an array");
    let sizes: Vec<_> = proxies
        .iter()
        .map(|proxy| (&proxy["size"]["services"], &proxy["size"]["endpoints"]))
        .collect();
    assert_eq!(sizes, [(&3.into(), &5.into()), (&20.into(), &2.into())]);
    for proxy in proxies {
        assert_eq!(proxy["candidate"], "reference");
        assert!(proxy.get("problem").is_none(), "{proxy:#}");
        assert_eq!(proxy["change"]["count"], 3, "{proxy:#}");
        for figure in ["/loadMs", "/peakRssBytes", "/change/medianMs"] {
            assert!(
                proxy
                    .pointer(figure)
                    .and_then(Value::as_f64)
                    .is_some_and(|value| value > 0.0),
                "{figure}: {proxy:#}"
            );
        }
    }
}

#[test]
fn bench_says_what_a_candidate_does_not_do() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let args = [
        "bench",
        "--what",
        "proxy",
        "--services",
        "3",
        "--repeat",
        "1",
        "--candidate",
        "null",
    ];
    let finished = run(directory.path(), &args).exits(0);
    assert!(
        finished
            .stdout
            .contains("null with 3 x 5: the manifest runs no process"),
        "{finished:?}"
    );
}
