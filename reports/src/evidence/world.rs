//! `objects.json`: nodes, pods and Services as the API server had them at the time of the failure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use super::cell::{Cell, Source};

/// What a drawing shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct World {
    /// The nodes, by name.
    pub nodes: BTreeMap<String, WorldNode>,
    /// The pods, by name.
    pub pods: BTreeMap<String, Pod>,
    /// Addresses of the endpoints of each Service, whether they are ready or not.
    pub endpoints: BTreeMap<String, Vec<String>>,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorldNode {
    /// Its addresses.
    pub addresses: Vec<String>,
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// The node it is on.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<String>,
}

/// Nodes and pods that are drawn at most.
const MAX_DRAWN: usize = 40;

/// One entry of the file: what happened to an object.
#[derive(Deserialize)]
struct Change {
    verb: String,
    kind: String,
    name: String,
    #[serde(default)]
    namespace: String,
    object: Value,
}

impl World {
    /// Reads the history of all objects; `None` where there is no node in it.
    pub fn parse(text: &str) -> Option<Self> {
        let changes: Vec<Change> = serde_json::from_str(text).ok()?;
        let mut last: BTreeMap<(String, String, String), Value> = BTreeMap::new();
        for change in changes {
            let key = (change.kind, change.namespace, change.name);
            if change.verb == "DELETED" {
                last.remove(&key);
            } else {
                last.insert(key, change.object);
            }
        }
        let mut world = Self::default();
        let mut endpoints: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for ((kind, _, name), object) in last {
            match kind.as_str() {
                "Node" if world.nodes.len() < MAX_DRAWN => {
                    let addresses = texts(&object, "/status/addresses", "address");
                    let addresses = addresses.filter(|text| text.parse::<IpAddr>().is_ok());
                    let node = WorldNode {
                        addresses: addresses.map(str::to_owned).collect(),
                    };
                    world.nodes.insert(name, node);
                }
                "Pod" if world.pods.len() < MAX_DRAWN => {
                    let node = object.pointer("/spec/nodeName").and_then(Value::as_str);
                    let addresses = texts(&object, "/status/podIPs", "ip").map(str::to_owned);
                    let pod = Pod {
                        node: node.unwrap_or_default().to_owned(),
                        addresses: addresses.collect(),
                    };
                    world.pods.insert(name, pod);
                }
                "EndpointSlice" => {
                    let label = "/metadata/labels/kubernetes.io~1service-name";
                    let Some(service) = object.pointer(label).and_then(Value::as_str) else {
                        continue;
                    };
                    let of_slice = endpoints.entry(service.to_owned()).or_default();
                    let members = object.pointer("/endpoints").and_then(Value::as_array);
                    for member in members.into_iter().flatten() {
                        let addresses = member.pointer("/addresses").and_then(Value::as_array);
                        let addresses = addresses.into_iter().flatten();
                        of_slice.extend(addresses.filter_map(Value::as_str).map(str::to_owned));
                    }
                }
                _ => {}
            }
        }
        world.endpoints = endpoints
            .into_iter()
            .map(|(service, addresses)| (service, addresses.into_iter().collect()))
            .collect();
        (!world.nodes.is_empty()).then_some(world)
    }

    /// The node that has an address.
    pub fn node_with(&self, address: IpAddr) -> Option<&str> {
        let has = |addresses: &[String]| addresses.iter().any(|text| text.parse() == Ok(address));
        let mut nodes = self.nodes.iter();
        let (name, _) = nodes.find(|(_, node)| has(&node.addresses))?;
        Some(name)
    }

    /// The node whose proxy handles what a cell sends: the one that is dialled by its own address, else the source's.
    pub fn handling_node(&self, cell: &Cell) -> Option<&str> {
        if let Some(node) = cell.address.and_then(|a| self.node_with(a.ip())) {
            return Some(node);
        }
        self.node_of(&cell.from)
    }

    /// The node that a source is on, or where its packets arrive.
    pub fn node_of(&self, source: &Source) -> Option<&str> {
        let name = match source {
            Source::Pod(pod) => &self.pods.get(pod)?.node,
            Source::Outside(node) | Source::Host(node) => node,
        };
        let (name, _) = self.nodes.get_key_value(name)?;
        Some(name)
    }

    /// The addresses that a source is seen with; empty for one outside.
    pub fn addresses_of(&self, source: &Source) -> Vec<String> {
        match source {
            Source::Pod(pod) => self.pods.get(pod).map(|pod| pod.addresses.clone()),
            Source::Host(node) => self.nodes.get(node).map(|node| node.addresses.clone()),
            Source::Outside(_) => None,
        }
        .unwrap_or_default()
    }
}

/// One field of each member of a list.
fn texts<'a>(
    object: &'a Value,
    list: &str,
    field: &'static str,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let list = object.pointer(list).and_then(Value::as_array);
    let members = list.into_iter().flatten();
    members.filter_map(move |member| member.get(field)?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_last_state_of_objects_counts() {
        let change = |verb: &str, kind: &str, name: &str, object: Value| json!({"verb": verb, "kind": kind, "namespace": "", "name": name, "object": object, "at_ns": 1});
        let node = |address: &str| json!({"status": {"addresses": [{"address": address}, {"address": "node1"}]}});
        let pod =
            json!({"spec": {"nodeName": "node1"}, "status": {"podIPs": [{"ip": "10.1.0.1"}]}});
        let slice = json!({"metadata": {"labels": {"kubernetes.io/service-name": "web"}}, "endpoints": [{"addresses": ["10.1.0.1"]}, {"addresses": []}]});
        let text = json!([
            change("ADDED", "Node", "node1", json!({})),
            change("MODIFIED", "Node", "node1", node("10.0.0.1")),
            change("ADDED", "Pod", "web", pod.clone()),
            change("ADDED", "Pod", "gone", pod),
            change("DELETED", "Pod", "gone", json!({})),
            change("ADDED", "EndpointSlice", "web-1", slice),
        ]);
        let world = World::parse(&text.to_string()).unwrap();
        assert_eq!(world.pods.keys().collect::<Vec<_>>(), ["web"]);
        assert_eq!(world.nodes["node1"].addresses, ["10.0.0.1"]);
        assert_eq!(world.endpoints["web"], ["10.1.0.1"]);
        let handling = |label: &str| {
            let cell = Cell::parse(label).unwrap();
            world.handling_node(&cell).map(str::to_owned)
        };
        assert_eq!(
            handling("outside/node9 -> web NodePort 10.0.0.1:1/TCP"),
            Some("node1".into())
        );
        assert_eq!(
            handling("pod web -> web ClusterIP 10.96.0.1:1/TCP"),
            Some("node1".into())
        );
        assert_eq!(handling("pod gone -> web ClusterIP 10.96.0.1:1/TCP"), None);
        assert_eq!(World::parse("[]"), None);
        assert_eq!(World::parse("{"), None);
    }
}
