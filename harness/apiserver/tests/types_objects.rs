//! The other built-in kinds through admission: EndpointSlices, Nodes, Pods, Namespaces, ServiceCIDRs.

use apiserver::types::{AdmitContext, Cause, Family, Op, ServiceAllocators, admit, released};
use serde_json::{Value, json};

fn allocators() -> ServiceAllocators {
    ServiceAllocators::new(&["10.96.0.0/30".parse().expect("a CIDR")], 30000..=30010)
}

fn write(op: Op, old: Option<&Value>, mut new: Value) -> Result<Value, Vec<Cause>> {
    let mut allocators = allocators();
    let mut ctx = AdmitContext {
        allocators: &mut allocators,
        now: jiff::Timestamp::UNIX_EPOCH,
    };
    let api_version = new["apiVersion"].as_str().expect("given").to_owned();
    let kind = new["kind"].as_str().expect("given").to_owned();
    admit(&mut ctx, op, &api_version, &kind, old, &mut new).map(|()| new)
}

fn create(new: Value) -> Result<Value, Vec<Cause>> {
    write(Op::Create, None, new)
}

fn object(api_version: &str, kind: &str, fields: Value) -> Value {
    let mut object =
        json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": "one" } });
    for (key, value) in fields.as_object().expect("a map") {
        object[key] = value.clone();
    }
    object
}

fn slice(fields: Value) -> Value {
    object("discovery.k8s.io/v1", "EndpointSlice", fields)
}

/// One paragraph for each refused object.
fn report(cases: Vec<(&str, Result<Value, Vec<Cause>>)>) -> String {
    let mut text = String::new();
    for (title, result) in cases {
        text += &format!("{title}\n");
        match result {
            Ok(_) => text += "  accepted\n",
            Err(causes) => causes
                .iter()
                .for_each(|cause| text += &format!("  {cause}\n")),
        }
    }
    text
}

#[test]
fn slices_get_port_defaults_and_null_for_empty_lists() {
    let stored = create(slice(json!({
        "addressType": "IPv4",
        "ports": [{ "port": 80 }, { "name": "dns", "port": 53, "protocol": "UDP" }],
        "endpoints": [{ "addresses": ["10.244.1.11"], "deprecatedTopology": { "a": "b" } }],
    })));
    let stored = stored.expect("valid");
    assert_eq!(
        stored["ports"][0],
        json!({ "port": 80, "name": "", "protocol": "TCP" })
    );
    assert_eq!(stored["ports"][1]["protocol"], "UDP");
    assert_eq!(
        stored["endpoints"][0],
        json!({ "addresses": ["10.244.1.11"] })
    );
    let empty = create(slice(json!({ "addressType": "IPv4", "endpoints": [] }))).expect("valid");
    assert!(
        empty.get("endpoints") == Some(&Value::Null) && empty.get("ports") == Some(&Value::Null)
    );
}

#[test]
fn refused_slices() {
    let address = |kind: &str, address: &str| {
        slice(json!({ "addressType": kind, "endpoints": [{ "addresses": [address] }] }))
    };
    let four = |fields: Value| {
        let mut slice = slice(fields);
        slice["addressType"] = json!("IPv4");
        slice
    };
    let endpoint = json!({ "addresses": ["10.0.0.1"] });
    let cases = vec![
        ("no address type", create(slice(json!({})))),
        (
            "unknown address type",
            create(slice(json!({ "addressType": "IPX" }))),
        ),
        ("wrong family", create(address("IPv4", "fd00::1"))),
        ("not canonical", create(address("IPv6", "fd00:0::1"))),
        ("loopback", create(address("IPv4", "127.0.0.1"))),
        ("malformed", create(address("IPv4", "10.0.0.256"))),
        ("one label", create(address("FQDN", "example"))),
        ("domain name", create(address("FQDN", "a.example"))),
        (
            "no address",
            create(four(json!({ "endpoints": [{ "addresses": [] }] }))),
        ),
        (
            "101 addresses",
            create(four(
                json!({ "endpoints": [{ "addresses": vec!["10.0.0.1"; 101] }] }),
            )),
        ),
        (
            "1001 endpoints",
            create(four(json!({ "endpoints": vec![endpoint.clone(); 1001] }))),
        ),
        (
            "1000 endpoints",
            create(four(json!({ "endpoints": vec![endpoint; 1000] }))),
        ),
        (
            "wrong JSON types",
            create(four(json!({ "endpoints": "x", "ports": [7] }))),
        ),
        (
            "ports",
            create(four(
                json!({ "ports": [{ "name": "A" }, { "name": "b", "protocol": "ICMP" }, { "name": "b", "appProtocol": "a b" }] }),
            )),
        ),
        (
            "endpoint fields",
            create(four(json!({ "endpoints": [{
                "addresses": ["10.0.0.1"],
                "nodeName": "Node",
                "hostname": "a.b",
                "hints": { "forZones": [{ "name": "a" }, { "name": "a" }], "forNodes": vec![json!({ "name": "n" }); 9] },
            }] }))),
        ),
        (
            "another address type",
            write(
                Op::Update,
                Some(&slice(json!({ "addressType": "IPv6" }))),
                slice(json!({ "addressType": "IPv4" })),
            ),
        ),
    ];
    insta::assert_snapshot!("refused_slices", report(cases));
}

#[test]
fn nodes_keep_both_spellings_of_the_pod_range() {
    let node = |spec: Value| object("v1", "Node", json!({ "spec": spec }));
    let single = create(node(json!({ "podCIDR": "10.244.1.0/24" }))).expect("valid");
    assert_eq!(single["spec"]["podCIDRs"], json!(["10.244.1.0/24"]));
    let ranges = ["10.244.1.0/24", "fd00:244:0:1::/64"];
    let dual = create(node(json!({ "podCIDRs": ranges }))).expect("valid");
    assert_eq!(dual["spec"]["podCIDR"], "10.244.1.0/24");
    let cases = vec![
        (
            "bits beyond the prefix",
            create(node(json!({ "podCIDR": "10.244.1.1/24" }))),
        ),
        (
            "one family twice",
            create(node(json!({ "podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"] }))),
        ),
        (
            "not the first",
            create(node(
                json!({ "podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.0.0/24"] }),
            )),
        ),
        (
            "wrong JSON type",
            create(node(json!({ "podCIDRs": "10.0.0.0/24" }))),
        ),
        (
            "changed",
            write(
                Op::Update,
                Some(&dual),
                node(json!({ "podCIDRs": ["10.0.0.0/24"] })),
            ),
        ),
        (
            "unchanged",
            write(Op::Update, Some(&dual), node(json!({ "podCIDRs": ranges }))),
        ),
        (
            "set late",
            write(
                Op::Update,
                Some(&node(json!({}))),
                node(json!({ "podCIDRs": ranges })),
            ),
        ),
        (
            "one address twice",
            create(object(
                "v1",
                "Node",
                json!({ "status": { "addresses": [
                { "type": "InternalIP", "address": "10.89.0.11" }, { "type": "InternalIP", "address": "10.89.0.11" },
            ] } }),
            )),
        ),
    ];
    insta::assert_snapshot!("refused_nodes", report(cases));
}

#[test]
fn pods_get_defaults() {
    let pod = create(object(
        "v1",
        "Pod",
        json!({
            "spec": {
                "hostNetwork": true,
                "containers": [
                    { "name": "a", "image": "registry:5000/web", "ports": [{ "containerPort": 80, "name": "http" }] },
                    { "name": "b", "image": "web:1.0" },
                ],
            },
            "status": { "podIPs": [{ "ip": "10.244.1.11" }, { "ip": "fd00:244:0:1::b" }] },
        }),
    ));
    insta::assert_json_snapshot!("pod", pod.expect("valid"));
    let single = create(object(
        "v1",
        "Pod",
        json!({ "status": { "podIP": "10.244.1.11" } }),
    ))
    .expect("valid");
    assert_eq!(single["status"]["podIPs"], json!([{ "ip": "10.244.1.11" }]));
    let status = |status: Value| create(object("v1", "Pod", json!({ "status": status })));
    let cases = vec![
        ("malformed", status(json!({ "podIPs": [{ "ip": "x" }] }))),
        (
            "one family twice",
            status(json!({ "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "10.0.0.2" }] })),
        ),
        (
            "ports",
            create(object(
                "v1",
                "Pod",
                json!({ "spec": { "containers": [
                { "ports": [{ "containerPort": 0, "name": "a--b", "protocol": "ICMP" }] },
            ] } }),
            )),
        ),
    ];
    insta::assert_snapshot!("refused_pods", report(cases));
}

#[test]
fn namespaces_are_active_and_carry_their_name() {
    let namespace = create(object("v1", "Namespace", json!({}))).expect("valid");
    assert_eq!(namespace["status"]["phase"], "Active");
    assert_eq!(
        namespace["metadata"]["labels"]["kubernetes.io/metadata.name"],
        "one"
    );
    let mut dotted = object("v1", "Namespace", json!({}));
    dotted["metadata"]["name"] = json!("a.b");
    assert!(create(dotted).is_err());
}

#[test]
fn service_cidrs_add_and_remove_ranges() {
    let mut allocators = allocators();
    while allocators.cluster_ip(Family::V4, None).is_ok() {}
    let mut cidr = object(
        "networking.k8s.io/v1",
        "ServiceCIDR",
        json!({ "spec": { "cidrs": ["10.97.0.0/24"] } }),
    );
    let mut ctx = AdmitContext {
        allocators: &mut allocators,
        now: jiff::Timestamp::UNIX_EPOCH,
    };
    admit(
        &mut ctx,
        Op::Create,
        "networking.k8s.io/v1",
        "ServiceCIDR",
        None,
        &mut cidr,
    )
    .expect("valid");
    assert_eq!(cidr["status"]["conditions"][0]["status"], "True");
    assert!(ctx.allocators.cluster_ip(Family::V4, None).is_ok());
    released(&mut ctx, &cidr);
    assert!(ctx.allocators.cluster_ip(Family::V4, None).is_err());

    let with = |cidrs: Value| {
        object(
            "networking.k8s.io/v1",
            "ServiceCIDR",
            json!({ "spec": { "cidrs": cidrs } }),
        )
    };
    let update = |cidrs: Value| write(Op::Update, Some(&cidr), with(cidrs));
    let cases = vec![
        ("none", create(with(json!([])))),
        (
            "three",
            create(with(json!(["10.0.0.0/8", "fd00::/64", "11.0.0.0/8"]))),
        ),
        (
            "one family twice",
            create(with(json!(["10.0.0.0/8", "11.0.0.0/8"]))),
        ),
        (
            "malformed",
            create(with(json!(["10.0.0.1/8", "FD00::/64"]))),
        ),
        ("changed", update(json!(["10.98.0.0/24"]))),
        (
            "second family added",
            update(json!(["10.97.0.0/24", "fd00:97::/112"])),
        ),
    ];
    insta::assert_snapshot!("refused_service_cidrs", report(cases));
}

#[test]
fn endpoints_get_protocols_and_no_other_fields() {
    let subset = json!({ "addresses": [{ "ip": "10.0.0.1" }], "ports": [{ "port": 80 }] });
    let stored = create(object(
        "v1",
        "Endpoints",
        json!({ "subsets": [subset, {}] }),
    ));
    let subsets = &stored.expect("valid")["subsets"];
    assert_eq!(
        subsets[0]["ports"],
        json!([{ "port": 80, "protocol": "TCP" }])
    );
    assert_eq!(subsets[1], json!({}));
    let empty = object("v1", "Endpoints", json!({}));
    assert_eq!(create(empty.clone()).expect("valid"), empty);
}

#[test]
fn unknown_kinds_pass_with_valid_metadata() {
    let custom = object(
        "example.com/v1",
        "Widget",
        json!({ "spec": { "any": ["thing"] } }),
    );
    assert_eq!(create(custom.clone()).expect("valid"), custom);
    let mut nameless = custom;
    nameless["metadata"] = json!({});
    assert!(create(nameless).is_err());
}

#[test]
fn malformed_objects_never_panic() {
    let junk = [
        json!(null),
        json!(1),
        json!("x"),
        json!([]),
        json!([1]),
        json!([[]]),
        json!({}),
        json!({ "a": 1 }),
    ];
    let kinds = [
        ("v1", "Pod", &["containers", "podIPs", "podIP"][..]),
        ("v1", "Node", &["podCIDR", "podCIDRs", "addresses"]),
        ("v1", "Namespace", &["finalizers"]),
        ("v1", "Endpoints", &["subsets"]),
        ("v1", "Secret", &["type"]),
        (
            "discovery.k8s.io/v1",
            "EndpointSlice",
            &["endpoints", "ports", "addressType"],
        ),
        ("networking.k8s.io/v1", "ServiceCIDR", &["cidrs"]),
    ];
    for (api_version, kind, fields) in kinds {
        for value in &junk {
            for top in ["metadata", "spec", "status"] {
                let mut new = object(api_version, kind, json!({}));
                new[top] = value.clone();
                let _ = create(new);
            }
            for field in fields {
                let mut new = object(api_version, kind, json!({ "spec": {}, "status": {} }));
                new[field] = value.clone();
                new["spec"][field] = value.clone();
                new["status"][field] = value.clone();
                let _ = create(new.clone());
                let _ = write(Op::Update, Some(&new.clone()), new.clone());
                let _ = write(Op::UpdateStatus, Some(&new.clone()), new);
            }
        }
    }
}
