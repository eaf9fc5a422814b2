//! Rules of scenario documents that their types cannot express.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    doc::{
        ApiFault, AxisValue, Client, Fault, Feature, FlowExpect, FlowKind, HttpCheck, Inject,
        InjectKind, NodeFault, OneOrMany, Probe, Protocol, ProxyFault, Scenario, State, Step,
        Target,
    },
    load::{CaseKey, Problem},
};

/// Checks a substituted document for one case.
pub fn validate(file: &Arc<str>, scenario: &Scenario, key: &CaseKey) -> Result<(), Problem> {
    let problem = |line: u64, message: String| Problem {
        file: file.clone(),
        line,
        message,
    };
    let pods: BTreeSet<&str> = scenario
        .topology
        .pods
        .iter()
        .map(|pod| pod.name.as_str())
        .collect();
    let nodes: BTreeSet<&str> = scenario
        .topology
        .nodes
        .iter()
        .map(|node| node.name.as_str())
        .collect();
    let clients: BTreeSet<&str> = scenario
        .topology
        .clients
        .iter()
        .map(|client| client.name.as_str())
        .collect();
    let source = |name: &str| {
        pods.contains(name)
            || nodes.contains(name)
            || clients.contains(name)
            || matches!(name, "all" | "outside")
            || name
                .strip_prefix("outside/")
                .is_some_and(|node| nodes.contains(node))
    };
    if scenario.steps.is_empty() {
        return Err(problem(
            0,
            format!("scenario '{}' has no steps", scenario.id),
        ));
    }
    let mut flows: BTreeSet<&str> = BTreeSet::new();
    let mut saved: BTreeSet<&str> = BTreeSet::new();
    let mut baselines: BTreeSet<&str> = BTreeSet::new();
    let mut kinds: BTreeMap<&str, FlowKind> = BTreeMap::new();
    let mut lasting: BTreeSet<String> = BTreeSet::new();
    for step in &scenario.steps {
        let line = step.referenced.line();
        let step = &step.value;
        let bad = |message: String| Err(problem(line, message));
        let verbs = verbs(step);
        if verbs.len() != 1 {
            let found = if verbs.is_empty() {
                "none".to_owned()
            } else {
                verbs.join(" and ")
            };
            return bad(format!("a step has exactly one verb, this one has {found}"));
        }
        for (axis, values) in &step.when {
            let Some(known) = scenario.matrix.get(axis) else {
                return bad(format!(
                    "'when' names '{axis}', which is not an axis of the matrix"
                ));
            };
            // A misspelt value would leave the step out of every case.
            if let Some(value) = values
                .as_slice()
                .iter()
                .find(|value| !known.iter().any(|known| same(known, value)))
            {
                return bad(format!(
                    "'when' names '{value}', which is no value of axis '{axis}'"
                ));
            }
        }
        let (from, to) = sources_and_targets(step);
        for name in from {
            if !source(name) {
                return bad(format!(
                    "unknown source '{name}': a pod, node or client of the topology, outside, outside/NODE or all"
                ));
            }
        }
        for target in to {
            if let Err(message) = check_target(target, &pods, &nodes) {
                return bad(message);
            }
        }
        if let Some(action) = &step.pod
            && let Some(name) = action
                .name
                .as_slice()
                .iter()
                .find(|name| !pods.contains(name.as_str()))
        {
            return bad(format!("unknown pod '{name}'"));
        }
        if !step.applies(key) {
            // What a step of other cases starts or saves is not there in this one.
            continue;
        }
        if let Some(probe) = &step.probe {
            if let Err(message) = check_probe(probe) {
                return bad(message);
            }
            if let Some(name) = &probe.same_as
                && !saved.contains(name.as_str())
            {
                return bad(format!(
                    "'sameAs: {name}' refers to no earlier probe with 'save: {name}'"
                ));
            }
            if let Some(name) = &probe.save {
                saved.insert(name);
            }
            if let super::doc::Expect::Endpoints(names) = &probe.expect
                && let Some(name) = names.iter().find(|name| !pods.contains(name.as_str()))
            {
                return bad(format!("'expect' names the unknown pod '{name}'"));
            }
        }
        if let Some(flow) = &step.flow {
            let given = [&flow.start, &flow.expect, &flow.stop];
            if given.iter().filter(|name| name.is_some()).count() != 1 {
                return bad("a flow step has exactly one of start, expect and stop".into());
            }
            if let Some(name) = &flow.start {
                if flow.kind.is_none() || flow.from.is_none() || flow.to.is_none() {
                    return bad(format!("flow '{name}' needs kind, from and to"));
                }
                flows.insert(name);
                kinds.extend(flow.kind.map(|kind| (name.as_str(), kind)));
            }
            if let Some(name) = flow.expect.as_ref().or(flow.stop.as_ref())
                && !flows.contains(name.as_str())
            {
                return bad(format!("flow '{name}' was not started"));
            }
            if flow.expect.is_some() && flow.is.is_none() {
                return bad("'expect' needs 'is': model, unbroken, noLoss or closed".into());
            }
            if flow.stop.is_some() && flow.is == Some(FlowExpect::Model) {
                return bad("'stop' judges what was, so 'is: model' belongs to 'expect'".into());
            }
        }
        if let Some(flow) = &step.flow
            && let Some(name) = flow.expect.as_ref().or(flow.stop.as_ref())
            && let (Some(is), Some(kind)) = (flow.is, kinds.get(name.as_str()))
        {
            let fits = match is {
                FlowExpect::Model => true,
                FlowExpect::Unbroken | FlowExpect::NoLoss => *kind != FlowKind::UdpOneWay,
                FlowExpect::Closed => *kind == FlowKind::TcpStream,
            };
            if !fits {
                return bad(format!(
                    "flow '{name}' is {kind:?}, of which {is:?} cannot be known"
                ));
            }
        }
        if let Some(inject) = &step.inject
            && let Err(message) = check_inject(inject, &pods, &nodes, &scenario.topology.clients)
        {
            return bad(message);
        }
        if let Some(state) = &step.state {
            if !asserts_state(state) && state.baseline.is_none() {
                return bad(
                    "the state step asks for nothing: running, noStaleUdp, http, baseline or like"
                        .into(),
                );
            }
            if let Some(name) = &state.like
                && !baselines.contains(name.as_str())
            {
                return bad(format!(
                    "'like: {name}' refers to no earlier state with 'baseline: {name}'"
                ));
            }
            baselines.extend(state.baseline.as_deref());
            if let Some(http) = &state.http
                && let Err(message) = check_http(http, &nodes, scenario)
            {
                return bad(message);
            }
        }
        if let Some(fault) = &step.fault {
            if let Err(message) = check_fault(fault, &mut lasting)
                .and_then(|()| check_proxy_fault(fault, &nodes, &mut lasting))
            {
                return bad(message);
            }
            let given = [
                fault.proxy.is_some(),
                fault.node.is_some(),
                fault.api.is_some(),
            ];
            if given.iter().filter(|given| **given).count() != 1 {
                return bad("a fault has exactly one of proxy, node and api".into());
            }
            if let Some(on) = &fault.on
                && let Some(node) = on
                    .as_slice()
                    .iter()
                    .find(|node| !nodes.contains(node.as_str()))
            {
                return bad(format!("unknown node '{node}'"));
            }
        }
    }
    if let Some(fault) = lasting
        .iter()
        .find(|fault| MUST_END.contains(&fault.as_str()))
    {
        return Err(problem(
            0,
            format!(
                "scenario '{}' starts a {} that it does not end",
                scenario.id,
                lower_first(fault)
            ),
        ));
    }
    let asserts = scenario
        .steps
        .iter()
        .map(|step| &step.value)
        .filter(|step| step.applies(key))
        .any(|step| {
            step.probe.is_some()
                || step.converge.is_some()
                || step.hold.is_some()
                || step.state.as_ref().is_some_and(asserts_state)
                || step.flow.as_ref().is_some_and(|flow| flow.is.is_some())
        });
    if !asserts {
        return Err(problem(
            0,
            format!(
                "case '{}' asserts nothing: it has no probe, converge, hold, state or judged flow",
                key.id
            ),
        ));
    }
    Ok(())
}

/// A variant as documents spell it.
fn lower_first(variant: &str) -> String {
    let mut letters = variant.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

fn same(one: &AxisValue, other: &AxisValue) -> bool {
    one.to_string() == other.to_string()
}

/// Whether the step can fail; a baseline only remembers.
pub(super) fn asserts_state(state: &State) -> bool {
    state.running
        || state.no_stale_udp
        || state.cleaned_up
        || state.http.is_some()
        || state.like.is_some()
}

/// The largest payload of a UDP datagram over IPv4.
const LARGEST: u32 = 65_507;

fn check_probe(probe: &Probe) -> Result<(), String> {
    if probe.count == 0 || probe.back_to_back == 0 {
        return Err(
            "'count' and 'backToBack' are at least 1: without a packet nothing is seen".into(),
        );
    }
    match probe
        .lengths
        .iter()
        .find(|range| range.0 > range.1 || range.1 > LARGEST)
    {
        Some(range) => Err(format!(
            "[{}, {}] is no range of lengths between 0 and {LARGEST}",
            range.0, range.1
        )),
        None => Ok(()),
    }
}

/// What a connection tracking table of the usual size holds several times, so that nobody else is pressed.
const MOST_ENTRIES: u32 = 100_000;

/// Of the 128 ephemeral ports that a node has meanwhile.
const MOST_FREE: u32 = 100;

/// Faults whose end alone tells whether they did anything, or without whose end nothing can be judged.
const MUST_END: [&str; 4] = ["LinkChurn", "Starve", "Restart", "Restore"];

/// A fault is what it says: every parameter belongs to it, and what ends has begun.
fn check_fault(fault: &Fault, lasting: &mut BTreeSet<String>) -> Result<(), String> {
    let (name, lasts) = match (fault.proxy, fault.node, fault.api) {
        (None, Some(node), None) => (
            format!("{node:?}"),
            matches!(
                node,
                NodeFault::ForeignTable
                    | NodeFault::LinkChurn
                    | NodeFault::Address
                    | NodeFault::ConntrackPressure
                    | NodeFault::ExhaustPorts
                    | NodeFault::SeizeTables
            ),
        ),
        (None, None, Some(api)) => (
            format!("{api:?}"),
            matches!(
                api,
                ApiFault::Outage
                    | ApiFault::HalfOpen
                    | ApiFault::Errors
                    | ApiFault::Delay
                    | ApiFault::DuplicateEvents
                    | ApiFault::Restart
                    | ApiFault::Restore
                    | ApiFault::Late
            ),
        ),
        (Some(proxy), None, None) => (format!("{proxy:?}"), proxy == ProxyFault::Starve),
        // The caller says what is wrong.
        _ => return Ok(()),
    };
    if fault.api.is_some() && fault.on.is_some() {
        return Err("a fault of the API concerns all nodes: leave out 'on'".into());
    }
    let needs_address = matches!(
        fault.node,
        Some(NodeFault::Address | NodeFault::NetworkAddress)
    );
    for (parameter, given, fits) in [
        (
            "delay",
            fault.delay.is_some(),
            matches!(fault.api, Some(ApiFault::Delay | ApiFault::Late)),
        ),
        (
            "times",
            fault.times.is_some(),
            fault.api == Some(ApiFault::NoopUpdates),
        ),
        (
            "kind",
            fault.kind.is_some(),
            matches!(fault.api, Some(ApiFault::NoopUpdates | ApiFault::Late)),
        ),
        (
            "entries",
            fault.entries.is_some(),
            fault.node == Some(NodeFault::ConntrackPressure),
        ),
        (
            "free",
            fault.free.is_some(),
            fault.node == Some(NodeFault::ExhaustPorts),
        ),
        (
            "cpu",
            fault.cpu.is_some(),
            fault.proxy == Some(ProxyFault::Starve),
        ),
        (
            "links",
            fault.links.is_some(),
            fault.node == Some(NodeFault::LinkChurn),
        ),
        ("address", fault.address.is_some(), needs_address),
    ] {
        if given && !fits {
            return Err(format!("'{parameter}' is no parameter of this fault"));
        }
    }
    if needs_address && fault.address.is_none() {
        return Err("this fault needs 'address', such as 192.0.2.1/32".into());
    }
    if [fault.times, fault.links, fault.entries].contains(&Some(0))
        || fault.delay.is_some_and(|delay| delay.0.is_zero())
    {
        return Err("the fault would do nothing: give a number above 0".into());
    }
    for (parameter, given, least, most) in [
        ("entries", fault.entries, 1, MOST_ENTRIES),
        ("free", fault.free, 0, MOST_FREE),
        // Above that it is hardly starved.
        ("cpu", fault.cpu, 1, 75),
    ] {
        if given.is_some_and(|given| !(least..=most).contains(&given)) {
            return Err(format!("'{parameter}' is from {least} to {most}"));
        }
    }
    if !fault.end {
        if lasts {
            lasting.insert(name);
        }
        return Ok(());
    }
    if !lasts {
        return Err("this fault is over at once: 'end' has no meaning".into());
    }
    if !lasting.remove(&name) {
        return Err("'end' of a fault that was not started before".into());
    }
    Ok(())
}

/// What is started or continued was ended or stopped before, or the fault would do nothing, or not what it says.
fn check_proxy_fault(
    fault: &Fault,
    nodes: &BTreeSet<&str>,
    lasting: &mut BTreeSet<String>,
) -> Result<(), String> {
    let (begins, ends) = match fault.proxy {
        Some(ProxyFault::Down) => (Some("down"), None),
        Some(ProxyFault::Start) => (None, Some("down")),
        Some(ProxyFault::Stop) => (Some("stop"), None),
        Some(ProxyFault::Continue) => (None, Some("stop")),
        // What runs would make its rules again.
        Some(ProxyFault::Cleanup) => (None, None),
        Some(ProxyFault::Restart | ProxyFault::Kill | ProxyFault::Starve) | None => return Ok(()),
    };
    let concerned: Vec<&str> = match &fault.on {
        Some(on) => on.as_slice().iter().map(String::as_str).collect(),
        None => nodes.iter().copied().collect(),
    };
    for node in concerned {
        if fault.proxy == Some(ProxyFault::Cleanup) && !lasting.contains(&format!("down on {node}"))
        {
            return Err(format!(
                "'proxy: cleanup' without 'proxy: down' before it on {node}"
            ));
        }
        if let Some(begins) = begins {
            lasting.insert(format!("{begins} on {node}"));
        }
        if let Some(ends) = ends
            && !lasting.remove(&format!("{ends} on {node}"))
        {
            let this = if ends == "down" { "start" } else { "continue" };
            return Err(format!(
                "'proxy: {this}' without 'proxy: {ends}' before it on {node}"
            ));
        }
    }
    Ok(())
}

fn check_inject(
    inject: &Inject,
    pods: &BTreeSet<&str>,
    nodes: &BTreeSet<&str>,
    clients: &[Client],
) -> Result<(), String> {
    match inject.packet {
        InjectKind::OutOfWindow => {
            if let Some(pod) = inject
                .from
                .as_ref()
                .filter(|pod| !pods.contains(pod.as_str()))
            {
                return Err(format!("unknown pod '{pod}'"));
            }
            if inject.node.is_some() || inject.port.is_some() {
                return Err("'node' and 'port' belong to loopbackFromNeighbour".into());
            }
        }
        InjectKind::LoopbackFromNeighbour => {
            let (Some(from), Some(node), Some(_)) = (&inject.from, &inject.node, inject.port)
            else {
                return Err("loopbackFromNeighbour needs from, node and port".into());
            };
            let neighbour = |client: &Client| {
                client.name == *from && client.network == netlab::topology::NODE_NETWORK
            };
            if !clients.iter().any(neighbour) {
                return Err(format!(
                    "'{from}' is no client of the topology on the network {}",
                    netlab::topology::NODE_NETWORK
                ));
            }
            if !nodes.contains(node.as_str()) {
                return Err(format!("unknown node '{node}'"));
            }
            if inject.offset.is_some() {
                return Err("'offset' belongs to outOfWindow".into());
            }
            if inject.protocol == Protocol::Sctp {
                return Err("loopbackFromNeighbour is about TCP and UDP".into());
            }
        }
    }
    Ok(())
}

fn check_http(http: &HttpCheck, nodes: &BTreeSet<&str>, scenario: &Scenario) -> Result<(), String> {
    if !nodes.contains(http.node.as_str()) {
        return Err(format!("unknown node '{}'", http.node));
    }
    let asked = [
        http.health_check_of.is_some(),
        http.port.is_some(),
        http.proxy,
    ];
    if asked.iter().filter(|asked| **asked).count() != 1 {
        return Err("'http' asks exactly one of healthCheckOf, port and proxy".into());
    }
    if http.status.is_some() == http.closed {
        return Err("'http' expects either a status or 'closed: true'".into());
    }
    if http.closed && !(http.headers.is_empty() && http.body.is_empty()) {
        return Err("nothing that is closed answers headers or a body".into());
    }
    // Otherwise candidates without it would fail where they have to be skipped.
    if http.proxy && !scenario.features.contains(&Feature::Healthz) {
        return Err("'proxy: true' needs 'features: [healthz]'".into());
    }
    Ok(())
}

fn check_target(
    target: &Target,
    pods: &BTreeSet<&str>,
    nodes: &BTreeSet<&str>,
) -> Result<(), String> {
    if let Some(node) = &target.node
        && !nodes.contains(node.as_str())
    {
        return Err(format!("unknown node '{node}'"));
    }
    if let Some(pod) = &target.pod
        && !pods.contains(pod.as_str())
    {
        return Err(format!("unknown pod '{pod}'"));
    }
    if let Some(address) = &target.address
        && address.parse::<std::net::IpAddr>().is_err()
    {
        return Err(format!("'{address}' is not an IP address"));
    }
    let literal = target.address.is_some() || target.pod.is_some();
    if target.address.is_some() && target.pod.is_some() {
        return Err("a destination is either an address or a pod".into());
    }
    if literal && (target.service.is_some() || target.frontend.is_some() || target.node.is_some()) {
        return Err(
            "an address or pod is a destination by itself: leave out service, frontend and node"
                .into(),
        );
    }
    if literal && !matches!(target.port, Some(super::doc::PortRef::Number(_))) {
        return Err("an address or pod needs a port number".into());
    }
    Ok(())
}

fn verbs(step: &Step) -> Vec<&'static str> {
    [
        ("apply", step.apply.is_some()),
        ("patch", step.patch.is_some()),
        ("delete", step.delete.is_some()),
        ("pod", step.pod.is_some()),
        ("probe", step.probe.is_some()),
        ("flow", step.flow.is_some()),
        ("converge", step.converge.is_some()),
        ("hold", step.hold.is_some()),
        ("fault", step.fault.is_some()),
        ("inject", step.inject.is_some()),
        ("state", step.state.is_some()),
    ]
    .into_iter()
    .filter_map(|(verb, given)| given.then_some(verb))
    .collect()
}

impl Step {
    /// The step's verb.
    pub fn verb(&self) -> &'static str {
        verbs(self).first().copied().unwrap_or("nothing")
    }

    /// Whether the step belongs to the case.
    pub fn applies(&self, key: &CaseKey) -> bool {
        self.when.iter().all(|(axis, values)| {
            key.axes.get(axis).is_some_and(|have| {
                values
                    .as_slice()
                    .iter()
                    .any(|value| value.to_string() == *have)
            })
        })
    }
}

fn sources_and_targets(step: &Step) -> (Vec<&String>, Vec<&Target>) {
    fn list<T>(values: Option<&OneOrMany<T>>) -> Vec<&T> {
        values.map_or(Vec::new(), |values| values.as_slice().iter().collect())
    }
    let (from, to) = if let Some(probe) = &step.probe {
        (Some(&probe.from), Some(&probe.to))
    } else if let Some(converge) = &step.converge {
        (Some(&converge.from), Some(&converge.to))
    } else if let Some(hold) = &step.hold {
        (Some(&hold.from), Some(&hold.to))
    } else {
        (None, None)
    };
    if let Some(flow) = &step.flow {
        return (flow.from.iter().collect(), flow.to.iter().collect());
    }
    (list(from), list(to))
}
