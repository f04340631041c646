//! Benchmarks that run in the lab: what is measured, against which bar, and how it came out.
//!
//! A bar is a promise or a rival's median from the same run; a figure without its spread is not shown.

mod boringtun;
mod control;
mod throughput;

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

pub use control::control;
pub use throughput::throughput;

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
}

impl Row {
    /// A row from the figures of all rounds.
    ///
    /// # Panics
    /// There are none.
    pub fn new(metric: &str, unit: &str, rounds: &[f64], bar: f64, better: Better) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = median(&sorted);
        let ok = match better {
            Better::Higher => median >= bar,
            Better::Lower => median <= bar,
        };
        let (min, max) = (sorted[0], sorted[sorted.len() - 1]);
        Self { metric: metric.into(), unit: unit.into(), median, min, max, bar, ok }
    }
}

/// The middle, or the mean of the two in the middle.
///
/// # Panics
/// There are no figures.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => f64::midpoint(sorted[half - 1], sorted[half]),
        _ => sorted[half],
    }
}

/// The rows as a table.
pub fn table(rows: &[Row]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.set_header(["metric", "unit", "median", "min", "max", "bar", "ok"]);
    for row in rows {
        let figure = |value: f64| format!("{value:.3}");
        let figures = [row.median, row.min, row.max, row.bar].map(figure);
        let [median, min, max, bar] = figures;
        let ok = if row.ok { "yes" } else { "NO" };
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
    fn a_row_misses_its_bar_on_the_side_that_is_worse() {
        let row = |bar, better| Row::new("m", "u", &[1.0, 2.0, 3.0], bar, better).ok;
        assert!(row(2.0, Better::Higher) && row(2.0, Better::Lower));
        assert!(!row(2.1, Better::Higher) && !row(1.9, Better::Lower));
    }
}
