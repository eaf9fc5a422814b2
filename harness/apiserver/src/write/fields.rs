//! Sets of fields, as `metadata.managedFields[].fieldsV1` writes them down.
//!
//! The format: `f:name` for a field, `k:{...}` for the element of a keyed list, `v:...` for the member of a set, `.` for the thing itself.
//! Source: `sigs.k8s.io/structured-merge-diff`, `fieldpath/serialize.go`.

use serde_json::{Map, Value, json};

use super::schema::{self, List, key_default};
use super::strategic::Target;

/// The keys that identify an element of a keyed list, as one JSON object.
pub(super) fn element_key(item: &Value, keys: &[&str]) -> Value {
    let mut id = Map::new();
    for key in keys {
        let value = item
            .get(key)
            .cloned()
            .or_else(|| key_default(key).map(Value::from));
        if let Some(value) = value {
            id.insert((*key).to_owned(), value);
        }
    }
    Value::Object(id)
}

/// The fields that an applied configuration sets, as a `fieldsV1` object. `apiVersion`, `kind` and the identity in `metadata` are nobody's.
pub(super) fn of(target: &Target<'_>, object: &Value) -> Value {
    let mut set = Map::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        match name.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                let mut inner = Map::new();
                for (field, value) in value.as_object().into_iter().flatten() {
                    const IDENTITY: &[&str] = &[
                        "name",
                        "namespace",
                        "uid",
                        "resourceVersion",
                        "generation",
                        "creationTimestamp",
                        "managedFields",
                        "selfLink",
                        "deletionTimestamp",
                        "generateName",
                    ];
                    if !IDENTITY.contains(&field.as_str()) {
                        let mut path = vec!["metadata", field.as_str()];
                        inner.insert(format!("f:{field}"), walk(target, &mut path, value));
                    }
                }
                if !inner.is_empty() {
                    set.insert("f:metadata".to_owned(), Value::Object(inner));
                }
            }
            _ => {
                set.insert(format!("f:{name}"), walk(target, &mut vec![name], value));
            }
        }
    }
    Value::Object(set)
}

fn walk<'p>(target: &Target<'_>, path: &mut Vec<&'p str>, value: &'p Value) -> Value {
    let mut set = Map::new();
    match value {
        Value::Object(fields) => {
            for (name, child) in fields {
                path.push(name);
                set.insert(format!("f:{name}"), walk(target, path, child));
                path.pop();
            }
        }
        Value::Array(items) => match schema::list(target.group, target.kind, path) {
            List::Atomic => {}
            List::Set => {
                for item in items {
                    set.insert(format!("v:{item}"), json!({}));
                }
            }
            List::Map(keys) => {
                for item in items {
                    let mut inner = walk(target, path, item);
                    inner["."] = json!({});
                    set.insert(format!("k:{}", element_key(item, keys)), inner);
                }
            }
        },
        _ => {}
    }
    Value::Object(set)
}

/// Whether nothing lies below: an owned value, not a path to one.
pub(super) fn is_leaf(set: &Value) -> bool {
    set.as_object().is_none_or(|m| m.keys().all(|k| k == "."))
}

/// The fields in `a` that are not in `b`.
pub(super) fn difference(a: &Value, b: &Value) -> Value {
    let mut rest = Map::new();
    for (key, inner) in a.as_object().into_iter().flatten() {
        match b.get(key) {
            None => {
                rest.insert(key.clone(), inner.clone());
            }
            Some(other) if !is_leaf(inner) => {
                let below = difference(inner, other);
                if below.as_object().is_some_and(|m| !m.is_empty()) {
                    rest.insert(key.clone(), below);
                }
            }
            Some(_) => {}
        }
    }
    Value::Object(rest)
}

/// The value a field set's key leads to inside `value`.
pub(super) fn step<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    if let Some(name) = key.strip_prefix("f:") {
        value.get(name)
    } else if let Some(id) = key.strip_prefix("k:") {
        let at = position(value.as_array()?, id)?;
        value.get(at)
    } else if let Some(text) = key.strip_prefix("v:") {
        let wanted: Value = serde_json::from_str(text).ok()?;
        value.as_array()?.iter().find(|item| **item == wanted)
    } else {
        None
    }
}

/// Where the element with this key (a JSON object) stands in a list.
fn position(items: &[Value], id: &str) -> Option<usize> {
    let id: Map<String, Value> = serde_json::from_str(id).ok()?;
    let keys: Vec<&str> = id.keys().map(String::as_str).collect();
    items
        .iter()
        .position(|item| element_key(item, &keys) == Value::Object(id.clone()))
}

/// Removes from `value` everything that `gone` names, unless `kept` (what anybody still owns) names it too.
pub(super) fn remove(value: &mut Value, gone: &Value, kept: &Value) {
    for (key, inner) in gone.as_object().into_iter().flatten() {
        let still = kept.get(key);
        if key == "." {
            continue;
        }
        let nothing = json!({});
        let drop_it = still.is_none()
            && (is_leaf(inner) || inner.get(".").is_some() || key.starts_with("v:"));
        match key.split_at(2) {
            ("f:", name) => {
                let Some(fields) = value.as_object_mut() else {
                    continue;
                };
                if drop_it {
                    fields.shift_remove(name);
                } else if let Some(child) = fields.get_mut(name) {
                    remove(child, inner, still.unwrap_or(&nothing));
                    let emptied = child.as_object().is_some_and(Map::is_empty)
                        || child.as_array().is_some_and(Vec::is_empty);
                    if emptied && still.is_none() {
                        fields.shift_remove(name);
                    }
                }
            }
            ("k:", id) => {
                let Some(items) = value.as_array_mut() else {
                    continue;
                };
                let Some(at) = position(items, id) else {
                    continue;
                };
                if drop_it {
                    items.remove(at);
                } else {
                    remove(&mut items[at], inner, still.unwrap_or(&nothing));
                }
            }
            ("v:", text) if drop_it => {
                let Some(items) = value.as_array_mut() else {
                    continue;
                };
                if let Ok(gone) = serde_json::from_str::<Value>(text) {
                    items.retain(|item| *item != gone);
                }
            }
            _ => {}
        }
    }
}

/// The union of two sets.
pub(super) fn union(into: &mut Value, from: &Value) {
    let Some(fields) = into.as_object_mut() else {
        return;
    };
    for (key, inner) in from.as_object().into_iter().flatten() {
        match fields.get_mut(key) {
            Some(existing) => union(existing, inner),
            None => drop(fields.insert(key.clone(), inner.clone())),
        }
    }
}

/// The owned values (as dotted paths) that both sets name and that differ between `old` and `new`.
pub(super) fn conflicts(mine: &Value, theirs: &Value, old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect_conflicts(
        mine,
        theirs,
        Some(old),
        Some(new),
        &mut String::new(),
        &mut found,
    );
    found
}

fn collect_conflicts(
    mine: &Value,
    theirs: &Value,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut String,
    found: &mut Vec<String>,
) {
    for (key, inner) in mine.as_object().into_iter().flatten() {
        let Some(other) = theirs.get(key) else {
            continue;
        };
        if key == "." {
            continue;
        }
        let length = path.len();
        match key.split_at(2) {
            ("f:", name) => {
                path.push('.');
                path.push_str(name);
            }
            (_, id) => {
                path.push('[');
                path.push_str(&id.replace(['{', '}'], "").replace("\":", "="));
                path.push(']');
            }
        }
        let (before, after) = (
            old.and_then(|v| step(v, key)),
            new.and_then(|v| step(v, key)),
        );
        if is_leaf(inner) && is_leaf(other) {
            if before != after {
                found.push(path.clone());
            }
        } else {
            collect_conflicts(inner, other, before, after, path, found);
        }
        path.truncate(length);
    }
}
