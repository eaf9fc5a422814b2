//! Whether a report accounts for everything that this suite asks of a profile: every case, as the catalogue has it, and every skip for a reason
//! that the case and the candidate allow.

use std::collections::{BTreeMap, BTreeSet};

use reports::{
    event::{PlannedCase, RequirementInfo, SkipKind},
    model::{CaseResult, CaseVerdict, Report, RequirementResult},
    sign::{Findings, Kind, listed},
};

use super::{Catalogue, Planned, Profile, Requirements, attempt_seed, needed};
use crate::scenario::Feature;

/// Things that are told by name in one line.
const MAX_TOLD: usize = 10;

/// Features that a candidate lacks because of what its manifest leaves out, without declaring it (`Candidate::lacks`).
const BY_MANIFEST: [Feature; 3] = [
    Feature::NodePortAddresses,
    Feature::Healthz,
    Feature::Cleanup,
];

/// Compares a report with the catalogue and the requirements of this version. A report of another version is not compared, and that is said.
pub fn accounted(
    report: &Report,
    catalogue: &Catalogue,
    requirements: &Requirements,
    findings: &mut Findings,
) {
    let version = env!("CARGO_PKG_VERSION");
    if report.suite.version != version {
        let what = format!(
            "the run was made by suite {}, and this is suite {version}: its catalogue and its cases can be checked with that version only",
            report.suite.version
        );
        return findings.unknown(Kind::Suite, what);
    }
    let digest = catalogue.digest();
    if report.suite.catalogue_digest != digest {
        let what = format!(
            "the catalogue of suite {version} is {digest}, and the run was made with {}",
            report.suite.catalogue_digest
        );
        return findings.broken(Kind::Suite, what);
    }
    let profiles = [Profile::Core, Profile::Extended, Profile::All];
    let named = |profile: &Profile| profile.as_str() == report.options.profile;
    let Some(profile) = profiles.into_iter().find(named) else {
        let what = format!("the suite has no profile {:?}", report.options.profile);
        return findings.broken(Kind::Plan, what);
    };
    let planned = super::of_profile(catalogue, requirements, profile);
    compare(report, &planned, findings);
    if !same_requirements(&report.requirements, &requirements.events()) {
        let what = format!("its requirements are not those of suite {version}");
        findings.broken(Kind::Suite, what);
    }
}

fn compare(report: &Report, planned: &[Planned], findings: &mut Findings) {
    let by_id: BTreeMap<&str, &Planned> = planned
        .iter()
        .map(|case| (case.key.id.as_str(), case))
        .collect();
    let reported: BTreeSet<&str> = report.cases.iter().map(|case| case.id.as_str()).collect();
    let absent: Vec<&str> = by_id
        .keys()
        .filter(|id| !reported.contains(*id))
        .copied()
        .collect();
    if !absent.is_empty() {
        let filter = match &report.options.filter {
            Some(filter) => format!(", because of --filter {filter:?}"),
            None => String::new(),
        };
        let what = format!(
            "{} of the {} cases of profile {} are not accounted for{filter}: {}",
            absent.len(),
            by_id.len(),
            report.options.profile,
            listed(&absent, MAX_TOLD)
        );
        findings.broken(Kind::Plan, what);
    }
    let unknown: Vec<&str> = reported
        .iter()
        .filter(|id| !by_id.contains_key(*id))
        .copied()
        .collect();
    if !unknown.is_empty() {
        let what = format!(
            "not in profile {} of the suite: {}",
            report.options.profile,
            listed(&unknown, MAX_TOLD)
        );
        findings.broken(Kind::Plan, what);
    }
    // A feature that this suite does not know excuses nothing.
    let declared: BTreeSet<Feature> = report
        .candidate
        .features_unsupported
        .iter()
        .filter_map(|one| serde_json::from_value(one.feature.as_str().into()).ok())
        .collect();
    let mut lucky: Vec<&str> = Vec::new();
    for case in &report.cases {
        let Some(planned) = by_id.get(case.id.as_str()) else {
            continue;
        };
        if !is_the_case(case, planned.event()) {
            let what = format!("{}: it is not as the suite has it", case.id);
            findings.broken(Kind::Plan, what);
        }
        skip(case, planned, &declared, findings);
        if other_seed(case, planned, report.options.seed) {
            lucky.push(case.id.as_str());
        }
    }
    if !lucky.is_empty() {
        let what = format!(
            "attempts have other seeds than follow from that of the run: {}",
            listed(&lucky, MAX_TOLD)
        );
        findings.broken(Kind::Seed, what);
    }
}

fn is_the_case(case: &CaseResult, planned: PlannedCase) -> bool {
    case.scenario == planned.scenario
        && case.title == planned.title
        && case.area == planned.area
        && case.level == planned.level
        && case.requirements == planned.requirements
        && case.axes == planned.axes
}

/// A skip has to be for the sake of something that the case needs.
fn skip(
    case: &CaseResult,
    planned: &Planned,
    declared: &BTreeSet<Feature>,
    findings: &mut Findings,
) {
    let (CaseVerdict::Skip, Some(skip)) = (case.verdict, &case.skip) else {
        return;
    };
    let needed: Vec<Feature> = needed(&planned.document, &planned.key).collect();
    let reason = match skip.kind {
        SkipKind::CandidateUnsupported => {
            let lacks =
                |feature: &Feature| declared.contains(feature) || BY_MANIFEST.contains(feature);
            (!needed.iter().any(lacks))
                .then_some("the candidate declares nothing unsupported that the case needs")
        }
        SkipKind::KernelMissing => needed
            .is_empty()
            .then_some("the case needs nothing that a kernel may lack"),
        SkipKind::ProviderCannot | SkipKind::ToolMissing => None,
    };
    if let Some(reason) = reason {
        let what = format!("{}: skipped as {}, but {reason}", case.id, skip.kind);
        findings.broken(Kind::Skip, what);
    }
}

/// Seeds follow from the run's, so that nobody chooses the lucky ones.
fn other_seed(case: &CaseResult, planned: &Planned, run: u64) -> bool {
    let of = |attempt| {
        let own = planned.document.header.seed;
        own.unwrap_or_else(|| attempt_seed(run, &case.id, attempt))
    };
    case.attempts.iter().any(|attempt| {
        let seed = attempt.seed;
        seed.is_some_and(|seed| seed != of(attempt.attempt))
    })
}

fn same_requirements(reported: &[RequirementResult], known: &[RequirementInfo]) -> bool {
    let same = |(a, b): (&RequirementResult, &RequirementInfo)| {
        (&a.id, &a.area, &a.level, &a.text, &a.source)
            == (&b.id, &b.area, &b.level, &b.text, &b.source)
    };
    reported.len() == known.len() && reported.iter().zip(known).all(same)
}

#[cfg(test)]
mod tests {
    use reports::event::{Event, RunStarted, Skip};
    use serde_json::{Value, json};

    use super::*;

    struct Suite {
        catalogue: Catalogue,
        requirements: Requirements,
    }

    impl Suite {
        fn embedded() -> Self {
            let requirements = Requirements::embedded().unwrap();
            let catalogue = Catalogue::embedded(&requirements).unwrap();
            Self {
                catalogue,
                requirements,
            }
        }

        /// A run of all of it.
        fn whole(&self) -> RunStarted {
            let planned =
                super::super::of_profile(&self.catalogue, &self.requirements, Profile::Extended);
            let cases: Vec<PlannedCase> = planned.iter().map(Planned::event).collect();
            let run = json!({
                "runId": "run-1",
                "formatVersion": 2,
                "suite": {
                    "version": env!("CARGO_PKG_VERSION"),
                    "catalogueDigest": self.catalogue.digest(),
                },
                "candidate": {"name": "example-proxy"},
                "provider": "netns",
                "machine": {
                    "kernel": "6.18.0", "cpus": 2, "memoryBytes": 1, "arch": "x86_64", "os": "Debian 12",
                },
                "options": {"profile": "extended", "runs": 1, "jobs": 1, "seed": 42},
                "cases": cases,
                "requirements": self.requirements.events(),
            });
            serde_json::from_value(run).unwrap()
        }

        /// What is found in a run in which every case passes or is skipped as planned, with seeds that follow from `seed`.
        fn findings(&self, run: &RunStarted, seed: u64) -> Findings {
            let mut bodies = vec![serde_json::to_value(run).unwrap()];
            bodies[0]["type"] = "runStarted".into();
            for case in &run.cases {
                let seed = attempt_seed(seed, &case.id, 1);
                let verdict = if case.skip.is_some() { "skip" } else { "pass" };
                bodies.push(json!({
                    "type": "attemptStarted", "case": case.id, "attempt": 1, "seed": seed,
                }));
                bodies.push(json!({
                    "type": "attemptFinished", "case": case.id, "attempt": 1, "verdict": verdict,
                    "durationMs": 1.0, "checks": 1, "skip": case.skip,
                }));
            }
            bodies.push(json!({"type": "runFinished", "reason": "completed"}));
            let event = |(seq, mut body): (usize, Value)| -> Event {
                body["seq"] = seq.into();
                body["time"] = "2026-11-26T12:00:00.000000Z".into();
                serde_json::from_value(body).unwrap()
            };
            let events = bodies.into_iter().enumerate().map(event);
            let report = Report::from_events(events).unwrap();
            let mut findings = Findings::default();
            accounted(&report, &self.catalogue, &self.requirements, &mut findings);
            findings
        }
    }

    fn skipped(run: &mut RunStarted, case: &str, kind: SkipKind) {
        let found = run.cases.iter_mut().find(|one| one.id.starts_with(case));
        found.expect("a case").skip = Some(Skip {
            kind,
            reason: "we would rather not".into(),
        });
    }

    fn declare(run: &mut RunStarted, feature: &str) {
        let declared = json!({"feature": feature, "reason": "not implemented"});
        let declared = serde_json::from_value(declared).unwrap();
        run.candidate.features_unsupported.push(declared);
    }

    #[test]
    fn nothing_of_a_profile_is_left_out_or_made_easier() {
        let suite = Suite::embedded();
        assert_eq!(suite.findings(&suite.whole(), 42), Findings::default());
        type Change = fn(&mut RunStarted);
        let changes: [(&str, Change); 9] = [
            ("plan: 1 of the ", |run| drop(run.cases.remove(3))),
            (
                "are not accounted for, because of --filter \"area:udp\": ",
                |run| {
                    run.options.filter = Some("area:udp".into());
                    run.cases.retain(|case| case.area == "udp");
                },
            ),
            (
                "plan: not in profile extended of the suite: made-up[ipv4]",
                |run| {
                    let mut more = run.cases[0].clone();
                    more.id = "made-up[ipv4]".into();
                    run.cases.push(more);
                },
            ),
            ("it is not as the suite has it", |run| {
                run.cases[0].requirements.clear()
            }),
            ("it is not as the suite has it", |run| {
                run.cases[0].level = "strict".into()
            }),
            ("its requirements are not those of suite", |run| {
                run.requirements[0].text = "A service proxy MAY.".into();
            }),
            ("its requirements are not those of suite", |run| {
                drop(run.requirements.pop())
            }),
            ("suite: the catalogue of suite", |run| {
                run.suite.catalogue_digest = "sha256:c0ffee".into();
            }),
            ("the suite has no profile \"easy\"", |run| {
                run.options.profile = "easy".into()
            }),
        ];
        for (wanted, change) in changes {
            let mut run = suite.whole();
            change(&mut run);
            let found = suite.findings(&run, 42);
            let [one] = &found.broken[..] else {
                panic!("{wanted}: {found:?}");
            };
            let told = format!("{}: {}", one.kind.as_str(), one.what);
            assert!(told.contains(wanted), "{wanted}: {told}");
        }
        let lucky = suite.findings(&suite.whole(), 7);
        assert!(lucky.has(Kind::Seed), "{lucky:?}");
        let mut other = suite.whole();
        other.suite.version = "9.9.9".into();
        let found = suite.findings(&other, 7);
        assert!(found.broken.is_empty(), "{found:?}");
        assert!(found.unknown[0].what.contains("suite 9.9.9"), "{found:?}");
    }

    #[test]
    fn a_skip_is_for_what_the_case_needs_and_the_candidate_lacks() {
        let suite = Suite::embedded();
        let found = |case: &str, kind, declared: Option<&str>| {
            let mut run = suite.whole();
            skipped(&mut run, case, kind);
            declared
                .into_iter()
                .for_each(|feature| declare(&mut run, feature));
            let found = suite.findings(&run, 42);
            assert_eq!(found.broken.is_empty(), !found.has(Kind::Skip), "{found:?}");
            found.broken.first().map(|finding| finding.what.clone())
        };
        let unsupported = SkipKind::CandidateUnsupported;
        for (case, kind, declared, excused) in [
            ("clusterip-basic", unsupported, None, false),
            ("clusterip-basic", unsupported, Some("sctp"), false),
            ("clusterip-basic", SkipKind::KernelMissing, None, false),
            ("clusterip-basic", SkipKind::ToolMissing, None, true),
            ("sctp-basic", unsupported, Some("sctp"), true),
            ("sctp-basic", unsupported, Some("everything"), false),
            ("sctp-basic", unsupported, None, false),
            ("sctp-basic", SkipKind::KernelMissing, None, true),
        ] {
            let found = found(case, kind, declared);
            assert_eq!(
                found.is_none(),
                excused,
                "{case} {kind} {declared:?}: {found:?}"
            );
        }
    }
}
