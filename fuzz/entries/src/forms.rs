//! A report in all of its forms, and what holds of every report, whatever log it comes from.

use std::collections::BTreeSet;

use reports::compare::Comparison;
use reports::evidence::Evidence;
use reports::gate::{Gate, Rules};
use reports::{Report, badge, github, html, json, junit, markdown, tap};

/// Renders a report in every way and checks what has to hold.
pub fn check(report: &Report) {
    no_false_green(report);
    let written = json::render(report);
    let read = json::parse(&written).expect("a report that was written can be read");
    assert_eq!(json::render(&read), written, "reading changes a report");

    let xml = junit::render(report);
    quick_junit::Report::deserialize_from_str(&xml).expect("the JUnit file is one");
    inert(&xml, "junit.xml");
    let page = markdown::render(report);
    assert!(page.len() <= markdown::MAX_BYTES, "{} bytes", page.len());
    inert(&page, "report.md");
    inert(&html::render(report, &Evidence::new()), "report.html");
    inert(&badge::render(report), "badge.svg");
    inert(&tap::render(report), "report.tap");
    inert(&github::annotations(report), "annotations");

    let same = Comparison::of(report, report);
    assert!(!same.is_worse(), "a run is worse than itself");
    inert(&same.text(), "compare");
    inert(&same.markdown(), "compare in Markdown");

    for baseline in [None, Some(report)] {
        let rules = Rules {
            baseline,
            required: BTreeSet::from(["required[ipv4]".to_owned()]),
            min_cases: 0,
            skip_budget: 0,
            flake_budget: 0,
        };
        let gate = Gate::of(report, &rules);
        let ran = report.cases.iter().any(|case| case.id == "required[ipv4]");
        assert!(gate.exit_code != 0 || ran, "what is required is not there");
        let believed = !report.options.canaries.is_empty() && report.problems.is_empty();
        assert!(
            gate.exit_code != 0 || believed,
            "nothing shows that it tests"
        );
        inert(&gate.text(), "gate");
        inert(&gate.markdown(), "gate in Markdown");
    }
}

/// A log can claim what it likes: nothing but attempts that passed makes a run conformant.
fn no_false_green(report: &Report) {
    let totals = &report.totals;
    if report.exit_code(report.options.flake_budget) == 0 {
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        assert_eq!(totals.cases.fail, 0, "a case fails");
        assert_eq!(totals.cases.infra, 0, "the machine got in the way");
        assert!(totals.cases.flaky <= u64::from(report.options.flake_budget));
        assert!(totals.attempts.pass > 0 || report.options.shard.is_some());
    }
}

/// Nothing in it acts in a terminal.
fn inert(text: &str, what: &str) {
    let acts = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if let Some(c) = text.chars().find(|c| acts(*c)) {
        panic!("{c:?} is in {what}");
    }
}
