//! Excerpts of text files: lines that are about a failure, and how many others there are.

use super::Names;

/// Characters of one line that are shown.
const MAX_LINE: usize = 320;

/// Lines of a story that are shown: the end of it, where things go wrong.
const MAX_STORY: usize = 48;

/// Connection tracking entries that are shown.
const MAX_ENTRIES: usize = 16;

/// Complaints of a log that are shown.
const MAX_COMPLAINTS: usize = 16;

/// Lines of the end of a log that are shown.
const LOG_END: usize = 12;

/// Some lines of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excerpt {
    /// Name of the file.
    pub file: String,
    /// The lines.
    pub lines: Vec<Line>,
    /// Lines that are left out.
    pub left_out: usize,
}

/// A line of an excerpt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// What it says.
    pub text: String,
    /// Whether it is the reason that the excerpt is shown.
    pub hit: bool,
}

impl Line {
    pub(super) fn new(text: &str, hit: bool) -> Self {
        let text = crate::text::shortened(text.trim_end(), MAX_LINE);
        Self { text, hit }
    }
}

/// The end of a story, with every line that says what failed.
pub fn story(text: &str) -> Option<Excerpt> {
    let fails = |line: &str| line.contains(" ms  FAIL ") || line.contains(" ms  INFRA ");
    let all: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let from = all.len().saturating_sub(MAX_STORY);
    let lines: Vec<Line> = all[from..]
        .iter()
        .map(|line| Line::new(line, fails(line)))
        .collect();
    (!lines.is_empty()).then(|| Excerpt {
        file: "story.txt".to_owned(),
        lines,
        left_out: from,
    })
}

/// The entries that name the frontend, those of the source first. No line at all says that there is no such entry.
pub(super) fn conntrack(text: &str, names: &Names) -> Option<Excerpt> {
    let frontend = names.frontend?.to_string();
    let entries: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let about: Vec<&str> = entries
        .iter()
        .copied()
        .filter(|line| line.split_whitespace().any(|word| word == frontend))
        .collect();
    let from_source = |line: &&&str| {
        let from = line.split_whitespace().nth(1).unwrap_or_default();
        let from = from
            .parse::<std::net::SocketAddr>()
            .map(|from| from.ip().to_string());
        from.is_ok_and(|from| names.sources.contains(&from))
    };
    let own: Vec<&str> = about.iter().filter(from_source).copied().collect();
    let chosen = if own.is_empty() { about } else { own };
    // The last ones are the latest.
    let from = chosen.len().saturating_sub(MAX_ENTRIES);
    Some(Excerpt {
        file: "conntrack.txt".to_owned(),
        lines: chosen[from..]
            .iter()
            .map(|line| Line::new(line, false))
            .collect(),
        left_out: entries.len() - (chosen.len() - from),
    })
}

/// What a candidate complained about, and the end of its log.
pub fn log(text: &str) -> Option<Excerpt> {
    let all: Vec<&str> = text.lines().collect();
    let end = all.len().saturating_sub(LOG_END);
    // The latest complaints are those nearest to the failure.
    let complaints: Vec<usize> = (0..end).filter(|at| complains(all[*at])).collect();
    let first = complaints.len().saturating_sub(MAX_COMPLAINTS);
    let chosen = complaints[first..].iter().copied().chain(end..all.len());
    let lines: Vec<Line> = chosen
        .map(|at| Line::new(all[at], complains(all[at])))
        .collect();
    let left_out = all.len() - lines.len();
    (!lines.is_empty()).then(|| Excerpt {
        file: "candidate.log".to_owned(),
        lines,
        left_out,
    })
}

/// Whether a line of a log is an error or a warning: of klog (`E1122 ...`), or in words.
fn complains(line: &str) -> bool {
    // The harness writes the stream's name before each line.
    let line = line
        .strip_prefix("err ")
        .or_else(|| line.strip_prefix("out "))
        .unwrap_or(line);
    let klog = |letter| {
        let digits = line.strip_prefix(letter).and_then(|rest| rest.get(..4));
        digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
    };
    if klog('E') || klog('W') || klog('F') {
        return true;
    }
    if klog('I') {
        return false;
    }
    let lower = line.to_ascii_lowercase();
    ["error", "warn", "panic", "fatal", "failed"]
        .iter()
        .any(|word| lower.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(excerpt: &Excerpt) -> Vec<&str> {
        excerpt
            .lines
            .iter()
            .map(|line| line.text.as_str())
            .collect()
    }

    #[test]
    fn a_story_is_shown_from_its_end() {
        let text: String = (0..100).map(|n| format!("{n}.00 ms  step {n}\n")).collect();
        let text = text + "101.00 ms  FAIL refused: a -> b\n";
        let shown = story(&text).unwrap();
        assert_eq!((shown.lines.len(), shown.left_out), (MAX_STORY, 53));
        assert!(shown.lines.last().unwrap().hit);
        assert_eq!(story("\n"), None);
    }

    #[test]
    fn entries_are_those_of_the_frontend_and_the_source() {
        let names = Names {
            frontend: Some("10.96.0.1:80".parse().unwrap()),
            sources: vec!["10.1.0.1".into()],
            ..Names::default()
        };
        let own = "tcp 10.1.0.1:5 -> 10.96.0.1:80 reply 10.1.0.2:8080 -> 10.1.0.1:5 mark 0x0";
        let other = "tcp 10.1.0.12:5 -> 10.96.0.1:80 reply 10.1.0.2:8080 -> 10.1.0.12:5 mark 0x0";
        let foreign = "tcp 10.1.0.1:5 -> 10.96.0.1:8080 reply 10.1.0.2:8080 -> 10.1.0.1:5 mark 0x0";
        let shown = conntrack(&[own, other, foreign].join("\n"), &names).unwrap();
        assert_eq!((texts(&shown), shown.left_out), (vec![own], 2));
        let shown = conntrack(&[other, foreign].join("\n"), &names).unwrap();
        assert_eq!(texts(&shown), [other]);
        let shown = conntrack(foreign, &names).unwrap();
        assert_eq!((shown.lines.len(), shown.left_out), (0, 1));
    }

    #[test]
    fn a_log_is_shown_by_its_complaints_and_its_end() {
        let calm: String = (0..30).map(|n| format!("err I1126 calm {n}\n")).collect();
        let text = format!("err E1126 03:52 proxier.go:1169] sync\n{calm}");
        let shown = log(&text).unwrap();
        assert_eq!((shown.lines.len(), shown.left_out), (13, 18));
        assert!(shown.lines[0].hit && !shown.lines[1].hit);
        assert!(complains("out level=warning msg=x") && complains("thread panicked"));
        assert!(!complains("err I1126 failed=0") && !complains("ready"));
        let long = log(&"ü".repeat(5000)).unwrap();
        assert_eq!(long.lines[0].text.chars().count(), MAX_LINE + 1);
    }
}
