//! Which setting of this machine forbids user namespaces, so that one message can say it.

use std::fs;

use crate::error::{Fault, WorldError};

/// The first setting that explains why user namespaces do not work for this user, with what to do about it.
pub(crate) fn forbidden_by() -> Option<(String, String)> {
    let sudo = "or run the harness with sudo";
    let read = |path: &str| fs::read_to_string(path).ok().map(|s| s.trim().to_owned());
    if read("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        return Some((
            "the sysctl user.max_user_namespaces=0".to_owned(),
            "set it to 1024 or more with `sysctl -w user.max_user_namespaces=1024`".to_owned(),
        ));
    }
    if read("/proc/sys/user/max_net_namespaces").as_deref() == Some("0") {
        return Some((
            "the sysctl user.max_net_namespaces=0".to_owned(),
            "set it to 1024 or more with `sysctl -w user.max_net_namespaces=1024`".to_owned(),
        ));
    }
    if nix::unistd::geteuid().is_root() {
        return None;
    }
    if read("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return Some((
            "the sysctl kernel.unprivileged_userns_clone=0".to_owned(),
            format!("set it to 1 with `sysctl -w kernel.unprivileged_userns_clone=1`, {sudo}"),
        ));
    }
    if read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return Some((
            "AppArmor (the sysctl kernel.apparmor_restrict_unprivileged_userns=1)".to_owned(),
            format!(
                "set it to 0 with `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, give the harness \
                 an AppArmor profile with the `userns` permission, {sudo}"
            ),
        ));
    }
    None
}

/// Whether this process runs below a seccomp filter, as it does in most containers.
fn filtered() -> bool {
    fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.trim() == "Seccomp:\t2"))
}

pub(crate) fn explain(fault: &Fault) -> WorldError {
    let (what, hint) = forbidden_by().unwrap_or_else(|| {
        let error = std::io::Error::from_raw_os_error(fault.errno);
        let what = if fault.errno == libc::ENOSPC {
            "the limits user.max_user_namespaces or user.max_net_namespaces, which are used up".to_owned()
        } else if filtered() {
            format!("a seccomp filter, as containers have ({}: {error})", fault.step)
        } else {
            format!("this machine ({}: {error})", fault.step)
        };
        let hint = if fault.errno == libc::ENOSPC {
            "raise them, or run fewer worlds at a time".to_owned()
        } else {
            "in a container, start it with `--privileged` or with `--security-opt seccomp=unconfined \
             --security-opt apparmor=unconfined --security-opt systempaths=unconfined`; otherwise run the \
             harness with sudo"
                .to_owned()
        };
        (what, hint)
    });
    WorldError::UserNamespacesForbidden { what, hint }
}
