//! The protocol as bytes: what is on the wire must not change unnoticed.

use probe::proto::*;

#[test]
fn requests_read_back_and_look_as_ever() {
    let target = "10.96.0.10:80".parse().unwrap();
    let listener = Listener {
        id: "web".into(),
        identity: "pod-1".into(),
        protocol: Protocol::Tcp,
        addr: "::".parse().unwrap(),
        port: 80,
    };
    let connect = ConnectSpec {
        source: Some("10.244.1.11".parse().unwrap()),
        source_port: SourcePort::From(20_000),
        udp: UdpKind::Unconnected,
        mark: Some(0x4000),
        exact: Some(7),
        ..ConnectSpec::new(Protocol::Udp, target)
    };
    let flow = FlowSpec {
        id: "f1".into(),
        kind: FlowKind::UdpOneWay,
        target,
        source: None,
        source_port: SourcePort::Fixed(1),
        interval_ms: 5,
        payload: 1,
        reply: 2,
        timeout_ms: 3,
    };
    let requests = vec![
        Request::Hello,
        Request::Serve {
            listeners: vec![listener],
        },
        Request::StopServing {
            ids: None,
            reset_established: true,
        },
        Request::Connect(connect.clone()),
        Request::ConnectMany(vec![connect]),
        Request::FlowStart(flow),
        Request::FlowRead {
            id: "f1".into(),
            from_seq: 4,
        },
        Request::Inject(Inject::OutOfWindow {
            listener: "web".into(),
            peer: None,
            offset: -1,
            payload: "boom".into(),
        }),
        Request::Inject(Inject::Raw {
            packet: vec![69, 0],
        }),
        Request::AskNeighbour(AskNeighbour {
            via: "10.89.0.11".parse().unwrap(),
            targets: vec!["127.0.0.1:80".parse().unwrap(), target],
            protocol: Protocol::Tcp,
            flow: "f2".into(),
            timeout_ms: 9,
        }),
        Request::Dump(DumpKind::Ruleset),
        Request::ForeignTable {
            name: "t".into(),
            present: true,
        },
        Request::ChurnStart(Churn {
            links: 1,
            addresses: 2,
            pause_us: 3,
            dump: true,
        }),
        Request::HttpGet {
            url_host: target,
            path: "/healthz".into(),
            timeout_ms: 9,
        },
        Request::ConntrackFill { entries: 7 },
        Request::PortsHold { free: 3 },
    ];
    for (id, request) in requests.iter().enumerate() {
        let frame = RequestFrame {
            id: id as u64,
            request: request.clone(),
        };
        let text = serde_json::to_string(&frame).unwrap();
        assert_eq!(serde_json::from_str::<RequestFrame>(&text).unwrap(), frame);
    }
    insta::assert_json_snapshot!("requests", requests);
}

#[test]
fn answers_read_back_and_look_as_ever() {
    let (peer, local) = (
        "[fd00:244:0:1::b]:40000".parse().unwrap(),
        "10.244.1.11:8080".parse().unwrap(),
    );
    let outcomes = vec![
        Outcome::Answered {
            identity: "pod-1".into(),
            peer,
            local,
        },
        Outcome::Refused { by: RefusedBy::Rst },
        Outcome::Refused {
            by: RefusedBy::Icmp { kind: 3, code: 3 },
        },
        Outcome::TimedOut,
        Outcome::Reset,
        Outcome::WrongPeer { from: local },
        Outcome::Unreachable {
            errno: 113,
            message: "no route".into(),
        },
        Outcome::SendFailed {
            errno: 90,
            message: "too long".into(),
        },
        Outcome::Corrupt {
            message: "hash".into(),
        },
    ];
    let attempts: Vec<Attempt> = outcomes
        .into_iter()
        .enumerate()
        .map(|(i, outcome)| Attempt {
            at: i as u64,
            source: Some(local),
            latency_us: 10 * i as u64,
            outcome,
        })
        .collect();
    let report = ConnectReport { attempts };
    insta::assert_json_snapshot!("outcomes", report.outcomes());
    let frames = vec![
        ResponseFrame {
            id: 1,
            result: Reply::Ok(Response::Hello {
                version: VERSION,
                pid: 2,
            }),
        },
        ResponseFrame {
            id: 2,
            result: Reply::Ok(Response::Connect(report)),
        },
        ResponseFrame {
            id: 3,
            result: Reply::Err("no".into()),
        },
        ResponseFrame {
            id: 4,
            result: Reply::Ok(Response::Done),
        },
    ];
    for frame in &frames {
        let text = serde_json::to_string(frame).unwrap();
        assert_eq!(
            &serde_json::from_str::<ResponseFrame>(&text).unwrap(),
            frame
        );
    }
    insta::assert_json_snapshot!("answers", frames);
}

#[test]
fn quantiles_are_of_answered_connections_only() {
    let attempt = |latency_us, outcome| Attempt {
        at: 0,
        source: None,
        latency_us,
        outcome,
    };
    let answered = |latency| {
        let any = "10.0.0.1:1".parse().unwrap();
        attempt(
            latency,
            Outcome::Answered {
                identity: format!("pod-{}", latency % 2),
                peer: any,
                local: any,
            },
        )
    };
    let mut report = ConnectReport {
        attempts: (1..=10).map(answered).collect(),
    };
    report.attempts.push(attempt(9999, Outcome::TimedOut));
    assert_eq!(report.latency_quantile_us(0.5), Some(5));
    assert_eq!(report.latency_quantile_us(0.99), Some(10));
    assert_eq!(report.latency_quantile_us(0.0), Some(1));
    assert_eq!(
        report.answered_by(),
        [("pod-0".to_owned(), 5), ("pod-1".to_owned(), 5)].into()
    );
    assert!(!report.all_answered());
    assert_eq!(ConnectReport::default().latency_quantile_us(0.5), None);
}
