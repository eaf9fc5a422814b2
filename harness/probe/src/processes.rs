//! Processes of a Pod, as the node sees them: who shares the node's pid namespace may signal them.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The kernel stops a process within microseconds; this bounds a machine that has come to a stop.
const SETTLED: Duration = Duration::from_secs(10);

/// What holds a Pod's namespaces is no part of what runs in it.
const PAUSE: &str = "pause";

/// Signals every process in the containers of a Pod, and waits until all are stopped (SIGSTOP) or none is (SIGCONT). Answers how many there are.
///
/// # Errors
/// When there is none, or one does not follow.
pub fn signal_pod(uid: &str, signal: i32) -> anyhow::Result<u32> {
    ensure!(uid.len() >= 32, "'{uid}' is not the uid of a Pod");
    let signal = Signal::try_from(signal).context("such a signal")?;
    let found = of_pod(uid);
    ensure!(
        !found.is_empty(),
        "no process of Pod {uid} is to be seen from here"
    );
    for pid in &found {
        kill(*pid, signal).with_context(|| format!("signal process {pid}"))?;
    }
    let stopped = match signal {
        Signal::SIGSTOP => true,
        Signal::SIGCONT => false,
        _ => return Ok(found.len() as u32),
    };
    let until = Instant::now() + SETTLED;
    loop {
        let behind = found
            .iter()
            .find(|pid| state(**pid).is_some_and(|state| (state == 'T') != stopped));
        let Some(behind) = behind else {
            return Ok(found.len() as u32);
        };
        ensure!(
            Instant::now() < until,
            "process {behind} does not follow {signal} within {SETTLED:?}"
        );
        // A poll of a condition with a deadline.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a process with these control groups and this name runs in a Pod.
fn runs_in(groups: &str, name: &str, uid: &str) -> bool {
    // As it is with cgroupfs, with underscores with systemd.
    let names = [uid.to_owned(), uid.replace('-', "_")];
    names.iter().any(|name| groups.contains(name)) && name.trim() != PAUSE
}

fn of_pod(uid: &str) -> Vec<Pid> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|pid| {
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
            let (Ok(groups), Ok(name)) = (read("cgroup"), read("comm")) else {
                return false;
            };
            runs_in(&groups, &name, uid)
        })
        .map(Pid::from_raw)
        .collect()
}

/// The state of a process as the kernel calls it: `R`, `S`, `T` for stopped and so on; nothing once it is gone.
fn state(pid: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_a_pod_are_known_by_their_control_groups() {
        const UID: &str = "0a1b2c3d-0000-4000-8000-00000000feed";
        let fs = "0::/kubelet/kubepods/burstable/pod0a1b2c3d-0000-4000-8000-00000000feed/9207e1";
        let systemd = "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod0a1b2c3d_0000_4000_8000_00000000feed.slice/cri-containerd-9207e1.scope";
        let other = "0::/kubelet/kubepods/pod0a1b2c3d-0000-4000-8000-00000000beef/9207e1";
        for (groups, name, runs) in [
            (fs, "kube-proxy\n", true),
            (systemd, "harness\n", true),
            (systemd, "pause\n", false),
            (other, "kube-proxy\n", false),
            ("0::/init.scope", "kube-proxy\n", false),
        ] {
            assert_eq!(runs_in(groups, name, UID), runs, "{groups} {name}");
        }
    }

    #[test]
    fn what_is_no_pod_is_left_alone() {
        for uid in ["", "1", "0a1b2c3d-0000-4000-8000-00000000feed"] {
            assert!(signal_pod(uid, Signal::SIGSTOP as i32).is_err(), "{uid}");
        }
    }
}
