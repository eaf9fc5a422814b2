//! The directory of a run: who may write it, how it is begun, gone on with and read.
//!
//! ```text
//! DIR/run.lock        held by the process that writes the run, with its pid in it
//! DIR/events.jsonl    everything that happened; the rest follows from it
//! DIR/report.json ... written when the process ends in good order
//! ```
//!
//! What is promised: an event is in the file when [`Writing::record`] returns, so a process that is killed loses nothing that was
//! recorded. The file is made durable at the first event, at the last, and after attempts that finish, at most once in
//! [`SYNC_EVERY`]: a machine that goes down loses the attempts of its last moment, which are then made again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::event::{Event, EventBody, RunStarted};
use crate::log::{self, EventWriter, LogError};
use crate::model::{ModelError, Report, ReportBuilder};
use crate::write::{WriteError, write_all};

/// Name of the lock inside a run's directory.
pub const LOCK_NAME: &str = "run.lock";

/// A power failure costs the attempts that finished within this time.
pub const SYNC_EVERY: Duration = Duration::from_secs(1);

/// Whoever asks whether a run is being written holds the lock for a moment; a process that writes holds it for longer than this.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// What can go wrong with a run's directory.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// Another process writes it.
    #[error(
        "{dir:?} is being written by {}; only one process may write a run at a time",
        pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process, where the lock says it.
        pid: Option<u32>,
    },
    /// A run is to begin where there is one.
    #[error("{dir:?} holds an earlier run (events.jsonl); name another directory or remove it")]
    Taken {
        /// The directory.
        dir: PathBuf,
    },
    /// There is no run to go on with.
    #[error("{dir:?} holds no run: {reason}")]
    NoRun {
        /// The directory.
        dir: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The directory or its lock cannot be used.
    #[error("{path:?} cannot be used: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The log cannot be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log makes no sense.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The reports cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl DirectoryError {
    /// Whether a disk is full.
    pub fn is_full(&self) -> bool {
        let mut at: Option<&dyn std::error::Error> = Some(self);
        while let Some(error) = at {
            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            if let Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) = kind {
                return true;
            }
            at = error.source();
        }
        false
    }

    /// Whether somebody named the wrong directory, rather than that something broke.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::InUse { .. }
                | Self::Taken { .. }
                | Self::NoRun { .. }
                | Self::Io { .. }
                | Self::Log(LogError::Open { .. })
        )
    }
}

/// A run's directory that this process writes.
pub struct Writing {
    dir: PathBuf,
    // Released by the system when the process ends, however it ends.
    _lock: File,
    writer: EventWriter,
    builder: ReportBuilder,
    synced: Instant,
}

/// A run that can go on.
pub struct Resumed {
    /// The directory, with everything in its log folded in. The caller records `runResumed` next.
    pub writing: Writing,
    /// The run as its first event describes it.
    pub run: RunStarted,
    /// Attempts that started and never finished.
    pub void: Vec<(String, u32)>,
    /// Bytes of a torn last line that were cut off.
    pub torn_bytes: u64,
    /// How long earlier processes worked on it.
    pub active: Duration,
}

impl Writing {
    /// Makes the directory where it is missing, locks it and begins its log.
    ///
    /// # Errors
    /// [`DirectoryError::Taken`] if there is a log, [`DirectoryError::InUse`] if somebody writes one just now.
    pub fn create(dir: &Path) -> Result<Self, DirectoryError> {
        let taken = || DirectoryError::Taken {
            dir: dir.to_path_buf(),
        };
        let path = dir.join(log::FILE_NAME);
        if path.exists() {
            return Err(taken());
        }
        std::fs::create_dir_all(dir).map_err(|source| DirectoryError::Io {
            path: dir.to_path_buf(),
            source,
        })?;
        let lock = lock(dir)?;
        // Somebody may have been faster.
        if path.exists() {
            return Err(taken());
        }
        let writer = EventWriter::create(&path)?;
        Ok(Self::over(dir, lock, writer, ReportBuilder::default()))
    }

    /// Locks the directory of a run, reads its log and puts the end of it in order. `each` is shown every event.
    ///
    /// # Errors
    /// [`DirectoryError::NoRun`] if there is no log or no whole event in it, [`DirectoryError::InUse`] if somebody writes it just
    /// now, and whatever is wrong with the log.
    pub fn resume(dir: &Path, mut each: impl FnMut(&Event)) -> Result<Resumed, DirectoryError> {
        let path = dir.join(log::FILE_NAME);
        let no_run = |reason: &str| DirectoryError::NoRun {
            dir: dir.to_path_buf(),
            reason: reason.to_owned(),
        };
        if !path.is_file() {
            return Err(no_run("there is no events.jsonl"));
        }
        let lock = lock(dir)?;
        let mut builder = ReportBuilder::default();
        let (mut reader, mut run) = (log::read(&path)?, None);
        for event in reader.by_ref() {
            let event = event?;
            each(&event);
            if let EventBody::RunStarted(started) = &event.body {
                run = Some(started.clone());
            }
            builder.push(event)?;
        }
        let Some(run) = run else {
            return Err(no_run("its log has no whole event, so nothing was run yet"));
        };
        let active = builder.active_ms()?.max(0.0);
        let writer = EventWriter::resume(reader.end())?;
        Ok(Resumed {
            void: builder.unfinished(),
            torn_bytes: reader.end().torn_bytes,
            active: Duration::from_secs_f64(active / 1e3),
            run,
            writing: Self::over(dir, lock, writer, builder),
        })
    }

    fn over(dir: &Path, lock: File, writer: EventWriter, builder: ReportBuilder) -> Self {
        Self {
            dir: dir.to_path_buf(),
            _lock: lock,
            writer,
            builder,
            synced: Instant::now(),
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the run says so far.
    pub fn so_far(&self) -> &ReportBuilder {
        &self.builder
    }

    /// Appends an event to the log and to the report.
    ///
    /// # Errors
    /// [`DirectoryError::Log`] when it cannot be stored, [`DirectoryError::Model`] when it does not fit those before it.
    pub fn record(&mut self, body: EventBody) -> Result<Event, DirectoryError> {
        let at_once = matches!(body, EventBody::RunStarted(_) | EventBody::RunResumed(_));
        let soon = matches!(body, EventBody::AttemptFinished(_));
        let event = self.writer.append(body)?;
        self.builder.push(event.clone())?;
        if at_once || (soon && self.synced.elapsed() >= SYNC_EVERY) {
            self.writer.sync()?;
            self.synced = Instant::now();
        }
        if at_once {
            // The names of the files have to be durable as well.
            let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
            synced.map_err(|source| DirectoryError::Io {
                path: self.dir.clone(),
                source,
            })?;
        }
        Ok(event)
    }

    /// Makes the log durable, writes the reports and lets go of the directory; returns the report and the paths of its files.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn finish(self) -> Result<(Report, Vec<PathBuf>), DirectoryError> {
        self.writer.finish()?;
        let report = self.builder.finish()?;
        let files = write_all(&self.dir, &report)?;
        Ok((report, files))
    }
}

/// The process that writes a run just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    /// Its pid, where the lock says it.
    pub pid: Option<u32>,
}

/// Who writes the run in a directory just now; `None` when nobody does.
///
/// # Errors
/// [`DirectoryError::Io`] when the lock cannot be looked at.
pub fn writer(dir: &Path) -> Result<Option<Writer>, DirectoryError> {
    let path = dir.join(LOCK_NAME);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DirectoryError::Io { path, source }),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(Writer {
            pid: pid(&mut file),
        })),
        Err(TryLockError::Error(source)) => Err(DirectoryError::Io { path, source }),
    }
}

/// The report of the run in a directory, from its log.
///
/// # Errors
/// [`DirectoryError::NoRun`] if there is no log, and whatever is wrong with it.
pub fn report(dir: &Path) -> Result<Report, DirectoryError> {
    let path = dir.join(log::FILE_NAME);
    if !path.is_file() {
        return Err(DirectoryError::NoRun {
            dir: dir.to_path_buf(),
            reason: "there is no events.jsonl".to_owned(),
        });
    }
    Ok(Report::from_log(path)?)
}

fn lock(dir: &Path) -> Result<File, DirectoryError> {
    let path = dir.join(LOCK_NAME);
    let io = |source| DirectoryError::Io {
        path: path.clone(),
        source,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                // A poll of a condition with a deadline.
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(DirectoryError::InUse {
                    dir: dir.to_path_buf(),
                    pid: pid(&mut file),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(pid.as_bytes()))
        .map_err(io)?;
    Ok(file)
}

fn pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
