//! Which endpoints a Service port has, seen from this node.
//!
//! ```text
//!   slices ──port name + protocol, family──> (address, port), each once
//!      ├── common: ready, kept by node hints, else by zone hints;  else serving and terminating
//!      └── local:  ready and on this node;                         else serving, terminating and on this node
//! ```
//!
//! Sources: the EndpointSlice API, KEP-1669 (terminating), KEP-2433 and KEP-3015 (hints), KEP-2086 (policies).

use std::net::{IpAddr, SocketAddr};

use crate::{
    model::{Endpoint, ServicePort, Slice, State},
    ruleset::Family,
};

/// Where a connection can go.
pub type Target = (IpAddr, u16);

/// The endpoints of one Service port in one family, each list sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSets {
    /// For policy `Cluster`.
    pub common: Vec<Target>,
    /// For policy `Local`.
    pub local: Vec<Target>,
    /// How many of the local ones are ready. Load balancers count no others (KEP-1669).
    pub local_ready: usize,
    /// Those that answer, wherever they are and whomever they are meant for: established UDP flows to them may go on.
    pub serving: Vec<SocketAddr>,
    /// The local ones of both lists, including those that a hint keeps from being used.
    pub on_this_node: Vec<IpAddr>,
}

struct Candidate<'a> {
    target: Target,
    endpoint: &'a Endpoint,
    local: bool,
}

/// Collects the endpoints of `port`. `zone` is this node's.
pub fn endpoint_sets<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    port: &ServicePort,
    family: Family,
    zone: Option<&str>,
) -> EndpointSets {
    let mut candidates: Vec<Candidate<'a>> = slices
        .flat_map(|slice| {
            slice
                .ports
                .iter()
                .filter(|p| p.protocol == port.protocol && p.name == port.name)
                .flat_map(|p| {
                    slice.endpoints.iter().map(|endpoint| Candidate {
                        target: (endpoint.ip, p.port),
                        endpoint,
                        local: endpoint.local,
                    })
                })
        })
        .filter(|candidate| Family::of(candidate.target.0) == family)
        .collect();
    // The most usable copy first, local before remote, so that merging keeps it whatever the order of slices was.
    candidates.sort_by(|a, b| {
        let rank = |c: &Candidate<'_>| (c.endpoint.state, c.local, c.endpoint.for_this_node);
        a.target
            .cmp(&b.target)
            .then_with(|| rank(b).cmp(&rank(a)))
            .then_with(|| a.endpoint.zones.cmp(&b.endpoint.zones))
    });
    candidates.dedup_by(|later, first| later.target == first.target);

    let pick = |keep: &dyn Fn(&Candidate<'_>) -> bool| -> Vec<Target> {
        candidates
            .iter()
            .filter(|c| keep(c))
            .map(|c| c.target)
            .collect()
    };
    let ready = |c: &Candidate<'_>| c.endpoint.state == State::Ready;
    let terminating = |c: &Candidate<'_>| c.endpoint.state == State::Terminating;

    let hints = Hints::of(
        candidates.iter().filter(|c| ready(c)).map(|c| c.endpoint),
        zone,
    );
    let mut common = pick(&|c| ready(c) && hints.keeps(c.endpoint, zone));
    if common.is_empty() {
        common = pick(&terminating);
    }
    let mut local = pick(&|c| ready(c) && c.local);
    let local_ready = local.len();
    if local.is_empty() {
        local = pick(&|c| terminating(c) && c.local);
    }
    let serving = candidates
        .iter()
        .filter(|c| c.endpoint.state != State::Unusable { serving: false })
        .map(|c| SocketAddr::from(c.target))
        .collect();
    let mut on_this_node: Vec<IpAddr> = candidates
        .iter()
        .filter(|c| c.local)
        .map(|c| c.target.0)
        .collect();
    on_this_node.dedup();
    EndpointSets {
        common,
        local,
        local_ready,
        serving,
        on_this_node,
    }
}

/// How hints narrow the common list. They only do if every ready endpoint has them and one is meant for us; else they are ignored, because
/// a few endpoints without hints mean that somebody is still working on them.
enum Hints {
    Ignored,
    Node,
    Zone,
}

impl Hints {
    fn of<'a>(ready: impl Iterator<Item = &'a Endpoint>, zone: Option<&str>) -> Self {
        let (mut all_nodes, mut all_zones) = (true, true);
        let (mut our_node, mut our_zone) = (false, false);
        for endpoint in ready {
            all_nodes &= endpoint.for_this_node.is_some();
            our_node |= endpoint.for_this_node == Some(true);
            all_zones &= !endpoint.zones.is_empty();
            our_zone |= in_zone(endpoint, zone);
        }
        if all_nodes && our_node {
            Self::Node
        } else if all_zones && our_zone {
            Self::Zone
        } else {
            Self::Ignored
        }
    }

    fn keeps(&self, endpoint: &Endpoint, zone: Option<&str>) -> bool {
        match self {
            Self::Ignored => true,
            Self::Node => endpoint.for_this_node == Some(true),
            Self::Zone => in_zone(endpoint, zone),
        }
    }
}

fn in_zone(endpoint: &Endpoint, zone: Option<&str>) -> bool {
    zone.is_some_and(|zone| endpoint.zones.iter().any(|hint| **hint == *zone))
}

#[cfg(test)]
mod tests;
