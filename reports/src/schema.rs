//! The JSON Schemas of the log and of the report, published in `schema/` so that others can validate without this crate.

use serde_json::Value;

use crate::event::Event;
use crate::model::Report;

/// The published schema of one line of the event log.
pub const EVENT_V4: &str = include_str!("../schema/event-v4.json");

/// The published schema of `report.json`.
pub const REPORT_V1: &str = include_str!("../schema/report-v1.json");

/// The schema of one line of the event log, derived from the types.
pub fn event() -> Value {
    schemars::schema_for!(Event).into()
}

/// The schema of `report.json`, derived from the types.
pub fn report() -> Value {
    schemars::schema_for!(Report).into()
}
