//! Reads the nftables ruleset of a namespace and prints it, without the `nft` command.
//!
//! The text is for people and for comparing: tables, sets, objects and chains are sorted by name, elements by value, anonymous sets stand
//! where they are used, handles are left out, and what changes by itself (counters, expirations) follows a `#` at the end of its line.

use std::collections::BTreeMap;

use anyhow::Context;

use super::ruleset_text::{self as words, Writer};
use super::{
    NFNL_SUBSYS_NFTABLES, Netlink, attribute, attributes, netfilter_kind, netfilter_payload,
    number_of, text, text_of,
};

const GETTABLE: u8 = 1;
const GETCHAIN: u8 = 4;
const GETRULE: u8 = 7;
const GETSET: u8 = 10;
const GETSETELEM: u8 = 13;
const GETOBJ: u8 = 19;
const GETFLOWTABLE: u8 = 23;

const NFT_SET_ANONYMOUS: u32 = 1;

/// A table's key: family and name.
type Key = (u8, String);

#[derive(Default)]
struct Table {
    flags: u32,
    /// Name -> attributes of the set and of its elements.
    sets: BTreeMap<String, (Vec<u8>, Vec<Vec<u8>>)>,
    objects: BTreeMap<String, Vec<u8>>,
    flowtables: BTreeMap<String, Vec<u8>>,
    /// Name -> attributes of the chain and of its rules, in order.
    chains: BTreeMap<String, (Vec<u8>, Vec<Vec<u8>>)>,
}

/// The whole ruleset as text; empty when there is none.
pub(crate) fn dump() -> anyhow::Result<String> {
    let (tables, consistent) = read()?;
    let mut out = String::new();
    if !consistent {
        out.push_str("# The ruleset changed while it was read: parts may be missing.\n");
    }
    for ((family, name), table) in &tables {
        print(&mut out, *family, name, table);
    }
    Ok(out)
}

fn read() -> anyhow::Result<(BTreeMap<Key, Table>, bool)> {
    let mut netlink = Netlink::open(netlink_sys::protocols::NETLINK_NETFILTER)?;
    let mut consistent = true;
    let mut fetch = |kind: u8,
                     family: u8,
                     request: &[netlink_packet_core::DefaultNla]|
     -> anyhow::Result<Vec<(u8, Vec<u8>)>> {
        let kind = netfilter_kind(NFNL_SUBSYS_NFTABLES, kind);
        let (all, interrupted) = netlink.dump_all(kind, &netfilter_payload(family, request))?;
        consistent &= !interrupted;
        Ok(all
            .into_iter()
            .filter(|(_, p)| p.len() >= 4)
            .map(|(_, p)| (p[0], p[4..].to_vec()))
            .collect())
    };
    let mut tables: BTreeMap<Key, Table> = BTreeMap::new();
    for (family, table) in fetch(GETTABLE, 0, &[]).context("nftables cannot be read")? {
        let name = text_of(&table, 1).unwrap_or_default();
        tables.entry((family, name)).or_default().flags = number_of(&table, 2).unwrap_or(0);
    }
    for (family, chain) in fetch(GETCHAIN, 0, &[])? {
        let name = text_of(&chain, 3).unwrap_or_default();
        if let Some(table) = tables.get_mut(&(family, text_of(&chain, 1).unwrap_or_default())) {
            table.chains.entry(name).or_default().0 = chain;
        }
    }
    for (family, rule) in fetch(GETRULE, 0, &[])? {
        let chain = text_of(&rule, 2).unwrap_or_default();
        if let Some(table) = tables.get_mut(&(family, text_of(&rule, 1).unwrap_or_default())) {
            table.chains.entry(chain).or_default().1.push(rule);
        }
    }
    for (family, set) in fetch(GETSET, 0, &[])? {
        let name = text_of(&set, 2).unwrap_or_default();
        if let Some(table) = tables.get_mut(&(family, text_of(&set, 1).unwrap_or_default())) {
            table.sets.entry(name).or_default().0 = set;
        }
    }
    let mut vanished = false;
    for ((family, table_name), table) in &mut tables {
        for (set_name, (_, elements)) in &mut table.sets {
            let request = [text(1, table_name), text(2, set_name)];
            match fetch(GETSETELEM, *family, &request) {
                Ok(messages) => {
                    for (_, message) in messages {
                        let list = attribute(&message, 3).unwrap_or_default();
                        elements.extend(attributes(list).map(|(_, element)| element.to_vec()));
                    }
                }
                // It went away meanwhile.
                Err(_) => vanished = true,
            }
        }
    }
    for (kind, flow) in [(GETOBJ, false), (GETFLOWTABLE, true)] {
        // Not every kernel has flow tables.
        for (family, object) in fetch(kind, 0, &[]).unwrap_or_default() {
            let name = text_of(&object, 2).unwrap_or_default();
            if let Some(table) = tables.get_mut(&(family, text_of(&object, 1).unwrap_or_default()))
            {
                let place = if flow {
                    &mut table.flowtables
                } else {
                    &mut table.objects
                };
                place.insert(name, object);
            }
        }
    }
    Ok((tables, consistent && !vanished))
}

fn print(out: &mut String, family: u8, name: &str, table: &Table) {
    out.push_str(&format!("table {} {name} {{\n", words::family(family)));
    for (bit, flag) in [(1, "dormant"), (2, "owner"), (4, "persist")] {
        if table.flags & bit != 0 {
            out.push_str(&format!("  flags {flag}\n"));
        }
    }
    for (name, object) in &table.objects {
        out.push_str(&format!("  {}\n", words::object(name, object)));
    }
    for (name, flowtable) in &table.flowtables {
        out.push_str(&format!("  flowtable {name} {}\n", words::hex(flowtable)));
    }
    let mut anonymous = BTreeMap::new();
    for (name, (set, elements)) in &table.sets {
        let kinds = words::SetKinds::of(set);
        let mut lines: Vec<String> = elements.iter().map(|e| words::element(e, &kinds)).collect();
        lines.sort();
        if number_of(set, 3).unwrap_or(0) & NFT_SET_ANONYMOUS != 0 {
            anonymous.insert(name.clone(), format!("{{ {} }}", lines.join(", ")));
            continue;
        }
        out.push_str(&format!("  {} {{\n", words::set_head(name, set, &kinds)));
        for line in lines {
            out.push_str(&format!("    {line}\n"));
        }
        out.push_str("  }\n");
    }
    for (name, (chain, rules)) in &table.chains {
        out.push_str(&format!(
            "  chain {name} {{{}\n",
            words::chain_head(chain, family)
        ));
        for rule in rules {
            let mut writer = Writer {
                anonymous: &anonymous,
                volatile: Vec::new(),
            };
            let text = writer.rule(attribute(rule, 4).unwrap_or_default());
            let volatile = if writer.volatile.is_empty() {
                String::new()
            } else {
                format!(" # {}", writer.volatile.join(" "))
            };
            out.push_str(&format!("    {text}{volatile}\n"));
        }
        out.push_str("  }\n");
    }
    out.push_str("}\n");
}
