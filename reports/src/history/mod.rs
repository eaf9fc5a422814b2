//! The results of many runs in one SQLite file: the rate of each case over time, when failures were first and last seen,
//! and where a rate changed.
//!
//! ```text
//!  Report ──import──> history.sqlite ──read──> rows ──trend──> CandidateTrend ──> text, JSON (export)
//!                          │                          (pure: rates, change points, flakes, clean runs)
//!                        prune
//! ```
//!
//! The file holds what reports say and nothing that is computed from it later: statistics may get better without importing
//! again. Several processes may import at once (WAL, one transaction per report).
//!
//! Not here: what a single run says (see [`crate::model`]).

mod change;
mod export;
mod import;
mod memory;
mod prune;
mod read;
mod schema;
mod show;
mod trend;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};
use thiserror::Error;

pub use change::{Change, Count, changes};
pub use export::{EXPORT_FORMAT_VERSION, Export};
pub use import::Imported;
pub use prune::Pruned;
pub use show::{candidate_text, case_text, clean_runs_text, flakes_text, runs_text};
pub(crate) use show::{change_words, minute, percent, sighting};
pub use trend::{
    ALPHA, CandidateTrend, CaseTrend, ChangePoint, CleanRuns, Flake, Point, RunRow, Sighting,
    SignatureTrend, VersionRate,
};

use crate::model::Report;

/// A history that is open.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    connection: Connection,
}

/// What can go wrong with a history.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// There is no such file.
    #[error("{path:?}: there is no history; `harness history import DIR...` makes one")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{path:?}: not a history of test runs: {what}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// A newer harness wrote it.
    #[error("{path:?}: a newer harness wrote it: schema {found}, this one reads up to {known}", known = schema::VERSION)]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
    },
    /// The file is damaged.
    #[error(
        "{path:?}: the history is damaged ({what}); restore a copy, or import the result directories into a new file"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// Another process holds the file for longer than anybody should.
    #[error("{path:?}: another process is writing to the history for more than {seconds} seconds", seconds = schema::PATIENCE.as_secs())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A merged run and one in the history have some attempts in common and each has others: they would count twice.
    #[error(
        "run {run} has runs in common with {other}, which the history has, and neither holds all of the other: merge all of their directories into one and import that"
    )]
    Overlap {
        /// The run that was to be imported.
        run: String,
        /// The run in the history.
        other: String,
    },
    /// A time of the report is not RFC 3339.
    #[error("{time:?} is not a time: {source}")]
    Time {
        /// The text.
        time: String,
        /// What the reader says.
        source: jiff::Error,
    },
    /// SQLite refuses for another reason, such as a full disk.
    #[error("{path:?}: {source}")]
    Sql {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
}

impl HistoryError {
    /// The error for what SQLite says about a file.
    fn of(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Foreign {
                path,
                what: "it is no SQLite database".into(),
            },
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged {
                path,
                what: source.to_string(),
            },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path },
            _ => Self::Sql { path, source },
        }
    }

    /// Whether the system is at fault and not what was asked for.
    pub fn is_trouble(&self) -> bool {
        matches!(
            self,
            Self::Busy { .. } | Self::Sql { .. } | Self::Damaged { .. }
        )
    }
}

/// Adds a run to the history in a file, which is made when missing.
///
/// # Errors
/// [`HistoryError`]; the history is then as it was.
pub fn import_report(file: impl AsRef<Path>, report: &Report) -> Result<Imported, HistoryError> {
    History::create_or_open(file)?.import(report)
}
