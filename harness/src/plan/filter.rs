//! Filter expressions: which cases to run.
//!
//! ```text
//! expr  := term ("or" term)*
//! term  := factor ("and" factor)*
//! factor := "not" factor | "(" expr ")" | atom
//! atom  := GLOB                      the case id matches (without * or [ it is enough to contain it)
//!        | AXIS=VALUE                the case has this matrix value, such as family=ipv6
//!        | area:NAME | requirement:ID | level:NAME | covers:TEXT | scenario:ID
//! ```

use std::fmt;

use crate::scenario::{CaseKey, Document};

/// A parsed filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Everything.
    All,
    /// All of them.
    And(Vec<Filter>),
    /// Any of them.
    Or(Vec<Filter>),
    /// The opposite.
    Not(Box<Filter>),
    /// The case id.
    Id(String),
    /// A matrix value.
    Axis(String, String),
    /// A named property.
    Property(Property, String),
}

/// Properties that atoms can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// Requirement area.
    Area,
    /// Requirement id.
    Requirement,
    /// Level.
    Level,
    /// Upstream spec or issue.
    Covers,
    /// Scenario id.
    Scenario,
}

/// What a filter looks at.
pub struct Subject<'a> {
    /// The document.
    pub document: &'a Document,
    /// The case.
    pub key: &'a CaseKey,
    /// Its area.
    pub area: &'a str,
}

/// The text is not a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ParseFilterError {
    text: String,
    at: usize,
    message: String,
}

impl fmt::Display for ParseFilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "filter column {}: {}\n  {}\n  {}^",
            self.at + 1,
            self.message,
            self.text,
            " ".repeat(self.at)
        )
    }
}

impl std::str::FromStr for Filter {
    type Err = ParseFilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parser = Parser {
            text,
            tokens: tokens(text),
            next: 0,
            depth: 0,
        };
        let filter = parser.or()?;
        match parser.peek() {
            None => Ok(filter),
            Some((at, token)) => Err(parser.error(
                at,
                format!("'{token}' is not expected here: use and, or, not and parentheses"),
            )),
        }
    }
}

fn tokens(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut start: Option<usize> = None;
    for (at, c) in text.char_indices() {
        let single = matches!(c, '(' | ')');
        if (single || c.is_whitespace())
            && let Some(from) = start.take()
        {
            found.push((from, &text[from..at]));
        }
        if single {
            found.push((at, &text[at..=at]));
        } else if !c.is_whitespace() && start.is_none() {
            start = Some(at);
        }
    }
    if let Some(from) = start {
        found.push((from, &text[from..]));
    }
    found
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, &'a str)>,
    next: usize,
    depth: usize,
}

/// Deepest nesting of parentheses and `not`: filters come out of logs too, and the stack is not endless.
const MAX_DEPTH: usize = 100;

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<(usize, &'a str)> {
        self.tokens.get(self.next).copied()
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self
            .peek()
            .is_some_and(|(_, token)| token.eq_ignore_ascii_case(word));
        self.next += usize::from(found);
        found
    }

    fn error(&self, at: usize, message: impl Into<String>) -> ParseFilterError {
        ParseFilterError {
            text: self.text.into(),
            at,
            message: message.into(),
        }
    }

    fn or(&mut self) -> Result<Filter, ParseFilterError> {
        let mut terms = vec![self.and()?];
        while self.take("or") {
            terms.push(self.and()?);
        }
        Ok(if terms.len() == 1 {
            terms.remove(0)
        } else {
            Filter::Or(terms)
        })
    }

    fn and(&mut self) -> Result<Filter, ParseFilterError> {
        let mut factors = vec![self.factor()?];
        while self.take("and") {
            factors.push(self.factor()?);
        }
        Ok(if factors.len() == 1 {
            factors.remove(0)
        } else {
            Filter::And(factors)
        })
    }

    fn factor(&mut self) -> Result<Filter, ParseFilterError> {
        self.depth += 1;
        let at = self.peek().map_or(self.text.len(), |(at, _)| at);
        let factor = match self.depth {
            ..=MAX_DEPTH => self.one_factor(),
            _ => Err(self.error(at, format!("more than {MAX_DEPTH} levels deep"))),
        };
        self.depth -= 1;
        factor
    }

    fn one_factor(&mut self) -> Result<Filter, ParseFilterError> {
        if self.take("not") {
            return Ok(Filter::Not(Box::new(self.factor()?)));
        }
        let Some((at, token)) = self.peek() else {
            return Err(self.error(self.text.len(), "something is missing: a case id, AXIS=VALUE, area:NAME, requirement:ID, level:NAME, covers:TEXT or scenario:ID"));
        };
        if self.take("(") {
            let inner = self.or()?;
            if !self.take(")") {
                let end = self.peek().map_or(self.text.len(), |(at, _)| at);
                return Err(self.error(end, "')' is missing"));
            }
            return Ok(inner);
        }
        if token == ")"
            || ["and", "or"]
                .iter()
                .any(|word| token.eq_ignore_ascii_case(word))
        {
            return Err(self.error(at, format!("'{token}' is not expected here")));
        }
        self.next += 1;
        if let Some((axis, value)) = token.split_once('=') {
            return Ok(Filter::Axis(axis.into(), value.into()));
        }
        if let Some((name, value)) = token.split_once(':') {
            let property = match name {
                "area" => Property::Area,
                "requirement" => Property::Requirement,
                "level" => Property::Level,
                "covers" => Property::Covers,
                "scenario" => Property::Scenario,
                _ => {
                    return Err(self.error(
                        at,
                        format!("unknown property '{name}': area, requirement, level, covers or scenario"),
                    ));
                }
            };
            return Ok(Filter::Property(property, value.into()));
        }
        Ok(Filter::Id(token.into()))
    }
}

impl Filter {
    /// Whether a case is selected.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let header = &subject.document.header;
        match self {
            Self::All => true,
            Self::And(all) => all.iter().all(|filter| filter.matches(subject)),
            Self::Or(any) => any.iter().any(|filter| filter.matches(subject)),
            Self::Not(filter) => !filter.matches(subject),
            Self::Id(pattern) if pattern.contains('*') => glob(pattern, &subject.key.id),
            Self::Id(pattern) if pattern.contains('[') => *pattern == subject.key.id,
            Self::Id(pattern) => subject.key.id.contains(pattern.as_str()),
            Self::Axis(axis, value) => subject.key.axes.get(axis) == Some(value),
            Self::Property(property, value) => match property {
                Property::Area => subject.area == value,
                Property::Requirement => header.requirement.contains(value),
                Property::Level => super::level_name(header.level) == value,
                Property::Covers => header
                    .covers
                    .iter()
                    .any(|covered| covered.contains(value.as_str())),
                Property::Scenario => header.id == *value,
            },
        }
    }
}

/// `*` stands for any text, everything else for itself.
fn glob(pattern: &str, text: &str) -> bool {
    let parts: Vec<&str> = pattern.split('*').collect();
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    if text.len() < first.len() + last.len() || !text.starts_with(first) || !text.ends_with(last) {
        return false;
    }
    let mut rest = &text[first.len()..text.len() - last.len()];
    for part in &parts[1..parts.len() - 1] {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, want) in [
            ("udp-*", "udp-replaced[ipv4]", true),
            ("*[ipv6*", "udp-replaced[ipv6,x]", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("*", "", true),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
    }

    #[test]
    fn precedence_and_grouping() {
        let parsed: Filter = "a or b and not (c or family=ipv6)".parse().expect("valid");
        assert_eq!(
            parsed,
            Filter::Or(vec![
                Filter::Id("a".into()),
                Filter::And(vec![
                    Filter::Id("b".into()),
                    Filter::Not(Box::new(Filter::Or(vec![
                        Filter::Id("c".into()),
                        Filter::Axis("family".into(), "ipv6".into())
                    ]))),
                ]),
            ])
        );
    }

    #[test]
    fn errors_point_at_the_place() {
        for (text, at) in [
            ("", 0),
            ("a and", 5),
            ("(a", 2),
            ("a b", 2),
            ("aria:x", 0),
            ("or a", 0),
            ("a )", 2),
        ] {
            let error = text.parse::<Filter>().expect_err(text);
            assert_eq!(error.at, at, "{error}");
        }
    }
}
