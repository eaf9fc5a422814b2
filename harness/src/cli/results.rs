//! Result directories of earlier runs, for commands that read them.

use std::path::Path;

use reports::Report;

use super::Failed;

/// The report of a result directory, from its log; where only `report.json` was kept, that.
pub(super) fn read(dir: &Path) -> Result<Report, Failed> {
    reports::read(dir).map_err(Failed::usage)
}
