//! `harness clean`.

use clap::Args;
use kindlab::{CleanSpec, Cleaned, Life, Options, Owned};

use super::{Exit, Failed, print, runtime};

/// Remove what a crash may have left behind: worlds, of which there should be none, since a world ends with the harness that made it, and kind clusters. Only
/// what a harness made is removed, and nothing of a harness that is running.
#[derive(Debug, Args)]
pub struct Clean {
    /// Also kind clusters that were kept with `--keep`
    #[arg(long)]
    all: bool,
    /// Only the kind clusters of these names, kept or not
    #[arg(value_name = "CLUSTER")]
    clusters: Vec<String>,
}

impl Clean {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let mut lines = Vec::new();
        if self.clusters.is_empty() {
            lines.extend(netlab::clean().iter().map(|leftover| {
                format!(
                    "ended process {} of world {} (its harness, process {}, is gone)\n",
                    leftover.pid, leftover.world, leftover.harness
                )
            }));
        }
        // Worlds are gone whatever becomes of the clusters, and that is said first.
        print(&lines.concat());
        let spec = CleanSpec {
            all: self.all,
            names: self.clusters.clone(),
        };
        let cleaned = runtime()?
            .block_on(kindlab::clean(Options::default(), spec))
            .map_err(|error| Failed::infra(format!("failed to look for kind clusters: {error}")))?;
        print(&clusters(&cleaned));
        if lines.is_empty()
            && cleaned.removed.is_empty()
            && cleaned.left.is_empty()
            && self.clusters.is_empty()
        {
            print("nothing was left behind\n");
        }
        self.judge(&cleaned)
    }

    fn judge(&self, cleaned: &Cleaned) -> Result<Exit, Failed> {
        if let Some((cluster, error)) = cleaned.failed.first() {
            return Err(Failed::infra(format!(
                "failed to delete cluster {}: {error}",
                cluster.name
            )));
        }
        if let Some(name) = cleaned.unknown.first() {
            return Err(Failed::usage(format!(
                "{name:?} is no cluster that a harness made: `kind get clusters` lists all, and `kind delete cluster --name NAME` deletes one"
            )));
        }
        // Those that were named were to be deleted; of the others, these are only mentioned.
        match cleaned.left.first() {
            Some((cluster, reason)) if !self.clusters.is_empty() => Err(Failed::usage(format!(
                "cluster {} is not deleted, because {reason} ({}): end it first",
                cluster.name, cluster.harness
            ))),
            _ => Ok(Exit::Ok),
        }
    }
}

fn clusters(cleaned: &Cleaned) -> String {
    let mut lines = String::new();
    for cluster in &cleaned.removed {
        lines += &format!("deleted cluster {} ({})\n", cluster.name, of(cluster));
    }
    for (cluster, reason) in &cleaned.left {
        let more = match cluster.life {
            Life::Alive => String::new(),
            _ => format!("; `harness clean {}` deletes it", cluster.name),
        };
        lines += &format!(
            "left cluster {} alone, because {reason} ({}){more}\n",
            cluster.name, cluster.harness
        );
    }
    lines
}

fn of(cluster: &Owned) -> String {
    match cluster.life {
        Life::Gone if cluster.kept => format!("it was kept by {}", cluster.harness),
        Life::Gone => format!("its harness, {}, is gone", cluster.harness),
        _ => format!("its harness was {}", cluster.harness),
    }
}
