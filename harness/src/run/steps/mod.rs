//! What the verbs do to a running cluster: one file per verb.

mod change;
mod converge;
mod direct;
pub(super) mod fault;
pub(super) mod flow;
mod hold;
mod inject;
mod probe;
pub(super) mod state;

pub(crate) use probe::disagreement;
