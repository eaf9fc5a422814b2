//! The addresses of this node's interfaces, kept up to date.
//!
//! They matter only when `--nodeport-addresses` lists ranges. Two things go wrong elsewhere and not here: a listing that the kernel
//! interrupted is not taken for the truth (kubernetes/kubernetes#129146, vishvananda/netlink#925), and interfaces that come and go cost
//! nothing unless an address of the node changes.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    net::IpAddr,
};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// How often an interrupted listing is repeated before its union with what is known is good enough for a moment.
const DUMP_ATTEMPTS: usize = 50;

type Held = HashSet<(u32, IpAddr)>;

/// A view of the addresses.
#[derive(Debug)]
pub struct Addresses {
    events: Socket,
    held: Held,
}

impl Addresses {
    /// Subscribes to changes, then lists.
    ///
    /// # Errors
    ///
    /// The kernel refused one of them.
    pub fn open() -> io::Result<Self> {
        let mut events = Socket::new(NETLINK_ROUTE)?;
        events.bind(&SocketAddr::new(0, 0))?;
        events.add_membership(RTNLGRP_IPV4_IFADDR)?;
        events.add_membership(RTNLGRP_IPV6_IFADDR)?;
        let held = list(&Held::new())?;
        Ok(Self { events, held })
    }

    /// The addresses, without duplicates.
    pub fn current(&self) -> BTreeSet<IpAddr> {
        self.held.iter().map(|(_, ip)| *ip).collect()
    }

    /// Waits until some address may have changed.
    ///
    /// # Errors
    ///
    /// The socket is unusable.
    pub fn wait(&mut self) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(1 << 16);
        match self.events.recv(&mut buffer, 0) {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => return Ok(()),
                Some(libc::ENOBUFS) => {
                    // Events were lost: look again.
                    self.held = list(&self.held)?;
                    return Ok(());
                }
                _ => return Err(error),
            },
        }
        for message in split(&buffer) {
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
                continue;
            };
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                    self.held.extend(held(&address));
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelAddress(address)) => {
                    if let Some(gone) = held(&address) {
                        self.held.remove(&gone);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn split(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk::<4>()?) as usize;
        let message = rest.get(..length.max(16))?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The interface and address of a message. On a point-to-point link the local one is ours.
fn held(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let address = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    Some((message.header.index, local.or(address)?))
}

/// Lists all addresses. When the kernel interrupts every attempt, nothing of `known` is given up.
fn list(known: &Held) -> io::Result<Held> {
    let mut union = known.clone();
    for _ in 0..DUMP_ATTEMPTS {
        let (listed, whole) = list_once()?;
        if whole {
            return Ok(listed);
        }
        union.extend(listed);
    }
    Ok(union)
}

fn list_once() -> io::Result<(Held, bool)> {
    // A fresh socket: what an aborted listing left unread cannot disturb this one.
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let mut request =
        NetlinkMessage::from(RouteNetlinkMessage::GetAddress(AddressMessage::default()));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.header.sequence_number = 1;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let mut listed = Held::new();
    let mut whole = true;
    let mut buffer = Vec::with_capacity(1 << 16);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        for message in split(&buffer) {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok((listed, whole)),
                NetlinkPayload::Error(error) => {
                    return match error.raw_code().abs() {
                        libc::EINTR | libc::EAGAIN | libc::EBUSY => Ok((listed, false)),
                        _ => Err(error.to_io()),
                    };
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address)) => {
                    listed.extend(held(&address));
                }
                _ => {}
            }
        }
    }
}
