//! The report: what a run's log says, computed once, from which everything else is rendered.

mod canary;
mod class;
mod fisher;
mod fold;
mod report;
mod signature;
mod stats;
mod verdict;

pub use canary::{NO_CANARIES, sentence as canary_sentence};
pub use class::{
    ALPHA, Class, Evidence, GIVEN_UP, LOOKS, POLICY, RERUNS, Rule, SOUND, Tally, classify,
    more_often, policy_table,
};
pub use fisher::fisher_exact;
pub use fold::{ModelError, ReportBuilder};
pub use report::{
    Attempt, AttemptCounts, BrokenStep, CaseResult, CharacteristicResult, CharacteristicValue,
    ClaimResult, Classification, End, ExperimentResult, GroupSummary, Measurement,
    REPORT_FORMAT_VERSION, Report, RequirementResult, Resumption, Totals,
};
pub use signature::{FailureGroup, InfraGroup, Signature, without_numbers};
pub use stats::{CONFIDENCE, Distribution, Rate, at_most, interval, upper_bound};
pub use verdict::{CaseVerdict, Conclusion, Counts};
