//! The objects that the harness itself makes in a real cluster.

use serde_json::{Value, json};

use super::{agents::PROGRAM, site::Plans};
use crate::scenario::doc::Pod;

/// The label of everything of ours: its value is the run's.
pub const RUN: &str = "dev.harness/run";
/// The condition that a scenario's `ready` and `unready` set. The kubelet makes the Pod Ready when this and its containers are.
pub const GATE: &str = "dev.harness/ready";

/// The label of nodes from which the candidate is kept away for a while.
pub const WITHOUT_CANDIDATE: &str = "dev.harness/without-candidate";
/// The annotation of objects that are given another resourceVersion.
pub const TOUCHED: &str = "dev.harness/touched";

/// So long a Pod that a scenario terminates goes on. Scenarios end it earlier.
const GRACE_SECONDS: u32 = 600;

/// A namespace of ours, in which Pods may use the node's network.
pub fn namespace(name: &str, run: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": {
                RUN: run,
                "pod-security.kubernetes.io/enforce": "privileged",
            },
        },
    })
}

/// A pod of a scenario, on the node of this name. It does nothing by itself: its servers and clients are those of the agent that is started in it.
/// It is the first process of its container, so it hears no SIGTERM and lives through its whole termination.
pub fn pod(pod: &Pod, namespace: &str, node: &str, plans: &Plans) -> Value {
    let ports = pod.container_ports();
    let mut labels = json!(pod.labels);
    labels[RUN] = json!(plans.run);
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": namespace, "labels": labels},
        "spec": {
            // Past the scheduler, which has nothing to decide.
            "nodeName": node,
            "hostNetwork": pod.host_network,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "restartPolicy": "Never",
            "readinessGates": [{"conditionType": GATE}],
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "server",
                "image": plans.image,
                "imagePullPolicy": "IfNotPresent",
                "command": [PROGRAM, "hold"],
                "ports": ports,
                // Packets that no socket would send, and sequence numbers of connections to send them with.
                "securityContext": {
                    "capabilities": {"add": ["NET_ADMIN", "NET_RAW"]},
                    // To write its own kernel settings.
                    "privileged": plans.ours,
                },
            }],
        },
    })
}

/// The Pod on each node in which the nodes' agents are started. `disruptive`: they see the node's processes, to stop those of the candidate.
pub fn node_agent(node: &str, namespace: &str, image: &str, run: &str, disruptive: bool) -> Value {
    let mut pod = holder(&agent_name(node), node, namespace, image, run);
    pod["spec"]["hostPID"] = json!(disruptive);
    // Reading rules and conntrack, capturing, and the faults of nodes.
    pod["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    pod
}

/// A Pod with a node's network that does nothing but hold the container in which our programs are started.
fn holder(name: &str, node: &str, namespace: &str, image: &str, run: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {RUN: run}},
        "spec": {
            "nodeName": node,
            "hostNetwork": true,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "restartPolicy": "Always",
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "holder",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": [PROGRAM, "hold"],
            }],
        },
    })
}

/// Name of the Pod of the gateway to the API.
pub const GATEWAY: &str = "gateway";

/// Where a node of the control plane has its certificates and keys, and the gateway, too (kubeadm's `certificatesDir`).
pub const PKI: &str = "/etc/kubernetes/pki";

/// What of it the gateway needs. The keys of the authorities are not among it.
const NEEDED: [(&str, &str); 3] = [
    ("authority", "ca.crt"),
    ("certificate", "apiserver.crt"),
    ("key", "apiserver.key"),
];

/// The Pod in which the gateway to the API runs.
pub fn gateway(node: &str, namespace: &str, image: &str, run: &str) -> Value {
    let mounts = NEEDED.map(|(name, file)| {
        json!({"name": name, "mountPath": format!("{PKI}/{file}"), "readOnly": true})
    });
    let volumes = NEEDED.map(|(name, file)| {
        json!({"name": name, "hostPath": {"path": format!("{PKI}/{file}"), "type": "File"}})
    });
    let mut pod = holder(GATEWAY, node, namespace, image, run);
    pod["spec"]["containers"][0]["volumeMounts"] = json!(mounts);
    pod["spec"]["volumes"] = json!(volumes);
    pod
}

/// Name of the Pod for a node's agents.
pub fn agent_name(node: &str) -> String {
    format!("agent-{}", node.replace('.', "-"))
}
