//! `scenarios/bugs.yaml`: the catalogue of real bugs, and where each of them would be seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::table::{Row, Standing, Table, covers_line, exists};
use crate::{
    plan::{Catalogue, Requirements},
    scenario::{Problem, load},
};

/// In front of a row's id, where it stands among other references.
const PREFIX: &str = "bug:";

/// The file.
#[derive(Clone, Debug)]
pub struct Bugs {
    file: Arc<str>,
    data: Data,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    rows: Vec<Spanned<Bug>>,
    accounts: Vec<Spanned<Account>>,
}

/// A row of the catalogue.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bug {
    /// Such as `U1`.
    pub id: String,
    /// Whether it can be made to happen on one machine.
    pub on: Occurrence,
    /// Issues, pull requests and commits.
    #[serde(rename = "where")]
    pub places: String,
    /// Who had it.
    pub who: String,
    /// What went wrong.
    pub symptom: String,
    /// What of it can be observed from outside.
    pub seen: String,
}

/// Whether a bug can be made to happen on one machine with network namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Occurrence {
    /// Each time.
    Always,
    /// A race or a load: with a rate.
    Sometimes,
    /// Not at all.
    Never,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Account {
    row: String,
    #[serde(default)]
    scenarios: Option<Vec<String>>,
    #[serde(default)]
    same_as: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    open: Option<String>,
    #[serde(default)]
    note: Option<String>,
}

impl Bugs {
    /// Reads the file.
    ///
    /// # Errors
    /// The place that cannot be understood, or an account that does not decide.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problem> {
        let file: Arc<str> = file.into();
        let data: Data = load::parse(&file, text)?;
        for Spanned {
            value: account,
            referenced,
            ..
        } in &data.accounts
        {
            let refuse = |message: String| {
                Err(Problem {
                    file: file.clone(),
                    line: referenced.line(),
                    message,
                })
            };
            let decided = usize::from(account.scenarios.is_some())
                + usize::from(account.same_as.is_some())
                + usize::from(account.reason.is_some())
                + usize::from(account.open.is_some());
            if decided != 1 {
                return refuse(format!(
                    "an account has exactly one of scenarios, sameAs, reason and open, not {decided}"
                ));
            }
            if account.same_as.is_some() && account.note.is_none() {
                return refuse("sameAs needs a note: why the observable is the same".into());
            }
        }
        Ok(Self { file, data })
    }

    /// A row by id, such as `U1` or `bug:U1`.
    pub fn get(&self, id: &str) -> Option<&Bug> {
        let id = id.strip_prefix(PREFIX).unwrap_or(id);
        self.data
            .rows
            .iter()
            .map(|row| &row.value)
            .find(|row| row.id == id)
    }

    /// Compares the accounts with the catalogue of scenarios.
    pub fn table(&self, catalogue: &Catalogue, requirements: &Requirements) -> Table {
        let mut gaps = self.unknown_rows(catalogue, requirements);
        let mut gap = |line: u64, message: String| {
            gaps.push(Problem {
                file: self.file.clone(),
                line,
                message,
            });
        };
        let mut lines: BTreeMap<&str, u64> = BTreeMap::new();
        for row in &self.data.rows {
            let line = row.referenced.line();
            if lines.insert(&row.value.id, line).is_some() {
                gap(line, format!("the row {} is there twice", row.value.id));
            }
        }
        let mut accounts: BTreeMap<&str, &Account> = BTreeMap::new();
        for account in &self.data.accounts {
            let (line, account) = (account.referenced.line(), &account.value);
            if !lines.contains_key(account.row.as_str()) {
                gap(line, format!("'{}' is not among the rows", account.row));
            } else if accounts.insert(&account.row, account).is_some() {
                gap(line, format!("{} has two accounts", account.row));
            }
            for id in account.scenarios.iter().flatten() {
                if !exists(catalogue, id) {
                    gap(line, format!("'{id}' is no scenario"));
                }
            }
            if account.scenarios.as_ref().is_some_and(Vec::is_empty) {
                gap(line, format!("{} names no scenario", account.row));
            }
        }
        let claims = claims(catalogue);
        // The row in which the observable is shown, for rows that refer to another one.
        let shown_in = |id: &str| -> Option<BTreeSet<String>> {
            let mut scenarios = claims.get(id).cloned().unwrap_or_default();
            let own = accounts
                .get(id)
                .and_then(|account| account.scenarios.clone());
            scenarios.extend(own.into_iter().flatten());
            (!scenarios.is_empty()).then_some(scenarios)
        };
        let mut rows = Vec::new();
        for bug in &self.data.rows {
            let (line, bug) = (bug.referenced.line(), &bug.value);
            let account = accounts.get(bug.id.as_str());
            let scenarios = shown_in(&bug.id);
            let mut note = account.and_then(|account| account.note.clone());
            let (standing, scenarios) = match (account, scenarios) {
                (None, scenarios) => {
                    gap(line, format!("{} has no account", bug.id));
                    (Standing::Open, scenarios)
                }
                (Some(account), Some(scenarios)) => {
                    if let Some(reason) = &account.reason {
                        let who: Vec<&str> = scenarios.iter().map(String::as_str).collect();
                        let who = who.join(", ");
                        gap(
                            line,
                            format!(
                                "{} is not shown ({reason}), but covered according to {who}",
                                bug.id
                            ),
                        );
                    }
                    (Standing::Covered, Some(scenarios))
                }
                (Some(account), None) => {
                    if let Some(other) = &account.same_as {
                        let shown = shown_in(other);
                        if shown.is_none() {
                            gap(
                                line,
                                format!(
                                    "{} is the same as {other}, which no scenario shows",
                                    bug.id
                                ),
                            );
                        }
                        note = note.map(|why| format!("same as {other}: {why}"));
                        (Standing::SameObservable, shown)
                    } else if let Some(reason) = &account.reason {
                        note = Some(reason.clone());
                        (Standing::OutOfScope, None)
                    } else {
                        let why = account.open.clone().unwrap_or_default();
                        gap(line, format!("{} ({}) is open: {why}", bug.id, bug.symptom));
                        note = Some(why);
                        (Standing::Open, None)
                    }
                }
            };
            rows.push(Row {
                id: format!("{PREFIX}{}", bug.id),
                text: bug.symptom.clone(),
                group: None,
                standing,
                scenarios: scenarios.into_iter().flatten().collect(),
                note,
            });
        }
        Table {
            name: "bugs",
            of: "real bugs of Service proxies".into(),
            rows,
            gaps,
        }
    }

    /// References to rows that are not there, in documents and requirements.
    fn unknown_rows(&self, catalogue: &Catalogue, requirements: &Requirements) -> Vec<Problem> {
        let mut gaps = Vec::new();
        for document in &catalogue.documents {
            for entry in &document.header.covers {
                if entry.starts_with(PREFIX) && self.get(entry).is_none() {
                    gaps.push(Problem {
                        file: document.file.clone(),
                        line: covers_line(&document.text, entry),
                        message: format!("covers: '{entry}' is no row of {}", self.file),
                    });
                }
            }
        }
        for requirement in requirements.iter() {
            for entry in &requirement.source {
                if entry.starts_with(PREFIX) && self.get(entry).is_none() {
                    gaps.push(Problem {
                        file: "scenarios/requirements.yaml".into(),
                        line: 0,
                        message: format!(
                            "{}: the source '{entry}' is no row of {}",
                            requirement.id, self.file
                        ),
                    });
                }
            }
        }
        gaps
    }
}

/// What the documents say in `covers`: row -> scenarios.
fn claims(catalogue: &Catalogue) -> BTreeMap<String, BTreeSet<String>> {
    let mut claims: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for document in &catalogue.documents {
        for entry in &document.header.covers {
            if let Some(row) = entry.strip_prefix(PREFIX) {
                claims
                    .entry(row.into())
                    .or_default()
                    .insert(document.header.id.clone());
            }
        }
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::read_documents;

    const FILE: &str = "\
rows:
  - {id: A1, on: always, where: x#1, who: x, symptom: s1, seen: o}
  - {id: A2, on: sometimes, where: x#2, who: x, symptom: s2, seen: o}
  - {id: A3, on: never, where: x#3, who: x, symptom: s3, seen: o}
accounts:
  - {row: A1, scenarios: [of-the-test]}
  - {row: A2, sameAs: A1, note: the same packet}
  - {row: A3, reason: on Windows only}
";

    fn table(from: &str, to: &str, covers: &str) -> Table {
        assert!(FILE.contains(from), "{from}");
        let bugs = Bugs::parse("b.yaml", &FILE.replace(from, to)).expect("a file");
        let requirements: Arc<str> = "r.yaml".into();
        let requirements = Requirements::parse(
            &requirements,
            "- {id: SVC-CIP-1, area: a, level: core, text: t, source: [x]}\n",
        )
        .expect("requirements");
        let text = format!(
            "id: of-the-test\ntitle: T\nrequirement: [SVC-CIP-1]\ncovers: [\"{covers}\"]\nsteps: []\n"
        );
        let documents = read_documents("of-the-test.yaml", &text).expect("a document");
        let catalogue = Catalogue {
            documents: documents.into_iter().map(Arc::new).collect(),
        };
        bugs.table(&catalogue, &requirements)
    }

    fn gaps(from: &str, to: &str, covers: &str) -> Vec<String> {
        let table = table(from, to, covers);
        table.gaps.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rows_stand_where_their_accounts_say() {
        let table = table("A1", "A1", "x#1");
        let standings: Vec<_> = table.rows.iter().map(|row| row.standing).collect();
        assert_eq!(
            standings,
            [
                Standing::Covered,
                Standing::SameObservable,
                Standing::OutOfScope
            ]
        );
        assert_eq!(table.rows[1].scenarios, ["of-the-test"]);
        assert!(table.gaps.is_empty(), "{:?}", table.gaps);
    }

    #[test]
    fn gaps_are_found() {
        for (from, to, covers, want) in [
            (
                "  - {row: A3, reason: on Windows only}\n",
                "",
                "x#1",
                "b.yaml:4: A3 has no account",
            ),
            (
                "row: A3",
                "row: A4",
                "x#1",
                "b.yaml:8: 'A4' is not among the rows|b.yaml:4: A3 has no account",
            ),
            (
                "reason: on Windows only",
                "open: nobody wrote it",
                "x#1",
                "b.yaml:4: A3 (s3) is open: nobody wrote it",
            ),
            (
                "[of-the-test]",
                "[gone]",
                "x#1",
                "b.yaml:6: 'gone' is no scenario",
            ),
            (
                "A1",
                "A1",
                "bug:A9",
                "of-the-test.yaml:4: covers: 'bug:A9' is no row of b.yaml",
            ),
            (
                "A1",
                "A1",
                "bug:A3",
                "b.yaml:4: A3 is not shown (on Windows only), but covered according to of-the-test",
            ),
            (
                "sameAs: A1",
                "sameAs: A3",
                "x#1",
                "b.yaml:3: A2 is the same as A3, which no scenario shows",
            ),
        ] {
            assert_eq!(gaps(from, to, covers).join("|"), want, "{to}");
        }
        // A document that says so closes what the file calls open.
        assert_eq!(
            gaps("reason: on Windows only", "open: nobody wrote it", "bug:A3"),
            [""; 0]
        );
    }

    #[test]
    fn broken_files_are_named_with_their_line() {
        for (from, to, line) in [
            ("reason: on Windows only", "", 8),
            (", note: the same packet", "", 7),
            ("on: never", "on: tuesdays", 4),
        ] {
            let problem = Bugs::parse("b.yaml", &FILE.replace(from, to)).expect_err(to);
            assert_eq!(problem.line, line, "{problem}");
        }
    }
}
