//! Conformance and regression test harness for Kubernetes service proxies.
//!
//! The command is in [`cli`]; what it stands on, from top to bottom: [`plan`] (which cases), [`run`] (attempts, verdicts,
//! the event log), [`scenario`] (documents), [`cluster`] (worlds with a candidate in them) and [`candidate`] (manifests).
//! Beside them: [`soak`] (the cases for hours), [`coverage`] (what the catalogue stands for), [`diff`] (two candidates compared),
//! [`experiment`] (what kind of failure it is), [`nemesis`] (what goes wrong meanwhile), and `canary` (whether a run would have noticed).

pub mod bench;
mod canary;
pub mod candidate;
pub mod cli;
pub mod cluster;
pub mod coverage;
pub mod diff;
pub mod experiment;
pub mod hunt;
pub mod nemesis;
pub mod plan;
mod roles;
pub mod run;
pub mod scenario;
pub mod selftest;
pub mod soak;
pub mod upstream;

pub use roles::dispatch;
