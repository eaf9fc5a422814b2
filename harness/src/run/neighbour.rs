//! 127.0.0.1 from a neighbour, once per attempt: packets that another node sends to the link-layer address of a node, for a server on
//! its loopback address. A proxy that lets the kernel route them (`route_localnet`, kubernetes#92315) opens what only the node's own
//! processes may reach.
//!
//! A NodePort on the loopback address is no such server: whoever translates it leads to endpoints that everybody reaches at the node's
//! other addresses, as kube-proxy does in iptables mode. It is the positive control, at the node's own address.
//!
//! The packets are under way while the steps go on, since what they show does not depend on the objects.

use std::net::{Ipv4Addr, SocketAddr};

use oracle::{Family, FrontendKind, Protocol};
use probe::{
    client::AgentError,
    proto::{self, AskNeighbour},
};
use reports::event::Failure;
use tokio::task::JoinHandle;

use super::attempt::{Attempt, Stop};

/// For the positive control, the same packet to the node's own address; where nobody answers it, nothing is shown.
const PATIENCE_MS: u32 = 300;

/// The port of the server (echo, which no candidate uses).
const PORT: u16 = 7;

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
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let server = proto::Listener {
            id: "loopback".into(),
            identity: "loopback".into(),
            protocol: proto::Protocol::Tcp,
            addr: loopback.ip(),
            port: PORT,
        };
        let ask = AskNeighbour {
            via: frontend.ip,
            targets: vec![loopback, SocketAddr::new(frontend.ip, frontend.port)],
            protocol: proto::Protocol::Tcp,
            flow: String::new(),
            timeout_ms: PATIENCE_MS,
        };
        let serving = self.cluster.agent(&owner)?;
        let asking = self.cluster.agent(&from)?;
        self.neighbour = Some(Asked {
            label: format!("{from} -> {loopback}/TCP of its neighbour {owner}"),
            answers: tokio::spawn(async move {
                serving.serve(vec![server]).await?;
                asking.ask_neighbour(ask).await
            }),
        });
        Ok(())
    }

    /// What came back.
    pub(super) async fn neighbour_answered(&mut self) -> Result<(), Stop> {
        let Some(Asked { label, answers }) = self.neighbour.take() else {
            return Ok(());
        };
        let answers = match answers.await {
            Ok(answers) => answers?,
            Err(error) => return Err(Stop::infra(error)),
        };
        let [loopback, control] = answers.as_slice() else {
            return Err(Stop::infra(format!("{label}: {} answers", answers.len())));
        };
        if control.is_none() {
            self.findings.note(format!(
                "{label}: nothing is shown, the node's own address was silent too"
            ));
            return Ok(());
        }
        self.findings.checked(false);
        if let Some(answer) = loopback
            .as_ref()
            .filter(|answer| !answer.starts_with("RST"))
        {
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
                    actual: answer.clone(),
                },
                self.case.scenario.level,
            );
        }
        Ok(())
    }
}
