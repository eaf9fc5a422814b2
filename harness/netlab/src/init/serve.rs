//! PID 1's loop: requests from the harness, ends of children. One thread, no runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use ipnet::IpNet;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::network::Nets;
use super::root::{self, Root};
use super::{agents, processes};
use crate::blueprint::{self, PodBlueprint};
use crate::error::Fault;
use crate::plan::{Plan, PodAddresses};
use crate::topology::Topology;
use crate::wire::{self, Command, FromWorld, Reply, Request};

/// Everything that PID 1 knows.
struct Init {
    nets: Nets,
    built: Option<Built>,
    agents: BTreeMap<i32, String>,
    /// Processes that the harness wants to hear of.
    spawned: BTreeSet<i32>,
    pods: BTreeMap<String, PodAddresses>,
}

struct Built {
    root: Root,
    plan: Plan,
}

/// Serves until the control socket closes.
pub(super) fn serve(control: BorrowedFd<'_>) -> Result<(), Fault> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()
        .map_err(|e| Fault::system("block SIGCHLD", e))?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|e| Fault::system("make a signalfd", e))?;
    // Each network namespace takes two descriptors; nobody else is served by a lower limit.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let mut init = Init {
        nets: Nets::default(),
        built: None,
        agents: BTreeMap::new(),
        spawned: BTreeSet::new(),
        pods: BTreeMap::new(),
    };
    loop {
        let mut waiting = [
            PollFd::new(control, PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Fault::system("wait for requests", error)),
        }
        let ready = waiting.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        let io = |error| Fault::system("talk to the harness", error);
        if ready[1] {
            while let Ok(Some(_)) = signals.read_signal() {}
            for event in init.reap() {
                wire::send(control, &event, &[]).map_err(io)?;
            }
        }
        if ready[0] {
            let Some((request, fds)) = wire::receive::<Request>(control).map_err(io)? else {
                return Ok(());
            };
            let (result, pass) = match init.handle(request.command, fds) {
                Ok((reply, pass)) => (Ok(reply), pass),
                Err(fault) => (Err(fault), None),
            };
            let raw: Vec<RawFd> = pass.iter().map(AsRawFd::as_raw_fd).collect();
            let answer = FromWorld::Answer {
                id: request.id,
                result,
            };
            wire::send(control, &answer, &raw).map_err(io)?;
        }
    }
}

type Handled = Result<(Reply, Option<OwnedFd>), Fault>;

impl Init {
    fn handle(&mut self, command: Command, fds: Vec<OwnedFd>) -> Handled {
        let done = |()| (Reply::Done, None);
        match command {
            Command::Build {
                topology,
                read_only_binds,
                agents,
            } => self
                .build(&topology, read_only_binds, &agents, &fds)
                .map(done),
            Command::AddPods { pods } => self.add_pods(pods, &fds).map(done),
            Command::RemovePod { name } => self.remove_pod(&name).map(done),
            Command::AddAddress { node, addr } => self.add_address(&node, addr).map(done),
            Command::Listen { who, addr } => self
                .listen(&who, addr)
                .map(|socket| (Reply::Socket, Some(socket))),
            Command::Spawn(spawn) => {
                let place = self.place_of(&spawn.who);
                self.nets.enter(&place)?;
                let (pid, pidfd) = processes::spawn(spawn, &place, self.built()?, fds)?;
                self.spawned.insert(pid.as_raw());
                Ok((Reply::Spawned { pid: pid.as_raw() }, Some(pidfd)))
            }
            Command::Signal { pid, signal, group } => self.signal(pid, signal, group).map(done),
        }
    }

    fn built(&self) -> Result<&Root, Fault> {
        self.built
            .as_ref()
            .map(|built| &built.root)
            .ok_or_else(|| Fault::no_such_place("world"))
    }

    /// The namespace that somebody lives in: the node's for a hostNetwork pod, else their own.
    fn place_of(&self, who: &str) -> String {
        match self.pods.get(who) {
            Some(pod) if pod.host_network => pod.node.clone(),
            _ => who.to_owned(),
        }
    }

    fn build(
        &mut self,
        topology: &Topology,
        binds: Vec<PathBuf>,
        agents: &[String],
        channels: &[OwnedFd],
    ) -> Result<(), Fault> {
        // Pods come with requests of their own, so that they are made in one way only.
        let bare = Topology {
            pods: Vec::new(),
            ..topology.clone()
        };
        let plan = Plan::new(&bare)
            .map_err(|e| Fault::system("plan the topology", std::io::Error::other(e)))?;
        let blueprint = blueprint::world(&plan);
        let root = root::enter(binds)?;
        for node in plan.nodes() {
            root.add_node(&node.name)?;
        }
        for namespace in &blueprint.namespaces {
            self.nets.create(&namespace.name, namespace.role)?;
            if let Some(n) = agents.iter().position(|name| *name == namespace.name) {
                self.start_agent(&namespace.name, &channels[n])?;
            }
        }
        let namespaces: Vec<_> = blueprint.namespaces.iter().collect();
        let wires: Vec<_> = blueprint.wires.iter().collect();
        self.nets.wire(&namespaces, &wires)?;
        for namespace in &namespaces {
            self.nets.set_up(&namespace.name, &namespace.steps)?;
        }
        for namespace in &namespaces {
            self.nets.await_ready(&namespace.name, &namespace.steps)?;
        }
        self.built = Some(Built { root, plan });
        Ok(())
    }

    fn start_agent(&mut self, who: &str, channel: &OwnedFd) -> Result<(), Fault> {
        let pid = agents::start(who, channel)?;
        self.agents.insert(pid.as_raw(), who.to_owned());
        Ok(())
    }

    fn add_pods(&mut self, pods: Vec<PodAddresses>, channels: &[OwnedFd]) -> Result<(), Fault> {
        let built = self
            .built
            .as_ref()
            .ok_or_else(|| Fault::no_such_place("world"))?;
        let blueprints: Vec<PodBlueprint> = pods
            .iter()
            .filter_map(|pod| blueprint::pod(&built.plan, pod))
            .collect();
        for (pod, channel) in pods.iter().zip(channels) {
            if pod.host_network {
                self.nets.enter(&pod.node)?;
            } else {
                self.nets.create(&pod.name, blueprint::Role::Host)?;
            }
            self.start_agent(&pod.name, channel)?;
        }
        let wires: Vec<_> = blueprints.iter().map(|pod| &pod.wire).collect();
        self.nets.wire(&[], &wires)?;
        let mut node_steps: BTreeMap<&str, Vec<blueprint::Step>> = BTreeMap::new();
        for pod in &blueprints {
            let steps = node_steps.entry(&pod.wire.near.namespace).or_default();
            steps.extend(pod.node_steps.iter().cloned());
            self.nets
                .set_up(&pod.namespace.name, &pod.namespace.steps)?;
        }
        for (node, steps) in &node_steps {
            self.nets.set_up(node, steps)?;
        }
        for pod in &blueprints {
            self.nets
                .await_ready(&pod.namespace.name, &pod.namespace.steps)?;
        }
        for (node, steps) in &node_steps {
            self.nets.await_ready(node, steps)?;
        }
        self.pods
            .extend(pods.into_iter().map(|pod| (pod.name.clone(), pod)));
        Ok(())
    }

    fn remove_pod(&mut self, name: &str) -> Result<(), Fault> {
        let pod = self
            .pods
            .remove(name)
            .ok_or_else(|| Fault::no_such_place(name))?;
        let agent = self
            .agents
            .iter()
            .find(|(_, who)| *who == name)
            .map(|(pid, _)| *pid);
        if let Some(pid) = agent {
            self.agents.remove(&pid);
            let pid = Pid::from_raw(pid);
            let _ = kill(pid, Signal::SIGKILL);
            // Its sockets are closed once it can be waited for, so nothing answers for the pod after this.
            while let Err(Errno::EINTR) = nix::sys::wait::waitpid(pid, None) {}
        }
        if !pod.host_network {
            // With this process in it, the namespace would stay.
            self.nets.enter(&pod.node)?;
            self.nets
                .delete_link(&pod.node, blueprint::node_end(&pod))?;
            self.nets.remove(name);
        }
        Ok(())
    }

    fn add_address(&mut self, node: &str, addr: IpNet) -> Result<(), Fault> {
        let plan = self.built.as_ref().map(|built| &built.plan);
        let (Some(plan), Some(node)) = (plan, plan.and_then(|plan| plan.node(node))) else {
            return Err(Fault::no_such_place(node));
        };
        for (place, step) in blueprint::another_address(plan, node, addr) {
            self.nets.set_up(&place, std::slice::from_ref(&step))?;
            self.nets.await_ready(&place, &[step])?;
        }
        Ok(())
    }

    fn listen(&self, who: &str, addr: SocketAddr) -> Result<OwnedFd, Fault> {
        self.nets.enter(&self.place_of(who))?;
        let listener = std::net::TcpListener::bind(addr)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|e| Fault::system(format!("listen at {addr} in {who}"), e))?;
        Ok(listener.into())
    }

    fn signal(&self, pid: i32, signal: i32, group: bool) -> Result<(), Fault> {
        let fault = |e| Fault::system(format!("send signal {signal} to process {pid}"), e);
        // Reaped pids are forgotten, so this can never hit another process.
        if !self.spawned.contains(&pid) {
            return Err(fault(Errno::ESRCH));
        }
        let signal = match signal {
            0 => None,
            number => Some(Signal::try_from(number).map_err(fault)?),
        };
        let pid = Pid::from_raw(pid);
        if group {
            killpg(pid, signal)
        } else {
            kill(pid, signal)
        }
        .map_err(fault)
    }

    /// Collects every child that has ended, orphans of candidates included.
    fn reap(&mut self) -> Vec<FromWorld> {
        let mut events = Vec::new();
        loop {
            let mut status = 0;
            // SAFETY: the status outlives the call. The raw status is what the harness wants, so not nix's waitpid.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                return events;
            }
            if self.spawned.remove(&pid) {
                events.push(FromWorld::Exited { pid, status });
            } else if let Some(who) = self.agents.remove(&pid) {
                events.push(FromWorld::AgentExited { who, status });
            }
        }
    }
}
