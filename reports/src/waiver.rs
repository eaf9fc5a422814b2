//! Waivers: failures that somebody knows of, answers for, and wants to get rid of until a day.
//!
//! A waiver changes no verdict. A waived failure stays a failure in every report, and the candidate stays what it is; only a
//! gate lets it through ([`crate::gate`]). So that waivers do not outlive what they were written for, one that is expired, names
//! what nobody knows, or covers nothing closes the gate itself.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{Failure, Verdict};
use crate::model::{CaseResult, CaseVerdict};

/// A failure that is let through until a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waiver {
    /// Id of the case that fails; absent in a waiver of a requirement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    /// Id of the requirement that is violated, in whatever case; absent in a waiver of a case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirement: Option<String>,
    /// Why it is let through.
    pub reason: String,
    /// Link to the issue that will end it.
    pub issue: String,
    /// The last day on which it counts, UTC.
    #[schemars(with = "String")]
    pub expires: Date,
    /// Who answers for it.
    pub owner: String,
    /// Whether it fails only sometimes: then a run in which it passes does not make the waiver unneeded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_pass: bool,
}

impl Waiver {
    /// What it is about, as in `case udp-basic[ipv4]`.
    pub fn subject(&self) -> String {
        match (&self.case, &self.requirement) {
            (Some(case), _) => format!("case {case}"),
            (None, Some(requirement)) => format!("requirement {requirement}"),
            (None, None) => "nothing".to_owned(),
        }
    }

    /// Who let it through until when, and why, in one line.
    pub fn words(&self) -> String {
        format!(
            "{} ({}; {}, until {})",
            self.reason, self.issue, self.owner, self.expires
        )
    }
}

/// A waiver and what it does in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaiverResult {
    /// The waiver.
    pub waiver: Waiver,
    /// What it does.
    pub state: WaiverState,
    /// Ids of the failing cases that it covers, or covered until it expired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cases: Vec<String>,
}

/// What a waiver does in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WaiverState {
    /// It covers failures.
    Used,
    /// What it is about was tried and did not fail, which it foresees.
    Quiet,
    /// What it is about was tried and did not fail.
    Unneeded,
    /// What it is about was not tried.
    Untried,
    /// Its day has passed: it covers nothing any more.
    Expired,
    /// There is no such case or requirement.
    Unknown,
}

impl WaiverState {
    /// Why a gate does not accept it; `None` if it does.
    pub fn objection(self) -> Option<&'static str> {
        match self {
            WaiverState::Used | WaiverState::Quiet | WaiverState::Untried => None,
            WaiverState::Unneeded => Some("is not needed: nothing that it covers fails"),
            WaiverState::Expired => Some("has expired"),
            WaiverState::Unknown => Some("names what is not in the catalogue"),
        }
    }

    /// The word used in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            WaiverState::Used => "used",
            WaiverState::Quiet => "quiet",
            WaiverState::Unneeded => "unneeded",
            WaiverState::Untried => "untried",
            WaiverState::Expired => "expired",
            WaiverState::Unknown => "unknown",
        }
    }
}

/// How many failing cases are waived, in a sentence; `None` if there is none.
pub fn sentence(cases: &[CaseResult]) -> Option<String> {
    let waived = cases.iter().filter(|case| case.waived.is_some()).count();
    let cases = match waived {
        0 => return None,
        1 => "1 failing case is".to_owned(),
        _ => format!("{waived} failing cases are"),
    };
    Some(format!("{cases} waived, which changes no verdict"))
}

/// Everything that can be named.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Ids of the cases.
    pub cases: BTreeSet<String>,
    /// Ids of the requirements.
    pub requirements: BTreeSet<String>,
}

/// Marks the failing cases that are waived on this day, and says what each waiver does. Without `known`, what the run did not plan may
/// exist all the same.
pub fn apply(
    waivers: &[Waiver],
    cases: &mut [CaseResult],
    today: Date,
    known: Option<&Known>,
) -> Vec<WaiverResult> {
    let about = Subjects::of(waivers, |_| true);
    let valid = Subjects::of(waivers, |waiver| waiver.expires >= today);
    let mut covered: Vec<Vec<String>> = vec![Vec::new(); waivers.len()];
    let mut tried = vec![false; waivers.len()];
    for case in &mut *cases {
        if case.failure_rate.is_some() {
            for at in about.named(case) {
                tried[at] = true;
            }
        }
        let covering = valid.covering(case);
        case.waived = covering.first().map(|at| waivers[*at].clone());
        // What an expired one covered is of interest as long as nothing covers it now.
        let covering = match case.waived {
            Some(_) => covering,
            None => about.covering(case),
        };
        for at in covering {
            covered[at].push(case.id.clone());
        }
    }
    let unknown = |waiver: &Waiver| {
        let missing = |id: &Option<String>, ids: &BTreeSet<String>| {
            id.as_ref().is_some_and(|id| !ids.contains(id))
        };
        known.is_some_and(|known| {
            missing(&waiver.case, &known.cases) || missing(&waiver.requirement, &known.requirements)
        })
    };
    let state = |at: usize, waiver: &Waiver| match () {
        () if unknown(waiver) => WaiverState::Unknown,
        () if waiver.expires < today => WaiverState::Expired,
        () if !covered[at].is_empty() => WaiverState::Used,
        () if !tried[at] => WaiverState::Untried,
        () if waiver.may_pass => WaiverState::Quiet,
        () => WaiverState::Unneeded,
    };
    let result = |(at, waiver): (usize, &Waiver)| WaiverResult {
        waiver: waiver.clone(),
        state: state(at, waiver),
        cases: covered[at].clone(),
    };
    waivers.iter().enumerate().map(result).collect()
}

/// Waivers by what they are about.
struct Subjects<'a> {
    cases: BTreeMap<&'a str, Vec<usize>>,
    requirements: BTreeMap<&'a str, Vec<usize>>,
}

impl<'a> Subjects<'a> {
    fn of(waivers: &'a [Waiver], which: impl Fn(&Waiver) -> bool) -> Self {
        let mut all = Self {
            cases: BTreeMap::new(),
            requirements: BTreeMap::new(),
        };
        let waivers = waivers.iter().enumerate();
        for (at, waiver) in waivers.filter(|(_, waiver)| which(waiver)) {
            if let Some(case) = &waiver.case {
                all.cases.entry(case).or_default().push(at);
            }
            if let Some(requirement) = &waiver.requirement {
                all.requirements.entry(requirement).or_default().push(at);
            }
        }
        all
    }

    fn of_requirement(&self, id: &str) -> &[usize] {
        self.requirements.get(id).map_or(&[], Vec::as_slice)
    }

    /// The waivers that are about the case or one of its requirements.
    fn named(&self, case: &CaseResult) -> Vec<usize> {
        let own = self.cases.get(case.id.as_str()).into_iter().flatten();
        let ids = case.requirements.iter();
        let named = own.chain(ids.flat_map(|id| self.of_requirement(id)));
        named.copied().collect()
    }

    /// The waivers that together cover all failures of the case; none if they do not cover all, or if there are none.
    fn covering(&self, case: &CaseResult) -> Vec<usize> {
        if !matches!(case.verdict, CaseVerdict::Fail | CaseVerdict::Flaky) {
            return Vec::new();
        }
        if let Some(own) = self.cases.get(case.id.as_str()) {
            return own.clone();
        }
        let mut used = BTreeSet::new();
        for attempt in case.attempts_with(Verdict::Fail) {
            let mut violated: BTreeSet<&String> = BTreeSet::new();
            for failure in &attempt.failures {
                violated.extend(&failure.requirements);
            }
            // A failure that blames nothing in particular blames all.
            let vague = |failure: &Failure| failure.requirements.is_empty();
            if attempt.failures.is_empty() || attempt.failures.iter().any(vague) {
                violated.extend(&case.requirements);
            }
            if violated.is_empty() {
                return Vec::new();
            }
            for id in violated {
                let waived = self.of_requirement(id);
                if waived.is_empty() {
                    return Vec::new();
                }
                used.extend(waived);
            }
        }
        used.into_iter().collect()
    }
}
