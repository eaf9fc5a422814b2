//! Incremental work equals work from scratch, whatever happened before.

use std::{collections::HashMap, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    compile::Surroundings,
    model::{Endpoint, Node, ServicePort, SlicePort, State as EndpointState},
    ruleset::Protocol,
};

/// What a kernel would make of the changes.
#[derive(Default)]
struct Table(HashMap<(SetId, Key), Data>);

impl Table {
    fn apply(&mut self, changes: &Changes) {
        for element in &changes.remove {
            let before = self.0.remove(&(element.set, element.key));
            assert_eq!(before, Some(element.data), "removed what was not there");
        }
        for (element, data) in &changes.replace {
            let before = self.0.insert((element.set, element.key), *data);
            assert_eq!(before, Some(element.data), "replaced what was not there");
        }
        for element in &changes.add {
            let before = self.0.insert((element.set, element.key), element.data);
            assert_eq!(before, None, "added what was there");
        }
    }
}

fn as_map(elements: Vec<Element>) -> HashMap<(SetId, Key), Data> {
    let count = elements.len();
    let map: HashMap<_, _> = elements
        .into_iter()
        .map(|e| ((e.set, e.key), e.data))
        .collect();
    assert_eq!(map.len(), count, "two elements with one key");
    map
}

#[derive(Clone, Debug)]
enum Step {
    Service(u8, Option<Service>),
    Slice(u8, Option<Slice>),
    Node(Surroundings),
    Sync,
}

fn service_key(number: u8) -> ServiceKey {
    format!("default/s{number}").into()
}

fn ip(family: bool, last: u8) -> std::net::IpAddr {
    let text = if family {
        format!("10.0.0.{}", last + 1)
    } else {
        format!("fd00::{:x}", last + 1)
    };
    text.parse().expect("an address of the test")
}

fn ips() -> impl Strategy<Value = Vec<std::net::IpAddr>> {
    prop::collection::btree_set((any::<bool>(), 0..4u8), 0..3).prop_map(|set| {
        set.into_iter()
            .map(|(family, last)| ip(family, last))
            .collect()
    })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]
}

fn service() -> impl Strategy<Value = Service> {
    let ports = prop::collection::vec(
        (protocol(), 80..82u16, prop::option::of(30000..30002u16)),
        0..3,
    );
    let affinity = prop::option::of(prop_oneof![Just(10u32), Just(20)]);
    let ranged = any::<bool>();
    (
        ips(),
        ips(),
        ips(),
        ports,
        affinity,
        any::<(bool, bool)>(),
        ranged,
    )
        .prop_map(
            |(cluster_ips, external_ips, load_balancer_ips, ports, affinity, local, ranged)| {
                Service {
                    cluster_ips,
                    external_ips,
                    load_balancer_ips,
                    source_ranges: if ranged {
                        vec!["10.1.0.0/16".parse().expect("a range")]
                    } else {
                        Vec::new()
                    },
                    ports: ports
                        .into_iter()
                        .enumerate()
                        .map(|(at, (protocol, port, node_port))| ServicePort {
                            name: format!("p{at}").into(),
                            protocol,
                            port,
                            node_port,
                        })
                        .collect(),
                    affinity,
                    internal_local: local.0,
                    external_local: local.1,
                    health_check_node_port: local.1.then_some(32000),
                }
            },
        )
}

fn zone() -> impl Strategy<Value = Option<Box<str>>> {
    prop::sample::select(vec![None, Some("a".into()), Some("b".into())])
}

fn slice() -> impl Strategy<Value = Slice> {
    // Hints count when all endpoints have them.
    let hint = prop::sample::select(vec!["a", "a", "b"]);
    let endpoint = (any::<(bool, bool)>(), 0..6u8, 0..4u8, hint).prop_map(
        |((family, local), last, state, zone)| Endpoint {
            ip: ip(family, last + 100),
            state: match state {
                0 => EndpointState::Unusable { serving: false },
                1 => EndpointState::Terminating,
                _ => EndpointState::Ready,
            },
            local,
            for_this_node: None,
            zones: [zone.into()].into(),
        },
    );
    let ports = prop::collection::vec((0..3u8, protocol(), 8080..8082u16), 0..3);
    (0..4u8, ports, prop::collection::vec(endpoint, 0..5)).prop_map(|(owner, ports, endpoints)| {
        Slice {
            service: service_key(owner),
            ports: ports
                .into_iter()
                .map(|(name, protocol, port)| SlicePort {
                    name: format!("p{name}").into(),
                    protocol,
                    port,
                })
                .collect(),
            endpoints,
        }
    })
}

/// Few of each, so that often one differs and the others do not.
fn surroundings() -> impl Strategy<Value = Surroundings> {
    let range = prop::sample::select(vec!["10.0.0.96/28", "10.0.0.102/31"]);
    let addresses =
        || prop::sample::select(vec![vec![ip(true, 0)], vec![ip(true, 1), ip(false, 100)]]);
    (addresses(), addresses(), range, zone(), any::<bool>()).prop_map(
        |(ips, node_port_ips, range, zone, eligible)| Surroundings {
            node: Node {
                ips,
                pod_cidrs: vec![range.parse().expect("a range")],
                zone,
                eligible,
            },
            node_port_ips,
            cluster_cidrs: Vec::new(),
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4u8, prop::option::weighted(0.8, service())).prop_map(|(n, s)| Step::Service(n, s)),
        4 => (0..5u8, prop::option::weighted(0.8, slice())).prop_map(|(n, s)| Step::Slice(n, s)),
        1 => surroundings().prop_map(Step::Node),
        3 => Just(Step::Sync),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn incremental_equals_from_scratch(steps in prop::collection::vec(step(), 1..40)) {
        let mut state = State::default();
        let mut table = Table::default();
        let mut services: HashMap<u8, Service> = HashMap::new();
        let mut slices: HashMap<u8, Slice> = HashMap::new();
        let mut around = Surroundings::default();
        for step in steps.into_iter().chain([Step::Sync]) {
            match step {
                Step::Service(number, service) => {
                    state.set_service(&service_key(number), service.clone());
                    match service {
                        Some(service) => services.insert(number, service),
                        None => services.remove(&number),
                    };
                }
                Step::Slice(number, slice) => {
                    let key: SliceKey = format!("default/e{number}").into();
                    state.set_slice(&key, slice.clone());
                    match slice {
                        Some(slice) => slices.insert(number, slice),
                        None => slices.remove(&number),
                    };
                }
                Step::Node(new) => {
                    around = new.clone();
                    state.set_surroundings(new);
                }
                Step::Sync => {
                    let flows = state.udp();
                    let owner = |state: &State, frontend: &Frontend| state.owner(frontend).cloned();
                    let owners: HashMap<_, _> = flows.keys().map(|f| (*f, owner(&state, f))).collect();
                    let work = state.sync();
                    table.apply(&work.changes);
                    // UDP flows are looked at where a frontend changed, and nowhere else.
                    let now = state.udp();
                    let nobody = HashSet::new();
                    for frontend in flows.keys().chain(now.keys()) {
                        let (before, after) = (flows.get(frontend), now.get(frontend));
                        match work.udp.get(frontend) {
                            Some(told) => prop_assert_eq!(told, after.unwrap_or(&nobody)),
                            None => prop_assert_eq!(before, after),
                        }
                    }
                    for frontend in work.udp.keys() {
                        let moved = owners.get(frontend) != Some(&owner(&state, frontend));
                        prop_assert!(moved || flows.get(frontend) != now.get(frontend), "{frontend:?}");
                    }
                    let mut scratch = State::new(around.clone());
                    for (number, service) in &services {
                        scratch.set_service(&service_key(*number), Some(service.clone()));
                    }
                    for (number, slice) in &slices {
                        let key: SliceKey = format!("default/e{number}").into();
                        scratch.set_slice(&key, Some(slice.clone()));
                    }
                    scratch.sync_first();
                    let expected = as_map(scratch.elements());
                    for ((_, key), data) in &expected {
                        if let (Key::Slot(_, frontend), Data::Endpoint(ip, port)) = (key, data)
                            && frontend.protocol == Protocol::Udp
                        {
                            prop_assert!(now[frontend].contains(&(*ip, *port).into()));
                        }
                    }
                    prop_assert_eq!(state.element_count(), expected.len());
                    prop_assert_eq!(state.is_sticky(), services.values().any(|service| service.affinity.is_some()));
                    prop_assert_eq!(&table.0, &expected);
                    prop_assert_eq!(as_map(state.elements()), expected);
                    prop_assert_eq!(state.no_local_endpoints(), scratch.no_local_endpoints());
                    prop_assert_eq!(state.udp(), scratch.udp());
                    prop_assert!(state.is_settled());
                    let known: HashSet<_> = state.service_keys().cloned().collect();
                    prop_assert_eq!(known, services.keys().map(|number| service_key(*number)).collect());
                    prop_assert_eq!(state.slice_keys().count(), slices.len());
                }
            }
        }
        // When all is gone, nothing is kept.
        for number in services.into_keys() {
            state.set_service(&service_key(number), None);
        }
        for number in slices.into_keys() {
            state.set_slice(&format!("default/e{number}").into(), None);
        }
        state.sync();
        prop_assert!(state.entries.is_empty(), "{:?}", state.entries);
        prop_assert!(state.claims.is_empty() && state.shared.is_empty() && state.health_services.is_empty());
    }

    /// Whoever loses an affinity is among those whose affinities are looked at.
    #[test]
    fn lost_affinities_are_looked_at(
        first in (surroundings(), service(), prop::collection::vec(slice(), 0..4)),
        others in (prop::option::of(service()), prop::option::of(prop::collection::vec(slice(), 0..4))),
        (internal_local, external_local) in any::<(bool, bool)>(),
    ) {
        let (around, service, slices) = first;
        let mut state = State::new(around);
        let tell = |state: &mut State, service: Service, slices: Vec<Slice>| {
            state.set_service(&service_key(0), Some(service));
            for number in 0..4 {
                let key: SliceKey = format!("default/e{number}").into();
                let slice = slices.get(number).cloned();
                state.set_slice(&key, slice.map(|slice| Slice { service: service_key(0), ..slice }));
            }
            state.sync()
        };
        tell(&mut state, service.clone(), slices.clone());
        // A pod of this node, and somebody from outside.
        let clients = [ip(true, 100), "192.0.2.1".parse().expect("an address")];
        let mut held = Vec::new();
        for element in state.elements() {
            if let (Key::Slot(_, frontend), Data::Endpoint(ip, port)) = (element.key, element.data) {
                held.extend(clients.map(|client| (client, frontend, (ip, port))));
            }
        }
        let mut before = state.affinities();
        held.retain(|(client, frontend, endpoint)| before.hold(*client, frontend, *endpoint));
        let service = others.0.unwrap_or(Service { internal_local, external_local, ..service });
        let work = tell(&mut state, service, others.1.unwrap_or(slices));
        let mut after = state.affinities();
        for (client, frontend, endpoint) in held {
            prop_assert!(
                work.affinity.contains(&frontend) || after.hold(client, &frontend, endpoint),
                "{client} still returns to {endpoint:?} at {frontend:?}",
            );
        }
    }

    /// What is told again changes nothing, in whatever order (KPNG's hash bug, kubernetes-sigs/kpng).
    #[test]
    fn no_op_updates_do_nothing(
        services in prop::collection::vec(service(), 1..4),
        slices in prop::collection::vec(slice(), 0..5),
    ) {
        let mut state = State::new(Surroundings::default());
        for round in 0..2 {
            for (number, service) in services.iter().enumerate() {
                let changed = state.set_service(&service_key(number as u8), Some(service.clone()));
                prop_assert!(round == 0 || !changed);
            }
            let mut order: Vec<_> = slices.iter().enumerate().collect();
            if round == 1 {
                order.reverse();
            }
            for (number, slice) in order {
                let key: Arc<str> = format!("default/e{number}").into();
                let changed = state.set_slice(&key, Some(slice.clone()));
                prop_assert!(round == 0 || !changed);
            }
            let work = state.sync();
            prop_assert!(round == 0 || (work.changes.is_empty() && work.compiled == 0));
        }
    }
}

/// A Service with a node port and one endpoint in `default/e0`.
fn exposed() -> (Service, Slice) {
    let service = Service {
        cluster_ips: vec![ip(true, 1)],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![ServicePort {
            name: "p0".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30000),
        }],
        affinity: None,
        internal_local: false,
        external_local: false,
        health_check_node_port: None,
    };
    let slice = Slice {
        service: service_key(0),
        ports: vec![SlicePort {
            name: "p0".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        endpoints: vec![Endpoint {
            ip: ip(true, 100),
            state: EndpointState::Ready,
            local: false,
            for_this_node: None,
            zones: Box::default(),
        }],
    };
    (service, slice)
}

#[test]
fn each_change_unsettles_and_costs_what_it_touches() {
    let (service, slice) = exposed();
    let mut state = State::new(Surroundings::default());
    let mut work = |change: &dyn Fn(&mut State) -> bool, what: &str| {
        assert!(state.is_settled(), "before {what}");
        assert!(change(&mut state), "{what} is a change");
        assert!(!state.is_settled(), "after {what}");
        assert!(!change(&mut state), "{what} is none twice");
        state.sync().compiled
    };
    let compiled = work(
        &|state| state.set_service(&service_key(0), Some(service.clone())),
        "a Service",
    );
    assert_eq!(compiled, 1);
    let key: SliceKey = "default/e0".into();
    let compiled = work(
        &|state| state.set_slice(&key, Some(slice.clone())),
        "a slice",
    );
    assert_eq!(compiled, 1);
    // No rule depends on it.
    let mut around = Surroundings::default();
    around.node.eligible = !around.node.eligible;
    let compiled = work(&|state| state.set_surroundings(around.clone()), "a taint");
    assert_eq!(compiled, 0);
    let addressed = Surroundings {
        node_port_ips: vec![ip(true, 0)],
        ..around
    };
    let compiled = work(
        &|state| state.set_surroundings(addressed.clone()),
        "an address",
    );
    assert_eq!(compiled, 1);
}

/// A Service without addresses leaves nothing in the kernel, but its health check node port has to go.
#[test]
fn a_removal_that_is_told_twice_still_counts() {
    let (mut service, _) = exposed();
    service.cluster_ips.clear();
    service.health_check_node_port = Some(32000);
    let mut state = State::new(Surroundings::default());
    state.set_service(&service_key(0), Some(service));
    assert!(state.sync().health);
    assert_eq!(state.health().count(), 1);
    assert!(state.set_service(&service_key(0), None));
    assert!(!state.set_service(&service_key(0), None));
    assert!(state.sync().health);
    assert!(state.entries.is_empty() && state.health_services.is_empty());
}

/// Clients from outside stay with endpoints of this node where `externalTrafficPolicy` is `Local`.
#[test]
fn affinities_hold_where_a_client_is_served() {
    let (mut service, mut slice) = exposed();
    let (here, there) = (ip(true, 100), ip(true, 110));
    service.affinity = Some(10);
    service.external_ips = vec![ip(true, 2)];
    service.external_local = true;
    slice.endpoints = [(here, true), (there, false)]
        .map(|(ip, local)| Endpoint {
            ip,
            local,
            ..slice.endpoints[0].clone()
        })
        .into();
    let node = ip(true, 0);
    let mut state = State::new(Surroundings {
        node: Node {
            ips: vec![node],
            pod_cidrs: vec!["10.0.0.96/28".parse().expect("a range")],
            ..Node::default()
        },
        cluster_cidrs: vec!["10.0.0.0/24".parse().expect("a range")],
        ..Surroundings::default()
    });
    state.set_service(&service_key(0), Some(service.clone()));
    state.set_slice(&"default/e0".into(), Some(slice));
    state.sync();

    let frontend = |last, port| Frontend {
        ip: ip(true, last),
        protocol: Protocol::Tcp,
        port,
    };
    let (cluster_ip, external_ip) = (frontend(1, 80), frontend(2, 80));
    let (pod, outside) = (ip(true, 97), "192.0.2.1".parse().expect("an address"));
    let rows = [
        (pod, external_ip, (there, 8080), true),
        (node, external_ip, (there, 8080), true),
        (outside, external_ip, (there, 8080), false),
        // A pod of another node, whose traffic comes from outside as well.
        (ip(true, 200), external_ip, (there, 8080), false),
        (outside, external_ip, (here, 8080), true),
        (outside, cluster_ip, (there, 8080), true),
        (pod, cluster_ip, (there, 8080), true),
        // Nobody's endpoint, and nobody's frontend.
        (pod, cluster_ip, (there, 8081), false),
        (pod, frontend(1, 81), (there, 8080), false),
    ];
    let mut affinities = state.affinities();
    for (client, frontend, endpoint, holds) in rows {
        assert_eq!(
            affinities.hold(client, &frontend, endpoint),
            holds,
            "{client} at {frontend:?} to {endpoint:?}"
        );
    }
    service.affinity = None;
    state.set_service(&service_key(0), Some(service));
    let gone = state.sync().affinity;
    assert!(gone.contains(&cluster_ip) && gone.contains(&external_ip));
    let mut affinities = state.affinities();
    for (client, frontend, endpoint, _) in rows {
        assert!(!affinities.hold(client, &frontend, endpoint));
    }
}

/// Two Services swap their node ports in one batch (kubernetes/kubernetes#128829): every element is replaced, none removed or added.
#[test]
fn swapped_node_ports_are_replacements() {
    let around = Surroundings {
        node_port_ips: vec![ip(true, 0)],
        ..Surroundings::default()
    };
    let mut state = State::new(around);
    let (service, slice) = exposed();
    let with = |node_port, cluster_ip: u8| {
        let mut service = service.clone();
        service.cluster_ips = vec![ip(true, cluster_ip)];
        service.ports[0].node_port = Some(node_port);
        service
    };
    for (number, node_port) in [(0, 30000), (1, 30001)] {
        state.set_service(&service_key(number), Some(with(node_port, number + 1)));
        let key: SliceKey = format!("default/e{number}").into();
        let mut slice = slice.clone();
        slice.service = service_key(number);
        slice.endpoints[0].ip = ip(true, number + 100);
        state.set_slice(&key, Some(slice));
    }
    state.sync();
    state.set_service(&service_key(0), Some(with(30001, 1)));
    state.set_service(&service_key(1), Some(with(30000, 2)));
    let changes = state.sync().changes;
    assert!(changes.add.is_empty(), "{:?}", changes.add);
    assert!(changes.remove.is_empty(), "{:?}", changes.remove);
    assert_eq!(changes.replace.len(), 2, "{:?}", changes.replace);
}
