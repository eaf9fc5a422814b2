//! The file: opening it safely, and its tables.
//!
//! A history says what it is (`application_id`) and which migrations it has seen (`user_version`). Opening runs those that
//! are missing, in one transaction, so that two processes may open an old file at once.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{History, HistoryError};

/// "SPCH" in ASCII: service proxy conformance history.
const APPLICATION_ID: i32 = 0x5350_4348;

/// How long a process waits for another that writes. Importing a large report takes a second.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The migrations, the oldest first. They are never changed, only added to.
const MIGRATIONS: &[&str] = &[include_str!("schema-1.sql")];

/// The schema version that this crate writes.
pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

impl History {
    /// Opens a history, and makes an empty one when there is no file.
    ///
    /// # Errors
    /// [`HistoryError`] when the file is something else, is damaged, was written by a newer harness or cannot be opened.
    pub fn create_or_open(path: impl AsRef<Path>) -> Result<Self, HistoryError> {
        let path = path.as_ref();
        Self::with(path, OpenFlags::SQLITE_OPEN_CREATE)
    }

    /// Opens a history that exists.
    ///
    /// # Errors
    /// As [`History::create_or_open`], and [`HistoryError::Missing`] when there is no file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, HistoryError> {
        let path = path.as_ref();
        if !path.exists() {
            return Err(HistoryError::Missing {
                path: path.to_path_buf(),
            });
        }
        Self::with(path, OpenFlags::empty())
    }

    fn with(path: &Path, more: OpenFlags) -> Result<Self, HistoryError> {
        let failed = |error| HistoryError::of(path, error);
        // No URIs: a file may be called anything.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(PATIENCE).map_err(failed)?;
        connection
            .pragma_update(None, "foreign_keys", true)
            .map_err(failed)?;
        let mut history = Self {
            path: path.to_path_buf(),
            connection,
        };
        history.identify()?;
        history.write_ahead()?;
        history.migrate()?;
        let check: String = history.query_pragma("quick_check(1)")?;
        if check != "ok" {
            return Err(HistoryError::Damaged {
                path: path.to_path_buf(),
                what: check,
            });
        }
        Ok(history)
    }

    /// What SQLite says, as an error about this file.
    pub(super) fn failed(&self, error: rusqlite::Error) -> HistoryError {
        HistoryError::of(&self.path, error)
    }

    fn query_pragma<T: rusqlite::types::FromSql>(&self, name: &str) -> Result<T, HistoryError> {
        self.connection
            .query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
            .map_err(|error| self.failed(error))
    }

    /// Refuses files of somebody else before anything is written to them.
    fn identify(&self) -> Result<(), HistoryError> {
        // One look at all of it: another process may be making the tables.
        let look = || -> rusqlite::Result<(i32, u32, u32)> {
            let transaction = self.connection.unchecked_transaction()?;
            transaction.query_row(
                "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
                        (SELECT count(*) FROM sqlite_schema)",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
        };
        let (id, version, tables) = look().map_err(|error| self.failed(error))?;
        let path = || self.path.clone();
        match id {
            APPLICATION_ID if version > VERSION => Err(HistoryError::Newer {
                path: path(),
                found: version,
            }),
            APPLICATION_ID => Ok(()),
            0 if tables == 0 && version == 0 => Ok(()),
            _ => Err(HistoryError::Foreign {
                path: path(),
                what: "it is an SQLite database of something else".into(),
            }),
        }
    }

    /// Readers and one writer at a time, side by side. The file keeps the setting.
    fn write_ahead(&self) -> Result<(), HistoryError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mode: Result<String, _> = self.query_pragma("journal_mode = WAL");
            match mode {
                // SQLite does not wait for others that switch at the same moment, as when two make the file.
                Err(HistoryError::Busy { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                // Where shared memory is missing, it stays as it was, and is correct all the same.
                Ok(_) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn migrate(&mut self) -> Result<(), HistoryError> {
        let seen: u32 = self.query_pragma("user_version")?;
        if seen == VERSION {
            return Ok(());
        }
        let path = self.path.clone();
        let failed = |error| HistoryError::of(&path, error);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        // Another process may have been faster.
        let seen: u32 = transaction
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(failed)?;
        for migration in MIGRATIONS.iter().skip(seen as usize) {
            transaction.execute_batch(migration).map_err(failed)?;
        }
        transaction
            .pragma_update(None, "application_id", APPLICATION_ID)
            .map_err(failed)?;
        transaction
            .pragma_update(None, "user_version", VERSION.max(seen))
            .map_err(failed)?;
        transaction.commit().map_err(failed)
    }
}
