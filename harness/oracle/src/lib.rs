//! What a Kubernetes service proxy must do, as a pure function.
//!
//! [`expect`] takes the API objects, the topology, a client and a destination, and says what must
//! happen to a new connection or datagram flow: which endpoints may answer and with which shares, or that it is
//! refused, or dropped, or none of a service proxy's business. [`check`] compares many attempts
//! with that answer. Nothing here does I/O, and nothing is shared with any proxy: the rules come
//! from the API field documentation and the KEPs, and each names a requirement of
//! `scenarios/requirements.yaml`.
//!
//! ```text
//!   Services, EndpointSlices ─┐
//!   nodes, pods, listeners ───┤
//!                             ├─> expect ──> Expectation ─┐
//!   source ───────────────────┤                           ├─> check ──> mismatches
//!   destination ──────────────┘        observed attempts ─┘
//! ```
//!
//! What this is not: a judge of time (convergence is measured by the runner), of established flows, or of the control
//! plane. It describes the answer for a *new* flow once the proxy has converged on the objects.

mod address;
mod check;
mod cluster;
mod distribution;
mod endpoints;
mod expect;
mod expectation;
mod frontend;
mod objects;
mod traffic;

pub use address::parse_ip;
pub use check::{Mismatch, MismatchKind, Observation, Observed, check, matched_outcome};
pub use cluster::{Cluster, Listener, Node, PodIdentity};
pub use distribution::{ALPHA, attempts_to_see_all, distribution};
pub use endpoints::{Contested, Endpoint, EndpointSets, TopologyMode, endpoint_sets};
pub use expect::expect;
pub use expectation::{Characteristic, ClientAddress, Direct, Expectation, Outcome, Share};
pub use frontend::{Frontend, FrontendKind, frontends};
pub use objects::{
    EndpointSlice, LoadBalancerIngress, Metadata, ObjectError, Service, ServicePort, ServiceType,
    SliceEndpoint, SlicePort, TrafficPolicy,
};
pub use traffic::{Destination, Family, Protocol, Source};
