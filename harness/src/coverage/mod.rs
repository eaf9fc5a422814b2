//! What the catalogue stands for: the upstream specs, the real bugs and the requirements, each with the scenarios that show it.
//!
//! ```text
//!  upstream.yaml ─┐
//!  bugs.yaml ─────┼─► Coverage: a table each, with totals ─► text, JSON, Markdown
//!  requirements ──┤             and the gaps, by file and line
//!  documents ─────┘
//! ```
//!
//! An account in a file and the `covers` of a document say the same thing from two sides: they are united, and where one denies
//! what the other claims, that is a gap.

mod bugs;
mod drawings;
mod names;
mod render;
mod requirements;
mod specification;
mod table;
mod upstream;

pub use bugs::{Bug, Bugs, Occurrence};
pub use names::{SpecNames, UnknownSpec};
pub use requirements::requirements;
pub use specification::specification;
pub use table::{Row, Standing, Table};
pub use upstream::{OutOfScope, Upstream};

use crate::{
    plan::{Catalogue, Requirements},
    scenario::Problem,
};

/// The files that accounts are given in, read but not compared with the catalogue.
#[derive(Clone, Debug)]
pub struct Accounts {
    /// `scenarios/upstream.yaml`.
    pub upstream: Upstream,
    /// `scenarios/bugs.yaml`.
    pub bugs: Bugs,
}

impl Accounts {
    /// The embedded files.
    ///
    /// # Errors
    /// The place in the file that cannot be understood.
    pub fn embedded() -> Result<Self, Problem> {
        Ok(Self {
            upstream: Upstream::parse("scenarios/upstream.yaml", scenarios::UPSTREAM)?,
            bugs: Bugs::parse("scenarios/bugs.yaml", scenarios::BUGS)?,
        })
    }
}

/// The tables, computed from the files and the documents.
#[derive(Clone, Debug)]
pub struct Coverage {
    /// One row per upstream spec.
    pub upstream: Table,
    /// One row per row of the bug catalogue.
    pub bugs: Table,
    /// One row per requirement.
    pub requirements: Table,
}

impl Coverage {
    /// Compares the accounts with the catalogue.
    pub fn of(accounts: &Accounts, requirements: &Requirements, catalogue: &Catalogue) -> Self {
        Self {
            upstream: accounts.upstream.table(catalogue),
            bugs: accounts.bugs.table(catalogue, requirements),
            requirements: self::requirements(requirements, catalogue),
        }
    }

    /// All tables.
    pub fn tables(self) -> Vec<Table> {
        vec![self.upstream, self.bugs, self.requirements]
    }
}
