//! `--provider kubeconfig`: a cluster that is somebody's, with or without a candidate of ours.
//!
//! It is asked for as little as can be: [`RIGHTS`] is the whole list, and what of it is missing is said before anything is made. Nothing is
//! installed that was not asked for, everything of ours is in namespaces that begin with the run's name, and at the end they are gone.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::{BoxFuture, try_join_all};
use ipnet::IpNet;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use super::{
    super::{ClusterError, infra},
    Instances, Plans, Site,
    fit::Facts,
    install::{self, Installed},
    opening::{Forerunners, Opening, Told},
    residue::Residue,
    site::typed,
};
use crate::candidate::{Candidate, ClusterVariables, cluster};

/// A right that is used: group, resource, subresource, verbs, and what for. All are cluster-wide, because the namespaces are made for the run.
type Right = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static str,
);

/// Everything that is asked of a cluster where nothing is installed.
pub const RIGHTS: [Right; 9] = [
    ("", "nodes", "", &["list"], "their addresses and pod ranges"),
    (
        "",
        "namespaces",
        "",
        &["create", "list", "delete"],
        "one per case and one for the agents",
    ),
    (
        "",
        "pods",
        "",
        &[
            "create",
            "get",
            "list",
            "delete",
            "deletecollection",
            "patch",
        ],
        "endpoints, clients and agents",
    ),
    ("", "pods", "exec", &["create"], "the agents in them"),
    ("", "pods", "status", &["patch"], "their readiness"),
    (
        "",
        "services",
        "",
        &["create", "get", "list", "update", "patch", "delete"],
        "what is tested",
    ),
    (
        "",
        "services",
        "status",
        &["patch"],
        "LoadBalancer addresses, as a cloud writes them",
    ),
    (
        "discovery.k8s.io",
        "endpointslices",
        "",
        &["create", "get", "list", "update", "patch", "delete"],
        "slices that a scenario writes itself",
    ),
    ("", "events", "", &["list"], "evidence"),
];

/// Words in the name of a context, a cluster or a server that nobody tests in.
const PRODUCTION: [&str; 4] = ["prod", "production", "live", "prd"];

/// What the command line says about the cluster.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The kubeconfig; the one that `kubectl` would use otherwise.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it; the current one otherwise.
    pub context: Option<String>,
    /// Whether it may look like production.
    pub trusted: bool,
    /// Our image, as the nodes can have it.
    pub image: Option<String>,
    /// Where the candidate's Pods are.
    pub instances: Option<Instances>,
    /// Whether the candidate is installed for the run.
    pub install: bool,
    /// Whether nodes and the candidate may be disturbed.
    pub disruptive: bool,
}

/// A cluster that was found.
pub struct Existing {
    /// A client belongs to the runtime that it was made in, and a run has one of its own.
    config: Config,
    context: String,
    options: Options,
    run: String,
    facts: Facts,
    /// Name and port under which nodes may reach the API server.
    server: (String, u16),
    state: Mutex<State>,
}

/// What there is to be taken away.
#[derive(Default)]
struct State {
    installed: Option<Installed>,
    /// The cluster, and what its nodes had before the candidate was installed.
    before: Option<(Arc<Site>, Residue)>,
}

impl std::fmt::Debug for Existing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Existing");
        shown
            .field("context", &self.context)
            .field("facts", &self.facts);
        shown.finish_non_exhaustive()
    }
}

/// Why a cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExistingError {
    /// The command line or the kubeconfig.
    #[error("{0}")]
    Usage(String),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl Existing {
    /// Looks at the cluster without changing anything.
    ///
    /// # Errors
    /// A kubeconfig or context that is not there or not to be used, and a cluster that does not answer or forbids what is needed.
    pub async fn find(options: Options, run: String) -> Result<Self, ExistingError> {
        let usage = |error: String| ExistingError::Usage(error);
        let kubeconfig = match &options.kubeconfig {
            Some(path) => Kubeconfig::read_from(path)
                .map_err(|error| usage(format!("--kubeconfig {}: {error}", path.display())))?,
            None => Kubeconfig::read().map_err(|error| {
                usage(format!(
                    "there is no kubeconfig to use: {error}; name one with --kubeconfig"
                ))
            })?,
        };
        let context = options.context.clone();
        let context = context.or_else(|| kubeconfig.current_context.clone());
        let Some(context) = context.filter(|name| !name.is_empty()) else {
            return Err(usage(
                "the kubeconfig has no current context; name one with --context".into(),
            ));
        };
        let known: Vec<&str> = kubeconfig
            .contexts
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        let Some(found) = kubeconfig.contexts.iter().find(|one| one.name == context) else {
            return Err(usage(format!(
                "--context {context}: the kubeconfig has no such context, but {}",
                known.join(", ")
            )));
        };
        let cluster = found.context.as_ref().map(|one| one.cluster.clone());
        let cluster = cluster.unwrap_or_default();
        let server = kubeconfig
            .clusters
            .iter()
            .find(|one| one.name == cluster)
            .and_then(|one| one.cluster.as_ref()?.server.clone())
            .unwrap_or_default();
        for name in [&context, &cluster, &server] {
            if looks_like_production(name) && !options.trusted {
                return Err(usage(format!(
                    "context {context}: '{name}' looks like production, and this makes Services, takes node ports and sends packets to them; if it is none, say --i-know-what-i-do"
                )));
            }
        }
        let selected = KubeConfigOptions {
            context: Some(context.clone()),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(kubeconfig, &selected).await;
        let config = config.map_err(|error| usage(format!("context {context}: {error}")))?;
        let client = Client::try_from(config.clone())
            .map_err(|error| usage(format!("context {context}: {error}")))?;
        if let Err(error) = client.apiserver_version().await {
            return Err(infra(&format!(
                "the API server of context {context} ({server}) does not answer"
            ))(&error)
            .into());
        }
        may(&client).await?;
        let instances = options.instances.is_some() || options.install;
        let facts = Site::survey(&client, instances, options.disruptive).await?;
        let url = config.cluster_url.clone();
        let host = url
            .host()
            .unwrap_or_default()
            .trim_matches(|c| "[]".contains(c));
        let server = (host.to_owned(), url.port_u16().unwrap_or(443));
        Ok(Self {
            server,
            state: Mutex::default(),
            config,
            context,
            options,
            run,
            facts,
        })
    }
}

impl Existing {
    fn state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn install(&self, candidate: &Candidate, told: &Told) -> Result<(), ClusterError> {
        let client = self.client()?;
        let variables = self.variables(&client).await?;
        let (installed, result) =
            Installed::install(client, &self.run, candidate, &variables, false, told).await;
        self.state(|state| state.installed = installed);
        result
    }

    /// What the candidate's manifest may ask for.
    async fn variables(&self, client: &Client) -> Result<ClusterVariables, ClusterError> {
        let version = client.apiserver_version().await;
        let version = version.map_err(|error| infra("the version of the API server")(&error))?;
        let (nodes, service_cidrs) = Site::ranges(client).await?;
        let loopback = self.server.0 == "localhost"
            || self
                .server
                .0
                .parse()
                .is_ok_and(|ip: IpAddr| ip.is_loopback());
        let (host, port) = if loopback {
            // The way from here to the API server is a tunnel. A node of the control plane has one that nodes can use.
            let node = nodes.iter().find(|node| node.is_control_plane());
            let node = node.ok_or_else(|| {
                ClusterError::Infra(
                    "the kubeconfig names a loopback address, and no node of the control plane is there to be named in its place".into(),
                )
            })?;
            (node.addresses.ipv4.to_string(), 6443)
        } else {
            self.server.clone()
        };
        let image = self.options.image.clone().unwrap_or_default();
        let images = [cluster::OwnImage::Probe, cluster::OwnImage::ReferenceProxy];
        let ranges = nodes.iter().flat_map(|node| {
            [
                node.addresses.pod_cidr4.into(),
                node.addresses.pod_cidr6.into(),
            ]
        });
        // A family that the cluster does not have has one unspecified address.
        let ranges = ranges.filter(|range: &IpNet| !range.addr().is_unspecified());
        Ok(ClusterVariables {
            api_server_host: host,
            api_server_port: port,
            cluster_cidrs: install::hull(ranges),
            service_cidrs,
            cluster_name: self.context.clone(),
            kubernetes_version: version.git_version,
            images: images.map(|own| (own, image.clone())).into(),
        })
    }

    fn client(&self) -> Result<Client, ClusterError> {
        Client::try_from(self.config.clone())
            .map_err(|error| infra(&format!("context {}", self.context))(&error))
    }
}

/// Looks whether the nodes have in their kernels what they had before. Nothing is taken away: they are somebody's.
async fn untouched(site: &Site, before: &Residue) -> Result<(), String> {
    let now = Residue::look(site)
        .await
        .map_err(|error| error.to_string())?;
    match now.beyond(before) {
        None => Ok(()),
        Some(left) => Err(format!(
            "{left}; the candidate's own cleanup removes that, or a restart of the nodes"
        )),
    }
}

/// Removes everything of a run, and says what is left.
pub(super) async fn gone(client: &Client, run: &str) -> Result<(), String> {
    let left = Site::remove(client, run).await;
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("still there: {}", left.join(", ")))
    }
}

/// Whether a name has a word that says production.
fn looks_like_production(name: &str) -> bool {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| PRODUCTION.contains(&word.to_ascii_lowercase().as_str()))
}

/// Whether everything that is needed is allowed.
async fn may(client: &Client) -> Result<(), ClusterError> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let asked = RIGHTS
        .iter()
        .flat_map(|right| right.3.iter().map(move |verb| (right, *verb)));
    let answers = try_join_all(
        asked.map(|((group, resource, subresource, _, what), verb)| {
            let api = &api;
            async move {
                let mut attributes = json!({"group": group, "resource": resource, "verb": verb});
                if !subresource.is_empty() {
                    attributes["subresource"] = json!(subresource);
                }
                let review: SelfSubjectAccessReview =
                    typed(json!({"spec": {"resourceAttributes": attributes}}))?;
                let answer = api.create(&PostParams::default(), &review).await;
                let answer =
                    answer.map_err(|error| infra("the rights cannot be asked for")(&error))?;
                let name = if subresource.is_empty() {
                    (*resource).to_owned()
                } else {
                    format!("{resource}/{subresource}")
                };
                let allowed = answer.status.is_some_and(|status| status.allowed);
                Ok::<_, ClusterError>((!allowed).then(|| format!("{verb} {name} ({what})")))
            }
        }),
    )
    .await?;
    let missing: Vec<String> = answers.into_iter().flatten().collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(ClusterError::Infra(format!(
            "the user of this context may not: {}; 'harness cluster rbac' prints a ClusterRole with all that is needed",
            missing.join(", ")
        )))
    }
}

/// The ClusterRole that grants [`RIGHTS`], a ServiceAccount in a namespace, and what binds them.
pub fn rbac(namespace: &str) -> [serde_json::Value; 3] {
    let rules: Vec<serde_json::Value> = RIGHTS
        .iter()
        .map(|(group, resource, subresource, verbs, _)| {
            let resource = if subresource.is_empty() {
                (*resource).to_owned()
            } else {
                format!("{resource}/{subresource}")
            };
            json!({"apiGroups": [group], "resources": [resource], "verbs": verbs})
        })
        .collect();
    [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": NAME},
            "rules": rules,
        }),
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": NAME, "namespace": namespace},
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": NAME},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}],
        }),
    ]
}

/// Of everything that [`rbac`] makes.
const NAME: &str = "harness";

impl Opening for Existing {
    fn name(&self) -> &'static str {
        "kubeconfig"
    }

    fn facts(&self) -> Facts {
        self.facts.clone()
    }

    fn takes_forerunners(&self, _: &Candidate) -> Result<(), String> {
        Err("the cluster is somebody's, and may have a proxy".into())
    }

    fn open<'a>(
        &'a self,
        candidate: &'a Candidate,
        _: &'a dyn Forerunners,
        told: &'a Told,
    ) -> BoxFuture<'a, Result<Arc<Site>, ClusterError>> {
        Box::pin(async move {
            let given = self.options.instances.clone();
            let plans = Plans {
                provider: "kubeconfig",
                run: self.run.clone(),
                image: self.options.image.clone().unwrap_or_default(),
                instances: given.or_else(|| install::instances(candidate)),
                disruptive: self.options.disruptive,
                // Its nodes are not ours to label.
                installed: false,
                ours: false,
            };
            let waits = |what: &str| told.waits(what);
            let site = Site::open(self.client()?, plans, &waits);
            let site = told.step("start an agent on each node", site).await?;
            let site = Arc::new(site);
            if self.options.install {
                let before = Residue::look(&site).await?;
                self.state(|state| state.before = Some((site.clone(), before)));
                let install = self.install(candidate, told);
                told.step("install the candidate", install).await?;
            }
            if self.options.install && candidate.installation().has_http() {
                let answers = install::answers(&site, candidate);
                told.step("wait until the candidate answers", answers)
                    .await?;
            }
            Ok(site)
        })
    }

    fn close<'a>(
        &'a self,
        _site: Option<Arc<Site>>,
        _failed: bool,
        told: &'a Told,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let State { installed, before } = self.state(std::mem::take);
            if let Some(installed) = installed {
                let removed = installed.remove(told);
                let _ = told.step("remove the candidate", removed).await;
                if let Some((site, before)) = before {
                    let looked = untouched(&site, &before);
                    let what = "look for what the candidate left on the nodes";
                    let _ = told.step(what, looked).await;
                }
            }
            let gone = async {
                let client = self.client().map_err(|error| error.to_string())?;
                gone(&client, &self.run).await
            };
            let _ = told.step("remove everything of this run", gone).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn production_is_a_word_of_its_own() {
        for (name, is) in [
            ("prod", true),
            ("eu-prod-1", true),
            ("arn:aws:eks:eu:1:cluster/Production", true),
            ("https://api.live.example.org:6443", true),
            ("kind-product-tests", false),
            ("reproduction", false),
            ("olive", false),
            ("staging", false),
        ] {
            assert_eq!(looks_like_production(name), is, "{name}");
        }
    }

    #[test]
    fn the_cluster_role_is_the_list() {
        insta::assert_yaml_snapshot!(rbac("tools"));
    }
}
