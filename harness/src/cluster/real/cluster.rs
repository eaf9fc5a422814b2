//! What one attempt has of a real cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use apiserver::{ApiServer, Config, FaultReport, Switch};
use async_trait::async_trait;
use futures::future::{join_all, try_join_all};
use k8s_openapi::api::core::v1::{Node, Pod as KubePod};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, ListParams, LogParams, PatchParams, PostParams},
};
use netlab::plan::{NodeAddresses, OutsideAddresses, Plan, PodAddresses, Real};
use nix::sys::signal::Signal;
use probe::{
    client::Agent,
    proto::{ConnectSpec, Listener, Outcome, Protocol},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    super::{Cluster, ClusterError, Settings, errors::Severity, infra, netns},
    agents::Held,
    claims::{Claim, Claims},
    elsewhere,
    fit::has_zones,
    gateway::Gateway,
    manifests,
    names::Names,
    settle,
    site::{POLL, Site, resource, typed, unlimited},
};
use crate::{
    candidate::Candidate,
    scenario::{
        Case, Stage,
        doc::{ObjectRef, Patch, PatchType, Pod, PodVerb},
    },
};

/// The controllers of a cluster follow within milliseconds, on a busy machine within seconds. After this they have stopped.
const FOLLOWED: Duration = Duration::from_secs(60);
/// A new instance of the candidate has this long to be Ready; `ready.deadline` of its manifest may say more.
const REPLACED: Duration = Duration::from_secs(120);
/// Memory per node for captured packets, and bytes kept of each; as in a world of namespaces.
const CAPTURE_BYTES: u64 = 8 << 20;
const CAPTURE_SNAPLEN: u32 = 256;

/// The label of a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// So often an object is written that somebody else writes at the same time.
const WRITES: u32 = 10;

/// A port of a node that no scenario, no node port and hardly anybody else uses.
const MASQUERADE_PORT: u16 = 29_997;

/// Kinds that the oracle reads.
const COPIED: [(&str, &str); 3] = [
    ("v1", "Service"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("v1", "Pod"),
];

/// The namespaces, Pods and agents of one attempt.
pub struct RealCluster {
    site: Arc<Site>,
    candidate: Candidate,
    stage: Stage,
    names: Names,
    /// Agents in the scenario's pods.
    pods: BTreeMap<String, Held>,
    /// Agents on nodes, and outside.
    others: BTreeMap<String, Held>,
    /// Which pods have to be Ready.
    ready: BTreeMap<String, bool>,
    /// Instances of the candidate that have to be there: by node, what tells one from its successor.
    instances: BTreeMap<String, Instance>,
    sctp: bool,
    /// What was done to the candidate or its API, and has to be undone.
    undo: Undo,
    /// Requests of the candidate that the API server itself did not answer, before this attempt.
    unanswered: u64,
    began: Instant,
    build: Duration,
    /// How long it had to wait for others.
    waited: Duration,
    /// Nothing before it may do what others could notice.
    claim: Option<Claim>,
}

/// What a scenario that ends early leaves behind.
#[derive(Debug, Default)]
struct Undo {
    /// How many watches the candidate had before its API was broken, by the nodes' addresses.
    watches: Option<BTreeMap<IpAddr, usize>>,
    /// Nodes that the candidate is kept away from, as the cluster calls them.
    down: BTreeSet<String>,
    /// Nodes on which it is stopped, as the scenario calls them.
    stopped: BTreeSet<String>,
    /// Nodes with an annotation of ours, as the cluster calls them.
    touched: BTreeSet<String>,
    /// Nodes in a zone of the scenario's: as the cluster calls them, with the zone that they had.
    zones: BTreeMap<String, Option<String>>,
}

/// One of the candidate's Pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instance {
    pub pod: String,
    pub uid: String,
    pub restarts: u64,
    pub ready: bool,
    /// Why it is not, if it says so.
    pub reason: String,
}

impl RealCluster {
    /// Makes namespaces and pods, starts agents, and applies the scenario's objects.
    pub(super) async fn build(
        site: &Arc<Site>,
        case: &Arc<Case>,
        candidate: &Candidate,
        settings: Settings,
    ) -> Result<(Arc<Case>, Self), ClusterError> {
        let asked = Instant::now();
        // A pod in a node's network listens at the node's ports, so it has to wait. Other pods disturb nobody, and starting them is most of the work.
        let pods = &case.scenario.topology.pods;
        let claim = match pods.iter().any(|pod| pod.host_network) {
            true => Some(site.register.claim(Claims::of(case)).await),
            false => None,
        };
        let began = Instant::now();
        let prefix = site.next_prefix();
        let topology = &case.scenario.topology;
        let nodes = topology.nodes.iter().zip(&site.nodes);
        let nodes: Vec<(String, String)> = nodes
            .map(|(node, real)| (node.name.clone(), real.name.clone()))
            .collect();
        let names = Names::new(
            &prefix,
            namespaces(case).iter().map(String::as_str),
            nodes.clone(),
        );
        let plan = plan(site, case)?;
        try_join_all(
            names
                .real_namespaces()
                .map(|namespace| site.make_namespace(namespace)),
        )
        .await?;
        let stage = Stage::copy(
            ApiServer::new(Config {
                endpointslice_controller: false,
                ..Config::default()
            })
            .map_err(|error| infra("the copy of the objects")(&error))?,
            plan,
            &case.scenario,
        );
        let mut cluster = Self {
            site: site.clone(),
            candidate: candidate.clone(),
            stage,
            names,
            pods: BTreeMap::new(),
            others: BTreeMap::new(),
            ready: BTreeMap::new(),
            instances: BTreeMap::new(),
            sctp: case.needs_sctp(),
            undo: Undo::default(),
            unanswered: 0,
            began,
            build: Duration::ZERO,
            waited: began - asked,
            claim,
        };
        match cluster.fill(case, settings).await {
            Ok(case) => {
                cluster.build = asked.elapsed().saturating_sub(cluster.waited);
                Ok((case, cluster))
            }
            Err(error) => {
                cluster.take_down().await;
                Err(error)
            }
        }
    }

    async fn fill(
        &mut self,
        case: &Arc<Case>,
        settings: Settings,
    ) -> Result<Arc<Case>, ClusterError> {
        let started: Vec<Pod> = self
            .stage
            .pods()
            .filter(|pod| pod.exists)
            .map(|pod| pod.spec.clone())
            .collect();
        let nodes = self.node_names();
        let on_nodes = async {
            try_join_all(nodes.iter().map(|node| async {
                let real = self.names.real_node(node).unwrap_or_default();
                let agent = self.site.node_agent(real).await?;
                if settings.capture {
                    let capture = agent.handle();
                    let started = capture.capture_start(CAPTURE_BYTES, CAPTURE_SNAPLEN).await;
                    started.map_err(|error| infra("the capture cannot be started")(&error))?;
                }
                Ok::<_, ClusterError>((node.clone(), agent))
            }))
            .await
        };
        let outside = async {
            match &self.site.outside {
                Some(outside) => Ok(Some(outside.agent().await?)),
                None => Ok(None),
            }
        };
        let (agents, on_nodes, outside) =
            futures::try_join!(self.run_pods(&started), on_nodes, outside)?;
        self.others.extend(on_nodes);
        if let Some(agent) = outside {
            self.others.insert("outside".into(), agent);
        }
        self.pods.extend(agents);
        if let Some(masquerades) = self.masquerades(&started).await? {
            self.stage.plan_mut().found_masquerading(masquerades);
        }
        for pod in &started {
            self.ready.insert(pod.name.clone(), pod.ready);
        }
        let ready = started.iter().filter(|pod| pod.ready);
        try_join_all(ready.map(|pod| self.set_gate(&pod.name, true))).await?;
        if self.claim.is_none() {
            let asked = Instant::now();
            // By the document's own addresses, as everybody claims: those of the cluster would be other names for the same.
            self.claim = Some(self.site.register.claim(Claims::of(case)).await);
            self.waited += asked.elapsed();
        }
        // From here on everything has its address.
        let document = &case.document;
        let resolved = document.resolve_at(&case.key, self.stage.plan().clone());
        let resolved = resolved.map_err(|error| infra("the addresses of the cluster")(&error))?;
        let case = Arc::new(Case {
            // What is kept as evidence has to run elsewhere, too.
            text: case.text.clone(),
            ..resolved
        });
        if has_zones(&case) {
            self.put_into_zones().await?;
        }
        for (node, real) in self.stage.nodes().iter().zip(&self.site.nodes) {
            let mut object = real.object.clone();
            object["metadata"]["name"] = json!(node.name);
            object["metadata"]["labels"]["kubernetes.io/hostname"] = json!(node.name);
            if self.undo.zones.contains_key(&real.name)
                && let Some(labels) = object["metadata"]["labels"].as_object_mut()
            {
                labels.remove(ZONE);
                labels.extend(node.zone.iter().map(|zone| (ZONE.to_owned(), json!(zone))));
            }
            self.copy(object)?;
        }
        self.write(&case.scenario.objects).await?;
        self.follow().await?;
        self.forget(&case).await?;
        Ok(case)
    }

    /// Puts the nodes into the scenario's zones, and starts the candidate anew: nodes have their zones before anything runs on them.
    async fn put_into_zones(&mut self) -> Result<(), ClusterError> {
        let site = self.site.clone();
        let nodes = self.stage.nodes().to_vec();
        for (node, real) in nodes.iter().zip(&site.nodes) {
            let known = real.object["metadata"]["labels"][ZONE].as_str();
            if known != node.zone.as_deref() {
                let known = known.map(str::to_owned);
                self.undo.zones.insert(real.name.clone(), known);
                self.put_into_zone(&real.name, node.zone.as_deref()).await?;
            }
        }
        self.start_anew().await
    }

    /// Ends the candidate on every node, where its Pods are known, and waits for its successors.
    async fn start_anew(&mut self) -> Result<(), ClusterError> {
        if self.site.plans.instances.is_none() {
            return Ok(());
        }
        let former = self.look_at_instances().await?;
        self.instances = former.clone();
        let all = self.node_names();
        self.end_candidate(&all, Signal::SIGTERM).await?;
        self.replaced(&all, &former).await
    }

    fn node_names(&self) -> Vec<String> {
        let nodes = self.stage.nodes().iter();
        nodes.map(|node| node.name.clone()).collect()
    }

    async fn put_into_zone(&self, real: &str, zone: Option<&str>) -> Result<(), ClusterError> {
        self.patch_node(real, &json!({"labels": {ZONE: zone}}))
            .await
    }

    async fn patch_node(&self, real: &str, metadata: &Value) -> Result<(), ClusterError> {
        let nodes: Api<Node> = Api::all(self.site.client.clone());
        let patch = kube::api::Patch::Merge(json!({"metadata": metadata}));
        let patched = nodes.patch(real, &PatchParams::default(), &patch).await;
        patched.map_err(|error| infra(&format!("node {real} cannot be changed"))(&error))?;
        Ok(())
    }

    /// Removes what the nodes remember of flows of others that had the same addresses and ports before. A packet that fits such an entry goes where
    /// that flow went: past all rules, because they are asked for the first packet of a flow only.
    async fn forget(&self, case: &Case) -> Result<(), ClusterError> {
        let claimed = Claims::of(case);
        let mut addresses = claimed.addresses();
        let nodes = self.stage.plan().nodes();
        let own = nodes
            .iter()
            .flat_map(|node| [IpAddr::from(node.ipv4), node.ipv6.into()]);
        let own: BTreeSet<IpAddr> = own.collect();
        let mut ports: BTreeSet<u16> = claimed.node_ports();
        for pod in self.stage.plan().pods() {
            addresses.extend([IpAddr::from(pod.ipv4), pod.ipv6.into()]);
        }
        let model = self.stage.oracle()?;
        for frontend in oracle::frontends(&model) {
            addresses.insert(frontend.ip);
            if frontend.kind == oracle::FrontendKind::NodePort {
                ports.insert(frontend.port);
            }
        }
        // What a node sends and gets besides is not ours to forget.
        addresses.retain(|ip| !own.contains(ip) && !ip.is_loopback() && !ip.is_unspecified());
        let sockets: Vec<SocketAddr> = own
            .iter()
            .flat_map(|ip| ports.iter().map(|port| SocketAddr::new(*ip, *port)))
            .collect();
        let addresses: Vec<IpAddr> = addresses.into_iter().collect();
        try_join_all(nodes.iter().map(|node| async {
            let agent = self.agent(&node.name)?;
            let forgotten = agent.conntrack_forget(addresses.clone(), sockets.clone());
            forgotten
                .await
                .map_err(|error| infra("what a node remembers of flows")(&error))
        }))
        .await?;
        Ok(())
    }

    /// Makes Pods, starts an agent in each and lets it serve.
    async fn run_pods(&self, pods: &[Pod]) -> Result<Vec<(String, Held)>, ClusterError> {
        let namespace = self.namespace();
        let plans = &self.site.plans;
        let objects = pods.iter().map(|pod| {
            let node = self.names.real_node(&pod.node).unwrap_or_default();
            manifests::pod(pod, namespace, node, plans)
        });
        let running = self.site.run_pods(namespace, objects.collect()).await?;
        for object in &running {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            if let Some(pod) = pods.iter().find(|pod| pod.name == name) {
                self.stage.plan().pod_is_at(pod_addresses(pod, object));
            }
        }
        try_join_all(pods.iter().map(|pod| async {
            let agent = Held::start(&self.site.client, namespace, &pod.name).await?;
            if plans.ours && !pod.host_network {
                unlimited(&agent.handle()).await?;
            }
            self.serve(pod, &agent.handle()).await?;
            Ok((pod.name.clone(), agent))
        }))
        .await
    }

    /// Whether the network gives what pods send to other nodes the address of the pod's node: asked once of a cluster, by the first attempt that
    /// has a pod and another node. No Service is involved. Nothing where nobody could tell and nothing depends on it.
    async fn masquerades(&self, pods: &[Pod]) -> Result<Option<bool>, ClusterError> {
        let found = pods.iter().filter(|pod| !pod.host_network).find_map(|pod| {
            let mut nodes = self.stage.plan().nodes().iter();
            let other = nodes.find(|node| node.name != pod.node)?;
            Some((pod, other.clone()))
        });
        let Some((pod, other)) = found else {
            return Ok(None);
        };
        let asked = self.site.masquerades.get_or_try_init(|| async {
            let what = "whether the network masquerades";
            let target = if other.ipv4.is_unspecified() {
                other.ipv6.into()
            } else {
                other.ipv4.into()
            };
            let target = std::net::SocketAddr::new(target, MASQUERADE_PORT);
            let (client, server) = (self.agent(&pod.name)?, self.agent(&other.name)?);
            let listener = Listener {
                id: "masquerade".into(),
                identity: "node".into(),
                protocol: Protocol::Tcp,
                addr: target.ip(),
                port: target.port(),
            };
            let served = server.serve(vec![listener]).await;
            served.map_err(|error| infra(what)(&error))?;
            let spec = ConnectSpec {
                timeout_ms: 5_000,
                ..ConnectSpec::new(Protocol::Tcp, target)
            };
            let report = client.connect(spec).await;
            let _ = server.stop_serving(None, true).await;
            let report = report.map_err(|error| infra(what)(&error))?;
            let own = self.stage.plan().pod(&pod.name);
            let own = own.map(|own| [IpAddr::from(own.ipv4), IpAddr::from(own.ipv6)]);
            match report.attempts.first().map(|one| &one.outcome) {
                Some(Outcome::Answered { peer, .. }) => {
                    Ok(!own.is_some_and(|own| own.contains(&peer.ip())))
                }
                other => Err(infra(what)(&format!(
                    "{} cannot reach {target}: {other:?}",
                    pod.name
                ))),
            }
        });
        asked.await.copied().map(Some)
    }

    async fn serve(&self, pod: &Pod, agent: &Agent) -> Result<(), ClusterError> {
        let listeners: Vec<Listener> = netns::listeners(pod, self.sctp);
        agent.serve(listeners).await.map_err(|error| {
            ClusterError::Infra(format!(
                "the servers of pod {} cannot listen: {error}",
                pod.name
            ))
        })
    }

    /// The namespace that most objects are in.
    fn namespace(&self) -> &str {
        self.names.real_namespace("default").unwrap_or_default()
    }

    /// Sets the condition that the Pod's readiness waits for.
    async fn set_gate(&self, pod: &str, ready: bool) -> Result<(), ClusterError> {
        let api: Api<KubePod> = Api::namespaced(self.site.client.clone(), self.namespace());
        let status = if ready { "True" } else { "False" };
        // Conditions are a map by type for a strategic merge.
        let patch = kube::api::Patch::Strategic(json!({
            "status": {"conditions": [{"type": manifests::GATE, "status": status}]},
        }));
        let patched = api.patch_status(pod, &PatchParams::default(), &patch).await;
        patched.map_err(|error| {
            infra(&format!("pod {pod} cannot be made ready or unready"))(&error)
        })?;
        Ok(())
    }

    fn api(&self, api_version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let resource = resource(api_version, kind);
        Api::namespaced_with(self.site.client.clone(), namespace, &resource)
    }

    /// Creates or replaces objects, a status through its subresource.
    async fn write(&self, objects: &[Value]) -> Result<(), ClusterError> {
        for object in objects {
            let kind = object["kind"].as_str().unwrap_or_default();
            if kind == "Namespace" {
                continue;
            }
            let mut object = object.clone();
            if object["metadata"]["namespace"].is_null() {
                object["metadata"]["namespace"] = json!("default");
            }
            self.names.to_real(&mut object);
            let text = |pointer: &str| {
                let text = object.pointer(pointer).and_then(Value::as_str);
                text.unwrap_or_default().to_owned()
            };
            let name = text("/metadata/name");
            let what = format!("apply {kind} {name}");
            let api = self.api(&text("/apiVersion"), kind, &text("/metadata/namespace"));
            let status = object["status"].clone();
            let mut tries = 0;
            loop {
                let known = api.get_opt(&name).await;
                let known = known.map_err(|error| infra(&what)(&error))?;
                let mut object = object.clone();
                let written = match known {
                    None => {
                        let object: DynamicObject = typed(object)?;
                        api.create(&PostParams::default(), &object).await
                    }
                    Some(known) => {
                        object["metadata"]["resourceVersion"] =
                            json!(known.metadata.resource_version);
                        let object: DynamicObject = typed(object)?;
                        api.replace(&name, &PostParams::default(), &object).await
                    }
                };
                tries += 1;
                match written {
                    Ok(_) => break,
                    // A controller wrote it in between.
                    Err(kube::Error::Api(status)) if status.code == 409 && tries < WRITES => {}
                    Err(error) => return Err(infra(&what)(&error)),
                }
            }
            if !status.is_null() {
                let patch = kube::api::Patch::Merge(json!({"status": status}));
                let patched = api
                    .patch_status(&name, &PatchParams::default(), &patch)
                    .await;
                patched.map_err(|error| infra(&what)(&error))?;
            }
        }
        Ok(())
    }

    /// Waits until the cluster's controllers have followed, and copies what there is then.
    async fn follow(&self) -> Result<(), ClusterError> {
        let began = Instant::now();
        let mut pause = POLL / 10;
        loop {
            let Some(behind) = self.look().await? else {
                self.site.pace.took(began.elapsed());
                return self.site.pace.slack().map(drop).map_err(|p90| {
                    ClusterError::Infra(format!(
                        "the cluster's controllers need {p90:?} for one change of ten: too slow to judge anybody"
                    ))
                });
            };
            if began.elapsed() > FOLLOWED {
                return Err(ClusterError::Infra(format!(
                    "the cluster's controllers did not follow within {FOLLOWED:?}: {behind}"
                )));
            }
            // A poll of a condition with a deadline, slower the longer it takes: each is three requests.
            sleep(pause).await;
            pause = (pause * 3 / 2).min(POLL);
        }
    }

    /// Copies what there is; what is behind, if anything is.
    async fn look(&self) -> Result<Option<String>, ClusterError> {
        let mut seen = BTreeSet::new();
        let mut behind = None;
        for namespace in self.names.real_namespaces() {
            let kinds = COPIED.map(|(version, kind)| self.site.list(version, kind, namespace));
            let mut lists = try_join_all(kinds).await?;
            behind = behind.or_else(|| settle::unsettled(&lists[0], &lists[1], &lists[2]));
            behind = behind.or_else(|| self.elsewhere(&lists[1]));
            if namespace == self.namespace() {
                behind = behind.or_else(|| self.unready(&lists[2]));
            }
            for mut object in lists.drain(..).flatten() {
                self.names.to_logical(&mut object);
                if let Some(elsewhere) = self.candidate.treatment.elsewhere {
                    elsewhere::moved(&mut object, elsewhere, self.stage.plan());
                }
                seen.insert(reference(&object));
                self.copy(object)?;
            }
        }
        let api = self.stage.api();
        for (version, kind) in COPIED {
            let known = api.list(version, kind, None);
            for mut object in known.map_err(|error| infra("the copy of the objects")(&error))? {
                object["kind"] = json!(kind);
                object["apiVersion"] = json!(version);
                let reference = reference(&object);
                if !seen.contains(&reference) {
                    let object =
                        apiserver::ObjectRef::new(version, kind, &reference.1, &reference.2);
                    let forgotten = api.unmirror(&object);
                    forgotten.map_err(|error| infra("the copy of the objects")(&error))?;
                }
            }
        }
        Ok(behind)
    }

    /// An endpoint that its controller takes to be in another zone than its node is in now.
    fn elsewhere(&self, slices: &[Value]) -> Option<String> {
        if self.undo.zones.is_empty() {
            return None;
        }
        let mut zones = BTreeMap::new();
        for node in self.stage.nodes() {
            zones.insert(self.names.real_node(&node.name)?, node.zone.as_deref());
        }
        let managed = slices.iter().filter(|slice| settle::is_managed(slice));
        let mut endpoints =
            managed.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        endpoints.find_map(|endpoint| {
            let node = endpoint["nodeName"].as_str()?;
            let zone = zones.get(node)?;
            (endpoint["zone"].as_str() != *zone).then(|| {
                format!(
                    "an endpoint on {node}, whose zone is {zone:?} and not {}",
                    endpoint["zone"]
                )
            })
        })
    }

    /// A pod that is not as ready as it has to be.
    fn unready(&self, pods: &[Value]) -> Option<String> {
        self.ready.iter().find_map(|(name, want)| {
            let found = pods.iter().find(|pod| pod["metadata"]["name"] == **name);
            let Some(pod) = found else {
                return Some(format!("pod {name}, which is not there"));
            };
            (settle::is_ready(pod) != *want).then(|| {
                format!(
                    "pod {name}, which has to be {}ready",
                    if *want { "" } else { "un" }
                )
            })
        })
    }

    fn copy(&self, object: Value) -> Result<(), ClusterError> {
        let copied = self.stage.api().mirror(object);
        copied.map_err(|error| infra("the copy of the objects")(&error))
    }

    /// Which instances there are now, by the scenario's node names.
    async fn look_at_instances(&self) -> Result<BTreeMap<String, Instance>, ClusterError> {
        let Some(place) = &self.site.plans.instances else {
            return Ok(BTreeMap::new());
        };
        let api: Api<KubePod> = Api::namespaced(self.site.client.clone(), &place.namespace);
        let params = ListParams::default().labels(&place.selector);
        let list = api.list(&params).await;
        let list = list.map_err(|error| infra("list the candidate's Pods")(&error))?;
        let mut found = BTreeMap::new();
        for pod in list.items {
            let value = serde_json::to_value(&pod)
                .map_err(|error| infra("list the candidate's Pods")(&error))?;
            let real = value["spec"]["nodeName"].as_str().unwrap_or_default();
            let mut nodes = self.stage.nodes().iter();
            let node = nodes.find(|node| self.names.real_node(&node.name) == Some(real));
            // One that terminates is about to be replaced.
            if let Some(node) = node
                && value["metadata"]["deletionTimestamp"].is_null()
            {
                found.insert(node.name.clone(), instance(&value));
            }
        }
        Ok(found)
    }

    /// Waits until other instances than these are Ready on some nodes.
    async fn replaced(
        &mut self,
        nodes: &[String],
        former: &BTreeMap<String, Instance>,
    ) -> Result<(), ClusterError> {
        let process = self.candidate.manifest.process.as_ref();
        let most = process.map_or(REPLACED, |process| process.ready.deadline().max(REPLACED));
        let until = Instant::now() + most;
        loop {
            let now = self.look_at_instances().await?;
            let behind = nodes.iter().find_map(|node| match now.get(node) {
                None => Some(format!("{node} has no Pod of the candidate")),
                Some(new) if former.get(node).is_some_and(|old| old.uid == new.uid) => {
                    Some(format!("{} on {node} is still the old one", new.pod))
                }
                Some(new) if !new.ready => {
                    Some(format!("{} on {node} is not Ready {}", new.pod, new.reason))
                }
                Some(_) => None,
            });
            let Some(behind) = behind else {
                self.instances.extend(now);
                return Ok(());
            };
            if Instant::now() > until {
                return Err(ClusterError::Candidate(format!("after {most:?} {behind}")));
            }
            // A poll of a condition with a deadline.
            sleep(POLL).await;
        }
    }

    fn gateway(&self) -> Result<&Arc<Gateway>, ClusterError> {
        let gateway = self.site.gateway.as_ref();
        gateway.ok_or_else(|| not_here("faults of the API"))
    }

    /// The gateway, and before its first fault what the candidate has of it.
    async fn breaking(&mut self) -> Result<Arc<Gateway>, ClusterError> {
        let gateway = self.gateway()?.clone();
        if self.undo.watches.is_none() {
            self.undo.watches = Some(gateway.seen().await?.watches);
        }
        Ok(gateway)
    }

    /// Keeps the candidate away from a node, or lets it come back.
    async fn keep_off(&self, real: &str, on: bool) -> Result<(), ClusterError> {
        let value = on.then_some("");
        self.patch_node(
            real,
            &json!({"labels": {manifests::WITHOUT_CANDIDATE: value}}),
        )
        .await
    }

    /// Undoes what was done to the candidate, so that the next attempt finds it as this one did: all that can be undone, whatever cannot. Answers
    /// what could not.
    async fn heal(&mut self) -> Vec<ClusterError> {
        let undo = std::mem::take(&mut self.undo);
        let mut done = Vec::new();
        for node in &undo.stopped {
            done.push(self.signal_node(node, Signal::SIGCONT).await.map(drop));
        }
        for real in &undo.down {
            done.push(self.keep_off(real, false).await);
        }
        for real in &undo.touched {
            let metadata = json!({"annotations": {manifests::TOUCHED: null}});
            done.push(self.patch_node(real, &metadata).await);
        }
        for (real, zone) in &undo.zones {
            done.push(self.put_into_zone(real, zone.as_deref()).await);
        }
        if !undo.down.is_empty() {
            let all = self.node_names();
            done.push(self.replaced(&all, &BTreeMap::new()).await);
        }
        if let Some(before) = undo.watches {
            done.push(self.mend_api(&before).await);
        }
        done.into_iter().filter_map(Result::err).collect()
    }

    /// Ends faults of the API, and waits until the candidate watches as it did before.
    async fn mend_api(&mut self, before: &BTreeMap<IpAddr, usize>) -> Result<(), ClusterError> {
        let missing = self.gateway()?.heal(before).await?;
        if missing.is_empty() {
            return Ok(());
        }
        // Whoever does not come back by itself is the business of the scenario that broke it, and of no other.
        tracing::warn!(
            ?missing,
            "clients do not watch again: the candidate is restarted"
        );
        self.start_anew().await
    }

    /// Signals the candidate's processes on a node. Answers whether there are any.
    async fn signal_node(&self, node: &str, signal: Signal) -> Result<bool, ClusterError> {
        let Some(instance) = self.instances.get(node) else {
            return Ok(false);
        };
        let agent = self.agent(node)?;
        let count = agent.signal_pod(&instance.uid, signal as i32).await;
        let count = count.map_err(|error| infra("the candidate's processes")(&error))?;
        Ok(count > 0)
    }

    /// Ends agents and deletes namespaces. Services are gone when this returns, so that their ports are free for others.
    async fn take_down(&mut self) {
        for error in self.heal().await {
            // The attempts that follow will not find a candidate that is ready, and say so.
            tracing::warn!(%error, "what was done to the candidate could not be undone");
        }
        self.pods.clear();
        self.others.clear();
        for namespace in self.names.real_namespaces() {
            let services = self.api("v1", "Service", namespace);
            let pods = self.api("v1", "Pod", namespace);
            let all = ListParams::default();
            // There is no collection of Services to delete before Kubernetes 1.23, and one by one is as good.
            if let Ok(list) = services.list(&all).await {
                join_all(list.items.iter().filter_map(|one| {
                    let name = one.metadata.name.as_deref()?;
                    let (services, params) = (&services, DeleteParams::default());
                    Some(async move { services.delete(name, &params).await.map(drop) })
                }))
                .await;
            }
            let at_once = DeleteParams::default().grace_period(0);
            if let Err(error) = pods.delete_collection(&at_once, &all).await {
                tracing::warn!(namespace, %error, "pods could not be deleted");
            }
        }
        self.site
            .drop_namespaces(self.names.real_namespaces())
            .await;
    }
}

/// Kind, namespace and name.
fn reference(object: &Value) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    (
        text(&object["kind"]),
        text(&metadata["namespace"]),
        text(&metadata["name"]),
    )
}

fn instance(pod: &Value) -> Instance {
    let statuses = pod["status"]["containerStatuses"].as_array();
    let statuses: Vec<&Value> = statuses.into_iter().flatten().collect();
    let restarts = statuses
        .iter()
        .filter_map(|one| one["restartCount"].as_u64());
    let waiting = statuses.iter().find_map(|one| {
        let waiting = &one["state"]["waiting"];
        let reason = waiting["reason"].as_str()?;
        let message = waiting["message"].as_str().unwrap_or_default();
        Some(format!("({reason} {message})"))
    });
    let (_, _, name) = reference(pod);
    Instance {
        pod: name,
        uid: pod["metadata"]["uid"].as_str().unwrap_or_default().into(),
        restarts: restarts.sum(),
        ready: settle::is_ready(pod),
        reason: waiting.unwrap_or_default(),
    }
}

/// The namespaces that a case names, besides `default`.
fn namespaces(case: &Case) -> BTreeSet<String> {
    let steps = case.scenario.steps.iter().map(|step| &step.value);
    let applied = steps.clone().flat_map(|step| step.apply.iter().flatten());
    let mut found = BTreeSet::new();
    for object in case.scenario.objects.iter().chain(applied) {
        let key = if object["kind"] == "Namespace" {
            "name"
        } else {
            "namespace"
        };
        found.extend(object["metadata"][key].as_str().map(str::to_owned));
    }
    found.extend(steps.filter_map(|step| step.patch.as_ref()?.namespace.clone()));
    found
}

/// The addresses of the cluster under the names of the case.
fn plan(site: &Site, case: &Case) -> Result<Plan, ClusterError> {
    let topology = &case.scenario.topology;
    let mut nodes = Vec::new();
    let mut outside: BTreeMap<String, OutsideAddresses> = BTreeMap::new();
    for (node, real) in topology.nodes.iter().zip(&site.nodes) {
        nodes.push(NodeAddresses {
            name: node.name.clone(),
            ..real.addresses.clone()
        });
        let addresses = site.outside.as_ref().map(|outside| outside.addresses());
        if let Some(addresses) = addresses.and_then(|all| all.get(&real.name)) {
            outside.insert(node.name.clone(), *addresses);
        }
    }
    let cidrs = nodes
        .iter()
        .flat_map(|node| [node.pod_cidr4.into(), node.pod_cidr6.into()]);
    let real = Real {
        cluster_cidrs: cidrs.collect(),
        service_cidrs: site.service_cidrs.clone(),
        masquerades_to_nodes: false,
        refusals_are_limited: !site.plans.ours,
        nodes,
        outside,
    };
    Plan::on(&topology.lab(), real).map_err(|error| infra("the addresses of the cluster")(&error))
}

fn pod_addresses(pod: &Pod, object: &Value) -> PodAddresses {
    let ips = object["status"]["podIPs"].as_array();
    let ips: Vec<std::net::IpAddr> = ips
        .into_iter()
        .flatten()
        .filter_map(|ip| ip["ip"].as_str()?.parse().ok())
        .collect();
    let (mut ipv4, mut ipv6) = (
        std::net::Ipv4Addr::UNSPECIFIED,
        std::net::Ipv6Addr::UNSPECIFIED,
    );
    for ip in ips {
        match ip {
            std::net::IpAddr::V4(ip) => ipv4 = ip,
            std::net::IpAddr::V6(ip) => ipv6 = ip,
        }
    }
    PodAddresses {
        name: pod.name.clone(),
        node: pod.node.clone(),
        index: 0,
        host_network: pod.host_network,
        ipv4,
        ipv6,
        mtu: None,
    }
}

/// A patch under the cluster's names.
fn real_patch(names: &Names, patch: &Patch) -> Value {
    let mut value = patch.patch.clone();
    let Some(operations) = value.as_array_mut() else {
        names.to_real(&mut value);
        return value;
    };
    for operation in operations {
        let path = operation["path"].as_str().unwrap_or_default().to_owned();
        let Some(value) = operation.get_mut("value") else {
            continue;
        };
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match parts.as_slice() {
            ["endpoints"] => {
                let mut whole = json!({"endpoints": value.take()});
                names.to_real(&mut whole);
                *value = whole["endpoints"].take();
            }
            ["endpoints", _] => {
                let mut whole = json!({"endpoints": [value.take()]});
                names.to_real(&mut whole);
                *value = whole["endpoints"][0].take();
            }
            ["endpoints", _, "nodeName"] => {
                let mut whole = json!({"endpoints": [{"nodeName": value.take()}]});
                names.to_real(&mut whole);
                *value = whole["endpoints"][0]["nodeName"].take();
            }
            _ => {}
        }
    }
    value
}

#[async_trait]
impl Cluster for RealCluster {
    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    fn built_in(&self) -> Duration {
        self.build
    }

    fn waited(&self) -> Duration {
        self.waited
    }

    fn slack(&self) -> Duration {
        // Where there is none, `follow` has ended the attempt.
        self.site.pace.slack().unwrap_or_default()
    }

    fn late(&self) -> Duration {
        // Through the API server, the kubelet and the container runtime.
        Duration::from_secs(3)
    }

    fn agent(&self, who: &str) -> Result<Agent, ClusterError> {
        let pod = self.pods.get(who).map(Held::handle);
        let agent = pod.or_else(|| Some(self.others.get(who)?.handle()));
        agent.ok_or_else(|| ClusterError::Infra(format!("'{who}' has no agent")))
    }

    async fn apply(&mut self, objects: &[Value]) -> Result<(), ClusterError> {
        self.write(objects).await?;
        self.follow().await
    }

    async fn patch(&mut self, patch: &Patch) -> Result<(), ClusterError> {
        let logical = patch.namespace.as_deref().unwrap_or("default");
        let namespace = self.names.real_namespace(logical).unwrap_or_default();
        let version = patch.api_version.as_deref();
        let version = version.unwrap_or_else(|| crate::scenario::api_version_of(&patch.kind));
        let api = self.api(version, &patch.kind, namespace);
        let value = real_patch(&self.names, patch);
        let what = format!("patch {} {}", patch.kind, patch.name);
        let value = match patch.patch_type {
            PatchType::Merge => kube::api::Patch::Merge(value),
            PatchType::Strategic => kube::api::Patch::Strategic(value),
            PatchType::Json => kube::api::Patch::Json(typed(value)?),
        };
        let params = PatchParams::default();
        let patched = match patch.subresource.as_deref() {
            Some("status") => api.patch_status(&patch.name, &params, &value).await,
            _ => api.patch(&patch.name, &params, &value).await,
        };
        patched.map_err(|error| infra(&what)(&error))?;
        self.follow().await
    }

    async fn delete(&mut self, objects: &[ObjectRef]) -> Result<(), ClusterError> {
        for object in objects {
            let logical = object.namespace.as_deref().unwrap_or("default");
            let namespace = self.names.real_namespace(logical).unwrap_or_default();
            let version = object.api_version.as_deref();
            let version = version.unwrap_or_else(|| crate::scenario::api_version_of(&object.kind));
            let api = self.api(version, &object.kind, namespace);
            let deleted = api.delete(&object.name, &DeleteParams::default()).await;
            let what = format!("delete {} {}", object.kind, object.name);
            deleted.map_err(|error| infra(&what)(&error))?;
        }
        self.follow().await
    }

    async fn prepare_pod(&mut self, name: &str, verb: PodVerb) -> Result<(), ClusterError> {
        let pod = self.stage.pod_can(name, verb)?.spec.clone();
        match verb {
            PodVerb::Start => {
                let agents = self.run_pods(std::slice::from_ref(&pod)).await?;
                self.pods.extend(agents);
                let addresses = self.stage.plan().pod(name);
                let addresses = addresses.filter(|_| !pod.host_network);
                for (node, addresses) in self.stage.nodes().iter().zip(addresses.iter().cycle()) {
                    let own = vec![addresses.ipv4.into(), addresses.ipv6.into()];
                    let agent = self.agent(&node.name)?;
                    let forgotten = agent.conntrack_forget(own, Vec::new()).await;
                    let what = "what a node remembers of flows";
                    forgotten.map_err(|error| infra(what)(&error))?;
                }
                Ok(())
            }
            PodVerb::Resume => self.serve(&pod, &self.agent(name)?).await,
            _ => Ok(()),
        }
    }

    async fn pod(&mut self, name: &str, verb: PodVerb) -> Result<(), ClusterError> {
        let pod = self.stage.pod(name).map(|pod| pod.spec.clone());
        let api: Api<KubePod> = Api::namespaced(self.site.client.clone(), self.namespace());
        let what = format!("pod {name}: {verb:?}");
        match verb {
            PodVerb::Start => {
                let ready = pod.is_some_and(|pod| pod.ready);
                self.ready.insert(name.into(), ready);
                if ready {
                    self.set_gate(name, true).await?;
                }
            }
            PodVerb::Ready | PodVerb::Unready => {
                self.ready.insert(name.into(), verb == PodVerb::Ready);
                self.set_gate(name, verb == PodVerb::Ready).await?;
            }
            PodVerb::Terminate => {
                // It stays as ready as it was.
                let deleted = api.delete(name, &DeleteParams::default()).await;
                deleted.map_err(|error| infra(&what)(&error))?;
            }
            PodVerb::Stop => {
                self.ready.remove(name);
                // Its servers end with their agent; the kubelet takes its time for the rest.
                self.pods.remove(name);
                let at_once = DeleteParams::default().grace_period(0);
                let deleted = api.delete(name, &at_once).await;
                deleted.map_err(|error| infra(&what)(&error))?;
            }
            PodVerb::Deafen => {
                let stopped = self.agent(name)?.stop_serving(None, true).await;
                stopped.map_err(|error| infra(&what)(&error))?;
            }
            PodVerb::Resume => {}
        }
        self.stage.pod_changed(name, verb);
        self.follow().await
    }

    async fn start_candidate(&mut self) -> Result<Option<Duration>, ClusterError> {
        self.instances = self.look_at_instances().await?;
        if let Some(gateway) = &self.site.gateway {
            self.unanswered = gateway.seen().await?.report.upstream_errors;
        }
        if self.site.plans.instances.is_none() {
            return Ok(None);
        }
        for node in self.stage.nodes() {
            let problem = match self.instances.get(&node.name) {
                None => "has no Pod of the candidate".to_owned(),
                Some(one) if !one.ready => {
                    format!("has {}, which is not Ready {}", one.pod, one.reason)
                }
                Some(_) => continue,
            };
            let real = self.names.real_node(&node.name).unwrap_or_default();
            return Err(ClusterError::Candidate(format!("node {real} {problem}")));
        }
        Ok(None)
    }

    fn has_candidate(&self) -> bool {
        !self.candidate.is_null()
    }

    fn running_on(&self, nodes: &[String]) -> Vec<(String, String)> {
        let on = self
            .instances
            .iter()
            .filter(|(node, _)| nodes.contains(node));
        on.filter(|(_, instance)| instance.ready)
            .map(|(node, instance)| (node.clone(), instance.uid.clone()))
            .collect()
    }

    async fn unexpected_exit(&mut self) -> Result<Option<String>, ClusterError> {
        if let Some(gateway) = &self.site.gateway {
            let unanswered = gateway.seen().await?.report.upstream_errors - self.unanswered;
            if unanswered > 0 {
                return Err(ClusterError::Infra(format!(
                    "the API server itself did not answer {unanswered} requests of the candidate"
                )));
            }
        }
        let now = self.look_at_instances().await?;
        let logical = |node: &str| self.names.real_node(node).unwrap_or_default().to_owned();
        let ended = self.instances.iter().find_map(|(node, old)| {
            let real = logical(node);
            match now.get(node) {
                None => Some(format!("{} on {real} is gone", old.pod)),
                Some(new) if new.uid != old.uid => {
                    Some(format!("{} on {real} was replaced by {}", old.pod, new.pod))
                }
                Some(new) if new.restarts > old.restarts => Some(format!(
                    "{} on {real} ended by itself and was started again {}",
                    old.pod, new.reason
                )),
                Some(_) => None,
            }
        });
        self.instances = now;
        Ok(ended)
    }

    async fn logs(&self) -> Vec<(String, String)> {
        let Some(place) = &self.site.plans.instances else {
            return Vec::new();
        };
        let api: Api<KubePod> = Api::namespaced(self.site.client.clone(), &place.namespace);
        let params = LogParams {
            since_seconds: Some(self.began.elapsed().as_secs() as i64 + 1),
            limit_bytes: Some(4 << 20),
            container: place.container.clone(),
            ..LogParams::default()
        };
        let logs = self.instances.iter().map(|(node, instance)| {
            let (api, params) = (&api, &params);
            async move {
                let log = api.logs(&instance.pod, params).await;
                let text = log.unwrap_or_else(|error| format!("not to be had: {error}\n"));
                (node.clone(), text)
            }
        });
        join_all(logs).await
    }

    async fn complaint(&self) -> Option<String> {
        let logs = self.logs().await;
        let mut lines = logs.iter().flat_map(|(_, log)| log.lines().rev());
        lines
            .find(|line| Severity::of(line).is_some())
            .map(str::to_owned)
    }

    async fn pause_candidate(&mut self, nodes: &[String], on: bool) -> Result<usize, ClusterError> {
        let signal = if on { Signal::SIGSTOP } else { Signal::SIGCONT };
        let mut followed = 0;
        for node in nodes {
            if on {
                self.undo.stopped.insert(node.clone());
            }
            followed += usize::from(self.signal_node(node, signal).await?);
            if !on {
                self.undo.stopped.remove(node);
            }
        }
        Ok(followed)
    }

    async fn keep_candidate_down(&mut self, nodes: &[String]) -> Result<(), ClusterError> {
        let Some(place) = self.site.plans.instances.clone() else {
            return Err(not_here("restarts of the candidate"));
        };
        let api: Api<KubePod> = Api::namespaced(self.site.client.clone(), &place.namespace);
        for node in nodes {
            let real = self.names.real_node(node).unwrap_or_default().to_owned();
            self.undo.down.insert(real.clone());
            self.keep_off(&real, true).await?;
        }
        let until = Instant::now() + REPLACED;
        for node in nodes {
            let real = self.names.real_node(node).unwrap_or_default();
            let params = ListParams::default()
                .labels(&place.selector)
                .fields(&format!("spec.nodeName={real}"));
            loop {
                let list = api.list(&params).await;
                let list = list.map_err(|error| infra("list the candidate's Pods")(&error))?;
                // One that terminates still does its work.
                if list.items.is_empty() {
                    break;
                }
                if Instant::now() > until {
                    return Err(ClusterError::Infra(format!(
                        "the candidate is still on {real} {REPLACED:?} after its DaemonSet was kept away from there"
                    )));
                }
                // A poll of a condition with a deadline.
                sleep(POLL).await;
            }
            self.instances.remove(node);
        }
        Ok(())
    }

    async fn end_candidate(
        &mut self,
        nodes: &[String],
        signal: Signal,
    ) -> Result<(), ClusterError> {
        let Some(place) = &self.site.plans.instances else {
            return Err(not_here("restarts of the candidate"));
        };
        let api: Api<KubePod> = Api::namespaced(self.site.client.clone(), &place.namespace);
        let params = match signal {
            Signal::SIGKILL => DeleteParams::default().grace_period(0),
            _ => DeleteParams::default(),
        };
        let on = self
            .instances
            .iter()
            .filter(|(node, _)| nodes.contains(node));
        try_join_all(on.map(|(_, instance)| async {
            let deleted = api.delete(&instance.pod, &params).await;
            deleted.map_err(|error| infra("a Pod of the candidate cannot be deleted")(&error))
        }))
        .await?;
        Ok(())
    }

    async fn restart_candidate(&mut self, nodes: &[String]) -> Result<(), ClusterError> {
        // Whoever deleted the Pods did not start others: that is the DaemonSet's work.
        let former = self.instances.clone();
        for node in nodes {
            let real = self.names.real_node(node).unwrap_or_default().to_owned();
            if self.undo.down.contains(&real) {
                self.keep_off(&real, false).await?;
                self.undo.down.remove(&real);
            }
        }
        self.replaced(nodes, &former).await
    }

    async fn clean_up(&mut self, _: &[String]) -> Result<(), ClusterError> {
        Err(not_here("the candidate's own cleanup"))
    }

    async fn break_api(&mut self, switch: Switch) -> Result<usize, ClusterError> {
        self.breaking().await?.throw(switch).await
    }

    async fn api_report(&self) -> Result<FaultReport, ClusterError> {
        Ok(self.gateway()?.seen().await?.report)
    }

    async fn touch(&mut self, kind: &str, times: usize) -> Result<usize, ClusterError> {
        // A real API server writes nothing where nothing changes, so it is an annotation that does.
        let mut found = Vec::new();
        if kind == "Node" {
            for node in self.stage.nodes() {
                let real = self.names.real_node(&node.name).unwrap_or_default();
                self.undo.touched.insert(real.to_owned());
                let api: Api<DynamicObject> =
                    Api::all_with(self.site.client.clone(), &resource("v1", kind));
                found.push((api, real.to_owned()));
            }
        } else {
            let version = crate::scenario::api_version_of(kind);
            for namespace in self.names.real_namespaces() {
                for object in self.site.list(version, kind, namespace).await? {
                    let (_, _, name) = reference(&object);
                    found.push((self.api(version, kind, namespace), name));
                }
            }
        }
        if found.is_empty() {
            return Ok(0);
        }
        for (time, (api, name)) in (0..times).zip(found.iter().cycle()) {
            let patch =
                json!({"metadata": {"annotations": {manifests::TOUCHED: time.to_string()}}});
            let patch = kube::api::Patch::Merge(patch);
            let patched = api.patch(name, &PatchParams::default(), &patch).await;
            patched.map_err(|error| infra(&format!("touch {kind} {name}"))(&error))?;
        }
        self.follow().await?;
        Ok(times)
    }

    async fn stop_api(&mut self) -> Result<usize, ClusterError> {
        self.breaking().await?.stop().await
    }

    async fn start_api(&mut self) -> Result<(), ClusterError> {
        self.gateway()?.resume().await
    }

    async fn add_address(&self, _: &str, _: &str) -> Result<(), ClusterError> {
        Err(not_here("addresses in the network of the nodes"))
    }

    async fn tool(&self, _: &str, _: &[&str]) -> Option<Vec<u8>> {
        // Our image holds one program. The agents read rules and conntrack without tools.
        None
    }

    async fn write_evidence(&self, directory: &Path) -> std::io::Result<()> {
        let directory = directory.join("cluster");
        std::fs::create_dir_all(&directory)?;
        for namespace in self.names.real_namespaces() {
            let mut all = Vec::new();
            let events = [("v1", "Event")];
            for (version, kind) in COPIED.into_iter().chain(events) {
                match self.site.list(version, kind, namespace).await {
                    Ok(list) => all.extend(list),
                    Err(error) => all.push(json!({"kind": kind, "error": error.to_string()})),
                }
            }
            let text = serde_json::to_vec_pretty(&all)?;
            std::fs::write(directory.join(format!("{namespace}.json")), text)?;
        }
        Ok(())
    }

    async fn shutdown(mut self: Box<Self>) {
        self.take_down().await;
        drop(self.claim);
    }
}

/// Such steps are skipped before the run, see [`super::fit`].
fn not_here(what: &str) -> ClusterError {
    ClusterError::Infra(format!("there are no {what} in a real cluster"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_name_the_cluster_s_nodes() {
        let names = Names::new("run-1", [], [("node1".to_owned(), "t-worker".to_owned())]);
        let patch = |kind: PatchType, patch: Value| Patch {
            api_version: None,
            kind: "EndpointSlice".into(),
            namespace: None,
            name: "web".into(),
            patch_type: kind,
            subresource: None,
            patch,
        };
        for (kind, logical, real) in [
            (
                PatchType::Merge,
                json!({"endpoints": [{"nodeName": "node1"}]}),
                json!({"endpoints": [{"nodeName": "t-worker"}]}),
            ),
            (
                PatchType::Json,
                json!([
                    {"op": "replace", "path": "/endpoints", "value": [{"nodeName": "node1"}]},
                    {"op": "add", "path": "/endpoints/-", "value": {"nodeName": "node1"}},
                    {"op": "replace", "path": "/endpoints/0/nodeName", "value": "node1"},
                    {"op": "replace", "path": "/endpoints/0/addresses", "value": ["node1"]},
                    {"op": "remove", "path": "/endpoints/1"},
                ]),
                json!([
                    {"op": "replace", "path": "/endpoints", "value": [{"nodeName": "t-worker"}]},
                    {"op": "add", "path": "/endpoints/-", "value": {"nodeName": "t-worker"}},
                    {"op": "replace", "path": "/endpoints/0/nodeName", "value": "t-worker"},
                    {"op": "replace", "path": "/endpoints/0/addresses", "value": ["node1"]},
                    {"op": "remove", "path": "/endpoints/1"},
                ]),
            ),
        ] {
            assert_eq!(real_patch(&names, &patch(kind, logical)), real);
        }
    }
}
