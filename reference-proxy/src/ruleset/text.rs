//! The ruleset in the language of `nft`: for people, for snapshots, and for the fallback backend.
//!
//! Canonical: the same ruleset gives the same bytes, sorted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    hash::{Hash as _, Hasher as _},
};

use super::{
    element::{Data, Element, Family, Frontend, Key, SetId, SetKind},
    layout::{self, AFFINITY_SIZE, CHAINS, TABLE},
    rule::{Chain, Field, Rule, Statement},
};

/// A number that changes when the fixed part changes, so that a proxy recognises a table that another version made.
pub fn digest() -> String {
    // FNV-1a, because it must not change between builds.
    struct Fnv(u64);
    impl std::hash::Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    let mut text = String::new();
    write_fixed(&mut text);
    for chain in [
        Chain::Balance(Family::V4, super::View::Common, 1),
        Chain::StickyBalance(Family::V4, super::View::Common, 1),
    ] {
        write_chain(&mut text, chain, &layout::rules(chain));
    }
    for rule in layout::affinity_rules(Family::V4, 1) {
        text.push_str(&rule_text(&rule));
    }
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The whole ruleset with these elements.
pub fn render<'a>(elements: impl IntoIterator<Item = &'a Element>) -> String {
    let mut elements: Vec<&Element> = elements.into_iter().collect();
    elements.sort();
    let chains: BTreeSet<Chain> = elements
        .iter()
        .flat_map(|element| layout::chains_for(element))
        .collect();
    let sticky: BTreeSet<SetId> = elements
        .iter()
        .map(|element| element.set)
        .filter(|set| matches!(set.kind, SetKind::Sticky(_)))
        .collect();
    let mut out = layout_text(&chains, &sticky);
    let mut by_set: BTreeMap<(usize, SetId), Vec<&Element>> = BTreeMap::new();
    for element in elements {
        by_set
            .entry((element.set.kind.rank(), element.set))
            .or_default()
            .push(element);
    }
    for ((_, set), elements) in by_set {
        out.push_str(&element_block("add", set, elements.iter().copied()));
    }
    out
}

/// The table without elements, with these chains and affinity sets besides the fixed ones.
pub fn layout_text(chains: &BTreeSet<Chain>, sticky: &BTreeSet<SetId>) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "table inet {TABLE} {{");
    let _ = writeln!(out, "\tcomment \"layout {}\"", digest());
    write_fixed_sets(&mut out);
    for set in sticky {
        write_set(&mut out, *set);
    }
    // A plain choice precedes its sticky variant in the order of `Chain`.
    for chain in chains {
        write_chain(&mut out, *chain, &layout::rules(*chain));
    }
    for chain in CHAINS {
        if chain == Chain::Affinities {
            let rules: Vec<Rule> = sticky
                .iter()
                .flat_map(|set| match set.kind {
                    SetKind::Sticky(seconds) => layout::affinity_rules(set.family, seconds),
                    _ => Vec::new(),
                })
                .collect();
            write_chain(&mut out, chain, &rules);
        } else {
            write_chain(&mut out, chain, &layout::rules(chain));
        }
    }
    out.push_str("}\n");
    out
}

fn write_fixed(out: &mut String) {
    write_fixed_sets(out);
    for chain in CHAINS {
        write_chain(out, chain, &layout::rules(chain));
    }
}

fn write_fixed_sets(out: &mut String) {
    for set in layout::sets() {
        write_set(out, set);
    }
}

/// Adds or deletes elements of one set: `verb` is `add` or `delete`.
pub fn element_block<'a>(
    verb: &str,
    set: SetId,
    elements: impl IntoIterator<Item = &'a Element>,
) -> String {
    let mut out = format!("{verb} element inet {TABLE} {set} {{\n");
    for element in elements {
        let text = if verb == "delete" {
            key_text(&element.key)
        } else {
            element_text(element)
        };
        let _ = writeln!(out, "\t{text},");
    }
    out.push_str("}\n");
    out
}

fn frontend_text(frontend: &Frontend) -> String {
    format!(
        "{} . {} . {}",
        frontend.ip, frontend.protocol, frontend.port
    )
}

fn key_text(key: &Key) -> String {
    match key {
        Key::Frontend(frontend) => frontend_text(frontend),
        Key::Slot(slot, frontend) => format!("{slot} . {}", frontend_text(frontend)),
        Key::Ip(ip) => ip.to_string(),
        Key::Itself(ip) => format!("{ip} . {ip}"),
        Key::Net(net) => net.to_string(),
        Key::Source(frontend, net) => format!("{} . {net}", frontend_text(frontend)),
        Key::Client(ip, frontend) => format!("{ip} . {}", frontend_text(frontend)),
    }
}

/// One element as it stands between the braces.
pub fn element_text(element: &Element) -> String {
    let key = key_text(&element.key);
    match element.data {
        Data::None => key,
        Data::Endpoint(ip, port) => format!("{key} : {ip} . {port}"),
        Data::Verdict(verdict) => match Chain::of(element.set.family, verdict) {
            None => format!("{key} : drop"),
            Some(chain) => format!("{key} : goto {chain}"),
        },
    }
}

fn write_set(out: &mut String, set: SetId) {
    let (address, prefix) = match set.family {
        Family::V4 => ("ipv4_addr", "ip"),
        Family::V6 => ("ipv6_addr", "ip6"),
    };
    let frontend = format!("{address} . inet_proto . inet_service");
    let keyword = if set.is_map() { "map" } else { "set" };
    let body = match set.kind {
        SetKind::Endpoints | SetKind::ExternalEndpoints => format!(
            "typeof numgen random mod 65536 . {prefix} daddr . meta l4proto . th dport : {prefix} daddr . th dport"
        ),
        SetKind::Affinity => format!(
            "type {address} . {frontend} : {address} . inet_service; size {AFFINITY_SIZE}; flags dynamic,timeout"
        ),
        SetKind::External | SetKind::Services => format!("type {frontend} : verdict"),
        SetKind::Targets | SetKind::Masquerade | SetKind::Sticky(_) | SetKind::Restricted => {
            format!("type {frontend}")
        }
        SetKind::Hairpin => format!("type {address} . {address}"),
        SetKind::SourceRanges => format!("type {frontend} . {address}; flags interval"),
        SetKind::ClusterIps => format!("type {address}"),
        SetKind::ClusterSources | SetKind::Pods | SetKind::LocalSources => {
            format!("type {address}; flags interval")
        }
    };
    let _ = writeln!(out, "\t{keyword} {set} {{ {body}; }}");
}

fn write_chain(out: &mut String, chain: Chain, rules: &[Rule]) {
    let _ = writeln!(out, "\tchain {chain} {{");
    if let Some(hook) = chain.hook() {
        let _ = writeln!(
            out,
            "\t\ttype {} hook {} priority {}; policy accept;",
            hook.kind, hook.hook, hook.priority
        );
    }
    for rule in rules {
        let _ = writeln!(out, "\t\t{}", rule_text(rule));
    }
    out.push_str("\t}\n");
}

fn prefix(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn field_text(field: &Field) -> String {
    match field {
        Field::Source(f) => format!("{} saddr", prefix(*f)),
        Field::Destination(f) => format!("{} daddr", prefix(*f)),
        Field::Protocol => "meta l4proto".into(),
        Field::SourcePort => "th sport".into(),
        Field::DestinationPort => "th dport".into(),
        Field::OriginalSource(f) => format!("ct original {} saddr", prefix(*f)),
        Field::OriginalDestination(f) => format!("ct original {} daddr", prefix(*f)),
        Field::OriginalDestinationPort => "ct original proto-dst".into(),
        Field::Random(below) => format!("numgen random mod {below}"),
    }
}

fn fields_text(fields: &[Field]) -> String {
    fields
        .iter()
        .map(field_text)
        .collect::<Vec<_>>()
        .join(" . ")
}

/// One rule on one line.
pub fn rule_text(rule: &Rule) -> String {
    rule.0
        .iter()
        .map(|statement| match statement {
            Statement::IsFamily(Family::V4) => "meta nfproto ipv4".into(),
            Statement::IsFamily(Family::V6) => "meta nfproto ipv6".into(),
            Statement::IsProtocol(protocol) => format!("meta l4proto {protocol}"),
            Statement::IsNew => "ct state new ct status ! confirmed".into(),
            Statement::IsInvalid => "ct state invalid".into(),
            Statement::IsTranslated => "ct status dnat".into(),
            Statement::IsFromNode => "fib saddr type local".into(),
            Statement::In(fields, set) => format!("{} @{set}", fields_text(fields)),
            Statement::NotIn(fields, set) => format!("{} != @{set}", fields_text(fields)),
            Statement::Dispatch(fields, set) => format!("{} vmap @{set}", fields_text(fields)),
            Statement::Translate(fields, set) => format!(
                "dnat {} to {} map @{set}",
                prefix(set.family),
                fields_text(fields)
            ),
            Statement::Remember(fields, set, seconds) => format!(
                "update @{set} {{ {} timeout {seconds}s : {} daddr . th dport }}",
                fields_text(fields),
                prefix(set.family)
            ),
            Statement::Jump(chain) => format!("jump {chain}"),
            Statement::Goto(chain) => format!("goto {chain}"),
            Statement::Return => "return".into(),
            Statement::Drop => "drop".into(),
            Statement::Reset => "reject with tcp reset".into(),
            Statement::Unreachable => "reject with icmpx port-unreachable".into(),
            Statement::Masquerade => "masquerade fully-random".into(),
        })
        .collect::<Vec<String>>()
        .join(" ")
}
