//! The API objects as far as a proxy needs them.
//!
//! The types of `k8s-openapi` hold every field there is; with ten thousand Services that costs memory and time. These hold what the proxy
//! reads and ignore the rest. `model.rs` turns them into parsed, compact values at once.

mod endpoint_slice;
mod node;
mod service;

pub use self::{
    endpoint_slice::{
        EndpointConditions, EndpointHints, EndpointPort, EndpointSliceObject, ForName,
        SliceEndpoint,
    },
    node::{NodeAddress, NodeObject, NodeSpec, NodeStatus, Taint},
    service::{
        ClientIpConfig, LoadBalancerIngress, LoadBalancerStatus, PortSpec, ServiceObject,
        ServiceSpec, ServiceStatus, SessionAffinityConfig,
    },
};

/// Makes a type an API resource for `kube`.
macro_rules! resource {
    ($type:ty, $scope:ty, $group:literal, $version:literal, $kind:literal, $plural:literal) => {
        impl kube::Resource for $type {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                $kind.into()
            }
            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }
            fn version((): &()) -> std::borrow::Cow<'_, str> {
                $version.into()
            }
            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &kube::api::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut kube::api::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
use resource;
