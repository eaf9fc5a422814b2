//! Forgets old runs. When failures were first seen is kept: an old flake must not look like a new one.

use rusqlite::{TransactionBehavior, params};

use super::{History, HistoryError};

/// What was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Runs that are gone.
    pub runs: u64,
    /// Runs that are left.
    pub left: u64,
}

impl History {
    /// Forgets the runs that started before this time, and gives their room back to the file system if nobody reads meanwhile.
    ///
    /// # Errors
    /// [`HistoryError`]; the history is then as it was.
    pub fn prune(&mut self, before: jiff::Timestamp) -> Result<Pruned, HistoryError> {
        let path = self.path.clone();
        let failed = |error| HistoryError::of(&path, error);
        let before = before.as_microsecond();
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        // With min() and max(), SQLite takes the other columns from the row that has the smallest or the largest value.
        transaction
            .execute(
                "INSERT INTO pruned (candidate, case_id, signature, attempts, first, first_version, last, last_version)
                 SELECT f.candidate, f.case_id, f.signature, f.attempts, f.first, f.version, l.last, l.version FROM
                   (SELECT r.candidate, x.case_id, x.signature, sum(x.attempts) AS attempts, min(r.started) AS first,
                           coalesce(r.version, r.digest, '') AS version
                    FROM failures x JOIN runs r ON r.id = x.run WHERE r.started < ?1
                    GROUP BY r.candidate, x.case_id, x.signature) f
                 JOIN
                   (SELECT r.candidate, x.case_id, x.signature, max(r.started) AS last,
                           coalesce(r.version, r.digest, '') AS version
                    FROM failures x JOIN runs r ON r.id = x.run WHERE r.started < ?1
                    GROUP BY r.candidate, x.case_id, x.signature) l
                 USING (candidate, case_id, signature)
                 WHERE true
                 ON CONFLICT DO UPDATE SET
                   attempts = attempts + excluded.attempts,
                   first_version = CASE WHEN excluded.first < first THEN excluded.first_version ELSE first_version END,
                   first = min(first, excluded.first),
                   last_version = CASE WHEN excluded.last > last THEN excluded.last_version ELSE last_version END,
                   last = max(last, excluded.last)",
                params![before],
            )
            .map_err(failed)?;
        let runs = transaction
            .execute("DELETE FROM runs WHERE started < ?1", params![before])
            .map_err(failed)?;
        let left: u64 = transaction
            .query_row("SELECT count(*) FROM runs", [], |row| row.get(0))
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
        if runs > 0 {
            // It waits for nobody: where somebody reads meanwhile, the room is used by later runs instead.
            let _ = self.connection.execute_batch("VACUUM");
        }
        Ok(Pruned {
            runs: runs as u64,
            left,
        })
    }
}
