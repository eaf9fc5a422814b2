//! Names that are read back from the kernel, and what a change needs besides its elements.

use std::collections::{BTreeSet, HashSet};

use super::*;

fn frontend(last: u8) -> Frontend {
    Frontend {
        ip: [10, 96, 0, last].into(),
        protocol: Protocol::Tcp,
        port: 80,
    }
}

fn dispatch(kind: SetKind, last: u8, verdict: Verdict) -> Element {
    Element {
        set: SetId::new(kind, Family::V4),
        key: Key::Frontend(frontend(last)),
        data: Data::Verdict(verdict),
    }
}

fn balance(endpoints: u32, sticky: bool) -> Verdict {
    Verdict::Balance {
        view: View::Common,
        endpoints,
        sticky,
    }
}

/// A proxy that starts again learns from names what its predecessor made, and repairs what it does not know.
#[test]
fn names_are_read_back() {
    let on_demand = Family::ALL
        .into_iter()
        .flat_map(|family| [1, 60, 86_400].map(|s| SetId::new(SetKind::Sticky(s), family)));
    let all: Vec<SetId> = sets().chain(on_demand).collect();
    for set in &all {
        assert_eq!(SetId::parse(&set.to_string()), Some(*set), "{set}");
    }
    for other in [
        "",
        "services",
        "services5",
        "sticky4",
        "sticky4-",
        "sticky4-x",
        "sticky5-60",
        "cali40",
    ] {
        assert_eq!(SetId::parse(other), None, "{other}");
    }

    let mut all = CHAINS.to_vec();
    for family in Family::ALL {
        for view in [View::Common, View::External] {
            for endpoints in [1, 2, 1000] {
                all.push(Chain::Balance(family, view, endpoints));
                all.push(Chain::StickyBalance(family, view, endpoints));
            }
        }
    }
    for chain in &all {
        assert_eq!(Chain::parse(&chain.to_string()), Some(*chain), "{chain}");
    }
    for other in [
        "",
        "balance4",
        "balance4-",
        "balance4-x",
        "balance5-2",
        "external-sticky-balance4-2",
        "sticky-refuse",
        "KUBE-SERVICES",
    ] {
        assert_eq!(Chain::parse(other), None, "{other}");
    }
}

#[test]
fn protocols_have_numbers_and_names() {
    for (number, api, nft) in [(6, "TCP", "tcp"), (17, "UDP", "udp"), (132, "SCTP", "sctp")] {
        let protocol = Protocol::from_number(number).expect("a protocol");
        assert_eq!(Protocol::from_api(api), Some(protocol));
        assert_eq!(
            (protocol.number(), protocol.to_string().as_str()),
            (number, nft)
        );
    }
    for number in [0, 1, 58, 255] {
        assert_eq!(Protocol::from_number(number), None, "{number}");
    }
    for name in ["", "tcp", "ICMP"] {
        assert_eq!(Protocol::from_api(name), None, "{name}");
    }
}

/// What `SetId` and `SetKind` say of a set is what the kernel is told of it.
#[test]
fn sets_are_declared_as_they_are_filled() {
    let sticky = SetId::new(SetKind::Sticky(60), Family::V6);
    let text = layout_text(&BTreeSet::new(), &[sticky].into());
    let mut seen = HashSet::new();
    for line in text.lines() {
        let Some((head, body)) = line.trim().split_once(" { ") else {
            continue;
        };
        let (keyword, name) = match head.split_once(' ') {
            Some((keyword @ ("set" | "map"), name)) => (keyword, name),
            _ => continue,
        };
        let set = SetId::parse(name).expect("a set of the layout");
        assert_eq!(set.is_map(), keyword == "map", "{line}");
        assert_eq!(set.is_verdict_map(), body.contains(": verdict;"), "{line}");
        assert_eq!(set.kind.has_ranges(), body.contains("interval"), "{line}");
        seen.insert(set);
    }
    assert_eq!(seen, sets().chain([sticky]).collect());
}

/// A verdict leads nowhere until its chain is there, and a sticky frontend is not remembered without its set.
#[test]
fn what_comes_gets_its_chains_and_sets() {
    let sticky = |seconds, last| Element {
        set: SetId::new(SetKind::Sticky(seconds), Family::V4),
        key: Key::Frontend(frontend(last)),
        data: Data::None,
    };
    let changes = Changes {
        add: vec![
            dispatch(SetKind::Services, 1, balance(3, true)),
            dispatch(SetKind::External, 1, Verdict::Drop),
            sticky(60, 1),
        ],
        replace: vec![
            (
                dispatch(SetKind::Services, 2, balance(7, true)),
                Data::Verdict(balance(2, false)),
            ),
            (
                dispatch(SetKind::Services, 3, balance(8, false)),
                Data::Verdict(Verdict::Refuse),
            ),
        ],
        remove: vec![
            dispatch(SetKind::Services, 4, balance(9, false)),
            sticky(10, 4),
        ],
    };
    // In this order: each after those it refers to.
    let chains: Vec<Chain> = changes.chains().into_iter().collect();
    assert_eq!(
        chains,
        [
            Chain::Balance(Family::V4, View::Common, 2),
            Chain::Balance(Family::V4, View::Common, 3),
            Chain::StickyBalance(Family::V4, View::Common, 3),
        ]
    );
    let sets: Vec<SetId> = changes.sticky().into_iter().collect();
    assert_eq!(sets, [SetId::new(SetKind::Sticky(60), Family::V4)]);
}

#[test]
fn a_change_of_any_sort_is_one() {
    let element = dispatch(SetKind::Services, 1, Verdict::Refuse);
    assert!(Changes::default().is_empty());
    for changes in [
        Changes::all(vec![element]),
        Changes {
            replace: vec![(element, Data::Verdict(Verdict::Drop))],
            ..Changes::default()
        },
        Changes {
            remove: vec![element],
            ..Changes::default()
        },
    ] {
        assert!(!changes.is_empty(), "{changes:?}");
    }
}

#[test]
fn elements_are_deleted_by_key() {
    let element = dispatch(SetKind::Services, 1, Verdict::Drop);
    assert_eq!(
        element_block("add", element.set, [&element]),
        "add element inet reference-proxy services4 {\n\t10.96.0.1 . tcp . 80 : drop,\n}\n"
    );
    assert_eq!(
        element_block("delete", element.set, [&element]),
        "delete element inet reference-proxy services4 {\n\t10.96.0.1 . tcp . 80,\n}\n"
    );
}
