//! Report model, JSON Schema and renderers.
//!
//! ```text
//!  runner --append--> events.jsonl --read--> Report --render--> report.json, junit.xml, report.md
//!         (log)                     (log)   (model)             (json, junit, markdown)
//! ```

pub mod event;
