//! The audit after the last step of a case that passed so far: everything is deleted, and nothing may be left.
//!
//! ```text
//!   delete all Services and EndpointSlices
//!        │
//!        ├── per node: no rule, set or map that packets can meet mentions a frontend or endpoint   CP-14
//!        ├── per node: no UDP conntrack entry is translated for a frontend                         CP-14
//!        └── per instance: no exit (CP-15), no error over and over, bounded memory and files       CP-16
//! ```
//!
//! In a case that does not name these rules a violation is a warning that counts for the rule alone.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use oracle::Protocol;
use probe::proto::{DumpKind, now};
use reports::event::Failure;
use tokio::time::sleep;

use super::{
    attempt::{Attempt, Stop},
    remains::{self, Gone},
};
use crate::scenario::{
    Span,
    doc::{Feature, Level, ObjectRef},
};

/// Rules: kube-proxy may be in the middle of its minimum interval of 1 s between syncs, of which a failed one is repeated after up to
/// 30 s only; the same as for the deadline of `state`.
const RULES_GONE: Span = Span::millis(15_000);
/// Conntrack entries go with the rules that made them, or right after them, one by one. Whoever removes none for so long leaves them to
/// their timeouts.
const NONE_GONE: Span = Span::millis(1_500);

/// The same error so often on one node, whatever its numbers, is a loop. Clients of the API log a failed watch once per try and kind, and
/// wait longer each time, so an outage of seconds makes some tens of lines; a loop without a pause reaches this within milliseconds.
const LOOP: u64 = 100;

/// Resident memory may grow by as much again as it was when the process was ready, by this, and by [`PER_OBJECT`]. Garbage collectors let the heap
/// double before they collect it.
const MEMORY: u64 = 64 << 20;
/// For each frontend and endpoint that there was, all copies and texts of it included.
const PER_OBJECT: u64 = 64 << 10;
/// Open files may grow by this. What a proxy opens later than at its start are sockets: a health check server with its connections per
/// Service, and connections to the API that are made anew.
const FILES: u64 = 64;

const UDP: u8 = 17;

/// The label that says who writes an EndpointSlice, and its value for the API's own controller.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

impl Attempt<'_> {
    /// Deletes everything and looks at what is left.
    pub(super) async fn audit(&mut self) -> Result<(), Stop> {
        if !self.cluster.has_candidate() {
            return Ok(());
        }
        if !self.blind.is_empty() {
            let why: Vec<&str> = self.blind.iter().map(String::as_str).collect();
            self.findings
                .note(format!("no audit during {}", why.join(", ")));
            return Ok(());
        }
        let model = self.model()?;
        let gone = Gone::new(&self.former.addresses(&model), &self.former.node_ports());
        let known =
            !self.cluster.lacks(Feature::NetfilterRules) && self.rules_are_known(&gone).await?;
        self.delete_everything().await?;
        if known {
            self.rules_are_gone(&gone).await?;
        }
        self.entries_are_gone().await?;
        self.must_run().await?;
        self.processes();
        Ok(())
    }

    /// Whether there is something to find before everything is deleted: that nothing is found afterwards says nothing otherwise.
    async fn rules_are_known(&mut self, gone: &Gone) -> Result<bool, Stop> {
        let mut lines = 0;
        for node in self.cluster.stage().nodes() {
            let agent = self.cluster.agent(&node.name)?;
            let ruleset = agent.dump(DumpKind::Ruleset).await?;
            lines += remains::remains(&ruleset, gone).map_or(0, |lines| lines.len());
            if lines > 0 {
                break;
            }
        }
        self.findings
            .measure("rules audited", "count", lines as f64);
        Ok(lines > 0)
    }

    /// After the candidate's own cleanup nothing of any Service of the case may be left, while the objects are all there.
    pub(super) async fn cleaned_up(&mut self) -> Result<(), Stop> {
        self.findings.checked(false);
        let model = self.model()?;
        let gone = Gone::new(&self.former.addresses(&model), &self.former.node_ports());
        let mut left = Vec::new();
        for node in self.cluster.stage().nodes() {
            let agent = self.cluster.agent(&node.name)?;
            let ruleset = agent.dump(DumpKind::Ruleset).await?;
            let lines = remains::remains(&ruleset, &gone).ok_or_else(|| {
                Stop::infra(format!(
                    "the ruleset of {} changed while it was read",
                    node.name
                ))
            })?;
            left.extend(
                lines
                    .into_iter()
                    .map(|line| format!("{}: {line}", node.name)),
            );
        }
        if !left.is_empty() {
            let some: Vec<&str> = left.iter().take(3).map(String::as_str).collect();
            self.findings.fail_with(
                "rules-left",
                "no rule that says anything of a Service after the cleanup",
                format!("{}: {}", left.len(), some.join("; ")),
            );
        }
        Ok(())
    }

    async fn delete_everything(&mut self) -> Result<(), Stop> {
        self.changing();
        let mut all = Vec::new();
        for (api_version, kind) in [("v1", "Service"), ("discovery.k8s.io/v1", "EndpointSlice")] {
            let api = self.cluster.stage().api();
            for object in api.list(api_version, kind, None).map_err(Stop::infra)? {
                let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
                // The API's own controller removes the slices of a Service that is gone.
                if kind == "EndpointSlice" && object["metadata"]["labels"][MANAGED_BY] == CONTROLLER
                {
                    continue;
                }
                all.push(ObjectRef {
                    api_version: Some(api_version.into()),
                    kind: kind.into(),
                    namespace: Some(text("namespace").into()),
                    name: text("name").into(),
                });
            }
        }
        Ok(self.cluster.delete(&all).await?)
    }

    async fn rules_are_gone(&mut self, gone: &Gone) -> Result<(), Stop> {
        self.findings.checked(false);
        let until = now() + self.patience(RULES_GONE);
        let mut pause = Duration::from_millis(2);
        loop {
            let mut left = Vec::new();
            let mut torn = false;
            for node in self.cluster.stage().nodes() {
                let ruleset = self
                    .cluster
                    .agent(&node.name)?
                    .dump(DumpKind::Ruleset)
                    .await?;
                match remains::remains(&ruleset, gone) {
                    Some(lines) => {
                        left.extend(
                            lines
                                .into_iter()
                                .map(|line| format!("{}: {line}", node.name)),
                        );
                    }
                    None => torn = true,
                }
                if torn || !left.is_empty() {
                    break;
                }
            }
            if left.is_empty() && !torn {
                let since = now().saturating_sub(self.last_change);
                self.findings
                    .measure("rules gone", "ms", since as f64 / 1e6);
                return Ok(());
            }
            self.still_runs().await?;
            if now() > until {
                self.left(
                    "rules-left",
                    "rules, sets and maps as they were without Services",
                    &left,
                );
                return Ok(());
            }
            // A poll of a condition with a deadline, slower the longer it takes.
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    async fn entries_are_gone(&mut self) -> Result<(), Stop> {
        let frontends: BTreeSet<SocketAddr> = self
            .former
            .destinations()
            .filter(|destination| destination.protocol == Protocol::Udp)
            .map(|destination| SocketAddr::new(destination.ip, destination.port))
            .collect();
        if frontends.is_empty() {
            return Ok(());
        }
        self.findings.checked(false);
        let at_last = now() + self.patience(RULES_GONE);
        let mut until = now() + self.patience(NONE_GONE);
        let mut fewest = usize::MAX;
        let mut pause = Duration::from_millis(2);
        loop {
            let mut left = Vec::new();
            for node in self.cluster.stage().nodes() {
                let entries = self.cluster.agent(&node.name)?.conntrack().await?;
                left.extend(
                    entries
                        .into_iter()
                        .filter(|entry| {
                            entry.protocol == UDP
                                && frontends.contains(&entry.orig_dst)
                                && entry.reply_src != entry.orig_dst
                        })
                        .map(|entry| {
                            format!(
                                "{}: {} -> {} answered by {}",
                                node.name, entry.orig_src, entry.orig_dst, entry.reply_src
                            )
                        }),
                );
            }
            if left.is_empty() {
                return Ok(());
            }
            if left.len() < fewest {
                fewest = left.len();
                until = now() + self.patience(NONE_GONE);
            }
            if now() > until.min(at_last) {
                self.left(
                    "conntrack-left",
                    "no UDP conntrack entry that is translated for a Service that is gone",
                    &left,
                );
                return Ok(());
            }
            // A poll of a condition with a deadline, slower the longer it takes.
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// What each instance logged and uses.
    fn processes(&mut self) {
        let objects = self.former.len() as u64;
        let mut found = Vec::new();
        let mut grown = 0;
        for instance in self.cluster.instances() {
            let node = &instance.node;
            if let Some((message, count)) = instance.log.most_frequent_error()
                && count > LOOP
            {
                found.push((
                    "error-loop",
                    format!("no error more than {LOOP} times in the log"),
                    format!("{node}: {count} times: {message}"),
                ));
            }
            let (Some(first), Some(last)) = (instance.usage_at_first(), instance.usage()) else {
                continue;
            };
            grown = grown.max(last.memory.saturating_sub(first.memory));
            let most = 2 * first.memory + MEMORY + objects * PER_OBJECT;
            if last.memory > most {
                found.push((
                    "memory-grown",
                    format!("at most {} MiB of memory", most >> 20),
                    format!(
                        "{node}: {} MiB, {} when it was ready",
                        last.memory >> 20,
                        first.memory >> 20
                    ),
                ));
            }
            if let (Some(first), Some(last)) = (first.files, last.files)
                && last > first + FILES
            {
                found.push((
                    "files-grown",
                    format!("at most {} open files", first + FILES),
                    format!("{node}: {last}, {first} when it was ready"),
                ));
            }
        }
        self.findings
            .measure("memory grown", "MiB", grown as f64 / f64::from(1 << 20));
        self.findings.checked(false);
        for (kind, expected, actual) in found {
            self.finding("CP-16", kind, &expected, actual);
        }
    }

    fn left(&mut self, kind: &str, expected: &str, left: &[String]) {
        let some: Vec<&str> = left.iter().take(3).map(String::as_str).collect();
        let actual = format!("{}: {}", left.len(), some.join("; "));
        self.finding("CP-14", kind, expected, actual);
    }

    /// Decides the case only where the case is about it: what is left behind after all cases says nothing against what each of them is about.
    fn finding(&mut self, requirement: &str, kind: &str, expected: &str, actual: String) {
        let scenario = &self.case.scenario;
        let own = scenario.requirement.iter().any(|id| id == requirement);
        let level = if own { scenario.level } else { Level::Core };
        self.findings.found(
            Failure {
                requirements: vec![requirement.into()],
                step: None,
                verb: String::new(),
                kind: kind.into(),
                cell: None,
                expected: expected.into(),
                message: format!("after everything was deleted: expected {expected}, got {actual}"),
                actual,
            },
            level,
        );
    }
}
