//! The HTTP side: who asks, what for, and in which form the answer goes out.

mod discovery;
mod list;
mod openapi;
mod path;
mod query;
mod requests;
mod reviews;
mod table;
mod view;
mod watch;

pub(crate) use path::{Path, ResourcePath};
pub(crate) use query::Query;
pub(crate) use requests::{handle, json_response, status, suffer};
