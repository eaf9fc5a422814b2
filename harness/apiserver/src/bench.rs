//! Many objects at once, for tests and benchmarks.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::{ApiServer, StatusError};

/// The address of the endpoint with this number.
fn address(number: usize) -> String {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)).wrapping_add(number as u32)).to_string()
}

/// The EndpointSlice that [`preload`] writes for Service `service`: one port, `endpoints` ready endpoints on `node-1`.
pub fn slice(service: usize, endpoints: usize) -> Value {
    let listed: Vec<Value> = (0..endpoints)
        .map(|e| {
            json!({
                "addresses": [address(service * endpoints + e)],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": "node-1",
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("svc-{service:05}-v4"),
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": format!("svc-{service:05}")},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": listed,
    })
}

/// The Service that [`preload`] writes: no selector, one port 80.
pub fn service(service: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": format!("svc-{service:05}"), "namespace": "default"},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

/// Creates `services` Services, each with one hand-made EndpointSlice of `endpoints` endpoints, in the namespace `default`, through the same admission
/// as any other write.
///
/// # Errors
/// When an object is refused: they exist already, or the ClusterIP range is too small.
pub fn preload(server: &ApiServer, services: usize, endpoints: usize) -> Result<(), StatusError> {
    for number in 0..services {
        server.create(service(number))?;
        server.create(slice(number, endpoints))?;
    }
    Ok(())
}
