//! The seam between this crate and the probe agents: starting one inside, talking to one from outside.

use std::os::fd::OwnedFd;

/// Runs an agent until its channel closes; the calling process must have one thread and nothing to lose.
pub(crate) fn run(read: OwnedFd, write: OwnedFd) -> ! {
    match probe::agent::run(read, write) {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("failed to run the agent: {error}");
            std::process::exit(1)
        }
    }
}
