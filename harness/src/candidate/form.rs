//! In which of its forms a candidate is used: as a process on each node of a netns world, or as objects of a real cluster.

use schemars::JsonSchema;
use serde::Deserialize;

/// A form of a candidate. Each provider needs one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// `process:` in the manifest; provider `netns`.
    Process,
    /// `cluster:` in the manifest; providers `kind` and `kubeconfig`.
    Cluster,
}

impl Form {
    /// What is said about a manifest that does not have the form.
    pub(super) fn missing(self) -> &'static str {
        match self {
            Self::Process => {
                "has no 'process', and the netns provider runs candidates as processes: add one, or use --provider kind"
            }
            Self::Cluster => {
                "has no 'cluster', and on a real cluster candidates are installed as Kubernetes objects: add one (docs/candidates.md), or use --provider netns"
            }
        }
    }
}
