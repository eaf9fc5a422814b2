//! The second look: the chosen lines of all logs in the order of their times, numbered anew, and the report that follows
//! from them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::evidence::{Evidence, EvidenceCounts};
use super::peek::Peek;
use super::select::Selection;
use super::{Input, MergeError};
use crate::event::{Event, EventBody, FinishReason, RunStarted};
use crate::lines::Lines;
use crate::log;
use crate::model::{Report, ReportBuilder};

/// Writes the merged log and its evidence. The log appears under its name when it is complete.
pub(super) fn weave(
    inputs: &[Input],
    selection: &Selection,
    (started, run): (String, RunStarted),
    (reason, message): (FinishReason, Option<String>),
    out: &Path,
) -> Result<(Report, EvidenceCounts), MergeError> {
    let plan: HashMap<String, u32> = run
        .cases
        .iter()
        .zip(0..)
        .map(|(case, at)| (case.id.clone(), at))
        .collect();
    let path = out.join(log::FILE_NAME);
    let draft = Draft::create(out.join(format!("{}.tmp", log::FILE_NAME)))?;
    let mut merged = Woven {
        file: BufWriter::with_capacity(
            1 << 16,
            draft
                .file
                .try_clone()
                .map_err(MergeError::write(&draft.path))?,
        ),
        path: &draft.path,
        builder: ReportBuilder::default(),
        seq: 0,
        last: started.clone(),
        said: HashSet::new(),
    };
    merged.event(started, EventBody::RunStarted(run))?;
    let mut evidence = Evidence::new(out);
    let mut logs = Vec::new();
    let mut heads = BinaryHeap::new();
    for (number, input) in (0_u32..).zip(inputs) {
        let mut log = Log {
            lines: Lines::open(&input.log())?,
            number,
            last_line: input.survey.last_line,
        };
        if let Some(time) = log.advance(&plan, selection)? {
            heads.push(Reverse((time, number)));
        }
        logs.push(log);
    }
    while let Some(Reverse((_, number))) = heads.pop() {
        let log = &mut logs[number as usize];
        if let Some(path) = merged.line(log)? {
            evidence.take(&inputs[number as usize].dir, &path)?;
        }
        if let Some(time) = log.advance(&plan, selection)? {
            heads.push(Reverse((time, number)));
        }
    }
    let last = merged.last.clone();
    merged.event(last, EventBody::RunFinished { reason, message })?;
    let Woven { file, builder, .. } = merged;
    file.into_inner()
        .map_err(|error| error.into_error())
        .and_then(|file| file.sync_all())
        .map_err(MergeError::write(&draft.path))?;
    draft.publish(&path)?;
    Ok((builder.finish()?, evidence.counts))
}

/// A log that is being read, at a line that is to be copied.
struct Log {
    lines: Lines,
    number: u32,
    last_line: u64,
}

impl Log {
    /// Goes to the next line that is to be copied and returns its time.
    fn advance(
        &mut self,
        plan: &HashMap<String, u32>,
        selection: &Selection,
    ) -> Result<Option<String>, MergeError> {
        while let Some(line) = self.lines.next_line()? {
            if line.number > self.last_line {
                break;
            }
            let (bytes, number) = (line.bytes, line.number);
            let peek = match Peek::of(bytes) {
                Ok(peek) => peek,
                Err(error) => return Err(self.lines.is_no_event(error).into()),
            };
            // What is about the run as a whole is said anew.
            if matches!(&*peek.kind, "runStarted" | "runResumed" | "runFinished") {
                continue;
            }
            let wanted = match peek.attempt() {
                Some((case, attempt)) => plan
                    .get(case)
                    .is_some_and(|at| selection.takes(self.number, number, (*at, attempt))),
                None => true,
            };
            if wanted {
                return Ok(Some(peek.time.to_owned()));
            }
        }
        Ok(None)
    }
}

/// The merged log while it is written, and its report while it is folded.
struct Woven<'a> {
    file: BufWriter<File>,
    path: &'a Path,
    builder: ReportBuilder,
    seq: u64,
    last: String,
    /// Events that belong to no attempt, such as an experiment: copies of one run say them twice.
    said: HashSet<String>,
}

impl Woven<'_> {
    /// Appends the line that a log is at, and returns the evidence that it names.
    fn line(&mut self, log: &Log) -> Result<Option<String>, MergeError> {
        let bytes = log.lines.current();
        let mut event = log::parse(bytes).map_err(|error| log.lines.is_no_event(error))?;
        event.seq = self.seq;
        if event.body.attempt().is_none() {
            let said = serde_json::to_string(&(&event.time, &event.body));
            if !self
                .said
                .insert(said.map_err(|error| log.lines.is_no_event(error))?)
            {
                return Ok(None);
            }
        }
        if event.time > self.last {
            self.last.clone_from(&event.time);
        }
        renumbered(bytes, self.seq, &mut self.file).map_err(MergeError::write(self.path))?;
        self.seq += 1;
        let evidence = match &event.body {
            EventBody::AttemptFinished(finished) => finished.evidence.clone(),
            _ => None,
        };
        self.builder.push(event)?;
        Ok(evidence)
    }

    /// Appends an event of the merged run's own.
    fn event(&mut self, time: String, body: EventBody) -> Result<(), MergeError> {
        let event = Event {
            seq: self.seq,
            time,
            body,
        };
        serde_json::to_writer(&mut self.file, &event)
            .map_err(std::io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"))
            .map_err(MergeError::write(self.path))?;
        self.seq += 1;
        Ok(self.builder.push(event)?)
    }
}

/// Writes a line with another number and everything else as it was.
fn renumbered(line: &[u8], seq: u64, to: &mut impl Write) -> std::io::Result<()> {
    let line = line.trim_ascii_end();
    // The way the log's writer begins every line.
    let after = line.strip_prefix(b"{\"seq\":").map(|rest| {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (&rest[..digits], &rest[digits..])
    });
    match after {
        Some((digits, rest)) if !digits.is_empty() && rest.first() == Some(&b',') => {
            write!(to, "{{\"seq\":{seq}")?;
            to.write_all(rest)?;
        }
        _ => {
            let mut fields: serde_json::Map<String, serde_json::Value> =
                serde_json::from_slice(line)?;
            fields.insert("seq".to_owned(), seq.into());
            serde_json::to_writer(&mut *to, &fields)?;
        }
    }
    to.write_all(b"\n")
}

/// A file that is removed again unless it is published.
struct Draft {
    file: File,
    path: std::path::PathBuf,
}

impl Draft {
    fn create(path: std::path::PathBuf) -> Result<Self, MergeError> {
        match File::create(&path) {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(MergeError::Write { path, source }),
        }
    }

    /// Gives the file its name.
    fn publish(self, path: &Path) -> Result<(), MergeError> {
        std::fs::rename(&self.path, path).map_err(MergeError::write(path))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_number_of_a_line_changes() {
        for (line, becomes) in [
            (
                r#"{"seq":12,"time":"t","mood":{"a":[1]}}"#,
                r#"{"seq":7,"time":"t","mood":{"a":[1]}}"#,
            ),
            (
                r#"{"time":"t","seq":3,"mood":1}"#,
                r#"{"time":"t","seq":7,"mood":1}"#,
            ),
            (r#"{ "seq" : 3, "mood": 1.50 }"#, r#"{"seq":7,"mood":1.5}"#),
        ] {
            let mut out = Vec::new();
            renumbered(format!("{line}\r\n").as_bytes(), 7, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), format!("{becomes}\n"));
        }
    }
}
