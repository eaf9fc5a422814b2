//! Applying, waiting and removing against an API server: the embedded one, with the part of the controllers played by the test.
//!
//! With HARNESS_ROLLOUT_KUBECONFIG, what needs no Pods also runs against the real API server that the kubeconfig leads to.

use std::{net::TcpListener, sync::Mutex, time::Duration};

use apiserver::{ApiServer, Config, ObjectRef, Serving};
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use rollout::{Blame, Error, Existing, LABEL, Object, ObjectId, Progress, RUN, Rollout, Workload};
use serde_json::{Value, json};

/// The longest anything here may take. Reached only when something is broken.
const DEADLINE: Duration = Duration::from_secs(60);

const OBJECTS: &str = include_str!("objects.yaml");

struct Cluster {
    server: ApiServer,
    serving: Serving,
}

impl Cluster {
    fn new() -> Self {
        let server = ApiServer::new(Config::default()).expect("a server");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let serving = server.serve(listener).expect("a server");
        Self { server, serving }
    }

    async fn client(&self) -> Client {
        let text = self.server.kubeconfig("tester", self.serving.address());
        client(Kubeconfig::from_yaml(&text).expect("a kubeconfig")).await
    }

    fn get(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let object = ObjectRef::new(api_version, kind, namespace, name);
        self.server.get(&object).ok()
    }

    /// What the DaemonSet controller writes.
    fn daemon_set_status(&self, desired: i64, available: i64) {
        let mut object = self
            .get("apps/v1", "DaemonSet", "rollout-test", "proxy")
            .expect("a DaemonSet");
        object["status"] = json!({
            "observedGeneration": object["metadata"]["generation"], "desiredNumberScheduled": desired,
            "updatedNumberScheduled": desired, "numberAvailable": available, "currentNumberScheduled": desired,
            "numberMisscheduled": 0, "numberReady": available,
        });
        self.server.update_status(object).expect("a status");
    }

    /// What the API server of a cluster writes into a definition that it serves.
    fn establish(&self) {
        let mut object = self
            .get(
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                "",
                "widgets.rollout.example.com",
            )
            .expect("a definition");
        object["status"] = json!({"conditions": [{"type": "Established", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
            "reason": "InitialNamesAccepted", "message": ""}], "acceptedNames": {"kind": "Widget", "plural": "widgets"}, "storedVersions": ["v1"]});
        self.server.update_status(object).expect("a status");
    }

    /// Runs `work` while definitions are established.
    async fn with_definitions<T>(&self, work: impl Future<Output = T>) -> T {
        let establish = async {
            let mut last = 0;
            loop {
                let history = self.server.history_since(last);
                if let Some(entry) = history.last() {
                    last = entry.resource_version;
                }
                if history.iter().any(|entry| {
                    entry.object["kind"] == "CustomResourceDefinition"
                        && entry.object["status"].is_null()
                }) {
                    self.establish();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            done = work => done,
            () = establish => unreachable!("it does not end"),
        }
    }
}

async fn client(kubeconfig: Kubeconfig) -> Client {
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
    Client::try_from(config.expect("a configuration")).expect("a client")
}

fn quiet(_: Progress) {}

fn objects() -> Vec<Object> {
    Object::parse("objects.yaml", OBJECTS).expect("objects")
}

/// A cluster on which everything is applied.
async fn applied() -> (Cluster, Rollout) {
    let cluster = Cluster::new();
    let rollout = Rollout::new(cluster.client().await, "run");
    let objects = objects();
    let apply = rollout.apply(&objects, DEADLINE, &quiet);
    let applied = cluster.with_definitions(apply).await;
    applied.expect("applied");
    (cluster, rollout)
}

fn names(ids: &[ObjectId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

fn proxy() -> Workload {
    Workload::DaemonSet {
        namespace: "rollout-test".into(),
        name: "proxy".into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_applied_is_marked_and_removed_again() {
    let cluster = Cluster::new();
    let rollout = Rollout::new(cluster.client().await, "run-1");
    let told = Mutex::new(Vec::new());
    let tell = |progress: Progress| {
        told.lock()
            .expect("a list")
            .push(format!("{}: {}", progress.what, progress.state))
    };
    cluster
        .with_definitions(rollout.apply(&objects(), DEADLINE, &tell))
        .await
        .expect("applied");
    insta::assert_snapshot!(told.lock().expect("a list").join("\n"), @"
    Namespace rollout-test: applying 1 of 6
    CustomResourceDefinition widgets.rollout.example.com: applying 2 of 6
    CustomResourceDefinition widgets.rollout.example.com: waiting until it is established
    ConfigMap rollout-test/settings: applying 3 of 6
    ClusterRole rollout-test: applying 4 of 6
    DaemonSet rollout-test/proxy: applying 5 of 6
    Widget rollout-test/first: applying 6 of 6
    ");
    let config = cluster
        .get("v1", "ConfigMap", "rollout-test", "settings")
        .expect("a ConfigMap");
    assert_eq!(
        config["metadata"]["labels"],
        json!({LABEL: "harness", "app": "x"})
    );
    assert_eq!(config["metadata"]["annotations"], json!({RUN: "run-1"}));
    assert_eq!(config["metadata"]["managedFields"][0]["manager"], "harness");
    // Pods get no mark: selectors are theirs.
    let daemon_set = cluster
        .get("apps/v1", "DaemonSet", "rollout-test", "proxy")
        .expect("a DaemonSet");
    assert_eq!(
        daemon_set["spec"]["template"]["metadata"]["labels"],
        json!({"app": "proxy"})
    );

    let short = Duration::from_millis(1);
    let left = rollout.leftovers(false, short).await.expect("a list");
    assert_eq!(left.len(), 6, "{:?}", names(&left));
    let other = Rollout::new(cluster.client().await, "run-2");
    assert_eq!(other.leftovers(false, short).await.expect("a list"), []);
    assert_eq!(other.leftovers(true, short).await.expect("a list").len(), 6);

    // Again over itself, as with --reuse.
    rollout
        .apply(&objects(), DEADLINE, &quiet)
        .await
        .expect("applied again");
    let removed = rollout
        .remove(&objects(), DEADLINE, &quiet)
        .await
        .expect("removed");
    assert_eq!(
        names(&removed.gone),
        [
            "Widget rollout-test/first",
            "DaemonSet rollout-test/proxy",
            "ClusterRole rollout-test",
            "ConfigMap rollout-test/settings",
            "CustomResourceDefinition widgets.rollout.example.com",
            "Namespace rollout-test",
        ]
    );
    assert_eq!(removed.kept, []);
    assert_eq!(rollout.leftovers(true, DEADLINE).await.expect("a list"), []);
    let again = rollout
        .remove(&objects(), DEADLINE, &quiet)
        .await
        .expect("removed again");
    assert_eq!(again, rollout::Removed::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_others_stays() {
    let cluster = Cluster::new();
    let foreign = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "rollout-test",
        "labels": {LABEL: "somebody"}}, "data": {"theirs": "1"}});
    cluster
        .server
        .create(
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "rollout-test"}}),
        )
        .expect("a Namespace");
    cluster.server.create(foreign).expect("a ConfigMap");
    let refusing = Rollout::new(cluster.client().await, "run");
    let error = refusing
        .apply(&objects(), DEADLINE, &quiet)
        .await
        .expect_err("refused");
    assert!(
        matches!(&error, Error::Exists { objects } if names(objects) == ["ConfigMap rollout-test/settings"]),
        "{error}"
    );
    assert_eq!(error.blame(), Blame::Usage);
    assert_eq!(
        refusing.leftovers(true, DEADLINE).await.expect("a list"),
        []
    );

    let adopting = refusing.existing(Existing::Adopt);
    cluster
        .with_definitions(adopting.apply(&objects(), DEADLINE, &quiet))
        .await
        .expect("applied");
    let config = cluster
        .get("v1", "ConfigMap", "rollout-test", "settings")
        .expect("a ConfigMap");
    assert_eq!(config["data"], json!({"theirs": "1", "mode": "fast"}));
    assert_eq!(config["metadata"]["annotations"], Value::Null);
    let removed = adopting
        .remove(&objects(), DEADLINE, &quiet)
        .await
        .expect("removed");
    assert_eq!(
        names(&removed.kept),
        ["ConfigMap rollout-test/settings", "Namespace rollout-test"]
    );
    assert_eq!(removed.gone.len(), 4);
    assert!(
        cluster
            .get("v1", "ConfigMap", "rollout-test", "settings")
            .is_some()
    );
    assert!(
        cluster
            .get("apps/v1", "DaemonSet", "rollout-test", "proxy")
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_removed_first_can_be_put_back() {
    let cluster = Cluster::new();
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-proxy", "namespace": "kube-system"}, "data": {"a": "b"}});
    cluster.server.create(config).expect("a ConfigMap");
    let rollout = Rollout::new(cluster.client().await, "run");
    let id = |kind: &str, api_version: &str| ObjectId {
        api_version: api_version.into(),
        kind: kind.into(),
        namespace: Some("kube-system".into()),
        name: "kube-proxy".into(),
    };
    let ids = [id("DaemonSet", "apps/v1"), id("ConfigMap", "v1")];
    let taken = rollout
        .remove_first(&ids, DEADLINE, &quiet)
        .await
        .expect("removed");
    assert_eq!(
        names(&[taken[0].id.clone()]),
        ["ConfigMap kube-system/kube-proxy"]
    );
    assert!(
        cluster
            .get("v1", "ConfigMap", "kube-system", "kube-proxy")
            .is_none()
    );
    rollout.restore(&taken, DEADLINE).await.expect("put back");
    rollout
        .restore(&taken, DEADLINE)
        .await
        .expect("put back twice");
    let back = cluster
        .get("v1", "ConfigMap", "kube-system", "kube-proxy")
        .expect("a ConfigMap");
    assert_eq!(back["data"], json!({"a": "b"}));
    assert_eq!(back["metadata"]["labels"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_that_the_cluster_does_not_take() {
    let cluster = Cluster::new();
    let rollout = Rollout::new(cluster.client().await, "run");
    let table = [
        (
            "{apiVersion: example.com/v1, kind: Gadget, metadata: {name: g}}",
            "the cluster has no kind Gadget in example.com/v1",
        ),
        (
            "{apiVersion: v1, kind: Gadget, metadata: {name: g}}",
            "the cluster has no kind Gadget in v1",
        ),
        (
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: nowhere}}",
            "failed to apply ConfigMap nowhere/c of f.yaml:1: ",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {type: Strange, ports: [{port: 80}]}}",
            "failed to apply Service s of f.yaml:1: ",
        ),
    ];
    for (text, want) in table {
        let objects = Object::parse("f.yaml", text).expect("an object");
        let error = rollout
            .apply(&objects, DEADLINE, &quiet)
            .await
            .expect_err(text);
        assert!(
            error.to_string().contains(want),
            "{error}\nshould contain: {want}"
        );
        assert_eq!(error.blame(), Blame::Usage, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_is_followed_to_its_end() {
    let (cluster, rollout) = applied().await;
    let told = Mutex::new(Vec::new());
    // The test is the controller: it goes on when it sees that its last word was heard.
    let tell = |progress: Progress| {
        assert_eq!(progress.what, "DaemonSet rollout-test/proxy");
        match progress.state.as_str() {
            "no controller has seen it yet" => cluster.daemon_set_status(2, 0),
            "0 of 2 updated Pods available" => cluster.daemon_set_status(2, 2),
            _ => {}
        }
        told.lock().expect("a list").push(progress.state);
    };
    rollout
        .wait(&[proxy()], DEADLINE, &tell)
        .await
        .expect("rolled out");
    assert_eq!(
        *told.lock().expect("a list"),
        [
            "no controller has seen it yet",
            "0 of 2 updated Pods available",
            "rolled out"
        ]
    );
    // What is rolled out is so at once.
    rollout
        .wait(&[proxy()], DEADLINE, &quiet)
        .await
        .expect("rolled out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_gets_ready_is_the_candidates_fault_and_a_missing_image_is_not() {
    let (cluster, rollout) = applied().await;
    let pod = |reason: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "proxy-x", "namespace": "rollout-test", "labels": {"app": "proxy"}},
            "spec": {"nodeName": "w1", "containers": [{"name": "proxy", "image": "i"}]},
            "status": {"phase": "Pending", "containerStatuses": [{"name": "proxy", "image": "i", "imageID": "", "ready": false,
                "restartCount": 0, "state": {"waiting": {"reason": reason}}}]},
        })
    };
    cluster
        .server
        .apply(pod("CrashLoopBackOff"))
        .expect("a Pod");
    cluster.daemon_set_status(1, 0);
    let error = rollout
        .wait(&[proxy()], Duration::from_secs(8), &quiet)
        .await
        .expect_err("not ready");
    assert_eq!(error.blame(), Blame::Candidate);
    let text = error.to_string();
    assert!(text.starts_with("DaemonSet rollout-test/proxy was not ready within 8 s: 0 of 1 updated Pods available; proxy-x on w1: CrashLoopBackOff\n  Pod proxy-x on w1: Pending\n    container proxy: waiting: CrashLoopBackOff"), "{text}");

    // Not waited for until the deadline: it is never tried again.
    cluster
        .server
        .apply(pod("ErrImageNeverPull"))
        .expect("a Pod");
    let error = rollout
        .wait(&[proxy()], DEADLINE * 10, &quiet)
        .await
        .expect_err("no image");
    assert!(matches!(error, Error::Image { .. }), "{error}");
    assert_eq!(error.blame(), Blame::Infra);
    // One that is tried again is, at the deadline at the latest.
    cluster
        .server
        .apply(pod("ImagePullBackOff"))
        .expect("a Pod");
    let error = rollout
        .wait(&[proxy()], Duration::from_secs(3), &quiet)
        .await
        .expect_err("no image");
    assert!(matches!(error, Error::Image { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_is_gone_is_nobodys_candidate() {
    let (cluster, rollout) = applied().await;
    cluster.server.faults().outage(true);
    let error = rollout
        .wait(&[proxy()], Duration::from_secs(3), &quiet)
        .await
        .expect_err("an outage");
    assert!(matches!(error, Error::Api { .. }), "{error}");
    let error = rollout
        .apply(&objects(), Duration::from_secs(3), &quiet)
        .await
        .expect_err("an outage");
    assert!(matches!(error, Error::Api { .. }), "{error}");
    assert_eq!(error.blame(), Blame::Infra);
    cluster.server.faults().outage(false);
    rollout
        .apply(&objects(), DEADLINE, &quiet)
        .await
        .expect("applied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_finalizer_holds_is_told() {
    let cluster = Cluster::new();
    let rollout = Rollout::new(cluster.client().await, "run");
    let text =
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: held, finalizers: [example.com/hold]}}";
    let objects = Object::parse("f.yaml", text).expect("an object");
    rollout
        .apply(&objects, DEADLINE, &quiet)
        .await
        .expect("applied");
    let error = rollout
        .remove(&objects, Duration::from_secs(2), &quiet)
        .await
        .expect_err("held");
    assert_eq!(
        error.to_string(),
        "failed to remove within 2 s: ConfigMap held (held by example.com/hold)"
    );
}

/// The same life on a real API server, of which definitions and controllers are its own matter. Nothing has to run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_real_cluster() {
    let Some(path) = std::env::var_os("HARNESS_ROLLOUT_KUBECONFIG") else {
        eprintln!("skipped: HARNESS_ROLLOUT_KUBECONFIG names no kubeconfig of a real cluster");
        return;
    };
    let kubeconfig = Kubeconfig::read_from(path).expect("a kubeconfig");
    let rollout = Rollout::new(client(kubeconfig).await, "rollout-test");
    rollout
        .apply(&objects(), DEADLINE, &quiet)
        .await
        .expect("applied");
    rollout
        .apply(&objects(), DEADLINE, &quiet)
        .await
        .expect("applied again");
    let error = rollout
        .wait(&[proxy()], Duration::from_secs(20), &quiet)
        .await
        .expect_err("no such image");
    assert!(
        matches!(error, Error::Image { .. } | Error::NotReady { .. }),
        "{error}"
    );
    eprintln!("{error}");
    let removed = rollout
        .remove(&objects(), DEADLINE, &quiet)
        .await
        .expect("removed");
    assert_eq!(removed.gone.len(), objects().len(), "{removed:?}");
    assert_eq!(
        rollout.leftovers(false, DEADLINE).await.expect("a list"),
        []
    );
}
