//! Which clusters are ours.
//!
//! kind cannot label a cluster, and a name proves nothing. So before `kind create`, a *marker* is made in the container engine: an empty volume with
//! labels. A cluster is ours if and only if there is a marker of its name, made by a harness; `--keep` adds a second marker, and a harness that
//! opens a cluster of another one (`--reuse`) adds a third while it lives.
//!
//! ```text
//! volume                  labels
//! harness-a1b2c3          dev.harness.cluster=harness-a1b2c3  dev.harness.role=made  .pid .started .host ...   made before the cluster, removed after it
//! harness-a1b2c3.kept     dev.harness.cluster=harness-a1b2c3  dev.harness.role=kept                            by --keep
//! harness-a1b2c3.used-77  dev.harness.cluster=harness-a1b2c3  dev.harness.role=used  .pid .started .host ...   by --reuse
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::engine::{Engine, Volume};
use crate::error::{KindError, Result};
use crate::process::Stat;

/// The label that a marker is found by; its value is the cluster's name. Containers outside of a cluster and our own images carry it, too.
pub const CLUSTER_LABEL: &str = "dev.harness.cluster";
const ROLE: &str = "dev.harness.role";
const PID: &str = "dev.harness.pid";
const STARTED: &str = "dev.harness.started";
const HOST: &str = "dev.harness.host";
const BOOT: &str = "dev.harness.boot";
const PID_NAMESPACE: &str = "dev.harness.pidns";
const TOKEN: &str = "dev.harness.token";
const DIRECTORY: &str = "dev.harness.directory";

/// A process, such that no other one is taken for it: not one with its number later, in another container, or on another machine that uses the same engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pid: u32,
    started: u64,
    host: String,
    boot: String,
    pid_namespace: String,
}

/// Whether a harness lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It does.
    Alive,
    /// It has ended.
    Gone,
    /// It runs, or ran, on another machine or in another container, where it cannot be seen from here.
    Elsewhere,
}

impl Owner {
    /// This process.
    pub(crate) fn this() -> Result<Self> {
        let pid = std::process::id();
        let read = |path: &str| {
            fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .map_err(|error| KindError::system(format!("read {path}"), error))
        };
        let started = Stat::read(pid)
            .map_err(|error| KindError::system("read /proc/self/stat", error))?
            .started;
        Ok(Self {
            pid,
            started,
            host: read("/proc/sys/kernel/hostname")?,
            boot: read("/proc/sys/kernel/random/boot_id")?,
            pid_namespace: fs::read_link("/proc/self/ns/pid")
                .map(|link| link.to_string_lossy().into_owned())
                .unwrap_or_default(),
        })
    }

    fn of(labels: &BTreeMap<String, String>) -> Option<Self> {
        Some(Self {
            pid: labels.get(PID)?.parse().ok()?,
            started: labels.get(STARTED)?.parse().ok()?,
            host: labels.get(HOST)?.clone(),
            boot: labels.get(BOOT)?.clone(),
            pid_namespace: labels.get(PID_NAMESPACE)?.clone(),
        })
    }

    fn labels(&self) -> Vec<(&'static str, String)> {
        vec![
            (PID, self.pid.to_string()),
            (STARTED, self.started.to_string()),
            (HOST, self.host.clone()),
            (BOOT, self.boot.clone()),
            (PID_NAMESPACE, self.pid_namespace.clone()),
        ]
    }

    /// Whether it lives, as seen by `observer`; `stat` looks at a process of the observer's machine.
    fn life(&self, observer: &Self, stat: impl Fn(u32) -> io::Result<u64>) -> Life {
        if self.boot != observer.boot {
            // The same machine has been started again since, or it is another machine.
            return if self.host == observer.host {
                Life::Gone
            } else {
                Life::Elsewhere
            };
        }
        if self.pid_namespace != observer.pid_namespace {
            return Life::Elsewhere;
        }
        match stat(self.pid) {
            Ok(started) if started == self.started => Life::Alive,
            Ok(_) => Life::Gone,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Life::Gone,
            // Something is there that may not be looked at.
            Err(_) => Life::Alive,
        }
    }
}

fn started(pid: u32) -> io::Result<u64> {
    match Stat::read(pid) {
        // A zombie has ended; whoever has not collected it does not matter.
        Ok(stat) if stat.state == b'Z' => Err(io::ErrorKind::NotFound.into()),
        Ok(stat) => Ok(stat.started),
        // With hidepid, /proc does not show other users' processes.
        Err(error) => match kill(Pid::from_raw(pid as i32), None) {
            Err(Errno::ESRCH) => Err(io::ErrorKind::NotFound.into()),
            Err(Errno::EPERM) => Err(io::ErrorKind::PermissionDenied.into()),
            // It ended or began in between: the file says which at the next look.
            _ => Stat::read(pid).map(|stat| stat.started).or(Err(error)),
        },
    }
}

/// A cluster with a marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Its name.
    pub name: String,
    /// Whether it was kept on purpose (`--keep`).
    pub kept: bool,
    /// Whether a harness that made it or uses it lives.
    pub life: Life,
    /// The process and the machine of the harness that lives or else of the one that made it, for people: "process 4711 of host".
    pub harness: String,
    /// The directory with its kubeconfig.
    pub directory: Option<PathBuf>,
}

impl Owned {
    /// Whether it was left behind: its harness is gone, and nobody wanted to keep it.
    pub fn is_leftover(&self) -> bool {
        self.life == Life::Gone && !self.kept
    }
}

/// All clusters with a marker, by name.
pub(crate) fn owned(engine: &Engine) -> Result<Vec<Owned>> {
    let volumes = engine.volumes(CLUSTER_LABEL)?;
    Ok(sort_out(&volumes, &Owner::this()?, started))
}

fn sort_out(
    volumes: &[Volume],
    observer: &Owner,
    stat: impl Fn(u32) -> io::Result<u64> + Copy,
) -> Vec<Owned> {
    let mut by_name: BTreeMap<&str, Vec<&Volume>> = BTreeMap::new();
    for volume in volumes {
        if let Some(name) = volume.labels.get(CLUSTER_LABEL) {
            by_name.entry(name).or_default().push(volume);
        }
    }
    by_name
        .into_iter()
        .filter_map(|(name, markers)| {
            let with = |role: &str| {
                markers
                    .iter()
                    .filter(|marker| marker.labels.get(ROLE).is_some_and(|is| is == role))
                    .collect::<Vec<_>>()
            };
            // Without the first marker the cluster is somebody else's, whom a harness visits; or it is gone, and others stay behind.
            let made = with("made");
            let first = made.first()?;
            let used = with("used");
            let lives: Vec<(Life, &Volume)> = made
                .iter()
                .chain(&used)
                .map(|marker| {
                    let owner = Owner::of(&marker.labels);
                    let life = owner.map_or(Life::Elsewhere, |owner| owner.life(observer, stat));
                    (life, **marker)
                })
                .collect();
            let (life, whose) = [Life::Alive, Life::Elsewhere]
                .into_iter()
                .find_map(|life| lives.iter().find(|(is, _)| *is == life))
                .copied()
                .unwrap_or((Life::Gone, **first));
            let label = |marker: &Volume, key: &str| marker.labels.get(key).cloned();
            Some(Owned {
                name: name.to_owned(),
                kept: !with("kept").is_empty(),
                life,
                harness: format!(
                    "process {} of {}",
                    label(whose, PID).unwrap_or_default(),
                    label(whose, HOST).unwrap_or_default()
                ),
                directory: label(first, DIRECTORY).map(PathBuf::from),
            })
        })
        .collect()
}

/// Says in the engine that the cluster of this name is about to be made by this process. Of two that try, one gets [`KindError::NameTaken`].
pub(crate) fn claim(engine: &Engine, name: &str, directory: &std::path::Path) -> Result<()> {
    let token = format!("{:016x}", rand::random::<u64>());
    let mut labels = vec![
        (CLUSTER_LABEL, name.to_owned()),
        (ROLE, "made".to_owned()),
        (TOKEN, token.clone()),
        (DIRECTORY, directory.display().to_string()),
    ];
    labels.extend(Owner::this()?.labels());
    engine.create_volume(name, &labels)?;
    // An engine may return the volume that is there already instead of complaining: then the token is another one's.
    let markers = engine.volumes(&format!("{CLUSTER_LABEL}={name}"))?;
    let ours = markers
        .iter()
        .any(|marker| marker.name == name && marker.labels.get(TOKEN) == Some(&token));
    if ours {
        Ok(())
    } else {
        Err(KindError::NameTaken {
            name: name.to_owned(),
        })
    }
}

/// Takes a claim back that may or may not have been made; one of somebody else, who has another directory, stays.
pub(crate) fn disclaim(engine: &Engine, name: &str, directory: &std::path::Path) -> Result<()> {
    let directory = directory.display().to_string();
    let markers = engine.volumes(&format!("{CLUSTER_LABEL}={name}"))?;
    let ours: Vec<String> = markers
        .into_iter()
        .filter(|marker| marker.labels.get(DIRECTORY) == Some(&directory))
        .map(|marker| marker.name)
        .collect();
    engine.remove_volumes(&ours)
}

/// Says that the cluster is to outlive its harness.
pub(crate) fn keep(engine: &Engine, name: &str) -> Result<()> {
    let labels = [(CLUSTER_LABEL, name.to_owned()), (ROLE, "kept".to_owned())];
    engine.create_volume(&format!("{name}.kept"), &labels)
}

/// Says that this process uses a cluster that it has not made; returns the marker's name.
pub(crate) fn visit(engine: &Engine, name: &str) -> Result<String> {
    let marker = format!(
        "{name}.used-{}-{:06x}",
        std::process::id(),
        rand::random::<u32>() & 0xff_ffff
    );
    let mut labels = vec![(CLUSTER_LABEL, name.to_owned()), (ROLE, "used".to_owned())];
    labels.extend(Owner::this()?.labels());
    engine.create_volume(&marker, &labels)?;
    Ok(marker)
}

/// The directory of whoever made a cluster, as its marker says.
pub(crate) fn directories(engine: &Engine, name: &str) -> Result<Vec<PathBuf>> {
    let markers = engine.volumes(&format!("{CLUSTER_LABEL}={name}"))?;
    let named = markers
        .iter()
        .filter_map(|marker| marker.labels.get(DIRECTORY));
    Ok(named.map(PathBuf::from).collect())
}

/// Removes all markers of a cluster, the first one last: as long as it is there, the cluster is ours.
pub(crate) fn forget(engine: &Engine, name: &str) -> Result<()> {
    let markers = engine.volumes(&format!("{CLUSTER_LABEL}={name}"))?;
    let (made, others): (Vec<_>, Vec<_>) = markers
        .into_iter()
        .partition(|marker| marker.labels.get(ROLE).is_some_and(|role| role == "made"));
    let names = |markers: Vec<Volume>| {
        markers
            .into_iter()
            .map(|marker| marker.name)
            .collect::<Vec<_>>()
    };
    engine.remove_volumes(&names(others))?;
    engine.remove_volumes(&names(made))
}

/// Markers that mean nothing any more: of visits that are over, and of clusters that are no longer ours.
pub(crate) fn stale(engine: &Engine) -> Result<Vec<String>> {
    let volumes = engine.volumes(CLUSTER_LABEL)?;
    Ok(sort_out_stale(&volumes, &Owner::this()?, started))
}

fn sort_out_stale(
    volumes: &[Volume],
    observer: &Owner,
    stat: impl Fn(u32) -> io::Result<u64> + Copy,
) -> Vec<String> {
    let role = |volume: &Volume, role: &str| volume.labels.get(ROLE).is_some_and(|is| is == role);
    let ours: Vec<&String> = volumes
        .iter()
        .filter(|volume| role(volume, "made"))
        .filter_map(|volume| volume.labels.get(CLUSTER_LABEL))
        .collect();
    volumes
        .iter()
        .filter(|volume| {
            let over = Owner::of(&volume.labels)
                .is_some_and(|owner| owner.life(observer, stat) == Life::Gone);
            let orphan = volume
                .labels
                .get(CLUSTER_LABEL)
                .is_some_and(|name| !ours.contains(&name));
            (role(volume, "used") && over) || (role(volume, "kept") && orphan)
        })
        .map(|volume| volume.name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: io::ErrorKind = io::ErrorKind::NotFound;

    fn owner(pid: u32) -> Owner {
        Owner {
            pid,
            started: 500,
            host: "here".to_owned(),
            boot: "boot-1".to_owned(),
            pid_namespace: "pid:[1]".to_owned(),
        }
    }

    /// Process 7 runs since 500, process 8 since 900, process 9 may not be looked at.
    fn machine(pid: u32) -> io::Result<u64> {
        match pid {
            7 => Ok(500),
            8 => Ok(900),
            9 => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Err(NOBODY.into()),
        }
    }

    #[test]
    fn a_process_is_not_taken_for_another_one() {
        let here = owner(1);
        let with = |change: &dyn Fn(&mut Owner)| {
            let mut owner = owner(7);
            change(&mut owner);
            owner.life(&here, machine)
        };
        for (what, life, expected) in [
            ("it runs", with(&|_| {}), Life::Alive),
            ("it has ended", with(&|owner| owner.pid = 6), Life::Gone),
            (
                "its number is another one's now",
                with(&|owner| owner.pid = 8),
                Life::Gone,
            ),
            (
                "it may not be looked at",
                with(&|owner| owner.pid = 9),
                Life::Alive,
            ),
            (
                "the machine was started again",
                with(&|owner| owner.boot = "boot-0".to_owned()),
                Life::Gone,
            ),
            (
                "it is in another container",
                with(&|owner| owner.pid_namespace = "pid:[2]".to_owned()),
                Life::Elsewhere,
            ),
            (
                "it is on another machine",
                with(&|owner| {
                    owner.boot = "boot-2".to_owned();
                    owner.host = "there".to_owned();
                }),
                Life::Elsewhere,
            ),
        ] {
            assert_eq!(life, expected, "{what}");
        }
        let this = Owner::this().unwrap();
        assert_eq!(
            Owner::of(
                &this
                    .labels()
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect()
            ),
            Some(this.clone())
        );
        assert_eq!(this.life(&this, started), Life::Alive);
    }

    fn volume(name: &str, cluster: &str, role: &str, pid: Option<u32>) -> Volume {
        let mut labels = vec![(CLUSTER_LABEL, cluster.to_owned()), (ROLE, role.to_owned())];
        labels.extend(pid.map(|pid| owner(pid).labels()).unwrap_or_default());
        Volume {
            name: name.to_owned(),
            labels: labels
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        }
    }

    #[test]
    fn markers_add_up_to_clusters() {
        let volumes = [
            volume("a", "a", "made", Some(7)),
            volume("b", "b", "made", Some(6)),
            volume("c", "c", "made", Some(6)),
            volume("c.kept", "c", "kept", None),
            volume("d", "d", "made", Some(6)),
            volume("d.used", "d", "used", Some(7)),
            // A cluster of the user's own, and what is left of one of ours.
            volume("e.used", "e", "used", Some(7)),
            volume("f.used", "f", "used", Some(6)),
            volume("f.kept", "f", "kept", None),
            // Labels that somebody has changed are no reason to delete anything.
            volume("g", "g", "made", None),
        ];
        let found: Vec<_> = sort_out(&volumes, &owner(1), machine)
            .into_iter()
            .map(|cluster| {
                (
                    cluster.is_leftover(),
                    cluster.kept,
                    cluster.life,
                    cluster.name,
                )
            })
            .collect();
        let expected = [
            (false, false, Life::Alive, "a"),
            (true, false, Life::Gone, "b"),
            (false, true, Life::Gone, "c"),
            (false, false, Life::Alive, "d"),
            (false, false, Life::Elsewhere, "g"),
        ];
        assert_eq!(
            found,
            expected.map(|(left, kept, life, name)| (left, kept, life, name.to_owned()))
        );
        assert_eq!(
            sort_out_stale(&volumes, &owner(1), machine),
            ["f.used", "f.kept"]
        );
    }
}
