//! Applying: server-side, in phases, with a mark on everything.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::DynamicObject,
    runtime::{conditions, wait::await_condition},
};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::{
    Existing, LABEL, MANAGER, Progress, RUN, Rollout, Tell,
    error::{Error, said},
    kinds::Kind,
    object::{Object, ObjectId, metadata_map},
    order::{Phase, phases},
    retry::{found, is_transient, retry},
};

/// How often to ask whether the API server serves a kind whose definition it has accepted; that cannot be watched.
const PAUSE: Duration = Duration::from_millis(200);

impl Rollout {
    /// Applies objects: definitions and namespaces first, and their objects when the definitions are served.
    ///
    /// Each object of ours that is there already is brought to the new state. Others are a matter of [`Existing`]; a Namespace that is there
    /// is used and left as it is.
    ///
    /// # Errors
    /// [`Error::Exists`] before anything is changed; otherwise at the first object that is refused, with everything before it applied.
    pub async fn apply(
        &self,
        objects: &[Object],
        deadline: Duration,
        tell: Tell<'_>,
    ) -> Result<(), Error> {
        let until = Instant::now() + deadline;
        if self.existing == Existing::Refuse {
            self.refuse_existing(objects, until).await?;
        }
        let mut done = 0;
        for (phase, group) in phases(objects) {
            for object in &group {
                done += 1;
                tell(Progress {
                    what: object.id.to_string(),
                    state: format!("applying {done} of {}", objects.len()),
                });
                self.apply_one(object, until).await?;
            }
            if phase == Phase::Foundations {
                let definitions = group
                    .iter()
                    .filter(|object| object.id.kind == "CustomResourceDefinition");
                for definition in definitions {
                    tell(Progress {
                        what: definition.id.to_string(),
                        state: "waiting until it is established".into(),
                    });
                    self.established(definition, until, deadline).await?;
                }
            }
        }
        Ok(())
    }

    /// The object as it is on the cluster.
    pub(crate) async fn get(
        &self,
        kind: &Kind,
        id: &ObjectId,
        until: Instant,
    ) -> Result<Option<DynamicObject>, Error> {
        let api = kind.api(&self.client, id);
        retry(until, || async { found(api.get(&id.name).await) })
            .await
            .map_err(|error| Error::api(format!("look up {id}"), &error))
    }

    pub(crate) async fn kind(&self, id: &ObjectId, until: Instant) -> Result<Option<Kind>, Error> {
        retry(until, || self.kinds.find(&id.api_version, &id.kind))
            .await
            .map_err(|error| Error::api(format!("look up the kind of {id}"), &error))
    }

    /// The object as it is on the cluster, and its kind; nothing if either is not there.
    pub(crate) async fn look_up(
        &self,
        id: &ObjectId,
        until: Instant,
    ) -> Result<Option<(Kind, DynamicObject)>, Error> {
        let Some(kind) = self.kind(id, until).await? else {
            return Ok(None);
        };
        let existing = self.get(&kind, id, until).await?;
        Ok(existing.map(|existing| (kind, existing)))
    }

    async fn refuse_existing(&self, objects: &[Object], until: Instant) -> Result<(), Error> {
        let mut foreign = Vec::new();
        for object in objects {
            // Kinds that are not there yet have no objects.
            let existing = self.look_up(&object.id, until).await?;
            let others = existing.is_some_and(|(_, existing)| !is_ours(&existing));
            if others && !is_namespace(&object.id) {
                foreign.push(object.id.clone());
            }
        }
        if foreign.is_empty() {
            return Ok(());
        }
        Err(Error::Exists { objects: foreign })
    }

    async fn apply_one(&self, object: &Object, until: Instant) -> Result<(), Error> {
        let id = &object.id;
        let Some(kind) = self.served(id, until).await? else {
            return Err(Error::UnknownKind {
                object: id.clone(),
                source_name: object.place(),
            });
        };
        let existing = self.get(&kind, id, until).await?;
        let ours = existing.as_ref().is_none_or(is_ours);
        if !ours && is_namespace(id) {
            return Ok(());
        }
        let value = self.prepared(object, &kind, ours);
        let api = kind.api(&self.client, id);
        let params = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(&value);
        let applied = retry(until, || api.patch(&id.name, &params, &patch)).await;
        match applied {
            Ok(_) => Ok(()),
            Err(error) => match &error {
                kube::Error::Api(status)
                    if (400..500).contains(&status.code)
                        && !is_transient(&error)
                        && !forbids_the_user(status) =>
                {
                    Err(Error::Rejected {
                        object: id.clone(),
                        source_name: object.place(),
                        message: said(&error),
                    })
                }
                _ => Err(Error::api(format!("apply {id}"), &error)),
            },
        }
    }

    /// What is sent: without what the server owns, and with our marks if it is ours.
    fn prepared(&self, object: &Object, kind: &Kind, ours: bool) -> Value {
        let mut value = without_servers_own(&object.value);
        if let Some(metadata) = value["metadata"].as_object_mut() {
            if !kind.namespaced {
                metadata.remove("namespace");
            } else if object.id.namespace.is_none() {
                metadata.insert("namespace".into(), "default".into());
            }
        }
        if ours {
            metadata_map(&mut value, "labels").insert(LABEL.into(), MANAGER.into());
            metadata_map(&mut value, "annotations").insert(RUN.into(), self.run.as_ref().into());
        }
        value
    }

    /// The kind, waited for if its definition came just now: it is served some moments after it is established.
    async fn served(&self, id: &ObjectId, until: Instant) -> Result<Option<Kind>, Error> {
        loop {
            let kind = self.kind(id, until).await?;
            let defined = Phase::of(id) == Phase::Custom && self.is_defined(id, until).await?;
            if kind.is_some() || !defined || Instant::now() + PAUSE >= until {
                return Ok(kind);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether a definition promises the kind.
    async fn is_defined(&self, id: &ObjectId, until: Instant) -> Result<bool, Error> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let params = kube::api::ListParams::default();
        let list = retry(until, || definitions.list(&params))
            .await
            .map_err(|error| Error::api(format!("look up the kind of {id}"), &error))?;
        let version = id
            .api_version
            .split_once('/')
            .map_or("", |(_, version)| version);
        Ok(list.items.iter().any(|definition| {
            let spec = &definition.spec;
            spec.group == id.group()
                && spec.names.kind == id.kind
                && spec
                    .versions
                    .iter()
                    .any(|one| one.served && one.name == version)
        }))
    }

    async fn established(
        &self,
        definition: &Object,
        until: Instant,
        deadline: Duration,
    ) -> Result<(), Error> {
        let name = definition.id.name.as_str();
        loop {
            let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
            let waited = await_condition(definitions, name, conditions::is_crd_established());
            match timeout_at(until, waited).await {
                Ok(Ok(_)) => return Ok(()),
                // A watch that broke off; `await_condition` ends with it.
                Ok(Err(_)) if Instant::now() + PAUSE < until => tokio::time::sleep(PAUSE).await,
                Ok(Err(error)) => {
                    return Err(Error::Api {
                        action: format!("watch {}", definition.id),
                        message: error.to_string(),
                    });
                }
                Err(_) => {
                    return Err(Error::Late {
                        action: format!("establish {}", definition.id),
                        state: "the API server does not serve it".into(),
                        deadline,
                    });
                }
            }
        }
    }
}

/// The object without what the server writes into it.
pub(crate) fn without_servers_own(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(whole) = value.as_object_mut() {
        whole.remove("status");
    }
    if let Some(metadata) = value["metadata"].as_object_mut() {
        for field in SERVERS {
            metadata.remove(field);
        }
    }
    value
}

/// Fields of metadata that the server owns.
const SERVERS: [&str; 7] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
];

pub(crate) fn is_namespace(id: &ObjectId) -> bool {
    id.kind == "Namespace" && id.api_version == "v1"
}

/// Whether the harness made the object.
pub(crate) fn is_ours(object: &DynamicObject) -> bool {
    let labels = object.metadata.labels.as_ref();
    let annotations = object.metadata.annotations.as_ref();
    // The label alone may be a copy: controllers copy those of a Service to its slices.
    labels
        .and_then(|labels| labels.get(LABEL))
        .is_some_and(|manager| manager == MANAGER)
        && annotations.is_some_and(|annotations| annotations.contains_key(RUN))
}
/// Whether it is the user who may not do it, whatever the object says. Admission refuses with the same code what is wrong with the object.
fn forbids_the_user(status: &kube::core::Status) -> bool {
    status.code == 401 || (status.code == 403 && status.message.contains("is forbidden: User "))
}
