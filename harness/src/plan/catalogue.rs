//! The catalogue: all documents, from the embedded files or from disk.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use sha2::{Digest, Sha256};

use super::Requirements;
use crate::scenario::{Document, Problem, load, read_documents, read_file};

/// Scenario documents with unique ids.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// The documents, sorted by file.
    pub documents: Vec<Arc<Document>>,
}

impl Catalogue {
    /// The embedded catalogue.
    pub fn embedded(requirements: &Requirements) -> Result<Self, Problem> {
        let mut documents = Vec::new();
        for (path, text) in scenarios::CATALOGUE {
            documents.extend(read_documents(path, text)?);
        }
        Self::checked(documents, requirements)
    }

    /// Documents from disk, such as a repro.
    pub fn from_files(
        files: &[impl AsRef<Path>],
        requirements: &Requirements,
    ) -> Result<Self, Problem> {
        let mut documents = Vec::new();
        for file in files {
            documents.extend(read_file(file.as_ref())?);
        }
        Self::checked(documents, requirements)
    }

    fn checked(documents: Vec<Document>, requirements: &Requirements) -> Result<Self, Problem> {
        let mut seen: BTreeMap<String, Arc<str>> = BTreeMap::new();
        for document in &documents {
            let id = &document.header.id;
            if let Some(other) = seen.insert(id.clone(), document.file.clone()) {
                return Err(load::at_key(
                    &document.file,
                    &document.text,
                    "id",
                    format!("the id '{id}' is taken by {other}"),
                ));
            }
            for requirement in &document.header.requirement {
                if requirements.get(requirement).is_none() {
                    return Err(load::at_key(
                        &document.file,
                        &document.text,
                        "requirement",
                        format!("'{requirement}' is not in scenarios/requirements.yaml"),
                    ));
                }
            }
        }
        Ok(Self {
            documents: documents.into_iter().map(Arc::new).collect(),
        })
    }

    /// `sha256:...` over all documents, so that a report names exactly what was run.
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        for document in &self.documents {
            hasher.update(document.header.id.as_bytes());
            hasher.update([0]);
            hasher.update(document.text.trim().as_bytes());
            hasher.update([0]);
        }
        let hex: String = hasher
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("sha256:{hex}")
    }
}
