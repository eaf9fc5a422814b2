//! Values as the page shows them.

use std::fmt;

use crate::text::{one_line, shortened, visible};

pub(crate) use crate::markdown::{duration, number, plural};

/// A text out of the log or the evidence, in which nothing is invisible. The templates escape it once more for HTML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(String);

impl Text {
    /// The whole text, in one line.
    pub fn new(text: &str) -> Self {
        Self(one_line(text))
    }

    /// At most so many characters of it, in one line.
    pub fn short(text: &str, max_chars: usize) -> Self {
        Self(shortened(&one_line(text), max_chars))
    }

    /// The text with its lines and tabs.
    pub fn lines(text: &str) -> Self {
        Self(visible(text))
    }

    /// Whether there is anything to show.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
