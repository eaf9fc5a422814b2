//! Which cases may run side by side in one cluster.
//!
//! Services of two namespaces disturb each other where they want the same port of all nodes or the same address: node ports, external and
//! LoadBalancer addresses, ClusterIPs that the scenario chose, ports of a node that a hostNetwork pod listens at. And whatever happens to a node, to the
//! proxy or to the API happens to all. So each case says what it claims, and waits until nobody before it has claimed the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use tokio::sync::Notify;

use super::fit::has_zones;
use crate::scenario::{Case, doc::Step};

/// What a case needs for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Nothing else may go on in the cluster.
    pub alone: bool,
    /// Ports and addresses.
    pub names: BTreeSet<String>,
}

impl Claims {
    /// Those of a case.
    pub fn of(case: &Case) -> Self {
        let mut claims = Self {
            // Which zone a node is in concerns everybody's endpoints on it.
            alone: has_zones(case),
            ..Self::default()
        };
        for object in &case.scenario.objects {
            claims.walk("", object);
        }
        for step in case.scenario.steps.iter().map(|step| &step.value) {
            for object in step.apply.iter().flatten() {
                claims.walk("", object);
            }
            if let Some(patch) = &step.patch {
                claims.walk("", &patch.patch);
            }
            claims.alone |= is_node_wide(step);
        }
        for pod in &case.scenario.topology.pods {
            if pod.host_network {
                let ports = pod.serves();
                let ports = ports.iter();
                claims.names.extend(
                    ports.map(|port| format!("{} {:?} {}", pod.node, port.protocol, port.port)),
                );
            }
        }
        claims
    }

    /// The addresses among them.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let names = self.names.iter();
        names
            .filter_map(|name| name.strip_prefix("address ")?.parse().ok())
            .collect()
    }

    /// The node ports among them.
    pub fn node_ports(&self) -> BTreeSet<u16> {
        let names = self.names.iter();
        names
            .filter_map(|name| name.strip_prefix("node port ")?.parse().ok())
            .collect()
    }

    /// Whether both can go on at the same time.
    pub fn agrees_with(&self, other: &Self) -> bool {
        !self.alone && !other.alone && self.names.is_disjoint(&other.names)
    }

    fn walk(&mut self, key: &str, value: &Value) {
        match (key, value) {
            (_, Value::Object(map)) => map.iter().for_each(|(key, value)| self.walk(key, value)),
            (_, Value::Array(list)) => list.iter().for_each(|value| self.walk(key, value)),
            ("nodePort" | "healthCheckNodePort", Value::Number(port)) => {
                self.names.insert(format!("node port {port}"));
            }
            (
                "clusterIP" | "clusterIPs" | "externalIPs" | "loadBalancerIP" | "ip",
                Value::String(address),
            ) if address.parse::<std::net::IpAddr>().is_ok() => {
                self.names.insert(format!("address {address}"));
            }
            // A JSON patch says the name of the field in its path.
            ("value", Value::Number(number)) if number.as_u64() >= Some(30_000) => {
                self.names.insert(format!("node port {number}"));
            }
            _ => {}
        }
    }
}

/// Whether a step changes or counts what all cases share.
fn is_node_wide(step: &Step) -> bool {
    step.fault.is_some()
        || step
            .state
            .as_ref()
            .is_some_and(|state| state.baseline.is_some() || state.like.is_some())
}

/// Who has claimed what, in the order of asking.
#[derive(Debug, Default)]
pub struct Register {
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    claims: BTreeMap<u64, Claims>,
}

/// A claim that holds until it is dropped.
#[derive(Debug)]
pub struct Claim {
    register: Arc<Register>,
    ticket: u64,
}

impl Register {
    /// Waits until nobody who asked earlier claims any of it. Who asked later waits for us, so nobody is passed over.
    pub async fn claim(self: &Arc<Self>, claims: Claims) -> Claim {
        let claim = {
            let mut queue = self.lock();
            let ticket = queue.next;
            queue.next += 1;
            queue.claims.insert(ticket, claims.clone());
            // From here on a future that is dropped takes its claim with it.
            Claim {
                register: self.clone(),
                ticket,
            }
        };
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Who gives something back from here on wakes us.
            changed.as_mut().enable();
            let free = {
                let queue = self.lock();
                let mut earlier = queue.claims.range(..claim.ticket);
                earlier.all(|(_, other)| other.agrees_with(&claims))
            };
            if free {
                return claim;
            }
            changed.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.register.lock().claims.remove(&self.ticket);
        self.register.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::scenario::read_documents;

    fn claims(rest: &str) -> Claims {
        let text = format!("id: x\ntitle: X\nrequirement: [SVC-CIP-1]\n{rest}");
        let document = read_documents("x.yaml", &text).unwrap().remove(0);
        Claims::of(&document.resolve(&document.cases[0]).unwrap())
    }

    const PODS: &str = "topology:\n  pods:\n    - {name: web, node: node1, labels: {app: web}}\n    - {name: client, node: node2, hostNetwork: true, ports: [{port: 9000}]}\n";

    #[test]
    fn ports_and_addresses_are_found_wherever_they_are() {
        let text = format!(
            "{PODS}objects:
  - apiVersion: v1
    kind: Service
    metadata: {{name: web}}
    spec: {{type: LoadBalancer, selector: {{app: web}}, clusterIP: $(serviceIP.10), externalIPs: [$(externalIP.1)], externalTrafficPolicy: Local, healthCheckNodePort: 31000, ports: [{{port: 80, targetPort: 8080, nodePort: 30080}}]}}
    status: {{loadBalancer: {{ingress: [{{ip: $(loadBalancerIP.1)}}]}}}}
steps:
  - converge: {{}}
  - patch: {{kind: Service, name: web, type: json, patch: [{{op: replace, path: /spec/ports/0/nodePort, value: 30081}}]}}
  - converge: {{}}
"
        );
        let found = claims(&text);
        assert!(!found.alone);
        let names: Vec<&str> = found.names.iter().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "address 10.96.0.10",
                "address 198.51.100.1",
                "address 203.0.113.1",
                "node port 30080",
                "node port 30081",
                "node port 31000",
                "node2 Tcp 9000",
            ]
        );
        assert_eq!(found.node_ports(), [30080, 30081, 31000].into());
        assert_eq!(found.addresses().len(), 3);
    }

    #[test]
    fn faults_want_to_be_alone() {
        let text = format!(
            "{PODS}objects:
  - {{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}}}
steps:
  - converge: {{}}
  - fault: {{proxy: restart}}
  - converge: {{}}
"
        );
        assert!(claims(&text).alone);
        let peaceful = Claims::default();
        assert!(peaceful.agrees_with(&peaceful) && !peaceful.agrees_with(&claims(&text)));
    }

    #[tokio::test]
    async fn who_asks_first_is_first_and_nobody_is_passed_over() {
        let register = Arc::new(Register::default());
        let port = |port: u16| Claims {
            names: [format!("node port {port}")].into(),
            ..Claims::default()
        };
        let alone = Claims {
            alone: true,
            ..Claims::default()
        };
        let first = register.claim(port(30080)).now_or_never().unwrap();
        let other = register.claim(port(30081)).now_or_never().unwrap();
        assert!(register.claim(port(30080)).now_or_never().is_none());
        let mut all = Box::pin(register.claim(alone));
        assert!((&mut all).now_or_never().is_none());
        // It would fit beside those that go on, but somebody waits to be alone.
        let mut late = Box::pin(register.claim(port(30082)));
        assert!((&mut late).now_or_never().is_none());
        drop((first, other));
        let alone = all.await;
        assert!((&mut late).now_or_never().is_none());
        drop(alone);
        drop(late.await);
        assert!(register.lock().claims.is_empty());
    }
}
