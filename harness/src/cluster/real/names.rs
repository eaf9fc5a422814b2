//! What a scenario calls things, and what they are called in a real cluster.
//!
//! | a scenario says | the cluster has |
//! |---|---|
//! | namespace `default` | `PREFIX`, made for the attempt |
//! | namespace `elsewhere` | `PREFIX-elsewhere`, likewise |
//! | node `node1` | the first node that pods may be put on |
//! | everything else | the same |
//!
//! Objects are renamed on their way to the API server and back, so that scenarios, oracle and reports know the names of the scenario only.

use std::collections::BTreeMap;

use serde_json::Value;

/// Names of one attempt.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Namespaces: those of the scenario -> those of the cluster.
    namespaces: BTreeMap<String, String>,
    /// Nodes: likewise.
    nodes: BTreeMap<String, String>,
}

impl Names {
    /// Names for these namespaces and nodes of a scenario, where real namespaces begin with `prefix`.
    pub fn new<'a>(
        prefix: &str,
        namespaces: impl IntoIterator<Item = &'a str>,
        nodes: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let real = |namespace: &str| match namespace {
            "default" => prefix.to_owned(),
            other => format!("{prefix}-{other}"),
        };
        let namespaces = namespaces.into_iter().chain(["default"]);
        Self {
            namespaces: namespaces
                .map(|name| (name.to_owned(), real(name)))
                .collect(),
            nodes: nodes.into_iter().collect(),
        }
    }

    /// The namespaces of the cluster, `default`'s first.
    pub fn real_namespaces(&self) -> impl Iterator<Item = &str> {
        let mut all: Vec<&str> = self.namespaces.values().map(String::as_str).collect();
        all.sort_by_key(|name| name.len());
        all.into_iter()
    }

    /// The cluster's name of a namespace.
    pub fn real_namespace(&self, name: &str) -> Option<&str> {
        self.namespaces.get(name).map(String::as_str)
    }

    /// The cluster's name of a node.
    pub fn real_node(&self, name: &str) -> Option<&str> {
        self.nodes.get(name).map(String::as_str)
    }

    /// An object, or a part of one, under the cluster's names.
    pub fn to_real(&self, value: &mut Value) {
        rename(
            value,
            &|namespace| self.namespaces.get(namespace).cloned(),
            &|node| self.nodes.get(node).cloned(),
        );
    }

    /// An object of the cluster under the scenario's names.
    pub fn to_logical(&self, value: &mut Value) {
        let back = |names: &BTreeMap<String, String>, real: &str| {
            let mut names = names.iter();
            names
                .find(|(_, have)| *have == real)
                .map(|(name, _)| name.clone())
        };
        rename(
            value,
            &|namespace| back(&self.namespaces, namespace),
            &|node| back(&self.nodes, node),
        );
    }
}

type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Renames what names a namespace or a node in Services, EndpointSlices, Pods and Nodes, whole or merge patches of them.
fn rename(value: &mut Value, namespace: Lookup<'_>, node: Lookup<'_>) {
    let change = |place: Option<&mut Value>, lookup: Lookup<'_>| {
        if let Some(place) = place
            && let Some(new) = place.as_str().and_then(lookup)
        {
            *place = new.into();
        }
    };
    change(value.pointer_mut("/metadata/namespace"), namespace);
    change(value.pointer_mut("/spec/nodeName"), node);
    if value["kind"] == "Node" {
        change(value.pointer_mut("/metadata/name"), node);
        change(
            value.pointer_mut("/metadata/labels/kubernetes.io~1hostname"),
            node,
        );
    }
    let endpoints = value.get_mut("endpoints").and_then(Value::as_array_mut);
    for endpoint in endpoints.into_iter().flatten() {
        change(endpoint.pointer_mut("/nodeName"), node);
        change(endpoint.pointer_mut("/targetRef/namespace"), namespace);
        let hints = endpoint.pointer_mut("/hints/forNodes");
        for hint in hints.and_then(Value::as_array_mut).into_iter().flatten() {
            change(hint.get_mut("name"), node);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names() -> Names {
        Names::new(
            "harness-ab12-7",
            ["elsewhere"],
            [
                ("node1".into(), "t-worker".into()),
                ("node2".into(), "t-worker2".into()),
            ],
        )
    }

    #[test]
    fn objects_go_there_and_come_back() {
        for (logical, real) in [
            (
                json!({"kind": "Service", "metadata": {"name": "web", "namespace": "default"}, "spec": {"selector": {"app": "node1"}}}),
                json!({"kind": "Service", "metadata": {"name": "web", "namespace": "harness-ab12-7"}, "spec": {"selector": {"app": "node1"}}}),
            ),
            (
                json!({"kind": "Pod", "metadata": {"name": "node1", "namespace": "elsewhere"}, "spec": {"nodeName": "node2"}}),
                json!({"kind": "Pod", "metadata": {"name": "node1", "namespace": "harness-ab12-7-elsewhere"}, "spec": {"nodeName": "t-worker2"}}),
            ),
            (
                json!({"kind": "EndpointSlice", "metadata": {"namespace": "default"}, "endpoints": [
                    {"addresses": ["10.244.1.2"], "nodeName": "node1", "targetRef": {"kind": "Pod", "name": "web", "namespace": "default"}, "hints": {"forNodes": [{"name": "node2"}], "forZones": [{"name": "node1"}]}},
                    {"addresses": ["10.244.1.3"], "nodeName": "somewhere"},
                    {"addresses": ["10.244.1.4"]},
                ]}),
                json!({"kind": "EndpointSlice", "metadata": {"namespace": "harness-ab12-7"}, "endpoints": [
                    {"addresses": ["10.244.1.2"], "nodeName": "t-worker", "targetRef": {"kind": "Pod", "name": "web", "namespace": "harness-ab12-7"}, "hints": {"forNodes": [{"name": "t-worker2"}], "forZones": [{"name": "node1"}]}},
                    {"addresses": ["10.244.1.3"], "nodeName": "somewhere"},
                    {"addresses": ["10.244.1.4"]},
                ]}),
            ),
            (
                json!({"kind": "Node", "metadata": {"name": "node1", "labels": {"kubernetes.io/hostname": "node1"}}}),
                json!({"kind": "Node", "metadata": {"name": "t-worker", "labels": {"kubernetes.io/hostname": "t-worker"}}}),
            ),
        ] {
            let names = names();
            let mut value = logical.clone();
            names.to_real(&mut value);
            assert_eq!(value, real);
            names.to_logical(&mut value);
            assert_eq!(value, logical);
        }
    }

    #[test]
    fn the_first_namespace_is_that_of_most_objects() {
        let names = names();
        let all: Vec<&str> = names.real_namespaces().collect();
        assert_eq!(all, ["harness-ab12-7", "harness-ab12-7-elsewhere"]);
        assert_eq!(names.real_namespace("default"), Some("harness-ab12-7"));
        assert_eq!(names.real_namespace("nowhere"), None);
    }
}
