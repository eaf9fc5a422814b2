//! The command that makes a run again.

use crate::event::{Mode, Options, RunStarted};

/// The command that makes the attempts of a run again, ready for a shell. `manifest` is where the candidate's manifest is found; it is not
/// used for candidates that the suite brings along.
pub fn reproduce(run: &RunStarted, manifest: &str) -> String {
    let invocation = run.invocation.as_ref();
    let options = &run.options;
    let files = invocation.map_or(&[][..], |invocation| &invocation.files);
    let mut words: Vec<String> = vec!["harness".into()];
    if files.is_empty() {
        let soak = options.mode == Mode::Soak;
        words.push(if soak { "soak" } else { "certify" }.into());
    } else {
        words.push("run".into());
        words.extend(files.iter().cloned());
    }
    let candidate = match invocation.map(|invocation| invocation.candidate.as_str()) {
        Some(built_in @ ("reference" | "null")) => built_in,
        _ => manifest,
    };
    words.extend(["--candidate".to_owned(), candidate.to_owned()]);
    if files.is_empty() {
        words.extend(["--profile".to_owned(), options.profile.clone()]);
    }
    if let Some(filter) = &options.filter {
        words.extend(["--filter".to_owned(), filter.clone()]);
    }
    words.extend(repetition(options));
    let value = |name: &str, value: &dyn ToString| [name.to_owned(), value.to_string()];
    words.extend(value("--seed", &options.seed));
    words.extend(value("--jobs", &options.jobs));
    if options.flake_budget > 0 {
        words.extend(value("--flake-budget", &options.flake_budget));
    }
    if options.fail_fast {
        words.push("--fail-fast".into());
    }
    if let Some(shard) = options.shard {
        words.extend(value("--shard", &shard));
    }
    // A NUL cannot be said in a shell; it is left out.
    words.iter_mut().for_each(|word| word.retain(|c| c != '\0'));
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_default()
}

/// How often.
fn repetition(options: &Options) -> Vec<String> {
    let mut words = Vec::new();
    let soak = options.mode == Mode::Soak;
    if let Some(claim) = options.until_confidence {
        words.extend(["--until-confidence".to_owned(), claim.to_string()]);
    }
    if options.mode == Mode::Stress {
        words.push("--stress".to_owned());
    }
    if options.runs > 0 && !soak {
        words.extend(["--runs".to_owned(), options.runs.to_string()]);
    }
    if let Some(ms) = options.for_ms {
        let time = match ms % 1000 {
            0 => format!("{}s", ms / 1000),
            _ => format!("{ms}ms"),
        };
        words.extend(["--for".to_owned(), time]);
    }
    words
}
