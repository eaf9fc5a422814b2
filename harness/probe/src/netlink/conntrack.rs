//! Connection tracking entries: read them all, remove them all or some.

use std::io;
use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use netlink_packet_core::{DefaultNla, ParseableParametrized};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Tuple,
};

use super::{NFNL_SUBSYS_CTNETLINK, Netlink, nest, netfilter_kind, netfilter_payload};
use crate::proto::ConntrackEntry;

const NEW: u8 = 0;
const GET: u8 = 1;
const DELETE: u8 = 2;

/// Every entry of the namespace, sorted. Entries without addresses (of unknown kinds) are left out.
pub(crate) fn entries() -> anyhow::Result<Vec<ConntrackEntry>> {
    let mut netlink = Netlink::open(netlink_sys::protocols::NETLINK_NETFILTER)?;
    let mut entries = Vec::new();
    let kind = netfilter_kind(NFNL_SUBSYS_CTNETLINK, GET);
    // The kernel never marks these dumps as interrupted; the table changes all the time.
    netlink
        .dump(
            kind,
            &netfilter_payload(libc::AF_UNSPEC as u8, &[]),
            |_, payload| {
                let Some((header, attributes)) = payload.split_at_checked(4) else {
                    return;
                };
                if let Ok(ConntrackMessage::New(attributes)) =
                    ConntrackMessage::parse_with_param(attributes, NEW)
                    && let Some(entry) = entry(header[0], &attributes)
                {
                    entries.push(entry);
                }
            },
        )
        .context("conntrack cannot be dumped")?;
    entries.sort();
    Ok(entries)
}

/// Removes every entry of the namespace.
pub(crate) fn flush() -> anyhow::Result<()> {
    let mut netlink = Netlink::open(netlink_sys::protocols::NETLINK_NETFILTER)?;
    let kind = netfilter_kind(NFNL_SUBSYS_CTNETLINK, DELETE);
    match netlink.request(kind, 0, &netfilter_payload(libc::AF_UNSPEC as u8, &[])) {
        // An empty table on some kernels.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.context("conntrack cannot be flushed"),
    }
}

/// Removes the entries of flows over TCP, UDP and SCTP that have one of these addresses at any end, in any direction, or one of these sockets.
/// Answers how many that were.
pub(crate) fn forget(addresses: &[IpAddr], sockets: &[SocketAddr]) -> anyhow::Result<u32> {
    let concerned =
        |socket: &SocketAddr| addresses.contains(&socket.ip()) || sockets.contains(socket);
    let mut netlink = Netlink::open(netlink_sys::protocols::NETLINK_NETFILTER)?;
    let kind = netfilter_kind(NFNL_SUBSYS_CTNETLINK, DELETE);
    let mut forgotten = 0;
    for entry in entries()? {
        let ends = [
            entry.orig_src,
            entry.orig_dst,
            entry.reply_src,
            entry.reply_dst,
        ];
        let with_ports = [libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_SCTP];
        if !with_ports.contains(&entry.protocol.into()) || !ends.iter().any(concerned) {
            continue;
        }
        let family = if entry.orig_src.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        let original = [tuple(1, entry.protocol, entry.orig_src, entry.orig_dst)];
        match netlink.request(kind, 0, &netfilter_payload(family as u8, &original)) {
            Ok(()) => forgotten += 1,
            // It expired, or somebody was faster.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).context("a conntrack entry cannot be removed"),
        }
    }
    Ok(forgotten)
}

/// One direction of a flow; `kind` is 1 for the original and 2 for the reply. The kinds within are those of `enum ctattr_ip` and `ctattr_l4proto`
/// in the kernel's `nfnetlink_conntrack.h`.
pub(super) fn tuple(kind: u16, protocol: u8, from: SocketAddr, to: SocketAddr) -> DefaultNla {
    let port = |kind, port: u16| DefaultNla::new(kind, port.to_be_bytes().to_vec());
    let address = |v4, v6, address: IpAddr| match address {
        IpAddr::V4(ip) => DefaultNla::new(v4, ip.octets().to_vec()),
        IpAddr::V6(ip) => DefaultNla::new(v6, ip.octets().to_vec()),
    };
    nest(
        kind,
        &[
            nest(1, &[address(1, 3, from.ip()), address(2, 4, to.ip())]),
            nest(
                2,
                &[
                    DefaultNla::new(1, vec![protocol]),
                    port(2, from.port()),
                    port(3, to.port()),
                ],
            ),
        ],
    )
}

fn entry(family: u8, attributes: &[ConntrackAttribute]) -> Option<ConntrackEntry> {
    let (mut original, mut reply, mut tcp_state) = (None, None, None);
    let (mut status, mut timeout, mut mark) = (0, 0, 0);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = Some(ends(tuple)?),
            ConntrackAttribute::CtaTupleReply(tuple) => reply = Some(ends(tuple)?),
            ConntrackAttribute::CtaStatus(bits) => status = bits.bits(),
            ConntrackAttribute::CtaTimeout(seconds) => timeout = *seconds,
            ConntrackAttribute::CtaMark(value) => mark = *value,
            ConntrackAttribute::CtaProtoInfo(infos) => {
                tcp_state = infos.iter().find_map(|info| match info {
                    ProtoInfo::TCP(tcp) => tcp.iter().find_map(|a| match a {
                        ProtoInfoTCP::State(state) => Some(*state),
                        _ => None,
                    }),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let ((orig_src, orig_dst, protocol), (reply_src, reply_dst, _)) = (original?, reply?);
    let family = if family == libc::AF_INET as u8 { 4 } else { 6 };
    Some(ConntrackEntry {
        family,
        protocol,
        orig_src,
        orig_dst,
        reply_src,
        reply_dst,
        status,
        timeout,
        mark,
        tcp_state,
    })
}

fn ends(tuple: &[Tuple]) -> Option<(SocketAddr, SocketAddr, u8)> {
    let (mut source, mut destination): (Option<IpAddr>, Option<IpAddr>) = (None, None);
    let (mut protocol, mut source_port, mut destination_port) = (0, 0, 0);
    for part in tuple {
        match part {
            Tuple::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(ip) => source = Some(*ip),
                        IPTuple::DestinationAddress(ip) => destination = Some(*ip),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(values) => {
                for value in values {
                    match value {
                        ProtoTuple::Protocol(number) => protocol = u8::from(*number),
                        ProtoTuple::SourcePort(port) => source_port = *port,
                        ProtoTuple::DestinationPort(port) => destination_port = *port,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some((
        SocketAddr::new(source?, source_port),
        SocketAddr::new(destination?, destination_port),
        protocol,
    ))
}

/// Entries as text, one a line: protocol, original direction, reply direction, then after `#` what changes by itself.
pub(crate) fn text(entries: &[ConntrackEntry]) -> String {
    let mut out = String::new();
    for e in entries {
        let protocol = match i32::from(e.protocol) {
            libc::IPPROTO_TCP => "tcp".to_owned(),
            libc::IPPROTO_UDP => "udp".to_owned(),
            libc::IPPROTO_SCTP => "sctp".to_owned(),
            libc::IPPROTO_ICMP => "icmp".to_owned(),
            libc::IPPROTO_ICMPV6 => "icmpv6".to_owned(),
            other => format!("proto-{other}"),
        };
        let states = [
            "none",
            "syn-sent",
            "syn-recv",
            "established",
            "fin-wait",
            "close-wait",
            "last-ack",
            "time-wait",
            "close",
        ];
        let state = e.tcp_state.map_or("", |s| {
            states.get(usize::from(s)).copied().unwrap_or("other")
        });
        let flags: Vec<&str> = [
            (0x2, "seen-reply"),
            (0x4, "assured"),
            (0x10, "snat"),
            (0x20, "dnat"),
            (0x200, "dying"),
        ]
        .iter()
        .filter(|(bit, _)| e.status & bit != 0)
        .map(|(_, name)| *name)
        .collect();
        out.push_str(&format!(
            "{protocol} {} -> {} reply {} -> {} mark {:#x} # [{}] {state} {}s\n",
            e.orig_src,
            e.orig_dst,
            e.reply_src,
            e.reply_dst,
            e.mark,
            flags.join(" "),
            e.timeout
        ));
    }
    out
}
