//! Runs `e2e.test`: asks it for its specs, lets it run the chosen ones, and collects what it wrote.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    fs::File,
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
};

use super::{choose, images};

/// Name of the file with everything that `e2e.test` printed.
pub const LOG_NAME: &str = "e2e.log";
/// What the names of JUnit files begin with.
pub(super) const JUNIT: &str = "junit";

/// The program and how it is called.
#[derive(Clone, Debug)]
pub struct Program {
    /// `e2e.test` of some Kubernetes version.
    pub e2e_test: PathBuf,
    /// The `ginkgo` command, which runs specs in several processes; without it there is one.
    pub ginkgo: Option<PathBuf>,
    /// Processes.
    pub procs: u32,
    /// How to reach the cluster.
    pub kubeconfig: PathBuf,
    /// The context in it, if not the current one.
    pub context: Option<String>,
    /// The number of nodes that specs use. Of several processes only the first one finds it out by itself, and in the others every spec that
    /// needs two nodes skips itself.
    pub nodes: Option<usize>,
}

/// Why there are no results.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The program cannot be started.
    #[error("{program:?} cannot be started: {source}")]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It lists no specs.
    #[error("'{program} -list-tests' lists no specs ({status}): is it an e2e.test of Kubernetes?{said}", program = program.display())]
    NoSpecs {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: String,
        /// The last that it said.
        said: String,
    },
    /// Its output cannot be kept.
    #[error("{path:?} cannot be written: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It ended without results.
    #[error("{program:?} ended ({status}) and left no JUnit file in {dir:?}: see {LOG_NAME} there")]
    NoResults {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: String,
        /// Where it was to write.
        dir: PathBuf,
    },
}

impl Program {
    /// The names of all specs that are in it.
    ///
    /// # Errors
    /// It cannot be started or lists none.
    pub async fn specs(&self) -> Result<Vec<String>, RunError> {
        let output = Command::new(&self.e2e_test)
            .arg("-list-tests")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|source| self.cannot_start(&self.e2e_test, source))?;
        let names = choose::names(&String::from_utf8_lossy(&output.stdout));
        if names.is_empty() {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let last = stderr.lines().next_back().unwrap_or_default();
            return Err(RunError::NoSpecs {
                program: self.e2e_test.clone(),
                status: output.status.to_string(),
                said: if last.is_empty() {
                    String::new()
                } else {
                    format!(" It said: {last}")
                },
            });
        }
        Ok(names)
    }

    /// The images that the suite uses; none if it does not say.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn images(&self) -> Result<Vec<String>, RunError> {
        let output = Command::new(&self.e2e_test)
            .arg("-list-images")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|source| self.cannot_start(&self.e2e_test, source))?;
        Ok(images::listed(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Runs the specs that `focus` matches, and returns the texts of the JUnit files. `progress` is shown a line per spec that ended.
    /// When `stop` is set, ginkgo is interrupted, which ends the running specs and still writes what it knows.
    ///
    /// # Errors
    /// It cannot be started, its output cannot be kept, or it ended without results.
    pub async fn run(
        &self,
        focus: &str,
        out: &Path,
        stop: &Arc<AtomicBool>,
        mut progress: impl FnMut(&str),
    ) -> Result<Vec<String>, RunError> {
        let mut command = self.command(focus, out);
        let program = PathBuf::from(command.as_std().get_program());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is ours to pass on.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| self.cannot_start(&program, source))?;
        let path = out.join(LOG_NAME);
        let write = |source| RunError::Write {
            path: path.clone(),
            source,
        };
        let mut log = File::create(&path).await.map_err(write)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            unreachable!("both are pipes");
        };
        let (mut stdout, mut stderr) = (
            BufReader::new(stdout).lines(),
            BufReader::new(stderr).lines(),
        );
        let (mut open, mut mark) = ((true, true), None);
        let mut poll = tokio::time::interval(std::time::Duration::from_millis(200));
        let mut told = false;
        while open.0 || open.1 {
            let line = tokio::select! {
                line = stdout.next_line(), if open.0 => {
                    let line = line.ok().flatten();
                    open.0 = line.is_some();
                    if let Some(ended) = line.as_deref().and_then(|line| ended(&mut mark, line)) {
                        progress(&ended);
                    }
                    line
                }
                line = stderr.next_line(), if open.1 => {
                    let line = line.ok().flatten();
                    open.1 = line.is_some();
                    line
                }
                _ = poll.tick() => {
                    if stop.load(Ordering::Relaxed) && !told {
                        told = true;
                        interrupt(&child);
                    }
                    None
                }
            };
            if let Some(line) = line {
                log.write_all(line.as_bytes()).await.map_err(write)?;
                log.write_all(b"\n").await.map_err(write)?;
            }
        }
        log.flush().await.map_err(write)?;
        let status = child.wait().await;
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let texts = junit_files(out);
        if texts.is_empty() {
            return Err(RunError::NoResults {
                program,
                status,
                dir: out.to_path_buf(),
            });
        }
        Ok(texts)
    }

    fn command(&self, focus: &str, out: &Path) -> Command {
        let mut command = match &self.ginkgo {
            None => {
                let mut command = Command::new(&self.e2e_test);
                command.args(["-ginkgo.v", "-ginkgo.no-color", "-ginkgo.timeout=24h"]);
                command.arg(format!("-ginkgo.focus={focus}"));
                command
            }
            Some(ginkgo) => {
                let mut command = Command::new(ginkgo);
                command.args(["run", "-v", "--no-color", "--timeout=24h"]);
                command.arg(format!("--procs={}", self.procs));
                command.arg(format!("--focus={focus}"));
                command.arg(&self.e2e_test).arg("--");
                command
            }
        };
        command
            .arg(format!("-kubeconfig={}", self.kubeconfig.display()))
            .arg(format!("-report-dir={}", out.display()))
            .args(["-provider=skeleton", "-disable-log-dump"]);
        if let Some(nodes) = self.nodes {
            command.arg(format!("-num-nodes={nodes}"));
        }
        if let Some(context) = &self.context {
            command.arg(format!("-kube-context={context}"));
        }
        command
    }

    fn cannot_start(&self, program: &Path, source: std::io::Error) -> RunError {
        RunError::Start {
            program: program.to_path_buf(),
            source,
        }
    }
}

fn interrupt(child: &Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // The group: ginkgo's own processes get it as well.
        let _ = kill(Pid::from_raw(-pid), Signal::SIGINT);
    }
}

/// Output that arrives in pieces.
#[derive(Debug, Default)]
pub(super) struct Lines {
    mark: Option<String>,
    rest: Vec<u8>,
}

impl Lines {
    /// Takes a piece, and tells the specs that ended.
    pub(super) fn push(&mut self, piece: &[u8], progress: &mut impl FnMut(&str)) {
        self.rest.extend_from_slice(piece);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if let Some(told) = ended(&mut self.mark, line.trim_end_matches('\n')) {
                progress(&told);
            }
        }
    }
}

/// A spec that ended: ginkgo prints a line such as `• [FAILED] [51.2 seconds]`, and the spec's name on the next one.
fn ended(mark: &mut Option<String>, line: &str) -> Option<String> {
    match mark.take() {
        Some(mark) => Some(format!("{mark} {}", line.trim())),
        None => {
            let (bullet, rest) = line.split_at_checked(line.find(' ')?)?;
            let is_mark = matches!(bullet, "•" | "S" | "P") && rest.starts_with(" [");
            *mark = is_mark.then(|| line.trim_end().to_owned());
            None
        }
    }
}

/// The texts of the JUnit files in a directory, by name.
fn junit_files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.starts_with(JUNIT) && name.ends_with(".xml")
    });
    paths.sort();
    let texts = paths.iter().map(std::fs::read_to_string);
    texts.filter_map(Result::ok).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_anywhere() {
        let text = "• [9.250 seconds]\n[sig-network] Services should serve\nS [SKIPPED] [0.1 seconds]\n[sig-network] Services should skip\n";
        let all = |size: usize| {
            let (mut lines, mut told) = (Lines::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                lines.push(piece, &mut |line: &str| told.push(line.to_owned()));
            }
            told
        };
        let whole = all(text.len());
        assert_eq!(whole.len(), 2, "{whole:?}");
        for size in 1..text.len() {
            assert_eq!(all(size), whole, "{size}");
        }
    }

    #[test]
    fn specs_that_end_are_told() {
        let mut mark = None;
        let said: Vec<String> = [
            "  Nov 26 10:00:00.000: INFO: • is no mark",
            "• [9.250 seconds]",
            "[sig-network] Services should serve",
            "------------------------------",
            "S [SKIPPED] [0.100 seconds]",
            "[sig-network] Services should need two families",
            "Ran 2 of 7000 Specs",
        ]
        .into_iter()
        .filter_map(|line| ended(&mut mark, line))
        .collect();
        assert_eq!(
            said,
            [
                "• [9.250 seconds] [sig-network] Services should serve",
                "S [SKIPPED] [0.100 seconds] [sig-network] Services should need two families"
            ]
        );
    }
}
