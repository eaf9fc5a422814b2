//! The history of every write, for reports: what the API said, and when.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::registry::ResourceType;
use crate::store::{Event, Verb};

/// One write, as kept inside the store: the object stays in its wire form until somebody asks.
pub(crate) struct Record {
    pub(crate) at_ns: u64,
    pub(crate) resource: Arc<ResourceType>,
    pub(crate) event: Arc<Event>,
}

/// One write that changed something.
#[derive(Clone, Debug, Serialize)]
pub struct HistoryEntry {
    /// When it was stored, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// The resourceVersion it got.
    pub resource_version: u64,
    /// What happened.
    pub verb: Verb,
    /// The object's apiVersion, such as `discovery.k8s.io/v1`.
    pub api_version: String,
    /// The object's kind.
    pub kind: String,
    /// The object's namespace, empty for cluster-wide objects.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The object after the write; for a deletion its last state.
    pub object: Value,
}

impl Record {
    pub(crate) fn entry(&self) -> HistoryEntry {
        let object = &self.event.object;
        HistoryEntry {
            at_ns: self.at_ns,
            resource_version: self.event.version,
            verb: self.event.verb,
            api_version: self.resource.api_version(),
            kind: self.resource.kind.clone(),
            namespace: object.namespace.to_string(),
            name: object.name.to_string(),
            object: object.value(),
        }
    }
}

/// Now, in nanoseconds of `CLOCK_MONOTONIC`: the clock the probes use as well.
pub(crate) fn monotonic_ns() -> u64 {
    // CLOCK_MONOTONIC exists on every Linux, so the call cannot fail.
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map(|t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
        .unwrap_or_default()
}
