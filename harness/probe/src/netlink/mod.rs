//! Netlink, synchronously: requests with acknowledgement, dumps, and nftables transactions.
//!
//! Attributes are encoded and decoded by the netlink-packet crates; this is only the conversation.

pub(crate) mod churn;
pub(crate) mod conntrack;
pub(crate) mod foreign;
pub(crate) mod pressure;
pub(crate) mod route;
pub(crate) mod ruleset;
mod ruleset_text;

use std::io;
use std::os::fd::AsRawFd;

use netlink_packet_core::{
    DefaultNla, Emitable, NLA_F_NESTED, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NetlinkBuffer, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr};

use crate::sys;

/// Larger than any message the kernel makes for a dump.
const RECEIVE: usize = 128 << 10;
const HEADER: usize = 16;

/// A netlink socket and its sequence numbers.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Messages of a dump: type and payload.
pub(crate) type Dumped = Vec<(u16, Vec<u8>)>;

/// A message to send: type, flags besides `NLM_F_REQUEST`, and what follows the netlink header.
pub(crate) struct Message {
    pub kind: u16,
    pub flags: u16,
    pub payload: Vec<u8>,
}

impl Netlink {
    /// Opens a socket of a protocol such as `NETLINK_ROUTE` in the namespace of the calling thread.
    pub fn open(protocol: isize) -> io::Result<Netlink> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        // The kernel answers at once; should an answer be lost nobody may wait for ever.
        let limit = libc::timeval {
            tv_sec: 20,
            tv_usec: 0,
        };
        sys::set_option(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            limit,
        )?;
        Ok(Netlink {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE),
        })
    }

    /// Sends a request and waits until the kernel has done it.
    pub fn request(&mut self, kind: u16, flags: u16, payload: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let sequence = self.sequence;
        self.send(&encode(
            kind,
            flags | NLM_F_REQUEST | NLM_F_ACK,
            sequence,
            payload,
        ))?;
        loop {
            let mut done = None;
            self.receive(|message| {
                if message.sequence_number() == sequence && message.message_type() == NLMSG_ERROR {
                    done = Some(acknowledgement(message.payload()));
                }
            })?;
            if let Some(result) = done {
                return result;
            }
        }
    }

    /// Dumps; `each` gets type and payload of every message. Answers whether the kernel marked the dump as interrupted: something changed
    /// meanwhile, and entries may be missing or double.
    pub fn dump(
        &mut self,
        kind: u16,
        payload: &[u8],
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<bool> {
        self.sequence += 1;
        let sequence = self.sequence;
        self.send(&encode(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, payload))?;
        let mut interrupted = false;
        loop {
            let mut done = None;
            self.receive(|message| {
                if message.sequence_number() != sequence || done.is_some() {
                    return;
                }
                interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                match message.message_type() {
                    NLMSG_DONE => done = Some(acknowledgement(message.payload())),
                    NLMSG_ERROR => done = Some(acknowledgement(message.payload())),
                    NLMSG_NOOP => {}
                    kind => each(kind, message.payload()),
                }
            })?;
            match done {
                Some(Ok(())) => return Ok(interrupted),
                Some(Err(e)) => return Err(e),
                None => {}
            }
        }
    }

    /// Dumps into a list, again when interrupted, at most ten times. The flag tells whether the last was interrupted too.
    pub fn dump_all(&mut self, kind: u16, payload: &[u8]) -> io::Result<(Dumped, bool)> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut all = Vec::new();
            match self.dump(kind, payload, |kind, payload| {
                all.push((kind, payload.to_vec()))
            }) {
                Ok(interrupted) if !interrupted || tries == 10 => return Ok((all, interrupted)),
                Ok(_) => {}
                // nftables refuses to go on with a dump after a change.
                Err(e) if e.raw_os_error() == Some(libc::EINTR) && tries < 10 => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Runs messages as one nftables transaction.
    pub fn transaction(&mut self, messages: &[Message]) -> io::Result<()> {
        const BATCH_BEGIN: u16 = 0x10;
        const BATCH_END: u16 = 0x11;
        let batch_header = [0, 0, 0, NFNL_SUBSYS_NFTABLES];
        self.sequence += 1;
        let mut bytes = encode(BATCH_BEGIN, NLM_F_REQUEST, self.sequence, &batch_header);
        let first = self.sequence + 1;
        for message in messages {
            self.sequence += 1;
            let flags = message.flags | NLM_F_REQUEST | NLM_F_ACK;
            bytes.extend(encode(message.kind, flags, self.sequence, &message.payload));
        }
        let last = self.sequence;
        self.sequence += 1;
        bytes.extend(encode(
            BATCH_END,
            NLM_F_REQUEST,
            self.sequence,
            &batch_header,
        ));
        self.send(&bytes)?;
        let mut failed = None;
        let mut answered = 0;
        while answered < messages.len() {
            self.receive(|message| {
                let in_batch = (first - 1..=last + 1).contains(&message.sequence_number());
                if in_batch && message.message_type() == NLMSG_ERROR {
                    let result = acknowledgement(message.payload());
                    // An error of the batch itself comes alone.
                    let of_batch = !(first..=last).contains(&message.sequence_number());
                    answered = if of_batch {
                        messages.len()
                    } else {
                        answered + 1
                    };
                    failed = failed.take().or(result.err());
                }
            })?;
        }
        failed.map_or(Ok(()), Err)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket
            .send_to(bytes, &SocketAddr::new(0, 0), 0)
            .map(|_| ())
    }

    fn receive(&mut self, mut each: impl FnMut(&NetlinkBuffer<&[u8]>)) -> io::Result<()> {
        self.buffer.clear();
        self.socket.recv(&mut self.buffer, 0)?;
        let mut rest = self.buffer.as_slice();
        while rest.len() >= HEADER {
            let Ok(message) = NetlinkBuffer::new_checked(rest) else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "malformed netlink message",
                ));
            };
            each(&message);
            let length = (message.length() as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(())
    }
}

fn encode(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = HEADER + payload.len();
    let mut bytes = vec![0; length.next_multiple_of(4)];
    let mut header = NetlinkBuffer::new(&mut bytes);
    header.set_length(length as u32);
    header.set_message_type(kind);
    header.set_flags(flags);
    header.set_sequence_number(sequence);
    bytes[HEADER..length].copy_from_slice(payload);
    bytes
}

/// The result in an `NLMSG_ERROR` or `NLMSG_DONE`: a negative error number or 0.
fn acknowledgement(payload: &[u8]) -> io::Result<()> {
    let code = payload
        .get(..4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, i32::from_ne_bytes);
    if code < 0 {
        Err(io::Error::from_raw_os_error(-code))
    } else {
        Ok(())
    }
}

const NFNL_SUBSYS_CTNETLINK: u8 = 1;
const NFNL_SUBSYS_NFTABLES: u8 = 10;

/// A netfilter message type.
fn netfilter_kind(subsystem: u8, message: u8) -> u16 {
    u16::from(subsystem) << 8 | u16::from(message)
}

/// `struct nfgenmsg` followed by attributes.
fn netfilter_payload(family: u8, attributes: &[DefaultNla]) -> Vec<u8> {
    let mut payload = vec![0; 4 + attributes.buffer_len()];
    payload[0] = family;
    attributes.emit(&mut payload[4..]);
    payload
}

/// A nested attribute.
fn nest(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let mut value = vec![0; attributes.buffer_len()];
    attributes.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

/// A string attribute.
fn text(kind: u16, value: &str) -> DefaultNla {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    DefaultNla::new(kind, bytes)
}

/// A big-endian number attribute.
fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

/// Attributes of a message or nest, by type; stops at a malformed one.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|nla| {
        let value = nla.into_inner();
        let length = usize::from(u16::from_ne_bytes([value[0], value[1]]));
        let kind = u16::from_ne_bytes([value[2], value[3]]) & netlink_packet_core::NLA_TYPE_MASK;
        (kind, &value[4..length])
    })
}

/// The first attribute of a type.
fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(k, _)| *k == kind)
        .map(|(_, value)| value)
}

/// A string attribute of a type.
fn text_of(bytes: &[u8], kind: u16) -> Option<String> {
    attribute(bytes, kind).map(string)
}

/// A zero-terminated string.
fn string(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// A big-endian `u32` attribute of a type.
fn number_of(bytes: &[u8], kind: u16) -> Option<u32> {
    attribute(bytes, kind)
        .and_then(|v| v.try_into().ok())
        .map(u32::from_be_bytes)
}
