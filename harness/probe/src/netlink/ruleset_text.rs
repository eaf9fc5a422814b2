//! Words for nftables: the numbers of the kernel's interface as text.
//!
//! Expressions are printed as the kernel knows them, one after the other with `|` between: a register machine, with the
//! constants decoded. What is not known is printed with its attribute number and bytes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{attribute, attributes, number_of, string, text_of};

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("0x{digits}")
}

/// Name of a table's family.
pub(super) fn family(family: u8) -> String {
    match family {
        1 => "inet".into(),
        2 => "ip".into(),
        3 => "arp".into(),
        5 => "netdev".into(),
        7 => "bridge".into(),
        10 => "ip6".into(),
        other => format!("family-{other}"),
    }
}

/// Hook, priority and policy of a base chain; nothing for others.
pub(super) fn chain_head(chain: &[u8], family: u8) -> String {
    let Some(hook) = attribute(chain, 4) else {
        return String::new();
    };
    let kind = text_of(chain, 7).unwrap_or_default();
    let number = number_of(hook, 1).unwrap_or(u32::MAX);
    let names: &[&str] = match family {
        5 => &["ingress", "egress"],
        3 => &["input", "output"],
        _ => &[
            "prerouting",
            "input",
            "forward",
            "output",
            "postrouting",
            "ingress",
        ],
    };
    let hook_name = names.get(number as usize).copied().unwrap_or("unknown");
    let priority = number_of(hook, 2).unwrap_or(0) as i32;
    let device = text_of(hook, 3).map_or(String::new(), |d| format!(" device {d}"));
    let policy = match number_of(chain, 5) {
        Some(0) => " policy drop",
        Some(1) => " policy accept",
        _ => "",
    };
    format!(" type {kind} hook {hook_name}{device} priority {priority}{policy}")
}

/// Kinds of a set's keys and data, as far as they are known.
pub(super) struct SetKinds {
    key: Vec<u32>,
    data: Vec<u32>,
    map: bool,
    objects: bool,
    interval: bool,
}

impl SetKinds {
    /// From the attributes of a set.
    pub fn of(set: &[u8]) -> SetKinds {
        let flags = number_of(set, 3).unwrap_or(0);
        SetKinds {
            key: components(number_of(set, 4).unwrap_or(0)),
            data: components(number_of(set, 6).unwrap_or(0)),
            map: flags & 8 != 0,
            objects: flags & 0x40 != 0,
            interval: flags & 4 != 0,
        }
    }
}

/// nft packs the types of a concatenation into one number, six bits each.
fn components(mut number: u32) -> Vec<u32> {
    let mut out = Vec::new();
    if number == 0xffff_ff00 {
        // A verdict map's data.
        return out;
    }
    while number != 0 {
        out.push(number & 0x3f);
        number >>= 6;
    }
    out.reverse();
    out
}

/// Name and length of a datatype of nft.
fn datatype(number: u32) -> Option<(&'static str, Option<usize>)> {
    Some(match number {
        2 => ("nf_proto", Some(1)),
        4 => ("integer", None),
        5 => ("string", None),
        7 => ("ipv4_addr", Some(4)),
        8 => ("ipv6_addr", Some(16)),
        9 => ("ether_addr", Some(6)),
        12 => ("inet_proto", Some(1)),
        13 => ("inet_service", Some(2)),
        19 => ("mark", Some(4)),
        20 => ("iface_index", Some(4)),
        26 => ("ct_state", Some(4)),
        38 => ("fib_addrtype", Some(4)),
        41 => ("ifname", Some(16)),
        _ => return None,
    })
}

fn type_text(kinds: &[u32]) -> String {
    let names: Vec<String> = kinds
        .iter()
        .map(|k| datatype(*k).map_or_else(|| format!("type-{k}"), |(name, _)| name.into()))
        .collect();
    if names.is_empty() {
        "unknown".into()
    } else {
        names.join(" . ")
    }
}

/// `set name type ... flags ...`.
pub(super) fn set_head(name: &str, set: &[u8], kinds: &SetKinds) -> String {
    let flags = number_of(set, 3).unwrap_or(0);
    let mut out = format!(
        "{} {name} type {}",
        if kinds.map || kinds.objects {
            "map"
        } else {
            "set"
        },
        type_text(&kinds.key)
    );
    if kinds.map {
        let data = if kinds.data.is_empty() {
            "verdict".into()
        } else {
            type_text(&kinds.data)
        };
        out.push_str(&format!(" : {data}"));
    }
    if kinds.objects {
        out.push_str(&format!(
            " : {}",
            object_kind(number_of(set, 15).unwrap_or(0))
        ));
    }
    let names: Vec<&str> = [
        (2, "constant"),
        (4, "interval"),
        (0x10, "timeout"),
        (0x20, "dynamic"),
    ]
    .iter()
    .filter(|(bit, _)| flags & bit != 0)
    .map(|(_, n)| *n)
    .collect();
    if !names.is_empty() {
        out.push_str(&format!(" flags {}", names.join(",")));
    }
    if let Some(milliseconds) = attribute(set, 11).and_then(long) {
        out.push_str(&format!(" timeout {milliseconds}ms"));
    }
    if let Some(size) = attribute(set, 9).and_then(|d| number_of(d, 1)) {
        out.push_str(&format!(" size {size}"));
    }
    out
}

/// An element: key, end of its range, data.
pub(super) fn element(element: &[u8], kinds: &SetKinds) -> String {
    let flags = number_of(element, 3).unwrap_or(0);
    let mut out = if flags & 2 != 0 {
        "*".to_owned()
    } else {
        attribute(element, 1).map_or_else(|| "?".into(), |key| data(key, &kinds.key))
    };
    if let Some(end) = attribute(element, 10) {
        let end = data(end, &kinds.key);
        if end != out {
            out = format!("{out} - {end}");
        }
    } else if kinds.interval && flags & 1 != 0 {
        out.push_str(" (end of interval)");
    }
    if let Some(value) = attribute(element, 2) {
        out.push_str(&format!(" : {}", data(value, &kinds.data)));
    }
    if let Some(object) = text_of(element, 9) {
        out.push_str(&format!(" : {object}"));
    }
    if let Some(milliseconds) = attribute(element, 4).and_then(long) {
        out.push_str(&format!(" timeout {milliseconds}ms"));
    }
    if let Some(milliseconds) = attribute(element, 5).and_then(long) {
        out.push_str(&format!(" # expires in {milliseconds}ms"));
    }
    out
}

/// A value or verdict in a data attribute.
fn data(nest: &[u8], kinds: &[u32]) -> String {
    if let Some(value) = attribute(nest, 1) {
        return values(value, kinds);
    }
    attribute(nest, 2).map_or_else(|| hex(nest), verdict)
}

fn values(mut bytes: &[u8], kinds: &[u32]) -> String {
    let whole = bytes;
    let mut parts = Vec::new();
    let single = kinds.len() == 1;
    for kind in kinds {
        let Some((_, length)) = datatype(*kind) else {
            return hex(whole);
        };
        // An integer of unknown length fills the key when alone, a register otherwise.
        let length = length.unwrap_or(if single { bytes.len() } else { 4 });
        let Some(part) = bytes.get(..length) else {
            return hex(whole);
        };
        parts.push(value(part, *kind));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    if parts.is_empty() {
        hex(whole)
    } else {
        parts.join(" . ")
    }
}

fn value(bytes: &[u8], kind: u32) -> String {
    match (kind, bytes) {
        (7, &[a, b, c, d]) => Ipv4Addr::new(a, b, c, d).to_string(),
        (8, _) => <[u8; 16]>::try_from(bytes)
            .map_or_else(|_| hex(bytes), |o| Ipv6Addr::from(o).to_string()),
        (12, &[6]) => "tcp".into(),
        (12, &[17]) => "udp".into(),
        (12, &[132]) => "sctp".into(),
        (2 | 12, &[n]) => n.to_string(),
        (13, &[a, b]) => u16::from_be_bytes([a, b]).to_string(),
        (5 | 41, _) => string(bytes),
        // Registers of marks, states and indexes are in the machine's byte order.
        (19 | 20 | 26 | 38, _) => <[u8; 4]>::try_from(bytes)
            .map_or_else(|_| hex(bytes), |o| format!("{:#x}", u32::from_ne_bytes(o))),
        _ => hex(bytes),
    }
}

fn verdict(nest: &[u8]) -> String {
    let chain = text_of(nest, 2).unwrap_or_default();
    match number_of(nest, 1).unwrap_or(0) as i32 {
        0 => "drop".into(),
        1 => "accept".into(),
        3 => "queue".into(),
        -1 => "continue".into(),
        -2 => "break".into(),
        -3 => format!("jump {chain}"),
        -4 => format!("goto {chain}"),
        -5 => "return".into(),
        other => format!("verdict {other}"),
    }
}

fn object_kind(kind: u32) -> &'static str {
    let names = [
        "unspec",
        "counter",
        "quota",
        "ct helper",
        "limit",
        "ct count",
        "tunnel",
        "ct timeout",
        "secmark",
        "ct expectation",
        "synproxy",
    ];
    names.get(kind as usize).copied().unwrap_or("object")
}

/// A named object. The state of counters and quotas follows a `#`.
pub(super) fn object(name: &str, object: &[u8]) -> String {
    let kind = number_of(object, 3).unwrap_or(0);
    let state = attribute(object, 4).unwrap_or_default();
    let detail = match kind {
        1 => format!(" # {}", counter(state)),
        _ => format!(" {}", hex(state)),
    };
    format!("{} {name}{detail}", object_kind(kind))
}

fn counter(state: &[u8]) -> String {
    let field = |kind| attribute(state, kind).and_then(long).unwrap_or(0);
    format!("packets {} bytes {}", field(2), field(1))
}

fn long(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// How an attribute of an expression is printed.
#[derive(Clone, Copy)]
enum Form {
    /// A register.
    Reg,
    /// A number.
    Number,
    /// A 64-bit number.
    Long,
    /// One of these words by number.
    Word(&'static [&'static str]),
    /// A string.
    Text,
    /// A nested value or verdict.
    Data,
    /// The name of a set.
    Set,
}

use Form::{Data, Long, Number, Reg, Set, Text, Word};

const COMPARISONS: &[&str] = &["==", "!=", "<", "<=", ">", ">="];

/// Attributes of the known expressions (linux/netfilter/nf_tables.h): number, label, form.
fn known(name: &str) -> &'static [(u16, &'static str, Form)] {
    match name {
        "immediate" => &[(1, "dreg", Reg), (2, "", Data)],
        "bitwise" => &[
            (1, "sreg", Reg),
            (2, "dreg", Reg),
            (3, "len", Number),
            (4, "mask", Data),
            (5, "xor", Data),
            (
                6,
                "op",
                Word(&["mask-xor", "lshift", "rshift", "and", "or", "xor"]),
            ),
            (7, "data", Data),
        ],
        "byteorder" => &[
            (1, "sreg", Reg),
            (2, "dreg", Reg),
            (3, "op", Word(&["ntoh", "hton"])),
            (4, "len", Number),
            (5, "size", Number),
        ],
        "cmp" => &[(1, "sreg", Reg), (2, "", Word(COMPARISONS)), (3, "", Data)],
        "range" => &[
            (1, "sreg", Reg),
            (2, "", Word(COMPARISONS)),
            (3, "from", Data),
            (4, "to", Data),
        ],
        "lookup" => &[
            (1, "set", Set),
            (2, "sreg", Reg),
            (3, "dreg", Reg),
            (5, "flags", Word(&["none", "not-in"])),
        ],
        "dynset" => &[
            (1, "set", Set),
            (3, "op", Word(&["add", "update", "delete"])),
            (4, "key", Reg),
            (5, "data", Reg),
            (6, "timeout-ms", Long),
            (9, "flags", Number),
        ],
        "payload" => &[
            (1, "dreg", Reg),
            (
                2,
                "base",
                Word(&["link", "network", "transport", "inner", "tunnel"]),
            ),
            (3, "offset", Number),
            (4, "len", Number),
            (5, "sreg", Reg),
            (6, "csum-type", Number),
            (7, "csum-offset", Number),
            (8, "csum-flags", Number),
        ],
        "meta" => &[
            (
                2,
                "key",
                Word(&[
                    "length",
                    "protocol",
                    "priority",
                    "mark",
                    "iif",
                    "oif",
                    "iifname",
                    "oifname",
                    "iiftype",
                    "oiftype",
                    "skuid",
                    "skgid",
                    "nftrace",
                    "rtclassid",
                    "secmark",
                    "nfproto",
                    "l4proto",
                    "bri-iifname",
                    "bri-oifname",
                    "pkttype",
                    "cpu",
                    "iifgroup",
                    "oifgroup",
                    "cgroup",
                    "random",
                    "secpath",
                    "iifkind",
                    "oifkind",
                ]),
            ),
            (1, "dreg", Reg),
            (3, "sreg", Reg),
        ],
        "ct" => &[
            (
                2,
                "key",
                Word(&[
                    "state",
                    "direction",
                    "status",
                    "mark",
                    "secmark",
                    "expiration",
                    "helper",
                    "l3protocol",
                    "src",
                    "dst",
                    "protocol",
                    "proto-src",
                    "proto-dst",
                    "labels",
                    "packets",
                    "bytes",
                    "avgpkt",
                    "zone",
                    "event",
                    "src-ip",
                    "dst-ip",
                    "src-ip6",
                    "dst-ip6",
                    "id",
                ]),
            ),
            (3, "direction", Word(&["original", "reply"])),
            (1, "dreg", Reg),
            (4, "sreg", Reg),
        ],
        "fib" => &[
            (2, "result", Word(&["unspec", "oif", "oifname", "type"])),
            (3, "flags", Number),
            (1, "dreg", Reg),
        ],
        "numgen" => &[
            (3, "", Word(&["inc", "random"])),
            (2, "mod", Number),
            (4, "offset", Number),
            (1, "dreg", Reg),
        ],
        "hash" => &[
            (1, "sreg", Reg),
            (2, "dreg", Reg),
            (3, "len", Number),
            (4, "mod", Number),
            (5, "seed", Number),
            (6, "offset", Number),
            (7, "", Word(&["jhash", "symhash"])),
        ],
        "nat" => &[
            (1, "", Word(&["snat", "dnat"])),
            (2, "family", Number),
            (3, "addr", Reg),
            (4, "addr-max", Reg),
            (5, "port", Reg),
            (6, "port-max", Reg),
            (7, "flags", Number),
        ],
        "masq" => &[(1, "flags", Number), (2, "port", Reg), (3, "port-max", Reg)],
        "redir" => &[(1, "port", Reg), (2, "port-max", Reg), (3, "flags", Number)],
        "reject" => &[
            (1, "", Word(&["icmp", "tcp-rst", "icmpx"])),
            (2, "code", Form::Number),
        ],
        "log" => &[
            (1, "group", Number),
            (2, "prefix", Text),
            (3, "snaplen", Number),
            (5, "level", Number),
        ],
        "limit" => &[
            (1, "rate", Long),
            (2, "per-seconds", Long),
            (3, "burst", Number),
            (4, "", Word(&["packets", "bytes"])),
            (5, "flags", Number),
        ],
        "objref" => &[
            (1, "type", Number),
            (2, "name", Text),
            (3, "sreg", Reg),
            (4, "set", Set),
        ],
        "connlimit" => &[(1, "count", Number), (2, "flags", Number)],
        "quota" => &[(1, "bytes", Long), (2, "flags", Number)],
        "rt" => &[(2, "key", Number), (1, "dreg", Reg)],
        "socket" => &[(1, "key", Number), (2, "dreg", Reg), (3, "level", Number)],
        "exthdr" => &[
            (1, "dreg", Reg),
            (2, "type", Number),
            (3, "offset", Number),
            (4, "len", Number),
            (5, "flags", Number),
            (6, "op", Number),
            (7, "sreg", Reg),
        ],
        "match" | "target" => &[(1, "", Text), (2, "rev", Number)],
        "flow_offload" => &[(1, "table", Text)],
        _ => &[],
    }
}

/// Prints rules, and collects what changes by itself.
pub(super) struct Writer<'a> {
    /// Anonymous sets as text, to stand where they are used.
    pub anonymous: &'a BTreeMap<String, String>,
    pub volatile: Vec<String>,
}

impl Writer<'_> {
    /// A rule's expressions.
    pub fn rule(&mut self, expressions: &[u8]) -> String {
        let parts: Vec<String> = attributes(expressions)
            .map(|(_, e)| self.expression(e))
            .collect();
        parts.join(" | ")
    }

    fn expression(&mut self, expression: &[u8]) -> String {
        let name = text_of(expression, 1).unwrap_or_default();
        let body = attribute(expression, 2).unwrap_or_default();
        if name == "counter" {
            self.volatile.push(counter(body));
            return name;
        }
        let known = known(&name);
        let mut out = name.clone();
        for (kind, label, form) in known {
            if let Some(value) = attribute(body, *kind) {
                let text = self.value(value, *form);
                out.push(' ');
                if !label.is_empty() {
                    out.push_str(label);
                    out.push(' ');
                }
                out.push_str(&text);
            }
        }
        // What this table does not know is shown as it is; but for the fields that repeat what is printed, or are large and opaque.
        for (kind, value) in attributes(body) {
            let silent = match name.as_str() {
                "lookup" => kind == 4,
                "dynset" => kind == 2,
                "quota" => kind == 4,
                _ => false,
            };
            if !silent && !known.iter().any(|(k, _, _)| *k == kind) {
                match (name.as_str(), kind) {
                    ("dynset", 7) => out.push_str(&format!(" with ({})", self.expression(value))),
                    ("dynset", 10) => out.push_str(&format!(" with ({})", self.rule(value))),
                    _ => out.push_str(&format!(" attr{kind}={}", hex(value))),
                }
            }
        }
        out
    }

    fn value(&self, value: &[u8], form: Form) -> String {
        let number = value.try_into().ok().map(u32::from_be_bytes);
        match form {
            Reg => number.map_or_else(|| hex(value), register),
            Number => match (number, value) {
                (Some(n), _) => n.to_string(),
                (None, [n]) => n.to_string(),
                (None, &[a, b]) => u16::from_be_bytes([a, b]).to_string(),
                _ => hex(value),
            },
            Long => long(value).map_or_else(|| hex(value), |n| n.to_string()),
            Word(words) => {
                let number = number.or(match value {
                    [n] => Some(u32::from(*n)),
                    _ => None,
                });
                let word = number.and_then(|n| words.get(n as usize).copied());
                word.map_or_else(
                    || number.map_or_else(|| hex(value), |n| n.to_string()),
                    str::to_owned,
                )
            }
            Text => format!("{:?}", string(value)),
            Data => data(value, &[]),
            Set => {
                let name = string(value);
                self.anonymous
                    .get(&name)
                    .cloned()
                    .unwrap_or_else(|| format!("@{name}"))
            }
        }
    }
}

/// Registers of 16 bytes are 1 to 4; those of 4 bytes begin at 8. Both are shown by the first four-byte word they cover.
fn register(number: u32) -> String {
    match number {
        0 => "verdict".into(),
        1..=4 => format!("r{}", (number - 1) * 4),
        _ => format!("r{}", number.saturating_sub(8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_by_datatype() {
        assert_eq!(components(7 << 12 | 12 << 6 | 13), [7, 12, 13]);
        let key = [10, 96, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0];
        assert_eq!(values(&key, &[7, 12, 13]), "10.96.0.1 . tcp . 80");
        assert_eq!(values(&key[..5], &[7, 12, 13]), hex(&key[..5]));
        assert_eq!(values(&[1, 2], &[63]), "0x0102");
        assert_eq!(values(&[0, 0, 0, 9], &[4]), "0x00000009");
        assert_eq!(register(1), "r0");
        assert_eq!(register(2), register(12));
    }
}
