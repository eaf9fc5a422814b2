//! The two kinds of error: the server could not be set up, and a request was answered with a Kubernetes `Status`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::types::Cause;

/// Why the server could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificate authority or the server's certificate could not be made.
    #[error("failed to make the server's certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS configuration was refused.
    #[error("failed to set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A certificate or a key of a gateway could not be read.
    #[error("failed to read the gateway's {0}: {1}")]
    Pem(&'static str, #[source] rustls::pki_types::pem::Error),
    /// The API server behind a gateway cannot be asked.
    #[error("failed to set up the client of the API server: {0}")]
    Upstream(String),
    /// The listening socket could not be used.
    #[error("failed to listen: {0}")]
    Listen(#[from] std::io::Error),
    /// There is no tokio runtime to serve from.
    #[error("failed to find a tokio runtime to serve from: {0}")]
    Runtime(#[from] tokio::runtime::TryCurrentError),
    /// The objects every cluster has (namespaces, ServiceCIDR) could not be made.
    #[error("failed to create the cluster's default objects: {0}")]
    Defaults(#[source] StatusError),
}

/// One cause of a refused request, as in `Status.details.causes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusCause {
    /// A machine-readable reason, such as `FieldValueInvalid`.
    pub reason: String,
    /// What is wrong, for a person.
    pub message: String,
    /// The field that is wrong, such as `spec.ports[0].nodePort`.
    pub field: String,
}

/// A request that failed: the fields of a Kubernetes `Status` object
/// (`meta.k8s.io/v1`, <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/>).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({code}): {message}")]
pub struct StatusError {
    /// The HTTP status code.
    pub code: u16,
    /// The machine-readable reason, such as `NotFound`.
    pub reason: String,
    /// What went wrong, for a person.
    pub message: String,
    /// What it is about. Boxed, so that results stay small.
    pub details: Box<StatusDetails>,
}

/// What a refused request was about: `Status.details`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusDetails {
    /// The API group of the object concerned.
    pub group: String,
    /// The kind (or plural resource) of the object concerned.
    pub kind: String,
    /// The name of the object concerned.
    pub name: String,
    /// Which fields are wrong and why.
    pub causes: Vec<StatusCause>,
    /// When the client should try again, in seconds.
    pub retry_after_seconds: Option<u32>,
}

impl StatusError {
    /// A failure with this code, reason and message, about no object in particular.
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        StatusError {
            code,
            reason: reason.to_owned(),
            message: message.into(),
            details: Box::default(),
        }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        self.details.group = group.to_owned();
        self.details.kind = kind.to_owned();
        self.details.name = name.to_owned();
        self
    }

    /// 404: no object of this name.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let what = qualified(resource, group);
        Self::new(404, "NotFound", format!("{what} \"{name}\" not found"))
            .about(group, resource, name)
    }

    /// 404: no such path or resource type.
    pub fn no_such_resource() -> Self {
        Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    }

    /// 409: an object of this name exists.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let what = qualified(resource, group);
        Self::new(
            409,
            "AlreadyExists",
            format!("{what} \"{name}\" already exists"),
        )
        .about(group, resource, name)
    }

    /// 409: the write was based on another version of the object.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = qualified(resource, group);
        Self::new(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {what} \"{name}\": {why}"),
        )
        .about(group, resource, name)
    }

    /// 422: the object breaks the rules of its kind.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<StatusCause>) -> Self {
        let listed: Vec<String> = causes
            .iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect();
        let text = match listed.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let what = qualified(kind, group);
        let mut error = Self::new(
            422,
            "Invalid",
            format!("{what} \"{name}\" is invalid: {text}"),
        )
        .about(group, kind, name);
        error.details.causes = causes;
        error
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 410: the resourceVersion asked for is no longer known.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 405: the resource does not know this verb.
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 415: the body's media type is not accepted.
    pub fn unsupported_media_type(given: &str, accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format ({given}) - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// The `Status` object.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        });
        let mut details = Map::new();
        let fields = [
            ("name", &self.details.name),
            ("group", &self.details.group),
            ("kind", &self.details.kind),
        ];
        for (key, value) in fields {
            if !value.is_empty() {
                details.insert(key.to_owned(), json!(value));
            }
        }
        if !self.details.causes.is_empty() {
            details.insert("causes".to_owned(), json!(self.details.causes));
        }
        if let Some(seconds) = self.details.retry_after_seconds {
            details.insert("retryAfterSeconds".to_owned(), json!(seconds));
        }
        if !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        status["code"] = json!(self.code);
        status
    }
}

/// `services` or `endpointslices.discovery.k8s.io`, as Kubernetes names them in messages.
fn qualified(resource: &str, group: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

impl From<Cause> for StatusCause {
    fn from(cause: Cause) -> Self {
        StatusCause {
            reason: cause.reason.to_string(),
            message: cause.message.to_string(),
            field: cause.field.to_string(),
        }
    }
}
