//! `harness upstream`: the upstream suite beside ours.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Args;

use super::{
    Exit, Failed, certify::run_id, interrupt::interrupted, place::OnKind, print, results, runtime,
};
use crate::{
    candidate::{Candidate, Form},
    cluster::{
        ClusterError,
        real::opening::{Real, Told},
    },
    coverage::Accounts,
    plan::{Catalogue, Requirements},
    upstream::{
        JSON_NAME, MARKDOWN_NAME,
        agree::Agreement,
        choose::{Allowed, Choice},
        images,
        incluster::InClusterError,
        junit,
        look::LookError,
        run::{Program, RunError},
        session::{Session, SessionError, Suite},
    },
};

/// Run the upstream end-to-end suite on a cluster, and hold it beside a run of this one.
///
/// Which specs are run follows from what they say that they need and from what the candidate declares not to have, and from no list of
/// names. The specs that scenarios/upstream.yaml maps are compared with the cases of --report: where one suite passes what the
/// other one fails, one of the two is wrong, and these come first.
///
/// Before specs run, each node is asked for the images that they use. A spec whose image cannot be had is not run, and one that fails for
/// want of an image did not fail: both are told as infrastructure trouble, with the image.
///
/// Exit codes: 0 every spec passed, and the suites agree; 1 a spec failed, or they disagree; 2 usage or bad input;
/// 4 e2e.test could not be run, or specs have no result or lacked an image; 5 no spec was run.
#[derive(Debug, Args)]
pub struct UpstreamCommand {
    /// The program e2e.test of a Kubernetes version.
    #[arg(
        long,
        value_name = "PATH",
        required_unless_present_any = ["junit", "conformance_image"],
        conflicts_with_all = ["junit", "conformance_image"]
    )]
    e2e_test: Option<PathBuf>,
    /// In place of --e2e-test: Kubernetes' conformance image, such as registry.k8s.io/conformance:v1.36.2, which runs in the cluster.
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["junit", "dry_run", "ginkgo"])]
    conformance_image: Option<String>,
    /// Results that are there already, as e2e.test wrote them; may be repeated.
    #[arg(long, value_name = "FILE")]
    junit: Vec<PathBuf>,
    /// How to reach the cluster.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["junit", "dry_run", "on_kind"])]
    kubeconfig: Option<PathBuf>,
    /// In place of --kubeconfig: make a cluster with the kind command (or use one again), install the candidate, and run there.
    #[arg(long = "kind", conflicts_with_all = ["kubeconfig", "context", "junit", "dry_run"])]
    on_kind: bool,
    #[command(flatten)]
    kind: OnKind,
    /// With --kind: image archives to load into the nodes, such as that of agnhost; may be repeated.
    #[arg(long, value_name = "FILE", requires = "on_kind")]
    load: Vec<PathBuf>,
    /// With --kind: the number of workers; by default 2, or as many as zones.
    #[arg(long, value_name = "N", requires = "on_kind", conflicts_with = "reuse", value_parser = clap::value_parser!(u8).range(1..=32))]
    workers: Option<u8>,
    /// With --kind: zones in which the workers are, in turn. Specs about zones want 3, some of them with two workers in each.
    #[arg(long, value_name = "N", requires = "on_kind", conflicts_with = "reuse", value_parser = clap::value_parser!(u8).range(1..=32))]
    zones: Option<u8>,
    /// Only specs whose names hold this text, such as '[sig-network] Services'; may be repeated.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// The context of the kubeconfig, if not the current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Manifest of the candidate on the cluster: what it declares not to have is not asked of it.
    #[arg(long, value_name = "FILE|reference")]
    candidate: Option<String>,
    /// Result directory of a run of this suite with the same candidate, or its report.json.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Kubernetes' whole conformance instead of SIG Network.
    #[arg(long)]
    conformance: bool,
    /// A feature that the cluster has, as in the tags of specs: IPv6DualStack, LoadBalancer, Alpha; may be repeated.
    #[arg(long, value_name = "NAME")]
    feature: Vec<String>,
    /// Also specs that break what others on the cluster use.
    #[arg(long)]
    disruptive: bool,
    /// The command ginkgo, which runs specs in several processes.
    #[arg(long, value_name = "PATH")]
    ginkgo: Option<PathBuf>,
    /// Processes, with --ginkgo or --conformance-image; by default 4.
    #[arg(long, value_name = "N")]
    procs: Option<u32>,
    /// Only say what would be run, and why the rest would not.
    #[arg(long, conflicts_with = "junit")]
    dry_run: bool,
    /// Directory for upstream.json, upstream.md, the log and the JUnit files; must be empty or not there.
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
}

/// Processes of the suite, where there may be several.
const PROCS: u32 = 4;

impl From<RunError> for Failed {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Start { .. } | RunError::NoSpecs { .. } => Self::usage(error),
            RunError::Write { .. } | RunError::NoResults { .. } => Self::infra(error),
        }
    }
}

impl From<SessionError> for Failed {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Run(error) => error.into(),
            SessionError::Look(error @ LookError::Kubeconfig { .. }) => Self::usage(error),
            SessionError::Look(error) => Self::infra(error),
            SessionError::InCluster(error @ InClusterError::NoSpecs { .. }) => Self::usage(error),
            SessionError::InCluster(error) => Self::infra(error),
        }
    }
}

impl UpstreamCommand {
    pub(super) fn run(self) -> Result<Exit, Failed> {
        let requirements = Requirements::embedded()?;
        let catalogue = Catalogue::embedded(&requirements)?;
        let table = Accounts::embedded()?.upstream.table(&catalogue);
        let report = self.report.as_deref().map(results::read).transpose()?;
        let candidate = self.candidate()?;
        if let Some((flag, _)) = self.kind.given().into_iter().find(|(_, given)| *given)
            && !self.on_kind
        {
            return Err(Failed::usage(format!("{flag} needs --kind")));
        }
        self.kind.must_be_there()?;
        let workers = self.workers()?;
        let out = self.out.as_deref().map(empty).transpose()?;
        let choose = |names: &[String], zones: Option<usize>| {
            let of_them = |name: &&String| {
                self.only.is_empty() || self.only.iter().any(|text| name.contains(text.as_str()))
            };
            let names: Vec<String> = names.iter().filter(of_them).cloned().collect();
            let allowed = Allowed {
                features: self.feature.iter().cloned().collect(),
                disruptive: self.disruptive,
                conformance: self.conformance,
                zones,
            };
            Choice::of(&names, &allowed, candidate.as_ref(), &table, &catalogue)
        };
        let (choice, texts) = match self.suite()? {
            None => (Choice::default(), self.texts()?),
            Some(suite) => {
                // Of a cluster that is there, the zones are not known yet.
                let is_new = self.on_kind && !self.kind.is_used_again();
                let zones = is_new.then(|| usize::from(self.zones.unwrap_or_default()));
                if let Suite::Program { specs, images, .. } = &suite {
                    let first = choose(specs, zones);
                    if out.is_none() || self.dry_run {
                        print(&chosen(&first));
                        print(&used(&first, images));
                        return Ok(Exit::Ok);
                    }
                    if first.run.is_empty() {
                        print(&chosen(&first));
                        return Ok(Exit::NothingRan);
                    }
                    print(&format!(
                        "{} specs of the upstream suite, {} left out\n",
                        first.run.len(),
                        first.left_out.len()
                    ));
                }
                let Some(out) = out else {
                    return Err(Failed::usage("--out is needed"));
                };
                self.run_suite(suite, &choose, candidate.as_ref(), workers, out)?
            }
        };
        let specs = junit::read(texts.iter().map(String::as_str)).map_err(Failed::usage)?;
        let agreement = Agreement::of(specs, &choice, report.as_ref(), &table);
        let markdown = agreement.markdown();
        if let Some(out) = out {
            let json = serde_json::to_string_pretty(&agreement).map_err(Failed::infra)?;
            for (name, text) in [(JSON_NAME, &json), (MARKDOWN_NAME, &markdown)] {
                let path = out.join(name);
                reports::replace(&path, text.as_bytes())
                    .map_err(|error| Failed::infra(format!("{}: {error}", path.display())))?;
            }
        }
        print(&markdown);
        Ok(if agreement.failed() > 0 || agreement.disagrees() {
            Exit::NotConformant
        } else if !agreement.missing.is_empty() || agreement.infra() > 0 {
            Exit::Infra
        } else if agreement.said() == 0 {
            Exit::NothingRan
        } else {
            Exit::Ok
        })
    }

    /// The candidate, in the form that is installed on a cluster where it has one.
    fn candidate(&self) -> Result<Option<Candidate>, Failed> {
        let Some(reference) = &self.candidate else {
            return match self.on_kind {
                true => Err(Failed::usage("--kind needs --candidate: what is installed")),
                false => Ok(None),
            };
        };
        let form = match self.on_kind {
            true => Form::Cluster,
            false => Form::Process,
        };
        let candidate = Candidate::load_as(reference, form);
        Ok(Some(match candidate {
            Err(_) if !self.on_kind => Candidate::load_as(reference, Form::Cluster)?,
            candidate => candidate?,
        }))
    }

    /// Where the suite comes from; none if its results are there already.
    fn suite(&self) -> Result<Option<Suite>, Failed> {
        if self.procs.is_some() && self.ginkgo.is_none() && self.conformance_image.is_none() {
            return Err(Failed::usage(
                "--procs needs --ginkgo or --conformance-image: e2e.test alone is one process",
            ));
        }
        let procs = self.procs.unwrap_or(PROCS);
        if let Some(reference) = &self.conformance_image {
            let reference = reference.clone();
            return Ok(Some(Suite::Image { reference, procs }));
        }
        let Some(e2e_test) = &self.e2e_test else {
            return Ok(None);
        };
        let program = Program {
            e2e_test: e2e_test.clone(),
            ginkgo: self.ginkgo.clone(),
            procs,
            kubeconfig: PathBuf::new(),
            context: None,
            nodes: None,
        };
        let runtime = runtime()?;
        let specs = runtime.block_on(program.specs())?;
        let images = runtime.block_on(program.images())?;
        Ok(Some(Suite::Program {
            program,
            specs,
            images,
        }))
    }

    /// Runs the suite on the cluster that the user has, or on one that is made.
    fn run_suite(
        &self,
        suite: Suite,
        choose: &(dyn Fn(&[String], Option<usize>) -> Choice + Sync),
        candidate: Option<&Candidate>,
        workers: Vec<BTreeMap<String, String>>,
        out: &Path,
    ) -> Result<(Choice, Vec<String>), Failed> {
        let stop = Arc::new(AtomicBool::new(false));
        let tell = |line: &str| print(&format!("{}\n", reports::text::one_line(line)));
        let told = Told::new(
            |setup| {
                print(&format!(
                    "cluster  {}\n",
                    reports::text::one_line(&setup.to_string())
                ))
            },
            |what| tracing::info!("waiting: {what}"),
        );
        let name = candidate.map(|one| one.manifest.name.as_str());
        let run_id = run_id(name.unwrap_or("upstream"));
        let digest = xxhash_rust::xxh3::xxh3_64(run_id.as_bytes());
        let session = |kubeconfig| Session {
            suite,
            kubeconfig,
            context: self.context.clone(),
            choose,
            tag: format!("{:06x}", digest & 0xff_ffff),
            out,
            stop: &stop,
            told: &told,
        };
        let ran = runtime()?.block_on(async {
            tokio::spawn(interrupted(stop.clone()));
            let Some(candidate) = candidate.filter(|_| self.on_kind) else {
                let kubeconfig = self.kubeconfig.clone().unwrap_or_default();
                return session(kubeconfig).run(tell).await.map_err(Failed::from);
            };
            let made = self
                .kind
                .made_of(candidate, &run_id, out, &self.load, workers);
            let real = Real::new(Box::new(made));
            let ran = match real.open(candidate, &told).await {
                Ok(()) => {
                    let kubeconfig = real.opening().kubeconfig().unwrap_or_default();
                    session(kubeconfig).run(tell).await.map_err(Failed::from)
                }
                Err(error @ ClusterError::Candidate(_)) => Err(Failed {
                    message: error.to_string(),
                    exit: Exit::NotConformant,
                }),
                Err(error) => Err(Failed::infra(error)),
            };
            real.close(ran.is_err(), &told).await;
            ran
        })?;
        if stop.load(Ordering::Relaxed) {
            eprintln!("interrupted: what is there is kept in {}", out.display());
        }
        Ok(ran)
    }

    /// The labels of the workers; none if they are as usual.
    fn workers(&self) -> Result<Vec<BTreeMap<String, String>>, Failed> {
        if self.workers.is_none() && self.zones.is_none() {
            return Ok(Vec::new());
        }
        let zones = self.zones.unwrap_or_default();
        let workers = self.workers.unwrap_or(zones.max(2));
        if workers < zones {
            return Err(Failed::usage(format!(
                "--zones {zones} needs as many workers, and --workers says {workers}"
            )));
        }
        let labels = |worker: u8| match zones {
            0 => BTreeMap::new(),
            zones => [(
                "topology.kubernetes.io/zone".to_owned(),
                format!("zone-{}", worker % zones + 1),
            )]
            .into(),
        };
        Ok((0..workers).map(labels).collect())
    }

    fn texts(&self) -> Result<Vec<String>, Failed> {
        let read = |file: &PathBuf| {
            std::fs::read_to_string(file).map_err(|error| {
                Failed::usage(format!(
                    "--junit {}: cannot be read: {error}",
                    file.display()
                ))
            })
        };
        self.junit.iter().map(read).collect()
    }
}

/// Makes the directory; one in which something lies is refused, because results of two runs would be taken for one.
fn empty(dir: &Path) -> Result<&Path, Failed> {
    let cannot = |error| Failed::usage(format!("--out {}: {error}", dir.display()));
    std::fs::create_dir_all(dir).map_err(cannot)?;
    match std::fs::read_dir(dir).map_err(cannot)?.next() {
        None => Ok(dir),
        Some(_) => Err(Failed::usage(format!(
            "--out {}: it is not empty; name another directory or remove it",
            dir.display()
        ))),
    }
}

/// What would be run, and why the rest would not.
fn chosen(choice: &Choice) -> String {
    let mut text = format!("run ({}):\n", choice.run.len());
    for name in &choice.run {
        let new = match choice.unknown.contains(name) {
            true => " (not known to this suite)",
            false => "",
        };
        text.push_str(&format!("  {name}{new}\n"));
    }
    text.push_str(&format!("left out ({}):\n", choice.left_out.len()));
    for (name, reason) in &choice.left_out {
        text.push_str(&format!("  {name}: {reason}\n"));
    }
    text
}

/// The images that the chosen specs use, as far as that is known.
fn used(choice: &Choice, listed: &[String]) -> String {
    let images = images::needed(&choice.run, listed);
    if images.is_empty() {
        return String::new();
    }
    let mut text = format!("images ({}):\n", images.len());
    for (image, specs) in images {
        text.push_str(&format!("  {image}: {} specs\n", specs.len()));
    }
    text
}
