//! A provider whose cluster is opened when the run begins: what it can do is known before, so that the plan can say what it skips.
//!
//! Each thing that is done to the cluster is told with its time, and the first that fails decides every attempt: by the candidate where it did
//! not get ready, as infrastructure trouble otherwise. So there is a report in any case, and it says why.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Instant,
};

use async_trait::async_trait;
use futures::future::BoxFuture;
use reports::event::SetupFinished;

use super::{
    super::{Cluster, ClusterError, Provider, Settings},
    Site,
    fit::{self, Facts},
};
use crate::{candidate::Candidate, scenario::Case};

/// How a cluster is made or found, and what is done to it afterwards.
pub trait Opening: std::fmt::Debug + Send + Sync {
    /// As `--provider` names it.
    fn name(&self) -> &'static str;

    /// What the cluster will have and allow.
    fn facts(&self) -> Facts;

    /// Whether known-bad proxies can take the candidate's place before it is there.
    fn takes_forerunners(&self, candidate: &Candidate) -> Result<(), String>;

    /// Makes the cluster ready for attempts with the candidate; before it is there, for those with the known-bad ones.
    fn open<'a>(
        &'a self,
        candidate: &'a Candidate,
        forerunners: &'a dyn Forerunners,
        told: &'a Told,
    ) -> BoxFuture<'a, Result<Arc<Site>, ClusterError>>;

    /// The kubeconfig of a cluster that was made, once it is there.
    fn kubeconfig(&self) -> Option<PathBuf> {
        None
    }

    /// Why nothing can be expected of the cluster any more, if that can be seen.
    fn trouble(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async { None })
    }

    /// Takes away what was made, whether it was opened or only partly. `failed`: something is to be found out from what it leaves.
    fn close<'a>(
        &'a self,
        site: Option<Arc<Site>>,
        failed: bool,
        told: &'a Told,
    ) -> BoxFuture<'a, ()>;
}

/// Known-bad proxies that are tried on a cluster before the candidate is there, one after the other.
pub trait Forerunners: Send + Sync {
    /// In the order of their turns.
    fn candidates(&self) -> Vec<Candidate>;

    /// Tries one of them, which the cluster has now.
    fn fly(&self, candidate: Candidate) -> BoxFuture<'_, ()>;

    /// One of them could not be tried.
    fn grounded(&self, name: &str, why: &str);
}

/// None.
impl Forerunners for () {
    fn candidates(&self) -> Vec<Candidate> {
        Vec::new()
    }

    fn fly(&self, _: Candidate) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn grounded(&self, _: &str, _: &str) {}
}

/// Who hears what is done to a cluster.
pub struct Told {
    finished: Box<dyn Fn(SetupFinished) + Send + Sync>,
    waiting: Box<dyn Fn(&str) + Send + Sync>,
}

impl Told {
    /// Everything that ends is told to the first, and what is waited for meanwhile to the second.
    pub fn new(
        finished: impl Fn(SetupFinished) + Send + Sync + 'static,
        waiting: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        Self {
            finished: Box::new(finished),
            waiting: Box::new(waiting),
        }
    }

    /// What is waited for now.
    pub fn waits(&self, what: &str) {
        (self.waiting)(what);
    }

    /// Does something and tells how long it took.
    pub async fn step<T, E: std::fmt::Display>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.waits(what);
        let began = Instant::now();
        let result = work.await;
        (self.finished)(SetupFinished {
            what: what.into(),
            duration_ms: began.elapsed().as_secs_f64() * 1e3,
            failed: result.as_ref().err().map(ToString::to_string),
        });
        result
    }

    /// Something that a reader of the report should know.
    pub fn notes(&self, what: &str) {
        (self.finished)(SetupFinished {
            what: what.into(),
            duration_ms: 0.0,
            failed: None,
        });
    }
}

/// A provider that has to be opened first.
#[derive(Debug)]
pub struct Real {
    opening: Box<dyn Opening>,
    site: OnceLock<Result<Arc<Site>, ClusterError>>,
    /// What is wrong with it since.
    broken: OnceLock<String>,
    /// Whether it was closed; what was never opened needs that, too.
    closed: Mutex<bool>,
}

impl Real {
    /// A cluster that is made or found so.
    pub fn new(opening: Box<dyn Opening>) -> Self {
        Self {
            opening,
            site: OnceLock::new(),
            broken: OnceLock::new(),
            closed: Mutex::new(false),
        }
    }

    /// Opens it; attempts may begin afterwards, whatever came of it.
    ///
    /// # Errors
    /// What the attempts say, too.
    pub async fn open(&self, candidate: &Candidate, told: &Told) -> Result<(), ClusterError> {
        self.open_after(&(), candidate, told).await
    }

    /// The same, with known-bad proxies on it before.
    ///
    /// # Errors
    /// What the attempts say, too.
    pub async fn open_after(
        &self,
        forerunners: &dyn Forerunners,
        candidate: &Candidate,
        told: &Told,
    ) -> Result<(), ClusterError> {
        let opened = self.opening.open(candidate, forerunners, told).await;
        let result = opened.as_ref().map(drop).map_err(Clone::clone);
        let _ = self.site.set(opened);
        result
    }

    /// How it is made.
    pub fn opening(&self) -> &dyn Opening {
        self.opening.as_ref()
    }

    /// What whoever began the run got wrong, if that is why there are no attempts.
    pub fn mistake(&self) -> Option<&str> {
        match self.site.get() {
            Some(Err(ClusterError::Usage(message))) => Some(message),
            _ => None,
        }
    }

    /// Takes away what was made.
    pub async fn close(&self, failed: bool, told: &Told) {
        let was_closed = {
            let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *closed, true)
        };
        if !was_closed {
            let site = self.site.get().and_then(|site| site.as_ref().ok()).cloned();
            self.opening.close(site, failed, told).await;
        }
    }
}

#[async_trait]
impl Provider for Arc<Real> {
    fn name(&self) -> &'static str {
        self.opening.name()
    }

    fn cannot(&self, case: &Case) -> Option<String> {
        fit::cannot(case, &self.opening.facts())
    }

    async fn build(
        &self,
        case: &Arc<Case>,
        candidate: &Candidate,
        settings: Settings,
    ) -> Result<(Arc<Case>, Box<dyn Cluster>), ClusterError> {
        if let Some(broken) = self.broken.get() {
            return Err(ClusterError::Infra(broken.clone()));
        }
        match self.site.get() {
            Some(Ok(site)) => {
                let built = site.build(case, candidate, settings).await;
                // Nobody waits for each of a hundred attempts on a node that is gone.
                if let Err(ClusterError::Infra(_)) = &built
                    && let Some(trouble) = self.opening.trouble().await
                {
                    let _ = self.broken.set(trouble.clone());
                    return Err(ClusterError::Infra(trouble));
                }
                built
            }
            Some(Err(error)) => Err(error.clone()),
            None => Err(ClusterError::Infra("the cluster was not opened".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{candidate::Form, plan};

    /// A cluster that cannot be opened.
    #[derive(Debug)]
    struct Wrong(ClusterError);

    impl Opening for Wrong {
        fn name(&self) -> &'static str {
            "wrong"
        }

        fn facts(&self) -> Facts {
            Facts::default()
        }

        fn takes_forerunners(&self, _: &Candidate) -> Result<(), String> {
            Ok(())
        }

        fn open<'a>(
            &'a self,
            _: &'a Candidate,
            _: &'a dyn Forerunners,
            told: &'a Told,
        ) -> BoxFuture<'a, Result<Arc<Site>, ClusterError>> {
            Box::pin(told.step("try", async { Err(self.0.clone()) }))
        }

        fn close<'a>(&'a self, _: Option<Arc<Site>>, _: bool, _: &'a Told) -> BoxFuture<'a, ()> {
            Box::pin(async {})
        }
    }

    /// Attempts say what went wrong, whoever's fault it is; only a mistake of the user's is told apart, for the exit code.
    #[tokio::test]
    async fn a_mistake_is_infrastructure_trouble_to_attempts_and_told_as_what_it_is() {
        let requirements = plan::Requirements::embedded().unwrap();
        let catalogue = plan::Catalogue::embedded(&requirements).unwrap();
        let document = &catalogue.documents[0];
        let case = Arc::new(document.resolve(&document.cases[0]).unwrap());
        let candidate = Candidate::load_as("null", Form::Cluster).unwrap();
        for (error, mistake) in [
            (ClusterError::Usage("x.yaml:3: wrong".into()), true),
            (ClusterError::Infra("no disk".into()), false),
            (ClusterError::Candidate("not ready".into()), false),
        ] {
            let message = error.to_string();
            let real = Arc::new(Real::new(Box::new(Wrong(error))));
            let failed = Arc::new(Mutex::new(Vec::new()));
            let heard = failed.clone();
            let told = Told::new(
                move |setup| heard.lock().unwrap().extend(setup.failed),
                |_| {},
            );
            assert!(real.open(&candidate, &told).await.is_err());
            assert_eq!(*failed.lock().unwrap(), std::slice::from_ref(&message));
            assert_eq!(real.mistake(), mistake.then_some(message.as_str()));
            let built = real.build(&case, &candidate, Settings::default()).await;
            let Err(error) = built else {
                panic!("there is no cluster");
            };
            assert_eq!(error.to_string(), message);
        }
    }
}
