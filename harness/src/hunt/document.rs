//! A scenario as the text of a document: as short as somebody would write it, without what is the default anyway.

use serde_json::{Map, Value, json};

use crate::scenario::{
    Scenario,
    doc::{Converge, Fault, FlowStep, Probe, State, Step, Target},
};

/// The document. Reading it gives the same scenario.
pub fn text(scenario: &Scenario) -> String {
    let value = value(scenario);
    let mut text = String::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Array(items) if matches!(key.as_str(), "steps" | "objects") => {
                text.push_str(&format!("{key}:\n"));
                for item in items {
                    text.push_str(&format!("  - {}\n", inner(key == "objects", item)));
                }
            }
            Value::Object(fields) if key == "topology" => {
                text.push_str("topology:\n");
                for (field, value) in fields {
                    match value {
                        Value::Array(items) => {
                            text.push_str(&format!("  {field}:\n"));
                            for item in items {
                                text.push_str(&format!("    - {}\n", flow(item)));
                            }
                        }
                        other => text.push_str(&format!("  {field}: {}\n", flow(other))),
                    }
                }
            }
            other => text.push_str(&format!("{key}: {}\n", flow(other))),
        }
    }
    text
}

/// The verb of a step without braces, as people write it, and the fields of an object one below the other.
fn inner(object: bool, item: &Value) -> String {
    match item {
        Value::Object(fields) if object || fields.len() == 1 => {
            let lines: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{}: {}", word(key), flow(value)))
                .collect();
            lines.join("\n    ")
        }
        other => flow(other),
    }
}

/// The scenario as a value, without what is the default anyway.
pub fn value(scenario: &Scenario) -> Value {
    let mut value = plain(scenario);
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|key, value| match key.as_str() {
            "id" | "title" | "requirement" | "level" | "steps" | "topology" => true,
            "proxy" => *value != json!({"nodeportAddresses": []}),
            _ => !is_empty(value),
        });
    }
    if let Some(topology) = value["topology"].as_object_mut() {
        topology.retain(|key, value| key != "outside" || *value != json!({"mtu": null}));
        topology.retain(|_, value| !is_empty(value));
    }
    for node in items(&mut value["topology"]["nodes"]) {
        drop_empty(node);
    }
    for pod in items(&mut value["topology"]["pods"]) {
        let Some(pod) = pod.as_object_mut() else {
            continue;
        };
        pod.retain(|key, value| match key.as_str() {
            "ready" | "started" => *value == json!(false),
            "hostNetwork" => *value == json!(true),
            _ => !is_empty(value),
        });
        for port in pod.get_mut("ports").map(items).into_iter().flatten() {
            drop_empty(port);
            drop_equal(port, &json!({"protocol": "TCP"}));
        }
    }
    for step in items(&mut value["steps"]) {
        drop_equal(step, &plain(&Step::default()));
        let target = plain(&Target::default());
        for (verb, default) in [
            ("probe", plain(&Probe::default())),
            ("flow", plain(&FlowStep::default())),
            ("converge", plain(&Converge::default())),
            ("fault", plain(&Fault::default())),
            ("state", plain(&State::default())),
        ] {
            let Some(body) = step.get_mut(verb) else {
                continue;
            };
            drop_equal(body, &default);
            match body.get_mut("to") {
                Some(Value::Array(targets)) => {
                    for one in targets {
                        drop_equal(one, &target);
                    }
                }
                Some(one) => drop_equal(one, &target),
                None => {}
            }
        }
        for verb in ["patch", "delete", "inject"] {
            match step.get_mut(verb) {
                Some(Value::Array(list)) => list.iter_mut().for_each(drop_null),
                Some(one) => drop_null(one),
                None => {}
            }
        }
        if let Some(patch) = step.get_mut("patch") {
            drop_equal(patch, &json!({"type": "merge"}));
        }
    }
    value
}

fn plain(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("documents have string keys and no numbers that JSON lacks")
}

fn items(value: &mut Value) -> &mut [Value] {
    value.as_array_mut().map_or(&mut [], Vec::as_mut_slice)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn drop_empty(value: &mut Value) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, value| !is_empty(value));
    }
}

/// Only at the top: what a patch sets to null has a meaning.
fn drop_null(value: &mut Value) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
}

fn drop_equal(value: &mut Value, default: &Value) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, value| default.get(key) != Some(value));
    }
}

/// A value on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) => map_text(map),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::String(text) => word(text),
        other => other.to_string(),
    }
}

fn map_text(map: &Map<String, Value>) -> String {
    let fields: Vec<String> = map
        .iter()
        .map(|(key, value)| format!("{}: {}", word(key), flow(value)))
        .collect();
    format!("{{{}}}", fields.join(", "))
}

/// Plain where YAML reads nothing else into it, quoted as in JSON otherwise.
fn word(text: &str) -> String {
    let first = text
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '/' || c == '$');
    let rest = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_./$()".contains(c));
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let number = text.ends_with("inf") || text.ends_with("nan");
    if first && rest && !number && !reserved.contains(&text.to_ascii_lowercase().as_str()) {
        text.to_owned()
    } else {
        Value::String(text.to_owned()).to_string()
    }
}
