//! Every call of `kind` and of the container engine: what was asked, when, for how long, and what came back.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// How much of an output is kept in the log; more of it is in the middle left out.
const KEPT: usize = 32 * 1024;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The program exited with this code.
    Exited(i32),
    /// A signal that did not come from here ended the program.
    Signalled(i32),
    /// It was killed at its deadline.
    Deadline,
    /// It was killed because nobody waited for it any more.
    Cancelled,
    /// The program could not be started.
    NotStarted,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signalled(signal) => write!(f, "was ended by signal {signal}"),
            Self::Deadline => f.write_str("was killed at its deadline"),
            Self::Cancelled => f.write_str("was killed because it was no longer wanted"),
            Self::NotStarted => f.write_str("could not be started"),
        }
    }
}

/// One call of a program.
#[derive(Debug, Clone)]
pub struct Call {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// When it was started.
    pub started: SystemTime,
    /// How long it ran.
    pub took: Duration,
    /// How it ended.
    pub ended: Ended,
    /// What it wrote to standard output. Kubeconfigs are left out, since they hold keys.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Call {
    /// The call as it would be typed into a shell.
    pub fn command(&self) -> String {
        quoted(&self.argv)
    }

    /// The call as a paragraph of the log.
    pub fn text(&self) -> String {
        let started = Timestamp::try_from(self.started).unwrap_or(Timestamp::UNIX_EPOCH);
        let mut text = format!(
            "{started:.3} $ {}\n  {} after {:.3} s\n",
            self.command(),
            self.ended,
            self.took.as_secs_f64()
        );
        for (stream, lines) in [("out", &self.stdout), ("err", &self.stderr)] {
            for line in lines.lines() {
                let _ = writeln!(text, "  {stream}: {}", line.trim_end());
            }
        }
        text
    }
}

/// All calls of one harness, in the order of their ends. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct CallLog(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    calls: Vec<Call>,
    file: Option<File>,
}

impl CallLog {
    /// A log that is kept in memory only.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes all calls so far and each further one to this file at once, so that it tells what happened when the harness is killed.
    pub fn tee(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let mut inner = self.lock();
        for call in &inner.calls {
            file.write_all(call.text().as_bytes())?;
        }
        inner.file = Some(file);
        Ok(())
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// The calls whose arguments begin with these words, after the program: `["create", "cluster"]`.
    pub fn find(&self, words: &[&str]) -> Vec<Call> {
        self.lock()
            .calls
            .iter()
            .filter(|call| {
                call.argv
                    .iter()
                    .skip(1)
                    .zip(words)
                    .filter(|(a, b)| a == b)
                    .count()
                    == words.len()
            })
            .cloned()
            .collect()
    }

    /// How long all calls took whose arguments begin with these words.
    pub fn time_of(&self, words: &[&str]) -> Duration {
        self.find(words).iter().map(|call| call.took).sum()
    }

    /// The log as text.
    pub fn text(&self) -> String {
        self.lock().calls.iter().map(Call::text).collect()
    }

    /// Writes the log as text into a file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.text())
    }

    pub(crate) fn push(&self, mut call: Call) {
        call.stdout = shortened(call.stdout);
        call.stderr = shortened(call.stderr);
        tracing::debug!(
            command = %call.command(),
            ended = %call.ended,
            took_ms = call.took.as_millis() as u64,
            stderr = %call.stderr.trim_end(),
            "ran a command"
        );
        let mut inner = self.lock();
        if let Some(file) = &mut inner.file {
            // A full disk must not keep anybody from deleting a cluster.
            let _ = file.write_all(call.text().as_bytes());
        }
        inner.calls.push(call);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn quoted(argv: &[String]) -> String {
    shlex::try_join(argv.iter().map(String::as_str)).unwrap_or_else(|_| argv.join(" "))
}

fn shortened(text: String) -> String {
    if text.len() <= KEPT {
        return text;
    }
    let head = text.floor_char_boundary(KEPT / 2);
    let tail = text.ceil_char_boundary(text.len() - KEPT / 2);
    format!(
        "{}\n[... {} bytes left out ...]\n{}",
        &text[..head],
        tail - head,
        &text[tail..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(argv: &[&str], ended: Ended, stdout: &str) -> Call {
        Call {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            started: SystemTime::UNIX_EPOCH + Duration::from_millis(1500),
            took: Duration::from_millis(250),
            ended,
            stdout: stdout.to_owned(),
            stderr: "a line\n".to_owned(),
        }
    }

    #[test]
    fn calls_are_written_as_they_would_be_typed() {
        let log = CallLog::new();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("calls.txt");
        log.push(call(
            &["kind", "create", "cluster", "--name", "a b"],
            Ended::Exited(0),
            "x\ny\n",
        ));
        log.tee(&file).unwrap();
        log.push(call(&["docker", "ps"], Ended::Deadline, ""));
        insta::assert_snapshot!(log.text(), @r"
        1970-01-01T00:00:01.500Z $ kind create cluster --name 'a b'
          exited with code 0 after 0.250 s
          out: x
          out: y
          err: a line
        1970-01-01T00:00:01.500Z $ docker ps
          was killed at its deadline after 0.250 s
          err: a line
        ");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), log.text());
        assert_eq!(log.find(&["create", "cluster"]).len(), 1);
        assert_eq!(
            log.find(&["create", "cluster", "--name", "a b", "more"])
                .len(),
            0
        );
        assert_eq!(log.time_of(&[]), Duration::from_millis(500));
    }

    #[test]
    fn long_outputs_are_shortened_in_the_middle() {
        let log = CallLog::new();
        log.push(call(
            &["x"],
            Ended::Exited(0),
            &format!("begin{}end", "ä".repeat(KEPT)),
        ));
        let kept = &log.calls()[0].stdout;
        assert!(kept.len() < KEPT + 100 && kept.starts_with("begin") && kept.ends_with("end"));
    }
}
