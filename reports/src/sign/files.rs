//! The files of a result directory and their digests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::FILE_NAME;
use crate::{directory, status};

/// SHA-256 in hexadecimal digits by the name of the file, relative to the directory and with `/` between its parts.
pub type Digests = BTreeMap<String, String>;

/// What a directory holds, by name.
pub type Listing = BTreeMap<String, Entry>;

/// Files that are no result: who writes the run and how it stands, and the signature itself.
pub const NO_RESULTS: [&str; 3] = [directory::LOCK_NAME, status::FILE_NAME, FILE_NAME];

/// An entry of a directory that is no directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A regular file with a name in UTF-8.
    File,
    /// Anything else, in words.
    Other(&'static str),
}

/// A file or directory cannot be read.
#[derive(Debug, Error)]
#[error("{path:?} cannot be read: {source}")]
pub struct FilesError {
    /// The file or directory.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

impl FilesError {
    /// The error of a path.
    pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self {
            path: path.to_path_buf(),
            source,
        }
    }
}

/// Everything below a directory but [`NO_RESULTS`]. No link is followed.
///
/// # Errors
/// When a directory cannot be read.
pub fn list(dir: &Path) -> Result<Listing, FilesError> {
    let mut found = Listing::new();
    let mut left = vec![(dir.to_path_buf(), String::new())];
    while let Some((path, prefix)) = left.pop() {
        for entry in std::fs::read_dir(&path).map_err(FilesError::at(&path))? {
            let entry = entry.map_err(FilesError::at(&path))?;
            let kind = entry.file_type().map_err(FilesError::at(&entry.path()))?;
            let file_name = entry.file_name();
            let name = format!("{prefix}{}", file_name.to_string_lossy());
            if prefix.is_empty() && NO_RESULTS.contains(&name.as_str()) {
                continue;
            }
            if file_name.to_str().is_none() {
                found.insert(name, Entry::Other("a name that is not UTF-8"));
            } else if kind.is_dir() {
                left.push((entry.path(), format!("{name}/")));
            } else if kind.is_file() {
                found.insert(name, Entry::File);
            } else if kind.is_symlink() {
                found.insert(name, Entry::Other("a symbolic link"));
            } else {
                found.insert(name, Entry::Other("a device, pipe or socket"));
            }
        }
    }
    Ok(found)
}

/// The digest of a file, as hexadecimal digits.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(path: &Path) -> Result<String, FilesError> {
    let mut hasher = Sha256::new();
    File::open(path)
        .and_then(|mut file| io::copy(&mut file, &mut hasher))
        .map_err(FilesError::at(path))?;
    Ok(hex(&hasher.finalize()))
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_listed_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("cases/a[ipv4]/1/nodes/node1")).unwrap();
        std::fs::create_dir_all(at("empty")).unwrap();
        for name in [
            "report.json",
            "run.lock",
            "status.json",
            FILE_NAME,
            "cases/a[ipv4]/1/matrix.txt",
            "cases/a[ipv4]/1/run.lock",
        ] {
            std::fs::write(at(name), "abc").unwrap();
        }
        std::os::unix::fs::symlink("/", at("cases/a[ipv4]/1/nodes/root")).unwrap();
        let listed = list(dir.path()).unwrap();
        let names: Vec<(&str, Entry)> = listed.iter().map(|(n, e)| (n.as_str(), *e)).collect();
        assert_eq!(
            names,
            [
                ("cases/a[ipv4]/1/matrix.txt", Entry::File),
                (
                    "cases/a[ipv4]/1/nodes/root",
                    Entry::Other("a symbolic link")
                ),
                ("cases/a[ipv4]/1/run.lock", Entry::File),
                ("report.json", Entry::File),
            ]
        );
        // FIPS 180-2, example B.1.
        assert_eq!(
            sha256(&at("report.json")).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
