//! Servers, clients, flows, raw packets and captures inside one network namespace, controlled over a byte stream.
//!
//! ```text
//!   harness process                              pod, node or outside namespace
//!   ┌────────────────┐   length + JSON frames    ┌──────────────────────────────┐    packets
//!   │ client::Agent  │ <───────────────────────> │ agent::run                   │ <──────────> network under test
//!   └────────────────┘   (proto)                 │ servers, connects, flows ... │   (wire)
//!                                                └──────────────────────────────┘
//! ```

pub mod agent;
mod capture;
pub mod client;
mod connect;
mod flow;
mod frame;
mod holding;
mod http;
mod inject;
mod neighbour;
mod netlink;
mod ports;
mod processes;
pub mod proto;
mod server;
mod sockets;
mod sys;
mod sysctl;
pub mod wire;
