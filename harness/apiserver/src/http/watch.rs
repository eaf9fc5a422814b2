//! Watches: a response that does not end, one line per event.
//!
//! Rules: <https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes> and, for `sendInitialEvents`, KEP-3157.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use rand::Rng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::query::Form;
use super::requests::{Asked, json_response};
use super::view::View;
use crate::api::Inner;
use crate::connections::{Connection, lock};
use crate::error::{StatusCause, StatusError};
use crate::registry::ResourceType;
use crate::selector::Selector;
use crate::store::{Cursor, Event, LogRead, Object, Verb, event_line};

/// The largest piece of initial events handed over at once.
const CHUNK: usize = 256 * 1024;
/// How many events are read from the log at once.
const BATCH: usize = 256;

fn invalid(field: &str, why: &str) -> StatusError {
    let cause = StatusCause {
        reason: "FieldValueForbidden".to_owned(),
        message: format!("Forbidden: {why}"),
        field: field.to_owned(),
    };
    StatusError::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
}

/// Starts a watch.
pub(super) fn answer(
    asked: &Asked,
    resource: Arc<ResourceType>,
    namespace: Option<String>,
    name: Option<&str>,
) -> Result<Response<Body>, StatusError> {
    let (query, inner) = (&asked.query, &asked.server.inner);
    let selector = match name {
        // The old path of a watch for one object.
        Some(name) => Selector::parse(
            query.text("labelSelector"),
            &format!("metadata.name={name}"),
        )?,
        None => query.selector()?,
    };
    let bookmarks = query.flag("allowWatchBookmarks");
    let from = query.resource_version()?;
    let send_initial = match query.text("sendInitialEvents") {
        "" => None,
        _ => Some(query.flag("sendInitialEvents")),
    };
    let wanted_match = query.text("resourceVersionMatch");
    match (send_initial, wanted_match) {
        (None, "") | (Some(_), "NotOlderThan") => {}
        (None, _) => {
            let why =
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            return Err(invalid("resourceVersionMatch", why));
        }
        (Some(_), _) => {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            return Err(invalid("resourceVersionMatch", why));
        }
    }
    if send_initial == Some(true) && !bookmarks {
        return Err(invalid(
            "allowWatchBookmarks",
            "sendInitialEvents requires allowWatchBookmarks",
        ));
    }
    let timeout = match query.number("timeoutSeconds")?.filter(|&t| t > 0) {
        Some(seconds) => Duration::from_secs(seconds),
        // The API server's default: 30 minutes, up to twice as long so that not all clients come back at once.
        None => Duration::from_secs(rand::rng().random_range(1800..3600)),
    };

    let mut state = lock(&inner.state);
    let now = state.version;
    if send_initial == Some(true)
        && let Some(wanted) = from
        && wanted > now
    {
        return Err(super::list::too_large(wanted, now));
    }
    // From nowhere in particular: what there is, then what happens. From a version: what happened since.
    let with_initial = send_initial.unwrap_or(matches!(from, None | Some(0)));
    let table = state.table(&resource);
    let signal = table.signal.subscribe();
    let (initial, cursor, version) = if with_initial {
        let end = table.end();
        let mut objects = state.objects(&resource, namespace.as_deref());
        if !selector.is_everything() {
            objects.retain(|o| selector.matches(o));
        }
        (Some(objects), Ok(end), now)
    } else {
        let version = from.filter(|&v| v > 0).unwrap_or(now);
        let expired = || format!("too old resource version: {version} ({})", table.floor);
        (None, table.after(version).ok_or_else(expired), version)
    };
    drop(state);

    let mut initial = initial.map(VecDeque::from);
    if let Some(initial) = &mut initial {
        inner
            .faults
            .shuffle(&asked.user, &resource, initial.make_contiguous());
    }
    let id = inner.clients.watch_opened(&asked.user, &resource);
    asked.connection.watches.fetch_add(1, Ordering::AcqRel);
    let mut stream = WatchStream {
        inner: inner.clone(),
        connection: asked.connection.clone(),
        id,
        user: asked.user.clone(),
        resource,
        namespace,
        selector,
        form: asked.form,
        include: query.text("includeObject").to_owned(),
        initial,
        announce_end: send_initial == Some(true),
        signal,
        cursor: Cursor::default(),
        version,
        bookmarks,
        ends: Instant::now() + timeout,
        next_bookmark: Instant::now() + inner.config.bookmark_interval,
        expired: None,
        done: false,
    };
    match cursor {
        Ok(cursor) => stream.cursor = cursor,
        // As in Kubernetes, a version that is too old is an event of the watch, not its status code.
        Err(message) => stream.expired = Some(message),
    }
    if stream.initial.is_none() && stream.expired.is_none() {
        inner.clients.watch_delivered(id, 0, version);
    }
    let chunks = futures::stream::unfold(stream, |mut stream| async move {
        let chunk = stream.next().await.transpose()?;
        Some((chunk, stream))
    });
    let mut response = json_response(StatusCode::OK, Bytes::new());
    *response.body_mut() = Body::from_stream(chunks);
    if asked.form == Form::Plain {
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
    }
    Ok(response)
}

/// The connection of a watch was cut by a fault or by the end of its listener.
#[derive(Debug, thiserror::Error)]
#[error("the connection was cut")]
struct Aborted;

struct WatchStream {
    inner: Arc<Inner>,
    connection: Arc<Connection>,
    id: u64,
    user: String,
    resource: Arc<ResourceType>,
    namespace: Option<String>,
    selector: Selector,
    form: Form,
    include: String,
    /// Objects still to be announced.
    initial: Option<VecDeque<Arc<Object>>>,
    /// Whether the end of the initial events is announced by a bookmark (WatchList).
    announce_end: bool,
    signal: watch::Receiver<u64>,
    cursor: Cursor,
    /// Everything up to this resourceVersion has been handed over.
    version: u64,
    bookmarks: bool,
    ends: Instant,
    next_bookmark: Instant,
    /// Why the watch ends with 410, once it does.
    expired: Option<String>,
    done: bool,
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.inner.clients.watch_closed(self.id);
        self.connection.watches.fetch_sub(1, Ordering::AcqRel);
    }
}

impl WatchStream {
    /// The next piece of the response, nothing when the watch is over, or an error when its connection is being torn down: the client must not
    /// take that for a regular end.
    async fn next(&mut self) -> Result<Option<Bytes>, Aborted> {
        loop {
            if self.connection.held.load(Ordering::Acquire) {
                self.connection.gone.cancelled().await;
                return Err(Aborted);
            }
            if self.done {
                return Ok(None);
            }
            if let Some(message) = self.expired.take() {
                self.done = true;
                self.inner.faults.count(|r| r.expired_watches += 1);
                let status = StatusError::expired(message).to_value();
                return Ok(Some(
                    format!("{}\n", json!({"type": "ERROR", "object": status})).into(),
                ));
            }
            let late = self.inner.faults.late_of(&self.user, &self.resource);
            if let Some(initial) = &self.initial {
                let (most, object) = (late.map_or(usize::MAX, |_| 1), !initial.is_empty());
                if let Some(late) = late.filter(|_| object) {
                    self.inner.faults.count(|r| r.late_objects += 1);
                    self.pause(Instant::now() + late).await?;
                    if self.connection.held.load(Ordering::Acquire) {
                        continue;
                    }
                }
                match self.next_initial(most) {
                    Some(chunk) => return Ok(Some(chunk)),
                    None => continue,
                }
            }
            let delay = self.inner.faults.delay_of(&self.user).max(late);
            self.signal.borrow_and_update();
            // With a delay, one event at a time: each is due at a time of its own.
            let batch = if delay.is_some() { 1 } else { BATCH };
            let (read, now) = {
                let mut state = lock(&self.inner.state);
                let now = state.version;
                (
                    state.table(&self.resource).read(&mut self.cursor, batch),
                    now,
                )
            };
            let events = match read {
                LogRead::Events(events) => events,
                LogRead::Expired => {
                    self.expired = Some(format!(
                        "too old resource version: {} ({now})",
                        self.version
                    ));
                    continue;
                }
            };
            if !events.is_empty() {
                if let Some(delay) = delay {
                    let number = events.len() as u64;
                    self.inner.faults.count(|r| match late {
                        Some(_) => r.late_objects += number,
                        None => r.delayed_events += number,
                    });
                    let due = events.last().map(|e| Instant::from_std(e.at) + delay);
                    self.pause(due.unwrap_or_else(Instant::now)).await?;
                    if self.connection.held.load(Ordering::Acquire) {
                        continue;
                    }
                }
                let complete = events.len() < batch;
                self.version = if complete {
                    now
                } else {
                    events.last().map_or(self.version, |e| e.version)
                };
                if let Some(chunk) = self.lines(&events) {
                    return Ok(Some(chunk));
                }
                continue;
            }
            self.version = now;
            tokio::select! {
                biased;
                () = self.connection.gone.cancelled() => return Err(Aborted),
                changed = self.signal.changed() => {
                    // The sender lives as long as the store does, and this stream holds the store.
                    changed.map_err(|_| Aborted)?;
                }
                () = tokio::time::sleep_until(self.ends) => return Ok(None),
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + self.inner.config.bookmark_interval;
                    self.inner.clients.watch_delivered(self.id, 0, self.version);
                    return Ok(Some(self.bookmark(false)));
                }
            }
        }
    }

    /// Waits, unless the connection is torn down before.
    async fn pause(&self, until: Instant) -> Result<(), Aborted> {
        tokio::select! {
            () = self.connection.gone.cancelled() => Err(Aborted),
            () = tokio::time::sleep_until(until) => Ok(()),
        }
    }

    /// The next piece of the initial events, of at most so many objects; the last one ends with the bookmark that says so.
    fn next_initial(&mut self, most: usize) -> Option<Bytes> {
        let duplicates = self.inner.faults.duplicates(&self.user);
        let initial = self.initial.as_mut()?;
        let mut objects = Vec::new();
        let mut size = 0;
        while size < CHUNK
            && objects.len() < most
            && let Some(object) = initial.pop_front()
        {
            size += object.json().len();
            objects.push(object);
        }
        let last = initial.is_empty();
        let mut buffer = BytesMut::with_capacity(size + objects.len() * 40 + 256);
        let copies = if duplicates { 2 } else { 1 };
        for object in &objects {
            let line = self.line(Verb::Added, object);
            for _ in 0..copies {
                buffer.extend_from_slice(&line);
            }
        }
        if duplicates {
            self.inner
                .faults
                .count(|r| r.duplicated_events += objects.len() as u64);
        }
        let mut delivered = 0;
        if last {
            self.initial = None;
            delivered = self.version;
            if self.announce_end {
                buffer.extend_from_slice(&self.bookmark(true));
            }
        }
        self.inner
            .clients
            .watch_delivered(self.id, objects.len() as u64 * copies, delivered);
        (!buffer.is_empty()).then(|| buffer.freeze())
    }

    /// The lines for these events, as far as they concern this watch.
    fn lines(&self, events: &[Arc<Event>]) -> Option<Bytes> {
        let lines: Vec<Bytes> = events
            .iter()
            .filter_map(|event| self.event(event))
            .collect();
        let duplicates = self.inner.faults.duplicates(&self.user) && !lines.is_empty();
        let copies: u64 = if duplicates { 2 } else { 1 };
        if duplicates {
            self.inner
                .faults
                .count(|r| r.duplicated_events += lines.len() as u64);
        }
        self.inner
            .clients
            .watch_delivered(self.id, lines.len() as u64 * copies, self.version);
        match lines.as_slice() {
            [] => None,
            // The usual case: the stored bytes go out as they are.
            [line] if !duplicates => Some(line.clone()),
            lines => {
                let mut buffer = BytesMut::new();
                for line in lines {
                    for _ in 0..copies {
                        buffer.extend_from_slice(line);
                    }
                }
                Some(buffer.freeze())
            }
        }
    }

    fn event(&self, event: &Event) -> Option<Bytes> {
        if self
            .namespace
            .as_deref()
            .is_some_and(|n| n != &*event.object.namespace)
        {
            return None;
        }
        if self.selector.is_everything() {
            return Some(self.line(event.verb, &event.object));
        }
        // With a selector, an object comes and goes as it starts and stops to match.
        let before = event
            .previous
            .as_deref()
            .is_some_and(|p| self.selector.matches(p));
        let after = event.verb != Verb::Deleted && self.selector.matches(&event.object);
        match (before, after) {
            (false, true) => Some(self.line(Verb::Added, &event.object)),
            (true, true) => Some(self.line(Verb::Modified, &event.object)),
            (true, false) if event.verb == Verb::Deleted => {
                Some(self.line(Verb::Deleted, &event.object))
            }
            (true, false) => {
                // It left the selection: the client is told its last matching state, at the version of the change.
                let mut last = event.previous.as_ref()?.value();
                last["metadata"]["resourceVersion"] = json!(event.version.to_string());
                Some(self.line(
                    Verb::Deleted,
                    &Object::new(&last, Verb::Deleted, event.version),
                ))
            }
            (false, false) => None,
        }
    }

    fn line(&self, verb: Verb, object: &Object) -> Bytes {
        match self.form {
            Form::Plain | Form::AggregatedDiscovery => object.event_line(verb),
            form => {
                let view = View {
                    form,
                    resource: &self.resource,
                    include: &self.include,
                };
                event_line(verb, &view.one(object))
            }
        }
    }

    /// A bookmark at the current position; `end` says that it ends the initial events.
    fn bookmark(&self, end: bool) -> Bytes {
        let mut metadata =
            json!({"resourceVersion": self.version.to_string(), "creationTimestamp": Value::Null});
        if end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (kind, api_version) = match self.form {
            Form::Metadata => (
                "PartialObjectMetadata".to_owned(),
                "meta.k8s.io/v1".to_owned(),
            ),
            Form::Table => ("Table".to_owned(), "meta.k8s.io/v1".to_owned()),
            Form::Plain | Form::AggregatedDiscovery => {
                (self.resource.kind.clone(), self.resource.api_version())
            }
        };
        let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        format!("{}\n", json!({"type": "BOOKMARK", "object": object})).into()
    }
}
