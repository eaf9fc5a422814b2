//! `--provider kind`: a cluster that is made for the run out of containers, or one that an earlier run kept.
//!
//! ```text
//!   create ── load images ── nodes are Ready ── install the candidate ── agents ── a client outside ── it answers
//!   (kind)                   (not before a candidate that is the network plugin)
//! ```
//!
//! The outside client is a container on kind's network. It has one address per node, and sends what it has for frontends from each of them by way of that
//! node: as the router of a world of namespaces does.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, try_join_all};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::core::v1::Node;
use kindlab::{ClusterSpec, Kind, KindError, OutsideSpec, ProxyMode};
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use netlab::{Family, plan::OutsideAddresses};
use probe::{
    client::Agent,
    proto::{ConnectSpec, DumpKind, Listener, Outcome, Protocol},
};
use tokio::time::sleep;

use super::{
    super::{ClusterError, infra},
    Plans, Site, SiteNode, agents, existing,
    fit::{ApiWay, Facts},
    gateway::Gateway,
    image,
    install::{self, Installed},
    opening::{Forerunners, Opening, Told},
    own_proxy::OwnProxy,
    residue::Residue,
    reuse,
    site::{Outside, POLL},
};
use crate::candidate::{Candidate, ClusterVariables, Image, cluster};

/// Nodes become Ready when their network plugin is there, which may have to be pulled.
const NODES_READY: Duration = Duration::from_secs(300);

/// kind's own ranges for clusters of both families, said so that candidates can be told.
const POD_SUBNET: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/56"];
const SERVICE_SUBNET: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];

/// The port at which kubeadm lets the API server listen.
const API_PORT: u16 = 6443;

/// What the command line says about the cluster.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The node image; kind's own otherwise.
    pub image: Option<String>,
    /// Whether the cluster lives on.
    pub keep: bool,
    /// A cluster that lives already.
    pub reuse: Option<String>,
    /// Where logs go.
    pub logs: PathBuf,
    /// Further image archives to load into the nodes.
    pub archives: Vec<PathBuf>,
    /// The workers of a cluster that is made, each with labels of its own; two without any if there are none.
    pub workers: Vec<BTreeMap<String, String>>,
    /// Whether the candidate is something that is installed.
    pub installs: bool,
    /// Whether it asks where the API server is.
    pub asks_for_api: bool,
}

impl Options {
    /// Workers if nothing is said about them.
    const WORKERS: u8 = 2;

    fn number_of_workers(&self) -> u8 {
        match self.workers.len() {
            0 => Self::WORKERS,
            some => u8::try_from(some).unwrap_or(u8::MAX),
        }
    }
}

/// A cluster that is made.
#[derive(Debug)]
pub struct Made {
    options: Options,
    run: String,
    state: Mutex<State>,
}

/// What there is to be taken away.
#[derive(Debug, Default)]
struct State {
    cluster: Option<Arc<kindlab::Cluster>>,
    installed: Option<Installed>,
    /// The candidate's way to the API server.
    gateway: Option<Arc<Gateway>>,
    /// kube-proxy as kind installed it, where it is the candidate.
    own_proxy: Option<OwnProxy>,
    /// It lives as long as the cluster is used.
    outside: Option<Arc<kindlab::Outside>>,
    /// The cluster, and what its nodes had before anything was installed.
    bare: Option<(Arc<Site>, Residue)>,
}

impl From<KindError> for ClusterError {
    fn from(error: KindError) -> Self {
        if error.is_usage() {
            Self::Usage(error.to_string())
        } else {
            Self::Infra(error.to_string())
        }
    }
}

impl Made {
    /// One that is made when the run begins.
    pub fn new(options: Options, run: String) -> Self {
        Self {
            options,
            run,
            state: Mutex::default(),
        }
    }

    fn state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn make(
        &self,
        candidate: &Candidate,
        forerunners: &dyn Forerunners,
        told: &Told,
    ) -> Result<Arc<Site>, ClusterError> {
        let installation = candidate.installation().clone();
        let log = kindlab::CallLog::new();
        let _ = std::fs::create_dir_all(&self.options.logs);
        if let Err(error) = log.tee(&self.options.logs.join("kind-calls.txt")) {
            return Err(infra("the calls of kind cannot be written down")(&error));
        }
        let kind = Kind::find(kindlab::Options {
            log,
            ..kindlab::Options::default()
        });
        let kind = told
            .step("find kind and its container engine", kind)
            .await?;
        for warning in kind.warnings() {
            told.notes(&warning.to_string());
        }
        let cluster = match &self.options.reuse {
            Some(name) => {
                told.step(&format!("open the cluster {name}"), kind.open(name))
                    .await?
            }
            None => {
                let spec = self.spec(&installation);
                let made = told.step("create the cluster", kind.create(spec)).await?;
                if self.options.keep {
                    told.step("mark the cluster to be kept", made.keep())
                        .await?;
                    told.notes(&format!(
                        "the cluster is kept: --reuse {name} uses it again, 'harness clean {name}' deletes it",
                        name = made.name()
                    ));
                }
                made
            }
        };
        let cluster = Arc::new(cluster);
        self.state(|state| state.cluster = Some(cluster.clone()));
        let own = told
            .step("load the images", self.load(&kind, &cluster, &installation))
            .await?;
        let client = client(&cluster).await?;
        let first = match self.options.reuse {
            Some(_) => self.inherit(&client, &installation, told).await?,
            None => None,
        };
        // A candidate that is the network plugin has to be there before anything else can be.
        let networked = !installation.disable_default_cni();
        if networked {
            let ready = nodes_ready(&client, told);
            told.step("wait until the nodes are Ready", ready).await?;
        }
        let mut variables = variables(&cluster, &client, &own).await?;
        let gateway = if self.options.asks_for_api {
            let node = control_plane(&cluster);
            let gateway = Gateway::start(&client, &self.run, &own, &node, API_PORT);
            let gateway = told.step("start a gateway to the API", gateway).await?;
            variables.api_server_port = gateway.port();
            Some(Arc::new(gateway))
        } else {
            None
        };
        self.state(|state| state.gateway = gateway.clone());
        let mut site = None;
        if networked {
            let opened = self
                .site(&cluster, client.clone(), &own, gateway.clone(), told)
                .await?;
            let bare = self.undress(&opened, first, &installation, told);
            bare.await?;
            for known_bad in forerunners.candidates() {
                self.try_out(&opened, &known_bad, forerunners, &variables, told)
                    .await?;
            }
            site = Some(opened);
        }
        if installation.proxy_mode() != cluster::ProxyMode::None && gateway.is_some() {
            let url = variables.api_server_url();
            let direct = ClusterVariables {
                api_server_port: API_PORT,
                ..variables.clone()
            };
            let own = direct.api_server_url();
            let rerouted = OwnProxy::reroute(&client, &self.run, &own, &url, told);
            let rerouted = told
                .step("let kube-proxy go through the gateway", rerouted)
                .await?;
            self.state(|state| state.own_proxy = Some(rerouted));
        }
        if !installation.is_empty() {
            let install = self.put(&client, candidate, &variables, told);
            told.step("install the candidate", install).await?;
        } else if installation.has_workloads() {
            let rolled_out = self.put(&client, candidate, &variables, told);
            told.step("wait until the candidate is rolled out", rolled_out)
                .await?;
        }
        if !networked {
            let ready = nodes_ready(&client, told);
            told.step("wait until the nodes are Ready", ready).await?;
        }
        let site = match site {
            Some(site) => site,
            None => self.site(&cluster, client, &own, gateway, told).await?,
        };
        let site = site.with_instances(install::instances(candidate));
        if installation.has_http() {
            let answers = install::answers(&site, candidate);
            told.step("wait until the candidate answers", answers)
                .await?;
        }
        Ok(Arc::new(site))
    }

    /// The cluster with an agent on each node and a client outside, and no candidate.
    async fn site(
        &self,
        cluster: &kindlab::Cluster,
        client: Client,
        own: &str,
        gateway: Option<Arc<Gateway>>,
        told: &Told,
    ) -> Result<Arc<Site>, ClusterError> {
        let plans = Plans {
            provider: "kind",
            run: self.run.clone(),
            image: own.into(),
            instances: None,
            disruptive: true,
            installed: self.options.installs,
            ours: true,
        };
        let waits = |what: &str| told.waits(what);
        let site = Site::open(client, plans, &waits);
        let site = told.step("start an agent on each node", site).await?;
        let outside = self.outside(cluster, &site, own);
        let outside = told.step("start a client outside", outside).await?;
        let site = site.with_outside(Arc::new(outside));
        Ok(Arc::new(site.with_gateway(gateway)))
    }

    /// Installs a candidate, so that it is removed at the end.
    async fn put(
        &self,
        client: &Client,
        candidate: &Candidate,
        variables: &ClusterVariables,
        told: &Told,
    ) -> Result<(), ClusterError> {
        let (installed, result) =
            Installed::install(client.clone(), &self.run, candidate, variables, true, told).await;
        self.state(|state| state.installed = installed);
        result
    }

    /// Tries a known-bad proxy on the cluster as it is without any, and takes it away again.
    async fn try_out(
        &self,
        site: &Arc<Site>,
        known_bad: &Candidate,
        forerunners: &dyn Forerunners,
        variables: &ClusterVariables,
        told: &Told,
    ) -> Result<(), ClusterError> {
        let name = known_bad.manifest.name.as_str();
        let mut here = known_bad.clone();
        let instances = install::instances(known_bad);
        let with = Arc::new(site.with_instances(instances));
        here.provider = Arc::new(with.clone());
        let tried = async {
            if known_bad.installation().is_empty() {
                forerunners.fly(here).await;
                return Ok(());
            }
            let put = async {
                self.put(site.client(), known_bad, variables, told).await?;
                install::answers(&with, known_bad).await
            };
            match put.await {
                Ok(()) => forerunners.fly(here).await,
                Err(error) => forerunners.grounded(name, &error.to_string()),
            }
            if let Some(installed) = self.state(|state| state.installed.take()) {
                let removed = installed.remove(told).await;
                removed.map_err(|error| infra("the canary cannot be removed")(&error))?;
            }
            match self.state(|state| state.bare.clone()) {
                Some((site, bare)) => bare.clear(&site).await,
                None => Ok(()),
            }
        };
        told.step(&format!("try the canary {name}"), tried).await
    }

    /// Takes away what an earlier run may have left in a cluster, if a harness made it. Answers what its nodes had at first.
    async fn inherit(
        &self,
        client: &Client,
        installation: &crate::candidate::Installation,
        told: &Told,
    ) -> Result<Option<Residue>, ClusterError> {
        reuse::fits(client, installation).await?;
        let Some(first) = Residue::recall(client).await? else {
            told.notes("nobody wrote down what the nodes had before any candidate: what former ones left there is not noticed");
            return Ok(None);
        };
        let removed = async {
            Installed::remove_former(client.clone(), told).await?;
            let left = Site::remove_all(client).await;
            match left.is_empty() {
                true => Ok(()),
                false => Err(ClusterError::Infra(format!(
                    "still there: {}",
                    left.join(", ")
                ))),
            }
        };
        told.step("remove what earlier runs left", removed).await?;
        Ok(Some(first))
    }

    /// Leaves nothing of former candidates in the kernels of the nodes: `first` is what they had at first, of a cluster that is used again.
    async fn undress(
        &self,
        site: &Arc<Site>,
        first: Option<Residue>,
        installation: &crate::candidate::Installation,
        told: &Told,
    ) -> Result<(), ClusterError> {
        // A kube-proxy that comes with the cluster stays in it, and changes its rules all the time.
        let is_bare = installation.proxy_mode() == cluster::ProxyMode::None;
        let bare = match (first, &self.options.reuse) {
            (Some(first), _) if is_bare => {
                let cleared = first.clear(site);
                told.step("look for what former candidates left on the nodes", cleared)
                    .await?;
                first
            }
            (_, Some(_)) => return Ok(()),
            (_, None) => {
                let now = Residue::look(site).await?;
                now.remember(site.client()).await?;
                now
            }
        };
        if is_bare {
            self.state(|state| state.bare = Some((site.clone(), bare)));
        }
        Ok(())
    }

    fn spec(&self, installation: &crate::candidate::Installation) -> ClusterSpec {
        ClusterSpec {
            proxy_mode: match installation.proxy_mode() {
                cluster::ProxyMode::None => ProxyMode::None,
                cluster::ProxyMode::Iptables => ProxyMode::Iptables,
                cluster::ProxyMode::Nftables => ProxyMode::Nftables,
                cluster::ProxyMode::Ipvs => ProxyMode::Ipvs,
            },
            pod_subnet: Some(POD_SUBNET.join(",")),
            service_subnet: Some(SERVICE_SUBNET.join(",")),
            disable_default_cni: installation.disable_default_cni(),
            image: self.options.image.clone(),
            workers: self.options.number_of_workers(),
            worker_labels: self.options.workers.clone(),
            feature_gates: installation.feature_gates(),
            kubeadm_config_patches: installation.kubeadm_config_patches(),
            failure_logs: Some(self.options.logs.join("kind-logs")),
            ..ClusterSpec::default()
        }
    }

    /// Loads our image and those that the candidate brings. Answers the reference of ours.
    async fn load(
        &self,
        kind: &Kind,
        cluster: &kindlab::Cluster,
        installation: &crate::candidate::Installation,
    ) -> Result<String, ClusterError> {
        let place = tempfile::tempdir().map_err(|error| infra("our image")(&error))?;
        let path = place.path().join("harness.tar");
        let written = tokio::task::spawn_blocking(move || image::write(&path)).await;
        let own = written.map_err(|error| infra("our image")(&error))?;
        let own = own.map_err(|error| match error {
            KindError::DiskFull { detail } => ClusterError::Infra(format!(
                "the disk of {} is full, where the harness writes its image: make room, or name another place in TMPDIR; it said: {detail}",
                std::env::temp_dir().display()
            )),
            error => error.into(),
        })?;
        // Whatever is wrong with it, nobody else wrote it.
        let ours = |error: KindError| ClusterError::Infra(error.to_string());
        let loaded = cluster.load_archive(&own.path, &own.reference).await;
        loaded.map_err(ours)?;
        let loaded = kind.load_into_engine(&own.path, &own.reference).await;
        loaded.map_err(ours)?;
        let archives = installation
            .images()?
            .into_iter()
            .filter_map(|image| match image {
                Image::Archive(path) => Some(path),
                Image::Own(_) => None,
            });
        for path in archives.chain(self.options.archives.iter().cloned()) {
            cluster
                .load_foreign_archive(&path)
                .await
                .map_err(|error| match error.is_usage() {
                    true => ClusterError::Usage(format!("{}: {error}", path.display())),
                    false => error.into(),
                })?;
        }
        Ok(own.reference)
    }

    /// A container beside the nodes, with an address and routes per node.
    async fn outside(
        &self,
        cluster: &kindlab::Cluster,
        site: &Site,
        image: &str,
    ) -> Result<Beyond, ClusterError> {
        let spec = OutsideSpec {
            image: image.into(),
            args: vec!["hold".into()],
            ..OutsideSpec::default()
        };
        let container = Arc::new(cluster.outside(spec).await?);
        self.state(|state| state.outside = Some(container.clone()));
        let mut beyond = Beyond {
            container,
            addresses: BTreeMap::new(),
        };
        let (agent, _alive) = beyond.start().await?;
        let what = "the outside client";
        let links = agent.dump(DumpKind::Addresses).await;
        let links = links.map_err(|error| infra(what)(&error))?;
        let (v4, v6) = networks(&links).ok_or_else(|| {
            ClusterError::Infra(format!("{what} has no address of both families: {links}"))
        })?;
        // Other ones in each run: the nodes remember for a while which link-layer address an address had, and a new container has another.
        let block = xxhash_rust::xxh3::xxh3_64(self.run.as_bytes());
        for (node, table) in site.nodes().iter().zip(101_u8..) {
            let place = u64::from(table - 101);
            let own = OutsideAddresses {
                ipv4: nth_from_the_end(v4, block, place),
                ipv6: nth_from_the_end6(v6, block, place),
            };
            for family in Family::BOTH {
                let (from, via) = (own.ip(family), node.addresses.ip(family));
                let bits = if from.is_ipv4() { 32 } else { 128 };
                let added = agent.address_add(LINK, &format!("{from}/{bits}")).await;
                added.map_err(|error| infra(what)(&error))?;
                let to = frontends(site, family);
                // Pods are reached at their own addresses, too, by way of their nodes: the direct path beside what is asked.
                let pods = site.nodes().iter().map(|node| {
                    let addresses = &node.addresses;
                    (
                        addresses.ip(family),
                        vec![addresses.pod_cidr(family).to_string()],
                    )
                });
                for (via, to) in std::iter::once((via, to)).chain(pods) {
                    let routed = agent.routes_from(from, via, LINK, to, table).await;
                    routed.map_err(|error| infra(what)(&error))?;
                }
            }
            beyond.addresses.insert(node.name.clone(), own);
        }
        try_join_all(site.nodes().iter().map(|node| async {
            for family in Family::BOTH {
                let own = beyond.addresses[&node.name].ip(family);
                unchanged(site, node, &agent, own, node.addresses.ip(family)).await?;
            }
            Ok::<_, ClusterError>(())
        }))
        .await?;
        Ok(beyond)
    }
}

/// The way from the outside client to a node, without any Service: whoever changes addresses there would be taken for the candidate. Networks of engines
/// do so where packets of a bridge pass the rules of its host, and one of those says so.
async fn unchanged(
    site: &Site,
    node: &SiteNode,
    outside: &Agent,
    from: IpAddr,
    to: IpAddr,
) -> Result<(), ClusterError> {
    let what = "the way from the client outside to a node";
    let held = site.node_agent(&node.name).await?;
    let server = held.handle();
    let target = SocketAddr::new(to, CONTROL_PORT);
    let listener = Listener {
        id: "control".into(),
        identity: "node".into(),
        protocol: Protocol::Tcp,
        addr: to,
        port: CONTROL_PORT,
    };
    let served = server.serve(vec![listener]).await;
    served.map_err(|error| infra(what)(&error))?;
    let until = Instant::now() + REACHED;
    loop {
        let spec = ConnectSpec {
            source: Some(from),
            timeout_ms: 2_000,
            ..ConnectSpec::new(Protocol::Tcp, target)
        };
        let report = outside.connect(spec).await;
        let report = report.map_err(|error| infra(what)(&error))?;
        match report.attempts.first().map(|one| &one.outcome) {
            Some(Outcome::Answered { peer, .. }) if peer.ip() == from => return Ok(()),
            Some(Outcome::Answered { peer, .. }) => {
                return Err(ClusterError::Infra(format!(
                    "what {from} sends to {target} on {} arrives there from {}: the host of the container engine translates addresses within its own \
                     network; look at its iptables and ip6tables (nat, POSTROUTING) for rules of bridges that are gone",
                    node.name,
                    peer.ip()
                )));
            }
            other if Instant::now() > until => {
                return Err(infra(what)(&format!(
                    "{from} cannot reach {target} on {}: {other:?}",
                    node.name
                )));
            }
            // A poll of a condition with a deadline.
            _ => sleep(POLL).await,
        }
    }
}

/// A port of a node that no scenario, no node port and hardly anybody else uses.
const CONTROL_PORT: u16 = 29_998;

/// An address that is new in a network is known to all within seconds.
const REACHED: Duration = Duration::from_secs(15);

/// The link of a container to the network that it is in.
const LINK: &str = "eth0";

/// The container outside.
#[derive(Debug)]
struct Beyond {
    container: Arc<kindlab::Outside>,
    addresses: BTreeMap<String, OutsideAddresses>,
}

impl Beyond {
    async fn start(&self) -> Result<(Agent, tokio::process::Child), ClusterError> {
        let process = self.container.exec(&[agents::PROGRAM, "agent"])?;
        let agent = Agent::new(tokio::io::join(process.stdout, process.stdin));
        let what = "no agent can be started outside";
        agent
            .align_clock()
            .await
            .map_err(|error| infra(what)(&error))?;
        Ok((agent, process.child))
    }
}

impl Outside for Beyond {
    fn agent(&self) -> BoxFuture<'_, Result<agents::Held, ClusterError>> {
        Box::pin(async {
            let (agent, client) = self.start().await?;
            Ok(agents::Held::new(agent, client))
        })
    }

    fn addresses(&self) -> &BTreeMap<String, OutsideAddresses> {
        &self.addresses
    }
}

/// The networks of the container's link.
fn networks(addresses: &str) -> Option<(Ipv4Net, Ipv6Net)> {
    let words = addresses
        .lines()
        .filter(|line| line.contains(LINK))
        .flat_map(str::split_whitespace);
    let (mut v4, mut v6) = (None, None);
    for word in words {
        match word.parse::<IpNet>() {
            Ok(IpNet::V4(net)) if net.prefix_len() < 32 => v4 = v4.or(Some(net)),
            Ok(IpNet::V6(net)) if net.prefix_len() < 128 && !net.addr().is_unicast_link_local() => {
                v6 = v6.or(Some(net));
            }
            _ => {}
        }
    }
    v4.zip(v6)
}

/// Addresses that a cluster's outside client takes for itself: the engine hands its own out from the beginning of the network.
const BLOCK: u64 = 16;

fn nth_from_the_end(net: Ipv4Net, block: u64, place: u64) -> Ipv4Addr {
    // The upper half of the network, but for the broadcast address.
    let half = (1_u64 << (32 - net.prefix_len())) / 2;
    let blocks = (half / BLOCK).max(1);
    let back = 2 + (block % blocks) * BLOCK + place;
    Ipv4Addr::from_bits(net.broadcast().to_bits() - (back as u32))
}

fn nth_from_the_end6(net: Ipv6Net, block: u64, place: u64) -> Ipv6Addr {
    let last = u128::from(0xffff_0000_u64) + u128::from((block % 4_000) * BLOCK + place);
    Ipv6Addr::from_bits(net.network().to_bits() | last)
}

/// What the outside client sends by way of a node.
fn frontends(site: &Site, family: Family) -> Vec<String> {
    let services = site.service_cidrs().iter();
    let services = services.filter(|cidr| Family::of(cidr.addr()) == family);
    services
        .copied()
        .chain([
            netlab::plan::external_cidr(family),
            netlab::plan::load_balancer_cidr(family),
        ])
        .map(|cidr| cidr.to_string())
        .collect()
}

async fn client(cluster: &kindlab::Cluster) -> Result<Client, ClusterError> {
    let what = "the cluster's kubeconfig";
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig());
    let kubeconfig = kubeconfig.map_err(|error| infra(what)(&error))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let config = config.map_err(|error| infra(what)(&error))?;
    Client::try_from(config).map_err(|error| infra(what)(&error))
}

/// Waits until every node is Ready. kind's own `--wait` waits for the control plane only, and takes a timeout for success.
async fn nodes_ready(client: &Client, told: &Told) -> Result<(), ClusterError> {
    let api: Api<Node> = Api::all(client.clone());
    let until = Instant::now() + NODES_READY;
    loop {
        let behind = match api.list(&ListParams::default()).await {
            Err(error) => format!("the API server does not answer: {error}"),
            Ok(list) => {
                let behind: Vec<String> = list.items.iter().filter_map(not_ready).collect();
                if behind.is_empty() && !list.items.is_empty() {
                    return Ok(());
                }
                behind.join("; ")
            }
        };
        told.waits(&behind);
        if Instant::now() > until {
            return Err(ClusterError::Infra(format!(
                "after {NODES_READY:?} not all nodes are Ready: {behind}"
            )));
        }
        // A poll of a condition with a deadline.
        sleep(POLL * 2).await;
    }
}

/// The node and why it is not Ready.
fn not_ready(node: &Node) -> Option<String> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let conditions = node.status.iter().flat_map(|status| &status.conditions);
    let mut conditions = conditions.flatten();
    match conditions.find(|condition| condition.type_ == "Ready") {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(format!(
            "{name}: {}",
            ready.message.as_deref().unwrap_or("not Ready")
        )),
        None => Some(format!("{name} says nothing yet")),
    }
}

/// The name of the node of the control plane.
fn control_plane(cluster: &kindlab::Cluster) -> String {
    format!("{}-control-plane", cluster.name())
}

/// What the manifests of candidates may ask for.
async fn variables(
    cluster: &kindlab::Cluster,
    client: &Client,
    own: &str,
) -> Result<ClusterVariables, ClusterError> {
    let version = client.apiserver_version().await;
    let version = version.map_err(|error| infra("the version of the API server")(&error))?;
    let ranges = |texts: [&str; 2]| texts.map(|text| text.parse().expect("a range")).into();
    let images = [cluster::OwnImage::Probe, cluster::OwnImage::ReferenceProxy];
    Ok(ClusterVariables {
        // This name is in the certificate, and the nodes can resolve it by the engine's DNS.
        api_server_host: control_plane(cluster),
        api_server_port: API_PORT,
        cluster_cidrs: ranges(POD_SUBNET),
        service_cidrs: ranges(SERVICE_SUBNET),
        cluster_name: cluster.name().into(),
        kubernetes_version: version.git_version,
        images: images.map(|image| (image, own.to_owned())).into(),
    })
}

impl Opening for Made {
    fn name(&self) -> &'static str {
        "kind"
    }

    fn facts(&self) -> Facts {
        Facts {
            nodes: 1 + usize::from(self.options.number_of_workers()),
            ipv4: true,
            ipv6: true,
            outside: true,
            instances: true,
            disruptive: true,
            ours: true,
            installed: self.options.installs,
            api: if self.options.asks_for_api {
                ApiWay::Gateway
            } else {
                ApiWay::Unasked
            },
        }
    }

    fn takes_forerunners(&self, candidate: &Candidate) -> Result<(), String> {
        let installation = candidate.installation();
        if installation.disable_default_cni() {
            return Err("without the candidate, which is the network plugin, no pod starts".into());
        }
        if installation.proxy_mode() != cluster::ProxyMode::None {
            return Err("the candidate comes with the cluster".into());
        }
        Ok(())
    }

    fn open<'a>(
        &'a self,
        candidate: &'a Candidate,
        forerunners: &'a dyn Forerunners,
        told: &'a Told,
    ) -> BoxFuture<'a, Result<Arc<Site>, ClusterError>> {
        Box::pin(self.make(candidate, forerunners, told))
    }

    fn kubeconfig(&self) -> Option<PathBuf> {
        let cluster = self.state(|state| state.cluster.clone())?;
        Some(cluster.kubeconfig())
    }

    fn trouble(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async {
            let cluster = self.state(|state| state.cluster.clone())?;
            cluster
                .check_nodes()
                .await
                .err()
                .map(|error| error.to_string())
        })
    }

    fn close<'a>(
        &'a self,
        site: Option<Arc<Site>>,
        failed: bool,
        told: &'a Told,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let State {
                cluster,
                installed,
                gateway,
                own_proxy,
                outside,
                bare,
            } = std::mem::take(&mut *self.state.lock().unwrap_or_else(PoisonError::into_inner));
            let Some(cluster) = cluster else {
                // Whatever failed before took away what it had made.
                return;
            };
            if failed {
                let directory = self.options.logs.join("kind-logs");
                let exported = cluster.export_logs(&directory);
                let _ = told.step("export the logs of the nodes", exported).await;
            }
            let lives_on = self.options.keep || self.options.reuse.is_some();
            if !lives_on {
                drop((site, outside, bare, gateway));
                let _ = told.step("delete the cluster", cluster.delete()).await;
                return;
            }
            drop(outside);
            if let Some(installed) = installed {
                let removed = installed.remove(told);
                let _ = told.step("remove the candidate", removed).await;
                if let Some((site, bare)) = &bare {
                    let cleared = bare.clear(site);
                    let what = "remove what the candidate left on the nodes";
                    let _ = told.step(what, cleared).await;
                }
            }
            if let Some(own_proxy) = own_proxy {
                let restored = own_proxy.restore(told);
                let _ = told.step("put kube-proxy back", restored).await;
            }
            drop((site, bare, gateway));
            let gone = async {
                let client = client(&cluster).await.map_err(|error| error.to_string())?;
                existing::gone(&client, &self.run).await
            };
            let _ = told.step("remove everything of this run", gone).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outside_client_takes_addresses_that_the_engine_does_not() {
        let text =
            "lo 127.0.0.1/8\neth0 172.18.0.6/16\neth0 fc00:f853:ccd:e793::6/64\neth0 fe80::42/64\n";
        let (v4, v6) = networks(text).unwrap();
        assert_eq!(v4.to_string(), "172.18.0.6/16");
        assert_eq!(v6.to_string(), "fc00:f853:ccd:e793::6/64");
        let mut seen = std::collections::BTreeSet::new();
        for block in [0, 1, 4_095] {
            for place in 0..3 {
                let ip = nth_from_the_end(v4, block, place);
                assert!(
                    v4.contains(&ip) && ip > Ipv4Addr::new(172, 18, 127, 255),
                    "{ip}"
                );
                assert_ne!(ip, v4.broadcast());
                assert!(seen.insert(IpAddr::from(ip)), "{ip}");
                let ip = nth_from_the_end6(v6, block, place);
                assert!(v6.contains(&ip), "{ip}");
                assert!(seen.insert(IpAddr::from(ip)), "{ip}");
            }
        }
        // A small network has few blocks, and all of them are in it.
        let small: Ipv4Net = "10.0.0.0/26".parse().unwrap();
        for block in 0..100 {
            assert!(small.contains(&nth_from_the_end(small, block, 2)));
        }
        assert!(networks("eth0 172.18.0.6/16\n").is_none());
    }
}
