//! `harness bench`.

use std::{fmt::Write as _, time::Duration};

use clap::{Args, ValueEnum};
use reports::event::Machine;
use serde::Serialize;

use super::{Exit, Failed, machine, print, runtime};
use crate::{
    bench::{self, BenchError, ProxyFigures, ProxySettings, Size, WatchFigures, WorldFigures},
    candidate::Candidate,
};

/// Measure worlds, the embedded API and proxies.
#[derive(Debug, Args)]
pub struct Bench {
    /// A second candidate, measured beside the reference proxy: the path of its manifest.
    #[arg(long, value_name = "FILE")]
    candidate: Option<String>,
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [What::Worlds, What::Watch, What::Proxy])]
    what: Vec<What>,
    /// Numbers of Services that proxies are measured with, each `SERVICES` or `SERVICESxENDPOINTS`.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "1000,10000x2,10000,30000"
    )]
    services: Vec<String>,
    /// Endpoints per Service where the list does not say.
    #[arg(long, value_name = "N", default_value = "5")]
    endpoints: usize,
    /// What is stored while the latency of watches is measured: `SERVICESxENDPOINTS`.
    #[arg(long, value_name = "SIZE", default_value = "10000x10")]
    stored: Size,
    /// Builds of a world, and moves of an endpoint; watches are measured ten times as often.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repeat: u32,
    /// Longest time that a proxy gets to load, and again to follow all moves; what was measured by then counts.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    patience: u64,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// How long a world of 2 nodes and 6 pods takes to build.
    Worlds,
    /// How long a write to the embedded API takes to reach a watching client.
    Watch,
    /// How fast proxies serve many Services and follow one change among them.
    Proxy,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables.
    #[default]
    Text,
    /// One object; times in milliseconds, memory in bytes.
    Json,
}

/// All figures of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    /// Version of the harness.
    version: &'static str,
    /// Whether compiled without optimisation: such figures say nothing.
    debug_build: bool,
    machine: Machine,
    #[serde(skip_serializing_if = "Option::is_none")]
    worlds: Option<WorldFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    watch: Option<WatchFigures>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    proxies: Vec<ProxyFigures>,
}

/// What the project promises of the reference proxy, as a size and three bounds: load in ms, change in ms, memory in bytes.
const PROMISE: (Size, f64, f64, u64) = (
    Size {
        services: 10_000,
        endpoints: 2,
    },
    1_000.0,
    10.0,
    60_000_000,
);

impl Bench {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let endpoints = Size::parse(&format!("1x{}", self.endpoints), 1)
            .map_err(|error| Failed::usage(format!("--endpoints: {error}")))?
            .endpoints;
        let sizes = self
            .services
            .iter()
            .map(|text| Size::parse(text, endpoints))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Failed::usage(format!("--services: {error}")))?;
        let mut candidates = vec![Candidate::load("reference")?];
        if let Some(candidate) = &self.candidate {
            candidates.push(Candidate::load(candidate)?);
        }
        let mut figures = Figures {
            version: env!("CARGO_PKG_VERSION"),
            debug_build: cfg!(debug_assertions),
            machine: machine::describe(),
            worlds: None,
            watch: None,
            proxies: Vec::new(),
        };
        let failed = |error: BenchError| Failed::infra(error);
        let repeat = self.repeat as usize;
        runtime()?.block_on(async {
            // The server's memory is this process's, so it is measured before anything else has used some.
            if self.what.contains(&What::Watch) {
                eprintln!("watches, with {} endpoints stored ...", self.stored);
                figures.watch = Some(
                    bench::measure_watch(self.stored, repeat * 10)
                        .await
                        .map_err(failed)?,
                );
            }
            if self.what.contains(&What::Worlds) {
                eprintln!("worlds, {repeat} times ...");
                figures.worlds = Some(bench::measure_worlds(repeat).await.map_err(failed)?);
            }
            if self.what.contains(&What::Proxy) {
                let settings = ProxySettings {
                    moves: repeat,
                    patience: Duration::from_secs(self.patience),
                };
                for size in &sizes {
                    for candidate in &candidates {
                        eprintln!("{} with {size} endpoints ...", candidate.manifest.name);
                        let measured = bench::measure_proxy(candidate, *size, settings)
                            .await
                            .map_err(failed)?;
                        figures.proxies.push(measured);
                    }
                }
            }
            Ok::<_, Failed>(())
        })?;
        match self.format {
            Format::Text => print(&text(&figures)),
            Format::Json => print(&format!(
                "{}\n",
                serde_json::to_string_pretty(&figures).map_err(Failed::infra)?
            )),
        }
        Ok(Exit::Ok)
    }
}

fn text(figures: &Figures) -> String {
    let mut text = String::new();
    let machine = &figures.machine;
    let _ = writeln!(
        text,
        "kernel {} ({}), {} CPUs, {}",
        machine.kernel, machine.arch, machine.cpus, machine.os
    );
    if figures.debug_build {
        text.push_str("this harness was compiled without optimisation: use `cargo run --release -- bench` for figures to quote\n");
    }
    if let Some(worlds) = &figures.worlds {
        let build = &worlds.build;
        let _ = writeln!(
            text,
            "\nworld of 2 nodes and 6 pods, {} builds: median {:.1} ms, p90 {:.1} ms, slowest {:.1} ms{}",
            build.count,
            build.median_ms,
            build.p90_ms,
            build.max_ms,
            promise(&[(build.median_ms, worlds.target_ms)], "median 150 ms")
        );
    }
    if let Some(watch) = &figures.watch {
        let _ = writeln!(
            text,
            "\nAPI watch with {} endpoints stored, {} writes: median {:.2} ms, p90 {:.2} ms, slowest {:.2} ms; {} resident{}",
            watch.size,
            watch.latency.count,
            watch.latency.median_ms,
            watch.latency.p90_ms,
            watch.latency.max_ms,
            memory(watch.rss_bytes),
            promise(
                &[
                    (watch.latency.median_ms, watch.target_ms),
                    (watch.rss_bytes as f64, watch.target_bytes as f64)
                ],
                "median 5 ms, 500 MiB"
            )
        );
    }
    if !figures.proxies.is_empty() {
        let _ = write!(text, "\n{}", proxies(&figures.proxies));
    }
    text
}

fn proxies(figures: &[ProxyFigures]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "Services x endpoints",
        "candidate",
        "first answers",
        "its CPU time",
        "one endpoint moved (median)",
        "p90",
        "slowest",
        "moves",
        "peak memory",
    ]);
    let mut notes = String::new();
    for proxy in figures {
        let time = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), duration);
        let change = |pick: fn(&bench::Spread) -> f64| time(proxy.change.as_ref().map(pick));
        table.add_row([
            proxy.size.to_string(),
            proxy.candidate.clone(),
            time(proxy.load_ms),
            time(proxy.load_cpu_ms),
            change(|spread| spread.median_ms),
            change(|spread| spread.p90_ms),
            change(|spread| spread.max_ms),
            proxy
                .change
                .as_ref()
                .map_or(0, |spread| spread.count)
                .to_string(),
            proxy.peak_rss_bytes.map_or_else(|| "-".to_owned(), memory),
        ]);
        if let Some(problem) = &proxy.problem {
            let _ = writeln!(notes, "{} with {}: {problem}", proxy.candidate, proxy.size);
        }
        let (size, load, change, bytes) = PROMISE;
        if proxy.candidate == "reference" && proxy.size == size {
            let seen = [
                (proxy.load_ms.unwrap_or(f64::INFINITY), load),
                (
                    proxy
                        .change
                        .map_or(f64::INFINITY, |spread| spread.median_ms),
                    change,
                ),
                (
                    proxy
                        .peak_rss_bytes
                        .map_or(f64::INFINITY, |bytes| bytes as f64),
                    bytes as f64,
                ),
            ];
            let _ = writeln!(
                notes,
                "reference with {size}{}",
                promise(&seen, "1 s, 10 ms, 60 MB")
            );
        }
    }
    format!(
        "proxies seen from a client: new connections every 2 ms while loading and every 1 ms while an endpoint moves\n\n{table}\n{}{notes}",
        if notes.is_empty() { "" } else { "\n" }
    )
}

/// Whether figures are within their bounds, for humans.
fn promise(figures: &[(f64, f64)], words: &str) -> String {
    let kept = figures.iter().all(|(value, bound)| value <= bound);
    format!(
        " ({} the promise: {words})",
        if kept { "keeps" } else { "BREAKS" }
    )
}

fn duration(ms: f64) -> String {
    if ms < 1e3 {
        format!("{ms:.1} ms")
    } else {
        format!("{:.2} s", ms / 1e3)
    }
}

fn memory(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
