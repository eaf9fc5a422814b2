//! Workflow commands and summaries for GitHub Actions.

mod fixture;

use fixture::{Run, hostile};
use reports::event::{FinishReason, Verdict};
use reports::github::{MAX_SUMMARY, annotations, summary};
use reports::markdown;

use Verdict::{Fail, Infra, Pass};

/// The commands as the runner reads them: name, title, message.
fn read(text: &str) -> Vec<(String, String, String)> {
    let decoded = |text: &str| {
        text.replace("%0D", "\r")
            .replace("%0A", "\n")
            .replace("%25", "%")
    };
    text.lines()
        .map(|line| {
            let rest = line
                .strip_prefix("::")
                .unwrap_or_else(|| panic!("no command: {line:?}"));
            let (head, message) = rest.split_once("::").unwrap();
            let (name, title) = head.split_once(" title=").unwrap();
            let title = title.replace("%3A", ":").replace("%2C", ",");
            assert!(
                !head.split_once('=').unwrap().1.contains([':', ',']),
                "{line:?}"
            );
            (name.to_owned(), decoded(&title), decoded(message))
        })
        .collect()
}

#[test]
fn a_run_in_which_all_is_well_says_nothing() {
    let mut run = Run::new(2);
    run.case("one[ipv4]", &["SVC-1"], &[Pass; 2]);
    assert_eq!(annotations(&run.report()), "");
}

#[test]
fn failures_are_errors_by_cause_and_trouble_is_a_warning() {
    let mut run = Run::new(2);
    run.case("broken[ipv4]", &["SVC-1"], &[Fail; 2]);
    run.case("broken[ipv6]", &["SVC-1"], &[Fail; 2]);
    run.case("flaky[ipv4]", &["SVC-2"], &[Pass, Fail]);
    run.last_failure().kind = "timed-out".into();
    run.last_failure().message = "50 %, then\nnothing".into();
    run.case("slow[ipv4]", &["NP-1"], &[Infra; 2]);
    run.end = Some(FinishReason::Interrupted);
    let told = read(&annotations(&run.report()));
    let brief: Vec<(&str, &str)> = told
        .iter()
        .map(|(name, title, _)| (name.as_str(), title.as_str()))
        .collect();
    assert_eq!(
        brief,
        [
            ("error", "fails: broken[ipv4] and 1 more case"),
            ("error", "flaky: flaky[ipv4]"),
            ("warning", "the run is incomplete"),
            (
                "warning",
                "trouble with the machine or the harness in 2 attempts"
            ),
        ]
    );
    assert!(
        told[0]
            .2
            .starts_with("pod client was refused by clusterIP 10.96.0.10:80\n2 of 2"),
        "{told:?}"
    );
    assert!(
        told[1].2.starts_with("50 %, then\nnothing\n1 of 2: 50 %"),
        "{told:?}"
    );
    assert!(
        told[1].2.ends_with("\nevidence: cases/flaky[ipv4]/2"),
        "{told:?}"
    );
    assert_eq!(told[3].2, "a world could not be built");
}

#[test]
fn a_flake_within_the_budget_is_a_warning() {
    let mut run = Run::new(2);
    run.start.options.flake_budget = 1;
    run.case("flaky[ipv4]", &["SVC-2"], &[Pass, Fail]);
    let told = read(&annotations(&run.report()));
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].0.as_str(), told[0].1.as_str()),
        ("warning", "flaky, within the budget: flaky[ipv4]")
    );
}

#[test]
fn a_waived_failure_is_a_warning_with_its_reason() {
    let mut run = Run::new(1);
    run.case("broken[ipv4]", &["SVC-1"], &[Fail]);
    run.start.waivers = vec![fixture::waiver("broken[ipv4]", 2027)];
    let told = read(&annotations(&run.report()));
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].0.as_str(), told[0].1.as_str()),
        ("warning", "waived: broken[ipv4]")
    );
    assert!(
        told[0].2.ends_with("@somebody, until 2027-12-31)"),
        "{told:?}"
    );
}

#[test]
fn what_is_beyond_the_limit_is_counted() {
    let mut run = Run::new(2);
    for n in 0..25 {
        run.case(&format!("broken-{n}[ipv4]"), &["SVC-1"], &[Fail; 2]);
        let kind = format!("kind-{}", (b'a' + n) as char);
        run.last_failure().kind.clone_from(&kind);
        let failed = run.body.iter_mut().rev().filter_map(|body| match body {
            reports::event::EventBody::AttemptFinished(finished) => Some(finished),
            _ => None,
        });
        failed
            .take(2)
            .for_each(|finished| finished.failures[0].kind.clone_from(&kind));
    }
    for n in 0..12 {
        run.case(&format!("infra-{n}[ipv4]"), &["SVC-1"], &[Infra, Infra]);
        let reason = format!(
            "the {} is gone",
            [
                "disk", "cable", "power", "cat", "fan", "clock", "key", "door", "roof", "floor",
                "wall", "lamp"
            ][n]
        );
        let infra = run.body.iter_mut().rev().filter_map(|body| match body {
            reports::event::EventBody::AttemptFinished(finished) => Some(finished),
            _ => None,
        });
        infra
            .take(2)
            .for_each(|finished| finished.infra = Some(reason.clone()));
    }
    let told = read(&annotations(&run.report()));
    let count = |wanted: &str| told.iter().filter(|(name, _, _)| name == wanted).count();
    assert_eq!(
        (count("error"), count("warning"), count("notice")),
        (10, 10, 1)
    );
    assert_eq!(
        told.last().unwrap().2,
        "15 more failures and 2 more warnings are not annotated, because GitHub shows ten of each; report.md has them all"
    );
}

#[test]
fn hostile_texts_break_out_of_no_command() {
    let text = annotations(&hostile().report());
    assert!(text.contains("evil.example"));
    let told = read(&text);
    assert!(
        told.iter()
            .all(|(name, _, _)| ["error", "warning", "notice"].contains(&name.as_str()))
    );
    for c in text.chars() {
        assert!(
            c == '\n' || c == '\t' || !c.is_control(),
            "{c:?} is in a command"
        );
    }
}

#[test]
fn a_summary_is_cut_with_a_sentence() {
    let mut run = Run::new(1);
    for n in 0..300 {
        run.case(&format!("broken-{n}[ipv4]"), &["SVC-1"], &[Fail]);
    }
    let page = markdown::render(&run.report());
    assert_eq!(summary(&page, 0), page);
    assert_eq!(summary(&page, MAX_SUMMARY - page.len()), page);
    // Around every kind of place; all of them would take minutes on a busy machine.
    for room in (0..page.len()).step_by(61) {
        let cut = summary(&page, MAX_SUMMARY - room);
        assert!(cut.len() <= room, "{} bytes in {room}", cut.len());
        if cut.is_empty() {
            assert!(room < 300, "nothing of {room}");
            continue;
        }
        assert!(cut.ends_with("`report.md` in the result directory has all of it._\n"));
        let folded = |tag: &str| cut.matches(tag).count();
        assert_eq!(folded("<details>"), folded("</details>"), "{cut}");
    }
    assert_eq!(summary(&page, 2 * MAX_SUMMARY), "");
}
