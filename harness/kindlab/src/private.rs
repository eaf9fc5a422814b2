//! A directory that nobody else can read: kubeconfigs hold the keys of a cluster.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{KindError, Result};

/// A file in each such directory, without which nobody removes one.
const MARK: &str = ".dev.harness.private";

/// A directory of mode 0700 with a random name. It is not removed when this is dropped: what it belongs to may outlive the harness.
#[derive(Debug, Clone)]
pub(crate) struct Private(PathBuf);

impl Private {
    pub(crate) fn create(parent: &Path, name: &str) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix(&format!("{name}."))
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(|error| {
                KindError::system(format!("make a directory in {}", parent.display()), error)
            })?;
        let private = Self(directory.keep());
        private.write(MARK, b"")?;
        Ok(private)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file of mode 0600.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.file(name);
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(|error| KindError::system(format!("write {}", path.display()), error))?;
        Ok(path)
    }

    pub(crate) fn remove(&self) {
        remove(&self.0);
    }
}

/// Removes such a directory, and only such a one: it has to be this user's, closed for others, and to have the mark in it.
pub(crate) fn remove(path: &Path) {
    let Ok(about) = path.symlink_metadata() else {
        return;
    };
    let mine = about.is_dir()
        && about.uid() == nix::unistd::geteuid().as_raw()
        && about.mode() & 0o077 == 0;
    if mine && path.join(MARK).is_file() {
        let _ = fs::remove_dir_all(path);
    }
}

/// Makes sure that a file that another program wrote is for this user only.
pub(crate) fn close(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(|error| KindError::system(format!("close {} for others", path.display()), error))
}
