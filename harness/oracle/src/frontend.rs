//! Frontends: every (address, port, protocol) at which a Service can be reached.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::parse_ip;
use crate::cluster::{Cluster, Node};
use crate::objects::{Service, ServicePort, ServiceType};
use crate::traffic::{Destination, Family, Protocol};

/// The kind of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FrontendKind {
    /// `spec.clusterIPs`.
    ClusterIp,
    /// `spec.ports[].nodePort` on a node's address.
    NodePort,
    /// `spec.externalIPs`.
    ExternalIp,
    /// `status.loadBalancer.ingress[].ip`, unless its mode is `Proxy`.
    LoadBalancerIp,
}

impl fmt::Display for FrontendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            FrontendKind::ClusterIp => "ClusterIP",
            FrontendKind::NodePort => "NodePort",
            FrontendKind::ExternalIp => "externalIP",
            FrontendKind::LoadBalancerIp => "LoadBalancer IP",
        })
    }
}

/// One address, port and protocol at which a Service port can be reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Frontend {
    /// Namespace and name of the Service.
    pub service: (String, String),
    /// The name of the Service port; empty for a single unnamed one.
    pub port_name: String,
    /// Kind.
    pub kind: FrontendKind,
    /// Family of the address.
    pub family: Family,
    /// Protocol.
    pub protocol: Protocol,
    /// Address.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// The node that owns the address, for NodePorts.
    pub node: Option<String>,
}

impl Frontend {
    /// The frontend as a destination.
    pub fn destination(&self) -> Destination {
        Destination {
            ip: self.ip,
            port: self.port,
            protocol: self.protocol,
        }
    }
}

/// Whether this proxy is in charge of the Service at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    Yes,
    /// `clusterIP: None`.
    Headless,
    /// The label `service.kubernetes.io/headless` on a Service that is not headless.
    HeadlessLabel,
    /// The label `service.kubernetes.io/service-proxy-name` names another proxy, or none where ours has a name.
    OtherProxy,
    ExternalName,
}

pub(crate) fn served(cluster: &Cluster, service: &Service) -> Served {
    if service.kind() == ServiceType::ExternalName {
        Served::ExternalName
    } else if service.label("service.kubernetes.io/service-proxy-name")
        != cluster.service_proxy_name.as_deref()
    {
        Served::OtherProxy
    } else if service.is_headless() {
        Served::Headless
    } else if service.label("service.kubernetes.io/headless").is_some() {
        Served::HeadlessLabel
    } else {
        Served::Yes
    }
}

/// Whether `--nodeport-addresses` says anything about an address of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodePortAddress {
    /// NodePorts must be served on it.
    Must,
    /// It is up to the implementation.
    May,
    /// NodePorts must not be served on it.
    MustNot,
}

pub(crate) fn nodeport_address(cluster: &Cluster, node: &Node, ip: IpAddr) -> NodePortAddress {
    let family = Family::of(ip);
    match &cluster.nodeport_addresses {
        Some(ranges) if ranges.iter().any(|range| range.contains(&ip)) => NodePortAddress::Must,
        Some(ranges)
            if ranges
                .iter()
                .any(|range| Family::of(range.addr()) == family) =>
        {
            NodePortAddress::MustNot
        }
        // For some a list without a range of the family is no list for it, for others an empty one.
        Some(_) => NodePortAddress::May,
        None if node.internal_ips.contains(&ip) => NodePortAddress::Must,
        None => NodePortAddress::May,
    }
}

/// The family's externalIPs, each once.
pub(crate) fn external_ips(service: &Service, family: Family) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = service
        .external_ips()
        .filter(|ip| Family::of(*ip) == family)
        .collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}

/// The family's LoadBalancer addresses with the given treatment of the mode, each once.
pub(crate) fn load_balancer_ips(
    service: &Service,
    family: Family,
    proxy_mode: bool,
) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = service
        .ingress()
        .iter()
        .filter(|entry| (entry.ip_mode.as_deref() == Some("Proxy")) == proxy_mode)
        .filter_map(|entry| parse_ip(&entry.ip))
        .filter(|ip| Family::of(*ip) == family)
        .collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}

/// The nodePort of a port, if the Service's type has one.
pub(crate) fn node_port(service: &Service, port: &ServicePort) -> Option<u16> {
    let has = matches!(
        service.kind(),
        ServiceType::NodePort | ServiceType::LoadBalancer
    );
    (has && port.node_port != 0).then_some(port.node_port)
}

/// Everything that must be probed: all frontends of all Services this proxy is in charge of, NodePorts on each
/// InternalIP of each node. Sorted; what must happen at each of them is for [`crate::expect`] to say.
pub fn frontends(cluster: &Cluster) -> Vec<Frontend> {
    let mut found = Vec::new();
    for service in &cluster.services {
        if served(cluster, service) != Served::Yes {
            continue;
        }
        for family in Family::ALL {
            // A Service without a ClusterIP in a family does not exist in that family (KEP-563).
            let Some(cluster_ip) = service.cluster_ip(family) else {
                continue;
            };
            for port in service.ports() {
                let mut add = |kind, ip, number, node: Option<&str>| {
                    found.push(Frontend {
                        service: service.key(),
                        port_name: port.name.clone(),
                        kind,
                        family,
                        protocol: port.protocol,
                        ip,
                        port: number,
                        node: node.map(str::to_owned),
                    });
                };
                add(FrontendKind::ClusterIp, cluster_ip, port.port, None);
                for ip in external_ips(service, family) {
                    add(FrontendKind::ExternalIp, ip, port.port, None);
                }
                if service.kind() == ServiceType::LoadBalancer {
                    for ip in load_balancer_ips(service, family, false) {
                        add(FrontendKind::LoadBalancerIp, ip, port.port, None);
                    }
                }
                let Some(number) = node_port(service, port) else {
                    continue;
                };
                for node in &cluster.nodes {
                    for ip in node
                        .internal_ips
                        .iter()
                        .filter(|ip| Family::of(**ip) == family)
                    {
                        if nodeport_address(cluster, node, *ip) == NodePortAddress::Must {
                            add(FrontendKind::NodePort, *ip, number, Some(&node.name));
                        }
                    }
                }
            }
        }
    }
    found.sort();
    found.dedup();
    found
}
