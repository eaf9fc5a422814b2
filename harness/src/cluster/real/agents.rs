//! Agents in Pods: the framed protocol of [`probe`] over an exec stream.
//!
//! ```text
//!   harness ── HTTPS, WebSocket ──> API server ── HTTPS ──> kubelet ──> container runtime ──> `harness agent` in the Pod
//! ```
//!
//! None of these connections goes to the address of a Service, so the stream lives on while the proxy under test is broken or away. The agent ends
//! with its stream, and its servers with it.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::AttachParams};
use probe::client::Agent;
use tokio::io::AsyncReadExt as _;

use super::super::{ClusterError, infra};

/// Where the program is in our image.
pub const PROGRAM: &str = "/harness";

/// The API server, the kubelet and the container runtime have this long to start a process. On a busy machine it takes seconds.
const STARTED: Duration = Duration::from_secs(60);

/// An agent with whatever it lives by.
pub struct Held {
    agent: Agent,
    _alive: Box<dyn std::any::Any + Send + Sync>,
}

impl Held {
    /// An agent that lives as long as something else does.
    pub fn new(agent: Agent, alive: impl Send + Sync + 'static) -> Self {
        Self {
            agent,
            _alive: Box::new(alive),
        }
    }

    /// A handle to it.
    pub fn handle(&self) -> Agent {
        self.agent.clone()
    }
}

impl Held {
    /// Starts an agent in a Pod that runs our image, and sets its clock.
    pub async fn start(client: &Client, namespace: &str, pod: &str) -> Result<Self, ClusterError> {
        let what = format!("no agent can be started in Pod {namespace}/{pod}");
        let started = tokio::time::timeout(STARTED, Self::exec(client, namespace, pod)).await;
        match started {
            Ok(Ok(agent)) => Ok(agent),
            Ok(Err(error)) => Err(infra(&what)(&error)),
            Err(_) => Err(infra(&what)(&format!(
                "nothing answered within {STARTED:?}"
            ))),
        }
    }

    async fn exec(client: &Client, namespace: &str, pod: &str) -> Result<Self, String> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let started = pods.exec(pod, [PROGRAM, "agent"], &streams()).await;
        let mut process = started.map_err(|error| error.to_string())?;
        let (Some(stdin), Some(stdout)) = (process.stdin(), process.stdout()) else {
            return Err("the API server gave no streams".into());
        };
        let agent = Agent::new(tokio::io::join(stdout, stdin));
        match agent.align_clock().await {
            // Dropped, the process ends the stream and so the agent.
            Ok(_) => Ok(Self::new(agent, process)),
            Err(error) => {
                // What the program or the runtime had to say is the better message.
                let mut said = String::new();
                if let Some(mut stderr) = process.stderr() {
                    let all = stderr.read_to_string(&mut said);
                    let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
                }
                let said = said.trim();
                Err(if said.is_empty() {
                    error.to_string()
                } else {
                    format!("{error}: {said}")
                })
            }
        }
    }
}

/// All three streams of a process in a Pod.
pub(crate) fn streams() -> AttachParams {
    AttachParams::default()
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .max_stdin_buf_size(BUFFER)
        .max_stdout_buf_size(BUFFER)
}

/// Bytes on their way in each direction: a large answer must not wait for every small piece of itself.
const BUFFER: usize = 256 << 10;
