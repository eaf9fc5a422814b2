//! Faults of the API, switched on and off by a scenario.
//!
//! Most can be limited to one user, so that the candidate suffers while the harness looks on. Each one counts what it did: a fault that touched nothing
//! proves nothing, and [`Faults::report`] shows it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::connections::{Connections, lock};
use crate::registry::ResourceType;

/// What the faults did so far. A fault whose count stays zero had no effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReport {
    /// Running watches whose connection was reset by [`Faults::drop_watches`].
    pub dropped_watches: u64,
    /// Connections that went silent under [`Faults::half_open`], old and new ones.
    pub held_connections: u64,
    /// Connections reset or turned away by [`Faults::outage`].
    pub aborted_connections: u64,
    /// Running watches that were told 410 Gone after [`Faults::compact`], or because they lagged behind.
    pub expired_watches: u64,
    /// Requests answered 410 Gone because their resourceVersion or continue token is too old.
    pub expired_requests: u64,
    /// Requests answered with an error by [`Faults::errors`].
    pub error_responses: u64,
    /// Responses delayed by [`Faults::delay`].
    pub delayed_responses: u64,
    /// Watch events delayed by [`Faults::delay`].
    pub delayed_events: u64,
    /// Lists (and initial events of watches) put into another order by [`Faults::shuffle_lists`].
    pub shuffled_lists: u64,
    /// Watch events sent twice by [`Faults::duplicate_events`].
    pub duplicated_events: u64,
    /// Objects rewritten unchanged by [`ApiServer::noop_updates`](crate::ApiServer::noop_updates).
    pub noop_updates: u64,
    /// Objects of a kind that came late by [`Faults::late`]: in events, in lists and at the beginning of watches.
    pub late_objects: u64,
    /// Requests that a gateway could not pass on, because the API server behind it did not answer: not done by any fault.
    pub upstream_errors: u64,
    /// Connections accepted and not turned away, by whatever listener.
    pub accepted_connections: u64,
}

/// Whom a fault concerns: one user, or everybody.
type Scope = Option<String>;

#[derive(Debug)]
struct ErrorRule {
    scope: Scope,
    status: u16,
    /// How many requests are still to be answered so; without a number, all.
    left: Option<u64>,
}

#[derive(Debug, Default)]
struct Rules {
    outage: bool,
    half_open: Vec<Scope>,
    errors: Vec<ErrorRule>,
    delays: Vec<(Scope, Duration)>,
    shuffles: Vec<(Scope, u64)>,
    duplicates: Vec<Scope>,
    late: Vec<Late>,
}

/// Objects of one kind come late and in another order.
#[derive(Debug)]
struct Late {
    scope: Scope,
    kind: String,
    by: Duration,
    seed: u64,
}

/// How far a restored store's resourceVersions are ahead of those that it had: what `etcdutl snapshot restore --bump-revision` is given in its
/// documentation.
pub(crate) const BUMP: u64 = 1_000_000_000;

/// The past that clients may ask for: the store's, or as much as a gateway lets through of a real API server's.
pub(crate) trait Past: Send + Sync {
    /// Everything up to now is forgotten. Answers how many watches were running.
    fn compact(&self) -> usize;

    /// ResourceVersions go on [`BUMP`] further, and everything before is forgotten.
    fn restore(&self);
}

/// What can be done to an API server, as a message. Everybody whom the server has is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Switch {
    /// [`Faults::drop_watches`].
    DropWatches,
    /// [`Faults::forget`].
    Forget,
    /// [`Faults::half_open`].
    HalfOpen(bool),
    /// [`Faults::outage`].
    Outage(bool),
    /// [`Faults::compact`].
    Compact,
    /// [`Faults::restore`].
    Restore,
    /// [`Faults::errors`] with this status, or their end.
    Errors(Option<u16>),
    /// [`Faults::delay`].
    Delay(Duration),
    /// [`Faults::late`].
    Late {
        /// Any name of the kind.
        kind: String,
        /// How late.
        by: Duration,
        /// Where the order comes from.
        seed: u64,
    },
    /// [`Faults::shuffle_lists`].
    ShuffleLists(Option<u64>),
    /// [`Faults::duplicate_events`].
    DuplicateEvents(bool),
    /// [`Faults::clear`].
    Clear,
}

/// The switches. Get them from [`ApiServer::faults`](crate::ApiServer::faults) or [`Gateway::faults`](crate::Gateway::faults).
pub struct Faults {
    past: Arc<dyn Past>,
    connections: Arc<Connections>,
    rules: Mutex<Rules>,
    report: Mutex<FaultReport>,
}

fn covers(scope: &Scope, user: &str) -> bool {
    scope.as_deref().is_none_or(|u| u == user)
}

fn scope(user: Option<&str>) -> Scope {
    user.map(str::to_owned)
}

impl Faults {
    pub(crate) fn new(past: Arc<dyn Past>, connections: Arc<Connections>) -> Self {
        Faults {
            past,
            connections,
            rules: Mutex::default(),
            report: Mutex::default(),
        }
    }

    /// Does what a message says. Answers how many connections or watches were concerned at once, where the fault tells.
    pub fn throw(&self, switch: &Switch) -> usize {
        match switch {
            Switch::DropWatches => return self.drop_watches(None),
            Switch::Forget => return self.forget(None),
            Switch::HalfOpen(on) => return self.half_open(None, *on),
            Switch::Outage(on) => return self.outage(*on),
            Switch::Compact => return self.compact(),
            Switch::Restore => self.restore(),
            Switch::Errors(Some(status)) => self.errors(None, *status, None),
            Switch::Errors(None) => self.clear_errors(None),
            Switch::Delay(by) => self.delay(None, *by),
            Switch::Late { kind, by, seed } => self.late(None, kind, *by, *seed),
            Switch::ShuffleLists(seed) => self.shuffle_lists(None, *seed),
            Switch::DuplicateEvents(on) => self.duplicate_events(None, *on),
            Switch::Clear => self.clear(),
        }
        0
    }

    /// Resets the connections that running watches of this user (or of everybody) use. Returns how many watches that were.
    pub fn drop_watches(&self, user: Option<&str>) -> usize {
        let mut dropped = 0;
        for connection in self.connections.of(user) {
            let watches = connection.watches.load(Ordering::Acquire);
            if watches > 0 {
                dropped += watches;
                connection.abort();
            }
        }
        self.count(|r| r.dropped_watches += dropped as u64);
        dropped
    }

    /// Makes the connections that this user (or everybody) has now silent for good: they stay established, nothing is answered, no FIN is sent.
    /// New ones work. Returns how many that were.
    pub fn forget(&self, user: Option<&str>) -> usize {
        let mut forgotten = 0;
        for connection in self.connections.of(user) {
            if !connection.held.swap(true, Ordering::AcqRel) {
                forgotten += 1;
            }
        }
        self.count(|r| r.held_connections += forgotten as u64);
        forgotten
    }

    /// Makes the connections of this user (or of everybody) half open: they stay established, nothing is answered, no FIN is sent, and new ones
    /// go silent as well. Switching off resets the silent ones. Returns how many existing connections were silenced or reset.
    ///
    /// A new connection of one user is known by its first request, so for a single user the TLS handshake still succeeds.
    pub fn half_open(&self, user: Option<&str>, on: bool) -> usize {
        {
            let mut rules = lock(&self.rules);
            rules.half_open.retain(|s| s.as_deref() != user);
            if on {
                rules.half_open.push(scope(user));
            }
        }
        let mut affected = 0;
        for connection in self.connections.of(user) {
            if on {
                if !connection.held.swap(true, Ordering::AcqRel) {
                    affected += 1;
                }
            } else if connection.held.load(Ordering::Acquire) {
                connection.abort();
                affected += 1;
            }
        }
        if on {
            self.count(|r| r.held_connections += affected as u64);
        }
        affected
    }

    /// While on, every connection is reset as soon as it is accepted, and those that exist are reset at once. Returns how many existed.
    pub fn outage(&self, on: bool) -> usize {
        lock(&self.rules).outage = on;
        if !on {
            return 0;
        }
        let connections = self.connections.of(None);
        connections.iter().for_each(|c| c.abort());
        self.count(|r| r.aborted_connections += connections.len() as u64);
        connections.len()
    }

    /// Forgets the past, as etcd's compaction does: lists and watches at older resourceVersions get 410 Gone, running watches get an `ERROR` event with
    /// the same. Returns how many watches were running.
    pub fn compact(&self) -> usize {
        self.past.compact()
    }

    /// Makes the store one that was restored from a backup, as `etcdutl snapshot restore --bump-revision --mark-compacted` does: the objects are
    /// there, resourceVersions go on far ahead, and all that clients know is too old (410 Gone).
    pub fn restore(&self) {
        self.past.restore();
    }

    /// Answers the next `count` requests (or all until [`Faults::clear_errors`]) of this user (or of everybody) with this HTTP status and a
    /// matching `Status` object. Health checks are not affected.
    pub fn errors(&self, user: Option<&str>, status: u16, count: Option<u64>) {
        lock(&self.rules).errors.push(ErrorRule {
            scope: scope(user),
            status,
            left: count,
        });
    }

    /// Ends [`Faults::errors`], for this user's rules or (without a user) for all.
    pub fn clear_errors(&self, user: Option<&str>) {
        lock(&self.rules)
            .errors
            .retain(|r| user.is_some() && r.scope.as_deref() != user);
    }

    /// Delays every response and every watch event of this user (or of everybody) by this long. Zero ends it.
    pub fn delay(&self, user: Option<&str>, by: Duration) {
        let mut rules = lock(&self.rules);
        rules.delays.retain(|(s, _)| s.as_deref() != user);
        if !by.is_zero() {
            rules.delays.push((scope(user), by));
        }
    }

    /// Objects of a kind (any name of it) come this late to this user (or to everybody), and others at once: an event this long after it happened; a list
    /// after this time, and the initial events of a watch one at a time with this time before each, in an order drawn from `seed`. Zero ends it for all kinds.
    pub fn late(&self, user: Option<&str>, kind: &str, by: Duration, seed: u64) {
        let mut rules = lock(&self.rules);
        // Its end is that of all kinds.
        let same = |l: &Late| by.is_zero() || l.kind.eq_ignore_ascii_case(kind);
        rules
            .late
            .retain(|l| l.scope.as_deref() != user || !same(l));
        if !by.is_zero() {
            rules.late.push(Late {
                scope: scope(user),
                kind: kind.to_owned(),
                by,
                seed,
            });
        }
    }

    /// Puts the items of every list (and the initial events of every watch) into an order drawn from `seed`. `None` ends it.
    /// With `limit`, items move within their page.
    pub fn shuffle_lists(&self, user: Option<&str>, seed: Option<u64>) {
        let mut rules = lock(&self.rules);
        rules.shuffles.retain(|(s, _)| s.as_deref() != user);
        if let Some(seed) = seed {
            rules.shuffles.push((scope(user), seed));
        }
    }

    /// While on, every watch event is sent twice.
    pub fn duplicate_events(&self, user: Option<&str>, on: bool) {
        let mut rules = lock(&self.rules);
        rules.duplicates.retain(|s| s.as_deref() != user);
        if on {
            rules.duplicates.push(scope(user));
        }
    }

    /// Switches everything off. Half-open connections are reset.
    pub fn clear(&self) {
        let scopes = {
            let mut rules = lock(&self.rules);
            std::mem::take(&mut *rules).half_open
        };
        for scope in scopes {
            self.half_open(scope.as_deref(), false);
        }
    }

    /// What the faults did so far.
    pub fn report(&self) -> FaultReport {
        *lock(&self.report)
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut FaultReport)) {
        change(&mut lock(&self.report));
    }

    /// What to do with a connection that was just accepted, before anybody said who they are.
    pub(crate) fn on_accept(&self) -> AcceptFault {
        let rules = lock(&self.rules);
        if rules.outage {
            self.count(|r| r.aborted_connections += 1);
            AcceptFault::Reset
        } else if rules.half_open.iter().any(Option::is_none) {
            self.count(|r| r.held_connections += 1);
            self.count(|r| r.accepted_connections += 1);
            AcceptFault::Hold
        } else {
            self.count(|r| r.accepted_connections += 1);
            AcceptFault::None
        }
    }

    /// Whether this user's requests are to get no answer.
    pub(crate) fn holds(&self, user: &str) -> bool {
        lock(&self.rules).half_open.iter().any(|s| covers(s, user))
    }

    /// The status to answer this user's request with, if a rule says so. Uses the rule up.
    pub(crate) fn take_error(&self, user: &str) -> Option<u16> {
        let mut rules = lock(&self.rules);
        let rule = rules.errors.iter_mut().find(|r| covers(&r.scope, user))?;
        let status = rule.status;
        if let Some(left) = &mut rule.left {
            *left = left.saturating_sub(1);
        }
        rules.errors.retain(|r| r.left != Some(0));
        self.count(|r| r.error_responses += 1);
        Some(status)
    }

    /// How long this user's responses and events are to be delayed.
    pub(crate) fn delay_of(&self, user: &str) -> Option<Duration> {
        lock(&self.rules)
            .delays
            .iter()
            .filter(|(s, _)| covers(s, user))
            .map(|(_, d)| *d)
            .max()
    }

    /// How late objects of this resource are to come to this user.
    pub(crate) fn late_of(&self, user: &str, resource: &ResourceType) -> Option<Duration> {
        let rules = lock(&self.rules);
        let late = rules
            .late
            .iter()
            .find(|l| covers(&l.scope, user) && resource.is_called(&l.kind))?;
        Some(late.by)
    }

    /// Whether lists of this resource come to this user in another order.
    pub(crate) fn shuffles(&self, user: &str, resource: &ResourceType) -> bool {
        let rules = lock(&self.rules);
        rules.shuffles.iter().any(|(s, _)| covers(s, user))
            || rules
                .late
                .iter()
                .any(|l| covers(&l.scope, user) && resource.is_called(&l.kind))
    }

    /// Puts a list of this resource for this user into another order, if a rule says so.
    pub(crate) fn shuffle<T>(&self, user: &str, resource: &ResourceType, items: &mut [T]) {
        use rand::SeedableRng;
        use rand::seq::SliceRandom;
        let seed = {
            let rules = lock(&self.rules);
            let shuffle = rules.shuffles.iter().find(|(s, _)| covers(s, user));
            let late = rules
                .late
                .iter()
                .find(|l| covers(&l.scope, user) && resource.is_called(&l.kind));
            shuffle.map(|(_, seed)| *seed).or(late.map(|l| l.seed))
        };
        let Some(seed) = seed.filter(|_| items.len() > 1) else {
            return;
        };
        items.shuffle(&mut rand::rngs::StdRng::seed_from_u64(seed));
        self.count(|r| r.shuffled_lists += 1);
    }

    /// Whether this user's watch events are to be sent twice.
    pub(crate) fn duplicates(&self, user: &str) -> bool {
        lock(&self.rules).duplicates.iter().any(|s| covers(s, user))
    }
}

/// What happens to a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptFault {
    None,
    /// Close it with a RST.
    Reset,
    /// Keep it and stay silent.
    Hold,
}
