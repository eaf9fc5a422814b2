//! Two runs compared: what is worse is found, what is chance is not.

mod fixture;

use fixture::{HOSTILE, Run};
use reports::Report;
use reports::compare::{Changed, Comparison};
use reports::event::{EventBody, SkipKind, Verdict};

/// So many attempts, of which the first fail.
fn verdicts(failed: usize, of: usize) -> Vec<Verdict> {
    (0..of)
        .map(|n| {
            if n < failed {
                Verdict::Fail
            } else {
                Verdict::Pass
            }
        })
        .collect()
}

/// A run of these cases, with how many attempts fail.
fn run(cases: &[(&str, usize, usize)]) -> Run {
    let mut run = Run::new(40);
    for (id, failed, of) in cases {
        run.case(id, &["SVC-1"], &verdicts(*failed, *of));
    }
    run
}

fn compare(base: &Run, new: &Run) -> Comparison {
    // Cases have different numbers of attempts here, which is a problem of a run and not of a comparison.
    let whole = |run: &Run| {
        let mut report = run.report();
        report.problems.clear();
        report
    };
    Comparison::of(&whole(base), &whole(new))
}

/// Changes the times of a case's attempts.
fn times(run: &mut Run, id: &str, change: impl Fn(f64) -> f64) {
    for body in &mut run.body {
        if let EventBody::AttemptFinished(finished) = body
            && finished.case == id
        {
            finished.convergence_ms = finished.convergence_ms.map(&change);
        }
    }
}

fn names(cases: &[Changed]) -> Vec<&str> {
    cases.iter().map(|case| case.case.as_str()).collect()
}

fn eventful() -> Comparison {
    let base = run(&[
        ("breaks", 0, 40),
        ("breaks-more", 5, 40),
        ("flakier", 1, 40),
        ("perhaps", 1, 40),
        ("better", 20, 40),
        ("luckier", 1, 40),
        ("same", 3, 40),
        ("slower", 0, 40),
        ("skipped", 0, 40),
        ("gone", 0, 40),
        ("untried", 0, 0),
    ]);
    let mut new = run(&[
        ("breaks", 40, 40),
        ("breaks-more", 40, 40),
        ("flakier", 20, 40),
        ("perhaps", 3, 40),
        ("better", 0, 40),
        ("luckier", 0, 40),
        ("same", 3, 40),
        ("slower", 0, 40),
        ("skipped", 0, 0),
        ("untried", 1, 40),
        ("new-and-good", 0, 40),
    ]);
    times(&mut new, "slower", |ms| ms * 3.0);
    // Later attempts of a made-up run take longer, and only those of this case pass.
    times(&mut new, "flakier", |ms| ms / 2.0);
    new.start.cases[8].skip = Some(fixture::skip(SkipKind::KernelMissing));
    compare(&base, &new)
}

#[test]
fn what_is_worse_is_found() {
    let found = eventful();
    assert_eq!(
        names(&found.new_failures),
        ["breaks", "breaks-more", "untried"]
    );
    assert_eq!(names(&found.flakier), ["flakier"]);
    assert_eq!(names(&found.maybe_flakier), ["perhaps"]);
    assert_eq!(names(&found.fixed), ["better", "luckier"]);
    assert_eq!(found.slower.len(), 1);
    assert_eq!(found.slower[0].case, "slower");
    let gone: Vec<(&str, &str)> = found
        .newly_skipped
        .iter()
        .map(|gone| (gone.case.as_str(), gone.reason.as_str()))
        .collect();
    assert_eq!(
        gone,
        [
            ("skipped", "this kernel has no SCTP"),
            ("gone", "it is not planned")
        ]
    );
    assert_eq!(found.added, ["untried", "new-and-good"]);
    assert_eq!(found.compared, 8);
    assert!(found.is_worse());
    insta::assert_snapshot!("text", found.text());
    insta::assert_snapshot!("markdown", found.markdown());
}

/// A machine that does something else makes everything slower, and is not the proxy's fault; what is slower beyond that is.
#[test]
fn the_pace_of_the_machine_is_no_proxys_fault() {
    let ids: Vec<String> = (0..30).map(|n| format!("case-{n}")).collect();
    let cases: Vec<(&str, usize, usize)> = ids.iter().map(|id| (id.as_str(), 0, 20)).collect();
    let base = run(&cases);
    let mut busy = run(&cases);
    for id in &ids {
        times(&mut busy, id, |ms| ms * 4.0);
    }
    let found = compare(&base, &busy);
    assert_eq!((found.pace, found.is_worse()), (4.0, false));
    assert!(
        found.text().contains("take 4.0 times as long"),
        "{}",
        found.text()
    );
    times(&mut busy, "case-7", |ms| ms * 3.0);
    let found = compare(&base, &busy);
    let slower: Vec<&str> = found
        .slower
        .iter()
        .map(|slower| slower.case.as_str())
        .collect();
    assert_eq!(slower, ["case-7"]);
    // A machine that is faster excuses nothing.
    let mut quick = run(&cases);
    for id in &ids {
        times(&mut quick, id, |ms| ms / 4.0);
    }
    times(&mut quick, "case-7", |ms| ms * 4.0 * 3.0);
    let found = compare(&base, &quick);
    assert_eq!((found.pace, found.slower.len()), (0.25, 1));
    // Of a handful of cases nobody knows whose the pace is.
    let few = run(&cases[..5]);
    let mut slow = run(&cases[..5]);
    for id in &ids[..5] {
        times(&mut slow, id, |ms| ms * 4.0);
    }
    assert_eq!(compare(&few, &slow).slower.len(), 5);
}

#[test]
fn each_kind_of_worse_is_enough() {
    let base = run(&[("a", 0, 40), ("b", 0, 40)]);
    assert!(!compare(&base, &base).is_worse());
    for (b, worse) in [((40, 40), true), ((20, 40), true), ((1, 40), false)] {
        let new = run(&[("a", 0, 40), ("b", b.0, b.1)]);
        assert_eq!(compare(&base, &new).is_worse(), worse, "{b:?}");
    }
    let gone = run(&[("a", 0, 40)]);
    assert!(compare(&base, &gone).is_worse());
    assert!(!compare(&gone, &base).is_worse());
    // Slower by much, by too little to matter, and in too few attempts to know.
    for (attempts, factor, worse) in [(40, 2.0, true), (40, 1.1, false), (7, 2.0, false)] {
        let base = run(&[("a", 0, attempts)]);
        let mut new = run(&[("a", 0, attempts)]);
        times(&mut new, "a", |ms| ms * factor);
        assert_eq!(
            compare(&base, &new).is_worse(),
            worse,
            "{attempts} x {factor}"
        );
    }
}

#[test]
fn an_incomplete_run_is_said_to_be_one() {
    let base = run(&[("a", 0, 40)]);
    let mut killed = run(&[("a", 0, 40)]);
    killed.end = None;
    let found = Comparison::of(&base.report(), &killed.report());
    assert!(!found.is_worse() && found.is_incomplete());
    assert!(
        found
            .text()
            .contains("the new run is incomplete: the log has no end"),
        "{}",
        found.text()
    );
    assert!(
        found.markdown().starts_with("# ⚠️ Nothing is worse"),
        "{}",
        found.markdown()
    );
}

#[test]
fn a_proxy_is_hardly_ever_worse_than_itself() {
    // 60 flaky cases in both runs, at the same true rate of 30 %: a test without correction would cry wolf every time.
    let mut state = 1_u64;
    let mut failures = || {
        let mut count = 0;
        for _ in 0..40 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            count += usize::from((state >> 33) % 10 < 3);
        }
        count
    };
    let ids: Vec<String> = (0..60).map(|n| format!("case-{n}")).collect();
    let mut sample = || -> Report {
        let cases: Vec<(&str, usize, usize)> =
            ids.iter().map(|id| (id.as_str(), failures(), 40)).collect();
        run(&cases).report()
    };
    let wrong = (0..40)
        .filter(|_| Comparison::of(&sample(), &sample()).is_worse())
        .count();
    // 2 of 40 are promised at most; more than 6 have a probability below 1 in 200.
    assert!(wrong <= 6, "{wrong} of 40");
}

#[test]
fn hostile_texts_are_harmless() {
    let report = fixture::hostile().report();
    let mut base = report.clone();
    for case in &mut base.cases {
        case.failure_rate = reports::model::Rate::new(0, 40);
    }
    let found = Comparison::of(&base, &report);
    assert!(found.is_worse());
    let acts = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}' || c == '\u{200b}');
    assert!(!found.text().contains(acts), "{}", found.text());
    let markdown = found.markdown();
    assert!(
        !markdown.contains("<script>") && !markdown.contains(HOSTILE),
        "{markdown}"
    );
}
