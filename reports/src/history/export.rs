//! The whole history as one JSON document, for a site.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CandidateTrend, History, HistoryError};

/// Version of the exported document. Fields may be added without raising it; readers ignore those they do not know.
pub const EXPORT_FORMAT_VERSION: u32 = 1;

/// The whole history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Export {
    /// Format of this document, see [`EXPORT_FORMAT_VERSION`].
    pub format_version: u32,
    /// All candidates, by name.
    pub candidates: Vec<CandidateTrend>,
}

impl History {
    /// Everything that the history says.
    ///
    /// # Errors
    /// [`HistoryError`] when the file cannot be read.
    pub fn export(&mut self) -> Result<Export, HistoryError> {
        let names = self.candidates()?;
        let candidates = names.iter().map(|name| self.candidate(name));
        Ok(Export {
            format_version: EXPORT_FORMAT_VERSION,
            candidates: candidates.collect::<Result<_, _>>()?,
        })
    }
}
