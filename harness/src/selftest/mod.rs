//! The tests of the tests: known-bad proxies must be caught, the known-good one must pass every time.
//!
//! ```text
//!   mutants (reference-proxy --features mutants) ── each with the scenarios that name one of its requirements ──> kill matrix
//!   the reference itself ─────────────────────────── the whole profile, N times ────────────────────────────────> false alarms
//! ```
//!
//! Planted flakes are looked for apart ([`Flakes`]): they are repeated until their rate is known, and must be classified as what they are.
//!
//! A kill is a failed attempt; infra and skips are none. What a mutant survives is not looked at closely enough, and what the reference fails
//! is a false alarm: both are bugs of the suite.

mod binary;
mod flakes;
mod report;
mod trial;
mod unkilled;

pub use binary::{Binary, find};
pub use flakes::{FlakeResult, Flakes};
pub use report::{
    Fate, Kill, MutantResult, ReferenceResult, ScenarioResult, Selftest, markdown, text,
};
pub use trial::{Controls, Depth, Plan, Trial};
pub use unkilled::Unkilled;

use serde::{Deserialize, Serialize};

/// A proxy with a known fault, as `reference-proxy-mutants --list` describes it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
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
    /// It shows in some worlds only ([`Flakes`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flaky: bool,
    /// In which part of all worlds a flaky one shows; none if that depends on the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}

impl Mutant {
    /// Whether a scenario that names these requirements has to notice the mutant.
    pub fn concerns(&self, requirements: &[String]) -> bool {
        requirements.iter().any(|id| self.requirements.contains(id))
    }
}
