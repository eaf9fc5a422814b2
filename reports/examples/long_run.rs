//! What a run of so many attempts costs in memory and on disk: `cargo run --release -p reports --example long_run -- 144000`.
//!
//! 144,000 are eight hours at five attempts a second. Every attempt is as in the log of a soak: a start, an end, and what reports show
//! distributions of. One in a thousand fails.

use std::{collections::BTreeMap, time::Instant};

use reports::directory::Writing;
use reports::event::{
    AttemptFinished, CandidateInfo, EVENT_FORMAT_VERSION, EventBody, Failure, FinishReason,
    Machine, Mode, Options, PlannedCase, RunStarted, Suite, Verdict,
};

const CASES: usize = 150;

fn main() {
    let attempts = std::env::args().nth(1);
    let attempts: u32 = attempts.map_or(144_000, |text| text.parse().expect("a number"));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut writing = Writing::create(dir.path()).expect("a directory");
    let record = |writing: &mut Writing, body| {
        writing.record(body).expect("room");
    };
    record(&mut writing, EventBody::RunStarted(start()));
    let began = Instant::now();
    for number in 0..attempts {
        let case = id(number as usize % CASES);
        let attempt = number / CASES as u32 + 1;
        record(
            &mut writing,
            EventBody::AttemptStarted {
                case: case.clone(),
                attempt,
                seed: u64::from(number) * 7_919,
                stress: Some("cpu: 2 busy loops".into()),
                shape: None,
            },
        );
        for (name, unit) in [
            ("convergence", "ms"),
            ("connect latency p50", "us"),
            ("connect latency p90", "us"),
            ("connect latency p99", "us"),
            ("connect latency max", "us"),
        ] {
            record(
                &mut writing,
                EventBody::Measured {
                    case: case.clone(),
                    attempt,
                    name: name.into(),
                    unit: unit.into(),
                    value: f64::from(number % 1_000),
                },
            );
        }
        let fails = number % 1_000 == 999;
        record(
            &mut writing,
            EventBody::AttemptFinished(AttemptFinished {
                case,
                attempt,
                verdict: if fails { Verdict::Fail } else { Verdict::Pass },
                duration_ms: 412.0,
                convergence_ms: Some(f64::from(number % 1_000)),
                failures: if fails { vec![failure()] } else { Vec::new() },
                warnings: Vec::new(),
                skip: None,
                infra: None,
                complaint: None,
                evidence: None,
                checks: 40,
                positive_checks: 30,
            }),
        );
    }
    record(
        &mut writing,
        EventBody::RunFinished {
            reason: FinishReason::Completed,
            message: None,
        },
    );
    println!("{attempts} attempts of {CASES} cases");
    println!(
        "recording:       {:.1} s, {} MiB resident",
        began.elapsed().as_secs_f64(),
        memory("VmRSS")
    );
    let began = Instant::now();
    let (report, _) = writing.finish().expect("room");
    println!(
        "reports:         {:.1} s, {} MiB at the highest",
        began.elapsed().as_secs_f64(),
        memory("VmHWM")
    );
    drop(report);
    let began = Instant::now();
    let resumed = Writing::resume(dir.path(), |_| ()).expect("a run");
    println!("reading it back: {:.1} s", began.elapsed().as_secs_f64());
    drop(resumed);
    for name in ["events.jsonl", "report.json", "junit.xml", "report.md"] {
        let bytes = std::fs::metadata(dir.path().join(name)).map_or(0, |file| file.len());
        println!(
            "{:16} {:.1} MiB",
            format!("{name}:"),
            bytes as f64 / f64::from(1 << 20)
        );
    }
}

fn id(case: usize) -> String {
    format!("some-scenario-of-the-catalogue-{case}[ipv4,TCP]")
}

/// A line of `/proc/self/status`, in MiB.
fn memory(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn failure() -> Failure {
    Failure {
        requirements: vec!["SVC-1".into()],
        step: Some(2),
        verb: "probe".into(),
        kind: "refused".into(),
        cell: Some("pod client -> web ClusterIP 10.96.0.10:80/TCP".into()),
        expected: "one of server-1, server-2".into(),
        actual: "refused by RST".into(),
        message: "pod client was refused by ClusterIP 10.96.0.10:80".into(),
    }
}

fn start() -> RunStarted {
    RunStarted {
        run_id: "long".into(),
        format_version: EVENT_FORMAT_VERSION,
        suite: Suite {
            version: "0".into(),
            catalogue_digest: "sha256:0".into(),
        },
        candidate: CandidateInfo {
            name: "example".into(),
            version: None,
            url: None,
            digest: None,
            features_unsupported: Vec::new(),
        },
        provider: "netns".into(),
        machine: Machine {
            kernel: "6".into(),
            cpus: 2,
            memory_bytes: 0,
            arch: String::new(),
            os: String::new(),
            nft: None,
            iptables: None,
            calibration: None,
        },
        options: Options {
            profile: "core".into(),
            mode: Mode::Soak,
            for_ms: Some(8 * 3_600_000),
            ..Options::default()
        },
        invocation: None,
        waivers: Vec::new(),
        merged: None,
        cases: (0..CASES)
            .map(|case| PlannedCase {
                id: id(case),
                scenario: id(case),
                title: "A title".into(),
                area: "clusterip".into(),
                level: "core".into(),
                requirements: vec!["SVC-1".into()],
                axes: BTreeMap::new(),
                skip: None,
            })
            .collect(),
        requirements: Vec::new(),
    }
}
