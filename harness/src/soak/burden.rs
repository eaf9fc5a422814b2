//! Burdens on the machine: processes of the harness that keep its CPUs busy, or its memory.
//!
//! They are processes of their own, so that `ps` shows whose work it is, and they end when the harness does, however it ends: each reads its
//! standard input, a pipe that nobody writes to, and exits when the other end is gone.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitCode, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;

use crate::{cluster::NetnsCluster, run::stress::Stress};

/// First argument of a burden's process.
pub const BURDEN: &str = "soak-burden";

/// Busy loops get at least this share of the CPUs that they want, or they are no burden. With as many competitors they get half.
const BUSY: f64 = 0.05;

/// Loops that never rest.
#[derive(Debug)]
pub struct Cpu {
    loops: usize,
    running: Mutex<Option<Running>>,
}

/// Memory that is written again and again.
#[derive(Debug)]
pub struct Memory {
    mebibytes: u64,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    since: Instant,
}

impl Cpu {
    /// So many busy loops.
    pub fn new(loops: usize) -> Self {
        Self {
            loops,
            running: Mutex::default(),
        }
    }
}

impl Memory {
    /// So much memory.
    pub fn new(mebibytes: u64) -> Self {
        Self {
            mebibytes,
            running: Mutex::default(),
        }
    }

    /// A quarter of what is available, and no more than 1 GiB: pages come and go under the feet of everybody, and nobody is killed for them.
    pub fn of_this_machine() -> Self {
        let available = fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| {
                let line = text
                    .lines()
                    .find(|line| line.starts_with("MemAvailable:"))?;
                line.split_whitespace().nth(1)?.parse::<u64>().ok()
            })
            .unwrap_or(0);
        Self::new((available / 1024 / 4).clamp(16, 1024))
    }
}

impl Running {
    fn start(kind: &str, dose: u64) -> io::Result<Self> {
        let child = Command::new("/proc/self/exe")
            .args([BURDEN, kind, &dose.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Ctrl-C is for the harness, which ends this when the attempts that feel it have ended.
            .process_group(0)
            .spawn()?;
        Ok(Self {
            child,
            since: Instant::now(),
        })
    }

    fn lives(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("its process ended: {status}")),
            Err(error) => Err(format!("its process cannot be asked: {error}")),
        }
    }

    /// CPU time that the process used.
    fn used(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // The name in parentheses may hold anything; behind it, utime and stime are fields 14 and 15 of the line.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 =
            fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        // Linux tells user space a hundred ticks a second, whatever it has inside.
        Some(Duration::from_millis(ticks * 10))
    }

    fn resident_mebibytes(&self) -> Option<u64> {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id())).ok()?;
        let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
        Some((pages * 4096) >> 20)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn held(running: &Mutex<Option<Running>>) -> std::sync::MutexGuard<'_, Option<Running>> {
    running.lock().expect("no panic while it is held")
}

fn check(
    running: &Mutex<Option<Running>>,
    felt: impl FnOnce(&Running) -> Result<(), String>,
) -> Result<(), String> {
    match &mut *held(running) {
        None => Err("it was not begun".to_owned()),
        Some(running) => {
            running.lives()?;
            felt(running)
        }
    }
}

impl Stress for Cpu {
    fn name(&self) -> String {
        format!("cpu: {} busy loops", self.loops)
    }

    fn is_machine_wide(&self) -> bool {
        true
    }

    fn begin(&self) -> io::Result<()> {
        *held(&self.running) = Some(Running::start("cpu", self.loops as u64)?);
        Ok(())
    }

    fn end(&self) {
        *held(&self.running) = None;
    }

    fn leave<'a>(&'a self, _cluster: &'a NetnsCluster) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            check(&self.running, |running| {
                let cpus = std::thread::available_parallelism().map_or(1, usize::from);
                let wanted = running.since.elapsed() * self.loops.min(cpus) as u32;
                let used = running.used().unwrap_or_default();
                if used.as_secs_f64() >= wanted.as_secs_f64() * BUSY {
                    return Ok(());
                }
                Err(format!(
                    "the loops got {} of {} ms, so they burdened nobody",
                    used.as_millis(),
                    wanted.as_millis()
                ))
            })
        })
    }
}

impl Stress for Memory {
    fn name(&self) -> String {
        format!("memory: {} MiB written again and again", self.mebibytes)
    }

    fn is_machine_wide(&self) -> bool {
        true
    }

    fn begin(&self) -> io::Result<()> {
        *held(&self.running) = Some(Running::start("memory", self.mebibytes)?);
        Ok(())
    }

    fn end(&self) {
        *held(&self.running) = None;
    }

    fn leave<'a>(&'a self, _cluster: &'a NetnsCluster) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            check(&self.running, |running| {
                // It grows from nothing each time round.
                let resident = running.resident_mebibytes().unwrap_or(0);
                let used = running.used().unwrap_or_default();
                if resident > 0 && !used.is_zero() {
                    return Ok(());
                }
                Err("it wrote no memory, so it burdened nobody".to_owned())
            })
        })
    }
}

/// A burden's process: the kind and the dose are its arguments.
pub fn burden_main(args: &[OsString]) -> ExitCode {
    let dose = args
        .get(1)
        .and_then(|dose| dose.to_str()?.parse::<usize>().ok());
    let (Some(kind), Some(dose)) = (args.first().and_then(|kind| kind.to_str()), dose) else {
        return ExitCode::from(2);
    };
    // Should the machine run out of memory all the same, this is what has to go.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    match kind {
        "cpu" => {
            for _ in 0..dose {
                std::thread::spawn(|| {
                    loop {
                        std::hint::spin_loop();
                    }
                });
            }
        }
        "memory" => {
            std::thread::spawn(move || {
                loop {
                    let mut blocks = Vec::new();
                    for _ in 0..dose {
                        blocks.push(std::hint::black_box(vec![0x5a_u8; 1 << 20]));
                    }
                }
            });
        }
        _ => return ExitCode::from(2),
    }
    let mut nothing = [0];
    let _ = io::stdin().read(&mut nothing);
    ExitCode::SUCCESS
}
