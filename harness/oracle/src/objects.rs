//! Service and EndpointSlice as far as a service proxy must read them.
//!
//! Unknown fields are skipped and absent fields get the meaning that the API documentation gives them. Addresses stay
//! text here, because one bad address must not cost the rest of the object.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::address::parse_ip;
use crate::traffic::{Family, Protocol};

/// A Service or EndpointSlice that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {kind} {name:?}: {source}")]
pub struct ObjectError {
    kind: &'static str,
    name: String,
    source: serde_json::Error,
}

fn read<T: for<'de> Deserialize<'de>>(
    kind: &'static str,
    object: &Value,
) -> Result<T, ObjectError> {
    T::deserialize(object).map_err(|source| ObjectError {
        kind,
        name: object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        source,
    })
}

/// Reads `null` as the default, the way Go does.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The part of the metadata that matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// Namespace.
    #[serde(deserialize_with = "nullable")]
    pub namespace: String,
    /// Name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
}

/// `Service.spec.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    /// Only reachable by its ClusterIP (and externalIPs).
    #[default]
    ClusterIP,
    /// Also by a port of every node.
    NodePort,
    /// Also by the addresses in `status.loadBalancer`.
    LoadBalancer,
    /// A DNS alias: no business of a service proxy.
    ExternalName,
}

/// `internalTrafficPolicy` and `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// All endpoints.
    #[default]
    Cluster,
    /// Only endpoints on the node.
    Local,
}

/// `Service.spec.sessionAffinity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Affinity {
    #[default]
    None,
    ClientIP,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// Name, which pairs it with ports of EndpointSlices; empty when there is only one.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Protocol, TCP by default.
    #[serde(deserialize_with = "nullable")]
    pub protocol: Protocol,
    /// The port of ClusterIP, externalIPs and LoadBalancer IPs.
    pub port: u16,
    /// The port on nodes; 0 when there is none.
    #[serde(deserialize_with = "nullable")]
    pub node_port: u16,
}

/// An entry of `Service.status.loadBalancer.ingress`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancerIngress {
    /// The address, if it is one and not a host name.
    #[serde(deserialize_with = "nullable")]
    pub ip: String,
    /// `VIP` (the default) when packets arrive with this destination, `Proxy` when the load balancer changes it (KEP-1860).
    pub ip_mode: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "type", deserialize_with = "nullable")]
    kind: ServiceType,
    #[serde(rename = "clusterIP", deserialize_with = "nullable")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs", deserialize_with = "nullable")]
    cluster_ips: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    ip_families: Vec<String>,
    #[serde(rename = "externalIPs", deserialize_with = "nullable")]
    external_ips: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    ports: Vec<ServicePort>,
    #[serde(deserialize_with = "nullable")]
    session_affinity: Affinity,
    session_affinity_config: Option<Value>,
    #[serde(deserialize_with = "nullable")]
    internal_traffic_policy: TrafficPolicy,
    #[serde(deserialize_with = "nullable")]
    external_traffic_policy: TrafficPolicy,
    #[serde(deserialize_with = "nullable")]
    load_balancer_source_ranges: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LoadBalancerStatus {
    #[serde(deserialize_with = "nullable")]
    ingress: Vec<LoadBalancerIngress>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    #[serde(deserialize_with = "nullable")]
    load_balancer: LoadBalancerStatus,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    #[serde(deserialize_with = "nullable")]
    metadata: Metadata,
    #[serde(deserialize_with = "nullable")]
    spec: Spec,
    #[serde(deserialize_with = "nullable")]
    status: Status,
}

impl Service {
    /// Reads an API object.
    ///
    /// # Errors
    /// When a field has a type or value that the API server never lets through.
    pub fn from_value(object: &Value) -> Result<Self, ObjectError> {
        read("Service", object)
    }

    /// Namespace and name.
    pub fn key(&self) -> (String, String) {
        (self.metadata.namespace.clone(), self.metadata.name.clone())
    }

    /// `namespace/name`, for texts.
    pub fn display_name(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// `spec.type`.
    pub fn kind(&self) -> ServiceType {
        self.spec.kind
    }

    /// The ports.
    pub fn ports(&self) -> &[ServicePort] {
        &self.spec.ports
    }

    /// A label's value.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.metadata.labels.get(name).map(String::as_str)
    }

    /// `clusterIP: None`.
    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip == "None" || self.spec.cluster_ips.iter().any(|ip| ip == "None")
    }

    /// The ClusterIP of a family.
    pub fn cluster_ip(&self, family: Family) -> Option<IpAddr> {
        // `clusterIPs[0]` equals `clusterIP`, but objects written by old clients carry only the latter.
        self.spec
            .cluster_ips
            .iter()
            .chain([&self.spec.cluster_ip])
            .filter_map(|ip| parse_ip(ip))
            .find(|ip| Family::of(*ip) == family)
    }

    /// Whether the Service exists in a family: it has a ClusterIP there, or `ipFamilies` lists it when there are none
    /// (KEP-563). A headless Service that lists nothing is in both.
    pub fn has_family(&self, family: Family) -> bool {
        if !self.is_headless() {
            return self.cluster_ip(family).is_some();
        }
        let name = match family {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        };
        let listed = &self.spec.ip_families;
        listed.is_empty() || listed.iter().any(|listed| listed == name)
    }

    /// All well-formed externalIPs, of both families.
    pub fn external_ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.spec.external_ips.iter().filter_map(|ip| parse_ip(ip))
    }

    /// The entries of `status.loadBalancer.ingress`.
    pub fn ingress(&self) -> &[LoadBalancerIngress] {
        &self.status.load_balancer.ingress
    }

    /// The entries of `loadBalancerSourceRanges`, as written.
    pub fn source_ranges(&self) -> &[String] {
        &self.spec.load_balancer_source_ranges
    }

    /// `internalTrafficPolicy`, `Cluster` by default.
    pub fn internal_policy(&self) -> TrafficPolicy {
        self.spec.internal_traffic_policy
    }

    /// `externalTrafficPolicy`, `Cluster` by default.
    pub fn external_policy(&self) -> TrafficPolicy {
        self.spec.external_traffic_policy
    }

    /// The affinity timeout (`sessionAffinityConfig.clientIP.timeoutSeconds`, 3 hours by default), if there is affinity.
    pub fn affinity(&self) -> Option<Duration> {
        (self.spec.session_affinity == Affinity::ClientIP).then(|| {
            let config = self.spec.session_affinity_config.as_ref();
            let seconds = config.and_then(|config| config["clientIP"]["timeoutSeconds"].as_u64());
            Duration::from_secs(seconds.unwrap_or(10_800))
        })
    }
}

/// A port of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SlicePort {
    /// The name of the Service port it belongs to.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Protocol, TCP by default.
    #[serde(deserialize_with = "nullable")]
    pub protocol: Protocol,
    /// The target port; a slice without one means nothing to a service proxy.
    pub port: Option<u16>,
}

/// `endpoints[].conditions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Conditions {
    pub(crate) ready: Option<bool>,
    pub(crate) serving: Option<bool>,
    pub(crate) terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Hints {
    #[serde(deserialize_with = "nullable")]
    pub(crate) for_zones: Vec<Hint>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) for_nodes: Vec<Hint>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Hint {
    pub(crate) name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TargetRef {
    pub(crate) kind: String,
    pub(crate) name: String,
}

/// An endpoint of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SliceEndpoint {
    /// Addresses; only the first has a meaning.
    #[serde(deserialize_with = "nullable")]
    pub addresses: Vec<String>,
    /// The node it is on, if any.
    pub node_name: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) conditions: Conditions,
    #[serde(deserialize_with = "nullable")]
    pub(crate) hints: Hints,
    pub(crate) target_ref: Option<TargetRef>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    #[serde(deserialize_with = "nullable")]
    metadata: Metadata,
    #[serde(deserialize_with = "nullable")]
    address_type: String,
    #[serde(deserialize_with = "nullable")]
    ports: Vec<SlicePort>,
    #[serde(deserialize_with = "nullable")]
    endpoints: Vec<SliceEndpoint>,
}

impl EndpointSlice {
    /// Reads an API object.
    ///
    /// # Errors
    /// When a field has a type or value that the API server never lets through.
    pub fn from_value(object: &Value) -> Result<Self, ObjectError> {
        read("EndpointSlice", object)
    }

    /// The key of the Service it belongs to: its namespace and its label `kubernetes.io/service-name`.
    pub fn service(&self) -> Option<(&str, &str)> {
        let name = self.metadata.labels.get("kubernetes.io/service-name")?;
        Some((&self.metadata.namespace, name))
    }

    /// Whether it has the label `service.kubernetes.io/headless`.
    pub fn is_headless(&self) -> bool {
        self.metadata
            .labels
            .contains_key("service.kubernetes.io/headless")
    }

    /// The family of its addresses; `None` for host names.
    pub fn family(&self) -> Option<Family> {
        match self.address_type.as_str() {
            "IPv4" => Some(Family::Ipv4),
            "IPv6" => Some(Family::Ipv6),
            _ => None,
        }
    }

    /// The ports.
    pub fn ports(&self) -> &[SlicePort] {
        &self.ports
    }

    /// The endpoints.
    pub fn endpoints(&self) -> &[SliceEndpoint] {
        &self.endpoints
    }
}
