//! Brings evidence into the merged directory: by hard links where the file system allows it, so that merging a soak needs
//! neither the time nor the room of a copy.

use std::fs;
use std::io;
use std::path::{Component, Path};

use super::MergeError;

/// What became of the evidence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EvidenceCounts {
    /// Files that were linked.
    pub linked: u64,
    /// Files that were copied, because they are on another file system or links are not allowed.
    pub copied: u64,
    /// Attempts whose evidence is not where their event says it is, as after a clean-up.
    pub missing: u64,
}

/// Takes evidence over, attempt by attempt.
pub(super) struct Evidence<'a> {
    out: &'a Path,
    pub counts: EvidenceCounts,
}

impl<'a> Evidence<'a> {
    pub fn new(out: &'a Path) -> Self {
        Self {
            out,
            counts: EvidenceCounts::default(),
        }
    }

    /// Takes the evidence at a path that an event of `dir` names.
    pub fn take(&mut self, dir: &Path, evidence: &str) -> Result<(), MergeError> {
        let outside = || MergeError::Outside {
            dir: dir.to_path_buf(),
            evidence: evidence.to_owned(),
        };
        let path = Path::new(evidence);
        let inside = |part| matches!(part, Component::Normal(_));
        if evidence.is_empty() || !path.components().all(inside) {
            return Err(outside());
        }
        let from = dir.join(path);
        let (Ok(real), Ok(root)) = (from.canonicalize(), dir.canonicalize()) else {
            self.counts.missing += 1;
            return Ok(());
        };
        if !real.starts_with(&root) {
            return Err(outside());
        }
        let to = self.out.join(path);
        let parent = to.parent().unwrap_or(self.out);
        fs::create_dir_all(parent).map_err(MergeError::write(parent))?;
        self.tree(&real, &to)
    }

    /// Links a file, or everything below a directory. Links in the evidence lead who knows where and are left out.
    fn tree(&mut self, from: &Path, to: &Path) -> Result<(), MergeError> {
        let kind = fs::symlink_metadata(from).map_err(MergeError::write(from))?;
        if kind.is_file() {
            return self.file(from, to).map_err(MergeError::write(to));
        }
        if !kind.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(to).map_err(MergeError::write(to))?;
        let entries = fs::read_dir(from).map_err(MergeError::write(from))?;
        let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name())).collect();
        for name in names.map_err(MergeError::write(from))? {
            self.tree(&from.join(&name), &to.join(&name))?;
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        // A merge that was killed left it, and it is the same file.
        if fs::symlink_metadata(to).is_ok() {
            fs::remove_file(to)?;
        }
        if fs::hard_link(from, to).is_ok() {
            self.counts.linked += 1;
            return Ok(());
        }
        fs::copy(from, to)?;
        self.counts.copied += 1;
        Ok(())
    }
}
