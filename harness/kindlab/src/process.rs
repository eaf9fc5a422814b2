//! Processes as the kernel sees them: whether one still is the one it was, and handles that never mean another.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A handle of a process. It keeps meaning that process when its number is used again.
#[derive(Debug)]
pub(crate) struct PidFd(OwnedFd);

impl PidFd {
    /// A handle of the process that has this number now.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor, or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Kills the process; one that has ended already is not an error.
    pub(crate) fn kill(&self) {
        // SAFETY: pidfd_send_signal takes a descriptor, a signal, no information and no flags.
        let _ = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                libc::SIGKILL,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// `R`, `S`, `Z` ...
    pub(crate) state: u8,
    /// The process group.
    pub(crate) group: u32,
    /// When it started, in ticks since the machine booted: together with the number, this is one process and no other.
    pub(crate) started: u64,
}

impl Stat {
    pub(crate) fn read(pid: u32) -> io::Result<Self> {
        let text = fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&String::from_utf8_lossy(&text))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat"))
    }

    fn parse(text: &str) -> Option<Self> {
        // The name in parentheses may contain anything, also parentheses and spaces.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(Self {
            state: *fields.first()?.as_bytes().first()?,
            group: fields.get(2)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

/// The living processes of a process group except its leader, whose arguments after the program are such. The leader must not have been reaped yet: as
/// long as it has not, its number is not used again.
pub(crate) fn others_in_group(leader: u32, fits: impl Fn(&[&str]) -> bool) -> Vec<PidFd> {
    handles(|pid| {
        let in_group = Stat::read(pid).is_ok_and(|stat| stat.group == leader && stat.state != b'Z');
        pid != leader && in_group && arguments(pid, &fits)
    })
}

/// The processes of this machine that have inherited this from one that was started with it in its environment, as `NAME=value`; and of those the ones whose
/// arguments after the program are such. Those that may not be looked at are not seen.
pub(crate) fn with_environment(entry: &[u8], fits: impl Fn(&[&str]) -> bool) -> Vec<PidFd> {
    handles(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|is| is == entry) && arguments(pid, &fits)
    })
}

fn arguments(pid: u32, fits: impl Fn(&[&str]) -> bool) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    let words: Vec<&str> = line.trim_end_matches('\0').split('\0').skip(1).collect();
    fits(&words)
}

fn handles(fits: impl Fn(u32) -> bool) -> Vec<PidFd> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| fits(*pid))
        .filter_map(|pid| {
            let handle = PidFd::open(pid).ok()?;
            // The number may have changed hands between the look and the handle.
            fits(pid).then_some(handle)
        })
        .collect()
}

/// Waits until all these processes have ended; false at the deadline.
pub(crate) fn all_ended(processes: &[PidFd], deadline: Instant) -> bool {
    processes.iter().all(|process| {
        loop {
            let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, until(deadline)) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    })
}

/// The time that is left, as `poll` wants it: in milliseconds, rounded up.
pub(crate) fn until(deadline: Instant) -> PollTimeout {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = left + Duration::from_micros(999);
    PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_whatever_the_process_is_called() {
        let line = "7 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2 3";
        assert_eq!(
            Stat::parse(line),
            Some(Stat {
                state: b'S',
                group: 42,
                started: 98765
            })
        );
        assert_eq!(Stat::parse("7 (sh"), None);
        let own = Stat::read(std::process::id()).unwrap();
        assert_eq!(
            own,
            Stat {
                state: own.state,
                ..Stat::read(std::process::id()).unwrap()
            }
        );
    }
}
