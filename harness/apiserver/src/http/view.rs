//! The forms in which objects are shown: whole, as metadata only, or as a row of a table.

use bytes::Bytes;
use serde_json::{Value, json};

use super::query::Form;
use super::table;
use crate::registry::ResourceType;
use crate::store::Object;

/// How objects of one resource are shown in one response.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) form: Form,
    pub(super) resource: &'a ResourceType,
    /// What table rows carry beside their cells (`includeObject`): `None`, `Metadata` or `Object`.
    pub(super) include: &'a str,
}

/// `PartialObjectMetadata` of an object.
pub(super) fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

impl View<'_> {
    /// One object.
    pub(super) fn one(&self, object: &Object) -> Bytes {
        match self.form {
            Form::Table => {
                let value = object.value();
                let version = value["metadata"]["resourceVersion"].clone();
                table::render(
                    self.resource,
                    self.include,
                    &[value],
                    json!({"resourceVersion": version}),
                )
                .to_string()
                .into()
            }
            Form::Metadata => metadata_only(&object.value()).to_string().into(),
            Form::Plain | Form::AggregatedDiscovery => object.json(),
        }
    }

    /// A list. `metadata` holds its resourceVersion and how it continues.
    pub(super) fn many<'o>(
        &self,
        objects: impl IntoIterator<Item = &'o Object>,
        metadata: &Value,
    ) -> Bytes {
        let objects = objects.into_iter();
        match self.form {
            Form::Table => {
                let values: Vec<Value> = objects.map(Object::value).collect();
                table::render(self.resource, self.include, &values, metadata.clone())
                    .to_string()
                    .into()
            }
            Form::Metadata => {
                let items: Vec<Value> = objects.map(|o| metadata_only(&o.value())).collect();
                let list = json!({
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata,
                    "items": items,
                });
                list.to_string().into()
            }
            Form::Plain | Form::AggregatedDiscovery => {
                let parts: Vec<Bytes> = objects.map(Object::json).collect();
                let size: usize = parts.iter().map(|p| p.len() + 1).sum();
                let head = format!(
                    "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
                    self.resource.kind,
                    self.resource.api_version(),
                );
                let mut body = Vec::with_capacity(head.len() + size + 2);
                body.extend_from_slice(head.as_bytes());
                for (at, part) in parts.iter().enumerate() {
                    if at > 0 {
                        body.push(b',');
                    }
                    body.extend_from_slice(part);
                }
                body.extend_from_slice(b"]}");
                body.into()
            }
        }
    }
}
