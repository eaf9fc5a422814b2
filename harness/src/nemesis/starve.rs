//! Too little CPU for one process, without a clock that lies and without a load on anybody else.
//!
//! The process is stopped for most of each period and runs for the rest, as if others had the CPU: SIGSTOP and SIGCONT need no right
//! beyond that of its owner, and control groups and scheduling classes do. Whatever it started in its process group is starved with it.

use std::{
    fs,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// One turn of running and being stopped. A process that is looked at from outside (by probes of its health) answers within a few of them.
pub const PERIOD: Duration = Duration::from_millis(50);

/// A process that is starved. It runs freely again when this is dropped.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Starving {
    process: Process,
    percent: u32,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<Turns>>,
    cpu_before: Duration,
}

/// What the process got.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Starved {
    /// Periods in which the process was seen stopped.
    pub periods: u64,
    /// Share of the time in which it was allowed to run.
    pub share: f64,
    /// CPU time that it used.
    pub cpu: Duration,
    /// How long it lasted.
    pub lasted: Duration,
}

impl Starved {
    /// Whether it did anything: a process that was never seen stopped was not starved.
    pub fn took(&self) -> bool {
        self.periods > 0
    }
}

#[derive(Debug, Default)]
struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Waits, and says whether the end was asked for.
    fn within(&self, time: Duration) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked, _) = self
            .changed
            .wait_timeout_while(asked, time, |asked| !*asked)
            .unwrap_or_else(PoisonError::into_inner);
        *asked
    }

    fn ask(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Turns {
    seen_stopped: u64,
    stopped: Duration,
    /// Until the end was asked for or the process was gone.
    lasted: Duration,
}

/// The state of a process as the kernel calls it: `R`, `S`, `T` for stopped and so on; nothing once it is gone.
pub(crate) fn state(pid: u32) -> Option<char> {
    stat(i32::try_from(pid).ok().filter(|pid| *pid > 0)?).map(|(state, ..)| state)
}

/// A process and the group that it leads, told from a later one with the same pid by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    start_time: u64,
}

/// Fields of `/proc/PID/stat` behind the name: state, CPU ticks, start time.
fn stat(pid: i32) -> Option<(char, u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((
        fields.first()?.chars().next()?,
        number(11)? + number(12)?,
        number(19)?,
    ))
}

impl Process {
    fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0)?;
        let (_, _, start_time) = stat(pid)?;
        Some(Self { pid, start_time })
    }

    fn state(self) -> Option<char> {
        let (state, _, start_time) = stat(self.pid)?;
        (start_time == self.start_time).then_some(state)
    }

    fn cpu(self) -> Duration {
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
            .ok()
            .flatten()
            .unwrap_or(100);
        let ticks = stat(self.pid).map_or(0, |(_, ticks, _)| ticks);
        Duration::from_secs_f64(ticks as f64 / per_second as f64)
    }

    /// Signals the group, if the process is still the one that is meant.
    fn signal(self, signal: Signal) -> bool {
        self.state().is_some() && killpg(Pid::from_raw(self.pid), signal).is_ok()
    }
}

impl Starving {
    /// Lets a process that leads its group run for `percent` of the time, until the end of the result. `None` if there is no such process.
    pub fn begin(pid: u32, percent: u32) -> Option<Self> {
        let process = Process::of(pid)?;
        let stop = Arc::new(Stop::default());
        let percent = percent.clamp(1, 99);
        let asked = stop.clone();
        let thread = std::thread::Builder::new()
            .name("starve".into())
            .spawn(move || alternate(process, percent, &asked))
            .ok()?;
        Some(Self {
            process,
            percent,
            stop,
            thread: Some(thread),
            cpu_before: process.cpu(),
        })
    }

    /// In how many percent of the time it may run.
    pub fn percent(&self) -> u32 {
        self.percent
    }

    /// Lets it run freely again and tells what it got.
    pub fn end(mut self) -> Starved {
        let turns = self.finish();
        let free = turns.lasted.saturating_sub(turns.stopped);
        Starved {
            periods: turns.seen_stopped,
            share: free.as_secs_f64() / turns.lasted.as_secs_f64().max(f64::EPSILON),
            cpu: self.process.cpu().saturating_sub(self.cpu_before),
            lasted: turns.lasted,
        }
    }

    fn finish(&mut self) -> Turns {
        self.stop.ask();
        let turns = self.thread.take().and_then(|thread| thread.join().ok());
        // The thread does so too; this is for one that panicked.
        self.process.signal(Signal::SIGCONT);
        turns.unwrap_or_default()
    }
}

impl Drop for Starving {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.finish();
        }
    }
}

fn alternate(process: Process, percent: u32, stop: &Stop) -> Turns {
    let (runs, longest) = (PERIOD * percent / 100, PERIOD * 10);
    let mut turns = Turns::default();
    let began = Instant::now();
    let mut stops = PERIOD - runs;
    loop {
        let stopped = Instant::now();
        if !process.signal(Signal::SIGSTOP) {
            break;
        }
        let over = stop.within(stops);
        turns.seen_stopped += u64::from(process.state() == Some('T'));
        process.signal(Signal::SIGCONT);
        turns.stopped += stopped.elapsed();
        let ran = Instant::now();
        if over || stop.within(runs) {
            break;
        }
        // On a busy machine this thread wakes late, and the process ran for longer than it should: it waits for longer, too.
        let owed = ran.elapsed() * (100 - percent) / percent;
        stops = owed.clamp(PERIOD - runs, longest);
    }
    turns.lasted = began.elapsed();
    turns
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::CommandExt as _,
        process::{Child, Command},
    };

    use super::*;

    struct Busy(Child);

    impl Busy {
        fn start() -> Self {
            let child = Command::new("sh")
                .args(["-c", "while :; do :; done"])
                .process_group(0)
                .spawn();
            Self(child.expect("a shell"))
        }

        fn pid(&self) -> u32 {
            self.0.id()
        }
    }

    impl Drop for Busy {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_starved_process_gets_its_share_and_runs_freely_afterwards() {
        let busy = Busy::start();
        let starving = Starving::begin(busy.pid(), 10).expect("it runs");
        // The time is what is tried here.
        std::thread::sleep(Duration::from_millis(1_000));
        let starved = starving.end();
        // How many periods there are in a second is the machine's business.
        assert!(starved.took(), "{starved:?}");
        assert!(starved.share < 0.5, "{starved:?}");
        assert!(starved.cpu < starved.lasted / 2, "{starved:?}");
        let process = Process::of(busy.pid()).expect("it still runs");
        assert_ne!(process.state(), Some('T'));
    }

    #[test]
    fn dropped_it_is_over() {
        let busy = Busy::start();
        drop(Starving::begin(busy.pid(), 1).expect("it runs"));
        let process = Process::of(busy.pid()).expect("it still runs");
        assert_ne!(process.state(), Some('T'));
    }

    #[test]
    fn nobody_cannot_be_starved() {
        assert!(Starving::begin(0, 10).is_none());
        assert!(Starving::begin(u32::MAX, 10).is_none());
    }

    #[test]
    fn one_that_is_over_before_it_began_took_no_effect() {
        let nothing = Starved {
            periods: 0,
            share: 1.0,
            cpu: Duration::ZERO,
            lasted: Duration::ZERO,
        };
        assert!(!nothing.took());
    }

    #[test]
    fn a_process_that_ends_meanwhile_ends_it() {
        let mut busy = Busy::start();
        let starving = Starving::begin(busy.pid(), 10).expect("it runs");
        busy.0.kill().expect("it runs");
        busy.0.wait().expect("it was killed");
        starving.end();
    }
}
