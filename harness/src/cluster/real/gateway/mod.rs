//! The way from the candidate to the API server, which a scenario may break.
//!
//! ```text
//!   candidate on a node ──> CONTROL-PLANE:16443 ──> API server
//!                           │ `harness gateway`, in a Pod with the node's network
//!   harness ── exec stream ─┘ (past Services, as all agents are)
//! ```
//!
//! What is broken, and how, is the code of the embedded API ([`apiserver::Faults`]), in front of a real one ([`apiserver::Gateway`]). Only who is told
//! this address goes through it: the candidate, by the variables `$(API_SERVER_...)` of its manifest. Kubelets, controllers and the harness
//! itself do not.

pub mod process;
mod wire;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use apiserver::Switch;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::AttachedProcess};
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
        BufReader,
    },
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{
    super::{ClusterError, infra},
    agents::{PROGRAM, streams},
    manifests, pods,
    site::POLL,
};
pub use wire::Seen;
use wire::{Answer, Ask, Config};

/// Beside the API server's own port, below what kernels give away and what NodePorts have.
const PORTS: (u16, u16) = (16_443, 16_542);

/// The API server, the kubelet and the container runtime have this long to start a process.
const STARTED: Duration = Duration::from_secs(60);

/// The gateway answers at once; on a busy machine the stream to it takes its time.
const ANSWERED: Duration = Duration::from_secs(30);

/// So long clients may take until they watch again after the API was broken: client-go waits up to half a minute after several failures.
const BACK: Duration = Duration::from_secs(60);

type Writer = Box<dyn AsyncWrite + Send + Unpin>;
type Reader = tokio::io::Lines<BufReader<Box<dyn AsyncRead + Send + Unpin>>>;

/// A gateway in a Pod. It lives as long as this.
pub struct Gateway {
    port: u16,
    channel: Mutex<(Writer, Reader)>,
    /// The stream ends with it, and the process with the stream.
    _process: AttachedProcess,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a gateway at port {}", self.port)
    }
}

impl Gateway {
    /// Starts one on a node of the control plane of a cluster that kubeadm made, in a namespace of its own.
    ///
    /// # Errors
    /// [`ClusterError::Infra`], always.
    pub async fn start(
        client: &Client,
        run: &str,
        image: &str,
        node: &str,
        api_port: u16,
    ) -> Result<Self, ClusterError> {
        let namespace = format!("{run}-api");
        pods::make_namespace(client, &namespace, run).await?;
        let pod = manifests::gateway(node, &namespace, image, run);
        pods::run(client, &namespace, vec![pod]).await?;
        let config = Config {
            upstream: format!("https://127.0.0.1:{api_port}"),
            server_name: "kubernetes".into(),
            pki: manifests::PKI.into(),
            ports: PORTS,
        };
        let what = "no gateway to the API can be started";
        let started = timeout(STARTED, Self::exec(client, &namespace, &config)).await;
        let started =
            started.map_err(|_| infra(what)(&format!("nothing answered within {STARTED:?}")))?;
        started.map_err(|error| infra(what)(&error))
    }

    async fn exec(client: &Client, namespace: &str, config: &Config) -> Result<Self, String> {
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let config = serde_json::to_string(config).map_err(|error| error.to_string())?;
        let command = [PROGRAM, SUBCOMMAND, &config];
        let started = api.exec(manifests::GATEWAY, command, &streams()).await;
        let mut process = started.map_err(|error| error.to_string())?;
        let (Some(stdin), Some(stdout)) = (process.stdin(), process.stdout()) else {
            return Err("the API server gave no streams".into());
        };
        let stdout: Box<dyn AsyncRead + Send + Unpin> = Box::new(stdout);
        let mut lines = BufReader::new(stdout).lines();
        let first = lines.next_line().await.map_err(|error| error.to_string())?;
        let Some(first) = first else {
            let mut said = String::new();
            if let Some(mut stderr) = process.stderr() {
                let all = stderr.read_to_string(&mut said);
                let _ = timeout(Duration::from_secs(1), all).await;
            }
            return Err(format!("it ended at once: {}", said.trim()));
        };
        match serde_json::from_str(&first) {
            Ok(Answer::Serves(port)) => Ok(Self {
                port,
                channel: Mutex::new((Box::new(stdin), lines)),
                _process: process,
            }),
            _ => Err(format!("it began with {first}")),
        }
    }

    /// Where it listens, on its node.
    pub fn port(&self) -> u16 {
        self.port
    }

    async fn ask(&self, ask: &Ask) -> Result<Answer, ClusterError> {
        let mut channel = self.channel.lock().await;
        let (writer, reader) = &mut *channel;
        let talk = async {
            let mut line = serde_json::to_string(ask)?;
            line.push('\n');
            writer.write_all(line.as_bytes()).await?;
            writer.flush().await?;
            let Some(line) = reader.next_line().await? else {
                return Err(std::io::Error::other("it ended"));
            };
            Ok(serde_json::from_str(&line)?)
        };
        let what = "the gateway to the API";
        let answer: std::io::Result<Answer> = timeout(ANSWERED, talk)
            .await
            .map_err(|_| infra(what)(&format!("nothing answered within {ANSWERED:?}")))?;
        match answer {
            Ok(Answer::Failed(message)) => Err(infra(what)(&message)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(infra(what)(&error)),
        }
    }

    async fn done(&self, ask: &Ask) -> Result<usize, ClusterError> {
        match self.ask(ask).await? {
            Answer::Done(concerned) => Ok(concerned),
            other => Err(infra("the gateway to the API")(&format!(
                "it says {other:?}"
            ))),
        }
    }

    /// Does something to the API.
    pub async fn throw(&self, switch: Switch) -> Result<usize, ClusterError> {
        self.done(&Ask::Throw(switch)).await
    }

    /// What it has seen so far.
    pub async fn seen(&self) -> Result<Seen, ClusterError> {
        match self.ask(&Ask::Look).await? {
            Answer::Seen(seen) => Ok(seen),
            other => Err(infra("the gateway to the API")(&format!(
                "it says {other:?}"
            ))),
        }
    }

    /// The API goes away. Answers how many connections were reset.
    pub async fn stop(&self) -> Result<usize, ClusterError> {
        self.done(&Ask::Stop).await
    }

    /// The API is back.
    pub async fn resume(&self) -> Result<(), ClusterError> {
        self.done(&Ask::Resume).await.map(drop)
    }

    /// Ends all faults, and waits until its clients have as many watches as they had. Answers the addresses of those that have not.
    pub async fn heal(
        &self,
        before: &BTreeMap<IpAddr, usize>,
    ) -> Result<Vec<IpAddr>, ClusterError> {
        self.throw(Switch::Clear).await?;
        self.resume().await?;
        let until = Instant::now() + BACK;
        loop {
            let now = self.seen().await?.watches;
            let missing: Vec<IpAddr> = missing(before, &now);
            if missing.is_empty() || Instant::now() > until {
                return Ok(missing);
            }
            // A poll of a condition with a deadline.
            sleep(POLL).await;
        }
    }
}

/// Whose watches are fewer than they were.
fn missing(before: &BTreeMap<IpAddr, usize>, now: &BTreeMap<IpAddr, usize>) -> Vec<IpAddr> {
    let fewer = before
        .iter()
        .filter(|(ip, count)| now.get(*ip).copied().unwrap_or_default() < **count);
    fewer.map(|(ip, _)| *ip).collect()
}

/// The part of the harness's program that it is.
pub const SUBCOMMAND: &str = "gateway";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_fewer_watches_is_missing() {
        let of = |all: &[(&str, usize)]| -> BTreeMap<IpAddr, usize> {
            let all = all.iter();
            all.map(|(ip, count)| (ip.parse().unwrap(), *count))
                .collect()
        };
        let before = of(&[("172.18.0.2", 3), ("fc00::3", 3), ("172.18.0.4", 0)]);
        assert_eq!(missing(&before, &before), Vec::<IpAddr>::new());
        let now = of(&[("172.18.0.2", 2), ("172.18.0.9", 3)]);
        let missing: Vec<String> = missing(&before, &now)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(missing, ["172.18.0.2", "fc00::3"]);
    }
}
