//! What a case asks for that cannot be had in a cluster that somebody else made. It is known before the run begins, and is a typed skip.

use std::collections::BTreeSet;

use crate::scenario::{
    Case,
    doc::{ApiFault, Fault, InjectKind, NodeFault, ProxyFault, Step},
};

/// What a cluster has and allows.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Nodes that pods can be put on.
    pub nodes: usize,
    /// Whether nodes and pods have IPv4 addresses.
    pub ipv4: bool,
    /// Whether they have IPv6 addresses.
    pub ipv6: bool,
    /// Whether there is a client beyond the nodes.
    pub outside: bool,
    /// Whether the candidate's Pods are known, so that they can be restarted and watched.
    pub instances: bool,
    /// Whether nodes may be disturbed.
    pub disruptive: bool,
    /// Whether the nodes are ours to label.
    pub ours: bool,
    /// Whether the DaemonSet of the candidate is of our installing, and the nodes are ours, so that it can be kept off them.
    pub installed: bool,
    /// How the candidate reaches the API server.
    pub api: ApiWay,
}

/// How the candidate reaches the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApiWay {
    /// By a way that is not ours.
    #[default]
    Foreign,
    /// It could go through our gateway, and its manifest does not ask where that is.
    Unasked,
    /// Through our gateway.
    Gateway,
}

/// Kinds of objects that live in a namespace of ours.
const OURS: [&str; 2] = ["Service", "EndpointSlice"];

/// Why the case cannot be run in such a cluster.
pub fn cannot(case: &Case, facts: &Facts) -> Option<String> {
    topology(case, facts)
        .or_else(|| objects(case))
        .or_else(|| {
            let steps = case.scenario.steps.iter().map(|step| &step.value);
            let mut steps = steps.filter(|step| step.applies(&case.key));
            steps.find_map(|step| step_cannot(step, facts))
        })
        .or_else(|| late_addresses(case))
}

fn topology(case: &Case, facts: &Facts) -> Option<String> {
    let topology = &case.scenario.topology;
    if topology.nodes.len() > facts.nodes {
        return Some(format!(
            "it needs {} nodes, and the cluster has {}",
            topology.nodes.len(),
            facts.nodes
        ));
    }
    let family = case.key.axes.get("family").map(String::as_str);
    let both = facts.ipv4 && facts.ipv6;
    let fits = match family {
        Some("ipv4") => facts.ipv4,
        Some("ipv6") => facts.ipv6,
        _ => both,
    };
    if !fits {
        let has = if facts.ipv4 { "IPv4" } else { "IPv6" };
        return Some(format!("the cluster has {has} only"));
    }
    if !facts.ours && has_zones(case) {
        return Some("it needs nodes in zones of its own".into());
    }
    if topology.nodes.iter().any(|node| !node.networks.is_empty()) {
        return Some("it needs nodes with several networks".into());
    }
    if topology.pods.iter().any(|pod| pod.mtu.is_some()) || topology.outside.mtu.is_some() {
        return Some("it needs wires with an MTU of their own".into());
    }
    if !topology.clients.is_empty() {
        return Some("it needs a client of its own in a network of the nodes".into());
    }
    if !case.scenario.proxy.nodeport_addresses.is_empty() {
        return Some(
            "it needs a candidate with other settings than the one that is installed".into(),
        );
    }
    if !facts.outside && names_outside(case) {
        return Some("it needs a client beyond the nodes".into());
    }
    None
}

/// Whether the case's nodes are in zones.
pub fn has_zones(case: &Case) -> bool {
    let mut nodes = case.scenario.topology.nodes.iter();
    nodes.any(|node| node.zone.is_some())
}

/// Whether something in the case says `outside`, or asks a node over HTTP as the outside client does.
fn names_outside(case: &Case) -> bool {
    let steps = case.scenario.steps.iter().map(|step| &step.value);
    let from = |step: &Step| {
        let mut all: Vec<String> = Vec::new();
        let many = [
            step.probe.as_ref().map(|probe| &probe.from),
            step.converge.as_ref().map(|converge| &converge.from),
            step.hold.as_ref().map(|hold| &hold.from),
        ];
        for sources in many.into_iter().flatten() {
            all.extend_from_slice(sources.as_slice());
        }
        all.extend(step.flow.iter().filter_map(|flow| flow.from.clone()));
        all
    };
    let mut names = steps.flat_map(from);
    names.any(|name| name.starts_with("outside")) || case.document.text.contains("$(outside.")
}

fn objects(case: &Case) -> Option<String> {
    let steps = case.scenario.steps.iter().map(|step| &step.value);
    let applied = steps.clone().flat_map(|step| step.apply.iter().flatten());
    let kinds = case.scenario.objects.iter().chain(applied);
    let kinds = kinds.filter_map(|object| object["kind"].as_str().map(str::to_owned));
    let patched = steps.clone().filter_map(|step| step.patch.as_ref());
    let patched = patched
        // A Pod's labels are anybody's; its status is the kubelet's.
        .filter(|patch| patch.kind != "Pod" || patch.subresource.is_some())
        .map(|patch| patch.kind.clone());
    let deleted = steps.filter_map(|step| step.delete.as_ref());
    let deleted = deleted.flat_map(|objects| objects.as_slice().to_vec());
    let all: BTreeSet<String> = kinds
        .chain(patched)
        .chain(deleted.map(|object| object.kind))
        .collect();
    let mut every = case.scenario.objects.iter().chain(
        case.scenario
            .steps
            .iter()
            .flat_map(|step| step.value.apply.iter().flatten()),
    );
    if every.any(|object| !object["metadata"]["ownerReferences"].is_null()) {
        return Some(
            "an object with an owner that is not there is removed by the cluster's garbage collector"
                .into(),
        );
    }
    // The namespaces of a scenario are made for it in any case.
    let mut others = all.into_iter().filter(|kind| kind != "Namespace");
    let other = others.find(|kind| !OURS.contains(&kind.as_str()))?;
    Some(format!(
        "it changes a {other}, which belongs to the cluster"
    ))
}

fn step_cannot(step: &Step, facts: &Facts) -> Option<String> {
    if let Some(fault) = &step.fault {
        return fault_cannot(fault, facts);
    }
    if let Some(inject) = &step.inject
        && inject.packet == InjectKind::LoopbackFromNeighbour
    {
        return Some("it needs a neighbour of the nodes".into());
    }
    let state = step.state.as_ref()?;
    if state.cleaned_up {
        return Some("it needs the candidate's own cleanup".into());
    }
    if state.running && !facts.instances {
        return Some("nobody said which Pods are the candidate's".into());
    }
    if let Some(check) = &state.http
        && check.proxy
        && !facts.instances
    {
        return Some("nobody said where the candidate answers for itself".into());
    }
    None
}

fn fault_cannot(fault: &Fault, facts: &Facts) -> Option<String> {
    if !facts.disruptive {
        return Some("it disturbs nodes or the candidate, which was not allowed".into());
    }
    let proxy = fault.proxy.and_then(|fault| match fault {
        ProxyFault::Restart | ProxyFault::Kill if facts.instances => None,
        ProxyFault::Restart | ProxyFault::Kill => {
            Some("nobody said which Pods are the candidate's".to_owned())
        }
        ProxyFault::Down | ProxyFault::Start if facts.instances && facts.installed => None,
        ProxyFault::Down | ProxyFault::Start => {
            Some("the candidate's DaemonSet is not ours to keep off a node".to_owned())
        }
        ProxyFault::Stop | ProxyFault::Continue if facts.instances => None,
        ProxyFault::Stop | ProxyFault::Continue => {
            Some("nobody said which Pods are the candidate's".to_owned())
        }
        ProxyFault::Cleanup => Some("it needs the candidate's own cleanup".to_owned()),
        ProxyFault::Starve => {
            Some("the candidate's share of a node's CPU is its kubelet's to give".to_owned())
        }
    });
    let node = fault.node.and_then(|fault| match fault {
        NodeFault::ForeignTable
        | NodeFault::FlushConntrack
        | NodeFault::Address
        | NodeFault::LinkChurn
        | NodeFault::ExhaustPorts => None,
        NodeFault::FlushRuleset | NodeFault::SeizeTables => {
            Some("the rules of a real node are not the candidate's alone".to_owned())
        }
        NodeFault::ConntrackPressure => {
            Some("the limit of a real node's conntrack table is that of its machine".to_owned())
        }
        NodeFault::NetworkAddress => {
            Some("the addresses of a real node's network are not ours to give".to_owned())
        }
    });
    let api = fault.api.and_then(|api| match fault.kind.as_deref() {
        Some("Node") if api == ApiFault::NoopUpdates && !facts.ours => {
            Some("it changes a Node, which belongs to the cluster".to_owned())
        }
        _ => api_cannot(api, facts.api),
    });
    proxy.or(node).or(api)
}

fn api_cannot(fault: ApiFault, way: ApiWay) -> Option<String> {
    match way {
        // Written by the harness, past the candidate's way.
        _ if fault == ApiFault::NoopUpdates => None,
        ApiWay::Gateway => None,
        ApiWay::Unasked => Some(
            "the candidate does not go through the harness to the API server: its manifest says nowhere $(API_SERVER_HOST), _PORT or _URL"
                .into(),
        ),
        ApiWay::Foreign => {
            Some("the way from the candidate to the API server is not ours to break".into())
        }
    }
}

/// An address that is used before the pod has one.
fn late_addresses(case: &Case) -> Option<String> {
    let pods = case.scenario.topology.pods.iter();
    let mut late = pods.filter(|pod| !pod.started);
    let pod = late.find(|pod| case.document.text.contains(&format!("$(pod.{}.", pod.name)))?;
    Some(format!(
        "it names the address of pod {} before the pod is there",
        pod.name
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::plan::{Catalogue, Requirements};

    /// How many cases of the catalogue are left out for which reason; beside them, how many are not.
    fn counted(facts: &Facts) -> BTreeMap<String, usize> {
        let requirements = Requirements::embedded().unwrap();
        let catalogue = Catalogue::embedded(&requirements).unwrap();
        let mut counts = BTreeMap::new();
        for document in &catalogue.documents {
            for key in &document.cases {
                let case = document.resolve(key).unwrap();
                let reason = cannot(&case, facts).unwrap_or_else(|| "(run)".into());
                *counts.entry(reason).or_default() += 1;
            }
        }
        counts
    }

    #[test]
    fn what_runs_on_kind() {
        let facts = Facts {
            nodes: 3,
            ipv4: true,
            ipv6: true,
            outside: true,
            instances: true,
            disruptive: true,
            ours: true,
            installed: true,
            api: ApiWay::Gateway,
        };
        insta::assert_yaml_snapshot!(counted(&facts));
    }

    #[test]
    fn what_runs_on_a_small_cluster_that_is_somebody_s() {
        let facts = Facts {
            nodes: 2,
            ipv4: true,
            ..Facts::default()
        };
        insta::assert_yaml_snapshot!(counted(&facts));
    }
}
