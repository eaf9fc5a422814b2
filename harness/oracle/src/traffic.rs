//! The words for traffic: families, protocols, who sends, and where to.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// An IP address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Both families, in the order in which reports list them.
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        })
    }
}

/// A transport protocol of a Service port (API: `ServicePort.protocol`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP, the API's default.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        })
    }
}

/// Who opens the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Source {
    /// A pod with a network namespace of its own.
    Pod {
        /// The pod's name.
        name: String,
        /// The node the pod runs on.
        node: String,
        /// The pod's addresses, at most one per family.
        ips: Vec<IpAddr>,
    },
    /// A process on the node, or a hostNetwork pod.
    Node {
        /// The node's name.
        name: String,
    },
    /// A client beyond the cluster's networks.
    Outside {
        /// The client's address.
        ip: IpAddr,
        /// The node at which its traffic for externalIPs and LoadBalancer IPs arrives.
        via: String,
    },
    /// A host on the node network that is not a node: it can put any packet on the wire to a node.
    Neighbour {
        /// The host's address.
        ip: IpAddr,
    },
}

impl Source {
    /// Whether the client is a pod or a node of the cluster.
    pub fn in_cluster(&self) -> bool {
        matches!(self, Source::Pod { .. } | Source::Node { .. })
    }

    /// The node whose proxy sees the traffic first, when the source decides that.
    pub fn node(&self) -> Option<&str> {
        match self {
            Source::Pod { node, .. } => Some(node),
            Source::Node { name } => Some(name),
            Source::Outside { via, .. } => Some(via),
            Source::Neighbour { .. } => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Pod { name, node, .. } => write!(f, "pod {name} on {node}"),
            Source::Node { name } => write!(f, "node {name}"),
            Source::Outside { ip, via } => write!(f, "outside client {ip} via {via}"),
            Source::Neighbour { ip } => write!(f, "neighbour {ip}"),
        }
    }
}

/// Where a connection is opened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Destination {
    /// Destination address.
    pub ip: IpAddr,
    /// Destination port.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => write!(f, "{ip}:{}/{}", self.port, self.protocol),
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}/{}", self.port, self.protocol),
        }
    }
}
