//! Which lists of the built-in types merge element by element, and by which keys.
//!
//! The source is the `patchStrategy`/`patchMergeKey` tags and the `+listType`/`+listMapKey` markers of the Kubernetes API types. Lists that
//! are not named here are atomic: a patch replaces them.

/// How a list merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// The list is replaced as a whole.
    Atomic,
    /// A list of scalars without duplicates.
    Set,
    /// A list of objects told apart by these fields. A strategic merge patch looks at the first one only.
    Map(&'static [&'static str]),
}

/// How the list at `path` (field names, without list elements) of an object of this kind merges.
pub(super) fn list(group: &str, kind: &str, path: &[&str]) -> List {
    match path {
        ["metadata", "ownerReferences"] => return List::Map(&["uid"]),
        ["metadata", "finalizers"] => return List::Set,
        ["status", "conditions"] => return List::Map(&["type"]),
        _ => {}
    }
    match (group, kind, path) {
        ("", "Service", ["spec", "ports"]) => List::Map(&["port", "protocol"]),
        ("", "Node", ["status", "addresses"]) => List::Map(&["type"]),
        ("", "Node", ["spec", "podCIDRs"]) => List::Set,
        ("", "ServiceAccount", ["secrets"]) => List::Map(&["name"]),
        ("", "Pod", ["spec", rest @ ..]) => pod_spec(rest),
        ("", "Pod", ["status", "podIPs" | "hostIPs"]) => List::Map(&["ip"]),
        ("apps", _, ["spec", "template", "spec", rest @ ..]) => pod_spec(rest),
        ("", "ReplicationController", ["spec", "template", "spec", rest @ ..]) => pod_spec(rest),
        _ => List::Atomic,
    }
}

fn pod_spec(path: &[&str]) -> List {
    match path {
        ["containers" | "initContainers" | "ephemeralContainers"] => List::Map(&["name"]),
        [
            "containers" | "initContainers" | "ephemeralContainers",
            field,
        ] => match *field {
            "ports" => List::Map(&["containerPort", "protocol"]),
            "env" => List::Map(&["name"]),
            "volumeMounts" => List::Map(&["mountPath"]),
            "volumeDevices" => List::Map(&["devicePath"]),
            _ => List::Atomic,
        },
        ["volumes" | "imagePullSecrets"] => List::Map(&["name"]),
        ["hostAliases"] => List::Map(&["ip"]),
        ["topologySpreadConstraints"] => List::Map(&["topologyKey", "whenUnsatisfiable"]),
        _ => List::Atomic,
    }
}

/// What a key field is when an element leaves it out.
pub(super) fn key_default(key: &str) -> Option<&'static str> {
    (key == "protocol").then_some("TCP")
}
