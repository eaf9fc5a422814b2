//! `harness site`: a static site over many reports.

use std::path::PathBuf;

use clap::Args;
use reports::{
    sign::key::PublicKey,
    site::{self, Options, Skipped},
    text::one_line,
};

use super::{Exit, Failed, print};

/// Make a static site over many reports: candidates against requirements, failures over time, any two candidates side by side.
///
/// The site works from a disk and from any host of files, without network and without a server. Each run has its own report in it; all of them are
/// rendered again from the log, so that nothing of what somebody submitted is published as it is. The same reports make the same bytes.
///
/// Exit codes: 0 written; 2 usage or bad input, such as a broken report; 4 it cannot be written; 5 there is no report.
#[derive(Debug, Args)]
pub struct SiteCommand {
    /// Result directories, submissions, report.json files, or directories that hold such, at most two levels below.
    #[arg(required = true, value_name = "DIR")]
    inputs: Vec<PathBuf>,
    /// Where it is written: a directory that is missing, empty, or an earlier site, whose files are replaced.
    #[arg(long, value_name = "DIR", default_value = "harness-site")]
    out: PathBuf,
    /// Its heading.
    #[arg(long, value_name = "TEXT", default_value = "Service proxy conformance")]
    title: String,
    /// A history (`harness history --db FILE`) whose runs are in the trends as well; it is only read.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Public key (PEM) of somebody whose results are believed; may be given several times. A run that is signed with another is said to be signed with a key
    /// that nobody knows.
    #[arg(long = "key", value_name = "PUBLIC")]
    keys: Vec<PathBuf>,
}

impl SiteCommand {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let keys = self.keys.iter().map(|file| PublicKey::read(file));
        let keys: Vec<PublicKey> = keys.collect::<Result<_, _>>()?;
        let found = site::find(&self.inputs)?;
        for skipped in &found.skipped {
            say(skipped);
        }
        let options = Options {
            title: self.title,
            history: self.history.as_deref(),
            keys: &keys,
        };
        let written = site::write(&found.places, &options, &self.out)?;
        written.skipped.iter().for_each(say);
        if written.runs == 0 {
            return Err(Failed {
                message: "there is no report, so no site was written".to_owned(),
                exit: Exit::NothingRan,
            });
        }
        let plural = |count: usize, noun: &str| match count {
            1 => format!("1 {noun}"),
            _ => format!("{count} {noun}s"),
        };
        print(&format!(
            "{} of {}, {}: {}\n",
            plural(written.runs, "run"),
            plural(written.candidates, "candidate"),
            plural(written.files, "file"),
            self.out.join("index.html").display()
        ));
        Ok(Exit::Ok)
    }
}

fn say(skipped: &Skipped) {
    let path = one_line(&skipped.path.display().to_string());
    eprintln!("skipped {path}: {}", one_line(&skipped.why));
}

impl From<site::SiteError> for Failed {
    fn from(error: site::SiteError) -> Self {
        match error.is_usage() {
            true => Self::usage(error),
            false => Self::infra(error),
        }
    }
}
