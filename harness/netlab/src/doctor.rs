//! What this machine can do for worlds, by trying each thing in a throwaway one.
use crate::error::Fault;
use std::os::fd::BorrowedFd;

/// Mode of the hidden subcommand that tries things instead of building.
pub(crate) const MODE: &str = "doctor";

pub(crate) fn examine(_control: BorrowedFd<'_>) -> Result<(), Fault> {
    Ok(())
}
