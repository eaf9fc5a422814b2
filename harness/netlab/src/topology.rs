//! What a world consists of, as a scenario document writes it below `topology:`.
//!
//! Only names and shapes stand here; the addresses follow from them by rule, see [`crate::plan`].

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The boxes of a world.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Topology {
    /// The cluster's nodes, in order: the first is node 1 in every address.
    pub nodes: Vec<NodeSpec>,
    /// Pods that exist from the start. Their order per node gives them their addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodSpec>,
    /// A client beyond the nodes, behind the router. Absent: only the router exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<OutsideSpec>,
    /// Machines that are not nodes but share a network with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<ClientSpec>,
}

/// A node: the place where a candidate runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSpec {
    /// Kubernetes node name, also the name of its probe agent.
    pub name: String,
    /// Value of the node label `topology.kubernetes.io/zone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Networks besides the node network that this node has an interface in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
}

/// A pod: a network namespace wired to its node, or with `hostNetwork` the node's own namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSpec {
    /// Pod name, also the name of its probe agent.
    pub name: String,
    /// Name of the node that it runs on.
    pub node: String,
    /// `spec.hostNetwork` of the pod.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_network: bool,
    /// MTU in bytes of its wire to the node (1500 when absent); a hostNetwork pod has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1280, max = 1500))]
    pub mtu: Option<u32>,
}

/// The client beyond the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutsideSpec {
    /// MTU in bytes of the wire between the router and the outside client (1500 when absent).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1280, max = 65535))]
    pub mtu: Option<u32>,
}

/// A machine that is not a node but a neighbour of nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientSpec {
    /// Name of the client and of its probe agent.
    pub name: String,
    /// `nodes` for the node network, or the name of an extra network that some node is in.
    pub network: String,
    /// A node of that network by way of which it sends to the pods of all nodes. Their replies come straight back, so that this node sees
    /// one direction only. Absent: to each pod by way of its own node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
}

/// Name of the network that every node is in.
pub const NODE_NETWORK: &str = "nodes";

impl Topology {
    /// `nodes` nodes called `node1`..., with `pods_per_node` pods each called `pod1`... and an outside client.
    pub fn uniform(nodes: usize, pods_per_node: usize) -> Self {
        let mut topology = Topology {
            outside: Some(OutsideSpec::default()),
            ..Topology::default()
        };
        for node in 1..=nodes {
            topology.nodes.push(NodeSpec {
                name: format!("node{node}"),
                ..NodeSpec::default()
            });
            for _ in 0..pods_per_node {
                topology.pods.push(PodSpec {
                    name: format!("pod{}", topology.pods.len() + 1),
                    node: format!("node{node}"),
                    host_network: false,
                    mtu: None,
                });
            }
        }
        topology
    }

    /// The extra networks that some node is in, in alphabetical order.
    pub fn extra_networks(&self) -> BTreeSet<&str> {
        self.nodes
            .iter()
            .flat_map(|node| node.networks.iter().map(String::as_str))
            .collect()
    }
}
