//! A request on its way to the API server and the response on its way back.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, header};
use serde_json::Value;

use super::Inner;
use crate::error::StatusError;

/// The largest request body that is passed on: the API server takes no larger ones.
const REQUEST: usize = 3 * 1024 * 1024;

/// The largest list that is read: ten times what etcd hands out at once.
const RESPONSE: usize = 256 * 1024 * 1024;

/// Headers of one connection (RFC 9110, 7.6.1), and those that the next client sets itself.
const HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
];

/// The API server did not answer; says nothing about who asked.
pub(super) fn unreachable(error: &dyn std::fmt::Display) -> StatusError {
    StatusError::new(
        503,
        "ServiceUnavailable",
        format!("the API server behind the gateway: {error}"),
    )
}

impl Inner {
    /// Passes a request on, and its response back. ResourceVersions in bodies are those of each side; in the query they are the caller's work.
    pub(super) async fn forward(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Body>, StatusError> {
        if request.headers().contains_key(header::UPGRADE) {
            return Err(StatusError::new(
                501,
                "NotImplemented",
                "the test harness passes no upgraded connections on",
            ));
        }
        let (mut parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, REQUEST).await;
        let body = body.map_err(|error| StatusError::bad_request(error.to_string()))?;
        HOP.iter().for_each(|name| {
            parts.headers.remove(name);
        });
        parts.headers.remove(header::CONTENT_LENGTH);
        // What is changed on its way has to be read.
        parts.headers.remove(header::ACCEPT_ENCODING);
        json_only(&mut parts.headers);
        let path = parts.uri.into_parts().path_and_query;
        let path = path.ok_or_else(|| StatusError::bad_request("a request without a path"))?;
        parts.uri = path.into();
        parts.version = http::Version::HTTP_11;
        let body = self.versions.sent(body);
        let request = Request::from_parts(parts, kube::client::Body::from(body));
        let response = self.upstream.send(request).await;
        let response = response.map_err(|error| {
            self.faults.count(|r| r.upstream_errors += 1);
            unreachable(&error)
        })?;
        let mut response = response.map(Body::new);
        HOP.iter().for_each(|name| {
            response.headers_mut().remove(name);
        });
        Ok(response)
    }
}

/// Leaves of what the client accepts only what is JSON.
fn json_only(headers: &mut http::HeaderMap) {
    let accepted = headers.get(header::ACCEPT);
    let accepted = accepted.and_then(|value| value.to_str().ok());
    let json = accepted.unwrap_or_default().split(',').map(str::trim);
    let json: Vec<&str> = json
        .filter(|media| media.starts_with("application/json"))
        .collect();
    let value = HeaderValue::from_str(&json.join(","));
    let value = value.ok().filter(|value| !value.is_empty());
    headers.insert(
        header::ACCEPT,
        value.unwrap_or(HeaderValue::from_static("application/json")),
    );
}

/// A response with its whole body.
pub(super) async fn read(
    response: Response<Body>,
) -> Result<(http::response::Parts, Bytes), StatusError> {
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, RESPONSE).await;
    Ok((parts, body.map_err(|error| unreachable(&error))?))
}

/// A response with another body.
pub(super) fn written(mut parts: http::response::Parts, value: &Value) -> Response<Body> {
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(Bytes::from(value.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_asked_for() {
        for (accepted, asked) in [
            (None, "application/json"),
            (Some("*/*"), "application/json"),
            (
                Some("application/vnd.kubernetes.protobuf,application/json"),
                "application/json",
            ),
            (
                Some("application/json;as=Table;v=v1;g=meta.k8s.io, application/json"),
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            ),
        ] {
            let mut headers = http::HeaderMap::new();
            if let Some(accepted) = accepted {
                headers.insert(header::ACCEPT, HeaderValue::from_static(accepted));
            }
            json_only(&mut headers);
            assert_eq!(headers[header::ACCEPT], asked);
        }
    }
}
