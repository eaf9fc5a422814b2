//! Versions of kind, as far as they have to be compared.

use std::fmt;

/// A version of kind: `v0.33.0`. Pre-releases count as the version that they lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number.
    pub patch: u32,
}

/// The oldest kind that is driven. Since v0.20 nodes have a cgroup namespace of their own (`--cgroupns=private`), which node images
/// that were built since then rely on; see kind's release notes of v0.20.0.
pub const OLDEST: Version = Version::new(0, 20, 0);

/// The first kind that knows `kubeProxyMode: nftables` (kubernetes-sigs/kind#3577).
pub const NFTABLES: Version = Version::new(0, 23, 0);

impl Version {
    /// A version out of its numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Finds the version in what `kind version` prints: `kind v0.33.0-alpha+0123456789abcd go1.26.0 linux/amd64`.
    pub fn parse(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(|word| {
            let numbers = word.strip_prefix('v').unwrap_or(word);
            let core = numbers.split(['-', '+']).next()?;
            let mut parts = core.split('.').map(|part| part.parse().ok());
            let version = Self::new(parts.next()??, parts.next()??, parts.next()??);
            parts.next().is_none().then_some(version)
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_kind_prints() {
        for (text, version) in [
            (
                "kind v0.33.0-alpha+fed268820c20a0 go1.26.2 linux/amd64\n",
                Some(Version::new(0, 33, 0)),
            ),
            (
                "kind v0.20.0 go1.20.4 linux/amd64",
                Some(Version::new(0, 20, 0)),
            ),
            ("0.27.0\n", Some(Version::new(0, 27, 0))),
            ("kind (@(#)PROGRAM)", None),
            ("v1.2", None),
            ("", None),
        ] {
            assert_eq!(Version::parse(text), version, "{text:?}");
        }
        assert!(Version::new(0, 9, 0) < OLDEST && OLDEST < NFTABLES);
    }
}
