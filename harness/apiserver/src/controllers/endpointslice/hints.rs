//! Which hints the endpoints get: those of `trafficDistribution` (KEP-4444, KEP-3015), those of the topology mode annotation (KEP-2433), or none.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForNode, ForZone};
use serde_json::Value;

use super::{Changes, topology};

/// Gives the endpoints of all slices their hints. Slices that were to stay as they are and have other hints than they must have are written too.
pub(super) fn apply(service: &Value, nodes: &[Value], changes: &mut Changes) {
    let distribution = service["spec"]["trafficDistribution"].as_str();
    if topology_mode(service) {
        topology::apply(nodes, changes);
        return;
    }
    match distribution {
        Some("PreferClose" | "PreferSameZone") => prefer_close(false, changes),
        Some("PreferSameNode") => prefer_close(true, changes),
        _ => remove(changes),
    }
}

/// Whether hints follow the capacity of zones. The older annotation wins over the newer one.
fn topology_mode(service: &Value) -> bool {
    let annotations = &service["metadata"]["annotations"];
    let old = &annotations["service.kubernetes.io/topology-aware-hints"];
    let value = if old.is_null() {
        &annotations["service.kubernetes.io/topology-mode"]
    } else {
        old
    };
    matches!(value.as_str(), Some("Auto" | "auto"))
}

pub(super) fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .and_then(|conditions| conditions.ready)
        == Some(true)
}

/// Takes all hints away.
pub(super) fn remove(changes: &mut Changes) {
    for endpoint in written(changes) {
        endpoint.hints = None;
    }
    let hinted = |slice: &EndpointSlice| {
        slice
            .endpoints
            .iter()
            .flatten()
            .any(|endpoint| endpoint.hints.is_some())
    };
    write_also(changes, hinted, |endpoint| endpoint.hints = None);
}

/// Each ready endpoint is for its own zone and, where that is asked for, for its own node.
fn prefer_close(node_hints: bool, changes: &mut Changes) {
    let set = |endpoint: &mut Endpoint| {
        // An endpoint that is not ready keeps none: the real controller makes it anew without hints whenever its slice is written.
        endpoint.hints = if is_ready(endpoint) {
            close_hints(endpoint, node_hints)
        } else {
            None
        };
    };
    written(changes).for_each(set);
    let wrong = |slice: &EndpointSlice| {
        let mut ready = slice
            .endpoints
            .iter()
            .flatten()
            .filter(|endpoint| is_ready(endpoint));
        ready.any(|endpoint| endpoint.hints != close_hints(endpoint, node_hints))
    };
    write_also(changes, wrong, set);
}

fn close_hints(endpoint: &Endpoint, node_hints: bool) -> Option<EndpointHints> {
    let for_zones = endpoint
        .zone
        .as_ref()
        .map(|zone| vec![ForZone { name: zone.clone() }]);
    let node = endpoint.node_name.as_ref().filter(|_| node_hints);
    let for_nodes = node.map(|node| vec![ForNode { name: node.clone() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints {
        for_nodes,
        for_zones,
    })
}

/// The endpoints of the slices that are written anyway.
pub(super) fn written(changes: &mut Changes) -> impl Iterator<Item = &mut Endpoint> {
    let slices = changes.create.iter_mut().chain(&mut changes.update);
    slices.flat_map(|slice| slice.endpoints.iter_mut().flatten())
}

/// Moves unchanged slices that are not as they must be to those that are written.
fn write_also(
    changes: &mut Changes,
    wrong: impl Fn(&EndpointSlice) -> bool,
    set: impl Fn(&mut Endpoint),
) {
    for mut slice in std::mem::take(&mut changes.unchanged) {
        if wrong(&slice) {
            slice.endpoints.iter_mut().flatten().for_each(&set);
            changes.update.push(slice);
        } else {
            changes.unchanged.push(slice);
        }
    }
}
