//! Scenario documents that are broken: exit code 2, and a message with file, line and what was expected.

use std::fmt::Write as _;

use crate::support::{directory, run, write};

const GOOD: &str = "\
id: broken
title: A document that is broken in one place
requirement: [SVC-CIP-1]
topology:
  pods:
    - {name: web, node: node1, labels: {app: web}}
    - {name: client, node: node1}
matrix:
  protocol: [TCP]
objects:
  - apiVersion: v1
    kind: Service
    metadata: {name: web}
    spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
steps:
  - probe: {from: client, to: {service: web}, expect: model}
";

/// What is changed in the good document, and what the change is.
const BREAKS: &[(&str, &str, &str)] = &[
    ("an unknown field", "steps:", "steppes:"),
    ("an unknown field of a verb", "from: client", "form: client"),
    ("not YAML", "topology:", "topology: ["),
    ("a key twice", "matrix:", "title: again\nmatrix:"),
    ("an id that is none", "id: broken", "id: Broken Case"),
    ("no requirement", "[SVC-CIP-1]", "[]"),
    ("an unknown requirement", "SVC-CIP-1", "SVC-CIP-999"),
    ("an axis without values", "[TCP]", "[]"),
    (
        "an axis that is not there",
        "steps:",
        "exclude: [{family: ipv4}]\nsteps:",
    ),
    (
        "a pod on an unknown node",
        "name: client, node: node1",
        "name: client, node: node9",
    ),
    ("a pod twice", "name: client, node", "name: web, node"),
    (
        "an unknown variable",
        "app: web}, ports",
        "app: $(pod.wab.ip)}, ports",
    ),
    (
        "a variable without end",
        "app: web}, ports",
        "app: $(protocol}, ports",
    ),
    (
        "an object that the API refuses",
        "port: 80,",
        "port: 80000,",
    ),
    (
        "an object of an unknown kind",
        "kind: Service",
        "kind: Servise",
    ),
    ("an unknown source", "from: client", "from: clint"),
    ("an unknown Service", "service: web", "service: wob"),
    (
        "an unknown pod in an outcome",
        "expect: model",
        "expect: {endpoints: [wob]}",
    ),
    (
        "an outcome that the oracle does not share",
        "expect: model",
        "expect: refused",
    ),
    (
        "a pod that comes back",
        "  - probe:",
        "  - pod: {name: web, action: stop}\n  - pod: {name: web, action: start}\n  - probe:",
    ),
    (
        "two verbs in a step",
        "  - probe:",
        "  - converge: {}\n    probe:",
    ),
    (
        "no verb in a step",
        "  - probe:",
        "  - name: nothing\n  - probe:",
    ),
    (
        "a duration that is none",
        "  - probe:",
        "  - converge: {deadline: soon}\n  - probe:",
    ),
    (
        "a flow that was not started",
        "  - probe:",
        "  - flow: {stop: stream, is: unbroken}\n  - probe:",
    ),
    (
        "nothing is asserted",
        "probe: {from: client, to: {service: web}, expect: model}",
        "pod: {name: web, action: unready}",
    ),
    (
        "a proxy started that was not ended",
        "probe: {from: client, to: {service: web}, expect: model}",
        "fault: {proxy: start}",
    ),
    (
        "a proxy started on a node where it runs",
        "probe: {from: client, to: {service: web}, expect: model}",
        "fault: {proxy: down, on: node1}\n  - fault: {proxy: start}",
    ),
    (
        "a proxy continued that was not stopped",
        "probe: {from: client, to: {service: web}, expect: model}",
        "fault: {proxy: continue}",
    ),
    (
        "a fault of dose 0",
        "probe: {from: client, to: {service: web}, expect: model}",
        "fault: {node: conntrackPressure, entries: 0}",
    ),
    (
        "a dose that would press others",
        "probe: {from: client, to: {service: web}, expect: model}",
        "fault: {node: conntrackPressure, entries: 1000000}",
    ),
    (
        "ports of which nobody misses one",
        "probe: {from: client, to: {service: web}, expect: model}",
        "fault: {node: exhaustPorts, free: 128}",
    ),
    (
        "a starved proxy that gets all of the CPU",
        "probe: {from: client, to: {service: web}, expect: model}",
        "fault: {proxy: starve, cpu: 100}",
    ),
    (
        "a dose of another fault",
        "probe: {from: client, to: {service: web}, expect: model}",
        "fault: {node: linkChurn, entries: 10}",
    ),
    (
        "an API server that does not come back",
        "  - probe:",
        "  - fault: {api: restart}\n  - probe:",
    ),
    (
        "a starvation without an end",
        "  - probe:",
        "  - fault: {proxy: starve}\n  - probe:",
    ),
    (
        "a cleanup beside a proxy that runs",
        "probe: {from: client, to: {service: web}, expect: model}",
        "fault: {proxy: down, on: node1}\n  - fault: {proxy: cleanup}",
    ),
    (
        "tables given back that nobody took",
        "probe: {from: client, to: {service: web}, expect: model}",
        "fault: {node: seizeTables, end: true}",
    ),
    (
        "a node's new address that is missing",
        "probe: {from: client, to: {service: web}, expect: model}",
        "fault: {node: networkAddress, on: node1}",
    ),
    (
        "a loopback packet from no neighbour",
        "probe: {from: client, to: {service: web}, expect: model}",
        "inject: {packet: loopbackFromNeighbour, from: client, node: node1, port: 80}",
    ),
    (
        "a loopback packet to nowhere",
        "probe: {from: client, to: {service: web}, expect: model}",
        "inject: {packet: loopbackFromNeighbour, from: client}",
    ),
    (
        "a health check of two things",
        "probe: {from: client, to: {service: web}, expect: model}",
        "state: {http: {node: node1, port: 10256, proxy: true, status: 200}}",
    ),
    (
        "a health check that expects nothing",
        "probe: {from: client, to: {service: web}, expect: model}",
        "state: {http: {node: node1, port: 10256}}",
    ),
    (
        "the candidate's own health without the feature",
        "probe: {from: client, to: {service: web}, expect: model}",
        "state: {http: {node: node1, proxy: true, path: /healthz, status: 200}}",
    ),
    (
        "a condition on no axis",
        "  - probe:",
        "  - when: {family: ipv4}\n    probe:",
    ),
];

#[test]
fn the_good_document_is_good() {
    let directory = directory();
    write(directory.path(), "good.yaml", GOOD);
    // An unreadable manifest is found after the documents were read, before anything runs.
    run(
        directory.path(),
        &["run", "good.yaml", "--candidate", "absent.yaml"],
    )
    .exits(2)
    .says("absent.yaml: cannot be read");
}

#[test]
fn broken_documents_are_pointed_at() {
    let directory = directory();
    let mut messages = String::new();
    for (what, from, to) in BREAKS {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{what}: changes nothing");
        write(directory.path(), "broken.yaml", &text);
        let finished = run(
            directory.path(),
            &["run", "broken.yaml", "--candidate", "null"],
        )
        .exits(2);
        assert!(
            finished.stderr.starts_with("error: broken.yaml"),
            "{what}: {}",
            finished.stderr
        );
        let _ = writeln!(
            messages,
            "# {what}: {from:?} -> {to:?}\n{}",
            finished.stderr
        );
    }
    assert!(
        !directory.path().join("harness-out").exists(),
        "bad input must not leave a run behind"
    );
    insta::assert_snapshot!(messages);
}

#[test]
fn files_that_are_no_documents() {
    let directory = directory();
    write(directory.path(), "empty.yaml", "# nothing\n");
    write(directory.path(), "one.yaml", GOOD);
    write(directory.path(), "two.yaml", GOOD);
    for (files, want) in [
        (&["absent.yaml"][..], "absent.yaml: cannot be read"),
        (&["empty.yaml"], "empty.yaml: holds no scenario document"),
        (
            &["one.yaml", "two.yaml"],
            "two.yaml:1: the id 'broken' is taken by one.yaml",
        ),
    ] {
        let args: Vec<&str> = ["run"].iter().chain(files).copied().collect();
        run(directory.path(), &args).exits(2).says(want);
    }
}

#[test]
fn the_line_is_that_of_the_file_when_it_holds_several_documents() {
    let directory = directory();
    let second = GOOD
        .replace("id: broken", "id: second")
        .replace("from: client", "from: clint");
    write(
        directory.path(),
        "several.yaml",
        &format!("{GOOD}---\n{second}"),
    );
    let line = GOOD.lines().count()
        + 1
        + GOOD
            .lines()
            .position(|line| line.contains("- probe:"))
            .expect("there")
        + 1;
    run(
        directory.path(),
        &["run", "several.yaml", "--candidate", "null"],
    )
    .exits(2)
    .says(&format!("several.yaml:{line}: unknown source 'clint'"));
}
