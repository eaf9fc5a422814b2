//! Discovery: which groups, versions and resources there are.

use serde_json::{Value, json};

use super::reviews::REVIEWS;
use crate::registry::{Registry, ResourceType};

/// The media type of aggregated discovery (KEP-3352).
pub(super) const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const STATUS_VERBS: &[&str] = &["get", "patch", "update"];

/// `/version`.
pub(super) fn version(git: &str) -> Value {
    let mut numbers = git.trim_start_matches('v').split('.');
    let mut next = || numbers.next().unwrap_or("0").to_owned();
    let (major, minor) = (next(), next());
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": git,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "linux/amd64",
    })
}

/// `/api`.
pub(super) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// The named groups with their versions, in the order they were registered.
fn named_groups(registry: &Registry) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    let served = registry
        .all()
        .iter()
        .map(|r| (r.group.as_str(), r.version.as_str()));
    let reviews = REVIEWS.iter().map(|(group, _)| (*group, "v1"));
    for (group, version) in served.chain(reviews).filter(|(group, _)| !group.is_empty()) {
        match groups.iter_mut().find(|(g, _)| g == group) {
            Some((_, versions)) if versions.iter().any(|v| v == version) => {}
            Some((_, versions)) => versions.push(version.to_owned()),
            None => groups.push((group.to_owned(), vec![version.to_owned()])),
        }
    }
    groups
}

fn group_value(name: &str, versions: &[String]) -> Value {
    let entry = |v: &String| json!({"groupVersion": format!("{name}/{v}"), "version": v});
    let listed: Vec<Value> = versions.iter().map(entry).collect();
    json!({"name": name, "versions": listed, "preferredVersion": listed.first()})
}

/// `/apis`.
pub(super) fn groups(registry: &Registry) -> Value {
    let groups: Vec<Value> = named_groups(registry)
        .iter()
        .map(|(g, v)| group_value(g, v))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub(super) fn group(registry: &Registry, name: &str) -> Option<Value> {
    let groups = named_groups(registry);
    let (name, versions) = groups.iter().find(|(g, _)| g == name)?;
    let mut value = group_value(name, versions);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Some(value)
}

fn reviews_in(group: &str, version: &str) -> Vec<(&'static str, &'static str)> {
    let found = REVIEWS.iter().find(|(g, _)| *g == group && version == "v1");
    found.map(|(_, kinds)| kinds.to_vec()).unwrap_or_default()
}

fn in_version(registry: &Registry, group: &str, version: &str) -> Vec<ResourceType> {
    let here = registry
        .all()
        .iter()
        .filter(|r| r.group == group && r.version == version);
    here.map(|r| ResourceType::clone(r)).collect()
}

/// `/api/v1` or `/apis/GROUP/VERSION`.
pub(super) fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut listed = Vec::new();
    for resource in in_version(registry, group, version) {
        let mut entry = json!({
            "name": resource.plural,
            "singularName": resource.singular(),
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": VERBS,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        listed.push(entry);
        if resource.has_status {
            listed.push(json!({
                "name": format!("{}/status", resource.plural),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": STATUS_VERBS,
            }));
        }
    }
    for (plural, kind) in reviews_in(group, version) {
        listed.push(json!({
            "name": plural,
            "singularName": kind.to_lowercase(),
            "namespaced": plural.starts_with("local"),
            "kind": kind,
            "verbs": ["create"],
        }));
    }
    if listed.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}),
    )
}

fn aggregated_version(registry: &Registry, group: &str, version: &str) -> Value {
    let mut listed = Vec::new();
    let kind = |kind: &str| json!({"group": group, "version": version, "kind": kind});
    let scope = |namespaced: bool| if namespaced { "Namespaced" } else { "Cluster" };
    for resource in in_version(registry, group, version) {
        let mut entry = json!({
            "resource": resource.plural,
            "responseKind": kind(&resource.kind),
            "scope": scope(resource.namespaced),
            "singularResource": resource.singular(),
            "verbs": VERBS,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        if resource.has_status {
            let status = json!({"subresource": "status", "responseKind": kind(&resource.kind), "verbs": STATUS_VERBS});
            entry["subresources"] = json!([status]);
        }
        listed.push(entry);
    }
    for (plural, name) in reviews_in(group, version) {
        listed.push(json!({
            "resource": plural,
            "responseKind": kind(name),
            "scope": scope(plural.starts_with("local")),
            "singularResource": name.to_lowercase(),
            "verbs": ["create"],
        }));
    }
    json!({"version": version, "resources": listed, "freshness": "Current"})
}

/// `/api` or `/apis` in one document.
pub(super) fn aggregated(registry: &Registry, core: bool) -> Value {
    let groups = if core {
        vec![(String::new(), vec!["v1".to_owned()])]
    } else {
        named_groups(registry)
    };
    let item = |(group, versions): &(String, Vec<String>)| {
        let versions: Vec<Value> = versions
            .iter()
            .map(|v| aggregated_version(registry, group, v))
            .collect();
        let metadata = if group.is_empty() {
            json!({"creationTimestamp": Value::Null})
        } else {
            json!({"name": group, "creationTimestamp": Value::Null})
        };
        json!({"metadata": metadata, "versions": versions})
    };
    let items: Vec<Value> = groups.iter().map(item).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}
