//! What the results of many runs of a candidate say: rates per version, first and last failures, change points, which cases
//! are flaky now, and how often a case was clean in a row.
//!
//! Pure functions of the rows that [`super::read`] brings.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::change::{Count, changes};
use crate::model::{Rate, Signature};

/// The probability that the history of a candidate shows a change point anywhere although nothing has changed.
pub const ALPHA: f64 = 0.05;

/// A run of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunRow {
    /// Names the run among all others.
    pub run_id: String,
    /// When it started: RFC 3339, UTC.
    pub started: String,
    /// Name of the candidate.
    pub candidate: String,
    /// Its version, with a part of the digest where one version has several; that alone where it states no version.
    pub version: String,
    /// Version of the suite.
    pub suite: String,
    /// Digest of the catalogue.
    pub catalogue: String,
    /// How clusters were made.
    pub provider: String,
    /// Kernel release.
    pub kernel: String,
    /// Processor architecture.
    pub arch: String,
    /// The profile.
    pub profile: String,
    /// What it said about the candidate as a whole.
    pub conclusion: String,
    /// Whether it was whole.
    pub complete: bool,
    /// Attempts that passed.
    pub passed: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Attempts that the machine or the harness got in the way of.
    pub infra: u64,
}

/// What one run says about one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// Place of the run in [`CandidateTrend::runs`].
    pub run: usize,
    /// Verdict of the case.
    pub verdict: String,
    /// Its class, where experiments gave it one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Attempts that passed.
    pub passed: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Attempts that the machine or the harness got in the way of.
    pub infra: u64,
    /// Attempts that were skipped.
    pub skipped: u64,
    /// Median of the convergence, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convergence_p50: Option<f64>,
    /// 99th percentile of the convergence, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub convergence_p99: Option<f64>,
}

/// A time and the candidate's version at that time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sighting {
    /// When the run started: RFC 3339, UTC.
    pub time: String,
    /// Version of the candidate.
    pub version: String,
}

/// How often a case failed in one version of the candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionRate {
    /// Version of the candidate.
    pub version: String,
    /// Runs in which the case passed or failed.
    pub runs: u64,
    /// The rate; absent when no attempt passed or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// When the first of these runs started.
    pub first: String,
    /// When the last of these runs started.
    pub last: String,
}

/// The failure rate of a case changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangePoint {
    /// Place in [`CandidateTrend::runs`] of the first run after the change.
    pub run: usize,
    /// The first run after the change.
    pub at: Sighting,
    /// The last run before the change.
    pub since: Sighting,
    /// The rate before, back to the change before that.
    pub before: Rate,
    /// The rate after, up to the next change.
    pub after: Rate,
    /// The p-value, multiplied by the number of places that were looked at.
    pub p: f64,
}

/// Failures of a case with one signature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignatureTrend {
    /// What they have in common.
    pub signature: Signature,
    /// Attempts that failed this way, those of pruned runs included.
    pub attempts: u64,
    /// The first run with one, pruned or not.
    pub first: Sighting,
    /// The last run with one.
    pub last: Sighting,
    /// One of them in a sentence; empty when only pruned runs had one.
    pub example: String,
}

/// The history of one case of a candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaseTrend {
    /// Id of the case.
    pub case: String,
    /// Id of the scenario document.
    pub scenario: String,
    /// The scenario's title.
    pub title: String,
    /// Requirement area.
    pub area: String,
    /// Level.
    pub level: String,
    /// The first run with this case that the history still has.
    pub first_run: Sighting,
    /// The last run with this case.
    pub last_run: Sighting,
    /// The first failure, pruned or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<Sighting>,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Sighting>,
    /// The rates by version, in the order of their first runs.
    pub versions: Vec<VersionRate>,
    /// The rate since the last change, over all versions; absent when no attempt passed or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Rate>,
    /// Where the rate changed.
    pub changes: Vec<ChangePoint>,
    /// The ways in which it failed, the most frequent first.
    pub signatures: Vec<SignatureTrend>,
    /// What each run said.
    pub points: Vec<Point>,
}

/// The history of a candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CandidateTrend {
    /// Name of the candidate.
    pub candidate: String,
    /// Its runs, by their start.
    pub runs: Vec<RunRow>,
    /// Its cases, by their ids.
    pub cases: Vec<CaseTrend>,
}

/// A case that is flaky now: since its failure rate last changed it has passed and failed, and failed lately.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Flake {
    /// Name of the candidate.
    pub candidate: String,
    /// Id of the case.
    pub case: String,
    /// The class that experiments gave it last, where there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The rate since the last change.
    pub rate: Rate,
    /// The last change, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<ChangePoint>,
    /// The first failure, pruned or not.
    pub first: Sighting,
    /// The last failure.
    pub last: Sighting,
    /// The ways in which it failed, the most frequent first.
    pub signatures: Vec<SignatureTrend>,
}

/// How often in a row a case was clean, up to now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CleanRuns {
    /// Name of the candidate.
    pub candidate: String,
    /// Id of the case.
    pub case: String,
    /// Runs in a row, back from the newest, in which the case passed at least once and never failed.
    pub runs: u64,
    /// Attempts that passed in them.
    pub attempts: u64,
    /// Ids of these runs, the newest first.
    pub run_ids: Vec<String>,
    /// The run that ends the row: the newest in which the case failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_in: Option<Sighting>,
}

/// The rows of a case, as they were read.
#[derive(Debug, Default)]
pub(super) struct CaseRows {
    pub case: String,
    pub scenario: String,
    pub title: String,
    pub area: String,
    pub level: String,
    pub points: Vec<Point>,
    pub signatures: Vec<SignatureTrend>,
}

impl CaseRows {
    /// Whether its rate can have changed at all: only then is it one of the series that are looked at for changes.
    pub fn can_change(&self) -> bool {
        let told = |p: &&Point| p.passed + p.failed > 0;
        let runs = self.points.iter().filter(told).count();
        let sum = |count: fn(&Point) -> u64| self.points.iter().map(count).sum::<u64>();
        runs > 1 && sum(|p| p.passed) > 0 && sum(|p| p.failed) > 0
    }
}

impl CandidateTrend {
    /// Folds the rows of a candidate.
    pub(super) fn of(candidate: String, runs: Vec<RunRow>, rows: Vec<CaseRows>) -> Self {
        let series = rows.iter().filter(|rows| rows.can_change()).count();
        let alpha = ALPHA / series.max(1) as f64;
        let cases = rows
            .into_iter()
            .filter_map(|rows| case(&runs, rows, alpha))
            .collect();
        Self {
            candidate,
            runs,
            cases,
        }
    }

    /// The cases that are flaky now. Only failures since this time count as lately: RFC 3339, UTC, as in the runs.
    pub fn flakes(&self, since: &str) -> Vec<Flake> {
        let mut found: Vec<Flake> = self
            .cases
            .iter()
            .filter_map(|case| {
                let rate = case.current.filter(|r| r.failed > 0 && r.failed < r.of)?;
                let last = case
                    .last_failure
                    .clone()
                    .filter(|l| l.time.as_str() >= since)?;
                Some(Flake {
                    candidate: self.candidate.clone(),
                    case: case.case.clone(),
                    class: case
                        .points
                        .iter()
                        .rev()
                        .find_map(|point| point.class.clone()),
                    rate,
                    since: case.changes.last().cloned(),
                    first: case.first_failure.clone()?,
                    last,
                    signatures: case.signatures.clone(),
                })
            })
            .collect();
        found.sort_by(|a, b| b.rate.rate.total_cmp(&a.rate.rate));
        found
    }

    /// How often in a row this case was clean. Runs that say nothing about it, because it was skipped or the machine got in
    /// the way, neither count nor end the row.
    pub fn clean_runs(&self, case: &str) -> Option<CleanRuns> {
        let trend = self.cases.iter().find(|trend| trend.case == case)?;
        let mut clean = CleanRuns {
            candidate: self.candidate.clone(),
            case: case.to_owned(),
            runs: 0,
            attempts: 0,
            run_ids: Vec::new(),
            failed_in: None,
        };
        for point in trend.points.iter().rev() {
            let run = &self.runs[point.run];
            if point.failed > 0 {
                clean.failed_in = Some(run.sighting());
                break;
            }
            if point.passed > 0 {
                clean.runs += 1;
                clean.attempts += point.passed;
                clean.run_ids.push(run.run_id.clone());
            }
        }
        Some(clean)
    }
}

impl RunRow {
    fn sighting(&self) -> Sighting {
        Sighting {
            time: self.started.clone(),
            version: self.version.clone(),
        }
    }
}

fn case(runs: &[RunRow], rows: CaseRows, alpha: f64) -> Option<CaseTrend> {
    let sighting = |point: &Point| runs[point.run].sighting();
    // Runs that say nothing about the case are no part of its series.
    let told: Vec<&Point> = rows
        .points
        .iter()
        .filter(|p| p.passed + p.failed > 0)
        .collect();
    let series: Vec<Count> = told
        .iter()
        .map(|point| Count {
            failed: point.failed,
            of: point.passed + point.failed,
        })
        .collect();
    let found = changes(&series, alpha);
    let current = series[found.last().map_or(0, |change| change.at)..].iter();
    let (failed, of) = current.fold((0, 0), |sum, c| (sum.0 + c.failed, sum.1 + c.of));
    let rate = |count: Count| Rate::new(count.failed, count.of);
    let changes = found
        .iter()
        .filter_map(|change| {
            Some(ChangePoint {
                run: told[change.at].run,
                at: sighting(told[change.at]),
                since: sighting(told[change.at - 1]),
                before: rate(change.before)?,
                after: rate(change.after)?,
                p: change.p,
            })
        })
        .collect();
    let mut signatures = rows.signatures;
    signatures.sort_by(|a, b| {
        (std::cmp::Reverse(a.attempts), &a.signature)
            .cmp(&(std::cmp::Reverse(b.attempts), &b.signature))
    });
    Some(CaseTrend {
        first_run: sighting(rows.points.first()?),
        last_run: sighting(rows.points.last()?),
        first_failure: signatures.iter().map(|s| s.first.clone()).min(),
        last_failure: signatures.iter().map(|s| s.last.clone()).max(),
        versions: versions(runs, &told),
        current: Rate::new(failed, of),
        changes,
        signatures,
        points: rows.points,
        case: rows.case,
        scenario: rows.scenario,
        title: rows.title,
        area: rows.area,
        level: rows.level,
    })
}

fn versions(runs: &[RunRow], told: &[&Point]) -> Vec<VersionRate> {
    let mut order: Vec<VersionRate> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sums: Vec<Count> = Vec::new();
    for point in told {
        let run = &runs[point.run];
        let at = *places.entry(&run.version).or_insert_with(|| {
            order.push(VersionRate {
                version: run.version.clone(),
                runs: 0,
                rate: None,
                first: run.started.clone(),
                last: run.started.clone(),
            });
            sums.push(Count::default());
            order.len() - 1
        });
        order[at].runs += 1;
        order[at].last.clone_from(&run.started);
        sums[at].failed += point.failed;
        sums[at].of += point.passed + point.failed;
        order[at].rate = Rate::new(sums[at].failed, sums[at].of);
    }
    order
}
