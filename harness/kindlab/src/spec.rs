//! Which cluster is wanted, and kind's configuration for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::error::{KindError, Result};
use crate::version::{NFTABLES, Version};

/// Families of pod and Service addresses; `ipFamily` of kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IpFamily {
    /// Both, with IPv4 first.
    #[default]
    Dual,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

/// What kind installs as the service proxy; `kubeProxyMode` of kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// Nothing. Until a candidate is there, no ClusterIP answers: also not that of `kubernetes.default`, so that CoreDNS is not ready.
    #[default]
    None,
    /// kube-proxy with iptables.
    Iptables,
    /// kube-proxy with nftables; kind v0.23 or newer.
    Nftables,
    /// kube-proxy with IPVS.
    Ipvs,
}

/// A cluster as it is wanted: one control-plane node and some workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSpec {
    /// Its name; `harness-` and six random characters if there is none.
    pub name: Option<String>,
    /// The number of workers, beside one control-plane node.
    pub workers: u8,
    /// Labels of the workers, in their order: `topology.kubernetes.io/zone` for instance. Workers beyond these have none.
    pub worker_labels: Vec<BTreeMap<String, String>>,
    /// Families of pod and Service addresses.
    pub ip_family: IpFamily,
    /// The service proxy that kind installs.
    pub proxy_mode: ProxyMode,
    /// The range of pod addresses; one of each family, with a comma, for dual-stack clusters. kind's own if there is none.
    pub pod_subnet: Option<String>,
    /// The range of Service addresses, likewise.
    pub service_subnet: Option<String>,
    /// No CNI: for candidates that bring one.
    pub disable_default_cni: bool,
    /// The node image; kind's own if there is none.
    pub image: Option<String>,
    /// Feature gates of all components.
    pub feature_gates: BTreeMap<String, bool>,
    /// `--runtime-config` of the API server.
    pub runtime_config: BTreeMap<String, String>,
    /// Merge patches of kubeadm's configuration, as YAML with a `kind`.
    pub kubeadm_config_patches: Vec<String>,
    /// Merge patches of containerd's configuration, as TOML.
    pub containerd_config_patches: Vec<String>,
    /// Where the logs of the nodes go if the creation fails. Without it they are lost, since what failed is deleted.
    pub failure_logs: Option<PathBuf>,
    /// How long the creation may take, from the first container to the last `kubeadm join`: 41 s were measured on a busy machine with two
    /// cores, kubeadm alone waits four minutes for some of its steps, and the image may have to be pulled.
    pub deadline: Duration,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            name: None,
            workers: 2,
            worker_labels: Vec::new(),
            ip_family: IpFamily::default(),
            proxy_mode: ProxyMode::default(),
            pod_subnet: None,
            service_subnet: None,
            disable_default_cni: false,
            image: None,
            feature_gates: BTreeMap::new(),
            runtime_config: BTreeMap::new(),
            kubeadm_config_patches: Vec::new(),
            containerd_config_patches: Vec::new(),
            failure_logs: None,
            deadline: Duration::from_secs(900),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    kind: &'static str,
    api_version: &'static str,
    networking: Networking<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    feature_gates: &'a BTreeMap<String, bool>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    runtime_config: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kubeadm_config_patches: Vec<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    containerd_config_patches: &'a [String],
    nodes: Vec<NodeConfig<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Networking<'a> {
    ip_family: IpFamily,
    kube_proxy_mode: ProxyMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_subnet: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_subnet: Option<&'a str>,
    #[serde(
        rename = "disableDefaultCNI",
        skip_serializing_if = "std::ops::Not::not"
    )]
    disable_default_cni: bool,
}

#[derive(Serialize)]
struct NodeConfig<'a> {
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a BTreeMap<String, String>>,
}

/// From Kubernetes 1.35 on, kubelets refuse cgroup v1 unless they are told not to. Older ones do not mind being told.
const CGROUP_V1: &str =
    "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\nfailCgroupV1: false\n";

impl ClusterSpec {
    /// The number of nodes.
    pub fn nodes(&self) -> u64 {
        1 + u64::from(self.workers)
    }

    /// kind's configuration (`kind.x-k8s.io/v1alpha4`) as YAML. The name and the image are not in it: they are flags.
    ///
    /// On a machine with cgroup v1, the kubelets are told not to refuse it.
    pub fn config(&self, cgroup_v1: bool) -> Result<String> {
        let mut patches: Vec<&str> = self
            .kubeadm_config_patches
            .iter()
            .map(String::as_str)
            .collect();
        if cgroup_v1 && !patches.iter().any(|patch| patch.contains("failCgroupV1")) {
            patches.push(CGROUP_V1);
        }
        let mut nodes = vec![NodeConfig {
            role: "control-plane",
            labels: None,
        }];
        nodes.extend((0..usize::from(self.workers)).map(|index| {
            NodeConfig {
                role: "worker",
                labels: self
                    .worker_labels
                    .get(index)
                    .filter(|labels| !labels.is_empty()),
            }
        }));
        let config = Config {
            kind: "Cluster",
            api_version: "kind.x-k8s.io/v1alpha4",
            networking: Networking {
                ip_family: self.ip_family,
                kube_proxy_mode: self.proxy_mode,
                pod_subnet: self.pod_subnet.as_deref(),
                service_subnet: self.service_subnet.as_deref(),
                disable_default_cni: self.disable_default_cni,
            },
            feature_gates: &self.feature_gates,
            runtime_config: &self.runtime_config,
            kubeadm_config_patches: patches,
            containerd_config_patches: &self.containerd_config_patches,
            nodes,
        };
        serde_saphyr::to_string(&config).map_err(|error| KindError::BadConfig {
            detail: error.to_string(),
        })
    }

    /// What is wrong with it, without asking anybody; and whether this kind is new enough for it.
    pub(crate) fn check(&self, kind: Version) -> Result<()> {
        if let Some(name) = &self.name {
            valid_name(name)?;
        }
        if self.worker_labels.len() > usize::from(self.workers) {
            return Err(KindError::BadConfig {
                detail: format!(
                    "labels for {} workers, of which there are {}",
                    self.worker_labels.len(),
                    self.workers
                ),
            });
        }
        if self.proxy_mode == ProxyMode::Nftables && kind < NFTABLES {
            return Err(KindError::OldKind {
                found: kind,
                needed: NFTABLES,
                why: "it does not know kubeProxyMode nftables",
            });
        }
        Ok(())
    }
}

/// kind takes `[a-z0-9.-]+`; a node's name is this name and `-control-plane`, and has to be a host name of at most 63 characters.
pub(crate) fn valid_name(name: &str) -> Result<()> {
    let fits = name.chars().all(|char| {
        char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-' || char == '.'
    });
    let ends = |char: Option<char>| char.is_some_and(|char| char.is_ascii_alphanumeric());
    if fits && ends(name.chars().next()) && ends(name.chars().next_back()) && name.len() <= 49 {
        return Ok(());
    }
    Err(KindError::BadConfig {
        detail: format!(
            "{name:?} is no name for a cluster: at most 49 of a-z, 0-9, '-' and '.', with a letter or digit at both ends"
        ),
    })
}
