//! Options of every command that makes attempts.

use clap::Args;

/// How many attempts at a time, and from which seed.
#[derive(Clone, Debug, Args)]
pub(super) struct Attempts {
    /// Attempts that run their steps side by side; twice as many as there are cores by default, because steps mostly wait.
    ///
    /// As many worlds again may be built or taken down meanwhile.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) jobs: Option<u32>,
    /// Seed of all random choices; a random one by default, recorded in the reports.
    #[arg(long, value_name = "S")]
    pub(super) seed: Option<u64>,
}

impl Attempts {
    pub(super) fn jobs(&self) -> u32 {
        self.jobs.unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
            cores.saturating_mul(2).min(1024)
        })
    }

    /// Another one at each call, unless it was given. Seeds are short, so that people can type them.
    pub(super) fn seed(&self) -> u64 {
        self.seed
            .unwrap_or_else(|| u64::from(rand::random::<u32>()))
    }
}
