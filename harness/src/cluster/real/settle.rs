//! Have the controllers of a real cluster followed? They do so some time after a change, and what the oracle says of the time before is of no
//! use to anybody.
//!
//! The rules are those of the EndpointSlice controller (kubernetes `staging/src/k8s.io/endpointslice`, `utils.go`, `podToEndpoint`): which Pods
//! are endpoints, at which ports, and in which condition. Slices that somebody wrote by hand are nobody's business here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The label that says which Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says who writes a slice, and its value for the API's own controller.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// An endpoint at a port, as far as it follows from Pods and Services: address, name of the port with number and protocol, and the conditions
/// ready, serving and terminating.
type Endpoint = (String, String, bool, bool, bool);

/// The first thing that is not as it has to become, for humans; nothing once all is.
///
/// All objects are those of one namespace.
pub fn unsettled(services: &[Value], slices: &[Value], pods: &[Value]) -> Option<String> {
    let mut by_service: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for slice in slices {
        let labels = &slice["metadata"]["labels"];
        if is_managed(slice)
            && let Some(service) = labels[SERVICE_NAME].as_str()
        {
            by_service.entry(service).or_default().push(slice);
        }
    }
    for service in services {
        let name = service["metadata"]["name"].as_str().unwrap_or_default();
        let written = by_service.remove(name).unwrap_or_default();
        let Some(selector) = selector(service) else {
            // What is left of the time when it had a selector is left alone by the controller, too.
            continue;
        };
        let families = service["spec"]["ipFamilies"].as_array();
        for family in families.into_iter().flatten().filter_map(Value::as_str) {
            let want = wanted(service, &selector, family, pods);
            let of_family = written.iter().filter(|one| one["addressType"] == family);
            let have: BTreeSet<Endpoint> = of_family.flat_map(|slice| endpoints(slice)).collect();
            if want != have {
                let missing = want.difference(&have).next();
                let extra = have.difference(&want).next();
                return Some(format!(
                    "the EndpointSlices of Service {name} ({family}): missing {missing:?}, still there {extra:?}"
                ));
            }
        }
        if let Some(address) = misdirected(service, &written) {
            return Some(format!(
                "the EndpointSlices of Service {name}: the hints of {address} are not those of its traffic distribution"
            ));
        }
    }
    let orphan = by_service.into_keys().next()?;
    Some(format!(
        "the EndpointSlices of Service {orphan}, which is gone"
    ))
}

/// Whether the API's own controller writes the slice.
pub fn is_managed(slice: &Value) -> bool {
    slice["metadata"]["labels"][MANAGED_BY] == CONTROLLER
}

/// An endpoint whose hints are not what the Service's traffic distribution makes of its zone and node (`trafficdist.go`, `needsUpdate`). With
/// topology-aware routing they depend on more than can be seen here.
fn misdirected(service: &Value, slices: &[&Value]) -> Option<String> {
    const AUTO: [&str; 2] = [
        "service.kubernetes.io/topology-mode",
        "service.kubernetes.io/topology-aware-hints",
    ];
    let annotations = &service["metadata"]["annotations"];
    if AUTO.iter().any(|name| !annotations[*name].is_null()) {
        return None;
    }
    let (zones, nodes) = match service["spec"]["trafficDistribution"].as_str() {
        Some("PreferClose" | "PreferSameZone") => (true, false),
        Some("PreferSameNode") => (true, true),
        _ => (false, false),
    };
    let endpoints = slices
        .iter()
        .filter_map(|slice| slice["endpoints"].as_array())
        .flatten();
    // With a distribution, only what is ready gets hints, and the others keep what they have.
    let mut concerned =
        endpoints.filter(|endpoint| !zones || endpoint["conditions"]["ready"] == true);
    let wrong = concerned.find(|endpoint| {
        let hints = |kind: &str| -> Vec<&str> {
            let hints = endpoint["hints"][kind].as_array();
            let names = hints.into_iter().flatten();
            names.filter_map(|hint| hint["name"].as_str()).collect()
        };
        let want = |on: bool, what: &str| -> Vec<&str> {
            endpoint[what].as_str().filter(|_| on).into_iter().collect()
        };
        hints("forZones") != want(zones, "zone") || hints("forNodes") != want(nodes, "nodeName")
    });
    Some(wrong?["addresses"][0].to_string())
}

fn selector(service: &Value) -> Option<BTreeMap<&str, &str>> {
    if service["spec"]["type"] == "ExternalName" {
        return None;
    }
    let selector = service["spec"]["selector"].as_object()?;
    let pairs = selector.iter();
    let pairs: BTreeMap<&str, &str> = pairs
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .collect();
    (!pairs.is_empty()).then_some(pairs)
}

fn wanted(
    service: &Value,
    selector: &BTreeMap<&str, &str>,
    family: &str,
    pods: &[Value],
) -> BTreeSet<Endpoint> {
    let even_unready = service["spec"]["publishNotReadyAddresses"] == true;
    let mut all = BTreeSet::new();
    for pod in pods {
        let labels = &pod["metadata"]["labels"];
        let over = ["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or(""));
        if over || !selector.iter().all(|(key, value)| labels[*key] == **value) {
            continue;
        }
        let terminating = !pod["metadata"]["deletionTimestamp"].is_null();
        let serving = is_ready(pod);
        let ready = even_unready || serving && !terminating;
        let ips = pod["status"]["podIPs"].as_array();
        let ips = ips.into_iter().flatten().filter_map(|ip| ip["ip"].as_str());
        for ip in ips.filter(|ip| ip.contains(':') == (family == "IPv6")) {
            let mut at_none = true;
            for port in ports(service, pod) {
                at_none = false;
                all.insert((ip.to_owned(), port, ready, serving, terminating));
            }
            if at_none {
                all.insert((ip.to_owned(), String::new(), ready, serving, terminating));
            }
        }
    }
    all
}

/// Whether the Pod's condition Ready is true.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// The Service's ports as they are at this Pod: name, number, protocol.
fn ports<'a>(service: &'a Value, pod: &'a Value) -> impl Iterator<Item = String> + 'a {
    let ports = service["spec"]["ports"].as_array();
    ports.into_iter().flatten().filter_map(move |port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let target = match &port["targetPort"] {
            Value::String(name) => {
                let containers = pod["spec"]["containers"].as_array();
                let ports = containers.into_iter().flatten();
                let mut ports = ports.filter_map(|one| one["ports"].as_array()).flatten();
                let found = ports.find(|one| {
                    one["name"] == **name && one["protocol"].as_str().unwrap_or("TCP") == protocol
                });
                found?["containerPort"].as_u64()?
            }
            Value::Number(number) => number.as_u64()?,
            _ => port["port"].as_u64()?,
        };
        let name = port["name"].as_str().unwrap_or_default();
        Some(format!("{name}:{target}/{protocol}"))
    })
}

fn endpoints(slice: &Value) -> Vec<Endpoint> {
    let ports = slice["ports"].as_array();
    let mut ports: Vec<String> = ports
        .into_iter()
        .flatten()
        .filter_map(|port| {
            let name = port["name"].as_str().unwrap_or_default();
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            Some(format!("{name}:{}/{protocol}", port["port"].as_u64()?))
        })
        .collect();
    if ports.is_empty() {
        ports.push(String::new());
    }
    let endpoints = slice["endpoints"].as_array();
    let mut all = Vec::new();
    for endpoint in endpoints.into_iter().flatten() {
        let is = |condition: &str| endpoint["conditions"][condition] == true;
        let addresses = endpoint["addresses"].as_array();
        for address in addresses.into_iter().flatten().filter_map(Value::as_str) {
            for port in &ports {
                all.push((
                    address.to_owned(),
                    port.clone(),
                    is("ready"),
                    is("serving"),
                    is("terminating"),
                ));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use apiserver::{ApiServer, Config};
    use serde_json::json;

    /// Hints follow later than endpoints where only the distribution changed.
    #[test]
    fn hints_are_those_of_the_distribution() {
        let slice = |hints: Value, ready: bool| {
            json!({"endpoints": [
                {"addresses": ["10.244.1.2"], "nodeName": "n1", "zone": "east", "conditions": {"ready": ready}, "hints": hints},
            ]})
        };
        let zone = json!({"forZones": [{"name": "east"}]});
        let both = json!({"forZones": [{"name": "east"}], "forNodes": [{"name": "n1"}]});
        let other = json!({"forZones": [{"name": "west"}]});
        let none = Value::Null;
        for (distribution, right) in [
            (None, &none),
            (Some("PreferClose"), &zone),
            (Some("PreferSameZone"), &zone),
            (Some("PreferSameNode"), &both),
        ] {
            let mut service = json!({"spec": {"trafficDistribution": distribution}});
            for hints in [&none, &zone, &both, &other] {
                let slice = slice(hints.clone(), true);
                let found = misdirected(&service, &[&slice]);
                assert_eq!(found.is_none(), hints == right, "{distribution:?} {hints}");
            }
            let unready = slice(other.clone(), false);
            let found = misdirected(&service, &[&unready]);
            assert_eq!(found.is_some(), distribution.is_none());
            service["metadata"]["annotations"]["service.kubernetes.io/topology-mode"] =
                json!("Auto");
            assert_eq!(misdirected(&service, &[&unready]), None);
        }
    }

    use super::*;

    fn service(name: &str, spec: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
    }

    fn pod(name: &str, ready: bool) -> Value {
        let last = name.len();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
            "spec": {"nodeName": "node1", "containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {
                "phase": "Running", "podIPs": [{"ip": format!("10.244.1.{last}")}, {"ip": format!("fd00:244::{last}")}], "podIP": format!("10.244.1.{last}"),
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            },
        })
    }

    /// The embedded API's controller, which has its own tests, is the model: what it leaves behind is settled after each write, and nothing
    /// before it has followed is.
    #[test]
    fn settled_is_what_the_controller_leaves() {
        let api = ApiServer::new(Config::default()).unwrap();
        // The controller waits for the Node of a Pod.
        api.apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}}))
            .unwrap();
        let list = |version: &str, kind: &str| api.list(version, kind, Some("default")).unwrap();
        let now = || {
            (
                list("v1", "Service"),
                list("discovery.k8s.io/v1", "EndpointSlice"),
                list("v1", "Pod"),
            )
        };
        let mut before = now();
        let named = json!({"selector": {"app": "web"}, "ipFamilyPolicy": "RequireDualStack", "ports": [{"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81, "targetPort": 9090, "protocol": "UDP"}]});
        let mut moved = named.clone();
        moved["ports"][1]["targetPort"] = json!(9091);
        let unready = json!({"selector": {"app": "web"}, "publishNotReadyAddresses": true, "clusterIP": "None", "ports": [{"port": 80}]});
        let mut other = pod("other-pod", true);
        other["metadata"]["labels"]["app"] = json!("other");
        let mut over = pod("done", true);
        over["status"]["phase"] = json!("Succeeded");
        let steps: Vec<(&str, Value, bool)> = vec![
            ("a pod nobody selects", other, false),
            ("a Service without endpoints", service("web", named), false),
            ("its first", pod("a", false), true),
            ("which is ready", pod("a", true), true),
            ("another", pod("bb", true), true),
            ("a Pod that is over", over, false),
            ("other ports", service("web", moved), true),
            ("a headless one", service("head", unready), true),
            (
                "no selector",
                service("free", json!({"ports": [{"port": 80}]})),
                false,
            ),
        ];
        for (what, object, follows) in steps {
            api.apply(object).unwrap();
            let after = now();
            assert_eq!(
                unsettled(&after.0, &after.1, &after.2),
                None,
                "{what}: {:?}",
                after.1
            );
            // With the slices of before, the new Services and Pods are not settled.
            let stale = unsettled(&after.0, &before.1, &after.2);
            assert_eq!(stale.is_some(), follows, "{what}: {stale:?}");
            before = after;
        }
        let gone = apiserver::ObjectRef::new("v1", "Service", "default", "web");
        api.delete(&gone).unwrap();
        let after = now();
        assert_eq!(unsettled(&after.0, &after.1, &after.2), None);
        let orphans = unsettled(&after.0, &before.1, &after.2).unwrap();
        assert!(orphans.contains("web, which is gone"), "{orphans}");
    }
}
