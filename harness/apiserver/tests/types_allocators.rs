//! The ClusterIP and NodePort allocators against a plain set.

use std::collections::HashSet;
use std::net::IpAddr;

use apiserver::types::{AllocationError, Family, ServiceAllocators};
use proptest::prelude::*;

fn small() -> ServiceAllocators {
    let cidrs = ["10.96.0.0/27", "fd00:96::/123"].map(|cidr| cidr.parse().expect("a CIDR"));
    ServiceAllocators::new(&cidrs, 30000..=30040)
}

#[test]
fn every_address_of_a_range_is_given_out_once() {
    let mut allocators = small();
    let mut seen = HashSet::new();
    while let Ok(address) = allocators.cluster_ip(Family::V4, None) {
        assert!(seen.insert(address), "{address} twice");
    }
    // 32 addresses without the network's and the broadcast address.
    assert_eq!(seen.len(), 30);
    assert_eq!(
        allocators.cluster_ip(Family::V4, None),
        Err(AllocationError::Full)
    );
    let six = std::iter::from_fn(|| allocators.cluster_ip(Family::V6, None).ok()).count();
    assert_eq!(six, 31);
    allocators.release_cluster_ip("10.96.0.7".parse().expect("an IP"));
    let again = allocators
        .cluster_ip(Family::V4, None)
        .expect("one is free");
    assert_eq!(again.to_string(), "10.96.0.7");
}

#[test]
fn low_addresses_and_ports_are_left_to_those_who_ask_for_them() {
    let cidrs = ["10.96.0.0/16", "fd00:96::/112"].map(|cidr| cidr.parse().expect("a CIDR"));
    let mut allocators = ServiceAllocators::new(&cidrs, 30000..=32767);
    for _ in 0..1000 {
        let address = allocators.cluster_ip(Family::V4, None).expect("free");
        assert!(
            address > "10.96.1.0".parse::<IpAddr>().expect("an IP"),
            "{address}"
        );
        let port = allocators.node_port(None).expect("free");
        assert!(port >= 30086, "{port}");
    }
    assert!(
        allocators
            .cluster_ip(Family::V4, "10.96.0.1".parse().ok())
            .is_ok()
    );
    assert!(allocators.node_port(Some(30000)).is_ok());
}

#[test]
fn released_addresses_rest_before_they_are_used_again() {
    let mut allocators = small();
    let first = allocators.cluster_ip(Family::V4, None).expect("free");
    allocators.release_cluster_ip(first);
    assert_ne!(allocators.cluster_ip(Family::V4, None), Ok(first));
}

#[test]
fn what_is_outside_of_the_range_is_refused() {
    let mut allocators = small();
    for outside in [
        "10.96.0.0",
        "10.96.0.31",
        "10.96.0.32",
        "10.95.255.255",
        "0.0.0.0",
        "255.255.255.255",
        "fd00:96::",
    ] {
        let address: IpAddr = outside.parse().expect("an IP");
        let result = allocators.cluster_ip(Family::of(address), Some(address));
        assert!(
            matches!(result, Err(AllocationError::OutOfRange(_))),
            "{outside}: {result:?}"
        );
    }
    for outside in [0, 29999, 30041, 65535] {
        assert!(matches!(
            allocators.node_port(Some(outside)),
            Err(AllocationError::OutOfRange(_))
        ));
    }
    let mut four =
        ServiceAllocators::new(&["10.96.0.0/27".parse().expect("a CIDR")], 30000..=30040);
    assert_eq!(
        four.cluster_ip(Family::V6, None),
        Err(AllocationError::NoRange("IPv6"))
    );
}

#[test]
fn tiny_and_huge_ranges() {
    for (cidr, size) in [
        ("10.0.0.0/30", 2),
        ("10.0.0.0/31", 0),
        ("10.0.0.0/32", 0),
        ("fd00::/127", 1),
        ("fd00::/128", 0),
    ] {
        let cidr: ipnet::IpNet = cidr.parse().expect("a CIDR");
        let mut allocators = ServiceAllocators::new(&[cidr], 30000..=30000);
        let family = Family::of(cidr.addr());
        assert_eq!(
            std::iter::from_fn(|| allocators.cluster_ip(family, None).ok()).count(),
            size,
            "{cidr}"
        );
        assert_eq!(allocators.node_port(None), Ok(30000));
        assert_eq!(allocators.node_port(None), Err(AllocationError::Full));
    }
    for cidr in ["fd00::/8", "::/0", "0.0.0.0/0"] {
        let cidr: ipnet::IpNet = cidr.parse().expect("a CIDR");
        let mut allocators = ServiceAllocators::new(&[cidr], 1..=65535);
        assert!(
            allocators.cluster_ip(Family::of(cidr.addr()), None).is_ok(),
            "{cidr}"
        );
        assert!(allocators.node_port(None).is_ok());
    }
}

#[test]
fn ranges_come_and_go() {
    let mut allocators =
        ServiceAllocators::new(&["10.96.0.0/30".parse().expect("a CIDR")], 30000..=30040);
    while allocators.cluster_ip(Family::V4, None).is_ok() {}
    let more = "10.97.0.0/30".parse().expect("a CIDR");
    allocators.add_cidr(more);
    allocators.add_cidr(more);
    let address = allocators
        .cluster_ip(Family::V4, None)
        .expect("the new range");
    assert!(address.to_string().starts_with("10.97.0."));
    allocators.remove_cidr(more);
    assert!(allocators.cluster_ip(Family::V4, None).is_err());
    assert!(
        allocators.holds_cluster_ip(address),
        "a Service keeps its address"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Address(Option<u8>),
    Port(Option<u8>),
    ReleaseAddress(u8),
    ReleasePort(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        proptest::option::of(0u8..40).prop_map(Step::Address),
        proptest::option::of(0u8..50).prop_map(Step::Port),
        (0u8..40).prop_map(Step::ReleaseAddress),
        (0u8..50).prop_map(Step::ReleasePort),
    ]
}

proptest! {
    #[test]
    fn nothing_is_given_out_twice(steps in proptest::collection::vec(step(), 0..200)) {
        let mut allocators = small();
        let mut addresses: HashSet<IpAddr> = HashSet::new();
        let mut ports: HashSet<u16> = HashSet::new();
        let address_of = |n: u8| IpAddr::from([10, 96, 0, n]);
        let port_of = |n: u8| 30000 + u16::from(n);
        for step in steps {
            match step {
                Step::Address(wanted) => {
                    let wanted = wanted.map(address_of);
                    match allocators.cluster_ip(Family::V4, wanted) {
                        Ok(given) => {
                            prop_assert!(wanted.is_none_or(|wanted| wanted == given));
                            prop_assert!(addresses.insert(given), "{given} twice");
                        }
                        Err(AllocationError::Taken(_)) => prop_assert!(addresses.contains(&wanted.unwrap())),
                        Err(AllocationError::Full) => prop_assert_eq!(addresses.len(), 30),
                        Err(AllocationError::OutOfRange(_)) => {
                            let outside = [address_of(0), address_of(31)];
                            let wanted = wanted.unwrap();
                            prop_assert!(outside.contains(&wanted) || wanted >= address_of(32));
                        }
                        Err(error) => prop_assert!(false, "{error}"),
                    }
                }
                Step::Port(wanted) => {
                    let wanted = wanted.map(port_of);
                    match allocators.node_port(wanted) {
                        Ok(given) => {
                            prop_assert!(wanted.is_none_or(|wanted| wanted == given));
                            prop_assert!(ports.insert(given), "{given} twice");
                        }
                        Err(AllocationError::Taken(_)) => prop_assert!(ports.contains(&wanted.unwrap())),
                        Err(AllocationError::Full) => prop_assert_eq!(ports.len(), 41),
                        Err(AllocationError::OutOfRange(_)) => prop_assert!(wanted.unwrap() > 30040),
                        Err(error) => prop_assert!(false, "{error}"),
                    }
                }
                Step::ReleaseAddress(n) => {
                    allocators.release_cluster_ip(address_of(n));
                    addresses.remove(&address_of(n));
                }
                Step::ReleasePort(n) => {
                    allocators.release_node_port(port_of(n));
                    ports.remove(&port_of(n));
                }
            }
            for address in &addresses {
                prop_assert!(allocators.holds_cluster_ip(*address));
            }
        }
    }
}
