//! Whether a report accounts for everything that this suite asks of a profile: every case, as the catalogue has it, and every skip for a reason
//! that the case and the candidate allow.

use std::collections::{BTreeMap, BTreeSet};

use reports::{
    event::{PlannedCase, RequirementInfo, SkipKind},
    model::{CaseResult, CaseVerdict, Report, RequirementResult},
    sign::{Findings, Kind, listed},
};

use super::{Catalogue, Planned, Profile, Requirements, attempt_seed, needed};
use crate::scenario::{Feature, Problem};

/// Things that are told by name in one line.
const MAX_TOLD: usize = 10;

/// Features that a candidate lacks because of what its manifest leaves out, without declaring it (`Candidate::lacks`).
const BY_MANIFEST: [Feature; 3] = [
    Feature::NodePortAddresses,
    Feature::Healthz,
    Feature::Cleanup,
];

/// Compares a report with the embedded catalogue and requirements. A report of another version of the suite is not compared, and that is said.
///
/// # Errors
/// When the embedded catalogue cannot be read, which is a bug.
pub fn accounted(report: &Report, findings: &mut Findings) -> Result<(), Problem> {
    let version = env!("CARGO_PKG_VERSION");
    if report.suite.version != version {
        let what = format!(
            "the run was made by suite {}, and this is suite {version}: its catalogue and its cases can be checked with that version only",
            report.suite.version
        );
        findings.unknown(Kind::Suite, what);
        return Ok(());
    }
    let requirements = Requirements::embedded()?;
    let catalogue = Catalogue::embedded(&requirements)?;
    let digest = catalogue.digest();
    if report.suite.catalogue_digest != digest {
        let what = format!(
            "the catalogue of suite {version} is {digest}, and the run was made with {}",
            report.suite.catalogue_digest
        );
        findings.broken(Kind::Suite, what);
        return Ok(());
    }
    let profiles = [Profile::Core, Profile::Extended, Profile::All];
    let profile = profiles
        .into_iter()
        .find(|p| p.as_str() == report.options.profile);
    let Some(profile) = profile else {
        let what = format!("the suite has no profile {:?}", report.options.profile);
        findings.broken(Kind::Plan, what);
        return Ok(());
    };
    let planned = super::of_profile(&catalogue, &requirements, profile);
    compare(report, &planned, findings);
    let known: Vec<RequirementInfo> = requirements.events();
    if !same_requirements(&report.requirements, &known) {
        let what = format!("its requirements are not those of suite {version}");
        findings.broken(Kind::Suite, what);
    }
    Ok(())
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
    for case in &report.cases {
        let Some(planned) = by_id.get(case.id.as_str()) else {
            continue;
        };
        if !is_the_case(case, planned.event()) {
            let what = format!("{}: it is not as the suite has it", case.id);
            findings.broken(Kind::Plan, what);
        }
        skip(case, planned, &declared, findings);
        seeds(case, planned, report.options.seed, findings);
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
fn seeds(case: &CaseResult, planned: &Planned, run: u64, findings: &mut Findings) {
    let of = |attempt| {
        let own = planned.document.header.seed;
        own.unwrap_or_else(|| attempt_seed(run, &case.id, attempt))
    };
    let other = case.attempts.iter().find(|attempt| {
        let seed = attempt.seed;
        seed.is_some_and(|seed| seed != of(attempt.attempt))
    });
    if let Some(attempt) = other {
        let what = format!(
            "{}, attempt {}: its seed does not follow from that of the run",
            case.id, attempt.attempt
        );
        findings.broken(Kind::Seed, what);
    }
}

fn same_requirements(reported: &[RequirementResult], known: &[RequirementInfo]) -> bool {
    let same = |(a, b): (&RequirementResult, &RequirementInfo)| {
        (&a.id, &a.area, &a.level, &a.text, &a.source)
            == (&b.id, &b.area, &b.level, &b.text, &b.source)
    };
    reported.len() == known.len() && reported.iter().zip(known).all(same)
}
