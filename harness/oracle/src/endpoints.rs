//! Which endpoints of a Service port are usable, seen from one node.
//!
//! ```text
//!   slices of the Service and family ── port by name and protocol ──> (address, port)
//!        │ duplicates merged: a ready copy wins; a serving-and-terminating one beside an unusable one is contested
//!        ├── Cluster: ready [kept by node hints, else by zone hints], else serving and terminating, anywhere
//!        └── Local:   ready on the node, else serving and terminating on the node
//! ```
//!
//! Sources: EndpointSlice field documentation, KEP-1669 (terminating endpoints), KEP-2433 and KEP-3015 (hints),
//! KEP-2086 and KEP-1864 (policies).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::address::parse_ip;
use crate::cluster::Node;
use crate::objects::{EndpointSlice, Service, ServicePort, SliceEndpoint};
use crate::traffic::Family;

/// How usable an endpoint is; the greater the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Unusable,
    ServingTerminating,
    Ready,
}

/// How to read an address of which the best copy is serving and terminating and another one is unusable: as the terminating pod's,
/// which still serves, or as that of a new pod, which has the address already and is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contested {
    /// The serving and terminating copy counts.
    Usable,
    /// The unusable copy counts.
    Unusable,
}

/// An endpoint after merging its copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address.
    pub ip: IpAddr,
    /// Resolved target port.
    pub port: u16,
    /// The nodes its usable copies name. More than one only when an address is claimed twice.
    pub nodes: BTreeSet<String>,
    /// The pod that its `targetRef` names.
    pub target: Option<String>,
    grade: Grade,
    /// Some copy is unusable.
    unusable_copy: bool,
    zone_hints: BTreeSet<String>,
    node_hints: BTreeSet<String>,
}

impl Endpoint {
    /// Whether its copies leave it open if it is usable.
    fn is_contested(&self) -> bool {
        self.grade == Grade::ServingTerminating && self.unusable_copy
    }

    /// Whether one of its usable copies is on that node.
    pub fn is_on(&self, node: &str) -> bool {
        self.nodes.contains(node)
    }
}

/// How hints narrowed the Cluster set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyMode {
    /// Hints had no effect.
    None,
    /// Only endpoints hinted for the node.
    SameNode,
    /// Only endpoints hinted for the node's zone.
    SameZone,
}

/// The usable endpoints of a Service port from one node's point of view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSets {
    /// What policy Cluster chooses from.
    pub cluster: Vec<Endpoint>,
    /// What policy Local chooses from.
    pub local: Vec<Endpoint>,
    /// The Cluster set consists of terminating endpoints.
    pub cluster_terminating: bool,
    /// The Local set consists of terminating endpoints.
    pub local_terminating: bool,
    /// How hints narrowed the Cluster set.
    pub topology: TopologyMode,
}

/// Whether the copies of some endpoint of the port leave it open if it is usable, so that both readings are acceptable.
pub fn any_contested(
    slices: &[EndpointSlice],
    service: &Service,
    port: &ServicePort,
    family: Family,
) -> bool {
    merge(slices, service, port, family)
        .iter()
        .any(Endpoint::is_contested)
}

/// Computes the usable endpoints of one port of a Service, seen from `node`.
pub fn endpoint_sets(
    slices: &[EndpointSlice],
    service: &Service,
    port: &ServicePort,
    family: Family,
    node: &Node,
    contested: Contested,
) -> EndpointSets {
    let mut all = merge(slices, service, port, family);
    if contested == Contested::Unusable {
        all.retain(|endpoint| !endpoint.is_contested());
    }
    let graded = |grade, keep: &dyn Fn(&Endpoint) -> bool| -> Vec<Endpoint> {
        all.iter()
            .filter(|ep| ep.grade == grade && keep(ep))
            .cloned()
            .collect()
    };
    let ready = graded(Grade::Ready, &|_| true);
    let terminating = graded(Grade::ServingTerminating, &|_| true);
    let local_ready = graded(Grade::Ready, &|ep| ep.is_on(&node.name));
    let local_terminating = graded(Grade::ServingTerminating, &|ep| ep.is_on(&node.name));

    let topology = topology_mode(&ready, node);
    let cluster_terminating = ready.is_empty() && !terminating.is_empty();
    let cluster = if ready.is_empty() {
        terminating
    } else {
        ready
            .into_iter()
            .filter(|ep| available(ep, &topology, node))
            .collect()
    };
    let fall_back = local_ready.is_empty() && !local_terminating.is_empty();
    EndpointSets {
        cluster,
        local: if fall_back {
            local_terminating
        } else {
            local_ready
        },
        cluster_terminating,
        local_terminating: fall_back,
        topology,
    }
}

/// Collects the endpoints of the port over all slices, sorted by address and port, each once.
fn merge(
    slices: &[EndpointSlice],
    service: &Service,
    port: &ServicePort,
    family: Family,
) -> Vec<Endpoint> {
    let (namespace, name) = service.key();
    let mut merged: BTreeMap<(IpAddr, u16), Endpoint> = BTreeMap::new();
    // Slices with this label are for DNS only; the control plane labels those of headless Services.
    let slices = slices
        .iter()
        .filter(|slice| !slice.is_headless())
        .filter(|slice| {
            slice.family() == Some(family) && slice.service() == Some((&namespace, &name))
        });
    for slice in slices {
        let targets: BTreeSet<u16> = slice
            .ports()
            .iter()
            .filter(|p| p.name == port.name && p.protocol == port.protocol)
            .filter_map(|p| p.port.filter(|number| *number != 0))
            .collect();
        for target in targets {
            for endpoint in slice.endpoints() {
                let Some(new) = read_endpoint(endpoint, target, family) else {
                    continue;
                };
                merged
                    .entry((new.ip, new.port))
                    .and_modify(|old| merge_copy(old, &new))
                    .or_insert(new);
            }
        }
    }
    merged.into_values().collect()
}

fn read_endpoint(endpoint: &SliceEndpoint, port: u16, family: Family) -> Option<Endpoint> {
    // No semantics are defined for addresses beyond the first.
    let ip = parse_ip(endpoint.addresses.first()?)?;
    if Family::of(ip) != family {
        return None;
    }
    let conditions = endpoint.conditions;
    let grade = if conditions.ready.unwrap_or(true) {
        Grade::Ready
    } else if conditions.serving.unwrap_or(true) && conditions.terminating.unwrap_or(false) {
        Grade::ServingTerminating
    } else {
        Grade::Unusable
    };
    let target = endpoint.target_ref.as_ref();
    Some(Endpoint {
        ip,
        port,
        nodes: endpoint.node_name.iter().cloned().collect(),
        target: target
            .filter(|target| target.kind == "Pod")
            .map(|target| target.name.clone()),
        grade,
        unusable_copy: grade == Grade::Unusable,
        zone_hints: endpoint
            .hints
            .for_zones
            .iter()
            .map(|hint| hint.name.clone())
            .collect(),
        node_hints: endpoint
            .hints
            .for_nodes
            .iter()
            .map(|hint| hint.name.clone())
            .collect(),
    })
}

/// Merges two copies of one endpoint: the more usable wins; equally usable ones are united, so that the order in
/// which slices are read cannot matter.
fn merge_copy(old: &mut Endpoint, new: &Endpoint) {
    let unusable_copy = old.unusable_copy || new.unusable_copy;
    if new.grade > old.grade {
        *old = new.clone();
    } else if new.grade == old.grade {
        old.nodes.extend(new.nodes.iter().cloned());
        old.zone_hints.extend(new.zone_hints.iter().cloned());
        old.node_hints.extend(new.node_hints.iter().cloned());
        // `None` sorts first: a known target beats none, and of two the greater name, whatever the order.
        old.target = old.target.take().max(new.target.clone());
    }
    old.unusable_copy = unusable_copy;
}

/// Hints count only when every ready endpoint has one of the kind and at least one is meant for here.
fn topology_mode(ready: &[Endpoint], node: &Node) -> TopologyMode {
    if !ready.is_empty()
        && ready.iter().all(|ep| !ep.node_hints.is_empty())
        && ready.iter().any(|ep| ep.node_hints.contains(&node.name))
    {
        return TopologyMode::SameNode;
    }
    let Some(zone) = &node.zone else {
        return TopologyMode::None;
    };
    if !ready.is_empty()
        && ready.iter().all(|ep| !ep.zone_hints.is_empty())
        && ready.iter().any(|ep| ep.zone_hints.contains(zone))
    {
        return TopologyMode::SameZone;
    }
    TopologyMode::None
}

fn available(endpoint: &Endpoint, mode: &TopologyMode, node: &Node) -> bool {
    match mode {
        TopologyMode::None => true,
        TopologyMode::SameNode => endpoint.node_hints.contains(&node.name),
        TopologyMode::SameZone => node
            .zone
            .as_ref()
            .is_some_and(|zone| endpoint.zone_hints.contains(zone)),
    }
}
