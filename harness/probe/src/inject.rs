//! Packets that no socket would send: segments outside a connection's window, and complete packets as they are.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context, bail};
use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, Socket, Type};

use crate::proto::Inject;
use crate::server::Connection;
use crate::sys;

// linux/tcp.h
const TCP_REPAIR: i32 = 19;
const TCP_REPAIR_QUEUE: i32 = 20;
const TCP_QUEUE_SEQ: i32 = 21;
const TCP_REPAIR_ON: i32 = 1;
const TCP_REPAIR_OFF_NO_WP: i32 = -1;
const TCP_RECV_QUEUE: i32 = 1;
const TCP_SEND_QUEUE: i32 = 2;

/// Sends what is asked for; returns how many packets that were.
pub(crate) fn inject(request: &Inject, connections: &[Connection]) -> anyhow::Result<u32> {
    match request {
        Inject::Raw { packet } => send(packet).map(|()| 1),
        Inject::OutOfWindow {
            listener,
            peer,
            offset,
            payload,
        } => {
            let mut packets = 0;
            let chosen = connections
                .iter()
                .filter(|c| c.listener == *listener && peer.is_none_or(|p| p == c.peer));
            for connection in chosen {
                let (next, expected) = sequence_numbers(connection.fd).with_context(|| {
                    format!(
                        "sequence numbers of the connection from {}",
                        connection.peer
                    )
                })?;
                let seq = (i64::from(next) + offset) as u32;
                send(&segment(connection, seq, expected, payload.as_bytes())?)?;
                packets += 1;
            }
            Ok(packets)
        }
    }
}

/// The next sequence number a socket will send and the next one it expects.
///
/// Only `TCP_REPAIR` tells them. It freezes the socket for the moment between the calls and sends nothing when it is left.
fn sequence_numbers(fd: RawFd) -> anyhow::Result<(u32, u32)> {
    let option = |name, value: i32| sys::set_option(fd, libc::IPPROTO_TCP, name, value);
    option(TCP_REPAIR, TCP_REPAIR_ON).context("TCP_REPAIR is not allowed")?;
    let read = || -> anyhow::Result<(u32, u32)> {
        option(TCP_REPAIR_QUEUE, TCP_SEND_QUEUE)?;
        let next = sys::get_option(fd, libc::IPPROTO_TCP, TCP_QUEUE_SEQ)? as u32;
        option(TCP_REPAIR_QUEUE, TCP_RECV_QUEUE)?;
        let expected = sys::get_option(fd, libc::IPPROTO_TCP, TCP_QUEUE_SEQ)? as u32;
        Ok((next, expected))
    };
    let numbers = read();
    option(TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)?;
    numbers
}

/// A segment from the server's end of a connection.
fn segment(connection: &Connection, seq: u32, ack: u32, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
    let builder = match (connection.local, connection.peer) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 64)
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            PacketBuilder::ipv6(from.ip().octets(), to.ip().octets(), 64)
        }
        _ => bail!("connection between two address families"),
    };
    let builder = builder
        .tcp(connection.local.port(), connection.peer.port(), seq, 512)
        .psh()
        .ack(ack);
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut packet, payload)?;
    Ok(packet)
}

/// Sends a complete IP packet.
fn send(packet: &[u8]) -> anyhow::Result<()> {
    let (domain, target) =
        match etherparse::IpSlice::from_slice(packet).context("not an IP packet")? {
            etherparse::IpSlice::Ipv4(ip) => (
                Domain::IPV4,
                SocketAddr::new(ip.header().destination_addr().into(), 0),
            ),
            etherparse::IpSlice::Ipv6(ip) => (
                Domain::IPV6,
                SocketAddr::new(ip.header().destination_addr().into(), 0),
            ),
        };
    // IPPROTO_RAW implies that the header is ours, in both families.
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))
        .context("raw sockets are not allowed")?;
    let sent = sys::send(socket.as_raw_fd(), packet, target, None)
        .with_context(|| format!("packet to {} cannot be sent", target.ip()))?;
    anyhow::ensure!(
        sent == packet.len(),
        "only {sent} of {} bytes were sent",
        packet.len()
    );
    Ok(())
}
