//! Benchmarks: how fast worlds, the embedded API and a candidate are, the candidate seen from outside.
//!
//! What this is not: a test. Nothing here passes or fails; the figures are printed beside what the project promises.

mod figures;
mod proxy;
mod size;
mod watch;
mod worlds;

pub use figures::Spread;
pub use proxy::{ProxyFigures, Settings as ProxySettings, measure as measure_proxy};
pub use size::Size;
pub use watch::{SUBCOMMAND as WATCHER, WatchFigures, measure as measure_watch, watcher_main};
pub use worlds::{WorldFigures, measure as measure_worlds};

/// A measurement could not be made. Says nothing about what was to be measured.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step}: {message}")]
pub struct BenchError {
    /// What was tried.
    pub step: String,
    /// Why it did not work.
    pub message: String,
}

impl BenchError {
    /// For `map_err`: completes "failed to ...".
    fn of<E: std::fmt::Display>(step: &str) -> impl FnOnce(E) -> Self + '_ {
        move |error| Self {
            step: step.to_owned(),
            message: error.to_string(),
        }
    }
}
