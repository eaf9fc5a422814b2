//! The end of a cluster: whatever state it is in, and whoever may still be making something of it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::engine::{Engine, EngineKind};
use crate::error::{KindError, Result};
use crate::kind::{DIRECTORY, KindCommand};
use crate::owned::{self, CLUSTER_LABEL};
use crate::private::{self, Private};
use crate::process::{PidFd, all_ended, with_environment};

/// The label that kind gives to the containers of a cluster.
pub(crate) const KIND_LABEL: &str = "io.x-k8s.kind.cluster";

/// A removal takes seconds; each call has a deadline of its own beside it.
const DEADLINE: Duration = Duration::from_secs(180);
/// A `docker run` that was under way when its kind was killed: the engine on a busy machine needed seconds for it.
const HELPERS: Duration = Duration::from_secs(30);

/// Removes all containers of a cluster and those outside of it, and then all markers of it. What an interrupted kind had started is waited for
/// and then killed, since it could make a container after the last look. As long as anything is left, the first marker stays, too.
pub(crate) fn remove(
    kind: Option<&KindCommand>,
    engine: &Engine,
    name: &str,
    directory: Option<&Path>,
) -> Result<()> {
    // That of whoever made it, and that of whoever deletes it.
    let mut directories = owned::directories(engine, name)?;
    directories.extend(directory.map(Path::to_owned));
    let helpers = still_making(&directories);
    let deadline = Instant::now() + DEADLINE;
    let helpers_until = Instant::now() + HELPERS;
    loop {
        // Removing a node also ends what was being done in it, as `docker exec`; so removals and helpers take turns.
        let left = containers(kind, engine, name, directory);
        let patience = helpers_until.min(Instant::now() + Duration::from_millis(500));
        let mut quiet = all_ended(&helpers, patience);
        if !quiet && Instant::now() >= helpers_until {
            helpers.iter().for_each(PidFd::kill);
            quiet = all_ended(&helpers, deadline);
        }
        match left {
            // The look came before the end of the last helper.
            Ok(()) if quiet && of_cluster(engine, name)?.is_empty() => break,
            Err(error) if quiet || Instant::now() >= deadline => return Err(error),
            _ => {}
        }
        if Instant::now() >= deadline {
            return Err(KindError::Timeout {
                what: format!("the removal of cluster {name}"),
                after: Some(DEADLINE),
                detail: format!("there still is {}", of_cluster(engine, name)?.join(", ")),
            });
        }
    }
    owned::forget(engine, name)?;
    for directory in &directories {
        private::remove(directory);
    }
    Ok(())
}

/// What a kind that was killed, or whose harness was, left running on this machine: a `docker run` goes on, and everything else is killed.
fn still_making(directories: &[PathBuf]) -> Vec<PidFd> {
    let entry = |directory: &PathBuf| {
        let mut entry = format!("{DIRECTORY}=").into_bytes();
        entry.extend(directory.as_os_str().as_bytes());
        entry
    };
    let makes = |words: &[&str]| words.first() == Some(&"run");
    let mut helpers = Vec::new();
    for entry in directories.iter().map(entry) {
        let others = with_environment(&entry, |words| !makes(words));
        others.iter().for_each(PidFd::kill);
        // After the end of kind, nobody starts another one.
        all_ended(&others, Instant::now() + Duration::from_secs(5));
        helpers.extend(with_environment(&entry, makes));
    }
    helpers
}

/// Removes the containers once; it is an error if there are any afterwards.
fn containers(
    kind: Option<&KindCommand>,
    engine: &Engine,
    name: &str,
    directory: Option<&Path>,
) -> Result<()> {
    let outside = engine.ps(&format!("{CLUSTER_LABEL}={name}"))?;
    engine.remove(&outside)?;
    let nodes = engine.ps(&format!("{KIND_LABEL}={name}"))?;
    if nodes.is_empty() {
        return Ok(());
    }
    // kind also removes what it may have made beside the containers. Should it fail, or not be there any more, the containers go nevertheless.
    let by_kind = match kind {
        Some(kind) => delete_by_kind(kind, name, directory),
        None => Ok(()),
    };
    let left = engine.ps(&format!("{KIND_LABEL}={name}"))?;
    if left.is_empty() {
        return Ok(());
    }
    engine
        .remove(&left)
        .map_err(|error| by_kind.err().unwrap_or(error))?;
    if engine.kind() == EngineKind::Podman {
        // There, kind makes the volumes of nodes itself, with the node's name as a label.
        for node in &left {
            let volumes = engine.volumes(node)?;
            engine.remove_volumes(
                &volumes
                    .into_iter()
                    .map(|volume| volume.name)
                    .collect::<Vec<_>>(),
            )?;
        }
    }
    Ok(())
}

fn delete_by_kind(kind: &KindCommand, name: &str, directory: Option<&Path>) -> Result<()> {
    if let Some(directory) = directory.filter(|directory| directory.is_dir()) {
        return kind.delete(name, &directory.join("kubeconfig"));
    }
    // It wants to remove the cluster from a kubeconfig, and must not take the user's.
    let private = Private::create(&std::env::temp_dir(), "harness-delete")?;
    let result = kind.delete(name, &private.file("kubeconfig"));
    private.remove();
    result
}

fn of_cluster(engine: &Engine, name: &str) -> Result<Vec<String>> {
    let mut names = engine.ps(&format!("{KIND_LABEL}={name}"))?;
    names.extend(engine.ps(&format!("{CLUSTER_LABEL}={name}"))?);
    Ok(names)
}
