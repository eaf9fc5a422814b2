//! A container beside a cluster: on kind's network, and not a node. It stands for everybody outside.

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::engine::Engine;
use crate::error::{KindError, Result};
use crate::log::{Call, Ended};
use crate::off::off;
use crate::owned::CLUSTER_LABEL;

/// How long a container may take to start; a busy machine with two cores needed 2 s.
const START: Duration = Duration::from_secs(60);

/// A container as it is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutsideSpec {
    /// The image, which has to be in the engine.
    pub image: String,
    /// Arguments of its entrypoint.
    pub args: Vec<String>,
    /// Environment variables in it.
    pub env: Vec<(String, String)>,
}

/// A container on kind's network, with CAP_NET_ADMIN and CAP_NET_RAW, that is talked to through its standard input and output. It ends with this, and is
/// removed: when this is dropped, or when its cluster is deleted.
#[derive(Debug)]
pub struct Outside {
    name: String,
    /// Its IPv4 address in kind's network.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address in kind's network.
    pub ipv6: Option<Ipv6Addr>,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    child: Child,
    engine: Engine,
    removed: bool,
}

/// A process in a container.
#[derive(Debug)]
pub struct Process {
    /// Its standard input.
    pub stdin: ChildStdin,
    /// Its standard output.
    pub stdout: ChildStdout,
    /// The engine's client, which has to live as long as the streams are used.
    pub child: Child,
}

impl Outside {
    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its standard input, once.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Its standard output, once.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.stdout.take()
    }

    /// Its standard error, and that of the engine's client, once. It has to be read if much is written to it.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.stderr.take()
    }

    /// Starts a further process in the container and talks to it through its standard input and output. It has to end with its input, since ending the
    /// engine's client does not end it.
    pub fn exec(&self, argv: &[&str]) -> Result<Process> {
        let mut args: Vec<OsString> = ["exec", "-i", &self.name].map(OsString::from).to_vec();
        args.extend(argv.iter().map(OsString::from));
        let mut command = Command::from(self.engine.command(&args));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let failed = |error| KindError::system(format!("start {}", self.engine.name()), error);
        let mut child = command.spawn().map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(std::io::Error::other("it has no standard input")));
        };
        Ok(Process {
            stdin,
            stdout,
            child,
        })
    }

    /// Waits until the container ends, and returns its exit code.
    pub async fn wait(&mut self) -> Result<Option<i32>> {
        let status = self.child.wait().await;
        Ok(status
            .map_err(|error| KindError::system(format!("wait for {}", self.name), error))?
            .code())
    }

    /// Ends and removes the container.
    pub async fn remove(mut self) -> Result<()> {
        let (engine, name) = (self.engine.clone(), self.name.clone());
        let removed = off(move |_| engine.remove(&[name])).await;
        self.removed = removed.is_ok();
        removed
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // Killing the engine's client does not end the container.
        if !self.removed
            && let Err(error) = self.engine.remove(std::slice::from_ref(&self.name))
        {
            tracing::warn!(container = %self.name, %error, "failed to remove a container outside of a cluster");
        }
    }
}

pub(crate) async fn start(
    engine: &Engine,
    cluster: &str,
    name: String,
    network: &str,
    spec: OutsideSpec,
) -> Result<Outside> {
    let mut args: Vec<OsString> = ["run", "--rm", "-i", "--name", &name, "--network", network]
        .map(OsString::from)
        .to_vec();
    args.extend(["--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", "--label"].map(OsString::from));
    args.push(format!("{CLUSTER_LABEL}={cluster}").into());
    for (key, value) in &spec.env {
        args.push("--env".into());
        args.push(format!("{key}={value}").into());
    }
    // An image that is not there is an error, and not a reason to ask a registry that does not have it.
    args.push("--pull=never".into());
    args.push(spec.image.clone().into());
    args.extend(spec.args.iter().map(OsString::from));

    let log = engine.runner.log.clone();
    let argv: Vec<String> = std::iter::once(engine.name().to_owned())
        .chain(args.iter().map(|word| word.to_string_lossy().into_owned()))
        .collect();
    let started = std::time::SystemTime::now();
    let clock = Instant::now();
    let mut command = Command::from(engine.command(&args));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|error| KindError::system(format!("start {}", engine.name()), error))?;
    let mut outside = Outside {
        name,
        ipv4: None,
        ipv6: None,
        stdin: child.stdin.take(),
        stdout: child.stdout.take(),
        stderr: child.stderr.take(),
        child,
        engine: engine.clone(),
        removed: false,
    };
    let finish = |ended: Ended, stderr: String| {
        log.push(Call {
            argv: argv.clone(),
            started,
            took: clock.elapsed(),
            ended,
            stdout: String::new(),
            stderr,
        });
    };
    let deadline = tokio::time::Instant::now() + START;
    // The engine has no event for "it has its addresses" that could not come before one listens.
    let mut look = tokio::time::interval(Duration::from_millis(50));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            status = outside.child.wait() => {
                let code = status.map_err(|error| KindError::system("wait for a container", error))?.code();
                let mut stderr = Vec::new();
                if let Some(mut pipe) = outside.take_stderr() {
                    let _ = pipe.read_to_end(&mut stderr).await;
                }
                let stderr = String::from_utf8_lossy(&stderr).into_owned();
                let ended = Ended::Exited(code.unwrap_or(-1));
                finish(ended, stderr.clone());
                return Err(match crate::classify::classify(&crate::classify::Transcript { argv, ended, stdout: String::new(), stderr }) {
                    KindError::ImageMissing { detail, .. } => KindError::ImageMissing { image: spec.image, detail },
                    error => error,
                });
            }
            () = tokio::time::sleep_until(deadline) => {
                finish(Ended::Deadline, String::new());
                return Err(KindError::Timeout {
                    what: format!("the start of container {}", outside.name),
                    after: Some(START),
                    detail: "nothing".to_owned(),
                });
            }
            _ = look.tick() => {
                let (engine, name) = (engine.clone(), outside.name.clone());
                let found = off(move |cancel| engine.under(cancel).inspect(&[name])).await?;
                let addresses = found
                    .first()
                    .filter(|container| container.running)
                    .and_then(|container| container.networks.get(network))
                    .filter(|(v4, v6)| v4.is_some() || v6.is_some());
                if let Some((ipv4, ipv6)) = addresses {
                    (outside.ipv4, outside.ipv6) = (*ipv4, *ipv6);
                    finish(Ended::Exited(0), "(it runs on; its output is not kept)".to_owned());
                    return Ok(outside);
                }
            }
        }
    }
}
