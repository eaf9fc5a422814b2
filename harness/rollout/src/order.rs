//! In which order objects are applied; they are removed in the reverse order.

use crate::object::{Object, ObjectId};

/// A step of the installation. Everything of a phase is there before the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// What others live in or are made of.
    Foundations,
    /// Accounts, rights, configuration: everything that Pods need to start.
    Configuration,
    /// What runs.
    Workloads,
    /// Objects of kinds that the cluster learned from a definition. After the workloads, so that whoever holds them by a finalizer
    /// still runs when they are removed.
    Custom,
    /// What the API server asks before it accepts anything. Last, since nobody answers before the workloads run.
    Hooks,
}

impl Phase {
    pub(crate) fn of(id: &ObjectId) -> Self {
        match (id.group(), id.kind.as_str()) {
            ("", "Namespace") | ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                Self::Foundations
            }
            ("scheduling.k8s.io" | "node.k8s.io" | "storage.k8s.io", _) => Self::Configuration,
            ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => Self::Hooks,
            ("apps" | "batch", _) | ("", "Pod" | "ReplicationController") => Self::Workloads,
            (group, _) if is_built_in(group) => Self::Configuration,
            _ => Self::Custom,
        }
    }
}

/// Whether a group is one that Kubernetes itself serves.
fn is_built_in(group: &str) -> bool {
    const APART: [&str; 4] = ["", "autoscaling", "policy", "extensions"];
    // Gateway API and the like live below this domain too, but are definitions.
    const SERVED: [&str; 9] = [
        "rbac.authorization.k8s.io",
        "networking.k8s.io",
        "discovery.k8s.io",
        "coordination.k8s.io",
        "events.k8s.io",
        "flowcontrol.apiserver.k8s.io",
        "certificates.k8s.io",
        "resource.k8s.io",
        "authentication.k8s.io",
    ];
    APART.contains(&group) || SERVED.contains(&group)
}

/// The objects by phases, each in the order in which it was written, the foundations first.
pub(crate) fn phases<'a>(objects: &'a [Object]) -> Vec<(Phase, Vec<&'a Object>)> {
    let mut all: Vec<(Phase, Vec<&'a Object>)> = Vec::new();
    let mut sorted: Vec<&Object> = objects.iter().collect();
    sorted.sort_by_key(|object| Phase::of(&object.id));
    for object in sorted {
        let phase = Phase::of(&object.id);
        match all.last_mut() {
            Some((last, group)) if *last == phase => group.push(object),
            _ => all.push((phase, vec![object])),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_need_comes_first() {
        let text = "
apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: hook}
---\napiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: policy}
---\napiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: admin}
---\napiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: proxy}
---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: config}
---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: role}
---\napiVersion: v1\nkind: Namespace\nmetadata: {name: space}
---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: kind}
---\napiVersion: v1\nkind: Service\nmetadata: {name: service}
";
        let objects = Object::parse("f.yaml", text).expect("objects");
        let order: Vec<(Phase, Vec<&str>)> = phases(&objects)
            .into_iter()
            .map(|(phase, group)| {
                let names = group.iter().map(|object| object.id.name.as_str());
                (phase, names.collect())
            })
            .collect();
        assert_eq!(
            order,
            [
                (Phase::Foundations, vec!["space", "kind"]),
                (Phase::Configuration, vec!["config", "role", "service"]),
                (Phase::Workloads, vec!["proxy"]),
                (Phase::Custom, vec!["policy", "admin"]),
                (Phase::Hooks, vec!["hook"]),
            ]
        );
    }
}
