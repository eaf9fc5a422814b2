//! What a site keeps of one run: a small part of its report, and how far it can be believed.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::html::areas::with_rules;
use crate::html::text::{Text, duration, plural};
use crate::model::{AttemptCounts, CaseResult, CaseVerdict, Conclusion, Counts, Rate, Report};
use crate::model::{GroupSummary, NO_CANARIES, RequirementResult};
use crate::waiver;

/// Who stands for a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signed {
    /// Nobody.
    No,
    /// The owner of a key.
    Yes {
        /// Id of the key.
        key: String,
        /// What its owner goes by.
        name: Option<String>,
        /// Whether whoever made the site named the key.
        known: bool,
    },
    /// There is a signature that does not hold.
    Broken {
        /// What is wrong, first of all.
        why: String,
    },
}

/// What a site keeps of a run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub id: String,
    /// Its directory below `runs/`.
    pub slug: String,
    pub started: String,
    pub candidate: String,
    /// Its version as the history calls it.
    pub version: String,
    pub url: Option<String>,
    pub suite: String,
    pub catalogue: String,
    pub provider: String,
    pub kernel: String,
    pub profile: String,
    pub conclusion: Conclusion,
    /// Why it is not a whole run; empty for one that is.
    pub limits: Vec<Limit>,
    pub signed: Signed,
    pub cases: Counts,
    pub attempts: AttemptCounts,
    pub took: String,
    pub levels: Vec<Level>,
    /// By id, in no order that matters.
    pub requirements: BTreeMap<String, Cell>,
    pub areas: BTreeMap<String, Cell>,
    /// Why cases were skipped, with how many of them, the most first.
    pub skips: Vec<(String, u64)>,
    /// How many failing cases are waived, in a sentence.
    pub waived: Option<String>,
    /// The waivers: what each is about, what it does, and who let it through why.
    pub waivers: Vec<(String, &'static str, String)>,
    pub results: BTreeMap<String, Brief>,
    /// What the candidate does where it may choose: values in their order.
    pub choices: BTreeMap<String, Vec<String>>,
}

/// Why a run is not the whole story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limit {
    /// What kind of limit it is, in a word or two.
    pub title: &'static str,
    pub text: String,
}

/// A verdict and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub verdict: CaseVerdict,
    pub cases: Counts,
    /// Failing cases among them that are waived, which changes no verdict.
    pub waived: u64,
}

impl Cell {
    /// Whether nothing was even planned.
    pub fn is_idle(&self) -> bool {
        self.verdict == CaseVerdict::NotRun && self.cases.total == 0
    }
}

/// The result of a case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Brief {
    pub verdict: CaseVerdict,
    pub rate: Option<Rate>,
}

/// How far a level is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Level {
    pub name: String,
    pub verdict: CaseVerdict,
    pub cases: Counts,
    /// Whether a whole run has nothing against it.
    pub reached: bool,
    /// Areas in which everything of this level that could be run passed, and at least something did.
    pub supported: Vec<String>,
}

impl Run {
    /// The part of a report that is kept.
    pub fn of(report: &Report, version: &str, signed: Signed) -> Self {
        let limits = limits(report);
        let mut by_area: BTreeMap<&str, Vec<&RequirementResult>> = BTreeMap::new();
        for requirement in &report.requirements {
            let area = by_area.entry(requirement.area.as_str()).or_default();
            area.push(requirement);
        }
        let cases: BTreeMap<&str, &GroupSummary> = report
            .areas
            .iter()
            .map(|area| (area.name.as_str(), area))
            .collect();
        let names = by_area.keys().chain(cases.keys());
        let areas = names.map(|name| {
            let rules = by_area.get(name).map_or(&[][..], Vec::as_slice);
            let of_area = cases.get(name);
            let verdict = of_area.map_or(CaseVerdict::NotRun, |area| area.verdict);
            let cell = Cell {
                verdict: with_rules(verdict, rules),
                cases: of_area.map(|area| area.cases).unwrap_or_default(),
                waived: waived(report, |case| case.area == **name),
            };
            ((*name).to_owned(), cell)
        });
        let requirements = report.requirements.iter().map(|requirement| {
            let cell = Cell {
                verdict: requirement.verdict,
                cases: requirement.cases,
                waived: waived(report, |case| case.requirements.contains(&requirement.id)),
            };
            (requirement.id.clone(), cell)
        });
        let results = report
            .cases
            .iter()
            .map(|case| (case.id.clone(), brief(case)));
        let choices = report.characteristics.iter().map(|choice| {
            let values = choice.values.iter().map(|value| value.value.clone());
            (choice.id.clone(), values.collect())
        });
        Self {
            id: report.run_id.clone(),
            slug: slug(&report.run_id),
            started: report.started.clone(),
            candidate: report.candidate.name.clone(),
            version: version.to_owned(),
            url: report.candidate.url.clone(),
            suite: report.suite.version.clone(),
            catalogue: report.suite.catalogue_digest.clone(),
            provider: report.provider.clone(),
            kernel: report.machine.kernel.clone(),
            profile: report.options.profile.clone(),
            conclusion: report.conclusion,
            levels: report
                .levels
                .iter()
                .map(|l| level(report, l, &limits))
                .collect(),
            limits,
            signed,
            cases: report.totals.cases,
            attempts: report.totals.attempts,
            took: duration(report.duration_ms),
            requirements: requirements.collect(),
            areas: areas.collect(),
            skips: skips(report),
            waived: waiver::sentence(&report.cases),
            waivers: waivers(report),
            results: results.collect(),
            choices: choices.collect(),
        }
    }

    /// Whether all of the run is there, nothing was left out on purpose, and it is shown that it would have noticed a bad proxy.
    pub fn is_whole(&self) -> bool {
        self.limits.is_empty()
    }

    /// Where its reports lie, from the top of the site.
    pub fn place(&self) -> String {
        format!("runs/{}", self.slug)
    }

    /// Its day.
    pub fn day(&self) -> Text {
        let end = self.started.find('T').unwrap_or(self.started.len());
        Text::new(&self.started[..end])
    }

    /// The profile as it is shown.
    pub fn profile(&self) -> Text {
        Text::new(match self.profile.as_str() {
            "extended" => "core and extended",
            "all" => "all levels",
            other => other,
        })
    }
}

fn waived(report: &Report, which: impl Fn(&CaseResult) -> bool) -> u64 {
    let waived = report.cases.iter().filter(|case| case.waived.is_some());
    waived.filter(|case| which(case)).count() as u64
}

fn waivers(report: &Report) -> Vec<(String, &'static str, String)> {
    let all = report.waivers.iter().map(|result| {
        let waiver = &result.waiver;
        (waiver.subject(), result.state.as_str(), waiver.words())
    });
    all.collect()
}

fn brief(case: &CaseResult) -> Brief {
    Brief {
        verdict: case.verdict,
        rate: case.failure_rate,
    }
}

/// What keeps a report from being the whole story.
fn limits(report: &Report) -> Vec<Limit> {
    let limit = |title, text: String| Limit { title, text };
    let problems = report.problems.iter();
    let mut limits: Vec<Limit> = problems
        .map(|problem| limit("Incomplete", problem.clone()))
        .collect();
    if let Some(shard) = report.options.shard {
        let text = format!("it is shard {} of {}", shard.index, shard.of);
        limits.push(limit("Partial", text));
    }
    if let Some(filter) = &report.options.filter {
        let text = format!("only cases that match {filter:?} were to be run");
        limits.push(limit("Partial", text));
    }
    if report.options.canaries.is_empty() {
        limits.push(limit("No canaries", NO_CANARIES.to_owned()));
    }
    limits
}

fn level(report: &Report, level: &GroupSummary, limits: &[Limit]) -> Level {
    let cases = &level.cases;
    let against = cases.fail + cases.infra + cases.undecided + cases.not_run;
    let flaky = cases.flaky > 0 && !report.flakes_tolerated();
    let of_level = |r: &&RequirementResult| r.level == level.name;
    let mut areas: BTreeMap<&str, Counts> = BTreeMap::new();
    for requirement in report.requirements.iter().filter(of_level) {
        let counts = areas.entry(requirement.area.as_str()).or_default();
        if requirement.cases.total > 0 {
            counts.add(requirement.verdict);
        }
    }
    let supported = areas
        .into_iter()
        .filter(|(_, counts)| counts.verdict() == CaseVerdict::Pass);
    Level {
        name: level.name.clone(),
        verdict: level.verdict,
        cases: *cases,
        reached: limits.is_empty() && against == 0 && !flaky && cases.executed() > 0,
        supported: supported.map(|(area, _)| area.to_owned()).collect(),
    }
}

fn skips(report: &Report) -> Vec<(String, u64)> {
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    for case in report.cases_with(CaseVerdict::Skip) {
        let reason = case.skip.as_ref().map_or_else(
            || "no reason was given".to_owned(),
            |skip| format!("{}: {}", skip.kind, skip.reason),
        );
        *reasons.entry(reason).or_default() += 1;
    }
    let mut reasons: Vec<(String, u64)> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    reasons
}

/// The cases by verdict, in words.
pub(crate) fn words(counts: &Counts) -> String {
    format!(
        "{}: {}",
        plural(counts.total, "case"),
        crate::markdown::counted(counts)
    )
}

/// Characters of a name that are kept.
const MAX_SLUG: usize = 80;

/// A name as a part of an address and of a path, on every system. What is changed gets a digest, so that no two names become one; so does one with
/// capital letters, which some systems do not tell from small ones.
pub(crate) fn slug(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut slug: String = name
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .take(MAX_SLUG)
        .collect();
    if slug.starts_with('.') {
        slug.replace_range(..1, "_");
    }
    if slug != name || slug.is_empty() || slug.contains(|c: char| c.is_ascii_uppercase()) {
        let digest = Sha256::digest(name.as_bytes());
        let digest: String = digest[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        slug = format!("{slug}-{digest}");
    }
    slug
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_parts_of_paths() {
        assert_eq!(
            slug("20261122-120000-kube-proxy-ab12"),
            "20261122-120000-kube-proxy-ab12"
        );
        for name in [
            "",
            "..",
            ".git",
            "a/b",
            "../../etc",
            "a b",
            "é",
            "A",
            "a\u{202e}b",
            &"x".repeat(500),
        ] {
            let slug = slug(name);
            let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            assert!(
                slug.chars().all(fine) && !slug.starts_with('.') && slug.len() < 100,
                "{slug}"
            );
        }
        assert_ne!(slug("a/b"), slug("a_b"));
        assert_ne!(slug("a/b"), slug("a?b"));
        assert_ne!(slug("Cilium").to_lowercase(), slug("cilium").to_lowercase());
    }
}
