//! Packets that only a neighbour can send: handed to the link-layer address of a machine on the same network, whatever their destination.
//!
//! A packet to 127.0.0.1 never leaves a host by its own routes, so it takes this to see whether another host would take it in.

use std::io::{self, Read};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use socket2::{Domain, Socket, Type};

use crate::netlink::route;
use crate::proto::{AskNeighbour, Protocol};
use crate::{connect, ports, wire};

/// The last answer may overtake an earlier one that comes a longer way; those take microseconds.
const LATER: Duration = Duration::from_millis(50);

/// How often a packet that resolves the neighbour's address is sent, and the table is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Sends one packet to each target, in order, and listens on the link for what comes back, until the last is answered or time is over.
pub(crate) fn ask(request: &AskNeighbour) -> anyhow::Result<Vec<Option<String>>> {
    let limit = Duration::from_millis(request.timeout_ms.into());
    let deadline = Instant::now() + limit;
    let (source, link, hardware) = resolve(request.via, deadline)?;
    let socket = Link::open(link, request.via.is_ipv6())?;
    let mut answers = vec![None; request.targets.len()];
    let mut own = Vec::new();
    for (target, seq) in request.targets.iter().zip(0..) {
        anyhow::ensure!(
            target.is_ipv6() == request.via.is_ipv6(),
            "{target} and {} are not of one family",
            request.via
        );
        // Keeps the port, so that nobody else gets what is meant for it.
        let holder = Socket::new(Domain::for_address(*target), Type::DGRAM, None)?;
        ports::bind(&holder, source)?;
        let from = holder
            .local_addr()?
            .as_socket()
            .context("a socket without an address")?;
        let nonce = connect::nonce();
        let packet = packet(request, from, *target, seq, nonce)?;
        let mark = Mark {
            port: from.port(),
            nonce,
        };
        own.push((mark, holder));
        socket.send(hardware, &packet).with_context(|| {
            format!(
                "packet to {target} by way of {} cannot be sent",
                request.via
            )
        })?;
    }
    let mut until = deadline;
    while let Some(left) = until
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        let Some(bytes) = socket.receive(left)? else {
            continue;
        };
        let Some((mark, text)) = answer(&bytes, request.protocol) else {
            continue;
        };
        if let Some(index) = own.iter().position(|(own, _)| *own == mark) {
            answers[index].get_or_insert(text);
            if index + 1 == own.len() {
                until = until.min(Instant::now() + LATER);
            }
        }
    }
    Ok(answers)
}

/// The own address towards a neighbour, the link to it, and its link-layer address.
fn resolve(via: IpAddr, deadline: Instant) -> anyhow::Result<(IpAddr, u32, [u8; 6])> {
    const DISCARD: u16 = 9;
    let socket = Socket::new(
        Domain::for_address(SocketAddr::new(via, DISCARD)),
        Type::DGRAM,
        None,
    )?;
    // The kernel would bind it to an ephemeral port, of which there may be none.
    ports::bind(&socket, ports::unspecified(via)).context("no port to ask from")?;
    socket
        .connect(&SocketAddr::new(via, DISCARD).into())
        .with_context(|| format!("no route to {via}"))?;
    let source = socket
        .local_addr()?
        .as_socket()
        .context("a socket without an address")?
        .ip();
    loop {
        if let Some((link, hardware)) = route::neighbour(via)? {
            return Ok((source, link, hardware));
        }
        if Instant::now() > deadline {
            bail!("{via} is no neighbour: nobody tells its link-layer address");
        }
        // Any packet makes the kernel ask for the address. Its own fate does not matter, errors about earlier ones included.
        let _ = socket.send(&[0]);
        // A poll of a condition with a deadline.
        std::thread::sleep(LOOK);
    }
}

/// A SYN, or a datagram with a request that servers answer and record under the flow.
fn packet(
    request: &AskNeighbour,
    from: SocketAddr,
    to: SocketAddr,
    seq: u64,
    nonce: u16,
) -> anyhow::Result<Vec<u8>> {
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => bail!("{from} and {to} are not of one family"),
    };
    let mut bytes = Vec::new();
    match request.protocol {
        Protocol::Tcp => ip
            .tcp(from.port(), to.port(), u32::from(nonce) << 16, 64_000)
            .syn()
            .write(&mut bytes, &[])?,
        Protocol::Udp => {
            let payload = wire::request(0, nonce, seq, &request.flow, &[], 0);
            ip.udp(from.port(), to.port()).write(&mut bytes, &payload)?;
        }
        Protocol::Sctp => bail!("no packets are made for SCTP"),
    }
    Ok(bytes)
}

/// What an answer has in common with its question. The port alone is not enough: answers to connections of others pass by on the same link, and
/// those that this node masquerades have ports of any number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    port: u16,
    /// The upper half of the sequence number of a SYN; that of a request otherwise.
    nonce: u16,
}

/// What a packet of the protocol answers, and what the packet is.
fn answer(bytes: &[u8], protocol: Protocol) -> Option<(Mark, String)> {
    let packet = SlicedPacket::from_ip(bytes).ok()?;
    let from = match packet.net? {
        etherparse::NetSlice::Ipv4(ip) => IpAddr::from(ip.header().source_addr()),
        etherparse::NetSlice::Ipv6(ip) => IpAddr::from(ip.header().source_addr()),
        _ => return None,
    };
    match (packet.transport?, protocol) {
        (TransportSlice::Tcp(tcp), Protocol::Tcp) => {
            let what = match (tcp.rst(), tcp.syn(), tcp.ack()) {
                (true, ..) => "RST",
                (_, true, true) => "SYN-ACK",
                _ => "segment",
            };
            let from = SocketAddr::new(from, tcp.source_port());
            let mark = Mark {
                port: tcp.destination_port(),
                nonce: (tcp.acknowledgment_number() >> 16) as u16,
            };
            let ours = tcp.ack() && tcp.acknowledgment_number() & 0xffff == 1;
            ours.then(|| (mark, format!("{what} from {from}")))
        }
        (TransportSlice::Udp(udp), Protocol::Udp) => {
            let from = SocketAddr::new(from, udp.source_port());
            let mark = Mark {
                port: udp.destination_port(),
                nonce: wire::parse_answer(udp.payload()).ok()?.nonce,
            };
            Some((mark, format!("datagram from {from}")))
        }
        _ => None,
    }
}

/// A packet socket on one link: what is sent needs no route, and what is received was not judged yet.
struct Link {
    socket: Socket,
    link: u32,
    protocol: u16,
}

impl Link {
    fn open(link: u32, ipv6: bool) -> anyhow::Result<Link> {
        let protocol = if ipv6 {
            libc::ETH_P_IPV6
        } else {
            libc::ETH_P_IP
        } as u16;
        let socket = Socket::new(
            Domain::PACKET,
            Type::DGRAM,
            Some(i32::from(protocol.to_be()).into()),
        )
        .context("packet sockets are not allowed")?;
        let opened = Link {
            socket,
            link,
            protocol,
        };
        let address = opened.address([0; 6]);
        // SAFETY: the address is valid for its length.
        let bound = unsafe {
            libc::bind(
                opened.socket.as_raw_fd(),
                (&raw const address).cast(),
                mem::size_of_val(&address) as u32,
            )
        };
        if bound < 0 {
            return Err(io::Error::last_os_error()).context("packet socket cannot be bound");
        }
        Ok(opened)
    }

    fn address(&self, hardware: [u8; 6]) -> libc::sockaddr_ll {
        // SAFETY: plain data; zero is valid.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = self.protocol.to_be();
        address.sll_ifindex = self.link as i32;
        address.sll_halen = hardware.len() as u8;
        address.sll_addr[..hardware.len()].copy_from_slice(&hardware);
        address
    }

    fn send(&self, hardware: [u8; 6], packet: &[u8]) -> io::Result<()> {
        let address = self.address(hardware);
        // SAFETY: buffer and address are valid for their lengths.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                mem::size_of_val(&address) as u32,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The next packet from its IP header on; `None` when none came in time.
    fn receive(&self, within: Duration) -> io::Result<Option<Vec<u8>>> {
        // A timeout of zero would be none at all.
        let within = within.max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(within))?;
        let mut buffer = vec![0; 65536];
        match (&self.socket).read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                Ok(Some(buffer))
            }
            Err(e) => match e.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(e),
            },
        }
    }
}
