//! Pressure on the whole machine: CPU hogs and memory.
//!
//! ```no_run
//! # use harness::nemesis::Stress;
//! let pressure = Stress::CPU.begin()?;
//! // ... attempts ...
//! let effect = pressure.end()?;
//! assert!(effect.took, "it did nothing, so nothing survived it");
//! # Ok::<(), std::io::Error>(())
//! ```

use std::{
    fmt,
    fs::{self, read_to_string},
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    str::FromStr,
};

use super::hog::{READY, SUBCOMMAND, Used};

/// More of the available memory than this is never taken: others have to go on, too.
const MOST_MEMORY: u32 = 80;

/// Pressure on the machine, with its dose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stress {
    /// Threads that never sleep: this many per CPU. With one, everybody else gets half of the CPUs where they want all.
    Cpu {
        /// Threads per CPU.
        hogs: u32,
    },
    /// The same with so many that others get next to nothing: a CPU is shared by this many and whoever else wants it.
    Starvation {
        /// Threads per CPU.
        hogs: u32,
    },
    /// Memory that is held and used, in percent of what was available, at most 80.
    Memory {
        /// Percent of the available memory.
        percent: u32,
    },
}

/// A number with what it counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// Unit of the value, as in `Measured` events.
    pub unit: &'static str,
    /// The value.
    pub value: f64,
}

/// What a nemesis did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// Which one it was.
    pub stress: Stress,
    /// What was asked for.
    pub dose: Figure,
    /// What was seen of it.
    pub effect: Figure,
    /// Whether it did anything. If not, nothing has survived it.
    pub took: bool,
}

/// A nemesis at work. It ends when this is dropped, and when this process ends in whatever way.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Pressure {
    stress: Stress,
    dose: Figure,
    cpus: u32,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Stress {
    /// One hog per CPU.
    pub const CPU: Self = Self::Cpu { hogs: 1 };
    /// Eight hogs per CPU: whoever wants a CPU gets a ninth of it.
    pub const STARVATION: Self = Self::Starvation { hogs: 8 };
    /// Half of the available memory.
    pub const MEMORY: Self = Self::Memory { percent: 50 };
    /// All, in the doses that rotations use.
    pub const ALL: [Self; 3] = [Self::CPU, Self::STARVATION, Self::MEMORY];

    /// Its name on command lines and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu { .. } => "cpu",
            Self::Starvation { .. } => "starvation",
            Self::Memory { .. } => "memory",
        }
    }

    /// Begins; when this returns the dose is there. Blocks for as long as filling the memory takes.
    ///
    /// # Errors
    /// When the process that does it cannot be started, or does not get its memory; nothing is left then.
    pub fn begin(self) -> io::Result<Pressure> {
        self.begin_as(&PathBuf::from("/proc/self/exe"))
    }

    /// As [`Self::begin`], by a program whose `main` hands [`SUBCOMMAND`] to [`super::hog_main`].
    ///
    /// # Errors
    /// As for [`Self::begin`].
    pub fn begin_as(self, program: &Path) -> io::Result<Pressure> {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32);
        let (kind, amount, dose) = match self {
            Self::Cpu { hogs } | Self::Starvation { hogs } => (
                "cpu",
                u64::from(hogs * cpus),
                figure("hogs per CPU", "count", f64::from(hogs)),
            ),
            Self::Memory { percent } => {
                let percent = percent.min(MOST_MEMORY);
                let bytes = available_memory()? / 100 * u64::from(percent);
                (
                    "memory",
                    bytes,
                    figure("memory held", "bytes", bytes as f64),
                )
            }
        };
        let mut child = Command::new(program)
            .args([SUBCOMMAND, kind, &amount.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("no pipes to the nemesis"));
        };
        let mut pressure = Pressure {
            stress: self,
            dose,
            cpus,
            child,
            input: Some(input),
            output: BufReader::new(output),
        };
        let line = pressure.line()?;
        if line == READY {
            Ok(pressure)
        } else {
            Err(io::Error::other(format!(
                "the nemesis '{self}' did not begin"
            )))
        }
    }
}

impl Pressure {
    /// What it is.
    pub fn stress(&self) -> Stress {
        self.stress
    }

    /// Pid of the process that does it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it and tells what it did.
    ///
    /// # Errors
    /// When it had ended before, as when the kernel ran out of memory and killed it. It counts as without effect then.
    pub fn end(mut self) -> io::Result<Effect> {
        drop(self.input.take());
        let line = self.line()?;
        let used: Used = serde_json::from_str(&line).map_err(|_| {
            io::Error::other(format!(
                "the nemesis '{}' ended before its time",
                self.stress
            ))
        })?;
        let (effect, took) = match self.stress {
            Stress::Cpu { .. } | Stress::Starvation { .. } => {
                let all = used.seconds * f64::from(self.cpus);
                let share = if all > 0.0 {
                    used.cpu_seconds / all
                } else {
                    0.0
                };
                (
                    figure("CPU time taken from others", "ratio", share),
                    share > 0.0,
                )
            }
            Stress::Memory { .. } => {
                let resident = used.resident_bytes as f64;
                // What the kernel swapped out again presses on nobody.
                let took = resident >= self.dose.value / 2.0 && resident > 0.0;
                (figure("memory resident", "bytes", resident), took)
            }
        };
        Ok(Effect {
            stress: self.stress,
            dose: self.dose,
            effect,
            took,
        })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Pressure {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl fmt::Display for Stress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Stress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|stress| stress.name() == text);
        found.ok_or_else(|| format!("'{text}' is none of {}", names()))
    }
}

fn figure(name: &'static str, unit: &'static str, value: f64) -> Figure {
    Figure { name, unit, value }
}

/// What can be taken without swapping, in bytes: of the machine, or of the control group where that is less.
fn available_memory() -> io::Result<u64> {
    let machine = read_to_string("/proc/meminfo")?
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other("/proc/meminfo has no MemAvailable"))?;
    Ok(machine.min(group_memory().unwrap_or(u64::MAX)))
}

/// What the control group of this process has left; containers are limited so.
fn group_memory() -> Option<u64> {
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = read_to_string("/proc/self/cgroup").ok()?;
    let group = group.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mut directory = Path::new("/sys/fs/cgroup").join(group);
    let mut least = None;
    // A limit of any group above holds, too.
    while directory.starts_with("/sys/fs/cgroup") {
        if let (Some(limit), Some(used)) = (
            number(&directory.join("memory.max")),
            number(&directory.join("memory.current")),
        ) {
            let left = limit.saturating_sub(used);
            least = Some(least.map_or(left, |least: u64| least.min(left)));
        }
        if !directory.pop() {
            break;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for stress in Stress::ALL {
            assert_eq!(stress.name().parse(), Ok(stress));
        }
        let error = "network".parse::<Stress>().unwrap_err();
        assert_eq!(error, "'network' is none of cpu, starvation, memory");
    }

    #[test]
    fn what_cannot_begin_is_an_error() {
        // It says nothing that a nemesis says.
        let error = Stress::CPU.begin_as(Path::new("/bin/false")).unwrap_err();
        assert!(error.to_string().contains("did not begin"), "{error}");
        assert!(Stress::CPU.begin_as(Path::new("/no/such/program")).is_err());
    }
}
