//! Whether the kernel has inotify instances left for the systemd, kubelet and containerd of each node.
//!
//! They are counted per user, and the nodes' root is the machine's root: all containers of all clusters share what
//! `fs.inotify.max_user_instances` says, which is 128 by default. Without this look, a node starts and its kubelet fails with "too many open
//! files", minutes later.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::error::{KindError, Result};

/// Instances that a node uses: 12 were counted when it had just been made, and up to 17 later; Pods that watch files come on top.
const INSTANCES_PER_NODE: u64 = 20;
/// Watches that a node uses: 180 were counted without Pods. The defaults of kernels are between 8,192 and a million.
const WATCHES_PER_NODE: u64 = 1000;

/// What root may have and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inotify {
    pub(crate) max_instances: u64,
    pub(crate) max_watches: u64,
    /// Instances of root's processes, as far as this user can see them.
    pub(crate) instances: u64,
}

impl Inotify {
    /// What this machine says; none where it cannot be told.
    pub(crate) fn read() -> Option<Self> {
        Some(Self {
            max_instances: sysctl("max_user_instances")?,
            max_watches: sysctl("max_user_watches")?,
            instances: instances_of(0),
        })
    }

    pub(crate) fn check(&self, nodes: u64) -> Result<()> {
        let needed = nodes * INSTANCES_PER_NODE;
        if self.instances + needed > self.max_instances {
            return Err(KindError::TooFewInotify {
                sysctl: "fs.inotify.max_user_instances",
                max: self.max_instances,
                used: self.instances,
                needed,
                nodes,
                suggested: (self.instances + needed).max(512),
            });
        }
        let needed = nodes * WATCHES_PER_NODE;
        if needed > self.max_watches {
            return Err(KindError::TooFewInotify {
                sysctl: "fs.inotify.max_user_watches",
                max: self.max_watches,
                used: 0,
                needed,
                nodes,
                suggested: needed.max(524_288),
            });
        }
        Ok(())
    }
}

fn sysctl(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/fs/inotify/{name}"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn instances_of(uid: u32) -> u64 {
    let Ok(entries) = fs::read_dir("/proc") else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.parse::<u32>().is_ok())
        })
        .filter(|entry| entry.metadata().is_ok_and(|about| about.uid() == uid))
        .filter_map(|entry| fs::read_dir(entry.path().join("fd")).ok())
        .flat_map(|descriptors| descriptors.flatten())
        .filter(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:inotify")
        })
        .count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_to_fit_beside_what_is_there() {
        let usual = Inotify {
            max_instances: 128,
            max_watches: 192_536,
            instances: 5,
        };
        for (machine, nodes, fits) in [
            (usual, 3, true),
            (usual, 6, true),
            (usual, 7, false),
            (
                Inotify {
                    instances: 68,
                    ..usual
                },
                3,
                true,
            ),
            (
                Inotify {
                    instances: 69,
                    ..usual
                },
                3,
                false,
            ),
            (
                Inotify {
                    max_instances: 1024,
                    instances: 600,
                    ..usual
                },
                3,
                true,
            ),
            (
                Inotify {
                    max_watches: 2999,
                    ..usual
                },
                3,
                false,
            ),
            (
                Inotify {
                    max_watches: 3000,
                    ..usual
                },
                3,
                true,
            ),
        ] {
            assert_eq!(
                machine.check(nodes).is_ok(),
                fits,
                "{machine:?}, {nodes} nodes"
            );
        }
        insta::assert_snapshot!(usual.check(7).unwrap_err(), @"fs.inotify.max_user_instances is 128, of which 5 are in use, and 7 nodes need about 140: `sudo sysctl fs.inotify.max_user_instances=512`, or run clusters one after another (`--jobs 1`)");
    }
}
