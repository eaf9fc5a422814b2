//! What the tests share: running the binary, waiting, small scenario documents.

use std::{
    fmt::Debug,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// Anything that is waited for comes within seconds, even on a machine that does other things; this is a hang.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What a finished command left.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The binary with these arguments, in a directory of the test's own and without the environment's opinions.
pub fn harness(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command
        .current_dir(directory)
        .args(args)
        .stdin(Stdio::null())
        .env_remove("HARNESS_LOG")
        .env_remove("NO_COLOR")
        // These tests may run on GitHub, and say nothing there.
        .env_remove("GITHUB_ACTIONS")
        .env_remove("GITHUB_STEP_SUMMARY");
    command
}

/// Runs the binary to its end.
pub fn run(directory: &Path, args: &[&str]) -> Finished {
    Finished::of(harness(directory, args).output().expect("the binary runs"))
}

impl Finished {
    /// What a command that was run in another way said.
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// Checks the exit code, with everything the command said in the message.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Checks that standard error contains a text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "should say {text:?}: {}",
            self.stderr
        );
        self
    }
}

/// A directory of the test's own.
pub fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Writes a file of the test.
pub fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).expect("the temporary directory can be written");
    path
}

/// Whether worlds can be built here. If not, it says why: the caller returns then.
pub fn worlds() -> bool {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let missing = MISSING.get_or_init(|| {
        let options = netlab::Options {
            harness: Some(env!("CARGO_BIN_EXE_harness").into()),
            ..netlab::Options::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            match netlab::World::build(&netlab::Topology::uniform(1, 0), &options).await {
                Ok(world) => {
                    world.shutdown().await;
                    None
                }
                Err(
                    error @ (netlab::WorldError::UserNamespacesForbidden { .. }
                    | netlab::WorldError::MissingKernelFeature { .. }),
                ) => Some(error.to_string()),
                // Anything else is for the tests to stumble over.
                Err(_) => None,
            }
        })
    });
    if let Some(reason) = missing {
        println!("skipped: {reason}");
    }
    missing.is_none()
}

/// Waits until there is a value.
#[track_caller]
pub fn wait_for<T>(what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "did not happen within {PATIENCE:?}: {what}"
        );
        // A poll of a condition with a deadline.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until two values are the same, and shows both if they never are.
#[track_caller]
pub fn wait_until_equal<T: PartialEq + Debug>(what: &str, want: &T, mut value: impl FnMut() -> T) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = value();
        if now == *want {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{what}: still {now:?} and not {want:?} after {PATIENCE:?}"
        );
        // A poll of a condition with a deadline.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A command that runs while the test looks at it; killed with the test.
pub struct Running(pub Child);

impl Running {
    pub fn start(directory: &Path, args: &[&str]) -> Self {
        let child = harness(directory, args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("the binary runs"))
    }

    /// Fails when the command is not there any more.
    #[track_caller]
    pub fn must_run(&mut self) {
        if let Some(status) = self.0.try_wait().expect("a child of this test") {
            panic!("the command ended too early: {status}");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The events of a run, as far as they have been written completely.
pub fn events(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("events.jsonl")).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// The events of one type.
pub fn of_type<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["type"] == name)
        .collect()
}

/// The report of a run.
pub fn report(out: &Path) -> Value {
    let text = fs::read_to_string(out.join("report.json")).expect("report.json is written");
    serde_json::from_str(&text).expect("report.json is JSON")
}

/// A scenario of one Service with one endpoint, in both families; `deadline` is that of its `converge`, and `steps` follow it.
pub fn scenario(deadline: &str, steps: &str) -> String {
    format!(
        "id: one-endpoint
title: A client reaches the only endpoint
requirement: [SVC-CIP-1]
topology:
  nodes: [{{name: node1}}]
  pods:
    - {{name: web, node: node1, labels: {{app: web}}}}
    - {{name: client, node: node1}}
matrix:
  family: [ipv4, ipv6]
objects:
  - apiVersion: v1
    kind: Service
    metadata: {{name: web}}
    spec: {{ipFamilies: [$(ipFamily)], selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
steps:
  - converge: {{deadline: {deadline}}}
{steps}"
    )
}
