//! How fast a candidate serves many Services, and follows one change among them, as a client sees it.
//!
//! ```text
//!   pod client ──new TCP connections──> ClusterIP of the probed Service ──> pod here, later pod there, later pod here ...
//! ```
//!
//! Most Services and endpoints only exist in the API. The probed Services, the first, the middle and the last one, have one
//! endpoint each, a pod: with one endpoint every connection tells whether the change has arrived; among five endpoints only one
//! in five would.
//!
//! Connections start every [`LOAD_TICK_MS`] ms while the candidate loads and every [`MOVE_TICK_MS`] ms while an endpoint moves: that is the
//! resolution of the figures. The times themselves are read from the clock in the client.

use std::time::Duration;

use apiserver::{ApiServer, ObjectRef, PatchKind, bench as stored};
use probe::{
    client::Agent,
    proto::{ConnectSpec, FlowKind, FlowSample, FlowSpec, Protocol, SourcePort, now},
};
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{BenchError, Size, Spread, figures::milliseconds};
use crate::{
    candidate::Candidate,
    cluster::{NetnsCluster, Settings as ClusterSettings},
    scenario::read_documents,
};

const WORLD: &str = include_str!("world.yaml");

/// Loading takes from tenths of a second to minutes, and polling takes processor time from the candidate.
const LOAD_TICK_MS: u32 = 2;
/// A good proxy needs a few milliseconds for a change.
const MOVE_TICK_MS: u32 = 1;
/// Nothing inside a world takes this long; a connection that was swallowed need not be waited for.
const CONNECT_TIMEOUT_MS: u32 = 200;
/// Pause between looks at what the client has seen; looking costs processor time, and the times do not depend on it.
const READ_EVERY: Duration = Duration::from_millis(10);
/// The new endpoint has answered for good when this many connections in a row reached it.
const SETTLED: usize = 5;

/// Text of the error of a netlink message that is larger than its socket's buffer.
const EMSGSIZE: &str = "Message too long";
/// A candidate's tools can only raise that buffer beyond the host's limits with rights over the host, which a world does not give.
const MESSAGE_TOO_LONG: &str = " (it logged \"Message too long\": in a world, one transaction of nft or iptables cannot be larger than \
     the default send buffer, which the host's sysctl net.core.wmem_default sets)";

/// How long a measurement goes on.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How often an endpoint is moved.
    pub moves: usize,
    /// Longest time for loading, and again for all moves together. What has been measured by then counts.
    pub patience: Duration,
}

/// Figures of one candidate at one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyFigures {
    /// Name of the candidate.
    pub candidate: String,
    /// Its version, where the manifest gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Services and endpoints stored.
    pub size: Size,
    /// From the start of the candidate's process until the first, the middle and the last Service had each answered a connection from the right
    /// endpoint, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_ms: Option<f64>,
    /// Processor time the candidate's process had used by then, its children not included, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_cpu_ms: Option<f64>,
    /// From the write that moves one endpoint until the first connection was answered by the new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Spread>,
    /// Most resident memory the candidate's process had, its children not included, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_rss_bytes: Option<u64>,
    /// Why a figure is missing or stands on fewer moves than were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Starts the candidate in a world of its own and measures it.
///
/// # Errors
/// When the world cannot be built or an agent fails; what goes wrong with the candidate is in [`ProxyFigures::problem`].
pub async fn measure(
    candidate: &Candidate,
    size: Size,
    settings: Settings,
) -> Result<ProxyFigures, BenchError> {
    let documents =
        read_documents("world.yaml", WORLD).map_err(BenchError::of("read the world"))?;
    let case = documents[0]
        .resolve(&documents[0].cases[0])
        .map_err(BenchError::of("read the world"))?;
    let cluster = NetnsCluster::build(&case, candidate, ClusterSettings::default())
        .await
        .map_err(BenchError::of("build a world"))?;
    let mut figures = ProxyFigures {
        candidate: candidate.manifest.name.clone(),
        version: candidate.manifest.version.clone(),
        size,
        load_ms: None,
        load_cpu_ms: None,
        change: None,
        peak_rss_bytes: None,
        problem: None,
    };
    let mut bench = Bench {
        cluster,
        size,
        settings,
        services: Vec::new(),
    };
    let measured = bench.run(&mut figures).await;
    bench.cluster.shutdown().await;
    match measured {
        Ok(()) => {}
        Err(Stop::Candidate(problem)) => figures.problem = Some(problem),
        Err(Stop::Bench(error)) => return Err(error),
    }
    Ok(figures)
}

/// Why there is nothing more to measure.
enum Stop {
    /// The candidate does not serve.
    Candidate(String),
    /// The harness or the machine.
    Bench(BenchError),
}

impl From<BenchError> for Stop {
    fn from(error: BenchError) -> Self {
        Self::Bench(error)
    }
}

struct Bench {
    cluster: NetnsCluster,
    size: Size,
    settings: Settings,
    /// ClusterIPs of the probed Services; the last one's endpoint moves.
    services: Vec<std::net::SocketAddr>,
}

impl Bench {
    async fn run(&mut self, figures: &mut ProxyFigures) -> Result<(), Stop> {
        self.store()?;
        let client = self
            .cluster
            .agent("client")
            .map_err(BenchError::of("find the client"))?;
        let loaded = self.load(&client).await;
        figures.peak_rss_bytes = self.peak_rss();
        let load = loaded?;
        figures.load_ms = Some(milliseconds(load));
        figures.load_cpu_ms = self
            .process()
            .and_then(|process| process.cpu_time().ok())
            .map(milliseconds);
        let mut times = Vec::new();
        let moved = self.moves(&client, &mut times).await;
        figures.peak_rss_bytes = self.peak_rss().or(figures.peak_rss_bytes);
        figures.change = Spread::of(times);
        moved
    }

    fn process(&self) -> Option<&netlab::Process> {
        self.cluster
            .instances()
            .first()
            .and_then(|instance| instance.process())
    }

    fn peak_rss(&self) -> Option<u64> {
        self.process()
            .and_then(|process| process.peak_rss_bytes().ok())
    }

    fn api(&self) -> &ApiServer {
        self.cluster.stage().api()
    }

    /// Numbers of the probed Services: the first, the middle and the last.
    fn probed(&self) -> Vec<usize> {
        let last = self.size.services - 1;
        let mut probed = vec![0, last / 2, last];
        probed.dedup();
        probed
    }

    /// Writes all objects, the probed ones with a pod behind them.
    fn store(&mut self) -> Result<(), BenchError> {
        let probed = self.probed();
        for number in 0..self.size.services {
            let service = self
                .api()
                .create(stored::service(number))
                .map_err(BenchError::of("store a Service"))?;
            let mut slice = stored::slice(number, self.size.endpoints);
            if probed.contains(&number) {
                slice["endpoints"] = self.endpoint("here")?;
                let ip = service["spec"]["clusterIP"].as_str().unwrap_or_default();
                let ip: std::net::IpAddr =
                    ip.parse().map_err(BenchError::of("read a ClusterIP"))?;
                self.services.push((ip, 80).into());
            }
            self.api()
                .create(slice)
                .map_err(BenchError::of("store an EndpointSlice"))?;
        }
        Ok(())
    }

    /// The only endpoint of a probed Service.
    fn endpoint(&self, pod: &str) -> Result<Value, BenchError> {
        let addresses = self
            .cluster
            .stage()
            .plan()
            .pod(pod)
            .ok_or("it has no address")
            .map_err(BenchError::of("find a pod"))?;
        Ok(json!([{
            "addresses": [addresses.ipv4.to_string()],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": addresses.node,
        }]))
    }

    fn last(&self) -> std::net::SocketAddr {
        self.services[self.services.len() - 1]
    }

    /// Starts the candidate and waits for the first right answers.
    async fn load(&mut self, client: &Agent) -> Result<Duration, Stop> {
        let mut connections = Connections::start(client, "load", self.last(), LOAD_TICK_MS).await?;
        self.cluster
            .launch_candidate()
            .await
            .map_err(BenchError::of("start the candidate"))?;
        // The candidate's process runs its own program from here on.
        let started = now();
        let deadline = Instant::now() + self.settings.patience;
        if self.process().is_none() {
            return Err(Stop::Candidate("the manifest runs no process".into()));
        }
        connections.want("here");
        let mut loaded = loop {
            self.check(deadline, "the last Service was not served")?;
            connections.read(client).await?;
            if let Some(at) = connections.first {
                break at;
            }
            sleep(READ_EVERY).await;
        };
        connections.stop(client).await?;
        for service in &self.services[..self.services.len() - 1] {
            let spec = ConnectSpec {
                timeout_ms: CONNECT_TIMEOUT_MS,
                ..ConnectSpec::new(Protocol::Tcp, *service)
            };
            // One that answers at the first try was not later than the last one.
            let mut later = false;
            loop {
                let report = client
                    .connect(spec.clone())
                    .await
                    .map_err(BenchError::of("connect"))?;
                if report.answered_by().contains_key("here") {
                    break;
                }
                later = true;
                self.check(deadline, "a Service before the last was not served")?;
                sleep(Duration::from_millis(LOAD_TICK_MS.into())).await;
            }
            if later {
                loaded = now();
            }
        }
        Ok(Duration::from_nanos(loaded.saturating_sub(started)))
    }

    /// Moves the endpoint of the last Service to and fro.
    async fn moves(&self, client: &Agent, times: &mut Vec<Duration>) -> Result<(), Stop> {
        let name = format!("svc-{:05}-v4", self.size.services - 1);
        let slice = ObjectRef::new("discovery.k8s.io/v1", "EndpointSlice", "default", &name);
        let deadline = Instant::now() + self.settings.patience;
        let mut connections =
            Connections::start(client, "moves", self.last(), MOVE_TICK_MS).await?;
        for number in 0..self.settings.moves {
            let pod = if number % 2 == 0 { "there" } else { "here" };
            let patch = json!({"endpoints": self.endpoint(pod)?});
            // Not in step with anything that the candidate does at intervals.
            let pause = rand::rng().random_range(5..40);
            sleep(Duration::from_millis(pause)).await;
            connections.want(pod);
            let written = now();
            self.api()
                .patch(&slice, PatchKind::Merge, &patch)
                .map_err(BenchError::of("move the endpoint"))?;
            while connections.streak < SETTLED {
                let missing = format!(
                    "move {} of {} had not arrived",
                    number + 1,
                    self.settings.moves
                );
                self.check(deadline, &missing)?;
                sleep(READ_EVERY).await;
                connections.read(client).await?;
            }
            times.extend(
                connections
                    .first
                    .map(|at| Duration::from_nanos(at.saturating_sub(written))),
            );
        }
        connections.stop(client).await?;
        Ok(())
    }

    /// Whether it makes sense to go on waiting.
    fn check(&self, deadline: Instant, missing: &str) -> Result<(), Stop> {
        if let Some(exit) = self.cluster.unexpected_exit() {
            return Err(Stop::Candidate(exit));
        }
        if Instant::now() > deadline {
            let patience = self.settings.patience.as_secs();
            let log = self
                .cluster
                .instances()
                .first()
                .map(|instance| &instance.log);
            let lines = log.map_or_else(String::new, |log| log.last_lines(5));
            let hint = match log {
                Some(log) if log.text().contains(EMSGSIZE) => MESSAGE_TOO_LONG,
                _ => "",
            };
            return Err(Stop::Candidate(format!(
                "{missing} after {patience} s{hint}; its last lines:\n{lines}"
            )));
        }
        Ok(())
    }
}

/// New connections at a fixed rate, and which of them reached the wanted pod.
struct Connections {
    id: String,
    wanted: String,
    /// When the first connection was answered by the wanted pod, in nanoseconds of `CLOCK_MONOTONIC`.
    first: Option<u64>,
    /// How many of the newest connections in a row reached it.
    streak: usize,
    /// Number of the first connection whose end is not known yet.
    next: u64,
}

impl Connections {
    async fn start(
        client: &Agent,
        id: &str,
        target: std::net::SocketAddr,
        tick_ms: u32,
    ) -> Result<Self, BenchError> {
        let flow = FlowSpec {
            id: id.to_owned(),
            kind: FlowKind::NewConnections,
            target,
            source: None,
            source_port: SourcePort::Ephemeral,
            interval_ms: tick_ms,
            payload: 0,
            reply: 0,
            timeout_ms: CONNECT_TIMEOUT_MS,
        };
        client
            .flow_start(flow)
            .await
            .map_err(BenchError::of("start connections"))?;
        Ok(Self {
            id: id.to_owned(),
            wanted: String::new(),
            first: None,
            streak: 0,
            next: 0,
        })
    }

    /// Another pod is wanted from now on. It must be one that has not answered so far.
    fn want(&mut self, pod: &str) {
        pod.clone_into(&mut self.wanted);
        (self.first, self.streak) = (None, 0);
    }

    async fn read(&mut self, client: &Agent) -> Result<(), BenchError> {
        let report = client
            .flow_read(&self.id, self.next)
            .await
            .map_err(BenchError::of("read connections"))?;
        self.take(&report.samples);
        Ok(())
    }

    fn take(&mut self, samples: &[FlowSample]) {
        for sample in samples {
            let Some(outcome) = &sample.outcome else {
                return;
            };
            self.next = sample.seq + 1;
            if outcome.identity() == Some(&self.wanted) {
                let at = sample.answered_at.unwrap_or(sample.sent_at);
                self.first = Some(self.first.map_or(at, |first| first.min(at)));
                self.streak += 1;
            } else {
                self.streak = 0;
            }
        }
    }

    async fn stop(self, client: &Agent) -> Result<(), BenchError> {
        client
            .flow_stop(&self.id)
            .await
            .map(drop)
            .map_err(BenchError::of("stop connections"))
    }
}

#[cfg(test)]
mod tests {
    use probe::proto::Outcome;

    use super::*;

    /// Samples `(sent, answered, who)`; nobody: timed out; no time: not known yet.
    fn samples(from: u64, all: &[(u64, Option<u64>, &str)]) -> Vec<FlowSample> {
        let any = ([127, 0, 0, 1], 1).into();
        let outcome = |who: &str| match who {
            "" => Outcome::TimedOut,
            who => Outcome::Answered {
                identity: who.into(),
                peer: any,
                local: any,
            },
        };
        (from..)
            .zip(all)
            .map(|(seq, (sent_at, answered_at, who))| FlowSample {
                seq,
                sent_at: *sent_at,
                answered_at: *answered_at,
                outcome: answered_at.map(|_| outcome(who)),
            })
            .collect()
    }

    #[test]
    fn the_first_answer_counts_and_the_last_ones_settle() {
        let mut connections = Connections {
            id: "moves".into(),
            wanted: "here".into(),
            first: None,
            streak: 0,
            next: 0,
        };
        connections.take(&samples(0, &[(1, Some(2), "here"), (2, Some(3), "")]));
        assert_eq!(
            (connections.first, connections.streak, connections.next),
            (Some(2), 0, 2)
        );
        connections.want("there");
        // The third was overtaken by the fourth, and the last one is not known yet.
        let more = [
            (3, Some(4), "here"),
            (4, Some(5), ""),
            (5, Some(9), "there"),
            (6, Some(8), "there"),
            (7, None, ""),
        ];
        connections.take(&samples(2, &more));
        assert_eq!(
            (connections.first, connections.streak, connections.next),
            (Some(8), 2, 6)
        );
        connections.take(&samples(6, &[(7, Some(10), "there")]));
        assert_eq!(
            (connections.first, connections.streak, connections.next),
            (Some(8), 3, 7)
        );
    }
}
