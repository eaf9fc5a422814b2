//! `--provider` and what belongs to it: where the clusters of a run come from.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, ValueEnum};

use super::{Failed, runtime};
use crate::{
    candidate::{Candidate, Form},
    cluster::real::{
        Instances,
        existing::{Existing, ExistingError, Options},
        made::{self, Made},
        opening::{Opening, Real},
    },
};

/// Where clusters come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum From {
    /// Network namespaces on this machine, with an embedded API server; one world per attempt.
    #[default]
    Netns,
    /// A cluster of containers, made by the `kind` command for the run and deleted after it.
    Kind,
    /// A cluster that exists already.
    Kubeconfig,
}

/// Options about where clusters come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Clusters")]
pub struct Place {
    /// Where clusters come from.
    #[arg(long, value_enum, default_value_t)]
    provider: From,
    #[command(flatten)]
    kind: OnKind,
    /// With `--provider kubeconfig`: the file; by default the one that kubectl would use.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// With `--provider kubeconfig`: the context; by default the current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// With `--provider kubeconfig`: install the candidate, and remove it after the run.
    #[arg(long)]
    install: bool,
    /// With `--provider kubeconfig`: use it although its name looks like production.
    #[arg(long)]
    i_know_what_i_do: bool,
    /// With `--provider kubeconfig`: also run cases that restart the candidate and change its nodes. They run one at a time.
    #[arg(long)]
    disruptive: bool,
    /// With `--provider kubeconfig`: image of the agents, as the nodes can have it. `harness image` writes one.
    #[arg(long, value_name = "IMAGE", env = "HARNESS_AGENT_IMAGE")]
    agent_image: Option<String>,
    /// With `--candidate installed`: the candidate's Pods, such as `kube-system/k8s-app=kube-proxy`, so that cases can look after them.
    #[arg(long, value_name = "NAMESPACE/LABELS")]
    candidate_pods: Option<String>,
}

/// Options of `--provider kind`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Clusters")]
pub struct OnKind {
    /// With `--provider kind`: the node image; by default kind's own.
    #[arg(long, value_name = "IMAGE", env = "HARNESS_KIND_IMAGE")]
    image: Option<String>,
    /// With `--provider kind`: leave the cluster for `--reuse`. `harness clean` deletes it when it is named.
    #[arg(long)]
    keep: bool,
    /// With `--provider kind`: use a cluster that was kept, and leave it.
    #[arg(long, value_name = "NAME")]
    reuse: Option<String>,
}

impl OnKind {
    /// A cluster that is made, or used again, with logs in a directory.
    pub(super) fn made(
        &self,
        candidate: &Candidate,
        run_id: &str,
        logs: &Path,
        archives: &[PathBuf],
    ) -> Made {
        self.made_of(candidate, run_id, logs, archives, Vec::new())
    }

    /// The same with other workers than usual, each with labels of its own.
    pub(super) fn made_of(
        &self,
        candidate: &Candidate,
        run_id: &str,
        logs: &Path,
        archives: &[PathBuf],
        workers: Vec<BTreeMap<String, String>>,
    ) -> Made {
        let installation = candidate.installation();
        let options = made::Options {
            workers,
            image: self.image.clone(),
            keep: self.keep,
            reuse: self.reuse.clone(),
            logs: logs.into(),
            archives: archives.to_vec(),
            installs: !installation.is_empty() || installation.asks_for_api(),
            asks_for_api: installation.asks_for_api(),
        };
        Made::new(options, short(run_id))
    }

    /// A cluster that is to be used again has to be there; who mistyped its name need not wait for a run of nothing but trouble.
    pub(super) fn must_be_there(&self) -> Result<(), Failed> {
        let Some(name) = &self.reuse else {
            return Ok(());
        };
        let found = runtime()?.block_on(async {
            let kind = kindlab::Kind::find(kindlab::Options::default()).await?;
            Ok((kind.clusters().await?, kind.owned(name).await?))
        });
        let (clusters, owned) = found.map_err(|error: kindlab::KindError| Failed::infra(error))?;
        if let Some(owned) = owned.filter(|owned| owned.life == kindlab::Life::Alive) {
            return Err(Failed::usage(format!(
                "--reuse {name}: {} uses it, and two candidates cannot be told apart in one cluster",
                owned.harness
            )));
        }
        if clusters.contains(name) {
            return Ok(());
        }
        let known = match clusters.is_empty() {
            true => "none".to_owned(),
            false => clusters.join(", "),
        };
        Err(Failed::usage(format!(
            "--reuse {name}: there is no such cluster, but {known}"
        )))
    }

    /// Whether the cluster is there already.
    pub(super) fn is_used_again(&self) -> bool {
        self.reuse.is_some()
    }

    /// An option that says nothing without it.
    pub(super) fn given(&self) -> [(&'static str, bool); 2] {
        [("--keep", self.keep), ("--reuse", self.reuse.is_some())]
    }
}

impl Place {
    /// The form in which candidates are read.
    pub(super) fn form(&self) -> Form {
        match self.provider {
            From::Netns => Form::Process,
            From::Kind | From::Kubeconfig => Form::Cluster,
        }
    }

    /// Whether the candidate of this name can be meant here.
    pub(super) fn takes(&self, candidate: &str) -> Result<(), Failed> {
        if candidate == "installed" && self.provider != From::Kubeconfig {
            return Err(Failed::usage(
                "--candidate installed is what runs in a cluster already: it needs --provider kubeconfig",
            ));
        }
        Ok(())
    }

    /// The cluster of a run, where it is not a world per attempt. Looks at it and changes nothing.
    pub(super) fn real(
        &self,
        candidate: &Candidate,
        run_id: &str,
        out: &Path,
    ) -> Result<Option<Arc<Real>>, Failed> {
        if let Some(flag) = self.misplaced() {
            return Err(Failed::usage(flag));
        }
        let opening: Box<dyn Opening> = match self.provider {
            From::Netns => return Ok(None),
            From::Kind => {
                self.kind.must_be_there()?;
                Box::new(self.kind.made(candidate, run_id, out, &[]))
            }
            From::Kubeconfig => Box::new(self.existing(candidate, run_id)?),
        };
        Ok(Some(Arc::new(Real::new(opening))))
    }

    fn existing(&self, candidate: &Candidate, run_id: &str) -> Result<Existing, Failed> {
        if candidate.is_installed() == self.install {
            return Err(Failed::usage(
                "with --provider kubeconfig say either --candidate installed, for what runs in the cluster already, or a candidate with --install",
            ));
        }
        if self.agent_image.is_none() {
            return Err(Failed::usage(
                "--provider kubeconfig needs --agent-image: 'harness image' writes an image to push to a registry of the cluster's, or to load into its nodes",
            ));
        }
        let instances = self.candidate_pods.as_deref().map(instances).transpose()?;
        let options = Options {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            trusted: self.i_know_what_i_do,
            image: self.agent_image.clone(),
            instances,
            install: self.install,
            disruptive: self.disruptive,
        };
        let found = runtime()?.block_on(Existing::find(options, short(run_id)));
        found.map_err(|error| match error {
            ExistingError::Usage(message) => Failed::usage(message),
            ExistingError::Cluster(error) => Failed::infra(error),
        })
    }

    /// An option that says nothing with this provider.
    fn misplaced(&self) -> Option<String> {
        let of_kind = self
            .kind
            .given()
            .map(|(flag, given)| (flag, From::Kind, given));
        let options = [
            ("--kubeconfig", From::Kubeconfig, self.kubeconfig.is_some()),
            ("--context", From::Kubeconfig, self.context.is_some()),
            (
                "--i-know-what-i-do",
                From::Kubeconfig,
                self.i_know_what_i_do,
            ),
            ("--disruptive", From::Kubeconfig, self.disruptive),
            ("--install", From::Kubeconfig, self.install),
            (
                "--candidate-pods",
                From::Kubeconfig,
                self.candidate_pods.is_some(),
            ),
        ];
        let mut given = of_kind
            .into_iter()
            .chain(options)
            .filter(|(_, of, given)| *given && *of != self.provider);
        let (flag, of, _) = given.next()?;
        let of = of.to_possible_value()?;
        Some(format!("{flag} needs --provider {}", of.get_name()))
    }
}

/// `NAMESPACE/LABELS`.
fn instances(text: &str) -> Result<Instances, Failed> {
    let wrong = || {
        Failed::usage(format!(
            "--candidate-pods {text}: want a namespace and labels, such as kube-system/k8s-app=kube-proxy"
        ))
    };
    let (namespace, selector) = text.split_once('/').ok_or_else(wrong)?;
    if namespace.is_empty() || !selector.contains('=') {
        return Err(wrong());
    }
    Ok(Instances {
        namespace: namespace.into(),
        selector: selector.into(),
        container: None,
    })
}

/// A name for everything of a run in a cluster: short, so that the names of namespaces and Pods are not too long, and no other run's.
fn short(run_id: &str) -> String {
    let digest = xxhash_rust::xxh3::xxh3_64(run_id.as_bytes());
    format!("harness-{:06x}", digest & 0xff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_a_candidate_are_named_by_namespace_and_labels() {
        let found = instances("kube-system/app.kubernetes.io/name=x,tier=node").unwrap();
        assert_eq!(found.namespace, "kube-system");
        assert_eq!(found.selector, "app.kubernetes.io/name=x,tier=node");
        for wrong in ["kube-system", "/a=b", "kube-system/kube-proxy", ""] {
            assert!(instances(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_of_runs_are_short_and_their_own() {
        let (one, other) = (short("20261126-1-x"), short("20261126-2-x"));
        assert_ne!(one, other);
        assert_eq!(one.len(), 14);
    }
}
