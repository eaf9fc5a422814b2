//! The stored objects, their event logs and the history of everything that was written.
//!
//! All of it sits behind one lock. An object is serialised once, when it is written; lists and watches share those bytes.

mod object;
mod state;
mod table;

pub use object::Verb;
pub(crate) use object::{Object, event_line};
pub(crate) use state::{SERVICE_NAME, State};
pub(crate) use table::{Cursor, Event, LogRead, object_key};
