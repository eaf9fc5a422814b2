//! `harness image`.

use std::path::PathBuf;

use clap::Args;

use super::{Exit, Failed, print};
use crate::cluster::real;

/// Write the image of the agents and the reference proxy, for clusters that are not made for a run.
///
/// It is this very program. The archive is an OCI layout and a Docker archive at the same time, and the same program gives the same bytes.
/// Push it to a registry of the cluster's, or load it into its nodes, and name it with --agent-image.
#[derive(Debug, Args)]
pub struct ImageCommand {
    /// The archive.
    #[arg(long, value_name = "FILE", default_value = "harness.tar")]
    out: PathBuf,
}

impl ImageCommand {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let image = real::image::write(&self.out).map_err(Failed::infra)?;
        print(&format!(
            "{}\n{} ({} MiB)\n",
            image.reference,
            image.path.display(),
            image.size >> 20
        ));
        Ok(Exit::Ok)
    }
}
