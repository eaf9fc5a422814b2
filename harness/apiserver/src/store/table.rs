//! The objects of one resource and the log of what happened to them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::object::{Object, Verb};

/// The key of an object: `namespace/name`, with an empty namespace for cluster-wide objects. It sorts as etcd's keys do.
pub(crate) fn object_key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) version: u64,
    pub(crate) verb: Verb,
    pub(crate) object: Arc<Object>,
    pub(crate) previous: Option<Arc<Object>>,
    pub(crate) at: Instant,
}

/// A position in a table's log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    next: u64,
    epoch: u64,
}

/// What reading the log from a cursor gave.
pub(crate) enum LogRead {
    /// The next events, oldest first, possibly none.
    Events(Vec<Arc<Event>>),
    /// The cursor points before the beginning of the log.
    Expired,
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) objects: BTreeMap<Box<str>, Arc<Object>>,
    log: VecDeque<Arc<Event>>,
    /// The sequence number of `log[0]`.
    first: u64,
    /// How often the log was compacted on purpose.
    epoch: u64,
    /// Events up to and including this resourceVersion are no longer in the log.
    pub(crate) floor: u64,
    /// The resourceVersion of the newest event.
    pub(crate) newest: u64,
    /// Sends the newest resourceVersion to whoever watches.
    pub(crate) signal: watch::Sender<u64>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Table {
            objects: BTreeMap::new(),
            log: VecDeque::new(),
            first: 0,
            epoch: 0,
            floor: 0,
            newest: 0,
            signal: watch::Sender::new(0),
        }
    }

    /// Appends an event and drops the oldest ones beyond `window`. Does not wake watchers: the caller does, when the write is complete.
    pub(crate) fn push(&mut self, event: Arc<Event>, window: usize) {
        let key = object_key(&event.object.namespace, &event.object.name);
        match event.verb {
            Verb::Deleted => drop(self.objects.remove(key.as_str())),
            Verb::Added | Verb::Modified => {
                drop(self.objects.insert(key.into(), event.object.clone()))
            }
        }
        self.newest = event.version;
        self.log.push_back(event);
        while self.log.len() > window.max(1) {
            if let Some(oldest) = self.log.pop_front() {
                self.first += 1;
                self.floor = oldest.version;
            }
        }
    }

    /// Forgets the log, so that older resourceVersions and running watches expire. `now` is the store's resourceVersion.
    pub(crate) fn compact(&mut self, now: u64) {
        self.first += self.log.len() as u64;
        self.log.clear();
        self.floor = now;
        self.epoch += 1;
        self.signal.send_modify(|_| {});
    }

    /// The position after the newest event.
    pub(crate) fn end(&self) -> Cursor {
        Cursor {
            next: self.first + self.log.len() as u64,
            epoch: self.epoch,
        }
    }

    /// The position after all events up to and including resourceVersion `version`, if the log still reaches back that far.
    pub(crate) fn after(&self, version: u64) -> Option<Cursor> {
        if version < self.floor {
            return None;
        }
        let skipped = self.log.partition_point(|e| e.version <= version);
        Some(Cursor {
            next: self.first + skipped as u64,
            epoch: self.epoch,
        })
    }

    /// At most `limit` events from `cursor` on, which is moved behind them.
    pub(crate) fn read(&self, cursor: &mut Cursor, limit: usize) -> LogRead {
        if cursor.epoch != self.epoch || cursor.next < self.first {
            return LogRead::Expired;
        }
        let from = (cursor.next - self.first) as usize;
        let events: Vec<_> = self.log.iter().skip(from).take(limit).cloned().collect();
        cursor.next += events.len() as u64;
        LogRead::Events(events)
    }

    /// The objects as they were at resourceVersion `version`, or nothing when the log does not reach back that far.
    pub(crate) fn at(&self, version: u64) -> Option<BTreeMap<Box<str>, Arc<Object>>> {
        if version < self.floor {
            return None;
        }
        let mut objects = self.objects.clone();
        for event in self.log.iter().rev().take_while(|e| e.version > version) {
            let key = object_key(&event.object.namespace, &event.object.name);
            match &event.previous {
                Some(previous) => drop(objects.insert(key.into(), previous.clone())),
                None => drop(objects.remove(key.as_str())),
            }
        }
        Some(objects)
    }
}
