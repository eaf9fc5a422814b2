//! The direct path: the steps of a case without any proxy.
//!
//! ```text
//!   with a proxy:   source ──> frontend ──[proxy]──> endpoint
//!   direct:         source ───────────────────────> endpoint, at its own address
//! ```
//!
//! The world, its sources, its changes and the load are those of the case; what is asked is only whether endpoints that serve answer. If they do not, then a
//! failure of the case is no proof against a proxy.

use std::collections::BTreeSet;

use oracle::{ClientAddress, Destination, Direct, Expectation, Outcome as Want};
use probe::proto::now;
use tokio::time::sleep;

use super::super::{
    attempt::{Attempt, Stop},
    cells::{Cell, To},
    round::{self, Proportions, Shape, What},
};
use crate::scenario::doc::{Fault, OneOrMany, Step, Target};

impl Attempt<'_> {
    pub(in crate::run) async fn direct_step(&mut self, step: &Step) -> Result<(), Stop> {
        if let Some(objects) = &step.apply {
            self.apply(objects).await?;
        }
        if let Some(patch) = &step.patch {
            self.patch(patch).await?;
        }
        if let Some(objects) = &step.delete {
            self.delete(objects.as_slice()).await?;
        }
        if let Some(action) = &step.pod {
            let names = action.name.as_slice();
            self.end_direct_flows(|pod| names.iter().any(|name| name == pod))
                .await?;
            self.pod(action).await?;
        }
        if let Some(probe) = &step.probe {
            if let Some(idle) = probe.idle {
                // As long as in the case, so that the world is as old.
                sleep(idle.0).await;
            }
            let shape = Shape {
                count: probe.count,
                payload: probe.payload,
                reply: probe.reply,
                what: What::Cells,
                ..Shape::default()
            };
            self.direct_round(&probe.from, &probe.to, &shape).await?;
        }
        if let Some(flow) = &step.flow {
            self.direct_flow(flow).await?;
        }
        if let Some(converge) = &step.converge {
            let shape = Shape {
                count: 2,
                what: What::Cells,
                ..Shape::default()
            };
            self.direct_round(&converge.from, &converge.to, &shape)
                .await?;
        }
        if let Some(hold) = &step.hold {
            let shape = Shape {
                count: 2,
                what: What::Cells,
                ..Shape::default()
            };
            let until = now() + hold.duration.0.as_nanos() as u64;
            while self.direct_round(&hold.from, &hold.to, &shape).await? && now() < until {}
        }
        if let Some(fault) = &step.fault
            && fault.node.is_some()
        {
            // Faults of the proxy and of its API meet nobody.
            let fault = Fault {
                proxy: None,
                api: None,
                ..fault.clone()
            };
            self.fault(&fault).await?;
        }
        Ok(())
    }

    /// One round at the endpoints; whether there is anything left to ask.
    async fn direct_round(
        &mut self,
        from: &OneOrMany<String>,
        to: &OneOrMany<Target>,
        shape: &Shape,
    ) -> Result<bool, Stop> {
        let cells = self.cells(from, to)?;
        let cells = self.direct_cells(cells);
        if cells.is_empty() {
            return Ok(false);
        }
        let seen = self.round(&cells, shape).await?;
        self.count_checks(&cells);
        let wrong = round::wrong(&cells, &seen, Proportions::PerFrontend);
        let right = wrong.is_empty();
        self.record(wrong);
        Ok(right)
    }

    /// The endpoints of some cells that have to answer, each asked by the cell's source at its own address.
    pub(super) fn direct_cells(&self, cells: Vec<Cell>) -> Vec<Cell> {
        let mut known = BTreeSet::new();
        let mut direct = Vec::new();
        for cell in cells {
            let serving: BTreeSet<_> = self
                .control_addresses(&cell)
                .into_iter()
                .map(|(address, _)| address)
                .collect();
            let shares = cell
                .expectation
                .outcomes
                .iter()
                .flat_map(|outcome| match outcome {
                    Want::Endpoints { shares, .. } => shares.as_slice(),
                    _ => &[],
                });
            for share in shares {
                let address = std::net::SocketAddr::new(share.ip, share.port);
                let Some(pod) = share.pod.as_ref().filter(|_| serving.contains(&address)) else {
                    continue;
                };
                let protocol = cell.to.destination.protocol;
                let label = format!("pod {pod} {address}/{protocol}");
                if !known.insert((cell.from.label.clone(), label.clone())) {
                    continue;
                }
                direct.push(Cell {
                    from: cell.from.clone(),
                    to: To {
                        destination: Destination {
                            ip: share.ip,
                            port: share.port,
                            protocol,
                        },
                        frontend: None,
                        label,
                        explicit: true,
                    },
                    alone: false,
                    expectation: Expectation {
                        outcomes: vec![Want::Endpoints {
                            shares: vec![share.clone()],
                            client: ClientAddress::NotPreservedAllowed,
                        }],
                        characteristic: None,
                        why: vec!["no Service is involved".to_owned()],
                        requirements: Vec::new(),
                        affinity: None,
                        client_ips: Vec::new(),
                        direct: Direct::Pod { name: pod.clone() },
                    },
                });
            }
        }
        direct
    }
}
