//! How a log becomes a report: what counts, what is refused, and what does not matter.

mod fixture;

use fixture::{Run, failure};
use proptest::prelude::*;
use reports::directory::{self, DirectoryError, Writing};
use reports::event::{Event, EventBody, Experiment, FinishReason, SkipKind, Verdict};
use reports::log::FILE_NAME;
use reports::model::{CaseVerdict, Class, Conclusion, ModelError};
use reports::sequential::Decision;
use reports::shard::Shard;
use reports::status::Tally;
use reports::{EventWriter, Report, write_all};

fn verdict_of(report: &Report, requirement: &str) -> CaseVerdict {
    let mut found = report.requirements.iter().filter(|r| r.id == requirement);
    found.next().unwrap().verdict
}

#[test]
fn a_pass_that_asserted_nothing_is_infra() {
    let mut run = Run::new(1);
    run.plan("c", &["SVC-1"]);
    run.attempt("c", 1, Verdict::Pass).checks = 0;
    let report = run.report();
    assert_eq!(report.exit_code, 4);
    let attempt = &report.cases[0].attempts[0];
    assert_eq!(attempt.verdict, Verdict::Infra);
    assert_eq!(
        attempt.infra.as_deref(),
        Some("the attempt asserted nothing")
    );
}

#[test]
fn a_pass_with_failures_is_a_failure() {
    let mut run = Run::new(1);
    run.plan("c", &["SVC-1"]);
    run.attempt("c", 1, Verdict::Pass).failures = vec![failure()];
    assert_eq!(run.report().exit_code, 1);
}

#[test]
fn an_attempt_that_never_finished_is_infra_and_says_where_it_stopped() {
    let mut run = Run::new(1);
    run.case("c", &["SVC-1"], &[Verdict::Pass]);
    run.body.pop();
    let report = run.report();
    assert_eq!(report.exit_code, 4);
    let infra = report.cases[0].attempts[0].infra.clone().unwrap();
    assert_eq!(
        infra,
        "the attempt never finished: the log stops after step 0 (converge)"
    );
}

#[test]
fn an_incomplete_run_cannot_show_conformance() {
    let mut run = Run::new(2);
    run.case("c", &["SVC-1"], &[Verdict::Pass, Verdict::Pass]);
    assert_eq!(run.report().exit_code, 0);

    for (end, says) in [
        (None, "killed"),
        (Some(FinishReason::Interrupted), "interrupted"),
        (Some(FinishReason::Infra), "given up"),
        (Some(FinishReason::FailFast), "first failure"),
    ] {
        run.end = end;
        let report = run.report();
        assert_eq!(report.exit_code, 4, "{end:?}");
        assert!(report.problems[0].contains(says), "{:?}", report.problems);
    }

    run.end = Some(FinishReason::Completed);
    run.start.options.runs = 3;
    let report = run.report();
    assert_eq!(report.exit_code, 4);
    assert_eq!(report.problems, ["case c has 2 of 3 attempts"]);

    run.start.options.runs = 2;
    let mut events = run.events();
    events.remove(3);
    let report = Report::from_events(events).unwrap();
    assert_eq!(report.exit_code, 4);
    assert!(
        report.problems[0].contains("holes"),
        "{:?}",
        report.problems
    );
}

#[test]
fn an_incomplete_run_can_show_non_conformance() {
    let mut run = Run::new(5);
    run.case("c", &["SVC-1"], &[Verdict::Fail]);
    run.end = None;
    assert_eq!(run.report().exit_code, 1);
}

#[test]
fn a_failure_counts_against_the_requirements_it_names() {
    let mut run = Run::new(1);
    run.case("both", &["SVC-1", "SVC-2"], &[Verdict::Fail]);
    let report = run.report();
    // The failure names SVC-1. Nothing is known about SVC-2, and nothing is ever known by default.
    assert_eq!(verdict_of(&report, "SVC-1"), CaseVerdict::Fail);
    assert_eq!(verdict_of(&report, "SVC-2"), CaseVerdict::NotRun);
    assert_eq!(verdict_of(&report, "NP-1"), CaseVerdict::NotRun);

    run.last_failure().requirements.clear();
    let report = run.report();
    assert_eq!(verdict_of(&report, "SVC-1"), CaseVerdict::Fail);
    assert_eq!(verdict_of(&report, "SVC-2"), CaseVerdict::Fail);

    run.last_failure().requirements = vec!["NP-1".into()];
    assert_eq!(verdict_of(&run.report(), "NP-1"), CaseVerdict::Fail);
}

#[test]
fn a_warning_counts_against_its_requirement_and_not_against_the_case() {
    let mut run = Run::new(2);
    run.plan("c", &["SVC-1"]);
    run.attempt("c", 1, Verdict::Pass);
    let mut warning = fixture::failure();
    warning.requirements = vec!["SVC-2".into()];
    run.attempt("c", 2, Verdict::Pass).warnings = vec![warning];
    let report = run.report();
    assert_eq!(report.cases[0].verdict, CaseVerdict::Pass);
    assert_eq!(report.exit_code, 0);
    assert_eq!(verdict_of(&report, "SVC-1"), CaseVerdict::Pass);
    assert_eq!(verdict_of(&report, "SVC-2"), CaseVerdict::Flaky);
    let text = reports::markdown::render(&report);
    assert!(text.contains("that do not decide the case (1)"), "{text}");
}

/// A failing case in a run of its own, and a second one that fails the same way.
fn two_that_fail(verdicts: &[Verdict]) -> Run {
    let mut run = Run::new(verdicts.len() as u32);
    run.case("a[ipv4]", &["SVC-1"], &[Verdict::Fail]);
    run.case("b[ipv4]", &["SVC-1"], verdicts);
    run
}

#[test]
fn experiments_change_nothing_but_the_class() {
    let mut run = two_that_fail(&[Verdict::Fail]);
    run.case("passes[ipv4]", &["SVC-2"], &[Verdict::Pass]);
    let mut before = run.report();
    run.experiment("a[ipv4]", Experiment::Alone, 0, 20, 3);
    run.experiment("a[ipv4]", Experiment::Contention, 0, 20, 0);
    let mut after = run.report();
    assert_eq!(after.exit_code, 1);
    assert_eq!(
        after.cases[0].classification.as_ref().unwrap().class,
        Class::Undecided
    );
    assert!(before.cases[0].classification.is_none());
    for report in [&mut before, &mut after] {
        // More events take more time, and that is all.
        report.duration_ms = 0.0;
        report.active_ms = 0.0;
        report.end = None;
        let groups = report.failure_groups.iter_mut();
        for group in groups.chain(&mut report.causes) {
            group.class = None;
            group.representative = None;
        }
        for case in &mut report.cases {
            case.classification = None;
            case.experiments.clear();
        }
    }
    assert_eq!(before, after);
}

#[test]
fn experiments_with_one_case_are_told_of_all_that_fail_the_same_way() {
    for (second, inherits) in [
        (&[Verdict::Fail][..], true),
        // It sometimes passes, so it is not what always fails.
        (&[Verdict::Fail, Verdict::Pass], false),
    ] {
        let mut run = two_that_fail(second);
        for (experiment, failed, attempts) in [
            (Experiment::Reference, 0, 5),
            (Experiment::Direct, 0, 5),
            (Experiment::Alone, 2, 2),
            (Experiment::Alone, 3, 3),
            (Experiment::Patient, 1, 1),
        ] {
            run.experiment("a[ipv4]", experiment, failed, attempts, 0);
        }
        let report = run.report();
        let group = &report.failure_groups[0];
        assert_eq!(group.class, Some(Class::Broken));
        assert_eq!(group.representative.as_deref(), Some("a[ipv4]"));
        let alone = &report.cases[0].experiments[0];
        assert_eq!((alone.attempts, alone.failed), (5, 5));
        let second = report.cases[1].classification.as_ref();
        assert_eq!(second.is_some(), inherits);
        if let Some(second) = second {
            assert_eq!(second.representative.as_deref(), Some("a[ipv4]"));
        }
    }
}

#[test]
fn families_and_protocols_that_fail_alike_are_one_cause() {
    let mut run = Run::new(1);
    for (case, cell) in [
        ("a[ipv4]", "pod client -> web ClusterIP 10.96.0.10:80/TCP"),
        (
            "a[ipv6]",
            "pod client -> web ClusterIP [fd00:96::10]:80/TCP",
        ),
        ("b[ipv4]", "pod other -> db ClusterIP 10.96.0.11:80/UDP"),
        (
            "c[ipv6]",
            "pod client -> web NodePort [fd00:89::b]:30080/TCP",
        ),
    ] {
        run.case(case, &["SVC-1"], &[Verdict::Fail]);
        run.last_failure().cell = Some(cell.into());
    }
    let report = run.report();
    assert_eq!(report.failure_groups.len(), 4);
    let found: Vec<(u64, &str, &str)> = report
        .causes
        .iter()
        .map(|cause| {
            let (cell, example) = (&cause.signature.cell, &cause.example_case);
            (cause.attempts, cell.as_str(), example.as_str())
        })
        .collect();
    assert_eq!(
        found,
        [
            (3, "pod -> ClusterIP IPv4|IPv6 TCP|UDP", "a[ipv4]"),
            // One family alone is told.
            (1, "pod -> NodePort IPv6 TCP", "c[ipv6]"),
        ]
    );
}

#[test]
fn an_experiment_belongs_to_a_case_of_the_plan() {
    let mut run = two_that_fail(&[Verdict::Fail]);
    run.experiment("c[ipv4]", Experiment::Alone, 1, 1, 0);
    let error = Report::from_events(run.events()).unwrap_err();
    assert!(matches!(error, ModelError::UnknownCase { .. }), "{error}");
}

#[test]
fn infra_attempts_are_grouped_by_reason() {
    let mut run = Run::new(1);
    for (case, reason) in [
        ("a", "the agent of node1 took 900 ms to say hello"),
        ("b", "the agent of node2 took 1700 ms to say hello"),
        ("c", "a world could not be built"),
    ] {
        run.plan(case, &["SVC-1"]);
        run.attempt(case, 1, Verdict::Infra).infra = Some(reason.into());
    }
    let groups = run.report().infra_groups;
    let found: Vec<(u64, usize)> = groups
        .iter()
        .map(|group| (group.attempts, group.cases.len()))
        .collect();
    assert_eq!(found, [(2, 2), (1, 1)], "{groups:?}");
}

#[test]
fn skipped_cases_do_not_spoil_a_requirement_and_do_not_prove_one() {
    let mut run = Run::new(1);
    run.case("a", &["SVC-1"], &[Verdict::Pass]);
    run.plan("b", &["SVC-1", "SVC-2"]).skip = Some(fixture::skip(SkipKind::ProviderCannot));
    let report = run.report();
    assert_eq!(verdict_of(&report, "SVC-1"), CaseVerdict::Pass);
    assert_eq!(verdict_of(&report, "SVC-2"), CaseVerdict::Skip);
}

#[test]
fn requirements_outside_the_catalogue_are_shown_too() {
    let mut run = Run::new(1);
    run.case("a", &["NEW-1"], &[Verdict::Pass]);
    let report = run.report();
    assert_eq!(verdict_of(&report, "NEW-1"), CaseVerdict::Pass);
    assert_eq!(report.areas[0].name, "other");
}

#[test]
fn numbers_are_summed_up_over_attempts() {
    let mut run = Run::new(4);
    run.case(
        "c",
        &["SVC-1"],
        &[Verdict::Pass, Verdict::Pass, Verdict::Fail, Verdict::Pass],
    );
    let report = run.report();
    let case = &report.cases[0];
    let rate = case.failure_rate.unwrap();
    assert_eq!((rate.failed, rate.of), (1, 4));
    let convergence = case.convergence_ms.unwrap();
    assert_eq!((convergence.p50, convergence.max), (5.25, 7.25));
    assert_eq!(case.measurements[0].name, "blackout");
    assert_eq!(case.measurements[0].values.max, 2.0);
    assert_eq!(
        (report.totals.checks, report.totals.positive_checks),
        (32, 24)
    );
    assert_eq!(report.totals.attempts.fail, 1);
    // 19 events, a second apart.
    assert_eq!(report.duration_ms, 18_000.0);
}

#[test]
fn a_candidate_that_is_not_consistent_shows_both_values() {
    let mut run = Run::new(1);
    run.case("a", &["SVC-1"], &[Verdict::Pass])
        .case("b", &["SVC-1"], &[Verdict::Pass]);
    run.characteristic("b", "choice", "left", "Left or right.");
    run.characteristic("a", "choice", "right", "Left or right.");
    run.characteristic("a", "choice", "left", "Left or right.");
    let report = run.report();
    let values = &report.characteristics[0].values;
    assert_eq!(values.len(), 2);
    assert_eq!(values[0].cases, ["a", "b"]);
    assert_eq!(values[1].cases, ["a"]);
    assert_eq!(report.exit_code, 0, "characteristics never fail");
}

#[test]
fn nonsense_is_refused_by_name() {
    let error = |events: Vec<Event>| Report::from_events(events).unwrap_err();
    assert!(matches!(error(vec![]), ModelError::Empty));

    let mut run = Run::new(1);
    run.case("c", &["SVC-1"], &[Verdict::Pass]);
    let events = run.events();
    let change = |change: &dyn Fn(&mut Vec<Event>)| {
        let mut changed = events.clone();
        change(&mut changed);
        Report::from_events(changed).unwrap_err()
    };
    let first_late = change(&|e| e.rotate_left(1));
    assert!(matches!(first_late, ModelError::NotStarted { seq: 1 }));
    let twice = change(&|e| e.insert(1, e[0].clone()));
    assert!(matches!(twice, ModelError::StartedTwice { .. }));
    let start_twice = change(&|e| e.insert(2, e[1].clone()));
    assert!(matches!(
        start_twice,
        ModelError::Twice { what: "starts", .. }
    ));
    let end_twice = change(&|e| e.insert(5, e[4].clone()));
    assert!(
        matches!(end_twice, ModelError::Twice { what: "ends", .. }),
        "{end_twice}"
    );
    let run_end_twice = change(&|e| e.push(e[6].clone()));
    assert!(matches!(run_end_twice, ModelError::EndedTwice { .. }));
    let bad_time = change(&|e| e[0].time = "yesterday".into());
    assert!(matches!(bad_time, ModelError::Time { .. }));
    let newer = change(&|e| {
        if let EventBody::RunStarted(run) = &mut e[0].body {
            run.format_version = 99;
        }
    });
    assert!(matches!(newer, ModelError::FormatVersion { found: 99 }));
    let unknown = change(&|e| {
        if let EventBody::RunStarted(run) = &mut e[0].body {
            run.cases.clear();
        }
    });
    assert!(
        unknown
            .to_string()
            .contains("case \"c\", which is not in the plan"),
        "{unknown}"
    );
    run.plan("c", &["SVC-1"]);
    assert!(matches!(
        error(run.events()),
        ModelError::PlannedTwice { .. }
    ));
}

#[test]
fn attempts_under_way_when_a_run_breaks_off_are_void() {
    let mut run = Run::new(3);
    run.case("c", &["SVC-1"], &[Verdict::Pass, Verdict::Fail]);
    // The end of attempt 2 is lost, and attempt 1 of another case stopped somewhere in the middle.
    run.body.pop();
    run.plan("d", &["SVC-1"]);
    run.attempt("d", 1, Verdict::Pass);
    run.characteristic("d", "choice", "left", "Left or right.");
    let finished = run.body.len() - 2;
    run.body.remove(finished);
    run.resumed();
    run.attempt("c", 2, Verdict::Pass);
    run.attempt("d", 1, Verdict::Pass);
    run.resumed();
    for (case, attempt) in [("c", 3), ("d", 2), ("d", 3)] {
        run.attempt(case, attempt, Verdict::Pass);
    }
    let report = run.report();
    assert_eq!(report.problems, [""; 0]);
    assert_eq!(report.exit_code, 0);
    assert_eq!(report.totals.attempts.total, 6);
    assert_eq!(report.totals.attempts.pass, 6);
    let void: Vec<u64> = report.resumed.iter().map(|r| r.void_attempts).collect();
    assert_eq!(void, [2, 0]);
    assert_eq!(report.resumed[0].torn_bytes, 7);
    for case in &report.cases {
        assert_eq!(case.measurements[0].values.count, 3, "{}", case.id);
    }
    assert!(
        report.characteristics.is_empty(),
        "what a void attempt saw is not known"
    );
}

#[test]
fn an_ended_run_may_go_on_and_pauses_do_not_count() {
    let mut run = Run::new(2);
    run.case("c", &["SVC-1"], &[Verdict::Pass]);
    run.body.push(EventBody::RunFinished {
        reason: FinishReason::Interrupted,
        message: None,
    });
    run.resumed();
    run.attempt("c", 2, Verdict::Pass);
    let mut events = run.events();
    let report = Report::from_events(events.clone()).unwrap();
    assert_eq!(report.exit_code, 0);
    assert_eq!(report.active_ms, report.duration_ms - 1_000.0);

    // The machine was off for an hour, or its clock went back by a minute: neither is time in which anything ran.
    for time in ["2026-11-22T01:00:00.250000Z", "2026-11-21T23:59:00.250000Z"] {
        let at = events
            .iter()
            .position(|event| matches!(event.body, EventBody::RunResumed(_)));
        for event in &mut events[at.unwrap()..] {
            event.time = time.to_owned();
        }
        let report = Report::from_events(events.clone()).unwrap();
        assert_eq!(report.active_ms, 5_000.0, "{time}");
        assert!(report.duration_ms >= 0.0, "{time}");
    }
}

/// A run that is to decide `rate<50% @95%` for every case, at most so many times each.
fn claiming(most: u32, cases: &[(&str, &[Verdict])]) -> Report {
    let mut run = Run::new(most);
    run.start.options.until_confidence = Some("rate<50% @95%".parse().unwrap());
    run.start.options.flake_budget = 9;
    for (id, verdicts) in cases {
        run.case(id, &["SVC-1"], verdicts);
    }
    run.report()
}

#[test]
fn only_what_is_proven_passes() {
    use Verdict::{Fail, Infra, Pass};
    let of = |verdicts: &[Verdict]| {
        let report = claiming(20, &[("c", verdicts)]);
        let claim = report.cases[0].claim.clone().unwrap();
        (report.cases[0].verdict, claim.decision, report.exit_code)
    };
    // Five passes prove it, seven failures refute it.
    assert_eq!(of(&[Pass; 5]), (CaseVerdict::Pass, Decision::Proven, 0));
    assert_eq!(of(&[Pass; 4]), (CaseVerdict::Undecided, Decision::Open, 4));
    assert_eq!(of(&[Fail; 7]), (CaseVerdict::Fail, Decision::Refuted, 1));
    assert_eq!(of(&[Fail; 6]), (CaseVerdict::Fail, Decision::Open, 1));
    let mut some = vec![Fail; 12];
    some.push(Pass);
    assert_eq!(
        of(&some),
        (CaseVerdict::Flaky, Decision::Refuted, 3),
        "a refuted claim is beyond every flake budget"
    );
    assert_eq!(
        of(&[Fail, Pass, Pass]),
        (CaseVerdict::Flaky, Decision::Open, 4),
        "what is open is not tolerated either"
    );
    let mut late = vec![Pass; 5];
    late.push(Fail);
    assert_eq!(
        of(&late),
        (CaseVerdict::Flaky, Decision::Proven, 0),
        "the first decision stays, and the budget covers the flake"
    );
    assert_eq!(
        of(&[Pass, Pass, Infra, Pass, Pass, Pass]),
        (CaseVerdict::Infra, Decision::Proven, 4),
        "proven or not, something got in the way"
    );
    let report = claiming(
        20,
        &[("a", &[Pass; 5]), ("b", &[Pass; 4]), ("c", &[Pass; 2])],
    );
    assert_eq!(
        report.problems,
        [
            "rate<50% @95% is neither proven nor refuted for case b after 4 attempts (and 1 more cases)"
        ]
    );
    let junit = reports::junit::render(&report);
    assert!(junit.contains("type=\"undecided\""), "{junit}");
    let markdown = reports::markdown::render(&report);
    assert!(markdown.contains("## Undecided"), "{markdown}");
}

#[test]
fn a_shard_never_says_conformant() {
    let mut run = Run::new(2);
    let shard = Shard { index: 1, of: 2 };
    run.start.options.shard = Some(shard);
    let ids: Vec<String> = (0..12).map(|number| format!("case-{number}")).collect();
    for id in &ids {
        run.plan(id, &["SVC-1"]);
        for attempt in 1..=2 {
            if shard.holds(id, attempt) {
                run.attempt(id, attempt, Verdict::Pass);
            }
        }
    }
    let report = run.report();
    let elsewhere: Vec<&str> = report
        .cases
        .iter()
        .filter(|case| report.is_elsewhere(case))
        .map(|case| case.id.as_str())
        .collect();
    assert!(
        !elsewhere.is_empty() && elsewhere.len() < 12,
        "{elsewhere:?}"
    );
    assert_eq!(report.conclusion, Conclusion::ShardPassed);
    assert_eq!((report.exit_code, report.problems.len()), (0, 0));
    let (junit, markdown) = (
        reports::junit::render(&report),
        reports::markdown::render(&report),
    );
    for id in elsewhere {
        assert!(!junit.contains(&format!("name=\"{id}\"")), "{junit}");
    }
    assert!(!markdown.contains("Conformant"), "{markdown}");

    // One of its own attempts is missing.
    let last = run.body.pop();
    let report = run.report();
    assert_eq!(report.exit_code, 4, "{:?}", report.problems);
    run.body.extend(last);
    run.end = Some(FinishReason::Interrupted);
    assert_eq!(run.report().exit_code, 4);
    run.end = Some(FinishReason::Completed);
    if let Some(EventBody::AttemptFinished(finished)) = run.body.last_mut() {
        finished.verdict = Verdict::Fail;
    }
    assert_ne!(run.report().exit_code, 0);
}

#[test]
fn a_status_counts_what_the_report_counts() {
    use Verdict::{Fail, Infra, Pass};
    let mut run = Run::new(3);
    run.case("c", &["SVC-1"], &[Pass, Fail, Infra])
        .case("d", &["SVC-1"], &[Fail, Pass, Pass]);
    run.plan("e", &["SVC-1"]).skip = Some(fixture::skip(SkipKind::ProviderCannot));
    run.plan("f", &["SVC-1"]);
    run.attempt("d", 4, Pass);
    run.body.pop();
    run.resumed();
    let mut tally = Tally::default();
    run.events().iter().for_each(|event| tally.push(event));
    let (status, report) = (tally.status(1_000.0, None), run.report());
    assert_eq!(status.attempts, report.totals.attempts);
    assert_eq!((status.cases, status.untried, status.resumed), (3, 1, 1));
    assert_eq!(status.end, Some(FinishReason::Completed));
    let names: Vec<&str> = status
        .least_certain
        .iter()
        .map(|c| c.case.as_str())
        .collect();
    assert_eq!(names, ["f", "c", "d"]);
    assert_eq!(status.worst_core.unwrap().case, "f");
    assert_eq!(status.failures.len(), report.failure_groups.len());
    assert_eq!(status.failures[0].attempts, 2);
    assert_eq!(status.failures[0].first, ("c".to_owned(), 2));
    assert_eq!(status.failures[0].last, ("d".to_owned(), 1));
    assert_eq!(
        status.failures[0].signature,
        report.failure_groups[0].signature
    );
}

#[test]
fn a_directory_has_one_writer_and_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut run = Run::new(2);
    run.case("c", &["SVC-1"], &[Verdict::Pass, Verdict::Fail]);
    let mut writing = Writing::create(&out).unwrap();
    assert_eq!(
        directory::writer(&out).unwrap().unwrap().pid,
        Some(std::process::id())
    );
    let bodies: Vec<EventBody> = run.events().into_iter().map(|event| event.body).collect();
    // Up to the middle of the second attempt.
    for body in &bodies[..6] {
        writing.record(body.clone()).unwrap();
    }
    let error = Writing::create(&out).err().unwrap();
    assert!(matches!(error, DirectoryError::Taken { .. }), "{error}");
    let error = Writing::resume(&out, |_| ()).err().unwrap();
    assert!(error.is_usage(), "{error}");
    let says = format!("is being written by process {}", std::process::id());
    assert!(error.to_string().contains(&says), "{error}");
    drop(writing);
    assert_eq!(directory::writer(&out).unwrap(), None);

    let mut seen = 0;
    let resumed = Writing::resume(&out, |_| seen += 1).unwrap();
    assert_eq!(seen, 6);
    assert_eq!(resumed.run, run.start);
    assert_eq!(resumed.void, [("c".to_owned(), 2)]);
    let mut writing = resumed.writing;
    run.resumed();
    writing.record(run.body.pop().unwrap()).unwrap();
    run.body.clear();
    run.attempt("c", 2, Verdict::Pass);
    for body in run.events().into_iter().skip(1) {
        writing.record(body.body).unwrap();
    }
    let (report, files) = writing.finish().unwrap();
    assert_eq!((report.exit_code, files.len()), (0, 5));
    assert_eq!(directory::report(&out).unwrap(), report);

    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let error = Writing::resume(&empty, |_| ()).err().unwrap();
    assert!(matches!(error, DirectoryError::NoRun { .. }), "{error}");
    assert_eq!(directory::writer(&empty).unwrap(), None);
}

#[test]
fn a_log_on_disk_becomes_three_files_even_when_torn() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join(FILE_NAME);
    let mut run = Run::new(1);
    run.case("c", &["SVC-1"], &[Verdict::Pass]);
    let mut writer = EventWriter::create(&log).unwrap();
    for event in run.events() {
        writer.append(event.body).unwrap();
    }
    writer.finish().unwrap();
    let report = Report::from_log(&log).unwrap();
    assert_eq!(report.exit_code, 0);

    let out = dir.path().join("new/reports");
    let written = write_all(&out, &report).unwrap();
    let names: Vec<_> = written
        .iter()
        .map(|path| path.file_name().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "report.json",
            "junit.xml",
            "report.md",
            "report.html",
            "badge.svg"
        ]
    );
    let text = std::fs::read_to_string(&written[0]).unwrap();
    assert_eq!(reports::json::parse(&text).unwrap(), report);
    assert_eq!(
        std::fs::read_dir(&out).unwrap().count(),
        5,
        "no drafts are left"
    );

    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..bytes.len() - 10]).unwrap();
    let report = Report::from_log(&log).unwrap();
    assert_eq!(report.exit_code, 4);
    assert!(
        report
            .problems
            .iter()
            .any(|problem| problem.contains("middle of a line"))
    );
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mut run = Run::new(1);
    run.case("c", &["SVC-1"], &[Verdict::Pass]);
    let error = write_all(file.join("sub"), &run.report()).unwrap_err();
    assert!(error.to_string().contains("file/sub"), "{error}");
}

#[test]
fn reports_of_newer_suites_are_refused_and_unknown_fields_are_not() {
    let mut run = Run::new(1);
    run.case("c", &["SVC-1"], &[Verdict::Pass]);
    let report = run.report();
    let text = reports::json::render(&report);
    let newer = text.replacen("\"formatVersion\": 1", "\"formatVersion\": 2", 1);
    let error = reports::json::parse(&newer).unwrap_err().to_string();
    assert!(error.contains("version 2"), "{error}");
    let extended = text.replacen("{", "{\"mood\": [1],", 1);
    assert_eq!(reports::json::parse(&extended).unwrap(), report);
}

/// Some cases with some attempts each.
fn some_run() -> impl Strategy<Value = Run> {
    let verdict = prop::sample::select(vec![
        Verdict::Pass,
        Verdict::Fail,
        Verdict::Infra,
        Verdict::Skip,
    ]);
    let attempts = prop::collection::vec(verdict, 0..4);
    prop::collection::vec(attempts, 0..6).prop_map(|cases| {
        let mut run = Run::new(3);
        for (number, verdicts) in cases.iter().enumerate() {
            let id = format!("case-{number}");
            let requirement = ["SVC-1", "SVC-2", "NP-1"][number % 3];
            run.case(&id, &[requirement], verdicts);
            if !verdicts.is_empty() {
                run.characteristic(&id, "choice", ["left", "right"][number % 2], &id);
            }
        }
        run
    })
}

proptest! {
    #[test]
    fn the_order_of_events_does_not_matter(run in some_run(), keys in prop::collection::vec(any::<u32>(), 128)) {
        let events = run.events();
        let report = Report::from_events(events.clone()).unwrap();
        let mut rest: Vec<Event> = events[1..].to_vec();
        // Any order at all: the first event alone has its place.
        rest.sort_by_key(|event| keys[event.seq as usize % keys.len()]);
        let shuffled = events[..1].iter().cloned().chain(rest);
        prop_assert_eq!(Report::from_events(shuffled).unwrap(), report);
    }

    #[test]
    fn the_sums_add_up_and_conformance_is_earned(run in some_run()) {
        let report = run.report();
        let total = report.cases.len() as u64;
        prop_assert_eq!(report.totals.cases.total, total);
        prop_assert_eq!(report.areas.iter().map(|area| area.cases.total).sum::<u64>(), total);
        prop_assert_eq!(report.levels.iter().map(|level| level.cases.total).sum::<u64>(), total);
        if report.exit_code == 0 {
            let earned = |case: &reports::model::CaseResult| match case.verdict {
                CaseVerdict::Pass => case.attempts.len() == 3 && case.attempts.iter().all(|a| a.verdict == Verdict::Pass),
                verdict => verdict == CaseVerdict::Skip,
            };
            prop_assert!(report.cases.iter().all(earned));
            prop_assert!(report.totals.cases.pass > 0);
        }
        let any_fail = report.cases.iter().any(|case| case.verdict == CaseVerdict::Fail);
        prop_assert_eq!(any_fail, report.exit_code == 1);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let reader = reports::log::EventReader::from_bytes("log", bytes);
        for event in reader {
            if event.is_err() {
                break;
            }
        }
    }
}

#[test]
fn what_was_done_to_a_cluster_is_told_in_every_report() {
    let mut run = Run::new(1);
    run.setup("create the cluster", 41.0, None);
    run.setup("install the candidate", 2.5, Some("an image is missing"));
    run.case("c", &["SVC-1"], &[Verdict::Infra]);
    let report = run.report();
    assert_eq!(report.setup.len(), 2);
    let told = [
        "create the cluster: 41.0 s",
        "install the candidate: failed after 2.5 s: an image is missing",
    ];
    let markdown = reports::markdown::render(&report);
    let page = reports::html::render(&report, &Default::default());
    for line in told {
        assert!(markdown.contains(line), "{markdown}");
        assert!(page.contains(line), "{line}");
    }
}
