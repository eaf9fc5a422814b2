//! What the machine is, for reports, and what it cannot do, for typed skips.

use std::{fs, process::Command};

use reports::event::Machine;

use crate::{candidate::find_on_path, plan::Missing, scenario::Feature};

/// The machine as reports show it.
pub fn describe() -> Machine {
    let uname = nix::sys::utsname::uname().ok();
    let text = |value: Option<&std::ffi::OsStr>| {
        value.map_or_else(|| "unknown".into(), |v| v.to_string_lossy().into_owned())
    };
    let memory_kib = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            text.lines().find_map(|line| {
                line.strip_prefix("MemTotal:")?
                    .trim()
                    .strip_suffix(" kB")?
                    .parse::<u64>()
                    .ok()
            })
        })
        .unwrap_or(0);
    let os = fs::read_to_string("/etc/os-release")
        .ok()
        .and_then(|text| {
            text.lines().find_map(|line| {
                line.strip_prefix("PRETTY_NAME=")
                    .map(|name| name.trim_matches('"').to_owned())
            })
        })
        .unwrap_or_else(|| std::env::consts::OS.into());
    Machine {
        kernel: text(uname.as_ref().map(|uname| uname.release())),
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        memory_bytes: memory_kib * 1024,
        arch: std::env::consts::ARCH.into(),
        os,
        nft: version("nft"),
        iptables: version("iptables"),
    }
}

fn version(tool: &str) -> Option<String> {
    let output = Command::new(find_on_path(tool)?)
        .arg("--version")
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Features of scenarios that this kernel does not have.
pub fn missing() -> Missing {
    let mut missing = Missing::new();
    if let Err(error) = sctp_socket() {
        missing.insert(
            Feature::Sctp,
            format!("this kernel has no SCTP sockets ({error})"),
        );
    }
    missing
}

fn sctp_socket() -> nix::Result<()> {
    // SAFETY: socket(2) with constant arguments; the descriptor is closed at once.
    let fd = unsafe {
        libc::socket(
            libc::AF_INET,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            libc::IPPROTO_SCTP,
        )
    };
    let fd = nix::errno::Errno::result(fd)?;
    // SAFETY: the descriptor was just opened and is owned by nobody else.
    unsafe { libc::close(fd) };
    Ok(())
}
