//! Candidates against requirements: which runs have a column, and what each says about each rule.

use std::collections::{BTreeMap, HashMap};

use super::run::{Cell, Run};
use crate::model::{CaseVerdict, Report};

/// Versions of one candidate that have a column; its page has all of its runs.
const MAX_VERSIONS: usize = 5;

/// Columns of all candidates together.
const MAX_COLUMNS: usize = 40;

/// A column: one version of a candidate, by one of its runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    /// Position of the run whose results are shown.
    pub run: usize,
    /// Positions of newer runs of this version that are no whole runs, the newest first.
    pub newer: Vec<usize>,
}

/// The columns, the newest run first, and how many versions have none.
pub(crate) fn columns(runs: &[Run]) -> (Vec<Column>, usize) {
    let mut versions: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for (at, run) in runs.iter().enumerate() {
        let key = (run.candidate.as_str(), run.version.as_str());
        versions.entry(key).or_default().push(at);
    }
    let age = |at: &usize| (runs[*at].started.as_str(), runs[*at].id.as_str());
    let mut all: Vec<Column> = versions
        .into_values()
        .map(|mut of_version| {
            of_version.sort_by_key(|at| std::cmp::Reverse(age(at)));
            // The newest whole run; parts that are newer are told beside it. Where there are only parts, the newest.
            let whole = of_version.iter().position(|at| runs[*at].is_whole());
            let place = whole.unwrap_or(0);
            Column {
                run: of_version[place],
                newer: of_version[..place].to_vec(),
            }
        })
        .collect();
    all.sort_by_key(|column| std::cmp::Reverse(age(&column.run)));
    let count = all.len();
    let mut of_candidate: HashMap<&str, usize> = HashMap::new();
    all.retain(|column| {
        let versions = of_candidate.entry(&runs[column.run].candidate).or_default();
        *versions += 1;
        *versions <= MAX_VERSIONS
    });
    all.truncate(MAX_COLUMNS);
    let left_out = count - all.len();
    (all, left_out)
}

/// A requirement in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub id: String,
    pub level: String,
    pub text: String,
    pub source: String,
}

/// An area and its requirements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Area {
    pub name: String,
    pub rules: Vec<Rule>,
}

/// All areas and requirements of some reports, in the order of the first that has them.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    areas: Vec<Area>,
}

impl Rules {
    /// Adds what the earlier reports had not.
    pub fn add(&mut self, report: &Report) {
        for requirement in &report.requirements {
            if self.areas.iter().any(|area| area.has(&requirement.id)) {
                continue;
            }
            self.area(&requirement.area).rules.push(Rule {
                id: requirement.id.clone(),
                level: requirement.level.clone(),
                text: requirement.text.clone(),
                source: requirement.source.clone(),
            });
        }
        for area in &report.areas {
            self.area(&area.name);
        }
    }

    fn area(&mut self, name: &str) -> &mut Area {
        let place = self.areas.iter().position(|area| area.name == name);
        let place = place.unwrap_or_else(|| {
            self.areas.push(Area {
                name: name.to_owned(),
                rules: Vec::new(),
            });
            self.areas.len() - 1
        });
        &mut self.areas[place]
    }

    /// The areas.
    pub fn areas(&self) -> &[Area] {
        &self.areas
    }
}

impl Area {
    fn has(&self, id: &str) -> bool {
        self.rules.iter().any(|rule| rule.id == id)
    }
}

/// What the columns say about a rule; nothing where it is not in a run's catalogue.
pub(crate) fn row(id: &str, columns: &[Column], runs: &[Run]) -> Vec<Option<Cell>> {
    let cells = columns.iter().map(|column| &runs[column.run].requirements);
    cells.map(|cells| cells.get(id).copied()).collect()
}

/// What the columns say about an area.
pub(crate) fn area_row(name: &str, columns: &[Column], runs: &[Run]) -> Vec<Option<Cell>> {
    let cells = columns.iter().map(|column| &runs[column.run].areas);
    cells.map(|cells| cells.get(name).copied()).collect()
}

/// Whether no run looked at it.
pub(crate) fn is_idle(cells: &[Option<Cell>]) -> bool {
    cells.iter().flatten().all(Cell::is_idle)
}

/// Whether the columns that say something say different things.
pub(crate) fn differs(cells: &[Option<Cell>]) -> bool {
    let mut said = cells
        .iter()
        .flatten()
        .filter(|cell| !cell.is_idle())
        .map(|cell| cell.verdict);
    let first = said.next();
    said.any(|verdict| Some(verdict) != first)
}

/// Whether some column has something else than a pass.
pub(crate) fn has_trouble(cells: &[Option<Cell>]) -> bool {
    let trouble = |cell: &Cell| {
        !matches!(cell.verdict, CaseVerdict::Pass | CaseVerdict::Skip) && !cell.is_idle()
    };
    cells.iter().flatten().any(trouble)
}
