//! Cells of the matrix: who probes what, and what must happen.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use oracle::{Destination, Expectation, Frontend, Source};

use crate::scenario::{
    Stage,
    doc::{Family, FrontendKind, OneOrMany, PortRef, Target},
};

/// A source of traffic.
#[derive(Clone, Debug)]
pub struct From {
    /// Whose agent sends.
    pub agent: String,
    /// Source address to bind; the kernel's choice when absent.
    pub bind: Option<[IpAddr; 2]>,
    /// The source as the oracle sees it.
    pub source: Source,
    /// Short name for reports.
    pub label: String,
    /// Where it reaches NodePorts: the outside client uses the node its address stands for.
    pub nodeport_of: Option<String>,
    /// Asked for by name, not by `all` or `outside`.
    pub explicit: bool,
}

/// A destination.
#[derive(Clone, Debug)]
pub struct To {
    /// Address, port and protocol.
    pub destination: Destination,
    /// The frontend, unless it is a literal address or a pod.
    pub frontend: Option<Frontend>,
    /// Short name for reports.
    pub label: String,
    /// The case asked for this kind of frontend by name.
    pub explicit: bool,
}

/// One source and one destination.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Source.
    pub from: From,
    /// Destination.
    pub to: To,
    /// What must happen.
    pub expectation: Expectation,
    /// Which endpoints it reaches is judged by itself: its Service had session affinity before, and clients that each still stick to
    /// an endpoint of their own look together like one that is spread.
    pub alone: bool,
}

impl Cell {
    /// `pod client -> web ClusterIP 10.96.0.10:80/TCP`.
    pub fn label(&self) -> String {
        format!("{} -> {}", self.from.label, self.to.label)
    }

    /// Destination as a socket address.
    pub fn target(&self) -> SocketAddr {
        SocketAddr::new(self.to.destination.ip, self.to.destination.port)
    }

    /// The node whose proxy decides: the one that owns a NodePort's address, otherwise the one where the packets enter.
    /// Nodes converge each in their own time, so what they choose must not be taken together.
    pub fn decided_by(&self) -> &str {
        let owner = self
            .to
            .frontend
            .as_ref()
            .and_then(|frontend| frontend.node.as_deref());
        owner.or(self.from.source.node()).unwrap_or("-")
    }

    /// Source address to bind.
    pub fn bind(&self) -> Option<IpAddr> {
        self.from.bind.map(|[v4, v6]| {
            if self.to.destination.ip.is_ipv4() {
                v4
            } else {
                v6
            }
        })
    }

    /// Some endpoint has to answer, whatever choice the oracle leaves open.
    pub fn wants_answer(&self) -> bool {
        self.expectation
            .outcomes
            .iter()
            .all(|outcome| matches!(outcome, oracle::Outcome::Endpoints { .. }))
    }

    /// Somebody may answer.
    pub fn may_answer(&self) -> bool {
        self.expectation
            .outcomes
            .iter()
            .any(|outcome| match outcome {
                oracle::Outcome::Endpoints { .. } => true,
                oracle::Outcome::NotService => self.expectation.direct != oracle::Direct::Nobody,
                _ => false,
            })
    }

    /// A refusal has to come, so waiting for it costs nothing where all is well.
    pub fn wants_refusal(&self) -> bool {
        self.expectation.outcomes == [oracle::Outcome::Refuse]
    }
}

/// Resolves sources to agents and addresses.
pub fn sources(stage: &Stage, names: &OneOrMany<String>) -> Vec<From> {
    let mut found = Vec::new();
    for name in names.as_slice() {
        match name.as_str() {
            "all" => {
                for pod in stage.pods().filter(|pod| pod.exists) {
                    found.extend(pod_source(stage, &pod.spec.name, false));
                }
                for node in stage.nodes() {
                    found.push(node_source(&node.name, false));
                    found.extend(outside_source(stage, &node.name, false));
                }
            }
            "outside" => {
                for node in stage.nodes() {
                    found.extend(outside_source(stage, &node.name, false));
                }
            }
            name => {
                if let Some(node) = name.strip_prefix("outside/") {
                    found.extend(outside_source(stage, node, true));
                } else if stage.pod(name).is_some() {
                    found.extend(pod_source(stage, name, true));
                } else if stage.plan().node(name).is_some() {
                    found.push(node_source(name, true));
                } else if let Some(client) = stage.plan().client(name) {
                    found.push(From {
                        agent: name.into(),
                        bind: None,
                        source: Source::Neighbour {
                            ip: client.ipv4.into(),
                        },
                        label: format!("client {name}"),
                        nodeport_of: None,
                        explicit: true,
                    });
                }
            }
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|from| seen.insert(from.label.clone()));
    found
}

pub(super) fn pod_source(stage: &Stage, name: &str, explicit: bool) -> Option<From> {
    let pod = stage.pod(name).filter(|pod| pod.exists)?;
    let addresses = stage.plan().pod(name)?;
    let source = if pod.spec.host_network {
        Source::Node {
            name: pod.spec.node.clone(),
        }
    } else {
        Source::Pod {
            name: name.into(),
            node: pod.spec.node.clone(),
            ips: vec![addresses.ipv4.into(), addresses.ipv6.into()],
        }
    };
    Some(From {
        agent: name.into(),
        bind: None,
        source,
        label: format!("pod {name}"),
        nodeport_of: None,
        explicit,
    })
}

pub(super) fn node_source(name: &str, explicit: bool) -> From {
    From {
        agent: name.into(),
        bind: None,
        source: Source::Node { name: name.into() },
        label: name.into(),
        nodeport_of: None,
        explicit,
    }
}

pub(super) fn outside_source(stage: &Stage, node: &str, explicit: bool) -> Option<From> {
    let addresses = stage.plan().outside(node)?;
    Some(From {
        agent: "outside".into(),
        bind: Some([addresses.ipv4.into(), addresses.ipv6.into()]),
        source: Source::Outside {
            ip: addresses.ipv4.into(),
            via: node.into(),
        },
        label: format!("outside/{node}"),
        nodeport_of: Some(node.into()),
        explicit,
    })
}

/// The family a case is about, or both.
pub fn families(axes: &std::collections::BTreeMap<String, String>) -> Vec<oracle::Family> {
    match axes.get("family").map(String::as_str) {
        Some("ipv4") => vec![oracle::Family::Ipv4],
        Some("ipv6") => vec![oracle::Family::Ipv6],
        _ => oracle::Family::ALL.to_vec(),
    }
}

/// Resolves destinations. Frontends come from the oracle, so that a selector that fits nothing is an empty list.
pub fn targets(
    stage: &Stage,
    cluster: &oracle::Cluster,
    families: &[oracle::Family],
    targets: &[Target],
) -> Vec<To> {
    let frontends = oracle::frontends(cluster);
    let mut found: Vec<To> = Vec::new();
    for target in targets {
        let wanted: Vec<oracle::Family> = match target.family {
            Some(Family::Ipv4) => vec![oracle::Family::Ipv4],
            Some(Family::Ipv6) => vec![oracle::Family::Ipv6],
            None => families.to_vec(),
        };
        if let Some((ips, port, name)) = literal(stage, target) {
            let protocol = target.protocol.unwrap_or_default().into();
            for ip in ips {
                if target.address.is_none() && !wanted.contains(&oracle::Family::of(ip)) {
                    continue;
                }
                found.push(To {
                    destination: Destination { ip, port, protocol },
                    frontend: None,
                    label: format!("{name}{}/{protocol}", SocketAddr::new(ip, port)),
                    explicit: true,
                });
            }
            continue;
        }
        for frontend in frontends
            .iter()
            .filter(|frontend| wanted.contains(&frontend.family))
        {
            if selects(target, frontend) {
                found.push(To {
                    destination: frontend.destination(),
                    label: format!(
                        "{} {} {}/{}",
                        frontend.service.1,
                        frontend.kind,
                        SocketAddr::new(frontend.ip, frontend.port),
                        frontend.protocol
                    ),
                    frontend: Some(frontend.clone()),
                    explicit: target.frontend.is_some(),
                });
            }
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|to| seen.insert(to.label.clone()));
    found
}

/// Addresses, port and a name for a destination that is no frontend.
fn literal(stage: &Stage, target: &Target) -> Option<(Vec<IpAddr>, u16, String)> {
    let Some(PortRef::Number(port)) = target.port else {
        return None;
    };
    if let Some(address) = &target.address {
        return Some((vec![address.parse().ok()?], port, String::new()));
    }
    let pod = target.pod.as_ref()?;
    let addresses = stage.plan().pod(pod)?;
    Some((
        vec![addresses.ipv4.into(), addresses.ipv6.into()],
        port,
        format!("pod {pod} "),
    ))
}

fn selects(target: &Target, frontend: &Frontend) -> bool {
    let kind = match frontend.kind {
        oracle::FrontendKind::ClusterIp => FrontendKind::ClusterIp,
        oracle::FrontendKind::NodePort => FrontendKind::NodePort,
        oracle::FrontendKind::ExternalIp => FrontendKind::ExternalIp,
        oracle::FrontendKind::LoadBalancerIp => FrontendKind::LoadBalancer,
    };
    let named = |port: &PortRef| match port {
        PortRef::Name(name) => *name == frontend.port_name,
        PortRef::Number(number) => *number == frontend.port,
    };
    target
        .service
        .as_ref()
        .is_none_or(|name| *name == frontend.service.1)
        && target
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == frontend.service.0)
        && target
            .frontend
            .as_ref()
            .is_none_or(|kinds| kinds.as_slice().contains(&kind))
        && target.port.as_ref().is_none_or(named)
        && target
            .protocol
            .is_none_or(|protocol| oracle::Protocol::from(protocol) == frontend.protocol)
        && target
            .node
            .as_ref()
            .is_none_or(|node| frontend.node.as_ref() == Some(node))
}

/// The product of sources and destinations, without the cells that nobody asked for by name and that say little:
/// SCTP where it cannot be sent, ClusterIPs from beyond the cluster (a characteristic), and NodePorts of a node that the
/// outside client's address does not stand for.
pub fn product(cluster: &oracle::Cluster, from: &[From], to: &[To]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for from in from {
        for to in to {
            if let Some(frontend) = &to.frontend {
                let outside = from.nodeport_of.is_some();
                if outside
                    && frontend.kind == oracle::FrontendKind::ClusterIp
                    && !(from.explicit || to.explicit)
                {
                    continue;
                }
                if let (Some(node), Some(owner)) = (&from.nodeport_of, &frontend.node)
                    && node != owner
                {
                    continue;
                }
            }
            let source = in_family(&from.source, from.bind, to.destination.ip);
            let expectation = oracle::expect(cluster, &source, &to.destination);
            let from = From {
                source,
                ..from.clone()
            };
            cells.push(Cell {
                from,
                to: to.clone(),
                expectation,
                alone: false,
            });
        }
    }
    cells
}

/// The outside client and neighbours have one address per family.
fn in_family(source: &Source, bind: Option<[IpAddr; 2]>, destination: IpAddr) -> Source {
    match (source, bind) {
        (Source::Outside { via, .. }, Some([v4, v6])) => Source::Outside {
            ip: if destination.is_ipv4() { v4 } else { v6 },
            via: via.clone(),
        },
        _ => source.clone(),
    }
}
