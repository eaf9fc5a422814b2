//! ServiceCIDRs (KEP-1880): validation, and the range they add to the ClusterIP allocators.

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{AdmitContext, Cause, Family, Op, ServiceAllocators, syntax};

/// See [`super::admit`].
pub(super) fn admit(
    ctx: &mut AdmitContext<'_>,
    op: Op,
    old: Option<&Value>,
    new: &mut Value,
) -> Result<(), Vec<Cause>> {
    if op == Op::UpdateStatus {
        return Ok(());
    }
    let cidrs = parse(new)?;
    if let Some(old) = old {
        unchanged(old, new)?;
    }
    for cidr in cidrs {
        ctx.allocators.add_cidr(cidr);
    }
    if new["status"]["conditions"].is_null() {
        // What the ServiceCIDR controller writes once it has seen the object.
        new["status"] = json!({ "conditions": [{
            "type": "Ready",
            "status": "True",
            "reason": "",
            "message": "Kubernetes Service CIDR is ready",
            "lastTransitionTime": ctx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }]});
    }
    Ok(())
}

/// Takes the range of a deleted ServiceCIDR away from the allocators.
pub(super) fn released(allocators: &mut ServiceAllocators, old: &Value) {
    for cidr in parse(old).unwrap_or_default() {
        allocators.remove_cidr(cidr);
    }
}

fn parse(object: &Value) -> Result<Vec<IpNet>, Vec<Cause>> {
    let value = &object["spec"]["cidrs"];
    let list = match value {
        Value::Array(list) if !list.is_empty() => list,
        Value::Array(_) | Value::Null => {
            return Err(vec![Cause::required(
                "spec.cidrs",
                "at least one CIDR required",
            )]);
        }
        other => {
            return Err(vec![Cause::wrong_type(
                "spec.cidrs",
                other,
                "must be a list of strings",
            )]);
        }
    };
    if list.len() > 2 {
        return Err(vec![Cause::invalid(
            "spec.cidrs",
            value,
            "may only hold up to 2 values",
        )]);
    }
    let mut cidrs = Vec::new();
    let mut causes = Vec::new();
    for (i, text) in list.iter().enumerate() {
        let field = format!("spec.cidrs[{i}]");
        match syntax::cidr(text.as_str().unwrap_or_default()) {
            Ok(cidr) if text.as_str() == Some(cidr.to_string().as_str()) => cidrs.push(cidr),
            Ok(cidr) => {
                causes.push(Cause::invalid(
                    field,
                    text,
                    format!("must be in canonical form (\"{cidr}\")"),
                ));
            }
            Err(wrong) => causes.push(Cause::invalid(field, text, wrong)),
        }
    }
    if let [first, second] = cidrs.as_slice()
        && Family::of(first.addr()) == Family::of(second.addr())
    {
        let text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        causes.push(Cause::invalid("spec.cidrs", value, text));
    }
    if causes.is_empty() {
        Ok(cidrs)
    } else {
        Err(causes)
    }
}

/// A second CIDR may be added; nothing else may change.
fn unchanged(old: &Value, new: &Value) -> Result<(), Vec<Cause>> {
    let list = |object: &Value| {
        object["spec"]["cidrs"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let (old, new) = (list(old), list(new));
    if new.starts_with(&old) && (new.len() == old.len() || old.len() == 1) {
        return Ok(());
    }
    Err(vec![Cause::invalid(
        "spec.cidrs",
        &json!(new),
        "field is immutable",
    )])
}
