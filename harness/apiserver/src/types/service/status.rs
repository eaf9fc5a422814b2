//! `status.loadBalancer`: what a cloud's controller, or a scenario in its place, writes.

use serde_json::{Value, json};

use super::super::{Cause, syntax};

/// An ingress address is a virtual IP when nobody says otherwise (KEP-1860).
pub(super) fn default_ip_mode(service_type: &str, service: &mut Value) {
    if service_type != "LoadBalancer" {
        return;
    }
    let Some(list) = service
        .pointer_mut("/status/loadBalancer/ingress")
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    for ingress in list {
        let has_address = ingress["ip"].as_str().is_some_and(|ip| !ip.is_empty());
        if has_address && ingress["ipMode"].is_null() {
            ingress["ipMode"] = json!("VIP");
        }
    }
}

/// Checks the ingress points.
pub(super) fn validate(service_type: &str, service: &Value) -> Result<(), Vec<Cause>> {
    let field = "status.loadBalancer.ingress";
    let list = match service.pointer("/status/loadBalancer/ingress") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(vec![Cause::wrong_type(field, other, "must be a list")]),
    };
    if list.is_empty() {
        return Ok(());
    }
    if service_type != "LoadBalancer" {
        return Err(vec![Cause::forbidden(
            field,
            "may only be used when `spec.type` is 'LoadBalancer'",
        )]);
    }
    let mut causes = Vec::new();
    for (i, ingress) in list.iter().enumerate() {
        let field = format!("{field}[{i}]");
        if !ingress.is_object() {
            causes.push(Cause::wrong_type(field, ingress, "must be an object"));
            continue;
        }
        let text = |key: &str| ingress[key].as_str().filter(|text| !text.is_empty());
        for key in ["ip", "ipMode", "hostname"] {
            if !ingress[key].is_null() && !ingress[key].is_string() {
                causes.push(Cause::wrong_type(
                    format!("{field}.{key}"),
                    &ingress[key],
                    "must be a string",
                ));
            }
        }
        if let Some(address) = text("ip")
            && let Err(wrong) = syntax::ip(address)
        {
            causes.push(Cause::invalid(format!("{field}.ip"), &ingress["ip"], wrong));
        }
        match (text("ip"), text("ipMode")) {
            (Some(_), None) => {
                causes.push(Cause::required(
                    format!("{field}.ipMode"),
                    "must be specified when `ip` is set",
                ));
            }
            (None, Some(_)) => {
                causes.push(Cause::forbidden(
                    format!("{field}.ipMode"),
                    "may not be specified when `ip` is not set",
                ));
            }
            (Some(_), Some(mode)) if mode != "VIP" && mode != "Proxy" => {
                let field = format!("{field}.ipMode");
                causes.push(Cause::not_supported(
                    field,
                    &ingress["ipMode"],
                    &["Proxy", "VIP"],
                ));
            }
            _ => {}
        }
        if let Some(hostname) = text("hostname") {
            let field = format!("{field}.hostname");
            for wrong in syntax::dns_subdomain(hostname) {
                causes.push(Cause::invalid(&field, &ingress["hostname"], wrong));
            }
            if syntax::ip(hostname).is_ok() {
                let wrong = "must be a DNS name, not an IP address";
                causes.push(Cause::invalid(&field, &ingress["hostname"], wrong));
            }
        }
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(causes)
    }
}
