//! Walking through JSON that may have any shape.

use serde_json::Value;

/// The objects in the list `parent[field]`; nothing when there is no such list. Unlike indexing a mutable value, this does not add the field when it is missing.
pub(super) fn objects_mut<'a>(
    parent: &'a mut Value,
    field: &str,
) -> impl Iterator<Item = &'a mut Value> {
    let list = parent.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter()
        .flatten()
        .filter(|element| element.is_object())
}
