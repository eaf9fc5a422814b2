//! Compares attempts with an expectation.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::distribution::{ALPHA, distribution, never_chosen};
use crate::expectation::{ClientAddress, Direct, Expectation, Outcome, Share};

/// One attempt to open a connection (or to get a datagram answered).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// What came of it.
    pub outcome: Observed,
    /// Who the proxy takes the client for. Attempts with the same key must reach the same endpoint when the
    /// expectation has affinity. `None` keeps the attempt out of that comparison.
    pub affinity_key: Option<String>,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "observed", rename_all = "kebab-case")]
pub enum Observed {
    /// A server answered.
    Answered {
        /// The server's own address of the connection.
        ip: IpAddr,
        /// The server's own port of the connection.
        port: u16,
        /// The server's name; empty when it has none.
        pod: String,
        /// The client's address as the server saw it.
        client_ip: IpAddr,
    },
    /// TCP reset in answer to the first segment, or ICMP port unreachable.
    Refused,
    /// Nothing came back in time.
    TimedOut,
    /// Connected, then reset before the answer.
    Reset,
    /// ICMP host, network or administratively unreachable.
    Unreachable,
    /// Anything else.
    Other(String),
}

/// A way in which attempts can differ from the expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MismatchKind {
    /// Somebody answered who is not among the allowed endpoints.
    WrongEndpoint,
    /// An endpoint was never chosen, and that cannot be chance.
    EndpointNeverChosen,
    /// The endpoints' shares are not those expected, and that cannot be chance.
    UnequalShare,
    /// A client with affinity reached more than one endpoint.
    AffinityBroken,
    /// The endpoint saw another address than the client's.
    ClientAddressLost,
    /// Refused although it had to be answered.
    Refused,
    /// Nothing came back although it had to be answered.
    NoAnswer,
    /// Reset after connecting although it had to be answered.
    Reset,
    /// Unreachable although it had to be answered.
    Unreachable,
    /// Some other failure although it had to be answered.
    OtherFailure,
    /// Answered although nobody may.
    AnsweredButMustNot,
    /// Not answered, but not refused either.
    NotRefused,
    /// Not answered, but the client was told so, while the packets had to be dropped.
    NotDropped,
    /// There were no attempts, so nothing is known.
    NothingObserved,
}

impl MismatchKind {
    /// The stable name, as in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            MismatchKind::WrongEndpoint => "wrong-endpoint",
            MismatchKind::EndpointNeverChosen => "endpoint-never-chosen",
            MismatchKind::UnequalShare => "unequal-share",
            MismatchKind::AffinityBroken => "affinity-broken",
            MismatchKind::ClientAddressLost => "client-address-lost",
            MismatchKind::Refused => "refused",
            MismatchKind::NoAnswer => "no-answer",
            MismatchKind::Reset => "reset",
            MismatchKind::Unreachable => "unreachable",
            MismatchKind::OtherFailure => "other-failure",
            MismatchKind::AnsweredButMustNot => "answered-but-must-not",
            MismatchKind::NotRefused => "not-refused",
            MismatchKind::NotDropped => "not-dropped",
            MismatchKind::NothingObserved => "nothing-observed",
        }
    }

    /// Whether it is about proportions over many attempts and not about any single attempt. A runner that waits for
    /// convergence attempt by attempt leaves these for the end.
    pub fn is_statistical(self) -> bool {
        matches!(
            self,
            MismatchKind::EndpointNeverChosen | MismatchKind::UnequalShare
        )
    }
}

impl fmt::Display for MismatchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A difference between attempts and expectation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// What kind of difference.
    pub kind: MismatchKind,
    /// How many attempts show it.
    pub attempts: usize,
    /// The difference in words.
    pub text: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.text)
    }
}

/// Compares many attempts with the expectation. No mismatch means that all attempts fit one and the same acceptable
/// outcome; otherwise the mismatches are those of the outcome that comes nearest.
///
/// Statements about proportions are made only when chance is excluded to [`ALPHA`], so few attempts never give a false
/// alarm; [`crate::attempts_to_see_all`] says how many are enough.
pub fn check(expectation: &Expectation, observed: &[Observation]) -> Vec<Mismatch> {
    if observed.is_empty() {
        return vec![Mismatch {
            kind: MismatchKind::NothingObserved,
            attempts: 0,
            text: "there was no attempt".into(),
        }];
    }
    let per_outcome = expectation
        .outcomes
        .iter()
        .map(|o| against(expectation, o, observed));
    let nearest = per_outcome.min_by_key(|found| {
        (
            found
                .iter()
                .map(|mismatch| mismatch.attempts)
                .sum::<usize>(),
            found.len(),
        )
    });
    // No acceptable outcome at all is no licence: nothing can be said to hold.
    nearest.unwrap_or_else(|| {
        vec![Mismatch {
            kind: MismatchKind::OtherFailure,
            attempts: observed.len(),
            text: "the expectation allows no outcome".into(),
        }]
    })
}

/// The index of the first acceptable outcome that all attempts fit: which way a candidate goes where the
/// specification leaves a choice.
pub fn matched_outcome(expectation: &Expectation, observed: &[Observation]) -> Option<usize> {
    if observed.is_empty() {
        return None;
    }
    expectation
        .outcomes
        .iter()
        .position(|o| against(expectation, o, observed).is_empty())
}

/// Mismatches in the making: how many attempts show each.
struct Tally {
    attempts: usize,
    found: BTreeMap<(MismatchKind, String), usize>,
}

impl Tally {
    fn add(&mut self, kind: MismatchKind, text: impl Into<String>) {
        *self.found.entry((kind, text.into())).or_default() += 1;
    }

    fn into_mismatches(self) -> Vec<Mismatch> {
        let attempts = self.attempts;
        self.found
            .into_iter()
            .map(|((kind, text), count)| Mismatch {
                kind,
                attempts: count,
                text: format!("{count} of {attempts} attempts {text}"),
            })
            .collect()
    }
}

fn against(
    expectation: &Expectation,
    outcome: &Outcome,
    observed: &[Observation],
) -> Vec<Mismatch> {
    let mut tally = Tally {
        attempts: observed.len(),
        found: BTreeMap::new(),
    };
    match outcome {
        Outcome::Endpoints { shares, client } => {
            return against_endpoints(expectation, shares, *client, observed);
        }
        Outcome::Refuse => {
            for attempt in observed {
                match &attempt.outcome {
                    Observed::Refused => {}
                    Observed::Answered { .. } => must_not(&mut tally, &attempt.outcome),
                    other => tally.add(MismatchKind::NotRefused, describe(other)),
                }
            }
        }
        Outcome::Drop => {
            for attempt in observed {
                match &attempt.outcome {
                    Observed::TimedOut => {}
                    Observed::Answered { .. } => must_not(&mut tally, &attempt.outcome),
                    other => tally.add(MismatchKind::NotDropped, describe(other)),
                }
            }
        }
        Outcome::NoAnswer => {
            observed
                .iter()
                .for_each(|attempt| must_not(&mut tally, &attempt.outcome));
        }
        Outcome::NotService => {
            for attempt in observed {
                against_direct(&mut tally, &expectation.direct, &attempt.outcome);
            }
        }
    }
    tally.into_mismatches()
}

/// Nobody may answer. A corrupt answer, or one from a wrong peer, is an answer too, and an attempt that failed for a reason
/// of its own shows nothing.
fn must_not(tally: &mut Tally, outcome: &Observed) {
    match outcome {
        Observed::Answered { .. } => {
            tally.add(MismatchKind::AnsweredButMustNot, describe(outcome));
        }
        Observed::Other(_) => tally.add(MismatchKind::OtherFailure, describe(outcome)),
        Observed::Refused | Observed::TimedOut | Observed::Reset | Observed::Unreachable => {}
    }
}

fn against_direct(tally: &mut Tally, direct: &Direct, outcome: &Observed) {
    match (direct, outcome) {
        (Direct::Nobody, _) => must_not(tally, outcome),
        (Direct::Pod { name } | Direct::Listener { name }, Observed::Answered { pod, .. }) => {
            if !pod.is_empty() && pod != name {
                let text = format!("{} instead of {name}", describe(outcome));
                tally.add(MismatchKind::WrongEndpoint, text);
            }
        }
        (Direct::Pod { .. }, Observed::Other(_)) => failure(tally, outcome),
        // Whether the pod listens there is not known.
        (Direct::Pod { .. }, _) => {}
        (Direct::Listener { .. }, _) => failure(tally, outcome),
    }
}

fn failure(tally: &mut Tally, outcome: &Observed) {
    let kind = match outcome {
        Observed::Answered { .. } => return,
        Observed::Refused => MismatchKind::Refused,
        Observed::TimedOut => MismatchKind::NoAnswer,
        Observed::Reset => MismatchKind::Reset,
        Observed::Unreachable => MismatchKind::Unreachable,
        Observed::Other(_) => MismatchKind::OtherFailure,
    };
    tally.add(kind, describe(outcome));
}

fn against_endpoints(
    expectation: &Expectation,
    shares: &[Share],
    client: ClientAddress,
    observed: &[Observation],
) -> Vec<Mismatch> {
    let mut tally = Tally {
        attempts: observed.len(),
        found: BTreeMap::new(),
    };
    // Where each attempt that reached an allowed endpoint went, and with which key.
    let mut reached: Vec<(usize, Option<&str>)> = Vec::new();
    for attempt in observed {
        let Observed::Answered {
            ip,
            port,
            pod,
            client_ip,
        } = &attempt.outcome
        else {
            failure(&mut tally, &attempt.outcome);
            continue;
        };
        let Some(index) = shares
            .iter()
            .position(|share| is_from(share, *ip, *port, pod))
        else {
            let text = format!("{}, no allowed endpoint", describe(&attempt.outcome));
            tally.add(MismatchKind::WrongEndpoint, text);
            continue;
        };
        reached.push((index, attempt.affinity_key.as_deref()));
        let kept = expectation.client_ips.is_empty() || expectation.client_ips.contains(client_ip);
        if client == ClientAddress::Preserved && !shares[index].hairpin && !kept {
            let text = format!(
                "arrived at {} with the client address {client_ip}",
                shares[index]
            );
            tally.add(MismatchKind::ClientAddressLost, text);
        }
    }
    let draws = if expectation.affinity.is_some() {
        one_draw_per_client(&mut tally, shares, &reached)
    } else {
        reached.iter().map(|(index, _)| *index).collect()
    };
    let mut mismatches = tally.into_mismatches();
    mismatches.extend(proportions(shares, &draws));
    mismatches
}

/// A server is known by address and port; its name must fit when both sides know one.
fn is_from(share: &Share, ip: IpAddr, port: u16, pod: &str) -> bool {
    let named = |name: &String| pod.is_empty() || name == pod;
    share.ip == ip && share.port == port && share.pod.as_ref().is_none_or(named)
}

/// With affinity only a client's first attempt is a free choice; the others must repeat it.
fn one_draw_per_client(
    tally: &mut Tally,
    shares: &[Share],
    reached: &[(usize, Option<&str>)],
) -> Vec<usize> {
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, key) in reached {
        let Some(key) = key else { continue };
        let chosen = *first.entry(key).or_insert(*index);
        if chosen != *index {
            let (other, own) = (&shares[*index], &shares[chosen]);
            let text = format!("of client {key} went to {other} although it began with {own}");
            tally.add(MismatchKind::AffinityBroken, text);
        }
    }
    first.into_values().collect()
}

fn proportions(shares: &[Share], draws: &[usize]) -> Vec<Mismatch> {
    let mut counts = vec![0u64; shares.len()];
    for index in draws {
        counts[*index] += 1;
    }
    let total: f64 = shares.iter().map(|share| f64::from(share.weight)).sum();
    let never: Vec<Mismatch> = shares
        .iter()
        .zip(&counts)
        .filter(|(share, count)| {
            let part = f64::from(share.weight) / total;
            **count == 0 && never_chosen(shares.len(), part, draws.len()) < ALPHA
        })
        .map(|(share, _)| Mismatch {
            kind: MismatchKind::EndpointNeverChosen,
            attempts: draws.len(),
            text: format!("none of {} choices fell on {share}", draws.len()),
        })
        .collect();
    if !never.is_empty() {
        return never;
    }
    let weights: Vec<u32> = shares.iter().map(|share| share.weight).collect();
    let p = distribution(&counts, &weights);
    if p >= ALPHA {
        return Vec::new();
    }
    let list: Vec<String> = shares
        .iter()
        .zip(&counts)
        .map(|(share, count)| format!("{share}: {count}"))
        .collect();
    vec![Mismatch {
        kind: MismatchKind::UnequalShare,
        attempts: draws.len(),
        text: format!(
            "{} choices fell unevenly (p = {p:.1e}): {}",
            draws.len(),
            list.join(", ")
        ),
    }]
}

fn describe(outcome: &Observed) -> String {
    match outcome {
        Observed::Answered { ip, port, pod, .. } => {
            let at = match ip {
                IpAddr::V4(ip) => format!("{ip}:{port}"),
                IpAddr::V6(ip) => format!("[{ip}]:{port}"),
            };
            let name = if pod.is_empty() {
                String::new()
            } else {
                format!("{pod} ")
            };
            format!("were answered by {name}{at}")
        }
        Observed::Refused => "were refused".into(),
        Observed::TimedOut => "timed out".into(),
        Observed::Reset => "were reset".into(),
        Observed::Unreachable => "met an ICMP unreachable".into(),
        Observed::Other(text) => format!("failed: {text}"),
    }
}
