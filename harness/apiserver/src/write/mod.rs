//! The write path: what a create, an update, a patch or a delete goes through, whoever asks.
//!
//! ```text
//! request -> identity, namespace -> patch or apply -> admission (types) -> commit (store) -> controllers -> watchers woken
//! ```

mod controllers;
mod fields;
mod patch;
mod schema;
mod server_side_apply;
mod strategic;
mod verbs;

pub use patch::PatchKind;
pub(crate) use verbs::{Deleted, Target, Writer};

/// What a write may say beside the object itself.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Do everything but store the result (`dryRun=All`).
    pub dry_run: bool,
    /// Who writes (`fieldManager`). Server-side apply needs it.
    pub manager: String,
    /// Take over fields that other managers applied (`force`).
    pub force: bool,
}

/// What a deletion may say.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// For Pods: a value above zero only marks the Pod as terminating (`deletionTimestamp`), as the API server does while the kubelet stops it.
    /// Without a value, and for other kinds, the object is gone at once.
    pub grace_period_seconds: Option<u64>,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    /// Delete only this version of the object.
    pub resource_version: Option<String>,
    /// Do everything but delete (`dryRun=All`).
    pub dry_run: bool,
}
