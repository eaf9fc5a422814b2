//! What a candidate prints, kept in bounded memory: the beginning and the end.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use super::errors::{Errors, Severity};

const HEAD: usize = 256 << 10;
const TAIL: usize = 256 << 10;
/// Bytes kept of one line; the rest of it is read and thrown away.
const LINE: usize = 16 << 10;
/// Bytes of one line that a message quotes.
const QUOTED: usize = 400;

/// A log that several readers append to.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    head: String,
    tail: VecDeque<String>,
    tail_bytes: usize,
    dropped_lines: u64,
    errors: Errors,
}

impl Log {
    /// Reads lines until the stream ends. A line without an end costs no more memory than a long one.
    pub async fn follow(self, label: &'static str, stream: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        let mut begun = false;
        loop {
            let (used, ended) = match reader.fill_buf().await {
                Ok([]) | Err(_) => break,
                Ok(bytes) => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    let part = &bytes[..end.unwrap_or(bytes.len())];
                    line.extend_from_slice(&part[..part.len().min(LINE - line.len())]);
                    (end.map_or(bytes.len(), |end| end + 1), end.is_some())
                }
            };
            reader.consume(used);
            begun = !ended;
            if ended {
                self.push_bytes(label, &line);
                line.clear();
            }
        }
        if begun {
            self.push_bytes(label, &line);
        }
    }

    fn push_bytes(&self, label: &str, line: &[u8]) {
        self.push(&format!(
            "{label} {}\n",
            String::from_utf8_lossy(line).trim_end()
        ));
    }

    /// Appends one line.
    pub fn push(&self, line: &str) {
        let mut kept = self.0.lock().expect("no panic while held");
        kept.errors.count(line);
        if kept.tail.is_empty() && kept.head.len() + line.len() <= HEAD {
            kept.head.push_str(line);
            return;
        }
        kept.tail_bytes += line.len();
        kept.tail.push_back(line.to_owned());
        while kept.tail_bytes > TAIL {
            let Some(first) = kept.tail.pop_front() else {
                break;
            };
            kept.tail_bytes -= first.len();
            kept.dropped_lines += 1;
        }
    }

    /// Everything that is kept.
    pub fn text(&self) -> String {
        let kept = self.0.lock().expect("no panic while held");
        let mut text = kept.head.clone();
        if kept.dropped_lines > 0 {
            text.push_str(&format!("... {} lines left out ...\n", kept.dropped_lines));
        }
        kept.tail.iter().for_each(|line| text.push_str(line));
        text
    }

    /// The error that was logged most often, with its numbers removed, and how often.
    pub fn most_frequent_error(&self) -> Option<(String, u64)> {
        let kept = self.0.lock().expect("no panic while held");
        let (message, count) = kept.errors.most()?;
        Some((message.trim_end().to_owned(), count))
    }

    /// The last lines, for messages; long ones are cut.
    pub fn last_lines(&self, count: usize) -> String {
        let text = self.text();
        let lines: Vec<String> = text
            .lines()
            .rev()
            .take(count)
            .map(|line| {
                let end = line.floor_char_boundary(QUOTED);
                if end < line.len() {
                    format!("{}...", &line[..end])
                } else {
                    line.to_owned()
                }
            })
            .collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The last line that is an error or a warning, if there is one.
    pub fn last_complaint(&self) -> Option<String> {
        let text = self.text();
        let line = text
            .lines()
            .rev()
            .find(|line| Severity::of(line).is_some())?;
        let end = line.floor_char_boundary(QUOTED);
        Some(line[..end].trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_beginning_and_the_end() {
        let log = Log::default();
        for number in 0..100_000 {
            log.push(&format!("line {number} of a chatty candidate\n"));
        }
        let text = log.text();
        assert!(text.starts_with("line 0 of"));
        assert!(text.ends_with("line 99999 of a chatty candidate\n"));
        assert!(text.contains("lines left out"));
        assert!(text.len() < HEAD + TAIL + 100);
    }

    #[test]
    fn complaints_are_known_by_their_level() {
        let log = Log::default();
        for line in [
            "out I1122 19:30:12.123456 1 server.go:663] starting",
            "err E1122 19:30:12.123456 1 proxier.go:1308] \"Failed\"",
            "err 2026-11-22T19:30:12Z  INFO sync done",
        ] {
            log.push(&format!("{line}\n"));
        }
        let complaint = log.last_complaint().unwrap();
        assert!(complaint.contains("proxier.go:1308"), "{complaint}");
        log.push("out 2026-11-22T19:30:13Z ERROR sync: no buffer space\n");
        assert!(log.last_complaint().unwrap().contains("no buffer space"));
        assert_eq!(Log::default().last_complaint(), None);
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        let log = Log::default();
        let mut stream = vec![b'x'; 10 * LINE];
        stream.extend_from_slice(b"\nshort\n\nlast without end");
        log.clone().follow("out", &stream[..]).await;
        let text = log.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0].len(), "out ".len() + LINE);
        assert_eq!(lines[1..], ["out short", "out ", "out last without end"]);
        assert!(log.last_lines(4).len() < 2 * QUOTED);
        assert!(log.last_lines(1).ends_with("last without end"));
    }
}
