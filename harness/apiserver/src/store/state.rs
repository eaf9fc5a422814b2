//! Everything behind the lock: the registry, a table per resource, allocators, indexes and history.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::object::{Object, Verb};
use super::table::{Event, Table, object_key};
use crate::error::StatusError;
use crate::history::{Record, monotonic_ns};
use crate::registry::{Registry, ResourceType};
use crate::types::ServiceAllocators;

/// The label that says which Service a slice belongs to.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The objects of one resource at one resourceVersion.
pub(crate) struct Snapshot {
    /// The objects asked for, in the order of their keys.
    pub(crate) objects: Vec<Arc<Object>>,
    /// The resourceVersion the list is consistent at.
    pub(crate) version: u64,
}

pub(crate) struct State {
    /// The resourceVersion of the newest write, of whatever resource.
    pub(crate) version: u64,
    pub(crate) registry: Arc<Registry>,
    pub(crate) allocators: ServiceAllocators,
    pub(crate) history: Vec<Record>,
    tables: HashMap<String, Table>,
    window: usize,
    /// Tables written since watchers were last woken.
    dirty: BTreeSet<String>,
    /// Keys of EndpointSlices by the key of the Service they are labelled with.
    slices: HashMap<String, BTreeSet<String>>,
    /// Selectors by Service key; Services without one are absent.
    selectors: BTreeMap<String, Vec<(String, String)>>,
}

fn table_name(resource: &ResourceType) -> String {
    format!(
        "{}/{}/{}",
        resource.group, resource.version, resource.plural
    )
}

fn is(resource: &ResourceType, group: &str, plural: &str) -> bool {
    resource.group == group && resource.plural == plural
}

impl State {
    pub(crate) fn new(registry: Registry, allocators: ServiceAllocators, window: usize) -> Self {
        State {
            version: 1,
            registry: Arc::new(registry),
            allocators,
            history: Vec::new(),
            tables: HashMap::new(),
            window,
            dirty: BTreeSet::new(),
            slices: HashMap::new(),
            selectors: BTreeMap::new(),
        }
    }

    /// The table of a resource, made on first use.
    pub(crate) fn table(&mut self, resource: &ResourceType) -> &mut Table {
        self.tables
            .entry(table_name(resource))
            .or_insert_with(Table::new)
    }

    pub(crate) fn object(
        &self,
        resource: &ResourceType,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Object>> {
        let table = self.tables.get(&table_name(resource))?;
        table
            .objects
            .get(object_key(namespace, name).as_str())
            .cloned()
    }

    /// All objects of a resource, in one namespace or in all.
    pub(crate) fn objects(
        &self,
        resource: &ResourceType,
        namespace: Option<&str>,
    ) -> Vec<Arc<Object>> {
        let Some(table) = self.tables.get(&table_name(resource)) else {
            return Vec::new();
        };
        in_namespace(&table.objects, namespace, None)
    }

    /// Stores a new version of an object (or its deletion), logs it and remembers it in the history. Sets `metadata.resourceVersion`.
    pub(crate) fn commit(
        &mut self,
        resource: &Arc<ResourceType>,
        verb: Verb,
        value: &mut Value,
    ) -> Arc<Object> {
        self.version += 1;
        let version = self.version;
        value["metadata"]["resourceVersion"] = json!(version.to_string());
        let object = Arc::new(Object::new(value, verb, version));
        let key = object_key(&object.namespace, &object.name);
        let name = table_name(resource);
        let window = self.window;
        let table = self.tables.entry(name.clone()).or_insert_with(Table::new);
        let previous = table.objects.get(key.as_str()).cloned();
        let event = Arc::new(Event {
            version,
            verb,
            object: object.clone(),
            previous,
            at: Instant::now(),
        });
        table.push(event.clone(), window);
        self.dirty.insert(name);
        self.index(resource, &key, &event, value);
        self.history.push(Record {
            at_ns: monotonic_ns(),
            resource: resource.clone(),
            event,
        });
        object
    }

    fn index(&mut self, resource: &ResourceType, key: &str, event: &Event, value: &Value) {
        if is(resource, "discovery.k8s.io", "endpointslices") {
            let service = |o: &Object| o.label(SERVICE_NAME).map(|s| object_key(&o.namespace, s));
            if let Some(old) = event.previous.as_deref().and_then(service)
                && let Some(keys) = self.slices.get_mut(&old)
            {
                keys.remove(key);
                if keys.is_empty() {
                    self.slices.remove(&old);
                }
            }
            if event.verb != Verb::Deleted
                && let Some(new) = service(&event.object)
            {
                self.slices.entry(new).or_default().insert(key.to_owned());
            }
        } else if is(resource, "", "services") {
            let selector = value
                .pointer("/spec/selector")
                .and_then(Value::as_object)
                .filter(|s| !s.is_empty());
            match selector.filter(|_| event.verb != Verb::Deleted) {
                Some(selector) => {
                    let pairs = selector
                        .iter()
                        .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()));
                    self.selectors.insert(key.to_owned(), pairs.collect());
                }
                None => drop(self.selectors.remove(key)),
            }
        }
    }

    /// Wakes the watchers of every table written since the last call.
    pub(crate) fn wake(&mut self) {
        for name in std::mem::take(&mut self.dirty) {
            if let Some(table) = self.tables.get(&name) {
                table.signal.send_replace(table.newest);
            }
        }
    }

    /// Forgets all event logs. Older resourceVersions and running watches expire.
    pub(crate) fn compact(&mut self) {
        // A compaction without a write would leave "the version before" equal to "now"; etcd's does too.
        let now = self.version;
        for table in self.tables.values_mut() {
            table.compact(now);
        }
    }

    /// The keys of the slices labelled with this Service.
    pub(crate) fn slices_of(&self, service_key: &str) -> Vec<String> {
        self.slices
            .get(service_key)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// The selector of a Service, when it has one.
    pub(crate) fn selector_of(&self, service_key: &str) -> Option<&[(String, String)]> {
        self.selectors.get(service_key).map(Vec::as_slice)
    }

    /// The keys of the Services with a selector, in one namespace or in all.
    pub(crate) fn selecting_services(
        &self,
        namespace: Option<&str>,
    ) -> Vec<(&str, &[(String, String)])> {
        let prefix = namespace.map(|n| format!("{n}/"));
        let inside = |key: &str| prefix.as_deref().is_none_or(|p| key.starts_with(p));
        self.selectors
            .iter()
            .filter(|(k, _)| inside(k))
            .map(|(k, s)| (k.as_str(), s.as_slice()))
            .collect()
    }

    /// The objects of a resource at a resourceVersion (now, when there is none), from behind the key `after` on.
    pub(crate) fn snapshot(
        &mut self,
        resource: &ResourceType,
        namespace: Option<&str>,
        version: Option<u64>,
        after: Option<&str>,
    ) -> Result<Snapshot, StatusError> {
        let now = self.version;
        let table = self.table(resource);
        match version {
            // Nothing of this resource changed since: the present is the past.
            Some(v) if v >= table.newest && v >= table.floor => Ok(Snapshot {
                objects: in_namespace(&table.objects, namespace, after),
                version: v,
            }),
            Some(v) => {
                let objects = table.at(v).ok_or_else(|| {
                    StatusError::expired(format!(
                        "The provided continue parameter or resourceVersion is too old: {v} ({})",
                        table.floor
                    ))
                })?;
                Ok(Snapshot {
                    objects: in_namespace(&objects, namespace, after),
                    version: v,
                })
            }
            None => Ok(Snapshot {
                objects: in_namespace(&table.objects, namespace, after),
                version: now,
            }),
        }
    }
}

fn in_namespace(
    objects: &BTreeMap<Box<str>, Arc<Object>>,
    namespace: Option<&str>,
    after: Option<&str>,
) -> Vec<Arc<Object>> {
    let prefix = namespace.map(|n| format!("{n}/"));
    let start: Bound<&str> = match (after, prefix.as_deref()) {
        (Some(key), _) => Bound::Excluded(key),
        (None, Some(prefix)) => Bound::Included(prefix),
        (None, None) => Bound::Unbounded,
    };
    let range = objects.range::<str, _>((start, Bound::Unbounded));
    match prefix {
        Some(prefix) => range
            .take_while(|(k, _)| k.starts_with(&prefix))
            .map(|(_, o)| o.clone())
            .collect(),
        None => range.map(|(_, o)| o.clone()).collect(),
    }
}
