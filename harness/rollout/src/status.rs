//! When a workload is rolled out, by the rules of `kubectl rollout status` (kubectl `pkg/polymorphichelpers/rollout_status.go`).

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{Pod, PodSpec},
};

/// How far a workload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rolled {
    /// All of it runs.
    Out,
    /// Not yet, and what is missing.
    Waiting(String),
}

fn waiting(text: impl Into<String>) -> Rolled {
    Rolled::Waiting(text.into())
}

/// A DaemonSet. Unlike kubectl, one that no node wants is not rolled out: nothing of it runs.
pub(crate) fn daemon_set(object: &DaemonSet) -> Rolled {
    let generation = object.metadata.generation.unwrap_or_default();
    let Some(status) = &object.status else {
        return waiting("no controller has seen it yet");
    };
    if status.observed_generation.unwrap_or_default() < generation {
        return waiting("no controller has seen its newest version yet");
    }
    let desired = status.desired_number_scheduled;
    if desired == 0 {
        return waiting("no node wants it");
    }
    // With OnDelete nothing is updated by itself, and kubectl knows no answer: the Pods that are there have to do.
    let strategy = object.spec.update_strategy.as_ref();
    let on_delete = strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("OnDelete"));
    let updated = status.updated_number_scheduled.unwrap_or_default();
    if !on_delete && updated < desired {
        return waiting(format!("{updated} of {desired} Pods updated"));
    }
    let available = status.number_available.unwrap_or_default();
    if available < desired {
        return waiting(format!("{available} of {desired} updated Pods available"));
    }
    Rolled::Out
}

/// A Deployment. One that is to have no replicas is rolled out at once.
pub(crate) fn deployment(object: &Deployment) -> Rolled {
    let generation = object.metadata.generation.unwrap_or_default();
    let Some(status) = &object.status else {
        return waiting("no controller has seen it yet");
    };
    if status.observed_generation.unwrap_or_default() < generation {
        return waiting("no controller has seen its newest version yet");
    }
    let wanted = object.spec.replicas.unwrap_or(1);
    let updated = status.updated_replicas.unwrap_or_default();
    if updated < wanted {
        return waiting(format!("{updated} of {wanted} replicas updated"));
    }
    let replicas = status.replicas.unwrap_or_default();
    if replicas > updated {
        return waiting(format!("{} old replicas are left", replicas - updated));
    }
    let available = status.available_replicas.unwrap_or_default();
    if available < updated {
        return waiting(format!(
            "{available} of {updated} updated replicas available"
        ));
    }
    Rolled::Out
}

/// Whether a Pod's image cannot be had, and in what way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ImageTrouble {
    /// A pull failed, and is tried again.
    Retried,
    /// It is never tried again.
    Final,
}

/// The worst trouble with images among Pods.
pub(crate) fn image_trouble<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Option<ImageTrouble> {
    pods.into_iter()
        .flat_map(waiting_reasons)
        .filter_map(|reason| match reason {
            "ErrImageNeverPull" | "InvalidImageName" => Some(ImageTrouble::Final),
            "ErrImagePull" | "ImagePullBackOff" | "ImageInspectError" | "RegistryUnavailable" => {
                Some(ImageTrouble::Retried)
            }
            _ => None,
        })
        .max()
}

/// Why containers of a Pod wait.
fn waiting_reasons(pod: &Pod) -> impl Iterator<Item = &str> {
    let status = pod.status.as_ref();
    let all = [
        status.and_then(|status| status.init_container_statuses.as_ref()),
        status.and_then(|status| status.container_statuses.as_ref()),
    ];
    all.into_iter().flatten().flatten().filter_map(|container| {
        container
            .state
            .as_ref()?
            .waiting
            .as_ref()?
            .reason
            .as_deref()
    })
}

/// Why containers wait, for whoever looks on: `proxy-x1: ErrImagePull`.
pub(crate) fn waiting_for<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Vec<String> {
    // What every Pod goes through is no news.
    const ORDINARY: [&str; 2] = ["ContainerCreating", "PodInitializing"];
    let mut all = Vec::new();
    for pod in pods {
        let reasons = waiting_reasons(pod).filter(|reason| !ORDINARY.contains(reason));
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let node = pod
            .spec
            .as_ref()
            .and_then(|spec: &PodSpec| spec.node_name.as_deref());
        let place = node.map(|node| format!(" on {node}")).unwrap_or_default();
        all.extend(reasons.map(|reason| format!("{name}{place}: {reason}")));
    }
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn daemon_sets() {
        let status = |generation: i64, desired: i64, updated: i64, available: i64| {
            json!({"observedGeneration": generation, "desiredNumberScheduled": desired, "updatedNumberScheduled": updated,
                "numberAvailable": available, "currentNumberScheduled": desired, "numberMisscheduled": 0, "numberReady": available})
        };
        let table: [(&str, Value, &str); 7] = [
            (
                "RollingUpdate",
                Value::Null,
                "no controller has seen it yet",
            ),
            (
                "RollingUpdate",
                status(1, 3, 3, 3),
                "no controller has seen its newest version yet",
            ),
            ("RollingUpdate", status(2, 0, 0, 0), "no node wants it"),
            ("RollingUpdate", status(2, 3, 1, 3), "1 of 3 Pods updated"),
            (
                "RollingUpdate",
                status(2, 3, 3, 2),
                "2 of 3 updated Pods available",
            ),
            ("RollingUpdate", status(2, 3, 3, 3), ""),
            ("OnDelete", status(2, 3, 0, 3), ""),
        ];
        for (strategy, status, want) in table {
            let object: DaemonSet = serde_json::from_value(json!({
                "metadata": {"name": "x", "generation": 2},
                "spec": {"selector": {}, "template": {}, "updateStrategy": {"type": strategy}},
                "status": status,
            }))
            .expect("a DaemonSet");
            let want = match want {
                "" => Rolled::Out,
                text => waiting(text),
            };
            assert_eq!(daemon_set(&object), want, "{status}");
        }
    }

    #[test]
    fn deployments() {
        let status = |generation: i64, replicas: i64, updated: i64, available: i64| json!({"observedGeneration": generation, "replicas": replicas, "updatedReplicas": updated, "availableReplicas": available});
        let table: [(i64, Value, &str); 7] = [
            (2, Value::Null, "no controller has seen it yet"),
            (
                2,
                status(1, 2, 2, 2),
                "no controller has seen its newest version yet",
            ),
            (2, status(2, 2, 1, 2), "1 of 2 replicas updated"),
            (2, status(2, 3, 2, 2), "1 old replicas are left"),
            (2, status(2, 2, 2, 1), "1 of 2 updated replicas available"),
            (2, status(2, 2, 2, 2), ""),
            (0, status(2, 0, 0, 0), ""),
        ];
        for (replicas, status, want) in table {
            let object: Deployment = serde_json::from_value(json!({
                "metadata": {"name": "x", "generation": 2},
                "spec": {"selector": {}, "template": {}, "replicas": replicas},
                "status": status,
            }))
            .expect("a Deployment");
            let want = match want {
                "" => Rolled::Out,
                text => waiting(text),
            };
            assert_eq!(deployment(&object), want, "{status}");
        }
    }

    #[test]
    fn images_that_cannot_be_had() {
        let pod = |reason: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "p"},
                "spec": {"nodeName": "n", "containers": []},
                "status": {"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": reason}}}]},
            }))
            .expect("a Pod")
        };
        let table = [
            ("ContainerCreating", None),
            ("CrashLoopBackOff", None),
            ("ErrImagePull", Some(ImageTrouble::Retried)),
            ("ImagePullBackOff", Some(ImageTrouble::Retried)),
            ("ErrImageNeverPull", Some(ImageTrouble::Final)),
            ("InvalidImageName", Some(ImageTrouble::Final)),
        ];
        for (reason, want) in table {
            assert_eq!(image_trouble([&pod(reason)]), want, "{reason}");
        }
        let pods = [
            pod("ImagePullBackOff"),
            pod("ErrImageNeverPull"),
            pod("ContainerCreating"),
        ];
        assert_eq!(image_trouble(&pods), Some(ImageTrouble::Final));
        assert_eq!(
            waiting_for(&pods),
            ["p on n: ErrImageNeverPull", "p on n: ImagePullBackOff"]
        );
    }
}
