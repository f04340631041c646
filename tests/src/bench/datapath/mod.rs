//! The data path's pure crate alone, in memory: no kernel, no other process, no thread.
//!
//! Time is what this machine takes; instructions and allocations are the same on every machine, and a
//! change in them is a change in the code.

mod cases;
mod crowd;
mod instructions;
mod meter;
mod offload;
mod packets;
mod wire;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use self::cases::{CASES, Case, Measure};
use self::meter::Meter;
use super::{Better, Row};

/// Long enough for a clock reading to be nothing, short enough for many rounds.
const ROUND: Duration = Duration::from_millis(50);

/// Measures `rounds` turns of each case; `told` hears how it goes. `this` is the program that
/// [`one_case`] can be asked for, which is run once more to count its instructions.
///
/// # Errors
/// A case cannot be set up.
pub fn datapath(rounds: usize, this: &Path, mut told: impl FnMut(&str)) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut counted = Vec::new();
    for case in CASES {
        told(&case.name());
        let mut work = case.set_up().with_context(|| case.name())?;
        // Once for the caches, and for what is allocated once.
        work(&mut Meter::time());
        let mut figures = Vec::new();
        for _ in 0..rounds {
            let mut meter = Meter::time();
            while meter.elapsed() < ROUND {
                work(&mut meter);
            }
            figures.push(case.figure(meter.ns_each()));
        }
        rows.push(case.row(&figures));
        let mut meter = Meter::allocations();
        work(&mut meter);
        let metric = format!("{}: allocations", case.name());
        let allocations = [meter.allocations_each()];
        counted.push(match case.measure {
            Measure::Handshake => Row::shown(&metric, "each", &allocations),
            Measure::Hit | Measure::Miss { .. } | Measure::Packet => {
                Row::new(&metric, "each", &allocations, 0.0, Better::Lower)
            }
        });
        match instructions::count(this, case)? {
            Some(each) => {
                counted.push(Row::shown(
                    &format!("{}: instructions", case.name()),
                    "each",
                    &[each],
                ));
            }
            None => told("instructions are not counted: valgrind is not installed"),
        }
    }
    told("ten thousand peers");
    rows.extend(crowd::rows(rounds)?);
    rows.extend(counted);
    Ok(rows)
}

/// Does what one case does, a few times and without measuring, for a tool that looks on from outside.
/// Returns how many times.
///
/// # Errors
/// There is no such case, or it cannot be set up.
pub fn one_case(slug: &str) -> Result<u64> {
    let named = CASES.iter().find(|case| case.slug() == slug);
    let case: &Case = named.with_context(|| format!("there is no case {slug:?}"))?;
    let mut work = case.set_up()?;
    let mut meter = Meter::times();
    work(&mut meter);
    Ok(meter.count())
}
