//! Strategic merge patch, as `kubectl patch`, `kubectl apply` and client-go's event recorder send it.
//!
//! Rules: <https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md>

use serde_json::{Map, Value};

use super::schema::{self, List};
use crate::error::StatusError;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_ITEMS: &str = "$deleteFromPrimitiveList/";

/// What the patch is about: decides how lists merge.
pub(super) struct Target<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
}

/// Applies `patch` to `object`.
pub(super) fn merge(
    target: &Target<'_>,
    object: &mut Value,
    patch: &Value,
) -> Result<(), StatusError> {
    let Value::Object(patch) = patch else {
        return Err(StatusError::bad_request(
            "a strategic merge patch must be an object",
        ));
    };
    merge_map(target, &mut Vec::new(), object, patch)
}

fn merge_map<'p>(
    target: &Target<'_>,
    path: &mut Vec<&'p str>,
    object: &mut Value,
    patch: &'p Map<String, Value>,
) -> Result<(), StatusError> {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            *object = Value::Object(without_directives(patch));
            return Ok(());
        }
        Some("delete") => {
            *object = Value::Object(Map::new());
            return Ok(());
        }
        Some(other) => {
            return Err(StatusError::bad_request(format!(
                "unknown $patch directive {other:?} at {}",
                path.join(".")
            )));
        }
    }
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(fields) = object else {
        return Ok(());
    };
    if let Some(Value::Array(keep)) = patch.get(RETAIN_KEYS) {
        fields.retain(|key, _| keep.iter().any(|k| k == key));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_ITEMS) {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (fields.get_mut(list), value) {
                items.retain(|item| !gone.contains(item));
            }
        } else if key.starts_with('$') {
            // Directives for this map were handled above; element orders are below.
        } else {
            path.push(key);
            merge_field(target, path, fields, key, value)?;
            path.pop();
        }
    }
    for (key, order) in patch {
        if let (Some(list), Value::Array(order)) = (key.strip_prefix(ORDER), order)
            && let Some(Value::Array(items)) = fields.get_mut(list)
        {
            path.push(list);
            let keys = schema::list(target.group, target.kind, path);
            path.pop();
            sort_like(items, order, keys);
        }
    }
    Ok(())
}

fn merge_field<'p>(
    target: &Target<'_>,
    path: &mut Vec<&'p str>,
    fields: &mut Map<String, Value>,
    key: &str,
    value: &'p Value,
) -> Result<(), StatusError> {
    match value {
        Value::Null => {
            // `shift_remove` keeps the order of the rest, so that objects read the same before and after.
            fields.shift_remove(key);
        }
        Value::Object(patch) => {
            let child = fields
                .entry(key)
                .or_insert_with(|| Value::Object(Map::new()));
            merge_map(target, path, child, patch)?;
        }
        Value::Array(patch) => {
            let child = fields
                .entry(key)
                .or_insert_with(|| Value::Array(Vec::new()));
            if !child.is_array() {
                *child = Value::Array(Vec::new());
            }
            let Value::Array(items) = child else {
                return Ok(());
            };
            match schema::list(target.group, target.kind, path) {
                List::Atomic => {
                    *items = patch.iter().filter(|v| !is_directive(v)).cloned().collect()
                }
                List::Set => {
                    for item in patch {
                        if !items.contains(item) {
                            items.push(item.clone());
                        }
                    }
                }
                List::Map(keys) => merge_list(target, path, items, patch, keys[0])?,
            }
        }
        scalar => {
            fields.insert(key.to_owned(), scalar.clone());
        }
    }
    Ok(())
}

fn is_directive(item: &Value) -> bool {
    item.get(DIRECTIVE).is_some()
}

fn merge_list<'p>(
    target: &Target<'_>,
    path: &mut Vec<&'p str>,
    items: &mut Vec<Value>,
    patch: &'p [Value],
    key: &str,
) -> Result<(), StatusError> {
    if patch
        .iter()
        .any(|p| p.get(DIRECTIVE).is_some_and(|d| d == "replace"))
    {
        *items = patch.iter().filter(|p| !is_directive(p)).cloned().collect();
        return Ok(());
    }
    for element in patch {
        let Value::Object(fields) = element else {
            return Err(StatusError::bad_request(format!(
                "elements of {} must be objects",
                path.join(".")
            )));
        };
        let Some(id) = fields.get(key) else {
            let message = format!("map: {element} does not contain declared merge key: {key}");
            return Err(StatusError::bad_request(message));
        };
        let position = items.iter().position(|item| item.get(key) == Some(id));
        match (fields.get(DIRECTIVE).and_then(Value::as_str), position) {
            (Some("delete"), _) => items.retain(|item| item.get(key) != Some(id)),
            (_, Some(at)) => merge_map(target, path, &mut items[at], fields)?,
            (_, None) => {
                let mut new = Value::Object(Map::new());
                merge_map(target, path, &mut new, fields)?;
                items.push(new);
            }
        }
    }
    Ok(())
}

/// Puts the elements named in `order` into that order; the others stay behind the element they were behind.
fn sort_like(items: &mut Vec<Value>, order: &[Value], keys: List) {
    let place = |item: &Value| match keys {
        List::Map(keys) => order
            .iter()
            .position(|o| o.get(keys[0]) == item.get(keys[0])),
        _ => order.iter().position(|o| o == item),
    };
    let mut last = 0;
    let mut placed: Vec<(usize, Value)> = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        last = place(&item).unwrap_or(last);
        placed.push((last, item));
    }
    placed.sort_by_key(|(at, _)| *at);
    items.extend(placed.into_iter().map(|(_, item)| item));
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch
        .iter()
        .filter(|(k, _)| !k.starts_with('$'))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(kind: &str, mut object: Value, patch: Value) -> Value {
        merge(&Target { group: "", kind }, &mut object, &patch).unwrap();
        object
    }

    #[test]
    fn ports_merge_by_their_number() {
        let old = json!({"spec": {"ports": [{"port": 80, "nodePort": 30080}, {"port": 443}]}});
        let patch = json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 53, "protocol": "UDP"}]}});
        let want = json!({"spec": {"ports": [
            {"port": 80, "nodePort": 30080, "targetPort": 8080}, {"port": 443}, {"port": 53, "protocol": "UDP"},
        ]}});
        assert_eq!(merged("Service", old, patch), want);
    }

    #[test]
    fn elements_are_deleted_and_ordered() {
        let old = json!({"spec": {"ports": [{"port": 80}, {"port": 443}, {"port": 53}]}});
        let patch = json!({"spec": {
            "$setElementOrder/ports": [{"port": 53}, {"port": 80}],
            "ports": [{"port": 443, "$patch": "delete"}],
        }});
        assert_eq!(
            merged("Service", old, patch),
            json!({"spec": {"ports": [{"port": 53}, {"port": 80}]}})
        );
    }

    #[test]
    fn null_removes_and_atomic_lists_are_replaced() {
        let old =
            json!({"spec": {"externalIPs": ["198.51.100.1"], "selector": {"a": "1", "b": "2"}}});
        let patch = json!({"spec": {"externalIPs": ["198.51.100.2"], "selector": {"a": null}}});
        let want = json!({"spec": {"externalIPs": ["198.51.100.2"], "selector": {"b": "2"}}});
        assert_eq!(merged("Service", old, patch), want);
    }

    #[test]
    fn sets_grow_and_shrink() {
        let old = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}});
        assert_eq!(
            merged("Service", old, patch),
            json!({"metadata": {"finalizers": ["b", "c"]}})
        );
    }

    #[test]
    fn replace_and_retain_keys() {
        let old = json!({"spec": {"selector": {"a": "1"}, "strategy": {"type": "RollingUpdate", "rollingUpdate": {}}}});
        let patch = json!({"spec": {
            "selector": {"$patch": "replace", "b": "2"},
            "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
        }});
        assert_eq!(
            merged("Service", old, patch),
            json!({"spec": {"selector": {"b": "2"}, "strategy": {"type": "Recreate"}}})
        );
    }

    #[test]
    fn an_element_without_its_key_is_refused() {
        let mut object = json!({"spec": {"ports": []}});
        let patch = json!({"spec": {"ports": [{"name": "web"}]}});
        let error = merge(
            &Target {
                group: "",
                kind: "Service",
            },
            &mut object,
            &patch,
        )
        .unwrap_err();
        assert_eq!(error.code, 400);
        assert!(
            error.message.contains("merge key: port"),
            "{}",
            error.message
        );
    }
}
