//! Makes all reports of a run again from its log: `cargo run -p reports --example render -- RUN-DIRECTORY [OUT-DIRECTORY]`.
//!
//! With an output directory of its own, `report.html` still shows the evidence that lies in the run's directory.

use std::path::PathBuf;

use reports::{Report, evidence, html, write_all};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let run = arguments.next().ok_or("which run's directory?")?;
    let out = arguments.next().unwrap_or_else(|| run.clone());
    let report = Report::from_log(run.join("events.jsonl"))?;
    for path in write_all(&out, &report)? {
        println!(
            "{} bytes in {}",
            std::fs::metadata(&path)?.len(),
            path.display()
        );
    }
    if out != run {
        let page = html::render(&report, &evidence::collect(&run, &report));
        std::fs::write(out.join("report.html"), &page)?;
        println!("{} bytes with evidence", page.len());
    }
    Ok(())
}
