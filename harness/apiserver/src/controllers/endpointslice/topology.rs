//! Hints in proportion to the CPUs of the zones (`service.kubernetes.io/topology-mode: Auto`, KEP-2433).
//!
//! Each zone is to have as large a share of the endpoints as it has of the CPUs. Endpoints serve their own zone first; zones with more than their share give the surplus
//! to zones with less. When a zone would be overloaded by more than a fifth, there are no hints at all.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForZone};
use serde_json::Value;

use super::Changes;
use super::hints::{is_ready, remove, written};

/// By how much a zone's endpoints may be overloaded.
const OVERLOAD: f64 = 0.20;

/// How many endpoints a zone should have.
struct Allocation {
    desired: f64,
    maximum: usize,
}

pub(super) fn apply(nodes: &[Value], changes: &mut Changes) {
    let all = changes
        .create
        .iter()
        .chain(&changes.update)
        .chain(&changes.unchanged);
    let total = all
        .flat_map(|slice| slice.endpoints.iter().flatten())
        .filter(|one| is_ready(one))
        .count();
    let Some(allocations) = cpu_shares(nodes).and_then(|shares| allocate(&shares, total)) else {
        remove(changes);
        return;
    };
    let mut hinted: BTreeMap<String, usize> = BTreeMap::new();
    for slice in std::mem::take(&mut changes.unchanged) {
        match usable_hints(&slice, &hinted, &allocations) {
            Some(zones) => {
                for (zone, count) in zones {
                    *hinted.entry(zone).or_default() += count;
                }
                changes.unchanged.push(slice);
            }
            None => changes.update.push(slice),
        }
    }
    if written(changes).any(|endpoint| is_ready(endpoint) && zone_of(endpoint).is_empty()) {
        // One endpoint without a zone is enough to give up.
        remove(changes);
        return;
    }
    for endpoint in written(changes) {
        if is_ready(endpoint) {
            let zone = zone_of(endpoint).to_owned();
            *hinted.entry(zone.clone()).or_default() += 1;
            endpoint.hints = for_zone(zone);
        } else {
            endpoint.hints = None;
        }
    }
    redistribute(&allocations, &hinted, changes);
}

/// The share of the cluster's CPUs that each zone has. None when a ready node does not tell, or when there are fewer than two zones.
fn cpu_shares(nodes: &[Value]) -> Option<BTreeMap<String, f64>> {
    let mut cpus: BTreeMap<String, f64> = BTreeMap::new();
    for node in nodes {
        let labels = &node["metadata"]["labels"];
        let excluded = [
            "node-role.kubernetes.io/control-plane",
            "node-role.kubernetes.io/master",
        ];
        if excluded.iter().any(|label| labels.get(label).is_some()) || !is_node_ready(node) {
            continue;
        }
        let zone = labels["topology.kubernetes.io/zone"]
            .as_str()
            .filter(|zone| !zone.is_empty())?;
        let cpu = cpu_count(&node["status"]["allocatable"]["cpu"]).filter(|cpu| *cpu > 0.0)?;
        *cpus.entry(zone.to_owned()).or_default() += cpu;
    }
    let total: f64 = cpus.values().sum();
    (cpus.len() >= 2).then(|| {
        cpus.into_iter()
            .map(|(zone, cpu)| (zone, cpu / total))
            .collect()
    })
}

fn is_node_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
    ready
        .next()
        .is_some_and(|condition| condition["status"] == "True")
}

/// A quantity of CPUs: `4`, `"4"`, `"3500m"` or `"1.5"`.
fn cpu_count(quantity: &Value) -> Option<f64> {
    if let Some(number) = quantity.as_f64() {
        return Some(number);
    }
    let text = quantity.as_str()?;
    match text.strip_suffix('m') {
        Some(thousandths) => Some(thousandths.parse::<f64>().ok()? / 1000.0),
        None => text.parse().ok(),
    }
}

/// How many endpoints each zone should have. None when some zone cannot have enough of them.
fn allocate(shares: &BTreeMap<String, f64>, total: usize) -> Option<BTreeMap<String, Allocation>> {
    if shares.len() > total {
        return None;
    }
    let wanted = |share: f64| share * total as f64;
    let minimum = |share: f64| (wanted(share) / (1.0 + OVERLOAD)).ceil() as usize;
    let needed: usize = shares.values().map(|share| minimum(*share)).sum();
    let spare = total.checked_sub(needed)?;
    let allocation = |share: f64| Allocation {
        desired: wanted(share).max(minimum(share) as f64),
        maximum: minimum(share) + spare,
    };
    Some(
        shares
            .iter()
            .map(|(zone, share)| (zone.clone(), allocation(*share)))
            .collect(),
    )
}

/// How many hints for each zone a stored slice has, or None when it must be written: an endpoint has no hint, or one for an unknown zone, or a zone would have too many.
fn usable_hints(
    slice: &EndpointSlice,
    hinted: &BTreeMap<String, usize>,
    allocations: &BTreeMap<String, Allocation>,
) -> Option<BTreeMap<String, usize>> {
    let mut zones: BTreeMap<String, usize> = BTreeMap::new();
    for endpoint in slice
        .endpoints
        .iter()
        .flatten()
        .filter(|endpoint| is_ready(endpoint))
    {
        let hints = endpoint
            .hints
            .as_ref()?
            .for_zones
            .as_ref()
            .filter(|zones| !zones.is_empty())?;
        for zone in hints {
            *zones.entry(zone.name.clone()).or_default() += 1;
        }
    }
    let fits = |(zone, count): (&String, &usize)| {
        let before = hinted.get(zone).copied().unwrap_or_default();
        allocations
            .get(zone)
            .is_some_and(|allocation| before + count <= allocation.maximum)
    };
    zones.iter().all(fits).then_some(zones)
}

/// Lets zones with more than they should have give endpoints to zones with less.
fn redistribute(
    allocations: &BTreeMap<String, Allocation>,
    hinted: &BTreeMap<String, usize>,
    changes: &mut Changes,
) {
    let mut surplus: BTreeMap<&str, f64> = BTreeMap::new();
    let mut lack: BTreeMap<&str, f64> = BTreeMap::new();
    for (zone, allocation) in allocations {
        let has = hinted.get(zone).copied().unwrap_or_default() as f64;
        if has > allocation.desired {
            surplus.insert(zone, has - allocation.desired);
        } else if has < allocation.desired {
            lack.insert(zone, allocation.desired - has);
        }
    }
    let mut give: BTreeMap<String, usize> = BTreeMap::new();
    let mut receive: BTreeMap<String, usize> = BTreeMap::new();
    while let (Some((giver, surplus)), Some((receiver, lack))) =
        (most(&mut surplus), most(&mut lack))
    {
        if (*surplus < 1.0 && *lack < 1.0) || *surplus < 0.5 || *lack < 0.5 {
            break;
        }
        *surplus -= 1.0;
        *lack -= 1.0;
        *give.entry(giver.to_owned()).or_default() += 1;
        *receive.entry(receiver.to_owned()).or_default() += 1;
    }
    for endpoint in written(changes).filter(|endpoint| is_ready(endpoint)) {
        let Some(left) = give.get_mut(zone_of(endpoint)).filter(|left| **left > 0) else {
            continue;
        };
        let Some((zone, wanted)) = receive.iter_mut().find(|(_, wanted)| **wanted > 0) else {
            break;
        };
        *left -= 1;
        *wanted -= 1;
        endpoint.hints = for_zone(zone.clone());
    }
}

/// The zone with the most, the first by name of equals.
fn most<'a, 'b>(zones: &'b mut BTreeMap<&'a str, f64>) -> Option<(&'a str, &'b mut f64)> {
    let best = zones
        .iter_mut()
        .reduce(|best, next| if *next.1 > *best.1 { next } else { best })?;
    Some((*best.0, best.1))
}

fn zone_of(endpoint: &Endpoint) -> &str {
    endpoint.zone.as_deref().unwrap_or_default()
}

fn for_zone(name: String) -> Option<EndpointHints> {
    Some(EndpointHints {
        for_nodes: None,
        for_zones: Some(vec![ForZone { name }]),
    })
}
