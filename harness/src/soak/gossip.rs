//! An API server that tells everything more than once, as real ones do: what a proxy must not care about (kpng@79cdcb6, kube-router#1026).

use futures::future::BoxFuture;

use crate::{cluster::NetnsCluster, run::stress::Stress, scenario::Case};

/// How many objects of each kind are rewritten when a case begins, the same ones again where there are fewer.
const REWRITES: usize = 10;
const KINDS: [&str; 3] = ["Service", "EndpointSlice", "Node"];

/// Events that come twice, and updates without a change.
#[derive(Debug)]
pub struct Gossip;

impl Stress for Gossip {
    fn name(&self) -> String {
        format!("api: {REWRITES} updates per kind without a change, each event twice")
    }

    fn suits(&self, case: &Case) -> bool {
        // Faults of the API server may be the same, and would be ended with it; states are compared with what they were before.
        !case.scenario.steps.iter().any(|step| {
            let fault = step.value.fault.as_ref();
            step.value.state.is_some() || fault.is_some_and(|fault| fault.api.is_some())
        })
    }

    fn enter<'a>(&'a self, cluster: &'a NetnsCluster) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            let api = cluster.stage().api();
            api.faults().duplicate_events(None, true);
            for kind in KINDS {
                api.noop_updates(kind, REWRITES);
            }
            Ok(())
        })
    }

    fn leave<'a>(&'a self, cluster: &'a NetnsCluster) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            let faults = cluster.stage().api().faults();
            faults.duplicate_events(None, false);
            let report = faults.report();
            // Every world has nodes, and every proxy watches something.
            if report.noop_updates == 0 || report.duplicated_events == 0 {
                return Err("nothing was told twice".into());
            }
            Ok(())
        })
    }
}
