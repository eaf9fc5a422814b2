//! Connection tracking entries: read them all, remove them all.

use std::io;
use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use netlink_packet_core::ParseableParametrized;
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Tuple,
};

use super::{NFNL_SUBSYS_CTNETLINK, Netlink, netfilter_kind, netfilter_payload};
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
