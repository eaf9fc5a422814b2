//! The directory of a site: what is in it, and how a new one takes the place of an earlier one.
//!
//! `site.json` names every file of the site. Only these are ever replaced or removed, so a repository, a `CNAME` or an own page beside them
//! stay.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::SiteError;

/// Name of the file that makes a directory a site.
pub const MARKER: &str = "site.json";

/// Version of the marker. Fields may be added without raising it.
const FORMAT_VERSION: u32 = 1;

const GENERATOR: &str = "harness site";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    generator: String,
    format_version: u32,
    /// Every file of the site but this one, relative to the directory.
    files: BTreeSet<String>,
}

/// A directory that a site is written into.
#[derive(Debug)]
pub struct Out {
    dir: PathBuf,
    earlier: BTreeSet<String>,
    written: BTreeSet<String>,
}

/// Whether a directory holds a site.
pub fn is_site(dir: &Path) -> bool {
    marker(dir).is_some()
}

fn marker(dir: &Path) -> Option<Marker> {
    let text = std::fs::read_to_string(dir.join(MARKER)).ok()?;
    let marker: Marker = serde_json::from_str(&text).ok()?;
    (marker.generator == GENERATOR).then_some(marker)
}

impl Out {
    /// Looks whether a site may be written there: the directory is missing, empty but for hidden files, or holds an earlier site.
    ///
    /// # Errors
    /// [`SiteError::Taken`] if it holds something else, [`SiteError::Out`] if it cannot be read.
    pub fn new(dir: &Path) -> Result<Self, SiteError> {
        let out = |earlier| Self {
            dir: dir.to_path_buf(),
            earlier,
            written: BTreeSet::new(),
        };
        if let Some(marker) = marker(dir) {
            return Ok(out(marker.files));
        }
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(out(BTreeSet::new()));
            }
            Err(source) => {
                return Err(SiteError::Out {
                    path: dir.to_path_buf(),
                    source,
                });
            }
        };
        let mut names = entries.flatten().map(|entry| entry.file_name());
        match names.find(|name| !name.as_encoded_bytes().starts_with(b".")) {
            None => Ok(out(BTreeSet::new())),
            Some(_) => Err(SiteError::Taken {
                dir: dir.to_path_buf(),
            }),
        }
    }

    /// Says which files will be written, before the first of them is: whatever interrupts the writing, the next site removes what is left.
    ///
    /// # Errors
    /// [`SiteError::Out`].
    pub fn begin(&self, planned: impl IntoIterator<Item = String>) -> Result<(), SiteError> {
        let files = planned.into_iter().chain(self.earlier.iter().cloned());
        self.mark(files.collect())
    }

    /// Writes a file.
    ///
    /// # Errors
    /// [`SiteError::Out`].
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), SiteError> {
        self.store(name, bytes)?;
        self.written.insert(name.to_owned());
        Ok(())
    }

    /// Removes the files of the earlier site that this one has not, and returns how many files it has.
    ///
    /// # Errors
    /// [`SiteError::Out`].
    pub fn finish(self) -> Result<usize, SiteError> {
        let gone = |name: &&String| !self.written.contains(*name) && is_inside(name);
        for name in self.earlier.iter().filter(gone) {
            let path = self.dir.join(name);
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(SiteError::Out { path, source });
                }
                _ => {}
            }
            // Directories that are empty now; others refuse.
            let parents = path.ancestors().skip(1);
            for parent in parents.take_while(|parent| *parent != self.dir) {
                if std::fs::remove_dir(parent).is_err() {
                    break;
                }
            }
        }
        self.mark(self.written.clone())?;
        Ok(self.written.len() + 1)
    }

    fn mark(&self, files: BTreeSet<String>) -> Result<(), SiteError> {
        let marker = Marker {
            generator: GENERATOR.to_owned(),
            format_version: FORMAT_VERSION,
            files,
        };
        let mut text = serde_json::to_string_pretty(&marker).expect("names are always JSON");
        text.push('\n');
        self.store(MARKER, text.as_bytes())
    }

    fn store(&self, name: &str, bytes: &[u8]) -> Result<(), SiteError> {
        let path = self.dir.join(name);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| crate::replace(&path, bytes))
            .map_err(|source| SiteError::Out { path, source })
    }
}

/// Whether a name leads to a file inside the directory. Anybody may have written `site.json`.
fn is_inside(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    !name.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let listed = crate::sign::files::list(dir).unwrap();
        listed.into_keys().collect()
    }

    fn write(dir: &Path, files: &[&str]) {
        let mut out = Out::new(dir).unwrap();
        out.begin(files.iter().map(|name| (*name).to_owned()))
            .unwrap();
        for name in files {
            out.put(name, b"x").unwrap();
        }
        out.finish().unwrap();
    }

    #[test]
    fn only_files_of_an_earlier_site_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("site");
        write(
            &dir,
            &["index.html", "runs/a/report.html", "runs/b/report.html"],
        );
        std::fs::write(dir.join("CNAME"), "example.org").unwrap();
        std::fs::write(dir.join("runs/b/own.txt"), "mine").unwrap();
        write(&dir, &["index.html", "runs/c/report.html"]);
        assert_eq!(
            names(&dir),
            [
                "CNAME",
                "index.html",
                "runs/b/own.txt",
                "runs/c/report.html",
                "site.json"
            ]
        );
        assert!(!dir.join("runs/a").exists());
    }

    #[test]
    fn what_an_interrupted_site_left_is_removed_by_the_next() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        let mut out = Out::new(dir).unwrap();
        let planned = ["index.html", "runs/a/report.html"];
        out.begin(planned.map(str::to_owned)).unwrap();
        out.put("runs/a/report.html", b"x").unwrap();
        drop(out);
        write(dir, &["index.html"]);
        assert_eq!(names(dir), ["index.html", "site.json"]);
    }

    #[test]
    fn other_directories_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        std::fs::create_dir(dir.join(".git")).unwrap();
        assert!(Out::new(dir).is_ok());
        std::fs::write(dir.join("thesis.txt"), "years").unwrap();
        assert!(matches!(Out::new(dir), Err(SiteError::Taken { .. })));
        std::fs::write(dir.join(MARKER), "{\"generator\":\"another\"}").unwrap();
        assert!(matches!(Out::new(dir), Err(SiteError::Taken { .. })));
        assert!(matches!(
            Out::new(&dir.join("thesis.txt")),
            Err(SiteError::Out { .. })
        ));
    }

    #[test]
    fn names_that_lead_elsewhere_remove_nothing() {
        for name in ["../a", "/etc/passwd", "a/../../b", "", "./a"] {
            assert!(!is_inside(name), "{name}");
        }
        assert!(is_inside("runs/a/report.html"));
    }
}
