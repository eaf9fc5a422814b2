//! Tables of somebody else: made and removed to see whether a proxy respects them; and the flush that respects nobody.

use std::io;

use anyhow::Context;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE};

use super::{
    Message, NFNL_SUBSYS_NFTABLES, Netlink, nest, netfilter_kind, netfilter_payload, number, text,
};

const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;

const NEWTABLE: u8 = 0;
const DELTABLE: u8 = 2;
const NEWCHAIN: u8 = 3;
const NEWRULE: u8 = 6;
const NEWSET: u8 = 9;
const NEWSETELEM: u8 = 12;

const NF_INET_FORWARD: u32 = 2;
const NF_ACCEPT: u32 = 1;
const NFT_SET_MAP: u32 = 8;
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
