//! `--provider kind` and `--provider kubeconfig`: what is said where there is no such cluster, and runs on a real one where there is.
//!
//! The real runs need a container engine, the `kind` command and a node image, which HARNESS_KIND_IMAGE names. Without it they say that they were
//! skipped.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::support::{Finished, directory, events, harness, of_type, report, run, write};

/// The node image of the real runs.
fn image() -> Option<String> {
    let image = std::env::var("HARNESS_KIND_IMAGE").ok();
    if image.is_none() {
        eprintln!(
            "skipped: no run on a real cluster, since HARNESS_KIND_IMAGE does not name a node image"
        );
    }
    image
}

/// The command with nothing of the tools that it looks for.
fn without_tools(root: &Path, args: &[&str]) -> Finished {
    let output = harness(root, args)
        .env("PATH", root)
        .env_remove("DOCKER_HOST")
        .env_remove("KIND_EXPERIMENTAL_PROVIDER")
        .output()
        .expect("the binary runs");
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

fn kubeconfig(root: &Path, context: &str, server: &str) {
    let text = format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: '{server}', insecure-skip-tls-verify: true}}}}]
users: [{{name: u, user: {{token: t}}}}]
contexts: [{{name: {context}, context: {{cluster: c, user: u}}}}]
current-context: {context}
"
    );
    write(root, "kubeconfig", &text);
}

#[test]
fn options_of_another_provider_are_a_mistake() {
    let root = directory();
    for (args, says) in [
        (&["--keep"][..], "--keep needs --provider kind"),
        (&["--reuse", "x"], "--reuse needs --provider kind"),
        (
            &["--provider", "kind", "--context", "x"],
            "--context needs --provider kubeconfig",
        ),
        (
            &["--candidate", "installed"],
            "it needs --provider kubeconfig",
        ),
        (
            &["--provider", "kind", "--candidate", "installed"],
            "it needs --provider kubeconfig",
        ),
        (
            &["--provider", "kubeconfig", "--candidate", "reference"],
            "--install",
        ),
        (
            &["--provider", "kubeconfig", "--candidate", "installed"],
            "needs --agent-image",
        ),
    ] {
        let finished = run(root.path(), &[&["certify"][..], args].concat());
        finished.exits(2).says(says);
    }
}

#[test]
fn a_cluster_is_not_touched_before_it_is_known() {
    let root = directory();
    let certify = |context: &str, server: &str, more: &[&str]| {
        kubeconfig(root.path(), context, server);
        let args = [
            "certify",
            "--provider",
            "kubeconfig",
            "--kubeconfig",
            "kubeconfig",
            "--candidate",
            "installed",
            "--agent-image",
            "example.invalid/harness:x",
        ];
        run(root.path(), &[&args[..], more].concat())
    };
    let nobody = "https://127.0.0.1:1";
    certify("lab", nobody, &[])
        .exits(4)
        .says("the API server of context lab (https://127.0.0.1:1) does not answer");
    certify("lab", nobody, &["--context", "other"])
        .exits(2)
        .says("the kubeconfig has no such context, but lab");
    certify("eu-prod", nobody, &[])
        .exits(2)
        .says("'eu-prod' looks like production");
    certify("lab", "https://api.live.example.invalid", &[])
        .exits(2)
        .says("--i-know-what-i-do");
    certify("eu-prod", nobody, &["--i-know-what-i-do"])
        .exits(4)
        .says("does not answer");
    fs::remove_file(root.path().join("kubeconfig")).unwrap();
    run(
        root.path(),
        &[
            "certify",
            "--provider",
            "kubeconfig",
            "--kubeconfig",
            "kubeconfig",
            "--candidate",
            "installed",
            "--agent-image",
            "x",
        ],
    )
    .exits(2)
    .says("--kubeconfig kubeconfig");
    assert!(
        !root.path().join("harness-out").exists(),
        "nothing was begun"
    );
}

#[test]
fn the_rights_are_printed_as_objects() {
    let root = directory();
    let printed = run(root.path(), &["cluster", "rbac", "--namespace", "tools"]).exits(0);
    let kinds: Vec<&str> = printed
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("kind: "))
        .collect();
    assert_eq!(
        kinds,
        ["ClusterRole", "ServiceAccount", "ClusterRoleBinding"]
    );
    assert!(printed.stdout.contains("pods/exec"), "{}", printed.stdout);
}

/// There is a report in any case, and it says why nothing was tested.
#[test]
fn without_kind_every_attempt_says_so() {
    let root = directory();
    let args = [
        "certify",
        "--provider",
        "kind",
        "--filter",
        "clusterip-basic",
        "--out",
        "out",
        "--no-classify",
    ];
    let finished = without_tools(root.path(), &args).exits(4);
    let out = root.path().join("out");
    let report = report(&out);
    assert_eq!(report["provider"], "kind");
    assert_eq!(report["totals"]["attempts"]["infra"], 4, "{finished:#?}");
    let setup = report["setup"].as_array().unwrap();
    let failed = setup[0]["failed"].as_str().unwrap();
    assert!(failed.contains("docker, podman or nerdctl"), "{failed}");
    // What was not made is not taken away.
    assert_eq!(setup.len(), 2, "{setup:#?}");
    let text = fs::read_to_string(out.join("report.md")).unwrap();
    assert!(text.contains("docker, podman or nerdctl"), "{text}");
}

#[test]
fn the_image_is_this_program_and_the_same_each_time() {
    let root = directory();
    let mut printed = Vec::new();
    for name in ["one.tar", "other.tar"] {
        let finished = run(root.path(), &["image", "--out", name]).exits(0);
        printed.push(finished.stdout.lines().next().unwrap().to_owned());
    }
    assert_eq!(printed[0], printed[1]);
    assert!(printed[0].starts_with("harness.local/harness:sha-"));
    let read = |name: &str| fs::read(root.path().join(name)).unwrap();
    assert!(read("one.tar") == read("other.tar"));
}

/// What `kind get clusters` prints.
fn clusters() -> String {
    let output = Command::new("kind").args(["get", "clusters"]).output();
    String::from_utf8(output.expect("kind runs").stdout).expect("text")
}

#[test]
fn a_kind_cluster_is_made_used_again_and_deleted() {
    let Some(image) = image() else {
        return;
    };
    let root = directory();
    let certify = |out: &str, filter: &str, more: &[&str]| {
        let args = [
            "certify",
            "--provider",
            "kind",
            "--image",
            &image,
            "--filter",
            filter,
            "--profile",
            "all",
            "--out",
            out,
        ];
        run(root.path(), &[&args[..], more].concat())
    };
    let before = clusters();
    let plain = "clusterip-basic or (proxy-restart and family=ipv4)";
    certify("first", plain, &["--keep"]).exits(0);
    let kept = clusters();
    let name = kept
        .lines()
        .find(|line| !before.lines().any(|known| known == *line))
        .expect("the cluster is kept")
        .to_owned();
    // What breaks the API, keeps the proxy away or stops it, and moves nodes into zones.
    let broken = "(watch-interrupted or missed-deletes or hints-same-zone) and family=ipv4";
    let all = format!("({plain}) or {broken}");
    certify("second", &all, &["--reuse", &name]).exits(0);
    for out in ["first", "second"] {
        let events = events(&root.path().join(out));
        let setup = of_type(&events, "setupFinished");
        let failed: Vec<&Value> = setup
            .iter()
            .map(|event| &event["failed"])
            .filter(|failed| !failed.is_null())
            .collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
    // The known-bad proxies were noticed before the candidate came, so a gate opens.
    for out in ["first", "second"] {
        let canaries = events(&root.path().join(out));
        let canaries = of_type(&canaries, "canaryFinished");
        let told: Vec<(&Value, &Value)> = canaries
            .iter()
            .map(|canary| (&canary["canary"], &canary["outcome"]))
            .collect();
        let caught = Value::from("caught");
        assert_eq!(
            told,
            [(&"null".into(), &caught), (&"canary".into(), &caught)]
        );
        run(root.path(), &["gate", out, "--min-cases", "1"]).exits(0);
    }
    // The cluster is as if no candidate had been there: one that does nothing fails.
    certify(
        "nothing",
        "clusterip-basic[ipv4,TCP]",
        &[
            "--reuse",
            &name,
            "--candidate",
            "null",
            "--no-canary",
            "--no-classify",
        ],
    )
    .exits(1);
    // A manifest that the cluster does not take is bad input, and there is a report.
    write(
        root.path(),
        "unknown.yaml",
        "name: unknown
cluster:
  manifests:
    - inline: |
        apiVersion: example.org/v1
        kind: Proxy
        metadata: {name: x, namespace: kube-system}
",
    );
    certify(
        "unknown",
        "clusterip-basic[ipv4,TCP]",
        &[
            "--reuse",
            &name,
            "--candidate",
            "unknown.yaml",
            "--no-canary",
        ],
    )
    .exits(2)
    .says("Proxy kube-system/x of unknown.yaml:5: the cluster has no kind Proxy");
    assert_eq!(
        report(&root.path().join("unknown"))["totals"]["attempts"]["infra"],
        1
    );
    // Cases have the same ids on every provider.
    let compared = run(root.path(), &["compare", "first", "second"]);
    assert!(matches!(compared.code, Some(0 | 1)), "{compared:#?}");
    run(root.path(), &["clean", &name]).exits(0);
    assert_eq!(clusters(), before, "nothing is left");
}
