//! The EndpointSlice controller: from a Service and its Pods to the slices that must exist.
//!
//! ```text
//!  Service + Pods + Nodes --desired--> endpoints, by family and set of ports
//!                                         |
//!  stored slices ------------------placement--> slices to create, update, delete
//!                                         |
//!                                       hints --> the same, with topology hints
//! ```
//!
//! The rules are those of `k8s.io/endpointslice` (release 1.36). Where the real controller walks through a map in random order, this one has an order, so that the
//! same objects always give the same slices. It does not write the `endpoints.kubernetes.io/last-change-trigger-time` annotation, which needs a clock.

mod desired;
mod hints;
mod metadata;
mod placement;
mod topology;

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde_json::{Value, json};

use self::desired::{Group, PortKey};
use self::metadata::Owner;

/// The value of `endpointslice.kubernetes.io/managed-by` on the slices of this controller.
pub const MANAGED_BY: &str = "endpointslice-controller.k8s.io";

/// The most endpoints in one slice (`--max-endpoints-per-slice`).
pub const MAX_ENDPOINTS: usize = 100;

/// One write that brings the stored slices closer to what they must be.
#[derive(Clone, Debug, PartialEq)]
pub enum SliceChange {
    /// A new EndpointSlice, with its name.
    Create(Value),
    /// The new state of a stored EndpointSlice.
    Update(Value),
    /// An EndpointSlice that is not needed any more.
    Delete {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// The slices of one address type on their way to what they must be. Names of new slices come last, when it is known how many stored slices can be reused.
#[derive(Debug, Default)]
struct Changes {
    create: Vec<EndpointSlice>,
    update: Vec<EndpointSlice>,
    delete: Vec<EndpointSlice>,
    unchanged: Vec<EndpointSlice>,
}

/// Computes the writes after which the stored slices are those the Service must have.
///
/// `pods` and `nodes` may hold more than is needed: Pods of other namespaces and Pods that the selector does not match are left out, and so are `existing` slices that
/// are not of this Service and this controller. Nothing is to be done for a Service without a selector or of type `ExternalName`: its slices, if any, are somebody else's.
///
/// The writes are in the order of the real controller: creations, updates, deletions.
pub fn reconcile(
    service: &Value,
    pods: &[Value],
    nodes: &[Value],
    existing: &[Value],
) -> Vec<SliceChange> {
    let selects = service["spec"]["selector"]
        .as_object()
        .is_some_and(|selector| !selector.is_empty());
    if !selects || service["spec"]["type"] == "ExternalName" {
        return Vec::new();
    }
    let owner = Owner::of(service);
    let mut by_type: BTreeMap<String, Vec<EndpointSlice>> = BTreeMap::new();
    let mut all = Changes::default();
    let mut names = Vec::new();
    for value in existing {
        names.push(
            value["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        );
        if !owner.manages(value) {
            continue;
        }
        match EndpointSlice::deserialize(value) {
            Ok(slice) => by_type
                .entry(slice.address_type.clone())
                .or_default()
                .push(slice),
            // Nobody can read it, so it is replaced.
            Err(_) => all.delete.push(EndpointSlice {
                metadata: metadata::name_of(value),
                ..EndpointSlice::default()
            }),
        }
    }
    for slices in by_type.values_mut() {
        // The order decides between slices with equal room.
        slices.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    }
    let pods = desired::selected(service, pods);
    for family in desired::address_types(service) {
        let existing = by_type.remove(family.name()).unwrap_or_default();
        let groups = desired::groups(service, &pods, nodes, family);
        let mut changes = one_address_type(service, &owner, family.name(), groups, existing);
        hints::apply(service, nodes, &mut changes);
        reuse_deleted(&owner, &mut changes);
        all.create.append(&mut changes.create);
        all.update.append(&mut changes.update);
        all.delete.append(&mut changes.delete);
    }
    // Families that the Service no longer has.
    all.delete.extend(by_type.into_values().flatten());
    finish(&owner, names, all)
}

fn one_address_type(
    service: &Value,
    owner: &Owner,
    address_type: &str,
    groups: BTreeMap<PortKey, Group>,
    existing: Vec<EndpointSlice>,
) -> Changes {
    let mut changes = Changes::default();
    let mut by_ports: BTreeMap<PortKey, Vec<EndpointSlice>> = BTreeMap::new();
    for slice in existing {
        if owner.owns(&slice) {
            let key = PortKey::of(slice.ports.as_deref().unwrap_or_default());
            by_ports.entry(key).or_default().push(slice);
        } else {
            // It belongs to a Service of the same name that is gone.
            changes.delete.push(slice);
        }
    }
    for (key, group) in groups {
        let existing = by_ports.remove(&key).unwrap_or_default();
        placement::place(owner, address_type, group, existing, &mut changes);
    }
    let mut left: Vec<EndpointSlice> = by_ports.into_values().flatten().collect();
    if changes.create.is_empty() && changes.update.is_empty() && changes.unchanged.is_empty() {
        // A Service without endpoints has one slice that says so.
        let placeholder = owner.new_slice(address_type, Vec::new());
        let all_deleted = changes.delete.len() + left.len();
        match left.pop_if(|slice| all_deleted == 1 && owner.is_placeholder(slice)) {
            Some(slice) => changes.unchanged.push(slice),
            None => changes.create.push(placeholder),
        }
    }
    changes.delete.append(&mut left);
    if !service["metadata"]["deletionTimestamp"].is_null() {
        // Slices of a Service that is going away are not replaced: the garbage collector takes them.
        changes.create.clear();
    }
    changes
}

/// Turns a creation and a deletion into one update, where the slice to be deleted is of this Service.
fn reuse_deleted(owner: &Owner, changes: &mut Changes) {
    let mut kept = Vec::new();
    for slice in std::mem::take(&mut changes.delete) {
        if !owner.owns(&slice) {
            kept.push(slice);
            continue;
        }
        match changes.create.pop() {
            Some(mut new) => {
                new.metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                    labels: new.metadata.labels,
                    ..slice.metadata
                };
                changes.update.push(new);
            }
            None => kept.push(slice),
        }
    }
    changes.delete = kept;
}

fn finish(owner: &Owner, mut names: Vec<String>, all: Changes) -> Vec<SliceChange> {
    let mut changes = Vec::new();
    for mut slice in all.create {
        let name = owner.new_name(&slice, &names);
        names.push(name.clone());
        slice.metadata.name = Some(name);
        changes.push(SliceChange::Create(json!(slice)));
    }
    for slice in all.update {
        changes.push(SliceChange::Update(json!(slice)));
    }
    for slice in all.delete {
        changes.push(SliceChange::Delete {
            namespace: slice.metadata.namespace.unwrap_or_default(),
            name: slice.metadata.name.unwrap_or_default(),
        });
    }
    changes
}
