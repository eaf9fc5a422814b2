//! Services through admission: what a client reads back after it wrote one, and which ones are refused.

use std::net::IpAddr;

use apiserver::types::{AdmitContext, Cause, Op, ServiceAllocators, admit, released};
use serde_json::{Value, json};

/// Admission and the stored state of one Service, as the store would keep it.
struct Cluster {
    allocators: ServiceAllocators,
}

impl Cluster {
    fn dual() -> Self {
        Self::with(&["10.96.0.0/16", "fd00:96::/112"])
    }

    fn with(cidrs: &[&str]) -> Self {
        let cidrs: Vec<_> = cidrs
            .iter()
            .map(|cidr| cidr.parse().expect("a CIDR"))
            .collect();
        Self {
            allocators: ServiceAllocators::new(&cidrs, 30000..=32767),
        }
    }

    fn write(&mut self, op: Op, old: Option<&Value>, mut new: Value) -> Result<Value, Vec<Cause>> {
        let mut ctx = AdmitContext {
            allocators: &mut self.allocators,
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        admit(&mut ctx, op, "v1", "Service", old, &mut new).map(|()| new)
    }

    fn create(&mut self, spec: Value) -> Result<Value, Vec<Cause>> {
        self.write(Op::Create, None, service(spec))
    }

    fn update(&mut self, old: &Value, spec: Value) -> Result<Value, Vec<Cause>> {
        self.write(Op::Update, Some(old), service(spec))
    }

    /// Changes single fields of the stored object, as a merge patch does.
    fn patch(&mut self, old: &Value, fields: Value) -> Result<Value, Vec<Cause>> {
        let mut new = old.clone();
        for (key, value) in fields.as_object().expect("a map") {
            new["spec"][key] = value.clone();
        }
        self.write(Op::Update, Some(old), new)
    }

    fn delete(&mut self, old: &Value) {
        let mut ctx = AdmitContext {
            allocators: &mut self.allocators,
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        released(&mut ctx, old);
    }

    fn holds_ip(&self, address: &Value) -> bool {
        let address: IpAddr = address.as_str().expect("a string").parse().expect("an IP");
        self.allocators.holds_cluster_ip(address)
    }

    fn holds_port(&self, port: &Value) -> bool {
        let port = u16::try_from(port.as_u64().expect("a number")).expect("a port");
        self.allocators.holds_node_port(port)
    }
}

fn service(spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "test" }, "spec": spec })
}

fn http() -> Value {
    json!([{ "port": 80 }])
}

/// The reasons and fields, as one line each.
fn lines(result: Result<Value, Vec<Cause>>) -> Vec<String> {
    match result {
        Ok(value) => panic!("it was accepted: {value:#}"),
        Err(causes) => causes.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn defaults_of_each_type() {
    let mut cluster = Cluster::dual();
    let cluster_ip = cluster.create(json!({ "selector": { "app": "web" }, "ports": http() }));
    insta::assert_json_snapshot!("cluster_ip", cluster_ip.expect("valid"));
    let load_balancer = cluster.create(json!({
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "sessionAffinity": "ClientIP",
        "ipFamilyPolicy": "RequireDualStack",
        "ports": [{ "name": "dns", "port": 53, "protocol": "UDP" }, { "name": "dns-tcp", "port": 53, "targetPort": "dns" }],
    }));
    insta::assert_json_snapshot!("load_balancer_local", load_balancer.expect("valid"));
    let headless = cluster.create(json!({ "clusterIP": "None" }));
    insta::assert_json_snapshot!("headless_without_selector", headless.expect("valid"));
    let name = cluster.create(json!({ "type": "ExternalName", "externalName": "example.com" }));
    insta::assert_json_snapshot!("external_name", name.expect("valid"));
}

#[test]
fn refused_services() {
    let cases: Vec<(&str, Value)> = vec![
        ("no ports", json!({})),
        (
            "unnamed ports",
            json!({ "ports": [{ "port": 80 }, { "port": 81 }] }),
        ),
        (
            "one name twice",
            json!({ "ports": [{ "name": "a", "port": 80 }, { "name": "a", "port": 81 }] }),
        ),
        (
            "one port twice",
            json!({ "ports": [{ "name": "a", "port": 80 }, { "name": "b", "port": 80 }] }),
        ),
        ("port 0", json!({ "ports": [{ "port": 0 }] })),
        (
            "protocol",
            json!({ "ports": [{ "port": 80, "protocol": "ICMP" }] }),
        ),
        (
            "target port",
            json!({ "ports": [{ "port": 80, "targetPort": "Not A Name" }] }),
        ),
        ("type", json!({ "type": "Magic", "ports": http() })),
        (
            "wrong JSON type",
            json!({ "ports": [{ "port": "eighty" }] }),
        ),
        (
            "nodePort of a ClusterIP Service",
            json!({ "ports": [{ "port": 80, "nodePort": 30000 }] }),
        ),
        (
            "nodePort out of range",
            json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 80 }] }),
        ),
        (
            "ClusterIP out of range",
            json!({ "clusterIP": "10.0.0.1", "ports": http() }),
        ),
        (
            "malformed ClusterIP",
            json!({ "clusterIP": "10.096.0.1", "ports": http() }),
        ),
        (
            "clusterIPs without clusterIP",
            json!({ "clusterIPs": ["10.96.0.9"], "ports": http() }),
        ),
        (
            "two ClusterIPs, single stack",
            json!({ "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00:96::9"], "ports": http() }),
        ),
        (
            "family of the ClusterIP",
            json!({ "clusterIP": "10.96.0.9", "ipFamilies": ["IPv6"], "ports": http() }),
        ),
        (
            "families",
            json!({ "ipFamilies": ["IPv4", "IPv4", "IPv5"], "ipFamilyPolicy": "Any", "ports": http() }),
        ),
        (
            "headless NodePort",
            json!({ "type": "NodePort", "clusterIP": "None", "ports": http() }),
        ),
        (
            "affinity",
            json!({ "sessionAffinity": "Cookie", "ports": http() }),
        ),
        (
            "affinity timeout",
            json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 86401 } }, "ports": http() }),
        ),
        (
            "externalIPs",
            json!({ "externalIPs": ["127.0.0.1", "::", "fe80::1", "x"], "ports": http() }),
        ),
        (
            "source ranges",
            json!({ "type": "LoadBalancer", "loadBalancerSourceRanges": [" 10.0.0.0/8 ", "10.0.0.1/8"], "ports": http() }),
        ),
        (
            "load balancer fields",
            json!({ "loadBalancerSourceRanges": ["10.0.0.0/8"], "loadBalancerClass": "a/b", "allocateLoadBalancerNodePorts": true, "ports": http() }),
        ),
        (
            "external policy without access from outside",
            json!({ "externalTrafficPolicy": "Local", "ports": http() }),
        ),
        (
            "policies",
            json!({ "type": "NodePort", "externalTrafficPolicy": "Near", "internalTrafficPolicy": "Near", "ports": http() }),
        ),
        (
            "healthCheckNodePort",
            json!({ "type": "LoadBalancer", "healthCheckNodePort": 31000, "ports": http() }),
        ),
        (
            "trafficDistribution",
            json!({ "trafficDistribution": "Anywhere", "ports": http() }),
        ),
        (
            "ExternalName",
            json!({ "type": "ExternalName", "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"] }),
        ),
        (
            "selector",
            json!({ "selector": { "a b": "c d" }, "ports": http() }),
        ),
    ];
    let mut cluster = Cluster::dual();
    let mut text = String::new();
    for (title, spec) in cases {
        text += &format!("{title}\n");
        for line in lines(cluster.create(spec)) {
            text += &format!("  {line}\n");
        }
    }
    insta::assert_snapshot!("refused", text);
    // None of them left anything allocated.
    let first = cluster
        .create(json!({ "type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{ "port": 80, "nodePort": 30000 }] }));
    assert!(first.is_ok(), "{first:?}");
}

#[test]
fn an_address_belongs_to_one_service() {
    let mut cluster = Cluster::dual();
    let spec = json!({ "clusterIP": "10.96.0.10", "ports": http() });
    let first = cluster.create(spec.clone()).expect("valid");
    let refused = lines(cluster.create(spec.clone()));
    assert_eq!(
        refused,
        [
            "spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: provided IP is already allocated"
        ]
    );
    cluster.delete(&first);
    assert!(cluster.create(spec).is_ok());
}

#[test]
fn a_node_port_belongs_to_one_service() {
    let mut cluster = Cluster::dual();
    let port = |number: u16| json!({ "type": "NodePort", "ports": [{ "port": number, "nodePort": 30080 }] });
    let first = cluster.create(port(80)).expect("valid");
    assert_eq!(
        lines(cluster.create(port(81))),
        ["spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"]
    );
    // The refused one gave its ClusterIP back.
    let next = cluster.create(json!({ "ports": http() })).expect("valid");
    let refused_address = next["spec"]["clusterIP"].clone();
    assert!(cluster.holds_ip(&refused_address));
    cluster.delete(&first);
    assert!(cluster.create(port(81)).is_ok());
}

#[test]
fn a_refused_service_holds_nothing() {
    let mut cluster = Cluster::dual();
    // The address and the first port are free; what is wrong comes later.
    let ports = json!([{ "name": "a", "port": 80, "nodePort": 30080 }, { "name": "b", "port": 81, "nodePort": 1 }]);
    let refused =
        cluster.create(json!({ "type": "NodePort", "clusterIP": "10.96.0.9", "ports": ports }));
    assert!(lines(refused)[0].contains("not in the valid range"));
    assert!(!cluster.holds_ip(&json!("10.96.0.9")) && !cluster.holds_port(&json!(30080)));

    let stored = cluster.create(json!({ "ports": http() })).expect("valid");
    let upgrade = json!({ "type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "sessionAffinity": "Cookie",
        "clusterIPs": [stored["spec"]["clusterIP"], "fd00:96::9"], "ports": [{ "port": 80, "nodePort": 30080 }] });
    assert_eq!(lines(cluster.update(&stored, upgrade)).len(), 1);
    assert!(!cluster.holds_ip(&json!("fd00:96::9")) && !cluster.holds_port(&json!(30080)));

    // Nor does an update that is refused give anything up.
    let port = json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30081 }] });
    let stored = cluster.create(port).expect("valid");
    let refused = cluster.update(&stored, json!({ "type": "ExternalName" }));
    assert_eq!(lines(refused), ["spec.externalName: Required value"]);
    assert!(cluster.holds_ip(&stored["spec"]["clusterIP"]) && cluster.holds_port(&json!(30081)));
}

#[test]
fn ports_with_one_number_share_a_node_port() {
    let mut cluster = Cluster::dual();
    let dns = cluster
        .create(json!({ "type": "NodePort", "ports": [
            { "name": "udp", "port": 53, "protocol": "UDP" },
            { "name": "tcp", "port": 53 },
            { "name": "metrics", "port": 9153 },
        ]}))
        .expect("valid");
    let ports = &dns["spec"]["ports"];
    assert_eq!(ports[0]["nodePort"], ports[1]["nodePort"]);
    assert_ne!(ports[0]["nodePort"], ports[2]["nodePort"]);
}

#[test]
fn the_same_manifest_twice_changes_nothing() {
    let mut cluster = Cluster::dual();
    for spec in [
        json!({ "ports": http() }),
        json!({ "type": "NodePort", "ipFamilyPolicy": "PreferDualStack", "ports": http() }),
        json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": http() }),
        json!({ "clusterIP": "None", "selector": { "a": "b" } }),
        json!({ "type": "ExternalName", "externalName": "example.com" }),
    ] {
        let first = cluster.create(spec.clone()).expect("valid");
        let second = cluster.update(&first, spec).expect("valid");
        assert_eq!(first, second);
        let third = cluster
            .update(&second, second["spec"].clone())
            .expect("valid");
        assert_eq!(second, third);
    }
}

#[test]
fn node_ports_are_inherited_by_port_name() {
    let mut cluster = Cluster::dual();
    let old = cluster
        .create(json!({ "type": "NodePort", "ports": [{ "name": "a", "port": 80 }, { "name": "b", "port": 81 }] }))
        .expect("valid");
    let new = cluster
        .update(
            &old,
            json!({ "type": "NodePort", "ports": [{ "name": "b", "port": 8081 }, { "name": "c", "port": 82 }] }),
        )
        .expect("valid");
    let (old, new) = (&old["spec"]["ports"], &new["spec"]["ports"]);
    assert_eq!(new[0]["nodePort"], old[1]["nodePort"]);
    assert!(cluster.holds_port(&new[1]["nodePort"]));
    assert!(
        !cluster.holds_port(&old[0]["nodePort"]),
        "the port of a removed port is given back"
    );
}

#[test]
fn types_change() {
    let mut cluster = Cluster::dual();
    let plain = cluster.create(json!({ "ports": http() })).expect("valid");
    let address = plain["spec"]["clusterIP"].clone();

    let balancer = cluster
        .patch(
            &plain,
            json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local" }),
        )
        .expect("valid");
    assert_eq!(balancer["spec"]["clusterIP"], address);
    assert_eq!(balancer["spec"]["allocateLoadBalancerNodePorts"], true);
    let node_port = balancer["spec"]["ports"][0]["nodePort"].clone();
    let health_port = balancer["spec"]["healthCheckNodePort"].clone();
    assert!(cluster.holds_port(&node_port) && cluster.holds_port(&health_port));

    let mut ready = balancer.clone();
    ready["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.1" }] } });
    let balancer = cluster
        .write(Op::UpdateStatus, Some(&balancer), ready)
        .expect("valid");
    assert_eq!(
        balancer["status"]["loadBalancer"]["ingress"][0]["ipMode"],
        "VIP"
    );

    let plain = cluster
        .patch(&balancer, json!({ "type": "ClusterIP" }))
        .expect("valid");
    let spec = &plain["spec"];
    for field in [
        "externalTrafficPolicy",
        "healthCheckNodePort",
        "allocateLoadBalancerNodePorts",
    ] {
        assert!(spec.get(field).is_none(), "{field}");
    }
    assert!(spec["ports"][0].get("nodePort").is_none());
    assert_eq!(plain["status"], json!({ "loadBalancer": {} }));
    assert!(!cluster.holds_port(&node_port) && !cluster.holds_port(&health_port));
    assert_eq!(spec["clusterIP"], address);

    let name = cluster
        .patch(
            &plain,
            json!({ "type": "ExternalName", "externalName": "example.com" }),
        )
        .expect("valid");
    assert!(name["spec"].get("clusterIP").is_none() && name["spec"].get("ipFamilies").is_none());
    assert!(!cluster.holds_ip(&address));

    let back = cluster
        .patch(&name, json!({ "type": "ClusterIP" }))
        .expect("valid");
    assert!(cluster.holds_ip(&back["spec"]["clusterIP"]));
    assert_eq!(back["spec"]["ipFamilies"], json!(["IPv4"]));
}

#[test]
fn local_policy_comes_and_goes() {
    let mut cluster = Cluster::dual();
    let spec = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000, "ports": http() });
    let local = cluster.create(spec).expect("valid");
    assert_eq!(
        lines(cluster.patch(&local, json!({ "healthCheckNodePort": 31001 }))),
        ["spec.healthCheckNodePort: Forbidden: field is immutable"]
    );
    let global = cluster
        .patch(&local, json!({ "externalTrafficPolicy": "Cluster" }))
        .expect("valid");
    assert!(global["spec"].get("healthCheckNodePort").is_none());
    assert!(!cluster.holds_port(&json!(31000)));
}

#[test]
fn no_node_ports_for_a_load_balancer_that_wants_none() {
    let mut cluster = Cluster::dual();
    let spec = json!({ "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [
        { "name": "a", "port": 80 }, { "name": "b", "port": 81, "nodePort": 30081 },
    ]});
    let created = cluster.create(spec).expect("valid");
    assert!(created["spec"]["ports"][0].get("nodePort").is_none());
    assert!(cluster.holds_port(&created["spec"]["ports"][1]["nodePort"]));
}

#[test]
fn the_first_address_never_changes() {
    let mut cluster = Cluster::dual();
    let old = cluster.create(json!({ "ports": http() })).expect("valid");
    let refused =
        lines(cluster.update(&old, json!({ "clusterIP": "10.96.0.77", "ports": http() })));
    assert_eq!(
        refused,
        ["spec.clusterIPs[0]: Invalid value: [\"10.96.0.77\"]: may not change once set"]
    );
    assert!(
        lines(cluster.update(&old, json!({ "clusterIP": "None", "ports": http() })))[0]
            .contains("may not change")
    );
    assert_eq!(
        lines(cluster.patch(&old, json!({ "ipFamilies": ["IPv6"] }))).len(),
        1
    );
    assert!(!cluster.holds_ip(&json!("10.96.0.77")));
}

#[test]
fn the_second_family_comes_and_goes() {
    let mut cluster = Cluster::dual();
    let single = cluster.create(json!({ "ports": http() })).expect("valid");
    let dual = cluster
        .patch(&single, json!({ "ipFamilyPolicy": "PreferDualStack" }))
        .expect("valid");
    assert_eq!(dual["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    let second = dual["spec"]["clusterIPs"][1].clone();
    assert!(
        second.as_str().expect("a string").starts_with("fd00:96::") && cluster.holds_ip(&second)
    );

    let address = dual["spec"]["clusterIP"].clone();
    let refused = cluster.patch(&dual, json!({ "clusterIPs": [address] }));
    assert_eq!(
        lines(refused),
        [
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be 'SingleStack' to release the secondary cluster IP"
        ]
    );
    let single = cluster
        .patch(&dual, json!({ "ipFamilyPolicy": "SingleStack" }))
        .expect("valid");
    assert_eq!(single["spec"]["clusterIPs"], json!([address]));
    assert_eq!(single["spec"]["ipFamilies"], json!(["IPv4"]));
    assert!(!cluster.holds_ip(&second) && cluster.holds_ip(&address));
}

#[test]
fn the_order_of_families_is_the_clients() {
    let mut cluster = Cluster::dual();
    let six = cluster
        .create(
            json!({ "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"], "ports": http() }),
        )
        .expect("valid");
    assert_eq!(six["spec"]["ipFamilies"], json!(["IPv6", "IPv4"]));
    assert_eq!(six["spec"]["clusterIP"], six["spec"]["clusterIPs"][0]);
    assert!(
        six["spec"]["clusterIP"]
            .as_str()
            .expect("a string")
            .contains(':')
    );
    let inferred = cluster
        .create(json!({ "clusterIP": "fd00:96::77", "ports": http() }))
        .expect("valid");
    assert_eq!(inferred["spec"]["ipFamilies"], json!(["IPv6"]));
}

#[test]
fn single_stack_clusters() {
    let mut cluster = Cluster::with(&["fd00:96::/112"]);
    let preferred = cluster
        .create(json!({ "ipFamilyPolicy": "PreferDualStack", "ports": http() }))
        .expect("valid");
    assert_eq!(preferred["spec"]["ipFamilies"], json!(["IPv6"]));
    assert_eq!(
        lines(cluster.create(json!({ "ipFamilyPolicy": "RequireDualStack", "ports": http() }))),
        [
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"
        ]
    );
    assert_eq!(
        lines(cluster.create(json!({ "ipFamilies": ["IPv4"], "ports": http() }))),
        ["spec.ipFamilies[0]: Invalid value: \"IPv4\": not configured on this cluster"]
    );
}

#[test]
fn status_and_spec_are_written_apart() {
    let mut cluster = Cluster::dual();
    let stored = cluster
        .create(json!({ "type": "LoadBalancer", "ports": http() }))
        .expect("valid");
    let mut new = stored.clone();
    new["spec"]["ports"][0]["port"] = json!(81);
    new["status"] =
        json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.1", "ipMode": "Proxy" }] } });
    let by_status = cluster
        .write(Op::UpdateStatus, Some(&stored), new.clone())
        .expect("valid");
    assert_eq!(by_status["spec"], stored["spec"]);
    assert_eq!(by_status["status"], new["status"]);
    let by_spec = cluster.write(Op::Update, Some(&by_status), {
        new["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.9" }] } });
        new
    });
    let by_spec = by_spec.expect("valid");
    assert_eq!(by_spec["spec"]["ports"][0]["port"], 81);
    assert_eq!(by_spec["status"], by_status["status"]);
}

#[test]
fn refused_ingress() {
    let mut cluster = Cluster::dual();
    let balancer = cluster
        .create(json!({ "type": "LoadBalancer", "ports": http() }))
        .expect("valid");
    let plain = cluster.create(json!({ "ports": http() })).expect("valid");
    let mut set = |old: &Value, ingress: Value| {
        let mut new = old.clone();
        new["status"] = json!({ "loadBalancer": { "ingress": [ingress] } });
        cluster.write(Op::UpdateStatus, Some(old), new)
    };
    assert!(set(&balancer, json!({ "hostname": "lb.example.com" })).is_ok());
    let mut text = String::new();
    for (old, ingress) in [
        (&plain, json!({ "ip": "203.0.113.1" })),
        (&balancer, json!({ "ip": "x" })),
        (&balancer, json!({ "ip": "203.0.113.1", "ipMode": "NAT" })),
        (
            &balancer,
            json!({ "hostname": "203.0.113.1", "ipMode": "VIP" }),
        ),
        (&balancer, json!("203.0.113.1")),
        (&balancer, json!({ "ip": 7 })),
    ] {
        let given = ingress.to_string();
        match set(old, ingress) {
            Ok(_) => text += &format!("{given}\n  accepted\n"),
            Err(causes) => {
                text += &format!("{given}\n");
                for cause in causes {
                    text += &format!("  {cause}\n");
                }
            }
        }
    }
    insta::assert_snapshot!("refused_ingress", text);
}

#[test]
fn names_of_services_may_begin_with_a_digit() {
    let mut cluster = Cluster::dual();
    let mut named = |name: &str| {
        let mut service = service(json!({ "ports": http() }));
        service["metadata"]["name"] = json!(name);
        cluster.write(Op::Create, None, service)
    };
    assert!(named("1-web").is_ok());
    assert!(named("web.example").is_err() && named("Web").is_err());
}

#[test]
fn malformed_objects_are_refused_and_never_panic() {
    let mut cluster = Cluster::dual();
    let stored = cluster
        .create(json!({ "type": "LoadBalancer", "ports": http() }))
        .expect("valid");
    let junk = [
        json!(null),
        json!(1),
        json!("x"),
        json!([]),
        json!([1]),
        json!({}),
        json!({ "a": 1 }),
    ];
    for value in &junk {
        for path in ["metadata", "spec", "status"] {
            for op in [Op::Create, Op::Update, Op::UpdateStatus] {
                let mut object = stored.clone();
                object[path] = value.clone();
                let old = (op != Op::Create).then_some(&stored);
                let _ = cluster.write(op, old, object);
            }
        }
        for field in [
            "ports",
            "clusterIPs",
            "sessionAffinityConfig",
            "selector",
            "type",
        ] {
            let mut object = stored.clone();
            object["spec"][field] = value.clone();
            let _ = cluster.write(Op::Update, Some(&stored), object);
        }
    }
}
