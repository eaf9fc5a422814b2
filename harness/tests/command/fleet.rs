//! `ci/kubernetes/`: the manifests are ones that the Kubernetes API knows, and their scripts do what the README says, with
//! processes in place of pods.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Container, PersistentVolumeClaim},
    },
    serde::{Serialize, de::DeserializeOwned},
};
use serde_json::Value;

use crate::support::{directory, events, of_type, report, run, wait_for, worlds};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/kubernetes")
}

fn document(path: &str) -> Value {
    let text = fs::read_to_string(folder().join(path)).expect(path);
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Reads a manifest as a type of the API. The types ignore what they do not know, so it is compared with what comes out again.
fn typed<T: Serialize + DeserializeOwned>(path: &str) -> T {
    let document = document(path);
    let value: T =
        serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{path}: {error}"));
    let again = serde_json::to_value(&value).expect("a type of the API is JSON");
    let mut unknown = Vec::new();
    lost(path, &document, &again, &mut unknown);
    assert!(unknown.is_empty(), "the API does not know {unknown:?}");
    value
}

/// Fields that are not there any more. `$patch` is a directive of kustomize and no field.
pub(crate) fn lost(at: &str, before: &Value, after: &Value, unknown: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before.iter().filter(|(name, _)| *name != "$patch") {
                let at = format!("{at}.{name}");
                match after.get(name) {
                    Some(after) => lost(&at, value, after, unknown),
                    None => unknown.push(at),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (n, (before, after)) in before.iter().zip(after).enumerate() {
                lost(&format!("{at}[{n}]"), before, after, unknown);
            }
        }
        (before, after) if before == after => {}
        _ => unknown.push(at.to_owned()),
    }
}

fn container(job: &Job) -> &Container {
    let spec = job.spec.as_ref().expect("a spec");
    &spec.template.spec.as_ref().expect("a pod").containers[0]
}

fn environment(container: &Container) -> BTreeMap<String, String> {
    let all = container.env.iter().flatten();
    all.filter_map(|var| Some((var.name.clone(), var.value.clone()?)))
        .collect()
}

#[test]
fn the_api_knows_every_field() {
    let job: Job = typed("base/certify.yaml");
    let spec = job.spec.as_ref().expect("a spec");
    assert_eq!(spec.completion_mode.as_deref(), Some("Indexed"));
    let shards = environment(container(&job))["SHARDS"].clone();
    assert_eq!(spec.completions.map(|n| n.to_string()), Some(shards));
    assert_eq!(spec.completions, spec.parallelism);
    // Nothing is privileged.
    let pod = spec.template.spec.as_ref().expect("a pod");
    assert_eq!(pod.host_users, Some(false));
    let security = container(&job)
        .security_context
        .as_ref()
        .expect("a context");
    assert_eq!(
        (security.privileged, security.allow_privilege_escalation),
        (None, Some(false))
    );

    let claim: PersistentVolumeClaim = typed("base/results.yaml");
    let merge: Job = typed("merge.yaml");
    for job in [&job, &merge] {
        let pod = job
            .spec
            .as_ref()
            .and_then(|spec| spec.template.spec.as_ref());
        let volumes = pod.and_then(|pod| pod.volumes.as_ref()).expect("volumes");
        let claimed = volumes
            .iter()
            .find_map(|v| v.persistent_volume_claim.as_ref());
        assert_eq!(claimed.map(|c| &c.claim_name), claim.metadata.name.as_ref());
        let mounts = container(job).volume_mounts.as_ref().expect("mounts");
        let results = &environment(container(job))["RESULTS"];
        assert!(mounts.iter().any(|mount| mount.mount_path == *results));
    }

    // The patch changes the job of the base, and makes it privileged.
    let patch: Job = typed("privileged/certify.yaml");
    assert_eq!(patch.metadata.name, job.metadata.name);
    assert_eq!(container(&patch).name, container(&job).name);
    let security = container(&patch)
        .security_context
        .as_ref()
        .expect("a context");
    assert_eq!(security.privileged, Some(true));
    for kustomization in ["base", "privileged"] {
        let document = document(&format!("{kustomization}/kustomization.yaml"));
        let resources = document["resources"].as_array().expect("resources").iter();
        let patches = document["patches"].as_array().into_iter().flatten();
        for path in resources.chain(patches.map(|patch| &patch["path"])) {
            let path = path.as_str().expect("a path");
            assert!(folder().join(kustomization).join(path).exists(), "{path}");
        }
    }
}

#[test]
fn a_misspelt_field_would_be_noticed() {
    let mut document = document("base/certify.yaml");
    document["spec"]["template"]["spec"]["hostUser"] = false.into();
    let job: Job = serde_json::from_value(document.clone()).expect("it is ignored");
    let mut unknown = Vec::new();
    let again = serde_json::to_value(job).expect("JSON");
    lost("job", &document, &again, &mut unknown);
    assert_eq!(unknown, ["job.spec.template.spec.hostUser"]);
}

/// What kustomize makes of them, where kubectl is there.
#[test]
fn kustomize_builds_both() {
    for (name, privileged) in [("base", Value::Null), ("privileged", true.into())] {
        let built = Command::new("kubectl")
            .arg("kustomize")
            .arg(folder().join(name))
            .output();
        let Ok(built) = built else {
            println!("skipped: no kubectl here");
            return;
        };
        assert!(built.status.success(), "{built:?}");
        let text = String::from_utf8(built.stdout).expect("text");
        let job = text
            .split("\n---\n")
            .find(|document| document.contains("kind: Job"))
            .expect("a job");
        let job: Job = serde_saphyr::from_str(job).expect("a job of the API");
        let container = serde_json::to_value(container(&job)).expect("JSON");
        assert_eq!(
            container["securityContext"]["privileged"], privileged,
            "{name}"
        );
        assert_ne!(container["image"], "harness", "the image is set");
        let dropped = &container["securityContext"]["capabilities"];
        assert_eq!(dropped.is_null(), name == "privileged", "{name}: {dropped}");
    }
}

/// A container's script as a process: the same environment, with these changes.
fn pod(job: &Job, root: &Path, changes: &[(&str, &str)]) -> Command {
    let bin = root.join("bin");
    if fs::create_dir(&bin).is_ok() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_harness"), bin.join("harness"))
            .expect("a link");
    }
    let container = container(job);
    let words = container.command.iter().chain(&container.args).flatten();
    let words: Vec<&String> = words.collect();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .current_dir(root)
        .env("PATH", format!("{}:{path}", bin.display()))
        .envs(environment(container))
        .env("RESULTS", root.join("results"))
        .envs(changes.iter().copied())
        .stdin(Stdio::null());
    command
}

fn finished(mut command: Command) -> Output {
    command.output().expect("sh runs")
}

/// Few cases, each several times.
const FEW: &[(&str, &str)] = &[
    ("SHARDS", "2"),
    ("RUNS", "3"),
    ("SEED", "7"),
    ("CERTIFY_ARGS", "--filter=clusterip-basic"),
];

fn shard(root: &Path, index: &str, pod_name: &str, more: &[(&str, &str)]) -> Command {
    let job: Job = typed("base/certify.yaml");
    let own = [("JOB_COMPLETION_INDEX", index), ("POD_NAME", pod_name)];
    pod(&job, root, &[FEW, &own, more].concat())
}

fn merged(root: &Path) -> Output {
    finished(pod(&typed("merge.yaml"), root, &[]))
}

#[test]
fn killed_and_restarted_shards_change_no_figure() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let root = directory.path();
    // One pod is killed while it works, with all of its processes, as when a node dies.
    let mut dying = shard(root, "0", "dying", &[])
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh runs");
    let log = root.join("results/shards/0-dying");
    wait_for("an attempt of the first pod", || {
        (!of_type(&events(&log), "attemptFinished").is_empty()).then_some(())
    });
    let group = nix::unistd::Pid::from_raw(-(dying.id() as i32));
    nix::sys::signal::kill(group, nix::sys::signal::Signal::SIGKILL).expect("it was there");
    dying.wait().expect("it is a child");
    // Without the other shard, and with a part of this one: incomplete.
    let some = merged(root);
    assert_eq!(some.status.code(), Some(4), "{some:?}");
    fs::remove_dir_all(root.join("results/merged")).expect("the merged run");

    for (index, name) in [("0", "again"), ("1", "other")] {
        let output = finished(shard(root, index, name, &[]));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    let all = merged(root);
    assert_eq!(all.status.code(), Some(0), "{all:?}");
    let report = report(&root.join("results/merged"));
    assert!(
        report["merged"]["dropped"].as_u64() > Some(0),
        "{}",
        report["merged"]
    );

    // The same as one run: every attempt once, with the same seed.
    let whole = [
        "certify",
        "--filter",
        "clusterip-basic",
        "--runs",
        "3",
        "--seed",
        "7",
        "--out",
        "whole",
    ];
    run(root, &whole).exits(0);
    assert_eq!(
        seeds(&report),
        seeds(&crate::support::report(&root.join("whole")))
    );
    assert_eq!(report["problems"], Value::Array(Vec::new()));
}

/// Case, number and seed of all attempts.
fn seeds(report: &Value) -> Vec<(String, u64, u64)> {
    let cases = report["cases"].as_array().expect("cases").iter();
    cases
        .flat_map(|case| {
            let attempts = case["attempts"].as_array().expect("attempts").iter();
            attempts.map(|attempt| {
                let id = case["id"].as_str().unwrap_or_default().to_owned();
                let number = |field: &str| attempt[field].as_u64().unwrap_or_default();
                (id, number("attempt"), number("seed"))
            })
        })
        .collect()
}

#[test]
fn a_failing_shard_is_done_and_the_merged_run_fails() {
    if !worlds() {
        return;
    }
    let directory = directory();
    let root = directory.path();
    let more = [("CANDIDATE", "null"), ("RUNS", "1")];
    for index in ["0", "1"] {
        let output = finished(shard(root, index, "pod", &more));
        assert_eq!(
            output.status.code(),
            Some(0),
            "nothing is run again: {output:?}"
        );
    }
    let output = merged(root);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    // Bad input ends the Job.
    let output = finished(shard(root, "1", "wrong", &[("PROFILE", "nobody")]));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
