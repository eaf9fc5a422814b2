//! The attempts of one case as a picture: a strip by number for the list, and a timeline by the clock for the details.
//!
//! A path per verdict and not an element per attempt: a page with ten thousand attempts has to stay small and quick.

use super::Mark;
use super::text::duration;
use crate::event::Verdict;
use crate::model::Attempt;

/// Columns of a strip. With more attempts, a column stands for several, and shows the worst of them.
const STRIP: usize = 120;

/// Width of a strip in the list.
const MAX_PIXELS: usize = 180;

/// Columns of a timeline.
const COLUMNS: usize = 360;

/// Height of a timeline, in the units of its picture.
const HEIGHT: f64 = 40.0;

/// The verdicts in the order in which they cover each other.
const ORDER: [Verdict; 4] = [Verdict::Pass, Verdict::Skip, Verdict::Infra, Verdict::Fail];

/// Bars of one colour.
pub(super) struct Bars {
    pub verdict: Mark,
    pub path: String,
}

/// A strip: as many units wide as it has columns, ten units high.
pub(super) struct Strip {
    pub width: usize,
    /// How wide it is drawn: the same for every attempt, as long as there is room.
    pub pixels: usize,
    pub bars: Vec<Bars>,
    /// What a screen reader says.
    pub words: String,
}

/// A timeline of the whole run: 360 units wide, 40 high; bars are as high as the attempts took long.
pub(super) struct Timeline {
    pub bars: Vec<Bars>,
    /// The largest duration, which is the full height.
    pub longest: String,
}

/// The strip of a case with several attempts.
pub(super) fn strip(attempts: &[Attempt]) -> Option<Strip> {
    if attempts.len() < 2 {
        return None;
    }
    let width = attempts.len().min(STRIP);
    let mut columns: Vec<Option<Verdict>> = vec![None; width];
    let rank = |verdict: Verdict| ORDER.iter().position(|other| *other == verdict);
    for (n, attempt) in attempts.iter().enumerate() {
        let column = &mut columns[n * width / attempts.len()];
        if column.is_none_or(|worst| rank(attempt.verdict) > rank(worst)) {
            *column = Some(attempt.verdict);
        }
    }
    let bars = ORDER.into_iter().filter_map(|verdict| {
        // What is not a pass reaches over the line of the others, so that it is seen without its colour.
        let (top, height) = match verdict {
            Verdict::Pass | Verdict::Skip => (3, 5),
            Verdict::Infra => (2, 8),
            Verdict::Fail => (0, 10),
        };
        let with = columns.iter().enumerate();
        let with = with.filter(|(_, column)| **column == Some(verdict));
        let path: String = with
            .map(|(x, _)| format!("M{x} {top}h.8v{height}h-.8z"))
            .collect();
        (!path.is_empty()).then(|| Bars {
            verdict: verdict.into(),
            path,
        })
    });
    let count = |verdict| attempts.iter().filter(|a| a.verdict == verdict).count();
    let words: Vec<String> = ORDER
        .into_iter()
        .filter(|verdict| count(*verdict) > 0)
        .map(|verdict| format!("{} {verdict}", count(verdict)))
        .collect();
    Some(Strip {
        width,
        pixels: (width * 9).min(MAX_PIXELS),
        bars: bars.collect(),
        words: format!("{} attempts: {}", attempts.len(), words.join(", ")),
    })
}

/// When attempts of a case started, in milliseconds after the start of the run; `None` for those that never did.
pub(super) fn offset_ms(run: Option<jiff::Timestamp>, attempt: &Attempt) -> Option<f64> {
    let started: jiff::Timestamp = attempt.started.as_deref()?.parse().ok()?;
    let micros = started.as_microsecond() - run?.as_microsecond();
    Some(micros as f64 / 1000.0)
}

/// The timeline of a case with several attempts, over the length of the run.
pub(super) fn timeline(
    attempts: &[Attempt],
    run: Option<jiff::Timestamp>,
    length_ms: f64,
) -> Option<Timeline> {
    if attempts.len() < 2 || length_ms <= 0.0 {
        return None;
    }
    let longest_ms = attempts.iter().map(|a| a.duration_ms).fold(1.0, f64::max);
    let mut highest = vec![[None::<f64>; 4]; COLUMNS];
    for attempt in attempts {
        let Some(offset) = offset_ms(run, attempt) else {
            continue;
        };
        let share = (offset / length_ms).clamp(0.0, 1.0);
        let column = ((share * COLUMNS as f64) as usize).min(COLUMNS - 1);
        let place = ORDER
            .iter()
            .position(|verdict| *verdict == attempt.verdict)?;
        let height = &mut highest[column][place];
        *height = Some(height.unwrap_or(0.0).max(attempt.duration_ms));
    }
    let bars = ORDER
        .into_iter()
        .enumerate()
        .filter_map(|(place, verdict)| {
            let mut path = String::new();
            for (x, heights) in highest.iter().enumerate() {
                if let Some(duration) = heights[place] {
                    // Short ones are seen too.
                    let height = (duration / longest_ms * HEIGHT).max(3.0);
                    path.push_str(&format!("M{x} {HEIGHT}v-{height:.0}h1.6v{height:.0}z"));
                }
            }
            (!path.is_empty()).then(|| Bars {
                verdict: verdict.into(),
                path,
            })
        });
    Some(Timeline {
        bars: bars.collect(),
        longest: duration(longest_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(verdicts: impl IntoIterator<Item = Verdict>) -> Vec<Attempt> {
        let numbered = verdicts.into_iter().enumerate();
        numbered
            .map(|(n, verdict)| Attempt {
                attempt: n as u32 + 1,
                verdict,
                seed: None,
                started: Some(format!("2026-11-22T00:00:{:02}Z", n % 60)),
                stress: None,
                shape: None,
                duration_ms: 100.0,
                convergence_ms: None,
                checks: 1,
                positive_checks: 1,
                broke: None,
                failures: Vec::new(),
                warnings: Vec::new(),
                skip: None,
                infra: None,
                complaint: None,
                evidence: None,
            })
            .collect()
    }

    fn of(strip: &Strip, word: &str) -> usize {
        let bars = strip.bars.iter().filter(|bars| bars.verdict.word == word);
        bars.map(|bars| bars.path.matches('M').count()).sum()
    }

    #[test]
    fn a_strip_has_a_column_per_attempt() {
        use Verdict::{Fail, Infra, Pass};
        let drawn = strip(&attempts([Pass, Fail, Pass, Infra])).unwrap();
        assert_eq!((drawn.width, drawn.pixels), (4, 36));
        assert_eq!(
            (of(&drawn, "pass"), of(&drawn, "fail"), of(&drawn, "infra")),
            (2, 1, 1)
        );
        assert_eq!(drawn.words, "4 attempts: 2 pass, 1 infra, 1 fail");
        assert!(strip(&attempts([Fail])).is_none());
    }

    #[test]
    fn one_failure_among_thousands_is_seen() {
        for place in [0, 1, 4_321, 9_999] {
            let verdicts = (0..10_000).map(|n| match n == place {
                true => Verdict::Fail,
                false => Verdict::Pass,
            });
            let attempts = attempts(verdicts);
            let drawn = strip(&attempts).unwrap();
            assert_eq!(drawn.width, STRIP);
            assert_eq!(
                (of(&drawn, "fail"), of(&drawn, "pass")),
                (1, STRIP - 1),
                "{place}"
            );
            let start = "2026-11-22T00:00:00Z".parse().ok();
            let drawn = timeline(&attempts, start, 60_000.0).unwrap();
            let fails = drawn
                .bars
                .iter()
                .find(|bars| bars.verdict.word == "fail")
                .unwrap();
            assert_eq!(fails.path.matches('M').count(), 1);
            assert!(drawn.bars.iter().map(|bars| bars.path.len()).sum::<usize>() < 20_000);
        }
    }
}
