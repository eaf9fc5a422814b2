//! A history that is thrown away: what a file has, and what else is imported for the moment.

use std::path::Path;
use std::time::Duration;

use rusqlite::backup::Backup;

use super::{History, HistoryError};

/// Pages that are copied before others who write the file get a turn.
const PAGES: i32 = 4096;

impl History {
    /// A history in memory: empty, or a copy of the one in a file, which is not added to.
    ///
    /// # Errors
    /// [`HistoryError`] when the file is missing or cannot be read.
    pub fn in_memory(file: Option<&Path>) -> Result<Self, HistoryError> {
        let mut memory = Self::create_or_open(":memory:")?;
        if let Some(file) = file {
            let stored = Self::open(file)?;
            Backup::new(&stored.connection, &mut memory.connection)
                .and_then(|backup| backup.run_to_completion(PAGES, Duration::ZERO, None))
                .map_err(|error| stored.failed(error))?;
            memory.path = file.to_path_buf();
        }
        Ok(memory)
    }
}
