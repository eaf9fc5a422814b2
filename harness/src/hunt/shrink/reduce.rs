//! Smaller documents: what can be left out of a scenario, with everything that would make no sense without it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::scenario::{
    Scenario,
    doc::{OneOrMany, PodVerb, Step, Target},
};

/// A document without some of its steps, by their positions.
pub fn without_steps(scenario: &Scenario, left_out: &BTreeSet<usize>) -> Scenario {
    let mut smaller = scenario.clone();
    let mut at = 0;
    smaller.steps.retain(|_| {
        at += 1;
        !left_out.contains(&(at - 1))
    });
    repaired(smaller)
}

/// A document without some Services.
pub fn without_services(scenario: &Scenario, names: &BTreeSet<String>) -> Scenario {
    let mut smaller = scenario.clone();
    let of = |object: &Value| owner(object).is_some_and(|name| names.contains(name));
    smaller.objects.retain(|object| !of(object));
    let slices: BTreeSet<String> = all_objects(scenario)
        .filter(|object| object["kind"] == "EndpointSlice" && of(object))
        .filter_map(|object| object["metadata"]["name"].as_str().map(str::to_owned))
        .collect();
    let gone = |kind: &str, name: &String| match kind {
        "Service" => names.contains(name),
        "EndpointSlice" => slices.contains(name),
        _ => false,
    };
    smaller.steps.retain_mut(|step| {
        let step = &mut step.value;
        if let Some(objects) = &mut step.apply {
            objects.retain(|object| !of(object));
            return !objects.is_empty();
        }
        if let Some(patch) = &step.patch {
            return !gone(&patch.kind, &patch.name);
        }
        if let Some(objects) = &step.delete {
            let kept: Vec<_> = objects
                .as_slice()
                .iter()
                .filter(|object| !gone(&object.kind, &object.name))
                .cloned()
                .collect();
            let any = !kept.is_empty();
            step.delete = Some(OneOrMany::Many(kept));
            return any;
        }
        !targets(step).into_iter().any(|target| {
            target
                .service
                .as_ref()
                .is_some_and(|name| names.contains(name))
        })
    });
    repaired(smaller)
}

/// A document without some pods.
pub fn without_pods(scenario: &Scenario, names: &BTreeSet<String>) -> Scenario {
    let mut smaller = scenario.clone();
    smaller
        .topology
        .pods
        .retain(|pod| !names.contains(&pod.name));
    let variables: Vec<String> = names.iter().map(|name| format!("$(pod.{name}.")).collect();
    smaller
        .objects
        .iter_mut()
        .for_each(|object| unlist(object, &variables));
    smaller.steps.retain_mut(|step| {
        let step = &mut step.value;
        for object in step.apply.iter_mut().flatten() {
            unlist(object, &variables);
        }
        if let Some(patch) = &mut step.patch {
            if patch.kind == "Pod" && names.contains(&patch.name) {
                return false;
            }
            unlist(&mut patch.patch, &variables);
        }
        if let Some(action) = &mut step.pod {
            let kept: Vec<String> = action
                .name
                .as_slice()
                .iter()
                .filter(|name| !names.contains(*name))
                .cloned()
                .collect();
            match kept.as_slice() {
                [] => return false,
                [one] => action.name = OneOrMany::One(one.clone()),
                _ => action.name = OneOrMany::Many(kept),
            }
        }
        if let Some(flow) = &step.flow
            && flow.from.as_ref().is_some_and(|from| names.contains(from))
        {
            return false;
        }
        for from in sources(step) {
            let kept: Vec<String> = from
                .as_slice()
                .iter()
                .filter(|name| !names.contains(*name))
                .cloned()
                .collect();
            if kept.is_empty() {
                return false;
            }
            if kept.len() < from.as_slice().len() {
                *from = OneOrMany::Many(kept);
            }
        }
        true
    });
    repaired(smaller)
}

/// A document with its first node alone, and everything on it.
pub fn on_one_node(scenario: &Scenario) -> Option<Scenario> {
    let (first, others) = scenario.topology.nodes.split_first()?;
    if others.is_empty() {
        return None;
    }
    let mut text = serde_json::to_string(scenario).ok()?;
    for node in others {
        for (old, new) in [
            (format!("\"{}\"", node.name), format!("\"{}\"", first.name)),
            (
                format!("\"outside/{}\"", node.name),
                format!("\"outside/{}\"", first.name),
            ),
        ] {
            text = text.replace(&old, &new);
        }
    }
    let mut smaller: Scenario = serde_json::from_str(&text).ok()?;
    smaller.topology.nodes.truncate(1);
    Some(repaired(smaller))
}

/// A document in which one node alone is left out, with what is on it on the first one.
pub fn without_last_node(scenario: &Scenario) -> Option<Scenario> {
    if scenario.topology.nodes.len() < 3 {
        return None;
    }
    let last = scenario.topology.nodes.last()?.name.clone();
    let first = scenario.topology.nodes.first()?.name.clone();
    let text = serde_json::to_string(scenario).ok()?;
    let text = text
        .replace(&format!("\"{last}\""), &format!("\"{first}\""))
        .replace(
            &format!("\"outside/{last}\""),
            &format!("\"outside/{first}\""),
        );
    let mut smaller: Scenario = serde_json::from_str(&text).ok()?;
    smaller.topology.nodes.pop();
    Some(repaired(smaller))
}

/// Documents in each of which one thing is missing inside an object, a patch or a step: optional fields, ports, endpoints, addresses.
pub fn simpler_fields(scenario: &Scenario) -> Vec<Scenario> {
    let Ok(whole) = serde_json::to_value(scenario) else {
        return Vec::new();
    };
    let mut paths = Vec::new();
    for (at, _) in scenario.objects.iter().enumerate() {
        optional(&whole["objects"][at], &format!("/objects/{at}"), &mut paths);
    }
    for (at, step) in scenario.steps.iter().enumerate() {
        for (number, _) in step.value.apply.iter().flatten().enumerate() {
            let path = format!("/steps/{at}/apply/{number}");
            optional(
                whole.pointer(&path).unwrap_or(&Value::Null),
                &path,
                &mut paths,
            );
        }
        if step.value.patch.is_some() {
            let path = format!("/steps/{at}/patch/patch");
            optional(
                whole.pointer(&path).unwrap_or(&Value::Null),
                &path,
                &mut paths,
            );
        }
        for field in ["interval", "established"] {
            let path = format!("/steps/{at}/flow/{field}");
            if whole.pointer(&path).is_some_and(|value| !value.is_null()) {
                paths.push(path);
            }
        }
    }
    for (at, pod) in scenario.topology.pods.iter().enumerate() {
        if pod.ports.is_some() {
            paths.push(format!("/topology/pods/{at}/ports"));
        }
    }
    for (at, node) in scenario.topology.nodes.iter().enumerate() {
        if node.zone.is_some() {
            paths.push(format!("/topology/nodes/{at}/zone"));
        }
    }
    paths
        .into_iter()
        .filter_map(|path| {
            let mut value = whole.clone();
            remove(&mut value, &path)?;
            Some(repaired(serde_json::from_value(value).ok()?))
        })
        .collect()
}

/// Paths of what an object can do without.
fn optional(object: &Value, path: &str, paths: &mut Vec<String>) {
    const NEEDED: [&str; 12] = [
        "apiVersion",
        "kind",
        "name",
        "ports",
        "addressType",
        "endpoints",
        "addresses",
        "labels",
        "port",
        "metadata",
        "spec",
        "protocol",
    ];
    match object {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
                if !NEEDED.contains(&key.as_str()) {
                    paths.push(path.clone());
                }
                optional(value, &path, paths);
            }
        }
        // The last one of a list is what makes it one.
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate().rev() {
                let path = format!("{path}/{at}");
                if list.len() > 1 {
                    paths.push(path.clone());
                }
                optional(value, &path, paths);
            }
        }
        _ => {}
    }
}

fn remove(value: &mut Value, path: &str) -> Option<()> {
    let (parent, last) = path.rsplit_once('/')?;
    let last = last.replace("~1", "/").replace("~0", "~");
    match value.pointer_mut(parent)? {
        Value::Object(map) => map.remove(&last).map(drop),
        Value::Array(list) => {
            let at: usize = last.parse().ok()?;
            (at < list.len()).then(|| drop(list.remove(at)))
        }
        _ => None,
    }
}

/// Names of all Services that ever are.
pub fn services(scenario: &Scenario) -> BTreeSet<String> {
    all_objects(scenario)
        .filter(|object| object["kind"] == "Service")
        .filter_map(|object| object["metadata"]["name"].as_str().map(str::to_owned))
        .collect()
}

fn all_objects(scenario: &Scenario) -> impl Iterator<Item = &Value> {
    let applied = scenario
        .steps
        .iter()
        .flat_map(|step| step.value.apply.iter().flatten());
    scenario.objects.iter().chain(applied)
}

/// The Service that an object belongs to.
fn owner(object: &Value) -> Option<&str> {
    match object["kind"].as_str()? {
        "Service" => object["metadata"]["name"].as_str(),
        "EndpointSlice" => object["metadata"]["labels"]["kubernetes.io/service-name"].as_str(),
        _ => None,
    }
}

/// Removes endpoints with addresses of pods that are none.
fn unlist(value: &mut Value, variables: &[String]) {
    let Some(endpoints) = value.get_mut("endpoints").and_then(Value::as_array_mut) else {
        return;
    };
    endpoints.retain(|endpoint| {
        let address = endpoint["addresses"][0].as_str().unwrap_or_default();
        !variables
            .iter()
            .any(|variable| address.starts_with(variable))
    });
}

fn targets(step: &Step) -> Vec<&Target> {
    let mut found = Vec::new();
    found.extend(step.flow.iter().filter_map(|flow| flow.to.as_ref()));
    found.extend(step.probe.iter().flat_map(|probe| probe.to.as_slice()));
    found.extend(
        step.converge
            .iter()
            .flat_map(|converge| converge.to.as_slice()),
    );
    found.extend(step.hold.iter().flat_map(|hold| hold.to.as_slice()));
    found
}

fn sources(step: &mut Step) -> Vec<&mut OneOrMany<String>> {
    let mut found = Vec::new();
    found.extend(step.probe.as_mut().map(|probe| &mut probe.from));
    found.extend(step.converge.as_mut().map(|converge| &mut converge.from));
    found.extend(step.hold.as_mut().map(|hold| &mut hold.from));
    found
}

/// Removes what makes no sense any more: changes of objects that are not there, ends of what never began, judgements of flows that were never started, flows
/// that nobody judges.
pub fn repaired(mut scenario: Scenario) -> Scenario {
    loop {
        let before = scenario.steps.len();
        scenario = repaired_once(scenario);
        if scenario.steps.len() == before {
            return scenario;
        }
    }
}

fn repaired_once(mut scenario: Scenario) -> Scenario {
    let name = |object: &Value| {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        (
            kind,
            object["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    let mut exists: BTreeSet<(String, String)> = scenario.objects.iter().map(name).collect();
    let mut pods: BTreeMap<String, bool> = scenario
        .topology
        .pods
        .iter()
        .map(|pod| (pod.name.clone(), pod.started))
        .collect();
    let judged: BTreeSet<String> = scenario
        .steps
        .iter()
        .filter_map(|step| step.value.flow.as_ref())
        .filter(|flow| flow.is.is_some())
        .filter_map(|flow| flow.expect.clone().or_else(|| flow.stop.clone()))
        .collect();
    let mut flows: BTreeSet<String> = BTreeSet::new();
    let mut lasting: BTreeSet<String> = BTreeSet::new();
    let ended: Vec<String> = scenario
        .steps
        .iter()
        .filter_map(|step| step.value.fault.as_ref())
        .filter_map(ends)
        .collect();
    let mut still_to_end = ended.clone();
    scenario.steps.retain_mut(|step| {
        let step = &mut step.value;
        if let Some(objects) = &step.apply {
            exists.extend(objects.iter().map(name));
        }
        if let Some(patch) = &step.patch {
            return match patch.kind.as_str() {
                "Service" | "EndpointSlice" => {
                    exists.contains(&(patch.kind.clone(), patch.name.clone()))
                }
                "Pod" => pods.get(&patch.name) == Some(&true),
                _ => true,
            };
        }
        if let Some(objects) = &step.delete {
            let kept: Vec<_> = objects
                .as_slice()
                .iter()
                .filter(|object| exists.remove(&(object.kind.clone(), object.name.clone())))
                .cloned()
                .collect();
            let any = !kept.is_empty();
            step.delete = Some(match kept.as_slice() {
                [one] => OneOrMany::One(one.clone()),
                _ => OneOrMany::Many(kept),
            });
            return any;
        }
        if let Some(action) = &step.pod {
            let starts = action.action == PodVerb::Start;
            let possible = action
                .name
                .as_slice()
                .iter()
                .all(|name| pods.get(name).is_some_and(|there| *there != starts));
            if possible {
                for name in action.name.as_slice() {
                    match action.action {
                        PodVerb::Start => drop(pods.insert(name.clone(), true)),
                        // Its namespace does not come back.
                        PodVerb::Stop => drop(pods.remove(name)),
                        _ => {}
                    }
                }
            }
            return possible;
        }
        if let Some(flow) = &step.flow {
            if let Some(name) = &flow.start {
                flows.insert(name.clone());
                return judged.contains(name);
            }
            let name = flow.expect.as_ref().or(flow.stop.as_ref());
            return name.is_some_and(|name| flows.contains(name));
        }
        if let Some(fault) = &step.fault {
            if let Some(what) = ends(fault) {
                if let Some(at) = still_to_end.iter().position(|one| *one == what) {
                    still_to_end.remove(at);
                }
                return lasting.remove(&what);
            }
            if let Some(what) = begins(fault) {
                // A fault that never ends leaves nothing to be seen.
                let ends = still_to_end.contains(&what);
                if ends {
                    lasting.insert(what);
                }
                return ends;
            }
        }
        true
    });
    scenario
}

fn begins(fault: &crate::scenario::doc::Fault) -> Option<String> {
    use crate::scenario::doc::{ApiFault as A, NodeFault as N, ProxyFault as P};
    if fault.end {
        return None;
    }
    match (fault.proxy, fault.node, fault.api) {
        (Some(P::Down), ..) => Some("down".into()),
        (Some(P::Stop), ..) => Some("stop".into()),
        (_, Some(node @ (N::ForeignTable | N::LinkChurn | N::Address)), _) => {
            Some(format!("{node:?}"))
        }
        (
            _,
            _,
            Some(api @ (A::Outage | A::HalfOpen | A::Errors | A::Delay | A::DuplicateEvents)),
        ) => Some(format!("{api:?}")),
        _ => None,
    }
}

fn ends(fault: &crate::scenario::doc::Fault) -> Option<String> {
    use crate::scenario::doc::ProxyFault as P;
    match (fault.proxy, fault.node, fault.api) {
        (Some(P::Start), ..) => Some("down".into()),
        (Some(P::Continue), ..) => Some("stop".into()),
        (_, Some(node), _) if fault.end => Some(format!("{node:?}")),
        (_, _, Some(api)) if fault.end => Some(format!("{api:?}")),
        _ => None,
    }
}
