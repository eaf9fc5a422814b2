//! The verb `fault`. Each fault says whether it took effect: one that did nothing must not count as survived.

use std::time::Duration;

use apiserver::FaultReport;
use nix::sys::signal::Signal;
use probe::proto::{Churn, DumpKind, now};
use tokio::time::sleep;

use super::super::attempt::{Attempt, Stop};
use crate::scenario::{
    Span,
    doc::{ApiFault, Fault, NodeFault, ProxyFault},
};

/// The table that the fault `foreignTable` makes.
const FOREIGN: &str = "somebody-else";

/// A fault of the API that somebody has to run into lasts at least until then. Clients wait between tries, client-go up to
/// some seconds after several failures.
const FELT: Duration = Duration::from_secs(15);

/// A client that lost its watch has another after this time: client-go waits between tries, up to some seconds after several failures.
const WATCHING: Duration = Duration::from_secs(15);

/// A fault of the API that is to be felt: a counter of the API server's that has to move.
pub struct Armed {
    fault: ApiFault,
    count: fn(&FaultReport) -> u64,
    before: u64,
}

/// What shows that a fault was felt; `None` for those that tell at once.
fn counter(fault: ApiFault) -> Option<fn(&FaultReport) -> u64> {
    Some(match fault {
        ApiFault::Outage => |report| report.aborted_connections,
        ApiFault::HalfOpen => |report| report.held_connections,
        ApiFault::Errors => |report| report.error_responses,
        ApiFault::Delay => |report| report.delayed_responses + report.delayed_events,
        ApiFault::DuplicateEvents => |report| report.duplicated_events,
        ApiFault::ShuffledRelist => |report| report.shuffled_lists,
        ApiFault::Compact => |report| report.expired_watches + report.expired_requests,
        ApiFault::DropWatches | ApiFault::Forget | ApiFault::NoopUpdates => return None,
    })
}

impl Attempt<'_> {
    pub(in crate::run) async fn fault(&mut self, fault: &Fault) -> Result<(), Stop> {
        let nodes: Vec<String> = match &fault.on {
            Some(on) => on.as_slice().to_vec(),
            None => self
                .cluster
                .stage()
                .nodes()
                .iter()
                .map(|node| node.name.clone())
                .collect(),
        };
        self.changing();
        if let Some(proxy) = fault.proxy {
            self.proxy_fault(proxy, &nodes).await?;
        }
        if let Some(node) = fault.node {
            for name in &nodes {
                self.node_fault(node, name, fault).await?;
            }
        }
        if let Some(api) = fault.api {
            if fault.end {
                self.felt(|armed| armed.fault == api).await?;
            }
            // The wait is no part of the convergence.
            self.changing();
            self.api_fault(api, fault).await?;
        }
        Ok(())
    }

    /// Waits until the candidate ran into the chosen faults of the API: one that nobody met proves nothing.
    pub(in crate::run) async fn felt(
        &mut self,
        chosen: impl Fn(&Armed) -> bool,
    ) -> Result<(), Stop> {
        let until = now() + FELT.as_nanos() as u64;
        let (chosen, others): (Vec<Armed>, Vec<Armed>) = std::mem::take(&mut self.armed)
            .into_iter()
            .partition(chosen);
        self.armed = others;
        for armed in chosen {
            loop {
                let report = self.cluster.stage().api().faults().report();
                if (armed.count)(&report) > armed.before {
                    break;
                }
                if now() > until {
                    return Err(Stop::infra(format!(
                        "nobody met the API fault {:?} within {FELT:?}, so it proves nothing",
                        armed.fault
                    )));
                }
                // A poll of a condition with a deadline.
                sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }

    async fn proxy_fault(&mut self, fault: ProxyFault, nodes: &[String]) -> Result<(), Stop> {
        // A restart must not hide that the candidate had ended by itself.
        if let Some(exit) = self.cluster.unexpected_exit() {
            return Err(Stop::candidate(
                "unexpected-exit",
                "a candidate that keeps running",
                exit,
            ));
        }
        match fault {
            ProxyFault::Restart | ProxyFault::Kill => {
                let signal = if fault == ProxyFault::Kill {
                    Signal::SIGKILL
                } else {
                    Signal::SIGTERM
                };
                self.cluster.end_candidate(nodes, signal).await?;
                self.cluster.restart_candidate(nodes).await?;
            }
            ProxyFault::Down => self.cluster.end_candidate(nodes, Signal::SIGTERM).await?,
            ProxyFault::Start => self.cluster.restart_candidate(nodes).await?,
            ProxyFault::Stop => {
                self.cluster
                    .signal_candidate(nodes, Signal::SIGSTOP)
                    .await?
            }
            ProxyFault::Continue => {
                self.cluster
                    .signal_candidate(nodes, Signal::SIGCONT)
                    .await?
            }
        }
        Ok(())
    }

    async fn node_fault(&mut self, fault: NodeFault, node: &str, spec: &Fault) -> Result<(), Stop> {
        let agent = self.cluster.agent(node)?;
        match fault {
            NodeFault::FlushRuleset => {
                let rules = agent.dump(DumpKind::Ruleset).await?;
                if self.candidate_runs() && !rules.lines().any(|line| line.starts_with("table ")) {
                    return Err(Stop::infra(format!(
                        "no table was on {node} to be flushed, so the fault proves nothing; a candidate without netfilter \
                         state declares the feature netfilterRules unsupported"
                    )));
                }
                agent.ruleset_flush().await?;
            }
            NodeFault::FlushConntrack => agent.conntrack_flush().await?,
            NodeFault::ForeignTable => {
                if spec.end {
                    self.findings.checked(false);
                    let rules = agent.dump(DumpKind::Ruleset).await?;
                    if !rules
                        .lines()
                        .any(|line| line.starts_with("table ") && line.contains(FOREIGN))
                    {
                        self.findings.fail_with(
                            "foreign-table-gone",
                            format!("the table '{FOREIGN}' of somebody else on {node}, untouched"),
                            "it is gone",
                        );
                    }
                }
                agent.foreign_table(FOREIGN, !spec.end).await?;
            }
            NodeFault::Address => {
                let address = spec
                    .address
                    .clone()
                    .ok_or_else(|| Stop::infra("fault 'address' needs an address"))?;
                if spec.end {
                    agent.address_del("lo", &address).await?;
                } else {
                    agent.address_add("lo", &address).await?;
                }
            }
            NodeFault::LinkChurn if spec.end => {
                let churned = agent.churn_stop().await?;
                self.findings
                    .measure("churned links", "count", churned.links as f64);
                self.findings.measure(
                    "interrupted dumps",
                    "ratio",
                    churned.interrupted_dumps as f64 / churned.dumps.max(1) as f64,
                );
                if churned.links == 0 {
                    return Err(Stop::infra(format!(
                        "the link churn on {node} changed no link, so it proves nothing"
                    )));
                }
            }
            NodeFault::LinkChurn => {
                agent
                    .churn_start(Churn {
                        links: spec.links.unwrap_or(50),
                        addresses: 10,
                        pause_us: 200,
                        dump: true,
                    })
                    .await?;
            }
        }
        Ok(())
    }

    /// Whether there is a process that faults could meet; the null candidate has none.
    fn candidate_runs(&self) -> bool {
        self.cluster
            .instances()
            .iter()
            .any(|instance| instance.is_up())
    }

    async fn api_fault(&mut self, fault: ApiFault, spec: &Fault) -> Result<(), Stop> {
        let api = self.cluster.stage().api().clone();
        let faults = api.faults();
        let on = !spec.end;
        let candidate_runs = self.candidate_runs();
        // Who comes back after an outage may well read everything anew instead of asking for what is gone.
        let out = fault == ApiFault::Compact
            && self
                .armed
                .iter()
                .any(|armed| armed.fault == ApiFault::Outage);
        if let Some(count) = counter(fault).filter(|_| on && candidate_runs && !out) {
            self.armed.push(Armed {
                fault,
                count,
                before: count(&faults.report()),
            });
        }
        match fault {
            ApiFault::DropWatches => {
                let until = now() + WATCHING.as_nanos() as u64;
                let dropped = loop {
                    let dropped = faults.drop_watches(None);
                    if dropped > 0 || !candidate_runs {
                        break dropped;
                    }
                    // Between the end of one watch and the next request there is none, whoever ended the last one.
                    if now() > until {
                        return Err(Stop::infra(format!(
                            "nobody watched the API within {WATCHING:?}, so no watch could be dropped"
                        )));
                    }
                    sleep(Duration::from_millis(5)).await;
                };
                self.findings
                    .measure("dropped watches", "count", dropped as f64);
            }
            ApiFault::Outage => {
                let cut = faults.outage(on);
                self.findings
                    .measure("cut connections", "count", cut as f64);
            }
            ApiFault::HalfOpen => {
                let held = faults.half_open(None, on);
                self.findings
                    .measure("half-open connections", "count", held as f64);
                if on && held == 0 && candidate_runs {
                    return Err(Stop::candidate(
                        "not-watching",
                        "a candidate that is connected to the API",
                        "no connection was open, so none could be held",
                    ));
                }
            }
            ApiFault::Forget => {
                let forgotten = faults.forget(None);
                self.findings
                    .measure("forgotten connections", "count", forgotten as f64);
                if forgotten == 0 && candidate_runs {
                    return Err(Stop::infra(
                        "no connection to the API was open, so none could be forgotten",
                    ));
                }
            }
            ApiFault::Compact => {
                let watches = faults.compact();
                self.findings
                    .measure("watches told 410", "count", watches as f64);
            }
            ApiFault::Errors if on => faults.errors(None, 500, None),
            ApiFault::Errors => faults.clear_errors(None),
            ApiFault::Delay => {
                let delay = spec.delay.unwrap_or(Span::millis(100)).0;
                faults.delay(None, if on { delay } else { std::time::Duration::ZERO });
            }
            ApiFault::ShuffledRelist => {
                faults.shuffle_lists(None, Some(self.seed));
                let watches = faults.compact();
                self.findings
                    .measure("watches told to relist", "count", watches as f64);
            }
            ApiFault::NoopUpdates => {
                let kinds = match &spec.kind {
                    Some(kind) => vec![kind.as_str()],
                    None => vec!["Service", "EndpointSlice"],
                };
                for kind in kinds {
                    let touched = faults.noop_updates(kind, spec.times.unwrap_or(1) as usize);
                    if touched == 0 {
                        return Err(Stop::infra(format!(
                            "no {kind} was there to be touched, so the fault proves nothing"
                        )));
                    }
                }
            }
            ApiFault::DuplicateEvents => faults.duplicate_events(None, on),
        }
        Ok(())
    }
}
