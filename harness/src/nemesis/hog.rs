//! The process that a nemesis of the machine is: it uses CPUs or memory until its standard input ends.
//!
//! A process of its own can be killed whatever it does, and the end of the pipe reaches it however the harness ends.

use std::{
    io::{self, Read as _, Write as _},
    os::fd::AsFd as _,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::resource::{UsageWho, getrusage},
};
use serde::{Deserialize, Serialize};

/// The hidden subcommand; what follows is `cpu THREADS` or `memory BYTES`.
pub const SUBCOMMAND: &str = "__nemesis";

/// What it says once its dose is there.
pub(super) const READY: &str = "ready";

/// Milliseconds between two passes over the memory: often enough that none of it looks unused, seldom enough to leave the CPU alone.
const PASS_MS: u16 = 200;

/// What the process says at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Used {
    /// CPU time in seconds, from [`READY`] on.
    pub cpu_seconds: f64,
    /// Time in seconds, from [`READY`] on.
    pub seconds: f64,
    /// Resident memory in bytes, the least that was seen after any pass.
    pub resident_bytes: u64,
}

/// The process itself; `args` follow the subcommand.
pub fn hog_main(args: &[String]) -> ExitCode {
    // Should memory run out, this is the process that nobody misses. Raising the value needs no right.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let used = match args {
        [kind, dose] if kind == "cpu" => dose.parse().map_err(io::Error::other).and_then(cpu),
        [kind, dose] if kind == "memory" => dose.parse().map_err(io::Error::other).and_then(memory),
        _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    let said = used.and_then(|used| {
        let line = serde_json::to_string(&used)?;
        writeln!(io::stdout(), "{line}")
    });
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn ready() -> io::Result<(Instant, f64)> {
    let mut out = io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    Ok((Instant::now(), cpu_seconds()))
}

fn cpu(threads: usize) -> io::Result<Used> {
    let stop = Arc::new(AtomicBool::new(false));
    let hogs: Vec<_> = (0..threads)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let (began, before) = ready()?;
    let ended = io::stdin().read_to_end(&mut Vec::new());
    stop.store(true, Ordering::Relaxed);
    let (seconds, cpu_seconds) = (began.elapsed().as_secs_f64(), cpu_seconds() - before);
    for hog in hogs {
        let _ = hog.join();
    }
    ended?;
    Ok(Used {
        cpu_seconds,
        seconds,
        ..Used::default()
    })
}

fn memory(bytes: usize) -> io::Result<Used> {
    let mut held: Vec<u8> = Vec::new();
    held.try_reserve_exact(bytes).map_err(io::Error::other)?;
    // By the megabyte, so that it is quick in a debug build, too.
    let part = vec![1; 1 << 20];
    while held.len() < bytes {
        held.extend_from_slice(&part[..part.len().min(bytes - held.len())]);
    }
    let (began, before) = ready()?;
    let mut least = resident_bytes();
    let mut turn = 1_u8;
    loop {
        let input = io::stdin();
        let mut fds = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(PASS_MS)) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => break,
            Err(error) => return Err(error.into()),
        }
        turn = turn.wrapping_add(1);
        held.iter_mut().step_by(4096).for_each(|byte| *byte = turn);
        std::hint::black_box(&held);
        least = least.min(resident_bytes());
    }
    Ok(Used {
        cpu_seconds: cpu_seconds() - before,
        seconds: began.elapsed().as_secs_f64(),
        resident_bytes: least,
    })
}

fn cpu_seconds() -> f64 {
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| {
        seconds(usage.user_time()) + seconds(usage.system_time())
    })
}

fn resident_bytes() -> u64 {
    crate::cluster::Usage::of(std::process::id()).map_or(0, |usage| usage.memory)
}
