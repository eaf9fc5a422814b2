//! Result directories without worlds: the log of a run, or of a shard of it, whose attempts end as a test wants.

use std::{collections::BTreeMap, path::Path};

use reports::{
    event::{
        AttemptFinished, CanaryFinished, CanaryOutcome, CandidateInfo, EVENT_FORMAT_VERSION,
        EventBody, FinishReason, Machine, Options, PlannedCase, RequirementInfo, RunStarted, Suite,
        Verdict,
    },
    log::EventWriter,
    shard::Shard,
};

/// Ids of the planned cases.
pub const CASES: [&str; 3] = ["one[ipv4]", "two[ipv4]", "three[ipv4]"];

/// A run that is to be written.
pub struct Prepared {
    pub start: RunStarted,
    /// Case and number of the attempts that fail.
    pub fails: Vec<(&'static str, u32)>,
    /// How many attempts are made; then it is killed.
    pub killed_after: Option<usize>,
}

impl Prepared {
    /// A run in which everything passes.
    pub fn new(run_id: &str, runs: u32, shard: Option<Shard>) -> Self {
        let machine = Machine {
            kernel: "6.18.0".into(),
            cpus: 2,
            memory_bytes: 8 << 30,
            arch: "x86_64".into(),
            os: "Debian 12".into(),
            nft: None,
            iptables: None,
            calibration: None,
        };
        Self {
            start: RunStarted {
                run_id: run_id.into(),
                format_version: EVENT_FORMAT_VERSION,
                suite: Suite {
                    version: "0.1.0".into(),
                    catalogue_digest: "sha256:c0ffee".into(),
                },
                candidate: CandidateInfo {
                    name: "example-proxy".into(),
                    version: Some("1.0".into()),
                    url: None,
                    digest: Some("sha256:beef".into()),
                    features_unsupported: Vec::new(),
                },
                provider: "netns".into(),
                machine,
                options: Options {
                    profile: "core".into(),
                    filter: None,
                    runs,
                    jobs: 2,
                    seed: 42,
                    shard,
                    canaries: vec!["null".into()],
                    ..Options::default()
                },
                invocation: None,
                cases: CASES.map(planned).to_vec(),
                requirements: vec![RequirementInfo {
                    id: "SVC-CIP-1".into(),
                    area: "clusterip".into(),
                    level: "core".into(),
                    text: "A service proxy MUST deliver.".into(),
                    source: "api:ServiceSpec.clusterIPs".into(),
                }],
                waivers: Vec::new(),
                merged: None,
            },
            fails: Vec::new(),
            killed_after: None,
        }
    }

    /// Writes the log.
    pub fn write(&self, dir: &Path) {
        std::fs::create_dir_all(dir).expect("a directory");
        let mut log = EventWriter::create(dir.join("events.jsonl")).expect("a new log");
        let mut append = |body| {
            log.append(body).expect("an event");
        };
        append(EventBody::RunStarted(self.start.clone()));
        canaries(&self.start).into_iter().for_each(&mut append);
        let options = &self.start.options;
        let all = (1..=options.runs).flat_map(|n| CASES.map(|case| (case, n)));
        let own = all.filter(|(case, n)| options.shard.is_none_or(|s| s.holds(case, *n)));
        for (case, attempt) in own.take(self.killed_after.unwrap_or(usize::MAX)) {
            append(EventBody::AttemptStarted {
                case: case.into(),
                attempt,
                seed: u64::from(attempt),
                stress: None,
                shape: None,
            });
            let verdict = match self.fails.contains(&(case, attempt)) {
                true => Verdict::Fail,
                false => Verdict::Pass,
            };
            append(EventBody::AttemptFinished(finished(case, attempt, verdict)));
        }
        if self.killed_after.is_none() {
            append(EventBody::RunFinished {
                reason: FinishReason::Completed,
                message: None,
            });
        }
    }
}

/// The known-bad proxies of a run, each noticed.
pub fn canaries(start: &RunStarted) -> Vec<EventBody> {
    let caught = |canary: &String| {
        EventBody::CanaryFinished(CanaryFinished {
            run_id: start.run_id.clone(),
            canary: canary.clone(),
            fault: "it programs nothing".into(),
            case: CASES[0].into(),
            seed: 1,
            attempts: 1,
            outcome: CanaryOutcome::Caught,
            message: "no answer".into(),
            duration_ms: 100.0,
        })
    };
    start.options.canaries.iter().map(caught).collect()
}

fn planned(id: &str) -> PlannedCase {
    PlannedCase {
        id: id.into(),
        scenario: id.split('[').next().unwrap_or(id).into(),
        title: "A client reaches an endpoint".into(),
        area: "clusterip".into(),
        level: "core".into(),
        requirements: vec!["SVC-CIP-1".into()],
        axes: BTreeMap::new(),
        skip: None,
    }
}

fn finished(case: &str, attempt: u32, verdict: Verdict) -> AttemptFinished {
    AttemptFinished {
        case: case.into(),
        attempt,
        verdict,
        duration_ms: 100.0,
        convergence_ms: Some(3.0),
        failures: Vec::new(),
        warnings: Vec::new(),
        skip: None,
        infra: None,
        complaint: None,
        evidence: None,
        checks: 4,
        positive_checks: 3,
    }
}
