//! Installs Kubernetes objects on a cluster, waits until they run, and removes them again.
//!
//! ```text
//! YAML ──Object::parse──> objects ──apply──> cluster ──wait──> rolled out, or a diagnosis
//!                            │
//!                            └────remove──> gone, with nothing left behind (leftovers)
//! ```
//!
//! Every object is applied server-side by the field manager `harness`, with the label `app.kubernetes.io/managed-by: harness` and the annotation
//! `harness/run`. Only objects with that label are ever removed, except those that [`Rollout::remove_first`] is told to take away.
//! This crate knows nothing of proxies, scenarios or reports.

mod apply;
mod diagnosis;
mod error;
mod kinds;
mod object;
mod order;
mod remove;
mod retry;
mod status;
mod wait;

use std::sync::Arc;

pub use diagnosis::{ContainerTrouble, Diagnosis, PodTrouble};
pub use error::{Blame, Error, ParseError};
pub use object::{Object, ObjectId};
pub use remove::Removed;
pub use wait::Workload;

/// Field manager of everything that is applied.
pub const MANAGER: &str = "harness";
/// Label of everything that is applied.
pub const LABEL: &str = "app.kubernetes.io/managed-by";
/// Annotation that names the run in which an object was applied.
pub const RUN: &str = "harness/run";

/// What is told while somebody waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is waited for, such as `DaemonSet kube-system/kube-proxy`.
    pub what: String,
    /// How far it is, such as `1 of 3 updated Pods available`.
    pub state: String,
}

/// Who is told. It is called from several tasks at once, and only when something changed.
pub type Tell<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// What happens to objects that are there already and are not ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Nothing is applied at all.
    #[default]
    Refuse,
    /// They are changed, but get no label, and stay when the rest is removed. For clusters that are thrown away.
    Adopt,
}

/// A cluster on which objects are installed.
#[derive(Clone)]
pub struct Rollout {
    client: kube::Client,
    run: Arc<str>,
    existing: Existing,
    kinds: kinds::Kinds,
}

impl Rollout {
    /// Installs with the rights of `client`; `run` is written into the objects.
    pub fn new(client: kube::Client, run: &str) -> Self {
        Self {
            kinds: kinds::Kinds::new(client.clone()),
            client,
            run: run.into(),
            existing: Existing::default(),
        }
    }

    /// Says what happens to objects that are there already.
    #[must_use]
    pub fn existing(mut self, existing: Existing) -> Self {
        self.existing = existing;
        self
    }
}
