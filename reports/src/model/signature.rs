//! Groups failed attempts by what went wrong, so that a thousand failures read as three causes.
//!
//! The signature of an attempt is that of the first failure of its first step that failed: what follows is usually a
//! consequence. Names, addresses and numbers differ from world to world, so they are no part of it; what stays is the kind of
//! the mismatch, the requirement, and the cell as a class (source class, kind of frontend, family, protocol).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::report::CaseResult;
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
}

/// The groups, the largest first.
pub(super) fn groups(cases: &[CaseResult]) -> Vec<FailureGroup> {
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
        let first_step = failures.iter().filter_map(|f| f.step).min();
        failures
            .iter()
            .filter(|failure| failure.step == first_step)
            .map(|failure| {
                let signature = Self {
                    requirement: requirement(requirements, failure),
                    verb: failure.verb.clone(),
                    kind: failure.kind.clone(),
                    cell: failure.cell.as_deref().map(cell_class).unwrap_or_default(),
                    log: complaint.map(without_numbers).unwrap_or_default(),
                };
                (signature, failure)
            })
            // Cells are probed side by side: which of them comes first says nothing.
            .min_by(|a, b| a.0.cmp(&b.0))
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

fn requirement(case: &[String], failure: &Failure) -> String {
    let blamed = &failure.requirements;
    case.iter()
        .find(|own| blamed.is_empty() || blamed.contains(own))
        .or(blamed.first())
        .or(case.first())
        .cloned()
        .unwrap_or_default()
}

/// The class of a cell: `pod client -> web ClusterIP 10.96.1.1:80/TCP` is `pod -> ClusterIP IPv4 TCP`.
fn cell_class(cell: &str) -> String {
    let Some((from, to)) = cell.split_once(" -> ") else {
        return without_numbers(cell);
    };
    let source = from.split([' ', '/']).next().unwrap_or_default();
    let mut class = format!("{source} ->");
    for word in to.split_whitespace() {
        let known = match address_class(word) {
            Some(class) => class,
            // The first word is the Service's name; the kinds of frontends come after it.
            None if word.starts_with(|c: char| c.is_ascii_uppercase()) => word.to_owned(),
            None => continue,
        };
        class.push(' ');
        class.push_str(&known);
    }
    class
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

/// A line with every address and every word that holds a digit replaced by `#`.
pub fn without_numbers(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for part in line.split_inclusive([' ', '\t', '"', '\'', '=', ',', '(', ')', '[', ']', '/']) {
        let text = part.trim_end_matches(|c: char| c.is_ascii_punctuation() || c.is_whitespace());
        let end = &part[text.len()..];
        if text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok() {
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
            ("flow 'stream-7'", "flow 'stream-#'"),
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
}
