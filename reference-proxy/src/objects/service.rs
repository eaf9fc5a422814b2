//! Service.

use kube::{api::ObjectMeta, core::NamespaceResourceScope};
use serde::{Deserialize, Serialize};

/// A Service.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceObject {
    /// Name, namespace, labels.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: Option<ServiceSpec>,
    /// What a load balancer reported.
    pub status: Option<ServiceStatus>,
}

super::resource!(
    ServiceObject,
    NamespaceResourceScope,
    "",
    "v1",
    "Service",
    "services"
);

/// `spec`; see the field documentation of the API.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// The first cluster IP, or `None` for a headless Service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// The cluster IPs of both families.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<String>>,
    /// Addresses that somebody routes to the nodes.
    #[serde(rename = "externalIPs")]
    pub external_ips: Option<Vec<String>>,
    /// The ports.
    pub ports: Option<Vec<PortSpec>>,
    /// `None` or `ClientIP`.
    pub session_affinity: Option<String>,
    /// The affinity's timeout.
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// `Cluster` or `Local`, for cluster IPs.
    pub internal_traffic_policy: Option<String>,
    /// `Cluster` or `Local`, for all other frontends.
    pub external_traffic_policy: Option<String>,
    /// Sources that the load balancer IP serves.
    pub load_balancer_source_ranges: Option<Vec<String>>,
    /// Where a load balancer asks whether this node has endpoints.
    pub health_check_node_port: Option<i32>,
}

/// One of `spec.ports`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortSpec {
    /// The name, by which EndpointSlices refer to it.
    pub name: Option<String>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Option<String>,
    /// The port of cluster IP, external IPs and load balancer IPs.
    pub port: i32,
    /// The port of the nodes' addresses.
    pub node_port: Option<i32>,
}

/// `spec.sessionAffinityConfig`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SessionAffinityConfig {
    /// For `ClientIP`.
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIpConfig>,
}

/// `spec.sessionAffinityConfig.clientIP`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientIpConfig {
    /// How long a client returns to the same endpoint.
    pub timeout_seconds: Option<i32>,
}

/// `status`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceStatus {
    /// What the load balancer reported.
    pub load_balancer: Option<LoadBalancerStatus>,
}

/// `status.loadBalancer`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancerStatus {
    /// Its addresses.
    pub ingress: Option<Vec<LoadBalancerIngress>>,
}

/// One of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancerIngress {
    /// The address; absent for one that has a name only.
    pub ip: Option<String>,
    /// `VIP`, or `Proxy` when nodes must leave the address alone (KEP-1860).
    pub ip_mode: Option<String>,
}
