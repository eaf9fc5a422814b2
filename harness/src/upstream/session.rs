//! The suite on one cluster: looks at it, leaves out what cannot be run there, and runs the rest.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    choose::Choice,
    images::{REMEDY, needed},
    look::{Look, LookError, zones},
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
}

/// What is run where.
pub struct Session<'a> {
    /// The program, which knows how to reach the cluster.
    pub program: Program,
    /// The images that the suite uses, as [`Program::images`] says.
    pub images: Vec<String>,
    /// Chooses among the specs, by the number of zones.
    pub choose: &'a (dyn Fn(Option<usize>) -> Choice + Sync),
    /// A name for the namespace in which images are looked for; no other run's.
    pub namespace: String,
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
        mut self,
        progress: impl FnMut(&str),
    ) -> Result<(Choice, Vec<String>), SessionError> {
        let context = self.program.context.as_deref();
        let look = Look::at(&self.program.kubeconfig, context, self.namespace.clone()).await?;
        let nodes = look.nodes().await?;
        self.program.nodes = Some(nodes.len());
        let mut choice = (self.choose)(Some(zones(&nodes)));
        let users: BTreeMap<String, Vec<String>> = needed(&choice.run, &self.images)
            .into_iter()
            .map(|(image, specs)| (image, specs.into_iter().map(str::to_owned).collect()))
            .collect();
        if !users.is_empty() {
            let images: Vec<String> = users.keys().cloned().collect();
            let what = format!(
                "look for {} of the suite on {}",
                counted(images.len(), "image"),
                counted(nodes.len(), "node")
            );
            let found = look.images(&nodes, &images, self.stop, |what| self.told.waits(what));
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
        }
        let ran = if choice.run.is_empty() || self.stop.load(Ordering::Relaxed) {
            Ok(Vec::new())
        } else {
            let focus = choice.focus();
            self.program
                .run(&focus, self.out, self.stop, progress)
                .await
        };
        if !users.is_empty()
            && let Err(left) = look.gone(GONE).await
        {
            self.told.notes(&format!("left behind: {left}"));
        }
        Ok((choice, ran?))
    }
}

fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
