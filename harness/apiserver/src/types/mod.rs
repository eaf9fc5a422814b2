//! Admission of the built-in types: defaulting, allocation and validation, as far as a proxy or `kubectl` can see it.
//!
//! Pure functions on JSON values plus the Service allocators; no I/O and no knowledge of the store. The rules are those of Kubernetes 1.36:
//! `pkg/apis/*/v1/defaults.go`, `pkg/apis/*/validation` and `pkg/registry`.

mod admission;
mod allocators;
mod cause;
mod endpoint_slice;
mod json;
mod meta;
mod node;
mod pod;
mod service;
mod service_cidr;
mod syntax;

pub use admission::{AdmitContext, Op, admit, released};
pub use allocators::{AllocationError, Family, ServiceAllocators};
pub use cause::Cause;
pub use meta::generate_name;
