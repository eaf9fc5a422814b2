//! `cluster:` of a candidate manifest: how a proxy is installed on a real cluster.
//!
//! ```yaml
//! cluster:
//!   removeFirst:
//!     - installed: kube-proxy
//!   manifests:
//!     - file: install.yaml
//!     - command: [helm, template, my-proxy, ./chart, "--set=apiServer=$(API_SERVER_HOST):$(API_SERVER_PORT)"]
//!   ready:
//!     - daemonSet: kube-system/my-proxy
//!     - http: {port: 10256, path: /healthz}
//!   pods: {namespace: kube-system, selector: app=my-proxy}
//! ```
//!
//! This is the text only: it becomes objects in [`super::install`].

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

use super::manifest::{FileSpec, HttpReady};
use crate::scenario::Span;

/// A candidate as objects of a Kubernetes cluster. An empty section installs nothing.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterSpec {
    /// kube-proxy's mode in clusters that the harness makes: `none` for every candidate but kube-proxy itself.
    pub proxy_mode: ProxyMode,
    /// Whether clusters that the harness makes come without kind's own network plugin, because the candidate is one.
    #[serde(rename = "disableDefaultCNI")]
    pub disable_default_cni: bool,
    /// Patches of kubeadm's configuration in clusters that the harness makes, each a YAML document.
    pub kubeadm_config_patches: Vec<String>,
    /// Feature gates of Kubernetes in clusters that the harness makes.
    pub feature_gates: BTreeMap<String, bool>,
    /// What is removed before anything is installed. What is not there is no mistake.
    pub remove_first: Vec<Removal>,
    /// Images that are loaded into the nodes. Others are pulled by the nodes themselves.
    pub images: Vec<ImageSource>,
    /// Files written into `$(DIR)` before the commands run; variables are substituted.
    pub files: Vec<FileSpec>,
    /// Where the objects come from, in the order of their installation.
    pub manifests: Vec<ManifestSource>,
    /// Candidates that are installed before this one's own objects: names of built-in ones, or paths of manifests from this one's directory.
    pub also: Vec<String>,
    /// When the candidate counts as installed. All conditions must hold.
    pub ready: Vec<Condition>,
    /// Until when they must; 5 min by default, since nodes may have to pull images.
    pub deadline: Option<Span>,
    /// Which Pods are the candidate: their logs are evidence, and deleting one is its restart.
    pub pods: Option<PodsSpec>,
}

/// How long an installation may take if nothing else is said: nodes pull hundreds of megabytes before the first Pod starts.
pub const DEADLINE: Duration = Duration::from_mins(5);

/// kube-proxy's modes, as kind's `kubeProxyMode` has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ProxyMode {
    /// No kube-proxy.
    #[default]
    None,
    /// iptables.
    Iptables,
    /// nftables.
    Nftables,
    /// IPVS.
    Ipvs,
}

impl ProxyMode {
    /// The name in kind's configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::Ipvs => "ipvs",
        }
    }
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something that is removed first: one object, or all of something that clusters come with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "RawRemoval")]
#[schemars(with = "RawRemoval")]
pub enum Removal {
    /// One object.
    Object(ObjectRef),
    /// All that belongs to something known.
    Installed(Installed),
}

/// What clusters come with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Installed {
    /// kube-proxy as kubeadm installs it.
    KubeProxy,
    /// kindnet as kind installs it.
    Kindnet,
}

/// Identity of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    /// `v1`, `apps/v1`...
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace; nothing for objects of the cluster.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

impl ObjectRef {
    fn new(api_version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Self {
        Self {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: namespace.map(Into::into),
            name: name.into(),
        }
    }
}

impl Removal {
    /// The objects, in the order in which they are removed.
    pub fn objects(&self) -> Vec<ObjectRef> {
        let system = Some("kube-system");
        match self {
            Self::Object(object) => vec![object.clone()],
            // The ServiceAccount and its bindings stay: nothing runs with them, and others use the role.
            Self::Installed(Installed::KubeProxy) => vec![
                ObjectRef::new("apps/v1", "DaemonSet", system, "kube-proxy"),
                ObjectRef::new("v1", "ConfigMap", system, "kube-proxy"),
            ],
            Self::Installed(Installed::Kindnet) => {
                vec![ObjectRef::new("apps/v1", "DaemonSet", system, "kindnet")]
            }
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawRemoval {
    /// Something that clusters come with; stands alone.
    installed: Option<Installed>,
    /// `v1`, `apps/v1`...
    api_version: Option<String>,
    /// Kind.
    kind: Option<String>,
    /// Namespace; without it, an object of the cluster.
    namespace: Option<String>,
    /// Name.
    name: Option<String>,
}

impl TryFrom<RawRemoval> for Removal {
    type Error = &'static str;

    fn try_from(raw: RawRemoval) -> Result<Self, Self::Error> {
        match raw {
            RawRemoval {
                installed: Some(installed),
                api_version: None,
                kind: None,
                namespace: None,
                name: None,
            } => Ok(Self::Installed(installed)),
            RawRemoval {
                installed: None,
                api_version: Some(api_version),
                kind: Some(kind),
                namespace,
                name: Some(name),
            } => Ok(Self::Object(ObjectRef {
                api_version,
                kind,
                namespace,
                name,
            })),
            _ => Err(
                "say either 'installed: kube-proxy' (or kindnet), or apiVersion, kind and name of an object, and its namespace if it has one",
            ),
        }
    }
}

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ImageSource {
    /// Path of a Docker or OCI archive, from the manifest's directory; `$(ENV:NAME)` is substituted.
    Archive(String),
    /// One of the harness's own images, which it makes itself. Its reference is `$(IMAGE:NAME)`.
    Name(OwnImage),
}

/// Images that the harness makes out of its own programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OwnImage {
    /// The agent.
    Probe,
    /// The reference proxy.
    ReferenceProxy,
}

impl OwnImage {
    /// The name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::ReferenceProxy => "reference-proxy",
        }
    }
}

/// Where objects come from, and which variables are substituted in them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "RawSource")]
#[schemars(with = "RawSource")]
pub struct ManifestSource {
    /// Where the YAML is.
    pub origin: Origin,
    /// What is substituted in it.
    pub variables: VariablePolicy,
}

/// Where YAML comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(String),
    /// A directory for `kubectl kustomize`, or `kustomize build` where there is no kubectl.
    Kustomize(String),
    /// Standard output of a program.
    Command(Vec<String>),
    /// The manifest itself.
    Inline(String),
}

/// Kubernetes has `$(NAME)` too: in the command, arguments and environment of containers. So the YAML of others needs care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum VariablePolicy {
    /// Every `$(` is a variable of the harness, and an unknown one is a mistake; `$$(NAME)` is written for the `$(NAME)` of Kubernetes.
    /// What `inline` has by default.
    Strict,
    /// Variables that the harness knows are substituted, everything else is left alone. What `file`, `kustomize` and `command` have by default.
    Known,
    /// Nothing is substituted.
    None,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawSource {
    /// A file with YAML documents, from the manifest's directory.
    file: Option<String>,
    /// A directory for `kubectl kustomize` (or `kustomize build`), from the manifest's directory.
    kustomize: Option<String>,
    /// A program, run in the manifest's directory, that prints YAML documents, such as `helm template`.
    command: Option<Vec<String>>,
    /// YAML documents.
    inline: Option<String>,
    /// What is substituted in the YAML: `strict`, `known` or `none`. Paths and arguments are always strict.
    variables: Option<VariablePolicy>,
}

impl TryFrom<RawSource> for ManifestSource {
    type Error = &'static str;

    fn try_from(raw: RawSource) -> Result<Self, Self::Error> {
        let (origin, default) = match (raw.file, raw.kustomize, raw.command, raw.inline) {
            (Some(file), None, None, None) => (Origin::File(file), VariablePolicy::Known),
            (None, Some(directory), None, None) => {
                (Origin::Kustomize(directory), VariablePolicy::Known)
            }
            (None, None, Some(command), None) => {
                if command.is_empty() {
                    return Err("'command' names no program");
                }
                (Origin::Command(command), VariablePolicy::Known)
            }
            (None, None, None, Some(text)) => (Origin::Inline(text), VariablePolicy::Strict),
            _ => return Err("say exactly one of 'file', 'kustomize', 'command' and 'inline'"),
        };
        Ok(Self {
            origin,
            variables: raw.variables.unwrap_or(default),
        })
    }
}

/// A condition of readiness.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Condition {
    /// `NAMESPACE/NAME` of a DaemonSet that is rolled out to every node it wants, of which there must be one.
    DaemonSet(NamespacedName),
    /// `NAMESPACE/NAME` of a Deployment that is rolled out.
    Deployment(NamespacedName),
    /// An HTTP GET on each node, at its loopback address, answers 200.
    Http(HttpReady),
}

/// `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct NamespacedName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl FromStr for NamespacedName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => Ok(Self {
                namespace: namespace.into(),
                name: name.into(),
            }),
            _ => Err(format!("'{text}' is not NAMESPACE/NAME of an object")),
        }
    }
}

impl TryFrom<String> for NamespacedName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl JsonSchema for NamespacedName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NamespacedName".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[a-z0-9][a-z0-9.-]*/[a-z0-9][a-z0-9.-]*$",
            "description": "NAMESPACE/NAME of an object."
        })
    }
}

/// Whether it looks like an object's name (RFC 1123 subdomain); the API server has the last word.
fn is_name(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(text.chars().next())
        && edge(text.chars().next_back())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c))
}

/// The Pods that are the candidate: at most one on each node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodsSpec {
    /// Their namespace.
    pub namespace: String,
    /// A label selector, in the words of kubectl: `k8s-app=kube-proxy`.
    pub selector: String,
    /// The container that does a proxy's job, for its log; the first one without this.
    #[serde(default)]
    pub container: Option<String>,
}
