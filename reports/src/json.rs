//! `report.json`: the report itself, for programs.

use thiserror::Error;

use crate::model::{REPORT_FORMAT_VERSION, Report};

/// Why a text is no report.
#[derive(Debug, Error)]
pub enum JsonError {
    /// It is not JSON, or not the JSON of a report.
    #[error("read report: {0}")]
    Parse(#[from] serde_json::Error),
    /// A newer suite wrote it.
    #[error(
        "read report: it has format version {found}, this suite reads up to {REPORT_FORMAT_VERSION}"
    )]
    FormatVersion {
        /// Version the report claims.
        found: u64,
    },
}

/// The report as an indented JSON document with a newline at its end.
pub fn render(report: &Report) -> String {
    // The model has string keys and finite numbers only, for which the serializer has no error.
    let mut text = serde_json::to_string_pretty(report).expect("a report is always valid JSON");
    text.push('\n');
    text
}

/// Reads a report back.
///
/// # Errors
/// [`JsonError::Parse`] with line and column, [`JsonError::FormatVersion`] when it comes from a newer suite.
pub fn parse(text: &str) -> Result<Report, JsonError> {
    /// Looked at first: of a newer format nothing else needs to make sense.
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        format_version: u64,
    }
    let Version {
        format_version: found,
    } = serde_json::from_str(text)?;
    if found > u64::from(REPORT_FORMAT_VERSION) {
        return Err(JsonError::FormatVersion { found });
    }
    Ok(serde_json::from_str(text)?)
}
