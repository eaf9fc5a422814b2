//! Label and field selectors, as they stand in a request's query.

use serde_json::Value;

use crate::error::StatusError;
use crate::store::Object;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

/// Which objects a list, a watch or a deletecollection is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    /// A field's path, the value it must (or must not) have.
    fields: Vec<(String, String, bool)>,
}

impl Selector {
    /// Reads `labelSelector` and `fieldSelector`; empty ones select everything.
    pub(crate) fn parse(labels: &str, fields: &str) -> Result<Self, StatusError> {
        let bad = |what: &str, why: String| {
            StatusError::bad_request(format!("unable to parse {what} selector: {why}"))
        };
        Ok(Selector {
            labels: parse_labels(labels).map_err(|e| bad("label", e))?,
            fields: parse_fields(fields).map_err(|e| bad("field", e))?,
        })
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        if !self.labels.iter().all(|r| r.holds(object)) {
            return false;
        }
        // Names are at hand; any other field costs reading the object.
        let mut value: Option<Value> = None;
        self.fields.iter().all(|(path, wanted, equal)| {
            let same = match path.as_str() {
                "metadata.name" => *object.name == **wanted,
                "metadata.namespace" => *object.namespace == **wanted,
                path => field(value.get_or_insert_with(|| object.value()), path) == *wanted,
            };
            same == *equal
        })
    }
}

/// A field's value as the text that selectors compare; missing fields are empty.
fn field(object: &Value, path: &str) -> String {
    let found = path
        .split('.')
        .try_fold(object, |value, key| value.get(key));
    match found {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

impl Requirement {
    fn holds(&self, object: &Object) -> bool {
        match self {
            Requirement::In(key, values) => object
                .label(key)
                .is_some_and(|v| values.iter().any(|w| w == v)),
            Requirement::NotIn(key, values) => object
                .label(key)
                .is_none_or(|v| values.iter().all(|w| w != v)),
            Requirement::Exists(key) => object.label(key).is_some(),
            Requirement::Missing(key) => object.label(key).is_none(),
        }
    }
}

/// Splits at commas that are not inside parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, String> {
    split(text).map(parse_label).collect()
}

fn parse_label(part: &str) -> Result<Requirement, String> {
    let set = |key: &str, list: &str| -> Result<(String, Vec<String>), String> {
        let inner = list
            .trim()
            .strip_prefix('(')
            .and_then(|l| l.strip_suffix(')'));
        let inner =
            inner.ok_or_else(|| format!("found {list:?}, expected a list in parentheses"))?;
        Ok((
            label_key(key)?,
            inner.split(',').map(|v| v.trim().to_owned()).collect(),
        ))
    };
    if let Some((key, list)) = part
        .split_once(" notin ")
        .or_else(|| part.split_once(" notin("))
    {
        let (key, values) = set(key, &reopened(part, list))?;
        return Ok(Requirement::NotIn(key, values));
    }
    if let Some((key, list)) = part.split_once(" in ").or_else(|| part.split_once(" in(")) {
        let (key, values) = set(key, &reopened(part, list))?;
        return Ok(Requirement::In(key, values));
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(
            label_key(key)?,
            vec![value.trim().to_owned()],
        ));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Requirement::In(
            label_key(key)?,
            vec![value.trim().to_owned()],
        ));
    }
    match part.strip_prefix('!') {
        Some(key) => Ok(Requirement::Missing(label_key(key)?)),
        None => Ok(Requirement::Exists(label_key(part)?)),
    }
}

/// Gives `in(a,b)`, split behind its parenthesis, the parenthesis back.
fn reopened(part: &str, list: &str) -> String {
    let open = part.len() - list.len();
    if part[..open].ends_with('(') {
        format!("({list}")
    } else {
        list.to_owned()
    }
}

fn label_key(key: &str) -> Result<String, String> {
    let key = key.trim();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if key.is_empty() || !key.chars().all(allowed) {
        return Err(format!(
            "<nil>: Invalid value: {key:?}: name part must consist of alphanumeric characters, '-', '_' or '.'"
        ));
    }
    Ok(key.to_owned())
}

fn parse_fields(text: &str) -> Result<Vec<(String, String, bool)>, String> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
                (path, value, false)
            } else if let Some((path, value)) =
                part.split_once("==").or_else(|| part.split_once('='))
            {
                (path, value, true)
            } else {
                return Err(format!(
                    "invalid selector: {part:?}; can't understand {part:?}"
                ));
            };
            Ok((path.trim().to_owned(), value.trim().to_owned(), equal))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::Verb;

    fn object() -> Object {
        let value = json!({
            "metadata": {"name": "web-0", "namespace": "default", "labels": {"app": "web", "tier": "front"}},
            "spec": {"nodeName": "node-1", "hostNetwork": false},
        });
        Object::new(&value, Verb::Added, 1)
    }

    #[test]
    fn selectors_select() {
        let table = [
            ("app=web", "", true),
            ("app==web,tier!=back", "", true),
            ("app in (api, web),tier notin (back)", "", true),
            ("app in (api)", "", false),
            ("app in(web)", "", true),
            ("!app", "", false),
            (
                "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name",
                "",
                true,
            ),
            ("app", "", true),
            ("missing!=x", "", true),
            ("missing notin (x,y)", "", true),
            ("", "metadata.name=web-0", true),
            ("", "metadata.name=web-1", false),
            (
                "",
                "spec.nodeName=node-1,metadata.namespace!=kube-system",
                true,
            ),
            ("", "spec.nodeName!=node-1", false),
            ("", "spec.hostNetwork=false", true),
            ("", "spec.absent=", true),
        ];
        for (labels, fields, wanted) in table {
            let selector = Selector::parse(labels, fields).unwrap();
            assert_eq!(selector.matches(&object()), wanted, "{labels:?} {fields:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (labels, fields) in [("app in web", ""), ("a b", ""), ("", "metadata.name")] {
            assert_eq!(
                Selector::parse(labels, fields).unwrap_err().code,
                400,
                "{labels:?} {fields:?}"
            );
        }
    }
}
