//! Elements as the kernel has them: bytes.
//!
//! Keys and data are concatenations whose fields are each padded to four bytes, addresses and ports in network order, slots in the
//! machine's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, NlaBuffer, NlasIterator};
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, SetElementAttribute, SetElementFlags, Verdict,
};

use super::expression::{drop_verdict, verdict_attributes};
use crate::ruleset::{Chain, Data, Element, Family, Frontend, Key, Protocol, SetId};

const NFTA_DATA_VALUE: u16 = 1;

/// The data of an element in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum WireData {
    /// A set's element has none.
    None,
    /// An address and a port.
    Value(Vec<u8>),
    /// Go to this chain, or drop.
    Verdict(Option<String>),
}

/// What identifies an element within its set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WireKey {
    /// The key, or where a range begins.
    pub(crate) start: Vec<u8>,
    /// Where a range of a concatenation ends.
    pub(crate) end: Option<Vec<u8>>,
    /// Whether this only marks the first address after a range.
    pub(crate) closes: bool,
}

impl WireKey {
    fn plain(start: Vec<u8>) -> Self {
        Self {
            start,
            end: None,
            closes: false,
        }
    }
}

fn push_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
}

fn push_port(out: &mut Vec<u8>, port: u16) {
    out.extend(port.to_be_bytes());
    out.extend([0, 0]);
}

fn push_frontend(out: &mut Vec<u8>, frontend: &Frontend) {
    push_ip(out, frontend.ip);
    out.extend([frontend.protocol.number(), 0, 0, 0]);
    push_port(out, frontend.port);
}

/// The address after `ip`, `None` when it was the last one.
fn next(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => u32::from(ip)
            .checked_add(1)
            .map(|n| Ipv4Addr::from(n).into()),
        IpAddr::V6(ip) => u128::from(ip)
            .checked_add(1)
            .map(|n| Ipv6Addr::from(n).into()),
    }
}

fn last(net: IpNet) -> IpAddr {
    net.broadcast()
}

/// The keys of an element: two for a range of addresses, its beginning and the first address after it, else one.
pub(crate) fn keys(key: &Key) -> Vec<WireKey> {
    let mut bytes = Vec::with_capacity(40);
    match key {
        Key::Frontend(frontend) => push_frontend(&mut bytes, frontend),
        Key::Slot(slot, frontend) => {
            bytes.extend(slot.to_ne_bytes());
            push_frontend(&mut bytes, frontend);
        }
        Key::Ip(ip) => push_ip(&mut bytes, *ip),
        Key::Itself(ip) => {
            push_ip(&mut bytes, *ip);
            push_ip(&mut bytes, *ip);
        }
        Key::Client(ip, frontend) => {
            push_ip(&mut bytes, *ip);
            push_frontend(&mut bytes, frontend);
        }
        Key::Net(net) => {
            push_ip(&mut bytes, net.network());
            let mut keys = vec![WireKey::plain(bytes)];
            if let Some(after) = next(last(*net)) {
                let mut bytes = Vec::new();
                push_ip(&mut bytes, after);
                keys.push(WireKey {
                    closes: true,
                    ..WireKey::plain(bytes)
                });
            }
            return keys;
        }
        Key::Source(frontend, net) => {
            push_frontend(&mut bytes, frontend);
            let mut end = bytes.clone();
            push_ip(&mut bytes, net.network());
            push_ip(&mut end, last(*net));
            return vec![WireKey {
                end: Some(end),
                ..WireKey::plain(bytes)
            }];
        }
    }
    vec![WireKey::plain(bytes)]
}

/// The data of an element.
pub(crate) fn data(element: &Element) -> WireData {
    match element.data {
        Data::None => WireData::None,
        Data::Endpoint(ip, port) => {
            let mut bytes = Vec::with_capacity(20);
            push_ip(&mut bytes, ip);
            push_port(&mut bytes, port);
            WireData::Value(bytes)
        }
        Data::Verdict(verdict) => {
            WireData::Verdict(Chain::of(element.set.family, verdict).map(|c| c.to_string()))
        }
    }
}

/// An element's key as a netlink attribute list, without data.
pub(crate) fn encode_key(key: &WireKey) -> Vec<SetElementAttribute> {
    let mut attributes = Vec::with_capacity(4);
    if key.closes {
        attributes.push(SetElementAttribute::Flags(SetElementFlags::IntervalEnd));
    }
    attributes.push(SetElementAttribute::Key(DataAttribute::Value(
        key.start.clone(),
    )));
    if let Some(end) = &key.end {
        attributes.push(SetElementAttribute::KeyEnd(vec![DefaultNla::new(
            NFTA_DATA_VALUE,
            end.clone(),
        )]));
    }
    attributes
}

/// Appends an element as it is added to its set.
pub(crate) fn encode(element: &Element, out: &mut Vec<ListAttribute<SetElementAttribute>>) {
    for key in keys(&element.key) {
        let mut attributes = encode_key(&key);
        match element.data {
            Data::None => {}
            Data::Endpoint(..) => {
                if let WireData::Value(bytes) = data(element) {
                    attributes.push(SetElementAttribute::Data(DataAttribute::Value(bytes)));
                }
            }
            Data::Verdict(verdict) => {
                let chain = Chain::of(element.set.family, verdict);
                let code = match chain {
                    Some(_) => Verdict::Goto,
                    None => drop_verdict(),
                };
                attributes.push(SetElementAttribute::Data(DataAttribute::Verdict(
                    verdict_attributes(code, chain),
                )));
            }
        }
        out.push(ListAttribute::Element(attributes));
    }
}

/// Appends an element as it is removed from its set.
pub(crate) fn encode_removal(key: &Key, out: &mut Vec<ListAttribute<SetElementAttribute>>) {
    for key in keys(key) {
        out.push(ListAttribute::Element(encode_key(&key)));
    }
}

/// Reads the elements of a message that the kernel listed and hands them to `take`.
///
/// `payload` is what follows the netfilter header. `netlink-packet-netfilter` could parse it, but its lists format the whole payload once
/// for each element in case of an error, and a listing of 20,000 elements takes a minute.
pub(crate) fn decode(payload: &[u8], take: &mut dyn FnMut(WireKey, WireData)) {
    const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
    for list in attributes(payload) {
        if list.kind() == NFTA_SET_ELEM_LIST_ELEMENTS {
            for element in attributes(list.value()) {
                if let Some((key, data)) = decode_element(element.value()) {
                    take(key, data);
                }
            }
        }
    }
}

/// The attributes in a buffer, up to the first that is broken.
fn attributes(buffer: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(buffer).map_while(Result::ok)
}

/// `None` when it has no key: the catch-all element, which this proxy never adds.
fn decode_element(payload: &[u8]) -> Option<(WireKey, WireData)> {
    const NFTA_SET_ELEM_KEY: u16 = 1;
    const NFTA_SET_ELEM_DATA: u16 = 2;
    const NFTA_SET_ELEM_FLAGS: u16 = 3;
    const NFTA_SET_ELEM_KEY_END: u16 = 10;
    const NFTA_DATA_VERDICT: u16 = 2;
    const NFTA_VERDICT_CHAIN: u16 = 2;
    let value = |data: &[u8]| {
        attributes(data)
            .find(|nla| nla.kind() == NFTA_DATA_VALUE)
            .map(|nla| nla.value().to_vec())
    };
    let mut key = WireKey::plain(Vec::new());
    let mut data = WireData::None;
    let mut has_key = false;
    for nla in attributes(payload) {
        match nla.kind() {
            NFTA_SET_ELEM_KEY => {
                key.start = value(nla.value())?;
                has_key = true;
            }
            NFTA_SET_ELEM_KEY_END => key.end = value(nla.value()),
            NFTA_SET_ELEM_FLAGS => {
                let flags = nla.value().first_chunk::<4>().copied().unwrap_or_default();
                key.closes = SetElementFlags::from_bits_retain(u32::from_be_bytes(flags))
                    .contains(SetElementFlags::IntervalEnd);
            }
            NFTA_SET_ELEM_DATA => {
                let verdict = attributes(nla.value()).find(|nla| nla.kind() == NFTA_DATA_VERDICT);
                data = match verdict {
                    None => WireData::Value(value(nla.value())?),
                    Some(verdict) => WireData::Verdict(
                        attributes(verdict.value())
                            .find(|nla| nla.kind() == NFTA_VERDICT_CHAIN)
                            .map(|nla| {
                                String::from_utf8_lossy(nla.value())
                                    .trim_end_matches('\0')
                                    .to_owned()
                            }),
                    ),
                };
            }
            _ => {}
        }
    }
    has_key.then_some((key, data))
}

/// An affinity as the kernel's map has it: who, where to, and which endpoint.
pub(crate) fn decode_affinity(
    set: SetId,
    key: &WireKey,
    data: &WireData,
) -> Option<(IpAddr, Frontend, (IpAddr, u16))> {
    let WireData::Value(data) = data else {
        return None;
    };
    let (client, rest) = take_ip(set.family, &key.start)?;
    let (ip, rest) = take_ip(set.family, rest)?;
    let protocol = Protocol::from_number(*rest.first()?)?;
    let port = take_port(rest.get(4..)?)?;
    let (endpoint, rest) = take_ip(set.family, data)?;
    let frontend = Frontend { ip, protocol, port };
    Some((client, frontend, (endpoint, take_port(rest)?)))
}

fn take_ip(family: Family, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    Some(match family {
        Family::V4 => {
            let (ip, rest) = bytes.split_first_chunk::<4>()?;
            (IpAddr::from(*ip), rest)
        }
        Family::V6 => {
            let (ip, rest) = bytes.split_first_chunk::<16>()?;
            (IpAddr::from(*ip), rest)
        }
    })
}

fn take_port(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.first_chunk::<2>()?))
}
