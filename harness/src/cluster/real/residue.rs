//! What proxies leave in the kernels of a cluster's nodes.
//!
//! A proxy that is removed leaves its rules where they are: that is right, because traffic goes on until its successor is there. But in a cluster
//! that is used again they would do another candidate's work, or be in its way. So the nodes of a cluster that is made here are looked at before
//! anything is installed, and what is there then is written down in the cluster. Later all else is taken away where that can be done, and what
//! cannot be is told: such a cluster says nothing about anybody.
//!
//! Looked at are the nftables rules that packets can meet (those of `iptables-nft` are among them), and links. What neither shows are the older
//! iptables, and programs (eBPF) without a link of their own.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, api::PostParams};
use probe::proto::DumpKind;
use serde_json::json;

use super::{
    super::{ClusterError, infra},
    Site,
    site::typed,
};
use crate::run::remains;

/// The object in which it is written down, what the nodes had at first.
const NAMESPACE: &str = "kube-system";
const NAME: &str = "dev-harness-nodes";
const KEY: &str = "nodes";

/// So often a ruleset that changes while it is read is read again.
const TRIES: usize = 20;

/// Links that come and go without any proxy: those of Pods, and what the kernel itself adds to each namespace when a module is loaded.
const ORDINARY: [&str; 13] = [
    "veth", "lo", "eth", "dummy", "bond", "tunl", "sit", "ip6tnl", "gre", "ip6gre", "erspan",
    "ip_vti", "ip6_vti",
];

/// By node, the names of what is there: `link kube-ipvs0`, `ip nat KUBE-SERVICES`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Residue(BTreeMap<String, BTreeSet<String>>);

impl Residue {
    /// What the nodes have now.
    ///
    /// # Errors
    /// [`ClusterError::Infra`], always.
    pub async fn look(site: &Site) -> Result<Self, ClusterError> {
        let found = try_join_all(site.nodes().iter().map(|node| async {
            let held = site.node_agent(&node.name).await?;
            let agent = held.handle();
            let what = format!("what is in the kernel of {}", node.name);
            let links = agent.dump(DumpKind::Links).await;
            let links = links.map_err(|error| infra(&what)(&error))?;
            for _ in 0..TRIES {
                let ruleset = agent.dump(DumpKind::Ruleset).await;
                let ruleset = ruleset.map_err(|error| infra(&what)(&error))?;
                if let Some(mut names) = remains::parts(&ruleset) {
                    names.extend(links_of_somebody(&links));
                    return Ok((node.name.clone(), names));
                }
            }
            Err(ClusterError::Infra(format!(
                "{what}: its rules change all the time"
            )))
        }));
        Ok(Self(found.await?.into_iter().collect()))
    }

    /// What was written down when the cluster was made; nothing where nobody did.
    ///
    /// # Errors
    /// [`ClusterError::Infra`] when the API does not answer.
    pub async fn recall(client: &Client) -> Result<Option<Self>, ClusterError> {
        let what = "what the nodes had at first";
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let found = api.get_opt(NAME).await;
        let found = found.map_err(|error| infra(what)(&error))?;
        let text = found.and_then(|found| found.data?.remove(KEY));
        text.map(|text| serde_json::from_str(&text).map_err(|error| infra(what)(&error)))
            .transpose()
    }

    /// Writes down in the cluster that this is what the nodes had at first.
    ///
    /// # Errors
    /// [`ClusterError::Infra`] when the API does not take it.
    pub async fn remember(&self, client: &Client) -> Result<(), ClusterError> {
        let what = "what the nodes have cannot be written down";
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let text = serde_json::to_string(self).map_err(|error| infra(what)(&error))?;
        let object = typed(json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "data": {KEY: text},
        }))?;
        let made = api.create(&PostParams::default(), &object).await;
        made.map_err(|error| infra(what)(&error))?;
        Ok(())
    }

    /// What is there that was not there before, in words; nothing if that is nothing. A node that was not there before is not judged.
    pub fn beyond(&self, before: &Self) -> Option<String> {
        let nodes = self.0.iter().filter_map(|(node, names)| {
            let known = before.0.get(node)?;
            let new = names.difference(known).filter(|name| !is_ordinary(name));
            let new: Vec<&str> = new.map(String::as_str).collect();
            let shown = new.iter().take(SHOWN).copied().collect::<Vec<_>>();
            let more = match new.len().saturating_sub(SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            (!new.is_empty()).then(|| format!("{node} has {}{more}", shown.join(", ")))
        });
        let nodes: Vec<String> = nodes.collect();
        (!nodes.is_empty()).then(|| nodes.join("; "))
    }

    /// The tables of each node that were not there before at all, and in which nobody but who made them has anything.
    fn tables_beyond(&self, before: &Self) -> BTreeMap<&str, Vec<String>> {
        fn tables<'a>(names: impl Iterator<Item = &'a String>) -> BTreeSet<&'a str> {
            let names = names.filter(|name| !name.starts_with(LINK));
            let pairs = names.filter_map(|name| name.rsplit_once(' '));
            pairs.map(|(table, _)| table).collect()
        }
        let nodes = self.0.iter().filter_map(|(node, names)| {
            let mut known = tables(before.0.get(node)?.iter());
            known.extend(tables(names.iter().filter(|name| is_ordinary(name))));
            let new = tables(names.iter())
                .difference(&known)
                .copied()
                .collect::<Vec<_>>();
            let new: Vec<String> = new.into_iter().map(str::to_owned).collect();
            (!new.is_empty()).then_some((node.as_str(), new))
        });
        nodes.collect()
    }

    /// Takes away what was not there before, as far as that can be done: tables.
    ///
    /// # Errors
    /// [`ClusterError::Infra`] with what is still there.
    pub async fn clear(&self, site: &Site) -> Result<(), ClusterError> {
        let now = Self::look(site).await?;
        let new = now.tables_beyond(self);
        if !new.is_empty() {
            try_join_all(new.into_iter().map(|(node, tables)| async move {
                let held = site.node_agent(node).await?;
                let deleted = held.handle().tables_delete(tables).await;
                let what = format!("the tables that somebody left on {node}");
                deleted.map_err(|error| infra(&what)(&error))
            }))
            .await?;
        }
        let now = Self::look(site).await?;
        match now.beyond(self) {
            None => Ok(()),
            Some(left) => Err(ClusterError::Infra(format!(
                "a proxy that is gone has left something in the nodes' kernels, which cannot be told from another one's work and cannot be taken away: {left}; make another cluster"
            ))),
        }
    }
}

/// Whether a node has it without any proxy: chains of iptables itself, of the kubelet, of the container engine and of kindnet, which may come a
/// little later than the node is Ready.
fn is_ordinary(name: &str) -> bool {
    const CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    const BEGINNINGS: [&str; 6] = [
        "KIND-",
        "KUBE-KUBELET-",
        "KUBE-IPTABLES-HINT",
        "KUBE-FIREWALL",
        "DOCKER",
        "CNI-",
    ];
    if name.starts_with(LINK) {
        return false;
    }
    let (table, own) = name.rsplit_once(' ').unwrap_or(("", name));
    let (_, table) = table.split_once(' ').unwrap_or(("", table));
    CHAINS.contains(&own)
        || BEGINNINGS.iter().any(|one| own.starts_with(one))
        || table.starts_with("kindnet")
}

/// How many names of a node are told.
const SHOWN: usize = 6;
const LINK: &str = "link ";

/// Names of links that somebody made on purpose.
fn links_of_somebody(dump: &str) -> impl Iterator<Item = String> {
    let lines = dump.lines().filter(|line| !line.starts_with('#'));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    let names = names.filter(|name| !ORDINARY.iter().any(|known| name.starts_with(known)));
    names.map(|name| format!("{LINK}{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn residue(nodes: &[(&str, &[&str])]) -> Residue {
        let nodes = nodes.iter().map(|(node, names)| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            ((*node).to_owned(), names)
        });
        Residue(nodes.collect())
    }

    #[test]
    fn what_is_new_is_told_and_whole_tables_can_be_taken_away() {
        let before = residue(&[
            ("a", &["ip nat PREROUTING", "ip nat KIND-MASQ-AGENT"]),
            ("b", &["ip nat PREROUTING"]),
        ]);
        assert_eq!(before.beyond(&before), None);
        let now = residue(&[
            (
                "a",
                &[
                    "ip nat PREROUTING",
                    "ip nat KUBE-SERVICES",
                    "inet proxy services",
                    "inet proxy nat",
                    "link kube-ipvs0",
                ],
            ),
            ("b", &[]),
            ("new", &["ip nat KUBE-SERVICES"]),
        ]);
        // What is gone since is nobody's residue.
        assert_eq!(
            now.beyond(&before).unwrap(),
            "a has inet proxy nat, inet proxy services, ip nat KUBE-SERVICES, link kube-ipvs0"
        );
        // A table in which others have something stays, and a link is no table.
        let tables = now.tables_beyond(&before);
        assert_eq!(tables, [("a", vec!["inet proxy".to_owned()])].into());
        let text = serde_json::to_string(&now).unwrap();
        assert_eq!(serde_json::from_str::<Residue>(&text).unwrap(), now);
    }

    /// kindnet writes its rules when the node is Ready already: they are nobody's residue, and a table that it shares is not taken from it.
    #[test]
    fn what_nodes_have_without_a_proxy_is_no_residue() {
        let before = residue(&[("a", &[])]);
        let now = residue(&[(
            "a",
            &[
                "ip nat POSTROUTING",
                "ip nat KIND-MASQ-AGENT",
                "inet kindnet-ipmasq postrouting",
                "ip6 nat OUTPUT",
            ],
        )]);
        assert_eq!(now.beyond(&before), None);
        assert!(now.tables_beyond(&before).is_empty());
        let shared = residue(&[("a", &["ip nat KIND-MASQ-AGENT", "ip nat KUBE-SERVICES"])]);
        assert_eq!(
            shared.beyond(&before).as_deref(),
            Some("a has ip nat KUBE-SERVICES")
        );
        assert!(shared.tables_beyond(&before).is_empty());
    }

    #[test]
    fn many_names_are_counted() {
        let names: Vec<String> = (0..9).map(|at| format!("inet p chain{at}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let now = residue(&[("a", &names)]);
        let told = now.beyond(&residue(&[("a", &[])])).unwrap();
        assert!(told.ends_with("inet p chain5 and 3 more"), "{told}");
    }

    #[test]
    fn links_of_pods_and_of_the_kernel_are_nobody_s() {
        let dump = "eth0 veth up mtu 1500 mac 02:42:ac:12:00:06 # index 213 operstate up
kube-ipvs0 dummy down mtu 1500 mac 9e:1b:aa:00:00:01 # index 9 operstate down
lo up mtu 65536 mac 00:00:00:00:00:00 # index 1 operstate unknown
tunl0 ipip down mtu 1480 mac 00:00:00:00 # index 2 operstate down
veth17e7ed89 veth up mtu 1500 mac 02:42:ac:12:00:07 # index 34 operstate up
cilium_host veth up mtu 1500 mac 02:42:ac:12:00:08 # index 35 operstate up
# The links changed while they were read
";
        let names: Vec<String> = links_of_somebody(dump).collect();
        assert_eq!(names, ["link kube-ipvs0", "link cilium_host"]);
    }
}
