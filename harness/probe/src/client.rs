//! The harness's end of the channel to an agent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use crate::frame;
use crate::proto::*;

/// Time granted to an agent beyond what a request needs by itself: it covers a machine whose cores are all busy.
const GRACE: Duration = Duration::from_secs(15);

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AgentError {
    /// The channel is closed: the agent is gone.
    #[error("the probe agent is gone")]
    Closed,
    /// The agent answered with an error.
    #[error("the probe agent failed to {request}: {message}")]
    Remote {
        /// Name of the request.
        request: &'static str,
        /// The agent's words.
        message: String,
    },
    /// No answer in time.
    #[error("the probe agent did not {request} within {after:?}")]
    Timeout {
        /// Name of the request.
        request: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The request could not be sent or the answer is of the wrong kind.
    #[error("failed to {request}: {message}")]
    Protocol {
        /// Name of the request.
        request: &'static str,
        /// What is wrong.
        message: String,
    },
}

/// So often the time is asked for. Each costs a round trip.
const CLOCK_TRIES: u32 = 5;

type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Reply>>>>>;

/// A handle to one agent. Clones share the channel; the channel closes (and the agent exits) when the last clone is dropped.
#[derive(Clone)]
pub struct Agent {
    send: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Waiting,
    next: Arc<AtomicU64>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("closed", &self.is_closed())
            .finish()
    }
}

macro_rules! expect {
    ($self:ident, $request:expr, $pattern:pat => $value:expr) => {{
        let request = $request;
        let name = request_name(&request);
        match $self.call(request).await? {
            $pattern => Ok($value),
            other => Err(AgentError::Protocol {
                request: name,
                message: format!("unexpected answer {other:?}"),
            }),
        }
    }};
}

impl Agent {
    /// Speaks to an agent over `stream`. Must be called within a tokio runtime; two tasks serve the channel.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Agent {
        let (mut read, mut write) = tokio::io::split(Box::pin(stream));
        let (send, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let answers = waiting.clone();
        let reader = tokio::spawn(async move {
            while let Ok(Some(body)) = frame::read(&mut read).await {
                let Ok(answer) = serde_json::from_slice::<ResponseFrame>(&body) else {
                    break;
                };
                let waiter = answers
                    .lock()
                    .unwrap()
                    .as_mut()
                    .and_then(|map| map.remove(&answer.id));
                // Nobody waits when the call timed out or was dropped.
                if let Some(waiter) = waiter {
                    let _ = waiter.send(answer.result);
                }
            }
            // Dropping the senders wakes every caller with "closed".
            answers.lock().unwrap().take();
        });
        tokio::spawn(async move {
            while let Some(encoded) = queue.recv().await {
                if frame::write(&mut write, &encoded).await.is_err() {
                    break;
                }
            }
            // Both halves must go for the stream to close, which is what tells the agent to exit.
            reader.abort();
        });
        Agent {
            send,
            waiting,
            next: Arc::new(AtomicU64::new(1)),
        }
    }

    /// Whether the agent is known to be gone.
    pub fn is_closed(&self) -> bool {
        self.send.is_closed() || self.waiting.lock().unwrap().is_none()
    }

    /// Sends a request and waits for its answer, at most as long as [`deadline`] says.
    pub async fn call(&self, request: Request) -> Result<Response, AgentError> {
        let after = deadline(&request);
        self.call_within(request, after).await
    }

    /// As [`Agent::call`] with a deadline of the caller's choice.
    pub async fn call_within(
        &self,
        request: Request,
        after: Duration,
    ) -> Result<Response, AgentError> {
        let name = request_name(&request);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let body = serde_json::to_vec(&RequestFrame { id, request }).map_err(|e| {
            AgentError::Protocol {
                request: name,
                message: e.to_string(),
            }
        })?;
        let encoded = frame::encode(&body).map_err(|e| AgentError::Protocol {
            request: name,
            message: e.to_string(),
        })?;
        let (waiter, answer) = oneshot::channel();
        match self.waiting.lock().unwrap().as_mut() {
            Some(map) => map.insert(id, waiter),
            None => return Err(AgentError::Closed),
        };
        let forget = Forget {
            waiting: &self.waiting,
            id,
        };
        self.send.send(encoded).map_err(|_| AgentError::Closed)?;
        let reply = tokio::time::timeout(after, answer).await;
        drop(forget);
        match reply {
            Err(_) => Err(AgentError::Timeout {
                request: name,
                after,
            }),
            Ok(Err(_)) => Err(AgentError::Closed),
            Ok(Ok(Reply::Err(message))) => Err(AgentError::Remote {
                request: name,
                message,
            }),
            Ok(Ok(Reply::Ok(response))) => Ok(response),
        }
    }

    async fn done(&self, request: Request) -> Result<(), AgentError> {
        expect!(self, request, Response::Done => ())
    }

    /// Protocol version and process id of the agent.
    pub async fn hello(&self) -> Result<(u32, u32), AgentError> {
        expect!(self, Request::Hello, Response::Hello { version, pid } => (version, pid))
    }

    /// Sets the agent's clock to this process's, as well as the way there allows. Answers by how many nanoseconds they may differ.
    ///
    /// Half of the time that a question and its answer take is what cannot be known; the shortest of some tries is used.
    ///
    /// # Errors
    /// As every call.
    pub async fn align_clock(&self) -> Result<u64, AgentError> {
        let mut best: Option<(u64, i64)> = None;
        for _ in 0..CLOCK_TRIES {
            let before = now();
            let theirs = expect!(self, Request::Clock, Response::Clock { own_ns } => own_ns)?;
            let after = now();
            let (took, middle) = (after - before, before + (after - before) / 2);
            if best.is_none_or(|(shortest, _)| took < shortest) {
                best = Some((took, middle as i64 - theirs as i64));
            }
        }
        let (took, ahead_ns) = best.expect("there is at least one try");
        // One clock, as far as can be seen: then it is one, and exact.
        if ahead_ns.unsigned_abs() <= took {
            return Ok(0);
        }
        self.done(Request::SetClock { ahead_ns }).await?;
        Ok(took / 2)
    }

    /// See [`Request::RoutesFrom`].
    pub async fn routes_from(
        &self,
        from: std::net::IpAddr,
        via: std::net::IpAddr,
        link: &str,
        to: Vec<String>,
        table: u8,
    ) -> Result<(), AgentError> {
        self.done(Request::RoutesFrom {
            from,
            via,
            link: link.into(),
            to,
            table,
        })
        .await
    }

    /// See [`Request::Serve`].
    pub async fn serve(&self, listeners: Vec<Listener>) -> Result<(), AgentError> {
        self.done(Request::Serve { listeners }).await
    }

    /// See [`Request::StopServing`].
    pub async fn stop_serving(
        &self,
        ids: Option<Vec<String>>,
        reset_established: bool,
    ) -> Result<(), AgentError> {
        self.done(Request::StopServing {
            ids,
            reset_established,
        })
        .await
    }

    /// See [`Request::Connect`].
    pub async fn connect(&self, spec: ConnectSpec) -> Result<ConnectReport, AgentError> {
        expect!(self, Request::Connect(spec), Response::Connect(report) => report)
    }

    /// See [`Request::ConnectMany`].
    pub async fn connect_many(
        &self,
        specs: Vec<ConnectSpec>,
    ) -> Result<Vec<ConnectReport>, AgentError> {
        expect!(self, Request::ConnectMany(specs), Response::ConnectMany(reports) => reports)
    }

    /// See [`Request::FlowStart`].
    pub async fn flow_start(&self, spec: FlowSpec) -> Result<(), AgentError> {
        self.done(Request::FlowStart(spec)).await
    }

    /// See [`Request::FlowRead`].
    pub async fn flow_read(&self, id: &str, from_seq: u64) -> Result<FlowReport, AgentError> {
        expect!(self, Request::FlowRead { id: id.into(), from_seq }, Response::Flow(report) => report)
    }

    /// See [`Request::FlowStop`].
    pub async fn flow_stop(&self, id: &str) -> Result<FlowReport, AgentError> {
        expect!(self, Request::FlowStop { id: id.into() }, Response::Flow(report) => report)
    }

    /// See [`Request::Received`].
    pub async fn received(&self, flow: &str) -> Result<Vec<Received>, AgentError> {
        expect!(self, Request::Received { flow: flow.into() }, Response::Received(all) => all)
    }

    /// See [`Request::Inject`]; answers how many packets were sent.
    pub async fn inject(&self, inject: Inject) -> Result<u32, AgentError> {
        expect!(self, Request::Inject(inject), Response::Injected { packets } => packets)
    }

    /// See [`Request::AskNeighbour`]; what came back for each target.
    pub async fn ask_neighbour(
        &self,
        ask: AskNeighbour,
    ) -> Result<Vec<Option<String>>, AgentError> {
        expect!(self, Request::AskNeighbour(ask), Response::Neighbour(answers) => answers)
    }

    /// See [`Request::CaptureStart`].
    pub async fn capture_start(&self, max_bytes: u64, snaplen: u32) -> Result<(), AgentError> {
        self.done(Request::CaptureStart { max_bytes, snaplen })
            .await
    }

    /// See [`Request::CaptureStop`].
    pub async fn capture_stop(&self) -> Result<Capture, AgentError> {
        expect!(self, Request::CaptureStop, Response::Capture(capture) => capture)
    }

    /// See [`Request::Dump`].
    pub async fn dump(&self, kind: DumpKind) -> Result<String, AgentError> {
        expect!(self, Request::Dump(kind), Response::Text(text) => text)
    }

    /// See [`Request::Conntrack`].
    pub async fn conntrack(&self) -> Result<Vec<ConntrackEntry>, AgentError> {
        expect!(self, Request::Conntrack, Response::Conntrack(entries) => entries)
    }

    /// See [`Request::ConntrackFlush`].
    pub async fn conntrack_flush(&self) -> Result<(), AgentError> {
        self.done(Request::ConntrackFlush).await
    }

    /// See [`Request::ConntrackForget`]; answers how many entries there were.
    pub async fn conntrack_forget(
        &self,
        addresses: Vec<std::net::IpAddr>,
        sockets: Vec<std::net::SocketAddr>,
    ) -> Result<u32, AgentError> {
        let request = Request::ConntrackForget { addresses, sockets };
        expect!(self, request, Response::Forgotten { entries } => entries)
    }

    /// See [`Request::SignalPod`]; answers how many processes there are.
    pub async fn signal_pod(&self, uid: &str, signal: i32) -> Result<u32, AgentError> {
        let request = Request::SignalPod {
            uid: uid.into(),
            signal,
        };
        expect!(self, request, Response::Signalled { processes } => processes)
    }

    /// See [`Request::RulesetFlush`].
    pub async fn ruleset_flush(&self) -> Result<(), AgentError> {
        self.done(Request::RulesetFlush).await
    }

    /// See [`Request::TablesDelete`].
    pub async fn tables_delete(&self, tables: Vec<String>) -> Result<(), AgentError> {
        self.done(Request::TablesDelete { tables }).await
    }

    /// See [`Request::ForeignTable`].
    pub async fn foreign_table(&self, name: &str, present: bool) -> Result<(), AgentError> {
        self.done(Request::ForeignTable {
            name: name.into(),
            present,
        })
        .await
    }

    /// See [`Request::SeizeTables`].
    pub async fn seize_tables(&self) -> Result<(), AgentError> {
        self.done(Request::SeizeTables).await
    }

    /// See [`Request::ReleaseTables`].
    pub async fn release_tables(&self) -> Result<(), AgentError> {
        self.done(Request::ReleaseTables).await
    }

    /// See [`Request::ChurnStart`].
    pub async fn churn_start(&self, churn: Churn) -> Result<(), AgentError> {
        self.done(Request::ChurnStart(churn)).await
    }

    /// See [`Request::ChurnRead`].
    pub async fn churn_read(&self) -> Result<Churned, AgentError> {
        expect!(self, Request::ChurnRead, Response::Churned(churned) => churned)
    }

    /// See [`Request::ConntrackFill`].
    pub async fn conntrack_fill(&self, entries: u32) -> Result<ConntrackTable, AgentError> {
        expect!(self, Request::ConntrackFill { entries }, Response::Table(table) => table)
    }

    /// See [`Request::ConntrackDrain`].
    pub async fn conntrack_drain(&self) -> Result<ConntrackTable, AgentError> {
        expect!(self, Request::ConntrackDrain, Response::Table(table) => table)
    }

    /// See [`Request::PortsHold`].
    pub async fn ports_hold(&self, free: u16) -> Result<HeldPorts, AgentError> {
        expect!(self, Request::PortsHold { free }, Response::Ports(ports) => ports)
    }

    /// See [`Request::PortsRelease`].
    pub async fn ports_release(&self) -> Result<HeldPorts, AgentError> {
        expect!(self, Request::PortsRelease, Response::Ports(ports) => ports)
    }

    /// See [`Request::ChurnStop`].
    pub async fn churn_stop(&self) -> Result<Churned, AgentError> {
        expect!(self, Request::ChurnStop, Response::Churned(churned) => churned)
    }

    /// See [`Request::AddressAdd`].
    pub async fn address_add(&self, link: &str, addr: &str) -> Result<(), AgentError> {
        self.done(Request::AddressAdd {
            link: link.into(),
            addr: addr.into(),
        })
        .await
    }

    /// See [`Request::AddressDel`].
    pub async fn address_del(&self, link: &str, addr: &str) -> Result<(), AgentError> {
        self.done(Request::AddressDel {
            link: link.into(),
            addr: addr.into(),
        })
        .await
    }

    /// See [`Request::LinkSet`].
    pub async fn link_set(&self, link: &str, up: bool, mtu: Option<u32>) -> Result<(), AgentError> {
        self.done(Request::LinkSet {
            link: link.into(),
            up,
            mtu,
        })
        .await
    }

    /// See [`Request::Sysctl`].
    pub async fn sysctl(&self, path: &str, value: &str) -> Result<(), AgentError> {
        self.done(Request::Sysctl {
            path: path.into(),
            value: value.into(),
        })
        .await
    }

    /// See [`Request::SysctlRead`].
    pub async fn sysctl_read(&self, path: &str) -> Result<String, AgentError> {
        expect!(self, Request::SysctlRead { path: path.into() }, Response::Text(text) => text)
    }

    /// See [`Request::SockOpts`].
    pub async fn sock_opts(&self) -> Result<SockOpts, AgentError> {
        expect!(self, Request::SockOpts, Response::SockOpts(opts) => opts)
    }

    /// See [`Request::HttpGet`].
    pub async fn http_get(
        &self,
        host: std::net::SocketAddr,
        path: &str,
        timeout_ms: u32,
    ) -> Result<HttpResponse, AgentError> {
        let request = Request::HttpGet {
            url_host: host,
            path: path.into(),
            timeout_ms,
        };
        expect!(self, request, Response::Http(response) => response)
    }
}

/// Removes a waiter when its call ends in any way, a dropped future included.
struct Forget<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(map) = self.waiting.lock().unwrap().as_mut() {
            map.remove(&self.id);
        }
    }
}

/// The longest time a call may take: what the request allows itself, plus a grace for a busy machine.
pub fn deadline(request: &Request) -> Duration {
    let own = match request {
        Request::Connect(spec) => spec_time(spec) + crate::connect::queueing(spec),
        Request::ConnectMany(specs) => {
            let longest = specs.iter().map(spec_time).max().unwrap_or_default();
            let all: Duration = specs
                .iter()
                .map(|s| Duration::from_millis(s.timeout_ms.into()) * s.count)
                .sum();
            longest + all / MANY_AT_ONCE as u32 + specs.iter().map(crate::connect::queueing).sum()
        }
        Request::FlowStop { .. } => FLOW_STOP_WAIT,
        Request::HttpGet { timeout_ms, .. } => Duration::from_millis((*timeout_ms).into()),
        Request::Dump(_)
        | Request::Conntrack
        | Request::ConntrackForget { .. }
        | Request::ChurnStart(_)
        | Request::ChurnStop
        | Request::ConntrackFill { .. }
        | Request::ConntrackDrain => Duration::from_secs(60),
        _ => Duration::from_secs(15),
    };
    own + GRACE
}

/// Connections in flight at the same time within one [`Request::ConnectMany`].
pub const MANY_AT_ONCE: usize = 256;

/// Longest time [`Request::FlowStop`] waits for outstanding answers.
pub const FLOW_STOP_WAIT: Duration = Duration::from_secs(10);

fn spec_time(spec: &ConnectSpec) -> Duration {
    let parallel = match spec.source_port {
        SourcePort::Fixed(_) => 1,
        _ => spec.parallel.max(1),
    };
    Duration::from_millis(spec.timeout_ms.into()) * spec.count.div_ceil(parallel)
}

fn request_name(request: &Request) -> &'static str {
    match request {
        Request::Hello => "say hello",
        Request::Clock => "tell the time",
        Request::SetClock { .. } => "set its clock",
        Request::RoutesFrom { .. } => "add routes",
        Request::Serve { .. } => "serve",
        Request::StopServing { .. } => "stop serving",
        Request::Connect(_) => "connect",
        Request::ConnectMany(_) => "connect to many",
        Request::FlowStart(_) => "start a flow",
        Request::FlowRead { .. } => "read a flow",
        Request::FlowStop { .. } => "stop a flow",
        Request::Received { .. } => "tell what a flow delivered",
        Request::AskNeighbour(_) => "ask a neighbour",
        Request::Inject(_) => "inject packets",
        Request::CaptureStart { .. } => "start a capture",
        Request::CaptureStop => "stop the capture",
        Request::Dump(_) => "dump kernel state",
        Request::Conntrack => "dump conntrack",
        Request::ConntrackFlush => "flush conntrack",
        Request::ConntrackForget { .. } => "remove conntrack entries",
        Request::SignalPod { .. } => "signal a pod",
        Request::RulesetFlush => "flush the ruleset",
        Request::TablesDelete { .. } => "delete tables",
        Request::ForeignTable { .. } => "change a foreign table",
        Request::SeizeTables => "seize the tables",
        Request::ReleaseTables => "release the tables",
        Request::ChurnStart(_) => "start churn",
        Request::ChurnRead => "tell what the churn did",
        Request::ChurnStop => "stop churn",
        Request::ConntrackFill { .. } => "fill conntrack",
        Request::ConntrackDrain => "empty conntrack again",
        Request::PortsHold { .. } => "hold ephemeral ports",
        Request::PortsRelease => "give ephemeral ports back",
        Request::AddressAdd { .. } => "add an address",
        Request::AddressDel { .. } => "delete an address",
        Request::LinkSet { .. } => "change a link",
        Request::Sysctl { .. } => "write a sysctl",
        Request::SysctlRead { .. } => "read a sysctl",
        Request::SockOpts => "read socket options",
        Request::HttpGet { .. } => "get over HTTP",
    }
}
