//! Server-side apply: a manager says which fields it wants, and the server remembers who owns what.
//!
//! Ownership is kept for managers that apply; plain updates do not take part. That is what `kubectl apply --server-side` and controllers that
//! apply need, and it keeps `managedFields` out of objects that nobody applies.
//! Rules: <https://kubernetes.io/docs/reference/using-api/server-side-apply/>

use serde_json::{Map, Value, json};

use super::fields;
use super::schema::{self, List};
use super::strategic::Target;
use crate::error::{StatusCause, StatusError};

/// Who applies, and how.
pub(super) struct Applier<'a> {
    pub(super) manager: &'a str,
    pub(super) force: bool,
    /// `status` when the subresource is applied, else empty.
    pub(super) subresource: &'a str,
    pub(super) api_version: &'a str,
    /// The time of the write, in RFC 3339.
    pub(super) now: &'a str,
}

impl Applier<'_> {
    fn is(&self, entry: &Value) -> bool {
        entry["manager"] == self.manager
            && entry["operation"] == "Apply"
            && entry["subresource"].as_str().unwrap_or_default() == self.subresource
    }
}

/// The live object with `config` applied to it. `live` is null when the object does not exist yet.
pub(super) fn apply(
    target: &Target<'_>,
    applier: &Applier<'_>,
    live: &Value,
    config: &Value,
) -> Result<Value, StatusError> {
    let name = config
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if config
        .pointer("/metadata/managedFields")
        .is_some_and(|m| !m.is_null())
    {
        return Err(StatusError::bad_request(
            "metadata.managedFields must be nil",
        ));
    }
    let mut managed: Vec<Value> = live
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let wanted = fields::of(target, config);

    let mut merged = if live.is_null() {
        json!({})
    } else {
        live.clone()
    };
    merge(target, &mut Vec::new(), &mut merged, config);

    let mut causes = Vec::new();
    for entry in managed.iter_mut().filter(|e| !applier.is(e)) {
        let theirs = &entry["fieldsV1"];
        let lost = fields::conflicts(&wanted, theirs, live, &merged);
        if lost.is_empty() {
            continue;
        }
        if applier.force {
            // A forced field changes hands, together with all that the other manager shares there.
            entry["fieldsV1"] = fields::difference(theirs, &wanted);
        } else {
            let who = entry["manager"].as_str().unwrap_or_default().to_owned();
            causes.extend(lost.into_iter().map(|field| StatusCause {
                reason: "FieldManagerConflict".to_owned(),
                message: format!("conflict with {who:?}"),
                field,
            }));
        }
    }
    if !causes.is_empty() {
        let listed: Vec<String> = causes
            .iter()
            .map(|c| format!("{}: {}", c.message, c.field))
            .collect();
        let plural = if causes.len() == 1 {
            "conflict"
        } else {
            "conflicts"
        };
        let message = format!(
            "Apply failed with {} {plural}: {}",
            causes.len(),
            listed.join("\n- ")
        );
        let mut error = StatusError::new(409, "Conflict", message);
        error.details.kind = target.kind.to_owned();
        error.details.name = name.to_owned();
        error.details.causes = causes;
        return Err(error);
    }

    // What this manager no longer names disappears, unless somebody else owns it.
    if let Some(mine) = managed.iter().find(|e| applier.is(e)) {
        let gone = fields::difference(&mine["fieldsV1"], &wanted);
        let mut kept = wanted.clone();
        for entry in managed.iter().filter(|e| !applier.is(e)) {
            fields::union(&mut kept, &entry["fieldsV1"]);
        }
        fields::remove(&mut merged, &gone, &kept);
    }

    let unchanged = managed
        .iter()
        .any(|e| applier.is(e) && e["fieldsV1"] == wanted);
    if !unchanged {
        managed.retain(|e| !applier.is(e));
        let mut entry = json!({
            "manager": applier.manager,
            "operation": "Apply",
            "apiVersion": applier.api_version,
            "time": applier.now,
            "fieldsType": "FieldsV1",
            "fieldsV1": wanted,
        });
        if !applier.subresource.is_empty() {
            entry["subresource"] = json!(applier.subresource);
        }
        managed.push(entry);
    }
    managed.retain(|e| e["fieldsV1"].as_object().is_some_and(|m| !m.is_empty()));
    if !merged["metadata"].is_object() {
        merged["metadata"] = json!({});
    }
    merged["metadata"]["managedFields"] = Value::Array(managed);
    Ok(merged)
}

/// Merges a configuration into an object. Keyed lists merge by all their keys, an explicit null sets nothing.
fn merge<'p>(target: &Target<'_>, path: &mut Vec<&'p str>, object: &mut Value, config: &'p Value) {
    match config {
        Value::Object(wanted) => {
            if !object.is_object() {
                *object = Value::Object(Map::new());
            }
            let Value::Object(have) = object else { return };
            for (name, value) in wanted {
                if value.is_null() {
                    continue;
                }
                path.push(name);
                merge(
                    target,
                    path,
                    have.entry(name.as_str()).or_insert(Value::Null),
                    value,
                );
                path.pop();
            }
        }
        Value::Array(wanted) => {
            if !object.is_array() {
                *object = Value::Array(Vec::new());
            }
            let Value::Array(have) = object else { return };
            match schema::list(target.group, target.kind, path) {
                List::Atomic => have.clone_from(wanted),
                List::Set => {
                    for item in wanted {
                        if !have.contains(item) {
                            have.push(item.clone());
                        }
                    }
                }
                List::Map(keys) => {
                    for item in wanted {
                        let id = fields::element_key(item, keys);
                        match have.iter_mut().find(|h| fields::element_key(h, keys) == id) {
                            Some(existing) => merge(target, path, existing, item),
                            None => have.push(item.clone()),
                        }
                    }
                }
            }
        }
        scalar => object.clone_from(scalar),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: Target<'_> = Target {
        group: "",
        kind: "Service",
    };

    fn applied(
        manager: &str,
        force: bool,
        live: &Value,
        config: &Value,
    ) -> Result<Value, StatusError> {
        let applier = Applier {
            manager,
            force,
            subresource: "",
            api_version: "v1",
            now: "2026-01-01T00:00:00Z",
        };
        apply(&SERVICE, &applier, live, config)
    }

    #[test]
    fn dropped_fields_disappear_and_foreign_ones_stay() {
        let first = json!({"metadata": {"name": "web", "labels": {"a": "1", "b": "2"}}, "spec": {"ports": [{"port": 80}, {"port": 81}]}});
        let mut live = applied("me", false, &Value::Null, &first).unwrap();
        live["spec"]["clusterIP"] = json!("10.96.0.9");
        live["spec"]["ports"][0]["protocol"] = json!("TCP");
        live["spec"]["ports"][1]["protocol"] = json!("TCP");
        let second = json!({"metadata": {"name": "web", "labels": {"a": "1"}}, "spec": {"ports": [{"port": 80}]}});
        let live = applied("me", false, &live, &second).unwrap();
        assert_eq!(live["metadata"]["labels"], json!({"a": "1"}));
        assert_eq!(
            live["spec"],
            json!({"ports": [{"port": 80, "protocol": "TCP"}], "clusterIP": "10.96.0.9"})
        );
    }

    #[test]
    fn a_field_of_another_manager_conflicts_until_forced() {
        let live = applied(
            "a",
            false,
            &Value::Null,
            &json!({"metadata": {"name": "web"}, "spec": {"type": "ClusterIP"}}),
        )
        .unwrap();
        let theirs = json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort"}});
        let error = applied("b", false, &live, &theirs).unwrap_err();
        assert_eq!(
            (error.code, error.details.causes[0].field.as_str()),
            (409, ".spec.type")
        );
        let live = applied("b", true, &live, &theirs).unwrap();
        assert_eq!(live["spec"]["type"], "NodePort");
        let managers: Vec<_> = live["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| &e["manager"])
            .collect();
        assert_eq!(managers, ["b"]);
    }

    #[test]
    fn equal_values_are_shared_without_conflict() {
        let config = json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort"}});
        let live = applied("a", false, &Value::Null, &config).unwrap();
        let live = applied("b", false, &live, &config).unwrap();
        let live = applied(
            "a",
            false,
            &live,
            &json!({"metadata": {"name": "web"}, "spec": {}}),
        )
        .unwrap();
        assert_eq!(live["spec"]["type"], "NodePort", "b still owns it");
        let live = applied(
            "b",
            false,
            &live,
            &json!({"metadata": {"name": "web"}, "spec": {}}),
        )
        .unwrap();
        assert_eq!(live["spec"].get("type"), None);
    }
}
