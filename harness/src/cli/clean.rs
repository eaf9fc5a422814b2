//! `harness clean`.

use clap::Args;

use super::{Exit, Failed, print};

/// Remove what a crash may have left behind. There should be nothing: a world ends with the harness that made it.
#[derive(Debug, Args)]
pub struct Clean {}

impl Clean {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let removed = netlab::clean();
        if removed.is_empty() {
            print("nothing was left behind\n");
        }
        for leftover in removed {
            print(&format!(
                "ended process {} of world {} (its harness, process {}, is gone)\n",
                leftover.pid, leftover.world, leftover.harness
            ));
        }
        Ok(Exit::Ok)
    }
}
