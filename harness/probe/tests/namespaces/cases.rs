//! What an agent must see and do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use probe::proto::*;

use crate::case;
use crate::world::{CLIENT4, CLIENT6, SERVER4, SERVER6, World};

pub fn all() -> Vec<Trial> {
    vec![
        case("answers_tell_who_and_from_where", answers),
        case("source_ports_can_be_chosen_and_used_again", source_ports),
        case("no_listener_refuses_with_rst_or_icmp", refused),
        case("a_reject_rule_is_told_from_a_closed_port", rejected),
        case("silence_and_unreachable_are_told_apart", unreachable),
        case(
            "large_datagrams_are_fragmented_unless_forbidden",
            large_datagrams,
        ),
        case("every_small_size_arrives", exact_sizes),
        case("large_streams_arrive_in_both_directions", large_streams),
        case("datagrams_sent_back_to_back_are_all_answered", back_to_back),
        case("an_answer_from_the_wrong_address_is_seen", wrong_peer),
        case(
            "wildcard_servers_answer_from_the_address_asked",
            wildcard_reply,
        ),
        case("flows_of_every_kind_count_every_request", flows),
        case("one_way_datagrams_are_known_to_the_server", one_way),
        case("a_stream_tells_how_it_was_closed", stream_reset),
        case("a_stream_to_nobody_ends_at_once", stream_refused),
        case("a_udp_flow_sees_the_server_go_and_come_back", udp_flow_gap),
        case(
            "stopping_a_server_can_leave_its_connections",
            stop_leaves_connections,
        ),
        case("serving_is_all_or_nothing", serve_atomic),
        case("segments_outside_the_window_are_injected", out_of_window),
        case("raw_packets_are_sent_as_they_are", raw_packet),
        case("a_neighbour_is_asked_at_any_address", neighbour),
        case("a_capture_keeps_the_newest_packets", capture_bounded),
        case("conntrack_is_read_and_flushed", conntrack),
        case("the_ruleset_is_read_without_nft", ruleset),
        case("tables_are_kept_from_everybody", seized_tables),
        case("churn_interrupts_dumps_and_leaves_nothing", churn),
        case("quiet_links_interrupt_no_dump", no_churn),
        case("conntrack_is_filled_with_flows_of_nobody", pressure),
        case("ephemeral_ports_are_held_and_given_back", held_ports),
        case("links_addresses_and_sysctls_can_be_changed", kernel_state),
        case("what_comes_from_one_address_goes_its_own_way", routes_from),
        case("a_clock_can_be_set", clock),
        case("http_failures_are_told", http_failure),
        case("a_hundred_connections_in_a_row", hundred),
        case("a_matrix_runs_at_the_same_time", matrix),
    ]
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

fn listener(identity: &str, protocol: Protocol, address: &str, port: u16) -> Listener {
    Listener {
        id: format!("{identity}-{protocol:?}-{address}-{port}"),
        identity: identity.into(),
        protocol,
        addr: address.parse().unwrap(),
        port,
    }
}

/// TCP and UDP on a port of both families' wildcards.
fn both(identity: &str, port: u16) -> Vec<Listener> {
    let mut all = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for address in ["0.0.0.0", "::"] {
            all.push(listener(identity, protocol, address, port));
        }
    }
    all
}

/// Generous: it only bounds failures, and the machine may be busy.
fn spec(protocol: Protocol, target: SocketAddr) -> ConnectSpec {
    ConnectSpec {
        timeout_ms: 10_000,
        ..ConnectSpec::new(protocol, target)
    }
}

/// Both protocols, both families, both kinds of UDP socket.
fn everything(port: u16) -> Vec<ConnectSpec> {
    let mut all = Vec::new();
    for target in [at(SERVER4, port), at(SERVER6, port)] {
        all.push(spec(Protocol::Tcp, target));
        for udp in [UdpKind::Connected, UdpKind::Unconnected] {
            all.push(ConnectSpec {
                udp,
                ..spec(Protocol::Udp, target)
            });
        }
    }
    all
}

fn client_of(target: SocketAddr) -> std::net::IpAddr {
    if target.is_ipv4() {
        CLIENT4.parse().unwrap()
    } else {
        CLIENT6.parse().unwrap()
    }
}

/// Waits for a condition that becomes true, with a deadline that only a broken agent reaches.
async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
    }
}

async fn answers(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    for spec in everything(80) {
        let report = world
            .client
            .connect(ConnectSpec {
                count: 5,
                parallel: 2,
                ..spec.clone()
            })
            .await
            .unwrap();
        assert_eq!(
            report.answered_by(),
            BTreeMap::from([("web-1".to_owned(), 5)]),
            "{spec:?}"
        );
        for attempt in &report.attempts {
            let Outcome::Answered { peer, local, .. } = &attempt.outcome else {
                unreachable!()
            };
            assert_eq!(peer.ip(), client_of(spec.target));
            assert_eq!(*local, spec.target);
            assert_eq!(attempt.source.unwrap().port(), peer.port());
            assert!(attempt.at > 0 && attempt.latency_us < 10_000_000);
        }
    }
}

async fn source_ports(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    let ports = |report: &ConnectReport| -> Vec<u16> {
        let peer = |a: &Attempt| match &a.outcome {
            Outcome::Answered { peer, .. } => peer.port(),
            other => panic!("{other:?}"),
        };
        report.attempts.iter().map(peer).collect()
    };
    for spec in everything(80) {
        let source = Some(client_of(spec.target));
        let spec = ConnectSpec {
            source,
            count: 20,
            parallel: 4,
            ..spec
        };
        let fixed = ConnectSpec {
            source_port: SourcePort::Fixed(20_000),
            ..spec.clone()
        };
        for _ in 0..2 {
            assert_eq!(
                ports(&world.client.connect(fixed.clone()).await.unwrap()),
                [20_000; 20]
            );
        }
        let from = ConnectSpec {
            source_port: SourcePort::From(21_000),
            ..spec
        };
        let report = world.client.connect(from).await.unwrap();
        assert_eq!(ports(&report), (21_000..21_020).collect::<Vec<_>>());
    }
    // A connection whose port was left open must be a new flow for connection tracking, whoever asked for the last one.
    for target in [at(SERVER4, 80), at(SERVER6, 80)] {
        let mut used = BTreeSet::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let many = ConnectSpec {
                count: 300,
                parallel: 20,
                ..spec(protocol, target)
            };
            for port in ports(&world.client.connect(many).await.unwrap()) {
                assert!(used.insert(port), "port {port} was used twice");
            }
        }
    }
    // That works because neither end keeps TIME_WAIT entries.
    for agent in [&world.client, &world.server] {
        let sockets = agent.dump(DumpKind::Sockets).await.unwrap();
        assert!(!sockets.contains("time-wait"), "{sockets}");
    }
    let taken = ConnectSpec {
        source: Some("10.7.0.77".parse().unwrap()),
        ..spec(Protocol::Tcp, at(SERVER4, 80))
    };
    let report = world.client.connect(taken).await.unwrap();
    assert!(
        matches!(
            report.attempts[0].outcome,
            Outcome::SendFailed {
                errno: libc::EADDRNOTAVAIL,
                ..
            }
        ),
        "{report:?}"
    );
}

async fn refused(world: World) {
    for spec in everything(81) {
        let report = world.client.connect(spec.clone()).await.unwrap();
        let by = match (spec.protocol, spec.target.is_ipv4()) {
            (Protocol::Tcp, _) => RefusedBy::Rst,
            (_, true) => RefusedBy::Icmp { kind: 3, code: 3 },
            (_, false) => RefusedBy::Icmp { kind: 1, code: 4 },
        };
        assert_eq!(
            report.attempts[0].outcome,
            Outcome::Refused { by },
            "{spec:?}"
        );
    }
}

async fn rejected(world: World) {
    // A server listens, so that only the rule can refuse.
    world.server.serve(both("web-1", 4000)).await.unwrap();
    for spec in everything(4000) {
        let report = world.client.connect(spec.clone()).await.unwrap();
        let (kind, code) = if spec.target.is_ipv4() {
            (3, 3)
        } else {
            (1, 4)
        };
        let by = RefusedBy::Icmp { kind, code };
        assert_eq!(
            report.attempts[0].outcome,
            Outcome::Refused { by },
            "{spec:?}"
        );
    }
}

async fn unreachable(world: World) {
    let outcome = async |protocol, target: &str| {
        let spec = ConnectSpec {
            timeout_ms: 300,
            ..spec(protocol, at(target, 80))
        };
        world
            .client
            .connect(spec)
            .await
            .unwrap()
            .attempts
            .remove(0)
            .outcome
    };
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for target in ["10.7.3.1", "fd07:3::1"] {
            assert_eq!(
                outcome(protocol, target).await,
                Outcome::TimedOut,
                "{protocol:?} {target}"
            );
        }
        for (target, errnos) in [
            ("10.7.1.1", [libc::EHOSTUNREACH, libc::EHOSTUNREACH]),
            ("fd07:1::1", [libc::ENETUNREACH, libc::EHOSTUNREACH]),
            ("10.7.2.1", [libc::EHOSTUNREACH, libc::EACCES]),
            ("fd07:2::1", [libc::EACCES, libc::EACCES]),
        ] {
            match outcome(protocol, target).await {
                Outcome::Unreachable { errno, .. } => {
                    assert!(errnos.contains(&errno), "{protocol:?} {target} {errno}")
                }
                other => panic!("{protocol:?} {target}: {other:?}"),
            }
        }
    }
}

async fn large_datagrams(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    for spec in everything(80)
        .into_iter()
        .filter(|s| s.protocol == Protocol::Udp)
    {
        for size in [1473, 2000, 8000, 65_000] {
            let spec = ConnectSpec {
                exact: Some(size),
                reply: size - 200,
                ..spec.clone()
            };
            let report = world.client.connect(spec.clone()).await.unwrap();
            assert!(report.all_answered(), "{spec:?} {:?}", report.outcomes());
        }
        // The limit is exactly where the header of the family leaves no room.
        let limit = if spec.target.is_ipv4() { 1472 } else { 1452 };
        for (size, fits) in [(limit, true), (limit + 1, false), (2000, false)] {
            let spec = ConnectSpec {
                exact: Some(size),
                dont_fragment: true,
                ..spec.clone()
            };
            let outcome = world
                .client
                .connect(spec)
                .await
                .unwrap()
                .attempts
                .remove(0)
                .outcome;
            match (fits, &outcome) {
                (true, Outcome::Answered { .. })
                | (
                    false,
                    Outcome::SendFailed {
                        errno: libc::EMSGSIZE,
                        ..
                    },
                ) => {}
                _ => panic!("{size} bytes: {outcome:?}"),
            }
        }
    }
    let options = world.client.sock_opts().await.unwrap();
    assert_eq!(options.ipv6_dontfrag, 0);
}

async fn exact_sizes(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    let mut specs = Vec::new();
    for spec in everything(80) {
        for size in (0..=64).chain(1440..=1480) {
            specs.push(ConnectSpec {
                exact: Some(size),
                reply: size % 5,
                ..spec.clone()
            });
        }
    }
    let reports = world.client.connect_many(specs.clone()).await.unwrap();
    assert_eq!(reports.len(), specs.len());
    for (spec, report) in specs.iter().zip(&reports) {
        assert!(report.all_answered(), "{spec:?} {report:?}");
    }
}

async fn large_streams(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    for spec in everything(80)
        .into_iter()
        .filter(|s| s.protocol == Protocol::Tcp)
    {
        for (payload, reply) in [(3_000_000, 0), (0, 3_000_000), (1_000_001, 999_999)] {
            let spec = ConnectSpec {
                payload,
                reply,
                timeout_ms: 30_000,
                ..spec.clone()
            };
            let report = world.client.connect(spec).await.unwrap();
            assert!(report.all_answered(), "{:?}", report.outcomes());
        }
    }
}

async fn back_to_back(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    for spec in everything(80)
        .into_iter()
        .filter(|s| s.protocol == Protocol::Udp)
    {
        let spec = ConnectSpec {
            back_to_back: 8,
            count: 10,
            ..spec
        };
        assert!(world.client.connect(spec).await.unwrap().all_answered());
    }
}

async fn wrong_peer(world: World) {
    world
        .server
        .address_add("wire", "10.7.0.3/32")
        .await
        .unwrap();
    world
        .server
        .serve(vec![listener("web-1", Protocol::Udp, "10.7.0.3", 80)])
        .await
        .unwrap();
    // A client waits for an answer of an address that never gives one. A request forged in its name makes another server answer it.
    let waiting = {
        let client = world.client.clone();
        let spec = ConnectSpec {
            udp: UdpKind::Unconnected,
            source_port: SourcePort::Fixed(7777),
            timeout_ms: 10_000,
            // Raw, so that any server's answer to the same bytes fits.
            exact: Some(7),
            ..ConnectSpec::new(Protocol::Udp, at("10.7.3.1", 80))
        };
        tokio::spawn(async move { client.connect(spec).await.unwrap() })
    };
    let forged = {
        let payload: Vec<u8> = (0..7).map(|i: usize| (i * 7 + 13) as u8 & 0x7f).collect();
        let builder =
            etherparse::PacketBuilder::ipv4([10, 7, 0, 1], [10, 7, 0, 3], 64).udp(7777, 80);
        let mut packet = Vec::new();
        builder.write(&mut packet, &payload).unwrap();
        packet
    };
    // The client's socket may not be bound yet, so the forged request is repeated until its answer was taken.
    until("the wrong answer is seen", || async {
        world
            .client
            .inject(Inject::Raw {
                packet: forged.clone(),
            })
            .await
            .unwrap();
        waiting.is_finished()
    })
    .await;
    let report = waiting.await.unwrap();
    assert_eq!(
        report.attempts[0].outcome,
        Outcome::WrongPeer {
            from: at("10.7.0.3", 80)
        }
    );
}

async fn wildcard_reply(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    for (link_address, target) in [("10.7.0.9/32", "10.7.0.9"), ("fd07::9/128", "fd07::9")] {
        world
            .server
            .address_add("wire", link_address)
            .await
            .unwrap();
        for udp in [UdpKind::Connected, UdpKind::Unconnected] {
            let spec = ConnectSpec {
                udp,
                ..spec(Protocol::Udp, at(target, 80))
            };
            let report = world.client.connect(spec).await.unwrap();
            match &report.attempts[0].outcome {
                Outcome::Answered { local, .. } => assert_eq!(*local, at(target, 80)),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn flow(id: &str, kind: FlowKind, target: SocketAddr) -> FlowSpec {
    FlowSpec {
        id: id.into(),
        kind,
        target,
        source: None,
        source_port: SourcePort::Ephemeral,
        interval_ms: 2,
        payload: 100,
        reply: 50,
        timeout_ms: 10_000,
    }
}

async fn flows(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    let kinds = [
        FlowKind::TcpStream,
        FlowKind::UdpConnected,
        FlowKind::UdpUnconnected,
        FlowKind::NewConnections,
        FlowKind::NewDatagrams,
    ];
    let mut ids = Vec::new();
    for kind in kinds {
        for target in [at(SERVER4, 80), at(SERVER6, 80)] {
            let id = format!("{kind:?}-{target}");
            world
                .client
                .flow_start(flow(&id, kind, target))
                .await
                .unwrap();
            ids.push((id, kind));
        }
    }
    assert!(
        world
            .client
            .flow_start(flow(&ids[0].0, kinds[0], at(SERVER4, 80)))
            .await
            .is_err()
    );
    for (id, kind) in ids {
        until("thirty requests were sent", || async {
            world.client.flow_read(&id, 0).await.unwrap().samples.len() >= 30
        })
        .await;
        let report = world.client.flow_stop(&id).await.unwrap();
        assert!(
            report.samples.len() >= 30 && report.ended_at.is_some() && report.closed.is_none(),
            "{id}"
        );
        for (i, sample) in report.samples.iter().enumerate() {
            assert_eq!(sample.seq, i as u64);
            assert_eq!(
                sample.outcome.as_ref().and_then(Outcome::identity),
                Some("web-1"),
                "{id} {sample:?}"
            );
            assert!(sample.answered_at.unwrap() >= sample.sent_at);
        }
        let single = matches!(
            kind,
            FlowKind::TcpStream | FlowKind::UdpConnected | FlowKind::UdpUnconnected
        );
        assert_eq!(
            report.connects,
            if single {
                1
            } else {
                report.samples.len() as u32
            },
            "{id}"
        );
        // The servers know the same requests by the same name.
        let received = world.server.received(&id).await.unwrap();
        assert_eq!(received.len(), report.samples.len(), "{id}");
        assert!(world.client.flow_read(&id, 0).await.is_err());
    }
}

async fn one_way(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    world
        .client
        .flow_start(flow("one-way", FlowKind::UdpOneWay, at(SERVER4, 80)))
        .await
        .unwrap();
    until("twenty datagrams arrived", || async {
        world.server.received("one-way").await.unwrap().len() >= 20
    })
    .await;
    let report = world.client.flow_stop("one-way").await.unwrap();
    assert!(
        report
            .samples
            .iter()
            .all(|s| s.outcome.is_none() && s.answered_at.is_none())
    );
    until("the last datagram arrived", || async {
        world.server.received("one-way").await.unwrap().len() == report.samples.len()
    })
    .await;
    let received = world.server.received("one-way").await.unwrap();
    for (sent, got) in report.samples.iter().zip(&received) {
        assert_eq!(
            (got.seq, got.identity.as_str(), got.local_port),
            (sent.seq, "web-1", 80)
        );
        assert_eq!(got.peer.ip(), client_of(at(SERVER4, 80)));
        assert!(got.at >= sent.sent_at, "one clock for all");
    }
    assert!(world.server.received("another").await.unwrap().is_empty());
}

async fn answered(world: &World, id: &str, from: u64) -> u64 {
    let report = world.client.flow_read(id, from).await.unwrap();
    report
        .samples
        .iter()
        .filter(|s| s.outcome.as_ref().is_some_and(|o| o.identity().is_some()))
        .count() as u64
}

async fn stream_reset(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    world
        .client
        .flow_start(flow("stream", FlowKind::TcpStream, at(SERVER6, 80)))
        .await
        .unwrap();
    until("the stream is answered", || async {
        answered(&world, "stream", 0).await >= 5
    })
    .await;
    world.server.stop_serving(None, true).await.unwrap();
    until("the stream has ended", || async {
        world
            .client
            .flow_read("stream", u64::MAX)
            .await
            .unwrap()
            .ended_at
            .is_some()
    })
    .await;
    let report = world.client.flow_stop("stream").await.unwrap();
    assert_eq!(report.closed, Some(Outcome::Reset));
    assert!(report.samples.iter().all(|s| s.outcome.is_some()));
}

async fn stream_refused(world: World) {
    world
        .client
        .flow_start(flow("stream", FlowKind::TcpStream, at(SERVER4, 82)))
        .await
        .unwrap();
    until("the stream has ended", || async {
        world
            .client
            .flow_read("stream", 0)
            .await
            .unwrap()
            .ended_at
            .is_some()
    })
    .await;
    let report = world.client.flow_stop("stream").await.unwrap();
    assert_eq!(
        (report.connects, report.closed),
        (0, Some(Outcome::Refused { by: RefusedBy::Rst }))
    );
}

async fn udp_flow_gap(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    for kind in [FlowKind::UdpConnected, FlowKind::UdpUnconnected] {
        world
            .client
            .flow_start(flow("gap", kind, at(SERVER4, 80)))
            .await
            .unwrap();
        until("the flow is answered", || async {
            answered(&world, "gap", 0).await >= 5
        })
        .await;
        world.server.stop_serving(None, false).await.unwrap();
        until("a datagram was refused", || async {
            let report = world.client.flow_read("gap", 0).await.unwrap();
            let refused = Outcome::Refused {
                by: RefusedBy::Icmp { kind: 3, code: 3 },
            };
            report
                .samples
                .iter()
                .any(|s| s.outcome.as_ref() == Some(&refused))
        })
        .await;
        let from = world
            .client
            .flow_read("gap", 0)
            .await
            .unwrap()
            .samples
            .len() as u64;
        world.server.serve(both("web-2", 80)).await.unwrap();
        until("the flow is answered again", || async {
            answered(&world, "gap", from).await >= 5
        })
        .await;
        let report = world.client.flow_stop("gap").await.unwrap();
        // Every outcome belongs to its own request: no gap after the last answer of the first server but refusals.
        let order: Vec<&str> = report
            .samples
            .iter()
            .filter_map(|s| s.outcome.as_ref())
            .map(|o| {
                o.identity()
                    .unwrap_or(if matches!(o, Outcome::Refused { .. }) {
                        "refused"
                    } else {
                        "other"
                    })
            })
            .collect();
        let mut phases = order.clone();
        phases.dedup();
        let (first, second) = (order[0], order[order.len() - 1]);
        assert_eq!(second, "web-2");
        assert!(
            phases.iter().filter(|p| **p == "other").count() <= 2,
            "{phases:?}"
        );
        assert_eq!(
            phases.iter().filter(|p| **p == first).count(),
            1,
            "{phases:?}"
        );
        world.server.stop_serving(None, false).await.unwrap();
        world.server.serve(both("web-1", 80)).await.unwrap();
    }
}

async fn stop_leaves_connections(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    world
        .client
        .flow_start(flow("stream", FlowKind::TcpStream, at(SERVER4, 80)))
        .await
        .unwrap();
    until("the stream is answered", || async {
        answered(&world, "stream", 0).await >= 1
    })
    .await;
    world.server.stop_serving(None, false).await.unwrap();
    let report = world
        .client
        .connect(spec(Protocol::Tcp, at(SERVER4, 80)))
        .await
        .unwrap();
    assert_eq!(
        report.attempts[0].outcome,
        Outcome::Refused { by: RefusedBy::Rst }
    );
    let from = world
        .client
        .flow_read("stream", 0)
        .await
        .unwrap()
        .samples
        .len() as u64;
    until("the stream goes on", || async {
        answered(&world, "stream", from).await >= 5
    })
    .await;
    // And the port is free at once.
    world.server.serve(both("web-2", 80)).await.unwrap();
    let report = world
        .client
        .connect(spec(Protocol::Tcp, at(SERVER4, 80)))
        .await
        .unwrap();
    assert_eq!(
        report.answered_by(),
        BTreeMap::from([("web-2".to_owned(), 1)])
    );
}

async fn serve_atomic(world: World) {
    let good = listener("web-1", Protocol::Tcp, "0.0.0.0", 80);
    let bad = listener("web-1", Protocol::Tcp, "10.99.99.99", 80);
    let error = world
        .server
        .serve(vec![good.clone(), bad])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("10.99.99.99:80"), "{error}");
    let report = world
        .client
        .connect(spec(Protocol::Tcp, at(SERVER4, 80)))
        .await
        .unwrap();
    assert_eq!(
        report.attempts[0].outcome,
        Outcome::Refused { by: RefusedBy::Rst }
    );
    world.server.serve(vec![good.clone()]).await.unwrap();
    world.server.serve(vec![good.clone()]).await.unwrap();
    let other = Listener {
        identity: "web-2".into(),
        ..good
    };
    assert!(world.server.serve(vec![other]).await.is_err());
}

/// Packets of a capture: interface name and bytes.
fn packets(capture: &Capture) -> Vec<(String, Vec<u8>)> {
    use base64::Engine;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
    use pcap_file::pcapng::{Block, PcapNgReader};
    let file = base64::engine::general_purpose::STANDARD
        .decode(&capture.pcap_base64)
        .unwrap();
    let mut reader = PcapNgReader::new(file.as_slice()).unwrap();
    let (mut names, mut all) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::InterfaceDescription(interface) => {
                let name = interface.options.iter().find_map(|o| match o {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                });
                names.push(name.unwrap());
            }
            Block::EnhancedPacket(packet) => {
                all.push((
                    names[packet.interface_id as usize].clone(),
                    packet.data.to_vec(),
                ));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(all.len() as u64, capture.packets);
    all
}

async fn out_of_window(world: World) {
    for target in [at(SERVER4, 80), at(SERVER6, 80)] {
        world.server.serve(both("web-1", 80)).await.unwrap();
        world.client.capture_start(1 << 20, 0).await.unwrap();
        world
            .client
            .flow_start(flow("stream", FlowKind::TcpStream, target))
            .await
            .unwrap();
        until("the stream is answered", || async {
            answered(&world, "stream", 0).await >= 3
        })
        .await;
        let address = if target.is_ipv4() { "0.0.0.0" } else { "::" };
        let inject = Inject::OutOfWindow {
            listener: format!("web-1-Tcp-{address}-80"),
            peer: None,
            offset: -100_000,
            payload: "boom".into(),
        };
        assert_eq!(world.server.inject(inject.clone()).await.unwrap(), 1);
        // Nothing translates addresses here: the client discards the segment and the stream goes on.
        let from = world
            .client
            .flow_read("stream", 0)
            .await
            .unwrap()
            .samples
            .len() as u64;
        until("the stream goes on", || async {
            answered(&world, "stream", from).await >= 3
        })
        .await;
        let report = world.client.flow_stop("stream").await.unwrap();
        assert_eq!(report.closed, None);
        let capture = world.client.capture_stop().await.unwrap();
        let (mut boom, mut sequences) = (Vec::new(), Vec::new());
        for (_, packet) in packets(&capture) {
            let packet = etherparse::SlicedPacket::from_ethernet(&packet).unwrap();
            if let Some(etherparse::TransportSlice::Tcp(tcp)) = packet.transport
                && tcp.source_port() == 80
            {
                if tcp.payload() == b"boom" {
                    boom.push((tcp.sequence_number(), tcp.acknowledgment_number()));
                } else {
                    sequences.push(tcp.sequence_number());
                }
            }
        }
        assert_eq!(boom.len(), 1);
        let expected = boom[0].0.wrapping_add(100_000);
        assert!(
            sequences.contains(&expected),
            "{expected} is not a sequence number of the stream: {sequences:?}"
        );
        let nobody = Inject::OutOfWindow {
            listener: "nobody".into(),
            peer: None,
            offset: 0,
            payload: String::new(),
        };
        assert_eq!(world.server.inject(nobody).await.unwrap(), 0);
        world.server.stop_serving(None, true).await.unwrap();
    }
}

async fn raw_packet(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    world.server.capture_start(1 << 20, 0).await.unwrap();
    let mut sent = Vec::new();
    let (v4, v6) = (
        etherparse::PacketBuilder::ipv4([10, 7, 0, 1], [10, 7, 0, 2], 33).udp(5, 80),
        etherparse::PacketBuilder::ipv6(
            CLIENT6.parse::<std::net::Ipv6Addr>().unwrap().octets(),
            SERVER6.parse::<std::net::Ipv6Addr>().unwrap().octets(),
            33,
        )
        .udp(5, 80),
    );
    for builder in [v4, v6] {
        let mut packet = Vec::new();
        builder.write(&mut packet, b"raw packet").unwrap();
        assert_eq!(
            world
                .client
                .inject(Inject::Raw {
                    packet: packet.clone()
                })
                .await
                .unwrap(),
            1
        );
        sent.push(packet);
    }
    // A later exchange of each family has arrived, so both were before it.
    for spec in everything(80) {
        assert!(world.client.connect(spec).await.unwrap().all_answered());
    }
    let got = packets(&world.server.capture_stop().await.unwrap());
    for packet in sent {
        // The kernel fills in identification and checksum of an IPv4 header; everything behind it is ours.
        let tail = &packet[packet.len() - 18..];
        assert!(
            got.iter()
                .any(|(link, bytes)| link == "wire" && bytes.ends_with(tail)),
            "{packet:?}"
        );
    }
    assert!(
        world
            .client
            .inject(Inject::Raw {
                packet: vec![1, 2, 3]
            })
            .await
            .is_err()
    );
}

/// What CVE-2020-8558 was about: a host that routes 127.0.0.1 serves its neighbours there.
async fn neighbour(world: World) {
    let mut listeners = both("web-1", 80);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        listeners.push(listener("private", protocol, "127.0.0.1", 81));
    }
    world.server.serve(listeners).await.unwrap();
    let ask = |protocol, flow: &str, targets: Vec<SocketAddr>| AskNeighbour {
        via: if targets[0].is_ipv4() {
            SERVER4
        } else {
            SERVER6
        }
        .parse()
        .unwrap(),
        targets,
        protocol,
        flow: flow.into(),
        timeout_ms: 10_000,
    };
    let got = async |flow: &str| -> Vec<u64> {
        let all = world.server.received(flow).await.unwrap();
        all.iter().map(|received| received.seq).collect()
    };
    for (protocol, what) in [(Protocol::Tcp, "SYN-ACK"), (Protocol::Udp, "datagram")] {
        for (loopback, real) in [("127.0.0.1", SERVER4), ("::1", SERVER6)] {
            let flow = format!("guarded {protocol:?} {real}");
            let targets = vec![at(loopback, 80), at(loopback, 81), at(real, 80)];
            let answers = world
                .client
                .ask_neighbour(ask(protocol, &flow, targets))
                .await
                .unwrap();
            let control = Some(format!("{what} from {}", at(real, 80)));
            assert_eq!(answers, [None, None, control], "{flow}");
            if protocol == Protocol::Udp {
                assert_eq!(got(&flow).await, [2]);
            }
        }
    }
    world
        .server
        .sysctl("ipv4/conf/all/route_localnet", "1")
        .await
        .unwrap();
    for (protocol, what) in [(Protocol::Tcp, "SYN-ACK"), (Protocol::Udp, "datagram")] {
        let targets = vec![at("127.0.0.1", 80), at("127.0.0.1", 81), at(SERVER4, 80)];
        let expected: Vec<_> = targets
            .iter()
            .map(|target| Some(format!("{what} from {target}")))
            .collect();
        let answers = world
            .client
            .ask_neighbour(ask(protocol, "open", targets))
            .await
            .unwrap();
        assert_eq!(answers, expected);
    }
    let mut got = got("open").await;
    got.sort_unstable();
    assert_eq!(got, [0, 1, 2]);
    let mut nobody = ask(Protocol::Tcp, "nobody", vec![at(SERVER4, 80)]);
    nobody.via = "10.7.0.99".parse().unwrap();
    nobody.timeout_ms = 50;
    let error = world.client.ask_neighbour(nobody).await.unwrap_err();
    assert!(error.to_string().contains("no neighbour"), "{error}");
}

async fn capture_bounded(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    world.client.capture_start(20_000, 100).await.unwrap();
    assert!(world.client.capture_start(20_000, 100).await.is_err());
    for last in [false, true] {
        let payload = if last { 7 } else { 1000 };
        let spec = ConnectSpec {
            count: 200,
            payload,
            ..spec(Protocol::Udp, at(SERVER4, 80))
        };
        assert!(world.client.connect(spec).await.unwrap().all_answered());
    }
    let capture = world.client.capture_stop().await.unwrap();
    let all = packets(&capture);
    let bytes: usize = all.iter().map(|(_, data)| data.len()).sum();
    assert!(bytes <= 20_000 && !all.is_empty(), "{bytes}");
    assert!(capture.dropped > 0);
    assert!(
        all.iter()
            .all(|(link, data)| link == "wire" && data.len() <= 100)
    );
    assert!(world.client.capture_stop().await.is_err());
    // Loopback shows each packet once.
    world.client.serve(both("self", 80)).await.unwrap();
    world.client.capture_start(1 << 20, 0).await.unwrap();
    assert!(
        world
            .client
            .connect(spec(Protocol::Udp, at("127.0.0.1", 80)))
            .await
            .unwrap()
            .all_answered()
    );
    let all = packets(&world.client.capture_stop().await.unwrap());
    assert_eq!(
        all.iter().filter(|(link, _)| link == "lo").count(),
        2,
        "{all:?}"
    );
}

async fn conntrack(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    for spec in everything(80) {
        let source = Some(client_of(spec.target));
        let spec = ConnectSpec {
            source,
            source_port: SourcePort::Fixed(30_000),
            ..spec
        };
        assert!(world.client.connect(spec).await.unwrap().all_answered());
    }
    let entries = world.server.conntrack().await.unwrap();
    for target in [at(SERVER4, 80), at(SERVER6, 80)] {
        for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
            let client = SocketAddr::new(client_of(target), 30_000);
            let entry = entries
                .iter()
                .find(|e| {
                    e.orig_dst == target
                        && e.orig_src == client
                        && i32::from(e.protocol) == protocol
                })
                .unwrap_or_else(|| panic!("{target} {protocol}: {entries:?}"));
            assert_eq!((entry.reply_src, entry.reply_dst), (target, client));
            assert_eq!(entry.family, if target.is_ipv4() { 4 } else { 6 });
            assert_eq!(entry.status & 0x30, 0, "nothing is translated here");
            assert_ne!(entry.status & 0x2, 0, "the server answered");
            assert_eq!(entry.tcp_state.is_some(), protocol == libc::IPPROTO_TCP);
        }
    }
    let text = world.server.dump(DumpKind::Conntrack).await.unwrap();
    assert!(
        text.contains(
            "udp 10.7.0.1:30000 -> 10.7.0.2:80 reply 10.7.0.2:80 -> 10.7.0.1:30000 mark 0x0 # ["
        ),
        "{text}"
    );
    // Of each family one server's socket, and of the other what is left by its address.
    let socket = vec![at(SERVER4, 80)];
    let forgotten = world.server.conntrack_forget(Vec::new(), socket).await;
    assert_eq!(forgotten.unwrap(), 2, "TCP and UDP");
    let left = world.server.conntrack().await.unwrap();
    assert!(left.iter().all(|entry| entry.orig_dst != at(SERVER4, 80)));
    assert!(left.iter().any(|entry| entry.orig_dst == at(SERVER6, 80)));
    let nobody = vec!["10.7.0.99".parse().unwrap()];
    let forgotten = world.server.conntrack_forget(nobody, Vec::new()).await;
    assert_eq!(forgotten.unwrap(), 0);
    let client = vec![CLIENT6.parse().unwrap()];
    let forgotten = world.server.conntrack_forget(client, Vec::new()).await;
    assert!(forgotten.unwrap() >= 2);
    let left = world.server.conntrack().await.unwrap();
    assert!(
        left.iter()
            .all(|entry| entry.orig_src.ip().to_string() != CLIENT6
                || entry.protocol == libc::IPPROTO_ICMPV6 as u8),
        "{left:?}"
    );
    world.server.conntrack_flush().await.unwrap();
    assert_eq!(world.server.conntrack().await.unwrap(), []);
}

async fn ruleset(world: World) {
    assert_eq!(world.client.dump(DumpKind::Ruleset).await.unwrap(), "");
    world.client.foreign_table("visitor", true).await.unwrap();
    world.client.foreign_table("visitor", true).await.unwrap();
    insta::assert_snapshot!(
        "foreign_table",
        world.client.dump(DumpKind::Ruleset).await.unwrap()
    );
    world.client.foreign_table("visitor", false).await.unwrap();
    world.client.foreign_table("visitor", false).await.unwrap();
    assert_eq!(world.client.dump(DumpKind::Ruleset).await.unwrap(), "");
    insta::assert_snapshot!(
        "reject_table",
        world.server.dump(DumpKind::Ruleset).await.unwrap()
    );
    world.client.foreign_table("visitor", true).await.unwrap();
    world.client.foreign_table("other", true).await.unwrap();
    let named = ["inet visitor", "ip other", "inet nowhere"].map(str::to_owned);
    world.client.tables_delete(named.into()).await.unwrap();
    let left = world.client.dump(DumpKind::Ruleset).await.unwrap();
    assert!(
        left.contains("table inet other") && !left.contains("visitor"),
        "{left}"
    );
    world.server.foreign_table("visitor", true).await.unwrap();
    world.server.ruleset_flush().await.unwrap();
    assert_eq!(world.server.dump(DumpKind::Ruleset).await.unwrap(), "");
    world.server.ruleset_flush().await.unwrap();
}

async fn pressure(world: World) {
    let agent = &world.server;
    let before = agent.conntrack().await.unwrap().len() as u32;
    let full = agent.conntrack_fill(3_000).await.unwrap();
    assert_eq!(full.own, 3_000);
    assert!(
        full.entries >= 3_000 + before && full.limit > full.entries,
        "{full:?}"
    );
    // They are entries like any other.
    assert!(agent.conntrack().await.unwrap().len() as u32 >= 3_000 + before);
    // More of them: those that are there count.
    assert_eq!(agent.conntrack_fill(3_100).await.unwrap().own, 3_100);
    // Never more than half of the table, whoever asks.
    let limit = full.limit.saturating_mul(2);
    assert!(agent.conntrack_fill(limit).await.is_err());
    let left = agent.conntrack_drain().await.unwrap();
    assert_eq!(left.own, 3_100);
    assert_eq!(agent.conntrack_drain().await.unwrap().own, 0);
    agent.conntrack_fill(10).await.unwrap();
    agent.conntrack_flush().await.unwrap();
    let gone = agent.conntrack_drain().await.unwrap();
    assert_eq!(gone.own, 0, "what somebody removed is seen: {gone:?}");
}

async fn held_ports(world: World) {
    let range = "ipv4/ip_local_port_range";
    let before = world.client.sysctl_read(range).await.unwrap();
    for free in [0, 3] {
        let held = world.client.ports_hold(free).await.unwrap();
        assert_eq!((held.left, held.held), (free, held.range - free));
        assert!(world.client.ports_hold(0).await.is_err(), "one at a time");
        // The probes' own ports are others.
        let target = at("10.7.0.2", 80);
        let spec = ConnectSpec {
            count: 5,
            ..ConnectSpec::new(Protocol::Tcp, target)
        };
        let seen = world.client.connect(spec).await.unwrap();
        let failed = seen
            .attempts
            .iter()
            .find(|a| matches!(a.outcome, Outcome::SendFailed { .. }));
        assert_eq!(failed, None);
        // So are those of its other requests: nobody listens there, and the request gets as far as to be told.
        let refused = world.client.http_get(at("10.7.0.2", 7), "/", 1_000).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("efused"), "{refused}");
        let ask = AskNeighbour {
            via: "10.7.0.2".parse().unwrap(),
            targets: vec![target],
            protocol: Protocol::Tcp,
            flow: "held".into(),
            timeout_ms: 1_000,
        };
        world.client.ask_neighbour(ask).await.unwrap();
        assert_eq!(world.client.ports_release().await.unwrap().left, free);
        assert_eq!(world.client.sysctl_read(range).await.unwrap(), before);
    }
    assert!(world.client.ports_release().await.is_err());
    assert!(
        world.client.ports_hold(128).await.is_err(),
        "that holds nothing"
    );
    assert_eq!(world.client.sysctl_read(range).await.unwrap(), before);
}

async fn seized_tables(world: World) {
    let agent = &world.server;
    agent.ruleset_flush().await.unwrap();
    agent.release_tables().await.unwrap_err();
    agent.foreign_table("mine", true).await.unwrap();
    agent.seize_tables().await.unwrap();
    // They are empty, and nobody else can change or remove them.
    let seized = "table inet mine {\n  flags owner\n}\n";
    assert_eq!(agent.dump(DumpKind::Ruleset).await.unwrap(), seized);
    agent.foreign_table("mine", true).await.unwrap_err();
    agent.foreign_table("mine", false).await.unwrap_err();
    assert_eq!(agent.dump(DumpKind::Ruleset).await.unwrap(), seized);
    agent.seize_tables().await.unwrap_err();
    agent.release_tables().await.unwrap();
    assert_eq!(agent.dump(DumpKind::Ruleset).await.unwrap(), "");
    agent.foreign_table("mine", true).await.unwrap();
    agent.foreign_table("mine", false).await.unwrap();
}

async fn churn(world: World) {
    let before = (
        world.client.dump(DumpKind::Addresses).await.unwrap(),
        world.client.dump(DumpKind::Links).await.unwrap(),
    );
    // How often a dump is interrupted depends on the machine; that it happens at all needs some links and some time.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        world
            .client
            .churn_start(Churn {
                links: 40,
                addresses: 200,
                pause_us: 0,
                dump: true,
            })
            .await
            .unwrap();
        assert!(
            world
                .client
                .churn_start(Churn {
                    links: 0,
                    addresses: 0,
                    pause_us: 0,
                    dump: true
                })
                .await
                .is_err()
        );
        // All links are there from the beginning, so that dumps are long.
        let links = world.client.dump(DumpKind::Links).await.unwrap();
        let churning = links.lines().filter(|l| l.starts_with("churn")).count();
        assert!(churning >= 70, "{links}");
        until("something changes and is dumped", || async {
            let churned = world.client.churn_read().await.unwrap();
            churned.links > 40 && churned.dumps > 10
        })
        .await;
        let churned = world.client.churn_stop().await.unwrap();
        assert!(
            churned.links > 40 && churned.addresses > 0 && churned.dumps > 0,
            "{churned:?}"
        );
        assert!(churned.interrupted_dumps <= churned.dumps);
        if churned.interrupted_dumps > 0 {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "no dump was interrupted: {churned:?}"
        );
    }
    let names = |text: &str| -> Vec<String> {
        text.lines()
            .map(|l| l.split(" # ").next().unwrap().into())
            .collect()
    };
    assert_eq!(
        names(&world.client.dump(DumpKind::Addresses).await.unwrap()),
        names(&before.0)
    );
    assert_eq!(
        names(&world.client.dump(DumpKind::Links).await.unwrap()),
        names(&before.1)
    );
    assert!(world.client.churn_stop().await.is_err());
}

async fn no_churn(world: World) {
    world
        .client
        .churn_start(Churn {
            links: 0,
            addresses: 0,
            pause_us: 0,
            dump: true,
        })
        .await
        .unwrap();
    for _ in 0..50 {
        world.client.dump(DumpKind::Links).await.unwrap();
    }
    let churned = world.client.churn_stop().await.unwrap();
    assert!(churned.dumps > 0, "{churned:?}");
    assert_eq!(
        (churned.links, churned.addresses, churned.interrupted_dumps),
        (0, 0, 0)
    );
}

async fn routes_from(world: World) {
    let agent = &world.client;
    for (own, astray, via, nobody, to) in [
        (
            "10.7.8.1",
            "10.7.8.2",
            SERVER4,
            "10.7.0.99",
            "198.51.100.0/24",
        ),
        (
            "fd07:8::1",
            "fd07:8::2",
            SERVER6,
            "fd07::99",
            "2001:db8:51::/64",
        ),
    ] {
        let bits = if own.contains(':') { 128 } else { 32 };
        for (own, via, table) in [(own, via, 101), (astray, nobody, 103)] {
            agent
                .address_add("wire", &format!("{own}/{bits}"))
                .await
                .unwrap();
            let (from, via) = (own.parse().unwrap(), via.parse().unwrap());
            for _ in 0..2 {
                agent
                    .routes_from(from, via, "wire", vec![to.into()], table)
                    .await
                    .unwrap();
            }
        }
        // The server has the address, and what comes from the other one is sent to a gateway that is not there.
        let target = if bits == 32 {
            "198.51.100.7"
        } else {
            "2001:db8:51::7"
        };
        world
            .server
            .address_add("wire", &format!("{target}/{bits}"))
            .await
            .unwrap();
        world
            .server
            .serve(vec![Listener {
                id: target.into(),
                ..listener("far", Protocol::Tcp, target, 80)
            }])
            .await
            .unwrap();
        world
            .server
            .routes_from(
                target.parse().unwrap(),
                if bits == 32 { CLIENT4 } else { CLIENT6 }.parse().unwrap(),
                "wire",
                vec![format!("{own}/{bits}")],
                102,
            )
            .await
            .unwrap();
        let way = |source: Option<&str>| ConnectSpec {
            source: source.map(|source| source.parse().unwrap()),
            timeout_ms: 1_000,
            ..spec(Protocol::Tcp, at(target, 80))
        };
        let right = agent.connect(way(Some(own))).await.unwrap();
        assert!(right.all_answered(), "{right:?}");
        let other = agent.connect(way(Some(astray))).await.unwrap();
        assert!(!other.all_answered(), "{other:?}");
    }
    let wrong = agent
        .routes_from(
            "10.7.8.1".parse().unwrap(),
            SERVER6.parse().unwrap(),
            "wire",
            vec!["198.51.100.0/24".into()],
            103,
        )
        .await;
    assert!(wrong.unwrap_err().to_string().contains("one family"));
}

async fn clock(world: World) {
    let agent = &world.client;
    // The same clock, as everywhere on one machine: nothing is set.
    assert_eq!(agent.align_clock().await.unwrap(), 0);
    let year: i64 = 365 * 24 * 3_600 * 1_000_000_000;
    agent
        .call(Request::SetClock { ahead_ns: year })
        .await
        .unwrap();
    let report = agent
        .connect(spec(Protocol::Tcp, at(CLIENT4, 9)))
        .await
        .unwrap();
    let ahead = report.attempts[0].at as i64 - now() as i64;
    assert!((year - ahead).abs() < 60_000_000_000, "{ahead}");
}

async fn kernel_state(world: World) {
    let agent = &world.server;
    let lines = async |kind| agent.dump(kind).await.unwrap();
    for address in ["10.7.8.1/24", "fd07:8::1/64"] {
        agent.address_add("wire", address).await.unwrap();
        agent.address_add("wire", address).await.unwrap();
        assert!(
            lines(DumpKind::Addresses)
                .await
                .contains(&format!("wire {address}\n"))
        );
        agent.address_del("wire", address).await.unwrap();
        agent.address_del("wire", address).await.unwrap();
        assert!(!lines(DumpKind::Addresses).await.contains(address));
    }
    // Answered means usable: the address is there for the very next packet, fifty times in a row.
    for n in 0..50 {
        let address = format!("fd07:9::{n:x}");
        let listener = Listener {
            id: address.clone(),
            ..listener("new", Protocol::Udp, &address, 90)
        };
        agent
            .address_add("wire", &format!("{address}/128"))
            .await
            .unwrap();
        agent.serve(vec![listener]).await.unwrap();
        let report = world
            .client
            .connect(spec(Protocol::Udp, at(&address, 90)))
            .await
            .unwrap();
        assert!(report.all_answered(), "{address}: {report:?}");
    }
    for (link, address) in [
        ("nolink", "10.7.8.1/24"),
        ("wire", "10.7.8/24"),
        ("wire", "10.7.8.1/33"),
    ] {
        assert!(
            agent.address_add(link, address).await.is_err(),
            "{link} {address}"
        );
    }
    agent.link_set("wire", true, Some(1400)).await.unwrap();
    let links = lines(DumpKind::Links).await;
    assert!(links.contains("wire veth up mtu 1400 "), "{links}");
    let routes = lines(DumpKind::Routes).await;
    assert!(
        routes.contains("ipv4 table main blackhole 10.7.3.0/24"),
        "{routes}"
    );
    assert!(
        routes.contains("ipv6 table main prohibit fd07:2::/64 metric 1024 dev lo"),
        "{routes}"
    );
    let routes = world.client.dump(DumpKind::Routes).await.unwrap();
    assert!(
        routes.contains("ipv4 table main unicast default via 10.7.0.2 dev wire"),
        "{routes}"
    );
    let rules = lines(DumpKind::Rules).await;
    assert!(rules.contains("ipv4 32766 totable main"), "{rules}");
    agent.sysctl("net.ipv4.ip_forward", "0").await.unwrap();
    assert_eq!(agent.sysctl_read("ipv4/ip_forward").await.unwrap(), "0");
    assert!(agent.sysctl("../kernel/hostname", "x").await.is_err());
    assert!(agent.sysctl_read("ipv4/nothing").await.is_err());
}

async fn http_failure(world: World) {
    let error = world
        .client
        .http_get(at(SERVER4, 83), "/healthz", 5000)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot connect to 10.7.0.2:83"), "{error}");
    let error = world
        .client
        .http_get(at("10.7.3.1", 80), "/healthz", 100)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no complete answer"), "{error}");
    // A server that speaks something else.
    world.server.serve(both("web-1", 80)).await.unwrap();
    assert!(
        world
            .client
            .http_get(at(SERVER4, 80), "/healthz", 500)
            .await
            .is_err()
    );
}

async fn hundred(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    let start = Instant::now();
    let report = world
        .client
        .connect(ConnectSpec {
            count: 100,
            ..spec(Protocol::Tcp, at(SERVER4, 80))
        })
        .await
        .unwrap();
    let took = start.elapsed();
    assert_eq!(
        report.answered_by(),
        BTreeMap::from([("web-1".to_owned(), 100)])
    );
    let quantile = |q| report.latency_quantile_us(q).unwrap();
    println!(
        "100 TCP connections in a row: {took:?}, connect p50 {} us, p99 {} us",
        quantile(0.5),
        quantile(0.99)
    );
    // Neither Nagle's algorithm nor a delayed acknowledgement (40 ms each time) may be part of an exchange.
    assert!(took < Duration::from_secs(3), "{took:?}");
}

async fn matrix(world: World) {
    world.server.serve(both("web-1", 80)).await.unwrap();
    let mut specs = Vec::new();
    for _ in 0..50 {
        specs.extend(everything(80));
    }
    // Twenty that get no answer wait beside each other.
    let silent = ConnectSpec {
        timeout_ms: 1000,
        ..ConnectSpec::new(Protocol::Tcp, at("10.7.3.1", 80))
    };
    specs.extend(std::iter::repeat_n(silent, 20));
    let start = Instant::now();
    let reports = world.client.connect_many(specs).await.unwrap();
    let took = start.elapsed();
    println!("320 probes at the same time, 20 of them silent for 1 s: {took:?}");
    assert!(reports[..300].iter().all(ConnectReport::all_answered));
    assert!(
        reports[300..]
            .iter()
            .all(|r| r.attempts[0].outcome == Outcome::TimedOut)
    );
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_secs(10),
        "{took:?}"
    );
}
