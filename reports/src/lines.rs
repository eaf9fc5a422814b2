//! The lines of a log, one after the other in one buffer, with bounded memory and errors that name the line.

use std::io::{BufRead, Read as _};
use std::path::{Path, PathBuf};

use crate::log::{LogError, MAX_LINE};

/// A buffer is given back before it is used again when it has grown beyond this, in bytes.
const LARGE: usize = 1 << 18;

/// A line of a log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    /// Its bytes, with the newline where there is one.
    pub bytes: &'a [u8],
    /// Whether it has a newline; the last line of a log whose writer was killed may have none.
    pub whole: bool,
    /// Its number, counted from 1.
    pub number: u64,
    /// Bytes from the beginning of the log to the end of the line.
    pub end: u64,
}

/// The lines of a log that are not blank.
pub(crate) struct Lines {
    path: PathBuf,
    input: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    number: u64,
    end: u64,
}

impl Lines {
    pub fn over(path: PathBuf, input: Box<dyn BufRead + Send>) -> Self {
        Self {
            path,
            input,
            buffer: Vec::new(),
            number: 0,
            end: 0,
        }
    }

    /// Opens a log.
    ///
    /// # Errors
    /// [`LogError::Open`] when the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let path = path.to_path_buf();
        match std::fs::File::open(&path) {
            Ok(file) => {
                let input = std::io::BufReader::with_capacity(1 << 16, file);
                Ok(Self::over(path, Box::new(input)))
            }
            Err(source) => Err(LogError::Open { path, source }),
        }
    }

    /// The next line, `None` at the end.
    ///
    /// # Errors
    /// [`LogError::Read`] and [`LogError::TooLong`].
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, LogError> {
        loop {
            self.number += 1;
            // The first line of a log holds the whole plan; hundreds of logs may be open side by side.
            if self.buffer.capacity() > LARGE {
                self.buffer = Vec::new();
            }
            self.buffer.clear();
            let limit = MAX_LINE as u64 + 1;
            let read = (&mut self.input)
                .take(limit)
                .read_until(b'\n', &mut self.buffer);
            if let Err(source) = read {
                return Err(LogError::Read {
                    path: self.path.clone(),
                    line: self.number,
                    source,
                });
            }
            if self.buffer.is_empty() {
                return Ok(None);
            }
            self.end += self.buffer.len() as u64;
            let whole = self.buffer.last() == Some(&b'\n');
            if !whole && self.buffer.len() as u64 == limit {
                return Err(LogError::TooLong {
                    path: self.path.clone(),
                    line: self.number,
                });
            }
            if whole && self.buffer.trim_ascii().is_empty() {
                continue;
            }
            return Ok(Some(Line {
                bytes: &self.buffer,
                whole,
                number: self.number,
                end: self.end,
            }));
        }
    }

    /// The line that was read last.
    pub fn current(&self) -> &[u8] {
        &self.buffer
    }

    /// The error for the line that was read last when it is no event.
    pub fn is_no_event(&self, source: serde_json::Error) -> LogError {
        LogError::Parse {
            path: self.path.clone(),
            line: self.number,
            source,
        }
    }
}
