//! Many entries in the connection tracking table of the namespace, of flows that are nobody's.
//!
//! They are made over ctnetlink, which costs microseconds each, and are entries like any other: lookups meet them, dumps list them, and whoever
//! cleans up has to leave them alone. The limit of the table is the machine's, and read-only in a namespace; what is asked for here stays far below.

use std::io;
use std::net::Ipv4Addr;

use anyhow::{Context, ensure};
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};

use super::{NFNL_SUBSYS_CTNETLINK, Netlink, conntrack, netfilter_kind, netfilter_payload, number};
use crate::proto::{ConntrackEntry, ConntrackTable};
use crate::sysctl;

const NEW: u8 = 0;
const DELETE: u8 = 2;

/// Sources: the benchmark range 198.18.0.0/15.
const SOURCES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// The number of addresses in it, and so the most entries.
const MOST: u32 = 1 << 17;
/// Destination: an address for documentation.
const DESTINATION: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);
const SOURCE_PORT: u16 = 40_000;
const DESTINATION_PORT: u16 = 53;
/// Longer than any attempt.
const TIMEOUT_SECONDS: u32 = 3_600;

fn source(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(SOURCES) + number)
}

/// Adds entries; those that are there already are fine.
pub(crate) fn fill(entries: u32) -> anyhow::Result<ConntrackTable> {
    ensure!(entries <= MOST, "{entries} entries are more than {MOST}");
    let (used, limit) = (read("netfilter/nf_conntrack_count")?, limit()?);
    // With a full table everybody's new flows are dropped: that would be another fault.
    ensure!(
        u64::from(used) + u64::from(entries) <= u64::from(limit) / 2,
        "{entries} entries beside {used} would take more than half of the table, which holds {limit}"
    );
    let mut netlink = Netlink::open(netlink_sys::protocols::NETLINK_NETFILTER)?;
    let kind = netfilter_kind(NFNL_SUBSYS_CTNETLINK, NEW);
    for number in 0..entries {
        match netlink.request(kind, NLM_F_CREATE | NLM_F_EXCL, &message(number)) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
            made => made.with_context(|| format!("cannot make conntrack entry {number}"))?,
        }
    }
    table()
}

/// Tells how many of the entries are left, and removes them.
pub(crate) fn drain() -> anyhow::Result<ConntrackTable> {
    let table = table()?;
    let mut netlink = Netlink::open(netlink_sys::protocols::NETLINK_NETFILTER)?;
    let kind = netfilter_kind(NFNL_SUBSYS_CTNETLINK, DELETE);
    for entry in own()? {
        let std::net::IpAddr::V4(source) = entry.orig_src.ip() else {
            continue;
        };
        let tuple = [tuple(
            1,
            (source, SOURCE_PORT),
            (DESTINATION, DESTINATION_PORT),
        )];
        match netlink.request(kind, 0, &netfilter_payload(libc::AF_INET as u8, &tuple)) {
            // It expired, or somebody was faster.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            removed => removed.context("cannot remove a conntrack entry")?,
        }
    }
    Ok(table)
}

fn table() -> anyhow::Result<ConntrackTable> {
    Ok(ConntrackTable {
        own: own()?.len() as u32,
        entries: read("netfilter/nf_conntrack_count")?,
        limit: limit()?,
    })
}

fn own() -> anyhow::Result<Vec<ConntrackEntry>> {
    let mut entries = conntrack::entries()?;
    entries.retain(|entry| {
        entry.orig_dst == (DESTINATION, DESTINATION_PORT).into()
            && entry.orig_src.port() == SOURCE_PORT
    });
    Ok(entries)
}

fn limit() -> anyhow::Result<u32> {
    read("netfilter/nf_conntrack_max")
}

fn read(name: &str) -> anyhow::Result<u32> {
    let text = sysctl::read(name)?;
    text.parse()
        .with_context(|| format!("{name} holds {text:?}, which is no number"))
}

/// A confirmed UDP flow that has seen replies.
fn message(entry: u32) -> Vec<u8> {
    const CTA_STATUS: u16 = 3;
    const CTA_TIMEOUT: u16 = 7;
    const SEEN_REPLY_ASSURED_CONFIRMED: u32 = 0x2 | 0x4 | 0x8;
    let (client, server) = (
        (source(entry), SOURCE_PORT),
        (DESTINATION, DESTINATION_PORT),
    );
    netfilter_payload(
        libc::AF_INET as u8,
        &[
            tuple(1, client, server),
            tuple(2, server, client),
            number(CTA_STATUS, SEEN_REPLY_ASSURED_CONFIRMED),
            number(CTA_TIMEOUT, TIMEOUT_SECONDS),
        ],
    )
}

/// One direction of a UDP flow over IPv4; `kind` is 1 for the original and 2 for the reply.
fn tuple(kind: u16, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> DefaultNla {
    conntrack::tuple(kind, libc::IPPROTO_UDP as u8, from.into(), to.into())
}
