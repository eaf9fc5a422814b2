//! The images that specs use: which of those that `e2e.test -list-images` prints, and which specs have to wait for minutes where one is missing.
//!
//! `e2e.test` says which images the whole suite uses (dozens, some of a gigabyte, some made to be unobtainable), and not which spec uses which. [`USES`] is
//! therefore read from the source of the specs (`test/e2e/network`, Kubernetes v1.36). It only saves time: a spec whose image it does not foresee
//! is tried, waits for it in vain, and is infrastructure trouble all the same ([`super::pulling`]).

use std::collections::BTreeMap;

use serde::Serialize;

/// What to do about an image that is missing.
pub const REMEDY: &str = "with --kind, --load ARCHIVE puts an image into the nodes; elsewhere they need a way to its registry, or KUBE_TEST_REPO_LIST has to name one that they have";

/// Names of an image without registry and tag (older versions of the suite have another one), what the names of the specs that use it begin with, and
/// what they hold, of which one is enough.
const USES: [(&[&str], &str, &[&str]); 7] = [
    // A few specs look at objects only. They are too quick to be worth a list.
    (&["agnhost"], "", &[""]),
    (
        &["busybox"],
        "[sig-network] Conntrack ",
        &["unready endpoints", "invalid conntrack state"],
    ),
    (
        &["regression-issue-74839"],
        "[sig-network] Conntrack ",
        &["invalid conntrack state"],
    ),
    (
        &["glibc-dns-testing", "jessie-dnsutils"],
        "[sig-network] DNS ",
        &[
            " DNS for ",
            "/etc/hosts",
            "should resolve DNS",
            "should work with",
        ],
    ),
    (
        &["nginx"],
        "[sig-network] Endpoint",
        &["for Pods matching a Service"],
    ),
    (
        &["distroless-iptables"],
        "[sig-network] KubeProxy ",
        &["CLOSE_WAIT"],
    ),
    (
        &["pause"],
        "[sig-network] Service endpoints latency ",
        &[""],
    ),
];

/// The images that `e2e.test -list-images` prints, one per line; none if it does not know that flag.
pub fn listed(output: &str) -> Vec<String> {
    let is_image = |line: &&str| {
        let (name, tag) = line.rsplit_once(':').unwrap_or((line, ""));
        name.contains('/')
            && !tag.is_empty()
            && !tag.contains('/')
            && !line.contains(char::is_whitespace)
    };
    let mut all: Vec<String> = output
        .lines()
        .map(str::trim)
        .filter(is_image)
        .map(str::to_owned)
        .collect();
    all.sort();
    all.dedup();
    all
}

/// Whether the suite has this image to see that it cannot be had.
pub fn is_meant_to_be_missing(image: &str) -> bool {
    image.starts_with("invalid.") || image.contains("k8s-authenticated-test/")
}

/// The images that some specs use, each with the names of those that do.
pub fn needed<'a>(specs: &'a [String], listed: &[String]) -> BTreeMap<String, Vec<&'a str>> {
    let mut all: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (names, begins, holds) in USES {
        let users = specs.iter().map(String::as_str).filter(|spec| {
            spec.starts_with(begins) && holds.iter().any(|text| spec.contains(text))
        });
        let users: Vec<&str> = users.collect();
        let images = names.iter().filter_map(|name| newest(name, listed));
        for image in images.filter(|_| !users.is_empty()) {
            all.insert(image.to_owned(), users.clone());
        }
    }
    all
}

/// The image of this name that is not there for the upgrade from an older one: the suite has two of some.
fn newest<'a>(name: &str, listed: &'a [String]) -> Option<&'a str> {
    let mut found: Vec<&str> = listed
        .iter()
        .map(String::as_str)
        .filter(|image| !is_meant_to_be_missing(image) && name_of(image) == name)
        .collect();
    found.sort_by_key(|image| numbers(image));
    // nginx is the exception: the specs of SIG Network use the older one.
    match name {
        "nginx" => found.first().copied(),
        _ => found.last().copied(),
    }
}

/// The last part of the path.
fn name_of(image: &str) -> &str {
    let path = image.rsplit_once(':').map_or(image, |(path, _)| path);
    path.rsplit('/').next().unwrap_or(path)
}

/// The numbers of the tag, to be compared as numbers.
fn numbers(image: &str) -> Vec<u64> {
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    tag.split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// An image that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Missing {
    /// Its whole name.
    pub image: String,
    /// The nodes that do not have it and cannot get it, each with what it said.
    pub nodes: BTreeMap<String, String>,
}

impl Missing {
    /// For a report.
    pub fn reason(&self) -> String {
        let first = self.nodes.iter().next();
        let more = match self.nodes.len() {
            0 | 1 => String::new(),
            all => format!(" and {} more", all - 1),
        };
        match first {
            Some((node, said)) => format!(
                "the image {} cannot be had on {node}{more}: {said}",
                self.image
            ),
            None => format!("the image {} cannot be had", self.image),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `e2e.test` of v1.36 prints, shortened, with a line that is none of it.
    const LISTING: &str = "I1126 16:55:00.000000 1 some.go:1] a log line: with colons
registry.k8s.io/e2e-test-images/agnhost:2.63.0
registry.k8s.io/e2e-test-images/regression-issue-74839:1.5
registry.k8s.io/e2e-test-images/nginx:1.15-4
invalid.registry.k8s.io/invalid/alpine:3.1
registry.k8s.io/pause:3.10.2
gcr.io/k8s-authenticated-test/agnhost:2.6
registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0
registry.k8s.io/e2e-test-images/agnhost:2.55
registry.k8s.io/e2e-test-images/busybox:1.37.0-1
registry.k8s.io/e2e-test-images/nginx:1.27-0
registry.k8s.io/e2e-test-images/busybox:1.36.1-1
localhost:5000/mine:1
";

    #[test]
    fn images_are_told_from_what_else_is_printed() {
        let all = listed(LISTING);
        assert_eq!(all.len(), 12, "{all:?}");
        assert!(all.iter().all(|image| !image.contains("log line")));
        for none in [
            "",
            "flag provided but not defined: -list-images\nUsage of e2e.test:\n",
            "nothing:5000/here",
        ] {
            assert!(listed(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn a_spec_needs_what_it_uses_and_nothing_else() {
        let specs: Vec<String> = [
            "[sig-network] Services should serve a basic endpoint from pods [Conformance]",
            "[sig-network] Conntrack should be able to preserve UDP traffic when initial unready endpoints get ready",
            "[sig-network] Conntrack proxy implementation should not be vulnerable to the invalid conntrack state bug [Privileged]",
            "[sig-network] DNS should provide DNS for the cluster [Conformance]",
            "[sig-network] EndpointSlice should create Endpoints and EndpointSlices for Pods matching a Service [Conformance]",
        ]
        .map(str::to_owned)
        .into();
        let images = needed(&specs, &listed(LISTING));
        let short: Vec<(&str, usize)> = images
            .iter()
            .map(|(image, users)| (image.rsplit('/').next().unwrap(), users.len()))
            .collect();
        assert_eq!(
            short,
            [
                ("agnhost:2.63.0", 5),
                ("busybox:1.37.0-1", 2),
                ("glibc-dns-testing:2.0.0", 1),
                ("nginx:1.15-4", 1),
                ("regression-issue-74839:1.5", 1),
            ]
        );
        let basic = needed(&specs[..1], &listed(LISTING));
        assert_eq!(basic.len(), 1, "{basic:?}");
        // Another suite, which lists none of them.
        assert!(needed(&specs, &[]).is_empty());
    }

    #[test]
    fn the_specs_of_the_table_are_in_the_suite() {
        let text = include_str!("../../../scenarios/upstream.yaml");
        for (images, begins, holds) in USES {
            for hold in holds {
                let found = text
                    .lines()
                    .any(|line| line.contains(begins) && line.contains(hold));
                assert!(
                    found,
                    "{images:?}: no spec begins with {begins:?} and holds {hold:?}"
                );
            }
        }
    }

    #[test]
    fn an_image_is_told_with_the_first_node_and_the_number_of_others() {
        let nodes = [("a", "no such host"), ("b", "no such host")];
        let missing = Missing {
            image: "registry.example/x:1".into(),
            nodes: nodes
                .map(|(node, said)| (node.to_owned(), said.to_owned()))
                .into(),
        };
        assert_eq!(
            missing.reason(),
            "the image registry.example/x:1 cannot be had on a and 1 more: no such host"
        );
    }
}
