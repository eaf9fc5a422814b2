//! What no proxy should do to the kernel, said to it directly.

use std::{io, net::IpAddr};

use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFTABLES: u16 = 10;
const DELETE_TABLE: u16 = NFTABLES << 8 | 2;
const DELETE_CONNTRACK: u16 = 1 << 8 | 2;

/// A netlink message with the netfilter header and no attributes.
fn message(kind: u16, flags: u16, subsystem: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20);
    bytes.extend(20u32.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([0, 0]);
    bytes.extend(subsystem.to_be_bytes());
    bytes
}

fn send(protocol: isize, bytes: &[u8]) -> io::Result<()> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.send_to(bytes, &SocketAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let code = answer.get(16..20).and_then(|code| code.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Deletes all connection tracking entries of this network namespace.
pub(super) fn flush_conntrack() -> io::Result<()> {
    send(NETLINK_NETFILTER, &message(DELETE_CONNTRACK, ACK, 0))
}

/// Deletes all tables of this network namespace.
pub(super) fn flush_ruleset() -> io::Result<()> {
    let mut bytes = message(BATCH_BEGIN, 0, NFTABLES);
    bytes.extend(message(DELETE_TABLE, ACK, 0));
    bytes.extend(message(BATCH_END, 0, NFTABLES));
    send(NETLINK_NETFILTER, &bytes)
}

/// Routes packets for loopback addresses that arrive from elsewhere.
pub(super) fn route_localnet() -> io::Result<()> {
    std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")
}

/// Makes a range of addresses the node's own, as an address on a dummy link does. `prefer` is the source of what the node sends there.
pub(super) fn local_route(range: IpAddr, length: u8, prefer: Option<IpAddr>) -> io::Result<()> {
    const NEW_ROUTE: u16 = 24;
    const CREATE: u16 = 0x400;
    const DESTINATION: u16 = 1;
    const LINK: u16 = 4;
    const PREFERRED: u16 = 7;
    const LOOPBACK: u32 = 1;
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let family = if range.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    } as u8;
    let mut body = vec![
        family,
        length,
        0,
        0,
        libc::RT_TABLE_LOCAL,
        libc::RTPROT_STATIC,
    ];
    body.extend([libc::RT_SCOPE_HOST, libc::RTN_LOCAL, 0, 0, 0, 0]);
    let mut attribute = |kind: u16, value: &[u8]| {
        body.extend((value.len() as u16 + 4).to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
    };
    attribute(DESTINATION, &octets(range));
    attribute(LINK, &LOOPBACK.to_ne_bytes());
    if let Some(prefer) = prefer {
        attribute(PREFERRED, &octets(prefer));
    }
    let mut bytes = (body.len() as u32 + 16).to_ne_bytes().to_vec();
    bytes.extend(NEW_ROUTE.to_ne_bytes());
    bytes.extend((REQUEST | ACK | CREATE).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    send(NETLINK_ROUTE, &bytes)
}
