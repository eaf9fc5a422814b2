//! Soaks: they are looked at while they run, stopped, killed at any moment, and go on with nothing lost and nothing counted twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::support::{Running, directory, events, of_type, report, run, wait_for, worlds};

/// How often the soak is killed. Fifty, as it takes some seconds each on a machine that does other things, is for those who ask for it:
/// `HARNESS_TEST_KILLS=50 cargo nextest run -p harness -E 'test(kills)'`.
fn kills() -> usize {
    let asked = std::env::var("HARNESS_TEST_KILLS").ok();
    asked.map_or(8, |kills| {
        kills.parse().expect("HARNESS_TEST_KILLS is a number")
    })
}

const BEGIN: [&str; 12] = [
    "soak",
    "--for",
    "1h",
    "--filter",
    "scenario:clusterip-basic and protocol=TCP",
    "--jobs",
    "2",
    "--seed",
    "3",
    "--out",
    "out",
    "--no-color",
];

fn lines(out: &Path) -> Vec<String> {
    let text = fs::read_to_string(out.join("events.jsonl")).unwrap_or_default();
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(str::to_owned)
        .collect()
}

fn interrupt(running: &mut Running) -> Option<i32> {
    kill(Pid::from_raw(running.0.id() as i32), Signal::SIGINT).expect("it runs");
    let ended = || running.0.try_wait().expect("a child of this test");
    wait_for("its end", ended).code()
}

#[test]
fn kills_lose_nothing_and_count_nothing_twice() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let out = directory.path().join("out");
    let mut known: Vec<String> = Vec::new();
    for life in 0..=kills() {
        let resume = ["soak", "--resume", "out"];
        let args = if life == 0 { &BEGIN[..] } else { &resume };
        let mut running = Running::start(directory.path(), args);
        wait_for("an event of this life", || {
            running.must_run();
            (lines(&out).len() > known.len()).then_some(())
        });
        if life == kills() {
            // The last one is allowed to get somewhere and is then stopped in good order.
            let before = of_type(&events(&out), "attemptFinished").len();
            wait_for("some attempts", || {
                running.must_run();
                (of_type(&events(&out), "attemptFinished").len() >= before + 10).then_some(())
            });
            assert_eq!(
                interrupt(&mut running),
                Some(4),
                "it was to go on for an hour"
            );
        } else {
            // The moment of the kill: anywhere between the building of the first world and the end of some attempts, which is waited for
            // in some lives because on a busy machine no attempt would ever end otherwise.
            let ended = || of_type(&events(&out), "attemptFinished").len();
            let before = ended();
            wait_for("an attempt", || {
                running.must_run();
                (life % 3 < 2 || ended() > before).then_some(())
            });
            std::thread::sleep(Duration::from_millis(u64::from(
                rand::random::<u16>() % 1500,
            )));
            running.must_run();
            running.0.kill().expect("it runs");
            running.0.wait().expect("a child of this test");
        }
        let now = lines(&out);
        assert_eq!(now[..known.len()], known, "what was in the log stays in it");
        known = now;
    }

    let events: Vec<Value> = known
        .iter()
        .map(|line| serde_json::from_str(line).expect("every line is an event"))
        .collect();
    for (seq, event) in events.iter().enumerate() {
        assert_eq!(event["seq"], seq, "no holes and no repetition");
    }
    let key = |event: &Value| {
        let case = event["case"].as_str().expect("a case").to_owned();
        (case, event["attempt"].as_u64().expect("a number"))
    };
    let mut seeds: BTreeMap<(String, u64), u64> = BTreeMap::new();
    let mut under_way: BTreeSet<(String, u64)> = BTreeSet::new();
    let mut finished: BTreeSet<(String, u64)> = BTreeSet::new();
    let mut void = Vec::new();
    for event in &events {
        match event["type"].as_str().expect("a type") {
            "attemptStarted" => {
                let seed = event["seed"].as_u64().expect("a seed");
                assert!(!finished.contains(&key(event)), "made twice: {event}");
                assert!(under_way.insert(key(event)), "begun twice: {event}");
                let before = seeds.insert(key(event), seed);
                assert!(before.is_none_or(|before| before == seed), "{event}");
            }
            "attemptFinished" => {
                assert!(under_way.remove(&key(event)), "{event}");
                assert_eq!(event["verdict"], "pass", "{event}");
                assert!(finished.insert(key(event)), "counted twice: {event}");
            }
            "runResumed" => void.push(std::mem::take(&mut under_way).len() as u64),
            _ => {}
        }
    }
    assert_eq!(under_way.len(), 0, "it was stopped in good order");
    assert_eq!(void.len(), kills());
    let begun: BTreeSet<(String, u64)> = seeds.into_keys().collect();
    let cases: BTreeSet<&String> = begun.iter().map(|(case, _)| case).collect();
    for case in cases {
        let numbers: Vec<u64> = finished
            .iter()
            .filter(|(id, _)| id == case)
            .map(|(_, attempt)| *attempt)
            .collect();
        // What was void is made again first, so that no number is left out.
        let lost: Vec<u64> = (1..=*numbers.last().unwrap_or(&0))
            .filter(|attempt| !numbers.contains(attempt))
            .collect();
        assert_eq!(lost, [0; 0], "{case} lost attempts");
    }

    let report = report(&out);
    assert_eq!(report["end"]["reason"], "interrupted");
    assert_eq!(report["totals"]["attempts"]["total"], finished.len());
    assert_eq!(report["totals"]["attempts"]["pass"], finished.len());
    let said: Vec<u64> = report["resumed"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|resumed| resumed["voidAttempts"].as_u64().expect("a number"))
        .collect();
    assert_eq!(said, void);
    let status: Value =
        serde_json::from_slice(&fs::read(out.join("status.json")).unwrap()).unwrap();
    assert_eq!(status["attempts"]["total"], finished.len());
    assert_eq!(status["resumed"], kills());
    println!(
        "{} kills, {} attempts, {} void",
        kills(),
        finished.len(),
        void.iter().sum::<u64>()
    );
}

#[test]
fn its_status_can_be_asked_for_at_any_time() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let out = directory.path().join("out");
    let mut running = Running::start(directory.path(), &BEGIN);
    wait_for("some attempts", || {
        running.must_run();
        (of_type(&events(&out), "attemptFinished").len() >= 3).then_some(())
    });
    let status = |text: &str| {
        let finished = run(directory.path(), &["status", "out"]).exits(0);
        assert!(finished.stdout.contains(text), "{text}: {finished:?}");
        finished.stdout
    };
    let running_text = format!("running, process {}, for ", running.0.id());
    let said = status(&running_text);
    assert!(
        said.contains("worst upper bound of a core case: "),
        "{said}"
    );
    running.0.kill().expect("it runs");
    running.0.wait().expect("a child of this test");
    status("killed, for ");

    let mut running = Running::start(directory.path(), &["soak", "--resume", "out"]);
    // Ctrl-C is heeded from the first attempt on; before it, it is one more way to be killed.
    wait_for("it to go on", || {
        running.must_run();
        let events = events(&out);
        let resumed = events
            .iter()
            .position(|event| event["type"] == "runResumed")?;
        (!of_type(&events[resumed..], "attemptStarted").is_empty()).then_some(())
    });
    assert_eq!(interrupt(&mut running), Some(4));
    status("interrupted, for ");
    let json = run(directory.path(), &["status", "out", "--format", "json"]).exits(0);
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["running"], false);
    assert_eq!(json["resumed"], 1);
    run(directory.path(), &["status", "."])
        .exits(2)
        .says("holds no run");
}

#[test]
fn it_ends_by_itself_and_says_how_sure_it_is() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let args = [
        "soak",
        "--until-confidence",
        "rate<40% @90%",
        "--filter",
        "scenario:clusterip-basic and protocol=TCP",
        "--out",
        "out",
        "--history",
        "nightly.sqlite",
    ];
    let finished = run(directory.path(), &args).exits(0);
    assert!(finished.stdout.contains("\nconformant: "), "{finished:?}");
    let history = ["history", "show", "--db", "nightly.sqlite"];
    let history = run(directory.path(), &history).exits(0);
    assert!(
        history.stdout.starts_with("1 run of 1 candidate\n"),
        "{history:?}"
    );
    let out = directory.path().join("out");
    let report = report(&out);
    for case in report["cases"].as_array().expect("cases") {
        assert_eq!(case["claim"]["decision"], "proven", "{case}");
        assert_eq!(case["failureRate"]["failed"], 0, "{case}");
    }
    // A log of a pass is brief.
    assert_eq!(of_type(&events(&out), "stepFinished").len(), 0);
}

#[test]
fn evidence_of_a_thousand_failures_is_that_of_the_first() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let args = [
        "soak",
        "--until-confidence",
        "rate<50% @95%",
        "--candidate",
        "null",
        "--filter",
        "clusterip-basic[ipv4,TCP]",
        "--classify-budget",
        "10m",
        "--out",
        "out",
    ];
    run(directory.path(), &args).exits(1);
    let out = directory.path().join("out");
    let events = events(&out);
    let attempts = of_type(&events, "attemptFinished");
    let kept = attempts
        .iter()
        .filter(|attempt| attempt["evidence"].is_string())
        .count();
    let report = report(&out);
    let groups: Vec<u64> = report["failureGroups"]
        .as_array()
        .expect("groups")
        .iter()
        .map(|group| group["attempts"].as_u64().expect("a number"))
        .collect();
    assert_eq!(groups.iter().sum::<u64>(), attempts.len() as u64);
    let first: u64 = groups.iter().map(|attempts| 3.min(*attempts)).sum();
    assert!(first < attempts.len() as u64, "{groups:?}");
    let causes = report["causes"].as_array().expect("causes");
    assert!(
        causes.iter().any(|cause| cause["class"] == "broken"),
        "{report:#}"
    );
    assert_eq!(kept as u64, first, "{groups:?}");
    let directories = fs::read_dir(out.join("cases/clusterip-basic[ipv4,TCP]")).expect("evidence");
    assert_eq!(directories.count(), kept);
}
