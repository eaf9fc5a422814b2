//! Removing what was installed, and looking whether anything is left.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams, Preconditions, PropagationPolicy},
    core::DynamicObject,
    runtime::{conditions, wait::await_condition},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    LABEL, MANAGER, Progress, RUN, Rollout, Tell,
    apply::{is_namespace, is_ours, without_servers_own},
    error::{Error, said},
    kinds::Kind,
    object::{Object, ObjectId},
    order::phases,
    retry::{found, retry},
};

/// How many lists are asked for at once when leftovers are looked for.
const AT_ONCE: usize = 4;
/// How often they are: lists of every kind there is cannot be watched at a sensible price.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one look may take: about a hundred lists.
const LOOK: Duration = Duration::from_secs(60);

/// What became of objects that were to be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// They were there, and are gone.
    pub gone: Vec<ObjectId>,
    /// They are there, and are somebody else's.
    pub kept: Vec<ObjectId>,
}

/// An object on its way out.
struct Dying {
    id: ObjectId,
    kind: Kind,
    uid: String,
}

impl Rollout {
    /// Removes objects of ours in the reverse order of their installation, and waits until they are gone.
    ///
    /// What is not there is no mistake, so it can be called again, and after a crash.
    ///
    /// # Errors
    /// [`Error::NotGone`] at the deadline, with what holds the objects; [`Error::Api`] when the API server does not do it.
    pub async fn remove(
        &self,
        objects: &[Object],
        deadline: Duration,
        tell: Tell<'_>,
    ) -> Result<Removed, Error> {
        let until = Instant::now() + deadline;
        let mut removed = Removed::default();
        for (_, group) in phases(objects).into_iter().rev() {
            let mut dying = Vec::new();
            for object in group.into_iter().rev() {
                let Some((kind, existing)) = self.look_up(&object.id, until).await? else {
                    continue;
                };
                if !is_ours(&existing) {
                    removed.kept.push(object.id.clone());
                    continue;
                }
                dying.push(self.delete(&object.id, kind, &existing, until).await?);
            }
            self.gone(dying, until, deadline, tell, &mut removed)
                .await?;
        }
        Ok(removed)
    }

    /// Takes away objects of others, such as the kube-proxy that a candidate replaces, and waits until they are gone. Returns them as they
    /// were, for [`Self::restore`].
    ///
    /// # Errors
    /// As for [`Self::remove`].
    pub async fn remove_first(
        &self,
        ids: &[ObjectId],
        deadline: Duration,
        tell: Tell<'_>,
    ) -> Result<Vec<Object>, Error> {
        let until = Instant::now() + deadline;
        let mut taken = Vec::new();
        let mut dying = Vec::new();
        for id in ids {
            let Some((kind, existing)) = self.look_up(id, until).await? else {
                continue;
            };
            let value = serde_json::to_value(&existing).map_err(|error| Error::Api {
                action: format!("keep {id}"),
                message: error.to_string(),
            })?;
            taken.push(Object {
                id: id.clone(),
                source: "the cluster".into(),
                line: None,
                value,
            });
            dying.push(self.delete(id, kind, &existing, until).await?);
        }
        let mut removed = Removed::default();
        self.gone(dying, until, deadline, tell, &mut removed)
            .await?;
        Ok(taken)
    }

    /// Puts back what [`Self::remove_first`] took away, without our mark. What is there again already is left as it is.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn restore(&self, objects: &[Object], deadline: Duration) -> Result<(), Error> {
        let until = Instant::now() + deadline;
        for object in objects.iter().rev() {
            let action = || format!("put back {}", object.id);
            let Some(kind) = self.kind(&object.id, until).await? else {
                continue;
            };
            let value = without_servers_own(&object.value);
            let new: DynamicObject = serde_json::from_value(value).map_err(|error| Error::Api {
                action: action(),
                message: error.to_string(),
            })?;
            let api = kind.api(&self.client, &object.id);
            let params = PostParams::default();
            match retry(until, || api.create(&params, &new)).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
                Err(error) => return Err(Error::api(action(), &error)),
            }
        }
        Ok(())
    }

    /// Objects with our mark that are still there, of any kind: those of this run, or with `any_run` of every run. Waits for stragglers
    /// until the deadline, since garbage is collected in the background.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn leftovers(
        &self,
        any_run: bool,
        deadline: Duration,
    ) -> Result<Vec<ObjectId>, Error> {
        let until = Instant::now() + deadline;
        // However short the wait, there is one look.
        let asking = Instant::now() + deadline.max(LOOK);
        let failed = |error| Error::api("look for what is left", &error);
        let kinds = retry(asking, || self.kinds.all()).await.map_err(failed)?;
        loop {
            // Boxed, because the compiler cannot prove of futures that borrow from a closure's argument that they may be sent to other threads.
            let looks = kinds.iter().map(|kind| self.marked(kind, any_run, asking));
            let looks: Vec<_> = looks.map(futures::FutureExt::boxed).collect();
            let found: Vec<Vec<ObjectId>> = stream::iter(looks)
                .buffer_unordered(AT_ONCE)
                .try_collect()
                .await
                .map_err(failed)?;
            let found: BTreeSet<ObjectId> = found.into_iter().flatten().collect();
            if found.is_empty() || Instant::now() + PAUSE >= until {
                return Ok(found.into_iter().collect());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn marked(
        &self,
        kind: &Kind,
        any_run: bool,
        until: Instant,
    ) -> Result<Vec<ObjectId>, kube::Error> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind.resource);
        let params = ListParams::default().labels(&format!("{LABEL}={MANAGER}"));
        // A kind may go while this looks, and its objects with it; who may not list it did not make any.
        let list = match retry(until, || async { found(api.list(&params).await) }).await {
            Ok(Some(list)) => list.items,
            Ok(None) => Vec::new(),
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 405) => Vec::new(),
            Err(error) => return Err(error),
        };
        let of_run = |object: &DynamicObject| {
            let run = object
                .metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(RUN));
            run.is_some_and(|run| any_run || **run == *self.run)
        };
        Ok(list
            .into_iter()
            .filter(of_run)
            .map(|object| ObjectId {
                api_version: kind.resource.api_version.clone(),
                kind: kind.resource.kind.clone(),
                namespace: object.metadata.namespace,
                name: object.metadata.name.unwrap_or_default(),
            })
            .collect())
    }

    async fn delete(
        &self,
        id: &ObjectId,
        kind: Kind,
        existing: &DynamicObject,
        until: Instant,
    ) -> Result<Dying, Error> {
        let uid = existing.metadata.uid.clone().unwrap_or_default();
        let params = DeleteParams {
            // What belongs to it goes first, so that it is gone when everything is.
            propagation_policy: (!is_namespace(id)).then_some(PropagationPolicy::Foreground),
            preconditions: Some(Preconditions {
                uid: Some(uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let api = kind.api(&self.client, id);
        retry(until, || async {
            match found(api.delete(&id.name, &params).await) {
                // Somebody made it anew: the one that was to go is gone.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
                other => other,
            }
        })
        .await
        .map_err(|error| Error::api(format!("remove {id}"), &error))?;
        Ok(Dying {
            id: id.clone(),
            kind,
            uid,
        })
    }

    /// Waits until objects are gone.
    async fn gone(
        &self,
        dying: Vec<Dying>,
        until: Instant,
        deadline: Duration,
        tell: Tell<'_>,
        removed: &mut Removed,
    ) -> Result<(), Error> {
        let mut held = Vec::new();
        for object in dying {
            tell(Progress {
                what: object.id.to_string(),
                state: "waiting until it is gone".into(),
            });
            if self.is_gone(&object, until).await? {
                removed.gone.push(object.id);
            } else {
                held.push(self.holds(&object).await);
            }
        }
        if held.is_empty() {
            return Ok(());
        }
        Err(Error::NotGone {
            objects: held,
            deadline,
        })
    }

    async fn is_gone(&self, object: &Dying, until: Instant) -> Result<bool, Error> {
        loop {
            let api = object.kind.api(&self.client, &object.id);
            let deleted = conditions::is_deleted(&object.uid);
            match timeout_at(until, await_condition(api, &object.id.name, deleted)).await {
                Ok(Ok(_)) => return Ok(true),
                Err(_) => return Ok(false),
                Ok(Err(_)) => {
                    // The watch broke off, or the kind went with its definition, and its objects with it.
                    let api = object.kind.api(&self.client, &object.id);
                    let again = retry(until, || async { found(api.get(&object.id.name).await) });
                    let left = again.await.map_err(|error| {
                        Error::api(format!("see whether {} is gone", object.id), &error)
                    })?;
                    if left.is_none_or(|left| left.metadata.uid.as_ref() != Some(&object.uid)) {
                        return Ok(true);
                    }
                    if Instant::now() + PAUSE >= until {
                        return Ok(false);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// The object's name, and why it does not go.
    async fn holds(&self, object: &Dying) -> String {
        let api = object.kind.api(&self.client, &object.id);
        let why = match api.get(&object.id.name).await {
            Ok(left) => {
                let finalizers = left.metadata.finalizers.unwrap_or_default();
                if finalizers.is_empty() {
                    "no finalizer holds it".to_owned()
                } else {
                    format!("held by {}", finalizers.join(", "))
                }
            }
            Err(error) => said(&error),
        };
        format!("{} ({why})", object.id)
    }
}
