//! What is read of objects, and what is not.

use ipnet::IpNet;
use reference_proxy::{
    model::{Endpoint, Node, Service, Slice, State, parse_ip},
    objects::{EndpointSliceObject, NodeObject, ServiceObject},
    ruleset::Protocol,
};
use serde_json::{Value, json};

/// The object with these fields in the place of its own; null removes one.
fn with(mut object: Value, path: &str, value: Value) -> Value {
    let at = object.pointer_mut(path).expect("a place in the object");
    if let (Some(at), Value::Object(fields)) = (at.as_object_mut(), value) {
        at.extend(fields);
    }
    object
}

fn load_balancer() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.1",
            "clusterIPs": ["10.96.0.1", "fd00:96::1"],
            "externalIPs": ["198.51.100.1", "198.51.100.1"],
            "loadBalancerSourceRanges": ["192.0.2.9/24", "2001:db8::/32"],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "externalTrafficPolicy": "Local",
            "internalTrafficPolicy": "Local",
            "healthCheckNodePort": 32000,
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "203.0.113.1", "ipMode": "VIP"},
            {"ip": "203.0.113.2", "ipMode": "Proxy"},
            {"ip": "203.0.113.3"},
            {"hostname": "lb.example.com"},
        ]}},
    })
}

fn service(spec: Value) -> Option<Service> {
    let object = with(load_balancer(), "/spec", spec);
    let object: ServiceObject = serde_json::from_value(object).expect("a Service");
    Service::parse(&object)
}

fn read(spec: Value) -> Service {
    service(spec).expect("a Service with frontends")
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
}

#[test]
fn addresses_that_a_packet_may_have() {
    for (text, usable) in [
        ("10.0.0.1", true),
        ("fd00::1", true),
        ("0.0.0.0", false),
        ("::", false),
        ("127.0.0.1", false),
        ("::1", false),
        ("224.0.0.1", false),
        ("ff02::1", false),
        ("255.255.255.255", false),
        ("169.254.1.1", false),
        ("fe80::1", false),
        ("::ffff:10.0.0.1", false),
        ("010.0.0.1", false),
        ("web.example.com", false),
    ] {
        assert_eq!(parse_ip(text).is_some(), usable, "{text}");
    }
}

#[test]
fn a_load_balancer_is_read_in_full() {
    let web = read(json!({}));
    assert_eq!(texts(&web.cluster_ips), ["10.96.0.1", "fd00:96::1"]);
    assert_eq!(texts(&web.external_ips), ["198.51.100.1"]);
    // Not the one that a proxy in front of the nodes serves (KEP-1860), and no names.
    assert_eq!(
        texts(&web.load_balancer_ips),
        ["203.0.113.1", "203.0.113.3"]
    );
    assert_eq!(texts(&web.source_ranges), ["192.0.2.0/24", "2001:db8::/32"]);
    assert_eq!(web.affinity, Some(60));
    assert_eq!((web.internal_local, web.external_local), (true, true));
    assert_eq!(web.health_check_node_port, Some(32000));
    let port = &web.ports[0];
    assert_eq!((&*port.name, port.protocol), ("http", Protocol::Tcp));
    assert_eq!((port.port, port.node_port), (80, Some(30080)));
}

#[test]
fn services_without_frontends_are_none() {
    for (spec, some) in [
        (json!({}), true),
        (json!({"type": "ExternalName"}), false),
        (json!({"clusterIP": "None"}), false),
        (json!({"type": "ExternalName", "clusterIP": "None"}), false),
    ] {
        assert_eq!(service(spec.clone()).is_some(), some, "{spec}");
    }
}

#[test]
fn cluster_ip_counts_without_cluster_ips() {
    for ips in [json!([]), json!(null)] {
        let web = read(json!({"clusterIPs": ips}));
        assert_eq!(texts(&web.cluster_ips), ["10.96.0.1"]);
    }
}

/// What each type of Service has: node ports, load balancer addresses, source ranges, a health check node port.
#[test]
fn fields_of_other_types_are_left_over() {
    for (kind, node_port, load_balancer) in [
        ("ClusterIP", false, false),
        ("NodePort", true, false),
        ("LoadBalancer", true, true),
    ] {
        let web = read(json!({"type": kind}));
        assert_eq!(web.ports[0].node_port.is_some(), node_port, "{kind}");
        assert_eq!(!web.load_balancer_ips.is_empty(), load_balancer, "{kind}");
        assert_eq!(!web.source_ranges.is_empty(), load_balancer, "{kind}");
        assert_eq!(
            web.health_check_node_port.is_some(),
            load_balancer,
            "{kind}"
        );
    }
    let cluster = read(json!({"externalTrafficPolicy": "Cluster"}));
    assert_eq!(cluster.health_check_node_port, None, "policy Cluster");
}

#[test]
fn affinity_has_the_timeout_of_the_api() {
    let config =
        |seconds: i32| json!({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}});
    for (spec, seconds) in [
        (config(1), Some(1)),
        (config(0), Some(10_800)),
        (config(-1), Some(10_800)),
        (json!({"sessionAffinityConfig": null}), Some(10_800)),
        (json!({"sessionAffinity": "None"}), None),
        (json!({"sessionAffinity": null}), None),
    ] {
        assert_eq!(read(spec.clone()).affinity, seconds, "{spec}");
    }
}

#[test]
fn ports_that_cannot_be_used_are_left_out() {
    let ports = json!({"ports": [
        {"name": "zero", "port": 0},
        {"name": "large", "port": 65536},
        {"name": "last", "port": 65535, "nodePort": 0, "protocol": "UDP"},
        {"name": "other", "port": 80, "protocol": "DCCP"},
        {"port": 1, "protocol": "SCTP"},
    ]});
    let found: Vec<_> = read(ports)
        .ports
        .iter()
        .map(|port| {
            (
                port.name.to_string(),
                port.protocol,
                port.port,
                port.node_port,
            )
        })
        .collect();
    let expected = [
        ("last".to_owned(), Protocol::Udp, 65535, None),
        (String::new(), Protocol::Sctp, 1, None),
    ];
    assert_eq!(found, expected);
}

fn slice(fields: Value) -> Option<Slice> {
    let object = json!({
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}, {"name": "none"}],
        "endpoints": [{"addresses": ["10.244.1.1"], "nodeName": "node1"}],
    });
    let object: EndpointSliceObject =
        serde_json::from_value(with(object, "", fields)).expect("a slice");
    Slice::parse(&object, "node1")
}

fn endpoint(fields: Value) -> Endpoint {
    let endpoint = with(json!({"addresses": ["10.244.1.1"]}), "", fields);
    let slice = slice(json!({"endpoints": [endpoint]})).expect("a slice");
    slice.endpoints.into_iter().next().expect("an endpoint")
}

#[test]
fn slices_belong_to_the_service_that_their_label_names() {
    let web = slice(json!({})).expect("a slice");
    assert_eq!(&*web.service, "default/web");
    assert_eq!(web.ports.len(), 1, "a port without a number is none");
    assert_eq!(
        (web.ports[0].port, web.ports[0].protocol),
        (8080, Protocol::Tcp)
    );
    assert!(web.endpoints[0].local);
    for fields in [
        json!({"metadata": {"name": "web-1", "namespace": "default"}}),
        json!({"metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": ""}}}),
        json!({"addressType": "FQDN"}),
    ] {
        assert!(slice(fields.clone()).is_none(), "{fields}");
    }
    // Addresses of another family than the slice's are no endpoints.
    let six = slice(json!({"addressType": "IPv6"})).expect("a slice");
    assert!(six.endpoints.is_empty());
}

#[test]
fn conditions_say_how_usable_an_endpoint_is() {
    let of = |ready: Value, serving: Value, terminating: Value| {
        endpoint(
            json!({"conditions": {"ready": ready, "serving": serving, "terminating": terminating}}),
        )
        .state
    };
    let (yes, no, nil) = (json!(true), json!(false), json!(null));
    for (ready, serving, terminating, state) in [
        (&nil, &nil, &nil, State::Ready),
        (&yes, &no, &yes, State::Ready),
        (&no, &yes, &yes, State::Terminating),
        (&no, &nil, &yes, State::Terminating),
        (&no, &no, &yes, State::Unusable { serving: false }),
        (&no, &yes, &no, State::Unusable { serving: true }),
        (&no, &no, &nil, State::Unusable { serving: false }),
    ] {
        let found = of(ready.clone(), serving.clone(), terminating.clone());
        assert_eq!(found, state, "{ready} {serving} {terminating}");
    }
}

#[test]
fn where_an_endpoint_is_and_for_whom() {
    for (name, local) in [
        (json!("node1"), true),
        (json!("node2"), false),
        (json!(null), false),
    ] {
        assert_eq!(endpoint(json!({"nodeName": name})).local, local, "{name}");
    }
    for (nodes, mine) in [
        (json!([{"name": "node1"}]), Some(true)),
        (json!([{"name": "node2"}]), Some(false)),
        (json!([]), None),
        (json!(null), None),
    ] {
        let hints = json!({"hints": {"forNodes": nodes, "forZones": [{"name": "a"}]}});
        let found = endpoint(hints);
        assert_eq!(found.for_this_node, mine, "{nodes}");
        assert_eq!(found.zones.len(), 1);
    }
}

fn node(metadata: Value, spec: Value) -> Node {
    let object = json!({
        "metadata": {"name": "node1", "labels": {"topology.kubernetes.io/zone": "a"}},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:244::/64"]},
        "status": {"addresses": [
            {"type": "Hostname", "address": "10.0.0.9"},
            {"type": "ExternalIP", "address": "198.51.100.9"},
            {"type": "InternalIP", "address": "10.0.0.1"},
        ]},
    });
    let object = with(with(object, "/metadata", metadata), "/spec", spec);
    let object: NodeObject = serde_json::from_value(object).expect("a Node");
    Node::parse(&object)
}

#[test]
fn a_node_has_its_internal_addresses_ranges_and_zone() {
    let found = node(json!({}), json!({}));
    assert_eq!(texts(&found.ips), ["10.0.0.1"]);
    let ranges: Vec<IpNet> = ["10.244.1.0/24", "fd00:244::/64"]
        .map(|range| range.parse().expect("a range"))
        .into();
    assert_eq!(found.pod_cidrs, ranges);
    assert_eq!(found.zone.as_deref(), Some("a"));
    for ranges in [json!([]), json!(null)] {
        let found = node(json!({}), json!({"podCIDRs": ranges}));
        assert_eq!(texts(&found.pod_cidrs), ["10.244.1.0/24"]);
    }
}

/// KEP-3836.
#[test]
fn a_node_that_goes_away_is_not_eligible() {
    let taint = |key: &str| json!({"taints": [{"key": key, "effect": "NoSchedule"}]});
    let gone = "ToBeDeletedByClusterAutoscaler";
    let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
    for (metadata, spec, eligible) in [
        (json!({}), json!({}), true),
        (json!({}), taint("other"), true),
        (json!({}), taint(gone), false),
        (deleted.clone(), json!({}), false),
        (deleted, taint(gone), false),
    ] {
        let found = node(metadata.clone(), spec.clone()).eligible;
        assert_eq!(found, eligible, "{metadata} {spec}");
    }
}
