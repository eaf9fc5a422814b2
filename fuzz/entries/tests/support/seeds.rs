//! Valid inputs, to be changed: logs out of the fixtures of the report crate, and the project's own documents.

use reports::event::{Event, Experiment, FinishReason, Mode, Verdict};
use reports::shard::Shard;

#[path = "../../../../reports/tests/fixture/mod.rs"]
mod fixture;

use fixture::Run;

/// Logs of runs, one for each thing that a log can say: name and text.
pub fn logs() -> Vec<(&'static str, String)> {
    let mut all = Run::new(2);
    all.case("pass[ipv4]", &["SVC-1"], &[Verdict::Pass, Verdict::Pass]);
    all.case(
        "fail[ipv4]",
        &["SVC-1", "NP-1"],
        &[Verdict::Fail, Verdict::Fail],
    );
    all.case("flaky[ipv4]", &["SVC-2"], &[Verdict::Pass, Verdict::Fail]);
    all.case("infra[ipv4]", &["SVC-2"], &[Verdict::Infra, Verdict::Pass]);
    all.case("skip[ipv4]", &["NP-1"], &[Verdict::Skip, Verdict::Skip]);
    all.plan("not-run[ipv4]", &["NP-1"]);
    all.experiment("fail[ipv4]", Experiment::Alone, 5, 5, 0);
    all.experiment("flaky[ipv4]", Experiment::Contention, 2, 9, 1);
    all.characteristic("pass[ipv4]", "choice", "left", "Left or right.");

    let mut killed = Run::new(3);
    killed.case("a[ipv4]", &["SVC-1"], &[Verdict::Pass]);
    killed.resumed();
    killed.attempt("a[ipv4]", 2, Verdict::Pass);
    killed.end = None;

    let mut shard = Run::new(20);
    shard.start.options.shard = Some(Shard { index: 2, of: 8 });
    let held = (1..=20).filter(|n| Shard { index: 2, of: 8 }.holds("a[ipv4]", *n));
    shard.plan("a[ipv4]", &["SVC-1"]);
    held.for_each(|n| {
        shard.attempt("a[ipv4]", n, Verdict::Pass);
    });
    shard.plan("elsewhere[ipv4]", &["SVC-1"]);

    let mut claim = Run::new(400);
    claim.start.options.until_confidence = "rate<1% @95%".parse().ok();
    claim.case("a[ipv4]", &["SVC-1"], &[Verdict::Pass; 300]);
    claim.case("b[ipv4]", &["SVC-1"], &[Verdict::Pass, Verdict::Fail]);

    let mut soak = Run::new(0);
    soak.start.options.mode = Mode::Soak;
    soak.start.options.for_ms = Some(20_000);
    soak.case(
        "a[ipv4]",
        &["SVC-1"],
        &[Verdict::Pass, Verdict::Fail, Verdict::Pass],
    );
    soak.end = Some(FinishReason::Interrupted);

    let named = [
        ("all", all),
        ("killed", killed),
        ("shard", shard),
        ("claim", claim),
        ("soak", soak),
        ("hostile", fixture::hostile()),
    ];
    named
        .into_iter()
        .map(|(name, run)| (name, lines(&run.events())))
        .collect()
}

fn lines(events: &[Event]) -> String {
    let line = |event: &Event| serde_json::to_string(event).expect("an event is JSON") + "\n";
    events.iter().map(line).collect()
}

/// Reports of the logs.
pub fn reports() -> Vec<(&'static str, String)> {
    let report = |log: String| {
        let reader = reports::log::EventReader::from_bytes("events.jsonl", log.into_bytes());
        let events = reader.map(|event| event.expect("a valid log"));
        let report = reports::Report::from_events(events).expect("a run");
        reports::json::render(&report)
    };
    logs()
        .into_iter()
        .map(|(name, log)| (name, report(log)))
        .collect()
}

/// Scenario documents: those of the catalogue.
pub fn scenarios() -> Vec<(&'static str, String)> {
    let catalogue = scenarios::CATALOGUE.iter();
    catalogue
        .map(|(path, text)| (*path, (*text).to_owned()))
        .collect()
}

/// Manifests of candidates.
pub fn manifests() -> Vec<(&'static str, String)> {
    const FULL: &str = r#"
name: my-proxy
version: v0.3.1
url: https://example.org/my-proxy
unsupported:
  - {feature: sctp, reason: not implemented}
process:
  command: ["/bin/true", "--kubeconfig=$(KUBECONFIG)", "--node-name=$(NODE_NAME)", "--dir=$(DIR)"]
  nodeportAddressesArgs: ["--nodeport-addresses=$(NODEPORT_ADDRESSES)"]
  cleanupArgs: ["--cleanup"]
  env: {CIDR: $(CLUSTER_CIDR)}
  files: [{name: config.yaml, content: "nodeIP: $(NODE_IP)"}]
  needs: [sh]
  ready: {http: {port: 10256, path: /healthz}, watching: [services], deadline: 30s}
"#;
    const NULL: &str = include_str!("../../../../ci/candidates/null.yaml");
    const NFTABLES: &str = include_str!("../../../../ci/candidates/kube-proxy-nftables.yaml");
    [("full", FULL), ("null", NULL), ("nftables", NFTABLES)]
        .map(|(name, text)| (name, text.to_owned()))
        .to_vec()
}

/// Lists of requirements.
pub fn requirements() -> Vec<(&'static str, String)> {
    vec![("requirements", scenarios::REQUIREMENTS.to_owned())]
}

/// Waivers and required cases.
pub fn gate() -> Vec<(&'static str, String)> {
    const WAIVERS: &str = "
waivers:
  - case: clusterip-basic[ipv4,TCP]
    reason: the kernel of our runners
    issue: https://example.org/issues/1
    expires: 2026-12-31
    owner: somebody
    mayPass: true
  - requirement: SVC-CIP-1
    reason: to be fixed
    issue: https://example.org/issues/2
    expires: 2026-12-31
    owner: somebody
";
    const REQUIRED: &str = "cases:\n  - a\n  - b[ipv4,TCP]\n  - 'it''s: odd'\n";
    [("waivers", WAIVERS), ("required", REQUIRED)]
        .map(|(name, text)| (name, text.to_owned()))
        .to_vec()
}

/// Filter expressions.
pub fn filters() -> Vec<(&'static str, String)> {
    let all = [
        "udp-*",
        "area:udp and family=ipv6",
        "not (requirement:UDP-1 or covers:#103857) and level:core",
        "scenario:clusterip-basic or a[ipv4,TCP]",
    ];
    all.map(|text| ("filter", text.to_owned())).to_vec()
}
