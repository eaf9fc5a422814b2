//! Everything the answer depends on besides source and destination.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::address::parse_ip;
use crate::objects::{EndpointSlice, ObjectError, Service};
use crate::traffic::Protocol;

/// A node as the oracle sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The node's name, as in `endpoints[].nodeName`.
    pub name: String,
    /// Addresses of type InternalIP in the Node's status.
    pub internal_ips: Vec<IpAddr>,
    /// Every address that is local on the node: also those of pod wires, further networks and loopback.
    pub all_ips: Vec<IpAddr>,
    /// The node's label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
}

impl Node {
    /// Whether the address is local on this node, loopback excepted (every node has that one).
    pub fn owns(&self, ip: IpAddr) -> bool {
        !ip.is_loopback() && (self.internal_ips.contains(&ip) || self.all_ips.contains(&ip))
    }
}

/// Which pod an address belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodIdentity {
    /// The pod's name, as its servers report it.
    pub name: String,
    /// The node it runs on.
    pub node: String,
}

/// A process that listens without being behind an address of its own: a host process, a server of a
/// hostNetwork pod, or a server beyond the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The node it runs on; `None` for one beyond the cluster.
    pub node: Option<String>,
    /// The address it is bound to; `None` for the wildcard address.
    pub ip: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// What it calls itself in its answers.
    pub name: String,
}

/// API objects and topology.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The candidate's `--nodeport-addresses`. `None` is its default; that is all addresses for some and the
    /// primary ones for others, so an InternalIP must be served and any other node address is a characteristic. A list without
    /// a range of a family leaves that family open.
    pub nodeport_addresses: Option<Vec<IpNet>>,
    /// The ranges that ClusterIPs come from. An address in them that no Service has must not answer.
    pub service_cidrs: Vec<IpNet>,
    /// Whether the network, and not the proxy, gives what pods send to other nodes the address of the pod's node: what ip-masq-agent, kindnet
    /// and others do with everything that leaves the range of the pods. Then a server there sees no pod's address, whatever the proxy does.
    pub pods_are_masqueraded_to_nodes: bool,
    /// Whether the nodes tell senders only now and then that nobody is there: the kernel limits such messages to one a second per destination
    /// (`net.ipv4.icmp_ratelimit`) unless somebody switched that off. Then silence is no proof that nobody wanted to say it.
    pub refusals_are_limited: bool,
    /// The name this proxy goes by: it serves Services labelled with it instead of unlabelled ones.
    pub service_proxy_name: Option<String>,
    /// All Services.
    pub services: Vec<Service>,
    /// All EndpointSlices.
    pub slices: Vec<EndpointSlice>,
    /// Which pod has which address.
    pub pods: BTreeMap<IpAddr, PodIdentity>,
    /// Known listeners that are not pods with addresses of their own.
    pub listeners: Vec<Listener>,
}

impl Cluster {
    /// Reads Services, EndpointSlices, Pods (for identity) and Nodes (for zones not given in `nodes`) from API
    /// objects; other kinds are skipped. `List` objects are not expanded.
    ///
    /// # Errors
    /// When a Service or EndpointSlice does not have the shape that the API server guarantees.
    pub fn from_objects(objects: &[Value], nodes: Vec<Node>) -> Result<Self, ObjectError> {
        let mut cluster = Cluster {
            nodes,
            ..Cluster::default()
        };
        for object in objects {
            match object["kind"].as_str() {
                Some("Service") => cluster.services.push(Service::from_value(object)?),
                Some("EndpointSlice") => cluster.slices.push(EndpointSlice::from_value(object)?),
                Some("Node") => cluster.add_zone(object),
                Some("Pod") => cluster.add_pod(object),
                _ => {}
            }
        }
        Ok(cluster)
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The node on which the address is local (loopback belongs to nobody in particular).
    pub fn node_owning(&self, ip: IpAddr) -> Option<&Node> {
        self.nodes.iter().find(|node| node.owns(ip))
    }

    fn add_zone(&mut self, object: &Value) {
        let zone = object["metadata"]["labels"]["topology.kubernetes.io/zone"].as_str();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if let Some(node) = self
            .nodes
            .iter_mut()
            .find(|node| node.name == name && node.zone.is_none())
        {
            node.zone = zone.map(str::to_owned);
        }
    }

    fn add_pod(&mut self, object: &Value) {
        let over = matches!(
            object["status"]["phase"].as_str(),
            Some("Failed" | "Succeeded")
        );
        if over || object["spec"]["hostNetwork"].as_bool() == Some(true) {
            return;
        }
        let (Some(name), Some(node)) = (
            object["metadata"]["name"].as_str(),
            object["spec"]["nodeName"].as_str(),
        ) else {
            return;
        };
        let terminating = object["metadata"]["deletionTimestamp"].is_string();
        let ips = object["status"]["podIPs"].as_array();
        let ips = ips.into_iter().flatten().map(|entry| &entry["ip"]);
        for ip in ips
            .chain([&object["status"]["podIP"]])
            .filter_map(|ip| parse_ip(ip.as_str()?))
        {
            let pod = PodIdentity {
                name: name.to_owned(),
                node: node.to_owned(),
            };
            // An address can be given to a new pod before the object of the old one is gone.
            if terminating {
                self.pods.entry(ip).or_insert(pod);
            } else {
                self.pods.insert(ip, pod);
            }
        }
    }
}
