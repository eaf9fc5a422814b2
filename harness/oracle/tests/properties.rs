//! What must be true of the answers whatever the objects.

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;

use oracle::{
    Cluster, Destination, Expectation, Observation, Observed, Outcome, Protocol, Share, Source,
    expect, frontends,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::*;

/// An endpoint as a test draws it.
#[derive(Clone, Debug)]
struct Ep {
    pod: &'static str,
    state: &'static str,
    zone: Option<&'static str>,
    node: Option<&'static str>,
    no_node: bool,
}

impl Ep {
    fn value(&self) -> Value {
        let mut value = ep(self.pod, self.state);
        if self.no_node {
            merge(&mut value, &json!({"nodeName": null}));
        }
        let mut hints = json!({});
        if let Some(zone) = self.zone {
            hints["forZones"] = json!([{ "name": zone }]);
        }
        if let Some(node) = self.node {
            hints["forNodes"] = json!([{ "name": node }]);
        }
        value["hints"] = hints;
        value
    }
}

const PODS: [&str; 4] = ["a1", "a2", "b1", "b2"];

fn any_ep(hints: bool) -> impl Strategy<Value = Ep> {
    let hint = move |values: [&'static str; 2]| {
        // Mostly hinted: hints count only when all ready endpoints have them.
        prop::option::weighted(0.8, prop::sample::select(values.to_vec()))
            .prop_map(move |hint| hint.filter(|_| hints))
    };
    (
        prop::sample::select(PODS.to_vec()),
        prop::sample::select(vec![
            "ready", "ready", "unready", "serving", "gone", "nil", "absent",
        ]),
        hint(["a", "b"]),
        hint(["n1", "n2"]),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(pod, state, zone, node, no_node)| Ep {
            pod,
            state,
            zone,
            node,
            no_node,
        })
}

fn any_slices(hints: bool) -> impl Strategy<Value = Vec<Vec<Ep>>> {
    prop::collection::vec(prop::collection::vec(any_ep(hints), 0..4), 0..4)
}

fn any_service() -> impl Strategy<Value = Value> {
    (
        prop::sample::select(vec!["ClusterIP", "NodePort", "LoadBalancer"]),
        prop::sample::select(vec!["Cluster", "Local"]),
        prop::sample::select(vec!["Cluster", "Local"]),
        prop::sample::select(vec!["None", "ClientIP"]),
        prop::sample::select(vec![
            json!([]),
            json!(["10.99.0.11/32", "10.244.1.0/24"]),
            json!(["fd00::/8"]),
        ]),
    )
        .prop_map(|(kind, internal, external, affinity, ranges)| {
            service(
                kind,
                json!({"spec": {
                    "internalTrafficPolicy": internal, "externalTrafficPolicy": external,
                    "sessionAffinity": affinity, "loadBalancerSourceRanges": ranges,
                }}),
            )
        })
}

fn objects(service: &Value, slices: &[Vec<Ep>]) -> Vec<Value> {
    let mut objects = vec![service.clone()];
    for (i, list) in slices.iter().enumerate() {
        objects.push(slice(
            &format!("s{i}"),
            list.iter().map(Ep::value).collect(),
        ));
    }
    objects
}

fn sources() -> Vec<Source> {
    let mut all: Vec<Source> = PODS.map(pod).into();
    all.extend([node("n1"), node("n2"), outside("n1"), outside("n2")]);
    all.push(Source::Neighbour {
        ip: ip("10.89.0.99"),
    });
    all
}

fn destinations() -> Vec<Destination> {
    vec![
        tcp(CLUSTER_IP, 80),
        tcp(CLUSTER_IP, 81),
        udp(CLUSTER_IP, 80),
        tcp(N1, 30080),
        tcp(N2, 30080),
        tcp("10.244.1.1", 30080),
        tcp("127.0.0.1", 30080),
        tcp(EXTERNAL_IP, 80),
        tcp(LB_IP, 80),
        tcp("10.96.99.99", 80),
        tcp("10.244.1.11", 8080),
    ]
}

/// Every question to the cluster, with its answer.
fn answers(cluster: &Cluster) -> Vec<(Source, Destination, Expectation)> {
    let mut all = Vec::new();
    for source in sources() {
        for to in destinations() {
            let expectation = expect(cluster, &source, &to);
            all.push((source.clone(), to, expectation));
        }
    }
    all
}

fn shares(expectation: &Expectation) -> impl Iterator<Item = &Share> {
    expectation
        .outcomes
        .iter()
        .flat_map(|outcome| match outcome {
            Outcome::Endpoints { shares, .. } => shares.as_slice(),
            _ => &[],
        })
}

fn addresses(expectation: &Expectation) -> BTreeSet<IpAddr> {
    shares(expectation).map(|share| share.ip).collect()
}

/// A usable copy of the pod's endpoint exists: what "may ever answer" means, said in another way than the oracle does.
fn may_ever_answer(slices: &[Vec<Ep>], ip: IpAddr) -> bool {
    let usable = ["ready", "nil", "absent", "serving"];
    slices
        .iter()
        .flatten()
        .any(|ep| pod_ips(ep.pod)[0] == ip && usable.contains(&ep.state))
}

fn any_ready(slices: &[Vec<Ep>], pod: &str) -> bool {
    slices
        .iter()
        .flatten()
        .any(|ep| ep.pod == pod && ["ready", "nil", "absent"].contains(&ep.state))
}

/// The requirement ids of the catalogue.
fn known_requirements() -> BTreeSet<&'static str> {
    let text = include_str!("../../../scenarios/requirements.yaml");
    text.lines()
        .filter_map(|line| line.strip_prefix("- id: "))
        .map(str::trim)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_never_matters(service in any_service(), slices in any_slices(true), seed in any::<u64>()) {
        let objects = objects(&service, &slices);
        let mut shuffled = objects.clone();
        let mut state = seed | 1;
        let mut below = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as usize) % n
        };
        for i in (1..shuffled.len()).rev() {
            shuffled.swap(i, below(i + 1));
        }
        for object in &mut shuffled {
            if let Some(list) = object["endpoints"].as_array_mut() {
                for i in (1..list.len()).rev() {
                    list.swap(i, below(i + 1));
                }
            }
        }
        let mut other = cluster(&shuffled);
        other.nodes.reverse();
        prop_assert_eq!(answers(&cluster(&objects)), answers(&other));
    }

    #[test]
    fn the_cut_into_slices_never_matters(service in any_service(), slices in any_slices(true)) {
        let one = vec![slices.concat()];
        let each: Vec<Vec<Ep>> = slices.concat().into_iter().map(|ep| vec![ep]).collect();
        let mut twice = slices.clone();
        twice.extend(slices.clone());
        let want = answers(&cluster(&objects(&service, &slices)));
        for other in [one, each, twice] {
            prop_assert_eq!(&want, &answers(&cluster(&objects(&service, &other))));
        }
    }

    #[test]
    fn an_unrelated_service_changes_nothing(service in any_service(), slices in any_slices(true)) {
        let objects = objects(&service, &slices);
        let mut more = objects.clone();
        more.push(with(support::service("LoadBalancer", json!({})), json!({
            "metadata": {"name": "other"},
            "spec": {
                "clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20", "fd00:96::20"],
                "externalIPs": ["198.51.100.20"],
                "ports": [{"name": "http", "port": 80, "nodePort": 30999}],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.20"}]}},
        })));
        let labels = json!({"metadata": {"labels": {"kubernetes.io/service-name": "other"}}});
        more.push(with(slice("other", vec![ep("b2", "ready")]), labels));
        prop_assert_eq!(answers(&cluster(&objects)), answers(&cluster(&more)));
    }

    #[test]
    fn only_usable_endpoints_of_the_service_ever_answer(service in any_service(), slices in any_slices(true)) {
        for (source, to, expectation) in answers(&cluster(&objects(&service, &slices))) {
            for share in shares(&expectation) {
                prop_assert!(may_ever_answer(&slices, share.ip), "{} to {}: {}", source, to, share);
                prop_assert_eq!(share.port, 8080);
                prop_assert_eq!(share.weight, 1);
            }
        }
    }

    #[test]
    fn unready_never_while_the_policy_has_a_ready_one(service in any_service(), slices in any_slices(true)) {
        for (source, to, expectation) in answers(&cluster(&objects(&service, &slices))) {
            for outcome in &expectation.outcomes {
                let Outcome::Endpoints { shares, .. } = outcome else { continue };
                let ready = |share: &Share| any_ready(&slices, share.pod.as_deref().unwrap());
                let some = shares.iter().any(ready);
                prop_assert!(some == shares.iter().all(ready), "{} to {}: {}", source, to, outcome);
            }
        }
    }

    #[test]
    fn the_shape_of_an_answer(service in any_service(), slices in any_slices(true)) {
        let known = known_requirements();
        for (source, to, expectation) in answers(&cluster(&objects(&service, &slices))) {
            let outcomes = &expectation.outcomes;
            prop_assert!(!outcomes.is_empty());
            prop_assert_eq!(expectation.characteristic.is_some(), outcomes.len() > 1, "{} to {}", source, to);
            for (i, outcome) in outcomes.iter().enumerate() {
                prop_assert!(!outcomes[..i].contains(outcome));
                if let Outcome::Endpoints { shares, .. } = outcome {
                    prop_assert!(!shares.is_empty());
                    let mut sorted = shares.clone();
                    sorted.sort();
                    sorted.dedup_by_key(|share| (share.ip, share.port));
                    prop_assert_eq!(&sorted, shares);
                }
            }
            prop_assert!(!expectation.why.is_empty());
            prop_assert_eq!(expectation.requirements.iter().collect::<BTreeSet<_>>().len(), expectation.requirements.len());
            for id in &expectation.requirements {
                prop_assert!(known.contains(id.as_str()), "{} is no requirement", id);
            }
            let endpoints = outcomes.iter().any(|o| matches!(o, Outcome::Endpoints { .. }));
            prop_assert!(endpoints || expectation.affinity.is_none());
            let text = serde_json::to_string(&expectation).unwrap();
            prop_assert_eq!(serde_json::from_str::<Expectation>(&text).unwrap(), expectation);
        }
    }

    #[test]
    fn local_is_on_the_node_and_part_of_cluster(slices in any_slices(false)) {
        let policy = |name: &str| {
            let patch = json!({"spec": {"internalTrafficPolicy": name, "externalTrafficPolicy": name}});
            cluster(&objects(&service("LoadBalancer", patch), &slices))
        };
        let (all, local) = (policy("Cluster"), policy("Local"));
        for (source, to, on) in [
            (pod("a2"), tcp(CLUSTER_IP, 80), "a"),
            (node("n2"), tcp(CLUSTER_IP, 80), "b"),
            (outside("n1"), tcp(LB_IP, 80), "a"),
            (outside("n1"), tcp(N2, 30080), "b"),
            (outside("n2"), tcp(EXTERNAL_IP, 80), "b"),
        ] {
            let cluster_set = addresses(&expect(&all, &source, &to));
            let local_answer = expect(&local, &source, &to);
            for share in shares(&local_answer) {
                let pod = share.pod.clone().unwrap();
                prop_assert!(pod.starts_with(on), "{} is not on the node", pod);
                // A terminating endpoint may be the best on its node while others have ready ones.
                prop_assert!(cluster_set.contains(&share.ip) || !any_ready(&slices, &pod));
            }
            prop_assert!(!cluster_set.is_empty() || addresses(&local_answer).is_empty());
        }
    }

    #[test]
    fn policies_stay_in_their_half(slices in any_slices(true), external in prop::sample::select(vec!["Cluster", "Local"])) {
        let ask = |internal: &str, external: &str, source: &Source, to: &Destination| {
            let patch = json!({"spec": {"internalTrafficPolicy": internal, "externalTrafficPolicy": external}});
            expect(&cluster(&objects(&service("LoadBalancer", patch), &slices)), source, to)
        };
        for source in sources() {
            for to in [tcp(LB_IP, 80), tcp(N1, 30080), tcp(EXTERNAL_IP, 80)] {
                prop_assert_eq!(ask("Cluster", external, &source, &to), ask("Local", external, &source, &to));
            }
            let to = tcp(CLUSTER_IP, 80);
            prop_assert_eq!(ask("Local", "Cluster", &source, &to), ask("Local", "Local", &source, &to));
        }
    }

    #[test]
    fn without_hints_the_cluster_set_is_the_same_for_everybody(slices in any_slices(false)) {
        let cluster = cluster(&objects(&service("LoadBalancer", json!({})), &slices));
        // The plain model: ready ones, else serving and terminating ones.
        let state = |pod: &str, wanted: &[&str]| slices.iter().flatten().any(|ep| ep.pod == pod && wanted.contains(&ep.state));
        let pick = |wanted: &[&str]| -> BTreeSet<IpAddr> {
            PODS.iter().filter(|pod| state(pod, wanted)).map(|pod| pod_ips(pod)[0]).collect()
        };
        let ready = pick(&["ready", "nil", "absent"]);
        let want = if ready.is_empty() { pick(&["serving"]) } else { ready };
        for frontend in frontends(&cluster) {
            if frontend.family == oracle::Family::Ipv6 {
                continue;
            }
            for source in sources() {
                let expectation = expect(&cluster, &source, &frontend.destination());
                prop_assert_eq!(&addresses(&expectation), &want, "{} to {:?}", source, frontend);
                if want.is_empty() && frontend.kind != oracle::FrontendKind::ClusterIp {
                    // A node's own packets to an address that no node holds may also leave it.
                    let routed_out = frontend.kind != oracle::FrontendKind::NodePort;
                    let open = routed_out && matches!(source, oracle::Source::Node { .. });
                    let outcomes: &[Outcome] = if open {
                        &[Outcome::Refuse, Outcome::NotService]
                    } else {
                        &[Outcome::Refuse]
                    };
                    prop_assert_eq!(&expectation.outcomes[..], outcomes);
                }
            }
        }
    }

    #[test]
    fn another_protocols_port_changes_nothing(service in any_service(), slices in any_slices(true)) {
        let mut more = service.clone();
        let mut port = more["spec"]["ports"][0].clone();
        merge(&mut port, &json!({"name": "http-udp", "protocol": "UDP"}));
        more["spec"]["ports"].as_array_mut().unwrap().push(port);
        let (plain, both) = (cluster(&objects(&service, &slices)), cluster(&objects(&more, &slices)));
        for source in sources() {
            for to in destinations().into_iter().filter(|to| to.protocol == Protocol::Tcp) {
                prop_assert_eq!(expect(&plain, &source, &to), expect(&both, &source, &to));
            }
        }
    }

    #[test]
    fn a_proxy_that_does_what_is_expected_passes(
        service in any_service(), slices in any_slices(true), start in 0usize..4, n in 1usize..200,
    ) {
        for (source, to, expectation) in answers(&cluster(&objects(&service, &slices))) {
            for (i, outcome) in expectation.outcomes.iter().enumerate() {
                let observed = obey(&expectation, outcome, n, start);
                let mismatches = oracle::check(&expectation, &observed);
                prop_assert!(mismatches.is_empty(), "{} to {} ({}): {:?}", source, to, outcome, mismatches);
                let matched = oracle::matched_outcome(&expectation, &observed);
                prop_assert!(matched.is_some_and(|index| index <= i));
            }
        }
    }
}

/// What a proxy that shows this outcome would give: endpoints in turn, one per client with affinity. In turn and not
/// at random, because random choices look unfair once in a million times.
fn obey(expectation: &Expectation, outcome: &Outcome, n: usize, start: usize) -> Vec<Observation> {
    let answered = |ip, port, pod: &str, client_ip| Observed::Answered {
        ip,
        port,
        pod: pod.into(),
        client_ip,
    };
    let client = expectation
        .client_ips
        .first()
        .copied()
        .unwrap_or(ip("10.99.0.200"));
    let fixed = match outcome {
        Outcome::Endpoints { shares, .. } => {
            return (0..n)
                .map(|i| {
                    let turn = if expectation.affinity.is_some() {
                        i % 7
                    } else {
                        i
                    };
                    let share = &shares[(start + turn) % shares.len()];
                    // Hairpin traffic comes from some other address.
                    let from = if share.hairpin {
                        ip("10.244.1.1")
                    } else {
                        client
                    };
                    Observation {
                        outcome: answered(
                            share.ip,
                            share.port,
                            share.pod.as_deref().unwrap_or(""),
                            from,
                        ),
                        affinity_key: Some(format!("client {}", i % 7)),
                    }
                })
                .collect();
        }
        Outcome::Refuse => Observed::Refused,
        Outcome::Drop | Outcome::NoAnswer => Observed::TimedOut,
        Outcome::NotService => match &expectation.direct {
            oracle::Direct::Nobody => Observed::Unreachable,
            oracle::Direct::Pod { name } | oracle::Direct::Listener { name } => {
                answered(ip(N1), 1, name, client)
            }
        },
    };
    vec![
        Observation {
            outcome: fixed,
            affinity_key: None
        };
        n
    ]
}

/// Rules of rare paths too may only name requirements that exist.
#[test]
fn the_rules_name_requirements_that_exist() {
    let known = known_requirements();
    let areas: BTreeSet<&str> = known
        .iter()
        .map(|id| id.rsplit_once('-').unwrap().0)
        .collect();
    let named: BTreeSet<&str> = include_str!("../src/expect.rs")
        .split('"')
        .filter(|text| {
            text.rsplit_once('-')
                .is_some_and(|(area, number)| areas.contains(area) && number.parse::<u32>().is_ok())
        })
        .collect();
    assert!(named.len() > 30, "the search finds them: {named:?}");
    let unknown: Vec<_> = named.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
