//! The report: what a run's log says, computed once, from which everything else is rendered.

mod fold;
mod report;
mod signature;
mod stats;
mod verdict;

pub use fold::{ModelError, ReportBuilder};
pub use report::{
    Attempt, AttemptCounts, CaseResult, CharacteristicResult, CharacteristicValue, ClaimResult,
    End, GroupSummary, Measurement, REPORT_FORMAT_VERSION, Report, RequirementResult, Resumption,
    Totals,
};
pub use signature::{FailureGroup, Signature, without_numbers};
pub use stats::{CONFIDENCE, Distribution, Rate, at_most, interval, upper_bound};
pub use verdict::{CaseVerdict, Conclusion, Counts};
