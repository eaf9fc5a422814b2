//! Conntrack over netlink: list the UDP entries, delete some of them.
//!
//! Messages are built with `netlink-packet-netfilter`. Listings are read with the attribute iterators of `netlink-packet-core` and not
//! with the message types: those make about fifteen allocations per entry, and a node that serves DNS has 50,000 entries.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily,
    conntrack::{ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple},
};
use netlink_sys::{
    Socket as NetlinkSocket, SocketAddr as NetlinkAddr, protocols::NETLINK_NETFILTER,
};

use super::UdpEntry;

// `enum ctattr_type` of linux/netfilter/nfnetlink_conntrack.h, as far as the library has no name for it or we read it raw.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
// Bits of the kernel's net/netfilter/nf_internals.h. They are part of its interface: user space sends them in CTA_FILTER.
const FILTER_IP_DST: u32 = 1 << 1;
const FILTER_PROTO_NUM: u32 = 1 << 3;
const FILTER_PROTO_DST_PORT: u32 = 1 << 5;
// `enum ctattr_tuple`, `ctattr_ip` and `ctattr_l4proto`.
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

const NLA_F_NESTED: u16 = 0x8000;
const IPPROTO_UDP: u8 = 17;
const IPCTNL_MSG_CT_GET: u8 = 1;
const IPCTNL_MSG_CT_DELETE: u8 = 2;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`: what a listing consists of.
const CT_NEW: u16 = 0x0100;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NFGENMSG_LEN: usize = 4;

/// Deletions per `sendmsg`. The kernel answers before `sendmsg` returns, one message for each that fails, so all those answers have to fit
/// into the socket's default receive buffer (about 1 KiB of accounting each, of 208 KiB).
const DELETES_PER_BATCH: usize = 64;
/// The kernel makes listing messages of at most 32 KiB.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// The address family of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    pub(super) fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() {
            Self::Ipv4
        } else {
            Self::Ipv6
        }
    }

    fn header(self) -> NetfilterHeader {
        let family = match self {
            Self::Ipv4 => NetfilterProtoFamily::IPv4,
            Self::Ipv6 => NetfilterProtoFamily::IPv6,
        };
        NetfilterHeader::new(family, 0, 0)
    }
}

/// What the kernel should compare before it lists an entry, beyond family and protocol.
///
/// A kernel before 5.8 knows no such filter and lists everything: callers must look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DumpFilter {
    /// Only entries with this original destination address. IPv4 only: Linux gets the IPv6 comparison wrong.
    pub(super) addr: Option<IpAddr>,
    /// Only entries with this original destination port.
    pub(super) port: Option<u16>,
}

/// How a listing went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    /// UDP entries seen.
    pub(super) entries: usize,
    /// The table changed under the listing in a way that may have hidden entries.
    pub(super) interrupted: bool,
}

/// What names one entry for deletion: the attributes as the kernel wrote them, so that nothing is lost in translation.
#[derive(Clone, Debug)]
pub(super) struct Key {
    tuple: Vec<u8>,
    zone: Option<[u8; 2]>,
    /// Guards against deleting a younger entry that happens to have the same tuple.
    id: Option<[u8; 4]>,
}

/// A [`Key`] that still lies in the receive buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyRef<'a> {
    tuple: &'a [u8],
    zone: Option<[u8; 2]>,
    id: Option<[u8; 4]>,
}

impl KeyRef<'_> {
    pub(super) fn to_owned(self) -> Key {
        Key {
            tuple: self.tuple.to_vec(),
            zone: self.zone,
            id: self.id,
        }
    }
}

/// A netlink socket to the conntrack table.
#[derive(Debug)]
pub(super) struct Socket {
    socket: NetlinkSocket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = NetlinkSocket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddr::new(0, 0))?;
        // Errors need not quote the request: that keeps a batch of answers small. Kernels before 4.3 cannot, and need not.
        let _ = socket.set_cap_ack(true);
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; RECEIVE_BUFFER],
        })
    }

    /// Lists the UDP entries of `family` that pass `filter` and calls `each` for them.
    pub(super) fn dump_udp(
        &mut self,
        family: Family,
        filter: DumpFilter,
        mut each: impl FnMut(&UdpEntry, KeyRef<'_>),
    ) -> io::Result<Listed> {
        match self.dump(family, Some(filter), &mut each) {
            // A kernel that knows filters but not this one says so instead of ignoring it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                self.dump(family, None, &mut each)
            }
            outcome => outcome,
        }
    }

    fn dump(
        &mut self,
        family: Family,
        filter: Option<DumpFilter>,
        each: &mut impl FnMut(&UdpEntry, KeyRef<'_>),
    ) -> io::Result<Listed> {
        let sequence = self.next_sequence();
        let attributes = filter.map(filter_attributes).unwrap_or_default();
        let request = message(
            NLM_F_REQUEST | NLM_F_DUMP,
            sequence,
            family,
            IPCTNL_MSG_CT_GET,
            attributes,
        );
        self.send(&request)?;

        let mut listed = Listed {
            entries: 0,
            interrupted: false,
        };
        // The listing is read to its end in any case: a listing left half read makes the next one fail with EBUSY.
        self.receive(sequence, |kind, flags, payload| {
            listed.interrupted |= flags & NLM_F_DUMP_INTR != 0;
            match kind {
                NLMSG_DONE => {
                    let code = status(payload);
                    match -code {
                        0 => Some(Ok(())),
                        libc::EINTR => {
                            listed.interrupted = true;
                            Some(Ok(()))
                        }
                        errno => Some(Err(io::Error::from_raw_os_error(errno))),
                    }
                }
                NLMSG_ERROR => match -status(payload) {
                    0 => None,
                    errno => Some(Err(io::Error::from_raw_os_error(errno))),
                },
                CT_NEW => {
                    if let Some((entry, key)) = parse_udp(payload) {
                        listed.entries += 1;
                        each(&entry, key);
                    }
                    None
                }
                _ => None,
            }
        })?;
        Ok(listed)
    }

    /// Deletes the entries named by `keys` and returns how many of them existed.
    ///
    /// All are tried; the first error that is not "no such entry" is returned at the end.
    pub(super) fn delete(&mut self, family: Family, keys: &[Key]) -> io::Result<usize> {
        let mut deleted = 0;
        let mut first_error = None;
        for batch in keys.chunks(DELETES_PER_BATCH) {
            let mut bytes = Vec::with_capacity(batch.len() * 128);
            let mut last = 0;
            for (index, key) in batch.iter().enumerate() {
                last = self.next_sequence();
                // One acknowledgement at the end of the batch is enough: errors are reported without being asked for.
                let ack = if index + 1 == batch.len() {
                    NLM_F_ACK
                } else {
                    0
                };
                let attributes = key_attributes(key);
                bytes.extend(message(
                    NLM_F_REQUEST | ack,
                    last,
                    family,
                    IPCTNL_MSG_CT_DELETE,
                    attributes,
                ));
            }
            let first = last.wrapping_sub(batch.len() as u32 - 1);
            self.send(&bytes)?;
            let mut failed = 0;
            self.receive_batch(first, last, |errno| {
                failed += 1;
                if errno != libc::ENOENT && first_error.is_none() {
                    first_error = Some(io::Error::from_raw_os_error(errno));
                }
            })?;
            deleted += batch.len() - failed;
        }
        first_error.map_or(Ok(deleted), Err)
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads messages with this sequence number until `each` returns something. Leftovers of earlier requests are passed over.
    fn receive(
        &mut self,
        sequence: u32,
        mut each: impl FnMut(u16, u16, &[u8]) -> Option<io::Result<()>>,
    ) -> io::Result<()> {
        self.receive_all(|got, kind, flags, payload| {
            (got == sequence)
                .then(|| each(kind, flags, payload))
                .flatten()
        })
    }

    /// Reads the answers to the messages `first..=last`, the last of which asked for an acknowledgement, and reports the failures.
    fn receive_batch(
        &mut self,
        first: u32,
        last: u32,
        mut failure: impl FnMut(i32),
    ) -> io::Result<()> {
        let span = last.wrapping_sub(first);
        self.receive_all(|got, kind, _, payload| {
            if kind != NLMSG_ERROR || got.wrapping_sub(first) > span {
                return None;
            }
            let errno = -status(payload);
            if errno != 0 {
                failure(errno);
            }
            (got == last).then_some(Ok(()))
        })
    }

    fn receive_all(
        &mut self,
        mut each: impl FnMut(u32, u16, u16, &[u8]) -> Option<io::Result<()>>,
    ) -> io::Result<()> {
        loop {
            let size = match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(size) => size.min(self.buffer.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut rest = &self.buffer[..size];
            let mut outcome = None;
            while let Ok(packet) = NetlinkBuffer::new_checked(rest) {
                let length = packet.length() as usize;
                if outcome.is_none() {
                    outcome = each(
                        packet.sequence_number(),
                        packet.message_type(),
                        packet.flags(),
                        &rest[16..length],
                    );
                }
                // Lengths need not be multiples of four, the distance to the next message is; the last one may end without padding.
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    }
}

/// The status at the start of an acknowledgement, an error or the end of a listing: zero or a negative errno.
fn status(payload: &[u8]) -> i32 {
    payload
        .first_chunk()
        .map_or(0, |bytes| i32::from_ne_bytes(*bytes))
}

/// Attributes travel as plain ones, because `ConntrackAttribute::Other` drops the nested flag, without which the kernel refuses a filter.
fn message(
    flags: u16,
    sequence: u32,
    family: Family,
    message_type: u8,
    attributes: Vec<DefaultNla>,
) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let body = ConntrackMessage::Other {
        message_type,
        attributes,
    };
    let mut message = NetlinkMessage::new(
        header,
        NetlinkPayload::from(NetfilterMessage::new(family.header(), body)),
    );
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn filter_attributes(filter: DumpFilter) -> Vec<DefaultNla> {
    let mut flags = FILTER_PROTO_NUM;
    let mut tuple = Vec::new();
    if let Some(addr) = filter.addr {
        flags |= FILTER_IP_DST;
        tuple.push(Tuple::Ip(vec![IPTuple::DestinationAddress(addr)]));
    }
    let mut proto = vec![ProtoTuple::Protocol(Protocol::Udp)];
    if let Some(port) = filter.port {
        flags |= FILTER_PROTO_DST_PORT;
        proto.push(ProtoTuple::DestinationPort(port));
    }
    tuple.push(Tuple::Proto(proto));

    let flags = [
        DefaultNla::new(CTA_FILTER_ORIG_FLAGS, flags.to_ne_bytes().to_vec()),
        DefaultNla::new(CTA_FILTER_REPLY_FLAGS, 0u32.to_ne_bytes().to_vec()),
    ];
    vec![
        nested(CTA_TUPLE_ORIG, &tuple[..]),
        nested(CTA_FILTER, &flags[..]),
    ]
}

fn nested(kind: u16, content: impl Emitable) -> DefaultNla {
    let mut value = vec![0; content.buffer_len()];
    content.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

fn key_attributes(key: &Key) -> Vec<DefaultNla> {
    let other = |kind, value: &[u8]| DefaultNla::new(kind, value.to_vec());
    let mut attributes = vec![other(CTA_TUPLE_ORIG | NLA_F_NESTED, &key.tuple)];
    attributes.extend(key.zone.map(|zone| other(CTA_ZONE, &zone)));
    attributes.extend(key.id.map(|id| other(CTA_ID, &id)));
    attributes
}

/// Both ends of one direction of an entry.
struct Ends {
    source: SocketAddr,
    destination: SocketAddr,
}

/// Reads one listed entry; `None` when it is not UDP or not understood.
fn parse_udp(payload: &[u8]) -> Option<(UdpEntry, KeyRef<'_>)> {
    let attributes = payload.get(NFGENMSG_LEN..)?;
    let mut original = None;
    let mut reply = None;
    let mut zone = None;
    let mut id = None;
    let mut rest = attributes;
    while let Some((kind, value)) = next_attribute(&mut rest) {
        match kind {
            CTA_TUPLE_ORIG => original = Some((parse_udp_tuple(value)?, value)),
            CTA_TUPLE_REPLY => reply = Some(parse_udp_tuple(value)?),
            CTA_ZONE => zone = value.try_into().ok(),
            CTA_ID => id = value.try_into().ok(),
            _ => {}
        }
    }
    let (original, tuple) = original?;
    let entry = UdpEntry {
        original_destination: original.destination,
        reply_source: reply?.source,
    };
    Some((entry, KeyRef { tuple, zone, id }))
}

fn parse_udp_tuple(tuple: &[u8]) -> Option<Ends> {
    let (mut source, mut destination) = (None, None);
    let (mut source_port, mut destination_port) = (None, None);
    let mut protocol = None;
    let mut rest = tuple;
    while let Some((kind, mut nested)) = next_attribute(&mut rest) {
        match kind {
            CTA_TUPLE_IP => {
                while let Some((kind, value)) = next_attribute(&mut nested) {
                    match kind {
                        CTA_IP_V4_SRC | CTA_IP_V6_SRC => source = ip(value),
                        CTA_IP_V4_DST | CTA_IP_V6_DST => destination = ip(value),
                        _ => {}
                    }
                }
            }
            CTA_TUPLE_PROTO => {
                while let Some((kind, value)) = next_attribute(&mut nested) {
                    match kind {
                        CTA_PROTO_NUM => protocol = value.first().copied(),
                        CTA_PROTO_SRC_PORT => source_port = port(value),
                        CTA_PROTO_DST_PORT => destination_port = port(value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if protocol != Some(IPPROTO_UDP) {
        return None;
    }
    Some(Ends {
        source: SocketAddr::new(source?, source_port?),
        destination: SocketAddr::new(destination?, destination_port?),
    })
}

/// Takes the next attribute off `rest`. The borrow is that of the receive buffer, which the library's own accessors do not pass on.
fn next_attribute<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let attribute = NlasIterator::new(*rest).next()?.ok()?;
    let length = usize::from(attribute.length());
    let value = rest.get(4..length)?;
    let kind = attribute.kind();
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, value))
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => value
            .first_chunk()
            .map(|b: &[u8; 4]| Ipv4Addr::from(*b).into()),
        16 => value
            .first_chunk()
            .map(|b: &[u8; 16]| Ipv6Addr::from(*b).into()),
        _ => None,
    }
}

fn port(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}
