//! Distributions as curves: which share of the values is at most this.
//!
//! One plot per measured time, the percentiles of one latency together in one. Times of networks spread over orders of magnitude, so the
//! axis is logarithmic where they do.

use super::text::{Text, duration, number};
use crate::model::Measurement;

/// Plots that are shown; the table has everything.
const MAX_PLOTS: usize = 12;

/// Inside of the axes, in units of the picture.
const LEFT: f64 = 34.0;
const RIGHT: f64 = 338.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 142.0;

/// A plot, in a picture of 360 by 170.
pub(super) struct Plot {
    pub name: Text,
    /// What a screen reader says.
    pub words: Text,
    pub count: u64,
    pub curves: Vec<Curve>,
    pub ticks: Vec<Tick>,
    /// Lines across, with their label.
    pub levels: Vec<Tick>,
}

/// One curve.
pub(super) struct Curve {
    /// Which colour it has.
    pub colour: usize,
    /// Of several: which one.
    pub label: Text,
    pub path: String,
    /// Median, 90th and 99th percentile.
    pub dots: Vec<(String, String)>,
    pub facts: [String; 4],
}

/// A place on an axis.
pub(super) struct Tick {
    pub at: String,
    pub label: String,
}

/// Maps values to a length, by their logarithm if they spread far.
pub(super) struct Scale {
    min: f64,
    max: f64,
    log: bool,
    from: f64,
    to: f64,
}

/// Values that spread by more than this factor are shown by their logarithm.
const FAR: f64 = 25.0;

impl Scale {
    /// A scale for some values; `None` when there is none.
    pub fn over(values: impl IntoIterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        let max = values.iter().copied().reduce(f64::max)?;
        let min = values.iter().copied().reduce(f64::min)?;
        let positive = values.iter().copied().filter(|value| *value > 0.0);
        let least = positive.reduce(f64::min).unwrap_or(max);
        // A few values near zero may not take the whole width.
        let least = least.max(max / 1e6);
        let log = min >= 0.0 && least > 0.0 && max / least > FAR;
        let min = if log { least } else { min.min(0.0) };
        Some(Self {
            min,
            max: if max > min { max } else { min + 1.0 },
            log,
            from,
            to,
        })
    }

    /// Where a value lies.
    pub fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.min, self.max);
        let share = if self.log {
            (value / self.min).ln() / (self.max / self.min).ln()
        } else {
            (value - self.min) / (self.max - self.min)
        };
        self.from + share * (self.to - self.from)
    }

    /// Round values on it.
    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let (low, high) = (self.min.log10().ceil(), self.max.log10().floor());
            // At most six of them.
            let step = (((high - low) / 5.0).ceil()).max(1.0);
            let count = ((high - low) / step).max(0.0) as usize;
            return (0..=count)
                .map(|n| 10_f64.powf(low + n as f64 * step))
                .collect();
        }
        let rough = (self.max - self.min) / 4.0;
        let base = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|n| n * base)
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        let first = (self.min / step).ceil() as i64;
        (first..)
            .map(|n| n as f64 * step)
            .take_while(|value| *value <= self.max)
            .take(6)
            .collect()
    }
}

/// Milliseconds of a measured time; `None` for what is no time.
fn to_ms(unit: &str) -> Option<f64> {
    match unit {
        "us" | "µs" => Some(0.001),
        "ms" => Some(1.0),
        "s" => Some(1000.0),
        _ => None,
    }
}

/// `connect latency p90` is `connect latency` and `p90`.
fn family(name: &str) -> (&str, &str) {
    match name.rsplit_once(' ') {
        Some((family, last @ ("p50" | "p90" | "p99" | "max"))) => (family, last),
        _ => (name, ""),
    }
}

/// The plots of a run: convergence and latency first, then the others by name.
pub(super) fn all(measurements: &[Measurement]) -> Vec<Plot> {
    let mut families: Vec<(&str, Vec<&Measurement>)> = Vec::new();
    for measured in measurements {
        if measured.curve.len() < 2 || to_ms(&measured.unit).is_none() {
            continue;
        }
        // What was done to the candidate is no property of it.
        if [" dose: ", " effect: "]
            .iter()
            .any(|part| measured.name.contains(part))
        {
            continue;
        }
        let (name, _) = family(&measured.name);
        match families.iter_mut().find(|(known, _)| *known == name) {
            Some((_, members)) if members.len() < 4 => members.push(measured),
            Some(_) => {}
            None => families.push((name, vec![measured])),
        }
    }
    let rank = |name: &str| match name {
        "convergence" => 0,
        _ if name.contains("latency") => 1,
        "blackout" => 2,
        // How long worlds take says nothing about the candidate.
        "world" => 4,
        _ => 3,
    };
    families.sort_by_key(|(name, _)| rank(name));
    families.truncate(MAX_PLOTS);
    families
        .into_iter()
        .filter_map(|(name, members)| plot(name, &members))
        .collect()
}

fn plot(name: &str, members: &[&Measurement]) -> Option<Plot> {
    let in_ms = |measured: &Measurement, value: f64| value * to_ms(&measured.unit).unwrap_or(1.0);
    let mut members: Vec<&Measurement> = members.to_vec();
    // `max` sorts before `p50`.
    members.sort_by(|a, b| a.values.p50.total_cmp(&b.values.p50));
    let values = members
        .iter()
        .flat_map(|member| member.curve.iter().map(|value| in_ms(member, *value)));
    let scale = Scale::over(values, LEFT, RIGHT)?;
    let height = |share: f64| BOTTOM - share * (BOTTOM - TOP);
    let curves: Vec<Curve> = members
        .iter()
        .enumerate()
        .map(|(colour, member)| {
            let last = (member.curve.len() - 1) as f64;
            let mut path = String::new();
            for (n, value) in member.curve.iter().enumerate() {
                let letter = if n == 0 { 'M' } else { 'L' };
                let x = scale.at(in_ms(member, *value));
                path.push_str(&format!("{letter}{x:.1} {:.1}", height(n as f64 / last)));
            }
            let spread = &member.values;
            let dots = [(spread.p50, 0.5), (spread.p90, 0.9), (spread.p99, 0.99)];
            Curve {
                colour,
                label: Text::new(family(&member.name).1),
                path,
                dots: dots
                    .into_iter()
                    .map(|(value, share)| {
                        let x = scale.at(in_ms(member, value));
                        (format!("{x:.1}"), format!("{:.1}", height(share)))
                    })
                    .collect(),
                facts: [spread.p50, spread.p90, spread.p99, spread.max]
                    .map(|value| duration(in_ms(member, value))),
            }
        })
        .collect();
    let words: Vec<String> = curves
        .iter()
        .map(|curve| {
            let [p50, p90, p99, max] = &curve.facts;
            format!(
                "{} median {p50}, 90 % {p90}, 99 % {p99}, largest {max}",
                curve.label
            )
        })
        .collect();
    Some(Plot {
        name: Text::new(name),
        words: Text::new(&format!("Distribution of {name}: {}", words.join("; "))),
        count: members.first()?.values.count,
        curves,
        ticks: scale
            .ticks()
            .into_iter()
            .map(|value| Tick {
                at: format!("{:.1}", scale.at(value)),
                label: tick_label(value),
            })
            .collect(),
        levels: [0.0, 0.5, 0.9, 1.0]
            .into_iter()
            .map(|share| Tick {
                at: format!("{:.1}", height(share)),
                label: format!("{:.0} %", share * 100.0),
            })
            .collect(),
    })
}

fn tick_label(ms: f64) -> String {
    match ms {
        _ if ms == 0.0 => "0".to_owned(),
        _ if ms < 1.0 => format!("{} µs", number(ms * 1000.0)),
        _ if ms < 1000.0 => format!("{} ms", number(ms)),
        _ => format!("{} s", number(ms / 1000.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Distribution;

    fn measured(name: &str, unit: &str, values: &[f64]) -> Measurement {
        Measurement {
            name: name.into(),
            unit: unit.into(),
            values: Distribution::of(values.iter().copied()).unwrap(),
            curve: values.to_vec(),
        }
    }

    #[test]
    fn scales_keep_order_and_ends() {
        for values in [
            vec![0.0, 0.5, 3.0],
            vec![0.001, 0.2, 9000.0],
            vec![5.0],
            vec![0.0, 1e9],
        ] {
            let scale = Scale::over(values.clone(), 10.0, 20.0).unwrap();
            let mut last = 10.0;
            for value in values {
                let at = scale.at(value);
                assert!((last..=20.0).contains(&at), "{value} is at {at}");
                last = at;
            }
            for tick in scale.ticks() {
                assert!((10.0..=20.0 + 1e-9).contains(&scale.at(tick)), "{tick}");
            }
        }
        assert!(Scale::over([f64::NAN], 0.0, 1.0).is_none());
    }

    #[test]
    fn percentiles_of_one_latency_share_a_plot() {
        let plots = all(&[
            measured("blackout", "ms", &[1.0, 2.0]),
            measured("connect latency p50", "us", &[100.0, 2000.0]),
            measured("connect latency p99", "us", &[900.0, 90_000.0]),
            measured("convergence", "ms", &[1.0, 2.0]),
            measured("hold rounds", "count", &[1.0, 2.0]),
        ]);
        let names: Vec<String> = plots.iter().map(|plot| plot.name.to_string()).collect();
        assert_eq!(names, ["convergence", "connect latency", "blackout"]);
        assert_eq!(plots[1].curves.len(), 2);
        assert_eq!(plots[1].curves[1].facts[3], "90 ms");
        assert_eq!(plots[0].curves[0].path, "M186.0 142.0L338.0 10.0");
    }
}
