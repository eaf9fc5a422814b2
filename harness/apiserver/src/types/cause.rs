//! One reason why an object is refused, in the form Kubernetes puts into `Status.details.causes`.
//!
//! The texts follow the real server's (`k8s.io/apimachinery/pkg/util/validation/field`), because people and tools read them.

use serde_json::Value;

/// One reason for refusing an object: an element of `Status.details.causes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The machine-readable reason, such as `FieldValueInvalid` or `FieldValueRequired`.
    pub reason: &'static str,
    /// The text for people, without the field's path.
    pub message: String,
    /// The path of the field, such as `spec.ports[0].nodePort`.
    pub field: String,
}

impl Cause {
    /// The field has a value that is not acceptable.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: impl AsRef<str>) -> Self {
        Self {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {value}: {}", detail.as_ref()),
            field: field.into(),
        }
    }

    /// The value is of another JSON type than the field's.
    pub fn wrong_type(field: impl Into<String>, value: &Value, detail: impl AsRef<str>) -> Self {
        Self {
            reason: "FieldValueTypeInvalid",
            ..Self::invalid(field, value, detail)
        }
    }

    /// The field, or something below it, cannot be read at all.
    pub fn malformed(field: impl Into<String>, detail: impl std::fmt::Display) -> Self {
        Self {
            reason: "FieldValueTypeInvalid",
            message: format!("Invalid value: {detail}"),
            field: field.into(),
        }
    }

    /// The field must be given and is missing or empty.
    pub fn required(field: impl Into<String>, detail: impl AsRef<str>) -> Self {
        let detail = detail.as_ref();
        let message = if detail.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {detail}")
        };
        Self {
            reason: "FieldValueRequired",
            message,
            field: field.into(),
        }
    }

    /// The value occurs twice where it must be unique.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self {
            reason: "FieldValueDuplicate",
            message: format!("Duplicate value: {value}"),
            field: field.into(),
        }
    }

    /// The value is none of the names the API knows.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let names: Vec<String> = supported.iter().map(|name| format!("{name:?}")).collect();
        Self {
            reason: "FieldValueNotSupported",
            message: format!(
                "Unsupported value: {value}: supported values: {}",
                names.join(", ")
            ),
            field: field.into(),
        }
    }

    /// The field must not be given in this combination.
    pub fn forbidden(field: impl Into<String>, detail: impl AsRef<str>) -> Self {
        Self {
            reason: "FieldValueForbidden",
            message: format!("Forbidden: {}", detail.as_ref()),
            field: field.into(),
        }
    }

    /// The list has more elements than the API allows.
    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        Self {
            reason: "FieldValueTooMany",
            message: format!("Too many: {actual}: must have at most {max} items"),
            field: field.into(),
        }
    }

    /// The server could not do what the object asks, through no fault of the object, such as an exhausted address range.
    pub fn internal(field: impl Into<String>, detail: impl AsRef<str>) -> Self {
        Self {
            reason: "InternalError",
            message: format!("Internal error: {}", detail.as_ref()),
            field: field.into(),
        }
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}
