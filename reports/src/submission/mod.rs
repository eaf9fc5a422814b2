//! Submissions: a result directory laid out for somebody who was not there, and the checks that they would make.
//!
//! ```text
//! FOLDER/README.md             what was tested and how to repeat it; follows from the log (readme.rs)
//! FOLDER/candidate.yaml        the candidate's manifest, where it has one; its digest is in the log
//! FOLDER/report.intoto.json    the signature, unless it is unsigned
//! FOLDER/...                   the files of the result directory
//! ```
//!
//! [`agree`] is for every result directory: log and reports say the same. [`complete`] is for submissions: nothing is missing, and nothing was
//! left out without a word. What only the suite itself knows, such as its catalogue, is checked by the harness.

mod agree;
mod complete;
mod readme;
mod reproduce;

pub use agree::{Agreed, agree};
pub use complete::complete;
pub use readme::readme;
pub use reproduce::reproduce;

use crate::event::RunStarted;

/// The name of the generated page.
pub const README: &str = "README.md";

/// The name of the candidate's manifest.
pub const MANIFEST: &str = "candidate.yaml";

/// The digest of the manifest of the candidate of a run; none where the log does not say it, or where the suite brings the manifest along.
pub fn manifest_digest(run: &RunStarted) -> Option<&str> {
    let invocation = run.invocation.as_ref()?;
    let built_in = matches!(invocation.candidate.as_str(), "reference" | "null");
    (!built_in).then_some(invocation.manifest_digest.as_str())
}
