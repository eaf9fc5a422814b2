//! Services and hand-written slices as the generator knows them, and how they look as API objects.
//!
//! A transition changes the model; what has to be written to the API is the difference between the objects before and after.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::kinds::{Frontend, Policy};
use crate::scenario::doc::{FrontendKind, Protocol};

/// `spec.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ClusterIP`.
    ClusterIp,
    /// `NodePort`.
    NodePort,
    /// `LoadBalancer`.
    LoadBalancer,
    /// `ExternalName`.
    ExternalName,
}

/// `ipFamilies` and `ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// The first family is IPv6.
    pub six_first: bool,
    /// There is a second one.
    pub dual: bool,
}

impl Families {
    fn names(self) -> Vec<&'static str> {
        match (self.six_first, self.dual) {
            (false, false) => vec!["IPv4"],
            (true, false) => vec!["IPv6"],
            (false, true) => vec!["IPv4", "IPv6"],
            (true, true) => vec!["IPv6", "IPv4"],
        }
    }

    /// `ipv4` and `ipv6`, as variables of addresses spell them.
    fn parts(self) -> Vec<&'static str> {
        self.names()
            .into_iter()
            .map(|name| if name == "IPv4" { "ipv4" } else { "ipv6" })
            .collect()
    }
}

/// A target port: by the number or the name of a container port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The first container port of the protocol.
    First,
    /// The second one.
    Second,
    /// The first one, by name.
    FirstByName,
}

impl Target {
    /// The number that it comes to.
    pub fn number(self) -> u16 {
        match self {
            Self::First | Self::FirstByName => 8080,
            Self::Second => 9090,
        }
    }

    fn value(self, protocol: Protocol) -> Value {
        match self {
            Self::FirstByName => json!(if protocol == Protocol::Udp {
                "udp"
            } else {
                "http"
            }),
            other => json!(other.number()),
        }
    }
}

/// A Service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Number.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where it leads.
    pub target: Target,
    /// The NodePort, if the type has some.
    pub node_port: u16,
}

/// Conditions of an endpoint in a slice written by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Absent: ready.
    Absent,
    /// Ready.
    Ready,
    /// Neither ready nor serving.
    Unready,
    /// Serving and terminating.
    Terminating,
}

impl Condition {
    fn value(self) -> Option<Value> {
        Some(match self {
            Self::Absent => return None,
            Self::Ready => json!({"ready": true}),
            Self::Unready => json!({"ready": false, "serving": false, "terminating": false}),
            Self::Terminating => json!({"ready": false, "serving": true, "terminating": true}),
        })
    }
}

/// An endpoint in a slice written by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Name of the pod.
    pub pod: String,
    /// Conditions.
    pub condition: Condition,
    /// The node that the slice names; hand-written ones may name none.
    pub node: Option<String>,
}

/// A slice written by hand: one object per family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Name, without the family.
    pub name: String,
    /// Endpoints.
    pub endpoints: Vec<Listed>,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Name.
    pub name: String,
    /// Type.
    pub kind: Kind,
    /// Families.
    pub families: Families,
    /// Ports.
    pub ports: Vec<Port>,
    /// The value of the label `app` that it selects; without one its slices are written by hand.
    pub selector: Option<String>,
    /// Number of a ClusterIP that is asked for.
    pub cluster_ip: Option<u8>,
    /// Numbers of the externalIPs.
    pub external_ips: Vec<u8>,
    /// Numbers of the load balancer's addresses.
    pub ingress: Vec<u8>,
    /// The load balancer also has a host name.
    pub host_name: bool,
    /// Nodes whose pods and outside clients the source ranges admit.
    pub ranges: Option<u8>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `sessionAffinity: ClientIP` with this timeout in seconds.
    pub affinity: Option<u32>,
    /// `publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// Another proxy's label.
    pub foreign: bool,
    /// `trafficDistribution`.
    pub distribution: Option<&'static str>,
    /// Value of an annotation without a meaning.
    pub note: u32,
    /// Slices written by hand.
    pub slices: Vec<Slice>,
}

/// Names an object: its kind and name.
pub type Key = (&'static str, String);

impl Service {
    /// The ways into it.
    pub fn frontends(&self) -> BTreeSet<Frontend> {
        let mut kinds = Vec::new();
        if self.kind != Kind::ExternalName {
            kinds.push(FrontendKind::ClusterIp);
            if !self.external_ips.is_empty() {
                kinds.push(FrontendKind::ExternalIp);
            }
        }
        if matches!(self.kind, Kind::NodePort | Kind::LoadBalancer) {
            kinds.push(FrontendKind::NodePort);
        }
        if self.kind == Kind::LoadBalancer && !self.ingress.is_empty() {
            kinds.push(FrontendKind::LoadBalancer);
        }
        kinds
            .into_iter()
            .flat_map(|kind| {
                self.ports.iter().map(move |port| Frontend {
                    kind,
                    protocol: port.protocol,
                })
            })
            .collect()
    }

    /// Whether external policy and source ranges can be set.
    pub fn is_external(&self) -> bool {
        matches!(self.kind, Kind::NodePort | Kind::LoadBalancer)
    }

    /// How it chooses endpoints.
    pub fn policies(&self) -> BTreeSet<Policy> {
        let external = self.external_local && self.is_external();
        let mut found: BTreeSet<Policy> = [match (self.internal_local, external) {
            (false, false) => Policy::Cluster,
            (true, false) => Policy::InternalLocal,
            (false, true) => Policy::ExternalLocal,
            (true, true) => Policy::BothLocal,
        }]
        .into();
        if self.affinity.is_some() {
            found.insert(Policy::Affinity);
        }
        found
    }

    /// The Service object.
    fn object(&self) -> Value {
        let mut metadata = json!({"name": self.name});
        if self.foreign {
            metadata["labels"] =
                json!({"service.kubernetes.io/service-proxy-name": "somebody-else"});
        }
        if self.note > 0 {
            metadata["annotations"] = json!({"example.com/note": self.note.to_string()});
        }
        let mut spec = Map::new();
        let mut put = |key: &str, value: Value| {
            spec.insert(key.to_owned(), value);
        };
        let ports: Vec<Value> = self.ports.iter().map(|port| self.port(port)).collect();
        if self.kind == Kind::ExternalName {
            put("type", json!("ExternalName"));
            put("externalName", json!("www.example.com"));
            put("ports", json!(ports));
            if let Some(app) = &self.selector {
                put("selector", json!({"app": app}));
            }
            return json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec});
        }
        put(
            "type",
            json!(match self.kind {
                Kind::NodePort => "NodePort",
                Kind::LoadBalancer => "LoadBalancer",
                _ => "ClusterIP",
            }),
        );
        if let Some(number) = self.cluster_ip {
            let addresses = self.addresses("serviceIP", &[number]);
            put("clusterIP", addresses[0].clone());
            put("clusterIPs", json!(addresses));
        }
        put("ipFamilies", json!(self.families.names()));
        put(
            "ipFamilyPolicy",
            json!(if self.families.dual {
                "RequireDualStack"
            } else {
                "SingleStack"
            }),
        );
        if let Some(app) = &self.selector {
            put("selector", json!({"app": app}));
        }
        if !self.external_ips.is_empty() {
            put(
                "externalIPs",
                json!(self.addresses("externalIP", &self.external_ips)),
            );
        }
        if self.internal_local {
            put("internalTrafficPolicy", json!("Local"));
        }
        if self.is_external() && self.external_local {
            put("externalTrafficPolicy", json!("Local"));
        }
        if let Some(seconds) = self.affinity {
            put("sessionAffinity", json!("ClientIP"));
            put(
                "sessionAffinityConfig",
                json!({"clientIP": {"timeoutSeconds": seconds}}),
            );
        }
        if self.publish_not_ready {
            put("publishNotReadyAddresses", json!(true));
        }
        if let Some(distribution) = self.distribution {
            put("trafficDistribution", json!(distribution));
        }
        if self.kind == Kind::LoadBalancer
            && let Some(node) = self.ranges
        {
            // Pods of the node and the outside client at the node's address.
            put(
                "loadBalancerSourceRanges",
                json!([
                    format!("10.99.0.{}/32", 10 + node),
                    format!("10.244.{node}.0/24"),
                    format!("fd00:99::{:x}/128", 10 + node),
                    format!("fd00:244:0:{node}::/64"),
                ]),
            );
        }
        put("ports", json!(ports));
        let mut object =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec});
        if self.kind == Kind::LoadBalancer {
            let addresses = self.addresses("loadBalancerIP", &self.ingress);
            let mut ingress: Vec<Value> =
                addresses.into_iter().map(|ip| json!({"ip": ip})).collect();
            if self.host_name {
                ingress.push(json!({"hostname": "lb.example.com"}));
            }
            object["status"] = json!({"loadBalancer": {"ingress": ingress}});
        }
        object
    }

    fn port(&self, port: &Port) -> Value {
        let mut value = json!({"name": port.name, "port": port.port});
        if port.protocol == Protocol::Udp {
            value["protocol"] = json!("UDP");
        }
        value["targetPort"] = port.target.value(port.protocol);
        if self.is_external() {
            value["nodePort"] = json!(port.node_port);
        }
        value
    }

    fn addresses(&self, kind: &str, numbers: &[u8]) -> Vec<Value> {
        numbers
            .iter()
            .flat_map(|number| {
                self.families
                    .parts()
                    .into_iter()
                    .map(move |part| json!(format!("$({kind}.{number}.{part})")))
            })
            .collect()
    }

    fn slice(&self, slice: &Slice, six: bool) -> Value {
        let part = if six { "ipv6" } else { "ipv4" };
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|port| json!({"name": port.name, "port": port.target.number(), "protocol": port.protocol}))
            .collect();
        let endpoints: Vec<Value> = slice
            .endpoints
            .iter()
            .map(|listed| {
                let mut value = json!({"addresses": [format!("$(pod.{}.{part})", listed.pod)]});
                if let Some(node) = &listed.node {
                    value["nodeName"] = json!(node);
                }
                if let Some(conditions) = listed.condition.value() {
                    value["conditions"] = conditions;
                }
                value
            })
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": format!("{}-{part}", slice.name), "labels": {"kubernetes.io/service-name": self.name}},
            "addressType": if six { "IPv6" } else { "IPv4" },
            "ports": ports,
            "endpoints": endpoints,
        })
    }

    /// All objects of the Service, by kind and name.
    pub fn objects(&self) -> BTreeMap<Key, Value> {
        let mut objects: BTreeMap<Key, Value> =
            [(("Service", self.name.clone()), self.object())].into();
        if self.kind != Kind::ExternalName {
            for slice in &self.slices {
                for six in [false, true] {
                    let object = self.slice(slice, six);
                    let name = object["metadata"]["name"].as_str().unwrap_or_default();
                    objects.insert(("EndpointSlice", name.to_owned()), object);
                }
            }
        }
        objects
    }
}

/// The merge patch (RFC 7396) that makes `after` of `before`; `None` if they are the same.
pub fn merge_patch(before: &Value, after: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return (before != after).then(|| after.clone());
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            None => {
                patch.insert(key.clone(), value.clone());
            }
            Some(known) => {
                if let Some(change) = merge_patch(known, value) {
                    patch.insert(key.clone(), change);
                }
            }
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_say_what_changed_and_nothing_else() {
        for (before, after, patch) in [
            (json!({"a": 1}), json!({"a": 1}), None),
            (json!({"a": 1}), json!({"a": 2}), Some(json!({"a": 2}))),
            (
                json!({"a": 1, "b": 2}),
                json!({"b": 2}),
                Some(json!({"a": null})),
            ),
            (
                json!({"a": {"x": 1, "y": [1]}}),
                json!({"a": {"x": 1, "y": [2]}}),
                Some(json!({"a": {"y": [2]}})),
            ),
            (
                json!({}),
                json!({"a": {"b": 1}}),
                Some(json!({"a": {"b": 1}})),
            ),
        ] {
            assert_eq!(merge_patch(&before, &after), patch, "{before} -> {after}");
        }
    }
}
