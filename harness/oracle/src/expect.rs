//! The rules: from a source and a destination to what must happen.
//!
//! ```text
//!   destination ── loopback? ───────────────────────────────> loopback rules
//!        │
//!        ├── frontends of served Services at this address and port
//!        │       ClusterIP ─────────> internalTrafficPolicy, node of the client
//!        │       externalIP ────────> in-cluster: Cluster; outside: externalTrafficPolicy, arrival node
//!        │       LoadBalancer IP ───> source ranges, then like externalIP
//!        │       NodePort ──────────> node addresses, externalTrafficPolicy, node that owns the address
//!        │
//!        └── none: unused port of a ClusterIP, free address of the Service range, or plain routing
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::address::parse_cidr;
use crate::cluster::{Cluster, Node};
use crate::endpoints::{
    Contested, Endpoint, EndpointSets, TopologyMode, any_contested, endpoint_sets,
};
use crate::expectation::{Characteristic, ClientAddress, Direct, Expectation, Outcome, Share};
use crate::frontend::{
    FrontendKind, NodePortAddress, Served, external_ips, load_balancer_ips, node_port,
    nodeport_address, served,
};
use crate::objects::{Service, ServicePort, ServiceType, TrafficPolicy};
use crate::traffic::{Destination, Family, Protocol, Source};

/// Says what must happen to a new flow from `source` to `to`, once the proxy has converged on the objects.
pub fn expect(cluster: &Cluster, source: &Source, to: &Destination) -> Expectation {
    let question = Question {
        cluster,
        source,
        to: *to,
        family: Family::of(to.ip),
        contested: Contested::Usable,
    };
    let mut answer = if to.ip.is_loopback() {
        question.loopback()
    } else {
        question.not_loopback()
    };
    let affinity = answer
        .outcomes
        .iter()
        .any(|o| matches!(o, Outcome::Endpoints { .. }));
    if !affinity {
        answer.affinity = None;
    }
    if cluster.refusals_are_limited {
        for outcome in &mut answer.outcomes {
            if *outcome == Outcome::Refuse {
                *outcome = Outcome::NoAnswer;
            }
        }
    }
    if cluster.pods_are_masqueraded_to_nodes {
        question.without_client_addresses(&mut answer.outcomes);
    }
    answer.into_expectation(question.client_ips(), question.direct())
}

/// An answer in the making.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    outcomes: Vec<Outcome>,
    characteristics: Vec<Characteristic>,
    why: Vec<(&'static str, String)>,
    affinity: Option<Duration>,
    /// Set when it is open whether anybody serves the destination at all.
    unserved: Option<Unserved>,
}

/// An open choice between what a frontend does and nothing at all.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Unserved {
    characteristic: &'static str,
    explanation: &'static str,
    /// To do nothing is the plainer reading, and is named first.
    plainer: bool,
}

impl Answer {
    fn one(outcome: Outcome, id: &'static str, text: impl Into<String>) -> Self {
        Answer {
            outcomes: vec![outcome],
            why: vec![(id, text.into())],
            ..Answer::default()
        }
    }

    fn because(&mut self, id: &'static str, text: impl Into<String>) {
        self.why.push((id, text.into()));
    }

    fn before(mut self, reasons: Vec<(&'static str, String)>) -> Self {
        self.why.splice(0..0, reasons);
        self
    }

    /// Puts the open choice whether anybody serves the destination among the outcomes.
    fn settle(mut self) -> Self {
        if let Some(unserved) = self.unserved.take() {
            let plain = Answer {
                outcomes: vec![Outcome::NotService],
                ..Answer::default()
            };
            self.or(plain, unserved.characteristic, unserved.explanation);
            if unserved.plainer {
                self.outcomes
                    .sort_by_key(|outcome| *outcome != Outcome::NotService);
            }
        }
        self
    }

    /// Adds another acceptable answer. A characteristic arises only when that makes a difference.
    fn or(&mut self, other: Answer, id: &str, text: &str) {
        // What one claim leaves open is decided where another one is sure.
        self.unserved = self.unserved.and(other.unserved);
        let before = self.outcomes.clone();
        for outcome in other.outcomes {
            if !self.outcomes.contains(&outcome) {
                self.outcomes.push(outcome);
            }
        }
        if self.outcomes.contains(&Outcome::NoAnswer) {
            // That includes both ways in which nobody answers.
            self.outcomes
                .retain(|outcome| !matches!(outcome, Outcome::Refuse | Outcome::Drop));
        }
        if self.outcomes == before {
            return;
        }
        for reason in other.why {
            if !self.why.contains(&reason) {
                self.why.push(reason);
            }
        }
        self.affinity = self.affinity.or(other.affinity);
        let own = Characteristic {
            id: id.to_owned(),
            text: text.to_owned(),
        };
        for characteristic in [own].into_iter().chain(other.characteristics) {
            if !self.characteristics.contains(&characteristic) {
                self.characteristics.push(characteristic);
            }
        }
    }

    fn into_expectation(self, client_ips: Vec<IpAddr>, direct: Direct) -> Expectation {
        let mut requirements: Vec<String> = Vec::new();
        for (id, _) in &self.why {
            if !requirements.iter().any(|known| known == id) {
                requirements.push((*id).to_owned());
            }
        }
        let choices = self.outcomes.len();
        let characteristic = self
            .characteristics
            .into_iter()
            .filter(|_| choices > 1)
            .reduce(|one, other| Characteristic {
                id: format!("{}+{}", one.id, other.id),
                text: format!("{} {}", one.text, other.text),
            });
        Expectation {
            outcomes: self.outcomes,
            characteristic,
            why: self
                .why
                .iter()
                .map(|(id, text)| format!("{id}: {text}"))
                .collect(),
            requirements,
            affinity: self.affinity,
            client_ips,
            direct,
        }
    }
}

/// A Service port that has a frontend at the destination.
struct Match<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    kind: FrontendKind,
    headless: Option<Headless>,
}

/// What is open about Services that look headless.
#[derive(Clone, Copy)]
enum Headless {
    /// `clusterIP: None`, with external frontends.
    External,
    /// The label of headless Services' slices on a Service that is not headless.
    Labelled,
}

impl Headless {
    fn reasons(self, service: &Service) -> Vec<(&'static str, String)> {
        let name = service.display_name();
        match self {
            Headless::External => vec![
                ("FLT-1", format!("Service {name} is headless")),
                (
                    "FLT-6",
                    "external frontends of headless Services are open".into(),
                ),
            ],
            Headless::Labelled => vec![
                (
                    "FLT-7",
                    format!("Service {name} has the label service.kubernetes.io/headless"),
                ),
                (
                    "FLT-7",
                    "the label is defined for slices, its meaning on a Service is open".into(),
                ),
            ],
        }
    }

    fn unserved(self) -> Unserved {
        let (characteristic, explanation) = match self {
            Headless::External => (
                "headless-external-frontend",
                "no specification says whether externalIPs and NodePorts of a headless Service are served.",
            ),
            Headless::Labelled => (
                "headless-label-on-service",
                "the label is documented for EndpointSlices; some proxies leave a Service alone that carries it itself.",
            ),
        };
        Unserved {
            characteristic,
            explanation,
            plainer: true,
        }
    }
}

impl Match<'_> {
    fn describe(&self, to: &Destination) -> String {
        let port = match self.port.name.as_str() {
            "" => String::new(),
            name => format!(" port {name:?}"),
        };
        format!(
            "{to} is a {} of Service {}{port}",
            self.kind,
            self.service.display_name()
        )
    }
}

#[derive(Clone, Copy)]
struct Question<'a> {
    cluster: &'a Cluster,
    source: &'a Source,
    to: Destination,
    family: Family,
    contested: Contested,
}

impl<'a> Question<'a> {
    fn loopback(&self) -> Answer {
        let Source::Node { name } = self.source else {
            return match self.source {
                // A pod's loopback is its own, whatever listens there.
                Source::Pod { .. } => Answer::one(
                    Outcome::NotService,
                    "SAFE-4",
                    "a pod's loopback addresses are its own",
                ),
                _ => Answer::one(
                    Outcome::NoAnswer,
                    "SAFE-1",
                    "loopback addresses must not be reachable from other hosts",
                ),
            };
        };
        let node = self.node(name);
        let plain = Answer::one(
            Outcome::NotService,
            "SVC-NP-5",
            format!(
                "{} is a loopback address: whether NodePorts are served there is open",
                self.to
            ),
        );
        let mut answer = plain.clone();
        for found in self.matches(|service, port| {
            let own = node_port(service, port) == Some(self.to.port);
            own.then_some(FrontendKind::NodePort).into_iter().collect()
        }) {
            if nodeport_address(self.cluster, &node, self.to.ip) == NodePortAddress::MustNot {
                return Answer::one(
                    Outcome::NotService,
                    "SVC-NP-3",
                    format!("--nodeport-addresses does not contain {}", self.to.ip),
                );
            }
            let reasons = found
                .headless
                .map(|headless| headless.reasons(found.service));
            answer.or(
                self.both_readings(&found, |question| question.nodeport_policy(&found, &node))
                    .before(reasons.unwrap_or_default()),
                "nodeport-localhost",
                "no specification says whether NodePorts are served on loopback addresses.",
            );
        }
        if answer == plain {
            return self.plain_routing();
        }
        answer
    }

    fn not_loopback(&self) -> Answer {
        let matches = self.matches(|service, port| self.frontend_kinds(service, port));
        let mut answers = matches
            .iter()
            .map(|found| (found.service.key(), self.at_frontend(found)));
        let Some((first, mut answer)) = answers.next() else {
            return self.no_frontend();
        };
        for (key, other) in answers {
            let mut reasons = Vec::new();
            if key != first {
                reasons.push(("SVC-EIP-3", format!("several Services claim {}", self.to)));
            }
            answer.or(
                other.before(reasons),
                "frontend-conflict",
                "several claims are on the same address, port and protocol; which one is served is open.",
            );
        }
        answer.settle()
    }

    // ---- What the destination is.

    /// All Services by name: the order of objects must not show in the answer.
    fn services(&self) -> Vec<&'a Service> {
        let mut services: Vec<&Service> = self.cluster.services.iter().collect();
        services.sort_by_key(|service| service.key());
        services
    }

    /// All ports of Services in the family and protocol that `kinds` finds at the destination, if this proxy serves the
    /// Service or may serve it.
    fn matches(
        &self,
        kinds: impl Fn(&Service, &ServicePort) -> Vec<FrontendKind>,
    ) -> Vec<Match<'a>> {
        let mut found: Vec<Match<'a>> = Vec::new();
        for service in self.services() {
            let headless = match served(self.cluster, service) {
                Served::Yes => None,
                Served::Headless => Some(Headless::External),
                Served::HeadlessLabel => Some(Headless::Labelled),
                Served::OtherProxy | Served::ExternalName => continue,
            };
            if !service.has_family(self.family) {
                continue;
            }
            let ports = service.ports().iter();
            for port in ports.filter(|port| port.protocol == self.to.protocol) {
                found.extend(kinds(service, port).into_iter().map(|kind| Match {
                    service,
                    port,
                    kind,
                    headless,
                }));
            }
        }
        // The order of ports must not show in the answer either.
        found.sort_by_key(|found| (found.service.key(), found.port.name.clone(), found.kind));
        found
    }

    /// What the destination is for a Service port. A ClusterIP is nothing else besides, even when it is listed again.
    fn frontend_kinds(&self, service: &Service, port: &ServicePort) -> Vec<FrontendKind> {
        let mut kinds = Vec::new();
        if port.port == self.to.port {
            if service.cluster_ip(self.family) == Some(self.to.ip) {
                return vec![FrontendKind::ClusterIp];
            }
            if load_balancer_ips(service, self.family, false).contains(&self.to.ip) {
                kinds.push(FrontendKind::LoadBalancerIp);
            }
            if external_ips(service, self.family).contains(&self.to.ip) {
                kinds.push(FrontendKind::ExternalIp);
            }
        }
        if node_port(service, port) == Some(self.to.port)
            && self.cluster.node_owning(self.to.ip).is_some()
        {
            kinds.push(FrontendKind::NodePort);
        }
        kinds
    }

    /// The destination is no frontend of any served Service.
    fn no_frontend(&self) -> Answer {
        let cluster_ip_of = self
            .services()
            .into_iter()
            .filter(|service| service.kind() != ServiceType::ExternalName)
            .find(|service| service.cluster_ip(self.family) == Some(self.to.ip));
        if let Some(service) = cluster_ip_of {
            if served(self.cluster, service) == Served::OtherProxy {
                let text = format!("Service {} {OTHER_PROXY}", service.display_name());
                return Answer::one(Outcome::NotService, "FLT-2", text);
            }
            let mut answer = Answer::one(
                Outcome::NoAnswer,
                "SVC-CIP-4",
                format!(
                    "Service {} has no port {}/{} at its ClusterIP",
                    service.display_name(),
                    self.to.port,
                    self.to.protocol
                ),
            );
            answer.because("SAFE-2", "no process of a node may answer at a ClusterIP");
            return answer;
        }
        if let Some(answer) = self.unserved() {
            return answer;
        }
        if self
            .cluster
            .service_cidrs
            .iter()
            .any(|range| range.contains(&self.to.ip))
        {
            return Answer::one(
                Outcome::NoAnswer,
                "SAFE-3",
                format!(
                    "{} is in the Service range but no Service has it",
                    self.to.ip
                ),
            );
        }
        for service in self.services() {
            if load_balancer_ips(service, self.family, true).contains(&self.to.ip) {
                return Answer::one(
                    Outcome::NotService,
                    "SVC-LB-3",
                    format!(
                        "{} is a LoadBalancer IP of Service {} with ipMode Proxy",
                        self.to.ip,
                        service.display_name()
                    ),
                );
            }
        }
        self.plain_routing()
    }

    /// The destination would be a frontend if its Service were one that this proxy serves.
    fn unserved(&self) -> Option<Answer> {
        for service in self.services() {
            let ports = service.ports().iter();
            let would_match = ports
                .filter(|port| port.protocol == self.to.protocol)
                .any(|port| !self.frontend_kinds(service, port).is_empty());
            if !would_match {
                continue;
            }
            let (id, reason) = match served(self.cluster, service) {
                Served::OtherProxy => ("FLT-2", OTHER_PROXY.to_owned()),
                Served::ExternalName => ("FLT-4", "is of type ExternalName".to_owned()),
                Served::Yes | Served::Headless | Served::HeadlessLabel => {
                    let text = format!("does not exist in the family {}", self.family);
                    ("FAM-3", text)
                }
            };
            let text = format!("Service {} {reason}", service.display_name());
            return Some(Answer::one(Outcome::NotService, id, text));
        }
        None
    }

    fn plain_routing(&self) -> Answer {
        let text = match self.direct() {
            Direct::Listener { name } => {
                let text = format!("{} is no Service's port, so {name} answers there", self.to);
                return Answer::one(Outcome::NotService, "SVC-NP-7", text);
            }
            Direct::Pod { name } => format!("{} is the address of pod {name}", self.to.ip),
            Direct::Nobody => format!("{} is no Service's", self.to),
        };
        Answer::one(Outcome::NotService, "SAFE-4", text)
    }

    fn direct(&self) -> Direct {
        if let Some(pod) = self.cluster.pods.get(&self.to.ip) {
            return Direct::Pod {
                name: pod.name.clone(),
            };
        }
        let owner = match self.source {
            Source::Node { name } if self.to.ip.is_loopback() => Some(name.as_str()),
            _ => self
                .cluster
                .node_owning(self.to.ip)
                .map(|node| node.name.as_str()),
        };
        match listener(
            self.cluster,
            owner,
            self.to.ip,
            self.to.port,
            self.to.protocol,
        ) {
            Some(name) => Direct::Listener { name },
            None => Direct::Nobody,
        }
    }

    // ---- What the frontend does.

    /// What `of` says, and what it says where the copies of an endpoint contradict each other and are read the other way.
    fn both_readings(&self, found: &Match<'_>, of: impl Fn(&Self) -> Answer) -> Answer {
        let mut answer = of(self);
        let slices = &self.cluster.slices;
        if any_contested(slices, found.service, found.port, self.family) {
            let mut other = of(&Question {
                contested: Contested::Unusable,
                ..*self
            });
            other.because(
                "EP-16",
                "an address has a serving and terminating copy and one that is not ready",
            );
            answer.or(
                other,
                "terminating-beside-unready",
                "the address may be that of a new pod already, which is not ready.",
            );
        }
        answer
    }

    fn at_frontend(&self, found: &Match<'_>) -> Answer {
        let answer = self.both_readings(found, |question| match found.kind {
            FrontendKind::ClusterIp => question.cluster_ip(found),
            FrontendKind::NodePort => question.node_port(found),
            FrontendKind::ExternalIp => question.external(found),
            FrontendKind::LoadBalancerIp => question.load_balancer(found),
        });
        let id = match (found.kind, self.source) {
            (FrontendKind::ClusterIp, Source::Node { .. }) => "SVC-CIP-2",
            (FrontendKind::ClusterIp, _) => "SVC-CIP-1",
            (FrontendKind::NodePort, source) if source.in_cluster() => "SVC-NP-2",
            (FrontendKind::NodePort, _) => "SVC-NP-1",
            (FrontendKind::ExternalIp, source) if source.in_cluster() => "SVC-EIP-2",
            (FrontendKind::ExternalIp, _) => "SVC-EIP-1",
            (FrontendKind::LoadBalancerIp, source) if source.in_cluster() => "SVC-LB-2",
            (FrontendKind::LoadBalancerIp, _) => "SVC-LB-1",
        };
        let mut reasons = vec![(id, found.describe(&self.to))];
        if found.kind != FrontendKind::LoadBalancerIp && !found.service.source_ranges().is_empty() {
            let text = "loadBalancerSourceRanges does not apply to this frontend";
            reasons.push(("SVC-LB-5", text.into()));
        }
        let mut answer = answer.before(reasons);
        // Where nothing is to be served anyway, nothing is open.
        let unserved = [Outcome::NotService];
        if let Some(headless) = found.headless
            && answer.outcomes != unserved
        {
            answer = answer.before(headless.reasons(found.service));
            answer.unserved = Some(headless.unserved());
        }
        answer
    }

    fn cluster_ip(&self, found: &Match<'_>) -> Answer {
        let policy = found.service.internal_policy();
        if !self.source.in_cluster() {
            let mut answer = Answer::one(
                Outcome::NoAnswer,
                "SVC-CIP-5",
                "whether ClusterIPs can be reached from outside is open",
            );
            for node in self.arrival_nodes() {
                answer.or(
                    self.by_internal_policy(found, &node, policy),
                    "clusterip-from-outside",
                    "no specification says whether a ClusterIP can be reached from outside the cluster.",
                );
            }
            return answer;
        }
        let node = self.node(self.source.node().unwrap_or_default());
        self.by_internal_policy(found, &node, policy)
    }

    fn by_internal_policy(&self, found: &Match<'_>, node: &Node, policy: TrafficPolicy) -> Answer {
        let client = match self.source {
            Source::Pod { .. } => ClientAddress::Preserved,
            _ => ClientAddress::NotPreservedAllowed,
        };
        let sets = self.sets(found, node);
        if policy == TrafficPolicy::Cluster {
            return self.cluster_set(found, &sets, node, client);
        }
        let local = (
            "TP-1",
            format!(
                "internalTrafficPolicy is Local, the client is on {}",
                node.name
            ),
        );
        if sets.local.is_empty() {
            let mut answer = Answer::one(
                Outcome::Drop,
                "TP-2",
                format!("node {} has no usable endpoint", node.name),
            );
            answer.or(
                Answer {
                    outcomes: vec![Outcome::Refuse],
                    ..Answer::default()
                },
                "internal-local-without-endpoint",
                "the API says that the traffic is dropped, and implementations refuse it as well.",
            );
            return answer.before(vec![local]);
        }
        self.local_set(found, &sets, node, client)
            .before(vec![local])
    }

    fn load_balancer(&self, found: &Match<'_>) -> Answer {
        let mut answer = match self.admission(found) {
            Admission::Unrestricted => self.external(found),
            Admission::Admitted(reason) => self.external(found).before(vec![reason]),
            Admission::Denied(id, text) => Answer::one(Outcome::Drop, id, text),
            Admission::Open {
                id,
                text,
                characteristic,
                explanation,
            } => {
                let mut answer = self.external(found).before(vec![(id, text)]);
                let denied = Answer {
                    outcomes: vec![Outcome::Drop],
                    ..Answer::default()
                };
                answer.or(denied, characteristic, explanation);
                answer
            }
        };
        if found.service.kind() != ServiceType::LoadBalancer {
            answer.unserved = Some(Unserved {
                characteristic: "load-balancer-status-of-other-type",
                explanation: "the status of a Service that is not of type LoadBalancer carries an address.",
                plainer: false,
            });
            answer.because("SVC-LB-10", "the Service is not of type LoadBalancer");
        }
        answer
    }

    /// `loadBalancerSourceRanges`.
    fn admission(&self, found: &Match<'_>) -> Admission {
        let written = found.service.source_ranges();
        if written.is_empty() {
            return Admission::Unrestricted;
        }
        let ranges: Vec<_> = written
            .iter()
            .filter_map(|text| parse_cidr(text))
            .filter(|range| Family::of(range.addr()) == self.family)
            .collect();
        if ranges.is_empty() {
            return Admission::Open {
                id: "SVC-LB-7",
                text: format!("loadBalancerSourceRanges has no {} range", self.family),
                characteristic: "source-ranges-of-other-family",
                explanation: "no specification says what source ranges of one family mean for clients of the other.",
            };
        }
        // Towards an address beyond the node, a node's source address is its InternalIP.
        let clients: Vec<IpAddr> = match self.source {
            Source::Node { name } => self.node(name).internal_ips,
            _ => self.client_ips(),
        };
        let clients: Vec<IpAddr> = clients
            .into_iter()
            .filter(|ip| Family::of(*ip) == self.family)
            .collect();
        let inside = clients
            .iter()
            .filter(|ip| ranges.iter().any(|r| r.contains(*ip)))
            .count();
        let own_address = match self.source {
            Source::Node { name } => self.node(name).owns(self.to.ip),
            _ => false,
        };
        if own_address || (inside > 0 && inside < clients.len()) {
            return Admission::Open {
                id: "SVC-LB-8",
                text: "only some of the node's addresses are in loadBalancerSourceRanges, or the address is its own".into(),
                characteristic: "source-ranges-and-node-addresses",
                explanation: "which of its addresses a node uses as its source is not specified.",
            };
        }
        let texts = written.join(", ");
        if inside > 0 {
            Admission::Admitted(("SVC-LB-4", format!("{} is inside {texts}", self.source)))
        } else {
            Admission::Denied("SVC-LB-4", format!("{} is outside {texts}", self.source))
        }
    }

    /// externalIPs and admitted LoadBalancer IPs.
    fn external(&self, found: &Match<'_>) -> Answer {
        let policy = found.service.external_policy();
        if self.source.in_cluster() {
            let node = self.node(self.source.node().unwrap_or_default());
            let sets = self.sets(found, &node);
            let answer = self.cluster_set(found, &sets, &node, ClientAddress::NotPreservedAllowed);
            if policy == TrafficPolicy::Local {
                let text = "traffic from within the cluster gets policy Cluster here";
                return answer.before(vec![("TP-6", text.into())]);
            }
            return answer;
        }
        let mut answers = self
            .arrival_nodes()
            .into_iter()
            .map(|node| self.outside_at(found, &node, policy));
        let Some(mut answer) = answers.next() else {
            return Answer::one(Outcome::NotService, "SAFE-4", "the cluster has no nodes");
        };
        for other in answers {
            answer.or(
                other,
                "arrival-node-unknown",
                "the source can send to any node, so any node's answer is right.",
            );
        }
        answer
    }

    /// Traffic at an external frontend that is treated like traffic from outside, arriving at `node`.
    fn outside_at(&self, found: &Match<'_>, node: &Node, policy: TrafficPolicy) -> Answer {
        let sets = self.sets(found, node);
        if policy == TrafficPolicy::Cluster {
            return self.cluster_set(found, &sets, node, ClientAddress::NotPreservedAllowed);
        }
        let local = (
            "TP-4",
            format!(
                "externalTrafficPolicy is Local, traffic arrives at {}",
                node.name
            ),
        );
        if !sets.local.is_empty() {
            // The rule that keeps the client's address is about clients outside.
            let client = if self.source.in_cluster() {
                ClientAddress::NotPreservedAllowed
            } else {
                ClientAddress::Preserved
            };
            return self
                .local_set(found, &sets, node, client)
                .before(vec![local]);
        }
        if sets.cluster.is_empty() {
            let mut answer = self.no_endpoints(found);
            answer.or(
                Answer { outcomes: vec![Outcome::Drop], ..Answer::default() },
                "external-local-without-any-endpoint",
                "nobody has endpoints, so both the rule for none at all and the rule for none here apply.",
            );
            answer.because("NOEP-5", "no node has a usable endpoint");
            return answer.before(vec![local]);
        }
        let text = format!("node {} has no usable endpoint, others have", node.name);
        Answer::one(Outcome::Drop, "TP-5", text).before(vec![local])
    }

    fn node_port(&self, found: &Match<'_>) -> Answer {
        let Some(node) = self.cluster.node_owning(self.to.ip) else {
            return self.plain_routing();
        };
        match nodeport_address(self.cluster, node, self.to.ip) {
            NodePortAddress::MustNot => Answer::one(
                Outcome::NotService,
                "SVC-NP-3",
                format!("--nodeport-addresses does not contain {}", self.to.ip),
            ),
            NodePortAddress::Must => {
                let answer = self.nodeport_policy(found, node);
                if self.cluster.nodeport_addresses.is_some() {
                    let text = format!("--nodeport-addresses contains {}", self.to.ip);
                    return answer.before(vec![("SVC-NP-3", text)]);
                }
                answer
            }
            NodePortAddress::May => {
                let mut answer = self.nodeport_policy(found, node);
                let (characteristic, explanation) = if self.cluster.nodeport_addresses.is_some() {
                    let text = format!("--nodeport-addresses has no {} range", self.family);
                    answer.because("SVC-NP-10", text);
                    (
                        "nodeport-addresses-of-other-family",
                        "no specification says what NodePort addresses of one family mean for the other.",
                    )
                } else {
                    let text = format!("{} is no InternalIP of {}", self.to.ip, node.name);
                    answer.because("SVC-NP-4", text);
                    (
                        "nodeport-on-other-address",
                        "nobody said on which addresses NodePorts are served, and this is not an InternalIP.",
                    )
                };
                answer.unserved = Some(Unserved {
                    characteristic,
                    explanation,
                    plainer: false,
                });
                answer
            }
        }
    }

    /// A NodePort on an address of `owner` that serves NodePorts.
    fn nodeport_policy(&self, found: &Match<'_>, owner: &Node) -> Answer {
        let policy = found.service.external_policy();
        if !self.source.in_cluster() {
            return self.outside_at(found, owner, policy);
        }
        let free = ClientAddress::NotPreservedAllowed;
        let mut answer = self.cluster_set(found, &self.sets(found, owner), owner, free);
        let client_node = self.node(self.source.node().unwrap_or_default());
        let mut early =
            self.cluster_set(found, &self.sets(found, &client_node), &client_node, free);
        early.because(
            "TP-14",
            format!("seen from the client's node {}", client_node.name),
        );
        answer.or(
            early,
            "nodeport-hints",
            "either the client's node or the node that owns the address may apply hints.",
        );
        if policy == TrafficPolicy::Local {
            let mut local = self.outside_at(found, owner, policy);
            local.because(
                "TP-7",
                "externalTrafficPolicy Local may or may not apply to clients in the cluster",
            );
            if local.outcomes == [Outcome::Drop] {
                local.outcomes.push(Outcome::Refuse);
            }
            answer.or(
                local,
                "nodeport-local-from-cluster",
                "the API leaves open whether clients in the cluster get policy Local at a NodePort.",
            );
        }
        answer
    }

    // ---- Endpoints.

    fn sets(&self, found: &Match<'_>, node: &Node) -> EndpointSets {
        endpoint_sets(
            &self.cluster.slices,
            found.service,
            found.port,
            self.family,
            node,
            self.contested,
        )
    }

    fn cluster_set(
        &self,
        found: &Match<'_>,
        sets: &EndpointSets,
        node: &Node,
        client: ClientAddress,
    ) -> Answer {
        if sets.cluster.is_empty() {
            return self.no_endpoints(found);
        }
        let mut reasons = Vec::new();
        match sets.topology {
            TopologyMode::None => {}
            TopologyMode::SameNode => {
                reasons.push(("TP-11", format!("hints keep traffic on node {}", node.name)));
            }
            TopologyMode::SameZone => {
                let zone = node.zone.as_deref().unwrap_or_default();
                reasons.push(("TP-10", format!("hints keep traffic in zone {zone}")));
            }
        }
        if sets.cluster_terminating {
            let text = "no endpoint is ready, so serving and terminating ones are used";
            reasons.push(("EP-3", text.into()));
        }
        self.endpoints(found, &sets.cluster, client).before(reasons)
    }

    fn local_set(
        &self,
        found: &Match<'_>,
        sets: &EndpointSets,
        node: &Node,
        client: ClientAddress,
    ) -> Answer {
        let mut reasons = Vec::new();
        if sets.local_terminating {
            let text = format!(
                "no endpoint on {} is ready, so serving and terminating ones there are used",
                node.name
            );
            reasons.push(("TP-8", text));
        }
        self.endpoints(found, &sets.local, client).before(reasons)
    }

    fn endpoints(&self, found: &Match<'_>, set: &[Endpoint], client: ClientAddress) -> Answer {
        let shares: Vec<Share> = set.iter().map(|endpoint| self.share(endpoint)).collect();
        let mut reasons = vec![("EP-1", format!("usable: {}", list(&shares)))];
        if shares.len() > 1 {
            reasons.push(("DIST-1", "each has an equal share".into()));
        }
        let affinity = found.service.affinity();
        if let Some(timeout) = affinity {
            let text = format!(
                "a client sticks to its endpoint for {} s",
                timeout.as_secs()
            );
            reasons.push(("AFF-1", text));
        }
        let mut hairpins = shares.iter().zip(set).filter(|(share, _)| share.hairpin);
        if self.source.in_cluster()
            && let Some((_, endpoint)) = hairpins.next()
        {
            reasons.push(("SRC-3", "the client is one of its own endpoints".into()));
            if endpoint.nodes.is_empty() {
                // Proxies that masquerade hairpin flows only for endpoints of their own node cannot know this one.
                reasons.push((
                    "SRC-6",
                    "the endpoint does not say that it is on this node".into(),
                ));
            }
        }
        if client == ClientAddress::Preserved && shares.iter().any(|share| !share.hairpin) {
            let id = if self.source.in_cluster() {
                "SRC-1"
            } else {
                "SRC-2"
            };
            reasons.push((id, "the endpoint sees the client's own address".into()));
        }
        Answer {
            outcomes: vec![Outcome::Endpoints { shares, client }],
            why: reasons,
            affinity,
            ..Answer::default()
        }
    }

    fn share(&self, endpoint: &Endpoint) -> Share {
        let (ip, port) = (endpoint.ip, endpoint.port);
        let owner = self.cluster.node_owning(ip);
        let pod = match self.cluster.pods.get(&ip) {
            Some(pod) => Some(pod.name.clone()),
            // A hostNetwork pod, or a server beyond the cluster: known by its listener.
            None => {
                let owner = owner.map(|node| node.name.as_str());
                listener(self.cluster, owner, ip, port, self.to.protocol)
            }
        };
        let node = self.cluster.pods.get(&ip).map(|pod| pod.node.clone());
        Share {
            ip,
            port,
            weight: 1,
            pod: pod.or_else(|| endpoint.target.clone()),
            node: node.or_else(|| endpoint.nodes.first().cloned()),
            hairpin: match self.source {
                Source::Pod { ips, .. } => ips.contains(&ip),
                Source::Node { name } => owner.is_some_and(|node| node.name == *name),
                Source::Outside { ip: client, .. } | Source::Neighbour { ip: client } => {
                    *client == ip
                }
            },
        }
    }

    fn no_endpoints(&self, found: &Match<'_>) -> Answer {
        let id = match found.kind {
            FrontendKind::ClusterIp => "NOEP-1",
            _ => "NOEP-2",
        };
        let text = format!(
            "Service {} has no usable endpoint",
            found.service.display_name()
        );
        let mut answer = Answer::one(Outcome::Refuse, id, text);
        if self.to.protocol == Protocol::Udp {
            answer.because("NOEP-3", "a UDP sender learns it by ICMP port unreachable");
        }
        // No node holds these addresses, so what no rule catches on its way out of the node is routed like any packet.
        let routed_out = matches!(
            found.kind,
            FrontendKind::ExternalIp | FrontendKind::LoadBalancerIp
        );
        if routed_out && matches!(self.source, Source::Node { .. }) {
            let text = "packets of the node's own processes may leave it instead";
            answer.or(
                Answer::one(Outcome::NotService, "NOEP-6", text),
                "no-endpoints-from-node",
                "no specification says that processes on nodes are refused at external addresses of a Service without endpoints.",
            );
        }
        answer
    }

    // ---- Where the client is.

    fn node(&self, name: &str) -> Node {
        match self.cluster.node(name) {
            Some(node) => node.clone(),
            None => Node {
                name: name.to_owned(),
                ..Node::default()
            },
        }
    }

    /// The nodes at which traffic from outside can arrive.
    fn arrival_nodes(&self) -> Vec<Node> {
        // A load balancer or an administrator may have given out a node's own address.
        if let Some(owner) = self.cluster.node_owning(self.to.ip) {
            return vec![owner.clone()];
        }
        match self.source.node() {
            Some(name) => vec![self.node(name)],
            None => {
                let mut nodes = self.cluster.nodes.clone();
                nodes.sort_by(|a, b| a.name.cmp(&b.name));
                nodes
            }
        }
    }

    /// What a pod sends to another node, and through that one or at a proxy's choice to a server on it, carries no pod's address, and that
    /// is not the proxy's doing.
    fn without_client_addresses(&self, outcomes: &mut [Outcome]) {
        let Source::Pod { node: own, .. } = self.source else {
            return;
        };
        let another = |ip: IpAddr| {
            let owner = self.cluster.node_owning(ip);
            owner.is_some_and(|node| node.name != *own)
        };
        for outcome in outcomes {
            if let Outcome::Endpoints { shares, client } = outcome
                && (another(self.to.ip) || shares.iter().any(|share| another(share.ip)))
            {
                *client = ClientAddress::NotPreservedAllowed;
            }
        }
    }

    fn client_ips(&self) -> Vec<IpAddr> {
        let ips: BTreeSet<IpAddr> = match self.source {
            Source::Pod { ips, .. } => ips.iter().copied().collect(),
            Source::Node { name } => {
                let node = self.node(name);
                node.internal_ips
                    .iter()
                    .chain(&node.all_ips)
                    .copied()
                    .collect()
            }
            Source::Outside { ip, .. } | Source::Neighbour { ip } => [*ip].into(),
        };
        // A loopback address is a source only towards another one.
        ips.into_iter()
            .filter(|ip| Family::of(*ip) == self.family)
            .filter(|ip| !ip.is_loopback() || self.to.ip.is_loopback())
            .collect()
    }
}

const OTHER_PROXY: &str = "belongs to a proxy of another name";

/// What `loadBalancerSourceRanges` says about the client.
enum Admission {
    Unrestricted,
    Admitted((&'static str, String)),
    Denied(&'static str, String),
    Open {
        id: &'static str,
        text: String,
        characteristic: &'static str,
        explanation: &'static str,
    },
}

/// The known listener at an address: on the node that owns it, or beyond the cluster when none does.
fn listener(
    cluster: &Cluster,
    owner: Option<&str>,
    ip: IpAddr,
    port: u16,
    protocol: Protocol,
) -> Option<String> {
    let found = cluster.listeners.iter().find(|listener| {
        listener.port == port
            && listener.protocol == protocol
            && listener.node.as_deref() == owner
            // A wildcard without a node would be everywhere.
            && listener.ip.map_or(owner.is_some(), |bound| bound == ip)
    });
    found.map(|listener| listener.name.clone())
}

fn list(shares: &[Share]) -> String {
    shares
        .iter()
        .map(Share::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
