//! Removal of stale conntrack entries against a real kernel, in a user and network namespace made for it.
//!
//! The entries are written by netlink, so neither rules nor traffic nor any tool is needed, and read back with the message types of the
//! library, which the code under test does not use for reading.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt,
    process::Command,
    time::{Duration, Instant},
};

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple},
};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use nix::sched::{CloneFlags, unshare};
use reference_proxy::conntrack::{Conntrack, Promises, UdpFrontend};

const INSIDE: &str = "REFERENCE_PROXY_TEST_INSIDE_NAMESPACE";
const CTA_ZONE: u16 = 18;

/// Runs the named test of this binary again, in new namespaces, and fails when it fails there. True when this already is that run.
fn in_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let uid_map = format!("0 {} 1", nix::unistd::getuid());
    let gid_map = format!("0 {} 1", nix::unistd::getgid());
    let mut command = Command::new(std::env::current_exe().expect("this binary has a path"));
    command
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1");
    // SAFETY: between fork and exec the closure makes system calls only; paths are short enough for the stack.
    unsafe {
        command.pre_exec(move || {
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
            std::fs::write("/proc/self/setgroups", "deny")?;
            std::fs::write("/proc/self/uid_map", &uid_map)?;
            std::fs::write("/proc/self/gid_map", &gid_map)
        });
    }
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "inside the namespace:\n{text}");
            println!("{text}");
        }
        Err(error) => println!("skipped: user namespaces are forbidden here: {error}"),
    }
    false
}

/// One entry, as a test names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    tcp: bool,
    client: SocketAddr,
    destination: SocketAddr,
    /// Who answers.
    endpoint: SocketAddr,
    zone: u16,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address of the test")
}

fn frontend(text: &str) -> UdpFrontend {
    let addr = addr(text);
    UdpFrontend {
        addr: addr.ip(),
        port: addr.port(),
    }
}

fn udp(client: &str, destination: &str, endpoint: &str) -> Entry {
    Entry {
        tcp: false,
        client: addr(client),
        destination: addr(destination),
        endpoint: addr(endpoint),
        zone: 0,
    }
}

/// The test's own view of the table.
struct Table {
    socket: Socket,
    sequence: u32,
}

impl Table {
    /// `None`, with the reason printed, when the kernel has no conntrack over netlink.
    fn open() -> Option<Self> {
        let open = || -> io::Result<Self> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            let mut table = Self {
                socket,
                sequence: 0,
            };
            table.list()?;
            Ok(table)
        };
        open()
            .inspect_err(|error| {
                println!("skipped: this kernel lists no conntrack entries: {error}")
            })
            .ok()
    }

    fn request(&mut self, flags: u16, family: IpAddr, body: ConntrackMessage) -> Vec<u8> {
        self.sequence += 1;
        let family = if family.is_ipv4() {
            NetfilterProtoFamily::IPv4
        } else {
            NetfilterProtoFamily::IPv6
        };
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(
            header,
            NetlinkPayload::from(NetfilterMessage::new(
                NetfilterHeader::new(family, 0, 0),
                body,
            )),
        );
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// Reads answers until `end` or an error. Nothing else uses this socket, so every answer is to the last request.
    fn answers(&mut self, mut each: impl FnMut(ConntrackMessage)) -> io::Result<()> {
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                let length = (message.header.length as usize).next_multiple_of(4);
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(()),
                            Some(_) => Err(error.to_io()),
                        };
                    }
                    NetlinkPayload::InnerMessage(NetfilterMessage {
                        inner: NetfilterMessageInner::Conntrack(message),
                        ..
                    }) => each(message),
                    other => panic!("unexpected answer {other:?}"),
                }
                rest = rest.get(length..).unwrap_or_default();
            }
        }
    }

    fn insert(&mut self, entries: &[Entry]) {
        for entry in entries {
            let mut attributes = vec![
                ConntrackAttribute::CtaTupleOrig(tuple(entry.tcp, entry.client, entry.destination)),
                ConntrackAttribute::CtaTupleReply(tuple(entry.tcp, entry.endpoint, entry.client)),
                ConntrackAttribute::CtaTimeout(600),
            ];
            if entry.zone != 0 {
                let zone = entry.zone.to_be_bytes().to_vec();
                attributes.push(ConntrackAttribute::Other(DefaultNla::new(CTA_ZONE, zone)));
            }
            let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
            let bytes = self.request(flags, entry.client.ip(), ConntrackMessage::New(attributes));
            self.socket.send(&bytes, 0).expect("sent");
            self.answers(|_| {})
                .unwrap_or_else(|error| panic!("failed to insert {entry:?}: {error}"));
        }
    }

    fn list(&mut self) -> io::Result<BTreeSet<Entry>> {
        let mut entries = BTreeSet::new();
        for family in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), addr("[::]:0").ip()] {
            let body = ConntrackMessage::Get(vec![]);
            let bytes = self.request(NLM_F_REQUEST | NLM_F_DUMP, family, body);
            self.socket.send(&bytes, 0)?;
            self.answers(|message| {
                entries.extend(decode(&message));
            })?;
        }
        Ok(entries)
    }
}

fn tuple(tcp: bool, source: SocketAddr, destination: SocketAddr) -> Vec<Tuple> {
    let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
    vec![
        Tuple::Ip(vec![
            IPTuple::SourceAddress(source.ip()),
            IPTuple::DestinationAddress(destination.ip()),
        ]),
        Tuple::Proto(vec![
            ProtoTuple::Protocol(protocol),
            ProtoTuple::SourcePort(source.port()),
            ProtoTuple::DestinationPort(destination.port()),
        ]),
    ]
}

fn decode(message: &ConntrackMessage) -> Option<Entry> {
    let ConntrackMessage::New(attributes) = message else {
        return None;
    };
    let mut original = None;
    let mut reply = None;
    let mut zone = 0;
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = ends(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => reply = ends(tuple),
            ConntrackAttribute::Other(nla) => {
                use netlink_packet_core::Nla;
                if nla.kind() == CTA_ZONE {
                    let mut value = [0; 2];
                    nla.emit_value(&mut value);
                    zone = u16::from_be_bytes(value);
                }
            }
            _ => {}
        }
    }
    let (tcp, client, destination) = original?;
    let (_, endpoint, _) = reply?;
    Some(Entry {
        tcp,
        client,
        destination,
        endpoint,
        zone,
    })
}

fn ends(tuple: &[Tuple]) -> Option<(bool, SocketAddr, SocketAddr)> {
    let (mut from, mut to, mut from_port, mut to_port, mut tcp) = (None, None, 0, 0, false);
    for part in tuple {
        match part {
            Tuple::Ip(parts) => {
                for part in parts {
                    match part {
                        IPTuple::SourceAddress(ip) => from = Some(*ip),
                        IPTuple::DestinationAddress(ip) => to = Some(*ip),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(parts) => {
                for part in parts {
                    match part {
                        ProtoTuple::Protocol(protocol) => tcp = *protocol == Protocol::Tcp,
                        ProtoTuple::SourcePort(port) => from_port = *port,
                        ProtoTuple::DestinationPort(port) => to_port = *port,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some((
        tcp,
        SocketAddr::new(from?, from_port),
        SocketAddr::new(to?, to_port),
    ))
}

fn stale(frontends: &[(&str, &[&str])]) -> HashMap<UdpFrontend, HashSet<SocketAddr>> {
    frontends
        .iter()
        .map(|(at, endpoints)| (frontend(at), endpoints.iter().map(|e| addr(e)).collect()))
        .collect()
}

#[test]
fn exactly_the_stale_entries_go() {
    if !in_namespace("exactly_the_stale_entries_go") {
        return;
    }
    let Some(mut table) = Table::open() else {
        return;
    };
    let zoned = |entry: Entry| Entry { zone: 7, ..entry };
    let tcp = |entry: Entry| Entry { tcp: true, ..entry };
    let keep = [
        // Leads to a serving endpoint.
        udp("10.244.1.12:4000", "10.96.0.10:53", "10.244.2.11:5353"),
        udp(
            "[fd00:244:0:1::c]:4000",
            "[fd00:96::a]:53",
            "[fd00:244:0:2::b]:5353",
        ),
        // Same tuple as one that goes, but TCP.
        tcp(udp("10.244.1.12:4001", "10.96.0.10:53", "10.244.3.11:5353")),
        // Other port, other address, no Service at all.
        udp("10.244.1.12:4002", "10.96.0.10:54", "10.244.3.11:5353"),
        udp("10.244.1.12:4003", "10.96.0.11:53", "10.244.3.11:5353"),
        udp("10.244.1.12:4004", "192.0.2.1:53", "192.0.2.1:53"),
        // Never translated, and still no endpoints.
        udp("10.99.0.11:4005", "203.0.113.1:53", "203.0.113.1:53"),
    ];
    let go = [
        // Leads to an endpoint that is gone; in a zone too; the same client port in both families.
        udp("10.244.1.12:4001", "10.96.0.10:53", "10.244.3.11:5353"),
        zoned(udp("10.244.1.12:4001", "10.96.0.10:53", "10.244.3.11:5353")),
        udp(
            "[fd00:244:0:1::c]:4001",
            "[fd00:96::a]:53",
            "[fd00:244:0:3::b]:5353",
        ),
        // Node port, external IP, load balancer IP scaled to zero.
        udp("10.99.0.11:4000", "10.89.0.11:30053", "10.244.3.11:5353"),
        udp("10.99.0.11:4001", "198.51.100.1:53", "10.244.3.11:5353"),
        udp("10.99.0.11:4002", "203.0.113.1:53", "10.244.3.11:5353"),
        // The sender was there before the Service.
        udp("10.244.1.12:4010", "10.96.0.10:53", "10.96.0.10:53"),
    ];
    table.insert(&keep);
    table.insert(&go);
    assert_eq!(table.list().expect("listed").len(), keep.len() + go.len());

    let endpoints: &[&str] = &["10.244.2.11:5353"];
    let stale = stale(&[
        ("10.96.0.10:53", endpoints),
        ("10.89.0.11:30053", endpoints),
        ("198.51.100.1:53", endpoints),
        ("203.0.113.1:53", &[]),
        ("[fd00:96::a]:53", &["[fd00:244:0:2::b]:5353"]),
    ]);
    let mut conntrack = Conntrack::open(Promises::default()).expect("opened");
    let removed = conntrack.remove_stale(&stale).expect("removed");
    assert_eq!(
        (removed.ipv4, removed.ipv6),
        (go.len() - 1, 1),
        "{removed:?}"
    );
    assert!(!removed.incomplete);
    assert_eq!(table.list().expect("listed"), BTreeSet::from(keep));

    let again = conntrack.remove_stale(&stale).expect("removed");
    assert_eq!(again.total(), 0, "a second call finds nothing");
    let nothing = conntrack.remove_stale(&HashMap::new()).expect("removed");
    assert_eq!(nothing.listed, 0, "no frontends, no listing");
}

#[test]
fn what_newer_rules_made_is_not_removed_for_the_sake_of_older_knowledge() {
    if !in_namespace("what_newer_rules_made_is_not_removed_for_the_sake_of_older_knowledge") {
        return;
    }
    let Some(mut table) = Table::open() else {
        return;
    };
    let old = udp("10.244.1.12:4000", "10.96.0.10:53", "10.244.1.11:5353");
    let new = udp("10.244.1.12:4001", "10.96.0.10:53", "10.244.2.11:5353");
    table.insert(&[old, new]);
    let promises = Promises::default();
    let mut conntrack = Conntrack::open(promises.clone()).expect("opened");
    // The Service was deleted, which this removal knows, and another one has its address already.
    let coming = stale(&[("10.96.0.10:53", &["10.244.2.11:5353"])]);
    let coming = coming.iter().map(|(frontend, to)| (*frontend, to));
    promises.make(2, coming);
    let known = stale(&[("10.96.0.10:53", &[])]);
    let removed = conntrack.remove_stale(&known).expect("removed");
    assert_eq!(removed.total(), 1, "{removed:?}");
    assert_eq!(table.list().expect("listed"), BTreeSet::from([new]));
    // Once a removal knows all changes, it alone counts.
    promises.keep(2);
    let removed = conntrack.remove_stale(&known).expect("removed");
    assert_eq!(removed.total(), 1, "{removed:?}");
}

#[test]
fn a_single_frontend_is_filtered_by_the_kernel() {
    if !in_namespace("a_single_frontend_is_filtered_by_the_kernel") {
        return;
    }
    let Some(mut table) = Table::open() else {
        return;
    };
    let pairs = [
        (
            "10.96.0.10:53",
            udp("10.244.1.12:4000", "10.96.0.11:53", "10.244.3.11:5353"),
            udp("10.244.1.12:4001", "10.96.0.10:53", "10.244.3.11:5353"),
        ),
        (
            "[fd00:96::a]:53",
            udp(
                "[fd00:244:0:1::c]:4000",
                "[fd00:96::a]:54",
                "[fd00:244:0:3::b]:5353",
            ),
            udp(
                "[fd00:244:0:1::c]:4001",
                "[fd00:96::a]:53",
                "[fd00:244:0:3::b]:5353",
            ),
        ),
    ];
    let mut conntrack = Conntrack::open(Promises::default()).expect("opened");
    for (frontend, other, gone) in pairs {
        let before = table.list().expect("listed");
        table.insert(&[other, gone]);
        let removed = conntrack
            .remove_stale(&stale(&[(frontend, &[])]))
            .expect("removed");
        assert_eq!(removed.total(), 1, "{frontend}: {removed:?}");
        let mut expected = before;
        expected.insert(other);
        assert_eq!(table.list().expect("listed"), expected, "{frontend}");
        // A kernel before 5.8 lists both; none may hide the one.
        assert!((1..=2).contains(&removed.listed), "{removed:?}");
        println!("{frontend}: listed {} of 2 entries", removed.listed);
    }
}

#[test]
fn many_entries_take_linear_time() {
    if !in_namespace("many_entries_take_linear_time") {
        return;
    }
    let Some(mut table) = Table::open() else {
        return;
    };
    // The limit of the whole machine is not ours to change, nor to use up.
    let limit: usize = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(65_536);
    let count = (limit / 4).min(50_000);
    let entries: Vec<_> = (0..count)
        .map(|index| Entry {
            tcp: false,
            client: SocketAddr::new(
                Ipv4Addr::from(0x0AF4_0000 + (index / 60_000) as u32 + 12).into(),
                2_000 + (index % 60_000) as u16,
            ),
            destination: addr("10.96.0.10:53"),
            endpoint: addr(if index % 10 == 0 {
                "10.244.2.11:53"
            } else {
                "10.244.3.11:53"
            }),
            zone: 0,
        })
        .collect();
    table.insert(&entries);

    let mut conntrack = Conntrack::open(Promises::default()).expect("opened");
    // Many other frontends beside the one that matters: the cost must not be their product.
    let mut stale = stale(&[("10.96.0.10:53", &["10.244.2.11:53"])]);
    stale.extend((0..10_000u32).map(|index| {
        let at = UdpFrontend {
            addr: Ipv4Addr::from(0x0A60_1000 + index).into(),
            port: 53,
        };
        (at, HashSet::new())
    }));
    let start = Instant::now();
    let removed = conntrack.remove_stale(&stale).expect("removed");
    let took = start.elapsed();
    println!("{count} entries, {} stale: {took:?}", removed.total());
    assert_eq!(removed.total(), count - count.div_ceil(10));
    assert_eq!(table.list().expect("listed").len(), count.div_ceil(10));
    // Takes about 0.2 s unoptimised; quadratic work would take minutes, as in kubernetes/kubernetes#135323.
    assert!(took < Duration::from_secs(20), "{took:?}");
}
