//! A failed attempt's world stays up until somebody has looked at it.
//!
//! This is a mode of the whole command (`harness repro --pause-on-failure`), set once before the first attempt. A paused attempt has written its evidence,
//! and everything in its world still runs.

use std::{path::Path, sync::OnceLock};

use futures::future::BoxFuture;

use super::attempt::Attempt;
use crate::cluster::NetnsCluster;

/// What there is to look at.
pub struct Paused<'a> {
    /// Id of the case.
    pub case: &'a str,
    /// The cluster, with the candidate in it.
    pub cluster: &'a NetnsCluster,
    /// Directory of the evidence, if it could be written.
    pub evidence: Option<&'a Path>,
}

/// Shows a paused attempt; the world goes down when it returns.
pub type Handler = Box<dyn for<'a> Fn(Paused<'a>) -> BoxFuture<'a, ()> + Send + Sync>;

static HANDLER: OnceLock<Handler> = OnceLock::new();

/// From now on failed attempts are shown to this handler. The first one that is set stays.
pub fn on_failure(handler: Handler) {
    let _ = HANDLER.set(handler);
}

/// Whether attempts may take as long as somebody looks at them.
pub fn requested() -> bool {
    HANDLER.get().is_some()
}

impl Attempt<'_> {
    /// Pauses a failed attempt, if that was asked for.
    pub(super) async fn pause(&self, evidence: Option<&Path>) {
        let failed = self.findings.infra.is_none() && !self.findings.failures.is_empty();
        if let Some(handler) = HANDLER.get().filter(|_| failed)
            && let Some(cluster) = self.cluster.netns()
        {
            handler(Paused {
                case: &self.case.key.id,
                cluster,
                evidence,
            })
            .await;
        }
    }
}
