//! Small inputs that ask for much, and inputs that are large in one way: each refused with a message that says why, or read at the cost of its size.

mod support;

use fuzz_entries::Refused;
use serde_json::{Value, json};
use support::{limit, seeds};

/// The named log, with its first line changed and more lines behind it.
fn log(name: &str, change: impl FnOnce(&mut Value), more: &[Value]) -> Vec<u8> {
    let logs = seeds::logs();
    let (_, text) = logs.iter().find(|(known, _)| *known == name).expect(name);
    let mut lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a valid log"))
        .collect();
    change(&mut lines[0]);
    lines.extend_from_slice(more);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    text.into_bytes()
}

#[track_caller]
fn says(result: Result<(), Refused>, what: &str) {
    match result {
        Err(message) => assert!(message.contains(what), "should say {what:?}: {message}"),
        Ok(()) => panic!("accepted, and should be refused with {what:?}"),
    }
}

#[test]
fn a_shard_of_a_run_without_end() {
    // Which of four thousand million attempts are in this shard is not to be counted.
    for (index, of) in [(2, 8), (1, 1), (1024, 1024)] {
        let bytes = log(
            "shard",
            |start| {
                start["options"]["runs"] = u32::MAX.into();
                start["options"]["shard"] = json!({"index": index, "of": of});
            },
            &[],
        );
        assert_eq!(
            limit::within(&bytes, fuzz_entries::log),
            Ok(()),
            "{index}/{of}"
        );
    }
    for (index, of) in [(0, 8), (9, 8), (0, 0), (1, u32::MAX), (u32::MAX, u32::MAX)] {
        let bytes = log(
            "shard",
            |start| {
                start["options"]["runs"] = u32::MAX.into();
                start["options"]["shard"] = json!({"index": index, "of": of});
            },
            &[],
        );
        says(limit::within(&bytes, fuzz_entries::log), "shard");
    }
}

#[test]
fn numbers_at_the_end_of_their_range() {
    let logs = seeds::logs();
    for (name, text) in &logs {
        for (field, value) in [
            ("seq", json!(u64::MAX)),
            ("checks", json!(u64::MAX)),
            ("positiveChecks", json!(u64::MAX)),
            ("durationMs", json!(1.7e308)),
            ("durationMs", json!(-1.7e308)),
            ("convergenceMs", json!(1.7e308)),
            ("value", json!(1.7e308)),
            ("attempt", json!(u32::MAX)),
            ("index", json!(u32::MAX)),
            ("attempts", json!(u32::MAX)),
            ("failed", json!(u32::MAX)),
            ("infra", json!(u32::MAX)),
            ("tornBytes", json!(u64::MAX)),
            ("seed", json!(u64::MAX)),
            ("time", json!("-009999-01-02T01:59:59Z")),
            ("time", json!("9999-12-30T22:00:00.9Z")),
        ] {
            let changed: String = text
                .lines()
                .map(|line| {
                    let mut line: Value = serde_json::from_str(line).expect("a valid log");
                    if let Some(old) = line.get_mut(field) {
                        *old = value.clone();
                    }
                    format!("{line}\n")
                })
                .collect();
            // Accepted or refused: nothing overflows. What it is told by shows.
            println!("{name} {field}");
            let _ = limit::within(changed.as_bytes(), fuzz_entries::log);
        }
    }
}

#[test]
fn a_line_that_does_not_end() {
    let mut bytes = log("all", |_| {}, &[]);
    bytes.extend_from_slice(b"{\"seq\":1,\"time\":\"");
    bytes.resize(bytes.len() + reports::log::MAX_LINE + 1, b'x');
    says(limit::within(&bytes, fuzz_entries::log), "longer than");
}

#[test]
fn many_of_everything() {
    // A plan in which nothing has anything in common with anything else, and everything failed in a way of its own.
    const CASES: usize = 2_000;
    let logs = seeds::logs();
    let (_, text) = &logs[0];
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a valid log"))
        .collect();
    let mut start = lines[0].clone();
    let planned = start["cases"][0].clone();
    let requirement = start["requirements"][0].clone();
    let of_case = |kind: &str| {
        let found = lines
            .iter()
            .find(|line| line["type"] == kind && line["case"] == "fail[ipv4]");
        found.expect(kind).clone()
    };
    let (started, finished) = (of_case("attemptStarted"), of_case("attemptFinished"));
    let experiment = of_case("experimentFinished");
    let mut cases = Vec::new();
    let mut requirements = Vec::new();
    let mut events = Vec::new();
    for n in 0..CASES {
        let id = format!("case-{n}[ipv4]");
        let mut case = planned.clone();
        case["id"] = id.clone().into();
        case["area"] = format!("area-{n}").into();
        case["level"] = format!("level-{n}").into();
        case["requirements"] = json!([format!("R-{n}")]);
        cases.push(case);
        let mut rule = requirement.clone();
        rule["id"] = format!("R-{n}").into();
        rule["area"] = format!("area-{n}").into();
        rule["level"] = format!("level-{n}").into();
        requirements.push(rule);
        for line in [&started, &finished, &experiment] {
            let mut line = line.clone();
            line["case"] = id.clone().into();
            line["attempt"] = 1.into();
            if let Some(failure) = line.pointer_mut("/failures/0") {
                failure["requirements"] = json!([format!("R-{n}")]);
            }
            events.push(line);
        }
    }
    start["cases"] = cases.into();
    start["requirements"] = requirements.into();
    start["options"]["runs"] = 1.into();
    let mut bytes = format!("{start}\n").into_bytes();
    for (n, event) in events.iter_mut().enumerate() {
        event["seq"] = (n + 1).into();
        bytes.extend_from_slice(format!("{event}\n").as_bytes());
    }
    assert_eq!(limit::within(&bytes, fuzz_entries::log), Ok(()));
}

#[test]
fn nesting() {
    for depth in [100, 200, 5000, 1_000_000] {
        let brackets = "[".repeat(depth);
        let maps = "{a: ".repeat(depth);
        let dashes = "- ".repeat(depth.min(5000));
        let log_line = format!(
            "{{\"seq\":0,\"time\":\"\",\"type\":\"runFinished\",\"reason\":\"completed\",\"new\":{brackets}"
        );
        assert!(limit::within(format!("{log_line}\n").as_bytes(), fuzz_entries::log).is_err());
        for text in [&brackets, &maps, &dashes] {
            let scenario =
                format!("id: a\ntitle: A\nrequirement: [A-1]\nsteps:\n  - apply: {text}");
            for reader in [
                fuzz_entries::scenario,
                fuzz_entries::manifest,
                fuzz_entries::requirements,
                fuzz_entries::gate,
            ] {
                assert!(limit::within(scenario.as_bytes(), reader).is_err());
                assert!(limit::within(text.as_bytes(), reader).is_err());
            }
        }
        says(
            limit::within("(".repeat(depth).as_bytes(), fuzz_entries::filter),
            "",
        );
        let _ = limit::within("not ".repeat(depth).as_bytes(), fuzz_entries::filter);
        let _ = limit::within(
            format!("{}a", "not ".repeat(depth)).as_bytes(),
            fuzz_entries::filter,
        );
    }
}

#[test]
fn a_matrix_of_all_combinations() {
    let axes: String = (0..12)
        .map(|n| format!("  axis{n}: [a, b, c, d, e, f, g, h, i, j]\n"))
        .collect();
    let text = format!("id: a\ntitle: A\nrequirement: [A-1]\nmatrix:\n{axes}steps: []\n");
    says(
        limit::within(text.as_bytes(), fuzz_entries::scenario),
        "hostile.yaml:4: ",
    );
}

#[test]
fn documents_without_number() {
    let one = "id: a\ntitle: A\nrequirement: [A-1]\nsteps: []\n---\n";
    let text = one.repeat(10_000);
    assert!(limit::within(text.as_bytes(), fuzz_entries::scenario).is_err());
}

#[test]
fn aliases_of_aliases() {
    let mut text = String::from("id: a\ntitle: A\nrequirement: [A-1]\ndescription: &a0 x\n");
    let mut list = String::from("objects:\n  - &b0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..20 {
        let before = format!("*b{}, ", n - 1).repeat(10);
        list.push_str(&format!("  - &b{n} [{}]\n", before.trim_end_matches(", ")));
    }
    text.push_str(&list);
    for reader in [
        fuzz_entries::scenario,
        fuzz_entries::manifest,
        fuzz_entries::requirements,
        fuzz_entries::gate,
    ] {
        assert!(limit::within(text.as_bytes(), reader).is_err());
        assert!(limit::within(list.as_bytes(), reader).is_err());
    }
}

#[test]
fn variables_in_variables() {
    let line = "$(pod.a.ip)".repeat(20_000);
    for text in [
        line,
        "$(".repeat(100_000),
        "$()".repeat(50_000),
        "$(a".to_owned(),
    ] {
        let scenario = format!(
            "id: a\ntitle: '{text}'\nrequirement: [A-1]\ntopology: {{pods: [{{name: a, node: node1}}]}}\nsteps: [{{converge: {{}}}}]\n"
        );
        assert!(limit::within(scenario.as_bytes(), fuzz_entries::scenario).is_err());
        let manifest = format!("name: a\nprocess: {{command: [\"{text}\"]}}\n");
        assert!(limit::within(manifest.as_bytes(), fuzz_entries::manifest).is_err());
    }
}

#[test]
fn objects_that_are_none() {
    for object in [
        "1",
        "x",
        "[a]",
        "{metadata: 1}",
        "{kind: Service, metadata: [a]}",
    ] {
        let head = "id: a\ntitle: A\nrequirement: [A-1]\n";
        let objects = format!("{head}objects: [{object}]\nsteps: [{{converge: {{}}}}]\n");
        let applied = format!("{head}steps: [{{apply: [{object}]}}, {{converge: {{}}}}]\n");
        for text in [objects, applied] {
            assert!(
                limit::within(text.as_bytes(), fuzz_entries::scenario).is_err(),
                "{object}"
            );
        }
    }
}

#[test]
fn a_world_for_everybody() {
    let pods: String = (0..30_000)
        .map(|n| format!("    - {{name: p{n}, node: node1}}\n"))
        .collect();
    let nodes: String = (0..30_000)
        .map(|n| format!("    - {{name: n{n}}}\n"))
        .collect();
    for topology in [format!("  pods:\n{pods}"), format!("  nodes:\n{nodes}")] {
        let text = format!(
            "id: a\ntitle: A\nrequirement: [A-1]\ntopology:\n{topology}steps: [{{converge: {{}}}}]\n"
        );
        says(
            limit::within(text.as_bytes(), fuzz_entries::scenario),
            "room for",
        );
    }
}
