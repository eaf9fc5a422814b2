//! The report: what a run's log says, computed once, from which everything else is rendered.

mod fold;
mod report;
mod signature;
mod stats;
mod verdict;

pub use fold::{ModelError, ReportBuilder};
pub use report::{
    Attempt, AttemptCounts, CaseResult, CharacteristicResult, CharacteristicValue, End,
    GroupSummary, Measurement, REPORT_FORMAT_VERSION, Report, RequirementResult, Totals,
};
pub use signature::{FailureGroup, Signature, without_numbers};
pub use stats::{CONFIDENCE, Distribution, Rate};
pub use verdict::{CaseVerdict, Conclusion, Counts};
