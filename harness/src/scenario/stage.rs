//! What the verbs mean for the API objects: the same for a rehearsal (no packets) and for a run.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use apiserver::ApiServer;
use netlab::plan::Plan;
use serde_json::{Value, json};

use super::doc::{ObjectRef, Patch, PatchType, Pod, PodVerb, Port, Protocol, Scenario};

const FINALIZER: &str = "harness.example/graceful-termination";

/// The API objects of one attempt.
pub struct Stage {
    api: ApiServer,
    plan: Plan,
    pods: BTreeMap<String, PodState>,
    nodes: Vec<super::doc::Node>,
    nodeport_addresses: Vec<String>,
}

/// The API's resourceVersion, and which pods listen.
pub type Version = (u64, Vec<bool>);

/// A pod of the scenario.
#[derive(Clone, Debug)]
pub struct PodState {
    /// As the topology says.
    pub spec: Pod,
    /// Its Pod object and namespace exist.
    pub exists: bool,
    /// Its servers listen.
    pub listening: bool,
    /// It was stopped.
    pub gone: bool,
}

/// The API server refused something, or an object is not what the oracle can read.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {message}")]
pub struct StageError {
    /// What was tried.
    pub action: String,
    /// Why it did not work.
    pub message: String,
}

impl StageError {
    fn new(action: impl Into<String>, message: impl ToString) -> Self {
        Self {
            action: action.into(),
            message: message.to_string(),
        }
    }
}

/// Ports that a pod serves when the topology names none.
pub fn default_ports() -> Vec<Port> {
    [("http", Protocol::Tcp), ("udp", Protocol::Udp)]
        .map(|(name, protocol)| Port {
            name: Some(name.into()),
            port: 8080,
            protocol,
        })
        .into()
}

impl Pod {
    /// The container ports as a Pod object has them.
    pub fn container_ports(&self) -> Vec<Value> {
        let ports = self.serves();
        let ports = ports.iter().map(|port| {
            let mut value = json!({"containerPort": port.port, "protocol": port.protocol});
            if let Some(name) = &port.name {
                value["name"] = json!(name);
            }
            value
        });
        ports.collect()
    }

    /// The container ports, all of which are served.
    pub fn serves(&self) -> Vec<Port> {
        self.ports.clone().unwrap_or_else(default_ports)
    }
}

impl Stage {
    /// Creates the Node and Pod objects of the topology; the scenario's own objects follow with [`Self::apply_all`].
    pub fn new(api: ApiServer, plan: Plan, scenario: &Scenario) -> Result<Self, StageError> {
        let mut stage = Self {
            api,
            plan,
            pods: BTreeMap::new(),
            nodes: scenario.topology.nodes.clone(),
            nodeport_addresses: scenario.proxy.nodeport_addresses.clone(),
        };
        for node in &scenario.topology.nodes {
            let object = stage.node_object(node);
            stage.apply(&object)?;
        }
        for pod in &scenario.topology.pods {
            stage.pods.insert(
                pod.name.clone(),
                PodState {
                    spec: pod.clone(),
                    exists: pod.started,
                    listening: pod.started,
                    gone: false,
                },
            );
            if pod.started {
                let object = stage.pod_object(pod);
                stage.apply(&object)?;
            }
        }
        Ok(stage)
    }

    /// A copy of what a cluster has that is not ours: nothing is created, what there is comes by [`ApiServer::mirror`].
    pub fn copy(api: ApiServer, plan: Plan, scenario: &Scenario) -> Self {
        let pod = |pod: &Pod| {
            let state = PodState {
                spec: pod.clone(),
                exists: pod.started,
                listening: pod.started,
                gone: false,
            };
            (pod.name.clone(), state)
        };
        Self {
            api,
            plan,
            pods: scenario.topology.pods.iter().map(pod).collect(),
            nodes: scenario.topology.nodes.clone(),
            nodeport_addresses: scenario.proxy.nodeport_addresses.clone(),
        }
    }

    /// The API server behind the stage.
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// Addresses of the world.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The same, to say what was found out about it.
    pub fn plan_mut(&mut self) -> &mut Plan {
        &mut self.plan
    }

    /// A pod by name.
    pub fn pod(&self, name: &str) -> Option<&PodState> {
        self.pods.get(name)
    }

    /// All pods by name.
    pub fn pods(&self) -> impl Iterator<Item = &PodState> {
        self.pods.values()
    }

    /// Nodes of the topology.
    pub fn nodes(&self) -> &[super::doc::Node] {
        &self.nodes
    }

    /// Applies objects in order.
    pub fn apply_all(&self, objects: &[Value]) -> Result<(), StageError> {
        objects.iter().try_for_each(|object| self.apply(object))
    }

    /// Creates or replaces an object; a `status` is written through the status subresource.
    fn apply(&self, object: &Value) -> Result<(), StageError> {
        let object = with_namespace(object);
        let what = describe(&object);
        self.api
            .apply(object.clone())
            .map_err(|error| StageError::new(format!("apply {what}"), error))?;
        if let Some(status) = object.get("status")
            && object["kind"] != "Node"
            && object["kind"] != "Pod"
        {
            let patch = Patch {
                api_version: object["apiVersion"].as_str().map(str::to_owned),
                kind: object["kind"].as_str().unwrap_or_default().to_owned(),
                namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
                name: object["metadata"]["name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                patch_type: PatchType::Merge,
                subresource: Some("status".into()),
                patch: json!({ "status": status }),
            };
            self.patch(&patch)?;
        }
        Ok(())
    }

    /// Patches an object.
    pub fn patch(&self, patch: &Patch) -> Result<(), StageError> {
        let kind = match patch.patch_type {
            PatchType::Merge => apiserver::PatchKind::Merge,
            PatchType::Json => apiserver::PatchKind::Json,
            PatchType::Strategic => apiserver::PatchKind::Strategic,
        };
        let api_version = patch
            .api_version
            .as_deref()
            .unwrap_or_else(|| api_version_of(&patch.kind));
        let namespace = namespace_of(&patch.kind, patch.namespace.as_deref());
        let object = apiserver::ObjectRef::new(
            api_version,
            &patch.kind,
            namespace.unwrap_or_default(),
            &patch.name,
        );
        match patch.subresource.as_deref() {
            Some("status") => self.api.patch_status(&object, kind, &patch.patch),
            _ => self.api.patch(&object, kind, &patch.patch),
        }
        .map(drop)
        .map_err(|error| StageError::new(format!("patch {} {}", patch.kind, patch.name), error))
    }

    /// Deletes an object.
    pub fn delete(&self, object: &ObjectRef) -> Result<(), StageError> {
        let api_version = object
            .api_version
            .as_deref()
            .unwrap_or_else(|| api_version_of(&object.kind));
        let namespace = namespace_of(&object.kind, object.namespace.as_deref());
        self.api
            .delete(&apiserver::ObjectRef::new(
                api_version,
                &object.kind,
                namespace.unwrap_or_default(),
                &object.name,
            ))
            .map(drop)
            .map_err(|error| {
                StageError::new(format!("delete {} {}", object.kind, object.name), error)
            })
    }

    /// Does the API side of a pod verb; namespaces and servers are the caller's.
    pub fn pod_verb(&mut self, name: &str, verb: PodVerb) -> Result<(), StageError> {
        let state = self.pod_can(name, verb)?.clone();
        match verb {
            PodVerb::Start => {
                self.apply(&self.pod_object(&state.spec))?;
            }
            PodVerb::Unready => self.set_ready(name, false)?,
            PodVerb::Ready => self.set_ready(name, true)?,
            PodVerb::Terminate => {
                let patch = json!({"metadata": {"finalizers": [FINALIZER], "deletionGracePeriodSeconds": 30}});
                self.patch_pod(name, None, patch)?;
                self.delete_pod(name)?;
            }
            PodVerb::Stop => {
                // A pod that is terminating is held by the finalizer; otherwise deleting is enough.
                let _ = self.patch_pod(name, None, json!({"metadata": {"finalizers": null}}));
                if self.get("Pod", name).is_ok() {
                    self.delete_pod(name)?;
                }
            }
            PodVerb::Deafen | PodVerb::Resume => {}
        }
        self.pod_changed(name, verb);
        Ok(())
    }

    /// Whether a verb makes sense for a pod as it is.
    pub fn pod_can(&self, name: &str, verb: PodVerb) -> Result<&PodState, StageError> {
        let state = self.pods.get(name).ok_or_else(|| {
            StageError::new(
                format!("pod {name}"),
                "there is no such pod in the topology",
            )
        })?;
        let mistake = match (verb == PodVerb::Start, state.exists) {
            (true, true) => Some("it runs already"),
            (false, false) => Some("it does not run"),
            // As in a cluster, where a name may come back and the pod does not.
            (true, false) if state.gone => {
                Some("it was stopped, and a pod that is gone does not come back; start another one")
            }
            _ => None,
        };
        match mistake {
            Some(mistake) => Err(StageError::new(format!("pod {name}: {verb:?}"), mistake)),
            None => Ok(state),
        }
    }

    /// Remembers what a verb did to a pod.
    pub fn pod_changed(&mut self, name: &str, verb: PodVerb) {
        let Some(state) = self.pods.get_mut(name) else {
            return;
        };
        match verb {
            PodVerb::Start => (state.exists, state.listening) = (true, true),
            PodVerb::Stop => {
                (state.exists, state.listening, state.gone) = (false, false, true);
            }
            PodVerb::Deafen => state.listening = false,
            PodVerb::Resume => state.listening = true,
            _ => {}
        }
    }

    fn set_ready(&self, name: &str, ready: bool) -> Result<(), StageError> {
        self.patch_pod(
            name,
            Some("status"),
            json!({"status": {"conditions": conditions(ready)}}),
        )
    }

    fn patch_pod(
        &self,
        name: &str,
        subresource: Option<&str>,
        patch: Value,
    ) -> Result<(), StageError> {
        self.patch(&Patch {
            api_version: None,
            kind: "Pod".into(),
            namespace: None,
            name: name.into(),
            patch_type: PatchType::Merge,
            subresource: subresource.map(str::to_owned),
            patch,
        })
    }

    fn delete_pod(&self, name: &str) -> Result<(), StageError> {
        self.delete(&ObjectRef {
            api_version: None,
            kind: "Pod".into(),
            namespace: None,
            name: name.into(),
        })
    }

    /// An object of namespace `default`.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value, StageError> {
        self.api
            .get(&apiserver::ObjectRef::new(
                api_version_of(kind),
                kind,
                "default",
                name,
            ))
            .map_err(|error| StageError::new(format!("get {kind} {name}"), error))
    }

    /// Changes whenever what the oracle knows may have changed.
    pub fn version(&self) -> Version {
        (
            self.api.resource_version(),
            self.pods.values().map(|pod| pod.listening).collect(),
        )
    }

    /// What the oracle needs to know: all objects as they are now, and the topology.
    pub fn oracle(&self) -> Result<oracle::Cluster, StageError> {
        let mut objects = Vec::new();
        for (api_version, kind) in [
            ("v1", "Service"),
            ("discovery.k8s.io/v1", "EndpointSlice"),
            ("v1", "Pod"),
            ("v1", "Node"),
        ] {
            let items = self
                .api
                .list(api_version, kind, None)
                .map_err(|error| StageError::new(format!("list {kind}"), error))?;
            objects.extend(
                items
                    .into_iter()
                    .map(|item| as_kind(item, api_version, kind)),
            );
        }
        let nodes = self
            .nodes
            .iter()
            .map(|node| self.oracle_node(node, node_called(&objects, &node.name)))
            .collect();
        let mut cluster = oracle::Cluster::from_objects(&objects, nodes)
            .map_err(|error| StageError::new("read the objects", error))?;
        cluster.service_cidrs = self.plan.service_cidrs();
        cluster.pods_are_masqueraded_to_nodes = self.plan.masquerades_to_nodes();
        cluster.refusals_are_limited = self.plan.refusals_are_limited();
        if !self.nodeport_addresses.is_empty() {
            cluster.nodeport_addresses = Some(
                self.nodeport_addresses
                    .iter()
                    .filter_map(|cidr| cidr.parse().ok())
                    .collect(),
            );
        }
        for pod in self.pods.values().filter(|pod| pod.exists) {
            if pod.spec.host_network && pod.listening {
                cluster
                    .listeners
                    .extend(pod.spec.serves().iter().map(|port| oracle::Listener {
                        node: Some(pod.spec.node.clone()),
                        ip: None,
                        port: port.port,
                        protocol: port.protocol.into(),
                        name: pod.spec.name.clone(),
                    }));
            }
        }
        Ok(cluster)
    }

    fn oracle_node(&self, node: &super::doc::Node, object: Option<&Value>) -> oracle::Node {
        let Some(addresses) = self.plan.node(&node.name) else {
            return oracle::Node::default();
        };
        let planned: Vec<IpAddr> = vec![addresses.ipv4.into(), addresses.ipv6.into()];
        // A scenario may have changed them. A Node that is gone has the addresses that its kernel has.
        let internal = object.map(internal_ips).unwrap_or_else(|| planned.clone());
        let mut all = planned;
        all.extend(
            internal
                .iter()
                .filter(|ip| !all.contains(ip))
                .copied()
                .collect::<Vec<_>>(),
        );
        all.extend([
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ]);
        for (v4, v6) in addresses.extra.values() {
            all.extend([IpAddr::V4(*v4), IpAddr::V6(*v6)]);
        }
        all.extend(
            [netlab::Family::Ipv4, netlab::Family::Ipv6]
                .map(|family| addresses.pod_gateway(family)),
        );
        oracle::Node {
            name: node.name.clone(),
            internal_ips: internal,
            all_ips: all,
            zone: object.and_then(zone_label),
        }
    }

    fn node_object(&self, node: &super::doc::Node) -> Value {
        let mut labels = json!({"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux"});
        if let Some(zone) = &node.zone {
            labels["topology.kubernetes.io/zone"] = json!(zone);
        }
        let addresses = self
            .plan
            .node(&node.name)
            .expect("the plan knows every node of the topology");
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node.name, "labels": labels},
            "spec": {
                "podCIDR": addresses.pod_cidr4.to_string(),
                "podCIDRs": [addresses.pod_cidr4.to_string(), addresses.pod_cidr6.to_string()],
            },
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": addresses.ipv4.to_string()},
                    {"type": "InternalIP", "address": addresses.ipv6.to_string()},
                    {"type": "Hostname", "address": node.name},
                ],
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "operatingSystem": "linux"},
            },
        })
    }

    fn pod_object(&self, pod: &Pod) -> Value {
        let addresses = self
            .plan
            .pod(&pod.name)
            .expect("the plan knows every pod of the topology");
        let node = self.plan.node(&pod.node).expect("checked with the plan");
        let ips = [addresses.ipv4.to_string(), addresses.ipv6.to_string()];
        let ports = pod.container_ports();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": "default", "labels": pod.labels},
            "spec": {
                "nodeName": pod.node,
                "hostNetwork": pod.host_network,
                "containers": [{"name": "server", "image": "probe", "ports": ports}],
            },
            "status": {
                "phase": "Running",
                "hostIP": node.ipv4.to_string(),
                "podIP": ips[0],
                "podIPs": [{"ip": ips[0]}, {"ip": ips[1]}],
                "conditions": conditions(pod.ready),
            },
        })
    }
}

impl From<Protocol> for oracle::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp,
        }
    }
}

fn conditions(ready: bool) -> Value {
    let status = if ready { "True" } else { "False" };
    json!([
        {"type": "Initialized", "status": "True"},
        {"type": "ContainersReady", "status": status},
        {"type": "Ready", "status": status},
    ])
}

/// The `apiVersion` of a well-known kind.
pub fn api_version_of(kind: &str) -> &'static str {
    match kind {
        "EndpointSlice" => "discovery.k8s.io/v1",
        "ServiceCIDR" | "IPAddress" => "networking.k8s.io/v1",
        "Lease" => "coordination.k8s.io/v1",
        _ => "v1",
    }
}

fn namespace_of<'a>(kind: &str, namespace: Option<&'a str>) -> Option<&'a str> {
    match kind {
        "Node" | "Namespace" | "ServiceCIDR" | "IPAddress" => None,
        _ => Some(namespace.unwrap_or("default")),
    }
}

fn with_namespace(object: &Value) -> Value {
    let mut object = object.clone();
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
    if let (Some(namespace), Some(metadata)) = (
        namespace_of(&kind, namespace.as_deref()),
        // What is no object is for the API server to refuse.
        object
            .pointer_mut("/metadata")
            .and_then(Value::as_object_mut),
    ) {
        metadata.insert("namespace".into(), json!(namespace));
    }
    object
}

/// The Node object of that name.
fn node_called<'a>(objects: &'a [Value], name: &str) -> Option<&'a Value> {
    objects
        .iter()
        .find(|object| object["kind"] == "Node" && object["metadata"]["name"] == name)
}

/// The zone that the Node object is labelled with now; a scenario may have changed it.
fn zone_label(node: &Value) -> Option<String> {
    node["metadata"]["labels"]["topology.kubernetes.io/zone"]
        .as_str()
        .map(str::to_owned)
}

/// The InternalIPs that the Node object has now.
fn internal_ips(node: &Value) -> Vec<IpAddr> {
    let addresses = node["status"]["addresses"].as_array();
    addresses
        .into_iter()
        .flatten()
        .filter(|address| address["type"] == "InternalIP")
        .filter_map(|address| oracle::parse_ip(address["address"].as_str()?))
        .collect()
}

/// Items of a list carry no `kind`; the oracle wants one.
fn as_kind(mut item: Value, api_version: &str, kind: &str) -> Value {
    if let Some(map) = item.as_object_mut() {
        map.entry("apiVersion")
            .or_insert_with(|| json!(api_version));
        map.entry("kind").or_insert_with(|| json!(kind));
    }
    item
}

fn describe(object: &Value) -> String {
    format!(
        "{} {}",
        object["kind"].as_str().unwrap_or("object without kind"),
        object["metadata"]["name"]
            .as_str()
            .unwrap_or("without name")
    )
}
