//! EndpointSlices: port defaults and validation (`pkg/apis/discovery/validation`).

use std::collections::HashSet;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointPort};
use serde::Deserialize;
use serde_json::{Value, json};

use super::json::objects_mut;
use super::{Cause, Family, syntax};

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_HINTS: usize = 8;

/// See [`super::admit`].
pub(super) fn admit(old: Option<&Value>, new: &mut Value) -> Result<(), Vec<Cause>> {
    for list in ["endpoints", "ports"] {
        // The real server stores both lists in a form that does not tell an empty list from none, and answers `null` for either.
        if new[list].as_array().is_some_and(Vec::is_empty) || new.get(list).is_none() {
            new[list] = Value::Null;
        }
    }
    for port in objects_mut(new, "ports") {
        if port["name"].is_null() {
            port["name"] = json!("");
        }
        if port["protocol"].is_null() {
            port["protocol"] = json!("TCP");
        }
    }
    for endpoint in objects_mut(new, "endpoints") {
        // The v1 API accepts this field and does not store it.
        if let Some(endpoint) = endpoint.as_object_mut() {
            endpoint.shift_remove("deprecatedTopology");
        }
    }
    let mut causes = Vec::new();
    let address_type = address_type(old, new, &mut causes);
    match Option::<Vec<EndpointPort>>::deserialize(&new["ports"]) {
        Ok(ports) => validate_ports(&ports.unwrap_or_default(), &mut causes),
        Err(error) => causes.push(Cause::malformed("ports", error)),
    }
    match Option::<Vec<Endpoint>>::deserialize(&new["endpoints"]) {
        Ok(endpoints) => {
            validate_endpoints(&endpoints.unwrap_or_default(), &address_type, &mut causes)
        }
        Err(error) => causes.push(Cause::malformed("endpoints", error)),
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(causes)
    }
}

fn address_type(old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) -> String {
    let value = &new["addressType"];
    match value.as_str() {
        None | Some("") => causes.push(Cause::required("addressType", "")),
        Some("IPv4" | "IPv6" | "FQDN") => {
            if old.is_some_and(|old| &old["addressType"] != value) {
                causes.push(Cause::invalid("addressType", value, "field is immutable"));
            }
        }
        Some(_) => causes.push(Cause::not_supported(
            "addressType",
            value,
            &["FQDN", "IPv4", "IPv6"],
        )),
    }
    value.as_str().unwrap_or_default().to_owned()
}

fn validate_ports(ports: &[EndpointPort], causes: &mut Vec<Cause>) {
    if ports.len() > MAX_PORTS {
        causes.push(Cause::too_many("ports", ports.len(), MAX_PORTS));
        return;
    }
    let mut names = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            for text in syntax::dns_label(name) {
                causes.push(Cause::invalid(
                    format!("ports[{i}].name"),
                    &json!(name),
                    text,
                ));
            }
        }
        if !names.insert(name) {
            causes.push(Cause::duplicate(format!("ports[{i}].name"), &json!(name)));
        }
        if let Some(protocol) = port.protocol.as_deref()
            && !["TCP", "UDP", "SCTP"].contains(&protocol)
        {
            let field = format!("ports[{i}].protocol");
            causes.push(Cause::not_supported(
                field,
                &json!(protocol),
                &["SCTP", "TCP", "UDP"],
            ));
        }
        if let Some(protocol) = &port.app_protocol {
            for text in syntax::qualified_name(protocol) {
                causes.push(Cause::invalid(
                    format!("ports[{i}].appProtocol"),
                    &json!(protocol),
                    text,
                ));
            }
        }
    }
}

fn validate_endpoints(endpoints: &[Endpoint], address_type: &str, causes: &mut Vec<Cause>) {
    if endpoints.len() > MAX_ENDPOINTS {
        causes.push(Cause::too_many("endpoints", endpoints.len(), MAX_ENDPOINTS));
        return;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let field = format!("endpoints[{i}].addresses");
        if endpoint.addresses.is_empty() {
            causes.push(Cause::required(&field, "must contain at least 1 address"));
        } else if endpoint.addresses.len() > MAX_ADDRESSES {
            causes.push(Cause::too_many(
                &field,
                endpoint.addresses.len(),
                MAX_ADDRESSES,
            ));
        }
        for (j, address) in endpoint.addresses.iter().enumerate() {
            for text in validate_address(address, address_type) {
                causes.push(Cause::invalid(
                    format!("{field}[{j}]"),
                    &json!(address),
                    text,
                ));
            }
        }
        if let Some(node) = &endpoint.node_name {
            for text in syntax::dns_subdomain(node) {
                causes.push(Cause::invalid(
                    format!("endpoints[{i}].nodeName"),
                    &json!(node),
                    text,
                ));
            }
        }
        if let Some(hostname) = &endpoint.hostname {
            for text in syntax::dns_label(hostname) {
                causes.push(Cause::invalid(
                    format!("endpoints[{i}].hostname"),
                    &json!(hostname),
                    text,
                ));
            }
        }
        if let Some(hints) = &endpoint.hints {
            validate_hints(hints, &format!("endpoints[{i}].hints"), causes);
        }
    }
}

fn validate_address(address: &str, address_type: &str) -> Vec<String> {
    let (family, parsed) = match address_type {
        // IPv4 addresses were once read sloppily and IPv6 ones never: only the latter must be in canonical form.
        "IPv4" => (Family::V4, syntax::ip(address)),
        "IPv6" => (Family::V6, syntax::canonical_ip(address)),
        "FQDN" => return syntax::domain_name(address),
        _ => return Vec::new(),
    };
    match parsed {
        Ok(address) => {
            let mut errors = syntax::endpoint_ip(address);
            if Family::of(address) != family {
                errors.insert(0, format!("must be an {} address", family.name()));
            }
            errors
        }
        Err(text) => vec![text],
    }
}

fn validate_hints(hints: &EndpointHints, field: &str, causes: &mut Vec<Cause>) {
    let zones = hints
        .for_zones
        .iter()
        .flatten()
        .map(|zone| zone.name.as_str());
    check_hints(
        zones,
        &format!("{field}.forZones"),
        syntax::label_value,
        causes,
    );
    let nodes = hints
        .for_nodes
        .iter()
        .flatten()
        .map(|node| node.name.as_str());
    check_hints(
        nodes,
        &format!("{field}.forNodes"),
        syntax::dns_subdomain,
        causes,
    );
}

fn check_hints<'a>(
    names: impl Iterator<Item = &'a str>,
    field: &str,
    rule: fn(&str) -> Vec<String>,
    causes: &mut Vec<Cause>,
) {
    let names: Vec<&str> = names.collect();
    if names.len() > MAX_HINTS {
        causes.push(Cause::too_many(field, names.len(), MAX_HINTS));
        return;
    }
    let mut seen = HashSet::new();
    for (i, name) in names.into_iter().enumerate() {
        let field = format!("{field}[{i}].name");
        if !seen.insert(name) {
            causes.push(Cause::duplicate(&field, &json!(name)));
        }
        for text in rule(name) {
            causes.push(Cause::invalid(&field, &json!(name), text));
        }
    }
}
