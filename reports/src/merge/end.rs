//! How a merged run ended: completed only if every shard is there and at least one run of it completed.

use std::collections::BTreeMap;

use crate::event::{FinishReason, MergedSource};
use crate::shard::Shard;

/// Shards that are named in a message; there may be thousands.
const NAMED: usize = 8;

/// Why the merged run ended, and what is missing.
pub(super) fn end_of(sources: &[MergedSource]) -> (FinishReason, Option<String>) {
    let of = sources
        .iter()
        .find_map(|source| source.shard)
        .map_or(1, |shard| shard.of);
    let mut shards: BTreeMap<u32, Vec<&MergedSource>> = BTreeMap::new();
    for source in sources {
        let index = source.shard.map_or(1, |shard| shard.index);
        shards.entry(index).or_default().push(source);
    }
    let mut trouble: Vec<(Option<FinishReason>, String)> = Vec::new();
    let mut count = 0_u64;
    for index in 1..=of {
        let runs = shards.get(&index).map_or(&[][..], Vec::as_slice);
        let completed =
            |run: &&MergedSource| run.end == Some(FinishReason::Completed) && !run.holes;
        if runs.iter().any(completed) {
            continue;
        }
        count += 1;
        if trouble.len() < NAMED {
            let name = match of {
                1 => "the run".to_owned(),
                _ => format!("shard {}", Shard { index, of }),
            };
            let (end, what) = trouble_of(runs);
            trouble.push((end, format!("{name} {what}")));
        }
    }
    let Some((first, _)) = trouble.first() else {
        return (FinishReason::Completed, None);
    };
    let reason = match first {
        Some(end) if trouble.iter().all(|(other, _)| other == first) => *end,
        _ => FinishReason::Interrupted,
    };
    let mut message: Vec<String> = trouble.iter().map(|(_, text)| text.clone()).collect();
    if count > NAMED as u64 {
        message.push(format!("and {} more", count - NAMED as u64));
    }
    (reason, Some(message.join("; ")))
}

/// What is wrong with a shard of which no run completed.
fn trouble_of(runs: &[&MergedSource]) -> (Option<FinishReason>, &'static str) {
    let Some(last) = runs.last() else {
        return (None, "is missing");
    };
    match last.end {
        _ if last.holes => (None, "lost lines of its log"),
        None => (None, "was killed"),
        Some(FinishReason::Completed) => (None, "is incomplete"),
        Some(FinishReason::Interrupted) => (last.end, "was interrupted"),
        Some(FinishReason::FailFast) => (last.end, "stopped at its first failure"),
        Some(FinishReason::Infra) => (
            last.end,
            "was given up because of the machine or the harness",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Machine;

    fn source(shard: Option<(u32, u32)>, end: Option<FinishReason>) -> MergedSource {
        MergedSource {
            run_id: "run".into(),
            started: "2026-11-22T00:00:00Z".into(),
            shard: shard.map(|(index, of)| Shard { index, of }),
            machine: Machine {
                kernel: "6.18".into(),
                cpus: 2,
                memory_bytes: 1,
                arch: "x86_64".into(),
                os: "Linux".into(),
                nft: None,
                iptables: None,
                calibration: None,
            },
            jobs: 2,
            attempts: 1,
            end,
            holes: false,
        }
    }

    #[test]
    fn a_run_is_complete_when_each_shard_is() {
        use FinishReason::{Completed, FailFast, Infra, Interrupted};
        let all = |shards: &[(u32, u32, Option<FinishReason>)]| {
            let sources: Vec<MergedSource> = shards
                .iter()
                .map(|(index, of, end)| source(Some((*index, *of)), *end))
                .collect();
            end_of(&sources)
        };
        assert_eq!(end_of(&[source(None, Some(Completed))]), (Completed, None));
        let says = |reason, text: &str| (reason, Some(text.to_owned()));
        assert_eq!(
            end_of(&[source(None, None)]),
            says(Interrupted, "the run was killed")
        );
        assert_eq!(
            all(&[(1, 2, Some(Completed)), (2, 2, Some(Completed))]),
            (Completed, None)
        );
        assert_eq!(
            all(&[(1, 3, Some(Completed)), (2, 3, None)]),
            says(Interrupted, "shard 2/3 was killed; shard 3/3 is missing")
        );
        // Killed, and started again from scratch: it is the second run that counts.
        assert_eq!(
            all(&[
                (1, 2, None),
                (2, 2, Some(Completed)),
                (1, 2, Some(Completed))
            ]),
            (Completed, None)
        );
        assert_eq!(
            all(&[(1, 2, Some(FailFast)), (2, 2, Some(Completed))]),
            says(FailFast, "shard 1/2 stopped at its first failure")
        );
        assert_eq!(
            all(&[(1, 2, Some(Infra)), (2, 2, Some(Interrupted))]).0,
            Interrupted
        );
        let holes = MergedSource {
            holes: true,
            ..source(Some((1, 1)), Some(Completed))
        };
        assert_eq!(
            end_of(&[holes]),
            says(Interrupted, "the run lost lines of its log")
        );
        let (_, message) = all(&[(1, 100, Some(Completed))]);
        assert!(
            message
                .unwrap()
                .ends_with("shard 9/100 is missing; and 91 more")
        );
    }
}
