//! `ci/` and `.github/`: what CI systems read fits together with the scripts that it calls. The services themselves are not here, so whatever can be
//! known without them is checked: fields, inputs, paths, rights, and that no value gets into a command as text.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::Value;

use crate::fleet::lost;

/// Scripts that templates call.
const SCRIPTS: [&str; 9] = [
    "run-gate",
    "run-soak",
    "publish-soak",
    "get-harness",
    "prepare-machine",
    "restore-history",
    "flake-issues",
    "run-cluster",
    "get-cluster-tools",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All variables `HARNESS_NAME` in a text.
fn variables(text: &str) -> BTreeSet<&str> {
    let word = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.match_indices("HARNESS_")
        .map(|(at, _)| {
            let rest = &text[at..];
            &rest[..rest.find(|c| !word(c)).unwrap_or(rest.len())]
        })
        .collect()
}

/// What a script reads, and what the scripts read that it calls.
fn read_by(script: &str) -> BTreeSet<String> {
    let shared = text("ci/shared.sh");
    let mut scripts = vec![script];
    let mut read = BTreeSet::new();
    let mut at = 0;
    while let Some(script) = scripts.get(at) {
        let source = text(&format!("ci/{script}"));
        read.extend(variables(&source).into_iter().map(str::to_owned));
        // What is prepared for a run is in the part that they share.
        let calls = |other: &str| {
            let call = format!("\"$here/{other}\"");
            source.contains(&call) || (source.contains("\nprepared ") && shared.contains(&call))
        };
        let called = SCRIPTS.into_iter().filter(|other| calls(other));
        let called: Vec<&str> = called.filter(|other| !scripts.contains(other)).collect();
        scripts.extend(called);
        at += 1;
    }
    read.extend(variables(&shared).into_iter().map(str::to_owned));
    read
}

/// Values with a key, anywhere.
fn found<'a>(value: &'a Value, key: &str, into: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if name == key {
                    into.push(value);
                }
                found(value, key, into);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| found(value, key, into)),
        _ => {}
    }
}

fn all<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    let mut values = Vec::new();
    found(value, key, &mut values);
    values
}

fn keys(value: &Value) -> BTreeSet<&str> {
    let map = value.as_object().expect("a map");
    map.keys().map(String::as_str).collect()
}

/// Names that expressions take from a context, such as `inputs`.
fn used(text: &str, context: &str) -> BTreeSet<String> {
    let prefix = format!("{context}.");
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.match_indices(&prefix)
        .map(|(at, _)| {
            let rest = &text[at + prefix.len()..];
            rest[..rest.find(|c| !word(c)).unwrap_or(rest.len())].to_owned()
        })
        .collect()
}

/// Steps that run something: the script that each calls, and its environment.
fn steps(document: &Value) -> Vec<(String, BTreeSet<String>)> {
    let mut steps = Vec::new();
    for step in all(document, "steps")
        .into_iter()
        .flat_map(|steps| steps.as_array().expect("a list"))
    {
        let Some(run) = step["run"].as_str() else {
            let uses = step["uses"]
                .as_str()
                .expect("a step runs or uses something");
            assert!(
                uses.starts_with("actions/"),
                "{uses}: only GitHub's own actions"
            );
            assert!(uses.contains('@'), "{uses} has no version");
            continue;
        };
        // A value that came with a pull request would be run.
        assert!(!run.contains("${{"), "an expression is in a command: {run}");
        assert_eq!(run.lines().count(), 1, "logic belongs into a script: {run}");
        let env = step["env"].as_object().into_iter().flatten();
        steps.push((run.to_owned(), env.map(|(name, _)| name.clone()).collect()));
    }
    steps
}

#[test]
fn the_action_hands_every_input_to_the_script() {
    let source = text("ci/action/action.yml");
    let action = yaml("ci/action/action.yml");
    let declared: BTreeSet<String> = keys(&action["inputs"])
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(used(&source, "inputs"), declared);
    let steps = steps(&action["runs"]);
    let [(run, env)] = &steps[..] else {
        panic!("one command: {steps:?}");
    };
    let script = run
        .strip_prefix("exec \"$GITHUB_ACTION_PATH/../")
        .and_then(|rest| rest.strip_suffix('"'));
    let script = script.expect("a script beside the action's directory");
    assert!(root().join("ci/action/..").join(script).exists());
    // Whatever the script reads can be said, but for what only machines of one's own need.
    let mut read = read_by(script);
    for own in ["HARNESS_CACHE", "HARNESS_PROC_SYS"] {
        assert!(read.remove(own), "{own}");
    }
    assert_eq!(*env, read);
    // Outputs are those that the script writes.
    let told = used(&source, "steps.gate.outputs");
    let written = text("ci/run-gate");
    for output in &told {
        assert!(written.contains(&format!("output {output} ")), "{output}");
    }
    let declared: BTreeSet<String> = keys(&action["outputs"])
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(declared, told);
}

#[test]
fn the_nightly_workflow_calls_scripts_and_gives_no_rights_to_candidates() {
    const PATH: &str = ".github/workflows/nightly-soak.yml";
    let source = text(PATH);
    let workflow = yaml(PATH);
    // `on` is a truth value in the YAML of some readers.
    let on = workflow.get("on").or(workflow.get("true")).expect("on");
    let declared: BTreeSet<String> = keys(&on["workflow_call"]["inputs"])
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert_eq!(used(&source, "inputs"), declared);
    let jobs = &workflow["jobs"];
    assert_eq!(workflow["permissions"], serde_json::json!({}));
    for (name, job) in jobs.as_object().expect("jobs") {
        let rights = keys(&job["permissions"]);
        let writes = job["permissions"]
            .as_object()
            .expect("rights")
            .values()
            .any(|right| right != "read");
        assert_eq!(
            writes,
            matches!(name.as_str(), "publish" | "pages"),
            "{name}: {rights:?}"
        );
        assert!(
            job["timeout-minutes"].is_number() || job["timeout-minutes"].is_string(),
            "{name}"
        );
        for step in job["steps"].as_array().expect("steps") {
            if step["uses"]
                .as_str()
                .is_some_and(|uses| uses.starts_with("actions/checkout@"))
            {
                assert_eq!(step["with"]["persist-credentials"], false, "{name}");
            }
        }
        for (run, env) in steps(job) {
            let words: Vec<&str> = run.split(' ').filter(|word| *word != "exec").collect();
            let Some(script) = words[0].strip_prefix("./.harness/ci/") else {
                // The caller's own script.
                assert_eq!(
                    (run.as_str(), env.len()),
                    ("exec \"$GITHUB_WORKSPACE/$SETUP\"", 1)
                );
                continue;
            };
            assert!(SCRIPTS.contains(&script), "{script}");
            let read = read_by(script);
            for name in env.iter().filter(|name| *name != "GH_TOKEN") {
                assert!(read.contains(name), "{script} does not read {name}");
            }
        }
    }
    // The candidate's jobs and those that write are not the same.
    let soaks = |job: &Value| steps(job).iter().any(|(run, _)| run.ends_with("/run-soak"));
    assert!(soaks(&jobs["soak"]) && !soaks(&jobs["publish"]) && !soaks(&jobs["pages"]));
}

#[test]
fn the_workflow_for_real_clusters_runs_every_candidate_without_rights() {
    const PATH: &str = ".github/workflows/real-clusters.yml";
    let source = text(PATH);
    let workflow = yaml(PATH);
    let on = workflow.get("on").or(workflow.get("true")).expect("on");
    let declared = keys(&on["workflow_dispatch"]["inputs"]);
    assert_eq!(
        used(&source, "inputs"),
        declared.into_iter().map(str::to_owned).collect()
    );
    assert_eq!(workflow["permissions"], serde_json::json!({}));
    for (name, job) in workflow["jobs"].as_object().expect("jobs") {
        assert_eq!(
            job["permissions"],
            serde_json::json!({"contents": "read"}),
            "{name}"
        );
        assert!(job["timeout-minutes"].is_number(), "{name}");
        for step in job["steps"].as_array().expect("steps") {
            let uses = step["uses"].as_str().unwrap_or_default();
            if uses.starts_with("actions/checkout@") {
                assert_eq!(step["with"]["persist-credentials"], false, "{name}");
            }
        }
        for (run, env) in steps(job) {
            let words: Vec<&str> = run.split(' ').filter(|word| *word != "exec").collect();
            let script = words[0].strip_prefix("./ci/").expect("a script of ours");
            assert!(SCRIPTS.contains(&script), "{script}");
            let read = read_by(script);
            for name in env.iter().filter(|name| !name.starts_with("CARGO_")) {
                assert!(read.contains(name), "{script} does not read {name}");
            }
        }
    }
    let matrix = workflow["jobs"]["certify"]["strategy"]["matrix"]["candidate"].as_str();
    let list = matrix
        .and_then(|text| text.split('\'').nth(1))
        .expect("a list");
    let run: BTreeSet<String> = serde_json::from_str(list).expect("JSON");
    let there: BTreeSet<String> = fs::read_dir(root().join("ci/candidates"))
        .expect("candidates")
        .flatten()
        .filter_map(|entry| {
            Some(
                entry
                    .file_name()
                    .to_str()?
                    .strip_suffix(".yaml")?
                    .to_owned(),
            )
        })
        // Those that are no proxies, the one that is a part of every run, and the one that has to fail.
        .filter(|name| {
            !["canary", "installed", "kube-network-policies", "null"].contains(&name.as_str())
        })
        .collect();
    assert_eq!(run, there);
}

#[test]
fn the_gitlab_template_takes_the_reports_that_are_written() {
    let template = yaml("ci/gitlab/harness.gitlab-ci.yml");
    let base = &template[".harness"];
    assert_eq!(base["retry"], 0, "nothing is retried to green");
    let out = base["variables"]["HARNESS_OUT"]
        .as_str()
        .expect("a directory");
    let out = out
        .strip_prefix("$CI_PROJECT_DIR/")
        .expect("below the project, as artifacts have to be");
    assert_eq!(
        base["artifacts"]["paths"][0].as_str(),
        Some(format!("{out}/").as_str())
    );
    let junit = base["artifacts"]["reports"]["junit"].as_str();
    assert_eq!(junit, Some(format!("{out}/results/junit.xml").as_str()));
    assert_eq!(base["artifacts"]["when"], "always");
    for (job, script) in [
        (".harness-certify", "run-gate"),
        (".harness-soak", "run-soak"),
    ] {
        assert_eq!(template[job]["extends"], ".harness");
        assert_eq!(template[job]["script"], serde_json::json!([script]));
        let read = read_by(script);
        for name in keys(&base["variables"]) {
            assert!(read.contains(name), "{script} does not read {name}");
        }
    }
}

/// Fields of `config.JobBase`, `config.UtilityConfig`, `config.Brancher`, `config.RegexpChangeMatcher`, `config.Reporter`, `config.Presubmit` and
/// `config.Periodic` in Prow's sources, as their `json` tags have them, as far as these jobs may use them.
const PROW_BOTH: [&str; 10] = [
    "name",
    "annotations",
    "labels",
    "cluster",
    "max_concurrency",
    "decorate",
    "decoration_config",
    "extra_refs",
    "spec",
    "agent",
];
const PROW_PRESUBMIT: [&str; 7] = [
    "always_run",
    "run_if_changed",
    "optional",
    "context",
    "branches",
    "trigger",
    "rerun_command",
];
const PROW_PERIODIC: [&str; 4] = ["cron", "interval", "minimum_interval", "tags"];
/// Of `prowapi.DecorationConfig` and `prowapi.Refs`.
const PROW_DECORATION: [&str; 3] = ["timeout", "grace_period", "utility_images"];
const PROW_REFS: [&str; 5] = ["org", "repo", "base_ref", "path_alias", "clone_depth"];

#[test]
fn prow_and_kubernetes_know_every_field_of_the_jobs() {
    let jobs = yaml("ci/prow/harness.yaml");
    assert_eq!(keys(&jobs), BTreeSet::from(["presubmits", "periodics"]));
    let presubmits = jobs["presubmits"]
        .as_object()
        .expect("by repository")
        .values();
    let presubmits = presubmits.flat_map(|jobs| jobs.as_array().expect("a list"));
    let presubmits = presubmits.map(|job| (job, &PROW_PRESUBMIT[..], "run-gate"));
    let periodics = jobs["periodics"].as_array().expect("a list").iter();
    let periodics = periodics.map(|job| (job, &PROW_PERIODIC[..], "run-soak"));
    let (mut count, mut pods) = (0, Vec::new());
    for (job, own, script) in presubmits.chain(periodics) {
        count += 1;
        for field in keys(job) {
            assert!(
                PROW_BOTH.contains(&field) || own.contains(&field),
                "Prow does not know {field}"
            );
        }
        assert!(
            keys(&job["decoration_config"])
                .iter()
                .all(|field| PROW_DECORATION.contains(field))
        );
        for refs in job["extra_refs"].as_array().into_iter().flatten() {
            assert!(
                keys(refs).iter().all(|field| PROW_REFS.contains(field)),
                "{refs}"
            );
        }
        let spec: PodSpec = serde_json::from_value(job["spec"].clone()).expect("a pod");
        let again = serde_json::to_value(&spec).expect("a type of the API is JSON");
        let mut unknown = Vec::new();
        lost("spec", &job["spec"], &again, &mut unknown);
        assert!(unknown.is_empty(), "the API does not know {unknown:?}");
        let container = &spec.containers[0];
        let args = container.args.as_ref().expect("a script").join("\n");
        assert!(
            args.trim_end().ends_with(&format!("exec {script}")),
            "{args}"
        );
        assert!(
            args.contains("HARNESS_OUT=\"$ARTIFACTS/harness\""),
            "{args}"
        );
        let read = read_by(script);
        for variable in container.env.iter().flatten() {
            assert!(
                read.contains(&variable.name),
                "{script} does not read {}",
                variable.name
            );
        }
        let mut pod = job["spec"].clone();
        for part in ["args", "env", "image", "command", "name", "resources"] {
            pod["containers"][0][part] = Value::Null;
        }
        pods.push(pod);
    }
    assert_eq!(count, 2);
    // They may do what the Indexed Job may do, and no more.
    let fleet = yaml("ci/kubernetes/base/certify.yaml");
    let fleet = &fleet["spec"]["template"]["spec"];
    for pod in &pods {
        for field in [
            "hostUsers",
            "securityContext",
            "automountServiceAccountToken",
        ] {
            assert_eq!(pod[field], fleet[field], "{field}");
        }
        let contexts = (
            &pod["containers"][0]["securityContext"],
            &fleet["containers"][0]["securityContext"],
        );
        assert_eq!(contexts.0, contexts.1);
    }
}

#[test]
fn the_image_holds_what_is_called_in_it() {
    let recipe = text("ci/image/Containerfile");
    let instructions: Vec<&str> = recipe
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    let mut copied = BTreeSet::new();
    for line in instructions
        .iter()
        .filter_map(|line| line.strip_prefix("COPY ci/"))
    {
        let line = format!("ci/{line}");
        let mut words: Vec<&str> = line.split(' ').collect();
        words.pop();
        for path in words {
            assert!(root().join(path).exists(), "{path}");
            copied.insert(path.to_owned());
        }
    }
    for script in SCRIPTS.map(|name| format!("ci/{name}")) {
        assert!(copied.contains(&script), "{script}");
    }
    for needed in ["ci/shared.sh", "ci/flakes"] {
        assert!(copied.contains(needed), "{needed}");
    }
    // The last stage is what is built by default: nothing but the program, for a user who is nobody.
    let last = instructions
        .iter()
        .rposition(|line| line.starts_with("FROM "))
        .expect("a stage");
    assert_eq!(instructions[last], "FROM scratch AS harness");
    let stage = &instructions[last..];
    assert!(stage.contains(&"USER 65532:65532") && stage.contains(&"ENTRYPOINT [\"/harness\"]"));
    assert!(
        !stage.iter().any(|line| line.starts_with("RUN ")),
        "there is no shell in it"
    );
    // The harness is built with the compiler that the workspace asks for.
    let workspace = text("Cargo.toml");
    let version = workspace
        .split("rust-version = \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let version = version.expect("a version");
    assert!(
        recipe.contains(&format!("FROM rust:{version}-")),
        "{version}"
    );
}

#[test]
fn every_script_says_what_it_reads() {
    for script in SCRIPTS {
        let source = text(&format!("ci/{script}"));
        let (head, body) = source
            .split_once("\nset -eu\n")
            .expect("a script that stops at errors");
        assert!(
            head.starts_with("#!/bin/sh\n# "),
            "{script} says what it is for"
        );
        let told = variables(head);
        for name in variables(body) {
            // The tests' own.
            assert!(
                told.contains(name) || name == "HARNESS_PROC_SYS",
                "{script} does not tell of {name}"
            );
        }
        let mode = fs::metadata(root().join("ci").join(script))
            .expect(script)
            .permissions();
        assert!(
            std::os::unix::fs::PermissionsExt::mode(&mode) & 0o111 != 0,
            "{script} is executable"
        );
    }
}

#[test]
fn the_folder_is_described() {
    let readme = text("ci/README.md");
    for entry in fs::read_dir(root().join("ci")).expect("ci").flatten() {
        let name = entry.file_name().into_string().expect("a name");
        assert!(
            name == "README.md" || readme.contains(&format!("`{name}")),
            "ci/README.md does not name {name}"
        );
    }
}

/// shellcheck, actionlint and check-jsonschema, as far as they are here.
#[test]
fn the_tools_that_know_the_formats_find_nothing() {
    let output = Command::new(root().join("ci/lint"))
        .output()
        .expect("sh runs");
    let said = String::from_utf8_lossy(&output.stdout);
    if let Some(skipped) = said.lines().find(|line| line.starts_with("skipped:")) {
        println!("{skipped}: not on PATH");
    }
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
