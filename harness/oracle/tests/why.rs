//! Pins the chains of rules that reports show.

mod support;

use oracle::expect;
use serde_json::{Value, json};
use support::*;

fn why(objects: &[Value], source: oracle::Source, to: oracle::Destination) -> String {
    why_in(&cluster(objects), source, to)
}

fn why_in(cluster: &oracle::Cluster, source: oracle::Source, to: oracle::Destination) -> String {
    let expectation = expect(cluster, &source, &to);
    let mut text = format!("{source} to {to}\n=> {expectation}\n");
    if let Some(characteristic) = &expectation.characteristic {
        text += &format!(
            "characteristic {}: {}\n",
            characteristic.id, characteristic.text
        );
    }
    text + &expectation.why.join("\n")
}

#[test]
fn cluster_ip_with_affinity_and_hairpin() {
    let sticky = json!({"spec": {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}});
    let objects = [
        service("ClusterIP", sticky),
        slice("s", vec![ep("a1", "ready"), ep("b1", "ready")]),
    ];
    insta::assert_snapshot!(why(&objects, pod("a1"), tcp(CLUSTER_IP, 80)));
}

#[test]
fn load_balancer_local_fallback() {
    let local = json!({"spec": {"externalTrafficPolicy": "Local", "loadBalancerSourceRanges": ["10.99.0.0/24"]}});
    let objects = [
        service("LoadBalancer", local),
        slice("s", vec![ep("a1", "serving"), ep("b1", "ready")]),
    ];
    let outside = why(&objects, outside("n1"), tcp(LB_IP, 80));
    let inside = why(&objects, pod("a2"), tcp(LB_IP, 80));
    insta::assert_snapshot!(format!("{outside}\n\n{inside}"));
}

#[test]
fn node_port_local_from_within() {
    let local = json!({"spec": {"externalTrafficPolicy": "Local"}});
    let objects = [
        service("NodePort", local),
        slice("s", vec![ep("b1", "ready")]),
    ];
    let outside = why(&objects, outside("n1"), tcp(N1, 30080));
    let inside = why(&objects, pod("a2"), tcp(N1, 30080));
    insta::assert_snapshot!(format!("{outside}\n\n{inside}"));
}

#[test]
fn external_ip_from_within_and_outside() {
    let claimed = json!({"spec": {"externalIPs": [EXTERNAL_IP]}});
    let objects = [
        service("ClusterIP", claimed),
        slice("s", vec![ep("b1", "ready")]),
    ];
    let rule = |source| why(&objects, source, tcp(EXTERNAL_IP, 80));
    let (outside, inside) = (rule(outside("n1")), rule(pod("a2")));
    assert!(outside.contains("SVC-EIP-1") && !outside.contains("SVC-EIP-2"));
    assert!(inside.contains("SVC-EIP-2") && !inside.contains("SVC-EIP-1"));
}

/// Several claims on one address: that they are several Services is said only when they are.
#[test]
fn claims_of_one_service_are_no_conflict_of_services() {
    let both = json!({"spec": {"externalIPs": [LB_IP]}});
    let one = [
        service("LoadBalancer", both.clone()),
        slice("s", vec![ep("b1", "ready")]),
    ];
    let same = why(&one, outside("n1"), tcp(LB_IP, 80));
    assert!(!same.contains("SVC-EIP-3"), "{same}");
    let mut other = service("ClusterIP", both);
    other["metadata"]["name"] = json!("other");
    other["spec"]["clusterIP"] = json!("10.96.0.11");
    other["spec"]["clusterIPs"] = json!(["10.96.0.11"]);
    let two = [one[0].clone(), one[1].clone(), other];
    let differ = why(&two, outside("n1"), tcp(LB_IP, 80));
    assert!(differ.contains("SVC-EIP-3"), "{differ}");
}

#[test]
fn zone_hints_over_ipv6() {
    let hinted = |pod: &str, zone: &str| {
        with(
            ep6(pod, "ready"),
            json!({"hints": {"forZones": [{"name": zone}]}}),
        )
    };
    let objects = [
        service("ClusterIP", json!({})),
        slice6("s", vec![hinted("a1", "a"), hinted("b1", "b")]),
    ];
    insta::assert_snapshot!(why(&objects, node("n1"), tcp("fd00:96::10", 80)));
}

#[test]
fn nothing_to_reach() {
    let udp_port = json!({"spec": {"ports": [{"name": "dns", "protocol": "UDP", "port": 53}]}});
    let objects = [
        service("ClusterIP", udp_port),
        slice("s", vec![ep("a1", "unready")]),
    ];
    let texts = [
        why(&objects, pod("a2"), udp(CLUSTER_IP, 53)),
        why(&objects, pod("a2"), tcp(CLUSTER_IP, 22)),
        why(&objects, pod("a2"), tcp("10.96.200.200", 80)),
        why(&objects, outside("n1"), tcp("127.0.0.1", 80)),
        why(&objects, outside("n1"), tcp(CLUSTER_IP, 53)),
    ];
    insta::assert_snapshot!(texts.join("\n\n"));
}

#[test]
fn left_alone() {
    let other =
        json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": "other"}}});
    let proxied =
        json!({"status": {"loadBalancer": {"ingress": [{"ip": LB_IP, "ipMode": "Proxy"}]}}});
    let mut with_listener = cluster(&[service("NodePort", json!({}))]);
    with_listener.listeners = vec![listener(Some("n1"), None, 30555, "sshd")];
    let texts = [
        why(&[service("NodePort", other)], outside("n1"), tcp(N1, 30080)),
        why(
            &[service("LoadBalancer", proxied)],
            pod("a2"),
            tcp(LB_IP, 80),
        ),
        why_in(&with_listener, outside("n1"), tcp(N1, 30555)),
        why(&[], pod("a2"), tcp("10.244.2.11", 8080)),
    ];
    insta::assert_snapshot!(texts.join("\n\n"));
}

#[test]
fn the_family_that_is_missing_is_named() {
    let ranges = json!({"spec": {"loadBalancerSourceRanges": ["10.99.0.0/24"]}});
    let objects = [
        service("LoadBalancer", ranges),
        slice6("s", vec![ep6("b1", "ready")]),
    ];
    let open = why(&objects, outside("n1"), tcp("2001:db8:113::1", 80));
    assert!(
        open.contains("loadBalancerSourceRanges has no ipv6 range"),
        "{open}"
    );
    let six = json!({"spec": {"clusterIP": "fd00:96::10", "clusterIPs": ["fd00:96::10"]}});
    let single = why(
        &[service("LoadBalancer", six)],
        outside("n1"),
        tcp(EXTERNAL_IP, 80),
    );
    assert!(
        single.contains("does not exist in the family ipv4"),
        "{single}"
    );
}
