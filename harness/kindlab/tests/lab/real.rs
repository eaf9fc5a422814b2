//! The same with a real kind and a real engine, where `HARNESS_KIND_IMAGE` names a node image that the engine has. Each makes a cluster, which takes most of
//! a minute; one after another, since they share the machine.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kindlab::{CallLog, CleanSpec, ClusterSpec, Kind, KindError, Options, OutsideSpec, Role};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

use crate::cases::image;

/// The tests, by name.
pub const ALL: &[(&str, fn())] = &[
    ("real_clusters_live_and_leave_nothing", || real(live)),
    ("real_creations_can_be_interrupted", || real(interrupt)),
    ("what_a_killed_harness_left_is_really_cleaned", || {
        real(killed)
    }),
];

fn real(test: impl AsyncFnOnce(String)) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let Ok(image) = std::env::var("HARNESS_KIND_IMAGE") else {
        println!("skipped: HARNESS_KIND_IMAGE names no node image that is in the container engine");
        return;
    };
    let _one = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test(image));
}

async fn kind() -> Kind {
    let options = Options {
        log: CallLog::new(),
        ..Options::default()
    };
    Kind::find(options)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

fn small(image: &str) -> ClusterSpec {
    ClusterSpec {
        image: Some(image.to_owned()),
        workers: 1,
        ..ClusterSpec::default()
    }
}

async fn live(node_image: String) {
    let kind = kind().await;
    let log = kind.log().clone();
    let cluster = kind
        .create(small(&node_image))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", log.text()));
    let nodes = cluster.check_nodes().await.unwrap();
    assert_eq!(
        nodes.iter().map(|node| node.role).collect::<Vec<_>>(),
        [Role::ControlPlane, Role::Worker]
    );
    assert!(
        nodes
            .iter()
            .all(|node| node.ipv4.is_some() && node.ipv6.is_some()),
        "{nodes:?}"
    );
    let worker = &nodes[1].name;
    let ran = cluster
        .node_exec(worker, &["hostname"], None, Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(ran.text().trim(), worker);

    // An image, in the nodes and outside.
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("echo.tar");
    let echo = image().write(&archive).unwrap();
    cluster
        .load_archive(&archive, &echo.reference)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    cluster
        .load_archive(&archive, &echo.reference)
        .await
        .unwrap();
    assert_eq!(log.find(&["load", "image-archive"]).len(), 1);
    kind.load_into_engine(&archive, &echo.reference)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let mut outside = cluster
        .outside(OutsideSpec {
            image: echo.reference.clone(),
            ..OutsideSpec::default()
        })
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(
        outside.ipv4.is_some() && outside.ipv6.is_some(),
        "{outside:?}"
    );
    let (mut stdin, stdout) = (
        outside.take_stdin().unwrap(),
        outside.take_stdout().unwrap(),
    );
    stdin.write_all(b"hello\n").await.unwrap();
    let mut lines = tokio::io::BufReader::new(stdout).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("hello"));
    drop(outside);

    // Somebody who uses it, too, and a node that is stopped.
    let again = kind.open(cluster.name()).await.unwrap();
    let key = std::fs::read_to_string(again.kubeconfig()).unwrap();
    assert!(key.contains("client-key-data") && !log.text().contains("client-key-data"));
    drop(again);
    let (gone, stopped) = tokio::join!(
        cluster.node_gone(Duration::from_secs(120)),
        cluster.stop_node(worker)
    );
    stopped.unwrap();
    assert!(matches!(gone.unwrap(), Some(KindError::NodeGone { node, .. }) if node == *worker));
    let logs = directory.path().join("logs");
    // With a node down it is an error, and the logs of the others are there.
    let _ = cluster.export_logs(&logs).await;
    assert!(logs.join(&nodes[0].name).join("kubelet.log").is_file());

    let name = cluster.name().to_owned();
    cluster.delete().await.unwrap();
    is_gone(&kind, &name).await;
    println!(
        "create took {:.1} s",
        log.time_of(&["create", "cluster"]).as_secs_f64()
    );
}

/// Neither kind nor the engine knows anything of a cluster.
async fn is_gone(kind: &Kind, name: &str) {
    assert!(!kind.clusters().await.unwrap().contains(&name.to_owned()));
    for (kind_of, label) in [
        ("ps", "io.x-k8s.kind.cluster"),
        ("ps", "dev.harness.cluster"),
        ("volume", "dev.harness.cluster"),
    ] {
        let filter = format!("label={label}={name}");
        let args: &[&str] = if kind_of == "ps" {
            &["ps", "-aq", "--filter"]
        } else {
            &["volume", "ls", "-q", "--filter"]
        };
        let out = Command::new(kind.engine().name())
            .args(args)
            .arg(&filter)
            .output()
            .unwrap();
        assert!(
            out.status.success() && out.stdout.is_empty(),
            "{filter}: {out:?}"
        );
    }
}

fn containers(kind: &Kind, name: &str) -> usize {
    let filter = format!("label=io.x-k8s.kind.cluster={name}");
    let out = Command::new(kind.engine().name())
        .args(["ps", "-aq", "--filter", &filter])
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout).lines().count()
}

/// Waits for the first container of a cluster: the others are being made.
fn first_container(kind: &Kind, name: &str) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while containers(kind, name) == 0 {
        assert!(Instant::now() < deadline, "no container of {name}");
    }
}

async fn interrupt(node_image: String) {
    let kind = kind().await;
    let name = format!("harness-test-{}", std::process::id());
    let spec = ClusterSpec {
        name: Some(name.clone()),
        workers: 2,
        ..small(&node_image)
    };
    let creation = tokio::spawn({
        let kind = kind.clone();
        async move { kind.create(spec).await }
    });
    tokio::task::block_in_place(|| first_container(&kind, &name));
    creation.abort();
    assert!(creation.await.unwrap_err().is_cancelled());
    is_gone(&kind, &name).await;
}

async fn killed(node_image: String) {
    let kind = kind().await;
    let name = format!("harness-test-{}", std::process::id());
    let mut harness = Command::new(std::env::current_exe().unwrap())
        .args(["make", &name, &node_image])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    first_container(&kind, &name);
    let names = vec![name.clone()];
    let spec = CleanSpec {
        all: false,
        names: names.clone(),
    };
    let cleaned = kindlab::clean(Options::default(), spec.clone())
        .await
        .unwrap();
    assert_eq!(cleaned.left.len(), 1, "{cleaned:?}");
    harness.kill().unwrap();
    harness.wait().unwrap();
    let left = kindlab::leftovers(Options::default()).await.unwrap();
    assert!(left.iter().any(|cluster| cluster.name == name), "{left:?}");
    let cleaned = kindlab::clean(Options::default(), spec).await.unwrap();
    assert_eq!(cleaned.removed.len(), 1, "{cleaned:?}");
    is_gone(&kind, &name).await;
    let mut output = String::new();
    BufReader::new(harness.stdout.take().unwrap())
        .read_line(&mut output)
        .unwrap();
    assert_eq!(output, "");
}

/// A harness that makes a cluster, until it is killed.
pub fn make(name: &str, node_image: &str) -> ! {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let spec = ClusterSpec {
            name: Some(name.to_owned()),
            ..small(node_image)
        };
        let cluster = kind().await.create(spec).await;
        println!("made {cluster:?}");
    });
    std::process::exit(1)
}
