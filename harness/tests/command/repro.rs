//! `harness repro`: an earlier failure again, with its candidate and its seed; and its world to look around in.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::Path,
    process::Stdio,
    sync::mpsc,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{
    PATIENCE, Running, directory, events, harness, of_type, report, run, scenario, wait_for,
    wait_until_equal, worlds, write,
};

const EVIDENCE: &str = "out/cases/one-endpoint[ipv4]/1";

/// A failed attempt of a candidate, in `out`.
fn fail(directory: &Path, candidate: &str) {
    write(directory, "one.yaml", &scenario("500ms", ""));
    let args = [
        "run",
        "one.yaml",
        "--filter",
        "family=ipv4",
        "--candidate",
        candidate,
        "--seed",
        "11",
        "--out",
        "out",
    ];
    let finished = run(directory, &args).exits(1);
    let again = format!("again: harness repro '{EVIDENCE}'");
    assert!(finished.stdout.contains(&again), "{finished:?}");
}

/// A program of the test's own, beside a manifest that names it by a relative path.
fn mute(directory: &Path, program: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = write(directory, "mute.sh", program);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    write(
        directory,
        "mute.yaml",
        "name: mute\nversion: v9\nprocess: {command: [./mute.sh]}\n",
    );
}

fn seeds(out: &Path) -> Vec<u64> {
    of_type(&events(out), "attemptStarted")
        .iter()
        .map(|event| event["seed"].as_u64().expect("a seed"))
        .collect()
}

#[test]
fn a_failure_is_seen_again_with_its_candidate_and_its_seed() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let directory = directory.path();
    fail(directory, "null");
    let args = ["repro", EVIDENCE, "--runs", "3", "--out", "again"];
    let finished = run(directory, &args).exits(1);
    assert!(
        finished
            .stdout
            .ends_with("one-endpoint[ipv4]: failed 3 of 3: 100 % [29, 100]\n"),
        "{finished:?}"
    );
    let again = directory.join("again");
    assert_eq!(report(&again)["candidate"]["name"], "null");
    let seed = seeds(&directory.join("out"))[0];
    assert_eq!(seeds(&again), [seed; 3]);
    // The document alone is as good, and evidence of a repro is evidence.
    let document = format!("{EVIDENCE}/scenario.yaml");
    run(directory, &["repro", &document, "--out", "third"]).exits(1);
    let evidence = "third/cases/one-endpoint[ipv4]/1";
    run(
        directory,
        &["repro", evidence, "--jobs", "1", "--out", "fourth"],
    )
    .exits(1);
    // With a proxy that works it passes, and how sure that is is said.
    let args = [
        "repro",
        EVIDENCE,
        "--candidate",
        "reference",
        "--runs",
        "2",
        "--out",
        "fifth",
    ];
    let finished = run(directory, &args).exits(0);
    assert!(
        finished
            .stdout
            .ends_with("one-endpoint[ipv4]: failed 0 of 2: below 78 % at 95 %\n"),
        "{finished:?}"
    );
}

#[test]
fn the_candidate_is_the_one_that_failed_even_if_its_manifest_is_gone() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let directory = directory.path();
    mute(directory, "#!/bin/sh\nexec sleep 1000\n");
    fail(directory, "mute.yaml");
    fs::remove_file(directory.join("mute.yaml")).expect("it was there");
    // From elsewhere, too: paths in the manifest start from where it was read.
    let elsewhere = directory.join("elsewhere");
    fs::create_dir(&elsewhere).expect("a directory");
    let evidence = format!("../{EVIDENCE}");
    let finished = run(&elsewhere, &["repro", &evidence, "--out", "again"]).exits(1);
    assert!(!finished.stderr.contains("not the one"), "{finished:?}");
    let report = report(&elsewhere.join("again"));
    assert_eq!(
        (
            &report["candidate"]["name"],
            &report["candidate"]["version"]
        ),
        (&"mute".into(), &"v9".into())
    );
    // Another program under the same name is no repetition, and that is said.
    mute(directory, "#!/bin/sh\nsleep 1000\n");
    run(directory, &["repro", EVIDENCE, "--out", "other"])
        .exits(1)
        .says("the program of candidate 'mute' is not the one that failed: sha256:");
    // Evidence of an older version knows only the name.
    fs::remove_file(directory.join(EVIDENCE).join("repro.json")).expect("it was there");
    run(directory, &["repro", EVIDENCE])
        .exits(2)
        .says("it is of candidate 'mute' and has no manifest: give that with --candidate FILE");
    let args = [
        "repro",
        EVIDENCE,
        "--candidate",
        "mute.yaml",
        "--out",
        "given",
    ];
    run(directory, &args).exits(1);
}

#[test]
fn old_evidence_of_a_built_in_candidate_needs_no_help() {
    if !worlds() {
        return;
    }
    let directory = directory();
    fail(directory.path(), "null");
    fs::remove_file(directory.path().join(EVIDENCE).join("repro.json")).expect("it was there");
    run(directory.path(), &["repro", EVIDENCE, "--out", "again"]).exits(1);
}

#[test]
fn what_is_no_evidence_is_said() {
    let directory = directory();
    let directory = directory.path();
    run(directory, &["repro", "absent"])
        .exits(2)
        .says("absent: there is no such file or directory");
    run(directory, &["repro", "."])
        .exits(2)
        .says("it holds no scenario.yaml: name a directory cases/CASE/ATTEMPT of a run");
    write(directory, "scenario.yaml", &scenario("1s", ""));
    write(directory, "repro.json", "{");
    run(directory, &["repro", "."])
        .exits(2)
        .says("repro.json: cannot be read");
    run(directory, &["repro", ".", "--node", "node1"]).exits(2);
}

/// What the command printed so far.
fn said(directory: &Path) -> String {
    fs::read_to_string(directory.join("said")).unwrap_or_default()
}

#[test]
fn a_failed_world_stays_until_ctrl_c_and_leaves_nothing() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let directory = directory.path();
    mute(directory, "#!/bin/sh\nexec sleep 1000\n");
    fail(directory, "mute.yaml");
    let output = File::create(directory.join("said")).expect("a file");
    let args = [
        "repro",
        EVIDENCE,
        "--runs",
        "5",
        "--jobs",
        "2",
        "--pause-on-failure",
        "--out",
        "again",
    ];
    let child = harness(directory, &args)
        .stdout(Stdio::from(output))
        .stderr(Stdio::null())
        .spawn();
    let mut running = Running(child.expect("the binary runs"));
    let pid = running.0.id();
    let text = wait_for("the pause", || {
        running.must_run();
        let text = said(directory);
        text.contains("the world stays until Ctrl-C")
            .then_some(text)
    });
    for file in ["ruleset.txt", "packets.pcap", "candidate.log"] {
        let line = text.lines().find(|line| line.ends_with(file));
        let path = line.and_then(|line| line.split_whitespace().nth(1));
        let path = path.unwrap_or_else(|| panic!("no {file}: {text}"));
        assert!(directory.join(path).is_file(), "{path}");
    }
    let enter = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("enter"));
    let enter: Vec<&str> = enter.expect("how to enter").split_whitespace().collect();
    if harness::candidate::find_on_path("nsenter").is_some() {
        let inside = std::process::Command::new(enter[0])
            .args(&enter[1..])
            .args(["cat", "/proc/net/fib_trie"])
            .output()
            .expect("nsenter runs");
        let inside = String::from_utf8_lossy(&inside.stdout).into_owned();
        assert!(
            inside.contains("10.89.0.11"),
            "the node's address: {inside}"
        );
    } else {
        println!("not entered: there is no nsenter");
    }
    running.must_run();
    kill(Pid::from_raw(pid as i32), Signal::SIGINT).expect("it runs");
    let status = wait_for("its end", || {
        running.0.try_wait().expect("a child of this test")
    });
    assert_eq!(status.code(), Some(1), "{}", said(directory));
    let again = report(&directory.join("again"));
    assert_eq!(again["totals"]["cases"]["fail"], 1, "{again:#}");
    let attempts = of_type(&events(&directory.join("again")), "attemptFinished").len();
    assert!(
        (1..=2).contains(&attempts),
        "it ends with the first failure, and with what runs beside it: {attempts}"
    );
    wait_until_equal("processes of its world", &Vec::new(), || {
        let mut left = netlab::leftovers();
        left.retain(|left| left.harness == pid);
        left
    });
}

#[test]
fn on_a_terminal_the_pause_is_a_shell() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let directory = directory.path();
    fail(directory, "null");
    let terminal = nix::pty::openpty(None, None).expect("a pseudo terminal");
    let copy = || -> OwnedFd { terminal.slave.try_clone().expect("a descriptor") };
    let mut command = harness(
        directory,
        &["repro", EVIDENCE, "--pause-on-failure", "--out", "again"],
    );
    command.stdin(copy()).stdout(copy()).stderr(copy());
    // SAFETY: both calls are made of nothing but system calls.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            // The terminal becomes that of the new session.
            nix::Error::result(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
            Ok(())
        });
    }
    let mut running = Running(command.spawn().expect("the binary runs"));
    drop(command);
    drop(terminal.slave);
    let mut keyboard = File::from(terminal.master);
    let mut screen = keyboard.try_clone().expect("a descriptor");
    let (send, parts) = mpsc::channel();
    std::thread::spawn(move || {
        let mut part = [0; 4096];
        // A terminal whose last process is gone fails to be read.
        while let Ok(count @ 1..) = screen.read(&mut part) {
            if send.send(part[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut seen = String::new();
    let mut until = |text: &str| {
        while !seen.contains(text) {
            let part = parts
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|error| panic!("{text:?} does not come ({error}): {seen}"));
            seen.push_str(&String::from_utf8_lossy(&part));
        }
    };
    until("leave it and everything is gone");
    until("node1 # ");
    // What is typed is echoed, so the answer has to be something else.
    keyboard
        .write_all(b"echo config:$KUBECONFIG:$((40 + 2))\n")
        .expect("a terminal");
    until("config:/run/kubeconfig:42");
    keyboard.write_all(b"exit\n").expect("a terminal");
    until("failed 1 of 1");
    let status = wait_for("its end", || {
        running.0.try_wait().expect("a child of this test")
    });
    assert_eq!(status.code(), Some(1));
}
