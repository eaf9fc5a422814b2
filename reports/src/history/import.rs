//! Adds a run to the history, once.
//!
//! A run is known by its id. Importing it again changes nothing, unless it has more to say by now: it was resumed, or
//! shards that the history has one by one were merged. Then it takes the place of what was there. No attempt is ever in
//! the history twice.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Transaction, TransactionBehavior, params};

use super::{History, HistoryError};
use crate::event::{Failure, Verdict};
use crate::model::{Attempt, CaseResult, Report, Signature};
use crate::text::one_line;

/// What became of a run that was to be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imported {
    /// It is new.
    Added,
    /// It says more than these runs did, which it takes the place of.
    Replaced(Vec<String>),
    /// This run says as much or more, and was there before.
    Known(String),
}

/// What decides whether one run takes the place of another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Extent {
    run_id: String,
    /// Itself, or the runs that it was merged from.
    sources: BTreeSet<String>,
    attempts: u64,
    ended: bool,
    complete: bool,
}

impl Extent {
    fn of(report: &Report) -> Self {
        let sources = match &report.merged {
            Some(merged) => merged.sources.iter().map(|s| s.run_id.clone()).collect(),
            None => BTreeSet::from([report.run_id.clone()]),
        };
        Self {
            run_id: report.run_id.clone(),
            sources,
            attempts: report.totals.attempts.total,
            ended: report.end.is_some(),
            complete: report.problems.is_empty(),
        }
    }

    fn says_more_than(&self, other: &Self) -> bool {
        let rank = |e: &Self| (e.attempts, e.sources.len(), e.ended, e.complete);
        rank(self) > rank(other)
    }
}

/// What is to be done with a run, given those in the history that share sources with it.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Add it and remove these.
    Add(Vec<String>),
    /// This one covers it.
    Known(String),
    /// It and this one overlap.
    Overlap(String),
}

fn decide(new: &Extent, known: &[Extent]) -> Decision {
    for other in known {
        let covers = new.sources.is_superset(&other.sources);
        if !covers && !other.sources.is_superset(&new.sources) {
            return Decision::Overlap(other.run_id.clone());
        }
        if !covers || !new.says_more_than(other) {
            return Decision::Known(other.run_id.clone());
        }
    }
    Decision::Add(known.iter().map(|other| other.run_id.clone()).collect())
}

impl History {
    /// Adds a run, in one transaction.
    ///
    /// # Errors
    /// [`HistoryError::Overlap`] when attempts would count twice; other [`HistoryError`]s when the file does not take it. The
    /// history is then as it was.
    pub fn import(&mut self, report: &Report) -> Result<Imported, HistoryError> {
        let path = self.path.clone();
        let failed = |error| HistoryError::of(&path, error);
        let started = micros(&report.started)?;
        let ended = report
            .end
            .as_ref()
            .map(|end| micros(&end.time))
            .transpose()?;
        let new = Extent::of(report);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let known = relatives(&transaction, &new).map_err(failed)?;
        let replaced = match decide(&new, &known) {
            Decision::Known(by) => return Ok(Imported::Known(by)),
            Decision::Overlap(other) => {
                return Err(HistoryError::Overlap {
                    run: new.run_id,
                    other,
                });
            }
            Decision::Add(replaced) => replaced,
        };
        for run in &replaced {
            transaction
                .execute("DELETE FROM runs WHERE run_id = ?1", [run])
                .map_err(failed)?;
        }
        insert(&transaction, report, &new, started, ended).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(if replaced.is_empty() {
            Imported::Added
        } else {
            Imported::Replaced(replaced)
        })
    }
}

fn micros(time: &str) -> Result<i64, HistoryError> {
    match time.parse::<jiff::Timestamp>() {
        Ok(parsed) => Ok(parsed.as_microsecond()),
        Err(source) => Err(HistoryError::Time {
            time: time.to_owned(),
            source,
        }),
    }
}

/// The runs of the history that share a source with this one.
fn relatives(transaction: &Transaction, new: &Extent) -> rusqlite::Result<Vec<Extent>> {
    let mut ids = BTreeSet::new();
    let mut by_source = transaction.prepare("SELECT run FROM sources WHERE run_id = ?1")?;
    for source in &new.sources {
        for id in by_source.query_map([source], |row| row.get::<_, i64>(0))? {
            ids.insert(id?);
        }
    }
    let mut run = transaction
        .prepare("SELECT run_id, attempts, ended IS NOT NULL, complete FROM runs WHERE id = ?1")?;
    let mut sources = transaction.prepare("SELECT run_id FROM sources WHERE run = ?1")?;
    let mut found = Vec::new();
    for id in ids {
        let all = sources.query_map([id], |row| row.get(0))?;
        let all: BTreeSet<String> = all.collect::<rusqlite::Result<_>>()?;
        found.push(run.query_row([id], |row| {
            Ok(Extent {
                run_id: row.get(0)?,
                sources: all.clone(),
                attempts: row.get(1)?,
                ended: row.get(2)?,
                complete: row.get(3)?,
            })
        })?);
    }
    Ok(found)
}

fn insert(
    transaction: &Transaction,
    report: &Report,
    extent: &Extent,
    started: i64,
    ended: Option<i64>,
) -> rusqlite::Result<()> {
    let candidate = &report.candidate;
    let conclusion = serde_json::to_value(report.conclusion);
    let conclusion = conclusion.ok().and_then(|v| v.as_str().map(str::to_owned));
    transaction.execute(
        "INSERT INTO runs (run_id, started, ended, suite, catalogue, candidate, version, digest, provider, kernel, arch,
                           profile, conclusion, complete, attempts)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        params![
            report.run_id,
            started,
            ended,
            report.suite.version,
            report.suite.catalogue_digest,
            candidate.name,
            candidate.version,
            candidate.digest,
            report.provider,
            report.machine.kernel,
            report.machine.arch,
            report.options.profile,
            conclusion.unwrap_or_default(),
            extent.complete,
            extent.attempts,
        ],
    )?;
    let run = transaction.last_insert_rowid();
    for source in &extent.sources {
        let sql = "INSERT INTO sources (run, run_id) VALUES (?1, ?2)";
        transaction.execute(sql, params![run, source])?;
    }
    let told = |case: &&CaseResult| !case.attempts.is_empty() || case.skip.is_some();
    for case in report.cases.iter().filter(told) {
        insert_case(transaction, run, case)?;
    }
    Ok(())
}

fn insert_case(transaction: &Transaction, run: i64, case: &CaseResult) -> rusqlite::Result<()> {
    let id: i64 = transaction
        .prepare_cached(
            "INSERT INTO cases (name, scenario, title, area, level) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (name) DO UPDATE SET title = excluded.title, area = excluded.area, level = excluded.level
             RETURNING id",
        )?
        .query_row(
            params![case.id, case.scenario, case.title, case.area, case.level],
            |row| row.get(0),
        )?;
    let count = |verdict| case.attempts_with(verdict).count() as u64;
    let convergence = case.convergence_ms;
    transaction
        .prepare_cached(
            "INSERT INTO results (run, case_id, verdict, class, passed, failed, infra, skipped, convergence, p50, p90, p99, max)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?
        .execute(params![
            run,
            id,
            case.verdict.as_str(),
            case.classification.as_ref().map(|c| c.class.as_str()),
            count(Verdict::Pass),
            count(Verdict::Fail),
            count(Verdict::Infra),
            count(Verdict::Skip),
            convergence.map_or(0, |c| c.count),
            convergence.map(|c| c.p50),
            convergence.map(|c| c.p90),
            convergence.map(|c| c.p99),
            convergence.map(|c| c.max),
        ])?;
    for (signature, (attempts, example)) in signatures(case) {
        let signature = signature_id(transaction, &signature)?;
        transaction
            .prepare_cached(
                "INSERT INTO failures (run, case_id, signature, attempts, example) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![run, id, signature, attempts, example])?;
    }
    Ok(())
}

/// The longest example that is kept, in characters; the evidence has all of it.
const EXAMPLE: usize = 500;

/// The failed attempts of a case by signature: how many, and the first of them in a sentence.
fn signatures(case: &CaseResult) -> BTreeMap<Signature, (u64, String)> {
    let mut found: BTreeMap<Signature, (u64, String)> = BTreeMap::new();
    for attempt in case.attempts_with(Verdict::Fail) {
        let (signature, example) = match signature(case, attempt) {
            Some((signature, failure)) => (signature, failure.message.as_str()),
            None => (unrecorded(case), "no failure was recorded"),
        };
        let entry = found.entry(signature).or_insert_with(|| {
            let example: String = one_line(example).chars().take(EXAMPLE).collect();
            (0, example)
        });
        entry.0 += 1;
    }
    found
}

fn signature<'a>(case: &CaseResult, attempt: &'a Attempt) -> Option<(Signature, &'a Failure)> {
    let complaint = attempt.complaint.as_deref();
    Signature::of(&case.requirements, &attempt.failures, complaint)
}

/// The signature of an attempt that failed without saying how.
fn unrecorded(case: &CaseResult) -> Signature {
    Signature {
        requirement: case.requirements.first().cloned().unwrap_or_default(),
        verb: "attempt".into(),
        kind: "unrecorded".into(),
        cell: String::new(),
        log: String::new(),
    }
}

fn signature_id(transaction: &Transaction, signature: &Signature) -> rusqlite::Result<i64> {
    let Signature {
        requirement,
        verb,
        kind,
        cell,
        log,
    } = signature;
    let fields = params![requirement, verb, kind, cell, log];
    transaction
        .prepare_cached(
            "INSERT INTO signatures (requirement, verb, kind, cell, log) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET kind = excluded.kind RETURNING id",
        )?
        .query_row(fields, |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(run_id: &str, sources: &[&str], attempts: u64, ended: bool) -> Extent {
        Extent {
            run_id: run_id.into(),
            sources: sources.iter().map(|s| (*s).to_owned()).collect(),
            attempts,
            ended,
            complete: ended,
        }
    }

    #[test]
    fn no_attempt_counts_twice() {
        let a = extent("a", &["a"], 10, true);
        let killed = extent("a", &["a"], 10, false);
        let more = extent("a", &["a"], 12, false);
        let b = extent("b", &["b"], 5, true);
        let ab = extent("a-merged", &["a", "b"], 15, true);
        let abc = extent("a-merged", &["a", "b", "c"], 20, true);
        let bc = extent("b-merged", &["b", "c"], 10, true);
        // A second copy of the same shard, all of whose attempts were dropped, is a reason to replace all the same.
        let copies = extent("a-merged", &["a", "copy"], 10, true);
        let add = |runs: &[&str]| Decision::Add(runs.iter().map(|r| (*r).into()).collect());
        let known = |run: &str| Decision::Known(run.into());
        for (new, history, decision) in [
            (&a, vec![], add(&[])),
            (&a, vec![a.clone()], known("a")),
            (&a, vec![killed.clone()], add(&["a"])),
            (&killed, vec![a.clone()], known("a")),
            (&more, vec![a.clone()], add(&["a"])),
            (&ab, vec![a.clone(), b.clone()], add(&["a", "b"])),
            (&ab, vec![b.clone()], add(&["b"])),
            (&b, vec![ab.clone()], known("a-merged")),
            (&ab, vec![ab.clone()], known("a-merged")),
            (&abc, vec![ab.clone()], add(&["a-merged"])),
            (&ab, vec![abc.clone()], known("a-merged")),
            (&bc, vec![ab.clone()], Decision::Overlap("a-merged".into())),
            (
                &abc,
                vec![ab.clone(), bc.clone()],
                add(&["a-merged", "b-merged"]),
            ),
            (&copies, vec![a.clone()], add(&["a"])),
        ] {
            assert_eq!(decide(new, &history), decision, "{new:?} {history:?}");
        }
    }
}
