//! Signatures of result directories: who signed what, and whether it is still that.
//!
//! ```text
//! DIR/report.intoto.json       DSSE envelope (dsse.rs)
//!     payload                  in-toto Statement v1 (statement.rs)
//!         subject              name and sha256 of every file of the directory (files.rs)
//!         predicate            test-result: verdict, tests, suite, candidate, signer; taken from report.json
//!     signatures               ed25519 (key.rs)
//! ```
//!
//! The signature lies beside what it signs and changes nothing of it. `docs/submissions.md` describes the format, with its sources.

pub mod dsse;
pub mod files;
mod findings;
pub mod key;
pub mod statement;
mod verify;

use std::path::{Path, PathBuf};

use thiserror::Error;

pub use findings::{Finding, Findings, Kind, listed};
pub(crate) use verify::differences;
pub use verify::{Signature, Signed, check};

use self::files::FilesError;
use self::key::PrivateKey;
use self::statement::Statement;
use crate::model::Report;

/// The name of the signature inside a result directory.
pub const FILE_NAME: &str = "report.intoto.json";

/// Why a directory could not be signed.
#[derive(Debug, Error)]
pub enum SignError {
    /// It is signed already.
    #[error("{dir:?} is signed already ({FILE_NAME}); remove that file to sign it again")]
    Signed {
        /// The directory.
        dir: PathBuf,
    },
    /// Something in it is no regular file.
    #[error("{dir:?} holds {name:?}, which is {what} and cannot be signed; remove it")]
    NoFile {
        /// The directory.
        dir: PathBuf,
        /// The entry, relative to the directory.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The signature cannot be stored.
    #[error("write {path:?}: {source}")]
    Write {
        /// The signature's path.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl SignError {
    /// Whether it is about what was asked for, rather than about the machine.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Signed { .. } | Self::NoFile { .. })
    }
}

/// Signs every file of a result directory, whose report this is, and returns the statement that was signed.
///
/// `signer` is the name that the owner of the key goes by; nobody checks it.
///
/// # Errors
/// [`SignError`]; nothing is written then.
pub fn sign(
    dir: &Path,
    report: &Report,
    key: &PrivateKey,
    signer: Option<&str>,
) -> Result<Statement, SignError> {
    let path = dir.join(FILE_NAME);
    if path.symlink_metadata().is_ok() {
        return Err(SignError::Signed {
            dir: dir.to_path_buf(),
        });
    }
    let mut subjects = files::Digests::new();
    for (name, entry) in files::list(dir)? {
        match entry {
            files::Entry::File => {
                let digest = files::sha256(&dir.join(&name))?;
                subjects.insert(name, digest);
            }
            files::Entry::Other(what) => {
                let dir = dir.to_path_buf();
                return Err(SignError::NoFile { dir, name, what });
            }
        }
    }
    let signer = statement::Signer {
        name: signer.map(str::to_owned),
        public_key: key.public().to_pem(),
    };
    let statement = Statement::new(report, &subjects, signer, crate::log::now());
    let envelope = dsse::Envelope::seal(statement::PAYLOAD_TYPE, &statement.to_bytes(), key);
    crate::replace(&path, envelope.render().as_bytes())
        .map_err(|source| SignError::Write { path, source })?;
    Ok(statement)
}
