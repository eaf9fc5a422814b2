//! Which endpoints a Service must have: from Pods to endpoints, grouped by the ports they serve on.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use serde_json::Value;

use crate::types::Family;

/// A set of ports as a key: endpoints that serve on the same ports share slices. The order of the ports does not matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortKey(Vec<(String, String, i32, String)>);

impl PortKey {
    pub(super) fn of(ports: &[EndpointPort]) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut key: Vec<_> = ports
            .iter()
            .map(|port| {
                (
                    text(&port.name),
                    text(&port.protocol),
                    port.port.unwrap_or(-1),
                    text(&port.app_protocol),
                )
            })
            .collect();
        key.sort();
        Self(key)
    }
}

impl fmt::Display for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, protocol, port, application) in &self.0 {
            write!(f, "{name}:{protocol}:{port}:{application};")?;
        }
        Ok(())
    }
}

/// What makes an endpoint the same one after its conditions, node or zone have changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndpointKey {
    namespace: String,
    name: String,
    addresses: Vec<String>,
    hostname: String,
}

impl EndpointKey {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        let target = endpoint.target_ref.as_ref();
        let text = |text: Option<&String>| text.cloned().unwrap_or_default();
        let mut addresses = endpoint.addresses.clone();
        addresses.sort();
        Self {
            namespace: text(target.and_then(|target| target.namespace.as_ref())),
            name: text(target.and_then(|target| target.name.as_ref())),
            addresses,
            hostname: text(endpoint.hostname.as_ref()),
        }
    }
}

/// The endpoints that serve on one set of ports.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) ports: Vec<EndpointPort>,
    pub(super) endpoints: BTreeMap<EndpointKey, Endpoint>,
}

/// The Pods of the Service's namespace that its selector matches.
pub(super) fn selected<'a>(service: &Value, pods: &'a [Value]) -> Vec<&'a Value> {
    let namespace = &service["metadata"]["namespace"];
    let matches = |pod: &Value| {
        let mut selector = service["spec"]["selector"]
            .as_object()
            .into_iter()
            .flatten();
        &pod["metadata"]["namespace"] == namespace
            && selector.all(|(key, value)| pod["metadata"]["labels"].get(key) == Some(value))
    };
    pods.iter().filter(|pod| matches(pod)).collect()
}

/// The families the Service has slices of. A Service that does not say, because no server has completed it, has that of its ClusterIP, or both when it is headless.
pub(super) fn address_types(service: &Value) -> Vec<Family> {
    let spec = &service["spec"];
    let families = spec["ipFamilies"].as_array().into_iter().flatten();
    let mut families: Vec<Family> = families
        .filter_map(|name| Family::parse(name.as_str()?))
        .collect();
    families.dedup();
    if !families.is_empty() {
        return families;
    }
    match spec["clusterIP"]
        .as_str()
        .and_then(|address| address.parse::<IpAddr>().ok())
    {
        Some(address) => vec![Family::of(address)],
        None => vec![Family::V4, Family::V6],
    }
}

/// The endpoints of one family, grouped by their ports. A group may be empty: its Pods have no address of the family.
pub(super) fn groups(
    service: &Value,
    pods: &[&Value],
    nodes: &[Value],
    family: Family,
) -> BTreeMap<PortKey, Group> {
    let nodes: BTreeMap<&str, &Value> = nodes
        .iter()
        .filter_map(|node| Some((node["metadata"]["name"].as_str()?, node)))
        .collect();
    let mut groups: BTreeMap<PortKey, Group> = BTreeMap::new();
    for pod in pods {
        if !belongs_in_endpoints(pod) {
            continue;
        }
        let ports = endpoint_ports(service, pod);
        let group = groups.entry(PortKey::of(&ports)).or_insert_with(|| Group {
            ports,
            endpoints: BTreeMap::new(),
        });
        let node = pod["spec"]["nodeName"]
            .as_str()
            .and_then(|name| nodes.get(name))
            .copied();
        if node.is_none() && !publishes_not_ready(service) {
            // Its node is gone, and the Pod soon will be.
            continue;
        }
        let endpoint = endpoint(service, pod, node, family);
        if !endpoint.addresses.is_empty() {
            group.endpoints.insert(EndpointKey::of(&endpoint), endpoint);
        }
    }
    groups
}

/// Whether the Pod has an address and has not finished. Pods that terminate stay in until they are gone.
fn belongs_in_endpoints(pod: &Value) -> bool {
    let status = &pod["status"];
    let finished = matches!(status["phase"].as_str(), Some("Failed" | "Succeeded"));
    let single = status["podIP"]
        .as_str()
        .is_some_and(|address| !address.is_empty());
    let several = status["podIPs"]
        .as_array()
        .is_some_and(|list| !list.is_empty());
    !finished && (single || several)
}

fn publishes_not_ready(service: &Value) -> bool {
    service["spec"]["publishNotReadyAddresses"] == true
}

fn endpoint(service: &Value, pod: &Value, node: Option<&Value>, family: Family) -> Endpoint {
    let metadata = &pod["metadata"];
    let text = |value: &Value| {
        value
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let serving = is_ready(pod);
    let terminating = !metadata["deletionTimestamp"].is_null();
    // A terminating Pod is never ready, unless the Service asks for all of them.
    let ready = publishes_not_ready(service) || (serving && !terminating);
    let in_subdomain = pod["spec"]["subdomain"] == service["metadata"]["name"];
    Endpoint {
        addresses: addresses(pod, family),
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: text(&pod["spec"]["hostname"]).filter(|_| in_subdomain),
        node_name: text(&pod["spec"]["nodeName"]),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]),
            uid: text(&metadata["uid"]),
            ..ObjectReference::default()
        }),
        zone: node
            .and_then(|node| text(&node["metadata"]["labels"]["topology.kubernetes.io/zone"])),
        ..Endpoint::default()
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
    ready
        .next()
        .is_some_and(|condition| condition["status"] == "True")
}

/// The Pod's addresses of one family, in canonical form. `podIP` alone, without `podIPs`, is not looked at, as in the real controller.
fn addresses(pod: &Value, family: Family) -> Vec<String> {
    let list = pod["status"]["podIPs"].as_array().into_iter().flatten();
    let parsed = list.filter_map(|entry| entry["ip"].as_str()?.parse::<IpAddr>().ok());
    parsed
        .filter(|address| Family::of(*address) == family)
        .map(|address| address.to_string())
        .collect()
}

/// The ports of the Service as the Pod serves them. Named target ports that the Pod does not have are left out.
fn endpoint_ports(service: &Value, pod: &Value) -> Vec<EndpointPort> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let resolved = ports.filter_map(|port| {
        Some(EndpointPort {
            name: Some(port["name"].as_str().unwrap_or_default().to_owned()),
            port: Some(target_port(port, pod)?),
            protocol: Some(port["protocol"].as_str().unwrap_or("TCP").to_owned()),
            app_protocol: port["appProtocol"].as_str().map(str::to_owned),
        })
    });
    resolved.collect()
}

/// The number behind `targetPort`: itself, or that of the container port of this name and protocol. Of the init containers only sidecars count.
fn target_port(port: &Value, pod: &Value) -> Option<i32> {
    let number = |value: &Value| value.as_i64().and_then(|port| i32::try_from(port).ok());
    let name = match &port["targetPort"] {
        Value::Null => return number(&port["port"]),
        Value::String(name) => name,
        value => return number(value),
    };
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let sidecars = pod["spec"]["initContainers"]
        .as_array()
        .into_iter()
        .flatten();
    containers
        .chain(sidecars.filter(|container| container["restartPolicy"] == "Always"))
        .flat_map(|container| container["ports"].as_array().into_iter().flatten())
        .find(|found| {
            found["name"].as_str() == Some(name)
                && found["protocol"].as_str().unwrap_or("TCP") == protocol
        })
        .and_then(|found| number(&found["containerPort"]))
}
