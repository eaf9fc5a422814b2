//! The verb `state`: audits of what the candidate and the node look like from inside.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use probe::proto::{ConntrackEntry, DumpKind, now};
use tokio::time::sleep;

use super::super::attempt::{Attempt, Stop};
use crate::scenario::{
    Span,
    doc::{HttpCheck, State},
};

/// What is remembered per node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// Lines of the ruleset per node, without counters.
    ruleset_lines: Vec<(String, usize)>,
}

const DEADLINE: Span = Span::millis(15_000);
const UDP: u8 = 17;
/// Where kube-proxy and most others answer for themselves.
const DEFAULT_HEALTHZ: u16 = 10256;

impl Attempt<'_> {
    pub(in crate::run) async fn state(&mut self, step: &State) -> Result<(), Stop> {
        if step.running {
            self.findings.checked(true);
            let nodes = self.cluster.stage().nodes();
            let mut missing: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
            let running = self.cluster.running_on(&missing);
            missing.retain(|node| running.iter().all(|(have, _)| have != node));
            if !missing.is_empty() {
                self.findings.fail_with(
                    "not-running",
                    "the candidate on every node",
                    format!("none on {missing:?}"),
                );
            }
        }
        if step.no_stale_udp {
            self.no_stale_udp().await?;
        }
        if step.cleaned_up {
            self.cleaned_up().await?;
        }
        if let Some(check) = &step.http {
            self.http(check).await?;
        }
        if let Some(name) = &step.baseline {
            let baseline = self.take_baseline().await?;
            self.baselines.insert(name.clone(), baseline);
        }
        if let Some(name) = &step.like {
            self.like(name).await?;
        }
        Ok(())
    }

    /// No UDP entry may lead to an address that is no endpoint (kubernetes #139628 and its many forerunners).
    async fn no_stale_udp(&mut self) -> Result<(), Stop> {
        self.findings.checked(false);
        let until = now() + self.patience(DEADLINE);
        loop {
            let model = self.model()?;
            let endpoints: BTreeSet<IpAddr> = model
                .slices
                .iter()
                .flat_map(|slice| slice.endpoints())
                .flat_map(|endpoint| endpoint.addresses.iter())
                .filter_map(|address| oracle::parse_ip(address))
                .collect();
            let frontends: BTreeSet<SocketAddr> = oracle::frontends(&model)
                .into_iter()
                .filter(|frontend| frontend.protocol == oracle::Protocol::Udp)
                .map(|frontend| SocketAddr::new(frontend.ip, frontend.port))
                .collect();
            let known = Known {
                endpoints,
                former: self.ever_udp.difference(&frontends).copied().collect(),
                frontends,
            };
            let mut stale = Vec::new();
            for node in self.cluster.stage().nodes() {
                let entries = self.cluster.agent(&node.name)?.conntrack().await?;
                stale.extend(entries.into_iter().filter(|entry| known.is_stale(entry)));
            }
            if stale.is_empty() {
                return Ok(());
            }
            if now() > until {
                let some: Vec<String> = stale
                    .iter()
                    .take(3)
                    .map(|entry| {
                        format!(
                            "{} -> {} answered by {}",
                            entry.orig_src, entry.orig_dst, entry.reply_src
                        )
                    })
                    .collect();
                self.findings.fail_with(
                    "stale-conntrack",
                    "no UDP conntrack entry of a frontend that is gone, or to an address that is no endpoint",
                    format!("{}: {}", stale.len(), some.join("; ")),
                );
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn http(&mut self, check: &HttpCheck) -> Result<(), Stop> {
        self.findings.checked(check.status == Some(200));
        let port = self.health_port(check)?;
        let node = self
            .cluster
            .stage()
            .plan()
            .node(&check.node)
            .map(|node| IpAddr::from(node.ipv4))
            .ok_or_else(|| Stop::infra(format!("unknown node '{}'", check.node)))?;
        let target = SocketAddr::new(node, port);
        let agent = self.cluster.agent("outside")?;
        let until = now() + self.patience(check.deadline.unwrap_or(DEADLINE));
        loop {
            let problem = match agent.http_get(target, &check.path, 2_000).await {
                Ok(answer) if check.closed => Some(format!("status {}", answer.status)),
                Ok(answer) => http_problem(check, &answer),
                Err(probe::client::AgentError::Remote { message, .. })
                    if check.closed && message.contains("cannot connect") =>
                {
                    None
                }
                Err(error @ probe::client::AgentError::Remote { .. }) => Some(error.to_string()),
                Err(error) => return Err(error.into()),
            };
            let Some(problem) = problem else {
                let since = now().saturating_sub(self.last_change) as f64 / 1e6;
                self.findings.measure("health check followed", "ms", since);
                return Ok(());
            };
            if now() > until {
                let expected = match check.status {
                    Some(status) => format!("status {status} from http://{target}{}", check.path),
                    None => format!("nobody to listen at {target}"),
                };
                self.findings.fail_with("health-check", expected, problem);
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn health_port(&self, check: &HttpCheck) -> Result<u16, Stop> {
        if let Some(port) = check.port {
            return Ok(port);
        }
        let Some(name) = &check.health_check_of else {
            let process = self.cluster.candidate().manifest.process.as_ref();
            let ready = process.and_then(|process| process.ready.http.as_ref());
            // Only the null candidate gets here without one: others are skipped.
            return Ok(ready.map_or(DEFAULT_HEALTHZ, |http| http.port));
        };
        let service = self
            .cluster
            .stage()
            .get("Service", name)
            .map_err(Stop::infra)?;
        service["spec"]["healthCheckNodePort"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .ok_or_else(|| Stop::infra(format!("Service {name} has no healthCheckNodePort")))
    }

    async fn take_baseline(&self) -> Result<Baseline, Stop> {
        let mut ruleset_lines = Vec::new();
        for node in self.cluster.stage().nodes() {
            let text = self
                .cluster
                .agent(&node.name)?
                .dump(DumpKind::Ruleset)
                .await?;
            ruleset_lines.push((node.name.clone(), text.lines().count()));
        }
        Ok(Baseline { ruleset_lines })
    }

    /// What was added must be gone again, given time.
    async fn like(&mut self, name: &str) -> Result<(), Stop> {
        let Some(want) = self.baselines.get(name).cloned() else {
            return Err(Stop::infra(format!("no baseline '{name}' was taken")));
        };
        self.findings.checked(false);
        let until = now() + self.patience(DEADLINE);
        loop {
            let have = self.take_baseline().await?;
            let grown = want
                .ruleset_lines
                .iter()
                .zip(&have.ruleset_lines)
                .any(|(want, have)| have.1 > want.1);
            if !grown {
                return Ok(());
            }
            if now() > until {
                self.findings.fail_with(
                    "ruleset-leak",
                    format!(
                        "a ruleset no larger than at '{name}': {:?} lines",
                        want.ruleset_lines
                    ),
                    format!("{:?}", have.ruleset_lines),
                );
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What tells stale UDP entries from others.
#[derive(Default)]
struct Known {
    /// Addresses of all endpoints that there are now.
    endpoints: BTreeSet<IpAddr>,
    /// UDP frontends that there are now.
    frontends: BTreeSet<SocketAddr>,
    /// UDP frontends that there were: of deleted Services, removed ports, other node ports, withdrawn addresses.
    former: BTreeSet<SocketAddr>,
}

impl Known {
    /// Whether an entry was translated for a frontend that is gone (kubernetes#141371), or leads to an address that is no endpoint.
    fn is_stale(&self, entry: &ConntrackEntry) -> bool {
        let translated = entry.reply_src != entry.orig_dst;
        entry.protocol == UDP
            && translated
            && (self.former.contains(&entry.orig_dst)
                || self.frontends.contains(&entry.orig_dst)
                    && !self.endpoints.contains(&entry.reply_src.ip()))
    }
}

fn http_problem(check: &HttpCheck, answer: &probe::proto::HttpResponse) -> Option<String> {
    if check.status != Some(answer.status) {
        return Some(format!(
            "status {} with body {}",
            answer.status,
            answer.body.trim()
        ));
    }
    for (name, value) in &check.headers {
        let have = answer
            .headers
            .iter()
            .find(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value);
        if have != Some(value) {
            return Some(format!("header {name} is {have:?}, not {value}"));
        }
    }
    if check.body.is_empty() {
        return None;
    }
    let body: serde_json::Value = match serde_json::from_str(&answer.body) {
        Ok(body) => body,
        Err(error) => return Some(format!("the body is not JSON: {error}")),
    };
    check.body.iter().find_map(|(pointer, want)| {
        let have = body.pointer(pointer);
        (have != Some(want)).then(|| format!("{pointer} is {have:?}, not {want}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(protocol: u8, to: &str, answered_by: &str) -> ConntrackEntry {
        let client: SocketAddr = "10.244.1.11:40001".parse().unwrap();
        ConntrackEntry {
            family: 4,
            protocol,
            orig_src: client,
            orig_dst: to.parse().unwrap(),
            reply_src: answered_by.parse().unwrap(),
            reply_dst: client,
            status: 0,
            timeout: 30,
            mark: 0,
            tcp_state: None,
        }
    }

    #[test]
    fn entries_are_stale_without_their_frontend_or_endpoint() {
        let known = Known {
            endpoints: ["10.244.2.11".parse().unwrap()].into(),
            frontends: ["10.96.0.10:53".parse().unwrap()].into(),
            former: ["10.96.0.20:53".parse().unwrap()].into(),
        };
        let (alive, gone) = ("10.244.2.11:8080", "10.244.2.12:8080");
        for (protocol, to, answered_by, stale) in [
            (UDP, "10.96.0.10:53", alive, false),
            (UDP, "10.96.0.10:53", gone, true),
            // The endpoint lives, and is reached at an address that may be another Service's next.
            (UDP, "10.96.0.20:53", alive, true),
            (UDP, "10.96.0.20:53", gone, true),
            // Sent as it is, to whoever has the address.
            (UDP, "10.96.0.20:53", "10.96.0.20:53", false),
            (UDP, "10.96.0.30:53", gone, false),
            (6, "10.96.0.20:53", alive, false),
        ] {
            let entry = entry(protocol, to, answered_by);
            assert_eq!(known.is_stale(&entry), stale, "{entry:?}");
        }
    }
}
