//! Objects as they are in YAML, and how they are named.

use std::fmt;

use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use crate::error::ParseError;

/// Identity of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// `v1`, `apps/v1`...
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace, if one is written down.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

impl ObjectId {
    /// The API group; empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version
            .split_once('/')
            .map_or("", |(group, _)| group)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// An object, as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its identity.
    pub id: ObjectId,
    /// Where it comes from, for messages.
    pub source: String,
    /// 1-based line of the text at which its document begins, if it was a text.
    pub line: Option<u64>,
    /// All of it.
    pub value: Value,
}

impl Object {
    /// Reads YAML documents the way `kubectl` does: YAML 1.1 numbers and truth values, empty documents left out, lists taken apart.
    ///
    /// # Errors
    /// When the text is no YAML, or a document is no object with a name.
    pub fn parse(source: &str, text: &str) -> Result<Vec<Self>, ParseError> {
        // `defaultMode: 0400` is octal to Kubernetes. Manifests with definitions of megabytes are ordinary, and nobody's attack.
        let options = serde_saphyr::options! {
            budget: None,
            legacy_octal_numbers: true,
        };
        let documents: Vec<Spanned<Value>> =
            serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
                ParseError {
                    source_name: source.into(),
                    line: error.location().map(|location| location.line()),
                    message: said(&error),
                }
            })?;
        let mut objects = Vec::new();
        for document in documents {
            let line = document.defined.line();
            flatten(source, Some(line), document.value, &mut objects)?;
        }
        Ok(objects)
    }

    /// Where it comes from, with the line if it is known.
    pub fn place(&self) -> String {
        match self.line {
            Some(line) => format!("{}:{line}", self.source),
            None => self.source.clone(),
        }
    }

    /// Takes an object from its JSON.
    ///
    /// # Errors
    /// When it has no kind or no name.
    pub fn from_value(source: &str, value: Value) -> Result<Self, ParseError> {
        let text = |pointer: &str| {
            let text = value.pointer(pointer).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let problem = |message: String| ParseError {
            source_name: source.into(),
            line: None,
            message,
        };
        let (Some(api_version), Some(kind)) = (text("/apiVersion"), text("/kind")) else {
            let start: String = value.to_string().chars().take(80).collect();
            return Err(problem(format!(
                "a document without apiVersion and kind: {start}"
            )));
        };
        let Some(name) = text("/metadata/name") else {
            return Err(problem(format!(
                "a {kind} without metadata.name: what is installed must be found again"
            )));
        };
        Ok(Self {
            id: ObjectId {
                namespace: text("/metadata/namespace"),
                api_version,
                kind,
                name,
            },
            source: source.into(),
            line: None,
            value,
        })
    }
}

/// What is wrong, in one line and without the place, which is told anyway and may be a part of a larger file.
fn said(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let text = text.lines().next().unwrap_or_default();
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let text = match text.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") => rest,
        _ => text,
    };
    text.rsplit_once(" at line ")
        .map_or(text, |(text, _)| text)
        .to_owned()
}

fn flatten(
    source: &str,
    line: Option<u64>,
    document: Value,
    objects: &mut Vec<Object>,
) -> Result<(), ParseError> {
    let kind = document["kind"].as_str().unwrap_or_default();
    if kind.ends_with("List")
        && document["items"].is_array()
        && document["metadata"]["name"].is_null()
    {
        let mut document = document;
        let Value::Array(items) = document["items"].take() else {
            unreachable!("it was looked at");
        };
        for item in items {
            flatten(source, line, item, objects)?;
        }
        return Ok(());
    }
    let object = Object::from_value(source, document);
    let object = object.map_err(|error| ParseError { line, ..error })?;
    objects.push(Object { line, ..object });
    Ok(())
}

/// A field of `metadata` that is a map of texts, made if it is not there.
pub(crate) fn metadata_map<'a>(value: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    let map = &mut value["metadata"][field];
    if !map.is_object() {
        *map = Value::Object(Map::new());
    }
    map.as_object_mut().expect("just made")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_as_kubectl_does() {
        let text = "# only a comment\n---\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: x}}\n- {apiVersion: v1, kind: Namespace, metadata: {name: b}}\n---\napiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: c}\nspec: {mode: 0400, port: 80, on: \"yes\", big: 0x10}\n";
        let objects = Object::parse("f.yaml", text).expect("objects");
        let ids: Vec<String> = objects.iter().map(|object| object.id.to_string()).collect();
        assert_eq!(ids, ["ConfigMap x/a", "Namespace b", "DaemonSet c"]);
        let places: Vec<String> = objects.iter().map(Object::place).collect();
        assert_eq!(places, ["f.yaml:4", "f.yaml:4", "f.yaml:10"]);
        let spec = &objects[2].value["spec"];
        assert_eq!(
            *spec,
            serde_json::json!({"mode": 256, "port": 80, "on": "yes", "big": 16})
        );
    }

    #[test]
    fn messages_say_what_and_where() {
        let table = [
            ("a: [\n", "f.yaml:"),
            (
                "a: 1\n",
                "f.yaml:1: a document without apiVersion and kind: {\"a\":1}",
            ),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {generateName: x-}\n",
                "a Pod without metadata.name",
            ),
            ("apiVersion: v1\nkind: Pod\nkind: Pod\n", "f.yaml:3: "),
        ];
        for (text, want) in table {
            let message = Object::parse("f.yaml", text).expect_err(text).to_string();
            assert!(message.contains(want), "{message}\nshould contain: {want}");
        }
    }

    #[test]
    fn definitions_of_megabytes_are_read() {
        let property =
            "            description: Some words about a field, again and again and again.\n";
        let mut text = String::from(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a}\nspec:\n  properties:\n",
        );
        for number in 0..40_000 {
            text.push_str(&format!("    field{number}:\n{property}"));
        }
        assert!(text.len() > 3 << 20);
        assert_eq!(Object::parse("f.yaml", &text).expect("an object").len(), 1);
    }
}
