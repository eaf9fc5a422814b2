//! Whether a candidate can be put on a cluster that was made for another one.

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::ConfigMap};
use kube::{Api, Client};

use super::super::{ClusterError, infra};
use crate::candidate::{Installation, cluster::ProxyMode};

const NAMESPACE: &str = "kube-system";
const KUBE_PROXY: &str = "kube-proxy";

/// Looks whether the cluster's kube-proxy is the one that the candidate wants, which may be none. A second proxy would do the work of one that
/// does nothing.
///
/// # Errors
/// [`ClusterError::Usage`] if it is not.
pub async fn fits(client: &Client, installation: &Installation) -> Result<(), ClusterError> {
    let what = "whether the cluster has a kube-proxy";
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
    let there = sets.get_opt(KUBE_PROXY).await;
    let there = there.map_err(|error| infra(what)(&error))?.is_some();
    let has = if there {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let map = maps.get_opt(KUBE_PROXY).await;
        let map = map.map_err(|error| infra(what)(&error))?;
        let config = map.and_then(|map| map.data?.remove("config.conf"));
        mode(&config.unwrap_or_default())
    } else {
        ProxyMode::None.name().to_owned()
    };
    let removed = installation
        .remove_first()
        .iter()
        .any(|object| object.kind == "DaemonSet" && object.name == KUBE_PROXY);
    let wants = installation.proxy_mode().name();
    if has == wants || (removed && wants == ProxyMode::None.name()) {
        return Ok(());
    }
    let proxy = |mode: &str| match mode {
        none if none == ProxyMode::None.name() => "no kube-proxy".to_owned(),
        mode => format!("kube-proxy in mode {mode}"),
    };
    Err(ClusterError::Usage(format!(
        "the cluster has {}, and this candidate is for one with {}: make another one",
        proxy(&has),
        proxy(wants)
    )))
}

/// The mode in a configuration of kube-proxy.
fn mode(config: &str) -> String {
    let modes = config.lines().filter_map(|line| line.strip_prefix("mode:"));
    let mode = modes.map(|mode| mode.trim().trim_matches('"')).next();
    match mode.unwrap_or_default() {
        // What it takes on Linux without a word.
        "" => ProxyMode::Iptables.name().to_owned(),
        mode => mode.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_that_of_kube_proxy_itself() {
        let config = |mode: &str| {
            format!(
                "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nwinkernel:\n  mode: x\n{mode}kind: KubeProxyConfiguration\n"
            )
        };
        for (line, is) in [
            ("mode: nftables\n", "nftables"),
            ("mode: \"ipvs\"\n", "ipvs"),
            ("mode: \"\"\n", "iptables"),
            ("", "iptables"),
        ] {
            assert_eq!(mode(&config(line)), is, "{line}");
        }
    }
}
