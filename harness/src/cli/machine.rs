//! What the machine is, for reports, and what it cannot do, for typed skips.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use reports::event::{Calibration, Machine};
use sha2::{Digest as _, Sha256};

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
        calibration: Some(calibrate()),
    }
}

/// Looks how fast the machine is just now. Takes some 20 ms.
fn calibrate() -> Calibration {
    static MIB: [u8; 1 << 20] = [0; 1 << 20];
    let (began, mut mib) = (Instant::now(), 0_u32);
    while mib == 0 || began.elapsed() < Duration::from_millis(10) {
        std::hint::black_box(Sha256::digest(std::hint::black_box(&MIB)));
        mib += 1;
    }
    let rate = f64::from(mib) / began.elapsed().as_secs_f64();
    let timer = Duration::from_millis(1);
    let late = (0..8).map(|_| {
        let began = Instant::now();
        // A timer is what is measured.
        std::thread::sleep(timer);
        began.elapsed().saturating_sub(timer)
    });
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load
        .split(' ')
        .next()
        .and_then(|load| load.parse::<f64>().ok());
    Calibration {
        sha256_mib_per_s: rate as u64,
        timer_late_us: late.max().unwrap_or_default().as_micros() as u64,
        load_hundredths: (load.unwrap_or(0.0) * 100.0) as u64,
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
