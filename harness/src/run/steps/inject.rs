//! The verb `inject`: packets that no socket would send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use probe::proto::{self, AskNeighbour, Inject as Packet};

use super::super::{
    attempt::{Attempt, Stop},
    cells, round,
};
use crate::scenario::doc::{Inject, InjectKind, Protocol};

/// The name under which servers record the datagrams of `loopbackFromNeighbour`.
const FLOW: &str = "loopback-from-neighbour";

impl Attempt<'_> {
    pub(in crate::run) async fn inject(&mut self, step: &Inject) -> Result<(), Stop> {
        match step.packet {
            InjectKind::OutOfWindow => self.out_of_window(step).await,
            InjectKind::LoopbackFromNeighbour => self.loopback_from_neighbour(step).await,
        }
    }

    async fn out_of_window(&mut self, step: &Inject) -> Result<(), Stop> {
        let mut sent = 0;
        let pods: Vec<_> = self
            .cluster
            .stage()
            .pods()
            .filter(|pod| {
                pod.listening && step.from.as_ref().is_none_or(|from| *from == pod.spec.name)
            })
            .map(|pod| pod.spec.clone())
            .collect();
        for pod in pods {
            let agent = self.cluster.agent(&pod.name)?;
            for port in pod
                .serves()
                .iter()
                .filter(|port| port.protocol == Protocol::Tcp)
            {
                for addr in ["0.0.0.0", "::"] {
                    let listener = format!("{}/{:?}/{}/{addr}", pod.name, port.protocol, port.port);
                    sent += agent
                        .inject(Packet::OutOfWindow {
                            listener,
                            peer: None,
                            offset: step.offset.unwrap_or(-100_000),
                            payload: "boom".into(),
                        })
                        .await?;
                }
            }
        }
        self.findings
            .measure("injected packets", "count", f64::from(sent));
        if sent == 0 {
            return Err(Stop::infra(
                "no established connection was there to inject into, so the step proves nothing",
            ));
        }
        Ok(())
    }

    /// A neighbour sends to the node's loopback address and, right behind it and in the same way, to its real one.
    async fn loopback_from_neighbour(&mut self, step: &Inject) -> Result<(), Stop> {
        let (Some(from), Some(node), Some(port)) = (&step.from, &step.node, step.port) else {
            return Err(Stop::infra(
                "loopbackFromNeighbour needs from, node and port",
            ));
        };
        let addresses = self
            .cluster
            .stage()
            .plan()
            .node(node)
            .map(|node| (node.ipv4, node.ipv6))
            .ok_or_else(|| Stop::infra(format!("unknown node '{node}'")))?;
        let agent = self.cluster.agent(from)?;
        for family in cells::families(&self.case.key.axes) {
            let (loopback, via): (IpAddr, IpAddr) = match family {
                oracle::Family::Ipv4 => (Ipv4Addr::LOCALHOST.into(), addresses.0.into()),
                oracle::Family::Ipv6 => (Ipv6Addr::LOCALHOST.into(), addresses.1.into()),
            };
            let loopback = SocketAddr::new(loopback, port);
            let real = SocketAddr::new(via, port);
            let flow = format!("{FLOW} {real}");
            let answers = agent
                .ask_neighbour(AskNeighbour {
                    via,
                    targets: vec![loopback, real],
                    protocol: match step.protocol {
                        Protocol::Tcp => proto::Protocol::Tcp,
                        Protocol::Udp => proto::Protocol::Udp,
                        Protocol::Sctp => proto::Protocol::Sctp,
                    },
                    flow: flow.clone(),
                    timeout_ms: round::PATIENCE_MS,
                })
                .await?;
            let [taken, control] = answers.as_slice() else {
                return Err(Stop::infra("the agent told too little about its packets"));
            };
            if control.is_none() {
                return Err(Stop::infra(format!(
                    "client {from} was not answered by {real} either, so silence at {loopback} proves nothing"
                )));
            }
            self.findings.checked(true);
            let taken = match taken {
                Some(answer) => Some(answer.clone()),
                None => self.took_loopback(&flow).await?,
            };
            if let Some(actual) = taken {
                let expected =
                    format!("nobody to take what client {from} sends to {loopback} on {node}");
                self.findings
                    .fail_with("loopback-reachable", expected, actual);
            }
        }
        Ok(())
    }

    /// Whether a server got the datagram for the loopback address, answered or not.
    async fn took_loopback(&self, flow: &str) -> Result<Option<String>, Stop> {
        let listening = self.cluster.stage().pods().filter(|pod| pod.listening);
        for pod in listening.map(|pod| pod.spec.name.clone()) {
            let got: Vec<proto::Received> = self.cluster.agent(&pod)?.received(flow).await?;
            // The first target is the loopback address.
            if got.iter().any(|received| received.seq == 0) {
                return Ok(Some(format!("{pod} received it")));
            }
        }
        Ok(None)
    }
}
