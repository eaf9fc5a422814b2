//! The few fields of an event that merging needs, read without the rest: most lines are copied as they are.

use std::borrow::Cow;

use serde::Deserialize;

/// What an event is about.
#[derive(Debug, Deserialize)]
pub(super) struct Peek<'a> {
    pub seq: u64,
    #[serde(borrow)]
    pub time: Text<'a>,
    #[serde(borrow, rename = "type")]
    pub kind: Text<'a>,
    #[serde(borrow, default)]
    pub case: Option<Text<'a>>,
    #[serde(default)]
    pub attempt: Option<u32>,
    #[serde(default)]
    pub seed: Option<u64>,
}

/// A text that is borrowed unless it holds escapes. A type of its own, because serde borrows no `Cow` inside an `Option`.
#[derive(Debug, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> Peek<'a> {
    /// Reads a line.
    ///
    /// # Errors
    /// What the JSON reader says when it is no event.
    pub fn of(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }

    /// The attempt that the event belongs to.
    pub fn attempt(&self) -> Option<(&str, u32)> {
        Some((self.case.as_deref()?, self.attempt?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_borrowed_or_unescaped() {
        let line = br#"{"seq":3,"time":"t","type":"attemptStarted","case":"a[\"b\"]","attempt":2,"seed":9,"more":[1]}"#;
        let peek = Peek::of(line).unwrap();
        assert_eq!(peek.attempt(), Some(("a[\"b\"]", 2)));
        assert_eq!((peek.seq, &*peek.time, peek.seed), (3, "t", Some(9)));
        assert!(matches!(peek.kind.0, Cow::Borrowed("attemptStarted")));
        let run = Peek::of(br#"{"seq":0,"time":"t","type":"runFinished"}"#).unwrap();
        assert_eq!(run.attempt(), None);
        assert!(Peek::of(br#"{"seq":0,"time":"t"}"#).is_err());
    }
}
