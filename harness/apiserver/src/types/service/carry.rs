//! What an update inherits from the stored Service when it does not say otherwise, and what it loses when the type changes.
//!
//! Without these rules nobody could submit the same manifest twice: the manifest does not know the allocated ClusterIP and NodePorts.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::ServiceSpec;

use super::{
    cluster_ips, externally_accessible, needs_cluster_ip, needs_health_check, service_type,
    uses_node_ports,
};

/// Keeps `clusterIP` and `clusterIPs` in step for clients that know only the first of them (`normalizeClusterIPs`).
pub(super) fn sync_cluster_ips(new: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    let Some(old) = old else {
        if new.cluster_ips.is_none() {
            new.cluster_ips = new.cluster_ip.clone().map(|address| vec![address]);
        }
        return;
    };
    if old.cluster_ips.is_some() && new.cluster_ips.is_none() && old.cluster_ip == new.cluster_ip {
        new.cluster_ips = old.cluster_ips.clone();
    }
    if old.cluster_ip != new.cluster_ip && cluster_ips(old) == cluster_ips(new) {
        // The client changed or cleared the singular field and left the plural one as it was: it means both.
        new.cluster_ips = new.cluster_ip.clone().map(|address| vec![address]);
    }
}

/// Copies allocated values that the update leaves out (`patchAllocatedValues`).
pub(super) fn inherit_allocated(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if new.cluster_ip.is_none() {
            new.cluster_ip = old.cluster_ip.clone();
        }
        if new.cluster_ips.is_none() {
            new.cluster_ips = old.cluster_ips.clone();
        }
    }
    if allocates_node_ports(old) && allocates_node_ports(new) {
        let used: HashSet<i32> = node_ports(old)
            .intersection(&node_ports(new))
            .copied()
            .collect();
        // Ports are recognised by name; whatever else changed about them does not matter.
        let by_name: HashMap<Option<&str>, i32> = old
            .ports
            .iter()
            .flatten()
            .filter_map(|port| Some((port.name.as_deref(), port.node_port?)))
            .collect();
        for port in new.ports.iter_mut().flatten() {
            if port.node_port.is_none()
                && let Some(inherited) = by_name.get(&port.name.as_deref())
                && !used.contains(inherited)
            {
                port.node_port = Some(*inherited);
            }
        }
    }
    if needs_health_check(old) && needs_health_check(new) && new.health_check_node_port.is_none() {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// Clears fields that the new type does not have and that the client did not touch (`dropTypeDependentFields`).
pub(super) fn drop_dependent_fields(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if old.cluster_ip == new.cluster_ip && cluster_ips(old) == cluster_ips(new) {
            new.cluster_ip = None;
            new.cluster_ips = None;
        }
        if old.ip_families == new.ip_families {
            new.ip_families = None;
        }
        if old.ip_family_policy == new.ip_family_policy {
            new.ip_family_policy = None;
        }
    }
    if uses_node_ports(old) && !uses_node_ports(new) && node_ports(new).is_subset(&node_ports(old))
    {
        for port in new.ports.iter_mut().flatten() {
            port.node_port = None;
        }
    }
    if needs_health_check(old)
        && !needs_health_check(new)
        && old.health_check_node_port == new.health_check_node_port
    {
        new.health_check_node_port = None;
    }
    if service_type(old) == "LoadBalancer" && service_type(new) != "LoadBalancer" {
        if old.allocate_load_balancer_node_ports == new.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if old.load_balancer_class == new.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
    if externally_accessible(old)
        && !externally_accessible(new)
        && old.external_traffic_policy == new.external_traffic_policy
    {
        new.external_traffic_policy = None;
    }
}

/// Whether its ports get NodePorts without asking.
fn allocates_node_ports(spec: &ServiceSpec) -> bool {
    match service_type(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn node_ports(spec: &ServiceSpec) -> HashSet<i32> {
    spec.ports
        .iter()
        .flatten()
        .filter_map(|port| port.node_port)
        .collect()
}
