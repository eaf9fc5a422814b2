//! What `harness clean` does about clusters: removes what a crash left, and only that.

use crate::engine::search;
use crate::error::{KindError, Result};
use crate::image::IMAGE_LABEL;
use crate::lab::{self, Options};
use crate::off::off;
use crate::owned::{self, Life, Owned};
use crate::remove::remove;
use crate::run::Cancel;

/// Which clusters are to be removed, of those that are ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CleanSpec {
    /// Also those that were kept on purpose.
    pub all: bool,
    /// Only those of these names, kept or not.
    pub names: Vec<String>,
}

/// What became of the clusters.
#[derive(Debug, Default)]
pub struct Cleaned {
    /// Removed, with everything that belongs to them.
    pub removed: Vec<Owned>,
    /// Left alone, and why: "kept on purpose".
    pub left: Vec<(Owned, &'static str)>,
    /// Not removed although they should have been.
    pub failed: Vec<(Owned, KindError)>,
    /// Names that are not the name of any cluster of ours.
    pub unknown: Vec<String>,
}

/// Clusters whose harness is gone and that nobody wanted to keep. None where there is no container engine.
///
/// # Errors
/// `EngineDown` and `NoPermission`, if there is also a kind: without one, there never were clusters.
pub async fn leftovers(options: Options) -> Result<Vec<Owned>> {
    off(move |cancel| {
        let owned = ours(&options, cancel)?
            .map(|(_, owned)| owned)
            .unwrap_or_default();
        Ok(owned.into_iter().filter(Owned::is_leftover).collect())
    })
    .await
}

/// Removes the clusters that [`leftovers`] lists, or those that are asked for. A cluster of a living harness is never touched, and one that has our kind of
/// name and no marker is not ours.
///
/// # Errors
/// As [`leftovers`]; a cluster that could not be removed is in the answer.
pub async fn clean(options: Options, spec: CleanSpec) -> Result<Cleaned> {
    off(move |cancel| clean_now(&options, &spec, cancel)).await
}

fn clean_now(options: &Options, spec: &CleanSpec, cancel: &Cancel) -> Result<Cleaned> {
    let Some((engine, owned)) = ours(options, cancel)? else {
        return Ok(Cleaned {
            unknown: spec.names.clone(),
            ..Cleaned::default()
        });
    };
    // kind may have been removed since; its containers can be removed without it.
    let kind = lab::kind(options, &engine).ok();
    let mut cleaned = Cleaned::default();
    cleaned.unknown.extend(
        spec.names
            .iter()
            .filter(|name| !owned.iter().any(|cluster| cluster.name == **name))
            .cloned(),
    );
    let named = |cluster: &Owned| spec.names.contains(&cluster.name);
    for cluster in owned {
        if !spec.names.is_empty() && !named(&cluster) {
            continue;
        }
        match verdict(&cluster, spec.all || named(&cluster), named(&cluster)) {
            Some(reason) => cleaned.left.push((cluster, reason)),
            None => {
                let directory = cluster.directory.as_deref();
                match remove(kind.as_ref(), &engine, &cluster.name, directory) {
                    Ok(()) => cleaned.removed.push(cluster),
                    Err(error) => cleaned.failed.push((cluster, error)),
                }
            }
        }
    }
    let stale = owned::stale(&engine)?;
    engine.remove_volumes(&stale)?;
    // Images are loaded again when they are missed, by harnesses that will live; those of now may be about to use them.
    if !owned::owned(&engine)?
        .iter()
        .any(|cluster| cluster.life == Life::Alive)
    {
        for image in engine.images(IMAGE_LABEL)? {
            // One that somebody's container uses stays, and that is right.
            let _ = engine.remove_image(&image);
        }
    }
    Ok(cleaned)
}

/// Why a cluster stays; none if it goes.
fn verdict(cluster: &Owned, kept_too: bool, named: bool) -> Option<&'static str> {
    match cluster.life {
        Life::Alive => Some("a harness uses it"),
        Life::Elsewhere if !named => Some(
            "its harness is on another machine or in another container, where it cannot be seen",
        ),
        _ if cluster.kept && !kept_too => Some("it was kept on purpose"),
        _ => None,
    }
}

fn ours(options: &Options, cancel: &Cancel) -> Result<Option<(crate::engine::Engine, Vec<Owned>)>> {
    let engine = match lab::engine(options, cancel) {
        Ok((engine, _)) => engine,
        Err(KindError::NotInstalled { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    match owned::owned(&engine) {
        Ok(owned) => Ok(Some((engine, owned))),
        // Many machines have an engine that is not running, and never had a cluster of ours.
        Err(_) if search("kind", &lab::runner(options, None).1).is_none() => Ok(None),
        Err(error) => Err(error),
    }
}
