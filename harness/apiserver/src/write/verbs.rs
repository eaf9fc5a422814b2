//! Create, update, patch and delete, with Kubernetes' rules about identity, conflicts, subresources and finalizers.

use std::sync::Arc;

use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use super::server_side_apply::{self, Applier};
use super::{DeleteOptions, PatchKind, WriteOptions, patch, strategic};
use crate::config::Config;
use crate::error::{StatusCause, StatusError};
use crate::registry::ResourceType;
use crate::store::{Object, State, Verb};
use crate::types::{AdmitContext, Op, admit, released};

/// The object a request is about.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) resource: Arc<ResourceType>,
    /// Empty for cluster-wide objects.
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Whether the `status` subresource is meant.
    pub(crate) status: bool,
}

/// What a deletion led to.
pub(crate) enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Arc<Object>),
    /// The object stays until its finalizers are removed or its grace period is over.
    Pending(Arc<Object>),
}

/// One write under way, with the store locked.
pub(crate) struct Writer<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) config: &'a Config,
    /// Whether controllers react. Their own writes turn that off.
    pub(crate) controllers: bool,
}

/// Now, as `metadata` writes times: RFC 3339 with whole seconds.
fn timestamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Five letters and digits that cannot form words, as Kubernetes appends to `generateName`.
fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..5)
        .filter_map(|_| ALPHABET.choose(&mut rng))
        .map(|&b| char::from(b))
        .collect()
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn kind_of(target: &Target) -> strategic::Target<'_> {
    strategic::Target {
        group: &target.resource.group,
        kind: &target.resource.kind,
    }
}

/// Sets a metadata field to what it was, whatever the client sent.
fn carry_over(new: &mut Value, old: &Value, field: &str) {
    match old["metadata"].get(field) {
        Some(value) => new["metadata"][field] = value.clone(),
        None => {
            if let Some(metadata) = new["metadata"].as_object_mut() {
                metadata.shift_remove(field);
            }
        }
    }
}

fn without_bookkeeping(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|k, _| k != "metadata" && k != "status");
    }
    object
}

/// Whether Kubernetes counts generations for this resource: not for the oldest types.
fn has_generation(resource: &ResourceType) -> bool {
    !resource.group.is_empty() || resource.kind == "Pod" || resource.kind == "ReplicationController"
}

impl Writer<'_> {
    fn not_found(target: &Target) -> StatusError {
        StatusError::not_found(
            &target.resource.group,
            &target.resource.plural,
            &target.name,
        )
    }

    fn conflict(target: &Target, why: &str) -> StatusError {
        StatusError::conflict(
            &target.resource.group,
            &target.resource.plural,
            &target.name,
            why,
        )
    }

    fn modified(target: &Target) -> StatusError {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(target, why)
    }

    /// Makes `apiVersion`, `kind`, name and namespace agree with the request.
    fn identify(target: &Target, value: &mut Value) -> Result<(), StatusError> {
        if !value.is_object() {
            return Err(StatusError::bad_request(
                "the object provided is not a JSON object",
            ));
        }
        for (field, expected) in [
            ("apiVersion", target.resource.api_version()),
            ("kind", target.resource.kind.clone()),
        ] {
            match value[field].as_str() {
                None | Some("") => value[field] = json!(expected),
                Some(given) if given == expected => {}
                Some(given) => {
                    return Err(StatusError::bad_request(format!(
                        "the {field} in the data ({given}) does not match the expected {field} ({expected})"
                    )));
                }
            }
        }
        if value["metadata"].is_null() {
            value["metadata"] = json!({});
        }
        let Some(metadata) = value["metadata"].as_object_mut() else {
            return Err(StatusError::bad_request("metadata must be an object"));
        };
        let given = |field: &str| {
            metadata
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (namespace, name) = (given("namespace"), given("name"));
        if target.resource.namespaced {
            if !namespace.is_empty() && namespace != target.namespace {
                return Err(StatusError::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            metadata.insert("namespace".to_owned(), json!(target.namespace));
        } else {
            metadata.shift_remove("namespace");
        }
        if !target.name.is_empty() {
            if !name.is_empty() && name != target.name {
                return Err(StatusError::bad_request(format!(
                    "the name of the object ({name}) does not match the name on the URL ({})",
                    target.name
                )));
            }
            metadata.insert("name".to_owned(), json!(target.name));
        }
        Ok(())
    }

    pub(super) fn admit(
        &mut self,
        target: &Target,
        op: Op,
        old: Option<&Value>,
        new: &mut Value,
        options: &WriteOptions,
    ) -> Result<(), StatusError> {
        // A dry run must not take addresses from anybody, so it works on a copy.
        let mut scratch = options.dry_run.then(|| self.state.allocators.clone());
        let allocators = scratch.as_mut().unwrap_or(&mut self.state.allocators);
        let mut context = AdmitContext {
            allocators,
            now: jiff::Timestamp::now(),
        };
        let resource = &target.resource;
        admit(
            &mut context,
            op,
            &resource.api_version(),
            &resource.kind,
            old,
            new,
        )
        .map_err(|causes| {
            let causes: Vec<StatusCause> = causes.into_iter().map(StatusCause::from).collect();
            StatusError::invalid(
                &resource.group,
                &resource.kind,
                text(new, "/metadata/name"),
                causes,
            )
        })
    }

    fn require_namespace(
        &mut self,
        target: &Target,
        options: &WriteOptions,
    ) -> Result<(), StatusError> {
        if !target.resource.namespaced {
            return Ok(());
        }
        let Some(namespaces) = self.state.registry.kind("v1", "Namespace") else {
            return Ok(());
        };
        if self
            .state
            .object(&namespaces, "", &target.namespace)
            .is_some()
        {
            return Ok(());
        }
        if !self.config.create_missing_namespaces {
            return Err(StatusError::not_found("", "namespaces", &target.namespace));
        }
        if options.dry_run {
            return Ok(());
        }
        let name = target.namespace.clone();
        let namespace = Target {
            resource: namespaces,
            namespace: String::new(),
            name,
            status: false,
        };
        self.create(&namespace, json!({}), options).map(|_| ())
    }

    /// Creates an object. The target's name may be empty: the object's own name, or `generateName`, counts then.
    pub(crate) fn create(
        &mut self,
        target: &Target,
        mut value: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, StatusError> {
        Self::identify(target, &mut value)?;
        self.require_namespace(target, options)?;
        if !text(&value, "/metadata/resourceVersion").is_empty() {
            return Err(StatusError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let prefix = text(&value, "/metadata/generateName").to_owned();
        let mut name = text(&value, "/metadata/name").to_owned();
        if name.is_empty() && !prefix.is_empty() {
            name = format!("{prefix}{}", random_suffix());
            value["metadata"]["name"] = json!(name);
        }
        if name.is_empty() {
            let cause = StatusCause {
                reason: "FieldValueRequired".to_owned(),
                message: "Required value: name or generateName is required".to_owned(),
                field: "metadata.name".to_owned(),
            };
            return Err(StatusError::invalid(
                &target.resource.group,
                &target.resource.kind,
                "",
                vec![cause],
            ));
        }
        let target = Target {
            name,
            ..target.clone()
        };
        if self
            .state
            .object(&target.resource, &target.namespace, &target.name)
            .is_some()
        {
            let (group, plural) = (&target.resource.group, &target.resource.plural);
            return Err(StatusError::already_exists(group, plural, &target.name));
        }
        let now = timestamp(jiff::Timestamp::now());
        if let Some(metadata) = value["metadata"].as_object_mut() {
            for field in [
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "selfLink",
                "resourceVersion",
            ] {
                metadata.shift_remove(field);
            }
            metadata.insert("uid".to_owned(), json!(uuid::Uuid::new_v4().to_string()));
            metadata.insert("creationTimestamp".to_owned(), json!(now));
            if has_generation(&target.resource) {
                metadata.insert("generation".to_owned(), json!(1));
            }
        }
        if target.resource.has_status
            && let Some(fields) = value.as_object_mut()
        {
            // The status of a new object is the server's business; controllers write it afterwards.
            fields.shift_remove("status");
        }
        self.admit(&target, Op::Create, None, &mut value, options)?;
        self.store(&target, Verb::Added, None, value, options)
    }

    /// Commits a new version and lets the controllers react, or, for a dry run, only serialises it.
    fn store(
        &mut self,
        target: &Target,
        verb: Verb,
        old: Option<&Arc<Object>>,
        mut value: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, StatusError> {
        if options.dry_run {
            return Ok(Arc::new(Object::new(&value, verb, self.state.version)));
        }
        let object = self.state.commit(&target.resource, verb, &mut value);
        self.after(&target.resource, verb, old, &object);
        Ok(object)
    }

    /// Replaces an object by what `build` makes of its current state.
    pub(crate) fn update(
        &mut self,
        target: &Target,
        build: impl FnOnce(&Value) -> Result<Value, StatusError>,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, StatusError> {
        let old_object = self
            .state
            .object(&target.resource, &target.namespace, &target.name)
            .ok_or_else(|| Self::not_found(target))?;
        let old = old_object.value();
        let mut new = build(&old)?;
        Self::identify(target, &mut new)?;
        let version = text(&new, "/metadata/resourceVersion");
        if !version.is_empty() && version != old_object.version.to_string() {
            return Err(Self::modified(target));
        }
        let (uid, old_uid) = (text(&new, "/metadata/uid"), text(&old, "/metadata/uid"));
        if !uid.is_empty() && uid != old_uid {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}"
            );
            return Err(Self::conflict(target, &why));
        }
        if target.status {
            let (status, metadata) = (new["status"].take(), new["metadata"].take());
            new = old.clone();
            new["metadata"] = metadata;
            new["status"] = status;
        } else if target.resource.has_status
            && let Some(fields) = new.as_object_mut()
        {
            match old.get("status") {
                Some(status) => drop(fields.insert("status".to_owned(), status.clone())),
                None => drop(fields.shift_remove("status")),
            }
        }
        const SERVER_OWNED: &[&str] = &[
            "uid",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generateName",
            "resourceVersion",
            "selfLink",
        ];
        for field in SERVER_OWNED {
            carry_over(&mut new, &old, field);
        }
        if new["metadata"]
            .get("managedFields")
            .is_none_or(Value::is_null)
        {
            carry_over(&mut new, &old, "managedFields");
        }
        let op = if target.status {
            Op::UpdateStatus
        } else {
            Op::Update
        };
        self.admit(target, op, Some(&old), &mut new, options)?;
        if new == old {
            return Ok(old_object);
        }
        if has_generation(&target.resource)
            && without_bookkeeping(&new) != without_bookkeeping(&old)
        {
            let generation = old
                .pointer("/metadata/generation")
                .and_then(Value::as_i64)
                .unwrap_or(1);
            new["metadata"]["generation"] = json!(generation + 1);
        }
        let finalized = new["metadata"].get("deletionTimestamp").is_some()
            && new["metadata"]["finalizers"]
                .as_array()
                .is_none_or(Vec::is_empty)
            && old["metadata"]["finalizers"]
                .as_array()
                .is_some_and(|f| !f.is_empty());
        if finalized {
            return self.remove(target, &old_object, new, options);
        }
        self.store(target, Verb::Modified, Some(&old_object), new, options)
    }

    /// Patches an object. Server-side apply creates it when it is missing; the answer says whether it did.
    pub(crate) fn patch(
        &mut self,
        target: &Target,
        kind: PatchKind,
        patch: &Value,
        options: &WriteOptions,
    ) -> Result<(Arc<Object>, bool), StatusError> {
        let types = kind_of(target);
        if kind != PatchKind::Apply {
            if kind == PatchKind::Strategic && !self.built_in(&target.resource) {
                let accepted = [
                    "application/json-patch+json",
                    "application/merge-patch+json",
                    "application/apply-patch+yaml",
                ];
                return Err(StatusError::unsupported_media_type(
                    "application/strategic-merge-patch+json",
                    &accepted,
                ));
            }
            let object = self.update(
                target,
                |old| patch::patched(kind, &types, old.clone(), patch),
                options,
            )?;
            return Ok((object, false));
        }
        if options.manager.is_empty() {
            return Err(StatusError::bad_request(
                "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: is required for apply patch",
            ));
        }
        let mut config = patch.clone();
        Self::identify(target, &mut config)?;
        let now = timestamp(jiff::Timestamp::now());
        let api_version = target.resource.api_version();
        let applier = Applier {
            manager: &options.manager,
            force: options.force,
            subresource: if target.status { "status" } else { "" },
            api_version: &api_version,
            now: &now,
        };
        if self
            .state
            .object(&target.resource, &target.namespace, &target.name)
            .is_some()
        {
            let apply = |old: &Value| {
                let mut applied = server_side_apply::apply(&types, &applier, old, &config)?;
                // The configuration's own version, if it has one, is a precondition; else there is none.
                let version = config["metadata"]
                    .get("resourceVersion")
                    .cloned()
                    .unwrap_or(Value::Null);
                applied["metadata"]["resourceVersion"] = version;
                Ok(applied)
            };
            return Ok((self.update(target, apply, options)?, false));
        }
        if target.status {
            return Err(Self::not_found(target));
        }
        let new = server_side_apply::apply(&types, &applier, &Value::Null, &config)?;
        Ok((self.create(target, new, options)?, true))
    }

    fn built_in(&self, resource: &ResourceType) -> bool {
        crate::registry::built_in()
            .iter()
            .any(|b| b.group == resource.group && b.plural == resource.plural)
    }

    /// Deletes an object, or marks it when finalizers or a Pod's grace period keep it.
    pub(crate) fn delete(
        &mut self,
        target: &Target,
        options: &DeleteOptions,
    ) -> Result<Deleted, StatusError> {
        let object = self
            .state
            .object(&target.resource, &target.namespace, &target.name)
            .ok_or_else(|| Self::not_found(target))?;
        let mut value = object.value();
        if let Some(uid) = &options.uid
            && uid != text(&value, "/metadata/uid")
        {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                text(&value, "/metadata/uid")
            );
            return Err(Self::conflict(target, &why));
        }
        if let Some(version) = &options.resource_version
            && *version != object.version.to_string()
        {
            let why = format!(
                "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
                object.version
            );
            return Err(Self::conflict(target, &why));
        }
        let write = WriteOptions {
            dry_run: options.dry_run,
            ..WriteOptions::default()
        };
        let finalizers = value["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|f| !f.is_empty());
        let is_pod = target.resource.group.is_empty() && target.resource.kind == "Pod";
        let grace = options.grace_period_seconds.filter(|_| is_pod).unwrap_or(0);
        if !finalizers && grace == 0 {
            return Ok(Deleted::Gone(self.remove(target, &object, value, &write)?));
        }
        let marked = value["metadata"].get("deletionTimestamp").is_some();
        let known = value["metadata"]["deletionGracePeriodSeconds"]
            .as_u64()
            .unwrap_or(u64::MAX);
        if marked && known <= grace {
            return Ok(Deleted::Pending(object));
        }
        let ends = jiff::Timestamp::now()
            + jiff::SignedDuration::from_secs(grace.min(i64::MAX as u64 / 2) as i64);
        value["metadata"]["deletionTimestamp"] = json!(timestamp(ends));
        value["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        Ok(Deleted::Pending(self.store(
            target,
            Verb::Modified,
            Some(&object),
            value,
            &write,
        )?))
    }

    /// Takes an object out of the store. `last` is its last state.
    pub(super) fn remove(
        &mut self,
        target: &Target,
        object: &Arc<Object>,
        last: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, StatusError> {
        if !options.dry_run {
            if target.resource.group.is_empty() && target.resource.kind == "Namespace" {
                self.empty_namespace(&target.name)?;
            }
            let mut context = AdmitContext {
                allocators: &mut self.state.allocators,
                now: jiff::Timestamp::now(),
            };
            released(&mut context, &last);
        }
        self.store(target, Verb::Deleted, Some(object), last, options)
    }
}
