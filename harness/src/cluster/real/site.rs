//! A real cluster as all attempts share it: its client, its nodes, where the candidate runs, and which case may run beside which.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::future::{BoxFuture, try_join_all};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, PostParams},
};
use netlab::plan::{NodeAddresses, OutsideAddresses};
use probe::client::Agent;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    super::{Cluster, ClusterError, Provider, Settings, infra},
    agents::Held,
    claims::Register,
    cluster::RealCluster,
    fit::{self, ApiWay, Facts},
    gateway::Gateway,
    manifests, pods,
};
use crate::{candidate::Candidate, scenario::Case};

/// Between two looks at something that the API could also tell us of; each is one request.
pub(super) const POLL: Duration = Duration::from_millis(100);

/// Where the candidate's Pods are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instances {
    /// Their namespace.
    pub namespace: String,
    /// Their labels.
    pub selector: String,
    /// The container that does a proxy's job; the only one, or the first, without this.
    pub container: Option<String>,
}

/// A client beyond the nodes.
pub trait Outside: std::fmt::Debug + Send + Sync {
    /// Starts an agent there.
    fn agent(&self) -> BoxFuture<'_, Result<Held, ClusterError>>;

    /// Its addresses, by the name of the node where what it sends to frontends arrives.
    fn addresses(&self) -> &BTreeMap<String, OutsideAddresses>;
}

/// What is known of a cluster before it is looked at.
#[derive(Clone, Debug, Default)]
pub struct Plans {
    /// As `--provider` names it.
    pub provider: &'static str,
    /// A name of this run that is no other's: lower-case letters, digits and dashes, at most 20. All namespaces begin with it.
    pub run: String,
    /// Our image, as the nodes know it.
    pub image: String,
    /// Where the candidate's Pods are, if somebody said so.
    pub instances: Option<Instances>,
    /// Whether nodes and the candidate may be disturbed.
    pub disruptive: bool,
    /// Whether the candidate's DaemonSet is of our installing.
    pub installed: bool,
    /// Whether the nodes are ours, so that their kernels can be set as those of a world of namespaces are.
    pub ours: bool,
}

/// A node of the cluster.
#[derive(Clone, Debug)]
pub struct SiteNode {
    /// Its name in the cluster.
    pub name: String,
    /// Its addresses, under the name that scenarios use.
    pub addresses: NodeAddresses,
    /// Its Node object, under that name.
    pub object: Value,
}

impl SiteNode {
    /// Whether it is labelled as a node of the control plane.
    pub fn is_control_plane(&self) -> bool {
        is_control_plane(&self.object)
    }
}

fn is_control_plane(node: &Value) -> bool {
    let labels = node["metadata"]["labels"].as_object();
    labels.is_some_and(|labels| labels.contains_key("node-role.kubernetes.io/control-plane"))
}

/// A cluster that attempts share.
#[derive(Clone)]
pub struct Site {
    pub(super) client: Client,
    pub(super) plans: Plans,
    pub(super) nodes: Vec<SiteNode>,
    pub(super) service_cidrs: Vec<IpNet>,
    pub(super) outside: Option<Arc<dyn Outside>>,
    /// The candidate's way to the API server, where it is ours.
    pub(super) gateway: Option<Arc<Gateway>>,
    pub(super) register: Arc<Register>,
    /// Namespaces made so far.
    made: Arc<AtomicU64>,
    /// Whether the network gives what pods send to other nodes the address of the pod's node, by family; known from the first attempt that could
    /// tell.
    pub(super) masquerades: Arc<tokio::sync::OnceCell<bool>>,
    /// What the cluster takes to follow a change.
    pub(super) pace: Arc<Pace>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Site");
        shown
            .field("plans", &self.plans)
            .field("nodes", &self.nodes);
        shown.finish_non_exhaustive()
    }
}

/// How long the cluster's controllers took to follow changes.
#[derive(Debug, Default)]
pub struct Pace(Mutex<Vec<Duration>>);

impl Pace {
    /// One more change was followed.
    pub fn took(&self, time: Duration) {
        self.lock().push(time);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The longest of nine of ten; nothing before there is any.
    pub fn p90(&self) -> Option<Duration> {
        let mut all = self.lock().clone();
        all.sort_unstable();
        let at = (all.len() * 9).div_ceil(10).checked_sub(1)?;
        all.get(at).copied()
    }

    /// How much later than in a world of namespaces a candidate may hear of a change: as late again as we do, since its own client of the API is as
    /// late as ours is. An error where that is so long that nothing could be said of anybody.
    pub fn slack(&self) -> Result<Duration, Duration> {
        match self.p90().unwrap_or_default() {
            p90 if p90 > BEARABLE && self.lock().len() >= ENOUGH => Err(p90),
            p90 => Ok(2 * p90),
        }
    }
}

/// A cluster whose controllers need longer for one change of ten is too slow for any verdict: most deadlines of scenarios are shorter.
const BEARABLE: Duration = Duration::from_secs(10);
/// So many changes it has to have followed before that is said of it: one of fewer is no tenth.
const ENOUGH: usize = 10;

impl Site {
    /// Looks at a cluster, and starts an agent's Pod on each of its nodes. `told` hears what is waited for.
    ///
    /// # Errors
    /// [`ClusterError::Infra`], always.
    pub async fn open(
        client: Client,
        plans: Plans,
        told: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Self, ClusterError> {
        told("nodes");
        let nodes = nodes(&client).await?;
        if nodes.is_empty() {
            return Err(ClusterError::Infra(
                "the cluster has no node that is Ready".into(),
            ));
        }
        let service_cidrs = service_cidrs(&client).await?;
        let site = Self {
            client,
            plans,
            nodes,
            service_cidrs,
            outside: None,
            gateway: None,
            register: Arc::default(),
            made: Arc::default(),
            masquerades: Arc::default(),
            pace: Arc::default(),
        };
        told("the namespace of the agents");
        site.make_namespace(&site.plans.run).await?;
        told("an agent on each node");
        let agents = site.nodes.iter().map(|node| {
            manifests::node_agent(
                &node.name,
                &site.plans.run,
                &site.plans.image,
                &site.plans.run,
                site.plans.disruptive,
            )
        });
        site.run_pods(&site.plans.run, agents.collect()).await?;
        if site.plans.ours {
            told("the settings of the nodes");
            try_join_all(site.nodes.iter().map(|node| async {
                let agent = site.node_agent(&node.name).await?;
                unlimited(&agent.handle()).await
            }))
            .await?;
        }
        Ok(site)
    }

    /// With a client beyond the nodes.
    #[must_use]
    pub fn with_outside(mut self, outside: Arc<dyn Outside>) -> Self {
        self.outside = Some(outside);
        self
    }

    /// With the candidate's way to the API server.
    #[must_use]
    pub fn with_gateway(mut self, gateway: Option<Arc<Gateway>>) -> Self {
        self.gateway = gateway;
        self
    }

    /// The same cluster with another candidate in it, whose Pods are there.
    #[must_use]
    pub fn with_instances(&self, instances: Option<Instances>) -> Self {
        Self {
            plans: Plans {
                instances,
                ..self.plans.clone()
            },
            ..self.clone()
        }
    }

    /// The nodes.
    pub fn nodes(&self) -> &[SiteNode] {
        &self.nodes
    }

    /// The ranges of ClusterIPs.
    pub fn service_cidrs(&self) -> &[IpNet] {
        &self.service_cidrs
    }

    /// A client of the API.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How long its controllers take to follow.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// What it has and allows.
    pub fn facts(&self) -> Facts {
        Facts {
            outside: self.outside.is_some(),
            ours: self.plans.ours,
            installed: self.plans.installed,
            api: match self.gateway {
                Some(_) => ApiWay::Gateway,
                None => ApiWay::Foreign,
            },
            ..facts(
                &self.nodes,
                self.plans.instances.is_some(),
                self.plans.disruptive,
            )
        }
    }

    /// A cluster's nodes and the ranges of its ClusterIPs.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn ranges(client: &Client) -> Result<(Vec<SiteNode>, Vec<IpNet>), ClusterError> {
        Ok((nodes(client).await?, service_cidrs(client).await?))
    }

    /// What a cluster has, before anything is made in it.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn survey(
        client: &Client,
        instances: bool,
        disruptive: bool,
    ) -> Result<Facts, ClusterError> {
        Ok(facts(&nodes(client).await?, instances, disruptive))
    }

    /// A name for the namespaces of an attempt.
    pub(super) fn next_prefix(&self) -> String {
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{}-{number}", self.plans.run)
    }

    /// An agent of its own on a node, by the node's name in the cluster.
    pub(super) async fn node_agent(&self, node: &str) -> Result<Held, ClusterError> {
        let pod = manifests::agent_name(node);
        Held::start(&self.client, &self.plans.run, &pod).await
    }

    /// Makes a namespace.
    pub(super) async fn make_namespace(&self, name: &str) -> Result<(), ClusterError> {
        pods::make_namespace(&self.client, name, &self.plans.run).await
    }

    /// Deletes namespaces with all that is in them, and does not wait until they are gone.
    pub(super) async fn drop_namespaces(&self, names: impl Iterator<Item = &str>) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        for name in names {
            if let Err(error) = api.delete(name, &DeleteParams::default()).await {
                tracing::warn!(name, %error, "a namespace could not be deleted");
            }
        }
    }

    /// Makes Pods, and waits until all of them run and have addresses.
    pub(super) async fn run_pods(
        &self,
        namespace: &str,
        all: Vec<Value>,
    ) -> Result<Vec<Value>, ClusterError> {
        pods::run(&self.client, namespace, all).await
    }

    /// The objects of a kind of a namespace, as JSON with their kind.
    pub(super) async fn list(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
    ) -> Result<Vec<Value>, ClusterError> {
        pods::list(&self.client, api_version, kind, namespace).await
    }

    /// Deletes everything of a run and waits until it is gone. Answers what is left.
    pub async fn remove(client: &Client, run: &str) -> Vec<String> {
        Self::remove_labelled(client, &format!("{}={run}", manifests::RUN)).await
    }

    /// The same for every run that there ever was.
    pub async fn remove_all(client: &Client) -> Vec<String> {
        Self::remove_labelled(client, manifests::RUN).await
    }

    async fn remove_labelled(client: &Client, labels: &str) -> Vec<String> {
        let api: Api<Namespace> = Api::all(client.clone());
        let ours = ListParams::default().labels(labels);
        let until = Instant::now() + CLOSED;
        loop {
            let left = match api.list(&ours).await {
                Ok(list) => list.items,
                Err(error) => return vec![format!("the namespaces cannot be listed: {error}")],
            };
            let names: Vec<String> = left
                .iter()
                .filter_map(|one| one.metadata.name.clone())
                .collect();
            if names.is_empty() || Instant::now() > until {
                return names;
            }
            for name in &names {
                // Pods that were terminated with a long grace period would keep the namespace that long.
                let pods: Api<Pod> = Api::namespaced(client.clone(), name);
                let at_once = DeleteParams::default().grace_period(0);
                let _ = pods
                    .delete_collection(&at_once, &ListParams::default())
                    .await;
                let _ = api.delete(name, &DeleteParams::default()).await;
            }
            // A poll of a condition with a deadline.
            sleep(POLL * 5).await;
        }
    }
}

/// Lets a kernel say as often as it is asked that nobody is there; otherwise it says so once a second to each destination, and a scenario that asks
/// more often takes that for silence.
pub(super) async fn unlimited(agent: &Agent) -> Result<(), ClusterError> {
    for (path, value, required) in [
        ("ipv4/icmp_ratelimit", "0", true),
        ("ipv6/icmp/ratelimit", "0", true),
        // One budget for the whole machine in older kernels, and then not to be seen in a network namespace.
        ("ipv4/icmp_msgs_per_sec", "1000000", false),
        ("ipv4/icmp_msgs_burst", "100000", false),
    ] {
        if let Err(error) = agent.sysctl(path, value).await
            && required
        {
            return Err(infra("a kernel's setting")(&error));
        }
    }
    Ok(())
}

/// Namespaces of many Pods take tens of seconds to go away.
const CLOSED: Duration = Duration::from_secs(120);

fn facts(nodes: &[SiteNode], instances: bool, disruptive: bool) -> Facts {
    let addresses = || nodes.iter().map(|node| &node.addresses);
    Facts {
        nodes: nodes.len(),
        ipv4: addresses().all(|one| !one.ipv4.is_unspecified()),
        ipv6: addresses().all(|one| !one.ipv6.is_unspecified()),
        outside: false,
        instances,
        disruptive,
        ..Facts::default()
    }
}

/// Reads an object of ours as its type.
pub(super) fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ClusterError> {
    serde_json::from_value(value).map_err(|error| infra("an object of ours")(&error))
}

/// The resource of a kind that scenarios and we use.
pub(super) fn resource(api_version: &str, kind: &str) -> kube::core::ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = kube::core::GroupVersionKind::gvk(group, version, kind);
    // `Endpoints` is its own plural.
    if kind == "Endpoints" {
        return kube::core::ApiResource::from_gvk_with_plural(&gvk, "endpoints");
    }
    kube::core::ApiResource::from_gvk(&gvk)
}

/// The nodes that are Ready, workers first, each under the name that scenarios use: `node1`, `node2`, and so on.
async fn nodes(client: &Client) -> Result<Vec<SiteNode>, ClusterError> {
    let api: Api<Node> = Api::all(client.clone());
    let list = api.list(&ListParams::default()).await;
    let list = list.map_err(|error| infra("list Nodes")(&error))?;
    let mut all: Vec<Value> = list
        .items
        .into_iter()
        .filter_map(|node| {
            let mut value = serde_json::to_value(node).ok()?;
            value["apiVersion"] = json!("v1");
            value["kind"] = json!("Node");
            super::settle::is_ready(&value).then_some(value)
        })
        .collect();
    all.sort_by_key(|node| {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        (is_control_plane(node), name.len(), name.to_owned())
    });
    all.into_iter()
        .zip(1_u8..)
        .map(|(object, index)| site_node(object, index))
        .collect()
}

fn site_node(mut object: Value, index: u8) -> Result<SiteNode, ClusterError> {
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let logical = format!("node{index}");
    let addresses = object["status"]["addresses"].as_array();
    let internal: Vec<IpAddr> = addresses
        .into_iter()
        .flatten()
        .filter(|address| address["type"] == "InternalIP")
        .filter_map(|address| address["address"].as_str()?.parse().ok())
        .collect();
    let cidrs = object["spec"]["podCIDRs"].as_array();
    let cidrs: Vec<IpNet> = cidrs
        .into_iter()
        .flatten()
        .filter_map(|cidr| cidr.as_str()?.parse().ok())
        .collect();
    let ipv4 = internal.iter().find_map(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    });
    let ipv6 = internal.iter().find_map(|ip| match ip {
        IpAddr::V6(ip) => Some(*ip),
        IpAddr::V4(_) => None,
    });
    if ipv4.is_none() && ipv6.is_none() {
        return Err(ClusterError::Infra(format!(
            "Node {name} has no InternalIP"
        )));
    }
    let addresses = NodeAddresses {
        name: logical.clone(),
        index,
        zone: None,
        // Unspecified: the cluster does not have the family.
        ipv4: ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED),
        ipv6: ipv6.unwrap_or(Ipv6Addr::UNSPECIFIED),
        pod_cidr4: cidrs
            .iter()
            .find_map(|cidr| match cidr {
                IpNet::V4(cidr) => Some(*cidr),
                IpNet::V6(_) => None,
            })
            .unwrap_or(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 32)),
        pod_cidr6: cidrs
            .iter()
            .find_map(|cidr| match cidr {
                IpNet::V6(cidr) => Some(*cidr),
                IpNet::V4(_) => None,
            })
            .unwrap_or(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128)),
        extra: BTreeMap::new(),
    };
    super::names::Names::new("", [], [(logical, name.clone())]).to_logical(&mut object);
    Ok(SiteNode {
        name,
        addresses,
        object,
    })
}

/// The ranges that ClusterIPs are taken from: those of the ServiceCIDR objects (KEP-1880), which a user may need no right to see, or what the API
/// server says when it refuses an address outside of them.
async fn service_cidrs(client: &Client) -> Result<Vec<IpNet>, ClusterError> {
    let api: Api<DynamicObject> = Api::all_with(
        client.clone(),
        &resource("networking.k8s.io/v1", "ServiceCIDR"),
    );
    if let Ok(list) = api.list(&ListParams::default()).await {
        let found: Vec<IpNet> = list
            .items
            .iter()
            .filter_map(|item| item.data["spec"]["cidrs"].as_array())
            .flatten()
            .filter_map(|cidr| cidr.as_str()?.parse().ok())
            .collect();
        if !found.is_empty() {
            return Ok(sorted(found));
        }
    }
    let services: Api<k8s_openapi::api::core::v1::Service> =
        Api::namespaced(client.clone(), "default");
    let impossible = typed(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"generateName": "harness-"},
        "spec": {"clusterIP": "192.0.2.1", "ports": [{"port": 80}]},
    }))?;
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let refused = match services.create(&dry, &impossible).await {
        Err(kube::Error::Api(status)) => status.message.clone(),
        Err(error) => return Err(infra("the range of ClusterIPs")(&error)),
        Ok(_) => String::new(),
    };
    let found: Vec<IpNet> = refused
        .split(|c: char| c.is_whitespace() || c == ',' || c == '"')
        .filter_map(|word| {
            word.trim_matches(|c: char| ".()[]".contains(c))
                .parse()
                .ok()
        })
        .collect();
    if found.is_empty() {
        return Err(ClusterError::Infra(format!(
            "the range of ClusterIPs cannot be found out: the API server says '{refused}'"
        )));
    }
    Ok(sorted(found))
}

fn sorted(mut cidrs: Vec<IpNet>) -> Vec<IpNet> {
    cidrs.sort_by_key(|cidr| cidr.addr().is_ipv6());
    cidrs
}

#[async_trait]
impl Provider for Arc<Site> {
    fn name(&self) -> &'static str {
        self.plans.provider
    }

    fn cannot(&self, case: &Case) -> Option<String> {
        fit::cannot(case, &self.facts())
    }

    async fn build(
        &self,
        case: &Arc<Case>,
        candidate: &Candidate,
        settings: Settings,
    ) -> Result<(Arc<Case>, Box<dyn Cluster>), ClusterError> {
        let (case, cluster) = RealCluster::build(self, case, candidate, settings).await?;
        Ok((case, Box::new(cluster)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_gives_time_until_it_is_too_slow() {
        let pace = Pace::default();
        assert_eq!(pace.slack(), Ok(Duration::ZERO));
        // The first change after a cluster was made says little.
        pace.took(Duration::from_secs(12));
        assert_eq!(pace.slack(), Ok(Duration::from_secs(24)));
        let pace = Pace::default();
        for seconds in 1..=9 {
            pace.took(Duration::from_secs(seconds));
        }
        assert_eq!(pace.slack(), Ok(Duration::from_secs(18)));
        // One of ten does not count, two do.
        pace.took(Duration::from_secs(50));
        assert_eq!(pace.slack(), Ok(Duration::from_secs(18)));
        pace.took(Duration::from_secs(50));
        assert_eq!(pace.slack(), Err(Duration::from_secs(50)));
    }
}
