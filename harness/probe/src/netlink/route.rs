//! Links, addresses, routes and rules: changes and readable dumps.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use netlink_packet_core::{
    NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NetlinkSerializable, ParseableParametrized,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;

/// An rtnetlink socket in the namespace of the calling thread.
pub(crate) fn open() -> anyhow::Result<Netlink> {
    Netlink::open(netlink_sys::protocols::NETLINK_ROUTE).context("cannot open an rtnetlink socket")
}

fn request(netlink: &mut Netlink, message: RouteNetlinkMessage, flags: u16) -> std::io::Result<()> {
    let payload = payload(&message);
    netlink.request(message.message_type(), flags, &payload)
}

fn payload(message: &RouteNetlinkMessage) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn dump(message: RouteNetlinkMessage) -> anyhow::Result<(Vec<RouteNetlinkMessage>, bool)> {
    let (all, interrupted) = open()?.dump_all(message.message_type(), &payload(&message))?;
    // A message of a kind this library does not know is left out rather than failing all.
    let parsed = all
        .iter()
        .filter_map(|(kind, bytes)| {
            RouteNetlinkMessage::parse_with_param(bytes.as_slice(), *kind).ok()
        })
        .collect();
    Ok((parsed, interrupted))
}

/// What can be dumped and be interrupted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Table {
    Links,
    Addresses,
    Routes,
}

impl Table {
    pub const ALL: [Table; 3] = [Table::Links, Table::Addresses, Table::Routes];
}

/// One dump, parsed by nobody; whether the kernel marked it as interrupted.
pub(crate) fn dump_marked(netlink: &mut Netlink, table: Table) -> std::io::Result<bool> {
    let message = match table {
        Table::Links => RouteNetlinkMessage::GetLink(LinkMessage::default()),
        Table::Addresses => RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        Table::Routes => RouteNetlinkMessage::GetRoute(RouteMessage::default()),
    };
    netlink.dump(message.message_type(), &payload(&message), |_, _| {})
}

/// Index of a link.
pub(crate) fn index_of(link: &str) -> anyhow::Result<u32> {
    let name = std::ffi::CString::new(link).context("name of a link holds a zero byte")?;
    // SAFETY: `name` is a zero-terminated string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => bail!("there is no link {link}"),
        index => Ok(index),
    }
}

/// Parses `address/length`; without a length the address is a host's.
pub(crate) fn parse_address(text: &str) -> anyhow::Result<(IpAddr, u8)> {
    let (address, length) = text
        .split_once('/')
        .map_or((text, None), |(a, l)| (a, Some(l)));
    let address: IpAddr = address
        .parse()
        .with_context(|| format!("{text:?} is not an address with a prefix length"))?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let length = length
        .map_or(Ok(longest), str::parse)
        .with_context(|| format!("{text:?} has no valid prefix length"))?;
    anyhow::ensure!(
        length <= longest,
        "{text:?} has a prefix length above {longest}"
    );
    Ok((address, length))
}

fn address_message(index: u32, address: IpAddr, length: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message.header.prefix_len = length;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    if address.is_ipv6() {
        // Duplicate address detection would keep the address from use for a second.
        message.header.flags = AddressHeaderFlags::Nodad;
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

/// The kernel's work takes microseconds; this bounds a machine that has come to a stop.
const USABLE: Duration = Duration::from_secs(10);

/// Adds an address, and waits until packets to it are taken in; one that is there already is fine.
pub(crate) fn address_add(
    netlink: &mut Netlink,
    index: u32,
    address: IpAddr,
    length: u8,
) -> anyhow::Result<()> {
    address_add_at_once(netlink, index, address, length)?;
    let IpAddr::V6(address) = address else {
        return Ok(());
    };
    let is_up = |link: &LinkMessage| {
        link.header.index == index && link.header.flags.contains(LinkFlags::Up)
    };
    if !links()?.0.iter().any(is_up) {
        // An address of a link that is down is of no use before that is up.
        return Ok(());
    }
    let deadline = Instant::now() + USABLE;
    while !is_local(address)? {
        if Instant::now() > deadline {
            bail!("the kernel takes no packets for {address} after {USABLE:?}");
        }
        // A poll of a condition with a deadline; the kernel notifies of the route only on a socket that listened before.
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// As [`address_add`], without waiting.
pub(crate) fn address_add_at_once(
    netlink: &mut Netlink,
    index: u32,
    address: IpAddr,
    length: u8,
) -> std::io::Result<()> {
    let message = RouteNetlinkMessage::NewAddress(address_message(index, address, length));
    match request(netlink, message, NLM_F_CREATE | NLM_F_EXCL) {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

/// Whether an IPv6 address has its local route. It gets that in the work queue that would otherwise detect duplicates, some time after the
/// request for the address was answered.
fn is_local(address: Ipv6Addr) -> anyhow::Result<bool> {
    // The thread's own view: its namespace need not be that of the process.
    let path = "/proc/thread-self/net/ipv6_route";
    let routes = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(routes.lines().any(|line| is_local_route(line, address)))
}

/// `destination length source length gateway metric references uses flags link`, numbers in hexadecimal.
fn is_local_route(line: &str, address: Ipv6Addr) -> bool {
    const RTF_LOCAL: u32 = 0x8000_0000;
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [destination, length, .., flags, _link] = fields.as_slice() else {
        return false;
    };
    *destination == format!("{:032x}", address.to_bits())
        && *length == "80"
        && u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & RTF_LOCAL != 0)
}

/// Removes an address; one that is not there is fine.
pub(crate) fn address_del(
    netlink: &mut Netlink,
    index: u32,
    address: IpAddr,
    length: u8,
) -> std::io::Result<()> {
    match request(
        netlink,
        RouteNetlinkMessage::DelAddress(address_message(index, address, length)),
        0,
    ) {
        Err(e) if e.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
        other => other,
    }
}

/// Link and link-layer address of a neighbour, if it is known.
pub(crate) fn neighbour(address: IpAddr) -> anyhow::Result<Option<(u32, [u8; 6])>> {
    let (messages, _) = dump(RouteNetlinkMessage::GetNeighbour(
        NeighbourMessage::default(),
    ))?;
    Ok(messages.iter().find_map(|message| {
        let RouteNetlinkMessage::NewNeighbour(entry) = message else {
            return None;
        };
        let is_it = entry.attributes.iter().any(|a| match a {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address == *ip,
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address == *ip,
            _ => false,
        });
        let hardware = entry.attributes.iter().find_map(|a| match a {
            NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        });
        hardware
            .filter(|_| is_it)
            .map(|hardware| (entry.header.ifindex, hardware))
    }))
}

/// Sends what comes from `from` to some networks by way of `via`: a rule, and routes in a table of its own. The same again is fine.
pub(crate) fn routes_from(
    from: IpAddr,
    via: IpAddr,
    link: &str,
    to: &[String],
    table: u8,
) -> anyhow::Result<()> {
    let index = index_of(link)?;
    let netlink = &mut open()?;
    let family = if from.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    for text in to {
        let (network, length) = parse_address(text)?;
        anyhow::ensure!(
            network.is_ipv4() == from.is_ipv4() && via.is_ipv4() == from.is_ipv4(),
            "{from}, {via} and {text} are not of one family"
        );
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.destination_prefix_length = length;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.header.table = table;
        message.header.flags = RouteFlags::Onlink;
        message.attributes = vec![
            RouteAttribute::Destination(network.into()),
            RouteAttribute::Oif(index),
            RouteAttribute::Gateway(via.into()),
        ];
        request(
            netlink,
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
        .with_context(|| format!("cannot add a route to {text} via {via}"))?;
    }
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.src_len = if from.is_ipv4() { 32 } else { 128 };
    rule.header.action = RuleAction::ToTable;
    rule.header.table = table;
    rule.attributes = vec![
        RuleAttribute::Priority(1_000 + u32::from(table)),
        RuleAttribute::Source(from),
    ];
    match request(
        netlink,
        RouteNetlinkMessage::NewRule(rule),
        NLM_F_CREATE | NLM_F_EXCL,
    ) {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other.with_context(|| format!("cannot add a rule for {from}")),
    }
}

/// Sets a link up or down, and its MTU.
pub(crate) fn link_set(
    netlink: &mut Netlink,
    index: u32,
    up: bool,
    mtu: Option<u32>,
) -> std::io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.change_mask = LinkFlags::Up;
    message.header.flags = if up {
        LinkFlags::Up
    } else {
        LinkFlags::empty()
    };
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    request(netlink, RouteNetlinkMessage::SetLink(message), 0)
}

/// Makes a veth pair, both ends up.
pub(crate) fn veth_add(netlink: &mut Netlink, name: &str, peer: &str) -> std::io::Result<()> {
    let end = |name: &str| {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        message
    };
    let mut message = end(name);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end(peer)))),
    ]));
    request(
        netlink,
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )?;
    // An end cannot be made as up: the kernel brings it up before it knows its peer.
    for name in [name, peer] {
        let mut message = end(name);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        request(netlink, RouteNetlinkMessage::SetLink(message), 0)?;
    }
    Ok(())
}

/// Deletes a link by name; one that is not there is fine.
pub(crate) fn link_del(netlink: &mut Netlink, name: &str) -> std::io::Result<()> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.into()));
    match request(netlink, RouteNetlinkMessage::DelLink(message), 0) {
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

const INTERRUPTED: &str =
    "# Something changed while this was read: entries may be missing or double.\n";

fn lines(mut all: Vec<String>, interrupted: bool) -> String {
    all.sort();
    let mut text = if interrupted {
        INTERRUPTED.to_owned()
    } else {
        String::new()
    };
    for line in all {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn links() -> anyhow::Result<(Vec<LinkMessage>, bool)> {
    let (messages, interrupted) = dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let links = messages
        .into_iter()
        .filter_map(|m| match m {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })
        .collect();
    Ok((links, interrupted))
}

fn link_name(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_else(|| format!("link-{}", link.header.index))
}

/// Names of links by index.
pub(crate) fn link_names() -> anyhow::Result<BTreeMap<u32, String>> {
    Ok(links()?
        .0
        .iter()
        .map(|link| (link.header.index, link_name(link)))
        .collect())
}

/// Links as text, one a line, by name.
pub(crate) fn links_text() -> anyhow::Result<String> {
    let (links, interrupted) = links()?;
    let names: BTreeMap<u32, String> = links
        .iter()
        .map(|link| (link.header.index, link_name(link)))
        .collect();
    let line = |link: &LinkMessage| {
        let (mut kind, mut mtu, mut mac, mut master, mut state) = (
            String::new(),
            0,
            String::new(),
            String::new(),
            String::new(),
        );
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Mtu(value) => mtu = *value,
                LinkAttribute::Address(bytes) => {
                    mac = bytes
                        .iter()
                        .map(|b| format!("{b:02x}"))
                        .collect::<Vec<_>>()
                        .join(":");
                }
                LinkAttribute::Controller(index) => {
                    master = format!(" master {}", names.get(index).map_or("?", String::as_str));
                }
                LinkAttribute::OperState(value) => state = format!("{value:?}").to_lowercase(),
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        if let LinkInfo::Kind(value) = info {
                            kind = format!(" {}", format!("{value:?}").to_lowercase());
                        }
                    }
                }
                _ => {}
            }
        }
        let admin = if link.header.flags.contains(LinkFlags::Up) {
            "up"
        } else {
            "down"
        };
        format!(
            "{}{kind} {admin} mtu {mtu} mac {mac}{master} # index {} operstate {state}",
            link_name(link),
            link.header.index
        )
    };
    Ok(lines(links.iter().map(line).collect(), interrupted))
}

/// Addresses as text, one a line: link, address.
pub(crate) fn addresses_text() -> anyhow::Result<String> {
    let names = link_names()?;
    let (messages, interrupted) = dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let line = |message: RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewAddress(address) = message else {
            return None;
        };
        let (mut local, mut peer, mut flags) = (None, None, AddressFlags::empty());
        for attribute in &address.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => peer = Some(*ip),
                AddressAttribute::Flags(bits) => flags = *bits,
                _ => {}
            }
        }
        let ip = local.or(peer)?;
        let peer = peer
            .filter(|p| *p != ip)
            .map_or(String::new(), |p| format!(" peer {p}"));
        let tentative = if flags.contains(AddressFlags::Tentative) {
            " # tentative"
        } else {
            ""
        };
        let link = names.get(&address.header.index).map_or("?", String::as_str);
        Some(format!(
            "{link} {ip}/{}{peer}{tentative}",
            address.header.prefix_len
        ))
    };
    Ok(lines(
        messages.into_iter().filter_map(line).collect(),
        interrupted,
    ))
}

/// Routes of all tables and both families as text, one a line.
pub(crate) fn routes_text() -> anyhow::Result<String> {
    let names = link_names()?;
    let name = |index: u32| {
        names
            .get(&index)
            .cloned()
            .unwrap_or_else(|| format!("link-{index}"))
    };
    let mut all = Vec::new();
    let mut any_interrupted = false;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let (messages, interrupted) = dump(RouteNetlinkMessage::GetRoute(request))?;
        any_interrupted |= interrupted;
        for message in messages {
            let RouteNetlinkMessage::NewRoute(route) = message else {
                continue;
            };
            let mut table = u32::from(route.header.table);
            let mut target = String::from("default");
            let mut rest = String::new();
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Table(value) => table = *value,
                    RouteAttribute::Destination(address) => {
                        target = format!(
                            "{}/{}",
                            address_text(address),
                            route.header.destination_prefix_length
                        );
                    }
                    RouteAttribute::Source(address) => {
                        rest.push_str(&format!(
                            " from {}/{}",
                            address_text(address),
                            route.header.source_prefix_length
                        ));
                    }
                    RouteAttribute::Gateway(address) => {
                        rest.push_str(&format!(" via {}", address_text(address)))
                    }
                    RouteAttribute::Via(via) => rest.push_str(&format!(" via {via:?}")),
                    RouteAttribute::Oif(index) => rest.push_str(&format!(" dev {}", name(*index))),
                    RouteAttribute::PrefSource(address) => {
                        rest.push_str(&format!(" src {}", address_text(address)))
                    }
                    RouteAttribute::Priority(value) => rest.push_str(&format!(" metric {value}")),
                    RouteAttribute::Metrics(metrics) => rest.push_str(&format!(" {metrics:?}")),
                    RouteAttribute::MultiPath(hops) => {
                        for hop in hops {
                            rest.push_str(&format!(" nexthop dev {}", name(hop.interface_index)));
                            for attribute in &hop.attributes {
                                if let RouteAttribute::Gateway(address) = attribute {
                                    rest.push_str(&format!(" via {}", address_text(address)));
                                }
                            }
                        }
                    }
                    _ => {}
                }
            }
            let kind = format!("{:?}", route.header.kind).to_lowercase();
            let family = if family == AddressFamily::Inet {
                "ipv4"
            } else {
                "ipv6"
            };
            all.push(format!(
                "{family} table {} {kind} {target}{rest}",
                table_name(table)
            ));
        }
    }
    Ok(lines(all, any_interrupted))
}

/// Policy routing rules as text, one a line, by priority.
pub(crate) fn rules_text() -> anyhow::Result<String> {
    let mut all = Vec::new();
    let mut any_interrupted = false;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RuleMessage::default();
        request.header.family = family;
        let (messages, interrupted) = dump(RouteNetlinkMessage::GetRule(request))?;
        any_interrupted |= interrupted;
        for message in messages {
            let RouteNetlinkMessage::NewRule(rule) = message else {
                continue;
            };
            let (mut priority, mut table) = (0, u32::from(rule.header.table));
            let mut rest = String::new();
            for attribute in &rule.attributes {
                match attribute {
                    RuleAttribute::Priority(value) => priority = *value,
                    RuleAttribute::Table(value) => table = *value,
                    RuleAttribute::Source(ip) => {
                        rest.push_str(&format!(" from {ip}/{}", rule.header.src_len))
                    }
                    RuleAttribute::Destination(ip) => {
                        rest.push_str(&format!(" to {ip}/{}", rule.header.dst_len))
                    }
                    RuleAttribute::Iifname(link) => rest.push_str(&format!(" iif {link}")),
                    RuleAttribute::Oifname(link) => rest.push_str(&format!(" oif {link}")),
                    RuleAttribute::FwMark(mark) => rest.push_str(&format!(" fwmark {mark:#x}")),
                    RuleAttribute::FwMask(mask) => rest.push_str(&format!(" mask {mask:#x}")),
                    _ => {}
                }
            }
            let action = format!("{:?}", rule.header.action).to_lowercase();
            let family = if family == AddressFamily::Inet {
                "ipv4"
            } else {
                "ipv6"
            };
            all.push(format!(
                "{family} {priority:>5}{rest} {action} {}",
                table_name(table)
            ));
        }
    }
    Ok(lines(all, any_interrupted))
}

fn table_name(table: u32) -> String {
    match table {
        253 => "default".into(),
        254 => "main".into(),
        255 => "local".into(),
        other => other.to_string(),
    }
}

fn address_text(address: &RouteAddress) -> String {
    match address {
        RouteAddress::Inet(ip) => ip.to_string(),
        RouteAddress::Inet6(ip) => ip.to_string(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_routes_of_proc_net() {
        let local = "fd0700080000000000000000000000a1 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001     wire";
        let network = "fd070008000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     wire";
        assert!(is_local_route(local, "fd07:8::a1".parse().unwrap()));
        assert!(!is_local_route(local, "fd07:8::a2".parse().unwrap()));
        assert!(!is_local_route(network, "fd07:8::".parse().unwrap()));
        assert!(!is_local_route("", "::".parse().unwrap()));
    }
}
