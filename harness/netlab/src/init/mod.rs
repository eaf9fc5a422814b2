//! What runs inside a world: its single-threaded first process and the processes that one forks.
//!
//! ```text
//! harness ──spawns──> outer ──clones into new namespaces──> PID 1 ──forks──> agents (one per box)
//!    │                (maps user ids, waits)                  │    └─forks──> candidates
//!    └───────────────── control socket ───────────────────────┘
//! ```
//!
//! Whoever dies, everything to its right dies: the outer process and PID 1 ask for SIGKILL at the death of their
//! parent, PID 1 also ends when the control socket closes, and the kernel kills a PID namespace with its PID 1.

mod agents;
mod enter;
mod network;
mod processes;
mod root;
mod serve;

pub use enter::world_main;
pub(crate) use root::SHOWN;

/// Whether a world's file system can be made, for the doctor; the calling process lives in it afterwards.
pub(crate) fn try_root() -> Result<(), crate::error::WorldError> {
    root::enter(Vec::new()).map(drop).map_err(Into::into)
}
