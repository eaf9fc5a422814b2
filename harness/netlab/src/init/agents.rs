//! Probe agents: forked from PID 1 without exec, so that they cost a millisecond each.

use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::exit;

use nix::sys::signal::SigSet;
use nix::unistd::{ForkResult, Pid, fork};

use crate::error::Fault;

/// Forks an agent into the network namespace that the caller is in.
pub(super) fn start(who: &str, channel: &OwnedFd) -> Result<Pid, Fault> {
    // SAFETY: this process has one thread.
    match unsafe { fork() }.map_err(|e| Fault::system(format!("fork the agent of {who}"), e))? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => run(who, channel),
    }
}

/// First descriptor of an agent that is not one of the standard ones.
const CHANNEL: RawFd = 3;

fn run(who: &str, channel: &OwnedFd) -> ! {
    let _ = SigSet::empty().thread_set_mask();
    // The control socket and the other agents' channels must not live on here: their ends mean something.
    // SAFETY: everything at 5 and above is closed at once and never used again in this process, which leaves by exit();
    // 3 and 4 are taken over whoever had them before.
    let (read, write) = unsafe {
        let parked = libc::fcntl(channel.as_raw_fd(), libc::F_DUPFD_CLOEXEC, CHANNEL + 2);
        if parked < 0
            || libc::dup3(parked, CHANNEL, libc::O_CLOEXEC) < 0
            || libc::dup3(parked, CHANNEL + 1, libc::O_CLOEXEC) < 0
            || libc::syscall(libc::SYS_close_range, CHANNEL + 2, libc::c_uint::MAX, 0) < 0
        {
            exit(2);
        }
        (
            OwnedFd::from_raw_fd(CHANNEL),
            OwnedFd::from_raw_fd(CHANNEL + 1),
        )
    };
    if let Ok(name) = std::ffi::CString::new(format!("agent {who}")) {
        let _ = nix::sys::prctl::set_name(&name);
    }
    let _ = std::io::stderr().flush();
    crate::agent::run(read, write)
}
