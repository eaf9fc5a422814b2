//! Checks of `metadata` that every kind shares: names, labels, annotation keys.

use serde_json::Value;

use super::{Cause, syntax};

/// The characters of generated names: no vowels, so that no words come out, and nothing that looks alike.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// The longest prefix that still leaves room for five characters in a DNS label.
const MAX_PREFIX: usize = 58;

/// Makes a name out of `metadata.generateName` and a random number, in the form the real server gives it: the prefix, cut when it is too long,
/// and five characters.
pub fn generate_name(prefix: &str, random: u64) -> String {
    let mut rest = random;
    let suffix: String = (0..5)
        .map(|_| {
            let letter = ALPHABET[(rest % ALPHABET.len() as u64) as usize];
            rest /= ALPHABET.len() as u64;
            char::from(letter)
        })
        .collect();
    let mut end = prefix.len().min(MAX_PREFIX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &prefix[..end])
}

/// The rule for names of a kind.
fn name_rule(api_version: &str, kind: &str) -> fn(&str) -> Vec<String> {
    match (api_version, kind) {
        // A Service's name was a DNS-1035 label before 1.36 relaxed it (KEP-5311).
        ("v1", "Service" | "Namespace") => syntax::dns_label,
        (
            "v1",
            "Pod"
            | "Node"
            | "Endpoints"
            | "ConfigMap"
            | "Secret"
            | "ServiceAccount"
            | "ReplicationController"
            | "Event",
        )
        | ("discovery.k8s.io/v1", _)
        | ("apps/v1", _)
        | ("networking.k8s.io/v1", "ServiceCIDR" | "NetworkPolicy")
        | ("coordination.k8s.io/v1", _) => syntax::dns_subdomain,
        _ => syntax::path_segment,
    }
}

/// Checks the metadata of an object that is about to be written.
pub(super) fn validate(api_version: &str, kind: &str, object: &Value, causes: &mut Vec<Cause>) {
    let metadata = &object["metadata"];
    let rule = name_rule(api_version, kind);
    let name = metadata["name"].as_str().unwrap_or_default();
    let prefix = metadata["generateName"].as_str().unwrap_or_default();
    if !prefix.is_empty() {
        // A prefix may end in a dash, because characters follow it.
        let stem = match prefix.strip_suffix('-') {
            Some(stem) if !stem.is_empty() => format!("{stem}a"),
            _ => prefix.to_owned(),
        };
        for text in rule(&stem) {
            causes.push(Cause::invalid(
                "metadata.generateName",
                &metadata["generateName"],
                text,
            ));
        }
    }
    if name.is_empty() {
        if prefix.is_empty() {
            causes.push(Cause::required(
                "metadata.name",
                "name or generateName is required",
            ));
        }
    } else {
        for text in rule(name) {
            causes.push(Cause::invalid("metadata.name", &metadata["name"], text));
        }
    }
    labels(&metadata["labels"], "metadata.labels", causes);
    match &metadata["annotations"] {
        Value::Null => {}
        Value::Object(annotations) => {
            for (key, value) in annotations {
                for text in syntax::qualified_name(&key.to_lowercase()) {
                    causes.push(Cause::invalid(
                        "metadata.annotations",
                        &Value::from(key.as_str()),
                        text,
                    ));
                }
                if !value.is_string() {
                    causes.push(Cause::wrong_type(
                        format!("metadata.annotations[{key}]"),
                        value,
                        "must be a string",
                    ));
                }
            }
        }
        other => causes.push(Cause::wrong_type(
            "metadata.annotations",
            other,
            "must be a map of strings",
        )),
    }
}

/// Checks a map of labels: an object's own, or a selector.
pub(super) fn labels(labels: &Value, field: &str, causes: &mut Vec<Cause>) {
    match labels {
        Value::Null => {}
        Value::Object(labels) => {
            for (key, value) in labels {
                for text in syntax::qualified_name(key) {
                    causes.push(Cause::invalid(field, &Value::from(key.as_str()), text));
                }
                match value.as_str() {
                    Some(text) => {
                        for wrong in syntax::label_value(text) {
                            causes.push(Cause::invalid(field, value, wrong));
                        }
                    }
                    None => causes.push(Cause::wrong_type(
                        format!("{field}[{key}]"),
                        value,
                        "must be a string",
                    )),
                }
            }
        }
        other => causes.push(Cause::wrong_type(field, other, "must be a map of strings")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn generated_names_differ_and_are_valid() {
        let names: std::collections::HashSet<String> = (0..1000)
            .map(|random| generate_name("web-", random))
            .collect();
        assert_eq!(names.len(), 1000);
        let long = generate_name(&"x".repeat(80), u64::MAX);
        assert_eq!(long.len(), 63);
        assert!(syntax::dns_label(&long).is_empty());
    }

    #[test]
    fn metadata_is_checked() {
        let check = |kind: &str, metadata: Value| {
            let mut causes = Vec::new();
            validate("v1", kind, &json!({ "metadata": metadata }), &mut causes);
            causes
                .into_iter()
                .map(|cause| cause.field)
                .collect::<Vec<_>>()
        };
        assert_eq!(check("Service", json!({})), ["metadata.name"]);
        assert_eq!(
            check("Service", json!({ "name": "a.b" })),
            ["metadata.name"]
        );
        assert!(check("Pod", json!({ "name": "a.b" })).is_empty());
        assert!(check("Pod", json!({ "generateName": "web-" })).is_empty());
        assert_eq!(
            check("Pod", json!({ "generateName": "Web-" })),
            ["metadata.generateName"]
        );
        assert_eq!(
            check("Pod", json!({ "name": "a", "labels": { "b c": "d" } })),
            ["metadata.labels"]
        );
        assert_eq!(
            check("Pod", json!({ "name": "a", "labels": { "b": 1 } })),
            ["metadata.labels[b]"]
        );
        assert_eq!(
            check("Pod", json!({ "name": "a", "annotations": { "/": "" } })).len(),
            3
        );
    }
}
