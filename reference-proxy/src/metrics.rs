//! What the proxy counts and measures, under kube-proxy's metric names, so that dashboards, alerts and scalability tests made for it work.
//!
//! Names, labels, buckets and help texts follow `pkg/proxy/metrics/metrics.go` of Kubernetes 1.36, nftables mode. Two things differ by nature:
//! one transaction programs both IP families, so a sync is recorded for each family it touched; and there are no stale chains to clean up, so
//! `..._nftables_cleanup_failures_total` stays zero.
//!
//! Besides `/metrics` the server answers `/proxyMode` (conformance tests ask for it) and `/healthz`, as kube-proxy's does.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, text},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets, linear_buckets},
    },
    registry::Registry,
};
use tokio::{sync::watch, task::JoinHandle};

use crate::health::http::{self, Handler, Listening};

/// How long until a metrics port that could not be bound is tried again.
const BIND_RETRY: Duration = Duration::from_secs(1);

/// What `/proxyMode` answers: the mode of kube-proxy that this proxy stands in for.
pub const PROXY_MODE: &str = "nftables";

/// The value of the `ip_family` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum IpFamily {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

/// How much of the ruleset a sync wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncKind {
    /// Everything: the first sync and recovery.
    Full,
    /// Only what changed.
    Partial,
}

/// The value of the `traffic_policy` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrafficPolicy {
    /// `spec.internalTrafficPolicy`.
    Internal,
    /// `spec.externalTrafficPolicy`.
    External,
}

impl EncodeLabelValue for TrafficPolicy {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder,
    ) -> Result<(), fmt::Error> {
        let value = match self {
            Self::Internal => "internal",
            Self::External => "external",
        };
        EncodeLabelValue::encode(&value, encoder)
    }
}

/// The health endpoints whose answers are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthEndpoint {
    /// `/healthz`.
    Healthz,
    /// `/livez`.
    Livez,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FamilyLabel {
    ip_family: IpFamily,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    traffic_policy: TrafficPolicy,
    ip_family: IpFamily,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: u16,
}

type Histograms = Family<FamilyLabel, Histogram, fn() -> Histogram>;
type Seconds = Gauge<f64, std::sync::atomic::AtomicU64>;

/// All metrics of one proxy. Clones share the same values.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    sync: Histograms,
    full_sync: Histograms,
    partial_sync: Histograms,
    programming: Histograms,
    conntrack: Histograms,
    conntrack_deleted: Family<FamilyLabel, Counter>,
    last_sync: Family<FamilyLabel, Seconds>,
    last_queued: Family<FamilyLabel, Seconds>,
    sync_failures: Family<FamilyLabel, Counter>,
    endpoint_changes_pending: Gauge,
    endpoint_changes: Counter,
    service_changes_pending: Gauge,
    service_changes: Counter,
    no_local_endpoints: Family<PolicyLabels, Gauge>,
    healthz: Family<CodeLabel, Counter>,
    livez: Family<CodeLabel, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// 1 ms, 2 ms, 4 ms, ... 16 s.
fn sync_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// The buckets of the network programming latency SLO: 0.25 s to 5 min.
fn programming_histogram() -> Histogram {
    Histogram::new(
        linear_buckets(0.25, 0.25, 2)
            .chain(linear_buckets(1.0, 1.0, 59))
            .chain(linear_buckets(60.0, 5.0, 12))
            .chain(linear_buckets(120.0, 30.0, 7)),
    )
}

impl Metrics {
    /// Fresh metrics in a registry of their own.
    pub fn new() -> Self {
        // Metrics are handles onto shared values: each is made, registered and kept.
        fn add<M>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M
        where
            M: prometheus_client::registry::Metric + Clone,
        {
            registry.register(name, help, metric.clone());
            metric
        }

        let mut registry = Registry::default();
        let own = registry.sub_registry_with_prefix("kubeproxy");
        let histograms = |new: fn() -> Histogram| Histograms::new_with_constructor(new);
        // The text format appends `_total` to the names of counters; for gauges it is part of the name.
        let mut metrics = Self {
            sync: add(
                own,
                "sync_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds",
                histograms(sync_histogram),
            ),
            full_sync: add(
                own,
                "sync_full_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds for full resyncs",
                histograms(sync_histogram),
            ),
            partial_sync: add(
                own,
                "sync_partial_proxy_rules_duration_seconds",
                "SyncProxyRules latency in seconds for partial resyncs",
                histograms(sync_histogram),
            ),
            programming: add(
                own,
                "network_programming_duration_seconds",
                "In Cluster Network Programming Latency in seconds",
                histograms(programming_histogram),
            ),
            conntrack: add(
                own,
                "conntrack_reconciler_sync_duration_seconds",
                "Latency of one removal of stale conntrack entries in seconds",
                histograms(sync_histogram),
            ),
            conntrack_deleted: add(
                own,
                "conntrack_reconciler_deleted_entries",
                "Cumulative conntrack flows deleted because they were stale",
                Family::default(),
            ),
            last_sync: add(
                own,
                "sync_proxy_rules_last_timestamp_seconds",
                "The last time proxy rules were successfully synced",
                Family::default(),
            ),
            last_queued: add(
                own,
                "sync_proxy_rules_last_queued_timestamp_seconds",
                "The last time a sync of proxy rules was queued",
                Family::default(),
            ),
            sync_failures: add(
                own,
                "sync_proxy_rules_nftables_sync_failures",
                "Cumulative proxy nftables sync failures",
                Family::default(),
            ),
            endpoint_changes_pending: add(
                own,
                "sync_proxy_rules_endpoint_changes_pending",
                "Pending proxy rules Endpoint changes",
                Gauge::default(),
            ),
            endpoint_changes: add(
                own,
                "sync_proxy_rules_endpoint_changes",
                "Cumulative proxy rules Endpoint changes",
                Counter::default(),
            ),
            service_changes_pending: add(
                own,
                "sync_proxy_rules_service_changes_pending",
                "Pending proxy rules Service changes",
                Gauge::default(),
            ),
            service_changes: add(
                own,
                "sync_proxy_rules_service_changes",
                "Cumulative proxy rules Service changes",
                Counter::default(),
            ),
            no_local_endpoints: add(
                own,
                "sync_proxy_rules_no_local_endpoints_total",
                "Number of services with a Local traffic policy and no endpoints",
                Family::default(),
            ),
            healthz: add(
                own,
                "proxy_healthz",
                "Cumulative proxy healthz HTTP status",
                Family::default(),
            ),
            livez: add(
                own,
                "proxy_livez",
                "Cumulative proxy livez HTTP status",
                Family::default(),
            ),
            registry: Arc::default(),
        };
        let cleanup_failures: Family<FamilyLabel, Counter> = add(
            own,
            "sync_proxy_rules_nftables_cleanup_failures",
            "Cumulative proxy nftables cleanup failures",
            Family::default(),
        );
        for ip_family in [IpFamily::IPv4, IpFamily::IPv6] {
            // Counters that may stay zero are there from the start, so that alerts can compute rates.
            let label = FamilyLabel { ip_family };
            drop(cleanup_failures.get_or_create(&label));
            drop(metrics.sync_failures.get_or_create(&label));
            drop(metrics.conntrack_deleted.get_or_create(&label));
        }
        registry.register_collector(Box::new(ProcessCollector));
        metrics.registry = Arc::new(registry);
        metrics
    }

    /// A sync that reached the kernel: how long it took and which families' rules it wrote.
    pub fn observe_sync(&self, families: &[IpFamily], kind: SyncKind, took: Duration) {
        let now = unix_seconds();
        for &ip_family in families {
            let label = FamilyLabel { ip_family };
            let by_kind = match kind {
                SyncKind::Full => &self.full_sync,
                SyncKind::Partial => &self.partial_sync,
            };
            self.sync.get_or_create(&label).observe(took.as_secs_f64());
            by_kind.get_or_create(&label).observe(took.as_secs_f64());
            self.last_sync.get_or_create(&label).set(now);
        }
    }

    /// A sync of these families is wanted from now on.
    pub fn sync_queued(&self, families: &[IpFamily]) {
        let now = unix_seconds();
        for &ip_family in families {
            self.last_queued
                .get_or_create(&FamilyLabel { ip_family })
                .set(now);
        }
    }

    /// The kernel refused a transaction.
    pub fn sync_failed(&self, families: &[IpFamily]) {
        for &ip_family in families {
            self.sync_failures
                .get_or_create(&FamilyLabel { ip_family })
                .inc();
        }
    }

    /// From the moment the control plane saw an endpoint change (`endpoints.kubernetes.io/last-change-trigger-time`) to the moment the kernel
    /// had the rules. Record it once per changed EndpointSlice; skip slices without that annotation.
    pub fn observe_programming(&self, ip_family: IpFamily, latency: Duration) {
        self.programming
            .get_or_create(&FamilyLabel { ip_family })
            .observe(latency.as_secs_f64());
    }

    /// `count` EndpointSlice changes arrived.
    pub fn endpoint_changes(&self, count: u64) {
        self.endpoint_changes.inc_by(count);
    }

    /// `count` Service changes arrived.
    pub fn service_changes(&self, count: u64) {
        self.service_changes.inc_by(count);
    }

    /// How many changes wait for the next sync.
    pub fn set_pending(&self, endpoint_changes: usize, service_changes: usize) {
        self.endpoint_changes_pending.set(to_i64(endpoint_changes));
        self.service_changes_pending.set(to_i64(service_changes));
    }

    /// How many Services have a Local traffic policy and no endpoint on this node.
    pub fn set_no_local_endpoints(
        &self,
        traffic_policy: TrafficPolicy,
        ip_family: IpFamily,
        services: usize,
    ) {
        let labels = PolicyLabels {
            traffic_policy,
            ip_family,
        };
        self.no_local_endpoints
            .get_or_create(&labels)
            .set(to_i64(services));
    }

    /// One removal of stale conntrack entries: how long it took and how many entries went, by family.
    pub fn observe_conntrack(&self, took: Duration, deleted_ipv4: usize, deleted_ipv6: usize) {
        for (ip_family, deleted) in [
            (IpFamily::IPv4, deleted_ipv4),
            (IpFamily::IPv6, deleted_ipv6),
        ] {
            let label = FamilyLabel { ip_family };
            self.conntrack
                .get_or_create(&label)
                .observe(took.as_secs_f64());
            self.conntrack_deleted
                .get_or_create(&label)
                .inc_by(deleted as u64);
        }
    }

    /// A health endpoint answered with this HTTP status.
    pub fn count_health_answer(&self, endpoint: HealthEndpoint, code: u16) {
        let family = match endpoint {
            HealthEndpoint::Healthz => &self.healthz,
            HealthEndpoint::Livez => &self.livez,
        };
        family.get_or_create(&CodeLabel { code }).inc();
    }

    /// The OpenMetrics text of everything.
    pub fn render(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("a string takes any text");
        out
    }
}

/// Seconds since the epoch; a clock before 1970 counts as 1970.
fn unix_seconds() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// CPU time, memory and descriptors of this process, under the names that every Prometheus client library uses.
#[derive(Debug)]
struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // Fields that cannot be read are left out: absent is honest, zero is not.
        if let Some(seconds) = cpu_seconds() {
            let metric = ConstCounter::new(seconds);
            let encoder = encoder.encode_descriptor(
                "process_cpu_seconds",
                "Total user and system CPU time spent in seconds.",
                None,
                metric.metric_type(),
            )?;
            metric.encode(encoder)?;
        }
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
                resident_bytes(),
            ),
            (
                "process_open_fds",
                "Number of open file descriptors.",
                std::fs::read_dir("/proc/self/fd")
                    .ok()
                    .and_then(|entries| i64::try_from(entries.count()).ok()),
            ),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                let metric = ConstGauge::new(value);
                let encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
                metric.encode(encoder)?;
            }
        }
        Ok(())
    }
}

fn cpu_seconds() -> Option<f64> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).ok()?;
    Some(Duration::from(time).as_secs_f64())
}

fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The running metrics server. Dropping this ends it.
#[derive(Debug)]
pub struct MetricsServer {
    task: JoinHandle<()>,
    bound: watch::Receiver<Option<SocketAddr>>,
}

impl MetricsServer {
    /// The address at which it really listens, `None` as long as it could not be bound.
    pub fn addr(&self) -> Option<SocketAddr> {
        *self.bound.borrow()
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves `/metrics`, `/proxyMode` and `/healthz` at `addr`. An address that cannot be bound is logged and tried again every second.
///
/// # Panics
///
/// When called outside a tokio runtime.
pub fn serve(metrics: Metrics, addr: SocketAddr) -> MetricsServer {
    let (sender, bound) = watch::channel(None);
    let task = tokio::spawn(async move {
        let mut complained = false;
        let listening = loop {
            match Listening::start(addr, handler(metrics.clone())) {
                Ok(listening) => break listening,
                Err(error) => {
                    if !complained {
                        tracing::warn!(%addr, %error, "failed to listen for metrics, will keep trying");
                        complained = true;
                    }
                    tokio::time::sleep(BIND_RETRY).await;
                }
            }
        };
        // Held until this task is aborted.
        sender.send_replace(Some(listening.local()));
        std::future::pending::<()>().await;
    });
    MetricsServer { task, bound }
}

fn handler(metrics: Metrics) -> Handler {
    Arc::new(move |path| match path {
        "/metrics" => http::respond(
            200,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            metrics.render(),
        ),
        "/proxyMode" => http::text(200, PROXY_MODE),
        "/healthz" => http::text(200, "ok"),
        _ => http::not_found(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::health::http::test_client::get;

    const BOTH: [IpFamily; 2] = [IpFamily::IPv4, IpFamily::IPv6];

    #[test]
    fn every_name_is_the_one_of_kube_proxy() {
        let metrics = Metrics::new();
        metrics.observe_sync(&BOTH, SyncKind::Full, Duration::from_millis(3));
        metrics.observe_sync(
            &[IpFamily::IPv4],
            SyncKind::Partial,
            Duration::from_micros(40),
        );
        metrics.sync_queued(&BOTH);
        metrics.sync_failed(&[IpFamily::IPv6]);
        metrics.observe_programming(IpFamily::IPv6, Duration::from_millis(300));
        metrics.endpoint_changes(5);
        metrics.service_changes(2);
        metrics.set_pending(3, 1);
        metrics.set_no_local_endpoints(TrafficPolicy::Internal, IpFamily::IPv4, 7);
        metrics.observe_conntrack(Duration::from_millis(2), 11, 0);
        metrics.count_health_answer(HealthEndpoint::Healthz, 200);
        metrics.count_health_answer(HealthEndpoint::Livez, 503);
        let text = metrics.render();
        for line in [
            r#"kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"} 2"#,
            r#"kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv6"} 1"#,
            r#"kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="0.001",ip_family="IPv4"} 1"#,
            r#"kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="16.384",ip_family="IPv4"} 2"#,
            r#"kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"} 1"#,
            r#"kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family="IPv4"} 1"#,
            r#"kubeproxy_network_programming_duration_seconds_bucket{le="0.5",ip_family="IPv6"} 1"#,
            r#"kubeproxy_network_programming_duration_seconds_bucket{le="300.0",ip_family="IPv6"} 1"#,
            r#"kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv6"} 1"#,
            r#"kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv4"} 0"#,
            r#"kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total{ip_family="IPv4"} 0"#,
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 3",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 5",
            "kubeproxy_sync_proxy_rules_service_changes_pending 1",
            "kubeproxy_sync_proxy_rules_service_changes_total 2",
            r#"kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy="internal",ip_family="IPv4"} 7"#,
            r#"kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv4"} 11"#,
            r#"kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family="IPv6"} 1"#,
            r#"kubeproxy_proxy_healthz_total{code="200"} 1"#,
            r#"kubeproxy_proxy_livez_total{code="503"} 1"#,
        ] {
            assert!(
                text.lines().any(|got| got == line),
                "no line {line} in:\n{text}"
            );
        }
        for name in [
            r#"kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} "#,
            r#"kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv6"} "#,
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_open_fds ",
        ] {
            let value: f64 = text
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|value| value.parse().ok())
                .unwrap_or_else(|| panic!("no sample {name} in:\n{text}"));
            assert!(value > 0.0, "{name}{value}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[tokio::test]
    async fn served_over_http() {
        let metrics = Metrics::new();
        let server = serve(metrics.clone(), (Ipv4Addr::LOCALHOST, 0).into());
        let mut bound = server.bound.clone();
        let addr = tokio::time::timeout(Duration::from_secs(60), bound.wait_for(Option::is_some))
            .await
            .expect("bound in time")
            .expect("the server runs")
            .expect("waited for it");
        metrics.endpoint_changes(9);
        let got = get(addr, "/metrics").await.expect("an answer");
        assert_eq!(got.status, 200);
        assert!(
            got.head
                .contains("content-type: application/openmetrics-text"),
            "{}",
            got.head
        );
        assert!(
            got.body
                .contains("kubeproxy_sync_proxy_rules_endpoint_changes_total 9\n")
        );
        for (path, status, body) in [
            ("/proxyMode", 200, "nftables"),
            ("/healthz", 200, "ok"),
            ("/nothing", 404, "404 page not found\n"),
        ] {
            let got = get(addr, path).await.expect("an answer");
            assert_eq!((got.status, got.body.as_str()), (status, body), "{path}");
        }
    }
}
