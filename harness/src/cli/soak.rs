//! `harness soak`.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use reports::{
    directory::Writing,
    event::{Event, EventBody, Mode},
    history::{self, History},
    sequential::Claim,
    status::{self, Tally},
};

use super::{
    Exit, Failed,
    attempts::Attempts,
    certify::filter_argument,
    classify::Classify,
    drive::Drive,
    progress::Progress,
    session::{Asked, Session},
    waivers::Trust,
};
use crate::{
    plan::{Filter, Profile},
    run::{Evidence, keep::Keep, stress::Stress},
    scenario::Span,
    soak::{ConntrackPressure, Cpu, Gossip, KEPT_EVIDENCE, LinkChurn, Memory, Rotation, Soak},
};

/// Run the cases again and again for hours.
///
/// Cases that are least certain and most suspicious come more often, and none is left out. The machine and the worlds are put under stress in
/// turn, and some worlds are larger than their documents ask for. Ctrl-C ends it with reports; --resume goes on after that, after a crash
/// and after a reboot, with nothing lost and nothing counted twice.
///
/// Exit codes: those of certify.
#[derive(Debug, Args)]
pub struct SoakCommand {
    /// End after this time, such as 20m or 8h; of a run that was resumed, all of its time counts.
    #[arg(long = "for", value_name = "TIME", required_unless_present_any = ["until_confidence", "resume"])]
    time: Option<Span>,
    /// End when this is proven or refuted for every case, such as `rate<0.5% @95%`.
    #[arg(long, value_name = "CLAIM")]
    until_confidence: Option<Claim>,
    /// `reference`, `null`, or the path of a candidate manifest [default: reference].
    #[arg(long, value_name = "FILE|reference|null")]
    candidate: Option<String>,
    /// Which levels to run [default: core].
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    /// Which cases to run, such as `area:udp and family=ipv6` or `udp-*`.
    #[arg(long, value_name = "EXPR")]
    filter: Option<Filter>,
    #[command(flatten)]
    attempts: Attempts,
    #[command(flatten)]
    classify: Classify,
    #[command(flatten)]
    trust: Trust,
    /// Directory for the event log, the reports and the evidence; must not hold an earlier run.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the soak in this directory. Its options come from its log.
    ///
    /// With `--out` naming the same directory, a soak that is not there yet is begun.
    #[arg(long, value_name = "DIR")]
    resume: Option<PathBuf>,
    /// Also write `report.tap` (TAP version 14).
    #[arg(long)]
    tap: bool,
    /// Add the run to this history at its end; `harness history --db FILE` reads it.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
}

/// The status file is written this often, if there is something new.
const STATUS_EVERY: Duration = Duration::from_secs(1);

impl SoakCommand {
    pub(super) fn run(self, color: bool) -> Result<Exit, Failed> {
        if let Some(file) = &self.history {
            // A file that cannot be used is said now, and not after the night.
            History::create_or_open(file)?;
        }
        let asked = Asked {
            command: "soak",
            candidate: self.candidate,
            out: self.out,
            resume: self.resume,
            profile: self.profile,
            filter: self.filter.map(|_| filter_argument()),
            seed: self.attempts.seed,
            jobs: self.attempts.jobs,
            mode: Some(Mode::Soak),
            until_confidence: self.until_confidence,
            for_ms: self.time.map(|time| time.0.as_millis() as u64),
            canaries: !self.trust.no_canary,
            waivers: self.trust.waivers,
            ..Asked::default()
        };
        // What an earlier process of the run did is counted here once more, for what goes on from it.
        let (mut tally, mut earlier) = (Tally::default(), Vec::new());
        let session = asked.session(|event| {
            tally.push(event);
            if let EventBody::AttemptStarted {
                stress: Some(_), ..
            }
            | EventBody::AttemptFinished(_)
            | EventBody::RunResumed(_) = &event.body
            {
                earlier.push(event.clone());
            }
        })?;
        let resumed = tally.resumed();
        let source = source(&session, &earlier, resumed);
        let keep = kept(&session, &earlier);
        drop(earlier);
        let mut progress = Progress::new(&session.run, None, color);
        if session.resumed {
            progress.resumed(&session.done, session.void.len(), session.ended);
        }
        let mut writing = session.writing;
        let mut driven = Ok(());
        if session.ended.is_none() {
            let drive = Drive {
                candidate: session.candidate.clone(),
                jobs: session.jobs,
                evidence: Evidence::below(writing.dir().to_path_buf(), keep.into()),
                fail_fast: false,
                endless: false,
                brief: true,
                canaries: session.canaries,
                real: session.real,
                look_into: self
                    .classify
                    .experiments(&session.cases, &session.candidate)?,
            };
            let mut file = StatusFile::new(tally);
            file.write(&writing)?;
            driven = drive.run(&mut writing, source, |writing, event| {
                progress.event(&event.body);
                file.event(writing, event)
            });
        }
        progress.finish();
        driven?;
        let out = writing.dir().to_path_buf();
        let (report, mut files) = writing.finish()?;
        files.extend(super::render::tap(self.tap, &out, &report)?);
        progress.summary(&report, &files, 0);
        if let Some(file) = &self.history {
            history::import_report(file, &report)?;
        }
        super::github::tell(&report);
        Ok(Exit::of(&report, 0))
    }
}

fn source(session: &Session, earlier: &[Event], resumed: u64) -> Soak {
    let options = &session.run.options;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let kinds: Vec<Option<Arc<dyn Stress>>> = vec![
        None,
        Some(Arc::new(Cpu::new(cpus))),
        Some(Arc::new(LinkChurn)),
        Some(Arc::new(Memory::of_this_machine())),
        Some(Arc::new(ConntrackPressure)),
        Some(Arc::new(Gossip)),
    ];
    let rotation = Rotation::new(kinds, resumed as usize);
    let mut source = Soak::new(
        session.cases.clone(),
        options.seed.wrapping_add(resumed),
        rotation,
        options.until_confidence,
        session.until(),
    );
    earlier.iter().for_each(|event| source.recall(event));
    source
}

/// Evidence is bounded over all processes of the run.
fn kept(session: &Session, earlier: &[Event]) -> Keep {
    let keep = Keep::first(KEPT_EVIDENCE);
    for event in earlier {
        if let Some((case, _)) = event.body.attempt()
            && let Some(case) = session.run.cases.iter().find(|known| known.id == case)
        {
            keep.note(&case.requirements, event);
        }
    }
    keep
}

/// Keeps `status.json` up to date.
struct StatusFile {
    tally: Tally,
    stress: Option<String>,
    written: Instant,
}

impl StatusFile {
    fn new(tally: Tally) -> Self {
        Self {
            tally,
            stress: None,
            written: Instant::now(),
        }
    }

    fn event(&mut self, writing: &Writing, event: &Event) -> Result<(), Failed> {
        self.tally.push(event);
        if let EventBody::AttemptStarted { stress, .. } = &event.body {
            self.stress.clone_from(stress);
        }
        let last = matches!(event.body, EventBody::RunFinished { .. });
        if last {
            self.stress = None;
        }
        if last || self.written.elapsed() >= STATUS_EVERY {
            self.write(writing)?;
        }
        Ok(())
    }

    fn write(&mut self, writing: &Writing) -> Result<(), Failed> {
        let active = writing.so_far().active_ms().map_err(Failed::infra)?;
        let status = self.tally.status(active, self.stress.clone());
        let text = serde_json::to_vec_pretty(&status).map_err(Failed::infra)?;
        let path = writing.dir().join(status::FILE_NAME);
        reports::replace(&path, &text)
            .map_err(|error| Failed::infra(format!("{}: {error}", path.display())))?;
        self.written = Instant::now();
        Ok(())
    }
}
