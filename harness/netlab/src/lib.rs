//! Worlds made of network namespaces: nodes, pods, an outside client and the wires between them.
//!
//! ```text
//!              10.99.0.0/24                    10.89.0.0/24 (node network)
//!  +---------+              +--------+        +-----------------------------+
//!  | outside |--------------| router |--------| fabric: bridge, api .2      |
//!  | .11 .12 |  .1 (mtu)    +--------+   .1   +--+-----------+-----------+--+
//!  +---------+                                   | .11       | .12       | .201
//!                                            +---+---+   +---+---+   +---+----+
//!                                            | node1 |   | node2 |   | client |
//!                                            +-+---+-+   +---+---+   +--------+
//!                                   10.244.1.1 |   |         | 10.244.2.1
//!                                        pod .11  pod .12   pod .11
//! ```
//!
//! One [`World`] is one user, mount, PID, IPC and UTS namespace and one network namespace per box above. It
//! needs no root. Its first process is PID 1 of its PID namespace, so the kernel removes everything when that
//! process ends, however it ends.
//!
//! What this crate is not: it knows nothing of Services, of the API or of verdicts.

mod agent;
mod blueprint;
mod control;
mod doctor;
mod error;
mod init;
mod leftovers;
mod limits;
mod measure;
mod netlink;
pub mod plan;
mod process;
mod spawner;
pub mod topology;
mod wire;
mod world;

pub use doctor::{Finding, doctor, doctor_with};
pub use error::{Result, WorldError};
pub use init::world_main;
pub use leftovers::{Leftover, clean, leftovers};
pub use measure::measure_build;
pub use plan::{Family, NodeAddresses, OutsideAddresses, Plan, PlanError, PodAddresses};
pub use process::{Executable, FileSpec, Output, Process, ProcessSpec};
pub use topology::{ClientSpec, NodeSpec, OutsideSpec, PodSpec, Topology};
pub use world::{Options, SUBCOMMAND, World};
