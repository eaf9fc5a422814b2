//! The report of an earlier run, from whatever was kept of it.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::json::{self, JsonError};
use crate::log;
use crate::model::{ModelError, Report};

/// Name of the report for programs inside a result directory.
pub const REPORT_NAME: &str = "report.json";

/// Why there is no report.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The log is none, or makes no sense.
    #[error("{}: {source}", place.display())]
    Log {
        /// What was named.
        place: PathBuf,
        /// What is wrong.
        source: ModelError,
    },
    /// There is neither a log nor a report.
    #[error("{}: neither events.jsonl nor report.json can be read there: {source}", place.display())]
    Nothing {
        /// What was named.
        place: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is no report.
    #[error("{}: {source}", file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: JsonError,
    },
}

/// The report of a result directory, from its log; where only `report.json` was kept, or a file is named, that.
///
/// # Errors
/// [`ReadError`], which names what it is about.
pub fn read(place: &Path) -> Result<Report, ReadError> {
    let log = place.join(log::FILE_NAME);
    if log.exists() {
        return Report::from_log(&log).map_err(|source| ReadError::Log {
            place: place.to_path_buf(),
            source,
        });
    }
    let file = if place.is_dir() {
        place.join(REPORT_NAME)
    } else {
        place.to_path_buf()
    };
    let text = std::fs::read_to_string(&file).map_err(|source| ReadError::Nothing {
        place: place.to_path_buf(),
        source,
    })?;
    json::parse(&text).map_err(|source| ReadError::Json { file, source })
}
