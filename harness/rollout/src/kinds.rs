//! How kinds are called in the paths of the API, as the cluster itself says.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject},
};

use crate::{object::ObjectId, retry::found};

/// One kind.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub resource: ApiResource,
    pub namespaced: bool,
}

/// Kinds that were asked for before.
#[derive(Clone)]
pub(crate) struct Kinds {
    client: Client,
    known: Arc<Mutex<HashMap<(String, String), Kind>>>,
}

impl Kinds {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            known: Arc::default(),
        }
    }

    /// The kind; nothing if the cluster does not have it, at least not yet.
    pub(crate) async fn find(
        &self,
        api_version: &str,
        kind: &str,
    ) -> Result<Option<Kind>, kube::Error> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(known) = self.lock().get(&key) {
            return Ok(Some(known.clone()));
        }
        let Some(list) = found(self.list(api_version).await)? else {
            return Ok(None);
        };
        let mut known = self.lock();
        for resource in list.resources.iter().filter(|one| !one.name.contains('/')) {
            let found = Kind {
                resource: api_resource(api_version, resource),
                namespaced: resource.namespaced,
            };
            known.insert((api_version.to_owned(), resource.kind.clone()), found);
        }
        Ok(known.get(&key).cloned())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Kind>> {
        // Nobody panics while holding it.
        self.known.lock().expect("a map")
    }

    async fn list(&self, api_version: &str) -> Result<APIResourceList, kube::Error> {
        if api_version.contains('/') {
            self.client.list_api_group_resources(api_version).await
        } else {
            self.client.list_core_api_resources(api_version).await
        }
    }

    /// Every kind that can be listed and deleted, in the version that its group prefers. A group whose server does not answer is left out.
    pub(crate) async fn all(&self) -> Result<Vec<Kind>, kube::Error> {
        let groups = self.client.list_api_groups().await?;
        let preferred = groups.groups.iter().filter_map(|group| {
            let version = group.preferred_version.as_ref().or(group.versions.first());
            version.map(|version| version.group_version.clone())
        });
        let mut kinds = Vec::new();
        for api_version in std::iter::once("v1".to_owned()).chain(preferred) {
            let list = match self.list(&api_version).await {
                Ok(list) => list,
                // An aggregated server that is down, or a group that went since.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 503) => continue,
                Err(error) => return Err(error),
            };
            let can = |resource: &APIResource, verb: &str| resource.verbs.iter().any(|v| v == verb);
            kinds.extend(
                list.resources
                    .iter()
                    .filter(|one| !one.name.contains('/') && can(one, "list") && can(one, "delete"))
                    .map(|resource| Kind {
                        resource: api_resource(&api_version, resource),
                        namespaced: resource.namespaced,
                    }),
            );
        }
        Ok(kinds)
    }
}

fn api_resource(api_version: &str, resource: &APIResource) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: api_version.into(),
        kind: resource.kind.clone(),
        plural: resource.name.clone(),
    }
}

impl Kind {
    /// The API of an object of this kind. Whoever names no namespace means `default`.
    pub(crate) fn api(&self, client: &Client, id: &ObjectId) -> Api<DynamicObject> {
        match (self.namespaced, &id.namespace) {
            (false, _) => Api::all_with(client.clone(), &self.resource),
            (true, Some(namespace)) => {
                Api::namespaced_with(client.clone(), namespace, &self.resource)
            }
            (true, None) => Api::namespaced_with(client.clone(), "default", &self.resource),
        }
    }
}
