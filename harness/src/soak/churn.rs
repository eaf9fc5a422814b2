//! Links and addresses that come and go on every node of a world.

use futures::future::{BoxFuture, try_join_all};
use probe::proto::Churn;

use crate::{cluster::NetnsCluster, run::stress::Stress, scenario::Case};

/// Links that are kept and replaced in turn, per node, and as many addresses.
const LINKS: u32 = 10;
/// Pause between two changes: some hundred changes a second, which is a busy node and leaves the CPU to others.
const PAUSE_US: u32 = 5_000;

/// Link and address churn in a world.
#[derive(Debug)]
pub struct LinkChurn;

impl Stress for LinkChurn {
    fn name(&self) -> String {
        format!(
            "churn: {LINKS} links and {LINKS} addresses per node, a change every {} ms",
            PAUSE_US / 1000
        )
    }

    fn suits(&self, case: &Case) -> bool {
        leaves_nodes_alone(case)
    }

    fn enter<'a>(&'a self, cluster: &'a NetnsCluster) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            let nodes = cluster.stage().nodes().iter();
            try_join_all(nodes.map(|node| async {
                let agent = cluster
                    .agent(&node.name)
                    .map_err(|error| error.to_string())?;
                let churn = Churn {
                    links: LINKS,
                    addresses: LINKS,
                    pause_us: PAUSE_US,
                    dump: false,
                };
                let started = agent.churn_start(churn).await;
                started.map_err(|error| format!("{}: {error}", node.name))
            }))
            .await
            .map(drop)
        })
    }

    fn leave<'a>(&'a self, cluster: &'a NetnsCluster) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            let nodes = cluster.stage().nodes().iter();
            try_join_all(nodes.map(|node| async {
                let agent = cluster
                    .agent(&node.name)
                    .map_err(|error| error.to_string())?;
                let churned = agent.churn_stop().await;
                let churned = churned.map_err(|error| format!("{}: {error}", node.name))?;
                if churned.links == 0 || churned.addresses == 0 {
                    return Err(format!("{}: nothing was changed", node.name));
                }
                Ok(())
            }))
            .await
            .map(drop)
        })
    }
}

/// Whether a stress on the nodes of a case's world is nobody else's business: faults of nodes may be the same stress, and states are compared with
/// what they were before.
pub(super) fn leaves_nodes_alone(case: &Case) -> bool {
    !case.scenario.steps.iter().any(|step| {
        let fault = step.value.fault.as_ref();
        step.value.state.is_some() || fault.is_some_and(|fault| fault.node.is_some())
    })
}
