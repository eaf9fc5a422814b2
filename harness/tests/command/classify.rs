//! Failing cases are looked into: reruns under chosen conditions, a class for each cause, and an exit code that none of it changes.

use serde_json::Value;

use crate::support::{directory, events, of_type, report, run, scenario, worlds, write};

/// Attempts and failures of an experiment with a case.
fn counts(report: &Value, case: usize, experiment: &str) -> Option<(u64, u64)> {
    let made = report["cases"][case]["experiments"].as_array()?;
    let one = made.iter().find(|one| one["experiment"] == experiment)?;
    Some((one["attempts"].as_u64()?, one["failed"].as_u64()?))
}

#[test]
fn a_proxy_that_does_nothing_is_broken() {
    if !worlds() {
        return;
    }
    let directory = directory();
    write(directory.path(), "one.yaml", &scenario("1s", ""));
    let args = [
        "run",
        "one.yaml",
        "--filter",
        "family=ipv6",
        "--candidate",
        "null",
        "--classify-budget",
        "10m",
        "--out",
        "out",
    ];
    let finished = run(directory.path(), &args).exits(1);
    let out = directory.path().join("out");
    let report = report(&out);
    // The reruns are no attempts.
    assert_eq!(report["totals"]["attempts"]["total"], 1);
    assert_eq!(of_type(&events(&out), "attemptFinished").len(), 1);
    assert!(!of_type(&events(&out), "experimentFinished").is_empty());
    for (experiment, made) in [
        ("alone", (5, 5)),
        ("reference", (5, 0)),
        ("direct", (5, 0)),
        ("patient", (1, 1)),
    ] {
        let found = counts(&report, 0, experiment);
        assert_eq!(found, Some(made), "{experiment}: {report:#}");
    }
    assert_eq!(counts(&report, 0, "contention"), None);
    let class = &report["cases"][0]["classification"]["class"];
    assert_eq!(class, "broken", "{report:#}");
    let cause = &report["causes"][0];
    assert_eq!(cause["class"], "broken", "{report:#}");
    assert_eq!(cause["representative"], report["cases"][0]["id"]);
    assert!(finished.stdout.contains(": broken ("), "{finished:?}");
    for file in ["report.md", "junit.xml"] {
        let text = std::fs::read_to_string(out.join(file)).expect("a report");
        assert!(text.contains("broken"), "{text}");
    }
}

#[test]
fn what_the_reference_fails_too_is_suspected() {
    if !worlds() {
        return;
    }
    let directory = directory();
    // Nothing is that fast.
    let probe = "  - probe: {to: {service: web}, latency: 0ms}\n";
    write(directory.path(), "one.yaml", &scenario("1s", probe));
    let args = [
        "run",
        "one.yaml",
        "--filter",
        "family=ipv4",
        "--candidate",
        "null",
        "--classify-budget",
        "10m",
        "--out",
        "out",
    ];
    run(directory.path(), &args).exits(1);
    let report = report(&directory.path().join("out"));
    let class = &report["cases"][0]["classification"];
    assert_eq!(class["class"], "oracle-suspect", "{report:#}");
    assert_eq!(counts(&report, 0, "reference"), Some((1, 1)));
    // More is not tried: whatever else fails there proves nothing.
    assert_eq!(counts(&report, 0, "alone"), Some((1, 1)));
    assert_eq!(counts(&report, 0, "patient"), None);
}

#[test]
fn experiments_can_be_left_out_and_need_time() {
    if !worlds() {
        return;
    }
    let directory = directory();
    write(directory.path(), "one.yaml", &scenario("300ms", ""));
    for (out, options, tried) in [
        ("none", &["--no-classify"][..], false),
        ("no-time", &["--classify-budget", "0s"], false),
        ("little", &["--classify-budget", "1ms"], true),
    ] {
        let mut args = vec!["run", "one.yaml", "--filter", "family=ipv4"];
        args.extend(["--candidate", "null", "--out", out]);
        args.extend(options);
        run(directory.path(), &args).exits(1);
        let report = report(&directory.path().join(out));
        let class = &report["cases"][0]["classification"]["class"];
        if tried {
            // One rerun at most, which is too few to say anything.
            assert!(class.is_null() || class == "undecided", "{report:#}");
        } else {
            assert!(class.is_null(), "{report:#}");
        }
    }
    let args = [
        "run",
        "one.yaml",
        "--no-classify",
        "--classify-budget",
        "1m",
    ];
    run(directory.path(), &args)
        .exits(2)
        .says("cannot be used with");
}
