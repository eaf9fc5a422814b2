//! The smallest OpenAPI v3 documents that clients can work with.
//!
//! `kubectl` looks here to learn that the server validates fields itself (the `fieldValidation` parameter of a patch), and then leaves
//! validation to it. Schemas describe kinds, not their fields. Strategic merge patch is not offered as a media type on purpose: a document that
//! offers it must describe every list's merge key, and without it clients use the keys they have built in.

use serde_json::{Map, Value, json};

use crate::registry::{Registry, ResourceType};

fn location(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// `/openapi/v3` (with an empty `rest`) or the document of one group and version.
pub(super) fn document(registry: &Registry, rest: &str) -> Option<Value> {
    if rest.is_empty() {
        let mut paths = Map::new();
        for resource in registry.all() {
            let at = location(&resource.group, &resource.version);
            let url = format!("/openapi/v3/{at}");
            paths.insert(at, json!({"serverRelativeURL": url}));
        }
        return Some(json!({"paths": paths}));
    }
    let here: Vec<_> = registry
        .all()
        .iter()
        .filter(|r| location(&r.group, &r.version) == rest)
        .collect();
    if here.is_empty() {
        return None;
    }
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for resource in here {
        let prefix = if resource.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let collection = format!("/{rest}{prefix}/{}", resource.plural);
        paths.insert(collection.clone(), json!({
            "get": operation("list", resource, &["labelSelector", "fieldSelector", "limit", "continue"]),
            "post": operation("post", resource, &["dryRun", "fieldManager", "fieldValidation"]),
        }));
        paths.insert(
            format!("{collection}/{{name}}"),
            json!({
                "get": operation("get", resource, &[]),
                "put": operation("put", resource, &["dryRun", "fieldManager", "fieldValidation"]),
                "patch": patch(resource),
                "delete": operation("delete", resource, &["dryRun", "gracePeriodSeconds"]),
            }),
        );
        schemas.insert(schema_name(resource), schema(resource));
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Embedded Kubernetes API", "version": "unversioned"},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

fn schema_name(resource: &ResourceType) -> String {
    let group = if resource.group.is_empty() {
        "core"
    } else {
        resource.group.split('.').next().unwrap_or("core")
    };
    format!("io.k8s.api.{group}.{}.{}", resource.version, resource.kind)
}

fn schema(resource: &ResourceType) -> Value {
    let free = |what: &str| json!({"type": "object", "description": what, "x-kubernetes-preserve-unknown-fields": true});
    let mut properties = json!({
        "apiVersion": {"type": "string", "description": "The group and version of this object."},
        "kind": {"type": "string", "description": "The kind of this object."},
        "metadata": free("Standard object metadata."),
        "spec": free("The desired state."),
    });
    if resource.has_status {
        properties["status"] = free("The observed state.");
    }
    json!({
        "type": "object",
        "description": format!("{} as the embedded API server stores it: its fields are not described here.", resource.kind),
        "properties": properties,
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-group-version-kind": [identity(resource)],
    })
}

fn identity(resource: &ResourceType) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

fn operation(action: &str, resource: &ResourceType, parameters: &[&str]) -> Value {
    let reference = json!({"$ref": format!("#/components/schemas/{}", schema_name(resource))});
    let listed: Vec<Value> = parameters
        .iter()
        .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    json!({
        "operationId": format!("{action}{}{}", resource.version, resource.kind),
        "parameters": listed,
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": identity(resource),
    })
}

fn patch(resource: &ResourceType) -> Value {
    let mut patch = operation(
        "patch",
        resource,
        &["dryRun", "fieldManager", "fieldValidation", "force"],
    );
    let any = json!({"schema": {"type": "object"}});
    patch["requestBody"] = json!({"content": {
        "application/json-patch+json": any,
        "application/merge-patch+json": any,
        "application/apply-patch+yaml": any,
    }});
    patch
}
