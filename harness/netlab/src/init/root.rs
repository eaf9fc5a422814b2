//! The file system that a world's processes see: system directories read-only, the rest empty.
//!
//! Home directories, the working directory and the harness's output are not there.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::pivot_root;

use crate::error::Fault;

/// Directories of the host that are shown, read-only.
pub(crate) const SHOWN: [&str; 10] = [
    "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt", "nix",
];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Directories that every node has of its own.
const PRIVATE: [&str; 3] = ["run", "tmp", "var"];
const OLD: &str = "/oldroot";
const NODES: &str = "/.nodes";
const BINDS: &str = "/.binds";

/// The world's file system.
pub(super) struct Root {
    system: Option<PathBuf>,
    binds: Vec<PathBuf>,
}

/// Replaces the root of this mount namespace.
pub(super) fn enter(binds: Vec<PathBuf>) -> Result<Root, Fault> {
    // What AppArmor takes from user namespaces shows here first.
    mount_at(
        None,
        Path::new("/"),
        None,
        MsFlags::MS_PRIVATE | MsFlags::MS_REC,
        None,
    )
    .map_err(|error| Fault::user_namespace("make mounts private", error))?;
    let base = ["/tmp", "/mnt", "/var"]
        .into_iter()
        .map(Path::new)
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("/"));
    tmpfs(base, "mode=0755")?;
    let old = base.join("oldroot");
    create_dir(&old)?;
    std::env::set_current_dir(base).map_err(|e| Fault::system("enter the new root", e))?;
    pivot_root(".", "oldroot").map_err(|e| Fault::system("pivot to the new root", e))?;
    std::env::set_current_dir("/").map_err(|e| Fault::system("enter the new root", e))?;

    for name in SHOWN {
        let (source, target) = (Path::new(OLD).join(name), Path::new("/").join(name));
        match fs::symlink_metadata(&source) {
            Ok(meta) if meta.is_symlink() => {
                let to = fs::read_link(&source)
                    .and_then(|to| symlink(to, &target))
                    .map_err(|e| Fault::system(format!("link {}", target.display()), e));
                to?;
            }
            Ok(meta) if meta.is_dir() => {
                create_dir(&target)?;
                show(&source, &target)?;
            }
            _ => {}
        }
    }
    proc()?;
    create_dir(Path::new("/sys"))?;
    if sysfs().is_err() {
        let _ = show(Path::new("/oldroot/sys"), Path::new("/sys"));
    }
    devices()?;
    for name in PRIVATE {
        let path = Path::new("/").join(name);
        create_dir(&path)?;
        tmpfs(&path, "mode=0755")?;
    }
    for path in [NODES, BINDS] {
        create_dir(Path::new(path))?;
        tmpfs(Path::new(path), "mode=0755")?;
    }
    let root = Root {
        // NixOS: programs are found through this link only.
        system: fs::read_link("/oldroot/run/current-system").ok(),
        binds,
    };
    fill_private(Path::new("/"), root.system.as_deref())?;
    for (n, bind) in root.binds.iter().enumerate() {
        let kept = Path::new(BINDS).join(n.to_string());
        let source = Path::new(OLD).join(bind.strip_prefix("/").unwrap_or(bind));
        place(&source, &kept)?;
        show(&source, &kept)?;
        place(&kept, bind)?;
        bind_again(&kept, bind)?;
    }
    umount2(OLD, MntFlags::MNT_DETACH).map_err(|e| Fault::system("leave the old root", e))?;
    let _ = fs::remove_dir(OLD);
    mount_at(
        None,
        Path::new("/"),
        None,
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY,
        None,
    )
    .map_err(|e| Fault::system("make the root read-only", e))?;
    Ok(root)
}

impl Root {
    /// Makes the directories that are a node's own.
    pub fn add_node(&self, node: &str) -> Result<(), Fault> {
        let base = Path::new(NODES).join(node);
        for name in PRIVATE {
            create_dir(&base.join(name))?;
        }
        fill_private(&base, self.system.as_deref())
    }

    /// Shows the calling process, which must be in a mount namespace of its own, the node's view: its own
    /// `/run`, `/tmp` and `/var`, and the `/sys` of the network namespace that the process is in.
    pub fn view_as(&self, node: &str) -> Result<(), Fault> {
        let base = Path::new(NODES).join(node);
        if base.is_dir() {
            for name in PRIVATE {
                bind_again(&base.join(name), &Path::new("/").join(name))?;
            }
            for (n, bind) in self.binds.iter().enumerate() {
                if PRIVATE
                    .iter()
                    .any(|name| bind.starts_with(Path::new("/").join(name)))
                {
                    let kept = Path::new(BINDS).join(n.to_string());
                    place(&kept, bind)?;
                    bind_again(&kept, bind)?;
                }
            }
        }
        // Where a container forbids it, the first one's stays.
        let _ = sysfs();
        Ok(())
    }
}

fn fill_private(base: &Path, system: Option<&Path>) -> Result<(), Fault> {
    for name in ["var/lib", "var/log", "var/tmp", "run/lock"] {
        create_dir(&base.join(name))?;
    }
    let run = base.join("var/run");
    symlink("/run", &run).map_err(|e| Fault::system(format!("link {}", run.display()), e))?;
    if let Some(system) = system {
        let link = base.join("run/current-system");
        symlink(system, &link).map_err(|e| Fault::system(format!("link {}", link.display()), e))?;
    }
    Ok(())
}

fn proc() -> Result<(), Fault> {
    let path = Path::new("/proc");
    create_dir(path)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount_at(Some(Path::new("proc")), path, Some("proc"), flags, None) {
        // A container that masks parts of /proc gets no new one; the old one knows the processes of this world too.
        Err(nix::Error::EPERM) => mount_at(
            Some(Path::new("/oldroot/proc")),
            path,
            None,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None,
        ),
        other => other,
    }
    .map_err(|e| Fault::user_namespace("mount /proc", e))
}

fn sysfs() -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount_at(
        Some(Path::new("sysfs")),
        Path::new("/sys"),
        Some("sysfs"),
        flags,
        None,
    )
}

fn devices() -> Result<(), Fault> {
    create_dir(Path::new("/dev"))?;
    for name in DEVICES {
        let (source, target) = (
            Path::new("/oldroot/dev").join(name),
            Path::new("/dev").join(name),
        );
        if source.exists() {
            place(&source, &target)?;
            bind_again(&source, &target)?;
        }
    }
    for (link, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(to, Path::new("/dev").join(link))
            .map_err(|e| Fault::system(format!("link /dev/{link}"), e))?;
    }
    create_dir(Path::new("/dev/shm"))?;
    tmpfs(Path::new("/dev/shm"), "mode=1777")
}

/// Binds a part of the old root, all mounts below it included, read-only.
fn show(source: &Path, target: &Path) -> Result<(), Fault> {
    let fault = |e: nix::Error| Fault::system(format!("show {} read-only", target.display()), e);
    mount_at(
        Some(source),
        target,
        None,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None,
    )
    .map_err(fault)?;
    read_only(target).map_err(fault)
}

/// `mount_setattr(2)`, which glibc wraps only since 2.36.
fn read_only(target: &Path) -> nix::Result<()> {
    let dir = fs::File::open(target)
        .map_err(|e| nix::Error::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the empty path and the attributes outlive the call, and the size is theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    nix::Error::result(result).map(drop)
}

fn bind_again(source: &Path, target: &Path) -> Result<(), Fault> {
    mount_at(
        Some(source),
        target,
        None,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None,
    )
    .map_err(|e| Fault::system(format!("mount {}", target.display()), e))
}

fn tmpfs(path: &Path, options: &str) -> Result<(), Fault> {
    mount_at(
        Some(Path::new("tmpfs")),
        path,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options),
    )
    .map_err(|e| Fault::user_namespace(format!("mount a tmpfs at {}", path.display()), e))
}

fn mount_at(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    data: Option<&str>,
) -> nix::Result<()> {
    mount(source, target, kind, flags, data)
}

fn create_dir(path: &Path) -> Result<(), Fault> {
    fs::create_dir_all(path).map_err(|e| Fault::system(format!("make {}", path.display()), e))
}

/// Makes something of the same type as `source` to mount on.
fn place(source: &Path, target: &Path) -> Result<(), Fault> {
    if source.is_dir() {
        return create_dir(target);
    }
    if let Some(parent) = target.parent() {
        create_dir(parent)?;
    }
    match fs::File::create_new(target) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Fault::system(format!("make {}", target.display()), error))
        }
        _ => Ok(()),
    }
}
