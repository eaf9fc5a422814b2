//! The append-only log of a run, `events.jsonl`: writing it so that a crash loses at most one line, reading it back with
//! errors that name the line.
//!
//! Not here: what the events mean (see [`crate::model`]).

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::event::{Event, EventBody};
use crate::lines::Lines;

/// The name of the log inside a run's output directory.
pub const FILE_NAME: &str = "events.jsonl";

/// The longest line a reader accepts, in bytes. The first event holds the whole plan and is by far the longest: 30,000
/// cases take about 15 MB. The bound keeps a hostile file from filling the memory.
pub const MAX_LINE: usize = 64 << 20;

/// What can go wrong with a log.
#[derive(Debug, Error)]
pub enum LogError {
    /// The file could not be created or opened.
    #[error("open event log {path:?}: {source}")]
    Open {
        /// The log.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// An event could not be stored; everything stored before it is still there, in whole lines.
    #[error("append event {seq} to {path:?}: {source} (the {seq} events before it are kept)")]
    Append {
        /// The log.
        path: PathBuf,
        /// Number of the event that is missing.
        seq: u64,
        /// The system's reason, such as a full disk.
        source: io::Error,
    },
    /// A number in the event is infinite or not a number, which JSON cannot say.
    #[error("append event {seq} to {path:?}: field {field} is not a finite number")]
    NotFinite {
        /// The log.
        path: PathBuf,
        /// Number the event would have had.
        seq: u64,
        /// The field.
        field: &'static str,
    },
    /// The log could not be made durable.
    #[error("sync event log {path:?}: {source}")]
    Sync {
        /// The log.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file could not be read on.
    #[error("read event log {path:?}, line {line}: {source}")]
    Read {
        /// The log.
        path: PathBuf,
        /// Line number, counted from 1.
        line: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// A line is longer than [`MAX_LINE`].
    #[error("read event log {path:?}, line {line}: longer than {MAX_LINE} bytes")]
    TooLong {
        /// The log.
        path: PathBuf,
        /// Line number, counted from 1.
        line: u64,
    },
    /// A line is no event.
    #[error("read event log {path:?}, line {line}: {source}")]
    Parse {
        /// The log.
        path: PathBuf,
        /// Line number, counted from 1.
        line: u64,
        /// What the JSON reader says.
        source: serde_json::Error,
    },
}

/// Where a writer puts its bytes: a file, or something that fails on purpose in a test.
trait Sink: Send {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

impl Sink for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Appends events to a log, numbering and dating them.
///
/// Each event is one write of one whole line, so a reader (or a crash) never sees half of two events. After the first
/// failed append the writer stays failed: a log with a hole in the middle would be worse than one that ends early.
pub struct EventWriter {
    path: PathBuf,
    sink: Box<dyn Sink>,
    /// Bytes of whole lines stored so far.
    stored: u64,
    next_seq: u64,
    failed: Option<io::ErrorKind>,
}

impl EventWriter {
    /// Creates the log.
    ///
    /// # Errors
    /// [`LogError::Open`], also when the file exists already: one log describes one run.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, LogError> {
        let path = path.as_ref().to_path_buf();
        // Append mode makes the writes land at the end even after a truncation.
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        match file {
            Ok(file) => Ok(Self::over(path, Box::new(file))),
            Err(source) => Err(LogError::Open { path, source }),
        }
    }

    /// Goes on with a log that was read to its end. What is left of a torn last line is cut off; a last line that lacks nothing
    /// but its newline gets it.
    ///
    /// # Errors
    /// [`LogError::Open`] when the file cannot be opened, [`LogError::Sync`] when its end cannot be put in order.
    pub fn resume(end: &LogEnd) -> Result<Self, LogError> {
        let path = end.path.clone();
        let mut file = match OpenOptions::new().append(true).open(&path) {
            Ok(file) => file,
            Err(source) => return Err(LogError::Open { path, source }),
        };
        let mut stored = end.whole_bytes;
        let repaired = file.set_len(stored).and_then(|()| {
            if end.unended {
                stored += 1;
                Write::write_all(&mut file, b"\n")?;
            }
            file.sync_all()
        });
        if let Err(source) = repaired {
            return Err(LogError::Sync { path, source });
        }
        let mut writer = Self::over(path, Box::new(file));
        (writer.stored, writer.next_seq) = (stored, end.next_seq);
        Ok(writer)
    }

    fn over(path: PathBuf, sink: Box<dyn Sink>) -> Self {
        Self {
            path,
            sink,
            stored: 0,
            next_seq: 0,
            failed: None,
        }
    }

    /// Makes what was appended so far durable, so that it is there after a power failure too.
    ///
    /// # Errors
    /// [`LogError::Sync`] when the system cannot promise that the log is on the disk.
    pub fn sync(&mut self) -> Result<(), LogError> {
        let synced = self.sink.sync();
        synced.map_err(|source| LogError::Sync {
            path: self.path.clone(),
            source,
        })
    }

    /// Appends one event and hands it to the system before returning it with its number and time.
    ///
    /// # Errors
    /// [`LogError::Append`] when it could not be stored (a full disk, say); whole lines stored before stay.
    /// [`LogError::NotFinite`] when a number is not finite; nothing is stored then, and the writer can go on.
    pub fn append(&mut self, body: EventBody) -> Result<Event, LogError> {
        let seq = self.next_seq;
        if let Some(kind) = self.failed {
            return Err(self.append_error(kind.into()));
        }
        if let Some(field) = not_finite(&body) {
            return Err(LogError::NotFinite {
                path: self.path.clone(),
                seq,
                field,
            });
        }
        let event = Event {
            seq,
            time: now(),
            body,
        };
        let mut line = match serde_json::to_vec(&event) {
            Ok(line) => line,
            Err(error) => return Err(self.append_error(error.into())),
        };
        line.push(b'\n');
        if let Err(source) = self.sink.write_all(&line) {
            self.failed = Some(source.kind());
            // Shrinking works on a full disk. Where it does not (a pipe, a device) the reader tolerates the torn line.
            let _ = self.sink.truncate(self.stored);
            return Err(self.append_error(source));
        }
        self.stored += line.len() as u64;
        self.next_seq += 1;
        Ok(event)
    }

    fn append_error(&self, source: io::Error) -> LogError {
        LogError::Append {
            path: self.path.clone(),
            seq: self.next_seq,
            source,
        }
    }

    /// The file that is written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the log durable and closes it.
    ///
    /// # Errors
    /// [`LogError::Sync`] when the system cannot promise that the log is on the disk.
    pub fn finish(mut self) -> Result<(), LogError> {
        self.sync()
    }
}

/// The current time the way the log writes it.
pub fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

/// The first field of the event that JSON could not carry.
fn not_finite(body: &EventBody) -> Option<&'static str> {
    let field = |name, value: f64| (!value.is_finite()).then_some(name);
    match body {
        EventBody::StepFinished { duration_ms, .. } => field("durationMs", *duration_ms),
        EventBody::Measured { value, .. } => field("value", *value),
        EventBody::AttemptFinished(finished) => field("durationMs", finished.duration_ms)
            .or_else(|| field("convergenceMs", finished.convergence_ms.unwrap_or(0.0))),
        EventBody::RunStarted(_)
        | EventBody::RunResumed(_)
        | EventBody::AttemptStarted { .. }
        | EventBody::Characteristic { .. }
        | EventBody::ExperimentFinished(_)
        | EventBody::CanaryFinished(_)
        | EventBody::RunFinished { .. } => None,
        EventBody::SetupFinished(finished) => field("durationMs", finished.duration_ms),
    }
}

/// Opens a log for reading.
///
/// # Errors
/// [`LogError::Open`] when the file cannot be opened.
pub fn read(path: impl AsRef<Path>) -> Result<EventReader, LogError> {
    let path = path.as_ref().to_path_buf();
    match File::open(&path) {
        Ok(file) => Ok(EventReader::over(path, Box::new(BufReader::new(file)))),
        Err(source) => Err(LogError::Open { path, source }),
    }
}

/// Where a log that was read ends, for going on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    path: PathBuf,
    /// Bytes of whole events, with their newlines.
    whole_bytes: u64,
    /// Whether the last event lacks its newline.
    unended: bool,
    /// Bytes behind them that make no event.
    pub torn_bytes: u64,
    next_seq: u64,
}

/// The events of a log, one after the other; ends after the first error.
pub struct EventReader {
    lines: Lines,
    done: bool,
    end: LogEnd,
}

impl EventReader {
    fn over(path: PathBuf, input: Box<dyn BufRead + Send>) -> Self {
        let end = LogEnd {
            path: path.clone(),
            whole_bytes: 0,
            unended: false,
            torn_bytes: 0,
            next_seq: 0,
        };
        Self {
            lines: Lines::over(path, input),
            done: false,
            end,
        }
    }

    /// Reads a log out of memory; `name` stands for the path in errors.
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> Self {
        Self::over(name.into(), Box::new(io::Cursor::new(bytes)))
    }

    /// Whether the log ended in the middle of a line, as one does whose writer was killed. Known once the iterator ended.
    pub fn truncated(&self) -> bool {
        self.end.torn_bytes > 0
    }

    /// Where the log ends; the end of the file once the iterator ended without an error.
    pub fn end(&self) -> &LogEnd {
        &self.end
    }

    fn next_line(&mut self) -> Result<Option<Event>, LogError> {
        let Some(line) = self.lines.next_line()? else {
            return Ok(None);
        };
        let length = line.bytes.len() as u64;
        match parse(line.bytes) {
            Ok(event) => {
                self.end.whole_bytes = line.end;
                self.end.unended = !line.whole;
                let next = event.seq.saturating_add(1);
                self.end.next_seq = self.end.next_seq.max(next);
                Ok(Some(event))
            }
            Err(_) if !line.whole => {
                self.end.whole_bytes = line.end - length;
                self.end.torn_bytes = length;
                Ok(None)
            }
            Err(source) => Err(self.lines.is_no_event(source)),
        }
    }
}

impl Iterator for EventReader {
    type Item = Result<Event, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.next_line().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

pub(crate) fn parse(line: &[u8]) -> Result<Event, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(line);
    let event = Event::deserialize(&mut reader)?;
    reader.end()?;
    Ok(event)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::event::FinishReason;

    fn finished() -> EventBody {
        EventBody::RunFinished {
            reason: FinishReason::Completed,
            message: None,
        }
    }

    fn measured(value: f64) -> EventBody {
        EventBody::Measured {
            case: "c[ipv4]".into(),
            attempt: 1,
            name: "convergence".into(),
            unit: "ms".into(),
            value,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let mut writer = EventWriter::create(&path).unwrap();
        let events = vec![
            writer.append(measured(1.25)).unwrap(),
            writer.append(finished()).unwrap(),
        ];
        writer.finish().unwrap();
        let mut reader = read(&path).unwrap();
        let back: Vec<Event> = reader.by_ref().collect::<Result<_, _>>().unwrap();
        assert_eq!(back, events);
        assert_eq!(back[1].seq, 1);
        assert!(!reader.truncated());
        assert!(
            back[0].time.ends_with('Z')
                && back[0].time.len() == "2026-11-22T16:10:19.123456Z".len()
        );
    }

    #[test]
    fn an_event_is_in_the_file_as_soon_as_append_returns() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let mut writer = EventWriter::create(&path).unwrap();
        writer.append(measured(1.0)).unwrap();
        assert_eq!(read(&path).unwrap().count(), 1);
    }

    #[test]
    fn a_log_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        std::fs::write(&path, "kept").unwrap();
        assert!(matches!(
            EventWriter::create(&path),
            Err(LogError::Open { .. })
        ));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
    }

    #[test]
    fn a_number_that_json_cannot_say_is_refused_and_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let mut writer = EventWriter::create(&path).unwrap();
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = writer.append(measured(bad)).unwrap_err();
            assert!(matches!(error, LogError::NotFinite { field: "value", .. }));
        }
        assert_eq!(writer.append(measured(0.0)).unwrap().seq, 0);
    }

    /// A disk with room for so many bytes, which stores what fits and then fails, as a real one does.
    #[derive(Clone)]
    struct SmallDisk {
        bytes: Arc<Mutex<Vec<u8>>>,
        room: usize,
    }

    impl Sink for SmallDisk {
        fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
            let mut stored = self.bytes.lock().unwrap();
            let fits = bytes.len().min(self.room - stored.len());
            stored.extend_from_slice(&bytes[..fits]);
            if fits < bytes.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }

        fn truncate(&mut self, len: u64) -> io::Result<()> {
            self.bytes.lock().unwrap().truncate(len as usize);
            Ok(())
        }

        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_keeps_the_whole_lines_before_it() {
        let disk = SmallDisk {
            bytes: Arc::default(),
            room: 300,
        };
        let mut writer = EventWriter::over("events.jsonl".into(), Box::new(disk.clone()));
        let mut kept = 0;
        let error = loop {
            match writer.append(measured(1.0)) {
                Ok(_) => kept += 1,
                Err(error) => break error,
            }
        };
        assert!(kept > 0);
        assert!(
            error.to_string().contains("events before it are kept"),
            "{error}"
        );
        assert!(crate::directory::DirectoryError::from(error).is_full());
        // The writer stays failed, even if room appears: a hole in the middle would go unnoticed.
        assert!(writer.append(finished()).is_err());
        let bytes = disk.bytes.lock().unwrap().clone();
        let mut reader = EventReader::from_bytes("log", bytes);
        assert_eq!(reader.by_ref().filter(Result::is_ok).count(), kept);
        assert!(!reader.truncated());
    }

    #[test]
    fn a_device_that_is_always_full_is_an_error() {
        let Ok(full) = OpenOptions::new().append(true).open("/dev/full") else {
            eprintln!("skipped: no /dev/full here");
            return;
        };
        let mut writer = EventWriter::over("/dev/full".into(), Box::new(full));
        let error = writer.append(finished()).unwrap_err();
        assert!(matches!(error, LogError::Append { seq: 0, .. }), "{error}");
    }

    #[test]
    fn every_truncation_of_the_last_line_is_tolerated_and_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let mut writer = EventWriter::create(&path).unwrap();
        writer.append(measured(1.0)).unwrap();
        writer.append(finished()).unwrap();
        drop(writer);
        let bytes = std::fs::read(&path).unwrap();
        let first = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in first..bytes.len() {
            let mut reader = EventReader::from_bytes("log", bytes[..cut].to_vec());
            let events: Vec<Event> = reader.by_ref().collect::<Result<_, _>>().unwrap();
            // Without its newline the last event is whole, and counts; with no byte of it there is nothing to report.
            assert_eq!(events.len(), if cut == bytes.len() - 1 { 2 } else { 1 });
            assert_eq!(reader.truncated(), cut != first && cut != bytes.len() - 1);
        }
    }

    #[test]
    fn a_log_goes_on_wherever_it_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let mut writer = EventWriter::create(&path).unwrap();
        writer.append(measured(1.0)).unwrap();
        let second = writer.append(measured(2.0)).unwrap();
        drop(writer);
        let bytes = std::fs::read(&path).unwrap();
        let first = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in first..=bytes.len() {
            // A disk that lost power may leave zeros where the rest of a line would be.
            for tail in [&b""[..], b"\0\0\0"] {
                std::fs::write(&path, [&bytes[..cut], tail].concat()).unwrap();
                let mut reader = read(&path).unwrap();
                let kept = reader.by_ref().map(Result::unwrap).count();
                let mut writer = EventWriter::resume(reader.end()).unwrap();
                let next = writer.append(finished()).unwrap();
                writer.finish().unwrap();
                let mut reader = read(&path).unwrap();
                let events: Vec<Event> = reader.by_ref().map(Result::unwrap).collect();
                assert!(!reader.truncated(), "cut at {cut}");
                assert_eq!(events.len(), kept + 1, "cut at {cut}");
                assert_eq!(events.last(), Some(&next));
                let numbers: Vec<u64> = events.iter().map(|event| event.seq).collect();
                assert_eq!(numbers, (0..=kept as u64).collect::<Vec<_>>());
                let whole = cut == bytes.len() || (cut + 1 == bytes.len() && tail.is_empty());
                assert_eq!(events.contains(&second), whole, "cut at {cut}");
            }
        }
    }

    #[test]
    fn errors_name_the_line() {
        let good = r#"{"seq":0,"time":"t","type":"runFinished","reason":"completed"}"#;
        for (bad, says) in [
            ("{]", "line 3"),
            ("{\"seq\":1}", "missing field `time`"),
            (
                r#"{"seq":1,"time":"t","type":"dance"}"#,
                "unknown variant `dance`",
            ),
            (&format!("{good} {good}"), "trailing characters"),
        ] {
            let text = format!("{good}\n\n{bad}\n{good}\n");
            let results: Vec<_> = EventReader::from_bytes("log", text.into_bytes()).collect();
            assert_eq!(results.len(), 2, "the reader stops at the first error");
            let error = results[1].as_ref().unwrap_err().to_string();
            assert!(error.contains("line 3") && error.contains(says), "{error}");
        }
        let mut reader = EventReader::from_bytes("log", b"\xff\xfe\n".to_vec());
        assert!(matches!(
            reader.next(),
            Some(Err(LogError::Parse { line: 1, .. }))
        ));
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let line =
            r#"{"seq":0,"time":"t","type":"runFinished","reason":"completed","mood":{"a":[1]}}"#;
        let mut reader = EventReader::from_bytes("log", line.as_bytes().to_vec());
        assert_eq!(reader.next().unwrap().unwrap().body, finished());
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        struct Endless;
        impl Read for Endless {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                buf.fill(b'x');
                Ok(buf.len())
            }
        }
        let input = BufReader::with_capacity(1 << 20, Endless);
        let mut reader = EventReader::over("log".into(), Box::new(input));
        assert!(matches!(
            reader.next(),
            Some(Err(LogError::TooLong { line: 1, .. }))
        ));
        assert!(reader.next().is_none());
    }
}
