//! A small cluster to ask questions about: two nodes in two zones, two pods each, both families.
//!
//! ```text
//!   outside 10.99.0.11 (via n1) ─┐
//!   outside 10.99.0.12 (via n2) ─┤
//!                                ├── n1 10.89.0.11, zone a ── pods a1 10.244.1.11, a2 10.244.1.12
//!                                └── n2 10.89.0.12, zone b ── pods b1 10.244.2.11, b2 10.244.2.12
//! ```
// Each test program uses a part of this.
#![allow(dead_code)]

use std::net::IpAddr;

use oracle::{
    Cluster, Destination, Expectation, Listener, Node, Outcome, PodIdentity, Protocol, Source,
    expect,
};
use serde_json::{Value, json};

pub fn ip(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|_| panic!("{text} is no address"))
}

pub fn nodes() -> Vec<Node> {
    [(1, "a"), (2, "b")]
        .map(|(i, zone)| {
            let internal = vec![
                ip(&format!("10.89.0.{}", 10 + i)),
                ip(&format!("fd00:89::{:x}", 10 + i)),
            ];
            let mut all = internal.clone();
            all.extend([
                ip(&format!("10.244.{i}.1")),
                ip(&format!("fd00:244:0:{i}::1")),
                ip("127.0.0.1"),
                ip("::1"),
            ]);
            Node {
                name: format!("n{i}"),
                internal_ips: internal,
                all_ips: all,
                zone: Some(zone.to_owned()),
            }
        })
        .into()
}

/// The pod's addresses: `a1` is the first pod of n1, and so on.
pub fn pod_ips(name: &str) -> [IpAddr; 2] {
    let node = if name.starts_with('a') { 1 } else { 2 };
    let k: u8 = name[1..]
        .parse()
        .expect("a pod's name is a letter and a number");
    [
        ip(&format!("10.244.{node}.{}", 10 + k)),
        ip(&format!("fd00:244:0:{node}::{}", 10 + k)),
    ]
}

pub fn node_of(pod: &str) -> &'static str {
    if pod.starts_with('a') { "n1" } else { "n2" }
}

pub fn cluster(objects: &[Value]) -> Cluster {
    let mut cluster = Cluster::from_objects(objects, nodes()).expect("objects are well-formed");
    for name in ["a1", "a2", "b1", "b2"] {
        for ip in pod_ips(name) {
            let identity = PodIdentity {
                name: name.into(),
                node: node_of(name).into(),
            };
            cluster.pods.insert(ip, identity);
        }
    }
    cluster.service_cidrs = vec![
        "10.96.0.0/16".parse().unwrap(),
        "fd00:96::/112".parse().unwrap(),
    ];
    cluster
}

/// A dual-stack Service `web` of the given type with everything that a type can have, changed by a merge patch.
pub fn service(kind: &str, patch: Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": "web", "labels": {}},
        "spec": {
            "type": kind,
            "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:96::10"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080, "nodePort": 30080}],
            "externalIPs": ["198.51.100.1", "2001:db8:51::1"],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}, {"ip": "2001:db8:113::1"}]}},
    });
    if kind == "ClusterIP" {
        service["spec"]["ports"][0]["nodePort"] = Value::Null;
    }
    if kind != "LoadBalancer" {
        service["status"] = json!({});
    }
    merge(&mut service, &patch);
    service
}

/// JSON merge patch (RFC 7386).
pub fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

/// An IPv4 slice of Service `web` with port http 8080.
pub fn slice(name: &str, endpoints: Vec<Value>) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": endpoints,
    })
}

pub fn slice6(name: &str, endpoints: Vec<Value>) -> Value {
    let mut slice = slice(name, endpoints);
    slice["addressType"] = json!("IPv6");
    slice
}

fn endpoint_in(pod: &str, family: usize, conditions: &str) -> Value {
    json!({
        "addresses": [pod_ips(pod)[family].to_string()],
        "nodeName": node_of(pod),
        "targetRef": {"kind": "Pod", "name": pod, "namespace": "default"},
        "conditions": match conditions {
            "ready" => json!({"ready": true, "serving": true, "terminating": false}),
            "unready" => json!({"ready": false, "serving": false, "terminating": false}),
            "serving" => json!({"ready": false, "serving": true, "terminating": true}),
            "gone" => json!({"ready": false, "serving": false, "terminating": true}),
            "nil" => json!({}),
            "absent" => Value::Null,
            other => panic!("no conditions {other}"),
        },
    })
}

/// An IPv4 endpoint for a pod, in one of the states ready, unready, serving (and terminating), gone (terminating, no
/// longer serving), nil, absent.
pub fn ep(pod: &str, conditions: &str) -> Value {
    endpoint_in(pod, 0, conditions)
}

pub fn ep6(pod: &str, conditions: &str) -> Value {
    endpoint_in(pod, 1, conditions)
}

pub fn with(mut value: Value, patch: Value) -> Value {
    merge(&mut value, &patch);
    value
}

pub fn pod(name: &str) -> Source {
    Source::Pod {
        name: name.into(),
        node: node_of(name).into(),
        ips: pod_ips(name).into(),
    }
}

pub fn node(name: &str) -> Source {
    Source::Node { name: name.into() }
}

/// The outside client whose traffic arrives at the node.
pub fn outside(via: &str) -> Source {
    let ip = ip(if via == "n1" {
        "10.99.0.11"
    } else {
        "10.99.0.12"
    });
    Source::Outside {
        ip,
        via: via.into(),
    }
}

pub fn tcp(address: &str, port: u16) -> Destination {
    Destination {
        ip: ip(address),
        port,
        protocol: Protocol::Tcp,
    }
}

pub fn udp(address: &str, port: u16) -> Destination {
    Destination {
        ip: ip(address),
        port,
        protocol: Protocol::Udp,
    }
}

pub fn listener(node: Option<&str>, bound: Option<&str>, port: u16, name: &str) -> Listener {
    Listener {
        node: node.map(str::to_owned),
        ip: bound.map(ip),
        port,
        protocol: Protocol::Tcp,
        name: name.into(),
    }
}

pub const CLUSTER_IP: &str = "10.96.0.10";
pub const EXTERNAL_IP: &str = "198.51.100.1";
pub const LB_IP: &str = "203.0.113.1";
pub const N1: &str = "10.89.0.11";
pub const N2: &str = "10.89.0.12";

/// The expectation in one short line: outcomes by pod names, then the characteristic.
/// `a1,b1` answered by these; `!` client address kept; `*` after a name: hairpin; `a1:9090` another port than 8080.
pub fn short(expectation: &Expectation) -> String {
    let outcomes: Vec<String> = expectation.outcomes.iter().map(outcome).collect();
    let mut text = outcomes.join(" / ");
    if let Some(characteristic) = &expectation.characteristic {
        text += &format!(" [{}]", characteristic.id);
    }
    text
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Endpoints { shares, client } => {
            let names: Vec<String> = shares
                .iter()
                .map(|share| {
                    let port = if share.port == 8080 {
                        String::new()
                    } else {
                        format!(":{}", share.port)
                    };
                    let name = share.pod.clone().unwrap_or_else(|| share.ip.to_string());
                    format!("{name}{port}{}", if share.hairpin { "*" } else { "" })
                })
                .collect();
            let kept = if *client == oracle::ClientAddress::Preserved {
                "!"
            } else {
                ""
            };
            names.join(",") + kept
        }
        Outcome::Refuse => "refuse".into(),
        Outcome::Drop => "drop".into(),
        Outcome::NotService => "plain".into(),
        Outcome::NoAnswer => "none".into(),
    }
}

pub fn ask(cluster: &Cluster, source: &Source, to: Destination) -> String {
    short(&expect(cluster, source, &to))
}
