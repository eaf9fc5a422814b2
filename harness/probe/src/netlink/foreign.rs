//! Tables of somebody else: made and removed to see whether a proxy respects them; the flush that respects nobody; and tables that are
//! kept from everybody, so that a proxy cannot program the kernel.

use std::io;

use anyhow::Context;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE};

use super::{
    Message, NFNL_SUBSYS_NFTABLES, Netlink, nest, netfilter_kind, netfilter_payload, number, text,
    text_of,
};

const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;

const NEWTABLE: u8 = 0;
const GETTABLE: u8 = 1;
const DELTABLE: u8 = 2;
const NEWCHAIN: u8 = 3;
const NEWRULE: u8 = 6;
const NEWSET: u8 = 9;
const NEWSETELEM: u8 = 12;

const NF_INET_FORWARD: u32 = 2;
const NF_ACCEPT: u32 = 1;
const NFT_SET_MAP: u32 = 8;
/// Only the socket that made the table may change it (Linux 5.12).
const NFT_TABLE_F_OWNER: u32 = 2;
// Datatype numbers of nft, which only it gives a meaning to.
const TYPE_IPADDR: u32 = 7;
const TYPE_INET_SERVICE: u32 = 13;

fn open() -> io::Result<Netlink> {
    Netlink::open(netlink_sys::protocols::NETLINK_NETFILTER)
}

fn message(kind: u8, family: u8, attributes: &[DefaultNla]) -> Message {
    let flags = if kind == DELTABLE { 0 } else { NLM_F_CREATE };
    Message {
        kind: netfilter_kind(NFNL_SUBSYS_NFTABLES, kind),
        flags,
        payload: netfilter_payload(family, attributes),
    }
}

/// Removes every table of every family.
pub(crate) fn flush_ruleset() -> anyhow::Result<()> {
    open()?
        .transaction(&[message(DELTABLE, NFPROTO_UNSPEC, &[])])
        .context("the ruleset cannot be flushed")
}

/// Tables that belong to this socket. They are gone when it is closed.
pub(crate) struct Seized {
    netlink: Netlink,
    /// Family and name.
    tables: Vec<(u8, String)>,
}

/// How often tables that came or went between the look and the transaction are looked at again.
const TRIES: usize = 20;

/// Replaces every table by an empty one that only the returned value may change.
pub(crate) fn seize() -> anyhow::Result<Seized> {
    let mut netlink = open()?;
    for _ in 0..TRIES {
        let tables = tables(&mut netlink)?;
        let messages: Vec<Message> = tables
            .iter()
            .flat_map(|(family, name)| {
                [
                    message(DELTABLE, *family, &[text(1, name)]),
                    message(
                        NEWTABLE,
                        *family,
                        &[text(1, name), number(2, NFT_TABLE_F_OWNER)],
                    ),
                ]
            })
            .collect();
        match netlink.transaction(&messages) {
            Ok(()) => return Ok(Seized { netlink, tables }),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            Err(e) => return Err(e).context("the tables cannot be seized"),
        }
    }
    anyhow::bail!("the tables come and go too fast to be seized")
}

impl Seized {
    /// Removes the tables, as whoever owned them before has to notice.
    pub fn release(mut self) -> anyhow::Result<()> {
        let there = tables(&mut self.netlink)?;
        for table in &self.tables {
            anyhow::ensure!(
                there.contains(table),
                "table {} was seized and is gone",
                table.1
            );
        }
        let messages: Vec<Message> = self
            .tables
            .iter()
            .map(|(family, name)| message(DELTABLE, *family, &[text(1, name)]))
            .collect();
        self.netlink
            .transaction(&messages)
            .context("the seized tables cannot be removed")
    }
}

/// Family and name of every table.
fn tables(netlink: &mut Netlink) -> anyhow::Result<Vec<(u8, String)>> {
    let kind = netfilter_kind(NFNL_SUBSYS_NFTABLES, GETTABLE);
    let (found, _) = netlink
        .dump_all(kind, &netfilter_payload(NFPROTO_UNSPEC, &[]))
        .context("nftables cannot be read")?;
    Ok(found
        .into_iter()
        .filter_map(|(_, payload)| {
            let family = *payload.first()?;
            Some((family, text_of(payload.get(4..)?, 1)?))
        })
        .collect())
}

/// Removes tables, named as in a dump: `ip nat`.
pub(crate) fn delete(names: &[String]) -> anyhow::Result<()> {
    let mut netlink = open()?;
    for (family, name) in tables(&mut netlink)? {
        let shown = format!("{} {name}", super::ruleset_text::family(family));
        if !names.contains(&shown) {
            continue;
        }
        match netlink.transaction(&[message(DELTABLE, family, &[text(1, &name)])]) {
            // Its owner was faster.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            result => result.with_context(|| format!("table {shown} cannot be removed"))?,
        }
    }
    Ok(())
}

/// Makes or removes a table that counts forwarded packets and lets them pass.
pub(crate) fn set_table(name: &str, present: bool) -> anyhow::Result<()> {
    let mut netlink = open()?;
    // Whatever it held before, it shall be as new.
    let removed = netlink.transaction(&[message(DELTABLE, NFPROTO_INET, &[text(1, name)])]);
    match removed {
        Err(e) if e.raw_os_error() != Some(libc::ENOENT) => {
            return Err(e).context("the table cannot be removed");
        }
        _ => {}
    }
    if !present {
        return Ok(());
    }
    let element = |attributes: &[DefaultNla]| nest(1, attributes);
    let value = |kind: u16, bytes: &[u8]| nest(kind, &[DefaultNla::new(1, bytes.to_vec())]);
    let counter = nest(1, &[text(1, "counter"), nest(2, &[])]);
    let messages = [
        message(NEWTABLE, NFPROTO_INET, &[text(1, name), number(2, 0)]),
        message(
            NEWSET,
            NFPROTO_INET,
            &[
                text(1, name),
                text(2, "watched"),
                number(3, 0),
                number(4, TYPE_IPADDR),
                number(5, 4),
                number(10, 1),
            ],
        ),
        message(
            NEWSET,
            NFPROTO_INET,
            &[
                text(1, name),
                text(2, "redirects"),
                number(3, NFT_SET_MAP),
                number(4, TYPE_INET_SERVICE),
                number(5, 2),
                number(6, TYPE_IPADDR),
                number(7, 4),
                number(10, 2),
            ],
        ),
        message(
            NEWCHAIN,
            NFPROTO_INET,
            &[
                text(1, name),
                text(3, "forward"),
                nest(4, &[number(1, NF_INET_FORWARD), number(2, 0)]),
                number(5, NF_ACCEPT),
                text(7, "filter"),
            ],
        ),
        message(
            NEWRULE,
            NFPROTO_INET,
            &[text(1, name), text(2, "forward"), nest(4, &[counter])],
        ),
        message(
            NEWSETELEM,
            NFPROTO_INET,
            &[
                text(1, name),
                text(2, "watched"),
                nest(3, &[element(&[value(1, &[192, 0, 2, 1])])]),
            ],
        ),
        message(
            NEWSETELEM,
            NFPROTO_INET,
            &[
                text(1, name),
                text(2, "redirects"),
                nest(
                    3,
                    &[element(&[
                        value(1, &8080u16.to_be_bytes()),
                        value(2, &[192, 0, 2, 2]),
                    ])],
                ),
            ],
        ),
    ];
    netlink
        .transaction(&messages)
        .with_context(|| format!("table inet {name} cannot be made"))
}
