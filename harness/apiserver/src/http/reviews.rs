//! Questions about access and identity. Everybody may do everything, and a known token is who it says.

use serde_json::{Value, json};

use super::path::ResourcePath;
use crate::error::StatusError;

/// The review kinds, by group: plural and kind.
pub(super) const REVIEWS: &[(&str, &[(&str, &str)])] = &[
    (
        "authentication.k8s.io",
        &[
            ("tokenreviews", "TokenReview"),
            ("selfsubjectreviews", "SelfSubjectReview"),
        ],
    ),
    (
        "authorization.k8s.io",
        &[
            ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
            ("subjectaccessreviews", "SubjectAccessReview"),
            ("localsubjectaccessreviews", "LocalSubjectAccessReview"),
            ("selfsubjectrulesreviews", "SelfSubjectRulesReview"),
        ],
    ),
];

pub(super) fn is_review(path: &ResourcePath) -> bool {
    let known = |(group, kinds): &(&str, &[(&str, &str)])| {
        *group == path.group && kinds.iter().any(|(plural, _)| *plural == path.plural)
    };
    path.version == "v1" && path.name.is_none() && REVIEWS.iter().any(known)
}

/// The review with its status filled in.
pub(super) fn answer(
    path: &ResourcePath,
    mut review: Value,
    user: &str,
) -> Result<Value, StatusError> {
    if !review.is_object() {
        return Err(StatusError::bad_request(
            "the object provided is not a JSON object",
        ));
    }
    let mut kinds = REVIEWS.iter().flat_map(|(_, kinds)| *kinds);
    let kind = kinds
        .find(|(plural, _)| *plural == path.plural)
        .map_or("", |(_, kind)| *kind);
    review["kind"] = json!(kind);
    review["apiVersion"] = json!(format!("{}/{}", path.group, path.version));
    let who = json!({"username": user, "groups": ["system:authenticated", "system:masters"]});
    review["status"] = match path.plural.as_str() {
        "tokenreviews" => json!({"authenticated": true, "user": who}),
        "selfsubjectreviews" => json!({"userInfo": who}),
        "selfsubjectrulesreviews" => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        _ => json!({"allowed": true, "reason": "everything is allowed here"}),
    };
    Ok(review)
}
