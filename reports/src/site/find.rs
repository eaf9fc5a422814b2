//! The runs below some directories, and what is no run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::SiteError;
use super::out::is_site;
use crate::read::REPORT_NAME;
use crate::{directory, log};

/// Directories are looked into this deep, if they are no result directories themselves.
const DEPTH: u32 = 2;

/// A place with a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The result directory or the submission, or the file of a report that is alone.
    pub path: PathBuf,
}

impl Place {
    /// The directory with its evidence and its signature; none of a report that is alone.
    pub fn dir(&self) -> Option<&Path> {
        self.path.is_dir().then_some(self.path.as_path())
    }
}

/// Something that is not on the site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// What it is.
    pub path: PathBuf,
    /// Why, in a few words.
    pub why: String,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The runs, in the order of what was named, then by name.
    pub places: Vec<Place>,
    /// What was looked at and is no run.
    pub skipped: Vec<Skipped>,
}

impl Found {
    fn skip(&mut self, path: &Path, why: impl Into<String>) {
        let (path, why) = (path.to_path_buf(), why.into());
        self.skipped.push(Skipped { path, why });
    }
}

/// Looks at what was named and up to two levels below. A place that is named twice counts once.
///
/// # Errors
/// [`SiteError::Input`] for what is not there or cannot be read.
pub fn find(named: &[PathBuf]) -> Result<Found, SiteError> {
    let mut found = Found::default();
    let mut seen = BTreeSet::new();
    for path in named {
        look(path, 0, &mut seen, &mut found)?;
    }
    Ok(found)
}

/// Whether there is a report, also one that is known already.
fn look(
    path: &Path,
    depth: u32,
    seen: &mut BTreeSet<PathBuf>,
    found: &mut Found,
) -> Result<bool, SiteError> {
    let path = match path.parent() {
        // What belongs to the report lies beside it.
        Some(dir) if path.ends_with(REPORT_NAME) && dir.join(log::FILE_NAME).is_file() => {
            match dir.as_os_str().is_empty() {
                true => Path::new("."),
                false => dir,
            }
        }
        _ => path,
    };
    let failed = |source| SiteError::Input {
        path: path.to_path_buf(),
        source,
    };
    let real = path.canonicalize().map_err(failed)?;
    if real.is_file() || has_run(&real) {
        if !seen.insert(real.clone()) {
            return Ok(true);
        }
        match directory::writer(&real) {
            Ok(Some(_)) => found.skip(path, "it is being written just now"),
            _ => found.places.push(Place {
                path: path.to_path_buf(),
            }),
        }
        return Ok(true);
    }
    if is_site(&real) {
        found.skip(path, "it is a site");
        return Ok(false);
    }
    let mut below = Found::default();
    let mut any = false;
    if depth < DEPTH {
        let dirs = match directories(path) {
            Ok(dirs) => dirs,
            Err(source) if depth == 0 => return Err(failed(source)),
            Err(error) => {
                found.skip(path, format!("it cannot be read: {error}"));
                return Ok(false);
            }
        };
        for dir in dirs {
            any |= look(&dir, depth + 1, seen, &mut below)?;
        }
    }
    if !any && below.skipped.iter().all(|skipped| skipped.why == NOTHING) {
        found.skip(path, NOTHING);
    } else {
        found.places.append(&mut below.places);
        found.skipped.append(&mut below.skipped);
    }
    Ok(any)
}

/// The directories in a directory, by name, without hidden ones.
fn directories(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
    let mut dirs: Vec<PathBuf> = entries.collect::<Result<_, _>>()?;
    dirs.retain(|path| path.is_dir() && !is_hidden(path));
    dirs.sort();
    Ok(dirs)
}

const NOTHING: &str = "no report is there or within two levels below";

fn has_run(dir: &Path) -> bool {
    dir.join(log::FILE_NAME).is_file() || dir.join(REPORT_NAME).is_file()
}

fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".")
}
