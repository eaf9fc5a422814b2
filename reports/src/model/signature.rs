//! Groups failed attempts by what went wrong, so that a thousand failures read as three causes.
//!
//! The signature of an attempt is that of the first failure of its first step that failed: what follows is usually a
//! consequence. Names, addresses and numbers differ from world to world, so they are no part of it; what stays is the kind of
//! the mismatch, the requirement, and the cell as a class (source class, kind of frontend, family, protocol).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::class::Class;
use super::report::{CaseResult, Classification};
use super::verdict::CaseVerdict;
use crate::event::{Failure, Verdict};

/// What failures of one cause have in common.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct Signature {
    /// The first of the violated requirements that the case names; that of the failure where the case names none of them.
    pub requirement: String,
    /// The verb of the step.
    pub verb: String,
    /// Kind of the mismatch, such as `wrong-endpoint`.
    pub kind: String,
    /// The cell as a class, such as `pod -> ClusterIP IPv6 UDP`; empty where there is none.
    pub cell: String,
    /// The candidate's last complaint before the attempt ended, with numbers removed; empty where it made none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log: String,
}

/// All failed attempts with one signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureGroup {
    /// What they have in common.
    pub signature: Signature,
    /// How many attempts failed this way.
    pub attempts: u64,
    /// Ids of the cases they belong to.
    pub cases: Vec<String>,
    /// One of them in one sentence: the first in the order of the plan.
    pub example: String,
    /// The case and the number of the attempt that the example is from.
    pub example_case: String,
    /// Number of that attempt.
    pub example_attempt: u32,
    /// What kind of failure it is, where experiments were made with one of the cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// The case that the experiments were made with: the first of them in the order of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub representative: Option<String>,
}

/// All attempts that say nothing for the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InfraGroup {
    /// The reason, without numbers, addresses and names.
    pub reason: String,
    /// How many attempts it got in the way of.
    pub attempts: u64,
    /// Ids of the cases they belong to, in the order of the plan.
    pub cases: Vec<String>,
    /// The reason of the first of them as it was given.
    pub example: String,
}

/// The groups of attempts that say nothing, the largest first.
pub(super) fn infra_groups(cases: &[CaseResult]) -> Vec<InfraGroup> {
    let mut found: BTreeMap<String, InfraGroup> = BTreeMap::new();
    for case in cases {
        for attempt in case.attempts_with(Verdict::Infra) {
            let text = attempt.infra.as_deref().unwrap_or("no reason was given");
            let reason = reason_class(text);
            let group = found.entry(reason.clone()).or_insert_with(|| InfraGroup {
                reason,
                attempts: 0,
                cases: Vec::new(),
                example: text.to_owned(),
            });
            group.attempts += 1;
            if group.cases.last() != Some(&case.id) {
                group.cases.push(case.id.clone());
            }
        }
    }
    let mut groups: Vec<InfraGroup> = found.into_values().collect();
    // Stable, as below.
    groups.sort_by_key(|group| std::cmp::Reverse(group.attempts));
    groups
}

/// The groups, the largest first, and the causes. Cases get their class: from their own experiments, or from those of a case with the same
/// cause.
pub(super) fn groups(cases: &mut [CaseResult]) -> (Vec<FailureGroup>, Vec<FailureGroup>) {
    for case in cases.iter_mut() {
        case.classification = case.classify();
    }
    let mut groups = grouped(cases);
    let mut causes = causes(&groups, cases);
    for cause in &mut causes {
        let Some(at) = stand_for(cause, cases) else {
            continue;
        };
        let Some(known) = cases[at].classification.clone() else {
            continue;
        };
        let representative = cases[at].id.clone();
        for case in cases
            .iter_mut()
            .filter(|case| cause.cases.contains(&case.id))
        {
            // What always fails is another matter than what sometimes passes, however much the failures look alike.
            let differs = case.verdict == CaseVerdict::Flaky
                && matches!(known.class, Class::Broken | Class::Slow);
            if case.classification.is_none() && !differs {
                case.classification = Some(Classification {
                    class: known.class,
                    why: "fails the same way as the representative".to_owned(),
                    rate: None,
                    representative: Some(representative.clone()),
                });
            }
        }
        cause.class = Some(known.class);
        cause.representative = Some(representative);
    }
    for group in &mut groups {
        if let Some(at) = stand_for(group, cases) {
            group.class = cases[at].classification.as_ref().map(|known| known.class);
            group.representative = Some(cases[at].id.clone());
        }
    }
    (groups, causes)
}

/// The first case of a group, in the order of the plan, that experiments were made with.
fn stand_for(group: &FailureGroup, cases: &[CaseResult]) -> Option<usize> {
    let experimented =
        |case: &CaseResult| !case.experiments.is_empty() && group.cases.contains(&case.id);
    cases.iter().position(experimented)
}

/// Groups that differ in nothing but the family or the protocol of the cell are one cause: `pod -> ClusterIP IPv4|IPv6 TCP|UDP`. One that is
/// about IPv6 alone still says so.
fn causes(groups: &[FailureGroup], cases: &[CaseResult]) -> Vec<FailureGroup> {
    let order: BTreeMap<&str, usize> = (0..)
        .zip(cases)
        .map(|(at, case)| (case.id.as_str(), at))
        .collect();
    let mut merged: BTreeMap<Signature, Vec<&FailureGroup>> = BTreeMap::new();
    for group in groups {
        let words = group.signature.cell.split(' ');
        let open: Vec<&str> = words
            .map(|word| if varies(word) { "?" } else { word })
            .collect();
        let key = Signature {
            cell: open.join(" "),
            ..group.signature.clone()
        };
        merged.entry(key).or_default().push(group);
    }
    let mut causes: Vec<FailureGroup> = merged
        .into_iter()
        .map(|(key, members)| {
            let mut columns: Vec<BTreeSet<&str>> = Vec::new();
            for member in &members {
                for (at, word) in member.signature.cell.split(' ').enumerate() {
                    if columns.len() <= at {
                        columns.push(BTreeSet::new());
                    }
                    columns[at].insert(word);
                }
            }
            let cell: Vec<String> = columns
                .iter()
                .map(|words| words.iter().copied().collect::<Vec<_>>().join("|"))
                .collect();
            let ids: BTreeSet<&String> = members.iter().flat_map(|member| &member.cases).collect();
            let first = members
                .iter()
                .min_by_key(|member| order.get(member.example_case.as_str()))
                .unwrap_or(&members[0]);
            FailureGroup {
                signature: Signature {
                    cell: cell.join(" "),
                    ..key
                },
                attempts: members.iter().map(|member| member.attempts).sum(),
                cases: ids.into_iter().cloned().collect(),
                ..(*first).clone()
            }
        })
        .collect();
    // Stable, as below.
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.attempts));
    causes
}

/// A family or a protocol.
fn varies(word: &str) -> bool {
    matches!(word, "IPv4" | "IPv6" | "TCP" | "UDP" | "SCTP")
}

fn grouped(cases: &[CaseResult]) -> Vec<FailureGroup> {
    let mut found: BTreeMap<Signature, FailureGroup> = BTreeMap::new();
    let mut members: BTreeMap<Signature, BTreeSet<&str>> = BTreeMap::new();
    for case in cases {
        for attempt in case.attempts_with(Verdict::Fail) {
            let complaint = attempt.complaint.as_deref();
            let Some((signature, failure)) =
                Signature::of(&case.requirements, &attempt.failures, complaint)
            else {
                continue;
            };
            members
                .entry(signature.clone())
                .or_default()
                .insert(&case.id);
            found
                .entry(signature.clone())
                .or_insert_with(|| FailureGroup {
                    signature,
                    attempts: 0,
                    cases: Vec::new(),
                    example: failure.message.clone(),
                    example_case: case.id.clone(),
                    example_attempt: attempt.attempt,
                    class: None,
                    representative: None,
                })
                .attempts += 1;
        }
    }
    let mut groups: Vec<FailureGroup> = found
        .into_iter()
        .map(|(signature, mut group)| {
            group.cases = members[&signature]
                .iter()
                .map(|id| (*id).to_owned())
                .collect();
            group
        })
        .collect();
    // Stable: equally large ones stay in the order of their signatures.
    groups.sort_by_key(|group| std::cmp::Reverse(group.attempts));
    groups
}

impl Signature {
    /// The signature of a failed attempt and the failure it comes from: out of the requirements that its case names, the attempt's
    /// failures, and the candidate's last complaint. `None` when there is no failure.
    pub fn of<'a>(
        requirements: &[String],
        failures: &'a [Failure],
        complaint: Option<&str>,
    ) -> Option<(Self, &'a Failure)> {
        // Cells are probed side by side: which of them comes first says nothing.
        Self::all(requirements, failures, complaint).min_by(|a, b| a.0.cmp(&b.0))
    }

    /// The signatures of all failures of an attempt's first step that failed, with the failures. `requirements` are the case's, `complaint` the last
    /// error in the candidate's log.
    pub fn all<'a>(
        requirements: &[String],
        failures: &'a [Failure],
        complaint: Option<&str>,
    ) -> impl Iterator<Item = (Self, &'a Failure)> {
        let first_step = failures.iter().filter_map(|f| f.step).min();
        let log = complaint.map(without_numbers).unwrap_or_default();
        failures
            .iter()
            .filter(move |failure| failure.step == first_step)
            .map(move |failure| {
                let signature = Self {
                    requirement: requirement(requirements, failure),
                    verb: failure.verb.clone(),
                    kind: failure.kind.clone(),
                    cell: failure.cell.as_deref().map(cell_class).unwrap_or_default(),
                    log: log.clone(),
                };
                (signature, failure)
            })
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            requirement,
            verb,
            kind,
            cell,
            log,
        } = self;
        write!(f, "{requirement} {verb} {kind}")?;
        if !cell.is_empty() {
            write!(f, " {cell}")?;
        }
        if !log.is_empty() {
            write!(f, " ({log})")?;
        }
        Ok(())
    }
}

fn requirement(requirements: &[String], failure: &Failure) -> String {
    let blamed = &failure.requirements;
    requirements
        .iter()
        .find(|own| blamed.is_empty() || blamed.contains(own))
        .or(blamed.first())
        .or(requirements.first())
        .cloned()
        .unwrap_or_default()
}

/// The class of a cell: `pod client -> web ClusterIP 10.96.1.1:80/TCP` is `pod -> ClusterIP IPv4 TCP`, and proportions, which are judged
/// over all clients of a node, are `clients -> ClusterIP IPv4 TCP`.
fn cell_class(cell: &str) -> String {
    let (source, to) = match (cell.split_once(" -> "), cell.strip_prefix("clients on ")) {
        (_, Some(rest)) => ("clients", rest.split_once(' ').map_or("", |(_, to)| to)),
        (Some((from, to)), None) => (source_class(from), to),
        // A source alone, or a flow by its name.
        (None, None) if cell.contains('\'') => return without_numbers(cell),
        (None, None) => return source_class(cell).to_owned(),
    };
    let mut class = format!("{source} ->");
    for word in to.split_whitespace() {
        let known = match address_class(word) {
            // Proportions name the endpoints after the frontend.
            Some(_) if source == "clients" && !word.contains('/') => break,
            Some(class) => class,
            // The first word is the Service's name; the kinds of frontends come after it.
            None if word.starts_with(|c: char| c.is_ascii_uppercase()) => word.to_owned(),
            None if matches!(word, "pod" | "externalIP") => word.to_owned(),
            None => continue,
        };
        class.push(' ');
        class.push_str(&known);
    }
    class
}

/// `pod client`, `outside/node2`, `client neighbour`, or a node by its name.
fn source_class(from: &str) -> &'static str {
    match from.split([' ', '/']).next() {
        Some("pod") => "pod",
        Some("outside") => "outside",
        Some("client") => "client",
        _ => "node",
    }
}

/// The reason for an infra attempt without what differs from one attempt to the next.
fn reason_class(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    // The first of several cells stands for all.
    let line = line.split("; ").next().unwrap_or_default();
    let Some((head, to)) = line.split_once(" -> ") else {
        return without_numbers(line);
    };
    let (head, from) = head.rsplit_once(": ").unwrap_or(("", head));
    let (to, how) = to.rsplit_once(": ").unwrap_or((to, ""));
    let class = cell_class(&format!("{from} -> {to}"));
    let parts = [without_numbers(head), class, without_numbers(how)];
    parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(": ")
}

/// Family and protocol of `10.96.1.1:80/TCP` or `[fd00::1]:80/UDP`.
fn address_class(word: &str) -> Option<String> {
    let (socket, protocol) = word.rsplit_once('/').unwrap_or((word, ""));
    let (address, _port) = socket.rsplit_once(':')?;
    let address: IpAddr = address
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()?;
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    Some(format!("{family} {protocol}").trim_end().to_owned())
}

/// Whether it is a UUID or the like: groups of hexadecimal digits, of which some may have no decimal digit at all.
fn is_identifier(text: &str) -> bool {
    text.len() >= 16
        && text.chars().any(|c| c.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_hexdigit() || matches!(c, '-' | ':'))
}

/// A line with every address, identifier and every word that holds a digit replaced by `#`.
pub fn without_numbers(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for part in line.split_inclusive([' ', '\t', '"', '\'', '=', ',', '(', ')', '[', ']', '/']) {
        let text = part.trim_end_matches(|c: char| c.is_ascii_punctuation() || c.is_whitespace());
        let end = &part[text.len()..];
        let address = text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok();
        if address || is_identifier(text) {
            out.push('#');
        } else {
            for word in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
                let core = word.trim_end_matches(|c: char| !c.is_alphanumeric());
                let numbered = core.chars().any(|c| c.is_ascii_digit());
                out.push_str(if numbered { "#" } else { core });
                out.push_str(&word[core.len()..]);
            }
        }
        out.push_str(end);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_become_classes() {
        for (cell, class) in [
            (
                "pod client -> web ClusterIP 10.96.1.1:80/TCP",
                "pod -> ClusterIP IPv4 TCP",
            ),
            (
                "outside/node2 -> web NodePort [fd00:89::c]:30086/UDP",
                "outside -> NodePort IPv6 UDP",
            ),
            (
                "node1 -> web externalIP [2001:db8:51::19]:443/UDP",
                "node -> externalIP IPv6 UDP",
            ),
            ("flow 'stream-7'", "flow 'stream-#'"),
            (
                "node1 -> web ClusterIP 10.96.1.1:80/TCP",
                "node -> ClusterIP IPv4 TCP",
            ),
            (
                "pod client -> pod web-1 10.244.1.11:8080/UDP",
                "pod -> pod IPv4 UDP",
            ),
            (
                "clients on node1 web ClusterIP 10.96.1.1:80/TCP 10.244.1.11:8080 10.244.2.11:8080",
                "clients -> ClusterIP IPv4 TCP",
            ),
            (
                "clients on node2 default/web main UDP IPv6 fd00:244:0:2::b:8080",
                "clients -> UDP IPv6",
            ),
            (
                "node2 -> web externalIP 203.0.113.9:80/TCP",
                "node -> externalIP IPv4 TCP",
            ),
            (
                "pod a -> web LoadBalancer IP [2001:db8:113::1]:80/UDP",
                "pod -> LoadBalancer IP IPv6 UDP",
            ),
            ("outside/node2", "outside"),
            ("node2", "node"),
        ] {
            assert_eq!(cell_class(cell), class, "{cell}");
        }
    }

    #[test]
    fn log_lines_of_one_cause_look_alike() {
        let table = [
            (
                "E1122 19:30:12.123456 4711 proxier.go:1308] \"Failed\" err=\"exit status 1\" ip=\"10.96.1.1\"",
                "E1122 20:01:59.000001 99 proxier.go:1308] \"Failed\" err=\"exit status 4\" ip=\"10.96.200.17\"",
            ),
            ("no route to fd00:96::101", "no route to fd00:96::fe"),
            (
                "no pod with uid deadbeef-cafe-4abc-8abc-feedfacebeef",
                "no pod with uid 01234567-89ab-4cde-8f01-23456789abcd",
            ),
        ];
        for (one, other) in table {
            assert_eq!(without_numbers(one), without_numbers(other));
            assert!(!without_numbers(one).contains(|c: char| c.is_ascii_digit()));
        }
        assert_ne!(
            without_numbers("sync failed"),
            without_numbers("load failed")
        );
    }

    #[test]
    fn infra_reasons_of_one_cause_look_alike() {
        let paths = |count: u32, source: &str, pod: u32| {
            format!(
                "{count} of 12 direct paths (no Service involved) do not work, so this is the kernel or the topology: \
                 {source} -> pod web-{pod} 10.244.1.{pod}:8080/TCP: timed out; node2 -> pod x [fd00::1]:80/TCP: timed out"
            )
        };
        assert_eq!(
            reason_class(&paths(3, "pod client", 1)),
            reason_class(&paths(1, "pod client-far", 2))
        );
        assert!(
            reason_class(&paths(1, "pod client", 1)).ends_with(": pod -> pod IPv4 TCP: timed out")
        );
        assert_ne!(
            reason_class(&paths(1, "pod client", 1)),
            reason_class(&paths(1, "node1", 1))
        );
        let late = |ms: u32| {
            format!("this machine is too slow to judge: a timer of the harness was {ms} ms late")
        };
        assert_eq!(reason_class(&late(501)), reason_class(&late(2_000)));
        assert_ne!(
            reason_class(&late(501)),
            reason_class(
                "this machine is too slow to judge: the agent of node1 took 900 ms to say hello"
            )
        );
    }
}
