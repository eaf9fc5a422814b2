//! EndpointSlice.

use kube::{api::ObjectMeta, core::NamespaceResourceScope};
use serde::{Deserialize, Serialize};

/// An EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSliceObject {
    /// Name, namespace, and the label that names the Service.
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: Option<String>,
    /// The endpoints.
    pub endpoints: Option<Vec<SliceEndpoint>>,
    /// The ports that all of them have.
    pub ports: Option<Vec<EndpointPort>>,
}

super::resource!(
    EndpointSliceObject,
    NamespaceResourceScope,
    "discovery.k8s.io",
    "v1",
    "EndpointSlice",
    "endpointslices"
);

/// One of `endpoints`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SliceEndpoint {
    /// Its addresses; they mean the same endpoint, and only the first one counts.
    pub addresses: Option<Vec<String>>,
    /// Its state.
    pub conditions: Option<EndpointConditions>,
    /// The node it is on.
    pub node_name: Option<String>,
    /// For which nodes and zones it is meant.
    pub hints: Option<EndpointHints>,
}

/// `endpoints[].conditions`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointConditions {
    /// Absent means true.
    pub ready: Option<bool>,
    /// Absent means as `ready`.
    pub serving: Option<bool>,
    /// Absent means false.
    pub terminating: Option<bool>,
}

/// `endpoints[].hints`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointHints {
    /// Zones (KEP-2433).
    pub for_zones: Option<Vec<ForName>>,
    /// Nodes (KEP-3015).
    pub for_nodes: Option<Vec<ForName>>,
}

/// A zone or node in a hint.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ForName {
    /// Its name.
    pub name: String,
}

/// One of `ports`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointPort {
    /// The name of the Service port; absent means empty.
    pub name: Option<String>,
    /// `TCP`, `UDP` or `SCTP`; absent means `TCP`.
    pub protocol: Option<String>,
    /// The number at the endpoint; absent means that it is not restricted, which a proxy cannot serve.
    pub port: Option<i32>,
}
