//! Errors that a candidate logs again and again.

use std::collections::BTreeMap;

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
        if !is_error(line) {
            return;
        }
        let message = without_numbers(line);
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

/// Whether a line reports an error, as klog (`E1122 ...`), tracing, zap and logrus write them. Warnings are none.
fn is_error(line: &str) -> bool {
    let line = line.split_once(' ').map_or(line, |(_stream, rest)| rest);
    let bytes = line.as_bytes();
    if bytes.len() > 5 && bytes[1..5].iter().all(u8::is_ascii_digit) {
        // klog says it in its first letter, whatever words follow.
        return matches!(bytes[0], b'E' | b'F');
    }
    line.split(|c: char| !c.is_ascii_alphanumeric())
        .take(16)
        .any(|word| {
            ["error", "fatal", "panic", "panicked"]
                .iter()
                .any(|level| word.eq_ignore_ascii_case(level))
        })
}

/// The message with every run of digits as one `#`. Digits of hexadecimal numbers and addresses go with them.
fn without_numbers(line: &str) -> String {
    let mut message = String::new();
    for c in line.chars() {
        if message.len() >= TOLD_APART {
            break;
        }
        let number = c.is_ascii_digit();
        if !number {
            message.push(c);
        } else if !message.ends_with('#') {
            message.push('#');
        }
    }
    message
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
