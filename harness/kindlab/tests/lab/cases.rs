//! What has to be true of clusters whatever goes wrong: nothing is left behind, nobody else's is touched, and the user hears why.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kindlab::{
    CallLog, CleanSpec, Cleaned, ClusterSpec, Content, ImageFile, ImageSpec, IpFamily, Kind,
    KindError, Options, OutsideSpec, ProxyMode, Role, Version,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

use crate::fake::State;

/// The tests, by name.
pub const ALL: &[(&str, fn())] = &[
    (
        "a_cluster_lives_and_leaves_nothing",
        a_cluster_lives_and_leaves_nothing,
    ),
    (
        "a_cluster_that_is_dropped_is_deleted",
        a_cluster_that_is_dropped_is_deleted,
    ),
    (
        "failures_are_told_apart_and_leave_nothing",
        failures_are_told_apart_and_leave_nothing,
    ),
    (
        "logs_explain_what_kind_does_not_see",
        logs_explain_what_kind_does_not_see,
    ),
    (
        "a_kind_that_hangs_is_killed_at_the_deadline",
        a_kind_that_hangs_is_killed_at_the_deadline,
    ),
    (
        "an_interrupted_creation_leaves_nothing",
        an_interrupted_creation_leaves_nothing,
    ),
    (
        "what_cannot_be_deleted_is_found_again",
        what_cannot_be_deleted_is_found_again,
    ),
    (
        "clusters_of_others_are_not_touched",
        clusters_of_others_are_not_touched,
    ),
    (
        "a_taken_name_is_left_to_its_owner",
        a_taken_name_is_left_to_its_owner,
    ),
    (
        "kept_clusters_stay_until_asked_for",
        kept_clusters_stay_until_asked_for,
    ),
    (
        "a_reused_cluster_is_not_cleaned",
        a_reused_cluster_is_not_cleaned,
    ),
    (
        "what_a_killed_harness_left_is_cleaned",
        what_a_killed_harness_left_is_cleaned,
    ),
    (
        "what_was_being_made_by_a_killed_harness_is_cleaned",
        what_was_being_made_by_a_killed_harness_is_cleaned,
    ),
    ("a_dead_node_is_seen_at_once", a_dead_node_is_seen_at_once),
    ("images_are_verified_by_name", images_are_verified_by_name),
    (
        "someone_outside_can_be_talked_to",
        someone_outside_can_be_talked_to,
    ),
    (
        "machines_without_kind_have_nothing_to_clean",
        machines_without_kind_have_nothing_to_clean,
    ),
    (
        "kind_and_engine_are_found_as_kind_finds_them",
        kind_and_engine_are_found_as_kind_finds_them,
    ),
    ("configurations", configurations),
];

/// A machine with a fake kind and a fake engine.
struct Machine {
    directory: TempDir,
    state: State,
    log: CallLog,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = State::create(&directory.path().join("state"));
        for part in ["bin", "private"] {
            fs::create_dir(directory.path().join(part)).unwrap();
        }
        let machine = Self {
            directory,
            state,
            log: CallLog::new(),
        };
        machine.install("kind");
        machine.install("docker");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn install(&self, program: &str) {
        symlink(
            std::env::current_exe().unwrap(),
            self.path("bin").join(program),
        )
        .unwrap();
    }

    fn uninstall(&self, program: &str) {
        fs::remove_file(self.path("bin").join(program)).unwrap();
    }

    fn options(&self) -> Options {
        options(self.directory.path(), &self.log)
    }

    async fn kind(&self) -> Kind {
        Kind::find(self.options()).await.unwrap()
    }

    async fn clean(&self, all: bool, names: &[&str]) -> Cleaned {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        kindlab::clean(self.options(), CleanSpec { all, names })
            .await
            .unwrap()
    }

    /// Nothing of any cluster is left, in the engine or on disk.
    #[track_caller]
    fn is_bare(&self) {
        let kept: Vec<_> = fs::read_dir(self.path("private"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        let left = (
            self.state.names("containers"),
            self.state.names("volumes"),
            kept,
        );
        assert_eq!(
            left,
            (vec![], vec![], vec![]),
            "{}\n{}",
            self.log.text(),
            self.state.calls()
        );
    }
}

fn options(directory: &Path, log: &CallLog) -> Options {
    Options {
        path: Some(directory.join("bin").into()),
        provider: Some("docker".to_owned()),
        env: vec![(OsString::from("FAKE_STATE"), directory.join("state").into())],
        directory: Some(directory.join("private")),
        log: log.clone(),
    }
}

fn named(name: &str) -> ClusterSpec {
    ClusterSpec {
        name: Some(name.to_owned()),
        ..ClusterSpec::default()
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test)
}

/// Waits for a condition that another process brings about.
#[track_caller]
fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    // The slowest of these is the start of a program on a machine that is busy with something else.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn a_cluster_lives_and_leaves_nothing() {
    let machine = Machine::new();
    run(async {
        let kind = machine.kind().await;
        assert_eq!(
            (kind.version(), kind.engine().name()),
            (Version::new(0, 27, 0), "docker")
        );
        let cluster = kind.create(ClusterSpec::default()).await.unwrap();
        let name = cluster.name().to_owned();
        let random = name.strip_prefix("harness-").unwrap();
        assert!(
            random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            "{name}"
        );

        let kubeconfig = cluster.kubeconfig();
        assert_eq!(
            (mode(&kubeconfig), mode(kubeconfig.parent().unwrap())),
            (0o600, 0o700)
        );
        let nodes = cluster.nodes().await.unwrap();
        let seen: Vec<_> = nodes
            .iter()
            .map(|node| (node.name.as_str(), node.role, node.running))
            .collect();
        assert_eq!(
            seen,
            [
                (
                    format!("{name}-control-plane").as_str(),
                    Role::ControlPlane,
                    true
                ),
                (format!("{name}-worker").as_str(), Role::Worker, true),
                (format!("{name}-worker2").as_str(), Role::Worker, true),
            ]
        );
        assert_eq!(nodes[1].ipv4, Some("172.18.0.3".parse().unwrap()));
        assert_eq!(
            nodes[1].ipv6,
            Some("fc00:f853:ccd:e793::3".parse().unwrap())
        );
        assert_eq!(nodes[1].network, "kind");

        let ran = cluster
            .node_exec(
                &nodes[1].name,
                &["uname", "-r"],
                None,
                Duration::from_secs(60),
            )
            .await
            .unwrap();
        assert_eq!((ran.code, ran.text().as_str()), (Some(0), "ran uname -r\n"));
        let failed = cluster
            .node_exec(&nodes[1].name, &["false"], None, Duration::from_secs(60))
            .await
            .unwrap();
        assert_eq!(failed.code, Some(3));

        cluster.export_logs(&machine.path("logs")).await.unwrap();
        assert!(
            machine
                .path("logs")
                .join(format!("{name}-control-plane/kubelet.log"))
                .is_file()
        );

        cluster.delete().await.unwrap();
        machine.is_bare();
        // A second time is not an error, and neither is the drop.
        cluster.delete().await.unwrap();
        drop(cluster);

        let create = &kind.log().find(&["create", "cluster", "--name", &name])[0];
        assert!(
            create.command().ends_with("--retain --wait 0s"),
            "{}",
            create.command()
        );
        assert!(kind.log().time_of(&["create", "cluster"]) > Duration::ZERO);
    });
    machine.is_bare();
}

fn a_cluster_that_is_dropped_is_deleted() {
    let machine = Machine::new();
    run(async {
        let kind = machine.kind().await;
        let cluster = kind.create(ClusterSpec::default()).await.unwrap();
        drop(cluster);
        machine.is_bare();
        // Several at once, which is what --jobs does.
        let (a, b) = tokio::join!(kind.create(named("a")), kind.create(named("b")));
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!(kind.clusters().await.unwrap(), ["a", "b"]);
        drop(a);
        assert_eq!(kind.clusters().await.unwrap(), ["b"]);
        b.delete().await.unwrap();
    });
    machine.is_bare();
}

fn failures_are_told_apart_and_leave_nothing() {
    let machine = Machine::new();
    run(async {
        let kind = machine.kind().await;
        for (how, case) in [
            ("play create-unknown-image", "ImageMissing"),
            ("play create-port-in-use", "PortInUse"),
            ("play create-bad-config-2", "BadConfig"),
            ("play create-no-permission", "NoPermission"),
            ("play create-daemon-stopped", "EngineDown"),
            ("play create-no-docker-binary", "NotInstalled"),
            ("play written/disk-full-container", "DiskFull"),
            ("play written/no-privileged-caps", "NoPrivileged"),
            ("play-after-nodes create-worker-killed", "NodeGone"),
            ("play-after-nodes create-cgroupv1-no-patch", "Timeout"),
            ("play-after-nodes written/systemd-timeout", "Timeout"),
            ("play-after-nodes written/other", "Other"),
            ("dead-worker", "NodeGone"),
        ] {
            machine.state.behave("kind-create", how);
            let logs = machine.path("logs").join(how.replace(['/', ' '], "-"));
            let spec = ClusterSpec {
                failure_logs: Some(logs.clone()),
                ..named("x")
            };
            let error = kind.create(spec).await.unwrap_err();
            assert_eq!(error.case(), case, "{how}: {error}");
            machine.is_bare();
            assert!(logs.is_dir(), "{how}: no logs");
        }
        // The privileged container that is tried before anything else.
        machine.state.behave("kind-create", "");
        machine
            .state
            .behave("docker-run", "play written/no-privileged-caps");
        machine.state.container("unused", json!({}), false, 0);
        fs::write(machine.path("state/images/node:v1"), "{}").unwrap();
        let before = machine.state.calls().matches("kind create").count();
        let error = kind
            .create(ClusterSpec {
                image: Some("node:v1".to_owned()),
                ..named("x")
            })
            .await
            .unwrap_err();
        assert_eq!(error.case(), "NoPrivileged");
        assert_eq!(machine.state.calls().matches("kind create").count(), before);
        assert_eq!(
            kind.create(named("Not-a-name")).await.unwrap_err().case(),
            "BadConfig"
        );
        let nftables = ClusterSpec {
            proxy_mode: ProxyMode::Nftables,
            ..named("x")
        };
        machine
            .state
            .behave("kind-version", "play written/kind-version-old");
        let old = Kind::find(machine.options()).await.unwrap();
        assert_eq!(old.create(nftables).await.unwrap_err().case(), "OldKind");
    });
}

fn logs_explain_what_kind_does_not_see() {
    let machine = Machine::new();
    run(async {
        let kind = machine.kind().await;
        machine
            .state
            .behave("kind-create", "play-after-nodes create-cgroupv1-no-patch");
        for (log, case) in [
            (
                "E1126 run.go:72] \"command failed\" err=\"kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported\"\n",
                "CgroupV1",
            ),
            (
                "E1126 watcher.go:152] Failed to watch directory: inotify_init1: too many open files\n",
                "OutOfInotify",
            ),
            (
                "E1126 eviction: write /var/lib/kubelet/x: no space left on device\n",
                "DiskFull",
            ),
            ("E1126 something that happens all the time\n", "Timeout"),
        ] {
            fs::write(
                machine.path("state/kubelet.log"),
                format!("I1126 started\n{log}"),
            )
            .unwrap();
            let error = kind.create(ClusterSpec::default()).await.unwrap_err();
            assert_eq!(error.case(), case, "{error}");
            machine.is_bare();
        }
    });
}

fn a_kind_that_hangs_is_killed_at_the_deadline() {
    let machine = Machine::new();
    run(async {
        let kind = machine.kind().await;
        machine.state.behave("kind-create", "hang");
        // Time enough to start two programs: the fake kind has to have come as far as to hang.
        let spec = ClusterSpec {
            deadline: Duration::from_secs(2),
            ..ClusterSpec::default()
        };
        let error = kind.create(spec).await.unwrap_err();
        assert!(
            matches!(error, KindError::Timeout { after: Some(after), .. } if after == Duration::from_secs(2)),
            "{error}"
        );
        machine.is_bare();
        if let Ok(pid) = fs::read_to_string(machine.path("state/hangs")) {
            assert!(!is_running(&pid));
        }
    });
}

fn an_interrupted_creation_leaves_nothing() {
    for how in ["hang", "hang-with-helper"] {
        let machine = Machine::new();
        run(async {
            let kind = machine.kind().await;
            machine.state.behave("kind-create", how);
            let creation = tokio::spawn({
                let kind = kind.clone();
                async move { kind.create(ClusterSpec::default()).await }
            });
            let hangs = machine.path("state/hangs");
            let pid = until("kind to hang", || {
                fs::read_to_string(&hangs)
                    .ok()
                    .filter(|pid| !pid.is_empty())
            });
            assert!(is_running(&pid));
            creation.abort();
            assert!(creation.await.unwrap_err().is_cancelled());
            // When the task is gone, so is everything: also what the helper made after kind had been killed.
            assert!(!is_running(&pid));
        });
        // It was let do its work: killed in the middle, it might have made something that nobody looks for.
        assert_eq!(
            machine.path("state/helped").exists(),
            how == "hang-with-helper"
        );
        machine.is_bare();
    }
}

fn what_cannot_be_deleted_is_found_again() {
    let machine = Machine::new();
    run(async {
        let kind = machine.kind().await;
        machine
            .state
            .behave("kind-create", "play-after-nodes written/other");
        machine
            .state
            .behave("kind-delete", "play written/disk-full-container");
        machine
            .state
            .behave("docker-rm", "play written/disk-full-container");
        let error = kind.create(named("x")).await.unwrap_err();
        assert_eq!(error.case(), "LeftBehind");
        assert!(error.to_string().contains("harness clean"), "{error}");
        assert_eq!(machine.state.names("containers").len(), 3);
        assert_eq!(machine.state.names("volumes"), ["x"]);
        // As long as this process lives, nobody cleans up after it; kind alone failing does not matter.
        let cleaned = machine.clean(true, &[]).await;
        assert_eq!((cleaned.removed.len(), cleaned.left.len()), (0, 1));
        machine.state.well("docker-rm");
        machine.state.behave("kind-create", "");
        assert_eq!(
            kind.create(named("x")).await.unwrap_err().case(),
            "NameTaken"
        );
        let again = kind.open("x").await.unwrap();
        again.delete().await.unwrap();
    });
    machine.is_bare();
}

fn clusters_of_others_are_not_touched() {
    let machine = Machine::new();
    // A name proves nothing.
    machine.state.node("harness-a1b2c3", 0, true);
    machine.state.container("postgres", json!({}), true, 7);
    run(async {
        let cleaned = machine.clean(true, &["harness-a1b2c3"]).await;
        assert_eq!(cleaned.unknown, ["harness-a1b2c3"]);
        let cleaned = machine.clean(true, &[]).await;
        assert!(cleaned.removed.is_empty() && cleaned.left.is_empty());
        let kind = machine.kind().await;
        drop(kind.open("harness-a1b2c3").await.unwrap());
        drop(kind.create(named("x")).await.unwrap());
    });
    assert_eq!(
        machine.state.names("containers"),
        ["harness-a1b2c3-control-plane", "postgres"]
    );
    assert!(machine.state.names("volumes").is_empty());
}

fn a_taken_name_is_left_to_its_owner() {
    let machine = Machine::new();
    run(async {
        let kind = machine.kind().await;
        // By somebody without markers.
        machine.state.node("x", 0, true);
        assert_eq!(
            kind.create(named("x")).await.unwrap_err().case(),
            "NameTaken"
        );
        assert_eq!(machine.state.names("containers"), ["x-control-plane"]);
        // By somebody who was quicker than the look.
        machine
            .state
            .behave("kind-create", "play create-taken-name");
        assert_eq!(
            kind.create(named("y")).await.unwrap_err().case(),
            "NameTaken"
        );
        assert!(
            !machine
                .state
                .calls()
                .contains("kind delete cluster --name y")
        );
        machine.state.well("kind-create");
        // By another harness that has not come to its first container yet.
        let other = machine.kind().await;
        let cluster = other.create(named("z")).await.unwrap();
        for node in ["z-control-plane", "z-worker", "z-worker2"] {
            fs::remove_file(machine.path("state/containers").join(node)).unwrap();
        }
        assert_eq!(
            kind.create(named("z")).await.unwrap_err().case(),
            "NameTaken"
        );
        assert_eq!(machine.state.names("volumes"), ["z"]);
        cluster.delete().await.unwrap();
        let calls = machine.state.calls();
        fs::remove_file(machine.path("state/containers/x-control-plane")).unwrap();
        machine.is_bare();
        assert!(!calls.contains("kind delete cluster --name x"), "{calls}");
    });
}

fn kept_clusters_stay_until_asked_for() {
    let machine = Machine::new();
    run(async {
        let kind = machine.kind().await;
        let cluster = kind.create(named("x")).await.unwrap();
        cluster.keep().await.unwrap();
        cluster.keep().await.unwrap();
        let kubeconfig = cluster.kubeconfig();
        drop(cluster);
        assert!(kubeconfig.is_file());
        assert_eq!(machine.state.names("containers").len(), 3);
        // Its harness is this one and lives.
        let cleaned = machine.clean(true, &["x"]).await;
        assert_eq!(cleaned.left[0].1, "a harness uses it");
        let error = kind.open("w").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no cluster named \"w\": there is x"
        );
    });
    // Somebody else's, who has ended: the number of a process that cannot be.
    for marker in machine.state.names("volumes") {
        let path = machine.path("state/volumes").join(marker);
        let text = fs::read_to_string(&path).unwrap();
        let this = format!("\"dev.harness.pid\":\"{}\"", std::process::id());
        fs::write(
            &path,
            text.replace(&this, "\"dev.harness.pid\":\"99999999\""),
        )
        .unwrap();
    }
    run(async {
        let cleaned = machine.clean(false, &[]).await;
        assert_eq!(
            (cleaned.removed.len(), cleaned.left[0].1),
            (0, "it was kept on purpose")
        );
        assert!(
            kindlab::leftovers(machine.options())
                .await
                .unwrap()
                .is_empty()
        );
        let cleaned = machine.clean(true, &[]).await;
        assert_eq!(cleaned.removed[0].name, "x");
    });
    machine.is_bare();
}

fn a_reused_cluster_is_not_cleaned() {
    let machine = Machine::new();
    let (mut holder, name) = start_holder(&machine);
    run(async {
        let kind = machine.kind().await;
        let cluster = kind.open(&name).await.unwrap();
        assert!(!cluster.is_made());
        assert_eq!(mode(&cluster.kubeconfig()), 0o600);
        let log = kind.log().find(&["get", "kubeconfig"]);
        assert!(
            !log[0].stdout.contains("key\n") && log[0].stdout.contains("hold keys"),
            "{}",
            log[0].stdout
        );
        holder.kill().unwrap();
        holder.wait().unwrap();
        // Its harness is gone, and this one uses it.
        let cleaned = machine.clean(true, &[&name]).await;
        assert_eq!(cleaned.left[0].1, "a harness uses it");
        let own = cluster.kubeconfig();
        drop(cluster);
        assert!(!own.exists());
        assert_eq!(kind.clusters().await.unwrap().join(" "), name);
        let cleaned = machine.clean(false, &[]).await;
        assert_eq!(cleaned.removed[0].name, name);
    });
    machine.is_bare();
}

fn what_a_killed_harness_left_is_cleaned() {
    let machine = Machine::new();
    let (mut holder, name) = start_holder(&machine);
    run(async {
        assert!(
            kindlab::leftovers(machine.options())
                .await
                .unwrap()
                .is_empty()
        );
        assert_eq!(machine.clean(true, &[]).await.left.len(), 1);
        holder.kill().unwrap();
        holder.wait().unwrap();
        let left = kindlab::leftovers(machine.options()).await.unwrap();
        assert_eq!(
            left.iter().map(|cluster| &cluster.name).collect::<Vec<_>>(),
            [&name]
        );
        // kind may be gone since then.
        machine.uninstall("kind");
        let cleaned = machine.clean(false, &[]).await;
        assert_eq!(cleaned.removed.len(), 1, "{cleaned:?}");
    });
    machine.is_bare();
}

fn what_was_being_made_by_a_killed_harness_is_cleaned() {
    let machine = Machine::new();
    machine.state.behave("kind-create", "hang-with-helper");
    let mut holder = holder(&machine);
    let hangs = machine.path("state/hangs");
    let kind = until("kind to hang", || {
        fs::read_to_string(&hangs)
            .ok()
            .filter(|pid| !pid.is_empty())
    });
    holder.kill().unwrap();
    holder.wait().unwrap();
    run(async {
        let cleaned = machine.clean(false, &[]).await;
        assert_eq!(cleaned.removed.len(), 1, "{cleaned:?}");
        // Its helper learned that it is gone, and made a container, or was about to.
        assert!(!is_running(&kind));
    });
    machine.is_bare();
}

fn start_holder(machine: &Machine) -> (std::process::Child, String) {
    let mut holder = holder(machine);
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let name = line.trim().to_owned();
    assert!(name.starts_with("harness-"), "{name}");
    (holder, name)
}

fn holder(machine: &Machine) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .arg("hold")
        .arg(machine.directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A harness that has made a cluster and then does nothing, until it is killed.
pub fn hold(directory: &Path) -> ! {
    run(async {
        let kind = Kind::find(options(directory, &CallLog::new()))
            .await
            .unwrap();
        let cluster = kind.create(ClusterSpec::default()).await.unwrap();
        println!("{}", cluster.name());
        std::future::pending::<()>().await;
        drop(cluster);
    });
    unreachable!()
}

fn a_dead_node_is_seen_at_once() {
    let machine = Machine::new();
    run(async {
        let kind = machine.kind().await;
        let cluster = kind.create(named("x")).await.unwrap();
        assert_eq!(cluster.check_nodes().await.unwrap().len(), 3);
        assert!(
            cluster
                .node_gone(Duration::from_millis(300))
                .await
                .unwrap()
                .is_none()
        );
        let (gone, stopped) = tokio::join!(
            cluster.node_gone(Duration::from_secs(60)),
            cluster.stop_node("x-worker2")
        );
        stopped.unwrap();
        let gone = gone.unwrap().unwrap();
        assert!(
            matches!(&gone, KindError::NodeGone { node, .. } if node == "x-worker2"),
            "{gone}"
        );
        assert_eq!(cluster.check_nodes().await.unwrap_err().case(), "NodeGone");
        let error = cluster
            .node_exec("x-worker2", &["true"], None, Duration::from_secs(60))
            .await
            .unwrap_err();
        assert_eq!(error.case(), "NodeGone");
        cluster.start_node("x-worker2").await.unwrap();
        cluster.check_nodes().await.unwrap();
        fs::remove_file(machine.path("state/containers/x-worker")).unwrap();
        let error = cluster.check_nodes().await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("x-worker is gone: its container was removed"),
            "{error}"
        );
        cluster.delete().await.unwrap();
    });
    machine.is_bare();
}

/// A program without anything: it says again what it hears (`read`, `write` and `exit` of x86-64), as an ELF file of one segment.
const ECHO: &[u8] = b"\x31\xc0\x31\xff\x48\x8d\xb4\x24\x00\xf0\xff\xff\xba\x00\x10\x00\x00\x0f\x05\x85\xc0\x7e\x10\
      \x89\xc2\xb8\x01\x00\x00\x00\xbf\x01\x00\x00\x00\x0f\x05\xeb\xd9\xb8\x3c\x00\x00\x00\x31\xff\x0f\x05";

/// An image with that program.
pub fn image() -> ImageSpec {
    let mut program = vec![0u8; 64 + 56];
    let length = (program.len() + ECHO.len()) as u8;
    // Class, byte order and version; type, machine and version; entry; headers; their sizes.
    program[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (program[16], program[18], program[20]) = (2, 62, 1);
    (program[24], program[26]) = (120, 0x40);
    (program[32], program[52], program[54], program[56]) = (64, 64, 56, 1);
    // To be loaded, read and executed, at 0x400000, the whole file.
    (program[64], program[68]) = (1, 5);
    (program[82], program[90]) = (0x40, 0x40);
    (program[96], program[104], program[113]) = (length, length, 0x10);
    program.extend(ECHO);
    ImageSpec {
        name: "harness.local/probe".to_owned(),
        files: vec![ImageFile {
            path: "/probe".to_owned(),
            content: Content::Bytes(program),
            mode: 0o755,
        }],
        entrypoint: vec!["/probe".to_owned()],
        ..ImageSpec::default()
    }
}

fn images_are_verified_by_name() {
    let machine = Machine::new();
    let archive = machine.path("image.tar");
    let image = image().write(&archive).unwrap();
    run(async {
        let kind = machine.kind().await;
        let cluster = kind.create(named("x")).await.unwrap();
        fs::write(
            machine.path("state/loads-as"),
            "import-2026-11-26@sha256:0123",
        )
        .unwrap();
        let error = cluster
            .load_archive(&archive, &image.reference)
            .await
            .unwrap_err();
        assert!(
            matches!(&error, KindError::NotLoaded { there, .. } if there == &["import-2026-11-26@sha256:0123"]),
            "{error}"
        );
        fs::remove_file(machine.path("state/loads-as")).unwrap();
        cluster
            .load_archive(&archive, &image.reference)
            .await
            .unwrap();
        assert!(
            cluster
                .images("x-worker")
                .await
                .unwrap()
                .contains(&image.reference)
        );
        // It is there, and under this name nothing else can be.
        cluster
            .load_archive(&archive, &image.reference)
            .await
            .unwrap();
        assert_eq!(kind.log().find(&["load", "image-archive"]).len(), 2);
        // A tag that somebody chose may be another image today.
        fs::write(machine.path("state/loads-as"), "example/app:dev").unwrap();
        cluster
            .load_archive(&archive, "example/app:dev")
            .await
            .unwrap();
        cluster
            .load_archive(&archive, "example/app:dev")
            .await
            .unwrap();
        assert_eq!(kind.log().find(&["load", "image-archive"]).len(), 4);
    });
    machine.is_bare();
}

fn someone_outside_can_be_talked_to() {
    let machine = Machine::new();
    let archive = machine.path("image.tar");
    let image = image().write(&archive).unwrap();
    run(async {
        let kind = machine.kind().await;
        let cluster = kind.create(named("x")).await.unwrap();
        let spec = OutsideSpec {
            image: image.reference.clone(),
            args: vec!["agent".to_owned()],
            ..OutsideSpec::default()
        };
        let error = cluster.outside(spec.clone()).await.unwrap_err();
        assert!(
            matches!(&error, KindError::ImageMissing { image: missing, .. } if *missing == image.reference),
            "{error}"
        );
        kind.load_into_engine(&archive, &image.reference)
            .await
            .unwrap();
        let mut outside = cluster.outside(spec.clone()).await.unwrap();
        assert_eq!(outside.ipv4, Some("172.18.0.102".parse().unwrap()));
        assert!(outside.ipv6.is_some());
        let (mut stdin, stdout) = (
            outside.take_stdin().unwrap(),
            outside.take_stdout().unwrap(),
        );
        let mut lines = tokio::io::BufReader::new(stdout).lines();
        stdin.write_all(b"hello\n").await.unwrap();
        assert_eq!(
            lines.next_line().await.unwrap().unwrap(),
            "agent heard hello"
        );
        // It ends when it is not spoken to any more.
        drop(stdin);
        assert_eq!(outside.wait().await.unwrap(), Some(0));
        drop(outside);
        let second = cluster.outside(spec.clone()).await.unwrap();
        let third = cluster.outside(spec).await.unwrap();
        assert_eq!(machine.state.names("containers").len(), 5);
        second.remove().await.unwrap();
        assert_eq!(machine.state.names("containers").len(), 4);
        // And with its cluster.
        cluster.delete().await.unwrap();
        drop(third);
        assert!(machine.state.names("images").is_empty());
    });
    machine.is_bare();
}

fn machines_without_kind_have_nothing_to_clean() {
    let machine = Machine::new();
    run(async {
        machine
            .state
            .behave("docker-volume", "play create-daemon-stopped");
        let error = kindlab::clean(machine.options(), CleanSpec::default())
            .await
            .unwrap_err();
        assert_eq!(error.case(), "EngineDown");
        machine.uninstall("kind");
        let cleaned = machine.clean(false, &[]).await;
        assert!(cleaned.removed.is_empty() && cleaned.failed.is_empty());
        machine.uninstall("docker");
        assert!(machine.clean(false, &["x"]).await.unknown == ["x"]);
        assert!(
            kindlab::leftovers(machine.options())
                .await
                .unwrap()
                .is_empty()
        );
    });
}

fn kind_and_engine_are_found_as_kind_finds_them() {
    let machine = Machine::new();
    run(async {
        let with = |provider: &str| Options {
            provider: Some(provider.to_owned()),
            ..machine.options()
        };
        machine.install("podman");
        assert_eq!(
            Kind::find(with("")).await.unwrap().engine().name(),
            "docker"
        );
        let odd = Kind::find(with("moby")).await.unwrap();
        assert!(odd.warnings()[0].to_string().contains("moby"));
        assert_eq!(
            Kind::find(with("nerdctl")).await.unwrap_err().case(),
            "NotInstalled"
        );
        machine.uninstall("docker");
        // kind is told which one was found.
        assert_eq!(
            Kind::find(with("docker")).await.unwrap_err().case(),
            "NotInstalled"
        );
        let found = Kind::find(with("")).await.unwrap();
        assert_eq!(found.engine().name(), "podman");
        machine
            .state
            .behave("kind-version", "play written/kind-version-ancient");
        let error = Kind::find(with("podman")).await.unwrap_err();
        assert!(
            error.to_string().contains("install kind v0.20.0 or newer"),
            "{error}"
        );
        machine.uninstall("kind");
        let error = Kind::find(with("podman")).await.unwrap_err();
        assert!(
            error.to_string().starts_with("kind is not installed"),
            "{error}"
        );
    });
}

fn configurations() {
    let zone =
        |name: &str| BTreeMap::from([("topology.kubernetes.io/zone".to_owned(), name.to_owned())]);
    insta::assert_snapshot!("default", ClusterSpec::default().config(false).unwrap());
    let all = ClusterSpec {
        workers: 3,
        worker_labels: vec![zone("a"), BTreeMap::new(), zone("no")],
        ip_family: IpFamily::Ipv6,
        proxy_mode: ProxyMode::Nftables,
        pod_subnet: Some("fd00:10:244::/56".to_owned()),
        service_subnet: Some("fd00:10:96::/112".to_owned()),
        disable_default_cni: true,
        feature_gates: BTreeMap::from([
            ("ServiceTrafficDistribution".to_owned(), true),
            ("Other".to_owned(), false),
        ]),
        runtime_config: BTreeMap::from([("api/alpha".to_owned(), "true".to_owned())]),
        kubeadm_config_patches: vec![
            "kind: ClusterConfiguration\napiServer:\n  extraArgs:\n    v: \"4\"\n".to_owned(),
        ],
        containerd_config_patches: vec![
            "[plugins.\"io.containerd.grpc.v1.cri\"]\n  restrict_oom_score_adj = true\n".to_owned(),
        ],
        ..ClusterSpec::default()
    };
    insta::assert_snapshot!("everything_on_cgroup_v1", all.config(true).unwrap());
}
