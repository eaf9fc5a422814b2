//! Processes that the harness wants run in the world: candidates, tools, shells.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::exit;

use nix::fcntl::{AtFlags, FcntlArg, FdFlag, OFlag, fcntl};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{
    ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, execveat, execvpe, fork, pipe2, setpgid,
};

use super::root::Root;
use crate::error::Fault;
use crate::wire::{FileEntry, SpawnCommand};

/// Where programs are looked for when a process gets no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts a process in the network namespace that the caller is in, with the view of `node`. Returns once it runs its
/// program.
pub(super) fn spawn(
    command: SpawnCommand,
    node: &str,
    root: &Root,
    fds: Vec<OwnedFd>,
) -> Result<(Pid, OwnedFd), Fault> {
    let what = command.argv.join(" ");
    let fault = |step: &str| {
        let step = format!("{step} {what:?}");
        move |error: nix::Error| Fault::system(step, error)
    };
    let (mut report, reporter) = pipe2(OFlag::O_CLOEXEC)
        .map(|(read, write)| (fs::File::from(read), write))
        .map_err(fault("make a pipe for"))?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }.map_err(fault("fork for"))? {
        ForkResult::Child => {
            let Err(fault) = become_process(&command, node, root, fds);
            let bytes = serde_json::to_vec(&fault).unwrap_or_default();
            let _ = fs::File::from(reporter).write_all(&bytes);
            exit(127)
        }
        ForkResult::Parent { child } => {
            drop(reporter);
            // SAFETY: the child is ours and not reaped yet, so the pid is its; the new descriptor is ours.
            let pidfd = unsafe {
                nix::Error::result(libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0))
                    .map(|fd| OwnedFd::from_raw_fd(fd as i32))
            }
            .map_err(fault("hold"))?;
            // Also set by the child; whichever comes first, signals to the group work from now on.
            let _ = setpgid(child, child);
            let mut bytes = Vec::new();
            let _ = report.read_to_end(&mut bytes);
            if bytes.is_empty() {
                Ok((child, pidfd))
            } else {
                Err(serde_json::from_slice(&bytes)
                    .unwrap_or_else(|_| fault("start")(nix::Error::EIO)))
            }
        }
    }
}

fn become_process(
    command: &SpawnCommand,
    node: &str,
    root: &Root,
    fds: Vec<OwnedFd>,
) -> Result<Infallible, Fault> {
    let mut fds = fds.into_iter();
    let mut next = || {
        fds.next()
            .ok_or_else(|| Fault::system("receive descriptors", nix::Error::EBADF))
    };
    let standard = [next()?, next()?, next()?];
    let exe = if command.exe { Some(next()?) } else { None };

    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .map_err(|e| Fault::user_namespace("make a mount namespace", e))?;
    root.view_as(node)?;
    nix::unistd::sethostname(node).map_err(|e| Fault::system("set the host name", e))?;
    for file in &command.files {
        write_file(file, next()?)
            .map_err(|e| Fault::system(format!("write {}", file.path.display()), e))?;
    }

    let signals = |e| Fault::system("reset signals", e);
    // The new group takes the terminal below while it is not in the foreground yet.
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTTOU);
    stop.thread_set_mask().map_err(signals)?;
    for signal in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default action runs no code of ours.
        unsafe { sigaction(signal, &default) }.map_err(signals)?;
    }
    let own = Pid::from_raw(0);
    setpgid(own, own).map_err(|e| Fault::system("make a process group", e))?;
    if command.terminal {
        nix::unistd::tcsetpgrp(&standard[0], nix::unistd::getpid())
            .map_err(|e| Fault::system("take the terminal", e))?;
    }
    SigSet::empty().thread_set_mask().map_err(signals)?;

    let descriptors = |e| Fault::system("pass descriptors", e);
    dup2_stdin(&standard[0]).map_err(descriptors)?;
    dup2_stdout(&standard[1]).map_err(descriptors)?;
    dup2_stderr(&standard[2]).map_err(descriptors)?;
    drop(standard);
    if let Some(cwd) = &command.cwd {
        std::env::set_current_dir(cwd)
            .map_err(|e| Fault::system(format!("enter {}", cwd.display()), e))?;
    }
    execute(command, exe)
}

fn execute(command: &SpawnCommand, exe: Option<OwnedFd>) -> Result<Infallible, Fault> {
    let fault =
        |error: io::Error| Fault::system(format!("run {:?}", command.argv.join(" ")), error);
    let text = |text: &str| CString::new(text).map_err(|e| fault(e.into()));
    let argv = command
        .argv
        .iter()
        .map(|arg| text(arg))
        .collect::<Result<Vec<_>, _>>()?;
    let program = argv
        .first()
        .ok_or_else(|| fault(io::ErrorKind::InvalidInput.into()))?;
    let mut env = command.env.clone();
    for (name, value) in [("PATH", PATH), ("HOME", "/tmp")] {
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.to_owned(), value.to_owned()));
        }
    }
    // `execvpe` searches the path of this process, not of the new one.
    if let Some((_, path)) = env.iter().find(|(name, _)| name == "PATH") {
        // SAFETY: this process has one thread.
        unsafe { std::env::set_var("PATH", path) };
    }
    let env = env
        .iter()
        .map(|(name, value)| text(&format!("{name}={value}")))
        .collect::<Result<Vec<_>, _>>()?;
    match exe {
        Some(exe) => {
            let mut start = [0; 2];
            let _ = fs::File::from(exe.try_clone().map_err(fault)?).read_exact_at(&mut start, 0);
            if start == *b"#!" {
                // The interpreter opens the script through this descriptor.
                fcntl(exe.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))
                    .map_err(|e| fault(e.into()))?;
            }
            execveat(exe.as_fd(), c"", &argv, &env, AtFlags::AT_EMPTY_PATH)
        }
        None => execvpe(program, &argv, &env),
    }
    .map_err(|e| fault(e.into()))
}

/// Copies what the harness put into a memory file; its offset is shared, so it is read by position.
fn write_file(file: &FileEntry, content: OwnedFd) -> io::Result<()> {
    if let Some(parent) = file.path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut bytes = vec![0; fs::File::from(content.try_clone()?).metadata()?.len() as usize];
    fs::File::from(content).read_exact_at(&mut bytes, 0)?;
    // Not in place: a running process may hold the old one.
    let _ = fs::remove_file(&file.path);
    fs::write(&file.path, &bytes)?;
    fs::set_permissions(&file.path, fs::Permissions::from_mode(file.mode))
}
