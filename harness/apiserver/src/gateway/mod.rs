//! A gateway between clients and a real API server, that breaks as [`Faults`] say.
//!
//! ```text
//!   candidate ──TLS──> Gateway ──TLS──> API server
//!                        │
//!                        ├── accept, hold, reset, delay, fail          the same code as in front of the embedded store
//!                        ├── lists: another order, late                read, changed, written anew
//!                        ├── watches: late, twice, 410                 line by line
//!                        └── resourceVersions: forgotten, far ahead    what the API server has, as seen from here
//! ```
//!
//! Clients keep their own bearer tokens, so the API server still knows who asks; client certificates end here and mean nothing behind it. Everything
//! is asked for in JSON, since what is to be changed has to be read. What upgrades its connection (exec, attach, port-forward) is refused: no service
//! proxy needs it.

mod forward;
mod versions;
mod watch;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use kube::Client;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::TlsAcceptor;

use crate::connections::{Connection, Connections};
use crate::error::{Error, StatusError};
use crate::faults::Faults;
use crate::http::{Path, Query, ResourcePath, status, suffer};
use crate::registry::{Registry, ResourceType, built_in};
use crate::serve::{Service, Serving};
use crate::tls::acceptor;
use versions::Versions;

/// The user that all clients of a gateway are to its faults: whoever is not meant does not go through it.
const EVERYBODY: &str = "";

/// Where a gateway leads, and as what it shows itself.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// URL of the API server.
    pub upstream: String,
    /// A name that is in the API server's certificate.
    pub server_name: String,
    /// Certificates that the API server is trusted by, PEM.
    pub ca_pem: String,
    /// The certificate that clients get to see, PEM, with those that it is signed by.
    pub certificate_pem: String,
    /// Its key, PEM.
    pub key_pem: String,
}

/// A gateway; all clones are the same.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    upstream: Client,
    registry: Registry,
    connections: Arc<Connections>,
    versions: Arc<Versions>,
    faults: Faults,
    acceptor: TlsAcceptor,
}

impl Gateway {
    /// Makes a gateway. Nothing is asked of the API server before a client does.
    ///
    /// # Errors
    /// When the URL, a certificate or the key cannot be read; outside of a tokio runtime.
    pub fn new(config: &GatewayConfig) -> Result<Self, Error> {
        tokio::runtime::Handle::try_current()?;
        let certificates = |pem: &str| -> Result<Vec<CertificateDer<'static>>, Error> {
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            all.map_err(|error| Error::Pem("certificate", error))
        };
        let key = PrivateKeyDer::from_pem_slice(config.key_pem.as_bytes())
            .map_err(|error| Error::Pem("key", error))?;
        let upstream = config.upstream.parse();
        let mut client = kube::Config::new(
            upstream.map_err(|error| Error::Upstream(format!("{}: {error}", config.upstream)))?,
        );
        let trusted = certificates(&config.ca_pem)?;
        client.root_cert = Some(trusted.iter().map(|one| one.to_vec()).collect());
        client.tls_server_name = Some(config.server_name.clone());
        // A watch may be silent for half an hour, and an error is the client's to see.
        client.read_timeout = None;
        client.default_retry = false;
        let upstream =
            Client::try_from(client).map_err(|error| Error::Upstream(error.to_string()))?;
        let connections = Arc::new(Connections::default());
        let versions = Arc::new(Versions::new(connections.clone()));
        Ok(Self {
            inner: Arc::new(Inner {
                upstream,
                registry: Registry::new(built_in()),
                faults: Faults::new(versions.clone(), connections.clone()),
                connections,
                versions,
                acceptor: acceptor(certificates(&config.certificate_pem)?, key)?,
            }),
        })
    }

    /// Serves on a listening TCP socket until the result is closed or dropped.
    ///
    /// # Errors
    /// Outside of a tokio runtime, or when the socket is not a listening one.
    pub fn serve(&self, listener: std::net::TcpListener) -> Result<Serving, Error> {
        crate::serve::serve(self.inner.clone(), listener)
    }

    /// The switches for faults.
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// How many watches clients have on connections that are neither reset nor silent, by their addresses.
    pub fn watches(&self) -> BTreeMap<IpAddr, usize> {
        self.inner.connections.watches()
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
        &self.acceptor
    }

    fn answer(
        self: Arc<Self>,
        connection: Arc<Connection>,
        request: Request<Body>,
    ) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move {
            let answer = self.handle(&connection, request).await;
            answer.unwrap_or_else(|error| {
                if error.code == 410 {
                    self.faults.count(|r| r.expired_requests += 1);
                }
                status(&error)
            })
        })
    }
}

impl Inner {
    async fn handle(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        request: Request<Body>,
    ) -> Result<Response<Body>, StatusError> {
        let path = Path::parse(request.uri().path());
        // Who asks for these asks about the API server, not as its client; the embedded one does the same.
        if matches!(path, Path::Health | Path::Version) {
            return self.forward(request).await;
        }
        connection.belongs_to(EVERYBODY);
        if let Some(injected) = suffer(&self.faults, connection, EVERYBODY).await {
            return Ok(injected);
        }
        let query = Query::of(request.uri())?;
        match path {
            Path::Resource(path) if request.method() == Method::GET => {
                let watches = path.watch || query.flag("watch");
                if watches {
                    self.watch(connection, &path, &query, request).await
                } else if path.name.is_none() {
                    self.list(&path, &query, request).await
                } else {
                    self.object(self.versions.asked(request, &query)?).await
                }
            }
            Path::Resource(_) => self.object(request).await,
            _ => self.forward(request).await,
        }
    }

    /// Passes on what is about one object, or a write.
    async fn object(&self, request: Request<Body>) -> Result<Response<Body>, StatusError> {
        let response = self.forward(request).await?;
        if !self.versions.differ() {
            return Ok(response);
        }
        let (head, body) = forward::read(response).await?;
        Ok(match serde_json::from_slice(&body) {
            Ok(mut object) => {
                self.versions.told(&mut object);
                forward::written(head, &object)
            }
            // A log, say.
            Err(_) => Response::from_parts(head, body.into()),
        })
    }

    /// What is known of a resource; nothing of those that somebody defined.
    fn resource(&self, path: &ResourcePath) -> Option<Arc<ResourceType>> {
        self.registry.path(&path.group, &path.version, &path.plural)
    }

    /// Passes a list on, in another order or later if faults say so.
    async fn list(
        &self,
        path: &ResourcePath,
        query: &Query,
        request: Request<Body>,
    ) -> Result<Response<Body>, StatusError> {
        self.versions.listed(query)?;
        let resource = self.resource(path);
        let late = resource
            .as_ref()
            .and_then(|resource| self.faults.late_of(EVERYBODY, resource));
        tokio::time::sleep(late.unwrap_or_default()).await;
        let response = self.forward(self.versions.asked(request, query)?).await?;
        let (head, body) = forward::read(response).await?;
        let mut list: serde_json::Value = serde_json::from_slice(&body)
            .map_err(|error| forward::unreachable(&format!("a list that is not JSON: {error}")))?;
        if head.status.is_success() {
            self.versions.told(&mut list);
            let items = list["items"].as_array_mut();
            if let (Some(items), Some(resource)) = (items, &resource) {
                self.faults.shuffle(EVERYBODY, resource, items);
                if late.is_some() {
                    self.faults.count(|r| r.late_objects += items.len() as u64);
                }
            }
        }
        Ok(forward::written(head, &list))
    }
}
