//! Nodes out of containers: kind clusters, their life and death, and image archives for them.
//!
//! ```text
//!   Kind::find ── create(ClusterSpec) ──> Cluster ── load_archive, node_exec, outside, export_logs ──> delete
//!      │                                     │
//!      │ `kind ...`   `docker|podman|nerdctl ...`, each with a deadline, and written down in the CallLog
//!      └── open(name) (--reuse)              └── keep (--keep)
//!
//!   clean(...)        what a crash left, by the markers that create leaves in the engine
//!   ImageSpec::write  static binaries as an image archive, the same bytes each time
//! ```
//!
//! The counterpart of `netlab`, whose nodes are made of namespaces. What this crate is not: it knows nothing of Services, of the Kubernetes API, of candidates or
//! of verdicts; whether a node is Ready is the question of a caller with a client.

mod classify;
mod clean;
mod cluster;
mod elf;
mod engine;
mod error;
mod image;
mod inotify;
mod kind;
mod lab;
mod log;
mod off;
mod outside;
mod owned;
mod private;
mod process;
mod remove;
mod run;
mod spec;
mod version;

pub use classify::{Transcript, classify};
pub use clean::{CleanSpec, Cleaned, clean, leftovers};
pub use cluster::{Cluster, Node, Ran, Role};
pub use engine::{Container, Engine, EngineInfo, EngineKind};
pub use error::{KindError, Result, Warning};
pub use image::{Content, IMAGE_LABEL, Image, ImageFile, ImageSpec};
pub use lab::{Kind, Options};
pub use log::{Call, CallLog, Ended};
pub use outside::{Outside, OutsideSpec, Process};
pub use owned::{CLUSTER_LABEL, Life, Owned};
pub use spec::{ClusterSpec, IpFamily, ProxyMode};
pub use version::Version;
