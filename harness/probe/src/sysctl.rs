//! Sysctls of the network namespace.

use std::path::PathBuf;

use anyhow::{Context, bail};

/// Writes a sysctl below `/proc/sys/net`.
pub(crate) fn write(path: &str, value: &str) -> anyhow::Result<()> {
    let file = file(path)?;
    std::fs::write(&file, value)
        .with_context(|| format!("cannot write {value:?} to {}", file.display()))
}

/// Reads a sysctl below `/proc/sys/net`, without the newline at its end.
pub(crate) fn read(path: &str) -> anyhow::Result<String> {
    let file = file(path)?;
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.trim_end().to_owned())
}

/// The file of a sysctl, given as `ipv4/ip_forward`, `net/ipv4/ip_forward`, `net.ipv4.ip_forward` or with `/proc/sys/` in front.
/// With slashes a dot is part of a name (`ipv4/conf/eth0.5/forwarding`), as for the `sysctl` command.
fn file(path: &str) -> anyhow::Result<PathBuf> {
    let path = if path.contains('/') {
        path.to_owned()
    } else {
        path.replace('.', "/")
    };
    let path = path.strip_prefix("/proc/sys/").unwrap_or(&path);
    let path = path.strip_prefix("net/").unwrap_or(path);
    if path.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        bail!("{path:?} is not the name of a network sysctl");
    }
    Ok(PathBuf::from("/proc/sys/net").join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_net() {
        let want = PathBuf::from("/proc/sys/net/ipv4/ip_forward");
        for name in [
            "ipv4/ip_forward",
            "net/ipv4/ip_forward",
            "net.ipv4.ip_forward",
            "/proc/sys/net/ipv4/ip_forward",
        ] {
            assert_eq!(file(name).unwrap(), want);
        }
        assert_eq!(
            file("ipv4/conf/eth0.5/mtu").unwrap(),
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.5/mtu")
        );
        for name in [
            "",
            "../kernel/hostname",
            "ipv4/../../kernel/hostname",
            "/etc/passwd/..",
            "net/",
        ] {
            assert!(file(name).is_err(), "{name}");
        }
        assert_eq!(
            file("/proc/sys/kernel/x").unwrap(),
            PathBuf::from("/proc/sys/net/kernel/x")
        );
    }
}
