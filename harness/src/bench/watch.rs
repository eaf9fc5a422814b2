//! How long a write to the embedded API takes to reach a watching client, with a large cluster stored, and in how much
//! memory.
//!
//! ```text
//!   this process: ApiServer, writes ──HTTPS watch──> child process: reads events ──"VERSION NANOSECONDS"──> this process
//! ```
//!
//! The client is a process of its own, so that the memory figure is the server's. Both read the machine's
//! `CLOCK_MONOTONIC`: the figure is from before the write to after the event was read, without the way back.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    process::{ExitCode, Stdio},
    time::Duration,
};

use apiserver::{ApiServer, Config, ObjectRef, PatchKind};
use futures::AsyncBufReadExt as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use probe::proto::now;
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::{BenchError, Size, Spread};

/// The hidden subcommand that is the client; see [`crate::dispatch`].
pub const SUBCOMMAND: &str = "__watch";

/// What the project promises for the median.
const TARGET_MS: f64 = 5.0;
/// What the project promises for the memory.
const TARGET_BYTES: u64 = 500 << 20;

/// An event that takes longer than this is not late but lost.
const PATIENCE: Duration = Duration::from_secs(120);

/// Figures of the embedded API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchFigures {
    /// What was stored.
    pub size: Size,
    /// From a write in this process to its event in the client.
    pub latency: Spread,
    /// What the project promises for the median.
    pub target_ms: f64,
    /// Resident memory of the server's process (this one) after all that, in bytes.
    pub rss_bytes: u64,
    /// What the project promises for it.
    pub target_bytes: u64,
}

/// Stores a cluster, then measures `count` writes one at a time.
///
/// # Errors
/// When the server or its client fails.
pub async fn measure(size: Size, count: usize) -> Result<WatchFigures, BenchError> {
    let api = ApiServer::new(Config::default()).map_err(BenchError::of("make an API server"))?;
    apiserver::bench::preload(&api, size.services, size.endpoints)
        .map_err(BenchError::of("store the objects"))?;
    let listener = TcpListener::bind("127.0.0.1:0")
        .map_err(BenchError::of("listen on the loopback address"))?;
    let serving = api
        .serve(listener)
        .map_err(BenchError::of("serve the API"))?;
    let exe = std::env::current_exe().map_err(BenchError::of("find the harness's own binary"))?;
    let mut client = tokio::process::Command::new(exe)
        .arg(SUBCOMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(BenchError::of("start the watching client"))?;
    let (Some(mut stdin), Some(stdout)) = (client.stdin.take(), client.stdout.take()) else {
        return Err(BenchError::of("start the watching client")(
            "it has no standard streams",
        ));
    };
    let kubeconfig = api.kubeconfig("bench", serving.address());
    stdin
        .write_all(kubeconfig.as_bytes())
        .await
        .map_err(BenchError::of("talk to the watching client"))?;
    drop(stdin);
    let mut lines = BufReader::new(stdout).lines();
    let mut next = async || -> Result<String, BenchError> {
        let line = tokio::time::timeout(PATIENCE, lines.next_line());
        let line = line.await.map_err(BenchError::of("see an event"))?;
        line.map_err(BenchError::of("read from the watching client"))?
            .ok_or("it ended")
            .map_err(BenchError::of("read from the watching client"))
    };
    next().await?;
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let service = rand::rng().random_range(0..size.services);
        let slice = ObjectRef::new(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "default",
            &format!("svc-{service:05}-v4"),
        );
        let patch = json!({"metadata": {"annotations": {"bench": number.to_string()}}});
        let written = now();
        let stored = api
            .patch(&slice, PatchKind::Merge, &patch)
            .map_err(BenchError::of("write"))?;
        let line = next().await?;
        let seen = line
            .split_once(' ')
            .and_then(|(version, at)| Some((version, at.parse::<u64>().ok()?)));
        match seen {
            Some((version, at)) if stored["metadata"]["resourceVersion"] == version => {
                times.push(Duration::from_nanos(at.saturating_sub(written)));
            }
            _ => {
                return Err(BenchError::of("follow the events")(format!(
                    "unexpected: {line}"
                )));
            }
        }
        // Not in step with anything that happens at intervals.
        let pause = rand::rng().random_range(300..1_200);
        tokio::time::sleep(Duration::from_micros(pause)).await;
    }
    let rss_bytes = own_rss().map_err(BenchError::of("read /proc/self/status"))?;
    let _ = client.kill().await;
    drop(serving);
    let latency = Spread::of(times)
        .ok_or("no write was asked for")
        .map_err(BenchError::of("measure watches"))?;
    Ok(WatchFigures {
        size,
        latency,
        target_ms: TARGET_MS,
        rss_bytes,
        target_bytes: TARGET_BYTES,
    })
}

fn own_rss() -> std::io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .trim()
            .strip_suffix(" kB")?
            .parse::<u64>()
            .ok()
    });
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| std::io::ErrorKind::NotFound.into())
}

/// The client: takes a kubeconfig from standard input, prints `ready` when it has everything that was stored, and from
/// then on one line per event. Ends when the server does.
pub fn watcher_main() -> ExitCode {
    let mut kubeconfig = String::new();
    if let Err(error) = std::io::stdin().read_to_string(&mut kubeconfig) {
        eprintln!("error: failed to read a kubeconfig: {error}");
        return ExitCode::from(4);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let watched = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| {
            runtime
                .block_on(watch(&kubeconfig))
                .map_err(|error| error.to_string())
        });
    match watched {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: failed to watch: {error}");
            ExitCode::from(4)
        }
    }
}

async fn watch(kubeconfig: &str) -> Result<(), Box<dyn std::error::Error>> {
    const PATH: &str = "/apis/discovery.k8s.io/v1/endpointslices?watch=1&sendInitialEvents=true\
                        &resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let config = kube::Config::from_custom_kubeconfig(
        Kubeconfig::from_yaml(kubeconfig)?,
        &KubeConfigOptions::default(),
    )
    .await?;
    let client = kube::Client::try_from(config)?;
    let request = http::Request::get(PATH).body(Vec::new())?;
    let mut lines = std::pin::pin!(client.request_stream(request).await?);
    let mut out = std::io::stdout().lock();
    let (mut line, mut ready) = (String::new(), false);
    while lines.read_line(&mut line).await? > 0 {
        let at = now();
        // Bookmarks come last of the initial events, and now and then later on.
        if line.starts_with(r#"{"type":"BOOKMARK""#) {
            if !ready {
                writeln!(out, "ready")?;
            }
            ready = true;
        } else if ready {
            let event: Value = serde_json::from_str(&line)?;
            writeln!(
                out,
                "{} {at}",
                event["object"]["metadata"]["resourceVersion"]
                    .as_str()
                    .unwrap_or("0")
            )?;
        }
        out.flush()?;
        line.clear();
    }
    Ok(())
}
