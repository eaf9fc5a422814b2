//! The scenario document: what a YAML file in the catalogue may say.
//!
//! One document type serves the catalogue, a repro in a report, and anything that generates scenarios.
//! Reading, substitution and matrix expansion are in [`super::load`]; what a verb does is in [`super::verbs`].

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_saphyr::Spanned;

use super::duration::Span;

/// A scenario: objects, steps and what must hold, for every combination of its matrix.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scenario {
    /// Stable id in kebab case; the case ids are this plus the matrix values.
    pub id: String,
    /// One line: what a conformant proxy does.
    pub title: String,
    /// Why this matters and what a failure means, for the person whose proxy fails.
    #[serde(default)]
    pub description: Option<String>,
    /// Ids from `requirements.yaml` that this scenario proves.
    pub requirement: Vec<String>,
    /// `core` scenarios decide conformance; see `requirements.yaml` for the levels.
    #[serde(default)]
    pub level: Level,
    /// What the candidate or the machine must be able to do; a missing one is a typed skip.
    #[serde(default)]
    pub features: Vec<Feature>,
    /// Upstream spec names and bug numbers that this scenario stands for.
    #[serde(default)]
    pub covers: Vec<String>,
    /// Nodes, pods and clients of the world.
    #[serde(default)]
    pub topology: Topology,
    /// Axes; their product (without `exclude`) is the list of cases.
    #[serde(default)]
    pub matrix: BTreeMap<String, Vec<AxisValue>>,
    /// Combinations that are no case: each entry excludes whatever matches all of its axes.
    #[serde(default)]
    pub exclude: Vec<BTreeMap<String, AxisValue>>,
    /// Restricts the document to one combination of its matrix (written by the harness into evidence).
    #[serde(default)]
    pub case: Option<BTreeMap<String, String>>,
    /// Seed of the attempt (written by the harness into evidence).
    #[serde(default)]
    pub seed: Option<u64>,
    /// Settings of the candidate that the scenario depends on.
    #[serde(default)]
    pub proxy: ProxySettings,
    /// Kubernetes objects that exist before the candidate starts.
    #[serde(default)]
    pub objects: Vec<Value>,
    /// What happens, in order.
    #[schemars(with = "Vec<Step>")]
    pub steps: Vec<Spanned<Step>>,
}

/// How much a requirement weighs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// Decides conformance.
    #[default]
    Core,
    /// An optional feature or a robustness property; reported by name.
    Extended,
    /// Beyond what kube-proxy itself does today.
    Strict,
    /// Recorded only.
    Info,
}

/// Something that not every candidate or machine can do.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Feature {
    /// Services with protocol SCTP (kernel and candidate).
    Sctp,
    /// `sessionAffinity: ClientIP`.
    SessionAffinity,
    /// `loadBalancerSourceRanges`.
    SourceRanges,
    /// Serving the health check node port.
    HealthCheckNodePort,
    /// Topology hints and `trafficDistribution`.
    TopologyHints,
    /// `externalIPs`.
    ExternalIps,
    /// LoadBalancer ingress addresses.
    LoadBalancer,
    /// `externalTrafficPolicy: Local` and `internalTrafficPolicy: Local`.
    TrafficPolicy,
    /// The candidate keeps its state in nftables or iptables, so that a flush is a fault it can see.
    NetfilterRules,
    /// The candidate can be limited to node addresses for NodePorts (`$(NODEPORT_ADDRESSES)`).
    NodePortAddresses,
    /// The candidate answers HTTP about its own health, at the port of `ready.http` in its manifest.
    Healthz,
    /// The candidate has a command that removes all that it left in the kernel (`cleanupArgs` in its manifest).
    Cleanup,
    /// The candidate can write rules for hundreds of Service ports at once in a user namespace, where no socket buffer may be larger than
    /// `net.core.wmem_max` says.
    LargeTransactions,
}

/// A matrix value: a word, a number or a truth value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum AxisValue {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Number(i64),
    /// A word.
    Text(String),
}

impl std::fmt::Display for AxisValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

/// The world a scenario asks for. Both address families are always there.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Topology {
    /// Nodes; by default `node1` and `node2`.
    pub nodes: Vec<Node>,
    /// Pods that exist from the start; each serves its ports and is a Pod object of namespace `default`.
    pub pods: Vec<Pod>,
    /// The client beyond the router.
    pub outside: Outside,
    /// Further clients: neighbours on the node network or on an extra network.
    pub clients: Vec<Client>,
}

impl Default for Topology {
    fn default() -> Self {
        let node = |name: &str| Node {
            name: name.into(),
            zone: None,
            networks: Vec::new(),
        };
        Self {
            nodes: vec![node("node1"), node("node2")],
            pods: Vec::new(),
            outside: Outside::default(),
            clients: Vec::new(),
        }
    }
}

/// A node: one instance of the candidate runs on it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// Name of the Node object.
    pub name: String,
    /// Value of its `topology.kubernetes.io/zone` label.
    #[serde(default)]
    pub zone: Option<String>,
    /// Extra networks that the node has an interface on.
    #[serde(default)]
    pub networks: Vec<String>,
}

/// A pod: a network namespace (or the node's, with `hostNetwork`) with servers and clients in it.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pod {
    /// Name of the Pod object, and the identity that its servers answer with.
    pub name: String,
    /// The node it runs on.
    pub node: String,
    /// Labels that Service selectors match.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Container ports, all served; by default `http` 8080/TCP and `udp` 8080/UDP.
    #[serde(default)]
    pub ports: Option<Vec<Port>>,
    /// Shares the node's network namespace.
    #[serde(default)]
    pub host_network: bool,
    /// MTU in bytes of its wire to the node, which its TCP does not believe: it asks for segments as large as the node's.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Whether the Pod is Ready from the start.
    #[serde(default = "yes")]
    pub ready: bool,
    /// `false`: neither the Pod object nor its namespace exists before a `pod: {action: start}` step.
    #[serde(default = "yes")]
    pub started: bool,
}

fn yes() -> bool {
    true
}

/// A container port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// Name that a named `targetPort` refers to.
    #[serde(default)]
    pub name: Option<String>,
    /// Port number.
    pub port: u16,
    /// `TCP` (default), `UDP` or `SCTP`.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A transport protocol as the API spells it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// The client beyond the router. It has one address per node; the address decides at which node
/// its packets to externalIPs and LoadBalancer addresses arrive.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outside {
    /// MTU in bytes of the wire between the router and the client.
    #[serde(default)]
    pub mtu: Option<u32>,
}

/// A client that is neither pod nor node.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Client {
    /// Name to use in `from`.
    pub name: String,
    /// `nodes` for a neighbour on the node network, or the name of an extra network.
    pub network: String,
    /// A node by way of which it sends to the pods of all nodes. Replies from other nodes come straight back, so that this node sees one
    /// direction of such connections only.
    #[serde(default)]
    pub through: Option<String>,
}

/// Settings of the candidate that a scenario depends on.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxySettings {
    /// `--nodeport-addresses` as CIDRs; needs the feature `nodePortAddresses`.
    #[serde(default)]
    pub nodeport_addresses: Vec<String>,
}

/// One step: exactly one verb, and optionally the cases it applies to.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Step {
    /// Shown in reports instead of a generated summary.
    pub name: Option<String>,
    /// The step is left out in cases whose axes have other values.
    pub when: BTreeMap<String, OneOrMany<AxisValue>>,
    /// Creates or replaces objects (a `status` is written as the status subresource, as a cloud provider would).
    pub apply: Option<Vec<Value>>,
    /// Patches one object.
    pub patch: Option<Patch>,
    /// Deletes objects.
    pub delete: Option<OneOrMany<ObjectRef>>,
    /// Changes pods.
    pub pod: Option<PodAction>,
    /// Probes sources x destinations once and compares everything seen with what must happen.
    pub probe: Option<Probe>,
    /// Long-running traffic through the changes.
    pub flow: Option<FlowStep>,
    /// Waits until the model holds everywhere; measures how long that took since the last change.
    pub converge: Option<Converge>,
    /// The model must hold without a break for a duration.
    pub hold: Option<Hold>,
    /// Something goes wrong: with the proxy, a node or the API.
    pub fault: Option<Fault>,
    /// Puts a packet on the wire that no socket would send.
    pub inject: Option<Inject>,
    /// Audits what the candidate and the node look like.
    pub state: Option<State>,
}

/// One value or a list.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// A single value.
    One(T),
    /// A list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// Names an object.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectRef {
    /// `v1` and so on; by default that of the well-known kind.
    #[serde(default)]
    pub api_version: Option<String>,
    /// Kind, such as `Service`.
    pub kind: String,
    /// Namespace; `default` when absent and the kind is namespaced.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// A patch of one object.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Patch {
    /// `v1` and so on; by default that of the well-known kind.
    #[serde(default)]
    pub api_version: Option<String>,
    /// Kind, such as `Service`.
    pub kind: String,
    /// Namespace; `default` when absent and the kind is namespaced.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// How `patch` is meant.
    #[serde(default, rename = "type")]
    pub patch_type: PatchType,
    /// `status` to patch the status subresource.
    #[serde(default)]
    pub subresource: Option<String>,
    /// The patch: an object for merge and strategic, a list of operations for json.
    pub patch: Value,
}

/// The patch types of the Kubernetes API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PatchType {
    /// RFC 7396.
    #[default]
    Merge,
    /// RFC 6902.
    Json,
    /// Strategic merge patch.
    Strategic,
}

/// What happens to pods.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodAction {
    /// The pods.
    pub name: OneOrMany<String>,
    /// What happens.
    pub action: PodVerb,
}

/// The life of a pod, as a scenario can steer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PodVerb {
    /// Creates namespace, servers and Pod object (Ready unless the topology says otherwise).
    Start,
    /// Servers, namespace and Pod object go away at once (kill -9 and force delete).
    Stop,
    /// Ready=False; servers keep running.
    Unready,
    /// Ready=True.
    Ready,
    /// `deletionTimestamp` is set; servers keep running (graceful termination; still serving while Ready).
    Terminate,
    /// The servers go deaf (sockets closed) while the Pod object stays as it is.
    Deafen,
    /// The servers listen again.
    Resume,
}

/// Where traffic comes from: pod, node or client names, `outside` (arriving at any node), `outside/NODE`, or `all`.
pub type Sources = OneOrMany<String>;

/// Selects destinations; every given field narrows. An empty selector is every frontend of every Service
/// in the case's family (both families when the matrix has no `family` axis).
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Target {
    /// Service name.
    pub service: Option<String>,
    /// Namespace of the Service.
    pub namespace: Option<String>,
    /// Kind of frontend.
    pub frontend: Option<OneOrMany<FrontendKind>>,
    /// Port name or number.
    pub port: Option<PortRef>,
    /// Protocol.
    pub protocol: Option<Protocol>,
    /// For NodePorts: the node whose address is used.
    pub node: Option<String>,
    /// Address family.
    pub family: Option<Family>,
    /// A literal address instead of a Service (needs `port`): for ports that must not answer and the like.
    pub address: Option<String>,
    /// A pod instead of a Service: the direct path (needs `port`).
    pub pod: Option<String>,
}

/// A port by name or number.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum PortRef {
    /// Port number.
    Number(u16),
    /// Port name.
    Name(String),
}

/// The ways into a Service.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
pub enum FrontendKind {
    /// `spec.clusterIPs`.
    #[serde(rename = "clusterIP")]
    ClusterIp,
    /// `spec.ports[].nodePort` on a node's address.
    #[serde(rename = "nodePort")]
    NodePort,
    /// `spec.externalIPs`.
    #[serde(rename = "externalIP")]
    ExternalIp,
    /// `status.loadBalancer.ingress[].ip`.
    #[serde(rename = "loadBalancer")]
    LoadBalancer,
}

/// An IP family.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// What must be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Expect {
    /// What the oracle says.
    #[default]
    Model,
    /// Exactly these pods answer (and the oracle agrees).
    Endpoints(Vec<String>),
    /// Refused at once: RST or ICMP.
    Refused,
    /// Silence.
    Dropped,
    /// Nobody answers; refused or silent does not matter.
    NoAnswer,
}

/// One round of probes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Probe {
    /// Sources; `all` by default.
    pub from: Sources,
    /// Destinations; all frontends by default.
    pub to: OneOrMany<Target>,
    /// New connections (or datagrams on new sockets) per source and destination.
    pub count: u32,
    /// What must be seen.
    pub expect: Expect,
    /// Whether the backend must see the client's own address; the oracle's word unless given.
    pub client_address: Option<ClientAddress>,
    /// Request payload in bytes.
    pub payload: u32,
    /// Reply payload in bytes.
    pub reply: u32,
    /// Sweep: exact transport payload lengths in bytes, each on a new flow (overrides `payload`, `reply` and `count`).
    pub lengths: Vec<LengthRange>,
    /// Fixed source port.
    pub source_port: Option<u16>,
    /// UDP: datagrams sent back to back on each fresh socket.
    pub back_to_back: u32,
    /// Time without any traffic before the probe: the stimulus of timeouts (session affinity), not a wait for the candidate.
    pub idle: Option<Span>,
    /// How long one attempt may take before it counts as silence. The default is 3 s where an answer is expected
    /// (covers two lost SYNs) and 200 ms where silence is expected.
    pub timeout: Option<Span>,
    /// All answers to one source must come from the same endpoint as in the named earlier probe (session affinity).
    pub same_as: Option<String>,
    /// Remembers who answered, for `sameAs` of later probes.
    pub save: Option<String>,
    /// Connect latency ceiling: the median must be below; measured either way.
    pub latency: Option<Span>,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            from: OneOrMany::One("all".into()),
            to: OneOrMany::One(Target::default()),
            count: 4,
            expect: Expect::Model,
            client_address: None,
            payload: 0,
            reply: 0,
            lengths: Vec::new(),
            source_port: None,
            back_to_back: 1,
            idle: None,
            timeout: None,
            same_as: None,
            save: None,
            latency: None,
        }
    }
}

/// A closed range of lengths: `[from, to]`, in bytes.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
pub struct LengthRange(pub u32, pub u32);

/// What the backend must see as the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ClientAddress {
    /// The client's own.
    Preserved,
    /// Another one (masqueraded).
    Masqueraded,
}

/// Starts, judges or stops long-running traffic.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FlowStep {
    /// Starts a flow under this name.
    pub start: Option<String>,
    /// Judges the flow of this name.
    pub expect: Option<String>,
    /// Judges (if `is` is given) and stops the flow of this name.
    pub stop: Option<String>,
    /// With `start`: what kind of traffic.
    pub kind: Option<FlowKind>,
    /// With `start`: one source.
    pub from: Option<String>,
    /// With `start`: one destination. A NodePort selector without `node` means the first node.
    pub to: Option<Target>,
    /// With `start`: fixed source port.
    pub source_port: Option<u16>,
    /// With `start`: time between messages; 10 ms by default.
    pub interval: Option<Span>,
    /// With `start`: payload in bytes.
    pub payload: u32,
    /// With `start`: payload of the answers in bytes.
    pub reply: u32,
    /// With `start`: wait until the first answer (true unless the destination cannot answer yet).
    pub established: Option<bool>,
    /// With `expect` or `stop`: what must be true.
    pub is: Option<FlowExpect>,
    /// With `expect`: until when; 15 s by default.
    pub deadline: Option<Span>,
}

/// Kinds of traffic that behave differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FlowKind {
    /// One TCP connection with sequence-checked messages.
    TcpStream,
    /// One connected UDP socket, request and reply.
    UdpConnected,
    /// One unconnected UDP socket, request and reply.
    UdpUnconnected,
    /// One UDP socket that only sends; what arrives is asked of the servers.
    UdpOneWay,
    /// A new TCP connection per message.
    NewConnections,
    /// A new UDP socket per message.
    NewDatagrams,
}

/// What must be true of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum FlowExpect {
    /// Within the deadline the flow reaches only what the oracle allows now (or is refused, or silent).
    Model,
    /// From its start, no message was lost, nothing was reset, and one endpoint answered all of it.
    Unbroken,
    /// From its start, every message was answered by an endpoint that was allowed at that time or before; none was lost.
    NoLoss,
    /// The TCP connection has ended within the deadline.
    Closed,
}

/// Waits for the model.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Converge {
    /// Sources; `all` by default.
    pub from: Sources,
    /// Destinations; all frontends by default.
    pub to: OneOrMany<Target>,
    /// Until when. The default of 30 s is what kube-proxy's own full resync may need on a busy machine.
    pub deadline: Span,
    /// No sweep after it, with the reason. By default everything else is looked at too: all frontends of all Services in both
    /// families, and places where nobody may answer; unless a fault keeps the candidate from knowing what the objects say.
    pub sweep: Option<NoSweep>,
}

/// Why a `converge` looks at its own destinations only.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NoSweep {
    /// The reason, as in `a reserved address that the oracle cannot know`.
    pub skip: String,
}

impl Default for Converge {
    fn default() -> Self {
        Self {
            from: OneOrMany::One("all".into()),
            to: OneOrMany::One(Target::default()),
            deadline: Span::millis(30_000),
            sweep: None,
        }
    }
}

/// The model must hold for a duration.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hold {
    /// How long.
    #[serde(rename = "for")]
    pub duration: Span,
    /// Sources; `all` by default.
    #[serde(default = "all_sources")]
    pub from: Sources,
    /// Destinations; all frontends by default.
    #[serde(default = "all_targets")]
    pub to: OneOrMany<Target>,
}

fn all_sources() -> Sources {
    OneOrMany::One("all".into())
}

fn all_targets() -> OneOrMany<Target> {
    OneOrMany::One(Target::default())
}

/// Something goes wrong. Exactly one of `proxy`, `node` and `api`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fault {
    /// With the candidate's process.
    pub proxy: Option<ProxyFault>,
    /// With a node's kernel state.
    pub node: Option<NodeFault>,
    /// With the API server, as the candidate sees it.
    pub api: Option<ApiFault>,
    /// Nodes it happens on; all by default.
    pub on: Option<OneOrMany<String>>,
    /// `true`: the fault ends (for faults that last).
    pub end: bool,
    /// For `noopUpdates`: how many updates of each kind (1 by default).
    pub times: Option<u32>,
    /// For `delay`: how long each response and event is held back; 100 ms by default. For `late`: how late each object comes; 200 ms by default.
    pub delay: Option<Span>,
    /// For `linkChurn`: how many extra interfaces are replaced in turn; 50 by default.
    pub links: Option<u32>,
    /// For `conntrackPressure`: how many entries are added; 20000 by default, 100000 at most.
    pub entries: Option<u32>,
    /// For `exhaustPorts`: how many ephemeral ports are left; 0 by default, 100 at most.
    pub free: Option<u32>,
    /// For `starve`: in how many percent of the time the candidate may run; 10 by default.
    pub cpu: Option<u32>,
    /// For `noopUpdates`: the kind whose objects are touched (`Service` and `EndpointSlice` by default). For `late`: the kind whose objects come
    /// late (`EndpointSlice` by default).
    pub kind: Option<String>,
    /// For `address` and `networkAddress`: the address with its prefix length.
    pub address: Option<String>,
}

/// Faults of the candidate's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ProxyFault {
    /// SIGTERM, wait for the exit, start again, wait until ready.
    Restart,
    /// SIGKILL, start again, wait until ready.
    Kill,
    /// SIGTERM and not started again until `start`.
    Down,
    /// Started again after `down`.
    Start,
    /// Its own command for that removes what it left in the kernel, after `down`.
    Cleanup,
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Continue,
    /// It may run only in `cpu` percent of the time (until `end`).
    Starve,
}

/// Faults of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum NodeFault {
    /// `nft flush ruleset`: every table of everybody.
    FlushRuleset,
    /// An nft table of somebody else, which accepts everything.
    ForeignTable,
    /// veth pairs and addresses come and go as fast as they can (until `end`).
    LinkChurn,
    /// Every nftables table is replaced by an empty one of its name that the candidate may not change, so that every transaction of its
    /// fails; gone with `end`.
    SeizeTables,
    /// Every conntrack entry is removed.
    FlushConntrack,
    /// An address is added to the node's `lo` (removed with `end`).
    Address,
    /// `entries` entries of nobody's flows in the connection tracking table (removed with `end`, until when they must be left alone).
    ConntrackPressure,
    /// All ephemeral ports of the node but `free` are held by sockets (until `end`).
    ExhaustPorts,
    /// An address is added to the node's interface on the node network, and everybody there knows it.
    NetworkAddress,
}

/// Faults of the API server, as the candidate sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ApiFault {
    /// Every running watch ends.
    DropWatches,
    /// Connections are refused and running ones cut (until `end`).
    Outage,
    /// Watches stay open and silent (until `end`, which resets them).
    HalfOpen,
    /// Open connections stay open and silent for good, as behind a NAT that forgot them; new ones work.
    Forget,
    /// Older resourceVersions are gone: 410 on the next watch, and an ERROR event on running ones.
    Compact,
    /// Every request fails with 500 (until `end`).
    Errors,
    /// Every response and event is held back by `delay` (until `end`).
    Delay,
    /// Lists come in another order, and every watch is dropped so that there is one.
    ShuffledRelist,
    /// Objects get a new resourceVersion and nothing else: `times` updates, one object after the other.
    NoopUpdates,
    /// Every event is delivered twice (until `end`).
    DuplicateEvents,
    /// The server goes away with its listener and its connections; with `end` it is back, at the resourceVersions it had.
    Restart,
    /// The same, and with `end` it is back from a backup: resourceVersions go on far ahead, and older ones are gone (410).
    Restore,
    /// Objects of one `kind` come late by `delay`, and those that a list or watch begins with in another order, in a watch one at a time (until
    /// `end`). Other kinds come at once.
    Late,
}

/// A packet that no socket would send.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inject {
    /// What to send.
    pub packet: InjectKind,
    /// For `outOfWindow`: the pod whose server side connection is abused; all started pods with labels by default.
    /// For `loopbackFromNeighbour`: a client of the network `nodes`.
    #[serde(default)]
    pub from: Option<String>,
    /// For `outOfWindow`: distance from the next sequence number, in bytes.
    #[serde(default)]
    pub offset: Option<i64>,
    /// For `loopbackFromNeighbour`: the node whose loopback address is tried.
    #[serde(default)]
    pub node: Option<String>,
    /// For `loopbackFromNeighbour`: a port that answers at the node's own address, which is the positive control.
    #[serde(default)]
    pub port: Option<u16>,
    /// For `loopbackFromNeighbour`: `TCP` (default) or `UDP`.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Kinds of injected packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum InjectKind {
    /// A TCP segment outside the window of an established connection (kubernetes #74839).
    OutOfWindow,
    /// Packets to 127.0.0.1 or ::1, sent by a neighbour to the link-layer address of a node: nobody may take them
    /// (kubernetes #92315).
    LoopbackFromNeighbour,
}

/// What to audit. Everything that is `true` is checked.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct State {
    /// The candidate runs on every node and has not restarted by itself.
    pub running: bool,
    /// No UDP conntrack entry on any node is NATed to an address that is no longer an endpoint, or for a frontend that was
    /// there earlier in the case and is gone.
    pub no_stale_udp: bool,
    /// An HTTP request to the `healthCheckNodePort` of a Service, or to the candidate itself, on one node.
    pub http: Option<HttpCheck>,
    /// After the fault `cleanup`: no rule, and no element that rules look up, says anything of a Service.
    pub cleaned_up: bool,
    /// Remembers size of ruleset and open files per node under this name.
    pub baseline: Option<String>,
    /// The ruleset has as many elements as at the named baseline.
    pub like: Option<String>,
}

/// An HTTP request whose answer is checked.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCheck {
    /// Node that is asked, on its IPv4 address, by the outside client.
    pub node: String,
    /// The Service whose `healthCheckNodePort` is asked (needs the feature `healthCheckNodePort`).
    #[serde(default)]
    pub health_check_of: Option<String>,
    /// A port by number: one that was a `healthCheckNodePort` before.
    #[serde(default)]
    pub port: Option<u16>,
    /// The candidate itself is asked, at the port of `ready.http` in its manifest (needs the feature `healthz`).
    #[serde(default)]
    pub proxy: bool,
    /// Path.
    #[serde(default = "root_path")]
    pub path: String,
    /// Status code that must be seen within the deadline.
    #[serde(default)]
    pub status: Option<u16>,
    /// In place of `status`: nobody may listen at the port any more, within the deadline.
    #[serde(default)]
    pub closed: bool,
    /// Header names and values that must be there.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Fields of the JSON body (by JSON pointer) and their values.
    #[serde(default)]
    pub body: BTreeMap<String, Value>,
    /// Until when; 15 s by default.
    #[serde(default)]
    pub deadline: Option<Span>,
}

fn root_path() -> String {
    "/".into()
}
