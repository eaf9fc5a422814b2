//! The defaults of a Service that depend on the Service alone (`SetDefaults_Service`).

use k8s_openapi::api::core::v1::{ClientIPConfig, ServiceSpec, SessionAffinityConfig};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{externally_accessible, service_type};

/// Three hours: how long session affinity lasts when nobody says how long.
const AFFINITY_SECONDS: i32 = 10_800;

pub(super) fn apply(spec: &mut ServiceSpec) {
    spec.type_.get_or_insert_with(|| "ClusterIP".to_owned());
    let affinity = spec
        .session_affinity
        .get_or_insert_with(|| "None".to_owned());
    match affinity.as_str() {
        "None" => spec.session_affinity_config = None,
        "ClientIP" => {
            spec.session_affinity_config
                .get_or_insert_default()
                .client_ip
                .get_or_insert_default()
                .timeout_seconds
                .get_or_insert(AFFINITY_SECONDS);
        }
        _ => {}
    }
    for port in spec.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
        let unset = match &port.target_port {
            None | Some(IntOrString::Int(0)) => true,
            Some(IntOrString::String(name)) => name.is_empty(),
            Some(IntOrString::Int(_)) => false,
        };
        if unset {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
    if externally_accessible(spec) {
        spec.external_traffic_policy
            .get_or_insert_with(|| "Cluster".to_owned());
    }
    match service_type(spec) {
        "ClusterIP" | "NodePort" | "LoadBalancer" => {
            spec.internal_traffic_policy
                .get_or_insert_with(|| "Cluster".to_owned());
        }
        // The real server stores the field for ExternalName and hides it from every reader.
        "ExternalName" => spec.internal_traffic_policy = None,
        _ => {}
    }
    if service_type(spec) == "LoadBalancer" {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
}

/// The affinity timeout in seconds, when there is one.
pub(super) fn affinity_timeout(config: &SessionAffinityConfig) -> Option<i32> {
    match &config.client_ip {
        Some(ClientIPConfig { timeout_seconds }) => *timeout_seconds,
        None => None,
    }
}
