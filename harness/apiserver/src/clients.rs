//! What each client has been doing: the evidence that a candidate listens, and how far it has been told.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::connections::lock;
use crate::registry::ResourceType;
use crate::store::State;

/// What one user's clients have done so far.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClientStats {
    /// The user their token stands for.
    pub user: String,
    /// The `User-Agent` of the newest request.
    pub user_agent: String,
    /// All requests, watches included.
    pub requests: u64,
    /// List requests.
    pub lists: u64,
    /// Watches running now.
    pub watches_open: usize,
    /// Watches started so far.
    pub watches_opened: u64,
    /// Watch events handed to the connection, without bookmarks.
    pub events_sent: u64,
    /// Per resource (`endpointslices.discovery.k8s.io`): the newest resourceVersion that a list or watch has brought to the client.
    pub delivered: BTreeMap<String, u64>,
}

/// A client did not start to watch, or did not catch up, in time.
#[derive(Clone, Debug, thiserror::Error)]
#[error("failed to see {user:?} watch {}: not caught up after {waited:?}", .missing.join(", "))]
pub struct NotWatching {
    /// Who was waited for.
    pub user: String,
    /// The kinds nobody of this user watches, or watches up to the present.
    pub missing: Vec<String>,
    /// How long was waited.
    pub waited: Duration,
}

struct OpenWatch {
    user: String,
    resource: Arc<ResourceType>,
    /// All events up to this resourceVersion have been handed to the connection. Zero until the initial ones are.
    delivered: u64,
}

/// A kind that is waited for, with the resources of that name and the version each must have reached.
type Wanted = (String, Vec<(Arc<ResourceType>, u64)>);

#[derive(Default)]
struct Inner {
    users: BTreeMap<String, ClientStats>,
    watches: HashMap<u64, OpenWatch>,
    next: u64,
}

/// The books about all clients.
pub(crate) struct Clients {
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

pub(crate) fn resource_name(resource: &ResourceType) -> String {
    if resource.group.is_empty() {
        resource.plural.clone()
    } else {
        format!("{}.{}", resource.plural, resource.group)
    }
}

impl Inner {
    fn user(&mut self, user: &str) -> &mut ClientStats {
        if !self.users.contains_key(user) {
            self.users.insert(
                user.to_owned(),
                ClientStats {
                    user: user.to_owned(),
                    ..ClientStats::default()
                },
            );
        }
        // The entry was made above; `or_default` is never taken.
        self.users.entry(user.to_owned()).or_default()
    }

    fn delivered(&mut self, user: &str, resource: &ResourceType, version: u64) {
        let known = self
            .user(user)
            .delivered
            .entry(resource_name(resource))
            .or_default();
        *known = version.max(*known);
    }
}

impl Clients {
    pub(crate) fn new() -> Self {
        Clients {
            inner: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    pub(crate) fn request(&self, user: &str, agent: &str) {
        let mut inner = lock(&self.inner);
        let stats = inner.user(user);
        stats.requests += 1;
        if stats.user_agent != agent {
            agent.clone_into(&mut stats.user_agent);
        }
    }

    pub(crate) fn listed(&self, user: &str, resource: &ResourceType, version: u64) {
        let mut inner = lock(&self.inner);
        inner.user(user).lists += 1;
        inner.delivered(user, resource, version);
    }

    pub(crate) fn watch_opened(&self, user: &str, resource: &Arc<ResourceType>) -> u64 {
        let mut inner = lock(&self.inner);
        let stats = inner.user(user);
        stats.watches_opened += 1;
        stats.watches_open += 1;
        inner.next += 1;
        let id = inner.next;
        inner.watches.insert(
            id,
            OpenWatch {
                user: user.to_owned(),
                resource: resource.clone(),
                delivered: 0,
            },
        );
        id
    }

    /// A watch handed `events` events to its connection and is complete up to `version`.
    pub(crate) fn watch_delivered(&self, id: u64, events: u64, version: u64) {
        let mut inner = lock(&self.inner);
        let Some(open) = inner.watches.get_mut(&id) else {
            return;
        };
        open.delivered = version.max(open.delivered);
        let (user, resource) = (open.user.clone(), open.resource.clone());
        inner.user(&user).events_sent += events;
        inner.delivered(&user, &resource, version);
        drop(inner);
        self.changed.send_replace(());
    }

    pub(crate) fn watch_closed(&self, id: u64) {
        let mut inner = lock(&self.inner);
        if let Some(open) = inner.watches.remove(&id) {
            let stats = inner.user(&open.user);
            stats.watches_open = stats.watches_open.saturating_sub(1);
        }
    }

    pub(crate) fn open_watches(&self) -> usize {
        lock(&self.inner).watches.len()
    }

    pub(crate) fn all(&self) -> Vec<ClientStats> {
        lock(&self.inner).users.values().cloned().collect()
    }

    /// Waits until each kind has a running watch of this user that has been handed everything there is at the time of the call.
    pub(crate) async fn wait_until_watching(
        &self,
        state: &Mutex<State>,
        user: &str,
        kinds: &[&str],
        timeout: Duration,
    ) -> Result<Duration, NotWatching> {
        let started = Instant::now();
        let wanted: Vec<Wanted> = {
            let mut state = lock(state);
            let with_newest = |state: &mut State, kind: &str| {
                let resources = state.registry.named(kind);
                resources
                    .into_iter()
                    .map(|r| (r.clone(), state.table(&r).newest))
                    .collect()
            };
            kinds
                .iter()
                .map(|&kind| (kind.to_owned(), with_newest(&mut state, kind)))
                .collect()
        };
        let missing = || -> Vec<String> {
            let inner = lock(&self.inner);
            let caught_up = |(resource, newest): &(Arc<ResourceType>, u64)| {
                let mut watches = inner.watches.values();
                watches.any(|w| {
                    w.user == user
                        && w.resource == *resource
                        && w.delivered > 0
                        && w.delivered >= *newest
                })
            };
            wanted
                .iter()
                .filter(|(_, any)| !any.iter().any(caught_up))
                .map(|(kind, _)| kind.clone())
                .collect()
        };
        let mut changed = self.changed.subscribe();
        loop {
            let missing = missing();
            if missing.is_empty() {
                return Ok(started.elapsed());
            }
            let woken = tokio::time::timeout_at(started + timeout, changed.changed()).await;
            if !matches!(woken, Ok(Ok(()))) {
                return Err(NotWatching {
                    user: user.to_owned(),
                    missing,
                    waited: started.elapsed(),
                });
            }
        }
    }
}
