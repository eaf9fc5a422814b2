//! Random clusters: API objects as JSON, and the facts about nodes, pods and listeners that are no API objects.
//!
//! ```text
//!   n1, zone a: pods a1, a2        n2, zone b: pods b1, b2        n3, no zone: pod c1
//! ```
//!
//! The objects are ones that an API server would store, with everything in them that is legal but rare.

use std::net::IpAddr;

use oracle::{Cluster, Listener, Node, PodIdentity, Protocol, Source};
use serde_json::{Value, json};

use crate::tape::Tape;

/// A node, as plain as possible.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    pub name: &'static str,
    pub zone: Option<&'static str>,
    pub internal: Vec<IpAddr>,
    /// Further addresses that are local there.
    pub further: Vec<IpAddr>,
}

/// A pod with addresses of its own.
#[derive(Clone, Debug)]
pub struct PodFacts {
    pub name: &'static str,
    pub node: &'static str,
    pub ips: [IpAddr; 2],
}

/// A process that listens on a node, or beyond the cluster.
#[derive(Clone, Debug)]
pub struct ListenerFacts {
    pub name: &'static str,
    pub node: Option<&'static str>,
    pub ip: Option<IpAddr>,
    pub port: u16,
    pub protocol: Protocol,
}

/// Everything that both implementations are told.
#[derive(Clone, Debug)]
pub struct World {
    pub nodes: Vec<NodeFacts>,
    pub pods: Vec<PodFacts>,
    pub listeners: Vec<ListenerFacts>,
    pub nodeport_addresses: Option<Vec<&'static str>>,
    pub service_cidrs: Vec<&'static str>,
    pub proxy_name: Option<&'static str>,
    pub services: Vec<Value>,
    pub slices: Vec<Value>,
}

pub fn ip(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|_| panic!("{text} is no address"))
}

const PODS: [(&str, &str, &str, &str); 5] = [
    ("a1", "n1", "10.244.1.11", "fd00:244:0:1::11"),
    ("a2", "n1", "10.244.1.12", "fd00:244:0:1::12"),
    ("b1", "n2", "10.244.2.11", "fd00:244:0:2::11"),
    ("b2", "n2", "10.244.2.12", "fd00:244:0:2::12"),
    ("c1", "n3", "10.244.3.11", "fd00:244:0:3::11"),
];

/// Endpoints that are no pods: a host process on n1, hosts beyond the cluster, a client of the tests.
const OTHERS: [(&str, &str, &str); 4] = [
    ("n1", "10.89.0.11", "fd00:89::b"),
    ("", "10.99.0.50", "fd00:99::50"),
    ("", "192.0.2.7", "2001:db8::7"),
    ("", "10.99.0.11", "fd00:99::b"),
];

const PORTS: [(&str, &str, u16); 6] = [
    ("http", "TCP", 80),
    ("http-udp", "UDP", 80),
    ("admin", "TCP", 81),
    ("dns", "UDP", 53),
    ("dns-tcp", "TCP", 53),
    ("assoc", "SCTP", 80),
];

const NAMES: [&str; 3] = ["web", "api", "db"];

/// Draws a cluster.
pub fn world(tape: &mut Tape) -> World {
    let services: Vec<Value> = (0..1 + tape.below(3)).map(|i| service(tape, i)).collect();
    let slices = slices(tape, &services);
    let mut nodes: Vec<NodeFacts> = [("n1", Some("a")), ("n2", Some("b")), ("n3", None)]
        .into_iter()
        .zip(1..)
        .map(|((name, zone), i)| NodeFacts {
            name,
            zone,
            internal: vec![
                ip(&format!("10.89.0.{}", 10 + i)),
                ip(&format!("fd00:89::{:x}", 10 + i)),
            ],
            further: vec![
                ip(&format!("10.244.{i}.1")),
                ip(&format!("fd00:244:0:{i}::1")),
                ip("127.0.0.1"),
                ip("::1"),
            ],
        })
        .collect();
    if tape.percent(15) {
        nodes[1].internal.push(ip("10.88.0.12"));
    }
    if tape.percent(10) {
        // A load balancer that puts its address on a node.
        nodes[1].further.push(ip("203.0.113.10"));
    }
    let listener = |name, node, bound: Option<&str>, port| ListenerFacts {
        name,
        node,
        ip: bound.map(ip),
        port,
        protocol: Protocol::Tcp,
    };
    World {
        nodes,
        pods: PODS
            .iter()
            .map(|&(name, node, v4, v6)| PodFacts {
                name,
                node,
                ips: [ip(v4), ip(v6)],
            })
            .collect(),
        listeners: vec![
            listener("host-server", Some("n1"), None, 8080),
            listener("squatter", Some("n2"), None, 30080),
            listener("bound", Some("n1"), Some("10.89.0.11"), 30555),
            listener("lo-only", Some("n1"), Some("127.0.0.1"), 30556),
            listener("beyond", None, Some("10.99.0.50"), 8080),
        ],
        nodeport_addresses: tape.pick(&[
            None,
            None,
            None,
            None,
            Some(vec!["10.89.0.0/24"]),
            Some(vec!["10.244.0.0/16", "fd00:89::/64"]),
            Some(vec!["0.0.0.0/0", "::/0"]),
            Some(vec!["127.0.0.0/8", "10.89.0.11/32"]),
        ]),
        service_cidrs: vec!["10.96.0.0/16", "fd00:96::/112"],
        proxy_name: tape.pick(&[None, None, None, None, None, None, None, Some("mine")]),
        services,
        slices,
    }
}

fn labels(tape: &mut Tape) -> Value {
    let mut labels = json!({"app": "x"});
    match tape.below(40) {
        36 => labels["service.kubernetes.io/service-proxy-name"] = json!("other"),
        37 => labels["service.kubernetes.io/service-proxy-name"] = json!(""),
        38 => labels["service.kubernetes.io/service-proxy-name"] = json!("mine"),
        39 => labels["service.kubernetes.io/headless"] = json!(""),
        _ => {}
    }
    labels
}

fn service(tape: &mut Tape, i: usize) -> Value {
    let name = if i == 2 && tape.percent(30) {
        NAMES[0] // of another namespace, see below.
    } else {
        NAMES[i]
    };
    let namespace = if name == NAMES[i] {
        "default"
    } else {
        "elsewhere"
    };
    let kind = tape.pick(&[
        "ClusterIP",
        "NodePort",
        "LoadBalancer",
        "LoadBalancer",
        "ClusterIP",
        "NodePort",
        "LoadBalancer",
        "LoadBalancer",
        "NodePort",
        "ExternalName",
    ]);
    let headless = kind != "ExternalName" && tape.percent(6);
    let v4 = format!("10.96.0.{}", 10 + i);
    let v6 = format!("fd00:96::{}", 10 + i);
    let families = tape.pick(&[
        vec!["IPv4", "IPv6"],
        vec!["IPv4"],
        vec!["IPv6"],
        vec!["IPv6", "IPv4"],
    ]);
    let ips: Vec<&str> = families
        .iter()
        .map(|family| if *family == "IPv4" { &*v4 } else { &*v6 })
        .collect();
    let mut spec = json!({"type": kind, "ports": ports(tape, i, kind)});
    if headless {
        spec["clusterIP"] = json!("None");
        spec["clusterIPs"] = json!(["None"]);
        spec["ipFamilies"] = json!(families);
    } else if kind == "ExternalName" {
        spec["externalName"] = json!("example.test");
    } else {
        spec["clusterIP"] = json!(ips[0]);
        spec["ipFamilies"] = json!(families);
        if ips.len() > 1 || tape.percent(90) {
            spec["clusterIPs"] = json!(ips);
        }
    }
    for field in ["internalTrafficPolicy", "externalTrafficPolicy"] {
        match tape.below(5) {
            0 => {}
            1 => spec[field] = Value::Null,
            2 => spec[field] = json!("Cluster"),
            _ => spec[field] = json!("Local"),
        }
    }
    match tape.below(6) {
        3 => spec["sessionAffinity"] = json!("None"),
        4 => spec["sessionAffinity"] = json!("ClientIP"),
        5 => {
            spec["sessionAffinity"] = json!("ClientIP");
            spec["sessionAffinityConfig"] =
                json!({"clientIP": {"timeoutSeconds": 7 + tape.below(3)}});
        }
        _ => {}
    }
    if tape.percent(60) {
        spec["externalIPs"] = json!(external_ips(tape, i));
    }
    let mut status = json!({});
    if kind == "LoadBalancer" || tape.percent(8) {
        status["loadBalancer"] = json!({"ingress": ingress(tape, i)});
        if tape.percent(45) {
            spec["loadBalancerSourceRanges"] = source_ranges(tape);
        }
    }
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name, "labels": labels(tape)},
        "spec": spec, "status": status,
    })
}

fn ports(tape: &mut Tape, i: usize, kind: &str) -> Value {
    let without_node_ports = kind == "LoadBalancer" && tape.percent(15);
    let count = tape.pick(&[1, 2, 1, 3]);
    let first = tape.below(PORTS.len());
    let list: Vec<Value> = (0..count)
        .map(|k| {
            let (name, protocol, port) = PORTS[(first + k) % PORTS.len()];
            let mut value =
                json!({"name": name, "protocol": protocol, "port": port, "targetPort": 8080});
            if protocol == "TCP" && tape.percent(30) {
                value.as_object_mut().unwrap().remove("protocol");
            }
            if count == 1 && tape.percent(30) {
                value["name"] = tape.pick(&[json!(""), Value::Null]);
            }
            if matches!(kind, "NodePort" | "LoadBalancer") && !without_node_ports {
                // One number for all protocols of one port.
                value["nodePort"] = json!(30_000 + 100 * i + usize::from(port));
            }
            value
        })
        .collect();
    json!(list)
}

fn external_ips(tape: &mut Tape, i: usize) -> Vec<String> {
    let own4 = format!("198.51.100.{}", 10 + i);
    let own6 = format!("2001:db8:51::{}", 10 + i);
    let pool = [
        own4.clone(),
        own6,
        // Claimed by whoever draws them.
        "198.51.100.99".into(),
        "2001:db8:51::99".into(),
        // The ways in which old objects spell the first.
        format!("198.051.100.0{}", 10 + i),
        format!("::ffff:198.51.100.{}", 10 + i),
        "nonsense".into(),
        // Another Service's ClusterIP, another Service's LoadBalancer address, a node's own address.
        "10.96.0.10".into(),
        "203.0.113.10".into(),
        "10.89.0.12".into(),
    ];
    let count = 1 + tape.below(3);
    (0..count)
        .map(|_| {
            // The rare ones are rare.
            let n = if tape.percent(30) { pool.len() } else { 4 };
            let mut drawn = tape.below(n);
            if i == 0 && drawn == 7 {
                drawn = 0; // The Service's own ClusterIP.
            }
            pool[drawn].clone()
        })
        .collect()
}

fn ingress(tape: &mut Tape, i: usize) -> Value {
    let own4 = format!("203.0.113.{}", 10 + i);
    let own6 = format!("2001:db8:113::{}", 10 + i);
    let pool = [
        json!({"ip": own4}),
        json!({"ip": own6}),
        json!({"ip": own4, "ipMode": "VIP"}),
        json!({"ip": format!("203.0.113.{}", 20 + i), "ipMode": "Proxy"}),
        json!({"ip": own6, "ipMode": "Proxy"}),
        json!({"hostname": "lb.example.test"}),
        json!({"ip": "203.0.113.99"}),
        json!({"ip": "10.89.0.11"}),
    ];
    let mut list: Vec<Value> = Vec::new();
    for _ in 0..1 + tape.below(3) {
        let entry = tape.pick(&pool);
        // The API server lets an address appear twice, but with one mode it stays decidable.
        if !list.iter().any(|other| other["ip"] == entry["ip"]) {
            list.push(entry);
        }
    }
    json!(list)
}

fn source_ranges(tape: &mut Tape) -> Value {
    let pool = [
        "10.99.0.11/32",
        " 10.244.1.0/24 ",
        "10.89.0.0/24",
        "fd00:99::/64",
        "fd00:244:0:1::/64",
        "0.0.0.0/0",
        "::/0",
        "192.0.2.0/24",
        "10.89.0.12/32",
    ];
    let list: Vec<&str> = (0..tape.pick(&[1, 2, 1, 3, 0]))
        .map(|_| tape.pick(&pool))
        .collect();
    json!(list)
}

/// What is the same for all copies of an endpoint, because the API gives no meaning to copies that contradict each other.
struct Traits {
    node: Option<&'static str>,
    hints: Value,
}

fn hints(tape: &mut Tape, eager: bool) -> Value {
    let mut hints = json!({});
    let wanted = if eager { 92 } else { 10 };
    if tape.percent(wanted) {
        hints["forZones"] = tape.pick(&[
            json!([{"name": "a"}]),
            json!([{"name": "b"}]),
            json!([{"name": "a"}, {"name": "b"}]),
            json!([{"name": "c"}]),
            json!([]),
        ]);
    }
    if tape.percent(if eager { 50 } else { 5 }) {
        hints["forNodes"] = tape.pick(&[
            json!([{"name": "n1"}]),
            json!([{"name": "n2"}]),
            json!([{"name": "n3"}]),
            json!([{"name": "n1"}, {"name": "n2"}]),
            json!([]),
        ]);
    }
    if hints == json!({}) {
        tape.pick(&[Value::Null, hints])
    } else {
        hints
    }
}

fn slices(tape: &mut Tape, services: &[Value]) -> Vec<Value> {
    let eager = tape.percent(35);
    let traits: Vec<Traits> = (0..PODS.len() + OTHERS.len())
        .map(|k| {
            let own = match PODS.get(k) {
                Some((_, node, ..)) => *node,
                None => OTHERS[k - PODS.len()].0,
            };
            let node = if own.is_empty() || tape.percent(8) {
                None
            } else if tape.percent(3) {
                Some("n9") // No node has this name.
            } else {
                Some(own)
            };
            Traits {
                node,
                hints: hints(tape, eager),
            }
        })
        .collect();
    let count = tape.pick(&[1, 2, 3, 4, 5, 2, 3, 0]);
    (0..count)
        .map(|n| {
            let owner = tape.pick(services);
            slice(tape, n, &owner, &traits)
        })
        .collect()
}

fn slice(tape: &mut Tape, n: usize, owner: &Value, traits: &[Traits]) -> Value {
    let kind = tape.pick(&[
        "IPv4", "IPv6", "IPv4", "IPv6", "IPv4", "IPv6", "IPv4", "IPv6", "FQDN",
    ]);
    let mut labels = json!({"kubernetes.io/service-name": owner["metadata"]["name"]});
    let mut namespace = owner["metadata"]["namespace"].clone();
    match tape.below(40) {
        36 => labels["kubernetes.io/service-name"] = json!("nobody"),
        37 => labels = Value::Null,
        38 => namespace = json!("nowhere"),
        39 => labels["service.kubernetes.io/headless"] = json!(""),
        _ => {}
    }
    let target = tape.pick(&[8080, 9090, 8080]);
    let mut ports: Vec<Value> = Vec::new();
    for port in owner["spec"]["ports"].as_array().unwrap() {
        if tape.percent(12) {
            continue;
        }
        let mut entry = json!({
            "name": port["name"],
            "protocol": port["protocol"],
            "port": target,
        });
        match tape.below(30) {
            26 => entry["port"] = Value::Null,
            27 => entry["port"] = json!(0),
            28 => entry["protocol"] = json!("UDP"),
            29 => entry["name"] = json!("strange"),
            _ => {}
        }
        ports.push(entry);
    }
    let endpoints: Vec<Value> = if tape.percent(6) {
        contradiction(tape, kind, traits).into()
    } else {
        (0..tape.below(5))
            .map(|_| endpoint(tape, kind, traits))
            .collect()
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": namespace, "name": format!("slice-{n}"), "labels": labels},
        "addressType": kind,
        "ports": ports,
        "endpoints": endpoints,
    })
}

fn endpoint(tape: &mut Tape, kind: &str, traits: &[Traits]) -> Value {
    let k = if tape.percent(18) {
        PODS.len() + tape.below(OTHERS.len())
    } else {
        tape.below(PODS.len())
    };
    let (v4, v6) = match PODS.get(k) {
        Some((_, _, v4, v6)) => (*v4, *v6),
        None => (OTHERS[k - PODS.len()].1, OTHERS[k - PODS.len()].2),
    };
    // Also of the wrong family, where a slice has another type than its addresses.
    let own = if (kind == "IPv6") != tape.percent(3) {
        v6
    } else {
        v4
    };
    let mut addresses = vec![own];
    match tape.below(40) {
        37 => addresses.push("10.244.2.12"),
        38 => addresses.insert(0, "nonsense"),
        39 => addresses.clear(),
        _ => {}
    }
    let conditions = conditions(tape);
    // A copy that is not ready may carry other hints: only those of ready ones have a meaning.
    let ready = conditions["ready"] != json!(false);
    let hints = if ready {
        traits[k].hints.clone()
    } else {
        hints(tape, false)
    };
    json!({
        "addresses": addresses,
        "nodeName": traits[k].node,
        "conditions": conditions,
        "hints": hints,
    })
}

/// Two copies of one endpoint, of which one serves while it terminates and the other is of no use: chance alone hardly ever makes them.
fn contradiction(tape: &mut Tape, kind: &str, traits: &[Traits]) -> [Value; 2] {
    let mut serving = endpoint(tape, kind, traits);
    let mut useless = serving.clone();
    serving["conditions"] = json!({"ready": false, "serving": true, "terminating": true});
    useless["conditions"] = json!({"ready": false, "serving": false, "terminating": false});
    [serving, useless]
}

fn conditions(tape: &mut Tape) -> Value {
    let flag = |value: Option<bool>| value.map_or(Value::Null, Value::Bool);
    match tape.below(12) {
        0..=4 => json!({"ready": true, "serving": true, "terminating": false}),
        5 => json!({"ready": false, "serving": false, "terminating": false}),
        6 | 7 => json!({"ready": false, "serving": true, "terminating": true}),
        8 => tape.pick(&[json!({}), Value::Null]),
        _ => {
            let mut any = json!({});
            for name in ["ready", "serving", "terminating"] {
                match tape.below(4) {
                    0 => any[name] = flag(Some(true)),
                    1 => any[name] = flag(Some(false)),
                    2 => any[name] = flag(None),
                    _ => {}
                }
            }
            any
        }
    }
}

impl World {
    /// The same facts as the oracle wants them.
    pub fn cluster(&self) -> Cluster {
        let nodes = self
            .nodes
            .iter()
            .map(|node| Node {
                name: node.name.into(),
                internal_ips: node.internal.clone(),
                all_ips: node.internal.iter().chain(&node.further).copied().collect(),
                zone: node.zone.map(str::to_owned),
            })
            .collect();
        let objects: Vec<Value> = self.services.iter().chain(&self.slices).cloned().collect();
        let mut cluster =
            Cluster::from_objects(&objects, nodes).expect("the objects are well-formed");
        cluster.nodeport_addresses = self
            .nodeport_addresses
            .as_ref()
            .map(|list| list.iter().map(|net| net.parse().unwrap()).collect());
        cluster.service_cidrs = self
            .service_cidrs
            .iter()
            .map(|net| net.parse().unwrap())
            .collect();
        cluster.service_proxy_name = self.proxy_name.map(str::to_owned);
        for pod in &self.pods {
            for address in pod.ips {
                let identity = PodIdentity {
                    name: pod.name.into(),
                    node: pod.node.into(),
                };
                cluster.pods.insert(address, identity);
            }
        }
        cluster.listeners = self
            .listeners
            .iter()
            .map(|listener| Listener {
                node: listener.node.map(str::to_owned),
                ip: listener.ip,
                port: listener.port,
                protocol: listener.protocol,
                name: listener.name.into(),
            })
            .collect();
        cluster
    }

    /// Everybody who may ask: pods and processes on each node, clients beyond it, and a neighbour, with the family that
    /// each can send in.
    pub fn sources(&self) -> Vec<(Source, Vec<IpAddr>)> {
        let mut all = Vec::new();
        for pod in self.pods.iter().filter(|pod| pod.name != "b2") {
            let source = Source::Pod {
                name: pod.name.into(),
                node: pod.node.into(),
                ips: pod.ips.into(),
            };
            all.push((source, pod.ips.into()));
        }
        for node in &self.nodes {
            let source = Source::Node {
                name: node.name.into(),
            };
            all.push((source, node.internal.clone()));
        }
        for (via, address) in [
            ("n1", "10.99.0.11"),
            ("n2", "10.99.0.12"),
            ("n3", "10.99.0.13"),
            ("n1", "fd00:99::b"),
            ("n2", "fd00:99::c"),
        ] {
            let source = Source::Outside {
                ip: ip(address),
                via: via.into(),
            };
            all.push((source, vec![ip(address)]));
        }
        for address in ["10.89.0.99", "fd00:89::63"] {
            let source = Source::Neighbour { ip: ip(address) };
            all.push((source, vec![ip(address)]));
        }
        all
    }

    /// The cluster, for a person to judge.
    pub fn describe(&self) -> String {
        let objects: Vec<String> = self
            .services
            .iter()
            .chain(&self.slices)
            .map(Value::to_string)
            .collect();
        format!(
            "nodes {:?}\nnodeport-addresses {:?}, proxy name {:?}\n{}",
            self.nodes,
            self.nodeport_addresses,
            self.proxy_name,
            objects.join("\n")
        )
    }
}
