//! Which resources are served, and under which names.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

/// One served resource: the identity of a kind in one group and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceType {
    /// The API group, empty for the core group.
    pub group: String,
    /// The version in the group, such as `v1`.
    pub version: String,
    /// The kind, such as `EndpointSlice`.
    pub kind: String,
    /// The plural that appears in paths, such as `endpointslices`.
    pub plural: String,
    /// Short names for `kubectl`, such as `svc`.
    pub short_names: Vec<String>,
    /// Categories for `kubectl`, such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Whether `status` is a subresource, written apart from the rest.
    pub has_status: bool,
}

impl ResourceType {
    /// Whether this is one of its names: kind, plural or short, in whatever case.
    pub fn is_called(&self, name: &str) -> bool {
        self.kind.eq_ignore_ascii_case(name)
            || self.plural.eq_ignore_ascii_case(name)
            || self
                .short_names
                .iter()
                .any(|short| short.eq_ignore_ascii_case(name))
    }

    /// A namespaced resource without short names or a status subresource.
    pub fn namespaced(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        ResourceType {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: true,
            has_status: false,
        }
    }

    /// A cluster-wide resource without short names or a status subresource.
    pub fn cluster_wide(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        ResourceType {
            namespaced: false,
            ..Self::namespaced(group, version, kind, plural)
        }
    }

    /// The same resource with a status subresource.
    #[must_use]
    pub fn with_status(mut self) -> Self {
        self.has_status = true;
        self
    }

    /// The same resource with these short names.
    #[must_use]
    pub fn short(mut self, names: &[&str]) -> Self {
        self.short_names = names.iter().map(|&n| n.to_owned()).collect();
        self
    }

    /// The same resource in the category `all`, which `kubectl get all` lists.
    #[must_use]
    pub fn in_all(mut self) -> Self {
        self.categories = vec!["all".to_owned()];
        self
    }

    /// `v1` or `discovery.k8s.io/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The singular name used in discovery.
    pub fn singular(&self) -> String {
        self.kind.to_lowercase()
    }
}

/// The resources Kubernetes itself has, as far as proxies and people look at them.
pub fn built_in() -> Vec<ResourceType> {
    use ResourceType as R;
    let apps = |kind: &str, plural: &str, short: &str| {
        R::namespaced("apps", "v1", kind, plural)
            .with_status()
            .short(&[short])
            .in_all()
    };
    vec![
        R::cluster_wide("", "v1", "Namespace", "namespaces")
            .with_status()
            .short(&["ns"]),
        R::cluster_wide("", "v1", "Node", "nodes")
            .with_status()
            .short(&["no"]),
        R::namespaced("", "v1", "Pod", "pods")
            .with_status()
            .short(&["po"])
            .in_all(),
        R::namespaced("", "v1", "Service", "services")
            .with_status()
            .short(&["svc"])
            .in_all(),
        R::namespaced("", "v1", "Endpoints", "endpoints").short(&["ep"]),
        R::namespaced("", "v1", "Event", "events").short(&["ev"]),
        R::namespaced("", "v1", "ConfigMap", "configmaps").short(&["cm"]),
        R::namespaced("", "v1", "Secret", "secrets"),
        R::namespaced("", "v1", "ServiceAccount", "serviceaccounts").short(&["sa"]),
        R::namespaced("", "v1", "ReplicationController", "replicationcontrollers")
            .with_status()
            .short(&["rc"]),
        R::namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
        R::cluster_wide("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs").with_status(),
        R::cluster_wide("networking.k8s.io", "v1", "IPAddress", "ipaddresses").short(&["ip"]),
        R::namespaced(
            "networking.k8s.io",
            "v1",
            "NetworkPolicy",
            "networkpolicies",
        )
        .short(&["netpol"]),
        R::cluster_wide("networking.k8s.io", "v1", "IngressClass", "ingressclasses"),
        R::namespaced("networking.k8s.io", "v1", "Ingress", "ingresses")
            .with_status()
            .short(&["ing"]),
        R::namespaced("coordination.k8s.io", "v1", "Lease", "leases"),
        R::namespaced("events.k8s.io", "v1", "Event", "events").short(&["ev"]),
        apps("DaemonSet", "daemonsets", "ds"),
        apps("Deployment", "deployments", "deploy"),
        apps("ReplicaSet", "replicasets", "rs"),
        apps("StatefulSet", "statefulsets", "sts"),
        R::cluster_wide(
            "rbac.authorization.k8s.io",
            "v1",
            "ClusterRole",
            "clusterroles",
        ),
        R::cluster_wide(
            "rbac.authorization.k8s.io",
            "v1",
            "ClusterRoleBinding",
            "clusterrolebindings",
        ),
        R::namespaced("rbac.authorization.k8s.io", "v1", "Role", "roles"),
        R::namespaced(
            "rbac.authorization.k8s.io",
            "v1",
            "RoleBinding",
            "rolebindings",
        ),
        R::cluster_wide(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        )
        .with_status()
        .short(&["crd", "crds"]),
    ]
}

/// Everything that is served, found by kind or by path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    types: Vec<Arc<ResourceType>>,
    by_kind: HashMap<(String, String), Arc<ResourceType>>,
    by_path: HashMap<(String, String, String), Arc<ResourceType>>,
}

impl Registry {
    pub(crate) fn new(types: impl IntoIterator<Item = ResourceType>) -> Self {
        let mut registry = Registry::default();
        for resource in types {
            registry.add(resource);
        }
        registry
    }

    /// Adds a resource, or replaces the one of the same group, version and plural.
    pub(crate) fn add(&mut self, resource: ResourceType) {
        let resource = Arc::new(resource);
        let path = (
            resource.group.clone(),
            resource.version.clone(),
            resource.plural.clone(),
        );
        self.types
            .retain(|t| !(t.group == path.0 && t.version == path.1 && t.plural == path.2));
        self.types.push(resource.clone());
        self.by_kind.insert(
            (resource.api_version(), resource.kind.clone()),
            resource.clone(),
        );
        self.by_path.insert(path, resource);
    }

    pub(crate) fn kind(&self, api_version: &str, kind: &str) -> Option<Arc<ResourceType>> {
        self.by_kind
            .get(&(api_version.to_owned(), kind.to_owned()))
            .cloned()
    }

    pub(crate) fn path(
        &self,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Option<Arc<ResourceType>> {
        self.by_path
            .get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
            .cloned()
    }

    pub(crate) fn all(&self) -> &[Arc<ResourceType>] {
        &self.types
    }

    /// The resources called `name`, be it a kind, a plural or a short name, whatever the case.
    pub(crate) fn named(&self, name: &str) -> Vec<Arc<ResourceType>> {
        let called = |t: &&Arc<ResourceType>| t.is_called(name);
        self.types.iter().filter(called).cloned().collect()
    }
}

/// The resources a CustomResourceDefinition object asks for: one per served version.
pub(crate) fn from_definition(definition: &Value) -> Vec<ResourceType> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect()
    };
    let (group, names) = (text(&spec["group"]), &spec["names"]);
    let versions = spec["versions"].as_array().into_iter().flatten();
    versions
        .filter(|v| v["served"].as_bool().unwrap_or(false))
        .map(|v| ResourceType {
            group: group.clone(),
            version: text(&v["name"]),
            kind: text(&names["kind"]),
            plural: text(&names["plural"]),
            short_names: texts(&names["shortNames"]),
            categories: texts(&names["categories"]),
            namespaced: spec["scope"] != "Cluster",
            has_status: v.pointer("/subresources/status").is_some(),
        })
        .collect()
}
