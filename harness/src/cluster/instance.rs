//! One running candidate on one node.

use std::{collections::BTreeMap, net::SocketAddr, os::fd::OwnedFd, time::Duration};

use netlab::{Process, World};
use probe::proto::now;
use tokio::time::{Instant, sleep};

use super::{log::Log, usage::Usage};
use crate::candidate::{Candidate, Variables};

/// A candidate's process on a node.
pub struct Instance {
    /// The node.
    pub node: String,
    /// What it printed, over all of its restarts.
    pub log: Log,
    process: Option<Process>,
    /// When the process was started.
    started: Option<Instant>,
    /// What it used when it was ready.
    at_first: Option<Usage>,
    variables: Variables,
    nodeport_addresses: bool,
    starts: u32,
}

/// kube-proxy's cleanup takes a second or two; it asks the kernel for everything that any of its modes may have left.
const CLEANUP: Duration = Duration::from_secs(60);

/// Why an instance is not running.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The candidate's own fault.
    #[error("{0}")]
    Candidate(String),
    /// The world's fault.
    #[error("{0}")]
    World(String),
}

impl Instance {
    /// An instance that is not started yet.
    pub fn new(
        node: &str,
        variables: BTreeMap<&'static str, String>,
        nodeport_addresses: bool,
    ) -> Self {
        let mut variables = variables;
        variables.insert("DIR", format!("/run/candidate/{node}"));
        // The program itself is passed as an open file; the path only becomes argv[0].
        variables.insert("HARNESS", "harness".into());
        Self {
            node: node.into(),
            log: Log::default(),
            process: None,
            started: None,
            at_first: None,
            variables: Variables(variables),
            nodeport_addresses,
            starts: 0,
        }
    }

    /// Starts the process; the null candidate has none.
    pub async fn start(
        &mut self,
        world: &World,
        candidate: &Candidate,
    ) -> Result<(), InstanceError> {
        let spec = candidate.process();
        let mut args: Vec<&String> = spec.command.iter().collect();
        if self.nodeport_addresses {
            args.extend(spec.nodeport_addresses_args.iter().flatten());
        }
        self.starts += 1;
        let Some(process) = self.spawn(world, candidate, &args).await? else {
            return Ok(());
        };
        self.process = Some(process);
        self.started = Some(Instant::now());
        self.at_first = None;
        Ok(())
    }

    /// Runs the program's own command to remove what it left in the kernel, and waits for its end.
    pub async fn clean_up(
        &mut self,
        world: &World,
        candidate: &Candidate,
    ) -> Result<(), InstanceError> {
        let spec = candidate.process();
        let program = spec.command.first();
        let args: Vec<&String> = program
            .into_iter()
            .chain(spec.cleanup_args.iter().flatten())
            .collect();
        let Some(process) = self.spawn(world, candidate, &args).await? else {
            return Ok(());
        };
        let failed = match tokio::time::timeout(CLEANUP, process.wait()).await {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => format!("failed ({status})"),
            Err(_) => format!("did not end within {CLEANUP:?}"),
        };
        Err(InstanceError::Candidate(format!(
            "the cleanup on {} {failed}; the last lines:\n{}",
            self.node,
            self.log.last_lines(10)
        )))
    }

    /// Starts the candidate's program with arguments of which the first is its name; the null candidate has none.
    async fn spawn(
        &self,
        world: &World,
        candidate: &Candidate,
        args: &[&String],
    ) -> Result<Option<Process>, InstanceError> {
        let spec = candidate.process();
        let Some(binary) = &candidate.binary else {
            return Ok(None);
        };
        let substitute = |text: &String| {
            self.variables
                .substitute(text)
                .map_err(InstanceError::Candidate)
        };
        let argv = args
            .iter()
            .map(|arg| substitute(arg))
            .collect::<Result<Vec<_>, _>>()?;
        let mut env = vec![(
            "PATH".to_owned(),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        )];
        for (name, value) in &spec.env {
            env.push((name.clone(), substitute(value)?));
        }
        let directory = &self.variables.0["DIR"];
        let mut files = vec![netlab::FileSpec {
            path: self.variables.0["KUBECONFIG"].clone().into(),
            content: self.variables.0["KUBECONFIG_CONTENT"].clone().into_bytes(),
            mode: 0o600,
        }];
        for file in &spec.files {
            files.push(netlab::FileSpec {
                path: format!("{directory}/{}", file.name).into(),
                content: substitute(&file.content)?.into_bytes(),
                mode: 0o600,
            });
        }
        let exe: OwnedFd = binary.file.try_clone().map_err(|error| {
            InstanceError::World(format!(
                "the candidate's file cannot be duplicated: {error}"
            ))
        })?;
        self.log.push(&format!(
            "== start {} at {} ns: {}\n",
            self.starts,
            now(),
            argv.join(" ")
        ));
        let process = world
            .spawn(
                &self.node,
                netlab::ProcessSpec {
                    argv,
                    env,
                    files,
                    cwd: Some("/".into()),
                    exe: Some(netlab::Executable::Open(exe)),
                },
            )
            .await
            .map_err(|error| {
                InstanceError::World(format!(
                    "the candidate cannot be started on {}: {error}",
                    self.node
                ))
            })?;
        if let Some(stdout) = process.take_stdout() {
            tokio::spawn(self.log.clone().follow("out", stdout));
        }
        if let Some(stderr) = process.take_stderr() {
            tokio::spawn(self.log.clone().follow("err", stderr));
        }
        Ok(Some(process))
    }

    /// Waits until the candidate says that it is ready.
    pub async fn ready(
        &self,
        world: &World,
        candidate: &Candidate,
    ) -> Result<Duration, InstanceError> {
        let ready = &candidate.process().ready;
        let started = Instant::now();
        let deadline = started + ready.deadline();
        let Some(http) = &ready.http else {
            return Ok(started.elapsed());
        };
        let agent = world
            .agent(&self.node)
            .ok_or_else(|| InstanceError::World(format!("{} has no agent", self.node)))?;
        let address: SocketAddr = ([127, 0, 0, 1], http.port).into();
        loop {
            if let Some(status) = self.exited() {
                return Err(self.ended_too_early(&status));
            }
            let last = match agent.http_get(address, &http.path, 1_000).await {
                Ok(answer) if answer.status == 200 => return Ok(started.elapsed()),
                Ok(answer) => format!("status {}", answer.status),
                Err(probe::client::AgentError::Closed) => {
                    return Err(InstanceError::World(format!(
                        "the agent of {} is gone",
                        self.node
                    )));
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                return Err(InstanceError::Candidate(format!(
                    "the candidate on {} was not ready after {:?}: http://127.0.0.1:{}{}: {last}; its last lines:\n{}",
                    self.node,
                    started.elapsed(),
                    http.port,
                    http.path,
                    self.log.last_lines(10)
                )));
            }
            // A poll of a condition with a deadline.
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Why a candidate that ended by itself is not ready.
    pub fn ended_too_early(&self, status: &str) -> InstanceError {
        InstanceError::Candidate(format!(
            "the candidate on {} ended ({status}) before it was ready; its last lines:\n{}",
            self.node,
            self.log.last_lines(10)
        ))
    }

    /// Waits for the end of the process.
    pub async fn ended(&self) -> String {
        match &self.process {
            Some(process) => process.wait().await.to_string(),
            None => std::future::pending().await,
        }
    }

    /// How the process ended, if it did.
    pub fn exited(&self) -> Option<String> {
        self.process
            .as_ref()
            .and_then(|process| process.exited())
            .map(|status| status.to_string())
    }

    /// Whether a process should be there.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// The process.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// What the process uses now.
    pub fn usage(&self) -> Option<Usage> {
        let pid = self.process.as_ref()?.pid();
        if pid == 0 { None } else { Usage::of(pid) }
    }

    /// The process is ready: what it uses now is the measure of what it uses later.
    pub fn is_ready(&mut self) {
        self.at_first = self.usage();
    }

    /// What it used when it was ready.
    pub fn usage_at_first(&self) -> Option<Usage> {
        self.at_first
    }

    /// How long it was ready to run and was not let, and how long it has been there.
    pub fn starved(&self) -> Option<(Duration, Duration)> {
        let lived = self.started?.elapsed();
        Some((Duration::from_nanos(self.usage()?.starved), lived))
    }

    /// Sends a signal.
    pub async fn signal(&self, signal: nix::sys::signal::Signal) -> Result<(), InstanceError> {
        match &self.process {
            None => Ok(()),
            Some(process) => process.signal(signal as i32).await.map_err(|error| {
                InstanceError::World(format!(
                    "the candidate on {} cannot be signalled: {error}",
                    self.node
                ))
            }),
        }
    }

    /// Ends the process by a signal and waits until it is gone; SIGKILL follows after a while.
    pub async fn end(&mut self, signal: nix::sys::signal::Signal) -> Result<(), InstanceError> {
        let Some(process) = self.process.take() else {
            return Ok(());
        };
        let world = |error: netlab::WorldError| {
            InstanceError::World(format!("the candidate cannot be ended: {error}"))
        };
        process.signal(signal as i32).await.map_err(world)?;
        // kube-proxy ends at once on SIGTERM; a candidate that drains may take longer.
        if tokio::time::timeout(Duration::from_secs(20), process.wait())
            .await
            .is_err()
        {
            self.log.push("== did not end within 20 s, killed\n");
            process
                .signal_group(nix::sys::signal::Signal::SIGKILL as i32)
                .await
                .map_err(world)?;
            process.wait().await;
        }
        self.log
            .push(&format!("== ended by {signal} at {} ns\n", now()));
        Ok(())
    }
}
