//! The provider for clusters with kubelets, a real API server and real Pods.
//!
//! ```text
//!   Site (one per cluster)                        RealCluster (one per attempt)
//!     nodes, ranges, a client of the API            namespaces of its own
//!     one Pod per node for agents                   the scenario's Pods, an agent in each (agents)
//!     who may run beside whom (claims)              agents of its own on the nodes and outside
//!     what cannot be had here (fit)                 Stage: a copy of what the API has, under the scenario's names (names)
//!                                                   every change waits until the controllers have followed (settle)
//! ```
//!
//! The oracle reads the copy, so it knows the addresses and slices that the cluster really gave. The harness itself needs no Service: it speaks
//! to the API server, and through it to its agents.

pub mod agents;
pub mod claims;
mod cluster;
mod elsewhere;
pub mod existing;
pub mod fit;
pub mod gateway;
pub mod image;
mod install;
pub mod made;
mod manifests;
mod names;
pub mod opening;
mod own_proxy;
pub(crate) mod pods;
mod residue;
mod reuse;
mod settle;
mod site;

pub use cluster::RealCluster;
pub use site::{Instances, Outside, Plans, Site, SiteNode};
