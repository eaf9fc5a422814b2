//! Whether a run would have noticed a bad proxy: what its canaries say.
//!
//! A run in which a known-bad proxy passes proves nothing, however green the rest of it is. So a canary that was missed, that said
//! nothing or that is missing makes the run incomplete, and an incomplete run never concludes conformance.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{CanaryFinished, CanaryOutcome, Options, RunStarted};
use crate::shard::Shard;

/// What it means that a run has no canaries.
pub const NO_CANARIES: &str = "it is not shown that this run would have noticed a bad proxy";

/// The canaries of a run in a sentence.
pub fn sentence(options: &Options, made: &[CanaryFinished]) -> String {
    if options.canaries.is_empty() {
        return format!("none: {NO_CANARIES}");
    }
    let words = made.iter().map(|canary| {
        let outcome = match canary.outcome {
            CanaryOutcome::Caught => "noticed",
            CanaryOutcome::Missed => "NOT noticed",
            CanaryOutcome::Unclear => "not tried",
        };
        format!(
            "{} ({}) {outcome} by {}",
            canary.canary, canary.fault, canary.case
        )
    });
    words.collect::<Vec<_>>().join("; ")
}

/// What the canaries of a run say against it.
pub(super) fn problems(run: &RunStarted, made: &[CanaryFinished]) -> Vec<String> {
    let mut problems = Vec::new();
    for canary in made {
        let CanaryFinished {
            canary: name,
            fault,
            case,
            message,
            ..
        } = canary;
        match canary.outcome {
            CanaryOutcome::Caught => {}
            CanaryOutcome::Missed => problems.push(format!(
                "the canary {name} ({fault}) was not noticed by {case}, so passing proves nothing here: {message}"
            )),
            CanaryOutcome::Unclear => problems.push(format!(
                "the canary {name} ({fault}) could not be tried with {case}, so it is not known what passing proves: {message}"
            )),
        }
    }
    // Every part of a merged run was made by a process and on a machine of its own, and needs canaries of its own. Of copies of a part
    // (one that was killed, say) one is enough.
    let parts: Vec<(String, BTreeSet<&str>)> = match &run.merged {
        None => vec![("the run".to_owned(), [run.run_id.as_str()].into())],
        Some(merged) => {
            let mut parts: BTreeMap<Option<Shard>, BTreeSet<&str>> = BTreeMap::new();
            for source in &merged.sources {
                parts
                    .entry(source.shard)
                    .or_default()
                    .insert(&source.run_id);
            }
            let name = |shard: Option<Shard>| match shard {
                None => "the run".to_owned(),
                Some(shard) => format!("shard {shard}"),
            };
            parts
                .into_iter()
                .map(|(shard, ids)| (name(shard), ids))
                .collect()
        }
    };
    for (part, ids) in parts {
        let of_it = |canary: &&CanaryFinished| ids.contains(canary.run_id.as_str());
        let made: BTreeSet<&str> = made
            .iter()
            .filter(of_it)
            .map(|canary| canary.canary.as_str())
            .collect();
        let wanted = run.options.canaries.iter();
        for missing in wanted.filter(|name| !made.contains(name.as_str())) {
            problems.push(format!(
                "the canary {missing} of {part} was not tried, so it is not known what passing proves"
            ));
        }
    }
    problems
}
