//! The connections that are open, so that faults can break them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// One accepted connection.
#[derive(Debug)]
pub(crate) struct Connection {
    id: u64,
    /// Which listener it came in by.
    pub(crate) listener: u64,
    /// Where it comes from.
    pub(crate) peer: IpAddr,
    user: Mutex<Option<String>>,
    /// Nothing is read or written any more, and nothing tells the client.
    pub(crate) held: AtomicBool,
    /// Closing sends RST instead of FIN.
    pub(crate) reset: AtomicBool,
    /// Ends the connection when cancelled.
    pub(crate) gone: CancellationToken,
    /// How many watches run on it.
    pub(crate) watches: AtomicUsize,
}

impl Connection {
    /// Ends the connection with a RST.
    pub(crate) fn abort(&self) {
        self.reset.store(true, Ordering::Release);
        self.gone.cancel();
    }

    /// Remembers who speaks on it, known from the first request on.
    pub(crate) fn belongs_to(&self, user: &str) {
        let mut known = lock(&self.user);
        if known.as_deref() != Some(user) {
            *known = Some(user.to_owned());
        }
    }

    /// Whether a fault with this scope concerns it: everybody, or this user.
    fn concerns(&self, user: Option<&str>) -> bool {
        user.is_none() || lock(&self.user).as_deref() == user
    }
}

/// All open connections.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
}

impl Connections {
    pub(crate) fn accepted(&self, listener: u64, peer: IpAddr) -> Arc<Connection> {
        let connection = Arc::new(Connection {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            listener,
            peer,
            user: Mutex::new(None),
            held: AtomicBool::new(false),
            reset: AtomicBool::new(false),
            gone: CancellationToken::new(),
            watches: AtomicUsize::new(0),
        });
        lock(&self.open).insert(connection.id, connection.clone());
        connection
    }

    pub(crate) fn closed(&self, connection: &Connection) {
        lock(&self.open).remove(&connection.id);
    }

    /// The open connections of this user, or all.
    pub(crate) fn of(&self, user: Option<&str>) -> Vec<Arc<Connection>> {
        lock(&self.open)
            .values()
            .filter(|c| c.concerns(user))
            .cloned()
            .collect()
    }

    /// How many watches run on connections that somebody still hears, by where they come from.
    pub(crate) fn watches(&self) -> BTreeMap<IpAddr, usize> {
        let mut watches = BTreeMap::new();
        for connection in lock(&self.open).values() {
            let heard = !connection.held.load(Ordering::Acquire) && !connection.gone.is_cancelled();
            if heard {
                *watches.entry(connection.peer).or_default() +=
                    connection.watches.load(Ordering::Acquire);
            }
        }
        watches
    }
}

/// Locks a mutex whose data stays usable even if a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
