//! The verb `fault`. What each does, in which dose, and what shows that it took effect is in [`crate::nemesis::table`]; one that had none must
//! not count as survived.

use std::{net::IpAddr, time::Duration};

use apiserver::{FaultReport, Switch};
use nix::sys::signal::Signal;
use probe::proto::{Churn, DumpKind, now};
use tokio::time::sleep;

use super::super::attempt::{Attempt, Stop};
use crate::{
    nemesis::{
        Starving,
        table::{Dose, Which},
    },
    scenario::doc::{ApiFault, Fault, NodeFault, ProxyFault},
};

/// The table that the fault `foreignTable` makes.
const FOREIGN: &str = "somebody-else";

/// A fault of the API that somebody has to run into lasts at least until then. Clients wait between tries, client-go up to
/// some seconds after several failures.
const FELT: Duration = Duration::from_secs(15);

/// A client that lost its watch has another after this time: client-go waits between tries, up to some seconds after several failures.
const WATCHING: Duration = Duration::from_secs(15);

/// So long may links and addresses come and go until a dump of ours is interrupted. With the default dose one of ten is.
const INTERRUPTED: Duration = Duration::from_secs(15);

/// Addresses of `lo` that `linkChurn` replaces in turn, beside its links, and the pause between two changes.
const CHURN_ADDRESSES: u32 = 10;
const CHURN_PAUSE_US: u32 = 200;

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
        ApiFault::Late => |report| report.late_objects,
        ApiFault::Restart | ApiFault::Restore => |report| report.accepted_connections,
        ApiFault::DropWatches | ApiFault::Forget | ApiFault::NoopUpdates => return None,
    })
}

/// Whether a fault is there to be felt from its end on, and not from its beginning.
fn felt_afterwards(fault: ApiFault) -> bool {
    matches!(fault, ApiFault::Restart | ApiFault::Restore)
}

/// Why a fault without effect says nothing about the candidate.
fn no_effect(which: Which, value: f64) -> String {
    let row = which.nemesis();
    format!(
        "the {} fault {} had no effect, so it proves nothing: {} = {value}, where {}",
        which.group(),
        row.name,
        row.effect.what,
        row.effect.seen
    )
}

/// The address without the length of its prefix.
fn bare(address: &str) -> Option<IpAddr> {
    address.split('/').next()?.parse().ok()
}

fn address(fault: &Fault) -> Result<&str, Stop> {
    fault
        .address
        .as_deref()
        .ok_or_else(|| Stop::infra("the fault needs an address"))
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
        if !fault.end {
            self.dosed(fault, &nodes);
        }
        if let Some(proxy) = fault.proxy {
            self.proxy_fault(proxy, &nodes, fault).await?;
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

    /// Records how much of the fault is asked for.
    fn dosed(&mut self, fault: &Fault, nodes: &[String]) {
        let Some(which) = Which::of(fault) else {
            return;
        };
        let row = which.nemesis();
        let (what, unit, value) = match (row.dose, which.dose(fault)) {
            (Dose::Parameter { what, unit, .. }, Some(dose)) => (what, unit, f64::from(dose)),
            (Dose::Nodes, _) => ("nodes", "count", nodes.len() as f64),
            _ => return,
        };
        let name = format!("{} {} dose: {what}", which.group(), row.name);
        self.findings.measure(&name, unit, value);
    }

    /// Records what was seen of a fault; one without effect ends the attempt, unless there is no process that could feel it.
    fn took(&mut self, which: Which, value: f64, enough: bool, demanded: bool) -> Result<(), Stop> {
        let row = which.nemesis();
        let name = format!("{} {} effect: {}", which.group(), row.name, row.effect.what);
        self.findings.measure(&name, row.effect.unit, value);
        if enough || !demanded {
            Ok(())
        } else {
            Err(Stop::infra(no_effect(which, value)))
        }
    }

    /// Records something else about a fault.
    fn beside(&mut self, which: Which, what: &str, unit: &str, value: f64) {
        let name = format!("{} {}: {what}", which.group(), which.nemesis().name);
        self.findings.measure(&name, unit, value);
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
                let report = self.cluster.api_report().await?;
                let met = (armed.count)(&report).saturating_sub(armed.before);
                if met > 0 || now() > until {
                    self.took(Which::Api(armed.fault), met as f64, met > 0, true)?;
                    break;
                }
                // A poll of a condition with a deadline.
                sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    }

    /// Instances with a process on these nodes: node and pid.
    fn pids_on(&self, nodes: &[String]) -> Vec<(String, u32)> {
        self.cluster
            .instances()
            .iter()
            .filter(|instance| nodes.contains(&instance.node))
            .filter_map(|instance| Some((instance.node.clone(), instance.process()?.pid())))
            .collect()
    }

    async fn proxy_fault(
        &mut self,
        fault: ProxyFault,
        nodes: &[String],
        spec: &Fault,
    ) -> Result<(), Stop> {
        // A restart must not hide that the candidate had ended by itself.
        if let Some(exit) = self.cluster.unexpected_exit().await? {
            return Err(Stop::candidate(
                "unexpected-exit",
                "a candidate that keeps running",
                exit,
            ));
        }
        let which = Which::Proxy(fault);
        let before = self.cluster.running_on(nodes);
        // The null candidate has no process that could be restarted or stopped.
        let demanded = self.cluster.has_candidate();
        let (count, all) = match fault {
            ProxyFault::Restart | ProxyFault::Kill => {
                let signal = if fault == ProxyFault::Kill {
                    Signal::SIGKILL
                } else {
                    Signal::SIGTERM
                };
                self.cluster.end_candidate(nodes, signal).await?;
                self.cluster.restart_candidate(nodes).await?;
                let after = self.cluster.running_on(nodes);
                let new = after.iter().filter(|process| !before.contains(process));
                (new.count(), nodes.len())
            }
            ProxyFault::Down => {
                self.cluster.keep_candidate_down(nodes).await?;
                let left = self.cluster.running_on(nodes).len();
                (before.len() - left, nodes.len())
            }
            ProxyFault::Start => {
                self.cluster.restart_candidate(nodes).await?;
                let started = self.cluster.running_on(nodes).len() - before.len();
                (started, nodes.len())
            }
            ProxyFault::Cleanup => {
                self.cluster.clean_up(nodes).await?;
                (nodes.len(), nodes.len())
            }
            ProxyFault::Stop | ProxyFault::Continue => {
                let stop = fault == ProxyFault::Stop;
                let followed = self.cluster.pause_candidate(nodes, stop).await?;
                (followed, nodes.len())
            }
            ProxyFault::Starve if spec.end => return self.starved(nodes),
            ProxyFault::Starve => {
                let percent = which.dose(spec).unwrap_or_default();
                for (node, pid) in self.pids_on(nodes) {
                    if let Some(starving) = Starving::begin(pid, percent) {
                        self.starving.insert(node, starving);
                    }
                }
                return Ok(());
            }
        };
        self.took(which, count as f64, count == all, demanded)
    }

    /// The end of a starvation: what the candidate got.
    fn starved(&mut self, nodes: &[String]) -> Result<(), Stop> {
        let which = Which::Proxy(ProxyFault::Starve);
        let demanded = self.cluster.has_candidate();
        for node in nodes {
            let Some(starving) = self.starving.remove(node) else {
                self.took(which, 1.0, false, demanded)?;
                continue;
            };
            let dose = f64::from(starving.percent()) / 100.0;
            let starved = starving.end();
            let cpu = starved.cpu.as_secs_f64() * 1e3;
            self.beside(which, "CPU time used meanwhile", "ms", cpu);
            let enough = starved.took() && starved.share < 2.0 * dose + 0.1;
            self.took(which, starved.share, enough, demanded)?;
        }
        Ok(())
    }

    async fn node_fault(&mut self, fault: NodeFault, node: &str, spec: &Fault) -> Result<(), Stop> {
        let agent = self.cluster.agent(node)?;
        let which = Which::Node(fault);
        let dose = which.dose(spec).unwrap_or_default();
        let candidate_runs = self.candidate_runs();
        match fault {
            NodeFault::FlushRuleset => {
                let tables = self.tables(node, which).await?;
                agent.ruleset_flush().await?;
                self.took(which, tables as f64, tables > 0, candidate_runs)
            }
            NodeFault::FlushConntrack => {
                let entries = agent.conntrack().await?.len();
                agent.conntrack_flush().await?;
                self.pressed.remove(node);
                // Without rules that track connections there are none, whoever talks.
                self.took(which, entries as f64, entries > 0, candidate_runs)
            }
            NodeFault::SeizeTables if spec.end => {
                agent.release_tables().await?;
                Ok(())
            }
            NodeFault::SeizeTables => {
                let tables = self.tables(node, which).await?;
                agent.seize_tables().await?;
                self.took(which, tables as f64, tables > 0, candidate_runs)
            }
            NodeFault::ForeignTable => {
                if spec.end {
                    self.findings.checked(false);
                    if !has_foreign_table(&agent.dump(DumpKind::Ruleset).await?) {
                        self.findings.fail_with(
                            "foreign-table-gone",
                            format!("the table '{FOREIGN}' of somebody else on {node}, untouched"),
                            "it is gone",
                        );
                    }
                    agent.foreign_table(FOREIGN, false).await?;
                    return Ok(());
                }
                agent.foreign_table(FOREIGN, true).await?;
                let there = has_foreign_table(&agent.dump(DumpKind::Ruleset).await?);
                self.took(which, f64::from(there), there, true)
            }
            NodeFault::Address if spec.end => {
                agent.address_del("lo", address(spec)?).await?;
                if let Some(bare) = bare(address(spec)?) {
                    self.held.remove(&bare);
                }
                Ok(())
            }
            NodeFault::Address | NodeFault::NetworkAddress => {
                let address = address(spec)?;
                if fault == NodeFault::Address {
                    agent.address_add("lo", address).await?;
                } else {
                    self.cluster.add_address(node, address).await?;
                }
                let bare = bare(address);
                let listed = agent.dump(DumpKind::Addresses).await?;
                let there = listed
                    .split(|c: char| c.is_whitespace() || c == '/')
                    .any(|word| bare.is_some_and(|ip| word.parse() == Ok(ip)));
                self.held.extend(bare);
                self.took(which, f64::from(there), there, true)
            }
            NodeFault::LinkChurn if spec.end => {
                let until = now() + INTERRUPTED.as_nanos() as u64;
                while agent.churn_read().await?.interrupted_dumps == 0 && now() < until {
                    // A poll of a condition with a deadline.
                    sleep(Duration::from_millis(5)).await;
                }
                let churned = agent.churn_stop().await?;
                // The wait is no part of the convergence.
                self.changing();
                self.beside(which, "links replaced", "count", churned.links as f64);
                self.beside(which, "dumps", "count", churned.dumps as f64);
                let share = churned.interrupted_dumps as f64 / churned.dumps.max(1) as f64;
                self.took(which, share, share > 0.0 && churned.links > 0, true)
            }
            NodeFault::LinkChurn => {
                agent
                    .churn_start(Churn {
                        links: dose,
                        addresses: CHURN_ADDRESSES,
                        pause_us: CHURN_PAUSE_US,
                        dump: true,
                    })
                    .await?;
                Ok(())
            }
            NodeFault::ConntrackPressure if spec.end => {
                let table = agent.conntrack_drain().await?;
                self.changing();
                let left = f64::from(table.own);
                self.beside(which, "entries left at its end", "count", left);
                if let Some(pressed) = self.pressed.remove(node) {
                    self.findings.checked(false);
                    if table.own < pressed {
                        self.findings.fail_with(
                            "foreign-conntrack-gone",
                            format!("{pressed} conntrack entries of others on {node}, untouched"),
                            format!("{} are left", table.own),
                        );
                    }
                }
                Ok(())
            }
            NodeFault::ConntrackPressure => {
                let table = agent.conntrack_fill(dose).await?;
                self.changing();
                self.pressed.insert(node.to_owned(), table.own);
                let share = f64::from(table.entries) / f64::from(table.limit.max(1));
                self.beside(which, "share of the table's limit", "ratio", share);
                self.took(which, f64::from(table.own), table.own >= dose, true)
            }
            NodeFault::ExhaustPorts if spec.end => {
                let ports = agent.ports_release().await?;
                self.changing();
                let left = f64::from(ports.left);
                self.beside(which, "ephemeral ports left at its end", "count", left);
                if ports.held == 0 {
                    return Err(Stop::infra(no_effect(which, 0.0)));
                }
                Ok(())
            }
            NodeFault::ExhaustPorts => {
                let free = u16::try_from(dose).unwrap_or(u16::MAX);
                let ports = agent.ports_hold(free).await?;
                let enough = ports.held > 0 && ports.left <= free;
                self.took(which, f64::from(ports.held), enough, true)
            }
        }
    }

    /// How many tables there are. What is done to tables proves something only where the candidate has some.
    async fn tables(&self, node: &str, which: Which) -> Result<usize, Stop> {
        let rules = self.cluster.agent(node)?.dump(DumpKind::Ruleset).await?;
        let tables = rules
            .lines()
            .filter(|line| line.starts_with("table "))
            .count();
        if self.candidate_runs() && tables == 0 {
            return Err(Stop::infra(format!(
                "{}; a candidate without netfilter state declares the feature netfilterRules unsupported",
                no_effect(which, 0.0)
            )));
        }
        Ok(tables)
    }

    /// Whether there is a process that faults could meet; the null candidate has none.
    fn candidate_runs(&self) -> bool {
        let nodes = self.cluster.stage().nodes();
        let nodes: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
        !self.cluster.running_on(&nodes).is_empty()
    }

    async fn api_fault(&mut self, fault: ApiFault, spec: &Fault) -> Result<(), Stop> {
        let which = Which::Api(fault);
        let on = !spec.end;
        let candidate_runs = self.candidate_runs();
        let dose = which.dose(spec).unwrap_or_default();
        let delay = Duration::from_millis(dose.into());
        // Who comes back after the API was away may well read everything anew instead of asking for what is gone.
        let away = |name: &String| ["API Restart", "API Restore"].contains(&name.as_str());
        let out = fault == ApiFault::Compact
            && (self.blind.iter().any(away)
                || self
                    .armed
                    .iter()
                    .any(|armed| armed.fault == ApiFault::Outage));
        let begins = on != felt_afterwards(fault);
        if let Some(count) = counter(fault).filter(|_| begins && candidate_runs && !out) {
            let report = self.cluster.api_report().await?;
            self.armed.push(Armed {
                fault,
                count,
                before: count(&report),
            });
        }
        match fault {
            ApiFault::DropWatches => {
                let until = now() + WATCHING.as_nanos() as u64;
                let dropped = loop {
                    let dropped = self.cluster.break_api(Switch::DropWatches).await?;
                    // Between the end of one watch and the next request there is none, whoever ended the last one.
                    if dropped > 0 || !candidate_runs || now() > until {
                        break dropped;
                    }
                    sleep(Duration::from_millis(5)).await;
                };
                self.took(which, dropped as f64, dropped > 0, candidate_runs)?;
            }
            ApiFault::Outage => {
                let cut = self.cluster.break_api(Switch::Outage(on)).await?;
                self.beside(which, "connections cut at once", "count", cut as f64);
            }
            ApiFault::HalfOpen => {
                let held = self.cluster.break_api(Switch::HalfOpen(on)).await?;
                self.beside(which, "connections concerned at once", "count", held as f64);
                if on && held == 0 && candidate_runs {
                    return Err(Stop::candidate(
                        "not-watching",
                        "a candidate that is connected to the API",
                        "no connection was open, so none could be held",
                    ));
                }
            }
            ApiFault::Forget => {
                let forgotten = self.cluster.break_api(Switch::Forget).await?;
                self.took(which, forgotten as f64, forgotten > 0, candidate_runs)?;
            }
            ApiFault::Compact => {
                let watches = self.cluster.break_api(Switch::Compact).await?;
                self.beside(which, "watches running", "count", watches as f64);
            }
            ApiFault::Errors => {
                let errors = Switch::Errors(on.then_some(500));
                self.cluster.break_api(errors).await?;
            }
            ApiFault::Delay => {
                let by = if on { delay } else { Duration::ZERO };
                self.cluster.break_api(Switch::Delay(by)).await?;
            }
            ApiFault::ShuffledRelist => {
                let order = Switch::ShuffleLists(Some(self.seed));
                self.cluster.break_api(order).await?;
                let watches = self.cluster.break_api(Switch::Compact).await?;
                self.beside(which, "watches told to list again", "count", watches as f64);
            }
            ApiFault::NoopUpdates => {
                let kinds = match &spec.kind {
                    Some(kind) => vec![kind.as_str()],
                    None => vec!["Service", "EndpointSlice"],
                };
                let mut touched = 0;
                let mut enough = true;
                for kind in kinds {
                    let times = self.cluster.touch(kind, dose as usize).await?;
                    enough &= times == dose as usize;
                    touched += times;
                }
                self.took(which, touched as f64, enough, true)?;
            }
            ApiFault::DuplicateEvents => {
                self.cluster.break_api(Switch::DuplicateEvents(on)).await?;
            }
            ApiFault::Late => {
                let late = Switch::Late {
                    kind: spec.kind.as_deref().unwrap_or("EndpointSlice").into(),
                    by: if on { delay } else { Duration::ZERO },
                    seed: self.seed,
                };
                self.cluster.break_api(late).await?;
            }
            ApiFault::Restart | ApiFault::Restore if on => {
                let cut = self.cluster.stop_api().await?;
                self.beside(which, "connections cut", "count", cut as f64);
            }
            ApiFault::Restart => self.cluster.start_api().await?,
            ApiFault::Restore => {
                self.cluster.break_api(Switch::Restore).await?;
                self.cluster.start_api().await?;
            }
        }
        Ok(())
    }
}

fn has_foreign_table(rules: &str) -> bool {
    rules
        .lines()
        .any(|line| line.starts_with("table ") && line.contains(FOREIGN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_had_no_effect_says_what_was_missing() {
        let text = no_effect(Which::Node(NodeFault::FlushConntrack), 0.0);
        assert_eq!(
            text,
            "the node fault flushConntrack had no effect, so it proves nothing: entries removed = 0, where there was one, and the kernel removed it"
        );
    }

    #[test]
    fn each_api_fault_tells_at_once_or_counts() {
        for which in Which::all() {
            let Which::Api(fault) = which else {
                continue;
            };
            let at_once = matches!(
                fault,
                ApiFault::DropWatches | ApiFault::Forget | ApiFault::NoopUpdates
            );
            assert_eq!(counter(fault).is_none(), at_once, "{fault:?}");
        }
    }
}
