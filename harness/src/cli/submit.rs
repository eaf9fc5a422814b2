//! `harness submit`: a result for somebody who was not there.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use reports::{
    event::{EventBody, RunStarted},
    model::Report,
    sign::{
        self, Kind,
        files::{self, Entry, FilesError},
        key::{PrivateKey, PublicKey},
    },
    submission,
};

use super::{
    Exit, Failed, print,
    sign::{name, not_inside, sound},
    verify::{Examined, told},
};

/// Lay out a submission: log, reports, evidence, the candidate's manifest, a signature, and a README.md that says how to repeat the run.
///
/// The files are copied as they are. README.md follows from the log. With --key the submission is signed; without, the signature of DIR is
/// taken along if there is one, and otherwise the submission is unsigned. What `harness verify FOLDER` would say against it is said at once.
///
/// Exit codes: 0 laid out, and nothing but perhaps a signature is missing; 1 laid out, and a reviewer would refuse it; 2 usage, or
/// no result that can be submitted; 4 trouble with the disk, or made by another version of the suite, with which it has to be checked.
#[derive(Debug, Args)]
pub struct SubmitCommand {
    /// Result directory of a run.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Folder to make; must not exist, or be empty.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Private key to sign with: ed25519, PKCS#8 PEM.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Name to sign with, such as `Jane Doe <jane@example.org>`. Nobody checks it.
    #[arg(long, value_name = "NAME", requires = "key", value_parser = name)]
    signer: Option<String>,
    /// The candidate's manifest, if it is not any more where it was during the run.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

impl SubmitCommand {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let key = self.key.as_deref().map(PrivateKey::read).transpose()?;
        if let Some(file) = &self.key {
            not_inside(file, &self.dir)?;
        }
        let report = sound(&self.dir)?;
        let run = started(&self.dir)?;
        let manifest = self.find_manifest(&run)?;
        self.free()?;
        let parent = match self.to.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(|error| self.cannot(error))?;
        // Made beside its place and moved there, so that nobody finds half of one. It goes away if anything fails.
        let draft = tempfile::Builder::new()
            .prefix(".submission-")
            .tempdir_in(parent)
            .map_err(|error| self.cannot(error))?;
        let folder = draft.path();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(Failed::infra)?;
        self.copy(folder, key.is_none())?;
        if let Some(manifest) = &manifest {
            fs::write(folder.join(submission::MANIFEST), manifest).map_err(Failed::infra)?;
        }
        let page = submission::readme(&report, &run, manifest.is_some());
        fs::write(folder.join(submission::README), page).map_err(Failed::infra)?;
        let mut own: Vec<PublicKey> = Vec::new();
        if let Some(key) = &key {
            sign::sign(folder, &report, key, self.signer.as_deref())?;
            own.push(key.public());
        }
        let examined = Examined::of(folder, &own, true)?;
        self.refuse(&examined)?;
        fs::rename(folder, &self.to).map_err(|error| self.cannot(error))?;
        // Nothing is left at its old place to be removed.
        let _ = draft.keep();
        print(&self.summary(&report, &examined));
        Ok(match examined.exit() {
            Exit::NothingRan => Exit::Ok,
            exit => exit,
        })
    }

    fn cannot(&self, error: std::io::Error) -> Failed {
        Failed::usage(format!(
            "--to {}: it cannot be made: {error}",
            self.to.display()
        ))
    }

    /// Refuses a folder that holds something, or lies where it would become a part of the results.
    fn free(&self) -> Result<(), Failed> {
        let to = self.to.display();
        let empty = fs::read_dir(&self.to).map(|mut entries| entries.next().is_none());
        if empty.is_err() && self.to.symlink_metadata().is_ok() {
            return Err(Failed::usage(format!("--to {to}: it is no directory")));
        }
        if matches!(empty, Ok(false)) {
            return Err(Failed::usage(format!(
                "--to {to}: it is not empty; name another folder or remove it"
            )));
        }
        let absolute = std::path::absolute(&self.to).map_err(Failed::usage)?;
        let existing = absolute
            .ancestors()
            .find_map(|path| path.canonicalize().ok());
        let results = self.dir.canonicalize().map_err(Failed::usage)?;
        if existing.is_some_and(|path| path.starts_with(results)) {
            return Err(Failed::usage(format!(
                "--to {to}: it lies in {}, which is to be submitted",
                self.dir.display()
            )));
        }
        Ok(())
    }

    /// Copies the results, and their signature where it is wanted.
    fn copy(&self, folder: &Path, signature: bool) -> Result<(), Failed> {
        let listing = files::list(&self.dir).map_err(Failed::infra)?;
        let mut names: Vec<String> = Vec::new();
        for (name, entry) in listing {
            if let Entry::Other(what) = entry {
                let dir = self.dir.clone();
                return Err(sign::SignError::NoFile { dir, name, what }.into());
            }
            if matches!(name.as_str(), submission::README | submission::MANIFEST) {
                return Err(Failed::usage(format!(
                    "{}: it holds {name}, so it is a submission already, or no result directory",
                    self.dir.display()
                )));
            }
            names.push(name);
        }
        if signature && self.dir.join(sign::FILE_NAME).is_file() {
            names.push(sign::FILE_NAME.to_owned());
        }
        for name in names {
            let (from, to) = (self.dir.join(&name), folder.join(&name));
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent).map_err(Failed::infra)?;
            }
            fs::copy(&from, &to)
                .map_err(FilesError::at(&from))
                .map_err(Failed::infra)?;
        }
        Ok(())
    }

    /// The candidate's manifest, by its digest in the log; none where the log does not name one.
    fn find_manifest(&self, run: &RunStarted) -> Result<Option<Vec<u8>>, Failed> {
        let Some(wanted) = submission::manifest_digest(run) else {
            return match &self.manifest {
                None => Ok(None),
                Some(file) => Err(Failed::usage(format!(
                    "--manifest {}: the log of this run names no manifest that it could be",
                    file.display()
                ))),
            };
        };
        let given = run.invocation.as_ref().map(|one| one.candidate.as_str());
        let file = match &self.manifest {
            Some(file) => file.clone(),
            None => PathBuf::from(given.unwrap_or_default()),
        };
        let again = "name the manifest of the run with --manifest FILE";
        let digest = files::sha256(&file).map_err(|error| {
            Failed::usage(format!("the candidate's manifest: {error}; {again}"))
        })?;
        if format!("sha256:{digest}") != wanted {
            return Err(Failed::usage(format!(
                "the candidate's manifest {} is sha256:{digest} now, and was {wanted} when the run began; {again}",
                file.display()
            )));
        }
        fs::read(&file).map(Some).map_err(Failed::usage)
    }

    /// A submission may be incomplete, and is told so. One whose files contradict each other is not made.
    fn refuse(&self, examined: &Examined) -> Result<(), Failed> {
        let wrong: Vec<_> = examined
            .findings
            .broken
            .iter()
            .filter(|finding| {
                !matches!(
                    finding.kind,
                    Kind::Partial
                        | Kind::NotRun
                        | Kind::Skip
                        | Kind::Plan
                        | Kind::Suite
                        | Kind::Seed
                        | Kind::Evidence
                )
            })
            .cloned()
            .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Failed::usage(format!(
            "{}: its signature does not hold, so it cannot be taken along (--key signs anew): {}",
            self.dir.display(),
            told(&wrong, 10).join("; ")
        )))
    }

    fn summary(&self, report: &Report, examined: &Examined) -> String {
        let mut text = format!(
            "submission of {}: {}\n",
            reports::text::one_line(&report.candidate.name),
            self.to.display()
        );
        text.push_str(&examined.text(&self.to));
        text
    }
}

/// How the run was begun.
fn started(dir: &Path) -> Result<RunStarted, Failed> {
    let log = dir.join(reports::log::FILE_NAME);
    let first = reports::log::read(log).map_err(Failed::usage)?.next();
    if let Some(Ok(event)) = first
        && let EventBody::RunStarted(run) = event.body
    {
        return Ok(run);
    }
    Err(Failed::usage(format!(
        "{}: its log does not begin with the start of a run",
        dir.display()
    )))
}
