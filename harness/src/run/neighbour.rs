//! 127.0.0.1 from a neighbour, once per attempt: packets that another node sends to the link-layer address of a node, for a server on
//! its loopback address. A proxy that lets the kernel route them (`route_localnet`, kubernetes#92315) opens what only the node's own
//! processes may reach.
//!
//! A NodePort on the loopback address is no such server: whoever translates it leads to endpoints that everybody reaches at the node's
//! other addresses, as kube-proxy does in iptables mode.
//!
//! The positive control is the same packet for a server at the node's own address. The packets are under way while the steps go on, since
//! what they show does not depend on the objects.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use oracle::{Family, FrontendKind, Protocol};
use probe::{
    client::AgentError,
    proto::{self, AskNeighbour},
};
use reports::event::Failure;
use tokio::task::JoinHandle;

use super::attempt::{Attempt, Stop};

/// One packet and its answer take microseconds; a machine that is slower is asked again.
const TRY_MS: u32 = 300;
/// A server that is silent for so long, at the node's own address, is not slow.
const PATIENCE: Duration = Duration::from_secs(5);

/// The port of the server (echo, which no candidate uses).
const PORT: u16 = 7;
/// Where attempts share a node each has a port of its own, out of those below the node ports that nobody is known by.
const SHARED: std::ops::Range<u16> = 20_000..28_000;

/// A question that is under way.
pub struct Asked {
    /// Who asks whom for what.
    label: String,
    answers: JoinHandle<Result<Vec<Option<String>>, AgentError>>,
}

impl Attempt<'_> {
    /// Asks once a NodePort over TCP has an endpoint.
    pub(super) fn ask_neighbour(&mut self, model: &oracle::Cluster) -> Result<(), Stop> {
        if self.neighbour.is_some() {
            return Ok(());
        }
        let frontends = oracle::frontends(model);
        let found = frontends.iter().find_map(|frontend| {
            let wanted = frontend.kind == FrontendKind::NodePort
                && frontend.family == Family::Ipv4
                && frontend.protocol == Protocol::Tcp;
            let owner = frontend.node.as_deref().filter(|_| wanted)?;
            let other = model.nodes.iter().find(|node| node.name != owner)?;
            let source = oracle::Source::Node {
                name: other.name.clone(),
            };
            let expectation = oracle::expect(model, &source, &frontend.destination());
            let answers = expectation
                .outcomes
                .iter()
                .all(|outcome| matches!(outcome, oracle::Outcome::Endpoints { .. }));
            answers.then(|| (other.name.clone(), owner.to_owned(), frontend))
        });
        let Some((from, owner, frontend)) = found else {
            return Ok(());
        };
        let port = match self.cluster.netns() {
            Some(_) => PORT,
            None => SHARED.start + (self.seed % SHARED.len() as u64) as u16,
        };
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let control = SocketAddr::new(frontend.ip, port);
        let servers = [loopback, control].map(|address| proto::Listener {
            id: format!("neighbour {address}"),
            identity: owner.clone(),
            protocol: proto::Protocol::Tcp,
            addr: address.ip(),
            port,
        });
        let ask = AskNeighbour {
            via: frontend.ip,
            targets: vec![loopback, control],
            protocol: proto::Protocol::Tcp,
            flow: String::new(),
            timeout_ms: TRY_MS,
        };
        let serving = self.cluster.agent(&owner)?;
        let asking = self.cluster.agent(&from)?;
        self.neighbour = Some(Asked {
            label: format!("{from} -> {loopback}/TCP of its neighbour {owner}"),
            answers: tokio::spawn(async move {
                serving.serve(servers.into()).await?;
                let until = Instant::now() + PATIENCE;
                loop {
                    let answers = asking.ask_neighbour(ask.clone()).await?;
                    if taken(&answers).is_ok() || Instant::now() > until {
                        return Ok(answers);
                    }
                }
            }),
        });
        Ok(())
    }

    /// What came back.
    pub(super) async fn neighbour_answered(&mut self) -> Result<(), Stop> {
        let Some(Asked { label, answers }) = self.neighbour.take() else {
            return Ok(());
        };
        let answers = answers.await.map_err(Stop::infra)?;
        let taken = answers
            .map_err(Stop::from)
            .and_then(|answers| match taken(&answers) {
                Ok(taken) => Ok(taken.map(str::to_owned)),
                Err(why) => Err(Stop::infra(format!("{label}: {why}"))),
            });
        let taken = match taken {
            Ok(taken) => taken,
            // Nodes that are not on one link cannot ask each other, and nobody else can then.
            Err(Stop::Infra(why)) if self.cluster.netns().is_none() => {
                self.findings.note(format!("not asked: {why}"));
                return Ok(());
            }
            Err(stop) => return Err(stop),
        };
        self.findings.checked(false);
        if let Some(answer) = taken {
            let expected = "nobody may answer at a node's loopback address from beyond the node";
            self.findings.found(
                Failure {
                    requirements: vec!["SAFE-1".into()],
                    step: None,
                    verb: String::new(),
                    kind: "answered-but-must-not".into(),
                    message: format!("{label}: {expected}, got {answer}"),
                    cell: Some(label),
                    expected: expected.into(),
                    actual: answer,
                },
                self.case.scenario.level,
            );
        }
        Ok(())
    }
}

/// Who answered at the loopback address, if anybody did; an error where silence there shows nothing.
fn taken(answers: &[Option<String>]) -> Result<Option<&str>, String> {
    match answers {
        [Some(answer), _] if !answer.starts_with("RST") => Ok(Some(answer)),
        [_, Some(_)] => Ok(None),
        [_, None] => {
            Err("the same packet to the node's own address was not answered either".into())
        }
        _ => Err(format!("{} answers to two packets", answers.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_only_beside_an_answer() {
        let answer = |text: &str| Some(text.to_owned());
        assert_eq!(taken(&[None, answer("SYN-ACK")]), Ok(None));
        assert_eq!(taken(&[answer("RST from"), answer("SYN-ACK")]), Ok(None));
        assert_eq!(taken(&[answer("SYN-ACK"), None]), Ok(Some("SYN-ACK")));
        assert_eq!(
            taken(&[answer("SYN-ACK"), answer("SYN-ACK")]),
            Ok(Some("SYN-ACK"))
        );
        assert!(taken(&[None, None]).is_err());
        assert!(taken(&[answer("RST from"), None]).is_err());
        assert!(taken(&[]).is_err());
    }
}
