//! One table per rule: objects, then who asks what and the answer.

mod support;

use oracle::{Direct, Source, expect};
use serde_json::{Value, json};
use support::*;

/// Compares all rows before it fails, so that one run shows the whole damage.
fn table(objects: &[Value], rows: &[(Source, oracle::Destination, &str)]) {
    table_of(&cluster(objects), rows);
}

fn table_of(cluster: &oracle::Cluster, rows: &[(Source, oracle::Destination, &str)]) {
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|(source, to, want)| {
            let got = ask(cluster, source, *to);
            (got != *want).then(|| format!("{source} to {to}: got {got:?}, want {want:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn ready() -> Value {
    slice("s", vec![ep("a1", "ready"), ep("b1", "ready")])
}

#[test]
fn every_frontend_reaches_the_ready_endpoints() {
    table(
        &[service("LoadBalancer", json!({})), ready()],
        &[
            (pod("a2"), tcp(CLUSTER_IP, 80), "a1,b1!"),
            (node("n1"), tcp(CLUSTER_IP, 80), "a1,b1"),
            (pod("a2"), tcp(N1, 30080), "a1,b1"),
            (pod("a2"), tcp(N2, 30080), "a1,b1"),
            (node("n1"), tcp(N1, 30080), "a1,b1"),
            (outside("n1"), tcp(N2, 30080), "a1,b1"),
            (outside("n1"), tcp(EXTERNAL_IP, 80), "a1,b1"),
            (pod("a2"), tcp(EXTERNAL_IP, 80), "a1,b1"),
            (node("n2"), tcp(EXTERNAL_IP, 80), "a1,b1"),
            (outside("n2"), tcp(LB_IP, 80), "a1,b1"),
            (pod("a2"), tcp(LB_IP, 80), "a1,b1"),
            (node("n2"), tcp(LB_IP, 80), "a1,b1"),
            // The target port is no frontend, nor is the nodePort number anywhere else.
            (pod("a2"), tcp(CLUSTER_IP, 8080), "none"),
            (pod("a2"), tcp(CLUSTER_IP, 30080), "none"),
            (outside("n1"), tcp(EXTERNAL_IP, 30080), "plain"),
            (outside("n1"), tcp(N1, 80), "plain"),
            // Other protocols are other ports.
            (pod("a2"), udp(CLUSTER_IP, 80), "none"),
            (outside("n1"), udp(N1, 30080), "plain"),
            (pod("a2"), udp(LB_IP, 80), "plain"),
        ],
    );
}

#[test]
fn families_are_worlds_of_their_own() {
    let slices = [
        slice("four", vec![ep("a1", "ready")]),
        slice6("six", vec![ep6("b1", "ready")]),
        with(slice("wrong", vec![ep6("a2", "ready")]), json!({})),
        with(
            slice("fqdn", vec![ep("a2", "ready")]),
            json!({"addressType": "FQDN"}),
        ),
    ];
    let mut objects = vec![service("LoadBalancer", json!({}))];
    objects.extend(slices.clone());
    table(
        &objects,
        &[
            (pod("a2"), tcp(CLUSTER_IP, 80), "a1!"),
            (pod("a2"), tcp("fd00:96::10", 80), "b1!"),
            (outside("n1"), tcp("fd00:89::b", 30080), "b1"),
            (outside("n1"), tcp("2001:db8:51::1", 80), "b1"),
            (outside("n1"), tcp("2001:db8:113::1", 80), "b1"),
        ],
    );
    // A single-stack Service does not exist in the other family, whatever addresses it lists there.
    let single = json!({"spec": {"clusterIPs": ["fd00:96::10"], "clusterIP": "fd00:96::10"}});
    objects[0] = service("LoadBalancer", single);
    table(
        &objects,
        &[
            (pod("a2"), tcp("fd00:96::10", 80), "b1!"),
            (pod("a2"), tcp(CLUSTER_IP, 80), "none"),
            (outside("n1"), tcp(N1, 30080), "plain"),
            (outside("n1"), tcp(EXTERNAL_IP, 80), "plain"),
            (outside("n1"), tcp(LB_IP, 80), "plain"),
        ],
    );
}

#[test]
fn conditions_decide_who_is_usable() {
    let rows: [(&[(&str, &str)], &str); 12] = [
        (&[("a1", "ready"), ("b1", "unready")], "a1!"),
        (&[("a1", "nil"), ("b1", "unready")], "a1!"),
        (&[("a1", "absent"), ("b1", "unready")], "a1!"),
        (&[("a1", "ready"), ("b1", "serving")], "a1!"),
        (&[("a1", "unready"), ("b1", "serving")], "b1!"),
        (&[("a1", "serving"), ("b1", "serving")], "a1,b1!"),
        (&[("a1", "gone"), ("b1", "serving")], "b1!"),
        (&[("a1", "gone"), ("b1", "unready")], "refuse"),
        (&[("a1", "gone"), ("b1", "gone")], "refuse"),
        (&[("a1", "unready")], "refuse"),
        (&[], "refuse"),
        (
            &[
                ("a1", "ready"),
                ("a2", "ready"),
                ("b1", "ready"),
                ("b2", "ready"),
            ],
            "a1,a2*,b1,b2!",
        ),
    ];
    for (endpoints, want) in rows {
        let list = endpoints
            .iter()
            .map(|(pod, state)| ep(pod, state))
            .collect();
        let cluster = cluster(&[service("ClusterIP", json!({})), slice("s", list)]);
        assert_eq!(
            ask(&cluster, &pod("a2"), tcp(CLUSTER_IP, 80)),
            want,
            "{endpoints:?}"
        );
    }
}

#[test]
fn absent_conditions_one_by_one() {
    let rows = [
        (json!({"ready": false, "terminating": true}), "a1!"),
        (json!({"ready": false}), "refuse"),
        (json!({"ready": false, "serving": true}), "refuse"),
        (
            json!({"ready": null, "serving": null, "terminating": null}),
            "a1!",
        ),
        (json!({"serving": false}), "a1!"),
        // A Service that publishes not-ready addresses: ready although terminating.
        (
            json!({"ready": true, "serving": false, "terminating": true}),
            "a1!",
        ),
    ];
    for (conditions, want) in rows {
        let mut endpoint = ep("a1", "ready");
        endpoint["conditions"] = conditions.clone();
        let cluster = cluster(&[service("ClusterIP", json!({})), slice("s", vec![endpoint])]);
        assert_eq!(
            ask(&cluster, &pod("a2"), tcp(CLUSTER_IP, 80)),
            want,
            "{conditions}"
        );
    }
}

#[test]
fn duplicates_count_once_and_the_usable_copy_wins() {
    let rows: [(Vec<Value>, &str); 7] = [
        (
            vec![
                slice("x", vec![ep("a1", "ready"), ep("b1", "ready")]),
                slice("y", vec![ep("a1", "ready")]),
            ],
            "a1,b1!",
        ),
        (
            vec![
                slice("x", vec![ep("a1", "gone")]),
                slice("y", vec![ep("a1", "ready")]),
            ],
            "a1!",
        ),
        (
            vec![slice("x", vec![ep("a1", "ready"), ep("a1", "gone")])],
            "a1!",
        ),
        // A pod that still serves while it ends, or the next one with its address, which is not ready: nobody says which.
        (
            vec![slice("x", vec![ep("a1", "serving"), ep("a1", "gone")])],
            "a1! / refuse [terminating-beside-unready]",
        ),
        (
            vec![
                slice("x", vec![ep("a1", "serving"), ep("b1", "serving")]),
                slice("y", vec![ep("a1", "unready")]),
            ],
            "a1,b1! / b1! [terminating-beside-unready]",
        ),
        // Where a ready endpoint takes the traffic anyway, nothing is open.
        (
            vec![
                slice("x", vec![ep("a1", "serving"), ep("b1", "ready")]),
                slice("y", vec![ep("a1", "unready")]),
            ],
            "b1!",
        ),
        (
            vec![slice(
                "x",
                vec![ep("a1", "serving"), ep("a1", "ready"), ep("b1", "serving")],
            )],
            "a1!",
        ),
    ];
    for (slices, want) in rows {
        for reversed in [false, true] {
            let mut objects = vec![service("ClusterIP", json!({}))];
            objects.extend(slices.clone());
            if reversed {
                objects.reverse();
                for object in &mut objects {
                    if let Some(list) = object["endpoints"].as_array_mut() {
                        list.reverse();
                    }
                }
            }
            let expectation = expect(&cluster(&objects), &pod("a2"), &tcp(CLUSTER_IP, 80));
            assert_eq!(short(&expectation), want);
            let oracle::Outcome::Endpoints { shares, .. } = &expectation.outcomes[0] else {
                panic!()
            };
            assert!(shares.iter().all(|share| share.weight == 1));
        }
    }
}

#[test]
fn ports_pair_by_name_and_protocol_over_all_slices() {
    let ports = json!({"spec": {"ports": [
        {"name": "http", "port": 80},
        {"name": "admin", "port": 81, "protocol": "TCP"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]}});
    let port = |list: Value| json!({ "ports": list });
    table(
        &[
            service("ClusterIP", ports),
            // Target ports differ by endpoint, and one address listens on two ports.
            with(
                slice("one", vec![ep("a1", "ready")]),
                port(json!([{"name": "http", "port": 8080}])),
            ),
            with(
                slice("two", vec![ep("a1", "ready"), ep("b1", "ready")]),
                port(json!([{"name": "http", "port": 9090}])),
            ),
            with(
                slice("three", vec![ep("b2", "ready")]),
                port(json!([
                    {"name": "admin", "port": 9091}, {"name": "dns", "protocol": "UDP", "port": 1053},
                ])),
            ),
            // The name fits, the protocol does not; and a port without a number means nothing.
            with(
                slice("four", vec![ep("a2", "ready")]),
                port(json!([
                    {"name": "dns-tcp", "protocol": "UDP", "port": 1053}, {"name": "admin", "port": null},
                    {"name": "http", "port": 0},
                ])),
            ),
            // Another Service's, another namespace's, nobody's.
            with(
                slice("web", vec![ep("a2", "ready")]),
                json!({"metadata": {"labels": {"kubernetes.io/service-name": "other"}}}),
            ),
            with(
                slice("web", vec![ep("a2", "ready")]),
                json!({"metadata": {"namespace": "elsewhere"}}),
            ),
            with(
                slice("web", vec![ep("a2", "ready")]),
                json!({"metadata": {"labels": null, "ownerReferences": [{"name": "web"}]}}),
            ),
        ],
        &[
            (pod("b2"), tcp(CLUSTER_IP, 80), "a1,a1:9090,b1:9090!"),
            (pod("a2"), tcp(CLUSTER_IP, 81), "b2:9091!"),
            (pod("a2"), udp(CLUSTER_IP, 53), "b2:1053!"),
            (pod("a2"), tcp(CLUSTER_IP, 53), "refuse"),
        ],
    );
}

#[test]
fn only_the_first_address_of_an_endpoint_has_a_meaning() {
    let mut endpoint = ep("a1", "ready");
    endpoint["addresses"] = json!(["10.244.1.11", "10.244.1.12"]);
    let empty = json!({"addresses": []});
    table(
        &[
            service("ClusterIP", json!({})),
            slice("s", vec![endpoint, empty]),
        ],
        &[(pod("b1"), tcp(CLUSTER_IP, 80), "a1!")],
    );
}

#[test]
fn hairpin() {
    let cluster = cluster(&[
        service("LoadBalancer", json!({})),
        slice("s", vec![ep("a1", "ready")]),
    ]);
    let expectation = expect(&cluster, &pod("a1"), &tcp(CLUSTER_IP, 80));
    assert_eq!(short(&expectation), "a1*!");
    assert!(expectation.requirements.contains(&"SRC-3".into()));
    assert!(!expectation.requirements.contains(&"SRC-1".into()));
    assert!(!expectation.requirements.contains(&"SRC-6".into()));
    for to in [
        tcp(N1, 30080),
        tcp(N2, 30080),
        tcp(EXTERNAL_IP, 80),
        tcp(LB_IP, 80),
    ] {
        assert_eq!(ask(&cluster, &pod("a1"), to), "a1*");
    }
    // Without a nodeName it is one too; that some proxies cannot tell is a rule of its own.
    let mut nameless = ep("a1", "ready");
    nameless.as_object_mut().unwrap().remove("nodeName");
    let cluster = support::cluster(&[service("ClusterIP", json!({})), slice("s", vec![nameless])]);
    let expectation = expect(&cluster, &pod("a1"), &tcp(CLUSTER_IP, 80));
    assert_eq!(short(&expectation), "a1*!");
    assert!(expectation.requirements.contains(&"SRC-6".into()));
}

#[test]
fn internal_traffic_policy_local() {
    let local = || {
        service(
            "LoadBalancer",
            json!({"spec": {"internalTrafficPolicy": "Local"}}),
        )
    };
    table(
        &[local(), ready()],
        &[
            (pod("a2"), tcp(CLUSTER_IP, 80), "a1!"),
            (node("n1"), tcp(CLUSTER_IP, 80), "a1"),
            (pod("b2"), tcp(CLUSTER_IP, 80), "b1!"),
            // Only the ClusterIP is concerned.
            (pod("a2"), tcp(N1, 30080), "a1,b1"),
            (pod("a2"), tcp(EXTERNAL_IP, 80), "a1,b1"),
            (outside("n1"), tcp(LB_IP, 80), "a1,b1"),
        ],
    );
    table(
        &[
            local(),
            slice("s", vec![ep("b1", "ready"), ep("a1", "unready")]),
        ],
        &[
            (
                pod("a2"),
                tcp(CLUSTER_IP, 80),
                "drop / refuse [internal-local-without-endpoint]",
            ),
            (
                node("n1"),
                tcp(CLUSTER_IP, 80),
                "drop / refuse [internal-local-without-endpoint]",
            ),
            (pod("b2"), tcp(CLUSTER_IP, 80), "b1!"),
        ],
    );
    // The fallback to terminating endpoints is per node; endpoints without a node are nobody's.
    let nowhere = with(ep("b2", "ready"), json!({"nodeName": null}));
    table(
        &[
            local(),
            slice("s", vec![ep("a1", "serving"), ep("b1", "ready"), nowhere]),
        ],
        &[
            (pod("a2"), tcp(CLUSTER_IP, 80), "a1!"),
            (pod("b2"), tcp(CLUSTER_IP, 80), "b1!"),
        ],
    );
    // A node is known by its name, whether there is a Node object or not.
    let unknown = Source::Pod {
        name: "c1".into(),
        node: "n3".into(),
        ips: vec!["10.244.3.11".parse().unwrap()],
    };
    let there = with(ep("b2", "ready"), json!({"nodeName": "n3"}));
    table(
        &[local(), slice("s", vec![ep("a1", "ready"), there])],
        &[(unknown, tcp(CLUSTER_IP, 80), "b2!")],
    );
}

#[test]
fn external_traffic_policy_local() {
    let local = || {
        service(
            "LoadBalancer",
            json!({"spec": {"externalTrafficPolicy": "Local"}}),
        )
    };
    let one_node = || {
        slice(
            "s",
            vec![ep("b1", "ready"), ep("b2", "ready"), ep("a1", "unready")],
        )
    };
    let open = "[nodeport-local-from-cluster]";
    table(
        &[local(), one_node()],
        &[
            (outside("n1"), tcp(N2, 30080), "b1,b2!"),
            (outside("n1"), tcp(N1, 30080), "drop"),
            (outside("n2"), tcp(EXTERNAL_IP, 80), "b1,b2!"),
            (outside("n1"), tcp(EXTERNAL_IP, 80), "drop"),
            (outside("n2"), tcp(LB_IP, 80), "b1,b2!"),
            (outside("n1"), tcp(LB_IP, 80), "drop"),
            // In-cluster clients of VIPs get policy Cluster.
            (pod("a2"), tcp(LB_IP, 80), "b1,b2"),
            (node("n1"), tcp(LB_IP, 80), "b1,b2"),
            (pod("a2"), tcp(EXTERNAL_IP, 80), "b1,b2"),
            (node("n1"), tcp(EXTERNAL_IP, 80), "b1,b2"),
            // At NodePorts it is open, but only where it makes a difference.
            (
                pod("a2"),
                tcp(N1, 30080),
                &format!("b1,b2 / drop / refuse {open}"),
            ),
            (pod("a2"), tcp(N2, 30080), "b1,b2"),
            (
                node("n1"),
                tcp(N1, 30080),
                &format!("b1,b2 / drop / refuse {open}"),
            ),
            (pod("a2"), tcp(CLUSTER_IP, 80), "b1,b2!"),
        ],
    );
    table(
        &[local(), ready()],
        &[
            (outside("n1"), tcp(N1, 30080), "a1!"),
            (pod("a2"), tcp(N1, 30080), &format!("a1,b1 / a1 {open}")),
        ],
    );
    // The node's fallback to terminating endpoints does not look at other nodes.
    table(
        &[
            local(),
            slice("s", vec![ep("a1", "serving"), ep("b1", "ready")]),
        ],
        &[
            (outside("n1"), tcp(LB_IP, 80), "a1!"),
            (outside("n2"), tcp(LB_IP, 80), "b1!"),
            (pod("a2"), tcp(LB_IP, 80), "b1"),
        ],
    );
}

#[test]
fn nobody_usable_is_refused_everywhere() {
    table(
        &[
            service("LoadBalancer", json!({})),
            slice("s", vec![ep("a1", "unready")]),
        ],
        &[
            (pod("a2"), tcp(CLUSTER_IP, 80), "refuse"),
            (node("n1"), tcp(CLUSTER_IP, 80), "refuse"),
            (pod("a2"), tcp(N1, 30080), "refuse"),
            (outside("n1"), tcp(N1, 30080), "refuse"),
            (outside("n1"), tcp(EXTERNAL_IP, 80), "refuse"),
            (pod("a2"), tcp(EXTERNAL_IP, 80), "refuse"),
            (outside("n1"), tcp(LB_IP, 80), "refuse"),
            (
                node("n1"),
                tcp(LB_IP, 80),
                "refuse / plain [no-endpoints-from-node]",
            ),
            (
                node("n1"),
                tcp(EXTERNAL_IP, 80),
                "refuse / plain [no-endpoints-from-node]",
            ),
            (node("n1"), tcp(N1, 30080), "refuse"),
        ],
    );
    let local =
        json!({"spec": {"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"}});
    let open = "refuse / drop [external-local-without-any-endpoint]";
    table(
        &[service("LoadBalancer", local)],
        &[
            (outside("n1"), tcp(N1, 30080), open),
            (outside("n1"), tcp(LB_IP, 80), open),
            (pod("a2"), tcp(LB_IP, 80), "refuse"),
            (
                pod("a2"),
                tcp(CLUSTER_IP, 80),
                "drop / refuse [internal-local-without-endpoint]",
            ),
        ],
    );
}

#[test]
fn hints_count_when_all_ready_endpoints_have_them() {
    let zone = |pod: &str, state: &str, zone: &str| {
        with(
            ep(pod, state),
            json!({"hints": {"forZones": [{"name": zone}]}}),
        )
    };
    let rows: Vec<(Vec<Value>, &str, &str)> = vec![
        (
            vec![zone("a1", "ready", "a"), zone("b1", "ready", "b")],
            "a1!",
            "b1!",
        ),
        // One ready endpoint without a hint, and all hints are void.
        (
            vec![zone("a1", "ready", "a"), ep("b1", "ready")],
            "a1,b1!",
            "a1,b1!",
        ),
        // One unready endpoint without a hint matters to nobody.
        (
            vec![
                zone("a1", "ready", "a"),
                zone("b1", "ready", "b"),
                ep("b2", "unready"),
            ],
            "a1!",
            "b1!",
        ),
        // Nothing for zone b.
        (
            vec![zone("a1", "ready", "a"), zone("b1", "ready", "a")],
            "a1,b1!",
            "a1,b1!",
        ),
        // Nothing ready for zone b: an unready endpoint is no reason to follow hints.
        (
            vec![zone("a1", "ready", "a"), zone("b1", "unready", "b")],
            "a1!",
            "a1!",
        ),
        // Nobody ready: hints do not narrow the fallback.
        (
            vec![zone("a1", "serving", "a"), zone("b1", "serving", "b")],
            "a1,b1!",
            "a1,b1!",
        ),
        // Node hints come before zone hints.
        (
            vec![
                with(
                    zone("a1", "ready", "a"),
                    json!({"hints": {"forNodes": [{"name": "n2"}]}}),
                ),
                with(
                    zone("b1", "ready", "b"),
                    json!({"hints": {"forNodes": [{"name": "n1"}]}}),
                ),
            ],
            "b1!",
            "a1!",
        ),
        // One ready endpoint without a node hint, and node hints are void.
        (
            vec![
                with(
                    ep("a1", "ready"),
                    json!({"hints": {"forNodes": [{"name": "n1"}]}}),
                ),
                ep("b1", "ready"),
            ],
            "a1,b1!",
            "a1,b1!",
        ),
        // Node hints for elsewhere only: zone hints.
        (
            vec![
                with(
                    zone("a1", "ready", "a"),
                    json!({"hints": {"forNodes": [{"name": "n1"}]}}),
                ),
                with(
                    zone("b1", "ready", "b"),
                    json!({"hints": {"forNodes": [{"name": "n1"}]}}),
                ),
            ],
            "a1,b1!",
            "b1!",
        ),
    ];
    for (endpoints, from_a, from_b) in rows {
        let text = json!(endpoints).to_string();
        let cluster = cluster(&[service("ClusterIP", json!({})), slice("s", endpoints)]);
        assert_eq!(
            ask(&cluster, &pod("a2"), tcp(CLUSTER_IP, 80)),
            from_a,
            "zone a: {text}"
        );
        assert_eq!(
            ask(&cluster, &pod("b2"), tcp(CLUSTER_IP, 80)),
            from_b,
            "zone b: {text}"
        );
    }
    // Local policies do not look at hints.
    let hinted = || {
        slice(
            "s",
            vec![zone("a1", "ready", "b"), zone("b1", "ready", "a")],
        )
    };
    let local =
        json!({"spec": {"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"}});
    table(
        &[service("LoadBalancer", local), hinted()],
        &[
            (pod("a2"), tcp(CLUSTER_IP, 80), "a1!"),
            (outside("n1"), tcp(LB_IP, 80), "a1!"),
        ],
    );
    // For a NodePort on another node there are two points of view.
    table(
        &[service("NodePort", json!({})), hinted()],
        &[
            (pod("a2"), tcp(N1, 30080), "b1"),
            (pod("a2"), tcp(N2, 30080), "a1 / b1 [nodeport-hints]"),
            (outside("n1"), tcp(N2, 30080), "a1"),
        ],
    );
    // A node without a zone has no use for zone hints.
    let mut unzoned = cluster(&[service("ClusterIP", json!({})), hinted()]);
    unzoned.nodes[0].zone = None;
    assert_eq!(ask(&unzoned, &pod("a2"), tcp(CLUSTER_IP, 80)), "a1,b1!");
}

#[test]
fn source_ranges_guard_the_load_balancer_address_alone() {
    let ranges = |list: Value| json!({"spec": {"loadBalancerSourceRanges": list}});
    table(
        &[
            service(
                "LoadBalancer",
                ranges(json!(["10.99.0.11/32", " 10.244.1.0/24 "])),
            ),
            ready(),
        ],
        &[
            (outside("n1"), tcp(LB_IP, 80), "a1,b1"),
            (outside("n2"), tcp(LB_IP, 80), "drop"),
            (pod("a2"), tcp(LB_IP, 80), "a1,b1"),
            (pod("b2"), tcp(LB_IP, 80), "drop"),
            (node("n1"), tcp(LB_IP, 80), "drop"),
            (outside("n2"), tcp(EXTERNAL_IP, 80), "a1,b1"),
            (outside("n2"), tcp(N1, 30080), "a1,b1"),
            (pod("b2"), tcp(CLUSTER_IP, 80), "a1,b1!"),
        ],
    );
    table(
        &[
            service("LoadBalancer", ranges(json!(["10.89.0.0/24"]))),
            ready(),
        ],
        &[
            (node("n1"), tcp(LB_IP, 80), "a1,b1"),
            (pod("a2"), tcp(LB_IP, 80), "drop"),
        ],
    );
    table(
        &[
            service("LoadBalancer", ranges(json!(["0.0.0.0/0"]))),
            ready(),
        ],
        &[(outside("n2"), tcp(LB_IP, 80), "a1,b1")],
    );
    table(
        &[
            service("LoadBalancer", ranges(json!(["fd00:99::/64"]))),
            ready(),
        ],
        &[(
            outside("n2"),
            tcp(LB_IP, 80),
            "a1,b1 / drop [source-ranges-of-other-family]",
        )],
    );
    // Denied comes before "no endpoints", and before the policy.
    table(
        &[service("LoadBalancer", ranges(json!(["192.0.2.0/24"])))],
        &[
            (outside("n2"), tcp(LB_IP, 80), "drop"),
            (outside("n2"), tcp(EXTERNAL_IP, 80), "refuse"),
        ],
    );
}

#[test]
fn source_ranges_and_nodes_with_several_addresses() {
    let ranges = json!({"spec": {"loadBalancerSourceRanges": ["10.89.0.0/24"]}});
    let mut cluster = cluster(&[service("LoadBalancer", ranges), ready()]);
    let open = "a1,b1 / drop [source-ranges-and-node-addresses]";
    cluster.nodes[0].internal_ips.push(ip("10.88.0.1"));
    assert_eq!(ask(&cluster, &node("n1"), tcp(LB_IP, 80)), open);
    assert_eq!(ask(&cluster, &node("n2"), tcp(LB_IP, 80)), "a1,b1");
    // A load balancer that puts its address on the node.
    cluster.nodes[1].all_ips.push(ip(LB_IP));
    assert_eq!(ask(&cluster, &node("n2"), tcp(LB_IP, 80)), open);
}

#[test]
fn load_balancer_status() {
    let status = |list: Value| json!({"status": {"loadBalancer": {"ingress": list}}});
    table(
        &[
            service(
                "LoadBalancer",
                status(json!([
                    {"ip": "203.0.113.1", "ipMode": "Proxy"}, {"ip": "203.0.113.2", "ipMode": "VIP"}, {"hostname": "lb.test"},
                ])),
            ),
            ready(),
        ],
        &[
            (pod("a2"), tcp(LB_IP, 80), "plain"),
            (outside("n1"), tcp(LB_IP, 80), "plain"),
            (pod("a2"), tcp("203.0.113.2", 80), "a1,b1"),
        ],
    );
    table(
        &[
            service("NodePort", status(json!([{"ip": "203.0.113.1"}]))),
            ready(),
        ],
        &[(
            pod("a2"),
            tcp(LB_IP, 80),
            "a1,b1 / plain [load-balancer-status-of-other-type]",
        )],
    );
    let without = json!({"spec": {
        "allocateLoadBalancerNodePorts": false,
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    }});
    table(
        &[service("LoadBalancer", without), ready()],
        &[
            (outside("n1"), tcp(LB_IP, 80), "a1,b1"),
            (outside("n1"), tcp(N1, 30080), "plain"),
        ],
    );
}

#[test]
fn node_port_addresses() {
    let objects = [service("NodePort", json!({})), ready()];
    let mut cluster = cluster(&objects);
    table_of(
        &cluster,
        &[
            (
                outside("n1"),
                tcp("10.244.1.1", 30080),
                "a1,b1 / plain [nodeport-on-other-address]",
            ),
            (
                node("n1"),
                tcp("127.0.0.1", 30080),
                "plain / a1,b1 [nodeport-localhost]",
            ),
            (node("n1"), tcp("127.0.0.1", 30081), "plain"),
            (pod("a2"), tcp("127.0.0.1", 30080), "plain"),
            (outside("n1"), tcp("127.0.0.1", 30080), "none"),
            (
                Source::Neighbour {
                    ip: ip("10.89.0.99"),
                },
                tcp("127.0.0.1", 30080),
                "none",
            ),
            (
                Source::Neighbour {
                    ip: ip("10.89.0.99"),
                },
                tcp(N1, 30080),
                "a1,b1",
            ),
        ],
    );
    cluster.nodeport_addresses = Some(vec!["10.244.0.0/16".parse().unwrap()]);
    table_of(
        &cluster,
        &[
            (outside("n1"), tcp("10.244.1.1", 30080), "a1,b1"),
            (outside("n1"), tcp(N1, 30080), "plain"),
            (node("n1"), tcp("127.0.0.1", 30080), "plain"),
            // Nothing is said about IPv6.
            (
                outside("n1"),
                tcp("fd00:89::b", 30080),
                "refuse / plain [nodeport-addresses-of-other-family]",
            ),
            (
                node("n1"),
                tcp("::1", 30080),
                "plain / refuse [nodeport-localhost]",
            ),
        ],
    );
    let frontends = oracle::frontends(&cluster);
    assert!(
        frontends
            .iter()
            .all(|frontend| frontend.family == oracle::Family::Ipv4
                || frontend.kind != oracle::FrontendKind::NodePort),
        "{frontends:?}"
    );
    let why = expect(&cluster, &pod("a2"), &tcp("fd00:89::b", 30080)).requirements;
    assert!(why.contains(&"SVC-NP-10".to_owned()), "{why:?}");
}

/// `allocateLoadBalancerNodePorts: false` leaves a LoadBalancer without a NodePort; and a number is none where the type has none.
#[test]
fn a_node_port_needs_a_type_and_a_number() {
    let none = json!({"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
    let left_over = json!({"spec": {"ports": [{"name": "http", "port": 80, "nodePort": 30080}]}});
    for service in [
        service("LoadBalancer", none),
        service("ClusterIP", left_over),
    ] {
        let cluster = cluster(&[service.clone(), ready()]);
        let has = |kind| oracle::frontends(&cluster).iter().any(|it| it.kind == kind);
        assert!(has(oracle::FrontendKind::ClusterIp));
        assert!(!has(oracle::FrontendKind::NodePort), "{service}");
        table_of(
            &cluster,
            &[
                (outside("n1"), tcp(N1, 30080), "plain"),
                (pod("a2"), tcp(CLUSTER_IP, 80), "a1,b1!"),
            ],
        );
    }
}

#[test]
fn outside_clients_of_a_cluster_ip_are_a_characteristic() {
    let local = json!({"spec": {"internalTrafficPolicy": "Local"}});
    table(
        &[service("ClusterIP", json!({})), ready()],
        &[(
            outside("n1"),
            tcp(CLUSTER_IP, 80),
            "none / a1,b1 [clusterip-from-outside]",
        )],
    );
    table(
        &[service("ClusterIP", local), ready()],
        &[(
            outside("n1"),
            tcp(CLUSTER_IP, 80),
            "none / a1 [clusterip-from-outside]",
        )],
    );
}

#[test]
fn services_that_are_not_this_proxys() {
    let rows = [
        (
            json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "other"}}}),
            "FLT-2",
        ),
        (
            json!({"spec": {"type": "ExternalName", "externalName": "example.test"}}),
            "FLT-4",
        ),
    ];
    for (patch, requirement) in rows {
        let cluster = cluster(&[service("NodePort", patch), ready()]);
        let expectation = expect(&cluster, &pod("a2"), &tcp(CLUSTER_IP, 80));
        assert_eq!(short(&expectation), "plain");
        assert_eq!(expectation.direct, Direct::Nobody);
        assert_eq!(expectation.requirements, [requirement]);
        assert!(oracle::frontends(&cluster).is_empty());
    }
    // With a name of its own, a proxy serves those that are labelled with it, and only those.
    let labelled =
        json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "mine"}}});
    let mut named = cluster(&[service("ClusterIP", labelled), ready()]);
    named.service_proxy_name = Some("mine".into());
    assert_eq!(ask(&named, &pod("a2"), tcp(CLUSTER_IP, 80)), "a1,b1!");
    let mut named = cluster(&[service("ClusterIP", json!({})), ready()]);
    named.service_proxy_name = Some("mine".into());
    assert_eq!(ask(&named, &pod("a2"), tcp(CLUSTER_IP, 80)), "plain");

    // Objects of old clients have one of the two fields.
    for headless in [
        json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}),
        json!({"spec": {"clusterIP": "None", "clusterIPs": null}}),
        json!({"spec": {"clusterIP": null, "clusterIPs": ["None"]}}),
    ] {
        table(
            &[service("ClusterIP", headless), ready()],
            &[
                (pod("a2"), tcp("10.244.1.11", 8080), "plain"),
                (
                    outside("n1"),
                    tcp(EXTERNAL_IP, 80),
                    "plain / a1,b1 [headless-external-frontend]",
                ),
            ],
        );
    }
    // The label is defined for slices. On a Service, some proxies obey it and others do not.
    let labelled = json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}});
    table(
        &[service("NodePort", labelled), ready()],
        &[
            (
                pod("a2"),
                tcp(CLUSTER_IP, 80),
                "plain / a1,b1! [headless-label-on-service]",
            ),
            (
                outside("n1"),
                tcp(N1, 30080),
                "plain / a1,b1 [headless-label-on-service]",
            ),
        ],
    );
    // Slices that are for DNS only do not count.
    let dns_only = with(
        ready(),
        json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}}),
    );
    table(
        &[service("ClusterIP", json!({})), dns_only],
        &[(pod("a2"), tcp(CLUSTER_IP, 80), "refuse")],
    );
}

#[test]
fn what_is_no_service_belongs_to_the_host() {
    let mut cluster = cluster(&[service("NodePort", json!({})), ready()]);
    cluster.listeners = vec![
        listener(Some("n1"), None, 30555, "sshd"),
        listener(Some("n1"), None, 30080, "squatter"),
        listener(Some("n2"), Some("127.0.0.1"), 30777, "local-only"),
        listener(None, Some("10.99.0.50"), 80, "web-outside"),
    ];
    let direct = |source: &Source, to| {
        let expectation = expect(&cluster, source, &to);
        assert_eq!(short(&expectation), "plain", "{source} to {to}");
        expectation.direct
    };
    let named = |name: &str| Direct::Listener { name: name.into() };
    assert_eq!(direct(&outside("n1"), tcp(N1, 30555)), named("sshd"));
    assert_eq!(direct(&node("n1"), tcp("127.0.0.1", 30555)), named("sshd"));
    assert_eq!(direct(&outside("n1"), tcp(N2, 30555)), Direct::Nobody);
    assert_eq!(
        direct(&node("n2"), tcp("127.0.0.1", 30777)),
        named("local-only")
    );
    assert_eq!(direct(&node("n2"), tcp(N2, 30777)), Direct::Nobody);
    assert_eq!(
        direct(&pod("a1"), tcp("10.99.0.50", 80)),
        named("web-outside")
    );
    assert_eq!(
        direct(&pod("a1"), tcp("10.244.2.11", 8080)),
        Direct::Pod { name: "b1".into() }
    );
    // The Service's NodePort wins over the process, and its ClusterIP leads to no process.
    assert_eq!(ask(&cluster, &outside("n1"), tcp(N1, 30080)), "a1,b1");
    assert_eq!(ask(&cluster, &pod("a1"), tcp(CLUSTER_IP, 30555)), "none");
    assert_eq!(ask(&cluster, &pod("a1"), tcp("10.96.77.77", 80)), "none");
}

#[test]
fn host_network_endpoints_are_known_by_their_listeners() {
    let host = json!({"addresses": [N1], "nodeName": "n1", "conditions": {"ready": true}});
    let mut cluster = cluster(&[service("ClusterIP", json!({})), slice("s", vec![host])]);
    cluster.listeners = vec![listener(Some("n1"), None, 8080, "host-server")];
    assert_eq!(
        ask(&cluster, &pod("a1"), tcp(CLUSTER_IP, 80)),
        "host-server!"
    );
    assert_eq!(
        ask(&cluster, &node("n1"), tcp(CLUSTER_IP, 80)),
        "host-server*"
    );
    assert_eq!(
        ask(&cluster, &node("n2"), tcp(CLUSTER_IP, 80)),
        "host-server"
    );
}

#[test]
fn two_claims_on_one_address() {
    let thief = with(
        service(
            "ClusterIP",
            json!({"spec": {"externalIPs": [CLUSTER_IP], "clusterIP": "10.96.0.11", "clusterIPs": ["10.96.0.11"]}}),
        ),
        json!({"metadata": {"name": "thief"}}),
    );
    let loot = with(
        slice("t", vec![ep("b2", "ready")]),
        json!({"metadata": {"labels": {"kubernetes.io/service-name": "thief"}}}),
    );
    table(
        &[service("ClusterIP", json!({})), ready(), thief, loot],
        &[(
            pod("a2"),
            tcp(CLUSTER_IP, 80),
            "b2 / a1,b1! [frontend-conflict]",
        )],
    );
}

#[test]
fn equally_usable_copies_are_united() {
    let at = |state: &str, patch: Value| with(ep("a1", state), patch);
    let local = json!({"spec": {"internalTrafficPolicy": "Local"}});
    let nobody = "drop / refuse [internal-local-without-endpoint]";
    let hint = |zone: &str| json!({"hints": {"forZones": [{"name": zone}]}});
    let rows: [(Value, Vec<Value>, &str, &str); 4] = [
        (
            local.clone(),
            vec![
                at("ready", json!({})),
                at("ready", json!({"nodeName": "n2"})),
            ],
            "a1!",
            "a1!",
        ),
        // A less usable copy says nothing.
        (
            local,
            vec![
                at("ready", json!({})),
                at("serving", json!({"nodeName": "n2"})),
            ],
            "a1!",
            nobody,
        ),
        (
            json!({}),
            vec![
                at("ready", hint("a")),
                at("ready", hint("b")),
                with(ep("b1", "ready"), hint("b")),
            ],
            "a1!",
            "a1,b1!",
        ),
        (
            json!({}),
            vec![
                at("ready", hint("a")),
                at("serving", hint("b")),
                with(ep("b1", "ready"), hint("b")),
            ],
            "a1!",
            "b1!",
        ),
    ];
    for (patch, copies, from_a, from_b) in rows {
        for reversed in [false, true] {
            let mut list = copies.clone();
            if reversed {
                list.reverse();
            }
            table(
                &[service("ClusterIP", patch.clone()), slice("s", list)],
                &[
                    (pod("a2"), tcp(CLUSTER_IP, 80), from_a),
                    (pod("b2"), tcp(CLUSTER_IP, 80), from_b),
                ],
            );
        }
    }
}

#[test]
fn an_unknown_address_has_the_name_of_its_target() {
    let target = |kind: &str, name: &str| {
        json!({
            "addresses": ["192.0.2.7"], "conditions": {"ready": true},
            "targetRef": {"kind": kind, "name": name, "namespace": "default"},
        })
    };
    let bare = json!({"addresses": ["192.0.2.7"], "conditions": {"ready": true}});
    let rows: [(Vec<Value>, &str); 5] = [
        (vec![target("Pod", "ghost")], "ghost!"),
        (vec![target("Node", "ghost")], "192.0.2.7!"),
        (vec![bare.clone()], "192.0.2.7!"),
        (vec![bare.clone(), target("Pod", "ghost")], "ghost!"),
        (vec![target("Pod", "ghost"), bare], "ghost!"),
    ];
    for (endpoints, want) in rows {
        table(
            &[service("ClusterIP", json!({})), slice("s", endpoints)],
            &[(pod("a2"), tcp(CLUSTER_IP, 80), want)],
        );
    }
}

#[test]
fn a_sure_claim_beats_an_open_one() {
    let other = |patch: Value| {
        let own = json!({
            "metadata": {"name": "other"},
            "spec": {"clusterIP": "10.96.0.11", "clusterIPs": ["10.96.0.11"]},
        });
        with(with(service("NodePort", json!({})), own), patch)
    };
    let loot = with(
        slice("t", vec![ep("b2", "ready")]),
        json!({"metadata": {"labels": {"kubernetes.io/service-name": "other"}}}),
    );
    // Alone, all of these may be served or not.
    let stale = json!({"status": {"loadBalancer": {"ingress": [{"ip": LB_IP}]}}});
    let headless =
        json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"], "externalIPs": [LB_IP]}});
    let labelled = json!({
        "metadata": {"labels": {"service.kubernetes.io/headless": ""}},
        "spec": {"externalIPs": [LB_IP]},
    });
    for (patch, alone) in [
        (stale, "b2 / plain [load-balancer-status-of-other-type]"),
        (headless, "plain / b2 [headless-external-frontend]"),
        (labelled, "plain / b2 [headless-label-on-service]"),
    ] {
        let objects = [other(patch.clone()), loot.clone()];
        table(&objects, &[(pod("a2"), tcp(LB_IP, 80), alone)]);
        let objects = [
            service("LoadBalancer", json!({})),
            ready(),
            other(patch),
            loot.clone(),
        ];
        let both = "b2 / a1,b1 [frontend-conflict]";
        table(&objects, &[(pod("a2"), tcp(LB_IP, 80), both)]);
    }
    // Nor does a claim that nobody serves keep a ClusterIP from being one.
    let elsewhere = other(json!({"spec": {
        "clusterIP": "fd00:96::11", "clusterIPs": ["fd00:96::11"], "externalIPs": [CLUSTER_IP],
        "ports": [{"name": "http", "port": 81}],
    }}));
    table(
        &[service("ClusterIP", json!({})), ready(), elsewhere],
        &[(pod("a2"), tcp(CLUSTER_IP, 81), "none")],
    );
}

#[test]
fn one_service_can_claim_an_address_twice() {
    let twice = json!({"spec": {"externalIPs": [LB_IP]}});
    table(
        &[service("LoadBalancer", twice.clone()), ready()],
        &[(outside("n1"), tcp(LB_IP, 80), "a1,b1")],
    );
    // Source ranges are about one of the two.
    let guarded = with(
        service("LoadBalancer", twice),
        json!({"spec": {"loadBalancerSourceRanges": ["10.99.0.11/32"]}}),
    );
    let cluster = cluster(&[guarded, ready()]);
    table_of(
        &cluster,
        &[
            (outside("n1"), tcp(LB_IP, 80), "a1,b1"),
            (
                outside("n2"),
                tcp(LB_IP, 80),
                "a1,b1 / drop [frontend-conflict]",
            ),
        ],
    );
    let expectation = expect(&cluster, &outside("n2"), &tcp(LB_IP, 80));
    assert!(!expectation.requirements.contains(&"SVC-EIP-3".into()));
}

#[test]
fn an_address_of_a_node_is_reached_there() {
    // A load balancer that runs on the nodes, and a Service that lists a node as its external address.
    let given = json!({
        "spec": {"externalTrafficPolicy": "Local", "externalIPs": [N2]},
        "status": {"loadBalancer": {"ingress": [{"ip": N1}]}},
    });
    let neighbour = Source::Neighbour {
        ip: ip("10.89.0.99"),
    };
    table(
        &[
            service("LoadBalancer", given),
            slice("s", vec![ep("a1", "ready")]),
        ],
        &[
            (outside("n2"), tcp(N1, 80), "a1!"),
            (outside("n1"), tcp(N2, 80), "drop"),
            (neighbour.clone(), tcp(N1, 80), "a1!"),
            (neighbour, tcp(N2, 80), "drop"),
        ],
    );
}

#[test]
fn no_answer_includes_both_ways_of_it() {
    let local = json!({"spec": {"internalTrafficPolicy": "Local"}});
    let objects = [
        service("ClusterIP", local),
        slice("s", vec![ep("b1", "ready")]),
    ];
    table(&objects, &[(outside("n1"), tcp(CLUSTER_IP, 80), "none")]);
    // Whatever comes first.
    let thief = with(
        service(
            "ClusterIP",
            json!({"spec": {"externalIPs": [CLUSTER_IP], "clusterIP": "10.96.0.11", "clusterIPs": ["10.96.0.11"]}}),
        ),
        json!({"metadata": {"name": "a-thief"}}),
    );
    let objects = [&objects[..], &[thief]].concat();
    table(&objects, &[(outside("n1"), tcp(CLUSTER_IP, 80), "none")]);
}

#[test]
fn a_cluster_ip_of_another_proxy_is_that_proxys() {
    let label =
        json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "other"}}});
    let foreign = cluster(&[service("ClusterIP", label), ready()]);
    let expectation = expect(&foreign, &pod("a2"), &tcp(CLUSTER_IP, 81));
    assert_eq!(short(&expectation), "plain");
    assert_eq!(expectation.requirements, ["FLT-2"]);
    // The label of headless Services' slices changes nothing about ports that do not exist.
    let label = json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}});
    let labelled = cluster(&[service("ClusterIP", label), ready()]);
    let expectation = expect(&labelled, &pod("a2"), &tcp(CLUSTER_IP, 81));
    assert_eq!(short(&expectation), "none");
    assert_eq!(expectation.requirements, ["SVC-CIP-4", "SAFE-2"]);
}

#[test]
fn what_may_be_served_may_be_served_on_loopback_too() {
    let headless =
        json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"], "ipFamilies": ["IPv4"]}});
    let labelled = json!({"metadata": {"labels": {"service.kubernetes.io/headless": ""}}});
    for patch in [headless.clone(), labelled] {
        table(
            &[service("NodePort", patch), ready()],
            &[(
                node("n1"),
                tcp("127.0.0.1", 30080),
                "plain / a1,b1 [nodeport-localhost]",
            )],
        );
    }
    // A headless Service has no ClusterIPs to tell its families by.
    let six = slice6("six", vec![ep6("b1", "ready")]);
    table(
        &[service("NodePort", headless), ready(), six],
        &[
            (
                outside("n1"),
                tcp(N1, 30080),
                "plain / a1,b1 [headless-external-frontend]",
            ),
            (outside("n1"), tcp("fd00:89::b", 30080), "plain"),
            (outside("n1"), tcp("2001:db8:51::1", 80), "plain"),
        ],
    );
}

#[test]
fn nobody_in_the_cluster_keeps_its_address_at_a_node_port() {
    let local = json!({"spec": {"externalTrafficPolicy": "Local"}});
    let cluster = cluster(&[service("NodePort", local), ready()]);
    let expectation = expect(&cluster, &pod("a2"), &tcp(N1, 30080));
    assert_eq!(
        short(&expectation),
        "a1,b1 / a1 [nodeport-local-from-cluster]"
    );
    for id in ["SRC-1", "SRC-2"] {
        assert!(!expectation.requirements.contains(&id.into()), "{id}");
    }
}

#[test]
fn affinity() {
    let seconds = |config: Value| {
        let patch =
            json!({"spec": {"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}});
        let cluster = cluster(&[service("ClusterIP", patch), ready()]);
        expect(&cluster, &pod("a2"), &tcp(CLUSTER_IP, 80))
            .affinity
            .map(|t| t.as_secs())
    };
    assert_eq!(seconds(json!({"clientIP": {"timeoutSeconds": 7}})), Some(7));
    assert_eq!(seconds(Value::Null), Some(10_800));
    let cluster = cluster(&[service("ClusterIP", json!({})), ready()]);
    assert_eq!(
        expect(&cluster, &pod("a2"), &tcp(CLUSTER_IP, 80)).affinity,
        None
    );
}

#[test]
fn odd_addresses_cost_only_themselves() {
    let odd = json!({"spec": {
        "externalIPs": ["nonsense", "198.051.100.001", "::ffff:198.51.100.2"],
        "loadBalancerSourceRanges": ["10.99.0.0/16", "nonsense", "fd00::/8"],
    }});
    let mut bad = ep("a2", "ready");
    bad["addresses"] = json!(["nonsense"]);
    table(
        &[
            service("LoadBalancer", odd),
            slice("s", vec![bad, ep("a1", "ready")]),
        ],
        &[
            (outside("n1"), tcp(EXTERNAL_IP, 80), "a1"),
            (outside("n1"), tcp("198.51.100.2", 80), "a1"),
            (outside("n1"), tcp(LB_IP, 80), "a1"),
        ],
    );
}

#[test]
fn unreadable_objects_are_named() {
    let mut broken = service("ClusterIP", json!({}));
    broken["spec"]["ports"][0]["port"] = json!("eighty");
    let error = oracle::Cluster::from_objects(&[broken], nodes()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("failed to read Service \"web\""),
        "{error}"
    );
}

#[test]
fn objects_give_pods_and_zones() {
    let objects = [
        json!({"kind": "Node", "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z"}}}),
        // What the world says of a node counts.
        json!({"kind": "Node", "metadata": {"name": "n2", "labels": {"topology.kubernetes.io/zone": "other"}}}),
        json!({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "n1"},
               "status": {"podIP": "10.244.1.50", "podIPs": [{"ip": "10.244.1.50"}, {"ip": "fd00::50"}]}}),
        json!({"kind": "Pod", "metadata": {"name": "h"}, "spec": {"nodeName": "n1", "hostNetwork": true},
               "status": {"podIP": N1}}),
        json!({"kind": "ConfigMap"}),
    ];
    let mut bare = nodes();
    bare[0].zone = None;
    let cluster = oracle::Cluster::from_objects(&objects, bare).unwrap();
    assert_eq!(cluster.nodes[0].zone.as_deref(), Some("z"));
    assert_eq!(cluster.nodes[1].zone.as_deref(), Some("b"));
    let names: Vec<_> = cluster
        .pods
        .iter()
        .map(|(ip, pod)| format!("{ip} {}", pod.name))
        .collect();
    assert_eq!(names, ["10.244.1.50 p", "fd00::50 p"]);
}

#[test]
fn an_address_that_was_given_again_belongs_to_the_new_pod() {
    let holder = |name: &str, metadata: Value, status: Value| {
        let pod = json!({"kind": "Pod", "metadata": {"name": name}, "spec": {"nodeName": "n1"},
                         "status": {"podIP": "10.244.1.50"}});
        with(pod, json!({ "metadata": metadata, "status": status }))
    };
    let old = holder(
        "old",
        json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
        json!({}),
    );
    let evicted = holder("evicted", json!({}), json!({"phase": "Failed"}));
    let new = holder("new", json!({}), json!({"phase": "Running"}));
    for objects in [
        [&old, &evicted, &new],
        [&new, &evicted, &old],
        [&new, &old, &evicted],
    ] {
        let cluster = oracle::Cluster::from_objects(&objects.map(Value::clone), nodes()).unwrap();
        assert_eq!(cluster.pods[&ip("10.244.1.50")].name, "new");
    }
    let cluster = oracle::Cluster::from_objects(&[old], nodes()).unwrap();
    assert_eq!(cluster.pods[&ip("10.244.1.50")].name, "old");
}

#[test]
fn frontends_list_everything_to_probe() {
    let cluster = cluster(&[service("LoadBalancer", json!({})), ready()]);
    let list: Vec<String> = oracle::frontends(&cluster)
        .iter()
        .map(|f| {
            format!(
                "{} {}{}",
                f.kind,
                f.destination(),
                f.node
                    .as_deref()
                    .map(|n| format!(" on {n}"))
                    .unwrap_or_default()
            )
        })
        .collect();
    insta::assert_snapshot!(list.join("\n"));
}
