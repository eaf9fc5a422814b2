//! Health of the proxy and of the Services behind it, as load balancers and the kubelet ask for it.
//!
//! | endpoint | where | 200 when |
//! |---|---|---|
//! | `/healthz` | `--healthz-bind-address` | the rules are up to date and the node may get load balancer traffic (KEP-3836) |
//! | `/livez` | `--healthz-bind-address` | the rules are up to date; restarting the proxy would not help a node that is going away |
//! | any path | a Service's `healthCheckNodePort` | this node has an endpoint for it and the rules are up to date |
//!
//! "Up to date" is kube-proxy's rule: no update has been waiting for longer than a timeout, usually two sync periods. Two things are
//! stricter: `/healthz` is 503 until the first complete sync, so that it can serve as a readiness probe; and a sync that is known to
//! fail again and again need not wait for that timeout.
//!
//! This file knows nothing of rules and watches: the sync loop tells [`HealthState`], the servers read it.

pub(crate) mod http;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::{Response, header::HeaderValue};
use jiff::Timestamp;
use serde::Serialize;
use tokio::{sync::watch, task::JoinHandle};

use self::http::{Handler, Listening};
use crate::{
    metrics::{HealthEndpoint, Metrics},
    seams::{Asked, Plain, Seams},
};

/// After this time without a sync that covers it, a queued update makes the proxy unhealthy: twice kube-proxy's default sync period.
pub const DEFAULT_HEALTH_TIMEOUT: Duration = Duration::from_secs(60);

/// A sync that fails for so long, tried again all the time, is no collision with somebody else's transaction.
const FAILING: Duration = Duration::from_secs(5);

/// How long until a port that could not be bound is tried again.
const BIND_RETRY: Duration = Duration::from_secs(1);

/// The taint with which the cluster autoscaler announces that it will delete a node; such a node is not eligible (KEP-3836).
pub const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// Namespace and name of a Service.
pub type ServiceKey = (String, String);

/// What a healthCheckNodePort answers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceHealth {
    /// `spec.healthCheckNodePort`.
    pub port: u16,
    /// Endpoints on this node that the Service's external traffic may use.
    pub local_endpoints: usize,
}

/// What the sync loop reports and the health endpoints answer from. Clones share the same state.
#[derive(Clone, Debug)]
pub struct HealthState {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    timeout: Duration,
    facts: Mutex<Facts>,
    /// Changes whenever the set of listeners may have to change.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Facts {
    last_synced: Option<Instant>,
    oldest_queued: Option<Instant>,
    newest_queued: Option<Instant>,
    /// Every sync since then has failed.
    failing_since: Option<Instant>,
    node_eligible: bool,
    services: BTreeMap<ServiceKey, ServiceHealth>,
    /// Addresses for the healthCheckNodePorts; empty means all, in both families.
    addresses: BTreeSet<IpAddr>,
}

impl HealthState {
    /// A proxy that has not synced yet, on an eligible node, without Services. See [`DEFAULT_HEALTH_TIMEOUT`].
    pub fn new(timeout: Duration) -> Self {
        let facts = Facts {
            last_synced: None,
            oldest_queued: None,
            newest_queued: None,
            failing_since: None,
            node_eligible: true,
            services: BTreeMap::new(),
            addresses: BTreeSet::new(),
        };
        Self {
            shared: Arc::new(Shared {
                timeout,
                facts: Mutex::new(facts),
                changed: watch::Sender::new(()),
            }),
        }
    }

    /// The kernel has the rules for everything that was queued up to `at`.
    ///
    /// An update queued later than that stays pending, so pass the time at which the sync began to look, not the time at which it ended.
    pub fn set_synced(&self, at: Instant) {
        let mut facts = self.facts();
        facts.last_synced = Some(facts.last_synced.map_or(at, |before| before.max(at)));
        facts.failing_since = None;
        facts.newest_queued = facts.newest_queued.filter(|queued| *queued > at);
        // Which of the younger updates is the oldest is not remembered. The newest stands in for it: that is off by less than one sync.
        facts.oldest_queued = facts
            .oldest_queued
            .filter(|queued| *queued > at)
            .or(facts.newest_queued);
    }

    /// The kernel did not take the rules at `at`. Only the first failure in a row counts.
    pub fn set_failed(&self, at: Instant) {
        self.facts().failing_since.get_or_insert(at);
    }

    /// An update that needs new rules arrived at `at`. Only the oldest one that still waits counts.
    pub fn set_queued(&self, at: Instant) {
        let mut facts = self.facts();
        facts.oldest_queued = Some(facts.oldest_queued.map_or(at, |before| before.min(at)));
        facts.newest_queued = Some(facts.newest_queued.map_or(at, |before| before.max(at)));
    }

    /// Whether the node may get load balancer traffic: false when its Node object is being deleted or has [`TO_BE_DELETED_TAINT`].
    pub fn set_node_eligible(&self, eligible: bool) {
        self.facts().node_eligible = eligible;
    }

    /// Replaces the Services that have a healthCheckNodePort. Ports of Services that are gone are freed, before new ones are opened.
    pub fn set_service_health(
        &self,
        services: impl IntoIterator<Item = (ServiceKey, ServiceHealth)>,
    ) {
        self.update(|facts| {
            let services = services.into_iter().collect();
            let ports = |of: &BTreeMap<ServiceKey, ServiceHealth>| {
                of.iter()
                    .map(|(key, health)| (key.clone(), health.port))
                    .collect::<Vec<_>>()
            };
            let changed = ports(&facts.services) != ports(&services);
            facts.services = services;
            changed
        });
    }

    /// Replaces the addresses at which healthCheckNodePorts listen; none means every address of the node, in both families.
    pub fn set_addresses(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.update(|facts| {
            let addresses = addresses.into_iter().collect();
            let changed = facts.addresses != addresses;
            facts.addresses = addresses;
            changed
        });
    }

    /// Whether the rules are up to date. The node's eligibility plays no part in it.
    pub fn is_healthy(&self) -> bool {
        self.look(Instant::now()).healthy()
    }

    fn update(&self, change: impl FnOnce(&mut Facts) -> bool) {
        if change(&mut self.facts()) {
            self.shared.changed.send_replace(());
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        // Each change of the facts is a plain assignment, so a panic elsewhere leaves nothing half done.
        self.shared
            .facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, now: Instant) -> Look {
        let facts = self.facts();
        let older = |since: Option<Instant>, limit| {
            since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
        };
        let late =
            older(facts.oldest_queued, self.shared.timeout) || older(facts.failing_since, FAILING);
        Look {
            late,
            last_synced: facts.last_synced,
            node_eligible: facts.node_eligible,
        }
    }

    fn service(&self, key: &ServiceKey) -> Option<ServiceHealth> {
        self.facts().services.get(key).copied()
    }

    /// Every listener that should exist.
    fn wanted(&self) -> BTreeSet<Listener> {
        let facts = self.facts();
        let wildcard = BTreeSet::from([IpAddr::V6(Ipv6Addr::UNSPECIFIED)]);
        let addresses = if facts.addresses.is_empty() {
            &wildcard
        } else {
            &facts.addresses
        };
        facts
            .services
            .iter()
            .flat_map(|(service, health)| {
                addresses.iter().map(|addr| Listener {
                    service: service.clone(),
                    at: SocketAddr::new(*addr, health.port),
                })
            })
            .collect()
    }
}

/// The state at one moment.
struct Look {
    late: bool,
    last_synced: Option<Instant>,
    node_eligible: bool,
}

impl Look {
    fn healthy(&self) -> bool {
        self.last_synced.is_some() && !self.late
    }
}

/// One healthCheckNodePort at one address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listener {
    service: ServiceKey,
    at: SocketAddr,
}

/// The running health servers. Dropping this ends them.
#[derive(Debug)]
pub struct HealthServers {
    task: JoinHandle<()>,
    healthz: watch::Receiver<Option<SocketAddr>>,
}

impl HealthServers {
    /// The address at which `/healthz` really listens, `None` as long as it could not be bound.
    pub fn healthz_addr(&self) -> Option<SocketAddr> {
        *self.healthz.borrow()
    }
}

impl Drop for HealthServers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves `/healthz` and `/livez` at `healthz` (nowhere when `None`), and a listener for each healthCheckNodePort in `state`, following its
/// changes.
///
/// A port that cannot be bound is logged and tried again every second: health checks are worth less than the traffic.
///
/// # Panics
///
/// When called outside a tokio runtime.
pub fn serve(state: HealthState, healthz: Option<SocketAddr>, metrics: Metrics) -> HealthServers {
    serve_with(state, healthz, metrics, &Plain)
}

/// The same, with answers that pass through `seams`.
///
/// # Panics
///
/// When called outside a tokio runtime.
pub fn serve_with<S: Seams + ?Sized>(
    state: HealthState,
    healthz: Option<SocketAddr>,
    metrics: Metrics,
    seams: &'static S,
) -> HealthServers {
    let (bound, healthz_addr) = watch::channel(None);
    let task = tokio::spawn(keep_listening(state, healthz, metrics, bound, seams));
    HealthServers {
        task,
        healthz: healthz_addr,
    }
}

async fn keep_listening<S: Seams + ?Sized>(
    state: HealthState,
    healthz: Option<SocketAddr>,
    metrics: Metrics,
    bound: watch::Sender<Option<SocketAddr>>,
    seams: &'static S,
) {
    let mut changes = state.shared.changed.subscribe();
    let mut node_server: Option<Listening> = None;
    let mut running: BTreeMap<Listener, Listening> = BTreeMap::new();
    // Each port that fails is logged once and not once per second.
    let mut failing: BTreeSet<SocketAddr> = BTreeSet::new();
    loop {
        changes.borrow_and_update();
        let wanted = state.wanted();

        // First free, then bind: one update may hand a port from one Service to another.
        let gone: Vec<_> = running
            .keys()
            .filter(|l| !wanted.contains(l))
            .cloned()
            .collect();
        for listener in gone {
            if let Some(listening) = running.remove(&listener) {
                tracing::info!(service = ?listener.service, at = %listener.at, "health check port closed");
                listening.close().await;
            }
        }

        let mut missing = false;
        if let (Some(addr), None) = (healthz, &node_server) {
            let handler = node_handler(state.clone(), metrics.clone());
            let handler = through(seams, Asked::Node, handler);
            node_server = start(addr, handler, &mut failing);
            missing |= node_server.is_none();
            bound.send_replace(node_server.as_ref().map(Listening::local));
        }
        for listener in wanted {
            if running.contains_key(&listener) {
                continue;
            }
            let handler = service_handler(state.clone(), listener.service.clone());
            let handler = through(seams, Asked::Service, handler);
            match start(listener.at, handler, &mut failing) {
                Some(listening) => {
                    tracing::info!(service = ?listener.service, at = %listener.at, "health check port opened");
                    running.insert(listener, listening);
                }
                None => missing = true,
            }
        }

        tokio::select! {
            // The sender lives in `state`, which this task holds, so it cannot be gone.
            _ = changes.changed() => {}
            () = tokio::time::sleep(BIND_RETRY), if missing => {}
        }
    }
}

fn through<S: Seams + ?Sized>(seams: &'static S, asked: Asked, handler: Handler) -> Handler {
    Arc::new(move |path| {
        let mut response = handler(path);
        seams.answer(asked, &mut response);
        response
    })
}

fn start(
    addr: SocketAddr,
    handler: Handler,
    failing: &mut BTreeSet<SocketAddr>,
) -> Option<Listening> {
    match Listening::start(addr, handler) {
        Ok(listening) => {
            failing.remove(&addr);
            Some(listening)
        }
        Err(error) => {
            if failing.insert(addr) {
                tracing::warn!(%addr, %error, "failed to listen for health checks, will keep trying");
            }
            None
        }
    }
}

fn node_handler(state: HealthState, metrics: Metrics) -> Handler {
    Arc::new(move |path| {
        let now = Instant::now();
        let look = state.look(now);
        let (endpoint, healthy) = match path {
            "/healthz" => (
                HealthEndpoint::Healthz,
                look.healthy() && look.node_eligible,
            ),
            // A proxy that still waits for its first sync is alive: killing it would only make that later.
            "/livez" => (HealthEndpoint::Livez, !look.late),
            _ => return http::not_found(),
        };
        let status = if healthy { 200 } else { 503 };
        metrics.count_health_answer(endpoint, status);
        let wall = Timestamp::now();
        let synced = look
            .last_synced
            .and_then(|at| wall.checked_sub(now.saturating_duration_since(at)).ok())
            .map(|at| at.to_string());
        let family = synced.clone().map(|last_updated| FamilyBody {
            last_updated,
            healthy: !look.late,
        });
        http::json(
            status,
            to_json(&NodeBody {
                // While healthy, "last updated" is now: kube-proxy's answer to readers that expect a proxy to sync all the time.
                last_updated: if healthy {
                    wall.to_string()
                } else {
                    synced.unwrap_or_else(|| NEVER.to_owned())
                },
                current_time: wall.to_string(),
                node_eligible: (endpoint == HealthEndpoint::Healthz).then_some(look.node_eligible),
                healthy: match endpoint {
                    HealthEndpoint::Healthz => look.healthy(),
                    HealthEndpoint::Livez => !look.late,
                },
                // One transaction writes both families, so they never differ.
                status: family.map(|family| Families {
                    ipv4: family.clone(),
                    ipv6: family,
                }),
            }),
        )
    })
}

fn service_handler(state: HealthState, key: ServiceKey) -> Handler {
    Arc::new(move |_path| {
        let Some(health) = state.service(&key) else {
            // The Service is gone and its listener is about to be.
            return http::text(503, "");
        };
        let healthy = state.is_healthy();
        let status = if healthy && health.local_endpoints > 0 {
            200
        } else {
            503
        };
        let mut response: Response<String> = http::json(
            status,
            to_json(&ServiceBody {
                service: ServiceName {
                    namespace: &key.0,
                    name: &key.1,
                },
                local_endpoints: health.local_endpoints,
                service_proxy_healthy: healthy,
            }),
        );
        // Load balancers may weight nodes with it (kubernetes/kubernetes#118999).
        response.headers_mut().insert(
            "X-Load-Balancing-Endpoint-Weight",
            HeaderValue::from(health.local_endpoints),
        );
        response
    })
}

/// The zero time in the notation of the real thing, for a proxy that has not synced yet.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The body of `/healthz` and `/livez`, with the fields of kube-proxy 1.36. `healthy` speaks of the rules only, the status code of the node too.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeBody {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Families>,
}

#[derive(Serialize)]
struct Families {
    #[serde(rename = "IPv4")]
    ipv4: FamilyBody,
    #[serde(rename = "IPv6")]
    ipv6: FamilyBody,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyBody {
    last_updated: String,
    healthy: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceBody<'a> {
    service: ServiceName<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct ServiceName<'a> {
    namespace: &'a str,
    name: &'a str,
}

fn to_json(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("strings, numbers and booleans can be written as JSON")
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use serde_json::Value;

    use super::{
        http::test_client::{Got, get},
        *,
    };

    /// The largest time any of these tests may need on a machine with busy cores; a pass takes milliseconds.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Asks again until the answer is right, or fails with the last one.
    async fn eventually(
        what: &str,
        addr: SocketAddr,
        path: &str,
        right: impl Fn(&std::io::Result<Got>) -> bool,
    ) -> std::io::Result<Got> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let got = get(addr, path).await;
            if right(&got) {
                return got;
            }
            assert!(
                Instant::now() < deadline,
                "{what}: still {:?}",
                got.map(|got| (got.status, got.body))
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn bound(servers: &HealthServers) -> SocketAddr {
        let mut watch = servers.healthz.clone();
        let addr = tokio::time::timeout(PATIENCE, watch.wait_for(Option::is_some))
            .await
            .expect("bound in time")
            .expect("the server runs")
            .expect("waited for it");
        // Connect to the loopback side of a wildcard.
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), addr.port())
    }

    /// A port that nothing listens on, below the range that the kernel hands out to others, held by a listener.
    fn hold_port() -> (u16, TcpListener) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let step = std::process::id() * 13 + NEXT.fetch_add(1, Ordering::Relaxed);
            let port = 12_000 + (step % 18_000) as u16;
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
                return (port, listener);
            }
        }
    }

    fn free_port() -> u16 {
        hold_port().0
    }

    fn key(name: &str) -> ServiceKey {
        ("default".to_owned(), name.to_owned())
    }

    fn local(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[test]
    fn an_update_that_waits_too_long_is_unhealthy() {
        let state = HealthState::new(Duration::from_secs(60));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!state.look(at(0)).healthy(), "before the first sync");
        assert!(!state.look(at(0)).late, "before the first sync");
        state.set_synced(at(0));
        assert!(state.look(at(1_000)).healthy(), "idle for long");
        state.set_queued(at(1_000));
        state.set_queued(at(1_050));
        assert!(state.look(at(1_059)).healthy(), "waits, but not for long");
        assert!(!state.look(at(1_060)).healthy(), "the oldest update counts");
        state.set_synced(at(1_010));
        assert!(
            state.look(at(1_060)).healthy(),
            "the second update is young"
        );
        assert!(
            !state.look(at(1_110)).healthy(),
            "the second update is late"
        );
        state.set_synced(at(1_110));
        assert!(state.look(at(2_000)).healthy(), "nothing waits");
    }

    #[test]
    fn syncs_that_go_on_failing_are_unhealthy() {
        let state = HealthState::new(Duration::from_secs(60));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        state.set_synced(at(0));
        state.set_failed(at(10));
        assert!(state.look(at(14)).healthy(), "it may be a collision");
        state.set_failed(at(14));
        assert!(!state.look(at(15)).healthy(), "the first failure counts");
        state.set_synced(at(16));
        assert!(state.look(at(100)).healthy(), "it works again");
        state.set_failed(at(101));
        assert!(state.look(at(105)).healthy(), "another failure");
    }

    #[tokio::test]
    async fn healthz_and_livez() {
        let state = HealthState::new(Duration::from_secs(60));
        let metrics = Metrics::new();
        let servers = serve(
            state.clone(),
            Some((Ipv4Addr::UNSPECIFIED, 0).into()),
            metrics.clone(),
        );
        let addr = bound(&servers).await;

        let got = get(addr, "/healthz").await.expect("an answer");
        assert_eq!(got.status, 503, "before the first sync");
        assert!(
            got.body.contains(r#""lastUpdated":"0001-01-01T00:00:00Z""#),
            "{}",
            got.body
        );
        let got = get(addr, "/livez").await.expect("an answer");
        assert_eq!(got.status, 200, "alive before the first sync");

        state.set_synced(Instant::now());
        let got = get(addr, "/healthz").await.expect("an answer");
        assert_eq!(got.status, 200);
        assert!(
            got.head.contains("content-type: application/json"),
            "{}",
            got.head
        );
        assert!(
            got.head.contains("x-content-type-options: nosniff"),
            "{}",
            got.head
        );
        let body: Value = serde_json::from_str(&got.body).expect("JSON");
        assert_eq!(body["nodeEligible"], true);
        assert_eq!(body["healthy"], true);
        for family in ["IPv4", "IPv6"] {
            assert_eq!(body["status"][family]["healthy"], true, "{body}");
            assert!(body["status"][family]["lastUpdated"].is_string(), "{body}");
        }
        assert_eq!(body["lastUpdated"], body["currentTime"]);
        let current: Timestamp = body["currentTime"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .expect("a timestamp");
        assert!(current <= Timestamp::now());

        state.set_node_eligible(false);
        let got = get(addr, "/healthz").await.expect("an answer");
        assert_eq!(got.status, 503, "a node about to go");
        assert!(got.body.contains(r#""nodeEligible":false"#), "{}", got.body);
        assert!(
            got.body.contains(r#""healthy":true,"status""#),
            "{}",
            got.body
        );
        let got = get(addr, "/livez").await.expect("an answer");
        assert_eq!(got.status, 200, "eligibility is no matter of life");
        assert!(!got.body.contains("nodeEligible"), "{}", got.body);

        state.set_node_eligible(true);
        if let Some(long_ago) = Instant::now().checked_sub(Duration::from_secs(61)) {
            state.set_queued(long_ago);
            for path in ["/healthz", "/livez"] {
                let got = get(addr, path).await.expect("an answer");
                assert_eq!(got.status, 503, "{path} with a late update");
                let body: Value = serde_json::from_str(&got.body).expect("JSON");
                assert_eq!(body["healthy"], false, "{path}: {body}");
                assert_eq!(body["status"]["IPv6"]["healthy"], false, "{path}: {body}");
            }
        }
        let got = get(addr, "/other").await.expect("an answer");
        assert_eq!(got.status, 404);

        let text = metrics.render();
        assert!(
            text.contains(r#"kubeproxy_proxy_healthz_total{code="200"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"kubeproxy_proxy_livez_total{code="200"} 2"#),
            "{text}"
        );
    }

    #[tokio::test]
    async fn service_ports_follow_services() {
        let state = HealthState::new(DEFAULT_HEALTH_TIMEOUT);
        state.set_synced(Instant::now());
        let _servers = serve(state.clone(), None, Metrics::new());
        let (first, second) = (free_port(), free_port());
        let health = |port, local_endpoints| ServiceHealth {
            port,
            local_endpoints,
        };

        state.set_service_health([(key("a"), health(first, 2))]);
        let got = eventually("opens", local(first), "/", |got| got.is_ok())
            .await
            .expect("an answer");
        assert_eq!(got.status, 200);
        assert!(
            got.head.contains("x-load-balancing-endpoint-weight: 2"),
            "{}",
            got.head
        );
        assert!(
            got.head.contains("content-type: application/json"),
            "{}",
            got.head
        );
        assert_eq!(
            got.body,
            r#"{"service":{"namespace":"default","name":"a"},"localEndpoints":2,"serviceProxyHealthy":true}"#
        );
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            let got = get((Ipv6Addr::LOCALHOST, first).into(), "/")
                .await
                .expect("an answer over IPv6");
            assert_eq!(got.status, 200);
        }

        state.set_service_health([(key("a"), health(first, 0))]);
        let got = get(local(first), "/").await.expect("an answer");
        assert_eq!(got.status, 503, "counts change without a new listener");
        assert!(
            got.head.contains("x-load-balancing-endpoint-weight: 0"),
            "{}",
            got.head
        );

        // The port passes from one Service to another in one update, while an old connection is open.
        let idle = tokio::net::TcpStream::connect(local(first))
            .await
            .expect("a connection");
        state.set_service_health([(key("a"), health(second, 1)), (key("b"), health(first, 3))]);
        let right = |got: &std::io::Result<Got>| {
            got.as_ref()
                .is_ok_and(|got| got.status == 200 && got.body.contains(r#""name":"b""#))
        };
        let _ = eventually("handed over", local(first), "/", right).await;
        let _ = eventually("moved", local(second), "/", |got| got.is_ok()).await;
        drop(idle);

        state.set_service_health([]);
        for port in [first, second] {
            let _ = eventually("closes", local(port), "/", |got| got.is_err()).await;
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("the port is free");
        }
    }

    #[tokio::test]
    async fn a_busy_port_is_tried_again() {
        let state = HealthState::new(DEFAULT_HEALTH_TIMEOUT);
        state.set_synced(Instant::now());
        let (busy, holder) = hold_port();
        let free = free_port();
        let servers = serve(
            state.clone(),
            Some((Ipv4Addr::UNSPECIFIED, 0).into()),
            Metrics::new(),
        );
        let health = |port| ServiceHealth {
            port,
            local_endpoints: 1,
        };
        state.set_service_health([(key("busy"), health(busy)), (key("free"), health(free))]);
        let _ = eventually("others open", local(free), "/", |got| got.is_ok()).await;
        let got = get(bound(&servers).await, "/healthz")
            .await
            .expect("an answer");
        assert_eq!(got.status, 200, "a busy port is not fatal");
        drop(holder);
        let right = |got: &std::io::Result<Got>| {
            got.as_ref()
                .is_ok_and(|got| got.body.contains(r#""name":"busy""#))
        };
        let _ = eventually("opens at last", local(busy), "/", right).await;
    }

    #[tokio::test]
    async fn listens_only_where_told() {
        let state = HealthState::new(DEFAULT_HEALTH_TIMEOUT);
        state.set_synced(Instant::now());
        state.set_addresses([IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))]);
        let _servers = serve(state.clone(), None, Metrics::new());
        let port = free_port();
        state.set_service_health([(
            key("a"),
            ServiceHealth {
                port,
                local_endpoints: 1,
            },
        )]);
        let told = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 2).into(), port);
        let _ = eventually("opens", told, "/", |got| got.is_ok()).await;
        get(local(port), "/")
            .await
            .err()
            .expect("no listener at another address");
    }
}
