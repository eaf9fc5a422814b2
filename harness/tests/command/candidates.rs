//! `ci/candidates/`: every manifest is read, what it installs is objects that the API knows, and upstream's files are fetched by commit.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use harness::candidate::{
    ClusterVariables, Manifest,
    cluster::{Condition, ManifestSource, Origin, VariablePolicy},
};
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use rollout::Object;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    fleet::lost,
    scripts::program,
    support::{directory, write},
};

/// Name without `.yaml`, text, and the manifest.
fn manifests() -> Vec<(String, String, Manifest)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/candidates");
    let mut all: Vec<_> = fs::read_dir(folder)
        .expect("ci/candidates")
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|end| end == "yaml"))
        .map(|entry| {
            let path = entry.path();
            let text = fs::read_to_string(&path).expect("a manifest");
            let manifest = serde_saphyr::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let name = path.file_stem().expect("a name").to_string_lossy();
            (name.into_owned(), text, manifest)
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The objects of a manifest's own, without those of upstream.
fn inline(manifest: &Manifest) -> Vec<Object> {
    let cluster = manifest.cluster.iter();
    cluster
        .flat_map(|cluster| &cluster.manifests)
        .filter_map(|source| match source {
            ManifestSource {
                origin: Origin::Inline(text),
                variables: VariablePolicy::Strict,
            } => Some(text),
            _ => None,
        })
        .flat_map(|text| {
            let text = ClusterVariables::example()
                .substitute(text, VariablePolicy::Strict)
                .unwrap_or_else(|error| panic!("{}: {error}", manifest.name));
            Object::parse(&manifest.name, &text).unwrap_or_else(|error| panic!("{error}"))
        })
        .collect()
}

/// Checks that a type of the API has every field of an object.
fn known<T: DeserializeOwned + Serialize>(at: &str, value: &Value) -> T {
    let typed: T =
        serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{at}: {error}"));
    let again = serde_json::to_value(&typed).expect("a type of the API is JSON");
    let mut unknown = Vec::new();
    lost("", value, &again, &mut unknown);
    unknown.retain(|field| field != ".apiVersion" && field != ".kind");
    assert!(
        unknown.is_empty(),
        "{at}: the API does not know {unknown:?}"
    );
    typed
}

#[test]
fn every_system_people_care_about_has_a_manifest() {
    let names: Vec<String> = manifests().into_iter().map(|(name, ..)| name).collect();
    for wanted in [
        "antrea",
        "calico-ebpf",
        "cilium",
        "kindnet",
        "knls",
        "kpng-ebpf",
        "kpng-iptables",
        "kpng-ipvs",
        "kpng-nft",
        "kube-proxy-iptables",
        "kube-proxy-ipvs",
        "kube-proxy-nftables",
        "kube-router",
        "null",
        "ovn-kubernetes",
        "reference",
        "reference+kube-network-policies",
    ] {
        assert!(names.iter().any(|name| name == wanted), "{wanted}");
    }
    let docs =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/candidates.md"))
            .expect("docs");
    for name in &names {
        assert!(
            docs.contains(&format!("`{name}`")),
            "docs/candidates.md does not name {name}"
        );
    }
}

#[test]
fn manifests_say_what_they_are_and_when_they_were_tried() {
    for (name, text, manifest) in manifests() {
        assert_eq!(manifest.name, name);
        if ["canary", "null", "installed"].contains(&name.as_str()) {
            continue;
        }
        assert!(
            text.contains("\n# Last tried: "),
            "{name} does not say when it was tried"
        );
        let pinned = manifest.version.is_some() || name.starts_with("kube-proxy-");
        assert!(pinned, "{name} has no version");
        let cluster = manifest
            .cluster
            .as_ref()
            .unwrap_or_else(|| panic!("{name} has no cluster form"));
        assert!(
            !cluster.ready.is_empty() || !cluster.also.is_empty(),
            "{name} is ready at once"
        );
        for one in &manifest.unsupported {
            assert!(
                one.reason.len() > 10,
                "{name}: {:?} has no reason",
                one.feature
            );
        }
        // A proxy whose Pods nobody knows cannot be restarted, and leaves no log.
        let proxy = name != "kube-network-policies" && cluster.also.is_empty();
        assert!(cluster.pods.is_some() == proxy, "{name}");
    }
}

#[test]
fn the_api_knows_every_field_of_our_own_objects() {
    let mut seen = BTreeMap::new();
    for (name, _, manifest) in manifests() {
        let objects = inline(&manifest);
        for object in &objects {
            let (at, value) = (format!("{name}: {}", object.id), &object.value);
            *seen.entry(object.id.kind.clone()).or_insert(0) += 1;
            match object.id.kind.as_str() {
                "ServiceAccount" => drop(known::<ServiceAccount>(&at, value)),
                "ConfigMap" => drop(known::<ConfigMap>(&at, value)),
                "ClusterRole" => drop(known::<ClusterRole>(&at, value)),
                "ClusterRoleBinding" => {
                    let binding: ClusterRoleBinding = known(&at, value);
                    for subject in binding.subjects.iter().flatten() {
                        let account = objects.iter().any(|object| {
                            object.id.kind == "ServiceAccount" && object.id.name == subject.name
                        });
                        assert!(account, "{at}: there is no account {}", subject.name);
                    }
                }
                "DaemonSet" => proxy(&at, &manifest, &known(&at, value)),
                // Only for its labels.
                "Node" => {}
                other => panic!("{at}: nobody looks at a {other}"),
            }
        }
    }
    assert!(seen["DaemonSet"] >= 6, "{seen:?}");
}

/// What a proxy needs on a cluster without one.
fn proxy(at: &str, manifest: &Manifest, set: &DaemonSet) {
    let template = &set.spec.template;
    let labels = template
        .metadata
        .as_ref()
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    let selector = set.spec.selector.match_labels.clone().unwrap_or_default();
    assert!(
        selector
            .iter()
            .all(|label| labels.get(label.0) == Some(label.1)),
        "{at}: its selector matches nothing"
    );
    let cluster = manifest.cluster.as_ref().expect("it has objects");
    let pods = cluster.pods.as_ref().expect("it is a proxy");
    let own = |(label, value): (&str, &str)| labels.get(label).is_some_and(|have| have == value);
    assert!(
        pods.selector
            .split(',')
            .filter_map(|part| part.split_once('='))
            .all(own),
        "{at}: 'pods' matches nothing"
    );
    let namespace = set.metadata.namespace.as_deref().expect("a namespace");
    let set_name = set.metadata.name.as_deref().expect("a name");
    let waited = |condition: &Condition| matches!(condition, Condition::DaemonSet(one) if one.namespace == namespace && one.name == set_name);
    assert!(
        cluster.ready.iter().any(waited),
        "{at}: nobody waits for it"
    );
    let spec = template.spec.as_ref().expect("a Pod");
    assert_eq!(spec.host_network, Some(true), "{at}");
    let tolerates_all = |one: &k8s_openapi::api::core::v1::Toleration| {
        one.operator.as_deref() == Some("Exists") && one.key.is_none() && one.effect.is_none()
    };
    assert!(
        spec.tolerations.iter().flatten().any(tolerates_all),
        "{at}: it does not run everywhere"
    );
    for container in &spec.containers {
        let image = container.image.as_deref().unwrap_or_default();
        let tag = image
            .rsplit('/')
            .next()
            .and_then(|name| name.split_once(':'));
        assert!(
            tag.is_some_and(|(_, tag)| tag != "latest"),
            "{at}: '{image}' is not pinned"
        );
        assert_eq!(
            container.image_pull_policy.as_deref(),
            Some("IfNotPresent"),
            "{at}"
        );
    }
    assert!(
        spec.containers
            .iter()
            .any(|one| Some(&one.name) == pods.container.as_ref()),
        "{at}: it has no such container"
    );
    // Its own address, or nothing is reached before the proxy runs.
    let whole = serde_json::to_string(set).expect("JSON");
    let configured = inline(manifest).iter().any(|object| {
        object.id.kind == "ConfigMap" && object.value.to_string().contains("example-control-plane")
    });
    assert!(
        whole.contains("example-control-plane") || configured,
        "{at}: it asks for the API server's cluster IP"
    );
}

#[test]
fn upstream_is_fetched_by_commit_and_everything_that_is_used_is_fetched() {
    let sources =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/candidates/sources"))
            .expect("sources");
    let names: Vec<&str> = sources
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            assert!(
                fields.len() >= 5 && fields[1].starts_with("https://github.com/"),
                "{line}"
            );
            assert!(
                fields[3].len() == 40 && fields[3].chars().all(|c| c.is_ascii_hexdigit()),
                "{line}"
            );
            fields[0]
        })
        .collect();
    for (name, text, _) in manifests() {
        for (at, found) in text.match_indices("$(ENV:HARNESS_SOURCES)/") {
            let rest = &text[at + found.len()..];
            let used = &rest[..rest.find('/').expect("a file in it")];
            assert!(names.contains(&used), "{name}: nobody fetches {used}");
        }
    }
}

#[test]
fn fetch_takes_nothing_but_the_pinned_commit() {
    if Command::new("git").arg("--version").output().is_err() {
        println!("skipped: no git here");
        return;
    }
    let here = directory();
    let here = here.path();
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .current_dir(here.join("upstream"))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .args(["-c", "user.name=x", "-c", "user.email=x@example.com"])
            .args(arguments)
            .output()
            .expect("git runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout)
            .expect("text")
            .trim()
            .to_owned()
    };
    fs::create_dir_all(here.join("upstream/chart")).expect("a directory");
    fs::create_dir_all(here.join("upstream/other")).expect("a directory");
    fs::create_dir_all(here.join("ci/candidates")).expect("a directory");
    git(&["init", "--quiet"]);
    for setting in ["uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"] {
        git(&["config", setting, "true"]);
    }
    write(here, "upstream/chart/values.yaml", "old");
    write(here, "upstream/other/large", "x");
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message=old"]);
    let pinned = git(&["rev-parse", "HEAD"]);
    write(here, "upstream/chart/values.yaml", "new");
    git(&["commit", "--quiet", "--all", "--message=new"]);

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci");
    let copy = |name: &str| fs::read_to_string(folder.join(name)).expect(name);
    write(here, "ci/shared.sh", &copy("shared.sh"));
    let fetch = program(
        &here.join("ci/candidates"),
        "fetch",
        &copy("candidates/fetch"),
    );
    let upstream = format!("file://{}", here.join("upstream").display());
    let missing = "0123456789012345678901234567890123456789";
    write(
        here,
        "ci/candidates/sources",
        &format!("# NAME\nours {upstream} v1 {pinned} /chart\ngone {upstream} v1 {missing} .\n"),
    );
    let run = |names: &[&str]| {
        let output = Command::new(&fetch)
            .args(names)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env_remove("HARNESS_MIRROR")
            .env("HARNESS_SOURCES", here.join("sources"))
            .output()
            .expect("sh runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said, complained)
    };
    // Twice: what is there is left alone.
    for _ in 0..2 {
        let (code, said, complained) = run(&["ours"]);
        assert_eq!(code, Some(0), "{complained}");
        assert_eq!(
            said.trim_end(),
            here.join("sources/ours").display().to_string()
        );
        let values = fs::read_to_string(here.join("sources/ours/chart/values.yaml"));
        assert_eq!(values.expect("the chart"), "old");
        assert!(
            !here.join("sources/ours/other").exists(),
            "more than was asked for"
        );
        // A sign that it was not fetched again.
        write(here, "sources/ours/mark", "");
    }
    assert!(here.join("sources/ours/mark").exists());
    let (code, _, complained) = run(&[]);
    assert_eq!(code, Some(4), "{complained}");
    assert!(
        complained.contains(&format!("failed to get gone: commit {missing}")),
        "{complained}"
    );
    let (code, _, complained) = run(&["nobody"]);
    assert_eq!(code, Some(2));
    assert!(complained.contains("'nobody' is not in"), "{complained}");
}

/// A harness that writes down how it was called, leaves a report and ends as the environment says.
const STUB: &str = r#"#!/bin/sh
printf '%s sources=%s tag=%s\n' "$*" "${HARNESS_SOURCES:-}" "${HARNESS_OVN_IMAGE_TAG:-}" >>"$CALLS"
case $1 in
--version | doctor) exit 0 ;;
compare) echo 'one case differs'; exit 1 ;;
esac
provider= out=
while [ "$#" -gt 0 ]; do
    case $1 in
    --provider) provider=$2 ;;
    --out) out=$2 ;;
    esac
    shift
done
if [ "$provider" = netns ]; then
    [ "${NETNS:-0}" -ne 2 ] || exit 2
    code=${NETNS:-0}
else
    code=${KIND:-0}
fi
mkdir -p "$out"
printf '{\n  "conclusion": "conformant",\n  "exitCode": 0\n}\n' >"$out/report.json"
exit "$code"
"#;

#[test]
fn run_cluster_gets_what_a_manifest_asks_for_and_compares_what_can_be_compared() {
    let here = directory();
    let here = here.path();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci");
    fs::create_dir_all(here.join("ci/candidates")).expect("a directory");
    for name in ["run-cluster", "get-harness", "prepare-machine"] {
        let text = fs::read_to_string(folder.join(name)).expect(name);
        program(&here.join("ci"), name, &text);
    }
    let shared = fs::read_to_string(folder.join("shared.sh")).expect("shared.sh");
    write(here, "ci/shared.sh", &shared);
    program(
        &here.join("ci/candidates"),
        "fetch",
        "#!/bin/sh\necho \"fetch $*\" >>\"$CALLS\"\n",
    );
    let stub = program(here, "stub", STUB);
    let plain = write(
        here,
        "plain.yaml",
        "name: plain\n# $(ENV:HARNESS_SOURCES)/comment/x\ncluster: {}\n",
    );
    let needy = write(
        here,
        "needy.yaml",
        "name: needy\ncluster:\n  also: [reference, beside.yaml]\n  files: [$(ENV:HARNESS_OVN_IMAGE_TAG)]\n",
    );
    write(
        here,
        "beside.yaml",
        "name: beside\ncluster:\n  manifests:\n    - file: $(ENV:HARNESS_SOURCES)/kube-network-policies/install.yaml\n",
    );
    let run = |number: u32, candidate: &Path, kind: &str, netns: &str| {
        let (calls, out) = (
            here.join(format!("calls-{number}")),
            here.join(format!("out-{number}")),
        );
        let output = Command::new(here.join("ci/run-cluster"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs([
                ("CALLS", calls.as_os_str()),
                ("HARNESS_OUT", out.as_os_str()),
                ("HARNESS_BIN", stub.as_os_str()),
            ])
            .envs([("HARNESS_CANDIDATE", candidate.as_os_str())])
            .envs([
                ("KIND", kind),
                ("NETNS", netns),
                ("HARNESS_KIND_IMAGE", "node:v1"),
                ("HARNESS_CERTIFY_ARGS", "--seed\n7"),
            ])
            .output()
            .expect("sh runs");
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let calls = read(&calls).replace(&here.display().to_string(), "HERE");
        (output.status.code(), calls, read(&out.join("outputs")))
    };
    let (code, calls, outputs) = run(1, &plain, "1", "0");
    assert_eq!(
        code,
        Some(1),
        "the exit code is that of the run on the cluster"
    );
    let lines: Vec<&str> = calls
        .lines()
        .skip(2)
        .map(|line| line.trim_end_matches(" sources= tag="))
        .collect();
    assert_eq!(
        lines,
        [
            "certify --candidate HERE/plain.yaml --provider kind --out HERE/out-1/kind --image node:v1 --seed 7",
            "certify --candidate HERE/plain.yaml --provider netns --out HERE/out-1/netns",
            "compare HERE/out-1/netns HERE/out-1/kind --format markdown",
            "compare HERE/out-1/netns HERE/out-1/kind",
        ]
    );
    assert!(
        outputs.ends_with("certify=1\nconclusion=conformant\ncompared=yes\n"),
        "{outputs}"
    );

    let (code, calls, outputs) = run(2, &needy, "0", "2");
    assert_eq!(code, Some(0));
    assert!(
        calls.contains("\nfetch kube-network-policies\n") && calls.matches("fetch").count() == 1,
        "{calls}"
    );
    assert!(
        calls.contains("sources=HERE/out-2/sources tag=master"),
        "{calls}"
    );
    assert!(!calls.contains("compare"), "{calls}");
    assert!(outputs.ends_with("compared=no\n"), "{outputs}");
}
