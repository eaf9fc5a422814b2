//! Errors that a candidate logs again and again.

use std::collections::BTreeMap;

use reports::model::without_numbers;

/// Distinct messages that are counted; more of them are no loop but a chatty program.
const DISTINCT: usize = 64;
/// Bytes of a message that tell it from others.
const TOLD_APART: usize = 200;

/// How often each error was logged, where messages that differ in numbers only are one.
#[derive(Debug, Default)]
pub struct Errors(BTreeMap<String, u64>);

impl Errors {
    /// Takes a line of a log into account.
    pub fn count(&mut self, line: &str) {
        if Severity::of(line) != Some(Severity::Error) {
            return;
        }
        let end = line.floor_char_boundary(TOLD_APART);
        let message = without_numbers(&line[..end]);
        if let Some(count) = self.0.get_mut(&message) {
            *count += 1;
        } else if self.0.len() < DISTINCT {
            self.0.insert(message, 1);
        }
    }

    /// The message that came most often, and how often.
    pub fn most(&self) -> Option<(&str, u64)> {
        let (message, count) = self.0.iter().max_by_key(|(_, count)| **count)?;
        Some((message, *count))
    }
}

/// What a line of a log says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something failed.
    Error,
    /// Something may be wrong.
    Warning,
}

impl Severity {
    /// That of a line as klog (`E1122 ...`), tracing, zap and logrus write them, if it is worth a complaint.
    pub fn of(line: &str) -> Option<Self> {
        let line = line.split_once(' ').map_or(line, |(_stream, rest)| rest);
        let bytes = line.as_bytes();
        if bytes.len() > 5 && bytes[1..5].iter().all(u8::is_ascii_digit) {
            // klog says it in its first letter, whatever words follow.
            return match bytes[0] {
                b'E' | b'F' => Some(Self::Error),
                b'W' => Some(Self::Warning),
                _ => None,
            };
        }
        let says = |levels: &[&str]| {
            line.split(|c: char| !c.is_ascii_alphanumeric())
                .take(16)
                .any(|word| levels.iter().any(|level| word.eq_ignore_ascii_case(level)))
        };
        if says(&["error", "fatal", "panic", "panicked"]) {
            Some(Self::Error)
        } else {
            says(&["warn", "warning"]).then_some(Self::Warning)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_error_is_counted_whatever_its_numbers() {
        let mut errors = Errors::default();
        for at in 0..30 {
            errors.count(&format!(
                "err E1122 19:30:{at:02}.12 1 proxier.go:99] \"Failed\" pid={at}"
            ));
            errors.count(&format!(
                "err W1122 19:30:{at:02}.12 1 proxier.go:99] error is a word"
            ));
            errors.count(&format!(
                "out 2026-11-22T19:30:{at:02}Z  INFO sync {at} done"
            ));
        }
        errors.count("out 2026-11-22T19:30:12Z ERROR no buffer space");
        let (message, count) = errors.most().unwrap();
        assert_eq!(count, 30, "{errors:?}");
        assert!(
            message.contains("proxier.go:#] \"Failed\" pid=#"),
            "{message}"
        );
        assert_eq!(errors.0.len(), 2, "{errors:?}");
    }

    #[test]
    fn many_messages_cost_bounded_memory() {
        let mut errors = Errors::default();
        for word in 0..10_000_u32 {
            let word: String = word.to_string().bytes().map(|b| (b + 60) as char).collect();
            errors.count(&format!("err level=error {word}"));
        }
        assert_eq!(errors.0.len(), DISTINCT);
    }
}
