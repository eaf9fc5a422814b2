//! Merges the result directories of one run: shards, shards that were killed and started again, or both.
//!
//! ```text
//!  shard 1   events.jsonl ─┐  look: what run, which attempts           ┌─> events.jsonl ─> report.json, junit.xml, report.md
//!  shard 2   events.jsonl ─┼─> do they belong together? (belong)  ─copy┤
//!  shard 2'  events.jsonl ─┘  which log has which attempt? (select)    └─> cases/… (hard links)
//! ```
//!
//! The merged log says the same as one long run would have said: each attempt once, with the times it had. A shard that is
//! missing, or of which no run completed, makes the merged run incomplete.
//!
//! Logs are read twice and never held: what is kept is a few numbers per attempt. Lines are copied as they are but for their
//! number, so fields that this version does not know stay.
//!
//! Not here: how attempts are spread over shards (see [`crate::shard`]).

mod belong;
mod end;
mod evidence;
mod peek;
mod select;
mod survey;
mod weave;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use evidence::EvidenceCounts;

use crate::event::{Merged, MergedSource, RunStarted};
use crate::log::{self, LogError};
use crate::model::{ModelError, Report};
use belong::Identity;
use select::{SeedsDiffer, Selection};
use survey::{Survey, survey};

/// What may differ between the directories.
#[derive(Debug, Clone, Copy, Default)]
pub struct MergeOptions {
    /// Kernel, architecture and the versions of `nft` and `iptables` may differ between the machines.
    pub different_machines: bool,
}

/// What was merged.
#[derive(Debug)]
pub struct Merge {
    /// The report of the merged run; [`Report::merged`] says what it was made from.
    pub report: Report,
    /// What became of the evidence.
    pub evidence: EvidenceCounts,
    /// Directories whose writer was killed before it had said anything: they hold nothing that could be merged.
    pub empty: Vec<PathBuf>,
}

/// Why directories cannot be merged.
#[derive(Debug, Error)]
pub enum MergeError {
    /// There is nothing to merge.
    #[error("no directory holds a run")]
    Nothing,
    /// A log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An event makes no sense.
    #[error("{path:?}, line {line}: {what}")]
    Event {
        /// The log.
        path: PathBuf,
        /// Line number, counted from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// Directories do not belong together; one line for each.
    #[error("{}", .0.join("\n"))]
    Strangers(Vec<String>),
    /// An event names evidence outside of its directory.
    #[error("{dir:?}: evidence {evidence:?} is outside of the directory")]
    Outside {
        /// The directory.
        dir: PathBuf,
        /// What the event says.
        evidence: String,
    },
    /// The merged events do not describe a run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The merged run could not be stored.
    #[error("write {path:?}: {source}")]
    Write {
        /// File or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl MergeError {
    /// Whether the system is at fault and not what was to be merged.
    pub fn is_trouble(&self) -> bool {
        matches!(
            self,
            MergeError::Write { .. } | MergeError::Log(LogError::Read { .. })
        )
    }

    fn write(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        move |source| MergeError::Write {
            path: path.to_path_buf(),
            source,
        }
    }
}

/// A log that takes part.
#[derive(Debug)]
struct Input {
    dir: PathBuf,
    survey: Survey,
}

impl Input {
    fn log(&self) -> PathBuf {
        self.dir.join(log::FILE_NAME)
    }
}

/// Merges result directories into a new one: its event log and the evidence. The reports are for the caller to write
/// ([`crate::write_all`]).
///
/// # Errors
/// [`MergeError`]; then there is no log in `out`.
pub fn merge(dirs: &[PathBuf], out: &Path, options: MergeOptions) -> Result<Merge, MergeError> {
    let mut inputs = Vec::new();
    let mut empty = Vec::new();
    for dir in dirs {
        match survey(&dir.join(log::FILE_NAME))? {
            Some(survey) => inputs.push(Input {
                dir: dir.clone(),
                survey,
            }),
            None => empty.push(dir.clone()),
        }
    }
    belong_together(&mut inputs, options)?;
    // By start, whatever order they were named in: the same directories make the same log.
    inputs.sort_by(|a, b| {
        let key = |input: &Input| {
            (
                input.survey.started.clone(),
                input.survey.run.run_id.clone(),
            )
        };
        (key(a), &a.dir).cmp(&(key(b), &b.dir))
    });
    let sources: Vec<MergedSource> = inputs.iter().flat_map(|i| sources(&i.survey)).collect();
    let (reason, message) = end::end_of(&sources);
    let mut selection = Selection::default();
    let mut earlier = 0;
    for (number, at) in (0..).zip(0..inputs.len()) {
        let survey = &mut inputs[at].survey;
        earlier += survey.run.merged.as_ref().map_or(0, |m| m.dropped);
        let attempts = std::mem::take(&mut survey.attempts);
        if let Err(differ) = selection.add(number, attempts) {
            return Err(MergeError::Strangers(vec![other_seed(
                &inputs, at, &differ,
            )]));
        }
    }
    let dropped = earlier + selection.dropped;
    let start = merged_start(&inputs, Merged { sources, dropped })?;
    std::fs::create_dir_all(out).map_err(MergeError::write(out))?;
    let end = (reason, message);
    let (report, evidence) = weave::weave(&inputs, &selection, start, end, out)?;
    Ok(Merge {
        report,
        evidence,
        empty,
    })
}

/// Refuses directories that are not of the same run as the first. Plans are dropped where they agree: each may hold thousands of cases.
fn belong_together(inputs: &mut [Input], options: MergeOptions) -> Result<(), MergeError> {
    let Some((first, others)) = inputs.split_first_mut() else {
        return Err(MergeError::Nothing);
    };
    let identity = Identity::of(&first.survey.run);
    let mut strangers = Vec::new();
    for other in others {
        let theirs = Identity::of(&other.survey.run);
        let mut differences = theirs.differences(&identity, options.different_machines);
        let plans = (&other.survey.run.cases, &first.survey.run.cases);
        if differences.is_empty() {
            differences.extend(belong::plan_difference(plans.0, plans.1));
        }
        if differences.is_empty() {
            belong::keep_common_skips(&mut first.survey.run.cases, &other.survey.run.cases);
            other.survey.run.cases = Vec::new();
            other.survey.run.requirements = Vec::new();
            continue;
        }
        let allow = match theirs.only_machines_differ(&identity) {
            true => " (--allow-different-machines merges them all the same)",
            false => "",
        };
        strangers.push(format!(
            "{}: not of the same run as {}: {}{allow}",
            other.dir.display(),
            first.dir.display(),
            differences.join("; ")
        ));
    }
    if strangers.is_empty() {
        Ok(())
    } else {
        Err(MergeError::Strangers(strangers))
    }
}

/// The runs that a log was made from: itself, or those that it was merged from.
fn sources(survey: &Survey) -> Vec<MergedSource> {
    if let Some(merged) = &survey.run.merged {
        return merged.sources.clone();
    }
    vec![MergedSource {
        run_id: survey.run.run_id.clone(),
        started: survey.started.clone(),
        shard: survey.run.options.shard,
        machine: survey.run.machine.clone(),
        jobs: survey.run.options.jobs,
        attempts: survey.attempts.len() as u64,
        end: survey.end,
        holes: survey.holes,
    }]
}

/// The start of the merged run: that of the earliest, with the plan, and with a name that says what it is.
fn merged_start(inputs: &[Input], mut merged: Merged) -> Result<(String, RunStarted), MergeError> {
    let earliest = inputs.first().ok_or(MergeError::Nothing)?;
    let mut run = earliest.survey.run.clone();
    // Only the directory that was named first kept its plan.
    let with_plan = inputs.iter().find(|i| !i.survey.run.cases.is_empty());
    if let Some(input) = with_plan {
        run.cases = input.survey.run.cases.clone();
    }
    let with_rules = inputs
        .iter()
        .find(|i| !i.survey.run.requirements.is_empty());
    if let Some(input) = with_rules {
        run.requirements = input.survey.run.requirements.clone();
    }
    let newest = inputs.iter().map(|i| i.survey.run.format_version).max();
    run.format_version = newest.unwrap_or(run.format_version);
    merged
        .sources
        .sort_by(|a, b| (&a.started, &a.run_id).cmp(&(&b.started, &b.run_id)));
    merged.sources.dedup();
    if run.merged.is_none() {
        run.run_id.push_str("-merged");
    }
    run.options.shard = None;
    run.merged = Some(merged);
    Ok((earliest.survey.started.clone(), run))
}

fn other_seed(inputs: &[Input], at: usize, differ: &SeedsDiffer) -> String {
    let other = &inputs[differ.other as usize];
    let case = inputs
        .iter()
        .find_map(|input| input.survey.run.cases.get(differ.key.0 as usize))
        .map_or("?", |case| case.id.as_str());
    format!(
        "{}: not of the same run as {}: attempt {} of case {case} has seed {} and not {}",
        inputs[at].dir.display(),
        other.dir.display(),
        differ.key.1,
        differ.seeds[1],
        differ.seeds[0]
    )
}
