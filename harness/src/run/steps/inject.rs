//! The verb `inject`: packets that no socket would send.

use probe::proto::Inject as Packet;

use super::super::attempt::{Attempt, Stop};
use crate::scenario::doc::{Inject, InjectKind, Protocol};

impl Attempt<'_> {
    pub(in crate::run) async fn inject(&mut self, step: &Inject) -> Result<(), Stop> {
        let InjectKind::OutOfWindow = step.packet;
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
}
