//! `harness upstream`: with a program in place of `e2e.test` that lists, runs and reports specs as that does, and the embedded API server in place of a
//! cluster, with a kubelet that the tests play.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use apiserver::{ApiServer, Config, Serving};
use serde_json::{Value, json};

use crate::{
    prepared::Prepared,
    support::{Finished, directory, run, write},
};

const BASIC: &str = "[sig-network] Services should serve a basic endpoint from pods [Conformance]";
const HEALTH: &str = "[sig-network] Services should implement NodePort and HealthCheckNodePort correctly when ExternalTrafficPolicy changes";

/// Writes a program that takes the arguments of `e2e.test`, and fails the specs whose names contain `fails`. `end` is what it does after that.
fn e2e_test(root: &Path, fails: &str, end: &str) {
    let text = format!(
        r#"#!/bin/sh
names='{BASIC}
{HEALTH}
[sig-network] Services should cope with [Feature:Ingress] things
[sig-node] Pods should be submitted [Conformance]'
for argument in "$@"; do
    case $argument in
    -list-tests)
        echo "The following spec names can be used with 'ginkgo run --focus/skip':"
        echo "$names" | sed 's|^|    test/e2e/some.go:1: |'
        exit 0 ;;
    -list-images)
        cat images 2>/dev/null
        exit 0 ;;
    -report-dir=*) dir=${{argument#*=}} ;;
    -ginkgo.focus=*) focus=${{argument#*=}} ;;
    -kubeconfig=*) [ -f "${{argument#*=}}" ] || exit 9 ;;
    -num-nodes=*) [ "${{argument#*=}}" = 2 ] || exit 9 ;;
    esac
done
{end}
{{
    echo '<testsuites><testsuite name="Kubernetes e2e suite" timestamp="2026-11-26T10:00:00">'
    echo '<testcase name="[BeforeSuite]" status="passed" time="0"></testcase>'
    echo "$names" | while IFS= read -r name; do
        # The real one puts the suite's name in front, too.
        if ! echo "Kubernetes e2e suite $name" | grep -Pq -- "$focus"; then
            echo "<testcase name=\"[It] $name\" status=\"skipped\" time=\"0\"><skipped message=\"skipped\"></skipped></testcase>"
            continue
        fi
        case $name in
        *'{fails}'*) echo "<testcase name=\"[It] $name\" status=\"failed\" time=\"2.5\"><failure message=\"no answer\" type=\"failed\"></failure></testcase>" ;;
        *) echo "<testcase name=\"[It] $name\" status=\"passed\" time=\"1.5\"></testcase>" ;;
        esac
    done
    echo '</testsuite></testsuites>'
}} >"$dir/junit_01.xml"
echo '• [1.500 seconds]'
echo '{BASIC}'
"#
    );
    let path = root.join("e2e.test");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A cluster of two nodes that run no Pods, but say of each image whether they have it.
struct Cluster {
    server: ApiServer,
    over: Arc<AtomicBool>,
    kubelet: Option<JoinHandle<()>>,
    _serving: Serving,
    _runtime: tokio::runtime::Runtime,
}

impl Cluster {
    /// Its kubeconfig is put into the directory. node2 has no image whose name contains `lacks`.
    fn new(root: &Path, lacks: &'static str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = ApiServer::new(Config::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let serving = {
            let _inside = runtime.enter();
            server.serve(listener).unwrap()
        };
        write(
            root,
            "kubeconfig",
            &server.kubeconfig("tester", serving.address()),
        );
        for node in ["node1", "node2"] {
            let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
            let mut object = server
                .create(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}))
                .unwrap();
            object["status"] = ready;
            server.update_status(object).unwrap();
        }
        let over = Arc::new(AtomicBool::new(false));
        let kubelet = std::thread::spawn({
            let (server, over) = (server.clone(), over.clone());
            move || {
                while !over.load(Ordering::Relaxed) {
                    kubelet(&server, lacks);
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self {
            server,
            over,
            kubelet: Some(kubelet),
            _serving: serving,
            _runtime: runtime,
        }
    }

    fn names(&self, kind: &str) -> Vec<String> {
        let list = self.server.list("v1", kind, None).unwrap();
        list.iter()
            .map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(kubelet) = self.kubelet.take() {
            let _ = kubelet.join();
        }
    }
}

/// What the kubelets write about Pods that they have not seen yet.
fn kubelet(server: &ApiServer, lacks: &str) {
    let pods = server.list("v1", "Pod", None).unwrap();
    for mut pod in pods {
        if pod["status"]["containerStatuses"].is_array() {
            continue;
        }
        let is_poor = pod["spec"]["nodeName"] == "node2";
        let containers = pod["spec"]["containers"].as_array().unwrap().clone();
        let statuses: Vec<Value> = containers
            .iter()
            .map(|container| {
                let image = container["image"].as_str().unwrap();
                let state = match is_poor && image.contains(lacks) {
                    true => json!({"waiting": {"reason": "ErrImageNeverPull", "message": "it is not here"}}),
                    false => json!({"terminated": {"reason": "StartError", "exitCode": 128}}),
                };
                json!({"name": container["name"], "image": image, "imageID": "", "ready": false, "restartCount": 0, "state": state})
            })
            .collect();
        pod["status"]["containerStatuses"] = json!(statuses);
        // It may have been deleted meanwhile.
        let _ = server.update_status(pod);
    }
}

fn upstream(root: &Path, args: &[&str]) -> Finished {
    let program = [
        "upstream",
        "--e2e-test",
        "./e2e.test",
        "--kubeconfig",
        "kubeconfig",
    ];
    run(root, &[&program[..], args].concat())
}

/// A run of ours in which the scenario that covers [`BASIC`] passes, or not.
fn ours(root: &Path, passes: bool) {
    let mut prepared = Prepared::new("ours", 1, None);
    let case = prepared.start.cases.first_mut().unwrap();
    case.scenario = "clusterip-basic".into();
    if !passes {
        prepared.fails = vec![("one[ipv4]", 1)];
    }
    prepared.write(&root.join("ours"));
}

#[test]
fn both_suites_are_held_beside_each_other() {
    let directory = directory();
    let root = directory.path();
    let _cluster = Cluster::new(root, "nothing");
    for (fails, passes, code, relation) in [
        ("nothing fails", true, 0, "both-pass"),
        ("serve a basic", true, 1, "only-upstream-fails"),
        ("nothing fails", false, 1, "only-ours-fails"),
        ("serve a basic", false, 1, "both-fail"),
    ] {
        let _ = fs::remove_dir_all(root.join("ours"));
        let _ = fs::remove_dir_all(root.join("out"));
        e2e_test(root, fails, "");
        ours(root, passes);
        let said = upstream(root, &["--report", "ours", "--out", "out"]).exits(code);
        let begun = said
            .stdout
            .starts_with("2 specs of the upstream suite, 1 left out\n");
        let progress = "\n• [1.500 seconds] [sig-network] Services should serve";
        assert!(begun && said.stdout.contains(progress), "{said:?}");
        let json = fs::read_to_string(root.join("out/upstream.json")).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        let rows = json["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 2, "{json:#}");
        let row = rows.iter().find(|row| row["name"] == BASIC).unwrap();
        assert_eq!(row["relation"], relation, "{row:#}");
        let left_out = json["leftOut"].as_object().unwrap();
        assert!(
            left_out
                .values()
                .all(|why| why.as_str().unwrap().contains("feature Ingress"))
        );
        for name in ["upstream.md", "e2e.log", "junit_01.xml"] {
            assert!(root.join("out").join(name).is_file(), "{name}");
        }
        // The same from the files that are there already.
        let args = [
            "upstream",
            "--junit",
            "out/junit_01.xml",
            "--report",
            "ours",
            "--out",
            "again",
        ];
        let _ = fs::remove_dir_all(root.join("again"));
        run(root, &args).exits(code);
    }
}

/// What `e2e.test -list-images` prints, shortened.
const IMAGES: &str = "registry.example/e2e-test-images/agnhost:2.63.0
registry.example/e2e-test-images/busybox:1.37.0-1
registry.example/e2e-test-images/regression-issue-74839:1.5
invalid.registry.example/invalid/alpine:3.1
";

#[test]
fn a_spec_whose_image_cannot_be_had_is_not_run_and_says_nothing() {
    let directory = directory();
    let root = directory.path();
    let unready = "[sig-network] Conntrack should be able to preserve UDP traffic when initial unready endpoints get ready";
    e2e_test(root, "nothing fails", "");
    let program = fs::read_to_string(root.join("e2e.test")).unwrap();
    let program = program.replacen("names='", &format!("names='{unready}\n"), 1);
    write(root, "e2e.test", &program);
    write(root, "images", IMAGES);

    let dry = upstream(root, &["--dry-run"]).exits(0);
    assert!(
        dry.stdout.contains(
            "images (2):\n  registry.example/e2e-test-images/agnhost:2.63.0: 3 specs\n  registry.example/e2e-test-images/busybox:1.37.0-1: 1 specs\n"
        ),
        "{dry:?}"
    );

    let one = Cluster::new(root, "busybox");
    let said = upstream(root, &["--out", "one"]).exits(4);
    assert!(
        said.stdout
            .contains("look for 2 images of the suite on 2 nodes"),
        "{said:?}"
    );
    assert!(
        said.stdout.contains(
            "busybox:1.37.0-1 cannot be had on node2: ErrImageNeverPull: it is not here; not run for it: 1 spec; with --kind, --load ARCHIVE"
        ),
        "{said:?}"
    );
    assert!(
        said.stdout
            .contains("# Upstream: 2 passed, 0 failed, 0 skipped themselves, 1 lacked an image"),
        "{said:?}"
    );
    let json = fs::read_to_string(root.join("one/upstream.json")).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    let rows = json["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["name"] == unready).unwrap();
    assert_eq!(
        (&row["relation"], &row["ended"]),
        (&json!("infra"), &json!("infra")),
        "{row:#}"
    );
    assert_eq!(
        json["images"][0]["nodes"]["node2"],
        "ErrImageNeverPull: it is not here"
    );
    let asked = fs::read_to_string(root.join("one/e2e.log")).unwrap();
    assert!(asked.contains(BASIC), "{asked}");
    // Nothing of it is left.
    assert!(
        one.names("Namespace")
            .iter()
            .all(|name| !name.starts_with("harness-")),
        "{:?}",
        one.names("Namespace")
    );
    assert_eq!(one.names("Pod"), [""; 0]);
    drop(one);

    // Without the image of all specs nothing is run.
    let none = Cluster::new(root, "e2e-test-images");
    let said = upstream(root, &["--out", "none"]).exits(4);
    assert!(
        said.stdout
            .contains("# Upstream: 0 passed, 0 failed, 0 skipped themselves, 3 lacked an image"),
        "{said:?}"
    );
    assert!(!root.join("none/e2e.log").exists());
    drop(none);

    let all = Cluster::new(root, "nothing");
    upstream(root, &["--out", "all"]).exits(0);
    drop(all);
}

#[test]
fn a_failure_for_want_of_an_image_is_none_of_the_candidate() {
    let directory = directory();
    let root = directory.path();
    let _cluster = Cluster::new(root, "nothing");
    e2e_test(root, "serve a basic", "");
    let program = fs::read_to_string(root.join("e2e.test")).unwrap();
    let event = r#"event for server: {kubelet node2} Failed: Failed to pull image &quot;r.example/x:1&quot;: no such host"#;
    let program = program.replace(
        "</failure></testcase>",
        &format!("</failure><system-err>{event}</system-err></testcase>"),
    );
    write(root, "e2e.test", &program);
    let said = upstream(root, &["--out", "out"]).exits(4);
    assert!(
        said.stdout.contains(
            "## Infrastructure: an image could not be had, and nothing is said about the proxy (1)"
        ),
        "{said:?}"
    );
    assert!(
        said.stdout
            .contains("**Images that could not be had**: `r.example/x:1`"),
        "{said:?}"
    );
    // The same from the file, long after.
    let args = ["upstream", "--junit", "out/junit_01.xml", "--out", "again"];
    run(root, &args).exits(4);
}

#[test]
fn a_cluster_is_looked_at_before_specs_run_on_it() {
    let directory = directory();
    let root = directory.path();
    e2e_test(root, "nothing fails", "");
    upstream(root, &["--out", "no-file"])
        .exits(2)
        .says("--kubeconfig kubeconfig");
    let cluster = Cluster::new(root, "nothing");
    upstream(root, &["--context", "other", "--out", "no-context"])
        .exits(2)
        .says("--kubeconfig kubeconfig");
    drop(cluster);
    upstream(root, &["--out", "nobody"])
        .exits(4)
        .says("list Nodes");
}

#[test]
fn what_is_chosen_is_told_before_anything_is_run() {
    let directory = directory();
    let root = directory.path();
    e2e_test(root, "nothing", "exit 8");
    run(
        root,
        &[
            "upstream",
            "--e2e-test",
            "./e2e.test",
            "--dry-run",
            "--reuse",
            "x",
        ],
    )
    .exits(2)
    .says("--reuse needs --kind");
    run(
        root,
        &[
            "upstream",
            "--e2e-test",
            "./e2e.test",
            "--kind",
            "--out",
            "kind",
        ],
    )
    .exits(2)
    .says("--kind needs --candidate");
    let on_kind = [
        "upstream",
        "--e2e-test",
        "./e2e.test",
        "--kind",
        "--candidate",
        "reference",
        "--out",
        "kind",
    ];
    run(
        root,
        &[&on_kind[..], &["--zones", "3", "--workers", "2"]].concat(),
    )
    .exits(2)
    .says("--zones 3 needs as many workers, and --workers says 2");
    run(
        root,
        &[&on_kind[..], &["--zones", "3", "--reuse", "x"]].concat(),
    )
    .exits(2)
    .says("cannot be used with");
    let narrowed = upstream(root, &["--dry-run", "--only", "basic endpoint"]).exits(0);
    assert!(
        narrowed.stdout.starts_with("run (1):"),
        "{}",
        narrowed.stdout
    );
    let plain = upstream(root, &["--dry-run"]).exits(0);
    assert!(
        plain
            .stdout
            .starts_with(&format!("run (2):\n  {HEALTH}\n  {BASIC}\n"))
            || plain.stdout.starts_with(&format!("run (2):\n  {BASIC}\n")),
        "{plain:?}"
    );
    assert!(
        plain
            .stdout
            .contains("--feature Ingress says that it is there"),
        "{plain:?}"
    );
    let all = upstream(root, &["--dry-run", "--feature", "Ingress"]).exits(0);
    assert!(all.stdout.contains("(not known to this suite)"), "{all:?}");
    let conformance = upstream(root, &["--dry-run", "--conformance"]).exits(0);
    assert!(
        conformance.stdout.contains("[sig-node] Pods"),
        "{conformance:?}"
    );
}

#[test]
fn a_run_without_an_answer_is_none() {
    let directory = directory();
    let root = directory.path();
    let _cluster = Cluster::new(root, "nothing");
    // It dies before it writes anything.
    e2e_test(root, "nothing", "exit 8");
    upstream(root, &["--out", "dead"])
        .exits(4)
        .says("left no JUnit file");
    // It ends before all have run.
    e2e_test(
        root,
        "nothing",
        "names='[sig-node] Pods should be submitted [Conformance]'",
    );
    let half = upstream(root, &["--out", "half"]).exits(4);
    assert!(
        half.stdout
            .contains("**Incomplete**: 2 chosen specs have no result"),
        "{half:?}"
    );
    upstream(root, &["--out", "half"])
        .exits(2)
        .says("it is not empty");

    write(root, "junit.xml", "<html/>");
    run(root, &["upstream", "--junit", "junit.xml", "--out", "html"])
        .exits(2)
        .says("no JUnit document");
    run(
        root,
        &[
            "upstream",
            "--e2e-test",
            "./nothing",
            "--kubeconfig",
            "kubeconfig",
            "--out",
            "none",
        ],
    )
    .exits(2)
    .says("cannot be started");
    run(
        root,
        &[
            "upstream",
            "--e2e-test",
            "/bin/true",
            "--kubeconfig",
            "kubeconfig",
            "--out",
            "true",
        ],
    )
    .exits(2)
    .says("is it an e2e.test of Kubernetes?");
}
