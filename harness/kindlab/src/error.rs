//! What can go wrong with clusters out of containers, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::version::Version;

/// Why a cluster could not be made, used or removed. Each text completes "failed to ...: ", and says what and then what to do.
///
/// Which output of which command means which of these is one table: [`classify`](crate::classify).
#[derive(Debug, Clone, thiserror::Error)]
pub enum KindError {
    /// A program is not on this machine.
    #[error("{program} is not installed: {hint}")]
    NotInstalled {
        /// Its name, or the names of those of which one is needed.
        program: String,
        /// What to do.
        hint: String,
    },
    /// The container engine does not answer.
    #[error(
        "{engine} does not answer: start it (for Docker: `systemctl start docker`), and try `{engine} info`; it said: {detail}"
    )]
    EngineDown {
        /// The engine's program.
        engine: String,
        /// Its own words.
        detail: String,
    },
    /// The engine runs, and this user may not use it.
    #[error(
        "this user may not use {engine}: join its group (for Docker: `sudo usermod -aG docker $USER`, then log in again), or run as root; it said: {detail}"
    )]
    NoPermission {
        /// The engine's program.
        engine: String,
        /// Its own words.
        detail: String,
    },
    /// The engine cannot start privileged containers, out of which nodes are made.
    #[error(
        "{engine} cannot start privileged containers, and nodes are such: try `{engine} run --rm --privileged IMAGE true` until it works \
             (inside a container or sandbox, the engine needs all capabilities itself); it said: {detail}"
    )]
    NoPrivileged {
        /// The engine's program.
        engine: String,
        /// Its own words.
        detail: String,
    },
    /// The kernel lets root have too few inotify instances or watches for this many nodes.
    #[error("{sysctl} is {max}, of which {used} are in use, and {nodes} nodes need about {needed}: \
             `sudo sysctl {sysctl}={}`, or run clusters one after another (`--jobs 1`)", .suggested)]
    TooFewInotify {
        /// The setting: `fs.inotify.max_user_instances` or `fs.inotify.max_user_watches`.
        sysctl: &'static str,
        /// Its value.
        max: u64,
        /// How many are in use, as far as this user can see.
        used: u64,
        /// How many the nodes of the cluster need.
        needed: u64,
        /// The number of nodes.
        nodes: u64,
        /// A value that is enough.
        suggested: u64,
    },
    /// Nodes ran out of inotify instances or open files after all.
    #[error(
        "a node ran out of inotify instances or open files: `sudo sysctl fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=524288`, \
             or run clusters one after another (`--jobs 1`); it said: {detail}"
    )]
    OutOfInotify {
        /// The words of the node or the engine.
        detail: String,
    },
    /// An image is neither on this machine nor can it be pulled.
    #[error(
        "image {image} is not there and cannot be pulled: check its name, pull or load it into the container engine beforehand, \
             or name another one (`--image`); it said: {detail}"
    )]
    ImageMissing {
        /// The image's reference.
        image: String,
        /// The engine's own words.
        detail: String,
    },
    /// An image was loaded, and the nodes do not have it under the name that Pods will use.
    #[error("{reference} was loaded, but {node} does not have it under this name: write the full reference into the archive \
             (`org.opencontainers.image.ref.name`); it has: {}", list(.there))]
    NotLoaded {
        /// The reference that was expected.
        reference: String,
        /// A node that does not have it.
        node: String,
        /// References there that look like it, or all.
        there: Vec<String>,
    },
    /// An image archive is none.
    #[error(
        "the image archive cannot be read: write it again, as OCI or Docker archive; it said: {detail}"
    )]
    BadArchive {
        /// The words of containerd in the node, or of the engine.
        detail: String,
    },
    /// A port that was asked for is taken.
    #[error(
        "port {port} of this machine is in use: end who listens there (`ss -ltnp`), or leave the choice of the port to kind; it said: {detail}"
    )]
    PortInUse {
        /// The port, or `?`.
        port: String,
        /// The engine's own words.
        detail: String,
    },
    /// There is a cluster of that name.
    #[error(
        "there is a cluster or container named {name:?} already: choose another name, use it (`--reuse {name}`), or delete it (`kind delete cluster --name {name}`)"
    )]
    NameTaken {
        /// The cluster's name.
        name: String,
    },
    /// There is no cluster of that name.
    #[error("there is no cluster named {name:?}: {}", clusters(.there))]
    UnknownCluster {
        /// The name that was asked for.
        name: String,
        /// The names of those that exist, if anybody asked.
        there: Option<Vec<String>>,
    },
    /// This kind is too old for what is asked of it.
    #[error("kind {found} is too old, because {why}: install kind {needed} or newer")]
    OldKind {
        /// What is installed.
        found: Version,
        /// What is needed.
        needed: Version,
        /// What needs it.
        why: &'static str,
    },
    /// Creation failed because this machine has cgroup v1.
    #[error(
        "the kubelet refuses cgroup v1, which this machine has: boot with `systemd.unified_cgroup_hierarchy=1`, \
             or use an image of a Kubernetes version that still knows `failCgroupV1: false`; it said: {detail}"
    )]
    CgroupV1 {
        /// The words of the kubelet, kubeadm or kind.
        detail: String,
    },
    /// What was asked for makes no sense to kind or kubeadm.
    #[error(
        "the cluster's configuration is not accepted: correct what it names; it said: {detail}"
    )]
    BadConfig {
        /// Whose word it is, and what it says.
        detail: String,
    },
    /// A disk is full.
    #[error(
        "the disk is full: make room where the container engine keeps its data (`df -h`, `docker system df`, `docker system prune`); it said: {detail}"
    )]
    DiskFull {
        /// The words of whom it hit.
        detail: String,
    },
    /// The container of a node has stopped or was removed.
    #[error(
        "node {node} is gone: its container {state}; see who stopped it (`docker events`, `dmesg` for the OOM killer), and create the cluster again"
    )]
    NodeGone {
        /// The node's name.
        node: String,
        /// What became of it, as in "has exited with code 137".
        state: String,
    },
    /// Something did not happen in time.
    #[error("{what} took {}: the machine is too slow or overloaded, or it hangs; the last words were: {detail}", too_long(.after))]
    Timeout {
        /// The condition that was waited for.
        what: String,
        /// How long it was waited for; none if somebody else waited who does not say.
        after: Option<Duration>,
        /// What was said last, if anything.
        detail: String,
    },
    /// Whoever wanted it no longer does.
    #[error("{what} was interrupted")]
    Cancelled {
        /// What was interrupted.
        what: String,
    },
    /// A file that an image is to be made of will not do.
    #[error("{} cannot be put into an image: {why}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// A file or a process could not be dealt with.
    #[error("failed to {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// How it failed.
        source: std::sync::Arc<io::Error>,
    },
    /// An answer of kind or of the engine was not understood.
    #[error(
        "the answer of `{command}` was not understood ({why}): is it a version that this harness does not know?"
    )]
    Strange {
        /// The command.
        command: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something was done, and what it had made could not be removed.
    #[error(
        "{first}; and what it had made could not be removed ({second}): `harness clean` tries again"
    )]
    LeftBehind {
        /// What went wrong first.
        first: Box<KindError>,
        /// What went wrong with the removal.
        second: Box<KindError>,
    },
    /// Anything else: the command, and its last words.
    #[error("`{command}` {ended}: {detail}")]
    Other {
        /// The command.
        command: String,
        /// How it ended, as in "exited with code 1".
        ended: String,
        /// Its own words.
        detail: String,
    },
}

impl KindError {
    /// The name of the case, as in tables and reports: `EngineDown`, `DiskFull` ...
    pub fn case(&self) -> &'static str {
        match self {
            Self::NotInstalled { .. } => "NotInstalled",
            Self::EngineDown { .. } => "EngineDown",
            Self::NoPermission { .. } => "NoPermission",
            Self::NoPrivileged { .. } => "NoPrivileged",
            Self::TooFewInotify { .. } => "TooFewInotify",
            Self::OutOfInotify { .. } => "OutOfInotify",
            Self::ImageMissing { .. } => "ImageMissing",
            Self::NotLoaded { .. } => "NotLoaded",
            Self::BadArchive { .. } => "BadArchive",
            Self::PortInUse { .. } => "PortInUse",
            Self::NameTaken { .. } => "NameTaken",
            Self::UnknownCluster { .. } => "UnknownCluster",
            Self::OldKind { .. } => "OldKind",
            Self::CgroupV1 { .. } => "CgroupV1",
            Self::BadConfig { .. } => "BadConfig",
            Self::DiskFull { .. } => "DiskFull",
            Self::NodeGone { .. } => "NodeGone",
            Self::Timeout { .. } => "Timeout",
            Self::Cancelled { .. } => "Cancelled",
            Self::BadFile { .. } => "BadFile",
            Self::System { .. } => "System",
            Self::Strange { .. } => "Strange",
            Self::LeftBehind { .. } => "LeftBehind",
            Self::Other { .. } => "Other",
        }
    }

    /// Whether the user asked for something that cannot be (exit code 2), rather than that the machine is in the way (exit code 4).
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::NameTaken { .. }
                | Self::UnknownCluster { .. }
                | Self::BadConfig { .. }
                | Self::BadArchive { .. }
                | Self::BadFile { .. }
        )
    }

    pub(crate) fn system(what: impl Into<String>, source: io::Error) -> Self {
        if source.raw_os_error() == Some(libc::ENOSPC)
            || source.raw_os_error() == Some(libc::EDQUOT)
        {
            return Self::DiskFull {
                detail: format!("{}: {source}", what.into()),
            };
        }
        Self::System {
            what: what.into(),
            source: std::sync::Arc::new(source),
        }
    }
}

/// What crate-wide functions return.
pub type Result<T, E = KindError> = std::result::Result<T, E>;

/// Something that works and will not for long, or costs something: said once, before a cluster is made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// The engine has cgroup v1.
    #[error(
        "this machine has cgroup v1, which Kubernetes gives up: the kubelets are told `failCgroupV1: false`; \
             boot with `systemd.unified_cgroup_hierarchy=1` to get cgroup v2"
    )]
    CgroupV1,
    /// A value of `KIND_EXPERIMENTAL_PROVIDER` that kind ignores.
    #[error(
        "KIND_EXPERIMENTAL_PROVIDER={0:?} is ignored, as kind ignores it: it knows docker, podman, nerdctl, finch and nerdctl.lima"
    )]
    UnknownProvider(String),
}

fn too_long(after: &Option<Duration>) -> String {
    match after {
        Some(after) => format!("longer than {} s", after.as_secs()),
        None => "too long".to_owned(),
    }
}

fn clusters(there: &Option<Vec<String>>) -> String {
    match there {
        Some(names) => format!("there is {}", list(names)),
        None => "`kind get clusters` lists those that exist".to_owned(),
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
