//! What a candidate prints, kept in bounded memory: the beginning and the end.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

const HEAD: usize = 256 << 10;
const TAIL: usize = 256 << 10;
const LINE: usize = 16 << 10;

/// A log that several readers append to.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    head: String,
    tail: VecDeque<String>,
    tail_bytes: usize,
    dropped_lines: u64,
}

impl Log {
    /// Reads lines until the stream ends.
    pub async fn follow(self, label: &'static str, stream: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            match reader.read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    line.truncate(LINE);
                    let text = String::from_utf8_lossy(&line);
                    self.push(&format!("{label} {}\n", text.trim_end()));
                }
            }
        }
    }

    /// Appends one line.
    pub fn push(&self, line: &str) {
        let mut kept = self.0.lock().expect("no panic while held");
        if kept.tail.is_empty() && kept.head.len() + line.len() <= HEAD {
            kept.head.push_str(line);
            return;
        }
        kept.tail_bytes += line.len();
        kept.tail.push_back(line.to_owned());
        while kept.tail_bytes > TAIL {
            let Some(first) = kept.tail.pop_front() else { break };
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

    /// The last lines, for messages.
    pub fn last_lines(&self, count: usize) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
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
}
