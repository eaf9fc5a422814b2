//! The messages between the harness and an agent: what can be asked, and what comes back.
//!
//! Framing is a little-endian `u32` length followed by that many bytes of JSON. A request frame is
//! `{"id": 7, "request": ...}`, its answer `{"id": 7, "result": {"ok": ...}}` or `{"id": 7, "result": {"err": "..."}}`.
//! Requests run concurrently, so answers come in any order.
//!
//! All times are nanoseconds of `CLOCK_MONOTONIC`, which is one clock for every process of a machine whatever namespace
//! it lives in: times reported by different agents can be compared. Agents on other machines are told the harness's time first
//! ([`Request::SetClock`]), as exactly as the way to them allows.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};

/// Version of this protocol, answered by [`Request::Hello`].
pub const VERSION: u32 = 1;

/// Largest frame in bytes, in either direction.
pub const MAX_FRAME: usize = 64 << 20;

/// How far this process's [`now`] is ahead of its own `CLOCK_MONOTONIC`, in nanoseconds.
static AHEAD_NS: AtomicI64 = AtomicI64::new(0);

/// Makes [`now`] tell the time of somebody else's clock from here on: in every place `ahead_ns` later than this machine's own.
pub fn set_clock(ahead_ns: i64) {
    AHEAD_NS.store(ahead_ns, Ordering::Relaxed);
}

/// Now, in nanoseconds of `CLOCK_MONOTONIC`: this machine's, or the harness's where an agent was told that (see [`Request::SetClock`]).
pub fn now() -> u64 {
    own_clock().saturating_add_signed(AHEAD_NS.load(Ordering::Relaxed))
}

/// Now, in nanoseconds of this machine's `CLOCK_MONOTONIC`.
pub fn own_clock() -> u64 {
    let mut ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `ts` is a valid place to write a timespec; the call cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

/// A transport protocol, spelled as in a Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
    /// SCTP; refused with an error where the kernel has no SCTP sockets.
    #[serde(rename = "SCTP")]
    Sctp,
}

/// One port an agent serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Name of this listener; serving the same id twice is a no-op when nothing else differs.
    pub id: String,
    /// What the server says it is in every answer: the pod's name.
    pub identity: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Address to bind. An IPv6 wildcard serves IPv6 only.
    pub addr: IpAddr,
    /// Port to bind.
    pub port: u16,
}

/// The two kinds of UDP client sockets; they differ in which answers and ICMP errors the kernel lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UdpKind {
    /// `connect` was called: only datagrams of the target arrive.
    #[default]
    Connected,
    /// `sendto` per datagram: anything sent to the port arrives, so an answer from a wrong address is seen.
    Unconnected,
}

/// How a client's source port is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SourcePort {
    /// One that the agent has not used before, so that connection tracking knows nothing of it.
    #[default]
    Ephemeral,
    /// Every connection uses this port (so they must not overlap: `parallel` is taken as 1).
    Fixed(u16),
    /// The n-th connection (from 0) uses this port + n.
    From(u16),
}

/// New connections (TCP) or new sockets with one request each (UDP) to one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectSpec {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Where to connect to.
    pub target: SocketAddr,
    /// How many connections.
    pub count: u32,
    /// How many of them at the same time, at least 1.
    pub parallel: u32,
    /// Source address; the kernel chooses when absent.
    #[serde(default)]
    pub source: Option<IpAddr>,
    /// Source port.
    #[serde(default)]
    pub source_port: SourcePort,
    /// Longest time for one connection including the exchange, in milliseconds.
    pub timeout_ms: u32,
    /// Bytes of payload behind the request header.
    #[serde(default)]
    pub payload: u32,
    /// Bytes of payload wanted back behind the answer header.
    #[serde(default)]
    pub reply: u32,
    /// Kind of UDP socket.
    #[serde(default)]
    pub udp: UdpKind,
    /// Set "don't fragment" and do not fragment locally either: a datagram above the path MTU fails with `EMSGSIZE`.
    #[serde(default)]
    pub dont_fragment: bool,
    /// Firewall mark of the socket.
    #[serde(default)]
    pub mark: Option<u32>,
    /// UDP: datagrams sent back-to-back on the fresh socket; 0 means 1. Every one of them must be answered; the outcome is that of
    /// the first answer, and [`Outcome::TimedOut`] when one is missing.
    #[serde(default)]
    pub back_to_back: u32,
    /// Makes the request exactly this many bytes (UDP: of the datagram's payload; TCP: of the stream), in place of
    /// `payload`. See [`crate::wire`] for what is sent when it is smaller than the header.
    #[serde(default)]
    pub exact: Option<u32>,
}

impl ConnectSpec {
    /// One connection to `target` with a timeout of one second and no payload.
    pub fn new(protocol: Protocol, target: SocketAddr) -> Self {
        ConnectSpec {
            protocol,
            target,
            count: 1,
            parallel: 1,
            source: None,
            source_port: SourcePort::Ephemeral,
            timeout_ms: 1000,
            payload: 0,
            reply: 0,
            udp: UdpKind::Connected,
            dont_fragment: false,
            mark: None,
            back_to_back: 1,
            exact: None,
        }
    }
}

/// Who refused a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RefusedBy {
    /// A TCP RST, or an ICMP error on a kernel that does not tell which.
    Rst,
    /// An ICMP or ICMPv6 error of this type and code.
    Icmp {
        /// ICMP type.
        kind: u8,
        /// ICMP code.
        code: u8,
    },
}

/// How one request ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// A server answered correctly.
    Answered {
        /// Name of the server (pod).
        identity: String,
        /// The client as the server saw it.
        peer: SocketAddr,
        /// The server's local address.
        local: SocketAddr,
    },
    /// The connection was refused.
    Refused {
        /// By what.
        by: RefusedBy,
    },
    /// Nothing came back in time.
    TimedOut,
    /// The connection was reset, or closed without an answer, after it was established.
    Reset,
    /// An answer came from another address than the target.
    WrongPeer {
        /// The address it came from.
        from: SocketAddr,
    },
    /// The network said the target cannot be reached (`EHOSTUNREACH`, `ENETUNREACH`, `EACCES` for "administratively prohibited").
    Unreachable {
        /// The error number.
        errno: i32,
        /// Its text.
        message: String,
    },
    /// The request could not be sent (such as `EMSGSIZE`, or a source address or port that cannot be bound). A datagram that
    /// the namespace's own ruleset throws away on its way out (`EPERM`) is not meant: it counts as refused or
    /// unanswered, as the ICMP error says that may follow.
    SendFailed {
        /// The error number.
        errno: i32,
        /// Its text.
        message: String,
    },
    /// An answer came but was damaged: wrong hash, length or sequence number.
    Corrupt {
        /// What is wrong.
        message: String,
    },
}

impl Outcome {
    /// A short stable name of the kind of outcome, without addresses: `answered`, `refused by RST`, `timed out` ...
    pub fn label(&self) -> String {
        match self {
            Outcome::Answered { .. } => "answered".into(),
            Outcome::Refused { by: RefusedBy::Rst } => "refused by RST".into(),
            Outcome::Refused {
                by: RefusedBy::Icmp { kind, code },
            } => format!("refused by ICMP {kind}/{code}"),
            Outcome::TimedOut => "timed out".into(),
            Outcome::Reset => "reset".into(),
            Outcome::WrongPeer { from } => format!("answered by wrong peer {from}"),
            Outcome::Unreachable { message, .. } => format!("unreachable: {message}"),
            Outcome::SendFailed { message, .. } => format!("send failed: {message}"),
            Outcome::Corrupt { message } => format!("corrupt: {message}"),
        }
    }

    /// Name of the server that answered, if one did.
    pub fn identity(&self) -> Option<&str> {
        match self {
            Outcome::Answered { identity, .. } => Some(identity),
            _ => None,
        }
    }
}

/// One connection of a [`ConnectSpec`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// When it began.
    pub at: u64,
    /// The client's own address, when it got one. Of an unconnected UDP socket only the port is known unless an address was asked for.
    pub source: Option<SocketAddr>,
    /// Microseconds to connect (TCP) or from request to answer (UDP); for failures, until the failure.
    pub latency_us: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// All connections of a [`ConnectSpec`], in order of their number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectReport {
    /// One per connection.
    pub attempts: Vec<Attempt>,
}

impl ConnectReport {
    /// How many connections each server answered, by its name.
    pub fn answered_by(&self) -> BTreeMap<String, u32> {
        let mut out = BTreeMap::new();
        for identity in self.attempts.iter().filter_map(|a| a.outcome.identity()) {
            *out.entry(identity.to_owned()).or_default() += 1;
        }
        out
    }

    /// How many connections ended in which way, by [`Outcome::label`].
    pub fn outcomes(&self) -> BTreeMap<String, u32> {
        let mut out = BTreeMap::new();
        for attempt in &self.attempts {
            *out.entry(attempt.outcome.label()).or_default() += 1;
        }
        out
    }

    /// The latency in microseconds which a share `q` (0 to 1) of the answered connections did not exceed (nearest rank).
    /// `None` when nothing was answered.
    pub fn latency_quantile_us(&self, q: f64) -> Option<u64> {
        let mut all: Vec<u64> = self
            .attempts
            .iter()
            .filter(|a| a.outcome.identity().is_some())
            .map(|a| a.latency_us)
            .collect();
        if all.is_empty() {
            return None;
        }
        all.sort_unstable();
        let rank = (q.clamp(0.0, 1.0) * all.len() as f64).ceil() as usize;
        Some(all[rank.clamp(1, all.len()) - 1])
    }

    /// Whether every connection was answered (and there was at least one).
    pub fn all_answered(&self) -> bool {
        !self.attempts.is_empty() && self.attempts.iter().all(|a| a.outcome.identity().is_some())
    }
}

/// What a flow sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FlowKind {
    /// One TCP connection; a request with a sequence number per tick, answers checked against it. Never reconnects.
    TcpStream,
    /// One connected UDP socket; a request per tick.
    UdpConnected,
    /// One unconnected UDP socket; a request per tick.
    UdpUnconnected,
    /// One unconnected UDP socket; a datagram per tick, no answer wanted. See [`Request::Received`].
    UdpOneWay,
    /// A new TCP connection per tick.
    NewConnections,
    /// A new UDP socket per tick, with one request.
    NewDatagrams,
}

/// Long-lived or repeated traffic that runs until it is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowSpec {
    /// Name of the flow, unique in the agent while it runs, at most 200 bytes; servers record what they got under it.
    pub id: String,
    /// What it sends.
    pub kind: FlowKind,
    /// Where to.
    pub target: SocketAddr,
    /// Source address.
    #[serde(default)]
    pub source: Option<IpAddr>,
    /// Source port.
    #[serde(default)]
    pub source_port: SourcePort,
    /// Milliseconds between ticks, at least 1.
    pub interval_ms: u32,
    /// Bytes of payload behind each request header.
    #[serde(default)]
    pub payload: u32,
    /// Bytes of payload wanted back.
    #[serde(default)]
    pub reply: u32,
    /// After this time without an answer a sample's outcome becomes [`Outcome::TimedOut`] (a later answer still replaces it).
    pub timeout_ms: u32,
}

/// One request of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowSample {
    /// Its number, from 0.
    pub seq: u64,
    /// When it was sent.
    pub sent_at: u64,
    /// When its answer arrived or its failure was known.
    pub answered_at: Option<u64>,
    /// How it ended. `None`: no answer yet, or one-way.
    pub outcome: Option<Outcome>,
}

/// What a flow saw so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowReport {
    /// Name of the flow.
    pub id: String,
    /// When it started.
    pub started_at: u64,
    /// When it was stopped or ended by itself.
    pub ended_at: Option<u64>,
    /// Connections made (TCP) or sockets opened (UDP) successfully.
    pub connects: u32,
    /// Samples in order of `seq`, from the `seq` that was asked for.
    pub samples: Vec<FlowSample>,
    /// TCP stream: how the connection ended, if it did before it was stopped.
    pub closed: Option<Outcome>,
}

/// One request of a flow, as a server of this agent received it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Received {
    /// Name of the flow.
    pub flow: String,
    /// Name of the server.
    pub identity: String,
    /// Number of the request.
    pub seq: u64,
    /// When it arrived.
    pub at: u64,
    /// The client as the server saw it.
    pub peer: SocketAddr,
    /// The server's port.
    pub local_port: u16,
}

/// Packets that no socket would send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Inject {
    /// A TCP segment outside the window, from the server's end of every established connection of a listener
    /// (kubernetes#74839). Needs `CAP_NET_ADMIN` and `CAP_NET_RAW` over the network namespace.
    OutOfWindow {
        /// The listener's id.
        listener: String,
        /// Only the connection with this peer.
        peer: Option<SocketAddr>,
        /// Added to the next sequence number the server would send, modulo 2^32.
        offset: i64,
        /// Payload of the segment.
        payload: String,
    },
    /// One complete IP packet, sent as it is.
    Raw {
        /// The packet from its IP header on.
        packet: Vec<u8>,
    },
}

/// Packets to a machine on the same network, whatever their destination addresses: a SYN (TCP) or a request (UDP) each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AskNeighbour {
    /// An address of the neighbour: its link-layer address is where the packets go.
    pub via: IpAddr,
    /// Destinations, one packet each, in this order; of the family of `via`. The last one should be one that answers: the others are
    /// listened for until then.
    pub targets: Vec<SocketAddr>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// UDP: servers record the requests under this name, with the number of the target as `seq`.
    pub flow: String,
    /// Longest time to wait for an answer of the last target, in milliseconds, at most 10000.
    pub timeout_ms: u32,
}

/// What [`Request::Dump`] prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DumpKind {
    /// Links: index, name, kind, state, MTU, flags, MAC.
    Links,
    /// Addresses of every link.
    Addresses,
    /// Routes of every table.
    Routes,
    /// Policy routing rules.
    Rules,
    /// Connection tracking entries.
    Conntrack,
    /// The nftables ruleset: tables, chains, rules, sets, maps, elements, objects.
    Ruleset,
    /// TCP and UDP sockets.
    Sockets,
}

/// Links and addresses that come and go, to disturb whoever reads them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Churn {
    /// Veth pairs that are created, given addresses and deleted in turn; 0 for none.
    pub links: u32,
    /// Addresses added to and deleted from `lo` in turn; 0 for none.
    pub addresses: u32,
    /// Pause between two changes in microseconds; 0 for none.
    pub pause_us: u32,
    /// Also dump links, addresses and routes all the time, and count the dumps the kernel marked as interrupted.
    pub dump: bool,
}

/// What a churn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Churned {
    /// Veth pairs created.
    pub links: u64,
    /// Addresses added.
    pub addresses: u64,
    /// Complete dumps of links, addresses or routes.
    pub dumps: u64,
    /// How many of these carried `NLM_F_DUMP_INTR`.
    pub interrupted_dumps: u64,
}

/// What is in the connection tracking table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConntrackTable {
    /// Entries that were made by [`Request::ConntrackFill`].
    pub own: u32,
    /// All entries of the namespace.
    pub entries: u32,
    /// How many a namespace may have.
    pub limit: u32,
}

/// Ephemeral ports that are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldPorts {
    /// How many ephemeral ports the namespace has meanwhile.
    pub range: u16,
    /// How many of them are held.
    pub held: u16,
    /// How many the kernel still hands out, by trying.
    pub left: u16,
}

/// One connection tracking entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConntrackEntry {
    /// `4` or `6`.
    pub family: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Source of the original direction (port 0 where the protocol has none).
    pub orig_src: SocketAddr,
    /// Destination of the original direction.
    pub orig_dst: SocketAddr,
    /// Source of the reply direction.
    pub reply_src: SocketAddr,
    /// Destination of the reply direction.
    pub reply_dst: SocketAddr,
    /// `IPS_*` bits: 0x2 seen reply, 0x4 assured, 0x8 confirmed, 0x10 source NAT, 0x20 destination NAT.
    pub status: u32,
    /// Seconds left.
    pub timeout: u32,
    /// Connection mark.
    pub mark: u32,
    /// TCP state (`TCP_CONNTRACK_*`), when it is TCP.
    #[serde(default)]
    pub tcp_state: Option<u8>,
}

/// A finished capture.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// A pcapng file in base64, one interface block per link. Such files can be concatenated into one.
    pub pcap_base64: String,
    /// Packets in the file.
    pub packets: u64,
    /// Packets lost: by the kernel because the reader was late, or discarded as the oldest to keep within the size.
    pub dropped: u64,
}

/// What the kernel says about a fresh IPv6 UDP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SockOpts {
    /// `IPV6_DONTFRAG`.
    pub ipv6_dontfrag: i32,
    /// `IPV6_MTU_DISCOVER`.
    pub ipv6_mtu_discover: i32,
}

/// Answer of an HTTP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, invalid UTF-8 replaced.
    pub body: String,
}

/// What an agent can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Request {
    /// Are you there? Answer: [`Response::Hello`].
    Hello,
    /// What time is it? Answer: [`Response::Clock`].
    Clock,
    /// Tell the time of the harness's clock from here on. On another machine, `CLOCK_MONOTONIC` began at another time.
    SetClock {
        /// How far that is ahead of this machine's own, in nanoseconds.
        ahead_ns: i64,
    },
    /// Start listeners. Either all of them listen afterwards or the request fails and none was added.
    Serve {
        /// The listeners; those already served unchanged are left alone.
        listeners: Vec<Listener>,
    },
    /// Stop listeners.
    StopServing {
        /// Which; all of them when absent.
        ids: Option<Vec<String>>,
        /// Reset established connections (as the kernel does when a process is killed with unread data); otherwise they live on.
        reset_established: bool,
    },
    /// New connections to one target. Answer: [`Response::Connect`].
    Connect(ConnectSpec),
    /// New connections to many targets at the same time. Answer: [`Response::ConnectMany`], in the same order.
    ConnectMany(Vec<ConnectSpec>),
    /// Start a flow.
    FlowStart(FlowSpec),
    /// Read what a flow saw. Answer: [`Response::Flow`].
    FlowRead {
        /// Name of the flow.
        id: String,
        /// First sample wanted.
        from_seq: u64,
    },
    /// Stop a flow, wait for outstanding answers (at most its timeout), forget it. Answer: [`Response::Flow`] with all samples.
    FlowStop {
        /// Name of the flow.
        id: String,
    },
    /// What the servers of this agent got for a flow. Answer: [`Response::Received`].
    Received {
        /// Name of the flow.
        flow: String,
    },
    /// Send packets that no socket would send. Answer: [`Response::Injected`].
    Inject(Inject),
    /// Send packets to a neighbour. Answer: [`Response::Neighbour`].
    AskNeighbour(AskNeighbour),
    /// Capture on all links of the namespace, those that appear later included; keeps the newest packets.
    CaptureStart {
        /// Bytes of packets to keep at most (capped at 40 MiB).
        max_bytes: u64,
        /// Bytes of each packet to keep; 0 for all.
        snaplen: u32,
    },
    /// Stop the capture. Answer: [`Response::Capture`].
    CaptureStop,
    /// Canonical sorted text for humans and audits. Answer: [`Response::Text`].
    Dump(DumpKind),
    /// Connection tracking entries. Answer: [`Response::Conntrack`].
    Conntrack,
    /// Remove every connection tracking entry.
    ConntrackFlush,
    /// Remove the entries of flows that somebody's addresses or sockets have a part in. Answer: [`Response::Forgotten`].
    ConntrackForget {
        /// Addresses at any end of a flow, in any direction.
        addresses: Vec<IpAddr>,
        /// Addresses with ports, likewise.
        sockets: Vec<SocketAddr>,
    },
    /// Signal the processes of a Pod on this node, and wait until they are stopped or go on. Answer: [`Response::Signalled`].
    SignalPod {
        /// The Pod's uid.
        uid: String,
        /// Number of the signal.
        signal: i32,
    },
    /// Remove every nftables table, whoever made it, like `nft flush ruleset`.
    RulesetFlush,
    /// Remove nftables tables, each named with its family, such as `ip nat`. One that is gone already is no mistake. What else is in the kernel stays.
    TablesDelete {
        /// Family and name, as in a dump.
        tables: Vec<String>,
    },
    /// Make or remove an nftables table of somebody else: a set, a map and a filter chain on `forward` with policy accept. Harms no traffic.
    ForeignTable {
        /// Name of the table (family `inet`).
        name: String,
        /// Whether it shall exist.
        present: bool,
    },
    /// Take every nftables table away from whoever made it: each is replaced by an empty one of the same name that only the agent may
    /// change, so that every transaction of others for it fails.
    SeizeTables,
    /// Remove the tables that were seized. An error if one of them is gone, which only their owner can do.
    ReleaseTables,
    /// Start to add and delete links and addresses.
    ChurnStart(Churn),
    /// What that did so far. Answer: [`Response::Churned`].
    ChurnRead,
    /// Stop that and remove what is left. Answer: [`Response::Churned`].
    ChurnStop,
    /// Add entries of nobody's flows to the connection tracking table, to at most half of what it holds. Answer: [`Response::Table`].
    ConntrackFill {
        /// How many; at most 131072.
        entries: u32,
    },
    /// Remove them. Answer: [`Response::Table`], as it was before.
    ConntrackDrain,
    /// Hold the ephemeral ports of the namespace, of which there are few meanwhile. Answer: [`Response::Ports`].
    PortsHold {
        /// How many to leave to others.
        free: u16,
    },
    /// Give them back. Answer: [`Response::Ports`], as it was before.
    PortsRelease,
    /// Add an address; one that is there already is fine.
    AddressAdd {
        /// Name of the link.
        link: String,
        /// Address with prefix length, such as `10.0.0.1/24`.
        addr: String,
    },
    /// Remove an address; one that is not there is fine.
    AddressDel {
        /// Name of the link.
        link: String,
        /// Address with prefix length.
        addr: String,
    },
    /// Send what comes from an address of ours to some networks by way of a gateway: a rule and a routing table of its own. Everything else it
    /// sends goes where it went before. The same again is fine.
    RoutesFrom {
        /// The source address.
        from: IpAddr,
        /// The gateway, on the link below.
        via: IpAddr,
        /// Name of the link.
        link: String,
        /// The networks, such as `10.0.0.0/16`, of the address's family.
        to: Vec<String>,
        /// Number of the routing table, from 1 to 250; nobody else's.
        table: u8,
    },
    /// Change a link.
    LinkSet {
        /// Name of the link.
        link: String,
        /// Administrative state.
        up: bool,
        /// New MTU.
        mtu: Option<u32>,
    },
    /// Write a sysctl.
    Sysctl {
        /// Path below `/proc/sys/net`, such as `ipv4/ip_forward` (`net.ipv4.ip_forward` works too).
        path: String,
        /// New value.
        value: String,
    },
    /// Read a sysctl. Answer: [`Response::Text`].
    SysctlRead {
        /// Path as in [`Request::Sysctl`].
        path: String,
    },
    /// Open a fresh IPv6 UDP socket and read its options. Answer: [`Response::SockOpts`].
    SockOpts,
    /// `GET` a path over HTTP/1.1. Answer: [`Response::Http`].
    HttpGet {
        /// Address and port of the server.
        url_host: SocketAddr,
        /// Path with query.
        path: String,
        /// Longest time for the whole exchange in milliseconds.
        timeout_ms: u32,
    },
}

/// What an agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Response {
    /// To [`Request::Hello`].
    Hello {
        /// [`VERSION`] of the agent.
        version: u32,
        /// Its process id in its own PID namespace.
        pid: u32,
    },
    /// To [`Request::Clock`].
    Clock {
        /// This machine's own `CLOCK_MONOTONIC` in nanoseconds, whatever [`Request::SetClock`] said.
        own_ns: u64,
    },
    /// Done, nothing to say.
    Done,
    /// To [`Request::Connect`].
    Connect(ConnectReport),
    /// To [`Request::ConnectMany`].
    ConnectMany(Vec<ConnectReport>),
    /// To [`Request::FlowRead`] and [`Request::FlowStop`].
    Flow(FlowReport),
    /// To [`Request::Received`].
    Received(Vec<Received>),
    /// To [`Request::Inject`].
    Injected {
        /// Packets sent.
        packets: u32,
    },
    /// To [`Request::AskNeighbour`]: what came back for each target, such as `SYN-ACK from 10.89.0.11:80`.
    Neighbour(Vec<Option<String>>),
    /// To [`Request::CaptureStop`].
    Capture(Capture),
    /// To [`Request::Dump`] and [`Request::SysctlRead`].
    Text(String),
    /// To [`Request::Conntrack`].
    Conntrack(Vec<ConntrackEntry>),
    /// To [`Request::ConntrackForget`].
    Forgotten {
        /// Entries that were removed.
        entries: u32,
    },
    /// To [`Request::SignalPod`].
    Signalled {
        /// How many there are.
        processes: u32,
    },
    /// To [`Request::ChurnRead`] and [`Request::ChurnStop`].
    Churned(Churned),
    /// To [`Request::ConntrackFill`] and [`Request::ConntrackDrain`].
    Table(ConntrackTable),
    /// To [`Request::PortsHold`] and [`Request::PortsRelease`].
    Ports(HeldPorts),
    /// To [`Request::SockOpts`].
    SockOpts(SockOpts),
    /// To [`Request::HttpGet`].
    Http(HttpResponse),
}

/// A request on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestFrame {
    /// Number chosen by the caller, repeated in the answer.
    pub id: u64,
    /// What is asked.
    pub request: Request,
}

/// An answer on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponseFrame {
    /// Number of the request.
    pub id: u64,
    /// How it ended.
    pub result: Reply,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// It worked.
    Ok(Response),
    /// It did not; why.
    Err(String),
}
