//! What a ruleset still says about Services that are gone.
//!
//! Only what packets can meet counts: rules of base chains, of chains that they jump to, and elements of sets and maps that those
//! rules look up. Proxies clean up lazily, and an unused chain, empty or not, harms nobody (kube-proxy removes stale chains in a later
//! sync). Neither do elements that expire by themselves, such as session affinity.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What must no longer be mentioned.
#[derive(Debug, Default)]
pub struct Gone {
    addresses: BTreeSet<String>,
    ports: BTreeSet<String>,
    /// The same as bytes in hexadecimal digits, for what is printed undecoded.
    address_bytes: Vec<String>,
    port_bytes: BTreeSet<String>,
    /// As `xt_tcp` and `xt_udp` have a range of one port: twice, in the machine's byte order.
    port_ranges: Vec<String>,
}

impl Gone {
    /// Addresses of frontends and endpoints, and NodePorts.
    pub fn new(addresses: &BTreeSet<IpAddr>, ports: &BTreeSet<u16>) -> Self {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        Self {
            addresses: addresses.iter().map(ToString::to_string).collect(),
            ports: ports.iter().map(ToString::to_string).collect(),
            address_bytes: addresses
                .iter()
                .map(|ip| match ip {
                    IpAddr::V4(ip) => hex(&ip.octets()),
                    IpAddr::V6(ip) => hex(&ip.octets()),
                })
                .collect(),
            port_bytes: ports
                .iter()
                .map(|port| format!("0x{}", hex(&port.to_be_bytes())))
                .collect(),
            port_ranges: ports
                .iter()
                .map(|port| hex(&port.to_ne_bytes()).repeat(2))
                .collect(),
        }
    }

    fn mentioned(&self, line: &Line<'_>) -> bool {
        words(line.text).any(|word| {
            self.addresses.contains(word)
                || (line.element && self.ports.contains(word))
                || (!line.element && self.port_bytes.contains(word))
                || hex_digits(word).is_some_and(|digits| {
                    has_bytes(digits, &self.address_bytes)
                        || (line.text.contains("match \"") && has_bytes(digits, &self.port_ranges))
                })
        })
    }
}

fn hex_digits(word: &str) -> Option<&str> {
    word.rsplit_once("0x").map(|(_, digits)| digits)
}

/// Whether one of the needles begins at a whole byte.
fn has_bytes(digits: &str, needles: &[String]) -> bool {
    needles.iter().any(|needle| {
        digits
            .match_indices(needle.as_str())
            .any(|(at, _)| at % 2 == 0)
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let text = text.split_once(" # ").map_or(text, |(text, _)| text);
    text.split(|c: char| c.is_whitespace() || ",{}()\"".contains(c))
        .filter(|word| !word.is_empty())
}

struct Line<'a> {
    text: &'a str,
    element: bool,
}

/// A chain, set or map with its lines.
#[derive(Default)]
struct Part<'a> {
    head: &'a str,
    lines: Vec<&'a str>,
}

impl Part<'_> {
    fn is_chain(&self) -> bool {
        self.head.starts_with("chain ")
    }

    /// Base chains are where packets come in.
    fn is_base(&self) -> bool {
        self.is_chain() && self.head.contains(" hook ")
    }

    fn expires(&self) -> bool {
        let flags = self.head.split_once(" flags ").map_or("", |(_, rest)| rest);
        let flags = flags.split_whitespace().next().unwrap_or_default();
        flags
            .split(',')
            .any(|flag| matches!(flag, "timeout" | "dynamic"))
    }
}

/// The lines of a dumped ruleset that packets can meet and that mention what is gone. `None` when the dump is torn.
pub fn remains(ruleset: &str, gone: &Gone) -> Option<Vec<String>> {
    if ruleset.starts_with("# The ruleset changed") {
        return None;
    }
    let mut found = Vec::new();
    for (table, parts) in tables(ruleset) {
        for (name, part) in met(&parts) {
            let expires = part.expires();
            for text in &part.lines {
                let line = Line {
                    text,
                    element: !part.is_chain(),
                };
                if !expires && gone.mentioned(&line) {
                    found.push(format!("{table}: {}: {text}", name));
                }
            }
        }
    }
    Some(found)
}

/// The chains, sets and maps of a dumped ruleset that packets can meet and that hold something, each by the family and the name of its table and its
/// own name: `ip nat KUBE-SERVICES`. `None` when the dump is torn.
pub fn parts(ruleset: &str) -> Option<BTreeSet<String>> {
    if ruleset.starts_with("# The ruleset changed") {
        return None;
    }
    let tables = tables(ruleset);
    let all = tables.iter().flat_map(|(table, parts)| {
        let full = met(parts).filter(|(_, part)| !part.lines.is_empty());
        full.map(move |(name, _)| format!("{table} {name}"))
    });
    Some(all.collect())
}

/// What packets can meet of a table.
fn met<'a, 'b>(
    parts: &'b BTreeMap<&'a str, Part<'a>>,
) -> impl Iterator<Item = (&'a str, &'b Part<'a>)> + use<'a, 'b> {
    let mut met: BTreeSet<&'a str> = BTreeSet::new();
    let base = parts.iter().filter(|(_, part)| part.is_base());
    let mut next: Vec<&'a str> = base.map(|(name, _)| *name).collect();
    while let Some(name) = next.pop() {
        let Some(part) = parts.get(name).filter(|_| met.insert(name)) else {
            continue;
        };
        next.extend(part.lines.iter().flat_map(|text| references(text)));
    }
    met.into_iter().map(|name| (name, &parts[name]))
}

/// Names of chains, sets and maps that a line leads to.
fn references(text: &str) -> impl Iterator<Item = &str> {
    let words: Vec<&str> = words(text).collect();
    let names: Vec<&str> = words
        .windows(2)
        .filter(|pair| matches!(pair[0], "jump" | "goto" | "set"))
        .map(|pair| pair[1].trim_start_matches('@'))
        .collect();
    names.into_iter()
}

/// The tables of a dump, each with its chains, sets and maps by name.
fn tables(ruleset: &str) -> Vec<(&str, BTreeMap<&str, Part<'_>>)> {
    let mut tables: Vec<(&str, BTreeMap<&str, Part<'_>>)> = Vec::new();
    let mut current = "";
    for line in ruleset.lines() {
        if let Some(name) = line.strip_prefix("table ") {
            tables.push((name.trim_end_matches(" {"), BTreeMap::new()));
            continue;
        }
        let Some((_, parts)) = tables.last_mut() else {
            continue;
        };
        if let Some(text) = line.strip_prefix("    ") {
            if let Some(part) = parts.get_mut(current) {
                part.lines.push(text);
            }
        } else if let Some(head) = line.strip_prefix("  ")
            && ["chain ", "set ", "map "]
                .iter()
                .any(|kind| head.starts_with(kind))
        {
            current = head.split_whitespace().nth(1).unwrap_or_default();
            parts.insert(
                current,
                Part {
                    head,
                    lines: Vec::new(),
                },
            );
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone() -> Gone {
        let addresses = ["10.96.0.10", "10.244.1.11", "fd00:96::a"].map(|ip| ip.parse().unwrap());
        Gone::new(&addresses.into(), &[30080].into())
    }

    fn found(ruleset: &str) -> usize {
        remains(ruleset, &gone()).unwrap().len()
    }

    const BASE: &str = "  chain pre { type nat hook prerouting priority -100\n";

    #[test]
    fn what_packets_meet_is_found_in_every_notation() {
        for met in [
            "ip daddr == 10.96.0.10",
            "cmp r0 == 0x0a60000a",
            "cmp r0 == 0xfd00009600000000000000000000000a",
            "immediate r0 0x0af4010b | nat dnat family 2",
            "target \"DNAT\" rev 2 attr3=0x0100000003000000 attr4=0x00ff0af4010b0000",
            "payload transport | cmp r0 == 0x7580 | immediate accept",
        ] {
            let ruleset = format!("table ip nat {{\n{BASE}    {met}\n  }}\n}}\n");
            assert_eq!(found(&ruleset), 1, "{met}");
        }
        let ranges = format!("{:04x}", 30080_u16.to_be()).repeat(2);
        let ruleset = format!(
            "table ip nat {{\n{BASE}    match \"tcp\" rev 0 attr3=0x0000ffff{ranges}00\n  }}\n}}\n"
        );
        if cfg!(target_endian = "little") {
            assert_eq!(found(&ruleset), 1, "{ruleset}");
        }
    }

    #[test]
    fn elements_and_chains_count_where_they_are_used() {
        let ruleset = |rule: &str| {
            format!(
                "table inet p {{
  map nodeports type inet_proto . inet_service : verdict {{
    tcp . 30080 : goto svc
  }}
  map services type ipv4_addr . inet_proto . inet_service : verdict {{
    10.96.0.10 . tcp . 80 : goto svc
  }}
{BASE}    {rule}
  }}
  chain svc {{
    immediate r0 10.244.1.11
  }}
}}
"
            )
        };
        // The map's element and the chain behind it.
        assert_eq!(
            found(&ruleset(
                "lookup set @services sreg r0 dreg verdict flags none"
            )),
            2
        );
        assert_eq!(
            found(&ruleset(
                "lookup set @nodeports sreg r0 dreg verdict flags none"
            )),
            2
        );
        assert_eq!(found(&ruleset("immediate dreg verdict jump svc")), 1);
        // Nobody looks there any more.
        assert_eq!(found(&ruleset("counter")), 0);
    }

    #[test]
    fn other_numbers_and_what_expires_are_no_remains() {
        for innocent in [
            "ip daddr == 10.96.0.100",
            "ip daddr == 10.96.0.1",
            // Half a byte off.
            "cmp r0 == 0x00a60000a0",
            // A NodePort's digits are no NodePort in a rule's other numbers.
            "log group 30080",
            "counter # packets 30080 bytes 10.96.0.10",
        ] {
            let ruleset = format!("table ip nat {{\n{BASE}    {innocent}\n  }}\n}}\n");
            assert_eq!(found(&ruleset), 0, "{innocent}");
        }
        let affinity = format!(
            "table ip nat {{
  map clients type ipv4_addr : ipv4_addr flags timeout,dynamic timeout 10800000ms {{
    10.244.1.11 : 10.96.0.10
  }}
{BASE}    lookup set @clients sreg r0 flags none
  }}
}}
"
        );
        assert_eq!(found(&affinity), 0);
    }

    #[test]
    fn parts_are_what_packets_meet_and_what_is_not_empty() {
        let ruleset = format!(
            "table ip nat {{
  chain KUBE-KUBELET-CANARY {{
  }}
{BASE}    immediate dreg verdict jump KUBE-SERVICES
  }}
  chain input {{ type nat hook input priority 100
  }}
  chain KUBE-SERVICES {{
    ip daddr == 10.96.0.10
  }}
  chain KUBE-NODEPORTS {{
    counter
  }}
}}
table inet p {{
  map services type ipv4_addr : verdict {{
    10.96.0.10 : goto svc
  }}
{BASE}    lookup set @services sreg r0 dreg verdict flags none
  }}
}}
"
        );
        let parts: Vec<String> = parts(&ruleset).unwrap().into_iter().collect();
        assert_eq!(
            parts,
            [
                "inet p pre",
                "inet p services",
                "ip nat KUBE-SERVICES",
                "ip nat pre"
            ]
        );
    }

    #[test]
    fn a_torn_dump_says_nothing() {
        let torn = "# The ruleset changed while it was read: parts may be missing.\n";
        assert_eq!(remains(torn, &gone()), None);
        assert_eq!(parts(torn), None);
    }
}
