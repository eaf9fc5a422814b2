//! One history while it is written: the model of the world, the API that goes along, and the steps so far.

use std::collections::{BTreeMap, BTreeSet};

use apiserver::{ApiServer, Config};
use netlab::plan::Plan;
use rand::{
    Rng, SeedableRng,
    rngs::StdRng,
    seq::{IndexedMutRandom, IndexedRandom},
};
use serde_json::Value;
use serde_saphyr::{Location, Spanned};

use super::{
    coverage::{Coverage, Event},
    generate::Settings,
    kinds::{Disturbance, Frontend, Policy, Transition},
    model::{Condition, Families, Key, Kind, Listed, Port, Service, Slice, Target, merge_patch},
    traffic::{Flow, View},
};
use crate::scenario::{
    Feature, FrontendKind, Level, Scenario, Span, Stage,
    doc::{
        self, ApiFault, Converge, Fault, FlowExpect, FlowKind, FlowStep, NodeFault, ObjectRef,
        OneOrMany, Patch, PatchType, PodAction, PodVerb, PortRef, Probe, Protocol, ProxyFault,
        Step, Topology,
    },
};

/// Phases of a history, at least and at most: each ends with a quiet world. More find nothing that fewer do not, and are slower to shrink.
const PHASES: std::ops::RangeInclusive<usize> = 3..=5;
/// Transitions before the world has to be quiet again.
const BURST: std::ops::RangeInclusive<usize> = 1..=3;
/// Flows at the same time.
const FLOWS: usize = 4;
/// Faults of one history: each costs seconds.
const FAULTS: usize = 2;
/// The weight of a choice that adds nothing new. The others weigh the square of what they add, so that the dice are loaded and still dice.
const FAIR: f64 = 0.05;
/// How much more a transition weighs that takes an endpoint from a UDP flow.
const FLOWS_MOVE: f64 = 4.0;
/// Clients: pods that no Service selects, one per node.
const CLIENTS: [&str; 2] = ["client-1", "client-2"];
/// Values of the label `app` that Services select.
const APPS: [&str; 2] = ["a", "b"];
const NAMES: [&str; 3] = ["red", "green", "blue"];

/// How a server pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// It can be started.
    Absent,
    /// Its namespace is gone, and does not come back.
    Gone,
    Ready,
    Unready,
    Terminating,
}

#[derive(Clone, Debug)]
struct Server {
    name: String,
    node: String,
    app: String,
    life: Life,
}

/// What a transition is made of.
#[derive(Clone, Debug)]
enum Subject {
    /// A Service that exists.
    Service(usize),
    /// Two Services that exist.
    Services(usize, usize),
    /// A Service of this name, to be made.
    New(&'static str),
    /// A server.
    Server(usize),
}

/// A history being written.
pub struct History<'a> {
    rng: StdRng,
    settings: &'a Settings,
    coverage: &'a Coverage,
    plan: Plan,
    stage: Stage,
    topology: Topology,
    objects: Vec<Value>,
    steps: Vec<Step>,
    servers: Vec<Server>,
    services: Vec<Service>,
    flows: Vec<Flow>,
    events: Vec<Event>,
    faults: usize,
    numbers: u32,
}

impl<'a> History<'a> {
    /// A world and its first objects.
    ///
    /// # Errors
    ///
    /// The API refuses them, which is a mistake of the generator.
    pub fn new(seed: u64, settings: &'a Settings, coverage: &'a Coverage) -> Result<Self, String> {
        let mut rng = StdRng::seed_from_u64(seed);
        let (topology, servers) = world(&mut rng, settings);
        let plan = Plan::new(&topology.lab()).map_err(|error| error.to_string())?;
        let api = ApiServer::new(Config::default()).map_err(|error| error.to_string())?;
        let empty = Scenario {
            id: "x".into(),
            title: String::new(),
            description: None,
            requirement: Vec::new(),
            level: settings.level,
            features: Vec::new(),
            covers: Vec::new(),
            topology: topology.clone(),
            matrix: BTreeMap::new(),
            exclude: Vec::new(),
            case: None,
            seed: None,
            proxy: doc::ProxySettings::default(),
            objects: Vec::new(),
            steps: Vec::new(),
        };
        let stage =
            Stage::new(api, plan.clone(), &empty).map_err(|error| format!("topology: {error}"))?;
        let mut history = Self {
            rng,
            settings,
            coverage,
            plan,
            stage,
            topology,
            objects: Vec::new(),
            steps: Vec::new(),
            servers,
            services: Vec::new(),
            flows: Vec::new(),
            events: Vec::new(),
            faults: 0,
            numbers: 0,
        };
        let count = history.rng.random_range(1..=2);
        for name in &NAMES[..count] {
            let service = history.service(name);
            for object in service.objects().into_values() {
                history
                    .stage
                    .apply_all(&[history.resolved(&object)?])
                    .map_err(|error| format!("objects: {error}"))?;
                history.objects.push(object);
            }
            history.services.push(service);
        }
        Ok(history)
    }

    /// Writes the whole history.
    ///
    /// # Errors
    ///
    /// The API refuses a step, which is a mistake of the generator.
    pub fn write(mut self, id: &str, title: &str) -> Result<(Scenario, Vec<Event>), String> {
        self.converge(Disturbance::None);
        self.start_flows()?;
        let phases = self.rng.random_range(PHASES);
        for _ in 0..phases {
            self.phase()?;
        }
        self.look_at_shares();
        for flow in std::mem::take(&mut self.flows) {
            if let Some(is) = flow.whole() {
                self.judge(&flow, is, true);
            }
        }
        Ok((self.scenario(id, title), self.events))
    }

    fn scenario(&self, id: &str, title: &str) -> Scenario {
        let mut scenario = Scenario {
            id: id.into(),
            title: title.into(),
            description: None,
            requirement: Vec::new(),
            level: self.settings.level,
            features: self.features(),
            covers: Vec::new(),
            topology: self.topology.clone(),
            matrix: BTreeMap::new(),
            exclude: Vec::new(),
            case: None,
            seed: None,
            proxy: doc::ProxySettings::default(),
            objects: self.objects.clone(),
            steps: self
                .steps
                .iter()
                .map(|step| Spanned::new(step.clone(), Location::UNKNOWN, Location::UNKNOWN))
                .collect(),
        };
        scenario.requirement = super::found::requirements(&scenario);
        scenario
    }

    /// What a candidate needs for all that happened.
    fn features(&self) -> Vec<Feature> {
        let mut features: BTreeSet<Feature> = BTreeSet::new();
        for event in &self.events {
            features.extend(event.transition.feature());
            features.extend(event.fault.feature());
            features.extend(event.frontends.iter().filter_map(|one| one.feature()));
            features.extend(event.policies.iter().filter_map(|one| one.feature()));
        }
        for service in &self.services {
            features.extend(service.frontends().iter().filter_map(|one| one.feature()));
            features.extend(service.policies().iter().filter_map(|one| one.feature()));
        }
        features.into_iter().collect()
    }

    // ---- Phases

    fn phase(&mut self) -> Result<(), String> {
        let fault = self.pick_fault();
        let before: Vec<Flow> = self.flows.clone();
        let mark = self.steps.len();
        for flow in &mut self.flows {
            flow.disturbed(fault, self.settings.level);
        }
        self.faults += usize::from(fault != Disturbance::None);
        for step in begin(fault) {
            self.emit(step)?;
        }
        let burst = self.rng.random_range(BURST);
        let mut made = 0;
        for _ in 0..burst {
            made += usize::from(self.transition(fault)?);
        }
        if self.is_felt(fault) {
            for step in end(fault) {
                self.emit(step)?;
            }
        } else {
            let started = self.events.len() - made;
            for event in &mut self.events[started..] {
                event.fault = Disturbance::None;
            }
        }
        // Whatever the transitions put an end to is judged before them.
        let mut judgements = Vec::new();
        for (was, is) in before.iter().zip(&self.flows) {
            if let (Some(expect), None) = (was.whole(), is.whole()) {
                let stop = !is.is_worth_keeping();
                judgements.push(judgement(&was.name, expect, stop));
            }
        }
        self.steps.splice(mark..mark, judgements);
        if made == 0 && fault == Disturbance::None {
            return Ok(());
        }
        self.converge(fault);
        let view = self.view()?;
        let mut due = Vec::new();
        for flow in &mut self.flows {
            flow.settle(&view, self.settings.level);
            if flow.must_move() {
                due.push(flow.clone());
            }
        }
        for flow in due {
            self.judge(&flow, FlowExpect::Model, false);
        }
        self.flows.retain(Flow::is_worth_keeping);
        self.start_flows()
    }

    fn pick_fault(&mut self) -> Disturbance {
        if self.faults >= FAULTS || !self.rng.random_bool(0.5) {
            return Disturbance::None;
        }
        let transitions = self.settings.transitions();
        let choices: Vec<(Disturbance, f64)> = self
            .settings
            .faults()
            .into_iter()
            .filter(|fault| *fault != Disturbance::None)
            .map(|fault| {
                let gain: f64 = transitions
                    .iter()
                    .map(|transition| {
                        self.coverage.gain(&Event {
                            transition: *transition,
                            frontends: BTreeSet::new(),
                            policies: BTreeSet::new(),
                            fault,
                        })
                    })
                    .sum();
                (fault, FAIR + gain * gain)
            })
            .collect();
        self.weighted(&choices).unwrap_or(Disturbance::None)
    }

    /// Makes one transition; `false` if there is none that could be made.
    fn transition(&mut self, fault: Disturbance) -> Result<bool, String> {
        let mut choices = Vec::new();
        for transition in self.settings.transitions() {
            let subjects = self.subjects(transition);
            let share = 1.0 / subjects.len().max(1) as f64;
            for subject in subjects {
                let gain = self.coverage.gain(&self.event(transition, &subject, fault));
                let weight = share * (FAIR + gain * gain) * self.interest(transition, &subject);
                choices.push(((transition, subject), weight));
            }
        }
        let Some((transition, subject)) = self.weighted(&choices) else {
            return Ok(false);
        };
        let mut event = self.event(transition, &subject, fault);
        self.perform(transition, &subject)?;
        let after = self.event(transition, &subject, fault);
        event.frontends.extend(after.frontends);
        event.policies.extend(after.policies);
        self.events.push(event);
        Ok(true)
    }

    /// What takes an endpoint from a flow that keeps sending is where proxies are wrong most, and what few transitions do.
    fn interest(&self, transition: Transition, subject: &Subject) -> f64 {
        use Transition as T;
        let moves = matches!(
            transition,
            T::PodStops
                | T::PodUnready
                | T::PodRelabelled
                | T::SelectorChanged
                | T::TargetPortChanged
                | T::EndpointUnlisted
                | T::ConditionsChanged
        );
        let concerned = self.concerned(subject);
        let flows = || {
            let mut flows = self.flows.iter();
            flows.any(|flow| {
                flow.is_udp() && concerned.iter().any(|service| flow.is_to(&service.name))
            })
        };
        if moves && flows() { FLOWS_MOVE } else { 1.0 }
    }

    fn weighted<T: Clone>(&mut self, choices: &[(T, f64)]) -> Option<T> {
        choices
            .choose_weighted(&mut self.rng, |(_, weight)| *weight)
            .ok()
            .map(|(choice, _)| choice.clone())
    }

    /// The Services that a transition concerns, as they are now.
    fn concerned(&self, subject: &Subject) -> Vec<&Service> {
        match subject {
            Subject::Service(at) => self.services.get(*at).into_iter().collect(),
            Subject::Services(one, other) => [one, other]
                .into_iter()
                .filter_map(|at| self.services.get(*at))
                .collect(),
            Subject::New(name) => {
                let known = self.services.iter();
                known.filter(|service| service.name == **name).collect()
            }
            Subject::Server(at) => {
                let app = &self.servers[*at].app;
                self.services
                    .iter()
                    .filter(|service| service.selector.as_ref() == Some(app))
                    .collect()
            }
        }
    }

    fn event(&self, transition: Transition, subject: &Subject, fault: Disturbance) -> Event {
        let concerned = self.concerned(subject);
        let frontends: BTreeSet<Frontend> =
            concerned.iter().flat_map(|one| one.frontends()).collect();
        let policies: BTreeSet<Policy> = concerned.iter().flat_map(|one| one.policies()).collect();
        Event {
            transition,
            frontends,
            policies,
            fault,
        }
    }

    // ---- Transitions

    /// Whom a transition can be made with now.
    fn subjects(&self, transition: Transition) -> Vec<Subject> {
        use Transition as T;
        let services = |keep: &dyn Fn(&Service) -> bool| -> Vec<Subject> {
            self.services
                .iter()
                .enumerate()
                .filter(|(_, service)| keep(service))
                .map(|(at, _)| Subject::Service(at))
                .collect()
        };
        let servers = |keep: &dyn Fn(&Server) -> bool| -> Vec<Subject> {
            self.servers
                .iter()
                .enumerate()
                .filter(|(_, server)| keep(server))
                .map(|(at, _)| Subject::Server(at))
                .collect()
        };
        let selected = |server: &Server| {
            self.services
                .iter()
                .any(|service| service.selector.as_ref() == Some(&server.app))
        };
        let listed = |server: &Server| {
            self.services.iter().any(|service| {
                service
                    .slices
                    .iter()
                    .any(|slice| slice.endpoints.iter().any(|one| one.pod == server.name))
            })
        };
        let lives = |service: &Service| service.kind != Kind::ExternalName;
        // Somebody has to be there to be asked: that nobody answers shows nothing by itself.
        let others_served = |service: &Service| {
            let mut others = self
                .services
                .iter()
                .filter(|other| other.name != service.name);
            others.any(is_served)
        };
        let manual = |service: &Service| lives(service) && service.selector.is_none();
        match transition {
            T::PodStarts => servers(&|server| server.life == Life::Absent && selected(server)),
            // A slice written by hand would go on naming it, and nothing of that would be the proxy's fault.
            T::PodStops => servers(&|server| {
                !matches!(server.life, Life::Absent | Life::Gone) && !listed(server)
            }),
            T::PodUnready => servers(&|server| server.life == Life::Ready && selected(server)),
            T::PodReady => servers(&|server| server.life == Life::Unready && selected(server)),
            T::PodTerminates => servers(&|server| {
                matches!(server.life, Life::Ready | Life::Unready) && !listed(server)
            }),
            T::PodRelabelled => servers(&|server| {
                matches!(server.life, Life::Ready | Life::Unready) && selected(server)
            }),
            T::ServiceCreated => NAMES
                .into_iter()
                .filter(|name| !self.services.iter().any(|service| service.name == *name))
                .map(Subject::New)
                .collect(),
            T::ServiceDeleted => services(&others_served),
            T::ProxyNameToggled => {
                services(&|service| lives(service) && (service.foreign || others_served(service)))
            }
            T::ServiceRecreated | T::Meaningless => services(&lives),
            T::TypeChanged => services(&|_| true),
            T::PortAdded => services(&|service| lives(service) && service.ports.len() < 3),
            T::PortRemoved => services(&|service| lives(service) && service.ports.len() > 1),
            T::PortRenumbered | T::TargetPortChanged => services(&lives),
            T::PortsSwapped => services(&|service| {
                lives(service)
                    && service.ports.len() > 1
                    && service.ports[0].port != service.ports[1].port
                    && swappable(&service.ports)
            }),
            T::NodePortChanged => services(&Service::is_external),
            T::SelectorChanged => services(&|service| lives(service) && service.selector.is_some()),
            T::InternalPolicyToggled => services(&lives),
            T::ExternalPolicyToggled => services(&Service::is_external),
            T::AffinitySwitched => services(&lives),
            T::AffinityTimeout => services(&|service| lives(service) && service.affinity.is_some()),
            T::ExternalIpsChanged => services(&lives),
            T::IngressChanged | T::SourceRangesChanged => {
                services(&|service| service.kind == Kind::LoadBalancer)
            }
            T::FamilyToggled | T::DistributionChanged => services(&lives),
            T::PublishNotReadyToggled => {
                services(&|service| lives(service) && service.selector.is_some())
            }
            T::AddressesMoved => {
                let mut pairs = Vec::new();
                for (at, one) in self.services.iter().enumerate() {
                    for (other, two) in self.services.iter().enumerate().skip(at + 1) {
                        if lives(one)
                            && lives(two)
                            && (one.is_external() || !one.external_ips.is_empty())
                        {
                            pairs.push(Subject::Services(at, other));
                        }
                    }
                }
                pairs
            }
            T::EndpointListed => services(&|service| {
                manual(service)
                    && !service.slices.is_empty()
                    && self.alive().any(|server| !is_listed(service, &server.name))
            }),
            T::EndpointUnlisted | T::ConditionsChanged | T::SliceRebalanced => {
                services(&|service| {
                    manual(service)
                        && service
                            .slices
                            .iter()
                            .any(|slice| !slice.endpoints.is_empty())
                })
            }
            T::SlicesReplaced => services(&|service| manual(service) && !service.slices.is_empty()),
        }
    }

    fn clients(&self) -> Vec<String> {
        let there = self.topology.nodes.len().min(CLIENTS.len());
        CLIENTS[..there]
            .iter()
            .map(|name| (*name).to_owned())
            .collect()
    }

    fn alive(&self) -> impl Iterator<Item = &Server> {
        self.servers
            .iter()
            .filter(|server| matches!(server.life, Life::Ready | Life::Unready))
    }

    fn perform(&mut self, transition: Transition, subject: &Subject) -> Result<(), String> {
        match subject {
            Subject::Server(at) => self.perform_on_server(transition, *at),
            Subject::New(name) => {
                let service = self.service(name);
                self.services.push(service.clone());
                self.write_objects(&BTreeMap::new(), &service.objects())
            }
            Subject::Services(one, other) => self.move_addresses(*one, *other),
            Subject::Service(at) => {
                let before = self.services[*at].clone();
                match transition {
                    Transition::ServiceDeleted => {
                        self.services.remove(*at);
                        self.write_objects(&before.objects(), &BTreeMap::new())
                    }
                    Transition::ServiceRecreated => {
                        let mut after = before.clone();
                        if self.rng.random_bool(0.4) {
                            after = self.service(name_of(&before.name));
                        }
                        self.write_objects(&before.objects(), &BTreeMap::new())?;
                        self.write_objects(&BTreeMap::new(), &after.objects())?;
                        self.services[*at] = after;
                        Ok(())
                    }
                    _ => {
                        let mut after = before.clone();
                        self.change(transition, &mut after);
                        if after.is_external() {
                            self.settle_node_ports(&mut after);
                        }
                        self.services[*at] = after.clone();
                        self.write_objects(&before.objects(), &after.objects())
                    }
                }
            }
        }
    }

    fn perform_on_server(&mut self, transition: Transition, at: usize) -> Result<(), String> {
        let name = self.servers[at].name.clone();
        let (verb, life) = match transition {
            Transition::PodStarts => (PodVerb::Start, Life::Ready),
            Transition::PodStops => (PodVerb::Stop, Life::Gone),
            Transition::PodUnready => (PodVerb::Unready, Life::Unready),
            Transition::PodReady => (PodVerb::Ready, Life::Ready),
            Transition::PodTerminates => (PodVerb::Terminate, Life::Terminating),
            _ => {
                let app = &self.servers[at].app;
                let other = APPS.into_iter().find(|one| one != app).unwrap_or(APPS[0]);
                self.servers[at].app = other.to_owned();
                return self.emit(Step {
                    patch: Some(Patch {
                        api_version: None,
                        kind: "Pod".into(),
                        namespace: None,
                        name,
                        patch_type: PatchType::Merge,
                        subresource: None,
                        patch: serde_json::json!({"metadata": {"labels": {"app": other}}}),
                    }),
                    ..Step::default()
                });
            }
        };
        self.servers[at].life = life;
        if verb == PodVerb::Start {
            let ready = self
                .topology
                .pods
                .iter()
                .find(|pod| pod.name == name)
                .is_some_and(|pod| pod.ready);
            if !ready {
                self.servers[at].life = Life::Unready;
            }
        }
        self.emit(Step {
            pod: Some(PodAction {
                name: OneOrMany::One(name),
                action: verb,
            }),
            ..Step::default()
        })
    }

    fn change(&mut self, transition: Transition, service: &mut Service) {
        use Transition as T;
        match transition {
            T::TypeChanged => {
                let mut kinds = vec![Kind::ClusterIp, Kind::NodePort];
                if self.settings.has(Feature::LoadBalancer) {
                    kinds.push(Kind::LoadBalancer);
                }
                let mut others = self
                    .services
                    .iter()
                    .filter(|other| other.name != service.name);
                if others.any(is_served) && self.rng.random_bool(0.3) {
                    kinds = vec![Kind::ExternalName];
                }
                kinds.retain(|kind| *kind != service.kind);
                service.kind = *kinds.choose(&mut self.rng).unwrap_or(&Kind::ClusterIp);
                if service.kind == Kind::LoadBalancer && service.ingress.is_empty() {
                    service.ingress = vec![self.number()];
                }
                if service.is_external() {
                    self.give_node_ports(service);
                }
            }
            T::PortAdded => {
                let port = self.port(service);
                service.ports.push(port);
                if service.is_external() {
                    self.give_node_ports(service);
                }
            }
            T::PortRemoved => {
                let at = self.rng.random_range(0..service.ports.len());
                service.ports.remove(at);
            }
            T::PortRenumbered => {
                let at = self.rng.random_range(0..service.ports.len());
                service.ports[at].port = self.free_port(service, service.ports[at].protocol);
            }
            T::PortsSwapped => {
                let (one, other) = (service.ports[0].port, service.ports[1].port);
                (service.ports[0].port, service.ports[1].port) = (other, one);
            }
            T::TargetPortChanged => {
                let at = self.rng.random_range(0..service.ports.len());
                let port = &mut service.ports[at];
                let by_name = service.selector.is_some() && self.rng.random_bool(0.3);
                port.target = match port.target {
                    Target::Second if by_name => Target::FirstByName,
                    Target::Second => Target::First,
                    _ => Target::Second,
                };
            }
            T::NodePortChanged => {
                let at = self.rng.random_range(0..service.ports.len());
                service.ports[at].node_port = self.free_node_port();
            }
            T::SelectorChanged => {
                let app = service.selector.take();
                let other = APPS.into_iter().find(|one| Some(*one) != app.as_deref());
                service.selector = other.map(str::to_owned);
            }
            T::InternalPolicyToggled => service.internal_local = !service.internal_local,
            T::ExternalPolicyToggled => service.external_local = !service.external_local,
            T::AffinitySwitched => {
                service.affinity = match service.affinity {
                    Some(_) => None,
                    None => Some(10_800),
                };
            }
            T::AffinityTimeout => {
                service.affinity = Some(if service.affinity == Some(10_800) {
                    7_200
                } else {
                    10_800
                });
            }
            T::ExternalIpsChanged => {
                if service.external_ips.is_empty() || self.rng.random_bool(0.5) {
                    let number = self.number();
                    service.external_ips.push(number);
                    if service.external_ips.len() > 2 {
                        service.external_ips.remove(0);
                    }
                } else {
                    service.external_ips.remove(0);
                }
            }
            T::IngressChanged => {
                if service.ingress.is_empty() || self.rng.random_bool(0.6) {
                    let number = self.number();
                    service.ingress.push(number);
                    if service.ingress.len() > 2 {
                        service.ingress.remove(0);
                    }
                } else {
                    service.ingress.remove(0);
                }
                service.host_name = self.rng.random_bool(0.2);
            }
            T::SourceRangesChanged => {
                service.ranges = match service.ranges {
                    Some(1) if self.rng.random_bool(0.5) => Some(2),
                    Some(_) => None,
                    None => Some(self.rng.random_range(1..=2)),
                };
            }
            T::FamilyToggled => service.families.dual = !service.families.dual,
            T::ProxyNameToggled => service.foreign = !service.foreign,
            T::PublishNotReadyToggled => service.publish_not_ready = !service.publish_not_ready,
            T::DistributionChanged => {
                service.distribution = match service.distribution {
                    None => Some(
                        *["PreferSameZone", "PreferSameNode", "PreferClose"]
                            .choose(&mut self.rng)
                            .unwrap_or(&"PreferClose"),
                    ),
                    Some(_) => None,
                };
            }
            T::EndpointListed => {
                let pods: Vec<Server> = self
                    .alive()
                    .filter(|server| !is_listed(service, &server.name))
                    .cloned()
                    .collect();
                let Some(server) = pods.choose(&mut self.rng).cloned() else {
                    return;
                };
                let listed = self.listed(&server);
                if let Some(slice) = service.slices.choose_mut(&mut self.rng) {
                    slice.endpoints.push(listed);
                }
            }
            T::EndpointUnlisted => {
                if let Some(slice) = self.filled(service) {
                    let at = self.rng.random_range(0..slice.endpoints.len());
                    slice.endpoints.remove(at);
                }
            }
            T::ConditionsChanged => {
                let terminating = self.settings.level >= Level::Extended;
                if let Some(slice) = self.filled(service) {
                    let at = self.rng.random_range(0..slice.endpoints.len());
                    let mut others = vec![Condition::Absent, Condition::Ready, Condition::Unready];
                    if terminating {
                        others.push(Condition::Terminating);
                    }
                    others.retain(|one| *one != slice.endpoints[at].condition);
                    if let Some(condition) = others.choose(&mut self.rng) {
                        slice.endpoints[at].condition = *condition;
                    }
                }
            }
            T::SliceRebalanced => {
                let Some(slice) = self.filled(service) else {
                    return;
                };
                let (name, listed) = (slice.name.clone(), slice.endpoints[0].clone());
                if self.rng.random_bool(0.5) {
                    slice.endpoints.remove(0);
                }
                let other = service.slices.iter_mut().find(|other| {
                    other.name != name && !other.endpoints.iter().any(|one| one.pod == listed.pod)
                });
                match other {
                    Some(other) => other.endpoints.push(listed),
                    None => service.slices.push(Slice {
                        name: self.slice_name(&service.name),
                        endpoints: vec![listed],
                    }),
                }
            }
            T::SlicesReplaced => {
                for at in 0..service.slices.len() {
                    service.slices[at].name = self.slice_name(&service.name);
                }
            }
            T::Meaningless => service.note += 1,
            _ => {}
        }
    }

    /// A slice with endpoints.
    fn filled<'s>(&mut self, service: &'s mut Service) -> Option<&'s mut Slice> {
        let filled: Vec<usize> = service
            .slices
            .iter()
            .enumerate()
            .filter(|(_, slice)| !slice.endpoints.is_empty())
            .map(|(at, _)| at)
            .collect();
        let at = *filled.choose(&mut self.rng)?;
        service.slices.get_mut(at)
    }

    /// Two Services take each other's addresses and NodePorts: by deletion where the API would not have two owners at once.
    fn move_addresses(&mut self, one: usize, other: usize) -> Result<(), String> {
        let (a, b) = (self.services[one].clone(), self.services[other].clone());
        let (mut x, mut y) = (a.clone(), b.clone());
        std::mem::swap(&mut x.external_ips, &mut y.external_ips);
        std::mem::swap(&mut x.ingress, &mut y.ingress);
        if x.kind == Kind::LoadBalancer && y.kind != Kind::LoadBalancer {
            x.ingress = a.ingress.clone();
            y.ingress = b.ingress.clone();
        }
        if self.rng.random_bool(0.5) {
            for (p, q) in x.ports.iter_mut().zip(&mut y.ports) {
                std::mem::swap(&mut p.node_port, &mut q.node_port);
            }
            std::mem::swap(&mut x.cluster_ip, &mut y.cluster_ip);
            if x.families != y.families {
                (x.cluster_ip, y.cluster_ip) = (a.cluster_ip, b.cluster_ip);
            }
            self.settle_node_ports(&mut x);
            self.settle_node_ports(&mut y);
            self.write_objects(&a.objects(), &BTreeMap::new())?;
            self.write_objects(&b.objects(), &BTreeMap::new())?;
            self.write_objects(&BTreeMap::new(), &x.objects())?;
            self.write_objects(&BTreeMap::new(), &y.objects())?;
        } else {
            self.write_objects(&a.objects(), &x.objects())?;
            self.write_objects(&b.objects(), &y.objects())?;
        }
        self.services[one] = x;
        self.services[other] = y;
        Ok(())
    }

    /// Writes what is different to the API, Service or slices first.
    fn write_objects(
        &mut self,
        before: &BTreeMap<Key, Value>,
        after: &BTreeMap<Key, Value>,
    ) -> Result<(), String> {
        let mut keys: Vec<&Key> = before.keys().chain(after.keys()).collect();
        keys.sort();
        keys.dedup();
        if self.rng.random_bool(0.5) {
            keys.reverse();
        }
        for key in keys {
            match (before.get(key), after.get(key)) {
                (None, Some(object)) => self.emit(Step {
                    apply: Some(vec![object.clone()]),
                    ..Step::default()
                })?,
                (Some(_), None) => self.emit(Step {
                    delete: Some(OneOrMany::One(ObjectRef {
                        api_version: None,
                        kind: key.0.into(),
                        namespace: None,
                        name: key.1.clone(),
                    })),
                    ..Step::default()
                })?,
                (Some(before), Some(after)) => self.update(key, before, after)?,
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn update(&mut self, key: &Key, before: &Value, after: &Value) -> Result<(), String> {
        let (old, new) = (&before["spec"]["type"], &after["spec"]["type"]);
        if old != new {
            // A type brings its fields along: the whole object, as somebody would apply it.
            if before != after {
                self.emit(Step {
                    apply: Some(vec![after.clone()]),
                    ..Step::default()
                })?;
            }
            return Ok(());
        }
        let (mut spec_before, mut spec_after) = (before.clone(), after.clone());
        let without =
            |value: &mut Value| value.as_object_mut().and_then(|map| map.remove("status"));
        let status_before = without(&mut spec_before);
        let status_after = without(&mut spec_after);
        if let Some(patch) = merge_patch(&spec_before, &spec_after) {
            self.emit_patch(key, None, patch)?;
        }
        if status_after != status_before
            && let Some(status) = status_after
        {
            self.emit_patch(key, Some("status"), serde_json::json!({"status": status}))?;
        }
        Ok(())
    }

    fn emit_patch(
        &mut self,
        key: &Key,
        subresource: Option<&str>,
        patch: Value,
    ) -> Result<(), String> {
        self.emit(Step {
            patch: Some(Patch {
                api_version: None,
                kind: key.0.into(),
                namespace: None,
                name: key.1.clone(),
                patch_type: PatchType::Merge,
                subresource: subresource.map(str::to_owned),
                patch,
            }),
            ..Step::default()
        })
    }

    // ---- Steps

    /// Makes a step and writes it down.
    fn emit(&mut self, step: Step) -> Result<(), String> {
        let text = |error: crate::scenario::StageError| error.to_string();
        for object in step.apply.iter().flatten() {
            self.stage
                .apply_all(&[self.resolved(object)?])
                .map_err(text)?;
        }
        if let Some(patch) = &step.patch {
            let patch = Patch {
                patch: self.resolved(&patch.patch)?,
                ..patch.clone()
            };
            self.stage.patch(&patch).map_err(text)?;
        }
        for object in step.delete.iter().flat_map(OneOrMany::as_slice) {
            self.stage.delete(object).map_err(text)?;
        }
        if let Some(action) = &step.pod {
            for name in action.name.as_slice() {
                self.stage.pod_verb(name, action.action).map_err(text)?;
            }
        }
        let changes = step.apply.is_some()
            || step.patch.is_some()
            || step.delete.is_some()
            || step.pod.is_some();
        self.steps.push(step);
        if changes && !self.flows.is_empty() {
            let view = self.view()?;
            for flow in &mut self.flows {
                flow.observe(&view, self.settings.level);
            }
        }
        Ok(())
    }

    fn view(&self) -> Result<View, String> {
        View::of(&self.stage)
    }

    /// Variables replaced as in a document that is read.
    fn resolved(&self, value: &Value) -> Result<Value, String> {
        crate::scenario::load::substitute_addresses(&self.plan, value)
    }

    /// From some of each class of sources: the sweep after it looks from others, and a round from all pods costs a busy machine seconds.
    fn converge(&mut self, after: Disturbance) {
        let mut from = self.clients();
        from.extend(
            self.topology
                .nodes
                .choose(&mut self.rng)
                .map(|node| node.name.clone()),
        );
        from.push("outside".to_owned());
        // An endpoint may have to reach itself.
        let servers: Vec<String> = self.alive().map(|server| server.name.clone()).collect();
        from.extend(servers.choose(&mut self.rng).cloned());
        self.steps.push(Step {
            converge: Some(Converge {
                from: OneOrMany::Many(from),
                deadline: match after {
                    // The longest period that a proxy documents for restoring rules, as in ruleset-flushed.
                    Disturbance::FlushRuleset => Span::millis(90_000),
                    _ => Converge::default().deadline,
                },
                ..Converge::default()
            }),
            ..Step::default()
        });
    }

    fn judge(&mut self, flow: &Flow, is: FlowExpect, stop: bool) {
        self.steps.push(judgement(&flow.name, is, stop));
    }

    /// Whether the fault would do something with the objects that there are: no-op updates need some to touch, and a list another order.
    fn is_felt(&self, fault: Disturbance) -> bool {
        let count = |kind: &str, version: &str| {
            let list = self.stage.api().list(version, kind, None);
            list.map_or(0, |list| list.len())
        };
        let (services, slices) = (
            count("Service", "v1"),
            count("EndpointSlice", "discovery.k8s.io/v1"),
        );
        match fault {
            Disturbance::NoopUpdates => services > 0 && slices > 0,
            Disturbance::ShuffledRelist => slices > 1,
            _ => true,
        }
    }

    /// Many connections to one Service, so that shares can be judged.
    fn look_at_shares(&mut self) {
        let served: Vec<&Service> = self
            .services
            .iter()
            .filter(|service| is_served(service) && service.affinity.is_none())
            .collect();
        let Some(service) = served.choose(&mut self.rng) else {
            return;
        };
        let to = doc::Target {
            service: Some(service.name.clone()),
            frontend: Some(OneOrMany::One(FrontendKind::ClusterIp)),
            ..doc::Target::default()
        };
        let from = self.clients();
        self.steps.push(Step {
            probe: Some(Probe {
                from: OneOrMany::Many(from),
                to: OneOrMany::One(to),
                count: 60,
                ..Probe::default()
            }),
            ..Step::default()
        });
    }

    // ---- Flows

    fn start_flows(&mut self) -> Result<(), String> {
        let view = self.view()?;
        for _ in 0..2 * FLOWS {
            if self.flows.len() >= FLOWS {
                break;
            }
            if let Some((flow, step)) = self.flow(&view) {
                self.flows.push(flow);
                self.steps.push(step);
            }
        }
        Ok(())
    }

    fn flow(&mut self, view: &View) -> Option<(Flow, Step)> {
        let service = self.services.choose(&mut self.rng)?.clone();
        let frontends: Vec<Frontend> = service.frontends().into_iter().collect();
        let frontend = *frontends.choose(&mut self.rng)?;
        let ports: Vec<&Port> = service
            .ports
            .iter()
            .filter(|port| port.protocol == frontend.protocol)
            .collect();
        let port = (*ports.choose(&mut self.rng)?).clone();
        let kinds: &[FlowKind] = match frontend.protocol {
            Protocol::Udp => &[
                FlowKind::UdpConnected,
                FlowKind::UdpUnconnected,
                FlowKind::UdpUnconnected,
                FlowKind::UdpOneWay,
                FlowKind::NewDatagrams,
            ],
            _ => &[FlowKind::TcpStream, FlowKind::NewConnections],
        };
        let kind = *kinds.choose(&mut self.rng)?;
        let node = self.topology.nodes.choose(&mut self.rng)?.name.clone();
        let mut from = self.clients();
        from.push(node.clone());
        if frontend.kind != FrontendKind::ClusterIp {
            from.extend([format!("outside/{node}"), format!("outside/{node}")]);
        }
        let from = from.choose(&mut self.rng)?.clone();
        let six = if service.families.dual {
            self.rng.random_bool(0.5)
        } else {
            service.families.six_first
        };
        let to = doc::Target {
            service: Some(service.name.clone()),
            frontend: Some(OneOrMany::One(frontend.kind)),
            port: Some(PortRef::Name(port.name.clone())),
            node: (frontend.kind == FrontendKind::NodePort).then_some(node),
            family: Some(if six {
                doc::Family::Ipv6
            } else {
                doc::Family::Ipv4
            }),
            ..doc::Target::default()
        };
        self.numbers += 1;
        let name = format!("flow-{}", self.numbers);
        let flow = Flow::new(name.clone(), kind, &from, &to, &self.stage, view)?;
        if self.flows.iter().any(|other| other.key() == flow.key()) {
            return None;
        }
        let udp = matches!(
            kind,
            FlowKind::UdpConnected | FlowKind::UdpUnconnected | FlowKind::UdpOneWay
        );
        let step = FlowStep {
            start: Some(name),
            kind: Some(kind),
            from: Some(from),
            to: Some(to),
            // Beside the range of the probes, so that the two do not meet.
            source_port: udp.then_some(20_000 + self.numbers as u16),
            interval: matches!(kind, FlowKind::NewConnections | FlowKind::NewDatagrams)
                .then_some(Span::millis(5)),
            established: (!flow.is_answered()).then_some(false),
            ..FlowStep::default()
        };
        Some((
            flow,
            Step {
                flow: Some(step),
                ..Step::default()
            },
        ))
    }

    // ---- Services

    fn service(&mut self, name: &'static str) -> Service {
        let kinds = if self.settings.has(Feature::LoadBalancer) {
            vec![
                Kind::ClusterIp,
                Kind::NodePort,
                Kind::LoadBalancer,
                Kind::LoadBalancer,
            ]
        } else {
            vec![Kind::ClusterIp, Kind::NodePort]
        };
        let kind = *kinds.choose(&mut self.rng).unwrap_or(&Kind::ClusterIp);
        let manual = self.rng.random_bool(0.35);
        let policies = self.settings.has(Feature::TrafficPolicy);
        let affinity = self.settings.policies().contains(&Policy::Affinity);
        let mut service = Service {
            name: name.to_owned(),
            kind,
            families: Families {
                six_first: self.rng.random_bool(0.3),
                dual: self.rng.random_bool(0.6),
            },
            ports: Vec::new(),
            selector: (!manual).then(|| APPS.choose(&mut self.rng).unwrap_or(&APPS[0]).to_string()),
            cluster_ip: None,
            external_ips: Vec::new(),
            ingress: Vec::new(),
            host_name: false,
            ranges: None,
            internal_local: policies && self.rng.random_bool(0.2),
            external_local: policies && self.rng.random_bool(0.3),
            affinity: (affinity && self.rng.random_bool(0.2)).then_some(10_800),
            publish_not_ready: false,
            foreign: false,
            distribution: None,
            note: 0,
            slices: Vec::new(),
        };
        if self.rng.random_bool(0.3) {
            service.cluster_ip = Some(self.number());
        }
        if self.settings.has(Feature::ExternalIps) && self.rng.random_bool(0.5) {
            service.external_ips.push(self.number());
        }
        if kind == Kind::LoadBalancer {
            service.ingress.push(self.number());
            let transitions = self.settings.transitions();
            if transitions.contains(&Transition::SourceRangesChanged) && self.rng.random_bool(0.2) {
                service.ranges = Some(self.rng.random_range(1..=2));
            }
        }
        for _ in 0..self.rng.random_range(1..=2) {
            let port = self.port(&service);
            service.ports.push(port);
        }
        self.give_node_ports(&mut service);
        if manual {
            let mut servers: Vec<Server> = self.alive().cloned().collect();
            for _ in 0..self.rng.random_range(1..=2) {
                let mut slice = Slice {
                    name: self.slice_name(name),
                    endpoints: Vec::new(),
                };
                for _ in 0..self.rng.random_range(1..=2) {
                    if servers.is_empty() {
                        break;
                    }
                    let at = self.rng.random_range(0..servers.len());
                    let server = servers.remove(at);
                    slice.endpoints.push(self.listed(&server));
                }
                service.slices.push(slice);
            }
        }
        service
    }

    fn listed(&mut self, server: &Server) -> Listed {
        let condition = if self.rng.random_bool(0.5) {
            Condition::Ready
        } else {
            Condition::Absent
        };
        Listed {
            pod: server.name.clone(),
            condition,
            // Whether a pod without a nodeName reaches itself is a question of its own (SRC-6, strict).
            node: Some(server.node.clone()),
        }
    }

    fn slice_name(&mut self, service: &str) -> String {
        self.numbers += 1;
        // A name says nothing (EP-9).
        if self.rng.random_bool(0.5) {
            format!("{service}-{}", self.numbers)
        } else {
            format!("slice-{}", self.numbers)
        }
    }

    fn port(&mut self, service: &Service) -> Port {
        let protocol = if self.rng.random_bool(0.5) {
            Protocol::Tcp
        } else {
            Protocol::Udp
        };
        self.numbers += 1;
        let target = if self.rng.random_bool(0.7) {
            Target::First
        } else {
            Target::Second
        };
        Port {
            name: format!("p{}", self.numbers),
            port: self.free_port(service, protocol),
            protocol,
            target,
            node_port: 0,
        }
    }

    fn free_port(&mut self, service: &Service, protocol: Protocol) -> u16 {
        let mut ports = vec![53, 80, 443, 8080, 8081, 9090];
        ports.retain(|number| {
            !service
                .ports
                .iter()
                .any(|port| port.port == *number && port.protocol == protocol)
        });
        *ports.choose(&mut self.rng).unwrap_or(&80)
    }

    fn free_node_port(&mut self) -> u16 {
        let used: BTreeSet<u16> = self
            .services
            .iter()
            .flat_map(|service| service.ports.iter().map(|port| port.node_port))
            .collect();
        let free: Vec<u16> = (30_001..=30_080)
            .filter(|port| !used.contains(port))
            .collect();
        *free.choose(&mut self.rng).unwrap_or(&30_081)
    }

    /// Numbers for the ports that have none. TCP and UDP on one number share a NodePort now and then.
    fn give_node_ports(&mut self, service: &mut Service) {
        for at in 0..service.ports.len() {
            if service.ports[at].node_port != 0 {
                continue;
            }
            let twin = service
                .ports
                .iter()
                .find(|other| other.node_port != 0 && other.protocol != service.ports[at].protocol);
            // The API gives one number to two protocols only where the ports have one number too.
            let twin = twin.filter(|twin| twin.port == service.ports[at].port);
            let shared = twin.map(|twin| twin.node_port).filter(|number| {
                let shares = service
                    .ports
                    .iter()
                    .filter(|port| port.node_port == *number);
                shares.count() == 1
            });
            service.ports[at].node_port = match shared {
                Some(number) if self.rng.random_bool(0.5) => number,
                _ => {
                    let mut number = self.free_node_port();
                    while service.ports.iter().any(|port| port.node_port == number) {
                        number += 1;
                    }
                    number
                }
            };
        }
    }

    /// Two ports have one NodePort only if they have one number and different protocols: the API gives no others.
    fn settle_node_ports(&mut self, service: &mut Service) {
        for at in 0..service.ports.len() {
            let taken = |service: &Service| {
                let own = &service.ports[at];
                own.node_port == 0
                    || service.ports[..at].iter().any(|other| {
                        other.node_port == own.node_port
                            && (other.protocol == own.protocol || other.port != own.port)
                    })
            };
            while taken(service) {
                service.ports[at].node_port = self.free_node_port();
            }
        }
    }

    /// A number of an address that nobody has had.
    fn number(&mut self) -> u8 {
        self.numbers += 1;
        20 + u8::try_from(self.numbers % 200).unwrap_or_default()
    }
}

/// The world: two nodes mostly, a client on each, servers in two groups.
fn world(rng: &mut StdRng, settings: &Settings) -> (Topology, Vec<Server>) {
    let nodes = *[1, 2, 2, 2, 2, 2, 2, 2, 2, 3].choose(rng).unwrap_or(&2);
    let zones = settings.level >= Level::Extended
        && settings.has(Feature::TopologyHints)
        && rng.random_bool(0.4);
    let node = |at: usize| format!("node{}", at + 1);
    let mut topology = Topology {
        nodes: (0..nodes)
            .map(|at| doc::Node {
                name: node(at),
                zone: zones.then(|| ["east", "west", "west"][at].to_owned()),
                networks: Vec::new(),
            })
            .collect(),
        ..Topology::default()
    };
    let port = |name: &str, port, protocol| doc::Port {
        name: Some(name.to_owned()),
        port,
        protocol,
    };
    let ports = vec![
        port("http", 8080, Protocol::Tcp),
        port("udp", 8080, Protocol::Udp),
        port("second", 9090, Protocol::Tcp),
        port("second-udp", 9090, Protocol::Udp),
    ];
    let mut servers = Vec::new();
    for (app, count) in [(APPS[0], 4), (APPS[1], 3)] {
        for number in 1..=count {
            let node = node(rng.random_range(0..nodes));
            let life = if number == 1 {
                Life::Ready
            } else {
                *[
                    Life::Ready,
                    Life::Ready,
                    Life::Ready,
                    Life::Absent,
                    Life::Absent,
                    Life::Unready,
                ]
                .choose(rng)
                .unwrap_or(&Life::Ready)
            };
            let name = format!("{app}-{number}");
            topology.pods.push(doc::Pod {
                name: name.clone(),
                node: node.clone(),
                labels: [("app".to_owned(), app.to_owned())].into(),
                ports: Some(ports.clone()),
                host_network: false,
                mtu: None,
                ready: life != Life::Unready,
                started: life != Life::Absent,
            });
            servers.push(Server {
                name,
                node,
                app: app.to_owned(),
                life,
            });
        }
    }
    for (at, name) in CLIENTS.iter().enumerate().take(nodes.min(2)) {
        topology.pods.push(doc::Pod {
            name: (*name).to_owned(),
            node: node(at),
            labels: BTreeMap::new(),
            ports: None,
            host_network: false,
            mtu: None,
            ready: true,
            started: true,
        });
    }
    (topology, servers)
}

fn judgement(name: &str, is: FlowExpect, stop: bool) -> Step {
    let name = Some(name.to_owned());
    Step {
        flow: Some(FlowStep {
            expect: name.clone().filter(|_| !stop),
            stop: name.filter(|_| stop),
            is: Some(is),
            ..FlowStep::default()
        }),
        ..Step::default()
    }
}

fn name_of(name: &str) -> &'static str {
    NAMES
        .into_iter()
        .find(|one| *one == name)
        .unwrap_or(NAMES[0])
}

/// It has frontends that this proxy is in charge of.
fn is_served(service: &Service) -> bool {
    service.kind != Kind::ExternalName && !service.foreign
}

fn is_listed(service: &Service, pod: &str) -> bool {
    service
        .slices
        .iter()
        .any(|slice| slice.endpoints.iter().any(|one| one.pod == pod))
}

/// The first two ports can change their numbers without meeting a third one.
fn swappable(ports: &[Port]) -> bool {
    let key = |port: u16, protocol: Protocol| (port, protocol);
    let mut seen = BTreeSet::new();
    ports.iter().enumerate().all(|(at, port)| {
        let number = match at {
            0 => ports[1].port,
            1 => ports[0].port,
            _ => port.port,
        };
        seen.insert(key(number, port.protocol))
    })
}

fn api(fault: ApiFault, end: bool) -> Step {
    Step {
        fault: Some(Fault {
            api: Some(fault),
            end,
            ..Fault::default()
        }),
        ..Step::default()
    }
}

fn proxy(fault: ProxyFault) -> Step {
    Step {
        fault: Some(Fault {
            proxy: Some(fault),
            ..Fault::default()
        }),
        ..Step::default()
    }
}

fn node(fault: NodeFault, end: bool) -> Step {
    Step {
        fault: Some(Fault {
            node: Some(fault),
            end,
            ..Fault::default()
        }),
        ..Step::default()
    }
}

/// What comes before the transitions.
fn begin(fault: Disturbance) -> Vec<Step> {
    use Disturbance as D;
    match fault {
        D::Down => vec![proxy(ProxyFault::Down)],
        D::Stopped => vec![proxy(ProxyFault::Stop)],
        D::DropWatches => vec![api(ApiFault::DropWatches, false)],
        D::Outage | D::OutageAndGone => vec![api(ApiFault::Outage, false)],
        // Nobody asks anything while watches run.
        D::Errors => vec![
            api(ApiFault::Errors, false),
            api(ApiFault::DropWatches, false),
        ],
        D::Delay => vec![Step {
            fault: Some(Fault {
                api: Some(ApiFault::Delay),
                delay: Some(Span::millis(150)),
                ..Fault::default()
            }),
            ..Step::default()
        }],
        D::DuplicateEvents => vec![api(ApiFault::DuplicateEvents, false)],
        D::HalfOpen => vec![api(ApiFault::HalfOpen, false)],
        D::LinkChurn => vec![node(NodeFault::LinkChurn, false)],
        _ => Vec::new(),
    }
}

/// What comes after the transitions.
fn end(fault: Disturbance) -> Vec<Step> {
    use Disturbance as D;
    match fault {
        D::Restart => vec![proxy(ProxyFault::Restart)],
        D::Kill => vec![proxy(ProxyFault::Kill)],
        D::Down => vec![proxy(ProxyFault::Start)],
        D::Stopped => vec![proxy(ProxyFault::Continue)],
        D::DropWatches => vec![api(ApiFault::DropWatches, false)],
        D::Outage => vec![api(ApiFault::Outage, true)],
        D::OutageAndGone => vec![api(ApiFault::Compact, false), api(ApiFault::Outage, true)],
        D::Errors => vec![api(ApiFault::Errors, true)],
        D::Delay => vec![api(ApiFault::Delay, true)],
        D::Compact => vec![api(ApiFault::Compact, false)],
        D::ShuffledRelist => vec![api(ApiFault::ShuffledRelist, false)],
        D::NoopUpdates => vec![Step {
            fault: Some(Fault {
                api: Some(ApiFault::NoopUpdates),
                times: Some(5),
                ..Fault::default()
            }),
            ..Step::default()
        }],
        D::DuplicateEvents => vec![api(ApiFault::DuplicateEvents, true)],
        D::HalfOpen => vec![api(ApiFault::HalfOpen, true)],
        D::FlushRuleset => vec![node(NodeFault::FlushRuleset, false)],
        D::LinkChurn => vec![node(NodeFault::LinkChurn, true)],
        _ => Vec::new(),
    }
}
