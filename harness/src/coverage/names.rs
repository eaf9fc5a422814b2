//! Names of upstream specs: complete, or as people write them, without the suite's label and the tags.

use std::collections::BTreeMap;

/// The label in front of every name.
const SUITE: &str = "[sig-network] ";

/// A name that no spec has, or several.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownSpec {
    /// Nothing like it.
    #[error("'{0}' is no spec of scenarios/upstream.yaml")]
    Unknown(String),
    /// Only the tags tell these apart.
    #[error("'{0}' can be several specs, which only their tags tell apart: {1}")]
    Ambiguous(String, String),
}

/// All names.
#[derive(Clone, Debug, Default)]
pub struct SpecNames {
    by_text: BTreeMap<String, Vec<String>>,
}

impl SpecNames {
    /// Of these complete names.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut by_text: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in names {
            by_text
                .entry(without_tags(name))
                .or_default()
                .push(name.into());
        }
        Self { by_text }
    }

    /// The complete name.
    ///
    /// # Errors
    /// No spec has the name, or it takes the tags to tell which.
    pub fn complete(&self, name: &str) -> Result<&str, UnknownSpec> {
        let same = self
            .by_text
            .get(&without_tags(name))
            .ok_or_else(|| UnknownSpec::Unknown(name.into()))?;
        if let [only] = same.as_slice() {
            return Ok(only);
        }
        let plain = name.strip_prefix(SUITE).unwrap_or(name);
        same.iter()
            .find(|full| full.strip_prefix(SUITE).unwrap_or(full) == plain)
            .map(String::as_str)
            .ok_or_else(|| UnknownSpec::Ambiguous(name.into(), same.join("; ")))
    }

    /// Whether a spec's name contains this, tags aside: sources name whole families of specs.
    pub fn any_contains(&self, part: &str) -> bool {
        let part = without_tags(part);
        self.by_text.keys().any(|name| name.contains(&part))
    }
}

/// Whether an entry of `covers` names a spec. The others (`owner/repository#1`, `bug:U1`) are single words.
pub(super) fn is_spec(entry: &str) -> bool {
    entry.contains(char::is_whitespace)
}

/// Without `[tags]`, and with single spaces.
fn without_tags(name: &str) -> String {
    let mut text = String::new();
    let mut depth = 0_u32;
    for c in name.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            c if depth == 0 => text.push(c),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_with_and_without_tags() {
        let names = SpecNames::new([
            "[sig-network] Services should work [Conformance]",
            "[sig-network] Net should connect [Feature:IPv4]",
            "[sig-network] Net should connect [Feature:IPv6]",
        ]);
        for name in [
            "[sig-network] Services should work [Conformance]",
            "Services should work [Conformance]",
            "Services  should work",
        ] {
            assert_eq!(
                names.complete(name).expect(name),
                "[sig-network] Services should work [Conformance]"
            );
        }
        assert_eq!(
            names
                .complete("Net should connect [Feature:IPv6]")
                .expect("the tag decides"),
            "[sig-network] Net should connect [Feature:IPv6]"
        );
        assert!(matches!(
            names.complete("Net should connect"),
            Err(UnknownSpec::Ambiguous(..))
        ));
        assert!(matches!(
            names.complete("Services should not work"),
            Err(UnknownSpec::Unknown(_))
        ));
    }

    #[test]
    fn references_are_no_names() {
        assert!(!is_spec("kubernetes/kubernetes#1"));
        assert!(!is_spec("bug:U1"));
        assert!(is_spec("Services should work"));
    }
}
