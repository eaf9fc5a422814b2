//! Reads the rows of a candidate out of the file.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::{Row, TransactionBehavior, params};

use super::trend::CaseRows;
use super::{CandidateTrend, History, HistoryError, Point, RunRow, Sighting, SignatureTrend};
use crate::model::Signature;

impl History {
    /// Names of all candidates.
    ///
    /// # Errors
    /// [`HistoryError`] when the file cannot be read.
    pub fn candidates(&self) -> Result<Vec<String>, HistoryError> {
        let read = || -> rusqlite::Result<Vec<String>> {
            let sql = "SELECT DISTINCT candidate FROM runs ORDER BY candidate";
            let mut statement = self.connection.prepare(sql)?;
            let names = statement.query_map([], |row| row.get(0))?;
            names.collect()
        };
        read().map_err(|error| self.failed(error))
    }

    /// The history of a candidate; without any run when it is unknown.
    ///
    /// # Errors
    /// [`HistoryError`] when the file cannot be read.
    pub fn candidate(&mut self, candidate: &str) -> Result<CandidateTrend, HistoryError> {
        let path = self.path.clone();
        let mut read = || -> rusqlite::Result<CandidateTrend> {
            // One transaction: an import between two queries would tear what they say.
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Deferred)?;
            let (runs, places) = runs(&transaction, candidate)?;
            let mut cases = points(&transaction, candidate, &places)?;
            signatures(&transaction, candidate, &runs, &places, &mut cases)?;
            let rows = cases.into_values().collect();
            Ok(CandidateTrend::of(candidate.to_owned(), runs, rows))
        };
        read().map_err(|error| HistoryError::of(&path, error))
    }
}

/// The runs by their start, and the place of each by its row.
type Runs = (Vec<RunRow>, HashMap<i64, usize>);

fn runs(connection: &rusqlite::Connection, candidate: &str) -> rusqlite::Result<Runs> {
    let mut statement = connection.prepare(
        "SELECT id, run_id, started, candidate, version, digest, suite, catalogue, provider, kernel, arch, profile,
                conclusion, complete, sum(r.passed), sum(r.failed), sum(r.infra)
         FROM runs LEFT JOIN results r ON r.run = runs.id
         WHERE candidate = ?1 GROUP BY id ORDER BY started, run_id",
    )?;
    type Found = (i64, RunRow, Option<String>, Option<String>);
    let row = |row: &Row| -> rusqlite::Result<Found> {
        let count = |at: usize| -> rusqlite::Result<u64> {
            Ok(row.get::<_, Option<u64>>(at)?.unwrap_or(0))
        };
        let run = RunRow {
            run_id: row.get(1)?,
            started: time(row.get(2)?),
            candidate: row.get(3)?,
            version: String::new(),
            suite: row.get(6)?,
            catalogue: row.get(7)?,
            provider: row.get(8)?,
            kernel: row.get(9)?,
            arch: row.get(10)?,
            profile: row.get(11)?,
            conclusion: row.get(12)?,
            complete: row.get(13)?,
            passed: count(14)?,
            failed: count(15)?,
            infra: count(16)?,
        };
        Ok((row.get(0)?, run, row.get(4)?, row.get(5)?))
    };
    let found: Vec<Found> = statement
        .query_map([candidate], row)?
        .collect::<Result<_, _>>()?;
    let mut digests: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (_, _, version, digest) in &found {
        if let (Some(version), Some(digest)) = (version, digest) {
            digests.entry(version).or_default().insert(digest);
        }
    }
    let several: BTreeSet<String> = digests
        .into_iter()
        .filter(|(_, digests)| digests.len() > 1)
        .map(|(version, _)| version.to_owned())
        .collect();
    let mut rows = Vec::new();
    let mut places = HashMap::new();
    for (id, mut run, version, digest) in found {
        let ambiguous = version
            .as_ref()
            .is_some_and(|version| several.contains(version));
        run.version = label(version.as_deref(), digest.as_deref(), ambiguous);
        places.insert(id, rows.len());
        rows.push(run);
    }
    Ok((rows, places))
}

/// A version as people see it.
fn label(version: Option<&str>, digest: Option<&str>, ambiguous: bool) -> String {
    let short = digest.map(|digest| {
        let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
        &hex[..hex.floor_char_boundary(8)]
    });
    match (version, short) {
        (Some(version), Some(short)) if ambiguous => format!("{version}@{short}"),
        (Some(version), _) => version.to_owned(),
        (None, Some(short)) => format!("@{short}"),
        (None, None) => "unknown".to_owned(),
    }
}

fn time(micros: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(micros).unwrap_or_default();
    format!("{time:.6}")
}

fn points(
    connection: &rusqlite::Connection,
    candidate: &str,
    places: &HashMap<i64, usize>,
) -> rusqlite::Result<BTreeMap<String, CaseRows>> {
    let mut statement = connection.prepare(
        "SELECT c.name, c.scenario, c.title, c.area, c.level, x.run, x.verdict, x.passed, x.failed, x.infra, x.skipped,
                x.p50, x.p99, x.class
         FROM results x JOIN runs r ON r.id = x.run JOIN cases c ON c.id = x.case_id
         WHERE r.candidate = ?1",
    )?;
    let mut cases: BTreeMap<String, CaseRows> = BTreeMap::new();
    let mut rows = statement.query([candidate])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        if !cases.contains_key(&name) {
            let case = CaseRows {
                case: name.clone(),
                scenario: row.get(1)?,
                title: row.get(2)?,
                area: row.get(3)?,
                level: row.get(4)?,
                ..CaseRows::default()
            };
            cases.insert(name.clone(), case);
        }
        let (Some(case), Some(run)) = (cases.get_mut(&name), places.get(&row.get(5)?)) else {
            continue;
        };
        case.points.push(Point {
            run: *run,
            verdict: row.get(6)?,
            passed: row.get(7)?,
            failed: row.get(8)?,
            infra: row.get(9)?,
            skipped: row.get(10)?,
            convergence_p50: row.get(11)?,
            convergence_p99: row.get(12)?,
            class: row.get(13)?,
        });
    }
    for case in cases.values_mut() {
        case.points.sort_by_key(|point| point.run);
    }
    Ok(cases)
}

fn signatures(
    connection: &rusqlite::Connection,
    candidate: &str,
    runs: &[RunRow],
    places: &HashMap<i64, usize>,
    cases: &mut BTreeMap<String, CaseRows>,
) -> rusqlite::Result<()> {
    let mut found: BTreeMap<(String, Signature), SignatureTrend> = BTreeMap::new();
    let mut add = |key: (String, Signature), new: SignatureTrend| {
        let Some(known) = found.get_mut(&key) else {
            found.insert(key, new);
            return;
        };
        known.attempts += new.attempts;
        if new.first < known.first {
            known.first = new.first;
        }
        // The newest example is the one whose evidence is most likely still there.
        if new.last >= known.last && !new.example.is_empty() {
            known.last = new.last;
            known.example = new.example;
        }
    };
    let key = |row: &Row| -> rusqlite::Result<(String, Signature)> {
        let signature = Signature {
            requirement: row.get(1)?,
            verb: row.get(2)?,
            kind: row.get(3)?,
            cell: row.get(4)?,
            log: row.get(5)?,
        };
        Ok((row.get(0)?, signature))
    };
    let mut statement = connection.prepare(
        "SELECT c.name, s.requirement, s.verb, s.kind, s.cell, s.log, f.attempts, f.run, f.example
         FROM failures f JOIN runs r ON r.id = f.run JOIN cases c ON c.id = f.case_id
         JOIN signatures s ON s.id = f.signature
         WHERE r.candidate = ?1",
    )?;
    let mut rows = statement.query(params![candidate])?;
    while let Some(row) = rows.next()? {
        let Some(run) = places.get(&row.get(7)?).and_then(|at| runs.get(*at)) else {
            continue;
        };
        let sighting = Sighting {
            time: run.started.clone(),
            version: run.version.clone(),
        };
        let key = key(row)?;
        let new = SignatureTrend {
            signature: key.1.clone(),
            attempts: row.get(6)?,
            first: sighting.clone(),
            last: sighting,
            example: row.get(8)?,
        };
        add(key, new);
    }
    let mut statement = connection.prepare(
        "SELECT c.name, s.requirement, s.verb, s.kind, s.cell, s.log, p.attempts, p.first, p.first_version, p.last,
                p.last_version
         FROM pruned p JOIN cases c ON c.id = p.case_id JOIN signatures s ON s.id = p.signature
         WHERE p.candidate = ?1",
    )?;
    let mut rows = statement.query(params![candidate])?;
    while let Some(row) = rows.next()? {
        let key = key(row)?;
        let new = SignatureTrend {
            signature: key.1.clone(),
            attempts: row.get(6)?,
            first: Sighting {
                time: time(row.get(7)?),
                version: row.get(8)?,
            },
            last: Sighting {
                time: time(row.get(9)?),
                version: row.get(10)?,
            },
            example: String::new(),
        };
        add(key, new);
    }
    for ((case, _), signature) in found {
        if let Some(case) = cases.get_mut(&case) {
            case.signatures.push(signature);
        }
    }
    Ok(())
}
