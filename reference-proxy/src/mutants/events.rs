//! Objects read wrongly, and events that get lost.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use kube::api::ObjectMeta;

use super::{
    Fault, fault,
    memory::{First, lock},
};
use crate::{
    engine::{Event, Feed},
    objects::{
        EndpointConditions, EndpointSliceObject, NodeObject, NodeSpec, NodeStatus, PortSpec,
        ServiceObject, ServiceSpec, SliceEndpoint,
    },
};

const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

fn key(meta: &ObjectMeta) -> String {
    format!(
        "{}/{}",
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default()
    )
}

fn endpoints(slice: &mut EndpointSliceObject) -> impl Iterator<Item = &mut SliceEndpoint> {
    slice.endpoints.iter_mut().flatten()
}

fn conditions(slice: &mut EndpointSliceObject) -> impl Iterator<Item = &mut EndpointConditions> {
    endpoints(slice).map(|endpoint| endpoint.conditions.get_or_insert_default())
}

/// The part of the specification that a mutant is about, for Services that have one.
fn spec(service: &mut ServiceObject) -> Option<(String, &mut ServiceSpec)> {
    Some((key(&service.metadata), service.spec.as_mut()?))
}

fn family(text: &str) -> Option<bool> {
    Some(text.parse::<IpAddr>().ok()?.is_ipv4())
}

/// Whether some address of the Service cannot be used: it is none, or of a family that the Service does not have.
fn has_strange_address(service: &ServiceObject) -> bool {
    let Some(spec) = &service.spec else {
        return false;
    };
    let families: HashSet<Option<bool>> = spec
        .cluster_ips
        .iter()
        .flatten()
        .map(|ip| family(ip))
        .collect();
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    let addresses = spec
        .external_ips
        .iter()
        .flatten()
        .map(String::as_str)
        .chain(ranges.map(|range| range.split('/').next().unwrap_or_default()));
    addresses
        .map(family)
        .any(|family| family.is_none() || !families.contains(&family))
}

pub(super) fn all() -> Vec<Fault> {
    vec![
        fault! {
            "nil-ready-is-false": "An absent ready condition is read as false.";
            bugs ["kube-router@aebaa48e", "bug:E5"];
            violates ["EP-2"];
            does {
                fn slice_object(&self, slice: &mut EndpointSliceObject, _node: &str) {
                    for conditions in conditions(slice) {
                        conditions.ready.get_or_insert(false);
                    }
                }
            }
        },
        fault! {
            "conditions-ignored": "Every endpoint of a slice is used, whatever its conditions say.";
            bugs ["kubernetes/kubernetes#106030", "bug:E1"];
            violates ["EP-1"];
            does {
                fn slice_object(&self, slice: &mut EndpointSliceObject, _node: &str) {
                    for conditions in conditions(slice) {
                        *conditions = EndpointConditions::default();
                    }
                }
            }
        },
        fault! {
            "readiness-frozen": "An endpoint that was ready once counts as ready for as long as a slice lists it.";
            bugs ["ovn-kubernetes#1109", "bug:E12"];
            violates ["EP-12", "EP-1"];
            remembers { ready: Mutex<HashSet<(String, String)>> }
            does {
                fn slice_object(&self, slice: &mut EndpointSliceObject, _node: &str) {
                    let slice_key = key(&slice.metadata);
                    let mut ready = lock(&self.ready);
                    for endpoint in endpoints(slice) {
                        let address = endpoint.addresses.iter().flatten().next().cloned();
                        let id = (slice_key.clone(), address.unwrap_or_default());
                        let conditions = endpoint.conditions.get_or_insert_default();
                        if conditions.ready != Some(false) {
                            ready.insert(id);
                        } else if ready.contains(&id) {
                            conditions.ready = Some(true);
                        }
                    }
                }
            }
        },
        fault! {
            "terminating-counts-as-ready": "An endpoint that is terminating and still serves gets new flows beside ready ones.";
            bugs ["cilium#27096", "bug:E6", "bug:E2"];
            violates ["EP-3"];
            does {
                fn slice_object(&self, slice: &mut EndpointSliceObject, _node: &str) {
                    for conditions in conditions(slice) {
                        if conditions.terminating == Some(true) && conditions.serving == Some(true) {
                            conditions.ready = Some(true);
                        }
                    }
                }
            }
        },
        fault! {
            "terminating-never-used": "An endpoint that is terminating gets no flows, even when there is no other.";
            bugs ["kube-router#1612", "bug:E4", "bug:E2"];
            violates ["EP-3", "TP-8"];
            does {
                fn slice_object(&self, slice: &mut EndpointSliceObject, _node: &str) {
                    for conditions in conditions(slice) {
                        if conditions.terminating == Some(true) {
                            conditions.serving = Some(false);
                        }
                    }
                }
            }
        },
        fault! {
            "no-node-name-is-local": "An endpoint without a nodeName is taken for one of this node.";
            bugs ["kubernetes/kubernetes#57518", "bug:P10"];
            violates ["TP-9"];
            does {
                fn slice_object(&self, slice: &mut EndpointSliceObject, node: &str) {
                    for endpoint in endpoints(slice) {
                        endpoint.node_name.get_or_insert_with(|| node.to_owned());
                    }
                }
            }
        },
        fault! {
            "no-node-name-is-ignored": "An endpoint without a nodeName is not used.";
            bugs ["kube-router@36b3a3ae", "bug:E14"];
            violates ["EP-14"];
            does {
                fn slice_object(&self, slice: &mut EndpointSliceObject, _node: &str) {
                    if let Some(endpoints) = &mut slice.endpoints {
                        endpoints.retain(|endpoint| endpoint.node_name.is_some());
                    }
                }
            }
        },
        fault! {
            "all-addresses-of-an-endpoint": "Each address of an endpoint is taken for an endpoint of its own.";
            bugs ["api:Endpoint.addresses"];
            violates ["EP-11"];
            does {
                fn slice_object(&self, slice: &mut EndpointSliceObject, _node: &str) {
                    let Some(endpoints) = &mut slice.endpoints else {
                        return;
                    };
                    *endpoints = endpoints
                        .iter()
                        .flat_map(|endpoint| {
                            let addresses = endpoint.addresses.iter().flatten();
                            addresses.map(|address| SliceEndpoint {
                                addresses: Some(vec![address.clone()]),
                                ..endpoint.clone()
                            })
                        })
                        .collect();
                }
            }
        },
        fault! {
            "slice-belongs-by-name": "A slice is used only if its name begins with the name of its Service.";
            bugs ["kube-router@36b3a3ae", "bug:E14"];
            violates ["EP-9"];
            does {
                fn slice_object(&self, slice: &mut EndpointSliceObject, _node: &str) {
                    let name = slice.metadata.name.clone().unwrap_or_default();
                    let labels = slice.metadata.labels.get_or_insert_default();
                    labels.retain(|label, service| {
                        label != crate::model::SERVICE_NAME_LABEL || name.starts_with(service.as_str())
                    });
                }
            }
        },
        fault! {
            "ipv6-slices-ignored": "Slices of IPv6 addresses are not used.";
            bugs ["kube-router@e4919f39", "kpng#450", "bug:F8", "bug:F6"];
            violates ["FAM-1", "FAM-2"];
            does {
                fn slice_object(&self, slice: &mut EndpointSliceObject, _node: &str) {
                    if slice.address_type.as_deref() == Some("IPv6") {
                        slice.endpoints = None;
                    }
                }
            }
        },
        fault! {
            "target-port-frozen": "A slice keeps the target ports that it had at first.";
            bugs ["felix@91ff776bc", "bug:U21", "bug:E18"];
            violates ["UDP-4"];
            remembers { ports: First<(String, Option<String>), Option<i32>> }
            does {
                fn slice_object(&self, slice: &mut EndpointSliceObject, _node: &str) {
                    let slice_key = key(&slice.metadata);
                    for port in slice.ports.iter_mut().flatten() {
                        port.port = self.ports.of((slice_key.clone(), port.name.clone()), port.port);
                    }
                }
            }
        },
        fault! {
            "zone-hints-ignored": "Zone hints have no effect.";
            bugs ["kubernetes/kubernetes#101525", "bug:D4"];
            violates ["TP-10"];
            does {
                fn slice_object(&self, slice: &mut EndpointSliceObject, _node: &str) {
                    for endpoint in endpoints(slice) {
                        if let Some(hints) = &mut endpoint.hints {
                            hints.for_zones = None;
                        }
                    }
                }
            }
        },
        fault! {
            "node-hints-ignored": "Node hints have no effect.";
            bugs ["KEP-3015", "bug:D7"];
            violates ["TP-11"];
            does {
                fn slice_object(&self, slice: &mut EndpointSliceObject, _node: &str) {
                    for endpoint in endpoints(slice) {
                        if let Some(hints) = &mut endpoint.hints {
                            hints.for_nodes = None;
                        }
                    }
                }
            }
        },
        fault! {
            "headless-label-ignored": "Slices with the label service.kubernetes.io/headless are used.";
            bugs ["kubernetes/kubernetes#134623", "kube-router#1591", "bug:L1", "bug:L3"];
            violates ["FLT-3"];
            does {
                fn selector(&self, feed: Feed) -> &'static str {
                    match feed {
                        Feed::Slices => "",
                        other => crate::watch::selector(other),
                    }
                }
            }
        },
        fault! {
            "proxy-name-label-ignored": "Services of another proxy are served.";
            bugs ["kpng#61", "antrea#4973", "bug:L1"];
            violates ["FLT-2"];
            does {
                fn selector(&self, feed: Feed) -> &'static str {
                    match feed {
                        Feed::Services => "!service.kubernetes.io/headless",
                        other => crate::watch::selector(other),
                    }
                }
            }
        },
        fault! {
            "label-toggles-ignored": "A Service goes on being served, or not, as its labels said at first.";
            bugs ["kubernetes/kubernetes#98577", "bug:L2", "bug:L1"];
            violates ["FLT-5"];
            remembers { labelled: First<String, bool> }
            does {
                fn selector(&self, feed: Feed) -> &'static str {
                    match feed {
                        Feed::Services => "",
                        other => crate::watch::selector(other),
                    }
                }
                fn service_object(&self, service: &mut ServiceObject) {
                    let labels = service.metadata.labels.iter().flatten();
                    let now = labels.clone().any(|(label, _)| label == PROXY_NAME);
                    if self.labelled.of(key(&service.metadata), now) {
                        service.spec = None;
                    }
                }
            }
        },
        fault! {
            "headless-crashes": "The process ends when it sees a headless Service.";
            bugs ["kpng@bacf2ff", "bug:R18"];
            violates ["FLT-1", "CP-15"];
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    let headless = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
                    if headless == Some("None") {
                        std::process::exit(101);
                    }
                }
            }
        },
        fault! {
            "external-name-keeps-frontends": "A Service that becomes an ExternalName keeps the frontends that it had.";
            bugs ["kpng#15", "bug:L5"];
            violates ["SVC-CIP-6", "FLT-4", "FLT-5"];
            remembers { specs: Mutex<HashMap<String, ServiceSpec>> }
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    let Some((key, spec)) = spec(service) else {
                        return;
                    };
                    let mut specs = lock(&self.specs);
                    if spec.type_.as_deref() != Some("ExternalName") {
                        specs.insert(key, spec.clone());
                    } else if let Some(before) = specs.get(&key) {
                        spec.clone_from(before);
                    }
                }
            }
        },
        fault! {
            "deleted-service-stays": "A Service that is deleted goes on being served.";
            bugs ["kubernetes/kubernetes#80407", "bug:L6"];
            violates ["SVC-CIP-6"];
            does {
                fn event(&self, event: Event) -> Option<Event> {
                    match event {
                        Event::Service(_, None) => None,
                        other => Some(other),
                    }
                }
            }
        },
        fault! {
            "deleted-slice-stays": "Endpoints of a slice that is deleted go on being used.";
            bugs ["ovn-kubernetes#1109", "kpng@20a9767", "bug:E12", "bug:E17"];
            violates ["EP-12", "EP-4"];
            does {
                fn event(&self, event: Event) -> Option<Event> {
                    match event {
                        Event::Slice(_, None, _) => None,
                        other => Some(other),
                    }
                }
            }
        },
        fault! {
            "recreated-service-ignored": "A Service with the name of one that was deleted is not served.";
            bugs ["antrea#4361", "bug:L7"];
            violates ["SVC-CIP-7"];
            remembers { gone: Mutex<HashSet<String>> }
            does {
                fn event(&self, event: Event) -> Option<Event> {
                    match &event {
                        Event::Service(key, None) => {
                            lock(&self.gone).insert(key.to_string());
                        }
                        Event::Service(key, Some(_)) if lock(&self.gone).contains(&**key) => return None,
                        _ => {}
                    }
                    Some(event)
                }
            }
        },
        fault! {
            "slice-before-service-lost": "A slice that appears before its Service is forgotten.";
            bugs ["kpng@b3de40c", "bug:R6"];
            violates ["CP-12"];
            remembers { services: Mutex<HashSet<String>>, listed: Mutex<HashSet<Feed>> }
            does {
                fn event(&self, event: Event) -> Option<Event> {
                    match &event {
                        Event::Listed(feed, _) => {
                            lock(&self.listed).insert(*feed);
                        }
                        Event::Service(key, Some(_)) => {
                            lock(&self.services).insert(key.to_string());
                        }
                        Event::Service(key, None) => {
                            lock(&self.services).remove(&**key);
                        }
                        Event::Slice(_, Some(slice), _) => {
                            let all_listed = lock(&self.listed).len() == 3;
                            if all_listed && !lock(&self.services).contains(&*slice.service) {
                                return None;
                            }
                        }
                        _ => {}
                    }
                    Some(event)
                }
            }
        },
        fault! {
            "missed-deletes-stay": "What was deleted while nobody watched is served for ever.";
            bugs ["cilium#48050", "bug:R5", "bug:E11"];
            violates ["CP-4"];
            remembers { listed: Mutex<HashSet<Feed>> }
            does {
                fn event(&self, event: Event) -> Option<Event> {
                    match &event {
                        Event::Listed(feed, _) if !lock(&self.listed).insert(*feed) => None,
                        _ => Some(event),
                    }
                }
            }
        },
        fault! {
            "gone-for-ever": "A watch that ended with an error is never begun again.";
            bugs ["kubernetes/kubernetes#3216", "bug:R4"];
            violates ["CP-3"];
            does {
                fn goes_on(&self, _feed: Feed) -> bool {
                    false
                }
            }
        },
        fault! {
            "half-open-unnoticed": "A watch that no longer delivers anything is waited for, for minutes.";
            bugs ["kubernetes/kubernetes#76338", "kubernetes/kubernetes#56720", "bug:R3"];
            violates ["CP-5"];
            does {
                fn watch_timeout(&self, _seconds: u32) -> u32 {
                    280
                }
            }
        },
        fault! {
            "poison-freezes": "After one Service with an address that cannot be used, nothing is followed any more.";
            bugs ["kubernetes/kubernetes#73157", "kubernetes/kubernetes#80297", "bug:F1", "bug:R15"];
            violates ["CP-7"];
            remembers { frozen: AtomicBool }
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    if has_strange_address(service) {
                        self.frozen.store(true, Ordering::Relaxed);
                    }
                }
                fn event(&self, event: Event) -> Option<Event> {
                    let lost = matches!(event, Event::Service(..) | Event::Slice(..));
                    (!lost || !self.frozen.load(Ordering::Relaxed)).then_some(event)
                }
            }
        },
        fault! {
            "strange-address-spoils-service": "A Service with an address of a family that it does not have is not served at all.";
            bugs ["kubernetes/kubernetes#88316", "bug:F1"];
            violates ["FAM-3"];
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    if has_strange_address(service) {
                        service.spec = None;
                    }
                }
            }
        },
        fault! {
            "host-name-spoils-service": "A Service whose load balancer has only a host name is not served at all.";
            bugs ["kubernetes/kubernetes#95486", "bug:U17"];
            violates ["SVC-LB-9"];
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
                    let mut ingress = status.into_iter().flat_map(|status| status.ingress.iter().flatten());
                    if ingress.any(|ingress| ingress.ip.is_none()) {
                        service.spec = None;
                    }
                }
            }
        },
        fault! {
            "old-ports-stay": "A port that a Service no longer has goes on being served.";
            bugs ["kpng@c7f9a92", "antrea@c59ed4ea4", "bug:E18"];
            violates ["SVC-CIP-8"];
            remembers { ports: Mutex<HashMap<String, Vec<PortSpec>>> }
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    let Some((key, spec)) = spec(service) else {
                        return;
                    };
                    let mut ports = lock(&self.ports);
                    let known = ports.entry(key).or_default();
                    for port in spec.ports.iter().flatten() {
                        let same = |other: &PortSpec| {
                            other.port == port.port
                                && other.protocol == port.protocol
                                && other.node_port == port.node_port
                        };
                        if !known.iter().any(same) {
                            known.push(port.clone());
                        }
                    }
                    spec.ports = Some(known.clone());
                }
            }
        },
        fault! {
            "new-ports-ignored": "A Service keeps the ports that it had at first.";
            bugs ["kpng@c5b9997", "bug:E18"];
            violates ["SVC-CIP-8"];
            remembers { ports: First<String, Option<Vec<PortSpec>>> }
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    if let Some((key, spec)) = spec(service) {
                        spec.ports = self.ports.of(key, spec.ports.take());
                    }
                }
            }
        },
        fault! {
            "type-changes-ignored": "A Service keeps the type that it had at first.";
            bugs ["kpng#15", "bug:L5"];
            violates ["SVC-CIP-9", "SVC-CIP-6", "FLT-5"];
            remembers { types: First<String, Option<String>> }
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    if let Some((key, spec)) = spec(service) {
                        spec.type_ = self.types.of(key, spec.type_.take());
                    }
                }
            }
        },
        fault! {
            "families-frozen": "A Service keeps the cluster IPs that it had at first.";
            bugs ["kube-router@e4919f39", "bug:F8", "bug:F9"];
            violates ["FAM-4"];
            remembers { ips: First<String, Option<Vec<String>>> }
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    if let Some((key, spec)) = spec(service) {
                        spec.cluster_ips = self.ips.of(key, spec.cluster_ips.take());
                    }
                }
            }
        },
        fault! {
            "affinity-ignored": "Session affinity has no effect.";
            bugs ["kpng@0a1bd44", "cilium#35254", "bug:A7"];
            violates ["AFF-1"];
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    if let Some((_, spec)) = spec(service) {
                        spec.session_affinity = None;
                    }
                }
            }
        },
        fault! {
            "affinity-switch-ignored": "Session affinity stays on or off as it was at first.";
            bugs ["antrea#1570", "bug:A3"];
            violates ["AFF-5"];
            remembers { affinity: First<String, Option<String>> }
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    if let Some((key, spec)) = spec(service) {
                        spec.session_affinity = self.affinity.of(key, spec.session_affinity.take());
                    }
                }
            }
        },
        fault! {
            "affinity-timeout-frozen": "Session affinity keeps the timeout that it had at first.";
            bugs ["antrea@c59ed4ea4", "bug:A3"];
            violates ["AFF-5"];
            remembers { timeouts: First<String, i32> }
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    if let Some((key, spec)) = spec(service)
                        && let Some(config) = &mut spec.session_affinity_config
                        && let Some(client) = &mut config.client_ip
                        && let Some(seconds) = client.timeout_seconds
                    {
                        client.timeout_seconds = Some(self.timeouts.of(key, seconds));
                    }
                }
            }
        },
        fault! {
            "internal-policy-ignored": "internalTrafficPolicy has no effect.";
            bugs ["kubernetes/kubernetes#121371", "bug:P7"];
            violates ["TP-1", "TP-2"];
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    if let Some((_, spec)) = spec(service) {
                        spec.internal_traffic_policy = None;
                    }
                }
            }
        },
        fault! {
            "external-policy-ignored": "externalTrafficPolicy has no effect.";
            bugs ["kubernetes/kubernetes#71596", "bug:P3", "bug:P5"];
            violates ["TP-4", "TP-5", "SRC-2"];
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    if let Some((_, spec)) = spec(service) {
                        spec.external_traffic_policy = None;
                    }
                }
            }
        },
        fault! {
            "policy-toggles-ignored": "A Service keeps the traffic policies that it had at first.";
            bugs ["antrea#3295", "bug:P8"];
            violates ["TP-13"];
            remembers { policies: First<String, (Option<String>, Option<String>)> }
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    if let Some((key, spec)) = spec(service) {
                        let now = (
                            spec.internal_traffic_policy.take(),
                            spec.external_traffic_policy.take(),
                        );
                        let first = self.policies.of(key, now);
                        (spec.internal_traffic_policy, spec.external_traffic_policy) = first;
                    }
                }
            }
        },
        fault! {
            "internal-policy-everywhere": "internalTrafficPolicy decides about external frontends too.";
            bugs ["KEP-2086"];
            violates ["TP-3"];
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    if let Some((_, spec)) = spec(service)
                        && spec.internal_traffic_policy.as_deref() == Some("Local")
                    {
                        spec.external_traffic_policy = Some("Local".into());
                    }
                }
            }
        },
        fault! {
            "external-policy-everywhere": "externalTrafficPolicy decides about cluster IPs too.";
            bugs ["KEP-2086"];
            violates ["TP-3"];
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    if let Some((_, spec)) = spec(service)
                        && spec.external_traffic_policy.as_deref() == Some("Local")
                    {
                        spec.internal_traffic_policy = Some("Local".into());
                    }
                }
            }
        },
        fault! {
            "ip-mode-proxy-short-circuited": "A load balancer address with ipMode Proxy is served by the nodes.";
            bugs ["KEP-1860", "kubernetes/kubernetes#118895", "cilium#40915", "bug:G5"];
            violates ["SVC-LB-3"];
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    let status = service.status.as_mut().and_then(|status| status.load_balancer.as_mut());
                    for ingress in status.into_iter().flat_map(|status| status.ingress.iter_mut().flatten()) {
                        ingress.ip_mode = None;
                    }
                }
            }
        },
        fault! {
            "load-balancer-not-served": "Load balancer addresses are not served.";
            bugs ["kubernetes/kubernetes#59976", "metallb#153", "bug:G6"];
            violates ["SVC-LB-1", "SVC-LB-2"];
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    service.status = None;
                }
            }
        },
        fault! {
            "load-balancer-needs-node-ports": "Load balancer addresses are served only if the Service has node ports.";
            bugs ["KEP-1864", "bug:G6"];
            violates ["SVC-LB-6"];
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    let mut ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
                    if ports.all(|port| port.node_port.unwrap_or_default() == 0) {
                        service.status = None;
                    }
                }
            }
        },
        fault! {
            "source-ranges-ignored": "loadBalancerSourceRanges have no effect.";
            bugs ["antrea#6181", "bug:G4", "bug:G1"];
            violates ["SVC-LB-4"];
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    if let Some((_, spec)) = spec(service) {
                        spec.load_balancer_source_ranges = None;
                    }
                }
            }
        },
        fault! {
            "only-first-source-range": "Only the first of loadBalancerSourceRanges of each family admits sources.";
            bugs ["kubernetes/kubernetes#88698", "bug:G1"];
            violates ["SVC-LB-4"];
            does {
                fn service_object(&self, service: &mut ServiceObject) {
                    if let Some((_, spec)) = spec(service)
                        && let Some(ranges) = &mut spec.load_balancer_source_ranges
                    {
                        let mut seen = HashSet::new();
                        ranges.retain(|range| seen.insert(range.contains(':')));
                    }
                }
            }
        },
        fault! {
            "node-ports-lost-with-one-listing": "When the node's addresses change once more after the start, NodePorts are served nowhere.";
            bugs ["kubernetes/kubernetes#129146", "kubernetes/kubernetes#112185", "golang/go#51934", "bug:B1"];
            violates ["SVC-NP-8"];
            remembers { listed: AtomicBool }
            does {
                fn event(&self, event: Event) -> Option<Event> {
                    match event {
                        Event::Addresses(_) if self.listed.swap(true, Ordering::Relaxed) => {
                            Some(Event::Addresses(Default::default()))
                        }
                        other => Some(other),
                    }
                }
            }
        },
        fault! {
            "node-addresses-frozen": "The node keeps the addresses that its Node object had at first.";
            bugs ["kubernetes/kubernetes#138183", "bug:R17"];
            violates ["CP-13"];
            remembers { first: First<(), Option<NodeStatus>> }
            does {
                fn node_object(&self, node: &mut NodeObject) {
                    node.status = self.first.of((), node.status.take());
                }
            }
        },
        fault! {
            "pod-ranges-frozen": "The node keeps the ranges of pods that its Node object had at first.";
            bugs ["kubernetes/kubernetes#111321", "kubernetes/kubernetes#112739", "bug:H7"];
            violates ["CP-13", "TP-6"];
            remembers { first: First<(), Option<NodeSpec>> }
            does {
                fn node_object(&self, node: &mut NodeObject) {
                    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
                    let first = self.first.of((), node.spec.take());
                    node.spec = first.map(|spec| NodeSpec { taints, ..spec });
                }
            }
        },
        fault! {
            "address-churn-crashes": "The process ends when the node's addresses change after the start.";
            bugs ["mdlayher/netlink#280", "vishvananda/netlink#925", "calico#11021"];
            violates ["CP-15"];
            remembers { listed: AtomicBool }
            does {
                fn event(&self, event: Event) -> Option<Event> {
                    if matches!(event, Event::Addresses(_)) && self.listed.swap(true, Ordering::Relaxed) {
                        std::process::exit(101);
                    }
                    Some(event)
                }
            }
        },
    ]
}
