//! A disk that becomes full while a run goes on: one message, exit code 4, and what was recorded can be read.

use std::{
    fs,
    io::Error,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Output},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid},
};
use serde_json::Value;

use crate::support::{directory, worlds};

/// Runs a script in a directory, where `full` is a disk of this size, which is gone afterwards.
fn on_a_small_disk(root: &Path, size: &str, script: &str) -> Output {
    let place = root.join("full");
    fs::create_dir(&place).expect("a directory of the test");
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {} 1", Uid::effective())),
        ("/proc/self/gid_map", format!("0 {} 1", Gid::effective())),
    ];
    let options = format!("size={size}");
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .env("HARNESS", env!("CARGO_BIN_EXE_harness"))
        .env("HARNESS_LOG", "error")
        .env_remove("GITHUB_ACTIONS")
        .current_dir(root);
    let enter = move || -> Result<(), Error> {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
        for (path, text) in &maps {
            fs::write(path, text)?;
        }
        let none = None::<&str>;
        let flags = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(none, "/", none, flags, none)?;
        let small = Some(options.as_str());
        mount(
            Some("tmpfs"),
            &place,
            Some("tmpfs"),
            MsFlags::empty(),
            small,
        )?;
        Ok(())
    };
    // SAFETY: the closure only makes system calls and small allocations, and the allocator of this platform may be used after a fork.
    unsafe { command.pre_exec(enter) };
    command.output().expect("the shell starts")
}

/// The log alone is larger than the disk.
#[test]
fn a_full_disk_is_told_once_and_what_was_recorded_is_kept() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let root = directory.path();
    let script = "\"$HARNESS\" certify --candidate null --filter area:clusterip --no-canary --no-classify --jobs 2 --out full/run
        echo \"code $?\"
        \"$HARNESS\" render full/run --format json > report.json
        echo \"rendered $?\"";
    let ended = on_a_small_disk(root, "96k", script);
    let (stdout, stderr) = (
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr),
    );
    assert!(stdout.contains("code 4\n"), "{stdout}\n{stderr}");
    assert!(stdout.contains("rendered 0\n"), "{stdout}\n{stderr}");
    let errors: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(errors.len(), 1, "{stderr}");
    assert!(
        errors[0].contains("the disk of --out is full") && errors[0].contains("full/run"),
        "{stderr}"
    );
    // Evidence makes room for the log, and says so once, whoever of the attempts notices.
    let noted = stderr.matches("no evidence is kept").count();
    assert!(noted <= 1, "{stderr}");
    let report = fs::read_to_string(root.join("report.json")).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_ne!(report["conclusion"], "conformant");
    assert_eq!(report["candidate"]["name"], "null");
    let problems = report["problems"].as_array().expect("it is not whole");
    assert!(!problems.is_empty(), "{report:#}");
}
