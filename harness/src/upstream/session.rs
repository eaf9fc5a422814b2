//! The suite on one cluster: looks at it, leaves out what cannot be run there, and runs the rest.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    choose::Choice,
    images::{REMEDY, needed},
    incluster::{InCluster, InClusterError},
    look::{Look, LookError, Node, zones},
    run::{Program, RunError},
};
use crate::cluster::real::opening::Told;

/// A namespace with a few Pods that never ran is gone within seconds.
const GONE: Duration = Duration::from_secs(60);

/// Why there are no results.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The cluster cannot be looked at.
    #[error(transparent)]
    Look(#[from] LookError),
    /// The program left no results.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The image left no results.
    #[error(transparent)]
    InCluster(#[from] InClusterError),
}

/// Where the suite comes from.
pub enum Suite {
    /// A program on this machine.
    Program {
        /// The program. How to reach the cluster is told to it here.
        program: Program,
        /// Its specs.
        specs: Vec<String>,
        /// The images that it says it uses.
        images: Vec<String>,
    },
    /// Kubernetes' conformance image, in the cluster.
    Image {
        /// Its whole name.
        reference: String,
        /// Processes.
        procs: u32,
    },
}

/// What is run where.
pub struct Session<'a> {
    /// Where the suite comes from.
    pub suite: Suite,
    /// How to reach the cluster.
    pub kubeconfig: PathBuf,
    /// The context in it, if not the current one.
    pub context: Option<String>,
    /// Chooses among specs, by the number of zones.
    pub choose: &'a (dyn Fn(&[String], Option<usize>) -> Choice + Sync),
    /// No other run's: what is made in the cluster has it in its name.
    pub tag: String,
    /// Where results go.
    pub out: &'a Path,
    /// Set when the user has had enough.
    pub stop: &'a Arc<AtomicBool>,
    /// Who hears what is done before specs run.
    pub told: &'a Told,
}

impl Session<'_> {
    /// Runs what can be run, and answers what was chosen and the texts of the JUnit files.
    ///
    /// # Errors
    /// A cluster that does not answer, and a program that leaves no results.
    pub async fn run(
        self,
        progress: impl FnMut(&str),
    ) -> Result<(Choice, Vec<String>), SessionError> {
        let context = self.context.as_deref();
        let look = Look::at(
            &self.kubeconfig,
            context,
            format!("harness-images-{}", self.tag),
        )
        .await?;
        let nodes = look.nodes().await?;
        match &self.suite {
            Suite::Program {
                program,
                specs,
                images,
            } => {
                let choice = self.looked(&look, &nodes, specs, images).await?;
                if !self.goes_on(&choice) {
                    return Ok((choice, Vec::new()));
                }
                let program = Program {
                    kubeconfig: self.kubeconfig.clone(),
                    context: self.context.clone(),
                    nodes: Some(nodes.len()),
                    ..program.clone()
                };
                let focus = choice.focus();
                let ran = program.run(&focus, self.out, self.stop, progress);
                let texts = ran.await?;
                Ok((choice, texts))
            }
            Suite::Image { reference, procs } => {
                let name = format!("harness-suite-{}", self.tag);
                let suite = InCluster::new(look.client(), name, reference.clone());
                let ran = self
                    .in_cluster(&suite, *procs, &look, &nodes, progress)
                    .await;
                if let Err(left) = suite.remove(GONE).await {
                    self.told.notes(&format!("left behind: {left}"));
                }
                ran
            }
        }
    }

    async fn in_cluster(
        &self,
        suite: &InCluster,
        procs: u32,
        look: &Look,
        nodes: &[Node],
        progress: impl FnMut(&str),
    ) -> Result<(Choice, Vec<String>), SessionError> {
        let started = suite.start(self.stop);
        self.told
            .step("start the suite in the cluster", started)
            .await?;
        let specs = suite.specs().await?;
        let images = suite.images().await?;
        let choice = self.looked(look, nodes, &specs, &images).await?;
        self.told.notes(&format!(
            "{} of the suite, {} left out",
            counted(choice.run.len(), "spec"),
            choice.left_out.len()
        ));
        if !self.goes_on(&choice) {
            return Ok((choice, Vec::new()));
        }
        let focus = choice.focus();
        let ran = suite.run(&focus, procs, nodes.len(), self.out, self.stop, progress);
        let texts = ran.await?;
        Ok((choice, texts))
    }

    fn goes_on(&self, choice: &Choice) -> bool {
        !choice.run.is_empty() && !self.stop.load(Ordering::Relaxed)
    }

    /// What of the specs can be run on these nodes, which are asked for the images.
    async fn looked(
        &self,
        look: &Look,
        nodes: &[Node],
        specs: &[String],
        images: &[String],
    ) -> Result<Choice, SessionError> {
        let mut choice = (self.choose)(specs, Some(zones(nodes)));
        if images.is_empty() {
            self.told.notes(
                "the suite does not say which images it uses: whether the nodes have them is not looked at",
            );
        }
        let users: BTreeMap<String, Vec<String>> = needed(&choice.run, images)
            .into_iter()
            .map(|(image, specs)| (image, specs.into_iter().map(str::to_owned).collect()))
            .collect();
        if users.is_empty() {
            return Ok(choice);
        }
        let images: Vec<String> = users.keys().cloned().collect();
        let what = format!(
            "look for {} of the suite on {}",
            counted(images.len(), "image"),
            counted(nodes.len(), "node")
        );
        let found = look.images(nodes, &images, self.stop, |what| self.told.waits(what));
        let found = self.told.step(&what, found).await?;
        for (node, why) in &found.silent {
            self.told
                .notes(&format!("{node} could not be asked for images: {why}"));
        }
        choice.without(&found.missing, &users);
        for missing in &found.missing {
            let specs = users.get(&missing.image).map_or(0, Vec::len);
            let specs = counted(specs, "spec");
            self.told.notes(&format!(
                "{}; not run for it: {specs}; {REMEDY}",
                missing.reason()
            ));
        }
        if let Err(left) = look.gone(GONE).await {
            self.told.notes(&format!("left behind: {left}"));
        }
        Ok(choice)
    }
}

fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
