//! A running cluster: its nodes, what is loaded into them and done in them, and its end.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::engine::Engine;
use crate::error::{KindError, Result};
use crate::image::is_by_content;
use crate::lab::Tools;
use crate::log::Ended;
use crate::off::off;
use crate::outside::{self, Outside, OutsideSpec};
use crate::owned;
use crate::private::Private;
use crate::remove::KIND_LABEL;

/// The label with which kind says what a container is of a cluster.
const ROLE_LABEL: &str = "io.x-k8s.kind.role";

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It runs the API server.
    ControlPlane,
    /// It runs Pods only.
    Worker,
}

/// A node of a cluster and its container, as they were when they were looked at. Addresses change when containers are stopped and started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name in Kubernetes, which is also that of its container.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Its IPv4 address in kind's network.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address in kind's network.
    pub ipv6: Option<Ipv6Addr>,
    /// Whether its container runs.
    pub running: bool,
    /// What its container does, as in "has exited with code 137".
    pub state: String,
    /// The engine's network that it is in.
    pub network: String,
}

impl Node {
    pub(crate) fn gone(&self) -> KindError {
        KindError::NodeGone {
            node: self.name.clone(),
            state: self.state.clone(),
        }
    }
}

/// What a command in a node wrote, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code, as the engine passes it on.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Ran {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A cluster that is running. One that was created is deleted with it: by [`delete`](Self::delete), which can fail and say so, and otherwise when it is
/// dropped, which blocks for the seconds that it takes. One that was opened stays.
///
/// A process that ends without dropping it (`kill -9`, `std::process::exit`) leaves the cluster behind for `harness clean`.
#[derive(Debug)]
pub struct Cluster(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    tools: Tools,
    name: String,
    private: Private,
    made: bool,
    /// The marker of a cluster that was opened.
    visit: Option<String>,
    kept: AtomicBool,
    deleted: AtomicBool,
    outsiders: AtomicU32,
    /// The names of the nodes when it was made, to miss one that was removed.
    nodes: Mutex<Vec<String>>,
}

impl Cluster {
    pub(crate) fn made(tools: Tools, name: String, private: Private) -> Self {
        Self::new(tools, name, private, true, None)
    }

    pub(crate) fn opened(tools: Tools, name: String, private: Private, visit: String) -> Self {
        Self::new(tools, name, private, false, Some(visit))
    }

    fn new(
        tools: Tools,
        name: String,
        private: Private,
        made: bool,
        visit: Option<String>,
    ) -> Self {
        Self(Arc::new(Inner {
            tools: tools.to_the_end(),
            name,
            private,
            made,
            visit,
            kept: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
            outsiders: AtomicU32::new(0),
            nodes: Mutex::default(),
        }))
    }

    pub(crate) fn private(&self) -> &Private {
        &self.0.private
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its private kubeconfig (mode 0600), which is there as long as the cluster is open or kept.
    ///
    /// The server in it is an address of the machine on which the engine publishes ports: `https://127.0.0.1:PORT`. If the engine runs in a network namespace
    /// of its own, that address is one of that namespace; port 6443 of the control-plane node's address ([`nodes`](Self::nodes)) is the API server
    /// wherever kind's network can be reached, and its certificate is valid for that address, too.
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.private.file("kubeconfig")
    }

    /// Whether it was created here, rather than opened.
    pub fn is_made(&self) -> bool {
        self.0.made
    }

    /// Its nodes, the control plane first. Containers that were removed are missing here; [`check_nodes`](Self::check_nodes) misses them.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        let inner = self.0.clone();
        off(move |cancel| nodes(&inner.tools.engine.under(cancel), &inner.name)).await
    }

    /// An error if a node's container is not running or no longer there, since the first look.
    pub async fn check_nodes(&self) -> Result<Vec<Node>> {
        let now = self.nodes().await?;
        let mut known = self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() {
            *known = now.iter().map(|node| node.name.clone()).collect();
        }
        if let Some(node) = now.iter().find(|node| !node.running) {
            return Err(node.gone());
        }
        match known
            .iter()
            .find(|name| !now.iter().any(|node| node.name == **name))
        {
            None => Ok(now),
            Some(name) => Err(KindError::NodeGone {
                node: name.clone(),
                state: "was removed".to_owned(),
            }),
        }
    }

    /// Waits until the container of a node ends or is removed, and says which and how. For use beside something else: when that is done first, drop this.
    /// Ends without an answer after `within`.
    pub async fn node_gone(&self, within: Duration) -> Result<Option<KindError>> {
        let nodes = match self.check_nodes().await {
            Ok(nodes) => nodes,
            Err(gone @ KindError::NodeGone { .. }) => return Ok(Some(gone)),
            Err(error) => return Err(error),
        };
        let mut waits = JoinSet::new();
        for node in nodes {
            let engine = self.0.tools.engine.clone();
            waits.spawn(off(move |cancel| {
                engine.under(cancel).wait(&node.name, within)
            }));
        }
        while let Some(ended) = waits.join_next().await {
            match ended {
                Ok(Ok(finished)) if finished.ended == Ended::Deadline => {}
                Ok(Ok(_)) => match self.check_nodes().await {
                    Err(gone @ KindError::NodeGone { .. }) => return Ok(Some(gone)),
                    Err(error) => return Err(error),
                    // It was restarted at once; whoever did that will have known why.
                    Ok(_) => {}
                },
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(None)
    }

    /// Loads an image archive into all nodes and looks whether they have it under the name that Pods will use. An image whose name has its digest in it
    /// ([`Image`](crate::Image)) is not loaded again where it is.
    ///
    /// # Errors
    /// `NotLoaded` if the archive does not say its name, or another one.
    pub async fn load_archive(&self, archive: &Path, reference: &str) -> Result<()> {
        let (inner, archive, reference) =
            (self.0.clone(), archive.to_owned(), reference.to_owned());
        off(move |cancel| {
            let tools = inner.tools.under(cancel);
            let nodes = nodes(&tools.engine, &inner.name)?;
            if is_by_content(&reference) && missing(&tools.engine, &nodes, &reference)?.is_none() {
                return Ok(());
            }
            tools.kind.load(&inner.name, &archive)?;
            match missing(&tools.engine, &nodes, &reference)? {
                None => Ok(()),
                Some((node, there)) => Err(KindError::NotLoaded {
                    reference,
                    node,
                    there,
                }),
            }
        })
        .await
    }

    /// Loads an image archive of somebody else's into all nodes. What names it gives its images is not looked at.
    pub async fn load_foreign_archive(&self, archive: &Path) -> Result<()> {
        let (inner, archive) = (self.0.clone(), archive.to_owned());
        off(move |cancel| inner.tools.under(cancel).kind.load(&inner.name, &archive)).await
    }

    /// The references of all images on a node.
    pub async fn images(&self, node: &str) -> Result<Vec<String>> {
        let (inner, node) = (self.0.clone(), node.to_owned());
        off(move |cancel| images(&inner.tools.engine.under(cancel), &node)).await
    }

    /// Runs a command in a node, as root with all privileges. That the command failed is not an error.
    ///
    /// # Errors
    /// `NodeGone`, and `Timeout` at the deadline: the command in the node may go on then.
    pub async fn node_exec(
        &self,
        node: &str,
        argv: &[&str],
        stdin: Option<Vec<u8>>,
        deadline: Duration,
    ) -> Result<Ran> {
        let inner = self.0.clone();
        let node = node.to_owned();
        let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        off(move |cancel| {
            let engine = inner.tools.engine.under(cancel);
            let finished = engine.exec(&node, &argv, stdin, deadline)?;
            let code = match finished.ended {
                Ended::Exited(code) => code,
                _ => return Err(finished.error()),
            };
            // The engine's own failures look like the command's.
            if code != 0
                && let Some(gone) = gone(&engine, &node)?
            {
                return Err(gone);
            }
            Ok(Ran {
                code: Some(code),
                stdout: finished.stdout,
                stderr: finished.stderr,
            })
        })
        .await
    }

    /// Copies a file of this machine into a node.
    pub async fn copy_to_node(&self, from: &Path, node: &str, to: &str) -> Result<()> {
        let (inner, from, node, to) = (
            self.0.clone(),
            from.to_owned(),
            node.to_owned(),
            to.to_owned(),
        );
        off(move |cancel| {
            inner
                .tools
                .engine
                .under(cancel)
                .copy_into(&from, &node, &to)
        })
        .await
    }

    /// Stops the container of a node, as `docker stop` does.
    pub async fn stop_node(&self, node: &str) -> Result<()> {
        let (inner, node) = (self.0.clone(), node.to_owned());
        off(move |cancel| inner.tools.engine.under(cancel).stop(&node)).await
    }

    /// Starts the container of a node again. Its addresses may be others afterwards.
    pub async fn start_node(&self, node: &str) -> Result<()> {
        let (inner, node) = (self.0.clone(), node.to_owned());
        off(move |cancel| inner.tools.engine.under(cancel).start(&node)).await
    }

    /// Starts a container outside of the cluster, on kind's network; see [`Outside`]. Its image has to be in the engine
    /// ([`load_into_engine`](crate::Kind::load_into_engine)).
    pub async fn outside(&self, spec: OutsideSpec) -> Result<Outside> {
        let number = self.0.outsiders.fetch_add(1, Ordering::Relaxed);
        let network = self
            .nodes()
            .await?
            .into_iter()
            .map(|node| node.network)
            .find(|network| !network.is_empty())
            .unwrap_or_else(|| "kind".to_owned());
        let name = format!("{}-outside-{}-{number}", self.0.name, std::process::id());
        outside::start(&self.0.tools.engine, &self.0.name, name, &network, spec).await
    }

    /// Writes the logs of all nodes and all Pods into a directory, as `kind export logs`.
    pub async fn export_logs(&self, directory: &Path) -> Result<()> {
        let (inner, directory) = (self.0.clone(), directory.to_owned());
        off(move |cancel| {
            inner
                .tools
                .under(cancel)
                .kind
                .export_logs(&inner.name, &directory)
        })
        .await
    }

    /// Lets the cluster live on when this is dropped and when the harness has ended, with its kubeconfig. `harness clean` deletes it with `--all`, or if it is
    /// named.
    pub async fn keep(&self) -> Result<()> {
        if !self.0.made || self.0.kept.load(Ordering::SeqCst) {
            return Ok(());
        }
        let inner = self.0.clone();
        off(move |_| {
            owned::keep(&inner.tools.engine, &inner.name)?;
            inner.kept.store(true, Ordering::SeqCst);
            Ok(())
        })
        .await
    }

    /// Deletes the cluster and everything that belongs to it, also if it was opened or kept. Once begun, it is done to its end. A second time is not an error.
    pub async fn delete(&self) -> Result<()> {
        let inner = self.0.clone();
        off(move |_| inner.delete()).await
    }
}

impl Inner {
    fn delete(&self) -> Result<()> {
        if self.deleted.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.tools.remove(&self.name, self.private.path())?;
        self.deleted.store(true, Ordering::SeqCst);
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.deleted.load(Ordering::SeqCst) || self.kept.load(Ordering::SeqCst) {
            return;
        }
        if self.made {
            if let Err(error) = self.delete() {
                tracing::error!(cluster = %self.name, %error, "failed to delete a cluster; `harness clean` tries again");
            }
            return;
        }
        if let Some(marker) = &self.visit {
            // A marker that stays behind is removed by `harness clean`, which sees that this process is gone.
            if let Err(error) = self
                .tools
                .engine
                .remove_volumes(std::slice::from_ref(marker))
            {
                tracing::warn!(cluster = %self.name, %error, "failed to say that a cluster is no longer used");
            }
        }
        self.private.remove();
    }
}

/// The nodes of a cluster, the control plane first.
pub(crate) fn nodes(engine: &Engine, cluster: &str) -> Result<Vec<Node>> {
    let names = engine.ps(&format!("{KIND_LABEL}={cluster}"))?;
    let mut nodes: Vec<Node> = engine
        .inspect(&names)?
        .into_iter()
        .filter_map(|container| {
            let role = match container.labels.get(ROLE_LABEL).map(String::as_str) {
                Some("control-plane") => Role::ControlPlane,
                Some("worker") => Role::Worker,
                // The load balancer before several control planes is no node.
                _ => return None,
            };
            let (network, (ipv4, ipv6)) = container
                .networks
                .iter()
                .next()
                .map(|(name, addresses)| (name.clone(), *addresses))
                .unwrap_or_default();
            Some(Node {
                state: container.state(),
                name: container.name,
                role,
                ipv4,
                ipv6,
                running: container.running,
                network,
            })
        })
        .collect();
    nodes.sort_by(|a, b| {
        (a.role, number(&a.name), &a.name).cmp(&(b.role, number(&b.name), &b.name))
    });
    Ok(nodes)
}

/// `NAME-worker`, `NAME-worker2`, `NAME-worker10`: in the order in which kind counts.
fn number(name: &str) -> u32 {
    let digits = name.len()
        - name
            .trim_end_matches(|char: char| char.is_ascii_digit())
            .len();
    name[name.len() - digits..].parse().unwrap_or(1)
}

fn gone(engine: &Engine, node: &str) -> Result<Option<KindError>> {
    let found = engine.inspect(&[node.to_owned()])?;
    let state = match found.first() {
        Some(container) if container.running => return Ok(None),
        Some(container) => container.state(),
        None => "does not exist".to_owned(),
    };
    Ok(Some(KindError::NodeGone {
        node: node.to_owned(),
        state,
    }))
}

fn images(engine: &Engine, node: &str) -> Result<Vec<String>> {
    let argv = ["ctr", "--namespace=k8s.io", "images", "ls", "-q"].map(str::to_owned);
    Ok(engine
        .exec(node, &argv, None, Duration::from_secs(60))?
        .success()?
        .lines())
}

/// A node that does not have an image, and what it has instead.
fn missing(
    engine: &Engine,
    nodes: &[Node],
    reference: &str,
) -> Result<Option<(String, Vec<String>)>> {
    for node in nodes {
        let there = images(engine, &node.name)?;
        if there.iter().any(|image| image == reference) {
            continue;
        }
        // Names that containerd makes up for archives without one begin with "import-".
        let tail = reference.rsplit('/').next().unwrap_or(reference);
        let similar: Vec<String> = there
            .iter()
            .filter(|image| image.starts_with("import-") || image.contains(tail))
            .cloned()
            .collect();
        return Ok(Some((
            node.name.clone(),
            if similar.is_empty() { there } else { similar },
        )));
    }
    Ok(None)
}
