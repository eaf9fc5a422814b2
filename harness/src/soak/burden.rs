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

use crate::{
    cluster::{NetnsCluster, Usage},
    run::stress::Stress,
};

/// First argument of a burden's process.
pub const BURDEN: &str = "soak-burden";

/// For at least this share of the time, busy loops run or are ready to run, or they are no burden. On a machine that nobody stops it is nearly all of it;
/// how much of a CPU they get depends on who else wants it.
const BUSY: f64 = 0.5;

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

    /// For how long its threads have run or been ready to run, in sum: then everybody else has to share with them.
    fn competed(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).ok();
        let nanoseconds = threads
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|thread| {
                // The first two numbers of `schedstat`: on a CPU, and waiting for one.
                let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
                let mut numbers = text.split_whitespace().map(str::parse::<u64>);
                Some(numbers.next()?.ok()? + numbers.next()?.ok()?)
            });
        Duration::from_nanos(nanoseconds.sum())
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
                let wanted = running.since.elapsed() * self.loops as u32;
                let competed = running.competed();
                if competed.as_secs_f64() >= wanted.as_secs_f64() * BUSY {
                    return Ok(());
                }
                Err(format!(
                    "the loops wanted a CPU for {} of {} ms, so they burdened nobody",
                    competed.as_millis(),
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
                // It grows from nothing each time round, so how much there is at this moment says little.
                let usage = Usage::of(running.child.id());
                if usage.is_some_and(|usage| usage.memory > 0) && !running.competed().is_zero() {
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
