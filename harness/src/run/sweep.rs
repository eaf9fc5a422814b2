//! Which cells a sweep looks at: all frontends in both families, and places near them where nobody may answer.
//!
//! ```text
//!   every frontend        x  a pod of each node, a node, the outside client
//!   every former frontend x  a pod, the outside client          nobody answers, unless another Service owns it now
//!   every Service address x  a port that it does not have       nobody answers
//!   a node's address      x  a port of a Service, not NodePort  nobody answers, unless a process listens there
//! ```
//!
//! What must happen in each is the oracle's word, as everywhere. The choice of sources and ports turns with every sweep, so that the
//! attempts of a run see more than each of them alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use oracle::{Destination, Family, Frontend, FrontendKind, Protocol};

use super::{
    cells::{self, Cell, From, To},
    former::Former,
};
use crate::scenario::Stage;

/// Destinations of one sweep at most. Worlds with more are sampled: they are about numbers, and each cell costs a connection.
const MOST: usize = 96;
/// Pods that ask for one destination; each stands for its node.
const PODS: usize = 3;

/// Where cells of a sweep come from.
struct Sources {
    pods: Vec<From>,
    nodes: Vec<From>,
    outside: Vec<From>,
}

impl Sources {
    /// A pod of each node, a client rather than an endpoint: endpoints talking to themselves are a class of their own,
    /// which `from: all` covers.
    fn of(stage: &Stage, cluster: &oracle::Cluster) -> Self {
        let endpoints: BTreeSet<IpAddr> = cluster
            .slices
            .iter()
            .flat_map(oracle::EndpointSlice::endpoints)
            .flat_map(|endpoint| &endpoint.addresses)
            .filter_map(|address| oracle::parse_ip(address))
            .collect();
        let mut per_node: BTreeMap<&str, (bool, From)> = BTreeMap::new();
        for pod in stage
            .pods()
            .filter(|pod| pod.exists && !pod.spec.host_network)
        {
            let Some(from) = cells::pod_source(stage, &pod.spec.name, false) else {
                continue;
            };
            let serves = match &from.source {
                oracle::Source::Pod { ips, .. } => ips.iter().any(|ip| endpoints.contains(ip)),
                _ => false,
            };
            let known = per_node.get(pod.spec.node.as_str());
            if known.is_none_or(|(known_serves, _)| *known_serves && !serves) {
                per_node.insert(&pod.spec.node, (serves, from));
            }
        }
        Self {
            pods: per_node.into_values().map(|(_, from)| from).collect(),
            nodes: stage
                .nodes()
                .iter()
                .map(|node| cells::node_source(&node.name, false))
                .collect(),
            outside: stage
                .nodes()
                .iter()
                .filter_map(|node| cells::outside_source(stage, &node.name, false))
                .collect(),
        }
    }

    /// The `turn`-th outside address; for a NodePort that of its node.
    fn outside(&self, turn: usize, owner: Option<&str>) -> Option<&From> {
        match owner {
            Some(owner) => self
                .outside
                .iter()
                .find(|from| from.nodeport_of.as_deref() == Some(owner)),
            None => pick(&self.outside, turn),
        }
    }
}

fn pick<T>(list: &[T], turn: usize) -> Option<&T> {
    (!list.is_empty()).then(|| &list[turn % list.len()])
}

/// The cells of one sweep, without those in `seen`, which somebody has just looked at. `held` are addresses of Services that a node has on an
/// interface just now. `turn` is another number in every sweep.
pub fn cells(
    stage: &Stage,
    cluster: &oracle::Cluster,
    former: &Former,
    held: &BTreeSet<IpAddr>,
    turn: usize,
    seen: &BTreeSet<(String, Destination)>,
) -> Vec<Cell> {
    let sources = Sources::of(stage, cluster);
    let frontends = oracle::frontends(cluster);
    let current: BTreeSet<Destination> = frontends.iter().map(Frontend::destination).collect();
    let mut asked: Vec<(Vec<From>, To)> = Vec::new();
    for (index, frontend) in sample(&frontends, turn) {
        let mut from: Vec<From> = sources
            .pods
            .iter()
            .cycle()
            .skip(turn + index)
            .take(sources.pods.len().min(PODS))
            .cloned()
            .collect();
        from.extend(pick(&sources.nodes, turn + index).cloned());
        from.extend(
            sources
                .outside(turn + index, frontend.node.as_deref())
                .cloned(),
        );
        asked.push((from, at_frontend(frontend, frontend.service.1.clone())));
    }
    let gone: Vec<&Frontend> = former.gone(&current).collect();
    for (index, frontend) in sample(&gone, turn) {
        let mut from: Vec<From> = pick(&sources.pods, turn + index)
            .cloned()
            .into_iter()
            .collect();
        if frontend.kind != FrontendKind::ClusterIp {
            let outside = sources.outside(turn + index, frontend.node.as_deref());
            from.extend(outside.cloned());
        }
        let name = format!("former {}", frontend.service.1);
        let to = To {
            // The oracle says whose it is now; it is no frontend that a case asked for.
            frontend: None,
            ..at_frontend(frontend, name)
        };
        asked.push((from, to));
    }
    let nearby = nearby(cluster, &frontends, &current, held, turn);
    for (index, (destination, owner, why)) in sample(&nearby, turn) {
        let mut from: Vec<From> = pick(&sources.pods, turn + index)
            .cloned()
            .into_iter()
            .collect();
        if !cluster
            .service_cidrs
            .iter()
            .any(|range| range.contains(&destination.ip))
        {
            from.extend(sources.outside(turn + index, owner.as_deref()).cloned());
        }
        asked.push((from, at(*destination, why.clone())));
    }
    asked
        .into_iter()
        .flat_map(|(from, to)| cells::product(cluster, &from, &[to]))
        .filter(|cell| cell.to.destination.protocol != Protocol::Sctp)
        .filter(|cell| !seen.contains(&(cell.from.label.clone(), cell.to.destination)))
        .collect()
}

/// At most [`MOST`] of a list, evenly spread, with their places; another part of it every turn.
fn sample<T>(list: &[T], turn: usize) -> impl Iterator<Item = (usize, &T)> {
    let step = list.len().div_ceil(MOST).max(1);
    list.iter().enumerate().skip(turn % step).step_by(step)
}

fn at(destination: Destination, why: String) -> To {
    To {
        destination,
        frontend: None,
        label: format!(
            "{why} {}/{}",
            SocketAddr::new(destination.ip, destination.port),
            destination.protocol
        ),
        explicit: false,
    }
}

fn at_frontend(frontend: &Frontend, name: String) -> To {
    To {
        frontend: Some(frontend.clone()),
        ..at(frontend.destination(), format!("{name} {}", frontend.kind))
    }
}

/// Destinations beside the frontends: each Service address with one port that it does not have, and in each family a node's
/// address with the port of a Service. With the owner, if it is a node's, and what it is.
fn nearby(
    cluster: &oracle::Cluster,
    frontends: &[Frontend],
    current: &BTreeSet<Destination>,
    held: &BTreeSet<IpAddr>,
    turn: usize,
) -> Vec<(Destination, Option<String>, String)> {
    let mut found = Vec::new();
    let mut addresses: BTreeMap<IpAddr, &Frontend> = BTreeMap::new();
    for frontend in frontends
        .iter()
        .filter(|frontend| frontend.kind != FrontendKind::NodePort)
    {
        addresses.entry(frontend.ip).or_insert(frontend);
    }
    // What a proxy that mixes things up is most likely to answer: ports of other Services and of endpoints, NodePorts, the same
    // number in another protocol. The next number is there for the case that all of these are the Service's own.
    let others: BTreeSet<(u16, Protocol)> = frontends
        .iter()
        .map(|frontend| (frontend.port, frontend.protocol))
        .chain(
            cluster
                .slices
                .iter()
                .flat_map(oracle::EndpointSlice::ports)
                .filter_map(|port| Some((port.port?, port.protocol))),
        )
        .collect();
    let node_ports: BTreeSet<(u16, Protocol)> = frontends
        .iter()
        .filter(|frontend| frontend.kind == FrontendKind::NodePort)
        .map(|frontend| (frontend.port, frontend.protocol))
        .collect();
    for (index, (ip, frontend)) in addresses.iter().enumerate() {
        let other = match frontend.protocol {
            Protocol::Tcp => Protocol::Udp,
            _ => Protocol::Tcp,
        };
        let free: Vec<(u16, Protocol)> = others
            .iter()
            .copied()
            .chain([(frontend.port, other)])
            .filter(|(port, protocol)| !current.contains(&destination(*ip, *port, *protocol)))
            // Which of a node's addresses serve NodePorts is the proxy's to choose (`nodePortAddresses`).
            .filter(|port| !(held.contains(ip) && node_ports.contains(port)))
            .collect();
        let next = (frontend.port.saturating_add(1), frontend.protocol);
        let (port, protocol) = *pick(&free, turn + index).unwrap_or(&next);
        found.push((
            destination(*ip, port, protocol),
            None,
            format!("unused port of {} {}", frontend.service.1, frontend.kind),
        ));
    }
    for family in Family::ALL {
        let own: Vec<&Frontend> = frontends
            .iter()
            .filter(|frontend| frontend.family == family && frontend.kind != FrontendKind::NodePort)
            .collect();
        let Some((frontend, node)) = pick(&own, turn).zip(pick(&cluster.nodes, turn)) else {
            continue;
        };
        let address = node
            .internal_ips
            .iter()
            .find(|ip| Family::of(**ip) == family);
        found.extend(address.map(|ip| {
            (
                destination(*ip, frontend.port, frontend.protocol),
                Some(node.name.clone()),
                format!("port of {} on {}", frontend.service.1, node.name),
            )
        }));
    }
    found
}

fn destination(ip: IpAddr, port: u16, protocol: Protocol) -> Destination {
    Destination { ip, port, protocol }
}

#[cfg(test)]
mod tests {
    use apiserver::{ApiServer, Config};

    use super::*;
    use crate::scenario::{self, doc::ObjectRef};

    const DOCUMENT: &str = "
id: x
title: X
requirement: [SVC-CIP-1]
topology:
  pods:
    - {name: web-1, node: node1, labels: {app: web}}
    - {name: client-1, node: node1}
    - {name: client-2, node: node2}
objects:
  - apiVersion: v1
    kind: Service
    metadata: {name: web}
    spec:
      type: NodePort
      clusterIP: 10.96.0.10
      clusterIPs: [10.96.0.10, 'fd00:96::a']
      ipFamilies: [IPv4, IPv6]
      ipFamilyPolicy: RequireDualStack
      externalIPs: [$(externalIP.1.ipv4), $(externalIP.1.ipv6)]
      selector: {app: web}
      ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
  - apiVersion: v1
    kind: Service
    metadata: {name: other}
    spec:
      clusterIP: 10.96.0.20
      selector: {app: web}
      ports: [{port: 81, targetPort: 8080}]
steps:
  - converge: {}
";

    fn stage() -> Stage {
        let documents = scenario::read_documents("x.yaml", DOCUMENT).unwrap();
        let case = documents[0].resolve(&documents[0].cases[0]).unwrap();
        let api = ApiServer::new(Config::default()).unwrap();
        let stage = Stage::new(api, case.plan.clone(), &case.scenario).unwrap();
        stage.apply_all(&case.scenario.objects).unwrap();
        stage
    }

    fn all(stage: &Stage, former: &Former, turn: usize) -> Vec<Cell> {
        let cluster = stage.oracle().unwrap();
        let (held, seen) = (BTreeSet::new(), BTreeSet::new());
        cells(stage, &cluster, former, &held, turn, &seen)
    }

    #[test]
    fn every_frontend_is_asked_from_every_class_of_source() {
        let stage = stage();
        let frontends = oracle::frontends(&stage.oracle().unwrap());
        for turn in 0..3 {
            let cells = all(&stage, &Former::default(), turn);
            for frontend in &frontends {
                let from: BTreeSet<&str> = cells
                    .iter()
                    .filter(|cell| cell.to.destination == frontend.destination())
                    .map(|cell| match &cell.from.source {
                        oracle::Source::Pod { node, .. } => node.as_str(),
                        oracle::Source::Node { .. } => "a node",
                        _ => "outside",
                    })
                    .collect();
                let mut wanted: BTreeSet<&str> = ["node1", "node2", "a node"].into();
                if frontend.kind != FrontendKind::ClusterIp {
                    wanted.insert("outside");
                }
                assert_eq!(from, wanted, "{frontend:?}");
            }
            // A client asks rather than the endpoint itself.
            assert!(cells.iter().all(|cell| cell.from.agent != "web-1"));
        }
    }

    #[test]
    fn ports_that_nobody_has_are_asked_and_must_not_answer() {
        let stage = stage();
        let mut ports: BTreeSet<(IpAddr, u16)> = BTreeSet::new();
        for turn in 0..12 {
            for cell in all(&stage, &Former::default(), turn) {
                if cell.to.frontend.is_none() {
                    assert!(!cell.may_answer(), "{} {}", cell.label(), cell.expectation);
                    ports.insert((cell.to.destination.ip, cell.to.destination.port));
                }
            }
        }
        let web: IpAddr = "10.96.0.10".parse().unwrap();
        let other: IpAddr = "10.96.0.20".parse().unwrap();
        let node: IpAddr = "10.89.0.11".parse().unwrap();
        // Another Service's port, the endpoint's, the NodePort, and the port of a Service on a node.
        for near in [
            (web, 81),
            (web, 8080),
            (web, 30080),
            (other, 80),
            (node, 80),
        ] {
            assert!(ports.contains(&near), "{near:?} is not in {ports:?}");
        }
    }

    /// kube-proxy serves NodePorts on every address of a node in iptables mode, and on the primary ones in nftables mode.
    #[test]
    fn an_address_that_a_node_has_is_not_asked_for_node_ports() {
        let stage = stage();
        let cluster = stage.oracle().unwrap();
        let external = oracle::frontends(&cluster)
            .into_iter()
            .find(|frontend| frontend.kind == FrontendKind::ExternalIp)
            .unwrap();
        let asked = |held: &BTreeSet<IpAddr>| {
            let (former, seen) = (Former::default(), BTreeSet::new());
            let ports = (0..12).flat_map(|turn| {
                let cells = cells(&stage, &cluster, &former, held, turn, &seen);
                cells.into_iter().map(|cell| cell.to.destination)
            });
            let ports = ports.filter(|to| to.ip == external.ip).map(|to| to.port);
            ports.collect::<BTreeSet<u16>>()
        };
        let (routed, held) = (asked(&BTreeSet::new()), asked(&[external.ip].into()));
        assert!(routed.contains(&30080), "{routed:?}");
        assert!(!held.contains(&30080), "{held:?}");
        // Everything else is asked as before.
        assert!(held.contains(&8080), "{held:?}");
    }

    #[test]
    fn former_frontends_are_asked_until_somebody_has_them_again() {
        let stage = stage();
        let mut former = Former::default();
        former.remember(&stage.oracle().unwrap());
        let asked = |stage: &Stage| {
            let cells = all(stage, &former, 0);
            let former = cells
                .iter()
                .filter(|cell| cell.to.label.starts_with("former "));
            former
                .map(|cell| cell.to.destination)
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(asked(&stage), BTreeSet::new());
        let frontends = oracle::frontends(&stage.oracle().unwrap());
        let object = serde_json::json!({"kind": "Service", "name": "web"});
        let object: ObjectRef = serde_json::from_value(object).unwrap();
        stage.delete(&object).unwrap();
        let gone = asked(&stage);
        let web = frontends.iter().filter(|one| one.service.1 == "web");
        assert_eq!(gone, web.map(Frontend::destination).collect());
        assert_eq!(gone.len(), 8, "two addresses, two NodePorts, two families");
    }

    #[test]
    fn what_was_just_seen_is_left_out_and_large_worlds_are_sampled() {
        let stage = stage();
        let cluster = stage.oracle().unwrap();
        let cells = all(&stage, &Former::default(), 0);
        let seen: BTreeSet<(String, Destination)> = cells
            .iter()
            .map(|cell| (cell.from.label.clone(), cell.to.destination))
            .collect();
        let (former, held) = (Former::default(), BTreeSet::new());
        let again = super::cells(&stage, &cluster, &former, &held, 0, &seen);
        assert!(again.is_empty());
        let many: Vec<usize> = (0..1_000).collect();
        let turns: BTreeSet<usize> = (0..11)
            .flat_map(|turn| sample(&many, turn).map(|(index, _)| index))
            .collect();
        assert_eq!(turns.len(), many.len());
        assert!(sample(&many, 3).count() <= MOST);
    }
}
