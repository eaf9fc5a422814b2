//! Running cases: worlds in parallel, attempts, verdicts, the event log.

pub mod attempt;
mod audit;
pub mod cells;
mod evidence;
mod findings;
mod former;
pub mod keep;
mod levels;
mod mixture;
mod neighbour;
pub mod pause;
pub(crate) mod remains;
pub mod repro;
mod round;
mod scheduler;
mod slowness;
pub mod source;
mod steps;
pub mod stress;
pub mod summary;
mod sweep;

pub use evidence::directory as evidence_directory;
pub(crate) use levels::weigh;
pub(crate) use scheduler::unfinished;
pub use scheduler::{Evidence, Outcome, run_once, run_plan};
pub use source::{Job, Source};
pub(crate) use steps::disagreement;
