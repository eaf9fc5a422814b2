//! One version of one object, kept as the bytes that go over the wire.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What happened to an object, in the words of the watch protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// The object was created.
    Added,
    /// The object was changed.
    Modified,
    /// The object was deleted. The event carries its last state.
    Deleted,
}

impl Verb {
    /// The word used in watch events: `ADDED`, `MODIFIED` or `DELETED`.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Added => "ADDED",
            Verb::Modified => "MODIFIED",
            Verb::Deleted => "DELETED",
        }
    }

    fn prefix(self) -> &'static [u8] {
        match self {
            Verb::Added => b"{\"type\":\"ADDED\",\"object\":",
            Verb::Modified => b"{\"type\":\"MODIFIED\",\"object\":",
            Verb::Deleted => b"{\"type\":\"DELETED\",\"object\":",
        }
    }
}

const SUFFIX: &[u8] = b"}\n";

/// One version of one object.
///
/// The bytes are the line of the watch event that announced this version, and the object's own JSON is a slice of it: one copy
/// in memory serves lists, gets and watches.
#[derive(Debug)]
pub(crate) struct Object {
    frame: Bytes,
    verb: Verb,
    /// The resourceVersion of this version.
    pub(crate) version: u64,
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
    labels: Box<[(Box<str>, Box<str>)]>,
}

impl Object {
    /// Serialises `value`, which carries its resourceVersion already.
    pub(crate) fn new(value: &Value, verb: Verb, version: u64) -> Self {
        let metadata = &value["metadata"];
        let text = |key: &str| metadata[key].as_str().unwrap_or_default().into();
        let labels = metadata["labels"].as_object().into_iter().flatten();
        let labels = labels
            .map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into()))
            .collect();
        let mut buffer = Vec::with_capacity(1024);
        buffer.extend_from_slice(verb.prefix());
        // Writing a `Value` into memory cannot fail: its keys are strings and the buffer grows.
        let _ = serde_json::to_writer(&mut buffer, value);
        buffer.extend_from_slice(SUFFIX);
        buffer.shrink_to_fit();
        Object {
            frame: buffer.into(),
            verb,
            version,
            namespace: text("namespace"),
            name: text("name"),
            labels,
        }
    }

    /// The object's JSON.
    pub(crate) fn json(&self) -> Bytes {
        self.frame
            .slice(self.verb.prefix().len()..self.frame.len() - SUFFIX.len())
    }

    /// The line of a watch event with this object. Shared when it is the event that announced this version.
    pub(crate) fn event_line(&self, verb: Verb) -> Bytes {
        if verb == self.verb {
            self.frame.clone()
        } else {
            event_line(verb, &self.json())
        }
    }

    /// The object as a value.
    pub(crate) fn value(&self) -> Value {
        // The bytes were serialised from a `Value` above.
        serde_json::from_slice(&self.json()).unwrap_or_default()
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(k, _)| &**k == key)
            .map(|(_, v)| &**v)
    }
}

/// A watch event line around some JSON.
pub(crate) fn event_line(verb: Verb, json: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(verb.prefix().len() + json.len() + SUFFIX.len());
    line.put_slice(verb.prefix());
    line.put_slice(json);
    line.put_slice(SUFFIX);
    line.freeze()
}
