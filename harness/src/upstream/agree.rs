//! What the upstream suite and ours say about the same things, side by side.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use reports::{
    Report,
    model::{CaseVerdict, Counts},
};
use serde::Serialize;

use super::{
    choose::Choice,
    images::{Missing, REMEDY},
    junit::{Ended, Spec},
};
use crate::coverage::{Standing, Table};

/// Version of the JSON. Fields may be added without raising it.
pub const UPSTREAM_FORMAT_VERSION: u32 = 1;

/// The upstream suite's results beside ours.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Agreement {
    /// Format of this document, see [`UPSTREAM_FORMAT_VERSION`].
    pub format_version: u32,
    /// The run of ours that is compared; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// Specs by how they ended.
    pub specs: BTreeMap<Ended, usize>,
    /// Rows by how they relate.
    pub relations: BTreeMap<Relation, usize>,
    /// One row per spec that was tried, those that need a look first.
    pub rows: Vec<Row>,
    /// Images that the nodes do not have and cannot get, as far as that was looked at before.
    pub images: Vec<Missing>,
    /// Specs that were not run, each with the reason.
    pub left_out: BTreeMap<String, String>,
    /// Specs that were chosen and of which there is no result.
    pub missing: Vec<String>,
    /// Specs of SIG Network that this suite does not know.
    pub unknown: Vec<String>,
}

/// A spec, and what both suites say.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// How the two relate.
    pub relation: Relation,
    /// The spec as upstream ran it.
    #[serde(flatten)]
    pub spec: Spec,
    /// The worst verdict of our cases about the same; absent when none was planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours: Option<CaseVerdict>,
    /// Ids of the scenarios that show the same.
    pub scenarios: Vec<String>,
    /// Ids of those of their cases that failed.
    pub failing: Vec<String>,
}

/// How the verdicts of the two suites relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// The spec fails and our cases pass: we miss something, or it fails for something else.
    OnlyUpstreamFails,
    /// Our cases fail and the spec passes: we are wrong, or it looks at less.
    OnlyOursFails,
    /// Both fail.
    BothFail,
    /// The spec fails, and nothing of ours says anything about it.
    FailsAlone,
    /// The spec says nothing about the proxy: an image that it needs could not be had.
    Infra,
    /// Both pass.
    BothPass,
    /// The spec passes or skipped itself, and nothing of ours says anything about it; or only ours does.
    NotComparable,
}

impl Relation {
    /// Whether one of the two suites is wrong.
    pub fn is_disagreement(self) -> bool {
        matches!(self, Self::OnlyUpstreamFails | Self::OnlyOursFails)
    }

    fn title(self) -> &'static str {
        match self {
            Self::OnlyUpstreamFails => "Upstream fails, ours passes",
            Self::OnlyOursFails => "Ours fails, upstream passes",
            Self::BothFail => "Both fail",
            Self::FailsAlone => "Upstream fails, and nothing of ours is about it",
            Self::Infra => {
                "Infrastructure: an image could not be had, and nothing is said about the proxy"
            }
            Self::BothPass => "Both pass",
            Self::NotComparable => "Not comparable",
        }
    }

    fn of(ended: Ended, ours: Option<CaseVerdict>) -> Self {
        let passes = match ours {
            Some(CaseVerdict::Pass) => Some(true),
            Some(CaseVerdict::Fail | CaseVerdict::Flaky) => Some(false),
            _ => None,
        };
        match (ended, passes) {
            (Ended::Infra, _) => Self::Infra,
            (Ended::Failed, Some(true)) => Self::OnlyUpstreamFails,
            (Ended::Passed, Some(false)) => Self::OnlyOursFails,
            (Ended::Failed, Some(false)) => Self::BothFail,
            (Ended::Failed, None) => Self::FailsAlone,
            (Ended::Passed, Some(true)) => Self::BothPass,
            (Ended::Passed | Ended::Skipped, None) | (Ended::Skipped, Some(_)) => {
                Self::NotComparable
            }
        }
    }
}

impl Agreement {
    /// Puts the results of both suites side by side.
    pub fn of(specs: Vec<Spec>, choice: &Choice, report: Option<&Report>, table: &Table) -> Self {
        let unrun = choice.imageless.iter().map(|(name, missing)| Spec {
            name: name.clone(),
            ended: Ended::Infra,
            seconds: 0.0,
            message: Some(
                missing
                    .iter()
                    .map(Missing::reason)
                    .collect::<Vec<_>>()
                    .join("; "),
            ),
            image: missing.first().map(|missing| missing.image.clone()),
        });
        let specs: Vec<Spec> = specs.into_iter().chain(unrun).collect();
        let tried: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let missing = choice
            .run
            .iter()
            .filter(|name| !tried.contains(&name.as_str()));
        let missing: Vec<String> = missing.cloned().collect();
        let mut counts: BTreeMap<Ended, usize> = BTreeMap::new();
        let mut rows: Vec<Row> = specs
            .into_iter()
            .map(|spec| {
                *counts.entry(spec.ended).or_default() += 1;
                row(spec, report, table)
            })
            .collect();
        rows.sort_by(|a, b| (a.relation, &a.spec.name).cmp(&(b.relation, &b.spec.name)));
        let mut relations: BTreeMap<Relation, usize> = BTreeMap::new();
        for row in &rows {
            *relations.entry(row.relation).or_default() += 1;
        }
        Self {
            format_version: UPSTREAM_FORMAT_VERSION,
            run_id: report.map(|report| report.run_id.clone()),
            specs: counts,
            relations,
            rows,
            images: choice.missing_images(),
            left_out: choice.left_out.clone(),
            missing,
            unknown: choice.unknown.clone(),
        }
    }

    /// Specs that failed.
    pub fn failed(&self) -> usize {
        self.specs.get(&Ended::Failed).copied().unwrap_or(0)
    }

    /// Specs that say nothing about the proxy, since an image could not be had.
    pub fn infra(&self) -> usize {
        self.specs.get(&Ended::Infra).copied().unwrap_or(0)
    }

    /// Specs that said anything.
    pub fn said(&self) -> usize {
        self.failed() + self.specs.get(&Ended::Passed).copied().unwrap_or(0)
    }

    /// Whether the suites disagree about anything.
    pub fn disagrees(&self) -> bool {
        self.relations
            .keys()
            .any(|relation| relation.is_disagreement())
    }

    /// For people: what needs a look first, then everything that was left out.
    pub fn markdown(&self) -> String {
        use reports::markdown::{code, prose};
        let count = |ended| self.specs.get(&ended).copied().unwrap_or(0);
        let mut text = format!(
            "# Upstream: {} passed, {} failed, {} skipped themselves",
            count(Ended::Passed),
            count(Ended::Failed),
            count(Ended::Skipped)
        );
        if self.infra() > 0 {
            let _ = write!(text, ", {} lacked an image", self.infra());
        }
        text.push_str("\n\n");
        match &self.run_id {
            Some(run) => {
                let _ = writeln!(text, "Beside our run {}.", code(run));
            }
            None => text.push_str("Without a run of ours to compare with.\n"),
        }
        if !self.missing.is_empty() {
            let _ = write!(
                text,
                "\n**Incomplete**: {} chosen specs have no result.\n",
                self.missing.len()
            );
        }
        if self.infra() > 0 {
            let images: BTreeSet<&str> = self
                .rows
                .iter()
                .filter_map(|row| row.spec.image.as_deref())
                .chain(self.images.iter().map(|missing| missing.image.as_str()))
                .collect();
            let images: Vec<String> = images.into_iter().map(code).collect();
            let _ = write!(
                text,
                "\n**Images that could not be had**: {}. What to do: {}.\n",
                images.join(", "),
                prose(REMEDY)
            );
        }
        for relation in [
            Relation::OnlyUpstreamFails,
            Relation::OnlyOursFails,
            Relation::BothFail,
            Relation::FailsAlone,
            Relation::Infra,
            Relation::BothPass,
            Relation::NotComparable,
        ] {
            let rows: Vec<&Row> = self
                .rows
                .iter()
                .filter(|row| row.relation == relation)
                .collect();
            if rows.is_empty() {
                continue;
            }
            let _ = write!(text, "\n## {} ({})\n\n", relation.title(), rows.len());
            for row in rows {
                let _ = write!(text, "- {}", code(&row.spec.name));
                if let Some(message) = &row.spec.message {
                    let _ = write!(text, ": {}", prose(message));
                }
                if !row.failing.is_empty() {
                    let failing: Vec<String> = row.failing.iter().map(|id| code(id)).collect();
                    let _ = write!(text, "; ours: {}", failing.join(", "));
                } else if !row.scenarios.is_empty() && relation.is_disagreement() {
                    let scenarios: Vec<String> = row.scenarios.iter().map(|id| code(id)).collect();
                    let _ = write!(text, "; ours: {}", scenarios.join(", "));
                }
                text.push('\n');
            }
        }
        let lists = [
            ("Chosen, and without a result", &self.missing),
            ("Not known to this suite", &self.unknown),
        ];
        for (title, names) in lists {
            if !names.is_empty() {
                let _ = write!(text, "\n## {title} ({})\n\n", names.len());
                for name in names {
                    let _ = writeln!(text, "- {}", code(name));
                }
            }
        }
        if !self.left_out.is_empty() {
            let _ = write!(text, "\n## Not run ({})\n\n", self.left_out.len());
            for (name, reason) in &self.left_out {
                let _ = writeln!(text, "- {}: {}", code(name), prose(reason));
            }
        }
        text
    }
}

fn row(spec: Spec, report: Option<&Report>, table: &Table) -> Row {
    let account = table.row(&spec.name);
    // What only stands for the same observable, or is out of scope, is no verdict about the spec.
    let scenarios = account.filter(|row| row.standing == Standing::Covered);
    let scenarios = scenarios.map_or_else(Vec::new, |row| row.scenarios.clone());
    let cases = report.into_iter().flat_map(|report| &report.cases);
    let cases: Vec<_> = cases
        .filter(|case| scenarios.contains(&case.scenario))
        .collect();
    let counts: Counts = cases.iter().map(|case| case.verdict).collect();
    let ours = (counts.total > 0).then(|| counts.verdict());
    let failing = cases
        .iter()
        .filter(|case| matches!(case.verdict, CaseVerdict::Fail | CaseVerdict::Flaky));
    Row {
        relation: Relation::of(spec.ended, ours),
        failing: failing.map(|case| case.id.clone()).collect(),
        spec,
        ours,
        scenarios,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_verdicts_has_a_relation() {
        use CaseVerdict::{Fail, Flaky, Infra, NotRun, Pass, Skip, Undecided};
        for (ended, ours, relation) in [
            (Ended::Passed, Some(Pass), Relation::BothPass),
            (Ended::Passed, Some(Fail), Relation::OnlyOursFails),
            (Ended::Passed, Some(Flaky), Relation::OnlyOursFails),
            (Ended::Failed, Some(Pass), Relation::OnlyUpstreamFails),
            (Ended::Failed, Some(Flaky), Relation::BothFail),
            (Ended::Failed, None, Relation::FailsAlone),
            (Ended::Failed, Some(Skip), Relation::FailsAlone),
            (Ended::Failed, Some(Undecided), Relation::FailsAlone),
            (Ended::Passed, Some(Infra), Relation::NotComparable),
            (Ended::Passed, Some(NotRun), Relation::NotComparable),
            (Ended::Passed, None, Relation::NotComparable),
            (Ended::Skipped, Some(Fail), Relation::NotComparable),
            (Ended::Skipped, None, Relation::NotComparable),
            (Ended::Infra, None, Relation::Infra),
            (Ended::Infra, Some(Pass), Relation::Infra),
            (Ended::Infra, Some(Fail), Relation::Infra),
        ] {
            assert_eq!(Relation::of(ended, ours), relation, "{ended:?} {ours:?}");
        }
    }
}
