//! Worlds, end to end: what is built carries packets, what is removed is gone, nothing outlives its owner.
//!
//! This has a main of its own because a world's first process is this program again, see [`netlab::world_main`].

use std::collections::BTreeSet;
use std::fs;
use std::future::Future;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use netlab::{
    ClientSpec, Family, FileSpec, Options, Output, OutsideSpec, PodSpec, ProcessSpec, Topology,
    World, WorldError,
};
use probe::proto::{ConnectSpec, Listener, Outcome, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

/// Everything here takes milliseconds; this only bounds a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);
const PORT: u16 = 8080;
/// Subcommands of this program in the role of a harness.
const VICTIM: &str = "victim";
const UNPRIVILEGED: &str = "unprivileged";

type Test = Result<(), Failed>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some(netlab::SUBCOMMAND) => netlab::world_main(&args[1..]),
        Some(VICTIM) => victim(),
        Some(UNPRIVILEGED) => unprivileged(),
        _ => {}
    }
    let arguments = Arguments::from_args();
    let skip = if arguments.list {
        None
    } else {
        reason_to_skip()
    };
    if let Some(reason) = &skip {
        println!("skipped: {reason}");
    }
    let trials = [
        test("everybody_reaches_everybody", everybody_reaches_everybody),
        test(
            "outside_address_chooses_the_node",
            outside_address_chooses_the_node,
        ),
        test(
            "frontends_that_nobody_serves_are_unreachable",
            frontends_that_nobody_serves_are_unreachable,
        ),
        test("pods_come_and_go", pods_come_and_go),
        test("a_node_gets_another_address", a_node_gets_another_address),
        test(
            "a_listener_in_the_fabric_serves_nodes",
            a_listener_in_the_fabric_serves_nodes,
        ),
        test(
            "processes_log_and_obey_and_end",
            processes_log_and_obey_and_end,
        ),
        test(
            "a_program_from_elsewhere_runs",
            a_program_from_elsewhere_runs,
        ),
        test("the_host_is_out_of_sight", the_host_is_out_of_sight),
        test(
            "nodes_have_files_of_their_own",
            nodes_have_files_of_their_own,
        ),
        test("read_only_binds_are_visible", read_only_binds_are_visible),
        test(
            "tools_get_input_and_are_killed_in_time",
            tools_get_input_and_are_killed_in_time,
        ),
        test("wrong_names_are_told", wrong_names_are_told),
        test("the_outside_wire_has_its_mtu", the_outside_wire_has_its_mtu),
        test(
            "after_the_end_everything_says_so",
            after_the_end_everything_says_so,
        ),
        test(
            "a_killed_harness_leaves_nothing",
            a_killed_harness_leaves_nothing,
        ),
        test("no_root_is_needed", no_root_is_needed),
        test(
            "worlds_do_not_know_each_other",
            worlds_do_not_know_each_other,
        ),
        test(
            "the_doctor_finds_what_worlds_need",
            the_doctor_finds_what_worlds_need,
        ),
    ];
    let trials = trials
        .into_iter()
        .map(|trial| trial.with_ignored_flag(skip.is_some()));
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn test<F: Future<Output = Test> + 'static>(name: &str, body: fn() -> F) -> Trial {
    Trial::test(name, move || runtime().block_on(body()))
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("failed to start a runtime")
    })
}

/// Where worlds are impossible there is nothing to test, and that must be visible. Anything else is a failure.
fn reason_to_skip() -> Option<String> {
    runtime().block_on(async {
        match build(&Topology::uniform(1, 0)).await {
            Err(
                error @ (WorldError::UserNamespacesForbidden { .. }
                | WorldError::MissingKernelFeature { .. }),
            ) => Some(error.to_string()),
            _ => None,
        }
    })
}

async fn build(topology: &Topology) -> netlab::Result<World> {
    World::build(topology, &Options::default()).await
}

async fn sh(world: &World, node: &str, script: &str) -> Result<Output, Failed> {
    Ok(world
        .exec(node, &["sh", "-c", script], Vec::new(), PATIENCE)
        .await?)
}

fn check(good: bool, what: impl std::fmt::Debug) -> Test {
    if good {
        Ok(())
    } else {
        Err(format!("{what:?}").into())
    }
}

/// Polls until `done`, or fails with what it last returned.
async fn eventually<T: std::fmt::Debug>(mut state: impl FnMut() -> Option<T>) -> Test {
    let deadline = Instant::now() + PATIENCE;
    while let Some(left) = state() {
        if Instant::now() > deadline {
            return Err(format!("still there: {left:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn serve(world: &World, who: &str, addrs: &[IpAddr]) -> Test {
    let listeners = addrs
        .iter()
        .flat_map(|addr| {
            [Protocol::Tcp, Protocol::Udp].map(|protocol| Listener {
                id: format!("{protocol:?}-{addr}"),
                identity: who.to_owned(),
                protocol,
                addr: *addr,
                port: PORT,
            })
        })
        .collect();
    agent(world, who)?.serve(listeners).await?;
    Ok(())
}

fn agent(world: &World, who: &str) -> Result<probe::client::Agent, Failed> {
    world
        .agent(who)
        .ok_or_else(|| format!("no agent {who}").into())
}

fn spec(protocol: Protocol, target: IpAddr) -> ConnectSpec {
    ConnectSpec {
        timeout_ms: 10_000,
        ..ConnectSpec::new(protocol, SocketAddr::new(target, PORT))
    }
}

/// The only outcome of one connection.
async fn connect(world: &World, from: &str, spec: ConnectSpec) -> Result<Outcome, Failed> {
    let report = agent(world, from)?.connect(spec).await?;
    let attempt = report.attempts.into_iter().next().ok_or("no attempt")?;
    Ok(attempt.outcome)
}

/// A topology with one of each.
fn everything() -> Topology {
    let mut topology = Topology::uniform(2, 3);
    topology.nodes[0].networks = vec!["storage".to_owned()];
    topology.pods.push(PodSpec {
        name: "daemon".to_owned(),
        node: "node2".to_owned(),
        host_network: true,
        ..PodSpec::default()
    });
    topology.pods[0].mtu = Some(1400);
    for (name, network) in [("neighbour", "nodes"), ("disk", "storage")] {
        topology.clients.push(ClientSpec {
            name: name.to_owned(),
            network: network.to_owned(),
            through: (network == "nodes").then(|| "node1".to_owned()),
        });
    }
    topology
}

async fn everybody_reaches_everybody() -> Test {
    let world = build(&everything()).await?;
    let plan = world.plan();
    let mut places: Vec<(String, Vec<IpAddr>)> = Vec::new();
    let both = |of: &dyn Fn(Family) -> IpAddr| Family::BOTH.map(of).to_vec();
    for node in plan.nodes() {
        places.push((node.name.clone(), both(&|family| node.ip(family))));
    }
    for pod in plan.pods().iter().filter(|pod| !pod.host_network) {
        places.push((pod.name.clone(), both(&|family| pod.ip(family))));
    }
    let outside = plan.outside("node1").ok_or("no outside")?;
    places.push(("outside".to_owned(), both(&|family| outside.ip(family))));
    let neighbour = plan.client("neighbour").ok_or("no neighbour")?;
    places.push(("neighbour".to_owned(), both(&|family| neighbour.ip(family))));
    for (who, addrs) in &places {
        serve(&world, who, addrs).await?;
    }
    // UDP is not sent again, so not even the first packet over a wire may be lost.
    let mut count = 0;
    for (from, own) in &places {
        let mut specs = Vec::new();
        let mut wanted = Vec::new();
        for (to, addrs) in &places {
            for (addr, own) in addrs.iter().zip(own) {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    specs.push(spec(protocol, *addr));
                    // A node has an address at each pod wire too, and the kernel prefers it there.
                    let any = from.starts_with("node") && to.starts_with("pod");
                    wanted.push((to, *addr, (!any).then_some(*own)));
                }
            }
        }
        let reports = agent(&world, from)?.connect_many(specs).await?;
        for ((to, addr, own), report) in wanted.into_iter().zip(reports) {
            for attempt in report.attempts {
                count += 1;
                match attempt.outcome {
                    Outcome::Answered { identity, peer, .. }
                        if identity == *to && own.is_none_or(|own| own == peer.ip()) => {}
                    other => return Err(format!("{from} -> {to} {addr}: {other:?}").into()),
                }
            }
        }
    }
    check(count == places.len() * places.len() * 4, count)?;
    // hostNetwork pods are their node; clients of an extra network reach the nodes in it.
    let daemon = plan.pod("daemon").ok_or("no daemon")?;
    let node2 = plan.node("node2").ok_or("no node2")?;
    check(
        daemon.ipv4 == node2.ipv4 && daemon.ipv6 == node2.ipv6,
        &daemon,
    )?;
    let storage = plan.node("node1").ok_or("no node1")?.extra["storage"];
    let storage = [IpAddr::from(storage.0), IpAddr::from(storage.1)];
    serve(&world, "node1", &storage).await?;
    for addr in storage {
        let outcome = connect(&world, "disk", spec(Protocol::Tcp, addr)).await?;
        check(outcome.identity() == Some("node1"), outcome)?;
    }
    for family in Family::BOTH {
        let outcome = connect(&world, "daemon", spec(Protocol::Udp, node2.ip(family))).await?;
        check(outcome.identity() == Some("node2"), outcome)?;
    }
    world.shutdown().await;
    Ok(())
}

async fn a_node_gets_another_address() -> Test {
    let world = build(&Topology::uniform(2, 1)).await?;
    for (addr, prefix) in [("10.89.0.111", 24), ("fd00:89::6f", 64)] {
        let addr: IpAddr = addr.parse()?;
        world
            .add_address("node1", ipnet::IpNet::new(addr, prefix)?)
            .await?;
        serve(&world, "node1", &[addr]).await?;
        // Also for packets that others forward, for which no neighbour discovery asks.
        for from in ["outside", "node2", "pod1", "pod2"] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let outcome = connect(&world, from, spec(protocol, addr)).await?;
                check(outcome.identity() == Some("node1"), (from, outcome))?;
            }
        }
    }
    let nobody = world.add_address("node9", "10.89.0.112/24".parse()?).await;
    check(nobody.is_err(), "node9 got an address")?;
    world.shutdown().await;
    Ok(())
}

async fn outside_address_chooses_the_node() -> Test {
    let world = build(&Topology::uniform(2, 0)).await?;
    let plan = world.plan();
    for family in Family::BOTH {
        let frontends = [
            plan.load_balancer_ip(1, family),
            plan.external_ip(200, family),
        ];
        for node in plan.nodes() {
            for frontend in frontends {
                agent(&world, &node.name)?
                    .address_add("lo", &ipnet::IpNet::from(frontend).to_string())
                    .await?;
            }
            serve(&world, &node.name, &frontends).await?;
            // The kernel starts to take packets for a new IPv6 address a moment after it has added it.
            for frontend in frontends {
                let deadline = Instant::now() + PATIENCE;
                while connect(&world, &node.name, spec(Protocol::Tcp, frontend))
                    .await?
                    .identity()
                    .is_none()
                {
                    check(Instant::now() < deadline, frontend)?;
                }
            }
        }
        for node in plan.nodes() {
            let source = plan.outside(&node.name).ok_or("no outside")?.ip(family);
            for frontend in frontends {
                let mut spec = spec(Protocol::Tcp, frontend);
                spec.source = Some(source);
                let outcome = connect(&world, "outside", spec).await?;
                let Outcome::Answered { identity, peer, .. } = &outcome else {
                    return Err(format!("{frontend} from {source}: {outcome:?}").into());
                };
                check(*identity == node.name && peer.ip() == source, outcome)?;
            }
        }
    }
    world.shutdown().await;
    Ok(())
}

async fn frontends_that_nobody_serves_are_unreachable() -> Test {
    let world = build(&Topology::uniform(1, 1)).await?;
    for family in Family::BOTH {
        let frontend = world.plan().load_balancer_ip(9, family);
        for from in ["pod1", "node1", "outside"] {
            let outcome = connect(&world, from, spec(Protocol::Tcp, frontend)).await?;
            check(
                matches!(outcome, Outcome::Unreachable { .. }),
                (from, outcome),
            )?;
        }
    }
    world.shutdown().await;
    Ok(())
}

async fn pods_come_and_go() -> Test {
    let world = build(&Topology::uniform(2, 1)).await?;
    let late = |host_network| PodSpec {
        name: "late".to_owned(),
        node: "node2".to_owned(),
        host_network,
        mtu: None,
    };
    let mut old = None;
    for _ in 0..3 {
        let pod = world.add_pod(&late(false)).await?;
        check(world.plan().pod("late").as_ref() == Some(&pod), &pod)?;
        check(old != Some(pod.ipv4), &pod)?;
        old = Some(pod.ipv4);
        serve(&world, "late", &[pod.ipv4.into(), pod.ipv6.into()]).await?;
        for addr in [IpAddr::from(pod.ipv4), pod.ipv6.into()] {
            for from in ["pod1", "pod2", "node1", "node2", "outside"] {
                let outcome = connect(&world, from, spec(Protocol::Tcp, addr)).await?;
                check(outcome.identity() == Some("late"), (from, outcome))?;
            }
        }
        check(
            matches!(world.add_pod(&late(false)).await, Err(WorldError::Plan(_))),
            "the same name twice",
        )?;
        world.remove_pod("late").await?;
        check(
            world.agent("late").is_none() && world.plan().pod("late").is_none(),
            "removed",
        )?;
        for addr in [IpAddr::from(pod.ipv4), pod.ipv6.into()] {
            let mut spec = spec(Protocol::Tcp, addr);
            spec.timeout_ms = 200;
            let outcome = connect(&world, "pod1", spec).await?;
            check(outcome == Outcome::TimedOut, outcome)?;
        }
        let links = sh(&world, "node2", "ls /sys/class/net").await?;
        let links = String::from_utf8_lossy(&links.stdout).into_owned();
        check(links.split_whitespace().eq(["eth0", "lo", "pod1"]), links)?;
    }
    let pod = world.add_pod(&late(true)).await?;
    serve(&world, "late", &[pod.ipv4.into()]).await?;
    let outcome = connect(&world, "pod1", spec(Protocol::Udp, pod.ipv4.into())).await?;
    check(outcome.identity() == Some("late"), outcome)?;
    world.remove_pod("late").await?;
    check(
        matches!(
            world.remove_pod("late").await,
            Err(WorldError::NoSuchPlace(_))
        ),
        "removed twice",
    )?;
    world.shutdown().await;
    Ok(())
}

async fn a_listener_in_the_fabric_serves_nodes() -> Test {
    let world = build(&Topology::uniform(1, 1)).await?;
    let addr = world.plan().api_server();
    let listener = tokio::net::TcpListener::from_std(world.listen_tcp("fabric", addr).await?)?;
    let server = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await?;
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await?;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
            stream.write_all(answer).await?;
        }
        Ok::<_, std::io::Error>(())
    });
    for from in ["node1", "pod1"] {
        let response = agent(&world, from)?.http_get(addr, "/", 10_000).await?;
        check(response.status == 200, format!("{response:?}"))?;
    }
    server.await??;
    let again = world.listen_tcp("node1", addr).await;
    check(again.is_err(), "an address that node1 does not have")?;
    world.shutdown().await;
    Ok(())
}

async fn processes_log_and_obey_and_end() -> Test {
    let world = build(&Topology::uniform(1, 0)).await?;
    let script = "trap 'exit 7' TERM; cat /run/app/config >&2; echo \"$GREETING $(hostname) $(pwd)\"; \
                  while :; do sleep 0.01; done";
    let process = world
        .spawn(
            "node1",
            ProcessSpec {
                argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
                env: vec![("GREETING".to_owned(), "hello".to_owned())],
                files: vec![FileSpec {
                    path: "/run/app/config".into(),
                    content: vec![b'x'; 1 << 20],
                    mode: 0o600,
                }],
                cwd: Some("/tmp".into()),
                exe: None,
            },
        )
        .await?;
    let mut stderr = process.take_stderr().ok_or("no stderr")?;
    let mut config = vec![0; 1 << 20];
    stderr.read_exact(&mut config).await?;
    check(config.iter().all(|byte| *byte == b'x'), "the file")?;
    let mut stdout = process.take_stdout().ok_or("no stdout")?;
    let mut line = [0; 17];
    stdout.read_exact(&mut line).await?;
    check(
        &line == b"hello node1 /tmp\n",
        String::from_utf8_lossy(&line),
    )?;
    check(process.take_stdout().is_none(), "stdout is there once")?;

    check(process.exited().is_none(), "it runs")?;
    check(process.rss_bytes()? > 100_000, process.rss_bytes()?)?;
    check(
        process.peak_rss_bytes()? >= process.rss_bytes()? / 2,
        "peak",
    )?;
    check(process.open_fds()? >= 3, process.open_fds()?)?;
    check(process.cpu_time()? < PATIENCE, process.cpu_time()?)?;
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    if nix::unistd::geteuid().is_root() {
        check(
            status.contains("\nUid:\t65534\t65534\t65534\t65534\n"),
            status,
        )?;
    }
    process.signal(libc::SIGSTOP).await?;
    process.signal_group(libc::SIGCONT).await?;
    process.signal_group(libc::SIGTERM).await?;
    let status = process.wait().await;
    check(status.code() == Some(7), status)?;
    check(process.exited() == Some(status), process.exited())?;
    check(process.signal(libc::SIGTERM).await.is_err(), "it is gone")?;

    let missing = world
        .spawn(
            "node1",
            ProcessSpec {
                argv: vec!["no-such-program".to_owned()],
                ..ProcessSpec::default()
            },
        )
        .await;
    let message = missing.map(drop).unwrap_err().to_string();
    check(
        message.contains("failed to run") && message.contains("No such file"),
        message,
    )?;
    world.shutdown().await;
    Ok(())
}

async fn a_program_from_elsewhere_runs() -> Test {
    let world = build(&Topology::uniform(1, 0)).await?;
    let dir = scratch("elsewhere")?;
    let script = dir.join("program");
    fs::write(&script, "#!/bin/sh\necho \"ran $1\"\n")?;
    // Root's world runs as nobody, who can neither read nor reach this.
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700))?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    let path = script.to_str().ok_or("path")?;
    let output = world
        .exec("node1", &[path, "well"], Vec::new(), PATIENCE)
        .await?;
    check(output.stdout == b"ran well\n", &output)?;
    // A binary, too: this program, which is in no directory that the world shows.
    let own = std::env::current_exe()?;
    let own = own.to_str().ok_or("path")?;
    let output = world
        .exec("node1", &[own, "--list"], Vec::new(), PATIENCE)
        .await?;
    let text = String::from_utf8_lossy(&output.stdout);
    check(text.contains("a_program_from_elsewhere_runs"), &text)?;
    fs::remove_dir_all(dir)?;
    world.shutdown().await;
    Ok(())
}

fn scratch(name: &str) -> Result<PathBuf, Failed> {
    let dir = std::env::temp_dir().join(format!("netlab-{name}-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

async fn the_host_is_out_of_sight() -> Test {
    let world = build(&Topology::uniform(1, 0)).await?;
    for read_only in ["/usr", "/etc", "/", "/sys"] {
        let output = sh(&world, "node1", &format!("touch {read_only}/probe")).await?;
        check(!output.status.success(), &output)?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        check(text.contains("Read-only") || text.contains("denied"), text)?;
    }
    let mut hidden = vec![
        "/home".to_owned(),
        "/root".to_owned(),
        "/oldroot".to_owned(),
    ];
    hidden.push(env!("CARGO_MANIFEST_DIR").to_owned());
    hidden.extend(std::env::var("HOME"));
    for path in hidden {
        let output = sh(&world, "node1", &format!("ls -d '{path}'")).await?;
        check(path == "/" || !output.status.success(), (path, output))?;
    }
    // No process of the host: what is there started with the world.
    let output = sh(&world, "node1", "ls -d /proc/[0-9]* | wc -l; id -u").await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (processes, id) = text.split_once('\n').ok_or("output")?;
    check(
        processes.trim().parse::<u32>()? < 20 && id.trim() == "0",
        &text,
    )?;
    world.shutdown().await;
    Ok(())
}

async fn nodes_have_files_of_their_own() -> Test {
    let world = build(&Topology::uniform(2, 0)).await?;
    for dir in ["/run", "/tmp", "/var", "/var/run", "/var/lib"] {
        sh(&world, "node1", &format!("echo mine > {dir}/file")).await?;
        let same = sh(&world, "node1", &format!("cat {dir}/file")).await?;
        check(same.stdout == b"mine\n", (dir, same))?;
        let other = sh(&world, "node2", &format!("cat {dir}/file")).await?;
        check(!other.status.success(), (dir, other))?;
    }
    let network = sh(&world, "node2", "hostname; ls /sys/class/net").await?;
    check(network.stdout == b"node2\neth0\nlo\n", &network)?;
    world.shutdown().await;
    Ok(())
}

async fn read_only_binds_are_visible() -> Test {
    let dir = scratch("bind")?;
    fs::write(dir.join("file"), "shown")?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    let options = Options {
        read_only_binds: vec![dir.clone()],
        ..Options::default()
    };
    let world = World::build(&Topology::uniform(1, 0), &options).await?;
    let path = dir.display();
    let output = sh(
        &world,
        "node1",
        &format!("cat {path}/file && ! touch {path}/other 2>/dev/null"),
    )
    .await?;
    check(
        output.status.success() && output.stdout == b"shown",
        &output,
    )?;
    world.shutdown().await;
    fs::remove_dir_all(dir)?;
    Ok(())
}

async fn tools_get_input_and_are_killed_in_time() -> Test {
    let world = build(&Topology::uniform(1, 0)).await?;
    let input: Vec<u8> = (0..1 << 20).map(|n| n as u8).collect();
    let output = world
        .exec("node1", &["cat"], input.clone(), PATIENCE)
        .await?;
    check(
        output.stdout == input && output.status.success(),
        output.stdout.len(),
    )?;
    let output = sh(&world, "node1", "kill -9 $$").await?;
    check(output.status.signal() == Some(9), &output)?;
    let spec = ProcessSpec {
        argv: ["sh", "-c", "exit 3"].map(str::to_owned).to_vec(),
        ..ProcessSpec::default()
    };
    let status = world.shell("node1", spec).await?;
    check(status.code() == Some(3), status)?;
    let slow = world
        .exec(
            "node1",
            &["sleep", "1000"],
            Vec::new(),
            Duration::from_millis(50),
        )
        .await;
    check(matches!(slow, Err(WorldError::TimedOut { .. })), slow)?;
    world.shutdown().await;
    Ok(())
}

async fn wrong_names_are_told() -> Test {
    let world = build(&Topology::uniform(1, 0)).await?;
    let spec = ProcessSpec {
        argv: vec!["true".to_owned()],
        ..ProcessSpec::default()
    };
    let error = world.spawn("node9", spec).await.map(drop);
    check(
        matches!(&error, Err(WorldError::NoSuchPlace(name)) if name == "node9"),
        error,
    )?;
    let error = world
        .listen_tcp("node9", world.plan().api_server())
        .await
        .map(drop);
    check(
        matches!(&error, Err(WorldError::NoSuchPlace(name)) if name == "node9"),
        error,
    )?;
    let error = build(&Topology::default()).await.map(drop);
    check(matches!(error, Err(WorldError::Plan(_))), error)?;
    // And the world is none the worse for it.
    check(sh(&world, "node1", "true").await?.status.success(), "alive")?;
    world.shutdown().await;
    Ok(())
}

async fn the_outside_wire_has_its_mtu() -> Test {
    let mut topology = Topology::uniform(1, 1);
    topology.outside = Some(OutsideSpec { mtu: Some(1400) });
    let world = build(&topology).await?;
    for (who, link) in [("outside", "eth0"), ("router", "eth1")] {
        let output = sh(&world, who, &format!("cat /sys/class/net/{link}/mtu")).await?;
        check(output.stdout == b"1400\n", (who, output))?;
    }
    // The pod sends segments of 1500 bytes, because that is what the client asks for, until the router says that they are too long.
    let plan = world.plan();
    let pod = plan.pod("pod1").ok_or("no pod1")?;
    let addresses = [IpAddr::from(pod.ipv4), pod.ipv6.into()];
    serve(&world, "pod1", &addresses).await?;
    for address in addresses {
        let large = ConnectSpec {
            reply: 100_000,
            ..spec(Protocol::Tcp, address)
        };
        let outcome = connect(&world, "outside", large).await?;
        check(matches!(outcome, Outcome::Answered { .. }), outcome)?;
    }
    // What it learned holds for everything that it sends there.
    let client = plan.outside("node1").ok_or("no outside")?;
    for address in [IpAddr::from(client.ipv4), client.ipv6.into()] {
        let long = ConnectSpec {
            payload: 1400,
            dont_fragment: true,
            ..spec(Protocol::Udp, address)
        };
        let outcome = connect(&world, "pod1", long).await?;
        let too_long = matches!(
            outcome,
            Outcome::SendFailed {
                errno: libc::EMSGSIZE,
                ..
            }
        );
        check(too_long, outcome)?;
    }
    world.shutdown().await;
    Ok(())
}

async fn after_the_end_everything_says_so() -> Test {
    let world = build(&Topology::uniform(1, 1)).await?;
    let process = world
        .spawn(
            "node1",
            ProcessSpec {
                argv: vec!["sleep".to_owned(), "1000".to_owned()],
                ..ProcessSpec::default()
            },
        )
        .await?;
    let pid = world.pid().ok_or("no pid")?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid as i32),
        nix::sys::signal::Signal::SIGKILL,
    )?;
    let status = tokio::time::timeout(PATIENCE, process.wait()).await?;
    check(status.signal() == Some(libc::SIGKILL), status)?;
    let error = world
        .listen_tcp("node1", world.plan().api_server())
        .await
        .map(drop);
    check(matches!(error, Err(WorldError::Gone { .. })), error)?;
    check(
        agent(&world, "pod1")?.hello().await.is_err(),
        "the agent is gone",
    )?;
    drop(world);
    eventually(|| {
        fs::metadata(format!("/proc/{}", process.pid()))
            .ok()
            .map(drop)
    })
    .await
}

/// Plays a harness that is about to be killed.
fn victim() -> ! {
    runtime().block_on(async {
        let world = build(&everything()).await.expect("failed to build");
        let process = world
            .spawn(
                "node1",
                ProcessSpec {
                    argv: vec!["sleep".to_owned(), "1000".to_owned()],
                    ..ProcessSpec::default()
                },
            )
            .await
            .expect("failed to spawn");
        println!("{}", process.pid());
        std::future::pending().await
    })
}

/// A child that is killed when a test is through with it, also when it fails.
struct Harness(std::process::Child);

impl Drop for Harness {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Namespaces that a world has of its own.
const KINDS: [&str; 4] = ["user", "mnt", "pid", "net"];

/// The namespaces that a process is in.
fn namespaces(pid: u32) -> BTreeSet<PathBuf> {
    KINDS
        .iter()
        .filter_map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok())
        .collect()
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

async fn a_killed_harness_leaves_nothing() -> Test {
    let mounts = || fs::read_to_string("/proc/self/mountinfo");
    let before = mounts()?;
    let mut command = Command::new(std::env::current_exe()?);
    let mut harness = Harness(command.arg(VICTIM).stdout(Stdio::piped()).spawn()?);
    let mut line = String::new();
    BufReader::new(harness.0.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
    let candidate: u32 = line.trim().parse()?;

    // Everything that shares the candidate's user namespace is the world: PID 1, agents, candidate.
    let user = fs::read_link(format!("/proc/{candidate}/ns/user"))?;
    let members: Vec<u32> = processes()
        .into_iter()
        .filter(|pid| fs::read_link(format!("/proc/{pid}/ns/user")).is_ok_and(|ns| ns == user))
        .collect();
    let own = namespaces(std::process::id());
    let mut theirs: BTreeSet<PathBuf> = members.iter().flat_map(|pid| namespaces(*pid)).collect();
    theirs.retain(|namespace| !own.contains(namespace));
    // PID 1, 14 agents and the candidate; 13 network namespaces, a mount namespace each for PID 1 and the candidate,
    // and one user and one PID namespace.
    check(
        members.len() == 16 && theirs.len() == 13 + 2 + 2,
        (&members, &theirs),
    )?;
    // Namespaces' numbers are used again, by worlds of other tests for one, unless somebody holds them.
    let held = members
        .iter()
        .flat_map(|pid| KINDS.map(|kind| fs::File::open(format!("/proc/{pid}/ns/{kind}"))))
        .collect::<Result<Vec<_>, _>>()?;
    let leftovers = netlab::leftovers();
    check(
        !leftovers.iter().any(|left| members.contains(&left.pid)),
        leftovers,
    )?;

    harness.0.kill()?;
    harness.0.wait()?;
    eventually(|| {
        let inside: Vec<u32> = processes()
            .into_iter()
            .filter(|pid| !namespaces(*pid).is_disjoint(&theirs))
            .collect();
        (!inside.is_empty()).then_some(inside)
    })
    .await?;
    // With no process in them, only these still keep the namespaces and what is in them.
    drop(held);
    check(mounts()? == before, "mounts of the host")?;
    let leftovers = netlab::leftovers();
    check(
        !leftovers.iter().any(|left| left.harness == harness.0.id()),
        leftovers,
    )
}

/// Plays a harness of an ordinary user.
fn unprivileged() -> ! {
    let result = runtime().block_on(async {
        let world = build(&Topology::uniform(2, 1)).await?;
        let to = world.plan().pod("pod2").ok_or("no pod2")?;
        serve(&world, "pod2", &[to.ipv4.into(), to.ipv6.into()]).await?;
        for family in Family::BOTH {
            let outcome = connect(&world, "pod1", spec(Protocol::Tcp, to.ip(family))).await?;
            check(outcome.identity() == Some("pod2"), outcome)?;
        }
        let output = sh(&world, "node1", "id -u").await?;
        check(output.stdout == b"0\n", output)?;
        world.shutdown().await;
        Ok::<_, Failed>(())
    });
    match result {
        Ok(()) => std::process::exit(0),
        Err(failed) => {
            eprintln!("{}", failed.message().unwrap_or("failed"));
            std::process::exit(1)
        }
    }
}

async fn no_root_is_needed() -> Test {
    // By this path even a user who cannot reach the build directory can run it.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(UNPRIVILEGED)
        .current_dir("/")
        .stderr(Stdio::piped());
    if nix::unistd::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let mut child = command.spawn()?;
    let mut text = String::new();
    child
        .stderr
        .take()
        .ok_or("no stderr")?
        .read_to_string(&mut text)?;
    let status = child.wait()?;
    check(status.success(), text)
}

async fn worlds_do_not_know_each_other() -> Test {
    let topology = Topology::uniform(1, 1);
    let (one, two) = tokio::try_join!(build(&topology), build(&topology))?;
    let addr = one.plan().pod("pod1").ok_or("no pod")?.ipv4.into();
    serve(&one, "pod1", &[addr]).await?;
    let there = connect(&one, "node1", spec(Protocol::Tcp, addr)).await?;
    check(there.identity() == Some("pod1"), there)?;
    let elsewhere = connect(&two, "node1", spec(Protocol::Tcp, addr)).await?;
    check(matches!(elsewhere, Outcome::Refused { .. }), elsewhere)?;
    one.shutdown().await;
    check(
        agent(&two, "pod1")?.hello().await.is_ok(),
        "the other lives on",
    )?;
    two.shutdown().await;
    Ok(())
}

async fn the_doctor_finds_what_worlds_need() -> Test {
    // Worlds work here, or this would have been skipped; so the doctor must not claim otherwise.
    let findings = tokio::task::spawn_blocking(netlab::doctor).await?;
    check(findings.len() > 10, findings.len())?;
    for finding in findings {
        check(!(finding.required && finding.missing.is_some()), &finding)?;
        check(
            finding.missing.is_some() == finding.remedy.is_some(),
            &finding,
        )?;
    }
    let options = Options {
        harness: Some("/nonexistent".into()),
        ..Options::default()
    };
    let findings = tokio::task::spawn_blocking(move || netlab::doctor_with(&options)).await?;
    check(
        findings.iter().all(|finding| finding.missing.is_some()),
        findings,
    )
}
