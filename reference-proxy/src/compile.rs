//! A Service and its slices become elements. Pure: no clock, no kernel, no other Service.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::{
    endpoints::{EndpointSets, Target, endpoint_sets},
    model::{Node, Service, ServicePort, Slice, SliceKey},
    ruleset::{Data, Element, Family, Frontend, Key, Protocol, SetId, SetKind, Verdict, View},
    seams::{Choice, Seams},
};

/// What the compiler knows about this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The Node object.
    pub node: Node,
    /// The addresses that serve node ports.
    pub node_port_ips: Vec<IpAddr>,
    /// `--cluster-cidr`.
    pub cluster_cidrs: Vec<IpNet>,
}

/// The kind of a frontend. When two Services claim the same one, the lower kind wins: nobody takes over another Service's cluster IP by
/// listing it as an external IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrontendKind {
    /// A cluster IP.
    ClusterIp,
    /// A node port at a node's address.
    NodePort,
    /// A load balancer IP.
    LoadBalancer,
    /// An external IP.
    ExternalIp,
}

/// All frontends of a Service with the index of the port, sorted, each once. A Service has no frontends in a family in which it has no cluster
/// IP, whatever external IPs it lists and whatever addresses the node has.
pub fn frontends(service: &Service, around: &Surroundings) -> Vec<(Frontend, FrontendKind, usize)> {
    let mut out = Vec::new();
    let families: Vec<Family> = service
        .cluster_ips
        .iter()
        .copied()
        .map(Family::of)
        .collect();
    for (at, port) in service.ports.iter().enumerate() {
        let mut push = |ips: &[IpAddr], kind, number| {
            let ips = ips.iter().filter(|ip| families.contains(&Family::of(**ip)));
            out.extend(ips.map(|ip| {
                let frontend = Frontend {
                    ip: *ip,
                    protocol: port.protocol,
                    port: number,
                };
                (frontend, kind, at)
            }));
        };
        push(&service.cluster_ips, FrontendKind::ClusterIp, port.port);
        push(&service.external_ips, FrontendKind::ExternalIp, port.port);
        push(
            &service.load_balancer_ips,
            FrontendKind::LoadBalancer,
            port.port,
        );
        if let Some(node_port) = port.node_port {
            push(&around.node_port_ips, FrontendKind::NodePort, node_port);
        }
    }
    out.sort_unstable();
    // The lowest kind of an address that occurs twice comes first.
    out.dedup_by(|later, first| later.0 == first.0);
    out.shrink_to_fit();
    out
}

/// What a Service contributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Elements that nobody else has, sorted.
    pub own: Vec<Element>,
    /// Elements that other Services may have as well, sorted, each once.
    pub shared: Vec<Element>,
    /// UDP frontends and the endpoints that established flows may have.
    pub udp: Vec<(Frontend, Vec<SocketAddr>)>,
    /// Ready local endpoints, when a load balancer asks for them.
    pub local_ready: usize,
    /// Whether some family has endpoints and a `Local` policy, but none on this node: internal, external; IPv4, IPv6.
    pub no_local: [[bool; 2]; 2],
}

/// Compiles a Service, for those of its frontends that `owned` says it owns.
pub fn compile<S: Seams + ?Sized>(
    service: &Service,
    slices: &[(SliceKey, Slice)],
    around: &Surroundings,
    frontends: &[(Frontend, FrontendKind, usize)],
    owned: impl Fn(&Frontend) -> bool,
    seams: &S,
) -> Compiled {
    let mut out = Compiled::default();
    for family in Family::ALL {
        let sets: Vec<Option<EndpointSets>> = service
            .ports
            .iter()
            .enumerate()
            .map(|(at, port)| {
                // A family without frontends needs no endpoints.
                frontends
                    .iter()
                    .any(|(f, _, port)| *port == at && Family::of(f.ip) == family)
                    .then(|| {
                        let zone = around.node.zone.as_deref();
                        let all = slices.iter().map(|(_, slice)| slice);
                        let mut sets = endpoint_sets(all, port, family, zone);
                        let choice = Choice {
                            service,
                            port,
                            family,
                            slices,
                            around,
                        };
                        seams.endpoints(choice, &mut sets);
                        sets
                    })
            })
            .collect();
        for (frontend, kind, at) in frontends {
            if Family::of(frontend.ip) != family || !owned(frontend) {
                continue;
            }
            if let (Some(port), Some(Some(sets))) = (service.ports.get(*at), sets.get(*at)) {
                let one = OneFrontend {
                    service,
                    port,
                    sets,
                    family,
                    frontend: *frontend,
                    kind: *kind,
                };
                one.compile(around, &mut out);
            }
        }
        out.local_ready = out.local_ready.max(
            sets.iter()
                .flatten()
                .map(|sets| sets.local_ready)
                .max()
                .unwrap_or(0),
        );
    }
    for ip in &service.cluster_ips {
        out.shared.push(element(SetKind::ClusterIps, Key::Ip(*ip)));
    }
    seams.compiled(service, frontends, &mut out);
    out.own.sort_unstable();
    out.shared.sort_unstable();
    out.shared.dedup();
    // Ten thousand Services keep these for as long as they live.
    out.own.shrink_to_fit();
    out.shared.shrink_to_fit();
    out.udp.shrink_to_fit();
    out
}

/// An element of a set of the family of its key.
pub(crate) fn element(kind: SetKind, key: Key) -> Element {
    let ip = match key {
        Key::Frontend(frontend)
        | Key::Slot(_, frontend)
        | Key::Source(frontend, _)
        | Key::Client(_, frontend) => frontend.ip,
        Key::Ip(ip) | Key::Itself(ip) => ip,
        Key::Net(net) => net.addr(),
    };
    Element {
        set: SetId::new(kind, Family::of(ip)),
        key,
        data: Data::None,
    }
}

struct OneFrontend<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    sets: &'a EndpointSets,
    family: Family,
    frontend: Frontend,
    kind: FrontendKind,
}

impl OneFrontend<'_> {
    fn compile(&self, around: &Surroundings, out: &mut Compiled) {
        let Self {
            service,
            sets,
            frontend,
            ..
        } = self;
        let nowhere = sets.common.is_empty() && sets.local.is_empty();
        let external = self.kind != FrontendKind::ClusterIp;
        let local_policy = if external {
            service.external_local
        } else {
            service.internal_local
        };
        if local_policy && sets.local.is_empty() && !nowhere {
            out.no_local[usize::from(external)][usize::from(self.family == Family::V6)] = true;
        }

        // Clients in the cluster reach external addresses as if the policy were `Cluster`: for them there is no load balancer in between.
        let common = if !external && service.internal_local {
            &sets.local
        } else {
            &sets.common
        };
        self.dispatch(SetKind::Services, View::Common, common, nowhere, out);
        if external && service.external_local && sets.local != sets.common {
            self.dispatch(SetKind::External, View::External, &sets.local, nowhere, out);
        }

        let here = Key::Frontend(*frontend);
        if !nowhere {
            if external && !service.external_local {
                out.own.push(element(SetKind::Masquerade, here));
            }
            if let Some(seconds) = service.affinity {
                out.own.push(element(SetKind::Sticky(seconds), here));
            }
        }
        if self.kind == FrontendKind::LoadBalancer {
            let family = self.family;
            let ranges: Vec<IpNet> = service
                .source_ranges
                .iter()
                .copied()
                .filter(|net| Family::of(net.addr()) == family)
                .collect();
            if !ranges.is_empty() {
                out.own.push(element(SetKind::Restricted, here));
                out.own.extend(
                    ranges
                        .into_iter()
                        .map(|net| element(SetKind::SourceRanges, Key::Source(*frontend, net))),
                );
            }
        }
        for (ip, port) in sets.common.iter().chain(&sets.local) {
            let target = Frontend {
                ip: *ip,
                protocol: self.port.protocol,
                port: *port,
            };
            out.shared
                .push(element(SetKind::Targets, Key::Frontend(target)));
            // A connection of the node with itself needs no detour: its replies do not leave the node.
            let pod_here = sets.on_this_node.contains(ip)
                || around.node.pod_cidrs.iter().any(|net| net.contains(ip));
            if pod_here && !around.node.ips.contains(ip) {
                out.shared.push(element(SetKind::Hairpin, Key::Itself(*ip)));
            }
        }
        if frontend.protocol == Protocol::Udp {
            out.udp.push((*frontend, sets.serving.clone()));
        }
    }

    fn dispatch(
        &self,
        kind: SetKind,
        view: View,
        targets: &[Target],
        nowhere: bool,
        out: &mut Compiled,
    ) {
        let verdict = if targets.is_empty() {
            // A policy that finds nothing on this node is no reason to tell the client that the Service is gone.
            if nowhere {
                Verdict::Refuse
            } else {
                Verdict::Drop
            }
        } else {
            Verdict::Balance {
                view,
                endpoints: targets.len() as u32,
                sticky: self.service.affinity.is_some(),
            }
        };
        out.own.push(Element {
            data: Data::Verdict(verdict),
            ..element(kind, Key::Frontend(self.frontend))
        });
        let map = match view {
            View::Common => SetKind::Endpoints,
            View::External => SetKind::ExternalEndpoints,
        };
        out.own.extend(
            targets
                .iter()
                .enumerate()
                .map(|(slot, (ip, port))| Element {
                    data: Data::Endpoint(*ip, *port),
                    ..element(map, Key::Slot(slot as u32, self.frontend))
                }),
        );
    }
}

/// The elements that belong to the node and to no Service.
///
/// Three questions about a source address, which have different answers when a flag or the Node object does not say everything:
/// - [`SetKind::ClusterSources`]: may it use a cluster IP unmasqueraded? The cluster's pods: `--cluster-cidr`, else the node's pod ranges.
/// - [`SetKind::Pods`]: is it a pod that enters the Service network here? The node's pod ranges, else `--cluster-cidr`.
/// - [`SetKind::LocalSources`]: do its replies pass this node anyway? The node's pod ranges and addresses.
pub fn compile_node(around: &Surroundings) -> Vec<Element> {
    let pods = &around.node.pod_cidrs;
    let cluster = &around.cluster_cidrs;
    let or = |a: &Vec<IpNet>, b: &Vec<IpNet>| if a.is_empty() { b.clone() } else { a.clone() };
    let mut local = pods.clone();
    local.extend(around.node.ips.iter().map(|ip| IpNet::from(*ip)));
    let mut out = Vec::new();
    for (kind, nets) in [
        (SetKind::ClusterSources, or(cluster, pods)),
        (SetKind::Pods, or(pods, cluster)),
        (SetKind::LocalSources, local),
    ] {
        out.extend(
            IpNet::aggregate(&nets)
                .into_iter()
                .map(|net| element(kind, Key::Net(net))),
        );
    }
    out.sort_unstable();
    out
}
