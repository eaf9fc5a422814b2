//! The command line.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use clap::{ArgAction, Parser, ValueEnum};
use ipnet::IpNet;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    addresses::Addresses,
    backend::{Backend, CommandBackend},
    engine::{Engine, Event, NodePortAddresses, Settings},
    health::{self, DEFAULT_HEALTH_TIMEOUT, HealthState},
    metrics::{self, Metrics},
    nft::NetlinkTable,
    seams::{Plain, Seams},
    watch::{self, WatchOptions},
};

/// A Kubernetes Service proxy on nftables whose ruleset is data.
#[derive(Debug, Parser)]
#[command(name = "reference-proxy", version)]
struct Args {
    /// Kubeconfig file; without it, the usual places and the in-cluster configuration.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,

    /// Name of this node's Node object; the host's name by default.
    #[arg(long, alias = "hostname-override", env = "NODE_NAME")]
    node_name: Option<String>,

    /// Internal addresses of this node, until its Node object has some.
    #[arg(long, value_delimiter = ',')]
    node_ip: Vec<IpAddr>,

    /// Address ranges of the cluster's pods. Clients beyond them are masqueraded when they use a cluster IP. Without this, the pod ranges
    /// of the Node object count.
    #[arg(long, value_delimiter = ',')]
    cluster_cidr: Vec<IpNet>,

    /// Addresses that serve node ports: `primary` for the node's internal addresses, or ranges of addresses of its interfaces.
    #[arg(long, value_delimiter = ',', default_value = "primary")]
    nodeport_addresses: Vec<String>,

    /// Where /healthz and /livez are served; empty for nowhere.
    #[arg(long, default_value = "0.0.0.0:10256")]
    healthz_bind_address: String,

    /// Where /metrics and /proxyMode are served; empty for nowhere.
    #[arg(long, default_value = "127.0.0.1:10249")]
    metrics_bind_address: String,

    /// How the kernel is programmed.
    #[arg(long, value_enum, default_value_t = BackendName::Netlink)]
    backend: BackendName,

    /// Print the ruleset in the language of nft instead of loading it, and exit.
    #[arg(long)]
    print_ruleset: bool,

    /// Remove the ruleset and exit.
    #[arg(long)]
    cleanup: bool,

    /// Seconds after which a quiet watch is renewed. A half-open connection to the API server is noticed five seconds later.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..290))]
    watch_timeout: u32,

    /// Log more; twice for everything.
    #[arg(short, action = ArgAction::Count)]
    v: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BackendName {
    /// Netlink.
    Netlink,
    /// The `nft` command.
    Nft,
}

/// Runs the command with `args`, of which the first one is the program's name. It makes a runtime of its own.
///
/// The exit code is 0 after SIGTERM or SIGINT, 2 for a wrong command line, 1 for everything else that goes wrong.
pub fn main_with_args(args: Vec<OsString>) -> ExitCode {
    main_with_seams(args, &Plain)
}

/// The same, with the parts of the proxy put together by `seams`.
pub(crate) fn main_with_seams<S: Seams + ?Sized>(
    args: Vec<OsString>,
    seams: &'static S,
) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let level = match args.v {
        0 => "reference_proxy=info,warn",
        1 => "reference_proxy=debug,info",
        _ => "trace",
    };
    let _ = tracing_subscriber::fmt()
        .with_env_filter(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
    match run(args, seams) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bind_address(text: &str) -> anyhow::Result<Option<SocketAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .with_context(|| format!("failed to read the address {text:?}"))
}

fn node_port_addresses(texts: &[String]) -> anyhow::Result<NodePortAddresses> {
    if texts.iter().any(|text| text == "primary") || texts.is_empty() {
        anyhow::ensure!(
            texts.len() <= 1,
            "failed to read --nodeport-addresses: `primary` stands alone"
        );
        return Ok(NodePortAddresses::Primary);
    }
    let ranges = texts
        .iter()
        .map(|text| {
            text.parse::<IpNet>()
                .with_context(|| format!("failed to read the address range {text:?}"))
        })
        .collect::<anyhow::Result<Vec<IpNet>>>()?;
    Ok(NodePortAddresses::Ranges(ranges))
}

fn node_name(given: Option<&str>) -> anyhow::Result<String> {
    match given {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => {
            let name = nix::unistd::gethostname().context("failed to read the host's name")?;
            Ok(name.to_string_lossy().trim().to_lowercase())
        }
    }
}

fn run<S: Seams + ?Sized>(mut args: Args, seams: &'static S) -> anyhow::Result<()> {
    args.watch_timeout = seams.watch_timeout(args.watch_timeout);
    if args.cleanup {
        return NetlinkTable::open()
            .and_then(|table| seams.clean_up(&mut Backend::Netlink(table)))
            .context("failed to remove the ruleset");
    }
    let node = node_name(args.node_name.as_deref())?;
    let settings = Settings {
        node_ips: args.node_ip.clone(),
        cluster_cidrs: IpNet::aggregate(&args.cluster_cidr),
        node_ports: node_port_addresses(&args.nodeport_addresses)?,
    };
    let healthz = bind_address(&args.healthz_bind_address)?;
    let metrics_at = bind_address(&args.metrics_bind_address)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    let outcome = runtime.block_on(serve(args, node, settings, healthz, metrics_at, seams));
    runtime.shutdown_background();
    outcome
}

async fn client(args: &Args) -> anyhow::Result<kube::Client> {
    let mut config = match &args.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("failed to read {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer().await?,
    };
    // The watcher notices a silent watch by itself. This is for a request whose answer never begins, for instance on a pooled connection
    // whose other end is gone.
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(u64::from(args.watch_timeout) + 10));
    config.reset_reader_on_write = true;
    Ok(kube::Client::try_from(config)?)
}

async fn serve<S: Seams + ?Sized>(
    args: Args,
    node: String,
    settings: Settings,
    healthz: Option<SocketAddr>,
    metrics_at: Option<SocketAddr>,
    seams: &'static S,
) -> anyhow::Result<()> {
    let client = client(&args)
        .await
        .context("failed to configure the API client")?;
    let metrics = Metrics::new();
    let health = HealthState::new(DEFAULT_HEALTH_TIMEOUT);
    let (sender, events) = mpsc::channel();
    let options = WatchOptions {
        node: node.clone(),
        timeout: args.watch_timeout,
    };
    tokio::spawn(watch::services(
        client.clone(),
        options.clone(),
        sender.clone(),
        seams,
    ));
    tokio::spawn(watch::slices(
        client.clone(),
        options.clone(),
        sender.clone(),
        seams,
    ));
    tokio::spawn(watch::node(client, options, sender.clone(), seams));
    if matches!(settings.node_ports, NodePortAddresses::Ranges(_)) {
        let sender = sender.clone();
        let mut addresses = Addresses::open().context("failed to list the node's addresses")?;
        thread::spawn(move || {
            let mut last = addresses.current();
            let report = |current: &BTreeSet<IpAddr>| {
                seams
                    .event(Event::Addresses(current.clone()))
                    .is_none_or(|event| sender.send(event).is_ok())
            };
            let mut alive = report(&last);
            while alive {
                if let Err(error) = addresses.wait() {
                    tracing::error!("failed to follow the node's addresses: {error}");
                    return;
                }
                let current = addresses.current();
                if current != last {
                    last = current;
                    alive = report(&last);
                }
            }
        });
    }
    let engine = Engine::new(
        settings,
        seams,
        (sender, events),
        health.clone(),
        metrics.clone(),
    );
    let mut stop = signal(SignalKind::terminate()).context("failed to wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to wait for signals")?;
    if args.print_ruleset {
        let printed = tokio::task::spawn_blocking(move || engine.print());
        tokio::select! {
            text = printed => print!("{}", text.context("failed to compile the ruleset")?),
            _ = stop.recv() => {}
            _ = interrupt.recv() => {}
        }
        return Ok(());
    }
    let backend = match args.backend {
        BackendName::Netlink => {
            let table = NetlinkTable::with_layout(seams.layout());
            Backend::Netlink(table.context("failed to open the netlink socket")?)
        }
        BackendName::Nft => {
            Backend::Command(CommandBackend::new().context("failed to open the netlink socket")?)
        }
    };
    let _health = health::serve_with(health, healthz, metrics.clone(), seams);
    let _metrics = metrics_at.map(|at| metrics::serve(metrics, at));
    let (gone, engine_gone) = tokio::sync::oneshot::channel::<()>();
    thread::Builder::new()
        .name("engine".into())
        .spawn(move || {
            let _gone = gone;
            engine.run(backend);
        })
        .context("failed to start the engine")?;
    tracing::info!(%node, "started");
    tokio::select! {
        _ = stop.recv() => {}
        _ = interrupt.recv() => {}
        _ = engine_gone => anyhow::bail!("the engine stopped"),
    }
    // The rules stay: connections go on while the next process starts.
    tracing::info!("stopped; the rules stay");
    Ok(())
}
