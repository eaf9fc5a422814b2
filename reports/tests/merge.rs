//! Shards merged: the same figures as one run, whatever was killed and started again; nothing else is merged.

mod fixture;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use fixture::Run;
use proptest::prelude::*;
use reports::event::{
    Event, EventBody, Experiment, FinishReason, RunStarted, Skip, SkipKind, Verdict,
};
use reports::merge::{Merge, MergeError, MergeOptions, merge};
use reports::shard::Shard;
use reports::{Report, log};
use serde_json::Value;

/// Seconds since midnight as the log writes it.
fn time(second: u64) -> String {
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("2026-11-22T{h:02}:{m:02}:{s:02}.250000Z")
}

/// Writes a log whose events are a second apart.
fn write(dir: &Path, from: u64, bodies: impl IntoIterator<Item = EventBody>) {
    std::fs::create_dir_all(dir).unwrap();
    let lines: String = (0..)
        .zip(bodies)
        .map(|(seq, body)| {
            let time = time(from + seq);
            serde_json::to_string(&Event { seq, time, body }).unwrap() + "\n"
        })
        .collect();
    std::fs::write(dir.join(log::FILE_NAME), lines).unwrap();
}

fn end(reason: FinishReason) -> EventBody {
    EventBody::RunFinished {
        reason,
        message: None,
    }
}

/// The bodies of a shard of a run, from its start to its end.
fn shard(run: &Run, shard: Shard) -> Vec<EventBody> {
    let mut start = run.start.clone();
    start.run_id = format!("run-{}", shard.index);
    start.options.shard = Some(shard);
    let own = |body: &&EventBody| body.attempt().is_some_and(|(c, n)| shard.holds(c, n));
    let canary = Run::canary("null", &start.run_id);
    let mut bodies = vec![EventBody::RunStarted(start)];
    bodies.extend(run.body.iter().filter(own).cloned());
    bodies.push(canary);
    bodies.push(end(FinishReason::Completed));
    bodies
}

fn of(index: u32, of: u32) -> Shard {
    Shard { index, of }
}

fn start_of(bodies: &mut [EventBody]) -> &mut RunStarted {
    match &mut bodies[0] {
        EventBody::RunStarted(start) => start,
        other => panic!("not a start: {other:?}"),
    }
}

/// Everything in a report that says something about the candidate.
fn figures(report: &Report) -> Value {
    let mut value = serde_json::to_value(report).unwrap();
    let fields = value.as_object_mut().unwrap();
    for own in [
        "runId",
        "started",
        "durationMs",
        "activeMs",
        "end",
        "merged",
        "problems",
        "canaries",
    ] {
        fields.remove(own);
    }
    for case in fields["cases"].as_array_mut().unwrap() {
        for attempt in case["attempts"].as_array_mut().unwrap() {
            attempt.as_object_mut().unwrap().remove("started");
        }
    }
    value
}

fn merged(dirs: &[PathBuf], out: &Path) -> Result<Merge, MergeError> {
    merge(dirs, out, MergeOptions::default())
}

/// Two cases with three attempts each, one of which fails.
fn example() -> Run {
    let mut run = Run::new(3);
    run.case(
        "a[ipv4]",
        &["SVC-1"],
        &[Verdict::Pass, Verdict::Fail, Verdict::Pass],
    );
    run.case("b[ipv4]", &["SVC-2"], &[Verdict::Pass; 3]);
    run
}

fn write_shards(root: &Path, run: &Run, count: u32) -> Vec<PathBuf> {
    (1..=count)
        .map(|index| {
            let dir = root.join(format!("shard-{index}"));
            write(&dir, u64::from(index), shard(run, of(index, count)));
            dir
        })
        .collect()
}

#[test]
fn shards_say_what_the_whole_run_says() {
    let root = tempfile::tempdir().unwrap();
    let run = example();
    let mut dirs = write_shards(root.path(), &run, 3);
    let whole = run.report();
    let merge = merged(&dirs, &root.path().join("out")).unwrap();
    assert_eq!(figures(&merge.report), figures(&whole));
    assert_eq!(merge.report.problems, [] as [String; 0]);
    assert_eq!(merge.report.exit_code, 3);
    let made_from = merge.report.merged.clone().unwrap();
    assert_eq!((made_from.sources.len(), made_from.dropped), (3, 0));
    // The log itself says it all: numbered without gaps, in the order of time, and the same report comes out of it.
    let events: Vec<Event> = log::read(root.path().join("out").join(log::FILE_NAME))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert!(events.iter().zip(0..).all(|(event, seq)| event.seq == seq));
    assert!(events.is_sorted_by(|a, b| a.time <= b.time));
    assert_eq!(Report::from_events(events).unwrap(), merge.report);
    // The order in which directories are named makes no difference.
    dirs.reverse();
    let other = merged(&dirs, &root.path().join("other")).unwrap();
    assert_eq!(other.report, merge.report);
    // And neither does merging in two steps.
    let part = root.path().join("part");
    let incomplete = merged(&dirs[..2], &part).unwrap();
    assert_eq!(incomplete.report.exit_code, 3);
    assert!(!incomplete.report.problems.is_empty());
    let steps = merged(&[part, dirs[2].clone()], &root.path().join("steps")).unwrap();
    assert_eq!(figures(&steps.report), figures(&whole));
    assert_eq!(steps.report.merged, merge.report.merged);
}

#[test]
fn an_attempt_that_is_there_twice_counts_once_and_verdicts_do_not_choose() {
    let root = tempfile::tempdir().unwrap();
    let whole = of(1, 1);
    let mut lucky = example();
    lucky.body.clear();
    for case in ["a[ipv4]", "b[ipv4]"] {
        for attempt in 1..=3 {
            lucky.attempt(case, attempt, Verdict::Pass);
        }
    }
    let first = root.path().join("first");
    let second = root.path().join("second");
    write(&first, 0, shard(&example(), whole));
    write(&second, 500, shard(&lucky, whole));
    let dirs = [second.clone(), first.clone()];
    let merge = merged(&dirs, &root.path().join("out")).unwrap();
    assert_eq!(figures(&merge.report), figures(&shard_report(&first)));
    assert_eq!(merge.report.merged.unwrap().dropped, 6);
    assert_eq!(
        merge.report.exit_code, 3,
        "the failure that came first stays"
    );
    // The other way round, it is the pass that came first.
    write(&first, 900, shard(&example(), whole));
    let merge = merged(&dirs, &root.path().join("again")).unwrap();
    assert_eq!(merge.report.exit_code, 0);
}

fn shard_report(dir: &Path) -> Report {
    let mut report = Report::from_log(dir.join(log::FILE_NAME)).unwrap();
    report.options.shard = None;
    report
}

#[test]
fn a_killed_shard_is_completed_by_one_that_was_started_again() {
    let root = tempfile::tempdir().unwrap();
    let run = example();
    let mut dirs = write_shards(root.path(), &run, 2);
    let whole = run.report();
    let bodies = shard(&run, of(1, 2));
    // Killed in the middle of a line, at every line.
    for kept in 1..bodies.len() {
        write(&dirs[0], 1, bodies[..kept].to_vec());
        let log = dirs[0].join(log::FILE_NAME);
        let torn = std::fs::read_to_string(&log).unwrap() + "{\"seq\":99,\"ti";
        std::fs::write(&log, torn).unwrap();
        let out = root.path().join(format!("killed-{kept}"));
        let killed = merged(&dirs, &out).unwrap().report;
        assert!(
            killed.problems[0].contains("shard 1/2 was killed"),
            "{:?}",
            killed.problems
        );
        assert_ne!(killed.exit_code, 0);
        // Started again from scratch.
        let again = root.path().join(format!("again-{kept}"));
        write(&again, 100, bodies.clone());
        dirs.push(again);
        let out = root.path().join(format!("out-{kept}"));
        let merge = merged(&dirs, &out).unwrap();
        assert_eq!(
            figures(&merge.report),
            figures(&whole),
            "killed after {kept} events"
        );
        assert_eq!(merge.report.problems, [] as [String; 0]);
        dirs.pop();
    }
}

#[test]
fn what_a_resumed_run_left_unfinished_counts_for_nothing() {
    let root = tempfile::tempdir().unwrap();
    let run = example();
    let dir = root.path().join("resumed");
    let bodies = shard(&run, of(1, 1));
    // Three events of the first attempt, which was under way when the run was killed; then all of it.
    let killed: Vec<EventBody> = bodies[..4].to_vec();
    let line = |seq: u64, body: &EventBody| {
        let time = time(seq);
        serde_json::to_string(&Event {
            seq,
            time,
            body: body.clone(),
        })
        .unwrap()
    };
    let mut lines: Vec<String> = (0..)
        .zip(&killed)
        .map(|(seq, body)| line(seq, body))
        .collect();
    let seq = lines.len() as u64;
    lines.push(format!(
        r#"{{"seq":{seq},"time":"{}","type":"runResumed","machine":{},"jobs":2}}"#,
        time(seq),
        serde_json::to_string(&run.start.machine).unwrap()
    ));
    lines.extend(
        (seq + 1..)
            .zip(&bodies[1..])
            .map(|(seq, body)| line(seq, body)),
    );
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(log::FILE_NAME), lines.join("\n") + "\n").unwrap();
    let merge = merged(&[dir], &root.path().join("out")).unwrap();
    assert_eq!(figures(&merge.report), figures(&run.report()));
    assert_eq!(merge.report.problems, [] as [String; 0]);
}

/// A shard without canaries may have come from a harness that had gone blind; one that was killed is made good by its rerun.
#[test]
fn every_shard_needs_canaries_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let dirs = write_shards(root.path(), &example(), 2);
    let sung = merged(&dirs, &root.path().join("sung")).unwrap().report;
    assert_eq!(sung.canaries.len(), 2);
    assert_eq!(sung.problems, [] as [String; 0]);
    let mut bodies = shard(&example(), of(2, 2));
    bodies.retain(|body| !matches!(body, EventBody::CanaryFinished(_)));
    let unsung = root.path().join("unsung");
    write(&unsung, 2, bodies);
    let half = merged(&[dirs[0].clone(), unsung], &root.path().join("half"));
    assert_eq!(
        half.unwrap().report.problems,
        ["the canary null of shard 2/2 was not tried, so it is not known what passing proves"]
    );
}

#[test]
fn missing_shards_and_lost_lines_make_the_run_incomplete() {
    let root = tempfile::tempdir().unwrap();
    let mut run = Run::new(8);
    run.case("a[ipv4]", &["SVC-1"], &[Verdict::Pass; 8]);
    let dirs = write_shards(root.path(), &run, 3);
    let all = merged(&dirs, &root.path().join("all")).unwrap();
    assert_eq!(all.report.exit_code, 0);
    let some = merged(&dirs[..2], &root.path().join("some")).unwrap();
    assert_eq!(some.report.exit_code, 4);
    assert_eq!(
        some.report.problems,
        ["the run was interrupted: shard 3/3 is missing"]
    );
    // A line in the middle is gone: renumbering must not hide it.
    let log = dirs[0].join(log::FILE_NAME);
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .enumerate()
        .filter(|(n, _)| *n != 3)
        .map(|(_, l)| l)
        .collect();
    std::fs::write(&log, lines.join("\n") + "\n").unwrap();
    let holes = merged(&dirs, &root.path().join("holes")).unwrap();
    assert_eq!(holes.report.exit_code, 4);
    assert!(
        holes.report.problems[0].contains("shard 1/3 lost lines"),
        "{:?}",
        holes.report.problems
    );
}

#[test]
fn strangers_are_refused_one_by_one() {
    type Change = fn(&mut RunStarted);
    let table: [(Change, &str); 13] = [
        (
            |s| s.suite.version = "9".into(),
            r#"suite.version is "9" and not "0.1.0""#,
        ),
        (
            |s| s.suite.catalogue_digest = "sha256:1".into(),
            "suite.catalogueDigest is",
        ),
        (
            |s| s.candidate.digest = None,
            "candidate.digest is absent and not",
        ),
        (|s| s.candidate.name = "other".into(), "candidate.name is"),
        (
            |s| s.candidate.features_unsupported.clear(),
            "candidate.featuresUnsupported is",
        ),
        (|s| s.provider = "kind".into(), "provider is"),
        (
            |s| s.options.seed = 7,
            r#"options.seed is "7" and not "42""#,
        ),
        (|s| s.options.profile = "all".into(), "options.profile is"),
        (
            |s| s.options.filter = Some("udp-*".into()),
            "options.filter is",
        ),
        (|s| s.options.runs = 4, "options.runs is"),
        (
            |s| s.options.shard = Some(of(1, 7)),
            r#"options.shard.of is "7" and not "2""#,
        ),
        (|s| s.machine.kernel = "5.10".into(), "machine.kernel is"),
        (
            |s| s.cases[1].id = "c".into(),
            "it plans case \"c\" where \"b[ipv4]\" is expected",
        ),
    ];
    let run = example();
    for (at, (change, says)) in table.into_iter().enumerate() {
        let root = tempfile::tempdir().unwrap();
        let dirs = write_shards(root.path(), &run, 2);
        let mut other = shard(&run, of(1, 2));
        other.truncate(1);
        change(start_of(&mut other));
        let stranger = root.path().join("stranger");
        write(&stranger, 7, other);
        let out = root.path().join("out");
        let all = [dirs, vec![stranger.clone()]].concat();
        let error = merged(&all, &out).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(says) && text.contains("stranger: not of the same run as"),
            "{at}: {text}"
        );
        assert!(!error.is_trouble());
        assert!(!out.join(log::FILE_NAME).exists());
        let machines = says.starts_with("machine.");
        assert_eq!(
            text.contains("--allow-different-machines"),
            machines,
            "{text}"
        );
        let allowed = MergeOptions {
            different_machines: true,
        };
        assert_eq!(merge(&all, &out, allowed).is_ok(), machines, "{at}");
    }
}

#[test]
fn machines_of_a_fleet_differ() {
    let root = tempfile::tempdir().unwrap();
    let run = example();
    let dirs = write_shards(root.path(), &run, 2);
    let mut other = shard(&run, of(2, 2));
    let start = start_of(&mut other);
    start.machine.cpus = 64;
    start.machine.memory_bytes = 1 << 40;
    start.machine.os = "Another 1".into();
    start.options.jobs = 64;
    start.candidate.url = None;
    write(&dirs[1], 2, other);
    let report = merged(&dirs, &root.path().join("out")).unwrap().report;
    let cpus: Vec<u32> = report
        .merged
        .as_ref()
        .unwrap()
        .sources
        .iter()
        .map(|s| s.machine.cpus)
        .collect();
    assert_eq!(cpus, [2, 64]);
    let text = reports::markdown::render(&report);
    assert!(
        text.contains("Merged from 2 runs on 2 kinds of machine.\n"),
        "{text}"
    );
}

#[test]
fn what_only_some_machines_skip_is_not_skipped() {
    let root = tempfile::tempdir().unwrap();
    let mut run = example();
    run.case("sctp[ipv4]", &["NP-1"], &[]);
    let skip = || Skip {
        kind: SkipKind::KernelMissing,
        reason: "no SCTP".into(),
    };
    let dirs = write_shards(root.path(), &run, 2);
    let mut all = [shard(&run, of(1, 2)), shard(&run, of(2, 2))];
    start_of(&mut all[0]).cases[2].skip = Some(skip());
    write(&dirs[0], 1, all[0].clone());
    let report = merged(&dirs, &root.path().join("some")).unwrap().report;
    assert_eq!(report.cases[2].verdict, reports::model::CaseVerdict::NotRun);
    assert!(
        report.problems[0].contains("sctp[ipv4] has 0 of 3"),
        "{:?}",
        report.problems
    );
    start_of(&mut all[1]).cases[2].skip = Some(skip());
    write(&dirs[1], 2, all[1].clone());
    let report = merged(&dirs, &root.path().join("both")).unwrap().report;
    assert_eq!(report.cases[2].verdict, reports::model::CaseVerdict::Skip);
}

#[test]
fn experiments_stay_and_copies_of_a_run_count_them_once() {
    let root = tempfile::tempdir().unwrap();
    let mut run = example();
    run.experiment("a[ipv4]", Experiment::Alone, 2, 20, 0);
    let mut bodies = shard(&run, of(1, 1));
    bodies.insert(bodies.len() - 1, run.body.last().unwrap().clone());
    let [first, copy, second] = ["first", "copy", "second"].map(|name| root.path().join(name));
    write(&first, 0, bodies.clone());
    write(&copy, 0, bodies.clone());
    write(&second, 500, bodies);
    // Reruns of a second run of the shard are reruns like any other.
    for (other, reruns) in [(copy, 20), (second, 40)] {
        let out = root.path().join(format!("out-{reruns}"));
        let report = merged(&[first.clone(), other], &out).unwrap().report;
        let experiments = &report.cases[0].experiments;
        let made: u64 = experiments.iter().map(|e| e.attempts).sum();
        assert_eq!(made, reruns, "{experiments:?}");
        assert_eq!(report.cases[0].attempts.len(), 3);
    }
}

#[test]
fn other_seeds_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let run = example();
    let dirs = write_shards(root.path(), &run, 1);
    let mut other = shard(&run, of(1, 1));
    for body in &mut other {
        if let EventBody::AttemptStarted {
            seed, attempt: 2, ..
        } = body
        {
            *seed += 1;
        }
    }
    let stranger = root.path().join("stranger");
    write(&stranger, 9, other);
    let error = merged(&[dirs[0].clone(), stranger], &root.path().join("out")).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("attempt 2 of case") && text.contains("has seed 1003 and not 1002"),
        "{text}"
    );
}

#[test]
fn nonsense_is_refused_with_its_place() {
    let run = example();
    let whole = shard(&run, of(1, 1));
    let twice = |at: usize| {
        let mut bodies = whole.clone();
        bodies.insert(at, bodies[at].clone());
        bodies
    };
    for (bodies, says) in [
        (
            twice(1),
            "line 3: attempt 1 of case \"a[ipv4]\" starts twice",
        ),
        (twice(4), "line 6: attempt 1 of case \"a[ipv4]\" ends twice"),
        (
            whole[1..].to_vec(),
            "line 1: build report: event 0 comes before the start",
        ),
    ] {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("bad");
        write(&dir, 0, bodies);
        let error = merged(&[dir], &root.path().join("out"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{error}");
    }
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("bad");
    write(&dir, 0, whole);
    let text = std::fs::read_to_string(dir.join(log::FILE_NAME)).unwrap();
    std::fs::write(
        dir.join(log::FILE_NAME),
        text.replacen("{\"seq\":2,", "{seq:2,", 1),
    )
    .unwrap();
    let error = merged(std::slice::from_ref(&dir), &root.path().join("out"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("bad/events.jsonl") && error.contains("line 3"),
        "{error}"
    );
    // A writer that was killed before its first line was there holds nothing.
    for text in ["", "{\"seq\":0,\"time"] {
        std::fs::write(dir.join(log::FILE_NAME), text).unwrap();
        assert!(matches!(
            merged(std::slice::from_ref(&dir), &root.path().join("out")),
            Err(MergeError::Nothing)
        ));
    }
}

#[test]
fn evidence_is_linked_and_never_leaves_its_directory() {
    let root = tempfile::tempdir().unwrap();
    let run = example();
    let dirs = write_shards(root.path(), &run, 2);
    let holder = (1..=2)
        .find(|index| of(*index, 2).holds("a[ipv4]", 2))
        .unwrap();
    let evidence = Path::new("cases/a[ipv4]/2/nodes/node1/ruleset.txt");
    let dir = &dirs[holder as usize - 1];
    std::fs::create_dir_all(dir.join(evidence).parent().unwrap()).unwrap();
    std::fs::write(dir.join(evidence), "table ip").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.join("cases/a[ipv4]/2/link")).unwrap();
    let out = root.path().join("out");
    let counts = merged(&dirs, &out).unwrap().evidence;
    assert_eq!((counts.linked + counts.copied, counts.missing), (1, 0));
    let inode = |path: PathBuf| std::fs::metadata(path).unwrap().ino();
    assert_eq!(inode(out.join(evidence)), inode(dir.join(evidence)));
    assert!(!out.join("cases/a[ipv4]/2/link").exists());

    std::fs::remove_dir_all(dir.join("cases")).unwrap();
    assert_eq!(
        merged(&dirs, &root.path().join("gone"))
            .unwrap()
            .evidence
            .missing,
        1
    );
    for outside in ["../secret", "/etc", "cases/../../secret", ""] {
        let mut run = example();
        for body in &mut run.body {
            if let EventBody::AttemptFinished(finished) = body {
                finished.evidence = finished.evidence.as_ref().map(|_| outside.into());
            }
        }
        let dirs = write_shards(&root.path().join("hostile"), &run, 2);
        let error = merged(&dirs, &root.path().join("nothing")).unwrap_err();
        assert!(
            matches!(error, MergeError::Outside { .. }),
            "{outside}: {error}"
        );
        assert!(!root.path().join("nothing").join(log::FILE_NAME).exists());
    }
    // A link that leads out is as bad as a path that does.
    let dirs = write_shards(&root.path().join("sly"), &example(), 2);
    for dir in &dirs {
        std::os::unix::fs::symlink("/", dir.join("cases")).unwrap();
    }
    std::fs::create_dir_all(root.path().join("elsewhere/a[ipv4]/2")).unwrap();
    for dir in &dirs {
        std::fs::remove_file(dir.join("cases")).unwrap();
        std::os::unix::fs::symlink(root.path().join("elsewhere"), dir.join("cases")).unwrap();
    }
    let error = merged(&dirs, &root.path().join("nothing")).unwrap_err();
    assert!(matches!(error, MergeError::Outside { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any run, cut into any number of shards, each of which may have been killed anywhere any number of times and then
    /// run to its end, says what the run says.
    #[test]
    fn figures_never_change(
        verdicts in proptest::collection::vec(proptest::collection::vec(0_u8..4, 1..5), 1..4),
        shards in 1_u32..5,
        cuts in proptest::collection::vec((0_u32..4, 0.0_f64..1.0), 0..5),
    ) {
        let runs = verdicts.iter().map(Vec::len).max().unwrap_or(1) as u32;
        let mut run = Run::new(runs);
        for (case, verdicts) in verdicts.iter().enumerate() {
            let of = |at: usize| match verdicts.get(at) {
                Some(0) => Verdict::Fail,
                Some(1) => Verdict::Infra,
                _ => Verdict::Pass,
            };
            let all: Vec<Verdict> = (0..runs as usize).map(of).collect();
            run.case(&format!("case-{case}[ipv4]"), &["SVC-1"], &all);
        }
        let root = tempfile::tempdir().unwrap();
        let mut dirs = write_shards(root.path(), &run, shards);
        let mut killed: BTreeMap<u32, u64> = BTreeMap::new();
        for (index, share) in cuts {
            let index = index % shards + 1;
            let bodies = shard(&run, of(index, shards));
            let kept = 1 + (share * (bodies.len() - 1) as f64) as usize;
            let times = killed.entry(index).or_default();
            *times += 1;
            let dir = root.path().join(format!("killed-{index}-{times}"));
            // Some before and some after the run that completed.
            write(&dir, 1000 * (*times % 2), bodies[..kept].to_vec());
            dirs.push(dir);
        }
        let merge = merged(&dirs, &root.path().join("out")).unwrap();
        prop_assert_eq!(figures(&merge.report), figures(&run.report()));
        prop_assert_eq!(merge.report.problems, run.report().problems);
    }
}
