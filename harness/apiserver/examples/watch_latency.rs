//! How long a write takes to reach a watching client, with a large cluster stored, and what that costs in memory.
//!
//! `cargo run --release -p apiserver --example watch_latency -- [SERVICES] [ENDPOINTS PER SERVICE] [SAMPLES]` (10000, 10 and 500 by default). The client
//! is a process of its own, so that the memory figure is the server's; both share the machine's `CLOCK_MONOTONIC`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use apiserver::{ApiServer, Config, ObjectRef, PatchKind, bench};
use futures::AsyncBufReadExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map(|t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
        .unwrap_or_default()
}

/// A field of `/proc/self/status`, in MiB.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(field));
    line.and_then(|l| {
        l.trim_start_matches(':')
            .trim()
            .split(' ')
            .next()?
            .parse::<u64>()
            .ok()
    })
    .unwrap_or(0)
        / 1024
}

/// Reads a watch (WatchList) of all EndpointSlices and prints when each line arrived: `ready COUNT`, then `RESOURCEVERSION NANOSECONDS`.
async fn client(kubeconfig: &str) -> anyhow::Result<()> {
    let options = KubeConfigOptions::default();
    let config =
        kube::Config::from_custom_kubeconfig(Kubeconfig::from_yaml(kubeconfig)?, &options).await?;
    let client = kube::Client::try_from(config)?;
    let path = "/apis/discovery.k8s.io/v1/endpointslices?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let request = http::Request::get(path).body(Vec::new())?;
    let mut lines = std::pin::pin!(client.request_stream(request).await?);
    let (mut line, mut initial, mut ready) = (String::new(), 0u64, false);
    let mut out = std::io::stdout().lock();
    while lines.read_line(&mut line).await? > 0 {
        let at = now_ns();
        if ready {
            let event: Value = serde_json::from_str(&line)?;
            writeln!(
                out,
                "{} {at}",
                event["object"]["metadata"]["resourceVersion"]
                    .as_str()
                    .unwrap_or("0")
            )?;
        } else if line.starts_with("{\"type\":\"BOOKMARK\"") {
            ready = true;
            writeln!(out, "ready {initial}")?;
        } else {
            initial += 1;
        }
        out.flush()?;
        line.clear();
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    if let [mode, path] = arguments.as_slice()
        && mode == "client"
    {
        return runtime.block_on(client(&std::fs::read_to_string(path)?));
    }
    let number = |at: usize, default: usize| arguments.get(at).map_or(Ok(default), |a| a.parse());
    let (services, endpoints, samples) = (number(0, 10_000)?, number(1, 10)?, number(2, 500)?);

    let server = ApiServer::new(Config::default())?;
    let started = Instant::now();
    bench::preload(&server, services, endpoints)?;
    println!(
        "stored {services} Services and {} endpoints in {:.2?}, RSS {} MiB",
        services * endpoints,
        started.elapsed(),
        memory("VmRSS")
    );

    let _guard = runtime.enter();
    let serving = server.serve(TcpListener::bind("127.0.0.1:0")?)?;
    let kubeconfig = tempfile::NamedTempFile::new()?;
    std::fs::write(
        kubeconfig.path(),
        server.kubeconfig("bench", serving.address()),
    )?;
    let started = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .arg("client")
        .arg(kubeconfig.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child
        .stdout
        .take()
        .ok_or_else(|| anyhow::anyhow!("failed to read from the client"))?;
    let mut lines = BufReader::new(output).lines();
    let mut next = || {
        lines
            .next()
            .unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into()))
    };
    println!(
        "client has all EndpointSlices ({}) after {:.2?}",
        next()?.trim_start_matches("ready "),
        started.elapsed()
    );

    let mut latencies = Vec::with_capacity(samples);
    for sample in 0..samples {
        let name = format!("svc-{:05}-v4", (sample * 7919) % services);
        let slice = ObjectRef::new("discovery.k8s.io/v1", "EndpointSlice", "default", &name);
        let written = now_ns();
        let stored = server.patch(
            &slice,
            PatchKind::Merge,
            &json!({"metadata": {"annotations": {"sample": sample.to_string()}}}),
        )?;
        let line = next()?;
        let (version, at) = line
            .split_once(' ')
            .ok_or_else(|| anyhow::anyhow!("failed to read {line:?}"))?;
        anyhow::ensure!(
            stored["metadata"]["resourceVersion"] == version,
            "an unexpected event: {line}"
        );
        latencies.push(Duration::from_nanos(
            at.parse::<u64>()?.saturating_sub(written),
        ));
        // One write at a time, at moments that are not in step with anything.
        std::thread::sleep(Duration::from_micros(500 + (sample as u64 * 37) % 700));
    }
    latencies.sort();
    let quantile = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize];
    println!(
        "write to watch event, {samples} samples: median {:.2?}, p99 {:.2?}, max {:.2?}",
        quantile(0.5),
        quantile(0.99),
        quantile(1.0)
    );
    println!(
        "server RSS {} MiB, peak {} MiB",
        memory("VmRSS"),
        memory("VmHWM")
    );
    child.kill()?;
    child.wait()?;
    Ok(())
}
