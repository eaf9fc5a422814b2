//! The published JSON Schemas are those of the types, and they accept what is written and refuse what is not.
//!
//! After an intended change: `UPDATE_SCHEMA=1 cargo test -p reports --test schema`, then read the difference.

mod fixture;

use std::path::Path;

use fixture::{Run, hostile};
use reports::event::{Experiment, Verdict};
use reports::schema;
use serde_json::{Value, json};

#[test]
fn published_schemas_are_in_step_with_the_types() {
    for (name, derived, published) in [
        ("event-v4.json", schema::event(), schema::EVENT_V4),
        ("report-v1.json", schema::report(), schema::REPORT_V1),
    ] {
        let derived = format!("{}\n", serde_json::to_string_pretty(&derived).unwrap());
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
            std::fs::write(dir.join(name), &derived).unwrap();
        } else {
            assert!(
                derived == published,
                "schema/{name} is out of step: see this file's head"
            );
        }
    }
}

#[test]
fn every_kind_of_event_matches_the_schema() {
    let schema: Value = serde_json::from_str(schema::EVENT_V4).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let mut run = Run::new(1);
    run.case(
        "c",
        &["SVC-1"],
        &[Verdict::Fail, Verdict::Skip, Verdict::Infra],
    );
    run.characteristic("c", "choice", "left", "Left or right.");
    run.resumed();
    run.setup("create the cluster", 41.0, None);
    run.experiment("c", Experiment::Alone, 5, 5, 0);
    let events = run.events().into_iter().chain(hostile().events());
    let mut kinds = std::collections::BTreeSet::new();
    for event in events {
        let value = serde_json::to_value(&event).unwrap();
        if let Err(error) = schema.validate(&value) {
            panic!("{value}: {error}");
        }
        kinds.insert(value["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds.len(), 11, "{kinds:?}");

    let good = json!({"seq": 0, "time": "t", "type": "runFinished", "reason": "completed"});
    assert!(schema.is_valid(&good));
    for (field, bad) in [
        ("seq", json!(-1)),
        ("time", json!(7)),
        ("type", json!("dance")),
        ("reason", json!("bored")),
    ] {
        let mut value = good.clone();
        value[field] = bad;
        assert!(!schema.is_valid(&value), "{value}");
    }
}
