//! NodePorts and the healthCheckNodePort: which ones a Service takes, keeps and gives back.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::ServiceSpec;
use serde_json::json;

use super::super::{AllocationError, Cause};
use super::transaction::Transaction;
use super::{needs_health_check, service_type, uses_node_ports};

/// Takes the ports of a new Service.
pub(super) fn allocate(
    transaction: &mut Transaction<'_>,
    spec: &mut ServiceSpec,
) -> Result<(), Vec<Cause>> {
    if uses_node_ports(spec) {
        // Ports with one number and different protocols, such as DNS, share a NodePort.
        let requested = requested_by_port(spec);
        let automatic = allocates(spec);
        let mut by_port: HashMap<i32, i32> = HashMap::new();
        for (i, port) in spec.ports.iter_mut().flatten().enumerate() {
            if port.node_port.is_none() && !automatic {
                continue;
            }
            match by_port.get(&port.port) {
                None => {
                    let wanted = requested.get(&port.port).copied();
                    let taken = take(transaction, i, wanted)?;
                    // The wanted number may be that of a later port with the same number, which this one then shares.
                    port.node_port = Some(taken);
                    by_port.insert(port.port, taken);
                }
                Some(shared) if port.node_port.is_none() => port.node_port = Some(*shared),
                Some(shared) if port.node_port == Some(*shared) => {}
                Some(_) => {
                    take(transaction, i, port.node_port)?;
                }
            }
        }
    }
    if needs_health_check(spec) {
        take_health_check(transaction, spec)?;
    }
    Ok(())
}

/// Takes, keeps and gives up ports for a Service that changes.
pub(super) fn update(
    transaction: &mut Transaction<'_>,
    spec: &mut ServiceSpec,
    old: &ServiceSpec,
) -> Result<(), Vec<Cause>> {
    let held = numbers(old);
    if uses_node_ports(old) && !uses_node_ports(spec) {
        for port in &held {
            give_up(transaction, *port);
        }
    }
    if uses_node_ports(spec) {
        let automatic = allocates(spec);
        let mut taken: HashSet<i32> = HashSet::new();
        for (i, port) in spec.ports.iter_mut().flatten().enumerate() {
            match port.node_port {
                None if !automatic => {}
                None => port.node_port = Some(take(transaction, i, None)?),
                Some(wanted) if held.contains(&wanted) || taken.contains(&wanted) => {}
                Some(wanted) => {
                    take(transaction, i, Some(wanted))?;
                    taken.insert(wanted);
                }
            }
        }
        for port in held.difference(&numbers(spec)) {
            give_up(transaction, *port);
        }
    }
    match (needs_health_check(old), needs_health_check(spec)) {
        (false, true) => take_health_check(transaction, spec)?,
        (true, false) => {
            if let Some(port) = old.health_check_node_port {
                give_up(transaction, port);
            }
        }
        _ => {}
    }
    Ok(())
}

/// The port numbers a Service holds.
pub(super) fn held_ports(spec: &ServiceSpec) -> Vec<u16> {
    let mut held = numbers(spec);
    if needs_health_check(spec) {
        held.extend(spec.health_check_node_port);
    }
    held.into_iter()
        .filter_map(|port| u16::try_from(port).ok())
        .collect()
}

/// Whether ports that ask for no NodePort get one.
fn allocates(spec: &ServiceSpec) -> bool {
    match service_type(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn numbers(spec: &ServiceSpec) -> HashSet<i32> {
    spec.ports
        .iter()
        .flatten()
        .filter_map(|port| port.node_port)
        .collect()
}

/// The first NodePort that is asked for, by port number.
fn requested_by_port(spec: &ServiceSpec) -> HashMap<i32, i32> {
    let mut requested = HashMap::new();
    for port in spec.ports.iter().flatten() {
        if let Some(node_port) = port.node_port {
            requested.entry(port.port).or_insert(node_port);
        }
    }
    requested
}

fn take(
    transaction: &mut Transaction<'_>,
    i: usize,
    wanted: Option<i32>,
) -> Result<i32, Vec<Cause>> {
    let field = format!("spec.ports[{i}].nodePort");
    // A number that is no port at all is outside of every range too.
    let number = wanted.map(|port| u16::try_from(port).unwrap_or(0));
    match transaction.take_port(number) {
        Ok(port) => Ok(i32::from(port)),
        Err(AllocationError::Full) => Err(vec![Cause::internal(
            field,
            "failed to allocate a nodePort: range is full",
        )]),
        Err(error) => Err(vec![Cause::invalid(
            field,
            &json!(wanted),
            error.to_string(),
        )]),
    }
}

fn give_up(transaction: &mut Transaction<'_>, port: i32) {
    if let Ok(port) = u16::try_from(port) {
        transaction.give_up_port(port);
    }
}

fn take_health_check(
    transaction: &mut Transaction<'_>,
    spec: &mut ServiceSpec,
) -> Result<(), Vec<Cause>> {
    let wanted = spec.health_check_node_port;
    let number = wanted.map(|port| u16::try_from(port).unwrap_or(0));
    let port = transaction.take_port(number).map_err(|error| {
        let what = wanted.map_or("a".to_owned(), |port| format!("requested {port}"));
        let text = format!("failed to allocate {what} HealthCheck NodePort: {error}");
        vec![Cause::internal("spec.healthCheckNodePort", text)]
    })?;
    spec.health_check_node_port = Some(i32::from(port));
    Ok(())
}
