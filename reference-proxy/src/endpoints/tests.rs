//! One table: endpoints, and the lists that they come to on a node in zone `a`.

use super::*;
use crate::{model::SlicePort, ruleset::Protocol};

const READY: State = State::Ready;
const TERMINATING: State = State::Terminating;
const UNREADY: State = State::Unusable { serving: true };
const GONE: State = State::Unusable { serving: false };

fn ip(last: u8) -> IpAddr {
    [10, 244, 1, last].into()
}

/// The last byte of the address, the state, whether it is local, for which node and zones it is meant.
type Row = (u8, State, bool, Option<bool>, &'static [&'static str]);

fn slice(name: &str, protocol: Protocol, rows: &[Row]) -> Slice {
    Slice {
        service: "default/web".into(),
        ports: vec![SlicePort {
            name: name.into(),
            protocol,
            port: 8080,
        }],
        endpoints: rows
            .iter()
            .map(|(last, state, local, for_this_node, zones)| Endpoint {
                ip: ip(*last),
                state: *state,
                local: *local,
                for_this_node: *for_this_node,
                zones: zones.iter().map(|zone| (*zone).into()).collect(),
            })
            .collect(),
    }
}

fn sets(slices: &[Slice]) -> EndpointSets {
    let port = ServicePort {
        name: "web".into(),
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
    };
    endpoint_sets(slices.iter(), &port, Family::V4, Some("a"))
}

fn last(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    }
}

#[test]
fn conditions_and_places_decide() {
    type Lists = (
        &'static [u8],
        &'static [u8],
        usize,
        &'static [u8],
        &'static [u8],
    );
    let tables: [(&[Row], Lists); 4] = [
        (
            &[
                (1, READY, true, None, &[]),
                (2, READY, false, None, &[]),
                (3, TERMINATING, true, None, &[]),
                (4, UNREADY, false, None, &[]),
                (5, GONE, false, None, &[]),
            ],
            (&[1, 2], &[1], 1, &[1, 2, 3, 4], &[1, 3]),
        ),
        // Nobody is ready.
        (
            &[
                (3, TERMINATING, true, None, &[]),
                (4, UNREADY, true, None, &[]),
                (6, TERMINATING, false, None, &[]),
            ],
            (&[3, 6], &[3], 0, &[3, 4, 6], &[3, 4]),
        ),
        // Nobody here is ready.
        (
            &[
                (2, READY, false, None, &[]),
                (3, TERMINATING, true, None, &[]),
                (6, TERMINATING, false, None, &[]),
            ],
            (&[2], &[3], 0, &[2, 3, 6], &[3]),
        ),
        // Copies: the most usable one counts, local before remote.
        (
            &[
                (1, TERMINATING, false, None, &[]),
                (1, READY, false, None, &[]),
                (1, READY, true, None, &[]),
                (2, GONE, true, None, &[]),
                (2, UNREADY, false, None, &[]),
            ],
            (&[1], &[1], 1, &[1, 2], &[1]),
        ),
    ];
    for (rows, (common, local, local_ready, serving, here)) in tables {
        let found = sets(&[slice("web", Protocol::Tcp, rows)]);
        let targets = |list: &[Target]| list.iter().map(|(ip, _)| last(*ip)).collect::<Vec<_>>();
        assert_eq!(targets(&found.common), common, "common of {rows:?}");
        assert_eq!(targets(&found.local), local, "local of {rows:?}");
        assert_eq!(
            found.local_ready, local_ready,
            "local and ready of {rows:?}"
        );
        let answering: Vec<u8> = found.serving.iter().map(|at| last(at.ip())).collect();
        assert_eq!(answering, serving, "serving of {rows:?}");
        let on_this_node: Vec<u8> = found.on_this_node.iter().map(|ip| last(*ip)).collect();
        assert_eq!(on_this_node, here, "on this node of {rows:?}");
    }
}

#[test]
fn hints_narrow_the_common_list_alone() {
    let tables: [(&[Row], &[u8]); 9] = [
        (
            &[
                (1, READY, false, None, &["a"]),
                (2, READY, true, None, &["b"]),
            ],
            &[1],
        ),
        // All or nothing.
        (
            &[(1, READY, false, None, &["a"]), (2, READY, true, None, &[])],
            &[1, 2],
        ),
        // None for us.
        (
            &[
                (1, READY, false, None, &["c"]),
                (2, READY, true, None, &["b"]),
            ],
            &[1, 2],
        ),
        // Those of endpoints that are not ready do not count.
        (
            &[
                (1, READY, false, None, &["a"]),
                (2, READY, true, None, &["b", "c"]),
                (3, TERMINATING, false, None, &[]),
            ],
            &[1],
        ),
        // Node before zone.
        (
            &[
                (1, READY, false, Some(true), &["b"]),
                (2, READY, true, Some(false), &["a"]),
            ],
            &[1],
        ),
        // Not all for nodes: then zones.
        (
            &[
                (1, READY, false, Some(true), &["b"]),
                (2, READY, true, None, &["a"]),
            ],
            &[2],
        ),
        (
            &[
                (1, READY, false, Some(true), &[]),
                (2, READY, true, None, &[]),
            ],
            &[1, 2],
        ),
        // None for this node.
        (
            &[
                (1, READY, false, Some(false), &[]),
                (2, READY, true, Some(false), &[]),
            ],
            &[1, 2],
        ),
        (
            &[
                (1, READY, false, Some(false), &["a"]),
                (2, READY, true, Some(false), &["b"]),
            ],
            &[1],
        ),
    ];
    for (rows, common) in tables {
        let found = sets(&[slice("web", Protocol::Tcp, rows)]);
        let targets = |list: &[Target]| list.iter().map(|(ip, _)| last(*ip)).collect::<Vec<_>>();
        assert_eq!(targets(&found.common), common, "common of {rows:?}");
        assert_eq!(targets(&found.local), [2], "local of {rows:?}");
    }
}

#[test]
fn ports_pair_by_name_and_protocol_in_one_family() {
    let one = |last| [(last, READY, false, None, [].as_slice())];
    let mut six = slice("web", Protocol::Tcp, &one(4));
    six.endpoints[0].ip = "fd00::4".parse().expect("an address");
    let found = sets(&[
        slice("web", Protocol::Tcp, &one(1)),
        slice("web", Protocol::Udp, &one(2)),
        slice("other", Protocol::Tcp, &one(3)),
        six,
    ]);
    assert_eq!(found.common, [(ip(1), 8080)]);
}
