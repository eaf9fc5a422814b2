//! The verbs that change objects and pods: `apply`, `patch`, `delete`, `pod`.

use serde_json::Value;

use super::super::attempt::{Attempt, Stop};
use crate::scenario::doc::{ObjectRef, Patch, PodAction};

impl Attempt<'_> {
    pub(in crate::run) async fn apply(&mut self, objects: &[Value]) -> Result<(), Stop> {
        self.changing();
        Ok(self.cluster.apply(objects).await?)
    }

    pub(in crate::run) async fn patch(&mut self, patch: &Patch) -> Result<(), Stop> {
        self.changing();
        Ok(self.cluster.patch(patch).await?)
    }

    pub(in crate::run) async fn delete(&mut self, objects: &[ObjectRef]) -> Result<(), Stop> {
        self.changing();
        Ok(self.cluster.delete(objects).await?)
    }

    /// The order of the two halves is that of a cluster: a pod serves before it is Ready, and its object goes before its
    /// namespace does.
    pub(in crate::run) async fn pod(&mut self, action: &PodAction) -> Result<(), Stop> {
        for name in action.name.as_slice() {
            self.cluster.prepare_pod(name, action.action).await?;
            self.changing();
            self.cluster.pod(name, action.action).await?;
        }
        Ok(())
    }
}
