//! What a run leaves on GitHub Actions: the summary of the step, and annotations.
//!
//! Both follow from variables that GitHub sets. Neither changes what the command ends with: a summary that cannot be written is told and forgotten.

use std::{fs::OpenOptions, io::Write as _};

use reports::{Report, github, markdown};

/// Where the summary of the step is collected.
const SUMMARY: &str = "GITHUB_STEP_SUMMARY";

/// `true` on a runner of GitHub Actions.
const ACTIONS: &str = "GITHUB_ACTIONS";

/// Appends the report to the step's summary and annotates the run, where this runs on GitHub.
pub(super) fn tell(report: &Report) {
    if let Some(path) = std::env::var_os(SUMMARY).filter(|path| !path.is_empty()) {
        let appended = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|mut file| {
                let already = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
                let text = github::summary(&markdown::render(report), already);
                file.write_all(text.as_bytes())
            });
        if let Err(error) = appended {
            eprintln!("warning: {SUMMARY}: {path:?}: {error}");
        }
    }
    if std::env::var_os(ACTIONS).is_some_and(|value| value == "true") {
        super::print(&github::annotations(report));
    }
}
