//! The provider `netns`: a world of namespaces, the embedded API, and the candidate as a process on each node.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use apiserver::{ApiServer, Config, FaultReport, Serving, Switch};
use async_trait::async_trait;
use futures::future::try_join_all;
use netlab::World;
use nix::sys::signal::Signal;
use probe::{client::Agent, proto};
use serde_json::Value;
use tokio::time::sleep;

use super::{
    Cluster, ClusterError, Settings, infra,
    instance::{Instance, InstanceError},
};
use crate::{
    candidate::Candidate,
    nemesis::state,
    scenario::{
        Case, Stage, StageError,
        doc::{self, ObjectRef, Patch, Pod, PodVerb},
    },
};

/// A running cluster.
pub struct NetnsCluster {
    world: World,
    stage: Stage,
    candidate: Candidate,
    instances: Vec<Instance>,
    /// Nothing while the API server is away.
    serving: Option<Serving>,
    capture: bool,
    /// Whether the case is about SCTP, so that its pods serve it.
    sctp: bool,
    /// From the start of the build until network, API and pods were there.
    pub build: Duration,
    /// From the start of the candidate until it was ready everywhere.
    pub ready: Duration,
}

impl From<InstanceError> for ClusterError {
    fn from(error: InstanceError) -> Self {
        match error {
            InstanceError::Candidate(text) => Self::Candidate(text),
            InstanceError::World(text) => Self::Infra(text),
        }
    }
}

impl From<StageError> for ClusterError {
    fn from(error: StageError) -> Self {
        Self::Infra(error.to_string())
    }
}

/// Memory per node for captured packets; the newest are kept.
const CAPTURE_BYTES: u64 = 8 << 20;
/// A tool that prints evidence may take this long; evidence is not worth hanging for.
const TOOL: Duration = Duration::from_secs(10);
/// Bytes kept of each packet: all headers and the probes' own header.
const CAPTURE_SNAPLEN: u32 = 256;

impl NetnsCluster {
    /// Builds the world of a case with API, objects and pods; the candidate is not started yet.
    pub async fn build(
        case: &Case,
        candidate: &Candidate,
        settings: Settings,
    ) -> Result<Self, ClusterError> {
        let started = std::time::Instant::now();
        let topology = case.scenario.topology.lab();
        let world = World::build(&topology, &netlab::Options::default())
            .await
            .map_err(|error| infra("the world cannot be built")(&error))?;
        let server = case.plan.api_server();
        let api = ApiServer::new(Config {
            server_addresses: vec![server.ip()],
            ..Config::default()
        })
        .map_err(|error| infra("the API server cannot be made")(&error))?;
        let listener = world
            .listen_tcp("fabric", server)
            .await
            .map_err(|error| infra("the API server cannot listen")(&error))?;
        let serving = api
            .serve(listener)
            .map_err(|error| infra("the API server cannot serve")(&error))?;
        let stage = Stage::new(api, case.plan.clone(), &case.scenario)
            .map_err(|error| infra("the nodes and pods")(&error))?;
        stage
            .apply_all(&case.scenario.objects)
            .map_err(|error| infra("the scenario's objects")(&error))?;
        let instances = case
            .scenario
            .topology
            .nodes
            .iter()
            .map(|node| {
                let addresses = case
                    .plan
                    .node(&node.name)
                    .expect("the plan knows every node");
                let user = format!("system:node-proxier:{}", node.name);
                let join = |cidrs: Vec<ipnet::IpNet>| {
                    let cidrs: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
                    cidrs.join(",")
                };
                let variables = [
                    (
                        "KUBECONFIG",
                        format!("/run/candidate/{}/kubeconfig", node.name),
                    ),
                    ("KUBECONFIG_CONTENT", stage.api().kubeconfig(&user, server)),
                    ("NODE_NAME", node.name.clone()),
                    ("NODE_IP", addresses.ipv4.to_string()),
                    ("NODE_IPS", format!("{},{}", addresses.ipv4, addresses.ipv6)),
                    ("CLUSTER_CIDR", join(case.plan.cluster_cidrs())),
                    ("SERVICE_CIDR", join(case.plan.service_cidrs())),
                    (
                        "NODEPORT_ADDRESSES",
                        case.scenario.proxy.nodeport_addresses.join(","),
                    ),
                ];
                let limited = !case.scenario.proxy.nodeport_addresses.is_empty();
                Instance::new(&node.name, variables.into_iter().collect(), limited)
            })
            .collect();
        let mut cluster = Self {
            world,
            stage,
            candidate: candidate.clone(),
            instances,
            serving: Some(serving),
            capture: settings.capture,
            sctp: case.needs_sctp(),
            build: Duration::ZERO,
            ready: Duration::ZERO,
        };
        let serving: Vec<Pod> = cluster
            .stage
            .pods()
            .filter(|pod| pod.listening)
            .map(|pod| pod.spec.clone())
            .collect();
        try_join_all(serving.iter().map(|pod| cluster.serve(pod))).await?;
        if cluster.capture {
            try_join_all(cluster.stage.nodes().iter().map(|node| async {
                let agent = cluster.agent(&node.name)?;
                agent
                    .capture_start(CAPTURE_BYTES, CAPTURE_SNAPLEN)
                    .await
                    .map_err(|error| infra("the capture cannot be started")(&error))
            }))
            .await?;
        }
        cluster.build = started.elapsed();
        Ok(cluster)
    }

    /// Starts the candidate on every node and waits until it is ready everywhere.
    pub async fn start_candidate(&mut self) -> Result<(), ClusterError> {
        let started = std::time::Instant::now();
        self.launch_candidate().await?;
        self.wait_ready(None).await?;
        self.ready = started.elapsed();
        Ok(())
    }

    /// Starts the candidate on every node without waiting for anything but that its processes run.
    pub async fn launch_candidate(&mut self) -> Result<(), ClusterError> {
        for instance in &mut self.instances {
            instance.start(&self.world, &self.candidate).await?;
        }
        Ok(())
    }

    async fn wait_ready(&mut self, only: Option<&str>) -> Result<(), ClusterError> {
        self.until_ready(only).await?;
        for instance in &mut self.instances {
            if only.is_none_or(|node| node == instance.node) {
                instance.is_ready();
            }
        }
        Ok(())
    }

    async fn until_ready(&self, only: Option<&str>) -> Result<(), ClusterError> {
        let waits = self
            .instances
            .iter()
            .filter(|instance| only.is_none_or(|node| node == instance.node) && instance.is_up())
            .map(|instance| instance.ready(&self.world, &self.candidate));
        try_join_all(waits).await?;
        let kinds: Vec<&str> = self
            .candidate
            .process()
            .ready
            .watching
            .iter()
            .map(String::as_str)
            .collect();
        if kinds.is_empty() {
            return Ok(());
        }
        let deadline = self.candidate.process().ready.deadline();
        for instance in self
            .instances
            .iter()
            .filter(|instance| instance.is_up() && only.is_none_or(|node| node == instance.node))
        {
            let user = format!("system:node-proxier:{}", instance.node);
            let watching = self
                .stage
                .api()
                .wait_until_watching(&user, &kinds, deadline);
            tokio::select! {
                watching = watching => watching.map_err(|error| {
                    ClusterError::Candidate(format!("{user} does not watch {kinds:?}: {error}"))
                })?,
                status = instance.ended() => {
                    return Err(instance.ended_too_early(&status).into());
                }
            };
        }
        Ok(())
    }

    /// The API objects.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// The API objects, to change them.
    pub fn stage_mut(&mut self) -> &mut Stage {
        &mut self.stage
    }

    /// The namespaces.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Whether there is a program to run; the null candidate has none.
    pub fn has_candidate(&self) -> bool {
        self.candidate.binary.is_some()
    }

    /// Whether the candidate declares not to have the feature.
    pub fn lacks(&self, feature: crate::scenario::doc::Feature) -> bool {
        self.candidate.lacks(feature).is_some()
    }

    /// The candidate.
    pub fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    /// The candidate's instances.
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// The agent of a pod, node or client.
    pub fn agent(&self, who: &str) -> Result<Agent, ClusterError> {
        self.world
            .agent(who)
            .ok_or_else(|| ClusterError::Infra(format!("'{who}' has no agent")))
    }

    /// The API server goes away: its port is closed and its connections are reset. Answers how many there were.
    pub async fn stop_api(&mut self) -> usize {
        match self.serving.take() {
            Some(serving) => serving.close().await,
            None => 0,
        }
    }

    /// The API server is back.
    pub async fn start_api(&mut self) -> Result<(), ClusterError> {
        let listener = self
            .world
            .listen_tcp("fabric", self.api_address())
            .await
            .map_err(|error| infra("the API server cannot listen again")(&error))?;
        let serving = self.stage.api().serve(listener);
        self.serving =
            Some(serving.map_err(|error| infra("the API server cannot serve again")(&error))?);
        Ok(())
    }

    /// Makes a pod's servers listen.
    pub async fn serve(&self, pod: &Pod) -> Result<(), ClusterError> {
        let listeners = listeners(pod, self.sctp);
        self.agent(&pod.name)?
            .serve(listeners)
            .await
            .map_err(|error| {
                ClusterError::Infra(format!(
                    "the servers of pod {} cannot listen: {error}",
                    pod.name
                ))
            })
    }

    /// Makes a pod's servers go deaf.
    pub async fn deafen(&self, pod: &str) -> Result<(), ClusterError> {
        self.agent(pod)?
            .stop_serving(None, true)
            .await
            .map_err(|error| {
                ClusterError::Infra(format!(
                    "the servers of pod {pod} cannot be stopped: {error}"
                ))
            })
    }

    /// Removes a pod's namespace.
    pub async fn remove_pod(&self, pod: &str) -> Result<(), ClusterError> {
        self.world.remove_pod(pod).await.map_err(|error| {
            ClusterError::Infra(format!(
                "the namespace of pod {pod} cannot be removed: {error}"
            ))
        })
    }

    /// Ends the candidate on some nodes.
    pub async fn end_candidate(
        &mut self,
        nodes: &[String],
        signal: Signal,
    ) -> Result<(), ClusterError> {
        for instance in self
            .instances
            .iter_mut()
            .filter(|instance| nodes.contains(&instance.node))
        {
            instance.end(signal).await?;
        }
        Ok(())
    }

    /// Lets the candidate's own command remove what it left in the kernel of some nodes.
    pub async fn clean_up(&mut self, nodes: &[String]) -> Result<(), ClusterError> {
        for instance in self
            .instances
            .iter_mut()
            .filter(|instance| nodes.contains(&instance.node))
        {
            instance.clean_up(&self.world, &self.candidate).await?;
        }
        Ok(())
    }

    /// Starts the candidate on some nodes and waits until it is ready there.
    pub async fn restart_candidate(&mut self, nodes: &[String]) -> Result<(), ClusterError> {
        for instance in self
            .instances
            .iter_mut()
            .filter(|instance| nodes.contains(&instance.node))
        {
            instance.start(&self.world, &self.candidate).await?;
        }
        for node in nodes {
            self.wait_ready(Some(node)).await?;
        }
        Ok(())
    }

    /// An instance that should run and does not.
    pub fn unexpected_exit(&self) -> Option<String> {
        self.instances.iter().find_map(|instance| {
            let status = instance.exited()?;
            Some(format!(
                "the candidate on {} ended by itself ({status}); its last lines:\n{}",
                instance.node,
                instance.log.last_lines(10)
            ))
        })
    }

    /// Address of the API server inside the world.
    pub fn api_address(&self) -> SocketAddr {
        self.stage.plan().api_server()
    }

    /// Takes everything down.
    pub async fn shutdown(self) {
        self.world.shutdown().await;
    }
}

/// The kernel stops a process within microseconds; this bounds a machine that has come to a stop.
const STOPPED: Duration = Duration::from_secs(10);

/// How many of the processes the kernel calls stopped (or not stopped), once all are or after a while.
async fn settled(pids: &[u32], stopped: bool) -> usize {
    let until = Instant::now() + STOPPED;
    loop {
        let count = pids
            .iter()
            .filter(|pid| state(**pid).is_some_and(|state| (state == 'T') == stopped))
            .count();
        if count == pids.len() || Instant::now() > until {
            return count;
        }
        // A poll of a condition with a deadline.
        sleep(Duration::from_millis(1)).await;
    }
}

/// What a pod listens at: each of its ports at every address of both families.
pub(super) fn listeners(pod: &Pod, sctp: bool) -> Vec<proto::Listener> {
    let any: [std::net::IpAddr; 2] = [
        std::net::Ipv4Addr::UNSPECIFIED.into(),
        std::net::Ipv6Addr::UNSPECIFIED.into(),
    ];
    pod.serves()
        .iter()
        // A kernel without SCTP skips the cases that are about it; a pod of other cases may name such a port all the same.
        .filter(|port| port.protocol != doc::Protocol::Sctp || sctp)
        .flat_map(|port| {
            any.map(|addr| proto::Listener {
                id: format!("{}/{:?}/{}/{addr}", pod.name, port.protocol, port.port),
                identity: pod.name.clone(),
                protocol: protocol(port.protocol),
                addr,
                port: port.port,
            })
        })
        .collect()
}

/// The protocol as the probes name it.
pub fn protocol(protocol: crate::scenario::doc::Protocol) -> proto::Protocol {
    match protocol {
        crate::scenario::doc::Protocol::Tcp => proto::Protocol::Tcp,
        crate::scenario::doc::Protocol::Udp => proto::Protocol::Udp,
        crate::scenario::doc::Protocol::Sctp => proto::Protocol::Sctp,
    }
}

#[async_trait]
impl Cluster for NetnsCluster {
    fn stage(&self) -> &Stage {
        &self.stage
    }

    fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    fn netns(&self) -> Option<&NetnsCluster> {
        Some(self)
    }

    fn built_in(&self) -> Duration {
        self.build
    }

    fn agent(&self, who: &str) -> Result<Agent, ClusterError> {
        NetnsCluster::agent(self, who)
    }

    async fn apply(&mut self, objects: &[Value]) -> Result<(), ClusterError> {
        Ok(self.stage.apply_all(objects)?)
    }

    async fn patch(&mut self, patch: &Patch) -> Result<(), ClusterError> {
        Ok(self.stage.patch(patch)?)
    }

    async fn delete(&mut self, objects: &[ObjectRef]) -> Result<(), ClusterError> {
        Ok(objects
            .iter()
            .try_for_each(|object| self.stage.delete(object))?)
    }

    async fn prepare_pod(&mut self, name: &str, verb: PodVerb) -> Result<(), ClusterError> {
        if !matches!(verb, PodVerb::Start | PodVerb::Resume) {
            return Ok(());
        }
        let pod = self.stage.pod(name).map(|pod| pod.spec.clone());
        let pod = pod.ok_or_else(|| ClusterError::Infra(format!("there is no pod {name}")))?;
        self.serve(&pod).await
    }

    async fn pod(&mut self, name: &str, verb: PodVerb) -> Result<(), ClusterError> {
        self.stage.pod_verb(name, verb)?;
        match verb {
            PodVerb::Stop => self.remove_pod(name).await,
            PodVerb::Deafen => self.deafen(name).await,
            _ => Ok(()),
        }
    }

    async fn start_candidate(&mut self) -> Result<Option<Duration>, ClusterError> {
        NetnsCluster::start_candidate(self).await?;
        Ok(Some(self.ready))
    }

    fn has_candidate(&self) -> bool {
        NetnsCluster::has_candidate(self)
    }

    fn instances(&self) -> &[Instance] {
        &self.instances
    }

    fn running_on(&self, nodes: &[String]) -> Vec<(String, String)> {
        let runs = |instance: &&Instance| instance.is_up() && instance.exited().is_none();
        let on = self.instances.iter().filter(|i| nodes.contains(&i.node));
        on.filter(runs)
            .filter_map(|instance| {
                let pid = instance.process()?.pid();
                Some((instance.node.clone(), pid.to_string()))
            })
            .collect()
    }

    async fn unexpected_exit(&mut self) -> Result<Option<String>, ClusterError> {
        Ok(NetnsCluster::unexpected_exit(self))
    }

    async fn logs(&self) -> Vec<(String, String)> {
        let instances = self.instances.iter();
        instances
            .map(|instance| (instance.node.clone(), instance.log.text()))
            .collect()
    }

    async fn complaint(&self) -> Option<String> {
        let mut instances = self.instances.iter();
        instances.find_map(|instance| instance.log.last_complaint())
    }

    async fn pause_candidate(&mut self, nodes: &[String], on: bool) -> Result<usize, ClusterError> {
        let signal = if on { Signal::SIGSTOP } else { Signal::SIGCONT };
        let mut pids = Vec::new();
        for instance in self.instances.iter().filter(|i| nodes.contains(&i.node)) {
            instance.signal(signal).await?;
            pids.extend(instance.process().map(|process| process.pid()));
        }
        Ok(settled(&pids, on).await)
    }

    async fn keep_candidate_down(&mut self, nodes: &[String]) -> Result<(), ClusterError> {
        NetnsCluster::end_candidate(self, nodes, Signal::SIGTERM).await
    }

    async fn end_candidate(
        &mut self,
        nodes: &[String],
        signal: Signal,
    ) -> Result<(), ClusterError> {
        NetnsCluster::end_candidate(self, nodes, signal).await
    }

    async fn restart_candidate(&mut self, nodes: &[String]) -> Result<(), ClusterError> {
        NetnsCluster::restart_candidate(self, nodes).await
    }

    async fn clean_up(&mut self, nodes: &[String]) -> Result<(), ClusterError> {
        NetnsCluster::clean_up(self, nodes).await
    }

    async fn break_api(&mut self, switch: Switch) -> Result<usize, ClusterError> {
        Ok(self.stage.api().faults().throw(&switch))
    }

    async fn api_report(&self) -> Result<FaultReport, ClusterError> {
        Ok(self.stage.api().faults().report())
    }

    async fn touch(&mut self, kind: &str, times: usize) -> Result<usize, ClusterError> {
        Ok(self.stage.api().noop_updates(kind, times))
    }

    async fn stop_api(&mut self) -> Result<usize, ClusterError> {
        Ok(NetnsCluster::stop_api(self).await)
    }

    async fn start_api(&mut self) -> Result<(), ClusterError> {
        NetnsCluster::start_api(self).await
    }

    async fn add_address(&self, node: &str, address: &str) -> Result<(), ClusterError> {
        let address = address
            .parse()
            .map_err(|error| infra("the address")(&error))?;
        let added = self.world.add_address(node, address).await;
        added.map_err(|error| infra("the address cannot be added")(&error))
    }

    async fn tool(&self, node: &str, argv: &[&str]) -> Option<Vec<u8>> {
        crate::candidate::find_on_path(argv.first()?)?;
        let output = self.world.exec(node, argv, Vec::new(), TOOL).await;
        output.ok().map(|output| output.stdout)
    }

    async fn shutdown(self: Box<Self>) {
        NetnsCluster::shutdown(*self).await;
    }
}
