//! Recorded runs of kind and of engines: what each failure is taken for, and what the user reads.
//!
//! A file has the command, its exit code and both outputs. Those in `transcripts/` were recorded with kind v0.27.0 and Docker 26.1 (paths, hosts and repeated
//! lines of kubeadm's log are shortened), those in `transcripts/head/` with kind v0.33.0-alpha; those in `transcripts/written/` were written after the sources of kind, Docker, podman, nerdctl and kubelet, for
//! what could not be provoked.

use std::fmt::Write as _;
use std::path::Path;

use kindlab::{Ended, Transcript, Version, classify};

struct Recorded {
    name: String,
    code: i32,
    transcript: Transcript,
}

fn recorded(directory: &str) -> Vec<Recorded> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(directory);
    let mut all: Vec<Recorded> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| read(&path))
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!all.is_empty());
    all
}

fn read(path: &Path) -> Recorded {
    let text = std::fs::read_to_string(path).unwrap();
    let parts = || {
        let (head, outputs) = text.split_once("--- stdout\n")?;
        let (stdout, stderr) = outputs.split_once("--- stderr\n")?;
        let (command, code) = head.trim().rsplit_once("\nexit ")?;
        Some((
            shlex::split(command.strip_prefix("$ ")?)?,
            code.parse().ok()?,
            stdout,
            stderr,
        ))
    };
    let (argv, code, stdout, stderr) =
        parts().unwrap_or_else(|| panic!("{} is no transcript", path.display()));
    Recorded {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        code,
        transcript: Transcript {
            argv,
            ended: Ended::Exited(code),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        },
    }
}

fn table(directory: &str) -> String {
    let mut table = String::new();
    for run in recorded(directory).iter().filter(|run| run.code != 0) {
        let error = classify(&run.transcript);
        writeln!(
            table,
            "{}: {}{}\n  {error}\n",
            run.name,
            error.case(),
            if error.is_usage() { " (usage)" } else { "" }
        )
        .unwrap();
    }
    table
}

#[test]
fn recorded_failures_say_what_and_what_to_do() {
    insta::assert_snapshot!(table("transcripts"));
}

#[test]
fn failures_after_the_sources_say_what_and_what_to_do() {
    insta::assert_snapshot!(table("transcripts/written"));
}

#[test]
fn the_version_that_was_recorded_is_read() {
    let run =
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts/kind-version.txt"));
    assert_eq!(
        Version::parse(&run.transcript.stdout),
        Some(Version::new(0, 27, 0))
    );
}

#[test]
fn a_newer_kind_is_understood_as_well() {
    let older = recorded("transcripts");
    let mut compared = 0;
    for newer in recorded("transcripts/head")
        .iter()
        .filter(|run| run.code != 0)
    {
        let older = older.iter().find(|run| run.name == newer.name).unwrap();
        assert_eq!(
            classify(&newer.transcript).case(),
            classify(&older.transcript).case(),
            "{}",
            newer.name
        );
        compared += 1;
    }
    assert!(compared > 20, "{compared}");
}

#[test]
fn the_documentation_has_every_case() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kind.md");
    let documentation = std::fs::read_to_string(path).unwrap();
    for run in recorded("transcripts")
        .iter()
        .chain(&recorded("transcripts/written"))
    {
        if run.code != 0 {
            let case = classify(&run.transcript).case();
            assert!(documentation.contains(&format!("`{case}`")), "{case}");
        }
    }
}
