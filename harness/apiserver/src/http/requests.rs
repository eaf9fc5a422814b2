//! One request from its token to its response.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};

use super::path::{Path, ResourcePath};
use super::query::{Form, Query, accepted_form};
use super::view::View;
use super::{discovery, list, openapi, reviews, watch};
use crate::api::{ApiServer, Inner};
use crate::connections::{Connection, lock};
use crate::error::StatusError;
use crate::faults::Faults;
use crate::registry::ResourceType;
use crate::write::{DeleteOptions, Deleted, PatchKind, Target};

/// The largest body accepted, as in Kubernetes: 3 MiB.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// Everything a handler needs to know about a request.
pub(super) struct Asked {
    pub(super) server: ApiServer,
    pub(super) connection: Arc<Connection>,
    pub(super) user: String,
    pub(super) agent: String,
    pub(super) query: Query,
    pub(super) form: Form,
}

/// Answers a request. Never fails: errors become `Status` objects.
pub(crate) async fn handle(
    inner: Arc<Inner>,
    connection: Arc<Connection>,
    request: Request<Body>,
) -> Response<Body> {
    let path = Path::parse(request.uri().path());
    // Health and version are open to everybody, as in a default cluster.
    match path {
        Path::Health => return text("ok"),
        Path::Version => {
            return json_response(
                StatusCode::OK,
                discovery::version(&inner.config.version).to_string().into(),
            );
        }
        _ => {}
    }
    let Some(user) = user_of(&inner, request.headers()) else {
        return status(&StatusError::new(401, "Unauthorized", "Unauthorized"));
    };
    let agent = request
        .headers()
        .get(header::USER_AGENT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    connection.belongs_to(&user);
    inner.clients.request(&user, &agent);
    if let Some(injected) = suffer(&inner.faults, &connection, &user).await {
        return injected;
    }
    let form = accepted_form(request.headers());
    let answer = match Query::of(request.uri()) {
        Ok(query) => {
            let server = ApiServer {
                inner: inner.clone(),
            };
            answer(
                Asked {
                    server,
                    connection,
                    user,
                    agent,
                    query,
                    form,
                },
                path,
                request,
            )
            .await
        }
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| {
        if error.code == 410 {
            inner.faults.count(|r| r.expired_requests += 1);
        }
        status(&error)
    })
}

/// What faults do to a request before anybody answers it: it gets no answer, a late one, or an error.
pub(crate) async fn suffer(
    faults: &Faults,
    connection: &Connection,
    user: &str,
) -> Option<Response<Body>> {
    if faults.holds(user) {
        if !connection.held.swap(true, Ordering::AcqRel) {
            faults.count(|r| r.held_connections += 1);
        }
        // The connection is dead by the time this answer exists; nobody reads it.
        connection.gone.cancelled().await;
        return Some(status(&injected(503)));
    }
    if let Some(delay) = faults.delay_of(user) {
        faults.count(|r| r.delayed_responses += 1);
        tokio::time::sleep(delay).await;
    }
    let code = faults.take_error(user)?;
    Some(status(&injected(code)))
}

fn user_of(inner: &Inner, headers: &HeaderMap) -> Option<String> {
    let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let token = header.strip_prefix("Bearer ")?.trim();
    lock(&inner.tokens).get(token).cloned()
}

/// The error that a fault injects, with the reason Kubernetes gives for this code.
fn injected(code: u16) -> StatusError {
    let reason = match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    };
    let mut error = StatusError::new(code, reason, "injected by the test harness");
    if matches!(code, 429 | 503) {
        error.details.retry_after_seconds = Some(1);
    }
    error
}

async fn answer(
    asked: Asked,
    path: Path,
    request: Request<Body>,
) -> Result<Response<Body>, StatusError> {
    let registry = lock(&asked.server.inner.state).registry.clone();
    let get_only = |body: Value| {
        if request.method() == Method::GET {
            Ok(value(StatusCode::OK, &body))
        } else {
            Err(StatusError::method_not_allowed())
        }
    };
    match path {
        Path::CoreVersions | Path::Groups if asked.form == Form::AggregatedDiscovery => {
            let mut response = get_only(discovery::aggregated(
                &registry,
                matches!(path, Path::CoreVersions),
            ))?;
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static(discovery::AGGREGATED),
            );
            Ok(response)
        }
        Path::CoreVersions => get_only(discovery::core_versions()),
        Path::Groups => get_only(discovery::groups(&registry)),
        Path::Group(group) => {
            get_only(discovery::group(&registry, &group).ok_or_else(StatusError::no_such_resource)?)
        }
        Path::Resources { group, version } => get_only(
            discovery::resources(&registry, &group, &version)
                .ok_or_else(StatusError::no_such_resource)?,
        ),
        Path::OpenApi(rest) => {
            get_only(openapi::document(&registry, &rest).ok_or_else(StatusError::no_such_resource)?)
        }
        Path::Resource(path) => {
            if reviews::is_review(&path) {
                // The answer is the same whatever the question, so a question in protobuf gets it as well.
                let review = match body(request).await {
                    Err(error) if error.code == 415 => json!({}),
                    read => read?,
                };
                return Ok(value(
                    StatusCode::CREATED,
                    &reviews::answer(&path, review, &asked.user)?,
                ));
            }
            let resource = registry
                .path(&path.group, &path.version, &path.plural)
                .ok_or_else(StatusError::no_such_resource)?;
            on_resource(asked, resource, path, request).await
        }
        Path::Health | Path::Version | Path::Unknown => Err(StatusError::no_such_resource()),
    }
}

async fn on_resource(
    asked: Asked,
    resource: Arc<ResourceType>,
    path: ResourcePath,
    request: Request<Body>,
) -> Result<Response<Body>, StatusError> {
    if path.namespace.is_some() && !resource.namespaced {
        return Err(StatusError::no_such_resource());
    }
    let status = match path.subresource.as_deref() {
        None => false,
        Some("status") if resource.has_status => true,
        Some(_) => return Err(StatusError::no_such_resource()),
    };
    let namespace = path.namespace.clone();
    if request.method() == Method::GET && (path.watch || asked.query.flag("watch")) {
        return watch::answer(&asked, resource, namespace, path.name.as_deref());
    }
    let Some(name) = path.name else {
        return on_collection(asked, resource, namespace, request).await;
    };
    if resource.namespaced && namespace.is_none() {
        return Err(StatusError::no_such_resource());
    }
    let target = Target {
        resource: resource.clone(),
        namespace: namespace.unwrap_or_default(),
        name,
        status,
    };
    let (query, agent) = (&asked.query, asked.agent.as_str());
    let include = query.text("includeObject").to_owned();
    let view = View {
        form: asked.form,
        resource: &resource,
        include: &include,
    };
    match *request.method() {
        Method::GET => {
            let found =
                lock(&asked.server.inner.state).object(&resource, &target.namespace, &target.name);
            let object = found.ok_or_else(|| {
                StatusError::not_found(&resource.group, &resource.plural, &target.name)
            })?;
            Ok(json_response(StatusCode::OK, view.one(&object)))
        }
        Method::PUT => {
            let options = query.write_options(agent, false);
            let new = body(request).await?;
            let object = asked
                .server
                .write(|writer| writer.update(&target, |_| Ok(new), &options))?;
            Ok(json_response(StatusCode::OK, view.one(&object)))
        }
        Method::PATCH => {
            let media_type = media_type(request.headers());
            let kind = PatchKind::from_media_type(&media_type).ok_or_else(|| {
                let accepted = [
                    "application/json-patch+json",
                    "application/merge-patch+json",
                    "application/strategic-merge-patch+json",
                    "application/apply-patch+yaml",
                ];
                StatusError::unsupported_media_type(&media_type, &accepted)
            })?;
            let options = query.write_options(agent, kind == PatchKind::Apply);
            let patch = decode(&raw_body(request).await?, kind == PatchKind::Apply)?;
            let (object, created) = asked
                .server
                .write(|writer| writer.patch(&target, kind, &patch, &options))?;
            let code = if created {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            };
            Ok(json_response(code, view.one(&object)))
        }
        Method::DELETE if !status => {
            let options = delete_options(query, request).await?;
            match asked
                .server
                .write(|writer| writer.delete(&target, &options))?
            {
                Deleted::Pending(object) => Ok(json_response(StatusCode::OK, view.one(&object))),
                Deleted::Gone(object) => {
                    Ok(value(StatusCode::OK, &deleted(&target, &object.value())))
                }
            }
        }
        _ => Err(StatusError::method_not_allowed()),
    }
}

async fn on_collection(
    asked: Asked,
    resource: Arc<ResourceType>,
    namespace: Option<String>,
    request: Request<Body>,
) -> Result<Response<Body>, StatusError> {
    match *request.method() {
        Method::GET => {
            let late = asked.server.inner.faults.late_of(&asked.user, &resource);
            tokio::time::sleep(late.unwrap_or_default()).await;
            Ok(json_response(
                StatusCode::OK,
                list::answer(&asked, &resource, namespace.as_deref())?,
            ))
        }
        Method::POST => {
            if resource.namespaced && namespace.is_none() {
                return Err(StatusError::method_not_allowed());
            }
            let options = asked.query.write_options(&asked.agent, false);
            let object = body(request).await?;
            let target = Target {
                resource: resource.clone(),
                namespace: namespace.unwrap_or_default(),
                name: String::new(),
                status: false,
            };
            let object = asked
                .server
                .write(|writer| writer.create(&target, object, &options))?;
            let view = View {
                form: asked.form,
                resource: &resource,
                include: asked.query.text("includeObject"),
            };
            Ok(json_response(StatusCode::CREATED, view.one(&object)))
        }
        Method::DELETE => {
            let selector = asked.query.selector()?;
            let options = delete_options(&asked.query, request).await?;
            let gone = asked.server.write(|writer| {
                let mut gone = Vec::new();
                for object in writer.state.objects(&resource, namespace.as_deref()) {
                    if !selector.matches(&object) {
                        continue;
                    }
                    let (namespace, name) = (object.namespace.to_string(), object.name.to_string());
                    let target = Target {
                        resource: resource.clone(),
                        namespace,
                        name,
                        status: false,
                    };
                    match writer.delete(&target, &options) {
                        Ok(Deleted::Gone(last) | Deleted::Pending(last)) => gone.push(last),
                        // It went with another object of the same collection.
                        Err(error) if error.code == 404 => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok((gone, writer.state.version))
            })?;
            let (objects, version) = gone;
            let view = View {
                form: asked.form,
                resource: &resource,
                include: "",
            };
            let metadata = json!({"resourceVersion": version.to_string()});
            Ok(json_response(
                StatusCode::OK,
                view.many(objects.iter().map(|o| &**o), &metadata),
            ))
        }
        _ => Err(StatusError::method_not_allowed()),
    }
}

/// The `Status` that says an object is gone.
fn deleted(target: &Target, last: &Value) -> Value {
    let mut details = json!({"name": target.name, "kind": target.resource.plural, "uid": last["metadata"]["uid"]});
    if !target.resource.group.is_empty() {
        details["group"] = json!(target.resource.group);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

async fn delete_options(
    query: &Query,
    request: Request<Body>,
) -> Result<DeleteOptions, StatusError> {
    let sent = body_or_nothing(request).await?;
    let text = |pointer: &str| {
        sent.pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    Ok(DeleteOptions {
        grace_period_seconds: query
            .number("gracePeriodSeconds")?
            .or_else(|| sent["gracePeriodSeconds"].as_u64()),
        uid: text("/preconditions/uid"),
        resource_version: text("/preconditions/resourceVersion"),
        dry_run: query.text("dryRun") == "All"
            || sent["dryRun"]
                .as_array()
                .is_some_and(|d| d.iter().any(|v| v == "All")),
    })
}

fn media_type(headers: &HeaderMap) -> String {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    given
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

async fn raw_body(request: Request<Body>) -> Result<Bytes, StatusError> {
    axum::body::to_bytes(request.into_body(), BODY_LIMIT)
        .await
        .map_err(|e| {
            StatusError::new(
                413,
                "RequestEntityTooLarge",
                format!("failed to read the body (limit is {BODY_LIMIT} bytes): {e}"),
            )
        })
}

/// The object in a body. JSON is YAML, so where YAML is allowed both are.
fn decode(bytes: &[u8], yaml: bool) -> Result<Value, StatusError> {
    let failed = |e: &dyn std::fmt::Display| {
        StatusError::bad_request(format!("failed to decode the body: {e}"))
    };
    match serde_json::from_slice(bytes) {
        Ok(value) => Ok(value),
        Err(error) if !yaml => Err(failed(&error)),
        Err(_) => {
            let text = std::str::from_utf8(bytes).map_err(|e| failed(&e))?;
            serde_saphyr::from_str(text).map_err(|e| failed(&e))
        }
    }
}

async fn body_or_nothing(request: Request<Body>) -> Result<Value, StatusError> {
    let media_type = media_type(request.headers());
    let yaml = match media_type.as_str() {
        "" | "application/json" => false,
        "application/yaml" => true,
        other => {
            let bytes = raw_body(request).await?;
            // Some clients name a type for a body they do not send.
            if bytes.is_empty() {
                return Ok(Value::Null);
            }
            return Err(StatusError::unsupported_media_type(
                other,
                &["application/json", "application/yaml"],
            ));
        }
    };
    let bytes = raw_body(request).await?;
    if bytes.is_empty() {
        Ok(Value::Null)
    } else {
        decode(&bytes, yaml)
    }
}

async fn body(request: Request<Body>) -> Result<Value, StatusError> {
    match body_or_nothing(request).await? {
        Value::Null => Err(StatusError::bad_request("the body of the request is empty")),
        value => Ok(value),
    }
}

pub(crate) fn json_response(code: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    response
}

fn value(code: StatusCode, body: &Value) -> Response<Body> {
    json_response(code, body.to_string().into())
}

fn text(text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

pub(crate) fn status(error: &StatusError) -> Response<Body> {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = value(code, &error.to_value());
    if let Some(seconds) = error.details.retry_after_seconds {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
