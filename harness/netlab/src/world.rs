//! A world as its owner sees it: built, changed, used, ended.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command as HostCommand, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use probe::client::Agent;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use crate::control::{self, Answer, Control};
use crate::error::{Result, WorldError};
use crate::plan::{Plan, PodAddresses};
use crate::process::{self, Output, Process, ProcessSpec};
use crate::spawner;
use crate::topology::{PodSpec, Topology};
use crate::wire::{Command, FileEntry, MAX_FDS, SpawnCommand};

/// The hidden subcommand that the harness must route to [`crate::world_main`].
pub const SUBCOMMAND: &str = "__world";

/// How long anything asked of PID 1 may take. It takes milliseconds; this bounds a machine that has come to a stop.
const ANSWER: Duration = Duration::from_secs(60);

/// Probe agents by name.
type Agents = BTreeMap<String, Agent>;

static WORLDS: AtomicU64 = AtomicU64::new(1);

/// How to build a world.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Program whose `main` routes [`SUBCOMMAND`] to [`crate::world_main`]. Default: the running one.
    pub harness: Option<PathBuf>,
    /// Further files and directories of the host to show, read-only, at their own paths.
    pub read_only_binds: Vec<PathBuf>,
}

/// A world. Everything in it ends with it: on [`World::shutdown`], on drop, and when this process dies.
pub struct World {
    id: u64,
    plan: Plan,
    control: Arc<Control>,
    agents: RwLock<Agents>,
    child: Mutex<Option<Child>>,
}

impl World {
    /// Builds a world; when this returns, every wire carries packets and every agent answers.
    ///
    /// Must be called in a tokio runtime, whose tasks the world then uses as long as it lives.
    ///
    /// # Errors
    /// When the topology makes no sense or this machine cannot do it; nothing remains in either case.
    pub async fn build(topology: &Topology, options: &Options) -> Result<World> {
        let plan = Plan::new(topology)?;
        let id = WORLDS.fetch_add(1, Ordering::Relaxed);
        let (child, control) = start(options, &format!("world-{id}")).await?;
        let world = World {
            id,
            plan,
            control,
            agents: RwLock::default(),
            child: Mutex::new(Some(child)),
        };
        world.furnish(topology, options).await?;
        Ok(world)
    }

    async fn furnish(&self, topology: &Topology, options: &Options) -> Result<()> {
        let mut names: Vec<String> = vec!["fabric".to_owned(), "router".to_owned()];
        names.extend(topology.nodes.iter().map(|node| node.name.clone()));
        names.extend(topology.outside.iter().map(|_| "outside".to_owned()));
        names.extend(topology.clients.iter().map(|client| client.name.clone()));
        let (mut agents, channels) = channels(&names)?;
        let build = Command::Build {
            topology: topology.clone(),
            read_only_binds: options.read_only_binds.clone(),
            agents: names,
        };
        let raw = control::raw(&channels);
        // All requests are under way at once, so that PID 1 never waits for the next.
        let built = self.control.call(build, &raw, "build itself", ANSWER);
        let pods = self.plan.pods();
        let mut requests = Vec::new();
        for pods in pods.chunks(MAX_FDS) {
            let names: Vec<String> = pods.iter().map(|pod| pod.name.clone()).collect();
            let (agents, channels) = self::channels(&names)?;
            requests.push((pods.to_vec(), agents, channels));
        }
        let added = async {
            let mut added = Agents::new();
            for (pods, agents, channels) in requests {
                let raw = control::raw(&channels);
                self.control
                    .call(Command::AddPods { pods }, &raw, "add pods", ANSWER)
                    .await?;
                added.extend(agents);
            }
            Ok::<_, WorldError>(added)
        };
        let (_, added) = tokio::try_join!(biased; built, added)?;
        drop(channels);
        agents.extend(added);
        greet(&agents).await?;
        self.write_agents().extend(agents);
        Ok(())
    }

    /// A number that no other world of this process has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The addresses. Pods come and go in it with [`World::add_pod`] and [`World::remove_pod`].
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The probe agent of a node, pod, client, `outside`, `router` or `fabric`.
    pub fn agent(&self, who: &str) -> Option<Agent> {
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        agents.get(who).cloned()
    }

    /// The names of all agents, in alphabetical order.
    pub fn agents(&self) -> Vec<String> {
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        agents.keys().cloned().collect()
    }

    /// Adds a pod: when this returns, its wire carries packets and its agent answers.
    ///
    /// # Errors
    /// When the plan has no room for it, or the kernel refuses.
    pub async fn add_pod(&self, spec: &PodSpec) -> Result<PodAddresses> {
        let pod = self.plan.pod_added(spec)?;
        let added = self.wire_pod(&pod).await;
        if added.is_err() {
            self.plan.pod_removed(&pod.name);
        }
        added.map(|()| pod)
    }

    async fn wire_pod(&self, pod: &PodAddresses) -> Result<()> {
        let (agents, channels) = channels(std::slice::from_ref(&pod.name))?;
        let command = Command::AddPods {
            pods: vec![pod.clone()],
        };
        self.call(command, &control::raw(&channels), "add a pod")
            .await?;
        drop(channels);
        greet(&agents).await?;
        self.write_agents().extend(agents);
        Ok(())
    }

    /// Removes a pod at once, as if its machine had been unplugged: its agent is killed, its namespace, wire and routes
    /// go. Its address answers nothing from then on.
    ///
    /// # Errors
    /// When there is no such pod.
    pub async fn remove_pod(&self, name: &str) -> Result<()> {
        if self.plan.pod(name).is_none() {
            return Err(WorldError::NoSuchPlace(name.to_owned()));
        }
        let name = name.to_owned();
        self.write_agents().remove(&name);
        let command = Command::RemovePod { name: name.clone() };
        self.call(command, &[], "remove a pod").await?;
        self.plan.pod_removed(&name);
        Ok(())
    }

    /// Gives a node one more address on the node network, which everybody there can reach. The plan does not know it.
    ///
    /// # Errors
    /// When there is no such node, or the kernel refuses the address.
    pub async fn add_address(&self, node: &str, addr: IpNet) -> Result<()> {
        let command = Command::AddAddress {
            node: node.to_owned(),
            addr,
        };
        self.call(command, &[], "add an address").await?;
        Ok(())
    }

    /// A listening socket, non-blocking, made in the namespace of `who` but served by this process.
    ///
    /// # Errors
    /// When there is no such place, or it cannot be bound there.
    pub async fn listen_tcp(&self, who: &str, addr: SocketAddr) -> Result<std::net::TcpListener> {
        let command = Command::Listen {
            who: who.to_owned(),
            addr,
        };
        let answer = self.call(command, &[], "listen").await?;
        answer
            .fds
            .into_iter()
            .next()
            .map(std::net::TcpListener::from)
            .ok_or_else(|| missing("receive the socket"))
    }

    /// Starts a process in the network namespace of `node` (or of anybody else), with the world's file system, the node's
    /// own `/run`, `/tmp` and `/var`, the node's name as host name, and standard input from `/dev/null`.
    /// Returns once it runs its program.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn spawn(&self, node: &str, spec: ProcessSpec) -> Result<Process> {
        let null = std::fs::File::open("/dev/null")
            .map_err(|e| WorldError::system("open /dev/null", e))?;
        self.spawn_with(node, spec, null.into()).await
    }

    async fn spawn_with(&self, node: &str, spec: ProcessSpec, stdin: OwnedFd) -> Result<Process> {
        let pipes = |e| WorldError::system("make a pipe", e);
        let (stdout, stdout_write) = read_pipe().map_err(pipes)?;
        let (stderr, stderr_write) = read_pipe().map_err(pipes)?;
        let (answer, fds) = self
            .start_process(node, spec, [stdin, stdout_write, stderr_write], false)
            .await?;
        drop(fds);
        let process = answer.process.ok_or_else(|| missing("start a process"))?;
        let pidfd = answer
            .fds
            .first()
            .ok_or_else(|| missing("receive the process"))?;
        Process::new(self.control.clone(), process, pidfd, stdout, stderr)
    }

    async fn start_process(
        &self,
        node: &str,
        mut spec: ProcessSpec,
        standard: [OwnedFd; 3],
        terminal: bool,
    ) -> Result<(Answer, Vec<OwnedFd>)> {
        let exe = process::executable(&mut spec)?;
        let command = SpawnCommand {
            who: node.to_owned(),
            argv: spec.argv,
            env: spec.env,
            cwd: spec.cwd,
            exe: exe.is_some(),
            files: spec
                .files
                .iter()
                .map(|file| FileEntry {
                    path: file.path.clone(),
                    mode: if file.mode == 0 { 0o644 } else { file.mode },
                })
                .collect(),
            terminal,
        };
        let mut fds: Vec<OwnedFd> = standard.into_iter().chain(exe).collect();
        for file in &spec.files {
            let copy = process::memory_file(&file.content)
                .map_err(|e| WorldError::system("make a memory file", e))?;
            fds.push(copy);
        }
        if fds.len() > MAX_FDS {
            let error = io::Error::from(io::ErrorKind::ArgumentListTooLong);
            return Err(WorldError::system("pass so many files", error));
        }
        let answer = self
            .call(
                Command::Spawn(command),
                &control::raw(&fds),
                "start a process",
            )
            .await?;
        Ok((answer, fds))
    }

    /// Runs a tool at `node` to its end and collects what it wrote.
    ///
    /// # Errors
    /// When it cannot be started, or takes longer than `timeout`; it is killed then.
    pub async fn exec(
        &self,
        node: &str,
        argv: &[&str],
        stdin: Vec<u8>,
        timeout: Duration,
    ) -> Result<Output> {
        let spec = ProcessSpec {
            argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
            ..ProcessSpec::default()
        };
        let (stdin_read, stdin_write) =
            pipe2(OFlag::O_CLOEXEC).map_err(|e| WorldError::system("make a pipe", e.into()))?;
        let process = self.spawn_with(node, spec, stdin_read).await?;
        let run = async {
            let feed = async {
                let mut pipe = pipe::Sender::from_owned_fd(stdin_write)?;
                match pipe.write_all(&stdin).await {
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
                    _ => Ok(()),
                }
            };
            let collect = |pipe: Option<pipe::Receiver>| async {
                let mut bytes = Vec::new();
                if let Some(mut pipe) = pipe {
                    pipe.read_to_end(&mut bytes).await?;
                }
                Ok::<_, io::Error>(bytes)
            };
            let (out, err) = (process.take_stdout(), process.take_stderr());
            let ((), stdout, stderr) = tokio::try_join!(feed, collect(out), collect(err))?;
            Ok::<_, io::Error>(Output {
                status: process.wait().await,
                stdout,
                stderr,
            })
        };
        match tokio::time::timeout(timeout, run).await {
            Ok(output) => {
                output.map_err(|e| WorldError::system(format!("run {:?}", argv.join(" ")), e))
            }
            Err(_) => {
                let _ = process.signal_group(libc::SIGKILL).await;
                Err(WorldError::TimedOut {
                    step: format!("run {:?}", argv.join(" ")),
                    seconds: timeout.as_secs(),
                })
            }
        }
    }

    /// Runs an interactive command at `node` on the terminal (or whatever they are) of this process's own standard
    /// input, output and error.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn shell(&self, node: &str, spec: ProcessSpec) -> Result<ExitStatus> {
        let copies = || -> io::Result<[OwnedFd; 3]> {
            Ok([
                io::stdin().as_fd().try_clone_to_owned()?,
                io::stdout().as_fd().try_clone_to_owned()?,
                io::stderr().as_fd().try_clone_to_owned()?,
            ])
        };
        let standard = copies().map_err(|e| WorldError::system("copy descriptors", e))?;
        let terminal = io::IsTerminal::is_terminal(&io::stdin());
        let (answer, fds) = self.start_process(node, spec, standard, terminal).await?;
        drop(fds);
        let (_, mut exit) = answer.process.ok_or_else(|| missing("start a process"))?;
        let status = exit
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|status| *status);
        if terminal {
            take_terminal_back();
        }
        status.ok_or_else(|| WorldError::Gone {
            stderr: self.control.stderr(),
        })
    }

    /// What the world's own processes (agents included) last wrote to standard error; empty when all is well.
    pub fn stderr(&self) -> String {
        self.control.stderr()
    }

    /// The pid of the process that all others of this world are descendants of.
    pub fn pid(&self) -> Option<u32> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.as_ref().map(Child::id)
    }

    /// Ends the world and returns once none of its processes exists any more.
    pub async fn shutdown(self) {
        let child = self
            .child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut child) = child {
            // With PID 1 the kernel ends the rest, and this child ends after that.
            let _ = tokio::task::spawn_blocking(move || end(&mut child)).await;
        }
    }

    async fn call(&self, command: Command, fds: &[i32], what: &str) -> Result<Answer> {
        self.control.call(command, fds, what, ANSWER).await
    }

    fn write_agents(&self) -> std::sync::RwLockWriteGuard<'_, Agents> {
        self.agents.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let child = self
            .child
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut child) = child {
            end(&mut child);
        }
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("id", &self.id)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

/// Kills PID 1 and waits until the kernel has taken the rest down with it, but not forever.
fn end(child: &mut Child) {
    // The child waits for PID 1, so when PID 1 is killed first, the child's end means that all is over. Killed itself,
    // it would leave PID 1 to die a moment later.
    let pid = child.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let first = children
        .ok()
        .and_then(|list| list.split_whitespace().next()?.parse().ok())
        .map(nix::unistd::Pid::from_raw);
    let killed =
        first.is_some_and(|pid| nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).is_ok());
    if !killed {
        let _ = child.kill();
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Ok(None) = child.try_wait() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Starts the process that makes the namespaces.
pub(crate) async fn start(options: &Options, mode: &str) -> Result<(Child, Arc<Control>)> {
    let sockets = |e| WorldError::system("make a socket pair", e);
    let (ours, theirs) = UnixStream::pair().map_err(sockets)?;
    let (stderr, stderr_write) =
        pipe2(OFlag::O_CLOEXEC).map_err(|e| WorldError::system("make a pipe", e.into()))?;
    let exe = options
        .harness
        .clone()
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
    let mut command = HostCommand::new(exe);
    command
        .args([SUBCOMMAND, &std::process::id().to_string(), mode])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::from(stderr_write));
    let mut child = spawner::spawn(command)
        .await
        .map_err(|e| WorldError::system("start a world", e))?;
    match set_nonblocking(&stderr).and_then(|()| Control::start(ours, stderr)) {
        Ok(control) => Ok((child, control)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(WorldError::system("talk to the world", error))
        }
    }
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

fn read_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(read)?, write))
}

/// A channel per agent: the client ends by name, and the descriptors to pass in.
fn channels(names: &[String]) -> Result<(Agents, Vec<OwnedFd>)> {
    let failed = |e| WorldError::system("make a socket pair", e);
    let mut agents = Agents::new();
    let mut channels = Vec::new();
    for name in names {
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let stream = tokio::net::UnixStream::from_std(ours).map_err(failed)?;
        agents.insert(name.clone(), Agent::new(stream));
        channels.push(OwnedFd::from(theirs));
    }
    Ok((agents, channels))
}

/// Waits until every agent answers.
async fn greet(agents: &Agents) -> Result<()> {
    let mut greetings = tokio::task::JoinSet::new();
    for (who, agent) in agents {
        let (who, agent) = (who.clone(), agent.clone());
        greetings.spawn(async move {
            agent.hello().await.map_err(|error| WorldError::Agent {
                who,
                message: error.to_string(),
            })
        });
    }
    while let Some(greeting) = greetings.join_next().await {
        if let Ok(greeting) = greeting {
            greeting?;
        }
    }
    Ok(())
}

/// Makes this process's group the terminal's foreground again.
fn take_terminal_back() {
    use nix::sys::signal::{SigSet, Signal};
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTTOU);
    // A background process that asks for the terminal is stopped unless it blocks this.
    if stop.thread_block().is_ok() {
        let _ = nix::unistd::tcsetpgrp(io::stdin(), nix::unistd::getpgrp());
        let _ = stop.thread_unblock();
    }
}

fn missing(step: &str) -> WorldError {
    WorldError::system(step, io::Error::from(io::ErrorKind::UnexpectedEof))
}
