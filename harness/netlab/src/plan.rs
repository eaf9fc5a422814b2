//! Which address everything in a world has: a pure function of the topology.
//!
//! | what | IPv4 | IPv6 |
//! |---|---|---|
//! | node network (router `.1`, API server `.2`, node *i* `.10+i`, clients from `.201`) | 10.89.0.0/24 | fd00:89::/64 |
//! | pods of node *i* (the node's end `.1`, pod *k* `.10+k`) | 10.244.*i*.0/24 | fd00:244:0:*i*::/64 |
//! | outside network (router `.1`, the client's address for node *i* `.10+i`) | 10.99.0.0/24 | fd00:99::/64 |
//! | extra network *n* (node *i* `.10+i`, clients from `.201`) | 10.90.*n*.0/24 | fd00:90:*n*::/64 |
//! | ClusterIPs | 10.96.0.0/16 | fd00:96::/112 |
//! | external IPs | 198.51.100.0/24 | 2001:db8:51::/64 |
//! | LoadBalancer IPs | 203.0.113.0/24 | 2001:db8:113::/64 |
//!
//! The last byte of an IPv4 address and the last group of the IPv6 address of the same thing are the same number.
//! The outside client's source address chooses the node at which its traffic to a ClusterIP, external IP or
//! LoadBalancer IP arrives; when it chooses none, it has the address for the first node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::topology::{NODE_NETWORK, PodSpec, Topology};

/// Most nodes that a plan has room for: node *i* is `.10+i`, and `.201` and up are clients.
pub const MAX_NODES: usize = 100;
/// Most pods that one node can get over the life of a world, those removed again included.
pub const MAX_PODS_PER_NODE: u8 = 244;
/// Most clients of one network.
pub const MAX_CLIENTS: usize = 50;
/// Port at which the embedded API server listens in the fabric.
pub const API_PORT: u16 = 6443;
/// Names of agents that every world may have, so no node, pod or client can be called like that.
pub const RESERVED_NAMES: [&str; 3] = ["fabric", "router", "outside"];

/// IP family, written as Kubernetes writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// Internet Protocol version 4.
    #[serde(rename = "IPv4")]
    Ipv4,
    /// Internet Protocol version 6.
    #[serde(rename = "IPv6")]
    Ipv6,
}

impl Family {
    /// Both, IPv4 (the primary one of every world) first.
    pub const BOTH: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// The family of an address.
    pub fn of(addr: IpAddr) -> Family {
        match addr {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }
}

/// Why a topology cannot be planned. Each text completes "failed to plan the topology: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A world without a node has no place for a proxy.
    #[error("it has no node")]
    NoNodes,
    /// Two things have one name; agents are found by name, whatever they are.
    #[error("the name {0:?} is used twice")]
    DuplicateName(String),
    /// The name belongs to a fixed part of every world.
    #[error("the name {0:?} is reserved")]
    ReservedName(String),
    /// Names are DNS labels, as Kubernetes wants them.
    #[error(
        "{0:?} is not a name: want 1 to 63 of a-z, 0-9, '-' and '.', starting and ending with a letter or digit"
    )]
    BadName(String),
    /// A pod is on a node that does not exist.
    #[error("pod {pod:?} is on node {node:?}, which does not exist")]
    UnknownNode {
        /// The pod.
        pod: String,
        /// The node it names.
        node: String,
    },
    /// A client is on a network that no node is in.
    #[error("client {client:?} is on network {network:?}, which no node is in")]
    UnknownNetwork {
        /// The client.
        client: String,
        /// The network it names.
        network: String,
    },
    /// A client sends by way of a node that it has no network with.
    #[error("client {client:?} sends through node {node:?}, which is not in its network")]
    UnknownThrough {
        /// The client.
        client: String,
        /// The node it names.
        node: String,
    },
    /// The node network is not an extra network.
    #[error("node {0:?} lists \"nodes\" or one network twice among its extra networks")]
    BadNetworks(String),
    /// There is no node to stand for it.
    #[error("node {0:?} has no counterpart in the cluster")]
    NoCounterpart(String),
    /// There are not enough addresses.
    #[error("it has {count} {what}, and there is room for {max}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many are possible.
        max: usize,
    },
    /// MTUs below IPv6's minimum would switch IPv6 off on the wire.
    #[error("the outside mtu is {0}, want 1280 to 65535")]
    BadMtu(u32),
    /// Wider than the wires behind it, a pod's wire would change nothing.
    #[error(
        "the mtu of pod {pod:?} is {mtu}, want 1280 to 1500 on a pod with a network of its own"
    )]
    BadPodMtu {
        /// The pod.
        pod: String,
        /// What it asks for.
        mtu: u32,
    },
}

/// The addresses of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAddresses {
    /// Kubernetes node name.
    pub name: String,
    /// 1-based place in the topology.
    pub index: u8,
    /// Zone label, when the topology gives one.
    pub zone: Option<String>,
    /// Address in the node network (`InternalIP`).
    pub ipv4: Ipv4Addr,
    /// Address in the node network (second `InternalIP`).
    pub ipv6: Ipv6Addr,
    /// `spec.podCIDRs[0]`.
    pub pod_cidr4: Ipv4Net,
    /// `spec.podCIDRs[1]`.
    pub pod_cidr6: Ipv6Net,
    /// Addresses in extra networks, by network name.
    pub extra: BTreeMap<String, (Ipv4Addr, Ipv6Addr)>,
}

impl NodeAddresses {
    /// The node network address of one family.
    pub fn ip(&self, family: Family) -> IpAddr {
        pick(family, self.ipv4, self.ipv6)
    }

    /// The pod range of one family.
    pub fn pod_cidr(&self, family: Family) -> IpNet {
        match family {
            Family::Ipv4 => self.pod_cidr4.into(),
            Family::Ipv6 => self.pod_cidr6.into(),
        }
    }

    /// The address that the node's end of every pod wire holds: the pods' gateway, and what a masquerade
    /// towards a pod picks as its source.
    pub fn pod_gateway(&self, family: Family) -> IpAddr {
        let v4 = self.pod_cidr4.network().to_bits() | 1;
        let v6 = self.pod_cidr6.network().to_bits() | 1;
        pick(family, Ipv4Addr::from_bits(v4), Ipv6Addr::from_bits(v6))
    }

    /// The address in an extra network, if the node is in it.
    pub fn extra_ip(&self, network: &str, family: Family) -> Option<IpAddr> {
        self.extra
            .get(network)
            .map(|(v4, v6)| pick(family, *v4, *v6))
    }

    /// Every address of one family that NodePorts are served at by default: node network, extra networks, and
    /// the node's end of the pod wires.
    pub fn all_ips(&self, family: Family) -> Vec<IpAddr> {
        let mut all = vec![self.ip(family)];
        all.extend(self.extra.values().map(|(v4, v6)| pick(family, *v4, *v6)));
        all.push(self.pod_gateway(family));
        all
    }
}

/// The addresses of a pod; those of its node for a hostNetwork pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodAddresses {
    /// Pod name.
    pub name: String,
    /// Name of its node.
    pub node: String,
    /// 1-based place among the pods with a namespace that this node ever had; 0 for a hostNetwork pod.
    pub index: u8,
    /// Whether it shares the node's namespace.
    pub host_network: bool,
    /// `status.podIPs[0]`.
    pub ipv4: Ipv4Addr,
    /// `status.podIPs[1]`.
    pub ipv6: Ipv6Addr,
    /// MTU in bytes of its wire, where it is not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

impl PodAddresses {
    /// The address of one family.
    pub fn ip(&self, family: Family) -> IpAddr {
        pick(family, self.ipv4, self.ipv6)
    }
}

/// The addresses of a client on the node network or an extra network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientAddresses {
    /// Name of the client.
    pub name: String,
    /// Its network.
    pub network: String,
    /// 1-based place among the clients of this network.
    pub index: u8,
    /// Address in that network.
    pub ipv4: Ipv4Addr,
    /// Address in that network.
    pub ipv6: Ipv6Addr,
    /// The node by way of which it sends to all pods, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
}

impl ClientAddresses {
    /// The address of one family.
    pub fn ip(&self, family: Family) -> IpAddr {
        pick(family, self.ipv4, self.ipv6)
    }
}

/// The outside client's addresses whose traffic arrives at one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutsideAddresses {
    /// Source address to use.
    pub ipv4: Ipv4Addr,
    /// Source address to use.
    pub ipv6: Ipv6Addr,
}

impl OutsideAddresses {
    /// The address of one family.
    pub fn ip(&self, family: Family) -> IpAddr {
        pick(family, self.ipv4, self.ipv6)
    }
}

/// Every address of a world. Pods may be added and removed while the world lives, also through a shared
/// reference, so what a pod's name means can change; everything else is fixed.
#[derive(Debug)]
pub struct Plan {
    topology: Topology,
    nodes: Vec<NodeAddresses>,
    clients: Vec<ClientAddresses>,
    networks: Vec<String>,
    /// What is different where the nodes are not ours.
    real: Option<Real>,
    pods: RwLock<Pods>,
}

/// The addresses of a cluster that somebody else made.
#[derive(Debug, Clone, Default)]
pub struct Real {
    /// Its nodes under the names that the topology gives them, in that order.
    pub nodes: Vec<NodeAddresses>,
    /// The outside client's addresses, by node; empty where there is no outside client.
    pub outside: BTreeMap<String, OutsideAddresses>,
    /// Where pods get their addresses from, IPv4 first.
    pub cluster_cidrs: Vec<IpNet>,
    /// Where ClusterIPs are taken from, IPv4 first.
    pub service_cidrs: Vec<IpNet>,
    /// Whether the network gives what pods send to other nodes the address of the pod's node.
    pub masquerades_to_nodes: bool,
    /// Whether the kernels of nodes and pods limit the messages that say that nobody is there.
    pub refusals_are_limited: bool,
}

/// From here on in the range of ClusterIPs scenarios choose theirs in a cluster that somebody else made. The first ones belong to the
/// cluster's own Services, such as its DNS server; and addresses are handed out by the cluster above the first 256 only (KEP-3070), or above the
/// first sixteenth of a small range.
const CHOSEN_SERVICE_IPS: u8 = 100;

#[derive(Debug, Clone, Default)]
struct Pods {
    by_name: BTreeMap<String, PodAddresses>,
    used: BTreeMap<String, u8>,
}

impl Clone for Plan {
    fn clone(&self) -> Self {
        Plan {
            topology: self.topology.clone(),
            nodes: self.nodes.clone(),
            clients: self.clients.clone(),
            networks: self.networks.clone(),
            real: self.real.clone(),
            pods: RwLock::new(self.read_pods().clone()),
        }
    }
}

impl Plan {
    /// Gives everything in `topology` its addresses.
    ///
    /// # Errors
    /// When names clash or refer to nothing, or when a range is too small.
    pub fn new(topology: &Topology) -> Result<Plan, PlanError> {
        if topology.nodes.is_empty() {
            return Err(PlanError::NoNodes);
        }
        room("nodes", topology.nodes.len(), MAX_NODES)?;
        let mtu = topology.outside.as_ref().and_then(|outside| outside.mtu);
        if let Some(mtu) = mtu.filter(|mtu| !(1280..=65535).contains(mtu)) {
            return Err(PlanError::BadMtu(mtu));
        }

        let networks: Vec<String> = topology
            .extra_networks()
            .into_iter()
            .map(str::to_owned)
            .collect();
        room("extra networks", networks.len(), 100)?;
        let mut names = BTreeSet::new();
        let mut nodes = Vec::new();
        for (node, index) in topology.nodes.iter().zip(1u8..) {
            claim(&mut names, &node.name)?;
            let mut extra = BTreeMap::new();
            for network in &node.networks {
                let addresses = extra_address(&networks, network, host(index))
                    .filter(|_| network != NODE_NETWORK)
                    .ok_or_else(|| PlanError::BadNetworks(node.name.clone()))?;
                check_name(network)?;
                if extra.insert(network.clone(), addresses).is_some() {
                    return Err(PlanError::BadNetworks(node.name.clone()));
                }
            }
            nodes.push(NodeAddresses {
                name: node.name.clone(),
                index,
                zone: node.zone.clone(),
                ipv4: Ipv4Addr::new(10, 89, 0, host(index)),
                ipv6: Ipv6Addr::new(0xfd00, 0x89, 0, 0, 0, 0, 0, host(index).into()),
                pod_cidr4: Ipv4Net::new_assert(Ipv4Addr::new(10, 244, index, 0), 24),
                pod_cidr6: Ipv6Net::new_assert(
                    Ipv6Addr::new(0xfd00, 0x244, 0, index.into(), 0, 0, 0, 0),
                    64,
                ),
                extra,
            });
        }

        let mut clients: Vec<ClientAddresses> = Vec::new();
        for client in &topology.clients {
            claim(&mut names, &client.name)?;
            let before = clients
                .iter()
                .filter(|c| c.network == client.network)
                .count();
            room("clients on one network", before + 1, MAX_CLIENTS)?;
            let index = before as u8 + 1;
            let (ipv4, ipv6) = if client.network == NODE_NETWORK {
                (
                    Ipv4Addr::new(10, 89, 0, 200 + index),
                    Ipv6Addr::new(0xfd00, 0x89, 0, 0, 0, 0, 0, 200 + u16::from(index)),
                )
            } else {
                extra_address(&networks, &client.network, 200 + index).ok_or_else(|| {
                    PlanError::UnknownNetwork {
                        client: client.name.clone(),
                        network: client.network.clone(),
                    }
                })?
            };
            if let Some(through) = &client.through {
                let known = nodes.iter().any(|node: &NodeAddresses| {
                    node.name == *through
                        && (client.network == NODE_NETWORK
                            || node.extra.contains_key(&client.network))
                });
                if !known {
                    return Err(PlanError::UnknownThrough {
                        client: client.name.clone(),
                        node: through.clone(),
                    });
                }
            }
            clients.push(ClientAddresses {
                name: client.name.clone(),
                network: client.network.clone(),
                index,
                ipv4,
                ipv6,
                through: client.through.clone(),
            });
        }

        let plan = Plan {
            topology: topology.clone(),
            nodes,
            clients,
            networks,
            real: None,
            pods: RwLock::default(),
        };
        for pod in &topology.pods {
            plan.pod_added(pod)?;
        }
        Ok(plan)
    }

    /// The plan of a topology on nodes that exist already. Its pods have no addresses before [`Plan::pod_is_at`] says so.
    ///
    /// # Errors
    /// As [`Plan::new`], and when a node of the topology has no counterpart.
    pub fn on(topology: &Topology, real: Real) -> Result<Plan, PlanError> {
        let mut plan = Plan::new(topology)?;
        if let Some(node) = topology
            .nodes
            .iter()
            .find(|node| real.nodes.iter().all(|one| one.name != node.name))
        {
            return Err(PlanError::NoCounterpart(node.name.clone()));
        }
        plan.nodes = real
            .nodes
            .iter()
            .filter(|one| topology.nodes.iter().any(|node| node.name == one.name))
            .cloned()
            .collect();
        plan.real = Some(real);
        plan.write_pods().by_name.clear();
        Ok(plan)
    }

    /// A pod of a cluster that somebody else made got these addresses.
    pub fn pod_is_at(&self, addresses: PodAddresses) {
        let mut pods = self.write_pods();
        pods.by_name.insert(addresses.name.clone(), addresses);
    }

    /// The topology that the plan was made from. Pods that came or went later are not in it.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// A node's addresses.
    pub fn node(&self, name: &str) -> Option<&NodeAddresses> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// All nodes, in the order of the topology.
    pub fn nodes(&self) -> &[NodeAddresses] {
        &self.nodes
    }

    /// All clients, in the order of the topology.
    pub fn clients(&self) -> &[ClientAddresses] {
        &self.clients
    }

    /// A client's addresses.
    pub fn client(&self, name: &str) -> Option<&ClientAddresses> {
        self.clients.iter().find(|client| client.name == name)
    }

    /// The extra networks, in alphabetical order: the *n*-th (1-based) is 10.90.n.0/24.
    pub fn networks(&self) -> &[String] {
        &self.networks
    }

    /// The range of a network: `nodes` or an extra one.
    pub fn network_cidr(&self, network: &str, family: Family) -> Option<IpNet> {
        let (v4, v6) = if network == NODE_NETWORK {
            (
                Ipv4Addr::new(10, 89, 0, 0),
                Ipv6Addr::new(0xfd00, 0x89, 0, 0, 0, 0, 0, 0),
            )
        } else {
            extra_address(&self.networks, network, 0)?
        };
        Some(match family {
            Family::Ipv4 => Ipv4Net::new_assert(v4, 24).into(),
            Family::Ipv6 => Ipv6Net::new_assert(v6, 64).into(),
        })
    }

    /// The addresses of a pod that exists now.
    pub fn pod(&self, name: &str) -> Option<PodAddresses> {
        self.read_pods().by_name.get(name).cloned()
    }

    /// All pods that exist now, in order of name.
    pub fn pods(&self) -> Vec<PodAddresses> {
        self.read_pods().by_name.values().cloned().collect()
    }

    /// Gives a new pod its addresses. Addresses of removed pods are not given again, so that a stale
    /// conntrack entry can never look right by accident.
    ///
    /// # Errors
    /// When the name is taken or bad, its node is unknown, or the node's range is used up.
    pub fn pod_added(&self, pod: &PodSpec) -> Result<PodAddresses, PlanError> {
        check_name(&pod.name)?;
        let node = self.node(&pod.node).ok_or_else(|| PlanError::UnknownNode {
            pod: pod.name.clone(),
            node: pod.node.clone(),
        })?;
        if let Some(mtu) = pod.mtu
            && (pod.host_network || !(1280..=1500).contains(&mtu))
        {
            return Err(PlanError::BadPodMtu {
                pod: pod.name.clone(),
                mtu,
            });
        }
        let mut pods = self.write_pods();
        if pods.by_name.contains_key(&pod.name)
            || self.node(&pod.name).is_some()
            || self.client(&pod.name).is_some()
        {
            return Err(PlanError::DuplicateName(pod.name.clone()));
        }
        let addresses = if pod.host_network {
            PodAddresses {
                name: pod.name.clone(),
                node: pod.node.clone(),
                index: 0,
                host_network: true,
                ipv4: node.ipv4,
                ipv6: node.ipv6,
                mtu: None,
            }
        } else {
            let used = pods.used.entry(pod.node.clone()).or_default();
            room(
                "pods on one node",
                usize::from(*used) + 1,
                MAX_PODS_PER_NODE.into(),
            )?;
            *used += 1;
            let (ipv4, ipv6) = pod_address(node.index, host(*used));
            PodAddresses {
                name: pod.name.clone(),
                node: pod.node.clone(),
                index: *used,
                host_network: false,
                ipv4,
                ipv6,
                mtu: pod.mtu,
            }
        };
        pods.by_name.insert(pod.name.clone(), addresses.clone());
        Ok(addresses)
    }

    /// Forgets a pod; returns what it had.
    pub fn pod_removed(&self, name: &str) -> Option<PodAddresses> {
        self.write_pods().by_name.remove(name)
    }

    /// The outside client's addresses whose ClusterIP, external IP and LoadBalancer IP traffic arrives at
    /// `node`. `None` when there is no outside client or no such node.
    pub fn outside(&self, node: &str) -> Option<OutsideAddresses> {
        self.topology.outside.as_ref()?;
        if let Some(real) = &self.real {
            return real.outside.get(node).copied();
        }
        let last = host(self.node(node)?.index);
        Some(OutsideAddresses {
            ipv4: Ipv4Addr::new(10, 99, 0, last),
            ipv6: Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, last.into()),
        })
    }

    /// The router's address in the outside network.
    pub fn router_outside(&self, family: Family) -> IpAddr {
        pick(
            family,
            Ipv4Addr::new(10, 99, 0, 1),
            Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 1),
        )
    }

    /// The router's address in the node network: the nodes' default gateway.
    pub fn router(&self, family: Family) -> IpAddr {
        pick(
            family,
            Ipv4Addr::new(10, 89, 0, 1),
            Ipv6Addr::new(0xfd00, 0x89, 0, 0, 0, 0, 0, 1),
        )
    }

    /// The fabric's address in the node network, where the API server is.
    pub fn fabric(&self, family: Family) -> IpAddr {
        pick(
            family,
            Ipv4Addr::new(10, 89, 0, 2),
            Ipv6Addr::new(0xfd00, 0x89, 0, 0, 0, 0, 0, 2),
        )
    }

    /// Where the embedded API server listens (IPv4, the primary family).
    pub fn api_server(&self) -> SocketAddr {
        SocketAddr::new(self.fabric(Family::Ipv4), API_PORT)
    }

    /// The ranges that all pods are in, one per family.
    pub fn cluster_cidrs(&self) -> Vec<IpNet> {
        match &self.real {
            Some(real) => real.cluster_cidrs.clone(),
            None => Family::BOTH.map(cluster_cidr).into(),
        }
    }

    /// The ranges that ClusterIPs are taken from, one per family.
    pub fn service_cidrs(&self) -> Vec<IpNet> {
        match &self.real {
            Some(real) => real.service_cidrs.clone(),
            None => Family::BOTH.map(service_cidr).into(),
        }
    }

    /// The network was found to give what pods send to other nodes the address of the pod's node, or not to.
    pub fn found_masquerading(&mut self, masquerades: bool) {
        if let Some(real) = &mut self.real {
            real.masquerades_to_nodes = masquerades;
        }
    }

    /// Whether the kernels of nodes and pods limit the messages that say that nobody is there. In a world of ours they do not.
    pub fn refusals_are_limited(&self) -> bool {
        let real = self.real.as_ref();
        real.is_some_and(|real| real.refusals_are_limited)
    }

    /// Whether the network gives what pods send to other nodes the address of the pod's node. In a world of ours it does not.
    pub fn masquerades_to_nodes(&self) -> bool {
        let real = self.real.as_ref();
        real.is_some_and(|real| real.masquerades_to_nodes)
    }

    /// The `n`-th address of the range of one family that ClusterIPs are taken from; nothing in a cluster without the family.
    pub fn service_ip(&self, n: u8, family: Family) -> Option<IpAddr> {
        let cidrs = self.service_cidrs();
        let mut own = cidrs
            .iter()
            .filter(|cidr| Family::of(cidr.addr()) == family);
        let n = match &self.real {
            Some(_) => n.checked_add(CHOSEN_SERVICE_IPS)?,
            None => n,
        };
        own.next().map(|cidr| nth(*cidr, n))
    }

    /// The `n`-th external IP.
    pub fn external_ip(&self, n: u8, family: Family) -> IpAddr {
        external_ip(n, family)
    }

    /// The `n`-th LoadBalancer IP.
    pub fn load_balancer_ip(&self, n: u8, family: Family) -> IpAddr {
        load_balancer_ip(n, family)
    }

    fn read_pods(&self) -> RwLockReadGuard<'_, Pods> {
        self.pods.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_pods(&self) -> RwLockWriteGuard<'_, Pods> {
        self.pods.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The range of all pods (`--cluster-cidr`).
pub fn cluster_cidr(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => net4(10, 244, 0, 16),
        Family::Ipv6 => net6([0xfd00, 0x244, 0], 48),
    }
}

/// The range of ClusterIPs (`--service-cluster-ip-range`).
pub fn service_cidr(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => net4(10, 96, 0, 16),
        Family::Ipv6 => net6([0xfd00, 0x96, 0], 112),
    }
}

/// The range of external IPs (documentation range TEST-NET-2 and a part of 2001:db8::/32).
pub fn external_cidr(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => net4(198, 51, 100, 24),
        Family::Ipv6 => net6([0x2001, 0xdb8, 0x51], 64),
    }
}

/// The range of LoadBalancer IPs (documentation range TEST-NET-3 and a part of 2001:db8::/32).
pub fn load_balancer_cidr(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => net4(203, 0, 113, 24),
        Family::Ipv6 => net6([0x2001, 0xdb8, 0x113], 64),
    }
}

/// The `n`-th external IP of every world.
pub fn external_ip(n: u8, family: Family) -> IpAddr {
    nth(external_cidr(family), n)
}

/// The `n`-th LoadBalancer IP of every world.
pub fn load_balancer_ip(n: u8, family: Family) -> IpAddr {
    nth(load_balancer_cidr(family), n)
}

/// The outside network.
pub fn outside_cidr(family: Family) -> IpNet {
    match family {
        Family::Ipv4 => net4(10, 99, 0, 24),
        Family::Ipv6 => net6([0xfd00, 0x99, 0], 64),
    }
}

/// The ranges that only a proxy makes reachable: ClusterIPs, external IPs and LoadBalancer IPs.
pub fn frontend_cidrs(family: Family) -> [IpNet; 3] {
    [
        service_cidr(family),
        external_cidr(family),
        load_balancer_cidr(family),
    ]
}

fn net4(a: u8, b: u8, c: u8, prefix: u8) -> IpNet {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), prefix).into()
}

fn net6(head: [u16; 3], prefix: u8) -> IpNet {
    Ipv6Net::new_assert(
        Ipv6Addr::new(head[0], head[1], head[2], 0, 0, 0, 0, 0),
        prefix,
    )
    .into()
}

fn nth(net: IpNet, n: u8) -> IpAddr {
    match net {
        IpNet::V4(net) => Ipv4Addr::from_bits(net.network().to_bits() | u32::from(n)).into(),
        IpNet::V6(net) => Ipv6Addr::from_bits(net.network().to_bits() | u128::from(n)).into(),
    }
}

fn pick(family: Family, v4: Ipv4Addr, v6: Ipv6Addr) -> IpAddr {
    match family {
        Family::Ipv4 => v4.into(),
        Family::Ipv6 => v6.into(),
    }
}

/// Host number of the `index`-th node of a network or pod of a node: the first ten are kept for gateways.
fn host(index: u8) -> u8 {
    10 + index
}

fn pod_address(node: u8, last: u8) -> (Ipv4Addr, Ipv6Addr) {
    (
        Ipv4Addr::new(10, 244, node, last),
        Ipv6Addr::new(0xfd00, 0x244, 0, node.into(), 0, 0, 0, last.into()),
    )
}

fn extra_address(networks: &[String], network: &str, last: u8) -> Option<(Ipv4Addr, Ipv6Addr)> {
    let n = networks.iter().position(|name| name == network)? as u8 + 1;
    Some((
        Ipv4Addr::new(10, 90, n, last),
        Ipv6Addr::new(0xfd00, 0x90, n.into(), 0, 0, 0, 0, last.into()),
    ))
}

fn room(what: &'static str, count: usize, max: usize) -> Result<(), PlanError> {
    if count > max {
        return Err(PlanError::TooMany { what, count, max });
    }
    Ok(())
}

fn claim(names: &mut BTreeSet<String>, name: &str) -> Result<(), PlanError> {
    check_name(name)?;
    if !names.insert(name.to_owned()) {
        return Err(PlanError::DuplicateName(name.to_owned()));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), PlanError> {
    if RESERVED_NAMES.contains(&name) {
        return Err(PlanError::ReservedName(name.to_owned()));
    }
    let alnum = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = name.as_bytes();
    let good = bytes.len() <= 63
        && bytes.first().is_some_and(alnum)
        && bytes.last().is_some_and(alnum)
        && bytes.iter().all(|c| alnum(c) || matches!(c, b'-' | b'.'));
    if good {
        Ok(())
    } else {
        Err(PlanError::BadName(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topology::{ClientSpec, NodeSpec, OutsideSpec};

    fn all_addresses(plan: &Plan) -> Vec<IpAddr> {
        let mut all = Vec::new();
        for family in Family::BOTH {
            all.extend([
                plan.router(family),
                plan.fabric(family),
                plan.router_outside(family),
            ]);
            for node in plan.nodes() {
                all.extend(node.all_ips(family));
                all.extend(plan.outside(&node.name).map(|outside| outside.ip(family)));
            }
            all.extend(plan.clients().iter().map(|client| client.ip(family)));
            let own = plan.pods().into_iter().filter(|pod| !pod.host_network);
            all.extend(own.map(|pod| pod.ip(family)));
        }
        all
    }

    fn topology() -> Topology {
        let mut topology = Topology::uniform(2, 2);
        topology.nodes[1].networks = vec!["storage".to_owned()];
        topology.pods.push(PodSpec {
            name: "daemon".to_owned(),
            node: "node2".to_owned(),
            host_network: true,
            ..PodSpec::default()
        });
        for (name, network) in [("neighbour", NODE_NETWORK), ("disk", "storage")] {
            topology.clients.push(ClientSpec {
                name: name.to_owned(),
                network: network.to_owned(),
                ..ClientSpec::default()
            });
        }
        topology
    }

    #[test]
    fn the_addresses_are_the_documented_ones() {
        let plan = Plan::new(&topology()).unwrap();
        let mut text = String::new();
        for node in plan.nodes() {
            let outside = plan.outside(&node.name).unwrap();
            for family in Family::BOTH {
                text += &format!(
                    "{} {:?}: all {:?}, pods {}, outside {}\n",
                    node.name,
                    family,
                    node.all_ips(family),
                    node.pod_cidr(family),
                    outside.ip(family)
                );
            }
        }
        for pod in plan.pods() {
            text += &format!("{}: {} {}\n", pod.name, pod.ipv4, pod.ipv6);
        }
        for client in plan.clients() {
            text += &format!("{}: {} {}\n", client.name, client.ipv4, client.ipv6);
        }
        for family in Family::BOTH {
            text += &format!(
                "{} {} {} {}\n",
                plan.external_ip(7, family),
                plan.load_balancer_ip(7, family),
                plan.router(family),
                plan.fabric(family)
            );
        }
        text += &format!(
            "{} {:?} {:?}\n",
            plan.api_server(),
            plan.cluster_cidrs(),
            plan.service_cidrs()
        );
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let with = |change: fn(&mut Topology)| {
            let mut topology = topology();
            change(&mut topology);
            Plan::new(&topology).map(drop)
        };
        assert_eq!(with(|_| ()), Ok(()));
        type Change = fn(&mut Topology);
        let cases: [(Change, PlanError); 13] = [
            (|t| t.nodes.clear(), PlanError::NoNodes),
            (
                |t| t.pods[0].name = "node1".to_owned(),
                PlanError::DuplicateName("node1".to_owned()),
            ),
            (
                |t| t.pods[0].name = "pod2".to_owned(),
                PlanError::DuplicateName("pod2".to_owned()),
            ),
            (
                |t| t.clients[0].name = "node1".to_owned(),
                PlanError::DuplicateName("node1".to_owned()),
            ),
            (
                |t| t.nodes[0].name = "router".to_owned(),
                PlanError::ReservedName("router".to_owned()),
            ),
            (
                |t| t.pods[0].name = "Pod".to_owned(),
                PlanError::BadName("Pod".to_owned()),
            ),
            (
                |t| t.pods[0].node = "node9".to_owned(),
                PlanError::UnknownNode {
                    pod: "pod1".to_owned(),
                    node: "node9".to_owned(),
                },
            ),
            (
                |t| t.clients[0].network = "lan".to_owned(),
                PlanError::UnknownNetwork {
                    client: "neighbour".to_owned(),
                    network: "lan".to_owned(),
                },
            ),
            (
                |t| t.nodes[0].networks = vec![NODE_NETWORK.to_owned()],
                PlanError::BadNetworks("node1".to_owned()),
            ),
            (
                |t| t.outside = Some(OutsideSpec { mtu: Some(1000) }),
                PlanError::BadMtu(1000),
            ),
            (
                |t| t.pods[0].mtu = Some(1501),
                PlanError::BadPodMtu {
                    pod: "pod1".to_owned(),
                    mtu: 1501,
                },
            ),
            (
                |t| t.pods[4].mtu = Some(1400),
                PlanError::BadPodMtu {
                    pod: "daemon".to_owned(),
                    mtu: 1400,
                },
            ),
            (
                |t| t.clients[1].through = Some("node1".to_owned()),
                PlanError::UnknownThrough {
                    client: "disk".to_owned(),
                    node: "node1".to_owned(),
                },
            ),
        ];
        for (change, error) in cases {
            assert_eq!(with(change), Err(error));
        }
        let many = (0..=MAX_NODES)
            .map(|n| NodeSpec {
                name: format!("n{n}"),
                ..NodeSpec::default()
            })
            .collect();
        let error = with_nodes(many);
        assert!(
            matches!(error, Err(PlanError::TooMany { count: 101, .. })),
            "{error:?}"
        );
    }

    fn with_nodes(nodes: Vec<NodeSpec>) -> Result<Plan, PlanError> {
        Plan::new(&Topology {
            nodes,
            ..Topology::default()
        })
    }

    #[test]
    fn the_address_of_a_removed_pod_is_not_given_again() {
        let plan = Plan::new(&Topology::uniform(1, 1)).unwrap();
        let spec = plan.topology().pods[0].clone();
        let first = plan.pod_removed("pod1").unwrap();
        assert_eq!(plan.pod("pod1"), None);
        let second = plan.pod_added(&spec).unwrap();
        assert_eq!(first.name, second.name);
        assert_ne!(first.ipv4, second.ipv4);
        assert_eq!(plan.pod("pod1"), Some(second));
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice(
            nodes in 1usize..=MAX_NODES,
            pods in 0usize..8,
            networks in proptest::collection::vec(0usize..3, 0..4),
            clients in 0usize..5,
        ) {
            let mut topology = Topology::uniform(nodes, pods);
            for (n, network) in networks.iter().enumerate() {
                let node = &mut topology.nodes[n % nodes];
                let name = format!("net{network}");
                if !node.networks.contains(&name) {
                    node.networks.push(name);
                }
            }
            for n in 0..clients {
                topology.clients.push(ClientSpec {
                    name: format!("client{n}"),
                    network: NODE_NETWORK.to_owned(),
                    ..ClientSpec::default()
                });
            }
            let plan = Plan::new(&topology).unwrap();
            let all = all_addresses(&plan);
            let different: BTreeSet<_> = all.iter().collect();
            prop_assert_eq!(different.len(), all.len());
            for pod in plan.pods() {
                let node = plan.node(&pod.node).unwrap();
                for family in Family::BOTH {
                    prop_assert!(node.pod_cidr(family).contains(&pod.ip(family)));
                    prop_assert!(cluster_cidr(family).contains(&pod.ip(family)));
                }
            }
            for family in Family::BOTH {
                for frontend in frontend_cidrs(family) {
                    prop_assert!(!all.iter().any(|addr| frontend.contains(addr)));
                }
            }
        }
    }
}
