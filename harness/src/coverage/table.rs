//! A table: what has to be accounted for, where each row stands, and what is missing.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{plan::Catalogue, scenario::Problem};

/// Where a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Scenarios show it.
    Covered,
    /// Scenarios of another row show it, for the observable is the same.
    SameObservable,
    /// A characteristic records it.
    Recorded,
    /// Only a cluster with real nodes can show it.
    RealCluster,
    /// Not decided by a Service proxy, or not to be seen here; the note says why.
    OutOfScope,
    /// Still missing: a gap.
    Open,
}

impl Standing {
    /// As tables say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Covered => "covered",
            Self::SameObservable => "same observable",
            Self::Recorded => "recorded",
            Self::RealCluster => "real cluster",
            Self::OutOfScope => "out of scope",
            Self::Open => "open",
        }
    }
}

/// Something that has to be accounted for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Name of an upstream spec, `bug:U1`, or id of a requirement.
    pub id: String,
    /// What it is about; empty where the id says it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// What it is counted under within its standing: the reason for being out of scope, or a level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Where it stands.
    pub standing: Standing,
    /// Ids of the scenarios that show it, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scenarios: Vec<String>,
    /// A remark, or the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Rows of one kind.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// `upstream`, `bugs` or `requirements`.
    pub name: &'static str,
    /// What a row is, in the plural.
    pub of: String,
    /// The rows, in the order of their file.
    pub rows: Vec<Row>,
    /// What is missing or wrong, with its place.
    #[serde(serialize_with = "as_text")]
    pub gaps: Vec<Problem>,
}

impl Table {
    /// How many rows stand where, and how many of them in which group.
    pub fn totals(&self) -> BTreeMap<Standing, (usize, BTreeMap<&str, usize>)> {
        let mut totals: BTreeMap<Standing, (usize, BTreeMap<&str, usize>)> = BTreeMap::new();
        for row in &self.rows {
            let (count, groups) = totals.entry(row.standing).or_default();
            *count += 1;
            if let Some(group) = &row.group {
                *groups.entry(group.as_str()).or_default() += 1;
            }
        }
        totals
    }

    /// The row with this id.
    pub fn row(&self, id: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.id == id)
    }
}

fn as_text<S: serde::Serializer>(gaps: &[Problem], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(gaps.iter().map(ToString::to_string))
}

/// Whether the catalogue has a scenario of this id.
pub(super) fn exists(catalogue: &Catalogue, id: &str) -> bool {
    catalogue
        .documents
        .iter()
        .any(|document| document.header.id == id)
}

/// The line of an entry of a document's `covers`, for messages.
pub(super) fn covers_line(text: &str, entry: &str) -> u64 {
    let start = text
        .lines()
        .position(|line| line.starts_with("covers:"))
        .unwrap_or(0);
    text.lines()
        .enumerate()
        .skip(start)
        .find(|(_, line)| line.contains(entry))
        .map_or(start as u64 + 1, |(at, _)| at as u64 + 1)
}
