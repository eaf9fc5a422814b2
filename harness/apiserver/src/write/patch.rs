//! The kinds of patch, and how each turns an old object into a new one.

use serde_json::Value;

use super::strategic::{self, Target};
use crate::error::StatusError;

/// How a patch is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// A list of operations (RFC 6902).
    Json,
    /// A partial object, where null deletes and lists are replaced (RFC 7386).
    Merge,
    /// A partial object whose lists merge as the type says. For types that are not built in, Kubernetes refuses it.
    Strategic,
    /// A configuration to apply server-side.
    Apply,
}

impl PatchKind {
    /// Reads a `Content-Type` without its parameters.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        Some(match media_type {
            "application/json-patch+json" => PatchKind::Json,
            "application/merge-patch+json" => PatchKind::Merge,
            "application/strategic-merge-patch+json" => PatchKind::Strategic,
            "application/apply-patch+yaml" => PatchKind::Apply,
            _ => return None,
        })
    }
}

/// The object after the patch. Server-side apply is not handled here: it needs to know who applies.
pub(super) fn patched(
    kind: PatchKind,
    target: &Target<'_>,
    mut object: Value,
    patch: &Value,
) -> Result<Value, StatusError> {
    match kind {
        PatchKind::Json => {
            let operations: json_patch::Patch =
                serde_json::from_value(patch.clone()).map_err(|e| {
                    StatusError::bad_request(format!("failed to read the JSON patch: {e}"))
                })?;
            json_patch::patch(&mut object, &operations).map_err(|e| {
                StatusError::new(
                    422,
                    "Invalid",
                    format!("the server rejected our request due to an error in our request: {e}"),
                )
            })?;
        }
        PatchKind::Merge | PatchKind::Apply => {
            if !patch.is_object() {
                return Err(StatusError::bad_request("a merge patch must be an object"));
            }
            json_patch::merge(&mut object, patch);
        }
        PatchKind::Strategic => strategic::merge(target, &mut object, patch)?,
    }
    Ok(object)
}
