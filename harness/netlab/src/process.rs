//! Processes that run inside a world for the harness: candidates, tools, shells.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::net::unix::pipe;

use crate::control::{Control, Exit};
use crate::error::{Result, WorldError};
use crate::init::SHOWN;
use crate::wire::Command;

/// How long a signal may take to be handed on.
const SIGNAL: Duration = Duration::from_secs(10);

/// A file that is written into the node's private `/run`, `/tmp` or `/var` before the process starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSpec {
    /// Absolute path inside the world. Other processes of the same node see it too.
    pub path: PathBuf,
    /// What it holds.
    pub content: Vec<u8>,
    /// Permission bits; 0 means 0644.
    pub mode: u32,
}

/// Which file is executed.
#[derive(Debug)]
pub enum Executable {
    /// A path on the host, which need not be visible inside.
    Path(PathBuf),
    /// An open file; it only has to be readable or executable by the world's user.
    Open(OwnedFd),
}

/// A process to run.
#[derive(Debug, Default)]
pub struct ProcessSpec {
    /// Program and arguments. A program with a slash is a path on the host; one without is looked for in
    /// the harness's own `PATH`, then in the world's.
    pub argv: Vec<String>,
    /// The whole environment; `PATH` and `HOME` are added when they are not in it.
    pub env: Vec<(String, String)>,
    /// Files to write first.
    pub files: Vec<FileSpec>,
    /// Working directory inside the world, `/` when absent.
    pub cwd: Option<PathBuf>,
    /// What to execute when it is not what `argv[0]` says.
    pub exe: Option<Executable>,
}

/// What a finished tool left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

/// A process inside a world, in a process group of its own. Dropping the handle does not end it; the end of the
/// world does. Somebody must read its output: it blocks while a pipe is full, and fails to write when the reader is gone.
pub struct Process {
    control: Arc<Control>,
    inside: i32,
    outside: u32,
    exit: Exit,
    stdout: Mutex<Option<pipe::Receiver>>,
    stderr: Mutex<Option<pipe::Receiver>>,
}

impl Process {
    pub(crate) fn new(
        control: Arc<Control>,
        (inside, exit): (i32, Exit),
        pidfd: &OwnedFd,
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
    ) -> Result<Process> {
        Ok(Process {
            control,
            inside,
            outside: pid_outside(pidfd)
                .map_err(|e| WorldError::system("find the process from outside", e))?,
            exit,
            stdout: Mutex::new(Some(stdout)),
            stderr: Mutex::new(Some(stderr)),
        })
    }

    /// Its pid as the harness sees it; 0 when it had ended before that could be found out.
    pub fn pid(&self) -> u32 {
        self.outside
    }

    /// Its pid as the world's processes see it.
    pub fn pid_inside(&self) -> i32 {
        self.inside
    }

    /// Sends a signal to the process alone.
    ///
    /// # Errors
    /// When it has ended already (`ESRCH`), or the world has.
    pub async fn signal(&self, signal: i32) -> Result<()> {
        self.send(signal, false).await
    }

    /// Sends a signal to the process and everything it started that stayed in its process group.
    ///
    /// # Errors
    /// As for [`Process::signal`].
    pub async fn signal_group(&self, signal: i32) -> Result<()> {
        self.send(signal, true).await
    }

    async fn send(&self, signal: i32, group: bool) -> Result<()> {
        let command = Command::Signal {
            pid: self.inside,
            signal,
            group,
        };
        self.control
            .call(command, &[], "send a signal", SIGNAL)
            .await
            .map(drop)
    }

    /// Waits for its end. When the whole world ends first, that counts as killed.
    pub async fn wait(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or_else(killed),
            Err(_) => killed(),
        }
    }

    /// How it ended, if it has.
    pub fn exited(&self) -> Option<ExitStatus> {
        match *self.exit.borrow() {
            Some(status) => Some(status),
            None => self.exit.has_changed().is_err().then(killed),
        }
    }

    /// Its standard output, once.
    pub fn take_stdout(&self) -> Option<pipe::Receiver> {
        take(&self.stdout)
    }

    /// Its standard error, once.
    pub fn take_stderr(&self) -> Option<pipe::Receiver> {
        take(&self.stderr)
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When the process has ended or `/proc` hides it.
    pub fn rss_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(self.proc("status"))?;
        field(&status, "VmRSS:")
            .map(|kib| kib * 1024)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
    }

    /// Most resident memory it ever had, in bytes.
    ///
    /// # Errors
    /// As for [`Process::rss_bytes`].
    pub fn peak_rss_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(self.proc("status"))?;
        field(&status, "VmHWM:")
            .map(|kib| kib * 1024)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
    }

    /// How many descriptors it has open.
    ///
    /// # Errors
    /// As for [`Process::rss_bytes`].
    pub fn open_fds(&self) -> io::Result<usize> {
        Ok(fs::read_dir(self.proc("fd"))?.count())
    }

    /// Processor time it has used, its waited-for children not included.
    ///
    /// # Errors
    /// As for [`Process::rss_bytes`].
    pub fn cpu_time(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(self.proc("stat"))?;
        // The name in parentheses may hold anything; utime and stime are fields 14 and 15 of the line.
        let ticks: u64 = stat
            .rsplit_once(')')
            .map_or("", |(_, rest)| rest)
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
            .ok()
            .flatten()
            .unwrap_or(100);
        Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.outside))
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("pid", &self.outside)
            .field("inside", &self.inside)
            .field("exited", &self.exited())
            .finish()
    }
}

fn killed() -> ExitStatus {
    ExitStatus::from_raw(libc::SIGKILL)
}

fn take(pipe: &Mutex<Option<pipe::Receiver>>) -> Option<pipe::Receiver> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The kernel translates the pid for whoever reads this: -1 once the process is reaped, which is no pid to look at.
fn pid_outside(pidfd: &OwnedFd) -> io::Result<u32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    Ok(field(&info, "Pid:").unwrap_or(0) as u32)
}

/// A memory file with this content, to be passed into the world.
pub(crate) fn memory_file(content: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create(c"netlab", MFdFlags::MFD_CLOEXEC)?;
    let mut file = fs::File::from(fd);
    file.write_all(content)?;
    Ok(file.into())
}

/// The descriptor to execute, or `None` when the world finds the program at the path in `argv` itself.
pub(crate) fn executable(spec: &mut ProcessSpec) -> Result<Option<OwnedFd>> {
    let path = match spec.exe.take() {
        Some(Executable::Open(fd)) => {
            let failed = |e| WorldError::system("read the executable", e);
            return runnable(fs::File::from(fd)).map(Some).map_err(failed);
        }
        Some(Executable::Path(path)) => path,
        None => {
            let Some(program) = spec.argv.first() else {
                let error = io::Error::from(io::ErrorKind::InvalidInput);
                return Err(WorldError::system("run an empty command", error));
            };
            let found = if program.contains('/') {
                Some(PathBuf::from(program))
            } else {
                find(program)
            };
            let Some(path) = found else {
                return Ok(None);
            };
            if let Some(inside) = visible(&path) {
                if program.contains('/') {
                    spec.argv[0] = inside;
                }
                return Ok(None);
            }
            path
        }
    };
    let failed = |e| WorldError::system(format!("open {}", path.display()), e);
    let file = fs::File::open(&path).map_err(failed)?;
    runnable(file).map(Some).map_err(failed)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|path| {
            fs::metadata(path)
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
}

/// The path when it means the same file inside, and the world's user may execute it.
fn visible(path: &Path) -> Option<String> {
    let real = fs::canonicalize(path).ok()?;
    let top = real.strip_prefix("/").ok()?.components().next()?;
    let shown = SHOWN.iter().any(|name| top.as_os_str() == *name);
    if !shown || !may_execute(&fs::metadata(&real).ok()?) {
        return None;
    }
    // The name may matter to the program (busybox), so keep it where the link is visible as well.
    let absolute = std::path::absolute(path).ok()?;
    let linked = SHOWN
        .iter()
        .any(|name| absolute.starts_with(Path::new("/").join(name)));
    let path = if linked { absolute } else { real };
    path.into_os_string().into_string().ok()
}

/// Root runs worlds as nobody, who may execute only what everybody may.
fn may_execute(meta: &fs::Metadata) -> bool {
    !nix::unistd::geteuid().is_root() || meta.permissions().mode() & 0o005 == 0o005
}

/// The file itself, or a copy in memory when the world's user may not execute it.
fn runnable(mut file: fs::File) -> io::Result<OwnedFd> {
    if may_execute(&file.metadata()?) {
        return Ok(file.into());
    }
    let copy = memfd_create(c"executable", MFdFlags::MFD_CLOEXEC)?;
    let mut copy = fs::File::from(copy);
    io::copy(&mut file, &mut copy)?;
    // A file that is open for writing cannot be executed, so hand out one that is open for reading.
    let read = fs::File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    drop(copy);
    Ok(read.into())
}
