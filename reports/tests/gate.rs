//! The gate: what opens it, what closes it, and with which exit code.

mod fixture;

use std::collections::{BTreeMap, BTreeSet};

use fixture::{HOSTILE, Run, skip, waiver};
use jiff::civil::date;
use reports::Report;
use reports::event::{CanaryOutcome, EventBody, FinishReason, SkipKind, Verdict};
use reports::gate::{Gate, GateVerdict, Rule, Rules};
use reports::waiver::{self, Known, Waiver, WaiverState};

use GateVerdict::{Closed, Flaky, Infra, Open, TooFew};
use Verdict::{Fail, Pass};

const TODAY: jiff::civil::Date = date(2026, 11, 22);

/// A run of these cases with these verdicts, whole.
fn run(cases: &[(&str, &[Verdict])]) -> Run {
    let runs = cases.iter().map(|(_, verdicts)| verdicts.len()).max();
    let mut run = Run::new(runs.unwrap_or(1) as u32);
    for (id, verdicts) in cases {
        run.case(id, &["SVC-1"], verdicts);
    }
    run
}

fn rules() -> Rules<'static> {
    Rules {
        baseline: None,
        required: BTreeSet::new(),
        min_cases: 1,
        skip_budget: 0,
        flake_budget: 0,
    }
}

/// The rules that found something, with the cases.
fn found(gate: &Gate) -> Vec<(Rule, Option<&str>)> {
    let findings = gate.findings.iter();
    findings.map(|f| (f.rule, f.case.as_deref())).collect()
}

fn waived(mut report: Report, waivers: &[Waiver]) -> Report {
    let known = Known {
        cases: report.cases.iter().map(|case| case.id.clone()).collect(),
        requirements: report.requirements.iter().map(|r| r.id.clone()).collect(),
    };
    report.waivers = waiver::apply(waivers, &mut report.cases, TODAY, Some(&known));
    report
}

#[test]
fn without_a_baseline_everything_has_to_pass() {
    for (cases, verdict, exit, rules_found) in [
        (&[("a", &[Pass][..]), ("b", &[Pass])][..], Open, 0, &[][..]),
        (
            &[("a", &[Pass]), ("b", &[Fail])],
            Closed,
            1,
            &[(Rule::Failure, Some("b"))],
        ),
        (
            &[("a", &[Pass, Fail])],
            Flaky,
            3,
            &[(Rule::Flaky, Some("a"))],
        ),
        (
            &[("a", &[Pass, Fail]), ("b", &[Fail, Fail])],
            Closed,
            1,
            &[(Rule::Failure, Some("b")), (Rule::Flaky, Some("a"))],
        ),
        (
            &[("a", &[Pass]), ("b", &[Verdict::Infra])],
            Infra,
            4,
            &[(Rule::Incomplete, Some("b"))],
        ),
        (
            &[("a", &[Pass]), ("b", &[Verdict::Skip])],
            TooFew,
            5,
            &[(Rule::SkipBudget, None)],
        ),
        (&[], TooFew, 5, &[(Rule::MinCases, None)]),
    ] {
        let gate = Gate::of(&run(cases).report(), &rules());
        assert_eq!((gate.verdict, gate.exit_code), (verdict, exit), "{cases:?}");
        assert_eq!(found(&gate), rules_found, "{cases:?}");
    }
}

/// Every way to be green without having shown anything.
#[test]
fn green_is_not_enough() {
    let green = || run(&[("a", &[Pass]), ("b", &[Pass])]);
    let with = |change: &dyn Fn(&mut Run)| {
        let mut run = green();
        change(&mut run);
        Gate::of(&run.report(), &rules())
    };
    assert_eq!(Gate::of(&green().report(), &rules()).verdict, Open);
    for (what, gate, verdict, rule) in [
        (
            "no canaries",
            with(&|run| run.start.options.canaries.clear()),
            Infra,
            Rule::Canary,
        ),
        (
            "killed",
            with(&|run| run.end = None),
            Infra,
            Rule::Incomplete,
        ),
        (
            "interrupted",
            with(&|run| run.end = Some(FinishReason::Interrupted)),
            Infra,
            Rule::Incomplete,
        ),
        (
            "planned and not run",
            with(&|run| {
                run.plan("c", &["SVC-1"]);
            }),
            Infra,
            Rule::Incomplete,
        ),
        (
            "a shard",
            with(&|run| run.start.options.shard = Some("1/2".parse().unwrap())),
            Infra,
            Rule::Incomplete,
        ),
        (
            "skipped",
            with(&|run| {
                run.plan("c", &["SVC-1"]).skip = Some(skip(SkipKind::CandidateUnsupported));
            }),
            TooFew,
            Rule::SkipBudget,
        ),
    ] {
        assert_eq!(gate.verdict, verdict, "{what}: {:?}", gate.findings);
        let found = gate.findings.iter().any(|finding| finding.rule == rule);
        assert!(found, "{what}: {:?}", gate.findings);
    }
    // Whoever asks for no case gets no answer out of none.
    let nothing = Rules {
        min_cases: 0,
        skip_budget: 9,
        ..rules()
    };
    let skipped = run(&[("a", &[Verdict::Skip])]).report();
    assert_eq!(Gate::of(&skipped, &nothing).verdict, TooFew);
    let few = Rules {
        min_cases: 3,
        ..rules()
    };
    assert_eq!(Gate::of(&green().report(), &few).exit_code, 5);
}

#[test]
fn a_run_whose_canary_sings_is_no_basis() {
    let outcomes = |outcomes: &[(&str, CanaryOutcome)]| {
        let mut run = run(&[("a", &[Pass])]);
        run.start.options.canaries = vec!["null".into(), "canary".into()];
        let mut events = run.events();
        let wanted: BTreeMap<&str, CanaryOutcome> = outcomes.iter().copied().collect();
        events.retain_mut(|event| match &mut event.body {
            EventBody::CanaryFinished(canary) => match wanted.get(canary.canary.as_str()) {
                Some(outcome) => {
                    canary.outcome = *outcome;
                    true
                }
                None => false,
            },
            _ => true,
        });
        for (seq, event) in (0..).zip(&mut events) {
            event.seq = seq;
        }
        Report::from_events(events).unwrap()
    };
    use CanaryOutcome::{Caught, Missed, Unclear};
    for (made, conclusion, words) in [
        (
            &[("null", Caught), ("canary", Caught)][..],
            "conformant",
            "",
        ),
        (
            &[("null", Missed), ("canary", Caught)],
            "infra",
            "was not noticed",
        ),
        (
            &[("null", Caught), ("canary", Unclear)],
            "infra",
            "could not be tried",
        ),
        (
            &[("null", Caught)],
            "infra",
            "the canary canary of the run was not tried",
        ),
        (&[], "infra", "was not tried"),
    ] {
        let report = outcomes(made);
        let says = serde_json::to_value(report.conclusion).unwrap();
        assert_eq!(says, conclusion, "{made:?}");
        assert_eq!(report.exit_code, if words.is_empty() { 0 } else { 4 });
        assert!(
            report.problems.join("\n").contains(words),
            "{:?}",
            report.problems
        );
        let gate = Gate::of(&report, &rules());
        assert_eq!(gate.exit_code, report.exit_code, "{made:?}");
    }
}

#[test]
fn only_what_is_worse_than_the_baseline_closes_the_gate() {
    let twenty = |failed: usize| -> Vec<Verdict> {
        (0..20)
            .map(|n| if n < failed { Fail } else { Pass })
            .collect()
    };
    for (before, now, verdict, rules_found) in [
        (0, 0, Open, &[][..]),
        (20, 20, Open, &[]),
        (20, 0, Open, &[]),
        (1, 1, Open, &[]),
        (1, 3, Open, &[]),
        // A flake that was not there before counts against the budget, whatever chance says.
        (0, 1, Flaky, &[(Rule::Flaky, Some("a"))]),
        (1, 15, Closed, &[(Rule::Flakier, Some("a"))]),
        (1, 20, Closed, &[(Rule::Failure, Some("a"))]),
        (0, 20, Closed, &[(Rule::Failure, Some("a"))]),
    ] {
        let base = run(&[("a", &twenty(before))]).report();
        let mut new = run(&[("a", &twenty(now))]);
        new.start.run_id = "run-2".into();
        let rules = Rules {
            baseline: Some(&base),
            ..rules()
        };
        let gate = Gate::of(&new.report(), &rules);
        assert_eq!(
            gate.verdict, verdict,
            "{before} -> {now}: {:?}",
            gate.findings
        );
        assert_eq!(found(&gate), rules_found, "{before} -> {now}");
        // Whatever fails and does not close it is named.
        let named = !gate.findings.is_empty() || !gate.tolerated.is_empty();
        assert_eq!(named, now > 0, "{before} -> {now}");
    }
}

#[test]
fn a_known_flake_that_fails_the_only_attempt_is_no_news() {
    let mut base = vec![Pass; 20];
    base[3] = Fail;
    let base = run(&[("a", &base)]).report();
    let rules = Rules {
        baseline: Some(&base),
        ..rules()
    };
    let gate = Gate::of(&run(&[("a", &[Fail])]).report(), &rules);
    assert_eq!(gate.verdict, Open, "{:?}", gate.findings);
    assert_eq!(gate.tolerated[0].why, "failed 1 of 20 in the baseline");
}

/// A claim that is refuted is beyond every flake budget, here as in the run's own conclusion.
#[test]
fn a_refuted_claim_is_no_tolerable_flake() {
    let mut verdicts = vec![Pass; 20];
    verdicts[..8].fill(Fail);
    let mut flaky = run(&[("a", &verdicts)]);
    let budget = Rules {
        flake_budget: 1,
        ..rules()
    };
    assert_eq!(Gate::of(&flaky.report(), &budget).verdict, Open);
    flaky.start.options.until_confidence = Some("rate<1% @95%".parse().unwrap());
    let refuted = Gate::of(&flaky.report(), &budget);
    assert_eq!(refuted.verdict, Flaky, "{:?}", refuted.findings);
}

/// What the machine got in the way of is no fault of the candidate, whatever the baseline has.
#[test]
fn infra_is_no_failure_against_a_baseline() {
    let base = run(&[("a", &[Pass]), ("b", &[Pass])]).report();
    let rules = Rules {
        baseline: Some(&base),
        ..rules()
    };
    let gate = Gate::of(
        &run(&[("a", &[Pass]), ("b", &[Verdict::Infra])]).report(),
        &rules,
    );
    assert_eq!(gate.verdict, Infra, "{:?}", gate.findings);
}

#[test]
fn what_is_not_tried_any_more_closes_the_gate() {
    let base = run(&[("a", &[Pass]), ("b", &[Pass])]).report();
    let rules = Rules {
        baseline: Some(&base),
        ..rules()
    };
    let gate = Gate::of(&run(&[("a", &[Pass])]).report(), &rules);
    assert_eq!(found(&gate), [(Rule::NotTried, Some("b"))]);
    assert_eq!(gate.verdict, Closed);
    let broken = Report {
        problems: vec!["the log has holes".into()],
        ..base.clone()
    };
    let rules = Rules {
        baseline: Some(&broken),
        ..rules
    };
    let gate = Gate::of(&run(&[("a", &[Pass]), ("b", &[Pass])]).report(), &rules);
    assert_eq!(gate.verdict, Infra);
}

#[test]
fn required_cases_have_to_pass_whatever_the_baseline_says() {
    let cases: &[(&str, &[Verdict])] = &[
        ("passes", &[Pass, Pass]),
        ("fails", &[Fail, Fail]),
        ("flaky", &[Pass, Fail]),
        ("skipped", &[Verdict::Skip, Verdict::Skip]),
    ];
    let base = run(cases).report();
    for (required, verdict) in [
        ("passes", Open),
        ("fails", Closed),
        ("flaky", Flaky),
        ("skipped", Closed),
        ("unheard-of", Closed),
    ] {
        let rules = Rules {
            baseline: Some(&base),
            required: BTreeSet::from([required.to_owned()]),
            skip_budget: 1,
            ..rules()
        };
        let gate = Gate::of(&run(cases).report(), &rules);
        assert_eq!(gate.verdict, verdict, "{required}: {:?}", gate.findings);
        match verdict {
            Open => assert!(gate.findings.is_empty()),
            _ => assert_eq!(found(&gate), [(Rule::Required, Some(required))]),
        }
    }
}

#[test]
fn waivers_let_failures_in_and_close_the_gate_when_they_are_out_of_order() {
    let cases: &[(&str, &[Verdict])] = &[("a", &[Fail]), ("b", &[Pass])];
    let rule = |requirement: &str| Waiver {
        case: None,
        requirement: Some(requirement.into()),
        ..waiver("", 2026)
    };
    let sometimes = |waiver: Waiver| Waiver {
        may_pass: true,
        ..waiver
    };
    use WaiverState::{Expired, Quiet, Unknown, Unneeded, Used};
    for (waivers, states, verdict) in [
        (vec![], &[][..], Closed),
        (vec![waiver("a", 2026)], &[Used], Open),
        (vec![rule("SVC-1")], &[Used], Open),
        // The failure violates SVC-1 and nothing else.
        (vec![rule("SVC-2")], &[WaiverState::Untried], Closed),
        (vec![waiver("a", 2025)], &[Expired], Closed),
        (
            vec![waiver("a", 2026), waiver("b", 2026)],
            &[Used, Unneeded],
            Closed,
        ),
        (
            vec![waiver("a", 2026), sometimes(waiver("b", 2026))],
            &[Used, Quiet],
            Open,
        ),
        (
            vec![waiver("a", 2026), waiver("c", 2026)],
            &[Used, Unknown],
            Closed,
        ),
        (
            vec![waiver("a", 2026), rule("SVC-9")],
            &[Used, Unknown],
            Closed,
        ),
        // One that is valid is enough; the other one has to go.
        (
            vec![waiver("a", 2025), rule("SVC-1")],
            &[Expired, Used],
            Closed,
        ),
    ] {
        let report = waived(run(cases).report(), &waivers);
        let found: Vec<WaiverState> = report.waivers.iter().map(|w| w.state).collect();
        assert_eq!(found, states, "{waivers:?}");
        let gate = Gate::of(&report, &rules());
        assert_eq!(gate.verdict, verdict, "{waivers:?}: {:?}", gate.findings);
        // The verdict of the case stays, and so does that of the run.
        assert_eq!(report.exit_code, 1);
        let tolerated = gate.tolerated.iter().any(|case| case.case == "a");
        assert_eq!(tolerated, states.contains(&Used), "{waivers:?}");
    }
}

#[test]
fn a_waiver_of_one_rule_does_not_cover_a_failure_of_two() {
    let mut run = run(&[("a", &[Fail])]);
    run.last_failure().requirements = vec!["SVC-1".into(), "NP-1".into()];
    let rule = |id: &str| Waiver {
        case: None,
        requirement: Some(id.into()),
        ..waiver("", 2026)
    };
    let one = waived(run.report(), &[rule("SVC-1")]);
    assert_eq!(Gate::of(&one, &rules()).verdict, Closed);
    let both = waived(run.report(), &[rule("SVC-1"), rule("NP-1")]);
    assert_eq!(Gate::of(&both, &rules()).verdict, Open);
    // A failure that blames nothing in particular blames all that the case is about.
    run.last_failure().requirements.clear();
    let vague = waived(run.report(), &[rule("SVC-1")]);
    assert_eq!(Gate::of(&vague, &rules()).verdict, Open);
}

/// A gate with everything that it can show.
fn eventful() -> Gate {
    let twenty = |failed: usize| -> Vec<Verdict> {
        (0..20)
            .map(|n| if n < failed { Fail } else { Pass })
            .collect()
    };
    let base = run(&[
        ("gone", &twenty(0)),
        ("old", &twenty(20)),
        ("worse", &twenty(1)),
    ]);
    let mut new = run(&[
        ("old", &twenty(20)),
        ("worse", &twenty(15)),
        ("new", &twenty(20)),
        ("waived", &twenty(20)),
        ("flaky", &twenty(1)),
    ]);
    new.start.run_id = "run-2".into();
    let report = waived(
        new.report(),
        &[waiver("waived", 2026), waiver("flaky", 2025)],
    );
    let rules = Rules {
        baseline: Some(&base.report()),
        required: BTreeSet::from(["unheard-of".into()]),
        min_cases: 9,
        ..rules()
    };
    Gate::of(&report, &rules)
}

#[test]
fn what_people_read() {
    let gate = eventful();
    insta::assert_snapshot!("gate.txt", gate.text());
    insta::assert_snapshot!("gate.md", gate.markdown());
    let json = serde_json::to_value(&gate).unwrap();
    assert_eq!(json["verdict"], "closed");
    assert_eq!(serde_json::from_value::<Gate>(json).unwrap(), gate);
}

#[test]
fn nothing_that_a_log_says_acts() {
    let report = fixture::hostile().report();
    let gate = Gate::of(&report, &rules());
    for text in [gate.text(), gate.markdown()] {
        assert!(
            !text.contains('\u{1b}') && !text.contains('\u{202e}'),
            "{text:?}"
        );
    }
    assert!(!gate.markdown().contains("<script>"));
    assert!(HOSTILE.contains("<script>"));
}
