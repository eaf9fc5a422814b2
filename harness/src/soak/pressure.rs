//! A connection tracking table with many entries of nobody's flows, on every node of a world: whoever reads the table has much to read.
//! Whether the candidate leaves them alone is judged by the documents that ask for it.

use futures::future::{BoxFuture, try_join_all};

use super::churn::leaves_nodes_alone;
use crate::{cluster::NetnsCluster, run::stress::Stress, scenario::Case};

/// Entries per node: a node with some traffic, made in a moment.
const ENTRIES: u32 = 5_000;

/// Connection tracking entries in a world.
#[derive(Debug)]
pub struct ConntrackPressure;

impl Stress for ConntrackPressure {
    fn name(&self) -> String {
        format!("conntrack: {ENTRIES} entries of others per node")
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
                let table = agent.conntrack_fill(ENTRIES).await;
                let table = table.map_err(|error| format!("{}: {error}", node.name))?;
                if table.own < ENTRIES {
                    return Err(format!(
                        "{}: only {} entries were made",
                        node.name, table.own
                    ));
                }
                Ok(())
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
                let table = agent.conntrack_drain().await;
                table.map_err(|error| format!("{}: {error}", node.name))
            }))
            .await
            .map(drop)
        })
    }
}
