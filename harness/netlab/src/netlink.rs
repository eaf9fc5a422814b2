//! Changes of links, addresses, routes, rules and neighbours, many per system call.
//!
//! A socket belongs to the network namespace it was opened in, so PID 1 keeps one per namespace and never has
//! to enter that again to change it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use ipnet::IpNet;
use std::net::IpAddr;

use crate::blueprint::{Bridge, MAIN, Step, Via, Wire};
use crate::error::{Fault, FaultKind};

/// Messages per `send`: their acknowledgements must fit the socket's receive buffer.
const BATCH: usize = 64;

/// One change, and what to call it when it fails.
pub(crate) struct Change {
    message: RouteNetlinkMessage,
    flags: u16,
    name: String,
}

/// A routing socket in one network namespace.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket in the namespace that the calling thread is in.
    pub fn open() -> io::Result<Netlink> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        // Not having these makes messages longer or error texts shorter, no more.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        Ok(Netlink {
            socket,
            sequence: 0,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Makes all changes in order; stops at the first batch with a failure and reports the first one of it.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<(), Fault> {
        let mut changes: Vec<Change> = changes.into_iter().collect();
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(BATCH));
            self.apply_batch(changes)?;
            changes = rest;
        }
        Ok(())
    }

    fn apply_batch(&mut self, changes: Vec<Change>) -> Result<(), Fault> {
        let first = self.sequence.wrapping_add(1);
        let mut names = Vec::with_capacity(changes.len());
        let mut bytes = Vec::new();
        for change in changes {
            names.push(change.name);
            self.sequence = self.sequence.wrapping_add(1);
            serialize(
                &mut bytes,
                change.message,
                NLM_F_REQUEST | NLM_F_ACK | change.flags,
                self.sequence,
            );
        }
        let io = |error| Fault::system("talk netlink", error);
        self.socket
            .send_to(&bytes, &SocketAddr::new(0, 0), 0)
            .map_err(io)?;
        let mut open = names.len();
        let mut failure: Option<(usize, i32, Option<String>)> = None;
        while open > 0 {
            let length = self.socket.recv(&mut &mut self.buffer[..], 0).map_err(io)?;
            for message in messages(&self.buffer[..length]) {
                let message = message.map_err(io)?;
                let index = message.header.sequence_number.wrapping_sub(first) as usize;
                if index >= names.len() {
                    continue;
                }
                if let NetlinkPayload::Error(error) = &message.payload {
                    open -= 1;
                    let code = -error.raw_code();
                    if code != 0 && failure.as_ref().is_none_or(|(known, ..)| index < *known) {
                        failure = Some((index, code, words(&error.header)));
                    }
                }
            }
        }
        match failure {
            None => Ok(()),
            Some((index, errno, message)) => Err(Fault {
                kind: FaultKind::Netlink,
                step: names.swap_remove(index),
                errno,
                message,
            }),
        }
    }

    /// The flags of an interface, or `None` when there is no such interface.
    pub fn link_flags(&mut self, index: u32) -> io::Result<Option<LinkFlags>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.get(RouteNetlinkMessage::GetLink(message)) {
            Ok(RouteNetlinkMessage::NewLink(link)) => Ok(Some(link.header.flags)),
            Err(error) if error.raw_os_error() != Some(libc::ENODEV) => Err(error),
            _ => Ok(None),
        }
    }

    /// Whether packets to this address are taken in.
    pub fn is_local(&mut self, addr: IpAddr) -> io::Result<bool> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(addr);
        message.header.destination_prefix_length = if addr.is_ipv4() { 32 } else { 128 };
        message.attributes = vec![RouteAttribute::Destination(addr.into())];
        match self.get(RouteNetlinkMessage::GetRoute(message)) {
            Ok(RouteNetlinkMessage::NewRoute(route)) => Ok(route.header.kind == RouteType::Local),
            Ok(_) => Ok(false),
            // Without a route, the answer is the error that a packet would get.
            Err(error) => match error.raw_os_error() {
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES) => {
                    Ok(false)
                }
                _ => Err(error),
            },
        }
    }

    /// Asks for one thing and returns the first answer.
    fn get(&mut self, message: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        serialize(&mut bytes, message, NLM_F_REQUEST, self.sequence);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        loop {
            let length = self.socket.recv(&mut &mut self.buffer[..], 0)?;
            for message in messages(&self.buffer[..length]) {
                let message = message?;
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => return Ok(answer),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }
}

fn serialize(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

fn messages(
    mut bytes: &[u8],
) -> impl Iterator<Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let message = NetlinkMessage::deserialize(bytes).map_err(io::Error::other);
        let length = message
            .as_ref()
            .map_or(bytes.len(), |message| message.header.length as usize);
        bytes = bytes
            .get(length.max(1).next_multiple_of(4)..)
            .unwrap_or_default();
        Some(message)
    })
}

/// The kernel's own words: attribute 1 (`NLMSGERR_ATTR_MSG`) behind the header of the refused message.
fn words(refused: &[u8]) -> Option<String> {
    const HEADER: usize = 16;
    let mut rest = refused.get(HEADER..)?;
    while let [a, b, kind, zero, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        if length < 4 || length > rest.len() {
            return None;
        }
        if u16::from_ne_bytes([kind, zero]) == 1 {
            let text = rest[4..length].split(|byte| *byte == 0).next()?;
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// Makes a bridge without STP and without multicast snooping: it just forwards, from the first frame on.
pub(crate) fn add_bridge(bridge: &Bridge) -> Change {
    let mut link = LinkMessage::default();
    link.header.index = bridge.index;
    link.attributes = vec![
        LinkAttribute::IfName(bridge.name.clone()),
        LinkAttribute::Address(bridge.mac.0.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![
                InfoBridge::StpState(BridgeStpState::Disabled),
                InfoBridge::ForwardDelay(0),
                InfoBridge::MulticastSnooping(false),
            ])),
        ]),
    ];
    Change {
        message: RouteNetlinkMessage::NewLink(link),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        name: format!("ip link add {} type bridge", bridge.name),
    }
}

/// Makes a veth pair, its far end in another namespace at once.
pub(crate) fn add_wire(wire: &Wire, far: BorrowedFd<'_>) -> Change {
    let mut peer = LinkMessage::default();
    peer.header.index = wire.far.index;
    peer.attributes = vec![
        LinkAttribute::IfName(wire.far.link.clone()),
        LinkAttribute::Address(wire.far.mac.0.to_vec()),
        LinkAttribute::Mtu(wire.mtu),
        LinkAttribute::NetNsFd(far.as_raw_fd()),
    ];
    let mut link = LinkMessage::default();
    link.header.index = wire.near.index;
    link.attributes = vec![
        LinkAttribute::IfName(wire.near.link.clone()),
        LinkAttribute::Address(wire.near.mac.0.to_vec()),
        LinkAttribute::Mtu(wire.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    link.attributes
        .extend(wire.bridge.map(LinkAttribute::Controller));
    Change {
        message: RouteNetlinkMessage::NewLink(link),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        name: format!(
            "ip link add {} type veth peer {} netns {}",
            wire.near.link, wire.far.link, wire.far.namespace
        ),
    }
}

/// Removes an interface, and its peer with it.
pub(crate) fn delete_link(index: u32) -> Change {
    let mut link = LinkMessage::default();
    link.header.index = index;
    Change {
        message: RouteNetlinkMessage::DelLink(link),
        flags: 0,
        name: format!("ip link del #{index}"),
    }
}

/// A plain link of a kind that takes no options, to see whether the kernel has it.
pub(crate) fn add_plain(name: &str, kind: InfoKind) -> Change {
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
    ];
    Change {
        message: RouteNetlinkMessage::NewLink(link),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        name: format!("ip link add {name}"),
    }
}

/// Something new that somebody else composed.
pub(crate) fn create(message: RouteNetlinkMessage, name: &str) -> Change {
    Change {
        message,
        flags: NLM_F_CREATE | NLM_F_EXCL,
        name: name.to_owned(),
    }
}

/// One step of a blueprint; `place` is the namespace, for error texts.
pub(crate) fn step(step: &Step, place: &str) -> Change {
    let (message, flags) = match step {
        Step::Up { link } => (RouteNetlinkMessage::SetLink(up(*link)), 0),
        Step::Address { link, addr } => (
            RouteNetlinkMessage::NewAddress(address(*link, *addr)),
            NLM_F_CREATE | NLM_F_REPLACE,
        ),
        Step::Neighbour { link, addr, mac } => {
            let mut neighbour = NeighbourMessage::default();
            neighbour.header.family = family(*addr);
            neighbour.header.ifindex = *link;
            neighbour.header.state = NeighbourState::Permanent;
            neighbour.header.kind = RouteType::Unspec;
            neighbour.attributes = vec![
                NeighbourAttribute::Destination((*addr).into()),
                NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
            ];
            (
                RouteNetlinkMessage::NewNeighbour(neighbour),
                NLM_F_CREATE | NLM_F_REPLACE,
            )
        }
        Step::Route { to, table, via } => (
            RouteNetlinkMessage::NewRoute(route(*to, *table, *via)),
            NLM_F_CREATE | NLM_F_EXCL,
        ),
        Step::Rule { from, table } => (
            RouteNetlinkMessage::NewRule(rule(*from, *table)),
            NLM_F_CREATE | NLM_F_EXCL,
        ),
    };
    Change {
        message,
        flags,
        name: format!("ip -n {place} {step}"),
    }
}

fn up(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

fn address(index: u32, addr: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(addr.addr());
    message.header.prefix_len = addr.prefix_len();
    message.header.index = index;
    message.header.flags = AddressHeaderFlags::Nodad;
    message.attributes = vec![
        AddressAttribute::Address(addr.addr()),
        AddressAttribute::Local(addr.addr()),
        AddressAttribute::Flags(AddressFlags::Nodad),
    ];
    message
}

fn route(to: IpNet, table: u32, via: Via) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(to.addr());
    message.header.destination_prefix_length = to.prefix_len();
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.header.table = MAIN as u8;
    message.attributes = vec![RouteAttribute::Table(table)];
    if to.prefix_len() > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(to.network().into()));
    }
    match via {
        Via::Link(link) => {
            message.header.scope = RouteScope::Link;
            message.attributes.push(RouteAttribute::Oif(link));
        }
        Via::Gateway { link, addr } => {
            message.header.flags = RouteFlags::Onlink;
            message.attributes.extend([
                RouteAttribute::Oif(link),
                RouteAttribute::Gateway(addr.into()),
            ]);
        }
        Via::GatewayFrom {
            link,
            addr,
            source,
            segment,
        } => {
            message.header.flags = RouteFlags::Onlink;
            if let Some(segment) = segment {
                message
                    .attributes
                    .push(RouteAttribute::Metrics(vec![RouteMetric::Advmss(segment)]));
            }
            message.attributes.extend([
                RouteAttribute::Oif(link),
                RouteAttribute::Gateway(addr.into()),
                RouteAttribute::PrefSource(source.into()),
            ]);
        }
        Via::Blackhole => message.header.kind = RouteType::BlackHole,
        Via::Unreachable => message.header.kind = RouteType::Unreachable,
    }
    message
}

fn rule(from: IpAddr, table: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(from);
    message.header.src_len = if from.is_ipv4() { 32 } else { 128 };
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Table(table),
        RuleAttribute::Priority(1000 + table),
        RuleAttribute::Source(from),
    ];
    message
}

fn family(addr: IpAddr) -> AddressFamily {
    match addr {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
