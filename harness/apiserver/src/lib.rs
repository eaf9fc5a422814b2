//! An embedded Kubernetes API with fault injection.
//!
//! It stores objects in memory, speaks enough of the Kubernetes API over HTTPS for unmodified service proxies, `kubectl` and client
//! libraries, allocates ClusterIPs and NodePorts, derives EndpointSlices from Pods, and can break in all the ways an API server breaks. It is *not* a
//! cluster: nothing schedules or runs Pods, and nobody is forbidden anything.
//!
//! [`Gateway`] breaks in the same ways between a client and a real API server.

mod api;
pub mod bench;
mod clients;
mod config;
mod connections;
pub mod controllers;
mod error;
mod faults;
mod gateway;
mod history;
mod http;
mod registry;
mod selector;
mod serve;
mod store;
mod tls;
pub mod types;
mod write;

pub use api::{ApiServer, ObjectRef};
pub use clients::{ClientStats, NotWatching};
pub use config::Config;
pub use error::{Error, StatusCause, StatusDetails, StatusError};
pub use faults::{FaultReport, Faults, Switch};
pub use gateway::{Gateway, GatewayConfig};
pub use history::HistoryEntry;
pub use registry::ResourceType;
pub use serve::Serving;
pub use store::Verb;
pub use write::{DeleteOptions, PatchKind, WriteOptions};
