//! Snapshots of compiled rulesets, and what `nft` thinks of them.

use std::{
    collections::HashMap,
    io::Write as _,
    net::IpAddr,
    process::{Command, Stdio},
};

use reference_proxy::{
    compile::Surroundings,
    model::{Node, Service, Slice},
    objects::{EndpointSliceObject, NodeObject, ServiceObject},
    ruleset::{
        Changes, Data, Element, Family, Frontend, Key, SetId, SetKind, Verdict, View, element_text,
        render,
    },
    state::State,
};
use serde_json::{Value, json};

/// The state of node `node1` with these objects.
fn state(objects: &[Value]) -> State {
    let node: NodeObject = serde_json::from_value(json!({
        "metadata": {"name": "node1", "labels": {"topology.kubernetes.io/zone": "a"}},
        "spec": {"podCIDRs": ["10.244.1.0/24", "fd00:244:0:1::/64"]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": "10.89.0.11"},
            {"type": "InternalIP", "address": "fd00:89::b"},
            {"type": "Hostname", "address": "node1"},
        ]},
    }))
    .expect("a node");
    let node = Node::parse(&node);
    let mut state = State::new(Surroundings {
        node_port_ips: node.ips.clone(),
        node,
        cluster_cidrs: vec![
            "10.244.0.0/16".parse().expect("a range"),
            "fd00:244::/48".parse().expect("a range"),
        ],
    });
    for object in objects {
        let name = object["metadata"]["name"].as_str().expect("a name");
        let key = format!("default/{name}").into();
        if object["kind"] == "Service" {
            let service: ServiceObject = serde_json::from_value(object.clone()).expect("a Service");
            state.set_service(&key, Service::parse(&service));
        } else {
            let slice: EndpointSliceObject =
                serde_json::from_value(object.clone()).expect("a slice");
            state.set_slice(&key, Slice::parse(&slice, "node1"));
        }
    }
    state.sync_first();
    state
}

fn service(name: &str, spec: Value) -> Value {
    json!({"kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

fn slice(name: &str, service: &str, family: &str, endpoints: Value) -> Value {
    json!({
        "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family,
        "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

fn web(extra: Value) -> Value {
    let mut spec = json!({
        "type": "ClusterIP",
        "clusterIP": "10.96.0.1",
        "ports": [{"name": "web", "port": 80, "protocol": "TCP"}],
    });
    for (key, value) in extra.as_object().expect("a map") {
        spec[key] = value.clone();
    }
    spec
}

/// Elements of Services, sorted, one a line, without those of the node.
fn elements(state: &State) -> String {
    let mut elements: Vec<Element> = state.elements();
    elements.sort();
    elements
        .iter()
        .map(|element| format!("{} {{ {} }}\n", element.set, element_text(element)))
        .filter(|line| {
            !["cluster-sources", "local-sources", "pods"]
                .iter()
                .any(|set| line.starts_with(set))
        })
        .collect()
}

fn two_endpoints() -> Value {
    json!([
        {"addresses": ["10.244.1.11"], "nodeName": "node1"},
        {"addresses": ["10.244.2.11"], "nodeName": "node2", "conditions": {"ready": true}},
    ])
}

/// Everything at once: a Service of each sort.
fn everything() -> State {
    everything_with_affinity_of("all", "ClientIP")
}

/// The same; the dual-stack Service has this affinity if `who` is it, the IPv4 one is always sticky.
fn everything_with_affinity_of(who: &str, affinity: &str) -> State {
    let all = if who == "all" { affinity } else { "None" };
    state(&[
        service(
            "all",
            web(json!({
                "type": "LoadBalancer",
                "clusterIPs": ["10.96.0.1", "fd00:96::1"],
                "externalIPs": ["198.51.100.1"],
                "sessionAffinity": all,
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
                "loadBalancerSourceRanges": ["10.99.0.0/24", "2001:db8::/32"],
                "ports": [{"name": "web", "port": 80, "protocol": "TCP", "nodePort": 30080}],
            })),
        ),
        slice("all-4", "all", "IPv4", two_endpoints()),
        slice(
            "all-6",
            "all",
            "IPv6",
            json!([{"addresses": ["fd00:244:0:2::b"], "nodeName": "node2"}]),
        ),
        service("empty", web(json!({"clusterIP": "10.96.0.2"}))),
        service(
            "sticky",
            web(json!({"clusterIP": "10.96.0.3", "sessionAffinity": "ClientIP"})),
        ),
        slice("sticky-4", "sticky", "IPv4", two_endpoints()),
    ])
}

#[test]
fn whole_ruleset() {
    insta::assert_snapshot!(render(&everything().elements()));
}

#[test]
fn cluster_ip() {
    let state = state(&[
        service("web", web(json!({}))),
        slice("web-4", "web", "IPv4", two_endpoints()),
    ]);
    insta::assert_snapshot!(elements(&state));
}

#[test]
fn no_endpoints_are_refused() {
    let state = state(&[service("web", web(json!({})))]);
    insta::assert_snapshot!(elements(&state));
}

#[test]
fn external_policy_local() {
    let state = state(&[
        service(
            "web",
            web(json!({
                "type": "NodePort",
                "externalTrafficPolicy": "Local",
                "ports": [{"name": "web", "port": 80, "nodePort": 30080}],
            })),
        ),
        slice("web-4", "web", "IPv4", two_endpoints()),
    ]);
    insta::assert_snapshot!(elements(&state));
}

#[test]
fn internal_policy_local_without_local_endpoints_drops() {
    let state = state(&[
        service("web", web(json!({"internalTrafficPolicy": "Local"}))),
        slice(
            "web-4",
            "web",
            "IPv4",
            json!([{"addresses": ["10.244.2.11"], "nodeName": "node2"}]),
        ),
    ]);
    insta::assert_snapshot!(elements(&state));
}

/// What the metric `sync_proxy_rules_no_local_endpoints_total` of kube-proxy counts: internal, external; IPv4, IPv6.
#[test]
fn policies_without_endpoints_here_are_counted() {
    let here = json!([{"addresses": ["10.244.1.11"], "nodeName": "node1"}]);
    let there = json!([{"addresses": ["10.244.2.11"], "nodeName": "node2"}]);
    let six = json!([{"addresses": ["fd00:244:0:2::b"], "nodeName": "node2"}]);
    for (internal, external, family, endpoints, counts) in [
        ("Local", "Cluster", "IPv4", &there, [[1, 0], [0, 0]]),
        ("Cluster", "Local", "IPv4", &there, [[0, 0], [1, 0]]),
        ("Local", "Local", "IPv4", &there, [[1, 0], [1, 0]]),
        ("Local", "Local", "IPv6", &six, [[0, 1], [0, 1]]),
        ("Cluster", "Cluster", "IPv4", &there, [[0, 0], [0, 0]]),
        ("Local", "Local", "IPv4", &here, [[0, 0], [0, 0]]),
        ("Local", "Local", "IPv4", &json!([]), [[0, 0], [0, 0]]),
    ] {
        let spec = web(json!({
            "type": "NodePort",
            "clusterIPs": ["10.96.0.1", "fd00:96::1"],
            "internalTrafficPolicy": internal,
            "externalTrafficPolicy": external,
            "ports": [{"name": "web", "port": 80, "nodePort": 30080}],
        }));
        let state = state(&[
            service("web", spec),
            slice("web-1", "web", family, endpoints.clone()),
        ]);
        let found = state.no_local_endpoints();
        assert_eq!(found, counts, "{internal} {external} {endpoints}");
    }
}

#[test]
fn source_ranges_restrict_addresses_of_their_family() {
    let mut spec = json!({
        "type": "LoadBalancer",
        "clusterIPs": ["10.96.0.1", "fd00:96::1"],
        "ports": [{"name": "web", "port": 80}],
    });
    let restricted = |spec: &Value| -> Vec<String> {
        let mut object = service("web", web(spec.clone()));
        object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}, {"ip": "2001:db8:113::1"}]}});
        elements(&state(&[object]))
            .lines()
            .filter(|line| line.starts_with("restricted") || line.starts_with("source-ranges"))
            .map(str::to_owned)
            .collect()
    };
    assert!(restricted(&spec).is_empty());
    spec["loadBalancerSourceRanges"] = json!(["192.0.2.0/24"]);
    insta::assert_snapshot!(restricted(&spec).join("\n"));
}

/// Endpoints of a family in which the Service has no address serve nobody (KEP-563).
#[test]
fn health_counts_endpoints_of_the_families_of_the_service() {
    let spec = web(json!({
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 32000,
        "ports": [{"name": "web", "port": 80}],
    }));
    let six = json!([
        {"addresses": ["fd00:244:0:1::b"], "nodeName": "node1"},
        {"addresses": ["fd00:244:0:1::c"], "nodeName": "node1"},
    ]);
    let state = state(&[
        service("web", spec),
        slice("web-4", "web", "IPv4", two_endpoints()),
        slice("web-6", "web", "IPv6", six),
    ]);
    let found: Vec<_> = state
        .health()
        .map(|(_, health)| health.local_endpoints)
        .collect();
    assert_eq!(found, [1]);
}

/// What the rules do with a packet by which `source` opens a connection to a frontend; `None` if none is about it.
fn meets(table: &HashMap<(SetId, Key), Data>, source: IpAddr, to: Frontend) -> Option<String> {
    let key = Key::Frontend(to);
    let set = |kind| SetId::new(kind, Family::of(to.ip));
    let has = |kind, key| table.contains_key(&(set(kind), key));
    let is_among = |kind| {
        table.keys().any(|(id, key)| match key {
            Key::Net(net) => *id == set(kind) && net.contains(&source),
            Key::Source(frontend, net) => {
                *id == set(kind) && *frontend == to && net.contains(&source)
            }
            _ => false,
        })
    };
    if has(SetKind::Restricted, key) && !is_among(SetKind::SourceRanges) {
        return Some("dropped for its source".into());
    }
    let verdict = |kind| match table.get(&(set(kind), key)) {
        Some(Data::Verdict(verdict)) => Some(*verdict),
        _ => None,
    };
    let external = || verdict(SetKind::External).filter(|_| !is_among(SetKind::Pods));
    match external().or_else(|| verdict(SetKind::Services)) {
        None => has(SetKind::ClusterIps, Key::Ip(to.ip)).then(|| "refused".into()),
        Some(Verdict::Drop) => Some("dropped".into()),
        Some(Verdict::Refuse) => Some("refused".into()),
        Some(Verdict::Balance {
            view,
            endpoints,
            sticky,
        }) => {
            let map = match view {
                View::Common => SetKind::Endpoints,
                View::External => SetKind::ExternalEndpoints,
            };
            let chosen: Vec<String> = (0..endpoints)
                .map(|slot| match table.get(&(set(map), Key::Slot(slot, to))) {
                    Some(Data::Endpoint(ip, port)) => {
                        let endpoint = Frontend {
                            ip: *ip,
                            port: *port,
                            ..to
                        };
                        format!(
                            "{ip}:{port}, tracked {}, hairpin {}",
                            has(SetKind::Targets, Key::Frontend(endpoint)),
                            *ip == source && has(SetKind::Hairpin, Key::Itself(*ip)),
                        )
                    }
                    _ => "nowhere".into(),
                })
                .collect();
            let masqueraded = has(SetKind::Masquerade, key) && !is_among(SetKind::LocalSources);
            let remembered = sticky
                && table
                    .keys()
                    .any(|(id, known)| matches!(id.kind, SetKind::Sticky(_)) && *known == key);
            Some(format!(
                "{chosen:?}, masqueraded {masqueraded}, remembered {remembered}"
            ))
        }
    }
}

/// Where one transaction cannot hold all, a packet meets what it will meet in the end, or nothing yet; and when all goes, what it met, or nothing
/// any more.
#[test]
fn no_intermediate_state_is_wrong() {
    let mut local = service(
        "local",
        web(json!({
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "sessionAffinity": "ClientIP",
            "loadBalancerSourceRanges": ["10.99.0.0/24", "10.244.0.0/16"],
            "ports": [{"name": "web", "port": 80, "nodePort": 30080}],
        })),
    );
    local["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}});
    let all = state(&[
        local,
        slice("local-4", "local", "IPv4", two_endpoints()),
        service(
            "open",
            web(json!({"clusterIP": "10.96.0.2", "externalIPs": ["198.51.100.1"]})),
        ),
        slice("open-4", "open", "IPv4", two_endpoints()),
        service("empty", web(json!({"clusterIP": "10.96.0.3"}))),
    ])
    .elements();
    let mut packets: Vec<(IpAddr, Frontend)> = Vec::new();
    for source in ["10.244.1.11", "10.99.0.11", "192.0.2.1"] {
        let source: IpAddr = source.parse().expect("an address");
        for element in &all {
            if let (SetKind::Services, Key::Frontend(frontend)) = (element.set.kind, element.key) {
                packets.push((source, frontend));
                // Nobody has this port; it is refused at the addresses that are cluster IPs.
                packets.push((
                    source,
                    Frontend {
                        port: 79,
                        ..frontend
                    },
                ));
            }
        }
    }
    let entry = |element: &Element| ((element.set, element.key), element.data);
    let complete: HashMap<_, _> = all.iter().map(entry).collect();
    let met: Vec<String> = packets
        .iter()
        .filter_map(|(source, to)| meets(&complete, *source, *to))
        .collect();
    for (what, happens) in [
        ("dropped for its source", true),
        ("refused", true),
        ("hairpin true", true),
        ("masqueraded true", true),
        ("remembered true", true),
        ("tracked false", false),
        ("nowhere", false),
    ] {
        let found = met.iter().any(|text| text.contains(what));
        assert_eq!(found, happens, "{what}: {met:#?}");
    }

    let mut coming = Changes::all(all.clone());
    coming.sort();
    let mut going = Changes {
        remove: all,
        ..Changes::default()
    };
    going.sort();
    let mut table = HashMap::new();
    let check = |table: &HashMap<_, _>, when: String| {
        for (source, to) in &packets {
            let now = meets(table, *source, *to);
            assert!(
                now.is_none() || now == meets(&complete, *source, *to),
                "{when}: {source} to {to:?} meets {now:?}"
            );
        }
    };
    for element in &coming.add {
        table.extend([entry(element)]);
        check(&table, format!("after {element:?} came"));
    }
    for element in &going.remove {
        table.remove(&(element.set, element.key));
        check(&table, format!("after {element:?} went"));
    }
    assert!(table.is_empty());
}

#[test]
fn terminating_endpoints_are_the_last_resort() {
    let terminating = json!({"ready": false, "serving": true, "terminating": true});
    let endpoints = json!([
        {"addresses": ["10.244.1.11"], "nodeName": "node1", "conditions": terminating},
        {"addresses": ["10.244.2.11"], "nodeName": "node2", "conditions": {"ready": false}},
    ]);
    let alone = state(&[
        service("web", web(json!({}))),
        slice("web-4", "web", "IPv4", endpoints.clone()),
    ]);
    insta::assert_snapshot!(elements(&alone));
    let with_ready = state(&[
        service("web", web(json!({}))),
        slice("web-4", "web", "IPv4", endpoints),
        // The address of the terminating pod again, ready: the usable copy wins.
        slice(
            "web-5",
            "web",
            "IPv4",
            json!([{"addresses": ["10.244.1.11"], "nodeName": "node1", "conditions": {}}]),
        ),
    ]);
    insta::assert_snapshot!(elements(&with_ready));
}

#[test]
fn hints_narrow_the_choice() {
    let hinted = |zones: [&str; 2]| {
        json!([
            {"addresses": ["10.244.1.11"], "hints": {"forZones": [{"name": zones[0]}]}},
            {"addresses": ["10.244.2.11"], "hints": {"forZones": [{"name": zones[1]}]}},
        ])
    };
    let chosen = |endpoints: Value| {
        let state = state(&[
            service("web", web(json!({}))),
            slice("web-4", "web", "IPv4", endpoints),
        ]);
        elements(&state)
            .lines()
            .filter(|line| line.starts_with("endpoints4"))
            .count()
    };
    assert_eq!(chosen(hinted(["a", "b"])), 1, "only our zone");
    assert_eq!(chosen(hinted(["b", "c"])), 2, "nothing for our zone");
    let mut partly = hinted(["a", "b"]);
    partly[1]["hints"] = Value::Null;
    assert_eq!(chosen(partly), 2, "all or nothing");
}

#[test]
fn bad_addresses_harm_nobody() {
    let state = state(&[
        service(
            "web",
            web(json!({
                "type": "LoadBalancer",
                "externalIPs": ["010.0.0.1", "::ffff:1.2.3.4", "nonsense", "198.51.100.1"],
                "loadBalancerSourceRanges": ["10.0.0.0/99", "nonsense"],
            })),
        ),
        slice(
            "web-4",
            "web",
            "IPv4",
            json!([
                {"addresses": ["fd00::1"]},
                {"addresses": []},
                {"addresses": ["10.244.1.300"]},
                {"addresses": ["10.244.1.11"]},
            ]),
        ),
    ]);
    insta::assert_snapshot!(elements(&state));
}

/// `nft -c` accepts the text, in a network namespace of its own. Without affinity in IPv6: nft 1.0.6 runs out of registers on the recording
/// rule and aborts, where the kernel has one left.
#[test]
fn nft_accepts_the_text() {
    let spawned = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "nft", "-c", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let has_nft = Command::new("nft").arg("--version").output().is_ok();
    let mut child = match spawned {
        Ok(child) if has_nft => child,
        Ok(mut child) => {
            let _ = child.kill();
            let _ = child.wait();
            eprintln!("skipped: there is no nft command");
            return;
        }
        Err(error) => {
            eprintln!("skipped: failed to run unshare: {error}");
            return;
        }
    };
    let written = child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(render(&everything_with_affinity_of("sticky", "").elements()).as_bytes());
    let output = child.wait_with_output().expect("the command ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("unshare failed") {
        eprintln!("skipped: user namespaces are forbidden: {stderr}");
        return;
    }
    written.expect("nft reads the text");
    assert!(output.status.success(), "nft refused: {stderr}");
}
