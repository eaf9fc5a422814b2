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
pub mod client;
mod frame;
pub mod proto;
pub mod wire;
