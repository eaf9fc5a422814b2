//! Flows through a history, and what may be asserted of each.
//!
//! A false red is worse than a missed bug, so nothing is asserted of a flow that a specification does not demand. What may be is found by asking the
//! oracle after every step, and not by thinking about transitions:
//!
//! ```text
//!   where the flow may be (L)         what new flows may reach (A)            asserted
//!   ------------------------------    -----------------------------------    ----------------------------------------
//!   TCP stream, L listed and alive    anything                                unbroken              TCP-1, TCP-3, CP-1
//!   UDP, L within A all the time      L and more                              unbroken              UDP-5, UDP-6
//!   UDP, some of L went for good      all that is left of L, and more         model: it moves       UDP-1, UDP-3, UDP-4
//!   UDP, all of L went for good       nobody, refused                         model: it is refused  UDP-2
//!   new flows                         somebody at any time, all of whom live  noLoss                EP-15, DIST-2
//! ```
//!
//! An endpoint is gone for good when no slice lists it, or when those that do say that it serves no more. One that still serves while it terminates, or that a
//! policy leaves out, may keep its flows or not: then nothing is asserted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use oracle::{Destination, Outcome, Source};

use crate::{
    hunt::kinds::Disturbance,
    run::cells,
    scenario::{
        Level, Stage,
        doc::{FlowExpect, FlowKind, OneOrMany, Target},
    },
};

/// An endpoint: address and port.
type Endpoint = (IpAddr, u16);

/// What the slices say of an endpoint of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Listing {
    /// Listed, and it serves no more.
    Over,
    /// It serves and terminates.
    Terminating,
    /// It is ready.
    Ready,
}

/// A flow of a history.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: FlowKind,
    /// Name of the Service.
    service: String,
    port_name: String,
    source: Source,
    destination: Destination,
    /// Where it may be.
    at: BTreeSet<Endpoint>,
    /// Where it may have been since the world was quiet.
    possible: BTreeSet<Endpoint>,
    /// Whoever was allowed since its start.
    ever: BTreeSet<Endpoint>,
    /// Nothing has happened that may break it, or lose one of its messages.
    intact: bool,
    /// `at` is known.
    sure: bool,
    /// It has to move, or to stop, since it was judged last.
    moves: bool,
}

/// What the world looks like to flows.
pub struct View {
    model: oracle::Cluster,
    frontends: BTreeMap<Destination, (String, String)>,
    alive: BTreeSet<(Endpoint, oracle::Protocol)>,
    unserved: Vec<String>,
    listed: BTreeMap<(String, String, Endpoint), Listing>,
}

impl View {
    /// The world as it is now.
    pub fn of(stage: &Stage) -> Result<Self, String> {
        let model = stage.oracle().map_err(|error| error.to_string())?;
        let frontends = oracle::frontends(&model)
            .into_iter()
            .map(|frontend| {
                let service = frontend.service.1.clone();
                (frontend.destination(), (service, frontend.port_name))
            })
            .collect();
        let mut alive = BTreeSet::new();
        for pod in stage.pods().filter(|pod| pod.exists && pod.listening) {
            if let Some(addresses) = stage.plan().pod(&pod.spec.name) {
                for port in pod.spec.serves() {
                    let protocol = oracle::Protocol::from(port.protocol);
                    let ips = [IpAddr::V4(addresses.ipv4), IpAddr::V6(addresses.ipv6)];
                    alive.extend(ips.map(|ip| ((ip, port.port), protocol)));
                }
            }
        }
        let slices = stage
            .api()
            .list("discovery.k8s.io/v1", "EndpointSlice", None)
            .map_err(|error| error.to_string())?;
        let mut listed = BTreeMap::new();
        let mut unserved = Vec::new();
        for slice in &slices {
            let Some(service) = slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str()
            else {
                continue;
            };
            for port in slice["ports"].as_array().into_iter().flatten() {
                let name = port["name"].as_str().unwrap_or_default();
                let Some(number) = port["port"].as_u64().and_then(|n| u16::try_from(n).ok()) else {
                    continue;
                };
                let protocol = match port["protocol"].as_str() {
                    Some("UDP") => oracle::Protocol::Udp,
                    Some("SCTP") => oracle::Protocol::Sctp,
                    _ => oracle::Protocol::Tcp,
                };
                for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                    let Some(ip) = endpoint["addresses"][0].as_str().and_then(oracle::parse_ip)
                    else {
                        continue;
                    };
                    let conditions = &endpoint["conditions"];
                    let ready = conditions["ready"].as_bool().unwrap_or(true);
                    let serving = conditions["serving"].as_bool().unwrap_or(ready);
                    let terminating = conditions["terminating"].as_bool().unwrap_or(false);
                    let listing = match (ready, serving && terminating) {
                        (true, _) => Listing::Ready,
                        (false, true) => Listing::Terminating,
                        (false, false) => Listing::Over,
                    };
                    if listing > Listing::Over && !alive.contains(&((ip, number), protocol)) {
                        unserved.push(format!("{ip} port {number}/{protocol}"));
                    }
                    let key = (service.to_owned(), name.to_owned(), (ip, number));
                    let best: &mut Listing = listed.entry(key).or_insert(listing);
                    *best = (*best).max(listing);
                }
            }
        }
        Ok(Self {
            model,
            frontends,
            alive,
            unserved,
            listed,
        })
    }

    /// Endpoints that slices call usable although nobody listens there: who is sent to one of them gets no answer, whatever the proxy does.
    pub fn unserved(&self) -> &[String] {
        &self.unserved
    }

    fn serves(&self, endpoint: &Endpoint, protocol: oracle::Protocol) -> bool {
        self.alive.contains(&(*endpoint, protocol))
    }

    fn expect(&self, source: &Source, destination: &Destination) -> Allowed {
        let expectation = oracle::expect(&self.model, source, destination);
        match expectation.outcomes.as_slice() {
            [Outcome::Endpoints { shares, .. }] => {
                let shares = shares.iter().map(|share| (share.ip, share.port));
                Allowed::Endpoints(shares.collect())
            }
            [Outcome::Refuse] => Allowed::Refused,
            _ => Allowed::Open,
        }
    }
}

enum Allowed {
    Endpoints(BTreeSet<Endpoint>),
    Refused,
    /// Silence, or a choice that is left open.
    Open,
}

impl Flow {
    /// A flow that starts now; `None` if nothing could be said about it.
    pub fn new(
        name: String,
        kind: FlowKind,
        from: &str,
        to: &Target,
        stage: &Stage,
        view: &View,
    ) -> Option<Self> {
        let sources = cells::sources(stage, &OneOrMany::One(from.to_owned()));
        let targets = cells::targets(
            stage,
            &view.model,
            &oracle::Family::ALL,
            std::slice::from_ref(to),
        );
        let cells = cells::product(&view.model, sources.get(..1)?, &targets);
        let cell = cells.into_iter().next()?;
        let (service, port_name) = view.frontends.get(&cell.to.destination)?.clone();
        let (source, destination) = (cell.from.source, cell.to.destination);
        let at = match view.expect(&source, &destination) {
            Allowed::Endpoints(endpoints) => endpoints,
            // A sender that is there before the first endpoint is (UDP-3).
            Allowed::Refused if is_udp_flow(kind) => BTreeSet::new(),
            _ => return None,
        };
        Some(Self {
            name,
            kind,
            service,
            port_name,
            source,
            destination,
            ever: at.clone(),
            possible: BTreeSet::new(),
            intact: !at.is_empty(),
            at,
            sure: true,
            moves: false,
        })
    }

    /// Whether somebody answers it from the start.
    pub fn is_answered(&self) -> bool {
        !self.at.is_empty()
    }

    /// It began before the world was quiet, so its first messages may have met anything.
    pub fn began_early(&mut self) {
        self.intact = false;
    }

    /// Whether it has to be where new flows go, once the world is quiet.
    pub fn follows(&self) -> bool {
        self.sure && self.is_udp()
    }

    /// Whether it keeps sending from one UDP port.
    pub fn is_udp(&self) -> bool {
        is_udp_flow(self.kind)
    }

    /// Whether it is sent to this Service.
    pub fn is_to(&self, service: &str) -> bool {
        self.service == service
    }

    /// Source and destination as a socket address, so that no two flows have the same.
    pub fn key(&self) -> (String, SocketAddr) {
        let target = SocketAddr::new(self.destination.ip, self.destination.port);
        (self.source.to_string(), target)
    }

    /// Something happened that may break established flows, or cost new ones.
    pub fn disturbed(&mut self, fault: Disturbance, level: Level) {
        let new = matches!(self.kind, FlowKind::NewConnections | FlowKind::NewDatagrams);
        let breaks = fault.may_break_flows();
        if breaks || (new && fault.may_lose_new_flows(level)) {
            self.intact = false;
        }
        // CP-1 speaks of connections.
        if is_udp_flow(self.kind) && fault.restarts() {
            self.intact = false;
        }
        if breaks {
            self.sure = false;
        }
    }

    /// A step was made.
    pub fn observe(&mut self, view: &View, level: Level) {
        let owner = (self.service.clone(), self.port_name.clone());
        if view.frontends.get(&self.destination) != Some(&owner) {
            // What becomes of a flow whose frontend is gone is a question of CP-14, which the audit asks.
            (self.intact, self.sure) = (false, false);
            return;
        }
        let allowed = view.expect(&self.source, &self.destination);
        let listing = |endpoint: &Endpoint| {
            let key = (self.service.clone(), self.port_name.clone(), *endpoint);
            view.listed.get(&key).copied()
        };
        let alive = |endpoint: &Endpoint| view.serves(endpoint, self.destination.protocol);
        match self.kind {
            FlowKind::TcpStream => {
                let stays = |endpoint: &Endpoint| {
                    alive(endpoint)
                        && match listing(endpoint) {
                            Some(Listing::Ready | Listing::Terminating) => true,
                            // It finishes what it has begun (tcp-endpoint-unready).
                            Some(Listing::Over) => level >= Level::Extended,
                            None => false,
                        }
                };
                self.intact &= self.at.iter().all(stays);
            }
            FlowKind::NewConnections | FlowKind::NewDatagrams => {
                let somebody = match &allowed {
                    Allowed::Endpoints(endpoints) => {
                        self.ever.extend(endpoints);
                        !endpoints.is_empty()
                    }
                    _ => false,
                };
                self.intact &= somebody && self.ever.iter().all(alive);
            }
            FlowKind::UdpConnected | FlowKind::UdpUnconnected | FlowKind::UdpOneWay => {
                let stays = |endpoint: &Endpoint| alive(endpoint);
                match &allowed {
                    Allowed::Endpoints(endpoints) => {
                        self.intact &= self.at.is_subset(endpoints) && self.at.iter().all(stays);
                        // The candidate may see this state, and move the flow, or never know of it.
                        self.possible.extend(endpoints);
                    }
                    _ => self.intact = false,
                }
            }
        }
    }

    /// The world is quiet: the candidate knows what the objects say, and nothing else.
    pub fn settle(&mut self, view: &View, level: Level) {
        if !is_udp_flow(self.kind) || !self.sure {
            return;
        }
        let gone = |endpoint: &Endpoint| {
            let key = (self.service.clone(), self.port_name.clone(), *endpoint);
            match view.listed.get(&key) {
                None => true,
                // That an unready endpoint is as good as gone for its flows, the catalogue asks at this level.
                Some(Listing::Over) => level >= Level::Extended,
                Some(_) => false,
            }
        };
        let was: BTreeSet<Endpoint> = std::mem::take(&mut self.possible);
        let was: BTreeSet<Endpoint> = was.union(&self.at).copied().collect();
        let left: BTreeSet<Endpoint> = was.iter().filter(|one| !gone(one)).copied().collect();
        let went = self.at.iter().any(|one| !left.contains(one));
        match view.expect(&self.source, &self.destination) {
            Allowed::Endpoints(endpoints)
                if left.is_subset(&endpoints)
                    && endpoints
                        .iter()
                        .all(|one| view.serves(one, self.destination.protocol)) =>
            {
                self.moves |= went || self.at.is_empty();
                self.at = if self.moves { endpoints } else { left };
            }
            Allowed::Refused if left.is_empty() => {
                self.moves |= went;
                self.at.clear();
            }
            // An endpoint that still serves, or that a policy leaves out, may keep the flow.
            _ => (self.intact, self.sure) = (false, false),
        }
    }

    /// What can be asserted once the world is quiet: that it has moved.
    pub fn must_move(&mut self) -> bool {
        let due = self.sure && std::mem::take(&mut self.moves) && is_udp_flow(self.kind);
        self.moves = false;
        due
    }

    /// What can be asserted of the whole flow.
    pub fn whole(&self) -> Option<FlowExpect> {
        if !self.intact {
            return None;
        }
        match self.kind {
            FlowKind::TcpStream | FlowKind::UdpConnected | FlowKind::UdpUnconnected => {
                Some(FlowExpect::Unbroken)
            }
            FlowKind::NewConnections | FlowKind::NewDatagrams => Some(FlowExpect::NoLoss),
            FlowKind::UdpOneWay => None,
        }
    }

    /// Whether something may be asserted of it one day.
    pub fn is_worth_keeping(&self) -> bool {
        self.whole().is_some() || (self.sure && is_udp_flow(self.kind))
    }
}

/// The rules that what is asserted of a flow follows from.
pub fn rules(kind: FlowKind, is: FlowExpect) -> &'static [&'static str] {
    match (kind, is) {
        (FlowKind::TcpStream, _) => &["TCP-1", "TCP-3", "CP-1"],
        (FlowKind::NewConnections | FlowKind::NewDatagrams, _) => &["DIST-2", "EP-15"],
        (_, FlowExpect::Model) => &["UDP-1", "UDP-2", "UDP-3", "UDP-4", "UDP-8"],
        (_, _) => &["UDP-5", "UDP-6"],
    }
}

fn is_udp_flow(kind: FlowKind) -> bool {
    matches!(
        kind,
        FlowKind::UdpConnected | FlowKind::UdpUnconnected | FlowKind::UdpOneWay
    )
}
