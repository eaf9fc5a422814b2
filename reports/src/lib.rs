//! Report model, JSON Schema and renderers.
//!
//! ```text
//!  runner --append--> events.jsonl --read--> Report --render--> report.json, junit.xml, report.md, report.html, badge.svg
//!         (log)                     (log)   (model)             (json, junit, markdown, html, badge)
//! ```
//!
//! The crate knows nothing of the harness: it owns the types of the event log and of the report, and everything after the
//! log is a pure function.

pub mod badge;
pub mod compare;
pub mod directory;
pub mod event;
pub mod evidence;
pub mod gate;
pub mod github;
pub mod history;
pub mod html;
pub mod json;
pub mod junit;
mod lines;
pub mod log;
pub mod markdown;
pub mod merge;
pub mod model;
mod read;
pub mod schema;
pub mod sequential;
pub mod shard;
pub mod sign;
pub mod site;
pub mod status;
pub mod submission;
pub mod tap;
pub mod text;
pub mod waiver;
mod write;

pub use event::{Event, EventBody};
pub use log::EventWriter;
pub use model::{Conclusion, Report, ReportBuilder};
pub use read::{ReadError, read};
pub use write::{WriteError, replace, write_all};
