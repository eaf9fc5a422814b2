//! What no proxy should do to the kernel, said to it directly.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

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

fn send(bytes: &[u8]) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
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
    send(&message(DELETE_CONNTRACK, ACK, 0))
}

/// Deletes all tables of this network namespace.
pub(super) fn flush_ruleset() -> io::Result<()> {
    let mut bytes = message(BATCH_BEGIN, 0, NFTABLES);
    bytes.extend(message(DELETE_TABLE, ACK, 0));
    bytes.extend(message(BATCH_END, 0, NFTABLES));
    send(&bytes)
}

/// Routes packets for loopback addresses that arrive from elsewhere.
pub(super) fn route_localnet() -> io::Result<()> {
    std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")
}
