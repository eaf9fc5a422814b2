//! Manifests with a `cluster:` section: what is read, what is refused, and what becomes of it.

use std::fs;

use super::*;
use crate::{
    candidate::{Candidate, Form},
    scenario::Feature,
};

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).expect("the test's own file");
    path.display().to_string()
}

fn read(text: &str) -> Result<Candidate, CandidateError> {
    Candidate::from_text_as("m.yaml", text, None, Form::Cluster)
}

fn render(candidate: &Candidate) -> Result<Vec<Rendered>, CandidateError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(
        candidate
            .installation()
            .render(&ClusterVariables::example()),
    )
}

#[test]
fn messages_say_what_and_where() {
    let table = [
        (
            "name: x\nprocess: {command: []}\n",
            "m.yaml:1: has no 'cluster', and on a real cluster",
        ),
        (
            "name: x\ncluster: {proxymode: none}\n",
            "m.yaml:2: unknown field `proxymode`",
        ),
        (
            "name: x\ncluster: {proxyMode: userspace}\n",
            "m.yaml:2: unknown variant `userspace`",
        ),
        (
            "name: x\ncluster:\n  manifests:\n    - {file: a, inline: b}\n",
            "m.yaml:4: say exactly one of 'file'",
        ),
        (
            "name: x\ncluster:\n  manifests:\n    - {command: []}\n",
            "m.yaml:4: 'command' names no program",
        ),
        (
            "name: x\ncluster:\n  manifests:\n    - {file: no-such.yaml}\n",
            "m.yaml:4: there is no file '",
        ),
        (
            "name: x\ncluster:\n  manifests:\n    - {kustomize: no-such}\n",
            "m.yaml:4: there is no directory '",
        ),
        (
            "name: x\ncluster:\n  manifests:\n    - command: [no-such-program]\n",
            "needs 'no-such-program' on PATH",
        ),
        (
            "name: x\ncluster:\n  manifests:\n    - command: [sh, \"$(NODE_NAME)\"]\n",
            "m.yaml:4: unknown variable '$(NODE_NAME)' (write '$$(NODE_NAME)'",
        ),
        (
            "name: x\ncluster:\n  # $(POD_NAME) is a comment.\n  manifests:\n    - inline: |\n        a: 1\n        b: $(POD_NAME)\n",
            "m.yaml:7: unknown variable '$(POD_NAME)'",
        ),
        (
            "name: x\ncluster:\n  manifests:\n    - inline: |\n        image: $(IMAGE:probe)\n",
            "m.yaml:5: 'images' does not have '- name: probe'",
        ),
        (
            "name: x\ncluster:\n  manifests:\n    - inline: $(IMAGE:proxy)\n",
            "m.yaml:4: there is no image 'proxy' of the harness",
        ),
        (
            "name: x\ncluster:\n  images:\n    - archive: $(ENV:HARNESS_TEST_UNSET)\n",
            "m.yaml:4: the environment variable HARNESS_TEST_UNSET is not set",
        ),
        (
            "name: x\ncluster:\n  images:\n    - archive: no-such.tar\n",
            "m.yaml:4: there is no image archive '",
        ),
        (
            "name: x\ncluster:\n  images:\n    - name: proxy\n",
            "m.yaml:4: unknown variant `proxy`",
        ),
        (
            "name: x\ncluster:\n  ready:\n    - daemonSet: kube-proxy\n",
            "m.yaml:4: 'kube-proxy' is not NAMESPACE/NAME",
        ),
        (
            "name: x\ncluster:\n  removeFirst:\n    - {kind: DaemonSet, name: x}\n",
            "m.yaml:4: say either 'installed: kube-proxy'",
        ),
        (
            "name: x\ncluster:\n  pods: {namespace: kube-system, selector: \"\"}\n",
            "m.yaml:3: 'pods' needs a namespace and a selector",
        ),
        (
            "name: x\ncluster:\n  files:\n    - {name: ../a, content: b}\n",
            "m.yaml:4: '../a' is not a file name",
        ),
        (
            "name: x\ncluster:\n  also: [no-such.yaml]\n",
            "no-such.yaml: cannot be read",
        ),
    ];
    for (text, want) in table {
        let message = read(text).expect_err(text).to_string();
        assert!(message.contains(want), "{message}\nshould contain: {want}");
    }
}

#[test]
fn every_kind_of_source_is_rendered() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    write(
        directory,
        "others.yaml",
        "# $(NODE_NAME) at $(API_SERVER_URL)\n",
    );
    let path = write(
        directory,
        "m.yaml",
        "name: x\ncluster:\n  files:\n    - {name: f, content: \"$(CLUSTER_NAME) $(IP_FAMILIES)\"}\n  images:\n    - name: probe\n  manifests:\n\
         \x20   - file: others.yaml\n    - {file: others.yaml, variables: none}\n    - command: [sh, -c, 'cat \"$1\"; pwd; echo \"$$(X) $KUBECONFIG\"', sh, $(DIR)/f]\n\
         \x20   - inline: \"# $(IMAGE:probe) $$(NODE_NAME) $(CLUSTER_CIDR) $(SERVICE_CIDR_IPV6) $(IPV4)\"\n",
    );
    let candidate = Candidate::load_as(&path, Form::Cluster).expect("a candidate");
    let rendered = render(&candidate).expect("rendered");
    let texts: Vec<&str> = rendered.iter().map(|one| one.text.as_str()).collect();
    let here = directory.canonicalize().expect("a directory");
    let command = format!("example IPv4,IPv6{}\n /dev/null\n", here.display());
    assert_eq!(
        texts,
        [
            "# $(NODE_NAME) at https://example-control-plane:6443\n",
            "# $(NODE_NAME) at $(API_SERVER_URL)\n",
            // The shell ran what was written for it.
            command.as_str(),
            "# example.invalid/probe:example $(NODE_NAME) 10.244.0.0/16,fd00:10:244::/56 fd00:10:96::/112 true",
        ]
    );
    assert_eq!(
        candidate.installation().images().expect("images"),
        [Image::Own(OwnImage::Probe)]
    );
}

#[test]
fn a_command_that_fails_is_told_with_its_last_words() {
    let table = [
        ("[sh, -c, \"echo no chart >&2; exit 3\"]", "no chart"),
        ("[\"true\"]", "it printed nothing"),
    ];
    for (command, want) in table {
        let text = format!("name: x\ncluster:\n  manifests:\n    - command: {command}\n");
        let error = render(&read(&text).expect("a candidate")).expect_err(want);
        assert!(matches!(error, CandidateError::Command { .. }), "{error}");
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn those_installed_together_are_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    write(
        directory,
        "policies.yaml",
        "name: policies\ncluster:\n  featureGates: {A: true}\n  deadline: 7m\n  manifests: [{inline: \"# policies\"}]\n  ready: [{deployment: a/policies}]\n",
    );
    let both = write(
        directory,
        "both.yaml",
        "name: both\ncluster:\n  also: [reference, policies.yaml]\n  removeFirst: [{installed: kindnet}]\n  manifests: [{inline: \"# own\"}]\n",
    );
    let candidate = Candidate::load_as(&both, Form::Cluster).expect("a candidate");
    let all = candidate.installation();
    let sources: Vec<String> = render(&candidate)
        .expect("rendered")
        .into_iter()
        .map(|one| one.source)
        .collect();
    assert_eq!(sources.len(), 3);
    assert!(
        sources[0] == "reference" && sources[1].ends_with("/policies.yaml") && sources[2] == both,
        "{sources:?}"
    );
    // The first one is the proxy.
    assert_eq!(
        all.pods().expect("Pods").selector,
        "app.kubernetes.io/name=reference-proxy"
    );
    assert_eq!(all.ready().len(), 3);
    assert_eq!(all.deadline(), Duration::from_mins(7));
    assert_eq!(all.remove_first()[0].name, "kindnet");
    assert_eq!(all.feature_gates(), BTreeMap::from([("A".into(), true)]));
    assert_eq!(
        all.images().expect("images"),
        [Image::Own(OwnImage::ReferenceProxy)]
    );
    // What is installed beside it is a part of what was certified.
    let alone = Candidate::load_as("reference", Form::Cluster).expect("a candidate");
    assert_ne!(candidate.manifest_digest(), alone.manifest_digest());

    write(
        directory,
        "mode.yaml",
        "name: mode\ncluster: {proxyMode: ipvs}\n",
    );
    let modes = "name: x\ncluster:\n  proxyMode: nftables\n  also: [mode.yaml]\n";
    let modes = Candidate::load_as(&write(directory, "modes.yaml", modes), Form::Cluster);
    assert!(
        modes
            .expect_err("two modes")
            .to_string()
            .contains("different modes")
    );
    let circle = write(directory, "a.yaml", "name: a\ncluster: {also: [b.yaml]}\n");
    write(directory, "b.yaml", "name: b\ncluster: {also: [a.yaml]}\n");
    let error = Candidate::load_as(&circle, Form::Cluster).expect_err("a circle");
    assert!(
        error
            .to_string()
            .contains("'a.yaml' is installed together with itself"),
        "{error}"
    );
}

#[test]
fn each_form_has_its_own_features() {
    let text = "name: x\nunsupported:\n  - {feature: sctp, reason: everywhere}\n  - {feature: largeTransactions, reason: in namespaces, form: process}\n\
        process: {command: [], cleanupArgs: []}\ncluster: {}\n";
    let process = Candidate::from_text("m.yaml", text, None).expect("a candidate");
    let cluster = read(text).expect("a candidate");
    let table = [
        (Feature::Sctp, true, true),
        (Feature::LargeTransactions, true, false),
        (Feature::NodePortAddresses, false, true),
        (Feature::Cleanup, false, true),
        (Feature::Healthz, false, true),
        (Feature::ExternalIps, false, false),
    ];
    for (feature, in_process, in_cluster) in table {
        assert_eq!(process.lacks(feature).is_some(), in_process, "{feature:?}");
        assert_eq!(cluster.lacks(feature).is_some(), in_cluster, "{feature:?}");
    }
    let healthy = "name: x\ncluster:\n  ready: [{http: {port: 1, path: /}}]\n";
    assert_eq!(
        read(healthy).expect("a candidate").lacks(Feature::Healthz),
        None
    );
}

#[test]
fn what_is_built_in_has_a_cluster_form() {
    for (name, patient) in [
        ("reference", true),
        ("canary", true),
        ("null", false),
        ("installed", true),
    ] {
        let candidate = Candidate::load_as(name, Form::Cluster).expect(name);
        assert_eq!(candidate.manifest.name, name);
        // Nobody waits for a candidate that does nothing, but for one that is there already.
        assert_eq!(candidate.patience.is_none(), patient, "{name}");
        let installs = ["reference", "canary"].contains(&name);
        assert_eq!(candidate.installation().is_empty(), !installs);
    }
    let error = Candidate::load("installed").expect_err("no process");
    assert!(error.to_string().contains("has no 'process'"), "{error}");
}

/// What is no YAML, or no object, is known before there is a cluster, with the line where it is.
#[test]
fn what_is_no_object_is_told_with_its_line() {
    let root = tempfile::tempdir().expect("a directory");
    let directory = root.path();
    write(
        directory,
        "broken.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a\ndata: {}\n",
    );
    write(
        directory,
        "nameless.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Secret\n",
    );
    let of_file = |file: &str| format!("name: x\ncluster:\n  manifests: [{{file: {file}}}]\n");
    let inline = |text: &str| {
        let lines: Vec<String> = text.lines().map(|line| format!("        {line}")).collect();
        format!(
            "name: x\ncluster:\n  manifests:\n    - inline: |\n{}\n",
            lines.join("\n")
        )
    };
    for (name, text, says) in [
        ("a.yaml", of_file("broken.yaml"), "broken.yaml:4: "),
        (
            "b.yaml",
            of_file("nameless.yaml"),
            "nameless.yaml:5: a Secret without metadata.name",
        ),
        (
            "c.yaml",
            inline("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\nkind: Secret"),
            "c.yaml:9: a document without apiVersion and kind",
        ),
        (
            "d.yaml",
            inline("apiVersion: v1\nkind: [ConfigMap"),
            "d.yaml:",
        ),
    ] {
        let path = write(directory, name, &text);
        let error = Candidate::load_as(&path, Form::Cluster).expect_err(name);
        let told = error.to_string();
        assert!(told.contains(says), "{told}\nshould contain: {says}");
        assert!(!told.contains('\n'), "{told}");
    }
}

#[test]
fn objects_know_their_lines_in_the_manifest() {
    let text = "name: x\ncluster:\n  manifests:\n    - inline: |\n        apiVersion: v1\n        kind: ConfigMap\n        metadata: {name: $(CLUSTER_NAME)}\n        ---\n        apiVersion: v1\n        kind: ConfigMap\n        metadata: {name: b}\n";
    let candidate = read(text).expect("a candidate");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let variables = ClusterVariables::example();
    let rendered = runtime.block_on(candidate.installation().render(&variables));
    let rendered = rendered.expect("YAML");
    let objects = rendered[0].objects().expect("objects");
    let places: Vec<String> = objects.iter().map(rollout::Object::place).collect();
    assert_eq!(places, ["m.yaml:5", "m.yaml:9"]);
}

/// An experiment that gives a candidate more time gives it that to be installed, too.
#[test]
fn a_stretched_candidate_has_longer_to_be_installed() {
    let text = "name: x\ncluster: {deadline: 90s, ready: [{daemonSet: kube-system/x}]}\n";
    let candidate = read(text).expect("a candidate");
    assert_eq!(candidate.installation_deadline(), Duration::from_secs(90));
    // What is there already is waited for, too.
    assert!(candidate.installation().is_empty() && candidate.installation().has_workloads());
    let stretched = candidate.stretched(4);
    assert_eq!(stretched.installation_deadline(), Duration::from_secs(360));
}
