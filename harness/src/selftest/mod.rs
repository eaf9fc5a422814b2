//! The tests of the tests: known-bad proxies must be caught, the known-good one must pass every time.
//!
//! ```text
//!   mutants (reference-proxy --features mutants) ── each with the scenarios that name one of its requirements ──> kill matrix
//!   the reference itself ─────────────────────────── the whole profile, N times ────────────────────────────────> false alarms
//! ```
//!
//! A kill is a failed attempt; infra and skips are none. What a mutant survives is not looked at closely enough, and what the reference fails
//! is a false alarm: both are bugs of the suite.

mod binary;
mod report;
mod trial;
mod unkilled;

pub use binary::{Binary, find};
pub use report::{
    Fate, Kill, MutantResult, ReferenceResult, ScenarioResult, Selftest, markdown, text,
};
pub use trial::{Controls, Depth, Plan, Trial};
pub use unkilled::Unkilled;

use serde::{Deserialize, Serialize};

/// A proxy with a known fault, as `reference-proxy-mutants --list` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Mutant {
    /// Its name.
    pub name: String,
    /// Where in the proxy the fault is.
    pub seam: String,
    /// What it does wrong.
    pub summary: String,
    /// The bugs of real proxies that it stands for.
    pub bugs: Vec<String>,
    /// The requirements that it violates.
    pub requirements: Vec<String>,
}

impl Mutant {
    /// Whether a scenario that names these requirements has to notice the mutant.
    pub fn concerns(&self, requirements: &[String]) -> bool {
        requirements.iter().any(|id| self.requirements.contains(id))
    }
}
