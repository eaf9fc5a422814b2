//! Admission of the built-in types: defaulting, allocation and validation, as far as a proxy or `kubectl` can see it.
//!
//! Pure functions on JSON values plus the Service allocators; no I/O and no knowledge of the store. The rules are those of Kubernetes'
//! `pkg/apis/*/v1/defaults.go`, `pkg/apis/*/validation` and `pkg/registry/core/service`.

mod allocators;
mod cause;

pub use allocators::{AllocationError, Family, ServiceAllocators};
pub use cause::Cause;

use serde_json::Value;

/// What is being done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// It is new.
    Create,
    /// Its metadata and spec are replaced; the status stays what it was.
    Update,
    /// Its status is replaced (the `status` subresource); the spec stays what it was.
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
/// On an error nothing is allocated or released, and `new` must not be stored.
pub fn admit(
    ctx: &mut AdmitContext<'_>,
    op: Op,
    api_version: &str,
    kind: &str,
    old: Option<&Value>,
    new: &mut Value,
) -> Result<(), Vec<Cause>> {
    let _ = (ctx, op, api_version, kind, old, new);
    Ok(())
}

/// Gives back what a deleted object held: ClusterIPs and NodePorts of a Service, the range of a ServiceCIDR.
pub fn released(ctx: &mut AdmitContext<'_>, old: &Value) {
    let _ = (ctx, old);
}
