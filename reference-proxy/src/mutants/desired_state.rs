//! Wrong endpoints, wrong frontends, wrong verdicts.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Mutex,
};

use ipnet::IpNet;

use super::{
    Fault, fault,
    memory::{First, lock},
};
use crate::{
    compile::{Compiled, FrontendKind, Surroundings, element},
    endpoints::{EndpointSets, Target, endpoint_sets},
    model::{Endpoint, Service, ServiceKey, Slice, SliceKey, State},
    ruleset::{Data, Element, Family, Frontend, Key, SetId, SetKind, Verdict, View},
    seams::Choice,
};

type Claim = (Frontend, FrontendKind, usize);

/// All endpoints of the chosen port, as often as slices list them.
fn listed<'a>(choice: Choice<'a>) -> impl Iterator<Item = (Target, &'a Endpoint)> {
    let port = choice.port;
    choice
        .slices
        .iter()
        .flat_map(move |(_, slice)| {
            slice
                .ports
                .iter()
                .filter(move |p| p.protocol == port.protocol && p.name == port.name)
                .flat_map(|p| slice.endpoints.iter().map(|e| ((e.ip, p.port), e)))
        })
        .filter(move |(target, _)| Family::of(target.0) == choice.family)
}

/// The choice from other slices.
fn chosen_from<'a>(choice: Choice<'_>, slices: impl Iterator<Item = &'a Slice>) -> EndpointSets {
    let zone = choice.around.node.zone.as_deref();
    endpoint_sets(slices, choice.port, choice.family, zone)
}

/// The frontends of some kinds.
fn frontends_of(frontends: &[Claim], kinds: &[FrontendKind]) -> HashSet<Frontend> {
    frontends
        .iter()
        .filter(|(_, kind, _)| kinds.contains(kind))
        .map(|(frontend, ..)| *frontend)
        .collect()
}

const EXTERNAL: [FrontendKind; 3] = [
    FrontendKind::NodePort,
    FrontendKind::LoadBalancer,
    FrontendKind::ExternalIp,
];

fn frontend_of(key: &Key) -> Option<Frontend> {
    match key {
        Key::Frontend(frontend) | Key::Slot(_, frontend) | Key::Source(frontend, _) => {
            Some(*frontend)
        }
        _ => None,
    }
}

/// Leaves those frontends to routing where the packet comes from a pod of this node or from the node itself.
fn only_from_outside(compiled: &mut Compiled, frontends: &HashSet<Frontend>) {
    let own = std::mem::take(&mut compiled.own);
    let external: HashSet<Key> = own
        .iter()
        .filter(|element| element.set.kind == SetKind::External)
        .map(|element| element.key)
        .collect();
    compiled.own = own
        .into_iter()
        .filter_map(|mut element| {
            let ours = frontend_of(&element.key).is_some_and(|f| frontends.contains(&f));
            if ours && element.set.kind == SetKind::Services {
                if external.contains(&element.key) {
                    return None;
                }
                element.set = SetId::new(SetKind::External, element.set.family);
            }
            Some(element)
        })
        .collect();
}

/// Adds `elements` that are not there yet.
fn extend(elements: &mut Vec<Element>, new: impl IntoIterator<Item = Element>) {
    for element in new {
        let known = elements
            .iter()
            .any(|other| other.set == element.set && other.key == element.key);
        if !known {
            elements.push(element);
        }
    }
}

/// Applies the source ranges of the Service to `frontends`.
fn restrict(service: &Service, frontends: &HashSet<Frontend>, compiled: &mut Compiled) {
    for frontend in frontends {
        let ranges: Vec<IpNet> = service
            .source_ranges
            .iter()
            .copied()
            .filter(|net| Family::of(net.addr()) == Family::of(frontend.ip))
            .collect();
        if !ranges.is_empty() {
            let here = element(SetKind::Restricted, Key::Frontend(*frontend));
            let ranges = ranges
                .into_iter()
                .map(|net| element(SetKind::SourceRanges, Key::Source(*frontend, net)));
            extend(&mut compiled.own, std::iter::once(here).chain(ranges));
        }
    }
}

pub(super) fn all() -> Vec<Fault> {
    vec![
        fault! {
            "one-target-port-for-all": "The target port of the first endpoint is used for all endpoints.";
            bugs ["kpng@e9fc2d5", "bug:E13"];
            violates ["EP-7"];
            does {
                fn endpoints(&self, _choice: Choice<'_>, sets: &mut EndpointSets) {
                    for targets in [&mut sets.common, &mut sets.local] {
                        if let Some((_, port)) = targets.first().copied() {
                            for target in targets {
                                target.1 = port;
                            }
                        }
                    }
                }
            }
        },
        fault! {
            "service-port-is-target-port": "Connections go to the endpoint's port of the Service port's number.";
            bugs ["kpng@6ec42e7", "kubernetes/kubernetes#106044", "bug:E13"];
            violates ["SVC-CIP-1", "EP-7"];
            does {
                fn endpoints(&self, choice: Choice<'_>, sets: &mut EndpointSets) {
                    for target in sets.common.iter_mut().chain(&mut sets.local) {
                        target.1 = choice.port.port;
                    }
                }
            }
        },
        fault! {
            "port-names-ignored": "Every port of a slice serves every port of the Service.";
            bugs ["kpng@1f969b3", "bug:E13", "bug:E16"];
            violates ["EP-7", "SVC-CIP-3"];
            does {
                fn endpoints(&self, choice: Choice<'_>, sets: &mut EndpointSets) {
                    let slices: Vec<Slice> = choice
                        .slices
                        .iter()
                        .map(|(_, slice)| {
                            let mut slice = slice.clone();
                            for port in &mut slice.ports {
                                port.name = choice.port.name.clone();
                            }
                            slice
                        })
                        .collect();
                    *sets = chosen_from(choice, slices.iter());
                }
            }
        },
        fault! {
            "duplicates-count-twice": "An endpoint that two slices list gets twice its share.";
            bugs ["kubernetes/kubernetes#93374", "bug:E9"];
            violates ["EP-4"];
            does {
                fn endpoints(&self, choice: Choice<'_>, sets: &mut EndpointSets) {
                    let usable = sets.common.clone();
                    let ready = listed(choice).filter(|(_, endpoint)| endpoint.state == State::Ready);
                    let all: Vec<Target> = ready
                        .map(|(target, _)| target)
                        .filter(|target| usable.contains(target))
                        .collect();
                    if !all.is_empty() {
                        sets.common = all;
                        sets.common.sort_unstable();
                    }
                }
            }
        },
        fault! {
            "one-copy-gone-is-gone": "An endpoint that two slices list is no longer used when one of them gives it up.";
            bugs ["kubernetes/kubernetes#93374", "bug:E9"];
            violates ["EP-4"];
            remembers {
                before: Mutex<HashMap<SliceKey, HashSet<IpAddr>>>,
                banned: Mutex<HashSet<IpAddr>>,
            }
            does {
                fn endpoints(&self, choice: Choice<'_>, sets: &mut EndpointSets) {
                    let (mut before, mut banned) = (lock(&self.before), lock(&self.banned));
                    for (key, slice) in choice.slices {
                        let now: HashSet<IpAddr> = slice.endpoints.iter().map(|e| e.ip).collect();
                        let then = before.insert(key.clone(), now.clone()).unwrap_or_default();
                        banned.extend(then.difference(&now));
                        for new in now.difference(&then) {
                            banned.remove(new);
                        }
                    }
                    for targets in [&mut sets.common, &mut sets.local] {
                        targets.retain(|target| !banned.contains(&target.0));
                    }
                }
            }
        },
        fault! {
            "worst-copy-counts": "An endpoint that slices list with different conditions is used only if all of them say so.";
            bugs ["kubernetes/kubernetes#135266", "kubernetes/kubernetes#135593", "bug:E7"];
            violates ["EP-5"];
            does {
                fn endpoints(&self, choice: Choice<'_>, sets: &mut EndpointSets) {
                    let unready: HashSet<Target> = listed(choice)
                        .filter(|(_, endpoint)| endpoint.state != State::Ready)
                        .map(|(target, _)| target)
                        .collect();
                    let ready: HashSet<Target> = listed(choice)
                        .filter(|(_, endpoint)| endpoint.state == State::Ready)
                        .map(|(target, _)| target)
                        .collect();
                    for targets in [&mut sets.common, &mut sets.local] {
                        targets.retain(|target| !(ready.contains(target) && unready.contains(target)));
                    }
                }
            }
        },
        fault! {
            "one-port-per-address": "Of several endpoints with one address, one is used.";
            bugs ["kubernetes/kubernetes#101935", "bug:E8"];
            violates ["EP-6"];
            does {
                fn endpoints(&self, _choice: Choice<'_>, sets: &mut EndpointSets) {
                    for targets in [&mut sets.common, &mut sets.local] {
                        targets.dedup_by_key(|target| target.0);
                    }
                }
            }
        },
        fault! {
            "only-one-slice": "Only the first slice of a family is used.";
            bugs ["cilium#26912", "bug:E16", "bug:T5"];
            violates ["EP-8"];
            does {
                fn endpoints(&self, choice: Choice<'_>, sets: &mut EndpointSets) {
                    let ours = |slice: &Slice| {
                        slice.endpoints.iter().any(|e| Family::of(e.ip) == choice.family)
                    };
                    let mut slices = choice.slices.iter().map(|(_, slice)| slice);
                    *sets = chosen_from(choice, slices.find(|slice| ours(slice)).into_iter());
                }
            }
        },
        fault! {
            "last-endpoint-stays": "When the last endpoint goes, the endpoints there were before are kept.";
            bugs ["kubernetes/kubernetes#110301", "bug:E15"];
            violates ["NOEP-4"];
            remembers { before: Mutex<HashMap<(Vec<IpAddr>, u16, Family), EndpointSets>> }
            does {
                fn endpoints(&self, choice: Choice<'_>, sets: &mut EndpointSets) {
                    let id = (choice.service.cluster_ips.clone(), choice.port.port, choice.family);
                    let mut before = lock(&self.before);
                    if !sets.common.is_empty() {
                        before.insert(id, sets.clone());
                    } else if let Some(before) = before.get(&id) {
                        sets.clone_from(before);
                    }
                }
            }
        },
        fault! {
            "any-zone-hint-narrows": "Zone hints narrow the choice although some endpoints have none.";
            bugs ["KEP-2433", "bug:D7"];
            violates ["TP-10"];
            does {
                fn endpoints(&self, choice: Choice<'_>, sets: &mut EndpointSets) {
                    let Some(zone) = choice.around.node.zone.as_deref() else {
                        return;
                    };
                    let ours: HashSet<Target> = listed(choice)
                        .filter(|(_, endpoint)| endpoint.zones.iter().any(|hint| **hint == *zone))
                        .map(|(target, _)| target)
                        .collect();
                    let narrowed: Vec<Target> =
                        sets.common.iter().copied().filter(|target| ours.contains(target)).collect();
                    if !narrowed.is_empty() {
                        sets.common = narrowed;
                    }
                }
            }
        },
        fault! {
            "hints-for-others-leave-nothing": "When no endpoint is meant for this zone, no endpoint is used.";
            bugs ["KEP-2433", "bug:D7"];
            violates ["TP-10"];
            does {
                fn endpoints(&self, choice: Choice<'_>, sets: &mut EndpointSets) {
                    let zone = choice.around.node.zone.as_deref();
                    let hinted = listed(choice).all(|(_, endpoint)| !endpoint.zones.is_empty());
                    let for_us = |endpoint: &Endpoint| {
                        endpoint.zones.iter().any(|hint| Some(&**hint) == zone)
                    };
                    if hinted && !listed(choice).any(|(_, endpoint)| for_us(endpoint)) {
                        sets.common.clear();
                    }
                }
            }
        },
        fault! {
            "hints-narrow-local": "Hints narrow the choice under policy Local too.";
            bugs ["KEP-4444", "bug:D7"];
            violates ["TP-12"];
            does {
                fn endpoints(&self, _choice: Choice<'_>, sets: &mut EndpointSets) {
                    let common = &sets.common;
                    sets.local.retain(|target| common.contains(target));
                }
            }
        },
        fault! {
            "local-falls-back-to-cluster": "Under policy Local, a node without endpoints uses those of other nodes.";
            bugs ["kubernetes/kubernetes#71596", "bug:P3", "bug:P7"];
            violates ["TP-2", "TP-5"];
            does {
                fn endpoints(&self, _choice: Choice<'_>, sets: &mut EndpointSets) {
                    if sets.local.is_empty() {
                        sets.local.clone_from(&sets.common);
                    }
                }
            }
        },
        fault! {
            "local-terminating-unused": "Under policy Local, terminating endpoints are not used while other nodes have ready ones.";
            bugs ["ovn-kubernetes#4170", "bug:E3"];
            violates ["TP-8"];
            does {
                fn endpoints(&self, _choice: Choice<'_>, sets: &mut EndpointSets) {
                    if sets.local_ready == 0 {
                        sets.local.clear();
                    }
                }
            }
        },
        fault! {
            "node-zone-unknown": "The node's zone is not read.";
            bugs ["kubernetes/kubernetes#100804", "bug:D4"];
            violates ["TP-10"];
            does {
                fn surroundings(&self, around: &mut Surroundings) {
                    around.node.zone = None;
                }
            }
        },
        fault! {
            "node-ports-ipv4-only": "NodePorts are served in IPv4 only.";
            bugs ["kube-router@18a0b7af", "bug:B6"];
            violates ["SVC-NP-1"];
            does {
                fn surroundings(&self, around: &mut Surroundings) {
                    around.node_port_ips.retain(IpAddr::is_ipv4);
                }
            }
        },
        fault! {
            "node-port-addresses-ignored": "NodePorts are served at the node's internal addresses, whatever the flag says.";
            bugs ["kubernetes/kubernetes#61953", "kubernetes/kubernetes#82163", "bug:B2"];
            violates ["SVC-NP-3"];
            does {
                fn surroundings(&self, around: &mut Surroundings) {
                    around.node_port_ips.clone_from(&around.node.ips);
                }
            }
        },
        fault! {
            "node-port-needs-local-endpoint": "A NodePort is served only on nodes that have an endpoint.";
            bugs ["kubernetes/kubernetes#99299", "bug:P11"];
            violates ["SVC-NP-1"];
            does {
                fn compiled(&self, _service: &Service, frontends: &[Claim], compiled: &mut Compiled) {
                    if compiled.local_ready == 0 {
                        let node_ports = frontends_of(frontends, &[FrontendKind::NodePort]);
                        compiled.own.retain(|element| {
                            frontend_of(&element.key).is_none_or(|f| !node_ports.contains(&f))
                        });
                    }
                }
            }
        },
        fault! {
            "external-ip-not-served": "External IPs are not served.";
            bugs ["kubernetes/kubernetes#59976", "bug:G6"];
            violates ["SVC-EIP-1", "SVC-EIP-2"];
            does {
                fn frontends(&self, _key: &ServiceKey, _service: &Service, frontends: &mut Vec<Claim>) {
                    frontends.retain(|(_, kind, _)| *kind != FrontendKind::ExternalIp);
                }
            }
        },
        fault! {
            "external-ip-only-from-outside": "Traffic of this node to an external IP leaves the node.";
            bugs ["kubernetes/kubernetes#96296", "kubernetes/kubernetes#95785", "bug:L8"];
            violates ["SVC-EIP-2"];
            does {
                fn compiled(&self, _service: &Service, frontends: &[Claim], compiled: &mut Compiled) {
                    let ours = frontends_of(frontends, &[FrontendKind::ExternalIp]);
                    only_from_outside(compiled, &ours);
                }
            }
        },
        fault! {
            "load-balancer-only-from-outside": "Traffic of this node to a load balancer address leaves the node.";
            bugs ["kubernetes/kubernetes#75262", "cilium#11746", "bug:P1", "bug:P2"];
            violates ["SVC-LB-2"];
            does {
                fn compiled(&self, _service: &Service, frontends: &[Claim], compiled: &mut Compiled) {
                    let ours = frontends_of(frontends, &[FrontendKind::LoadBalancer]);
                    only_from_outside(compiled, &ours);
                }
            }
        },
        fault! {
            "protocols-share-a-port": "Of two frontends with one address and port number but different protocols, one is served.";
            bugs ["e2e:Services should be able to update service type to NodePort listening on same port number but different protocols", "bug:B9"];
            violates ["SVC-NP-6", "SVC-CIP-3"];
            does {
                fn frontends(&self, _key: &ServiceKey, _service: &Service, frontends: &mut Vec<Claim>) {
                    let mut seen = HashSet::new();
                    frontends.retain(|(frontend, ..)| seen.insert((frontend.ip, frontend.port)));
                }
            }
        },
        fault! {
            "frontend-owner-frozen": "A frontend belongs to the Service that had it first, for ever.";
            bugs ["kubernetes/kubernetes#128829", "bug:R11"];
            violates ["CP-10"];
            remembers { owners: First<Frontend, ServiceKey> }
            does {
                fn frontends(&self, key: &ServiceKey, _service: &Service, frontends: &mut Vec<Claim>) {
                    frontends.retain(|(frontend, ..)| self.owners.of(*frontend, key.clone()) == *key);
                }
            }
        },
        fault! {
            "source-ranges-at-node-ports": "loadBalancerSourceRanges apply to NodePorts too.";
            bugs ["cilium#42334", "kubernetes/kubernetes#33586", "bug:G3"];
            violates ["SVC-LB-5"];
            does {
                fn compiled(&self, service: &Service, frontends: &[Claim], compiled: &mut Compiled) {
                    restrict(service, &frontends_of(frontends, &[FrontendKind::NodePort]), compiled);
                }
            }
        },
        fault! {
            "source-ranges-at-cluster-ip": "loadBalancerSourceRanges apply to cluster IPs too.";
            bugs ["cilium#42334", "bug:G3"];
            violates ["SVC-LB-5"];
            does {
                fn compiled(&self, service: &Service, frontends: &[Claim], compiled: &mut Compiled) {
                    restrict(service, &frontends_of(frontends, &[FrontendKind::ClusterIp]), compiled);
                }
            }
        },
        fault! {
            "local-policy-masqueraded": "External traffic is masqueraded although its policy is Local.";
            bugs ["kubernetes/kubernetes#89869", "kubernetes/kubernetes#121909", "bug:P4", "bug:P5"];
            violates ["SRC-2"];
            does {
                fn compiled(&self, _service: &Service, frontends: &[Claim], compiled: &mut Compiled) {
                    let all = frontends_of(frontends, &EXTERNAL);
                    extend(
                        &mut compiled.own,
                        all.into_iter().map(|f| element(SetKind::Masquerade, Key::Frontend(f))),
                    );
                }
            }
        },
        fault! {
            "local-policy-refuses": "Under externalTrafficPolicy Local, a node without endpoints refuses what it should drop.";
            bugs ["kubernetes/kubernetes#48719", "bug:P3"];
            violates ["TP-5"];
            does {
                fn compiled(&self, _service: &Service, _frontends: &[Claim], compiled: &mut Compiled) {
                    for element in &mut compiled.own {
                        if element.data == Data::Verdict(Verdict::Drop) {
                            element.data = Data::Verdict(Verdict::Refuse);
                        }
                    }
                }
            }
        },
        fault! {
            "hairpin-needs-node-name": "Only endpoints whose nodeName is this node's may call themselves.";
            bugs ["kubernetes/kubernetes#136499", "bug:P10"];
            violates ["SRC-6"];
            remembers { local: Mutex<HashSet<IpAddr>> }
            does {
                fn endpoints(&self, _choice: Choice<'_>, sets: &mut EndpointSets) {
                    lock(&self.local).extend(&sets.on_this_node);
                }
                fn compiled(&self, _service: &Service, _frontends: &[Claim], compiled: &mut Compiled) {
                    let local = lock(&self.local);
                    compiled.shared.retain(|element| match element.key {
                        Key::Itself(ip) => local.contains(&ip),
                        _ => true,
                    });
                }
            }
        },
        fault! {
            "first-endpoint-counts-twice": "The first endpoint gets twice its share.";
            bugs ["kubernetes/kubernetes#34321", "kubernetes/kubernetes#83599", "bug:D2", "bug:D1"];
            violates ["DIST-1"];
            does {
                fn compiled(&self, _service: &Service, _frontends: &[Claim], compiled: &mut Compiled) {
                    let counts: HashMap<(SetKind, Frontend), u32> = compiled
                        .own
                        .iter_mut()
                        .filter_map(|element| match (&mut element.data, element.key) {
                            (Data::Verdict(Verdict::Balance { view, endpoints, .. }), Key::Frontend(f))
                                if *endpoints > 1 =>
                            {
                                *endpoints += 1;
                                let map = match view {
                                    View::Common => SetKind::Endpoints,
                                    View::External => SetKind::ExternalEndpoints,
                                };
                                Some(((map, f), *endpoints - 1))
                            }
                            _ => None,
                        })
                        .collect();
                    let again: Vec<Element> = compiled
                        .own
                        .iter()
                        .filter_map(|element| match element.key {
                            Key::Slot(0, f) => {
                                let slot = *counts.get(&(element.set.kind, f))?;
                                Some(Element { key: Key::Slot(slot, f), ..*element })
                            }
                            _ => None,
                        })
                        .collect();
                    compiled.own.extend(again);
                }
            }
        },
        fault! {
            "affinity-only-at-cluster-ip": "Session affinity holds at cluster IPs only.";
            bugs ["kubernetes/kubernetes#55429", "kubernetes/kubernetes#52626", "bug:A5", "bug:A10"];
            violates ["AFF-3"];
            does {
                fn compiled(&self, _service: &Service, frontends: &[Claim], compiled: &mut Compiled) {
                    let all = frontends_of(frontends, &EXTERNAL);
                    compiled.own.retain_mut(|element| {
                        let ours = frontend_of(&element.key).is_some_and(|f| all.contains(&f));
                        if let (true, Data::Verdict(Verdict::Balance { sticky, .. })) = (ours, &mut element.data) {
                            *sticky = false;
                        }
                        !(ours && matches!(element.set.kind, SetKind::Sticky(_)))
                    });
                }
            }
        },
        fault! {
            "affinity-not-under-local": "Session affinity has no effect where externalTrafficPolicy Local decides.";
            bugs ["kubernetes/kubernetes#55429", "kubernetes/kubernetes#55519", "bug:A5"];
            violates ["AFF-3"];
            does {
                fn compiled(&self, service: &Service, frontends: &[Claim], compiled: &mut Compiled) {
                    if !service.external_local {
                        return;
                    }
                    let all = frontends_of(frontends, &EXTERNAL);
                    compiled.own.retain_mut(|element| {
                        let ours = frontend_of(&element.key).is_some_and(|f| all.contains(&f));
                        if let (true, Data::Verdict(Verdict::Balance { sticky, .. })) = (ours, &mut element.data) {
                            *sticky = false;
                        }
                        !(ours && matches!(element.set.kind, SetKind::Sticky(_)))
                    });
                }
            }
        },
        fault! {
            "external-without-endpoints-silent": "External frontends of a Service without endpoints drop instead of refusing.";
            bugs ["kubernetes/kubernetes#44516", "kubernetes/kubernetes#48719", "bug:N2"];
            violates ["NOEP-2"];
            does {
                fn compiled(&self, _service: &Service, frontends: &[Claim], compiled: &mut Compiled) {
                    let all = frontends_of(frontends, &EXTERNAL);
                    for element in &mut compiled.own {
                        let ours = frontend_of(&element.key).is_some_and(|f| all.contains(&f));
                        if ours && element.data == Data::Verdict(Verdict::Refuse) {
                            element.data = Data::Verdict(Verdict::Drop);
                        }
                    }
                }
            }
        },
        fault! {
            "node-addresses-like-cluster-ips": "What reaches the node at a port that is no NodePort is refused.";
            bugs ["kubernetes/kubernetes#97360", "calico#2024", "bug:N4"];
            violates ["SVC-NP-7"];
            does {
                fn node_elements(&self, around: &Surroundings, elements: &mut Vec<Element>) {
                    let ips = around.node.ips.iter();
                    elements.extend(ips.map(|ip| element(SetKind::ClusterIps, Key::Ip(*ip))));
                }
            }
        },
        fault! {
            "whole-cluster-is-local": "Pods of all nodes are taken for pods of this one, so they are not masqueraded at a NodePort here.";
            bugs ["kubernetes/kubernetes#44916", "kubernetes/kubernetes#111321", "bug:H6", "bug:H7"];
            violates ["SVC-NP-2"];
            does {
                fn node_elements(&self, around: &Surroundings, elements: &mut Vec<Element>) {
                    elements.retain(|element| element.set.kind != SetKind::LocalSources);
                    let mut nets = around.cluster_cidrs.clone();
                    nets.extend(around.node.pod_cidrs.iter());
                    nets.extend(around.node.ips.iter().map(|ip| IpNet::from(*ip)));
                    let nets = IpNet::aggregate(&nets);
                    elements.extend(nets.into_iter().map(|net| element(SetKind::LocalSources, Key::Net(net))));
                }
            }
        },
        fault! {
            "health-counts-all-nodes": "Health checks count the endpoints of all nodes.";
            bugs ["cilium#11043", "kubernetes/kubernetes#44311", "bug:G8", "bug:G7"];
            violates ["HC-1", "HC-3"];
            does {
                fn endpoints(&self, _choice: Choice<'_>, sets: &mut EndpointSets) {
                    sets.local_ready = sets.common.len();
                }
            }
        },
        fault! {
            "health-counts-terminating": "Health checks count terminating endpoints.";
            bugs ["KEP-1669", "bug:G11"];
            violates ["HC-2"];
            does {
                fn endpoints(&self, _choice: Choice<'_>, sets: &mut EndpointSets) {
                    sets.local_ready = sets.local.len();
                }
            }
        },
    ]
}
