//! The ruleset in the kernel, with real connections, in a user and network namespace of its own.
//!
//! ```text
//!   one network namespace: the node                      lo: 10.89.0.11, 10.244.1.11, 10.244.1.12 and their IPv6 twins
//!   client ──connect 10.96.0.1:80──> output: DNAT ──> 10.244.1.11:8080 or 10.244.1.12:8080 (listeners on lo)
//! ```
//!
//! This tests the path from elements to packets. What arrives from elsewhere (policies by source, masquerade, hairpin) needs a
//! topology and is tested by the harness.
//!
//! It is a program of its own (`harness = false`) because a user namespace can only be entered by a process with a single thread.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkFlags, LinkMessage},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_ROUTE};
use nix::sched::{CloneFlags, unshare};
use reference_proxy::{
    compile::Surroundings,
    model::{Endpoint, Service, ServicePort, Slice, SlicePort, State as EndpointState},
    nft::{Difference, Monitor, NetlinkTable},
    ruleset::Protocol,
    state::State,
};

/// The largest time a connection on the loopback interface may need on a machine with busy cores.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    // The listing that nextest and the default runner ask for.
    if std::env::args().any(|argument| argument == "--list") {
        if !std::env::args().any(|argument| argument == "--ignored") {
            println!("kernel: test");
        }
        return ExitCode::SUCCESS;
    }
    if let Err(error) = enter() {
        eprintln!("skipped: failed to make a user and network namespace: {error}");
        return ExitCode::SUCCESS;
    }
    for (name, test) in [
        ("connections", connections as fn() -> io::Result<()>),
        ("small_transactions", small_transactions),
        ("repair", repair),
        ("ranges", ranges),
        ("affinity", affinity),
        ("affinity_of_a_silent_sender", affinity_of_a_silent_sender),
        ("flipping_endpoints", flipping_endpoints),
    ] {
        match test() {
            Ok(()) => println!("test {name} ... ok"),
            Err(error) => {
                eprintln!("test {name} ... FAILED: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn enter() -> io::Result<()> {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;

    let mut link = LinkMessage::default();
    link.header.index = 1;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    request(RouteNetlinkMessage::SetLink(link), 0)?;
    for ip in [
        "10.89.0.11",
        "10.244.1.11",
        "10.244.1.12",
        "fd00:89::b",
        "fd00:244:0:1::b",
        "fd00:244:0:1::c",
    ] {
        let ip: IpAddr = ip.parse().map_err(io::Error::other)?;
        let mut address = AddressMessage::default();
        address.header.index = 1;
        address.header.prefix_len = if ip.is_ipv4() { 32 } else { 128 };
        address.header.family = family(ip);
        address.attributes.push(AddressAttribute::Address(ip));
        if ip.is_ipv4() {
            address.attributes.push(AddressAttribute::Local(ip));
        }
        request(RouteNetlinkMessage::NewAddress(address), NLM_F_CREATE)?;
    }
    // Any way out, so that a connection to a cluster IP gets as far as the output hook.
    for any in ["0.0.0.0", "::"] {
        let any: IpAddr = any.parse().map_err(io::Error::other)?;
        let mut route = RouteMessage::default();
        route.header.address_family = family(any);
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.protocol = RouteProtocol::Static;
        route.header.scope = RouteScope::Universe;
        route.header.kind = RouteType::Unicast;
        route.attributes.push(RouteAttribute::Oif(1));
        request(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE)?;
    }
    V6.into_iter().try_for_each(wait_for)
}

/// Until a connection to the address works: the kernel finishes an IPv6 address in a work queue, after it has acknowledged it.
fn wait_for(ip: &str) -> io::Result<()> {
    let ip: IpAddr = ip.parse().map_err(io::Error::other)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let connected = TcpListener::bind((ip, 0))
            .and_then(|listener| TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE));
        match connected {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::yield_now(),
        }
    }
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn request(inner: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let mut message = NetlinkMessage::from(inner);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &NetlinkAddr::new(0, 0), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|error| io::Error::other(error.to_string()))?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}

fn service(number: u8, affinity: Option<u32>) -> Service {
    Service {
        cluster_ips: vec![
            IpAddr::from([10, 96, 0, number]),
            format!("fd00:96::{number}").parse().expect("an address"),
        ],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30000 + u16::from(number)),
        }],
        affinity,
        internal_local: false,
        external_local: false,
        health_check_node_port: None,
    }
}

fn slice(service: &Arc<str>, ips: &[&str], port: u16) -> Slice {
    Slice {
        service: service.clone(),
        ports: vec![SlicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port,
        }],
        endpoints: ips
            .iter()
            .map(|ip| Endpoint {
                ip: ip.parse().expect("an address"),
                state: EndpointState::Ready,
                local: true,
                for_this_node: None,
                zones: Box::default(),
            })
            .collect(),
    }
}

fn node() -> Surroundings {
    let mut around = Surroundings::default();
    around.node.ips = vec!["10.89.0.11".parse().expect("an address")];
    around.node_port_ips.clone_from(&around.node.ips);
    around
}

/// Listeners that say who they are, on a port of its own for each test.
fn listen(ips: &[&str]) -> io::Result<u16> {
    let mut port = 0;
    for ip in ips {
        let ip: IpAddr = ip.parse().map_err(io::Error::other)?;
        let listener = TcpListener::bind((ip, port))?;
        port = listener.local_addr()?.port();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.and_then(|mut stream| write!(stream, "{ip}"));
            }
        });
    }
    Ok(port)
}

/// Who answers at `to`.
fn ask(to: &str) -> io::Result<String> {
    let to: SocketAddr = to.parse().map_err(io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn ask_often(to: &str, times: usize) -> io::Result<HashMap<String, usize>> {
    let mut answers = HashMap::new();
    for _ in 0..times {
        *answers.entry(ask(to)?).or_default() += 1;
    }
    Ok(answers)
}

fn ensure(holds: bool, what: impl Into<String>) -> io::Result<()> {
    if holds {
        Ok(())
    } else {
        Err(io::Error::other(what.into()))
    }
}

const V4: [&str; 2] = ["10.244.1.11", "10.244.1.12"];
const V6: [&str; 2] = ["fd00:244:0:1::b", "fd00:244:0:1::c"];

/// Elements become connections: both endpoints in both families, refusal without endpoints and at unused ports, and changes.
fn connections() -> io::Result<()> {
    let key: Arc<str> = "default/a".into();
    let four: Arc<str> = "default/a-4".into();
    let six: Arc<str> = "default/a-6".into();
    let (port4, port6) = (listen(&V4)?, listen(&V6)?);
    let mut state = State::new(node());
    let mut table = NetlinkTable::open()?;
    state.set_service(&key, Some(service(1, None)));
    state.sync_first();
    table.adopt(|| state.elements())?;
    let refused = ask("10.96.0.1:80").expect_err("nobody is there");
    ensure(
        refused.kind() == io::ErrorKind::ConnectionRefused,
        format!("no endpoints: {refused}"),
    )?;

    state.set_slice(&four, Some(slice(&key, &V4, port4)));
    state.set_slice(&six, Some(slice(&key, &V6, port6)));
    table.apply(&mut state.sync().changes)?;
    for (to, ips) in [
        ("10.96.0.1:80", V4),
        ("[fd00:96::1]:80", V6),
        ("10.89.0.11:30001", V4),
    ] {
        let answers = ask_often(to, 64)?;
        // With even chances one of two is missed once in 2^63 runs.
        ensure(
            answers.len() == 2 && ips.iter().all(|ip| answers.contains_key(*ip)),
            format!("{to}: {answers:?}"),
        )?;
    }
    let refused = ask("10.96.0.1:81").expect_err("an unused port");
    ensure(
        refused.kind() == io::ErrorKind::ConnectionRefused,
        format!("unused port: {refused}"),
    )?;

    state.set_slice(&four, Some(slice(&key, &V4[..1], port4)));
    table.apply(&mut state.sync().changes)?;
    let answers = ask_often("10.96.0.1:80", 32)?;
    ensure(
        answers.len() == 1,
        format!("one endpoint left: {answers:?}"),
    )?;
    ensure(
        table.difference(&state.elements())?.is_none(),
        "the table is not what it should be",
    )?;
    table.delete()
}

/// What does not fit in one transaction arrives in several, and the end is the same.
fn small_transactions() -> io::Result<()> {
    let mut state = State::new(node());
    for number in 1..=200u8 {
        let key: Arc<str> = format!("default/s{number}").into();
        state.set_service(&key, Some(service(number, Some(60))));
        state.set_slice(&key, Some(slice(&key, &V4, 8080)));
    }
    state.sync_first();
    let mut table = NetlinkTable::open()?;
    table.limit_transactions(32 << 10);
    table.adopt(|| state.elements())?;
    ensure(table.transactions() > 2, "it was no large change")?;
    ensure(
        table.difference(&state.elements())?.is_none(),
        "the table is not what it should be",
    )?;
    for number in 1..=200u8 {
        let key: Arc<str> = format!("default/s{number}").into();
        state.set_slice(&key, Some(slice(&key, &V4[..1], 8081)));
    }
    table.apply(&mut state.sync().changes)?;
    let difference = table.difference(&state.elements())?;
    ensure(difference.is_none(), format!("{difference:?}"))?;
    table.delete()
}

/// Somebody deletes or changes the table: it is noticed, and repaired; the table of another process is taken over as it is.
fn repair() -> io::Result<()> {
    let key: Arc<str> = "default/a".into();
    let mut state = State::new(node());
    state.set_service(&key, Some(service(1, None)));
    state.set_slice(&key, Some(slice(&key, &V4, 8080)));
    state.sync_first();
    let mut table = NetlinkTable::open()?;
    table.adopt(|| state.elements())?;
    let monitor = Monitor::open(Some(table.port()?))?;

    let mut other = NetlinkTable::open()?;
    ensure(
        other.adopt(|| state.elements())?.is_none(),
        "a second process changed a table that was right",
    )?;
    other.delete()?;
    monitor.wait()?;
    let found = table.adopt(|| state.elements())?;
    ensure(
        matches!(found, Some(Difference::Layout(_))),
        format!("after the deletion: {found:?}"),
    )?;

    // Another process of the same layout that knows other Services.
    let mut stranger = State::new(node());
    let stranger_key: Arc<str> = "default/b".into();
    stranger.set_service(&stranger_key, Some(service(2, Some(60))));
    stranger.set_slice(&stranger_key, Some(slice(&stranger_key, &V4, 8080)));
    stranger.sync_first();
    other.adopt(|| stranger.elements())?;
    monitor.wait()?;
    let found = table.adopt(|| state.elements())?;
    ensure(
        matches!(found, Some(Difference::Elements { .. })),
        format!("after a stranger: {found:?}"),
    )?;
    ensure(
        table.difference(&state.elements())?.is_none(),
        "the repair was not complete",
    )?;
    table.delete()
}

/// No connection is lost while the number of endpoints goes up and down as fast as the kernel takes it.
///
/// Lookups see the elements of their own moment and not those of the transaction under which their packet came in. Each connection may
/// fall between two transactions, by chance; so many of them do that a ruleset without care for it fails every time.
fn flipping_endpoints() -> io::Result<()> {
    const CLIENTS: usize = 3;
    const FLIPS: usize = 1500;
    let key: Arc<str> = "default/a".into();
    let port = listen(&V4)?;
    let mut state = State::new(node());
    let mut table = NetlinkTable::open()?;
    state.set_service(&key, Some(service(1, None)));
    state.set_slice(&key, Some(slice(&key, &V4, port)));
    state.sync_first();
    table.adopt(|| state.elements())?;
    let over = AtomicBool::new(false);
    let (asked, lost) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let (mut asked, mut lost) = (0, Vec::new());
                    while !over.load(Ordering::Relaxed) {
                        asked += 1;
                        if let Err(error) = ask("10.96.0.1:80") {
                            lost.push(error.to_string());
                        }
                    }
                    (asked, lost)
                })
            })
            .collect();
        let flipped = (0..FLIPS).try_for_each(|turn| {
            state.set_slice(&key, Some(slice(&key, &V4[..1 + turn % 2], port)));
            table.apply(&mut state.sync().changes)
        });
        over.store(true, Ordering::Relaxed);
        let (mut asked, mut lost) = (0, Vec::new());
        for client in clients {
            let (more, failed) = client.join().expect("a client");
            asked += more;
            lost.extend(failed);
        }
        flipped.map(|()| (asked, lost))
    })?;
    ensure(
        lost.is_empty(),
        format!(
            "{} of {asked} connections: {}",
            lost.len(),
            lost[0..1.min(lost.len())].join("")
        ),
    )?;
    table.delete()
}

/// A process takes over the table of one that knew other ranges of pods, again and again: the kernel wants the end of a range to be
/// removed right after its beginning, and what is found by listing comes in any order.
fn ranges() -> io::Result<()> {
    const TIMES: usize = 200;
    let mut table = NetlinkTable::open()?;
    for turn in 0..TIMES {
        let mut around = node();
        let last = turn % 7;
        around.node.pod_cidrs = [
            format!("10.244.{last}.0/24"),
            format!("10.244.{}.0/24", 2 * last + 20),
            format!("fd00:244:0:{last}::/64"),
        ]
        .iter()
        .map(|range| range.parse().expect("a range"))
        .collect();
        let mut state = State::new(around);
        state.sync_first();
        table
            .adopt(|| state.elements())
            .map_err(|error| io::Error::other(format!("turn {turn}: {error}")))?;
        let difference = table.difference(&state.elements())?;
        ensure(difference.is_none(), format!("turn {turn}: {difference:?}"))?;
    }
    table.delete()
}

/// A client returns to its endpoint, and moves when the endpoint is gone.
fn affinity() -> io::Result<()> {
    let key: Arc<str> = "default/a".into();
    let (port4, port6) = (listen(&V4)?, listen(&V6)?);
    let six: Arc<str> = "default/a-6".into();
    let mut state = State::new(node());
    state.set_service(&key, Some(service(1, Some(3600))));
    state.set_slice(&key, Some(slice(&key, &V4, port4)));
    state.set_slice(&six, Some(slice(&key, &V6, port6)));
    state.sync_first();
    let mut table = NetlinkTable::open()?;
    table.adopt(|| state.elements())?;
    for to in ["10.96.0.1:80", "[fd00:96::1]:80"] {
        let answers = ask_often(to, 32)?;
        ensure(answers.len() == 1, format!("{to}: {answers:?}"))?;
    }
    let first = ask("10.96.0.1:80")?;
    let rest: Vec<&str> = V4.into_iter().filter(|ip| *ip != first).collect();
    state.set_slice(&key, Some(slice(&key, &rest, port4)));
    let mut work = state.sync();
    table.apply(&mut work.changes)?;
    let mut affinities = state.affinities();
    let forgotten = table.forget_affinities(|client, frontend, endpoint| {
        work.affinity.contains(frontend) && !affinities.hold(client, frontend, endpoint)
    })?;
    ensure(forgotten == 1, format!("forgot {forgotten} affinities"))?;
    let answers = ask_often("10.96.0.1:80", 8)?;
    ensure(
        answers.len() == 1 && answers.contains_key(rest[0]),
        format!("after the endpoint was gone: {answers:?}"),
    )?;
    table.delete()
}

/// A sender whom nobody answers, such as one of log lines, goes on sending while its endpoint goes. What it sends over its old connection tracking entry must
/// not bring the affinity back that was just forgotten: its next flow would return to the endpoint that is gone, for ever.
fn affinity_of_a_silent_sender() -> io::Result<()> {
    let key: Arc<str> = "default/a".into();
    let receivers = V4
        .into_iter()
        .map(|ip| UdpSocket::bind((ip, 5140)))
        .collect::<io::Result<Vec<_>>>()?;
    let mut silent = service(2, Some(3600));
    silent.ports[0].protocol = Protocol::Udp;
    let listed = |ips: &[&str]| {
        let mut slice = slice(&key, ips, 5140);
        slice.ports[0].protocol = Protocol::Udp;
        slice
    };
    let mut state = State::new(node());
    state.set_service(&key, Some(silent));
    state.set_slice(&key, Some(listed(&V4)));
    state.sync_first();
    let mut table = NetlinkTable::open()?;
    table.adopt(|| state.elements())?;
    let sender = UdpSocket::bind("10.89.0.11:0")?;
    sender.connect("10.96.0.2:80")?;
    sender.send(b"one")?;
    // The loopback interface delivers before the call returns.
    let got = receivers.iter().position(|receiver| {
        let ready = receiver.set_nonblocking(true);
        ready.is_ok() && receiver.recv(&mut [0; 16]).is_ok()
    });
    let at = got.ok_or_else(|| io::Error::other("nobody got the first datagram"))?;
    let rest: Vec<&str> = V4.into_iter().filter(|ip| *ip != V4[at]).collect();
    state.set_slice(&key, Some(listed(&rest)));
    let mut work = state.sync();
    table.apply(&mut work.changes)?;
    let mut affinities = state.affinities();
    let forgotten = table.forget_affinities(|client, frontend, endpoint| {
        work.affinity.contains(frontend) && !affinities.hold(client, frontend, endpoint)
    })?;
    ensure(forgotten == 1, format!("forgot {forgotten} affinities"))?;
    sender.send(b"two")?;
    ensure(
        receivers[at].recv(&mut [0; 16]).is_ok(),
        "the old entry still leads to the old endpoint until it is removed",
    )?;
    let back = table.forget_affinities(|_, _, _| true)?;
    ensure(back == 0, format!("{back} affinities came back"))?;
    table.delete()
}
