//! The real `kubectl`, when it is installed.

use std::io::Write;
use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::process::Command;

use crate::support::Cluster;

struct Kubectl {
    cluster: Cluster,
    home: tempfile::TempDir,
}

impl Kubectl {
    /// A cluster and a `kubectl` for it; nothing, with the reason printed, when there is no `kubectl`.
    async fn new() -> Option<Self> {
        let found = Command::new("kubectl")
            .args(["version", "--client"])
            .stdout(Stdio::null())
            .status()
            .await;
        if !found.is_ok_and(|s| s.success()) {
            eprintln!("skipped: there is no kubectl in the PATH");
            return None;
        }
        let cluster = Cluster::new();
        let home = tempfile::tempdir().unwrap();
        let kubeconfig = cluster
            .server
            .kubeconfig("admin", cluster.serving.address());
        std::fs::write(home.path().join("kubeconfig"), kubeconfig).unwrap();
        Some(Kubectl { cluster, home })
    }

    async fn output(&self, arguments: &[&str], input: &str) -> Output {
        let mut file = tempfile::NamedTempFile::new_in(self.home.path()).unwrap();
        file.write_all(input.as_bytes()).unwrap();
        Command::new("kubectl")
            .args(arguments)
            .env("HOME", self.home.path())
            .env("KUBECONFIG", self.home.path().join("kubeconfig"))
            .stdin(file.reopen().unwrap())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap()
    }

    async fn run(&self, arguments: &[&str], input: &str) -> String {
        let output = self.output(arguments, input).await;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "kubectl {arguments:?}: {out}{err}");
        out.into_owned()
    }

    async fn fails(&self, arguments: &[&str], input: &str) -> String {
        let output = self.output(arguments, input).await;
        assert!(
            !output.status.success(),
            "kubectl {arguments:?} must fail: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn manifest(port: u16, labels: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  labels: {{{labels}}}\nspec:\n  type: NodePort\n  selector: {{app: web}}\n  ports:\n  - name: http\n    port: {port}\n"
    )
}

#[tokio::test]
async fn client_side_apply_and_the_rest_of_the_day() {
    let Some(kubectl) = Kubectl::new().await else {
        return;
    };
    assert_eq!(
        kubectl
            .run(&["apply", "-f", "-"], &manifest(80, "a: x, b: why"))
            .await
            .trim(),
        "service/web created"
    );
    assert_eq!(
        kubectl
            .run(&["apply", "-f", "-"], &manifest(80, "a: x, b: why"))
            .await
            .trim(),
        "service/web unchanged"
    );
    assert_eq!(
        kubectl
            .run(&["apply", "-f", "-"], &manifest(81, "a: x"))
            .await
            .trim(),
        "service/web configured"
    );
    let stored: Value =
        serde_json::from_str(&kubectl.run(&["get", "svc", "web", "-o", "json"], "").await).unwrap();
    assert_eq!(stored["spec"]["ports"].as_array().unwrap().len(), 1);
    assert_eq!(stored["spec"]["ports"][0]["port"], 81);
    assert_eq!(stored["metadata"]["labels"], serde_json::json!({"a": "x"}));

    let wide = kubectl
        .run(&["get", "services", "-o", "wide", "-A"], "")
        .await;
    let mut lines = wide.lines();
    let heading: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(
        heading,
        [
            "NAMESPACE",
            "NAME",
            "TYPE",
            "CLUSTER-IP",
            "EXTERNAL-IP",
            "PORT(S)",
            "AGE",
            "SELECTOR"
        ]
    );
    let row: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(
        (row[1], row[2], row[4], row[7]),
        ("web", "NodePort", "<none>", "app=web")
    );
    assert!(
        row[5].starts_with("81:3") && row[5].ends_with("/TCP"),
        "{wide}"
    );
    assert!(
        kubectl
            .run(&["get", "svc", "web", "-o", "yaml"], "")
            .await
            .contains("clusterIP: 10.96.")
    );
    assert!(
        kubectl
            .run(&["get", "endpointslices"], "")
            .await
            .contains("ADDRESSTYPE")
    );
    assert!(
        kubectl
            .run(&["get", "all", "-A"], "")
            .await
            .contains("service/web")
    );

    kubectl
        .run(&["label", "svc", "web", "tier=front"], "")
        .await;
    kubectl
        .run(&["annotate", "svc", "web", "note=hello"], "")
        .await;
    kubectl
        .run(
            &[
                "patch",
                "svc",
                "web",
                "-p",
                r#"{"spec":{"sessionAffinity":"ClientIP"}}"#,
            ],
            "",
        )
        .await;
    let described = kubectl.run(&["describe", "svc", "web"], "").await;
    for wanted in ["tier=front", "note: hello", "Session Affinity:", "ClientIP"] {
        assert!(described.contains(wanted), "{wanted} in {described}");
    }
    // `kubectl create namespace NAME` speaks protobuf and nothing else; manifests go out as JSON.
    kubectl
        .run(
            &["create", "-f", "-"],
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}",
        )
        .await;
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: team}\ndata: {k: v}";
    kubectl.run(&["create", "-f", "-"], map).await;
    assert_eq!(
        kubectl
            .run(&["get", "cm", "-n", "team", "-o", "name"], "")
            .await
            .trim(),
        "configmap/c"
    );
    kubectl.run(&["delete", "svc", "web"], "").await;
    assert!(
        kubectl
            .fails(&["get", "svc", "web"], "")
            .await
            .contains("(NotFound)")
    );
    kubectl.run(&["delete", "namespace", "team"], "").await;
    assert_eq!(
        kubectl
            .run(&["auth", "can-i", "create", "pods"], "")
            .await
            .trim(),
        "yes"
    );
    assert!(
        kubectl
            .run(&["api-resources"], "")
            .await
            .contains("endpointslices")
    );
    assert!(
        kubectl
            .run(&["explain", "service"], "")
            .await
            .contains("KIND:       Service")
    );
    assert!(
        kubectl
            .cluster
            .server
            .clients()
            .iter()
            .any(|c| c.user == "admin" && c.user_agent.starts_with("kubectl"))
    );
}

#[tokio::test]
async fn server_side_apply() {
    let Some(kubectl) = Kubectl::new().await else {
        return;
    };
    let apply = ["apply", "--server-side", "-f", "-"];
    assert_eq!(
        kubectl
            .run(&apply, &manifest(80, "a: x, b: why"))
            .await
            .trim(),
        "service/web serverside-applied"
    );
    kubectl.run(&apply, &manifest(80, "a: x")).await;
    let labels = kubectl
        .run(
            &["get", "svc", "web", "-o", "jsonpath={.metadata.labels}"],
            "",
        )
        .await;
    assert_eq!(labels, r#"{"a":"x"}"#);
    let other = ["apply", "--server-side", "--field-manager=other", "-f", "-"];
    let refused = kubectl.fails(&other, &manifest(80, "a: z")).await;
    assert!(refused.contains("conflict with \"kubectl\""), "{refused}");
    let force = [
        "apply",
        "--server-side",
        "--field-manager=other",
        "--force-conflicts",
        "-f",
        "-",
    ];
    kubectl.run(&force, &manifest(80, "a: z")).await;
    assert_eq!(
        kubectl
            .run(
                &["get", "svc", "web", "-o", "jsonpath={.metadata.labels.a}"],
                ""
            )
            .await,
        "z"
    );
}

#[tokio::test]
async fn invalid_objects_are_explained() {
    let Some(kubectl) = Kubectl::new().await else {
        return;
    };
    let refused = kubectl
        .fails(&["create", "-f", "-"], &manifest(0, ""))
        .await;
    assert!(
        refused.contains("is invalid") && refused.contains("spec.ports[0].port"),
        "{refused}"
    );
    kubectl.run(&["create", "-f", "-"], &manifest(80, "")).await;
    let exists = kubectl
        .fails(&["create", "-f", "-"], &manifest(80, ""))
        .await;
    assert!(exists.contains("(AlreadyExists)"), "{exists}");
}
