//! Is this machine fast enough to judge anybody? Asked after something was wrong.
//!
//! The deadlines of a scenario assume that a process that has something to do gets to do it. Where it does not, what is missing says
//! nothing about the candidate. Three numbers show it: how late timers fire in the harness, how long an agent takes to say hello, and
//! how long the candidate was ready to run and was not let. None of them is high because of what a candidate does wrong.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::time::sleep;

use super::attempt::Attempt;

/// A timer may be this late; how long an agent's hello may take is the cluster's to say. Right answers take less than a millisecond, and the shortest time
/// in which something has to happen at a quiet machine is 100 ms; with both cores of two kept busy by others, tens of milliseconds are usual.
const LATE: Duration = Duration::from_millis(500);

/// The candidate may have waited for a CPU for this share of its life, and no less than [`LATE`] in all: with one busy competitor per core
/// the scheduler gives it half of the time, and it needs a small part of that.
const STARVED: f64 = 0.5;

impl Attempt<'_> {
    /// Why this machine was too slow to judge the candidate, if it was.
    pub(super) async fn too_slow(&self) -> Option<String> {
        let nap = Duration::from_millis(10);
        let began = Instant::now();
        sleep(nap).await;
        let late = began.elapsed().saturating_sub(nap);
        if late > LATE {
            return Some(format!(
                "a timer of the harness was {} ms late (at most {} are fine)",
                late.as_millis(),
                LATE.as_millis()
            ));
        }
        let late = self.cluster.late();
        let nodes = self.cluster.stage().nodes();
        let hellos = join_all(nodes.iter().map(|node| async {
            let agent = self.cluster.agent(&node.name).ok()?;
            let began = Instant::now();
            agent.hello().await.ok()?;
            Some((node.name.clone(), began.elapsed()))
        }))
        .await;
        if let Some((node, took)) = hellos.into_iter().flatten().find(|(_, took)| *took > late) {
            return Some(format!(
                "the agent of {node} took {} ms to say hello (at most {} are fine)",
                took.as_millis(),
                late.as_millis()
            ));
        }
        self.cluster.instances().iter().find_map(|instance| {
            let (starved, lived) = instance.starved()?;
            let much = starved > LATE && starved.as_secs_f64() > lived.as_secs_f64() * STARVED;
            much.then(|| {
                format!(
                    "the candidate on {} was ready to run and not let for {} of its {} ms",
                    instance.node,
                    starved.as_millis(),
                    lived.as_millis()
                )
            })
        })
    }
}
