//! The API server's resourceVersions as they are seen from this side of the gateway.
//!
//! A compaction forgets everything up to the newest version that anybody was told: whoever asks for what came before gets 410 Gone, as from an etcd
//! that was compacted. A restored backup is the same, and all versions are [`BUMP`] further from then on. They are opaque to clients, but for their
//! order (KEP-5504), so nobody can tell.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Uri};
use serde_json::Value;
use tokio::sync::watch;

use crate::connections::{Connections, lock};
use crate::error::StatusError;
use crate::faults::{BUMP, Past};
use crate::http::Query;

/// What clients are told about the past.
pub(super) struct Versions {
    connections: Arc<Connections>,
    numbers: Mutex<Numbers>,
    /// How often everything was forgotten.
    forgotten: watch::Sender<u64>,
}

/// All of them as clients see them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Numbers {
    /// The newest that anybody was told.
    seen: u64,
    /// The oldest that is not forgotten.
    floor: u64,
    /// How far the API server's own are behind.
    ahead: u64,
}

fn number(version: &Value) -> Option<u64> {
    version.as_str()?.parse().ok()
}

/// 410, in Kubernetes' words.
fn too_old(version: u64, floor: u64) -> StatusError {
    StatusError::expired(format!("too old resource version: {version} ({floor})"))
}

impl Versions {
    pub(super) fn new(connections: Arc<Connections>) -> Self {
        Self {
            connections,
            numbers: Mutex::default(),
            forgotten: watch::Sender::new(0),
        }
    }

    fn now(&self) -> Numbers {
        *lock(&self.numbers)
    }

    /// A signal for watches that run: everything before was forgotten.
    pub(super) fn forgotten(&self) -> watch::Receiver<u64> {
        self.forgotten.subscribe()
    }

    /// Why a watch from this version is over before it begins.
    pub(super) fn expired(&self, from: Option<u64>) -> Option<StatusError> {
        let floor = self.now().floor;
        let from = from.filter(|&version| version > 0 && version < floor)?;
        Some(too_old(from, floor))
    }

    /// What a running watch is told when everything was forgotten.
    pub(super) fn gone(&self) -> StatusError {
        let Numbers { seen, floor, .. } = self.now();
        too_old(floor.saturating_sub(1), seen)
    }

    /// Whether a list asks for the past, and that is forgotten.
    pub(super) fn listed(&self, query: &Query) -> Result<(), StatusError> {
        let Numbers { floor, ahead, .. } = self.now();
        let exact = match query.text("resourceVersionMatch") {
            "Exact" => true,
            "" => query.number("limit")?.is_some_and(|limit| limit > 0),
            _ => false,
        };
        let asked = query.resource_version()?.filter(|_| exact);
        let goes_on = continued(query.text("continue")).map(|version| version + ahead);
        match asked.or(goes_on) {
            Some(version) if version > 0 && version < floor => Err(too_old(version, floor)),
            _ => Ok(()),
        }
    }

    /// A request for what there is at a version, in the API server's terms.
    pub(super) fn asked(
        &self,
        request: Request<Body>,
        query: &Query,
    ) -> Result<Request<Body>, StatusError> {
        let Numbers { ahead, .. } = self.now();
        let version = query.resource_version()?.filter(|&version| version > 0);
        let Some(version) = version.filter(|_| ahead > 0) else {
            return Ok(request);
        };
        // Not older than what is long gone is anything.
        let own = version.saturating_sub(ahead).max(1);
        let (mut parts, body) = request.into_parts();
        parts.uri = with_version(&parts.uri, own);
        Ok(Request::from_parts(parts, body))
    }

    /// A body on its way to the API server: the version that a write is based on is its own one.
    pub(super) fn sent(&self, body: Bytes) -> Bytes {
        let Numbers { ahead, .. } = self.now();
        if ahead == 0 || body.is_empty() {
            return body;
        }
        // What is not JSON has none that could be read: events are sent like that, which are based on nothing.
        let Ok(mut value) = serde_json::from_slice::<Value>(&body) else {
            return body;
        };
        let mut changed = false;
        for place in [
            "/metadata/resourceVersion",
            "/preconditions/resourceVersion",
        ] {
            let own = value.pointer(place).and_then(number);
            if let Some(own) = own.and_then(|version| version.checked_sub(ahead))
                && let Some(place) = value.pointer_mut(place)
            {
                *place = own.to_string().into();
                changed = true;
            }
        }
        if changed {
            value.to_string().into()
        } else {
            body
        }
    }

    /// Whether what the API server says has to be changed.
    pub(super) fn differ(&self) -> bool {
        self.now().ahead > 0
    }

    /// An object or a list of the API server's as clients see it, and notes what they will have been told.
    pub(super) fn told(&self, value: &mut Value) {
        let mut numbers = lock(&self.numbers);
        let Numbers { ahead, .. } = *numbers;
        let mut seen = 0;
        let mut one = |metadata: &mut Value| {
            if let Some(version) = metadata.get("resourceVersion").and_then(number) {
                seen = seen.max(version + ahead);
                if ahead > 0 && version > 0 {
                    metadata["resourceVersion"] = (version + ahead).to_string().into();
                }
            }
        };
        if let Some(metadata) = value.get_mut("metadata") {
            one(metadata);
        }
        let items = value.get_mut("items").and_then(Value::as_array_mut);
        for item in items.into_iter().flatten() {
            if let Some(metadata) = item.get_mut("metadata") {
                one(metadata);
            }
        }
        // A table's rows hold objects of their own.
        let rows = value.get_mut("rows").and_then(Value::as_array_mut);
        for row in rows.into_iter().flatten() {
            if let Some(metadata) = row.pointer_mut("/object/metadata") {
                one(metadata);
            }
        }
        numbers.seen = numbers.seen.max(seen);
    }

    fn forget(&self, change: impl FnOnce(&mut Numbers)) -> usize {
        {
            let mut numbers = lock(&self.numbers);
            change(&mut numbers);
            numbers.floor = numbers.seen;
        }
        self.forgotten.send_modify(|times| *times += 1);
        self.connections.watches().values().sum()
    }
}

impl Past for Versions {
    fn compact(&self) -> usize {
        self.forget(|_| {})
    }

    fn restore(&self) {
        self.forget(|numbers| {
            numbers.ahead += BUMP;
            numbers.seen += BUMP;
        });
    }
}

/// The version that a list goes on at: what Kubernetes puts into its tokens.
fn continued(token: &str) -> Option<u64> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let token: Value = serde_json::from_slice(&bytes).ok()?;
    token["rv"].as_u64()
}

/// The same address with another resourceVersion.
fn with_version(uri: &Uri, version: u64) -> Uri {
    let query = uri.query().unwrap_or_default().split('&');
    let query: Vec<String> = query
        .map(|pair| match pair.split_once('=') {
            Some(("resourceVersion", _)) => format!("resourceVersion={version}"),
            _ => pair.to_owned(),
        })
        .collect();
    let text = format!("{}?{}", uri.path(), query.join("&"));
    // It was one before, and digits are digits.
    text.parse().unwrap_or_else(|_| uri.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn versions() -> Versions {
        Versions::new(Arc::default())
    }

    fn query(text: &str) -> Query {
        Query::of(&format!("/api/v1/services?{text}").parse().unwrap()).unwrap()
    }

    #[test]
    fn what_was_told_before_a_compaction_is_too_old_after_it() {
        let versions = versions();
        versions.told(&mut json!({"metadata": {"resourceVersion": "70"}, "items": [{"metadata": {"resourceVersion": "69"}}]}));
        assert!(versions.expired(Some(69)).is_none());
        versions.compact();
        for (from, is_over) in [
            (None, false),
            (Some(0), false),
            (Some(69), true),
            (Some(70), false),
        ] {
            assert_eq!(versions.expired(from).is_some(), is_over, "{from:?}");
        }
        let old = URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":69,"start":"x"}"#);
        for (text, is_over) in [
            (
                "resourceVersion=69&resourceVersionMatch=Exact".to_owned(),
                true,
            ),
            ("resourceVersion=69&limit=10".into(), true),
            (
                "resourceVersion=69&resourceVersionMatch=NotOlderThan".into(),
                false,
            ),
            ("resourceVersion=69".into(), false),
            (format!("continue={old}&limit=10"), true),
            ("continue=something&limit=10".into(), false),
        ] {
            let listed = versions.listed(&query(&text));
            assert_eq!(
                listed.err().map(|error| error.code),
                is_over.then_some(410),
                "{text}"
            );
        }
    }

    #[test]
    fn after_a_restoration_both_sides_have_their_own_numbers() {
        let versions = versions();
        let mut list = json!({"metadata": {"resourceVersion": "70"}});
        versions.told(&mut list);
        assert_eq!(list["metadata"]["resourceVersion"], "70");
        versions.restore();
        assert!(versions.expired(Some(70)).is_some());
        let mut list = json!({"metadata": {"resourceVersion": "71"}, "items": [{"metadata": {"resourceVersion": "60"}}, {"metadata": {}}]});
        versions.told(&mut list);
        assert_eq!(list["metadata"]["resourceVersion"], "1000000071");
        assert_eq!(
            list["items"][0]["metadata"]["resourceVersion"],
            "1000000060"
        );
        assert!(versions.expired(Some(1_000_000_071)).is_none());
        let text = "watch=1&resourceVersion=1000000071&allowWatchBookmarks=true";
        let uri: Uri = format!("/api/v1/services?{text}").parse().unwrap();
        let request = Request::get(uri).body(Body::empty()).unwrap();
        let asked = versions.asked(request, &query(text)).unwrap();
        assert_eq!(
            asked.uri(),
            "/api/v1/services?watch=1&resourceVersion=71&allowWatchBookmarks=true"
        );
        let body = |text: &str| Bytes::from(text.to_owned());
        let sent = versions.sent(body(r#"{"metadata":{"resourceVersion":"1000000060"}}"#));
        assert_eq!(sent, r#"{"metadata":{"resourceVersion":"60"}}"#);
        // Based on what is gone: the API server refuses it, as it should.
        let stale = body(r#"{"metadata":{"resourceVersion":"60"}}"#);
        assert_eq!(versions.sent(stale.clone()), stale);
    }
}
