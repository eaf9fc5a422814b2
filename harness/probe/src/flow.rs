//! Flows: traffic that runs while things change, one sample per request.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use socket2::Socket;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::client::FLOW_STOP_WAIT;
use crate::connect::{self, Phase};
use crate::proto::*;
use crate::{sys, wire};

/// Attempts of one flow in flight at the same time; beyond that ticks are skipped.
const MAX_IN_FLIGHT: usize = 4096;

/// All flows of an agent.
#[derive(Default)]
pub(crate) struct Flows(Mutex<HashMap<String, Arc<Flow>>>);

struct Flow {
    spec: FlowSpec,
    data: Mutex<Data>,
    /// Told when a sample or the flow's end is known.
    news: Notify,
    /// Ends the sending; receiving goes on until the flow is dropped.
    stop: Notify,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Data {
    started_at: u64,
    ended_at: Option<u64>,
    connects: u32,
    samples: Vec<FlowSample>,
    closed: Option<Outcome>,
    stopped: bool,
}

impl Flows {
    /// Starts a flow. It runs on its own from then on, a failure to connect included.
    pub fn start(&self, spec: FlowSpec) -> anyhow::Result<()> {
        anyhow::ensure!(
            spec.id.len() <= 200,
            "name of the flow is longer than 200 bytes"
        );
        let mut flows = self.0.lock().unwrap();
        anyhow::ensure!(
            !flows.contains_key(&spec.id),
            "flow {} is already running",
            spec.id
        );
        let flow = Arc::new(Flow {
            data: Mutex::new(Data {
                started_at: now(),
                ..Data::default()
            }),
            news: Notify::new(),
            stop: Notify::new(),
            task: Mutex::new(None),
            spec,
        });
        let task = tokio::spawn(run(flow.clone()));
        *flow.task.lock().unwrap() = Some(task);
        flows.insert(flow.spec.id.clone(), flow);
        Ok(())
    }

    /// What a flow saw, from a sample on.
    pub fn read(&self, id: &str, from_seq: u64) -> anyhow::Result<FlowReport> {
        let flow = self
            .0
            .lock()
            .unwrap()
            .get(id)
            .cloned()
            .with_context(|| format!("there is no flow {id}"))?;
        Ok(flow.report(from_seq))
    }

    /// Stops a flow and forgets it.
    pub async fn stop(&self, id: &str) -> anyhow::Result<FlowReport> {
        let flow = self
            .0
            .lock()
            .unwrap()
            .get(id)
            .cloned()
            .with_context(|| format!("there is no flow {id}"))?;
        flow.data.lock().unwrap().stopped = true;
        flow.stop.notify_one();
        let wait = Duration::from_millis(flow.spec.timeout_ms.into()).min(FLOW_STOP_WAIT);
        let answered = async {
            loop {
                let news = flow.news.notified();
                if flow.settled() {
                    break;
                }
                news.await;
            }
        };
        let _ = tokio::time::timeout(wait, answered).await;
        let task = flow.task.lock().unwrap().take();
        if let Some(task) = task {
            task.abort();
            // The socket is closed when the task is gone, and only then may its port be used again.
            let _ = task.await;
        }
        flow.data.lock().unwrap().ended_at.get_or_insert_with(now);
        self.0.lock().unwrap().remove(id);
        Ok(flow.report(0))
    }
}

impl Flow {
    fn report(&self, from_seq: u64) -> FlowReport {
        let data = self.data.lock().unwrap();
        let from = usize::try_from(from_seq)
            .unwrap_or(usize::MAX)
            .min(data.samples.len());
        let mut samples = data.samples[from..].to_vec();
        if self.spec.kind != FlowKind::UdpOneWay {
            let limit = u64::from(self.spec.timeout_ms) * 1_000_000;
            let now = now();
            for sample in &mut samples {
                if sample.outcome.is_none() && now.saturating_sub(sample.sent_at) >= limit {
                    sample.outcome = Some(Outcome::TimedOut);
                }
            }
        }
        FlowReport {
            id: self.spec.id.clone(),
            started_at: data.started_at,
            ended_at: data.ended_at,
            connects: data.connects,
            samples,
            closed: data.closed.clone(),
        }
    }

    /// Whether nothing more can be learned by waiting.
    fn settled(&self) -> bool {
        let data = self.data.lock().unwrap();
        self.spec.kind == FlowKind::UdpOneWay || data.samples.iter().all(|s| s.outcome.is_some())
    }

    /// Adds a sample that is sent now and returns its number.
    fn sent(&self) -> u64 {
        let mut data = self.data.lock().unwrap();
        let seq = data.samples.len() as u64;
        data.samples.push(FlowSample {
            seq,
            sent_at: now(),
            answered_at: None,
            outcome: None,
        });
        seq
    }

    /// Settles a sample; the first outcome counts.
    fn settle(&self, seq: u64, outcome: Outcome) {
        if let Some(sample) = self.data.lock().unwrap().samples.get_mut(seq as usize)
            && sample.outcome.is_none()
        {
            sample.answered_at = Some(now());
            sample.outcome = Some(outcome);
        }
        self.news.notify_one();
    }

    /// Settles an error that cannot be assigned: it belongs to the newest request without an outcome.
    fn settle_newest(&self, outcome: Outcome) {
        let open = self
            .data
            .lock()
            .unwrap()
            .samples
            .iter()
            .rev()
            .find(|s| s.outcome.is_none())
            .map(|s| s.seq);
        if let Some(seq) = open {
            self.settle(seq, outcome);
        }
    }

    /// The flow cannot go on: everything open ends the same way.
    fn end(&self, outcome: Outcome) {
        let mut data = self.data.lock().unwrap();
        if data.stopped && data.samples.iter().all(|s| s.outcome.is_some()) {
            return;
        }
        let at = now();
        for sample in data.samples.iter_mut().filter(|s| s.outcome.is_none()) {
            sample.answered_at = Some(at);
            sample.outcome = Some(outcome.clone());
        }
        data.closed.get_or_insert(outcome);
        data.ended_at.get_or_insert(at);
        drop(data);
        self.news.notify_one();
    }

    fn connect_spec(&self) -> ConnectSpec {
        let protocol = match self.spec.kind {
            FlowKind::TcpStream | FlowKind::NewConnections => Protocol::Tcp,
            _ => Protocol::Udp,
        };
        ConnectSpec {
            source: self.spec.source,
            source_port: self.spec.source_port,
            timeout_ms: self.spec.timeout_ms,
            payload: self.spec.payload,
            reply: self.spec.reply,
            udp: match self.spec.kind {
                FlowKind::UdpUnconnected | FlowKind::UdpOneWay => UdpKind::Unconnected,
                _ => UdpKind::Connected,
            },
            ..ConnectSpec::new(protocol, self.spec.target)
        }
    }

    fn ticks(&self) -> tokio::time::Interval {
        let mut ticks =
            tokio::time::interval(Duration::from_millis(self.spec.interval_ms.max(1).into()));
        // After a stall of the machine the rate goes on; a burst would be another kind of traffic.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks
    }
}

async fn run(flow: Arc<Flow>) {
    match flow.spec.kind {
        FlowKind::TcpStream => tcp_stream(&flow).await,
        FlowKind::UdpConnected | FlowKind::UdpUnconnected | FlowKind::UdpOneWay => {
            udp_socket(&flow).await
        }
        FlowKind::NewConnections | FlowKind::NewDatagrams => one_each(&flow).await,
    }
}

/// A new connection or socket per tick.
async fn one_each(flow: &Arc<Flow>) {
    let spec = Arc::new(flow.connect_spec());
    let mut ticks = flow.ticks();
    let mut attempts = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            _ = flow.stop.notified() => break,
            _ = ticks.tick() => {}
        }
        while attempts.try_join_next().is_some() {}
        if attempts.len() >= MAX_IN_FLIGHT {
            continue;
        }
        let seq = flow.sent();
        let (flow, spec) = (flow.clone(), spec.clone());
        attempts.spawn(async move {
            let (attempt, connected) =
                connect::attempt(&spec, seq as u32, &flow.spec.id, seq).await;
            flow.data.lock().unwrap().connects += u32::from(connected);
            flow.settle(seq, attempt.outcome);
        });
    }
    // The attempts live as long as this task: until the flow is forgotten.
    std::future::pending().await
}

/// One connection for the whole flow.
async fn tcp_stream(flow: &Arc<Flow>) {
    let spec = flow.connect_spec();
    let mut source = None;
    let limit = Duration::from_millis(flow.spec.timeout_ms.into());
    let connected = tokio::time::timeout(limit, connect::establish(&spec, 0, &mut source)).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(outcome)) => {
            flow.sent();
            return flow.end(outcome);
        }
        Err(_) => {
            flow.sent();
            return flow.end(Outcome::TimedOut);
        }
    };
    flow.data.lock().unwrap().connects = 1;
    let nonce = connect::nonce();
    let (mut read, mut write) = stream.into_split();
    let broken = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => Outcome::Reset,
        _ => connect::failure(-1, &e, Phase::Established),
    };
    let receive = async {
        loop {
            let bytes = match connect::read_answer(&mut read).await {
                Ok(bytes) => bytes,
                Err(e) => break broken(e),
            };
            match wire::parse_answer(&bytes) {
                Ok(answer) => {
                    let outcome = judge(flow, &answer, None);
                    flow.settle(answer.seq, outcome);
                }
                // A byte stream that lost its framing cannot be trusted from here on.
                Err(message) => break Outcome::Corrupt { message },
            }
        }
    };
    let send = async {
        let mut ticks = flow.ticks();
        loop {
            tokio::select! {
                biased;
                _ = flow.stop.notified() => std::future::pending::<()>().await,
                _ = ticks.tick() => {}
            }
            let seq = flow.sent();
            let payload = wire::filler(seq, flow.spec.payload as usize);
            let bytes = wire::request(0, nonce, seq, &flow.spec.id, &payload, flow.spec.reply);
            // Blocks when the peer takes nothing for long; the samples in flight then time out, which is what happened.
            if let Err(e) = write.write_all(&bytes).await {
                break broken(e);
            }
        }
    };
    // A write error may hide what the reader still can tell (answers that arrived before a reset).
    let outcome = tokio::select! {
        biased;
        outcome = receive => outcome,
        outcome = send => outcome,
    };
    flow.end(outcome);
}

/// One socket for the whole flow.
async fn udp_socket(flow: &Arc<Flow>) {
    let spec = flow.connect_spec();
    let opened = connect::open(&spec, 0).and_then(|socket: Socket| {
        if spec.udp == UdpKind::Connected {
            socket.connect(&spec.target.into())?;
        }
        UdpSocket::from_std(socket.into())
    });
    let socket = match opened {
        Ok(socket) => socket,
        Err(e) => {
            flow.sent();
            return flow.end(connect::outcome_of(
                e.raw_os_error().unwrap_or(0),
                None,
                Phase::Datagram,
                &e,
            ));
        }
    };
    flow.data.lock().unwrap().connects = 1;
    let nonce = connect::nonce();
    let receive = receive_datagrams(flow, &socket, spec.target, nonce);
    let send = send_datagrams(flow, &socket, &spec, nonce);
    tokio::join!(receive, send);
}

async fn send_datagrams(flow: &Flow, socket: &UdpSocket, spec: &ConnectSpec, nonce: u16) {
    let fd = socket.as_raw_fd();
    let flags = if flow.spec.kind == FlowKind::UdpOneWay {
        wire::ONE_WAY
    } else {
        0
    };
    let mut ticks = flow.ticks();
    loop {
        tokio::select! {
            biased;
            _ = flow.stop.notified() => return,
            _ = ticks.tick() => {}
        }
        let seq = flow.sent();
        let payload = wire::filler(seq, flow.spec.payload as usize);
        let bytes = wire::request(flags, nonce, seq, &flow.spec.id, &payload, flow.spec.reply);
        let send = || match spec.udp {
            UdpKind::Connected => connect::send_connected(fd, &bytes),
            UdpKind::Unconnected => sys::send(fd, &bytes, spec.target, None),
        };
        for last in [false, true] {
            match socket.async_io(Interest::WRITABLE, send).await {
                Ok(_) => break,
                // Only the ICMP error that may follow tells a refusal from a drop.
                Err(e) if connect::thrown_away(&e) => break,
                // The first error may be that of an earlier datagram, delivered instead of sending this one.
                Err(e) => {
                    let earlier = drain_errors(flow, fd, nonce);
                    if last || !earlier {
                        let errno = e.raw_os_error().unwrap_or(0);
                        flow.settle(seq, connect::outcome_of(errno, None, Phase::Datagram, &e));
                        break;
                    }
                }
            }
        }
    }
}

async fn receive_datagrams(flow: &Flow, socket: &UdpSocket, target: SocketAddr, nonce: u16) {
    let fd = socket.as_raw_fd();
    let mut buf = vec![0; 65536];
    loop {
        match socket
            .async_io(Interest::READABLE | Interest::ERROR, || {
                sys::receive(fd, &mut buf)
            })
            .await
        {
            Ok(got) => {
                // Whatever is not an answer to this flow's requests came from elsewhere.
                if let Ok(answer) = wire::parse_answer(&buf[..got.len])
                    && answer.nonce == nonce
                {
                    let wrong_peer = (got.from != target).then_some(got.from);
                    let outcome = judge(flow, &answer, wrong_peer);
                    flow.settle(answer.seq, outcome);
                }
            }
            Err(e) => {
                if !drain_errors(flow, fd, nonce) {
                    let errno = e.raw_os_error().unwrap_or(0);
                    flow.settle_newest(connect::outcome_of(errno, None, Phase::Datagram, &e));
                }
            }
        }
    }
}

/// Assigns the errors of the socket's queue to the datagrams that caused them; whether there was one.
fn drain_errors(flow: &Flow, fd: i32, nonce: u16) -> bool {
    let mut any = false;
    while let Some(queued) = sys::take_queued_error(fd) {
        any = true;
        let error = io::Error::from_raw_os_error(queued.errno);
        let outcome = connect::outcome_of(queued.errno, queued.icmp, Phase::Datagram, &error);
        match wire::parse_request(&queued.payload) {
            Some(request) if request.nonce == nonce => flow.settle(request.seq, outcome),
            _ => flow.settle_newest(outcome),
        }
    }
    any
}

fn judge(flow: &Flow, answer: &wire::Answer, wrong_peer: Option<SocketAddr>) -> Outcome {
    let payload = wire::filler(answer.seq, flow.spec.payload as usize);
    match (answer.check(&payload, flow.spec.reply), wrong_peer) {
        (Err(message), _) => Outcome::Corrupt { message },
        (Ok(()), Some(from)) => Outcome::WrongPeer { from },
        (Ok(()), None) => Outcome::Answered {
            identity: answer.identity.clone(),
            peer: answer.peer,
            local: answer.local,
        },
    }
}
