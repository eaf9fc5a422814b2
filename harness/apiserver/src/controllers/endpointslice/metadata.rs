//! What slices carry of their Service: labels, owner, name.

use std::collections::BTreeMap;
use std::hash::Hasher;

use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::Value;

use super::MANAGED_BY;
use super::desired::PortKey;
use crate::types::generate_name;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The Service that owns slices.
#[derive(Debug)]
pub(super) struct Owner {
    namespace: String,
    name: String,
    uid: String,
    labels: BTreeMap<String, String>,
    headless: bool,
}

impl Owner {
    pub(super) fn of(service: &Value) -> Self {
        let metadata = &service["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let labels = metadata["labels"].as_object().into_iter().flatten();
        let address = service["spec"]["clusterIP"].as_str().unwrap_or_default();
        Self {
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]),
            uid: text(&metadata["uid"]),
            labels: labels
                .filter(|(key, _)| !is_reserved(key))
                .map(|(key, value)| (key.clone(), text(value)))
                .collect(),
            headless: address.is_empty() || address == "None",
        }
    }

    /// Whether a stored slice is of this controller and of a Service of this name.
    pub(super) fn manages(&self, slice: &Value) -> bool {
        let metadata = &slice["metadata"];
        metadata["namespace"].as_str().unwrap_or_default() == self.namespace
            && metadata["labels"][SERVICE_NAME].as_str() == Some(&self.name)
            && metadata["labels"][MANAGED_BY_LABEL].as_str() == Some(MANAGED_BY)
    }

    /// Whether the slice is of this very Service and not of an earlier one of the same name.
    pub(super) fn owns(&self, slice: &EndpointSlice) -> bool {
        let mut owners = slice.metadata.owner_references.iter().flatten();
        owners.any(|owner| {
            owner.uid == self.uid && owner.kind == "Service" && owner.api_version == "v1"
        })
    }

    /// The labels a slice must have.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        if self.headless {
            labels.insert(HEADLESS.to_owned(), String::new());
        }
        labels.insert(SERVICE_NAME.to_owned(), self.name.clone());
        labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
        labels
    }

    /// Whether the Service's own labels differ from those the slice has of it. The labels of the controller do not count.
    pub(super) fn labels_changed(&self, slice: &EndpointSlice) -> bool {
        let labels = slice.metadata.labels.iter().flatten();
        !labels
            .filter(|(key, _)| !is_reserved(key))
            .eq(self.labels.iter())
    }

    /// An empty slice, which has no name yet.
    pub(super) fn new_slice(&self, address_type: &str, ports: Vec<EndpointPort>) -> EndpointSlice {
        EndpointSlice {
            address_type: address_type.to_owned(),
            endpoints: Some(Vec::new()),
            metadata: ObjectMeta {
                // Kept in the object, as the real server keeps it.
                generate_name: Some(format!("{}-", self.name)),
                namespace: Some(self.namespace.clone()),
                labels: Some(self.labels()),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Service".to_owned(),
                    name: self.name.clone(),
                    uid: self.uid.clone(),
                    controller: Some(true),
                    block_owner_deletion: Some(true),
                }]),
                ..ObjectMeta::default()
            },
            ports: Some(ports),
        }
    }

    /// Whether the slice is what [`Self::new_slice`] gives for no ports: the sign of a Service without endpoints.
    pub(super) fn is_placeholder(&self, slice: &EndpointSlice) -> bool {
        self.owns(slice)
            && slice.endpoints.as_deref().unwrap_or_default().is_empty()
            && slice.ports.as_deref().unwrap_or_default().is_empty()
            && slice.metadata.labels.as_ref() == Some(&self.labels())
    }

    /// A name for a new slice: the Service's name and five characters, which follow from what the slice holds, so that the same cluster gets the same names in each run.
    pub(super) fn new_name(&self, slice: &EndpointSlice, taken: &[String]) -> String {
        let mut hasher = StableHasher::default();
        let mut write = |text: &str| {
            hasher.write(text.as_bytes());
            hasher.write_u8(0xff);
        };
        for text in [&self.namespace, &self.name, &slice.address_type] {
            write(text);
        }
        write(&PortKey::of(slice.ports.as_deref().unwrap_or_default()).to_string());
        for address in slice
            .endpoints
            .iter()
            .flatten()
            .flat_map(|endpoint| &endpoint.addresses)
        {
            write(address);
        }
        loop {
            let name = generate_name(&format!("{}-", self.name), hasher.finish());
            if !taken.contains(&name) {
                return name;
            }
            hasher.write_u8(0);
        }
    }
}

/// The name and namespace of a slice that cannot be read otherwise.
pub(super) fn name_of(slice: &Value) -> ObjectMeta {
    let text = |key: &str| slice["metadata"][key].as_str().map(str::to_owned);
    ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        ..ObjectMeta::default()
    }
}

fn is_reserved(key: &str) -> bool {
    [SERVICE_NAME, MANAGED_BY_LABEL, HEADLESS].contains(&key)
}

/// FNV-1a with a final mix: a hash that is the same on every machine and in every release, which the one of the standard library does not promise.
struct StableHasher(u64);

impl Default for StableHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        // The low bits of FNV alone are poor, and the name is made of them.
        let mixed = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ (mixed >> 33)
    }
}
