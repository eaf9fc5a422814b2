//! A watch on its way back: line by line, as faults say.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;

use super::{EVERYBODY, Inner};
use crate::connections::Connection;
use crate::error::StatusError;
use crate::http::{Query, ResourcePath, json_response};
use crate::registry::ResourceType;

/// The longest line: an object is at most as large as a request, and an event is an object and some words.
const LINE: usize = 4 * 1024 * 1024;

/// Lines that wait for their time at most. Then the API server has to wait, which takes a watch for slow and ends it.
const WAITING: usize = 10_000;

/// A line and when it came.
struct Line {
    at: Instant,
    event: Value,
}

impl Line {
    fn is_bookmark(&self) -> bool {
        self.event["type"] == "BOOKMARK"
    }

    /// Whether it says that all the initial events are there (KEP-3157).
    fn ends_initial(&self) -> bool {
        let annotations = &self.event["object"]["metadata"]["annotations"];
        self.is_bookmark() && annotations["k8s.io/initial-events-end"] == "true"
    }
}

/// The connection to the client was cut, or that to the API server broke in the middle: no regular end.
#[derive(Debug, thiserror::Error)]
#[error("the connection was cut")]
struct Aborted;

struct Watching {
    inner: Arc<Inner>,
    connection: Arc<Connection>,
    resource: Option<Arc<ResourceType>>,
    /// What comes from the API server; an error is its last word.
    lines: mpsc::Receiver<std::io::Result<Line>>,
    _reader: AbortOnDropHandle<()>,
    forgotten: watch::Receiver<u64>,
    /// Initial events are yet to come.
    initial: bool,
    /// Initial events in the order in which they are passed on, once that is known.
    ready: VecDeque<Line>,
    /// The client was told that it is over.
    done: bool,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.connection.watches.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Inner {
    /// Passes a watch on.
    pub(super) async fn watch(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
        path: &ResourcePath,
        query: &Query,
        request: Request<Body>,
    ) -> Result<Response<Body>, StatusError> {
        let forgotten = self.versions.forgotten();
        if let Some(error) = self.versions.expired(query.resource_version()?) {
            // As in Kubernetes, a version that is too old is an event of the watch, not its status code.
            self.faults.count(|r| r.expired_watches += 1);
            return Ok(json_response(StatusCode::OK, error_line(&error)));
        }
        let response = self.forward(self.versions.asked(request, query)?).await?;
        if !response.status().is_success() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let (sender, lines) = mpsc::channel(WAITING);
        let reader = tokio::spawn(read(body, sender));
        connection.watches.fetch_add(1, Ordering::AcqRel);
        let watching = Watching {
            inner: self.clone(),
            connection: connection.clone(),
            resource: self.resource(path),
            lines,
            _reader: AbortOnDropHandle::new(reader),
            forgotten,
            initial: query.flag("sendInitialEvents"),
            ready: VecDeque::new(),
            done: false,
        };
        let chunks = futures::stream::unfold(watching, |mut watching| async move {
            let chunk = watching.next().await.transpose()?;
            Some((chunk, watching))
        });
        let mut response = Response::from_parts(parts, Body::from_stream(chunks));
        response.headers_mut().remove(http::header::CONTENT_LENGTH);
        Ok(response)
    }
}

/// Takes the body apart, and notes when each line came, however long the ones before have to wait.
async fn read(body: Body, sender: mpsc::Sender<std::io::Result<Line>>) {
    let bytes = body.into_data_stream().map_err(std::io::Error::other);
    let mut lines = FramedRead::new(
        StreamReader::new(Box::pin(bytes)),
        LinesCodec::new_with_max_length(LINE),
    );
    while let Some(line) = lines.next().await {
        let line = line
            .map_err(std::io::Error::other)
            .and_then(|text| serde_json::from_str(&text).map_err(std::io::Error::other))
            .map(|event| Line {
                at: Instant::now(),
                event,
            });
        let failed = line.is_err();
        if sender.send(line).await.is_err() || failed {
            return;
        }
    }
}

fn error_line(error: &StatusError) -> Bytes {
    let event = json!({"type": "ERROR", "object": error.to_value()});
    format!("{event}\n").into()
}

/// What came of waiting for something.
enum Came {
    Line(Line),
    /// The API server ended the watch.
    End,
    /// Everything so far was forgotten.
    Forgotten,
}

impl Watching {
    /// The next piece of the response, nothing when the watch is over, or an error when the client must not take its end for a regular one.
    async fn next(&mut self) -> Result<Option<Bytes>, Aborted> {
        loop {
            self.not_held().await?;
            if self.done {
                return Ok(None);
            }
            let line = match self.ready.pop_front() {
                Some(line) => line,
                None => match self.come().await? {
                    Came::Line(line) if self.initial && self.gathers() => {
                        if !self.gather(line).await? {
                            return Ok(Some(self.expire()));
                        }
                        continue;
                    }
                    Came::Line(line) => line,
                    Came::End => return Ok(None),
                    Came::Forgotten => return Ok(Some(self.expire())),
                },
            };
            let faults = &self.inner.faults;
            let late = self.late();
            let delay = faults.delay_of(EVERYBODY).max(late);
            let due = match (late, delay) {
                // One at a time.
                (Some(late), _) if self.initial => Some(Instant::now() + late),
                (_, Some(delay)) => Some(line.at + delay),
                _ => None,
            };
            if let Some(due) = due {
                let object = !line.is_bookmark();
                faults.count(|r| match late {
                    Some(_) => r.late_objects += u64::from(object),
                    None => r.delayed_events += u64::from(object),
                });
                if !self.pause(due).await? {
                    return Ok(Some(self.expire()));
                }
                self.not_held().await?;
            }
            return Ok(Some(self.passed_on(line)));
        }
    }

    /// A client whose connection is held hears nothing until it is reset.
    async fn not_held(&self) -> Result<(), Aborted> {
        if self.connection.held.load(Ordering::Acquire) {
            self.connection.gone.cancelled().await;
            return Err(Aborted);
        }
        Ok(())
    }

    fn late(&self) -> Option<std::time::Duration> {
        let resource = self.resource.as_ref()?;
        self.inner.faults.late_of(EVERYBODY, resource)
    }

    /// Whether the initial events have to be all there before the first is passed on.
    fn gathers(&self) -> bool {
        let resource = self.resource.as_ref();
        resource.is_some_and(|resource| self.inner.faults.shuffles(EVERYBODY, resource))
    }

    /// Waits for the rest of the initial events and puts them into another order. Whether nothing was forgotten meanwhile.
    async fn gather(&mut self, first: Line) -> Result<bool, Aborted> {
        let mut all = Vec::new();
        let mut next = first;
        let end = loop {
            if next.ends_initial() {
                break Some(next);
            }
            all.push(next);
            next = match self.come().await? {
                Came::Line(line) => line,
                Came::Forgotten => return Ok(false),
                Came::End => break None,
            };
        };
        if let Some(resource) = &self.resource {
            self.inner.faults.shuffle(EVERYBODY, resource, &mut all);
        }
        self.ready.extend(all);
        self.ready.extend(end);
        Ok(true)
    }

    async fn come(&mut self) -> Result<Came, Aborted> {
        tokio::select! {
            biased;
            () = self.connection.gone.cancelled() => Err(Aborted),
            // The sender lives as long as the gateway does.
            _ = self.forgotten.changed() => Ok(Came::Forgotten),
            line = self.lines.recv() => match line {
                Some(Ok(line)) => Ok(Came::Line(line)),
                Some(Err(error)) => {
                    tracing::debug!(%error, "a watch of the API server broke");
                    Err(Aborted)
                }
                None => Ok(Came::End),
            },
        }
    }

    /// Waits. Whether nothing was forgotten meanwhile.
    async fn pause(&mut self, until: Instant) -> Result<bool, Aborted> {
        tokio::select! {
            () = self.connection.gone.cancelled() => Err(Aborted),
            _ = self.forgotten.changed() => Ok(false),
            () = tokio::time::sleep_until(until) => Ok(true),
        }
    }

    fn expire(&mut self) -> Bytes {
        self.done = true;
        self.inner.faults.count(|r| r.expired_watches += 1);
        error_line(&self.inner.versions.gone())
    }

    /// An event as the client gets it.
    fn passed_on(&mut self, mut line: Line) -> Bytes {
        if line.ends_initial() {
            self.initial = false;
        }
        let bookmark = line.is_bookmark();
        self.inner.versions.told(&mut line.event["object"]);
        let text = line.event.to_string();
        let twice = !bookmark && self.inner.faults.duplicates(EVERYBODY);
        let mut bytes = BytesMut::with_capacity(2 * text.len() + 2);
        for _ in 0..if twice { 2 } else { 1 } {
            bytes.extend_from_slice(text.as_bytes());
            bytes.extend_from_slice(b"\n");
        }
        if twice {
            self.inner.faults.count(|r| r.duplicated_events += 1);
        }
        bytes.freeze()
    }
}
