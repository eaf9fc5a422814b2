//! Nemeses: those of the machine end with their guard and say what they did; faults of scenarios record dose and effect, and one that had
//! none is noticed.

use std::{collections::BTreeMap, path::Path};

use harness::nemesis::Stress;
use serde_json::Value;

use crate::support::{directory, events, of_type, run, scenario, wait_for, worlds, write};

const HARNESS: &str = env!("CARGO_BIN_EXE_harness");

/// Whether a process is there and not just a name that nobody has asked for yet.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[test]
fn pressure_on_the_machine_says_what_it_did_and_ends() {
    for stress in [
        Stress::CPU,
        Stress::Starvation { hogs: 2 },
        Stress::Memory { percent: 1 },
    ] {
        let pressure = stress.begin_as(Path::new(HARNESS)).expect("it begins");
        let pid = pressure.pid();
        assert!(runs(pid));
        // What is looked at is that it uses something.
        wait_for("CPU time is used", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            let ticks: u64 = fields.get(11)?.parse().ok()?;
            (ticks > 2 || matches!(stress, Stress::Memory { .. })).then_some(())
        });
        let effect = pressure.end().expect("it was there until its end");
        assert!(effect.took, "{effect:?}");
        assert!(
            effect.dose.value > 0.0 && effect.effect.value > 0.0,
            "{effect:?}"
        );
        if matches!(stress, Stress::Memory { .. }) {
            assert!(effect.effect.value >= effect.dose.value, "{effect:?}");
        } else {
            assert!(
                effect.effect.value <= 1.05,
                "a share of the machine: {effect:?}"
            );
        }
        assert!(!runs(pid));
    }
}

#[test]
fn pressure_ends_with_its_guard() {
    let pressure = Stress::CPU.begin_as(Path::new(HARNESS)).expect("it begins");
    let pid = pressure.pid();
    drop(pressure);
    assert!(!runs(pid));
}

#[test]
fn pressure_that_was_killed_does_not_count() {
    let pressure = Stress::CPU.begin_as(Path::new(HARNESS)).expect("it begins");
    let pid = nix::unistd::Pid::from_raw(pressure.pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it runs");
    let error = pressure.end().expect_err("it did not last");
    assert!(
        error.to_string().contains("ended before its time"),
        "{error}"
    );
}

/// All that was measured, by name.
fn measured(out: &Path) -> BTreeMap<String, f64> {
    let events = events(out);
    let values = of_type(&events, "measured").into_iter();
    values
        .map(|event| {
            let name = event["name"].as_str().unwrap_or_default().to_owned();
            (name, event["value"].as_f64().expect("a number"))
        })
        .collect()
}

/// Each fault that lasts and is new to nobody's rules, one after the other, on the reference.
#[test]
fn faults_record_dose_and_effect() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let steps = "  - fault: {node: conntrackPressure, entries: 500}
  - probe: {from: client}
  - fault: {node: conntrackPressure, end: true}
  - fault: {node: exhaustPorts, free: 2}
  - probe: {from: client}
  - fault: {node: exhaustPorts, end: true}
  - fault: {node: linkChurn, links: 40}
  - probe: {from: client}
  - fault: {node: linkChurn, end: true}
  - fault: {proxy: starve, cpu: 20}
  - hold: {for: 200ms, from: client}
  - fault: {proxy: starve, end: true}
  - fault: {proxy: stop}
  - fault: {proxy: continue}
  - fault: {proxy: kill}
  - fault: {api: restart}
  - fault: {api: restart, end: true}
  - fault: {api: late, delay: 50ms}
  - fault: {api: restore}
  - fault: {api: restore, end: true}
  - pod: {name: client, action: unready}
  - fault: {api: late, end: true}
  - converge: {}
";
    write(directory.path(), "one.yaml", &scenario("30s", steps));
    let args = ["run", "one.yaml", "--filter", "family=ipv4", "--out", "out"];
    run(directory.path(), &args).exits(0);
    let measured = measured(&directory.path().join("out"));
    let value = |name: &str| match measured.get(name) {
        Some(value) => *value,
        None => panic!("'{name}' is not in {measured:#?}"),
    };
    for (name, least, most) in [
        ("node conntrackPressure dose: entries added", 500.0, 500.0),
        (
            "node conntrackPressure effect: entries of others in the table",
            500.0,
            500.0,
        ),
        (
            "node conntrackPressure: entries left at its end",
            500.0,
            500.0,
        ),
        ("node exhaustPorts dose: ephemeral ports left", 2.0, 2.0),
        (
            "node exhaustPorts effect: ephemeral ports held",
            126.0,
            126.0,
        ),
        (
            "node exhaustPorts: ephemeral ports left at its end",
            0.0,
            2.0,
        ),
        (
            "node linkChurn dose: links that are replaced in turn",
            40.0,
            40.0,
        ),
        ("node linkChurn effect: interrupted dumps", 1e-6, 1.0),
        ("proxy starve dose: time in which it may run", 20.0, 20.0),
        ("proxy starve effect: time in which it could run", 0.01, 0.5),
        ("proxy stop dose: nodes", 1.0, 1.0),
        ("proxy stop effect: instances stopped", 1.0, 1.0),
        ("proxy continue effect: instances running", 1.0, 1.0),
        ("proxy kill effect: instances replaced", 1.0, 1.0),
        ("api restart: connections cut", 1.0, f64::MAX),
        (
            "api restart effect: connections accepted after it",
            1.0,
            f64::MAX,
        ),
        (
            "api restore effect: connections accepted after it",
            1.0,
            f64::MAX,
        ),
        (
            "api late dose: delay of each object of the kind",
            50.0,
            50.0,
        ),
        ("api late effect: objects that came late", 1.0, f64::MAX),
    ] {
        let value = value(name);
        assert!((least..=most).contains(&value), "{name} = {value}");
    }
}

/// A candidate that runs and does nothing meets no fault of the API, and that is told as what it is.
#[test]
fn a_fault_that_nobody_met_is_no_fault_survived() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let manifest = "name: mute\nprocess: {command: [sh, -c, 'exec sleep 1000']}\n";
    write(directory.path(), "mute.yaml", manifest);
    for (name, begin, end, said) in [
        (
            "late",
            "{api: late, delay: 10ms}",
            "{api: late, end: true}",
            "the api fault late had no effect, so it proves nothing: objects that came late = 0",
        ),
        (
            "restart",
            "{api: restart}",
            "{api: restart, end: true}",
            "the api fault restart had no effect",
        ),
        (
            "flush",
            "{node: flushRuleset}",
            "{node: foreignTable}",
            "the node fault flushRuleset had no effect",
        ),
    ] {
        let document = scenario("1s", "").replace(
            "  - converge: {deadline: 1s}\n",
            &format!(
                "  - probe: {{from: client, to: {{pod: web, port: 8080}}}}\n  - fault: {begin}\n  - fault: {end}\n  - state: {{running: true}}\n"
            ),
        );
        write(directory.path(), "one.yaml", &document);
        let args = [
            "run",
            "one.yaml",
            "--filter",
            "family=ipv4",
            "--candidate",
            "mute.yaml",
            "--out",
            name,
        ];
        run(directory.path(), &args).exits(4);
        let events = events(&directory.path().join(name));
        let attempts = of_type(&events, "attemptFinished");
        let infra: Vec<&Value> = attempts.iter().map(|attempt| &attempt["infra"]).collect();
        assert!(
            infra[0].as_str().is_some_and(|infra| infra.contains(said)),
            "{name}: {infra:?}"
        );
    }
}
