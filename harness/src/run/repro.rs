//! What evidence says about how to see it again: the candidate of the run, its program, the seed.
//!
//! `repro.json` lies beside the document of the case; a manifest that was given is copied beside it, because the file may be gone or
//! another one by then.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::candidate::Candidate;

/// Name of the file in a directory of evidence.
pub const FILE: &str = "repro.json";
/// Name of the copy of the candidate's manifest.
pub const MANIFEST: &str = "candidate.yaml";
/// Name of the case's document.
pub const SCENARIO: &str = "scenario.yaml";

/// What has to be known to see a failure again, besides the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repro {
    /// Id of the case.
    pub case: String,
    /// Number of the attempt.
    pub attempt: u32,
    /// Its seed.
    pub seed: u64,
    /// The candidate.
    pub candidate: Tested,
}

/// The candidate of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tested {
    /// Name in its manifest.
    pub name: String,
    /// Version in its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What `--candidate` said: `reference`, `null` or a path.
    pub given: String,
    /// The copy of the manifest, relative to this file; absent for candidates that are built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Directory that relative paths in the manifest start from.
    pub directory: PathBuf,
    /// `sha256:...` of its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl Repro {
    /// Writes it, with the manifest, into a directory of evidence.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write(
        directory: &Path,
        candidate: &Candidate,
        (case, attempt, seed): (&str, u32, u64),
    ) -> io::Result<()> {
        let source = &candidate.source;
        if let Some(text) = &source.text {
            std::fs::write(directory.join(MANIFEST), text.as_bytes())?;
        }
        let repro = Self {
            case: case.into(),
            attempt,
            seed,
            candidate: Tested {
                name: candidate.manifest.name.clone(),
                version: candidate.manifest.version.clone(),
                given: source.name.clone(),
                manifest: source.text.as_ref().map(|_| MANIFEST.to_owned()),
                directory: source.directory.clone(),
                digest: candidate
                    .binary
                    .as_ref()
                    .map(|binary| binary.digest.clone()),
            },
        };
        std::fs::write(directory.join(FILE), serde_json::to_vec_pretty(&repro)?)
    }

    /// Reads it from a directory of evidence; nothing where there is none, as in that of an older version.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn read(directory: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(directory.join(FILE)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
