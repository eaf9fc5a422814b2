//! The scripts of `ci/` that CI systems run, with a harness that only says what it was asked, and with the real one.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::support::{Finished, PATIENCE, directory, wait_for, worlds, write};

/// A harness that writes down how it was called and exits as the environment says.
const STUB: &str = r#"#!/bin/sh
echo "$*" >>"$CALLS"
case $1 in
--version) echo 'harness 0.0.0' ;;
doctor)
    echo 'everything is there'
    exit "${DOCTOR:-0}"
    ;;
certify | soak)
    [ "${RUN:-0}" -ne 2 ] || exit 2
    mkdir -p "$3"
    if [ -n "${HANG:-}" ]; then
        trap 'echo told >>"$CALLS"; stopped=1' TERM
        echo working >>"$CALLS"
        stopped=
        while [ -z "$stopped" ]; do sleep 0.05; done
        RUN=4
    fi
    printf '{\n  "conclusion": "%s",\n  "exitCode": 0\n}\n' "${CONCLUSION:-conformant}" >"$3/report.json"
    exit "${RUN:-0}"
    ;;
gate)
    echo "the gate, as $4"
    exit "${GATE:-0}"
    ;;
esac
"#;

pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../ci")
        .join(name)
}

/// Writes a program of the test.
pub fn program(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = write(directory, name, text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the test's own file");
    path
}

/// A script in a directory of the test's own, without the environment's opinions.
pub fn command(directory: &Path, name: &str, env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(script(name));
    let inherited = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        ["HARNESS_", "GITHUB_", "GITLAB_", "RUNNER_", "CI"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    });
    inherited.for_each(|(name, _)| {
        command.env_remove(name);
    });
    command
        .current_dir(directory)
        .envs(env.iter().copied())
        .stdin(Stdio::null());
    command
}

pub fn finished(mut command: Command) -> Finished {
    let output = command.output().expect("sh runs");
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// A script with the stub.
fn stubbed(directory: &Path, name: &str, env: &[(&str, &str)]) -> Command {
    let stub = program(directory, "stub", STUB);
    let mut command = command(directory, name, env);
    command
        .env("HARNESS_BIN", stub)
        .env("CALLS", directory.join("calls"))
        .env("HARNESS_OUT", "out");
    command
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A value that a script tells the CI system.
fn output(out: &Path, name: &str) -> String {
    let outputs = read(&out.join("outputs"));
    let prefix = format!("{name}=");
    let line = outputs.lines().find_map(|line| line.strip_prefix(&prefix));
    line.unwrap_or_else(|| panic!("no {name} in {outputs}"))
        .to_owned()
}

#[test]
fn the_gate_decides_and_nothing_opens_it_for_a_run_that_says_nothing() {
    // doctor, certify, gate -> exit code and word.
    for (doctor, run, gate, code, word) in [
        ("0", "0", "0", 0, "open"),
        ("0", "0", "1", 1, "closed"),
        ("0", "1", "1", 1, "closed"),
        // Waived.
        ("0", "1", "0", 0, "open"),
        ("0", "3", "0", 0, "open"),
        ("0", "3", "3", 3, "flaky"),
        ("0", "4", "4", 4, "inconclusive"),
        ("0", "5", "5", 5, "too-few"),
        // Bad input of the gate.
        ("0", "0", "2", 2, "error"),
        // A gate that does not look at how the run ended.
        ("0", "4", "0", 4, "inconclusive"),
        ("0", "5", "0", 4, "inconclusive"),
        ("0", "137", "0", 4, "inconclusive"),
        ("0", "0", "137", 4, "inconclusive"),
        // Bad input of certify, and a machine that cannot: the gate is not asked.
        ("0", "2", "0", 2, "error"),
        ("4", "0", "0", 4, "inconclusive"),
    ] {
        let directory = directory();
        let env = [("DOCTOR", doctor), ("RUN", run), ("GATE", gate)];
        let done = finished(stubbed(directory.path(), "run-gate", &env)).exits(code);
        let out = directory.path().join("out");
        assert_eq!(output(&out, "gate"), word, "{env:?}: {}", done.stdout);
        assert_eq!(output(&out, "exit-code"), code.to_string());
        let calls = read(&directory.path().join("calls"));
        let asked = calls.contains("\ngate ");
        assert_eq!(asked, run != "2" && doctor == "0", "{calls}");
    }
}

#[test]
fn the_steps_are_the_same_everywhere_and_in_this_order() {
    for (system, marks) in [
        (&[][..], "=== harness certify"),
        (&[("GITHUB_ACTIONS", "true")], "::group::harness certify"),
        (&[("GITLAB_CI", "true")], "section_start:"),
    ] {
        let directory = directory();
        let root = directory.path();
        let env = [
            system,
            &[
                ("HARNESS_CANDIDATE", "my proxy.yaml"),
                (
                    "HARNESS_FILTER",
                    "$(touch stolen) `touch stolen`; touch stolen",
                ),
                ("HARNESS_RUNS", "3"),
                ("HARNESS_SEED", "7"),
                ("HARNESS_CERTIFY_ARGS", "--no-classify\n--for\n1 m"),
                ("HARNESS_REQUIRE", "a b.yaml\nc.yaml\n"),
                ("HARNESS_BASELINE", "base.json"),
                ("HARNESS_WAIVERS", "w.yaml"),
                ("HARNESS_MIN_CASES", "5"),
                ("HARNESS_FLAKE_BUDGET", "1"),
            ],
        ]
        .concat();
        let mut command = stubbed(root, "run-gate", &env);
        if !system.is_empty() {
            command
                .env("GITHUB_OUTPUT", root.join("github-output"))
                .env("GITHUB_STEP_SUMMARY", root.join("summary"));
        }
        let done = finished(command).exits(0);
        assert!(done.stdout.contains(marks), "{}", done.stdout);
        let out = root.join("out");
        let results = out.canonicalize().expect("out").join("results");
        let results = results.display();
        let gate = |format: &str| {
            format!(
                "gate {results} --format {format} --baseline base.json --waivers w.yaml --min-cases 5 --flake-budget 1 --require a b.yaml --require c.yaml"
            )
        };
        let expected = [
            "--version".to_owned(),
            "doctor".to_owned(),
            format!(
                "certify --out {results} --candidate my proxy.yaml --filter $(touch stolen) `touch stolen`; touch stolen --runs 3 --seed 7 --waivers w.yaml \
                 --flake-budget 1 --no-classify --for 1 m"
            ),
            gate("text"),
            gate("markdown"),
            gate("json"),
        ];
        assert_eq!(
            read(&root.join("calls")).lines().collect::<Vec<_>>(),
            expected
        );
        assert!(!root.join("stolen").exists(), "an input was run");
        for (name, value) in [
            ("conclusion", "conformant"),
            ("certify", "0"),
            ("gate", "open"),
            ("report", &results.to_string()),
        ] {
            assert_eq!(output(&out, name), *value);
        }
        assert_eq!(read(&out.join("gate.md")), "the gate, as markdown\n");
        if !system.is_empty() {
            assert_eq!(
                read(&root.join("github-output")),
                read(&out.join("outputs"))
            );
            assert_eq!(read(&root.join("summary")), "the gate, as markdown\n");
        }
    }
}

#[test]
fn results_of_an_earlier_run_do_not_stand_for_this_one() {
    let directory = directory();
    finished(stubbed(directory.path(), "run-gate", &[])).exits(0);
    let again = finished(stubbed(
        directory.path(),
        "run-gate",
        &[("RUN", "1"), ("GATE", "1")],
    ));
    again.exits(2).says("is not empty");
}

#[test]
fn a_run_that_is_told_to_stop_leaves_its_reports_and_a_closed_gate() {
    for (name, result) in [("run-gate", "gate"), ("run-soak", "conclusion")] {
        let directory = directory();
        let root = directory.path();
        let env = [("HANG", "1"), ("CONCLUSION", "infra"), ("GATE", "4")];
        let mut command = stubbed(root, name, &env);
        let mut child = command.stdout(Stdio::null()).spawn().expect("sh runs");
        let calls = || fs::read_to_string(root.join("calls")).unwrap_or_default();
        wait_for("the run", || calls().contains("working").then_some(()));
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        // As a container's or a job's runtime does it: the first process alone.
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it is there");
        let status = wait_for("its end", || child.try_wait().expect("a child"));
        assert_eq!(status.code(), Some(4), "within {PATIENCE:?}: {}", calls());
        assert!(calls().contains("told"), "{}", calls());
        let word = output(&root.join("out"), result);
        assert!(matches!(word.as_str(), "inconclusive" | "infra"), "{word}");
    }
}

#[test]
fn a_soak_is_asked_for_what_the_environment_says() {
    let directory = directory();
    let root = directory.path();
    let env = [
        ("HARNESS_CANDIDATE", "a.yaml"),
        ("HARNESS_UNTIL_CONFIDENCE", "rate<1% @95%"),
        ("RUN", "3"),
        ("CONCLUSION", "flaky"),
    ];
    finished(stubbed(root, "run-soak", &env)).exits(3);
    let results = root
        .join("out")
        .canonicalize()
        .expect("out")
        .join("results");
    let last = format!(
        "soak --out {} --candidate a.yaml --until-confidence rate<1% @95%",
        results.display()
    );
    assert_eq!(
        read(&root.join("calls")).lines().last(),
        Some(last.as_str())
    );
    assert_eq!(output(&root.join("out"), "conclusion"), "flaky");
    assert_eq!(output(&root.join("out"), "exit-code"), "3");
}

#[test]
fn a_release_is_taken_for_its_digest_and_for_nothing_else() {
    let directory = directory();
    let root = directory.path();
    // Whatever is asked for, this is what comes.
    program(
        root,
        "curl",
        "#!/bin/sh\nfor word; do [ \"$last\" = --output ] && cp served \"$word\"; last=$word; done\necho \"$last\" >>addresses\n",
    );
    write(root, "served", "#!/bin/sh\necho 'harness 1.2.3'\n");
    let digest = Command::new("sha256sum")
        .arg(root.join("served"))
        .output()
        .expect("sha256sum");
    let digest = String::from_utf8(digest.stdout).expect("text")[..64].to_owned();
    let path = format!(
        "{}:{}",
        root.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let get = |digest: &str, version: &str| {
        let env = [
            ("PATH", path.as_str()),
            ("HARNESS_VERSION", version),
            ("HARNESS_SHA256", digest),
            ("HARNESS_RELEASES", "https://example.org/releases"),
            ("HARNESS_CACHE", "cache"),
        ];
        finished(command(root, "get-harness", &env))
    };
    get("", "v1").exits(2).says("HARNESS_SHA256");
    get("0".repeat(64).as_str(), "v1")
        .exits(2)
        .says("has another digest");
    assert_eq!(
        fs::read_dir(root.join("cache")).expect("a cache").count(),
        0,
        "nothing is kept of it"
    );
    get(&digest, "../v1")
        .exits(2)
        .says("is not the name of a release");
    let got = get(&digest, "v1.2.3").exits(0);
    let said = Command::new(got.stdout.trim()).output().expect("it runs");
    assert_eq!(said.stdout, b"harness 1.2.3\n");
    // It is there now, and what is served does not matter any more.
    write(root, "served", "something else");
    get(&digest, "v1.2.3").exits(0);
    let addresses = read(&root.join("addresses"));
    let arch = std::env::consts::ARCH;
    let expected = format!("https://example.org/releases/v1.2.3/harness-linux-{arch}");
    assert_eq!(addresses.lines().last(), Some(expected.as_str()));
    assert_eq!(addresses.lines().count(), 2, "{addresses}");
}

#[test]
fn a_harness_that_came_without_its_rights_gets_them() {
    let directory = directory();
    let root = directory.path();
    write(root, "artifact", "#!/bin/sh\necho 'harness 1'\n");
    let got = finished(command(
        root,
        "get-harness",
        &[("HARNESS_BIN", "./artifact")],
    ))
    .exits(0);
    assert!(
        Command::new(got.stdout.trim())
            .status()
            .expect("it runs")
            .success()
    );
    let mut copied = command(root, "get-harness", &[("HARNESS_BIN", "./artifact")]);
    copied.arg("copy");
    finished(copied).exits(0);
    assert!(
        Command::new(root.join("copy"))
            .status()
            .expect("it runs")
            .success()
    );
    finished(command(
        root,
        "get-harness",
        &[("HARNESS_BIN", "./nothing")],
    ))
    .exits(2)
    .says("'./nothing' is not there");
}

#[test]
fn a_machine_is_only_changed_where_it_may_be() {
    let directory = directory();
    let root = directory.path();
    // Neither sysctl nor modprobe of this machine is called.
    for name in ["sysctl", "modprobe", "sudo"] {
        let text = format!(
            "#!/bin/sh\necho \"{name} $*\" >>changes\n[ {name} = sudo ] || exit 0\nshift\nexec \"$@\"\n"
        );
        program(root, name, &text);
    }
    fs::create_dir_all(root.join("sys/kernel")).expect("a directory");
    write(
        root,
        "sys/kernel/apparmor_restrict_unprivileged_userns",
        "1\n",
    );
    write(root, "sys/kernel/unprivileged_userns_clone", "1\n");
    let path = format!(
        "{}:{}",
        root.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let prepare = |more: &[(&str, &str)]| {
        let env = [
            &[("PATH", path.as_str()), ("HARNESS_PROC_SYS", "sys")],
            more,
        ]
        .concat();
        let _ = fs::remove_file(root.join("changes"));
        finished(command(root, "prepare-machine", &env)).exits(0);
        fs::read_to_string(root.join("changes")).unwrap_or_default()
    };
    assert_eq!(prepare(&[]), "");
    assert_eq!(prepare(&[("HARNESS_PREPARE", "auto")]), "");
    let own = [
        ("HARNESS_PREPARE", "auto"),
        ("RUNNER_ENVIRONMENT", "self-hosted"),
    ];
    assert_eq!(prepare(&own), "");
    for env in [
        &[
            ("HARNESS_PREPARE", "auto"),
            ("RUNNER_ENVIRONMENT", "github-hosted"),
        ][..],
        &[("HARNESS_PREPARE", "always")],
    ] {
        let changes = prepare(env);
        assert!(
            changes.contains("sysctl -q -w kernel.apparmor_restrict_unprivileged_userns=0"),
            "{changes}"
        );
        assert!(
            !changes.contains("unprivileged_userns_clone"),
            "it is right already: {changes}"
        );
        assert!(changes.contains("modprobe sctp"), "{changes}");
    }
    let wrong = [("HARNESS_PREPARE", "sometimes")];
    finished(command(root, "prepare-machine", &wrong))
        .exits(2)
        .says("'sometimes' is none of");
}

/// The whole script with the real harness: few cases, of the proxy that passes and of none at all.
#[test]
fn a_proxy_that_works_opens_the_gate_and_none_at_all_does_not() {
    if !worlds() {
        return;
    }
    for (candidate, certified, conclusion, gate, code) in [
        ("reference", "0", "conformant", "open", 0),
        ("null", "1", "not-conformant", "closed", 1),
    ] {
        let directory = directory();
        let root = directory.path();
        let env = [
            ("HARNESS_BIN", env!("CARGO_BIN_EXE_harness")),
            ("HARNESS_CANDIDATE", candidate),
            ("HARNESS_FILTER", "clusterip-basic[ipv4,TCP]"),
            ("HARNESS_MIN_CASES", "1"),
            ("HARNESS_CERTIFY_ARGS", "--no-classify"),
            ("HARNESS_OUT", "out"),
        ];
        finished(command(root, "run-gate", &env)).exits(code);
        let out = root.join("out");
        let told = ["certify", "conclusion", "gate"].map(|name| output(&out, name));
        assert_eq!(told, [certified, conclusion, gate]);
        for file in ["report.json", "junit.xml", "report.md", "report.html"] {
            assert!(out.join("results").join(file).exists(), "{file}");
        }
        for file in ["doctor.txt", "gate.txt", "gate.md", "gate.json"] {
            assert!(!read(&out.join(file)).is_empty(), "{file}");
        }
    }
}
