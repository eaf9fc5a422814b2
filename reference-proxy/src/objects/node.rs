//! Node.

use kube::{api::ObjectMeta, core::ClusterResourceScope};
use serde::{Deserialize, Serialize};

/// A Node.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeObject {
    /// Name, labels, and whether it is being deleted.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: Option<NodeSpec>,
    /// What the kubelet reported.
    pub status: Option<NodeStatus>,
}

super::resource!(NodeObject, ClusterResourceScope, "", "v1", "Node", "nodes");

/// `spec`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSpec {
    /// The range of the node's pods, first family.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
    /// The ranges of the node's pods, both families.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Option<Vec<String>>,
    /// Taints.
    pub taints: Option<Vec<Taint>>,
}

/// One of `spec.taints`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Taint {
    /// Its key.
    pub key: String,
}

/// `status`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStatus {
    /// Addresses.
    pub addresses: Option<Vec<NodeAddress>>,
}

/// One of `status.addresses`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname`.
    #[serde(rename = "type")]
    pub type_: String,
    /// The address.
    pub address: String,
}
