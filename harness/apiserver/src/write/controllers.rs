//! What the cluster does by itself after a write: EndpointSlices follow Pods, content follows its namespace, resources follow their definition.
//!
//! It runs within the write that caused it, so that a scenario sees one deterministic order of events.

use std::sync::Arc;

use serde_json::Value;

use super::verbs::{Target, Writer};
use super::{DeleteOptions, WriteOptions};
use crate::controllers::endpointslice::{SliceChange, reconcile};
use crate::error::StatusError;
use crate::registry::{self, Registry, ResourceType};
use crate::store::{Object, Verb, object_key};

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// A node's fields that decide about slices: zone labels, readiness and capacity (topology hints).
const NODE_FIELDS: &[&str] = &[
    "/metadata/labels",
    "/status/conditions",
    "/status/allocatable",
];

fn managed(object: &Object) -> bool {
    object.label(MANAGED_BY) == Some(CONTROLLER)
}

fn selected(selector: &[(String, String)], object: &Object) -> bool {
    selector
        .iter()
        .all(|(key, value)| object.label(key) == Some(value))
}

/// What matters about a node, without the times its kubelet reports in between.
fn node_facts(object: &Object) -> Vec<Option<Value>> {
    let value = object.value();
    let facts = NODE_FIELDS
        .iter()
        .map(|field| value.pointer(field).cloned());
    facts
        .map(|fact| {
            let Some(Value::Array(mut conditions)) = fact else {
                return fact;
            };
            for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
                condition.retain(|k, _| k == "type" || k == "status");
            }
            Some(Value::Array(conditions))
        })
        .collect()
}

impl Writer<'_> {
    /// Lets the controllers react to a write.
    pub(super) fn after(
        &mut self,
        resource: &Arc<ResourceType>,
        verb: Verb,
        old: Option<&Arc<Object>>,
        new: &Arc<Object>,
    ) {
        match (resource.group.as_str(), resource.kind.as_str()) {
            ("apiextensions.k8s.io", "CustomResourceDefinition") if verb != Verb::Deleted => {
                self.define(new)
            }
            _ if !self.controllers || !self.config.endpointslice_controller => {}
            ("", "Service") => {
                let key = object_key(&new.namespace, &new.name);
                if verb == Verb::Deleted {
                    self.collect_slices(&key)
                } else {
                    self.sync_service(&key)
                }
            }
            ("", "Pod") => {
                let services = self.state.selecting_services(Some(&new.namespace));
                let concerned = |s: &[(String, String)]| {
                    selected(s, new) || old.is_some_and(|old| selected(s, old))
                };
                let keys: Vec<String> = services
                    .into_iter()
                    .filter(|(_, s)| concerned(s))
                    .map(|(k, _)| k.to_owned())
                    .collect();
                keys.iter().for_each(|key| self.sync_service(key));
            }
            ("", "Node") => {
                let same = verb == Verb::Modified
                    && old.is_some_and(|old| node_facts(old) == node_facts(new));
                if !same {
                    let services = self.state.selecting_services(None);
                    let keys: Vec<String> =
                        services.into_iter().map(|(k, _)| k.to_owned()).collect();
                    keys.iter().for_each(|key| self.sync_service(key));
                }
            }
            // Somebody changed or deleted a slice that is the controller's: it is put right.
            ("discovery.k8s.io", "EndpointSlice")
                if managed(new) || old.is_some_and(|o| managed(o)) =>
            {
                if let Some(service) = new.label(crate::store::SERVICE_NAME) {
                    self.sync_service(&object_key(&new.namespace, service));
                }
            }
            _ => {}
        }
    }

    /// Serves what a CustomResourceDefinition defines.
    fn define(&mut self, definition: &Object) {
        let mut registry = Registry::clone(&self.state.registry);
        let mut changed = false;
        for resource in registry::from_definition(&definition.value()) {
            if registry
                .path(&resource.group, &resource.version, &resource.plural)
                .is_none_or(|r| *r != resource)
            {
                registry.add(resource);
                changed = true;
            }
        }
        if changed {
            self.state.registry = Arc::new(registry);
        }
    }

    /// The slices of a Service that are the controller's.
    fn own_slices(&self, slices: &ResourceType, service_key: &str) -> Vec<Arc<Object>> {
        let keys = self.state.slices_of(service_key);
        let objects = keys.iter().filter_map(|key| {
            let (namespace, name) = key.split_once('/')?;
            self.state.object(slices, namespace, name)
        });
        objects.filter(|o| managed(o)).collect()
    }

    fn collect_slices(&mut self, service_key: &str) {
        let Some(resource) = self
            .state
            .registry
            .kind("discovery.k8s.io/v1", "EndpointSlice")
        else {
            return;
        };
        for slice in self.own_slices(&resource, service_key) {
            self.change_slice(
                &resource,
                SliceChange::Delete {
                    namespace: slice.namespace.to_string(),
                    name: slice.name.to_string(),
                },
            );
        }
    }

    fn sync_service(&mut self, service_key: &str) {
        let registry = self.state.registry.clone();
        let find = |api_version: &str, kind: &str| registry.kind(api_version, kind);
        let (Some(services), Some(pods), Some(nodes), Some(slices)) = (
            find("v1", "Service"),
            find("v1", "Pod"),
            find("v1", "Node"),
            find("discovery.k8s.io/v1", "EndpointSlice"),
        ) else {
            return;
        };
        let Some(selector) = self.state.selector_of(service_key) else {
            return;
        };
        let Some((namespace, name)) = service_key.split_once('/') else {
            return;
        };
        let Some(service) = self.state.object(&services, namespace, name) else {
            return;
        };
        let pods = self.state.objects(&pods, Some(namespace));
        let pods: Vec<Value> = pods
            .iter()
            .filter(|pod| selected(selector, pod))
            .map(|pod| pod.value())
            .collect();
        let nodes: Vec<Value> = self
            .state
            .objects(&nodes, None)
            .iter()
            .map(|node| node.value())
            .collect();
        let existing: Vec<Value> = self
            .own_slices(&slices, service_key)
            .iter()
            .map(|slice| slice.value())
            .collect();
        for change in reconcile(&service.value(), &pods, &nodes, &existing) {
            self.change_slice(&slices, change);
        }
    }

    /// Writes one slice the way the controller would, through admission.
    fn change_slice(&mut self, resource: &Arc<ResourceType>, change: SliceChange) {
        let text = |value: &Value, field: &str| {
            value["metadata"][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let target = |namespace: String, name: String| Target {
            resource: resource.clone(),
            namespace,
            name,
            status: false,
        };
        let options = WriteOptions {
            manager: "endpointslice-controller".to_owned(),
            ..WriteOptions::default()
        };
        // The controller's own writes must not start it again; nothing else reacts to slices.
        let result = match change {
            SliceChange::Create(slice) => {
                let target = target(text(&slice, "namespace"), text(&slice, "name"));
                self.quietly(|writer| writer.create(&target, slice, &options).map(|_| ()))
            }
            SliceChange::Update(slice) => {
                let target = target(text(&slice, "namespace"), text(&slice, "name"));
                self.quietly(|writer| writer.update(&target, |_| Ok(slice), &options).map(|_| ()))
            }
            SliceChange::Delete { namespace, name } => {
                let target = target(namespace, name);
                self.quietly(|writer| {
                    writer
                        .delete(&target, &DeleteOptions::default())
                        .map(|_| ())
                })
            }
        };
        if let Err(error) = result {
            tracing::warn!(%error, "failed to write an EndpointSlice");
        }
    }

    /// Runs a write with the controllers off.
    fn quietly(
        &mut self,
        write: impl FnOnce(&mut Writer<'_>) -> Result<(), StatusError>,
    ) -> Result<(), StatusError> {
        write(&mut Writer {
            state: self.state,
            config: self.config,
            controllers: false,
        })
    }

    /// Deletes everything in a namespace that is going away.
    pub(super) fn empty_namespace(&mut self, namespace: &str) -> Result<(), StatusError> {
        let registry = self.state.registry.clone();
        for resource in registry.all().iter().filter(|r| r.namespaced) {
            for object in self.state.objects(resource, Some(namespace)) {
                let name = object.name.to_string();
                let target = Target {
                    resource: resource.clone(),
                    namespace: namespace.to_owned(),
                    name,
                    status: false,
                };
                match self.delete(&target, &DeleteOptions::default()) {
                    // A slice may have gone with its Service already.
                    Ok(_) => {}
                    Err(error) if error.code == 404 => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
