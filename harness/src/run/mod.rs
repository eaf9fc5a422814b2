//! Running cases: worlds in parallel, attempts, verdicts, the event log.

pub mod attempt;
pub mod cells;
mod evidence;
mod findings;
mod round;
mod scheduler;
mod steps;
pub mod summary;

pub use evidence::directory as evidence_directory;
pub use scheduler::{Job, Outcome, run_once, run_plan};
pub(crate) use steps::disagreement;
