//! Clusters that scenarios run on: what an attempt asks of the cluster that it has, whoever made it.
//!
//! ```text
//!   run::Attempt ──> dyn Cluster ──┬── NetnsCluster   a world of namespaces, built and thrown away for this attempt
//!                        │         └── RealCluster    namespaces and Pods of this attempt in a cluster that is shared (kind, kubeconfig)
//!                        └── Stage: the API objects under the names that the scenario gives them, with the addresses they really have
//! ```
//!
//! [`Provider`] makes the one or the other. A step that a provider cannot do is known before the run begins ([`Provider::cannot`]) and is a
//! typed skip, so that no attempt meets it.

mod errors;
mod instance;
mod log;
pub mod netns;
pub mod real;
mod usage;

use std::{fmt::Debug, path::Path, sync::Arc, time::Duration};

use apiserver::{FaultReport, Switch};
use async_trait::async_trait;
use nix::sys::signal::Signal;
use probe::client::Agent;
use serde_json::Value;

pub use instance::Instance;
pub use netns::{NetnsCluster, protocol};
pub use usage::Usage;

use crate::{
    candidate::Candidate,
    scenario::{
        Case, Stage,
        doc::{Feature, ObjectRef, Patch, PodVerb},
    },
};

/// What a cluster is started with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Capture the nodes' packets, for evidence.
    pub capture: bool,
}

/// Why there is no cluster, or no longer one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClusterError {
    /// The machine or the harness; says nothing about the candidate.
    #[error("{0}")]
    Infra(String),
    /// The candidate.
    #[error("{0}")]
    Candidate(String),
    /// Whoever wrote the candidate's manifest or chose the cluster: found out when it was too late to say so at once.
    #[error("{0}")]
    Usage(String),
}

/// What went wrong, and not by the candidate.
pub(crate) fn infra(what: &str) -> impl Fn(&dyn std::fmt::Display) -> ClusterError {
    move |error| ClusterError::Infra(format!("{what}: {error}"))
}

/// Where clusters come from.
#[async_trait]
pub trait Provider: Debug + Send + Sync {
    /// As `--provider` names it.
    fn name(&self) -> &'static str;

    /// Why the case cannot be run here, if it cannot. It is known before the first attempt.
    fn cannot(&self, case: &Case) -> Option<String>;

    /// Makes the cluster of an attempt, with all objects and pods, and the case with the addresses that everything has in it.
    ///
    /// # Errors
    /// [`ClusterError::Candidate`] where a cluster is there and the candidate in it is not.
    async fn build(
        &self,
        case: &Arc<Case>,
        candidate: &Candidate,
        settings: Settings,
    ) -> Result<(Arc<Case>, Box<dyn Cluster>), ClusterError>;
}

/// Network namespaces on this machine; the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Netns;

#[async_trait]
impl Provider for Netns {
    fn name(&self) -> &'static str {
        "netns"
    }

    fn cannot(&self, _case: &Case) -> Option<String> {
        None
    }

    async fn build(
        &self,
        case: &Arc<Case>,
        candidate: &Candidate,
        settings: Settings,
    ) -> Result<(Arc<Case>, Box<dyn Cluster>), ClusterError> {
        let cluster = NetnsCluster::build(case, candidate, settings).await?;
        Ok((case.clone(), Box::new(cluster)))
    }
}

/// The cluster of one attempt.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// The API objects.
    fn stage(&self) -> &Stage;

    /// The candidate.
    fn candidate(&self) -> &Candidate;

    /// The cluster as a world of namespaces, where it is one.
    fn netns(&self) -> Option<&NetnsCluster> {
        None
    }

    /// How long it took until network, API and pods were there.
    fn built_in(&self) -> Duration;

    /// How long the attempt had to wait before it could begin, because of others.
    fn waited(&self) -> Duration {
        Duration::ZERO
    }

    /// How long an agent may take to say hello on a machine that is fast enough to judge anybody.
    fn late(&self) -> Duration {
        Duration::from_millis(500)
    }

    /// How much later than in a world of namespaces the candidate may hear of a change, because the API's controllers take so long to follow.
    fn slack(&self) -> Duration {
        Duration::ZERO
    }

    /// The agent of a pod, node or client.
    fn agent(&self, who: &str) -> Result<Agent, ClusterError>;

    /// Creates or replaces objects; the answer comes when the API's own controllers have followed.
    async fn apply(&mut self, objects: &[Value]) -> Result<(), ClusterError>;

    /// Patches an object, likewise.
    async fn patch(&mut self, patch: &Patch) -> Result<(), ClusterError>;

    /// Deletes objects, likewise. One that is gone already is an error.
    async fn delete(&mut self, objects: &[ObjectRef]) -> Result<(), ClusterError>;

    /// What comes before the change of a pod that others can see: a pod serves before it is Ready.
    async fn prepare_pod(&mut self, name: &str, verb: PodVerb) -> Result<(), ClusterError>;

    /// Changes a pod.
    async fn pod(&mut self, name: &str, verb: PodVerb) -> Result<(), ClusterError>;

    /// Makes sure that the candidate runs on every node and is ready. Answers how long that took, where it was started for this attempt.
    async fn start_candidate(&mut self) -> Result<Option<Duration>, ClusterError>;

    /// Whether there is a program to run; the null candidate has none.
    fn has_candidate(&self) -> bool;

    /// Whether the candidate declares not to have the feature.
    fn lacks(&self, feature: Feature) -> bool {
        self.candidate().lacks(feature).is_some()
    }

    /// The candidate's processes, where they are this machine's.
    fn instances(&self) -> &[Instance] {
        &[]
    }

    /// Which instances of the candidate run on these nodes: node, and what tells an instance from its predecessor.
    fn running_on(&self, nodes: &[String]) -> Vec<(String, String)>;

    /// An instance that should run and does not.
    ///
    /// # Errors
    /// When nobody can tell: that is no sign that it runs.
    async fn unexpected_exit(&mut self) -> Result<Option<String>, ClusterError>;

    /// What the candidate printed since this attempt began, by node.
    async fn logs(&self) -> Vec<(String, String)>;

    /// The last thing that the candidate complained about.
    async fn complaint(&self) -> Option<String>;

    /// Stops the candidate's processes on some nodes or lets them go on. Answers on how many nodes they are in that state then.
    async fn pause_candidate(&mut self, nodes: &[String], on: bool) -> Result<usize, ClusterError>;

    /// Ends the candidate on some nodes.
    async fn end_candidate(&mut self, nodes: &[String], signal: Signal)
    -> Result<(), ClusterError>;

    /// Ends the candidate on some nodes, and it stays away until it is started.
    async fn keep_candidate_down(&mut self, nodes: &[String]) -> Result<(), ClusterError>;

    /// Starts the candidate on some nodes and waits until it is ready there.
    async fn restart_candidate(&mut self, nodes: &[String]) -> Result<(), ClusterError>;

    /// Lets the candidate's own command remove what it left in the kernel of some nodes.
    async fn clean_up(&mut self, nodes: &[String]) -> Result<(), ClusterError>;

    /// Does something to the API as the candidate sees it. Answers how many connections or watches were concerned at once, where that can be told.
    async fn break_api(&mut self, switch: Switch) -> Result<usize, ClusterError>;

    /// What faults of the API did so far.
    async fn api_report(&self) -> Result<FaultReport, ClusterError>;

    /// Gives objects of a kind a new resourceVersion, one after the other and round again. Answers how many times.
    async fn touch(&mut self, kind: &str, times: usize) -> Result<usize, ClusterError>;

    /// The API server goes away for the candidate: its connections are reset. Answers how many there were.
    async fn stop_api(&mut self) -> Result<usize, ClusterError>;

    /// The API server is back.
    async fn start_api(&mut self) -> Result<(), ClusterError>;

    /// Gives a node a further address of its network.
    async fn add_address(&self, node: &str, address: &str) -> Result<(), ClusterError>;

    /// What a tool on a node prints, for evidence; nothing where it cannot be run.
    async fn tool(&self, node: &str, argv: &[&str]) -> Option<Vec<u8>>;

    /// Writes what only this kind of cluster has to show of an attempt.
    async fn write_evidence(&self, _directory: &Path) -> std::io::Result<()> {
        Ok(())
    }

    /// Takes everything down.
    async fn shutdown(self: Box<Self>);
}
