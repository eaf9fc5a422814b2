//! The bundled reference nftables Service proxy.
//!
//! ```text
//!   Services, EndpointSlices, Node ──watch──> store ──compile──> elements ──difference──> one netlink transaction
//! ```
//!
//! Nothing here depends on the harness; to the harness this is a candidate like any other. `README.md` explains the packet path.

pub mod addresses;
pub mod backend;
mod cli;
pub mod compile;
pub mod conntrack;
pub mod endpoints;
pub mod engine;
pub mod health;
pub mod metrics;
pub mod model;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod nft;
pub mod objects;
pub mod ruleset;
pub mod seams;
pub mod state;
pub mod watch;

pub use cli::main_with_args;
