//! Result directories of earlier runs, for commands that read them.

use std::path::Path;

use reports::Report;

use super::Failed;

/// The report of a result directory, from its log; where only `report.json` was kept, that.
pub(super) fn read(dir: &Path) -> Result<Report, Failed> {
    let log = dir.join(reports::log::FILE_NAME);
    if log.exists() {
        return Report::from_log(&log)
            .map_err(|error| Failed::usage(format!("{}: {error}", dir.display())));
    }
    let file = if dir.is_dir() {
        dir.join("report.json")
    } else {
        dir.to_path_buf()
    };
    let text = std::fs::read_to_string(&file).map_err(|error| {
        Failed::usage(format!(
            "{}: neither events.jsonl nor report.json can be read there: {error}",
            dir.display()
        ))
    })?;
    reports::json::parse(&text)
        .map_err(|error| Failed::usage(format!("{}: {error}", file.display())))
}
