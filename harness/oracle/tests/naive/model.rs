//! The rules once more, as tables, and as slowly as need be.
//!
//! Written from the API field documentation, the KEPs and `scenarios/requirements.yaml`, without a look at the oracle's
//! sources: it reads the JSON of the objects itself, lists every claim that anybody has on any address, port and protocol,
//! and looks up in [`TABLE`] what a claim comes to for a client. Wherever the API leaves a choice, an answer is the set of
//! all acceptable verdicts, and several claims on one destination are the union of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use oracle::{Destination, Protocol, Source};
use serde_json::Value;

use crate::world::{NodeFacts, World};

/// An endpoint that may answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    pub ip: IpAddr,
    pub port: u16,
    pub name: Option<String>,
    pub node: Option<String>,
    /// It is the client itself.
    pub itself: bool,
}

/// One acceptable thing to happen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// One of these answers; whether the client's address must be kept.
    Answered(BTreeSet<Who>, bool),
    Refused,
    Dropped,
    /// Plain routing: whoever is there may answer.
    Plain,
    /// Refused or dropped.
    Nobody,
}

/// What must happen.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub verdicts: BTreeSet<Verdict>,
    /// The requirements that decided, and other rules of the tables by name: for the count of what was exercised.
    pub rules: BTreeSet<&'static str>,
    /// How many claims on the destination count, and whether the last one comes to one thing from one point of view.
    pub claims: usize,
    pub one_way: bool,
    /// Affinity timeouts in seconds of the Services that deliver.
    pub affinity: BTreeSet<Option<u64>>,
    /// Who answers where plain routing decides.
    pub direct: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    ClusterIp,
    External,
    LoadBalancer,
    NodePort,
}

use Kind::{ClusterIp, External, LoadBalancer, NodePort};

/// Somebody's claim on an address, port and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    ip: IpAddr,
    port: u16,
    protocol: Protocol,
    kind: Kind,
    /// Indices into the world's Services, and into the Service's ports.
    service: usize,
    service_port: usize,
    /// The rules that leave it open whether this is served at all: by the Service, by the frontend.
    open: [Option<&'static str>; 2],
    /// The rule that says that it is not served.
    not: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Pod,
    Node,
    /// From outside, or a neighbour.
    Stranger,
}

use Client::{Node, Pod, Stranger};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Cluster,
    Local,
}

use Policy::{Cluster, Local};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    Some,
    None,
    Any,
}

/// What a row allows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Policy Cluster, hints as they are meant for the node where the packet meets the first proxy.
    All,
    /// The same by the hints for the node that owns the address.
    AllThere,
    /// Endpoints on the node where the packet meets the first proxy.
    Here,
    /// Endpoints on the node that owns the address.
    There,
    /// The same two, with the client's address kept.
    AllKept,
    HereKept,
    ThereKept,
    Refuse,
    Drop,
    Plain,
    Nobody,
}

struct Row {
    kinds: &'static [Kind],
    clients: &'static [Client],
    policy: Policy,
    /// Usable endpoints on the node that the policy Local is about.
    here: Is,
    /// Usable endpoints on other nodes, or on no node.
    anywhere: Is,
    then: &'static [Then],
    rules: &'static [&'static str],
}

const fn row(
    kinds: &'static [Kind],
    clients: &'static [Client],
    policy: Policy,
    here: Is,
    anywhere: Is,
    then: &'static [Then],
    rules: &'static [&'static str],
) -> Row {
    Row {
        kinds,
        clients,
        policy,
        here,
        anywhere,
        then,
        rules,
    }
}

const INSIDE: &[Client] = &[Pod, Node];
const VIP: &[Kind] = &[External, LoadBalancer];
const OUTER: &[Kind] = &[External, LoadBalancer, NodePort];

/// What a served claim comes to. Exactly one row fits each case.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    //   frontend      client        policy   here      anywhere
    row(&[ClusterIp], &[Pod],       Cluster, Is::Any,  Is::Some, &[Then::AllKept],  &["SVC-CIP-1"]),
    row(&[ClusterIp], &[Node],      Cluster, Is::Any,  Is::Some, &[Then::All],      &["SVC-CIP-2"]),
    row(&[ClusterIp], INSIDE,       Cluster, Is::Any,  Is::None, &[Then::Refuse],   &["NOEP-1"]),
    row(&[ClusterIp], &[Pod],       Local,   Is::Some, Is::Any,  &[Then::HereKept], &["TP-1"]),
    row(&[ClusterIp], &[Node],      Local,   Is::Some, Is::Any,  &[Then::Here],     &["TP-1", "SVC-CIP-2"]),
    row(&[ClusterIp], INSIDE,       Local,   Is::None, Is::Any,  &[Then::Refuse, Then::Drop], &["TP-1", "TP-2"]),
    row(&[ClusterIp], &[Stranger],  Cluster, Is::Any,  Is::Some, &[Then::Nobody, Then::All],  &["SVC-CIP-5"]),
    row(&[ClusterIp], &[Stranger],  Cluster, Is::Any,  Is::None, &[Then::Nobody],   &["SVC-CIP-5", "cluster-ip-from-outside-without-endpoints"]),
    row(&[ClusterIp], &[Stranger],  Local,   Is::Some, Is::Any,  &[Then::Nobody, Then::Here], &["SVC-CIP-5"]),
    row(&[ClusterIp], &[Stranger],  Local,   Is::None, Is::Any,  &[Then::Nobody],   &["SVC-CIP-5", "cluster-ip-from-outside-without-endpoints"]),

    row(VIP,          &[Stranger],  Cluster, Is::Any,  Is::Some, &[Then::All],      &["vip-from-outside"]),
    row(VIP,          INSIDE,       Cluster, Is::Any,  Is::Some, &[Then::All],      &["vip-from-inside"]),
    row(VIP,          INSIDE,       Local,   Is::Any,  Is::Some, &[Then::All],      &["TP-6"]),
    row(VIP,          &[Pod],       Cluster, Is::Any,  Is::None, &[Then::Refuse],   &["NOEP-2"]),
    row(VIP,          &[Pod],       Local,   Is::Any,  Is::None, &[Then::Refuse],   &["TP-6", "NOEP-2"]),
    row(VIP,          &[Node],      Cluster, Is::Any,  Is::None, &[Then::Refuse, Then::Plain], &["NOEP-2", "NOEP-6"]),
    row(VIP,          &[Node],      Local,   Is::Any,  Is::None, &[Then::Refuse, Then::Plain], &["TP-6", "NOEP-2", "NOEP-6"]),
    row(VIP,          &[Stranger],  Local,   Is::Some, Is::Any,  &[Then::HereKept], &["TP-4"]),

    row(&[NodePort],  &[Stranger],  Cluster, Is::Any,  Is::Some, &[Then::AllThere], &["SVC-NP-1"]),
    row(&[NodePort],  INSIDE,       Cluster, Is::Any,  Is::Some, &[Then::All, Then::AllThere], &["SVC-NP-2"]),
    row(&[NodePort],  INSIDE,       Cluster, Is::Any,  Is::None, &[Then::Refuse],   &["NOEP-2"]),
    row(&[NodePort],  &[Stranger],  Local,   Is::Some, Is::Any,  &[Then::ThereKept], &["TP-4"]),
    row(&[NodePort],  INSIDE,       Local,   Is::Some, Is::Any,  &[Then::All, Then::AllThere, Then::There], &["nodeport-local-from-within"]),
    row(&[NodePort],  INSIDE,       Local,   Is::None, Is::Some, &[Then::All, Then::AllThere, Then::Refuse, Then::Drop], &["TP-7"]),
    row(&[NodePort],  INSIDE,       Local,   Is::None, Is::None, &[Then::Refuse, Then::Drop], &["NOEP-2", "NOEP-5", "TP-7"]),

    row(OUTER,        &[Stranger],  Cluster, Is::Any,  Is::None, &[Then::Refuse],   &["NOEP-2"]),
    row(OUTER,        &[Stranger],  Local,   Is::None, Is::Some, &[Then::Drop],     &["TP-4", "TP-5"]),
    row(OUTER,        &[Stranger],  Local,   Is::None, Is::None, &[Then::Refuse, Then::Drop], &["TP-4", "NOEP-2", "NOEP-5"]),
];

/// What loadBalancerSourceRanges say about a client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    Admitted,
    Denied,
    Open,
}

/// The world with all claims on it.
pub struct Model<'a> {
    world: &'a World,
    claims: Vec<Claim>,
}

impl<'a> Model<'a> {
    pub fn new(world: &'a World) -> Self {
        let mut claims = Vec::new();
        for (index, service) in world.services.iter().enumerate() {
            claim_all(world, index, service, &mut claims);
        }
        claims.sort();
        claims.dedup();
        Self { world, claims }
    }

    /// Every destination that somebody claims.
    pub fn claimed(&self) -> impl Iterator<Item = Destination> + '_ {
        self.claims.iter().map(|claim| Destination {
            ip: claim.ip,
            port: claim.port,
            protocol: claim.protocol,
        })
    }

    /// What must happen to a new flow of this client, which sends from one of its addresses of the destination's family.
    pub fn answer(&self, source: &Source, own: &[IpAddr], to: &Destination) -> Answer {
        let own: Vec<IpAddr> = own
            .iter()
            .copied()
            .filter(|ip| ip.is_ipv4() == to.ip.is_ipv4())
            .collect();
        let mut answer = Answer::default();
        let client = match source {
            Source::Pod { .. } => Pod,
            Source::Node { .. } => Node,
            Source::Outside { .. } | Source::Neighbour { .. } => Stranger,
        };
        if to.ip.is_loopback() {
            match client {
                Stranger => {
                    answer.say("SAFE-1", [Verdict::Nobody]);
                    return answer;
                }
                // Its own, which no other process shares.
                Pod => {
                    answer.say("loopback-of-pod", [Verdict::Plain]);
                    return answer;
                }
                Node => {}
            }
        }
        let (served, not): (Vec<&Claim>, Vec<&Claim>) = self
            .claims
            .iter()
            .filter(|claim| (claim.ip, claim.port, claim.protocol) == (to.ip, to.port, to.protocol))
            .partition(|claim| claim.not.is_none());
        for claim in &served {
            self.serve(claim, source, client, &own, &mut answer);
            answer.rules.extend(claim.open.into_iter().flatten());
        }
        // As if nobody claimed it, but only if that is true for all who do.
        if !served.is_empty() && served.iter().all(|claim| claim.open != [None; 2]) {
            answer.verdicts.insert(Verdict::Plain);
        }
        answer.claims = served.len();
        let services: BTreeSet<usize> = served.iter().map(|claim| claim.service).collect();
        if services.len() > 1 {
            answer.rules.insert("SVC-EIP-3");
        }
        if served.is_empty() {
            let reasons = not.iter().filter_map(|claim| claim.not);
            answer.rules.extend(reasons);
            self.nobody_serves(to, !not.is_empty(), &mut answer);
        }
        if answer.verdicts.contains(&Verdict::Nobody) {
            // That nobody may answer includes both ways in which nobody does.
            answer.verdicts.remove(&Verdict::Refused);
            answer.verdicts.remove(&Verdict::Dropped);
        }
        answer.direct = self.direct(source, to);
        answer
    }

    fn nobody_serves(&self, to: &Destination, listed: bool, answer: &mut Answer) {
        // Whose ClusterIP is it?
        let mut known = false;
        for service in &self.world.services {
            if !cluster_ips(service).contains(&to.ip) {
                continue;
            }
            known = true;
            if let Some(rule) = foreign(self.world, service) {
                answer.say(rule, [Verdict::Plain]);
            } else {
                answer.say("SVC-CIP-4", [Verdict::Nobody]);
            }
        }
        if known {
            return;
        }
        // An address that some Service lists in vain is not one that no Service has.
        if !listed
            && self
                .world
                .service_cidrs
                .iter()
                .any(|range| inside(range, to.ip))
        {
            answer.say("SAFE-3", [Verdict::Nobody]);
        } else {
            answer.say("SAFE-4", [Verdict::Plain]);
        }
    }

    fn serve(
        &self,
        claim: &Claim,
        source: &Source,
        client: Client,
        own: &[IpAddr],
        answer: &mut Answer,
    ) {
        let service = &self.world.services[claim.service];
        let guard = if claim.kind == LoadBalancer {
            self.guard(service, source, own, claim.ip, answer)
        } else {
            Guard::Admitted
        };
        if guard != Guard::Admitted {
            answer.verdicts.insert(Verdict::Dropped);
        }
        if guard == Guard::Denied {
            return;
        }
        let owner = self.owner(claim.ip).map(|node| node.name);
        // Where the packet meets a proxy for the first time. A neighbour can send it to any node.
        let first: Vec<&str> = match source {
            Source::Pod { node, .. } => vec![node],
            Source::Node { name } => vec![name],
            Source::Outside { via, .. } => vec![owner.unwrap_or(via)],
            Source::Neighbour { .. } => match owner {
                Some(owner) => vec![owner],
                None => self.world.nodes.iter().map(|node| node.name).collect(),
            },
        };
        for here in &first {
            let there = owner.unwrap_or(here);
            self.look_up(claim, client, own, here, there, answer);
        }
        answer.one_way &= first.len() == 1;
    }

    fn look_up(
        &self,
        claim: &Claim,
        client: Client,
        own: &[IpAddr],
        here: &str,
        there: &str,
        answer: &mut Answer,
    ) {
        let endpoints = self.endpoints(claim, answer);
        // The same without those whose copies contradict each other, if there are such.
        let fewer: Vec<Endpoint> = endpoints
            .iter()
            .filter(|endpoint| !(endpoint.class == 1 && endpoint.useless_copy))
            .cloned()
            .collect();
        self.look_up_among(&endpoints, claim, client, own, here, there, answer);
        if fewer.len() < endpoints.len() {
            let one = answer.verdicts.clone();
            self.look_up_among(&fewer, claim, client, own, here, there, answer);
            if answer.verdicts != one {
                answer.rules.insert("EP-16");
            }
            answer.one_way = false;
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a table has many columns")]
    fn look_up_among(
        &self,
        endpoints: &[Endpoint],
        claim: &Claim,
        client: Client,
        own: &[IpAddr],
        here: &str,
        there: &str,
        answer: &mut Answer,
    ) {
        let service = &self.world.services[claim.service];
        let field = if claim.kind == ClusterIp {
            "internalTrafficPolicy"
        } else {
            "externalTrafficPolicy"
        };
        let policy = if service["spec"][field] == "Local" {
            Local
        } else {
            Cluster
        };
        let local_to = if claim.kind == NodePort { there } else { here };
        let local = local(endpoints, local_to);
        let usable = endpoints.iter().any(|ep| ep.class > 0);
        let fits = |is: Is, some: bool| match is {
            Is::Some => some,
            Is::None => !some,
            Is::Any => true,
        };
        let rows: Vec<&Row> = TABLE
            .iter()
            .filter(|row| row.kinds.contains(&claim.kind) && row.clients.contains(&client))
            .filter(|row| row.policy == policy && fits(row.here, !local.is_empty()))
            .filter(|row| fits(row.anywhere, usable))
            .collect();
        assert_eq!(rows.len(), 1, "one row fits {claim:?} from {here}");
        answer.rules.extend(rows[0].rules);
        answer.one_way = rows[0].then.len() == 1;
        if rows[0].then.contains(&Then::Refuse) && claim.protocol == Protocol::Udp {
            answer.rules.insert("NOEP-3");
        }
        let (mut spread, mut local) = (BTreeSet::new(), None);
        for then in rows[0].then {
            let (chosen, kept) = match then {
                Then::All => (self.all(endpoints, here, answer), false),
                Then::AllKept => (self.all(endpoints, here, answer), true),
                Then::AllThere => (self.all(endpoints, there, answer), false),
                Then::Here | Then::HereKept => {
                    (local_of(endpoints, here, answer), *then == Then::HereKept)
                }
                Then::There | Then::ThereKept => {
                    (local_of(endpoints, there, answer), *then == Then::ThereKept)
                }
                Then::Refuse => {
                    answer.verdicts.insert(Verdict::Refused);
                    continue;
                }
                Then::Drop => {
                    answer.verdicts.insert(Verdict::Dropped);
                    continue;
                }
                Then::Plain => {
                    answer.verdicts.insert(Verdict::Plain);
                    continue;
                }
                Then::Nobody => {
                    answer.verdicts.insert(Verdict::Nobody);
                    continue;
                }
            };
            let who: BTreeSet<Who> = chosen
                .iter()
                .map(|&index| self.who(&endpoints[index], claim.protocol, own))
                .collect();
            if client != Stranger && who.iter().any(|who| who.itself) {
                answer.rules.insert("SRC-3");
                if chosen.iter().any(|&index| {
                    own.contains(&endpoints[index].ip) && endpoints[index].node.is_none()
                }) {
                    answer.rules.insert("SRC-6");
                }
            }
            if kept && who.iter().any(|who| !who.itself) {
                let rule = if client == Pod { "SRC-1" } else { "SRC-2" };
                answer.rules.insert(rule);
            }
            if who.len() > 1 {
                answer.rules.insert("DIST-1");
            }
            answer.verdicts.insert(Verdict::Answered(who, kept));
            match then {
                Then::There if client != Stranger => local = Some(chosen),
                _ => _ = spread.insert(chosen),
            }
            let seconds = affinity(service);
            answer.affinity.insert(seconds);
            if seconds.is_some() {
                answer.rules.insert("AFF-1");
            }
        }
        if spread.len() > 1 {
            answer.rules.insert("TP-14");
        }
        if local.is_some_and(|local| !spread.contains(&local)) {
            answer.rules.insert("TP-7");
        }
    }

    /// Policy Cluster: all ready endpoints, or those that hints mean for the node; if nobody is ready, all that still serve
    /// while they terminate (KEP-1669, KEP-2433, KEP-3015, KEP-4444).
    fn all(&self, endpoints: &[Endpoint], node: &str, answer: &mut Answer) -> Vec<usize> {
        let ready = of_class(endpoints, 2, |_| true);
        if ready.is_empty() {
            answer.rules.insert("EP-3");
            return of_class(endpoints, 1, |_| true);
        }
        let zone = self
            .world
            .nodes
            .iter()
            .find(|facts| facts.name == node)
            .and_then(|facts| facts.zone);
        for (field, wanted, rule) in [
            ("forNodes", Some(node), "TP-11"),
            ("forZones", zone, "TP-10"),
        ] {
            let Some(wanted) = wanted else { continue };
            let all = ready
                .iter()
                .all(|&i| !hints(&endpoints[i], field).is_empty());
            let meant: Vec<usize> = ready
                .iter()
                .copied()
                .filter(|&i| hints(&endpoints[i], field).contains(&wanted))
                .collect();
            if all && !meant.is_empty() {
                answer.rules.insert(rule);
                return meant;
            }
            if !meant.is_empty() {
                answer.rules.insert("hints-void");
            }
        }
        ready
    }

    fn who(&self, endpoint: &Endpoint, protocol: Protocol, own: &[IpAddr]) -> Who {
        let pod = self
            .world
            .pods
            .iter()
            .find(|pod| pod.ips.contains(&endpoint.ip));
        let name = pod
            .map(|pod| pod.name)
            .or_else(|| self.listener(endpoint.ip, endpoint.port, protocol));
        Who {
            ip: endpoint.ip,
            port: endpoint.port,
            name: name.map(str::to_owned),
            // Where the pod is, whatever the endpoint says.
            node: match pod {
                Some(pod) => Some(pod.node.to_owned()),
                None => endpoint.node.clone(),
            },
            itself: own.contains(&endpoint.ip),
        }
    }

    /// The process that listens there, apart from pods.
    fn listener(&self, ip: IpAddr, port: u16, protocol: Protocol) -> Option<&'static str> {
        let owner = self.owner(ip).map(|node| node.name);
        self.world
            .listeners
            .iter()
            .find(|listener| {
                let there = match listener.node {
                    Some(node) => owner == Some(node) && listener.ip.is_none_or(|own| own == ip),
                    None => listener.ip == Some(ip),
                };
                there && listener.port == port && listener.protocol == protocol
            })
            .map(|listener| listener.name)
    }

    /// Who answers at an address where plain routing decides.
    fn direct(&self, source: &Source, to: &Destination) -> Option<String> {
        if to.ip.is_loopback() {
            let Source::Node { name } = source else {
                return None;
            };
            return self
                .world
                .listeners
                .iter()
                .find(|listener| {
                    listener.node == Some(name.as_str())
                        && listener.ip.is_none_or(|own| own == to.ip)
                        && (listener.port, listener.protocol) == (to.port, to.protocol)
                })
                .map(|listener| listener.name.to_owned());
        }
        let pod = self.world.pods.iter().find(|pod| pod.ips.contains(&to.ip));
        pod.map(|pod| pod.name)
            .or_else(|| self.listener(to.ip, to.port, to.protocol))
            .map(str::to_owned)
    }

    fn owner(&self, ip: IpAddr) -> Option<&NodeFacts> {
        if ip.is_loopback() {
            return None;
        }
        self.world
            .nodes
            .iter()
            .find(|node| node.internal.contains(&ip) || node.further.contains(&ip))
    }

    /// KEP-1860 aside, `loadBalancerSourceRanges` restrict traffic through the load balancer to these client addresses.
    fn guard(
        &self,
        service: &Value,
        source: &Source,
        own: &[IpAddr],
        address: IpAddr,
        answer: &mut Answer,
    ) -> Guard {
        let listed = strings(&service["spec"]["loadBalancerSourceRanges"]);
        if listed.is_empty() {
            return Guard::Admitted;
        }
        let ranges: Vec<&str> = listed
            .iter()
            .map(|range| range.trim())
            .filter(|range| range.contains(':') == address.is_ipv6())
            .collect();
        if ranges.is_empty() {
            answer.rules.insert("SVC-LB-7");
            return Guard::Open;
        }
        let admitted = |ip: &IpAddr| ranges.iter().any(|range| inside(range, *ip));
        let (yes, no) = (own.iter().any(admitted), !own.iter().all(admitted));
        let held = matches!(source, Source::Node { name }
            if self.owner(address).is_some_and(|node| node.name == name));
        if held || (yes && no) {
            answer.rules.insert("SVC-LB-8");
            return Guard::Open;
        }
        answer.rules.insert("SVC-LB-4");
        answer.rules.insert(if yes { "admitted" } else { "denied" });
        if yes { Guard::Admitted } else { Guard::Denied }
    }

    /// The endpoints of a claim's Service port in the family of its address, with all copies united (KEP-752).
    fn endpoints(&self, claim: &Claim, answer: &mut Answer) -> Vec<Endpoint> {
        let service = &self.world.services[claim.service];
        let port = &service["spec"]["ports"][claim.service_port];
        let mut united: BTreeMap<(IpAddr, u16), Endpoint> = BTreeMap::new();
        for slice in &self.world.slices {
            let metadata = &slice["metadata"];
            let labels = &metadata["labels"];
            let named = labels["kubernetes.io/service-name"].as_str();
            if named != service["metadata"]["name"].as_str()
                || metadata["namespace"] != service["metadata"]["namespace"]
            {
                continue;
            }
            if !labels["service.kubernetes.io/headless"].is_null() {
                answer.rules.insert("FLT-3");
                continue;
            }
            let family = if claim.ip.is_ipv4() { "IPv4" } else { "IPv6" };
            if slice["addressType"] != family {
                continue;
            }
            for number in slice["ports"].as_array().into_iter().flatten() {
                let same = text(&number["name"]) == text(&port["name"])
                    && protocol(&number["protocol"]) == claim.protocol;
                let Some(target @ 1..) = number["port"].as_u64().filter(|_| same) else {
                    continue;
                };
                for entry in slice["endpoints"].as_array().into_iter().flatten() {
                    let Some(ip) = entry["addresses"][0].as_str().and_then(address) else {
                        continue;
                    };
                    if ip.is_ipv4() != claim.ip.is_ipv4() {
                        answer.rules.insert("address-of-other-family");
                        continue;
                    }
                    let port = u16::try_from(target).unwrap();
                    let endpoint = Endpoint {
                        ip,
                        port,
                        class: class(&entry["conditions"], answer),
                        useless_copy: false,
                        node: entry["nodeName"].as_str().map(str::to_owned),
                        hints: entry["hints"].clone(),
                    };
                    let known = united.entry((ip, port)).or_insert_with(|| endpoint.clone());
                    if known.class != endpoint.class {
                        answer.rules.insert("EP-5");
                    }
                    let useless = known.useless_copy || known.class == 0 || endpoint.class == 0;
                    if known.class < endpoint.class {
                        *known = endpoint;
                    }
                    known.useless_copy = useless;
                }
            }
        }
        let list: Vec<Endpoint> = united.into_values().collect();
        if list.windows(2).any(|pair| pair[0].ip == pair[1].ip) {
            answer.rules.insert("EP-6");
        }
        list
    }
}

impl Answer {
    fn say<const N: usize>(&mut self, rule: &'static str, verdicts: [Verdict; N]) {
        self.rules.insert(rule);
        self.verdicts.extend(verdicts);
    }
}

#[derive(Clone, Debug)]
struct Endpoint {
    ip: IpAddr,
    port: u16,
    /// 2 ready, 1 serving while it terminates, 0 of no use.
    class: u8,
    /// Some copy of it is of no use.
    useless_copy: bool,
    node: Option<String>,
    hints: Value,
}

/// The truth table of the conditions: ready, serving, terminating, each absent or `null`, true or false.
fn class(conditions: &Value, answer: &mut Answer) -> u8 {
    const TABLE: [([Option<bool>; 3], u8); 27] = {
        const T: Option<bool> = Some(true);
        const F: Option<bool> = Some(false);
        const N: Option<bool> = None;
        [
            ([T, T, T], 2),
            ([T, T, F], 2),
            ([T, T, N], 2),
            ([T, F, T], 2),
            ([T, F, F], 2),
            ([T, F, N], 2),
            ([T, N, T], 2),
            ([T, N, F], 2),
            ([T, N, N], 2),
            ([F, T, T], 1),
            ([F, T, F], 0),
            ([F, T, N], 0),
            ([F, F, T], 0),
            ([F, F, F], 0),
            ([F, F, N], 0),
            ([F, N, T], 1),
            ([F, N, F], 0),
            ([F, N, N], 0),
            ([N, T, T], 2),
            ([N, T, F], 2),
            ([N, T, N], 2),
            ([N, F, T], 2),
            ([N, F, F], 2),
            ([N, F, N], 2),
            ([N, N, T], 2),
            ([N, N, F], 2),
            ([N, N, N], 2),
        ]
    };
    let flags = ["ready", "serving", "terminating"].map(|name| conditions[name].as_bool());
    if flags.contains(&None) {
        answer.rules.insert("EP-2");
    }
    TABLE
        .iter()
        .find(|(row, _)| *row == flags)
        .map(|(_, class)| *class)
        .unwrap()
}

fn of_class(endpoints: &[Endpoint], class: u8, wanted: impl Fn(&Endpoint) -> bool) -> Vec<usize> {
    endpoints
        .iter()
        .enumerate()
        .filter(|(_, endpoint)| endpoint.class == class && wanted(endpoint))
        .map(|(index, _)| index)
        .collect()
}

fn local(endpoints: &[Endpoint], node: &str) -> Vec<usize> {
    let on = |endpoint: &Endpoint| endpoint.node.as_deref() == Some(node);
    let ready = of_class(endpoints, 2, on);
    if ready.is_empty() {
        of_class(endpoints, 1, on)
    } else {
        ready
    }
}

fn local_of(endpoints: &[Endpoint], node: &str, answer: &mut Answer) -> Vec<usize> {
    let chosen = local(endpoints, node);
    if chosen.iter().all(|&index| endpoints[index].class == 1) {
        answer.rules.insert("TP-8");
    }
    if endpoints
        .iter()
        .any(|endpoint| endpoint.node.is_none() && endpoint.class > 0)
    {
        answer.rules.insert("TP-9");
    }
    if chosen
        .iter()
        .any(|&index| !hints(&endpoints[index], "forZones").is_empty())
    {
        answer.rules.insert("TP-12");
    }
    chosen
}

fn hints<'e>(endpoint: &'e Endpoint, field: &str) -> Vec<&'e str> {
    let list = endpoint.hints[field].as_array();
    list.into_iter()
        .flatten()
        .filter_map(|hint| hint["name"].as_str())
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn strings(value: &Value) -> Vec<&str> {
    let list = value.as_array();
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn protocol(value: &Value) -> Protocol {
    match value.as_str() {
        None | Some("TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        Some(other) => panic!("no protocol {other}"),
    }
}

/// An address the way old objects may spell it: decimal parts with leading zeros, IPv4 inside IPv6 (KEP-4858).
fn address(spelled: &str) -> Option<IpAddr> {
    if !spelled.contains(':') {
        let parts: Vec<&str> = spelled.split('.').collect();
        let mut bytes = [0; 4];
        if parts.len() != 4 {
            return None;
        }
        for (byte, part) in bytes.iter_mut().zip(parts) {
            *byte = part.parse().ok()?;
        }
        return Some(bytes.into());
    }
    if let Some(inner) = spelled.strip_prefix("::ffff:")
        && inner.contains('.')
    {
        return address(inner);
    }
    spelled.parse().ok()
}

fn bits(ip: IpAddr) -> Vec<bool> {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1))
        .collect()
}

fn inside(range: &str, ip: IpAddr) -> bool {
    let (base, length) = range.split_once('/').expect("a range has a length");
    let base: IpAddr = base.parse().expect("a range has an address");
    let length: usize = length.parse().expect("the length is a number");
    base.is_ipv4() == ip.is_ipv4() && bits(base)[..length] == bits(ip)[..length]
}

fn affinity(service: &Value) -> Option<u64> {
    let spec = &service["spec"];
    if spec["sessionAffinity"] != "ClientIP" {
        return None;
    }
    let seconds = spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].as_u64();
    Some(seconds.unwrap_or(3 * 60 * 60))
}

/// The rule by which a Service is somebody else's business.
fn foreign(world: &World, service: &Value) -> Option<&'static str> {
    let label = service["metadata"]["labels"]["service.kubernetes.io/service-proxy-name"].as_str();
    if label != world.proxy_name {
        return Some("FLT-2");
    }
    (service["spec"]["type"] == "ExternalName").then_some("FLT-4")
}

fn labelled_headless(service: &Value) -> bool {
    !service["metadata"]["labels"]["service.kubernetes.io/headless"].is_null()
}

fn cluster_ips(service: &Value) -> Vec<IpAddr> {
    let spec = &service["spec"];
    let mut all = strings(&spec["clusterIPs"]);
    all.extend(spec["clusterIP"].as_str());
    all.into_iter().filter_map(address).collect()
}

fn claim_all(world: &World, index: usize, service: &Value, claims: &mut Vec<Claim>) {
    let spec = &service["spec"];
    let kind = spec["type"].as_str().unwrap_or("ClusterIP");
    let headless = spec["clusterIP"] == "None";
    let not = foreign(world, service);
    let doubt = if headless {
        Some("FLT-6")
    } else {
        labelled_headless(service).then_some("FLT-7")
    };
    let families = strings(&spec["ipFamilies"]);
    let has = |ip: IpAddr| families.contains(&if ip.is_ipv4() { "IPv4" } else { "IPv6" });
    for (service_port, port) in spec["ports"].as_array().unwrap().iter().enumerate() {
        let number = |field: &str| u16::try_from(port[field].as_u64().unwrap_or(0)).unwrap();
        let mut claim = |ip, port_number, kind, not: Option<_>, open: Option<_>| {
            claims.push(Claim {
                ip,
                port: port_number,
                protocol: protocol(&port["protocol"]),
                kind,
                service: index,
                service_port,
                open: [doubt, open],
                not,
            });
        };
        for ip in cluster_ips(service) {
            claim(ip, number("port"), ClusterIp, not, None);
        }
        for ip in strings(&spec["externalIPs"])
            .into_iter()
            .filter_map(address)
        {
            let not = not.or((!has(ip)).then_some("FAM-3"));
            claim(ip, number("port"), External, not, None);
        }
        for entry in service["status"]["loadBalancer"]["ingress"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let Some(ip) = entry["ip"].as_str().and_then(address) else {
                continue;
            };
            let proxy = (entry["ipMode"] == "Proxy").then_some("SVC-LB-3");
            let not = not.or((!has(ip)).then_some("FAM-3")).or(proxy);
            let open = (kind != "LoadBalancer").then_some("SVC-LB-10");
            claim(ip, number("port"), LoadBalancer, not, open);
        }
        if number("nodePort") == 0 {
            continue;
        }
        for node in &world.nodes {
            let loopback = [IpAddr::from([127, 0, 0, 1]), "::1".parse().unwrap()];
            let all = node.internal.iter().chain(&node.further).chain(&loopback);
            for ip in all.copied().filter(|ip| has(*ip)) {
                let told = world.nodeport_addresses.as_ref();
                // A list without a range of the family says nothing about it.
                let told = told.map(|list| {
                    let own = list
                        .iter()
                        .filter(|range| range.contains(':') == ip.is_ipv6());
                    own.collect::<Vec<_>>()
                });
                let unsaid = told.as_ref().is_some_and(Vec::is_empty);
                let told = told.filter(|list| !list.is_empty());
                let chosen = told.map(|list| list.iter().any(|range| inside(range, ip)));
                let not = not.or((chosen == Some(false)).then_some("SVC-NP-3"));
                let choice = if ip.is_loopback() {
                    Some("SVC-NP-5")
                } else if unsaid {
                    Some("SVC-NP-10")
                } else if chosen.is_none() && !node.internal.contains(&ip) {
                    Some("SVC-NP-4")
                } else {
                    None
                };
                claim(ip, number("nodePort"), NodePort, not, choice);
            }
        }
    }
}
