//! The verb `flow`: traffic that runs through the changes.

use std::{collections::BTreeSet, time::Duration};

use probe::{
    client::Agent,
    proto::{FlowKind, FlowReport, FlowSample, FlowSpec, Outcome, Received, SourcePort, now},
};
use tokio::time::sleep;

use super::super::{
    attempt::{Attempt, Stop},
    cells::{self, Cell},
};
use crate::scenario::{
    Span,
    doc::{self, FlowExpect, FlowStep, OneOrMany},
};

/// A flow that was started.
pub struct RunningFlow {
    agent: Agent,
    cell: Cell,
    kind: FlowKind,
    interval: Duration,
    started: u64,
    /// Whoever was allowed to answer at some time since the start.
    ever_allowed: Allowed,
}

/// A sample without an answer after this long is lost. Covers a retransmitted SYN (1 s) and a busy machine.
const PATIENCE: Duration = Duration::from_millis(3_000);
/// This many messages in a row must be right before a flow counts as moved.
const STREAK: usize = 5;
/// For one-way flows: this long nothing may arrive at a wrong endpoint.
const QUIET: Duration = Duration::from_millis(150);
/// The default of `deadline`.
const DEADLINE: Span = Span::millis(15_000);

impl Attempt<'_> {
    pub(in crate::run) async fn flow(&mut self, step: &FlowStep) -> Result<(), Stop> {
        if let Some(name) = &step.start {
            return self.flow_start(name, step).await;
        }
        if let Some(name) = &step.expect {
            let deadline = step.deadline.unwrap_or(DEADLINE);
            return match step.is.expect("validated") {
                FlowExpect::Model => self.flow_follows_model(name, deadline).await,
                FlowExpect::Closed => self.flow_closes(name, deadline).await,
                is => {
                    let report = self.read_settled(name).await?;
                    self.judge_flow(name, is, &report)
                }
            };
        }
        let name = step.stop.as_ref().expect("validated");
        let report = self.read_settled(name).await?;
        let flow = self
            .flows
            .remove(name)
            .ok_or_else(|| Stop::infra(format!("flow '{name}' does not run")))?;
        flow.agent.flow_stop(name).await?;
        match step.is {
            Some(is) => {
                self.flows.insert(name.clone(), flow);
                self.judge_flow(name, is, &report)?;
                self.flows.remove(name);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Without a proxy: the flow goes to one endpoint at its own address, and is judged as long as that endpoint is left alone.
    pub(super) async fn direct_flow(&mut self, step: &FlowStep) -> Result<(), Stop> {
        if let Some(name) = &step.start {
            let cell = self.one_cell(step)?;
            if let Some(cell) = self.direct_cells(vec![cell]).into_iter().next() {
                let step = FlowStep {
                    established: None,
                    ..step.clone()
                };
                return self.flow_start_at(name, &step, cell).await;
            }
            return Ok(());
        }
        let Some(name) = step.expect.as_ref().or(step.stop.as_ref()) else {
            return Ok(());
        };
        let Some(flow) = self.flows.get(name) else {
            return Ok(());
        };
        // What arrives of a one-way flow is known at the servers only, and silence shows the same there as a slow machine.
        if flow.kind != FlowKind::UdpOneWay {
            let report = self.read_settled(name).await?;
            self.judge_flow(name, FlowExpect::NoLoss, &report)?;
        }
        if step.stop.is_some() {
            self.forget_flow(name).await?;
        }
        Ok(())
    }

    /// Ends the flows to pods that something happens to: their losses are no news.
    pub(super) async fn end_direct_flows(
        &mut self,
        concerned: impl Fn(&str) -> bool,
    ) -> Result<(), Stop> {
        let ended: Vec<String> = self
            .flows
            .iter()
            .filter(|(_, flow)| {
                let mut to = allowed(&flow.cell.expectation).into_iter();
                to.any(|(pod, _)| concerned(&pod))
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in ended {
            self.forget_flow(&name).await?;
        }
        Ok(())
    }

    async fn forget_flow(&mut self, name: &str) -> Result<(), Stop> {
        if let Some(flow) = self.flows.remove(name) {
            flow.agent.flow_stop(name).await?;
        }
        Ok(())
    }

    async fn flow_start(&mut self, name: &str, step: &FlowStep) -> Result<(), Stop> {
        let cell = self.one_cell(step)?;
        self.flow_start_at(name, step, cell).await
    }

    async fn flow_start_at(&mut self, name: &str, step: &FlowStep, cell: Cell) -> Result<(), Stop> {
        let kind = kind(step.kind.expect("validated"));
        let interval = step.interval.unwrap_or(Span::millis(10)).0;
        let agent = self.cluster.agent(&cell.from.agent)?;
        let spec = FlowSpec {
            id: name.into(),
            kind,
            target: cell.target(),
            source: cell.bind(),
            source_port: step
                .source_port
                .map_or(SourcePort::Ephemeral, SourcePort::Fixed),
            interval_ms: interval.as_millis() as u32,
            payload: step.payload,
            reply: step.reply,
            timeout_ms: PATIENCE.as_millis() as u32,
        };
        agent.flow_start(spec).await?;
        self.findings
            .note(format!("flow {name}: {kind:?} {}", cell.label()));
        let wait = step.established.unwrap_or(cell.wants_answer());
        let model = self.model()?;
        self.mixtures.add(&model);
        let ever_allowed = self
            .mixtures
            .all()
            .flat_map(|state| allowed_at(&state, &cell))
            .collect();
        self.flows.insert(
            name.into(),
            RunningFlow {
                agent,
                cell,
                kind,
                interval,
                started: now(),
                ever_allowed,
            },
        );
        if wait {
            self.flow_follows_model(name, DEADLINE).await?;
        }
        Ok(())
    }

    /// After every step: who else may answer the running flows from now on.
    pub(in crate::run) fn note_allowed(&mut self) -> Result<(), Stop> {
        let model = self.model()?;
        if !self.mixtures.add(&model) || self.flows.is_empty() {
            return Ok(());
        }
        for state in self.mixtures.of_newest() {
            for flow in self.flows.values_mut() {
                flow.ever_allowed.extend(allowed_at(&state, &flow.cell));
            }
        }
        Ok(())
    }

    fn one_cell(&mut self, step: &FlowStep) -> Result<Cell, Stop> {
        let model = self.model()?;
        let stage = self.cluster.stage();
        let from = cells::sources(
            stage,
            &OneOrMany::One(step.from.clone().expect("validated")),
        );
        let to = cells::targets(
            stage,
            &model,
            &cells::families(&self.case.key.axes),
            std::slice::from_ref(step.to.as_ref().expect("validated")),
        );
        let cells = cells::product(&model, &from[..from.len().min(1)], &to);
        cells.into_iter().next().ok_or_else(|| {
            Stop::infra(
                "the flow's destination fits no frontend; name a Service and frontend that exist",
            )
        })
    }

    /// Waits until the flow's newest messages do what the oracle says now; measures the blackout and the last message
    /// that went wrong, both since the last change.
    async fn flow_follows_model(&mut self, name: &str, deadline: Span) -> Result<(), Stop> {
        let flow = self
            .flows
            .get(name)
            .ok_or_else(|| Stop::infra(format!("flow '{name}' does not run")))?;
        let (agent, kind, interval, started) =
            (flow.agent.clone(), flow.kind, flow.interval, flow.started);
        let (source, destination, label) = (
            flow.cell.from.source.clone(),
            flow.cell.to.destination,
            flow.cell.label(),
        );
        let model = self.model()?;
        let expectation = oracle::expect(&model, &source, &destination);
        let since = self.last_change.max(started);
        let until = now() + self.patience(deadline);
        let positive = expectation
            .outcomes
            .iter()
            .all(|o| matches!(o, oracle::Outcome::Endpoints { .. }));
        self.findings.checked(positive);
        let last = loop {
            let view = if kind == FlowKind::UdpOneWay {
                let sent = agent.flow_read(name, 0).await?;
                self.one_way_view(name, &expectation, since, &sent).await?
            } else {
                let report = agent.flow_read(name, 0).await?;
                two_way_view(&report, &expectation, since)
            };
            if view.right {
                if let Some(first) = view.first_right {
                    let blackout = first.saturating_sub(since) as f64 / 1e6;
                    self.findings.measure("blackout", "ms", blackout);
                }
                if let Some(wrong) = view.last_wrong {
                    self.findings.measure(
                        "last misdelivered",
                        "ms",
                        wrong.saturating_sub(since) as f64 / 1e6,
                    );
                }
                self.findings
                    .measure("misdelivered", "count", view.wrong as f64);
                return Ok(());
            }
            if now() > until {
                break view.text;
            }
            // A poll of a condition with a deadline.
            sleep(interval.clamp(Duration::from_millis(5), Duration::from_millis(50))).await;
        };
        self.findings.fail(reports::event::Failure {
            // New connections would be a matter of the expectation's rules; a flow that lives on is one of the case's own.
            requirements: self.case.scenario.requirement.clone(),
            step: None,
            verb: String::new(),
            kind: "flow-not-moved".into(),
            cell: Some(label.clone()),
            expected: expectation.to_string(),
            actual: last.clone(),
            message: format!("flow {name} ({kind:?}, {label}): expected {expectation} within {deadline}, got {last}"),
        });
        Ok(())
    }

    /// Who got a one-way flow's datagrams lately.
    async fn one_way_view(
        &self,
        name: &str,
        expectation: &oracle::Expectation,
        since: u64,
        sent: &FlowReport,
    ) -> Result<View, Stop> {
        let allowed = allowed(expectation);
        let mut right = Vec::new();
        let mut wrong = Vec::new();
        let pods: Vec<String> = self
            .cluster
            .stage()
            .pods()
            .filter(|pod| pod.exists)
            .map(|pod| pod.spec.name.clone())
            .collect();
        for pod in pods {
            let got: Vec<Received> = self.cluster.agent(&pod)?.received(name).await?;
            for received in got.into_iter().filter(|received| received.at >= since) {
                let list = if may_serve(&allowed, &pod, received.local_port) {
                    &mut right
                } else {
                    &mut wrong
                };
                list.push((received.at, pod.clone()));
            }
        }
        right.sort();
        wrong.sort();
        let now = now();
        let calm = |at: u64| now.saturating_sub(at) > QUIET.as_nanos() as u64;
        let no_wrong_lately = calm(wrong.last().map_or(since, |(at, _)| *at));
        let start = wrong.last().map_or(since, |(at, _)| *at);
        let enough = if allowed.is_empty() {
            // Nothing arrives anywhere when nothing is sent, either.
            sent_since(sent, start) >= STREAK
        } else {
            right.iter().filter(|(at, _)| *at > start).count() >= STREAK
        };
        Ok(View {
            right: no_wrong_lately && enough,
            first_right: right.first().map(|(at, _)| *at),
            last_wrong: wrong.last().map(|(at, _)| *at),
            wrong: wrong.len(),
            text: format!(
                "of {} datagrams sent {} at {:?} and {} at wrong endpoints {:?} since the change",
                sent_since(sent, since),
                right.len(),
                right
                    .iter()
                    .map(|(_, pod)| pod.as_str())
                    .collect::<BTreeSet<_>>(),
                wrong.len(),
                wrong
                    .iter()
                    .map(|(_, pod)| pod.as_str())
                    .collect::<BTreeSet<_>>()
            ),
        })
    }

    async fn flow_closes(&mut self, name: &str, deadline: Span) -> Result<(), Stop> {
        let flow = self
            .flows
            .get(name)
            .ok_or_else(|| Stop::infra(format!("flow '{name}' does not run")))?;
        let agent = flow.agent.clone();
        self.findings.checked(false);
        let until = now() + self.patience(deadline);
        loop {
            let report = agent.flow_read(name, 0).await?;
            if let Some(closed) = report.closed {
                // A connection that never was cannot end.
                let answered =
                    |sample: &FlowSample| matches!(sample.outcome, Some(Outcome::Answered { .. }));
                if !report.samples.iter().any(answered) {
                    self.findings.fail_with(
                        "flow-loss",
                        format!("flow {name} to be answered before it ends"),
                        closed.label(),
                    );
                }
                return Ok(());
            }
            if now() > until {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        self.findings.fail_with(
            "flow-not-closed",
            format!("flow {name} to end within {deadline}"),
            "it still runs",
        );
        Ok(())
    }

    /// The flow's report, once every message it holds has had time to be answered.
    async fn read_settled(&mut self, name: &str) -> Result<FlowReport, Stop> {
        let flow = self
            .flows
            .get(name)
            .ok_or_else(|| Stop::infra(format!("flow '{name}' does not run")))?;
        let since = self.last_change.max(flow.started);
        let mut asked = now();
        let until = asked + (PATIENCE * 2).as_nanos() as u64;
        loop {
            let mut report = flow.agent.flow_read(name, 0).await?;
            // Messages from before the last change say nothing about it.
            if report.closed.is_none() && sent_since(&report, since) < STREAK {
                if now() > until {
                    return Err(Stop::infra(format!(
                        "flow {name} sent {} messages since the last change, too few to say anything",
                        sent_since(&report, since)
                    )));
                }
                sleep(
                    flow.interval
                        .clamp(Duration::from_millis(1), Duration::from_millis(50)),
                )
                .await;
                asked = now();
                continue;
            }
            // Messages sent after we asked are another question.
            report.samples.retain(|sample| sample.sent_at < asked);
            let settled = report.samples.iter().all(|sample| sample.outcome.is_some());
            if settled
                || flow.kind == FlowKind::UdpOneWay
                || report.closed.is_some()
                || now() > until
            {
                return Ok(report);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn judge_flow(&mut self, name: &str, is: FlowExpect, report: &FlowReport) -> Result<(), Stop> {
        self.note_allowed()?;
        let flow = &self.flows[name];
        let label = flow.cell.label();
        let judgement = judge(report, is, &flow.ever_allowed);
        self.findings.checked(true);
        self.findings
            .measure("flow messages", "count", report.samples.len() as f64);
        if let Some((kind, actual)) = judgement {
            let expected = match is {
                FlowExpect::Unbroken => {
                    "every message answered by one endpoint over one connection"
                }
                FlowExpect::NoLoss => "every message answered",
                FlowExpect::Closed => "the flow to have ended",
                FlowExpect::Model => "the model",
            };
            self.findings.fail(reports::event::Failure {
                requirements: self.case.scenario.requirement.clone(),
                step: None,
                verb: String::new(),
                kind: kind.into(),
                cell: Some(label.clone()),
                expected: expected.into(),
                actual: actual.clone(),
                message: format!("flow {name} ({label}): expected {expected}, got {actual}"),
            });
        }
        Ok(())
    }
}

/// Messages that left the sender after a point of time.
fn sent_since(report: &FlowReport, since: u64) -> usize {
    let left = |sample: &&FlowSample| {
        sample.sent_at >= since && !matches!(sample.outcome, Some(Outcome::SendFailed { .. }))
    };
    report.samples.iter().filter(left).count()
}

struct View {
    right: bool,
    first_right: Option<u64>,
    last_wrong: Option<u64>,
    wrong: usize,
    text: String,
}

/// The servers that may answer, and at which port (any, where no Service decides).
type Allowed = BTreeSet<(String, Option<u16>)>;

fn may_serve(allowed: &Allowed, pod: &str, port: u16) -> bool {
    allowed
        .iter()
        .any(|(name, only)| name == pod && only.is_none_or(|only| only == port))
}

fn allowed(expectation: &oracle::Expectation) -> Allowed {
    expectation
        .outcomes
        .iter()
        .flat_map(|outcome| match outcome {
            oracle::Outcome::Endpoints { shares, .. } => shares
                .iter()
                .filter_map(|share| Some((share.pod.clone()?, Some(share.port))))
                .collect::<Vec<_>>(),
            oracle::Outcome::NotService => match &expectation.direct {
                oracle::Direct::Pod { name } | oracle::Direct::Listener { name } => {
                    vec![(name.clone(), None)]
                }
                oracle::Direct::Nobody => Vec::new(),
            },
            _ => Vec::new(),
        })
        .collect()
}

/// Who may answer a flow according to these objects.
fn allowed_at(state: &oracle::Cluster, cell: &Cell) -> Allowed {
    allowed(&oracle::expect(
        state,
        &cell.from.source,
        &cell.to.destination,
    ))
}

/// Whether one answer is what the expectation allows.
fn acceptable(outcome: &Outcome, expectation: &oracle::Expectation, allowed: &Allowed) -> bool {
    let may = |wanted: fn(&oracle::Outcome) -> bool| expectation.outcomes.iter().any(wanted);
    let unserved = || nobody_serves(expectation);
    match outcome {
        Outcome::Answered {
            identity, local, ..
        } => may_serve(allowed, identity, local.port()),
        Outcome::Refused { .. } => {
            unserved() || may(|o| matches!(o, oracle::Outcome::Refuse | oracle::Outcome::NoAnswer))
        }
        Outcome::TimedOut | Outcome::Unreachable { .. } => {
            unserved() || may(|o| matches!(o, oracle::Outcome::Drop | oracle::Outcome::NoAnswer))
        }
        Outcome::Reset
        | Outcome::WrongPeer { .. }
        | Outcome::SendFailed { .. }
        | Outcome::Corrupt { .. } => false,
    }
}

/// Plain routing to an address that nobody has: every way not to be answered is right.
fn nobody_serves(expectation: &oracle::Expectation) -> bool {
    expectation.direct == oracle::Direct::Nobody
        && expectation
            .outcomes
            .iter()
            .any(|outcome| matches!(outcome, oracle::Outcome::NotService))
}

fn two_way_view(report: &FlowReport, expectation: &oracle::Expectation, since: u64) -> View {
    let allowed = allowed(expectation);
    let silent_is_right = nobody_serves(expectation)
        || expectation
            .outcomes
            .iter()
            .any(|outcome| matches!(outcome, oracle::Outcome::Drop | oracle::Outcome::NoAnswer));
    let judged: Vec<(u64, bool, String)> = report
        .samples
        .iter()
        .filter(|sample| sample.sent_at >= since)
        .filter_map(|sample| {
            let outcome = sample.outcome.as_ref()?;
            let right = acceptable(outcome, expectation, &allowed);
            let text = outcome
                .identity()
                .map_or_else(|| outcome.label(), |who| format!("answered by {who}"));
            Some((sample.sent_at, right, text))
        })
        .collect();
    let streak = judged
        .iter()
        .rev()
        .take_while(|(_, right, _)| *right)
        .count();
    let needed = if silent_is_right { 1 } else { STREAK };
    let mut newest: Vec<&str> = judged
        .iter()
        .rev()
        .take(STREAK)
        .map(|(_, _, text)| text.as_str())
        .collect();
    newest.dedup();
    View {
        right: streak >= needed,
        first_right: judged
            .iter()
            .find(|(_, right, _)| *right)
            .map(|(at, ..)| *at),
        last_wrong: judged
            .iter()
            .rfind(|(_, right, text)| !right && text.starts_with("answered"))
            .map(|(at, ..)| *at),
        wrong: judged
            .iter()
            .filter(|(_, right, text)| !right && text.starts_with("answered"))
            .count(),
        text: if newest.is_empty() {
            "no message answered or refused since the change".into()
        } else {
            format!("newest messages: {}", newest.join(", "))
        },
    }
}

/// The first thing that is wrong with a flow as a whole.
fn judge(
    report: &FlowReport,
    is: FlowExpect,
    ever_allowed: &Allowed,
) -> Option<(&'static str, String)> {
    let total = report.samples.len();
    if total == 0 {
        return Some(("flow-silent", "no message was ever sent".into()));
    }
    let lost: Vec<u64> = report
        .samples
        .iter()
        .filter(|sample| !matches!(sample.outcome, Some(Outcome::Answered { .. })))
        .map(|sample| sample.seq)
        .collect();
    if is != FlowExpect::Closed && !lost.is_empty() {
        let first = report.samples.iter().find(|sample| sample.seq == lost[0]);
        let how = first
            .and_then(|sample| sample.outcome.as_ref())
            .map_or("no answer".into(), Outcome::label);
        return Some((
            "flow-loss",
            format!(
                "{} of {total} messages without an answer, the first (number {}): {how}",
                lost.len(),
                lost[0]
            ),
        ));
    }
    let strangers: BTreeSet<String> = report
        .samples
        .iter()
        .filter_map(|sample| match &sample.outcome {
            Some(Outcome::Answered {
                identity, local, ..
            }) if !may_serve(ever_allowed, identity, local.port()) => {
                Some(format!("{identity} at port {}", local.port()))
            }
            _ => None,
        })
        .collect();
    if !strangers.is_empty() {
        return Some((
            "flow-misdelivered",
            format!("answers from {strangers:?}, which was never an endpoint"),
        ));
    }
    if is == FlowExpect::Unbroken {
        let who: BTreeSet<&str> = report
            .samples
            .iter()
            .filter_map(|sample| sample.outcome.as_ref()?.identity())
            .collect();
        if who.len() > 1 {
            return Some(("flow-switched", format!("answers from {who:?}")));
        }
        if let Some(closed) = &report.closed {
            return Some((
                "flow-broken",
                format!("the connection ended: {}", closed.label()),
            ));
        }
    }
    None
}

fn kind(kind: doc::FlowKind) -> FlowKind {
    match kind {
        doc::FlowKind::TcpStream => FlowKind::TcpStream,
        doc::FlowKind::UdpConnected => FlowKind::UdpConnected,
        doc::FlowKind::UdpUnconnected => FlowKind::UdpUnconnected,
        doc::FlowKind::UdpOneWay => FlowKind::UdpOneWay,
        doc::FlowKind::NewConnections => FlowKind::NewConnections,
        doc::FlowKind::NewDatagrams => FlowKind::NewDatagrams,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(who: &str) -> Option<Outcome> {
        let address = "10.0.0.1:1".parse().expect("an address");
        Some(Outcome::Answered {
            identity: who.into(),
            peer: address,
            local: address,
        })
    }

    fn report(outcomes: Vec<Option<Outcome>>) -> FlowReport {
        FlowReport {
            id: "f".into(),
            started_at: 0,
            ended_at: None,
            connects: 1,
            samples: outcomes
                .into_iter()
                .enumerate()
                .map(|(seq, outcome)| FlowSample {
                    seq: seq as u64,
                    sent_at: seq as u64,
                    answered_at: None,
                    outcome,
                })
                .collect(),
            closed: None,
        }
    }

    #[test]
    fn judges_whole_flows() {
        let table = [
            (
                vec![answered("a"), answered("a")],
                FlowExpect::Unbroken,
                None,
            ),
            (
                vec![answered("a"), answered("b")],
                FlowExpect::Unbroken,
                Some("flow-switched"),
            ),
            (vec![answered("a"), answered("b")], FlowExpect::NoLoss, None),
            (
                vec![answered("a"), Some(Outcome::TimedOut)],
                FlowExpect::NoLoss,
                Some("flow-loss"),
            ),
            (
                vec![answered("a"), None],
                FlowExpect::Unbroken,
                Some("flow-loss"),
            ),
            (vec![], FlowExpect::Unbroken, Some("flow-silent")),
            (
                vec![answered("a"), answered("stranger")],
                FlowExpect::NoLoss,
                Some("flow-misdelivered"),
            ),
        ];
        let endpoints: Allowed = [("a".into(), Some(1)), ("b".into(), None)].into();
        for (outcomes, is, want) in table {
            assert_eq!(
                judge(&report(outcomes.clone()), is, &endpoints).map(|found| found.0),
                want,
                "{outcomes:?} {is:?}"
            );
        }
        let mut closed = report(vec![answered("a")]);
        closed.closed = Some(Outcome::Reset);
        assert_eq!(
            judge(&closed, FlowExpect::Unbroken, &endpoints).map(|found| found.0),
            Some("flow-broken")
        );
    }

    #[test]
    fn only_what_left_after_the_change_counts() {
        let mut flow = report(vec![None, answered("a"), None, None]);
        assert_eq!(sent_since(&flow, 2), 2);
        flow.samples[3].outcome = Some(Outcome::SendFailed {
            errno: libc::ENOBUFS,
            message: String::new(),
        });
        assert_eq!(sent_since(&flow, 2), 1);
        assert_eq!(sent_since(&flow, 4), 0);
    }
}
