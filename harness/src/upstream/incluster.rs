//! `e2e.test` in the cluster itself: in a Pod of Kubernetes' conformance image, which also has `ginkgo`, `kubectl` and a shell.
//!
//! ```text
//!   harness ── exec, one per question ──> Pod: sleep
//!                                          ├─ e2e.test -list-tests, -list-images
//!                                          └─ ginkgo run ... (in the background, its output and results in files)
//! ```
//!
//! No stream has to live as long as the suite runs: what it printed, its end and its results are asked for again and again, and a question that is lost is
//! repeated. The suite reaches the API server at its own address, because the address of the Service `kubernetes` is what is tested.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    core::v1::{Namespace, Pod, ServiceAccount},
    discovery::v1::EndpointSlice,
    rbac::v1::ClusterRoleBinding,
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};

use super::{
    choose, images,
    look::chain,
    pulling::REASONS,
    run::{JUNIT, LOG_NAME, Lines},
};
use crate::cluster::real::agents;

/// Polls of conditions with deadlines.
const POLL: Duration = Duration::from_millis(500);

/// How often it is asked what the suite has printed.
const ASKED: Duration = Duration::from_secs(2);

/// The image has 300 MB, which some node has to pull first.
const STARTED: Duration = Duration::from_secs(600);

/// A question through the API server and the kubelet takes well under a second, and listing specs a few, on a busy machine.
const ANSWERED: Duration = Duration::from_secs(60);

/// So long nobody may answer before the Pod is given up: its node may be busy, and specs that are disruptive restart API servers and kubelets.
const LOST: Duration = Duration::from_secs(300);

/// Ginkgo lets running specs end and clean up when it is told to stop.
const STOPPED: Duration = Duration::from_secs(120);

/// Bytes of output per question.
const PIECE: usize = 1 << 20;

/// The Pod.
const POD: &str = "suite";
/// Where the suite writes, in the Pod.
const RESULTS: &str = "/tmp/harness-results";

/// Why there are no results.
#[derive(Debug, thiserror::Error)]
pub enum InClusterError {
    /// The cluster refuses or does not answer.
    #[error("the suite cannot be run in the cluster: {what}: {said}")]
    Cluster {
        /// What was asked of it.
        what: String,
        /// What came of it.
        said: String,
    },
    /// The Pod does not start.
    #[error("the Pod of {image} does not start: {said}")]
    Start {
        /// The image.
        image: String,
        /// Why.
        said: String,
    },
    /// The image has no suite.
    #[error("{image} lists no specs: is it Kubernetes' conformance image? It said: {said}")]
    NoSpecs {
        /// The image.
        image: String,
        /// What it said.
        said: String,
    },
    /// It ended without results.
    #[error("the suite ended ({status}) and left no JUnit file: see {LOG_NAME}")]
    NoResults {
        /// How it ended.
        status: String,
    },
    /// Its output cannot be kept.
    #[error("{path:?} cannot be written: {source}")]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

fn cluster<'a>(what: &'a str) -> impl Fn(kube::Error) -> InClusterError + 'a {
    move |error| InClusterError::Cluster {
        what: what.to_owned(),
        said: chain(&error),
    }
}

/// The Pod with the suite.
pub struct InCluster {
    client: Client,
    namespace: String,
    image: String,
}

impl InCluster {
    /// The suite of an image, in a namespace of its own.
    pub fn new(client: Client, namespace: String, image: String) -> Self {
        Self {
            client,
            namespace,
            image,
        }
    }

    /// Makes the Pod and waits until it runs.
    ///
    /// # Errors
    /// A cluster that refuses, and an image that cannot be had.
    pub async fn start(&self, stop: &AtomicBool) -> Result<(), InClusterError> {
        let params = PostParams::default();
        let name = &self.namespace;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let made = namespaces.create(&params, &object(namespace)).await;
        made.map_err(cluster("make a Namespace"))?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), name);
        let account = object(
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": POD}}),
        );
        let made = accounts.create(&params, &account).await;
        made.map_err(cluster("make a ServiceAccount"))?;
        let bindings: Api<ClusterRoleBinding> = Api::all(self.client.clone());
        let made = bindings.create(&params, &object(binding(name))).await;
        made.map_err(cluster("make a ClusterRoleBinding"))?;
        let server = self.server().await?;
        let pods: Api<Pod> = self.pods();
        let made = pods
            .create(&params, &object(pod(&self.image, &server)))
            .await;
        made.map_err(cluster("make a Pod"))?;
        let until = Instant::now() + STARTED;
        loop {
            let pod = pods.get(POD).await.map_err(cluster("get the Pod"))?;
            match running(&pod) {
                Ok(true) => return Ok(()),
                Ok(false) if stop.load(Ordering::Relaxed) => {
                    return Err(self.unstarted("interrupted".into()));
                }
                Ok(false) if Instant::now() < until => {}
                Ok(false) => {
                    return Err(self.unstarted(format!("after {STARTED:?} it does not run")));
                }
                Err(said) => return Err(self.unstarted(said)),
            }
            sleep(POLL).await;
        }
    }

    fn unstarted(&self, said: String) -> InClusterError {
        InClusterError::Start {
            image: self.image.clone(),
            said,
        }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The API server's own address and port: an endpoint of the Service `kubernetes`.
    async fn server(&self) -> Result<(String, i32), InClusterError> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), "default");
        let slice = slices.get("kubernetes").await;
        let slice = slice.map_err(cluster("get the EndpointSlice of kubernetes"))?;
        let mut endpoints = slice.endpoints.into_iter().flatten();
        let address = endpoints.find_map(|endpoint| endpoint.addresses.into_iter().next());
        let port = slice.ports.into_iter().flatten().find_map(|port| port.port);
        address.zip(port).ok_or_else(|| InClusterError::Cluster {
            what: "the API server's own address".into(),
            said: "the EndpointSlice of kubernetes has none".into(),
        })
    }

    /// The names of all specs of the suite.
    ///
    /// # Errors
    /// A Pod that does not answer, or an image with something else in it.
    pub async fn specs(&self) -> Result<Vec<String>, InClusterError> {
        let said = self.asked("e2e.test -list-tests").await?;
        let names = choose::names(&said.text());
        if names.is_empty() {
            let last = said.stderr.lines().next_back().unwrap_or_default();
            return Err(InClusterError::NoSpecs {
                image: self.image.clone(),
                said: last.to_owned(),
            });
        }
        Ok(names)
    }

    /// The images that the suite uses; none if it does not say.
    ///
    /// # Errors
    /// A Pod that does not answer.
    pub async fn images(&self) -> Result<Vec<String>, InClusterError> {
        let said = self.asked("e2e.test -list-images").await?;
        Ok(images::listed(&said.text()))
    }

    /// Runs the specs that `focus` matches in some processes, and returns the texts of the JUnit files, of which copies are put into a directory.
    ///
    /// # Errors
    /// A Pod that is lost, and a suite that leaves no results.
    pub async fn run(
        &self,
        focus: &str,
        procs: u32,
        nodes: usize,
        out: &Path,
        stop: &Arc<AtomicBool>,
        mut progress: impl FnMut(&str),
    ) -> Result<Vec<String>, InClusterError> {
        let path = out.join(LOG_NAME);
        let write = |source| InClusterError::Write {
            path: path.clone(),
            source,
        };
        let mut log = tokio::fs::File::create(&path).await.map_err(write)?;
        self.asked(&start(focus, procs, nodes)).await?;
        let (mut lines, mut read) = (Lines::default(), 0_usize);
        let mut told: Option<Instant> = None;
        let status = loop {
            // The end is looked for before the output, so that nothing is printed after the last look.
            let script = format!(
                "echo $(cat {RESULTS}/status 2>/dev/null); tail -c +{} {RESULTS}/{LOG_NAME} | head -c {PIECE}",
                read + 1
            );
            let said = self.asked(&script).await?;
            let at = said.stdout.iter().position(|byte| *byte == b'\n');
            let (status, more) = said.stdout.split_at(at.map_or(0, |at| at + 1));
            read += more.len();
            log.write_all(more).await.map_err(write)?;
            lines.push(more, &mut progress);
            let status = String::from_utf8_lossy(status).trim().to_owned();
            if !status.is_empty() && more.is_empty() {
                break format!("exit status {status}");
            }
            match told {
                None if stop.load(Ordering::Relaxed) => {
                    told = Some(Instant::now());
                    self.asked(STOP).await?;
                }
                Some(when) if when.elapsed() > STOPPED => {
                    break format!("it did not stop within {STOPPED:?}");
                }
                _ => {}
            }
            if more.len() < PIECE {
                sleep(ASKED).await;
            }
        };
        log.flush().await.map_err(write)?;
        let listed = self
            .asked(&format!("cd {RESULTS} && ls {JUNIT}*.xml 2>/dev/null"))
            .await?;
        let mut texts = Vec::new();
        for name in listed.text().lines().filter(|name| !name.contains('/')) {
            let said = self
                .asked(&format!("cat {RESULTS}/{}", quoted(name)))
                .await?;
            let text = said.text();
            let path = out.join(name);
            tokio::fs::write(&path, &text)
                .await
                .map_err(|source| InClusterError::Write { path, source })?;
            texts.push(text);
        }
        if texts.is_empty() {
            return Err(InClusterError::NoResults { status });
        }
        Ok(texts)
    }

    /// Lets a shell in the Pod do something that may be done again, until it answers.
    async fn asked(&self, script: &str) -> Result<Said, InClusterError> {
        let until = Instant::now() + LOST;
        loop {
            let said = match timeout(ANSWERED, self.exec(script)).await {
                Ok(Ok(said)) => return Ok(said),
                Ok(Err(said)) => said,
                Err(_) => format!("no answer within {ANSWERED:?}"),
            };
            if Instant::now() > until {
                return Err(InClusterError::Cluster {
                    what: format!("ask Pod {}/{POD}", self.namespace),
                    said,
                });
            }
            sleep(POLL).await;
        }
    }

    /// The script goes through standard input: it may be longer than what proxies allow in an address.
    async fn exec(&self, script: &str) -> Result<Said, String> {
        let text = |error: &dyn std::error::Error| chain(error);
        let process = self.pods().exec(POD, ["sh"], &agents::streams()).await;
        let mut process = process.map_err(|error| text(&error))?;
        let (Some(mut stdin), Some(mut stdout), Some(mut stderr), Some(status)) = (
            process.stdin(),
            process.stdout(),
            process.stderr(),
            process.take_status(),
        ) else {
            return Err("the API server gave no streams".into());
        };
        // Its own end: a stream cannot be closed on one side in older versions of the protocol.
        let script = format!("{{ {script}\n}} </dev/null\nprintf '\\n{END}'\nexit\n");
        stdin
            .write_all(script.as_bytes())
            .await
            .map_err(|error| text(&error))?;
        stdin.flush().await.map_err(|error| text(&error))?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (one, other) = tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
        one.and(other).map_err(|error| text(&error))?;
        let ended = status.await;
        // A stream that broke looks like one that ended.
        match out.strip_suffix(format!("\n{END}").as_bytes()) {
            Some(out) => Ok(Said {
                stdout: out.to_vec(),
                stderr: String::from_utf8_lossy(&err).into_owned(),
            }),
            None => Err(format!(
                "the answer is not whole: {}",
                ended.and_then(|status| status.message).unwrap_or_default()
            )),
        }
    }

    /// Deletes what was made, and says what is left.
    pub async fn remove(&self, patience: Duration) -> Result<(), String> {
        let bindings: Api<ClusterRoleBinding> = Api::all(self.client.clone());
        let params = DeleteParams::default();
        let unbound = bindings.delete(&self.namespace, &params).await;
        let at_once = DeleteParams::default().grace_period(0);
        let _ = self.pods().delete(POD, &at_once).await;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let until = Instant::now() + patience;
        loop {
            let _ = namespaces.delete(&self.namespace, &params).await;
            let left = match namespaces.get_opt(&self.namespace).await {
                Ok(None) => break,
                Ok(Some(_)) => "it is still there".to_owned(),
                Err(error) => chain(&error),
            };
            if Instant::now() > until {
                return Err(format!("namespace {}: {left}", self.namespace));
            }
            sleep(POLL).await;
        }
        match unbound {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(format!(
                "ClusterRoleBinding {}: {}",
                self.namespace,
                chain(&error)
            )),
        }
    }
}

/// What a shell in the Pod answered.
struct Said {
    stdout: Vec<u8>,
    stderr: String,
}

impl Said {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// The last that a shell says, if all of its answer has arrived.
const END: &str = "harness-end-of-answer";

/// Tells the suite to stop. Ginkgo does not pass it on: a terminal would have told all of its processes.
const STOP: &str = r#"for place in /proc/[0-9]*; do
case "$(cat "$place/comm" 2>/dev/null)" in ginkgo*|e2e.test*) kill -TERM "${place#/proc/}" ;; esac
done"#;

/// Starts the suite in the background, once: asked again, it has been started already.
fn start(focus: &str, procs: u32, nodes: usize) -> String {
    let ginkgo = format!(
        "ginkgo run -v --no-color --timeout=24h --procs={procs} --focus={} \"$(command -v e2e.test)\" -- -kubeconfig= -report-dir={RESULTS} \
         -provider=skeleton -disable-log-dump -num-nodes={nodes} -repo-root=/kubernetes",
        quoted(focus)
    );
    format!(
        "mkdir {RESULTS} 2>/dev/null || exit_early=yes\n\
         [ -n \"$exit_early\" ] || {{ ( {ginkgo} >{RESULTS}/{LOG_NAME} 2>&1 ; echo $? >{RESULTS}/ended; \
         mv {RESULTS}/ended {RESULTS}/status ) >/dev/null 2>&1 & }}"
    )
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("an object of ours")
}

/// The suite makes and deletes objects of all kinds.
fn binding(namespace: &str) -> serde_json::Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": POD, "namespace": namespace}],
    })
}

fn pod(image: &str, (host, port): &(String, i32)) -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD},
        "spec": {
            "serviceAccountName": POD,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "enableServiceLinks": false,
            "containers": [{
                "name": "suite",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "infinity"],
                "env": [
                    {"name": "KUBERNETES_SERVICE_HOST", "value": host},
                    {"name": "KUBERNETES_SERVICE_PORT", "value": port.to_string()},
                    {"name": "KUBECONFIG", "value": ""},
                ],
            }],
        },
    })
}

/// Whether the Pod runs, or why it never will.
fn running(pod: &Pod) -> Result<bool, String> {
    let Some(status) = &pod.status else {
        return Ok(false);
    };
    let containers = status.container_statuses.iter().flatten();
    for state in containers.filter_map(|container| container.state.as_ref()) {
        if state.running.is_some() {
            return Ok(true);
        }
        if let Some(over) = &state.terminated {
            let reason = over.reason.as_deref().unwrap_or("it ended");
            let message = over.message.as_deref().unwrap_or_default();
            return Err(format!("{reason}: {message}"));
        }
        if let Some(waiting) = &state.waiting
            && let Some(reason) = waiting.reason.as_deref()
            && (REASONS.contains(&reason) || reason == "CreateContainerError")
        {
            let message = waiting.message.as_deref().unwrap_or_default();
            return Err(format!("{reason}: {message}; {}", images::REMEDY));
        }
    }
    match status.phase.as_deref() {
        Some("Failed" | "Succeeded") => Err(status.message.clone().unwrap_or_default()),
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suite_reaches_the_api_server_past_the_proxy() {
        let pod: Pod = object(pod(
            "registry.example/conformance:v1",
            &("fd00::2".into(), 6443),
        ));
        let spec = pod.spec.unwrap();
        assert_eq!(spec.service_account_name.as_deref(), Some(POD));
        let env = spec.containers[0].env.clone().unwrap_or_default();
        let value = |name: &str| {
            let found = env.iter().find(|one| one.name == name);
            found.and_then(|one| one.value.clone())
        };
        assert_eq!(value("KUBERNETES_SERVICE_HOST").as_deref(), Some("fd00::2"));
        assert_eq!(value("KUBERNETES_SERVICE_PORT").as_deref(), Some("6443"));
        let binding: ClusterRoleBinding = object(binding("harness-suite-1"));
        assert_eq!(binding.role_ref.name, "cluster-admin");
        let subject = &binding.subjects.unwrap_or_default()[0];
        assert_eq!(
            (subject.name.as_str(), subject.namespace.as_deref()),
            (POD, Some("harness-suite-1"))
        );
    }

    #[test]
    fn only_the_suite_is_told_to_stop() {
        // What the shell would do, without doing it to programs of this machine.
        let script = STOP
            .replace("kill -TERM", "echo")
            .replace("/proc", "$place_root");
        let place = tempfile::tempdir().unwrap();
        for (pid, name) in [
            ("7", "ginkgo"),
            ("8", "e2e.test"),
            ("9", "sleep"),
            ("10", "sh"),
        ] {
            std::fs::create_dir(place.path().join(pid)).unwrap();
            std::fs::write(place.path().join(pid).join("comm"), format!("{name}\n")).unwrap();
        }
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .env("place_root", place.path())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "7\n8\n");
    }

    #[test]
    fn the_suite_is_started_once_and_its_end_is_seen() {
        let place = tempfile::tempdir().unwrap();
        let results = place.path().join("results");
        let program = place.path().join("ginkgo");
        std::fs::write(
            &program,
            "#!/bin/sh\nfor word; do echo \"<$word>\"; done\nexit 3\n",
        )
        .unwrap();
        let test = place.path().join("e2e.test");
        std::fs::write(&test, "#!/bin/sh\n").unwrap();
        for file in [&program, &test] {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let focus = " (?:\\[sig-network\\] it's \"odd\" \\$HOME)$";
        let script = start(focus, 4, 3).replace(RESULTS, results.to_str().unwrap());
        let path = format!(
            "{}:{}",
            place.path().display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let sh = || {
            let done = std::process::Command::new("sh")
                .args(["-c", &script])
                .env("PATH", &path)
                .status();
            assert!(done.unwrap().success());
        };
        sh();
        let until = Instant::now() + Duration::from_secs(60);
        let status = loop {
            match std::fs::read_to_string(results.join("status")) {
                Ok(text) => break text,
                Err(_) => assert!(Instant::now() < until, "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status, "3\n");
        let log = std::fs::read_to_string(results.join(LOG_NAME)).unwrap();
        assert!(log.contains(&format!("<--focus={focus}>\n")), "{log}");
        assert!(
            log.contains("<--procs=4>") && log.contains("<-num-nodes=3>"),
            "{log}"
        );
        // Whoever did not hear the answer asks again.
        std::fs::write(results.join(LOG_NAME), "first").unwrap();
        sh();
        assert_eq!(
            std::fs::read_to_string(results.join(LOG_NAME)).unwrap(),
            "first"
        );
    }

    #[test]
    fn a_pod_that_will_never_run_is_told_from_one_that_does_not_yet() {
        let pod = |status: serde_json::Value| -> Pod { object(json!({"status": status})) };
        let container = |state: serde_json::Value| {
            pod(json!({"phase": "Pending", "containerStatuses": [
                {"name": "suite", "image": "x", "imageID": "", "ready": false, "restartCount": 0, "state": state},
            ]}))
        };
        assert_eq!(running(&pod(json!({}))), Ok(false));
        assert_eq!(running(&container(json!({"running": {}}))), Ok(true));
        let creating = json!({"waiting": {"reason": "ContainerCreating"}});
        assert_eq!(running(&container(creating)), Ok(false));
        let missing = json!({"waiting": {"reason": "ErrImagePull", "message": "no such host"}});
        let said = running(&container(missing)).unwrap_err();
        assert!(
            said.starts_with("ErrImagePull: no such host; with --kind, --load"),
            "{said}"
        );
        let no_shell =
            json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": "no sleep"}});
        assert_eq!(
            running(&container(no_shell)),
            Err("StartError: no sleep".into())
        );
    }
}
