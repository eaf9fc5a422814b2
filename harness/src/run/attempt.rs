//! One attempt: a case, a cluster of its own, its steps in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use probe::{client::AgentError, proto::now};
use reports::event::{EventBody, Failure};

use super::{
    findings::Findings, former::Former, mixture::Mixtures, steps::flow::RunningFlow,
    steps::state::Baseline,
};
use crate::{
    cluster::{Cluster, ClusterError},
    nemesis::Starving,
    scenario::{
        Case, Span, Version,
        doc::{ApiFault, Fault, NodeFault, ProxyFault, Step},
    },
};

/// One attempt in progress.
pub struct Attempt<'a> {
    /// The case.
    pub case: &'a Case,
    /// Its cluster.
    pub cluster: Box<dyn Cluster>,
    /// What was found.
    pub findings: Findings,
    /// Random choices of this attempt follow from it.
    pub seed: u64,
    /// When the last change was made, in nanoseconds of `CLOCK_MONOTONIC`.
    pub last_change: u64,
    /// A step has changed something; before that, convergence is measured from the start of the world's last part.
    pub(super) changed: bool,
    pub(super) flows: BTreeMap<String, RunningFlow>,
    pub(super) saved: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) baselines: BTreeMap<String, Baseline>,
    /// UDP frontends that exist or existed in this attempt.
    pub(super) ever_udp: BTreeSet<SocketAddr>,
    /// Faults of the API that the candidate has yet to run into.
    pub(super) armed: Vec<super::steps::fault::Armed>,
    /// Instances that are starved of CPU, by node.
    pub(super) starving: BTreeMap<String, Starving>,
    /// Entries of nobody's flows that were put into conntrack and have to stay, by node.
    pub(super) pressed: BTreeMap<String, u32>,
    /// Frontends and endpoints that exist or existed in this attempt.
    pub(super) former: Former,
    /// Addresses that faults put on nodes.
    pub(super) held: BTreeSet<IpAddr>,
    /// What the candidate may know of the objects.
    pub(super) mixtures: Mixtures,
    /// Sweeps made so far.
    pub(super) sweeps: usize,
    /// Packets to a node's loopback address that are under way.
    pub(super) neighbour: Option<super::neighbour::Asked>,
    /// Faults that keep the candidate from knowing what the objects say.
    pub(super) blind: BTreeSet<String>,
    /// When it was last asked whether the candidate still runs.
    asked_if_it_runs: Instant,
    model: Option<(Version, Arc<oracle::Cluster>)>,
}

/// So often it is asked whether the candidate still runs, where that costs a request.
const OFTEN: Duration = Duration::from_millis(500);

/// Why the rest of an attempt makes no sense.
#[derive(Debug)]
pub enum Stop {
    /// The machine or the harness.
    Infra(String),
    /// The candidate.
    Candidate(Box<Failure>),
}

impl Stop {
    /// Nothing can be said about the candidate.
    pub fn infra(message: impl ToString) -> Self {
        Self::Infra(message.to_string())
    }

    /// The candidate failed in a way that leaves nothing to test.
    pub fn candidate(kind: &str, expected: &str, actual: impl Into<String>) -> Self {
        let actual = actual.into();
        Self::Candidate(Box::new(Failure {
            requirements: Vec::new(),
            step: None,
            verb: String::new(),
            kind: kind.into(),
            cell: None,
            expected: expected.into(),
            message: format!("expected {expected}: {actual}"),
            actual,
        }))
    }
}

impl From<AgentError> for Stop {
    fn from(error: AgentError) -> Self {
        Self::Infra(format!("an agent failed: {error}"))
    }
}

impl From<ClusterError> for Stop {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::Infra(text) | ClusterError::Usage(text) => Self::Infra(text),
            ClusterError::Candidate(text) => {
                Self::candidate("candidate-not-ready", "a running candidate", text)
            }
        }
    }
}

impl<'a> Attempt<'a> {
    /// Makes sure that the candidate runs in the cluster of the case. The cluster is kept when the candidate fails, for evidence.
    pub async fn start(
        case: &'a Case,
        cluster: Box<dyn Cluster>,
        seed: u64,
        mut findings: Findings,
    ) -> (Self, Option<Stop>) {
        findings.measure("world", "ms", cluster.built_in().as_secs_f64() * 1e3);
        let mut attempt = Self {
            case,
            cluster,
            findings,
            seed,
            last_change: now(),
            changed: false,
            flows: BTreeMap::new(),
            saved: BTreeMap::new(),
            baselines: BTreeMap::new(),
            ever_udp: BTreeSet::new(),
            armed: Vec::new(),
            starving: BTreeMap::new(),
            pressed: BTreeMap::new(),
            former: Former::default(),
            held: BTreeSet::new(),
            mixtures: Mixtures::default(),
            sweeps: 0,
            neighbour: None,
            blind: BTreeSet::new(),
            asked_if_it_runs: Instant::now(),
            model: None,
        };
        let stop = match attempt.cluster.start_candidate().await {
            Ok(ready) => {
                if let Some(ready) = ready {
                    let ready = ready.as_secs_f64() * 1e3;
                    attempt.findings.measure("candidate ready", "ms", ready);
                }
                None
            }
            Err(error) => Some(error.into()),
        };
        (attempt, stop)
    }

    /// Runs the steps until one cannot go on or a failure was found.
    pub async fn run(&mut self) {
        let case = self.case;
        if let Err(stop) = self.note_frontends() {
            self.stopped(stop);
            return;
        }
        for (index, step) in case.scenario.steps.iter().enumerate() {
            let step = &step.value;
            if !step.applies(&case.key) {
                continue;
            }
            let verb = step.verb();
            self.findings.enter(index as u32, verb);
            let started = Instant::now();
            let result = self
                .step(step)
                .await
                .and_then(|()| self.note_allowed())
                .and_then(|()| self.note_frontends());
            let ok = result.is_ok() && !self.findings.is_over();
            if let Err(stop) = result {
                self.stopped(stop);
            }
            self.report_step(index as u32, step, started.elapsed(), ok);
            if !ok {
                self.excuse().await;
                return;
            }
        }
        self.findings
            .enter(case.scenario.steps.len() as u32, "audit");
        if let Err(stop) = self.end().await {
            self.stopped(stop);
        }
        self.excuse().await;
    }

    /// On a machine that is too slow to judge, what was wrong is not held against the candidate.
    async fn excuse(&mut self) {
        if self.findings.failures.is_empty() || self.findings.infra.is_some() {
            return;
        }
        if let Some(reason) = self.too_slow().await {
            self.stopped(Stop::infra(format!(
                "this machine is too slow to judge: {reason}"
            )));
        }
    }

    /// After the last step: every fault was felt, and the candidate leaves nothing behind.
    async fn end(&mut self) -> Result<(), Stop> {
        if self.is_direct() {
            return Ok(());
        }
        self.must_run().await?;
        if self.findings.is_over() {
            return Ok(());
        }
        self.felt(|_| true).await?;
        self.neighbour_answered().await?;
        self.audit().await
    }

    /// Records why the attempt ended early.
    pub fn stopped(&mut self, stop: Stop) {
        match stop {
            Stop::Infra(message) => {
                self.findings.note(format!("INFRA {message}"));
                self.findings.infra = Some(message);
            }
            Stop::Candidate(failure) => self.findings.fail(*failure),
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), Stop> {
        if self.is_direct() {
            return self.direct_step(step).await;
        }
        if let Some(objects) = &step.apply {
            self.apply(objects).await?;
        }
        if let Some(patch) = &step.patch {
            self.patch(patch).await?;
        }
        if let Some(objects) = &step.delete {
            self.delete(objects.as_slice()).await?;
        }
        if let Some(action) = &step.pod {
            self.pod(action).await?;
        }
        if let Some(probe) = &step.probe {
            self.probe(probe).await?;
        }
        if let Some(flow) = &step.flow {
            self.flow(flow).await?;
        }
        if let Some(converge) = &step.converge {
            self.converge(converge).await?;
        }
        if let Some(hold) = &step.hold {
            self.hold(hold).await?;
        }
        if let Some(fault) = &step.fault {
            // Rules that a fault takes away protect nobody's loopback address: what is asked about it has to be answered before.
            self.neighbour_answered().await?;
            self.fault(fault).await?;
            self.note_blindness(fault);
        }
        if let Some(inject) = &step.inject {
            self.inject(inject).await?;
        }
        if let Some(state) = &step.state {
            self.state(state).await?;
        }
        Ok(())
    }

    fn report_step(&mut self, index: u32, step: &Step, duration: Duration, ok: bool) {
        let summary = step
            .name
            .clone()
            .unwrap_or_else(|| super::summary::of(step));
        let verb = step.verb();
        self.findings.note(format!(
            "step {}: {verb}: {summary} ({:.1} ms)",
            index + 1,
            duration.as_secs_f64() * 1e3
        ));
        if let Some(sink) = &self.findings.sink {
            sink.send(EventBody::StepFinished {
                case: sink.case.clone(),
                attempt: sink.attempt,
                index,
                verb: verb.into(),
                summary,
                duration_ms: duration.as_secs_f64() * 1e3,
                ok,
            });
        }
    }

    /// A change is about to be made: convergence is measured from here.
    pub(super) fn changing(&mut self) {
        self.last_change = now();
        self.changed = true;
    }

    /// A deadline in nanoseconds: cut for candidates that are there to fail, longer for an experiment.
    pub(super) fn patience(&self, deadline: Span) -> u64 {
        let candidate = self.cluster.candidate();
        let deadline = match candidate.patience {
            Some(patience) => deadline.min(patience),
            None => deadline,
        };
        let deadline = deadline.0 + self.cluster.slack();
        deadline.as_nanos() as u64 * u64::from(candidate.treatment.stretch)
    }

    /// Whether this is the direct path: an experiment without a proxy.
    pub(super) fn is_direct(&self) -> bool {
        self.cluster.candidate().treatment.direct
    }

    /// What must be true now, computed once per state of the objects.
    pub(super) fn model(&mut self) -> Result<Arc<oracle::Cluster>, Stop> {
        let version = self.cluster.stage().version();
        if let Some((known, model)) = &self.model
            && *known == version
        {
            return Ok(model.clone());
        }
        let model = Arc::new(self.cluster.stage().oracle().map_err(Stop::infra)?);
        self.former.remember(&model);
        self.model = Some((version, model.clone()));
        Ok(model)
    }

    /// Keeps account of faults that last and that leave the candidate unable to know or to do what the objects say.
    fn note_blindness(&mut self, fault: &Fault) {
        if let Some(
            api @ (ApiFault::Outage
            | ApiFault::HalfOpen
            | ApiFault::Errors
            | ApiFault::Restart
            | ApiFault::Restore),
        ) = fault.api
        {
            let name = format!("API {api:?}");
            if fault.end {
                self.blind.remove(&name);
            } else {
                self.blind.insert(name);
            }
        }
        let nodes: Vec<String> = match &fault.on {
            Some(on) => on.as_slice().to_vec(),
            None => {
                let nodes = self.cluster.stage().nodes();
                nodes.iter().map(|node| node.name.clone()).collect()
            }
        };
        for node in nodes {
            if fault.node == Some(NodeFault::SeizeTables) {
                let name = format!("tables of {node} seized");
                if fault.end {
                    self.blind.remove(&name);
                } else {
                    self.blind.insert(name);
                }
            }
            let name = format!("candidate on {node}");
            match fault.proxy {
                Some(ProxyFault::Down | ProxyFault::Stop) => {
                    self.blind.insert(name);
                }
                // It does not run yet.
                Some(ProxyFault::Starve | ProxyFault::Cleanup) | None => {}
                Some(_) => {
                    self.blind.remove(&name);
                }
            }
        }
    }

    /// After every step: which UDP frontends there are, so that what is left of them later is known.
    fn note_frontends(&mut self) -> Result<(), Stop> {
        let model = self.model()?;
        self.ever_udp.extend(
            oracle::frontends(&model)
                .into_iter()
                .filter(|frontend| frontend.protocol == oracle::Protocol::Udp)
                .map(|frontend| SocketAddr::new(frontend.ip, frontend.port)),
        );
        Ok(())
    }

    /// Nothing is to be waited for from a candidate that ended. Asked in every turn of a loop; where the answer costs requests, it is one of a
    /// moment ago.
    pub(super) async fn still_runs(&mut self) -> Result<(), Stop> {
        if self.cluster.netns().is_none() && self.asked_if_it_runs.elapsed() < OFTEN {
            return Ok(());
        }
        self.asked_if_it_runs = Instant::now();
        match self.cluster.unexpected_exit().await? {
            Some(exit) => Err(Stop::candidate(
                "unexpected-exit",
                "a candidate that keeps running",
                exit,
            )),
            None => Ok(()),
        }
    }

    /// The candidate must still run: an exit that nobody asked for fails every case.
    pub(super) async fn must_run(&mut self) -> Result<(), Stop> {
        self.findings.checked(false);
        if let Some(exit) = self.cluster.unexpected_exit().await? {
            self.findings
                .fail_with("unexpected-exit", "a candidate that keeps running", exit);
        }
        Ok(())
    }
}
