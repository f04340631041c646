//! One figure of a benchmark, its spread, and what it is held against.
//!
//! The shape of a row in JSON is fixed: a figure that nothing is held against has its own median as bar,
//! and is `ok`.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// The median must reach the bar.
    Higher,
    /// The median must not pass the bar.
    Lower,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub metric: String,
    /// Its unit.
    pub unit: String,
    /// The middle of all rounds.
    pub median: f64,
    /// The lowest round.
    pub min: f64,
    /// The highest round.
    pub max: f64,
    /// What the median must reach, or must not pass.
    pub bar: f64,
    /// Whether it does.
    pub ok: bool,
    #[serde(skip)]
    held: Option<Better>,
}

impl Row {
    /// A row from the figures of all rounds.
    ///
    /// # Panics
    /// There are none.
    pub fn new(metric: &str, unit: &str, rounds: &[f64], bar: f64, better: Better) -> Self {
        let median = median(rounds);
        let ok = match better {
            Better::Higher => median >= bar,
            Better::Lower => median <= bar,
        };
        Self { bar, ok, held: Some(better), ..Self::shown(metric, unit, rounds) }
    }

    /// A row that is shown for comparison and held against nothing.
    ///
    /// # Panics
    /// There are no figures.
    pub fn shown(metric: &str, unit: &str, rounds: &[f64]) -> Self {
        let (metric, unit, median) = (metric.into(), unit.into(), median(rounds));
        let min = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let max = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Self { metric, unit, median, min, max, bar: median, ok: true, held: None }
    }
}

/// The middle, or the mean of the two in the middle.
///
/// # Panics
/// There are no figures.
pub(super) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => f64::midpoint(sorted[half - 1], sorted[half]),
        _ => sorted[half],
    }
}

/// The figure that a share of all does not pass, 0.99 for p99: the nearest rank, never one in between.
///
/// # Panics
/// There are no figures.
pub(super) fn percentile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// The rows as a table. A figure that is held against nothing has no bar there.
pub fn table(rows: &[Row]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.set_header(["metric", "unit", "median", "min", "max", "bar", "ok"]);
    for row in rows {
        let [median, min, max, bar] =
            [row.median, row.min, row.max, row.bar].map(|value| format!("{value:.3}"));
        let (bar, ok) = match row.held {
            None => (String::new(), ""),
            Some(Better::Higher) => (format!("≥ {bar}"), if row.ok { "yes" } else { "NO" }),
            Some(Better::Lower) => (format!("≤ {bar}"), if row.ok { "yes" } else { "NO" }),
        };
        table.add_row([&row.metric, &row.unit, &median, &min, &max, &bar, ok]);
    }
    table
}

/// Writes the rows as JSON.
///
/// # Errors
/// The file cannot be written.
pub fn write(rows: &[Row], path: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(rows)? + "\n";
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_the_rounds_in_any_order() {
        assert!((median(&[9.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 9.0]) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_percentile_is_a_figure_that_was_measured() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let shares = [0.0, 0.5, 0.99, 1.0].map(|share| percentile(&hundred, share));
        assert_eq!(shares.map(|figure| figure as u32), [1, 50, 99, 100]);
        // Between two ranks it is the later one.
        assert_eq!([0.5, 0.99].map(|share| percentile(&[1.0, 2.0, 3.0], share) as u32), [2, 3]);
    }

    #[test]
    fn a_row_misses_its_bar_on_the_side_that_is_worse() {
        let row = |bar, better| Row::new("m", "u", &[1.0, 2.0, 3.0], bar, better).ok;
        assert!(row(2.0, Better::Higher) && row(2.0, Better::Lower));
        assert!(!row(2.1, Better::Higher) && !row(1.9, Better::Lower));
    }

    #[test]
    fn a_row_has_the_same_fields_in_json_whether_or_not_it_is_held_to_a_bar() {
        let held = Row::new("m", "u", &[3.0, 1.0, 2.0], 5.0, Better::Higher);
        let shown = Row::shown("m", "u", &[3.0, 1.0, 2.0]);
        let fields = "metric unit median min max bar ok";
        for (row, bar, ok) in [(held, "5.0", "false"), (shown, "2.0", "true")] {
            let value = serde_json::to_value(&row).unwrap();
            let names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
            let mut expected: Vec<&str> = fields.split(' ').collect();
            expected.sort_unstable();
            assert_eq!(
                {
                    let mut names = names;
                    names.sort_unstable();
                    names
                },
                expected
            );
            assert_eq!(
                (value["bar"].to_string(), value["ok"].to_string()),
                (bar.into(), ok.into())
            );
        }
    }
}
