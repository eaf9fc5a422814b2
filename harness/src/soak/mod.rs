//! Soaking: the cases again and again for hours, chosen by what is least certain and most suspicious, under changing conditions.
//!
//! ```text
//!  policy    which case next: half of the turns to whoever is behind, half by uncertainty and suspicion
//!  rotation  under which stress: none, CPU, links and addresses, memory, conntrack, the API server, and again
//!  shape     in which world: the document's, or one with a node and a pod more
//!     └────── source ──────> attempts (crate::run) ──> log, report, status
//! ```

mod burden;
mod churn;
mod gossip;
mod policy;
mod pressure;
mod rotation;
mod shape;
mod source;

pub use burden::{BURDEN, Cpu, Memory, burden_main};
pub use churn::LinkChurn;
pub use gossip::Gossip;
pub use policy::Policy;
pub use pressure::ConntrackPressure;
pub use rotation::Rotation;
pub use source::Soak;

/// Attempts of one kind of trouble that leave evidence; of the others there are the log's counters.
pub const KEPT_EVIDENCE: u32 = 3;
