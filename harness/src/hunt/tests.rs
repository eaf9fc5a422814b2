//! Properties of generation: valid, rehearsable, the same again, and what it claims to cover.

use std::collections::BTreeSet;

use super::{
    claims, document,
    generate::{Generator, Settings},
};
use crate::{
    plan::Requirements,
    scenario::{Case, Feature, Level, Scenario, read_documents, rehearse},
};

/// Documents per level; `HARNESS_TEST_DOCUMENTS` takes its place for thousands of them (docs/hunting.md).
const DOCUMENTS: usize = 25;

fn case(text: &str) -> Case {
    let documents =
        read_documents("generated.yaml", text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    documents[0]
        .resolve(&documents[0].cases[0])
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn settings(level: Level, lacking: &[Feature]) -> Settings {
    Settings {
        level,
        lacking: lacking.iter().copied().collect(),
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn documents_hold(seed: u64, level: Level, lacking: &[Feature]) {
    let requirements = Requirements::embedded().unwrap();
    let mut generator = Generator::new(seed, settings(level, lacking));
    for _ in 0..number("HARNESS_TEST_DOCUMENTS", DOCUMENTS) {
        let generated = generator.generate();
        let case = case(&generated.text);
        assert_eq!(
            document::value(&case_without_variables(&generated.scenario, &case)),
            document::value(&case.scenario),
            "{}",
            generated.text
        );
        rehearse(&case).unwrap_or_else(|error| panic!("{error}\n{}", generated.text));
        claims::hold(&case).unwrap_or_else(|error| panic!("{error}\n{}", generated.text));
        for id in &case.scenario.requirement {
            let requirement = requirements.get(id).unwrap_or_else(|| panic!("{id}"));
            assert!(
                requirement.level <= level,
                "{id} in a document of level {level:?}"
            );
        }
        for feature in lacking {
            let used = &case.scenario.features;
            assert!(!used.contains(feature), "{feature:?}\n{}", generated.text);
        }
    }
    assert_eq!(generator.discarded(), &[] as &[String]);
}

#[test]
fn core_documents_are_read_and_rehearsed_and_what_was_meant() {
    documents_hold(1, Level::Core, &[]);
}

#[test]
fn extended_documents_are_read_and_rehearsed_and_what_was_meant() {
    documents_hold(2, Level::Extended, &[]);
}

#[test]
fn strict_documents_are_read_and_rehearsed_and_what_was_meant() {
    documents_hold(3, Level::Strict, &[]);
}

#[test]
fn documents_use_no_feature_that_is_missing() {
    use Feature as F;
    let all = [
        F::SessionAffinity,
        F::SourceRanges,
        F::TopologyHints,
        F::ExternalIps,
        F::LoadBalancer,
        F::TrafficPolicy,
        F::NetfilterRules,
    ];
    documents_hold(4, Level::Strict, &all);
}

/// The generated scenario with its variables replaced, as reading does.
fn case_without_variables(scenario: &Scenario, case: &Case) -> Scenario {
    let value = serde_json::to_value(scenario).unwrap();
    let value = crate::scenario::load::substitute_addresses(&case.plan, &value).unwrap();
    serde_json::from_value(value).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_documents_and_another_one_others() {
    let texts = |seed| -> Vec<String> {
        let mut generator = Generator::new(seed, Settings::up_to(Level::Extended));
        (0..12).map(|_| generator.generate().text).collect()
    };
    assert_eq!(texts(7), texts(7));
    let (one, other): (BTreeSet<String>, BTreeSet<String>) = (
        texts(7).into_iter().collect(),
        texts(8).into_iter().collect(),
    );
    assert_eq!(one.len(), 12);
    assert!(one.is_disjoint(&other));
}

#[test]
fn every_pair_comes_up() {
    // With few features and at the level with the fewest pairs; the dice are the same with all of them.
    use Feature as F;
    let lacking = [F::TrafficPolicy, F::LoadBalancer];
    let mut generator = Generator::new(11, settings(Level::Core, &lacking));
    let mut documents = 0;
    while generator.coverage().met() < generator.coverage().total() && documents < 500 {
        generator.generate();
        documents += 1;
    }
    let coverage = generator.coverage();
    assert_eq!(coverage.missing(), Vec::<String>::new());
    assert!(coverage.total() > 400, "{}", coverage.table(0));
    println!(
        "all {} pairs within {documents} documents",
        coverage.total()
    );
}

#[test]
fn loaded_dice_cover_more() {
    // The same number of documents, each thrown as if nothing had come up before it.
    let settings = Settings::up_to(Level::Extended);
    let documents = 30;
    let mut loaded = Generator::new(5, settings.clone());
    let mut fair = super::Coverage::new(&settings);
    for number in 0..documents {
        loaded.generate();
        let mut forgetful = Generator::new(5_000 + number, settings.clone());
        forgetful
            .generate()
            .events
            .iter()
            .for_each(|event| fair.add(event));
    }
    assert!(
        loaded.coverage().met() > fair.met(),
        "{} and {}",
        loaded.coverage().met(),
        fair.met()
    );
}

#[test]
fn histories_hold_what_makes_them_worth_running() {
    let mut generator = Generator::new(21, Settings::up_to(Level::Extended));
    let (mut judged, mut moves, mut faults) = (0, 0, 0);
    let documents = 40;
    for _ in 0..documents {
        let scenario = generator.generate().scenario;
        for step in &scenario.steps {
            let is = step.value.flow.as_ref().and_then(|flow| flow.is);
            judged += usize::from(is.is_some());
            moves += usize::from(is == Some(crate::scenario::doc::FlowExpect::Model));
            faults += usize::from(step.value.fault.is_some());
        }
    }
    assert!(judged > 2 * documents, "{judged} judgements of flows");
    assert!(moves > documents / 3, "{moves} flows that have to move");
    assert!(faults > documents / 2, "{faults} faults");
}

/// Documents of which a step is missing: what is asserted of a flow without its reason is noticed.
#[test]
fn what_no_rule_demands_is_noticed() {
    let head = "
id: x
title: X
requirement: [CP-11]
level: extended
topology:
  pods:
    - {name: a-1, node: node1, labels: {app: a}}
    - {name: a-2, node: node2, labels: {app: a}}
    - {name: b-1, node: node2, labels: {app: b}}
    - {name: client-1, node: node1}
objects:
  - apiVersion: v1
    kind: Service
    metadata: {name: red}
    spec: {selector: {app: a}, ports: [{name: dns, port: 53, targetPort: 8080, protocol: UDP}, {name: web, port: 80, targetPort: 8080}]}
steps:
";
    let udp = "  - flow: {start: f, kind: udpUnconnected, from: client-1, to: {service: red, port: dns}}\n";
    let tcp =
        "  - flow: {start: f, kind: tcpStream, from: client-1, to: {service: red, port: web}}\n";
    let new = "  - flow: {start: f, kind: newConnections, from: client-1, to: {service: red, port: web}}\n";
    let converge = "  - converge: {}\n";
    let moves = "  - flow: {expect: f, is: model}\n";
    let unbroken = "  - flow: {expect: f, is: unbroken}\n";
    let no_loss = "  - flow: {expect: f, is: noLoss}\n";
    let both_go = "  - patch: {kind: Service, name: red, patch: {spec: {selector: {app: b}}}}\n";
    let one_goes = "  - pod: {name: a-1, action: stop}\n";
    let local =
        "  - patch: {kind: Service, name: red, patch: {spec: {internalTrafficPolicy: Local}}}\n";
    let terminates = "  - pod: {name: a-1, action: terminate}\n";
    let restart = "  - fault: {proxy: restart}\n";
    let nobody_listens = "  - patch: {kind: Service, name: red, patch: {spec: {ports: [{name: web, port: 80, targetPort: 81}]}}}\n";
    let deleted = "  - delete: {kind: Service, name: red}\n";
    for (steps, demanded) in [
        (vec![converge, udp, both_go, converge, moves], true),
        (vec![converge, udp, both_go, moves], false),
        (vec![converge, udp, one_goes, converge, moves], true),
        (vec![converge, udp, one_goes, converge, unbroken], false),
        (vec![converge, udp, unbroken], true),
        (vec![udp, unbroken], false),
        (vec![converge, udp, local, converge, moves], false),
        (vec![converge, udp, terminates, converge, moves], false),
        (vec![converge, udp, restart, converge, unbroken], false),
        (vec![converge, udp, restart, both_go, converge, moves], true),
        (vec![converge, tcp, restart, converge, unbroken], true),
        (vec![converge, tcp, terminates, converge, unbroken], true),
        (vec![converge, tcp, local, converge, unbroken], true),
        (vec![converge, tcp, one_goes, converge, unbroken], false),
        (vec![converge, tcp, deleted, unbroken], false),
        (vec![converge, new, both_go, converge, no_loss], true),
        (vec![converge, new, one_goes, converge, no_loss], false),
        (vec![converge, new, restart, converge, no_loss], false),
        (vec![new, converge, no_loss], false),
        (vec![nobody_listens, converge], false),
    ] {
        let text = format!("{head}{}", steps.concat());
        assert_eq!(
            claims::hold(&case(&text)).is_ok(),
            demanded,
            "{}",
            steps.concat()
        );
    }
}
