//! Measures reading, merging, rendering and importing a long log: `cargo run --release -p reports --example million`, with
//! the number of events as an optional argument.
//!
//! Prints a line per step with its time and the largest memory the process has needed so far, and fails when the whole does not
//! hold the limits that are promised for a million events.

use std::path::Path;
use std::time::Instant;

use reports::history::History;
use reports::merge::{MergeOptions, merge};
use reports::shard::Shard;
use reports::{Report, badge, evidence, html, json, junit, markdown};

#[path = "../tests/fixture/synthetic.rs"]
mod synthetic;

/// Shards of the run that is merged.
const SHARDS: u32 = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let events = std::env::args()
        .nth(1)
        .map_or(Ok(1_000_000), |n| n.parse())?;
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("events.jsonl");
    let written = step("write the log", || synthetic::write(&log, events, None))?;
    println!(
        "{written} events, {} MB",
        std::fs::metadata(&log)?.len() >> 20
    );
    let rendering = Instant::now();
    let report = step("read it into a report", || Report::from_log(&log))?;
    let sizes = [
        step("report.json", || json::render(&report).len()),
        step("junit.xml", || junit::render(&report).len()),
        step("report.md", || markdown::render(&report).len()),
        step("report.html", || {
            html::render(&report, &evidence::collect(dir.path(), &report)).len()
        }),
        step("badge.svg", || badge::render(&report).len()),
    ];
    let rendering = rendering.elapsed();
    println!(
        "all formats: {:.2} s, {:?} bytes",
        rendering.as_secs_f64(),
        sizes
    );
    let peak = peak_mib();
    let db = dir.path().join("history.sqlite");
    let mut history = History::create_or_open(&db)?;
    step("import into a history", || history.import(&report))?;
    let totals = report.totals;
    drop(report);

    let dirs: Vec<_> = (1..=SHARDS)
        .map(|index| {
            let shard = Shard { index, of: SHARDS };
            let dir = dir.path().join(format!("shard-{index}"));
            std::fs::create_dir(&dir)?;
            synthetic::write(&dir.join("events.jsonl"), events, Some(shard))?;
            Ok(dir)
        })
        .collect::<std::io::Result<_>>()?;
    let out = dir.path().join("merged");
    let merged = step("merge 8 shards", || {
        merge(&dirs, &out, MergeOptions::default())
    })?;
    assert_eq!(
        merged.report.totals, totals,
        "shards say what the whole says"
    );
    let replaced = step("import the merged run", || history.import(&merged.report))?;
    println!("{replaced:?}; {} MB", std::fs::metadata(&db)?.len() >> 20);
    if events <= 1_000_000 && (rendering.as_secs_f64() > 10.0 || peak > 500) {
        return Err(format!("{rendering:?} and {peak} MiB are more than 10 s and 500 MiB").into());
    }
    Ok(())
}

/// Does a step of the work and prints what it took.
fn step<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    println!(
        "{name:<24} {:>7.2} s  {:>5} MiB at most",
        started.elapsed().as_secs_f64(),
        peak_mib()
    );
    result
}

/// The largest resident memory of this process so far.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
