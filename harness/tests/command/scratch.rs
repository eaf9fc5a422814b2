//! `ci/image/Containerfile`: the program runs in a root with nothing else in it, as nobody, without a capability and without the right to get one.
//!
//! What a container runtime does is done here with system calls, because there may be no runtime. A `chroot` would not do: the kernel lets nobody make
//! user namespaces in one.

use std::{
    fs,
    io::Error,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, chdir, pivot_root},
};

use crate::support::{directory, report, worlds};

/// The user of the image.
const USER: u32 = 65532;

/// Device files that every runtime gives a container.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// A root with the program, as the last stage of the recipe makes it. One that is not static brings what it is linked with.
fn image(root: &Path) {
    for directory in ["tmp", "harness-out", "proc", "sys", "dev", "old"] {
        fs::create_dir(root.join(directory)).expect("a directory of the test");
    }
    for device in DEVICES {
        fs::write(root.join("dev").join(device), "").expect("a place for a device");
    }
    let program = env!("CARGO_BIN_EXE_harness");
    fs::copy(program, root.join("harness")).expect("the program is there");
    let linked = Command::new("ldd").arg(program).output().expect("ldd runs");
    let linked = String::from_utf8(linked.stdout).expect("text");
    for library in linked
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a directory")).expect("a directory of the test");
        fs::copy(library, to).expect("a library");
    }
}

/// The program in the root, in namespaces that show nothing of this machine but its kernel.
fn contained(root: &Path, args: &[&str]) -> Output {
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        (
            "/proc/self/uid_map",
            format!("{USER} {} 1", Uid::effective()),
        ),
        (
            "/proc/self/gid_map",
            format!("{USER} {} 1", Gid::effective()),
        ),
    ];
    let root = root.to_path_buf();
    let places: Vec<(PathBuf, PathBuf)> = ["proc", "sys"]
        .map(str::to_owned)
        .into_iter()
        .chain(DEVICES.map(|device| format!("dev/{device}")))
        .map(|name| (Path::new("/").join(&name), root.join(&name)))
        .collect();
    let mut command = Command::new("/harness");
    command.args(args).env_clear().stdin(Stdio::null());
    let enter = move || -> Result<(), Error> {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)?;
        for (path, text) in &maps {
            fs::write(path, text)?;
        }
        let (none, recursive) = (None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC);
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?;
        mount(Some(&root), &root, none, recursive, none)?;
        for (from, to) in &places {
            mount(Some(from), to, none, recursive, none)?;
        }
        chdir(&root)?;
        pivot_root(".", "old")?;
        chdir("/harness-out")?;
        umount2("/old", MntFlags::MNT_DETACH)?;
        // With an ordinary user, the capabilities of the namespace go when the program starts, and nothing brings them back.
        nix::sys::prctl::set_no_new_privs()?;
        Ok(())
    };
    // SAFETY: the closure only makes system calls and small allocations, and the allocator of this platform may be used after a fork.
    unsafe { command.pre_exec(enter) };
    command.output().expect("the program starts")
}

#[test]
fn the_program_needs_nothing_beside_itself() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let root = directory.path();
    image(root);
    let checked = contained(root, &["doctor"]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    for (candidate, code) in [("reference", 0), ("null", 1)] {
        let out = format!("/harness-out/{candidate}");
        let args = [
            "certify",
            "--candidate",
            candidate,
            "--filter",
            "clusterip-basic[ipv4,TCP]",
            "--no-classify",
            "--out",
            &out,
        ];
        let output = contained(root, &args);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let report = report(&root.join("harness-out").join(candidate));
        assert_eq!(report["exitCode"], code);
    }
}

/// Without the mount that hides this machine's root, the test above would show little.
#[test]
fn the_root_is_the_image() {
    if !worlds() {
        return;
    }
    let directory = directory();
    image(directory.path());
    // A shell of this machine is not there.
    let missing = contained(directory.path(), &["certify", "--candidate", "/bin/sh"]);
    let said = String::from_utf8_lossy(&missing.stderr);
    assert_eq!(missing.status.code(), Some(2), "{said}");
    assert!(said.contains("No such file"), "{said}");
}
