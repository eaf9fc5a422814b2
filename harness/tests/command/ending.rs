//! Runs that do not end by themselves: killed, nothing is left on the host; interrupted, there is a report of what ran.

use std::{collections::BTreeSet, fs, path::Path};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{
    Running, directory, events, of_type, report, scenario, wait_for, wait_until_equal, worlds,
    write,
};

/// A process, by pid and start time: pids are used again.
type Process = (i32, String);

fn processes() -> Vec<(Process, i32)> {
    let entries = fs::read_dir("/proc").expect("/proc is readable");
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; behind it: state, ppid, and the start time as field 22 of the line.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        (*fields.first()? != "Z").then_some(())?;
        Some((
            (pid, (*fields.get(19)?).to_owned()),
            fields.get(1)?.parse().ok()?,
        ))
    })
    .collect()
}

/// All processes below this one.
fn descendants(root: i32) -> BTreeSet<Process> {
    let all = processes();
    let mut found = BTreeSet::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for (process, _) in all.iter().filter(|(_, of)| *of == parent) {
            if found.insert(process.clone()) {
                parents.push(process.0);
            }
        }
    }
    found
}

fn mounts() -> BTreeSet<String> {
    fs::read_to_string("/proc/self/mountinfo")
        .expect("readable")
        .lines()
        .map(str::to_owned)
        .collect()
}

fn links() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Starts a run of two attempts that both hold for a minute, and waits until both do.
fn in_the_middle(directory: &Path) -> Running {
    write(
        directory,
        "long.yaml",
        &scenario("30s", "  - hold: {for: 60s, from: client}\n"),
    );
    let mut running = Running::start(
        directory,
        &["run", "long.yaml", "--jobs", "2", "--out", "out"],
    );
    wait_for("both attempts hold", || {
        running.must_run();
        (of_type(&events(&directory.join("out")), "stepFinished").len() == 2).then_some(())
    });
    running
}

#[test]
fn killed_it_leaves_nothing() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let (mounts_before, links_before) = (mounts(), links());
    let mut running = in_the_middle(directory.path());
    let processes_of_it = descendants(running.0.id() as i32);
    // Two worlds, each with a process outside, one inside, an agent per box and the candidate.
    assert!(processes_of_it.len() > 10, "{processes_of_it:?}");
    let pid = running.0.id();
    running.0.kill().expect("it runs");
    running.0.wait().expect("it is a child of this test");
    wait_until_equal("processes of the killed run", &BTreeSet::new(), || {
        let now: BTreeSet<Process> = processes()
            .into_iter()
            .map(|(process, _)| process)
            .collect();
        processes_of_it.intersection(&now).cloned().collect()
    });
    // Those that began after the look above. A namespace lives as long as a process, a mount or an open file keeps it; its
    // number is no evidence, because the kernel gives it to the next one at once.
    wait_until_equal("processes of its worlds", &Vec::new(), || {
        let mut left = netlab::leftovers();
        left.retain(|left| left.harness == pid);
        left
    });
    wait_until_equal("mounts", &BTreeSet::new(), || &mounts() - &mounts_before);
    wait_until_equal("links", &BTreeSet::new(), || &links() - &links_before);
    // The log is whole as far as it goes, so that it can be made into a report.
    let events = events(&directory.path().join("out"));
    assert_eq!(of_type(&events, "runStarted").len(), 1);
    assert_eq!(of_type(&events, "attemptFinished").len(), 0);
}

#[test]
fn interrupted_it_reports_what_ran() {
    reports_what_ran_after(Signal::SIGINT);
}

#[test]
fn terminated_it_reports_what_ran() {
    reports_what_ran_after(Signal::SIGTERM);
}

fn reports_what_ran_after(signal: Signal) {
    if !worlds() {
        return;
    }
    let directory = directory();
    let out = directory.path().join("out");
    // Many more cases than can run before the signal arrives.
    let many: Vec<String> = (1..=200).map(|number| number.to_string()).collect();
    let document = scenario("30s", "").replace(
        "matrix:\n",
        &format!("matrix:\n  number: [{}]\n", many.join(", ")),
    );
    write(directory.path(), "many.yaml", &document);
    let mut running = Running::start(
        directory.path(),
        &["run", "many.yaml", "--jobs", "1", "--out", "out"],
    );
    wait_for("the first attempt", || {
        running.must_run();
        (!of_type(&events(&out), "attemptFinished").is_empty()).then_some(())
    });
    kill(Pid::from_raw(running.0.id() as i32), signal).expect("it runs");
    let status = wait_for("its end", || {
        running.0.try_wait().expect("a child of this test")
    });
    assert_eq!(
        status.code(),
        Some(4),
        "a run that is not complete shows nothing"
    );
    let report = report(&out);
    assert_eq!(report["end"]["reason"], "interrupted");
    let count = |verdict: &str| {
        report["totals"]["cases"][verdict]
            .as_u64()
            .expect("a number")
    };
    assert!(count("pass") >= 1, "{:#}", report["totals"]);
    assert!(count("notRun") >= 1, "{:#}", report["totals"]);
    assert_eq!(
        count("pass") + count("notRun"),
        count("total"),
        "a running attempt ends first: {:#}",
        report["totals"]
    );
    assert!(out.join("junit.xml").exists() && out.join("report.md").exists());
}
