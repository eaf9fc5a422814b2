//! Repeating: until a claim is decided, under stress, in shards, and on after a run broke off.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

use crate::support::{
    Running, directory, events, harness, of_type, report, run, scenario, wait_for, worlds, write,
};

/// The attempts that finished, with their seeds and verdicts; each exactly once.
#[track_caller]
fn attempts(out: &Path) -> BTreeMap<(String, u64), (u64, String)> {
    let events = events(out);
    let key = |event: &Value| {
        let case = event["case"].as_str().expect("a case").to_owned();
        (case, event["attempt"].as_u64().expect("a number"))
    };
    let mut seeds = BTreeMap::new();
    for event in of_type(&events, "attemptStarted") {
        let seed = event["seed"].as_u64().expect("a seed");
        let before = seeds.insert(key(event), seed);
        assert!(before.is_none_or(|before| before == seed), "{event}");
    }
    let mut found = BTreeMap::new();
    for event in of_type(&events, "attemptFinished") {
        let verdict = event["verdict"].as_str().expect("a verdict").to_owned();
        let before = found.insert(key(event), (seeds[&key(event)], verdict));
        assert!(before.is_none(), "counted twice: {event}");
    }
    found
}

#[test]
fn a_claim_is_proven_refuted_or_undecided() {
    if !worlds() {
        return;
    }
    let directory = directory();
    write(directory.path(), "one.yaml", &scenario("30s", ""));
    let claim = |candidate: &'static str, out: &'static str| {
        [
            "run",
            "one.yaml",
            "--candidate",
            candidate,
            "--until-confidence",
            "rate<50% @95%",
            "--out",
            out,
        ]
    };
    let of_cases = |out: &str| {
        let report = report(&directory.path().join(out));
        let cases = report["cases"].as_array().expect("cases").clone();
        assert_eq!(cases.len(), 2);
        cases
            .iter()
            .map(|case| {
                let claim = &case["claim"];
                assert_eq!(claim["claim"], "rate<50% @95%");
                let decision = claim["decision"].as_str().expect("a decision").to_owned();
                let verdict = case["verdict"].as_str().expect("a verdict").to_owned();
                (verdict, decision, claim["attempts"].as_u64().unwrap())
            })
            .collect::<Vec<_>>()
    };
    let all = |verdict: &str, decision: &str, attempts| {
        vec![(verdict.to_owned(), decision.to_owned(), attempts); 2]
    };

    // 0.5^5 is the first power below 5 %.
    let finished = run(directory.path(), &claim("reference", "proven")).exits(0);
    assert_eq!(of_cases("proven"), all("pass", "proven", 5));
    let says =
        "one-endpoint[ipv4]: 0 of 5: below 46 % at 95 %; rate<50% @95% is proven after 5 attempts";
    assert!(finished.stdout.contains(says), "{finished:?}");

    run(directory.path(), &claim("null", "refuted")).exits(1);
    assert_eq!(of_cases("refuted"), all("fail", "refuted", 7));

    let mut limited = claim("reference", "open").to_vec();
    limited.extend(["--runs", "3"]);
    let finished = run(directory.path(), &limited).exits(4);
    assert_eq!(of_cases("open"), all("undecided", "open", 3));
    assert!(
        finished.stdout.contains("neither proven nor refuted"),
        "{finished:?}"
    );
    let junit = fs::read_to_string(directory.path().join("open/junit.xml")).expect("junit.xml");
    assert!(
        junit.contains("rate&lt;50% @95% is undecided after 3 attempts"),
        "{junit}"
    );
}

#[test]
fn stress_shows_the_rate() {
    if !worlds() {
        return;
    }
    let directory = directory();
    write(directory.path(), "one.yaml", &scenario("300ms", ""));
    let args = [
        "run",
        "one.yaml",
        "--filter",
        "family=ipv4",
        "--candidate",
        "null",
        "--stress",
        "--runs",
        "4",
        "--out",
        "out",
    ];
    let finished = run(directory.path(), &args).exits(1);
    for says in [
        "\n4 runs, 4 failures, 100.000 % [39.764, 100.000]\n",
        "one-endpoint[ipv4]: 4 of 4: 100 % [40, 100]",
    ] {
        assert!(finished.stdout.contains(says), "{finished:?}");
    }
    let args = [
        "run", "one.yaml", "--stress", "--for", "1ms", "--out", "brief",
    ];
    // Where nothing could be tried in that time, nothing is shown; what began in time is made to its end.
    let finished = run(directory.path(), &args);
    let tried = report(&directory.path().join("brief"))["totals"]["attempts"]["total"] != 0;
    finished.exits(if tried { 0 } else { 4 });
}

#[test]
fn shards_are_the_whole_run_also_when_they_are_killed() {
    if !worlds() {
        return;
    }
    let directory = directory();
    write(directory.path(), "one.yaml", &scenario("30s", ""));
    let args = [
        "run", "one.yaml", "--runs", "6", "--seed", "7", "--jobs", "2",
    ];
    let whole = [&args[..], &["--out", "whole"]].concat();
    run(directory.path(), &whole).exits(0);
    let whole = attempts(&directory.path().join("whole"));
    assert_eq!(whole.len(), 12);

    let mut union = BTreeMap::new();
    for index in 0..3 {
        let out = format!("shard-{index}");
        // As a pod of an Indexed Job is started, and started again after it was killed.
        let shard = ["--shard", "auto/3", "--out", &out, "--resume", &out];
        let args = [&args[..], &shard].concat();
        let index = index.to_string();
        let path = directory.path().join(&out);
        if index == "1" {
            let mut command = harness(directory.path(), &args);
            let command = command.env("JOB_COMPLETION_INDEX", &index);
            let mut running = Running(command.stdout(std::process::Stdio::null()).spawn().unwrap());
            wait_for("an attempt of the shard", || {
                (!of_type(&events(&path), "attemptFinished").is_empty()).then_some(())
            });
            running.0.kill().expect("it runs");
            running.0.wait().expect("a child of this test");
        }
        for _ in 0..2 {
            // Once it is done, doing it again changes nothing.
            let mut command = harness(directory.path(), &args);
            let output = command
                .env("JOB_COMPLETION_INDEX", &index)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(output.status.code(), Some(0), "{said}");
            assert!(said.contains("\nshard passed: "), "{said}");
            assert!(!said.contains("conformant:"), "{said}");
        }
        let report = report(&path);
        assert_eq!(report["conclusion"], "shard-passed");
        assert_eq!(report["options"]["shard"]["of"], 3);
        let markdown = fs::read_to_string(path.join("report.md")).expect("report.md");
        assert!(
            markdown.contains("only all shards together show conformance"),
            "{markdown}"
        );
        let part = attempts(&path);
        assert_eq!(report["totals"]["attempts"]["total"], part.len());
        for (attempt, found) in part {
            let twice = union.insert(attempt.clone(), found);
            assert_eq!(twice, None, "{attempt:?} is in two shards");
        }
    }
    assert_eq!(union, whole);
}

#[test]
fn a_killed_run_goes_on() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let out = directory.path().join("out");
    // Attempts that last, so that the run is not over when it is killed.
    let lasting = "  - hold: {for: 500ms}\n";
    write(directory.path(), "one.yaml", &scenario("30s", lasting));
    let args = [
        "run", "one.yaml", "--runs", "5", "--jobs", "2", "--out", "out",
    ];
    let mut running = Running::start(directory.path(), &args);
    wait_for("two attempts", || {
        running.must_run();
        (of_type(&events(&out), "attemptFinished").len() >= 2).then_some(())
    });
    let finished = run(directory.path(), &["run", "--resume", "out"]).exits(2);
    let says = format!("is being written by process {}", running.0.id());
    assert!(finished.stderr.contains(&says), "{finished:?}");
    running.0.kill().expect("it runs");
    running.0.wait().expect("a child of this test");
    let before = fs::read(out.join("events.jsonl")).expect("a log");
    let whole = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .expect("a line")
        + 1;

    for (args, why) in [
        (
            &["certify", "--resume", "out"][..],
            "it was begun by 'harness run'",
        ),
        (
            &["run", "--resume", "out", "--runs", "6"],
            "--runs is not what it was begun with",
        ),
        (
            &["run", "--resume", "out", "--candidate", "null"],
            "the digest of the candidate",
        ),
        (&["run", "--resume", "elsewhere"], "holds no run"),
        (
            &["run", "--resume", "out", "--out", "other"],
            "two directories",
        ),
    ] {
        run(directory.path(), args).exits(2).says(why);
    }
    let text = fs::read_to_string(directory.path().join("one.yaml")).expect("it was written");
    write(directory.path(), "one.yaml", &text.replace("30s", "31s"));
    run(directory.path(), &["run", "--resume", "out"])
        .exits(2)
        .says("the digest of the catalogue");
    write(directory.path(), "one.yaml", &text);

    let finished = run(directory.path(), &["run", "--resume", "out"]).exits(0);
    assert!(
        finished.stdout.contains("\nconformant: 10 attempts passed"),
        "{finished:?}"
    );
    let after = fs::read(out.join("events.jsonl")).expect("a log");
    assert_eq!(
        after[..whole],
        before[..whole],
        "nothing of the log is lost"
    );
    let names: BTreeSet<(String, u64)> = attempts(&out).into_keys().collect();
    assert_eq!(names.len(), 10);
    let report = report(&out);
    assert_eq!(report["resumed"].as_array().map(Vec::len), Some(1));
    let started = of_type(&events(&out), "attemptStarted").len() as u64;
    assert_eq!(report["resumed"][0]["voidAttempts"], started - 10);

    // What is done is done.
    let finished = run(directory.path(), &["run", "--resume", "out"]).exits(0);
    assert!(
        finished.stdout.contains("nothing is left to do"),
        "{finished:?}"
    );
    assert_eq!(fs::read(out.join("events.jsonl")).expect("a log"), after);
}
