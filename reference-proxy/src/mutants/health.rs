//! Health checks that say what is not so.

use std::{collections::BTreeMap, sync::Mutex};

use hyper::{Response, StatusCode};

use super::{Fault, fault, memory::lock};
use crate::{
    health::{ServiceHealth, ServiceKey},
    seams::Asked,
};

const WEIGHT: &str = "X-Load-Balancing-Endpoint-Weight";

pub(super) fn all() -> Vec<Fault> {
    vec![
        fault! {
            "health-always-200": "A healthCheckNodePort answers 200 whatever this node has.";
            bugs ["cilium#11043", "kube-router#455", "bug:G8"];
            violates ["HC-1", "HC-2"];
            does {
                fn answer(&self, asked: Asked, response: &mut Response<String>) {
                    if asked == Asked::Service {
                        *response.status_mut() = StatusCode::OK;
                    }
                }
            }
        },
        fault! {
            "health-stays-200": "A healthCheckNodePort answers 200 for ever once this node had an endpoint.";
            bugs ["kubernetes/kubernetes#44311", "kubernetes/kubernetes#45208", "bug:G7"];
            violates ["HC-1"];
            remembers { most: Mutex<BTreeMap<ServiceKey, usize>> }
            does {
                fn health(&self, services: &mut Vec<(ServiceKey, ServiceHealth)>) {
                    let mut most = lock(&self.most);
                    for (key, health) in services {
                        let most = most.entry(key.clone()).or_default();
                        *most = health.local_endpoints.max(*most);
                        if health.local_endpoints == 0 {
                            health.local_endpoints = *most;
                        }
                    }
                }
            }
        },
        fault! {
            "health-always-503": "A healthCheckNodePort answers 503 whatever this node has.";
            bugs ["calico#8112", "bug:G9"];
            violates ["HC-1"];
            does {
                fn answer(&self, asked: Asked, response: &mut Response<String>) {
                    if asked == Asked::Service {
                        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    }
                }
            }
        },
        fault! {
            "health-without-port": "No healthCheckNodePort is opened.";
            bugs ["kube-router#1612", "bug:G8"];
            violates ["HC-1"];
            does {
                fn health(&self, services: &mut Vec<(ServiceKey, ServiceHealth)>) {
                    services.clear();
                }
            }
        },
        fault! {
            "health-port-stays": "A healthCheckNodePort that a Service no longer has stays open.";
            bugs ["e2e:Services should implement NodePort and HealthCheckNodePort correctly when ExternalTrafficPolicy changes", "bug:G11"];
            violates ["HC-4"];
            remembers { known: Mutex<BTreeMap<(ServiceKey, u16), ServiceHealth>> }
            does {
                fn health(&self, services: &mut Vec<(ServiceKey, ServiceHealth)>) {
                    let mut known = lock(&self.known);
                    for (key, health) in services.iter() {
                        known.insert((key.clone(), health.port), *health);
                    }
                    let gone: Vec<_> = known
                        .iter()
                        .filter(|((key, port), _)| !services.iter().any(|(k, h)| k == key && h.port == *port))
                        .map(|((key, port), health)| ((key.0.clone(), format!("{}-{port}", key.1)), *health))
                        .collect();
                    services.extend(gone);
                }
            }
        },
        fault! {
            "health-port-frozen": "A Service keeps the healthCheckNodePort that it had at first.";
            bugs ["calico#8112", "bug:G9", "bug:G11"];
            violates ["HC-4"];
            remembers { first: super::memory::First<ServiceKey, u16> }
            does {
                fn health(&self, services: &mut Vec<(ServiceKey, ServiceHealth)>) {
                    for (key, health) in services {
                        health.port = self.first.of(key.clone(), health.port);
                    }
                }
            }
        },
        fault! {
            "health-weight-missing": "A healthCheckNodePort does not say how many endpoints there are in its header.";
            bugs ["kubernetes/kubernetes#118999", "bug:G7"];
            violates ["HC-3"];
            does {
                fn answer(&self, _asked: Asked, response: &mut Response<String>) {
                    response.headers_mut().remove(WEIGHT);
                }
            }
        },
        fault! {
            "health-counts-to-one": "A healthCheckNodePort says one endpoint however many there are.";
            bugs ["kubernetes/kubernetes#118999", "bug:G7"];
            violates ["HC-3"];
            does {
                fn health(&self, services: &mut Vec<(ServiceKey, ServiceHealth)>) {
                    for (_, health) in services {
                        health.local_endpoints = health.local_endpoints.min(1);
                    }
                }
            }
        },
        fault! {
            "healthz-always-200": "The proxy's own /healthz says 200 whatever happens, also on a node that is going away.";
            bugs ["kubernetes/kubernetes#115825", "KEP-3836", "bug:G10"];
            violates ["HC-6", "HC-5"];
            does {
                fn answer(&self, asked: Asked, response: &mut Response<String>) {
                    if asked == Asked::Node && response.status() == StatusCode::SERVICE_UNAVAILABLE {
                        *response.status_mut() = StatusCode::OK;
                    }
                }
            }
        },
        fault! {
            "healthz-ignores-failures": "The proxy's own /healthz says 200 while it cannot program the kernel.";
            bugs ["kube-router@aba49a98", "bug:R16"];
            violates ["HC-5"];
            does {
                fn answer(&self, asked: Asked, response: &mut Response<String>) {
                    // The body speaks of the rules alone, the status code of the node too.
                    if asked == Asked::Node && response.body().contains(r#""healthy":false"#) {
                        *response.status_mut() = StatusCode::OK;
                    }
                }
            }
        },
    ]
}
