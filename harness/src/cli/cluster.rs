//! `harness cluster`: a world with a candidate in it, to look around in.

use std::process::ExitStatus;

use clap::{Args, Subcommand};

use super::{Exit, Failed, print, runtime};
use crate::{
    candidate::Candidate,
    cluster::{ClusterError, NetnsCluster, Settings, real::existing},
    scenario::read_documents,
};

/// Clusters to look around in.
#[derive(Debug, Args)]
pub struct Cluster {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build a world with the candidate running and open a shell on its first node; everything is gone when it ends.
    Up(Up),
    /// Print the ClusterRole with all that `--provider kubeconfig` needs of a cluster where the candidate is installed already, and a
    /// ServiceAccount that has it. Who installs a candidate needs the rights to make its objects, too.
    Rbac(Rbac),
}

#[derive(Debug, Args)]
struct Rbac {
    /// Namespace of the ServiceAccount `harness`.
    #[arg(long, default_value = "default", value_name = "NAME")]
    namespace: String,
}

#[derive(Debug, Args)]
struct Up {
    /// `reference`, `null`, or the path of a candidate manifest.
    #[arg(long, default_value = "reference", value_name = "FILE|reference|null")]
    candidate: String,
    /// A scenario document whose topology and objects are used instead of the built-in ones.
    #[arg(long, value_name = "FILE")]
    scenario: Option<std::path::PathBuf>,
    /// Node on which the shell runs.
    #[arg(long, default_value = "node1")]
    node: String,
    /// Run this instead of an interactive shell, and exit with its success.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Two nodes, two endpoints, a client, and a Service with every kind of frontend.
const WORLD: &str = include_str!("world.yaml");

impl Cluster {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        match self.command {
            Command::Up(up) => up.run(),
            Command::Rbac(rbac) => rbac.run(),
        }
    }
}

impl Rbac {
    fn run(self) -> Result<Exit, Failed> {
        let documents = existing::rbac(&self.namespace);
        let texts = documents.iter().map(serde_saphyr::to_string);
        let texts: Vec<String> = texts.collect::<Result<_, _>>().map_err(Failed::infra)?;
        print(&texts.join("---\n"));
        Ok(Exit::Ok)
    }
}

impl Up {
    fn run(self) -> Result<Exit, Failed> {
        let candidate = Candidate::load(&self.candidate)?;
        let documents = match &self.scenario {
            Some(path) => crate::scenario::read_file(path)?,
            None => read_documents("world.yaml", WORLD)?,
        };
        let document = &documents[0];
        let case = document.resolve(&document.cases[0])?;
        runtime()?.block_on(async {
            let failed = |error: ClusterError| Failed::infra(error);
            let mut cluster = NetnsCluster::build(&case, &candidate, Settings::default()).await.map_err(failed)?;
            cluster.start_candidate().await.map_err(failed)?;
            let interactive = self.command.is_empty();
            if interactive {
                eprintln!(
                    "a world with {} on {} nodes; this shell is on {}, KUBECONFIG is set (try: kubectl get svc,endpointslices,nodes)\n\
                     leave the shell and everything is gone",
                    candidate.manifest.name,
                    cluster.stage().nodes().len(),
                    self.node
                );
            }
            let argv = if interactive { vec!["/bin/sh".to_owned(), "-i".to_owned()] } else { self.command };
            let status = shell(&cluster, &self.node, argv).await.map_err(Failed::infra);
            cluster.shutdown().await;
            let status = status?;
            if !interactive && !status.success() {
                print(&format!("the command ended with {status}\n"));
                return Ok(Exit::NotConformant);
            }
            Ok(Exit::Ok)
        })
    }
}

/// Runs a command on a node, on this process's terminal, with what somebody who looks around needs.
pub(super) async fn shell(
    cluster: &NetnsCluster,
    node: &str,
    argv: Vec<String>,
) -> Result<ExitStatus, netlab::WorldError> {
    let variable = |name: &str, default: &str| {
        let value = std::env::var(name).unwrap_or_else(|_| default.to_owned());
        (name.to_owned(), value)
    };
    let kubeconfig = cluster
        .stage()
        .api()
        .kubeconfig("admin", cluster.api_address());
    let spec = netlab::ProcessSpec {
        argv,
        env: vec![
            variable("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            variable("TERM", "dumb"),
            ("KUBECONFIG".into(), "/run/kubeconfig".into()),
            ("HOME".into(), "/tmp".into()),
            ("PS1".into(), format!("{node} # ")),
        ],
        files: vec![netlab::FileSpec {
            path: "/run/kubeconfig".into(),
            content: kubeconfig.into_bytes(),
            mode: 0o600,
        }],
        cwd: Some("/tmp".into()),
        exe: None,
    };
    cluster.world().shell(node, spec).await
}
