//! From the harness's child process to PID 1 of a world: namespaces and user ids.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::exit;

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, Uid, dup2_stdin, getegid, geteuid, getppid, pipe2, setpgid};

use super::serve;
use crate::error::Fault;
use crate::wire::{self, FromWorld};

/// Inside a world started by root everything runs as this user of the host: `nobody` on every distribution.
const NOBODY: u32 = 65534;

/// Entry of the hidden `__world` subcommand: `args` is what follows that word. Must be called first thing in
/// `main`, before any thread exists. Standard input is the control socket.
pub fn world_main(args: &[String]) -> ! {
    // Ctrl-C in the terminal is for the harness, which still wants to collect evidence here.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    let control = match take_control() {
        Ok(control) => control,
        Err(error) => {
            eprintln!("failed to take over the control socket: {error}");
            exit(2);
        }
    };
    let parent = args.first().and_then(|arg| arg.parse().ok());
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    if parent != Some(getppid().as_raw()) {
        // The harness died before the line above could take effect, or this is not the harness's child at all.
        exit(1);
    }
    let examine = args.get(1).is_some_and(|arg| arg == crate::doctor::MODE);
    match outer(&control, examine) {
        Ok(code) => exit(code),
        Err(fault) => {
            let _ = wire::send(control.as_fd(), &FromWorld::Fault(fault), &[]);
            exit(1);
        }
    }
}

/// Moves the control socket away from standard input.
fn take_control() -> io::Result<OwnedFd> {
    let stdin = io::stdin();
    let raw = fcntl(stdin.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: the descriptor was made on the line above.
    let control = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(raw) };
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    Ok(control)
}

/// Makes the namespaces and waits for the end of PID 1.
fn outer(control: &OwnedFd, examine: bool) -> Result<i32, Fault> {
    let uid = geteuid();
    if uid.is_root() {
        // Supplementary groups cannot be dropped any more once the group map is written.
        let _ = nix::unistd::setgroups(&[]);
    }
    let (go_read, go_write) =
        pipe2(OFlag::O_CLOEXEC).map_err(|error| Fault::system("make a pipe", error))?;
    let flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    // SAFETY: this process has one thread, so the child can go on like after fork(); the null stack means a copy
    // of the parent's.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(flags | libc::SIGCHLD),
            0,
            0,
            0,
            0,
        )
    };
    match pid {
        -1 => Err(Fault::user_namespace(
            "make a user namespace",
            io::Error::last_os_error(),
        )),
        0 => {
            drop(go_write);
            let mut go = [0];
            if fs::File::from(go_read).read_exact(&mut go).is_err() {
                exit(1);
            }
            first_process(control, examine)
        }
        pid => {
            let pid = Pid::from_raw(pid as i32);
            drop(go_read);
            map_ids(pid, uid)?;
            fs::File::from(go_write)
                .write_all(&[1])
                .map_err(|error| Fault::system("start the first process", error))?;
            // PID 1 must be the only one to hold the socket, so that its end can be seen.
            close(control);
            loop {
                match waitpid(pid, None) {
                    Ok(WaitStatus::Exited(_, code)) => return Ok(code),
                    Ok(WaitStatus::Signaled(..)) => return Ok(1),
                    Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                    Err(error) => return Err(Fault::system("wait for the first process", error)),
                }
            }
        }
    }
}

fn close(fd: &OwnedFd) {
    // The owner lives on in `world_main`, which only sends on it when this was not reached: point it elsewhere.
    if let Ok(null) = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()) {
        // SAFETY: both descriptors are open; the target is replaced atomically and stays owned.
        unsafe { libc::dup3(null.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) };
    }
}

/// Maps root inside to the user that everything in the world is outside: the caller, or nobody for root.
fn map_ids(pid: Pid, uid: Uid) -> Result<(), Fault> {
    let fault = |step: &str| {
        let step = step.to_owned();
        move |error: io::Error| Fault::user_namespace(step, error)
    };
    let write = |file: &str, text: &str| fs::write(format!("/proc/{pid}/{file}"), text);
    write("setgroups", "deny").map_err(fault("deny setgroups"))?;
    let own = |id: u32| format!("0 {id} 1");
    if uid.is_root() {
        // Where we are root of a user namespace that lacks nobody (a rootless container), root has to do.
        let nobody = own(NOBODY);
        write("gid_map", &nobody)
            .or_else(|_| write("gid_map", &own(getegid().as_raw())))
            .map_err(fault("map the group id"))?;
        return write("uid_map", &nobody)
            .or_else(|_| write("uid_map", &own(uid.as_raw())))
            .map_err(fault("map the user id"));
    }
    write("gid_map", &own(getegid().as_raw())).map_err(fault("map the group id"))?;
    write("uid_map", &own(uid.as_raw())).map_err(fault("map the user id"))
}

/// PID 1, as root of the new user namespace and as nobody in particular outside.
fn first_process(control: &OwnedFd, examine: bool) -> ! {
    let result = become_root_inside().and_then(|()| {
        if examine {
            crate::doctor::examine(control.as_fd())
        } else {
            serve::serve(control.as_fd())
        }
    });
    match result {
        Ok(()) => exit(0),
        Err(fault) => {
            let _ = wire::send(control.as_fd(), &FromWorld::Fault(fault), &[]);
            exit(1)
        }
    }
}

fn become_root_inside() -> Result<(), Fault> {
    let fault = |step: &str| {
        let step = step.to_owned();
        move |error: nix::Error| Fault::user_namespace(step, error)
    };
    nix::unistd::setresgid(0.into(), 0.into(), 0.into()).map_err(fault("become group 0 inside"))?;
    nix::unistd::setresuid(0.into(), 0.into(), 0.into()).map_err(fault("become user 0 inside"))?;
    // Both are lost when the ids change, so they come after that.
    prctl::set_dumpable(true).map_err(fault("become dumpable"))?;
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(fault("ask to die with the parent"))?;
    let name = CString::new("world").unwrap_or_default();
    let _ = prctl::set_name(&name);
    nix::unistd::sethostname("world").map_err(fault("name the world"))
}
