//! The `kind` command, typed. Every flag that makes it touch something of the user's is set: the kubeconfig is always a private one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{KindError, Result};
use crate::run::{Cancel, Invocation, Runner};
use crate::version::{OLDEST, Version};

/// Questions, which kind asks the engine in turn.
const ASK: Duration = Duration::from_secs(60);
/// Removing the containers of a cluster.
const DELETE: Duration = Duration::from_secs(120);
/// Copying all logs of three nodes takes seconds; a machine with a slow disk and long logs may take minutes.
const LOGS: Duration = Duration::from_secs(300);
/// About a minute for 300 MB on three nodes was measured on a busy machine.
const LOAD: Duration = Duration::from_secs(600);

/// In the environment of `kind create` and of what it starts: the private directory of the cluster. No other kind has it, whatever the name of its cluster.
pub(crate) const DIRECTORY: &str = "HARNESS_KIND_DIRECTORY";

/// The command.
#[derive(Debug, Clone)]
pub(crate) struct KindCommand {
    program: PathBuf,
    pub(crate) runner: Runner,
}

impl KindCommand {
    pub(crate) fn new(program: PathBuf, runner: &Runner) -> Self {
        Self {
            program,
            runner: runner.clone(),
        }
    }

    pub(crate) fn under(&self, cancel: &Cancel) -> Self {
        Self {
            runner: self.runner.under(cancel),
            ..self.clone()
        }
    }

    fn call(&self, args: &[&str], deadline: Duration) -> Invocation {
        let what = format!("`kind {}`", args.join(" "));
        Invocation::new(&self.program, what, deadline).args(args)
    }

    /// Its version, if it is one that can be driven.
    pub(crate) fn version(&self) -> Result<Version> {
        let finished = self.call(&["version"], ASK).run(&self.runner)?.success()?;
        let found = Version::parse(&finished.text()).ok_or_else(|| KindError::Strange {
            command: "kind version".to_owned(),
            why: format!("there is no version in {:?}", finished.text()),
        })?;
        if found < OLDEST {
            return Err(KindError::OldKind {
                found,
                needed: OLDEST,
                why: "its nodes share the cgroup namespace of the machine, which node images no longer expect",
            });
        }
        Ok(found)
    }

    /// Creates a cluster. If kind is killed, its `docker run` are not: they are waited for when what they make is removed.
    pub(crate) fn create(
        &self,
        name: &str,
        config: &Path,
        kubeconfig: &Path,
        image: Option<&str>,
        deadline: Duration,
    ) -> Result<()> {
        let mut call = self
            .call(&["create", "cluster"], deadline)
            .args(["--name", name, "--config"])
            .arg(config)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            // Nodes that failed are looked at before they are deleted. Waiting for nodes is the caller's part: kind waits for control planes only,
            // and exits with 0 when they were not ready.
            .args(["--retain", "--wait", "0s"])
            .sparing("run")
            .env(DIRECTORY, config.parent().unwrap_or(config));
        if let Some(image) = image {
            call = call.args(["--image", image]);
        }
        call.run(&self.runner)?.success()?;
        Ok(())
    }

    pub(crate) fn clusters(&self) -> Result<Vec<String>> {
        // Without clusters it says so on standard error, and exits with 0.
        Ok(self
            .call(&["get", "clusters"], ASK)
            .run(&self.runner)?
            .success()?
            .lines())
    }

    pub(crate) fn kubeconfig(&self, name: &str) -> Result<String> {
        Ok(self
            .call(&["get", "kubeconfig", "--name", name], ASK)
            .secret()
            .run(&self.runner)?
            .success()?
            .text()
            .into_owned())
    }

    pub(crate) fn load(&self, name: &str, archive: &Path) -> Result<()> {
        self.call(&["load", "image-archive"], LOAD)
            .arg(archive)
            .args(["--name", name])
            .run(&self.runner)?
            .success()?;
        Ok(())
    }

    pub(crate) fn export_logs(&self, name: &str, directory: &Path) -> Result<()> {
        self.call(&["export", "logs"], LOGS)
            .arg(directory)
            .args(["--name", name])
            .run(&self.runner)?
            .success()?;
        Ok(())
    }

    /// Deletes a cluster; one that does not exist is not an error.
    pub(crate) fn delete(&self, name: &str, kubeconfig: &Path) -> Result<()> {
        self.call(
            &["delete", "cluster", "--name", name, "--kubeconfig"],
            DELETE,
        )
        .arg(kubeconfig)
        .run(&self.runner)?
        .success()?;
        Ok(())
    }
}
