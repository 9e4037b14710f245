//! Medians, and the other command's line.

use std::fmt;

use anyhow::{Context, Result};

use super::measure::Run;

/// Medians over the runs; the rates' extremes too.
#[derive(Debug, PartialEq)]
pub(super) struct Summary {
    seconds: f64,
    pub(super) rate: f64,
    min: f64,
    max: f64,
    cpu_us: f64,
    peak_mib: Option<f64>,
}

impl Summary {
    pub(super) fn of(runs: &[Run], entries: usize) -> Self {
        let rates = || runs.iter().map(|run| run.rate(entries));
        let peaks: Vec<f64> = runs.iter().filter_map(|run| run.peak_mib).collect();
        Self {
            seconds: median(runs.iter().map(|run| run.seconds)),
            rate: median(rates()),
            min: rates().fold(f64::INFINITY, f64::min),
            max: rates().fold(0.0, f64::max),
            cpu_us: median(runs.iter().map(|run| run.cpu_us)),
            peak_mib: (!peaks.is_empty()).then(|| median(peaks)),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, rate, min, max, cpu_us, peak_mib } = self;
        write!(f, "{seconds:.2}\t{rate:.0}\t{min:.0}\t{max:.0}\t{cpu_us:.2}\t")?;
        match peak_mib {
            Some(peak) => write!(f, "{peak:.1}"),
            None => write!(f, "-"),
        }
    }
}

/// The middle one; of an even number, the mean of the middle two.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// Entries and measurements from the last line of five tab-separated columns:
/// sink, entries, seconds, rate, microseconds of processor time per entry.
pub(super) fn parse_line(output: &str) -> Result<(usize, Run)> {
    let parse = |line: &str| {
        let columns: Vec<&str> = line.split('\t').map(str::trim).collect();
        let [_, entries, seconds, rate, cpu_us] = columns[..] else { return None };
        let entries: usize = entries.parse().ok()?;
        let (seconds, rate): (f64, f64) = (seconds.parse().ok()?, rate.parse().ok()?);
        // The rate has more digits than seconds rounded to hundredths.
        let seconds = if rate > 0.0 { entries as f64 / rate } else { seconds };
        Some((entries, Run { seconds, cpu_us: cpu_us.parse().ok()?, peak_mib: None }))
    };
    output.lines().rev().find_map(parse).with_context(|| format!("no line of results in {output:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_any_number() {
        for (values, expected) in
            [(vec![3.0], 3.0), (vec![9.0, 1.0, 5.0], 5.0), (vec![4.0, 1.0, 2.0, 100.0], 3.0)]
        {
            assert_eq!(median(values.clone()), expected, "{values:?}");
        }
        assert!(median([]).is_nan());
    }

    #[test]
    fn summary_is_one_line() {
        let run = |seconds, cpu_us, peak| Run { seconds, cpu_us, peak_mib: Some(peak) };
        let runs = [run(2.0, 4.0, 12.0), run(1.0, 3.0, 11.0), run(4.0, 5.0, 30.0)];
        assert_eq!(Summary::of(&runs, 1000).to_string(), "2.00\t500\t250\t1000\t4.00\t12.0");
        let other = [Run { seconds: 1.0, cpu_us: 3.0, peak_mib: None }];
        assert_eq!(Summary::of(&other, 1000).to_string(), "1.00\t1000\t1000\t1000\t3.00\t-");
    }

    #[test]
    fn reads_the_last_line_that_fits() {
        let (entries, run) = parse_line("warming up\nmqtt\t300000\t1.64\t183000\t3.70\n\nbye\n").unwrap();
        assert_eq!((entries, run.cpu_us), (300_000, 3.7));
        assert!((run.rate(entries) - 183_000.0).abs() < 0.01);
        assert!(parse_line("mqtt\t300000\tfast\n").is_err());
    }
}
