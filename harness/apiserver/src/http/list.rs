//! Lists: which resourceVersion they are at, and how they continue.
//!
//! Rules: <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::query::Query;
use super::requests::Asked;
use super::view::View;
use crate::connections::lock;
use crate::error::{StatusCause, StatusError};
use crate::registry::ResourceType;
use crate::store::object_key;

/// What a `continue` token says: the list's resourceVersion and the last key that was sent.
#[derive(Serialize, Deserialize)]
struct Continue {
    version: u64,
    after: String,
}

fn decode(token: &str) -> Result<Continue, StatusError> {
    let bad = || StatusError::bad_request("continue key is not valid");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    serde_json::from_slice(&bytes).map_err(|_| bad())
}

/// 504, as the API server answers when its own cache has not seen that version yet.
pub(super) fn too_large(wanted: u64, now: u64) -> StatusError {
    let mut error = StatusError::new(
        504,
        "Timeout",
        format!("Too large resource version: {wanted}, current: {now}"),
    );
    error.details.causes.push(StatusCause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: String::new(),
    });
    error.details.retry_after_seconds = Some(1);
    error
}

fn forbidden(field: &str, why: &str) -> StatusError {
    let cause = StatusCause {
        reason: "FieldValueForbidden".to_owned(),
        message: format!("Forbidden: {why}"),
        field: field.to_owned(),
    };
    StatusError::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
}

/// The exact version a list must be at, or none for the present one.
fn exact_version(query: &Query, limit: Option<u64>, now: u64) -> Result<Option<u64>, StatusError> {
    let version = query.resource_version()?;
    if let Some(wanted) = version
        && wanted > now
    {
        return Err(too_large(wanted, now));
    }
    match (query.text("resourceVersionMatch"), version) {
        ("", Some(v)) if v > 0 && limit.is_some() => Ok(Some(v)),
        ("" | "NotOlderThan", Some(_)) | ("", None) => Ok(None),
        ("Exact", Some(0)) => Err(forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        )),
        ("Exact", Some(v)) => Ok(Some(v)),
        (_, None) => Err(forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        (other, _) => Err(StatusError::bad_request(format!(
            "unknown resourceVersionMatch {other:?}"
        ))),
    }
}

/// The body of a list.
pub(super) fn answer(
    asked: &Asked,
    resource: &ResourceType,
    namespace: Option<&str>,
) -> Result<Bytes, StatusError> {
    let (query, inner) = (&asked.query, &asked.server.inner);
    let selector = query.selector()?;
    let limit = query.number("limit")?.filter(|&l| l > 0);
    let token = query.text("continue");
    let snapshot = {
        let mut state = lock(&inner.state);
        if token.is_empty() {
            let version = exact_version(query, limit, state.version)?;
            state.snapshot(resource, namespace, version, None)?
        } else {
            let token = decode(token)?;
            state.snapshot(resource, namespace, Some(token.version), Some(&token.after))?
        }
    };
    let mut objects = snapshot.objects;
    if !selector.is_everything() {
        objects.retain(|o| selector.matches(o));
    }
    let mut metadata = json!({"resourceVersion": snapshot.version.to_string()});
    if let Some(limit) = limit
        && objects.len() as u64 > limit
    {
        let remaining = objects.len() as u64 - limit;
        objects.truncate(limit as usize);
        if let Some(last) = objects.last() {
            let token = Continue {
                version: snapshot.version,
                after: object_key(&last.namespace, &last.name),
            };
            metadata["continue"] = json!(URL_SAFE_NO_PAD.encode(json!(token).to_string()));
        }
        if selector.is_everything() {
            metadata["remainingItemCount"] = json!(remaining);
        }
    }
    inner.faults.shuffle(&asked.user, resource, &mut objects);
    if inner.faults.late_of(&asked.user, resource).is_some() {
        inner
            .faults
            .count(|r| r.late_objects += objects.len() as u64);
    }
    inner
        .clients
        .listed(&asked.user, resource, snapshot.version);
    let view = View {
        form: asked.form,
        resource,
        include: query.text("includeObject"),
    };
    Ok(view.many(objects.iter().map(|o| &**o), &metadata))
}
