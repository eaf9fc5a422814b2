//! How a candidate comes onto a cluster, and off it again.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{ListParams, LogParams},
};
use rollout::{Blame, Existing, Object, ObjectId, Progress, Rollout, Workload};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    super::{ClusterError, infra},
    Instances, Site, manifests,
    opening::Told,
};
use crate::candidate::{
    Candidate, CandidateError, ClusterVariables, HttpReady, cluster::Condition,
};

/// Objects go away within seconds, their Pods after their grace period.
const GONE: Duration = Duration::from_secs(120);

/// What was done to a cluster for a candidate.
pub struct Installed {
    rollout: Rollout,
    objects: Vec<Object>,
    /// What was there before and is put back.
    taken: Vec<Object>,
}

impl std::fmt::Debug for Installed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} objects", self.objects.len())
    }
}

/// Where the candidate's Pods are, as its manifest says.
pub fn instances(candidate: &Candidate) -> Option<Instances> {
    let pods = candidate.installation().pods()?;
    Some(Instances {
        namespace: pods.namespace.clone(),
        selector: pods.selector.clone(),
        container: pods.container.clone(),
    })
}

impl From<rollout::Error> for ClusterError {
    fn from(error: rollout::Error) -> Self {
        match error.blame() {
            Blame::Candidate => Self::Candidate(error.to_string()),
            // A manifest that the cluster refuses says nothing about the proxy in it.
            Blame::Usage => Self::Usage(error.to_string()),
            Blame::Infra => Self::Infra(error.to_string()),
        }
    }
}

/// As where it is noticed before a run begins: what cannot be run on this machine is not the manifest's fault.
impl From<CandidateError> for ClusterError {
    fn from(error: CandidateError) -> Self {
        match error {
            CandidateError::MissingTool { .. } | CandidateError::Command { .. } => {
                Self::Infra(error.to_string())
            }
            _ => Self::Usage(error.to_string()),
        }
    }
}

impl From<rollout::ParseError> for ClusterError {
    fn from(error: rollout::ParseError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl Installed {
    /// Applies what the candidate's manifest says. In a cluster that is thrown away afterwards, what is there already is changed; in another one
    /// that is an error.
    ///
    /// # Errors
    /// [`ClusterError::Candidate`] where the cluster does its part and the candidate does not get ready; what was applied is in the first half then,
    /// to be removed again.
    pub async fn install(
        client: Client,
        run: &str,
        candidate: &Candidate,
        variables: &ClusterVariables,
        disposable: bool,
        told: &Told,
    ) -> (Option<Self>, Result<(), ClusterError>) {
        let installation = candidate.installation().clone();
        let existing = if disposable {
            Existing::Adopt
        } else {
            Existing::Refuse
        };
        let rollout = Rollout::new(client, run).existing(existing);
        let tell =
            |progress: Progress| told.waits(&format!("{}: {}", progress.what, progress.state));
        let rendered = match installation.render(variables).await {
            Ok(rendered) => rendered,
            Err(error) => return (None, Err(error.into())),
        };
        let mut objects = Vec::new();
        for part in rendered {
            match part.objects() {
                Ok(parsed) => objects.extend(parsed),
                Err(error) => return (None, Err(error.into())),
            }
        }
        if let Some(pods) = installation.pods().filter(|_| disposable) {
            for object in &mut objects {
                can_be_kept_off(&mut object.value, &pods.namespace, &pods.selector);
            }
        }
        let deadline = candidate.installation_deadline();
        let first: Vec<ObjectId> = installation
            .remove_first()
            .into_iter()
            .map(|object| ObjectId {
                api_version: object.api_version,
                kind: object.kind,
                namespace: object.namespace,
                name: object.name,
            })
            .collect();
        let mut installed = Self {
            rollout,
            objects,
            taken: Vec::new(),
        };
        let rollout = installed.rollout.clone();
        let result = async {
            if !first.is_empty() {
                installed.taken = rollout.remove_first(&first, deadline, &tell).await?;
            }
            rollout.apply(&installed.objects, deadline, &tell).await?;
            let workloads: Vec<Workload> = installation
                .ready()
                .into_iter()
                .filter_map(|condition| match condition {
                    Condition::DaemonSet(of) => Some(Workload::DaemonSet {
                        namespace: of.namespace,
                        name: of.name,
                    }),
                    Condition::Deployment(of) => Some(Workload::Deployment {
                        namespace: of.namespace,
                        name: of.name,
                    }),
                    Condition::Http(_) => None,
                })
                .collect();
            rollout.wait(&workloads, deadline, &tell).await?;
            Ok(())
        }
        .await;
        (Some(installed), result)
    }

    /// Removes what earlier runs installed and did not remove, because they were killed.
    ///
    /// # Errors
    /// What is still there, or [`ClusterError::Infra`] when the API does not answer.
    pub async fn remove_former(client: Client, told: &Told) -> Result<(), ClusterError> {
        let tell =
            |progress: Progress| told.waits(&format!("{}: {}", progress.what, progress.state));
        let rollout = Rollout::new(client, "");
        let found = rollout.leftovers(true, Duration::ZERO).await?;
        let objects = found.into_iter().map(|id| Object {
            id,
            source: "an earlier run".into(),
            line: None,
            value: serde_json::Value::Null,
        });
        let objects: Vec<Object> = objects.collect();
        rollout.remove(&objects, GONE, &tell).await?;
        Ok(())
    }

    /// Removes it again, and puts back what was there before.
    ///
    /// # Errors
    /// What is still there.
    pub async fn remove(&self, told: &Told) -> Result<(), String> {
        let tell =
            |progress: Progress| told.waits(&format!("{}: {}", progress.what, progress.state));
        let removed = self.rollout.remove(&self.objects, GONE, &tell).await;
        removed.map_err(|error| error.to_string())?;
        let restored = self.rollout.restore(&self.taken, GONE).await;
        restored.map_err(|error| error.to_string())?;
        let left = self.rollout.leftovers(false, GONE).await;
        let left = left.map_err(|error| error.to_string())?;
        if left.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = left.iter().map(ToString::to_string).collect();
        Err(format!("still there: {}", names.join(", ")))
    }
}

/// Lets the candidate's own DaemonSet leave nodes that have [`manifests::WITHOUT_CANDIDATE`]: its controller removes the Pod from a node that does not
/// fit any more, and makes another when it fits again.
fn can_be_kept_off(object: &mut Value, namespace: &str, selector: &str) {
    let labels = &object["spec"]["template"]["metadata"]["labels"];
    let chosen = selector.split(',').all(|pair| match pair.split_once('=') {
        Some((key, value)) => labels[key.trim_end_matches('=')] == value.trim_start_matches('='),
        None => !labels[pair].is_null(),
    });
    if object["kind"] == "DaemonSet" && object["metadata"]["namespace"] == namespace && chosen {
        keep_off(object);
    }
}

/// The same for a DaemonSet that is known to be the candidate's.
pub fn keep_off(object: &mut Value) {
    let wanted = json!({"key": manifests::WITHOUT_CANDIDATE, "operator": "DoesNotExist"});
    let required = &mut object["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        ["nodeSelectorTerms"];
    match required.as_array_mut() {
        // Any of the terms will do, so each has to want it.
        Some(terms) => {
            for term in terms {
                match term["matchExpressions"].as_array_mut() {
                    Some(expressions) => expressions.push(wanted.clone()),
                    None => term["matchExpressions"] = json!([wanted]),
                }
            }
        }
        None => *required = json!([{"matchExpressions": [wanted]}]),
    }
}

/// The reverse of [`keep_off`].
pub fn let_on(object: &mut Value) {
    let required = object.pointer_mut(
        "/spec/template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms",
    );
    let terms = required.and_then(Value::as_array_mut);
    let Some(terms) = terms else {
        return;
    };
    terms.retain_mut(|term| {
        let Some(expressions) = term["matchExpressions"].as_array_mut() else {
            return true;
        };
        let before = expressions.len();
        expressions.retain(|one| one["key"] != manifests::WITHOUT_CANDIDATE);
        // A term without a word matches nothing, and one that had none besides ours was ours.
        !expressions.is_empty()
            || before == 0
            || term.as_object().is_some_and(|term| term.len() > 1)
    });
    if !terms.is_empty() {
        return;
    }
    // An affinity that requires one of no terms is refused.
    let affinity = &mut object["spec"]["template"]["spec"]["affinity"];
    if let Some(kinds) = affinity.as_object_mut() {
        kinds.remove("nodeAffinity");
        if kinds.is_empty() {
            *affinity = Value::Null;
        }
    }
}

/// Waits until the candidate answers over HTTP on every node, at the node's loopback address.
///
/// # Errors
/// [`ClusterError::Candidate`] at the deadline.
pub async fn answers(site: &Site, candidate: &Candidate) -> Result<(), ClusterError> {
    let installation = candidate.installation();
    let until = Instant::now() + candidate.installation_deadline();
    let asked = installation
        .ready()
        .into_iter()
        .filter_map(|condition| match condition {
            Condition::Http(http) => Some(http),
            _ => None,
        });
    for HttpReady { port, path } in asked {
        let path = &path;
        try_join_all(site.nodes().iter().map(|node| async move {
            let held = site.node_agent(&node.name).await?;
            let agent = held.handle();
            let at = |ip: IpAddr| SocketAddr::new(ip, port);
            loop {
                let mut problem = String::new();
                for host in [
                    at(std::net::Ipv4Addr::LOCALHOST.into()),
                    at(std::net::Ipv6Addr::LOCALHOST.into()),
                ] {
                    match agent.http_get(host, path, 2_000).await {
                        Ok(answer) if answer.status == 200 => return Ok(()),
                        Ok(answer) => problem = format!("status {}", answer.status),
                        Err(probe::client::AgentError::Remote { message, .. }) => problem = message,
                        Err(error) => return Err(infra("a node's agent")(&error)),
                    }
                }
                if let Some(crash) = crashes(site).await? {
                    return Err(ClusterError::Candidate(crash));
                }
                if Instant::now() > until {
                    return Err(ClusterError::Candidate(format!(
                        "on {} nobody answers 200 at port {port}, {path}: {problem}",
                        node.name
                    )));
                }
                // A poll of a condition with a deadline.
                sleep(super::site::POLL * 5).await;
            }
        }))
        .await?;
    }
    Ok(())
}

/// A Pod of the candidate that ends again and again, with the last that it said.
async fn crashes(site: &Site) -> Result<Option<String>, ClusterError> {
    let Some(place) = &site.plans.instances else {
        return Ok(None);
    };
    let api: Api<Pod> = Api::namespaced(site.client.clone(), &place.namespace);
    let pods = api
        .list(&ListParams::default().labels(&place.selector))
        .await;
    let pods = pods.map_err(|error| infra("list the candidate's Pods")(&error))?;
    for pod in pods.items {
        let Some((container, times)) = crashed(&pod) else {
            continue;
        };
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let params = LogParams {
            container: Some(container),
            previous: true,
            tail_lines: Some(5),
            ..LogParams::default()
        };
        let said = api.logs(name, &params).await.unwrap_or_default();
        return Ok(Some(format!(
            "Pod {}/{name} ended {times} times; the last lines:\n{}",
            place.namespace,
            said.trim_end()
        )));
    }
    Ok(None)
}

/// The container that ended too often, and how often.
fn crashed(pod: &Pod) -> Option<(String, i32)> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let mut statuses = statuses.iter();
    let status = statuses.find(|status| status.restart_count >= CRASHES)?;
    Some((status.name.clone(), status.restart_count))
}

/// Whoever ended so often by itself is not about to answer. The kubelet waits longer each time: this takes about a minute.
const CRASHES: i32 = 3;

/// The smallest ranges, one per family, that hold all of these: what a cluster's pod range is at least.
pub fn hull(ranges: impl IntoIterator<Item = ipnet::IpNet>) -> Vec<ipnet::IpNet> {
    let mut hulls: BTreeMap<bool, ipnet::IpNet> = BTreeMap::new();
    for range in ranges {
        let six = range.addr().is_ipv6();
        let hull = hulls.entry(six).or_insert(range);
        while !hull.contains(&range) {
            match hull.supernet() {
                Some(wider) => *hull = wider,
                None => break,
            }
        }
    }
    hulls.into_values().map(|hull| hull.trunc()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_candidate_s_daemon_set_can_be_kept_off_nodes() {
        let set = |name: &str, affinity: Value| {
            json!({
                "kind": "DaemonSet",
                "metadata": {"name": name, "namespace": "kube-system"},
                "spec": {"template": {
                    "metadata": {"labels": {"app": name, "tier": "node"}},
                    "spec": {"affinity": affinity},
                }},
            })
        };
        let terms = |object: &Value| {
            object["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
                ["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
                .clone()
        };
        let wanted = json!({"key": manifests::WITHOUT_CANDIDATE, "operator": "DoesNotExist"});
        let mut own = set("proxy", Value::Null);
        can_be_kept_off(&mut own, "kube-system", "app=proxy,tier");
        assert_eq!(terms(&own), json!([{"matchExpressions": [wanted]}]));
        let_on(&mut own);
        assert_eq!(own, set("proxy", Value::Null));
        let linux = json!({"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]});
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [linux]},
            {"matchFields": []},
        ]}}});
        let mut own = set("proxy", affinity);
        can_be_kept_off(&mut own, "kube-system", "app==proxy");
        assert_eq!(
            terms(&own),
            json!([{"matchExpressions": [linux, wanted]}, {"matchFields": [], "matchExpressions": [wanted]}])
        );
        let_on(&mut own);
        assert_eq!(
            terms(&own),
            json!([{"matchExpressions": [linux]}, {"matchFields": [], "matchExpressions": []}])
        );
        for (namespace, selector) in [("kube-system", "app=other"), ("elsewhere", "app=proxy")] {
            let mut other = set("proxy", json!({}));
            can_be_kept_off(&mut other, namespace, selector);
            assert_eq!(terms(&other), Value::Null);
        }
    }

    #[test]
    fn a_hull_holds_every_range_of_its_family() {
        let of = |texts: &[&str]| {
            let ranges = texts.iter().map(|text| text.parse().unwrap());
            let hulls = hull(ranges.collect::<Vec<_>>());
            hulls.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of(&["10.244.0.0/24"]), ["10.244.0.0/24"]);
        assert_eq!(
            of(&[
                "10.244.0.0/24",
                "10.244.1.0/24",
                "fd00::/64",
                "10.244.2.0/24"
            ]),
            ["10.244.0.0/22", "fd00::/64"]
        );
        assert_eq!(of(&["0.0.0.0/1", "128.0.0.0/1"]), ["0.0.0.0/0"]);
        assert!(of(&[]).is_empty());
    }
}
