//! In which slice each endpoint goes: as few writes as possible, and no endpoint moves because another one changed (`reconcileByPortMapping`).

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::desired::{EndpointKey, Group};
use super::metadata::Owner;
use super::{Changes, MAX_ENDPOINTS};

/// Places the endpoints of one set of ports: first where they are already, then into slices that are written anyway, then into one slice that has room for
/// all of the rest, then into new slices.
pub(super) fn place(
    owner: &Owner,
    address_type: &str,
    group: Group,
    existing: Vec<EndpointSlice>,
    changes: &mut Changes,
) {
    let mut left = group.endpoints;
    let mut written = Vec::new();
    let mut unchanged = Vec::new();
    for mut slice in existing {
        match keep_desired(&mut slice, &mut left) {
            Kept::Nothing => {
                changes.delete.push(slice);
                continue;
            }
            Kept::Changed => written.push(slice),
            Kept::All if owner.labels_changed(&slice) => written.push(slice),
            Kept::All => unchanged.push(slice),
        }
    }
    // The fullest are filled first.
    written.sort_by_key(|slice| std::cmp::Reverse(length(slice)));
    for slice in &mut written {
        fill(slice, &mut left);
    }
    while !left.is_empty() {
        let roomy = if left.len() < MAX_ENDPOINTS {
            best_fit(&unchanged, left.len())
        } else {
            None
        };
        match roomy {
            Some(i) => {
                let mut slice = unchanged.remove(i);
                fill(&mut slice, &mut left);
                written.push(slice);
            }
            None => {
                let mut slice = owner.new_slice(address_type, group.ports.clone());
                fill(&mut slice, &mut left);
                changes.create.push(slice);
            }
        }
    }
    for slice in &mut written {
        slice.metadata.labels = Some(owner.labels());
    }
    changes.update.append(&mut written);
    changes.unchanged.append(&mut unchanged);
}

enum Kept {
    /// Each endpoint is as it was.
    All,
    /// Some are gone or different.
    Changed,
    /// None is desired any more.
    Nothing,
}

/// Brings the endpoints of a stored slice up to date and takes them out of those that need a place.
fn keep_desired(slice: &mut EndpointSlice, left: &mut BTreeMap<EndpointKey, Endpoint>) -> Kept {
    let stored = slice.endpoints.take().unwrap_or_default();
    let before = stored.len();
    let mut changed = false;
    let mut kept = Vec::with_capacity(before);
    for old in stored {
        let Some(mut new) = left.remove(&EndpointKey::of(&old)) else {
            continue;
        };
        changed |= !same(&old, &new);
        // Hints are the matter of a later step, which needs to see those that are stored.
        new.hints = old.hints;
        kept.push(new);
    }
    let after = kept.len();
    slice.endpoints = Some(kept);
    match (before == after, changed) {
        (true, false) => Kept::All,
        _ if after == 0 => Kept::Nothing,
        _ => Kept::Changed,
    }
}

/// Whether an endpoint is as it was, hints apart.
fn same(old: &Endpoint, new: &Endpoint) -> bool {
    old.node_name == new.node_name
        && old.zone == new.zone
        && old.conditions == new.conditions
        && old.target_ref == new.target_ref
}

fn fill(slice: &mut EndpointSlice, left: &mut BTreeMap<EndpointKey, Endpoint>) {
    let endpoints = slice.endpoints.get_or_insert_default();
    while endpoints.len() < MAX_ENDPOINTS
        && let Some((_, endpoint)) = left.pop_first()
    {
        endpoints.push(endpoint);
    }
}

/// The slice that is fullest once it has taken this many endpoints more.
fn best_fit(slices: &[EndpointSlice], more: usize) -> Option<usize> {
    let with_room = slices
        .iter()
        .enumerate()
        .filter(|(_, slice)| length(slice) + more <= MAX_ENDPOINTS);
    // Of equals the first, so that the order of the stored slices decides.
    with_room
        .min_by_key(|(_, slice)| MAX_ENDPOINTS - length(slice))
        .map(|(i, _)| i)
}

fn length(slice: &EndpointSlice) -> usize {
    slice.endpoints.as_ref().map_or(0, Vec::len)
}
