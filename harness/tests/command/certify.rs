//! Whole runs: exit codes, the files of a run, and evidence from which a failure can be understood and repeated.

use std::{collections::BTreeMap, fs, path::Path};

use pcap_file::pcapng::{Block, PcapNgReader};
use serde_json::Value;

use crate::support::{directory, events, of_type, report, run, scenario, worlds, write};

/// Checks a report against the published schema.
#[track_caller]
fn must_be_valid(report: &Value) {
    let schema: Value =
        serde_json::from_str(include_str!("../../../reports/schema/report-v1.json"))
            .expect("the schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    let errors: Vec<String> = validator
        .iter_errors(report)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

/// Seed of each attempt.
fn seeds(out: &Path) -> BTreeMap<(String, u32), u64> {
    of_type(&events(out), "attemptStarted")
        .iter()
        .map(|event| {
            let case = event["case"].as_str().unwrap_or_default().to_owned();
            let attempt = event["attempt"].as_u64().unwrap_or_default() as u32;
            ((case, attempt), event["seed"].as_u64().expect("a seed"))
        })
        .collect()
}

#[test]
fn the_reference_is_conformant() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let args = [
        "certify",
        "--filter",
        "scenario:clusterip-basic and protocol=TCP",
        "--runs",
        "2",
        "--seed",
        "7",
        "--out",
        "out",
    ];
    let finished = run(directory.path(), &args).exits(0);
    assert!(
        finished.stdout.contains("\nconformant: 4 attempts passed"),
        "{finished:?}"
    );
    assert!(
        !finished.stdout.contains('\x1b'),
        "no colours where there is no terminal: {finished:?}"
    );
    let out = directory.path().join("out");
    let report = report(&out);
    must_be_valid(&report);
    assert_eq!(report["exitCode"], 0);
    assert_eq!(report["totals"]["cases"]["pass"], 2);
    assert_eq!(report["options"]["seed"], 7);
    assert_eq!(report["options"]["filter"], args[2]);
    let events = events(&out);
    let audited = of_type(&events, "measured").into_iter().filter(|event| {
        event["name"] == "rules audited" && event["value"].as_f64().is_some_and(|lines| lines > 0.0)
    });
    assert_eq!(audited.count(), 4, "the audit knows the reference's rules");
    let junit = fs::read_to_string(out.join("junit.xml")).expect("junit.xml is written");
    let markdown = fs::read_to_string(out.join("report.md")).expect("report.md is written");
    for case in ["clusterip-basic[ipv4,TCP]", "clusterip-basic[ipv6,TCP]"] {
        assert!(junit.contains(case), "{junit}");
        assert!(
            finished.stdout.contains(&format!("{case} #2")),
            "{finished:?}"
        );
    }
    assert!(markdown.contains("onformant"), "{markdown}");
    assert!(
        !out.join("cases").exists(),
        "what passes leaves no evidence"
    );
    let seeds = seeds(&out);
    assert_eq!(seeds.len(), 4);
    for ((case, attempt), seed) in seeds {
        assert_eq!(
            seed,
            harness::plan::attempt_seed(7, &case, attempt),
            "{case} #{attempt}"
        );
    }
}

#[test]
fn the_null_candidate_fails_whatever_expects_an_answer() {
    if !worlds() {
        return;
    }
    let directory = directory();
    write(
        directory.path(),
        "one.yaml",
        &scenario(
            "1s",
            "  - probe: {to: {service: web}, expect: {endpoints: [web]}}\n",
        ),
    );
    let finished = run(
        directory.path(),
        &[
            "run",
            "one.yaml",
            "--candidate",
            "null",
            "--no-classify",
            "--out",
            "out",
        ],
    )
    .exits(1);
    assert!(
        finished.stdout.contains("\nnot conformant: "),
        "{finished:?}"
    );
    let events = events(&directory.path().join("out"));
    let attempts = of_type(&events, "attemptFinished");
    assert_eq!(attempts.len(), 2);
    for attempt in attempts {
        assert!(attempt["positiveChecks"].as_u64() > Some(0), "{attempt}");
        assert_eq!(attempt["verdict"], "fail", "{attempt}");
    }
    must_be_valid(&report(&directory.path().join("out")));
}

#[test]
fn fail_fast_stops_at_the_first_failure() {
    if !worlds() {
        return;
    }
    let directory = directory();
    write(directory.path(), "one.yaml", &scenario("300ms", ""));
    let args = [
        "run",
        "one.yaml",
        "--candidate",
        "null",
        "--jobs",
        "1",
        "--fail-fast",
        "--no-classify",
        "--out",
        "out",
    ];
    run(directory.path(), &args).exits(1);
    let report = report(&directory.path().join("out"));
    assert_eq!(report["end"]["reason"], "failFast");
    assert_eq!(
        (
            &report["totals"]["cases"]["fail"],
            &report["totals"]["cases"]["notRun"]
        ),
        (&1.into(), &1.into())
    );
}

#[test]
fn a_candidate_that_ends_is_the_candidates_failure() {
    if !worlds() {
        return;
    }
    let directory = directory();
    write(directory.path(), "one.yaml", &scenario("30s", ""));
    let manifest = "name: short\nprocess: {command: [sh, -c, 'echo cannot go on; exit 3']}\n";
    write(directory.path(), "short.yaml", manifest);
    let args = [
        "run",
        "one.yaml",
        "--filter",
        "family=ipv4",
        "--candidate",
        "short.yaml",
        "--no-classify",
        "--out",
        "out",
    ];
    run(directory.path(), &args).exits(1);
    let report = report(&directory.path().join("out"));
    assert_eq!(report["candidate"]["name"], "short");
    assert!(
        report["cases"].to_string().contains("cannot go on"),
        "its last words are in the report: {report:#}"
    );
}

#[test]
fn a_failed_attempt_leaves_what_is_needed_to_understand_and_repeat_it() {
    if !worlds() {
        return;
    }
    let directory = directory();
    write(directory.path(), "one.yaml", &scenario("500ms", ""));
    let manifest = "name: mute\nversion: v9\nprocess: {command: [sh, -c, 'echo I do nothing; exec sleep 1000']}\n";
    write(directory.path(), "mute.yaml", manifest);
    let args = [
        "run",
        "one.yaml",
        "--filter",
        "family=ipv6",
        "--candidate",
        "mute.yaml",
        "--seed",
        "11",
        "--no-classify",
        "--out",
        "out",
    ];
    run(directory.path(), &args).exits(1);
    let out = directory.path().join("out");
    let report = report(&out);
    must_be_valid(&report);
    let evidence = of_type(&events(&out), "attemptFinished")[0]["evidence"]
        .as_str()
        .expect("evidence")
        .to_owned();
    assert_eq!(evidence, "cases/one-endpoint[ipv6]/1");
    let evidence = out.join(evidence);
    let read = |name: &str| {
        fs::read_to_string(evidence.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let matrix = read("matrix.txt");
    assert!(
        matrix
            .lines()
            .any(|line| line.starts_with("| X") && line.contains("client")),
        "{matrix}"
    );
    let objects: Value = serde_json::from_str(&read("objects.json")).expect("JSON");
    assert!(
        objects.as_array().is_some_and(|history| history.len() > 3),
        "{objects:#}"
    );
    for file in [
        "story.txt",
        "failures.json",
        "nodes/node1/ruleset.txt",
        "nodes/node1/conntrack.txt",
    ] {
        read(file);
    }
    for (file, holds) in [
        ("nodes/node1/routes.txt", "fd00:244:0:1::b"),
        ("nodes/node1/addresses.txt", "10.89.0.11"),
        ("nodes/node1/candidate.log", "I do nothing"),
        ("story.txt", "converge"),
        ("failures.json", "one-endpoint[ipv6]"),
    ] {
        let text = read(file);
        assert!(
            text.contains(holds),
            "{file} should contain {holds}:\n{text}"
        );
    }
    let packets = fs::File::open(evidence.join("nodes/node1/packets.pcap")).expect("a capture");
    let mut packets = PcapNgReader::new(packets).expect("a capture in a format that tcpdump reads");
    let mut count = 0;
    while let Some(block) = packets.next_block() {
        count += usize::from(matches!(
            block.expect("a whole block"),
            Block::EnhancedPacket(_)
        ));
    }
    assert!(count > 0, "the capture holds no packet");

    // The same case, the same seed, and nothing else; with a proxy that works it passes.
    let repro = evidence.join("scenario.yaml");
    let repro = repro.to_str().expect("text");
    let finished = run(directory.path(), &["run", repro, "--out", "again"]).exits(0);
    assert!(
        finished.stdout.contains("one-endpoint[ipv6]"),
        "{finished:?}"
    );
    assert_eq!(seeds(&directory.path().join("again")), seeds(&out));
}
