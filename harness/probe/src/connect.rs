//! Clients: one exchange over a new connection or socket, with an exact account of how it ended.
//!
//! How TCP connections are closed: the last request asks the server to close first, the client reads its FIN, then closes with `SO_LINGER` 0.
//! The exchange is complete by then, and neither end keeps a TIME_WAIT entry: any number of connections can be made from any source
//! port, again and again. (A raw request, which has no flags, is closed in the normal way by the client.)

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::client::MANY_AT_ONCE;
use crate::proto::*;
use crate::{ports, sys, wire};

/// Packets of UDP requests an agent has under way at the same time. A server's receive buffer takes a few hundred, and all agents of a
/// world may ask one server while it waits for a core: without a limit the harness would lose datagrams by itself.
const UNANSWERED_PACKETS: u32 = 32;
static UNANSWERED: Semaphore = Semaphore::const_new(UNANSWERED_PACKETS as usize);

/// After this time a datagram counts as taken or lost, and others may be sent; its own timeout goes on.
const UNANSWERED_FOR: Duration = Duration::from_millis(50);

/// Packets that one attempt sends, at most all that may be under way.
fn packets(spec: &ConnectSpec) -> u32 {
    let bytes = spec.exact.unwrap_or(spec.payload).max(spec.reply);
    spec.back_to_back
        .max(1)
        .saturating_mul(1 + bytes / 1400)
        .min(UNANSWERED_PACKETS)
}

/// The longest time that the limit on packets under way can add to a specification.
pub(crate) fn queueing(spec: &ConnectSpec) -> Duration {
    match spec.protocol {
        Protocol::Udp => {
            UNANSWERED_FOR
                * spec
                    .count
                    .saturating_mul(packets(spec))
                    .div_ceil(UNANSWERED_PACKETS / 2)
        }
        _ => Duration::ZERO,
    }
}

/// Runs one specification.
pub(crate) async fn connect(spec: &ConnectSpec) -> ConnectReport {
    run(spec, None).await
}

/// Runs many at the same time.
pub(crate) async fn connect_many(specs: &[ConnectSpec]) -> Vec<ConnectReport> {
    let slots = Arc::new(Semaphore::new(MANY_AT_ONCE));
    futures::future::join_all(specs.iter().map(|spec| run(spec, Some(slots.clone())))).await
}

async fn run(spec: &ConnectSpec, slots: Option<Arc<Semaphore>>) -> ConnectReport {
    let parallel = match spec.source_port {
        SourcePort::Fixed(_) => 1,
        _ => spec.parallel.max(1) as usize,
    };
    let attempts = futures::stream::iter(0..spec.count)
        .map(|n| {
            let slots = slots.clone();
            async move {
                let _slot = match &slots {
                    Some(slots) => slots.acquire().await.ok(),
                    None => None,
                };
                let attempt = attempt(spec, n, "", 0);
                if spec.protocol != Protocol::Udp {
                    return attempt.await.0;
                }
                let share = UNANSWERED.acquire_many(packets(spec)).await;
                let mut attempt = std::pin::pin!(attempt);
                match tokio::time::timeout(UNANSWERED_FOR, &mut attempt).await {
                    Ok(answered) => answered.0,
                    Err(_) => {
                        drop(share);
                        attempt.await.0
                    }
                }
            }
        })
        .buffered(parallel)
        .collect()
        .await;
    ConnectReport { attempts }
}

/// Tells exchanges apart; see [`wire::Request::nonce`]. Never 0, which marks the answer to a raw request.
pub(crate) fn nonce() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Agents that start at the same time must not count in step: two clients may follow each other on one address and port.
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    nonzero(count.wrapping_add((now() >> 16) as u16))
}

fn nonzero(nonce: u16) -> u16 {
    nonce.max(1)
}

/// What is known of an exchange while it runs.
#[derive(Default)]
struct Progress {
    source: Option<SocketAddr>,
    latency: Option<Duration>,
    connected: bool,
    stream: Option<TcpStream>,
}

/// Makes the n-th connection of `spec`. Also tells whether it was established (TCP) or its socket could be opened (UDP).
pub(crate) async fn attempt(spec: &ConnectSpec, n: u32, flow: &str, seq: u64) -> (Attempt, bool) {
    let (at, start) = (now(), Instant::now());
    let mut progress = Progress::default();
    let limit = Duration::from_millis(spec.timeout_ms.into());
    let exchange = async {
        match spec.protocol {
            Protocol::Udp => datagram(spec, n, flow, seq, start, &mut progress).await,
            Protocol::Tcp | Protocol::Sctp => {
                stream(spec, n, flow, seq, start, &mut progress).await
            }
        }
    };
    let result = tokio::time::timeout(limit, exchange).await;
    let latency = progress.latency.unwrap_or_else(|| start.elapsed());
    let outcome = match result {
        Err(_) => Outcome::TimedOut,
        Ok(Ok(outcome) | Err(outcome)) => outcome,
    };
    if let Some(stream) = progress.stream.take() {
        close(stream, &outcome).await;
    }
    (
        Attempt {
            at,
            source: progress.source,
            latency_us: latency.as_micros() as u64,
            outcome,
        },
        progress.connected,
    )
}

/// Closes a stream after its exchange, without TIME_WAIT when the server did its part.
async fn close(mut stream: TcpStream, outcome: &Outcome) {
    if matches!(outcome, Outcome::Answered { .. }) {
        let mut byte = [0];
        let end = tokio::time::timeout(Duration::from_millis(250), stream.read(&mut byte)).await;
        if !matches!(end, Ok(Ok(0))) {
            return;
        }
    }
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let _ = sys::set_option(
        stream.as_raw_fd(),
        libc::SOL_SOCKET,
        libc::SO_LINGER,
        linger,
    );
}

/// Opens and binds a client socket; it is non-blocking.
pub(crate) fn open(spec: &ConnectSpec, n: u32) -> io::Result<Socket> {
    let (kind, protocol) = match spec.protocol {
        Protocol::Tcp => (Type::STREAM, socket2::Protocol::TCP),
        Protocol::Udp => (Type::DGRAM, socket2::Protocol::UDP),
        Protocol::Sctp => (Type::STREAM, socket2::Protocol::SCTP),
    };
    let ipv6 = spec.target.is_ipv6();
    let socket = Socket::new(Domain::for_address(spec.target), kind, Some(protocol))?;
    let fd = socket.as_raw_fd();
    socket.set_nonblocking(true)?;
    if ipv6 {
        socket.set_only_v6(true)?;
    }
    if let Some(mark) = spec.mark {
        socket.set_mark(mark)?;
    }
    // Without it ICMP errors cannot be told from RST and many are not seen at all; SCTP does not know it.
    if spec.protocol != Protocol::Sctp {
        sys::set_recverr(fd, ipv6, true)?;
    }
    if spec.protocol == Protocol::Tcp {
        socket.set_tcp_nodelay(true)?;
    }
    if spec.dont_fragment {
        if ipv6 {
            sys::set_option(
                fd,
                libc::IPPROTO_IPV6,
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_DO,
            )?;
            sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1i32)?;
        } else {
            sys::set_option(
                fd,
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                libc::IP_PMTUDISC_DO,
            )?;
        }
    }
    let port = match spec.source_port {
        SourcePort::Ephemeral => 0,
        SourcePort::Fixed(port) => port,
        SourcePort::From(base) => u16::try_from(u32::from(base) + n)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "source port above 65535"))?,
    };
    let any = if ipv6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    };
    let source = spec.source.unwrap_or(any);
    if port == 0 {
        ports::bind(&socket, source)?;
    } else {
        if spec.protocol != Protocol::Udp {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&SocketAddr::new(source, port).into())?;
    }
    Ok(socket)
}

/// Opens a socket and starts a stream's connection; ends when it is established.
pub(crate) async fn establish(
    spec: &ConnectSpec,
    n: u32,
    source: &mut Option<SocketAddr>,
) -> Result<TcpStream, Outcome> {
    let ipv6 = spec.target.is_ipv6();
    let socket = open(spec, n).map_err(|e| send_failed(&e))?;
    let fd = socket.as_raw_fd();
    match socket.connect(&spec.target.into()) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => {
            return Err(failure(fd, &e, Phase::Connecting));
        }
        _ => {}
    }
    *source = socket.local_addr().ok().and_then(|a| a.as_socket());
    let stream = TcpStream::from_std(socket.into()).map_err(|e| send_failed(&e))?;
    stream.writable().await.map_err(|e| send_failed(&e))?;
    match stream.take_error() {
        Ok(None) => {}
        Ok(Some(e)) | Err(e) => return Err(failure(fd, &e, Phase::Connecting)),
    }
    if spec.protocol == Protocol::Tcp {
        // From here on a plain client's view: ICMP errors no longer break the connection.
        let _ = sys::set_recverr(fd, ipv6, false);
    }
    Ok(stream)
}

async fn stream(
    spec: &ConnectSpec,
    n: u32,
    flow: &str,
    seq: u64,
    start: Instant,
    progress: &mut Progress,
) -> Result<Outcome, Outcome> {
    let stream = establish(spec, n, &mut progress.source).await?;
    progress.latency = Some(start.elapsed());
    progress.connected = true;
    let stream = progress.stream.insert(stream);
    let nonce = nonce();
    let message = Message::new(spec, nonce, seq, flow, wire::LAST);
    let broken = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => Outcome::Reset,
        _ => failure(-1, &e, Phase::Established),
    };
    // Large requests and answers at the same time cannot block each other: the server reads all before it answers.
    stream.write_all(&message.bytes).await.map_err(broken)?;
    if message.raw {
        stream.shutdown().await.map_err(broken)?;
    }
    let answer = read_answer(stream).await.map_err(broken)?;
    Ok(message.judge(&answer, None))
}

/// Reads one answer from a stream. Bytes that are no answer come back as they are, to be judged.
pub(crate) async fn read_answer<S: tokio::io::AsyncRead + Unpin>(
    stream: &mut S,
) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; wire::ANSWER];
    stream.read_exact(&mut answer).await?;
    if let Ok(rest) = wire::answer_rest(&answer) {
        answer.resize(wire::ANSWER + rest, 0);
        stream.read_exact(&mut answer[wire::ANSWER..]).await?;
    }
    Ok(answer)
}

/// A request and what is needed to judge its answer.
struct Message {
    bytes: Vec<u8>,
    payload: Vec<u8>,
    raw: bool,
    nonce: u16,
    seq: u64,
    reply: u32,
}

impl Message {
    fn new(spec: &ConnectSpec, nonce: u16, seq: u64, flow: &str, flags: u8) -> Message {
        let head = wire::REQUEST + flow.len().min(255);
        match spec.exact {
            Some(exact) if (exact as usize) < head => {
                let bytes = wire::raw(exact as usize);
                Message {
                    payload: bytes.clone(),
                    bytes,
                    raw: true,
                    nonce: 0,
                    seq: 0,
                    reply: exact,
                }
            }
            exact => {
                let len = exact.map_or(spec.payload as usize, |exact| exact as usize - head);
                let payload = wire::filler(seq ^ u64::from(nonce) << 32, len);
                let bytes = wire::request(flags, nonce, seq, flow, &payload, spec.reply);
                Message {
                    bytes,
                    payload,
                    raw: false,
                    nonce,
                    seq,
                    reply: spec.reply,
                }
            }
        }
    }

    fn judge(&self, bytes: &[u8], wrong_peer: Option<SocketAddr>) -> Outcome {
        let answer = match wire::parse_answer(bytes) {
            Ok(answer) => answer,
            Err(message) => return Outcome::Corrupt { message },
        };
        if let Err(message) = answer.check(&self.payload, self.reply) {
            return Outcome::Corrupt { message };
        }
        if (answer.nonce, answer.seq) != (self.nonce, self.seq) {
            return Outcome::Corrupt {
                message: "answer belongs to another request".into(),
            };
        }
        match wrong_peer {
            Some(from) => Outcome::WrongPeer { from },
            None => Outcome::Answered {
                identity: answer.identity,
                peer: answer.peer,
                local: answer.local,
            },
        }
    }
}

async fn datagram(
    spec: &ConnectSpec,
    n: u32,
    flow: &str,
    seq: u64,
    start: Instant,
    progress: &mut Progress,
) -> Result<Outcome, Outcome> {
    let socket = open(spec, n).map_err(|e| send_failed(&e))?;
    let fd = socket.as_raw_fd();
    if spec.udp == UdpKind::Connected {
        socket
            .connect(&spec.target.into())
            .map_err(|e| failure(fd, &e, Phase::Connecting))?;
    }
    let socket = UdpSocket::from_std(socket.into()).map_err(|e| send_failed(&e))?;
    let nonce = nonce();
    let count = u64::from(spec.back_to_back.max(1));
    let mut open: Vec<Option<Message>> = (0..count)
        .map(|i| Some(Message::new(spec, nonce, seq + i, flow, 0)))
        .collect();
    for message in open.iter().flatten() {
        send_datagram(&socket, &message.bytes, spec).await?;
    }
    progress.connected = true;
    progress.source = socket.local_addr().ok();
    let mut buf = vec![0; 65536];
    let mut first = None;
    let mut retries = 3;
    loop {
        let got = socket
            .async_io(Interest::READABLE | Interest::ERROR, || {
                sys::receive(fd, &mut buf)
            })
            .await;
        let got = match got {
            Ok(got) => got,
            // A router told the path MTU. The client allows fragments, so it sends again, as every real one would.
            Err(e)
                if e.raw_os_error() == Some(libc::EMSGSIZE)
                    && !spec.dont_fragment
                    && retries > 0 =>
            {
                retries -= 1;
                while sys::take_queued_error(fd).is_some() {}
                for message in open.iter().flatten() {
                    send_datagram(&socket, &message.bytes, spec).await?;
                }
                continue;
            }
            Err(e) => return Err(failure(fd, &e, Phase::Datagram)),
        };
        let wrong_peer = (got.from != spec.target).then_some(got.from);
        let data = &buf[..got.len];
        // An answer to an earlier user of this port is neither an answer nor a fault.
        let index = match wire::parse_answer(data) {
            Ok(a) if a.nonce == 0 && a.seq == 0 => {
                open.iter().position(|m| m.as_ref().is_some_and(|m| m.raw))
            }
            Ok(a) if a.nonce == nonce => usize::try_from(a.seq.wrapping_sub(seq))
                .ok()
                .filter(|i| *i < open.len()),
            Ok(_) => None,
            Err(message) => return Ok(Outcome::Corrupt { message }),
        };
        let Some(message) = index.and_then(|i| open[i].take()) else {
            continue;
        };
        let outcome = message.judge(data, wrong_peer);
        if !matches!(outcome, Outcome::Answered { .. }) {
            return Ok(outcome);
        }
        if first.is_none() {
            progress.latency = Some(start.elapsed());
        }
        let first = first.get_or_insert(outcome);
        if open.iter().all(Option::is_none) {
            return Ok(first.clone());
        }
    }
}

async fn send_datagram(
    socket: &UdpSocket,
    bytes: &[u8],
    spec: &ConnectSpec,
) -> Result<(), Outcome> {
    let fd = socket.as_raw_fd();
    let sent = socket
        .async_io(Interest::WRITABLE, || match spec.udp {
            UdpKind::Unconnected => sys::send(fd, bytes, spec.target, None),
            UdpKind::Connected => send_connected(fd, bytes),
        })
        .await;
    match sent {
        Ok(_) => Ok(()),
        // The node's own filter threw the packet away. Whether that was a silent drop or a refusal only the ICMP error
        // tells, which arrives on the same socket; without one the request is unanswered like any other.
        Err(e) if thrown_away(&e) => Ok(()),
        Err(e) => Err(failure(fd, &e, Phase::Datagram)),
    }
}

/// Whether a packet was dropped or rejected by the output hook of the sender's own network namespace.
pub(crate) fn thrown_away(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPERM)
}

/// Sends on a connected socket without blocking.
pub(crate) fn send_connected(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for its length.
    let n = unsafe {
        libc::send(
            fd,
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    if n < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(n as usize)
    }
}

/// What a socket was doing when it failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Connecting,
    Established,
    Datagram,
}

pub(crate) fn send_failed(e: &io::Error) -> Outcome {
    Outcome::SendFailed {
        errno: e.raw_os_error().unwrap_or(0),
        message: e.to_string(),
    }
}

/// Turns a socket's error into an outcome, with what its error queue says about it (`fd` -1: there is none).
pub(crate) fn failure(fd: RawFd, error: &io::Error, phase: Phase) -> Outcome {
    let errno = error.raw_os_error().unwrap_or(0);
    let mut icmp = None;
    while fd >= 0
        && let Some(queued) = sys::take_queued_error(fd)
    {
        if queued.errno == errno {
            icmp = icmp.or(queued.icmp);
        }
    }
    outcome_of(errno, icmp, phase, error)
}

/// As [`failure`] for an error number and ICMP type that are known already.
pub(crate) fn outcome_of(
    errno: i32,
    icmp: Option<(u8, u8)>,
    phase: Phase,
    error: &io::Error,
) -> Outcome {
    match (errno, phase) {
        (libc::ECONNREFUSED, _) => Outcome::Refused {
            by: match (icmp, phase) {
                (Some((kind, code)), _) => RefusedBy::Icmp { kind, code },
                // Only ICMP refuses a datagram; "port unreachable" is the one that does so in both families' tables.
                (None, Phase::Datagram) => RefusedBy::Icmp { kind: 3, code: 3 },
                (None, _) => RefusedBy::Rst,
            },
        },
        (
            libc::ECONNRESET | libc::EPIPE | libc::ENOTCONN | libc::ECONNABORTED,
            Phase::Established,
        ) => Outcome::Reset,
        (libc::ECONNRESET, Phase::Connecting) => Outcome::Refused { by: RefusedBy::Rst },
        (libc::ETIMEDOUT, _) => Outcome::TimedOut,
        (
            libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EACCES
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::ENONET
            | libc::EPROTO,
            _,
        ) => {
            let message = match icmp {
                Some((kind, code)) => format!("{error}, ICMP {kind}/{code}"),
                None => error.to_string(),
            };
            Outcome::Unreachable { errno, message }
        }
        _ => send_failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One exchange in 65536 used to have the nonce 0, was taken for a raw one, and its answer was never recognised.
    #[test]
    fn no_exchange_looks_like_a_raw_one() {
        assert!((0..=u16::MAX).all(|nonce| nonzero(nonce) != 0));
    }
}
