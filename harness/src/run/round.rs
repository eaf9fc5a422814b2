//! A round of probes: every cell of a matrix at once, with the direct path to each endpoint beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use futures::future::try_join_all;
use oracle::{Expectation, Mismatch, MismatchKind, Observation, Observed, Outcome as Want};
use probe::proto::{self, Attempt as Try, ConnectSpec, Outcome, SourcePort};

use super::{
    attempt::{Attempt, Stop},
    cells::Cell,
};

/// How each cell is probed.
#[derive(Clone, Debug)]
pub struct Shape {
    /// New connections per cell.
    pub count: u32,
    /// New connections of each cell, in the place of `count`.
    pub counts: Vec<u32>,
    /// Request payload in bytes.
    pub payload: u32,
    /// Reply payload in bytes.
    pub reply: u32,
    /// Exact transport payload lengths; each is one connection per cell and replaces `count`.
    pub lengths: Vec<u32>,
    /// Fixed source port.
    pub source_port: Option<u16>,
    /// UDP datagrams sent back to back per socket.
    pub back_to_back: u32,
    /// Milliseconds until silence, where an answer is wanted.
    pub patience_ms: u32,
    /// Milliseconds until silence, where nobody may answer.
    pub silence_ms: u32,
    /// What is probed.
    pub what: What,
}

/// What a round probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The cells.
    Cells,
    /// The cells, and the direct paths to their endpoints beside them.
    CellsAndControls,
    /// The direct paths alone.
    Controls,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            count: 1,
            counts: Vec::new(),
            payload: 0,
            reply: 0,
            lengths: Vec::new(),
            source_port: None,
            back_to_back: 1,
            patience_ms: PATIENCE_MS,
            silence_ms: SILENCE_MS,
            what: What::CellsAndControls,
        }
    }
}

/// Where an answer is wanted: two lost SYNs (1 s + 2 s) still make it. A wrong refusal or endpoint is seen at once.
pub const PATIENCE_MS: u32 = 3_500;
/// Where silence is wanted: right answers take well under a millisecond, and the direct path beside it shows that.
pub const SILENCE_MS: u32 = 200;

/// Where an answer is one of several acceptable outcomes, and where a refusal is wanted: it comes at once, but a busy machine may
/// take its time to say so.
const OPEN_MS: u32 = 1_000;
/// Silence shows the same in every try, and each costs its whole timeout.
const FEW: u32 = 4;

/// What a round saw, cell by cell in the order given.
pub struct Seen {
    /// The tries of each cell.
    pub tries: Vec<Vec<Try>>,
    /// Direct paths that did not work: the kernel or the topology, not the candidate.
    pub broken_controls: Vec<String>,
    /// Direct paths probed.
    pub controls: usize,
}

/// What is asked of the proportions in which endpoints are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proportions {
    /// No endpoint of a Service port is left out on any node. Its frontends are taken together as far as one traffic policy decides about all of
    /// them: a proxy that has not heard yet that a policy is no longer `Local` is right at the others.
    PerService,
    /// No endpoint is left out at any frontend on any node.
    PerFrontend,
    /// And all are chosen equally often.
    EqualShares,
}

impl Proportions {
    fn group(self, cell: &Cell) -> String {
        if cell.alone {
            return cell.label();
        }
        match (self, &cell.to.frontend) {
            (Self::PerService, Some(frontend)) => {
                let (namespace, name) = &frontend.service;
                let (port, protocol, family) =
                    (&frontend.port_name, frontend.protocol, frontend.family);
                let view = match (frontend.kind, &cell.from.source) {
                    (oracle::FrontendKind::ClusterIp, _) => "at the ClusterIP",
                    (_, oracle::Source::Outside { .. }) => "from outside",
                    _ => "at external addresses",
                };
                format!("{namespace}/{name} {port} {protocol} {family} {view}")
            }
            _ => cell.to.label.clone(),
        }
    }
}

/// A mismatch of one cell or of one frontend on one node.
pub struct Wrong {
    /// Where.
    pub cell: String,
    /// What was wanted.
    pub expectation: Expectation,
    /// What was seen.
    pub mismatch: Mismatch,
}

impl Attempt<'_> {
    /// After a deadline has passed: is it the candidate? The direct paths say.
    pub(super) async fn direct_paths_must_work(&self, cells: &[Cell]) -> Result<(), Stop> {
        let shape = Shape {
            what: What::Controls,
            ..Shape::default()
        };
        let seen = self.round(cells, &shape).await?;
        self.controls_must_work(&seen)
    }

    /// Probes all cells at once.
    pub(super) async fn round(&self, cells: &[Cell], shape: &Shape) -> Result<Seen, Stop> {
        // (agent) -> (spec, what it belongs to)
        let mut jobs: BTreeMap<&str, Vec<(ConnectSpec, Job)>> = BTreeMap::new();
        let mut controls: BTreeSet<(String, SocketAddr, oracle::Protocol)> = BTreeSet::new();
        for (index, cell) in cells.iter().enumerate() {
            let agent = cell.from.agent.as_str();
            let timeout = if cell.wants_answer() {
                shape.patience_ms
            } else if cell.may_answer() || cell.wants_refusal() {
                shape.patience_ms.min(OPEN_MS)
            } else {
                shape.silence_ms
            };
            let spec = base(
                cell.to.destination.protocol,
                cell.target(),
                shape,
                timeout,
                cell.bind(),
            );
            let spec = if cell.wants_answer() {
                ConnectSpec {
                    count: shape.counts.get(index).copied().unwrap_or(spec.count),
                    ..spec
                }
            } else {
                ConnectSpec {
                    count: spec.count.min(FEW),
                    ..spec
                }
            };
            // Two first connections of a client at the same time may both find nothing remembered: affinity is about
            // flows that come one after the other.
            let parallel = if cell.expectation.affinity.is_some() {
                1
            } else {
                spec.parallel
            };
            let spec = ConnectSpec { parallel, ..spec };
            if shape.what != What::Controls {
                jobs.entry(agent)
                    .or_default()
                    .extend(sized(spec, &shape.lengths).map(|(spec, _)| (spec, Job::Cell(index))));
            }
            if shape.what == What::Cells {
                continue;
            }
            for (address, pod) in self.control_addresses(cell) {
                if !controls.insert((
                    cell.from.label.clone(),
                    address,
                    cell.to.destination.protocol,
                )) {
                    continue;
                }
                let shape = Shape {
                    count: 1,
                    source_port: None,
                    ..shape.clone()
                };
                let spec = base(
                    cell.to.destination.protocol,
                    address,
                    &shape,
                    PATIENCE_MS,
                    cell.bind(),
                );
                let label = format!(
                    "{} -> pod {pod} {address}/{}",
                    cell.from.label, cell.to.destination.protocol
                );
                jobs.entry(agent)
                    .or_default()
                    .extend(sized(spec, &shape.lengths).map(|(spec, size)| {
                        (spec, Job::Control(format!("{label}{size}"), pod.clone()))
                    }));
            }
        }
        let results = try_join_all(jobs.into_iter().map(|(agent, jobs)| async move {
            let agent = self.cluster.agent(agent)?;
            let (specs, owners): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
            let reports = agent.connect_many(specs).await?;
            Ok::<_, Stop>(owners.into_iter().zip(reports).collect::<Vec<_>>())
        }))
        .await?;
        let mut seen = Seen {
            tries: vec![Vec::new(); cells.len()],
            broken_controls: Vec::new(),
            controls: controls.len(),
        };
        for (job, report) in results.into_iter().flatten() {
            match job {
                Job::Cell(index) => {
                    if let Some(why) = report
                        .attempts
                        .iter()
                        .find_map(|one| own_fault(&one.outcome))
                    {
                        return Err(Stop::infra(format!(
                            "{} could not be tried: {why}",
                            cells[index].label()
                        )));
                    }
                    seen.tries[index].extend(report.attempts);
                }
                Job::Control(label, pod) => {
                    if let Some(how) = broken_control(&report, &pod) {
                        seen.broken_controls.push(format!("{label}: {how}"));
                    }
                }
            }
        }
        Ok(seen)
    }

    /// Endpoints that must answer on the direct path, because their servers listen.
    pub(super) fn control_addresses(&self, cell: &Cell) -> Vec<(SocketAddr, String)> {
        let mut addresses = Vec::new();
        for outcome in &cell.expectation.outcomes {
            let Want::Endpoints { shares, .. } = outcome else {
                continue;
            };
            for share in shares {
                let Some(pod) = &share.pod else { continue };
                let state = self.cluster.stage().pod(pod);
                let serves = state.is_some_and(|state| {
                    state.listening
                        && state.spec.serves().iter().any(|port| {
                            port.port == share.port
                                && oracle::Protocol::from(port.protocol)
                                    == cell.to.destination.protocol
                        })
                });
                if serves {
                    addresses.push((SocketAddr::new(share.ip, share.port), pod.clone()));
                }
            }
        }
        addresses
    }
}

enum Job {
    Cell(usize),
    /// What it is called, and the pod that was asked.
    Control(String, String),
}

/// What is wrong with a direct path, if anything is: it has to lead to the pod that was asked, and not to who has its address now.
fn broken_control(report: &proto::ConnectReport, pod: &str) -> Option<String> {
    if !report.all_answered() {
        let how: Vec<String> = report.outcomes().into_keys().collect();
        return Some(how.join(", "));
    }
    let other = report.answered_by().into_keys().find(|who| who != pod)?;
    Some(format!("answered by {other}"))
}

/// The connections of one specification: as it is, or one per exact length, with a note of the length.
fn sized(spec: ConnectSpec, lengths: &[u32]) -> impl Iterator<Item = (ConnectSpec, String)> {
    let plain = lengths.is_empty().then(|| (spec.clone(), String::new()));
    let exact = lengths.iter().map(move |length| {
        let spec = ConnectSpec {
            count: 1,
            exact: Some(*length),
            ..spec.clone()
        };
        (spec, format!(" ({length} bytes)"))
    });
    plain.into_iter().chain(exact)
}

fn base(
    protocol: oracle::Protocol,
    target: SocketAddr,
    shape: &Shape,
    timeout_ms: u32,
    source: Option<std::net::IpAddr>,
) -> ConnectSpec {
    let protocol = match protocol {
        oracle::Protocol::Tcp => proto::Protocol::Tcp,
        oracle::Protocol::Udp => proto::Protocol::Udp,
        oracle::Protocol::Sctp => proto::Protocol::Sctp,
    };
    ConnectSpec {
        count: shape.count,
        parallel: 8,
        source,
        source_port: shape
            .source_port
            .map_or(SourcePort::Ephemeral, SourcePort::Fixed),
        timeout_ms,
        payload: shape.payload,
        reply: shape.reply,
        back_to_back: shape.back_to_back,
        ..ConnectSpec::new(protocol, target)
    }
}

/// An attempt that never became a packet, for want of a port, memory or a protocol on this machine, shows nothing about
/// the candidate: neither a failure where an answer is wanted, nor silence where none is.
fn own_fault(outcome: &Outcome) -> Option<&str> {
    const OURS: [i32; 8] = [
        libc::EADDRINUSE,
        libc::EADDRNOTAVAIL,
        libc::EAFNOSUPPORT,
        libc::EPROTONOSUPPORT,
        libc::ESOCKTNOSUPPORT,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOMEM,
    ];
    match outcome {
        Outcome::SendFailed { errno, message } if OURS.contains(errno) => Some(message),
        _ => None,
    }
}

/// A try in the oracle's words.
pub fn observation(cell: &Cell, one: &Try) -> Observation {
    let outcome = match &one.outcome {
        Outcome::Answered {
            identity,
            peer,
            local,
        } => Observed::Answered {
            ip: local.ip(),
            port: local.port(),
            pod: identity.clone(),
            client_ip: peer.ip(),
        },
        Outcome::Refused { .. } => Observed::Refused,
        Outcome::TimedOut => Observed::TimedOut,
        Outcome::Reset => Observed::Reset,
        Outcome::Unreachable { .. } => Observed::Unreachable,
        other => Observed::Other(other.label()),
    };
    Observation {
        outcome,
        affinity_key: Some(cell.label()),
    }
}

/// Compares what was seen with what must happen.
///
/// Cells are judged one by one for everything but proportions; those are judged over all clients of a node, because one
/// cell has too few tries to say anything.
pub fn wrong(cells: &[Cell], seen: &Seen, proportions: Proportions) -> Vec<Wrong> {
    let mut found = Vec::new();
    let mut groups: BTreeMap<String, (Expectation, Vec<Observation>)> = BTreeMap::new();
    for (cell, tries) in cells.iter().zip(&seen.tries) {
        let observations: Vec<Observation> =
            tries.iter().map(|one| observation(cell, one)).collect();
        for mismatch in oracle::check(&cell.expectation, &observations) {
            if !mismatch.kind.is_statistical() {
                found.push(Wrong {
                    cell: cell.label(),
                    expectation: cell.expectation.clone(),
                    mismatch,
                });
            }
        }
        if let [Want::Endpoints { shares, .. }] = cell.expectation.outcomes.as_slice() {
            let node = cell.decided_by();
            let who: Vec<String> = shares
                .iter()
                .map(|share| format!("{}:{}", share.ip, share.port))
                .collect();
            let key = format!("{node} {} {}", proportions.group(cell), who.join(" "));
            let group = groups.entry(key).or_insert_with(|| {
                // Client addresses differ within a group and were judged cell by cell.
                (
                    Expectation {
                        client_ips: Vec::new(),
                        ..cell.expectation.clone()
                    },
                    Vec::new(),
                )
            });
            group.1.extend(observations);
        }
    }
    for (label, (expectation, observations)) in groups {
        for mismatch in oracle::check(&expectation, &observations) {
            let statistical = mismatch.kind == MismatchKind::EndpointNeverChosen
                || (proportions == Proportions::EqualShares
                    && mismatch.kind == MismatchKind::UnequalShare);
            if statistical {
                found.push(Wrong {
                    cell: format!("clients on {label}"),
                    expectation: expectation.clone(),
                    mismatch,
                });
            }
        }
    }
    found
}

/// How many tries each cell needs so that a fresh endpoint that is missing, or a stale one that is still there, is seen: the cells of a group
/// share the work.
pub fn confirming_counts(cells: &[Cell]) -> Vec<u32> {
    let group = |cell: &Cell| {
        let node = cell.decided_by().to_owned();
        (node, Proportions::PerService.group(cell))
    };
    // How many cells, and of how many endpoints.
    let mut groups: BTreeMap<(String, String), (u32, usize)> = BTreeMap::new();
    for cell in cells {
        if let [Want::Endpoints { shares, .. }] = cell.expectation.outcomes.as_slice() {
            let (size, endpoints) = groups.entry(group(cell)).or_default();
            *size += 1;
            *endpoints = (*endpoints).max(shares.len());
        }
    }
    cells
        .iter()
        .map(|cell| {
            let (size, endpoints) = groups.get(&group(cell)).copied().unwrap_or((1, 1));
            // One more than the endpoints that may answer: the stale one that may not.
            let needed = oracle::attempts_to_see_all(endpoints + 1) as u32;
            needed.div_ceil(size).clamp(2, 60)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use apiserver::{ApiServer, Config};

    use super::*;
    use crate::{
        run::cells,
        scenario::{self, Stage, doc::OneOrMany},
    };

    const DOCUMENT: &str = "
id: x
title: X
requirement: [SVC-CIP-1]
topology:
  pods:
    - {name: web-1, node: node1, labels: {app: web}}
    - {name: web-2, node: node2, labels: {app: web}}
    - {name: client-1, node: node1}
    - {name: client-2, node: node1}
objects:
  - apiVersion: v1
    kind: Service
    metadata: {name: web}
    spec: {ipFamilies: [IPv4], selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
steps:
  - converge: {}
";

    /// Two clients on one node and the frontends of the document's Service with two endpoints.
    fn cells_of(document: &str) -> Vec<Cell> {
        let documents = scenario::read_documents("x.yaml", document).unwrap();
        let case = documents[0].resolve(&documents[0].cases[0]).unwrap();
        let api = ApiServer::new(Config::default()).unwrap();
        let stage = Stage::new(api, case.plan.clone(), &case.scenario).unwrap();
        stage.apply_all(&case.scenario.objects).unwrap();
        let cluster = stage.oracle().unwrap();
        let clients = OneOrMany::Many(vec!["client-1".into(), "client-2".into()]);
        let from = cells::sources(&stage, &clients);
        let to = cells::targets(
            &stage,
            &cluster,
            &oracle::Family::ALL,
            &[Default::default()],
        );
        cells::product(&cluster, &from, &to)
    }

    /// The answer of one of the cell's endpoints.
    fn answer(cell: &Cell, endpoint: usize) -> Outcome {
        let [Want::Endpoints { shares, .. }] = cell.expectation.outcomes.as_slice() else {
            panic!("{}", cell.expectation);
        };
        let share = &shares[endpoint];
        Outcome::Answered {
            identity: share.pod.clone().unwrap_or_default(),
            peer: SocketAddr::new(cell.expectation.client_ips[0], 40_001),
            local: SocketAddr::new(share.ip, share.port),
        }
    }

    #[test]
    fn clients_that_stick_to_an_endpoint_each_are_spread_only_together() {
        let mut cells = cells_of(DOCUMENT);
        assert_eq!(cells.len(), 2);
        let stuck = |cell: &Cell, endpoint: usize| -> Vec<Try> {
            report(&vec![answer(cell, endpoint); 40]).attempts
        };
        let seen = Seen {
            tries: vec![stuck(&cells[0], 0), stuck(&cells[1], 1)],
            broken_controls: Vec::new(),
            controls: 0,
        };
        assert!(wrong(&cells, &seen, Proportions::PerService).is_empty());
        let together = confirming_counts(&cells);
        for cell in &mut cells {
            cell.alone = true;
        }
        let found = wrong(&cells, &seen, Proportions::PerService);
        let kinds: Vec<MismatchKind> = found.iter().map(|wrong| wrong.mismatch.kind).collect();
        assert_eq!(kinds, [MismatchKind::EndpointNeverChosen; 2]);
        // Each has to see all endpoints by itself.
        for (alone, together) in confirming_counts(&cells).into_iter().zip(together) {
            assert!(alone > together);
        }
    }

    /// A node that has not heard yet that internalTrafficPolicy is no longer `Local` is right at its NodePort.
    #[test]
    fn a_stale_cluster_ip_is_not_hidden_by_node_ports() {
        let exposed = DOCUMENT.replace("spec: {", "spec: {type: NodePort, ");
        let cells = cells_of(&exposed);
        let stale = |cell: &Cell| {
            let frontend = cell.to.frontend.as_ref().unwrap();
            frontend.kind == oracle::FrontendKind::ClusterIp
        };
        assert!(cells.iter().any(stale) && !cells.iter().all(stale));
        let tries = cells.iter().map(|cell| {
            let (first, second) = (answer(cell, 0), answer(cell, 1));
            let second = if stale(cell) { first.clone() } else { second };
            report(&[vec![first; 20], vec![second; 20]].concat()).attempts
        });
        let seen = Seen {
            tries: tries.collect(),
            broken_controls: Vec::new(),
            controls: 0,
        };
        let found = wrong(&cells, &seen, Proportions::PerService);
        let kinds: Vec<MismatchKind> = found.iter().map(|wrong| wrong.mismatch.kind).collect();
        assert_eq!(kinds, [MismatchKind::EndpointNeverChosen]);
    }

    fn report(outcomes: &[Outcome]) -> proto::ConnectReport {
        let attempts = outcomes.iter().map(|outcome| Try {
            at: 0,
            source: None,
            latency_us: 1,
            outcome: outcome.clone(),
        });
        proto::ConnectReport {
            attempts: attempts.collect(),
        }
    }

    #[test]
    fn a_direct_path_leads_to_the_pod_that_was_asked() {
        let answered = |who: &str| Outcome::Answered {
            identity: who.into(),
            peer: "10.244.1.11:40001".parse().unwrap(),
            local: "10.244.2.11:8080".parse().unwrap(),
        };
        let right = report(&[answered("web-1"), answered("web-1")]);
        assert_eq!(broken_control(&right, "web-1"), None);
        let other = report(&[answered("web-1"), answered("web-2")]);
        assert_eq!(
            broken_control(&other, "web-1").as_deref(),
            Some("answered by web-2")
        );
        let silent = report(&[answered("web-1"), Outcome::TimedOut]);
        assert_eq!(
            broken_control(&silent, "web-1").as_deref(),
            Some("answered, timed out")
        );
        assert!(broken_control(&report(&[]), "web-1").is_some());
    }
}
