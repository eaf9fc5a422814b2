//! What a crash may have left behind: there should be nothing, and this is how one finds out.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::SUBCOMMAND;

/// A process of a world whose harness is gone. Namespaces, links and mounts live only as long as these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its pid.
    pub pid: u32,
    /// The pid that its harness had.
    pub harness: u32,
    /// The name of its world.
    pub world: String,
}

struct Found {
    pid: u32,
    parent: u32,
    harness: u32,
    world: String,
}

/// Processes of worlds that have no harness any more. Candidates are not listed: they end with their PID 1.
pub fn leftovers() -> Vec<Leftover> {
    let mut worlds: BTreeMap<(u32, String), Vec<Found>> = BTreeMap::new();
    for found in world_processes() {
        let world = (found.harness, found.world.clone());
        worlds.entry(world).or_default().push(found);
    }
    worlds
        .into_values()
        // The outermost process of a world that is in order is its harness's child.
        .filter(|world| !world.iter().any(|found| found.parent == found.harness))
        .flatten()
        .map(|found| Leftover {
            pid: found.pid,
            harness: found.harness,
            world: found.world,
        })
        .collect()
}

/// Kills what [`leftovers`] finds; returns it.
pub fn clean() -> Vec<Leftover> {
    let found = leftovers();
    for leftover in &found {
        let _ = kill(Pid::from_raw(leftover.pid as i32), Signal::SIGKILL);
    }
    found
}

fn world_processes() -> Vec<Found> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(world_process)
        .collect()
}

fn world_process(pid: u32) -> Option<Found> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut args = line
        .split(|byte| *byte == 0)
        .skip(1)
        .map(String::from_utf8_lossy);
    if args.next()? != SUBCOMMAND {
        return None;
    }
    let harness = args.next()?.parse().ok()?;
    let world = args.next()?.into_owned();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()?;
    Some(Found {
        pid,
        parent,
        harness,
        world,
    })
}
