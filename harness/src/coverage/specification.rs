//! The requirements as a document: `docs/specification.md`.

use std::fmt::Write as _;

use super::{
    drawings::{DRAWINGS, drawing},
    render::escaped,
};
use crate::plan::{Catalogue, Requirement, Requirements, level_name};

/// How to make the document again.
const HOW: &str = "harness explain --all > docs/specification.md";

/// The areas in the order of the document: id, title, what they are about.
const AREAS: &[(&str, &str, &str)] = &[
    (
        "clusterip",
        "ClusterIP",
        "The virtual address of a Service within the cluster: `spec.clusterIPs` and `spec.ports`.",
    ),
    (
        "nodeport",
        "NodePort",
        "A port on the nodes themselves: `spec.ports[].nodePort`.",
    ),
    (
        "externalip",
        "externalIPs",
        "Addresses that somebody routes to the nodes: `spec.externalIPs`.",
    ),
    (
        "loadbalancer",
        "LoadBalancer addresses",
        "Addresses of load balancers: `status.loadBalancer.ingress`, which controllers write. A proxy serves them on every node.",
    ),
    (
        "endpoints",
        "Endpoints",
        "Which endpoints of a Service's EndpointSlices get new flows. An endpoint is *usable* as far as these rules and the traffic policy say so.",
    ),
    (
        "policy",
        "Traffic policies and topology",
        "Which usable endpoints are near enough: `internalTrafficPolicy`, `externalTrafficPolicy` and the hints in EndpointSlices.",
    ),
    (
        "affinity",
        "Session affinity",
        "`spec.sessionAffinity: ClientIP`: a client keeps its endpoint.",
    ),
    (
        "source-address",
        "Source addresses",
        "What the endpoint sees of its client.",
    ),
    (
        "no-endpoints",
        "No endpoints",
        "Refusing is an answer too, and the only one that lets clients go on at once.",
    ),
    (
        "udp",
        "UDP flows",
        "Connection tracking remembers where a flow was sent for as long as datagrams come; changing the rules does not change it.",
    ),
    (
        "tcp",
        "Established TCP",
        "What was accepted has to be finished.",
    ),
    (
        "control-plane",
        "Control plane",
        "Following the API through restarts, lost watches, odd objects and other people's changes to the kernel.",
    ),
    (
        "size",
        "Payload and packet sizes",
        "From no byte to more than a packet holds.",
    ),
    (
        "health",
        "Health checks",
        "What the proxy tells load balancers and whoever looks after it.",
    ),
    ("distribution", "Distribution", "How new flows are spread."),
    (
        "filters",
        "Filters",
        "Services and slices that are somebody else's business.",
    ),
    ("families", "Families", "IPv4, IPv6, both."),
    ("scale", "Scale", "How the times grow with the cluster."),
    (
        "safety",
        "Negative reachability",
        "What must not answer, because of the proxy or in spite of it.",
    ),
];

/// The document.
pub fn specification(requirements: &Requirements, catalogue: &Catalogue) -> String {
    let mut text = head(requirements);
    text.push_str("## Packet paths\n\n");
    for drawing in DRAWINGS {
        let _ = write!(
            text,
            "### {}\n\n```text\n{}\n```\n\n{}\n\n",
            drawing.title,
            drawing.picture.trim_matches('\n'),
            drawing.text
        );
    }
    let known = |area: &str| AREAS.iter().any(|(id, ..)| *id == area);
    for (area, title, about) in AREAS {
        if requirements.iter().any(|rule| rule.area == *area) {
            let _ = write!(text, "## {title}\n\n{about}\n\n");
            for rule in requirements.iter().filter(|rule| rule.area == *area) {
                text.push_str(&describe(rule, catalogue));
            }
        }
    }
    for rule in requirements.iter().filter(|rule| !known(&rule.area)) {
        text.push_str(&describe(rule, catalogue));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn head(requirements: &Requirements) -> String {
    let mut text = format!(
        "# What a Kubernetes Service proxy has to do

<!-- Generated from scenarios/requirements.yaml and the catalogue: {HOW} -->

A Service proxy makes the addresses of Services work: it watches the Kubernetes API and arranges on every node that packets to a
frontend reach an endpoint. kube-proxy is one; several CNI plugins and other projects have their own. What they have to do is
spread over field documentation, enhancement proposals, end-to-end tests and the issues of two decades; this document collects it,
one rule each, with its sources and with the scenarios that prove it against real packets.

The rules are about Linux nodes and what can be observed from outside the proxy: packets, refusals, health checks, what is left in
the kernel. How a proxy does it is its own affair. The ids are stable: an id is never used again for another rule.

## Terms

| Term | |
|---|---|
| Service, Service port | an object of kind Service, and one entry of its `spec.ports` |
| frontend | an address, protocol and port at which a Service port is reached: ClusterIP, NodePort, externalIP or LoadBalancer address |
| endpoint | an address and port that serve it, from an EndpointSlice of the Service |
| ready, serving, terminating | the conditions of an endpoint |
| usable | of an endpoint: new flows may be sent to it, by its conditions and the traffic policy |
| flow | the packets between two pairs of address and port, both ways: a TCP connection, or datagrams from and to the same ports |
| hairpin | a flow from a pod that is sent to the same pod |
| masquerade | to replace the source address by one of the node |
| refuse | to answer at once that nobody serves: TCP RST or ICMP unreachable |
| drop | not to answer at all |
| convergence | the time from a change of the API objects until every new flow follows it |
| outside | where clients are that reach the nodes by routing and belong to no node or pod |

MUST, MUST NOT, SHOULD and SHOULD NOT are to be read as in RFC 2119. A MUST that depends on time (\"when\", \"follow\") means within the
deadline of the scenario that proves it, at most 30 seconds unless it says otherwise; how long it took is measured and reported.

## Levels

| Level | Rules | |
|---|--:|---|
"
    );
    for (level, about) in [
        (
            "core",
            "every Service proxy; failing one means not conformant",
        ),
        (
            "extended",
            "behaviour that the API or an enhancement proposal defines and that a proxy may declare as unsupported",
        ),
        (
            "strict",
            "quality beyond what a specification demands, learned from outages; never decides conformance",
        ),
        (
            "info",
            "left open by every specification; what a proxy does is recorded and never failed",
        ),
    ] {
        let count = requirements
            .iter()
            .filter(|rule| level_name(rule.level) == level)
            .count();
        let _ = writeln!(text, "| {level} | {count} | {about} |");
    }
    text.push('\n');
    text
}

/// One rule as a section.
fn describe(rule: &Requirement, catalogue: &Catalogue) -> String {
    let mut text = format!(
        "### {} ({})\n\n{}\n\n",
        rule.id,
        level_name(rule.level),
        escaped(&rule.text)
    );
    if let Some(rationale) = &rule.rationale {
        let _ = write!(text, "{}\n\n", escaped(rationale));
    }
    if let Some(drawing) = rule.path.as_deref().and_then(drawing) {
        let _ = write!(
            text,
            "Packet path: [{}](#{})\n\n",
            drawing.title,
            anchor(drawing.title)
        );
    }
    let sources: Vec<String> = rule.source.iter().map(|source| link(source)).collect();
    let _ = write!(text, "Sources: {}\n\n", sources.join("; "));
    let scenarios: Vec<String> = catalogue
        .documents
        .iter()
        .filter(|document| document.header.requirement.contains(&rule.id))
        .map(|document| format!("[{}](../{})", document.header.id, document.file))
        .collect();
    if !scenarios.is_empty() {
        let _ = write!(text, "Proved by: {}\n\n", scenarios.join(", "));
    }
    if let Some(characteristic) = &rule.characteristic {
        let _ = write!(text, "Recorded as: `{characteristic}`\n\n");
    }
    if let (true, Some(reason)) = (scenarios.is_empty(), &rule.unproven) {
        let _ = write!(text, "No scenario proves it: {}\n\n", escaped(reason));
    }
    text
}

/// The anchor that renderers give a heading.
fn anchor(title: &str) -> String {
    title
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// Projects by the short names that sources use.
const PROJECTS: &[(&str, &str)] = &[
    ("antrea", "antrea-io/antrea"),
    ("calico", "projectcalico/calico"),
    ("cilium", "cilium/cilium"),
    ("felix", "projectcalico/felix"),
    ("kindnet", "kubernetes-sigs/kindnet"),
    ("kpng", "kubernetes-sigs/kpng"),
    (
        "kube-network-policies",
        "kubernetes-sigs/kube-network-policies",
    ),
    ("kube-router", "cloudnativelabs/kube-router"),
    ("ovn-kubernetes", "ovn-org/ovn-kubernetes"),
];

/// A source with a link, where it has a place.
fn link(source: &str) -> String {
    let repository = |name: &str| {
        let known = PROJECTS.iter().find(|(short, _)| *short == name);
        let full = known.map_or(name, |(_, full)| full);
        full.contains('/')
            .then(|| format!("https://github.com/{full}"))
    };
    let url = if let Some(field) = source.strip_prefix("api:") {
        let kind = field.split('.').next().unwrap_or(field);
        let page = match kind {
            "EndpointSlice" | "Endpoint" | "EndpointConditions" | "EndpointPort"
            | "EndpointHints" => "service-resources/endpoint-slice-v1/#EndpointSlice",
            "Node" | "NodeStatus" | "NodeSpec" => "cluster-resources/node-v1/#NodeSpec",
            "ServiceStatus" | "LoadBalancerIngress" | "PortStatus" => {
                "service-resources/service-v1/#ServiceStatus"
            }
            _ => "service-resources/service-v1/#ServiceSpec",
        };
        Some(format!(
            "https://kubernetes.io/docs/reference/kubernetes-api/{page}"
        ))
    } else if let Some(number) = source.strip_prefix("KEP-") {
        Some(format!("https://kep.k8s.io/{number}"))
    } else if let Some(number) = source.strip_prefix("RFC-") {
        Some(format!("https://www.rfc-editor.org/rfc/rfc{number}"))
    } else if source.starts_with("CVE-") {
        Some(format!("https://nvd.nist.gov/vuln/detail/{source}"))
    } else if let Some((name, number)) = source.split_once('#') {
        repository(name).map(|place| format!("{place}/issues/{number}"))
    } else if let Some((name, commit)) = source.split_once('@') {
        repository(name).map(|place| format!("{place}/commit/{commit}"))
    } else {
        None
    };
    match url {
        Some(url) => format!("[{}]({url})", escaped(source)),
        None => escaped(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::Accounts;

    #[test]
    fn sources_have_places() {
        for (source, want) in [
            ("KEP-1669", "[KEP-1669](https://kep.k8s.io/1669)"),
            (
                "kubernetes/kubernetes#1",
                "[kubernetes/kubernetes#1](https://github.com/kubernetes/kubernetes/issues/1)",
            ),
            (
                "cilium#2",
                "[cilium#2](https://github.com/cilium/cilium/issues/2)",
            ),
            (
                "kpng@79cdcb6",
                "[kpng@79cdcb6](https://github.com/kubernetes-sigs/kpng/commit/79cdcb6)",
            ),
            (
                "api:Endpoint.nodeName",
                "[api:Endpoint.nodeName](https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/#EndpointSlice)",
            ),
            ("bug:U1", "bug:U1"),
            (
                "kube-proxy:--nodeport-addresses",
                "kube-proxy:--nodeport-addresses",
            ),
        ] {
            assert_eq!(link(source), want);
        }
    }

    #[test]
    fn every_rule_has_a_section_in_a_known_area() {
        let requirements = Requirements::embedded().expect("embedded");
        let catalogue = Catalogue::embedded(&requirements).expect("embedded");
        let text = specification(&requirements, &catalogue);
        for rule in requirements.iter() {
            assert!(
                AREAS.iter().any(|(id, ..)| *id == rule.area),
                "{}: the area '{}' has no title",
                rule.id,
                rule.area
            );
            assert!(
                text.contains(&format!("\n### {} (", rule.id)),
                "{}",
                rule.id
            );
            if let Some(path) = &rule.path {
                assert!(
                    drawing(path).is_some(),
                    "{}: '{path}' is no drawing",
                    rule.id
                );
            }
        }
    }

    /// A source that names an upstream spec names one that exists.
    #[test]
    fn upstream_sources_exist() {
        let requirements = Requirements::embedded().expect("embedded");
        let names = Accounts::embedded().expect("embedded").upstream.names();
        for rule in requirements.iter() {
            for source in &rule.source {
                if let Some(name) = source.strip_prefix("e2e:") {
                    assert!(names.any_contains(name), "{}: {source}", rule.id);
                }
            }
        }
    }
}
