//! A netfilter netlink socket that knows batches and dumps.

use std::{io, mem, os::fd::AsRawFd as _};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NetlinkBuffer, NetlinkMessage};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily, none::ControlMessage,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::message::{Message, append};

const NFNL_SUBSYS_NFTABLES: u16 = 10;

/// The length of `struct nfgenmsg`.
pub(super) const NETFILTER_HEADER: usize = 4;

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;

/// What the socket asks for as its send buffer: more than any ruleset needs.
const WANTED_SEND_BUFFER: libc::c_int = 1 << 30;

/// How often a dump that the kernel interrupted is asked for again.
const DUMP_ATTEMPTS: usize = 20;

/// A socket for changes and listings. One request at a time.
#[derive(Debug)]
pub(super) struct NftSocket {
    socket: Socket,
    /// The largest transaction in bytes that fits in one `sendmsg`, as the kernel wants it.
    capacity: usize,
    sequence: u32,
}

/// The messages of one transaction, without the frame.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Where the last message begins.
    last: usize,
    sequence: u32,
}

impl Batch {
    /// Adds a message.
    pub(super) fn push(&mut self, mut message: Message) {
        self.last = self.bytes.len();
        self.sequence += 1;
        append(&mut self.bytes, &mut message, self.sequence);
    }

    /// The next number that is unique within this transaction.
    pub(super) fn next_id(&self) -> u32 {
        self.sequence + 1
    }

    /// The size in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends another one.
    pub(super) fn extend(&mut self, other: &Batch) {
        if other.is_empty() {
            return;
        }
        self.last = self.bytes.len() + other.last;
        // Sequence numbers need not be unique: they only help to find the message that an error is about.
        self.sequence += other.sequence;
        self.bytes.extend_from_slice(&other.bytes);
    }
}

fn control(inner: ControlMessage, sequence: u32, buffer: &mut Vec<u8>) {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFNL_SUBSYS_NFTABLES);
    let mut message = NetlinkMessage::from(NetfilterMessage::new(header, inner));
    message.header.flags = netlink_packet_core::NLM_F_REQUEST;
    append(buffer, &mut message, sequence);
}

impl NftSocket {
    /// Opens a socket in the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Errors arrive with the whole rejected message otherwise.
        let _ = socket.set_cap_ack(true);
        let capacity = widen(&socket)?;
        Ok(Self {
            socket,
            capacity,
            sequence: 0,
        })
    }

    /// Makes transactions no larger than `bytes`.
    pub(super) fn limit(&mut self, bytes: usize) {
        self.capacity = self.capacity.min(bytes);
    }

    /// The largest transaction in bytes.
    ///
    /// The kernel wants a transaction in one `sendmsg`, and a message has to fit in the socket's send buffer. A process without
    /// `CAP_NET_ADMIN` in the initial user namespace cannot have more than twice `net.core.wmem_max`.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The address by which notifications name this socket.
    pub(super) fn port(&self) -> io::Result<u32> {
        let mut address = SocketAddr::new(0, 0);
        self.socket.get_address(&mut address)?;
        Ok(address.port_number())
    }

    /// Sends a transaction and waits until it is in force.
    pub(super) fn commit(&mut self, batch: &Batch) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(batch.len() + 64);
        control(ControlMessage::BatchBegin, 0, &mut bytes);
        let body = bytes.len();
        bytes.extend_from_slice(&batch.bytes);
        // The acknowledgement of the last message arrives after the commit. The end of a batch is acknowledged only since Linux 6.10.
        self.sequence = self.sequence.wrapping_add(1) | 0x8000_0000;
        let last = body + batch.last;
        let flags = u16::from_ne_bytes([bytes[last + 6], bytes[last + 7]]) | NLM_F_ACK;
        bytes[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
        bytes[last + 8..last + 12].copy_from_slice(&self.sequence.to_ne_bytes());
        control(ControlMessage::BatchEnd, 0, &mut bytes);
        self.send(&bytes)?;
        drop(bytes);

        let mut outcome = Ok(());
        let mut buffer = Vec::with_capacity(1 << 15);
        loop {
            self.receive(&mut buffer)?;
            for message in datagram(&buffer) {
                if message.message_type() != NLMSG_ERROR {
                    continue;
                }
                let code = errno(&message);
                if code != 0 && outcome.is_ok() {
                    outcome = Err(io::Error::from_raw_os_error(code));
                }
                // An error of the batch as a whole carries the sequence number of its beginning.
                let sequence = message.sequence_number();
                if sequence == self.sequence || sequence == 0 {
                    return outcome;
                }
            }
        }
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

    /// Reads one datagram.
    fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        loop {
            match self.socket.recv(buffer, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Lists something and hands the payload of each answer to `take`, without the netfilter header. A listing that the kernel interrupted
    /// starts again with a fresh `T`.
    pub(super) fn dump<T: Default>(
        &mut self,
        request: &Message,
        mut take: impl FnMut(&mut T, &[u8]),
    ) -> io::Result<T> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut collected = T::default();
            let mut request = request.clone();
            request.header.flags |= NLM_F_DUMP;
            if self.dump_once(&mut request, &mut |payload| take(&mut collected, payload))? {
                return Ok(collected);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the ruleset changes faster than it can be listed",
        ))
    }

    /// Whether the listing was not interrupted.
    fn dump_once(
        &mut self,
        request: &mut Message,
        take: &mut dyn FnMut(&[u8]),
    ) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1) | 0x8000_0000;
        let mut bytes = Vec::new();
        append(&mut bytes, request, self.sequence);
        self.send(&bytes)?;
        let mut buffer = Vec::with_capacity(1 << 16);
        let mut whole = true;
        loop {
            self.receive(&mut buffer)?;
            for message in datagram(&buffer) {
                if message.sequence_number() != self.sequence {
                    continue;
                }
                whole &= message.flags() & NLM_F_DUMP_INTR == 0;
                match message.message_type() {
                    NLMSG_DONE => return Ok(whole),
                    NLMSG_ERROR => {
                        // The kernel says EINTR or EAGAIN when the generation changed under a listing.
                        return match errno(&message) {
                            libc::EINTR | libc::EAGAIN => Ok(false),
                            0 => Ok(whole),
                            code => Err(io::Error::from_raw_os_error(code)),
                        };
                    }
                    _ => take(
                        message
                            .payload()
                            .get(NETFILTER_HEADER..)
                            .unwrap_or_default(),
                    ),
                }
            }
        }
    }
}

/// The messages that one datagram holds, up to the first that is broken.
pub(super) fn datagram(mut rest: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(rest).ok()?;
        let length = (message.length() as usize).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
        Some(message)
    })
}

/// The error in an error message, 0 for an acknowledgement.
fn errno(message: &NetlinkBuffer<&[u8]>) -> i32 {
    message
        .payload()
        .first_chunk::<4>()
        .map_or(libc::EBADMSG, |code| {
            i32::from_ne_bytes(*code).wrapping_neg()
        })
}

/// Makes the send buffer as large as it may be and returns what fits in one message.
fn widen(socket: &Socket) -> io::Result<usize> {
    let fd = socket.as_raw_fd();
    let wanted = WANTED_SEND_BUFFER;
    let set = |option: libc::c_int| {
        // SAFETY: the option's value is a valid integer for the duration of the call, and the descriptor is open.
        unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                option,
                (&raw const wanted).cast(),
                mem::size_of_val(&wanted) as libc::socklen_t,
            )
        }
    };
    if set(libc::SO_SNDBUFFORCE) != 0 {
        set(libc::SO_SNDBUF);
    }
    let mut size: libc::c_int = 0;
    let mut length = mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both pointers are valid for the duration of the call.
    let got = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw mut size).cast(),
            &raw mut length,
        )
    };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    // The kernel keeps 32 bytes to itself; the frame of a batch takes 40.
    Ok((size as usize).saturating_sub(256))
}
