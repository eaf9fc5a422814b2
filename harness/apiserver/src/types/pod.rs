//! Pods: the defaults that `kubectl` shows and the addresses that endpoints come from.
//!
//! There is no kubelet: whoever writes a Pod writes its status too. A Pod without a phase is `Pending`.

use serde_json::{Value, json};

use super::json::objects_mut;
use super::{Cause, Family, syntax};

/// See [`super::admit`].
pub(super) fn admit(new: &mut Value) -> Result<(), Vec<Cause>> {
    for field in ["spec", "status"] {
        if !new[field].is_object() {
            new[field] = json!({});
        }
    }
    default_spec(&mut new["spec"]);
    let status = &mut new["status"];
    default(status, "phase", json!("Pending"));
    default(status, "qosClass", json!("BestEffort"));
    sync_addresses(status);
    let mut causes = Vec::new();
    addresses(status, &mut causes);
    container_ports(&new["spec"], &mut causes);
    if causes.is_empty() {
        Ok(())
    } else {
        Err(causes)
    }
}

fn default(object: &mut Value, field: &str, value: Value) {
    if object[field].is_null() {
        object[field] = value;
    }
}

fn default_spec(spec: &mut Value) {
    default(spec, "dnsPolicy", json!("ClusterFirst"));
    default(spec, "restartPolicy", json!("Always"));
    default(spec, "schedulerName", json!("default-scheduler"));
    default(spec, "securityContext", json!({}));
    default(spec, "terminationGracePeriodSeconds", json!(30));
    default(spec, "enableServiceLinks", json!(true));
    let host_network = spec["hostNetwork"] == json!(true);
    for list in ["containers", "initContainers"] {
        for container in objects_mut(spec, list) {
            let image = container["image"].as_str().unwrap_or_default();
            // A tag is what follows the last colon of the last path segment.
            let tag = image
                .rsplit('/')
                .next()
                .and_then(|name| name.split_once(':'))
                .map(|(_, tag)| tag);
            let latest = !image.contains('@') && matches!(tag, None | Some("latest"));
            default(
                container,
                "imagePullPolicy",
                json!(if latest { "Always" } else { "IfNotPresent" }),
            );
            default(container, "resources", json!({}));
            default(
                container,
                "terminationMessagePath",
                json!("/dev/termination-log"),
            );
            default(container, "terminationMessagePolicy", json!("File"));
            for port in objects_mut(container, "ports") {
                default(port, "protocol", json!("TCP"));
                if host_network && port["hostPort"].is_null() {
                    port["hostPort"] = port["containerPort"].clone();
                }
            }
        }
    }
}

/// `podIP` is the first of `podIPs`, whichever of the two was given.
fn sync_addresses(status: &mut Value) {
    let single = status["podIP"].as_str().unwrap_or_default().to_owned();
    let first = status["podIPs"][0]["ip"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if first.is_empty() && !single.is_empty() {
        status["podIPs"] = json!([{ "ip": single }]);
    } else if !first.is_empty() && single != first {
        status["podIP"] = json!(first);
    }
}

fn addresses(status: &Value, causes: &mut Vec<Cause>) {
    let list = match &status["podIPs"] {
        Value::Null => return,
        Value::Array(list) => list,
        other => {
            causes.push(Cause::wrong_type("status.podIPs", other, "must be a list"));
            return;
        }
    };
    let mut families = Vec::new();
    for (i, entry) in list.iter().enumerate() {
        match syntax::ip(entry["ip"].as_str().unwrap_or_default()) {
            Ok(address) => families.push(Family::of(address)),
            Err(text) => causes.push(Cause::invalid(
                format!("status.podIPs[{i}]"),
                &entry["ip"],
                text,
            )),
        }
    }
    if list.len() > 2 || matches!(families.as_slice(), [first, second] if first == second) {
        let text = "may specify no more than one IP for each IP family";
        causes.push(Cause::invalid("status.podIPs", &status["podIPs"], text));
    }
}

fn container_ports(spec: &Value, causes: &mut Vec<Cause>) {
    for list in ["containers", "initContainers"] {
        for (i, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            for (j, port) in container["ports"]
                .as_array()
                .into_iter()
                .flatten()
                .enumerate()
            {
                let field = format!("spec.{list}[{i}].ports[{j}]");
                let number = port["containerPort"]
                    .as_i64()
                    .and_then(|port| i32::try_from(port).ok())
                    .unwrap_or(0);
                for text in syntax::port_number(number) {
                    causes.push(Cause::invalid(
                        format!("{field}.containerPort"),
                        &port["containerPort"],
                        text,
                    ));
                }
                if let Some(name) = port["name"].as_str() {
                    for text in syntax::port_name(name) {
                        causes.push(Cause::invalid(format!("{field}.name"), &port["name"], text));
                    }
                }
                if !matches!(port["protocol"].as_str(), Some("TCP" | "UDP" | "SCTP")) {
                    let names = ["SCTP", "TCP", "UDP"];
                    causes.push(Cause::not_supported(
                        format!("{field}.protocol"),
                        &port["protocol"],
                        &names,
                    ));
                }
            }
        }
    }
}
