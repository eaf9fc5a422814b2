//! Puts the rendered reports into a run's output directory.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::model::Report;
use crate::{badge, evidence, html, json, junit, markdown};

/// A report could not be stored.
#[derive(Debug, Error)]
#[error("write {path:?}: {source}")]
pub struct WriteError {
    /// The file or directory.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

/// Writes `report.json`, `junit.xml`, `report.md`, `report.html` and `badge.svg` into a directory, which is made when missing, and
/// returns their paths. The page shows parts of the evidence that lies in the directory, where the report says.
///
/// Each file is complete or not there: it is written beside its place and then renamed, so that a CI system which uploads
/// reports after a crash never finds half of one.
///
/// # Errors
/// [`WriteError`] naming the file that could not be written; files written before it stay.
pub fn write_all(dir: impl AsRef<Path>, report: &Report) -> Result<Vec<PathBuf>, WriteError> {
    let dir = dir.as_ref();
    std::fs::create_dir_all(dir).map_err(|source| WriteError {
        path: dir.to_path_buf(),
        source,
    })?;
    let files = [
        ("report.json", json::render(report)),
        ("junit.xml", junit::render(report)),
        ("report.md", markdown::render(report)),
        (
            "report.html",
            html::render(report, &evidence::collect(dir, report)),
        ),
        ("badge.svg", badge::render(report)),
    ];
    let mut written = Vec::new();
    for (name, text) in files {
        let path = dir.join(name);
        if let Err(source) = replace(&path, text.as_bytes()) {
            return Err(WriteError { path, source });
        }
        written.push(path);
    }
    Ok(written)
}

/// Puts a file in the place of another, if there is one: whoever reads it finds all of the old one or all of the new one, also
/// after a power failure.
///
/// # Errors
/// The system's reason; the old file stays then.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".tmp");
    let draft = PathBuf::from(draft);
    let stored = std::fs::File::create(&draft)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&draft, path));
    if stored.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    stored
}
