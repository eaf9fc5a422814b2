//! Services that are asked for where they are not.
//!
//! On a cluster whose candidate is there already, a known-bad proxy cannot take its place without everybody noticing. But a proxy that serves nothing
//! at an address can be had without touching any: by asking at an address that no Service has, while the oracle is told that one has it.

use netlab::{Family, plan::Plan};
use serde_json::{Value, json};

use crate::candidate::Elsewhere;

/// In the part of the range that scenarios choose from, and none of theirs.
const SERVICE_IP: u8 = 140;
/// Ports that no scenario, no node port and hardly anybody else uses, one for each port of a Service.
const NODE_PORT: u16 = 29_900;

/// Moves a Service of the oracle's copy.
pub fn moved(object: &mut Value, elsewhere: Elsewhere, plan: &Plan) {
    if object["kind"] != "Service" {
        return;
    }
    match elsewhere {
        Elsewhere::ClusterIp => {
            let spec = &mut object["spec"];
            for pointer in ["/clusterIP", "/clusterIPs/0", "/clusterIPs/1"] {
                let Some(ip) = spec.pointer_mut(pointer) else {
                    continue;
                };
                let parsed: Option<std::net::IpAddr> = ip.as_str().and_then(|ip| ip.parse().ok());
                if let Some(other) =
                    parsed.and_then(|ip| plan.service_ip(SERVICE_IP, Family::of(ip)))
                {
                    *ip = json!(other);
                }
            }
        }
        Elsewhere::NodePort => {
            let ports = object.pointer_mut("/spec/ports");
            let ports = ports.and_then(Value::as_array_mut);
            for (port, number) in ports.into_iter().flatten().zip(NODE_PORT..) {
                if !port["nodePort"].is_null() {
                    port["nodePort"] = json!(number);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_moved_and_nothing_else_is() {
        let plan = Plan::new(&netlab::Topology::uniform(1, 1)).unwrap();
        let service = json!({
            "kind": "Service",
            "spec": {
                "clusterIP": "10.96.7.7",
                "clusterIPs": ["10.96.7.7", "fd00:96::7"],
                "ports": [{"port": 80, "nodePort": 30080}, {"port": 81}],
            },
        });
        let mut moved_ip = service.clone();
        moved(&mut moved_ip, Elsewhere::ClusterIp, &plan);
        let ips = [Family::Ipv4, Family::Ipv6].map(|family| plan.service_ip(SERVICE_IP, family));
        assert_eq!(moved_ip["spec"]["clusterIP"], json!(ips[0]));
        assert_eq!(moved_ip["spec"]["clusterIPs"], json!(ips));
        assert_eq!(moved_ip["spec"]["ports"], service["spec"]["ports"]);
        let mut moved_port = service.clone();
        moved(&mut moved_port, Elsewhere::NodePort, &plan);
        assert_eq!(
            moved_port["spec"]["ports"],
            json!([{"port": 80, "nodePort": NODE_PORT}, {"port": 81}])
        );
        assert_eq!(
            moved_port["spec"]["clusterIPs"],
            service["spec"]["clusterIPs"]
        );
        for innocent in [
            json!({"kind": "Service", "spec": {"clusterIP": "None", "clusterIPs": ["None"]}}),
            json!({"kind": "Pod", "spec": {"clusterIP": "10.96.7.7"}}),
        ] {
            let mut object = innocent.clone();
            moved(&mut object, Elsewhere::ClusterIp, &plan);
            moved(&mut object, Elsewhere::NodePort, &plan);
            assert_eq!(object, innocent);
        }
    }
}
