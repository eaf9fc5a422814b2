//! Tables: what `kubectl get` prints.

use serde_json::{Value, json};

use super::view::metadata_only;
use crate::registry::ResourceType;

/// A column: its name, whether only `-o wide` shows it, and its cell.
struct Column {
    name: &'static str,
    wide: bool,
    cell: fn(&Value) -> Value,
}

const fn column(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column {
        name,
        wide: false,
        cell,
    }
}

const fn wide(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column {
        name,
        wide: true,
        cell,
    }
}

/// The table of these objects.
pub(super) fn render(
    resource: &ResourceType,
    include: &str,
    objects: &[Value],
    metadata: Value,
) -> Value {
    let columns = columns(resource);
    let definitions: Vec<Value> = columns
        .iter()
        .map(|c| {
            json!({
                "name": c.name,
                "type": "string",
                "format": if c.name == "Name" { "name" } else { "" },
                "description": "",
                "priority": i32::from(c.wide),
            })
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|c| (c.cell)(object)).collect();
            let mut row = json!({"cells": cells});
            match include {
                "None" => {}
                "Object" => row["object"] = object.clone(),
                _ => row["object"] = metadata_only(object),
            }
            row
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

fn columns(resource: &ResourceType) -> Vec<Column> {
    let name = column("Name", |o| o["metadata"]["name"].clone());
    let age = column("Age", |o| age_of(&o["metadata"]["creationTimestamp"]));
    let mut columns = match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Service") => vec![
            column("Type", |o| o["spec"]["type"].clone()),
            column("Cluster-IP", |o| or_none(text(o, "/spec/clusterIP"))),
            column("External-IP", external_ips),
            column("Port(s)", service_ports),
            age,
            wide("Selector", |o| or_none(pairs(&o["spec"]["selector"]))),
        ],
        ("", "Pod") => vec![
            column("Ready", pod_ready),
            column("Status", pod_status),
            column("Restarts", |o| {
                json!(
                    array(o, "/status/containerStatuses")
                        .iter()
                        .filter_map(|c| c["restartCount"].as_u64())
                        .sum::<u64>()
                )
            }),
            age,
            wide("IP", |o| or_none(text(o, "/status/podIP"))),
            wide("Node", |o| or_none(text(o, "/spec/nodeName"))),
            wide("Nominated Node", |o| {
                or_none(text(o, "/status/nominatedNodeName"))
            }),
            wide("Readiness Gates", |_| json!("<none>")),
        ],
        ("", "Node") => vec![
            column("Status", node_status),
            column("Roles", |_| json!("<none>")),
            age,
            column("Version", |o| {
                json!(text(o, "/status/nodeInfo/kubeletVersion"))
            }),
            wide("Internal-IP", |o| or_none(addresses(o, "InternalIP"))),
            wide("External-IP", |o| or_none(addresses(o, "ExternalIP"))),
        ],
        ("", "Namespace") => vec![column("Status", |o| o["status"]["phase"].clone()), age],
        ("discovery.k8s.io", "EndpointSlice") => vec![
            column("AddressType", |o| o["addressType"].clone()),
            column("Ports", |o| {
                let ports = array(o, "/ports").iter().map(|p| scalar(&p["port"]));
                or("<unset>", joined(ports, 3))
            }),
            column("Endpoints", |o| {
                let addresses = array(o, "/endpoints")
                    .iter()
                    .flat_map(|e| array(e, "/addresses"))
                    .map(scalar);
                or("<unset>", joined(addresses, 3))
            }),
            age,
        ],
        ("", "Endpoints") => vec![
            column("Endpoints", |o| {
                let subsets = array(o, "/subsets").iter().flat_map(|s| {
                    let ports = array(s, "/ports");
                    array(s, "/addresses").iter().flat_map(move |a| {
                        ports
                            .iter()
                            .map(move |p| format!("{}:{}", scalar(&a["ip"]), scalar(&p["port"])))
                    })
                });
                or_none(joined(subsets, 3))
            }),
            age,
        ],
        ("networking.k8s.io", "ServiceCIDR") => {
            vec![
                column("CIDRs", |o| {
                    json!(joined(array(o, "/spec/cidrs").iter().map(scalar), 9))
                }),
                age,
            ]
        }
        ("", "ConfigMap") => vec![
            column("Data", |o| {
                json!(o["data"].as_object().map_or(0, serde_json::Map::len))
            }),
            age,
        ],
        ("coordination.k8s.io", "Lease") => vec![
            column("Holder", |o| o["spec"]["holderIdentity"].clone()),
            age,
        ],
        ("" | "events.k8s.io", "Event") => {
            return vec![
                column("Last Seen", |o| {
                    let seen = [
                        &o["lastTimestamp"],
                        &o["deprecatedLastTimestamp"],
                        &o["eventTime"],
                    ];
                    seen.iter()
                        .find(|t| t.is_string())
                        .map_or(json!("<unknown>"), |t| age_of(t))
                }),
                column("Type", |o| o["type"].clone()),
                column("Reason", |o| o["reason"].clone()),
                column("Object", |o| {
                    let about = if o["regarding"].is_object() {
                        &o["regarding"]
                    } else {
                        &o["involvedObject"]
                    };
                    json!(format!(
                        "{}/{}",
                        scalar(&about["kind"]).to_lowercase(),
                        scalar(&about["name"])
                    ))
                }),
                column("Message", |o| {
                    if o["note"].is_string() {
                        o["note"].clone()
                    } else {
                        o["message"].clone()
                    }
                }),
                wide("Name", |o| o["metadata"]["name"].clone()),
            ];
        }
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet") => vec![
            column("Ready", |o| {
                let number = |p: &str| o.pointer(p).and_then(Value::as_u64).unwrap_or(0);
                json!(format!(
                    "{}/{}",
                    number("/status/readyReplicas"),
                    number("/spec/replicas")
                ))
            }),
            age,
        ],
        _ => vec![age],
    };
    columns.insert(0, name);
    columns
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).map(scalar).unwrap_or_default()
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn array<'v>(object: &'v Value, pointer: &str) -> &'v [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn or(nothing: &str, text: String) -> Value {
    if text.is_empty() {
        json!(nothing)
    } else {
        json!(text)
    }
}

fn or_none(text: String) -> Value {
    or("<none>", text)
}

/// At most `limit` items, comma-separated, and how many more there are.
fn joined(items: impl Iterator<Item = String>, limit: usize) -> String {
    let items: Vec<String> = items.collect();
    let shown = items[..items.len().min(limit)].join(",");
    if items.len() > limit {
        format!("{shown} + {} more...", items.len() - limit)
    } else {
        shown
    }
}

fn pairs(map: &Value) -> String {
    let pairs = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", scalar(v)));
    joined(pairs, usize::MAX)
}

fn external_ips(service: &Value) -> Value {
    let ips: Vec<String> = array(service, "/spec/externalIPs")
        .iter()
        .map(scalar)
        .collect();
    match service["spec"]["type"].as_str() {
        Some("ExternalName") => or_none(text(service, "/spec/externalName")),
        Some("LoadBalancer") => {
            let ingress = array(service, "/status/loadBalancer/ingress").iter();
            let ingress = ingress.map(|i| {
                if i["ip"].is_string() {
                    scalar(&i["ip"])
                } else {
                    scalar(&i["hostname"])
                }
            });
            or("<pending>", joined(ingress.chain(ips), usize::MAX))
        }
        _ => or_none(joined(ips.into_iter(), usize::MAX)),
    }
}

fn service_ports(service: &Value) -> Value {
    let ports = array(service, "/spec/ports").iter().map(|p| {
        let node_port = p["nodePort"]
            .as_u64()
            .filter(|&n| n > 0)
            .map(|n| format!(":{n}"))
            .unwrap_or_default();
        format!(
            "{}{node_port}/{}",
            scalar(&p["port"]),
            scalar(&p["protocol"])
        )
    });
    or_none(joined(ports, usize::MAX))
}

fn condition<'v>(object: &'v Value, kind: &str) -> Option<&'v str> {
    let found = array(object, "/status/conditions")
        .iter()
        .find(|c| c["type"] == kind)?;
    found["status"].as_str()
}

fn pod_ready(pod: &Value) -> Value {
    let total = array(pod, "/spec/containers").len();
    let statuses = array(pod, "/status/containerStatuses");
    // Without a kubelet there may be no container statuses; the Pod's own condition speaks for all of them then.
    let ready = if statuses.is_empty() && condition(pod, "Ready") == Some("True") {
        total
    } else {
        statuses.iter().filter(|s| s["ready"] == true).count()
    };
    json!(format!("{ready}/{total}"))
}

fn pod_status(pod: &Value) -> Value {
    if pod["metadata"].get("deletionTimestamp").is_some() {
        return json!("Terminating");
    }
    or("Unknown", text(pod, "/status/phase"))
}

fn node_status(node: &Value) -> Value {
    let mut words = vec![match condition(node, "Ready") {
        Some("True") => "Ready",
        Some("False") => "NotReady",
        _ => "Unknown",
    }];
    if node["spec"]["unschedulable"] == true {
        words.push("SchedulingDisabled");
    }
    json!(words.join(","))
}

fn addresses(node: &Value, kind: &str) -> String {
    let found = array(node, "/status/addresses")
        .iter()
        .find(|a| a["type"] == kind);
    found.map(|a| scalar(&a["address"])).unwrap_or_default()
}

/// The time since then, in the short form that `kubectl` shows.
fn age_of(then: &Value) -> Value {
    let then = then
        .as_str()
        .and_then(|t| t.parse::<jiff::Timestamp>().ok());
    let Some(then) = then else {
        return json!("<unknown>");
    };
    let seconds = (jiff::Timestamp::now().as_second() - then.as_second()).max(0) as u64;
    json!(human(seconds))
}

/// Two units at most, coarser as time goes by (`k8s.io/apimachinery/pkg/util/duration`).
fn human(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |big: u64, unit: &str, rest: u64, small: &str| {
        if rest == 0 {
            format!("{big}{unit}")
        } else {
            format!("{big}{unit}{rest}{small}")
        }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        _ => two(days / 365, "y", days % 365, "d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_like_kubectl() {
        let table = [
            (5, "5s"),
            (119, "119s"),
            (125, "2m5s"),
            (660, "11m"),
            (3 * 3600 + 60, "3h1m"),
            (9 * 3600, "9h"),
            (50 * 3600, "2d2h"),
            (86400 * 30, "30d"),
        ];
        for (seconds, wanted) in table {
            assert_eq!(human(seconds), wanted);
        }
    }

    #[test]
    fn a_service_row() {
        let service = json!({
            "metadata": {"name": "web"},
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.96.0.7", "externalIPs": ["198.51.100.1"],
                "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
                "selector": {"app": "web"},
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
        });
        let resource = ResourceType::namespaced("", "v1", "Service", "services");
        let table = render(&resource, "None", &[service], json!({}));
        let cells = &table["rows"][0]["cells"];
        let wanted = json!([
            "web",
            "LoadBalancer",
            "10.96.0.7",
            "203.0.113.1,198.51.100.1",
            "80:30080/TCP,53/UDP",
            "<unknown>",
            "app=web"
        ]);
        assert_eq!(*cells, wanted);
    }
}
