//! The netlink messages that make and change the table.

use netlink_packet_core::{
    DefaultNla, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily,
    nftables::{
        ChainAttribute, ChainMessage, Hook, InetHookNumber, ListAttribute, NfTablesMessage,
        RuleAttribute, RuleMessage, SetAttribute, SetDescription, SetElementAttribute,
        SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute, TableMessage,
    },
};

use super::expression;
use crate::ruleset::{AFFINITY_SIZE, Chain, Family, Rule, SetId, SetKind, TABLE, digest};

pub(super) type Message = NetlinkMessage<NetfilterMessage>;

/// Wraps a message for the table's family.
pub(super) fn wrap(inner: NfTablesMessage, flags: u16) -> Message {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
    let mut message = NetlinkMessage::from(NetfilterMessage::new(header, inner));
    message.header.flags = NLM_F_REQUEST | flags;
    message
}

/// Serialises a message with a sequence number.
pub(super) fn append(buffer: &mut Vec<u8>, message: &mut Message, sequence: u32) {
    message.header.sequence_number = sequence;
    message.finalize();
    debug_assert!(matches!(message.payload, NetlinkPayload::InnerMessage(_)));
    let at = buffer.len();
    let len = message.header.length as usize;
    buffer.resize(at + len.next_multiple_of(4), 0);
    message.serialize(&mut buffer[at..at + len]);
}

/// A comment as `nft` stores it in user data.
fn comment(text: &str) -> Vec<u8> {
    let mut value = text.as_bytes().to_vec();
    value.push(0);
    tlv(0, &value)
}

/// The comment of the table, by which the next process knows whether it understands what is there.
pub(super) fn table_comment() -> Vec<u8> {
    comment(&format!("layout {}", digest()))
}

pub(super) fn new_table() -> Message {
    wrap(
        NfTablesMessage::NewTable(TableMessage {
            attributes: vec![
                TableAttribute::Name(TABLE.into()),
                TableAttribute::UserData(table_comment()),
            ],
        }),
        NLM_F_CREATE,
    )
}

/// The table without its comment: creates it when it is missing and changes nothing when it is there.
pub(super) fn any_table() -> Message {
    wrap(
        NfTablesMessage::NewTable(TableMessage {
            attributes: vec![TableAttribute::Name(TABLE.into())],
        }),
        NLM_F_CREATE,
    )
}

pub(super) fn delete_table() -> Message {
    wrap(
        NfTablesMessage::DeleteTable(TableMessage {
            attributes: vec![TableAttribute::Name(TABLE.into())],
        }),
        0,
    )
}

pub(super) fn new_chain(chain: Chain) -> Message {
    let mut attributes = vec![
        ChainAttribute::Table(TABLE.into()),
        ChainAttribute::Name(chain.to_string()),
    ];
    if let Some(hook) = chain.hook() {
        let number = match hook.hook {
            "prerouting" => InetHookNumber::PreRouting,
            "output" => InetHookNumber::LocalOut,
            _ => InetHookNumber::PostRouting,
        };
        attributes.push(ChainAttribute::Hook(vec![
            Hook::Number(number.into()),
            Hook::Priority(hook.priority as u32),
        ]));
        attributes.push(ChainAttribute::Type(hook.kind.into()));
    }
    wrap(
        NfTablesMessage::NewChain(ChainMessage { attributes }),
        NLM_F_CREATE,
    )
}

pub(super) fn new_rule(chain: Chain, rule: &Rule) -> Message {
    wrap(
        NfTablesMessage::NewRule(RuleMessage {
            attributes: vec![
                RuleAttribute::Table(TABLE.into()),
                RuleAttribute::Chain(chain.to_string()),
                RuleAttribute::Expressions(expression::expressions(rule)),
            ],
        }),
        NLM_F_CREATE | NLM_F_APPEND,
    )
}

// Data types as `nft` numbers them. The kernel only needs lengths; people who list the table need these.
const TYPE_INTEGER: u32 = 4;
const TYPE_IPADDR: u32 = 7;
const TYPE_IP6ADDR: u32 = 8;
const TYPE_INET_PROTOCOL: u32 = 12;
const TYPE_INET_SERVICE: u32 = 13;
const TYPE_VERDICT: u32 = 0xffff_ff00;

/// A concatenation's type: six bits for each part.
fn concat(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, part| all << 6 | part)
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![kind, value.len() as u8];
    out.extend(value);
    out
}

fn number(kind: u8, value: u32) -> Vec<u8> {
    tlv(kind, &value.to_ne_bytes())
}

/// What `nft` stores with a map that was declared with `typeof`, so that it can list the map: the expressions behind key and data.
fn typeof_userdata(family: Family) -> Vec<u8> {
    // Expression numbers, header numbers and field numbers of nft's own enumerations.
    const NUMGEN: u32 = 0x17;
    const META: u32 = 9;
    const PAYLOAD: u32 = 7;
    const CONCAT: u32 = 0x0d;
    const L4PROTO: u32 = 0x10;
    const TRANSPORT_HEADER: u32 = 0x0b;
    let (header, daddr) = match family {
        Family::V4 => (0x0c, 0x0c),
        Family::V6 => (0x0d, 0x09),
    };
    let expression = |kind: u32, parts: &[Vec<u8>]| {
        let mut out = number(0, kind);
        out.extend(tlv(1, &parts.concat()));
        out
    };
    let list = |parts: &[Vec<u8>]| {
        let parts: Vec<Vec<u8>> = parts
            .iter()
            .enumerate()
            .map(|(at, part)| tlv(at as u8, part))
            .collect();
        expression(CONCAT, &parts)
    };
    let random = expression(NUMGEN, &[number(0, 1), number(1, 65536), number(2, 0)]);
    let address = expression(PAYLOAD, &[number(0, header), number(1, daddr)]);
    let protocol = expression(META, &[number(0, L4PROTO)]);
    let port = expression(PAYLOAD, &[number(0, TRANSPORT_HEADER), number(1, 2)]);
    let mut out = number(0, 0);
    out.extend(number(1, 0));
    out.extend(tlv(
        3,
        &list(&[random, address.clone(), protocol, port.clone()]),
    ));
    out.extend(tlv(4, &list(&[address, port])));
    out
}

/// `sequence` tells sets apart within the transaction.
pub(super) fn new_set(set: SetId, sequence: u32) -> Message {
    let (address, bytes) = match set.family {
        Family::V4 => (TYPE_IPADDR, 4),
        Family::V6 => (TYPE_IP6ADDR, 16),
    };
    let frontend = [address, TYPE_INET_PROTOCOL, TYPE_INET_SERVICE];
    let frontend_bytes = bytes + 8;
    let (key_type, key_len) = match set.kind {
        SetKind::Endpoints | SetKind::ExternalEndpoints => (
            concat(&[TYPE_INTEGER, address, TYPE_INET_PROTOCOL, TYPE_INET_SERVICE]),
            4 + frontend_bytes,
        ),
        SetKind::Affinity => (
            concat(&[address, address, TYPE_INET_PROTOCOL, TYPE_INET_SERVICE]),
            bytes + frontend_bytes,
        ),
        SetKind::External
        | SetKind::Services
        | SetKind::Targets
        | SetKind::Masquerade
        | SetKind::Sticky(_)
        | SetKind::Restricted => (concat(&frontend), frontend_bytes),
        SetKind::SourceRanges => (
            concat(&[address, TYPE_INET_PROTOCOL, TYPE_INET_SERVICE, address]),
            frontend_bytes + bytes,
        ),
        SetKind::Hairpin => (concat(&[address, address]), 2 * bytes),
        SetKind::ClusterIps | SetKind::ClusterSources | SetKind::Pods | SetKind::LocalSources => {
            (address, bytes)
        }
    };
    let mut flags = SetFlags::empty();
    let mut attributes = vec![
        SetAttribute::Table(TABLE.into()),
        SetAttribute::Name(set.to_string()),
    ];
    match set.kind {
        SetKind::Affinity => flags |= SetFlags::Timeout | SetFlags::Eval,
        SetKind::ClusterSources | SetKind::Pods | SetKind::LocalSources => {
            flags |= SetFlags::Interval;
        }
        SetKind::SourceRanges => flags |= SetFlags::Interval | SetFlags::Concat,
        _ => {}
    }
    if set.is_map() {
        flags |= SetFlags::Map;
    }
    attributes.push(SetAttribute::Flags(flags));
    attributes.push(SetAttribute::KeyType(key_type));
    attributes.push(SetAttribute::KeyLen(key_len));
    if set.is_verdict_map() {
        attributes.push(SetAttribute::DataType(TYPE_VERDICT));
        attributes.push(SetAttribute::DataLen(0));
    } else if set.is_map() {
        attributes.push(SetAttribute::DataType(concat(&[
            address,
            TYPE_INET_SERVICE,
        ])));
        attributes.push(SetAttribute::DataLen(bytes + 4));
    }
    match set.kind {
        SetKind::Affinity => {
            attributes.push(SetAttribute::Description(vec![SetDescription::Size(
                AFFINITY_SIZE,
            )]))
        }
        SetKind::SourceRanges => {
            let fields = [bytes, 1, 2, bytes].map(field_length).to_vec();
            attributes.push(SetAttribute::Description(vec![SetDescription::Concat(
                fields,
            )]));
        }
        SetKind::Endpoints | SetKind::ExternalEndpoints => {
            attributes.push(SetAttribute::UserData(typeof_userdata(set.family)));
        }
        _ => {}
    }
    attributes.push(SetAttribute::Id(sequence));
    wrap(
        NfTablesMessage::NewSet(SetMessage { attributes }),
        NLM_F_CREATE,
    )
}

/// One field of a ranged concatenation: a list element that holds the attribute `NFTA_SET_FIELD_LEN`.
fn field_length(bytes: u32) -> DefaultNla {
    const NFTA_LIST_ELEM: u16 = 1;
    const NLA_F_NESTED: u16 = 1 << 15;
    const NFTA_SET_FIELD_LEN: u16 = 1;
    let mut value = Vec::with_capacity(8);
    value.extend(8u16.to_ne_bytes());
    value.extend(NFTA_SET_FIELD_LEN.to_ne_bytes());
    value.extend(bytes.to_be_bytes());
    DefaultNla::new(NFTA_LIST_ELEM | NLA_F_NESTED, value)
}

pub(super) fn elements(
    set: SetId,
    elements: Vec<ListAttribute<SetElementAttribute>>,
    add: bool,
) -> Message {
    let message = SetElementMessage {
        attributes: vec![
            SetElementList::Table(TABLE.into()),
            SetElementList::Set(set.to_string()),
            SetElementList::Elements(elements),
        ],
    };
    if add {
        wrap(NfTablesMessage::NewSetElement(message), NLM_F_CREATE)
    } else {
        wrap(NfTablesMessage::DeleteSetElement(message), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What nft 1.0.6 itself stored for the IPv4 map.
    #[test]
    fn typeof_is_what_nft_writes() {
        let written = typeof_userdata(Family::V4);
        assert_eq!(
            &written[..18],
            &[0, 4, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0, 3, 0x60, 0, 4, 0x0d, 0]
        );
        assert_eq!(written.len(), 12 + 2 + 0x60 + 2 + 0x34);
    }
}
