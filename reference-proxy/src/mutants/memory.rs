//! What mutants remember: many bugs are an answer that was right once.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The first value that was seen under each key.
#[derive(Debug)]
pub(super) struct First<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for First<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V: Clone> First<K, V> {
    /// The value that `key` had when it was first asked for.
    pub(super) fn of(&self, key: K, now: V) -> V {
        lock(&self.0).entry(key).or_insert(now).clone()
    }
}

/// Locks, whatever happened to a thread that held the lock before.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
