//! Runs one program to its end, and never longer than it may: with a deadline, a process group of its own that is killed with it, and an entry in
//! the log.
//!
//! All of it blocks; [`off`](crate::off) makes futures of it.

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::classify::{Transcript, classify};
use crate::error::{KindError, Result};
use crate::log::{Call, CallLog, Ended};
use crate::process::{PidFd, others_in_group, until};

/// Whether anybody still waits for what is being done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancel(Option<Arc<PipeReader>>);

/// Cancels when dropped.
#[derive(Debug)]
pub(crate) struct CancelOnDrop {
    _writer: PipeWriter,
}

impl Cancel {
    /// Nobody can cancel it.
    pub(crate) fn never() -> Self {
        Self(None)
    }

    pub(crate) fn pair() -> io::Result<(CancelOnDrop, Self)> {
        let (reader, writer) = io::pipe()?;
        Ok((
            CancelOnDrop { _writer: writer },
            Self(Some(Arc::new(reader))),
        ))
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        let Some(reader) = &self.0 else { return false };
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(|reader| reader.as_fd())
    }
}

/// How programs are run: in which environment, and where it is written down.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    pub(crate) log: CallLog,
    pub(crate) env: Arc<Vec<(OsString, Option<OsString>)>>,
    pub(crate) cancel: Cancel,
}

impl Runner {
    /// The same, cancelled by something else.
    pub(crate) fn under(&self, cancel: &Cancel) -> Self {
        Self {
            cancel: cancel.clone(),
            ..self.clone()
        }
    }

    /// A command in the right environment and in a process group of its own, so that Ctrl-C in a terminal reaches the harness alone.
    pub(crate) fn command(&self, program: &Path, args: &[OsString]) -> Command {
        let mut command = Command::new(program);
        command.args(args).process_group(0);
        for (name, value) in self.env.iter() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }
}

/// A program about to be run.
#[derive(Debug)]
pub(crate) struct Invocation {
    program: PathBuf,
    args: Vec<OsString>,
    stdin: Option<Vec<u8>>,
    deadline: Duration,
    what: String,
    secret: bool,
    spared: Option<&'static str>,
    env: Option<(&'static str, OsString)>,
}

impl Invocation {
    /// A program, what its end means (for "... took longer than 60 s"), and how long it may take.
    pub(crate) fn new(program: &Path, what: impl Into<String>, deadline: Duration) -> Self {
        Self {
            program: program.to_owned(),
            args: Vec::new(),
            stdin: None,
            deadline,
            what: what.into(),
            secret: false,
            spared: None,
            env: None,
        }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(crate) fn stdin(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = Some(bytes);
        self
    }

    /// Its standard output holds keys and does not go into the log.
    pub(crate) fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// When the program is killed, what it started is killed as well, except commands with this first argument. A `docker run` that is killed in the middle
    /// may make its container nevertheless, after everybody has looked whether there is one.
    pub(crate) fn sparing(mut self, verb: &'static str) -> Self {
        self.spared = Some(verb);
        self
    }

    /// A variable of its environment, beside those of the runner.
    pub(crate) fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.env = Some((name, value.as_ref().to_owned()));
        self
    }

    fn argv(&self) -> Vec<String> {
        let name = self.program.file_name().unwrap_or(self.program.as_os_str());
        std::iter::once(name)
            .chain(self.args.iter().map(OsString::as_os_str))
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    }

    /// Runs it to its end. It is an error if it could not be started, and not if it failed: see [`Finished::success`].
    pub(crate) fn run(mut self, runner: &Runner) -> Result<Finished> {
        let argv = self.argv();
        let started = SystemTime::now();
        let clock = Instant::now();
        let deadline = clock + self.deadline;
        let mut command = runner.command(&self.program, &self.args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
            .stdin(if self.stdin.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: prctl is a system call; nothing is allocated between fork and exec.
        unsafe {
            command.pre_exec(|| {
                // If the harness is killed, nobody is left to delete what this makes. The thread that runs it lives as long as it does.
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let spawned = if runner.cancel.is_cancelled() {
            Err(KindError::Cancelled {
                what: self.what.clone(),
            })
        } else {
            command.spawn().map_err(|error| self.not_started(error))
        };
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                runner.log.push(Call {
                    argv,
                    started,
                    took: clock.elapsed(),
                    ended: Ended::NotStarted,
                    stdout: String::new(),
                    stderr: error.to_string(),
                });
                return Err(error);
            }
        };
        if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), self.stdin.take()) {
            // Ends when everything is written, or when the program has ended.
            thread::spawn(move || pipe.write_all(&bytes));
        }
        let watched = watch(&mut child, deadline, &runner.cancel, self.spared);
        let (ended, stdout, stderr) = match watched {
            Ok(watched) => watched,
            Err(error) => {
                let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
                let _ = child.wait();
                return Err(KindError::system(
                    format!("watch `{}`", argv.join(" ")),
                    error,
                ));
            }
        };
        let finished = Finished {
            argv,
            ended,
            stdout,
            stderr,
            what: self.what,
            deadline: self.deadline,
        };
        runner.log.push(Call {
            argv: finished.argv.clone(),
            started,
            took: clock.elapsed(),
            ended,
            stdout: if self.secret {
                format!("({} bytes, which hold keys)", finished.stdout.len())
            } else {
                finished.text().into_owned()
            },
            stderr: String::from_utf8_lossy(&finished.stderr).into_owned(),
        });
        Ok(finished)
    }

    fn not_started(&self, error: io::Error) -> KindError {
        if error.kind() == io::ErrorKind::NotFound {
            KindError::NotInstalled {
                program: self.program.display().to_string(),
                hint: "install it, or put it into PATH".to_owned(),
            }
        } else {
            KindError::system(format!("start {}", self.program.display()), error)
        }
    }
}

/// A program that has ended, in whatever way.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) argv: Vec<String>,
    pub(crate) ended: Ended,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    what: String,
    deadline: Duration,
}

impl Finished {
    pub(crate) fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// The lines of its standard output that are not empty.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.text()
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// Itself if the program exited with code 0, and otherwise what that means.
    pub(crate) fn success(self) -> Result<Self> {
        match self.ended {
            Ended::Exited(0) => Ok(self),
            _ => Err(self.error()),
        }
    }

    /// What it means that the program did not exit with code 0.
    pub(crate) fn error(&self) -> KindError {
        let stderr = String::from_utf8_lossy(&self.stderr);
        match self.ended {
            Ended::Deadline => KindError::Timeout {
                what: self.what.clone(),
                after: Some(self.deadline),
                detail: crate::classify::last_words(&stderr),
            },
            Ended::Cancelled => KindError::Cancelled {
                what: self.what.clone(),
            },
            ended => classify(&Transcript {
                argv: self.argv.clone(),
                ended,
                stdout: self.text().into_owned(),
                stderr: stderr.into_owned(),
            }),
        }
    }
}

type Watched = (Ended, Vec<u8>, Vec<u8>);

/// Reads what the program writes until it ends, and ends it if it has to. What others hold open after its end is not waited for.
fn watch(
    child: &mut Child,
    deadline: Instant,
    cancel: &Cancel,
    spared: Option<&'static str>,
) -> io::Result<Watched> {
    let process = PidFd::open(child.id())?;
    let mut stdout = Stream::new(child.stdout.take())?;
    let mut stderr = Stream::new(child.stderr.take())?;
    let forced = loop {
        let mut fds = vec![PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        fds.extend(cancel.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let streams = fds.len();
        fds.extend(stdout.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        fds.extend(stderr.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut fds, until(deadline)) {
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        let ready: Vec<bool> = fds
            .iter()
            .map(|fd| fd.revents().is_some_and(|events| !events.is_empty()))
            .collect();
        drop(fds);
        if ready[streams..].contains(&true) {
            stdout.read()?;
            stderr.read()?;
        }
        if ready[0] {
            break None;
        }
        if ready[1..streams].contains(&true) {
            break Some(Ended::Cancelled);
        }
        if Instant::now() >= deadline {
            break Some(Ended::Deadline);
        }
    };
    if forced.is_some() {
        // It has not been reaped, so this number is still its own.
        let group = child.id();
        match spared {
            None => drop(killpg(Pid::from_raw(group as i32), Signal::SIGKILL)),
            Some(verb) => {
                child.kill()?;
                others_in_group(group, |words| words.first() != Some(&verb))
                    .iter()
                    .for_each(PidFd::kill);
            }
        }
    }
    let status = child.wait()?;
    // What it wrote before its end is in the pipes.
    stdout.read()?;
    stderr.read()?;
    let ended = forced.unwrap_or_else(|| match status.code() {
        Some(code) => Ended::Exited(code),
        None => Ended::Signalled(status.signal().unwrap_or(0)),
    });
    Ok((ended, stdout.bytes, stderr.bytes))
}

/// A pipe that is read without waiting.
struct Stream<R> {
    pipe: Option<R>,
    bytes: Vec<u8>,
}

impl<R: Read + AsFd> Stream<R> {
    fn new(pipe: Option<R>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self {
            pipe,
            bytes: Vec::new(),
        })
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    fn read(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else {
            return Ok(());
        };
        match pipe.read_to_end(&mut self.bytes) {
            Ok(_) => self.pipe = None,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
