//! `harness sign`: who stands for a result.

use std::path::{Path, PathBuf};

use clap::Args;
use reports::{
    Report,
    sign::{self, Findings, key::KeyError, key::PrivateKey},
    submission::{Agreed, agree},
    text::one_line,
};

use super::{Exit, Failed, print};

/// Sign a result directory, so that whoever gets it can see who stands for it and that nothing was changed since.
///
/// Writes report.intoto.json: an in-toto statement with the test-result predicate over the digests of all files of the directory (log,
/// reports, evidence), in a DSSE envelope, signed with ed25519. No file is changed by it. `harness verify DIR` checks it.
///
/// Exit codes: 0 signed, or the key was made; 2 usage, or nothing that can be signed (its reports are not what its log says, it is
/// being written, it is signed already); 4 trouble with the disk.
#[derive(Debug, Args)]
pub struct SignCommand {
    /// Result directory of a run, or a submission.
    #[arg(
        value_name = "DIR",
        required_unless_present = "generate_key",
        requires = "key"
    )]
    dir: Option<PathBuf>,
    /// Private key: ed25519, PKCS#8 PEM.
    #[arg(long, value_name = "FILE", requires = "dir")]
    key: Option<PathBuf>,
    /// Name to sign with, such as `Jane Doe <jane@example.org>`. Nobody checks it.
    #[arg(long, value_name = "NAME", requires = "dir", value_parser = name)]
    signer: Option<String>,
    /// Make a new key instead: FILE gets the private key, FILE.pub the public one. Neither is overwritten.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dir", "key", "signer"])]
    generate_key: Option<PathBuf>,
}

impl SignCommand {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        if let Some(file) = &self.generate_key {
            return generate(file);
        }
        let (Some(dir), Some(key)) = (&self.dir, &self.key) else {
            return Err(Failed::usage("sign needs DIR and --key FILE"));
        };
        let private = PrivateKey::read(key)?;
        not_inside(key, dir)?;
        let report = sound(dir)?;
        let statement = sign::sign(dir, &report, &private, self.signer.as_deref())?;
        for problem in &report.problems {
            eprintln!("partial: {}", one_line(problem));
        }
        print(&format!(
            "signed: {} files of {}, {} ({})\nby {} into {}\n",
            statement.subject.len(),
            dir.display(),
            statement.predicate.result,
            report.conclusion.title().to_lowercase(),
            private.public().id(),
            dir.join(sign::FILE_NAME).display()
        ));
        Ok(Exit::Ok)
    }
}

fn generate(file: &Path) -> Result<Exit, Failed> {
    let key = PrivateKey::generate()?;
    let public = key.write(file)?;
    print(&format!(
        "private key {}: keep it to yourself\npublic key {}: give it to whoever verifies\nid {}\n",
        file.display(),
        public.display(),
        key.public().id()
    ));
    Ok(Exit::Ok)
}

/// A name that fits into a line.
pub(super) fn name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.chars().any(char::is_control) {
        return Err("a name is one line with something in it".into());
    }
    Ok(text.to_owned())
}

/// A private key inside a directory would be published with it.
pub(super) fn not_inside(key: &Path, dir: &Path) -> Result<(), Failed> {
    let (Ok(key), Ok(root)) = (key.canonicalize(), dir.canonicalize()) else {
        return Ok(());
    };
    if key.starts_with(root) {
        return Err(Failed::usage(format!(
            "--key {}: it lies in {}, and would be published with it; keep it somewhere else",
            key.display(),
            dir.display()
        )));
    }
    Ok(())
}

/// The report of a directory that nobody writes and whose reports are what its log says.
pub(super) fn sound(dir: &Path) -> Result<Report, Failed> {
    quiet(dir)?;
    let mut findings = Findings::default();
    let Agreed { report, .. } =
        agree(dir, env!("CARGO_PKG_VERSION"), &mut findings).map_err(Failed::usage)?;
    let mut wrong = findings.broken.iter().chain(&findings.unknown).peekable();
    match report {
        Some(report) if wrong.peek().is_none() => Ok(report),
        _ => {
            let lines: Vec<String> = wrong
                .map(|finding| {
                    format!("\n  {}: {}", finding.kind.as_str(), one_line(&finding.what))
                })
                .collect();
            Err(Failed::usage(format!(
                "{}: it is no result that can be signed: log and reports have to be there and say the same{}",
                dir.display(),
                lines.concat()
            )))
        }
    }
}

/// Refuses what is no result directory, and one that is being written.
pub(super) fn quiet(dir: &Path) -> Result<(), Failed> {
    let here = |name: &str| dir.join(name).symlink_metadata();
    let results = [reports::log::FILE_NAME, "report.json", sign::FILE_NAME];
    if !results.iter().any(|name| here(name).is_ok()) {
        return Err(Failed::usage(format!(
            "{}: it holds no results: neither {} nor report.json",
            dir.display(),
            reports::log::FILE_NAME
        )));
    }
    let lock = here(reports::directory::LOCK_NAME);
    // Anything but a file is not opened: it comes from somebody else.
    if lock.is_ok_and(|kind| kind.is_file())
        && let Some(writer) = reports::directory::writer(dir)?
    {
        let pid = writer.pid;
        let dir = dir.to_path_buf();
        return Err(reports::directory::DirectoryError::InUse { dir, pid }.into());
    }
    Ok(())
}

impl From<KeyError> for Failed {
    fn from(error: KeyError) -> Self {
        match error.is_usage() {
            true => Self::usage(error),
            false => Self::infra(error),
        }
    }
}

impl From<sign::SignError> for Failed {
    fn from(error: sign::SignError) -> Self {
        match error.is_usage() {
            true => Self::usage(error),
            false => Self::infra(error),
        }
    }
}
