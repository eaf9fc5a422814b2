//! Nodes: `podCIDR` and `podCIDRs` in step, and checked (`ValidateNode`, `ValidateNodeUpdate`).

use serde_json::{Value, json};

use super::{Cause, Family, syntax};

/// See [`super::admit`].
pub(super) fn admit(old: Option<&Value>, new: &mut Value) -> Result<(), Vec<Cause>> {
    if !new["spec"].is_object() {
        new["spec"] = json!({});
    }
    let single = new["spec"]["podCIDR"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let first = new["spec"]["podCIDRs"][0].clone();
    if single.is_empty() && first.is_string() {
        new["spec"]["podCIDR"] = first;
    } else if !single.is_empty() && first.is_null() {
        new["spec"]["podCIDRs"] = json!([single]);
    }
    let mut causes = Vec::new();
    pod_cidrs(new, &mut causes);
    if let Some(old) = old {
        let stored = old["spec"]["podCIDRs"]
            .as_array()
            .filter(|list| !list.is_empty());
        if stored.is_some_and(|list| Some(list) != new["spec"]["podCIDRs"].as_array()) {
            let text = "node updates may not change podCIDR except from \"\" to valid";
            causes.push(Cause::forbidden("spec.podCIDRs", text));
        }
    }
    addresses(new, &mut causes);
    if causes.is_empty() {
        Ok(())
    } else {
        Err(causes)
    }
}

fn pod_cidrs(node: &Value, causes: &mut Vec<Cause>) {
    let list = match &node["spec"]["podCIDRs"] {
        Value::Null => return,
        Value::Array(list) => list,
        other => {
            causes.push(Cause::wrong_type(
                "spec.podCIDRs",
                other,
                "must be a list of strings",
            ));
            return;
        }
    };
    let mut families = Vec::new();
    for (i, value) in list.iter().enumerate() {
        match syntax::cidr(value.as_str().unwrap_or_default()) {
            Ok(cidr) => families.push(Family::of(cidr.addr())),
            Err(text) => causes.push(Cause::invalid(format!("spec.podCIDRs[{i}]"), value, text)),
        }
    }
    if list.len() > 2 || matches!(families.as_slice(), [first, second] if first == second) {
        let text = "may specify no more than one CIDR for each IP family";
        causes.push(Cause::invalid(
            "spec.podCIDRs",
            &node["spec"]["podCIDRs"],
            text,
        ));
    }
    if node["spec"]["podCIDR"].as_str() != list.first().and_then(Value::as_str) {
        let text = "must be the first of `podCIDRs`";
        causes.push(Cause::invalid(
            "spec.podCIDR",
            &node["spec"]["podCIDR"],
            text,
        ));
    }
}

fn addresses(node: &Value, causes: &mut Vec<Cause>) {
    let list = match &node["status"]["addresses"] {
        Value::Null => return,
        Value::Array(list) => list,
        other => {
            causes.push(Cause::wrong_type(
                "status.addresses",
                other,
                "must be a list",
            ));
            return;
        }
    };
    for (i, address) in list.iter().enumerate() {
        if list[..i].contains(address) {
            causes.push(Cause::duplicate(format!("status.addresses[{i}]"), address));
        }
    }
}
