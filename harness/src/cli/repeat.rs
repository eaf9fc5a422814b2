//! Options that say how often attempts are repeated, and by whom.

use clap::Args;
use reports::{sequential::Claim, shard::Shard};

use super::Failed;
use crate::scenario::Span;

/// How often each case is tried.
#[derive(Clone, Debug, Args)]
pub(super) struct Repeat {
    /// Attempts per case; with --until-confidence, at most as many [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: Option<u32>,
    /// Repeat each case until this is proven or refuted for it, such as `rate<1% @95%`.
    ///
    /// A case for which it is refuted, or undecided after --runs attempts (by default ten times as many as prove it without a failure) or
    /// --for, never passes.
    #[arg(long, value_name = "CLAIM", conflicts_with_all = ["stress", "shard"])]
    pub until_confidence: Option<Claim>,
    /// Repeat the cases again and again, until --runs, --for or Ctrl-C, and show the rate.
    #[arg(long)]
    pub stress: bool,
    /// End after this time, such as 90s, 20m or 8h; with --stress or --until-confidence.
    #[arg(long = "for", value_name = "TIME")]
    pub time: Option<Span>,
    /// Make only this part of the attempts, such as 2/8; `auto/8` takes the part from JOB_COMPLETION_INDEX, as an Indexed Job of Kubernetes
    /// sets it. Needs --seed, the same in all parts.
    #[arg(long, value_name = "I/N", value_parser = shard)]
    pub shard: Option<Shard>,
}

impl Repeat {
    /// Refuses what cannot be meant.
    pub fn check(&self, seed: Option<u64>) -> Result<(), Failed> {
        if self.time.is_some() && !self.stress && self.until_confidence.is_none() {
            return Err(Failed::usage(
                "--for needs --stress or --until-confidence: otherwise a run ends when every case was tried",
            ));
        }
        if self.shard.is_some() && seed.is_none() {
            return Err(Failed::usage(
                "--shard needs --seed: all shards of a run have the same, and without it each would choose one of its own",
            ));
        }
        if self.shard.is_some() && self.stress && self.runs.is_none() {
            return Err(Failed::usage(
                "--shard with --stress needs --runs: a part of a run without an end is no part of anything",
            ));
        }
        Ok(())
    }

    /// The time in milliseconds.
    pub fn for_ms(&self) -> Option<u64> {
        self.time.map(|time| time.0.as_millis() as u64)
    }
}

/// Set by Kubernetes in the pods of an Indexed Job, from 0.
const COMPLETION_INDEX: &str = "JOB_COMPLETION_INDEX";

fn shard(text: &str) -> Result<Shard, String> {
    let Some(of) = text.strip_prefix("auto/") else {
        return text.parse();
    };
    let index = std::env::var(COMPLETION_INDEX)
        .map_err(|_| format!("'{text}': {COMPLETION_INDEX} is not set"))?;
    let number: u32 = index
        .parse()
        .map_err(|_| format!("'{text}': {COMPLETION_INDEX} is '{index}' and not a number"))?;
    format!("{}/{of}", u64::from(number) + 1)
        .parse()
        .map_err(|error: String| format!("{COMPLETION_INDEX} is {index}: {error}"))
}
