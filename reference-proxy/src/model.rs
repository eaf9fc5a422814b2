//! Services, endpoints and the node, parsed and compact.
//!
//! Here is the one place where strings of the API become values. Whatever cannot be understood is left out and the rest of the object is
//! used: one bad address must not stop a Service, let alone the others (kubernetes/kubernetes#88316, #95486).

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    health::TO_BE_DELETED_TAINT,
    objects::{EndpointSliceObject, NodeObject, ServiceObject},
    ruleset::{Family, Protocol},
};

/// The label that names the Service of an EndpointSlice. Nothing else does, owner references included.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// When `sessionAffinity: ClientIP` says no timeout.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// Namespace and name of a Service, joined by a slash.
pub type ServiceKey = Arc<str>;

/// Namespace and name of an EndpointSlice, joined by a slash.
pub type SliceKey = Arc<str>;

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Cluster IPs.
    pub cluster_ips: Vec<IpAddr>,
    /// External IPs.
    pub external_ips: Vec<IpAddr>,
    /// Load balancer IPs that the nodes serve (`ipMode: VIP`).
    pub load_balancer_ips: Vec<IpAddr>,
    /// Sources that the load balancer IPs serve; without one of a family, that family is not restricted.
    pub source_ranges: Vec<IpNet>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Session affinity's timeout in seconds.
    pub affinity: Option<u32>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// Where a load balancer asks for local endpoints.
    pub health_check_node_port: Option<u16>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, empty for the only port.
    pub name: Box<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// The port of all frontends but node ports.
    pub port: u16,
    /// The node port.
    pub node_port: Option<u16>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The Service it belongs to.
    pub service: ServiceKey,
    /// The ports.
    pub ports: Vec<SlicePort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The Service port's name.
    pub name: Box<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// The number at the endpoint.
    pub port: u16,
}

/// How usable an endpoint is; the greatest of several copies counts (kubernetes/kubernetes#135593).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Neither ready nor serving while terminating. It may still be serving.
    Unusable {
        /// Not ready, yet it answers.
        serving: bool,
    },
    /// Serving while terminating: used when nothing is ready (KEP-1669).
    Terminating,
    /// Ready.
    Ready,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address.
    pub ip: IpAddr,
    /// How usable it is.
    pub state: State,
    /// Whether it is on this node.
    pub local: bool,
    /// Whether this node is among the nodes it is meant for; `None` when it names none.
    pub for_this_node: Option<bool>,
    /// The zones it is meant for; empty when it names none.
    pub zones: Box<[Box<str>]>,
}

/// What the Node object says about this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Internal addresses.
    pub ips: Vec<IpAddr>,
    /// The ranges of the node's pods.
    pub pod_cidrs: Vec<IpNet>,
    /// The zone.
    pub zone: Option<Box<str>>,
    /// Neither being deleted nor about to be.
    pub eligible: bool,
}

/// An address that a packet from elsewhere may have. Other texts are left out: leading zeros, IPv4 in IPv6, and addresses that never
/// belong to a Service or an endpoint.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    let strange = match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.to_ipv4_mapped().is_some() || ip.is_unicast_link_local(),
    };
    (!strange && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()).then_some(ip)
}

fn parse_ips<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = texts
        .into_iter()
        .filter_map(|text| parse_ip(text))
        .collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}

/// Ranges without bits beyond the prefix, without overlaps.
fn parse_nets<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpNet> {
    let nets: Vec<IpNet> = texts
        .into_iter()
        .filter_map(|text| text.trim().parse::<IpNet>().ok())
        .map(|net| net.trunc())
        .collect();
    let mut nets = IpNet::aggregate(&nets);
    nets.sort_unstable();
    nets
}

fn port(number: Option<i32>) -> Option<u16> {
    u16::try_from(number?).ok().filter(|port| *port != 0)
}

fn protocol(name: Option<&String>) -> Option<Protocol> {
    Protocol::from_api(name.map_or("TCP", String::as_str))
}

impl Service {
    /// Reads a Service; `None` for one without frontends of its own: headless, `ExternalName`, or without a cluster IP yet.
    pub fn parse(object: &ServiceObject) -> Option<Self> {
        let spec = object.spec.as_ref()?;
        let type_ = spec.type_.as_deref().unwrap_or("ClusterIP");
        if type_ == "ExternalName" || spec.cluster_ip.as_deref() == Some("None") {
            return None;
        }
        let cluster_ips = match spec.cluster_ips.as_deref() {
            Some(ips) if !ips.is_empty() => parse_ips(ips),
            _ => parse_ips(&spec.cluster_ip),
        };
        let exposed = type_ == "NodePort" || type_ == "LoadBalancer";
        let load_balancer = type_ == "LoadBalancer";
        let ingress = object
            .status
            .as_ref()
            .and_then(|status| status.load_balancer.as_ref())
            .and_then(|status| status.ingress.as_deref())
            .filter(|_| load_balancer)
            .unwrap_or_default();
        let vips = ingress
            .iter()
            .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|ingress| ingress.ip.as_ref());
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            spec.session_affinity_config
                .as_ref()
                .and_then(|config| config.client_ip.as_ref())
                .and_then(|config| config.timeout_seconds)
                .and_then(|seconds| u32::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0)
                .unwrap_or(DEFAULT_AFFINITY_SECONDS)
        });
        let ports = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|spec| {
                Some(ServicePort {
                    name: spec.name.as_deref().unwrap_or_default().into(),
                    protocol: protocol(spec.protocol.as_ref())?,
                    port: port(Some(spec.port))?,
                    node_port: port(spec.node_port).filter(|_| exposed),
                })
            })
            .collect();
        let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
        Some(Self {
            cluster_ips,
            external_ips: parse_ips(spec.external_ips.iter().flatten()),
            load_balancer_ips: parse_ips(vips),
            source_ranges: if load_balancer {
                parse_nets(spec.load_balancer_source_ranges.iter().flatten())
            } else {
                Vec::new()
            },
            ports,
            affinity,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local,
            health_check_node_port: port(spec.health_check_node_port)
                .filter(|_| load_balancer && external_local),
        })
    }
}

impl Slice {
    /// Reads an EndpointSlice as seen from the node called `node`; `None` for one that belongs to no Service or has no addresses.
    pub fn parse(object: &EndpointSliceObject, node: &str) -> Option<Self> {
        let namespace = object.metadata.namespace.as_deref()?;
        let name = object
            .metadata
            .labels
            .as_ref()?
            .get(SERVICE_NAME_LABEL)
            .filter(|name| !name.is_empty())?;
        let family = match object.address_type.as_deref() {
            Some("IPv4") => Family::V4,
            Some("IPv6") => Family::V6,
            _ => return None,
        };
        let ports = object
            .ports
            .iter()
            .flatten()
            .filter_map(|spec| {
                Some(SlicePort {
                    name: spec.name.as_deref().unwrap_or_default().into(),
                    protocol: protocol(spec.protocol.as_ref())?,
                    port: port(spec.port)?,
                })
            })
            .collect();
        let endpoints = object
            .endpoints
            .iter()
            .flatten()
            .filter_map(|spec| {
                let ip = parse_ip(spec.addresses.as_ref()?.first()?)?;
                let conditions = spec.conditions.unwrap_or_default();
                let ready = conditions.ready.unwrap_or(true);
                let serving = conditions.serving.unwrap_or(true);
                let terminating = conditions.terminating.unwrap_or(false);
                let state = match (ready, serving, terminating) {
                    (true, _, _) => State::Ready,
                    (false, true, true) => State::Terminating,
                    (false, serving, _) => State::Unusable { serving },
                };
                let hints = spec.hints.as_ref();
                let for_nodes = hints
                    .and_then(|hints| hints.for_nodes.as_deref())
                    .unwrap_or_default();
                let for_zones = hints
                    .and_then(|hints| hints.for_zones.as_deref())
                    .unwrap_or_default();
                Some(Endpoint {
                    ip,
                    state,
                    local: spec.node_name.as_deref() == Some(node),
                    for_this_node: (!for_nodes.is_empty())
                        .then(|| for_nodes.iter().any(|hint| hint.name == node)),
                    zones: for_zones
                        .iter()
                        .map(|hint| hint.name.as_str().into())
                        .collect(),
                })
            })
            .filter(|endpoint| Family::of(endpoint.ip) == family)
            .collect();
        Some(Self {
            service: format!("{namespace}/{name}").into(),
            ports,
            endpoints,
        })
    }
}

impl Node {
    /// Reads a Node.
    pub fn parse(object: &NodeObject) -> Self {
        let spec = object.spec.as_ref();
        let cidrs = match spec.and_then(|spec| spec.pod_cidrs.as_deref()) {
            Some(cidrs) if !cidrs.is_empty() => parse_nets(cidrs),
            _ => parse_nets(spec.and_then(|spec| spec.pod_cidr.as_ref())),
        };
        let addresses = object
            .status
            .iter()
            .flat_map(|status| status.addresses.iter().flatten())
            .filter(|address| address.type_ == "InternalIP")
            .map(|address| &address.address);
        let tainted = spec
            .and_then(|spec| spec.taints.as_deref())
            .unwrap_or_default()
            .iter()
            .any(|taint| taint.key == TO_BE_DELETED_TAINT);
        Self {
            ips: parse_ips(addresses),
            pod_cidrs: cidrs,
            zone: object
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(ZONE_LABEL))
                .map(|zone| zone.as_str().into()),
            eligible: !tainted && object.metadata.deletion_timestamp.is_none(),
        }
    }
}
