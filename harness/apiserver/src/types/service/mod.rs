//! Services: defaults, what an update inherits, families, ClusterIPs, NodePorts, validation.
//!
//! The steps and their order are those of the real server, because what a client gets for an odd input depends on them:
//!
//! ```text
//!  create: defaults -> clusterIP = clusterIPs[0] -> families -> ClusterIPs -> NodePorts ------------------> validate
//!  update: defaults -> inherit -> clusterIP = clusterIPs[0] -> families -> ClusterIPs -> NodePorts -> drop -> validate
//! ```
//!
//! Sources: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation/validation.go`, `pkg/registry/core/service`.

mod carry;
mod defaults;
mod families;
mod ports;
mod status;
mod transaction;
mod validate;

use std::net::IpAddr;

use k8s_openapi::api::core::v1::ServiceSpec;
use serde::Deserialize;
use serde_json::{Value, json};

use self::transaction::Transaction;
use super::{AdmitContext, Cause, Op, ServiceAllocators};

/// `spec.clusterIP` of a headless Service.
const NONE: &str = "None";

/// See [`super::admit`].
pub(super) fn admit(
    ctx: &mut AdmitContext<'_>,
    op: Op,
    old: Option<&Value>,
    new: &mut Value,
) -> Result<(), Vec<Cause>> {
    let old_spec = old.map(parse_spec).transpose()?;
    match (op, &old_spec) {
        (Op::UpdateStatus, Some(spec)) => {
            status::default_ip_mode(service_type(spec), new);
            status::validate(service_type(spec), new)
        }
        (Op::Update, Some(old_spec)) => update(ctx.allocators, old_spec, new),
        _ => create(ctx.allocators, new),
    }
}

/// Gives back what a deleted Service held.
pub(super) fn released(allocators: &mut ServiceAllocators, old: &Value) {
    let Ok(spec) = parse_spec(old) else { return };
    for address in families::held_addresses(&spec) {
        allocators.release_cluster_ip(address);
    }
    for port in ports::held_ports(&spec) {
        allocators.release_node_port(port);
    }
}

fn create(allocators: &mut ServiceAllocators, new: &mut Value) -> Result<(), Vec<Cause>> {
    let mut spec = parse_spec(new)?;
    defaults::apply(&mut spec);
    carry::sync_cluster_ips(&mut spec, None);
    families::init(allocators, &mut spec, None)?;
    let mut transaction = Transaction::new(allocators);
    families::allocate_all(&mut transaction, &mut spec)?;
    ports::allocate(&mut transaction, &mut spec)?;
    status::default_ip_mode(service_type(&spec), new);
    let mut causes = validate::service(&spec, None, new);
    if let Err(more) = status::validate(service_type(&spec), new) {
        causes.extend(more);
    }
    refuse_if(causes)?;
    transaction.commit();
    store(new, &spec);
    Ok(())
}

fn update(
    allocators: &mut ServiceAllocators,
    old: &ServiceSpec,
    new: &mut Value,
) -> Result<(), Vec<Cause>> {
    let mut spec = parse_spec(new)?;
    defaults::apply(&mut spec);
    carry::inherit_allocated(&mut spec, old);
    carry::sync_cluster_ips(&mut spec, Some(old));
    families::init(allocators, &mut spec, Some(old))?;
    let mut transaction = Transaction::new(allocators);
    families::update(&mut transaction, &mut spec, old)?;
    ports::update(&mut transaction, &mut spec, old)?;
    carry::drop_dependent_fields(&mut spec, old);
    if service_type(&spec) != "LoadBalancer"
        && let Some(status) = new.get_mut("status").and_then(Value::as_object_mut)
    {
        status.insert("loadBalancer".to_owned(), json!({}));
    }
    let mut causes = validate::update(&spec, old);
    causes.extend(validate::service(&spec, Some(old), new));
    refuse_if(causes)?;
    transaction.commit();
    store(new, &spec);
    Ok(())
}

fn refuse_if(causes: Vec<Cause>) -> Result<(), Vec<Cause>> {
    if causes.is_empty() {
        Ok(())
    } else {
        Err(causes)
    }
}

/// Writes the completed spec back and gives the object the status every Service has.
fn store(new: &mut Value, spec: &ServiceSpec) {
    new["spec"] = json!(spec);
    if !new["status"].is_object() {
        new["status"] = json!({});
    }
    if !new["status"]["loadBalancer"].is_object() {
        new["status"]["loadBalancer"] = json!({});
    }
}

/// Reads `spec`. What Go's zero values mean is made explicit: an empty string, list or map and the port 0 are absent.
fn parse_spec(service: &Value) -> Result<ServiceSpec, Vec<Cause>> {
    let mut spec = match &service["spec"] {
        Value::Null => ServiceSpec::default(),
        value => ServiceSpec::deserialize(value)
            .map_err(|error| vec![Cause::malformed("spec", error)])?,
    };
    let texts = [
        &mut spec.cluster_ip,
        &mut spec.external_name,
        &mut spec.external_traffic_policy,
        &mut spec.load_balancer_ip,
        &mut spec.session_affinity,
        &mut spec.type_,
    ];
    for text in texts {
        text.take_if(|text| text.is_empty());
    }
    let lists = [
        &mut spec.cluster_ips,
        &mut spec.external_ips,
        &mut spec.ip_families,
        &mut spec.load_balancer_source_ranges,
    ];
    for list in lists {
        list.take_if(|list| list.is_empty());
    }
    spec.ports.take_if(|ports| ports.is_empty());
    spec.selector.take_if(|selector| selector.is_empty());
    spec.health_check_node_port.take_if(|port| *port == 0);
    spec.publish_not_ready_addresses
        .take_if(|publish| !*publish);
    for port in spec.ports.iter_mut().flatten() {
        port.name.take_if(|name| name.is_empty());
        port.protocol.take_if(|protocol| protocol.is_empty());
        port.node_port.take_if(|port| *port == 0);
    }
    Ok(spec)
}

fn service_type(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or("ClusterIP")
}

fn cluster_ips(spec: &ServiceSpec) -> &[String] {
    spec.cluster_ips.as_deref().unwrap_or_default()
}

fn ip_families(spec: &ServiceSpec) -> &[String] {
    spec.ip_families.as_deref().unwrap_or_default()
}

/// Whether `spec.clusterIPs` is `["None"]`.
fn is_headless(spec: &ServiceSpec) -> bool {
    cluster_ips(spec) == [NONE]
}

/// Whether `spec.clusterIP` is `None`, which the allocation code of the real server looks at.
fn says_none(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some(NONE)
}

fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    service_type(spec) != "ExternalName"
}

fn uses_node_ports(spec: &ServiceSpec) -> bool {
    matches!(service_type(spec), "NodePort" | "LoadBalancer")
}

/// Whether clients outside of the cluster can reach it, so that `externalTrafficPolicy` means something.
fn externally_accessible(spec: &ServiceSpec) -> bool {
    uses_node_ports(spec) || (service_type(spec) == "ClusterIP" && spec.external_ips.is_some())
}

/// Whether it has a `healthCheckNodePort`.
fn needs_health_check(spec: &ServiceSpec) -> bool {
    service_type(spec) == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// The address as a number, so that two spellings of one address count as one.
fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}
