//! What a completed Service must look like (`validateService`, `ValidateServiceUpdate`).

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::super::{Cause, Family, meta, syntax};
use super::{
    NONE, cluster_ips, defaults, externally_accessible, ip_families, is_headless, needs_cluster_ip,
    needs_health_check, parse_address, service_type,
};

const SOURCE_RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const HINTS_ANNOTATION: &str = "service.kubernetes.io/topology-aware-hints";
const MODE_ANNOTATION: &str = "service.kubernetes.io/topology-mode";
/// One day: the longest session affinity.
const MAX_AFFINITY_SECONDS: i32 = 86_400;
const IMMUTABLE: &str = "may not change once set";

/// Checks a Service that is complete: defaults are filled in and addresses and ports are allocated. `service` is the object it belongs to, for its annotations.
pub(super) fn service(
    spec: &ServiceSpec,
    old: Option<&ServiceSpec>,
    service: &Value,
) -> Vec<Cause> {
    let mut causes = Vec::new();
    annotations(spec, service, &mut causes);
    if spec.ports.is_none() && !is_headless(spec) && service_type(spec) != "ExternalName" {
        causes.push(Cause::required("spec.ports", ""));
    }
    by_type(spec, &mut causes);
    ports(spec, &mut causes);
    if let Some(selector) = &spec.selector {
        meta::labels(&json!(selector), "spec.selector", &mut causes);
    }
    session_affinity(spec, &mut causes);
    causes.extend(cluster_ip_fields(spec, old));
    external_ips(spec, old, &mut causes);
    one_of(
        spec.type_.as_deref(),
        "spec.type",
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        &mut causes,
    );
    source_ranges(spec, &mut causes);
    load_balancer_fields(spec, &mut causes);
    traffic_policies(spec, &mut causes);
    one_of(
        spec.traffic_distribution.as_deref(),
        "spec.trafficDistribution",
        &["PreferClose", "PreferSameZone", "PreferSameNode"],
        &mut causes,
    );
    causes
}

/// Checks what an update may not change.
pub(super) fn update(spec: &ServiceSpec, old: &ServiceSpec) -> Vec<Cause> {
    let mut causes = Vec::new();
    if needs_cluster_ip(spec) && needs_cluster_ip(old) {
        unchanged_addresses(spec, old, &mut causes);
        unchanged_families(spec, old, &mut causes);
    }
    if service_type(spec) == "LoadBalancer"
        && service_type(old) == "LoadBalancer"
        && spec.load_balancer_class != old.load_balancer_class
    {
        let value = json!(spec.load_balancer_class);
        causes.push(Cause::invalid("spec.loadBalancerClass", &value, IMMUTABLE));
    }
    if needs_health_check(spec)
        && needs_health_check(old)
        && spec.health_check_node_port != old.health_check_node_port
    {
        causes.push(Cause::forbidden(
            "spec.healthCheckNodePort",
            "field is immutable",
        ));
    }
    causes
}

/// Checks `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` against each other (`ValidateServiceClusterIPsRelatedFields`).
pub(super) fn cluster_ip_fields(spec: &ServiceSpec, old: Option<&ServiceSpec>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if !needs_cluster_ip(spec) {
        return causes;
    }
    let addresses = cluster_ips(spec);
    let all = json!(addresses);
    match (&spec.cluster_ip, addresses.first()) {
        (Some(_), None) => causes.push(Cause::required("spec.clusterIPs", "")),
        (Some(single), Some(first)) if single != first => {
            causes.push(Cause::invalid(
                "spec.clusterIPs",
                &all,
                "first value must match `clusterIP`",
            ));
        }
        (None, Some(_)) => {
            let text = "must be empty when `clusterIP` is not specified";
            causes.push(Cause::invalid("spec.clusterIPs", &all, text));
        }
        _ => {}
    }
    let mut seen = HashSet::new();
    for (i, family) in ip_families(spec).iter().enumerate() {
        let field = format!("spec.ipFamilies[{i}]");
        if Family::parse(family).is_none() {
            causes.push(Cause::not_supported(
                &field,
                &json!(family),
                &["IPv4", "IPv6"],
            ));
        }
        if !seen.insert(family) {
            causes.push(Cause::duplicate(&field, &json!(family)));
        }
    }
    one_of(
        spec.ip_family_policy.as_deref(),
        "spec.ipFamilyPolicy",
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
        &mut causes,
    );
    let mut malformed = false;
    for (i, address) in addresses.iter().enumerate() {
        if i == 0 && address == NONE {
            if addresses.len() > 1 {
                malformed = true;
                let text = "'None' must be the first and only value";
                causes.push(Cause::invalid("spec.clusterIPs", &all, text));
            }
            continue;
        }
        // What was accepted once stays acceptable.
        let known = old.is_some_and(|old| cluster_ips(old).contains(address));
        if !known && let Err(text) = syntax::ip(address) {
            malformed = true;
            causes.push(Cause::invalid(
                format!("spec.clusterIPs[{i}]"),
                &json!(address),
                text,
            ));
        }
    }
    if addresses.len() > 2 {
        causes.push(Cause::invalid(
            "spec.clusterIPs",
            &all,
            "may only hold up to 2 values",
        ));
    }
    if malformed {
        return causes;
    }
    let families: Vec<Option<Family>> = addresses
        .iter()
        .map(|text| parse_address(text).map(Family::of))
        .collect();
    if let [first, second] = families.as_slice()
        && first == second
    {
        let text = "may specify no more than one IP for each IP family";
        causes.push(Cause::invalid("spec.clusterIPs", &all, text));
    }
    if !is_headless(spec) {
        for (i, (family, name)) in families.iter().zip(ip_families(spec)).enumerate() {
            if let Some(expected) = Family::parse(name)
                && *family != Some(expected)
            {
                let text = format!(
                    "expected an {} value as indicated by `ipFamilies[{i}]`",
                    expected.name()
                );
                causes.push(Cause::invalid(
                    format!("spec.clusterIPs[{i}]"),
                    &json!(addresses[i]),
                    text,
                ));
            }
        }
    }
    causes
}

fn unchanged_addresses(spec: &ServiceSpec, old: &ServiceSpec, causes: &mut Vec<Cause>) {
    if is_headless(spec) && is_headless(old) {
        return;
    }
    let (new_list, old_list) = (cluster_ips(spec), cluster_ips(old));
    let value = json!(new_list);
    if new_list.is_empty() && !old_list.is_empty() {
        causes.push(Cause::invalid(
            "spec.clusterIPs[0]",
            &value,
            "primary clusterIP can not be unset",
        ));
    }
    for (i, (new, old)) in new_list.iter().zip(old_list).enumerate() {
        if new != old {
            causes.push(Cause::invalid(
                format!("spec.clusterIPs[{i}]"),
                &value,
                IMMUTABLE,
            ));
        }
    }
    if old_list.len() > 1
        && new_list.len() == 1
        && spec.ip_family_policy.as_deref() != Some("SingleStack")
    {
        let text = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        causes.push(Cause::invalid(
            "spec.ipFamilyPolicy",
            &json!(spec.ip_family_policy),
            text,
        ));
    }
}

fn unchanged_families(spec: &ServiceSpec, old: &ServiceSpec, causes: &mut Vec<Cause>) {
    // Headless Services may change their families.
    if is_headless(spec) || is_headless(old) {
        return;
    }
    let (new_list, old_list) = (ip_families(spec), ip_families(old));
    let value = json!(new_list);
    for (new, old) in new_list.iter().zip(old_list) {
        if new != old {
            causes.push(Cause::invalid("spec.ipFamilies[0]", &value, IMMUTABLE));
        }
    }
    if old_list.len() > 1
        && new_list.len() == 1
        && spec.ip_family_policy.as_deref() != Some("SingleStack")
    {
        let text = "must be set to 'SingleStack' when releasing the secondary ipFamily";
        causes.push(Cause::invalid(
            "spec.ipFamilyPolicy",
            &json!(spec.ip_family_policy),
            text,
        ));
    }
}

fn by_type(spec: &ServiceSpec, causes: &mut Vec<Cause>) {
    match service_type(spec) {
        kind @ ("LoadBalancer" | "NodePort") if is_headless(spec) => {
            let text = format!("may not be set to 'None' for {kind} services");
            causes.push(Cause::invalid("spec.clusterIPs[0]", &json!(NONE), text));
        }
        "ClusterIP" => {
            for (i, port) in spec.ports.iter().flatten().enumerate() {
                if port.node_port.is_some() {
                    let field = format!("spec.ports[{i}].nodePort");
                    causes.push(Cause::forbidden(
                        field,
                        "may not be used when `type` is 'ClusterIP'",
                    ));
                }
            }
        }
        "ExternalName" => {
            let set = [
                ("spec.clusterIPs", !cluster_ips(spec).is_empty()),
                ("spec.ipFamilies", !ip_families(spec).is_empty()),
                ("spec.ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ];
            for (field, set) in set {
                if set {
                    causes.push(Cause::forbidden(
                        field,
                        "may not be set for ExternalName services",
                    ));
                }
            }
            match spec.external_name.as_deref() {
                None | Some(".") => causes.push(Cause::required("spec.externalName", "")),
                Some(name) => {
                    for text in syntax::dns_subdomain(name.strip_suffix('.').unwrap_or(name)) {
                        causes.push(Cause::invalid("spec.externalName", &json!(name), text));
                    }
                }
            }
        }
        _ => {}
    }
}

fn ports(spec: &ServiceSpec, causes: &mut Vec<Cause>) {
    let list = spec.ports.as_deref().unwrap_or_default();
    let mut names = HashSet::new();
    let mut numbers = HashSet::new();
    let mut node_ports = HashSet::new();
    for (i, port) in list.iter().enumerate() {
        let field = format!("spec.ports[{i}]");
        match port.name.as_deref() {
            None if list.len() > 1 => causes.push(Cause::required(format!("{field}.name"), "")),
            None => {}
            Some(name) => {
                let field = format!("{field}.name");
                for text in syntax::dns_label(name) {
                    causes.push(Cause::invalid(&field, &json!(name), text));
                }
                if !names.insert(name) {
                    causes.push(Cause::duplicate(&field, &json!(name)));
                }
            }
        }
        one_port(port, &field, causes);
        let protocol = port.protocol.as_deref();
        if let Some(node_port) = port.node_port
            && !node_ports.insert((protocol, node_port))
        {
            causes.push(Cause::duplicate(
                format!("{field}.nodePort"),
                &json!(node_port),
            ));
        }
        if !numbers.insert((protocol, port.port)) {
            causes.push(Cause::duplicate(
                &field,
                &json!({ "port": port.port, "protocol": protocol }),
            ));
        }
    }
}

fn one_port(port: &ServicePort, field: &str, causes: &mut Vec<Cause>) {
    for text in syntax::port_number(port.port) {
        causes.push(Cause::invalid(
            format!("{field}.port"),
            &json!(port.port),
            text,
        ));
    }
    one_of(
        port.protocol.as_deref(),
        &format!("{field}.protocol"),
        &["SCTP", "TCP", "UDP"],
        causes,
    );
    let wrong = match &port.target_port {
        None => Vec::new(),
        Some(IntOrString::Int(number)) => syntax::port_number(*number),
        Some(IntOrString::String(name)) => syntax::port_name(name),
    };
    for text in wrong {
        causes.push(Cause::invalid(
            format!("{field}.targetPort"),
            &json!(port.target_port),
            text,
        ));
    }
    if let Some(protocol) = &port.app_protocol {
        for text in syntax::qualified_name(protocol) {
            causes.push(Cause::invalid(
                format!("{field}.appProtocol"),
                &json!(protocol),
                text,
            ));
        }
    }
}

fn session_affinity(spec: &ServiceSpec, causes: &mut Vec<Cause>) {
    one_of(
        spec.session_affinity.as_deref(),
        "spec.sessionAffinity",
        &["ClientIP", "None"],
        causes,
    );
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        let timeout = spec
            .session_affinity_config
            .as_ref()
            .and_then(defaults::affinity_timeout);
        if let Some(seconds) = timeout
            && !(1..=MAX_AFFINITY_SECONDS).contains(&seconds)
        {
            let text = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
            let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            causes.push(Cause::invalid(field, &json!(seconds), text));
        }
    }
}

fn external_ips(spec: &ServiceSpec, old: Option<&ServiceSpec>, causes: &mut Vec<Cause>) {
    let known: HashSet<&String> = old
        .iter()
        .flat_map(|old| old.external_ips.iter().flatten())
        .collect();
    for (i, text) in spec.external_ips.iter().flatten().enumerate() {
        let field = format!("spec.externalIPs[{i}]");
        match syntax::ip(text) {
            Ok(address) => {
                for wrong in syntax::endpoint_ip(address) {
                    causes.push(Cause::invalid(&field, &json!(text), wrong));
                }
            }
            Err(_) if known.contains(text) => {}
            Err(wrong) => causes.push(Cause::invalid(&field, &json!(text), wrong)),
        }
    }
}

fn source_ranges(spec: &ServiceSpec, causes: &mut Vec<Cause>) {
    let Some(ranges) = &spec.load_balancer_source_ranges else {
        return;
    };
    let field = "spec.loadBalancerSourceRanges";
    if service_type(spec) != "LoadBalancer" {
        causes.push(Cause::forbidden(
            field,
            "may only be used when `type` is 'LoadBalancer'",
        ));
    }
    for (i, text) in ranges.iter().enumerate() {
        // White space around a range is part of the API, by accident.
        if let Err(wrong) = syntax::cidr(text.trim()) {
            causes.push(Cause::invalid(format!("{field}[{i}]"), &json!(text), wrong));
        }
    }
}

fn annotations(spec: &ServiceSpec, service: &Value, causes: &mut Vec<Cause>) {
    let annotation = |key: &str| service["metadata"]["annotations"][key].as_str();
    if let (Some(hints), Some(mode)) = (annotation(HINTS_ANNOTATION), annotation(MODE_ANNOTATION))
        && hints != mode
    {
        let text = format!("must match annotations[{HINTS_ANNOTATION}] when both are specified");
        causes.push(Cause::invalid(
            format!("metadata.annotations[{MODE_ANNOTATION}]"),
            &json!(mode),
            text,
        ));
    }
    if spec.load_balancer_source_ranges.is_none()
        && let Some(ranges) = annotation(SOURCE_RANGES_ANNOTATION)
    {
        let field = format!("metadata.annotations[{SOURCE_RANGES_ANNOTATION}]");
        if service_type(spec) != "LoadBalancer" {
            causes.push(Cause::forbidden(
                &field,
                "may only be used when `type` is 'LoadBalancer'",
            ));
        }
        let ranges = ranges.trim();
        for text in ranges.split(',').filter(|_| !ranges.is_empty()) {
            if let Err(wrong) = syntax::cidr(text.trim()) {
                causes.push(Cause::invalid(&field, &json!(text), wrong));
            }
        }
    }
}

fn load_balancer_fields(spec: &ServiceSpec, causes: &mut Vec<Cause>) {
    let only = "may only be used when `type` is 'LoadBalancer'";
    if service_type(spec) == "LoadBalancer" {
        if let Some(class) = &spec.load_balancer_class {
            for text in syntax::qualified_name(class) {
                causes.push(Cause::invalid(
                    "spec.loadBalancerClass",
                    &json!(class),
                    text,
                ));
            }
        }
        return;
    }
    if spec.allocate_load_balancer_node_ports.is_some() {
        causes.push(Cause::forbidden("spec.allocateLoadBalancerNodePorts", only));
    }
    if spec.load_balancer_class.is_some() {
        causes.push(Cause::forbidden("spec.loadBalancerClass", only));
    }
}

fn traffic_policies(spec: &ServiceSpec, causes: &mut Vec<Cause>) {
    let policies = ["Cluster", "Local"];
    let external = spec.external_traffic_policy.as_deref();
    if externally_accessible(spec) {
        one_of(external, "spec.externalTrafficPolicy", &policies, causes);
    } else if external.is_some() {
        let text = "may only be set for externally-accessible services";
        causes.push(Cause::invalid(
            "spec.externalTrafficPolicy",
            &json!(external),
            text,
        ));
    }
    let internal = spec.internal_traffic_policy.as_deref();
    one_of(internal, "spec.internalTrafficPolicy", &policies, causes);
    if !needs_health_check(spec)
        && let Some(port) = spec.health_check_node_port
    {
        let text =
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        causes.push(Cause::invalid(
            "spec.healthCheckNodePort",
            &json!(port),
            text,
        ));
    }
}

/// Checks a field whose values are names. A field that must be there has its default by now.
fn one_of(value: Option<&str>, field: &str, names: &[&str], causes: &mut Vec<Cause>) {
    if let Some(value) = value
        && !names.contains(&value)
    {
        causes.push(Cause::not_supported(field, &json!(value), names));
    }
}
