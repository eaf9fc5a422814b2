//! The EndpointSlice controller: tables for single rules, and a store of slices that changes are applied to for those that hold over time.

use std::collections::{BTreeMap, BTreeSet};

use apiserver::controllers::endpointslice::{MANAGED_BY, SliceChange, reconcile};
use apiserver::types::{AdmitContext, Op, ServiceAllocators, admit};
use proptest::prelude::*;
use serde_json::{Value, json};

fn service(spec: Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "namespace": "test", "uid": "service-1", "labels": { "team": "blue" } },
        "spec": {
            "clusterIP": "10.96.0.10", "ipFamilies": ["IPv4"], "selector": { "app": "web" },
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080 }],
        },
    });
    for (key, value) in spec.as_object().expect("a map") {
        service["spec"][key] = value.clone();
    }
    service
}

/// A ready Pod with addresses of both families, on the first node.
fn pod(number: u16) -> Value {
    json!({
        "metadata": { "name": format!("web-{number}"), "namespace": "test", "uid": format!("pod-{number}"), "labels": { "app": "web" } },
        "spec": { "nodeName": "node-1" },
        "status": {
            "phase": "Running",
            "podIPs": [
                { "ip": format!("10.244.{}.{}", number / 256, number % 256) },
                { "ip": format!("fd00:244::{number:x}") },
            ],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    object.pointer_mut(parent).expect("the parent is there")[key] = value;
    object
}

fn not_ready(pod: Value) -> Value {
    with(
        pod,
        "/status/conditions",
        json!([{ "type": "Ready", "status": "False" }]),
    )
}

fn terminating(pod: Value) -> Value {
    with(
        pod,
        "/metadata/deletionTimestamp",
        json!("2026-01-01T00:00:00Z"),
    )
}

/// Two nodes in two zones of equal size.
fn nodes() -> Vec<Value> {
    let node = |number: u8| {
        json!({
            "metadata": { "name": format!("node-{number}"), "labels": { "topology.kubernetes.io/zone": format!("zone-{number}") } },
            "status": { "allocatable": { "cpu": "2" }, "conditions": [{ "type": "Ready", "status": "True" }] },
        })
    };
    vec![node(1), node(2)]
}

/// The stored slices of a cluster.
#[derive(Clone, Default)]
struct Store(BTreeMap<String, Value>);

impl Store {
    /// Reconciles and stores what comes out, through admission, as the server does.
    fn run(&mut self, service: &Value, pods: &[Value]) -> Vec<SliceChange> {
        self.run_on(service, pods, &nodes())
    }

    fn run_on(&mut self, service: &Value, pods: &[Value], nodes: &[Value]) -> Vec<SliceChange> {
        let changes = reconcile(service, pods, nodes, &self.slices());
        for change in &changes {
            match change {
                SliceChange::Create(slice) => {
                    let name = slice["metadata"]["name"]
                        .as_str()
                        .expect("a name")
                        .to_owned();
                    assert!(
                        self.0.insert(name.clone(), admitted(None, slice)).is_none(),
                        "{name} is there already"
                    );
                }
                SliceChange::Update(slice) => {
                    let name = slice["metadata"]["name"]
                        .as_str()
                        .expect("a name")
                        .to_owned();
                    let old = self.0.get(&name).expect("only stored slices are updated");
                    let new = admitted(Some(old), slice);
                    self.0.insert(name, new);
                }
                SliceChange::Delete { namespace, name } => {
                    assert_eq!(namespace, "test");
                    assert!(
                        self.0.remove(name).is_some(),
                        "only stored slices are deleted"
                    );
                }
            }
        }
        changes
    }

    fn slices(&self) -> Vec<Value> {
        self.0.values().cloned().collect()
    }

    fn endpoints(&self) -> Vec<Value> {
        let lists = self
            .0
            .values()
            .filter_map(|slice| slice["endpoints"].as_array());
        lists.flatten().cloned().collect()
    }

    /// How many endpoints each slice has, smallest first.
    fn sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = self
            .0
            .values()
            .map(|slice| slice["endpoints"].as_array().map_or(0, Vec::len))
            .collect();
        sizes.sort_unstable();
        sizes
    }
}

/// The slice as the server stores it; the controller must never write one that it refuses.
fn admitted(old: Option<&Value>, slice: &Value) -> Value {
    let mut allocators = ServiceAllocators::new(&[], 30000..=32767);
    let mut ctx = AdmitContext {
        allocators: &mut allocators,
        now: jiff::Timestamp::UNIX_EPOCH,
    };
    let mut new = slice.clone();
    let op = if old.is_some() {
        Op::Update
    } else {
        Op::Create
    };
    admit(
        &mut ctx,
        op,
        "discovery.k8s.io/v1",
        "EndpointSlice",
        old,
        &mut new,
    )
    .expect("a valid slice");
    new
}

/// The conditions of the only endpoint: ready, serving, terminating.
fn conditions(service: &Value, pod: Value) -> Option<(bool, bool, bool)> {
    let mut store = Store::default();
    store.run(service, &[pod]);
    let endpoints = store.endpoints();
    assert!(endpoints.len() <= 1);
    let conditions = &endpoints.first()?["conditions"];
    let flag = |name: &str| conditions[name].as_bool().expect("it is set");
    Some((flag("ready"), flag("serving"), flag("terminating")))
}

#[test]
fn a_slice_in_full() {
    let mut store = Store::default();
    let service = service(json!({ "ipFamilies": ["IPv4", "IPv6"] }));
    store.run(
        &service,
        &[pod(1), with(pod(2), "/spec/nodeName", json!("node-2"))],
    );
    insta::assert_json_snapshot!("dual_stack", store.slices());
}

#[test]
fn conditions_follow_the_pod() {
    let plain = service(json!({}));
    let all = service(json!({ "publishNotReadyAddresses": true }));
    let finished = |phase: &str| with(pod(1), "/status/phase", json!(phase));
    let table = [
        (
            "ready",
            pod(1),
            Some((true, true, false)),
            Some((true, true, false)),
        ),
        (
            "not ready",
            not_ready(pod(1)),
            Some((false, false, false)),
            Some((true, false, false)),
        ),
        (
            "terminating",
            terminating(pod(1)),
            Some((false, true, true)),
            Some((true, true, true)),
        ),
        (
            "terminating, not ready",
            terminating(not_ready(pod(1))),
            Some((false, false, true)),
            Some((true, false, true)),
        ),
        ("failed", finished("Failed"), None, None),
        ("succeeded", finished("Succeeded"), None, None),
        (
            "no address",
            with(pod(1), "/status/podIPs", json!([])),
            None,
            None,
        ),
        (
            "other namespace",
            with(pod(1), "/metadata/namespace", json!("other")),
            None,
            None,
        ),
        (
            "not selected",
            with(pod(1), "/metadata/labels", json!({ "app": "db" })),
            None,
            None,
        ),
        // The node is gone: only those who ask for every address get this one.
        (
            "no node",
            with(pod(1), "/spec/nodeName", json!("node-9")),
            None,
            Some((true, true, false)),
        ),
    ];
    for (title, pod, expected, published) in table {
        assert_eq!(conditions(&plain, pod.clone()), expected, "{title}");
        assert_eq!(
            conditions(&all, pod),
            published,
            "{title}, publishNotReadyAddresses"
        );
    }
}

#[test]
fn services_without_slices() {
    for spec in [
        json!({ "selector": null }),
        json!({ "selector": {} }),
        json!({ "type": "ExternalName" }),
    ] {
        assert_eq!(reconcile(&service(spec), &[pod(1)], &nodes(), &[]), []);
    }
}

#[test]
fn named_ports_are_looked_up_in_each_pod() {
    let service = service(json!({ "ports": [
        { "name": "http", "port": 80, "protocol": "TCP", "targetPort": "web" },
        { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353, "appProtocol": "example.com/dns" },
    ]}));
    let serves = |number: u16, containers: Value, init: Value| {
        let pod = with(pod(number), "/spec/containers", containers);
        with(pod, "/spec/initContainers", init)
    };
    let port = |port: u16, protocol: &str| json!({ "name": "web", "containerPort": port, "protocol": protocol });
    let pods = [
        serves(1, json!([{ "ports": [port(8080, "TCP")] }]), json!([])),
        serves(
            2,
            json!([{}, { "ports": [port(9090, "UDP"), port(9091, "TCP")] }]),
            json!([]),
        ),
        serves(
            3,
            json!([]),
            json!([{ "restartPolicy": "Always", "ports": [port(8080, "TCP")] }]),
        ),
        // An init container that ends serves nothing.
        serves(4, json!([]), json!([{ "ports": [port(8080, "TCP")] }])),
    ];
    let mut store = Store::default();
    store.run(&service, &pods);
    let mut found: Vec<(Vec<u64>, Vec<String>)> = Vec::new();
    for slice in store.slices() {
        let numbers = slice["ports"]
            .as_array()
            .expect("ports")
            .iter()
            .map(|port| port["port"].as_u64().expect("a port"));
        let pods = slice["endpoints"].as_array().expect("endpoints").iter();
        let pods = pods.map(|one| {
            one["targetRef"]["name"]
                .as_str()
                .expect("a name")
                .to_owned()
        });
        found.push((numbers.collect(), pods.collect()));
    }
    found.sort();
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        found,
        [
            (vec![5353], names(&["web-4"])),
            (vec![8080, 5353], names(&["web-1", "web-3"])),
            (vec![9091, 5353], names(&["web-2"])),
        ]
    );
}

#[test]
fn a_service_without_endpoints_keeps_one_empty_slice_per_family() {
    let service = service(json!({ "ipFamilies": ["IPv6", "IPv4"] }));
    let mut store = Store::default();
    store.run(&service, &[]);
    assert_eq!(store.sizes(), [0, 0]);
    assert_eq!(store.run(&service, &[]), []);
    let names: Vec<String> = store.0.keys().cloned().collect();
    store.run(&service, &[pod(1)]);
    assert_eq!(store.sizes(), [1, 1]);
    assert_eq!(
        store.0.keys().cloned().collect::<Vec<_>>(),
        names,
        "the empty slices are filled"
    );
    store.run(&service, &[]);
    assert_eq!(store.sizes(), [0, 0]);
    assert!(store.slices().iter().all(|slice| slice["ports"].is_null()));
}

#[test]
fn a_family_that_goes_takes_its_slices_along() {
    let mut store = Store::default();
    store.run(
        &service(json!({ "ipFamilies": ["IPv4", "IPv6"] })),
        &[pod(1)],
    );
    let changes = store.run(&service(json!({ "ipFamilies": ["IPv4"] })), &[pod(1)]);
    assert!(
        matches!(changes.as_slice(), [SliceChange::Delete { .. }]),
        "{changes:?}"
    );
    assert_eq!(store.slices()[0]["addressType"], "IPv4");
}

#[test]
fn labels_follow_the_service() {
    let mut store = Store::default();
    let mut service = service(json!({ "clusterIP": "None" }));
    service["metadata"]["labels"]["kubernetes.io/service-name"] = json!("somebody-else");
    store.run(&service, &[pod(1)]);
    let labels = |store: &Store| store.slices()[0]["metadata"]["labels"].clone();
    let expected = |team: &str| {
        json!({
            "team": team,
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": MANAGED_BY,
            "service.kubernetes.io/headless": "",
        })
    };
    assert_eq!(labels(&store), expected("blue"));
    service["metadata"]["labels"]["team"] = json!("red");
    assert_eq!(store.run(&service, &[pod(1)]).len(), 1);
    assert_eq!(labels(&store), expected("red"));
}

#[test]
fn zones_follow_the_node() {
    let mut store = Store::default();
    store.run(&service(json!({})), &[pod(1)]);
    assert_eq!(store.endpoints()[0]["zone"], "zone-1");
    let mut moved = nodes();
    moved[0]["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!("zone-9");
    assert_eq!(
        store.run_on(&service(json!({})), &[pod(1)], &moved).len(),
        1
    );
    assert_eq!(store.endpoints()[0]["zone"], "zone-9");
    moved[0]["metadata"]["labels"] = json!({});
    store.run_on(&service(json!({})), &[pod(1)], &moved);
    assert!(store.endpoints()[0].get("zone").is_none());
}

#[test]
fn hostnames_count_in_the_services_subdomain() {
    let named = |subdomain: &str| {
        let pod = with(pod(1), "/spec/hostname", json!("first"));
        with(pod, "/spec/subdomain", json!(subdomain))
    };
    let mut store = Store::default();
    store.run(&service(json!({})), &[named("web")]);
    assert_eq!(store.endpoints()[0]["hostname"], "first");
    store.run(&service(json!({})), &[named("other")]);
    assert!(store.endpoints()[0].get("hostname").is_none());
}

#[test]
fn slices_of_others_are_left_alone() {
    let mut store = Store::default();
    store.run(&service(json!({})), &[pod(1)]);
    let own = store.slices().remove(0);
    let label = |key: &str, value: &str| {
        let mut slice = own.clone();
        slice["metadata"]["labels"][key] = json!(value);
        slice
    };
    let foreign = [
        label("kubernetes.io/service-name", "db"),
        label("endpointslice.kubernetes.io/managed-by", "me"),
        with(own.clone(), "/metadata/namespace", json!("other")),
    ];
    let changes = reconcile(&service(json!({})), &[pod(1)], &nodes(), &foreign);
    let [SliceChange::Create(created)] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert_ne!(
        created["metadata"]["name"], own["metadata"]["name"],
        "the name is taken"
    );
}

#[test]
fn slices_of_an_earlier_service_are_replaced() {
    let mut store = Store::default();
    store.run(&service(json!({})), &[pod(1)]);
    let again = with(service(json!({})), "/metadata/uid", json!("service-2"));
    let changes = store.run(&again, &[pod(1)]);
    assert!(
        matches!(
            changes.as_slice(),
            [SliceChange::Create(_), SliceChange::Delete { .. }]
        ),
        "{changes:?}"
    );
    assert_eq!(
        store.slices()[0]["metadata"]["ownerReferences"][0]["uid"],
        "service-2"
    );
}

#[test]
fn a_service_that_is_being_deleted_gets_no_new_slices() {
    let leaving = with(
        service(json!({})),
        "/metadata/deletionTimestamp",
        json!("2026-01-01T00:00:00Z"),
    );
    assert_eq!(reconcile(&leaving, &[pod(1)], &nodes(), &[]), []);
}

#[test]
fn unreadable_slices_are_replaced() {
    let mut store = Store::default();
    store.run(&service(json!({})), &[pod(1)]);
    let broken = with(store.slices().remove(0), "/endpoints", json!("x"));
    let changes = reconcile(&service(json!({})), &[pod(1)], &nodes(), &[broken]);
    assert!(
        matches!(
            changes.as_slice(),
            [SliceChange::Create(_), SliceChange::Delete { .. }]
        ),
        "{changes:?}"
    );
}

#[test]
fn a_hundred_endpoints_fill_a_slice() {
    let mut store = Store::default();
    let service = service(json!({}));
    let mut pods: Vec<Value> = (1..=250).map(pod).collect();
    store.run(&service, &pods);
    assert_eq!(store.sizes(), [50, 100, 100]);
    // A new endpoint goes where there is room, and nothing moves.
    pods.push(pod(251));
    let changes = store.run(&service, &pods);
    assert!(matches!(changes.as_slice(), [SliceChange::Update(_)]));
    assert_eq!(store.sizes(), [51, 100, 100]);
    // One leaves a full slice: its place stays free until somebody needs it.
    pods.remove(0);
    assert_eq!(store.run(&service, &pods).len(), 1);
    assert_eq!(store.sizes(), [51, 99, 100]);
    // One comes: it fits best where one place is left.
    pods.push(pod(252));
    assert_eq!(store.run(&service, &pods).len(), 1);
    assert_eq!(store.sizes(), [51, 100, 100]);
}

/// The hints of each endpoint: zones, then nodes.
fn hints(store: &Store) -> BTreeMap<String, (Vec<String>, Vec<String>)> {
    let names = |list: &Value| {
        let list = list.as_array().into_iter().flatten();
        list.map(|one| one["name"].as_str().expect("a name").to_owned())
            .collect::<Vec<_>>()
    };
    let entry = |endpoint: &Value| {
        let name = endpoint["targetRef"]["name"]
            .as_str()
            .expect("a name")
            .to_owned();
        (
            name,
            (
                names(&endpoint["hints"]["forZones"]),
                names(&endpoint["hints"]["forNodes"]),
            ),
        )
    };
    store.endpoints().iter().map(entry).collect()
}

#[test]
fn hints_of_traffic_distribution() {
    let pods = [
        pod(1),
        with(pod(2), "/spec/nodeName", json!("node-2")),
        not_ready(pod(3)),
    ];
    let none = (vec![], vec![]);
    let zone = |number: u8| vec![format!("zone-{number}")];
    let node = |number: u8| vec![format!("node-{number}")];
    let mut store = Store::default();
    for (distribution, first, second) in [
        (json!(null), none.clone(), none.clone()),
        (json!("PreferClose"), (zone(1), vec![]), (zone(2), vec![])),
        (
            json!("PreferSameNode"),
            (zone(1), node(1)),
            (zone(2), node(2)),
        ),
        (
            json!("PreferSameZone"),
            (zone(1), vec![]),
            (zone(2), vec![]),
        ),
        (json!(null), none.clone(), none.clone()),
    ] {
        let service = service(json!({ "trafficDistribution": distribution }));
        store.run(&service, &pods);
        let found = hints(&store);
        assert_eq!(
            (&found["web-1"], &found["web-2"]),
            (&first, &second),
            "{distribution}"
        );
        assert_eq!(
            found["web-3"], none,
            "an endpoint that is not ready has no hints"
        );
        assert_eq!(store.run(&service, &pods), []);
    }
}

/// How many endpoints have a hint for each zone.
fn per_zone(store: &Store) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for zone in hints(store).into_values().flat_map(|(zones, _)| zones) {
        *counts.entry(zone).or_default() += 1;
    }
    counts
}

#[test]
fn hints_in_proportion_to_zones() {
    let mut service = service(json!({}));
    service["metadata"]["annotations"] = json!({ "service.kubernetes.io/topology-mode": "Auto" });
    let counts = |pairs: &[(&str, usize)]| {
        pairs
            .iter()
            .map(|(zone, n)| (zone.to_string(), *n))
            .collect::<BTreeMap<_, _>>()
    };
    let spread = |in_first: u16, all: u16| -> Vec<Value> {
        (1..=all)
            .map(|n| {
                if n <= in_first {
                    pod(n)
                } else {
                    with(pod(n), "/spec/nodeName", json!("node-2"))
                }
            })
            .collect()
    };
    // All endpoints are in one zone and each zone has half of the CPUs.
    let mut store = Store::default();
    store.run(&service, &spread(10, 10));
    assert_eq!(per_zone(&store), counts(&[("zone-1", 5), ("zone-2", 5)]));
    assert_eq!(store.run(&service, &spread(10, 10)), []);
    // One CPU to three.
    let mut uneven = nodes();
    uneven[0]["status"]["allocatable"]["cpu"] = json!("1000m");
    uneven[1]["status"]["allocatable"]["cpu"] = json!("3");
    let mut store = Store::default();
    store.run_on(&service, &spread(6, 12), &uneven);
    assert_eq!(per_zone(&store), counts(&[("zone-1", 3), ("zone-2", 9)]));
    // Fewer endpoints than zones, a node without a zone, a zone too small: no hints.
    for (pods, nodes) in [
        (spread(1, 1), nodes()),
        (spread(5, 10), vec![nodes().remove(0)]),
        (
            spread(5, 10),
            vec![
                nodes().remove(0),
                with(nodes().remove(1), "/metadata/labels", json!({})),
            ],
        ),
    ] {
        let mut store = Store::default();
        store.run_on(&service, &pods, &nodes);
        assert_eq!(per_zone(&store), BTreeMap::new());
        assert_eq!(store.run_on(&service, &pods, &nodes), []);
    }
    // Without the annotation the hints go.
    let mut store = Store::default();
    store.run(&service, &spread(5, 10));
    assert_eq!(per_zone(&store), counts(&[("zone-1", 5), ("zone-2", 5)]));
    service["metadata"]["annotations"] = json!({});
    store.run(&service, &spread(5, 10));
    assert_eq!(per_zone(&store), BTreeMap::new());
}

/// What one Pod is like at some time.
#[derive(Clone, Debug)]
struct State {
    number: u16,
    ready: bool,
    terminating: bool,
    second_node: bool,
    other_port: bool,
}

impl State {
    fn pod(&self) -> Value {
        let mut pod = pod(self.number);
        if !self.ready {
            pod = not_ready(pod);
        }
        if self.terminating {
            pod = terminating(pod);
        }
        if self.second_node {
            pod = with(pod, "/spec/nodeName", json!("node-2"));
        }
        let number = if self.other_port { 9090 } else { 8080 };
        with(
            pod,
            "/spec/containers",
            json!([{ "ports": [{ "name": "web", "containerPort": number, "protocol": "TCP" }] }]),
        )
    }
}

fn pods() -> impl Strategy<Value = BTreeMap<u16, State>> {
    let flags = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        proptest::bool::weighted(0.2),
    );
    let state = |(number, (ready, terminating, second_node, other_port)): (u16, _)| {
        (
            number,
            State {
                number,
                ready,
                terminating,
                second_node,
                other_port,
            },
        )
    };
    proptest::collection::btree_map(1u16..400, flags, 0..300)
        .prop_map(move |pods| pods.into_iter().map(state).collect())
}

fn distribution() -> impl Strategy<Value = (Option<&'static str>, bool)> {
    let names = prop_oneof![
        Just(None),
        Just(Some("PreferClose")),
        Just(Some("PreferSameNode"))
    ];
    (names, proptest::bool::weighted(0.3))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever the Pods become, the slices have each of them exactly once per family, none has too many, and a second run has nothing to do.
    #[test]
    fn slices_follow_the_pods(generations in proptest::collection::vec((pods(), distribution()), 1..4)) {
        let mut store = Store::default();
        for (pods, (distribution, auto)) in generations {
            let mut service = service(json!({
                "ipFamilies": ["IPv4", "IPv6"],
                "trafficDistribution": distribution,
                "ports": [{ "name": "http", "port": 80, "protocol": "TCP", "targetPort": "web" }],
            }));
            if auto {
                service["metadata"]["annotations"] = json!({ "service.kubernetes.io/topology-mode": "Auto" });
            }
            let values: Vec<Value> = pods.values().map(State::pod).collect();
            store.run(&service, &values);
            prop_assert_eq!(store.run(&service, &values), vec![], "the second run");
            prop_assert!(store.sizes().iter().all(|size| *size <= 100));
            for family in ["IPv4", "IPv6"] {
                let mut seen = BTreeSet::new();
                for slice in store.slices().iter().filter(|slice| slice["addressType"] == family) {
                    for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                        let name = endpoint["targetRef"]["name"].as_str().unwrap();
                        let number: u16 = name.strip_prefix("web-").unwrap().parse().unwrap();
                        let state = &pods[&number];
                        prop_assert!(seen.insert(number), "{} twice", name);
                        prop_assert_eq!(&endpoint["conditions"], &json!({
                            "ready": state.ready && !state.terminating, "serving": state.ready, "terminating": state.terminating,
                        }));
                        let port = if state.other_port { 9090 } else { 8080 };
                        prop_assert_eq!(&slice["ports"][0]["port"], &json!(port));
                    }
                }
                prop_assert_eq!(seen.into_iter().collect::<Vec<_>>(), pods.keys().copied().collect::<Vec<_>>());
            }
        }
    }

    /// A Pod that becomes unready changes the slice that it is in and no other.
    #[test]
    fn one_pod_changes_one_slice(pods in pods(), pick in any::<prop::sample::Index>()) {
        prop_assume!(!pods.is_empty());
        let service = service(json!({}));
        let mut values: Vec<Value> = pods.values().map(State::pod).collect();
        let mut store = Store::default();
        store.run(&service, &values);
        let before = store.clone();
        let i = pick.index(values.len());
        let ready = pods.values().nth(i).unwrap().ready;
        let status = if ready { "False" } else { "True" };
        values[i]["status"]["conditions"][0]["status"] = json!(status);
        let changes = store.run(&service, &values);
        prop_assert!(matches!(changes.as_slice(), [SliceChange::Update(_)]), "{:?}", changes);
        let order = |store: &Store| store.endpoints().iter().map(|one| one["targetRef"]["name"].clone()).collect::<Vec<_>>();
        prop_assert_eq!(order(&before), order(&store));
    }

    /// The order in which Pods and slices are listed does not matter.
    #[test]
    fn the_order_of_the_input_does_not_matter(pods in pods(), seed in any::<u64>()) {
        let service = service(json!({}));
        let mut values: Vec<Value> = pods.values().map(State::pod).collect();
        let changes = reconcile(&service, &values, &nodes(), &[]);
        let by = usize::try_from(seed % 1000).unwrap() % values.len().max(1);
        values.rotate_left(by);
        prop_assert_eq!(reconcile(&service, &values, &nodes(), &[]), changes);
    }
}
