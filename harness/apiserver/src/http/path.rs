//! What a path of the Kubernetes API means.

/// A request's path, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// `/healthz`, `/livez`, `/readyz` and what lies below.
    Health,
    /// `/version`.
    Version,
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    Resources {
        /// Empty for the core group.
        group: String,
        version: String,
    },
    /// `/openapi/v3` and what lies below, such as `apis/apps/v1`.
    OpenApi(String),
    /// A resource, or one object.
    Resource(ResourcePath),
    /// Anything else.
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) plural: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    /// The old form of a watch: `/api/v1/watch/...`.
    pub(crate) watch: bool,
}

impl Path {
    pub(crate) fn parse(path: &str) -> Path {
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        match parts.as_slice() {
            ["healthz" | "livez" | "readyz", ..] => Path::Health,
            ["version"] => Path::Version,
            ["api"] => Path::CoreVersions,
            ["apis"] => Path::Groups,
            ["apis", group] => Path::Group((*group).to_owned()),
            ["api", version] => Path::Resources {
                group: String::new(),
                version: (*version).to_owned(),
            },
            ["apis", group, version] => Path::Resources {
                group: (*group).to_owned(),
                version: (*version).to_owned(),
            },
            ["openapi", "v3", rest @ ..] => Path::OpenApi(rest.join("/")),
            ["api", version, rest @ ..] => resource("", version, rest),
            ["apis", group, version, rest @ ..] => resource(group, version, rest),
            _ => Path::Unknown,
        }
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Path {
    let own = |s: &&str| (*s).to_owned();
    let (watch, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        rest => (false, rest),
    };
    let mut path = ResourcePath {
        group: group.to_owned(),
        version: version.to_owned(),
        watch,
        ..ResourcePath::default()
    };
    let tail = match rest {
        // `namespaces/x` and its subresources are about the Namespace itself.
        ["namespaces", _, "status" | "finalize"] | ["namespaces"] | ["namespaces", _] => rest,
        ["namespaces", namespace, tail @ ..] => {
            path.namespace = Some(own(namespace));
            tail
        }
        tail => tail,
    };
    match tail {
        [plural] => path.plural = own(plural),
        [plural, name] => {
            path.plural = own(plural);
            path.name = Some(own(name));
        }
        [plural, name, subresource] => {
            path.plural = own(plural);
            path.name = Some(own(name));
            path.subresource = Some(own(subresource));
        }
        _ => return Path::Unknown,
    }
    Path::Resource(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> ResourcePath {
        match Path::parse(path) {
            Path::Resource(path) => path,
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn namespaces_are_both_a_resource_and_a_prefix() {
        assert_eq!(parsed("/api/v1/namespaces").name, None);
        let one = parsed("/api/v1/namespaces/default");
        assert_eq!(
            (one.plural.as_str(), one.name.as_deref(), one.namespace),
            ("namespaces", Some("default"), None)
        );
        let status = parsed("/api/v1/namespaces/default/status");
        assert_eq!(
            (status.plural.as_str(), status.subresource.as_deref()),
            ("namespaces", Some("status"))
        );
        let services = parsed("/api/v1/namespaces/default/services");
        assert_eq!(
            (services.plural.as_str(), services.namespace.as_deref()),
            ("services", Some("default"))
        );
    }

    #[test]
    fn groups_names_and_subresources() {
        let slice = parsed("/apis/discovery.k8s.io/v1/namespaces/a/endpointslices/web-x");
        assert_eq!(
            (slice.group.as_str(), slice.name.as_deref()),
            ("discovery.k8s.io", Some("web-x"))
        );
        assert_eq!(
            parsed("/api/v1/nodes/n1/status").subresource.as_deref(),
            Some("status")
        );
        assert!(parsed("/api/v1/watch/services").watch);
        assert_eq!(
            Path::parse("/apis/apps/v1"),
            Path::Resources {
                group: "apps".into(),
                version: "v1".into()
            }
        );
        assert_eq!(Path::parse("/nothing"), Path::Unknown);
    }
}
