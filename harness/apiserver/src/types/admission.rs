//! The entry points: which rules apply to which kind.

use serde_json::{Value, json};

use super::json::objects_mut;
use super::{Cause, ServiceAllocators, endpoint_slice, meta, node, pod, service, service_cidr};

/// What is being done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// It is new. Clients may not set the status of a new object; dropping it is the caller's part, so that whoever stands in for a controller can keep it.
    Create,
    /// Its metadata and spec are replaced. The status of the kinds this module knows stays what it was, whatever the new object says.
    Update,
    /// Its status is replaced (the `status` subresource); the spec of the kinds this module knows stays what it was.
    UpdateStatus,
}

/// What admission needs to know beside the object.
pub struct AdmitContext<'a> {
    /// The ClusterIPs and NodePorts of the cluster. They are left as they were when the object is refused.
    pub allocators: &'a mut ServiceAllocators,
    /// The time of the write, for fields that default to it.
    pub now: jiff::Timestamp,
}

/// Completes and checks an object that is about to be written: fills in defaults, carries over what an update leaves out, allocates ClusterIPs and
/// NodePorts and validates the result. Kinds without rules of their own pass with the checks every object gets.
///
/// `old` is the stored object; it must be given for the two kinds of update. `new` must have its final name, or a `generateName`.
///
/// On an error nothing is allocated or released, and `new` must not be stored.
pub fn admit(
    ctx: &mut AdmitContext<'_>,
    op: Op,
    api_version: &str,
    kind: &str,
    old: Option<&Value>,
    new: &mut Value,
) -> Result<(), Vec<Cause>> {
    if !new.is_object() || !new["metadata"].is_object() {
        return Err(vec![Cause::required("metadata", "")]);
    }
    if has_status(api_version, kind)
        && let Some(old) = old
    {
        match op {
            Op::Create => {}
            Op::Update => copy_field("status", old, new),
            Op::UpdateStatus => copy_field("spec", old, new),
        }
    }
    let mut causes = Vec::new();
    meta::validate(api_version, kind, new, &mut causes);
    if !causes.is_empty() {
        return Err(causes);
    }
    match (api_version, kind) {
        ("v1", "Service") => service::admit(ctx, op, old, new),
        ("discovery.k8s.io/v1", "EndpointSlice") => endpoint_slice::admit(old, new),
        ("v1", "Pod") => pod::admit(new),
        ("v1", "Node") => node::admit(old, new),
        ("networking.k8s.io/v1", "ServiceCIDR") => service_cidr::admit(ctx, op, old, new),
        ("v1", "Namespace") => {
            namespace(new);
            Ok(())
        }
        ("v1", "Endpoints") => {
            endpoints(new);
            Ok(())
        }
        ("v1", "Secret") => {
            if new["type"].is_null() {
                new["type"] = json!("Opaque");
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Gives back what a deleted object held: ClusterIPs and NodePorts of a Service, the range of a ServiceCIDR.
pub fn released(ctx: &mut AdmitContext<'_>, old: &Value) {
    match (old["apiVersion"].as_str(), old["kind"].as_str()) {
        (Some("v1"), Some("Service")) => service::released(ctx.allocators, old),
        (Some("networking.k8s.io/v1"), Some("ServiceCIDR")) => {
            service_cidr::released(ctx.allocators, old)
        }
        _ => {}
    }
}

/// The kinds whose spec and status are written separately.
fn has_status(api_version: &str, kind: &str) -> bool {
    matches!(
        (api_version, kind),
        ("v1", "Service" | "Pod" | "Node" | "Namespace") | ("networking.k8s.io/v1", "ServiceCIDR")
    )
}

fn copy_field(field: &str, from: &Value, to: &mut Value) {
    match (from.get(field), to.as_object_mut()) {
        (Some(value), Some(to)) => {
            to.insert(field.to_owned(), value.clone());
        }
        (None, Some(to)) => {
            to.shift_remove(field);
        }
        (_, None) => {}
    }
}

/// A namespace is active, has the finalizer of the namespace controller, and carries its name as a label (KEP-2161).
fn namespace(new: &mut Value) {
    if let Some(name) = new["metadata"]["name"].as_str().map(str::to_owned) {
        if !new["metadata"]["labels"].is_object() {
            new["metadata"]["labels"] = json!({});
        }
        new["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
    }
    for field in ["spec", "status"] {
        if !new[field].is_object() {
            new[field] = json!({});
        }
    }
    if new["spec"]["finalizers"].is_null() {
        new["spec"]["finalizers"] = json!(["kubernetes"]);
    }
    if new["status"]["phase"].is_null() {
        new["status"]["phase"] = json!("Active");
    }
}

fn endpoints(new: &mut Value) {
    for subset in objects_mut(new, "subsets") {
        for port in objects_mut(subset, "ports") {
            if port["protocol"].is_null() {
                port["protocol"] = json!("TCP");
            }
        }
    }
}
