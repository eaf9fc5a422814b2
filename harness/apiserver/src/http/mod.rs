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

pub(crate) use requests::handle;
