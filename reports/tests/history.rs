//! Many runs in one file: imported once, whoever imports; rates, changes, flakes and clean runs; old runs forgotten; files of
//! somebody else refused.

mod fixture;

use std::path::{Path, PathBuf};

use fixture::Run;
use reports::Report;
use reports::event::{FinishReason, Merged, MergedSource, Verdict};
use reports::history::{
    CandidateTrend, History, HistoryError, Imported, candidate_text, case_text, clean_runs_text,
    flakes_text, import_report, runs_text,
};
use tempfile::TempDir;

const CASE: &str = "udp-replaced[ipv4]";

/// A run of a day, in which some of the attempts of one case fail and another case passes.
fn report(day: u32, version: &str, failed: usize, of: usize) -> Report {
    let mut run = Run::new(of as u32);
    run.start.run_id = format!("run-{day}");
    run.start.candidate.version = Some(version.into());
    let verdicts: Vec<Verdict> = (0..of)
        .map(|n| {
            if n < failed {
                Verdict::Fail
            } else {
                Verdict::Pass
            }
        })
        .collect();
    run.case(CASE, &["SVC-1"], &verdicts);
    run.case("steady[ipv4]", &["SVC-2"], &vec![Verdict::Pass; of]);
    on_day(run, day)
}

fn on_day(run: Run, day: u32) -> Report {
    let date = format!("2026-{:02}-{:02}", 1 + day / 28, 1 + day % 28);
    let mut events = run.events();
    for event in &mut events {
        event.time = event.time.replace("2026-11-22", &date);
    }
    Report::from_events(events).unwrap()
}

fn history() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.sqlite");
    (dir, path)
}

/// A case that is good in 1.0, flaky from the fourth run of 1.1 on, and repaired in 1.2.
fn eventful(path: &Path) -> CandidateTrend {
    let mut history = History::create_or_open(path).unwrap();
    for day in 0..18 {
        let (version, failed) = match day {
            0..4 => ("1.0", 0),
            4..7 => ("1.1", 0),
            7..13 => ("1.1", 4 + day as usize % 3),
            _ => ("1.2", 0),
        };
        let imported = history.import(&report(day, version, failed, 20)).unwrap();
        assert_eq!(imported, Imported::Added);
    }
    history.candidate("example-proxy").unwrap()
}

#[test]
fn rates_changes_and_sightings() {
    let (_dir, path) = history();
    let trend = eventful(&path);
    assert_eq!(trend.runs.len(), 18);
    let case = &trend.cases[1];
    assert_eq!(case.case, CASE);
    let rates: Vec<(&str, u64, u64)> = case
        .versions
        .iter()
        .map(|v| {
            (
                v.version.as_str(),
                v.rate.unwrap().failed,
                v.rate.unwrap().of,
            )
        })
        .collect();
    assert_eq!(rates, [("1.0", 0, 80), ("1.1", 30, 180), ("1.2", 0, 100)]);
    let changes: Vec<(usize, &str)> = case
        .changes
        .iter()
        .map(|c| (c.run, c.at.version.as_str()))
        .collect();
    assert_eq!(changes, [(7, "1.1"), (13, "1.2")]);
    assert_eq!(
        case.first_failure.as_ref().unwrap().time,
        "2026-01-08T00:00:00.250000Z"
    );
    assert_eq!(case.last_failure.as_ref().unwrap().version, "1.1");
    assert_eq!(case.current.unwrap().of, 100);
    assert_eq!(case.signatures[0].attempts, 30);
    // Repaired: it is not flaky now, and every run since counts as clean.
    assert_eq!(trend.flakes("2026-01-01"), []);
    let clean = trend.clean_runs(CASE).unwrap();
    assert_eq!((clean.runs, clean.attempts), (5, 100));
    assert_eq!(clean.run_ids[0], "run-17");
    assert_eq!(trend.clean_runs("steady[ipv4]").unwrap().runs, 18);
    assert_eq!(trend.clean_runs("nobody"), None);
    assert!(trend.cases[0].changes.is_empty());
    insta::assert_snapshot!("case", case_text(&trend, case));
    insta::assert_snapshot!("candidate", candidate_text(&trend));
    insta::assert_snapshot!("clean-runs", clean_runs_text(&[clean]));
    insta::assert_snapshot!("runs", runs_text(&[trend]));
}

#[test]
fn what_is_flaky_now() {
    let (_dir, path) = history();
    let mut file = History::create_or_open(&path).unwrap();
    for day in 0..10 {
        file.import(&report(day, "1.0", usize::from(day % 4 == 1), 20))
            .unwrap();
    }
    let trend = file.candidate("example-proxy").unwrap();
    let flakes = trend.flakes("2026-01-05");
    assert_eq!(flakes.len(), 1);
    assert_eq!(
        (
            flakes[0].case.as_str(),
            flakes[0].rate.failed,
            flakes[0].rate.of
        ),
        (CASE, 3, 200)
    );
    assert_eq!(flakes[0].since, None);
    // What has not failed for long is not flaky now.
    assert_eq!(trend.flakes("2026-01-11"), []);
    insta::assert_snapshot!("flakes", flakes_text(&flakes, "2026-01-05T00:00:00Z"));
    insta::assert_snapshot!("no-flakes", flakes_text(&[], "2026-01-05T00:00:00Z"));
}

#[test]
fn versions_without_a_name_and_with_several_digests_are_told_apart() {
    let (_dir, path) = history();
    for (day, version, digest) in [
        (0, Some("dev"), Some("sha256:aaaabbbbcccc")),
        (1, Some("dev"), Some("sha256:ddddeeeeffff")),
        (2, None, Some("sha256:0123456789")),
        (3, None, None),
        (4, Some("1.0"), Some("sha256:77")),
    ] {
        let mut report = report(day, "x", 0, 1);
        report.candidate.version = version.map(Into::into);
        report.candidate.digest = digest.map(Into::into);
        import_report(&path, &report).unwrap();
    }
    let trend = History::open(&path)
        .unwrap()
        .candidate("example-proxy")
        .unwrap();
    let versions: Vec<&str> = trend.runs.iter().map(|run| run.version.as_str()).collect();
    assert_eq!(
        versions,
        [
            "dev@aaaabbbb",
            "dev@ddddeeee",
            "@01234567",
            "unknown",
            "1.0"
        ]
    );
}

#[test]
fn a_run_is_imported_once_and_grows_when_it_was_resumed() {
    let (_dir, path) = history();
    let mut killed = Run::new(4);
    killed.start.run_id = "run-1".into();
    killed.case(CASE, &["SVC-1"], &[Verdict::Fail, Verdict::Pass]);
    killed.end = None;
    let killed = on_day(killed, 1);
    let whole = report(1, "1.2.3", 1, 4);
    let mut file = History::create_or_open(&path).unwrap();
    assert_eq!(file.import(&killed).unwrap(), Imported::Added);
    assert_eq!(
        file.import(&killed).unwrap(),
        Imported::Known("run-1".into())
    );
    assert_eq!(
        file.import(&whole).unwrap(),
        Imported::Replaced(vec!["run-1".into()])
    );
    assert_eq!(
        file.import(&killed).unwrap(),
        Imported::Known("run-1".into())
    );
    let trend = file.candidate("example-proxy").unwrap();
    assert_eq!(trend.runs.len(), 1);
    assert_eq!((trend.runs[0].passed, trend.runs[0].failed), (7, 1));
    assert_eq!(trend.cases[1].signatures[0].attempts, 1);
}

#[test]
fn a_merged_run_takes_the_place_of_its_shards() {
    let (_dir, path) = history();
    let mut file = History::create_or_open(&path).unwrap();
    let shards = [report(1, "1.0", 1, 4), report(2, "1.0", 0, 4)];
    for shard in &shards {
        file.import(shard).unwrap();
    }
    let mut merged = report(1, "1.0", 1, 8);
    merged.run_id = "run-1-merged".into();
    merged.merged = Some(Merged {
        dropped: 0,
        sources: shards
            .iter()
            .map(|shard| MergedSource {
                run_id: shard.run_id.clone(),
                started: shard.started.clone(),
                shard: None,
                machine: shard.machine.clone(),
                jobs: 2,
                attempts: 8,
                end: Some(FinishReason::Completed),
                holes: false,
            })
            .collect(),
    });
    let replaced = Imported::Replaced(vec!["run-1".into(), "run-2".into()]);
    assert_eq!(file.import(&merged).unwrap(), replaced);
    for again in [&merged, &shards[0], &shards[1]] {
        assert_eq!(
            file.import(again).unwrap(),
            Imported::Known("run-1-merged".into())
        );
    }
    // Half of it and something else.
    let mut overlap = merged.clone();
    overlap.run_id = "run-2-merged".into();
    let sources = &mut overlap.merged.as_mut().unwrap().sources;
    sources[0].run_id = "run-3".into();
    let error = file.import(&overlap).unwrap_err();
    assert!(matches!(error, HistoryError::Overlap { .. }), "{error}");
    assert_eq!(file.candidate("example-proxy").unwrap().runs.len(), 1);
}

#[test]
fn pruning_keeps_what_was_first_seen() {
    let (_dir, path) = history();
    eventful(&path);
    let mut file = History::open(&path).unwrap();
    let before: jiff::Timestamp = "2026-01-11T00:00:00Z".parse().unwrap();
    let pruned = file.prune(before).unwrap();
    assert_eq!((pruned.runs, pruned.left), (10, 8));
    let case = file.candidate("example-proxy").unwrap().cases[1].clone();
    assert_eq!(
        case.first_failure.as_ref().unwrap().time,
        "2026-01-08T00:00:00.250000Z"
    );
    assert_eq!(case.first_run.time, "2026-01-11T00:00:00.250000Z");
    // All failures are counted, also those whose runs are gone; a second time changes nothing.
    assert_eq!(case.signatures[0].attempts, 30);
    assert_eq!(file.prune(before).unwrap().runs, 0);
    // And all of it.
    let pruned = file.prune("2027-01-01T00:00:00Z".parse().unwrap()).unwrap();
    assert_eq!((pruned.runs, pruned.left), (8, 0));
    // A new failure is the same flake as ever.
    file.import(&report(40, "2.0", 1, 20)).unwrap();
    let case = file.candidate("example-proxy").unwrap().cases[1].clone();
    assert_eq!(case.first_failure.unwrap().version, "1.1");
    assert_eq!(case.signatures[0].attempts, 31);
}

#[test]
fn everything_is_exported() {
    let (_dir, path) = history();
    let trend = eventful(&path);
    let export = History::open(&path).unwrap().export().unwrap();
    assert_eq!(export.candidates, [trend]);
    let text = serde_json::to_string(&export).unwrap();
    assert_eq!(
        serde_json::from_str::<reports::history::Export>(&text).unwrap(),
        export
    );
}

#[test]
fn several_may_import_at_once() {
    let (_dir, path) = history();
    let reports: Vec<Report> = (0..24).map(|day| report(day, "1.0", 0, 2)).collect();
    // Each report by two threads, and the file does not exist yet.
    std::thread::scope(|scope| {
        for part in 0..8 {
            let (path, reports) = (&path, &reports);
            scope.spawn(move || {
                for report in reports.iter().skip(part % 4).step_by(4) {
                    import_report(path, report).unwrap();
                }
            });
        }
    });
    let trend = History::open(&path)
        .unwrap()
        .candidate("example-proxy")
        .unwrap();
    assert_eq!(trend.runs.len(), 24);
    assert!(trend.runs.iter().all(|run| run.passed == 4));
}

#[test]
fn files_of_somebody_else_are_refused_and_left_alone() {
    let (dir, path) = history();
    let refused = |path: &Path, says: &str| {
        let before = std::fs::read(path).unwrap();
        let error = History::create_or_open(path).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        let error = History::open(path).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert_eq!(std::fs::read(path).unwrap(), before);
    };
    let text = dir.path().join("notes.txt");
    std::fs::write(&text, "Dear diary, this is no database at all. ".repeat(50)).unwrap();
    refused(&text, "it is no SQLite database");

    let other = dir.path().join("other.sqlite");
    let connection = rusqlite::Connection::open(&other).unwrap();
    connection
        .execute_batch("CREATE TABLE songs (title TEXT)")
        .unwrap();
    drop(connection);
    refused(&other, "an SQLite database of something else");

    let newer = dir.path().join("newer.sqlite");
    import_report(&newer, &report(1, "1.0", 0, 1)).unwrap();
    let connection = rusqlite::Connection::open(&newer).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = DELETE; PRAGMA user_version = 99")
        .unwrap();
    drop(connection);
    refused(&newer, "a newer harness wrote it: schema 99");

    let error = History::open(&path).unwrap_err();
    assert!(matches!(error, HistoryError::Missing { .. }), "{error}");
    assert!(!path.exists());
}

#[test]
fn a_damaged_file_is_said_to_be_damaged() {
    let (_dir, path) = history();
    let mut file = History::create_or_open(&path).unwrap();
    for day in 0..40 {
        file.import(&report(day, "1.0", 1, 3)).unwrap();
    }
    drop(file);
    let whole = std::fs::read(&path).unwrap();
    let mut seen = 0;
    for page in 1..whole.len() / 4096 {
        let mut broken = whole.clone();
        broken[page * 4096..page * 4096 + 512].fill(0xa5);
        std::fs::write(&path, &broken).unwrap();
        match History::open(&path) {
            Err(HistoryError::Damaged { .. }) => seen += 1,
            Err(other) => panic!("page {page}: {other}"),
            // The page may be one that nothing uses.
            Ok(_) => {}
        }
    }
    assert!(
        seen > whole.len() / 4096 / 2,
        "{seen} damaged pages were noticed"
    );
    // Half of the file is gone.
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = History::open(&path).unwrap_err().to_string();
    assert!(error.contains("the history is damaged"), "{error}");
}

#[test]
fn hostile_texts_are_harmless_in_a_terminal() {
    let (_dir, path) = history();
    let report = fixture::hostile().report();
    import_report(&path, &report).unwrap();
    let mut file = History::open(&path).unwrap();
    let name = file.candidates().unwrap().remove(0);
    let trend = file.candidate(&name).unwrap();
    let mut text = runs_text(std::slice::from_ref(&trend)) + &candidate_text(&trend);
    for case in &trend.cases {
        text += &case_text(&trend, case);
    }
    text += &flakes_text(&trend.flakes(""), "");
    assert!(text.len() > 1000);
    let acts = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}' || c == '\u{200b}');
    assert!(!text.contains(acts), "{text:?}");
}
