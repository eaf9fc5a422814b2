//! The server as its owner in the same process sees it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use futures::future::BoxFuture;
use http::{Request, Response};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use crate::clients::{ClientStats, Clients, NotWatching};
use crate::config::Config;
use crate::connections::{Connection, Connections, lock};
use crate::error::{Error, StatusError};
use crate::faults::{BUMP, Faults, Past};
use crate::history::HistoryEntry;
use crate::registry::{Registry, built_in};
use crate::serve::{Service, Serving};
use crate::store::{State, Verb};
use crate::tls::Tls;
use crate::types::ServiceAllocators;
use crate::write::{DeleteOptions, Deleted, PatchKind, Target, WriteOptions, Writer};

/// An embedded Kubernetes API. Cheap to clone: all clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) faults: Faults,
    pub(crate) tls: Tls,
    /// Users by bearer token.
    pub(crate) tokens: Mutex<HashMap<String, String>>,
}

/// The store's past.
struct Stored {
    state: Arc<Mutex<State>>,
    clients: Arc<Clients>,
}

impl Past for Stored {
    fn compact(&self) -> usize {
        lock(&self.state).compact();
        self.clients.open_watches()
    }

    fn restore(&self) {
        let mut state = lock(&self.state);
        state.version += BUMP;
        state.compact();
    }
}

impl Service for Inner {
    fn faults(&self) -> &Faults {
        &self.faults
    }

    fn connections(&self) -> &Connections {
        &self.connections
    }

    fn acceptor(&self) -> &TlsAcceptor {
        &self.tls.acceptor
    }

    fn answer(
        self: Arc<Self>,
        connection: Arc<Connection>,
        request: Request<Body>,
    ) -> BoxFuture<'static, Response<Body>> {
        Box::pin(crate::http::handle(self, connection, request))
    }
}

/// Which object is meant: what a manifest says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// Such as `v1` or `discovery.k8s.io/v1`.
    pub api_version: String,
    /// Such as `Service`.
    pub kind: String,
    /// The namespace; ignored for cluster-wide kinds, `default` when empty.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectRef {
    /// Names an object. The namespace of a cluster-wide object may be empty.
    pub fn new(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        let own = str::to_owned;
        ObjectRef {
            api_version: own(api_version),
            kind: own(kind),
            namespace: own(namespace),
            name: own(name),
        }
    }

    /// The object that this manifest describes.
    pub fn of(object: &Value) -> Self {
        let text = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        Self::new(
            text("/apiVersion"),
            text("/kind"),
            text("/metadata/namespace"),
            text("/metadata/name"),
        )
    }
}

impl ApiServer {
    /// Makes a server with its default objects: the namespaces every cluster has, and the ServiceCIDR `kubernetes`.
    ///
    /// # Errors
    /// When certificates cannot be made or the configuration describes impossible default objects.
    pub fn new(config: Config) -> Result<ApiServer, Error> {
        let resources = built_in()
            .into_iter()
            .chain(config.extra_resources.iter().cloned());
        let allocators =
            ServiceAllocators::new(&config.service_cidrs, config.node_port_range.clone());
        let state = Arc::new(Mutex::new(State::new(
            Registry::new(resources),
            allocators,
            config.watch_window,
        )));
        let connections = Arc::new(Connections::default());
        let clients = Arc::new(Clients::new());
        let stored = Stored {
            state: state.clone(),
            clients: clients.clone(),
        };
        let faults = Faults::new(Arc::new(stored), connections.clone());
        let tls = Tls::new(&config)?;
        let inner = Inner {
            config,
            state,
            connections,
            clients,
            faults,
            tls,
            tokens: Mutex::default(),
        };
        let server = ApiServer {
            inner: Arc::new(inner),
        };
        server.create_defaults().map_err(Error::Defaults)?;
        Ok(server)
    }

    fn create_defaults(&self) -> Result<(), StatusError> {
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            self.create(
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            )?;
        }
        let cidrs: Vec<String> = self
            .inner
            .config
            .service_cidrs
            .iter()
            .map(ToString::to_string)
            .collect();
        if !cidrs.is_empty() {
            self.create(json!({
                "apiVersion": "networking.k8s.io/v1",
                "kind": "ServiceCIDR",
                "metadata": {"name": "kubernetes"},
                "spec": {"cidrs": cidrs},
            }))?;
        }
        Ok(())
    }

    /// Serves on a listening TCP socket, with TLS, until the result is stopped or dropped. Several listeners may serve at once.
    ///
    /// # Errors
    /// Outside of a tokio runtime, or when the socket is not a listening one.
    pub fn serve(&self, listener: std::net::TcpListener) -> Result<Serving, Error> {
        crate::serve::serve(self.inner.clone(), listener)
    }

    /// The certificate authority's certificate, for clients to trust.
    pub fn ca_pem(&self) -> &str {
        &self.inner.tls.ca_pem
    }

    /// The bearer token of a user, the same for every call.
    pub fn token(&self, user: &str) -> String {
        let mut tokens = lock(&self.inner.tokens);
        if let Some((token, _)) = tokens.iter().find(|(_, u)| *u == user) {
            return token.clone();
        }
        let token = uuid::Uuid::new_v4().simple().to_string();
        tokens.insert(token.clone(), user.to_owned());
        token
    }

    /// A complete kubeconfig for a user, as JSON (which is YAML): the server's URL, its authority and the user's token.
    pub fn kubeconfig(&self, user: &str, server: SocketAddr) -> String {
        let ca = base64::engine::general_purpose::STANDARD.encode(self.ca_pem());
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "embedded",
                "cluster": {"server": format!("https://{server}"), "certificate-authority-data": ca},
            }],
            "users": [{"name": user, "user": {"token": self.token(user)}}],
            "contexts": [{"name": "embedded", "context": {"cluster": "embedded", "user": user, "namespace": "default"}}],
            "current-context": "embedded",
        });
        format!("{config:#}\n")
    }

    /// Runs one write with the store locked, and wakes the watchers afterwards.
    pub(crate) fn write<T>(
        &self,
        write: impl FnOnce(&mut Writer<'_>) -> Result<T, StatusError>,
    ) -> Result<T, StatusError> {
        let mut state = lock(&self.inner.state);
        let result = write(&mut Writer {
            state: &mut state,
            config: &self.inner.config,
            controllers: true,
        });
        state.wake();
        result
    }

    fn target(&self, object: &ObjectRef, status: bool) -> Result<Target, StatusError> {
        let registry = lock(&self.inner.state).registry.clone();
        let resource = registry
            .kind(&object.api_version, &object.kind)
            .ok_or_else(|| {
                let (kind, version) = (&object.kind, &object.api_version);
                StatusError::new(
                    404,
                    "NotFound",
                    format!("no matches for kind {kind:?} in version {version:?}"),
                )
            })?;
        let namespace = match (resource.namespaced, object.namespace.as_str()) {
            (false, _) => String::new(),
            (true, "") => "default".to_owned(),
            (true, namespace) => namespace.to_owned(),
        };
        Ok(Target {
            resource,
            namespace,
            name: object.name.clone(),
            status,
        })
    }

    /// Creates the object or brings it to the state given, status included, whatever its current version: what a scenario means by "apply".
    ///
    /// Fields that the server hands out and the object leaves out (ClusterIP, NodePorts, uid ...) stay as they are. Like any client, it writes the
    /// status in a second request, so watchers may see two events. Returns the object as stored.
    ///
    /// # Errors
    /// The `Status` the same writes would get over HTTP.
    pub fn apply(&self, mut object: Value) -> Result<Value, StatusError> {
        let target = self.target(&ObjectRef::of(&object), false)?;
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in [
                "resourceVersion",
                "uid",
                "creationTimestamp",
                "generation",
                "managedFields",
            ] {
                metadata.shift_remove(field);
            }
        }
        let options = WriteOptions {
            manager: "harness".to_owned(),
            ..WriteOptions::default()
        };
        self.write(|writer| {
            let known = writer
                .state
                .object(&target.resource, &target.namespace, &target.name)
                .is_some();
            let status = object.get("status").filter(|s| !s.is_null()).cloned();
            let stored = if known && !target.name.is_empty() {
                writer.update(&target, |_| Ok(object), &options)?
            } else {
                writer.create(&target, object, &options)?
            };
            let Some(status) = status.filter(|_| target.resource.has_status) else {
                return Ok(stored.value());
            };
            let target = Target {
                name: stored.name.to_string(),
                status: true,
                ..target.clone()
            };
            let with_status = |old: &Value| {
                let mut new = old.clone();
                new["status"] = status;
                Ok(new)
            };
            Ok(writer.update(&target, with_status, &options)?.value())
        })
    }

    /// Creates an object, which must not exist. A status it carries is ignored, as it is over HTTP.
    ///
    /// # Errors
    /// 404 for an unknown kind or namespace, 409 when it exists, 422 when it is invalid.
    pub fn create(&self, object: Value) -> Result<Value, StatusError> {
        let target = self.target(&ObjectRef::of(&object), false)?;
        self.write(|writer| {
            Ok(writer
                .create(&target, object, &WriteOptions::default())?
                .value())
        })
    }

    /// Replaces an object. A resourceVersion in it must be the current one; without one the write is unconditional.
    ///
    /// # Errors
    /// 404 when it does not exist, 409 when it changed meanwhile, 422 when it is invalid.
    pub fn update(&self, object: Value) -> Result<Value, StatusError> {
        let target = self.target(&ObjectRef::of(&object), false)?;
        self.write(|writer| {
            Ok(writer
                .update(&target, |_| Ok(object), &WriteOptions::default())?
                .value())
        })
    }

    /// Replaces the status (and metadata) of an object.
    ///
    /// # Errors
    /// As [`ApiServer::update`].
    pub fn update_status(&self, object: Value) -> Result<Value, StatusError> {
        let target = self.target(&ObjectRef::of(&object), true)?;
        self.write(|writer| {
            Ok(writer
                .update(&target, |_| Ok(object), &WriteOptions::default())?
                .value())
        })
    }

    /// Patches an object; [`PatchKind::Apply`] creates it when it is missing, as manager `harness`, by force.
    ///
    /// # Errors
    /// 400 for a patch that cannot be read, else as [`ApiServer::update`].
    pub fn patch(
        &self,
        object: &ObjectRef,
        kind: PatchKind,
        patch: &Value,
    ) -> Result<Value, StatusError> {
        self.patch_target(&self.target(object, false)?, kind, patch)
    }

    /// Patches the status subresource of an object.
    ///
    /// # Errors
    /// As [`ApiServer::patch`].
    pub fn patch_status(
        &self,
        object: &ObjectRef,
        kind: PatchKind,
        patch: &Value,
    ) -> Result<Value, StatusError> {
        self.patch_target(&self.target(object, true)?, kind, patch)
    }

    fn patch_target(
        &self,
        target: &Target,
        kind: PatchKind,
        patch: &Value,
    ) -> Result<Value, StatusError> {
        let options = WriteOptions {
            manager: "harness".to_owned(),
            force: true,
            dry_run: false,
        };
        self.write(|writer| Ok(writer.patch(target, kind, patch, &options)?.0.value()))
    }

    /// Deletes an object at once (finalizers permitting). Returns its last state.
    ///
    /// # Errors
    /// 404 when it does not exist.
    pub fn delete(&self, object: &ObjectRef) -> Result<Value, StatusError> {
        self.delete_with(object, &DeleteOptions::default())
    }

    /// Deletes an object under conditions, or marks a Pod as terminating. Returns its last, or its marked, state.
    ///
    /// # Errors
    /// 404 when it does not exist, 409 when a precondition does not hold.
    pub fn delete_with(
        &self,
        object: &ObjectRef,
        options: &DeleteOptions,
    ) -> Result<Value, StatusError> {
        let target = self.target(object, false)?;
        self.write(|writer| {
            Ok(match writer.delete(&target, options)? {
                Deleted::Gone(object) | Deleted::Pending(object) => object.value(),
            })
        })
    }

    /// Stores a copy of an object that lives in another cluster: nothing is checked, handed out or derived from it, and only its
    /// resourceVersion becomes one of this server's. One that is there already in just this state is left alone.
    ///
    /// # Errors
    /// 404 for an unknown kind.
    pub fn mirror(&self, mut object: Value) -> Result<(), StatusError> {
        let target = self.target(&ObjectRef::of(&object), false)?;
        let mut state = lock(&self.inner.state);
        let known = state.object(&target.resource, &target.namespace, &target.name);
        if let Some(known) = &known {
            let known = known.value();
            object["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"].clone();
            if object == known {
                return Ok(());
            }
        }
        let verb = if known.is_some() {
            Verb::Modified
        } else {
            Verb::Added
        };
        state.commit(&target.resource, verb, &mut object);
        state.wake();
        Ok(())
    }

    /// Forgets the copy of an object that is gone; one that is not there is fine.
    ///
    /// # Errors
    /// 404 for an unknown kind.
    pub fn unmirror(&self, object: &ObjectRef) -> Result<(), StatusError> {
        let target = self.target(object, false)?;
        let mut state = lock(&self.inner.state);
        if let Some(known) = state.object(&target.resource, &target.namespace, &target.name) {
            state.commit(&target.resource, Verb::Deleted, &mut known.value());
            state.wake();
        }
        Ok(())
    }

    /// Reads an object.
    ///
    /// # Errors
    /// 404 when it, or its kind, does not exist.
    pub fn get(&self, object: &ObjectRef) -> Result<Value, StatusError> {
        let target = self.target(object, false)?;
        let found =
            lock(&self.inner.state).object(&target.resource, &target.namespace, &target.name);
        let (group, plural) = (&target.resource.group, &target.resource.plural);
        Ok(found
            .ok_or_else(|| StatusError::not_found(group, plural, &target.name))?
            .value())
    }

    /// All objects of a kind, in one namespace or in all, in the order of their names.
    ///
    /// # Errors
    /// 404 when the kind is not served.
    pub fn list(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
    ) -> Result<Vec<Value>, StatusError> {
        let target = self.target(&ObjectRef::new(api_version, kind, "", ""), false)?;
        let objects = lock(&self.inner.state).objects(&target.resource, namespace);
        Ok(objects.iter().map(|o| o.value()).collect())
    }

    /// The resourceVersion of the newest write.
    pub fn resource_version(&self) -> u64 {
        lock(&self.inner.state).version
    }

    /// Every write that changed something since the server was made, oldest first.
    pub fn history(&self) -> Vec<HistoryEntry> {
        self.history_since(0)
    }

    /// The writes after this resourceVersion, oldest first.
    pub fn history_since(&self, resource_version: u64) -> Vec<HistoryEntry> {
        let state = lock(&self.inner.state);
        let from = state
            .history
            .partition_point(|r| r.event.version <= resource_version);
        state.history[from..].iter().map(|r| r.entry()).collect()
    }

    /// What each user's clients have done so far.
    pub fn clients(&self) -> Vec<ClientStats> {
        self.inner.clients.all()
    }

    /// Waits until each of these kinds (any name: `Service`, `services`) has a running watch of this user that has been handed everything that is
    /// stored at the time of the call. Returns how long that took.
    ///
    /// # Errors
    /// When that has not happened after `timeout`.
    pub async fn wait_until_watching(
        &self,
        user: &str,
        kinds: &[&str],
        timeout: Duration,
    ) -> Result<Duration, NotWatching> {
        self.inner
            .clients
            .wait_until_watching(&self.inner.state, user, kinds, timeout)
            .await
    }

    /// Rewrites `n` objects of a kind (any name of it: `Service`, `services`, `svc`) unchanged, one after the other and round again: watchers see
    /// `MODIFIED` events in which only the resourceVersion differs. Returns how many were written: 0 when there is no such object.
    pub fn noop_updates(&self, kind: &str, n: usize) -> usize {
        let mut state = lock(&self.inner.state);
        let resources = state.registry.named(kind);
        let objects: Vec<_> = resources
            .iter()
            .flat_map(|r| {
                state
                    .objects(r, None)
                    .into_iter()
                    .map(|o| (r.clone(), o.namespace.clone(), o.name.clone()))
            })
            .collect();
        let mut written = 0;
        for (resource, namespace, name) in
            objects
                .iter()
                .cycle()
                .take(if objects.is_empty() { 0 } else { n })
        {
            if let Some(object) = state.object(resource, namespace, name) {
                state.commit(resource, Verb::Modified, &mut object.value());
                written += 1;
            }
        }
        state.wake();
        drop(state);
        self.inner
            .faults
            .count(|r| r.noop_updates += written as u64);
        written
    }

    /// The switches for faults.
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }
}
