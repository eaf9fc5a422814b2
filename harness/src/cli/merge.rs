//! `harness merge`: the shards of a run become one run.

use std::path::PathBuf;

use clap::Args;
use reports::{
    event::Merged,
    merge::{Merge, MergeOptions, merge},
    model::Report,
};

use super::{Exit, Failed, print};

/// Make one run out of the result directories of its shards.
///
/// The directories may be shards of a run (`--shard 2/8`), shards that were killed and started again somewhere else, and
/// earlier merges of some of them. An attempt that is in several of them counts once: one that ended before one that never
/// did, then the one that began first. Verdicts are not looked at.
///
/// Suite, catalogue, candidate, provider, options, seed and plan have to be the same, and what packets depend on of the
/// machines: kernel, architecture, nft and iptables. CPUs and memory may differ.
///
/// Exit codes: those of `certify`, for the whole run. It is incomplete (4) while a shard is missing or has not completed.
#[derive(Debug, Args)]
pub struct MergeCommand {
    /// Result directories of the same run.
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Directory for the merged event log, the reports and the evidence; must not hold an earlier run.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Merge although kernels, architectures, nft or iptables differ; the report lists the machines.
    #[arg(long)]
    allow_different_machines: bool,
}

impl MergeCommand {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        for dir in &self.dirs {
            if !dir.join(reports::log::FILE_NAME).is_file() {
                return Err(Failed::usage(format!(
                    "{}: no events.jsonl; name the result directories of a run",
                    dir.display()
                )));
            }
        }
        open_files();
        if self.out.join(reports::log::FILE_NAME).exists() {
            return Err(Failed::usage(format!(
                "--out {}: it holds an earlier run (events.jsonl); name another directory or remove it",
                self.out.display()
            )));
        }
        let options = MergeOptions {
            different_machines: self.allow_different_machines,
        };
        let merged = merge(&self.dirs, &self.out, options).map_err(|error| {
            // Nothing was merged, so nothing is left, unless evidence was on its way already.
            let _ = std::fs::remove_dir(&self.out);
            if error.is_trouble() {
                Failed::infra(error)
            } else {
                Failed::usage(error)
            }
        })?;
        let files = reports::write_all(&self.out, &merged.report).map_err(Failed::infra)?;
        for dir in &merged.empty {
            eprintln!(
                "{}: its log is empty, it holds nothing to merge",
                dir.display()
            );
        }
        let mut text = summary(&merged);
        for file in files {
            text.push_str(&format!("  {}\n", file.display()));
        }
        print(&text);
        let budget = merged.report.options.flake_budget;
        Ok(Exit::of(&merged.report, budget))
    }
}

/// Every log is open while they are woven. The limit for a process is often 1024 and may be raised by anybody to a harder one.
fn open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn summary(merge: &Merge) -> String {
    let Report {
        totals,
        conclusion,
        problems,
        merged,
        ..
    } = &merge.report;
    let mut text = String::new();
    if let Some(Merged { sources, dropped }) = merged {
        let runs = sources.len();
        text.push_str(&format!("merged {runs} runs: {}", totals.attempts.total));
        text.push_str(&format!(
            " attempts, {dropped} more were present already and left out\n"
        ));
    }
    let evidence = merge.evidence;
    if evidence.linked + evidence.copied + evidence.missing > 0 {
        text.push_str(&format!(
            "evidence: {} files linked, {} copied; of {} attempts it is gone\n",
            evidence.linked, evidence.copied, evidence.missing
        ));
    }
    for problem in problems {
        text.push_str(&format!(
            "incomplete: {}\n",
            reports::text::one_line(problem)
        ));
    }
    let attempts = totals.attempts;
    text.push_str(&format!(
        "{}: {} attempts passed, {} failed, {} infra, {} skipped\n",
        conclusion.title().to_lowercase(),
        attempts.pass,
        attempts.fail,
        attempts.infra,
        attempts.skip
    ));
    text
}
