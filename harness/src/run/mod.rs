//! Running cases: worlds in parallel, attempts, verdicts, the event log.

pub mod attempt;
mod audit;
pub mod cells;
mod evidence;
mod findings;
mod former;
mod levels;
mod neighbour;
pub mod pause;
mod remains;
pub mod repro;
mod round;
mod scheduler;
mod slowness;
mod steps;
pub mod summary;
mod sweep;

pub use evidence::directory as evidence_directory;
pub use scheduler::{Job, Outcome, run_once, run_plan};
pub(crate) use steps::disagreement;
